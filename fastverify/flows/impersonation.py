"""Acting as another user, and coming back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..authority import Authority, Moment
from ..errors import ClaimValidationFailed, StoreUnavailable, TryRefreshToken, Unauthorised
from ..events import Event, EventName
from ..records import Actor
from ..session import ACT, Issued, Session, handle_bytes, uuid_text
from ..store.calls import Call, Flow
from . import limits
from .common import (
    EndedNow,
    Outcome,
    Random,
    audit,
    check_id,
    check_ours,
    read_record,
    reply_to,
    short,
    too_many_redeliveries,
)
from .creating import check_user, create
from .refreshing import current_tokens
from .revoking import end


def impersonate(
    authority: Authority,
    session: Session,
    user_id: str,
    *,
    now: float,
    random: Random,
    lifetime: int,
    reason: str,
    **options: Any,
) -> Flow[Outcome[Issued]]:
    """Start a session by which this one's user acts as another; see ``Sessions.impersonate``."""
    if session.actor is not None or session.is_guest:
        why = "a guest" if session.is_guest else "acts as another user already"
        raise ClaimValidationFailed([{"id": ACT, "reason": {"message": why}}])
    check_ours(session)
    check_id("user_id", user_id)
    check_user(user_id)
    if not isinstance(lifetime, int) or isinstance(lifetime, bool) or not 1 <= lifetime <= limits.LONGEST_IMPERSONATION:
        raise ValueError(f"lifetime must be a whole number of seconds from 1 to {limits.LONGEST_IMPERSONATION}")
    if not isinstance(reason, str) or len(reason) > limits.MAX_REASON or not reason.isprintable():
        raise ValueError(f"reason must be a printable str of at most {limits.MAX_REASON} characters")
    raw, handle = handle_bytes(session.handle), authority.placement.handle(user_id, random(16))
    name = uuid_text(raw)
    # First where the actor's session is: from then on whatever ends that ends this too.
    args = (name, uuid_text(handle), lifetime * 1000, authority.debounce_ms)
    reply = reply_to((yield Call("impersonate", authority.tag_of_handle(raw), args)), name)
    verdict, store_now, *rest = reply[1:]
    match verdict:
        case b"OK":
            generation, left = int(rest[0]), int(rest[1]) // 1000
        case b"HOLD":
            raise StoreUnavailable("the primary is new", retry_after=int(rest[0]) // 1000 + 1)
        case b"OLD":
            raise TryRefreshToken("the primary is new to this session")
        case _:
            raise Unauthorised("the session has ended")
    outcome = yield from create(
        authority,
        user_id,
        now=now,
        random=random,
        handle=handle,
        actor=Actor(session.handle, session.user_id, generation),
        lifetime=max(1, min(lifetime, left, authority.config.absolute_lifetime)),
        **options,
    )
    made = outcome.value.session
    audit.warning(
        "impersonation started: %r acts as %r, reason %r; session=%s by=%s",
        *(session.user_id, user_id, reason, short(uuid_text(handle)), short(name)),
    )
    event = _acting("impersonation_started", store_now, made, session.user_id, {"reason": reason} if reason else {})
    return replace(outcome, unwritten=(event,))


def stop_impersonating(
    authority: Authority, session: Session, *, now: float, random: Random, anti_csrf: bool | None
) -> Flow[Outcome[Issued]]:
    """End a session by which somebody acts as another user, and return to their own; see ``Sessions``.

    It is written down which session follows, as for ``promote``: so a second call, and one whose first reply was lost,
    comes back too, for as long as messages live.
    """
    if session.actor is None or session.foreign:
        raise ClaimValidationFailed([{"id": ACT, "reason": {"message": "acts as nobody else"}}])
    raw = handle_bytes(session.handle)
    record = yield from read_record(authority, session.handle)
    actor = None if record is None else record.actor
    if record is not None and actor is None:  # an ``act`` of the application's own, of before it meant anything
        raise ClaimValidationFailed([{"id": ACT, "reason": {"message": "acts as nobody else"}}])
    name, keep = uuid_text(raw), authority.config.exchange_seconds * 1000
    memo = (name, session.actor, "" if actor is None else actor.handle, keep)
    reply = reply_to((yield Call("promote", authority.tag_of_handle(raw), memo)), name)
    if len(reply) == 2 or not reply[2]:
        raise Unauthorised("the session has ended")
    own = handle_bytes(reply[2].decode())
    args = (
        *(uuid_text(own), name, -1 if actor is None else actor.generation),
        *(keep, authority.debounce_ms, limits.MAX_REDELIVERIES, authority.entry_life),
        "" if anti_csrf is None else int(anti_csrf),
    )
    reply = reply_to((yield Call("come_back", authority.tag_of_handle(own), args)), uuid_text(own))
    verdict, store_now, *rest = reply[1:]
    if verdict == b"HOLD":
        raise StoreUnavailable("the primary is new", retry_after=int(rest[0]) // 1000 + 1)
    if verdict == b"BUSY":
        raise too_many_redeliveries(authority, name)
    # Only now: until the reply to this call is on its way, the call can be made again.
    ended = yield from end(authority, (raw,), random, "returned" if verdict == b"AGAIN" else "actor")
    if verdict != b"AGAIN":
        raise EndedNow("the session of who acted as this user has ended", ended)
    issued = current_tokens(authority, own, rest, Moment(now, store_now, rest[0]))
    audit.warning("impersonation stopped: %r acted as %r; session=%s", session.actor, session.user_id, short(name))
    # Told by the call that has ended it, and not again by one that repeats it.
    event = _acting("impersonation_stopped", store_now, session, session.actor, {})
    unwritten = (event,) if ended.value else ()
    return Outcome(issued, ended.entries, ended.life, ended.written, ended.events, unwritten)


def _acting(name: EventName, at: int, session: Session, actor: str, extra: Mapping[str, Any]) -> Event:
    return Event(
        name=name,
        at=at,
        handle=session.handle,
        user_id=session.user_id,
        tenant=session.tenant,
        actor=actor,
        extra=extra,
    )
