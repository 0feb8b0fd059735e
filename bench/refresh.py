"""What a refresh costs: two trips to the store, a rotation and a new access token, beside a bare EVALSHA.

    python bench/refresh.py [--rounds 15] [--processes 1,2] [--json FILE]

One server on loopback, and a process, or two, that ask it as fast as they can:

EVALSHA   a script that returns its argument, through redis-py's own client: the least that a call of a script costs.
one trip  `peek`, the first trip of a refresh, through the library's driver.
refresh   of 50 sessions at once (asyncio) or one a thread: parse and check the token, two trips, rotate, sign.

Under asyncio 50 tasks share a client, on uvloop where it is installed and on asyncio's own loop; blocking code runs in
one thread and in eight. All take turns within each round. "Share" is the rate of refreshes to that of EVALSHA of the
same kind, taken within each round: on the wall, where the server's part shows, and by CPU time of the client.

Sessions here are strict (`exchange_seconds=0`), so that each refresh rotates; else a token handed out a moment ago
would be answered as it is. Proven first: a refresh gives another token of the next generation, its access token
verifies, the old one is theft, and garbage is refused. In the end the generation of each session must be the same in
the store and in its last access token.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

import harness
import stores
from fastverify import AsyncSessions, Issued, Sessions, TokenTheftDetected, Unauthorised
from fastverify.session import handle_bytes
from fastverify.store import Call

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

TASKS = 50
THREADS = 8
PROCESSES = (1, 2)
ROUND_SECONDS = 0.25
BARE = "return ARGV[1]"
PAYLOAD = {"role": "editor", "permissions": ["read", "write", "share"], "plan": "team", "locale": "en-GB"}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    **({"uvloop": uvloop.new_event_loop} if uvloop else {}),
    "asyncio": asyncio.new_event_loop,
}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--processes", default=",".join(map(str, PROCESSES)), help="numbers, comma-separated")
    arguments = parser.parse_args()
    numbers = sorted({int(number) for number in arguments.processes.split(",")})
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as folder, stores.server(Path(folder)) as server:
        prove(server)
        workers = [Worker(server.url) for _ in range(numbers[-1])]
        try:
            timed = {number: timings(workers[:number], arguments.rounds) for number in numbers}
            for worker in workers:
                worker.check()
        finally:
            for worker in workers:
                worker.close()
        environment = harness.environment("redis", "hiredis", "uvloop") | {"server": server.version()}
    harness.progress("")
    results = {str(number): described(found) for number, found in timed.items()}
    harness.publish(arguments.json, "refresh", environment, results, layout(results))
    return 0


def prove(server: stores.Server) -> None:
    """End the program if a refresh is not a rotation, or a bad token is not refused."""
    with Sessions.connect(server.url, stores.settings(exchange_seconds=0)) as sessions:
        first = sessions.create("prover", payload=PAYLOAD)
        second = sessions.refresh(first.refresh_token)
        expect(second.refresh_token_changed and second.refresh_token != first.refresh_token, "the token did not rotate")
        expect(dict(sessions.verify(second.access_token).payload) == PAYLOAD, "the access token says something else")
        expect(refused(sessions, harness.change(second.refresh_token), Unauthorised), "garbage is accepted")
        expect(refused(sessions, first.refresh_token, TokenTheftDetected), "reuse is not noticed")
        expect(refused(sessions, second.refresh_token, Unauthorised), "a session goes on that has been ended")


def refused(sessions: Sessions, token: str, error: type[Exception]) -> bool:
    try:
        sessions.refresh(token)
    except error:
        return True
    return False


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise SystemExit(f"refresh: {otherwise}")


# --- a process that asks ---


class Worker:
    """A child process that takes turns when it is told to."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(url, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.names: list[str] = self.receive()

    def begin(self, name: str, passes: int) -> None:
        self._ours.send((name, passes))

    def receive(self) -> Any:
        try:
            return self._ours.recv()
        except EOFError:
            raise SystemExit("a child process ended; its last words are above") from None

    def check(self) -> None:
        """Let it compare what it did with what the store has counted."""
        self.begin("", 0)
        expect(self.receive(), "the store knows another generation than the last token")

    def close(self) -> None:
        self._ours.close()
        self._process.join(10)


