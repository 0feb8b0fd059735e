"""The exhaustive search over the rotation: what it must find, and what it must not."""

from __future__ import annotations

import pytest

from .rotation import ABLATIONS, LARGE, SMALL, Bounds, Rules, search

NEEDED = {name: case for name, case in ABLATIONS.items() if case[1] is not None}
SPARE = {name: rules for name, (rules, enough) in ABLATIONS.items() if enough is None}


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_an_honest_client_is_never_refused(bounds: Bounds) -> None:
    assert search(Rules(), bounds).trace == ()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bounds", LARGE, ids=str)
def test_an_honest_client_is_never_refused_in_wide_bounds(bounds: Bounds) -> None:
    assert search(Rules(), bounds).trace == ()


@pytest.mark.parametrize("bounds", [Bounds(1, 2), Bounds(1, 3), Bounds(2, 2), Bounds(1, 2, 1)], ids=str)
def test_a_client_that_moves_to_another_transport_is_never_refused(bounds: Bounds) -> None:
    result = search(Rules(moves=True), bounds)
    assert result.trace == ()
    assert "moved with {}" in result.events


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bounds", [Bounds(2, 3), Bounds(2, 2, 1), Bounds(1, 3, 1)], ids=str)
def test_a_client_that_moves_is_never_refused_in_wide_bounds(bounds: Bounds) -> None:
    assert search(Rules(moves=True), bounds).trace == ()


@pytest.mark.parametrize("bounds", [Bounds(1, 2), Bounds(1, 3), Bounds(2, 2), Bounds(1, 2, 1)], ids=str)
def test_a_client_that_leaves_for_another_session_and_comes_back_is_never_refused(bounds: Bounds) -> None:
    result = search(Rules(acts=True), bounds)
    assert result.trace == ()
    assert {"let go at {}", "away, from {}", "let back; it was left at {}"} <= result.events


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bounds", [Bounds(2, 3), Bounds(1, 2, 2), Bounds(2, 2, 1), Bounds(1, 3, 1)], ids=str)
def test_a_client_that_leaves_and_comes_back_is_never_refused_in_wide_bounds(bounds: Bounds) -> None:
    assert search(Rules(acts=True), bounds).trace == ()


@pytest.mark.parametrize("rules, bounds", NEEDED.values(), ids=NEEDED.keys())
def test_without_a_rule_that_is_needed_an_honest_client_is_refused(rules: Rules, bounds: Bounds) -> None:
    trace = search(rules, bounds).trace
    assert trace and trace[-1].endswith(("THEFT", "UNAUTHORISED"))


@pytest.mark.parametrize("name", ["no adoption", "no hold"])
def test_the_rules_for_failovers_are_needed_for_nothing_else(name: str) -> None:
    rules, _ = ABLATIONS[name]
    assert search(rules, Bounds(2, 3)).trace == ()


@pytest.mark.parametrize("rules", SPARE.values(), ids=SPARE.keys())
def test_without_a_rule_that_is_for_thieves_and_clocks_an_honest_client_is_still_served(rules: Rules) -> None:
    assert search(rules, Bounds(1, 2, 1)).trace == ()


def test_the_search_tries_every_kind_of_event() -> None:
    """A search that visits too little finds nothing wrong either."""
    assert search(Rules(), Bounds(1, 2, 1)).events == {
        "send {}",
        "the request with {} is lost",
        "refresh with {}: both tokens",
        "refresh with {}: access token only",
        "the reply with both tokens {} is lost",
        "the reply with access token only {} is lost",
        "both tokens {} delivered",
        "access token only {} delivered",
        "a gateway confirms {}",
        "replicated",
        "FAILOVER, back to {}",
        "another session is refreshed",
        "tick",
    }
