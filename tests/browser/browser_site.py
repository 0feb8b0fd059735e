"""The website and API that the browser meets: FastAPI on a real store, and a log of all that crosses its wire."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations of the local functions below.
import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware

from fastverify import AsyncSessions, Config, PrimitiveClaim
from fastverify.adapters.fastapi import FastVerify, RequestSession
from fastverify.transport import cors_headers

PAGE = Path(__file__).with_name("page.html").read_bytes()
REFRESH = "/auth/session/refresh"
SIGN_OUT = "/auth/signout"
#: Everybody is silver until promoted.
TIER = PrimitiveClaim("tier", lambda *whose: "silver")


@dataclass(frozen=True)
class Exchange:
    """One request and its reply, as the server saw them."""

    method: str
    path: str
    request: dict[str, str]
    status: int
    reply: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """A header of the reply; a header that was sent twice fails the test."""
        values = [value for key, value in self.reply if key == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def exposed(self) -> set[str]:
        """What a script of another origin may read of the reply."""
        return {name.strip().lower() for name in (self.header("access-control-expose-headers") or "").split(",")} - {""}

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies of the request."""
        return {name: morsel.value for name, morsel in SimpleCookie(self.request.get("cookie", "")).items()}

    @property
    def set_cookies(self) -> dict[str, Morsel[str]]:
        """Cookies of the reply, with their attributes."""
        jar: dict[str, Morsel[str]] = {}
        for name, value in self.reply:
            if name == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    assert key not in jar, f"cookie {key} was set twice in one reply"
                    jar[key] = morsel
        return jar

    @property
    def token_headers(self) -> set[str]:
        """Which of the client's token headers the reply has."""
        return {"front-token", "st-access-token", "st-refresh-token", "anti-csrf"} & {name for name, _ in self.reply}


class Wire:
    """ASGI middleware outside everything else: writes down each exchange when its reply begins."""

    def __init__(self, app: Any, log: list[Exchange]) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def tee(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
                reply = [(name.decode().lower(), value.decode("latin-1")) for name, value in message["headers"]]
                self.log.append(Exchange(scope["method"], scope["path"], headers, message["status"], reply))
            await send(message)

        await self.app(scope, receive, tee)


def application(fv: FastVerify, notes: list[str], bundle: bytes) -> FastAPI:
    """A page with the client on it, and an API with what sessions are for: reads and writes that need one."""
    app = FastAPI()

    @app.get("/")
    def page() -> Response:
        return Response(PAGE, media_type="text/html")

    @app.get("/client.js")
    def client() -> Response:
        return Response(bundle, media_type="text/javascript")

    @app.get("/public")
    def public() -> dict[str, str]:
        return {"hello": "anyone"}

    @app.post("/signin/{user}")
    async def sign_in(request: Request, user: str) -> dict[str, str]:
        await fv.sign_in(request, user, payload={"plan": "pro"})
        return {"welcome": user}

    @app.get("/me")
    async def me(session: Annotated[RequestSession, Depends(fv.session())]) -> dict[str, Any]:
        return {"user": session.user_id, "handle": session.handle, "plan": session.payload["plan"]}

    @app.post("/plan/{plan}")
    async def change_plan(session: Annotated[RequestSession, Depends(fv.session())], plan: str) -> dict[str, Any]:
        await session.merge_payload({"plan": plan})
        return {"plan": session.payload["plan"]}

    @app.get("/gold")
    async def gold(session: Annotated[RequestSession, Depends(fv.session(validators=[TIER.has_value("gold")]))]) -> str:
        return session.user_id

    @app.post("/promotion")
    async def promote(session: Annotated[RequestSession, Depends(fv.session())]) -> str:
        await session.set_claim(TIER, "gold")
        return session.user_id

    @app.post("/notes")
    async def write(session: Annotated[RequestSession, Depends(fv.session())]) -> dict[str, int]:
        notes.append(session.user_id)
        return {"notes": len(notes)}

    return app


class _Server(uvicorn.Server):
    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()  # Ctrl-C belongs to pytest


class Site:
    """The application on a port of its own; ``sessions`` is the manager that it works with."""

    sessions: AsyncSessions

    def __init__(self, store: str, prefix: str, bundle: bytes, *, website: str | None, cors: str | None) -> None:
        self.store, self.prefix, self.bundle, self.website, self.cors = store, prefix, bundle, website, cors
        self.log: list[Exchange] = []
        self.notes: list[str] = []
        self.port = 0
        self._running = contextlib.AsyncExitStack()

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

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
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = Config(
            api_domain=self.origin,
            website_domain=self.website or self.origin,
            secret=bytes(range(32)),
            key_prefix=self.prefix,
            **settings,
        )
        self.sessions = await self._running.enter_async_context(AsyncSessions.connect(self.store, config))
        fv = FastVerify(self.sessions)
        app = application(fv, self.notes, self.bundle)
        if self.cors == "before":
            self._allow_website(app)
        fv.install(app)
        if self.cors == "after":
            self._allow_website(app)
        server = _Server(
            uvicorn.Config(Wire(app, self.log), lifespan="off", ws="none", log_level="warning", access_log=False)
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))

        async def shut_down() -> None:
            server.should_exit = True
            await task

        self._running.push_async_callback(shut_down)

        async def is_up() -> bool:
            return server.started or task.done()

        await until(is_up, "the server to listen")

    async def stop(self) -> None:
        await self._running.aclose()

    async def restart(self, **settings: Any) -> None:
        await self.stop()
        await self.start(**settings)

    def _allow_website(self, app: FastAPI) -> None:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[self.website or self.origin],
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=cors_headers(),
        )


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 10) -> None:
    """Wait until ``await condition()`` is true; the test fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.02)
