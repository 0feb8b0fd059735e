"""Every operation on sessions as a flow: a generator that yields calls and is sent their replies. No I/O, no clock.

A flow is driven blockingly or with ``await`` by the same few lines (store/driver.py), so each operation is written
once. ``now`` is in seconds since the epoch, by the caller's clock; ``random`` returns that many fresh random bytes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .authority import Authority
from .errors import (
    InvalidClaim,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    Unauthorised,
)
from .key_ring import RingKey
from .placement import Placement, root_tag
from .records import Record, json_object, json_value, member_field, pack
from .session import DEFAULT_TENANT, Issued, Session, SessionInfo, format_handle, handle_bytes
from .store.calls import Call, Flow
from .tokens import (
    SECRET_BYTES,
    anti_csrf_token,
    encode_refresh_token,
    parse_refresh_token,
    same_text,
    strip_default_claims,
)

Random = Callable[[int], bytes]
T = TypeVar("T")

#: A refresh that reaches the primary later than this after its first trip does nothing (rotation.md section 3).
DEADLINE_MS = 2_000
#: One refresh token is redelivered at most so often in a row: a rendering storm is honest, a loop is not.
MAX_REDELIVERIES = 64
#: Handles that one script call ends at most.
_BATCH = 500
_NONCE_BYTES = 16
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_USER_ID = 256

_audit = logging.getLogger("fastverify.audit")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A flow's result, with the sessions that it ended: the process refuses those at once, before it hears of them."""

    value: T
    ended: tuple[bytes, ...] = ()


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
) -> Flow[Outcome[Issued]]:
    """Start a session; see ``Sessions.create``."""
    config = authority.config
    login_id = user_id if login_id is None else login_id
    _check_id("user_id", user_id)
    _check_id("login_id", login_id)
    _check_tenant(tenant)
    if not isinstance(anti_csrf, bool):
        raise ValueError("anti_csrf must be True or False")
    absolute = _span("lifetime", lifetime, config.absolute_lifetime)
    idle = min(_span("idle_timeout", idle_timeout, config.idle_lifetime), absolute)
    keys = authority.service_keys[0]
    draft = Record(
        handle=authority.placement.handle(user_id, random(16)),
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
    )
    # Tokens first: a payload that cannot be signed leaves nothing behind in the store.
    refresh_token = encode_refresh_token(keys, draft.secret, draft.handle, 0)
    issued = authority.issue(draft, refresh_token, changed=True, now=now)

    old = _handle_or_none(previous) if previous is not None else None
    shard = authority.placement.shard_of_user(user_id)
    in_same_step = old is not None and authority.placement.shard_of_handle(old) == shard
    fields: list[str | bytes | int] = ["login_id", draft.login_id, "tenant", tenant, "secret", draft.secret]
    fields += ["key", keys.key_id, "csrf", int(anti_csrf), "device", pack(draft.device), "data", pack(draft.data)]
    for name, value in draft.payload.items():
        fields += [member_field(name), pack(value)]
    handle = _text(draft.handle)
    reply = yield Call(
        "create",
        authority.placement.tag(shard),
        (
            *(handle, user_id, idle * 1000, absolute * 1000, authority.debounce_ms),
            *(config.max_sessions_per_user or 0, _text(old) if old is not None and in_same_step else ""),
            *(authority.entry_life, random(_NONCE_BYTES), *fields),
        ),
    )
    _same(reply, handle)
    ended = tuple(uuid.UUID(text.decode()).bytes for text in reply[4:])
    if old is not None and not in_same_step:
        # Another user's session, in another shard: it cannot end in the same step, so it ends in the same call.
        yield from _end(authority, (old,), random)
        ended += (old,)
    return Outcome(issued, ended)


