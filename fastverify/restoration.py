"""What a store has lost by a failover is given back to it, by whoever still knows it (revocation.md, divergence).

A follower that finds a shard with another history than before names here what came after the last entry that both
histories have; or, where it had to read the shard anew, what it has read, and what its table holds beyond that is
missing in the store. All followers find the same, at the same time: so each begins a little later than the others by
chance, and what one has written the others' calls leave alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby

from ._core import RevocationTable
from .entries import (
    EVERYTHING,
    KEY,
    SESSION,
    TOKEN,
    cutoff_of,
    in_every_shard,
    kind_of,
    target_of,
    tenant_entry,
)
from .errors import StoreUnavailable
from .flows import EVERYBODY
from .placement import Placement
from .store import Call, Store

#: Entries given back at once, seconds between, and known entries that are looked at in one go.
_BATCH, _GAP, _LOOK = 250, 0.25, 20_000
#: Milliseconds for which marks are kept that are given back: longer than any session lives.
_KEEP_MARKS = 10 * 366 * 24 * 3600 * 1000

_log = logging.getLogger("fastverify.follower")


class Inventory:
    """What was read of the blacklist sets of some shards; a table holds millions in little memory."""

    def __init__(self, tags: Collection[str]) -> None:
        self._tags = frozenset(tags)
        self._table = RevocationTable()
        self._marks: set[tuple[str, bytes]] = set()

    def add(self, tag: str, entries: Sequence[bytes], expires_at: int) -> None:
        """These entries were read."""
        self._marks.update((tag, entry) for entry in entries if in_every_shard(entry))
        self._table.add_many(b"".join(entry for entry in entries if not in_every_shard(entry)), expires_at)

    def lacks(self, tag: str, entry: bytes) -> bool:
        """Whether an entry should have been read in this shard, and was not."""
        if tag not in self._tags:
            return False
        if in_every_shard(entry):
            return (tag, entry) not in self._marks
        return not holds(self._table, entry, 2)  # however old: it was read


def holds(table: RevocationTable, entry: bytes, expires_at: int) -> bool:
    """Whether a table has the entry of a session, token or key, for at least as long. Of marks it is not known."""
    kind, target = kind_of(entry), target_of(entry)
    found = table.lookup(
        session=target if kind == SESSION else None,
        token=target if kind == TOKEN else None,
        key=target if kind == KEY else None,
        now=expires_at - 1,
    )
    return found == kind


class Restoration:
    """Of one follower, in its thread. Times are monotonic seconds."""

    def __init__(self, store: Store, table: RevocationTable, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._table = table
        self._random = random
        self._searches: deque[Iterator[None]] = deque()
        #: Tag, entry and expiry in seconds since the epoch.
        self._lost: deque[tuple[str, bytes, int]] = deque()
        self._next = float("-inf")
        #: Tenants by the targets of their entries, which name them by digest; a mark is named as the tenant is.
        self._tenants: dict[bytes, str] = {}
        #: Written by this process, and not read in the log since: expiry, and when it was written, by tag and entry.
        self._unread: dict[tuple[str, bytes], tuple[int, float]] = {}
        #: Entries given back so far.
        self.given_back = 0

    def wrote(self, placement: Placement, entry: bytes, expires_at: int, now: float) -> None:
        """This process has written an entry; until it is read in the log, it may be lost again. From any thread."""
        for tag in placement.tags_of_entry(entry):
            self._unread[tag, entry] = expires_at, now

    def read(self, tag: str, entry: bytes) -> None:
        """An entry stands in a shard's log."""
        self._unread.pop((tag, entry), None)

    def caught_up(self, sent: Mapping[str, float], now: float) -> None:
        """All is read that stood in these shards when polls were sent: what was written before and not read is lost."""
        if not self._unread:
            return
        lost = [(key, expires_at) for key, (expires_at, at) in list(self._unread.items()) if sent.get(key[0], at) > at]
        for key, _ in lost:
            self._unread.pop(key, None)
        if lost:
            self.give_back([(*key, expires_at) for key, expires_at in lost], now)

    def learn_tenants(self, tags: Sequence[str]) -> None:
        """Read which tenants have marks in these shards."""
        for marks in self._store.run_many([Call("marks", tag) for tag in tags]):
            names = {name.decode() for name in marks[::2]} - {EVERYBODY}
            self._tenants |= {target_of(tenant_entry(name, 0)): name for name in names}

    def search(self, placement: Placement, read: Inventory, now: float, wall: float) -> None:
        """Look for what is known and was not among what was read."""
        self._searches.append(self._look_for(placement, read, int(wall)))
        self._put_off(now)

    def give_back(self, lost: Sequence[tuple[str, bytes, int]], now: float) -> None:
        """These entries are known to be lost, or may be: tag, entry and expiry in seconds since the epoch."""
        self._lost.extend(lost)
        self._put_off(now)

    def due(self) -> float:
        """When to call ``work`` next; infinity: there is nothing to do."""
        if self._searches:
            return float("-inf")
        return self._next if self._lost else float("inf")

    def work(self, now: float, wall: float) -> None:
        """Do a little of what is to be done.

        Raises:
            StoreUnavailable: it is still to be done.
        """
        if self._searches and next(self._searches[0], self) is self:
            self._searches.popleft()
        if self._lost and now >= self._next:
            self._next = now + _GAP
            self._give_back(now, wall)

    def _put_off(self, now: float) -> None:
        self._next = now + self._random(1)[0] / 256

    def _look_for(self, placement: Placement, read: Inventory, wall: int) -> Iterator[None]:
        for number, (entry, expires_at) in enumerate(self._table.entries(), 1):
            if expires_at > wall:
                for tag in placement.tags_of_entry(entry):
                    if read.lacks(tag, entry):
                        self._lost.append((tag, entry, expires_at))
            if number % _LOOK == 0:
                yield

    def _give_back(self, now: float, wall: float) -> None:
        batch = sorted(self._lost.popleft() for _ in range(min(_BATCH, len(self._lost))))
        calls = [call for tag, lost in groupby(batch, lambda lost: lost[0]) for call in self._calls(tag, lost, wall)]
        try:
            replies = self._store.run_many(calls)
        except StoreUnavailable:
            self._lost.extend(batch)
            raise
        until = {(tag, entry): expires_at for tag, entry, expires_at in batch}
        given = 0
        for call, reply in zip(calls, replies, strict=True):
            for entry in reply if call.script == "push" else ():
                given += 1
                self._unread[call.tag, entry] = until[call.tag, entry], now
        self.given_back += given
        if given:
            _log.warning("%d revocations were given back to the store, which had lost them", given)

    def _calls(self, tag: str, lost: Iterator[tuple[str, bytes, int]], wall: float) -> Iterator[Call]:
        plain: list[bytes | int] = []
        for _, entry, expires_at in lost:
            plain += entry, expires_at
            if expires_at > wall and (name := self._mark_of(entry)) is not None:
                yield Call("mark", tag, (name, cutoff_of(entry), _KEEP_MARKS))
        if plain:
            yield Call("push", tag, (self._random(16), *plain))

    def _mark_of(self, entry: bytes) -> str | None:
        return EVERYBODY if kind_of(entry) == EVERYTHING else self._tenants.get(target_of(entry))
