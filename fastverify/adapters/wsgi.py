"""Sessions for any WSGI application, with no framework.

::

    app = SessionMiddleware(app, sessions)          # Sessions: routes, tokens, errors
    app = SessionMiddleware(app, session_verifier)  # SessionVerifier: a gateway that only verifies

The session of a request is in ``environ["fastverify.session"]``, or None; ``require_session(environ)`` returns it or
raises what the client has to be told, and the middleware makes the response of what is raised. Sign users in with
``context_of(environ).sign_in(user_id)``. Put the middleware inside one that does CORS, so that its responses get CORS
headers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any, Unpack

from ..errors import SessionError, StoreUnavailable
from ..manager import Sessions
from ..session_claims import GeneralValidators
from ..steps import run
from ..transport import Reply, Rules, as_text, headers_of_environ
from ..verifier import SessionVerifier
from .http import ROUTES, Hooks, HttpSessions
from .request import CONTEXT, SESSION, GatewayContext, SyncRequestContext, require_session
from .request_session import SyncRequestSession

__all__ = [
    "CONTEXT",
    "ROUTES",
    "SESSION",
    "SessionMiddleware",
    "SyncRequestContext",
    "SyncRequestSession",
    "WSGIApp",
    "context_of",
    "reply_app",
    "require_session",
]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class SessionMiddleware:
    """WSGI middleware: finds the session of each request, serves the session routes, writes tokens, answers our errors.

    An error of ours has to be raised before the application returns its body, as frameworks do.

    Args:
        app: the application.
        sessions: Sessions; or a SessionVerifier, to verify only.
        routes: those of ``ROUTES`` to serve; the others fall through to the application.
        rules: with a SessionVerifier: how sessions arrive. Sessions knows it from its configuration.
        eager: verify at once, for ``environ["fastverify.session"]``. False: only when the application asks.
        validators: of the claims of every session that is asked for; a list, or a function of the session. With
            ``eager`` they are asked at once, and ``require_session`` raises what they say.
        strict: ask the store whether it lives about every session that is asked for, unless the route says otherwise.
        hooks: see ``Hooks``; a response is a WSGI application here, such as a Werkzeug response.

    Raises:
        ConfigError: as ``HttpSessions``.
    """

    def __init__(
        self,
        app: WSGIApp,
        sessions: Sessions | SessionVerifier,
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
        self._http = HttpSessions(sessions, Sessions, routes, rules, hooks, validators, strict)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        context = self._http.open(headers_of_environ(environ), environ["REQUEST_METHOD"], environ)

        def start_with_tokens(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            context.started = True
            return start_response(status, _with_tokens(context, headers), *exc_info)

        route = self._http.routes.get((environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")))
        try:
            if route is not None and isinstance(context, SyncRequestContext):
                return reply_app(run(self._http.serve(route, context)))(environ, start_with_tokens)
            if self._eager:
                run(context.look_steps()) if self._http.looks_further else context.look()
            return self.app(environ, start_with_tokens)
        except (SessionError, StoreUnavailable) as error:
            if context.started:
                raise
            response = run(self._http.respond(environ, context, error))
            app: WSGIApp = reply_app(response) if isinstance(response, Reply) else response
            return app(environ, start_with_tokens)


def context_of(environ: Environ) -> SyncRequestContext:
    """The request's dealings with sessions: sign-in, refresh and sign-out by hand.

    Raises:
        RuntimeError: there is no middleware around the application, or one that only verifies.
    """
    context = environ.get(CONTEXT)
    if not isinstance(context, SyncRequestContext):
        raise RuntimeError("no session middleware with Sessions is around this application")
    return context


def reply_app(reply: Reply) -> WSGIApp:
    """A response as a WSGI application."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(f"{reply.status} {responses.get(reply.status, 'Unknown')}", as_text(reply.headers))
        return [reply.body]

    return app


def _with_tokens(context: GatewayContext, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if not context.has_queued:
        return headers
    return as_text(context.write((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers))
