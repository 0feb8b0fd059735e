"""Events that the store keeps."""

from __future__ import annotations

from ..authority import Authority
from ..events import Event, EventBatch, StreamPart, merged, places_of
from ..session import handle_bytes
from ..store.calls import Call, Flow
from . import limits


def record_event(authority: Authority, event: Event) -> Flow[None]:
    """Write an event that no script has written, if events are kept."""
    if authority.events_kept:
        placement = authority.placement
        tag = placement.root if event.handle is None else authority.tag_of_handle(handle_bytes(event.handle))
        yield Call("event", tag, (authority.events_kept, *event.fields()))


def read_events(authority: Authority, after: str | None, limit: int) -> Flow[EventBatch]:
    """Events that the store has kept, of all its streams."""
    tags = [authority.placement.root, *authority.placement.tags]
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= limits.MOST_EVENTS:
        raise ValueError(f"limit must be a whole number from 1 to {limits.MOST_EVENTS}")
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


def _texts(flat: list[bytes]) -> dict[str, str]:
    """Names and values, as a mapping."""
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
