"""Threads: what releasing the GIL during a signature check gains, and what it costs.

    python bench/threads.py [--algorithms ES256,...] [--rounds 5] [--json FILE]

Answers are proven first (harness.py). Everything here is wall time, so it means something on a quiet machine only.

Scaling: verifications a second of one thread and of two, cache off; the ratio is taken within each round.
  GIL released     release_gil=True
  GIL held         release_gil=False
  verify_many      batches of 64 tokens, release_gil="auto"
  PyJWT            for comparison

Both harms of a wrong choice, for each release_gil, from the main thread and from another one:
  latency          of one verification while another thread computes in Python: who has let go of the GIL has to wait
                   for that thread's switch interval (5 ms) to get it back
  subscriber       how long a thread that another process wakes, as a revocation does, waits until it runs Python code,
                   while this one verifies flat out: who holds the GIL keeps it from others for a switch interval
And both at once, in a pool of two threads whose requests are 100 us of Python and one verification: requests a second
and how long one takes.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import harness
from contenders import PEERS, POLICY, prepared
from fastverify import Verifier

ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "EdDSA")
MODES: dict[str, Any] = {"True": True, "False": False, '"auto"': "auto"}
CALLERS = ("main thread", "another thread")
#: Whose harms are looked at: no asymmetric check, a short one, and that of the default algorithm.
HARMED = ("HS256", "RS256", "ES256")
WINDOW_SECONDS = 0.1
HARM_SECONDS = 0.2
SUBSCRIBER_SECONDS = 0.6
WORK_MICROSECONDS = 100
#: One 8-byte instant about every 15 ms, out of step with any switch interval. The clock is the same in all processes.
PUBLISHER = """
import os, random, time
while True:
    time.sleep(random.uniform(0.01, 0.02))
    try:
        os.write(1, time.perf_counter_ns().to_bytes(8, "big"))
    except BrokenPipeError:
        break
"""


def main() -> int:
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help=f"default: {','.join(ALGORITHMS)}")
    arguments = parser.parse_args()
    algorithms = harness.chosen_algorithms(parser, arguments.algorithms)
    trials = {algorithm: harness.Trial.of(algorithm) for algorithm in algorithms}
    harmed = {name: trials[name] for name in HARMED if name in trials}
    results = {
        "scaling": {name: scaling(trial, arguments.rounds) for name, trial in trials.items()},
        "latency": {name: latency(trial, arguments.rounds) for name, trial in harmed.items()},
        "subscriber": {name: subscriber(trial, arguments.rounds) for name, trial in harmed.items() if name == "ES256"},
        "requests": {name: requests(trial, arguments.rounds) for name, trial in harmed.items()},
    }
    harness.progress("")
    environment = harness.environment("PyJWT") | {"switch interval": f"{sys.getswitchinterval() * 1e3:g} ms"}
    harness.publish(arguments.json, "threads", environment, results, tables(results))
    return 0


def verifier(trial: harness.Trial, mode: Any) -> Verifier:
    made = prepared(Verifier(trial.keys, **POLICY, cache_size=0, release_gil=mode))
    trial.prove(f"release_gil={mode}", made.verify)
    return made


# --- scaling ---


def scaling(trial: harness.Trial, rounds: int) -> dict[str, dict[str, float]]:
    batches = {name: one_by_one(check, trial.copies()) for name, check in singles(trial).items()}
    batches["fastverify, verify_many"] = all_at_once(trial)
    one: dict[str, list[float]] = {name: [] for name in batches}
    two: dict[str, list[float]] = {name: [] for name in batches}
    for number in range(rounds):
        for name, batch in batches.items():
            harness.progress(f"scaling of {trial.algorithm}, round {number + 1} of {rounds}: {name}")
            one[name].append(calls_a_second(batch, 1))
            two[name].append(calls_a_second(batch, 2))
    return {name: scaling_figures(one[name], two[name]) for name in batches}


def scaling_figures(one: list[float], two: list[float]) -> dict[str, float]:
    ratio = harness.figures([b / a for a, b in zip(one, two, strict=True)])
    alone, together = harness.summary(one)[0], harness.summary(two)[0]
    return {"one": alone, "two": together, "ratio": ratio["median"], "low": ratio["low"], "high": ratio["high"]}


def singles(trial: harness.Trial) -> dict[str, harness.Check]:
    found: dict[str, harness.Check] = {
        "fastverify, GIL released": verifier(trial, True).verify,
        "fastverify, GIL held": verifier(trial, False).verify,
    }
    for peer in PEERS:
        if peer.name == "PyJWT" and not peer.missing():
            found["PyJWT"] = peer.prepare(trial)
    return found


def one_by_one(check: harness.Check, tokens: list[str]) -> Callable[[], int]:
    def batch() -> int:
        for token in tokens:
            check(token)
        return len(tokens)

    return batch


def all_at_once(trial: harness.Trial) -> Callable[[], int]:
    many, tokens = verifier(trial, "auto").verify_many, trial.copies()
    if [answer.to_dict() for answer in many(tokens)] != [trial.claims] * len(tokens):  # type: ignore[union-attr]
        raise SystemExit("verify_many returns other claims than those that were signed")
    if not all(isinstance(answer, Exception) for answer in many(trial.bad.values())):
        raise SystemExit("verify_many accepts a bad token")
    return lambda: len(many(tokens))


def calls_a_second(batch: Callable[[], int], threads: int) -> float:
    """Of all threads together, from when the first starts until the last stops."""
    barrier = threading.Barrier(threads)
    done: list[tuple[float, float, int]] = []

    def work() -> None:
        barrier.wait()
        begin, calls = time.perf_counter(), 0
        end = begin + WINDOW_SECONDS
        while (now := time.perf_counter()) < end:
            calls += batch()
        done.append((begin, now, calls))

    run_threads([work] * threads)
    begins, ends, calls = zip(*done, strict=True)
    return float(sum(calls) / (max(ends) - min(begins)))


# --- the harms ---


def latency(trial: harness.Trial, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds of one verification beside a thread that computes."""
    checks = {mode: verifier(trial, value).verify for mode, value in MODES.items()}
    samples: dict[tuple[str, str], list[float]] = {pair: [] for pair in itertools.product(MODES, CALLERS)}
    for number in range(rounds):
        for (mode, caller), values in samples.items():
            harness.progress(f"latency of {trial.algorithm}, round {number + 1} of {rounds}: {mode}, {caller}")
            with busy_thread():
                call_from(caller, partial(time_each, checks[mode], trial.token, values))
    return by_mode_and_caller(samples)


