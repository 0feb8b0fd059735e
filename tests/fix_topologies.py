"""A Cluster and a Sentinel set to test against: shared ones for the whole run, others for tests that break them.

Both offer the same: ``url`` for ``open_store``; ``nodes``, the servers that hold data; ``primary(tag)``, the node to
which a hash tag's writes go now, and ``replicas(tag)`` of it; ``failover(tag)``, in good order; ``wait_healthy()``. A
node is a ``LaunchedServer``: ``kill``, ``freeze`` and ``thaw``, ``start`` again on the same port and data.

The shared ones are handed out healthy. A test that moves a primary may use them; one that kills or freezes a node takes
its own by ``launch_cluster`` or ``launch_sentinel``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from fix_stores import LOOPBACK, WAIT, LaunchedServer, Place, _free_port, server_binary
from redis.crc import key_slot

from fastverify.errors import StoreUnavailable

T = TypeVar("T")
SLOTS = 16384
#: The name by which the sentinels know their primary.
SERVICE = "sessions"
#: Milliseconds of silence after which a node of a shared one is given up. None is ended, and a busy machine must
#: not look as if it were: a failover that no test has asked for would lose what a test has written.
UNHURRIED = "3000"


def until(what: str, check: Callable[[], T], seconds: float = WAIT) -> T:
    """Wait for a true answer. A server or store that does not answer, or not as it should, is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        problem = ""
        try:
            if answer := check():
                return answer
        except (redis.RedisError, StoreUnavailable) as error:
            problem = f" ({type(error).__name__}: {error})"
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}{problem}"
        time.sleep(0.02)


def ask(node: LaunchedServer, *command: Any) -> Any:
    """One command on a connection of its own; text in the reply."""
    with node.client() as client:
        reply = client.execute_command(*command)
        return reply.decode() if isinstance(reply, bytes) else reply


