"""Is a thief found, and which one is not? An exhaustive search over rotation with a thief beside the honest browser.

``python -m tests.model.thief`` prints the table, with the shortest story for whatever is not found; ``--large`` goes
further.

The server and its rules are those of ``rotation.py``. The browser sends the refresh token of its jar whenever it
likes; its messages arrive, are lost, overtake one another, and live no longer than W. At one moment, any moment, a
thief copies the jar. From then on he presents any token that he has ever held, whenever he likes, is answered at
once, and loses nothing. Access tokens that have reached either of them are used, and reported by gateways, at any
later time or never. The primary may fail over, to what it had last replicated.

What is asked:

- Invariant I4: once generation g + 1 has been used (it was presented, or its access token was seen and reported),
  generation g is refused later than W, and whatever is older at once. A failover may undo the use, and during the hold
  after it g is let in.
- Turns. The thief begins, whenever he likes. A turn is a refresh after that which is answered with tokens though the
  last one was answered to the other party. A refusal ends the run: the thief is found. How many turns can there be in
  a run without one? None means that whoever of the two is the first to come after the other is refused. Turns without
  any time between them count as one. A thief who goes on alone takes no turns: he is found when the owner comes.

A run without end is shown as a way to a state, and a way from there to the same state, generations later.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from . import rotation
from .rotation import PENDING, Record, Refused, Reply, Request, _kind, _without
from .search import no_collection


@dataclass(frozen=True)
class Rules:
    """What may be left out to see what it is for."""

    #: Those that a client depends on.
    rotation: rotation.Rules = field(default_factory=rotation.Rules)
    #: Gateways report access tokens that they see.
    confirmations: bool = True
    #: The parent is let in no longer than W after the child was confirmed.
    parent_bounded: bool = True
    #: W = 0: every use rotates, and nothing is handed out again.
    strict: bool = False


@dataclass(frozen=True)
class Bounds:
    """How far the search goes, and which thief is looked for."""

    #: Turns are taken only when every window is closed: D after the token was handed out, W after it was confirmed.
    apart: bool = True
    #: W in ticks.
    window: int = 1
    #: The browser's requests and replies under way at once.
    messages: int = 1
    failovers: int = 0
    #: Generations that one failover undoes at most.
    undone: int = 1

    def __str__(self) -> str:
        thief = "turns with all windows closed" if self.apart else "turns at any time"
        failovers = f", {self.failovers} failover that undoes up to {self.undone}" if self.failovers else ""
        messages = f"{self.messages} message{'s' * (self.messages != 1)}"
        return f"{thief}, W = {self.window} ticks, {messages}{failovers}"


class Use(NamedTuple):
    """The newest generation that is known to have been used, and the ticks since then."""

    generation: int
    age: int


class Known(NamedTuple):
    """What a server has of the session; ``use`` is the search's own note beside it."""

    record: Record
    use: Use


class State(NamedTuple):
    primary: Known
    hold: int
    replica: Known
    #: The generation of the refresh token that the browser holds.
    jar: int
    #: What the thief holds; empty: he has not come yet.
    loot: tuple[int, ...]
    #: Generations whose access token has reached the browser or the thief.
    seen: tuple[int, ...]
    requests: tuple[Request, ...]
    replies: tuple[Reply, ...]
    failovers: int
    #: Whose refresh was last answered; nobody's before the thief's first.
    last: str
    #: Whether time has passed since the last turn.
    later: bool


class Event(NamedTuple):
    #: Words with a place for the generation that they speak of.
    words: str
    generation: int
    turn: bool = False
    #: How it breaks I4.
    wrong: str | None = None


Step = tuple[Event, State]
BROWSER, THIEF, NOBODY = "the browser", "the thief", ""


