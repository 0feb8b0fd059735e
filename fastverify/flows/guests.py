"""A guest's session becomes a user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..authority import Authority
from ..errors import TryRefreshToken, Unauthorised
from ..records import Record, json_object
from ..session import Issued, Session, handle_bytes, uuid_text
from ..session_claims import AUTH_TIME
from ..store.calls import Call, Flow
from . import limits
from .common import Outcome, Random, audit, check_id, read_record, reply_to, short
from .creating import AlreadyThere, check_user, create
from .refreshing import hand_out
from .revoking import end


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
    check_id("user_id", user_id)
    check_user(user_id)
    raw = handle_bytes(guest.handle)
    name, candidate = uuid_text(raw), authority.placement.handle(user_id, random(16))
    args = (name, user_id, uuid_text(candidate), limits.HEIR_MS)
    reply = reply_to((yield Call("promote", authority.tag_of_handle(raw), args)), name)
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
            ended = yield from end(authority, (raw,), random, "replaced")
        else:
            audit.info("guest promoted; session=%s guest=%s", short(outcome.value.session.handle), short(name))
            return outcome
    try:
        issued = yield from hand_out(authority, heir, 0, now, int(anti_csrf))
    except TryRefreshToken:  # its client has gone on with it, so it is not the one that asks
        record = yield from read_record(authority, uuid_text(heir))
        if record is None:
            raise Unauthorised("the guest's session has ended") from None
        outcome = yield from begin(record, None)
        return replace(outcome, entries=outcome.entries + ended.entries, events=ended.events + outcome.events)
    return Outcome(issued, ended.entries, ended.life, ended.written, ended.events)
