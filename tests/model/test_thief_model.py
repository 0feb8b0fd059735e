"""The exhaustive search over rotation with a thief: who is found, and who is not."""

from __future__ import annotations

from functools import cache

import pytest

from . import thief
from .thief import CASES, LARGE, Bounds, Case, Result, Rules

explore = cache(thief.explore)

#: Rules that make no difference to the thief; the others take a second or two.
SLOW = {"no hold, a failover", "the hold does not admit the parent, a failover", "no adoption, a failover"}


def look(case: Case) -> Result:
    """Search, and hold the result against what is expected."""
    result = explore(case.rules, case.bounds)
    assert result.turns == case.turns
    assert bool(result.broken) != case.holds
    return result


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=pytest.mark.long if name in SLOW else ()) for name, case in CASES.items()],
)
def test_a_thief_is_found_after_so_many_turns(case: Case) -> None:
    look(case)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())
def test_a_thief_is_found_after_so_many_turns_in_wide_bounds(case: Case) -> None:
    look(case)


def test_a_thief_who_shadows_goes_on_for_ever() -> None:
    """The round leads back to the same state, a generation later, and both parties were answered in it."""
    result = look(CASES["all rules, a thief who shadows"])
    again = result.trace[result.again :]
    assert any(line.startswith("the browser presents") for line in again)
    assert any(line.startswith("the thief presents") for line in again)
    assert "tick" in again


def test_the_search_tries_every_kind_of_event() -> None:
    """A search that visits too little finds nothing wrong either."""
    assert explore(Rules(), Bounds(apart=False, failovers=0)).events == {
        "the browser sends {}",
        "the browser's request with {} is lost",
        "the browser presents {}: both tokens",
        "the browser presents {}: access token only",
        "the browser receives {}",
        "the reply to the browser with {} is lost",
        "THE THIEF copies {}",
        "the thief presents {}: both tokens",
        "the thief presents {}: access token only",
        "a gateway reports {}",
        "tick",
    }
    assert {"replicated", "FAILOVER, back to {}", "another session is refreshed"} <= explore(
        Rules(), Bounds(failovers=1)
    ).events
