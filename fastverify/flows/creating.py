"""Starting a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..authority import Authority, Moment
from ..entries import session_entry
from ..records import Actor, Record, json_object, json_value, member_field, pack
from ..session import DEFAULT_TENANT, Issued, handle_bytes, is_guest_id, uuid_text
from ..store.calls import Call, Flow
from ..tokens import SECRET_BYTES, encode_refresh_token, strip_default_claims
from . import limits
from .common import (
    Outcome,
    Random,
    check_id,
    check_tenant,
    handle_or_none,
    log,
    reply_to,
    revoked_event,
    session_event,
    short,
)
from .revoking import end


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
    check_id("user_id", user_id)
    check_id("login_id", login_id)
    check_tenant(tenant)
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
    old = handle_or_none(previous) if previous is not None else None
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
            *(authority.entry_life, random(limits.NONCE_BYTES), authority.events_kept, *fields),
        ),
        durable=True,
    )
    if len(reply_to(reply, name)) == 2:
        raise AlreadyThere
    store_now, mark, _, *others = reply[1:]
    created = session_event("session_created", store_now, draft.handle, tenant, user_id)
    if replicas == 0:
        log.warning("no replica has the new session yet; a failover now would lose it; session=%s", short(name))
    ended = tuple(handle_bytes(text.decode()) for text in others[::4])
    events = tuple(
        revoked_event(store_now, text, its, whose, why.decode())
        for text, its, whose, why in zip(*[iter(others)] * 4, strict=True)
        if whose
    )
    if old is not None and not in_same_step:
        # Another user's session, in another shard: it cannot end in the same step, so it ends in the same call.
        outcome = yield from end(authority, (old,), random, "replaced")
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


def _span(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of seconds, at least 1")
    if value > default:
        raise ValueError(f"{name} must be at most what the configuration allows, {default} s")
    return value
