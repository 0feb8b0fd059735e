"""The benchmarks themselves: they refuse to time a wrong answer, they run, and their figures reach the pages."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import contenders
import growth
import harness
import http_requests
import install_peers
import memory
import peers
import refresh
import report
import revocations
import soak
import stores
import targets
import threads
import verify
from fastverify import Sessions, SessionVerifier, Unauthorised, Verifier


@pytest.fixture(scope="module")
def trial() -> harness.Trial:
    return harness.Trial.of("HS256")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a program quickly and returns what it wrote."""

    def run(program: ModuleType, *arguments: str) -> Any:
        file = tmp_path / f"{program.__name__}.json"
        monkeypatch.setattr(sys, "argv", [program.__name__, "--json", str(file), "--rounds", "1", *arguments])
        assert program.main() == 0
        return json.loads(file.read_text("utf-8"))

    return run


# --- proof ---


def test_the_token_has_thirteen_claims_in_480_bytes(trial: harness.Trial) -> None:
    payload = json.dumps(trial.claims, separators=(",", ":"))
    assert (len(trial.claims), len(payload)) == (13, 480)
    assert trial.without("aud").claims.keys() == trial.claims.keys() - {"aud"}
    assert len(trial.without("aud").token) == len(trial.token)


def test_who_returns_other_claims_is_not_timed(trial: harness.Trial) -> None:
    with pytest.raises(SystemExit, match="other claims"):
        trial.prove("liar", lambda _: trial.claims | {"role": "admin"})


@pytest.mark.parametrize(
    ("setting", "accepted"),
    [
        ({"issuer": None, "audience": harness.AUDIENCE}, "another issuer"),
        ({"issuer": harness.ISSUER}, "another audience"),
    ],
)
def test_who_does_not_check_a_claim_is_not_timed(trial: harness.Trial, setting: dict[str, Any], accepted: str) -> None:
    verifier = Verifier(trial.keys, **setting)
    with pytest.raises(SystemExit, match=f"accepts {accepted}"):
        trial.prove("lax", verifier.verify)
    assert trial.prove("lax, and known to be", verifier.verify, unchecked=[accepted]) == verifier.verify


@pytest.mark.parametrize("what", ["a changed payload", "a changed signature", "a past expiry"])
def test_who_accepts_a_bad_token_is_not_timed(trial: harness.Trial, what: str) -> None:
    good = Verifier(trial.keys, issuer=harness.ISSUER, audience=harness.AUDIENCE)
    credulous = lambda token: good.verify(trial.token if token == trial.bad[what] else token)  # noqa: E731
    with pytest.raises(SystemExit, match=f"accepts {what}"):
        trial.prove("credulous", credulous)


def test_who_fails_in_an_unexpected_way_is_not_timed(trial: harness.Trial) -> None:
    good = Verifier(trial.keys, issuer=harness.ISSUER, audience=harness.AUDIENCE)

    def fragile(token: str) -> Any:
        return good.verify(token) if token == trial.token else 1 / 0

    with pytest.raises(SystemExit, match="fails on a changed payload with ZeroDivisionError"):
        trial.prove("fragile", fragile)


# --- figures ---