def serve(url: str, pipe: Connection) -> None:
    """In the child: prepare everybody, then take the turns that are asked for."""
    contenders = Contenders(url)
    pipe.send(list(contenders.turns))
    with suppress(EOFError):
        while True:
            name, passes = pipe.recv()
            pipe.send(contenders.turns[name](passes) if name else contenders.rotations_are_counted())
    contenders.close()


class Contenders:
    """Everybody who is timed, in one process."""

    def __init__(self, url: str) -> None:
        self.turns: dict[str, harness.Turn] = {}
        self._closing: list[Callable[[], object]] = []
        self._config = stores.settings(exchange_seconds=0)
        self._chains: list[list[Issued]] = []
        self._sessions = Sessions.connect(url, self._config)
        for name, make_loop in LOOPS.items():
            self._add_asyncio(url, name, make_loop)
        for number in (1, THREADS):
            self._add_threads(url, number)

    def _add_asyncio(self, url: str, name: str, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        runner = asyncio.Runner(loop_factory=make_loop)
        client = redis.asyncio.Redis.from_url(url, protocol=2)
        sessions = AsyncSessions.connect(url, self._config)
        chain, tag, handle = self._new_chain(TASKS)
        digest = runner.run(client.script_load(BARE))
        runner.run(sessions.jwks())  # waits until it is ready

        async def bare(_: int) -> None:
            await client.evalsha(digest, 1, tag, handle)

        async def one_trip(_: int) -> None:
            await sessions._store.run(Call("peek", tag, (handle,)))

        async def refresh(number: int) -> None:
            chain[number] = await sessions.refresh(chain[number].refresh_token)

        for what, call in (("EVALSHA", bare), ("one trip", one_trip), ("refresh", refresh)):
            self.turns[f"{what}, {name}"] = in_tasks(runner, call)
        self._closing += [lambda: runner.run(sessions.aclose()), lambda: runner.run(client.aclose()), runner.close]

    def _add_threads(self, url: str, number: int) -> None:
        executor = ThreadPoolExecutor(number)
        client = redis.Redis.from_url(url, protocol=2)
        chain, tag, handle = self._new_chain(number)
        digest, sessions = client.script_load(BARE), self._sessions

        def bare(_: int) -> None:
            client.evalsha(digest, 1, tag, handle)

        def one_trip(_: int) -> None:
            sessions._store.run(Call("peek", tag, (handle,)))

        def refresh(place: int) -> None:
            chain[place] = sessions.refresh(chain[place].refresh_token)

        kind = "1 thread" if number == 1 else f"{number} threads"
        for what, call in (("EVALSHA", bare), ("one trip", one_trip), ("refresh", refresh)):
            self.turns[f"{what}, {kind}"] = in_threads(executor, number, call)
        self._closing += [client.close, executor.shutdown]

    def _new_chain(self, number: int) -> tuple[list[Issued], str, str]:
        """That many sessions; the place of the first in the store."""
        chain = [self._sessions.create(f"user-{os.getpid()}-{n}", payload=PAYLOAD) for n in range(number)]
        self._chains.append(chain)
        handle = chain[0].session.handle
        return chain, self._sessions.gateway.authority.tag_of_handle(handle_bytes(handle)), handle

    def rotations_are_counted(self) -> bool:
        """Whether each session's access token verifies, and is of the generation that the store knows."""
        authority, store = self._sessions.gateway.authority, self._sessions._store
        for issued in (issued for chain in self._chains for issued in chain):
            raw = handle_bytes(issued.session.handle)
            reply = store.run(Call("info", authority.tag_of_handle(raw), (issued.session.handle,)))
            generation = int(dict(zip(reply[2::2], reply[3::2], strict=True))[b"G"])
            claims = self._sessions.verify(issued.access_token).claims
            if generation < 2 or int(claims["refreshTokenHash1"][:8], 16) != generation:
                return False
        return True

    def close(self) -> None:
        for close in self._closing:
            close()
        self._sessions.close()


def in_tasks(runner: asyncio.Runner, call: Callable[[int], Awaitable[None]]) -> harness.Turn:
    """A turn of 50 tasks in one event loop, one call after another in each."""

    async def task(number: int, passes: int) -> None:
        for _ in range(passes):
            await call(number)

    async def everybody(passes: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(task(number, passes))

    return measured(lambda passes: runner.run(everybody(passes)), TASKS)


def in_threads(executor: ThreadPoolExecutor, number: int, call: Callable[[int], None]) -> harness.Turn:
    """A turn of that many threads; as many calls in all as 50 tasks make."""

    def calls(place: int, passes: int) -> None:
        for _ in range(stores.share(passes * TASKS, number, place)):
            call(place)

    def everybody(passes: int) -> None:
        for done in [executor.submit(calls, place, passes) for place in range(number)]:
            done.result()

    return measured(everybody, TASKS)


def measured(work: Callable[[int], object], calls_a_pass: int) -> harness.Turn:
    def take(passes: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        work(passes)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        calls = passes * calls_a_pass
        return cpu * 1e6 / calls, wall * 1e6 / calls

    return take


# --- turns and figures ---


def timings(workers: list[Worker], rounds: int) -> dict[str, harness.Timing]:
    def taking(name: str) -> harness.Turn:
        def take(passes: int) -> tuple[float, float]:
            for worker in workers:
                worker.begin(name, passes)
            taken = [worker.receive() for worker in workers]
            # Of them all together: the slowest one's wall time, by which all had done theirs.
            return sum(cpu for cpu, _ in taken) / len(taken), max(wall for _, wall in taken) / len(taken)

        return take

    turns = {name: taking(name) for name in workers[0].names}
    title = f"refresh, {len(workers)} {'process' if len(workers) == 1 else 'processes'}"
    return harness.run(turns, rounds, title, calls_a_pass=TASKS * len(workers), seconds=ROUND_SECONDS)


def described(found: dict[str, harness.Timing]) -> dict[str, Any]:
    """The times; and for each refresh, its rate as a share of EVALSHA's, in percent."""
    shares = {}
    for name, timing in found.items():
        what, _, kind = name.partition(", ")
        if what == "refresh":
            bare = found[f"EVALSHA, {kind}"]
            shares[kind] = {
                "wall": harness.figures([100 * b / r for b, r in zip(bare.wall, timing.wall, strict=True)]),
                "cpu": harness.figures([100 * b / r for b, r in zip(bare.cpu, timing.cpu, strict=True)]),
            }
    return {"times": harness.to_json(found), "shares": shares}


def layout(results: dict[str, Any]) -> str:
    parts = []
    for number, found in results.items():
        body = []
        for name, row in found["times"].items():
            what, _, kind = name.partition(", ")
            share = found["shares"][kind] if what == "refresh" else None
            body.append(
                [
                    name,
                    f"{1e6 / row['wall']['median']:,.0f}",
                    f"{1e6 / row['wall']['high']:,.0f} - {1e6 / row['wall']['low']:,.0f}",
                    f"{row['cpu']['median']:.1f}",
                    *([f"{share['wall']['median']:.0f} %", f"{share['cpu']['median']:.0f} %"] if share else ["", ""]),
                ]
            )
        head = [f"{number} process(es)", "calls/s", "middle half", "client CPU us", "share", "by CPU"]
        parts.append(harness.layout(head, body, widths=(26, 11, 20, 15, 9, 9)))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
