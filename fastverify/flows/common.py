"""What flows have in common: their results, the marks of a good reply, what they log, arguments that are refused."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..authority import Authority
from ..errors import InvalidClaim, StoreUnavailable, TooManyRefreshes, TryRefreshToken, Unauthorised
from ..events import Event, EventName
from ..placement import Placement
from ..records import Record
from ..session import Session, format_handle, handle_bytes, uuid_text
from ..store.calls import Call, Flow
from . import limits

Random = Callable[[int], bytes]

T = TypeVar("T")

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

audit = logging.getLogger("fastverify.audit")

log = logging.getLogger("fastverify.store")


@dataclass(frozen=True, slots=True)
class Written:
    """Where in a shard's log a revocation was written."""

    tag: str
    seq: int
    nonce: bytes
    #: Replicas that have it; None where the primary has none.
    replicas: int | None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A flow's result, with what it revoked: the process refuses that at once, before it hears of it."""

    value: T
    #: Revocation entries.
    entries: tuple[bytes, ...] = ()
    #: Seconds for which they are kept.
    life: int = 0
    written: tuple[Written, ...] = ()
    #: What has happened.
    events: tuple[Event, ...] = ()
    #: Events that no script has written.
    unwritten: tuple[Event, ...] = ()


class EndedNow(Unauthorised):
    """The session has ended, by the very call that finds out; ``outcome`` says what that did."""

    def __init__(self, message: str, outcome: Outcome[Any]) -> None:
        super().__init__(message)
        self.outcome = outcome


def reply_to(reply: list[Any], asked: str | bytes) -> list[Any]:
    """A reply must name what was asked: one that was left on a connection by somebody else is never used."""
    if not isinstance(reply, list) or not reply or reply[0] != (asked if isinstance(asked, bytes) else asked.encode()):
        raise StoreUnavailable("the store's reply belongs to another request")
    return reply


def session_event(name: EventName, at: int, raw: bytes, tenant: str, user_id: str, why: str | None = None) -> Event:
    return Event(name=name, at=at, handle=format_handle(raw, tenant), user_id=user_id, tenant=tenant, why=why)


def revoked_event(at: int, handle: bytes, tenant: bytes, user_id: bytes, why: str) -> Event:
    """Of a session that was there, as the scripts name it."""
    return session_event("session_revoked", at, handle_bytes(handle.decode()), tenant.decode(), user_id.decode(), why)


def read_record(authority: Authority, handle: str) -> Flow[Record | None]:
    raw = handle_or_none(handle)
    if raw is None:
        return None
    reply = reply_to((yield Call("info", authority.tag_of_handle(raw), (uuid_text(raw),))), uuid_text(raw))
    return Record.read(raw, reply[2:]) if len(reply) > 2 else None


def by_shard(placement: Placement, handles: Iterable[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Handles by the tag of their shard, so many at a time as one script call may take."""
    by_tag: dict[str, list[bytes]] = {}
    for raw in handles:
        by_tag.setdefault(placement.tag(placement.shard_of_handle(raw)), []).append(raw)
    for tag, raws in by_tag.items():
        for start in range(0, len(raws), limits.BATCH):
            yield tag, raws[start : start + limits.BATCH]


def short(handle: str) -> str:
    """A session's name in logs: enough to match lines, not enough to act on."""
    return hashlib.sha256(handle.encode()).hexdigest()[:12]


def handle_or_none(handle: str) -> bytes | None:
    try:
        return handle_bytes(handle)
    except InvalidClaim:
        return None


def check_id(name: str, value: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= limits.MAX_USER_ID:
        raise ValueError(f"{name} must be a str of 1 to {limits.MAX_USER_ID} characters")


def check_tenant(tenant: str) -> None:
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise ValueError("tenant must be 1 to 64 letters, digits, '.', '_' or '-', and start with a letter or digit")


def check_whose(user_id: str, tenant: str | None) -> None:
    """Of whom something is asked. An empty tenant is refused: the scripts take it for all of them."""
    check_id("user_id", user_id)
    if tenant is not None:
        check_tenant(tenant)


def too_many_redeliveries(authority: Authority, handle: str) -> TooManyRefreshes:
    """One refresh token was asked for more often than honest clients do."""
    audit.warning("refresh token redelivered more than %d times; session=%s", limits.MAX_REDELIVERIES, short(handle))
    return TooManyRefreshes(retry_after=authority.debounce_ms // 1000)


def check_ours(session: Session) -> None:
    """The store knows nothing of another issuer's session; a refresh makes it ours, and clients then try again."""
    if session.foreign:
        raise TryRefreshToken("try refresh token: the session is another issuer's, and the store does not know it")
