"""What every adapter must do, over real sessions: one suite, run on the same small site in each framework."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
from blocking_sites import BLOCKING_ANSWERS, BLOCKING_SITES
from clients import Client, Open
from django_sites import BLOCKING_DJANGO_SITES, DJANGO_ANSWERS
from fix_stores import LaunchedServer
from other_issuer import KEY, OtherIssuer
from sites import ANSWERS, PLANS, Build, Plans

from fastverify import (
    AsyncSessions,
    ForeignIssuer,
    KeySet,
    PrimitiveClaim,
    Sessions,
    StoreUnavailable,
    TooManyRefreshes,
    Verifier,
)
from fastverify.transport import CORS_HEADERS

TRANSFERS = ["header", "cookie"]


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


def clears_all(response: httpx.Response) -> bool:
    cleared = {cookie.partition(";")[0] for cookie in response.headers.get_list("set-cookie")}
    headers = response.headers
    return (
        {"sAccessToken=", "sRefreshToken="} <= cleared
        and headers.get("front-token") == "remove"
        and headers.get("st-access-token") == headers.get("st-refresh-token") == ""
    )


def touches_no_token(response: httpx.Response) -> bool:
    names = ("set-cookie", "front-token", "st-access-token", "st-refresh-token", "anti-csrf")
    return not any(name in response.headers for name in names)


def answer(response: httpx.Response) -> tuple[int, Any]:
    return response.status_code, response.json()


def forget(handle: str, sessions: AsyncSessions, embedded_url: str) -> None:
    """The record goes, and nobody is told."""
    with redis.Redis(unix_socket_path=f"{embedded_url.removeprefix('embedded://')}/socket") as store:
        (key,) = store.keys(f"*{sessions.config.key_prefix}*:s:{handle}")
        store.delete(key)


TRY_REFRESH = (401, {"message": "try refresh token"})
UNAUTHORISED = (401, {"message": "unauthorised"})


# --- the main job ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_sign_in_call_refresh_sign_out(build: Build, open_sessions: Open, transfer: str) -> None:
    sessions = await open_sessions(exchange_seconds=0)
    async with Client(build(sessions), transfer) as client:
        signed_in = await client.call('/login?user=user-1&payload={"plan":"pro"}')
        assert signed_in.headers["cache-control"] == "no-store"
        assert ("set-cookie" in signed_in.headers) is (transfer == "cookie")
        assert ("st-access-token" in signed_in.headers) is (transfer == "header")

        first = (await client.call("/me", "GET")).json()
        assert (first["user"], first["payload"]) == ("user-1", {"plan": "pro"})

        refreshed = await client.refresh()
        assert answer(refreshed) == (200, {})
        assert refreshed.headers["front-token"] not in ("", "remove", signed_in.headers["front-token"])
        assert (await client.call("/me")).json() == first

        signed_out = await client.call("/auth/signout", rid="session")
        assert answer(signed_out) == (200, {"status": "OK"})
        assert signed_out.headers["front-token"] == "remove"
        assert not list(client.cookies.jar)
        assert await sessions.info(first["handle"]) is None
        assert answer(await client.call("/me", "GET")) == UNAUTHORISED


async def test_tokens_travel_as_asked_at_sign_in_and_a_refresh_keeps_to_it(build: Build, open_sessions: Open) -> None:
    async with Client(build(await open_sessions(exchange_seconds=0)), "cookie") as client:
        await client.login()
        client.headers["st-auth-mode"] = "header"
        refreshed = await client.refresh()
        assert "st-access-token" not in refreshed.headers
        assert len(refreshed.headers.get_list("set-cookie")) == 2


async def test_without_st_auth_mode_tokens_come_in_headers(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        del client.headers["st-auth-mode"]
        response = await client.login()
        assert response.headers["st-access-token"] and "set-cookie" not in response.headers


async def test_a_refresh_soon_after_another_sets_no_refresh_token(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        (cookie,) = (await client.refresh()).headers.get_list("set-cookie")
        assert cookie.startswith("sAccessToken=")


async def test_the_front_token_describes_the_access_token(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        response = await client.login()
        front = json.loads(base64.b64decode(response.headers["front-token"]))
        claims = sessions.verify(client.access).claims
        assert front == {"uid": "user-1", "ate": claims.expires_at * 1000, "up": claims.to_dict()}
        assert len(front["up"]) == 10


# --- what is required, what is optional -----------------------------------------------------------------------------


async def test_no_token_is_unauthorised_and_clears_nothing(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        for headers in ({}, {"authorization": "Bearer not.a.token"}, {"cookie": "sAccessToken=x"}):
            response = await client.call("/me", "GET", **headers)
            assert answer(response) == UNAUTHORISED
            assert touches_no_token(response)


async def test_an_optional_session_is_none_only_where_none_came(build: Build, open_sessions: Open) -> None:
    past = time.time() - 7200
    sessions = await open_sessions(clock=lambda: past)
    async with Client(build(sessions)) as client:
        assert answer(await client.call("/maybe", "GET")) == (200, {"user": None})
        foreign = await client.call("/maybe", "GET", authorization="Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
        assert answer(foreign) == (200, {"user": None})
        await client.login()
        expired = await client.call("/maybe", "GET")
        assert answer(expired) == TRY_REFRESH
        assert touches_no_token(expired)


async def test_a_revoked_session_is_unauthorised_and_cleared(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        await sessions.revoke_user("user-1")
        async with asyncio.timeout(20):  # a blocking site has a follower of its own
            while (response := await client.call("/me", "GET")).status_code == 200:
                await asyncio.sleep(0.001)
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)
        assert not list(client.cookies.jar)


async def test_strict_asks_the_store(build: Build, sessions: AsyncSessions, embedded_url: str) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        assert (await client.call("/strict", "GET")).status_code == 200
        handle = (await client.call("/me", "GET")).json()["handle"]
        forget(handle, sessions, embedded_url)
        assert (await client.call("/me", "GET")).status_code == 200
        response = await client.call("/strict", "GET")
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_strict_shows_what_was_changed_elsewhere(build: Build, sessions: AsyncSessions, transfer: str) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.call('/login?user=user-1&payload={"a":1,"n":[1,2.5,null,{"x":true}]}')
        assert touches_no_token(await client.call("/strict", "GET"))
        handle = (await client.call("/me", "GET")).json()["handle"]
        await sessions.merge_payload(handle, {"b": 2, "a": None})
        assert "b" not in (await client.call("/me", "GET")).json()["payload"]
        shown = await client.call("/strict", "GET")
        assert shown.json()["payload"] == {"n": [1, 2.5, None, {"x": True}], "b": 2}
        assert "front-token" in shown.headers and "st-refresh-token" not in shown.headers
        assert (await client.call("/me", "GET")).json()["payload"] == shown.json()["payload"]
        assert touches_no_token(await client.call("/strict", "GET"))
        assert (await client.refresh()).status_code == 200


async def test_strict_may_be_the_rule_and_a_route_the_exception(
    build: Build, sessions: AsyncSessions, embedded_url: str
) -> None:
    async with Client(build(sessions, strict=True)) as client:
        await client.login()
        handle = (await client.call("/me", "GET")).json()["handle"]
        await sessions.merge_payload(handle, {"plan": "team"})
        assert (await client.call("/maybe", "GET")).json()["payload"] == {"plan": "team"}
        forget(handle, sessions, embedded_url)
        assert (await client.call("/lenient", "GET")).json()["user"] == "user-1"
        token = client.access
        for path in ("/me", "/maybe", "/strict"):
            response = await client.call(path, "GET", token=token)
            assert answer(response) == UNAUTHORISED
            assert clears_all(response)


async def test_a_header_goes_before_a_cookie_and_a_foreign_bearer_counts_as_absent(
    build: Build, sessions: AsyncSessions
) -> None:
    ours = await sessions.create("by-header")
    cookie = f"sAccessToken={(await sessions.create('by-cookie')).access_token}"
    foreign = "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJ5In0.c2ln"
    async with Client(build(sessions)) as client:
        for bearer, user in ((f"Bearer {ours.access_token}", "by-header"), (foreign, "by-cookie")):
            response = await client.call("/me", "GET", authorization=bearer, cookie=cookie)
            assert response.json()["user"] == user


@pytest.mark.parametrize(("forced", "user"), [("header", None), ("cookie", "user-1")])
async def test_a_forced_method_ignores_tokens_of_the_other_kind(
    build: Build, open_sessions: Open, forced: Any, user: str | None
) -> None:
    sessions = await open_sessions(token_transfer_method=forced)
    token = (await sessions.create("user-1")).access_token
    async with Client(build(sessions)) as client:
        response = await client.call("/maybe", "GET", cookie=f"sAccessToken={token}")
        assert response.json()["user"] == user


async def test_a_legacy_cookie_asks_for_a_refresh_which_expires_it(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        client.cookies.set("sIdRefreshToken", "x", domain="localhost.local", path="/")
        assert answer(await client.call("/me", "GET")) == TRY_REFRESH
        assert (await client.refresh()).status_code == 200
        assert (await client.call("/me", "GET")).status_code == 200


# --- refresh --------------------------------------------------------------------------------------------------------


async def test_a_refresh_without_a_token_clears_all(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        response = await client.refresh()
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_an_exchanged_token_that_comes_back_is_theft(build: Build, open_sessions: Open, transfer: str) -> None:
    app = build(await open_sessions(exchange_seconds=0))
    async with Client(app, transfer) as victim, Client(app, transfer) as thief:
        await victim.login()
        thief.refresh_token = victim.refresh_token
        thief.cookies.update(victim.cookies)
        assert (await victim.refresh()).status_code == 200
        response = await thief.refresh()
        assert answer(response) == (401, {"message": "token theft detected"})
        assert clears_all(response)
        assert answer(await victim.call("/me", "GET")) == UNAUTHORISED


async def test_a_refresh_by_header_clears_the_cookies_that_came_too(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        other = (await sessions.create("other")).refresh_token
        response = await client.call(
            "/auth/session/refresh", token=client.refresh_token, cookie=f"sRefreshToken={other}"
        )
        assert response.status_code == 200
        cleared = [cookie.partition(";")[0] for cookie in response.headers.get_list("set-cookie")]
        assert cleared == ["sAccessToken=", "sRefreshToken="]


async def test_duplicate_cookies_of_one_session_are_settled_by_one_refresh(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(exchange_seconds=0)
    old = await sessions.create("user-1")
    new = await sessions.refresh(old.refresh_token)
    async with Client(build(sessions)) as client:
        twice = f"sAccessToken={old.access_token}; sAccessToken={new.access_token}"
        assert answer(await client.call("/me", "GET", cookie=twice)) == TRY_REFRESH
        twice += f"; sRefreshToken={old.refresh_token}; sRefreshToken={new.refresh_token}; sRefreshToken=garbage"
        assert answer(await client.call("/auth/session/refresh", cookie=twice)) == (200, {})


async def test_duplicate_cookies_of_several_sessions_are_refused_and_cleared(
    build: Build, sessions: AsyncSessions
) -> None:
    one, two = await sessions.create("user-1"), await sessions.create("user-2")
    async with Client(build(sessions)) as client:
        cookies = f"sRefreshToken={one.refresh_token}; sRefreshToken={two.refresh_token}"
        response = await client.call("/auth/session/refresh", cookie=cookies)
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)
    assert await sessions.info(one.session.handle) and await sessions.info(two.session.handle)


async def test_a_foreign_page_cannot_sign_anybody_out(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        for path in ("/auth/session/refresh", "/auth/signout"):
            response = await client.call(path, sec_fetch_site="cross-site", sec_fetch_mode="navigate", rid="")
            assert response.status_code == 401
            assert touches_no_token(response)
        assert (await client.call("/me", "GET")).status_code == 200


async def test_get_neither_refreshes_nor_signs_out(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        for path in ("/auth/session/refresh", "/auth/signout"):
            assert (await client.call(path, "GET")).status_code in (404, 405)
        assert (await client.call("/me", "GET")).status_code == 200


# --- anti-CSRF ------------------------------------------------------------------------------------------------------


async def test_via_token_guards_every_method_but_get(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(anti_csrf="VIA_TOKEN")
    async with Client(build(sessions), "cookie") as client:
        assert (await client.login()).headers["anti-csrf"] == client.anti_csrf != ""
        assert (await client.call("/me")).status_code == 200
        client_token, client.anti_csrf = client.anti_csrf, ""
        assert (await client.call("/me", "GET")).status_code == 200
        assert (await client.call("/unguarded")).status_code == 200
        refused = await client.call("/me")
        assert answer(refused) == TRY_REFRESH
        assert touches_no_token(refused)
        assert answer(await client.refresh()) == UNAUTHORISED  # and no harm to the session itself
        client.anti_csrf = client_token
        assert await sessions.handles("user-1")


async def test_via_token_refresh_with_the_token_succeeds(build: Build, open_sessions: Open) -> None:
    async with Client(build(await open_sessions(anti_csrf="VIA_TOKEN")), "cookie") as client:
        await client.login()
        assert (await client.refresh()).status_code == 200


async def test_via_token_binds_no_header_session(build: Build, open_sessions: Open) -> None:
    async with Client(build(await open_sessions(anti_csrf="VIA_TOKEN"))) as client:
        assert "anti-csrf" not in (await client.login()).headers
        assert (await client.call("/me")).status_code == 200


async def test_via_custom_header_guards_every_method_but_get(build: Build, open_sessions: Open) -> None:
    async with Client(build(await open_sessions(anti_csrf="VIA_CUSTOM_HEADER")), "cookie") as client:
        await client.login()
        assert (await client.call("/me")).status_code == 200
        assert (await client.call("/me", "GET", rid="")).status_code == 200
        assert answer(await client.call("/me", rid="")) == TRY_REFRESH
        assert answer(await client.call("/auth/signout", rid="")) == TRY_REFRESH


# --- sign-in over an existing session -------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_sign_in_ends_the_former_session_of_the_request(
    build: Build, sessions: AsyncSessions, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.login()
        former = (await client.call("/me", "GET")).json()["handle"]
        await client.login("user-2")
        assert (await client.call("/me", "GET")).json()["user"] == "user-2"
        assert await sessions.info(former) is None


async def test_previous_none_leaves_the_former_session_alone(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        former = (await client.call("/me", "GET")).json()["handle"]
        await client.call("/login-beside?user=user-2")
        assert await sessions.info(former) is not None


async def test_changing_the_transfer_clears_the_other_one(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        client.headers["st-auth-mode"] = "header"
        await client.login()
        assert client.access and not list(client.cookies.jar)
        client.headers["st-auth-mode"] = "cookie"
        response = await client.login()
        assert (response.headers["st-access-token"], response.headers["st-refresh-token"]) == ("", "")
        assert {cookie.name for cookie in client.cookies.jar} == {"sAccessToken", "sRefreshToken"}


async def test_an_error_after_a_sign_in_leaves_no_token_behind(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        response = await client.call("/login-and-fail?user=user-1")
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)
        assert not list(client.cookies.jar)


async def test_a_payload_too_large_for_a_cookie_is_refused_and_leaves_no_session(
    build: Build, sessions: AsyncSessions
) -> None:
    async with Client(build(sessions), "cookie") as client:
        with pytest.raises(ValueError, match="browsers drop"):
            await client.call(f'/login?user=user-1&payload={{"big":"{"x" * 4000}"}}')
        assert not list(client.cookies.jar)
    assert await sessions.handles("user-1") == []


# --- how tokens travel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anti_csrf", ["NONE", "VIA_TOKEN", "VIA_CUSTOM_HEADER"])
@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_live_session_moves_to_the_other_transport_and_back(
    build: Build, open_sessions: Open, transfer: str, anti_csrf: str
) -> None:
    sessions = await open_sessions(anti_csrf=anti_csrf)
    other = "cookie" if transfer == "header" else "header"
    async with Client(build(sessions), transfer) as client:
        await client.call('/login?user=user-1&payload={"plan":"pro"}')
        before = (await client.call("/me", "GET")).json()
        for to in (other, transfer, other):
            moved = await client.call(f"/move?to={to}")
            assert answer(moved) == (200, before)
            has_cookies = {cookie.name for cookie in client.cookies.jar} == {"sAccessToken", "sRefreshToken"}
            has_headers = bool(client.access and client.refresh_token)
            assert (has_cookies, has_headers) == ((True, False) if to == "cookie" else (False, True))
            assert moved.headers["front-token"] != "remove"
            assert ("anti-csrf" in moved.headers) is (to == "cookie" and anti_csrf == "VIA_TOKEN")
            if to == "header":
                client.anti_csrf = ""
            assert (await client.call("/me")).json() == before
            assert (await client.refresh()).status_code == 200
            assert (await client.call("/me")).json() == before
        assert touches_no_token(await client.call(f"/move?to={other}"))  # it is there already
        assert await sessions.handles("user-1") == [before["handle"]]


async def test_a_session_does_not_move_to_where_its_tokens_are_not_read(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(token_transfer_method=lambda incoming, new: "header" if new else None)
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        assert client.access and not list(client.cookies.jar)
        assert (await client.call("/move?to=cookie")).status_code == 200
        assert (await client.call("/me")).status_code == 200
    sessions = await open_sessions(token_transfer_method="header")
    async with Client(build(sessions)) as client:
        await client.login()
        with pytest.raises(ValueError, match="forces the other"):
            await client.call("/move?to=cookie")
        assert (await client.refresh()).status_code == 200


async def test_the_method_is_chosen_by_a_function_of_any_header(build: Build, open_sessions: Open) -> None:
    def choose(incoming: Any, for_new_session: bool) -> Any:
        app = incoming.get(b"x-app") == "mobile"
        return ("header" if app else "cookie") if for_new_session else None

    async with Client(build(await open_sessions(token_transfer_method=choose)), "cookie") as client:
        assert "st-access-token" in (await client.call("/login?user=user-1", x_app="mobile")).headers
    async with Client(build(await open_sessions(token_transfer_method=choose)), "header") as client:
        assert "set-cookie" in (await client.login()).headers


async def test_cookies_that_are_not_to_last_stay_so_through_everything(build: Build, open_sessions: Open) -> None:
    async with Client(build(await open_sessions(exchange_seconds=0)), "cookie") as client:
        for path in ("/login-for-now?user=user-1", '/merge?patch={"a":1}', "/auth/session/refresh"):
            cookies = (await client.call(path)).headers.get_list("set-cookie")
            assert cookies and not any("expires" in cookie.lower() for cookie in cookies), path
        assert all("Expires=" in cookie for cookie in (await client.login()).headers.get_list("set-cookie"))


async def test_cookies_of_other_names(build: Build, open_sessions: Open) -> None:
    names = {"access_cookie_name": "__Host-at", "refresh_cookie_name": "__Secure-rt", "cookie_secure": True}
    async with Client(build(await open_sessions(**names)), "cookie", "https://localhost:8000") as client:
        await client.login()
        assert {cookie.name for cookie in client.cookies.jar} == {"__Host-at", "__Secure-rt"}
        assert (await client.call("/me")).status_code == 200
        assert (await client.refresh()).status_code == 200
        assert (await client.call("/auth/signout")).status_code == 200
        assert not list(client.cookies.jar)


async def test_every_attribute_of_a_cookie_is_written(build: Build, open_sessions: Open) -> None:
    domains = {"api_domain": "https://api.example.com", "website_domain": "https://example.com"}
    sessions = await open_sessions(**domains, cookie_domain=".example.com", cookie_partitioned=True)
    async with Client(build(sessions), "cookie", "https://api.example.com") as client:
        for response in (await client.login(), await client.call("/auth/signout")):
            cookies = [cookie.split("; ") for cookie in response.headers.get_list("set-cookie")]
            assert sorted(pair.partition("=")[0] for pair, *_ in cookies) == ["sAccessToken", "sRefreshToken"]
            for pair, domain, path, expires, *others in cookies:
                assert path == ("Path=/auth/session/refresh" if pair.startswith("sRefresh") else "Path=/")
                assert domain == "Domain=.example.com" and expires.startswith("Expires=")
                assert others == ["HttpOnly", "Secure", "SameSite=Lax", "Partitioned"]


async def test_an_access_cookie_that_does_not_reach_the_sign_out_route_is_refused_at_start(
    build: Build, open_sessions: Open
) -> None:
    sessions = await open_sessions(access_cookie_path="/me")
    with pytest.raises(ValueError, match="access_cookie_path"):
        build(sessions)
    async with Client(build(sessions, routes=("refresh",)), "cookie") as client:
        await client.login()
        assert (await client.call("/me")).status_code == 200
        assert (await client.call("/maybe")).json() == {"user": None}
        assert (await client.refresh()).status_code == 200


async def test_several_websites_each_by_its_own_rules(build: Build, open_sessions: Open) -> None:
    """One of the API's site, one of another: not what the first request said decides."""
    near, far = "https://near.example.com", "https://far.example.org"
    sessions = await open_sessions(
        api_domain="https://api.example.com",
        website_domain=lambda incoming: far if incoming.get(b"origin") == far else near,
    )
    async with Client(build(sessions), "cookie", "https://api.example.com") as client:
        for origin, same_site in ((near, "Lax"), (far, "None"), (near, "Lax")):
            response = await client.call("/login?user=user-1", origin=origin)
            assert all(f"SameSite={same_site}" in each for each in response.headers.get_list("set-cookie"))
            assert (await client.call("/me", origin=origin)).status_code == 200
            without = await client.call("/me", origin=origin, rid="")
            assert without.status_code == (401 if origin == far else 200)
        evil = {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}
        assert answer(await client.call("/me", **evil)) == TRY_REFRESH
        for path in ("/auth/session/refresh", "/auth/signout"):
            refused = await client.call(path, **evil)
            assert refused.status_code == 401
            assert touches_no_token(refused)


