"""Clients that talk to a site as a browser or an app does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from fastverify import AsyncSessions

Open = Callable[..., Awaitable[AsyncSessions]]

#: Of a page on another port than the API's.
ORIGIN = "http://localhost:3000"


class Client(httpx.AsyncClient):
    """A browser (``cookie``) or an app (``header``): it keeps tokens as the client library does."""

    def __init__(self, app: Any, transfer: str = "header", base_url: str = "http://localhost:8000") -> None:
        super().__init__(transport=httpx.ASGITransport(app), base_url=base_url, headers={"st-auth-mode": transfer})
        self.access = self.refresh_token = self.anti_csrf = ""
        self.event_hooks = {"response": [self._keep]}

    async def _keep(self, response: httpx.Response) -> None:
        headers = response.headers
        self.refresh_token = headers.get("st-refresh-token", self.refresh_token)
        self.access = headers.get("st-access-token", self.access)
        if headers.get("front-token") == "remove":
            self.access = self.refresh_token = self.anti_csrf = ""
        self.anti_csrf = headers.get("anti-csrf", self.anti_csrf)
        assert len(headers.get_list("front-token")) <= 1

    async def call(self, path: str, method: str = "POST", token: str | None = None, **headers: str) -> httpx.Response:
        """A call as the client library makes it; ``_`` in header names stands for ``-``."""
        token = self.access if token is None else token
        if token:
            headers.setdefault("authorization", f"Bearer {token}")
        if self.anti_csrf:
            headers.setdefault("anti_csrf", self.anti_csrf)
        headers.setdefault("rid", "anti-csrf")
        sent = {name.replace("_", "-"): value for name, value in headers.items() if value}
        return await self.request(method, path, headers=sent)

    async def login(self, user: str = "user-1") -> httpx.Response:
        response = await self.call(f"/login?user={user}")
        assert response.status_code == 200
        return response

    async def refresh(self) -> httpx.Response:
        return await self.call("/auth/session/refresh", token=self.refresh_token, rid="session")


async def expect_preflights(client: Client) -> None:
    """A page of another origin may call with all that the client library sends."""
    for path in ("/auth/session/refresh", "/auth/signout", "/me"):
        response = await client.options(
            path,
            headers={
                "origin": ORIGIN,
                "access-control-request-method": "POST",
                "access-control-request-headers": "anti-csrf,content-type,fdi-version,rid,st-auth-mode",
            },
        )
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
