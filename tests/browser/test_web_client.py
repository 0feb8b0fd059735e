"""The unmodified web client in a real browser, against the real store.

Verdicts are read from the server's log of the wire and from the browser's cookie jar, not only from the page.
W is ``exchange_seconds`` and D = 2W + 1 (rotation.md section 3). A refresh token younger than D is not exchanged: the
reply holds an access token only. Where a test sleeps, the store's own clock has to move.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from browser_site import REFRESH, SIGN_OUT, Site, until
from browser_tools import find_tools
from fix_stores import LaunchedServer
from matrix import in_each_framework_and_mode, in_each_framework_if_long
from playwright.async_api import Browser, BrowserContext, Error, Route
from tab import Tab
from wire import Exchange

from fastverify.store import embedded

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]

DAY = 86_400
#: The ten claims that every access token has, and no other (wire.md section 1.1).
TEN_CLAIMS = {
    "sub", "exp", "iat", "sessionHandle", "refreshTokenHash1", "parentRefreshTokenHash1", "antiCsrfToken", "tId",
    "rsub", "iss",
}  # fmt: skip
#: What the client keeps where the page can read it.
FRONT_COOKIES = {"sFrontToken", "st-last-access-token-update"}
SESSION_COOKIES = {"sAccessToken", "sRefreshToken"}
HEADER_COOKIES = {"st-access-token", "st-refresh-token"}
#: The shortest window that is not the strict mode, and the age from which its tokens are exchanged.
W, D = 1, 3


def expiry(morsel: Any) -> float:
    return parsedate_to_datetime(morsel["expires"]).timestamp()


def front_token(exchange: Exchange) -> dict[str, Any]:
    token: dict[str, Any] = json.loads(base64.b64decode(exchange.header("front-token") or "", validate=True))
    return token


def presented(exchange: Exchange) -> str:
    """The refresh token of a request, however it was carried."""
    bearer = exchange.request.get("authorization", "")
    return bearer.removeprefix("Bearer ") or exchange.cookies["sRefreshToken"]


def handed_out(exchange: Exchange) -> str | None:
    """The refresh token of a reply, however it is carried; None for an access-token-only reply."""
    cookie = exchange.set_cookies.get("sRefreshToken")
    return cookie.value if cookie is not None else exchange.header("st-refresh-token")


def refresh_token(tokens: dict[str, str]) -> str:
    return tokens.get("sRefreshToken") or tokens["st-refresh-token"]


async def replay(site: Site, token: str) -> httpx.Response:
    """Present a refresh token as somebody who has copied it from a header-mode client would."""
    async with httpx.AsyncClient(base_url=site.origin) as thief:
        return await thief.post(REFRESH, headers={"authorization": f"Bearer {token}", "rid": "session"})


async def let_rotation_come_due() -> None:
    """After this the next refresh exchanges the token: it has the age of D.

    By then the store has been known for D, too: nothing is exchanged on a primary that is new to the service.
    """
    await asyncio.sleep(D + 0.1)


# --- signing in and out ------------------------------------------------------------------------------------------


async def test_first_anonymous_visit_costs_one_refresh_that_is_refused_and_no_more(
    serve: Serve, open_tab: OpenTab
) -> None:
    site = await serve()
    tab = await open_tab(site)

    calls = await asyncio.gather(*(tab.call("/public") for _ in range(5)))
    assert calls == [(200, {"hello": "anyone"})] * 5
    assert not await tab.signed_in()
    assert (await tab.call("/me"))[0] == 401
    assert await (second := await open_tab(site)).call("/public") == (200, {"hello": "anyone"})
    assert not await second.signed_in()

    [refresh] = site.refreshes
    assert (refresh.method, refresh.status, refresh.header("front-token")) == ("POST", 401, "remove")
    assert set(await tab.cookies()) == {"st-last-access-token-update"}
    assert "SESSION_LOST" not in await tab.events()


async def test_sign_in_by_cookie_sets_the_cookies_of_the_wire_and_no_token_header(
    serve: Serve, open_tab: OpenTab
) -> None:
    site = await serve()
    tab = await open_tab(site, mode="cookie")
    before = time.time()
    await tab.sign_in("ann")
    assert await tab.call("/me") == (200, {"user": "ann", "handle": await tab.handle(), "plan": "pro"})

    [sign_in] = site.calls("/signin/ann")
    assert sign_in.request["st-auth-mode"] == "cookie"
    assert sign_in.token_headers == {"front-token"} <= sign_in.exposed
    assert sign_in.header("cache-control") == "no-store"

    sent = sign_in.set_cookies
    assert set(sent) == SESSION_COOKIES
    for name, path, life in (("sAccessToken", "/", 365 * DAY), ("sRefreshToken", REFRESH, 100 * DAY)):
        assert sent[name]["path"] == path
        assert sent[name]["httponly"] and not sent[name]["secure"]  # the API is not https here
        assert sent[name]["samesite"].lower() == "lax"
        assert not sent[name]["domain"] and not sent[name]["max-age"]
        assert expiry(sent[name]) == pytest.approx(before + life, abs=30)

    kept = await tab.cookies()
    assert set(kept) == FRONT_COOKIES | SESSION_COOKIES
    for name in SESSION_COOKIES:
        assert kept[name]["httpOnly"] and kept[name]["sameSite"] == "Lax"
        assert kept[name]["path"] == sent[name]["path"]
        assert kept[name]["expires"] == pytest.approx(expiry(sent[name]), abs=2)

    [me] = site.calls("/me")
    assert set(me.cookies) == FRONT_COOKIES | {"sAccessToken"}  # the refresh token goes nowhere else
    assert "authorization" not in me.request
    assert me.request["rid"] == "anti-csrf"
    assert await tab.events() == ["SESSION_CREATED"]


async def test_front_token_tells_the_page_the_access_token_payload(serve: Serve, open_tab: OpenTab) -> None:
    site = await serve()
    tab = await open_tab(site)
    await tab.sign_in("ann")

    [sign_in] = site.calls("/signin/ann")
    front = front_token(sign_in)
    assert set(front) == {"uid", "ate", "up"}
    assert front["uid"] == "ann" == await tab.page.evaluate("supertokens.getUserId()")
    assert front["ate"] == front["up"]["exp"] * 1000
    assert set(front["up"]) == TEN_CLAIMS | {"plan"}
    assert front["up"]["parentRefreshTokenHash1"] is None and front["up"]["antiCsrfToken"] is None
    assert front["up"] == await tab.payload()
    claims = sign_in.set_cookies["sAccessToken"].value.split(".")[1]
    assert front["up"] == json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))


async def test_sign_in_by_header_sets_no_cookie_but_the_clients_own(serve: Serve, open_tab: OpenTab) -> None:
    site = await serve()
    tab = await open_tab(site, mode="header")
    before = time.time()
    await tab.sign_in("ann")
    assert (await tab.call("/me"))[0] == 200

    [sign_in] = site.calls("/signin/ann")
    assert sign_in.request["st-auth-mode"] == "header"
    assert not sign_in.set_cookies
    assert sign_in.token_headers == {"front-token", "st-access-token", "st-refresh-token"} <= sign_in.exposed

    kept = await tab.cookies()
    assert set(kept) == FRONT_COOKIES | HEADER_COOKIES
    assert kept["st-access-token"]["value"] == sign_in.header("st-access-token")
    assert kept["st-refresh-token"]["value"] == sign_in.header("st-refresh-token")
    for name in HEADER_COOKIES:
        assert not kept[name]["httpOnly"]
        assert kept[name]["expires"] == pytest.approx(before + 36.5 * DAY, abs=30)

    [me] = site.calls("/me")
    assert me.request["authorization"] == f"Bearer {sign_in.header('st-access-token')}"
    assert await tab.events() == ["SESSION_CREATED"]


@pytest.mark.parametrize("mode", ["cookie", "header"])
async def test_sign_out_clears_every_token_and_ends_the_session(serve: Serve, open_tab: OpenTab, mode: str) -> None:
    site = await serve()
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    [sign_in] = site.calls("/signin/ann")
    tokens = await tab.tokens()
    refreshes = len(site.refreshes)

    await tab.sign_out()
    [sign_out] = site.calls(SIGN_OUT)
    assert sign_out.status == 200 and sign_out.header("front-token") == "remove"
    if mode == "cookie":
        for name, morsel in sign_out.set_cookies.items():
            assert (morsel.value, expiry(morsel)) == ("", 0)
            assert morsel["path"] == sign_in.set_cookies[name]["path"]
        assert set(sign_out.set_cookies) == SESSION_COOKIES
    else:
        assert sign_out.header("st-access-token") == sign_out.header("st-refresh-token") == ""
    assert await tab.tokens() == {}
    assert await tab.events() == ["SESSION_CREATED", "SIGN_OUT"]

    assert not await tab.signed_in()
    assert (await tab.call("/me"))[0] == 401
    assert len(site.refreshes) == refreshes
    assert (await replay(site, refresh_token(tokens))).status_code == 401
    assert await site.sessions.handles("ann") == []


async def test_signing_in_again_replaces_the_session(serve: Serve, open_tab: OpenTab) -> None:
    site = await serve()
    tab = await open_tab(site)
    await tab.sign_in("ann")
    first = await tab.handle()
    await tab.sign_in("ben")
    assert await tab.call("/me") == (200, {"user": "ben", "handle": await tab.handle(), "plan": "pro"})
    assert await tab.handle() != first
    assert await site.sessions.handles("ann") == []


@pytest.mark.parametrize("mode", ["cookie", "header"])
async def test_a_payload_changed_in_a_request_reaches_the_page_with_its_reply(
    serve: Serve, open_tab: OpenTab, mode: str
) -> None:
    site = await serve()
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    before = await tab.tokens()
    already = len(site.refreshes)

    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert (await tab.payload())["plan"] == "free"
    assert (await tab.call("/me"))[1]["plan"] == "free"
    assert await tab.events() == ["SESSION_CREATED", "ACCESS_TOKEN_PAYLOAD_UPDATED"]
    [change] = site.calls("/plan/free")
    assert handed_out(change) is None and refresh_token(await tab.tokens()) == refresh_token(before)
    assert len(site.refreshes) == already


# --- refreshing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cookie", "header"])
async def test_twenty_parallel_calls_with_an_expired_token_refresh_once_and_all_succeed(
    serve: Serve, open_tab: OpenTab, mode: str
) -> None:
    site = await serve(access_token_lifetime=1)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    before = await tab.tokens()
    await site.restart()  # the next access token outlives the test, however slow the machine; same store, same keys
    await tab.until_access_token_expires()
    already = len(site.refreshes)

    replies = await tab.page.evaluate("Promise.all(Array.from({ length: 20 }, () => call('/me')))")
    assert [reply["status"] for reply in replies] == [200] * 20

    [refresh] = site.refreshes[already:]
    assert (refresh.status, presented(refresh)) == (200, refresh_token(before))
    refused = [call.status for call in site.calls("/me") if call.status != 200]
    assert refused and set(refused) == {401}  # some left the browser before the refresh
    assert not any(call.set_cookies or call.token_headers for call in site.calls("/me"))

    # Younger than D: the refresh token stays as it is, and nothing on the wire says otherwise.
    assert handed_out(refresh) is None
    after = await tab.tokens()
    assert refresh_token(after) == refresh_token(before)
    assert after["sFrontToken"] != before["sFrontToken"]
    assert await tab.events() == ["SESSION_CREATED", "ACCESS_TOKEN_PAYLOAD_UPDATED", "REFRESH_SESSION"]


async def test_an_xhr_with_an_expired_token_is_repeated_after_a_refresh(serve: Serve, open_tab: OpenTab) -> None:
    site = await serve(access_token_lifetime=1)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    await site.restart()
    await tab.until_access_token_expires()
    already = len(site.refreshes)
    reply = await tab.page.evaluate("callByXhr('/me')")
    assert (reply["status"], reply["body"]["user"]) == (200, "ann")
    assert [refresh.status for refresh in site.refreshes[already:]] == [200]


@in_each_framework_if_long
async def test_a_refresh_token_as_old_as_d_is_exchanged_for_its_child(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework, exchange_seconds=W)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    parent = refresh_token(await tab.tokens())
    for _ in range(2):
        assert await tab.refresh()
        assert (presented(site.refreshes[-1]), handed_out(site.refreshes[-1])) == (parent, None)
    await let_rotation_come_due()

    assert await tab.refresh()
    child = refresh_token(await tab.tokens())
    rotated = site.refreshes[-1]
    assert presented(rotated) == parent != child == handed_out(rotated)
    cookie = rotated.set_cookies["sRefreshToken"]
    assert (cookie["path"], bool(cookie["httponly"])) == (REFRESH, True)
    assert expiry(cookie) == pytest.approx(time.time() + 100 * DAY, abs=30)

    assert await tab.refresh()  # the child works, and is young again
    assert (presented(site.refreshes[-1]), handed_out(site.refreshes[-1])) == (child, None)
    assert (await tab.call("/me"))[0] == 200


@in_each_framework_if_long
@pytest.mark.parametrize(("mode", "tabs_lock"), [("cookie", "on"), ("cookie", "off"), ("header", "off")])
async def test_two_tabs_that_refresh_at_once_with_one_reply_lost_stay_signed_in(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, mode: str, tabs_lock: str, framework: str
) -> None:
    site = await serve(framework=framework, exchange_seconds=W)
    tabs = [await open_tab(site, mode, **{"tabs-lock": tabs_lock}) for _ in range(2)]
    await tabs[0].sign_in("ann")
    await let_rotation_come_due()
    parent = refresh_token(await tabs[0].tokens())
    already = len(site.refreshes)

    async def lose_the_reply(route: Route) -> None:
        """The server sees the request as the browser sends it; the browser never sees the reply."""
        jar = await context.cookies(route.request.url)
        headers = route.request.headers | {"cookie": "; ".join(f"{c['name']}={c['value']}" for c in jar)}
        try:
            async with httpx.AsyncClient() as wire:
                await wire.post(route.request.url, headers=headers)
        finally:
            await route.abort("connectionreset")

    await context.route(f"**{REFRESH}", lose_the_reply, times=1)
    outcomes = await asyncio.gather(*(tab.refresh() for tab in tabs), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Error", "bool"]
    assert True in outcomes  # the tab whose reply arrived

    first, second = site.refreshes[already:]
    assert presented(first) == presented(second) == parent
    child = handed_out(first)
    assert child is not None and child != parent
    assert handed_out(second) == child  # one parent has one child, however often it is asked for
    assert refresh_token(await tabs[0].tokens()) == child

    for tab in tabs:
        assert (await tab.call("/me"))[0] == 200
    assert await asyncio.gather(*(tab.refresh() for tab in tabs)) == [True, True]
    for tab in tabs:
        assert (await tab.call("/me"))[0] == 200
        assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())
    assert [refresh.status for refresh in site.refreshes[already:]] == [200] * len(site.refreshes[already:])


async def test_a_new_cookie_whose_reply_the_script_never_read_is_good(
    serve: Serve, open_tab: OpenTab, context: BrowserContext
) -> None:
    """The browser stored the cookies, and the tab died before its script stored the front and anti-CSRF tokens."""
    site = await serve(exchange_seconds=W, anti_csrf="VIA_TOKEN")
    tab = await open_tab(site)
    await tab.sign_in("ann")
    await let_rotation_come_due()
    parent = refresh_token(await tab.tokens())

    answered: list[int] = []

    async def keep_the_cookies_only(route: Route) -> None:
        try:
            # Goes through the browser context, so Set-Cookie reaches its jar. An idle connection may just be closed.
            answered.append((await route.fetch(max_retries=2)).status)
        finally:
            await route.abort("connectionreset")

    await context.route(f"**{REFRESH}", keep_the_cookies_only, times=1)
    with pytest.raises(Error, match="Failed to fetch"):
        await tab.refresh()
    assert answered == [200]
    child = refresh_token(await tab.tokens())
    assert child != parent

    again = await open_tab(site)
    assert await again.refresh()
    assert presented(site.refreshes[-1]) == child
    assert (await again.call("/notes", "POST"))[0] == 200


# --- a store that is away ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def own_store(tmp_path: Path) -> AsyncIterator[LaunchedServer]:
    """A store that this test may stop."""
    store = LaunchedServer(embedded.find_binary(), tmp_path)
    await asyncio.to_thread(store.start)
    yield store
    await asyncio.to_thread(store.stop)


@in_each_framework_and_mode
async def test_a_refresh_answered_503_leaves_every_token_alone_and_works_once_the_store_is_back(
    serve: Serve, open_tab: OpenTab, own_store: LaunchedServer, framework: str, mode: str
) -> None:
    site = await serve(framework=framework, store=own_store.url, access_token_lifetime=1, revocation_staleness=60)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    await tab.until_access_token_expires()
    tokens = await tab.tokens()
    await asyncio.to_thread(own_store.stop)

    assert (await tab.call("/me"))[0] == 503
    assert site.calls("/me")[-1].status == 401  # expired: that needs no store
    refused = site.refreshes[-1]
    assert refused.status == 503 and int(refused.header("retry-after") or 0) >= 1
    assert not refused.set_cookies and not refused.token_headers
    assert await tab.tokens() == tokens
    assert await tab.events() == ["SESSION_CREATED"]

    await asyncio.to_thread(own_store.start)
    await until(lambda: works(tab), "the page to get through again")
    assert refresh_token(await tab.tokens()) == refresh_token(tokens)  # a store that restarted does not exchange yet
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


async def works(tab: Tab) -> bool:
    return (await tab.call("/me"))[0] == 200


async def test_without_the_store_calls_are_served_and_nobody_can_sign_in_or_out(
    serve: Serve, open_tab: OpenTab, browser: Browser, own_store: LaunchedServer
) -> None:
    site = await serve(store=own_store.url, revocation_staleness=60)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    tokens = await tab.tokens()
    await asyncio.to_thread(own_store.stop)

    assert await works(tab)
    with pytest.raises(Error):
        await tab.sign_out()
    refused = site.calls(SIGN_OUT)[-1]
    assert refused.status == 503 and not refused.set_cookies and not refused.token_headers
    assert await tab.tokens() == tokens and await works(tab)

    async with await browser.new_context() as strangers:
        stranger = await Tab.open(strangers, site.origin)
        assert (await stranger.call("/signin/ben", "POST"))[0] == 503
        assert site.refreshes[-1].status == 401  # the first visit's: no token, so no store
        assert await stranger.tokens() == {}


# --- sessions that end -------------------------------------------------------------------------------------------


@in_each_framework_and_mode
async def test_a_session_revoked_on_the_server_is_refused_at_its_next_call_and_the_page_is_told(
    serve: Serve, open_tab: OpenTab, mode: str, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    already = len(site.refreshes)
    assert await site.revoke(await tab.handle())

    assert await tab.call("/me") == (401, {"message": "unauthorised"})
    refused = site.calls("/me")[-1]
    assert (refused.status, refused.header("front-token")) == (401, "remove")
    assert set(refused.set_cookies) == SESSION_COOKIES  # cleared for both methods, whichever was used
    assert await tab.tokens() == {}
    # The client may report the same 401 a second time, as a call without a session.
    assert (await tab.events())[:2] == ["SESSION_CREATED", "SESSION_LOST"]
    assert not await tab.signed_in()
    assert len(site.refreshes) == already


@in_each_framework_if_long
async def test_a_thief_who_replays_an_exchanged_token_ends_the_session_and_the_page_is_told(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework, exchange_seconds=W)
    tab = await open_tab(site, mode="cookie")
    await tab.sign_in("ann")
    stolen = refresh_token(await tab.tokens())
    await let_rotation_come_due()
    assert await tab.refresh()  # exchanged
    assert await tab.refresh()  # the child was used: from now on the parent is good for W only
    assert refresh_token(await tab.tokens()) != stolen
    await asyncio.sleep(W + 0.1)
    assert (await tab.call("/me"))[0] == 200

    other = await open_tab(site, mode="cookie")
    assert await other.signed_in()
    already = len(site.refreshes)
    reply = await replay(site, stolen)
    assert (reply.status_code, reply.json()) == (401, {"message": "token theft detected"})
    assert reply.headers["front-token"] == "remove"
    assert await site.sessions.handles("ann") == []

    assert not await tab.refresh()
    told = site.refreshes[-1]
    assert (told.status, told.header("front-token")) == (401, "remove")
    assert await tab.tokens() == {}
    assert (await tab.events())[-1] == "SESSION_LOST"
    assert not await tab.signed_in()
    # The other tab is signed out by that as well, and asks for nothing more.
    assert not await other.signed_in() and (await other.call("/me"))[0] == 401
    assert len(site.refreshes) == already + 2  # the thief's, and the page's


@in_each_framework_if_long
async def test_a_page_whose_stolen_token_the_thief_exchanged_is_told_and_the_thief_loses_all(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework, exchange_seconds=W)
    tab = await open_tab(site, mode="header")
    await tab.sign_in("ann")
    stolen = refresh_token(await tab.tokens())
    await let_rotation_come_due()
    loot = (await replay(site, stolen)).headers["st-refresh-token"]
    assert loot != stolen
    assert (await replay(site, loot)).status_code == 200
    await asyncio.sleep(W + 0.1)

    assert not await tab.refresh()
    assert site.refreshes[-1].status == 401
    assert await tab.tokens() == {}
    assert (await tab.events())[-1] == "SESSION_LOST"
    assert (await replay(site, loot)).status_code == 401
    assert await site.sessions.handles("ann") == []


@in_each_framework_and_mode
async def test_a_page_is_told_of_a_claim_that_fails_and_judges_the_claim_as_the_server_does(
    serve: Serve, open_tab: OpenTab, mode: str, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    already = len(site.refreshes)  # a first visit asks for one
    reason = {"message": "wrong value", "expectedValue": "gold", "actualValue": "silver"}
    failures = [{"id": "tier", "reason": reason}]

    assert await tab.call("/gold") == (403, {"message": "invalid claim", "claimValidationErrors": failures})
    assert (await tab.payload())["tier"]["v"] == "silver"  # which was fetched for the call, and came with the refusal
    event = (await tab.page.evaluate("events"))[-1]
    assert (event["action"], event["claimValidationErrors"]) == ("API_INVALID_CLAIM", failures)
    told = "fetch(api + '/gold').then((response) => supertokens.getInvalidClaimsFromResponse({ response }))"
    assert await tab.page.evaluate(told) == failures

    judged = """() => {
        const tier = new supertokens.PrimitiveClaim({ id: "tier", refresh: async () => {} });
        return supertokens.validateClaims(() => [tier.validators.hasValue("gold")]);
    }"""
    assert await tab.page.evaluate(judged) == failures
    assert await tab.call("/promotion", "POST") == (200, "ann")
    assert await tab.page.evaluate(judged) == []
    assert await tab.call("/gold") == (200, "ann")
    assert await tab.signed_in() and len(site.refreshes) == already
