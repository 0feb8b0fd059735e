"""What is said to a server, with no I/O: a *talk* yields lists of commands and is sent lists of replies.

A talk is held on one connection from its beginning to its end. ``driver.Store`` and ``driver.AsyncStore`` hold them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

from redis.exceptions import NoScriptError, ResponseError

from ..errors import ConfigError
from .calls import Call, T, script

#: The oldest server whose scripts can carry flags, which ``allow-oom`` is.
MINIMUM_VERSION = 7

Command: TypeAlias = tuple[str | bytes | int, ...]
#: A conversation on one connection: yields commands, is sent the replies; one that is an error is a ResponseError.
Talk: TypeAlias = Generator[Sequence[Command], list[Any], T]


def run_scripts(calls: Sequence[Call]) -> Talk[list[Any]]:
    """Run scripts by digest, and those that the server has not got once more by their text (so, out of order)."""
    replies = yield [("EVALSHA", script(call.script).sha1, 1, call.tag, *call.args) for call in calls]
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        texts = [("EVAL", script(calls[n].script).text, 1, calls[n].tag, *calls[n].args) for n in unknown]
        for n, reply in zip(unknown, (yield texts), strict=True):
            replies[n] = reply
    results = _without_errors(replies)
    return [(reply, None) if call.durable else reply for call, reply in zip(calls, results, strict=True)]


def check_requirements() -> Talk[None]:
    """Refuse a server that is too old, or that would evict revocations to make room (revocation.md, F9)."""
    # Not CONFIG GET, which managed servers forbid. One section a command: Redis 6 takes no more.
    server, memory = (_info(text) for text in _without_errors((yield [("INFO", "server"), ("INFO", "memory")])))
    version = server.get("redis_version", "")
    if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < MINIMUM_VERSION:
        raise ConfigError(
            "store", f"the server is Redis {version or '(unknown)'}; it must be Redis 7.0 or later, or Valkey"
        )
    policy = memory.get("maxmemory_policy", "")
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


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
