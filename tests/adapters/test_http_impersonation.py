"""Acting as another user behind HTTP, in every adapter."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from clients import Client, Open
from sites import Build

from fastverify import AsyncSessions

TRANSFERS = ["header", "cookie"]


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


async def who(client: Client) -> Any:
    response = await client.call("/me", "GET")
    assert response.status_code == 200
    return response.json()


def refusal(response: httpx.Response) -> str:
    """What the client is told, which touches no token."""
    assert response.status_code == 403 and "front-token" not in response.headers
    (failure,) = response.json()["claimValidationErrors"]
    assert failure["id"] == "act"
    return str(failure["reason"]["message"])


def has_no_session(client: Client) -> bool:
    return not client.access and not client.refresh_token and not list(client.cookies.jar)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_there_and_back(build: Build, sessions: AsyncSessions, transfer: str) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.call('/login?user=admin&payload={"role":"admin"}')
        admin = await who(client)
        assert (await client.call("/own", "GET")).status_code == 200
        acting = await client.call("/impersonate?user=user-1")
        assert ("set-cookie" in acting.headers) is (transfer == "cookie")
        assert ("st-refresh-token" in acting.headers) is (transfer == "header")
        assert acting.headers["front-token"] and acting.headers["cache-control"] == "no-store"
        as_user = await who(client)
        assert acting.json() == as_user
        assert (as_user["user"], as_user["payload"]) == ("user-1", {"act": {"sub": "admin"}})
        assert refusal(await client.call("/own", "GET")) == "impersonated"
        assert (await client.refresh()).status_code == 200
        assert (await who(client))["handle"] == as_user["handle"]
        (info,) = await sessions.list_sessions("user-1")
        assert (info.actor, info.actor_handle) == ("admin", admin["handle"])

        back = await client.call("/return")
        assert back.status_code == 200 and back.json() == admin
        assert ("set-cookie" in back.headers) is (transfer == "cookie")
        assert await who(client) == admin
        assert (await client.refresh()).status_code == 200
        assert await who(client) == admin
        assert await sessions.info(as_user["handle"]) is None
        assert (await client.call("/impersonate?user=user-2")).json()["user"] == "user-2"


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_return_whose_reply_was_lost_is_repeated(build: Build, sessions: AsyncSessions, transfer: str) -> None:
    app = build(sessions)
    async with Client(app, transfer) as client, Client(app, transfer) as lost:
        await client.login("admin")
        await client.call("/impersonate?user=user-1")
        lost.access, lost.refresh_token = client.access, client.refresh_token
        lost.cookies.update(client.cookies)
        assert (await lost.call("/return")).status_code == 200
        assert (await client.call("/return")).json()["user"] == "admin"
        assert (await who(client))["user"] == "admin"


async def test_nobody_acts_by_somebody_who_acts_nor_comes_back_from_nowhere(
    build: Build, sessions: AsyncSessions
) -> None:
    async with Client(build(sessions)) as client:
        assert (await client.call("/impersonate?user=user-1")).status_code == 401
        assert (await client.call("/return")).status_code == 401
        await client.login("admin")
        assert refusal(await client.call("/return")) == "acts as nobody else"
        await client.call("/impersonate?user=user-1")
        assert refusal(await client.call("/impersonate?user=user-2")) == "acts as another user already"
        assert (await client.call("/return")).json()["user"] == "admin"


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_when_the_actors_session_has_ended_so_has_the_other(
    build: Build, sessions: AsyncSessions, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.login("admin")
        admin = await who(client)
        await client.call("/impersonate?user=user-1")
        await sessions.revoke(admin["handle"])
        assert (await client.refresh()).status_code == 401
        assert has_no_session(client)
        assert await sessions.handles("user-1") == []


async def test_a_return_to_a_session_that_has_ended_clears_all(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions), "cookie") as client:
        await client.login("admin")
        admin = await who(client)
        await client.call("/impersonate?user=user-1")
        await sessions.revoke(admin["handle"])
        response = await client.call("/return")
        assert response.status_code == 401 and response.headers["front-token"] == "remove"
        assert has_no_session(client)


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_who_signs_out_while_acting_is_signed_out_of_both(
    build: Build, sessions: AsyncSessions, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client:
        await client.login("admin")
        await client.call("/impersonate?user=user-1")
        assert (await client.call("/auth/signout", rid="session")).status_code == 200
        assert has_no_session(client)
        assert await sessions.handles("user-1") == await sessions.handles("admin") == []


async def test_a_cookie_needs_its_proof_for_both_ways(build: Build, open_sessions: Open) -> None:
    sessions = await open_sessions(anti_csrf="VIA_TOKEN")
    async with Client(build(sessions), "cookie") as client:
        await client.login("admin")
        assert (await client.call("/impersonate?user=user-1", anti_csrf="wrong")).status_code == 401
        admin_csrf = client.anti_csrf
        assert (await client.call("/impersonate?user=user-1")).status_code == 200
        assert client.anti_csrf != admin_csrf
        assert (await client.call("/return", anti_csrf="wrong")).status_code == 401
        assert (await who(client))["user"] == "user-1"
        assert (await client.call("/return")).json()["user"] == "admin"
        assert client.anti_csrf == admin_csrf
        assert (await client.refresh()).status_code == 200
