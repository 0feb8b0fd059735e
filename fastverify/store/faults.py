"""What the faults of a store mean: a table of what servers reply, and the StoreUnavailable that is made of each."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, MaxConnectionsError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..errors import StoreUnavailable

#: What can go wrong on the way. (A host name that IDNA cannot encode is a UnicodeError.)
FAULTS = (RedisError, OSError, UnicodeError)
#: First word of an error reply -> what it means, and the seconds after which to try again. (Revocation.md, F10.)
_MEANINGS: dict[str, tuple[str, int]] = {
    # Another node is the right one now.
    "READONLY": ("is a replica", 1),
    "MOVED": ("does not hold this shard", 1),
    "ASK": ("does not hold this shard", 1),
    # The same node, in a moment.
    "LOADING": ("is loading its data", 1),
    "TRYAGAIN": ("is moving this shard", 1),
    "CLUSTERDOWN": ("has lost part of its cluster", 1),
    "MASTERDOWN": ("has lost its primary", 1),
    # It runs, and cannot do this.
    "OOM": ("is out of memory", 5),
    "MISCONF": ("cannot write its files", 5),
    "NOREPLICAS": ("has too few replicas to accept a write", 5),
    # Somebody has to do something about it.
    "NOAUTH": ("wants credentials", 30),
    "WRONGPASS": ("refuses the credentials", 30),
    "NOPERM": ("does not permit this user to do it", 30),
    "BUSY": ("is busy with a script that does not end", 30),
}


def unavailable(error: Exception, url: str) -> StoreUnavailable:
    """What callers are told of a fault; to be raised from ``error``, out of which anything secret is taken."""
    _forget_arguments(error)
    if isinstance(error, MaxConnectionsError):
        return StoreUnavailable(f"the store {url} has no free connection")
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreUnavailable(f"the store {url} did not answer in time")
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    if isinstance(error, AuthenticationError) and code not in _MEANINGS:
        code = "WRONGPASS"  # a password where none is set is refused in words of its own
    elif isinstance(error, ResponseError) and "unauthenticated" in str(error):
        code = "NOAUTH"  # as is a call of many arguments before the password
    if code in _MEANINGS:
        words, seconds = _MEANINGS[code]
        return StoreUnavailable(f"the store {url} {words} ({code})", retry_after=seconds)
    if isinstance(error, ResponseError):
        return StoreUnavailable(f"the store {url} refused the call")
    return StoreUnavailable(f"the store {url} cannot be reached")


def _forget_arguments(error: Exception) -> None:
    """A server that does not know a command quotes it in the error, arguments and all."""
    message = str(error)
    if "with args beginning with" in message:
        error.args = (message.partition(", with args beginning with")[0],)
