"""A time-out for asyncio that measures the other side, and not the event loop's own delay.

``asyncio.timeout`` cancels what waits as soon as the loop finds that the time is over. A loop that was kept busy for so
long, by the application's own work, finds that first and only then reads the reply that has lain there all the while:
a store that answers within a millisecond would be called slow, and a refresh would fail that has been done.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

#: Turns of the loop for what has arrived to be read: one to receive it, one to wake who waits for it, one to spare.
_TURNS = 3


class InTime:
    """``async with InTime(seconds)``: as ``asyncio.timeout``, but what has arrived by then counts."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._turns = _TURNS
        self._handle: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._last_turns)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _last_turns(self) -> None:
        loop = asyncio.get_running_loop()
        self._turns -= 1
        if self._turns:
            self._handle = loop.call_soon(self._last_turns)
        else:
            self._timeout.reschedule(loop.time())