def time_each(check: harness.Check, token: str, values: list[float], seconds: float = HARM_SECONDS) -> None:
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    while (begin := clock()) < end:
        check(token)
        values.append((clock() - begin) / 1e3)


def subscriber(trial: harness.Trial, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds until a thread that was woken runs, while this process verifies flat out."""
    checks = {mode: verifier(trial, value).verify for mode, value in MODES.items()}
    samples: dict[tuple[str, str], list[float]] = {pair: [] for pair in itertools.product(MODES, CALLERS)}
    for number in range(rounds):
        for (mode, caller), values in samples.items():
            harness.progress(f"subscriber, round {number + 1} of {rounds}: {mode}, {caller}")
            with subscriber_thread(values):
                call_from(caller, partial(time_each, checks[mode], trial.token, [], SUBSCRIBER_SECONDS))
    return by_mode_and_caller(samples)


def requests(trial: harness.Trial, rounds: int) -> dict[str, dict[str, float]]:
    """A pool of two threads: requests a second, and microseconds of one."""
    loops = calibrated_work()
    handlers = {mode: request(verifier(trial, value).verify, loops) for mode, value in MODES.items()}
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    samples: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(rounds):
        for mode, handler in handlers.items():
            harness.progress(f"requests of {trial.algorithm}, round {number + 1} of {rounds}: {mode}")
            values: list[float] = []
            begin = time.perf_counter()
            run_threads([partial(time_each, handler, trial.token, values)] * 2)
            rates[mode].append(len(values) / (time.perf_counter() - begin))
            samples[mode] += values
    return {mode: {"rate": harness.summary(rates[mode])[0], **percentiles(samples[mode])} for mode in MODES}


def request(check: harness.Check, loops: int) -> harness.Check:
    """What a small application does with a request: look at the token, and compute."""

    def handle(token: str) -> None:
        check(token)
        for _ in range(loops):
            pass

    return handle


def calibrated_work() -> int:
    """Turns of an empty loop in what a request of a small application does."""
    costs = []
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(100_000):
            pass
        costs.append(time.thread_time() - begin)
    return int(WORK_MICROSECONDS * 0.1 / min(costs))


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that computes in Python and never waits."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            for _ in range(10_000):
                pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def subscriber_thread(values: list[float]) -> Iterator[None]:
    """A thread that waits for another process and notes how late it hears from it."""
    publisher = subprocess.Popen([sys.executable, "-c", PUBLISHER], stdout=subprocess.PIPE)
    pipe = publisher.stdout.fileno()  # type: ignore[union-attr]
    os.read(pipe, 8)  # it is up

    def listen() -> None:
        while data := os.read(pipe, 8):
            values.append((time.perf_counter_ns() - int.from_bytes(data, "big")) / 1e3)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        publisher.terminate()
        thread.join()
        publisher.communicate()


def call_from(caller: str, work: Callable[[], None]) -> None:
    if caller == "main thread":
        work()
    else:
        run_threads([work])


def run_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_mode_and_caller(samples: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    return {mode: {caller: percentiles(samples[mode, caller]) for caller in CALLERS} for mode in MODES}


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2], 2),
        "p99": round(ordered[len(ordered) * 99 // 100], 2),
        "calls": len(ordered),
    }


# --- output ---


def tables(results: dict[str, Any]) -> str:
    parts = []
    for algorithm, rows in results["scaling"].items():
        body = [
            [
                name,
                f"{row['one']:,.0f}",
                f"{row['two']:,.0f}",
                f"{row['ratio']:.2f}",
                f"{row['low']:.2f} - {row['high']:.2f}",
            ]
            for name, row in rows.items()
        ]
        head = [f"{algorithm}, scaling", "one thread/s", "two/s", "ratio", "middle half"]
        parts.append(harness.layout(head, body, widths=(30, 14, 12, 8, 16)))
    for what in ("latency", "subscriber"):
        for algorithm, modes in results[what].items():
            head = [f"{algorithm}, {what}, us", *(f"{caller[:7]} {p}" for caller in CALLERS for p in ("p50", "p99"))]
            body = [
                [f"release_gil={mode}", *(f"{modes[mode][c][p]:,.1f}" for c in CALLERS for p in ("p50", "p99"))]
                for mode in modes
            ]
            parts.append(harness.layout(head, body, widths=(30, 14, 14, 14, 14)))
    for algorithm, modes in results["requests"].items():
        body = [
            [f"release_gil={mode}", f"{row['rate']:,.0f}", f"{row['p50']:,.0f}", f"{row['p99']:,.0f}"]
            for mode, row in modes.items()
        ]
        head = [f"{algorithm}, requests in a pool of two", "requests/s", "p50 us", "p99 us"]
        parts.append(harness.layout(head, body, widths=(38, 12, 10, 10)))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
