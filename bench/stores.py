"""The servers that the benchmarks talk to: their own, on a loopback port, for as long as the program runs; and what
fills them.

A server is Valkey or Redis as `embedded.find_binary` finds it, started through the library's watchdog, so that it ends
with the program however that ends. Settings are those that docs/store.md asks for: append-only file, everysec.

Sessions are made by the library's own script, called as its flow calls it, many in one round trip. Blacklist entries
are written straight into the sets that `lua/parts/blacklist.lua` keeps: ten million acknowledged revocations would take
a while.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from fastverify import Config, flows
from fastverify.authority import Authority
from fastverify.placement import Placement
from fastverify.store import Call, Store, embedded
from fastverify.tokens import SECRET_BYTES, encode_refresh_token

#: A server that is started on large files reads them first.
READY_SECONDS = 300.0
ENTRY_BYTES = 25
#: As many as one command and one round trip carry.
ENTRIES_A_COMMAND, SESSIONS_A_TRIP = 5_000, 100
#: Sets that live entries are spread over: an hour's, of five minutes each, and some margin.
WINDOWS = 13
_ENTRY_AS_SENT = b"$25\r\n\x01" + bytes(24) + b"\r\n"


class Server:
    """A server that a program may stop, kill and start again on the same data."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.binary = embedded.find_binary()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._settings = settings
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        settings = {
            **{"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": ""},
            **{"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"},
            **self._settings,
        }
        command = [self.binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", str(embedded._WATCHDOG), *command],
                stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while not self._serves():
            if self._watchdog.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not start: {log.read_text('utf-8')[-1000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None

    def kill(self) -> None:
        """End it as a power cut does, and wait until it is gone."""
        assert self._watchdog is not None
        os.kill(self.pid, signal.SIGKILL)
        self._watchdog.wait()
        self.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Makes it stand still: connections stay open, and nothing is answered."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process that holds the data."""
        return int(self.info("server")["process_id"])

    def client(self) -> redis.Redis:
        """A plain client."""
        return redis.Redis.from_url(self.url, protocol=2)

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.info(section))

    @property
    def memory(self) -> int:
        """Bytes that the data takes, as the server counts them."""
        return int(self.info("memory")["used_memory"])

    def version(self) -> str:
        server = self.info("server")
        name = "Valkey" if "valkey_version" in server else "Redis"
        return f"{name} {server.get('valkey_version', server['redis_version'])}"

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    """A loopback port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Server]:
    """One that runs until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    one = Server(directory, **settings)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def settings(**changes: Any) -> Config:
    """Of the service that is measured. Not strict about reuse unless asked."""
    options: dict[str, Any] = {"api_domain": "http://api.test", "website_domain": "http://api.test"}
    return Config(**{**options, "secret": bytes(range(32)), **changes})


# --- filling ---


def create_many(
    store: Store, authority: Authority, users: Iterable[str], payload: dict[str, Any] | None = None
) -> Iterator[str]:
    """The refresh tokens of new sessions of these users; a hundred sessions in each round trip.

    The library's flow is asked once what it sends; with another user, handle and secret each time, that is sent for
    all: to sign an access token for each of a million sessions would take longer than everything else.
    """
    given: list[bytes] = []

    def random(size: int) -> bytes:
        given.append(os.urandom(size))
        return given[-1]

    flow = flows.create(authority, "a user", now=time.time(), random=random, payload=payload)
    model = next(flow)
    assert isinstance(model, Call)
    flow.close()
    secret = next(value for value in given if len(value) == SECRET_BYTES)
    placement, keys = authority.placement, authority.service_keys[0]
    remaining = iter(users)
    while some := list(islice(remaining, SESSIONS_A_TRIP)):
        calls, tokens = [], []
        for user in some:
            raw, its_secret = placement.handle(user, os.urandom(16)), os.urandom(SECRET_BYTES)
            other = {model.args[0]: str(uuid.UUID(bytes=raw)), "a user": user, secret: its_secret}
            args = tuple(other.get(value, value) for value in model.args)
            calls.append(Call(model.script, authority.tag_of_handle(raw), args))
            tokens.append(encode_refresh_token(keys, its_secret, raw, 0))
        for call, reply in zip(calls, store.run_many(calls), strict=True):
            assert reply[0] == str(call.args[0]).encode()
        yield from tokens


def fill_entries(client: redis.Redis, placement: Placement, entries: int, *, first_window: int) -> bytes:
    """Write that many random sessions' entries, spread over all shards; some of their handles, sixteen bytes each."""
    numbers, sample = random.Random(7), bytearray()
    connection = client.connection_pool.get_connection()
    for shard, tag in enumerate(placement.tags):
        for place in range(WINDOWS):
            window = first_window + 300 * place
            count = share(share(entries, placement.shards, shard), WINDOWS, place)
            for done in range(0, count, ENTRIES_A_COMMAND):
                some = min(ENTRIES_A_COMMAND, count - done)
                members = _members(numbers, some, placement.shards, shard)
                connection.send_packed_command([_command(some, "SADD", f"{tag}:rev:{window}"), members])
                if connection.read_response() != some:
                    raise SystemExit("two of the random entries are the same")
                sample += members[6:22]
            if count:
                for command in (
                    ("EXPIREAT", f"{tag}:rev:{window}", window),
                    ("ZADD", f"{tag}:windows", window, window),
                ):
                    connection.send_command(*command)
                    connection.read_response()
    client.connection_pool.release(connection)
    return bytes(sample)


def share(total: int, parts: int, number: int) -> int:
    """What one of several gets when all get the same, and the first ones what is left over."""
    return total // parts + (number < total % parts)


def _command(members: int, name: str, key: str) -> bytes:
    return b"*%d\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (members + 2, len(name), name.encode(), len(key), key.encode())


def _members(numbers: random.Random, count: int, shards: int, shard: int) -> bytes:
    """Entries as they are sent: built by columns, for there are millions of them."""
    size = len(_ENTRY_AS_SENT)
    members = bytearray(_ENTRY_AS_SENT * count)
    first = numbers.randbytes(count)
    members[6::size] = bytes(byte - byte % shards + shard for byte in first)
    for column in range(7, 22):
        members[column::size] = numbers.randbytes(count)
    return bytes(members)
