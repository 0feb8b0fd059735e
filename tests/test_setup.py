"""A build that cannot succeed says what to install; one without OpenSSL headers succeeds (ecosystem.md section 2)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: A compiler that has everything but the library.
WITHOUT_LIBCRYPTO = """#!/bin/sh
case "$*" in *libcrypto*) echo "cannot find -lcrypto" >&2; exit 1;; esac
exec cc "$@"
"""


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py build_ext on a copy of what it needs; nothing of the tree is touched."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.c"))
    shutil.copytree(ROOT / "fastverify", folder / "fastverify", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    clean = {name: value for name, value in os.environ.items() if name not in ("CC", "CFLAGS", "LDSHARED")}
    command = [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--build-lib", "lib", "--build-temp", "temp"]
    return subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_build_without_a_compiler_names_the_packages(tmp_path: Path) -> None:
    result = build(tmp_path, CC=str(tmp_path / "no-such-compiler"))
    assert result.returncode != 0
    assert "apt-get install gcc python3-dev" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_build_without_libcrypto_names_the_packages(tmp_path: Path, kind: str) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(WITHOUT_LIBCRYPTO)
    compiler.chmod(0o755)
    result = build(tmp_path, CC=str(compiler), FASTVERIFY_CRYPTO=kind)
    assert result.returncode != 0
    assert "apt-get install libssl3" in result.stderr
    assert "Traceback" not in result.stderr


def test_build_with_another_kind_of_libcrypto_is_refused(tmp_path: Path) -> None:
    result = build(tmp_path, FASTVERIFY_CRYPTO="magic")
    assert result.returncode != 0
    assert "shared or static" in result.stderr


@pytest.mark.long
def test_static_build_carries_its_own_libcrypto(tmp_path: Path) -> None:
    archive = subprocess.run(["cc", "-print-file-name=libcrypto.a"], capture_output=True, text=True, check=True)
    if not Path(archive.stdout.strip()).is_absolute():
        pytest.skip("libcrypto.a is not here: install libssl-dev")
    result = build(tmp_path, FASTVERIFY_CRYPTO="static", CFLAGS="-O1")
    assert result.returncode == 0, result.stderr
    (library,) = (tmp_path / "lib" / "fastverify").glob("_core.*")
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "libcrypto" not in needed
    shutil.copy(library, tmp_path / "fastverify")
    program = "import fastverify; print(fastverify.openssl_info()['linkage'])"
    shown = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == "static\n"
