"""The breaker, with a clock that is moved by hand."""

from __future__ import annotations

import pytest

from fastverify.store.breaker import FAILURES, OPEN_SECONDS, WITHIN_SECONDS, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.failed()


def test_it_opens_at_the_last_of_too_many_failures(breaker):
    fail(breaker, FAILURES - 1)
    assert breaker.admit()
    breaker.failed()
    assert not breaker.admit()


def test_failures_of_long_ago_do_not_count(breaker, clock):
    fail(breaker, FAILURES - 1)
    clock.now += WITHIN_SECONDS
    fail(breaker, 1)
    assert breaker.admit()


def test_a_success_in_between_starts_the_count_anew(breaker):
    fail(breaker, FAILURES - 1)
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.admit()


def test_half_open_it_lets_one_probe_through(breaker, clock):
    fail(breaker, FAILURES)
    clock.now += OPEN_SECONDS - 0.001
    assert not breaker.admit()
    clock.now += 0.001
    assert [breaker.admit() for _ in range(3)] == [True, False, False]


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    fail(breaker, FAILURES)
    clock.now += OPEN_SECONDS
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.admit() and breaker.admit()
    fail(breaker, FAILURES - 1)
    assert breaker.admit()


def test_a_probe_that_fails_opens_it_again(breaker, clock):
    fail(breaker, FAILURES)
    clock.now += OPEN_SECONDS
    assert breaker.admit()
    breaker.failed()
    clock.now += OPEN_SECONDS / 2
    assert not breaker.admit()
    clock.now += OPEN_SECONDS / 2
    assert breaker.admit()


def test_a_probe_that_is_cancelled_leaves_its_place_to_another(breaker, clock):
    fail(breaker, FAILURES)
    clock.now += OPEN_SECONDS
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()
