"""Handing out a refresh token once more, for another transport: what the script decides, on each store."""

from __future__ import annotations

import time

import pytest
from session_lab import D, Lab, W, generation

from fastverify import (
    Issued,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
    flows,
)

#: Leaves no doubt that a span has passed.
CLEAR = 5


def redeliver(lab: Lab, issued: Issued, *, anti_csrf: bool = False) -> Issued:
    """The refresh token that goes with an access token."""
    return lab.run(flows.redeliver(lab.authority, issued.session, now=time.time(), anti_csrf=anti_csrf))


def rotated(lab: Lab, issued: Issued) -> Issued:
    lab.advance(D + CLEAR)
    return lab.refresh(issued.refresh_token)


@pytest.mark.parametrize("age", [0, D + CLEAR])
def test_the_current_token_is_handed_out_again_and_its_time_begins_anew(lab: Lab, age: int) -> None:
    issued = lab.create(payload={"a": 1})
    lab.advance(age)
    again = redeliver(lab, issued)
    assert again.refresh_token == issued.refresh_token and again.refresh_token_changed
    assert again.session.handle == issued.session.handle and again.session.payload == {"a": 1}
    assert lab.now_ms() - lab.number(again, "handed_at") < CLEAR * 1000
    assert "conf_at" in lab.record(again)  # the access token came along with it
    assert not lab.refresh(again.refresh_token).refresh_token_changed
    assert generation(rotated(lab, again).refresh_token, lab) == 1


def test_a_client_whose_new_tokens_may_be_on_the_way_gets_those(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    assert redeliver(lab, issued).refresh_token == child.refresh_token


def test_a_client_that_is_behind_has_to_refresh_first_and_is_no_thief(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.confirm(child, 1)
    lab.advance(W + CLEAR)
    before = lab.record(child)
    with pytest.raises(TryRefreshToken):
        redeliver(lab, issued)
    assert lab.record(child) == before
    with pytest.raises(TokenTheftDetected):
        lab.refresh(issued.refresh_token)


def test_a_client_that_is_ahead_of_the_primary_has_to_refresh_first(lab: Lab) -> None:
    issued = lab.create()
    snapshot = lab.snapshot(issued)
    child = rotated(lab, issued)
    lab.restore(snapshot)
    with pytest.raises(TryRefreshToken):
        redeliver(lab, child)
    assert not lab.refresh(child.refresh_token).refresh_token_changed  # adopted
    assert redeliver(lab, child).refresh_token == child.refresh_token


def test_a_new_primary_hands_nothing_out_until_it_must_know_all(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(1)  # not in the very millisecond that the new primary begins in
    lab.fail_over()
    with pytest.raises(StoreUnavailable) as caught:
        redeliver(lab, issued)
    assert 1 <= caught.value.retry_after <= D + 1
    fresh = lab.create("user-1")  # which no other primary has ever had
    assert redeliver(lab, fresh).refresh_token == fresh.refresh_token
    lab.advance(D + CLEAR)
    with pytest.raises(
        TryRefreshToken
    ):  # a late reply may have brought an access token that is older than the refresh one
        redeliver(lab, issued)
    kept = lab.refresh(issued.refresh_token)
    assert redeliver(lab, kept).refresh_token == kept.refresh_token


def test_a_loop_has_an_end(lab: Lab) -> None:
    issued = lab.create()
    for _ in range(flows.limits.MAX_REDELIVERIES):
        redeliver(lab, issued)
    with pytest.raises(TooManyRefreshes):
        redeliver(lab, issued)
    lab.advance(D + CLEAR)
    redeliver(lab, issued)


def test_a_session_that_has_ended_is_not_revived(lab: Lab) -> None:
    issued = lab.create()
    lab.revoke(issued.session.handle)
    with pytest.raises(Unauthorised):
        redeliver(lab, issued)
    assert lab.record(issued) == {}


def test_it_binds_and_unbinds_the_anti_csrf_token(lab: Lab) -> None:
    issued = lab.create()
    bound = redeliver(lab, issued, anti_csrf=True)
    assert bound.anti_csrf_token and bound.session.claims["antiCsrfToken"] == bound.anti_csrf_token
    with pytest.raises(Unauthorised):
        lab.refresh(bound.refresh_token)
    lab.refresh(bound.refresh_token, anti_csrf=bound.anti_csrf_token)
    assert redeliver(lab, bound).anti_csrf_token is None
    lab.refresh(bound.refresh_token)


def test_whether_cookies_are_to_last_is_in_the_record_and_in_every_reply(lab: Lab) -> None:
    for options, remember in (({}, True), ({"remember": True}, True), ({"remember": False}, False)):
        issued = lab.create(**options)
        assert issued.remember is remember
        assert ("remember" in lab.record(issued)) is not remember
        assert redeliver(lab, issued).remember is remember
        assert lab.run(flows.reissue(lab.authority, issued.session, {"a": 1}, now=time.time())).remember is remember
        assert lab.refresh(issued.refresh_token).remember is remember
        assert rotated(lab, issued).remember is remember
    with pytest.raises(ValueError, match="remember"):
        lab.create(remember="no")
