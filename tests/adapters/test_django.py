"""The Django adapter: what it does beside what every adapter does."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from blocking_sites import IS_PRO, served
from clients import ORIGIN, Client, Open, expect_preflights
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, override_settings
from django.test import Client as DjangoClient
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django_lab import MIDDLEWARE, OURS, make_handler
from django_sites import ASYNC_URLS, BLOCKING_URLS, ashow, fv, show
from sites import PLANS

from fastverify import AsyncSessions, ConfigError, Sessions, StoreUnavailable, TryRefreshToken, Unauthorised
from fastverify.adapters.django import (
    RequestContext,
    SessionMiddleware,
    SyncRequestContext,
    SyncRequestSession,
    session_required,
)
from fastverify.adapters.django_settings import OpenSessions, read_settings

CORS = "corsheaders.middleware.CorsMiddleware"
HANDLERS = {"wsgi": WSGIHandler, "asgi": ASGIHandler}


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


@pytest.fixture
def given(sessions: AsyncSessions, embedded_url: str) -> dict[str, Any]:
    """Settings by which the middleware opens the store of ``sessions`` by itself."""
    return {"URL": embedded_url, "CONFIG": sessions.config}


def site(kind: str, given: dict[str, Any], urls: Any, *middleware: str) -> Any:
    """The application under WSGI or ASGI, for a client that speaks ASGI."""
    handler = make_handler(HANDLERS[kind], given, urls, middleware or MIDDLEWARE)
    return served(handler) if kind == "wsgi" else handler


def answering(kind: str, given: dict[str, Any], urls: Any, *middleware: str) -> Any:
    """As a server has it: what Django has made a 500 of is not raised once more."""
    handler = make_handler(HANDLERS[kind], given, urls, middleware or MIDDLEWARE, raising=lambda handler: handler)
    return served(handler) if kind == "wsgi" else handler


DOMAINS = {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:3000", "secret": bytes(range(32))}


def followers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("fastverify-follower")}


# --- middleware of one kind, views of the other ---------------------------------------------------------------------


def blocking_only(get_response: Any) -> Any:
    assert not iscoroutinefunction(get_response)

    def middleware(request: Any) -> Any:
        if context := getattr(request, "fastverify", None):
            assert isinstance(context, SyncRequestContext)
        return get_response(request)

    return middleware


class AsyncOnly:
    sync_capable, async_capable = False, True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        if context := getattr(request, "fastverify", None):
            assert isinstance(context, RequestContext)
        return await self.get_response(request)


CHAINS = {
    "alone": (OURS,),
    "blocking outside": ("test_django.blocking_only", OURS),
    "blocking inside": (OURS, "test_django.blocking_only"),
    "async outside": ("test_django.AsyncOnly", OURS),
    "async inside": (OURS, "test_django.AsyncOnly"),
}


@pytest.mark.parametrize("views", [BLOCKING_URLS, ASYNC_URLS], ids=["blocking views", "async views"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", HANDLERS)
async def test_every_mixture_of_server_middleware_and_view(
    given: dict[str, Any], sessions: AsyncSessions, kind: str, chain: str, views: Any
) -> None:
    async with Client(site(kind, given, views, *CHAINS[chain]), "cookie") as client:
        await client.login()
        merged = await client.call('/merge?patch={"plan":"pro"}')
        assert merged.json()["payload"] == {"plan": "pro"}
        assert (await client.call("/data?put=x")).json() == {"data": "x"}
        assert (await client.call("/strict", "GET")).json() == merged.json()
        assert (await client.refresh()).status_code == 200
        assert (await client.call("/me")).json() == merged.json()
        assert (await client.call("/login-and-fail?user=user-2")).json() == {"message": "unauthorised"}
        await client.login()
        assert (await client.call("/auth/signout")).json() == {"status": "OK"}
        assert (await client.call("/me", "GET")).json() == {"message": "unauthorised"}
        assert not list(client.cookies.jar)
    assert await sessions.handles("user-1") == []


VALIDATORS = [IS_PRO]


@pytest.mark.parametrize("views", [BLOCKING_URLS, ASYNC_URLS], ids=["blocking views", "async views"])
@pytest.mark.parametrize("kind", HANDLERS)
async def test_the_applications_validators_hold_in_every_mixture(given: dict[str, Any], kind: str, views: Any) -> None:
    app = site(kind, {**given, "VALIDATORS": "test_django.VALIDATORS"}, views)
    PLANS.plan = None
    async with Client(app) as client:
        await client.login()
        refused = await client.call("/me", "GET")
        assert (refused.status_code, refused.json()["message"]) == (403, "invalid claim")
        assert (await client.call("/unchecked", "GET")).status_code == 200
        PLANS.plan = "pro"
        granted = await client.call("/me", "GET")
        assert granted.status_code == 200 and "front-token" in granted.headers
        assert (await client.call("/auth/signout")).status_code == 200


def peeking(get_response: Any) -> Any:
    """Looks at the session before the view does, and changes it."""

    async def middleware(request: Any) -> Any:
        session = await request.fastverify.session()
        await session.merge_payload({"seen": True})
        return await get_response(request)

    def blocking(request: Any) -> Any:
        request.fastverify.session().merge_payload({"seen": True})
        return get_response(request)

    return middleware if iscoroutinefunction(get_response) else blocking


peeking.sync_capable = peeking.async_capable = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "views",
    [[*BLOCKING_URLS, path("current", csrf_exempt(show))], [*ASYNC_URLS, path("current", csrf_exempt(ashow))]],
    ids=["blocking views", "async views"],
)
@pytest.mark.parametrize("kind", HANDLERS)
async def test_what_middleware_has_found_and_queued_stays_with_the_request(
    given: dict[str, Any], sessions: AsyncSessions, kind: str, views: Any
) -> None:
    issued = await sessions.create("user-1")
    async with Client(site(kind, given, views, OURS, "test_django.peeking")) as client:
        response = await client.call('/merge?patch={"plan":"pro"}', token=issued.access_token)
        assert response.json()["payload"] == {"seen": True, "plan": "pro"}
        assert sessions.verify(client.access).payload == {"seen": True, "plan": "pro"}
        response = await client.call("/current", token=issued.access_token)
        assert response.json()["payload"] == sessions.verify(response.headers["st-access-token"]).payload


# --- class-based views ----------------------------------------------------------------------------------------------


@method_decorator(session_required(), name="dispatch")
class Blocking(View):
    def get(self, request: Any) -> Any:
        assert isinstance(request.fastverify.current, SyncRequestSession)
        return JsonResponse({"user": request.fastverify.current.user_id})


@method_decorator(session_required(), name="dispatch")
class Asynchronous(View):
    async def get(self, request: Any) -> Any:
        await request.fastverify.current.set_data("x")
        return JsonResponse({"user": request.fastverify.current.user_id})


class OneMethod(View):
    @method_decorator(session_required(required=False))
    def get(self, request: Any) -> Any:
        session = request.fastverify.current
        return JsonResponse({"user": session and session.user_id})


@pytest.mark.parametrize("kind", HANDLERS)
async def test_class_based_views(given: dict[str, Any], sessions: AsyncSessions, kind: str) -> None:
    token = (await sessions.create("user-1")).access_token
    views = {"blocking": Blocking, "async": Asynchronous, "one": OneMethod}
    async with Client(site(kind, given, [path(name, view.as_view()) for name, view in views.items()])) as client:
        for name in views:
            assert (await client.call(f"/{name}", "GET", token=token)).json() == {"user": "user-1"}
        for name in ("blocking", "async"):
            assert (await client.call(f"/{name}", "GET")).json() == {"message": "unauthorised"}
        assert (await client.call("/one", "GET")).json() == {"user": None}


# --- CORS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(OURS, CORS), (CORS, OURS)], ids=["ours outside", "ours inside"])
@pytest.mark.parametrize("kind", HANDLERS)
class TestBesideCorsMiddleware:
    async def test_the_preflight_passes(self, given: dict[str, Any], kind: str, order: tuple[str, str]) -> None:
        async with Client(site(kind, given, BLOCKING_URLS, *order)) as client:
            await expect_preflights(client)

    async def test_every_response_can_be_read_by_the_page(
        self, given: dict[str, Any], kind: str, order: tuple[str, str]
    ) -> None:
        async with Client(site(kind, given, BLOCKING_URLS, *order)) as client:
            client.headers["origin"] = ORIGIN
            responses = [
                await client.call("/me", "GET"),
                await client.call("/auth/session/refresh"),
                await client.login(),
                await client.call("/me", "GET"),
                await client.refresh(),
                await client.call("/auth/signout"),
                await client.call("/login-and-fail?user=x"),
            ]
            assert [response.status_code for response in responses] == [401, 401, 200, 200, 200, 200, 401]
            for response in responses:
                assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
                assert response.headers.get_list("access-control-allow-credentials") == ["true"]
                (exposed,) = response.headers.get_list("access-control-expose-headers")
                assert exposed.startswith("x-mine") or "front-token" in response.headers
                names = exposed.split(", ")
                assert "x-mine" in names and len(names) == len(set(names))
                for name in ("front-token", "st-access-token", "st-refresh-token"):
                    assert (name in response.headers) is (name in names)

    async def test_an_outage_can_be_read_by_the_page(
        self, given: dict[str, Any], kind: str, order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable(retry_after=2)

        for facade in (Sessions, AsyncSessions):
            monkeypatch.setattr(facade, "newest_refresh_token", away)
            monkeypatch.setattr(facade, "_shed", away)
        async with Client(site(kind, given, BLOCKING_URLS, *order)) as client:
            response = await client.call("/auth/session/refresh", token="x", origin=ORIGIN)
            assert (response.status_code, response.headers["retry-after"]) == (503, "2")
            assert response.headers["access-control-allow-origin"] == ORIGIN

    async def test_an_error_in_middleware_is_answered_and_can_be_read(
        self, given: dict[str, Any], kind: str, order: tuple[str, str]
    ) -> None:
        app = answering(kind, given, BLOCKING_URLS, *order, "test_django.members_only")
        async with Client(app, "cookie") as client:
            response = await client.call("/me", "GET", origin=ORIGIN, cookie="sIdRefreshToken=x")
            assert (response.status_code, response.json()) == (401, {"message": "try refresh token"})
            assert response.headers["access-control-allow-origin"] == ORIGIN
            assert int(response.headers["content-length"]) == len(response.content)


def members_only(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        await request.fastverify.session()
        return await get_response(request)

    def blocking(request: Any) -> Any:
        request.fastverify.session()
        return get_response(request)

    return middleware if iscoroutinefunction(get_response) else blocking


members_only.sync_capable = members_only.async_capable = True  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", HANDLERS)
async def test_an_error_in_middleware_clears_what_it_clears(
    given: dict[str, Any], sessions: AsyncSessions, kind: str
) -> None:
    issued = await sessions.create("user-1")
    await sessions.revoke(issued.session.handle)
    app = answering(kind, given, BLOCKING_URLS, OURS, "test_django.members_only")
    async with Client(app) as client:
        response = await client.call("/me", "GET", token=issued.access_token)
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        assert response.headers["front-token"] == "remove"
        # The refresh is served inside that middleware, which demands a session: a mistake that shows.
        assert (await client.call("/auth/session/refresh")).status_code == 401


# --- routes ---------------------------------------------------------------------------------------------------------


def closed_by_default(get_response: Any) -> Any:
    """As Django's LoginRequiredMiddleware does."""

    class Middleware:
        def __call__(self, request: Any) -> Any:
            return get_response(request)

        def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> Any:
            return None if not getattr(view, "login_required", True) else HttpResponse("log in", status=302)

    return Middleware()


