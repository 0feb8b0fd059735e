"""The exhaustive search over the follower: what it must find, and what it must not."""

from __future__ import annotations

from functools import cache

import pytest

from . import follower
from .follower import ABLATIONS, LARGE, SMALL, SPARE, Bounds, Rules

explore = cache(follower.explore)

#: The others take a second at most.
SLOW = {"a diverged poll reports where it stood"}


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_what_is_revoked_is_refused_within_the_bound_and_never_lost(bounds: Bounds) -> None:
    assert explore(Rules(), bounds).trace == ()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bounds", LARGE, ids=str)
def test_what_is_revoked_is_refused_within_the_bound_and_never_lost_in_wide_bounds(bounds: Bounds) -> None:
    assert explore(Rules(), bounds).trace == ()


@pytest.mark.parametrize(
    "rules, bounds",
    [pytest.param(*case, id=name, marks=pytest.mark.long if name in SLOW else ()) for name, case in ABLATIONS.items()],
)
def test_without_a_rule_a_claim_is_broken(rules: Rules, bounds: Bounds) -> None:
    assert explore(rules, bounds).trace


@pytest.mark.parametrize("rules, bounds", SPARE.values(), ids=SPARE.keys())
def test_a_rule_that_another_makes_up_for_is_not_missed(rules: Rules, bounds: Bounds) -> None:
    assert explore(rules, bounds).trace == ()


def test_a_promotion_that_does_not_wait_costs_the_lag_and_no_more() -> None:
    rules = Rules(late_promotion=False)
    assert explore(rules, Bounds()).trace
    assert explore(rules, Bounds(slack=Bounds().lag)).trace == ()


@pytest.mark.parametrize("name", ["min-replicas is not set", "nothing is pushed back", "nonces are not compared"])
def test_the_rules_for_faults_are_needed_for_nothing_else(name: str) -> None:
    rules, _ = ABLATIONS[name]
    assert explore(rules, Bounds(faults=0, entries=2)).trace == ()


def test_the_search_tries_every_kind_of_event() -> None:
    """A search that visits too little finds nothing wrong either."""
    events = explore(Rules(late_promotion=False), Bounds(slack=1, remembered=3)).events
    assert events == {
        *(f"x is revoked on the {which}primary" for which in ("", "new ", "old ")),
        *(f"x is revoked on the {which}primary by F's process" for which in ("", "new ", "old ")),
        *(f"F reads the tail of the {which}primary" for which in ("", "new ", "old ")),
        *(
            f"F reads the sets of the {which}primary, {piece} piece"
            for which in ("", "new ", "old ")
            for piece in ("first", "second")
        ),
        "F finds another server and starts again",
        *(f"F goes on from what it has in common with the {which}primary" for which in ("", "new ", "old ")),
        *(f"F finds nothing in common with the {which}primary" for which in ("", "new ", "old ")),
        "F sends a poll",
        *(
            f"F's poll reaches the {which}primary: {reply}"
            for which in ("", "new ", "old ")
            for reply in ("nothing new", "x", "history has changed")
        ),
        "F's poll is given up",
        *(f"F is answered: {reply}" for reply in ("nothing new", "x", "history has changed")),
        *(f"F pushes x back to the {which}primary" for which in ("", "new ", "old ")),
        "replicated",
        "the primary dies: FAILOVER",
        "the primary loses all its data",
        "the primary is cut off",
        "the primary is back",
        "FAILOVER beside the old primary",
        "the old primary is gone",
        "tick",
    }


def test_an_old_primary_that_has_stopped_writing_is_believed_by_nobody() -> None:
    """All that it still answers is a part of its sets, which counts for nothing without its tail."""
    old = {event for event in explore(Rules(), Bounds()).events if "old primary" in event}
    beside = "FAILOVER beside the old primary"
    assert old == {"F reads the sets of the old primary, first piece", beside, "the old primary is gone"}
