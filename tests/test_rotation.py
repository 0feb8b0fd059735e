"""Refresh-token rotation, step by step (rotation.md section 3), on each store.

Times: W is 10 s, so D is 21 s. A test that needs "inside" stays seconds away from the bound, for a slow machine.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fix_stores import PATIENT, WAIT, Launch
from session_lab import D, Lab, W, generation, plain_handle, session_entry

from fastverify import Issued, StoreUnavailable, TokenTheftDetected, TooManyRefreshes, Unauthorised, flows
from fastverify.store import Store, open_store
from fastverify.tokens import encode_refresh_token

DAY = 86_400
#: Leaves no doubt that a span has passed, or that it has not.
CLEAR = 5


@pytest.fixture
def strict(store: Store, unique_prefix: str) -> Iterator[Lab]:
    """A service with W = 0: strict one-time tokens."""
    lab = Lab(store, unique_prefix, exchange_seconds=0)
    yield lab
    lab.close()


def rotated(lab: Lab, issued: Issued) -> Issued:
    """The next generation, by an ordinary refresh."""
    lab.advance(D + CLEAR)
    child = lab.refresh(issued.refresh_token)
    assert child.refresh_token_changed
    return child


def is_over(lab: Lab, issued: Issued) -> bool:
    """Whether nothing is left of a session but its revocation, in the set and in the log."""
    entry, tag = session_entry(issued.session.handle), lab.tag(issued)
    index = lab.redis.zrange(f"{tag}:u:{issued.session.user_id}", 0, -1)
    assert plain_handle(issued.session.handle).encode() not in index
    return not lab.record(issued) and entry in lab.blacklisted(tag) and entry in lab.entries(tag)


# --- an ordinary life ---


def test_a_sign_in_is_generation_0_not_yet_confirmed(lab: Lab) -> None:
    issued = lab.create()
    record = lab.record(issued)
    assert generation(issued.refresh_token, lab) == 0
    assert record["G"] == b"0" and "conf_at" not in record
    assert record["handed_at"] == record["created_at"]


def test_a_refresh_after_d_brings_the_next_generation(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    record = lab.record(issued)
    assert generation(child.refresh_token, lab) == 1
    assert child.session.claims["refreshTokenHash1"].startswith("00000001")
    assert record["G"] == b"1" and "conf_at" not in record and record["redelivered"] == b"0"
    assert abs(int(record["handed_at"]) - lab.now_ms()) < WAIT * 1000


def test_a_chain_of_refreshes_goes_on(lab: Lab) -> None:
    issued = lab.create()
    for expected in range(1, 8):
        issued = rotated(lab, issued)
        assert generation(issued.refresh_token, lab) == expected


# --- step 0: late commands, new primaries ---


def test_a_command_that_arrives_after_its_deadline_does_nothing(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(D + CLEAR)
    lab.fail_over()
    before = lab.record(issued), lab.redis.get(f"{lab.tag(issued)}:primary")
    verdict, *_ = lab.decide(issued, 0, deadline=lab.now_ms() - 1)
    assert verdict == b"LATE"
    assert before == (lab.record(issued), lab.redis.get(f"{lab.tag(issued)}:primary"))


def test_a_late_refresh_is_unavailability_and_its_retry_is_served(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = lab.create()
    lab.advance(D + CLEAR)
    with monkeypatch.context() as patch:
        patch.setattr(flows.limits, "DEADLINE_MS", -1)
        with pytest.raises(StoreUnavailable):
            lab.refresh(issued.refresh_token)
    assert lab.refresh(issued.refresh_token).refresh_token_changed


def test_a_new_primary_holds_back_for_d_from_the_first_refresh_that_it_sees(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(D + CLEAR)
    lab.fail_over()
    lab.advance(D + CLEAR)  # nobody came: it is as new as before
    assert lab.decide(issued, 0)[0] == b"SAME"
    lab.advance(D - CLEAR)
    assert lab.decide(issued, 0)[0] == b"SAME"
    lab.advance(2 * CLEAR)
    assert lab.decide(issued, 0)[0] == b"ROTATED"


def test_a_refresh_of_another_session_of_the_shard_begins_the_hold(lab: Lab) -> None:
    issued, other = lab.create(), lab.create()
    lab.advance(D + CLEAR)
    lab.fail_over()
    lab.refresh(other.refresh_token)
    lab.advance(D + CLEAR)
    assert lab.decide(issued, 0)[0] == b"ROTATED"


def test_a_sign_in_in_the_shard_begins_the_hold_too(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(D + CLEAR)
    lab.fail_over()
    lab.create()
    lab.advance(D + CLEAR)
    assert lab.decide(issued, 0)[0] == b"ROTATED"


def test_a_hold_admits_the_parent_although_its_child_is_long_confirmed(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.refresh(child.refresh_token)  # confirms it
    lab.advance(W + CLEAR)
    lab.fail_over()
    assert lab.refresh(issued.refresh_token).refresh_token == child.refresh_token
    lab.advance(D + CLEAR)
    with pytest.raises(TokenTheftDetected):
        lab.refresh(issued.refresh_token)


def test_a_server_that_was_restarted_is_a_new_primary(launch: Launch) -> None:
    """After a crash it may know a little less than it did: the append-only file is written once a second."""
    server = launch()
    store = open_store(server.url, **PATIENT)
    lab = Lab(store, "restart")
    child = rotated(lab, lab.create())
    lab.advance(D + CLEAR)
    server.kill()
    server.start()
    assert not lab.refresh(child.refresh_token).refresh_token_changed
    lab.advance(D + CLEAR)
    assert lab.refresh(child.refresh_token).refresh_token_changed
    lab.close()
    store.close()


def test_a_restart_brings_no_rotated_token_back(launch: Launch) -> None:
    """Attack row A36 (CVE-2026-9802): here at most the parent is served, and only until the hold ends."""
    server = launch()
    store = open_store(server.url, **PATIENT)
    lab = Lab(store, "restart")
    chain = [lab.create()]
    for _ in range(3):
        chain.append(rotated(lab, chain[-1]))
    lab.refresh(chain[-1].refresh_token)
    server.kill()
    server.start()
    lab.refresh(chain[-1].refresh_token)
    lab.advance(D + CLEAR)
    with pytest.raises(TokenTheftDetected) as theft:
        lab.refresh(chain[0].refresh_token)
    assert theft.value.reuse == "older"
    for issued in chain:
        with pytest.raises(Unauthorised):
            lab.refresh(issued.refresh_token)
    lab.close()
    store.close()


# --- step 1: no session ---


def test_a_session_that_was_revoked_is_gone(lab: Lab) -> None:
    issued = lab.create()
    lab.revoke(issued.session.handle)
    assert lab.decide(issued, 0)[0] == b"GONE"
    with pytest.raises(Unauthorised) as refused:
        lab.refresh(issued.refresh_token)
    assert refused.value.clear_tokens
    assert not lab.record(issued), "nothing is re-created"


@pytest.mark.parametrize("presented", [0, 1, 2, 7])
def test_no_generation_of_a_missing_session_is_theft_or_brings_it_back(lab: Lab, presented: int) -> None:
    issued = lab.create()
    lab.revoke(issued.session.handle)
    assert lab.decide(issued, presented)[0] == b"GONE"
    assert not lab.record(issued)


def test_a_session_that_has_expired_is_gone_and_its_record_goes(lab: Lab) -> None:
    issued = lab.create(idle_timeout=60)
    lab.advance(61)
    assert lab.record(issued), "the key outlives the session here: the record's own expiry decides"
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)
    assert not lab.record(issued)
    assert lab.redis.zcard(f"{lab.tag(issued)}:u:user-1") == 0


@pytest.mark.parametrize("marked", ["*", "acme"])
def test_a_session_from_before_a_mark_is_gone_and_its_record_waits_for_its_expiry(lab: Lab, marked: str) -> None:
    issued = lab.create(tenant="acme", idle_timeout=60)
    lab.mark(marked)
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)
    # Found by a revocation of the user's, should the mark be all that its own revocation has come to.
    assert lab.record(issued) and lab.redis.zcard(f"{lab.tag(issued)}:u:user-1") == 1
    lab.advance(61)
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)
    assert not lab.record(issued)
    assert lab.redis.zcard(f"{lab.tag(issued)}:u:user-1") == 0


def test_a_session_made_in_the_marks_own_millisecond_is_gone(lab: Lab) -> None:
    issued = lab.create()
    lab.redis.hset(f"{lab.tag(issued)}:marks", "*", lab.number(issued, "created_at"))
    assert lab.decide(issued, 0)[0] == b"GONE"


@pytest.mark.parametrize(("marked", "at"), [("*", -1), ("acme", -1), ("another", WAIT * 1000)])
def test_a_session_from_after_a_mark_or_of_another_tenant_lives(lab: Lab, marked: str, at: float) -> None:
    issued = lab.create(tenant="acme")
    lab.redis.hset(f"{lab.tag(issued)}:marks", marked, lab.number(issued, "created_at") + int(at))
    assert lab.decide(issued, 0)[0] == b"SAME"


# --- step 2: adoption ---


def test_a_generation_that_a_failover_lost_is_adopted(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    issued = lab.create()
    replica = lab.snapshot(issued)
    child = rotated(lab, issued)
    lab.fail_over(replica)
    assert lab.record(issued)["G"] == b"0"
    with caplog.at_level(logging.WARNING, "fastverify.audit"):
        again = lab.refresh(child.refresh_token)
    assert not again.refresh_token_changed and again.refresh_token == child.refresh_token
    assert again.session.claims["refreshTokenHash1"] == child.session.claims["refreshTokenHash1"]
    assert "state rollback" in caplog.text and child.refresh_token not in caplog.text
    record = lab.record(issued)
    assert record["G"] == b"1" and record["handed_at"] == record["conf_at"]


def test_many_lost_generations_are_adopted_at_once_and_what_lies_before_is_theft(lab: Lab) -> None:
    issued = lab.create()
    replica = lab.snapshot(issued)
    chain = [issued]
    for _ in range(4):
        chain.append(rotated(lab, chain[-1]))
    lab.fail_over(replica)
    lab.refresh(chain[4].refresh_token)
    assert lab.number(issued, "G") == 4
    with pytest.raises(TokenTheftDetected):
        lab.refresh(chain[2].refresh_token)


def test_an_adopted_token_is_not_rotated_before_the_hold_ends(lab: Lab) -> None:
    issued = lab.create()
    replica = lab.snapshot(issued)
    child = rotated(lab, issued)
    lab.fail_over(replica)
    lab.refresh(child.refresh_token)
    lab.advance(D - CLEAR)
    assert not lab.refresh(child.refresh_token).refresh_token_changed
    lab.advance(2 * CLEAR)
    assert lab.refresh(child.refresh_token).refresh_token_changed


def test_the_next_generation_is_made_under_the_present_secret(store: Store, unique_prefix: str) -> None:
    """So that a secret can be retired when every client has refreshed once, and until then both are good."""
    old, new = bytes(range(32)), bytes(range(1, 33))
    before = Lab(store, unique_prefix, secret=[old])
    issued = before.create()
    before.advance(D + CLEAR)
    before.close()
    both = Lab(store, unique_prefix, secret=[new, old])
    child = both.refresh(issued.refresh_token)
    assert both.refresh(issued.refresh_token).refresh_token == child.refresh_token
    both.close()
    after = Lab(store, unique_prefix, secret=[new])
    assert after.refresh(child.refresh_token).refresh_token == child.refresh_token
    with pytest.raises(Unauthorised):
        after.refresh(issued.refresh_token)
    after.close()


def test_an_adopted_token_keeps_its_bytes_when_it_is_handed_out_again(store: Store, unique_prefix: str) -> None:
    """Also while one secret takes over from another: there is one token of a generation, never two."""
    old, new = bytes(range(32)), bytes(range(1, 33))
    before = Lab(store, unique_prefix, secret=[old, new])
    issued = before.create()
    replica = before.snapshot(issued)
    child = rotated(before, issued)
    before.fail_over(replica)
    after = Lab(store, unique_prefix, secret=[new, old])
    after.refresh(child.refresh_token)
    assert after.refresh(issued.refresh_token).refresh_token == child.refresh_token
    before.close()
    after.close()


# --- step 3: the current token ---


def test_the_current_token_is_not_rotated_again_within_d(lab: Lab) -> None:
    issued = lab.create()
    for _ in range(3):
        lab.advance(D // 4)
        again = lab.refresh(issued.refresh_token)
        assert not again.refresh_token_changed and again.refresh_token == issued.refresh_token
        assert again.access_token != issued.access_token
        assert generation(again.refresh_token, lab) == 0
    assert lab.record(issued)["G"] == b"0"


def test_presenting_a_token_confirms_it_the_first_time(lab: Lab) -> None:
    issued = lab.create()
    lab.refresh(issued.refresh_token)
    confirmed = lab.number(issued, "conf_at")
    assert abs(confirmed - lab.now_ms()) < WAIT * 1000
    lab.advance(CLEAR)
    lab.refresh(issued.refresh_token)
    assert lab.number(issued, "conf_at") == confirmed - CLEAR * 1000, "the first time counts"


# --- step 4: the parent, while the child may not have arrived ---


def test_the_parent_gets_the_same_child_again(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    for count in range(1, 4):
        again = lab.refresh(issued.refresh_token)
        assert again.refresh_token_changed and again.refresh_token == child.refresh_token
        assert lab.number(issued, "redelivered") == count
    assert lab.record(issued)["G"] == b"1"


def test_a_reply_that_was_lost_is_repeated_however_late(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.advance(7 * DAY)
    assert lab.refresh(issued.refresh_token).refresh_token == child.refresh_token


def test_a_redelivery_begins_the_debounce_anew(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.advance(D - CLEAR)
    lab.refresh(issued.refresh_token)
    lab.advance(D - CLEAR)
    assert not lab.refresh(child.refresh_token).refresh_token_changed


def test_the_parent_is_served_until_w_after_the_child_was_used(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.refresh(child.refresh_token)
    lab.advance(W - CLEAR)
    assert lab.refresh(issued.refresh_token).refresh_token == child.refresh_token
    lab.advance(2 * CLEAR)
    with pytest.raises(TokenTheftDetected):
        lab.refresh(issued.refresh_token)


def test_redeliveries_do_not_stretch_the_window_that_the_childs_use_began(lab: Lab) -> None:
    """Windows that slide are how a shadowing thief goes unseen for ever."""
    issued = lab.create()
    child = rotated(lab, issued)
    lab.refresh(child.refresh_token)
    lab.advance(W - CLEAR)
    lab.refresh(issued.refresh_token)
    lab.advance(2 * CLEAR)
    assert lab.decide(issued, 0)[0] == b"THEFT"


def test_redeliveries_are_counted_for_each_generation(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    lab.refresh(issued.refresh_token)
    rotated(lab, child)
    lab.refresh(child.refresh_token)
    assert lab.number(issued, "redelivered") == 1


def test_a_storm_of_redeliveries_is_slowed_down_and_never_theft(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    for _ in range(flows.limits.MAX_REDELIVERIES):
        assert lab.decide(issued, 0)[0] == b"AGAIN"
    with caplog.at_level(logging.WARNING, "fastverify.audit"), pytest.raises(TooManyRefreshes) as slowed:
        lab.refresh(issued.refresh_token)
    assert slowed.value.retry_after > 0
    assert "redelivered more than 64 times" in caplog.text
    assert not lab.refresh(child.refresh_token).refresh_token_changed, "the child works on"


def test_after_a_storm_the_parent_is_served_when_d_has_passed(lab: Lab) -> None:
    issued = lab.create()
    child = rotated(lab, issued)
    for _ in range(flows.limits.MAX_REDELIVERIES + 3):
        lab.decide(issued, 0)
    lab.advance(D + CLEAR)
    assert lab.refresh(issued.refresh_token).refresh_token == child.refresh_token
    assert lab.number(issued, "redelivered") == 1


# --- step 5: theft ---


def test_the_parent_outside_the_window_is_theft(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    issued = lab.create(tenant="acme")
    child = rotated(lab, issued)
    lab.refresh(child.refresh_token)
    lab.advance(W + CLEAR)
    with caplog.at_level(logging.WARNING, "fastverify.audit"), pytest.raises(TokenTheftDetected) as theft:
        lab.refresh(issued.refresh_token)
    assert theft.value.reuse == "one_behind"
    assert (theft.value.handle, theft.value.user_id) == (issued.session.handle, "user-1")
    assert theft.value.tenant == "acme"
    assert "one_behind" in caplog.text and issued.refresh_token not in caplog.text
    assert is_over(lab, issued)
    for token in (issued.refresh_token, child.refresh_token):
        with pytest.raises(Unauthorised):
            lab.refresh(token)


def test_an_older_token_is_theft_at_once(lab: Lab) -> None:
    issued = lab.create()
    grandchild = rotated(lab, rotated(lab, issued))
    with pytest.raises(TokenTheftDetected) as theft:
        lab.refresh(issued.refresh_token)
    assert theft.value.reuse == "older"
    assert is_over(lab, issued)
    with pytest.raises(Unauthorised):
        lab.refresh(grandchild.refresh_token)


def test_an_older_token_is_theft_in_a_hold_too(lab: Lab) -> None:
    issued = lab.create()
    rotated(lab, rotated(lab, issued))
    lab.fail_over()
    assert lab.decide(issued, 0)[0] == b"THEFT"


def test_theft_ends_one_session_and_spares_the_users_others(lab: Lab) -> None:
    issued, other = lab.create(), lab.create()
    rotated(lab, rotated(lab, issued))
    assert lab.decide(issued, 0)[0] == b"THEFT"
    assert lab.run(flows.handles(lab.authority, "user-1")) == [other.session.handle]


# --- W = 0 ---


def test_in_strict_mode_every_refresh_rotates(strict: Lab) -> None:
    issued = strict.create()
    for expected in (1, 2, 3):
        issued = strict.refresh(issued.refresh_token)
        assert issued.refresh_token_changed and generation(issued.refresh_token, strict) == expected


def test_in_strict_mode_the_parent_is_theft_at_once(strict: Lab) -> None:
    issued = strict.create()
    strict.refresh(issued.refresh_token)
    with pytest.raises(TokenTheftDetected) as theft:
        strict.refresh(issued.refresh_token)
    assert theft.value.reuse == "one_behind"


def test_in_strict_mode_a_new_primary_holds_nothing_back(strict: Lab) -> None:
    issued = strict.create()
    strict.fail_over()
    child = strict.refresh(issued.refresh_token)
    assert child.refresh_token_changed
    strict.fail_over()
    assert strict.decide(issued, 0, window=0)[0] == b"THEFT"


def test_in_strict_mode_a_lost_generation_is_adopted(strict: Lab) -> None:
    issued = strict.create()
    replica = strict.snapshot(issued)
    child = strict.refresh(issued.refresh_token)
    strict.fail_over(replica)
    assert not strict.refresh(child.refresh_token).refresh_token_changed


# --- the two ends of a session ---


def answers(lab: Lab) -> dict[str, tuple[Issued, int]]:
    """For each verdict that answers, a session of 1,000 s and the generation that gets it, 400 s into its life."""
    lives: dict[str, tuple[Issued, int]] = {}
    for verdict in ("SAME", "ROTATED", "AGAIN", "ADOPTED"):
        lives[verdict] = lab.create(f"user {verdict}", lifetime=1000, idle_timeout=700), int(verdict == "ADOPTED")
    lab.advance(400)
    lab.redis.hset(lab.record_key(lives["SAME"][0]), "handed_at", lab.now_ms())
    assert lab.decide(lives["AGAIN"][0], 0)[0] == b"ROTATED"
    return lives


@pytest.mark.parametrize("verdict", ["SAME", "ROTATED", "AGAIN", "ADOPTED"])
def test_every_answer_slides_the_idle_expiry_and_never_the_absolute_one(lab: Lab, verdict: str) -> None:
    issued, presented = answers(lab)[verdict]
    absolute = lab.number(issued, "abs_exp")
    assert lab.decide(issued, presented)[0] == verdict.encode()
    record = lab.record(issued)
    assert int(record["abs_exp"]) == absolute
    assert int(record["idle_exp"]) == absolute, "700 s from now would be later: the absolute end is the last"
    assert int(record["seen_at"]) > absolute - 600_000 - 1
    assert lab.redis.pexpiretime(lab.record_key(issued)) == absolute


def test_the_idle_expiry_slides_by_the_sessions_own_timeout(lab: Lab) -> None:
    issued = lab.create(idle_timeout=300)
    for _ in range(4):
        lab.advance(200)
        issued = lab.refresh(issued.refresh_token)
        left = lab.number(issued, "idle_exp") - lab.now_ms()
        assert 290_000 < left <= 300_000
    lab.advance(301)
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


def test_however_busy_a_session_ends_at_its_absolute_expiry(lab: Lab) -> None:
    issued = lab.create(lifetime=1000)
    for _ in range(9):
        lab.advance(100)
        issued = lab.refresh(issued.refresh_token)
        assert issued.session.expires_at <= lab.number(issued, "abs_exp") // 1000
        assert issued.refresh_token_expires_at <= lab.number(issued, "abs_exp") // 1000
    lab.advance(101)
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


# --- the first trip ---


def test_a_token_with_a_wrong_tag_changes_nothing_and_is_reported(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever holds a service key can make edge tags, but no tag: the session's secret is only in the store."""
    issued = lab.create()
    lab.advance(D + CLEAR)
    before = lab.record(issued)
    handle = bytes.fromhex(plain_handle(issued.session.handle).replace("-", ""))
    forged = encode_refresh_token(lab.authority.service_keys[0], bytes(32), handle, 5)
    with caplog.at_level(logging.WARNING, "fastverify.audit"), pytest.raises(Unauthorised):
        lab.refresh(forged)
    assert "a service key has leaked" in caplog.text
    assert lab.record(issued) == before