def refresh(
    authority: Authority, refresh_token: str, *, now: float, random: Random, anti_csrf: str | None = None
) -> Flow[Outcome[Issued]]:
    """Exchange a refresh token in two trips (rotation.md section 3); see ``Sessions.refresh``."""
    token = parse_refresh_token(authority.service_keys, refresh_token)
    if token is None:
        raise Unauthorised("not a refresh token of this service")
    handle, tag = _text(token.handle), authority.tag_of_handle(token.handle)
    reply = _same((yield Call("peek", tag, (handle,))), handle)
    at, secret, bound = int(reply[1]), reply[2], reply[3] == b"1"
    if not secret:
        raise Unauthorised("the session has ended")
    if not token.belongs_to(secret):
        _audit.warning(
            "forged refresh token: edge tag holds, tag does not; a service key has leaked; session=%s", _short(handle)
        )
        raise Unauthorised("not a refresh token of this session")
    if bound and not same_text(anti_csrf, anti_csrf_token(secret)):
        raise Unauthorised("the anti-CSRF token is missing or not this session's")

    window = authority.config.exchange_seconds * 1000
    reply = yield Call(
        "refresh",
        tag,
        (
            *(handle, token.generation, at + DEADLINE_MS, window, authority.debounce_ms, MAX_REDELIVERIES),
            *(authority.entry_life, random(_NONCE_BYTES), authority.service_keys[0].key_id, token.keys.key_id),
        ),
    )
    verdict, rest = _same(reply, handle)[1], reply[3:]
    match verdict:
        case b"SAME" | b"ADOPTED":
            if verdict == b"ADOPTED":
                _audit.warning("state rollback: generation %d adopted; session=%s", token.generation, _short(handle))
            record = Record.read(token.handle, rest)
            return Outcome(authority.issue(record, refresh_token, changed=False, now=now))
        case b"ROTATED" | b"AGAIN":
            record = Record.read(token.handle, rest)
            keys = authority.keys_named(record.key_id)
            child = encode_refresh_token(keys, record.secret, record.handle, record.generation)
            return Outcome(authority.issue(record, child, changed=True, now=now))
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
    raw = handle_bytes(session.handle)
    handle = _text(raw)
    reply = _same((yield Call("strict", authority.tag_of_handle(raw), (handle,))), handle)
    if reply[1] != 1:
        raise Unauthorised("the session has ended")
    return session


def revoke_many(authority: Authority, handles: Iterable[str], *, random: Random) -> Flow[Outcome[list[str]]]:
    """End sessions by their handles; the result names those that were there."""
    if isinstance(handles, str):  # its characters are no handles, and nothing would be ended
        raise TypeError("handles must be several handles, not one str")
    named = {raw: handle for handle in handles if (raw := _handle_or_none(handle)) is not None}
    there = yield from _end(authority, named, random)
    return Outcome([named[raw] for raw in named if raw in there], tuple(named))


def revoke_user(
    authority: Authority, user_id: str, *, random: Random, tenant: str | None = None, except_handle: str | None = None
) -> Flow[Outcome[list[str]]]:
    """End a user's sessions in one step."""
    _check_whose(user_id, tenant)
    spare = _handle_or_none(except_handle) if except_handle is not None else None
    if except_handle is not None and spare is None:  # to spare nothing would end the very session that was meant
        raise ValueError("except_handle is not a session handle")
    reply = yield Call(
        "revoke_user",
        authority.tag_of_user(user_id),
        (user_id, tenant or "", _text(spare) if spare else "", authority.entry_life, random(_NONCE_BYTES)),
    )
    _same(reply, user_id)
    ended = [(uuid.UUID(text.decode()).bytes, its.decode()) for text, its in zip(reply[1::2], reply[2::2], strict=True)]
    return Outcome([format_handle(raw, its) for raw, its in ended], tuple(raw for raw, _ in ended))


def handles(authority: Authority, user_id: str, *, tenant: str | None = None) -> Flow[list[str]]:
    """The handles of a user's sessions."""
    _check_whose(user_id, tenant)
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 0))
    _same(reply, user_id)
    return [format_handle(uuid.UUID(item[0].decode()).bytes, item[2].decode()) for item in reply[1:]]


def list_sessions(authority: Authority, user_id: str, *, tenant: str | None = None) -> Flow[list[SessionInfo]]:
    """What the store knows of each of a user's sessions."""
    _check_whose(user_id, tenant)
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 1))
    _same(reply, user_id)
    return [Record.read(uuid.UUID(item[0].decode()).bytes, item[1:]).info() for item in reply[1:]]


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
    record = yield from _merge(authority, handle, patch, now)
    return record is not None


