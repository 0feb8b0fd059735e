"""The demo site: a page, and the small API that it calls. This is how sessions look in a Starlette application."""

from __future__ import annotations

import http.client
import json
import re
import time
from importlib.resources import files
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...adapters.asgi import CONTEXT, ASGIApp, RequestContext, RequestSession, SessionMiddleware
from ...errors import FastVerifyError
from ...manager import AsyncSessions
from ..app import health_routes
from ..gateway import PATH as VERIFY_PATH

_PAGE = {
    "/": ("index.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
}
_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_USER = re.compile(r"[A-Za-z0-9._-]{1,40}")
_PLANS = ("free", "pro", "team")
#: What a gateway shows the session service of a request.
_SHOWN = ("cookie", "authorization", "rid", "anti-csrf")
_GATEWAY_SECONDS = 5.0
_VERIFY_ROUNDS = 1000


def create_site(sessions: AsyncSessions, *, service: str) -> ASGIApp:
    """The site, on these sessions.

    Args:
        sessions: the site's own; the session service has others, on the same store.
        service: the session service's origin, which the site asks for its verdict as a gateway would.
    """
    site = _Site(sessions, urlsplit(service).netloc)
    routes = [
        *(Route(path, _file(name, kind)) for path, (name, kind) in _PAGE.items()),
        *health_routes(sessions),
        Route("/api/sign-in", site.sign_in, methods=["POST"]),
        Route("/api/me", site.me),
        Route("/api/plan", site.change_plan, methods=["POST"]),
        Route("/api/verdicts", site.verdicts),
        Route("/api/sessions", site.list_sessions),
        Route("/api/sessions/revoke-all", site.revoke_all, methods=["POST"]),
        Route("/api/sessions/{handle}/revoke", site.revoke, methods=["POST"]),
    ]
    middleware = [Middleware(cast(Any, SessionMiddleware), sessions, eager=False)]
    return cast(ASGIApp, Starlette(routes=routes, middleware=middleware))


class _Site:
    """The handlers. What they raise about sessions is answered by the middleware."""

    def __init__(self, sessions: AsyncSessions, service: str) -> None:
        self._sessions = sessions
        self._service = service

    async def sign_in(self, request: Request) -> Response:
        """Anybody may be anybody here. A real application checks a password first."""
        asked = await _json_object(request)
        user, plan = asked.get("user"), asked.get("plan", "free")
        if not isinstance(user, str) or not _USER.fullmatch(user) or plan not in _PLANS:
            return JSONResponse({"message": "a name of letters, digits, '.', '_' or '-', and a plan"}, 400)
        context = _context(request)
        transfer = context.transport.creation_method(context.incoming)
        device = {"name": f"{_browser(request.headers.get('user-agent', ''))}, tokens in {transfer}s"}
        await context.sign_in(user, payload={"plan": plan}, device=device)
        return JSONResponse({"user": user})

    async def me(self, request: Request) -> Response:
        """A protected route: the claims."""
        session = await _session(request)
        claims = session.claims.to_dict()
        front = {"uid": session.user_id, "ate": session.expires_at * 1000, "up": claims}
        return JSONResponse({"claims": claims, "front": front})

    async def verdicts(self, request: Request) -> Response:
        """What this process and the session service say of the session. Changes nothing, and clears nothing."""
        here = self._verdict_here(_context(request))
        shown = {name: request.headers[name] for name in _SHOWN if name in request.headers}
        there = await run_in_threadpool(self._verdict_there, {**shown, "x-forwarded-method": "GET"})
        return JSONResponse({"site": here, "service": there})

    def _verdict_here(self, context: RequestContext) -> dict[str, Any]:
        try:
            session, _ = context.identify()
        except FastVerifyError as error:
            return {"status": context.rules.reply(error).status, "message": error.code.replace("_", " ")}
        verify, token = self._sessions.verify, session.access_token
        began = time.perf_counter_ns()
        for _ in range(_VERIFY_ROUNDS):
            verify(token)
        nanoseconds = (time.perf_counter_ns() - began) // _VERIFY_ROUNDS
        return {"status": 200, "user": session.user_id, "nanoseconds": nanoseconds, "claims": session.claims.to_dict()}

    def _verdict_there(self, headers: dict[str, str]) -> dict[str, Any]:
        """Ask as a gateway does: show the tokens, read the status and who it is."""
        connection = http.client.HTTPConnection(self._service, timeout=_GATEWAY_SECONDS)
        began = time.perf_counter_ns()
        try:
            connection.request("GET", VERIFY_PATH, headers=headers)
            reply = connection.getresponse()
            message = json.load(reply).get("message")
        except OSError:
            return {"status": 502, "message": "the session service does not answer"}
        finally:
            connection.close()
        nanoseconds = time.perf_counter_ns() - began
        return {
            "status": reply.status,
            "user": reply.headers["x-user-id"],
            "nanoseconds": nanoseconds,
            "message": message,
        }

    async def change_plan(self, request: Request) -> Response:
        """Changes the payload: in the store, and in the access token of this very response."""
        plan = (await _json_object(request)).get("plan")
        if plan not in _PLANS:
            return JSONResponse({"message": f"a plan is one of {', '.join(_PLANS)}"}, 400)
        session = await _session(request)
        await session.merge_payload({"plan": plan})
        return JSONResponse({"plan": plan})

    async def list_sessions(self, request: Request) -> Response:
        """The user's sessions, newest first."""
        session = await _session(request)
        known = await self._sessions.list_sessions(session.user_id)
        rows = [
            {
                "handle": info.handle,
                "device": info.device.get("name", ""),
                "created_at": info.created_at,
                "last_seen_at": info.last_seen_at,
                "current": info.handle == session.handle,
            }
            for info in sorted(known, key=lambda info: info.created_at, reverse=True)
        ]
        return JSONResponse({"sessions": rows})

    async def revoke(self, request: Request) -> Response:
        """Ends one of the user's own sessions, which may be this one."""
        session = await _session(request)
        handle = request.path_params["handle"]
        if handle == session.handle:
            return JSONResponse({"revoked": await session.revoke()})
        if handle not in await self._sessions.handles(session.user_id):
            return JSONResponse({"message": "no session of yours"}, 404)
        return JSONResponse({"revoked": await self._sessions.revoke(handle)})

    async def revoke_all(self, request: Request) -> Response:
        """Ends all of the user's sessions, and clears this one's tokens."""
        session = await _session(request)
        others = await self._sessions.revoke_user(session.user_id, except_handle=session.handle)
        await session.revoke()
        return JSONResponse({"revoked": len(others) + 1})


def _file(name: str, kind: str) -> Any:
    content = (files(__package__) / name).read_bytes()

    async def serve(_request: Request) -> Response:
        return Response(content, media_type=kind, headers=_PAGE_HEADERS)

    return serve


def _context(request: Request) -> RequestContext:
    context: RequestContext = request.scope[CONTEXT]
    return context


async def _session(request: Request) -> RequestSession:
    session = await _context(request).session()
    assert session is not None  # it is required, so its absence was raised
    return session


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _browser(user_agent: str) -> str:
    """A name that people recognise in a list; the first that fits, for browsers name one another."""
    names = {"Firefox/": "Firefox", "Edg/": "Edge", "Chrome/": "Chrome", "Safari/": "Safari", "curl/": "curl"}
    systems = {"Android": "Android", "iPhone": "iPhone", "Mac OS": "macOS", "Windows": "Windows", "Linux": "Linux"}
    name = next((name for mark, name in names.items() if mark in user_agent), "a program")
    system = next((f" on {system}" for mark, system in systems.items() if mark in user_agent), "")
    return name + system
