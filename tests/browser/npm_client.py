"""The unmodified web clients, packed for a page by a bundler, as any application that uses them does.

The packages ship CommonJS only. ``npm ci`` checks every file against the integrity hashes of ``package-lock.json``, and
the bundler starts from the packages' own entry points: nothing of ours gets in between.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

CLIENT = Path(__file__).with_name("client")


class Scripts(NamedTuple):
    """What a page loads."""

    #: ``supertokens-website``, as the global ``supertokens``.
    website: bytes
    #: ``supertokens-web-js``, as the global ``webJs``: ``webJs.SuperTokens`` and ``webJs.Session``.
    web_js: bytes


#: Of each script: its global, and a module that says what is in it.
_ENTRIES = {
    "website": ("supertokens", 'export * from "supertokens-website"; export { default } from "supertokens-website";'),
    "web_js": (
        "webJs",
        'export { default as SuperTokens } from "supertokens-web-js";'
        'export * as Session from "supertokens-web-js/recipe/session";',
    ),
}


class NotInstalled(Exception):
    """``npm`` could not install what the lock file names; holds what it said."""


def client_scripts(cache: Path, npm: str) -> Scripts:
    """The scripts. Made once, and again when their recipe changes; in ``cache``.

    Raises:
        NotInstalled: no registry in reach, usually.
    """
    manifest = [CLIENT / "package.json", CLIENT / "package-lock.json"]
    recipe = [*manifest, Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in recipe)).hexdigest()
    kept = cache / f"client-{digest[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever else needs them waits for the one who makes them
        if not kept.exists():
            _pack(manifest, npm, kept)
    return Scripts(*(kept.joinpath(f"{name}.js").read_bytes() for name in Scripts._fields))


def _pack(manifest: list[Path], npm: str, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        for path in manifest:
            shutil.copy(path, work)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        made = Path(work, "made")
        for name, (in_page, module) in _ENTRIES.items():
            options = ["--bundle", "--format=iife", f"--global-name={in_page}", "--log-level=error"]
            _run(["node_modules/.bin/esbuild", *options, f"--outfile={made / name}.js"], work, module)
        os.replace(made, kept)  # whole or not at all


def _run(command: list[str], where: str, text: str = "") -> None:
    done = subprocess.run(command, cwd=where, input=text, capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise NotInstalled(f"{Path(command[0]).name} {command[1]}: {done.stderr.strip()[-500:]}")
