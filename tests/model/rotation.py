"""Can an honest client ever be thrown out? An exhaustive search over refresh-token rotation (rotation.md).

``python -m tests.model.rotation`` prints what it finds; with ``--large`` in wider bounds, which takes minutes.

The model has one session and one honest browser with one jar. At any moment the browser may send the refresh token of
its jar, however many requests are under way already. A message arrives, or is lost; messages overtake one another; none
lives longer than W. (A duplicate and a retry are just another request with the same token.) An access token that has
reached the browser may be seen by a gateway at any later time, whose report of it, the confirmation, takes as long as
it likes, is lost, or comes again. The primary may fail over or restart at any moment and as often as it likes, and is
replaced by what it had last replicated: all changes since then are undone. The new primary holds back from the first
refresh that reaches it, which may be another session's.

Every order of these events is visited. If one of them ends in a refusal, the shortest such order is the result.

Two things keep the search finite without a limit on generations or failovers. Ages stop counting where no rule looks
any further. And generations are counted from the primary's: rules only compare them, so two states that differ by a
shift are one. What is limited is written in ``Bounds``. Time goes in ticks; the debounce is taken at its shortest, as
"less than 2W + 1 ticks".

The thief's side is not searched here: that a rotated token is refused outside the window is a matter of one comparison,
and the tests of the real script look at it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar


@dataclass(frozen=True)
class Rules:
    """The rules of rotation.md section 3 that a client depends on; each may be left out to see what it is for."""

    #: A reply to the current token brings no refresh token, so a late one cannot move the jar backwards.
    access_token_only: bool = True
    #: Ticks of the debounce beyond 2W.
    debounce_beyond: int = 1
    #: Ticks of the exchange window beyond W, the life of a message.
    window_beyond: int = 0
    #: Handing out a token again counts as handing it out: the debounce begins anew.
    rearm: bool = True
    #: A generation that the primary does not know of is adopted: we issued it, the primary lost that.
    adopt: bool = True
    #: A primary that is new holds back for one debounce.
    hold: bool = True
    #: The hold also lets in the parent (not for the client's sake: for a clock that jumps).
    hold_admits_parent: bool = True
    #: A confirmation adopts as well (not for the client's sake: it finds thieves sooner).
    adopt_by_confirmation: bool = True
    #: The browser may show its access token and have the refresh token that goes with it handed out once more: how a
    #: session moves to another transport (``redeliver.lua``).
    moves: bool = False
    #: Handing out a token so counts as handing it out, too.
    move_rearms: bool = True
    #: A new primary moves nobody before it has held back, and has seen a refresh token of the session since.
    move_wants_proof: bool = True
    #: The browser may leave the session for one by which its user acts as another, and gets its refresh token handed
    #: out when it comes back (``impersonate.lua``, ``come_back.lua``). While it is away it has none of the session's.
    acts: bool = False
    #: Handing out a token so counts as handing it out, too.
    return_rearms: bool = True
    #: A new primary lets nobody come back before it has held back.
    return_waits: bool = True
    #: Nor one that has not seen a refresh token since, while a token that it has handed out may be under way.
    return_lets_arrive: bool = True
    #: Then it goes beyond the generation that the session had when it was left.
    return_goes_beyond: bool = True
    #: A new primary lets nobody leave before it has held back, and has seen a refresh token of the session since.
    leave_wants_proof: bool = True


@dataclass(frozen=True)
class Bounds:
    """How far the search goes."""

    #: W in ticks. More ticks are a finer clock.
    window: int
    #: Requests and replies under way at once.
    messages: int
    #: Generations that one failover undoes at most. 0: no failover happens at all.
    undone: int = 0

    def __str__(self) -> str:
        failovers = f"failovers that undo up to {self.undone}" if self.undone else "no failovers"
        return f"W = {self.window} ticks, {self.messages} messages, {failovers}"


class Record(NamedTuple):
    """What a server knows of the session."""

    generation: int
    #: Ticks since the current token was last handed out.
    handed: int
    #: Ticks since it is known that the current token arrived; None: it is not known.
    confirmed: int | None
    #: Whether this primary has answered a refresh of the session when it did not hold back.
    proved: bool = True


class Reply(NamedTuple):
    """An answer on its way: the access token of a generation, and its refresh token unless one's own is to be kept."""

    generation: int
    brings_refresh_token: bool
    age: int
    #: It brings another session's tokens instead; the generation is what this one had then.
    leaves: bool = False


