"""Hints are read together when many come, and at once when few do. No clock, no store."""

from __future__ import annotations

from typing import Any

import pytest

from fastverify.hints import Hints

NEVER = float("inf")


class Heard:
    """Hints that are heard by hand."""

    def __init__(self) -> None:
        self.woken = 0
        store: Any = None
        self.hints = Hints(store, lambda: [], self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def round(self, now: float, tags: str) -> float:
        """Hear these, look, and return how long the next look is put off."""
        for tag in tags:
            self.hints.hear(tag)
        assert sorted(self.hints.take(now)) == sorted(set(tags))
        self.hints.add("later")
        put_off = self.hints.due() - now
        assert self.hints.drop() == ["later"]
        return put_off


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_hint_is_due_at_once_and_wakes_whoever_looks(heard: Heard) -> None:
    assert heard.hints.due() == NEVER
    heard.hints.hear("a")
    assert heard.woken == 1 and heard.hints.due() == float("-inf")
    assert heard.hints.take(100.0) == ["a"]
    assert heard.hints.due() == NEVER
    heard.hints.hear("b")
    assert heard.hints.due() == pytest.approx(100.005)
    assert heard.hints.heard == 2


def test_what_is_added_without_a_hint_wakes_nobody_and_is_due(heard: Heard) -> None:
    heard.hints.add("a")
    assert heard.woken == heard.hints.heard == 0
    assert heard.hints.due() == float("-inf")


def test_the_gap_grows_while_several_come_between_two_looks_and_no_further_than_its_limit(heard: Heard) -> None:
    gaps = [heard.round(100.0 + n, tags) for n, tags in enumerate(["a", "ab", "aa", "abc", "ab", "abcd", "aa"])]
    assert gaps == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.05, 0.05, 0.05])


def test_one_that_comes_alone_ends_that(heard: Heard) -> None:
    gaps = [heard.round(100.0 + n, tags) for n, tags in enumerate(["ab", "ab", "a", "a", "ab"])]
    assert gaps == pytest.approx([0.01, 0.02, 0.005, 0.005, 0.01])


def test_what_a_poll_of_all_shards_has_covered_is_not_looked_at_and_does_not_count(heard: Heard) -> None:
    heard.hints.hear("a")
    heard.hints.hear("b")
    assert sorted(heard.hints.drop()) == ["a", "b"]
    assert heard.hints.due() == NEVER
    assert heard.round(100.0, "a") == pytest.approx(0.005)
