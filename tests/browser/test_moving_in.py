"""A browser that another issuer has signed in, with the unmodified client: nobody notices that the service is ours."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from browser_site import Site
from browser_tools import find_tools
from other_issuer import KEY, OtherIssuer
from playwright.async_api import BrowserContext
from tab import Tab

from fastverify import ForeignIssuer, KeySet
from fastverify._core import parse_unverified
from fastverify.adapters import fastapi, flask

find_tools()
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

Serve = Callable[..., Awaitable[Site]]
OpenTab = Callable[..., Awaitable[Tab]]


async def signed_in_there(context: BrowserContext, mode: str, access: str, refresh: str) -> None:
    """The cookies that SuperTokens and its client have left."""
    claims = parse_unverified(access)
    front = {"uid": claims["sub"], "ate": claims.expires_at * 1000, "up": claims.to_dict()}
    of_the_client = {
        "sFrontToken": base64.b64encode(json.dumps(front).encode()).decode(),
        "st-last-access-token-update": str(int(time.time() * 1000)),
    }
    if mode == "header":
        of_the_client |= {"st-access-token": access, "st-refresh-token": refresh}
    cookies: list[Any] = [
        {"name": name, "value": value, "domain": "localhost", "path": "/", "sameSite": "Lax"}
        for name, value in of_the_client.items()
    ]
    if mode == "cookie":
        httponly = {"domain": "localhost", "httpOnly": True, "sameSite": "Lax"}
        cookies += [
            {"name": "sAccessToken", "value": quote(access, safe=""), "path": "/", **httponly},
            {"name": "sRefreshToken", "value": quote(refresh, safe=""), "path": "/auth/session/refresh", **httponly},
        ]
    await context.add_cookies(cookies)


@pytest.mark.parametrize("mode", ["cookie", "header"])
@pytest.mark.parametrize("framework", ["fastapi", "flask"])
async def test_a_session_of_supertokens_goes_on_and_becomes_ours(
    serve: Serve,
    open_tab: OpenTab,
    context: BrowserContext,
    monkeypatch: pytest.MonkeyPatch,
    framework: str,
    mode: str,
) -> None:
    other = OtherIssuer("")
    adapter: Any = {"fastapi": fastapi, "flask": flask}[framework].FastVerify
    asking = partial(adapter, on_foreign_refresh_token=lambda headers, token: other.whose(token))
    monkeypatch.setattr(f"browser_{framework}.FastVerify", asking)
    website = await serve()
    accepted = ForeignIssuer(keys=KeySet([KEY.verifying]), issuer=None)
    api = await serve(framework=framework, website=website.origin, cors="after", also_accept=accepted)
    other.issuer = f"{api.origin}/auth"
    access, refresh = other.access_token("4"), other.refresh_token()
    await signed_in_there(context, mode, access, refresh)
    tab = await open_tab(website, mode=mode, api=api.origin)

    status, seen = await tab.call("/me")
    assert (status, seen["user"], seen["plan"]) == (200, "user-1", "pro")
    assert seen["handle"] == parse_unverified(access)["sessionHandle"] and api.refreshes == []

    # The store is needed: 401, one refresh, and the call again, all by the client.
    assert await tab.call("/plan/free", "POST") == (200, {"plan": "free"})
    assert [exchange.status for exchange in api.refreshes] == [200]
    assert other.asked == [refresh]
    status, seen = await tab.call("/me")
    assert (status, seen["plan"]) == (200, "free")
    assert await api.sessions.handles("user-1") == [seen["handle"]] == [await tab.handle()]
    assert set(await tab.events()) == {"REFRESH_SESSION", "ACCESS_TOKEN_PAYLOAD_UPDATED"}

    assert await tab.refresh()
    await tab.sign_out()
    assert await tab.tokens() == {} and not await tab.signed_in()


@pytest.mark.parametrize("mode", ["cookie", "header"])
async def test_many_calls_with_an_expired_token_of_theirs_exchange_it_once(
    serve: Serve, open_tab: OpenTab, context: BrowserContext, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    other = OtherIssuer("")
    asking = partial(fastapi.FastVerify, on_foreign_refresh_token=lambda headers, token: other.whose(token))
    monkeypatch.setattr("browser_fastapi.FastVerify", asking)
    site = await serve(also_accept=ForeignIssuer(keys=KeySet([KEY.verifying]), issuer=None))
    refresh = other.refresh_token()
    await signed_in_there(context, mode, other.access_token(exp=int(time.time()) - 5), refresh)
    tabs = [await open_tab(site, mode=mode) for _ in range(2)]
    for tab in tabs:
        replies = await tab.page.evaluate("Promise.all(Array.from({ length: 20 }, () => call('/me')))")
        assert [reply["status"] for reply in replies] == [200] * 20
    assert other.asked == [refresh]
    assert len(await site.sessions.handles("user-1")) == 1
