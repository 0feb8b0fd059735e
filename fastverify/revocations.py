"""The follower: keeps a process's local table of revocations current, in one background thread (revocation.md).

For each shard it starts from the log's tail, reads the blacklist sets, and then follows the log. Each poll names the
entry that the follower stands on by sequence number and nonce, so that another history (a failover that lost writes, a
flushed store) is seen and not read past. A poll also writes where this follower stands: a primary that cannot write is
not believed. The table counts as fresh until B seconds after the last poll that had caught up was sent.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ._core import RevocationTable
from .errors import ConfigError, StoreUnavailable
from .flows import StoreState
from .placement import Placement
from .store import Call, Store

#: Seconds between polls; a revocation is normally known everywhere within it.
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

_log = logging.getLogger("fastverify.follower")
_followers: weakref.WeakSet[Follower] = weakref.WeakSet()


def _forked() -> None:
    """A forked child has its parent's followers, but not their threads."""
    for follower in list(_followers):
        follower.begin_anew()


# One hook for all: what is registered here can never be taken back.
os.register_at_fork(after_in_child=_forked)


@dataclass(slots=True)
class _Position:
    """Where the follower stands in one shard's log."""

    tag: str
    seq: int
    nonce: bytes


class Follower:
    """Follows one store. Start it with ``start``; it restarts itself in a forked child when ``ensure`` is called there.

    Args:
        store: where to read; it is started by the thread, so an embedded server comes up, and comes back, here.
        table: is kept current. Its ``fresh_until`` is this follower's alone.
        open_store: called in the thread whenever a start is made: claims or reads the store's layout.
        keep_ring: called in the thread at each poll: keeps the signing keys current.
        forget: called at the start and in a forked child, which holds none of its parent's locks and knows nothing.
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
        self._positions: list[_Position] = []
        self._last_ok: float | None = None
        self._tried = float("-inf")
        self._polls = self._completed = 0
        self._table.fresh_until = float("-inf")
        self._forget()

    def start(self) -> None:
        """Start the thread if it is not running."""
        with self._lock:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="fastverify-follower", daemon=True)
                self._thread.start()

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
        with self._changed:
            self._changed.notify_all()
        if thread is not None:
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
            self._wake.set()

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
            self._wake.set()
            self._changed.wait_for(lambda: self._completed >= target or self._closed, timeout)
            if self._completed < target:
                raise StoreUnavailable(f"the store was not polled within {timeout:g} s") from self._problem

    def _run(self) -> None:
        thread, pause, swept = threading.current_thread(), _RETRY_FIRST, self._monotonic()
        while not self._closed and self._thread is thread:
            self._tried = self._monotonic()
            try:
                if not self._positions:
                    self._bootstrap()
                now = self._poll()
                pause = _RETRY_FIRST
                if self._monotonic() - swept > _SWEEP:
                    swept = self._monotonic()
                    # By both clocks: what is forgotten does not come back when a clock that had jumped is put right.
                    self._table.discard_expired(min(int(self._wall()), now))
                self._wake.wait(POLL_INTERVAL)
            except Exception as error:
                self._failed(error)
                self._wake.wait(pause)
                pause = min(2 * pause, _RETRY_LONGEST)
                self._revive()
            self._wake.clear()

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
        placement = self._open_store()
        positions = [self._load(tag) for tag in placement.tags]
        self._positions = positions

    def _load(self, tag: str) -> _Position:
        """The tail first, then the sets: what comes in between is in the log after the tail."""
        seq, nonce, *windows = self._store.run(Call("follow_start", tag, (self._random(16).hex(),)))
        for window in windows:
            for entries in self._scan(tag, window):
                self._table.add_many(entries, int(window))
        return _Position(tag, int(seq), nonce)

    def _scan(self, tag: str, window: bytes) -> Iterator[bytes]:
        cursor: bytes | int = 0
        server = None
        while not self._closed:
            cursor, entries, its = self._store.run(Call("follow_scan", tag, (window, cursor)))
            if its != (server := server or its):
                raise StoreUnavailable("another server answers than before; its revocations are read anew")
            yield b"".join(entries)
            if int(cursor) == 0:
                return
        raise StoreUnavailable("the store is closed")

    def _poll(self) -> int:
        """Catch up; the store's time, in seconds since the epoch."""
        with self._changed:
            self._polls += 1
        sent, behind = self._monotonic(), list(self._positions)
        while behind:
            calls = [Call("follow_poll", at.tag, (self._id, at.seq, at.nonce, _BATCH)) for at in behind]
            replies = self._store.run_many(calls)
            behind = [at for at, reply in zip(behind, replies, strict=True) if not self._apply(at, reply)]
        state = self._keep_ring()
        if state.placement is None or state.placement.tags != [at.tag for at in self._positions]:
            self._positions = []
            raise StoreUnavailable("the store has been emptied or laid out anew; it is taken up and read anew")
        self._last_ok = sent
        self._table.fresh_until = sent + self._staleness - _TICK
        with self._changed:
            self._ready = True
            self._completed = self._polls
            if self._problem is not None:
                _log.warning("the store answers again")
            self._problem = self._fatal = None
            self._said.clear()
            self._changed.notify_all()
        return state.now // 1000

    def _apply(self, at: _Position, reply: list[bytes]) -> bool:
        """Apply what came after a position and move it on; whether that was all."""
        if reply[0] != b"OK":
            _log.warning("shard %s has another history than before; it is read anew", at.tag)
            fresh = self._load(at.tag)
            at.seq, at.nonce = fresh.seq, fresh.nonce
            return False
        rows = [iter(reply[1:])] * 4
        count = 0
        for seq, nonce, window, entry in zip(*rows, strict=True):
            self._table.add(entry, int(window))
            at.seq, at.nonce = int(seq), nonce
            count += 1
        return count < _BATCH