class Topology:
    """What a Cluster and a Sentinel set have in common."""

    url: str
    nodes: list[LaunchedServer]
    _primaries = 1

    def __init__(self, binary: str, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self.nodes = []
        #: Where each is to run, by the name of its folder.
        self.place: Callable[[str], Place] = lambda name: LOOPBACK

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        raise NotImplementedError

    def primary(self, tag: str = "{}") -> LaunchedServer:
        """Where a hash tag's writes go now."""
        raise NotImplementedError

    def replicas(self, tag: str = "{}") -> list[LaunchedServer]:
        """The running nodes that follow the primary of a hash tag."""
        primary = self.primary(tag)

        def follows(node: LaunchedServer) -> bool:
            with node.client() as client:
                found = client.info("replication")
            return found["role"] == "slave" and found["master_port"] == primary.port

        return [node for node in self.nodes if node.running and node is not primary and follows(node)]

    def failover(self, tag: str = "{}") -> LaunchedServer:
        """Make a replica the primary, in good order, and wait until all know it; the new primary."""
        raise NotImplementedError

    def wait_for_new_primary(self, former: LaunchedServer, tag: str = "{}", *, seconds: float = WAIT) -> LaunchedServer:
        """Wait until another node than this one is the tag's primary; that node."""

        def new() -> LaunchedServer | None:
            primary = self.primary(tag)
            return primary if primary is not former and _role(primary) == "master" else None

        return until("a new primary", new, seconds)

    def wait_healthy(self) -> None:
        """Wait until all nodes agree, and every replica follows. Nodes that were ended have to be started before."""
        until("every node agrees", self._agreed)
        until("every replica follows", self._replicating)

    def stop(self) -> None:
        """End all of it."""
        for node in self._all():
            node.stop()

    def _all(self) -> list[LaunchedServer]:
        return self.nodes

    def _agreed(self) -> bool:
        raise NotImplementedError

    def _replicating(self) -> bool:
        """Both ends of every link say that it is up: one alone may not have heard yet."""
        following = online = 0
        for node in self.nodes:
            with node.client() as client:
                found = client.info("replication")
            if found["role"] == "slave":
                following += found["master_link_status"] == "up"
            online += sum(found[f"slave{n}"]["state"] == "online" for n in range(found["connected_slaves"]))
        return following == online == len(self.nodes) - self._primaries

    def _launch(self, **settings: Any) -> LaunchedServer:
        name = f"node{len(self.nodes)}"
        folder, place = _folder(self._directory, name), self.place(name)
        if place.enter:
            settings["protected-mode"] = "no"  # who can reach it there belongs to the run
        node = LaunchedServer(self._binary, folder, place=place, **settings)
        if "tls-cert-file" in settings:
            node.settings |= {"tls-port": str(_free_port())}  # beside the plain one, which is for the test
        self.nodes.append(node)
        node.start()
        return node

    @staticmethod
    def port_of(node: LaunchedServer) -> int:
        """The port at which it is found by others: that for TLS, if it has one."""
        return int(str(node.settings.get("tls-port", node.port)))

    def _node(self, port: int) -> LaunchedServer:
        return next(node for node in self.nodes if node.port == port)


class Cluster(Topology):
    """Three primaries with one replica each, on loopback; ``replicas`` sets how many each has."""

    _primaries = 3

    def __init__(self, binary: str, directory: Path, *, replicas: int = 1, **settings: str | tuple[str, ...]) -> None:
        super().__init__(binary, directory)
        self._count = 3 + 3 * replicas
        self._settings: dict[str, Any] = {
            "appendfsync": "everysec",
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1500",
            "repl-diskless-sync-delay": "0",
            "masterauth": settings.get("requirepass", ""),
        } | settings

    def start(self) -> None:
        for _ in range(self._count):
            self._launch(**self._settings)
        self.url = f"redis+cluster://{_addresses(self.nodes)}"
        self._form(self.nodes[:3], self.nodes[3:])
        self.wait_healthy()

    def _form(self, primaries: list[LaunchedServer], replicas: list[LaunchedServer]) -> None:
        for n, node in enumerate(self.nodes):
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)  # else they have to find out who is to be which
            for other in self.nodes[:n]:
                ask(node, "CLUSTER", "MEET", other.place.address, self.port_of(other))
        for n, node in enumerate(primaries):
            ask(node, "CLUSTER", "ADDSLOTSRANGE", n * SLOTS // 3, (n + 1) * SLOTS // 3 - 1)
        for n, node in enumerate(replicas):
            of = ask(primaries[n % 3], "CLUSTER", "MYID")
            until("a replica knows its primary", lambda node=node, of=of: ask(node, "CLUSTER", "REPLICATE", of))

    def primary(self, tag: str = "{}") -> LaunchedServer:
        return self.primary_of_slot(key_slot(tag.encode()))

    def primary_of_slot(self, slot: int) -> LaunchedServer:
        """As the running nodes have it that were told last."""

        def find() -> LaunchedServer | None:
            claims = []
            for node in self.nodes:
                if node.running and node._frozen is None:
                    for first, last, (_, port, *_), *_ in _raw(node, "CLUSTER", "SLOTS"):
                        if first <= slot <= last:
                            claims.append((_epoch(node), int(port)))
            return self._node(max(claims)[1]) if claims else None

        return until(f"somebody has slot {slot}", find)

    def failover(self, tag: str = "{}") -> LaunchedServer:
        former = self.primary(tag)
        (replica, *_) = self.replicas(tag)
        until("a failover succeeds", lambda: self._failed_over(former, replica, tag))
        self.wait_healthy()
        return replica

    def _failed_over(self, former: LaunchedServer, replica: LaunchedServer, tag: str) -> bool:
        """Once more, then: an attempt into which a lost link falls is given up by the servers after 5 s."""
        ask(replica, "CLUSTER", "FAILOVER")
        with suppress(AssertionError):
            return bool(self.wait_for_new_primary(former, tag, seconds=2))
        return False

    def move_slot(self, slot: int, target: LaunchedServer) -> Iterator[str]:
        """Move a slot with its keys, pausing after each step, whose name is yielded.

        While "opened", a key that is not there is to be asked of the target (ASK), and after "emptied" no key is there.
        """
        source = self.primary_of_slot(slot)
        source_id, target_id = ask(source, "CLUSTER", "MYID"), ask(target, "CLUSTER", "MYID")
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        yield "opened"
        password = source.settings.get("requirepass")
        while keys := _raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            auth = ("AUTH", password) if password else ()
            ask(source, "MIGRATE", target.place.address, target.port, "", 0, 5000, *auth, "KEYS", *keys)
            yield "moved a key"
        yield "emptied"
        for node in (target, source):
            ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
        until("all know where the slot is", self._agreed)
        yield "closed"

    def _agreed(self) -> bool:
        """Every node has all links up, has heard of no failure, and sees the same roles and slots as the others."""
        views = set()
        for node in self.nodes:
            if "cluster_state:ok" not in str(_text(_raw(node, "CLUSTER", "INFO"))):
                return False
            view = []
            for line in _text(_raw(node, "CLUSTER", "NODES")).splitlines():
                name, _, flags, of, _, pong, _, link, *slots = line.split()
                roles = set(flags.split(",")) - {"myself"}
                if link != "connected" or not roles <= {"master", "slave"} or ("myself" not in flags and pong == "0"):
                    return False
                view.append((name, *roles, of, *(slot for slot in slots if not slot.startswith("["))))
            views.add(tuple(sorted(view)))
        return len(views) == 1 and len(*views) == len(self.nodes)


class SentinelSet(Topology):
    """A primary, two replicas, and three sentinels that watch them."""

    def __init__(
        self,
        binary: str,
        directory: Path,
        *,
        replicas: int = 2,
        down_after: int = 1000,
        sentinel_settings: tuple[str, ...] = (),
        **settings: str | tuple[str, ...],
    ) -> None:
        super().__init__(binary, directory)
        self._count = 1 + replicas
        self._down_after = down_after
        self._sentinel_settings = sentinel_settings
        self._settings: dict[str, Any] = {
            "appendfsync": "everysec",
            "repl-diskless-sync-delay": "0",
            "masterauth": settings.get("requirepass", ""),
        } | settings
        self.sentinels: list[LaunchedSentinel] = []

    def start(self) -> None:
        first = self._launch(**self._settings)
        host, port = str(self._settings.get("replica-announce-ip", first.place.address)), str(self.port_of(first))
        for _ in range(1, self._count):
            self._launch(**self._settings | {"replicaof": (host, port)})
        password = self._settings["masterauth"]
        lines = (
            *self._sentinel_settings,  # first: whether names are resolved must be known before one is read
            f"sentinel monitor {SERVICE} {host} {port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after}",
            f"sentinel failover-timeout {SERVICE} 2000",
            f"sentinel parallel-syncs {SERVICE} {self._count}",
            *([f"sentinel auth-pass {SERVICE} {password}"] if password else []),
        )
        for n in range(3):
            name = f"sentinel{n}"
            folder = _folder(self._directory, name)
            self.sentinels.append(LaunchedSentinel(self._binary, folder, lines, place=self.place(name)))
            self.sentinels[-1].start()
        self.url = (
            f"redis+sentinel://{','.join(f'{one.place.address}:{one.port}' for one in self.sentinels)}/{SERVICE}/0"
        )
        self.wait_healthy()

    def primary(self, tag: str = "{}") -> LaunchedServer:
        def find() -> LaunchedServer | None:
            for sentinel in self.sentinels:
                if sentinel.running and sentinel._frozen is None:
                    _, port = _raw(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                    return next(node for node in self.nodes if self.port_of(node) == int(port))
            return None

        return until("a sentinel names the primary", find)

    def failover(self, tag: str = "{}") -> LaunchedServer:
        former = self.primary()
        until("a failover may start", lambda: ask(self.sentinels[0], "SENTINEL", "FAILOVER", SERVICE))
        new = self.wait_for_new_primary(former)
        self.wait_healthy()
        return new

    def _all(self) -> list[LaunchedServer]:
        return [*self.sentinels, *self.nodes]

    def _agreed(self) -> bool:
        """Every sentinel knows the others and every replica, and all think well of all."""
        views = set()
        for sentinel in self.sentinels:
            ask(sentinel, "SENTINEL", "CKQUORUM", SERVICE)
            master = _pairs(_raw(sentinel, "SENTINEL", "MASTER", SERVICE))
            replicas = [_pairs(one) for one in _raw(sentinel, "SENTINEL", "REPLICAS", SERVICE)]
            good = master["flags"] == "master" and all(one["flags"] == "slave" for one in replicas)
            known = int(master["num-other-sentinels"]) == 2 and len(replicas) == len(self.nodes) - 1
            if not good or not known or not all(one["master-link-status"] == "ok" for one in replicas):
                return False
            views.add(master["port"])
        return len(views) == 1 and _role(self.primary()) == "master"


class LaunchedSentinel(LaunchedServer):
    """A sentinel. It has a configuration file, as it writes there what it learns."""

    def __init__(self, binary: str, directory: Path, lines: tuple[str, ...], *, place: Place = LOOPBACK) -> None:
        super().__init__(binary, directory, place=place)
        own = [f"port {self.port}", f"bind {place.address}", f"dir {directory}"]
        if any(line.startswith("tls-cert-file ") for line in lines):
            self.settings |= {"tls-port": str(_free_port())}
            own.append(f"tls-port {self.settings['tls-port']}")
        self._file = directory / "sentinel.conf"
        self._file.write_text("\n".join((*own, *lines)) + "\n")
        passwords = [line.split()[1] for line in lines if line.startswith("requirepass ")]
        if passwords:
            self.settings |= {"requirepass": passwords[0]}

    def start(self) -> None:
        super().start()
        # They look around every second or two; a test would wait for that each time.
        ask(self, "SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200", "PING-PERIOD", "200")

    def _command(self) -> list[str]:
        return [self.binary, str(self._file), "--sentinel"]


def _folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder


def _addresses(servers: Iterable[LaunchedServer]) -> str:
    return ",".join(f"{server.place.address}:{server.port}" for server in servers)


def _raw(node: LaunchedServer, *command: Any) -> Any:
    """The reply as it was sent, without redis-py's rewriting."""
    with node.client() as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


def _text(reply: bytes) -> str:
    return reply.decode()


def _pairs(reply: list[bytes]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _role(node: LaunchedServer) -> str:
    return _text(_raw(node, "ROLE")[0])


def _epoch(node: LaunchedServer) -> int:
    lines = _text(_raw(node, "CLUSTER", "INFO")).splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("cluster_current_epoch:")))


# --- fixtures ---


@pytest.fixture(scope="session")
def _clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cluster]]:
    yield from _shared(Cluster, tmp_path_factory, **{"cluster-node-timeout": UNHURRIED})


