"""Does revoke_all end all that there was, and nothing that comes after it? An exhaustive search (revocation.md, marks).

``python -m tests.model.marks`` prints what it finds, and the shortest story for each rule left out; ``--large``
goes further and takes minutes.

Two shards, the clock of the second of which may be ahead; a second has two ticks. Sessions are made and refreshed at
any time: a record bears the time at which it was made, and an access token the second. Revocations may overlap. Each
marks the shards, in any order and at any time, and then writes its entry into them. Nothing fails here: that a mark or
an entry is lost, and given back, is as with every other entry (follower.py). A verifier has what is written anywhere.

Claims:

(a) When a revocation returns, every session that was there when it began is refused: its record by its shard's mark,
    its access token by an entry.
(b) What is made or refreshed after every revocation has returned lives, and is not refused by an entry.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from .search import Result, search


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol; each may be left out to see what it is for."""

    #: A shard's mark is of the moment when it is marked; else of a time that was asked for before.
    own_time: bool = True
    #: The entry is written when every shard has its mark; else into each as it is marked, of its own time.
    marks_first: bool = True
    #: The entry is of the latest of the marks; else of the first.
    latest: bool = True
    #: All marks are made as late as the entry before that is written.
    raised: bool = True
    #: A mark is of a later second than those before it.
    later_second: bool = True
    #: What is made after a mark is of a later time than that.
    created_after: bool = True
    #: What is issued after a mark is of a later second than that.
    issued_after: bool = True


@dataclass(frozen=True)
class Bounds:
    """How far the search goes."""

    #: Ticks.
    time: int = 2
    #: Ticks by which the second shard's clock is ahead.
    ahead: int = 0
    revocations: int = 2
    #: Sessions that are made after the first one, which is in the second shard.
    sessions: int = 1

    def __str__(self) -> str:
        return f"{self.time} ticks, {self.ahead} ahead, {self.revocations} revocations, {self.sessions} sessions more"


class Session(NamedTuple):
    shard: int
    created: int
    #: The second of its latest access token, which outlives those before it.
    issued: int
    #: The revocations under way when it began or later, to which it was there.
    doomed: frozenset[int]
    #: Whether every revocation had returned when its latest token was issued.
    after: bool


class Revocation(NamedTuple):
    number: int
    #: What it is of, where that was asked for before.
    asked: int
    #: Times by shard; 0: not marked yet.
    marks: tuple[int, int]
    written: tuple[bool, bool]


class State(NamedTuple):
    time: int
    marks: tuple[int, int]
    sessions: tuple[Session, ...]
    under_way: tuple[Revocation, ...]
    begun: int
    #: Whether any has returned.
    returned: frozenset[int]
    #: The latest second that an entry refuses.
    refused: int


T = TypeVar("T")
TICKS = 2
BEGIN = TICKS  # not zero, which stands for none
SHARDS = (0, 1)
NAMES = ("A", "B")
Step = tuple[str, State]


