"""Which sessions are in use, for their ``last_seen_at``: noted by requests, told to the store by the follower's thread.

A request pays for one look into a set, and once a minute for an entry in it. What is lost, because there was too much,
the store was away or the process has died, makes a session look used a little earlier than it was.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from .errors import StoreUnavailable
from .session import handle_bytes

#: Seconds for which a session that has been noted is not noted again.
SPAN = 60
#: Sessions that are still to be told of, at most; and those that are remembered as noted.
_MOST_WAITING, _MOST_NOTED = 4_096, 65_536

_log = logging.getLogger("fastverify.follower")


class LastSeen:
    """Sessions in use. Any thread may note them; one reports."""

    def __init__(self) -> None:
        self._noted: set[str] = set()
        self._waiting: deque[str] = deque()
        self._forget_at: float | None = None
        #: Sessions told of so far, and those that were not: there were too many, or the store was away.
        self.told = self.lost = 0

    def note(self, handle: str) -> None:
        """A session's access token has been used."""
        if handle not in self._noted:
            self._add(handle)

    def _add(self, handle: str) -> None:
        if len(self._waiting) < _MOST_WAITING and len(self._noted) < _MOST_NOTED:
            self._noted.add(handle)
            self._waiting.append(handle)
        else:
            self.lost += 1

    def report(self, tell: Callable[[Sequence[bytes]], None], now: float) -> None:
        """Hand what has been noted to ``tell``: handles.

        Args:
            tell: writes it down.
            now: seconds, by any clock that does not go back.
        """
        if self._forget_at is None or now >= self._forget_at:
            if self._forget_at is not None:
                self._noted.clear()
            self._forget_at = now + SPAN
        handles = {handle_bytes(self._waiting.popleft()) for _ in range(len(self._waiting))}
        if not handles:
            return
        try:
            tell(list(handles))
            self.told += len(handles)
        except StoreUnavailable as error:  # full, perhaps: it can still be followed
            _log.info("%d sessions that were used here are not noted as that: %s", len(handles), error)
            self.lost += len(handles)
