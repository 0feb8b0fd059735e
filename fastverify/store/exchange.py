"""What a store asks of its servers, with no I/O; ``driver.Store`` and ``driver.AsyncStore`` do what is asked.

- An *exchange*: commands for one server or several, sent to all before the first reply is awaited; to each server on
  one connection. An answer has as many outcomes as there were commands.
- A *talk* is held on one connection: it yields lists of commands, and is sent lists of replies.
- An *errand* yields exchanges, and is sent the answers; and pauses, and is sent whether there is time left.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .calls import Pause, T
from .endpoint import Node
from .faults import Fault, Stage

Command: TypeAlias = tuple[str | bytes | int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands for one server. With ``durable``, it is to say how many replicas have what they wrote."""

    commands: Sequence[Command]
    durable: bool = False

    def with_wait(self, milliseconds: int) -> Sequence[Command]:
        """The commands and a WAIT behind them: on their connection it waits for whatever was written there."""
        return [*self.commands, ("WAIT", 1, milliseconds)]

    def answer(self, replies: list[Any], failure: Exception | None, *, sent: bool, waited: bool) -> Answer:
        """Make an answer of the replies that came: what is missing has failed."""
        if failure is not None:
            fault = Fault(failure.with_traceback(None), Stage.LOST if sent else Stage.UNSENT)
            replies += [fault] * (len(self.commands) + waited - len(replies))
        if not waited:
            return Answer(replies)
        *outcomes, replicas = replies
        return Answer(outcomes, 0 if isinstance(replicas, Fault) else replicas)


@dataclass(frozen=True, slots=True)
class Answer:
    """For each command its reply, or a ``Fault``. ``replicas`` have all that was written; None: it was not asked."""

    outcomes: list[Any]
    replicas: int | None = None


Exchange: TypeAlias = Mapping[Node, Batch]
Answers: TypeAlias = dict[Node, Answer]
#: An error that is replied is sent in as a Fault, to talks and errands alike.
Talk: TypeAlias = Generator[Sequence[Command], list[Any], T]
Errand: TypeAlias = Generator[Exchange | Pause, Any, T]