@pytest.fixture(scope="session")
def _sentinel_sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], SentinelSet]]:
    yield from _shared(SentinelSet, tmp_path_factory, down_after=int(UNHURRIED))


Kind = TypeVar("Kind", Cluster, SentinelSet)


def _shared(make: type[Kind], folders: pytest.TempPathFactory, **settings: Any) -> Iterator[Callable[[str], Kind]]:
    """One of each kind of server, started when it is first asked for."""
    started: dict[str, Kind] = {}
    looked_at: dict[str, float] = {}

    def get(kind: str) -> Kind:
        if kind not in started:
            started[kind] = make(server_binary(kind), folders.mktemp(f"{make.__name__.lower()}-{kind}"), **settings)
            started[kind].start()
        if time.monotonic() > looked_at.get(kind, 0.0) + 5.0:  # to ask all of them takes longer than many a test
            started[kind].wait_healthy()
            looked_at[kind] = time.monotonic()
        return started[kind]

    yield get
    for one in started.values():
        one.stop()


@pytest.fixture
def cluster(_clusters: Callable[[str], Cluster]) -> Cluster:
    """The shared Cluster of the embedded Valkey, healthy. Leave it running."""
    return _clusters("valkey")


@pytest.fixture
def redis_cluster(_clusters: Callable[[str], Cluster]) -> Cluster:
    """The shared Cluster of Debian's Redis, healthy. Leave it running."""
    return _clusters("redis")


