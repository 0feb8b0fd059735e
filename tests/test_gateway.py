"""The session service: ``/v1/verify`` as gateways use it, the session routes beside it, and its health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from fastverify import AsyncSessions, Config
from fastverify.service.app import create_app
from fastverify.service.gateway import identity, original_method

NOBODY = ("", "", "")


def config(prefix: str, **settings: Any) -> Config:
    base = {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:8000", "shards": 1}
    return Config(**{**base, "secret": bytes(range(32)), "key_prefix": prefix, **settings})


@pytest.fixture
async def sessions(embedded_url: str, unique_prefix: str) -> AsyncIterator[AsyncSessions]:
    async with AsyncSessions.connect(embedded_url, config(unique_prefix)) as opened:
        yield opened


def client(sessions: AsyncSessions) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(sessions))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def who(reply: httpx.Response) -> tuple[str, str, str]:
    return (reply.headers["x-user-id"], reply.headers["x-session-handle"], reply.headers["x-tenant-id"])


@pytest.mark.parametrize("path", ["/v1/verify", "/v1/verify/", "/v1/verify/api/orders?page=2"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_good_token_is_allowed_whatever_the_method_and_path(
    sessions: AsyncSessions, method: str, path: str
) -> None:
    issued = await sessions.create("user-1", tenant="acme")
    async with client(sessions) as http:
        reply = await http.request(method, path, headers=bearer(issued.access_token))
    assert reply.status_code == 200
    assert who(reply) == ("user-1", issued.session.handle, "acme")


@pytest.mark.parametrize("headers", [{}, bearer("nonsense"), {"cookie": "sAccessToken=a.b.c"}])
async def test_without_a_session_it_is_401_and_the_identity_is_empty(
    sessions: AsyncSessions, headers: dict[str, str]
) -> None:
    async with client(sessions) as http:
        reply = await http.get("/v1/verify", headers={**headers, "x-user-id": "somebody-else"})
    assert (reply.status_code, who(reply)) == (401, NOBODY)


async def test_a_revoked_session_is_refused(sessions: AsyncSessions) -> None:
    issued = await sessions.create("user-1")
    await sessions.revoke(issued.session.handle)
    async with client(sessions) as http:
        reply = await http.get("/v1/verify", headers=bearer(issued.access_token))
    assert (reply.status_code, who(reply)) == (401, NOBODY)


async def test_no_reply_sets_a_cookie_or_clears_a_token(sessions: AsyncSessions) -> None:
    issued = await sessions.create("user-1")
    cookie = {"cookie": f"sAccessToken={issued.access_token}"}
    async with client(sessions) as http:
        allowed = await http.get("/v1/verify", headers=cookie)
        await sessions.revoke(issued.session.handle)
        refused = await http.get("/v1/verify", headers=cookie)
    assert (allowed.status_code, refused.status_code) == (200, 401)
    for reply in (allowed, refused):
        assert not {"set-cookie", "front-token", "st-access-token", "st-refresh-token"} & set(reply.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-forwarded-method": "GET"}, 200),
        ({"x-forwarded-method": "POST"}, 401),
        ({"x-original-method": "delete"}, 401),
        ({"x-forwarded-method": "POST", "rid": "anti-csrf"}, 200),
    ],
)
async def test_the_rules_against_csrf_go_by_the_original_method(
    embedded_url: str, unique_prefix: str, headers: dict[str, str], status: int
) -> None:
    settings = config(unique_prefix, anti_csrf="VIA_CUSTOM_HEADER")
    async with AsyncSessions.connect(embedded_url, settings) as sessions, client(sessions) as http:
        issued = await sessions.create("user-1")
        reply = await http.get("/v1/verify", headers={"cookie": f"sAccessToken={issued.access_token}", **headers})
    assert reply.status_code == status


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ([], "PUT"),
        ([(b"x-original-method", b"post")], "POST"),
        ([(b"x-original-method", b"GET"), (b"x-forwarded-method", b"DELETE")], "DELETE"),
        ([(b"x-forwarded-method", b"PATCH"), (b"x-forwarded-method", b"GET")], "PATCH"),
    ],
)
def test_the_original_method_is_the_first_that_a_gateway_names(headers: list[Any], method: str) -> None:
    assert original_method({"method": "PUT", "headers": headers}) == method


@pytest.mark.parametrize("user_id", ["Zoë", "a\r\nx-admin: 1", "100%", "two words", "\x00"])
def test_an_identity_is_one_header_value_of_printable_ascii(user_id: str) -> None:
    value = dict(identity(user_id, "", ""))[b"x-user-id"].decode("ascii")
    assert value.isprintable() and " " not in value
    assert unquote(value) == user_id


async def test_the_session_routes_are_served_beside_it(sessions: AsyncSessions) -> None:
    issued = await sessions.create("user-1")
    async with client(sessions) as http:
        refreshed = await http.post("/auth/session/refresh", headers=bearer(issued.refresh_token))
        jwks = await http.get("/auth/jwt/jwks.json")
        elsewhere = await http.get("/v1/verification")
    assert refreshed.status_code == 200
    assert sessions.verify(refreshed.headers["st-access-token"]).user_id == "user-1"
    assert jwks.json() == await sessions.jwks()
    assert elsewhere.status_code == 404


async def test_health_says_ready_only_while_verification_can_answer(sessions: AsyncSessions) -> None:
    async with client(sessions) as http:
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 200


async def test_without_a_store_it_is_live_and_not_ready_and_says_nothing_about_sessions(
    sessions: AsyncSessions, unique_prefix: str, tmp_path: Any
) -> None:
    issued = await sessions.create("user-1")
    away = AsyncSessions.connect(f"unix://{tmp_path}/nobody-listens-here", config(unique_prefix), wait=0)
    try:
        async with client(away) as http:
            assert (await http.get("/health/live")).status_code == 200
            not_ready = await http.get("/health/ready")
            verdict = await http.get("/v1/verify", headers=bearer(issued.access_token))
    finally:
        await away.aclose()
    assert (not_ready.status_code, verdict.status_code) == (503, 503)
    assert verdict.headers["retry-after"] and not_ready.headers["retry-after"]
    assert who(verdict) == NOBODY
