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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack, cast

from .._core import Claims
from ..config import TransferMethod
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
from ..manager import AsyncSessions, CreateOptions
from ..session import Session
from ..transport import Incoming, Outgoing, Reply, Rules, Transport, json_reply, public_reply
from ..verifier import SessionVerifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Gets the request (here its scope, in a framework its request object) and the error; returns the response, as an ASGI
#: application such as a Starlette response, or an awaitable of one. Tokens have been cleared by then.
Hook = Callable[[Any, Any], Any]

#: The routes that the middleware can serve.
ROUTES = ("refresh", "signout", "jwks", "discovery")
SESSION = "fastverify.session"
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


class GatewayContext:
    """One request that is only verified."""

    __slots__ = ("_scope", "_verifier", "error", "incoming", "rules", "started")

    def __init__(self, verifier: SessionVerifier | AsyncSessions, rules: Rules, scope: Scope) -> None:
        self._verifier = verifier
        self._scope = scope
        self.rules = rules
        self.incoming = Incoming(scope["headers"])
        #: Why there is no session, where it was looked for.
        self.error: FastVerifyError | None = None
        #: Whether the response has begun, so that nothing more can be put on it.
        self.started = False

    def identify(self, check_anti_csrf: bool | None = None) -> tuple[Session, TransferMethod]:
        """The verified session of this request, and what carried it.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``verify`` does; ``clear_tokens`` is False if none came.
        """
        is_socket = self._scope["type"] == "websocket"
        http_method = "GET" if is_socket else self._scope["method"]
        for token, transfer in self.rules.access_tokens(self.incoming, http_method):
            try:
                session = self._verifier.verify(token)
            except Unauthorised as error:
                if error.clear_tokens:
                    raise
                continue  # not a session's token; the next may be
            if is_socket:
                self.rules.admit_socket(self.incoming, transfer)
            self.rules.check_anti_csrf(self.incoming, session, transfer, http_method, check_anti_csrf)
            return session, transfer
        raise Unauthorised("no session token came with the request", clear_tokens=False)

    def look(self) -> Any:
        """The session, or None; ``error`` then says why."""
        try:
            return self.identify()[0]
        except (SessionError, StoreUnavailable) as error:
            self.error = error
            return None

    def failed(self, error: FastVerifyError) -> None:
        """Clear what an error clears: nothing here, for a gateway does not know where the cookies live."""

    def write(self, message: Message) -> Message:
        """The message that starts the response, with what this request has queued in its headers."""
        return message


