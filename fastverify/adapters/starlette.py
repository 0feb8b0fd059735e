"""Sessions for Starlette.

::

    fv = FastVerify(sessions)
    fv.install(app)                         # before or after CORSMiddleware is added

    async def me(request):
        session = await fv.session_of(request)
        return JSONResponse({"user": session.user_id})

For ``request.user`` and ``@requires("authenticated")``, add ``AuthenticationMiddleware`` with a ``SessionBackend``.

Where things go: the session routes and the answers to our errors are inside the application, so that a CORS middleware
sees them wherever it was added; tokens are written outside everything, because a CORS middleware with
``expose_headers`` of its own replaces the list that ours have to be in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn, Unpack

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.requests import HTTPConnection, Request
from starlette.routing import Route

from ..errors import FastVerifyError, SessionError, StoreUnavailable, Unauthorised
from ..manager import AsyncSessions
from ..options import CreateOptions, GuestOptions, ImpersonateOptions
from ..session_claims import GeneralValidators, RouteValidators
from ..steps import run_async
from ..transport import cors_headers
from .asgi import (
    ROUTES,
    SESSION,
    Hooks,
    HttpSessions,
    RequestSession,
    SessionMiddleware,
    answer_app,
    context_of,
    reply_app,
    route_path,
)

__all__ = ["FastVerify", "RequestSession", "SessionBackend", "SessionUser", "cors_headers"]


class FastVerify:
    """Sessions for Starlette applications.

    Args:
        sessions: the AsyncSessions; closing them is the application's business.
        routes: those of ``refresh``, ``signout``, ``jwks``, ``discovery`` to serve.
        validators: of the claims of every session that is asked for; a list, or a function of the session.
        strict: ask the store whether it lives about every session that is asked for, unless the route says otherwise.
        hooks: ``on_unauthorised``, ``on_claim_validation_failed`` and the like (``asgi.Hooks``): called with the
            request and the error, they return the response. What has to be cleared has been cleared by then.

    Raises:
        ConfigError: cookie settings that no browser accepts, an unknown route or hook.
    """

    def __init__(
        self,
        sessions: AsyncSessions,
        *,
        routes: Iterable[str] = ROUTES,
        validators: GeneralValidators = (),
        strict: bool = False,
        **hooks: Unpack[Hooks],
    ) -> None:
        self._sessions = sessions
        self._validators = validators
        self._strict = strict
        self._hooks = hooks
        self._http = HttpSessions(sessions, AsyncSessions, routes, None, hooks)

    def install(self, app: Starlette) -> None:
        """Serve the session routes, answer our errors and write tokens.

        Raises:
            RuntimeError: the application is running already.
        """
        if app.middleware_stack is not None:
            raise RuntimeError("install before the application starts")
        for (method, path), name in self._http.routes.items():
            # First, so that a catch-all of the application does not swallow them.
            app.router.routes.insert(0, Route(path, self._endpoint(name), methods=[method], name=f"fastverify {name}"))
        for kind in (SessionError, StoreUnavailable):
            app.add_exception_handler(kind, self._answer)
        build = app.build_middleware_stack

        def build_with_tokens() -> Any:
            how: Any = {"routes": (), "eager": False, "validators": self._validators, "strict": self._strict}
            return SessionMiddleware(build(), self._sessions, **how, **self._hooks)

        # Middleware that is added later goes outside of what is added now; this stays outermost.
        setattr(app, "build_middleware_stack", build_with_tokens)  # noqa: B010

    async def session_of(
        self,
        request: HTTPConnection,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> RequestSession | None:
        """The session of a request, or of a WebSocket handshake; arguments and errors as ``RequestContext.session``."""
        context = context_of(request.scope)
        return await context.session(
            required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
        )

    async def sign_in(self, request: HTTPConnection, user_id: str, **create: Unpack[CreateOptions]) -> RequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Ends the request's former session, unless ``previous=None``. ``create`` and errors as for
        ``RequestContext.sign_in``.
        """
        return await context_of(request.scope).sign_in(user_id, **create)

    async def sign_in_guest(
        self, request: HTTPConnection, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]
    ) -> RequestSession:
        """Start an anonymous session; its tokens go to this request's response. ``sign_in`` promotes it later.

        ``options`` and errors as for ``RequestContext.sign_in_guest``.
        """
        return await context_of(request.scope).sign_in_guest(payload, **options)

    def device(self, request: HTTPConnection) -> dict[str, str]:
        """User agent and address of the request, as far as they are known: the ``device`` that ``sign_in`` keeps."""
        return context_of(request.scope).device()

    async def refresh(self, request: HTTPConnection) -> RequestSession:
        """What the refresh route does, for a route of your own at its path. Errors as ``RequestContext.refresh``."""
        return await context_of(request.scope).refresh()

    async def sign_out(self, request: HTTPConnection) -> None:
        """What the sign-out route does. Errors as ``RequestContext.sign_out``."""
        await context_of(request.scope).sign_out()

    async def impersonate(
        self, request: HTTPConnection, user_id: str, **options: Unpack[ImpersonateOptions]
    ) -> RequestSession:
        """Let the user of the request act as another one; ``options`` and errors as ``RequestContext.impersonate``."""
        return await context_of(request.scope).impersonate(user_id, **options)

    async def stop_impersonating(self, request: HTTPConnection) -> RequestSession:
        """Return to the session of who acts as another user. Errors as ``RequestContext.stop_impersonating``."""
        return await context_of(request.scope).stop_impersonating()

    def _endpoint(self, name: str) -> Callable[[Request], Awaitable[Any]]:
        async def endpoint(request: Request) -> Any:
            return reply_app(await run_async(self._http.serve(name, context_of(request.scope))))

        return endpoint

    async def _answer(self, connection: Any, error: Any) -> Any:
        return await answer_app(self._http, connection, context_of(connection.scope), error)


