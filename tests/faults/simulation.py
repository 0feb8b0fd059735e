"""A million refreshes in simulated time: the real flows and scripts on a real store, whose records are made older.

    python -m tests.faults.simulation [--refreshes 1000000] [--sessions 2000] [--seed 1] [--json]

Browsers refresh every 8 to 40 seconds, at times in two tabs; of their requests and of the replies one in a hundred is
lost, and others come a tick later and out of order. Every minute the store fails over to a primary that has lost what
was written in the last tick. Thieves show exchanged tokens: some while the exchange is still open, which is to harm
nobody, and some when it is no longer, which is to be found each time.

A tick is 8 s: one is within W and two are not, two are within D and three are not. Those who ask in one tick ask
together, in one pipeline.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fix_stores import PATIENT
from session_lab import D, Lab, W, plain_handle

from fastverify import FastVerifyError, Issued, StoreUnavailable, TokenTheftDetected, flows
from fastverify.flows import Outcome
from fastverify.session import handle_bytes
from fastverify.store import Call, Flow, Store, open_store

TICK = 8.0
MINUTE = 60.0
#: Of requests and replies together.
LOST = 0.01
#: Of what is not lost, so much comes in the next tick.
LATE = 0.2
TWO_TABS = 0.2
#: Of the exchanged tokens, so many are shown a tick: while they may be, and when they may not.
EARLY, TOO_LATE = 0.003, 0.01
#: Of the browsers, so many show an access token to a gateway that has not seen it.
SEEN = 0.1
#: Flows that are driven together. The two trips of a refresh may not lie far apart.
TOGETHER = 250

assert TICK < W < 2 * TICK < D < 3 * TICK


@dataclass(eq=False)
class Browser:
    """One jar and two tabs."""

    user: str
    issued: Issued
    #: Ticks.
    due: int
    generation: int = 0
    over: bool = False
    #: Exchanged tokens that somebody may have copied.
    copies: list[Copy] = field(default_factory=list)

    @property
    def token(self) -> str:
        """What the jar holds."""
        return self.issued.refresh_token

    def use(self, generation: int, tick: int) -> None:
        """The store knows that this generation has arrived."""
        for copy in self.copies:
            if copy.generation < generation and copy.child_used is None:
                copy.child_used = tick

    def take(self, issued: Issued) -> None:
        """What a browser does with a reply: one without a new refresh token leaves the cookie as it is."""
        if issued.refresh_token_changed and issued.refresh_token != self.token:
            self.copies.append(Copy(self.token, self.generation))
            del self.copies[:-4]
            self.issued, self.generation = issued, _generation(issued)


@dataclass(eq=False)
class Copy:
    """An exchanged token."""

    token: str
    generation: int
    #: The tick in which its child was used, as far as the store can remember.
    child_used: int | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A refresh token on its way to the service. ``too_late`` is that of a thief who has to be found."""

    browser: Browser
    token: str
    generation: int
    thief: bool = False
    too_late: bool = False