async def test_a_catch_all_and_a_login_wall_do_not_swallow_the_routes(given: dict[str, Any]) -> None:
    def catch_all(request: Any) -> Any:
        return HttpResponse(request.path)

    urls = [re_path(".*", catch_all)]
    async with Client(site("wsgi", given, urls, *MIDDLEWARE)) as client:
        assert (await client.call("/auth/session/refresh")).json() == {"message": "unauthorised"}
        assert "keys" in (await client.get("/auth/jwt/jwks.json")).json()
        assert (await client.get("/auth/signout")).text == "/auth/signout"
        assert (await client.get("/else")).text == "/else"
    async with Client(site("wsgi", given, urls, OURS, "test_django.closed_by_default")) as client:
        assert "keys" in (await client.get("/auth/jwt/jwks.json")).json()
        assert (await client.get("/else")).status_code == 302


async def test_djangos_own_csrf_rules_hold_for_views_and_not_for_our_routes(
    given: dict[str, Any], sessions: AsyncSessions
) -> None:
    def view(request: Any) -> Any:
        return HttpResponse("done")

    issued = await sessions.create("user-1")
    async with Client(site("wsgi", given, [path("view", view)])) as client:
        assert (await client.call("/view")).status_code == 403
        assert (await client.call("/auth/signout", token=issued.access_token)).status_code == 200


