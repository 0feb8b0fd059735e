"""The application in a frame of somebody else's page, over https: where third parties may have cookies, and where not.

In a private window (which the other browser tests use), and where the user has blocked third parties' cookies, Chromium
gives a frame of another site no cookies but Partitioned ones, and no localStorage. The web client then cannot even
start, unless the page keeps what it has to remember (its handlers).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser_site import Site
from browser_tools import find_tools
from conftest import CHROMIUM_ARGS
from matrix import in_each_framework, in_each_framework_if_long
from playwright.async_api import BrowserContext, async_playwright
from tab import Tab

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenProfile = Callable[..., Awaitable[BrowserContext]]

#: Where API and website are of one site, only this makes the cookies go into frames on other sites.
IN_FRAMES = {"cookie_same_site": "none"}
PARTITIONED = {"cookie_same_site": "none", "cookie_partitioned": True}
PARTITION = "https://elsewhere.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def profiles(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenProfile]:
    """Ordinary windows of profiles that are not private: one that blocks third parties' cookies, one that does not."""
    opened: dict[bool, BrowserContext] = {}
    async with async_playwright() as playwright, AsyncExitStack() as stack:

        async def start(blocks: bool) -> BrowserContext:
            if blocks not in opened:
                folder = tmp_path_factory.mktemp("profile")
                preferences = {"profile": {"block_third_party_cookies": blocks, "cookie_controls_mode": int(blocks)}}
                folder.joinpath("Default").mkdir()
                folder.joinpath("Default", "Preferences").write_text(json.dumps(preferences))
                context = await playwright.chromium.launch_persistent_context(
                    folder, executable_path=find_tools().chromium, args=CHROMIUM_ARGS, ignore_https_errors=True
                )
                stack.push_async_callback(context.close)
                context.set_default_timeout(15_000)
                opened[blocks] = context
            return opened[blocks]

        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def open_profile(profiles: OpenProfile) -> AsyncIterator[OpenProfile]:
    """``await open_profile(blocks=True)``: one of them, with no page of a former test and no cookie."""
    used: list[BrowserContext] = []

    async def use(blocks: bool) -> BrowserContext:
        used.append(await profiles(blocks))
        return used[-1]

    yield use
    for context in used:
        for page in context.pages[1:]:  # with the last one the browser would close
            await page.close()
        await context.clear_cookies()


async def embedded(
    serve: Serve, context: BrowserContext, certificate: Path, query: dict[str, str], **options: Any
) -> tuple[Site, Tab]:
    """The application, and its page in a frame of a page of another site."""
    outside = await serve(host="www.elsewhere.test", certificate=certificate)
    site = await serve(host="app.fastverify.test", certificate=certificate, **options)
    page = await context.new_page()
    await page.goto(f"{outside.origin}/public")
    return site, await Tab.embed(page, site.origin, iframe="yes", **query)


async def lives(tab: Tab) -> None:
    """All that a page does, from sign-in to sign-out."""
    await tab.sign_in("ann")
    assert (await tab.call("/me"))[0] == (await tab.call("/notes", "POST"))[0] == 200
    assert await tab.refresh()
    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert await tab.signed_in()
    assert (await tab.payload())["plan"] == "free"
    assert not {"SESSION_LOST", "SIGN_OUT"} & set(await tab.events())


@in_each_framework
async def test_header_mode_works_in_a_frame_without_any_cookie_of_the_server(
    serve: Serve, open_profile: OpenProfile, certificate: Path, framework: str
) -> None:
    context = await open_profile(blocks=False)
    site, tab = await embedded(serve, context, certificate, {"mode": "header"}, framework=framework)
    await lives(tab)
    kept = await tab.cookies()
    assert set(kept) == {"sFrontToken", "st-last-access-token-update", "st-access-token", "st-refresh-token"}
    assert all(
        cookie["sameSite"] == "None" and cookie["secure"] for cookie in kept.values()
    )  # isInIframe makes them so
    await tab.sign_out()
    assert await tab.tokens() == {}
    assert not any(exchange.set_cookies for exchange in site.log if exchange.status == 200)


@in_each_framework_if_long
@pytest.mark.parametrize("settings", [IN_FRAMES, PARTITIONED], ids=["none", "partitioned"])
async def test_cookie_mode_works_in_a_frame_with_cookies_that_may_go_there(
    serve: Serve, open_profile: OpenProfile, certificate: Path, framework: str, settings: dict[str, Any]
) -> None:
    context = await open_profile(blocks=False)
    options = {"framework": framework, **settings}
    site, tab = await embedded(serve, context, certificate, {"mode": "cookie"}, **options)
    await lives(tab)
    kept = await tab.cookies()
    partition = PARTITION if settings is PARTITIONED else None
    for name in ("sAccessToken", "sRefreshToken"):
        cookie = kept[name]
        assert (cookie["sameSite"], cookie["secure"], cookie.get("partitionKey")) == ("None", True, partition)

    # In a tab of its own the page is the same visitor, or of another partition.
    outright = await Tab.open(context, site.origin)
    assert (await outright.call("/me"))[0] == (401 if partition else 200)
    if partition is None:
        await tab.sign_out()
        assert await tab.tokens() == {}


async def test_lax_cookies_do_not_go_into_a_frame(serve: Serve, open_profile: OpenProfile, certificate: Path) -> None:
    context = await open_profile(blocks=False)
    site, tab = await embedded(serve, context, certificate, {"mode": "cookie"})
    await tab.sign_in("ann")
    assert (await tab.call("/me"))[0] == 401
    assert not site.calls("/me")[0].cookies.keys() & {"sAccessToken"}
    assert "sAccessToken" not in await tab.cookies()  # the browser did not even keep it


@in_each_framework_if_long
@pytest.mark.parametrize(("mode", "settings"), [("header", {}), ("cookie", PARTITIONED)], ids=["header", "partitioned"])
async def test_where_third_parties_get_no_storage_a_page_that_keeps_the_clients_state_works(
    serve: Serve, open_profile: OpenProfile, certificate: Path, framework: str, mode: str, settings: dict[str, Any]
) -> None:
    context = await open_profile(blocks=True)
    options = {"framework": framework, **settings}
    _, tab = await embedded(serve, context, certificate, {"mode": mode, "storage": "memory"}, **options)
    await lives(tab)
    kept = await tab.cookies()
    assert {cookie["partitionKey"] for cookie in kept.values()} <= {PARTITION}
    assert set(kept) == ({"sAccessToken", "sRefreshToken"} if mode == "cookie" else set())
    await tab.sign_out()
    assert await tab.cookies() == {}
    assert (await tab.call("/me"))[0] == 401


async def test_where_third_parties_get_no_storage_the_client_does_not_start_by_itself(
    serve: Serve, open_profile: OpenProfile, certificate: Path
) -> None:
    context = await open_profile(blocks=True)
    problems: list[str] = []
    context.once("weberror", lambda error: problems.append(str(error.error)))
    await embedded(serve, context, certificate, {"mode": "header"})
    [problem] = problems
    assert "localStorage" in problem
