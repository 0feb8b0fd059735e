"""Names below one domain that all lead to this machine: websites that share a login, APIs that share a session.

Plain http: cookies of another host than localhost are then neither Secure nor SameSite=None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from browser_site import Site
from browser_tools import find_tools
from matrix import if_long, in_each_framework, in_each_framework_and_mode
from playwright.async_api import BrowserContext
from tab import Tab

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]

DOMAIN = ".fastverify.test"


async def websites(serve: Serve) -> tuple[Site, Site]:
    return await serve(host="www.fastverify.test"), await serve(host="admin.fastverify.test")


@in_each_framework_and_mode
async def test_websites_below_one_domain_share_a_login_and_its_end(
    serve: Serve, open_tab: OpenTab, framework: str, mode: str
) -> None:
    www, admin = await websites(serve)
    api = await serve(
        framework=framework,
        host="api.fastverify.test",
        website=www.origin,
        more_websites=[admin.origin],
        cors="after",
        access_token_lifetime=1,
    )
    options = {"mode": mode, "api": api.origin, "frontend": DOMAIN}
    here, there = await open_tab(www, **options), await open_tab(admin, **options)
    await here.sign_in("ann")
    assert await there.signed_in()
    await api.restart()
    await here.until_access_token_expires()

    # The client's lock against refreshing twice is kept for each origin, so that both may refresh at once.
    replies = await asyncio.gather(here.call("/me"), there.call("/me"), here.call("/me"), there.call("/me"))
    assert {(status, body["user"]) for status, body in replies} == {(200, "ann")}
    for tab in (here, there):
        assert await tab.refresh()
        assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
        assert not {"SESSION_LOST", "SIGN_OUT"} & set(await tab.events())
    cookies = await here.cookies()
    assert cookies["sFrontToken"]["domain"] == DOMAIN
    if mode == "cookie":
        assert cookies["sAccessToken"]["domain"] == "api.fastverify.test"

    await there.sign_out()
    assert await here.tokens() == {}
    assert not await here.signed_in()
    assert (await here.call("/me"))[0] == 401
    assert await api.sessions.handles("ann") == []


@pytest.mark.parametrize(
    ("first", "second", "mode"),
    [
        *[("fastapi", "flask", "cookie"), ("django", "fastapi", "cookie"), ("flask", "django", "header")],
        *[if_long("fastapi", "flask", "header"), if_long("django", "fastapi", "header")],
        if_long("flask", "django", "cookie"),
    ],
)
async def test_apis_below_one_domain_take_one_session_which_is_refreshed_at_the_first(
    serve: Serve, open_tab: OpenTab, first: str, second: str, mode: str
) -> None:
    www = await serve(host="www.fastverify.test")
    shared: dict[str, Any] = {"website": www.origin, "cors": "after", "cookie_domain": DOMAIN}
    api = await serve(framework=first, host="api.fastverify.test", access_token_lifetime=1, **shared)
    orders = await serve(framework=second, host="orders.fastverify.test", api_domain=api.origin, **shared)
    tab = await open_tab(www, mode=mode, api=api.origin, backend=DOMAIN)
    await tab.sign_in("ann")
    assert (await tab.call(f"{orders.origin}/me"))[1]["user"] == "ann"
    await api.restart(cookie_domain=DOMAIN)
    await tab.until_access_token_expires()
    already = len(api.refreshes)

    assert (await tab.call(f"{orders.origin}/me"))[1]["user"] == "ann"
    assert [refresh.status for refresh in api.refreshes[already:]] == [200]
    assert await tab.call(f"{orders.origin}/plan/free", "POST") == (200, {"plan": "free"})
    assert (await tab.call("/me"))[1]["plan"] == "free" == (await tab.payload())["plan"]
    assert not orders.refreshes
    if mode == "cookie":
        kept = [cookie for cookie in await tab.page.context.cookies() if cookie["name"] == "sAccessToken"]
        assert [cookie["domain"] for cookie in kept] == [DOMAIN]
    await tab.sign_out()
    assert await tab.tokens() == {}
    assert (await tab.call(f"{orders.origin}/me"))[0] == 401


@in_each_framework
async def test_a_browser_with_cookies_of_a_former_domain_goes_on_with_one_of_them(
    serve: Serve, open_tab: OpenTab, framework: str
) -> None:
    www = await serve(host="www.fastverify.test")
    api = await serve(framework=framework, host="api.fastverify.test", website=www.origin, cors="after")
    tab = await open_tab(www, api=api.origin)
    await tab.sign_in("ann")
    handle = await tab.handle()
    await api.restart(cookie_domain=DOMAIN)
    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert len(await access_cookies(tab)) == 2

    assert (await tab.call("/me"))[1] == {"user": "ann", "handle": handle, "plan": "free"}
    assert [call.status for call in api.calls("/me")] == [401, 200]  # which of the two is newer, a refresh tells
    assert await access_cookies(tab) == [DOMAIN]
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


async def access_cookies(tab: Tab) -> list[str]:
    """The domains of the access cookies that the browser has."""
    return sorted(cookie["domain"] for cookie in await tab.page.context.cookies() if cookie["name"] == "sAccessToken")


@in_each_framework
async def test_a_cookie_of_an_old_client_goes_at_the_first_refresh(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, framework: str
) -> None:
    site = await serve(framework=framework)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    await context.add_cookies([{"name": "sIdRefreshToken", "value": "old", "url": site.origin}])
    already = len(site.refreshes)
    assert (await tab.call("/me"))[1]["user"] == "ann"
    assert [call.status for call in site.calls("/me")] == [401, 200]
    assert [refresh.status for refresh in site.refreshes[already:]] == [200]
    assert "sIdRefreshToken" not in await tab.cookies()
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())
