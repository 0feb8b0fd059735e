"""The simulation in small; `make faults` runs the million. That it can go wrong is shown by settings that make it."""

from __future__ import annotations

import logging

import pytest

from fastverify.store import Store

from .simulation import simulate


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each thief the audit log has a line."""
    monkeypatch.setattr(logging.getLogger("fastverify.audit"), "disabled", True)


@pytest.fixture
def store_url(embedded_url: str) -> str:
    """One store is enough: the scripts' own tests run on each."""
    return embedded_url


@pytest.mark.timeout(300)
def test_no_honest_client_is_signed_out_and_every_late_thief_is_found(store: Store) -> None:
    done = simulate(store, 6_000, sessions=400, seed=1)
    assert not done.wrong
    assert done.tally["honest clients logged out"] == 0
    assert done.tally["thief too late: found"] >= 20
    assert done.tally["thief early: Issued"] >= 5
    assert done.tally["failovers"] >= 4
    assert done.tally["requests lost"] and done.tally["replies lost"]


def test_without_a_window_honest_clients_are_signed_out(store: Store) -> None:
    done = simulate(store, 500, sessions=100, seed=1, exchange_seconds=0)
    assert any("an honest client was told" in wrong for wrong in done.wrong)


def test_with_a_wider_window_thieves_go_unseen(store: Store) -> None:
    done = simulate(store, 2_000, sessions=150, seed=1, exchange_seconds=20)
    assert any("a thief who was too late was told Issued" in wrong for wrong in done.wrong)