async def test_request_session_is_left_alone(given: dict[str, Any]) -> None:
    seen: list[Any] = []

    def view(request: Any) -> Any:
        fv.sign_in(request, "user-1")
        seen.append(hasattr(request, "session"))
        return HttpResponse("done")

    async with Client(site("wsgi", given, [path("view", view)])) as client:
        await client.get("/view")
    assert seen == [False]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HANDLERS)
async def test_hooks_replace_responses_but_not_the_clearing(
    given: dict[str, Any], sessions: AsyncSessions, kind: str
) -> None:
    hooks = {"ON_UNAUTHORISED": "test_django.unauthorised", "ON_TRY_REFRESH_TOKEN": "test_django.try_refresh"}
    if kind == "asgi":
        hooks["ON_TRY_REFRESH_TOKEN"] = "test_django.try_refresh_later"
    async with Client(site(kind, given | hooks, BLOCKING_URLS), "cookie") as client:
        await client.login()
        legacy = await client.call("/me", "GET", cookie="sIdRefreshToken=x")
        assert legacy.json() == {"mine": "refresh"} and "front-token" not in legacy.headers
        await client.call("/revoke")
        response = await client.call("/own-refresh")
        assert response.json() == {"mine": "/own-refresh"}
        assert response.headers["front-token"] == "remove"


