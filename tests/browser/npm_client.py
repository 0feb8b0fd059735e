"""The unmodified web client, packed for a page by a bundler, as any application that uses it does.

The package ships CommonJS only. ``npm ci`` checks every file against the integrity hashes of ``package-lock.json``,
and the bundler starts from the package's own entry point: nothing of ours gets in between.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CLIENT = Path(__file__).with_name("client")


class NotInstalled(Exception):
    """``npm`` could not install what the lock file names; holds what it said."""


def client_bundle(cache: Path, npm: str) -> bytes:
    """One script that defines the global ``supertokens``. Made once, and again when its recipe changes; in ``cache``.

    Raises:
        NotInstalled: no registry in reach, usually.
    """
    manifest = [CLIENT / "package.json", CLIENT / "package-lock.json"]
    recipe = [*manifest, Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()
    script = cache / f"client-{digest[:16]}.js"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever else needs it waits for the one who makes it
        if not script.exists():
            _pack(manifest, npm, script)
    return script.read_bytes()


def _pack(manifest: list[Path], npm: str, script: Path) -> None:
    with tempfile.TemporaryDirectory(dir=script.parent) as work:
        for path in manifest:
            shutil.copy(path, work)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        entry = "node_modules/supertokens-website/index.js"
        options = ["--bundle", "--format=iife", "--global-name=supertokens", "--log-level=error"]
        _run(["node_modules/.bin/esbuild", entry, *options, "--outfile=client.js"], work)
        os.replace(Path(work, "client.js"), script)  # whole or not at all


def _run(command: list[str], where: str) -> None:
    done = subprocess.run(command, cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise NotInstalled(f"{Path(command[0]).name} {command[1]}: {done.stderr.strip()[-500:]}")
