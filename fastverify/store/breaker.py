"""A circuit breaker: a server that has failed again and again is left alone for a moment (revocation.md, F11).

::

    closed --5 failures in a row within 10 s--> open --0.5 s--> half open --the probe succeeds--> closed
                                                 ^                  |
                                                 +--the probe fails-+

While it is open every call fails at once, instead of waiting for the same time-out as the one before; half open, one is
let through. Failures are of the connection, or time-outs: a server that answers with an error has answered. A success
in between starts the count anew: a busy server that loses one call in a thousand is better used than left alone.

It is open for so short a time because service must be full again within 3 s after a server answers again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

FAILURES = 5
WITHIN_SECONDS = 10.0
OPEN_SECONDS = 0.5


class Breaker:
    """The breaker of one server, for any thread. Each call that was admitted reports once how it ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._opened_at: float | None = None
        self._probing = False

    def admit(self) -> bool:
        """Whether a call may be made now."""
        if self._opened_at is None:
            return True
        with self._lock:
            if self._opened_at is None:
                return True
            if self._probing or self._clock() < self._opened_at + OPEN_SECONDS:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """The server answered."""
        if self._failures or self._opened_at is not None:
            with self._lock:
                self._failures.clear()
                self._opened_at = None
                self._probing = False

    def failed(self) -> None:
        """The server did not answer."""
        with self._lock:
            now = self._clock()
            self._failures.append(now)
            self._probing = False
            if self._opened_at is not None or self._many(now):
                self._opened_at = now

    def abandoned(self) -> None:
        """The call ended for a reason that says nothing about the server."""
        with self._lock:
            self._probing = False

    def _many(self, now: float) -> bool:
        return len(self._failures) == FAILURES and self._failures[0] > now - WITHIN_SECONDS
