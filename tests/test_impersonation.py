"""Acting as another user, and the way back."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from facades import Facade, open_facade, refuses, settings, until
from session_lab import D, Lab, W, generation, plain_handle, session_entry

from fastverify import (
    ClaimValidationFailed,
    Issued,
    PrimitiveClaim,
    Session,
    SessionClaim,
    SessionVerifier,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
    authenticated_within,
    flows,
    not_impersonated,
)
from fastverify.session import handle_bytes

ISSUER = "http://api.test/auth"
#: Leaves no doubt that a span has passed.
CLEAR = 5


@pytest.fixture(params=["sync", "async"])
async def life(request: pytest.FixtureRequest, store_url: str, unique_prefix: str) -> AsyncIterator[Facade]:
    """A session service on each store, by each manager."""
    facade = await open_facade(request.param, store_url, settings(unique_prefix))
    yield facade
    await facade.close()


def failures(error: ClaimValidationFailed) -> list[Any]:
    return [(one["id"], one["reason"]["message"]) for one in error.failures]


# --- acting as another ---


async def test_who_acts_is_in_the_session_and_in_the_list(life: Facade) -> None:
    admin = await life.create("admin", payload={"role": "admin"})
    issued = await life.impersonate(admin.session, "user-1", payload={"plan": "pro"}, data=7, tenant="t1")
    session = life.verify(issued.access_token)
    assert (session.user_id, session.login_id, session.tenant, session.actor) == ("user-1", "user-1", "t1", "admin")
    assert session.payload == {"plan": "pro", "act": {"sub": "admin"}}
    (info,) = await life.list_sessions("user-1")
    assert (info.actor, info.actor_handle, info.data) == ("admin", admin.session.handle, 7)
    assert info.payload == session.payload

    refreshed = await life.refresh(issued.refresh_token)
    assert refreshed.session.actor == "admin" and refreshed.session.payload == session.payload
    own = await life.info(admin.session.handle)
    assert (own.actor, own.actor_handle, own.payload) == (None, None, {"role": "admin"})
    assert life.verify(admin.access_token).actor is None


async def test_it_lasts_an_hour_or_as_told_and_a_day_at_most(life: Facade) -> None:
    admin = await life.create("admin")
    for options, seconds in (({}, 3600), ({"lifetime": 90}, 90), ({"lifetime": 86_400}, 86_400)):
        issued = await life.impersonate(admin.session, "user-1", **options)
        info = await life.info(issued.session.handle)
        assert info.absolute_expires_at - info.created_at == seconds
        assert issued.session.expires_at - issued.session.issued_at <= seconds
    for lifetime in (0, -1, 86_401, 1.5, True, "1"):
        with pytest.raises(ValueError, match="lifetime"):
            await life.impersonate(admin.session, "user-1", lifetime=lifetime)


async def test_it_never_outlives_the_actors_own_session(life: Facade) -> None:
    admin = await life.create("admin", lifetime=60)
    issued = await life.impersonate(admin.session, "user-1")
    own, info = await life.info(admin.session.handle), await life.info(issued.session.handle)
    assert info.absolute_expires_at <= own.absolute_expires_at + 1


async def test_nobody_acts_by_somebody_who_acts_nor_a_guest_nor_as_one(life: Facade) -> None:
    admin, guest = await life.create("admin"), await life.guest()
    issued = await life.impersonate(admin.session, "user-1")
    with pytest.raises(ClaimValidationFailed) as caught:
        await life.impersonate(issued.session, "user-2")
    assert failures(caught.value) == [("act", "acts as another user already")]
    with pytest.raises(ClaimValidationFailed) as caught:
        await life.impersonate(guest.session, "user-2")
    assert failures(caught.value) == [("act", "a guest")]
    with pytest.raises(ValueError, match="guest"):
        await life.impersonate(admin.session, guest.session.user_id)
    assert await life.handles("user-2") == []


async def test_only_impersonate_says_who_acts(life: Facade) -> None:
    forged = {"act": {"sub": "admin"}, "a": 1}
    issued = await life.create("user-1", payload=forged)
    assert issued.session.payload == {"a": 1} and issued.session.actor is None
    assert await life.merge_payload(issued.session.handle, forged)
    assert (await life.info(issued.session.handle)).payload == {"a": 1}
    assert (await life.reissue(issued.session, forged)).session.actor is None
    assert (await life.guest(forged)).session.payload == {"a": 1}
    with pytest.raises(ValueError):
        SessionClaim("act")

    admin = await life.create("admin")
    acting = await life.impersonate(admin.session, "user-1", payload=forged)
    assert acting.session.payload == {"a": 1, "act": {"sub": "admin"}}
    for patch in ({"act": None}, {"act": {"sub": "user-1"}}):
        assert await life.merge_payload(acting.session.handle, patch)
        merged = await life.reissue(acting.session, {**patch, "b": 2})
        assert merged.session.payload == {"a": 1, "b": 2, "act": {"sub": "admin"}}
    assert await life.recheck(merged.session) is None, "the token shows what the store has"


async def test_validators_see_it(life: Facade) -> None:
    admin = await life.create("admin", authenticated=True)
    issued = await life.impersonate(admin.session, "user-1")
    handle = issued.session.handle
    assert await life.session_claims.validate(handle, [not_impersonated(id="own")]) == [
        {"id": "own", "reason": {"message": "impersonated"}}
    ]
    assert await life.session_claims.validate(admin.session.handle, [not_impersonated()]) == []
    (failure,) = await life.session_claims.validate(handle, [authenticated_within(300)])
    assert failure["id"] == "auth_time", "the user has not shown who they are"


async def test_claims_are_fetched_of_the_user(life: Facade) -> None:
    plan = PrimitiveClaim("plan", lambda user_id, *_: f"of {user_id}")
    admin = await life.create("admin")
    issued = await life.impersonate(admin.session, "user-1", claims=[plan])
    assert plan.value_in(issued.session.payload) == "of user-1"


async def test_the_users_own_sessions_go_on_whatever_their_number_may_be(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("sync", store_url, settings(unique_prefix, max_sessions_per_user=1))
    try:
        user, admin = await life.create("user-1"), await life.create("admin")
        issued = await life.impersonate(admin.session, "user-1")
        assert set(await life.handles("user-1")) == {user.session.handle, issued.session.handle}
        assert life.verify(user.access_token)
    finally:
        await life.close()


async def test_the_audit_log_and_the_events_name_both_and_the_reason(
    store_url: str, unique_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    life = await open_facade("sync", store_url, settings(unique_prefix, event_stream=100), on_event=told.append)
    try:
        admin = await life.create("admin")
        with caplog.at_level("WARNING", "fastverify.audit"):
            issued = await life.impersonate(admin.session, "user-1", reason="ticket 7")
            again = await life.stop_impersonating(issued.session)
        started, stopped = (line.getMessage() for line in caplog.records if "impersonation" in line.getMessage())
        assert "'admin' acts as 'user-1', reason 'ticket 7'" in started
        assert "'admin' acted as 'user-1'" in stopped
        for secret in (admin, issued, again):
            assert secret.access_token not in caplog.text and secret.refresh_token not in caplog.text
        expected = [
            ("impersonation_started", issued.session.handle, "user-1", "admin", {"reason": "ticket 7"}),
            ("impersonation_stopped", issued.session.handle, "user-1", "admin", {}),
        ]
        for events in (told, (await life.events()).events):
            ours = [event for event in events if event.name.startswith("impersonation")]
            assert [(e.name, e.handle, e.user_id, e.actor, dict(e.extra)) for e in ours] == expected
    finally:
        await life.close()


async def test_another_issuers_session_becomes_one_of_ours_before_it_acts(life: Facade) -> None:
    foreign = replace((await life.create("admin")).session, foreign=True)
    with pytest.raises(TryRefreshToken):
        await life.impersonate(foreign, "user-1")
    acting_there = replace((await life.impersonate(replace(foreign, foreign=False), "user-1")).session, foreign=True)
    with pytest.raises(ClaimValidationFailed):
        await life.stop_impersonating(acting_there)
    assert not replace((await life.guest()).session, foreign=True).is_guest


@pytest.mark.parametrize("how", ["refresh", "return"])
async def test_a_session_that_ends_for_want_of_its_actor_is_refused_and_told_at_once(
    store_url: str, unique_prefix: str, how: str
) -> None:
    told: list[Any] = []
    life = await open_facade("async", store_url, settings(unique_prefix), on_event=told.append)
    try:
        admin = await life.create("admin", tenant="staff")
        issued = await life.impersonate(admin.session, "user-1")
        await life.revoke_tenant("staff")
        assert life.verify(issued.access_token), "a mark of the actor's tenant is none of the user's"
        told.clear()
        with pytest.raises(Unauthorised):
            await (life.refresh(issued.refresh_token) if how == "refresh" else life.stop_impersonating(issued.session))
        assert refuses(life, issued.access_token)
        assert [(event.name, event.handle, event.why) for event in told] == [
            ("session_revoked", issued.session.handle, "actor")
        ]
    finally:
        await life.close()


@pytest.mark.parametrize("reason", ["x" * 201, "a\nb", 7, None])
async def test_a_reason_is_a_line(life: Facade, reason: Any) -> None:
    admin = await life.create("admin")
    with pytest.raises(ValueError, match="reason"):
        await life.impersonate(admin.session, "user-1", reason=reason)


# --- the way back ---


async def test_the_way_back_is_the_actors_own_session(life: Facade) -> None:
    admin = await life.create("admin", payload={"role": "admin"}, data=7)
    issued = await life.impersonate(admin.session, "user-1")
    back = await life.stop_impersonating(issued.session)
    assert back.session.handle == admin.session.handle and back.session.payload == {"role": "admin"}
    assert back.refresh_token == admin.refresh_token and back.refresh_token_changed
    assert life.verify(back.access_token).user_id == "admin"
    assert (await life.refresh(back.refresh_token)).session.handle == admin.session.handle
    assert refuses(life, issued.access_token)
    assert await life.info(issued.session.handle) is None
    with pytest.raises(Unauthorised):
        await life.refresh(issued.refresh_token)
    assert (await life.impersonate(back.session, "user-2")).session.user_id == "user-2"


async def test_a_return_whose_reply_was_lost_can_be_repeated(life: Facade) -> None:
    admin = await life.create("admin")
    issued = await life.impersonate(admin.session, "user-1")
    first = await life.stop_impersonating(issued.session)
    left = life.sessions.left_impersonation(issued.access_token)
    assert left is not None and left.handle == issued.session.handle
    assert (await life.stop_impersonating(left)).refresh_token == first.refresh_token
    assert life.sessions.left_impersonation(first.access_token) is None
    await life.revoke(admin.session.handle)
    assert life.sessions.left_impersonation(admin.access_token) is None, "nobody acted by it"
    with pytest.raises(Unauthorised):
        await life.stop_impersonating(left)


async def test_in_strict_mode_a_return_is_not_repeated(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("sync", store_url, settings(unique_prefix, exchange_seconds=0))
    try:
        admin = await life.create("admin")
        issued = await life.impersonate(admin.session, "user-1")
        assert (await life.stop_impersonating(issued.session)).session.user_id == "admin"
        with pytest.raises(Unauthorised):
            await life.stop_impersonating(issued.session)
    finally:
        await life.close()


async def test_who_acts_as_nobody_has_no_way_back(life: Facade) -> None:
    admin = await life.create("admin")
    with pytest.raises(ClaimValidationFailed) as caught:
        await life.stop_impersonating(admin.session)
    assert failures(caught.value) == [("act", "acts as nobody else")]


async def test_a_session_that_was_ended_from_outside_has_no_way_back(life: Facade) -> None:
    admin = await life.create("admin")
    issued = await life.impersonate(admin.session, "user-1")
    await life.revoke_user("user-1")
    with pytest.raises(Unauthorised):
        await life.stop_impersonating(issued.session)
    assert life.verify(admin.access_token)


async def test_the_way_back_binds_the_session_as_told(life: Facade) -> None:
    admin = await life.create("admin", anti_csrf=True)
    issued = await life.impersonate(admin.session, "user-1")
    kept = await life.stop_impersonating(issued.session)
    assert kept.anti_csrf_token == admin.anti_csrf_token
    issued = await life.impersonate(kept.session, "user-1")
    assert (await life.stop_impersonating(issued.session, anti_csrf=False)).anti_csrf_token is None


# --- when the actor's session ends ---


@pytest.mark.parametrize("how", ["revoke", "revoke_user", "previous", "limit"])
async def test_what_ends_the_actors_session_ends_what_it_acts_by(store_url: str, unique_prefix: str, how: str) -> None:
    most = 1 if how == "limit" else None
    life = await open_facade("async", store_url, settings(unique_prefix, max_sessions_per_user=most))
    gateway = SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix)
    try:
        admin = await life.create("admin")
        acting = [await life.impersonate(admin.session, f"user-{n}") for n in range(5)]
        for issued in acting:
            assert gateway.verify(issued.access_token).actor == "admin"
        match how:
            case "revoke":
                assert await life.revoke(admin.session.handle)
            case "revoke_user":
                assert await life.revoke_user("admin") == [admin.session.handle]
            case "previous":
                await life.create("admin", previous=admin.session.handle)
            case "limit":
                await life.create("admin")
        for issued in acting:
            until(lambda token=issued.access_token: refuses(gateway, token) and refuses(life, token))  # type: ignore[misc]
            with pytest.raises(Unauthorised):
                await life.refresh(issued.refresh_token)
            assert await life.info(issued.session.handle) is None
            with pytest.raises(Unauthorised):
                await life.stop_impersonating(issued.session)
    finally:
        gateway.close()
        await life.close()


async def test_a_session_that_somebody_has_come_back_from_is_none_of_the_actors_any_more(life: Facade) -> None:
    admin = await life.create("admin")
    first = await life.impersonate(admin.session, "user-1")
    back = await life.stop_impersonating(first.session)
    second = await life.impersonate(back.session, "user-1")
    assert life.verify(second.access_token)
    with pytest.raises(Unauthorised):
        await life.refresh(first.refresh_token)
    assert (await life.refresh(second.refresh_token)).session.actor == "admin"


# --- what the scripts decide ---


def acting(lab: Lab, admin: Issued, user_id: str = "user-2", **options: Any) -> Issued:
    """The admin acts as a user."""
    given = {"lifetime": 3600, "reason": "", **options}
    flow = flows.impersonate(lab.authority, admin.session, user_id, now=time.time(), random=os.urandom, **given)
    issued = lab.run(flow).value
    lab._handles.add(plain_handle(issued.session.handle))
    return issued


def back(lab: Lab, session: Session) -> Issued:
    """The admin is the admin again."""
    flow = flows.stop_impersonating(lab.authority, session, now=time.time(), random=os.urandom, anti_csrf=None)
    return lab.run(flow).value


def test_a_token_that_waits_long_is_still_the_one_that_comes_back(lab: Lab) -> None:
    admin = lab.create("admin")
    issued = acting(lab, admin)
    lab.advance(1800)
    again = back(lab, issued.session)
    assert again.refresh_token == admin.refresh_token
    assert lab.now_ms() - lab.number(again, "handed_at") < CLEAR * 1000
    assert not lab.refresh(again.refresh_token).refresh_token_changed, "its time has begun anew"
    lab.advance(D + CLEAR)
    assert generation(lab.refresh(again.refresh_token).refresh_token, lab) == 1


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_refresh_that_was_under_way_is_no_theft_and_its_token_comes_back(lab: Lab, confirmed: bool) -> None:
    admin = lab.create("admin")
    lab.advance(D + CLEAR)
    issued = acting(lab, admin)
    child = lab.refresh(admin.refresh_token)  # sent before, and it arrives after
    if confirmed:
        lab.confirm(child, 1)
    lab.advance(1800)
    again = back(lab, issued.session)
    assert again.refresh_token == child.refresh_token != admin.refresh_token
    lab.advance(D + CLEAR)
    assert generation(lab.refresh(again.refresh_token).refresh_token, lab) == 2


def test_a_thief_of_the_actors_token_is_found_after_the_return(lab: Lab) -> None:
    admin = lab.create("admin")
    issued = acting(lab, admin)
    lab.advance(D + CLEAR)
    stolen = lab.refresh(admin.refresh_token)
    lab.confirm(stolen, 1)
    lab.advance(D + CLEAR)
    again = back(lab, issued.session)
    lab.advance(D + CLEAR)
    thief = lab.refresh(stolen.refresh_token)
    lab.confirm(thief, 2)
    lab.advance(W + CLEAR)
    with pytest.raises(TokenTheftDetected):
        lab.refresh(again.refresh_token)
    assert lab.record(again) == {}


def test_a_new_primary_goes_beyond_all_that_was_handed_out(lab: Lab) -> None:
    admin = lab.create("admin")
    snapshot = lab.snapshot(admin)
    for _ in range(3):
        lab.advance(D + CLEAR)
        admin = lab.refresh(admin.refresh_token)
    issued = acting(lab, admin)
    lab.advance(1800)
    lab.fail_over(snapshot)
    with pytest.raises(StoreUnavailable) as caught:
        back(lab, issued.session)
    assert 1 <= caught.value.retry_after <= D + 1
    lab.advance(D + CLEAR)
    lab.redis.hset(lab.record_key(admin), "handed_at", lab.now_ms() - 1000 * (W - 5))  # by a refresh during the hold
    with pytest.raises(StoreUnavailable):
        back(lab, issued.session)
    lab.advance(CLEAR + 1)
    again = back(lab, issued.session)
    assert generation(again.refresh_token, lab) == 4
    lab.confirm(again, 3)  # a report that was long under way
    lab.confirm(again, 4)
    lab.advance(D + CLEAR)
    assert generation(lab.refresh(again.refresh_token).refresh_token, lab) == 5


def test_a_new_primary_that_has_lost_the_session_ends_it(lab: Lab) -> None:
    admin = lab.create("admin")
    issued = acting(lab, admin)
    lab.redis.delete(lab.record_key(admin))
    with pytest.raises(Unauthorised):
        back(lab, issued.session)
    assert lab.record(issued) == {}


def test_nobody_acts_before_a_new_primary_must_know_all(lab: Lab) -> None:
    admin = lab.create("admin")
    lab.advance(1)  # not in the very millisecond that the new primary begins in
    lab.fail_over()
    with pytest.raises(StoreUnavailable):
        acting(lab, admin)
    lab.advance(D + CLEAR)
    with pytest.raises(TryRefreshToken):
        acting(lab, admin)
    admin = lab.refresh(admin.refresh_token)
    assert acting(lab, admin).session.actor == "admin"


def test_a_loop_has_an_end(lab: Lab) -> None:
    admin = lab.create("admin")
    for _ in range(flows.limits.MAX_REDELIVERIES):
        back(lab, acting(lab, admin).session)
    issued = acting(lab, admin)
    with pytest.raises(TooManyRefreshes):
        back(lab, issued.session)
    assert lab.record(issued), "it is still there, and can come back later"
    lab.advance(D + CLEAR)
    assert back(lab, issued.session).session.user_id == "admin"


def test_acting_keeps_the_actors_own_session_in_use(lab: Lab) -> None:
    admin = lab.create("admin", idle_timeout=900)
    issued = acting(lab, admin)
    for _ in range(3):
        lab.advance(600)
        issued = lab.refresh(issued.refresh_token)
    assert back(lab, issued.session).session.handle == admin.session.handle
    issued = acting(lab, admin)
    lab.advance(901)
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)
    assert lab.record(issued) == {}


@pytest.mark.parametrize("everybody", [True, False])
def test_a_mark_of_the_actors_tenant_is_seen_at_the_next_refresh_and_by_a_strict_look(
    lab: Lab, everybody: bool
) -> None:
    admin = lab.create("admin", tenant="staff")
    issued = acting(lab, admin)
    for lives in (issued.session, acting(lab, lab.create("actor"), "actor").session):
        lab.run(flows.verify_strict(lab.authority, lives))
    lab.mark("*" if everybody else "staff")
    with pytest.raises(Unauthorised):
        lab.run(flows.verify_strict(lab.authority, issued.session))
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


def test_the_entries_of_what_a_session_acts_by_are_written_with_its_own(lab: Lab) -> None:
    admin = lab.create("admin")
    issued, left = acting(lab, admin), acting(lab, admin, "user-3")
    back(lab, left.session)
    tag = lab.tag(admin)
    before = len(lab.entries(tag))
    lab.revoke(admin.session.handle)
    written = lab.entries(tag)[before:]
    assert sorted(written) == sorted(session_entry(one.session.handle) for one in (admin, issued))
    assert lab.redis.exists(f"{tag}:acts:{plain_handle(admin.session.handle)}") == 0


def test_theft_of_the_actors_token_ends_what_it_acts_by(lab: Lab) -> None:
    admin = lab.create("admin")
    lab.advance(D + CLEAR)
    newer = lab.refresh(admin.refresh_token)
    lab.confirm(newer, 1)
    issued = acting(lab, newer)
    lab.advance(D + CLEAR)
    with pytest.raises(TokenTheftDetected):
        lab.refresh(admin.refresh_token)
    assert session_entry(issued.session.handle) in lab.entries(lab.tag(admin))
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


def test_what_was_written_down_goes_when_its_time_is_up(lab: Lab) -> None:
    admin = lab.create("admin")
    first = acting(lab, admin, lifetime=60)
    key = f"{lab.tag(admin)}:acts:{plain_handle(admin.session.handle)}"
    lab.redis.zadd(key, {plain_handle(first.session.handle): lab.now_ms() - 1})
    second = acting(lab, admin, lifetime=120)
    assert lab.redis.zrange(key, 0, -1) == [plain_handle(second.session.handle).encode()]
    assert 110_000 < lab.redis.pttl(key) <= 120_000


def test_many_sessions_of_a_user_end_in_portions_though_some_act_by_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.limits, "BATCH", 2)
    own = [lab.create("admin") for _ in range(5)]
    others = [acting(lab, one, f"user-{n}") for n, one in enumerate(own) for _ in range(3)]
    assert sorted(lab.revoke_user("admin")) == sorted(one.session.handle for one in own)
    written = lab.entries(lab.tag(own[0]))
    assert {session_entry(one.session.handle) for one in (*own, *others)} <= set(written)


def test_an_act_of_before_it_meant_anything_is_dropped(lab: Lab) -> None:
    issued = lab.create("user-1", payload={"a": 1})
    lab.redis.hset(lab.record_key(issued), "p:act", b"\x81\xa3sub\xa5admin")
    refreshed = lab.refresh(issued.refresh_token)
    assert refreshed.session.payload == {"a": 1} and refreshed.session.actor is None
    assert handle_bytes(refreshed.session.handle) == handle_bytes(issued.session.handle)
