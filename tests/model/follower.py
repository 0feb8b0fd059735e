"""Is what was revoked refused everywhere within the bound, whatever fails? An exhaustive search (revocation.md).

``python -m tests.model.follower`` prints what it finds, and the shortest story for each rule left out; ``--large`` goes
further and takes minutes.

The model is one shard. (A second one adds nothing: the only thing that shards share is when a follower counts as fresh,
which is when it is fresh for each.) There is the primary; what a failover would promote instead, which lags behind as
far as it likes; and perhaps an old primary that is cut off and still answers those who reach it. Whoever sends a
request reaches either, at any time. Users revoke ``x``, then ``y``. A follower starts, reads the tail, the sets in two
pieces, and polls. A poll is sent, executed and answered at any three moments, or given up at any time. The primary
dies, is cut off and replaced or comes back, or loses all its data.

Time goes in ticks. A follower is fresh until B ticks after the poll that last caught up was sent; ages stop counting
where no rule looks any further. A nonce that nothing names any more is used again, which keeps the search finite.
Requests other than polls are executed and answered in one step: nothing depends on when they were sent. Entries do not
expire here. What is limited is written in ``Bounds``.

Claims, of each state or event:

(a) What the primary has had for B ticks is refused by every fresh follower.
(b) A follower never forgets. Where it knows more than the primary, it either stands on an entry that the primary does
    not have, or has it noted down to be pushed back: so it will be.
(c) When a wait for propagation returns, no follower that is fresh lacks the entry, nor one that becomes fresh later
    while the entry is not rolled back.
(d) As long as nothing fails, no follower that is fresh is told that the history has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .search import Result, Wrong, search


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol; each may be left out to see what it is for."""

    # Starting.
    #: The tail of the log is read before the sets.
    tail_first: bool = True
    #: Sets are read from one server, or from the beginning again: to another one the cursor means nothing.
    one_server: bool = True
    #: They are read from the server of which the tail is.
    tail_server: bool = True
    #: The tail is read once more after the sets, and must be passed in the log: what a set showed may be rolled back.
    tail_again: bool = True

    # Polling.
    #: The entry stood on must bear the nonce that it had.
    nonce: bool = True
    #: The entry stood on must not be beyond the end of the log.
    stand: bool = True
    #: The entry stood on must not be before the log's beginning: what follows has to be dense.
    dense: bool = True
    #: A poll writes: a primary that may not write is not believed.
    fence: bool = True
    #: ``last_ok`` is when the poll was sent, not when it was answered.
    sending_time: bool = True
    #: ``last_ok`` is advanced by a poll that caught up only, not by a full page.
    caught_up: bool = True

    # Divergence.
    #: What is known stays known.
    keep: bool = True
    #: What the primary lacks is pushed back.
    push_back: bool = True
    #: What is known is compared after every start, also after one that was broken off before it stood anywhere.
    compare_always: bool = True
    #: What the process itself wrote (a revocation, or something pushed back) is not done until it is read in the log.
    own_until_read: bool = True

    # The server.
    #: A primary without enough replicas stops writing after the lag.
    min_replicas: bool = True
    #: A replica is promoted only when the old primary has stopped writing.
    late_promotion: bool = True
    #: The log's first entry has a nonce of its own, too.
    genesis_nonce: bool = True
    #: An entry is trimmed when its successor is old, not when it is old itself.
    trim_by_successor: bool = True

    # Waiting for propagation.
    #: The entry must still bear the nonce of the one who waits.
    wait_nonce: bool = True
    #: Asking is a write, too.
    wait_fence: bool = True
    #: Reports are believed only when this primary has been known as one for more than B.
    wait_hold: bool = True
    #: A silent follower counts until it has been silent for more than B.
    wait_silent: bool = True
    #: A poll that is told that history has changed does not report where it stood.
    report_checked: bool = True
    #: A forked child reports under a name of its own.
    fork_name: bool = True
    #: A forked child is stale and knows nothing.
    fork_blank: bool = True