class RequestContext(GatewayContext):
    """One request's dealings with sessions, and what its response will carry of them."""

    __slots__ = ("_current", "_outgoing", "sessions", "transport")

    def __init__(self, sessions: AsyncSessions, transport: Transport, scope: Scope) -> None:
        super().__init__(sessions, transport, scope)
        self.sessions = sessions
        self.transport = transport
        self._outgoing: Outgoing | None = None
        self._current: RequestSession | None = None

    @property
    def outgoing(self) -> Outgoing:
        """What the response will carry; most requests change nothing and never make one."""
        if self._outgoing is None:
            self._outgoing = Outgoing(self.transport, self.incoming)
        return self._outgoing

    def look(self) -> RequestSession | None:
        try:
            return self._register(*self.identify())
        except (SessionError, StoreUnavailable) as error:
            self.error = error
            return None

    async def session(
        self, *, required: bool = True, check_anti_csrf: bool | None = None, strict: bool = False
    ) -> RequestSession | None:
        """The session of this request.

        Args:
            required: False: None where no session's token came. One that has expired, or lacks its proof against CSRF,
                still raises.
            check_anti_csrf: None: for every method but GET.
            strict: also ask the store whether the session lives.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: what the client is to be told.
        """
        with self._clearing():
            try:
                session, transfer = self.identify(check_anti_csrf)
                if strict:
                    session = await self.sessions.verify_strict(session.access_token)
                return self._register(session, transfer)
            except Unauthorised as error:
                if required or error.clear_tokens:
                    raise
                return None

    async def sign_in(self, user_id: str, **create: Unpack[CreateOptions]) -> RequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Args:
            user_id: the user.
            create: as for ``AsyncSessions.create``. Unless given, ``previous`` is the request's former session, and
                ``anti_csrf`` what the configuration says.

        Raises:
            StoreUnavailable: nobody has been signed in.
            ConfigError: the payload is too large for a cookie, or browsers would refuse the cookies.
        """
        self._check_open()
        transfer = self.transport.creation_method(self.incoming)
        create.setdefault("anti_csrf", self.transport.binds_anti_csrf(transfer))
        if "previous" not in create:
            create["previous"] = self._former_handle()
        issued = await self.sessions.create(user_id, **create)
        try:
            self.outgoing.created(issued, transfer)
        except ConfigError:
            await self.sessions.revoke(issued.session.handle)
            raise
        return self._register(issued.session, transfer)

    async def refresh(self) -> RequestSession:
        """Exchange the refresh token of this request; the new tokens go as it came.

        Raises:
            Unauthorised, DuplicateCookies, TokenTheftDetected, TooManyRefreshes, StoreUnavailable: as ``refresh`` does.
            ConfigError: the payload has grown too large for a cookie.
        """
        self._check_open()
        with self._clearing():
            token, transfer = self._refresh_token()
            issued = await self.sessions.refresh(token, anti_csrf_token=self.incoming.get(b"anti-csrf"))
        self.outgoing.refreshed(issued, transfer)
        return self._register(issued.session, transfer)

    async def sign_out(self) -> None:
        """End the session of this request.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``session`` does.
        """
        with self._clearing():
            session, transfer = self.identify()
            if transfer == "cookie":
                self.transport.refuse_cross_site(self.incoming)
        await self._register(session, transfer).revoke()

    def failed(self, error: FastVerifyError) -> None:
        self.outgoing.failed(error)

    def write(self, message: Message) -> Message:
        if self._outgoing is None:
            return message
        return {**message, "headers": self._outgoing.write(message.get("headers", ()))}

    def _refresh_token(self) -> tuple[str, TransferMethod]:
        presented = self.transport.refresh_tokens(self.incoming)
        token, transfer = presented[0]
        if len(presented) > 1:
            token = self.sessions.newest_refresh_token([token for token, _ in presented])
        return token, transfer

    def _former_handle(self) -> str | None:
        """The handle of the session that a sign-in replaces; a token that does not verify says nothing."""
        if self._current is not None:
            return self._current.handle
        try:
            return self.identify(check_anti_csrf=False)[0].handle
        except (SessionError, StoreUnavailable):
            return None

    def _register(self, session: Session, transfer: TransferMethod) -> RequestSession:
        self._current = self._scope[SESSION] = RequestSession(self, session, transfer)
        return self._current

    def _check_open(self) -> None:
        if self.started:
            raise RuntimeError("the response has begun: new tokens cannot reach the client any more")

    @contextmanager
    def _clearing(self) -> Iterator[None]:
        """Clearing is queued before anybody can handle the error, so that no handler can forget it."""
        try:
            yield
        except SessionError as error:
            self.failed(error)
            raise


class RequestSession:
    """The session of one request: what it changes goes to the store and to this request's response."""

    __slots__ = ("_context", "_transfer", "session")

    def __init__(self, context: RequestContext, session: Session, transfer: TransferMethod) -> None:
        self._context = context
        self._transfer: TransferMethod = transfer
        #: The immutable value behind this; another one after ``merge_payload``.
        self.session = session

    @property
    def handle(self) -> str:
        """Stable id of the session."""
        return self.session.handle

    @property
    def user_id(self) -> str:
        """The user."""
        return self.session.user_id

    @property
    def login_id(self) -> str:
        """The login method's id of the user."""
        return self.session.login_id

    @property
    def tenant(self) -> str:
        """The tenant; ``public`` by default."""
        return self.session.tenant

    @property
    def payload(self) -> Mapping[str, Any]:
        """The application's claims."""
        return self.session.payload

    @property
    def access_token(self) -> str:
        """The access token, a secret."""
        return self.session.access_token

    @property
    def expires_at(self) -> int:
        """When the access token expires; seconds since the epoch."""
        return self.session.expires_at

    @property
    def issued_at(self) -> int:
        """When the access token was issued; seconds since the epoch."""
        return self.session.issued_at

    @property
    def claims(self) -> Claims:
        """The whole verified claims set."""
        return self.session.claims

    async def merge_payload(self, patch: Mapping[str, Any]) -> None:
        """Merge into the payload; None deletes a member. The new access token goes to this request's response.

        Raises:
            Unauthorised: the session has ended.
            StoreUnavailable: it is not known whether anything has changed.
            ValueError: the payload is not JSON or grows too large. Nothing has changed then.
        """
        context, former = self._context, self.session
        with context._clearing():
            issued = await context.sessions.reissue(former, patch)
        if issued is None:  # the access token has just expired; the client will refresh, and see the change
            return
        self.session = issued.session
        if context.started:
            return
        try:
            context.outgoing.reissued(issued, self._transfer)
        except ConfigError:
            self.session = former
            await context.sessions.merge_payload(self.handle, {name: former.payload.get(name) for name in patch})
            raise

    async def revoke(self) -> bool:
        """End the session, and clear its tokens in this request's response; whether it was still there."""
        was_there = await self._context.sessions.revoke(self.handle)
        self._context.outgoing.clear(self._transfer)
        return was_there

    async def get_data(self) -> Any:
        """The data kept on the server. Raises Unauthorised if the session has ended."""
        with self._context._clearing():
            info = await self._context.sessions.info(self.handle)
            if info is None:
                raise Unauthorised("the session has ended")
        return info.data

    async def set_data(self, data: Any) -> None:
        """Replace the data kept on the server. Raises Unauthorised if the session has ended."""
        with self._context._clearing():
            if not await self._context.sessions.set_data(self.handle, data):
                raise Unauthorised("the session has ended")

    def __repr__(self) -> str:
        return f"<RequestSession of {self.session!r}>"


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
