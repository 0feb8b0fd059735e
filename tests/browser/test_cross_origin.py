"""Other origins: the website's own, which CORS admits, and an attacker's, which the anti-CSRF modes keep out.

``http://localhost:<port>`` of another port is another origin and the same site: SameSite cookies go along.
``http://127.0.0.1:<port>`` is another site: only SameSite=None cookies go along, and only on a navigation or where the
browser lets third parties have cookies. Chromium takes Secure cookies from ``http://localhost``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from browser_site import REFRESH, SIGN_OUT, Site
from browser_tools import find_tools
from matrix import in_each_framework
from playwright.async_api import BrowserContext, Error, Page
from tab import Tab
from wire import Exchange

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]

#: A website that leaves the anti-CSRF check as the last line of defence: its cookies go along on cross-site requests.
CROSS_SITE_COOKIES = {"cookie_same_site": "none", "cookie_secure": True}


async def _blank_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def foreign_port() -> AsyncIterator[int]:
    """Somebody else's web server: an empty page."""
    async with await asyncio.start_server(_blank_page, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


# --- the website's own origin ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "cors"), [("cookie", "before"), ("header", "after")])
async def test_a_page_of_another_origin_signs_in_refreshes_and_signs_out_through_cors(
    serve: Serve, open_tab: OpenTab, mode: str, cors: str
) -> None:
    website = await serve()
    api = await serve(website=website.origin, cors=cors)
    tab = await open_tab(website, mode=mode, api=api.origin)
    await tab.sign_in("ann")
    assert (await tab.call("/me"))[0] == 200
    assert (await tab.call("/notes", "POST"))[0] == 200
    assert await tab.refresh()
    await tab.sign_out()
    assert await tab.tokens() == {}
    events = [event for event in await tab.events() if event != "ACCESS_TOKEN_PAYLOAD_UPDATED"]  # not within a second
    assert events == ["SESSION_CREATED", "REFRESH_SESSION", "SIGN_OUT"]

    assert {exchange.path for exchange in website.log} == {"/", "/client.js"}
    [preflight] = api.calls("/signin/ann", "OPTIONS")
    asked = set(preflight.request["access-control-request-headers"].split(","))
    assert asked == {"rid", "st-auth-mode"}
    [asks_to_refresh, *_] = api.calls(REFRESH, "OPTIONS")
    assert "fdi-version" in asks_to_refresh.request["access-control-request-headers"]
    for exchange in api.log:
        assert exchange.header("access-control-allow-origin") == website.origin
        assert exchange.header("access-control-allow-credentials") == "true"
    for exchange in api.log:
        assert exchange.token_headers <= exchange.exposed
    if mode == "header":
        assert not any(exchange.set_cookies for exchange in api.calls("/signin/ann") + api.calls("/me"))


async def test_a_page_of_another_site_uses_header_mode_without_any_cookie(serve: Serve, open_tab: OpenTab) -> None:
    website = await serve()
    elsewhere = website.origin.replace("localhost", "127.0.0.1")
    api = await serve(website=elsewhere, cors="after", access_token_lifetime=1)
    tab = await Tab.open((await open_tab(website)).page.context, elsewhere, mode="header", api=api.origin)
    await tab.sign_in("ann")
    await api.restart()
    await tab.until_access_token_expires()
    assert (await tab.call("/me"))[0] == 200
    assert [refresh.status for refresh in api.refreshes] == [401, 200]  # the first visit's, and the expired token's
    assert not any("cookie" in exchange.request for exchange in api.log)
    assert not any(exchange.set_cookies for exchange in api.log if exchange.status == 200)


# --- an attacker's origin ----------------------------------------------------------------------------------------


async def submit_form(page: Page, url: str) -> None:
    """What a malicious page does when the victim looks at it: a top-level POST that no CORS rule stops."""
    async with page.expect_navigation():
        await page.evaluate(
            """(url) => {
                const form = Object.assign(document.createElement("form"), { method: "post", action: url });
                document.body.append(form);
                form.submit();
            }""",
            url,
        )


async def send_blindly(page: Page, url: str) -> None:
    """A POST without a preflight: it arrives, and the script may not read the reply."""
    await page.evaluate("(url) => fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' })", url)


async def send_with_header(page: Page, url: str) -> None:
    """A POST with the header that the anti-CSRF check asks for: it needs leave by preflight, and gets none."""
    with pytest.raises(Error, match="Failed to fetch"):
        await page.evaluate(
            """(url) => fetch(url, { method: "POST", credentials: "include", headers: { rid: "anti-csrf" } })""", url
        )


def forged(site: Site, path: str) -> Exchange:
    """The last request to ``path``, having made sure that it came with the victim's cookie."""
    exchange = site.calls(path)[-1]
    assert exchange.method == "POST" and "sAccessToken" in exchange.cookies
    assert "rid" not in exchange.request and "anti-csrf" not in exchange.request
    return exchange


@in_each_framework
@pytest.mark.parametrize("mode", ["VIA_TOKEN", "VIA_CUSTOM_HEADER"])
async def test_with_an_anti_csrf_mode_the_pages_calls_pass_and_forged_ones_do_not(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, foreign_port: int, mode: str, framework: str
) -> None:
    site = await serve(framework=framework, anti_csrf=mode, **CROSS_SITE_COOKIES)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    assert await tab.refresh()
    assert await tab.call("/notes", "POST") == (200, {"notes": 1})
    assert (await tab.cookies())["sAccessToken"]["sameSite"] == "None"
    honest = site.calls("/notes")[-1]
    [sign_in] = site.calls("/signin/ann")
    if mode == "VIA_TOKEN":
        token = sign_in.header("anti-csrf")
        assert token and {"anti-csrf", "front-token"} == sign_in.token_headers <= sign_in.exposed
        assert honest.request["anti-csrf"] == token == (await tab.cookies())["sAntiCsrf"]["value"]
    else:
        assert sign_in.token_headers == {"front-token"}
        assert "sAntiCsrf" not in await tab.cookies()
    assert honest.request["rid"] == "anti-csrf"

    evil = await context.new_page()
    for attacker in (f"http://127.0.0.1:{foreign_port}", f"http://localhost:{foreign_port}"):
        await evil.goto(attacker)
        seen = len(site.calls("/notes"))
        await send_with_header(evil, f"{site.origin}/notes")
        assert len(site.calls("/notes")) == seen
        await submit_form(evil, f"{site.origin}/notes")
        refused = forged(site, "/notes")
        assert refused.status == 401 and not refused.set_cookies and not refused.token_headers
    await evil.goto(f"http://localhost:{foreign_port}")
    await send_blindly(evil, f"{site.origin}/notes")
    assert forged(site, "/notes").status == 401

    assert site.notes == ["ann"]
    assert await tab.call("/notes", "POST") == (200, {"notes": 2})
    assert not {"SESSION_LOST", "UNAUTHORISED", "SIGN_OUT"} & set(await tab.events())


@in_each_framework
async def test_without_an_anti_csrf_mode_a_forged_form_is_told_by_its_origin(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, foreign_port: int, framework: str
) -> None:
    """And by nothing else: from another port of the development machine, which is as good as ours, it passes."""
    site = await serve(framework=framework, anti_csrf="NONE", **CROSS_SITE_COOKIES)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    assert await tab.refresh() and await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert site.calls("/signin/ann")[0].token_headers == {"front-token"}
    evil = await context.new_page()
    await evil.goto(f"http://127.0.0.1:{foreign_port}")
    await submit_form(evil, f"{site.origin}/notes")
    refused = forged(site, "/notes")
    assert refused.status == 401 and not refused.set_cookies and not refused.token_headers
    assert site.notes == []
    await evil.goto(f"http://localhost:{foreign_port}")
    await submit_form(evil, f"{site.origin}/notes")
    assert forged(site, "/notes").status == 200
    assert site.notes == ["ann"]


async def test_lax_cookies_do_not_go_along_on_a_form_of_another_site(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, foreign_port: int
) -> None:
    site = await serve()
    tab = await open_tab(site)
    await tab.sign_in("ann")
    evil = await context.new_page()
    await evil.goto(f"http://127.0.0.1:{foreign_port}")
    await submit_form(evil, f"{site.origin}/notes")
    refused = site.calls("/notes")[-1]
    assert refused.status == 401 and not refused.set_cookies
    assert "sAccessToken" not in refused.cookies
    assert site.notes == [] and (await tab.call("/me"))[0] == 200


@pytest.mark.parametrize(
    "settings", [{}, {"anti_csrf": "VIA_CUSTOM_HEADER", **CROSS_SITE_COOKIES}], ids=["lax", "none"]
)
async def test_a_form_of_another_site_cannot_sign_the_visitor_out(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, foreign_port: int, settings: dict[str, Any]
) -> None:
    """A reply to a navigation may set cookies, Lax ones too, even where the request was not sent any."""
    site = await serve(**settings)
    tab = await open_tab(site)
    await tab.sign_in("ann")
    tokens = await tab.tokens()
    evil = await context.new_page()
    for path in (REFRESH, SIGN_OUT):
        await evil.goto(f"http://127.0.0.1:{foreign_port}")
        await submit_form(evil, f"{site.origin}{path}")
        refused = site.calls(path)[-1]
        assert refused.status == 401 and not refused.set_cookies and not refused.token_headers
        assert await tab.tokens() == tokens
    assert (await tab.call("/me"))[0] == 200 and await tab.refresh()