def test_the_first_trip_writes_nothing(lab: Lab) -> None:
    issued = lab.create()
    lab.fail_over()
    keys = {key: lab.redis.dump(key) for key in lab.redis.keys(f"{lab.tag(issued)}*")}
    lab.call("peek", lab.tag(issued), plain_handle(issued.session.handle))
    assert {key: lab.redis.dump(key) for key in lab.redis.keys(f"{lab.tag(issued)}*")} == keys


def test_a_session_that_ends_between_the_two_trips_is_gone(lab: Lab) -> None:
    """I6: no check-then-write across the trips."""
    issued = lab.create()
    flow = flows.refresh(lab.authority, issued.refresh_token, now=0.0, random=bytes)
    call = flow.send(lab.store.run(next(flow)))
    lab.revoke(issued.session.handle)
    with pytest.raises(Unauthorised):
        flow.send(lab.store.run(call))
    assert is_over(lab, issued)


def test_a_reply_about_another_session_is_not_used(lab: Lab) -> None:
    """I8, attack row A33."""
    mine, other = lab.create(), lab.create()
    flow = flows.refresh(lab.authority, mine.refresh_token, now=0.0, random=bytes)
    next(flow)
    others: Any = lab.call("peek", lab.tag(other), plain_handle(other.session.handle))
    with pytest.raises(StoreUnavailable):
        flow.send(others)


def test_a_service_whose_clock_is_far_ahead_signs_nobody_out(lab: Lab) -> None:
    issued = lab.create(lifetime=100)
    with pytest.raises(StoreUnavailable, match="clock"):
        lab.run(flows.refresh(lab.authority, issued.refresh_token, now=time.time() + 3600, random=os.urandom))
    assert lab.refresh(issued.refresh_token).session.handle == issued.session.handle


@pytest.mark.parametrize("off", [-3600, -2, 2, 3600])
def test_the_clock_of_a_service_sets_no_sessions_end(lab: Lab, off: int) -> None:
    lab.mark("*")
    flow = flows.create(lab.authority, "user-1", now=time.time() + off, random=os.urandom, lifetime=15)
    end = lab.now_ms() // 1000 + 15
    if off == 3600:  # to this clock it has ended long ago
        with pytest.raises(StoreUnavailable, match="clock"):
            lab.run(flow)
        return
    issued = lab.run(flow).value
    assert issued.session.expires_at <= end + 2 and abs(issued.refresh_token_expires_at - end) <= 2
    assert lab.refresh(issued.refresh_token).session.handle == issued.session.handle
