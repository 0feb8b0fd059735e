"""Hints: a shard's channel says that something has just been written into its log (revocation.md).

They make a follower look at once, and may be lost: it looks once a second whether or not there was one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing

from .errors import StoreUnavailable
from .store import Store

#: Seconds that lie between two looks at least: at first, and at most.
_GAP_FIRST, _GAP_LONGEST = 0.005, 0.05
#: Seconds between tries to listen for hints, which a user may not be permitted to; and for which one is waited at once.
_LISTEN_FIRST, _LISTEN_LONGEST, _LISTEN = 0.05, 30.0, 1.0

_log = logging.getLogger("fastverify.follower")


class Hints:
    """Of one follower: a thread that listens, and what it has heard.

    Args:
        store: where to listen.
        tags: the shards to listen to; none while they are not known.
        wake: called in the thread that listens, when a hint has come.
    """

    def __init__(self, store: Store, tags: Callable[[], list[str]], wake: Callable[[], None]) -> None:
        self._store = store
        self._tags = tags
        self._wake = wake
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: The shards that have been named since the last look.
        self._named: set[str] = set()
        #: Hints heard so far; and up to the last look.
        self.heard = self._looked = 0
        self._gap = _GAP_FIRST
        self._next = float("-inf")

    def start(self) -> None:
        """Listen, in a thread; one that was begun before ends."""
        self._thread = threading.Thread(target=self._listen, name="fastverify-hints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Have the thread end."""
        self._closing.set()

    def due(self) -> float:
        """When to look next, in monotonic seconds; infinity: no shard has been named."""
        return self._next if self._named else float("inf")

    def take(self, now: float) -> list[str]:
        """The shards to look at now.

        While several hints come between two looks, the time between looks grows, so that more of them are read
        together: each look costs the store something, and there are as many that look as there are processes.
        """
        several = self.heard > self._looked + 1
        self._gap = min(2 * self._gap, _GAP_LONGEST) if several else _GAP_FIRST
        self._next = now + self._gap
        return self.drop()

    def drop(self) -> list[str]:
        """Forget what has been named, for all are looked at; one that is named meanwhile stays for the next time."""
        self._looked = self.heard
        named = list(self._named)
        self._named.difference_update(named)
        return named

    def hear(self, tag: str) -> None:
        """A hint has come."""
        self.heard += 1
        self.add(tag)
        self._wake()

    def add(self, tag: str) -> None:
        """Have a shard looked at, as if a hint had named it."""
        self._named.add(tag)

    def _listen(self) -> None:
        pause = _LISTEN_FIRST
        while self._is_mine():
            if tags := self._tags():
                try:
                    self._hear(tags)
                    pause = _LISTEN_FIRST
                except StoreUnavailable as error:
                    _log.debug("no hints are heard: %s", error)  # the polls say what is to be said
                    pause = min(2 * pause, _LISTEN_LONGEST)
            self._closing.wait(pause)

    def _hear(self, tags: list[str]) -> None:
        """Listen for hints of these shards, until they are others."""
        with closing(self._store.subscribe([f"{tag}:hint" for tag in tags])) as subscription:
            while self._is_mine() and self._tags() in (tags, []):
                if (channel := subscription.get(_LISTEN)) is not None:
                    self.hear(channel.removesuffix(":hint"))

    def _is_mine(self) -> bool:
        """Whether the thread that asks is the one that is to listen."""
        return self._thread is threading.current_thread() and not self._closing.is_set()