def reissue(authority: Authority, session: Session, patch: Mapping[str, Any], *, now: float) -> Flow[Issued | None]:
    """Merge into the payload, and mint an access token that shows it (wire.md section 3.4)."""
    record = yield from _merge(authority, session.handle, patch, now)
    if record is None:
        raise Unauthorised("the session has ended")
    return authority.reissue(session, record, now) if session.expires_at > now else None


@dataclass(frozen=True, slots=True)
class StoreState:
    """What ``keys_read`` returns: the store's settings and its signing keys. Equal to another but for the time."""

    #: None until a session service has taken up the store.
    placement: Placement | None
    longest_access_lifetime: int
    newest: str
    #: Milliseconds since the epoch, by the store's clock.
    now: int = field(compare=False)
    records: tuple[tuple[bytes, bytes, bytes], ...]


def claim_store(prefix: str, shards: int, access_token_lifetime: int) -> Flow[Placement]:
    """Take up a store: its number of shards is fixed by whoever is first."""
    reply = yield Call("store_claim", root_tag(prefix), (shards, access_token_lifetime))
    return Placement(prefix, int(reply[0]))


def read_keys(prefix: str, *, private: bool) -> Flow[StoreState]:
    """Read the key ring, with the sealed private parts if asked."""
    shards, longest, newest, now, *keys = yield Call("keys_read", root_tag(prefix), (int(private),))
    placement = Placement(prefix, shards) if shards else None
    records = tuple((kid, public, sealed) for kid, public, sealed in keys)
    return StoreState(placement, longest, newest.decode(), now, records)


def add_key(prefix: str, newest: str, key: RingKey, sealed: bytes, retired: Iterable[str]) -> Flow[bool]:
    """Add a key unless another process has just added one; False then."""
    reply = yield Call("keys_add", root_tag(prefix), (newest, key.kid, key.public_record(), sealed, *retired))
    return bool(reply == 1)


def _end(authority: Authority, raws: Iterable[bytes], random: Random) -> Flow[set[bytes]]:
    """End sessions, a script call for each shard; those that were there."""
    by_tag: dict[str, list[str]] = {}
    for raw in raws:
        by_tag.setdefault(authority.tag_of_handle(raw), []).append(_text(raw))
    there: set[bytes] = set()
    for tag, texts in by_tag.items():
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            reply = yield Call("revoke", tag, (authority.entry_life, random(_NONCE_BYTES), *batch))
            there.update(uuid.UUID(text.decode()).bytes for text in _same(reply, batch[0])[1:])
    return there


def _read(authority: Authority, handle: str) -> Flow[Record | None]:
    raw = _handle_or_none(handle)
    if raw is None:
        return None
    reply = _same((yield Call("info", authority.tag_of_handle(raw), (_text(raw),))), _text(raw))
    return Record.read(raw, reply[2:]) if len(reply) > 2 else None


def _update(
    authority: Authority, raw: bytes, sets: Mapping[str, bytes], deletes: Iterable[str], revision: str | int = ""
) -> Flow[list[Any]]:
    pairs = [part for pair in sets.items() for part in pair]
    args = (_text(raw), revision, len(sets), *pairs, *deletes)
    return _same((yield Call("update", authority.tag_of_handle(raw), args)), _text(raw))


def _merge(authority: Authority, handle: str, patch: Mapping[str, Any], now: float) -> Flow[Record | None]:
    """None deletes a member; other members stay as they are at the moment of the write."""
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
        kept = {name: value for name, value in record.payload.items() if name not in deletes}
        authority.check_payload(record, {**kept, **sets}, now)
        reply = yield from _update(authority, record.handle, fields, gone, record.revision)
        if reply[2:] != [b"CHANGED"]:  # by another merge, which may have taken the room
            return Record.read(record.handle, reply[2:]) if len(reply) > 2 else None


def _same(reply: list[Any], asked: str) -> list[Any]:
    """A reply must name what was asked: one that was left on a connection by somebody else is never used."""
    if not isinstance(reply, list) or not reply or reply[0] != asked.encode():
        raise StoreUnavailable("the store's reply belongs to another request")
    return reply


def _short(handle: str) -> str:
    """A session's name in logs: enough to match lines, not enough to act on."""
    return hashlib.sha256(handle.encode()).hexdigest()[:12]


def _text(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


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