class Simulation:
    """Browsers, thieves and one store. ``tally`` counts what happened, ``wrong`` says what should not have."""

    def __init__(self, lab: Lab, sessions: int, seed: int) -> None:
        self.lab, self.chance = lab, random.Random(seed)
        self.tally: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.tick = 0
        self._advanced_at = time.monotonic()
        self._held_until = -1
        self._next_failover = MINUTE
        #: What comes in the next tick.
        self._requests: list[Request] = []
        self._replies: list[tuple[Request, Issued]] = []
        self.browsers = self._sign_in([f"user-{number}" for number in range(sessions)])

    def run(self, refreshes: int, progress: Callable[[Simulation], None] = lambda simulation: None) -> None:
        """Go on until so many refreshes have been answered."""
        while self.tally["refreshes"] < refreshes:
            self._live_a_tick()
            progress(self)

    @property
    def minutes(self) -> float:
        """Of simulated time."""
        return self.tick * TICK / 60

    def _live_a_tick(self) -> None:
        self.tick += 1
        self._pass_time()
        replies, self._replies = self._replies, []
        for request, issued in replies:
            request.browser.take(issued)
        requests, self._requests = self._requests, []
        asking = {request.browser for request in requests}
        for browser in self.browsers:
            if browser.due <= self.tick:
                requests += self._send(browser)
            elif browser not in asking:
                requests += self._steal(browser)
        failover = self.tick * TICK >= self._next_failover
        copies = self._copy_records(requests) if failover else {}
        self._answer(requests)
        self._use_access_tokens()
        if failover:
            self._fail_over(copies)
        over = [browser.user for browser in self.browsers if browser.over]
        if over:
            self.browsers = [browser for browser in self.browsers if not browser.over] + self._sign_in(over)

    def _pass_time(self) -> None:
        """One tick since the last, what has really passed included."""
        self.lab.advance(max(0.0, TICK - (time.monotonic() - self._advanced_at)))
        self._advanced_at = time.monotonic()

    def _sign_in(self, users: list[str]) -> list[Browser]:
        now, authority = time.time(), self.lab.authority
        made = together(self.lab.store, [flows.create(authority, user, now=now, random=os.urandom) for user in users])
        for issued in made:
            assert isinstance(issued, Issued), issued
            self.lab._handles.add(plain_handle(issued.session.handle))
        return [
            Browser(user, issued, self.tick + self.chance.randint(1, 5))
            for user, issued in zip(users, made, strict=True)
            if isinstance(issued, Issued)
        ]

    # --- those who ask ---

    def _send(self, browser: Browser) -> list[Request]:
        """A refresh in one tab or two; those that arrive in this tick."""
        browser.due = self.tick + self.chance.randint(1, 5)
        arriving = []
        for _ in range(1 + (self.chance.random() < TWO_TABS)):
            request = Request(browser, browser.token, browser.generation)
            if self._loses(browser):
                self.tally["requests lost"] += 1
            elif self.chance.random() < LATE:
                self._requests.append(request)
            else:
                arriving.append(request)
        return arriving

    def _loses(self, browser: Browser) -> bool:
        """Whether a message is lost; then the browser asks again."""
        lost = self.chance.random() < LOST / 2
        if lost:
            browser.due = self.tick + 1
        return lost

    def _steal(self, browser: Browser) -> list[Request]:
        """A thief with one of the copies, perhaps. Nobody else asks for this session in the tick."""
        for copy in browser.copies:
            too_late = copy.child_used is not None and copy.child_used < self.tick - 1 and self.tick > self._held_until
            early = copy.child_used is None and copy.generation == browser.generation - 1
            if (too_late and self.chance.random() < TOO_LATE) or (early and self.chance.random() < EARLY):
                return [Request(browser, copy.token, copy.generation, True, too_late)]
        return []

    # --- what they are told ---

    def _answer(self, requests: list[Request]) -> None:
        now, authority = time.time(), self.lab.authority
        answers = together(
            self.lab.store,
            [flows.refresh(authority, request.token, now=now, random=os.urandom) for request in requests],
        )
        pairs = list(zip(requests, answers, strict=True))
        for request, answer in pairs:
            if request.thief:
                self._judge_thief(request, answer)
        for request, answer in pairs:
            if not request.thief:
                self._judge_browser(request, answer)

    def _judge_thief(self, request: Request, answer: Issued | FastVerifyError) -> None:
        self.tally["refreshes"] += 1
        found = isinstance(answer, TokenTheftDetected)
        kind = "too late" if request.too_late else "early"
        self.tally[f"thief {kind}: {'found' if found else type(answer).__name__}"] += 1
        if found is not request.too_late:
            self._note(f"a thief who was {kind} was told {type(answer).__name__}", request)
        if found:
            request.browser.over = True
            self.lab._handles.discard(plain_handle(request.browser.issued.session.handle))

    def _judge_browser(self, request: Request, answer: Issued | FastVerifyError) -> None:
        browser = request.browser
        self.tally["refreshes"] += 1
        if isinstance(answer, StoreUnavailable):  # this machine was busy; a client tries again
            self.tally["unavailable"] += 1
            browser.due = self.tick + 1
        elif browser.over:
            self.tally["refused after theft"] += 1
            if isinstance(answer, Issued):
                self._note("a session goes on after theft was found", request)
        elif isinstance(answer, Issued):
            self._take(request, answer)
        else:
            self.tally["honest clients logged out"] += 1
            self._note(f"an honest client was told {type(answer).__name__}", request)
            browser.over = True

    def _take(self, request: Request, issued: Issued) -> None:
        browser = request.browser
        self.tally["rotated or redelivered" if issued.refresh_token_changed else "access token only"] += 1
        browser.use(request.generation, self.tick)
        if self._loses(browser):
            self.tally["replies lost"] += 1
        elif self.chance.random() < LATE:
            self._replies.append((request, issued))
        else:
            browser.take(issued)

    def _note(self, what: str, request: Request) -> None:
        browser = request.browser
        self.wrong.append(
            f"tick {self.tick}: {what}: showed {request.generation}, the jar holds {browser.generation}, "
            f"held until {self._held_until}, record {self.lab.record(browser.issued)}"
        )

    def _use_access_tokens(self) -> None:
        """Gateways see some access tokens of this tick, and say so: what was exchanged for them is then used up."""
        seen = [browser for browser in self.browsers if not browser.over and self.chance.random() < SEEN]
        placement = self.lab.authority.placement
        reports = {handle_bytes(browser.issued.session.handle): browser.generation for browser in seen}
        self.lab.run(flows.confirm(placement, reports))
        self.tally["confirmed"] += len(seen)
        for browser in seen:
            browser.use(browser.generation, self.tick)

    # --- failover ---

    def _copy_records(self, requests: list[Request]) -> dict[str, Browser]:
        """What the replica has got, of those sessions that this tick may change."""
        keys = {self.lab.record_key(request.browser.issued): request.browser for request in requests}
        self._dumps = dict(zip(keys, self._pipeline("dump", [(key,) for key in keys]), strict=True))
        return keys

    def _fail_over(self, copies: dict[str, Browser]) -> None:
        """The replica takes over; of this tick it knows nothing but the thefts."""
        self.tally["failovers"] += 1
        self._next_failover += MINUTE
        self._held_until = self.tick + 4
        lost = {key: browser for key, browser in copies.items() if self._dumps[key] is not None and not browser.over}
        self._pipeline("restore", [(key, 0, self._dumps[key], True) for key in lost])
        self.lab.fail_over()
        for browser in lost.values():
            for copy in browser.copies:
                if copy.child_used == self.tick:
                    copy.child_used = None

    def _pipeline(self, command: str, arguments: list[tuple[object, ...]]) -> list[bytes | None]:
        pipeline = self.lab.redis.pipeline(transaction=False)
        for each in arguments:
            getattr(pipeline, command)(*each)
        return pipeline.execute()


