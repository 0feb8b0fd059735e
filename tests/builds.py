"""Cores built apart, from a copy of the sources that a test may change; the tree is not touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(
    folder: Path, edit: Callable[[Path], object] = lambda _: None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run setup.py build_ext on a copy of what it needs."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.c"))
    shutil.copytree(ROOT / "fastverify", folder / "fastverify", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    edit(folder)
    clean = {name: value for name, value in os.environ.items() if name not in ("CC", "CFLAGS", "LDSHARED")}
    command = [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--build-lib", "lib", "--build-temp", "temp"]
    return subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True, check=False, timeout=300
    )


def build_package(folder: Path, edit: Callable[[Path], object] = lambda _: None, **environment: str) -> Path:
    """A package `fastverify` in the folder, with its core; where that is."""
    result = build(folder, edit, **environment)
    assert result.returncode == 0, result.stderr
    (library,) = (folder / "lib" / "fastverify").glob("_core.*")
    return Path(shutil.copy(library, folder / "fastverify"))


def run_with(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program on the package in that folder, with the modules of the tests at hand."""
    paths = [str(folder), str(ROOT / "tests"), *(path for path in sys.path if path)]
    where = f"import fastverify\nassert fastverify.__file__ == {str(folder / 'fastverify' / '__init__.py')!r}\n"
    return subprocess.run(
        [sys.executable, "-c", where + program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