class Model:
    """The transitions, under given rules and bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds

    @property
    def start(self) -> State:
        """A session in B."""
        first = Session(1, self._clock(BEGIN, 1), self._clock(BEGIN, 1) // TICKS, frozenset(), True)
        return State(BEGIN, (0, 0), (first,), (), 0, frozenset(), -1)

    def _clock(self, time: int, shard: int) -> int:
        return time + self.bounds.ahead * shard

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        if state.time < BEGIN + self.bounds.time:
            yield "tick", state._replace(time=state.time + 1)
        yield from self._users(state)
        if state.begun < self.bounds.revocations:
            yield self._begin(state)
        for index, one in enumerate(state.under_way):
            for shard in SHARDS:
                yield from self._mark(state, index, one, shard)
                yield from self._write(state, index, one, shard)

    def _issued(self, state: State, shard: int) -> int:
        second, mark = self._clock(state.time, shard) // TICKS, state.marks[shard]
        return max(second, mark // TICKS + 1) if mark and self.rules.issued_after else second

    def _users(self, state: State) -> Iterator[Step]:
        after = not state.under_way
        if len(state.sessions) <= self.bounds.sessions:
            for shard in SHARDS:
                created = self._clock(state.time, shard)
                if state.marks[shard] and self.rules.created_after:
                    created = max(created, state.marks[shard] + 1)
                made = Session(shard, created, self._issued(state, shard), frozenset(), after)
                yield f"a session in {NAMES[shard]}", state._replace(sessions=(*state.sessions, made))
        for number, session in enumerate(state.sessions):
            if session.created > state.marks[session.shard]:
                again = session._replace(issued=self._issued(state, session.shard), after=after)
                sessions = (*state.sessions[:number], again, *state.sessions[number + 1 :])
                yield f"session {number} is refreshed", state._replace(sessions=sessions)

    def _begin(self, state: State) -> Step:
        number = state.begun + 1
        asked = 0 if self.rules.own_time else max(self._clock(state.time, shard) for shard in SHARDS)
        one = Revocation(number, asked, (0, 0), (False, False))
        sessions = tuple(session._replace(doomed=session.doomed | {number}) for session in state.sessions)
        under_way = (*state.under_way, one)
        return f"revocation {number} begins", state._replace(under_way=under_way, begun=number, sessions=sessions)

    def _mark(self, state: State, index: int, one: Revocation, shard: int) -> Iterator[Step]:
        """mark.lua, for now."""
        if one.marks[shard]:
            return
        before = state.marks[shard]
        mark = max(one.asked or self._clock(state.time, shard), before)
        if before and self.rules.later_second:
            mark = max(mark, (before // TICKS + 1) * TICKS)
        marked = one._replace(marks=_at(one.marks, shard, mark))
        after = _put(state, index, marked)._replace(marks=_at(state.marks, shard, mark))
        if not self.rules.marks_first:
            marked = marked._replace(written=_at(one.written, shard, True))
            after = self._entered(_put(after, index, marked), index, marked, one.asked or mark)
        yield f"revocation {one.number} marks {NAMES[shard]}", after

    def _write(self, state: State, index: int, one: Revocation, shard: int) -> Iterator[Step]:
        """mark.lua, for a time, and blacklist.lua."""
        if not all(one.marks) or one.written[shard]:
            return
        cutoff = max(one.marks) if self.rules.latest else min(one.marks)
        written = one._replace(written=_at(one.written, shard, True))
        after = _put(state, index, written)
        if self.rules.raised:
            after = after._replace(marks=_at(state.marks, shard, max(cutoff, state.marks[shard])))
        yield f"revocation {one.number} writes into {NAMES[shard]}", self._entered(after, index, written, cutoff)

    def _entered(self, state: State, index: int, one: Revocation, cutoff: int) -> State:
        state = state._replace(refused=max(state.refused, cutoff // TICKS))
        if not all(one.written):
            return state
        rest = (*state.under_way[:index], *state.under_way[index + 1 :])
        return state._replace(under_way=rest, returned=state.returned | {one.number})

    def fault(self, state: State) -> str | None:
        """What is wrong with a state, or None."""
        for number, session in enumerate(state.sessions):
            if session.doomed & state.returned:
                if session.created > state.marks[session.shard]:
                    return f"session {number} was there before a revocation that has returned; it can be refreshed"
                if session.issued > state.refused:
                    return f"session {number} was there before a revocation that has returned; its token is accepted"
            elif session.after and not session.doomed and session.issued <= state.refused and not state.under_way:
                return f"session {number} has come after all revocations; its token is refused"
            elif session.after and not session.doomed and session.created <= state.marks[session.shard]:
                return f"session {number} has come after all revocations; it has ended"
        return None


def _at(values: tuple[T, T], shard: int, value: T) -> tuple[T, T]:
    return (value, values[1]) if shard == 0 else (values[0], value)


def _put(state: State, index: int, one: Revocation) -> State:
    return state._replace(under_way=(*state.under_way[:index], one, *state.under_way[index + 1 :]))


def explore(rules: Rules, bounds: Bounds) -> Result[State]:
    """Visit every state within bounds, up to the first that is wrong."""
    model = Model(rules, bounds)
    return search(model.start, model.steps, model.fault)


#: Each rule left out, and the bounds in which that suffices to break a claim.
ABLATIONS: dict[str, tuple[Rules, Bounds]] = {
    "the time is asked for before": (Rules(own_time=False), Bounds(revocations=1)),
    "the entry is of the first mark": (Rules(latest=False), Bounds(revocations=1)),
    "each shard is marked and written to by itself": (Rules(marks_first=False), Bounds(revocations=1)),
    "the marks are not raised to the latest": (Rules(raised=False), Bounds(revocations=1)),
    "a second mark may be of the same second": (Rules(later_second=False), Bounds()),
    "what is made after a mark bears the clock's time": (Rules(created_after=False), Bounds(revocations=1)),
    "what is issued after a mark bears the clock's second": (Rules(issued_after=False), Bounds(revocations=1)),
}
#: Seconds.
SMALL = (Bounds(revocations=1, time=3), Bounds(revocations=1, ahead=3), Bounds())
#: Minutes.
LARGE = (Bounds(revocations=1, time=5), Bounds(revocations=1, time=5, ahead=3), Bounds(ahead=1), Bounds(time=3))


def main() -> None:
    """Print the table: what every search found, and the shortest story for each rule left out."""
    for bounds in (*SMALL, *(LARGE if "--large" in sys.argv[1:] else ())):
        _report("all rules", Rules(), bounds)
    for name, (rules, bounds) in ABLATIONS.items():
        _report(name, rules, bounds)


def _report(name: str, rules: Rules, bounds: Bounds) -> None:
    result = explore(rules, bounds)
    verdict = f"wrong after {len(result.trace) - 1} events" if result.trace else "all claims hold"
    print(f"{name}; {bounds}: {verdict}, {result.states:,} states, {result.seconds:.1f} s", flush=True)
    for line in result.trace:
        print(f"    {line}")


if __name__ == "__main__":
    main()
