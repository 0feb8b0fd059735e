"""The life of a session through Sessions and AsyncSessions, on every store."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from facades import Facade, open_facade, settings

import fastverify
from fastverify import (
    AsyncSessions,
    ConfigError,
    DuplicateCookies,
    Sessions,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
    Verifier,
)
from fastverify.claims_by_handle import AsyncSessionClaims, SessionClaims
from fastverify.store import open_store
from fastverify.tokens import encode_refresh_token, parse_refresh_token

TEN = {
    *("sub", "exp", "iat", "sessionHandle", "refreshTokenHash1"),
    *("parentRefreshTokenHash1", "antiCsrfToken", "tId", "rsub", "iss"),
}


@pytest.fixture(params=["sync", "async"])
async def life(request: pytest.FixtureRequest, store_url: str, unique_prefix: str) -> AsyncIterator[Facade]:
    """A session service on each store, by each manager."""
    facade = await open_facade(request.param, store_url, settings(unique_prefix))
    yield facade
    await facade.close()


def operations(facade: type) -> dict[str, inspect.Signature]:
    public = inspect.getmembers(facade, inspect.isfunction)
    return {name: inspect.signature(member) for name, member in public if not name.startswith("_")}


def test_both_managers_have_the_same_operations_with_the_same_signatures() -> None:
    blocking, awaited = operations(Sessions), operations(AsyncSessions)
    blocking["aclose"] = blocking.pop("close")
    assert awaited == blocking
    ordinary = {"now", "verify", "note_seen", "newest_refresh_token", "is_refresh_token", "lapsed_guest"}
    ordinary |= {"left_impersonation", "jwks_max_age"}
    for name in awaited:
        assert inspect.iscoroutinefunction(getattr(AsyncSessions, name)) == (name not in ordinary), name


def test_session_claims_have_the_same_operations_with_the_same_signatures() -> None:
    blocking, awaited = operations(SessionClaims), operations(AsyncSessionClaims)
    assert awaited == blocking
    assert set(blocking) == {"fetch_and_set", "set", "get", "remove", "validate", "reauthenticated"}
    assert all(inspect.iscoroutinefunction(getattr(AsyncSessionClaims, name)) for name in awaited)


async def test_sign_in_verify_refresh_revoke(life: Facade) -> None:
    issued = await life.create("user-1", payload={"plan": "pro"}, data={"cart": []}, device={"agent": "x"})
    session = life.verify(issued.access_token)
    assert (session.user_id, session.login_id, session.tenant) == ("user-1", "user-1", "public")
    assert dict(session.payload) == {"plan": "pro"}
    assert session.handle == issued.session.handle
    assert str(uuid.UUID(session.handle)) == session.handle
    copies = (issued.access_token + "x")[:-1], issued.access_token.encode()
    assert all(life.verify(token) is session for token in (issued.access_token, *copies))

    refreshed = await life.refresh(issued.refresh_token)
    assert refreshed.refresh_token == issued.refresh_token
    assert not refreshed.refresh_token_changed, "a token handed out a moment ago is not rotated"
    assert life.verify(refreshed.access_token).handle == session.handle

    assert await life.revoke(session.handle) is True
    assert await life.revoke(session.handle) is False
    for token in (issued.access_token, refreshed.access_token):
        with pytest.raises(Unauthorised) as caught:
            life.verify(token)
        assert caught.value.clear_tokens
        assert isinstance(caught.value.__cause__, fastverify.RevokedToken)
    with pytest.raises(Unauthorised):
        await life.refresh(issued.refresh_token)
    assert await life.info(session.handle) is None


async def test_a_fresh_token_has_exactly_the_ten_claims_and_the_header_of_version_5(life: Facade) -> None:
    issued = await life.create("user-1")
    claims = issued.session.claims.to_dict()
    assert set(claims) == TEN
    assert claims["exp"] - claims["iat"] == 3600
    assert type(claims["exp"]) is type(claims["iat"]) is int
    assert claims["parentRefreshTokenHash1"] is None
    assert claims["antiCsrfToken"] is None
    assert claims["iss"] == "http://api.test/auth"
    assert claims["refreshTokenHash1"][:8] == "00000000"
    header = json.loads(_segment(issued.access_token, 0))
    assert header == {"alg": "ES256", "kid": issued.session.claims.key_id, "typ": "JWT", "version": "5"}


async def test_the_front_token_shows_the_claims_and_the_expiry_in_milliseconds(life: Facade) -> None:
    issued = await life.create("user-1", payload={"name": "Zoë"})
    front = json.loads(base64.b64decode(issued.front_token))
    assert front == {
        "uid": "user-1",
        "ate": issued.session.expires_at * 1000,
        "up": issued.session.claims.to_dict(),
    }


async def test_tokens_verify_with_the_published_keys_alone(life: Facade) -> None:
    issued = await life.create("user-1")
    keys = fastverify.KeySet.from_jwks(await life.jwks())
    verifier = Verifier(keys, issuer=(await life.openid_configuration())["issuer"])
    assert verifier.verify(issued.access_token)["sub"] == "user-1"


async def test_default_claims_cannot_be_set_by_the_application(life: Facade) -> None:
    issued = await life.create("user-1", payload={"sub": "admin", "tId": "x", "iss": "evil", "stt": 1, "role": "r"})
    assert dict(issued.session.payload) == {"role": "r"}
    assert issued.session.user_id == "user-1"
    assert await life.merge_payload(issued.session.handle, {"sessionHandle": "x", "exp": 1, "role": None})
    assert (await life.info(issued.session.handle)).payload == {}


@pytest.mark.parametrize(
    "payload",
    [
        {"x": object()},
        {"x": float("nan")},
        {"x": 2**64},
        {"x": "a" * 5000},
        {"x": [[[[[[[[[1]]]]]]]]]},
        {f"m{n}": n for n in range(200)},
        {f"m{n}": "y" * 1000 for n in range(9)},
        {"x": "\ud800"},
        {"nbf": "soon"},
        {"nbf": 4_000_000_000},
        ["not", "a", "mapping"],
    ],
    ids=lambda payload: str(payload)[:24],
)
async def test_a_payload_that_no_verifier_would_accept_is_refused_before_anything_is_stored(
    life: Facade, payload: Any
) -> None:
    with pytest.raises(ValueError):
        await life.create("user-1", payload=payload)
    assert await life.handles("user-1") == []


@pytest.mark.parametrize(
    "options",
    [
        {"tenant": "a b"},
        {"tenant": "x_{y}"},
        {"tenant": ""},
        {"lifetime": 0},
        {"idle_timeout": 10**9},
        {"data": {1, 2}},
        {"anti_csrf": "yes"},
    ],
)
async def test_arguments_that_cannot_be_used_are_refused(life: Facade, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        await life.create("user-1", **options)
    for user in ("", "u" * 257, "\ud800", 7, None):
        with pytest.raises(ValueError):
            await life.create(user)
        with pytest.raises(ValueError):
            await life.create("user-1", login_id=user or "")


async def test_whose_sessions_are_meant_must_be_said_plainly(life: Facade) -> None:
    """A slip must not end more sessions than were meant, nor fewer."""
    issued = await life.create("user-1", tenant="acme")
    for operation in (life.revoke_user, life.handles, life.list_sessions):
        for user in ("", "u" * 257, 7, None, b"user-1"):
            with pytest.raises(ValueError, match="user_id"):
                await operation(user)
        for tenant in ("", "a b", 7):
            with pytest.raises(ValueError, match="tenant"):
                await operation("user-1", tenant=tenant)
    with pytest.raises(ValueError, match="except_handle"):
        await life.revoke_user("user-1", except_handle="no handle at all")
    for one in (None, 7, b"x" * 36):
        with pytest.raises(TypeError):
            await life.revoke(one)
        with pytest.raises(TypeError):
            await life.info(one)
    with pytest.raises(TypeError, match="several handles"):
        await life.revoke_many(issued.session.handle)
    assert await life.handles("user-1") == [issued.session.handle]


async def test_session_data_stays_on_the_server(life: Facade) -> None:
    issued = await life.create("user-1", data={"cart": [1, {"n": []}], "none": None})
    handle = issued.session.handle
    assert "cart" not in issued.session.claims
    assert await life.get_data(handle) == {"cart": [1, {"n": []}], "none": None}
    assert await life.set_data(handle, ("a", 2**63)) is True
    assert await life.get_data(handle) == ["a", 2**63]
    await life.revoke(handle)
    assert await life.get_data(handle) is None
    assert await life.set_data(handle, {}) is False


async def test_a_merge_changes_what_it_names_and_the_next_token_shows_it(life: Facade) -> None:
    issued = await life.create("user-1", payload={"keep": [], "drop": 1, "big": 2**53 + 1})
    handle = issued.session.handle
    assert await life.merge_payload(handle, {"drop": None, "new": {"a": {}}, "absent": None}) is True
    refreshed = await life.refresh(issued.refresh_token)
    assert dict(refreshed.session.payload) == {"keep": [], "big": 2**53 + 1, "new": {"a": {}}}


async def test_concurrent_merges_lose_nothing(life: Facade) -> None:
    handle = (await life.create("user-1")).session.handle
    await asyncio.gather(*(life.merge_payload(handle, {f"m{n}": n}) for n in range(20)))
    assert (await life.info(handle)).payload == {f"m{n}": n for n in range(20)}


async def test_a_merge_that_would_outgrow_the_token_changes_nothing(life: Facade) -> None:
    handle = (await life.create("user-1", payload={"a": "x" * 3000})).session.handle
    with pytest.raises(ValueError):
        await life.merge_payload(handle, {"b": "y" * 3500})
    assert (await life.info(handle)).payload == {"a": "x" * 3000}


async def test_a_merge_that_no_verifier_would_accept_changes_nothing(life: Facade) -> None:
    handle = (await life.create("user-1", payload={"a": 1})).session.handle
    for patch in ({"nbf": 4_000_000_000}, {"aud": 7}, {"a": [[[[[[[[[1]]]]]]]]]}):
        with pytest.raises(ValueError):
            await life.merge_payload(handle, patch)
    assert (await life.info(handle)).payload == {"a": 1}


async def test_a_burst_of_calls_on_one_event_loop_is_served(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("async", store_url, settings(unique_prefix))
    try:
        issued = await asyncio.gather(*(life.create(f"user-{n}") for n in range(300)))
        assert len({one.session.handle for one in issued}) == 300
    finally:
        await life.close()


async def test_reissue_shows_the_merge_at_once_and_keeps_expiry_and_refresh_hash(life: Facade) -> None:
    issued = await life.create("user-1", payload={"a": 1})
    again = await life.reissue(issued.session, {"a": None, "b": 2})
    assert dict(again.session.payload) == {"b": 2}
    assert again.session.expires_at == issued.session.expires_at
    assert again.session.claims["refreshTokenHash1"] == issued.session.claims["refreshTokenHash1"]
    assert not again.refresh_token_changed
    assert dict(life.verify(again.access_token).payload) == {"b": 2}
    await life.revoke(issued.session.handle)
    with pytest.raises(Unauthorised):
        await life.reissue(issued.session, {"a": 1})


async def test_info_and_lists_tell_what_was_created(life: Facade) -> None:
    before = int(time.time())
    first = await life.create("user-1", payload={"n": 1}, device={"agent": "Firefox"}, data=[1])
    second = await life.create("user-1", tenant="acme", login_id="login-9")
    await life.create("user-2")
    info = await life.info(first.session.handle)
    assert (info.user_id, info.payload, info.device, info.data) == ("user-1", {"n": 1}, {"agent": "Firefox"}, [1])
    assert before - 1 <= info.created_at <= time.time() + 1
    assert info.last_seen_at == info.created_at
    assert info.absolute_expires_at == info.created_at + 365 * 24 * 3600
    assert info.expires_at == info.created_at + 100 * 24 * 3600
    assert second.session.handle.endswith("_acme")
    assert set(await life.handles("user-1")) == {first.session.handle, second.session.handle}
    assert await life.handles("user-1", tenant="acme") == [second.session.handle]
    listed = {item.handle: item for item in await life.list_sessions("user-1")}
    assert listed[first.session.handle] == info
    assert listed[second.session.handle].login_id == "login-9"
    assert not any(item.current for item in listed.values())
    own = {item.handle: item.current for item in await life.list_sessions("user-1", current=second.session.handle)}
    assert own == {first.session.handle: False, second.session.handle: True}
    assert not any(item.current for item in await life.list_sessions("user-1", current="no handle"))
    assert await life.handles("nobody") == []


async def test_revoke_user_spares_what_it_is_told_to(life: Facade) -> None:
    here, there, other = [(await life.create("user-1", tenant=t)).session for t in ("public", "public", "acme")]
    bystander = await life.create("user-2")
    assert await life.revoke_user("user-1", tenant="acme") == [other.handle]
    assert await life.revoke_user("user-1", except_handle=here.handle) == [there.handle]
    assert life.verify(here.access_token) is not None
    for gone in (there, other):
        with pytest.raises(Unauthorised):
            life.verify(gone.access_token)
    gateway = life.sessions.gateway
    assert [gateway.has_ended(one.handle) for one in (here, there, other)] == [False, True, True]
    assert await life.revoke_user("user-1") == [here.handle]
    assert await life.revoke_user("user-1") == []
    assert life.verify(bystander.access_token).user_id == "user-2"


async def test_revoke_many_spans_shards_and_names_those_that_were_there(life: Facade) -> None:
    sessions = [(await life.create(f"user-{n}")).session for n in range(12)]
    missing = str(uuid.uuid4())
    handles = [session.handle for session in sessions]
    assert await life.revoke_many([*handles, missing, "no handle at all"]) == handles
    for session in sessions:
        with pytest.raises(Unauthorised):
            life.verify(session.access_token)


@pytest.mark.parametrize("garbage", ["", "x", "a.b.c", "😀", "0" * 36, "../../etc/passwd"])
async def test_a_handle_that_is_none_is_simply_not_there(life: Facade, garbage: str) -> None:
    assert await life.revoke(garbage) is False
    assert await life.info(garbage) is None
    assert await life.get_data(garbage) is None
    assert await life.merge_payload(garbage, {"a": 1}) is False


async def test_create_ends_the_previous_session_in_the_same_call(life: Facade) -> None:
    first = await life.create("user-1")
    second = await life.create("user-1", previous=first.session.handle)
    with pytest.raises(Unauthorised):
        life.verify(first.access_token)
    for n in range(6):  # other users, other shards
        third = await life.create(f"other-{n}", previous=second.session.handle)
        with pytest.raises(Unauthorised):
            life.verify(second.access_token)
        assert await life.info(second.session.handle) is None
        second = third
    assert await life.create("user-1", previous="no handle") is not None


async def test_a_bound_session_demands_its_anti_csrf_token(life: Facade) -> None:
    issued = await life.create("user-1", anti_csrf=True)
    assert issued.anti_csrf_token == issued.session.claims["antiCsrfToken"]
    life.verify(issued.access_token)
    life.verify(issued.access_token, anti_csrf_token=issued.anti_csrf_token, check_anti_csrf=True)
    for wrong in (None, "", "x", str(uuid.uuid4())):
        with pytest.raises(TryRefreshToken):
            life.verify(issued.access_token, anti_csrf_token=wrong, check_anti_csrf=True)
        with pytest.raises(Unauthorised):
            await life.refresh(issued.refresh_token, anti_csrf_token=wrong)
    refreshed = await life.refresh(issued.refresh_token, anti_csrf_token=issued.anti_csrf_token)
    assert refreshed.anti_csrf_token == issued.anti_csrf_token, "one a session, not one a refresh"
    unbound = await life.create("user-1")
    with pytest.raises(TryRefreshToken):
        life.verify(unbound.access_token, anti_csrf_token="x", check_anti_csrf=True)


async def test_verify_strict_asks_the_store(life: Facade, store_url: str, unique_prefix: str) -> None:
    issued = await life.create("user-1")
    assert (await life.verify_strict(issued.access_token)).user_id == "user-1"
    other = await open_facade("sync", store_url, settings(unique_prefix))
    try:
        await other.revoke(issued.session.handle)
        with pytest.raises(Unauthorised):
            await life.verify_strict(issued.access_token)
    finally:
        await other.close()


@pytest.mark.parametrize("garbage", ["", "x", "A" * 96, "a.b.c", "é" * 96, "A" * 100_000])
async def test_a_garbage_refresh_token_is_shed_without_a_store_call(
    life: Facade, garbage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def called(*args: Any) -> Any:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(life.sessions._store, "run", called)
    with pytest.raises(Unauthorised):
        await life.refresh(garbage)


async def test_of_several_refresh_tokens_the_newest_of_one_session_counts(life: Facade) -> None:
    newest = life.sessions.newest_refresh_token
    one, two = [(await life.create("user-1")).refresh_token for _ in range(2)]
    assert newest(["garbage", one, one]) == one
    authority = life.sessions._gateway.authority
    parsed = parse_refresh_token(authority.service_keys, one)
    assert parsed is not None
    later = encode_refresh_token(authority.service_keys[0], bytes(32), parsed.handle, 3)
    assert newest([one, later]) == newest([later, one]) == later
    with pytest.raises(DuplicateCookies):
        newest([one, two])
    with pytest.raises(Unauthorised):
        newest(["garbage", ""])


async def test_what_is_no_session_token_is_treated_as_none(life: Facade) -> None:
    for foreign in ("", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "e30.e30.e30"):
        with pytest.raises(Unauthorised) as caught:
            life.verify(foreign)
        assert not caught.value.clear_tokens
        assert isinstance(caught.value.__cause__, fastverify.InvalidToken)


async def test_a_session_token_with_a_bad_signature_says_try_refresh(life: Facade) -> None:
    token = (await life.create("user-1")).access_token
    head, signature = token.rsplit(".", 1)
    flipped = ("B" if signature[0] != "B" else "C") + signature[1:]
    with pytest.raises(TryRefreshToken) as caught:
        life.verify(f"{head}.{flipped}")
    assert isinstance(caught.value.__cause__, fastverify.InvalidSignature)


async def test_no_token_or_secret_shows_in_what_is_printed(life: Facade) -> None:
    issued = await life.create("user-1", anti_csrf=True)
    text = f"{issued!r} {issued.session!r} {issued.session.claims!r} {life.sessions!r} {life.sessions.gateway!r}"
    for secret in (issued.access_token, issued.refresh_token, issued.front_token, issued.anti_csrf_token):
        assert secret not in text
    assert repr(life.sessions.config).count("secret") == 0


async def test_max_sessions_per_user_ends_the_oldest(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("async", store_url, settings(unique_prefix, max_sessions_per_user=2))
    try:
        issued = []
        for _ in range(4):
            issued.append(await life.create("user-1"))
            await asyncio.sleep(0.002)  # created_at is in milliseconds: the order must be told apart
        assert set(await life.handles("user-1")) == {one.session.handle for one in issued[2:]}
        for one in issued[:2]:
            with pytest.raises(Unauthorised):
                life.verify(one.access_token)
    finally:
        await life.close()


async def test_an_access_token_never_outlives_its_session(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("async", store_url, settings(unique_prefix))
    try:
        issued = await life.create("user-1", lifetime=60)
        info = await life.info(issued.session.handle)
        assert info.absolute_expires_at - info.created_at == 60
        assert issued.session.expires_at == issued.refresh_token_expires_at == info.absolute_expires_at
    finally:
        await life.close()


async def test_two_services_on_one_store_accept_each_others_tokens(store_url: str, unique_prefix: str) -> None:
    one = await open_facade("sync", store_url, settings(unique_prefix))
    two = await open_facade("async", store_url, settings(unique_prefix))
    try:
        assert await one.jwks() == await two.jwks()
        issued = await one.create("user-1")
        assert two.verify(issued.access_token).user_id == "user-1"
        assert (await two.refresh(issued.refresh_token)).session.handle == issued.session.handle
    finally:
        await one.close()
        await two.close()


async def test_a_rotated_key_is_published_first_and_signs_later(store_url: str, unique_prefix: str) -> None:
    life = await open_facade("sync", store_url, settings(unique_prefix))
    try:
        before = await life.create("user-1")
        kid = await life.rotate_keys()
        kids = {key["kid"] for key in (await life.jwks())["keys"]}
        assert {kid for kid in kids if kid.startswith("d-")} == {before.session.claims.key_id, kid}
        after = await life.create("user-1")
        assert after.session.claims.key_id == before.session.claims.key_id, "it is published, and does not sign yet"
        life.sessions._gateway._clock = lambda: time.time() + 61
        signed = life.sessions._gateway.authority.ring.signing_key(time.time() + 61)
        assert signed.kid == kid
    finally:
        await life.close()


async def test_keys_rotate_by_themselves_and_old_tokens_go_on_verifying(store_url: str, unique_prefix: str) -> None:
    config = settings(unique_prefix, signing_key_interval=5, access_token_lifetime=30)
    life = await open_facade("async", store_url, config)
    try:
        first = await life.create("user-1")
        gateway = life.sessions.gateway
        kids = {first.session.claims.key_id}
        deadline = time.monotonic() + 20
        while len(kids) < 2 and time.monotonic() < deadline:
            await asyncio.to_thread(gateway.wait_for_poll)
            kids.add((await life.create("user-1")).session.claims.key_id)
        assert len(kids) == 2
        assert life.verify(first.access_token).user_id == "user-1"
    finally:
        await life.close()


async def test_another_secret_is_told_that_it_does_not_open_the_store(store_url: str, unique_prefix: str) -> None:
    first = await open_facade("sync", store_url, settings(unique_prefix))
    issued = await first.create("user-1")
    await first.close()
    other = bytes(range(100, 132))
    with pytest.raises(ConfigError) as caught:
        Sessions.connect(store_url, settings(unique_prefix, secret=other))
    assert caught.value.field == "secret"
    both = await open_facade("sync", store_url, settings(unique_prefix, secret=[other, bytes(range(32))]))
    try:
        assert (await both.refresh(issued.refresh_token)).session.handle == issued.session.handle
        assert (await both.create("user-1")).refresh_token != issued.refresh_token
    finally:
        await both.close()


async def test_a_change_of_algorithm_makes_a_new_key_and_keeps_the_old(store_url: str, unique_prefix: str) -> None:
    first = await open_facade("sync", store_url, settings(unique_prefix))
    issued = await first.create("user-1")
    await first.close()
    second = await open_facade("sync", store_url, settings(unique_prefix, signing_algorithm="EdDSA"))
    try:
        keys = (await second.jwks())["keys"]
        assert [key["alg"] for key in keys if key["kid"].startswith("d-")] == ["ES256", "EdDSA"]
        assert second.verify(issued.access_token).user_id == "user-1"
    finally:
        await second.close()


async def test_a_store_keeps_the_number_of_shards_that_it_began_with(store_url: str, unique_prefix: str) -> None:
    first = await open_facade("sync", store_url, settings(unique_prefix, shards=8))
    issued = await first.create("user-1")
    await first.close()
    second = await open_facade("sync", store_url, settings(unique_prefix, shards=2))
    try:
        assert second.sessions._gateway.authority.placement.shards == 8
        assert await second.info(issued.session.handle) is not None
    finally:
        await second.close()


async def test_a_service_on_a_dead_store_says_unavailable(life: Facade, unused_tcp_port: int) -> None:
    token = (await life.create("user-1")).access_token
    url = f"redis://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(StoreUnavailable):
        Sessions.connect(url, settings("x"), wait=0.3)
    sessions = Sessions.connect(url, settings("x"), wait=0)
    try:
        with pytest.raises(StoreUnavailable):
            sessions.verify(token)
        with pytest.raises(StoreUnavailable):
            sessions.create("user-1")
        with pytest.raises(Unauthorised):
            sessions.refresh("garbage")
    finally:
        sessions.close()
    waiting = AsyncSessions(open_store(url), settings("x"), wait=0.3)
    try:
        with pytest.raises(StoreUnavailable):
            await waiting.create("user-1")
        with pytest.raises(Unauthorised):
            await waiting.refresh("garbage")
    finally:
        await waiting.aclose()


@pytest.mark.parametrize("manager", [Sessions, AsyncSessions])
def test_settings_that_are_no_config_are_refused(manager: type[Sessions | AsyncSessions], unused_tcp_port: int) -> None:
    with pytest.raises(TypeError, match="config must be a Config"):
        manager.connect(f"redis://127.0.0.1:{unused_tcp_port}", {"api_domain": "x"})  # type: ignore[arg-type]


def _segment(token: str, number: int) -> bytes:
    text = token.split(".")[number]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
