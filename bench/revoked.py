"""The revocation table: what a look-up costs, whether it shows in verify(), what an entry takes, whom growing holds up.

    python bench/revoked.py [--entries 1000,1000000,10000000] [--rounds 15] [--json FILE]

For each number of entries a table is filled with random sessions, and proven: what is in it is refused, by look-up and
by verify(), from the cache and not; what is not is accepted, and so is what has expired. Then, in turns:

Look-ups   lookup() of many random targets, so that each comes from memory and not from a cache of the processor; and of
           one target, again and again. The last of the ratios is that of the largest table to the one before.
verify()   cold, of one token and of many sessions' tokens, with a table attached and with an empty one: the share that
           the table adds is taken within each round.
Hits       of the tokens of 16 and of 1,024 sessions in the cache, with the table unchanged, and with an entry of it
           prolonged before each pass, so that every hit looks its session up again.
Filling    one by one, in calls of 1,000, and in one call, each in a process of its own: entries a second, and bytes an
           entry as the table counts them and as the resident set grew: at the end, and the most there was while the
           last fifth came.
Stalls     of a thread that verifies a cached token all the time: its interruptions of 20 us and more, on the wall,
           while another thread enters the last three tenths of the entries, which makes the table grow, or forgets the
           first half of them. "Net" is without what the thread waited for a processor, where the system tells. Two
           lines to compare with: nobody else at work, and a thread that computes in Python. Two threads that compute in
           Python take turns of the switch interval (5 ms); "turns of 0.1 ms" has that shortened, so that what the table
           itself holds up shows.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import harness
from contenders import POLICY, prepared
from fastverify import Verifier
from fastverify._core import RevocationTable
from fastverify.errors import RevokedToken
from memory import in_a_child, resident

ENTRIES = (1_000, 1_000_000, 10_000_000)
ENTRY_BYTES = 25
SESSION = 1
#: What is looked up at random: with as many cache lines, more than most processors hold.
TARGETS = 400_000
#: Tokens of different sessions; a cold verification with ES256 takes ten times as long.
SESSIONS = {"HS256": 16_384, "ES256": 2_048}
HITS = (16, 1_024)
PACK = 1_000
INTERRUPTION = 20_000  # nanoseconds
CONTROL_SECONDS = 2.0
SHORT_TURNS = 0.0001
NOW = int(time.time())
UNTIL = NOW + 7_200


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--entries", default=",".join(map(str, ENTRIES)), help="numbers, comma-separated")
    arguments = parser.parse_args()
    sizes = sorted({int(number) for number in arguments.entries.split(",")})
    if sizes[0] < 100:
        parser.error("a table here has at least 100 entries")
    packed = packed_sessions(sizes[-1])
    filling = {name: in_a_child(partial(filled, packed, fill)) for name, fill in FILLING.items()}
    tables = {size: table_of(packed, size) for size in sizes}
    trials = {algorithm: harness.Trial.of(algorithm) for algorithm in SESSIONS}
    for size, table in tables.items():
        prove(trials["HS256"], table, packed, size)
    results: dict[str, Any] = {
        "lookups": lookups(tables, packed, arguments.rounds),
        "cold": {name: cold(trial, tables, arguments.rounds) for name, trial in trials.items()},
        "hits": hits(trials["HS256"], tables, arguments.rounds),
        "filling": filling,
    }
    tables.clear()
    results["stalls"] = stalls(trials["HS256"], packed)
    results["summary"] = summary(results)
    harness.progress("")
    environment = harness.environment() | {"switch interval": f"{sys.getswitchinterval() * 1e3:g} ms"}
    harness.publish(arguments.json, "revoked", environment, results, layout(results, sizes[-1]))
    return 0


# --- entries, tables, proof ---


def packed_sessions(count: int) -> bytes:
    """Entries of as many random sessions."""
    harness.progress(f"{count:,} random entries")
    entries = bytearray(ENTRY_BYTES * count)
    entries[::ENTRY_BYTES] = bytes([SESSION]) * count
    numbers = random.Random(3)
    for byte in range(1, 17):
        entries[byte::ENTRY_BYTES] = numbers.randbytes(count)
    return bytes(entries)


def entry_of(handle: bytes) -> bytes:
    return bytes([SESSION]) + handle + bytes(8)


def handle_in(packed: bytes, number: int) -> bytes:
    return packed[ENTRY_BYTES * number + 1 : ENTRY_BYTES * number + 17]


def table_of(packed: bytes, size: int) -> RevocationTable:
    harness.progress(f"a table of {size:,} entries")
    table = fresh(RevocationTable())
    table.add_many(packed[: ENTRY_BYTES * size], UNTIL)
    return table


def fresh(table: RevocationTable) -> RevocationTable:
    table.fresh_until = time.monotonic() + 3_600
    return table


def prove(trial: harness.Trial, table: RevocationTable, packed: bytes, size: int) -> None:
    """End the program if the table is wrong about what it holds, what it lacks or what has expired."""
    numbers = random.Random(size)
    there = [handle_in(packed, numbers.randrange(size)) for _ in range(1_000)]
    absent = [numbers.randbytes(16) for _ in range(1_000)]
    expect(len(table) == size, "holds another number of entries")
    expect(all(table.lookup(session=one, now=NOW) == SESSION for one in there), "does not find what it holds")
    expect(not any(table.lookup(token=one, now=NOW) for one in there), "takes a token for a session")
    expect(not any(table.lookup(session=one, now=NOW) for one in absent), "finds what it does not hold")
    expect(not any(table.lookup(session=one, now=UNTIL) for one in there), "finds what has expired")
    token, handle = trial.sibling(1), bytes.fromhex(handle_text(1).replace("-", ""))
    for caching in (0, 1_000):
        with_table = Verifier(trial.keys, **POLICY, cache_size=caching, revocations=table)
        trial.prove("with a table", with_table.verify)
        with_table.verify(token)
        table.add(entry_of(handle), NOW + 600 + caching)  # an hour hence the token itself has expired
        try:
            with_table.verify(token)
        except RevokedToken:
            pass
        else:
            expect(False, "accepts a revoked session")
        with_table.verify(token, now=NOW + 600 + caching)
        table.discard_expired(NOW + 600 + caching)
        expect(len(table) == size, "has not forgotten what expired")


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise SystemExit(f"revocation table: {otherwise}")


def handle_text(number: int) -> str:
    """The session of `Trial.sibling`."""
    return str(uuid.UUID(int=number, version=4))


# --- times ---


def lookups(tables: dict[int, RevocationTable], packed: bytes, rounds: int) -> dict[str, dict[str, Any]]:
    numbers = random.Random(4)
    absent = [numbers.randbytes(16) for _ in range(TARGETS)]
    turns: dict[str, harness.Turn] = {"no-op call": harness.turn(lookup_nothing, absent[:64] * 100)}
    for size, table in tables.items():
        present = [handle_in(packed, numbers.randrange(size)) for _ in range(TARGETS)]
        turns |= {
            f"{size:,}: absent": harness.turn(look_up(table), absent),
            f"{size:,}: present": harness.turn(look_up(table), present),
            f"{size:,}: absent, again and again": harness.turn(look_up(table), absent[:1] * 6_400),
        }
    return harness.to_json(harness.run(turns, rounds, "look-ups", calls_a_pass=TARGETS))


def look_up(table: RevocationTable) -> Callable[[bytes], int]:
    lookup, now = table.lookup, NOW
    return lambda target: lookup(session=target, now=now)


def lookup_nothing(target: bytes) -> int:
    return nothing(session=target, now=NOW)


def nothing(*, session: bytes, now: int) -> int:
    """The same calls and no look-up."""
    return 0


def cold(trial: harness.Trial, tables: dict[int, RevocationTable], rounds: int) -> dict[str, dict[str, Any]]:
    number = SESSIONS[trial.algorithm]
    harness.progress(f"{number:,} tokens of {trial.algorithm}")
    many = [trial.sibling(i) for i in range(number)]
    one = trial.copies() * (number // 64)
    verifiers = {
        name: prepared(Verifier(trial.keys, **POLICY, cache_size=0, revocations=table)).verify
        for name, table in {
            "empty": fresh(RevocationTable()),
            **{f"{n:,}": table for n, table in tables.items()},
        }.items()
    }
    found = {}
    for what, tokens in (("one session", one), ("many sessions", many)):
        turns = {name: harness.turn(trial.prove(name, verify), tokens) for name, verify in verifiers.items()}
        timings = harness.run(turns, rounds, f"cold {trial.algorithm}, {what}", calls_a_pass=number)
        found[what] = {
            name: timing.to_json() | {"share": harness.figures(shares(timing.cpu, timings["empty"].cpu))}
            for name, timing in timings.items()
        }
    return found


def shares(times: list[float], reference: list[float]) -> list[float]:
    """By how much, in each round, the one exceeds the other."""
    return [a / b - 1 for a, b in zip(times, reference, strict=True)]


#: Ever later times to prolong an entry to.
prolonging = itertools.count(UNTIL + 1)


def hits(trial: harness.Trial, tables: dict[int, RevocationTable], rounds: int) -> dict[str, dict[str, Any]]:
    tokens = [trial.sibling(i) for i in range(max(HITS))]
    found: dict[str, dict[str, Any]] = {}
    for number in HITS:
        turns: dict[str, harness.Turn] = {}
        for size, table in tables.items():
            verify = trial.prove("cached", Verifier(trial.keys, **POLICY, revocations=table).verify)
            for token in tokens[:number]:
                verify(token)
            turns[f"{size:,}: unchanged"] = hitting(verify, tokens[:number], table, itertools.repeat(UNTIL))
            turns[f"{size:,}: after a change"] = hitting(verify, tokens[:number], table, prolonging)
        timings = harness.run(turns, rounds, f"hits, {number:,} sessions", calls_a_pass=number)
        rows = harness.to_json(timings)
        for size in tables:
            changed, unchanged = timings[f"{size:,}: after a change"].cpu, timings[f"{size:,}: unchanged"].cpu
            more = [1e3 * (a - b) for a, b in zip(changed, unchanged, strict=True)]
            rows[f"{size:,}: after a change"]["nanoseconds_more"] = harness.figures(more)
        found[f"{number:,} sessions"] = rows
    return found


def hitting(verify: harness.Check, tokens: list[str], table: RevocationTable, expiries: Iterator[int]) -> harness.Turn:
    """Passes over the tokens, with one entry entered anew before each: until the same time, or until a later one."""
    one = next(iter(table.entries()))[0]
    table.add(one, UNTIL)

    def take(passes: int) -> tuple[float, float]:
        add = table.add
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(passes):
            add(one, next(expiries))
            for token in tokens:
                verify(token)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        calls = passes * len(tokens)
        return cpu * 1e6 / calls, wall * 1e6 / calls

    return take


# --- filling ---

Fill = Callable[[RevocationTable, bytes], None]


def one_by_one(table: RevocationTable, packed: bytes) -> None:
    add = table.add
    for at in range(0, len(packed), ENTRY_BYTES):
        add(packed[at : at + ENTRY_BYTES], UNTIL)


def in_packs(table: RevocationTable, packed: bytes) -> None:
    for at in range(0, len(packed), PACK * ENTRY_BYTES):
        table.add_many(packed[at : at + PACK * ENTRY_BYTES], UNTIL)


def in_one_call(table: RevocationTable, packed: bytes) -> None:
    table.add_many(packed, UNTIL)


FILLING: dict[str, Fill] = {"one by one": one_by_one, f"in calls of {PACK:,}": in_packs, "in one call": in_one_call}


def filled(packed: bytes, fill: Fill) -> dict[str, float]:
    """What a new table of all entries takes; sampled on the way by a thread."""
    count = len(packed) // ENTRY_BYTES
    harness.progress(f"filling, {fill.__name__.replace('_', ' ')}")
    table = RevocationTable()
    empty, before = sys.getsizeof(table), resident()
    most: dict[str, float] = {"bytes": 0, "resident": 0}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            entries = len(table)  # read first, so that what comes meanwhile counts against the table
            if entries >= 0.8 * count:
                most["bytes"] = max(most["bytes"], (sys.getsizeof(table) - empty) / entries)
                most["resident"] = max(most["resident"], (resident_now() - before) / entries)

    sampler = threading.Thread(target=sample)
    sampler.start()
    begin = time.process_time()
    fill(table, packed)
    seconds = time.process_time() - begin
    done.set()
    sampler.join()
    expect(len(table) == count, "lost entries while it was filled")
    return {
        "entries": count,
        "cpu_seconds": seconds,
        "bytes": (sys.getsizeof(table) - empty) / count,
        "most_bytes": most["bytes"],
        "resident": (resident() - before) / count,
        "most_resident": most["resident"],
    }


def resident_now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- stalls ---


#: A table, and what is done with it beside a reader.
Scene = tuple[RevocationTable, Callable[[], object]]


def stalls(trial: harness.Trial, packed: bytes) -> dict[str, dict[str, Any]]:
    scenes: dict[str, Callable[[], Scene]] = {
        "nobody else at work": lambda: (table_of(packed, 100), lambda: time.sleep(CONTROL_SECONDS)),
        "a thread that computes": lambda: (table_of(packed, 100), compute),
        **{f"entering, {name}": partial(growing, packed, fill) for name, fill in FILLING.items()},
        "forgetting half": partial(forgetting, packed),
    }
    found = {name: watched(trial, name, *scene()) for name, scene in scenes.items()}
    for name in ("a thread that computes", "entering, one by one"):
        shorter = f"{name}, turns of 0.1 ms"
        scene = scenes[name]()
        with switch_interval(SHORT_TURNS):
            found[shorter] = watched(trial, shorter, *scene)
    return found


def growing(packed: bytes, fill: Fill) -> Scene:
    some = len(packed) // ENTRY_BYTES * 7 // 10
    table, rest = table_of(packed, some), packed[some * ENTRY_BYTES :]
    return table, lambda: fill(table, rest)


def forgetting(packed: bytes) -> Scene:
    count = len(packed) // ENTRY_BYTES
    half = packed[: count // 2 * ENTRY_BYTES]
    table = fresh(RevocationTable())
    table.add_many(half, NOW + 1)
    table.add_many(packed[len(half) :], UNTIL)
    return table, lambda: table.discard_expired(NOW + 1)


def compute() -> None:
    end = time.perf_counter() + CONTROL_SECONDS
    while time.perf_counter() < end:
        for _ in range(1_000):
            pass


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def watched(trial: harness.Trial, name: str, table: RevocationTable, act: Callable[[], object]) -> dict[str, Any]:
    """How a thread that verifies all the time is interrupted while this one acts."""
    harness.progress(f"stalls: {name}")
    verify = trial.prove("beside a writer", Verifier(trial.keys, **POLICY, revocations=table).verify)
    calls, ready, done = 0, threading.Event(), False
    wall: list[float] = []
    net: list[float] = []

    def reads() -> None:
        nonlocal calls
        clock, token, waited_for = time.perf_counter_ns, trial.token, Waiting()
        waited = waited_for.a_processor()
        ready.set()
        last = clock()
        while not done:
            verify(token)
            now = clock()
            calls += 1
            if now - last >= INTERRUPTION:
                more = waited_for.a_processor() - waited
                waited += more
                wall.append((now - last) / 1e3)
                net.append((now - last - more) / 1e3)
                now = clock()
            last = now

    reader = threading.Thread(target=reads)
    reader.start()
    ready.wait()
    begin = time.perf_counter()
    act()
    seconds = time.perf_counter() - begin
    done = True
    reader.join()
    return {
        "seconds": seconds,
        "calls": calls,
        "interruptions": len(wall),
        "longer_than_a_millisecond": sum(one > 1_000 for one in wall),
        "wall": extent(wall),
        "net": extent(net),
    }


class Waiting:
    """How long this thread was ready to run and had no processor: on Linux; elsewhere 0."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._file = -1

    def a_processor(self) -> int:
        """Nanoseconds since the thread began."""
        return int(os.pread(self._file, 64, 0).split()[1]) if self._file >= 0 else 0

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def extent(values: list[float]) -> dict[str, float]:
    """Microseconds."""
    if not values:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p99": round(ordered[len(ordered) * 99 // 100], 1),
        "max": round(ordered[-1], 1),
    }