def together(store: Store, running: Sequence[Flow[Outcome[Issued]]]) -> list[Issued | FastVerifyError]:
    """Drive flows side by side; what each returned, or raised."""
    results: list[Issued | FastVerifyError] = []
    for start in range(0, len(running), TOGETHER):
        results += _together(store, running[start : start + TOGETHER])
    return results


def _together(store: Store, running: Sequence[Flow[Outcome[Issued]]]) -> list[Issued | FastVerifyError]:
    results: dict[int, Issued | FastVerifyError] = {}
    replies: dict[int, object] = dict.fromkeys(range(len(running)))
    while replies:
        asked: dict[int, Call] = {}
        for n, reply in replies.items():
            try:
                call = running[n].send(reply)
                assert isinstance(call, Call)
                asked[n] = call
            except StopIteration as end:
                results[n] = end.value.value
            except FastVerifyError as error:
                results[n] = error
        replies = dict(zip(asked, store.run_many(list(asked.values())), strict=True))
    return [results[n] for n in range(len(running))]


def _generation(issued: Issued) -> int:
    return int(issued.session.claims["refreshTokenHash1"][:8], 16)


def simulate(
    store: Store,
    refreshes: int,
    *,
    sessions: int,
    seed: int,
    progress: Callable[[Simulation], None] = lambda simulation: None,
    **settings: Any,
) -> Simulation:
    """A simulation, run on a store that others may use too. Other settings than the defaults make it go wrong."""
    lab = Lab(store, f"s{secrets.token_hex(6)}", **settings)
    try:
        simulation = Simulation(lab, sessions, seed)
        simulation.run(refreshes, progress)
        return simulation
    finally:
        lab.close()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--refreshes", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begin = said = time.monotonic()

    def progress(simulation: Simulation) -> None:
        nonlocal said
        if time.monotonic() - said > 5:
            said = time.monotonic()
            done = simulation.tally["refreshes"]
            rate = done / (said - begin)
            shown = f"{done:>9,} refreshes in {simulation.minutes:,.0f} minutes, {rate:,.0f}/s"
            print(f"{shown}, {len(simulation.wrong)} wrong", file=sys.stderr, flush=True)

    logging.getLogger("fastverify.audit").setLevel(logging.ERROR)  # one line for each thief
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder:
        store = open_store(f"embedded://{folder}/store", **PATIENT)
        store.start()
        try:
            done = simulate(store, options.refreshes, sessions=options.sessions, seed=options.seed, progress=progress)
        finally:
            store.close()
    seconds = time.monotonic() - begin
    if options.json:
        result = {"seed": options.seed, "seconds": seconds, "simulated_minutes": done.minutes}
        print(json.dumps(result | {"counts": dict(done.tally), "wrong": done.wrong}, indent=2))
    else:
        print(f"seed {options.seed}: {done.minutes:,.0f} minutes in {seconds:,.0f} s")
        for name, count in sorted(done.tally.items()):
            print(f"{count:>12,}  {name}")
        print("\n".join(done.wrong[:10]) or "nothing was wrong")
    return 1 if done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
