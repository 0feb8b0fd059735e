"""Sessions for FastAPI.

::

    fv = FastVerify(sessions)
    fv.install(app)                         # before or after CORSMiddleware is added

    @app.get("/me")
    async def me(session: Annotated[RequestSession, Depends(fv.session())]): ...

Where things go: the session routes and the answers to our errors are inside the application, so that a CORS middleware
sees them wherever it was added; tokens are written outside everything, because a CORS middleware with
``expose_headers`` of its own replaces the list that ours have to be in.
"""

# No postponed annotations: FastAPI reads those of the dependencies, which name local variables.

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, Unpack

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.routing import Route

from ..errors import SessionError, StoreUnavailable
from ..manager import AsyncSessions, CreateOptions
from ..session_claims import GeneralValidators, RouteValidators
from ..steps import run_async
from ..transport import cors_headers
from .asgi import (
    ROUTES,
    Hooks,
    HttpSessions,
    RequestSession,
    SessionMiddleware,
    answer_app,
    context_of,
    reply_app,
)

__all__ = ["FastVerify", "RequestSession", "cors_headers"]


class FastVerify:
    """Sessions for one FastAPI application.

    Args:
        sessions: the AsyncSessions; closing them is the application's business.
        routes: those of ``refresh``, ``signout``, ``jwks``, ``discovery`` to serve.
        validators: of the claims of every session that ``session()`` asks for; a list, or a function of the session.
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
        **hooks: Unpack[Hooks],
    ) -> None:
        self._sessions = sessions
        self._validators = validators
        self._hooks = hooks
        self._http = HttpSessions(sessions, AsyncSessions, routes, None, hooks)

    def install(self, app: FastAPI) -> None:
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
            return SessionMiddleware(
                build(), self._sessions, routes=(), eager=False, validators=self._validators, **self._hooks
            )

        # Middleware that is added later goes outside of what is added now; this stays outermost.
        setattr(app, "build_middleware_stack", build_with_tokens)  # noqa: B010

    def session(
        self,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool = False,
        validators: RouteValidators | None = None,
    ) -> Callable[..., Awaitable[RequestSession | None]]:
        """A dependency: the session of the request, or of a WebSocket handshake.

        Args:
            required: False: None where no session's token came.
            check_anti_csrf: whether a cookie needs its proof against CSRF; None: for every method but GET.
            strict: also ask the store whether the session lives.
            validators: of its claims: a list in the place of the application's, or a function of these and the session
                that returns one.
        """

        # Named at run time: the cookie's name is configured.
        cookie_scheme = _Declared("fastverifyCookie", _cookie_model(self._sessions.config.access_cookie_name))

        async def session(
            connection: HTTPConnection,
            _bearer: Annotated[None, Depends(_BEARER)],
            _cookie: Annotated[None, Depends(cookie_scheme)],
        ) -> RequestSession | None:
            context = context_of(connection.scope)
            return await context.session(
                required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
            )

        return session

    async def sign_in(self, request: HTTPConnection, user_id: str, **create: Unpack[CreateOptions]) -> RequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Ends the request's former session, unless ``previous=None``. ``create`` and errors as for
        ``RequestContext.sign_in``.
        """
        return await context_of(request.scope).sign_in(user_id, **create)

    async def refresh(self, request: HTTPConnection) -> RequestSession:
        """What the refresh route does, for a route of your own at its path. Errors as ``RequestContext.refresh``."""
        return await context_of(request.scope).refresh()

    async def sign_out(self, request: HTTPConnection) -> None:
        """What the sign-out route does. Errors as ``RequestContext.sign_out``."""
        await context_of(request.scope).sign_out()

    def _endpoint(self, name: str) -> Callable[[Request], Awaitable[Any]]:
        async def endpoint(request: Request) -> Any:
            return reply_app(await run_async(self._http.serve(name, context_of(request.scope))))

        return endpoint

    async def _answer(self, connection: Any, error: Any) -> Any:
        return await answer_app(self._http, connection, context_of(connection.scope), error)


class _Declared(SecurityBase):
    """A security scheme that is only declared, for OpenAPI; tokens are read and refused elsewhere."""

    def __init__(self, name: str, model: Scheme) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


_BEARER = _Declared("fastverifyHeader", HTTPBearer(bearerFormat="JWT"))


def _cookie_model(name: str) -> Scheme:
    return APIKey.model_validate({"in": APIKeyIn.cookie, "name": name})
