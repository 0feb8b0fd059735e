"""A run of the fault harness: `make faults MINUTES=10`.

    python -m tests.faults.run [--minutes 10] [--topology standalone] [--faults kill,promote] [--seed 1] [--json]

Clients use session services and gateways while fault after fault is injected, each kind as often as any other and in
another order each round; then the journal is checked. The exit status says whether every rule has held.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .checker import Report, Rules, as_json, as_text, check
from .injectors import FAULTS
from .journal import merge
from .network import Network, Refused
from .rig import RIGS, Rig, Sentinel
from .workload import Setup

#: Seconds before the first fault: some sessions must be old enough to have been rotated.
WARM_UP = 14.0
#: Seconds in which gateways give back what a failover lost; beyond B, within which they have heard of it.
PUSH_BACK = 3.0
#: Seconds from the return of service to the next fault.
SETTLE = 2.0


def faults_of(topology: str, *, apart: bool = True) -> list[str]:
    """The faults that a topology can suffer; those too that need hosts of their own, or not."""
    return [name for name, fault in FAULTS.items() if topology in fault.topologies and (apart or not fault.apart)]


def why_not_apart() -> str:
    """Why there can be no hosts of their own on this machine; nothing if there can."""
    try:
        Network().close()
    except Refused as error:
        return str(error)
    return ""


def run(rig: Rig, faults: Iterable[str], *, warm_up: float = WARM_UP, settle: float = SETTLE) -> None:
    """Start a rig, inject the faults one by one, and end it."""
    try:
        rig.start()
        time.sleep(warm_up)
        for name in faults:
            FAULTS[name].inject(rig)
            rig.wait_for_service()
            time.sleep(settle)
        time.sleep(rig.setup.staleness + 3)  # ghosts come again, to be refused: some of them after B
    finally:
        rig.stop()


def rules_of(rig: Rig, *, recovery: float = 3.0) -> Rules:
    """By what a run of this rig is to be checked."""
    setup = rig.setup
    return Rules(
        window=setup.window,
        staleness=setup.staleness,
        shards=setup.shards,
        recovery=recovery,
        push_back=setup.staleness + PUSH_BACK,
        replicas=2 if isinstance(rig, Sentinel) else 1,
    )


def judge(rig: Rig, rules: Rules) -> Report:
    """Check what a run has written."""
    report = check(merge(rig.folder), rules)
    report.counts.update({f"followers: {name}": count for name, count in rig.counters.items()})
    return report


def in_turn(names: Sequence[str], seconds: float, seed: int) -> Iterator[str]:
    """Every fault once a round, in another order each time, until the time is up."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    while True:
        for name in chance.sample(names, len(names)):
            if time.monotonic() > end:
                return
            yield name


def new_rig(topology: str, folder: Path, seed: int, stretch: float, say: Callable[[str], None], *, apart: bool) -> Rig:
    """A rig of a topology, not started."""
    setup = Setup(prefix=f"f{secrets.token_hex(4)}", seed=seed)
    return RIGS[topology](folder, setup, stretch=stretch, say=say, apart=apart)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--topology", choices=sorted(RIGS), default="standalone")
    parser.add_argument("--faults", default="", help="comma-separated; all that there are, if none is named")
    parser.add_argument("--list", action="store_true", help="show the faults")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="keep the journals and logs in this folder")
    parser.add_argument("--no-namespaces", action="store_true", help="leave out what needs network namespaces")
    options = parser.parse_args(arguments)
    refused = "not wanted" if options.no_namespaces else why_not_apart()
    possible = faults_of(options.topology, apart=not refused)
    names = options.faults.split(",") if options.faults else possible
    if options.list or not set(names) <= set(possible):
        for name in possible:
            print(f"{name:<22}{FAULTS[name].words}")
        return 0 if options.list else 2

    begin, seconds = time.monotonic(), options.minutes * 60

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s of {seconds:.0f}  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        say(f"{options.topology}, seed {options.seed}")
        if refused:
            left_out = set(faults_of(options.topology)) - set(possible)
            say(f"no network namespaces ({refused}); left out: {', '.join(sorted(left_out))}")
        stretch = random.Random(options.seed).uniform(1, 2)
        rig = new_rig(options.topology, Path(temporary), options.seed, stretch, say, apart=not refused)
        try:
            run(rig, in_turn(names, seconds - WARM_UP, options.seed))
        finally:
            if options.keep:
                shutil.copytree(rig.folder, options.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        say("checking")
        report = judge(rig, rules_of(rig))
    print(json.dumps(as_json(report), indent=2) if options.json else as_text(report))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
