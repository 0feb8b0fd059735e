"""Anonymous sessions, and what stays of them when their visitor signs in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from facades import Facade, open_facade, refuses, settings
from session_lab import Lab

from fastverify import (
    Issued,
    PrimitiveClaim,
    Session,
    StoreUnavailable,
    TokenTheftDetected,
    Unauthorised,
    flows,
    not_guest,
)
from fastverify.flows import Outcome
from fastverify.session import handle_bytes
from fastverify.store import Call, Flow

TEN = 10


@pytest.fixture(params=["sync", "async"])
async def life(request: pytest.FixtureRequest, store_url: str, unique_prefix: str) -> AsyncIterator[Facade]:
    """A session service on each store, by each manager."""
    facade = await open_facade(request.param, store_url, settings(unique_prefix))
    yield facade
    await facade.close()


def users_of_shard(life: Facade, handle: str, *, same: bool) -> str:
    """A user whose sessions are in the same shard as this one, or in another."""
    placement = life.sessions._gateway.authority.placement
    shard = placement.shard_of_handle(handle_bytes(handle))
    return next(u for u in map("user-{}".format, range(99)) if (placement.shard_of_user(u) == shard) is same)


# --- guests ---


async def test_a_guest_has_a_session_like_any_other(life: Facade) -> None:
    issued = await life.guest({"cart": [1]}, data={"seen": 2}, device={"agent": "x"}, anti_csrf=True)
    session = life.verify(issued.access_token)
    assert session.is_guest and session.user_id.startswith("guest-") and session.login_id == session.user_id
    assert session.payload == {"cart": [1]}
    assert len(session.claims) == TEN + 1
    info = await life.info(session.handle)
    assert (info.is_guest, info.data, info.device) == (True, {"seen": 2}, {"agent": "x"})
    assert await life.handles(session.user_id) == [session.handle]
    refreshed = await life.refresh(issued.refresh_token, anti_csrf_token=issued.anti_csrf_token)
    assert refreshed.session.user_id == session.user_id
    assert await life.revoke(session.handle)
    assert refuses(life, issued.access_token)


async def test_every_guest_is_another_user_and_no_user_is_a_guest(life: Facade) -> None:
    one, two, user = await life.guest(), await life.guest(), await life.create("guest-1")
    assert one.session.user_id != two.session.user_id
    assert one.session.payload == {}
    assert not user.session.is_guest
    with pytest.raises(ValueError, match="guest"):
        await life.create(one.session.user_id)
    with pytest.raises(ValueError, match="guest"):
        await life.promote(one.session, two.session.user_id)
    assert len(await life.handles(two.session.user_id)) == 1


async def test_a_guest_ends_the_session_before_and_has_claims_and_a_lifetime(life: Facade) -> None:
    before = await life.guest()
    plan = PrimitiveClaim("plan", lambda user_id, *_: "free" if user_id.startswith("guest-") else None)
    issued = await life.guest({"a": 1}, claims=[plan], previous=before.session.handle, lifetime=60)
    assert plan.value_in(issued.session.payload) == "free" and issued.session.payload["a"] == 1
    assert await life.info(before.session.handle) is None
    info = await life.info(issued.session.handle)
    assert info.absolute_expires_at - info.created_at == 60


async def test_a_validator_tells_guests_from_users(life: Facade) -> None:
    guest, user = await life.guest(), await life.create("user-1")
    assert await life.session_claims.validate(user.session.handle, [not_guest()]) == []
    failures = await life.session_claims.validate(guest.session.handle, [not_guest(id="member")])
    assert failures == [{"id": "member", "reason": {"message": "a guest"}}]


# --- promotion ---


@pytest.mark.parametrize("same", [True, False], ids=["one shard", "two shards"])
async def test_a_promotion_keeps_payload_and_data_under_a_new_handle(life: Facade, same: bool) -> None:
    guest = await life.guest({"cart": [1], "plan": "none", "auth_time": 5}, data={"seen": 2}, tenant="t1")
    user = users_of_shard(life, guest.session.handle, same=same)
    await life.merge_payload(guest.session.handle, {"lang": "en"})  # in the store, and not in the token
    issued = await life.promote(guest.session, user, payload={"plan": "pro"}, login_id="login-1")
    session = life.verify(issued.access_token)
    assert (session.user_id, session.login_id, session.tenant) == (user, "login-1", "t1")
    assert session.payload == {"cart": [1], "plan": "pro", "lang": "en"}, "but when the user showed who they are"
    assert await life.get_data(session.handle) == {"seen": 2}
    assert session.handle.partition("_")[0] != guest.session.handle.partition("_")[0]
    assert issued.refresh_token_changed and (await life.refresh(issued.refresh_token)).session.handle == session.handle

    assert refuses(life, guest.access_token)
    assert await life.info(guest.session.handle) is None
    with pytest.raises(Unauthorised):
        await life.refresh(guest.refresh_token)


async def test_what_a_promotion_is_given_goes_before_what_the_guest_had(life: Facade) -> None:
    guest = await life.guest({"a": 1}, data={"a": 1})
    plan = PrimitiveClaim("a", lambda *_: 2)
    options = {"data": {"b": 2}, "tenant": "t2", "claims": [plan], "authenticated": True, "lifetime": 90}
    issued = await life.promote(guest.session, "user-1", **options)
    assert plan.value_in(issued.session.payload) == 2
    assert issued.session.payload["auth_time"] <= time.time()
    info = await life.info(issued.session.handle)
    assert (info.tenant, info.data, info.absolute_expires_at - info.created_at) == ("t2", {"b": 2}, 90)


@pytest.mark.parametrize("same", [True, False], ids=["one shard", "two shards"])
async def test_a_promotion_whose_reply_was_lost_gives_the_same_session_again(life: Facade, same: bool) -> None:
    guest = await life.guest({"cart": [1]})
    user = users_of_shard(life, guest.session.handle, same=same)
    first = await life.promote(guest.session, user)
    again = await life.promote(guest.session, user, payload={"ignored": 1})
    assert again.session.handle == first.session.handle
    assert again.refresh_token == first.refresh_token
    assert again.refresh_token_changed, "the client may not have it"
    assert again.session.payload == {"cart": [1]}
    assert len(await life.handles(user)) == 1
    assert (await life.refresh(first.refresh_token)).session.handle == first.session.handle


async def test_two_promotions_at_once_are_one(life: Facade) -> None:
    guest = await life.guest({"cart": [1]})
    issued = await asyncio.gather(*(life.promote(guest.session, "user-1") for _ in range(8)))
    assert len({one.refresh_token for one in issued}) == 1
    assert await life.handles("user-1") == [issued[0].session.handle]
    assert await life.info(guest.session.handle) is None


async def test_a_promotion_after_its_session_has_gone_on_starts_another_with_the_payload(
    store_url: str, unique_prefix: str
) -> None:
    life = await open_facade("async", store_url, settings(unique_prefix, exchange_seconds=0))
    try:
        guest = await life.guest({"cart": [1]}, data=7)
        first = await life.promote(guest.session, "user-1")
        newer = await life.refresh(first.refresh_token)
        await life.merge_payload(first.session.handle, {"cart": [1, 2]})
        other = await life.promote(guest.session, "user-1")
        assert other.session.handle != first.session.handle
        assert other.session.payload == {"cart": [1, 2]}
        assert await life.get_data(other.session.handle) == 7
        assert (await life.refresh(newer.refresh_token)).session.handle == first.session.handle
    finally:
        await life.close()


async def test_a_promotion_is_nobody_elses_and_no_users_session_is_promoted(life: Facade) -> None:
    guest = await life.guest({"cart": [1]})
    await life.promote(guest.session, "user-1")
    with pytest.raises(Unauthorised):
        await life.promote(guest.session, "user-2")
    assert await life.handles("user-2") == []
    user = await life.create("user-1")
    with pytest.raises(ValueError, match="guest"):
        await life.promote(user.session, "user-2")
    assert await life.info(user.session.handle) is not None


async def test_a_guest_that_has_ended_leaves_nothing_to_promote(life: Facade) -> None:
    guest = await life.guest({"cart": [1]})
    await life.revoke(guest.session.handle)
    with pytest.raises(Unauthorised):
        await life.promote(guest.session, "user-1")
    assert await life.handles("user-1") == []


async def test_a_payload_that_does_not_fit_leaves_the_guest_alone(life: Facade) -> None:
    guest = await life.guest({"cart": "x" * 3000})
    with pytest.raises(ValueError, match="access token"):
        await life.promote(guest.session, "user-1", payload={"plan": "y" * 3000})
    assert await life.info(guest.session.handle) is not None
    assert (await life.promote(guest.session, "user-1")).session.payload == {"cart": "x" * 3000}


async def test_an_audit_line_names_no_token(life: Facade, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "fastverify.audit"):
        guest = await life.guest()
        issued = await life.promote(guest.session, "user-1")
    assert "guest promoted" in caplog.text
    for secret in (guest.access_token, guest.refresh_token, issued.access_token, issued.refresh_token):
        assert secret not in caplog.text


# --- whose token has lapsed ---


async def test_only_a_guests_own_lapsed_token_is_known_again(store_url: str, unique_prefix: str) -> None:
    now = [time.time()]
    life = await open_facade("sync", store_url, settings(unique_prefix), clock=lambda: now[0])
    try:
        lapsed: Callable[[str], Session | None] = life.sessions.lapsed_guest
        guest, ended, user = await life.guest(), await life.guest(), await life.create("user-1")
        assert lapsed(guest.access_token) is None, "it serves"
        await life.revoke(ended.session.handle)
        assert lapsed(ended.access_token).handle == ended.session.handle
        jwt = await life.create_jwt({"sub": guest.session.user_id})
        other = await life.guest()
        await life.blacklist(other.access_token)
        head, body, signature = ended.access_token.split(".")
        forged = f"{head}.{body}.{signature[::-1]}"
        for token in ("", "x", "a.b.c", forged, jwt, user.access_token, other.access_token):
            assert lapsed(token) is None
        await life.revoke(user.session.handle)
        assert lapsed(user.access_token) is None
    finally:
        await life.close()


# --- where a call may break off ---


def promotion(lab: Lab, guest: Issued, user: str, **options: Any) -> Flow[Outcome[Issued]]:
    return flows.promote(lab.authority, guest.session, user, now=time.time(), random=os.urandom, **options)


def drive_until(lab: Lab, flow: Flow[Outcome[Issued]], steps: int, *, done: bool) -> None:
    """Make so many calls; the reply of the last one is lost, or the call is."""
    request = next(flow)
    for _ in range(steps - 1):
        request = flow.send(run_all(lab, request))
    if done:
        run_all(lab, request)
    flow.close()


def run_all(lab: Lab, request: Any) -> Any:
    return lab.store.run(request) if isinstance(request, Call) else lab.store.run_many(list(request))


def start_guest(lab: Lab, user: str, *, same: bool) -> Issued:
    """A guest's session in the user's shard, or in another."""
    placement = lab.authority.placement
    while True:
        guest = lab.create(f"guest-{os.urandom(4).hex()}-0000-4000-8000-000000000000", payload={"cart": [1]}, data=7)
        shard = placement.shard_of_handle(handle_bytes(guest.session.handle))
        if (shard == placement.shard_of_user(user)) is same:
            return guest


@pytest.mark.parametrize("done", [True, False], ids=["reply lost", "call lost"])
@pytest.mark.parametrize(("same", "steps"), [(True, 1), (True, 2), (False, 1), (False, 2), (False, 3)])
def test_wherever_a_promotion_breaks_off_the_same_call_completes_it(
    lab: Lab, same: bool, steps: int, done: bool
) -> None:
    guest = start_guest(lab, "user-1", same=same)
    drive_until(lab, promotion(lab, guest, "user-1"), steps, done=done)
    issued = lab.run(promotion(lab, guest, "user-1")).value
    assert issued.session.payload == {"cart": [1]}
    handles = lab.run(flows.handles(lab.authority, "user-1"))
    assert handles == [issued.session.handle], "one session, and not one more"
    assert lab.run(flows.info(lab.authority, issued.session.handle)).data == 7
    assert lab.run(flows.info(lab.authority, guest.session.handle)) is None
    assert lab.refresh(issued.refresh_token).session.handle == issued.session.handle
    last = lab.run(promotion(lab, guest, "user-1")).value
    assert last.refresh_token == issued.refresh_token


def test_another_user_may_take_over_a_guest_that_still_lives(lab: Lab) -> None:
    guest = start_guest(lab, "user-1", same=False)
    drive_until(lab, promotion(lab, guest, "user-1"), 1, done=True)
    issued = lab.run(promotion(lab, guest, "user-2")).value
    assert issued.session.user_id == "user-2" and issued.session.payload == {"cart": [1]}
    with pytest.raises(Unauthorised):
        lab.run(promotion(lab, guest, "user-1"))


def test_a_promotion_is_remembered_for_ten_minutes(lab: Lab) -> None:
    guest = start_guest(lab, "user-1", same=False)
    lab.run(promotion(lab, guest, "user-1"))
    memo = f"{lab.tag(guest)}:heir:{guest.session.handle}"
    assert 590_000 < lab.redis.pttl(memo) <= 600_000
    lab.redis.delete(memo)
    with pytest.raises(Unauthorised):
        lab.run(promotion(lab, guest, "user-1"))


def test_a_record_that_is_there_is_never_made_anew(lab: Lab) -> None:
    issued = lab.create("user-1")
    before = lab.record(issued)
    with pytest.raises(flows.AlreadyThere):
        lab.create("user-1", handle=handle_bytes(issued.session.handle))
    assert lab.record(issued) == before


def test_a_thief_of_the_first_token_is_found_after_a_promotion_as_after_a_sign_in(lab: Lab) -> None:
    guest = start_guest(lab, "user-1", same=False)
    stolen = lab.run(promotion(lab, guest, "user-1")).value
    issued = lab.run(promotion(lab, guest, "user-1")).value
    lab._handles.add(issued.session.handle)
    lab.advance(60)
    newer = lab.refresh(issued.refresh_token)
    assert newer.refresh_token != stolen.refresh_token
    lab.confirm(issued, 1)
    lab.advance(60)
    with pytest.raises(TokenTheftDetected):
        lab.refresh(stolen.refresh_token)


def test_nothing_is_handed_out_by_a_store_that_does_not_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = start_guest(lab, "user-1", same=True)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(type(lab.store), "run", away)
        with pytest.raises(StoreUnavailable):
            lab.run(promotion(lab, guest, "user-1"))
    assert lab.run(promotion(lab, guest, "user-1")).value.session.payload == {"cart": [1]}