class Request(NamedTuple):
    """A refresh on its way, or a move with an access token; or one that leaves the session, or comes back to it."""

    generation: int
    age: int
    moves: bool = False
    leaves: bool = False
    returns: bool = False


class State(NamedTuple):
    """Everything that the future depends on."""

    primary: Record
    #: Ticks since the hold began; PENDING: no refresh has reached this primary yet.
    hold: int
    #: What a failover would make of the record.
    replica: Record
    #: The generation of the refresh token that the browser holds.
    jar: int
    #: The generation of the access token that it holds: a late reply without a refresh token may bring an older one.
    access: int
    #: Generations whose access token has reached the browser.
    seen: tuple[int, ...]
    requests: tuple[Request, ...]
    replies: tuple[Reply, ...]
    #: The browser has left; the generation that the session had then. Its jar holds none of the session's tokens.
    away: int | None = None


class Event(NamedTuple):
    """One line of a trace: words with a place for the generation that they speak of."""

    words: str
    generation: int


PENDING = -1
Step = tuple[Event, State]


class Refused(Exception):
    """The server turned an honest client away. ``event`` says how."""

    def __init__(self, verdict: str, generation: int) -> None:
        super().__init__(verdict)
        self.event = Event(f"refresh with {{}}: {verdict}", generation)


M = TypeVar("M", bound=Request | Reply)


@dataclass(frozen=True)
class Result:
    """What a search found. ``trace`` is empty, or the shortest way to a refusal, which is its last line."""

    states: int
    trace: tuple[str, ...]
    #: The kinds of event that were tried.
    events: frozenset[str]


