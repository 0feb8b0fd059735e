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
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import redis

from fastverify import Config, Sessions, flows
from fastverify.authority import Authority
from fastverify.placement import Placement
from fastverify.store import Call, Store, embedded, open_store
from fastverify.tokens import SECRET_BYTES, encode_refresh_token

#: A server that is started on large files reads them first.
READY_SECONDS = 300.0
#: Limits for what is not measured for its time-outs: a busy machine must not end a program.
PATIENT = {"acquire": 60.0, "connect": 60.0, "command": 60.0, "total": 120.0}
#: The name by which the Sentinel knows its primary.
SERVICE = "sessions"
#: A replica that begins anew need not wait for others that might.
_PROMPT = {"repl-diskless-sync-delay": "0"}
#: As many as one command and one round trip carry.
ENTRIES_A_COMMAND, SESSIONS_A_TRIP = 5_000, 100
#: Sets that live entries are spread over: an hour's, of five minutes each, and some margin.
WINDOWS = 13
Runs = TypeVar("Runs", "Server", "Pair")
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
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", str(embedded._WATCHDOG), *self._command()],
                stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS
        while not self._serves():
            if self._watchdog.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not start: {log.read_text('utf-8')[-1000:]}")
            time.sleep(0.01)

    def _command(self) -> list[str]:
        settings = {
            **{"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": ""},
            **{"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"},
            **self._settings,
        }
        return [self.binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]

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

    def restart(self) -> None:
        """End it as a power cut does, and start it again on its files."""
        self.kill()
        self.start()

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


class Sentinel(Server):
    """Watches a primary; alone, it is enough to decide."""

    def __init__(self, directory: Path, primary: Server) -> None:
        super().__init__(directory)
        self._file = directory / "sentinel.conf"  # it writes there what it learns
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 10000",
        )
        self._file.write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [self.binary, str(self._file), "--sentinel"]


class Pair:
    """A primary with a replica under a Sentinel; what it shares with a `Server` is the primary's of the moment."""

    def __init__(self, directory: Path) -> None:
        self._nodes = [Server(folder(directory, name), **_PROMPT) for name in ("one", "two")]
        self._sentinel = Sentinel(folder(directory, "sentinel"), self._nodes[0])
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/{SERVICE}/0"

    def start(self) -> None:
        """Start all three, and wait until the replica follows."""
        first, second = self._nodes
        for one in (first, second):
            one.start()
        follow(second, first)
        self._sentinel.start()
        self._until("the Sentinel knows the replica", self._complete)

    def stop(self) -> None:
        """End all three."""
        for one in (self._sentinel, *self._nodes):
            one.stop()

    @property
    def primary(self) -> Server:
        """As the Sentinel has it."""
        with self._sentinel.client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(node for node in self._nodes if node.port == int(port))

    def fail_over(self) -> None:
        """Ask for a failover, and wait until it is done and there is a replica again."""
        former = self.primary
        with self._sentinel.client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        self._until("the other is the primary", lambda: self.primary is not former)
        self._until("the former primary follows", self._complete)

    def restart(self) -> None:
        """End the primary by SIGKILL, wait until the other is it, and start the former as its replica."""
        former = self.primary
        former.kill()
        self._until("the other is the primary", lambda: self.primary is not former)
        former.start()
        follow(former, self.primary)
        self._until("the former primary follows", self._complete)

    def paused(self) -> AbstractContextManager[None]:
        return self.primary.paused()

    def client(self) -> redis.Redis:
        return self.primary.client()

    def info(self, section: str) -> dict[str, Any]:
        return self.primary.info(section)

    @property
    def memory(self) -> int:
        return self.primary.memory

    def version(self) -> str:
        return f"{self.primary.version()} and a replica, under Sentinel"

    def _complete(self) -> bool:
        primary = self.primary
        (replica,) = (node for node in self._nodes if node is not primary)
        with self._sentinel.client() as client:
            known = client.execute_command("SENTINEL", "REPLICAS", SERVICE)
        return bool(known) and replica.info("replication").get("master_link_status") == "up"

    @staticmethod
    def _until(what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with suppress(redis.RedisError):
                if true():
                    return
            time.sleep(0.05)
        raise SystemExit(f"not in time: {what}")


def follow(replica: Server, primary: Server) -> None:
    """Make a server another's replica."""
    with replica.client() as client:
        client.replicaof("127.0.0.1", primary.port)


def folder(directory: Path, name: str) -> Path:
    """A new one in another."""
    made = directory / name
    made.mkdir(parents=True)
    return made


def free_port() -> int:
    """A loopback port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Server]:
    """One that runs until the end of the block."""
    directory.mkdir(parents=True, exist_ok=True)
    with running(Server(directory, **settings)) as one:
        yield one


@contextmanager
def running(one: Runs) -> Iterator[Runs]:
    """A server, or a pair, that runs until the end of the block."""
    try:
        one.start()
        yield one
    finally:
        one.stop()


def settings(**changes: Any) -> Config:
    """Of the service that is measured. Not strict about reuse unless asked."""
    options: dict[str, Any] = {"api_domain": "http://api.test", "website_domain": "http://api.test"}
    return Config(**{**options, "secret": bytes(range(32)), **changes})


def patient_sessions(url: str, config: Config) -> Sessions:
    """A service that is ready, and waits for the store as long as that takes."""
    sessions = Sessions(open_store(url, **PATIENT), config, wait=READY_SECONDS)
    sessions.jwks()
    return sessions


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
