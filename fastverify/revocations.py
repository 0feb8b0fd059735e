"""The follower: keeps a process's local table of revocations current, in the background (revocation.md).

For each shard it starts from the log's tail, reads the blacklist sets, and then follows the log. Each poll names the
entry that the follower stands on by sequence number and nonce, so that another history (a failover that lost writes, a
flushed store) is seen and not read past. A poll also writes where this follower stands: a primary that cannot write is
not believed. The table counts as fresh until B seconds after the last poll that had caught up was sent, of the shard of
which that is longest ago.

Every shard is polled once a second, which is what completeness rests on. Hints name a shard in whose log something has
just been written: it is polled at once.

Nothing that was learnt is forgotten before its time. Where a store has another history than before, the follower goes
on from the last entry that both have, or reads it anew, and gives back what the store has lost of what is known here.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ._core import RevocationTable
from .entries import KEY, TENANT, kind_of
from .errors import ConfigError, StoreUnavailable
from .flows import StoreState
from .hints import Hints
from .last_seen import LastSeen
from .placement import Placement
from .restoration import Inventory, Restoration, holds
from .sightings import Sightings
from .store import Call, Store

#: Seconds between polls; without hints, a revocation is known everywhere within it.
POLL_INTERVAL = 1.0
#: Log entries that one poll of one shard returns at most.
_BATCH = 1_000
#: Seconds that lie between two polls at least, whatever tokens come in.
_NUDGE = 0.1
#: Seconds between tries while the store is away: the first, and the longest.
_RETRY_FIRST, _RETRY_LONGEST = 0.05, 1.0
#: Seconds by which the core's coarse clock may be behind: the bound must hold by the exact one.
_TICK = 0.01
#: Seconds between sweeps of expired entries.
_SWEEP = 60.0
#: Log entries that are remembered of each shard. While a failover undoes no more, the follower can go on from what both
#: primaries have; else it reads all of the shard anew.
_REMEMBERED = 512
#: Parts of blacklist sets that are asked for together; each is of a thousand entries.
_SCANS = 16

_log = logging.getLogger("fastverify.follower")
_followers: weakref.WeakSet[Follower] = weakref.WeakSet()


def _forked() -> None:
    """A forked child has its parent's followers, but not their threads."""
    for follower in list(_followers):
        follower.begin_anew()


# One hook for all: what is registered here can never be taken back.
os.register_at_fork(after_in_child=_forked)


class _Applied(NamedTuple):
    """A log entry that the follower has applied; of the one that it began at, no more than its place is known."""

    seq: int
    nonce: bytes
    entry: bytes = b""
    expires_at: int = 0


class _Shard:
    """Where the follower stands in one shard's log, and how it came there."""

    def __init__(self, tag: str, start: _Applied, genesis: bytes) -> None:
        self.tag = tag
        #: Names the dataset.
        self.genesis = genesis
        #: Monotonic time at which the last poll was sent that had caught up.
        self.sent = float("-inf")
        #: The end of the log after the sets had been read. Until it is passed, what they showed may have been undone.
        self.to_pass: tuple[int, bytes] | None = None
        #: The last entries applied. It stands on the last of them.
        self.path = deque((start,), _REMEMBERED)

    def landmarks(self) -> list[int | bytes]:
        """Sequence numbers and nonces of the path, newest first, ever further apart."""
        back = [1, *(2**n for n in range(1, _REMEMBERED.bit_length()) if 2**n <= len(self.path)), len(self.path)]
        return [part for steps in back for part in self.path[-steps][:2]]

    def go_back_to(self, seq: int) -> list[_Applied]:
        """Stand on an earlier entry of the path; those that came after it."""
        after = [applied for applied in self.path if applied.seq > seq]
        for _ in after:
            self.path.pop()
        return after


class FollowerInfo(NamedTuple):
    """What a follower has done since it began; in a forked child, since the fork."""

    #: Polls of all shards that have ended.
    polls: int
    #: Hints that have come, each naming a shard.
    hints: int
    #: Log entries applied.
    applied: int
    #: Times that a shard had another history than before.
    divergences: int
    #: Of these, times that it was another dataset: the store had been emptied or replaced.
    resets: int
    #: Revocations given back to the store, which had lost them.
    given_back: int
    #: Sessions reported as seen here.
    confirmed: int
    #: Sessions that were not reported, for there were too many or the store was away.
    unconfirmed: int


