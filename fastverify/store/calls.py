"""What a flow may ask of a store: to run named scripts, each atomically on one shard, and to wait a moment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Call:
    """One script call.

    ``script`` is a file of ``lua/`` without its ending. ``tag`` is a hash tag such as ``{fv:3}``: it is the script's
    only KEY, and every key that the script touches starts with it, so one slot holds them all. ``args`` are the
    script's ARGV and may hold secrets: they are not shown.

    With ``durable`` the store waits until a replica has what the script wrote, and the reply is a pair: the script's
    reply, and the number of replicas that have it, which is 0 when none had it in time, and None on a server alone.
    """

    script: str
    tag: str
    args: tuple[str | bytes | int, ...] = field(default=(), repr=False)
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is asked for this many seconds; the reply is None."""

    seconds: float


T = TypeVar("T")
#: A flow: yields calls, several at once if they are independent, is sent their replies, returns its result.
Flow: TypeAlias = Generator[Call | Sequence[Call] | Pause, Any, T]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text as it is sent, and the SHA-1 that EVALSHA names it by."""

    text: bytes
    sha1: str
    #: Whether a call that may have run may be sent again: it writes nothing, or says ``-- Repeatable`` of itself.
    repeatable: bool = False


@cache
def script(name: str) -> Script:
    """Read ``lua/<name>.lua``; each ``-- include: <part>`` line gives way to ``lua/parts/<part>.lua``, once."""
    folder = files(__package__) / "lua"
    included: set[str] = set()

    def expand(text: str) -> str:
        return _INCLUDE.sub(include, text)

    def include(line: re.Match[str]) -> str:
        if line[1] in included:
            return ""
        included.add(line[1])
        return expand((folder / "parts" / f"{line[1]}.lua").read_text("utf-8"))

    text = expand((folder / f"{name}.lua").read_text("utf-8")).encode()
    repeatable = b"no-writes" in text.partition(b"\n")[0] or b"\n-- Repeatable" in text
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest(), repeatable)