@dataclass(frozen=True)
class Bounds:
    """How far the search goes."""

    #: B in ticks.
    staleness: int = 1
    #: Ticks for which a primary that is cut off goes on writing.
    lag: int = 1
    #: How often something fails: the primary dies, is cut off, or is emptied.
    faults: int = 1
    #: Revocations by users.
    entries: int = 1
    #: The log's highest sequence number; the first entry has 1.
    log: int = 3
    #: Entries that a poll returns at most.
    page: int = 2
    #: Followers at the start.
    followers: int = 1
    #: The entry that is waited for.
    wait: str | None = None
    #: Log entries that a follower remembers, to go on from what two histories have in common. 0: it starts again.
    remembered: int = 0
    #: Whether a poll that was given up may still be executed, at any time.
    late: bool = False
    #: How often a follower forks.
    forks: int = 0
    #: Whether the log is trimmed.
    trim: bool = False
    #: Ticks beyond B within which claim (a) is to hold.
    slack: int = 0
    #: Whether claim (b) is looked at.
    losses: bool = True

    def __str__(self) -> str:
        parts = [
            f"B = {self.staleness}, lag {self.lag}",
            f"{self.faults} fault{'s' * (self.faults != 1)}",
            f"{self.entries} revocation{'s' * (self.entries != 1)}",
            f"log up to {self.log}, pages of {self.page}",
            *([f"{self.followers} followers"] if self.followers > 1 else []),
            *([f"a wait for {self.wait}"] if self.wait else []),
            *([f"{self.remembered} entries remembered"] if self.remembered else []),
            *(["late polls"] if self.late else []),
            *([f"{self.forks} fork"] if self.forks else []),
            *(["trimming"] if self.trim else []),
            *([f"bound B + {self.slack}"] if self.slack else []),
            *([] if self.losses else ["without claim (b)"]),
        ]
        return ", ".join(parts)


class Item(NamedTuple):
    """An entry of the log."""

    nonce: int
    entry: str
    #: Ticks; counted only where the log is trimmed.
    age: int


class Position(NamedTuple):
    seq: int
    nonce: int


class Applied(NamedTuple):
    """An entry of the log that a follower has read, or the one that it began at, of which it knows the place only."""

    at: Position
    entry: str | None


class Report(NamedTuple):
    """Where a follower said it stood, and when."""

    name: str
    seq: int
    age: int


class Data(NamedTuple):
    """What one server has."""

    #: The sequence number of the log's first entry.
    first: int
    log: tuple[Item, ...]
    #: The sets. That the record is deleted is part of the same script, so a revoked session's record is gone, too.
    sets: frozenset[str]
    reports: tuple[Report, ...]
    #: Ticks since this primary was first known as one; PENDING: nobody has looked yet.
    known_for: int

    @property
    def tail(self) -> Position:
        return Position(self.first + len(self.log) - 1, self.log[-1].nonce)

    def item(self, seq: int) -> Item | None:
        return self.log[seq - self.first] if 0 <= seq - self.first < len(self.log) else None

    def has(self, at: Position) -> bool:
        item = self.item(at.seq)
        return item is not None and item.nonce == at.nonce


class Server(NamedTuple):
    """A server that takes itself for the primary."""

    name: int
    data: Data
    #: Ticks since it was cut off.
    cut: int | None


class Reply(NamedTuple):
    diverged: bool
    #: The sequence number of the first item.
    first: int
    items: tuple[Item, ...]


class Poll(NamedTuple):
    #: Ticks since it was sent.
    age: int
    #: What was the follower's own at that time.
    own: frozenset[str]
    reply: Reply | None


class Scan(NamedTuple):
    """A bootstrap under way."""

    at: Position | None
    server: int | None
    pieces: int
    found: frozenset[str]


class Follower(NamedTuple):
    name: str
    knows: frozenset[str]
    #: None: it has to start, or start again.
    at: Position | None
    scan: Scan | None
    #: The tail after the sets, until it is passed.
    beyond: Position | None
    #: Ticks since ``last_ok``.
    age: int
    poll: Poll | None
    #: Written by this process, not read in the log yet.
    own: frozenset[str]
    #: To be pushed back.
    lacking: frozenset[str]
    #: A poll that was given up, and may be executed at any time.
    late: Position | None
    #: Whether what is known will be compared with what is found.
    compares: bool
    #: The last entries read, where they are remembered. Without ``at``: it has to ask from where it can go on.
    path: tuple[Applied, ...]