class Server(rotation.Model):
    """The server of ``rotation.py``, with the rules that only thieves feel."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        window = 0 if rules.strict else bounds.window
        super().__init__(rules.rotation, rotation.Bounds(window, bounds.messages, bounds.undone))
        self.all = rules
        if rules.strict:
            self.debounce = 0

    def refresh(self, record: Record, hold: int, token: int) -> tuple[Record, bool]:
        if token == record.generation - 1:
            if self.all.strict:
                raise Refused("THEFT", token)
            if not self.all.parent_bounded:
                after, brings = super().refresh(record._replace(confirmed=None), hold, token)
                return after._replace(confirmed=record.confirmed), brings
        return super().refresh(record, hold, token)


class Model:
    """The transitions, under given rules and bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        self.server = Server(rules, bounds)
        self.window = self.server.bounds.window
        #: The browser's messages live as long even where the server has no window.
        self.life = bounds.window

    @property
    def start(self) -> State:
        known = Known(Record(0, 0, None), Use(-1, self.window + 1))
        return State(
            primary=known,
            hold=self.server.debounce,
            replica=known,
            jar=0,
            loot=(),
            seen=(0,),
            requests=(),
            replies=(),
            failovers=self.bounds.failovers,
            last=NOBODY,
            later=True,
        )

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next, but for refusals, which end the run."""
        yield from self._browser(state)
        yield from self._thief(state)
        if self.rules.confirmations:
            for generation in state.seen:
                known = self._confirmed(state.primary, generation)
                yield Event("a gateway reports {}", generation), state._replace(primary=known)
        if state.failovers:
            yield from self._fail_over(state)
        if state.hold == PENDING:
            yield Event("another session is refreshed", 0), state._replace(hold=self.server.first_refresh(PENDING))
        if all(message.age < self.life for message in state.requests + state.replies):
            yield Event("tick", 0), self._tick(state)

    # --- the server ---

    def _presented(self, state: State, token: int, who: str) -> tuple[Event, State, Reply] | None:
        """A refresh that is answered with tokens; None where it is refused, or where the windows are to be closed."""
        turn = who != (state.last or BROWSER)
        if turn and self.bounds.apart and not self._closed(state):
            return None
        hold = self.server.first_refresh(state.hold)
        record, use = state.primary
        try:
            after, brings_token = self.server.refresh(record, hold, token)
        except Refused:
            return None
        wrong = self._wrong(state.primary, hold, token)
        if token >= record.generation and token > use.generation:
            use = Use(token, 0)
        turn = turn and state.last != NOBODY and state.later
        state = state._replace(
            primary=Known(after, use),
            hold=hold,
            last=who if who == THIEF else state.last and BROWSER,
            later=state.later and not turn,
        )
        reply = Reply(after.generation, brings_token, 0)
        return Event(f"{who} presents {{}}: {_kind(reply)}", token, turn, wrong), state, reply

    def _wrong(self, known: Known, hold: int, token: int) -> str | None:
        """How it breaks I4 that a token is answered with tokens; None: it does not."""
        record, use = known
        if token < max(use.generation, record.generation) - 1:
            return "that token is more than one behind"
        if token == use.generation - 1 and use.age > self.window and hold >= self.server.debounce:
            return "the child of that token was used more than W ago"
        return None

    def _closed(self, state: State) -> bool:
        record, debounce = state.primary.record, self.server.debounce
        confirmed = record.confirmed is not None and record.confirmed > self.window
        return record.handed >= debounce and state.hold >= debounce and (confirmed or not self.rules.confirmations)

    def _confirmed(self, known: Known, generation: int) -> Known:
        record, use = known
        if generation >= record.generation and generation > use.generation:
            use = Use(generation, 0)
        return Known(self.server.confirm(record, generation), use)

    # --- the world ---

    def _browser(self, state: State) -> Iterator[Step]:
        if len(state.requests) + len(state.replies) < self.bounds.messages:
            requests = tuple(sorted([*state.requests, Request(state.jar, 0)]))
            yield Event("the browser sends {}", state.jar), state._replace(requests=requests)
        for request in dict.fromkeys(state.requests):
            rest = state._replace(requests=_without(state.requests, request))
            yield Event("the browser's request with {} is lost", request.generation), rest
            if answered := self._presented(rest, request.generation, BROWSER):
                event, after, reply = answered
                yield event, after._replace(replies=tuple(sorted([*after.replies, reply])))
        for reply in dict.fromkeys(state.replies):
            rest = state._replace(replies=_without(state.replies, reply))
            jar = reply.generation if reply.brings_refresh_token else state.jar
            seen = tuple(sorted({*state.seen, reply.generation}))
            yield Event("the browser receives {}", reply.generation), rest._replace(jar=jar, seen=seen)
            yield Event("the reply to the browser with {} is lost", reply.generation), rest

    def _thief(self, state: State) -> Iterator[Step]:
        if not state.loot:
            yield Event("THE THIEF copies {}", state.jar), state._replace(loot=(state.jar,))
        for token in state.loot:
            if answered := self._presented(state, token, THIEF):
                event, after, reply = answered
                gained = {reply.generation} if reply.brings_refresh_token else set()
                loot = tuple(sorted({*after.loot, *gained}))
                yield event, after._replace(loot=loot, seen=tuple(sorted({*after.seen, reply.generation})))

    def _fail_over(self, state: State) -> Iterator[Step]:
        at = state.replica.record.generation
        yield Event("replicated", 0), state._replace(replica=state.primary)
        after = state._replace(primary=state.replica, hold=PENDING, failovers=state.failovers - 1)
        yield Event("FAILOVER, back to {}", at), after

    def _tick(self, state: State) -> State:
        hold = state.hold if state.hold == PENDING else min(state.hold + 1, self.server.debounce)
        return state._replace(
            primary=self._aged(state.primary),
            hold=hold,
            replica=self._aged(state.replica),
            requests=tuple(request._replace(age=request.age + 1) for request in state.requests),
            replies=tuple(reply._replace(age=reply.age + 1) for reply in state.replies),
            later=True,
        )

    def _aged(self, known: Known) -> Known:
        use = known.use._replace(age=min(known.use.age + 1, self.window + 1))
        return Known(self.server._aged(known.record), use)

    # --- the search ---

    def within_bounds(self, state: State) -> bool:
        """Whether a failover now would undo no more than is allowed."""
        return not state.failovers or _lead(state) <= self.bounds.undone

    def canonical(self, state: State) -> State:
        """The state that stands for all those that the future cannot tell from it; its primary is at generation 0."""
        by = state.primary.record.generation
        replica = state.replica if state.failovers else state.primary
        oldest = min(by, replica.record.generation)
        # What is two behind is refused whatever happens; how far behind it is does not matter.
        lost = oldest - 2

        def shifted(known: Known) -> Known:
            record, use = known
            use = Use(max(use.generation, lost) - by, use.age)
            return Known(record._replace(generation=record.generation - by), use)

        loot = tuple(sorted({max(token, lost) - by for token in state.loot}))
        return state._replace(
            primary=shifted(state.primary),
            replica=shifted(replica),
            jar=max(state.jar, lost) - by,
            loot=loot,
            seen=tuple(generation - by for generation in state.seen if generation >= oldest),
            requests=tuple(
                request._replace(generation=max(request.generation, lost) - by) for request in state.requests
            ),
            replies=tuple(reply._replace(generation=max(reply.generation, lost) - by) for reply in state.replies),
        )


def _lead(state: State) -> int:
    return state.primary.record.generation - state.replica.record.generation


class Edge(NamedTuple):
    event: Event
    after: State
    #: Generations that the primary gained, or lost.
    gained: int


Edges = dict[State, list[Edge]]


@dataclass(frozen=True)
class Result:
    """What a search found."""

    states: int
    #: Turns in a run in which nobody is refused, at most; None: there is no end.
    turns: int | None
    #: The shortest way to that many turns, or into a run without end.
    trace: tuple[str, ...]
    #: The part of ``trace`` that goes on and on begins here.
    again: int | None
    #: The shortest way to where I4 does not hold; empty: it does.
    broken: tuple[str, ...]
    events: frozenset[str]
    seconds: float


def explore(rules: Rules, bounds: Bounds) -> Result:
    """Visit every state, then see how many turns there can be."""
    begun = time.perf_counter()
    model = Model(rules, bounds)
    start = model.canonical(model.start)
    edges: Edges = {}
    events: set[str] = set()
    queue = deque([start])
    ways: dict[State, tuple[State, Edge] | None] = {start: None}
    broken: tuple[str, ...] = ()
    with no_collection():
        while queue:
            state = queue.popleft()
            outgoing = edges.setdefault(state, [])
            for event, after in model.steps(state):
                events.add(event.words)
                if not model.within_bounds(after):
                    continue
                edge = Edge(event, model.canonical(after), after.primary.record.generation)
                outgoing.append(edge)
                if edge.after not in ways:
                    ways[edge.after] = state, edge
                    queue.append(edge.after)
                if event.wrong and not broken:
                    broken = (*_story([*_way(ways, state), edge]), event.wrong)
        turns, trace, again = _endless(edges, ways) or _most_turns(edges, start)
    return Result(len(edges), turns, trace, again, broken, frozenset(events), time.perf_counter() - begun)


Found = tuple[int | None, tuple[str, ...], int | None]


def _endless(edges: Edges, ways: dict[State, tuple[State, Edge] | None]) -> Found | None:
    """A run without end, into which the way is the shortest; None: there is none."""
    part = _parts(edges)
    inner = [(state, edge) for state in edges for edge in edges[state] if part[state] == part[edge.after]]
    endless = {part[state] for state, edge in inner if edge.event.turn} & {
        part[state] for state, edge in inner if edge.gained > 0
    }
    for state in ways:  # the nearest first
        if part[state] in endless:
            way, cycle = _way(ways, state), _round(edges, state)
            return None, tuple(_story(way + cycle)), len(way)
    return None


def _parts(edges: Edges) -> dict[State, int]:
    """The strongly connected part that each state is in (Tarjan, without recursion)."""
    order: dict[State, int] = {}
    low: dict[State, int] = {}
    part: dict[State, int] = {}
    open_states: list[State] = []
    for root in edges:
        if root in order:
            continue
        order[root] = low[root] = len(order)
        open_states.append(root)
        path = [(root, iter(edges[root]))]
        while path:
            state, rest = path[-1]
            for edge in rest:
                if edge.after not in order:
                    order[edge.after] = low[edge.after] = len(order)
                    open_states.append(edge.after)
                    path.append((edge.after, iter(edges[edge.after])))
                    break
                if edge.after not in part:
                    low[state] = min(low[state], order[edge.after])
            else:
                path.pop()
                if path:
                    before = path[-1][0]
                    low[before] = min(low[before], low[state])
                if low[state] == order[state]:
                    while state not in part:
                        part[open_states.pop()] = order[state]
    return part


def _round(edges: Edges, start: State) -> list[Edge]:
    """The shortest way from a state to itself, generations later, with turns."""
    begin = (start, False, False)
    ways: dict[tuple[State, bool, bool], tuple[tuple[State, bool, bool], Edge] | None] = {begin: None}
    queue = deque([begin])
    while queue:
        here = queue.popleft()
        state, turned, gained = here
        for edge in edges[state]:
            there = (edge.after, turned or edge.event.turn, gained or edge.gained > 0)
            if there == (start, True, True):
                return [*_way(ways, here), edge]
            if there not in ways:
                ways[there] = here, edge
                queue.append(there)
    raise AssertionError("there is no way back")


def _most_turns(edges: Edges, start: State) -> Found:
    """The shortest run with the most turns, where there is no run without end."""
    first = (0, start)
    ways: dict[tuple[int, State], tuple[tuple[int, State], Edge] | None] = {first: None}
    queue, best = deque([first]), first
    while queue:
        here = queue.popleft()
        if here[0] > best[0]:
            best = here
        for edge in edges[here[1]]:
            there = (here[0] + edge.event.turn, edge.after)
            if there not in ways:
                ways[there] = here, edge
                queue.append(there)
    return best[0], tuple(_story(_way(ways, best))) if best[0] else (), None


K = TypeVar("K")


def _way(ways: dict[K, tuple[K, Edge] | None], at: K) -> list[Edge]:
    way: list[Edge] = []
    while (arrival := ways[at]) is not None:
        at, edge = arrival
        way.append(edge)
    return way[::-1]


def _story(way: list[Edge]) -> list[str]:
    """The events, with generations counted from the sign-in."""
    lines, generation = [], 0
    for event, _, gained in way:
        lines.append(event.words.format(event.generation + generation))
        generation += gained
    return lines


@dataclass(frozen=True)
class Case:
    """Rules, the thief that is looked for, and what there is to find."""

    rules: Rules
    bounds: Bounds
    #: Turns until he is found, at most; None: he may never be.
    turns: int | None
    #: Whether I4 holds.
    holds: bool = True


_ONCE = Bounds(failovers=1)
CASES: dict[str, Case] = {
    "all rules": Case(Rules(), Bounds(), 0),
    "all rules, a failover": Case(Rules(), _ONCE, 2),
    "all rules, a thief who shadows": Case(Rules(), Bounds(apart=False), None),
    "no confirmations": Case(Rules(confirmations=False), Bounds(), None),
    "the parent is let in for ever": Case(Rules(parent_bounded=False), Bounds(), None, holds=False),
    "strict": Case(Rules(strict=True), Bounds(apart=False), 0),
    "strict, a failover": Case(Rules(strict=True), Bounds(apart=False, failovers=1), 2),
    "no adoption by confirmation, a failover": Case(
        Rules(rotation.Rules(adopt_by_confirmation=False)), _ONCE, 2, holds=False
    ),
    "no re-arming on redelivery": Case(Rules(rotation.Rules(rearm=False)), Bounds(), 0),
    "the reply inside the debounce brings the refresh token": Case(
        Rules(rotation.Rules(access_token_only=False)), Bounds(), 0
    ),
    "no hold, a failover": Case(Rules(rotation.Rules(hold=False)), _ONCE, 2),
    "the hold does not admit the parent, a failover": Case(Rules(rotation.Rules(hold_admits_parent=False)), _ONCE, 2),
    "no adoption, a failover": Case(Rules(rotation.Rules(adopt=False)), _ONCE, 2),
}
#: Wider bounds: minutes.
LARGE: dict[str, Case] = {
    "all rules, a finer clock": Case(Rules(), Bounds(window=2, messages=2), 0),
    "all rules, two messages, a failover": Case(Rules(), Bounds(messages=2, failovers=1), 2),
    "all rules, a finer clock, a failover": Case(Rules(), Bounds(window=2, failovers=1), 2),
    "all rules, a failover that undoes two": Case(Rules(), Bounds(failovers=1, undone=2), 2),
    "all rules, a thief who shadows, a failover": Case(Rules(), Bounds(apart=False, failovers=1), None),
}


def main() -> None:
    """Print the table: what is found, after how many turns, and the shortest story of whatever is not."""
    for name, case in (CASES | (LARGE if "--large" in sys.argv[1:] else {})).items():
        result = explore(case.rules, case.bounds)
        found = {None: "may never be found", 0: "found at the first turn"}.get(
            result.turns, f"found after {result.turns} turns at most"
        )
        i4 = "I4 does not hold" if result.broken else "I4 holds"
        print(f"{name}; {case.bounds}: {found}; {i4}; {result.states:,} states, {result.seconds:.1f} s", flush=True)
        for line in result.broken:
            print(f"    I4: {line}")
        for number, line in enumerate(result.trace):
            if number == result.again:
                print("    and now again and again:")
            print(f"    {line}")


if __name__ == "__main__":
    main()
