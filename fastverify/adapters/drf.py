"""Sessions for Django REST framework, beside ``adapters.django``.

::

    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["fastverify.adapters.drf.SessionAuthentication"],
        "EXCEPTION_HANDLER": "fastverify.adapters.drf.exception_handler",
    }

``request.auth`` is the session, ``request.user`` what ``FASTVERIFY["USER"]`` makes of its user id. Our errors pass
through the framework to ``adapters.django.SessionMiddleware``, which answers them as everywhere else; what a view
changes goes to the context of Django's own request.

The framework imports its authentication classes while it loads its own views, so none of these is imported here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.utils.module_loading import import_string
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated

from ..errors import Unauthorised
from ..session_claims import RouteValidators
from .request_session import SyncRequestSession

__all__ = ["GuestUser", "SessionAuthentication", "SessionUser", "exception_handler"]


class SessionUser:
    """The user of a session where the application names no other: its id, and that it is signed in."""

    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, user_id: str) -> None:
        self.pk = self.id = user_id

    def __str__(self) -> str:
        return self.pk

    def __eq__(self, other: object) -> bool:
        return self.pk == other.pk if isinstance(other, SessionUser) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pk)


class GuestUser(SessionUser):
    """The user of an anonymous session: ``IsAuthenticated`` refuses it, and the application knows no such user."""

    is_authenticated = is_active = False
    is_anonymous = True


class SessionAuthentication(BaseAuthentication):  # type: ignore[misc]  # the framework has no types
    """Authenticates by the session of the request, which is subject to our rules against CSRF."""

    #: Of the session's claims, as for ``RequestContext.session``; a class of your own may name others.
    validators: ClassVar[RouteValidators | None] = None
    #: Whether to ask the store if the session lives; None: as the settings say.
    strict: ClassVar[bool | None] = None

    def authenticate(self, request: Any) -> tuple[Any, SyncRequestSession] | None:
        """The user and the session; None where no session's token came.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: the token does not serve, or its user is no more.
            ClaimValidationFailed: the session is not what the validators ask for.
        """
        # Of the class: a function is none of its methods.
        kind = type(self)
        session = request._request.fastverify.session(required=False, strict=kind.strict, validators=kind.validators)
        if session is None:
            return None
        if session.is_guest:
            return GuestUser(session.user_id), session
        user = _user_of(session.user_id)
        if user is None:
            raise Unauthorised("there is no such user any more")
        return user, session

    def authenticate_header(self, request: Any) -> str:
        """With it the framework answers 401; without, 403, and no client would refresh."""
        return "Bearer"


def exception_handler(error: Exception, context: dict[str, Any]) -> Any:
    """The framework's own, but a request without a session is answered as by every adapter."""
    if isinstance(error, NotAuthenticated):
        raise Unauthorised("no session token came with the request", clear_tokens=False) from error
    return import_string("rest_framework.views.exception_handler")(error, context)


def _user_of(user_id: str) -> Any:
    hook = settings.FASTVERIFY.get("USER", SessionUser)
    return (import_string(hook) if isinstance(hook, str) else hook)(user_id)
