"""The website and API that the browser meets: one of three frameworks on a real store, and a log of its wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from browser_django import django_application
from browser_fastapi import fastapi_application
from browser_flask import flask_application
from browser_parts import Gate, Parts
from browser_servers import asgi_server, wsgi_server
from npm_client import Scripts
from wire import Exchange, Wire, WsgiWire

from fastverify import AsyncSessions, Config, Sessions

REFRESH = "/auth/session/refresh"
SIGN_OUT = "/auth/signout"
#: They take Sessions and are served over WSGI; FastAPI takes AsyncSessions and is served over ASGI.
BLOCKING: dict[str, Callable[..., Any]] = {"flask": flask_application, "django": django_application}
FRAMEWORKS = ("fastapi", *BLOCKING)


class Site:
    """The application on a port of its own; ``sessions`` is the manager that the test works with.

    With FastAPI it is also the application's own; a blocking framework has another one on the same store.

    Args:
        host: its name; every name of ``*.fastverify.test`` leads here in the browser.
        website: the origin of the page that calls it, where that is another one; ``cors`` then says whether CORS
            middleware is installed "before" or "after" ours.
        more_websites: origins that CORS admits beside it.
        certificate: serve over https.
    """

    sessions: AsyncSessions

    def __init__(
        self,
        store: str,
        prefix: str,
        scripts: Scripts,
        *,
        framework: str = "fastapi",
        host: str = "localhost",
        website: str | None = None,
        cors: str | None = None,
        more_websites: Sequence[str] = (),
        certificate: Path | None = None,
    ) -> None:
        self.store, self.prefix, self.framework = store, prefix, framework
        self.host, self.website, self.cors, self.certificate = host, website, cors, certificate
        self.more_websites = more_websites
        self.log: list[Exchange] = []
        self.parts = Parts(scripts)
        self.port = 0
        self._running = contextlib.AsyncExitStack()
        self._blocking: Sessions | None = None

    @property
    def origin(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}:{self.port}"

    @property
    def notes(self) -> list[str]:
        return self.parts.notes

    @property
    def gate(self) -> Gate:
        return self.parts.gate

    @property
    def refreshes(self) -> list[Exchange]:
        return self.calls(REFRESH)

    def calls(self, path: str, method: str | None = None) -> list[Exchange]:
        """Exchanges with ``path`` so far; preflights count only if asked for."""
        return [
            exchange
            for exchange in self.log
            if exchange.path == path and (exchange.method == method if method else exchange.method != "OPTIONS")
        ]

    async def start(self, **settings: Any) -> None:
        """Serve, on the same port and store as before if it ran before."""
        listener = self._running.enter_context(socket.create_server(("127.0.0.1", self.port)))
        self.port = listener.getsockname()[1]
        websites = [self.website or self.origin, *self.more_websites]
        given = {"api_domain": self.origin, "website_domain": websites[0], "secret": bytes(range(32))} | settings
        config = Config(key_prefix=self.prefix, **given)
        self.sessions = await self._running.enter_async_context(AsyncSessions.connect(self.store, config))
        if self.framework in BLOCKING:
            self._blocking = blocking = await asyncio.to_thread(Sessions.connect, self.store, config)
            self._running.push_async_callback(asyncio.to_thread, blocking.close)
            app = BLOCKING[self.framework](blocking, self.parts, websites, self.cors)
            server = wsgi_server(WsgiWire(app, self.log), listener, self.certificate)
        else:
            app = fastapi_application(self.sessions, self.parts, websites, self.cors)
            server = asgi_server(Wire(app, self.log), listener, self.certificate)
        await self._running.enter_async_context(server)

    async def stop(self) -> None:
        self.gate.open()
        await self._running.aclose()

    async def restart(self, **settings: Any) -> None:
        await self.stop()
        await self.start(**settings)

    async def revoke(self, handle: str) -> bool:
        """End a session from outside the application, which knows of it when this returns."""
        was_there = await self.sessions.revoke(handle)
        if self._blocking is not None:
            await asyncio.to_thread(self._blocking.gateway.wait_for_poll)
        return was_there


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 10) -> None:
    """Wait until ``await condition()`` is true; the test fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.02)