def unauthorised(request: Any, error: Unauthorised) -> Any:
    return JsonResponse({"mine": request.path}, status=401)


def try_refresh(request: Any, error: TryRefreshToken) -> Any:
    return JsonResponse({"mine": "refresh"}, status=401)


async def try_refresh_later(request: Any, error: TryRefreshToken) -> Any:
    return try_refresh(request, error)


async def test_an_async_hook_in_a_blocking_chain_is_a_mistake_that_is_told(given: dict[str, Any]) -> None:
    given["ON_UNAUTHORISED"] = try_refresh_later
    async with Client(site("wsgi", given, BLOCKING_URLS)) as client:
        with pytest.raises(TypeError, match="asynchronous function"):
            await client.get("/me")


@pytest.mark.parametrize("kind", HANDLERS)
async def test_an_unhandled_error_after_a_sign_in_keeps_what_was_queued(
    given: dict[str, Any], sessions: AsyncSessions, kind: str
) -> None:
    def view(request: Any) -> Any:
        fv.sign_in(request, "user-1")
        raise ZeroDivisionError

    async with Client(answering(kind, given, [path("view", view)])) as client:
        response = await client.get("/view")
        assert response.status_code == 500
        assert sessions.verify(client.access).user_id == "user-1"


@pytest.mark.parametrize("kind", HANDLERS)
async def test_a_stream_carries_tokens_and_takes_none_afterwards(
    given: dict[str, Any], sessions: AsyncSessions, kind: str
) -> None:
    told: list[str] = []

    def view(request: Any) -> Any:
        fv.sign_in(request, "user-1")

        def parts() -> Iterator[str]:
            yield "a"
            try:
                fv.sign_in(request, "user-2")
            except RuntimeError as error:
                told.append(str(error))
            yield "b"

        return StreamingHttpResponse(parts())

    async def async_view(request: Any) -> Any:
        await fv.sign_in(request, "user-1")

        async def parts() -> Any:
            yield "a"
            try:
                await fv.sign_in(request, "user-2")
            except RuntimeError as error:
                told.append(str(error))
            yield "b"

        return StreamingHttpResponse(parts())

    async with Client(site(kind, given, [path("view", view if kind == "wsgi" else async_view)])) as client:
        response = await client.get("/view")
        assert response.text == "ab" and "begun" in told[0]
        assert sessions.verify(client.access).user_id == "user-1"
    assert await sessions.handles("user-2") == []


