"""Which sessions a gateway has seen: that an access token was used proves that its refresh token arrived, too.

The store is told (rotation.md, "Confirmation"), so that the refresh token before it is then taken for stolen. It is
told in batches, by the follower's thread, never by a request. What is lost on the way delays the finding of a thief.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping

from .errors import StoreUnavailable
from .session import Session, handle_bytes
from .tokens import generation_of

#: Sessions that are still to be reported, at most.
_MOST = 4_096

_log = logging.getLogger("fastverify.follower")


class Sightings:
    """Sessions seen since the last report. Any thread may add to them; one reports."""

    def __init__(self) -> None:
        self._seen: deque[Session] = deque()
        #: Sessions reported so far, and those that were not: there were too many, or the store was away.
        self.reported = self.lost = 0

    def add(self, session: Session) -> None:
        """A session's access token has come for the first time."""
        if len(self._seen) < _MOST:
            self._seen.append(session)
        else:
            self.lost += 1

    def report(self, confirm: Callable[[Mapping[bytes, int]], None]) -> None:
        """Hand what has been seen to ``confirm``: generations by handle."""
        seen: dict[bytes, int] = {}
        for _ in range(len(self._seen)):
            session = self._seen.popleft()
            if (generation := generation_of(session.claims.get("refreshTokenHash1"))) is not None:
                handle = handle_bytes(session.handle)
                seen[handle] = max(generation, seen.get(handle, 0))
        if not seen:
            return
        try:
            confirm(seen)
            self.reported += len(seen)
        except StoreUnavailable as error:  # full, perhaps: it can still be followed
            _log.info("%d sessions that were seen here are not confirmed: %s", len(seen), error)
            self.lost += len(seen)
