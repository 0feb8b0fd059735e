"""Sessions for any ASGI application, with no framework.

::

    app = SessionMiddleware(app, sessions)          # AsyncSessions: routes, tokens, errors
    app = SessionMiddleware(app, session_verifier)  # SessionVerifier: a gateway that only verifies

The session of a request is in ``scope["fastverify.session"]``, or None; ``require_session(scope)`` returns it or
raises what the client has to be told, and the middleware makes the response of what is raised. Sign users in with
``await context_of(scope).sign_in(user_id)``. Put the middleware inside a CORS middleware, so that its responses get
CORS headers too (the FastAPI adapter sees to that by itself).

All that a request has queued is in its own scope; nothing is shared between requests, and nothing is module state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Unpack

from .._core import Sending
from ..errors import FastVerifyError, SessionError, StoreUnavailable
from ..manager import AsyncSessions
from ..session_claims import GeneralValidators
from ..steps import run_async
from ..transport import Reply, Rules
from ..verifier import SessionVerifier
from .http import ROUTES, Hooks, HttpSessions
from .request import CONTEXT, SESSION, GatewayContext, RequestContext, require_session
from .request_session import RequestSession

__all__ = [
    "CONTEXT",
    "ROUTES",
    "SESSION",
    "ASGIApp",
    "Hooks",
    "HttpSessions",
    "Message",
    "Receive",
    "RequestContext",
    "RequestSession",
    "Scope",
    "Send",
    "SessionMiddleware",
    "answer_app",
    "context_of",
    "reply_app",
    "require_session",
    "route_path",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class SessionMiddleware:
    """ASGI middleware: finds the session of each request, serves the session routes, writes tokens, answers our errors.

    Args:
        app: the application.
        sessions: AsyncSessions; or a SessionVerifier, to verify only.
        routes: those of ``ROUTES`` to serve; the others fall through to the application.
        rules: with a SessionVerifier: how sessions arrive. AsyncSessions knows it from its configuration.
        eager: verify at once, for ``scope["fastverify.session"]``. False: only when the application asks.
        validators: of the claims of every session that is asked for; a list, or a function of the session. With
            ``eager`` they are asked at once, and ``require_session`` raises what they say.
        strict: ask the store whether it lives about every session that is asked for, unless the route says otherwise.
        hooks: see ``Hooks``; a response is an ASGI application here, such as a Starlette response.

    Raises:
        ConfigError: as ``HttpSessions``.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: AsyncSessions | SessionVerifier,
        *,
        routes: Iterable[str] = ROUTES,
        rules: Rules | None = None,
        eager: bool = True,
        validators: GeneralValidators = (),
        strict: bool = False,
        **hooks: Unpack[Hooks],
    ) -> None:
        self.app = app
        self._eager = eager
        self._http = HttpSessions(sessions, AsyncSessions, routes, rules, hooks, validators, strict)
        self._note_seen = sessions.note_seen
        self._find = self._http.find if eager and isinstance(sessions, SessionVerifier) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        find = self._find
        if find is None or scope["type"] != "http" or (found := find(scope["headers"], scope["method"])) is None:
            await self._with_context(scope, receive, send)
            return
        # What a gateway does for nearly every request: it needs no context, for nothing can be queued.
        self._note_seen(found[0])
        scope[SESSION] = found[0]
        sending = Sending(send)
        try:
            await self.app(scope, receive, sending)
        except (SessionError, StoreUnavailable) as error:
            if sending.started:
                raise
            context = self._http.open(scope["headers"], scope["method"], scope)
            response = await answer_app(self._http, scope, context, error)
            await response(scope, receive, send)

    async def _with_context(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        is_socket = scope["type"] == "websocket"
        context = self._http.open(scope["headers"], "GET" if is_socket else scope["method"], scope, is_socket)

        # Called twice a request, so it is no coroutine of its own.
        def send_with_tokens(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                context.started = True
                if context.has_queued:
                    message = {**message, "headers": context.write(message.get("headers", ()))}
            return send(message)

        try:
            if isinstance(context, RequestContext) and not is_socket:
                route = self._http.routes.get((scope["method"], route_path(scope)))
                if route is not None:
                    reply = await run_async(self._http.serve(route, context))
                    await reply_app(reply)(scope, receive, send_with_tokens)
                    return
            if self._eager:
                await run_async(context.look_steps()) if self._http.looks_further else context.look()
            await self.app(scope, receive, send_with_tokens)
        except (SessionError, StoreUnavailable) as error:
            if context.started and not is_socket:
                raise
            response = await answer_app(self._http, scope, context, error)
            await response(scope, receive, send_with_tokens)
        finally:
            context.close()


def context_of(scope: Scope) -> RequestContext:
    """The request's dealings with sessions: sign-in, refresh and sign-out by hand.

    Raises:
        RuntimeError: there is no middleware around the application, or one that only verifies.
    """
    context = scope.get(CONTEXT)
    if not isinstance(context, RequestContext):
        raise RuntimeError("no session middleware with AsyncSessions is around this application")
    return context


async def answer_app(http: HttpSessions, request: Any, context: GatewayContext, error: FastVerifyError) -> ASGIApp:
    """The answer to an error as an ASGI application, which also refuses a WebSocket."""
    response = await run_async(http.respond(request, context, error))
    if isinstance(response, Reply):
        response = reply_app(response)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (
            context.started or "websocket.http.response" not in scope.get("extensions", {})
        ):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await response(scope, receive, send)

    return answer


def reply_app(reply: Reply) -> ASGIApp:
    """A response as an ASGI application; also a WebSocket denial response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = "websocket.http" if scope["type"] == "websocket" else "http"
        await send({"type": f"{prefix}.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": f"{prefix}.response.body", "body": reply.body})

    return app


def route_path(scope: Scope) -> str:
    """The path below the place where the application is mounted (``root_path``)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path