@pytest.mark.parametrize("older", [None, ".example.com"])
async def test_duplicate_cookies_are_refused_where_that_is_asked_for(
    build: Build, open_sessions: Open, older: str | None
) -> None:
    sessions = await open_sessions(
        api_domain="https://api.example.com",
        website_domain="https://example.com",
        duplicate_cookies="refuse",
        older_cookie_domain=older,
    )
    issued = await sessions.create("user-1")
    async with Client(build(sessions), base_url="https://api.example.com") as client:
        twice = "; ".join([f"sRefreshToken={issued.refresh_token}"] * 2)
        response = await client.call("/auth/session/refresh", cookie=twice)
        cookies = response.headers.get_list("set-cookie")
        if older is None:
            assert response.status_code == 500
            assert "The request contains multiple session cookies." in response.json()["message"]
            assert touches_no_token(response)
        else:
            assert response.status_code == 200 and set(response.json()) == {"message"}
            assert len(cookies) == 1 and cookies[0].startswith(
                "sRefreshToken=; Domain=.example.com; Path=/auth/session"
            )
            assert "front-token" not in response.headers
        once = await client.call("/auth/session/refresh", cookie=f"sRefreshToken={issued.refresh_token}")
        assert answer(once) == (200, {})


# --- the session of a request ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_merged_payload_is_in_the_response_and_in_the_store(
    build: Build, sessions: AsyncSessions, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.login()
        response = await client.call('/merge?patch={"plan":"team","n":null}')
        assert response.json()["payload"] == {"plan": "team"}
        assert "front-token" in response.headers and "st-refresh-token" not in response.headers
        after = (await client.call("/me", "GET")).json()
        assert after["payload"] == {"plan": "team"}
        info = await sessions.info(after["handle"])
        assert info is not None and info.payload == {"plan": "team"}


