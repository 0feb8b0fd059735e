"""Visits every state that a model can reach, the nearest first, and tells the shortest way to what is wrong."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


class Wrong(Exception):
    """A claim does not hold in this event; the message is the last line of the trace."""


@dataclass(frozen=True)
class Result(Generic[S]):
    """What a search found. ``trace`` is empty, or the shortest way to what is wrong, which is its last line."""

    states: int
    trace: tuple[str, ...]
    #: The events that were tried.
    events: frozenset[str]
    seconds: float


@contextmanager
def no_collection() -> Iterator[None]:
    """What a search has reached stays; looking for garbage in it would take most of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def search(
    start: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    fault: Callable[[S], str | None],
) -> Result[S]:
    """Visit every state.

    Args:
        start: the first state.
        steps: each event that can come next and the state after it; raises Wrong for an event that breaks a claim.
        fault: what is wrong with a state, or None.
    """
    begun = time.perf_counter()
    reached: dict[S, tuple[S, str] | None] = {start: None}
    queue, events = deque([start]), set()

    def visit() -> tuple[str, ...]:
        while queue:
            state = queue.popleft()
            try:
                for event, after in steps(state):
                    events.add(event)
                    if after not in reached:
                        reached[after] = state, event
                        queue.append(after)
                        if wrong := fault(after):
                            return (*_way(reached, after), wrong)
            except Wrong as refusal:
                return (*_way(reached, state), str(refusal))
        return ()

    with no_collection():
        trace = visit()
    return Result(len(reached), trace, frozenset(events), time.perf_counter() - begun)


def _way(reached: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    events: list[str] = []
    while (arrival := reached[state]) is not None:
        state, event = arrival
        events.append(event)
    return tuple(reversed(events))
