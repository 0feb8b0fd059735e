"""What is of the whole store: its layout and its signing keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..events import Event
from ..key_ring import RingKey
from ..placement import Placement, root_tag
from ..store.calls import Call, Flow
from .common import log


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
        log.warning("no replica has the new signing key %s yet; a failover now would lose it", key.kid)
    return bool(reply == 1)
