"""The real scripts on a real store beside a model of them, through random lives of sessions (rotation.md section 4).

The model is a dictionary of what the store should hold, and the rules of rotation.md in Python. After every refresh the
verdict must be the model's, and so must the record be; and the invariants are asserted in their own words, from what
went over the wire, so that a mistake which model and script share is still seen:

- I1: of one session only the generations G and G-1 are accepted, and a generation has one token.
- I2: G does not decrease on one primary; once a generation was presented, G is at least that.
- I3: a browser with one jar, whose messages take less than W, is never told that it has no session, or of theft.
- I4: a token whose child was used more than W ago is theft, and an older one at once.
- I5: after theft or a revocation that was acknowledged by a replica, nothing is accepted, after failovers too.
- I7: the absolute expiry stays where it is, and no access token outlives it.
- I10: repeating a call within W succeeds again, with the same refresh token or with none.

Time goes in steps that are nowhere near a bound: an example may run for 100 s and no verdict depends on it. When one
fails, Hypothesis prints the steps that are left of it, and between them what happened.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

import pytest
from fix_stores import PATIENT
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from session_lab import Lab, Snapshot, generation, session_entry

from fastverify import Issued, TokenTheftDetected, TooManyRefreshes, Unauthorised, flows
from fastverify.store import Store, open_store

#: Seconds. Spans are multiples of STEP, and the bounds lie in between: 400 < W < 800 < D < 1200.
STEP, W = 400, 500
D = 2 * W + 1
IDLE, ABSOLUTE = 30_200, 75_200
#: Few, so that a storm is reached.
REDELIVERIES = 3
SHARDS = 2
USERS = ("ann", "ben", "eve")
TENANTS = ("public", "acme")


@dataclass
class Row:
    """What the store should hold of a session. Instants are on the model's clock."""

    created: int
    handed: int
    idle_until: int
    generation: int = 0
    confirmed: int | None = None
    redelivered: int = 0


@dataclass
class Request:
    """A refresh that a browser has sent."""

    token: str
    at: int


@dataclass
class Reply:
    """An answer on its way to a browser."""

    issued: Issued
    at: int


@dataclass(eq=False)
class Life:
    """One session as its clients saw it."""

    number: int
    issued: Issued
    user: str
    tenant: str
    tag: str
    #: One browser drives it, and nobody else has its tokens.
    honest: bool
    #: Every refresh token that was ever issued, by generation.
    tokens: dict[int, str]
    #: Generations whose access token has reached a client: it may be seen at any later time.
    arrived: list[int]
    #: The refresh token that the browser holds, and what is on the way.
    jar: str
    requests: list[Request] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    #: Generation -> when it was first seen to be used, on the present primary.
    used: dict[int, int] = field(default_factory=dict)
    #: G as it was last seen on the present primary.
    last_seen: int = 0
    #: When a token was last refreshed with success, and what it brought: None if nothing.
    successes: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    #: Nothing may ever be accepted again.
    over: bool = False

    def __str__(self) -> str:
        return f"session {self.number} ({'honest' if self.honest else 'stolen'})"


#: Chooses among sessions.
WHICH = st.integers(0, 5)
WAYS_TO_END = ("revoke", "revoke unseen", "replace", "all", "others", "all of a tenant")
#: Time before a refresh: none, within W, between W and D, beyond D.
STEPS = st.sampled_from((3, 0, 3, 1, 3, 2))


