"""What grows with the number of sessions, and what does not: refreshes, and the store's memory.

    python bench/growth.py [--sessions 10000,1000000] [--rounds 15] [--json FILE]

A server for each number, filled by the library's own script. Then refreshes of random sessions, one after
another, in turns: wall and CPU time of the client, and what the server itself says that a script call took it. Memory
is the growth of `used_memory` divided by the sessions, and MEMORY USAGE of one record and of one user's index.

Costs, on the smallest of them, are what the server spent: its CPU time as the system counts it, bytes in and out, bytes
of the append-only file, and memory; of a refresh, a sign-in, a revocation, a verifier that follows for a second, and of
what each verifier asks for when it hears of a revocation. What a server does when idle is taken off.

Look-ups of revoked sessions by the size of the table are in bench/revoked.py, entries in the store in
bench/revocations.py.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import harness
import stores
from fastverify import Sessions, SessionVerifier
from fastverify.session import handle_bytes
from fastverify.store import open_store

SESSIONS = (10_000, 1_000_000)
#: Random ones of them that are refreshed, in turn.
SAMPLE = 2_000
ROUND_SECONDS = 0.25
PROCESSES = 2
A_PART = 25_000
#: Operations of each kind whose cost is taken; verifiers that follow, for how many seconds, and revocations meanwhile.
OPERATIONS, VERIFIERS, FOLLOWING, HINTS = 2_000, 4, 8.0, 400
COSTS = ("server_us", "bytes_in", "bytes_out", "file_bytes", "memory_bytes")
PAYLOAD = {"role": "editor", "permissions": ["read", "write", "share"], "plan": "team", "locale": "en-GB"}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--sessions", default=",".join(map(str, SESSIONS)), help="numbers, comma-separated")
    arguments = parser.parse_args()
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        filled = {int(number): Filled(stack, folder / number, int(number)) for number in arguments.sessions.split(",")}
        turns = {f"{number:,} sessions": one.refresh for number, one in filled.items()}
        for one in filled.values():
            one.server.client().config_resetstat()
        timings = harness.run(turns, arguments.rounds, "refresh", calls_a_pass=1, seconds=ROUND_SECONDS)
        rows = harness.to_json(timings)
        for row, one in zip(rows.values(), filled.values(), strict=True):
            row |= {"server_us_a_call": one.server_time(), **one.memory}
            one.prove()
        costs = next(iter(filled.values())).costs()
        environment = harness.environment("redis", "hiredis") | {"server": next(iter(filled.values())).server.version()}
    wall = [timing.wall for timing in timings.values()]
    ratio = [large / small for small, large in zip(wall[0], wall[-1], strict=True)]
    results = {"refresh": rows, "ratio": harness.figures(ratio), "costs": costs}
    harness.progress("")
    harness.publish(arguments.json, "growth", environment, results, layout(results))
    return 0


class Filled:
    """A server with so many sessions, some of which are refreshed again and again."""

    def __init__(self, stack: ExitStack, folder: Path, number: int) -> None:
        self.server = stack.enter_context(stores.server(folder, **{"auto-aof-rewrite-percentage": "0"}))
        self._sessions = stack.enter_context(Sessions.connect(self.server.url, stores.settings(exchange_seconds=0)))
        before = self.server.memory
        self._tokens = fill(self.server.url, number)
        random.Random(5).shuffle(self._tokens)
        self._next = 0
        self.memory = {"store_bytes_a_session": (self.server.memory - before) / number, **self._of_one()}

    def refresh(self, passes: int) -> tuple[float, float]:
        return harness.turn(self._refresh, (None,))(passes)

    def _refresh(self, _: None) -> None:
        place = self._next
        self._next = (place + 1) % len(self._tokens)
        self._tokens[place] = self._sessions.refresh(self._tokens[place]).refresh_token

    def _of_one(self) -> dict[str, float]:
        issued = self._sessions.create("one user", payload=PAYLOAD)
        raw, authority = handle_bytes(issued.session.handle), self._sessions.gateway.authority
        with self.server.client() as client:
            return {
                "record_bytes": client.memory_usage(f"{authority.tag_of_handle(raw)}:s:{issued.session.handle}"),
                "index_bytes": client.memory_usage(f"{authority.tag_of_user('one user')}:u:one user"),
            }

    def costs(self) -> dict[str, dict[str, float]]:
        """What the server spends on one of each."""
        sessions, users = self._sessions, itertools.count()
        operations: dict[str, Callable[[], object]] = {
            "a refresh": lambda: self._refresh(None),
            "a sign-in": lambda: sessions.create(f"new-{next(users)}", payload=PAYLOAD),
            "a revocation": self._revoke,
        }
        found = {name: self._spent(OPERATIONS, partial(repeat, OPERATIONS, one)) for name, one in operations.items()}
        alone, among = self._following(0), self._following(VERIFIERS)
        for name, (own, theirs) in zip(
            ("a verifier, each second", "a revocation's hint, for each verifier"),
            zip(alone, among, strict=True),
            strict=True,
        ):
            found[name] = {key: (theirs[key] - own[key]) / VERIFIERS for key in own if key != "memory_bytes"}
        return found

    def _following(self, verifiers: int) -> tuple[dict[str, float], dict[str, float]]:
        """With so many verifiers beside the service: a second of nothing, and what a revocation adds to it."""
        with ExitStack() as stack:
            for _ in range(verifiers):
                verifier = SessionVerifier.connect(self.server.url, issuer=self._sessions.config.issuer)
                stack.enter_context(verifier)
            idle = self._spent(FOLLOWING, partial(time.sleep, FOLLOWING))
            busy = self._spent(FOLLOWING, partial(repeat, HINTS, self._revoke, pace=FOLLOWING / HINTS))
        return idle, {name: (busy[name] - idle[name]) * FOLLOWING / HINTS for name in idle}

    def _revoke(self) -> None:
        self._sessions.revoke(str(uuid.uuid4()))

    def _spent(self, number: float, work: Callable[[], None]) -> dict[str, float]:
        before = self._counters()
        work()
        after = self._counters()
        return {name: (after[name] - before[name]) / number for name in after}

    def _counters(self) -> dict[str, float]:
        with self.server.client() as client:
            info = client.info("everything")
        return {
            "server_us": 1e6 * (info["used_cpu_sys"] + info["used_cpu_user"]),
            "bytes_in": info["total_net_input_bytes"],
            "bytes_out": info["total_net_output_bytes"],
            "file_bytes": info["aof_current_size"],
            "memory_bytes": info["used_memory_dataset"],
        }

    def server_time(self) -> float:
        """Microseconds that the server says a script call took it, of both trips alike."""
        with self.server.client() as client:
            return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])

    def prove(self) -> None:
        """End the program if one of the sessions is not there any more, or its token does not go on."""
        for place, token in enumerate(self._tokens[:50]):
            issued = self._sessions.refresh(token)
            if not issued.refresh_token_changed:
                raise SystemExit("growth: a refresh did not rotate")
            self._tokens[place] = issued.refresh_token


def repeat(times: int, operation: Callable[[], object], pace: float = 0) -> None:
    """So often, with so many seconds from one beginning to the next at least."""
    begin = time.monotonic()
    for number in range(times):
        operation()
        if pace:
            time.sleep(max(0.0, begin + (number + 1) * pace - time.monotonic()))


def fill(url: str, number: int) -> list[str]:
    """Make the sessions, in several processes; the refresh tokens of some."""
    parts = [(url, first, min(A_PART, number - first), SAMPLE / number) for first in range(0, number, A_PART)]
    tokens: list[str] = []
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as executor:
        for done, some in enumerate(executor.map(fill_part, *zip(*parts, strict=True))):
            tokens += some
            harness.progress(f"{min((done + 1) * A_PART, number):,} of {number:,} sessions")
    return tokens


def fill_part(url: str, first: int, number: int, chance: float) -> list[str]:
    numbers, store = random.Random(first), open_store(url, command=10.0, total=30.0)
    with Sessions(store, stores.settings(exchange_seconds=0)) as sessions:
        sessions.jwks()
        users = (f"user-{os.getpid()}-{first + n}" for n in range(number))
        made = stores.create_many(store, sessions.gateway.authority, users, PAYLOAD)
        return [token for token in made if numbers.random() < chance]


def layout(results: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['wall']['median']:.0f}",
            f"{row['wall']['low']:.0f} - {row['wall']['high']:.0f}",
            f"{row['cpu']['median']:.0f}",
            f"{row['server_us_a_call']:.1f}",
            *(f"{row[key]:,.0f}" for key in ("store_bytes_a_session", "record_bytes", "index_bytes")),
        ]
        for name, row in results["refresh"].items()
    ]
    head = ["refresh, of", "wall us", "middle half", "client CPU", "server us", "B/session", "record", "index"]
    table = harness.layout(head, rows, widths=(24, 10, 18, 12, 11, 11, 9, 8))
    rows = [
        [name, *(f"{row[key]:,.0f}" if key in row else "" for key in COSTS)] for name, row in results["costs"].items()
    ]
    head = ["the server spends on", "CPU us", "bytes in", "bytes out", "file bytes", "memory"]
    costs = harness.layout(head, rows, widths=(42, 10, 12, 12, 12, 10))
    ratio = results["ratio"]
    span = f"{ratio['low']:.2f} - {ratio['high']:.2f}"
    return f"{table}\n\nlargest to smallest, on the wall: {ratio['median']:.2f} (middle half {span})\n\n{costs}"


if __name__ == "__main__":
    sys.exit(main())
