"""How soon a revocation is enforced in another process, what it takes to end a user's many sessions, and how long a
gateway takes to load what is revoked already.

    python bench/revocations.py [--revocations 300] [--entries 10000000] [--rounds 2] [--json FILE]

Reach      from the moment when `Sessions.revoke` returns in one process until `SessionVerifier.verify` refuses the
           session's token in another, on the clock that both share. The other process is idle (it looks every 0.2 ms),
           or verifies other sessions' tokens flat out, in one thread or in four. What was refused before `revoke` had
           returned counts as 0. Revocations come at random times, so that they meet every phase of the poll.
User       `Sessions.revoke_user` of so many sessions: until it returns, and the longest time for which the server did
           nothing else, as its slow log says.
Bootstrap  of a gateway, in a new process, from a store that holds that many entries, while another process goes on
           revoking: seconds until it is ready, its CPU and memory, and what an entry takes in the store.

Proven on the way: each token was accepted before and is refused after; other sessions' tokens are accepted throughout;
a gateway that is not ready yet answers StoreUnavailable; one that says it is ready refuses all that had been revoked
before it began and, from the next poll on, all that has been revoked since; none of the entries is missing.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness
import stores
from fastverify import Sessions, SessionVerifier, StoreUnavailable, Unauthorised
from fastverify.store.calls import script

REVOCATIONS = 300
ENTRIES = 10_000_000
#: Mean seconds between two revocations whose way is watched.
GAP = 0.03
PATIENCE = 30.0
BOOTSTRAP_PATIENCE = 300.0
#: Seconds between two looks of a process that is idle.
LOOK = 0.0002
#: Sessions whose tokens a busy process verifies, over and over.
OTHERS = 64
MODES = {"idle": 0, "flat out, one thread": 1, "flat out, four threads": 4}
#: Sessions of one user that are ended together.
USERS = (100, 1_000, 10_000)
#: Revocations a second while a gateway loads.
WRITES = 500
#: Sessions whose tokens are there to be refused after a bootstrap: ended before it, and while it goes on.
WITNESSES = 200
SAMPLE = 2_000


def main() -> int:
    parser = harness.parser(__doc__, rounds=2)
    parser.add_argument("--revocations", type=int, default=REVOCATIONS, help=f"default: {REVOCATIONS}")
    parser.add_argument("--entries", type=int, default=ENTRIES, help=f"default: {ENTRIES:,}")
    arguments = parser.parse_args()
    logging.getLogger("fastverify").addHandler(logging.NullHandler())
    # The append-only file is not rewritten meanwhile: a fork of the server is not what is measured.
    with (
        tempfile.TemporaryDirectory() as folder,
        stores.server(Path(folder), **{"auto-aof-rewrite-percentage": "0"}) as server,
        stores.patient_sessions(server.url, stores.settings()) as sessions,
    ):
        results = {
            "reach": {mode: reach(server, sessions, mode, arguments.revocations) for mode in MODES},
            "user": {number: user(server, sessions, number, arguments.rounds) for number in USERS},
            "bootstrap": bootstrap(server, sessions, arguments.entries, arguments.rounds),
        }
        environment = harness.environment("redis", "hiredis") | {"server": server.version()}
    harness.progress("")
    harness.publish(arguments.json, "revocations", environment, results, layout(results))
    return 0


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise SystemExit(f"revocations: {otherwise}")


def refused(gateway: SessionVerifier, token: str) -> bool:
    try:
        gateway.verify(token)
    except Unauthorised:
        return True
    return False


@contextmanager
def child(work: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Another process, and a pipe to it; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    except EOFError:
        raise SystemExit("revocations: a child process ended; its last words are above") from None
    finally:
        ours.close()
        process.join(PATIENCE)


# --- reach ---


def reach(server: stores.Server, sessions: Sessions, mode: str, number: int) -> dict[str, Any]:
    """Milliseconds from acknowledged to refused, and how many verifications went on meanwhile."""
    doomed = [sessions.create(f"doomed-{n}") for n in range(number)]
    others = [sessions.create(f"other-{n}").access_token for n in range(OTHERS)]
    numbers = random.Random(11)
    with child(watch, server.url, sessions.config.issuer, MODES[mode]) as pipe:
        pipe.send(([issued.access_token for issued in doomed], others))
        expect(pipe.recv() == "accepted", "a token is refused that is not revoked")
        acknowledged = []
        for done, issued in enumerate(doomed):
            harness.progress(f"reach, {mode}: {done} of {number}")
            time.sleep(numbers.expovariate(1 / GAP))
            expect(sessions.revoke(issued.session.handle), "a session was not there to be revoked")
            acknowledged.append(time.monotonic())
        seen, verified, seconds = pipe.recv()
    latencies = [max(0.0, 1e3 * (at - ack)) for at, ack in zip(seen, acknowledged, strict=True)]
    return {
        "milliseconds": sorted(round(latency, 3) for latency in latencies),
        **quantiles(latencies),
        "verified_a_second": verified / seconds,
    }


def watch(pipe: Connection, url: str, issuer: str, threads: int) -> None:
    """In the child: when each of the tokens was refused, which are revoked in this order."""
    doomed, others = pipe.recv()
    with SessionVerifier.connect(url, issuer=issuer, wait=stores.READY_SECONDS) as gateway:
        expect(not any(refused(gateway, token) for token in (*doomed, *others)), "a good token is refused")
        pipe.send("accepted")
        done, counts = threading.Event(), itertools.count()
        beside = [threading.Thread(target=verify_all, args=(gateway, others, done)) for _ in range(threads - 1)]
        for thread in beside:
            thread.start()
        begin, seen = time.monotonic(), []
        for token in doomed:
            latest = time.monotonic() + PATIENCE
            while not refused(gateway, token):
                if threads:
                    for other in others:
                        gateway.verify(other)
                    next(counts)
                else:
                    time.sleep(LOOK)
                expect(time.monotonic() < latest, "a revocation does not arrive")
            seen.append(time.monotonic())
        seconds = time.monotonic() - begin
        done.set()
        for thread in beside:
            thread.join()
        expect(not any(refused(gateway, token) for token in others), "another session's token is refused")
        pipe.send((seen, next(counts) * OTHERS, seconds))
        wait_for_end(pipe)


def verify_all(gateway: SessionVerifier, tokens: list[str], done: threading.Event) -> None:
    while not done.is_set():
        for token in tokens:
            gateway.verify(token)


def wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        pass


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: ordered[min(len(ordered) - 1, int(part * len(ordered)))] for name, part in at.items()}


# --- a user of many sessions ---


def user(server: stores.Server, sessions: Sessions, number: int, rounds: int) -> dict[str, float]:
    """Milliseconds until all of a user's sessions are ended, and of them the longest in one script; medians."""
    calls, longest = [], []
    with server.client() as client:
        client.config_set("slowlog-log-slower-than", 500)
        sessions.revoke_user("nobody")  # the first call is sent by its text
        for some in range(rounds):
            harness.progress(f"a user of {number:,} sessions, {some + 1} of {rounds}")
            name = f"user-of-{number}-{some}"
            for _ in stores.create_many(sessions._store, sessions.gateway.authority, itertools.repeat(name, number)):
                pass
            client.slowlog_reset()
            begin = time.perf_counter()
            expect(len(sessions.revoke_user(name)) == number, "a session was not ended")
            calls.append(1e3 * (time.perf_counter() - begin))
            slow = [one for one in client.slowlog_get(128) if script("revoke_user").sha1.encode() in one["command"]]
            longest.append(max((one["duration"] / 1e3 for one in slow), default=0.5))
            expect(not sessions.handles(name), "a session is left")
    return {"milliseconds": statistics.median(calls), "longest_script": statistics.median(longest)}


