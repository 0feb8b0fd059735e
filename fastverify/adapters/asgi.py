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

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypedDict, Unpack, cast

from ..errors import (
    ClaimValidationFailed,
    ConfigError,
    DuplicateCookies,
    FastVerifyError,
    SessionError,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from ..manager import AsyncSessions
from ..transport import Reply, Rules, Transport, json_reply, public_reply
from ..verifier import SessionVerifier
from .request import SESSION, GatewayContext, Message, RequestContext, RequestSession, Scope

__all__ = [
    "CONTEXT",
    "ROUTES",
    "SESSION",
    "ASGIApp",
    "GatewayContext",
    "Hook",
    "Hooks",
    "HttpSessions",
    "Message",
    "Receive",
    "RequestContext",
    "RequestSession",
    "Scope",
    "Send",
    "SessionMiddleware",
    "context_of",
    "reply_app",
    "require_session",
    "route_path",
]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Gets the request (here its scope, in a framework its request object) and the error; returns the response, as an ASGI
#: application such as a Starlette response, or an awaitable of one. Tokens have been cleared by then.
Hook = Callable[[Any, Any], Any]

#: The routes that the middleware can serve.
ROUTES = ("refresh", "signout", "jwks", "discovery")
CONTEXT = "fastverify"

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class Hooks(TypedDict, total=False):
    """Responses of your own in the place of ours; statuses must stay those that the client is configured for."""

    on_unauthorised: Hook
    on_try_refresh_token: Hook
    on_token_theft_detected: Hook
    on_claim_validation_failed: Hook
    on_too_many_refreshes: Hook
    on_store_unavailable: Hook


_HOOKED: dict[str, tuple[type[FastVerifyError], ...]] = {
    "on_unauthorised": (Unauthorised, DuplicateCookies),
    "on_try_refresh_token": (TryRefreshToken,),
    "on_token_theft_detected": (TokenTheftDetected,),
    "on_claim_validation_failed": (ClaimValidationFailed,),
    "on_too_many_refreshes": (TooManyRefreshes,),
    "on_store_unavailable": (StoreUnavailable,),
}


class HttpSessions:
    """What all requests of one application share; immutable.

    Raises:
        ConfigError: cookie settings that no browser accepts, an unknown route or hook.
    """

    def __init__(
        self, sessions: AsyncSessions | SessionVerifier, routes: Iterable[str], rules: Rules | None, hooks: Hooks
    ) -> None:
        if not isinstance(sessions, AsyncSessions | SessionVerifier):
            raise TypeError("sessions must be AsyncSessions, or a SessionVerifier to verify only")
        self.sessions = sessions
        self.rules = Transport(sessions.config) if isinstance(sessions, AsyncSessions) else rules or Rules()
        #: (method, path) -> name of the route.
        self.routes: dict[tuple[str, str], str] = {}
        if isinstance(self.rules, Transport):
            for name in routes:
                if name not in ROUTES:
                    raise ConfigError("routes", f"{name!r} is none of {', '.join(ROUTES)}")
                self.routes[self.rules.routes[name]] = name
        self._hooks: dict[type[FastVerifyError], Hook] = {}
        for name, hook in cast(dict[str, Hook], hooks).items():
            if name not in _HOOKED:
                raise ConfigError(name, f"is no hook; there are {', '.join(_HOOKED)}")
            self._hooks |= {error: hook for error in _HOOKED[name]}

    def open(self, scope: Scope) -> GatewayContext:
        """Begin a request."""
        if isinstance(self.sessions, AsyncSessions) and isinstance(self.rules, Transport):
            context: GatewayContext = RequestContext(self.sessions, self.rules, scope)
        else:
            context = GatewayContext(self.sessions, self.rules, scope)
        scope[CONTEXT] = context
        return context

    async def serve(self, route: str, context: RequestContext) -> Reply:
        """Answer one of our own routes."""
        match route:
            case "refresh":
                await context.refresh()
                return json_reply(200, {})
            case "signout":
                await context.sign_out()
                return json_reply(200, {"status": "OK"})
            case "jwks":
                jwks = await context.sessions.jwks()
                return public_reply(jwks, context.sessions.jwks_max_age())
            case _:
                document = await context.sessions.openid_configuration()
                return public_reply(document, context.sessions.jwks_max_age())

    async def respond(self, request: Any, context: GatewayContext, error: FastVerifyError) -> ASGIApp:
        """The response to an error, as an ASGI application."""
        context.failed(error)
        hook = next((self._hooks[kind] for kind in type(error).__mro__ if kind in self._hooks), None)
        if hook is None:
            response = reply_app(self.rules.reply(error))
        else:
            response = hook(request, error)
            if inspect.isawaitable(response):
                response = await response

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and (
                context.started or "websocket.http.response" not in scope.get("extensions", {})
            ):
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            else:
                await response(scope, receive, send)

        return answer


class SessionMiddleware:
    """ASGI middleware: finds the session of each request, serves the session routes, writes tokens, answers our errors.

    Args:
        app: the application.
        sessions: AsyncSessions; or a SessionVerifier, to verify only.
        routes: those of ``ROUTES`` to serve; the others fall through to the application.
        rules: with a SessionVerifier: how sessions arrive. AsyncSessions knows it from its configuration.
        eager: verify at once, for ``scope["fastverify.session"]``. False: only when the application asks.
        hooks: see ``Hooks``.

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
        **hooks: Unpack[Hooks],
    ) -> None:
        self.app = app
        self._eager = eager
        self._http = HttpSessions(sessions, routes, rules, hooks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        context = self._http.open(scope)

        async def send_with_tokens(message: Message) -> None:
            if message["type"] in _STARTS:
                context.started = True
                message = context.write(message)
            await send(message)

        route = self._http.routes.get((scope["method"], route_path(scope))) if scope["type"] == "http" else None
        try:
            if route is not None and isinstance(context, RequestContext):
                await reply_app(await self._http.serve(route, context))(scope, receive, send_with_tokens)
                return
            if self._eager:
                scope[SESSION] = context.look()
            await self.app(scope, receive, send_with_tokens)
        except (SessionError, StoreUnavailable) as error:
            if context.started and scope["type"] == "http":
                raise
            response = await self._http.respond(scope, context, error)
            await response(scope, receive, send_with_tokens)


def require_session(scope: Scope) -> Any:
    """The session that an eager ``SessionMiddleware`` has found: a RequestSession, or a Session in a gateway.

    Raises:
        Unauthorised, TryRefreshToken, StoreUnavailable: why there is none; leave it to the middleware to answer.
    """
    session = scope[SESSION]
    if session is None:
        raise scope[CONTEXT].error
    return session


def context_of(scope: Scope) -> RequestContext:
    """The request's dealings with sessions: sign-in, refresh and sign-out by hand.

    Raises:
        RuntimeError: there is no middleware around the application, or one that only verifies.
    """
    context = scope.get(CONTEXT)
    if not isinstance(context, RequestContext):
        raise RuntimeError("no session middleware with AsyncSessions is around this application")
    return context


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
