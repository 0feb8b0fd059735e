"""The exhaustive search over marks: what it must find, and what it must not."""

from __future__ import annotations

import pytest

from .marks import ABLATIONS, LARGE, SMALL, Bounds, Rules, explore


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_all_that_was_there_ends_and_nothing_that_comes_after(bounds: Bounds) -> None:
    assert explore(Rules(), bounds).trace == ()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bounds", LARGE, ids=str)
def test_all_that_was_there_ends_and_nothing_that_comes_after_in_wide_bounds(bounds: Bounds) -> None:
    assert explore(Rules(), bounds).trace == ()


@pytest.mark.parametrize("rules, bounds", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_without_a_rule_a_claim_is_broken(rules: Rules, bounds: Bounds) -> None:
    assert explore(rules, bounds).trace
