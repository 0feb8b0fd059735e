"""Micro-benchmarks by pytest-benchmark: `pytest bench/`. Answers are proven, and looked at again; no time is judged."""

from __future__ import annotations

from typing import Any

import pytest

import contenders
import harness
from fastverify import InvalidToken, Verifier

ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "EdDSA")
BATCH = 64

pytestmark = pytest.mark.benchmark(max_time=0.1, min_rounds=3, warmup=False)


@pytest.fixture(scope="module", params=ALGORITHMS)
def trial(request: pytest.FixtureRequest) -> harness.Trial:
    return harness.Trial.of(request.param)


@pytest.mark.parametrize("name", ["lazy", "dict", "cached"])
def test_fastverify_returns_the_claims(benchmark: Any, trial: harness.Trial, name: str) -> None:
    benchmark.group = trial.algorithm
    answer = benchmark(contenders.ours(trial)[name], trial.token)
    assert dict(answer) == trial.claims


@pytest.mark.parametrize("peer", contenders.PEERS, ids=lambda peer: peer.name)
def test_a_peer_returns_the_claims(benchmark: Any, trial: harness.Trial, peer: contenders.Peer) -> None:
    if reason := peer.missing():
        pytest.skip(f"{peer.name}: {reason}")
    if trial.algorithm not in peer.algorithms:
        pytest.skip(f"{peer.name} does not verify {trial.algorithm}")
    benchmark.group = trial.algorithm
    own = peer.trial(trial)
    assert benchmark(peer.prepare(own), own.token) == own.claims


def test_the_raw_check_accepts_the_signature(benchmark: Any, trial: harness.Trial) -> None:
    benchmark.group = trial.algorithm
    assert benchmark(trial.raw_signature(), trial.token) is True


def test_a_batch_returns_the_claims_of_each(benchmark: Any, trial: harness.Trial) -> None:
    benchmark.group = f"{trial.algorithm}, {BATCH} at once"
    many = contenders.prepared(Verifier(trial.keys, **contenders.POLICY, cache_size=0)).verify_many
    answers = benchmark(many, trial.copies(BATCH))
    assert [dict(answer) for answer in answers] == [trial.claims] * BATCH


@pytest.mark.parametrize("what", ["a changed payload", "a changed signature", "a past expiry"])
def test_a_bad_token_is_refused(benchmark: Any, trial: harness.Trial, what: str) -> None:
    benchmark.group = f"{trial.algorithm}, refused"
    verifier = contenders.prepared(Verifier(trial.keys, **contenders.POLICY))

    def refused() -> bool:
        try:
            verifier.verify(trial.bad[what])
        except InvalidToken:
            return True
        return False

    assert benchmark(refused)
