"""Sessions for Flask.

::

    fv = FastVerify(sessions)
    fv.init_app(app)                        # before or after Flask-CORS

    @app.get("/me")
    @session_required()
    def me():
        return {"user": current_session.user_id}

Where things go: the session routes and the answers to our errors are inside the application, so that ``after_request``
functions such as Flask-CORS's see them; tokens are written outside everything, because Flask-CORS replaces the list of
exposed headers that ours have to be in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Unpack, cast

from flask import Flask, Response, current_app, has_request_context, request
from werkzeug.local import LocalProxy

from ..errors import SessionError, StoreUnavailable
from ..manager import Sessions
from ..options import CreateOptions, GuestOptions, ImpersonateOptions
from ..session_claims import GeneralValidators, RouteValidators
from ..steps import run
from ..transport import Reply, as_text, cors_headers
from .http import OTHER_ISSUER, ROUTES, Hooks, HttpSessions
from .wsgi import SessionMiddleware, SyncRequestContext, SyncRequestSession, context_of

__all__ = ["FastVerify", "SyncRequestSession", "cors_headers", "current_session", "session_required"]

#: ``app.extensions[EXTENSION]`` is the FastVerify of an application.
EXTENSION = "fastverify"


class FastVerify:
    """Sessions for Flask applications.

    Args:
        sessions: the Sessions; closing them is the application's business.
        app: an application to install in at once; others by ``init_app``.
        routes: those of ``refresh``, ``signout``, ``jwks``, ``discovery`` to serve.
        validators: of the claims of every session that a view asks for; a list, or a function of the session.
        strict: ask the store whether it lives about every session that a view asks for, unless the view says otherwise.
        hooks: ``on_unauthorised``, ``on_claim_validation_failed`` and the like (``http.Hooks``): called with the
            request and the error, they return what a view may. What has to be cleared has been cleared by then.

    Raises:
        ConfigError: cookie settings that no browser accepts, an unknown route or hook.
    """

    def __init__(
        self,
        sessions: Sessions,
        app: Flask | None = None,
        *,
        routes: Iterable[str] = ROUTES,
        validators: GeneralValidators = (),
        strict: bool = False,
        **hooks: Unpack[Hooks],
    ) -> None:
        self._sessions = sessions
        self._validators = validators
        self._strict = strict
        self._ask_other_issuer: Any = {OTHER_ISSUER: hooks[OTHER_ISSUER]} if OTHER_ISSUER in hooks else {}
        self._http = HttpSessions(sessions, Sessions, routes, None, hooks)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve the session routes, answer our errors and write tokens."""
        app.extensions[EXTENSION] = self
        for (method, path), name in self._http.routes.items():
            app.add_url_rule(path, f"fastverify_{name}", self._endpoint(name), methods=[method])
        for kind in (SessionError, StoreUnavailable):
            app.register_error_handler(kind, self._answer)
        middleware = SessionMiddleware(
            app.wsgi_app,
            self._sessions,
            routes=(),
            eager=False,
            validators=self._validators,
            strict=self._strict,
            **self._ask_other_issuer,
        )
        app.wsgi_app = middleware  # type: ignore[method-assign]

    def session(
        self,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> SyncRequestSession | None:
        """The session of the current request; arguments and errors as ``RequestContext.session``."""
        return _context().session(
            required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
        )

    def sign_in(self, user_id: str, **create: Unpack[CreateOptions]) -> SyncRequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to the current request's response.

        Ends the request's former session, unless ``previous=None``. ``create`` and errors as for
        ``RequestContext.sign_in``.
        """
        return _context().sign_in(user_id, **create)

    def sign_in_guest(
        self, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]
    ) -> SyncRequestSession:
        """Start an anonymous session; its tokens go to the current request's response. ``sign_in`` promotes it later.

        ``options`` and errors as for ``RequestContext.sign_in_guest``.
        """
        return _context().sign_in_guest(payload, **options)

    def device(self) -> dict[str, str]:
        """User agent and address of the request, as far as they are known: the ``device`` that ``sign_in`` keeps."""
        return _context().device()

    def refresh(self) -> SyncRequestSession:
        """What the refresh route does, for a route of your own at its path. Errors as ``RequestContext.refresh``."""
        return _context().refresh()

    def sign_out(self) -> None:
        """What the sign-out route does. Errors as ``RequestContext.sign_out``."""
        _context().sign_out()

    def impersonate(self, user_id: str, **options: Unpack[ImpersonateOptions]) -> SyncRequestSession:
        """Let the user of the request act as another one; ``options`` and errors as ``RequestContext.impersonate``."""
        return _context().impersonate(user_id, **options)

    def stop_impersonating(self) -> SyncRequestSession:
        """Return to the session of who acts as another user. Errors as ``RequestContext.stop_impersonating``."""
        return _context().stop_impersonating()

    def _endpoint(self, name: str) -> Callable[[], Response]:
        def endpoint() -> Response:
            return _response(run(self._http.serve(name, _context())))

        return endpoint

    def _answer(self, error: Any) -> Any:
        answer = run(self._http.respond(request, _context(), error))
        return _response(answer) if isinstance(answer, Reply) else answer


def session_required(
    *,
    required: bool = True,
    check_anti_csrf: bool | None = None,
    strict: bool | None = None,
    validators: RouteValidators | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for views, sync or async: they run with a session, which is then ``current_session``.

    Args:
        required: False: also where no session's token came; ``current_session`` is then false.
        check_anti_csrf: whether a cookie needs its proof against CSRF; None: for every method but GET.
        strict: also ask the store whether the session lives; None: as the application says.
        validators: of its claims: a list in the place of the application's, or a function of these and the session
            that returns one.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def with_session(*args: Any, **kwargs: Any) -> Any:
            _context().session(required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators)
            return current_app.ensure_sync(view)(*args, **kwargs)

        return with_session

    return decorate


def _context() -> SyncRequestContext:
    return context_of(request.environ)


def _response(reply: Reply) -> Response:
    return current_app.response_class(reply.body, reply.status, as_text(reply.headers))


def _current() -> SyncRequestSession | None:
    return _context().current if has_request_context() else None


#: The session that ``session_required`` or ``sign_in`` has found or started in this request; false where there is none.
current_session = cast(SyncRequestSession, LocalProxy(_current))
