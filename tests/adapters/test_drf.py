"""The adapter for Django REST framework: what it does beside what every adapter does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from blocking_sites import served
from clients import Client, Open
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django_lab import MIDDLEWARE, make_handler
from django_sites import DRF_URLS, for_members
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from fastverify import AsyncSessions, Sessions, StoreUnavailable
from fastverify.adapters.django import session_required
from fastverify.adapters.drf import SessionAuthentication, SessionUser


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


@pytest.fixture
def given(sessions: AsyncSessions, embedded_url: str) -> dict[str, Any]:
    return {"URL": embedded_url, "CONFIG": sessions.config}


def site(given: dict[str, Any], urls: Any = DRF_URLS) -> Any:
    return served(make_handler(WSGIHandler, given, urls, MIDDLEWARE))


# --- users ----------------------------------------------------------------------------------------------------------


def test_the_default_user_is_what_the_framework_expects_of_one() -> None:
    user = SessionUser("user-1")
    assert user.is_authenticated and user.is_active and not user.is_anonymous and not user.is_staff
    assert (user.pk, user.id, str(user)) == ("user-1", "user-1", "user-1")
    assert user == SessionUser("user-1") and user != SessionUser("user-2") and len({user, SessionUser("user-1")}) == 1


async def test_a_guest_is_nobodys_account(given: dict[str, Any], sessions: AsyncSessions) -> None:
    given["USER"] = lambda user_id: None
    guest = await sessions.guest({"cart": [1]})
    async with Client(site(given)) as client:
        client.access = guest.access_token
        seen = await client.call("/maybe", "GET")
        assert seen.json()["user"] == guest.session.user_id
        refused = await client.call("/me", "GET")
        assert refused.status_code == 403 and "front-token" not in refused.headers
        assert await sessions.info(guest.session.handle) is not None


class Account:
    is_authenticated = True

    def __init__(self, user_id: str) -> None:
        self.pk = f"account of {user_id}"


def account(user_id: str) -> Account | None:
    return None if user_id == "gone" else Account(user_id)


def whoami(request: Any) -> Any:
    return Response({"user": request.user.pk})


async def test_the_application_makes_its_own_users(given: dict[str, Any], sessions: AsyncSessions) -> None:
    app = site(given, [path("", for_members(whoami))])
    async with Client(app) as client:
        for hook in ("test_drf.account", account):
            with override_settings(FASTVERIFY={"USER": hook}):
                token = (await sessions.create("user-1")).access_token
                assert (await client.call("/", "GET", token=token)).json() == {"user": "account of user-1"}
                gone = (await sessions.create("gone")).access_token
                response = await client.call("/", "GET", token=gone)
                assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
                # Or the client would refresh, and come back, and refresh.
                assert response.headers["front-token"] == "remove"


# --- answers --------------------------------------------------------------------------------------------------------


class NeverMind(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class Forbidden(APIView):
    permission_classes = [NeverMind]  # noqa: RUF012

    def get(self, request: Any) -> Any:
        raise AssertionError


async def test_a_missing_session_is_401_and_a_missing_permission_403(
    given: dict[str, Any], sessions: AsyncSessions
) -> None:
    token = (await sessions.create("user-1")).access_token
    async with Client(site(given, [path("", Forbidden.as_view())])) as client:
        response = await client.call("/", "GET")
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        assert "front-token" not in response.headers
        response = await client.call("/", "GET", token=token)
        assert (response.status_code, list(response.json())) == (403, ["detail"])


async def test_without_our_exception_handler_the_status_is_still_401(given: dict[str, Any]) -> None:
    own = {name: value for name, value in settings.REST_FRAMEWORK.items() if name != "EXCEPTION_HANDLER"}
    with override_settings(REST_FRAMEWORK=own):
        async with Client(site(given)) as client:
            response = await client.call("/me", "GET")
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"


async def test_other_errors_are_the_frameworks_business(given: dict[str, Any], sessions: AsyncSessions) -> None:
    def failing(request: Any) -> Any:
        request.auth.merge_payload({"seen": True})
        raise {"400": ValidationError("no"), "403": PermissionDenied("no")}[request.query_params["how"]]

    token = (await sessions.create("user-1")).access_token
    async with Client(site(given, [path("", for_members(failing))])) as client:
        for how in (400, 403):
            response = await client.call(f"/?how={how}", token=token)
            assert response.status_code == how and "message" not in response.json()
            assert sessions.verify(response.headers["st-access-token"]).payload == {"seen": True}


async def test_a_revoked_session_is_cleared_although_the_framework_stands_between(
    given: dict[str, Any], sessions: AsyncSessions
) -> None:
    issued = await sessions.create("user-1")
    await sessions.revoke(issued.session.handle)
    async with Client(site(given)) as client:
        response = await client.call("/me", "GET", cookie=f"sAccessToken={issued.access_token}")
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        cleared = {text.partition(";")[0] for text in response.headers.get_list("set-cookie")}
        assert cleared == {"sAccessToken=", "sRefreshToken="} and response.headers["front-token"] == "remove"


async def test_an_outage_is_503_for_the_framework_too(
    given: dict[str, Any], sessions: AsyncSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable(retry_after=3)

    token = (await sessions.create("user-1")).access_token
    monkeypatch.setattr(Sessions, "verify", stale)
    async with Client(site(given)) as client:
        for url in ("/me", "/maybe"):
            response = await client.call(url, "GET", token=token)
            assert (response.status_code, response.headers["retry-after"]) == (503, "3")
            assert "front-token" not in response.headers


# --- beside other ways ----------------------------------------------------------------------------------------------


class ByKey(BaseAuthentication):
    def authenticate(self, request: Any) -> Any:
        return (SessionUser("robot"), None) if request.headers.get("x-key") == "k" else None


class Both(APIView):
    authentication_classes = [SessionAuthentication, ByKey]  # noqa: RUF012
    permission_classes = [IsAuthenticated]  # noqa: RUF012

    def post(self, request: Any) -> Any:
        return whoami(request)


async def test_it_stands_beside_other_authentication_classes(given: dict[str, Any], sessions: AsyncSessions) -> None:
    token = (await sessions.create("user-1")).access_token
    async with Client(site(given, [path("", Both.as_view())])) as client:
        assert (await client.call("/", token=token)).json() == {"user": "user-1"}
        assert (await client.call("/", x_key="k")).json() == {"user": "robot"}
        assert (await client.call("/", authorization="Bearer of.somebody.else", x_key="k")).json() == {"user": "robot"}
        assert (await client.call("/")).json() == {"message": "unauthorised"}


@method_decorator(session_required(strict=True), name="dispatch")
class Guarded(APIView):
    authentication_classes = []  # noqa: RUF012

    def get(self, request: Any) -> Any:
        return Response({"user": request.fastverify.current.user_id})


async def test_session_required_guards_a_whole_view(given: dict[str, Any], sessions: AsyncSessions) -> None:
    token = (await sessions.create("user-1")).access_token
    async with Client(site(given, [path("", Guarded.as_view())])) as client:
        assert (await client.call("/", "GET", token=token)).json() == {"user": "user-1"}
        assert (await client.call("/", "GET")).json() == {"message": "unauthorised"}


async def test_its_views_work_in_an_asynchronous_server(given: dict[str, Any], sessions: AsyncSessions) -> None:
    async with Client(make_handler(ASGIHandler, given, DRF_URLS, MIDDLEWARE), "cookie") as client:
        await client.login()
        assert (await client.call('/merge?patch={"a":1}')).json()["payload"] == {"a": 1}
        assert (await client.call("/me")).json()["payload"] == {"a": 1}
        assert (await client.call("/login-and-fail?user=x")).json() == {"message": "unauthorised"}
        assert not list(client.cookies.jar)


def test_the_authentication_class_can_be_loaded_before_the_frameworks_views() -> None:
    """The framework imports the default classes while it loads its own views: a circle, if ours imported those."""
    program = (
        "import sys; from django.conf import settings; settings.configure(); "
        "import fastverify.adapters.drf; sys.exit('rest_framework.views' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
