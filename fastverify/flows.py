"""Every operation on sessions as a flow: a generator that yields calls and is sent their replies. No I/O, no clock.

A flow is driven blockingly or with ``await`` by the same few lines (store/driver.py), so each operation is written
once. ``now`` is in seconds since the epoch, by the caller's clock; ``random`` returns that many fresh random bytes.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from .authority import KEY_ENTRY_LIFE, Authority, Moment
from .entries import everything_entry, key_entry, session_entry, tenant_entry, token_entry
from .errors import (
    ClaimValidationFailed,
    InvalidClaim,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from .events import Event, EventBatch, EventName, StreamPart, check_why, merged, places_of
from .key_ring import RingKey
from .placement import Placement, root_tag
from .records import Actor, Record, json_object, json_value, member_field, pack
from .session import (
    ACT,
    DEFAULT_TENANT,
    Issued,
    Session,
    SessionInfo,
    format_handle,
    handle_bytes,
    is_guest_id,
    uuid_text,
)
from .session_claims import AUTH_TIME
from .store.calls import Call, Flow, Pause
from .tokens import (
    SECRET_BYTES,
    anti_csrf_token,
    encode_refresh_token,
    generation_of,
    parse_refresh_token,
    same_text,
    strip_default_claims,
)

Random = Callable[[int], bytes]
T = TypeVar("T")

#: A refresh that reaches the primary later than this after its first trip does nothing (rotation.md section 3).
DEADLINE_MS = 2_000
#: How long it is one request's turn to exchange another issuer's refresh token (ms), and how long others wait (s).
TURN_MS, TURN_PATIENCE = 30_000, 10.0
#: One refresh token is redelivered at most so often in a row: a rendering storm is honest, a loop is not.
MAX_REDELIVERIES = 64
#: Handles that one script call ends at most.
_BATCH = 500
_NONCE_BYTES = 16
#: The longest that anybody may act as another user without saying so again, in seconds.
LONGEST_IMPERSONATION = 86_400
_MAX_REASON = 200
#: For so long a promotion is remembered after the guest's session has ended (ms): a sign-in may be sent again.
_HEIR_MS = 600_000
#: Events that one call returns at most.
_MOST_EVENTS = 1_000
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_USER_ID = 256

#: What a mark of everybody is named; no tenant can be.
EVERYBODY = "*"

_audit = logging.getLogger("fastverify.audit")
_log = logging.getLogger("fastverify.store")


#: What a revocation is to wait for: that a replica has it, or that every verifier that still serves has applied it.
Wait: TypeAlias = Literal["replicated", "propagated"] | None


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


class AlreadyThere(Exception):
    """A session of this handle has been made already."""


def create(
    authority: Authority,
    user_id: str,
    *,
    now: float,
    random: Random,
    payload: Mapping[str, Any] | None = None,
    data: Any = None,
    tenant: str = DEFAULT_TENANT,
    login_id: str | None = None,
    device: Mapping[str, Any] | None = None,
    previous: str | None = None,
    lifetime: int | None = None,
    idle_timeout: int | None = None,
    anti_csrf: bool = False,
    remember: bool = True,
    handle: bytes | None = None,
    actor: Actor | None = None,
) -> Flow[Outcome[Issued]]:
    """Start a session; see ``Sessions.create``.

    ``handle``: not one of its own, but one in the user's shard that other calls may have been given too. ``actor``: who
    acts as the user by it; it then ends none of the user's own sessions, however many there may be.

    Raises:
        AlreadyThere: another call was first.
    """
    config = authority.config
    login_id = user_id if login_id is None else login_id
    _check_id("user_id", user_id)
    _check_id("login_id", login_id)
    _check_tenant(tenant)
    for name, flag in (("anti_csrf", anti_csrf), ("remember", remember)):
        if not isinstance(flag, bool):
            raise ValueError(f"{name} must be True or False")
    absolute = _span("lifetime", lifetime, config.absolute_lifetime)
    idle = min(_span("idle_timeout", idle_timeout, config.idle_lifetime), absolute)
    keys = authority.service_keys[0]
    draft = Record(
        handle=authority.placement.handle(user_id, random(16)) if handle is None else handle,
        user_id=user_id,
        login_id=login_id,
        tenant=tenant,
        secret=random(SECRET_BYTES),
        key_id=keys.key_id,
        generation=0,
        created_at=int(now * 1000),
        seen_at=int(now * 1000),
        idle_expires_at=int((now + idle) * 1000),
        absolute_expires_at=int((now + absolute) * 1000),
        anti_csrf=anti_csrf,
        payload=strip_default_claims(json_object("payload", payload)),
        device=json_object("device", device),
        data=json_value("data", data),
        remember=remember,
        actor=actor,
    )
    # Tokens first: a payload that cannot be signed leaves nothing behind in the store.
    refresh_token = encode_refresh_token(keys, draft.secret, draft.handle, 0)
    issued = authority.issue(draft, refresh_token, Moment(now, int(now * 1000)), changed=True)
    old = _handle_or_none(previous) if previous is not None else None
    shard = authority.placement.shard_of_user(user_id)
    in_same_step = old is not None and authority.placement.shard_of_handle(old) == shard
    fields: list[str | bytes | int] = ["login_id", draft.login_id, "secret", draft.secret]
    fields += ["key", keys.key_id, "csrf", int(anti_csrf), "device", pack(draft.device), "data", pack(draft.data)]
    if not remember:
        fields += ["remember", 0]
    if actor is not None:
        fields += ["actor", actor.handle, "actor_user", actor.user_id, "actor_g", actor.generation]
    most = config.max_sessions_per_user or 0 if actor is None else 0
    for member, value in draft.payload.items():
        fields += [member_field(member), pack(value)]
    name = uuid_text(draft.handle)
    reply, replicas = yield Call(
        "create",
        authority.placement.tag(shard),
        (
            *(name, user_id, tenant, idle * 1000, absolute * 1000, authority.debounce_ms),
            *(most, uuid_text(old) if old is not None and in_same_step else ""),
            *(authority.entry_life, random(_NONCE_BYTES), authority.events_kept, *fields),
        ),
        durable=True,
    )
    if len(_same(reply, name)) == 2:
        raise AlreadyThere
    store_now, mark, _, *others = reply[1:]
    created = _event("session_created", store_now, draft.handle, tenant, user_id)
    if replicas == 0:
        _log.warning("no replica has the new session yet; a failover now would lose it; session=%s", _short(name))
    ended = tuple(handle_bytes(text.decode()) for text in others[::4])
    events = tuple(
        _revoked(store_now, text, its, whose, why.decode())
        for text, its, whose, why in zip(*[iter(others)] * 4, strict=True)
        if whose
    )
    if old is not None and not in_same_step:
        # Another user's session, in another shard: it cannot end in the same step, so it ends in the same call.
        outcome = yield from _end(authority, (old,), random, "replaced")
        events += outcome.events
        ended += (old,)
    record, moment = draft.begun_at(store_now), Moment(now, store_now, mark)
    if authority.access_times(record, moment) == (issued.session.issued_at, issued.session.expires_at):
        issued = replace(issued, refresh_token_expires_at=record.idle_expires_at // 1000)
    else:
        issued = authority.issue(record, refresh_token, moment, changed=True)
    return Outcome(issued, tuple(map(session_entry, ended)), authority.entry_life, events=(*events, created))


def check_user(user_id: str) -> None:
    """Refuse a user id that only a guest has."""
    if isinstance(user_id, str) and is_guest_id(user_id):
        raise ValueError("user_id is one of a guest; guest() starts their sessions")


def promote(
    authority: Authority,
    guest: Session,
    user_id: str,
    *,
    now: float,
    random: Random,
    payload: Mapping[str, Any] | None = None,
    data: Any = None,
    tenant: str | None = None,
    anti_csrf: bool = False,
    **options: Any,
) -> Flow[Outcome[Issued]]:
    """Start a user's session in the place of a guest's; see ``Sessions.promote``.

    First it is written down, beside the guest's session, which session is to follow it: then whoever repeats this, at
    whatever point the call before was lost, gets that one and no other. Where one shard has both, the guest's session
    ends in the step that makes the user's; else right after it.
    """
    if not guest.is_guest:
        raise ValueError("only a guest's session can be promoted")
    _check_id("user_id", user_id)
    check_user(user_id)
    raw = handle_bytes(guest.handle)
    name, candidate = uuid_text(raw), authority.placement.handle(user_id, random(16))
    args = (name, user_id, uuid_text(candidate), _HEIR_MS)
    reply = _same((yield Call("promote", authority.tag_of_handle(raw), args)), name)
    if len(reply) == 2:
        raise Unauthorised("the guest's session has ended")
    heir, fields = handle_bytes(reply[2].decode()), reply[3:]

    def begin(record: Record, handle: bytes | None) -> Flow[Outcome[Issued]]:
        kept = {name: value for name, value in record.payload.items() if name != AUTH_TIME}
        return create(
            authority,
            user_id,
            now=now,
            random=random,
            payload={**kept, **json_object("payload", payload)},
            data=record.data if data is None else data,
            tenant=record.tenant if tenant is None else tenant,
            previous=guest.handle,
            anti_csrf=anti_csrf,
            handle=handle,
            **options,
        )

    ended: Outcome[Any] = Outcome(None)
    if fields:
        try:
            outcome = yield from begin(Record.read(raw, fields), heir)
        except AlreadyThere:  # by a call that did not get to end the guest's session, or is about to
            ended = yield from _end(authority, (raw,), random, "replaced")
        else:
            _audit.info("guest promoted; session=%s guest=%s", _short(outcome.value.session.handle), _short(name))
            return outcome
    try:
        issued = yield from _hand_out(authority, heir, 0, now, int(anti_csrf))
    except TryRefreshToken:  # its client has gone on with it, so it is not the one that asks
        record = yield from _read(authority, uuid_text(heir))
        if record is None:
            raise Unauthorised("the guest's session has ended") from None
        outcome = yield from begin(record, None)
        return replace(outcome, entries=outcome.entries + ended.entries, events=ended.events + outcome.events)
    return Outcome(issued, ended.entries, ended.life, ended.written, ended.events)


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
    _check_ours(session)
    _check_id("user_id", user_id)
    check_user(user_id)
    if not isinstance(lifetime, int) or isinstance(lifetime, bool) or not 1 <= lifetime <= LONGEST_IMPERSONATION:
        raise ValueError(f"lifetime must be a whole number of seconds from 1 to {LONGEST_IMPERSONATION}")
    if not isinstance(reason, str) or len(reason) > _MAX_REASON or not reason.isprintable():
        raise ValueError(f"reason must be a printable str of at most {_MAX_REASON} characters")
    raw, handle = handle_bytes(session.handle), authority.placement.handle(user_id, random(16))
    name = uuid_text(raw)
    # First where the actor's session is: from then on whatever ends that ends this too.
    args = (name, uuid_text(handle), lifetime * 1000, authority.debounce_ms)
    reply = _same((yield Call("impersonate", authority.tag_of_handle(raw), args)), name)
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
    _audit.warning(
        "impersonation started: %r acts as %r, reason %r; session=%s by=%s",
        *(session.user_id, user_id, reason, _short(uuid_text(handle)), _short(name)),
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
    record = yield from _read(authority, session.handle)
    actor = None if record is None else record.actor
    if record is not None and actor is None:  # an ``act`` of the application's own, of before it meant anything
        raise ClaimValidationFailed([{"id": ACT, "reason": {"message": "acts as nobody else"}}])
    name, keep = uuid_text(raw), authority.config.exchange_seconds * 1000
    memo = (name, session.actor, "" if actor is None else actor.handle, keep)
    reply = _same((yield Call("promote", authority.tag_of_handle(raw), memo)), name)
    if len(reply) == 2 or not reply[2]:
        raise Unauthorised("the session has ended")
    own = handle_bytes(reply[2].decode())
    args = (
        *(uuid_text(own), name, -1 if actor is None else actor.generation),
        *(authority.config.exchange_seconds * 1000, authority.debounce_ms, MAX_REDELIVERIES, authority.entry_life),
        "" if anti_csrf is None else int(anti_csrf),
    )
    reply = _same((yield Call("come_back", authority.tag_of_handle(own), args)), uuid_text(own))
    verdict, store_now, *rest = reply[1:]
    if verdict == b"HOLD":
        raise StoreUnavailable("the primary is new", retry_after=int(rest[0]) // 1000 + 1)
    if verdict == b"BUSY":
        _audit.warning("refresh token redelivered more than %d times; session=%s", MAX_REDELIVERIES, _short(name))
        raise TooManyRefreshes(retry_after=authority.debounce_ms // 1000)
    # Only now: until the reply to this call is on its way, the call can be made again.
    ended = yield from _end(authority, (raw,), random, "returned" if verdict == b"AGAIN" else "actor")
    if verdict != b"AGAIN":
        raise EndedNow("the session of who acted as this user has ended", ended)
    issued = _current(authority, own, rest, Moment(now, store_now, rest[0]))
    _audit.warning("impersonation stopped: %r acted as %r; session=%s", session.actor, session.user_id, _short(name))
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


def refresh(
    authority: Authority, refresh_token: str, *, now: float, random: Random, anti_csrf: str | None = None
) -> Flow[Outcome[Issued]]:
    """Exchange a refresh token in two trips (rotation.md section 3); see ``Sessions.refresh``."""
    token = parse_refresh_token(authority.service_keys, refresh_token)
    if token is None:
        raise Unauthorised("not a refresh token of this service")
    handle, tag = uuid_text(token.handle), authority.tag_of_handle(token.handle)
    reply = _same((yield Call("peek", tag, (handle,))), handle)
    at, secret, bound, actor = int(reply[1]), reply[2], reply[3] == b"1", reply[4].decode()
    if not secret:
        raise Unauthorised("the session has ended")
    if not token.belongs_to(secret):
        _audit.warning(
            "forged refresh token: edge tag holds, tag does not; a service key has leaked; session=%s", _short(handle)
        )
        raise Unauthorised("not a refresh token of this session")
    if bound and not same_text(anti_csrf, anti_csrf_token(secret)):
        raise Unauthorised("the anti-CSRF token is missing or not this session's")
    if actor and not (yield from _accompany(authority, actor)):
        ended = yield from _end(authority, (token.handle,), random, "actor")
        raise EndedNow("the session of who acted as this user has ended", ended)

    window = authority.config.exchange_seconds * 1000
    reply = yield Call(
        "refresh",
        tag,
        (
            *(handle, token.generation, at + DEADLINE_MS, window, authority.debounce_ms, MAX_REDELIVERIES),
            *(authority.entry_life, random(_NONCE_BYTES), authority.service_keys[0].key_id, token.keys.key_id),
            authority.events_kept,
        ),
    )
    verdict, store_now, *rest = _same(reply, handle)[1:]
    match verdict:
        case b"SAME" | b"ADOPTED":
            if verdict == b"ADOPTED":
                _audit.warning("state rollback: generation %d adopted; session=%s", token.generation, _short(handle))
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
            _audit.warning("token theft: %s; session=%s", reuse, _short(handle))
            raise TokenTheftDetected(
                handle=format_handle(token.handle, tenant), user_id=user_id, tenant=tenant, reuse=reuse
            )
        case b"BUSY":
            _audit.warning("refresh token redelivered more than %d times; session=%s", MAX_REDELIVERIES, _short(handle))
            raise TooManyRefreshes(retry_after=authority.debounce_ms // 1000)
        case b"LATE":
            raise StoreUnavailable("the refresh reached the store too late; nothing was done")
        case _:
            raise Unauthorised("the session has ended")


def verify_strict(authority: Authority, session: Session) -> Flow[Session]:
    """Ask the primary whether a verified session still lives."""
    yield from _vouched(authority, session)
    return session


def recheck(authority: Authority, session: Session, *, now: float) -> Flow[Issued | None]:
    """As ``verify_strict``; and where the payload has changed since, an access token that shows it."""
    store_now, mark, *fields = yield from _vouched(authority, session)
    record = Record.read(handle_bytes(session.handle), fields)
    if record.stated == dict(session.payload) or session.expires_at <= now:
        return None
    return authority.reissue(session, record, Moment(now, store_now, mark))


def revoke_many(
    authority: Authority, handles: Iterable[str], *, random: Random, why: str = "revoked"
) -> Flow[Outcome[list[str]]]:
    """End sessions by their handles; the result names those that were there."""
    if isinstance(handles, str):  # its characters are no handles, and nothing would be ended
        raise TypeError("handles must be several handles, not one str")
    check_why(why)
    named = {raw: handle for handle in handles if (raw := _handle_or_none(handle)) is not None}
    done = yield from _end(authority, named, random, why)
    there = [named[raw] for raw in named if raw in done.value]
    return Outcome(there, done.entries, done.life, done.written, done.events)


def revoke_user(
    authority: Authority,
    user_id: str,
    *,
    random: Random,
    tenant: str | None = None,
    except_handle: str | None = None,
    why: str = "revoke_user",
) -> Flow[Outcome[list[str]]]:
    """End a user's sessions: in one step, or where there are very many in several, the last of which leaves none."""
    _check_whose(user_id, tenant)
    check_why(why)
    spare = _handle_or_none(except_handle) if except_handle is not None else None
    if except_handle is not None and spare is None:  # to spare nothing would end the very session that was meant
        raise ValueError("except_handle is not a session handle")
    tag, whose = authority.tag_of_user(user_id), (user_id, tenant or "", uuid_text(spare) if spare else "")
    events, written, more = list[Event](), list[Written](), 1
    while more:
        nonce = random(_NONCE_BYTES)
        args = (*whose, authority.entry_life, nonce, _BATCH, authority.events_kept, why)
        reply, replicas = yield Call("revoke_user", tag, args, durable=True)
        at, more, seq, *pairs = _same(reply, user_id)[1:]
        for text, its in zip(pairs[::2], pairs[1::2], strict=True):
            events.append(_revoked(at, text, its, user_id.encode(), why))
        if seq:
            written.append(Written(tag, seq, nonce, replicas))
    handles = [event.handle for event in events if event.handle is not None]
    entries = tuple(session_entry(handle_bytes(handle)) for handle in handles)
    return Outcome(handles, entries, authority.entry_life, tuple(written), tuple(events))


