"""Ending sessions, and refusing single tokens and keys (revocation.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Literal, TypeAlias

from ..authority import KEY_ENTRY_LIFE, Authority
from ..entries import everything_entry, key_entry, session_entry, tenant_entry, token_entry
from ..errors import StoreUnavailable
from ..events import Event, check_why
from ..session import handle_bytes, uuid_text
from ..store.calls import Call, Flow, Pause
from . import limits
from .common import (
    Outcome,
    Random,
    Written,
    by_shard,
    check_tenant,
    check_whose,
    handle_or_none,
    reply_to,
    revoked_event,
)

#: What a mark of everybody is named; no tenant can be.
EVERYBODY = "*"

#: What a revocation is to wait for: that a replica has it, or that every verifier that still serves has applied it.
Wait: TypeAlias = Literal["replicated", "propagated"] | None


def revoke_many(
    authority: Authority, handles: Iterable[str], *, random: Random, why: str = "revoked"
) -> Flow[Outcome[list[str]]]:
    """End sessions by their handles; the result names those that were there."""
    if isinstance(handles, str):  # its characters are no handles, and nothing would be ended
        raise TypeError("handles must be several handles, not one str")
    check_why(why)
    named = {raw: handle for handle in handles if (raw := handle_or_none(handle)) is not None}
    done = yield from end(authority, named, random, why)
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
    check_whose(user_id, tenant)
    check_why(why)
    spare = handle_or_none(except_handle) if except_handle is not None else None
    if except_handle is not None and spare is None:  # to spare nothing would end the very session that was meant
        raise ValueError("except_handle is not a session handle")
    tag, whose = authority.tag_of_user(user_id), (user_id, tenant or "", uuid_text(spare) if spare else "")
    events, written, more = list[Event](), list[Written](), 1
    while more:
        nonce = random(limits.NONCE_BYTES)
        args = (*whose, authority.entry_life, nonce, limits.BATCH, authority.events_kept, why)
        reply, replicas = yield Call("revoke_user", tag, args, durable=True)
        at, more, seq, *pairs = reply_to(reply, user_id)[1:]
        for text, its in zip(pairs[::2], pairs[1::2], strict=True):
            events.append(revoked_event(at, text, its, user_id.encode(), why))
        if seq:
            written.append(Written(tag, seq, nonce, replicas))
    handles = [event.handle for event in events if event.handle is not None]
    entries = tuple(session_entry(handle_bytes(handle)) for handle in handles)
    return Outcome(handles, entries, authority.entry_life, tuple(written), tuple(events))


def revoke_tenant(authority: Authority, tenant: str, *, random: Random) -> Flow[Outcome[None]]:
    """End every session of a tenant that there is now."""
    check_tenant(tenant)
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


def end(authority: Authority, raws: Iterable[bytes], random: Random, why: str) -> Flow[Outcome[set[bytes]]]:
    """End sessions, a script call for each shard; the value is those that were there."""
    raws = list(raws)
    shards = by_shard(authority.placement, raws)
    batches = [(tag, random(limits.NONCE_BYTES), [*map(uuid_text, batch)]) for tag, batch in shards]
    life, events, written = authority.entry_life, list[Event](), list[Written]()
    while batches:
        # As many in one trip as one of the largest, or two: their replies have to come within the time for one call.
        size = accumulate(len(texts) for _, _, texts in batches)
        several = [batch for batch, so_far in zip(batches, size, strict=True) if so_far <= 2 * limits.BATCH]
        batches = batches[len(several) :]
        replies = yield [
            Call("revoke", tag, (life, nonce, authority.events_kept, why, *texts), durable=True)
            for tag, nonce, texts in several
        ]
        for (tag, nonce, texts), (reply, replicas) in zip(several, replies, strict=True):
            at, seq, *ended = reply_to(reply, texts[0])[1:]
            for text, its, whose in zip(*[iter(ended)] * 3, strict=True):
                events.append(revoked_event(at, text, its, whose, why))
            written.append(Written(tag, seq, nonce, replicas))
    there = {handle_bytes(event.handle) for event in events if event.handle is not None}
    return Outcome(there, tuple(map(session_entry, raws)), life, tuple(written), tuple(events))


def _mark(authority: Authority, tenant: str, random: Random, why: str) -> Flow[Outcome[None]]:
    """Mark every shard, and then write one entry into all of them, of the latest of these times, and marks as late.

    In this order: a session from before is refreshed no more once its shard is marked, so none of its access tokens has
    been issued after that. What is made later in any shard bears a later time than the entry.
    """
    tags, keep = authority.placement.tags, authority.config.absolute_lifetime * 1000
    replies = yield [Call("mark", tag, (tenant, "", keep)) for tag in tags]
    latest = max(reply_to(reply, tenant)[1] for reply in replies)
    yield [Call("mark", tag, (tenant, latest, keep)) for tag in tags]
    entry = everything_entry(latest) if tenant == EVERYBODY else tenant_entry(tenant, latest)
    outcome = yield from _blacklist(authority, entry, authority.entry_life, random)
    event = Event(name="session_revoked", at=latest, tenant=None if tenant == EVERYBODY else tenant, why=why)
    return replace(outcome, unwritten=(event,))


def _blacklist(authority: Authority, entry: bytes, life: int, random: Random) -> Flow[Outcome[None]]:
    """Write an entry into every shard that it belongs into."""
    places = [(tag, random(limits.NONCE_BYTES)) for tag in authority.placement.tags_of_entry(entry)]
    replies = yield [Call("blacklist", tag, (life, nonce, entry), durable=True) for tag, nonce in places]
    written = [
        Written(tag, reply_to(reply, entry)[1], nonce, replicas)
        for (tag, nonce), (reply, replicas) in zip(places, replies, strict=True)
    ]
    return Outcome(None, (entry,), life, tuple(written))