class State(NamedTuple):
    primary: Server
    #: What a failover would promote.
    replica: Data
    old: Server | None
    followers: tuple[Follower, ...]
    #: How many of the users' revocations were made.
    revoked: int
    #: For each revocation, the ticks for which the primary has had it; None: it has not.
    since: tuple[int | None, ...]
    #: Where the entry is for which somebody waits.
    wait: Position | None
    #: Whether that wait has returned and the entry was not rolled back since.
    promised: bool
    #: Faults and forks that may still happen.
    faults: int
    forks: int


PENDING = -1
ENTRIES = ("x", "y", "z")
NOTHING: frozenset[str] = frozenset()
#: To a genesis entry without a nonce of its own.
ALWAYS = 0
Step = tuple[str, State]


class Model:
    """The transitions, under given rules and bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        #: An age at which a follower is stale, and a report forgotten.
        self.stale = bounds.staleness + 1
        #: An age at which an entry is old: no fresh follower still lacks it.
        self.old = bounds.staleness + 1

    @property
    def start(self) -> State:
        """An empty shard; the followers have not started."""
        log = (Item(ALWAYS, "genesis", self.old if self.bounds.trim else 0),)
        data = Data(1, log, NOTHING, (), self.stale)
        names = "FGH"[: self.bounds.followers]
        return State(
            primary=Server(0, data, None),
            replica=data,
            old=None,
            followers=tuple(self._newborn(name) for name in names),
            revoked=0,
            since=(None,) * self.bounds.entries,
            wait=None,
            promised=False,
            faults=self.bounds.faults,
            forks=self.bounds.forks,
        )

    def _newborn(self, name: str) -> Follower:
        return Follower(
            name=name,
            knows=NOTHING,
            at=None,
            scan=None,
            beyond=None,
            age=self.stale,
            poll=None,
            own=NOTHING,
            lacking=NOTHING,
            late=None,
            compares=self.rules.compare_always,
            path=(),
        )

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next. Raises Wrong where a claim does not hold."""
        for event, after in self._events(state):
            yield event, after if after.primary is state.primary else self._settled(after)

    def _events(self, state: State) -> Iterator[Step]:
        yield from self._users(state)
        for index in range(len(state.followers)):
            yield from self._starting(state, index)
            yield from self._polling(state, index)
            yield from self._pushing(state, index)
            if state.forks:
                yield self._fork(state, index)
        yield from self._faults(state)
        if self.bounds.wait:
            yield from self._waiting(state)
        yield "tick", self._tick(state)

    # --- the server's scripts ---

    def _servers(self, state: State) -> Iterator[tuple[str, Server]]:
        """Whom a request may reach."""
        if state.old is None:
            yield "the primary", state.primary
        else:
            yield "the new primary", state.primary
            yield "the old primary", state.old

    def _writable(self, server: Server) -> bool:
        return server.cut is None or server.cut <= self.bounds.lag or not self.rules.min_replicas

    def _with(self, state: State, server: Server, data: Data) -> State:
        """The state after a script has changed a server's data."""
        if server is state.primary:
            return state._replace(primary=server._replace(data=data))
        return state._replace(old=server._replace(data=data))

    def _write(self, state: State, data: Data, entry: str) -> Data | None:
        """blacklist.lua: into the set and onto the log; None where the search is not to go on."""
        data = self._begun(state, data)
        tail = data.tail
        if tail.seq >= self.bounds.log:
            return None
        log = [*data.log, Item(self._nonce(state, data), entry, 0)]
        first = data.first
        if self.bounds.trim:
            while len(log) > 1 and log[1 if self.rules.trim_by_successor else 0].age >= self.old:
                log, first = log[1:], first + 1
        return data._replace(first=first, log=tuple(log), sets=data.sets | {entry})

    def _begun(self, state: State, data: Data) -> Data:
        """log.lua: a log has a first entry."""
        if data.log:
            return data
        nonce = self._nonce(state, data) if self.rules.genesis_nonce else ALWAYS
        return data._replace(first=1, log=(Item(nonce, "genesis", 0),))

    def _nonce(self, state: State, data: Data) -> int:
        """One that nothing names."""
        named = {ALWAYS} | {item.nonce for item in data.log + state.primary.data.log + state.replica.log}
        if state.old is not None:
            named |= {item.nonce for item in state.old.data.log}
        positions = [state.wait]
        for follower in state.followers:
            positions += [follower.at, follower.beyond, follower.late]
            positions += [applied.at for applied in follower.path]
            positions.append(follower.scan.at if follower.scan else None)
            if follower.poll and follower.poll.reply:
                named |= {item.nonce for item in follower.poll.reply.items}
        named |= {at.nonce for at in positions if at is not None}
        return min(number for number in range(1, len(named) + 2) if number not in named)

    def _polled(self, data: Data, name: str, at: Position) -> tuple[Data, Reply]:
        """follow_poll.lua."""
        rules, item = self.rules, data.item(at.seq)
        if item is not None:
            diverged = rules.nonce and item.nonce != at.nonce
        else:
            diverged = rules.dense if data.log and at.seq < data.first else rules.stand
        first = max(at.seq + 1, data.first)
        items = () if diverged else data.log[first - data.first :][: self.bounds.page]
        if self.bounds.wait:
            name = name if self.rules.fork_name else name[0]
            seq = 0 if diverged and rules.report_checked else at.seq
            others = [report for report in data.reports if report.name != name]
            data = data._replace(reports=tuple(sorted([*others, Report(name, seq, 0)])))
        return data, Reply(diverged, first if items else 0, items)

    # --- users ---

    def _users(self, state: State) -> Iterator[Step]:
        if state.revoked == self.bounds.entries:
            return
        entry = ENTRIES[state.revoked]
        for where, server in self._servers(state):
            if not self._writable(server):
                continue
            data = self._write(state, server.data, entry)
            if data is None:
                continue
            after = self._with(state, server, data)._replace(revoked=state.revoked + 1)
            if self.bounds.wait == entry:
                yield f"{entry} is revoked on {where}, and waited for", after._replace(wait=data.tail)
                continue
            yield f"{entry} is revoked on {where}", after
            if self.bounds.wait:
                continue
            for index, follower in enumerate(state.followers):
                own = follower._replace(knows=follower.knows | {entry}, own=self._owned(follower, entry))
                yield f"{entry} is revoked on {where} by {follower.name}'s process", _put(after, index, own)

    def _owned(self, follower: Follower, entry: str) -> frozenset[str]:
        return follower.own | {entry} if self.rules.own_until_read else follower.own

    def _waiting(self, state: State) -> Iterator[Step]:
        """Whoever waits asks whether all followers have the entry; others' scripts, too, find a primary to be new."""
        entry = self.bounds.wait
        for where, server in self._servers(state):
            if server.data.known_for == PENDING:
                yield f"{where} is found to be new", self._with(state, server, server.data._replace(known_for=0))
            if state.wait is None:
                continue
            if self.rules.wait_fence and not self._writable(server):
                continue
            data = server.data
            item = data.item(state.wait.seq)
            there = item is not None and (item.nonce == state.wait.nonce or not self.rules.wait_nonce)
            held = self.rules.wait_hold and data.known_for < self.stale
            silent = self.stale if self.rules.wait_silent else self.stale - 1
            behind = any(report.seq < state.wait.seq and report.age < silent for report in data.reports)
            if not there or held or behind:
                continue  # the answer is no
            event = f"{where} is asked whether {entry} is everywhere: yes"
            for follower in state.followers:
                if follower.age < self.stale and entry not in follower.knows:
                    raise Wrong(f"{event}, but {follower.name} is fresh and does not know it")
            yield event, state._replace(wait=None, promised=True)

    # --- a follower ---

    def _starting(self, state: State, index: int) -> Iterator[Step]:
        """The tail, then the sets in two pieces, then the tail again."""
        follower = state.followers[index]
        if follower.at is not None or follower.poll is not None:
            return
        if follower.path:
            yield from self._resuming(state, index)
            return
        scan = follower.scan or Scan(None, None, 0, NOTHING)
        for where, server in self._servers(state):
            if scan.at is None and (self.rules.tail_first or scan.pieces == 2):
                if self._writable(server) or not self.rules.fence:
                    data = self._begun(state, server.data)
                    begun = scan._replace(at=data.tail, server=server.name if self.rules.tail_server else scan.server)
                    yield (
                        f"{follower.name} reads the tail of {where}",
                        self._scanned(self._with(state, server, data), index, begun, None),
                    )
            elif scan.server not in (None, server.name) and self.rules.one_server:
                yield (
                    f"{follower.name} finds another server and starts again",
                    _put(state, index, follower._replace(scan=None)),
                )
            else:
                yield from self._read_piece(state, index, scan, where, server)

    def _read_piece(self, state: State, index: int, scan: Scan, where: str, server: Server) -> Iterator[Step]:
        last = scan.pieces == 1
        if last and self.rules.tail_again and not self._writable(server):
            return
        # Which piece an entry is in depends on the server's hash function.
        piece = {entry for entry in server.data.sets if (ENTRIES.index(entry) + server.name) % 2 != scan.pieces}
        scan = scan._replace(server=server.name, pieces=scan.pieces + 1, found=scan.found | piece)
        data = self._begun(state, server.data) if last else server.data
        yield (
            f"{state.followers[index].name} reads the sets of {where}, {'second' if last else 'first'} piece",
            self._scanned(self._with(state, server, data), index, scan, data.tail if last else None),
        )

    def _resuming(self, state: State, index: int) -> Iterator[Step]:
        """follow_resume.lua: from the newest entry that both have; what came after it is lost."""
        follower = state.followers[index]
        for where, server in self._servers(state):
            common = [applied for applied in follower.path if server.data.has(applied.at)]
            if not common:
                again = follower._replace(path=())
                yield f"{follower.name} finds nothing in common with {where}", _put(state, index, again)
                continue
            kept = follower.path[: follower.path.index(common[-1]) + 1]
            undone = {applied.entry for applied in follower.path[len(kept) :] if applied.entry}
            lacking = follower.lacking | undone | follower.own if self.rules.push_back else NOTHING
            resumed = follower._replace(at=common[-1].at, path=kept, lacking=lacking)
            yield f"{follower.name} goes on from what it has in common with {where}", _put(state, index, resumed)

    def _scanned(self, state: State, index: int, scan: Scan, tail: Position | None) -> State:
        follower = state.followers[index]
        follower = follower._replace(knows=follower.knows | scan.found, scan=scan)
        if scan.at is not None and scan.pieces == 2:
            follower = follower._replace(
                at=scan.at,
                scan=None,
                beyond=tail if self.rules.tail_again and tail != scan.at else None,
                own=follower.own - scan.found,
                path=(Applied(scan.at, None),) if self.bounds.remembered else (),
                lacking=follower.knows - scan.found if self.rules.push_back and follower.compares else NOTHING,
            )
        return _put(state, index, follower)

    def _polling(self, state: State, index: int) -> Iterator[Step]:
        follower = state.followers[index]
        name, poll = follower.name, follower.poll
        if follower.late is not None:
            for where, server in self._servers(state):
                if self._writable(server) or not self.rules.fence:
                    data, _ = self._polled(server.data, name, follower.late)
                    after = _put(self._with(state, server, data), index, follower._replace(late=None))
                    yield f"{name}'s poll that was given up reaches {where}", after
        if follower.at is None:
            return
        if poll is None:
            yield f"{name} sends a poll", _put(state, index, follower._replace(poll=Poll(0, follower.own, None)))
            return
        late = follower.at if self.bounds.late and poll.reply is None and follower.late is None else follower.late
        yield f"{name}'s poll is given up", _put(state, index, follower._replace(poll=None, late=late))
        if poll.reply is not None:
            yield self._arrived(state, index, poll, poll.reply)
            return
        for where, server in self._servers(state):
            if not (self._writable(server) or not self.rules.fence):
                continue
            data, reply = self._polled(server.data, name, follower.at)
            if reply.diverged and not self.bounds.faults and follower.age < self.stale:
                raise Wrong(f"{name}'s poll reaches {where}: history has changed, though nothing failed")
            asked = follower._replace(poll=poll._replace(reply=reply))
            yield f"{name}'s poll reaches {where}: {_said(reply)}", _put(self._with(state, server, data), index, asked)

    def _arrived(self, state: State, index: int, poll: Poll, reply: Reply) -> Step:
        follower = state.followers[index]
        assert follower.at is not None
        event = f"{follower.name} is answered: {_said(reply)}"
        if reply.diverged:
            if follower.beyond:
                follower = follower._replace(path=())
            return event, _put(state, index, self._astray(event, follower))
        read = frozenset(item.entry for item in reply.items) - {"genesis"}
        at, beyond, path = follower.at, follower.beyond, follower.path
        for seq, item in enumerate(reply.items, reply.first):
            at = Position(seq, item.nonce)
            path = (*path, Applied(at, item.entry))[-self.bounds.remembered :] if self.bounds.remembered else ()
            if beyond == at:
                beyond = None
        follower = follower._replace(
            knows=follower.knows | read,
            at=at,
            beyond=beyond,
            path=path,
            own=follower.own - read,
            lacking=follower.lacking - read,
        )
        full = len(reply.items) == self.bounds.page
        if full:
            follower = follower._replace(poll=poll._replace(reply=None))
        elif beyond is not None:
            # Nothing is amiss with where it stands: it has to compare all that it knows.
            return event, _put(state, index, self._astray(event, follower._replace(path=())))
        else:
            unread = poll.own & follower.own
            follower = follower._replace(poll=None, own=follower.own - unread, lacking=follower.lacking | unread)
        if not full or not self.rules.caught_up:
            age = poll.age if self.rules.sending_time else 0
            follower = follower._replace(age=min(follower.age, age))
        return event, _put(state, index, follower)

    def _astray(self, event: str, follower: Follower) -> Follower:
        """It stands on what the primary does not have, and starts again."""
        if not self.rules.keep and follower.knows:
            raise Wrong(f"{event}, and forgets {_names(follower.knows)}")
        lacking = follower.lacking if follower.path else NOTHING
        return follower._replace(at=None, beyond=None, poll=None, lacking=lacking, compares=True)

    def _pushing(self, state: State, index: int) -> Iterator[Step]:
        follower = state.followers[index]
        if not follower.lacking or follower.at is None:
            return
        entry = min(follower.lacking)
        pushed = follower._replace(lacking=follower.lacking - {entry}, own=self._owned(follower, entry))
        for where, server in self._servers(state):
            if not self._writable(server):
                continue
            # push.lua: what another follower has brought already is not written again.
            data = server.data if entry in server.data.sets else self._write(state, server.data, entry)
            if data is not None:
                yield (
                    f"{follower.name} pushes {entry} back to {where}",
                    _put(self._with(state, server, data), index, pushed),
                )

    def _fork(self, state: State, index: int) -> Step:
        parent = state.followers[index]
        name = f"{parent.name}'"
        child = self._newborn(name)
        if not self.rules.fork_blank:
            child = parent._replace(name=name, scan=None, poll=None, late=None)
        return f"{parent.name} forks", state._replace(followers=(*state.followers, child), forks=state.forks - 1)

    # --- faults ---

    def _faults(self, state: State) -> Iterator[Step]:
        primary, old = state.primary, state.old
        if primary.cut is None and state.faults and state.replica != primary.data:
            yield "replicated", state._replace(replica=primary.data)
        if state.faults:
            rest = state._replace(faults=state.faults - 1)
            yield "the primary dies: FAILOVER", self._promoted(rest, old)
            empty = Data(1, (), NOTHING, (), PENDING)
            yield "the primary loses all its data", rest._replace(primary=primary._replace(data=empty))
            if primary.cut is None and old is None:
                yield "the primary is cut off", rest._replace(primary=primary._replace(cut=0))
        if primary.cut is not None:
            yield "the primary is back", state._replace(primary=primary._replace(cut=None))
            if primary.cut > self.bounds.lag or not self.rules.late_promotion:
                yield "FAILOVER beside the old primary", self._promoted(state, primary)
        if old is not None:
            yield "the old primary is gone", state._replace(old=None)

    def _promoted(self, state: State, old: Server | None) -> State:
        data = state.replica._replace(known_for=PENDING)
        return state._replace(primary=Server((state.primary.name + 1) % 3, data, None), replica=data, old=old)

    # --- time ---

    def _tick(self, state: State) -> State:
        return state._replace(
            primary=self._aged_server(state.primary),
            replica=self._aged_data(state.replica),
            old=None if state.old is None else self._aged_server(state.old),
            followers=tuple(self._aged_follower(follower) for follower in state.followers),
            since=tuple(None if age is None else self._aged(age + 1) for age in state.since),
        )

    def _aged(self, age: int) -> int:
        return min(age, self.stale + self.bounds.slack)

    def _aged_server(self, server: Server) -> Server:
        cut = None if server.cut is None else min(server.cut + 1, self.bounds.lag + 1)
        return Server(server.name, self._aged_data(server.data), cut)

    def _aged_data(self, data: Data) -> Data:
        if self.bounds.trim:
            data = data._replace(log=tuple(item._replace(age=min(item.age + 1, self.old)) for item in data.log))
        if self.bounds.wait:
            reports = tuple(report._replace(age=min(report.age + 1, self.stale)) for report in data.reports)
            known_for = data.known_for if data.known_for == PENDING else min(data.known_for + 1, self.stale)
            data = data._replace(reports=reports, known_for=known_for)
        return data

    def _aged_follower(self, follower: Follower) -> Follower:
        poll = follower.poll
        return follower._replace(
            age=min(follower.age + 1, self.stale),
            poll=None if poll is None else poll._replace(age=min(poll.age + 1, self.stale)),
        )

    # --- claims ---

    def _settled(self, state: State) -> State:
        """What follows from a change of the primary."""
        primary = state.primary
        since = tuple(
            (age or 0) if entry in primary.data.sets else None for entry, age in zip(ENTRIES, state.since, strict=False)
        )
        promised = state.promised and self.bounds.wait in primary.data.sets
        # Where nobody will be promoted any more, it does not matter who would be.
        final = not state.faults and primary.cut is None
        replica = primary.data if final else state.replica
        return state._replace(replica=replica, since=since, promised=promised)

    def fault(self, state: State) -> str | None:
        """What is wrong with a state, or None."""
        for follower in state.followers:
            name = follower.name
            if follower.age < self.stale:
                for entry, since in zip(ENTRIES, state.since, strict=False):
                    if entry in follower.knows or since is None:
                        continue
                    if since > self.bounds.staleness + self.bounds.slack:
                        return f"{entry} was revoked more than B ago; {name} is fresh and does not know it"
                    if entry == self.bounds.wait and state.promised:
                        return f"{entry} was said to be everywhere; {name} is fresh and does not know it"
            lost = follower.knows - state.primary.data.sets
            if lost and self.bounds.losses and self._content(state, follower):
                return f"the primary has lost {_names(lost)}; {name} knows it and will not notice"
        return None

    def _content(self, state: State, follower: Follower) -> bool:
        """Whether a follower will go on following the primary's log and has nothing to push back."""
        if follower.at is None or follower.beyond or follower.lacking or follower.own or follower.poll:
            return False
        _, reply = self._polled(state.primary.data, follower.name, follower.at)
        return not reply.diverged