def revoke_tenant(authority: Authority, tenant: str, *, random: Random) -> Flow[Outcome[None]]:
    """End every session of a tenant that there is now."""
    _check_tenant(tenant)
    return (yield from _mark(authority, tenant, random, "tenant"))


def revoke_all(authority: Authority, *, random: Random) -> Flow[Outcome[None]]:
    """End every session that there is now."""
    return (yield from _mark(authority, EVERYBODY, random, "all"))


def blacklist(authority: Authority, access_token: str, *, random: Random) -> Flow[Outcome[None]]:
    """Refuse one access token. Its session lives."""
    return (yield from _blacklist(authority, token_entry(access_token), authority.entry_life, random))


def blacklist_key(authority: Authority, kid: str, *, random: Random) -> Flow[Outcome[None]]:
    """Refuse every access token that a key has signed, or will."""
    return (yield from _blacklist(authority, key_entry(kid), KEY_ENTRY_LIFE, random))


def record_event(authority: Authority, event: Event) -> Flow[None]:
    """Write an event that no script has written, if events are kept."""
    if authority.events_kept:
        placement = authority.placement
        tag = placement.root if event.handle is None else authority.tag_of_handle(handle_bytes(event.handle))
        yield Call("event", tag, (authority.events_kept, *event.fields()))


