"""A service at work for some minutes: sessions refreshed, revoked and verified at steady rates, in several processes.

    python bench/soak.py [--sessions 1000000] [--entries 10000000] [--minutes 10] [--json FILE]
                         [--refreshes 200] [--revocations 20] [--verifications 20000] [--services 2] [--gateways 2]
                         [--fault kill@3] [--fault stop@5:10] [--fault failover@3] [--fault takeover@6]

The store, a server of its own, is filled with so many revoked sessions' entries and so many live sessions. Services
(`AsyncSessions`) refresh random ones of them, and end some and begin as many; gateways (`SessionVerifier`) verify the
access tokens. Rates are a second, of all processes together; what a process cannot begin in time is left out and
counted. Each interval has the times of every operation, as its caller sees them, what went wrong, and the memory of
every process; bench/plot.py draws it.

What is looked for, all the time: a client that does as it should is never thrown out and never taken for a thief; a
token of a live session is accepted; a revoked one is refused in every gateway from its bound B on, counted from when
`revoke` returned. Each breach is counted, and the program then ends with status 1. While the store is away
StoreUnavailable is the right answer to everything, and counted apart.

Faults come at a minute of the run: `kill@3` ends the server by SIGKILL and starts it again on its files, `stop@5:10`
has it stand still for ten seconds. With `appendfsync everysec` a killed server forgets up to two seconds: a revocation
of that moment that is not enforced in time is counted as "forgotten".

With `failover@3`, a failover that is asked for, or `takeover@3`, where the primary is ended by SIGKILL and comes back
as a replica, the store is a primary and a replica under a Sentinel, for the whole run; what a replica did not have yet
is forgotten likewise, unless a gateway gives it back. It takes the memory of two stores.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness
import stores
from fastverify import (
    AsyncSessions,
    Config,
    Issued,
    SessionVerifier,
    StoreUnavailable,
    TokenTheftDetected,
    Unauthorised,
)
from fastverify.placement import Placement

PAYLOAD = {"role": "editor", "permissions": ["read", "write", "share"], "plan": "team", "locale": "en-GB"}
TOKEN_SIZE = 96
#: Refreshes, revocations and sign-ins under way at once in a service.
IN_FLIGHT = 64
#: Access tokens that a gateway goes through.
POOL = 5_000
#: Seconds between a gateway's bursts of verifications.
BURST = 0.01
REPORT = 1.0
INTERVALS = 300
#: Seconds that a process waits for the store when it starts.
PATIENCE = stores.READY_SECONDS
#: Seconds before a kill or failover of which the store may forget the writes, and some after it.
FORGETS = 3.0
#: The faults that need a replica.
FAILOVERS = ("failover", "takeover")
#: Seconds beyond B until a revoked token that is still accepted is a breach: what a busy machine may take to look.
GRACE = 1.0
BREACHES = ("honest refresh refused", "honest refresh called theft", "good token refused", "revoked token accepted")


def main() -> int:
    arguments = options().parse_args()
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    kind = stores.Pair if any(fault.kind in FAILOVERS for fault in arguments.fault) else stores.Server
    with tempfile.TemporaryDirectory() as folder, stores.running(kind(Path(folder))) as server:
        soak = Soak(server, arguments)
        with soak.workers():
            soak.run()
        environment = harness.environment("redis", "hiredis", "uvloop") | {"server": server.version()}
    harness.progress("")
    results = soak.results()
    harness.publish(arguments.json, "soak", environment, results, layout(results))
    return 1 if any(results["breaches"].values()) else 0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name, default, what in (
        ("sessions", 1_000_000, "live sessions"),
        ("entries", 10_000_000, "revoked sessions' entries in the store"),
        ("services", 2, "processes that refresh and revoke"),
        ("gateways", 2, "processes that verify"),
        ("refreshes", 200, "a second"),
        ("revocations", 20, "a second; and as many sign-ins"),
        ("verifications", 20_000, "a second"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default:,}")
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    parser.add_argument("--fault", type=Fault.read, action="append", default=[], metavar="KIND@MINUTE[:SECONDS]")
    parser.add_argument("--json", metavar="FILE", nargs="?", const="-", help="write JSON to FILE, beside the table")
    return parser


def config() -> Config:
    return stores.settings()


@dataclass(frozen=True)
class Fault:
    """What is done to the server, and when."""

    kind: str
    minute: float
    seconds: float

    @classmethod
    def read(cls, text: str) -> Fault:
        kind, _, when = text.partition("@")
        minute, _, seconds = when.partition(":")
        if kind not in ("kill", "stop", *FAILOVERS):
            raise argparse.ArgumentTypeError("the kinds of faults are kill, stop, failover and takeover")
        return cls(kind, float(minute), float(seconds or 10))


# --- what was seen ---


@dataclass
class Tally:
    """Times, in buckets an eighth of a doubling wide, and counts; of one process and one interval, or of several."""

    times: dict[str, Counter[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def took(self, operation: str, seconds: float) -> None:
        bucket = round(8 * math.log2(max(seconds, 1e-7) * 1e6))
        self.times.setdefault(operation, Counter())[bucket] += 1

    def add(self, other: Tally) -> None:
        for operation, buckets in other.times.items():
            self.times.setdefault(operation, Counter()).update(buckets)
        self.counts.update(other.counts)

    def quantiles(self) -> dict[str, dict[str, float]]:
        """In microseconds."""
        return {
            operation: {
                "number": buckets.total(),
                **{name: round(2 ** (quantile(buckets, part) / 8), 3) for name, part in QUANTILES.items()},
            }
            for operation, buckets in sorted(self.times.items())
        }


QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def quantile(buckets: Counter[int], part: float) -> int:
    """The bucket that so much of the whole is at or below."""
    remaining = math.ceil(part * buckets.total())
    for bucket in sorted(buckets):
        remaining -= buckets[bucket]
        if remaining <= 0:
            return bucket
    raise ValueError("nothing was counted")


class Pace:
    """Says when the next thing is due; what is more than a second late is left out, and counted."""

    def __init__(self, rate: float, tally: Callable[[], Tally]) -> None:
        self._gap = 1 / rate if rate else math.inf
        self._next = time.monotonic() + random.random() * min(self._gap, 1)
        self._tally = tally

    def due(self) -> int:
        """How many are due now."""
        now = time.monotonic()
        number = max(0, math.floor((now - self._next) / self._gap) + 1) if now >= self._next else 0
        self._next += number * self._gap if number else 0
        most = max(1, math.ceil(1 / self._gap))
        if number > most:
            self._tally().counts["left out"] += number - most
        return min(number, most)


# --- a service ---


@dataclass(frozen=True)
class Part:
    """What one process is to do."""

    url: str
    number: int
    sessions: int
    refreshes: float
    revocations: float
    verifications: float


class Fleet:
    """Refresh tokens of many sessions, packed: a million str would take more memory than what is measured."""

    def __init__(self) -> None:
        self._texts = bytearray()

    def __len__(self) -> int:
        return len(self._texts) // TOKEN_SIZE

    def append(self, token: str) -> None:
        raw = token.encode()
        assert len(raw) == TOKEN_SIZE
        self._texts += raw

    def __getitem__(self, place: int) -> str:
        return self._texts[place * TOKEN_SIZE : (place + 1) * TOKEN_SIZE].decode()

    def __setitem__(self, place: int, token: str) -> None:
        self._texts[place * TOKEN_SIZE : (place + 1) * TOKEN_SIZE] = token.encode()


class Service:
    """In a child: holds its part of the sessions, as their clients would."""

    def __init__(self, pipe: Connection, part: Part) -> None:
        self._pipe = pipe
        self._part = part
        self._fleet = Fleet()
        self._busy: set[int] = set()
        self._tally = Tally()
        self._recent: deque[Issued] = deque(maxlen=1_000)
        self._sent: list[str] = []
        self._ended: list[tuple[str, float]] = []

    def fill(self) -> None:
        """The sessions that live when the run begins."""
        part = self._part
        with stores.patient_sessions(part.url, config()) as sessions:
            users = (f"user-{part.number}-{n}" for n in range(part.sessions))
            for token in stores.create_many(sessions._store, sessions.gateway.authority, users, PAYLOAD):
                self._fleet.append(token)
                if not len(self._fleet) % 5_000:
                    self._pipe.send(("filling", len(self._fleet)))
        self._pipe.send(("filled", len(self._fleet)))
        self._pipe.recv()

    async def work(self) -> None:
        """Until the parent says that it is over."""
        async with AsyncSessions.connect(self._part.url, config(), wait=PATIENCE) as sessions:
            self._pipe.send(("ready", None))
            await asyncio.to_thread(self._pipe.recv)
            paces = [
                (Pace(self._part.refreshes, self._now), self._refresh),
                (Pace(self._part.revocations, self._now), self._revoke),
                (Pace(self._part.revocations, self._now), self._sign_in),
            ]
            tasks: set[asyncio.Task[None]] = set()
            report_at = time.monotonic() + REPORT
            while not self._pipe.poll():
                for pace, operation in paces:
                    for _ in range(pace.due()):
                        if len(tasks) < IN_FLIGHT:
                            task = asyncio.create_task(operation(sessions))
                            tasks.add(task)
                            task.add_done_callback(tasks.discard)
                        else:
                            self._tally.counts["left out"] += 1
                if time.monotonic() >= report_at:
                    report_at += REPORT
                    self._report()
                await asyncio.sleep(0.002)
            await asyncio.gather(*tasks)
            self._report()
        self._pipe.send(("over", None))

    def _now(self) -> Tally:
        return self._tally

    def _report(self) -> None:
        self._pipe.send(("report", (self._tally, self._sent, self._ended)))
        self._tally, self._sent, self._ended = Tally(), [], []

    async def _refresh(self, sessions: AsyncSessions) -> None:
        if not self._fleet:
            return
        place = random.randrange(len(self._fleet))
        if place in self._busy:
            return
        self._busy.add(place)
        try:
            issued = await self._timed("refresh", sessions.refresh(self._fleet[place]))
            if issued is not None:
                self._fleet[place] = issued.refresh_token
                self._sent.append(issued.access_token)
        finally:
            self._busy.discard(place)

    async def _sign_in(self, sessions: AsyncSessions) -> None:
        issued = await self._timed("sign in", sessions.create(f"guest-{random.getrandbits(40)}", payload=PAYLOAD))
        if issued is not None:
            self._recent.append(issued)

    async def _revoke(self, sessions: AsyncSessions) -> None:
        """End the one that signed in longest ago, and tell the gateways its access token."""
        if not self._recent:
            return
        issued = self._recent.popleft()
        there = await self._timed("revoke", sessions.revoke(issued.session.handle))
        if there is not None:
            self._tally.counts["ended that were not there"] += not there
            self._ended.append((issued.access_token, time.monotonic()))
            self._report()  # at once: a gateway that is told late looks late

    async def _timed(self, operation: str, call: Awaitable[Any]) -> Any:
        """The result, or None where there is none."""
        begin = time.perf_counter()
        try:
            result = await call
        except StoreUnavailable:
            self._tally.counts[f"{operation}: unavailable"] += 1
            return None
        except TokenTheftDetected:
            self._tally.counts["honest refresh called theft"] += 1
            return None
        except Unauthorised:
            self._tally.counts["honest refresh refused"] += 1
            return None
        self._tally.took(operation, time.perf_counter() - begin)
        return result


def serve(pipe: Connection, part: Part) -> None:
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    service = Service(pipe, part)
    service.fill()
    asyncio.run(service.work())


# --- a gateway ---


class Gateway:
    """In a child: verifies what live sessions' clients would send, and looks whether the ended ones are refused."""

    def __init__(self, pipe: Connection, part: Part) -> None:
        self._pipe = pipe
        self._part = part
        self._tally = Tally()
        self._pool: deque[str] = deque(maxlen=POOL)
        self._watched: deque[tuple[str, float, bool]] = deque()

    def work(self) -> None:
        begin = time.monotonic()
        with SessionVerifier.connect(self._part.url, issuer=config().issuer, wait=PATIENCE) as verifier:
            self._pipe.send(("ready", time.monotonic() - begin))
            self._pipe.recv()
            pace = Pace(self._part.verifications, lambda: self._tally)
            report_at = time.monotonic() + REPORT
            while self._heard():
                self._verify(verifier, pace.due())
                self._look(verifier)
                if time.monotonic() >= report_at:
                    report_at += REPORT
                    self._tally.counts["stale"] += not verifier.ready
                    self._pipe.send(("report", (self._tally, [], [])))
                    self._tally = Tally()
                time.sleep(BURST)
            self._pipe.send(("report", (self._tally, [], [])))
        self._pipe.send(("over", None))

    def _heard(self) -> bool:
        """Take in what came; whether to go on."""
        while self._pipe.poll():
            message = self._pipe.recv()
            if message is None:
                return False
            good, ended = message
            self._pool.extend(good)
            self._watched.extend((token, at, forgetful) for token, at, forgetful in ended)
        return True

    def _verify(self, verifier: SessionVerifier, number: int) -> None:
        pool, took = self._pool, self._tally.took
        for _ in range(number if pool else 0):
            token = pool[random.randrange(len(pool))]
            begin = time.perf_counter()
            try:
                verifier.verify(token)
            except StoreUnavailable:
                self._tally.counts["verify: unavailable"] += 1
            except Unauthorised:
                self._tally.counts["good token refused"] += 1
            else:
                took("verify", time.perf_counter() - begin)

    def _look(self, verifier: SessionVerifier) -> None:
        """At each revoked session that is not known to be refused yet."""
        now, bound = time.monotonic(), config().revocation_staleness + GRACE
        for _ in range(len(self._watched)):
            token, at, forgetful = self._watched.popleft()
            try:
                verifier.verify(token)
            except StoreUnavailable:
                self._watched.append((token, at, forgetful))
            except Unauthorised:
                self._tally.took("reach", max(0.0, now - at))
            else:
                if now - at <= bound:
                    self._watched.append((token, at, forgetful))
                else:
                    self._tally.counts["forgotten" if forgetful else "revoked token accepted"] += 1


