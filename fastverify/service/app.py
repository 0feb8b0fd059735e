"""The session service: the session routes, the gateway endpoint and its health, as one ASGI application."""

from __future__ import annotations

from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ..adapters.asgi import ASGIApp, SessionMiddleware
from ..manager import AsyncSessions
from ..transport import Transport
from .gateway import VerifyEndpoint


def create_app(sessions: AsyncSessions) -> ASGIApp:
    """The service on these sessions; opening and closing them is the caller's business.

    Raises:
        ConfigError: cookie settings that no browser accepts.
    """
    routes = health_routes(sessions)
    starlette = Starlette(routes=routes, middleware=[Middleware(cast(Any, SessionMiddleware), sessions, eager=False)])
    return VerifyEndpoint(cast(ASGIApp, starlette), sessions, Transport(sessions.config))


def health_routes(sessions: AsyncSessions) -> list[Route]:
    """``/health/live``: the process answers. ``/health/ready``: it can also verify, with keys and revocations fresh."""

    async def live(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_request: Request) -> JSONResponse:
        if sessions.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503, headers={"retry-after": "1"})

    return [Route("/health/live", live), Route("/health/ready", ready)]
