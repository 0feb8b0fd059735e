"""The journal: what each process saw, one append-only file a process, merged when the run is over.

Times are those of the machine's monotonic clock, which all of its processes share; an event has the time when the
request was sent and the time when its answer was there. No token is written down, only a digest of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

#: Answers that leave open whether the store did what was asked.
OPEN = frozenset({"unavailable", "no_reply"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was asked and answered, or a fault. Fields that say nothing are left out of the file."""

    #: ``create``, ``refresh``, ``verify``, ``info``, ``revoke``, or ``fault``.
    kind: str
    #: Monotonic seconds.
    began: float
    ended: float
    #: Seconds since the epoch at the end, by the machine's clock.
    wall: float = 0.0
    #: ``ok``, ``unauthorised``, ``theft``, ``try_refresh``, ``busy``, ``unavailable``, ``no_reply``, ``error: ...``.
    result: str = "ok"
    process: str = ""
    #: The process that was asked.
    asked: str = ""
    #: ``honest``, ``thief``, ``ghost`` (shows tokens of a session that has ended), ``revoker``.
    who: str = ""

    session: str = ""
    #: The session that the answer is about.
    answered: str = ""
    user: str = ""
    tenant: str = ""
    #: Of the token that was shown, and its digest.
    generation: int = -1
    token: str = ""
    #: Of the refresh token to keep, as the answer says.
    child_generation: int = -1
    child: str = ""
    #: Of the access token: seconds since the epoch.
    issued_at: int = 0
    expires_at: int = 0
    #: The kid of what signed it.
    key: str = ""
    #: Seconds since the epoch: the session's absolute expiry, where the answer tells it.
    ends_at: int = 0
    #: By how many seconds the asked process's wall clock is off.
    clock: float = 0.0
    #: The client never saw this answer.
    lost: bool = False

    #: Revocations: ``session``, ``user``, ``tenant``, ``all``, ``token`` or ``key``, and which (of a token its digest).
    scope: str = ""
    target: str = ""
    #: ``replicated``, ``propagated``, or nothing.
    wait: str = ""

    #: Why something was not available; of a fault, what it was done to.
    note: str = ""
    #: Faults: which, and what is known of its effects.
    fault: str = ""
    #: What was written in this time may be lost.
    lost_from: float | None = None
    lost_to: float | None = None
    #: Another primary answers afterwards (or one that has restarted, which may know as little).
    new_primary: bool = False
    #: The fault can stop service, so that its return is to be timed.
    disturbs: bool = True
    #: A fault during which a former primary lives on, and answers those who are cut off with it.
    deposed: bool = False


_DEFAULTS = {field.name: field.default for field in fields(Event)}


class Journal:
    """One process's file."""

    def __init__(self, directory: Path, process: str) -> None:
        self.process = process
        self._file = os.open(directory / f"{process}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def write(self, kind: str, began: float, **what: Any) -> Event:
        """Write down what has just ended; what is written survives the process."""
        what = {"ended": time.monotonic(), "wall": time.time(), "process": self.process} | what
        event = Event(kind=kind, began=began, **what)
        said = {name: value for name, value in asdict(event).items() if value != _DEFAULTS[name]}
        line = json.dumps(said, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
        return event


def merge(directory: Path) -> list[Event]:
    """All that was written, by the time when it ended."""
    events = [event for path in sorted(directory.glob("*.jsonl")) for event in _read(path)]
    return sorted(events, key=lambda event: event.ended)


def _read(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # else the process was killed while it wrote
            yield Event(**json.loads(line))


def digest(token: str) -> str:
    """What the journal knows a token by.

    Of an access token the signature does not count, as it does not to a blacklist: two that say the same are the same.
    """
    content = token.rpartition(".")[0] or token
    return hashlib.sha256(content.encode()).hexdigest()[:16] if token else ""
