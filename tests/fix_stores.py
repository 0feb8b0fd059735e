"""Servers to test against: an embedded Valkey and Debian's Redis for the whole run; others for tests that break them.

All of them are started through the project's own watchdog, so that a test run that is killed leaves none behind.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from fix_requirements import require_tool

from fastverify.store import embedded, open_store

READY_SECONDS = 20.0


class LaunchedServer:
    """A Redis or Valkey that a test may stop, kill, restart and configure; plain settings, append-only file on.

    It listens on a loopback port that stays the same over a restart. ``url`` may be given to ``open_store``.
    """

    def __init__(self, binary: str, directory: Path, **settings: str) -> None:
        self.binary = binary
        self.directory = directory
        self.settings = settings
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        settings = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": ""}
        settings |= {"appendonly": "yes", "appendfsync": "always", "enable-debug-command": "yes"} | self.settings
        command = [self.binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", str(embedded._WATCHDOG), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._accepts():
            assert self._watchdog.poll() is None, f"{self.binary} ended as it started: {log.read_text()[-1000:]}"
            assert time.monotonic() < deadline, f"{self.binary} does not listen: {log.read_text()[-1000:]}"
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            self._watchdog.wait(READY_SECONDS)
            self._watchdog = None

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        assert self._watchdog is not None
        with self.client() as client:
            os.kill(client.info("server")["process_id"], 9)
        self._watchdog.wait(READY_SECONDS)
        self.stop()

    def client(self) -> redis.Redis:
        """A plain client, to look and to meddle with."""
        return redis.Redis(port=self.port, password=self.settings.get("requirepass"))

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.25).close()
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def debian_redis() -> str:
    """Debian's Redis, or a skip."""
    return require_tool("redis-server", "apt-get install redis-server")


@pytest.fixture(scope="session")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded store for the run; tests share it and keep apart by ``unique_prefix``."""
    store = open_store(f"embedded://{tmp_path_factory.mktemp('embedded')}")
    store.start()
    yield store.url
    store.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's redis-server for the run, over TCP; tests share it and keep apart by ``unique_prefix``."""
    server = LaunchedServer(debian_redis(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(params=["embedded", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each of the stores in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def unique_prefix() -> str:
    """A key prefix that no other test has."""
    return f"t{secrets.token_hex(6)}"


Launch = Callable[..., LaunchedServer]


@pytest.fixture(params=["valkey", "redis"])
def launch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launch]:
    """Starts a server of one's own, of each kind in turn, and stops it: ``launch(requirepass="x")``."""
    started: list[LaunchedServer] = []

    def start(**settings: str) -> LaunchedServer:
        directory = tmp_path / f"server{len(started)}"
        directory.mkdir()
        binary = embedded.find_binary() if request.param == "valkey" else debian_redis()
        server = LaunchedServer(binary, directory, **settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
