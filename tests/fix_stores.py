"""Servers to test against: an embedded Valkey and Debian's Redis for the whole run; others for tests that break them.

All of them are started through the project's own watchdog, so that a test run that is killed leaves none behind.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from fix_requirements import require_tool

from fastverify.store import embedded, open_store

#: How long anything may take before a test fails, in seconds.
WAIT = 20.0
#: Limits for a store that is not tested for its time-outs: a busy machine must not fail a test.
PATIENT: dict[str, Any] = {"acquire": WAIT, "connect": WAIT, "command": WAIT, "total": WAIT}


class Place(NamedTuple):
    """Where a server runs: its address, and what to put before its command to start it there."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


LOOPBACK = Place()


class LaunchedServer:
    """A Redis or Valkey that a test may stop, kill, restart and configure; plain settings, append-only file on.

    It listens on a loopback port that stays the same over a restart. ``url`` may be given to ``open_store``.
    """

    def __init__(
        self, binary: str, directory: Path, *, place: Place = LOOPBACK, **settings: str | tuple[str, ...]
    ) -> None:
        self.binary = binary
        self.directory = directory
        self.place = place
        self.settings = settings
        self.port = _free_port()
        self.url = f"redis://{place.address}:{self.port}/0"
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._frozen: int | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._watchdog = subprocess.Popen(
                [*self.place.enter, sys.executable, "-I", "-S", str(embedded._WATCHDOG), *self._command()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + WAIT
        while not self._serves():
            assert self._watchdog.poll() is None, f"{self.binary} ended as it started: {log.read_text()[-1000:]}"
            assert time.monotonic() < deadline, f"{self.binary} does not serve: {log.read_text()[-1000:]}"
            time.sleep(0.005)

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped or killed since."""
        return self._watchdog is not None

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        self.thaw()
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            self._watchdog.wait(WAIT)
            self._watchdog = None

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        assert self._watchdog is not None
        os.kill(self._frozen or self._pid(), signal.SIGKILL)
        self._frozen = None
        self._watchdog.wait(WAIT)
        self.stop()

    def freeze(self) -> None:
        """Make it stand still (SIGSTOP): it is there, and says nothing."""
        self._frozen = self._pid()
        os.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, if it was made to stand still."""
        if self._frozen is not None:
            os.kill(self._frozen, signal.SIGCONT)
            self._frozen = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Makes it stand still (SIGSTOP) for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def fill_disk(self) -> None:
        """Let no file of its grow beyond what its largest has now, as on a disk that is full.

        Writing fails with another error than there (EFBIG, not ENOSPC), which makes no difference to what it does. The
        signal that goes with it is ignored, by what started it.
        """
        largest = max(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())
        self._limit_files(largest)

    def free_disk(self) -> None:
        """Let its files grow again."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        pid = self._pid()
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))

    def client(self) -> redis.Redis:
        """A plain client, to look and to meddle with."""
        return redis.Redis(self.place.address, self.port, password=self.settings.get("requirepass"), protocol=2)

    def _command(self) -> list[str]:
        settings: dict[str, str | tuple[str, ...]]
        settings = {"bind": self.place.address, "port": str(self.port), "dir": str(self.directory), "save": ""}
        settings |= {"appendonly": "yes", "appendfsync": "always", "enable-debug-command": "yes"} | self.settings
        command = [self.binary]
        for name, value in settings.items():
            command += [f"--{name}", *((value,) if isinstance(value, str) else value)]
        return command

    def _pid(self) -> int:
        with self.client() as client:
            return int(client.info("server")["process_id"])

    def _serves(self) -> bool:
        """Whether it answers, and not that it is still loading its data. (Where it talks TLS: whether it listens.)"""
        try:
            with socket.create_connection((self.place.address, self.port), timeout=0.25) as probe:
                if "tls-port" in self.settings:
                    return True
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


#: What a server says of itself when a connection is made, to each of the commands sent then.
GREETING = b"redis_version:7.0.15\r\nrole:master\r\nconnected_slaves:0\r\nmaxmemory_policy:noeviction\r\n"


def return_greeting(client: socket.socket) -> None:
    """Be a Redis that is just as it should be, until it is asked to run something."""
    commands = 0
    while commands < 5:  # INFO four times, and CONFIG GET
        commands += client.recv(65536).count(b"*")
        if commands in (2, 5):
            client.sendall((b"$%d\r\n%b\r\n" % (len(GREETING), GREETING)) * (2 if commands == 2 else 3))


#: Ports that were given out: on another host they are not seen to be taken.
_given: set[int] = set()


def _free_port() -> int:
    """A port that nobody has, nor its cluster bus, 10,000 above it; both below those that connections are given.

    Of pytest's workers each has ports of its own: that of a server which is down for a moment must stay free.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 10_000 + 8 * secrets.randbelow(1_500) + worker % 8
        if port in _given:
            continue
        with suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            _given.add(port)
            return port


def server_binary(kind: str) -> str:
    """The server program: "valkey", the embedded one, or "redis", Debian's."""
    return embedded.find_binary() if kind == "valkey" else debian_redis()


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
    settings = {"appendfsync": "everysec"}  # nobody kills it, and the tests have no need to wait for the disk
    server = LaunchedServer(debian_redis(), tmp_path_factory.mktemp("redis"), **settings)
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

    def start(**settings: str | tuple[str, ...]) -> LaunchedServer:
        directory = tmp_path / f"server{len(started)}"
        directory.mkdir()
        server = LaunchedServer(server_binary(request.param), directory, **settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
