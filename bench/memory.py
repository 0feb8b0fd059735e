"""Memory: what the cache takes when it is full, and whether anything grows or is left open over millions of calls.

    python bench/memory.py [--verifies 10000000] [--full] [--json FILE]

The cache is filled with twice as many different ES256 tokens as it has room for; what the resident set grew by, over
the entries it then holds, is what an entry costs with everything that it keeps alive. So is one that keeps a `Session`
beside each token, as a `SessionVerifier` does, and one that reaches the bound on its bytes first.

Then verifications of every kind run in turns: hits, cold ones that push others out of a small cache, asymmetric ones
with the cache off, batches, dicts, and tokens that are refused for every reason; keys are replaced and revocations come
and go meanwhile. The resident set is read after each tenth; a line through these points gives the growth. `--full`:
50 million, as the target has it. Answers are proven first (harness.py). Needs /proc.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import targets
from contenders import POLICY, prepared
from fastverify import Session, Verifier
from fastverify.errors import InvalidToken

ENTRIES = 65_536
BOUND = 16 << 20
FULL = 50_000_000
POINTS = 10
#: Calls until everything has its size.
WARM_UP = 2_000_000
#: Of 100 calls: how many are of which kind.
MIX = {"hit": 78, "dict": 5, "pushing out": 10, "batch": 2, "asymmetric": 1, "refused": 4}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--verifies", type=int, default=10_000_000, help="default: 10,000,000")
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} of them")
    arguments = parser.parse_args()
    if not Path("/proc/self/statm").exists():
        print("bench/memory.py reads /proc, which this system does not have")
        return 0
    results = {"cache": cache(), "growth": growth(FULL if arguments.full else arguments.verifies)}
    harness.progress("")
    harness.publish(arguments.json, "memory", harness.environment(), results, table(results))
    return 0


# --- the cache ---


def cache() -> dict[str, Any]:
    trial = harness.Trial.of("ES256")
    with tempfile.TemporaryDirectory() as folder:
        # In a file, so that nobody but the cache keeps a token.
        file = Path(folder) / "tokens"
        with file.open("w") as lines:
            for number in range(2 * ENTRIES):
                lines.write(trial.sibling(number) + "\n")
                tell("minted", number)
        return {
            "token_bytes": len(trial.token),
            "plain": in_a_child(lambda: filled(trial, file)),
            "session": in_a_child(lambda: filled(trial, file, make_view=Session.from_claims)),
            "bounded": in_a_child(lambda: filled(trial, file, cache_bytes=BOUND)),
        }


def filled(trial: harness.Trial, file: Path, *, cache_bytes: int = 1 << 30, **settings: Any) -> dict[str, float]:
    """Let a new verifier see every line."""
    # A small one first, so that what is done once, and pages in what is shared, is not counted.
    small = prepared(Verifier(trial.keys, **POLICY, cache_size=4, **settings))
    trial.prove("cache", small.verify)
    with file.open() as lines:
        before = resident()
        verifier = Verifier(trial.keys, **POLICY, cache_size=ENTRIES, cache_bytes=cache_bytes, **settings)
        verify = verifier.view if settings else verifier.verify
        for number, line in enumerate(lines):
            verify(line[:-1])
            tell("verified", number)
    info = verifier.cache_info()
    return {
        "entries": info.size,
        "capacity": info.capacity,
        "bytes": info.bytes,
        "bytes_bound": cache_bytes,
        "resident_bytes": resident() - before,
    }


def in_a_child(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Done in a process of its own, where nothing that was freed before can be used again."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=lambda: writer.send(work()))
    process.start()
    writer.close()
    try:
        answer: dict[str, float] = reader.recv()
    except EOFError:
        raise SystemExit(f"memory: a child ended with {process.exitcode}") from None
    process.join()
    return answer


def tell(what: str, number: int) -> None:
    if not number % 4_096:
        harness.progress(f"cache: {what} {number:,} of {2 * ENTRIES:,}")


# --- growth ---


def growth(verifies: int) -> dict[str, Any]:
    harness.progress("growth: preparing")
    mix = Mix()
    mix.run(WARM_UP)
    mix.refused, descriptors = 0, open_descriptors()
    points = [(0, resident())]
    begin = time.perf_counter()
    for number in range(1, POINTS + 1):
        done = verifies * number // POINTS
        harness.progress(f"growth: {done:,} of {verifies:,}")
        mix.run(verifies // POINTS)
        points.append((done, resident()))
    seconds = time.perf_counter() - begin
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope  # bytes a call, so MB a million
    return {
        "verifies": verifies,
        "seconds": seconds,
        "mix": MIX,
        "resident_mb": [size / 1e6 for _, size in points],
        "growth_mb": (points[-1][1] - points[0][1]) / 1e6,
        "slope_mb_a_10_million": slope * 10,
        "descriptors_before": descriptors,
        "descriptors_after": open_descriptors(),
        "refused": mix.refused,
    }


class Mix:
    """Every kind of call, over and over; each knows what must come out of it."""

    def __init__(self) -> None:
        trials = {name: harness.Trial.of(name) for name in ("HS256", "RS256", "PS256", "ES256", "EdDSA")}
        shared = trials["HS256"]
        self.table = harness.revocations()
        self.verifier = Verifier(shared.keys, **POLICY, cache_size=1_024, revocations=self.table)
        shared.prove("growth", self.verifier.verify)
        self.keys, self.token, self.claims = shared.keys, shared.token, shared.claims
        self.others = [shared.sibling(number) for number in range(8_192)]
        self.cold = {name: prepared(Verifier(trial.keys, **POLICY, cache_size=0)) for name, trial in trials.items()}
        self.pairs = itertools.cycle([(self.cold[name].verify, trial.token) for name, trial in trials.items()])
        self.bad = [
            *((self.cold[name], token) for name, trial in trials.items() for token in trial.bad.values()),
            *((self.verifier, token) for token in ("", "a.b.c", "x" * 9_000, shared.token[:-2], trials["ES256"].token)),
        ]
        self.position = 0
        self.refused = 0

    def run(self, verifies: int) -> None:
        for _ in range(verifies // 10_000):
            self.ten_thousand()

    def ten_thousand(self) -> None:
        verify, token = self.verifier.verify, self.token
        self.table.add(b"\x01" + os.urandom(16) + bytes(8), int(time.time()) + 2)
        self.table.discard_expired(int(time.time()))
        self.table.fresh_until = time.monotonic() + 3_600
        self.verifier.replace_keys(self.keys)
        for _ in range(MIX["hit"] * 100):
            verify(token)
        for _ in range(MIX["dict"] * 100):
            verify(token).to_dict()
        for other in self.some(MIX["pushing out"] * 100):
            verify(other)
        self.verifier.verify_many(self.some(MIX["batch"] * 100))
        for check, text in itertools.islice(self.pairs, MIX["asymmetric"] * 100):
            check(text)
        for verifier, text in itertools.islice(itertools.cycle(self.bad), MIX["refused"] * 100):
            try:
                verifier.verify(text)
            except InvalidToken:
                self.refused += 1
            else:
                raise SystemExit("a bad token was accepted")

    def some(self, number: int) -> list[str]:
        """The next ones of many, so that each is long out of the cache when it comes again."""
        self.position = (self.position + number) % (len(self.others) - number)
        return self.others[self.position : self.position + number]


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- output ---


def an_entry(row: dict[str, float]) -> list[str]:
    """Bytes, of the resident set and as counted."""
    return [f"{row[name] / row['entries']:,.0f} B" for name in ("resident_bytes", "bytes")]


def table(results: dict[str, Any]) -> str:
    cache, growth = results["cache"], results["growth"]
    plain, session, bounded = cache["plain"], cache["session"], cache["bounded"]
    first, last = growth["resident_mb"][0], growth["resident_mb"][-1]
    rows = [
        ["cache: entries, of room for", f"{plain['entries']:,}", f"{plain['capacity']:,}"],
        ["  an entry, resident and by cache_info", *an_entry(plain)],
        ["  the same with its Session", *an_entry(session)],
        ["  a token", f"{cache['token_bytes']:,} B", ""],
        ["bounded cache: bytes, of at most", f"{bounded['bytes']:,}", f"{bounded['bytes_bound']:,}"],
        ["  entries", f"{bounded['entries']:,}", ""],
        ["verifies, of them refused", f"{growth['verifies']:,}", f"{growth['refused']:,}"],
        ["  resident at the start and the end", f"{first:.3f} MB", f"{last:.3f} MB"],
        ["  slope of a line, a 10 million", f"{growth['slope_mb_a_10_million']:.3f} MB", ""],
        ["  open descriptors, before and after", f"{growth['descriptors_before']}", f"{growth['descriptors_after']}"],
    ]
    return harness.layout(("memory", "", ""), rows, widths=(44, 14, 14)) + "\n\n" + targets.table({"memory": results})


if __name__ == "__main__":
    sys.exit(main())
