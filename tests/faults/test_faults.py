"""The short version of a run: every fault once, in under two minutes. `make faults MINUTES=n` is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .checker import RULES, as_text
from .injectors import FAULTS
from .run import judge, new_rig, rules_of, run

#: Those that a new primary follows are last, for while it holds back no thief can be found; nothing outlives the last.
ORDER = (
    *("drop_replies", "drop_requests", "hold_requests", "delay", "cut", "truncate", "half_close", "isolate_gateways"),
    *("flush_scripts", "kill_clients", "fill_memory", "change_password", "deny", "replica_by_mistake"),
    *("step_clocks", "trim_logs", "freeze_gateway", "freeze_service", "fork_gateway", "kill_service", "kill_gateway"),
    *("freeze", "kill", "switch_over", "promote", "flush_all"),
)
#: What only a failover of servers that know of each other can put to the test, or what waits for a reply can.
ELSEWHERE = {"b", "c"}


def test_every_fault_is_in_the_short_version() -> None:
    assert set(ORDER) == {name for name, fault in FAULTS.items() if "standalone" in fault.topologies}


@pytest.mark.timeout(240)
def test_what_is_promised_holds_through_every_fault(tmp_path: Path) -> None:
    rig = new_rig("standalone", tmp_path, seed=1, stretch=0.6, say=lambda what: None)
    run(rig, ORDER, warm_up=12.0, settle=0.7)
    report = judge(rig, rules_of(rig, recovery=10.0))
    print(as_text(report), file=sys.stderr)
    assert not report.violations
    assert {rule for rule in RULES if not report.tested[rule]} <= ELSEWHERE
    assert [name for name, *_ in report.recoveries] == [name for name in ORDER if name != "step_clocks"]
    assert report.counts["replay theft"] >= 3