@pytest.fixture
def sentinel_set(_sentinel_sets: Callable[[str], SentinelSet]) -> SentinelSet:
    """The shared Sentinel set of the embedded Valkey, healthy. Leave it running."""
    return _sentinel_sets("valkey")


@pytest.fixture
def redis_sentinel_set(_sentinel_sets: Callable[[str], SentinelSet]) -> SentinelSet:
    """The shared Sentinel set of Debian's Redis, healthy. Leave it running."""
    return _sentinel_sets("redis")


@pytest.fixture
def launch_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts a Cluster of one's own, and ends it: ``launch_cluster(kind="redis", replicas=2, requirepass="x")``."""
    yield from _own(Cluster, tmp_path)


@pytest.fixture
def launch_sentinel(tmp_path: Path) -> Iterator[Callable[..., SentinelSet]]:
    """Starts a Sentinel set of one's own, and ends it: ``launch_sentinel(kind="redis", down_after=5000)``."""
    yield from _own(SentinelSet, tmp_path)


def _own(make: type[Kind], directory: Path) -> Iterator[Callable[..., Kind]]:
    started: list[Kind] = []

    def start(kind: str = "valkey", **settings: Any) -> Kind:
        folder = _folder(directory, f"{make.__name__.lower()}{len(started)}")
        started.append(make(server_binary(kind), folder, **settings))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
