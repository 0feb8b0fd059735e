"""What all requests of one application share: the rules, our routes, the application's own answers to errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypedDict, cast

from ..errors import (
    ClaimValidationFailed,
    ConfigError,
    DuplicateCookies,
    FastVerifyError,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from ..manager import AsyncSessions, Sessions
from ..session_claims import GeneralValidators
from ..steps import Steps
from ..transport import Reply, Rules, Transport, json_reply, public_reply
from ..verifier import SessionVerifier
from .request import AskOtherIssuer, Find, GatewayContext, RequestContext, RequestSteps, SyncRequestContext

#: Gets the framework's request (without a framework: the ASGI scope or the WSGI environ) and the error; returns the
#: framework's response. What has to be cleared has been cleared by then.
Hook = Callable[[Any, Any], Any]

#: The one of ``Hooks`` that makes no response.
OTHER_ISSUER: Final = "on_foreign_refresh_token"
#: The routes that can be served.
ROUTES = ("refresh", "signout", "jwks", "discovery")


class Hooks(TypedDict, total=False):
    """Responses of your own in the place of ours; statuses must stay those that the client is configured for.

    And ``on_foreign_refresh_token``, which makes no response: called with the request's headers and a refresh token
    that is not ours, it returns what ``ask`` of ``Sessions.exchange`` does (docs/migrate).
    """

    on_unauthorised: Hook
    on_try_refresh_token: Hook
    on_token_theft_detected: Hook
    on_claim_validation_failed: Hook
    on_too_many_refreshes: Hook
    #: Unless it is given, ``on_unauthorised`` gets these too.
    on_duplicate_cookies: Hook
    on_store_unavailable: Hook
    on_foreign_refresh_token: AskOtherIssuer


_HOOKED: dict[str, tuple[type[FastVerifyError], ...]] = {
    # In this order: what comes later is more particular.
    "on_unauthorised": (Unauthorised, DuplicateCookies),
    "on_duplicate_cookies": (DuplicateCookies,),
    "on_try_refresh_token": (TryRefreshToken,),
    "on_token_theft_detected": (TokenTheftDetected,),
    "on_claim_validation_failed": (ClaimValidationFailed,),
    "on_too_many_refreshes": (TooManyRefreshes,),
    "on_store_unavailable": (StoreUnavailable,),
}


def routes_to_serve(transport: Transport, names: Iterable[str]) -> dict[tuple[str, str], str]:
    """The routes of these names: (method, path) -> name.

    Raises:
        ConfigError: a name is unknown, or the access cookie does not reach the route that needs it.
    """
    routes: dict[tuple[str, str], str] = {}
    for name in names:
        if name not in ROUTES:
            raise ConfigError("routes", f"{name!r} is none of {', '.join(ROUTES)}")
        routes[transport.routes[name]] = name
        path = transport.routes[name][1]
        if name == "signout" and not transport.access_cookie_reaches(path):
            raise ConfigError(
                "access_cookie_path",
                f"does not lead to {path}: leave 'signout' out of the routes, and sign out by a route below it",
            )
    return routes


class HttpSessions:
    """What all requests of one application share; immutable.

    Args:
        sessions: what serves them. With a SessionVerifier they are only verified, and there are no routes.
        kind: AsyncSessions for an asynchronous framework, Sessions for a blocking one.
        routes: those of ``ROUTES`` to serve.
        rules: with a SessionVerifier: how sessions arrive. Others know it from their configuration.
        hooks: see ``Hooks``.
        validators: of the claims of every session that a request asks for, unless its route says otherwise.
        strict: ask the store about every session that a request asks for, unless its route says otherwise.

    Raises:
        ConfigError: cookie settings that no browser accepts, an unknown route or hook, validators or ``strict`` where
            sessions are only verified.
        TypeError: ``sessions`` is of another kind.
    """

    def __init__(
        self,
        sessions: Sessions | AsyncSessions | SessionVerifier,
        kind: type[Sessions] | type[AsyncSessions],
        routes: Iterable[str],
        rules: Rules | None,
        hooks: Hooks,
        validators: GeneralValidators = (),
        strict: bool = False,
    ) -> None:
        if not isinstance(sessions, kind | SessionVerifier):
            raise TypeError(f"sessions must be {kind.__name__}, or a SessionVerifier to verify only")
        if validators and isinstance(sessions, SessionVerifier):
            raise ConfigError("validators", "a SessionVerifier cannot refetch claims")
        if strict and isinstance(sessions, SessionVerifier):
            raise ConfigError("strict", "a SessionVerifier does not ask the store")
        self.sessions = sessions
        #: Whether finding a session may take more than verifying a token.
        self.looks_further = bool(validators) or strict
        self.rules = rules or Rules() if isinstance(sessions, SessionVerifier) else Transport(sessions.config)
        #: (method, path) -> name of the route.
        self.routes = routes_to_serve(self.rules, routes) if isinstance(self.rules, Transport) else {}
        gateway = sessions if isinstance(sessions, SessionVerifier) else sessions.gateway
        shortcut = self.rules.shortcut(gateway._verifier)
        #: The rules' short cut, where there is one.
        self.find: Find | None = shortcut.find if shortcut is not None else None
        #: Begins a request: its headers, method, keep, and whether it is a socket, as for ``GatewayContext``.
        self.open: Callable[..., GatewayContext]
        if isinstance(sessions, SessionVerifier) or not isinstance(self.rules, Transport):
            self.open = partial(GatewayContext, sessions, self.rules, self.find)
        else:
            context = RequestContext if isinstance(sessions, AsyncSessions) else SyncRequestContext
            self.open = partial(
                context,
                sessions,
                self.rules,
                self.find,
                validators=validators,
                strict=strict,
                ask_other_issuer=hooks.get(OTHER_ISSUER),
            )
        self._hooks: dict[type[FastVerifyError], Hook] = {}
        given = {name: hook for name, hook in cast(dict[str, Hook], hooks).items() if name != OTHER_ISSUER}
        for name in given:
            if name not in _HOOKED:
                raise ConfigError(name, f"is no hook; there are {', '.join(_HOOKED)}")
        for name, errors in _HOOKED.items():
            if name in given:
                self._hooks |= dict.fromkeys(errors, given[name])

    def serve(self, route: str, context: RequestSteps) -> Steps[Reply]:
        """Answer one of our own routes."""
        match route:
            case "refresh":
                yield from context.refresh_steps()
                return json_reply(200, {})
            case "signout":
                yield from context.sign_out_steps()
                return json_reply(200, {"status": "OK"})
            case "jwks":
                jwks = yield context.sessions.jwks()
                return public_reply(jwks, context.sessions.jwks_max_age())
            case _:
                document = yield context.sessions.openid_configuration()
                return public_reply(document, context.sessions.jwks_max_age())

    def respond(self, request: Any, context: GatewayContext, error: FastVerifyError) -> Steps[Any]:
        """The answer to an error: our Reply, or what the application's hook returns."""
        context.failed(error)
        hook = next((self._hooks[kind] for kind in type(error).__mro__ if kind in self._hooks), None)
        return self.rules.reply(error) if hook is None else (yield hook(request, error))
