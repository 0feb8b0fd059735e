"""Where a store is, and within what bounds it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..errors import ConfigError

# In seconds, the longest wait for a free connection, for one to be made, for a reply, for it all (revocation.md, F11).
# A free connection is waited for ten times longer than F11 says: on an idle server, 50 ms refused most of 300 calls at
# once in one event loop, for they measured that loop's own delay and not the store's.
ACQUIRE_SECONDS = 0.5
CONNECT_SECONDS = 0.25
COMMAND_SECONDS = 0.5
TOTAL_SECONDS = 2.0
#: Connections to one server from one process (of an AsyncStore: from one event loop).
CONNECTIONS = 32


class Node(NamedTuple):
    """A server. A guide is one that is asked only where the data is: a sentinel, or any node of a cluster."""

    host: str
    port: int
    guide: bool = False

    def __str__(self) -> str:
        if not self.port:
            return self.host  # the path of a Unix socket
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a URL says. ``url`` may be shown to anybody; the settings (redis-py's names) may hold passwords."""

    url: str
    kind: Literal["tcp", "tls", "unix"]
    settings: Mapping[str, Any] = field(repr=False)
    topology: Literal["single", "sentinel", "cluster"] = "single"
    #: The server itself; or the guides to begin with.
    seeds: tuple[Node, ...] = ()
    #: The name by which sentinels know the primary.
    service: str = ""
    guide_settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def settings_of(self, node: Node) -> dict[str, Any]:
        """The settings of a connection to this server."""
        if self.topology == "single":
            return dict(self.settings)
        return {**(self.guide_settings if node.guide else self.settings), "host": node.host, "port": node.port}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a store. Times are in seconds."""

    connections: int = CONNECTIONS
    acquire: float = ACQUIRE_SECONDS
    connect: float = CONNECT_SECONDS
    command: float = COMMAND_SECONDS
    total: float = TOTAL_SECONDS

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int if name == "connections" else int | float) or not value > 0:
                raise ConfigError(
                    name, "must be greater than 0" if name != "connections" else "must be a whole number from 1"
                )

    @property
    def wait_ms(self) -> int:
        """How long a WAIT may take: less than a command, or its answer would come too late."""
        return max(1, int(self.command * 600))