class Rotation(RuleBasedStateMachine):
    """See the module."""

    store: Store
    #: How often each verdict was reached, over all examples.
    reached: ClassVar[Counter[str]]

    def new_prefix(self) -> str:
        """A key prefix for one example."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(
            self.store,
            self.new_prefix(),
            exchange_seconds=W,
            refresh_token_lifetime=IDLE,
            absolute_lifetime=ABSOLUTE,
            access_token_lifetime=600,
            shards=SHARDS,
        )
        self.clock = 0
        self.lives: list[Life] = []
        tags = self.lab.authority.placement.tags
        #: Session number -> row, of each shard.
        self.rows: dict[str, dict[int, Row]] = {tag: {} for tag in tags}
        #: Until when each primary holds back; None: it is new, and no refresh has reached it yet.
        self.holds: dict[str, int | None] = dict.fromkeys(tags, 0)
        #: What a failover would bring back.
        self.replicas: dict[str, tuple[dict[int, Row], Snapshot]] = {}
        for tag in tags:
            self.copy_to_replica(tag)

    def teardown(self) -> None:
        """Whatever has happened since, a session that was over stayed so."""
        for life in self.lives:
            if life.over:
                for token in life.tokens.values():
                    assert self.refresh(life, token) == "gone", "I5"
        self.lab.close()

    # Few rules, each of many kinds: Hypothesis leaves out about half of the rules in an example.

    # --- sessions begin and end ---

    @initialize()
    def begin_two(self) -> None:
        self.begin("ann", "public", honest=True)
        self.begin("ann", "acme", honest=False)

    @rule(user=st.sampled_from(USERS), tenant=st.sampled_from(TENANTS), honest=st.booleans())
    def begin(self, user: str, tenant: str, honest: bool, previous: str | None = None) -> None:
        issued = self.lab.create(user, tenant=tenant, previous=previous)
        number, token, tag = len(self.lives), issued.refresh_token, self.lab.tag(issued)
        life = Life(number, issued, user, tenant, tag, honest, {0: token}, [0], token)
        note(f"{self.clock}: {life} of {user} begins")
        self.lives.append(life)
        self.begin_hold(tag)
        self.rows[tag][number] = Row(self.clock, self.clock, self.clock + IDLE)
        self.copy_to_replica(tag)  # a sign-in is acknowledged when a replica has it

    @rule(which=WHICH, how=st.sampled_from(WAYS_TO_END))
    def end_some(self, which: int, how: str) -> None:
        life = self.pick(which)
        handle = life.issued.session.handle
        if how.startswith("revoke"):
            assert self.lab.revoke(handle) == ([handle] if self.row(life) else [])
            self.end(life, durable=how == "revoke")
        elif how == "replace":
            self.begin(life.user, life.tenant, life.honest, previous=handle)
            self.end(life)
        else:
            tenant, spare = life.tenant if how == "all of a tenant" else None, life if how == "others" else None
            ours = [one for one in self.lives if one.user == life.user and self.row(one)]
            ended = [one for one in ours if tenant in (None, one.tenant) and one is not spare]
            told = self.lab.revoke_user(life.user, tenant=tenant, except_handle=handle if spare else None)
            assert sorted(told) == sorted(one.issued.session.handle for one in ended)
            for one in ended:
                self.end(one)

    # --- anybody presents anything ---

    @rule(which=WHICH, behind=st.lists(st.sampled_from((0, 0, 0, 1, 1, 2, 3)), min_size=1, max_size=4), steps=STEPS)
    def present(self, which: int, behind: list[int], steps: int) -> None:
        """Refresh with tokens that were issued, the newest or one so far behind it, time passing before each."""
        for each in behind:
            life = self.pick(which, honest=False)
            self.pass_time(steps)
            self.take(life, life.tokens[max(0, max(life.tokens) - each)])

    @rule(which=WHICH, back=st.integers(0, 3), times=st.integers(1, REDELIVERIES + 1))
    def repeat(self, which: int, back: int, times: int) -> None:
        """I10, where I4 does not say otherwise: a child that was confirmed longer than W ago."""
        life = self.pick(which, honest=False)
        for _ in range(times):
            row = self.row(life)
            closed = row is not None and row.confirmed is not None and self.clock > row.confirmed + W
            recent = [
                token
                for token, (at, _) in life.successes.items()
                if self.clock - at <= W and not (row and closed and generation(token, self.lab) < row.generation)
            ]
            if recent and row is not None:
                token = recent[back % len(recent)]
                brought = life.successes[token][1]
                again = self.take(life, token)
                if again != "busy":
                    assert isinstance(again, Issued), "I10: it succeeds again"
                    same = brought in (None, again.refresh_token)
                    assert same or not again.refresh_token_changed, "I10: with the same token, or none"

    def take(self, life: Life, token: str) -> Issued | str:
        outcome = self.refresh(life, token)
        if isinstance(outcome, Issued):
            life.arrived.append(generation(outcome.refresh_token, self.lab))
        return outcome

    # --- an honest browser ---

    @rule(which=WHICH, acts=st.lists(st.sampled_from(("send", "arrive", "answer", "lose", "tick")), min_size=1))
    def browse(self, which: int, acts: list[str]) -> None:
        """Tabs, and a server that renders for the same browser, refresh at once; messages overtake one another."""
        life = self.pick(which, honest=True)
        for act in acts:
            if act == "send" and len(life.requests) + len(life.replies) < 3:
                life.requests.append(Request(life.jar, self.clock))
            elif act == "arrive" and life.requests:
                self.serve(life, life.requests.pop(which % len(life.requests)).token)
            elif act == "answer" and life.replies:
                self.deliver(life, life.replies.pop(which % len(life.replies)).issued)
            elif act == "lose" and life.replies:
                life.replies.pop()
            elif act == "tick":
                self.pass_time(1)

    @rule(which=WHICH, steps=STEPS)
    def browse_in_peace(self, which: int, steps: int) -> None:
        """Time passes, a request goes out, and its answer arrives."""
        life = self.pick(which, honest=True)
        self.pass_time(steps)
        self.serve(life, life.jar)
        if life.replies:
            self.deliver(life, life.replies.pop().issued)

    def serve(self, life: Life, token: str) -> None:
        was_alive = self.row(life) is not None
        outcome = self.refresh(life, token)
        if isinstance(outcome, Issued):
            life.replies.append(Reply(outcome, self.clock))
        else:
            assert outcome == "busy" or (outcome == "gone" and not was_alive), "I3: no honest client is turned away"

    def deliver(self, life: Life, issued: Issued) -> None:
        note(f"{self.clock}: an answer reaches {life}")
        life.arrived.append(generation(issued.refresh_token, self.lab))
        if issued.refresh_token_changed:
            life.jar = issued.refresh_token

    @rule(which=WHICH, back=st.integers(1, 3))
    def confirm(self, which: int, back: int) -> None:
        """A gateway reports an access token that a client has used."""
        life = self.pick(which)
        row, used = self.row(life), life.arrived[-min(back, len(life.arrived))]
        if row is not None:
            note(f"{self.clock}: generation {used} of {life} is confirmed")
            self.lab.confirm(life.issued, used)
            life.used.setdefault(used, self.clock)
            if used > row.generation:
                row.generation, row.handed, row.confirmed = used, self.clock, self.clock
            elif used == row.generation and row.confirmed is None:
                row.confirmed = self.clock

    # --- the world ---

    @rule(steps=st.sampled_from((1, 1, 2, 3, 1, 1, 2, 1, 2, 70, 80)))
    def advance(self, steps: int) -> None:
        self.pass_time(steps)

    @rule(which=WHICH, what=st.sampled_from(("fail over", "replicate", "fail over", "restart")))
    def disturb(self, which: int, what: str) -> None:
        tag = self.pick(which).tag
        note(f"{self.clock}: {what}, {tag}")
        if what == "replicate":
            self.copy_to_replica(tag)
        elif what == "fail over":
            self.fail_over(tag)
        else:
            self.lab.fail_over(tags=[tag])
            self.holds[tag] = None
            self.lab.redis.script_flush()

    def fail_over(self, tag: str) -> None:
        """What the replica does not know is undone, and the new primary is seen to be new."""
        known, snapshot = self.replicas[tag]
        for life in (life for life in self.lives if life.tag == tag):
            life.used.clear()
            life.last_seen = 0
        self.lab.fail_over(snapshot, tags=[tag])
        self.rows[tag], self.holds[tag] = copy.deepcopy(known), None

    # --- what must hold at any time ---

    @invariant()
    def records_are_the_models(self) -> None:
        for life in self.lives:
            row, record = self.row(life), self.lab.record(life.issued)
            assert not (life.over and record), "I5: there is nothing left that could be accepted"
            if row is not None:
                assert int(record["G"]) == row.generation
                assert int(record["redelivered"]) == row.redelivered
                assert ("conf_at" in record) == (row.confirmed is not None)
                instants = {"handed_at": row.handed, "idle_exp": row.idle_until, "abs_exp": row.created + ABSOLUTE}
                if row.confirmed is not None:
                    instants["conf_at"] = row.confirmed
                for name, at in instants.items():  # I7 among them
                    age = (self.lab.now_ms() - int(record[name])) / 1000
                    assert abs(age - (self.clock - at)) < STEP / 4, name
                assert row.generation >= life.last_seen, "I2"
                life.last_seen = row.generation

    # --- how ---

    def pick(self, which: int, honest: bool | None = None) -> Life:
        """A session, one that is alive unless there is none or the choice falls on 5."""
        lives = [life for life in self.lives if honest in (None, life.honest)]
        alive = [life for life in lives if self.row(life) is not None]
        chosen = alive if alive and which != 5 else lives
        return chosen[-1 - which % len(chosen)]

    def row(self, life: Life) -> Row | None:
        """What the model knows of a session that is alive."""
        row = self.rows[life.tag].get(life.number)
        return None if row is None or self.clock >= row.idle_until else row

    def pass_time(self, steps: int) -> None:
        self.clock += steps * STEP
        self.lab.advance(steps * STEP)
        for life in self.lives:  # what is on the way for longer than W is lost
            life.requests = [request for request in life.requests if self.clock - request.at <= W]
            life.replies = [reply for reply in life.replies if self.clock - reply.at <= W]

    def begin_hold(self, tag: str) -> int:
        until = self.holds[tag]
        if until is None:
            until = self.holds[tag] = self.clock + D
        return until

    def end(self, life: Life, *, durable: bool = True) -> None:
        """A session is over; where a replica has acknowledged that, for ever."""
        note(f"{self.clock}: {life} is ended{'' if durable else ', and no replica knows'}")
        self.rows[life.tag].pop(life.number, None)
        life.successes.clear()
        assert session_entry(life.issued.session.handle) in self.lab.blacklisted(life.tag)
        if durable:
            life.over = True
            self.copy_to_replica(life.tag)

    def copy_to_replica(self, tag: str) -> None:
        ours = [life.issued for life in self.lives if life.tag == tag]
        self.replicas[tag] = copy.deepcopy(self.rows[tag]), self.lab.snapshot(*ours)

    def decide(self, row: Row, g: int, hold: int) -> str:
        """Steps 2 to 5 on the model."""
        if g > row.generation:
            row.generation, row.handed, row.confirmed = g, self.clock, self.clock
            return "adopted"
        if g == row.generation:
            if row.confirmed is None:
                row.confirmed = self.clock
            if self.clock - row.handed <= D or self.clock < hold:
                return "same"
            row.generation, row.handed, row.confirmed, row.redelivered = g + 1, self.clock, None, 0
            return "rotated"
        in_window = row.confirmed is None or self.clock <= row.confirmed + W
        if g == row.generation - 1 and (in_window or self.clock < hold):
            redelivered = 1 if self.clock - row.handed > D else row.redelivered + 1
            if redelivered > REDELIVERIES:
                return "busy"
            row.redelivered, row.handed = redelivered, self.clock
            return "again"
        return "one_behind" if g == row.generation - 1 else "older"

    def refresh(self, life: Life, token: str) -> Issued | str:
        """Refresh, compare with the model, and assert what was promised. The tokens, or why there are none."""
        # A refresh that finds no record ends with its first trip, and is not what a new primary waits for.
        hold = self.begin_hold(life.tag) if self.lab.record(life.issued) else 0
        g, row = generation(token, self.lab), self.row(life)
        before = row.generation if row else None
        expected = "gone" if row is None else self.decide(row, g, hold)
        note(f"{self.clock}: {life} refreshes with {g}, G is {before}: {expected} is expected")
        self.reached[expected] += 1
        try:
            issued = self.lab.refresh(token)
        except TokenTheftDetected as theft:
            assert theft.reuse == expected
            self.end(life)
            return "theft"
        except TooManyRefreshes:
            assert expected == "busy"
            return "busy"
        except Unauthorised:
            assert expected == "gone"
            self.rows[life.tag].pop(life.number, None)
            return "gone"
        brought = issued.refresh_token if issued.refresh_token_changed else None
        assert expected in (("same", "adopted") if brought is None else ("rotated", "again"))
        assert row is not None and before is not None and not life.over, "I5"
        assert g >= before - 1, "I1: only G and G-1 are accepted"
        child_used = life.used.get(g + 1)
        assert child_used is None or self.clock <= child_used + W or self.clock < hold, "I4"
        assert row.generation >= g, "I2: what was presented is known from now on"

        row.idle_until = min(self.clock + IDLE, row.created + ABSOLUTE)
        life.used.setdefault(g, self.clock)
        life.successes[token] = self.clock, brought or life.successes.get(token, (0, None))[1]
        which = generation(issued.refresh_token, self.lab)
        assert life.tokens.setdefault(which, issued.refresh_token) == issued.refresh_token, "I1: one token a generation"
        assert issued.session.expires_at <= self.lab.number(life.issued, "abs_exp") // 1000, "I7"
        assert issued.session.claims["refreshTokenHash1"].startswith(f"{which:08x}")
        return issued


@pytest.fixture
def machine(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[type[Rotation]]:
    """The machine, on each store in turn."""
    caplog.set_level(logging.CRITICAL, "fastverify.audit")  # thousands of thefts
    monkeypatch.setattr(flows.limits, "MAX_REDELIVERIES", REDELIVERIES)
    store_of_it = open_store(store_url, **PATIENT)
    store_of_it.start()
    numbers = count()

    class Machine(Rotation):
        store = store_of_it
        reached: ClassVar[Counter[str]] = Counter()

        def new_prefix(self) -> str:
            return f"{unique_prefix}-{next(numbers)}"

    yield Machine
    store_of_it.close()


def run(machine: type[Rotation], **options: Any) -> None:
    """Run it, and see that it got everywhere: a machine that reaches little finds nothing wrong either."""
    run_state_machine_as_test(
        machine, settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **options)
    )
    verdicts = ("gone", "adopted", "same", "rotated", "again", "busy", "one_behind", "older")
    assert all(machine.reached[verdict] for verdict in verdicts), machine.reached


@pytest.mark.timeout(300)
def test_the_scripts_keep_to_the_model_and_the_invariants(machine: type[Rotation]) -> None:
    run(machine, max_examples=150, stateful_step_count=40, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_scripts_keep_to_the_model_and_the_invariants_for_long(machine: type[Rotation]) -> None:
    run(machine, max_examples=3000, stateful_step_count=60)