def read_events(authority: Authority, after: str | None, limit: int) -> Flow[EventBatch]:
    """Events that the store has kept, of all its streams."""
    tags = [authority.placement.root, *authority.placement.tags]
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MOST_EVENTS:
        raise ValueError(f"limit must be a whole number from 1 to {_MOST_EVENTS}")
    places = [(0, "")] * len(tags) if after is None else places_of(after, len(tags))
    calls = [
        Call("events_read", tag, ("" if after is None else seq, primary, limit))
        for tag, (seq, primary) in zip(tags, places, strict=True)
    ]
    replies = yield calls
    parts = [
        StreamPart(missed == 1, [(int(seq), _texts(flat)) for seq, flat in entries]) for missed, *entries in replies
    ]
    return merged(parts, places, limit)


def nothing() -> Flow[None]:
    """There is nothing to do."""
    yield from ()


def check_wait(wait: Wait) -> None:
    """Refuse what is not one."""
    if wait not in ("replicated", "propagated", None):
        raise ValueError('wait must be "replicated", "propagated" or None')


def settle(written: Iterable[Written], wait: Wait, patience: float, staleness: float) -> Flow[None]:
    """Wait until revocations are where they shall be; for ``patience`` seconds at most, not counting the calls.

    ``staleness`` is B, in seconds: for so long may others serve of whom this primary has never heard.

    Raises:
        StoreUnavailable: they are not. They stand on the primary, and are safe to repeat.
    """
    pending = list(written)
    if wait == "replicated" and any(one.replicas == 0 for one in pending):
        raise StoreUnavailable("revoked, but no replica has it yet: a failover now could undo it")
    if wait != "propagated":
        return
    pause, serves = 0.001, int(staleness * 1000)
    while pending:
        replies = yield [
            Call("reached", one.tag, (one.seq, b"%b:%d" % (one.nonce, one.seq), serves)) for one in pending
        ]
        if b"LOST" in replies:
            raise StoreUnavailable("revoked, but the store has lost it since: repeat the call")
        pending = [one for one, yet in zip(pending, replies, strict=True) if yet]
        if pending and patience <= 0:
            raise StoreUnavailable("revoked, but not every verifier has reported it in time")
        if pending:
            yield Pause(pause)
            patience, pause = patience - pause, min(2 * pause, 0.05)


