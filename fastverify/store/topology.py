"""Which server has the data of a hash tag, and how that is found out. Everything goes to primaries.

Discovery is an errand: the guides are asked in turn, beginning with another one each time, for one of them may be cut
off and know only what was. What is known is replaced as a whole and never changed in place, so any thread may look.

**MOVED** names the node that has a slot now, and is believed. **ASK** is not followed, though a client of a cluster
usually does. While a slot is being moved key by key, a node sends on whatever it is asked for a *named* key that it has
not got; but a script names one key, the hash tag, and finds the others itself. Followed to the new node it would run on
the part of a shard that has arrived: it would miss sessions that are still on their way, and start a second revocation
log. So a shard that is being moved is left alone (the old node refuses every script, as the tag itself is no key) until
it has been moved whole; then the old node answers MOVED.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ResponseError

from ..errors import ConfigError
from .endpoint import Endpoint, Node
from .exchange import Batch, Errand
from .faults import Fault


class Single:
    """One server: there is nowhere else to go."""

    #: Whether another server may take over: if not, only what may change by itself is worth a retry.
    redundant = False
    #: Counts how often what is known has changed.
    version = 0

    def __init__(self, server: Node) -> None:
        self._server = server

    def node_of(self, tag: str) -> Node | None:
        """The server of a hash tag, None if it is not known."""
        return self._server

    def nodes(self) -> Collection[Node]:
        """The primaries that are known."""
        return (self._server,)

    def moved(self, error: MovedError, asked: Node) -> None:
        """A server said that another one has this slot now."""

    def discover(self, suspects: Collection[Node] = ()) -> Errand[Exception | None]:
        """Ask where the data is now, the suspects last; None, or why it could not be found out."""
        return None
        yield {}


class Sentinels(Single):
    """A primary that sentinels watch, and replace when it fails."""

    redundant = True
    #: In milliseconds, how long a primary has to be silent until the sentinels replace it; None if that is not known.
    down_after: int | None = None

    def __init__(self, sentinels: Sequence[Node], service: str) -> None:
        self._sentinels = sentinels
        self._service = service
        self._primary: Node | None = None
        self._turn = 0

    def node_of(self, tag: str) -> Node | None:
        return self._primary

    def nodes(self) -> Collection[Node]:
        return (self._primary,) if self._primary else ()

    def discover(self, suspects: Collection[Node] = ()) -> Errand[Exception | None]:
        problem: Exception | None = None
        self._turn += 1
        for n in range(len(self._sentinels)):
            sentinel = self._sentinels[(self._turn + n) % len(self._sentinels)]
            commands = [("SENTINEL", word, self._service) for word in ("GET-MASTER-ADDR-BY-NAME", "MASTER")]
            address, details = (yield {sentinel: Batch(commands)})[sentinel].outcomes
            if isinstance(address, list) and len(address) == 2:
                self._found(Node(address[0].decode(), int(address[1])))
                if isinstance(details, list):
                    pairs = dict(zip(details[::2], details[1::2], strict=False))
                    self.down_after = int(pairs.get(b"down-after-milliseconds", 0)) or None
                return None
            problem = (
                address.error
                if isinstance(address, Fault)
                else ConfigError("store", f"the sentinels know no primary by the name {self._service!r}")
            )
        return problem

    def _found(self, primary: Node) -> None:
        if primary != self._primary:
            self._primary = primary
            self.version += 1


class Slots(Single):
    """A cluster: 16384 slots, each at one of the primaries."""

    redundant = True

    def __init__(self, seeds: Sequence[Node]) -> None:
        self._seeds = seeds
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._turn = 0

    def node_of(self, tag: str) -> Node | None:
        return self._slots[_slot(tag)]

    def nodes(self) -> Collection[Node]:
        return {node for node in self._slots if node is not None}

    def moved(self, error: MovedError, asked: Node) -> None:
        slots = self._slots.copy()
        slots[error.slot_id] = Node(error.host or asked.host, error.port)
        self._found(slots)

    def discover(self, suspects: Collection[Node] = ()) -> Errand[Exception | None]:
        problem: Exception | None = None
        for guide in self._guides(suspects):
            (reply,) = (yield {guide: Batch([("CLUSTER", "SLOTS")])})[guide].outcomes
            if isinstance(reply, list) and reply:
                self._found(_slot_map(reply, guide))
                return None
            problem = reply.error if isinstance(reply, Fault) else RedisConnectionError("the cluster has no slots yet")
            if isinstance(problem, ResponseError) and "cluster support disabled" in str(problem):
                problem = ConfigError("store", "the server is no part of a cluster; use redis://host:6379/0")
        return problem

    def _guides(self, suspects: Collection[Node]) -> list[Node]:
        """All that may be asked: the primaries that are known and those of the URL, who may be the only ones left."""
        known = [*dict.fromkeys([*(node._replace(guide=True) for node in sorted(self.nodes())), *self._seeds])]
        self._turn += 1
        first = self._turn % len(known)
        return sorted(known[first:] + known[:first], key=lambda guide: guide._replace(guide=False) in suspects)

    def _found(self, slots: list[Node | None]) -> None:
        if slots != self._slots:
            self._slots = slots
            self.version += 1


def topology_of(endpoint: Endpoint) -> Single:
    """What a URL names."""
    match endpoint.topology:
        case "sentinel":
            return Sentinels(endpoint.seeds, endpoint.service)
        case "cluster":
            return Slots(endpoint.seeds)
        case _:
            return Single(endpoint.seeds[0])


@lru_cache(4096)
def _slot(tag: str) -> int:
    return key_slot(tag.encode())


def _slot_map(reply: list[Any], guide: Node) -> list[Node | None]:
    """From CLUSTER SLOTS: first slot, last slot, the primary, its replicas. A node may leave out its own address."""
    slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_ in reply:
        slots[first : last + 1] = [Node(host.decode() if host else guide.host, port)] * (last + 1 - first)
    return slots
