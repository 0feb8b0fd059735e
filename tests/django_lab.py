"""Django in this process: one set of settings for all sites of all tests, and how a site is made under its own.

A handler reads what concerns it when it is made, so that each site is made under settings of its own; what is read
later is the same for all.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import django
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import got_request_exception
from django.test import override_settings
from django.utils.decorators import sync_and_async_middleware

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="not a secret of ours",
    ROOT_URLCONF=(),
    INSTALLED_APPS=["corsheaders", "rest_framework"],
    LOGGING_CONFIG=None,
    SITE_URLS=(),
    FASTVERIFY={},
    CORS_ALLOWED_ORIGINS=["http://localhost:3000"],
    CORS_ALLOW_CREDENTIALS=True,
    CORS_ALLOW_HEADERS=["content-type", "rid", "fdi-version", "anti-csrf", "authorization", "st-auth-mode"],
    CORS_EXPOSE_HEADERS=["x-mine"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["fastverify.adapters.drf.SessionAuthentication"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "EXCEPTION_HANDLER": "fastverify.adapters.drf.exception_handler",
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

OURS = "fastverify.adapters.django.SessionMiddleware"
MIDDLEWARE = (OURS, "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware")


@sync_and_async_middleware
def site_urls(get_response: Any) -> Any:
    """The routes of the site that is being made."""
    urls = settings.SITE_URLS

    def begin(request: Any) -> Any:
        request.urlconf = urls
        return get_response(request)

    async def begin_async(request: Any) -> Any:
        request.urlconf = urls
        return await get_response(request)

    return begin_async if iscoroutinefunction(get_response) else begin


#: A site outlives its test's event loop, as on a server: the loop closes the sessions, and not the garbage collector.
KEPT: deque[Any] = deque(maxlen=4)


def keep_error(request: Any, **_: Any) -> None:
    getattr(request, "scope", request.META)["raised"] = sys.exc_info()[1]


got_request_exception.connect(keep_error)


def raising(handler: Any) -> Any:
    """What the application raises comes out, as of Django's test client; a server gets a 500 only."""

    def over_wsgi(environ: Any, start_response: Any) -> Any:
        response = handler(environ, start_response)
        if "raised" in environ:
            response.close()
            raise environ["raised"]
        return response

    async def over_asgi(scope: Any, receive: Any, send: Any) -> None:
        scope = dict(scope)
        await handler(scope, receive, send)
        if "raised" in scope:
            raise scope["raised"]

    return over_asgi if isinstance(handler, ASGIHandler) else over_wsgi


def make_handler(
    kind: Callable[[], Any],
    given: Any,
    urls: Any,
    middleware: Sequence[str] = MIDDLEWARE,
    raising: Any = raising,
    **more: Any,
) -> Any:
    """A WSGIHandler or an ASGIHandler, with these settings."""
    chain = ["django_lab.site_urls", *middleware]
    with override_settings(FASTVERIFY=given, SITE_URLS=tuple(urls), MIDDLEWARE=chain, **more):
        handler = kind()
    KEPT.append(handler)
    return raising(handler)
