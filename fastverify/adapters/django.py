"""Sessions for Django.

::

    MIDDLEWARE = ["fastverify.adapters.django.SessionMiddleware", ...]      # before or after CorsMiddleware
    FASTVERIFY = {"SESSIONS": "project.sessions.connect"}                   # or "URL" and "CONFIG"

    @session_required()
    def me(request):
        return JsonResponse({"user": request.fastverify.current.user_id})

``request.fastverify`` is the request's dealings with sessions, in the view's own kind: a SyncRequestContext in a
blocking view, a RequestContext, whose methods are awaited, in an ``async def`` one. Django's ``request.session`` is
another thing, and is left alone.

Where things go: the session routes are a URLconf of their own, so that they run inside all middleware and a CORS
middleware sees them wherever it stands; a view's error is answered by ``process_exception``, inside it too. Tokens are
put on the response here, and the list of exposed headers keeps our names whatever is set later.

A blocking view inside an asynchronous chain, or the reverse, uses the sessions that there are, by asgiref.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from http.cookies import Morsel, SimpleCookie
from typing import Any, Unpack

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception
from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt

from ..errors import SessionError, StoreUnavailable
from ..manager import AsyncSessions, Sessions
from ..options import CreateOptions, GuestOptions, ImpersonateOptions
from ..session_claims import RouteValidators
from ..steps import Steps, run, run_async
from ..transport import Reply, Rules, as_text, cors_headers, headers_of_environ
from .django_settings import OpenSessions, read_settings
from .http import HttpSessions
from .request import RequestContext, SyncRequestContext
from .request_session import RequestSession, SyncRequestSession

__all__ = [
    "FastVerify",
    "RequestContext",
    "RequestSession",
    "SessionMiddleware",
    "SyncRequestContext",
    "SyncRequestSession",
    "cors_headers",
    "session_required",
]

_OURS = SessionError | StoreUnavailable
_EXPOSED = "access-control-expose-headers"
#: Methods that are awaited with AsyncSessions; the others do no I/O.
_AWAITED = {name for name in dir(AsyncSessions) if iscoroutinefunction(getattr(AsyncSessions, name))}


class SessionMiddleware:
    """Django middleware: the context of each request, the session routes, tokens, the answers to our errors.

    It reads ``settings.FASTVERIFY`` once, when Django loads it; docs/frameworks/django.md lists what may be in it.

    Raises:
        ImproperlyConfigured: an unknown name, or a value that cannot be used.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        self._opened = OpenSessions(read_settings())
        if not self._is_async and self._opened.only_async:
            raise ImproperlyConfigured("FASTVERIFY: AsyncSessions cannot serve blocking requests; give what makes both")
        endpoint = csrf_exempt(_serve_async if self._is_async else _serve)  # our own rules against CSRF hold there
        endpoint.login_required = False
        self._urls = (re_path("", endpoint),)
        # Of Django's own kind, for it would send the other one to another thread.
        self.process_view = self._before_view_async if self._is_async else self._before_view
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._call_async(request)
        try:
            self._begin(request, self._opened.for_threads())
        except StoreUnavailable as error:
            return _response(Rules().reply(error))
        response = self.get_response(request)
        if (unanswered := vars(request).pop("_fastverify_error", None)) is not None:
            response = _in_place_of(response, self.process_exception(request, unanswered))
        return _finish(request, response)

    async def _call_async(self, request: Any) -> Any:
        try:
            # Under WSGI an event loop lives for one request only.
            lasting = hasattr(request, "scope")
            self._begin(request, await self._opened.for_this_loop() if lasting else self._opened.for_threads())
        except StoreUnavailable as error:
            return _response(Rules().reply(error))
        response = await self.get_response(request)
        if (unanswered := vars(request).pop("_fastverify_error", None)) is not None:
            response = _in_place_of(response, await sync_to_async(self.process_exception)(request, unanswered))
        return _finish(request, response)

    def process_exception(self, request: Any, error: Exception) -> Any:
        """The answer to an error of ours that a view has raised."""
        if not isinstance(error, _OURS):
            return None
        steps = request._fastverify_http.respond(request, request.fastverify, error)
        answer = async_to_sync(run_async)(steps) if self._is_async else run(steps)
        return _response(answer) if isinstance(answer, Reply) else answer

    def _begin(self, request: Any, http: HttpSessions) -> None:
        request._fastverify_http = http
        scope = getattr(request, "scope", None)
        headers = headers_of_environ(request.META) if scope is None else scope["headers"]
        http.open(headers, request.method, vars(request))  # as request.fastverify
        _turn(request, self._is_async)
        if (request.method, request.path_info) in http.routes:
            request.urlconf = self._urls

    def _before_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        _turn(request, iscoroutinefunction(view))

    async def _before_view_async(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        _turn(request, iscoroutinefunction(view))


class FastVerify:
    """What ``request.fastverify`` does, under the name that every adapter has. In an async view, all but ``device`` are
    awaited."""

    @staticmethod
    def session(
        request: Any,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> Any:
        """The session of a request; arguments and errors as ``RequestContext.session``."""
        return request.fastverify.session(
            required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
        )

    @staticmethod
    def sign_in(request: Any, user_id: str, **create: Unpack[CreateOptions]) -> Any:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Ends the request's former session, unless ``previous=None``. ``create`` and errors as for
        ``RequestContext.sign_in``.
        """
        return request.fastverify.sign_in(user_id, **create)

    @staticmethod
    def sign_in_guest(request: Any, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]) -> Any:
        """Start an anonymous session; its tokens go to this request's response. ``sign_in`` promotes it later.

        ``options`` and errors as for ``RequestContext.sign_in_guest``.
        """
        return request.fastverify.sign_in_guest(payload, **options)

    @staticmethod
    def device(request: Any) -> dict[str, str]:
        """User agent and address of the request, as far as they are known: the ``device`` that ``sign_in`` keeps."""
        return request.fastverify.device()  # type: ignore[no-any-return]

    @staticmethod
    def refresh(request: Any) -> Any:
        """What the refresh route does, for a route of your own at its path. Errors as ``RequestContext.refresh``."""
        return request.fastverify.refresh()

    @staticmethod
    def sign_out(request: Any) -> Any:
        """What the sign-out route does. Errors as ``RequestContext.sign_out``."""
        return request.fastverify.sign_out()

    @staticmethod
    def impersonate(request: Any, user_id: str, **options: Unpack[ImpersonateOptions]) -> Any:
        """Let the user of the request act as another one; ``options`` and errors as ``RequestContext.impersonate``."""
        return request.fastverify.impersonate(user_id, **options)

    @staticmethod
    def stop_impersonating(request: Any) -> Any:
        """Return to the session of who acts as another user. Errors as ``RequestContext.stop_impersonating``."""
        return request.fastverify.stop_impersonating()


def session_required(
    *,
    required: bool = True,
    check_anti_csrf: bool | None = None,
    strict: bool | None = None,
    validators: RouteValidators | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for views, sync or async: they run with a session, which is then ``request.fastverify.current``.

    For class-based views, by ``method_decorator``.

    Args:
        required: False: also where no session's token came; ``current`` is then None.
        check_anti_csrf: whether a cookie needs its proof against CSRF; None: for every method but GET.
        strict: also ask the store whether the session lives; None: as the settings say.
        validators: of its claims: a list in the place of the application's, or a function of these and the session
            that returns one.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def with_session(request: Any, *args: Any, **kwargs: Any) -> Any:
            found = request.fastverify.session(
                required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
            )
            # By the request and not by the view: ``dispatch`` of an async class-based view is an ordinary function.
            if not inspect.isawaitable(found):
                return view(request, *args, **kwargs)

            async def after_session() -> Any:
                await found
                return await view(request, *args, **kwargs)

            return after_session()

        return markcoroutinefunction(with_session) if iscoroutinefunction(view) else with_session

    return decorate


# --- requests and responses ---


class _Crossing:
    """Sessions of one kind, called as the other: what does I/O goes over to where it belongs."""

    def __init__(self, native: Sessions | AsyncSessions) -> None:
        self.native = native
        self._cross = async_to_sync if isinstance(native, AsyncSessions) else sync_to_async(thread_sensitive=False)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.native, name)
        return self._cross(value) if name in _AWAITED else value


def _turn(request: Any, to_async: bool) -> None:
    """``request.fastverify`` of the kind that is asked for."""
    context, kind = request.fastverify, RequestContext if to_async else SyncRequestContext
    if not isinstance(context, kind):
        sessions = context.sessions
        context.turned(kind, sessions.native if isinstance(sessions, _Crossing) else _Crossing(sessions))


def _serve(request: Any) -> Any:
    return _response(run(_route_steps(request)))


async def _serve_async(request: Any) -> Any:
    return _response(await run_async(_route_steps(request)))


def _route_steps(request: Any) -> Steps[Reply]:
    http: HttpSessions = request._fastverify_http
    return http.serve(http.routes[request.method, request.path_info], request.fastverify)


def _note_error(request: Any = None, **_: Any) -> None:
    """Django makes a 500 of an error in middleware before ours can see it; this is where it says so."""
    error = sys.exc_info()[1]
    if isinstance(error, _OURS) and hasattr(request, "fastverify"):
        request._fastverify_error = error


got_request_exception.connect(_note_error)


def _finish(request: Any, response: Any) -> Any:
    context = request.fastverify
    queued = context.write(()) if context.has_queued else ()
    ours = as_text(queued)
    if ours:
        response.headers = _Headers(response.headers, dict(ours).get(_EXPOSED, ""))
    for name, value in ours:
        if name == "set-cookie":
            _add_cookie(response.cookies, _Cookie(value))
        elif name == _EXPOSED:
            response.headers.setdefault(name, value)
        else:
            response.headers[name] = value
    context.started = True
    return response


class _Cookie(Morsel[str]):
    """A cookie of ours, written as it came: Python before 3.14 knows no ``Partitioned``, and drops what has it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        (name, _, value), *attributes = (part.partition("=") for part in text.split("; "))
        self.set(name, value, value)
        for attribute, _, said in attributes:
            if self.isReservedKey(attribute):
                self[attribute] = said or True

    def OutputString(self, attrs: Any = None) -> str:  # its name there
        return self._text


def _add_cookie(cookies: SimpleCookie, cookie: _Cookie) -> None:
    """Several cookies may have one name and differ in domain; under the name itself is the last one."""
    name = cookie.key
    if name in cookies:
        cookies[f"{name} {len(cookies)}"] = cookies.pop(name)
    cookies[name] = cookie


class _Headers(ResponseHeaders):  # type: ignore[misc]  # Django has no types
    """Keeps our names in the list of exposed headers, whatever middleware outside of ours makes of it."""

    def __init__(self, headers: Mapping[str, str], exposed: str) -> None:
        self._names = exposed.split(", ") if exposed else []
        super().__init__(dict(headers.items()))

    def __setitem__(self, key: str, value: Any) -> None:
        if key.lower() == _EXPOSED:
            theirs = [name.strip() for name in str(value).split(",")]
            value = ", ".join([*theirs, *(name for name in self._names if name not in theirs)])
        super().__setitem__(key, value)


def _response(reply: Reply) -> Any:
    headers = dict(as_text(reply.headers))
    return HttpResponse(reply.body, status=reply.status, headers=headers)


def _in_place_of(former: Any, answer: Any) -> Any:
    """The answer, with what middleware has put on the former response, such as CORS headers."""
    for name, value in former.items():
        if not name.lower().startswith("content-"):
            answer.headers.setdefault(name, value)
    answer.cookies.update(former.cookies)
    return answer