def handles(authority: Authority, user_id: str, *, tenant: str | None = None) -> Flow[list[str]]:
    """The handles of a user's sessions."""
    _check_whose(user_id, tenant)
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 0))
    _same(reply, user_id)
    return [format_handle(handle_bytes(item[0].decode()), item[2].decode()) for item in reply[1:]]


def list_sessions(
    authority: Authority, user_id: str, *, tenant: str | None = None, current: str | None = None
) -> Flow[list[SessionInfo]]:
    """What the store knows of each of a user's sessions."""
    _check_whose(user_id, tenant)
    own = _handle_or_none(current) if current is not None else None
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 1))
    _same(reply, user_id)
    records = [Record.read(handle_bytes(item[0].decode()), item[1:]) for item in reply[1:]]
    return [replace(record.info(), current=record.handle == own) for record in records]


def info(authority: Authority, handle: str) -> Flow[SessionInfo | None]:
    """What the store knows of one session."""
    record = yield from _read(authority, handle)
    return None if record is None else record.info()


def get_data(authority: Authority, handle: str) -> Flow[Any]:
    """The session data."""
    record = yield from _read(authority, handle)
    return None if record is None else record.data


def set_data(authority: Authority, handle: str, data: Any) -> Flow[bool]:
    """Replace the session data."""
    raw = _handle_or_none(handle)
    if raw is None:
        return False
    reply = yield from _update(authority, raw, {"data": pack(json_value("data", data))}, ())
    return len(reply) > 2


