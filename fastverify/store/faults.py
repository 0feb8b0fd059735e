"""What the faults of a store mean: a table of what servers reply, what is done about each, what callers are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from redis.exceptions import AuthenticationError, BusyLoadingError, MaxConnectionsError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..errors import ConfigError, StoreUnavailable

#: What can go wrong on the way. (A host name that IDNA cannot encode is a UnicodeError.)
FAULTS = (RedisError, OSError, UnicodeError)
#: Errors that a server replied. Redis-py counts two of them as faults of the connection.
REPLIED = (ResponseError, BusyLoadingError, AuthenticationError)


class CircuitOpen(RedisConnectionError):
    """Nothing was sent: the server has failed again and again (breaker.py)."""


class Stage(Enum):
    """How far a command got that failed."""

    #: It was not sent, so it has not run.
    UNSENT = "unsent"
    #: An error was replied. Of those that the table below retries, a script with ``#!lua`` is refused before it begins.
    REFUSED = "refused"
    #: It was sent, and no reply came: it may have run.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Fault:
    """In the place of a reply: why there is none."""

    error: Exception
    stage: Stage


class Remedy(Enum):
    """What may be done about a fault, within the total time of a call."""

    #: The caller is told.
    NONE = "none"
    #: Find out where the data is now, and send it there.
    ANEW = "anew"
    #: Send it again, in a moment.
    LATER = "later"


#: First word of an error reply -> what it means, after how many seconds to try again, what to do. (Revocation.md, F10.)
_MEANINGS: dict[str, tuple[str, int, Remedy]] = {
    # Another node is the right one now.
    "READONLY": ("is a replica", 1, Remedy.ANEW),
    "MOVED": ("does not hold this shard", 1, Remedy.ANEW),
    # A shard that is being moved. That ASK is waited for, and not followed, is explained in topology.py.
    "ASK": ("is moving this shard", 1, Remedy.LATER),
    "TRYAGAIN": ("is moving this shard", 1, Remedy.LATER),
    # The same node, in a moment.
    "LOADING": ("is loading its data", 1, Remedy.LATER),
    "CLUSTERDOWN": ("has lost part of its cluster", 1, Remedy.LATER),
    "MASTERDOWN": ("has lost its primary", 1, Remedy.LATER),
    # It runs, and cannot do this.
    "OOM": ("is out of memory", 5, Remedy.NONE),
    "MISCONF": ("cannot write its files: its disk is full, or may not be written to", 5, Remedy.NONE),
    "NOREPLICAS": ("has too few replicas to accept a write", 5, Remedy.NONE),
    # Somebody has to do something about it.
    "NOAUTH": ("wants credentials", 30, Remedy.NONE),
    "WRONGPASS": ("refuses the credentials", 30, Remedy.NONE),
    "NOPERM": ("does not permit this user to do it", 30, Remedy.NONE),
    "BUSY": ("is busy with a script that does not end", 30, Remedy.NONE),
}


def remedy(fault: Fault, *, repeatable: bool) -> Remedy:
    """What may be done about a fault of a command that is ``repeatable``, or not."""
    if fault.stage is Stage.LOST:
        return Remedy.ANEW if repeatable else Remedy.NONE
    if isinstance(fault.error, CircuitOpen):
        return Remedy.LATER
    if isinstance(fault.error, ConfigError | MaxConnectionsError):
        return Remedy.NONE
    if isinstance(fault.error, REPLIED):
        return _MEANINGS[code][2] if (code := code_of(fault.error)) in _MEANINGS else Remedy.NONE
    return Remedy.ANEW


def says_server_fails(error: BaseException) -> bool:
    """Whether this counts against a server: it could not be reached, or did not answer in time."""
    return isinstance(error, FAULTS) and not isinstance(error, (*REPLIED, MaxConnectionsError, CircuitOpen))


def code_of(error: Exception) -> str:
    """The first word of an error reply."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    if isinstance(error, AuthenticationError) and code not in _MEANINGS:
        return "WRONGPASS"  # a password where none is set is refused in words of its own
    if isinstance(error, ResponseError) and "unauthenticated" in str(error):
        return "NOAUTH"  # as is a call of many arguments before the password
    return str(code)


def unavailable(error: Exception, url: str) -> StoreUnavailable:
    """What callers are told of a fault; to be raised from ``error``, out of which anything secret is taken."""
    _forget_arguments(error)
    if isinstance(error, ConfigError):
        return StoreUnavailable(str(error), retry_after=30)
    if isinstance(error, MaxConnectionsError):
        return StoreUnavailable(f"the store {url} has no free connection")
    if isinstance(error, CircuitOpen):
        return StoreUnavailable(f"the store {url} has failed several times in a row and is left alone for a moment")
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreUnavailable(f"the store {url} did not answer in time")
    code = code_of(error)
    if code in _MEANINGS:
        words, seconds, _ = _MEANINGS[code]
        return StoreUnavailable(f"the store {url} {words} ({code})", retry_after=seconds)
    if isinstance(error, ResponseError):
        return StoreUnavailable(f"the store {url} refused the call")
    return StoreUnavailable(f"the store {url} cannot be reached")


def _forget_arguments(error: Exception) -> None:
    """A server that does not know a command quotes it in the error, arguments and all."""
    message = str(error)
    if "with args beginning with" in message:
        error.args = (message.partition(", with args beginning with")[0],)
