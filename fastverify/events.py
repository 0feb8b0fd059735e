"""What happens to sessions, as values: for a function of the application, and for whoever reads the store's streams.

An event names a session and a user. It never holds a token or a secret, nor anything of the payload or the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .session import format_handle, handle_bytes

EventName = Literal[
    "session_created",
    "session_refreshed",
    "session_revoked",
    "token_theft",
    "key_rotated",
    "key_revoked",
    "impersonation_started",
    "impersonation_stopped",
]

_PLACE = re.compile(r"(\d{1,20})-([0-9a-f]{0,8})")
_MAX_WHY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that has happened (docs/events.md). What does not apply is None."""

    name: EventName
    #: Milliseconds since the epoch, by the store's clock where the store had a part in it.
    at: int
    handle: str | None = None
    user_id: str | None = None
    tenant: str | None = None
    #: How it came about: of a revocation ``signed_out``, ``revoked``, ``revoke_user``, ``replaced``, ``limit``,
    #: ``tenant``, ``all``, ``returned``, ``actor``, or what the application has said.
    why: str | None = None
    #: The user who acted, where it is another than ``user_id``.
    actor: str | None = None
    #: What else is to be said; JSON.
    extra: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> list[str]:
        """As ``event.lua`` takes them: five values, then names and values."""
        handle = "" if self.handle is None else self.handle.partition("_")[0]
        flat = [self.name, handle, self.user_id or "", self.tenant or "", self.why or ""]
        if self.actor is not None:
            flat += ["actor", self.actor]
        if self.extra:
            flat += ["extra", json.dumps(dict(self.extra))]
        return flat


#: Is told of each event; the result is awaited where that is possible, and else of no consequence.
OnEvent: TypeAlias = Callable[[Event], Any]


@dataclass(slots=True)
class Happened:
    """What has happened in one call."""

    #: Events that the scripts have written beside what they did.
    events: list[Event] = field(default_factory=list)
    #: Events that are still to be written.
    unwritten: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Some events of a store, in the order of their times."""

    events: tuple[Event, ...]
    #: Where to go on: the ``after`` of the next call. Text to keep, not to look into.
    cursor: str
    #: Whether events may have been missed before these: they were more than are kept, or a failover has lost them.
    missed: bool


@dataclass(frozen=True, slots=True)
class StreamPart:
    """What was read of one stream: whether some may have been missed, and sequence number and fields of each event."""

    missed: bool
    entries: Sequence[tuple[int, Mapping[str, str]]]


#: Where a reader stands in one stream: the number of the event that it read last, and the primary that wrote it.
Place: TypeAlias = tuple[int, str]


def places_of(cursor: str, streams: int) -> list[Place]:
    """Where a reader stands in each stream.

    Raises:
        ValueError: the text is no cursor, or one of a store of another layout.
    """
    parts = cursor.split(".") if isinstance(cursor, str) else []
    found = [_PLACE.fullmatch(part) for part in parts]
    if len(found) != streams or not all(found):
        raise ValueError("after is no cursor of this store's events")
    return [(int(one[1]), one[2]) for one in found if one is not None]


def merged(parts: Sequence[StreamPart], before: Sequence[Place], limit: int) -> EventBatch:
    """The first events of several streams, and where that leaves the reader in each."""
    places, ordered = list(before), []
    for stream, part in enumerate(parts):
        latest = 0
        for seq, fields in part.entries:
            # Inside a stream in its own order, whatever a clock did: nothing may be passed over.
            latest = max(latest, int(fields["at"]))
            ordered.append((latest, stream, seq, fields))
    ordered.sort(key=lambda one: one[:3])
    first = ordered[:limit]
    for _, stream, seq, fields in first:
        places[stream] = (seq, fields["primary"])
    return EventBatch(
        events=tuple(_event(fields) for _, _, _, fields in first),
        cursor=".".join(f"{seq}-{primary}" for seq, primary in places),
        missed=any(part.missed for part in parts),
    )


def check_why(why: str) -> None:
    """Refuse what is no short text."""
    if not isinstance(why, str) or not 0 < len(why) <= _MAX_WHY or not why.isprintable():
        raise ValueError(f"why must be a printable str of 1 to {_MAX_WHY} characters")


def _event(fields: Mapping[str, str]) -> Event:
    tenant = fields["tenant"] or None
    raw = fields["handle"]
    return Event(
        name=fields["name"],  # type: ignore[arg-type]  # a later version may write others
        at=int(fields["at"]),
        handle=format_handle(handle_bytes(raw), tenant or "") if raw else None,
        user_id=fields["user"] or None,
        tenant=tenant,
        why=fields["why"] or None,
        actor=fields.get("actor"),
        extra=json.loads(fields.get("extra", "{}")),
    )