# --- output ---


def summary(results: dict[str, Any]) -> dict[str, float]:
    """What targets ask for, of the largest table."""
    lookups, hits, filling, stalls = (results[name] for name in ("lookups", "hits", "filling", "stalls"))
    sizes = [name.removesuffix(": absent") for name in lookups if name.endswith(": absent")]
    found = {
        f"cold_{algorithm}_{what.replace(' ', '_')}_percent": 100 * rows[sizes[-1]]["share"]["median"]
        for algorithm, groups in results["cold"].items()
        for what, rows in groups.items()
    }
    for number, rows in hits.items():
        more = rows[f"{sizes[-1]}: after a change"]["nanoseconds_more"]
        found[f"hit_of_{number.replace(' ', '_')}_nanoseconds"] = more["median"]
    large, small = (harness.cpu(hits[f"{HITS[0]} sessions"][f"{size}: unchanged"]) for size in (sizes[-1], sizes[0]))
    found["hit_unchanged_nanoseconds"] = 1e3 * (large - small)
    found["bytes_an_entry"] = max(max(row["bytes"], row["most_bytes"]) for row in filling.values())
    found["resident_at_rest_bytes_an_entry"] = max(row["resident"] for row in filling.values())
    found["resident_bytes_an_entry"] = max(max(row["resident"], row["most_resident"]) for row in filling.values())
    found["longest_stall_growing_microseconds"] = stalls["entering, in one call"]["net"]["max"]
    found["longest_stall_forgetting_microseconds"] = stalls["forgetting half"]["net"]["max"]
    if len(sizes) > 1:
        last, before = (harness.cpu(lookups[f"{size}: absent"]) for size in (sizes[-1], sizes[-2]))
        found["lookup_ratio"] = last / before
    return found