def _put(state: State, index: int, follower: Follower) -> State:
    followers = list(state.followers)
    followers[index] = follower
    return state._replace(followers=tuple(followers))


def _said(reply: Reply) -> str:
    if reply.diverged:
        return "history has changed"
    return ", ".join(item.entry for item in reply.items) or "nothing new"


def _names(entries: frozenset[str]) -> str:
    return " and ".join(sorted(entries))


def explore(rules: Rules, bounds: Bounds) -> Result[State]:
    """Visit every state within bounds, up to the first that is wrong."""
    model = Model(rules, bounds)
    return search(model.start, model.steps, model.fault)


#: Each rule left out, and the bounds in which that suffices to break a claim.
ABLATIONS: dict[str, tuple[Rules, Bounds]] = {
    "the sets are read before the tail": (Rules(tail_first=False, tail_again=False), Bounds(faults=0)),
    "a scan goes on at another server": (Rules(one_server=False), Bounds()),
    "the tail is not read again after the sets": (Rules(tail_again=False), Bounds()),
    "nor are the sets of the tail's server": (Rules(tail_again=False, tail_server=False), Bounds(losses=False)),
    "nonces are not compared": (Rules(nonce=False), Bounds(entries=2)),
    "a follower may stand beyond the end of the log": (Rules(stand=False), Bounds()),
    "what follows need not be dense": (Rules(dense=False), Bounds(faults=0, entries=3, log=4, page=3, trim=True)),
    "a poll does not write": (Rules(fence=False), Bounds()),
    "last_ok is when the answer came": (Rules(sending_time=False), Bounds()),
    "a full page counts as caught up": (Rules(caught_up=False), Bounds(faults=0, entries=2, page=1)),
    "a divergence forgets": (Rules(keep=False), Bounds()),
    "nothing is pushed back": (Rules(push_back=False), Bounds()),
    "only a divergence compares": (Rules(compare_always=False), Bounds(entries=2)),
    "what the process wrote itself is done when acknowledged": (Rules(own_until_read=False), Bounds()),
    "min-replicas is not set": (Rules(min_replicas=False), Bounds()),
    "a promotion does not wait for the lag": (Rules(late_promotion=False), Bounds()),
    "every log begins alike": (Rules(genesis_nonce=False), Bounds(entries=2)),
    "an entry is trimmed when it is old": (Rules(trim_by_successor=False), Bounds(faults=0, trim=True)),
    "a wait does not compare nonces": (Rules(wait_nonce=False), Bounds(entries=2, log=2, wait="x")),
    "a wait does not write": (Rules(wait_fence=False), Bounds(log=2, wait="x")),
    "a wait believes a new primary's reports": (Rules(wait_hold=False), Bounds(log=2, wait="x")),
    "a wait takes a silent follower for gone too soon": (Rules(wait_silent=False), Bounds(log=2, wait="x")),
    "a diverged poll reports where it stood": (
        Rules(report_checked=False),
        Bounds(entries=2, log=2, wait="y", late=True),
    ),
    "a forked child keeps its parent's name": (Rules(fork_name=False), Bounds(faults=0, log=2, wait="x", forks=1)),
    "a forked child is fresh": (Rules(fork_blank=False), Bounds(faults=0, log=2, wait="x", forks=1)),
}
#: The same rules, each of which makes up for the lack of the other as far as claim (a) goes.
SPARE: dict[str, tuple[Rules, Bounds]] = {
    "the sets may be of another server than the tail": (Rules(tail_server=False), Bounds()),
    "the tail is not read again; claim (a)": (Rules(tail_again=False), Bounds(losses=False)),
}
#: Seconds.
SMALL = (
    Bounds(),
    Bounds(remembered=3),
    Bounds(faults=0, entries=2, page=1),
    Bounds(faults=0, entries=2, trim=True),
    Bounds(log=2, wait="x"),
)
#: Minutes, and 1 GB of memory.
LARGE = (
    Bounds(faults=2, remembered=3),
    Bounds(entries=2, remembered=3),
    Bounds(entries=2),
    Bounds(entries=2, page=1),
    Bounds(staleness=2, lag=2),
    Bounds(faults=2),
    Bounds(entries=2, log=4),
    Bounds(followers=2),
    Bounds(faults=0, entries=3, log=4, page=1, trim=True),
    Bounds(entries=2, log=2, wait="x"),
    Bounds(entries=2, log=2, wait="y", late=True),
    Bounds(staleness=2, log=2, wait="x"),
    Bounds(faults=2, log=2, wait="x"),
    Bounds(faults=0, log=2, wait="x", forks=1),
)


def main() -> None:
    """Print the table: what every search found, and the shortest story for each rule left out."""
    for bounds in (*SMALL, *(LARGE if "--large" in sys.argv[1:] else ())):
        _report("all rules", Rules(), bounds)
    _report("a promotion does not wait for the lag", Rules(late_promotion=False), Bounds(slack=1))
    for name, (rules, bounds) in (SPARE | ABLATIONS).items():
        _report(name, rules, bounds)


def _report(name: str, rules: Rules, bounds: Bounds) -> None:
    result = explore(rules, bounds)
    verdict = f"wrong after {len(result.trace) - 1} events" if result.trace else "all claims hold"
    print(f"{name}; {bounds}: {verdict}, {result.states:,} states, {result.seconds:.1f} s", flush=True)
    for line in result.trace:
        print(f"    {line}")


if __name__ == "__main__":
    main()
