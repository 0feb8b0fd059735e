"""What a server must be, looked at on each new connection: once for each process that the server is (its run id).

What would make revoked tokens work again is refused. What makes losing revocations likelier is warned of.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ReadOnlyError

from ..errors import ConfigError
from .endpoint import Node
from .exchange import Talk
from .faults import Fault
from .topology import Sentinels, Single, Slots

#: The oldest server whose scripts can carry flags, which ``allow-oom`` is.
MINIMUM_VERSION = 7
#: Seconds after which a replica that is silent no longer counts for min-replicas-to-write.
MAX_LAG = 2

_log = logging.getLogger("fastverify.store")


@dataclass(frozen=True, slots=True)
class Standing:
    """What was last seen of a server."""

    run_id: str
    replicas: int


class Standings:
    """What is known of the servers of one store, in all its threads and event loops."""

    def __init__(self, topology: Single) -> None:
        self.topology = topology
        self._of: dict[Node, Standing] = {}
        self._warned: dict[str, object] = {}

    def replicated(self, node: Node) -> bool:
        """Whether replicas are expected to take over what is written there."""
        return self.topology.redundant or (node in self._of and self._of[node].replicas > 0)

    def greet(self, node: Node) -> Talk[None]:
        """What is said first on a connection.

        Raises:
            ConfigError: the server is too old, or would evict revocations to make room (revocation.md, F9).
            ReadOnlyError: a replica is where the primary should be.
        """
        # One section a command: Redis 6, which is to be told that it is too old, takes no more.
        server, replication = map(_info, _without_errors((yield [("INFO", "server"), ("INFO", "replication")])))
        if isinstance(self.topology, Sentinels) and replication.get("role") != "master":
            raise ReadOnlyError("the sentinels named a replica", status_code="READONLY")
        standing = Standing(server.get("run_id", ""), int(replication.get("connected_slaves", 0)))
        former = self._of.get(node)
        if not standing.run_id or former is None or former.run_id != standing.run_id:
            _check_version(server.get("redis_version", ""))
            # maxmemory-policy is not asked by CONFIG GET, which managed servers forbid.
            memory, persistence, config = yield [
                ("INFO", "memory"),
                ("INFO", "persistence"),
                ("CONFIG", "GET", "save", "min-replicas-to-write", "min-replicas-max-lag", "cluster-node-timeout"),
            ]
            _check_policy(_info(*_without_errors([memory])).get("maxmemory_policy", ""))
            found = _info(persistence) if isinstance(persistence, bytes) else {}
            self._warn(node, standing, found, _pairs(config) if isinstance(config, list) else {})
        self._of[node] = standing

    def _warn(self, node: Node, standing: Standing, persistence: dict[str, str], config: dict[str, str]) -> None:
        first = object()
        if self._warned.setdefault(standing.run_id, first) is first:
            for warning in advice(standing.replicas, persistence, config, self._failover(config)):
                _log.warning("store server %s: %s", node, warning)

    def _failover(self, config: dict[str, str]) -> tuple[str, int] | None:
        """The setting that says for how long a primary has to be silent before another takes over, in milliseconds."""
        if isinstance(self.topology, Sentinels) and self.topology.down_after is not None:
            return "the sentinels' down-after-milliseconds", self.topology.down_after
        if isinstance(self.topology, Slots) and "cluster-node-timeout" in config:
            return "cluster-node-timeout", int(config["cluster-node-timeout"])
        return None


def advice(
    replicas: int, persistence: dict[str, str], config: dict[str, str], failover: tuple[str, int] | None
) -> Iterator[str]:
    """What should be changed, as sentences. ``config`` lacks what may not be read, which is not judged."""
    if replicas and persistence.get("aof_enabled") == "0" and config.get("save") == "":
        yield (
            "it has replicas and writes no files: restarted empty, it would empty them too (revocation.md, F6). Set "
            "appendonly to yes"
        )
    if replicas == 1:
        yield (
            "it has one replica. Two are recommended: only then can a primary that is cut off be made to refuse writes "
            "(min-replicas-to-write 1) without the promoted one refusing all of them"
        )
    if replicas < 2 or "min-replicas-to-write" not in config:
        return
    wanted, written, lag = (
        (replicas + 1) // 2,
        int(config["min-replicas-to-write"]),
        int(config["min-replicas-max-lag"]),
    )
    if written < wanted:
        yield (
            f"min-replicas-to-write is {written}. Set it to {wanted}: with {replicas} replicas, a primary that is cut "
            "off would accept writes that are lost"
        )
    if not 0 < lag <= MAX_LAG:
        yield f"min-replicas-max-lag is {lag}. Set it to {MAX_LAG}: so soon must a primary notice that it is cut off"
    least = (MAX_LAG + 1) * 1000
    if failover is not None and failover[1] <= least:
        yield (
            f"{failover[0]} is {failover[1]}. Set it above {least}: the old primary must have stopped before a new one "
            "starts"
        )


def _check_version(version: str) -> None:
    if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < MINIMUM_VERSION:
        raise ConfigError(
            "store", f"the server is Redis {version or '(unknown)'}; it must be Redis 7.0 or later, or Valkey"
        )


def _check_policy(policy: str) -> None:
    if policy != "noeviction":
        raise ConfigError(
            "store",
            f"the server's maxmemory-policy is {policy or '(unknown)'}: short of memory, it would drop revocations and "
            "revoked tokens would work again. Set maxmemory-policy to noeviction, in the server's configuration file "
            "and, until it is restarted, by CONFIG SET",
        )


def _info(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _pairs(reply: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in zip(reply[::2], reply[1::2], strict=False)}


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Fault):
            raise reply.error
    return replies