def guard(pipe: Connection, part: Part) -> None:
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    Gateway(pipe, part).work()


# --- the run ---


class Soak:
    """In the parent: the processes, the faults, and what they all report."""

    def __init__(self, server: stores.Server | stores.Pair, arguments: argparse.Namespace) -> None:
        self._server = server
        self._arguments = arguments
        self._seconds = 60 * arguments.minutes
        self._interval = max(REPORT, self._seconds / INTERVALS)
        self._pipes: dict[str, Connection] = {}
        self._processes: dict[str, Any] = {}
        self._whole = Tally()
        self._now = Tally()
        self._series: list[dict[str, Any]] = []
        #: Faults that the store may forget writes by: when each began and ended.
        self._losses: list[tuple[float, float]] = []
        self._filled: dict[str, int] = {}
        self._bootstraps: list[float] = []
        self._memory: dict[str, float] = {}
        self._happened: list[dict[str, Any]] = []
        self._begin = 0.0
        self._over = False

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Start them all, and let them get ready; end them with the block."""
        try:
            self._start()
            yield
        finally:
            for pipe in self._pipes.values():
                pipe.close()
            for process in self._processes.values():
                process.join(30)

    def _start(self) -> None:
        given = self._arguments
        for number in range(given.services):
            self._launch(f"service {number + 1}", serve, self._part(number, given.services))
        empty = self._server.memory
        for name in self._pipes:
            self._await(name, "filled")
        with_sessions = self._server.memory
        self._fill_entries()
        self._memory = {
            "store_bytes_a_session": (with_sessions - empty) / max(1, given.sessions),
            "store_bytes_an_entry": (self._server.memory - with_sessions) / max(1, given.entries),
        }
        for name, pipe in self._pipes.items():
            pipe.send(None)
            self._await(name, "ready")
        for number in range(given.gateways):  # one after another: they share two cores with the server
            self._launch(f"gateway {number + 1}", guard, self._part(number, given.gateways))
            harness.progress(f"gateway {number + 1} loads")
            self._bootstraps.append(self._await(f"gateway {number + 1}", "ready"))

    def _fill_entries(self) -> None:
        """In windows that end after the run, whatever its length; before any of those that are to load them starts."""
        harness.progress(f"{self._arguments.entries:,} entries")
        first = (int(time.time() + self._seconds) // 300 + 20) * 300
        placement = Placement(config().key_prefix, config().shards)
        with self._server.client() as client:
            stores.fill_entries(client, placement, self._arguments.entries, first_window=first)

    def _part(self, number: int, of: int) -> Part:
        given = self._arguments
        rates = (given.refreshes / of, given.revocations / of, given.verifications / of)
        return Part(self._server.url, number, stores.share(given.sessions, of, number), *rates)

    def _launch(self, name: str, work: Callable[[Connection, Part], None], part: Part) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes[name], theirs = context.Pipe()
        self._processes[name] = context.Process(target=work, args=(theirs, part), daemon=True)
        self._processes[name].start()
        theirs.close()

    def _await(self, name: str, wanted: str) -> Any:
        while True:
            what, value = self._receive(name)
            if what == wanted:
                return value
            if what == "report":
                self._take(value)
            elif what == "filling":
                self._filled[name] = value
                harness.progress(f"{sum(self._filled.values()):,} of {self._arguments.sessions:,} sessions")

    def _receive(self, name: str) -> Any:
        try:
            return self._pipes[name].recv()
        except (EOFError, ConnectionError):
            raise SystemExit(f"soak: {name} ended; its last words are above") from None

    def run(self) -> None:
        """Until the time is over."""
        for pipe in self._pipes.values():
            pipe.send(None)
        self._begin = time.monotonic()
        faults = threading.Thread(target=self._inject, daemon=True)
        faults.start()
        next_row = self._begin + self._interval
        while (now := time.monotonic()) < self._begin + self._seconds:
            self._collect(min(next_row, self._begin + self._seconds) - now)
            if time.monotonic() >= next_row:
                next_row += self._interval
                self._close_row()
        self._over = True
        for pipe in self._pipes.values():
            pipe.send(None)
        for name in self._pipes:
            self._await(name, "over")
        faults.join(PATIENCE)

    def _collect(self, seconds: float) -> None:
        ready = multiprocessing.connection.wait(list(self._pipes.values()), max(0.0, seconds))
        for name, pipe in self._pipes.items():
            if pipe in ready:
                self._take(self._receive(name)[1])

    def _take(self, report: tuple[Tally, list[str], list[tuple[str, float]]]) -> None:
        tally, good, ended = report
        self._now.add(tally)
        if (good or ended) and not self._over:
            marked = [(token, at, self._may_be_forgotten(at)) for token, at in ended]
            for name, pipe in self._pipes.items():
                if name.startswith("gateway"):
                    pipe.send((good, marked))

    def _may_be_forgotten(self, at: float) -> bool:
        return any(began - FORGETS < at < ended + FORGETS for began, ended in self._losses)

    def _close_row(self) -> None:
        self._whole.add(self._now)
        seconds = time.monotonic() - self._begin
        row = {
            "seconds": round(seconds, 1),
            "operations": self._now.quantiles(),
            "counts": dict(self._now.counts),
            "resident_mb": {name: megabytes(process.pid) for name, process in self._processes.items()},
            "load": os.getloadavg()[0],
        }
        with suppress(Exception):  # it may be the very server that is away
            info = self._server.info("memory")
            row["resident_mb"]["store"] = info["used_memory_rss"] / 1e6
            row["store_mb"] = info["used_memory"] / 1e6
        self._series.append(row)
        self._now = Tally()
        self._say(row)

    def _say(self, row: dict[str, Any]) -> None:
        times = [
            f"{name} {each['number'] / self._interval:,.0f}/s p99 {span(each['p99'])}"
            for name, each in row["operations"].items()
        ]
        breaches = sum(self._whole.counts[name] for name in BREACHES)
        clock = f"{int(row['seconds']) // 60:02}:{int(row['seconds']) % 60:02} of {self._arguments.minutes:g} min"
        harness.progress(f"{clock}; {'; '.join(times)}; breaches {breaches}")

    def _inject(self) -> None:
        for fault in sorted(self._arguments.fault, key=lambda fault: fault.minute):
            time.sleep(max(0.0, self._begin + 60 * fault.minute - time.monotonic()))
            at = time.monotonic()
            if fault.kind == "kill":
                self._losses.append((at, at))
                self._server.restart()
            elif isinstance(self._server, stores.Pair) and fault.kind in FAILOVERS:
                self._losses.append((at, math.inf))
                (self._server.fail_over if fault.kind == "failover" else self._server.restart)()
                self._losses[-1] = (at, time.monotonic())
            else:
                with self._server.paused():
                    time.sleep(fault.seconds)
            self._happened.append({"kind": fault.kind, "at": at - self._begin, "seconds": time.monotonic() - at})

    def results(self) -> dict[str, Any]:
        self._whole.add(self._now)
        given = {name: value for name, value in vars(self._arguments).items() if name not in ("json", "fault")}
        return {
            "given": given,
            "faults": self._happened,
            "bootstrap_seconds": self._bootstraps,
            "memory": self._memory,
            "whole": self._whole.quantiles(),
            "counts": dict(self._whole.counts),
            "breaches": {name: self._whole.counts[name] for name in BREACHES},
            "series": self._series,
        }


def megabytes(pid: int) -> float:
    """Of a process in memory; 0 for one that is no more."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def span(microseconds: float) -> str:
    return f"{microseconds / 1e3:.1f} ms" if microseconds >= 1e3 else f"{microseconds:.1f} us"


