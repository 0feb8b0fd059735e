"""Anonymous sessions behind HTTP, in every adapter."""

from __future__ import annotations

import time
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


async def who(client: Client) -> dict[str, Any]:
    """Whose session a request has; of a route that asks nobody to sign in."""
    response = await client.call("/maybe", "GET")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def failed(response: httpx.Response) -> list[Any]:
    assert response.status_code == 403
    return list(response.json()["claimValidationErrors"])


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_sign_in_keeps_what_the_guest_had(build: Build, sessions: AsyncSessions, transfer: str) -> None:
    async with Client(build(sessions), transfer) as client:
        begun = await client.call('/guest?payload={"cart":[1],"plan":"none"}')
        guest = await who(client)
        assert begun.json() == guest
        assert guest["user"].startswith("guest-") and guest["payload"] == {"cart": [1], "plan": "none"}
        assert await sessions.set_data(guest["handle"], {"seen": 2})

        assert (await client.call('/login?user=user-1&payload={"plan":"pro"}')).status_code == 200
        user = (await client.call("/me", "GET")).json()
        assert (user["user"], user["payload"]) == ("user-1", {"cart": [1], "plan": "pro"})
        assert user["handle"] != guest["handle"]
        assert await sessions.get_data(user["handle"]) == {"seen": 2}
        assert await sessions.info(guest["handle"]) is None
        assert (await client.refresh()).status_code == 200
        assert (await client.call("/me", "GET")).json() == user


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_guest_refreshes_and_signs_out(build: Build, open_sessions: Open, transfer: str) -> None:
    sessions = await open_sessions(exchange_seconds=0)
    async with Client(build(sessions), transfer) as client:
        await client.call("/guest")
        guest = await who(client)
        assert (await client.refresh()).status_code == 200
        assert await who(client) == guest
        assert (await client.call("/auth/signout", rid="session")).status_code == 200
        assert await sessions.info(guest["handle"]) is None
        assert await who(client) == {"user": None}


async def test_a_new_guest_ends_the_session_before(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.call("/guest")
        first = await who(client)
        await client.call("/guest")
        assert (await who(client))["user"] != first["user"]
        assert await sessions.info(first["handle"]) is None


async def test_a_route_may_be_for_those_who_have_signed_in(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.call("/guest")
        refused = await client.call("/member", "GET")
        if "detail" not in refused.json():  # Django REST framework has its own word for it: nobody is authenticated
            assert failed(refused) == [{"id": "guest", "reason": {"message": "a guest"}}]
        assert refused.status_code == 403 and "front-token" not in refused.headers
        await client.login()
        assert (await client.call("/member", "GET")).json()["user"] == "user-1"


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_sign_in_whose_reply_was_lost_is_the_same_one_again(
    build: Build, sessions: AsyncSessions, transfer: str
) -> None:
    async with Client(build(sessions), transfer) as client, Client(build(sessions), transfer) as lost:
        await client.call('/guest?payload={"cart":[1]}')
        lost.access, lost.refresh_token = client.access, client.refresh_token
        lost.cookies.update(client.cookies)
        await lost.login()
        handle = (await lost.call("/me", "GET")).json()["handle"]
        await client.login()  # which still has the guest's tokens
        user = (await client.call("/me", "GET")).json()
        assert (user["handle"], user["payload"]) == (handle, {"cart": [1]})
        assert await sessions.handles("user-1") == [handle]


@pytest.mark.parametrize("transfer", TRANSFERS)
async def test_a_guest_whose_access_token_has_expired_is_promoted_too(
    build: Build, open_sessions: Open, unique_prefix: str, transfer: str
) -> None:
    past = time.time() - 7200
    before = await open_sessions(key_prefix=unique_prefix, clock=lambda: past)
    now = await open_sessions(key_prefix=unique_prefix)
    async with Client(build(before), transfer) as browser, Client(build(now), transfer) as client:
        await browser.call('/guest?payload={"cart":[1]}')
        client.access, client.refresh_token = browser.access, browser.refresh_token
        client.cookies.update(browser.cookies)
        assert (await client.call("/maybe", "GET")).status_code == 401
        await client.login()
        assert (await client.call("/me", "GET")).json()["payload"] == {"cart": [1]}


async def test_a_guest_that_was_revoked_leaves_a_plain_sign_in(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.call('/guest?payload={"cart":[1]}')
        await sessions.revoke((await who(client))["handle"])
        await client.login()
        assert (await client.call("/me", "GET")).json()["payload"] == {}


async def test_previous_none_leaves_the_guest_alone(build: Build, sessions: AsyncSessions) -> None:
    async with Client(build(sessions)) as client:
        await client.call('/guest?payload={"cart":[1]}')
        guest = await who(client)
        await client.call("/login-beside?user=user-1")
        assert (await client.call("/me", "GET")).json()["payload"] == {}
        assert await sessions.info(guest["handle"]) is not None