class Model:
    """The transitions, under given rules and bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        self.debounce = 2 * bounds.window + rules.debounce_beyond
        self.window = bounds.window + rules.window_beyond

    @property
    def start(self) -> State:
        """Just signed in; the primary is an old one."""
        record = Record(0, 0, None)
        return State(record, self.debounce, record, 0, 0, (0,), (), ())

    # --- the server ---

    def refresh(self, record: Record, hold: int, token: int) -> tuple[Record, bool]:
        """Steps 2 to 5: the new record, and whether the reply brings its refresh token."""
        rules, current = self.rules, record.generation
        holding = hold < self.debounce
        if token > current:
            if not rules.adopt:
                raise Refused("UNAUTHORISED", token)
            return Record(token, 0, 0, record.proved), not rules.access_token_only
        if token == current:
            if record.handed < self.debounce or holding:
                confirmed = 0 if record.confirmed is None else record.confirmed
                return record._replace(confirmed=confirmed), not rules.access_token_only
            return Record(current + 1, 0, None, record.proved), True
        in_window = record.confirmed is None or record.confirmed <= self.window
        if token == current - 1 and (in_window or (holding and rules.hold_admits_parent)):
            return (record._replace(handed=0) if rules.rearm else record), True
        raise Refused("THEFT", token)

    def move(self, record: Record, hold: int, shown: int) -> Record | None:
        """The new record; None: the client has to refresh first, and nothing has changed."""
        if not record.proved and self.rules.move_wants_proof:
            return None
        in_window = record.confirmed is None or record.confirmed <= self.window
        if shown == record.generation and record.confirmed is None:
            record = record._replace(confirmed=0)
        elif shown != record.generation and not (shown == record.generation - 1 and in_window):
            return None
        return record._replace(handed=0) if self.rules.move_rearms else record

    def come_back(self, record: Record, hold: int, left_at: int) -> Record | None:
        """The new record; None: not yet, and nothing has changed."""
        if not record.proved:
            if hold < self.debounce and self.rules.return_waits:
                return None
            if record.handed <= self.bounds.window and self.rules.return_lets_arrive:
                return None
            if record.generation <= left_at and self.rules.return_goes_beyond:
                record = Record(left_at + 1, record.handed, None)
            record = record._replace(proved=hold >= self.debounce)
        return record._replace(handed=0) if self.rules.return_rearms else record

    def confirm(self, record: Record, generation: int) -> Record:
        """A gateway has seen the access token of a generation."""
        if generation == record.generation and record.confirmed is None:
            return record._replace(confirmed=0)
        if generation > record.generation and self.rules.adopt_by_confirmation:
            return Record(generation, 0, 0, record.proved)
        return record

    def first_refresh(self, hold: int) -> int:
        """Step 0: the hold begins with the first refresh that a new primary sees."""
        if hold != PENDING:
            return hold
        return 0 if self.rules.hold else self.debounce

    # --- the world ---

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next. Raises Refused where that is a refusal."""
        if len(state.requests) + len(state.replies) < self.bounds.messages:
            yield from self._send(state)
        for request in dict.fromkeys(state.requests):
            yield from self._arrive(state, request)
        for reply in dict.fromkeys(state.replies):
            yield from self._return(state, reply)
        for generation in state.seen:
            record = self.confirm(state.primary, generation)
            yield Event("a gateway confirms {}", generation), state._replace(primary=record)
        if self.bounds.undone:
            yield from self._fail_over(state)
        if all(message.age < self.bounds.window for message in state.requests + state.replies):
            yield Event("tick", 0), self._tick(state)

    def _send(self, state: State) -> Iterator[Step]:
        if state.away is not None:
            sent = Request(state.away, 0, returns=True)
            yield Event("ask to come back", 0), state._replace(requests=_with(state.requests, sent))
            return
        sent = Request(state.jar, 0)
        yield Event("send {}", state.jar), state._replace(requests=_with(state.requests, sent))
        if self.rules.acts:
            sent = Request(state.jar, 0, leaves=True)
            yield Event("ask to leave", 0), state._replace(requests=_with(state.requests, sent))
        if self.rules.moves:
            sent = Request(state.access, 0, moves=True)
            yield (
                Event("ask for a move with {}", state.access),
                state._replace(requests=_with(state.requests, sent)),
            )

    def _arrive(self, state: State, request: Request) -> Iterator[Step]:
        rest = _without(state.requests, request)
        yield Event("the request with {} is lost", request.generation), state._replace(requests=rest)
        hold = self.first_refresh(state.hold)
        if request.leaves:
            if state.primary.proved or not self.rules.leave_wants_proof:
                replies = _with(state.replies, Reply(state.primary.generation, True, 0, leaves=True))
                yield (
                    Event("let go at {}", state.primary.generation),
                    state._replace(hold=hold, requests=rest, replies=replies),
                )
            return
        if request.returns:
            back = self.come_back(state.primary, hold, request.generation)
            if back is not None:
                replies = _with(state.replies, Reply(back.generation, True, 0))
                yield (
                    Event("let back; it was left at {}", request.generation),
                    state._replace(primary=back, hold=hold, requests=rest, replies=replies),
                )
            elif hold != state.hold:
                yield Event("not yet let back", 0), state._replace(hold=hold, requests=rest)
            return
        if request.moves:
            moved = self.move(state.primary, hold, request.generation)
            if moved is not None:
                replies = _with(state.replies, Reply(moved.generation, True, 0))
                yield (
                    Event("moved with {}", request.generation),
                    state._replace(primary=moved, hold=hold, requests=rest, replies=replies),
                )
            return
        record, brings_token = self.refresh(state.primary, hold, request.generation)
        record = record._replace(proved=record.proved or hold >= self.debounce)
        reply = Reply(record.generation, brings_token, 0)
        yield (
            Event(f"refresh with {{}}: {_kind(reply)}", request.generation),
            state._replace(primary=record, hold=hold, requests=rest, replies=_with(state.replies, reply)),
        )

    def _return(self, state: State, reply: Reply) -> Iterator[Step]:
        rest = _without(state.replies, reply)
        yield Event(f"the reply with {_kind(reply)} {{}} is lost", reply.generation), state._replace(replies=rest)
        if reply.leaves:
            left = state._replace(replies=rest, jar=reply.generation, away=reply.generation)
            yield Event("away, from {}", reply.generation), left
            return
        yield (
            Event(f"{_kind(reply)} {{}} delivered", reply.generation),
            state._replace(
                replies=rest,
                jar=reply.generation if reply.brings_refresh_token else state.jar,
                away=None if reply.brings_refresh_token else state.away,
                access=reply.generation,
                seen=tuple(sorted({*state.seen, reply.generation})),
            ),
        )

    def _fail_over(self, state: State) -> Iterator[Step]:
        at = state.replica.generation
        yield Event("replicated", 0), state._replace(replica=state.primary)
        yield (
            Event("FAILOVER, back to {}", at),
            state._replace(primary=state.replica._replace(proved=self._trusts), hold=PENDING),
        )
        if state.hold == PENDING:
            yield Event("another session is refreshed", 0), state._replace(hold=self.first_refresh(state.hold))

    @property
    def _trusts(self) -> bool:
        """Whether it is of no consequence what a new primary knows: nothing is searched that asks for it."""
        return not self.rules.moves and not self.rules.acts

    def _tick(self, state: State) -> State:
        return state._replace(
            primary=self._aged(state.primary),
            hold=state.hold if state.hold == PENDING else min(state.hold + 1, self.debounce),
            replica=self._aged(state.replica),
            requests=tuple(request._replace(age=request.age + 1) for request in state.requests),
            replies=tuple(reply._replace(age=reply.age + 1) for reply in state.replies),
        )

    def _aged(self, record: Record) -> Record:
        confirmed = None if record.confirmed is None else min(record.confirmed + 1, self.window + 1)
        return record._replace(handed=min(record.handed + 1, self.debounce), confirmed=confirmed)

    # --- the search ---

    def within_bounds(self, state: State) -> bool:
        """Whether a failover now would undo no more than is allowed."""
        return not self.bounds.undone or state.primary.generation - state.replica.generation <= self.bounds.undone

    def canonical(self, state: State) -> State:
        """The state that stands for all those that the future cannot tell from it; its primary is at generation 0."""
        by = state.primary.generation
        replica = state.replica if self.bounds.undone else state.primary
        # No primary will ever be so far back that it heeds an older confirmation.
        oldest = min(by, replica.generation)
        return State(
            state.primary._replace(generation=0),
            state.hold,
            replica._replace(generation=replica.generation - by, proved=True),
            state.jar - by,
            state.access - by if self.rules.moves else 0,
            tuple(generation - by for generation in state.seen if generation >= oldest),
            tuple(request._replace(generation=request.generation - by) for request in state.requests),
            tuple(reply._replace(generation=reply.generation - by) for reply in state.replies),
            None if state.away is None else state.away - by,
        )


