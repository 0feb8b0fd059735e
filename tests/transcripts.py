"""Pages that show what to type and what comes back: their programs are started, and their commands are run.

A page names in its first paragraphs what to start (``uvicorn name:app --port 8000``), shows the programs of
``examples/`` word for word, and in ``console`` blocks commands behind ``$`` with what they print. ``...`` in what is
printed stands for anything. Ports 8000 to 8009 are others in a test, and so is the store.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fix_requirements import require_tool

ROOT = Path(__file__).resolve().parent.parent
#: Each program keeps its sessions apart from the others': a stranger goes from page to page.
STORE = re.compile(r"embedded:///tmp/fastverify-[a-z-]+")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVER = re.compile(r"^(?:uvicorn|flask) .*--port \d+.*$", re.MULTILINE)
_PORT = re.compile(r"\b800\d\b")


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in this language."""
    return [text for name, text in _BLOCK.findall(page.read_text("utf-8")) if name == language]


def examples_shown(page: Path) -> list[Path]:
    """The files of ``examples/`` that a page shows word for word."""
    shown = blocks(page, "python")
    return [path for path in sorted((ROOT / "examples").glob("*.py")) if path.read_text("utf-8") in shown]


def transcript(page: Path) -> list[tuple[str, str]]:
    """Commands, and what each prints."""
    steps = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.split("\n")
            said = next((n for n, line in enumerate(lines) if not line.startswith("> ") and n), len(lines))
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:said])])
            steps.append((command, "\n".join(lines[said:]).strip()))
    return steps


class Ports:
    """Free ports in the place of those that pages name."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def replaced(self, text: str) -> str:
        """The text with our ports in it."""
        return _PORT.sub(lambda match: self._of.setdefault(match[0], str(_free_port())), text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(page: Path, where: Path, ports: Ports) -> Iterator[None]:
    """Run the servers of a page, with its programs and its store below this directory."""
    for path in examples_shown(page):
        text = ports.replaced(STORE.sub(f"embedded://{where}/store", path.read_text("utf-8")))
        assert "///tmp/fastverify" not in text, f"{path.name} has no store of its own"
        (where / path.name).write_text(text, "utf-8")
    servers = [line for block in blocks(page, "sh") for line in _SERVER.findall(block)]
    assert servers, f"{page.name} says not what to start"
    with ExitStack() as stack:
        for server in servers:
            words = shlex.split(ports.replaced(server), comments=True)
            log = stack.enter_context((where / "server.log").open("ab"))
            process = subprocess.Popen([sys.executable, "-m", *words], cwd=where, stdout=log, stderr=log, env=_env())
            stack.callback(_stop, process)
            _wait_for(int(words[words.index("--port") + 1]), process, where / "server.log")
        yield


def _env() -> dict[str, str]:
    """With this environment's programs first, and this library."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


class PortTaken(Exception):
    """Somebody else was faster."""


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    said = log.read_text("utf-8", "replace")
    if "already in use" in said:
        raise PortTaken
    raise AssertionError(f"the server does not start: {said[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_commands(commands: list[str], where: Path) -> list[str]:
    """What each command prints, all of them typed into one shell."""
    script = [f"{{\n{command}\n}} >out.{number} 2>&1" for number, command in enumerate(commands)]
    subprocess.run(["bash"], input="\n".join(script), text=True, cwd=where, env=_env(), timeout=100, check=False)
    outputs = [where / f"out.{number}" for number in range(len(commands))]
    return [path.read_text("utf-8").replace("\r", "").strip() if path.exists() else "(not run)" for path in outputs]


def check(page: Path, where: Path) -> None:
    """Start what a page says, type what it types, and compare what comes back."""
    steps = transcript(page)
    assert steps, f"{page.name} shows nothing to type"
    for tool in ("bash", "curl"):
        require_tool(tool, f"apt-get install {tool}, by which the pages' commands are typed")
    for attempt in range(3):
        ports, folder = Ports(), where / f"attempt-{attempt}"
        folder.mkdir()
        try:
            with served(page, folder, ports):
                printed = run_commands([ports.replaced(command) for command, _ in steps], folder)
            break
        except PortTaken:
            continue
    else:
        raise AssertionError("no port stays free")
    for (command, expected), actual in zip(steps, printed, strict=True):
        pattern = re.escape(ports.replaced(expected)).replace(re.escape("..."), ".*")
        log = (folder / "server.log").read_text("utf-8", "replace")[-3000:]
        assert re.fullmatch(pattern, actual), f"{page.name}: $ {command}\n{actual}\n\nnot\n\n{expected}\n\n{log}"