class Follower:
    """Follows one store. Start it with ``start``; it restarts itself in a forked child when ``ensure`` is called there.

    Args:
        store: where to read; it is started by the thread, so an embedded server comes up, and comes back, here.
        table: is kept current. Its ``fresh_until`` is this follower's alone.
        open_store: called in the thread whenever a start is made: claims or reads the store's layout.
        keep_ring: called in the thread at each poll: keeps the signing keys current.
        forget: called at the start and in a forked child, which holds none of its parent's locks and knows nothing.
        confirm: called in the thread: reports the generations of sessions that have been seen, by handle.
        tell_seen: called in the thread: reports which sessions are in use.
        staleness: B, in seconds.
        monotonic: seconds, the clock that ``table.fresh_until`` is compared with.
        wall: seconds since the epoch.
        random: that many random bytes.
    """

    def __init__(
        self,
        store: Store,
        table: RevocationTable,
        *,
        open_store: Callable[[], Placement],
        keep_ring: Callable[[], StoreState],
        forget: Callable[[], None],
        confirm: Callable[[Mapping[bytes, int]], None],
        tell_seen: Callable[[Sequence[bytes]], None],
        staleness: float,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._table = table
        self._open_store = open_store
        self._keep_ring = keep_ring
        self._forget = forget
        self._confirm = confirm
        self._tell_seen = tell_seen
        self._staleness = staleness
        self._monotonic = monotonic
        self._wall = wall
        self._random = random
        self._closed = False
        self.begin_anew()
        _followers.add(self)

    def begin_anew(self) -> None:
        """Know nothing: at the start, and in a forked child."""
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ready = False
        self._fatal: ConfigError | None = None
        self._problem: Exception | None = None
        self._said: set[type[Exception]] = set()
        self._id = self._random(16).hex()
        self._placement: Placement | None = None
        self._shards: dict[str, _Shard] = {}
        self._hints = Hints(self._store, lambda: list(self._shards), self._wake.set)
        self._poll_wanted = True
        self._next_poll = self._next_sweep = float("-inf")
        self._ring_sent = float("-inf")
        self._last_ok: float | None = None
        self._tried = float("-inf")
        self._polls = self._completed = 0
        self._applied = self._divergences = self._resets = 0
        #: What is to be given back to the store, and what it is to be told.
        self._restoration = Restoration(self._store, self._table, self._random)
        self.sightings = Sightings()
        self.last_seen = LastSeen()
        self._table.fresh_until = float("-inf")
        self._forget()

    def start(self) -> None:
        """Start the threads if they are not running."""
        with self._lock:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="fastverify-follower", daemon=True)
                self._thread.start()
                self._hints.start()

    def ensure(self) -> None:
        """Start the thread again if it is gone, as it is in a forked child."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            self.start()

    def close(self) -> None:
        """Stop the thread, and wait for it."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        self._hints.close()
        with self._changed:
            self._changed.notify_all()
        # The thread itself may come here: it may be the one that collects what nobody refers to any more.
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._table.fresh_until = float("-inf")

    @property
    def ready(self) -> bool:
        """Whether keys and revocations have been loaded once."""
        return self._ready

    @property
    def polls(self) -> int:
        """Polls begun so far; the number of the present or last one."""
        return self._polls

    @property
    def completed(self) -> int:
        """The number of the last poll that ended."""
        return self._completed

    @property
    def staleness(self) -> float:
        """B, in seconds."""
        return self._staleness

    @property
    def lag_seconds(self) -> float:
        """Seconds since the last complete poll was sent; infinite before the first."""
        return float("inf") if self._last_ok is None else self._monotonic() - self._last_ok

    def nudge(self) -> None:
        """Poll now, unless that was tried a moment ago: whoever sends garbage must not set the pace."""
        if self._monotonic() - self._tried >= _NUDGE:
            self._poll_wanted = True
            self._wake.set()

    def refuse(self, entries: Iterable[bytes], expires_at: int) -> None:
        """Enter revocations that this process has written, before the store's log says so."""
        for entry in entries:
            known = holds(self._table, entry, expires_at)  # a hint was faster, and it has been read in the log
            self._table.add(entry, expires_at)
            if self._placement is not None and not known:
                self._restoration.wrote(self._placement, entry, expires_at, self._monotonic())

    def info(self) -> FollowerInfo:
        """What has been done so far."""
        return FollowerInfo(
            polls=self._completed,
            hints=self._hints.heard,
            applied=self._applied,
            divergences=self._divergences,
            resets=self._resets,
            given_back=self._restoration.given_back,
            confirmed=self.sightings.reported,
            unconfirmed=self.sightings.lost,
        )

    def wait(self, timeout: float) -> None:
        """Wait until ready.

        Raises:
            ConfigError: the store cannot be used as it is set up.
            StoreUnavailable: not ready within ``timeout`` seconds.
        """
        self.ensure()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._fatal or self._closed, timeout)
            fatal, ready = self._fatal, self._ready
        if ready:
            return
        if fatal is not None:
            raise fatal.with_traceback(None)  # raised once a call, it would hold on to the frames of all of them
        cause = f": {self._problem}" if isinstance(self._problem, StoreUnavailable) else ""
        raise StoreUnavailable(
            "the store is closed" if self._closed else f"not ready after {timeout:g} s{cause}"
        ) from self._problem

    def wait_for_poll(self, timeout: float) -> None:
        """Wait until a poll that begins after this call has ended.

        Raises:
            StoreUnavailable: none did within ``timeout`` seconds.
        """
        self.ensure()
        with self._changed:
            target = self._polls + 1
            self._poll_wanted = True
            self._wake.set()
            self._changed.wait_for(lambda: self._completed >= target or self._closed, timeout)
            if self._completed < target:
                raise StoreUnavailable(f"the store was not polled within {timeout:g} s") from self._problem

    # --- the thread that polls ---

    def _run(self) -> None:
        thread, pause = threading.current_thread(), _RETRY_FIRST
        while not self._closed and self._thread is thread:
            self._wake.clear()
            try:
                due = self._work()
                pause = _RETRY_FIRST
            except Exception as error:
                self._failed(error)
                self._poll_wanted = True
                due = self._monotonic() + pause
                pause = min(2 * pause, _RETRY_LONGEST)
                self._wake.wait(due - self._monotonic())
                self._revive()
            self._wake.wait(max(0.0, due - self._monotonic()))

    def _work(self) -> float:
        """Do what is due; when to do more, unless woken."""
        now = self._monotonic()
        if not self._shards:
            self._tried = now
            self._bootstrap()
        if now >= self._hints.due():
            self._follow([self._shards[tag] for tag in self._hints.take(now) if tag in self._shards])
        if self._poll_wanted or now >= self._next_poll:
            self._poll_wanted = False
            self._tried, self._next_poll = now, now + POLL_INTERVAL
            self._poll()
        self._restoration.work(now, self._wall())
        if self._poll_wanted:
            return now
        return min(self._next_poll, self._hints.due(), self._restoration.due())

    def _failed(self, error: Exception) -> None:
        """Go on, whatever it is: a gateway that serves when stale has nobody else who would start the thread again."""
        if type(error) not in self._said:  # said once an outage, not once a try
            self._said.add(type(error))
            if isinstance(error, StoreUnavailable | ConfigError):
                _log.warning("%s", error)
            else:
                _log.error("the follower failed; it goes on", exc_info=error)
        with self._changed:
            self._problem = error
            if isinstance(error, ConfigError) and not self._ready:
                self._fatal = error
                self._changed.notify_all()

    def _revive(self) -> None:
        """Bring an embedded server back if it has died."""
        try:
            if not self._closed:
                self._store.start()
        except Exception as error:
            self._failed(error)

    def _bootstrap(self) -> None:
        self._store.start()
        self._placement = self._open_store()
        shards = self._load(self._placement.tags)
        self._shards = {shard.tag: shard for shard in shards}

    def _load(self, tags: Sequence[str]) -> list[_Shard]:
        """Read shards from their beginning: the tail first, then the sets; what comes in between is in the log.

        All from one server, which then says where its log ends now: not before the follower has passed that is it known
        that nothing of what the sets showed has been undone. What is known here and was not read is given back.
        """
        assert self._placement is not None
        nonce = self._random(16).hex()
        starts = self._store.run_many([Call("follow_start", tag, (nonce,)) for tag in tags])
        read = Inventory(tags) if len(self._table) else None
        servers = {tag: start[3] for tag, start in zip(tags, starts, strict=True)}
        parts = [(tag, window, b"0") for tag, start in zip(tags, starts, strict=True) for window in start[4:]]
        while parts:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            now, parts = parts[:_SCANS], parts[_SCANS:]
            replies = self._store.run_many([Call("follow_scan", tag, (window, at)) for tag, window, at in now])
            for (tag, window, _), (cursor, entries, server) in zip(now, replies, strict=True):
                _check_same_server(servers[tag], server)
                self._table.add_many(b"".join(entries), int(window))
                if read is not None:
                    read.add(tag, entries, int(window))
                if int(cursor) != 0:
                    parts.append((tag, window, cursor))
        self._restoration.learn_tenants(tags)
        shards = []
        ends = self._store.run_many([Call("follow_tail", tag, (nonce,)) for tag in tags])
        for tag, start, end in zip(tags, starts, ends, strict=True):
            _check_same_server(servers[tag], end[2])
            shard = _Shard(tag, _Applied(int(start[0]), start[1]), start[2])
            if (place := (int(end[0]), end[1])) != shard.path[-1][:2]:
                shard.to_pass = place
            shards.append(shard)
        if read is not None:
            self._restoration.search(self._placement, read, self._monotonic(), self._wall())
        return shards

    def _poll(self) -> None:
        """Catch up with all shards and the ring."""
        with self._changed:
            self._polls += 1
            this = self._polls
        self._hints.drop()
        self._follow_all()
        sent = self._monotonic()
        state = self._keep_ring()
        if state.placement != self._placement:
            self._shards = {}
            raise StoreUnavailable("the store has been emptied or laid out anew; it is taken up and read anew")
        self._ring_sent = sent
        self._count_as_fresh()
        with self._changed:
            self._ready = True
            self._completed = this
            if self._problem is not None:
                _log.warning("the store answers again")
            self._problem = self._fatal = None
            self._said.clear()
            self._changed.notify_all()
        self.sightings.report(self._confirm)
        self.last_seen.report(self._tell_seen, self._monotonic())
        if self._monotonic() >= self._next_sweep:
            self._next_sweep = self._monotonic() + _SWEEP
            # By both clocks: what is forgotten does not come back when a clock that had jumped is put right.
            self._table.discard_expired(min(int(self._wall()), state.now // 1000))

    def _follow_all(self) -> None:
        shards = list(self._shards.values())
        try:
            self._follow(shards)
        except StoreUnavailable:
            if self._table.when_stale == "allow":  # it goes on serving: by what the other shards still say, at least
                for shard in shards:
                    with suppress(StoreUnavailable):
                        self._follow([shard])
            raise

    def _follow(self, shards: list[_Shard]) -> None:
        """Catch up with these shards."""
        while shards:
            sent = self._monotonic()
            serves = int(self._staleness * 1000)
            calls = [Call("follow_poll", at.tag, (self._id, *at.path[-1][:2], _BATCH, serves)) for at in shards]
            replies = self._store.run_many(calls)
            behind, diverged = [], []
            for shard, reply in zip(shards, replies, strict=True):
                if reply[0] != b"OK":
                    diverged.append(shard)
                elif self._apply(shard, reply[1:]) == _BATCH:
                    behind.append(shard)
                elif shard.to_pass is None:
                    shard.sent = sent
                else:
                    diverged.append(shard)
            shards = behind + (self._take_up(diverged) if diverged else [])
        self._restoration.caught_up({tag: shard.sent for tag, shard in self._shards.items()}, self._monotonic())
        self._count_as_fresh()

    def _count_as_fresh(self) -> None:
        oldest = min([self._ring_sent, *(shard.sent for shard in self._shards.values())])
        if oldest > float("-inf"):
            self._last_ok = oldest
            self._table.fresh_until = oldest + self._staleness - _TICK

    def _apply(self, shard: _Shard, flat: list[bytes]) -> int:
        """Enter what came after a shard's position and move that on; how many entries it was."""
        count, kinds = 0, set()
        for seq, nonce, window, entry in zip(*[iter(flat)] * 4, strict=True):
            self._table.add(entry, int(window))
            self._restoration.read(shard.tag, entry)
            if shard.to_pass == (int(seq), nonce):
                shard.to_pass = None
            shard.path.append(_Applied(int(seq), nonce, entry, int(window)))
            kinds.add(kind_of(entry))
            count += 1
        if count:
            self._applied += count
            self._hints.add(shard.tag)  # to report it: somebody may be waiting until every verifier has it
        if TENANT in kinds:
            self._restoration.learn_tenants([shard.tag])
        if KEY in kinds:
            self._poll_wanted = True  # there is a new key in the ring
        return count

    # --- another history ---

    def _take_up(self, diverged: list[_Shard]) -> list[_Shard]:
        """Find where to go on in shards that have another history than before."""
        self._divergences += len(diverged)
        calls = [Call("follow_resume", shard.tag, tuple(shard.landmarks())) for shard in diverged]
        anew = []
        for shard, seq in zip(diverged, self._store.run_many(calls), strict=True):
            if not seq or shard.to_pass is not None:
                anew.append(shard)
                continue
            lost = shard.go_back_to(seq)
            _log.warning("shard %s has another history than before, since %d revocations ago", shard.tag, len(lost))
            self._restoration.give_back([(shard.tag, one.entry, one.expires_at) for one in lost], self._monotonic())
        if anew:
            self._read_anew(anew)
        return diverged

    def _read_anew(self, shards: list[_Shard]) -> None:
        """Begin again in shards whose history has nothing in common with what is remembered of it."""
        for old, new in zip(shards, self._load([shard.tag for shard in shards]), strict=True):
            if old.genesis == new.genesis:
                _log.warning("shard %s has another history than before; it is read anew", old.tag)
            else:
                self._resets += 1
                _log.error("shard %s is another dataset than before: the store has lost its data", old.tag)
            old.path, old.genesis, old.to_pass = new.path, new.genesis, new.to_pass


def _check_same_server(its: bytes, another: bytes) -> None:
    if its != another:
        raise StoreUnavailable("another server answers than before; its revocations are read anew")