class Arrival(NamedTuple):
    """How a state was first reached."""

    before: State
    event: Event
    #: Generations that the primary gained, or lost, on the way: ``before`` counts from another one.
    gained: int


def search(rules: Rules, bounds: Bounds) -> Result:
    """Visit every state that can be reached, the nearest first, up to the first refusal."""
    model = Model(rules, bounds)
    start = model.canonical(model.start)
    reached: dict[State, Arrival | None] = {start: None}
    queue, events = deque([start]), set()
    while queue:
        state = queue.popleft()
        try:
            for event, after in model.steps(state):
                events.add(event.words)
                if model.within_bounds(after):
                    gained, after = after.primary.generation, model.canonical(after)
                    if after not in reached:
                        reached[after] = Arrival(state, event, gained)
                        queue.append(after)
        except Refused as refusal:
            return Result(len(reached), _story(reached, state, refusal.event), frozenset(events))
    return Result(len(reached), (), frozenset(events))


def _story(reached: dict[State, Arrival | None], state: State, last: Event) -> tuple[str, ...]:
    """The events that lead to a state, and the one after it, with generations counted from the sign-in."""
    arrivals: list[Arrival] = []
    while (arrival := reached[state]) is not None:
        arrivals.append(arrival)
        state = arrival.before
    lines, generation = [], 0
    for arrival in reversed(arrivals):
        lines.append(_line(arrival.event, generation))
        generation += arrival.gained
    return (*lines, _line(last, generation))