def test_a_summary_is_the_median_and_the_middle_half() -> None:
    assert harness.summary([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0)
    assert harness.summary([7.0]) == (7.0, 7.0, 7.0)


def test_everybody_gets_one_turn_in_each_round() -> None:
    turns: list[str] = []

    def taking(name: str) -> harness.Turn:
        def take(passes: int) -> tuple[float, float]:
            turns.append(name)
            return 2.0, 3.0

        return take

    timings = harness.run({"a": taking("a"), "b": taking("b")}, 3, "test")
    assert turns == ["a", "a", "b", "b"] + ["a", "b"] * 3  # two to find out how many passes fill a round
    assert timings["a"].to_json() == {
        "cpu": {"median": 2.0, "low": 2.0, "high": 2.0},
        "wall": {"median": 3.0, "low": 3.0, "high": 3.0},
    }


def test_a_turn_calls_with_every_argument_in_every_pass() -> None:
    seen: list[int] = []
    harness.turn(seen.append, [1, 2])(3)
    assert seen == [1, 2] * 3


# --- programs ---


def test_verify_times_every_row(run: Callable[..., Any]) -> None:
    results = run(verify, "--algorithms", "HS256,ES256")["results"]
    assert set(results) == {"HS256", "ES256"}
    assert set(results["ES256"]) >= {"no-op call", "raw signature", "cold", "cold, dict", "cached", "cached, dict"}


def test_whole_requests_are_proven_and_their_share_is_of_the_bare_row(run: Callable[..., Any]) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install '.[server]'")
    results = run(http_requests, "--seconds", "0.02")["results"]
    assert {"bare, header", "gateway, header", "bare, cookie", "service, cookie"} <= set(results["rows"])
    assert set(results["shares"]) == {name for name in results["rows"] if not name.startswith("bare")}


def test_peers_names_who_is_missing_and_times_the_others(run: Callable[..., Any], tmp_path: Path) -> None:
    results = run(peers, "--algorithms", "ES256", "--node-directory", str(tmp_path))["results"]
    known = {peer.name for peer in contenders.PEERS if "ES256" in peer.algorithms}
    assert known <= set(results["python"]["ES256"]) | set(results["missing"])
    assert set(results["python"]["ES256"]) > {"fastverify, lazy", "fastverify, dict", "fastverify, cached"}
    assert "fast-jwt and jose on Node" in results["missing"]
    assert {"no-op call", "Sessions.verify, cached"} < set(results["session"])


def test_threads_measures_both_harms(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WINDOW_SECONDS", 0.05)
    monkeypatch.setattr(threads, "HARM_SECONDS", 0.05)
    results = run(threads, "--algorithms", "ES256")["results"]
    assert results["scaling"]["ES256"]["fastverify, GIL released"]["one"] > 0
    for harm in ("latency", "subscriber"):
        assert results[harm]["ES256"]['"auto"']["another thread"]["calls"] > 0
    assert results["requests"]["ES256"]["True"]["calls"] > 0


def test_memory_counts_entries_and_open_descriptors(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("there is no /proc")
    monkeypatch.setattr(memory, "ENTRIES", 256)
    monkeypatch.setattr(memory, "BOUND", 65_536)
    monkeypatch.setattr(memory, "WARM_UP", 10_000)
    results = run(memory, "--verifies", "100000")["results"]
    assert results["cache"]["plain"]["entries"] > 200
    assert 0 < results["cache"]["bounded"]["bytes"] <= 65_536
    assert results["growth"]["refused"] == 4_000
    assert results["growth"]["descriptors_before"] == results["growth"]["descriptors_after"]


def test_refresh_sets_each_kind_beside_a_bare_call(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "ROUND_SECONDS", 0.01)
    results = run(refresh, "--processes", "1,2")["results"]
    assert set(results) == {"1", "2"}
    assert set(results["1"]["shares"]) >= {"asyncio", "1 thread", "8 threads"}
    assert all(share["wall"]["median"] > 0 for share in results["2"]["shares"].values())
    assert "| 2 processes, asyncio |" in report.refresh({"refresh": {"results": results}})


def test_revocations_reach_another_process_and_a_bootstrap_is_whole(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "WITNESSES", 5)
    monkeypatch.setattr(revocations, "USERS", (3, 600))
    results = run(revocations, "--revocations", "3", "--entries", "3000")["results"]
    assert [len(row["milliseconds"]) for row in results["reach"].values()] == [3, 3, 3]
    assert all(0 < row["longest_script"] < row["milliseconds"] for row in results["user"].values())
    assert results["bootstrap"]["runs"][0]["entries"] >= 3_000
    documents = {"revocations": {"results": results}}
    assert "flat out, four threads" in report.reach(documents) and "bootstrap" in report.bootstrap(documents)
    assert [row[0] for row in targets.rows({"revocations": results})] == ["P11"] * 3  # 3,000 entries say nothing of P12


def test_growth_refreshes_in_a_small_store_and_in_a_larger_one(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(growth, "OPERATIONS", 50)
    monkeypatch.setattr(growth, "FOLLOWING", 1.0)
    monkeypatch.setattr(growth, "HINTS", 20)
    results = run(growth, "--sessions", "100,600")["results"]
    rows = results["refresh"]
    assert list(rows) == ["100 sessions", "600 sessions"]
    assert all(row["store_bytes_a_session"] > row["record_bytes"] > 200 for row in rows.values())
    costs = results["costs"]
    assert costs["a refresh"]["bytes_in"] > 100 and costs["a verifier, each second"]["bytes_in"] > 500
    documents = {"growth": {"results": results}}
    assert "| 600 sessions |" in report.growth(documents) and "| a revocation |" in report.costs(documents)


def test_soak_counts_operations_and_finds_no_breach_when_the_server_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "soak.json"
    arguments = "--sessions 300 --entries 2000 --minutes 0.2 --services 1 --gateways 1 --fault stop@0.04:0.5".split()
    monkeypatch.setattr(sys, "argv", ["soak", *arguments, "--revocations", "50", "--json", str(file)])
    monkeypatch.setattr(soak, "REPORT", 0.5)
    assert soak.main() == 0
    results = json.loads(file.read_text("utf-8"))["results"]
    assert set(results["whole"]) == {"reach", "refresh", "revoke", "sign in", "verify"}
    assert not any(results["breaches"].values())
    assert [fault["kind"] for fault in results["faults"]] == ["stop"]
    assert set(results["series"][-1]["resident_mb"]) == {"service 1", "gateway 1", "store"}
    assert results["memory"]["store_bytes_a_session"] > 300
    assert "| refresh |" in report.soak({"soak": {"results": results}})


def test_a_soak_in_which_a_revoked_token_is_accepted_fails() -> None:
    """The look-out of a gateway, with verifiers that are wrong in each way."""

    class Wrong:
        ready = True

        def verify(self, token: str) -> None:
            if token == "refused":
                raise Unauthorised("")

    gateway = soak.Gateway(None, soak.Part("", 0, 0, 0, 0, 0))  # type: ignore[arg-type]
    gateway._watched.extend([("accepted", 0.0, False), ("accepted", 0.0, True), ("refused", 0.0, False)])
    gateway._pool.append("refused")
    gateway._look(Wrong())  # type: ignore[arg-type]
    gateway._verify(Wrong(), 1)  # type: ignore[arg-type]
    assert gateway._tally.counts == {"revoked token accepted": 1, "forgotten": 1, "good token refused": 1}
    assert gateway._tally.times["reach"].total() == 1


def test_quantiles_of_buckets_are_near_those_of_the_values() -> None:
    tally = soak.Tally()
    for milliseconds in range(1, 1_001):
        tally.took("call", milliseconds / 1e3)
    found = tally.quantiles()["call"]
    assert found["number"] == 1_000
    assert found["p50"] == pytest.approx(500_000, rel=0.1) and found["p99"] == pytest.approx(990_000, rel=0.1)


@pytest.mark.parametrize("text", ["flood@1", "kill", "kill@soon"])
def test_a_fault_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        soak.Fault.read(text)


def test_what_fills_a_store_is_what_the_library_reads(tmp_path: Path) -> None:
    with stores.server(tmp_path / "server") as server, Sessions.connect(server.url, stores.settings()) as sessions:
        users = [f"user-{n}" for n in range(stores.SESSIONS_A_TRIP + 5)]
        authority = sessions.gateway.authority
        tokens = list(stores.create_many(sessions._store, authority, users, {"role": "editor"}))
        assert len(set(tokens)) == len(users)
        for user, token in (pair for n, pair in enumerate(zip(users, tokens, strict=True)) if n % 30 == 0):
            session = sessions.refresh(token).session
            assert (session.user_id, session.payload["role"]) == (user, "editor")
            assert sessions.handles(user) == [session.handle]
        with server.client() as client:
            first_window = (int(time.time()) // 300 + 14) * 300
            sample = stores.fill_entries(client, authority.placement, 1_000, first_window=first_window)
        with SessionVerifier.connect(server.url, issuer=sessions.config.issuer) as gateway:
            assert gateway.revoked_entries == 1_000
            assert gateway._table.lookup(session=sample[:16], now=int(time.time())) == 1


def test_a_program_that_is_not_there_is_no_python() -> None:
    assert install_peers.resolve("python3.99") is None
    assert install_peers.version_of(sys.executable).startswith(f"3.{sys.version_info.minor}.")
    assert install_peers.version_of("/nonexistent/python") == ""


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("pyjwt[crypto]>=2.13", "pyjwt"), ("ryjwt>=0.2; python_version >= '3.12'", "ryjwt"), ("msgspec", "msgspec")],
)
def test_a_requirement_is_known_by_its_distribution(requirement: str, name: str) -> None:
    assert install_peers.name_of(requirement) == name


# --- pages ---


def of_eddsa(**microseconds: float) -> dict[str, Any]:
    """Results of peers.py with these rows."""
    rows = {name.replace("_", ", "): {"cpu": {"median": value}} for name, value in microseconds.items()}
    return {"python": {"EdDSA": rows}}


def test_a_loss_is_bold_and_a_win_is_not() -> None:
    results = of_eddsa(fastverify_lazy=60.0, fastverify_dict=20.0, ryjwt=30.0, PyJWT=100.0)
    documents = {"peers": {"results": results}}
    page = "before\n<!-- figures: peers -->\nold\n<!-- end of figures -->\nafter\n"
    filled = report.filled(page, documents)
    assert "| *fastest peer / fastverify, lazy* | **0.50** |" in filled
    assert "| *fastest peer / fastverify, dict* | 1.50 |" in filled
    assert filled.startswith("before\n<!-- figures: peers -->\n\n|") and "old" not in filled
    assert report.filled(filled, documents) == filled


def test_a_table_without_figures_stays() -> None:
    page = "<!-- figures: memory -->\nold\n<!-- end of figures -->\n"
    assert report.filled(page, {"peers": {"results": of_eddsa(fastverify_lazy=1.0)}}) == page


def test_every_place_on_the_pages_has_a_table() -> None:
    for page in report.PAGES:
        names = [name for _, name, *_ in report.PLACE.findall(page.read_text("utf-8"))]
        assert names and set(names) <= set(report.TABLES), page


def test_a_target_says_met_or_missed_and_what_was_not_measured_is_left_out() -> None:
    what = "EdDSA cold: times as fast as PyJWT"
    met = {"peers": of_eddsa(fastverify_lazy=60.0, PyJWT=100.0)}
    assert list(targets.rows(met)) == [["P5", what, ">= 1.5x", "1.667x", "met"]]
    missed = {"peers": of_eddsa(fastverify_lazy=70.0, PyJWT=100.0)}
    assert [row[-1] for row in targets.rows(missed)] == ["missed"]


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[bench]'")
    import plot

    rows = {name: {"cpu": {"median": value}} for name, value in (("raw libcrypto", 0.1234), ("ryjwt", 11.0))}
    environment = {"Python": "CPython", "libcrypto of fastverify": "OpenSSL", "machine": "a machine"}
    results = {"python": {"ES256": rows}, "node": {}}
    (tmp_path / "peers.json").write_text(json.dumps({"environment": environment, "results": results}))
    reached = {"idle": {"milliseconds": [0.0, 2.0, 40.0], "p50": 2.0, "p99": 40.0, "max": 40.0}}
    reached["flat out"] = reached["idle"]
    (tmp_path / "revocations.json").write_text(json.dumps({"environment": {}, "results": {"reach": reached}}))
    times = {"refresh": {"number": 9, "p50": 1_000.0, "p99": 2_000.0, "max": 3_000.0}}
    series = [
        {"seconds": second, "operations": times, "counts": {"stale": second}, "resident_mb": {"store": 10.0}}
        for second in (1, 2)
    ]
    soaked = {"series": series, "whole": times, "faults": [{"kind": "stop", "at": 1.0, "seconds": 1.0}]}
    soaked["given"] = {"sessions": 10, "entries": 20, "minutes": 1.0}
    (tmp_path / "soak.json").write_text(json.dumps({"environment": {}, "results": soaked}))
    monkeypatch.setattr(sys, "argv", ["plot", "--results", str(tmp_path), "--pictures", str(tmp_path / "pictures")])
    assert plot.main() == 0
    picture = (tmp_path / "pictures" / "peers.svg").read_text("utf-8")
    assert ">ryjwt</text>" in picture and ">raw libcrypto 0.123</text>" in picture
    assert (tmp_path / "peers.png").exists()
    assert "idle: p50 2.00, p99 40.0, max 40.0 ms" in (tmp_path / "pictures" / "reach.svg").read_text("utf-8")
    assert ">refresh, p99</text>" in (tmp_path / "pictures" / "soak.svg").read_text("utf-8")
