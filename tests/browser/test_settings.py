"""Settings of the server that the unmodified client has to cope with, or that have a counterpart in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from browser_site import Site
from browser_tools import find_tools
from matrix import MODES, in_each_framework, in_each_framework_if_long
from tab import Tab

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]


async def lives(site: Site, tab: Tab) -> None:
    """All that a page does before it signs out, an expired token included."""
    await tab.sign_in("ann")
    assert (await tab.call("/me"))[0] == (await tab.call("/notes", "POST"))[0] == 200
    assert await tab.refresh()
    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert (await tab.payload())["plan"] == "free" and await tab.signed_in()


@in_each_framework_if_long
@pytest.mark.parametrize("forced", MODES)
async def test_a_method_that_the_server_forces_works_with_a_client_that_asks_for_the_other(
    serve: Serve, open_tab: OpenTab, framework: str, forced: str
) -> None:
    site = await serve(framework=framework, token_transfer_method=forced)
    tab = await open_tab(site, mode="header" if forced == "cookie" else "cookie")
    await lives(site, tab)
    by_method = {"cookie": {"sAccessToken", "sRefreshToken"}, "header": {"st-access-token", "st-refresh-token"}}
    assert set(await tab.tokens()) == {"sFrontToken"} | by_method[forced]
    assert ("authorization" in site.refreshes[-1].request) == (forced == "header")
    await tab.sign_out()
    assert await tab.tokens() == {}


@in_each_framework
async def test_over_https_cookies_may_have_the_prefixes_that_browsers_guard(
    serve: Serve, open_tab: OpenTab, certificate: Path, framework: str
) -> None:
    names = {"access_cookie_name": "__Host-sAccessToken", "refresh_cookie_name": "__Secure-sRefreshToken"}
    site = await serve(framework=framework, host="www.fastverify.test", certificate=certificate, **names)
    tab = await open_tab(site)
    await lives(site, tab)
    kept = await tab.cookies()
    for name in names.values():
        cookie = kept[name]
        assert cookie["secure"] and cookie["httpOnly"] and cookie["domain"] == "www.fastverify.test"
    assert not {"sAccessToken", "sRefreshToken"} & kept.keys()
    await tab.sign_out()
    assert await tab.tokens() == {}


@in_each_framework_if_long
async def test_statuses_of_ones_own_are_those_that_the_client_is_told(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    statuses = {"session_expired_status_code": 440, "invalid_claim_status_code": 441}
    site = await serve(framework=framework, access_token_lifetime=1, **statuses)
    tab = await open_tab(site, expired="440", invalid="441")
    await tab.sign_in("ann")
    await site.restart(**statuses)
    await tab.until_access_token_expires()
    assert (await tab.call("/me"))[0] == 200
    assert [call.status for call in site.calls("/me")] == [440, 200]
    assert (await tab.call("/gold"))[0] == 441
    assert (await tab.events())[-1] == "API_INVALID_CLAIM"
    assert await site.revoke(await tab.handle())
    assert (await tab.call("/me"))[0] == 440
    assert "SESSION_LOST" in await tab.events() and await tab.tokens() == {}


@in_each_framework_if_long
async def test_a_page_gets_the_access_token_of_its_cookie_where_that_is_exposed(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    site = await serve(framework=framework, expose_access_token_to_frontend_in_cookie_based_auth=True)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    for _ in range(2):
        token = await tab.page.evaluate("supertokens.getAccessToken()")
        assert site.sessions.verify(token).user_id == "ann"
        assert token == (await tab.cookies())["sAccessToken"]["value"]
        assert await tab.refresh()
    assert "sRefreshToken" in await tab.tokens() and "st-refresh-token" not in await tab.tokens()
    hidden = await serve(framework=framework, host="hidden.fastverify.test")  # a jar of its own
    shut = await open_tab(hidden)
    await shut.sign_in("ben")
    assert await shut.page.evaluate("supertokens.getAccessToken()") is None


@in_each_framework_if_long
async def test_the_oldest_browser_is_signed_out_where_a_user_may_have_one_session(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    """Two names of one machine are two jars, as two browsers are."""
    site = await serve(framework=framework, max_sessions_per_user=1, host="one.fastverify.test")
    one = await open_tab(site)
    await one.sign_in("ann")
    two = await Tab.open(one.context, site.origin.replace("one.", "two."), mode="header")
    await two.sign_in("ann")
    assert (await one.call("/me"))[0] == 401
    assert "SESSION_LOST" in await one.events() and not await one.signed_in()
    assert (await two.call("/me"))[0] == 200 and await two.signed_in()