# --- bootstrap ---


def bootstrap(server: stores.Server, sessions: Sessions, entries: int, rounds: int) -> dict[str, Any]:
    """How long a gateway loads, and what the entries take."""
    harness.progress(f"filling the store with {entries:,} entries")
    before, begin = server.memory, time.monotonic()
    placement = sessions.gateway.authority.placement
    first_window = (int(time.time()) // 300 + 14) * 300  # the first of them goes in more than an hour
    with server.client() as client:
        sample = stores.fill_entries(client, placement, entries, first_window=first_window)
        tag = placement.tag(0)
        one_set = f"{tag}:rev:{first_window}"
        set_bytes = int(client.memory_usage(one_set, samples=0) or 0) / max(1, int(client.scard(one_set)))
    filling, size = time.monotonic() - begin, server.memory - before
    some = random.Random(12).sample(range(len(sample) // 16), min(SAMPLE, len(sample) // 16))
    handles = [sample[16 * n : 16 * n + 16] for n in some]
    runs = [one_bootstrap(server, sessions, entries, handles, number) for number in range(rounds)]
    return {
        "entries": entries,
        "filling_seconds": filling,
        "store_bytes_an_entry": size / entries,
        "set_bytes_an_entry": set_bytes,
        "writes_a_second": WRITES,
        "runs": runs,
        "seconds": harness.figures([run["seconds"] for run in runs]),
    }


def one_bootstrap(
    server: stores.Server, sessions: Sessions, entries: int, handles: list[bytes], number: int
) -> dict[str, float]:
    harness.progress(f"bootstrap {number + 1}")
    early = [sessions.create(f"early-{number}-{n}") for n in range(WITNESSES)]
    late = [sessions.create(f"late-{number}-{n}") for n in range(WITNESSES)]
    spared = sessions.create(f"spared-{number}")
    sessions.revoke_many([issued.session.handle for issued in early])
    with child(load, server.url, sessions.config.issuer) as pipe:
        pipe.send((entries, handles, [issued.access_token for issued in early], spared.access_token))
        expect(pipe.recv() == "begun", "the child has not begun")
        pace, written, ended = time.monotonic(), 0, []
        while not pipe.poll(max(0.0, pace + written / WRITES - time.monotonic())):
            if late and written % 10 == 0:
                issued = late.pop()
                expect(sessions.revoke(issued.session.handle), "a session was not there to be revoked")
                ended.append(issued.access_token)
            else:
                sessions.revoke(str(uuid.UUID(bytes=os.urandom(16), version=4)))
            written += 1
        seconds = time.monotonic() - pace
        found = pipe.recv()
        pipe.send(ended)
        expect(pipe.recv() == "refused", "what was revoked meanwhile is accepted")
    return found | {"writes": written, "writes_a_second": written / seconds}


def load(pipe: Connection, url: str, issuer: str) -> None:
    """In the child: be a gateway that starts, and see that it is right as soon as it says so."""
    entries, handles, early, spared = pipe.recv()
    before, cpu = resident(), time.process_time()
    pipe.send("begun")
    begin, most = time.monotonic(), 0
    with SessionVerifier.connect(url, issuer=issuer, wait=0) as gateway:
        while not gateway.ready:
            most = max(most, gateway.revoked_entries)
            expect(not serves(gateway, spared), "a gateway serves that is not ready")
            expect(time.monotonic() < begin + BOOTSTRAP_PATIENCE, "a gateway does not become ready")
            time.sleep(0.01)
        seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
        held, now = gateway.revoked_entries, int(time.time())
        expect(held >= entries, f"a gateway is ready with {held:,} of {entries:,} entries")
        expect(all(gateway._table.lookup(session=one, now=now) for one in handles), "an entry is missing")
        expect(all(refused(gateway, token) for token in early), "what was revoked before is accepted")
        expect(serves(gateway, spared), "a good token is refused")
        pipe.send(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "entries": held,
                "resident_bytes": resident() - before,
                "process_bytes": resident(),
                "most_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "lag_seconds": gateway.lag_seconds,
            }
        )
        meanwhile = pipe.recv()
        gateway.wait_for_poll(PATIENCE)
        expect(all(refused(gateway, token) for token in meanwhile), "what was revoked meanwhile is accepted")
        pipe.send("refused")
        wait_for_end(pipe)


def serves(gateway: SessionVerifier, token: str) -> bool:
    try:
        gateway.verify(token)
    except StoreUnavailable:
        return False
    return True


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- output ---


def layout(results: dict[str, Any]) -> str:
    rows = [
        [mode, *(f"{row[name]:.2f}" for name in ("p50", "p90", "p99", "max")), f"{row['verified_a_second']:,.0f}"]
        for mode, row in results["reach"].items()
    ]
    head = ["ms from acknowledged to refused", "p50", "p90", "p99", "max", "verified/s"]
    parts = [harness.layout(head, rows, widths=(34, 9, 9, 9, 9, 13))]
    rows = [
        [f"{number:,} sessions", f"{row['milliseconds']:.1f}", f"{row['longest_script']:.1f}"]
        for number, row in results["user"].items()
    ]
    head = ["ms to end a user's sessions", "in all", "longest script"]
    parts.append(harness.layout(head, rows, widths=(34, 9, 16)))
    loaded = results["bootstrap"]
    rows = [
        [
            f"{number + 1}",
            f"{run['seconds']:.1f}",
            f"{run['cpu_seconds']:.1f}",
            f"{run['writes_a_second']:,.0f}",
            f"{run['entries']:,}",
            f"{run['resident_bytes'] / 1e6:,.0f} MB",
            f"{run['resident_bytes'] / run['entries']:.1f}",
        ]
        for number, run in enumerate(loaded["runs"])
    ]
    head = [f"bootstrap, {loaded['entries']:,} entries", "seconds", "CPU", "writes/s", "held", "resident", "B/entry"]
    parts.append(harness.layout(head, rows, widths=(34, 9, 9, 10, 13, 12, 9)))
    parts.append(
        f"in the store: {loaded['store_bytes_an_entry']:.1f} bytes an entry; "
        f"its set alone: {loaded['set_bytes_an_entry']:.1f}; filled in {loaded['filling_seconds']:.0f} s"
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