def layout(results: dict[str, Any]) -> str:
    given, memory = results["given"], results["memory"]
    seconds = 60 * given["minutes"]
    rows = [
        [name, f"{row['number']:,}", f"{row['number'] / seconds:,.1f}", *(span(row[key]) for key in QUANTILES)]
        for name, row in results["whole"].items()
    ]
    title = f"{given['minutes']:g} min, {given['sessions']:,} sessions, {given['entries']:,} entries"
    parts = [harness.layout([title, "number", "a second", *QUANTILES], rows, widths=(46, 13, 12, 12, 12, 12))]
    if results["series"]:
        first, last = results["series"][0]["resident_mb"], results["series"][-1]["resident_mb"]
        rows = [[name, f"{first[name]:,.0f} MB", f"{last.get(name, 0):,.0f} MB"] for name in first]
        parts.append(harness.layout(["resident", "first", "last"], rows, widths=(46, 13, 12)))
    counts = {name: 0 for name in BREACHES} | results["counts"]
    parts.append(harness.layout(["counted", ""], [[n, f"{c:,}"] for n, c in counts.items()], widths=(46, 13)))
    happened = [
        f"{fault['kind']} at {fault['at']:.0f} s, over after {fault['seconds']:.1f} s" for fault in results["faults"]
    ]
    loaded = ", ".join(f"{value:.1f} s" for value in results["bootstrap_seconds"])
    parts.append(
        "\n".join(
            [
                f"in the store: {memory['store_bytes_a_session']:,.0f} bytes a session, "
                f"{memory['store_bytes_an_entry']:.1f} an entry; gateways loaded in {loaded}",
                *happened,
            ]
        )
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
