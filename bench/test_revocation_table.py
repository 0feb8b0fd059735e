"""bench/revoked.py: it refuses to time a table that is wrong, and every figure is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
import revoked
from fastverify._core import RevocationTable


@pytest.fixture(scope="module")
def trial() -> harness.Trial:
    return harness.Trial.of("HS256")


class Credulous:
    """A table that knows nothing of what was entered last."""

    def __init__(self, table: RevocationTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table) + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


def test_table_that_holds_too_little_or_too_much_is_not_timed(trial: harness.Trial) -> None:
    packed = revoked.packed_sessions(2_000)
    revoked.prove(trial, revoked.table_of(packed, 2_000), packed, 2_000)
    lacking: Any = Credulous(revoked.table_of(packed, 1_999))
    with pytest.raises(SystemExit, match="does not find what it holds"):
        revoked.prove(trial, lacking, packed[:25] * 1_000 + packed[-25:] * 1_000, 2_000)
    with pytest.raises(SystemExit, match="another number"):
        revoked.prove(trial, revoked.table_of(packed, 2_000), packed, 1_999)


def test_interruptions_are_summed_up_by_median_99th_percentile_and_longest() -> None:
    assert revoked.extent([float(one) for one in range(100, 0, -1)]) == {"p50": 51.0, "p99": 100.0, "max": 100.0}
    assert revoked.extent([]) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_revoked_measures_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("there is no /proc")
    for name, value in {"TARGETS": 500, "SESSIONS": {"HS256": 64}, "HITS": (4,), "CONTROL_SECONDS": 0.05}.items():
        monkeypatch.setattr(revoked, name, value)
    file = tmp_path / "revoked.json"
    arguments = ["revoked", "--entries", "1000,20000", "--rounds", "2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert revoked.main() == 0
    results = json.loads(file.read_text("utf-8"))["results"]
    assert results["lookups"]["20,000: absent"]["cpu"]["median"] > 0
    assert set(results["cold"]["HS256"]["many sessions"]) == {"empty", "1,000", "20,000"}
    assert "nanoseconds_more" in results["hits"]["4 sessions"]["20,000: after a change"]
    assert {row["entries"] for row in results["filling"].values()} == {20_000}
    assert all(0 < row["bytes"] < 40 for row in results["filling"].values())
    assert {"nobody else at work", "entering, in one call", "forgetting half"} < set(results["stalls"])
    assert all(row["calls"] > 0 for row in results["stalls"].values())
    assert results["summary"]["bytes_an_entry"] > 20 and results["summary"]["lookup_ratio"] > 0
