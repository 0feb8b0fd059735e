"""Makes the environments of the benchmarks: fastverify from this tree and the peers in one, Node's peers in another.

    python bench/install_peers.py [--python PROGRAM] [--directory .venv-bench] [--node-directory .venv-bench-node]

The Python is the one that is named, else the newest that can be found, as the strongest peer needs 3.12: python3.14
and so on down along PATH (where pyenv is in charge, any version that it has), else the one that runs this. A package
that cannot be installed is left out; the reason is kept in not-installed.json for the tables to show.

Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST, OLDEST = 14, 12
NODE_PEERS = ("fast-jwt", "jose")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", metavar="PROGRAM", default="", help="default: the newest there is")
    parser.add_argument("--directory", type=Path, default=ROOT / ".venv-bench")
    parser.add_argument("--node-directory", type=Path, default=ROOT / ".venv-bench-node")
    arguments = parser.parse_args()
    python = resolve(arguments.python) or arguments.python if arguments.python else find_python()
    install_python_peers(python, arguments.directory)
    install_node_peers(arguments.node_directory)
    return 0


def find_python() -> str:
    """The newest Python that is fit for all peers, or the one that runs this."""
    for minor in range(NEWEST, OLDEST - 1, -1):
        if program := resolve(f"python3.{minor}"):
            return program
    return sys.executable


def resolve(name: str) -> str | None:
    """The interpreter of that name, if it runs and can make environments."""
    if shutil.which(name) is None:
        return None
    for environment in ({}, *({"PYENV_VERSION": version} for version in pyenv_versions(name))):
        question = [name, "-c", "import ensurepip, sys, venv; print(sys.executable)"]
        answer = subprocess.run(question, capture_output=True, text=True, env=os.environ | environment)
        if answer.returncode == 0:
            return answer.stdout.strip()
    return None


def pyenv_versions(name: str) -> list[str]:
    """pyenv puts a program of every name it knows on PATH, which works only once a version is chosen."""
    if shutil.which("pyenv") is None:
        return []
    answer = subprocess.run(["pyenv", "whence", name], capture_output=True, text=True)
    return answer.stdout.split()[::-1]


def install_python_peers(python: str, directory: Path) -> None:
    program = directory / "bin" / "python"
    say(f"fastverify and its peers: {python} -> {directory.name}")
    if version_of(program) != version_of(python):
        subprocess.run([python, "-m", "venv", "--clear", directory], check=True)
    # Ours first, alone: without it there is nothing to compare.
    subprocess.run([*pip(program), "--editable", f"{ROOT}[embedded,hiredis]"], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    peers = project["optional-dependencies"]["bench"]
    missing: dict[str, str] = {}
    if subprocess.run([*pip(program), *peers], capture_output=True).returncode:
        # Some of them cannot be had, or not together: one by one, each leaving alone what is there.
        for peer in peers:
            if reason := failure([*pip(program), peer]):
                missing[name_of(peer).lower()] = reason
    if int(version_of(program).split(".")[1]) < OLDEST:
        missing["ryjwt"] = f"needs Python 3.{OLDEST} or newer"
    for peer, reason in missing.items():
        say(f"  without {peer}: {reason}")
    (directory / "not-installed.json").write_text(json.dumps(missing, indent=1) + "\n", "utf-8")


def install_node_peers(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    reason: str | None = "Node and npm are not installed"
    if shutil.which("node") and shutil.which("npm"):
        say(f"Node's peers -> {directory.name}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(directory), *NODE_PEERS]
        reason = failure(command)
    if reason:
        say(f"  without {' and '.join(NODE_PEERS)}: {reason}")
    (directory / "not-installed.json").write_text(
        json.dumps({} if reason is None else {"node": reason}) + "\n", "utf-8"
    )


def version_of(python: str | Path) -> str:
    """Its version, or nothing if it does not run."""
    try:
        return subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""


def pip(program: Path) -> list[str]:
    return [str(program), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


def failure(command: list[str]) -> str | None:
    """Run it; why it failed, in a line, or None."""
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode == 0:
        return None
    lines = (answer.stderr or answer.stdout).strip().splitlines() or ["no reason given"]
    return next((line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")), lines[-1])


def name_of(requirement: str) -> str:
    """The distribution that a requirement names."""
    return requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
