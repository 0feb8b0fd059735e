"""What the store knows of sessions, and changing their payload and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..authority import Authority, Moment
from ..errors import Unauthorised
from ..records import Record, json_object, json_value, member_field, pack
from ..session import Issued, Session, SessionInfo, format_handle, handle_bytes, uuid_text
from ..store.calls import Call, Flow
from ..tokens import strip_default_claims
from .common import check_ours, check_whose, handle_or_none, read_record, reply_to
from .refreshing import accompany


def handles(authority: Authority, user_id: str, *, tenant: str | None = None) -> Flow[list[str]]:
    """The handles of a user's sessions."""
    check_whose(user_id, tenant)
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 0))
    reply_to(reply, user_id)
    return [format_handle(handle_bytes(item[0].decode()), item[2].decode()) for item in reply[1:]]


def list_sessions(
    authority: Authority, user_id: str, *, tenant: str | None = None, current: str | None = None
) -> Flow[list[SessionInfo]]:
    """What the store knows of each of a user's sessions."""
    check_whose(user_id, tenant)
    own = handle_or_none(current) if current is not None else None
    reply = yield Call("list", authority.tag_of_user(user_id), (user_id, tenant or "", 1))
    reply_to(reply, user_id)
    records = [Record.read(handle_bytes(item[0].decode()), item[1:]) for item in reply[1:]]
    return [replace(record.info(), current=record.handle == own) for record in records]


def info(authority: Authority, handle: str) -> Flow[SessionInfo | None]:
    """What the store knows of one session."""
    record = yield from read_record(authority, handle)
    return None if record is None else record.info()


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


def get_data(authority: Authority, handle: str) -> Flow[Any]:
    """The session data."""
    record = yield from read_record(authority, handle)
    return None if record is None else record.data


def set_data(authority: Authority, handle: str, data: Any) -> Flow[bool]:
    """Replace the session data."""
    raw = handle_or_none(handle)
    if raw is None:
        return False
    reply = yield from _update(authority, raw, {"data": pack(json_value("data", data))}, ())
    return len(reply) > 2


def merge_payload(authority: Authority, handle: str, patch: Mapping[str, Any], *, now: float) -> Flow[bool]:
    """Merge into the payload; the client sees it with its next access token."""
    return (yield from _merge(authority, handle, patch, now)) is not None


def reissue(authority: Authority, session: Session, patch: Mapping[str, Any], *, now: float) -> Flow[Issued | None]:
    """Merge into the payload, and mint an access token that shows it (wire.md section 3.4)."""
    check_ours(session)
    merged = yield from _merge(authority, session.handle, patch, now)
    if merged is None:
        raise Unauthorised("the session has ended")
    return authority.reissue(session, *merged) if session.expires_at > now else None


def _update(
    authority: Authority, raw: bytes, sets: Mapping[str, bytes], deletes: Iterable[str], revision: str | int = ""
) -> Flow[list[Any]]:
    pairs = [part for pair in sets.items() for part in pair]
    args = (uuid_text(raw), revision, len(sets), *pairs, *deletes)
    return reply_to((yield Call("update", authority.tag_of_handle(raw), args)), uuid_text(raw))


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
        record = yield from read_record(authority, handle)
        if record is None:
            return None
        # Before anything is written: a payload that cannot be signed would lock the client out of refreshing.
        kept = {name: value for name, value in record.stated.items() if name not in deletes}
        authority.check_payload(record, {**kept, **sets}, now)
        reply = yield from _update(authority, record.handle, fields, gone, record.revision)
        if reply[2:] != [b"CHANGED"]:  # by another merge, which may have taken the room
            return (Record.read(record.handle, reply[3:]), Moment(now, *reply[1:3])) if len(reply) > 2 else None


def _vouched(authority: Authority, session: Session) -> Flow[list[Any]]:
    check_ours(session)
    raw = handle_bytes(session.handle)
    handle = uuid_text(raw)
    reply = reply_to((yield Call("strict", authority.tag_of_handle(raw), (handle,))), handle)
    if reply[1] != 1:
        raise Unauthorised("the session has ended")
    fields: list[Any] = reply[2:]
    actor = dict(zip(fields[2::2], fields[3::2], strict=True)).get(b"actor")
    if actor is not None and not (yield from accompany(authority, actor.decode())):
        raise Unauthorised("the session of who acted as this user has ended")
    return fields
