"""What verifiers have seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..placement import Placement
from ..session import uuid_text
from ..store.calls import Call, Flow
from .common import audit, by_shard, short


def confirm(placement: Placement, seen: Mapping[bytes, int]) -> Flow[None]:
    """Report that access tokens of these sessions' generations have been seen; generations by handle."""
    calls = [
        Call("confirm", tag, tuple(part for raw in raws for part in (uuid_text(raw), seen[raw])))
        for tag, raws in by_shard(placement, seen)
    ]
    for adopted in (yield calls):
        for handle_text in adopted:
            audit.warning("state rollback: a generation confirmed; session=%s", short(handle_text.decode()))


def note_seen(placement: Placement, handles: Iterable[bytes], span: int) -> Flow[None]:
    """Report that sessions are in use; once in ``span`` seconds it is written down."""
    yield [Call("seen", tag, (span * 1000, *map(uuid_text, raws))) for tag, raws in by_shard(placement, handles)]
