"""What is handed out: an sdist that builds, and a wheel that works where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastverify"

pytestmark = pytest.mark.timeout(600)

#: A session's whole life, by the installed wheel alone.
MAIN_JOB = """
import asyncio, secrets, sys
import fastverify

here = "http://localhost"
config = fastverify.Config(api_domain=here, website_domain=here, secret=secrets.token_bytes(32))

def blocking(store):
    with fastverify.Sessions.connect(store, config) as sessions:
        issued = sessions.create("user-1", payload={"plan": "pro"})
        assert sessions.verify(issued.access_token).payload["plan"] == "pro"
        issued = sessions.refresh(issued.refresh_token)
        session = sessions.verify(issued.access_token)
        assert sessions.revoke(session.handle)
        try:
            sessions.verify(issued.access_token)
        except fastverify.Unauthorised:
            return
        raise AssertionError("a revoked session was accepted")

async def asynchronous(store):
    async with fastverify.AsyncSessions.connect(store, config) as sessions:
        issued = await sessions.create("user-2", payload={"plan": "pro"})
        assert sessions.verify(issued.access_token).payload["plan"] == "pro"
        issued = await sessions.refresh(issued.refresh_token)
        session = sessions.verify(issued.access_token)
        assert await sessions.revoke(session.handle)
        try:
            sessions.verify(issued.access_token)
        except fastverify.Unauthorised:
            return
        raise AssertionError("a revoked session was accepted")

blocking(sys.argv[1])
asyncio.run(asynchronous(sys.argv[1]))
print(fastverify.__file__)
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built from it and not from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_sdist_holds_the_cores_sources_and_no_generated_ones(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(p.relative_to(ROOT)) for p in ROOT.glob("src/**/*.p[yx][xd]")}
    assert sources <= names
    assert {"LICENSE", "README.md", "setup.py", "pyproject.toml", "Makefile"} <= names
    written = {"tests/fuzz/driver.c"}  # by hand
    assert not {name for name in names if name.endswith((".c", ".so", ".pyc")) or "node_modules" in name} - written


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    kinds = ("*.py", "*.pyi", "py.typed", "*.lua", "*.html", "*.css", "*.js")
    expected = {str(p.relative_to(ROOT)) for kind in kinds for p in PACKAGE.rglob(kind)}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    (core,) = {name for name in names if name.endswith(".so")}
    assert core.startswith("fastverify/_core.")
    assert names - {core} == expected


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel and what it needs, and the variables its commands are given."""

    bin: Path
    variables: dict[str, str]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel and the embedded store, installed where no compiler can be found and none is asked for."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    bin = folder / "venv" / "bin"
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": str(bin), "CC": "/bin/false"}
    requirement = f"{wheel}[embedded]"
    run(
        bin / "python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", requirement, cwd=folder, env=variables
    )
    return Installed(bin, variables)


def test_the_wheel_does_the_main_job_where_there_is_no_compiler(installed: Installed, tmp_path: Path) -> None:
    script = tmp_path / "main_job.py"
    script.write_text(MAIN_JOB, "utf-8")
    store = f"embedded://{tmp_path}/store"
    where = run(installed.bin / "python", script, store, cwd=tmp_path, env=installed.variables)
    assert Path(where.strip()).is_relative_to(installed.bin.parent)


def test_the_command_without_its_extra_says_what_to_install(installed: Installed, tmp_path: Path) -> None:
    command = [str(installed.bin / "fastverify"), "demo", "--once"]
    result = subprocess.run(command, cwd=tmp_path, env=installed.variables, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'fastverify[server]'" in result.stderr