def merge_payload(authority: Authority, handle: str, patch: Mapping[str, Any], *, now: float) -> Flow[bool]:
    """Merge into the payload; the client sees it with its next access token."""
    return (yield from _merge(authority, handle, patch, now)) is not None


def reissue(authority: Authority, session: Session, patch: Mapping[str, Any], *, now: float) -> Flow[Issued | None]:
    """Merge into the payload, and mint an access token that shows it (wire.md section 3.4)."""
    _check_ours(session)
    merged = yield from _merge(authority, session.handle, patch, now)
    if merged is None:
        raise Unauthorised("the session has ended")
    return authority.reissue(session, *merged) if session.expires_at > now else None


def redeliver(authority: Authority, session: Session, *, now: float, anti_csrf: bool) -> Flow[Issued]:
    """Hand the refresh token that follows from an access token out once more; see ``Sessions.redeliver``."""
    _check_ours(session)
    raw, generation = handle_bytes(session.handle), generation_of(session.claims["refreshTokenHash1"])
    if generation is None:
        raise TryRefreshToken("the access token names no generation")
    return (yield from _hand_out(authority, raw, generation, now, int(anti_csrf)))


def _hand_out(authority: Authority, raw: bytes, generation: int, now: float, anti_csrf: int) -> Flow[Issued]:
    """Hand out the refresh token that goes with an access token of a generation."""
    handle, window = uuid_text(raw), authority.config.exchange_seconds * 1000
    args = (handle, generation, window, authority.debounce_ms, MAX_REDELIVERIES, authority.entry_life)
    reply = _same((yield Call("redeliver", authority.tag_of_handle(raw), (*args, anti_csrf))), handle)
    verdict, store_now, *rest = reply[1:]
    match verdict:
        case b"AGAIN":
            return _current(authority, raw, rest, Moment(now, store_now, rest[0]))
        case b"BUSY":
            _audit.warning("refresh token redelivered more than %d times; session=%s", MAX_REDELIVERIES, _short(handle))
            raise TooManyRefreshes(retry_after=authority.debounce_ms // 1000)
        case b"HOLD":
            raise StoreUnavailable("the primary is new", retry_after=int(rest[0]) // 1000 + 1)
        case b"OLD":
            raise TryRefreshToken("the access token is of a generation that has been exchanged")
        case _:
            raise Unauthorised("the session has ended")


def claim_exchange(authority: Authority, digest: str, nonce: str, *, now: float) -> Flow[Issued | None]:
    """Take one's turn to exchange another issuer's refresh token: None; or get the session that came of it before.

    Args:
        digest: SHA-256 of the token, hexadecimal.
        nonce: of this attempt.
    """
    tag, patience, pause = authority.tag_of_digest(digest), TURN_PATIENCE, 0.02
    while True:
        reply = yield Call("exchange_claim", tag, (digest, nonce, TURN_MS))
        verdict, *rest = _same(reply, digest)[1:]
        if verdict == b"MINE":
            return None
        if verdict == b"DONE":
            return (yield from _first_tokens(authority, rest[0].decode(), now))
        if patience <= 0:
            raise StoreUnavailable("another request has been exchanging this refresh token for too long")
        yield Pause(pause)
        patience, pause = patience - pause, min(2 * pause, 0.2)


def settle_exchange(authority: Authority, digest: str, nonce: str, handle: str) -> Flow[bool]:
    """End one's turn, with a session or, with an empty handle, without; False if it was over."""
    kept = max(authority.config.exchange_seconds, 1) * 1000
    args = digest, nonce, uuid_text(handle_bytes(handle)) if handle else "", kept
    reply = yield Call("exchange_settle", authority.tag_of_digest(digest), args)
    return bool(_same(reply, digest)[1])


def _first_tokens(authority: Authority, handle: str, now: float) -> Flow[Issued]:
    """The tokens that a session began with, once more."""
    raw = handle_bytes(handle)
    alive, *rest = _same((yield Call("strict", authority.tag_of_handle(raw), (handle,))), handle)[1:]
    if alive != 1:
        raise Unauthorised("the session that this refresh token was exchanged for has ended")
    record = Record.read(raw, rest[2:])
    if record.generation:  # the client that has them is further; what it holds is not touched
        raise Unauthorised("this refresh token has been exchanged", clear_tokens=False)
    token = encode_refresh_token(authority.keys_named(record.key_id), record.secret, raw, 0)
    return authority.issue(record, token, Moment(now, *rest[:2]), changed=True)


def _current(authority: Authority, raw: bytes, rest: list[Any], moment: Moment) -> Issued:
    """The tokens of the current generation, of what a script replies behind the time."""
    record = Record.read(raw, rest[1:])
    token = encode_refresh_token(authority.keys_named(record.key_id), record.secret, record.handle, record.generation)
    return authority.issue(record, token, moment, changed=True)


def confirm(placement: Placement, seen: Mapping[bytes, int]) -> Flow[None]:
    """Report that access tokens of these sessions' generations have been seen; generations by handle."""
    calls = [
        Call("confirm", tag, tuple(part for raw in raws for part in (uuid_text(raw), seen[raw])))
        for tag, raws in _batches(placement, seen)
    ]
    for adopted in (yield calls):
        for handle_text in adopted:
            _audit.warning("state rollback: a generation confirmed; session=%s", _short(handle_text.decode()))


def note_seen(placement: Placement, handles: Iterable[bytes], span: int) -> Flow[None]:
    """Report that sessions are in use; once in ``span`` seconds it is written down."""
    yield [Call("seen", tag, (span * 1000, *map(uuid_text, raws))) for tag, raws in _batches(placement, handles)]


@dataclass(frozen=True, slots=True)
class StoreState:
    """What ``keys_read`` returns: the store's settings and its signing keys. Equal to another but for the time."""

    #: None until a session service has taken up the store.
    placement: Placement | None
    longest_access_lifetime: int
    #: The dynamic key that was made last.
    newest: str
    #: Milliseconds since the epoch, by the store's clock.
    now: int = field(compare=False)
    records: tuple[tuple[bytes, bytes, bytes], ...]
    #: The static keys in use, by algorithm.
    static: dict[str, str] = field(default_factory=dict)


def claim_store(prefix: str, shards: int, access_token_lifetime: int) -> Flow[Placement]:
    """Take up a store: its number of shards is fixed by whoever is first."""
    reply = yield Call("store_claim", root_tag(prefix), (shards, access_token_lifetime))
    return Placement(prefix, int(reply[0]))


def read_keys(prefix: str, *, private: bool) -> Flow[StoreState]:
    """Read the key ring, with the sealed private parts if asked."""
    shards, longest, newest, now, slots, *keys = yield Call("keys_read", root_tag(prefix), (int(private),))
    placement = Placement(prefix, shards) if shards else None
    records = tuple((kid, public, sealed) for kid, public, sealed in keys)
    static = {name.decode(): kid.decode() for name, kid in zip(slots[::2], slots[1::2], strict=True)}
    return StoreState(placement, longest, newest.decode(), now, records, static)


def add_key(
    prefix: str,
    known: str,
    key: RingKey,
    sealed: bytes,
    dropped: Iterable[str],
    event: Event | None = None,
    kept: int = 0,
) -> Flow[bool]:
    """Add a key unless another process has just added one; False then. The event is written if so many are ``kept``.

    ``known``: the kid that it follows, which is the newest dynamic one, or the static one of its algorithm; or empty.
    """
    slot = f"static:{key.algorithm}" if key.is_static else "newest"
    told: tuple[str | int, ...] = () if event is None else (kept, *event.fields())
    record: tuple[str | bytes | int, ...] = (slot, known, key.kid, key.public_record(), sealed)
    record += (len(told), *told, *dropped)
    reply, replicas = yield Call("keys_add", root_tag(prefix), record, durable=True)
    if reply == 1 and replicas == 0:
        _log.warning("no replica has the new signing key %s yet; a failover now would lose it", key.kid)
    return bool(reply == 1)


def _end(authority: Authority, raws: Iterable[bytes], random: Random, why: str) -> Flow[Outcome[set[bytes]]]:
    """End sessions, a script call for each shard; the value is those that were there."""
    raws = list(raws)
    batches = [
        (tag, random(_NONCE_BYTES), [*map(uuid_text, batch)]) for tag, batch in _batches(authority.placement, raws)
    ]
    life, events, written = authority.entry_life, list[Event](), list[Written]()
    while batches:
        # As many in one trip as one of the largest, or two: their replies have to come within the time for one call.
        size = accumulate(len(texts) for _, _, texts in batches)
        several = [batch for batch, so_far in zip(batches, size, strict=True) if so_far <= 2 * _BATCH]
        batches = batches[len(several) :]
        replies = yield [
            Call("revoke", tag, (life, nonce, authority.events_kept, why, *texts), durable=True)
            for tag, nonce, texts in several
        ]
        for (tag, nonce, texts), (reply, replicas) in zip(several, replies, strict=True):
            at, seq, *ended = _same(reply, texts[0])[1:]
            for text, its, whose in zip(*[iter(ended)] * 3, strict=True):
                events.append(_revoked(at, text, its, whose, why))
            written.append(Written(tag, seq, nonce, replicas))
    there = {handle_bytes(event.handle) for event in events if event.handle is not None}
    return Outcome(there, tuple(map(session_entry, raws)), life, tuple(written), tuple(events))


def _batches(placement: Placement, handles: Iterable[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Handles by the tag of their shard, so many at a time as one script call may take."""
    by_tag: dict[str, list[bytes]] = {}
    for raw in handles:
        by_tag.setdefault(placement.tag(placement.shard_of_handle(raw)), []).append(raw)
    for tag, raws in by_tag.items():
        for start in range(0, len(raws), _BATCH):
            yield tag, raws[start : start + _BATCH]


def _mark(authority: Authority, tenant: str, random: Random, why: str) -> Flow[Outcome[None]]:
    """Mark every shard, and then write one entry into all of them, of the latest of these times, and marks as late.

    In this order: a session from before is refreshed no more once its shard is marked, so none of its access tokens has
    been issued after that. What is made later in any shard bears a later time than the entry.
    """
    tags, keep = authority.placement.tags, authority.config.absolute_lifetime * 1000
    replies = yield [Call("mark", tag, (tenant, "", keep)) for tag in tags]
    latest = max(_same(reply, tenant)[1] for reply in replies)
    yield [Call("mark", tag, (tenant, latest, keep)) for tag in tags]
    entry = everything_entry(latest) if tenant == EVERYBODY else tenant_entry(tenant, latest)
    outcome = yield from _blacklist(authority, entry, authority.entry_life, random)
    event = Event(name="session_revoked", at=latest, tenant=None if tenant == EVERYBODY else tenant, why=why)
    return replace(outcome, unwritten=(event,))


def _blacklist(authority: Authority, entry: bytes, life: int, random: Random) -> Flow[Outcome[None]]:
    """Write an entry into every shard that it belongs into."""
    places = [(tag, random(_NONCE_BYTES)) for tag in authority.placement.tags_of_entry(entry)]
    replies = yield [Call("blacklist", tag, (life, nonce, entry), durable=True) for tag, nonce in places]
    written = [
        Written(tag, _same(reply, entry)[1], nonce, replicas)
        for (tag, nonce), (reply, replicas) in zip(places, replies, strict=True)
    ]
    return Outcome(None, (entry,), life, tuple(written))


def _read(authority: Authority, handle: str) -> Flow[Record | None]:
    raw = _handle_or_none(handle)
    if raw is None:
        return None
    reply = _same((yield Call("info", authority.tag_of_handle(raw), (uuid_text(raw),))), uuid_text(raw))
    return Record.read(raw, reply[2:]) if len(reply) > 2 else None


def _update(
    authority: Authority, raw: bytes, sets: Mapping[str, bytes], deletes: Iterable[str], revision: str | int = ""
) -> Flow[list[Any]]:
    pairs = [part for pair in sets.items() for part in pair]
    args = (uuid_text(raw), revision, len(sets), *pairs, *deletes)
    return _same((yield Call("update", authority.tag_of_handle(raw), args)), uuid_text(raw))


def _merge(
    authority: Authority, handle: str, patch: Mapping[str, Any], now: float
) -> Flow[tuple[Record, Moment] | None]:
    """None deletes a member; other members stay as they are at the moment of the write.

    Returns the record and what time it was then; None if the session has ended.
    """
    changes = strip_default_claims(json_object("patch", patch))
    sets = {name: value for name, value in changes.items() if value is not None}
    deletes = changes.keys() - sets.keys()
    fields = {member_field(name): pack(value) for name, value in sets.items()}
    gone = [member_field(name) for name in deletes]
    while True:
        record = yield from _read(authority, handle)
        if record is None:
            return None
        # Before anything is written: a payload that cannot be signed would lock the client out of refreshing.
        kept = {name: value for name, value in record.stated.items() if name not in deletes}
        authority.check_payload(record, {**kept, **sets}, now)
        reply = yield from _update(authority, record.handle, fields, gone, record.revision)
        if reply[2:] != [b"CHANGED"]:  # by another merge, which may have taken the room
            return (Record.read(record.handle, reply[3:]), Moment(now, *reply[1:3])) if len(reply) > 2 else None


def _check_ours(session: Session) -> None:
    """The store knows nothing of another issuer's session; a refresh makes it ours, and clients then try again."""
    if session.foreign:
        raise TryRefreshToken("try refresh token: the session is another issuer's, and the store does not know it")


def _vouched(authority: Authority, session: Session) -> Flow[list[Any]]:
    _check_ours(session)
    raw = handle_bytes(session.handle)
    handle = uuid_text(raw)
    reply = _same((yield Call("strict", authority.tag_of_handle(raw), (handle,))), handle)
    if reply[1] != 1:
        raise Unauthorised("the session has ended")
    fields: list[Any] = reply[2:]
    actor = dict(zip(fields[2::2], fields[3::2], strict=True)).get(b"actor")
    if actor is not None and not (yield from _accompany(authority, actor.decode())):
        raise Unauthorised("the session of who acted as this user has ended")
    return fields


def _accompany(authority: Authority, actor: str) -> Flow[bool]:
    """Whether the session lives by which somebody acts as another user; it counts as used."""
    raw = handle_bytes(actor)
    reply = _same((yield Call("accompany", authority.tag_of_handle(raw), (uuid_text(raw),))), uuid_text(raw))
    return bool(reply[1])


def _same(reply: list[Any], asked: str | bytes) -> list[Any]:
    """A reply must name what was asked: one that was left on a connection by somebody else is never used."""
    if not isinstance(reply, list) or not reply or reply[0] != (asked if isinstance(asked, bytes) else asked.encode()):
        raise StoreUnavailable("the store's reply belongs to another request")
    return reply


def _texts(flat: list[bytes]) -> dict[str, str]:
    """Names and values, as a mapping."""
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _event(name: EventName, at: int, raw: bytes, tenant: str, user_id: str, why: str | None = None) -> Event:
    return Event(name=name, at=at, handle=format_handle(raw, tenant), user_id=user_id, tenant=tenant, why=why)


def _revoked(at: int, handle: bytes, tenant: bytes, user_id: bytes, why: str) -> Event:
    """Of a session that was there, as the scripts name it."""
    return _event("session_revoked", at, handle_bytes(handle.decode()), tenant.decode(), user_id.decode(), why)


def _refreshed(record: Record, at: int, verdict: bytes) -> Event:
    return _event("session_refreshed", at, record.handle, record.tenant, record.user_id, verdict.decode().lower())


def _short(handle: str) -> str:
    """A session's name in logs: enough to match lines, not enough to act on."""
    return hashlib.sha256(handle.encode()).hexdigest()[:12]


def _handle_or_none(handle: str) -> bytes | None:
    try:
        return handle_bytes(handle)
    except InvalidClaim:
        return None


def _check_id(name: str, value: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_USER_ID:
        raise ValueError(f"{name} must be a str of 1 to {_MAX_USER_ID} characters")


def _check_tenant(tenant: str) -> None:
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise ValueError("tenant must be 1 to 64 letters, digits, '.', '_' or '-', and start with a letter or digit")


def _check_whose(user_id: str, tenant: str | None) -> None:
    """Of whom something is asked. An empty tenant is refused: the scripts take it for all of them."""
    _check_id("user_id", user_id)
    if tenant is not None:
        _check_tenant(tenant)


def _span(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of seconds, at least 1")
    if value > default:
        raise ValueError(f"{name} must be at most what the configuration allows, {default} s")
    return value
