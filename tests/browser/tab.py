"""One tab of the browser: what a test does to the page, and what it can see of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from playwright.async_api import BrowserContext, Frame, Page


class Tab:
    """A page in a tab of its own, or in a frame of another page."""

    def __init__(self, page: Page | Frame) -> None:
        self.page = page
        self.context = (page.page if isinstance(page, Frame) else page).context

    @classmethod
    async def open(cls, context: BrowserContext, origin: str, **query: str) -> Tab:
        page = await context.new_page()
        await page.goto(f"{origin}/?{urlencode(query)}")
        return cls(page)

    @classmethod
    async def embed(cls, page: Page, origin: str, **query: str) -> Tab:
        """The page in a frame of a page that is open."""
        address = f"{origin}/?{urlencode(query)}"
        element = await page.evaluate_handle(
            "(src) => document.body.appendChild(Object.assign(document.createElement('iframe'), { src }))", address
        )
        frame = await element.as_element().content_frame()
        await frame.wait_for_load_state()
        await frame.wait_for_function("location.protocol !== 'about:' && document.readyState === 'complete'")
        return cls(frame)

    async def call(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """The page's own ``fetch``, which the client has wrapped: status and JSON body."""
        reply = await self.page.evaluate("([path, method]) => call(path, method)", [path, method])
        return reply["status"], reply["body"]

    async def sign_in(self, user: str = "ann") -> None:
        assert await self.call(f"/signin/{user}", "POST") == (200, {"welcome": user})

    async def sign_out(self) -> None:
        await self.page.evaluate("supertokens.signOut()")

    async def refresh(self) -> bool:
        return bool(await self.page.evaluate("supertokens.attemptRefreshingSession()"))

    async def signed_in(self) -> bool:
        return bool(await self.page.evaluate("supertokens.doesSessionExist()"))

    async def payload(self) -> dict[str, Any]:
        """The access token's payload, as the client hands it to the page."""
        payload: dict[str, Any] = await self.page.evaluate("supertokens.getAccessTokenPayloadSecurely()")
        return payload

    async def handle(self) -> str:
        """The session's handle, as the page knows it."""
        return str((await self.payload())["sessionHandle"])

    async def events(self) -> list[str]:
        """Events that the client fired, oldest first; ``UNAUTHORISED`` is told apart by its one argument."""
        return [
            "SESSION_LOST" if event.get("sessionExpiredOrRevoked") else str(event["action"])
            for event in await self.page.evaluate("events")
        ]

    async def cookies(self) -> dict[str, Any]:
        """All cookies of the profile, with the attributes that the browser keeps."""
        return {cookie["name"]: cookie for cookie in await self.context.cookies()}

    async def tokens(self) -> dict[str, str]:
        """Names and values of all cookies, the client's time stamp left out."""
        return {
            name: cookie["value"]
            for name, cookie in (await self.cookies()).items()
            if name != "st-last-access-token-update"
        }

    async def until_access_token_expires(self) -> None:
        await self.page.wait_for_function("Date.now() > accessTokenExpiry() + 50")