async def test_cookies_of_one_name_and_several_domains_are_all_written(open_sessions: Open, embedded_url: str) -> None:
    sessions = await open_sessions(
        api_domain="https://api.example.com", website_domain="https://example.com", cookie_domain=".example.com"
    )
    token = (await sessions.create("user-1")).access_token
    given = {"URL": embedded_url, "CONFIG": sessions.config}
    async with Client(site("wsgi", given, BLOCKING_URLS), "cookie", "https://api.example.com") as client:
        response = await client.call("/login?user=user-1", cookie=f"sAccessToken={token}")
    cookies = [text for text in response.headers.get_list("set-cookie") if text.startswith("sAccessToken=")]
    *expired, valid = cookies
    assert [(text.partition("Domain=")[2].partition(";")[0], "Partitioned" in text) for text in cookies] == [
        (".example.com", True),
        ("", False),
        ("", True),
        ("api.example.com", False),
        ("api.example.com", True),
        (".example.com", False),
    ]
    assert all(text.startswith("sAccessToken=;") and "Expires=Thu, 01 Jan 1970" in text for text in expired)
    for attribute in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Expires="):
        assert attribute in valid


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either 'SESSIONS', or 'URL'"),
        ({"SESSIONS": print, "URL": "redis://x"}, "either 'SESSIONS', or 'URL'"),
        ({"SESSIONS": print, "ON_UNAUTHORIZED": print}, "'ON_UNAUTHORIZED'.*ON_UNAUTHORISED"),
        ({"SESSIONS": print, "ROUTES": ["login"]}, "'login'.*refresh"),
        ({"SESSIONS": 5}, "neither Sessions"),
        ({"SESSIONS": "test_django.no_such_name"}, "'SESSIONS'.*no_such_name"),
        ({"SESSIONS": print, "ON_STORE_UNAVAILABLE": "no.such.module"}, "'ON_STORE_UNAVAILABLE'.*no"),
        ({"SESSIONS": print, "USER": "test_django.no_such_name"}, "'USER'.*no_such_name"),
        ({"SESSIONS": print, "VALIDATORS": "test_django.no_such_name"}, "'VALIDATORS'.*no_such_name"),
        ({"SESSIONS": print, "STRICT": "no"}, "'STRICT'.*True or False"),
        ({"SESSIONS": print, "VALIDATORS": {IS_PRO}}, "'VALIDATORS'.*neither a list"),
        ({"URL": "redis://x"}, "CONFIG"),
        ({"URL": "redis://x", "CONFIG": {**DOMAINS, "access_cookie_path": "/me"}}, "'CONFIG'.*access_cookie_path"),
        ({"URL": "redis://x", "CONFIG": {"api_domian": "x"}}, "api_domian"),
        ({"URL": "redis://x", "CONFIG": {"api_domain": "x", "website_domain": "y", "secret": b"z"}}, "api_domain"),
    ],
)
def test_wrong_settings_are_refused_when_the_middleware_is_loaded(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        make_handler(WSGIHandler, given, ())


def test_settings_that_are_missing_are_told() -> None:
    with override_settings():
        del settings.FASTVERIFY
        with pytest.raises(ImproperlyConfigured, match="FASTVERIFY is missing"):
            SessionMiddleware(lambda request: None)


async def test_async_sessions_alone_cannot_serve_blocking_requests(sessions: AsyncSessions) -> None:
    with pytest.raises(ImproperlyConfigured, match="AsyncSessions"):
        make_handler(WSGIHandler, {"SESSIONS": sessions}, ())


async def test_blocking_sessions_serve_asynchronous_views_too(sessions: AsyncSessions, opened: Any) -> None:
    async with Client(site("asgi", {"SESSIONS": opened.blocking(sessions)}, ASYNC_URLS)) as client:
        await client.login()
        assert (await client.call('/merge?patch={"a":1}')).json()["payload"] == {"a": 1}
        assert (await client.call("/auth/signout")).status_code == 200


def test_what_makes_sessions_is_named_by_its_path_and_told_of_which_kind(
    opened: Any, sessions_twin: Callable[[], Sessions]
) -> None:
    asked: list[Any] = []

    def make(kind: Any) -> Any:
        asked.append(kind)
        return sessions_twin()

    handler = make_handler(WSGIHandler, {"SESSIONS": make}, BLOCKING_URLS)
    assert asked == []  # before the first request nothing is opened: a server may fork
    response = asyncio.run(_one_call(served(handler), "/login?user=user-1"))
    assert response.status_code == 200 and asked == [Sessions]


async def _one_call(app: Any, url: str) -> httpx.Response:
    async with Client(app) as client:
        return await client.call(url)


@pytest.fixture
async def sessions_twin(sessions: AsyncSessions, opened: Any) -> Callable[[], Sessions]:
    return lambda: opened.blocking(sessions)


async def test_a_store_that_cannot_be_reached_at_the_start_is_an_outage() -> None:
    def make(kind: Any) -> Any:
        raise StoreUnavailable("not ready", retry_after=3)

    for kind in HANDLERS:
        async with Client(site(kind, {"SESSIONS": make}, BLOCKING_URLS)) as client:
            for _ in range(2):  # it is tried again
                response = await client.get("/me")
                assert (response.status_code, response.headers["retry-after"]) == (503, "3")


async def test_two_sites_in_one_process_do_not_mix(open_sessions: Open, opened: Any) -> None:
    one, two = await open_sessions(), await open_sessions()
    sites = [site("wsgi", {"SESSIONS": opened.blocking(sessions)}, BLOCKING_URLS) for sessions in (one, two)]
    async with Client(sites[0]) as client, Client(sites[1]) as other:
        await client.login()
        assert (await client.call("/me", "GET")).status_code == 200
        assert (await other.call("/me", "GET", token=client.access)).status_code in (401, 503)


# --- event loops ----------------------------------------------------------------------------------------------------


def test_each_event_loop_has_sessions_of_its_own_which_end_with_it(embedded_url: str, unique_prefix: str) -> None:
    config = {
        "api_domain": "http://localhost:8000",
        "website_domain": "http://localhost:3000",
        "secret": bytes(range(32)),
        "key_prefix": unique_prefix,
    }
    handler = make_handler(ASGIHandler, {"URL": embedded_url, "CONFIG": config}, ASYNC_URLS)
    before, during = followers(), []

    async def two_at_once() -> list[int]:
        responses = await asyncio.gather(*(_one_call(handler, f"/login?user=user-{n}") for n in range(2)))
        during.append(len(followers() - before))
        return [response.status_code for response in responses]

    for _ in range(2):
        assert asyncio.run(two_at_once()) == [200, 200]
        assert followers() <= before
    assert during == [1, 1]


def test_djangos_test_client_keeps_somebody_signed_in(embedded_url: str, unique_prefix: str) -> None:
    config = {
        "api_domain": "http://localhost:8000",
        "website_domain": "http://localhost:3000",
        "secret": bytes(range(32)),
        "key_prefix": unique_prefix,
        "token_transfer_method": "cookie",
    }
    given = {"URL": embedded_url, "CONFIG": config}
    chain = ["django_lab.site_urls", *MIDDLEWARE]
    with override_settings(FASTVERIFY=given, SITE_URLS=tuple(BLOCKING_URLS), MIDDLEWARE=chain):
        client = DjangoClient()
        assert client.post("/login?user=user-1").json() == {"ok": True}
        assert client.get("/me").json()["user"] == "user-1"
        assert client.post("/auth/session/refresh").json() == {}
        assert client.post("/auth/signout").json() == {"status": "OK"}
        assert client.get("/me").status_code == 401


async def test_our_context_needs_no_server(sessions: AsyncSessions) -> None:
    """As Django's documentation tests views: a request from the factory, and the middleware called by hand."""

    async def view(request: Any) -> Any:
        return HttpResponse((await request.fastverify.session()).user_id)

    with override_settings(FASTVERIFY={"SESSIONS": sessions}):
        middleware = SessionMiddleware(view)
    token = (await sessions.create("user-1")).access_token
    request = AsyncRequestFactory().get("/", headers={"authorization": f"Bearer {token}"})
    assert (await middleware(request)).content == b"user-1"


async def test_a_payload_that_no_cookie_holds_is_an_error_of_the_application(
    given: dict[str, Any], sessions: AsyncSessions
) -> None:
    def view(request: Any) -> Any:
        with pytest.raises(ConfigError, match="browsers drop"):
            fv.sign_in(request, "user-1", payload={"big": "x" * 4000})
        return HttpResponse("refused")

    async with Client(site("wsgi", given, [path("view", csrf_exempt(view))]), "cookie") as client:
        assert (await client.call("/view")).text == "refused"


def test_the_collector_waits_for_no_closing(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run in any thread and under any lock, that of a thread which closing waits for among them."""
    with override_settings(FASTVERIFY=given):
        opened = OpenSessions(read_settings())
    sessions = opened.for_threads().sessions
    assert isinstance(sessions, Sessions)
    go_on, done, close = threading.Event(), threading.Event(), sessions.close

    def close_slowly() -> None:
        assert go_on.wait(30)
        close()
        done.set()

    monkeypatch.setattr(sessions, "close", close_slowly)
    del opened
    gc.collect()
    assert not done.is_set()
    go_on.set()
    assert done.wait(30)
    with pytest.raises(StoreUnavailable):
        sessions.create("user-1")
