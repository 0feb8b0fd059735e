"""What a store has lost by a failover is given back to it, by whoever still knows it (revocation.md, divergence).

A follower that finds a shard with another history than before names here what came after the last entry that both
histories have; or, where it had to read the shard anew, what it has read, and what its table holds beyond that is
missing in the store. All followers find the same, at the same time: so each begins a little later than the others by
chance, and what one has written the others' calls leave alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import groupby

from ._core import RevocationTable
from .entries import EVERYTHING, cutoff_of, kind_of, target_of, tenant_entry
from .errors import StoreUnavailable
from .flows import EVERYBODY
from .placement import Placement
from .store import Call, Store

#: Entries given back at once, seconds between, and known entries that are looked at in one go.
_BATCH, _GAP, _LOOK = 250, 0.25, 20_000
#: Milliseconds for which marks are kept that are given back: longer than any session lives.
_KEEP_MARKS = 10 * 366 * 24 * 3600 * 1000

_log = logging.getLogger("fastverify.follower")


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
        #: Entries given back so far.
        self.given_back = 0

    def learn_tenants(self, tags: Sequence[str]) -> None:
        """Read which tenants have marks in these shards."""
        for marks in self._store.run_many([Call("marks", tag) for tag in tags]):
            names = {name.decode() for name in marks[::2]} - {EVERYBODY}
            self._tenants |= {target_of(tenant_entry(name, 0)): name for name in names}

    def search(self, placement: Placement, read: Mapping[str, Set[bytes]], now: float, wall: float) -> None:
        """Look for what is known and was not among the entries ``read`` in these shards, by tag."""
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
            self._give_back(wall)

    def _put_off(self, now: float) -> None:
        self._next = now + self._random(1)[0] / 256

    def _look_for(self, placement: Placement, read: Mapping[str, Set[bytes]], wall: int) -> Iterator[None]:
        for number, (entry, expires_at) in enumerate(self._table.entries(), 1):
            if expires_at > wall:
                for tag in placement.tags_of_entry(entry):
                    if tag in read and entry not in read[tag]:
                        self._lost.append((tag, entry, expires_at))
            if number % _LOOK == 0:
                yield

    def _give_back(self, wall: float) -> None:
        batch = sorted(self._lost.popleft() for _ in range(min(_BATCH, len(self._lost))))
        by_tag = groupby(batch, lambda lost: lost[0])
        try:
            replies = self._store.run_many([call for tag, lost in by_tag for call in self._calls(tag, lost, wall)])
        except StoreUnavailable:
            self._lost.extend(batch)
            raise
        given = sum(reply if isinstance(reply, int) else 1 for reply in replies)
        self.given_back += given
        if given:
            _log.warning("%d revocations were given back to the store, which had lost them", given)

    def _calls(self, tag: str, lost: Iterator[tuple[str, bytes, int]], wall: float) -> Iterator[Call]:
        plain: list[bytes | int] = []
        for _, entry, expires_at in lost:
            if (name := self._mark_of(entry)) is None:
                plain += entry, expires_at
            elif (life := expires_at - int(wall)) > 0:
                yield Call("mark", tag, (life, self._random(16), entry, name, cutoff_of(entry), _KEEP_MARKS))
        if plain:
            yield Call("push", tag, (self._random(16), *plain))

    def _mark_of(self, entry: bytes) -> str | None:
        return EVERYBODY if kind_of(entry) == EVERYTHING else self._tenants.get(target_of(entry))