async def test_a_merge_too_large_for_a_cookie_is_refused_and_undone(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.call('/login?user=user-1&payload={"kept":1,"big":2}')
        with pytest.raises(ValueError, match="browsers drop"):
            await client.call(f'/merge?patch={{"big":"{"x" * 4000}","more":1}}')
        assert (await client.refresh()).status_code == 200
        assert (await client.call("/me", "GET")).json()["payload"] == {"kept": 1, "big": 2}


async def test_revoke_in_a_request_ends_and_clears(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        response = await client.call("/revoke")
        assert answer(response) == (200, {"was_there": True})
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)
        assert "st-access-token" not in response.headers
    assert await sessions.handles("user-1") == []


async def test_users_see_their_sessions_and_end_the_others(build: Build, sessions: AsyncSessions) -> None:
    app = build(sessions)
    async with Client(app) as phone, Client(app) as laptop, Client(app) as stranger:
        phone.headers["user-agent"], laptop.headers["user-agent"] = "Phone/1", "Laptop/2"
        for client in (phone, laptop):
            await client.login()
        await stranger.login("user-2")
        listed = (await phone.call("/sessions", "GET")).json()["sessions"]
        assert sorted((one["device"]["user_agent"], one["current"]) for one in listed) == [
            ("Laptop/2", False),
            ("Phone/1", True),
        ]
        assert {one["device"]["address"] for one in listed} == {"127.0.0.1"}

        own, other = (next(one["handle"] for one in listed if one["current"] is which) for which in (True, False))
        theirs = (await stranger.call("/me", "GET")).json()["handle"]
        for handle in (theirs, "no-handle"):
            response = await phone.call(f"/revoke-one?handle={handle}")
            assert answer(response) == (200, {"was_there": False})
        assert (await stranger.call("/me", "GET")).status_code == 200, "another user's is as one that is not there"
        assert answer(await phone.call("/revoke-others")) == (200, {"ended": [other]})
        assert answer(await laptop.call("/me", "GET")) == UNAUTHORISED
        assert (await phone.call("/me", "GET")).status_code == 200

        await laptop.login()
        (here,) = (
            one["handle"] for one in (await laptop.call("/sessions", "GET")).json()["sessions"] if one["current"]
        )
        response = await phone.call(f"/revoke-one?handle={here}")
        assert answer(response) == (200, {"was_there": True}) and touches_no_token(response)
        response = await phone.call(f"/revoke-one?handle={own}")
        assert answer(response) == (200, {"was_there": True})
        assert response.headers["front-token"] == "remove", "of the request's own session, the client is told"
        assert await sessions.handles("user-1") == []


async def test_the_address_is_the_peers_or_what_a_trusted_proxy_says(build: Build, open_sessions: Open) -> None:
    forged = {"x_forwarded_for": "6.6.6.6, 10.0.0.1, 192.0.2.7", "user_agent": "Test/1"}
    for proxies, address in ((0, "127.0.0.1"), (1, "192.0.2.7"), (2, "10.0.0.1"), (4, "127.0.0.1")):
        async with Client(build(await open_sessions(trusted_proxies=proxies))) as client:
            device = {"user_agent": "Test/1", "address": address}
            assert answer(await client.call("/device", "GET", **forged)) == (200, device)


async def test_a_request_with_a_session_is_noted_as_its_last_use(
    build: Build, sessions: AsyncSessions, embedded_url: str
) -> None:
    async with Client(build(sessions)) as client:
        issued = await sessions.create("user-1")
        handle = issued.session.handle
        with redis.Redis(unix_socket_path=f"{embedded_url.removeprefix('embedded://')}/socket") as store:
            (key,) = store.keys(f"*{sessions.config.key_prefix}*:s:{handle}")
            store.hincrby(key, "seen_at", -3_600_000)
        before = (await sessions.list_sessions("user-1"))[0].last_seen_at
        assert before < issued.session.issued_at - 3_500
        assert (await client.call("/me", "GET", token=issued.access_token)).status_code == 200
        deadline = time.monotonic() + 15
        while (await sessions.list_sessions("user-1"))[0].last_seen_at == before:
            assert time.monotonic() < deadline, "it is not noted"
            await asyncio.sleep(0.02)
        assert (await sessions.info(handle)).last_seen_at >= issued.session.issued_at


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_what_requests_do_to_sessions_is_told(build: Build, open_sessions: Open, transfer: str) -> None:
    sessions = await open_sessions(exchange_seconds=0, event_stream=100)
    app = build(sessions)
    cursor = (await sessions.events()).cursor
    async with Client(app, transfer) as client, Client(app, transfer) as thief:
        await client.login()
        thief.refresh_token, thief.cookies = client.refresh_token, client.cookies
        handle = (await client.call("/me", "GET")).json()["handle"]
        await client.refresh()
        assert (await thief.refresh()).status_code == 401
        await client.login("user-2")
        await client.login("user-3")
        await client.call("/auth/signout", rid="session")
        await client.login("user-4")
        await client.call("/revoke")
    events = [event for event in (await sessions.events(cursor)).events if event.handle]
    assert {event.handle for event in events[:3]} == {handle}
    assert sorted((event.user_id, event.name, event.why) for event in events) == [
        ("user-1", "session_created", None),
        ("user-1", "session_refreshed", "rotated"),
        ("user-1", "token_theft", "one_behind"),
        ("user-2", "session_created", None),
        ("user-2", "session_revoked", "replaced"),
        ("user-3", "session_created", None),
        ("user-3", "session_revoked", "signed_out"),
        ("user-4", "session_created", None),
        ("user-4", "session_revoked", "revoked"),
    ]


def aged(handle: str, sessions: AsyncSessions, embedded_url: str, seconds: int) -> None:
    """Time passes for one session."""
    with redis.Redis(unix_socket_path=f"{embedded_url.removeprefix('embedded://')}/socket") as store:
        (key,) = store.keys(f"*{sessions.config.key_prefix}*:s:{handle}")
        for name in ("handed_at", "created_at", "seen_at", "idle_exp", "abs_exp"):
            store.hincrby(key, name, -1000 * seconds)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_the_session_that_falls_out_of_a_users_limit_is_signed_out(
    build: Build, open_sessions: Open, embedded_url: str, transfer: str
) -> None:
    sessions = await open_sessions(max_sessions_per_user=1)
    app = build(sessions)
    async with Client(app, transfer) as old, Client(app, transfer) as new:
        await old.login()
        await new.login()
        assert answer(await old.call("/me", "GET")) == UNAUTHORISED
        assert answer(await old.refresh()) == UNAUTHORISED
        assert (await new.call("/me", "GET")).status_code == 200


@pytest.mark.parametrize("limits", [{"idle_timeout": 600}, {"absolute_lifetime": 600}])
@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_session_beyond_its_limits_is_signed_out_at_its_next_refresh(
    build: Build, open_sessions: Open, embedded_url: str, transfer: str, limits: dict[str, int]
) -> None:
    sessions = await open_sessions(access_token_lifetime=60, exchange_seconds=0, **limits)
    async with Client(build(sessions), transfer) as client:
        await client.login()
        handle = (await client.call("/me", "GET")).json()["handle"]
        aged(handle, sessions, embedded_url, 400)
        assert (await client.refresh()).status_code == 200
        aged(handle, sessions, embedded_url, 400)
        response = await client.refresh()
        if "idle_timeout" in limits:
            assert response.status_code == 200, "it was refreshed in between"
            aged(handle, sessions, embedded_url, 601)
            response = await client.refresh()
        assert answer(response) == UNAUTHORISED and response.headers["front-token"] == "remove"
        assert not list(client.cookies.jar)


async def test_session_data_is_kept_on_the_server(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        assert answer(await client.call("/data", "GET")) == (200, {"data": None})
        response = await client.call("/data?put=cart")
        assert answer(response) == (200, {"data": "cart"})
        assert touches_no_token(response)


@pytest.mark.parametrize("path", ["/data?put=x", "/data?", '/merge?patch={"a":1}'])
async def test_a_session_that_ended_unnoticed_is_unauthorised_once_the_store_is_asked(
    build: Build, sessions: AsyncSessions, embedded_url: str, path: str
) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        forget((await client.call("/me", "GET")).json()["handle"], sessions, embedded_url)
        response = await client.call(path)
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)


async def test_a_merge_as_the_access_token_expires_is_kept_for_the_next_one(build: Build, open_sessions: Open) -> None:
    ahead = 0
    sessions = await open_sessions(clock=lambda: time.time() + ahead)
    async with Client(build(sessions)) as client:
        await client.login()
        ahead = 7200  # expired by the service's clock when it comes to minting
        response = await client.call('/merge?patch={"a":1}')
        assert response.status_code == 200
        assert touches_no_token(response)
    (info,) = await sessions.list_sessions("user-1")
    assert info.payload == {"a": 1}


async def test_refresh_and_sign_out_by_hand(build: Build, open_sessions: Open) -> None:
    app = build(await open_sessions(exchange_seconds=0), routes=("jwks",))
    async with Client(app) as client:
        await client.login()
        assert (await client.refresh()).status_code == 404
        assert (await client.call("/auth/signout")).status_code == 404
        assert (await client.call("/auth/.well-known/openid-configuration", "GET")).status_code == 404
        assert (await client.call("/auth/jwt/jwks.json", "GET")).status_code == 200
        former = client.refresh_token
        assert (await client.call("/own-refresh", token=former)).json()["user"] == "user-1"
        assert client.refresh_token != former
        assert (await client.call("/own-signout")).status_code == 200
        assert client.access == ""


# --- session claims -------------------------------------------------------------------------------------------------


@pytest.fixture
def plans() -> Plans:
    PLANS.plan, PLANS.fetched = None, 0
    return PLANS


def invalid(*failures: tuple[str, dict[str, Any]]) -> tuple[int, Any]:
    errors = [{"id": name, "reason": reason} for name, reason in failures]
    return 403, {"message": "invalid claim", "claimValidationErrors": errors}


def wrong_plan(actual: str | None, message: str = "wrong value") -> tuple[str, dict[str, Any]]:
    return "plan", {"message": message, "expectedValue": "pro", "actualValue": actual}


NO_PLAN = wrong_plan(None, "value does not exist")
NEVER_SIGNED_IN = ("auth_time", {"message": "value does not exist"})


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_claim_is_fetched_and_reaches_the_client_with_the_refusal(
    build: Build, sessions: AsyncSessions, plans: Plans, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.login()
        plans.plan = "free"
        refused = await client.call("/pro", "GET")
        assert answer(refused) == invalid(wrong_plan("free"))
        front = json.loads(base64.b64decode(refused.headers["front-token"]))
        assert front["up"]["plan"]["v"] == "free"
        assert ("set-cookie" in refused.headers) is (transfer == "cookie")
        assert "st-refresh-token" not in refused.headers and refused.headers["cache-control"] == "no-store"
        assert not any(cookie.startswith("sRefreshToken") for cookie in refused.headers.get_list("set-cookie"))

        plans.plan = "pro"
        again = await client.call("/pro", "GET")
        assert answer(again) == invalid(wrong_plan("free")), "the token that came with the refusal holds the value"
        assert touches_no_token(again)
        assert plans.fetched == 1

        assert answer(await client.call("/claims?do=fetch")) == (200, {"value": "pro"})
        granted = await client.call("/pro", "GET")
        assert granted.status_code == 200 and touches_no_token(granted)
        info = await sessions.info(granted.json()["handle"])
        assert info is not None and info.payload == granted.json()["payload"]
        assert plans.fetched == 2


async def test_a_refusal_without_a_refetch_touches_no_token(
    build: Build, sessions: AsyncSessions, plans: Plans
) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        refused = await client.call("/pro", "GET")
        assert answer(refused) == invalid(NO_PLAN)
        assert touches_no_token(refused)
        assert (await client.call("/me", "GET")).status_code == 200


async def test_a_value_that_has_grown_old_is_fetched_again(build: Build, open_sessions: Open, plans: Plans) -> None:
    behind = 61.0
    sessions = await open_sessions(clock=lambda: time.time() - behind)
    async with Client(build(sessions)) as client:
        plans.plan = "pro"
        await client.call("/login-with-claims?user=user-1")
        assert (await client.call("/pro", "GET")).status_code == 200
        behind, plans.plan = 0, "free"
        assert answer(await client.call("/pro", "GET")) == invalid(wrong_plan("free"))
        assert plans.fetched == 2
        behind, plans.plan = -61, None
        refused = await client.call("/pro", "GET")
        (error,) = refused.json()["claimValidationErrors"]
        assert error["reason"].pop("ageInSeconds") > 60
        assert error == {"id": "plan", "reason": {"message": "expired", "maxAgeInSeconds": 60}}


async def test_claims_that_need_no_refetch_need_no_store(
    build: Build, lost: tuple[AsyncSessions, LaunchedServer], plans: Plans
) -> None:
    sessions, server = lost
    async with Client(build(sessions)) as client:
        plans.plan = "pro"
        await client.call("/login-with-claims?user=user-1")
        server.stop()
        for path in ("/pro", "/fresh"):
            assert (await client.call(path, "GET")).status_code == 200
        response = await client.call("/claims?do=fetch")
        assert response.status_code == 503
        assert touches_no_token(response)


async def test_the_applications_validators_hold_wherever_no_route_says_otherwise(
    build: Build, sessions: AsyncSessions, plans: Plans
) -> None:
    # With a fetcher that both kinds of sessions take.
    app = build(sessions, validators=[PrimitiveClaim("plan", plans.fetch).has_value("pro")])
    async with Client(app, "cookie") as client:
        assert answer(await client.call("/maybe", "GET")) == (200, {"user": None})
        await client.login()
        for path in ("/me", "/maybe", "/strict"):
            assert answer(await client.call(path, "GET")) == invalid(NO_PLAN)
        assert answer(await client.call("/fresh", "GET")) == invalid(NO_PLAN, NEVER_SIGNED_IN)
        assert (await client.call("/unchecked", "GET")).status_code == 200
        assert (await client.refresh()).status_code == 200
        plans.plan = "pro"
        granted = await client.call("/me", "GET")
        assert granted.status_code == 200 and "front-token" in granted.headers
        assert answer(await client.call("/fresh", "GET")) == invalid(NEVER_SIGNED_IN)
        await client.login("exempt")
        plans.plan = None
        assert (await client.call("/fresh", "GET")).status_code == 200


async def test_nothing_keeps_a_user_from_signing_out(build: Build, sessions: AsyncSessions, plans: Plans) -> None:
    app = build(sessions, validators=[PrimitiveClaim("plan", plans.fetch).has_value("pro")])
    for path in ("/auth/signout", "/own-signout"):
        async with Client(app, "cookie") as client:
            await client.login()
            assert (await client.call(path)).status_code == 200
            assert not list(client.cookies.jar)
    assert await sessions.handles("user-1") == []


async def test_the_applications_validators_may_depend_on_the_session(
    build: Build, sessions: AsyncSessions, plans: Plans
) -> None:
    claim = PrimitiveClaim("plan", plans.fetch)
    app = build(sessions, validators=lambda session: [claim.has_value("pro")] if session.user_id == "user-1" else [])
    async with Client(app) as client:
        await client.login("user-2")
        assert (await client.call("/me", "GET")).status_code == 200
        await client.login("user-1")
        assert answer(await client.call("/me", "GET")) == invalid(NO_PLAN)


async def test_an_asynchronous_fetcher_is_for_asynchronous_frameworks(
    build: Build, sessions: AsyncSessions, plans: Plans, request: pytest.FixtureRequest
) -> None:
    app = build(sessions, validators=[PrimitiveClaim("plan", plans.fetch_async).has_value("pro")])
    plans.plan = "pro"
    async with Client(app) as client:
        await client.login()
        if request.node.callspec.params["build"] in {**BLOCKING_SITES, **BLOCKING_DJANGO_SITES}:
            with pytest.raises(TypeError, match="asynchronous"):
                await client.call("/me", "GET")
        else:
            assert (await client.call("/me", "GET")).status_code == 200


async def test_claims_of_the_session_of_a_request(build: Build, sessions: AsyncSessions, plans: Plans) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        unset = await client.call("/claims?do=get")
        assert answer(unset) == (200, {"value": None}) and touches_no_token(unset)
        nothing = await client.call("/claims?do=fetch")
        assert answer(nothing) == (200, {"value": None}) and touches_no_token(nothing)
        assert answer(await client.call("/claims?do=set")) == (200, {"value": "team"})
        assert answer(await client.call("/claims?do=assert")) == invalid(wrong_plan("team"))
        assert answer(await client.call("/claims?do=get")) == (200, {"value": "team"})
        assert answer(await client.call("/claims?do=remove")) == (200, {"value": None})
        assert (await client.call("/me", "GET")).json()["payload"] == {}
        plans.plan = "pro"
        asserted = await client.call("/claims?do=assert")
        assert answer(asserted) == (200, {"value": "pro"}) and "front-token" in asserted.headers


async def test_claims_set_by_requests_at_the_same_time_lose_nothing(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        keys = [f"claim-{n}" for n in range(8)]
        replies = await asyncio.gather(*(client.call(f"/claims?do=set&key={key}") for key in keys))
        assert [answer(reply) for reply in replies] == [(200, {"value": "team"})] * 8
    (info,) = await sessions.list_sessions("user-1")
    assert sorted(info.payload) == keys


async def test_a_fetched_value_too_large_for_a_cookie_is_refused_and_undone(
    build: Build, sessions: AsyncSessions, plans: Plans
) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        plans.plan = "x" * 4000
        with pytest.raises(ValueError, match="browsers drop"):
            await client.call("/pro", "GET")
    (info,) = await sessions.list_sessions("user-1")
    assert info.payload == {}


@pytest.mark.parametrize("path", ["/pro", "/claims?do=set"])
async def test_a_claim_of_a_session_that_ended_unnoticed_is_unauthorised(
    build: Build, sessions: AsyncSessions, embedded_url: str, plans: Plans, path: str
) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login()
        forget((await client.call("/me", "GET")).json()["handle"], sessions, embedded_url)
        plans.plan = "pro"
        response = await client.call(path, "GET" if path == "/pro" else "POST")
        assert answer(response) == UNAUTHORISED
        assert clears_all(response)


async def test_step_up_asks_again_for_who_the_user_is(build: Build, open_sessions: Open, plans: Plans) -> None:
    behind = 301
    sessions = await open_sessions(clock=lambda: time.time() - behind)
    async with Client(build(sessions)) as client:
        await client.login()
        assert answer(await client.call("/fresh", "GET")) == invalid(NEVER_SIGNED_IN)
        await client.call("/login-with-claims?user=user-1")
        assert (await client.call("/fresh", "GET")).status_code == 200
        behind = 0
        refused = await client.call("/fresh", "GET")
        (error,) = refused.json()["claimValidationErrors"]
        assert (refused.status_code, error["id"], error["reason"]["message"]) == (403, "auth_time", "expired")
        assert touches_no_token(refused)
        reauthenticated = await client.call("/claims?do=reauthenticate")
        assert reauthenticated.status_code == 200 and "front-token" in reauthenticated.headers
        assert (await client.call("/fresh", "GET")).status_code == 200


# --- responses of the application's own ---------------------------------------------------------------------------


@pytest.fixture
def hook(request: pytest.FixtureRequest) -> Callable[[int], Callable[[Any, Any], Any]]:
    """Makes a hook that answers with this status and the error's name, as the framework has responses."""
    answers = {**ANSWERS, **BLOCKING_ANSWERS, **DJANGO_ANSWERS}
    make = answers[request.node.callspec.params["build"]]
    return lambda status: lambda request, error: make(status, {"mine": type(error).__name__})


def mine(name: str, status: int = 401) -> tuple[int, Any]:
    return status, {"mine": name}


async def test_a_hook_answers_unauthorised(build: Build, sessions: AsyncSessions, hook: Any) -> None:
    async with Client(build(sessions, on_unauthorised=hook(401)), "cookie") as client:
        none_came = await client.call("/me", "GET")
        assert answer(none_came) == mine("Unauthorised") and touches_no_token(none_came)
        await client.login()
        failed = await client.call("/login-and-fail?user=user-2")
        assert answer(failed) == mine("Unauthorised") and clears_all(failed)


async def test_a_hook_answers_try_refresh_token(build: Build, sessions: AsyncSessions, hook: Any) -> None:
    async with Client(build(sessions, on_try_refresh_token=hook(401))) as client:
        response = await client.call("/me", "GET", cookie="sIdRefreshToken=x")
        assert answer(response) == mine("TryRefreshToken") and touches_no_token(response)
        assert answer(await client.call("/me", "GET")) == UNAUTHORISED


async def test_a_hook_answers_a_theft_of_a_session_that_is_over(build: Build, open_sessions: Open, hook: Any) -> None:
    sessions = await open_sessions(exchange_seconds=0)
    async with Client(build(sessions, on_token_theft_detected=hook(401)), "cookie") as client:
        await client.login()
        former = client.cookies["sRefreshToken"]
        assert (await client.refresh()).status_code == 200
        response = await client.call("/auth/session/refresh", cookie=f"sRefreshToken={former}")
        assert answer(response) == mine("TokenTheftDetected") and clears_all(response)
    assert await sessions.handles("user-1") == []


async def test_a_hook_answers_a_failed_claim_and_what_was_fetched_is_kept(
    build: Build, sessions: AsyncSessions, plans: Plans, hook: Any
) -> None:
    async with Client(build(sessions, on_claim_validation_failed=hook(403))) as client:
        await client.login()
        plans.plan = "free"
        response = await client.call("/pro", "GET")
        assert answer(response) == mine("ClaimValidationFailed", 403) and "front-token" in response.headers


async def test_a_hook_answers_too_many_refreshes(
    build: Build, sessions: AsyncSessions, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def storm(*_: Any, **__: Any) -> Any:
        raise TooManyRefreshes(retry_after=3)

    for facade in (AsyncSessions, Sessions):
        monkeypatch.setattr(facade, "refresh", storm)
    async with Client(build(sessions, on_too_many_refreshes=hook(429))) as client:
        await client.login()
        response = await client.refresh()
        assert answer(response) == mine("TooManyRefreshes", 429) and touches_no_token(response)


async def test_a_hook_answers_that_the_store_is_away(
    build: Build, lost: tuple[AsyncSessions, LaunchedServer], hook: Any
) -> None:
    sessions, server = lost
    async with Client(build(sessions, on_store_unavailable=hook(503))) as client:
        await client.login()
        server.stop()
        response = await client.refresh()
        assert answer(response) == mine("StoreUnavailable", 503) and touches_no_token(response)


@pytest.mark.parametrize("names", [["on_unauthorised"], ["on_duplicate_cookies", "on_unauthorised"]])
async def test_a_hook_answers_duplicate_cookies_for_which_there_may_be_one_of_its_own(
    build: Build, sessions: AsyncSessions, hook: Any, names: list[str]
) -> None:
    statuses = {"on_unauthorised": 401, "on_duplicate_cookies": 409}
    one, two = await sessions.create("user-1"), await sessions.create("user-2")
    async with Client(build(sessions, **{name: hook(statuses[name]) for name in names})) as client:
        cookies = f"sRefreshToken={one.refresh_token}; sRefreshToken={two.refresh_token}"
        response = await client.call("/auth/session/refresh", cookie=cookies)
        assert answer(response) == mine("DuplicateCookies", statuses[names[0]]) and clears_all(response)


# --- kinds of signing keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_live_session_goes_over_to_the_static_key_by_one_refresh(
    build: Build, open_sessions: Open, unique_prefix: str, transfer: str
) -> None:
    before = await open_sessions(key_prefix=unique_prefix)
    after = await open_sessions(key_prefix=unique_prefix, use_dynamic_access_token_signing_key=False)
    async with Client(build(before), transfer) as browser, Client(build(after), transfer) as later:
        await browser.login()
        later.access, later.refresh_token, later.cookies = browser.access, browser.refresh_token, browser.cookies
        handle = (await browser.call("/me", "GET")).json()["handle"]
        refused = await later.call("/me", "GET")
        assert answer(refused) == TRY_REFRESH and touches_no_token(refused)
        assert answer(await later.refresh()) == (200, {})
        assert (await later.call("/me", "GET")).json()["handle"] == handle
        assert (await after.info(handle)) is not None


async def test_a_jwt_is_verified_by_the_served_keys_and_is_no_session(build: Build, sessions: AsyncSessions) -> None:
    token = await sessions.create_jwt({"sub": "user-1"})
    async with Client(build(sessions)) as client:
        keys = KeySet.from_jwks((await client.get("/auth/jwt/jwks.json")).json())
        assert Verifier(keys, issuer=sessions.config.issuer).verify(token)["sub"] == "user-1"
        refused = await client.call("/me", "GET", token=token)
        assert answer(refused) == UNAUTHORISED and touches_no_token(refused)
        assert answer(await client.call("/maybe", "GET", token=token)) == (200, {"user": None})


# --- moving in from another issuer ------------------------------------------------------------------------------------


@pytest.fixture
def other() -> OtherIssuer:
    """Another issuer, which was at this API before us."""
    return OtherIssuer("http://localhost:8000/auth")


ACCEPTED = ForeignIssuer(keys=KeySet([KEY.verifying]), issuer="http://localhost:8000/auth")


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_foreign_session_serves_until_the_store_is_needed_and_a_refresh_makes_it_ours(
    build: Build, open_sessions: Open, other: OtherIssuer, plans: Plans, transfer: str
) -> None:
    sessions = await open_sessions(also_accept=ACCEPTED)
    app = build(sessions, on_foreign_refresh_token=lambda headers, token: other.whose(token))
    async with Client(app, transfer) as client:
        access, refresh = other.access_token("4"), other.refresh_token()
        if transfer == "header":
            client.access, client.refresh_token = access, refresh
        else:
            for name, value, path in (
                ("sAccessToken", access, "/"),
                ("sRefreshToken", quote(refresh, safe=""), "/auth/session/refresh"),
            ):
                client.cookies.set(name, value, domain="localhost.local", path=path)
        shown = await client.call("/me", "GET")
        assert shown.json()["user"] == "user-1" and shown.json()["payload"] == {"plan": "pro"}
        assert touches_no_token(shown)
        plans.plan = "pro"
        for path in ("/strict", "/data", "/merge?patch={}", f"/move?to={transfer}", "/claims?do=fetch"):
            refused = await client.call(path, "GET" if path in ("/strict", "/data") else "POST")
            expected = (200,) if path.startswith("/move") else (401,)
            assert refused.status_code in expected and touches_no_token(refused), path
        assert answer(await client.call("/data?put=x")) == TRY_REFRESH

        refreshed = await client.refresh()
        assert answer(refreshed) == (200, {})
        assert ("set-cookie" in refreshed.headers) is (transfer == "cookie")
        assert ("st-refresh-token" in refreshed.headers) is (transfer == "header")
        refresh_cookies = [c for c in refreshed.headers.get_list("set-cookie") if c.startswith("sRefreshToken=")]
        paths = [next(part for part in cookie.split("; ") if part.startswith("Path=")) for cookie in refresh_cookies]
        assert paths == (["Path=/", "Path=/auth/session/refresh"] if transfer == "cookie" else [])
        assert not refresh_cookies or refresh_cookies[0].startswith("sRefreshToken=;")
        ours = (await client.call("/me", "GET")).json()
        assert ours["handle"] != shown.json()["handle"]
        assert (await client.call("/strict", "GET")).json() == ours
        assert (await client.call("/data?put=x")).json() == {"data": "x"}
        assert (await client.refresh()).status_code == 200
        assert other.asked == [refresh]
    assert await sessions.handles("user-1") == [ours["handle"]]


async def test_a_foreign_session_signs_out_here(build: Build, open_sessions: Open, other: OtherIssuer) -> None:
    sessions = await open_sessions(also_accept=ACCEPTED)
    async with Client(build(sessions)) as client:
        client.access = token = other.access_token()
        signed_out = await client.call("/auth/signout")
        assert answer(signed_out) == (200, {"status": "OK"}) and signed_out.headers["front-token"] == "remove"
        refused = await client.call("/me", "GET", token=token)
        assert answer(refused) == UNAUTHORISED and clears_all(refused)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_foreign_refresh_token_presented_many_times_at_once_gives_one_session(
    build: Build, sessions: AsyncSessions, other: OtherIssuer, transfer: str
) -> None:
    app = build(sessions, on_foreign_refresh_token=lambda headers, token: other.whose(token))
    refresh = other.refresh_token()

    async def present(client: Client) -> httpx.Response:
        if transfer == "header":
            return await client.call("/auth/session/refresh", token=refresh)
        return await client.call("/auth/session/refresh", cookie=f"sRefreshToken={quote(refresh, safe='')}")

    async with Client(app, transfer) as client:
        responses = await asyncio.gather(*(present(client) for _ in range(6)))
    assert [response.status_code for response in responses] == [200] * 6
    assert other.asked == [refresh]
    assert len(await sessions.handles("user-1")) == 1
    fronts = [json.loads(base64.b64decode(response.headers["front-token"])) for response in responses]
    assert len({front["up"]["sessionHandle"] for front in fronts}) == 1


async def test_a_refresh_token_that_nobody_knows_is_unauthorised(
    build: Build, sessions: AsyncSessions, other: OtherIssuer
) -> None:
    app = build(sessions, on_foreign_refresh_token=lambda headers, token: other.whose(token))
    async with Client(app) as client:
        none = await client.call("/auth/session/refresh", token="")
        assert answer(none) == UNAUTHORISED and clears_all(none) and other.asked == []
        unknown = await client.call("/auth/session/refresh", token="nobodys.refresh.V2")
        assert answer(unknown) == UNAUTHORISED and clears_all(unknown) and len(other.asked) == 1
        await client.login()
        assert (await client.refresh()).status_code == 200 and len(other.asked) == 1
        two = f"sRefreshToken={quote(other.refresh_token(), safe='')}; sRefreshToken={quote(other.refresh_token())}"
        assert answer(await client.call("/auth/session/refresh", token="", cookie=two)) == UNAUTHORISED
        assert len(other.asked) == 1


async def test_the_function_that_is_asked_sees_the_headers_and_a_refresh_by_hand_asks_it_too(
    build: Build, open_sessions: Open, other: OtherIssuer
) -> None:
    sessions = await open_sessions(anti_csrf="VIA_TOKEN")
    seen = []

    def whose(headers: Any, token: str) -> Any:
        seen.append(headers.get(b"anti-csrf"))
        return other.whose(token)

    async with Client(build(sessions, on_foreign_refresh_token=whose), "cookie") as client:
        cookie = f"sRefreshToken={quote(other.refresh_token(), safe='')}"
        refreshed = await client.call("/own-refresh", cookie=cookie, anti_csrf="of the other issuer")
        assert refreshed.status_code == 200
        assert seen == ["of the other issuer"]
        assert refreshed.headers["anti-csrf"] == client.anti_csrf
        foreign_page = await client.call(
            "/own-refresh", cookie=cookie, origin="http://evil.example", sec_fetch_site="cross-site"
        )
        assert foreign_page.status_code == 401 and touches_no_token(foreign_page) and len(seen) == 1


async def test_without_such_a_function_a_foreign_refresh_token_is_none(
    build: Build, sessions: AsyncSessions, other: OtherIssuer
) -> None:
    async with Client(build(sessions)) as client:
        assert answer(await client.call("/auth/session/refresh", token=other.refresh_token())) == UNAUTHORISED


# --- public documents -----------------------------------------------------------------------------------------------


async def test_jwks_and_discovery_are_for_everybody(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(api_base_path="/x")
    async with Client(build(sessions)) as client:
        jwks = await client.get("/x/jwt/jwks.json")
        document = await client.get("/x/.well-known/openid-configuration")
        assert jwks.json() == await sessions.jwks()
        assert document.json()["jwks_uri"] == "http://localhost:8000/x/jwt/jwks.json"
        for response in (jwks, document):
            assert response.headers["access-control-allow-origin"] == "*"
            assert response.headers["cache-control"].startswith("max-age=")
            assert response.headers["content-type"] == "application/json; charset=utf-8"


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def lost(open_sessions: Open, launch: Callable[..., LaunchedServer]) -> tuple[AsyncSessions, LaunchedServer]:
    """Sessions, and the store that they are about to lose. They go on verifying while it is away."""
    server = launch()
    return await open_sessions(server.url, when_stale="allow", exchange_seconds=0), server


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_without_the_store_verify_works_and_the_rest_is_503_with_no_token_touched(
    build: Build, lost: tuple[AsyncSessions, LaunchedServer], transfer: str
) -> None:
    sessions, server = lost
    async with Client(build(sessions), transfer) as client:
        await client.login()
        server.stop()
        assert (await client.call("/me", "GET")).status_code == 200
        before = client.refresh_token, sorted((c.name, c.value) for c in client.cookies.jar)
        for response in (
            await client.refresh(),
            await client.call("/login?user=user-2"),
            await client.call("/auth/signout"),
            await client.call("/revoke"),
            await client.call("/data", "GET"),
            await client.call('/merge?patch={"a":1}'),
            await client.call("/strict", "GET"),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert touches_no_token(response)
        assert before == (client.refresh_token, sorted((c.name, c.value) for c in client.cookies.jar))
        server.start()
        await asyncio.sleep(int(response.headers["retry-after"]))
        assert (await client.refresh()).status_code == 200


async def test_a_garbage_refresh_token_is_refused_without_a_store_call(
    build: Build, lost: tuple[AsyncSessions, LaunchedServer]
) -> None:
    sessions, server = lost
    async with Client(build(sessions)) as client:
        await client.login()
        server.stop()
        genuine = client.refresh_token
        for garbage in ("garbage", genuine[:-60] + "A" * 60, "A" * 96, genuine + "A", genuine[:-1]):
            response = await client.call("/auth/session/refresh", token=garbage, rid="session")
            assert answer(response) == UNAUTHORISED
            assert clears_all(response)
        assert (await client.call("/auth/session/refresh", token=genuine)).status_code == 503


async def test_a_verifier_that_is_stale_answers_503(build: Build, sessions: AsyncSessions, monkeypatch: Any) -> None:
    async with Client(build(sessions)) as client:
        await client.login()

        def stale(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable(retry_after=3)

        for facade in (AsyncSessions, Sessions):
            monkeypatch.setattr(facade, "verify", stale)
        for path in ("/me", "/maybe"):
            response = await client.call(path, "GET")
            assert (response.status_code, response.headers["retry-after"]) == (503, "3")
            assert touches_no_token(response)


async def test_two_users_interleaved_on_one_worker_never_get_each_others_tokens(
    build: Build, sessions: AsyncSessions, monkeypatch: Any
) -> None:
    """Both are inside ``create`` at once, and leave it in the other order."""
    inside = {"ada": threading.Event(), "bob": threading.Event()}
    bob_is_done = threading.Event()

    async def until(event: threading.Event) -> None:
        while not event.is_set():
            await asyncio.sleep(0.001)

    create, create_blocking = AsyncSessions.create, Sessions.create

    async def slow_create(self: AsyncSessions, user_id: str, **options: Any) -> Any:
        inside[user_id].set()
        await until(inside["ada"])
        await until(inside["bob"])
        issued = await create(self, user_id, **options)
        if user_id == "ada":
            await until(bob_is_done)
        return issued

    def slow_create_blocking(self: Sessions, user_id: str, **options: Any) -> Any:
        inside[user_id].set()
        assert inside["ada"].wait(20) and inside["bob"].wait(20)
        issued = create_blocking(self, user_id, **options)
        assert user_id == "bob" or bob_is_done.wait(20)
        return issued

    monkeypatch.setattr(AsyncSessions, "create", slow_create)
    monkeypatch.setattr(Sessions, "create", slow_create_blocking)
    app = build(sessions)
    async with Client(app, "cookie") as ada, Client(app, "cookie") as bob:

        async def sign_bob_in() -> None:
            await bob.login("bob")
            bob_is_done.set()

        await asyncio.wait_for(asyncio.gather(ada.login("ada"), sign_bob_in()), 20)
        calls = await asyncio.gather(*(client.call("/me", "GET") for _ in range(10) for client in (ada, bob)))
        assert [response.json()["user"] for response in calls] == ["ada", "bob"] * 10
        patched = await asyncio.gather(ada.call('/merge?patch={"of":"ada"}'), bob.call('/merge?patch={"of":"bob"}'))
        assert [response.json()["payload"] for response in patched] == [{"of": "ada"}, {"of": "bob"}]
        assert (await ada.call("/me", "GET")).json()["payload"] == {"of": "ada"}


async def test_a_call_that_changes_nothing_leaves_the_response_alone(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.login()
        response = await client.call("/me", "GET")
        assert touches_no_token(response)
        assert "access-control-expose-headers" not in response.headers
        assert "cache-control" not in response.headers


async def test_configured_status_codes_are_used(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(session_expired_status_code=440)
    async with Client(build(sessions)) as client:
        assert (await client.call("/me", "GET")).status_code == 440
        assert (await client.refresh()).status_code == 440


def test_cors_headers_cover_what_this_client_sends() -> None:
    assert {"rid", "anti-csrf", "authorization", "st-auth-mode"} <= set(CORS_HEADERS)
