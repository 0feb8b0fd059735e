"""The short version of a run: every fault once, in under two minutes. `make faults MINUTES=n` is the long one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fix_requirements import require_tool, skip_refused

from .checker import RULES, Report, as_text
from .injectors import FAULTS
from .run import judge, new_rig, rules_of, run, why_not_apart

#: What is injected where. On one server, what a new primary follows is last: while that holds back no thief is found.
ORDER = {
    "standalone": (
        *("drop_replies", "delay", "cut", "truncate", "half_close", "isolate_gateways", "flush_scripts"),
        *("kill_clients", "fill_memory", "change_password", "replica_by_mistake", "step_clocks", "trim_logs"),
        *("fill_disk", "lose_answers", "freeze_gateway", "fork_gateway", "kill_service", "freeze", "kill", "promote"),
        "flush_all",
    ),
    "sentinel": ("fail_over_sentinel", "kill_primary", "split"),
    "cluster": ("fail_over_cluster", "move_shard", "kill_primary", "part", "split"),
}
#: Seconds before the first: to be stolen from, a session has to be rotated.
WARM_UP = {"standalone": 12.0, "sentinel": 3.0, "cluster": 3.0}
#: What so few faults need not put to the test.
UNTESTED: dict[str, set[str]] = {"standalone": set(), "sentinel": {"I4"}, "cluster": {"I4"}}
#: The long version has them; each is much like one that is here.
LONG_ONLY = {
    *("drop_requests", "hold_requests", "deny", "freeze_service", "kill_gateway", "switch_over"),
    *("freeze_primary", "kill_replicas", "kill_sentinel", "lose_questions", "deafen_primary", "lose_acknowledgements"),
}


@pytest.fixture(scope="module")
def refused() -> str:
    """Why there can be no network namespaces here, or nothing; what needs them is left out then."""
    return why_not_apart()


def injected(topology: str, refused: str) -> list[str]:
    """What is done to a topology."""
    return [name for name in ORDER[topology] if not (refused and FAULTS[name].apart)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, refused: str) -> Callable[[str], Report]:
    """The reports of all topologies. They run side by side, for they mostly wait."""
    threads = ThreadPoolExecutor()
    running = {
        topology: threads.submit(
            run_short, topology, tmp_path_factory.mktemp(topology), injected(topology, refused), apart=not refused
        )
        for topology in ORDER
    }
    threads.shutdown()
    return lambda topology: running[topology].result()


def run_short(topology: str, folder: Path, faults: Sequence[str], *, apart: bool) -> Report:
    """A short run."""
    rig = new_rig(topology, folder, seed=1, stretch=0.6, say=lambda what: None, apart=apart)
    run(rig, faults, warm_up=WARM_UP[topology], settle=0.7)
    return judge(rig, rules_of(rig, recovery=10.0))


def test_every_fault_is_in_the_short_version_or_like_one_that_is() -> None:
    assert {fault for faults in ORDER.values() for fault in faults} == FAULTS.keys() - LONG_ONLY


@pytest.mark.timeout(300)
@pytest.mark.parametrize("topology", ORDER)
def test_what_is_promised_holds_through_every_fault(
    topology: str, reports: Callable[[str], Report], refused: str
) -> None:
    report = reports(topology)
    print(as_text(report), file=sys.stderr)  # shown if the test fails
    assert not report.violations
    assert {rule for rule in RULES if not report.tested[rule]} <= UNTESTED[topology]
    assert {name for name, *_ in report.recoveries} == {*injected(topology, refused)} - {"step_clocks"}


def test_packets_are_lost_where_the_machine_allows_that(refused: str) -> None:
    require_tool("ip", "apt-get install iproute2")
    if refused:
        skip_refused(f"network namespaces; faults that need them were left out ({refused})")


@pytest.mark.timeout(300)
def test_thieves_are_found(reports: Callable[[str], Report]) -> None:
    assert reports("standalone").counts["replay theft"] >= 3