def _line(event: Event, counted_from: int) -> str:
    return event.words.format(event.generation + counted_from)


def _with(messages: tuple[M, ...], message: M) -> tuple[M, ...]:
    return tuple(sorted([*messages, message]))


def _without(messages: tuple[M, ...], message: M) -> tuple[M, ...]:
    at = messages.index(message)
    return messages[:at] + messages[at + 1 :]


def _kind(reply: Reply) -> str:
    if reply.leaves:
        return "another session at"
    return "both tokens" if reply.brings_refresh_token else "access token only"


#: Each rule left out, and the bounds in which that suffices to throw an honest client out; None: it never does.
ABLATIONS: dict[str, tuple[Rules, Bounds | None]] = {
    "the reply inside the debounce brings the refresh token": (Rules(access_token_only=False), Bounds(1, 2)),
    "a debounce of 2W": (Rules(debounce_beyond=0), Bounds(1, 2)),
    "an exchange window shorter than a message lives": (Rules(window_beyond=-1), Bounds(1, 2)),
    "no re-arming on redelivery": (Rules(rearm=False), Bounds(1, 2)),
    "no adoption": (Rules(adopt=False), Bounds(1, 2, 1)),
    "no hold": (Rules(hold=False), Bounds(1, 2, 1)),
    "the hold does not admit the parent": (Rules(hold_admits_parent=False), None),
    "no adoption by confirmation": (Rules(adopt_by_confirmation=False), None),
    "no re-arming on a move": (Rules(moves=True, move_rearms=False), Bounds(1, 2)),
    "a move on a new primary that has seen no refresh token": (
        Rules(moves=True, move_wants_proof=False),
        Bounds(1, 2, 1),
    ),
    "no re-arming on a return": (Rules(acts=True, return_rearms=False), Bounds(1, 2)),
    "a return to a new primary that does not wait": (Rules(acts=True, return_waits=False), Bounds(1, 2, 1)),
    "a return to a new primary that goes not beyond": (Rules(acts=True, return_goes_beyond=False), Bounds(1, 2, 1)),
    "a return to a new primary while a token is under way": (
        Rules(acts=True, return_lets_arrive=False),
        Bounds(1, 2, 1),
    ),
    "leaving a new primary that has seen no refresh token": (
        Rules(acts=True, leave_wants_proof=False),
        Bounds(1, 2, 1),
    ),
}
#: Seconds.
SMALL = (Bounds(1, 2), Bounds(1, 3), Bounds(2, 3), Bounds(1, 2, 1), Bounds(1, 3, 1), Bounds(2, 2, 1))
#: Minutes, and up to 1 GB of memory.
LARGE = (
    *(Bounds(3, 4), Bounds(1, 4, 1), Bounds(2, 3, 1), Bounds(3, 3, 1), Bounds(2, 4, 1)),
    *(Bounds(3, 2, 2), Bounds(2, 3, 2), Bounds(2, 2, 3)),
)


def main() -> None:
    """Print the table: what every search found, and the shortest story for each rule left out."""
    bounds = (*SMALL, *(LARGE if "--large" in sys.argv[1:] else ()))
    for each in bounds:
        _report("all rules", Rules(), each)
    for name, (rules, enough) in ABLATIONS.items():
        for each in bounds if enough is None else (enough,):
            _report(name, rules, each)


def _report(name: str, rules: Rules, bounds: Bounds) -> None:
    begun = time.perf_counter()
    result = search(rules, bounds)
    verdict = f"refused in {len(result.trace)} events" if result.trace else "none is refused"
    print(f"{name}; {bounds}: {verdict}, {result.states:,} states, {time.perf_counter() - begun:.1f} s", flush=True)
    for line in result.trace:
        print(f"    {line}")


if __name__ == "__main__":
    main()
