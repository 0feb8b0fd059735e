"""Refresh tokens: their exchange, and handing one out once more (rotation.md)."""

from __future__ import annotations

from typing import Any

from ..authority import Authority, Moment
from ..errors import StoreUnavailable, TokenTheftDetected, TryRefreshToken, Unauthorised
from ..events import Event
from ..records import Record
from ..session import Issued, Session, format_handle, handle_bytes, uuid_text
from ..store.calls import Call, Flow
from ..tokens import anti_csrf_token, encode_refresh_token, generation_of, parse_refresh_token, same_text
from . import limits
from .common import EndedNow, Outcome, Random, audit, check_ours, reply_to, session_event, short, too_many_redeliveries
from .revoking import end


def refresh(
    authority: Authority, refresh_token: str, *, now: float, random: Random, anti_csrf: str | None = None
) -> Flow[Outcome[Issued]]:
    """Exchange a refresh token in two trips (rotation.md section 3); see ``Sessions.refresh``."""
    token = parse_refresh_token(authority.service_keys, refresh_token)
    if token is None:
        raise Unauthorised("not a refresh token of this service")
    handle, tag = uuid_text(token.handle), authority.tag_of_handle(token.handle)
    reply = reply_to((yield Call("peek", tag, (handle,))), handle)
    at, secret, bound, actor = int(reply[1]), reply[2], reply[3] == b"1", reply[4].decode()
    if not secret:
        raise Unauthorised("the session has ended")
    if not token.belongs_to(secret):
        audit.warning(
            "forged refresh token: edge tag holds, tag does not; a service key has leaked; session=%s", short(handle)
        )
        raise Unauthorised("not a refresh token of this session")
    if bound and not same_text(anti_csrf, anti_csrf_token(secret)):
        raise Unauthorised("the anti-CSRF token is missing or not this session's")
    if actor and not (yield from accompany(authority, actor)):
        ended = yield from end(authority, (token.handle,), random, "actor")
        raise EndedNow("the session of who acted as this user has ended", ended)

    window = authority.config.exchange_seconds * 1000
    reply = yield Call(
        "refresh",
        tag,
        (
            *(handle, token.generation, at + limits.DEADLINE_MS, window),
            *(authority.debounce_ms, limits.MAX_REDELIVERIES),
            *(authority.entry_life, random(limits.NONCE_BYTES), authority.service_keys[0].key_id, token.keys.key_id),
            authority.events_kept,
        ),
    )
    verdict, store_now, *rest = reply_to(reply, handle)[1:]
    match verdict:
        case b"SAME" | b"ADOPTED":
            if verdict == b"ADOPTED":
                audit.warning("state rollback: generation %d adopted; session=%s", token.generation, short(handle))
            record, moment = Record.read(token.handle, rest[1:]), Moment(now, store_now, rest[0])
            issued = authority.issue(record, refresh_token, moment, changed=False)
            return Outcome(issued, events=(_refreshed(record, store_now, verdict),))
        case b"ROTATED" | b"AGAIN":
            record, moment = Record.read(token.handle, rest[1:]), Moment(now, store_now, rest[0])
            keys = authority.keys_named(record.key_id)
            child = encode_refresh_token(keys, record.secret, record.handle, record.generation)
            issued = authority.issue(record, child, moment, changed=True)
            return Outcome(issued, events=(_refreshed(record, store_now, verdict),))
        case b"THEFT":
            reuse, user_id, tenant = (part.decode() for part in rest)
            audit.warning("token theft: %s; session=%s", reuse, short(handle))
            raise TokenTheftDetected(
                handle=format_handle(token.handle, tenant), user_id=user_id, tenant=tenant, reuse=reuse
            )
        case b"BUSY":
            raise too_many_redeliveries(authority, handle)
        case b"LATE":
            raise StoreUnavailable("the refresh reached the store too late; nothing was done")
        case _:
            raise Unauthorised("the session has ended")


def redeliver(authority: Authority, session: Session, *, now: float, anti_csrf: bool) -> Flow[Issued]:
    """Hand the refresh token that follows from an access token out once more; see ``Sessions.redeliver``."""
    check_ours(session)
    raw, generation = handle_bytes(session.handle), generation_of(session.claims["refreshTokenHash1"])
    if generation is None:
        raise TryRefreshToken("the access token names no generation")
    return (yield from hand_out(authority, raw, generation, now, int(anti_csrf)))


def hand_out(authority: Authority, raw: bytes, generation: int, now: float, anti_csrf: int) -> Flow[Issued]:
    """Hand out the refresh token that goes with an access token of a generation."""
    handle, window = uuid_text(raw), authority.config.exchange_seconds * 1000
    args = (handle, generation, window, authority.debounce_ms, limits.MAX_REDELIVERIES, authority.entry_life)
    reply = reply_to((yield Call("redeliver", authority.tag_of_handle(raw), (*args, anti_csrf))), handle)
    verdict, store_now, *rest = reply[1:]
    match verdict:
        case b"AGAIN":
            return current_tokens(authority, raw, rest, Moment(now, store_now, rest[0]))
        case b"BUSY":
            raise too_many_redeliveries(authority, handle)
        case b"HOLD":
            raise StoreUnavailable("the primary is new", retry_after=int(rest[0]) // 1000 + 1)
        case b"OLD":
            raise TryRefreshToken("the access token is of a generation that has been exchanged")
        case _:
            raise Unauthorised("the session has ended")


def current_tokens(authority: Authority, raw: bytes, rest: list[Any], moment: Moment) -> Issued:
    """The tokens of the current generation, of what a script replies behind the time."""
    record = Record.read(raw, rest[1:])
    token = encode_refresh_token(authority.keys_named(record.key_id), record.secret, record.handle, record.generation)
    return authority.issue(record, token, moment, changed=True)


def accompany(authority: Authority, actor: str) -> Flow[bool]:
    """Whether the session lives by which somebody acts as another user; it counts as used."""
    raw = handle_bytes(actor)
    reply = reply_to((yield Call("accompany", authority.tag_of_handle(raw), (uuid_text(raw),))), uuid_text(raw))
    return bool(reply[1])


def _refreshed(record: Record, at: int, verdict: bytes) -> Event:
    why = verdict.decode().lower()
    return session_event("session_refreshed", at, record.handle, record.tenant, record.user_id, why)
