"""The types: mypy's strict rules over the package, and the hand-written stub against the compiled core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: What a compiled module has, and a stub does not declare; some of it from one Python on.
ALLOWED = ROOT / "tests" / "stubtest_allowed.txt"


def run(*command: str) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


@pytest.mark.timeout(300)
def test_the_package_passes_mypys_strict_rules() -> None:
    run("mypy")


@pytest.mark.timeout(300)
def test_the_cores_stub_says_what_the_core_has() -> None:
    options = ("--mypy-config-file=pyproject.toml", f"--allowlist={ALLOWED}", "--ignore-unused-allowlist")
    run("mypy.stubtest", "fastverify._core", *options)