class SessionBackend(AuthenticationBackend):
    """For Starlette's ``AuthenticationMiddleware``: ``request.user``, ``request.auth`` and ``requires``.

    A request without a session's token is an anonymous one. A token that came and does not serve is told as soon as
    somebody asks for the user or the scopes, with the answer that makes the client refresh; until then it is no
    obstacle, above all not to the refresh itself.

    Args:
        scopes: the payload's member that lists scopes, to be granted beside ``authenticated``, or ``guest`` for an
            anonymous session.
    """

    def __init__(self, scopes: str | None = None) -> None:
        self._scopes = scopes

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """The credentials and the user of a request; None: an anonymous one."""
        context = context_of(conn.scope)
        if (conn.scope.get("method"), route_path(conn.scope)) in context.transport.routes.values():
            context.look()  # validators, and what they fetch, must not be in the way of a refresh or a sign-out
        else:
            await run_async(context.look_steps())
        session: RequestSession | None = conn.scope[SESSION]
        if session is not None:
            scopes = ["guest" if session.is_guest else "authenticated", *self._scopes_in(session.payload)]
            return AuthCredentials(scopes), SessionUser(session)
        match context.error:
            case None | Unauthorised(clear_tokens=False):
                return None
            case error:
                return _NoCredentials(context, error), _NoUser(context, error)

    def _scopes_in(self, payload: Mapping[str, Any]) -> list[str]:
        found = payload.get(self._scopes) if self._scopes is not None else None
        if isinstance(found, Mapping):  # a session claim
            found = found.get("v")
        return [scope for scope in found if isinstance(scope, str)] if isinstance(found, list | tuple) else []


class SessionUser(BaseUser):
    """The user of a session; ``session`` is the session."""

    def __init__(self, session: RequestSession) -> None:
        self.session = session

    @property
    def is_authenticated(self) -> bool:
        """True but for a guest."""
        return not self.session.is_guest

    @property
    def identity(self) -> str:
        """The user id."""
        return self.session.user_id

    @property
    def display_name(self) -> str:
        """The user id; nothing else is known of a user here."""
        return self.session.user_id


class _Refused:
    """In the place of what a token that does not serve would have shown."""

    def __init__(self, context: Any, error: FastVerifyError) -> None:
        self._context = context
        self._error = error

    def _refuse(self) -> NoReturn:
        self._context.failed(self._error)  # before anybody can handle it
        raise self._error


class _NoCredentials(_Refused, AuthCredentials):
    @property
    def scopes(self) -> Any:  # type: ignore[override]  # an attribute, there
        self._refuse()


class _NoUser(_Refused, BaseUser):
    @property
    def is_authenticated(self) -> bool:
        self._refuse()

    @property
    def identity(self) -> str:
        self._refuse()

    @property
    def display_name(self) -> str:
        self._refuse()