def layout(results: dict[str, Any], most: int) -> str:
    parts = []
    call = harness.cpu(results["lookups"]["no-op call"])
    body = [[name, *times(row), f"{1e3 * (harness.cpu(row) - call):.0f}"] for name, row in results["lookups"].items()]
    head = ["lookup()", "CPU us", "middle half", "wall us", "ns more than no-op"]
    parts.append(harness.layout(head, body, widths=(38, 10, 20, 10, 20)))
    for algorithm, groups in results["cold"].items():
        for what, rows in groups.items():
            body = [
                [name, *times(row), *(f"{100 * row['share'][key]:+.1f} %" for key in ("median", "low", "high"))]
                for name, row in rows.items()
            ]
            head = [f"{algorithm} cold, {what}", "CPU us", "middle half", "wall us", "added", "middle", "half"]
            parts.append(harness.layout(head, body, widths=(38, 10, 20, 10, 10, 10, 10)))
    for number, rows in results["hits"].items():
        body = [
            [name, *times(row), f"{row['nanoseconds_more']['median']:.1f}" if "nanoseconds_more" in row else ""]
            for name, row in rows.items()
        ]
        head = [f"cached, {number}", "CPU us", "middle half", "wall us", "ns more"]
        parts.append(harness.layout(head, body, widths=(38, 10, 20, 10, 10)))
    body = [
        [
            name,
            f"{row['entries'] / row['cpu_seconds']:,.0f}",
            *(f"{row[key]:.1f}" for key in ("bytes", "most_bytes", "resident", "most_resident")),
        ]
        for name, row in results["filling"].items()
    ]
    head = [f"{most:,} entries", "entries/s", "bytes each", "at most", "resident each", "at most"]
    parts.append(harness.layout(head, body, widths=(38, 14, 12, 10, 15, 10)))
    body = [
        [
            name,
            f"{row['seconds']:.1f}",
            f"{row['calls'] / row['seconds']:,.0f}",
            f"{row['interruptions']:,}",
            *(f"{row['wall'][key]:,.0f}" for key in ("p50", "p99", "max")),
            f"{row['longer_than_a_millisecond']:,}",
            f"{row['net']['max']:,.0f}",
        ]
        for name, row in results["stalls"].items()
    ]
    head = ["interruptions of a reader, us", "s", "calls/s", "number", "p50", "p99", "longest", "> 1 ms", "net longest"]
    parts.append(harness.layout(head, body, widths=(44, 7, 13, 9, 9, 9, 10, 9, 13)))
    parts.append("\n".join(f"{name.replace('_', ' ')}: {value:.2f}" for name, value in results["summary"].items()))
    return "\n\n".join(parts)


def times(row: dict[str, Any]) -> list[str]:
    cpu = row["cpu"]
    return [f"{cpu['median']:.3f}", f"{cpu['low']:.3f} - {cpu['high']:.3f}", f"{row['wall']['median']:.3f}"]


if __name__ == "__main__":
    sys.exit(main())
