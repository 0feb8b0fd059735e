"""The life of a session in each framework, its API on another port than the page: one test for all that matters.

What single steps put on the wire is looked at more closely in test_web_client.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from browser_parts import SLOW
from browser_site import BLOCKING, FRAMEWORKS, SIGN_OUT, Site
from browser_tools import find_tools
from matrix import if_long, in_each_framework, in_each_framework_and_mode, in_each_framework_if_long
from tab import Tab

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]


@pytest.mark.parametrize(
    ("framework", "mode", "client", "cors"),
    [(name, "cookie", "client", "before") for name in FRAMEWORKS]
    + [(name, "header", "client", "after") for name in FRAMEWORKS]
    + [("fastapi", "cookie", "web-js", "after")]
    + [if_long(name, "cookie", "web-js", "after") for name in BLOCKING],
)
async def test_a_whole_life_with_fifty_calls_at_once_that_find_the_access_token_expired(
    serve: Serve, open_tab: OpenTab, framework: str, mode: str, client: str, cors: str
) -> None:
    website = await serve()
    api = await serve(framework=framework, website=website.origin, cors=cors, access_token_lifetime=1)
    tab = await open_tab(website, mode=mode, client=client, api=api.origin)
    await tab.sign_in("ann")
    handle = await tab.handle()
    await api.restart()  # the next access token outlives the test, however slow the machine; same store, same keys
    await tab.until_access_token_expires()
    # Asking for the handle has refreshed already where the machine is slow.
    already, told = len(api.refreshes), len(await tab.events())

    replies = await tab.page.evaluate("Promise.all(Array.from({ length: 50 }, () => call('/me')))")
    assert [reply["status"] for reply in replies] == [200] * 50
    assert {(reply["body"]["user"], reply["body"]["handle"]) for reply in replies} == {("ann", handle)}
    assert [refresh.status for refresh in api.refreshes[already:]] == [200]

    assert await tab.call("/notes", "POST") == (200, {"notes": 1})
    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert (await tab.payload())["plan"] == "free"
    status, refusal = await tab.call("/vip")
    assert (status, refusal["message"]) == (403, "invalid claim")
    await tab.sign_out()
    assert await tab.tokens() == {}
    assert not await tab.signed_in()
    assert (await tab.call("/me"))[0] == 401
    assert len(api.refreshes) == already + 1
    assert await api.sessions.handles("ann") == []

    events = await tab.events()
    changed = "ACCESS_TOKEN_PAYLOAD_UPDATED"
    assert events[0] == "SESSION_CREATED"
    assert events[told : told + 2] == [changed, "REFRESH_SESSION"]  # stored first, then told
    # /plan, and the claims that /vip fetched before it refused.
    assert events[told + 2 : told + 6] == [changed, changed, "API_INVALID_CLAIM", "SIGN_OUT"]
    assert set(events[told + 6 :]) <= {"UNAUTHORISED"}

    assert {exchange.path for exchange in website.log} == {"/", f"/{client}.js"}
    [signed_out] = api.calls(SIGN_OUT)
    assert signed_out.header("front-token") == "remove"
    for exchange in api.log:
        assert exchange.header("access-control-allow-origin") == website.origin
        assert exchange.header("access-control-allow-credentials") == "true"
        assert exchange.token_headers <= exchange.exposed
        if exchange.token_headers:
            assert exchange.header("cache-control") == "no-store"
    if mode == "header":
        assert not any("sAccessToken" in exchange.cookies for exchange in api.log)


@in_each_framework
async def test_what_a_page_reads_where_it_is_rendered_on_the_server(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework, access_token_lifetime=1)
    page = (tab := await open_tab(site)).page
    await page.goto(f"{site.origin}/account")
    assert await page.inner_text("#user") == "nobody"

    await page.goto(site.origin)
    await tab.sign_in("ann")
    await site.restart()
    await tab.until_access_token_expires()
    already = len(site.refreshes)
    await page.goto(f"{site.origin}/account")  # renews the token, and loads itself again
    await page.wait_for_selector("#user")
    assert await page.inner_text("#user") == "ann"
    assert [refresh.status for refresh in site.refreshes[already:]] == [200]
    reads = site.calls("/account")
    assert len(reads) == 3 and not any(read.set_cookies or read.token_headers for read in reads)


@in_each_framework
async def test_a_session_that_is_not_to_be_remembered_is_gone_with_the_browser(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site)
    assert (await tab.call("/signin-for-now/ann", "POST"))[0] == 200
    assert await tab.refresh()
    assert (await tab.call("/plan/free", "POST"))[0] == 200
    for exchange in (site.calls("/signin-for-now/ann")[0], site.calls("/plan/free")[0]):
        assert exchange.set_cookies
        assert not any(cookie["expires"] or cookie["max-age"] for cookie in exchange.set_cookies.values())
    kept = await tab.cookies()
    assert kept["sAccessToken"]["expires"] == kept["sRefreshToken"]["expires"] == -1  # as the browser says it
    assert (await tab.call("/me"))[0] == 200


@in_each_framework
async def test_a_live_session_moves_from_cookies_to_headers_and_back(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    handle = await tab.handle()

    assert await tab.call("/move/header", "POST") == (200, "ann")
    assert {"st-access-token", "st-refresh-token"} <= (await tab.tokens()).keys()
    assert not {"sAccessToken", "sRefreshToken"} & (await tab.tokens()).keys()
    assert await tab.refresh()
    moved = site.refreshes[-1]
    assert "authorization" in moved.request and "sRefreshToken" not in moved.cookies and not moved.set_cookies
    assert (await tab.call("/me"))[1]["handle"] == handle
    assert site.calls("/me")[-1].request["authorization"].startswith("Bearer ")

    assert await tab.call("/move/cookie", "POST") == (200, "ann")
    assert set(await tab.tokens()) == {"sFrontToken", "sAccessToken", "sRefreshToken"}
    assert await tab.refresh()
    assert "authorization" not in site.refreshes[-1].request
    assert (await tab.call("/me"))[1]["handle"] == handle
    assert await site.sessions.handles("ann") == [handle]
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


@in_each_framework_and_mode
@pytest.mark.parametrize("when", SLOW)
async def test_a_slow_reply_of_a_former_session_leaves_the_sign_in_of_another_user_alone(
    serve: Serve, open_tab: OpenTab, framework: str, mode: str, when: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    slow = asyncio.create_task(tab.call(f"/slow/{when}", "POST"))
    assert await asyncio.to_thread(site.gate.arrived.wait, 10)
    await tab.sign_in("ben")
    tokens = await tab.tokens()
    site.gate.open()
    # Changing the payload of a session that has ended is refused; the client finds another, and repeats the call.
    assert await slow == (200, "ben" if when == "after" else "ann")

    late = site.calls(f"/slow/{when}")[0]
    assert late.status == (401 if when == "after" else 200)
    assert not late.set_cookies and not late.token_headers
    if when != "after":
        assert await tab.tokens() == tokens
    assert (await tab.call("/me"))[1]["user"] == "ben" and await tab.refresh()
    assert await site.sessions.handles("ann") == []
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


@in_each_framework_if_long
async def test_a_slow_reply_of_a_session_that_was_revoked_meanwhile_has_the_page_told_by_a_refresh(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    already = len(site.refreshes)
    slow = asyncio.create_task(tab.call("/slow/after", "POST"))
    assert await asyncio.to_thread(site.gate.arrived.wait, 10)
    assert await site.revoke(await tab.handle())
    site.gate.open()
    assert (await slow)[0] == 401
    assert [refresh.status for refresh in site.refreshes[already:]] == [401]
    assert await tab.tokens() == {} and not await tab.signed_in()
    assert "SESSION_LOST" in await tab.events()


@in_each_framework_and_mode
async def test_a_guest_who_signs_in_keeps_the_cart(serve: Serve, open_tab: OpenTab, framework: str, mode: str) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    guest = (await tab.call("/guest/tea", "POST"))[1]
    assert guest.startswith("guest-") and guest == await tab.page.evaluate("supertokens.getUserId()")
    assert await tab.call("/cart") == (200, {"user": guest, "guest": True, "cart": ["tea"]})
    assert await tab.refresh()
    before = await tab.tokens()

    await tab.sign_in("ann")
    assert await tab.call("/cart") == (200, {"user": "ann", "guest": False, "cart": ["tea"]})
    payload = await tab.payload()
    assert (payload["cart"], payload["plan"]) == (["tea"], "pro")
    after = await tab.tokens()
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())
    assert await site.sessions.handles(guest) == []
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


@in_each_framework_and_mode
async def test_somebody_acts_as_another_user_and_returns_to_the_own_session(
    serve: Serve, open_tab: OpenTab, framework: str, mode: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("sam")
    own = await tab.handle()
    assert await tab.call("/act-as/ada", "POST") == (200, {"user": "ada", "actor": "sam"})
    assert await tab.page.evaluate("supertokens.getUserId()") == "ada"
    assert (await tab.payload())["act"] == {"sub": "sam"}
    assert await tab.refresh()
    assert await tab.call("/actor") == (200, {"user": "ada", "actor": "sam"})
    refusals = [{"id": "act", "reason": {"message": "impersonated"}}]
    assert await tab.call("/email", "POST") == (403, {"message": "invalid claim", "claimValidationErrors": refusals})
    assert (await tab.page.evaluate("events"))[-1]["claimValidationErrors"] == refusals

    assert await tab.call("/return", "POST") == (200, {"user": "sam", "actor": None})
    assert await tab.handle() == own and "act" not in await tab.payload()
    assert await tab.refresh()
    assert (await tab.call("/me"))[1] == {"user": "sam", "handle": own, "plan": "pro"}
    assert await tab.call("/email", "POST") == (200, "sam")
    assert await site.sessions.handles("ada") == []
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


@in_each_framework
async def test_the_validators_of_web_js_judge_claims_as_the_server_does(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, client="web-js")
    await tab.sign_in("ann")
    # One global validator of each kind of claim; to refresh the boolean one is to ask the server for admission.
    await tab.page.evaluate(
        """() => {
            const { PrimitiveClaim, BooleanClaim, PrimitiveArrayClaim } = webJs.Session;
            const refresh = async () => void (await call("/admission", "POST"));
            globalThis.tier = new PrimitiveClaim({ id: "tier", refresh: async () => {} });
            globalThis.verified = new BooleanClaim({ id: "verified", refresh });
            globalThis.roles = new PrimitiveArrayClaim({ id: "roles", refresh: async () => {} });
            globalThis.vip = [
                verified.validators.isTrue(), roles.validators.includes("member"), roles.validators.excludes("guest"),
            ];
        }"""
    )
    by_server = "fetch(api + '/vip').then((response) => webJs.Session.getInvalidClaimsFromResponse({ response }))"
    by_page = "webJs.Session.validateClaims({ overrideGlobalClaimValidators: () => vip })"
    refusals = await tab.page.evaluate(by_server)
    assert [(refusal["id"], refusal["reason"]["message"]) for refusal in refusals] == [
        ("verified", "wrong value"),
        ("roles", "wrong value"),
        ("roles", "wrong value"),
    ]
    assert await tab.page.evaluate(by_page) == refusals
    event = (await tab.page.evaluate("events"))[-1]
    assert (event["action"], event["claimValidationErrors"]) == ("API_INVALID_CLAIM", refusals)
    values = "Promise.all([verified, roles, tier].map((claim) => webJs.Session.getClaimValue({ claim })))"
    assert await tab.page.evaluate(values) == [False, ["guest"], None]

    # What is missing is refreshed first: the claim asks the server, and then holds.
    await tab.sign_in("ben")
    assert await tab.page.evaluate(by_page) == []
    assert len(site.calls("/admission")) == 1
    assert await tab.call("/vip") == (200, "ben")
    assert await tab.page.evaluate(values) == [True, ["member"], None]
    is_gold = """webJs.Session.validateClaims({
        overrideGlobalClaimValidators: (all) => [...all, tier.validators.hasValue("gold")],
    })"""
    reason = {"message": "value does not exist", "expectedValue": "gold", "actualValue": None}
    assert await tab.page.evaluate(is_gold) == [{"id": "tier", "reason": reason}]
    assert await tab.call("/promotion", "POST") == (200, "ben")
    assert await tab.page.evaluate(is_gold) == []
    assert await tab.signed_in() and not {"SESSION_LOST", "SIGN_OUT"} & set(await tab.events())


@in_each_framework_and_mode
async def test_a_slow_reply_with_a_new_token_does_not_bring_back_who_has_signed_out(
    serve: Serve, open_tab: OpenTab, framework: str, mode: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site, mode=mode)
    await tab.sign_in("ann")
    slow = asyncio.create_task(tab.call("/slow/before", "POST"))
    assert await asyncio.to_thread(site.gate.arrived.wait, 10)
    await tab.sign_out()
    site.gate.open()
    assert await slow == (200, "ann")
    [late] = site.calls("/slow/before")
    assert not late.set_cookies and not late.token_headers
    assert await tab.tokens() == {} and not await tab.signed_in()
    assert (await tab.events())[-1] == "SIGN_OUT"
