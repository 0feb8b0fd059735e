"""A core built with sanitizers, in a copy of the project: the ordinary build and its environment stay as they are.

The copy is a folder to put first on PYTHONPATH, where it hides the installed package. Used by `make sanitize` and
`make fuzz`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Python's own flags make signed overflow wrap, which would silence the check for it.
FLAGS = (
    *("-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)
#: Leaks that are not ours, by what is found on the stack where the memory was asked for.
LEAKS_OF_OTHERS = {
    "_rust.abi3.so": "cryptography keeps its classes for good",
    "_pydantic_core": "likewise",
    "_cffi_backend": "likewise",
    "_PyObject_GC_New": "Python objects that such libraries hold where LeakSanitizer does not look",
    "PyModule_ExecDef": "CPython forgets the state of an extension that is imported a second time",
    "traceback_new": "tracemalloc's own books",
}
_SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "src", "fastverify")
_PRODUCTS = shutil.ignore_patterns("*.so", "*.c", "__pycache__")


def build_core(folder: Path, compiler: str, flags: Sequence[str], addition: Path | None = None) -> Path:
    """Build the project in `folder` unless it lies there already, made of the same; returns the extension.

    Args:
        addition: a fragment that becomes the last of the core's, to reach what is not public.

    Raises:
        SystemExit: the build failed; its output has been shown.
    """
    recipe, made_of = folder / "recipe", _digest(compiler, flags, addition)
    if not (recipe.exists() and recipe.read_text() == made_of):
        say(f"building the core with {compiler} and its sanitizers in {folder} ...")
        shutil.rmtree(folder, ignore_errors=True)
        _copy_sources(folder, addition)
        command = [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--inplace", "--build-temp", "temp"]
        environment = os.environ | {"CC": compiler, "LDSHARED": f"{compiler} -shared", "CFLAGS": " ".join(flags)}
        built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if built.returncode:
            raise SystemExit(f"{built.stdout}{built.stderr}\nThe core could not be built with {compiler}.")
        recipe.write_text(made_of)
    (library,) = (folder / "fastverify").glob("_core.*.so")
    return library


def leak_options(folder: Path) -> str:
    """LSAN_OPTIONS, with the leaks of others in a file in `folder`."""
    suppressions = folder / "leaks_of_others"
    suppressions.write_text("".join(f"leak:{pattern}\n" for pattern in LEAKS_OF_OTHERS))
    return f"suppressions={suppressions}:print_suppressions=0"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"--> {text}", file=sys.stderr, flush=True)


def _copy_sources(folder: Path, addition: Path | None) -> None:
    folder.mkdir(parents=True)
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=_PRODUCTS)
        else:
            shutil.copy2(ROOT / name, folder)
    if addition is not None:
        shutil.copy2(addition, folder / "src" / "_core")
        with (folder / "src" / "_core.pyx").open("a") as unit:
            unit.write(f'include "_core/{addition.name}"\n')


def _digest(compiler: str, flags: Sequence[str], addition: Path | None) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(repr((sys.version, version, flags)).encode())
    files = [
        path for name in _SOURCES for path in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])
    ]
    for path in sorted([*files, *([addition] if addition else [])]):
        if (
            path.is_file()
            and path.name not in _PRODUCTS(str(path.parent), [path.name])
            and "__pycache__" not in path.parts
        ):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
