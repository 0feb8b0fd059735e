"""Listening to channels, for one thread. Messages may be lost at any time: who listens must be able to do without."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis.connection import AbstractConnection as Connection

from ..errors import StoreUnavailable
from .faults import FAULTS, unavailable

#: Seconds of silence after which the server is asked whether it is still there: a dead line is silent too.
QUIET_SECONDS = 1.0


class Subscription:
    """Made by ``Store.subscribe``, on a connection of its own, which it closes."""

    def __init__(
        self,
        connection: Connection,
        channels: Sequence[str],
        url: str,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._url = url
        self._patience = patience
        self._clock = clock
        self._heard_at = clock()
        self._asked_at: float | None = None
        self._closed = False
        connection.send_packed_command(connection.pack_command("SUBSCRIBE", *channels))
        for _ in channels:
            connection.read_response(disconnect_on_error=False)

    def get(self, timeout: float) -> str | None:
        """The channel of the next message; None when none came within so many seconds.

        Raises:
            StoreUnavailable: the connection is lost, or was closed. What was said meanwhile is lost too.
        """
        deadline = self._clock() + timeout
        try:
            while True:
                self._check_open()  # redis-py would connect anew, and listen to nothing
                if not self._connection.can_read(timeout=max(0.0, deadline - self._clock())):
                    self._check_line()
                    return None
                kind, *rest = self._connection.read_response(disconnect_on_error=False)
                self._heard_at = self._clock()
                self._asked_at = None
                if kind == b"message":
                    return bytes(rest[0]).decode("utf-8", "replace")
        except Exception as error:
            was_closed = self._closed
            self.close()
            if was_closed:  # by another thread, in the midst of the above
                raise StoreUnavailable("the subscription is closed") from None
            if isinstance(error, FAULTS):
                raise unavailable(error, self._url) from error
            raise

    def close(self) -> None:
        """Close the connection; from any thread."""
        self._closed = True
        self._connection.disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the subscription is closed")

    def _check_line(self) -> None:
        now = self._clock()
        if self._asked_at is None and now > self._heard_at + QUIET_SECONDS:
            self._connection.send_packed_command(self._connection.pack_command("PING"))
            self._asked_at = now
        elif self._asked_at is not None and now > self._asked_at + self._patience:
            raise TimeoutError
