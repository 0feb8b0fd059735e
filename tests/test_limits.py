"""How many sessions a user may have, and how long they last: what falls out is over everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from facades import Facade, open_facade, refuses, settings, until
from session_lab import plain_client

from fastverify import Event, Issued, SessionVerifier, Unauthorised

Start = Callable[..., Awaitable[Facade]]


@pytest.fixture(params=["sync", "async"])
async def start(request: pytest.FixtureRequest, store_url: str, unique_prefix: str) -> AsyncIterator[Start]:
    """Starts a session service with these settings, by each manager on each store."""
    opened = list[Facade]()

    async def begin(**options: Any) -> Facade:
        config = settings(unique_prefix, exchange_seconds=0, **options)
        opened.append(await open_facade(request.param, store_url, config, on_event=Heard()))
        return opened[-1]

    yield begin
    for facade in opened:
        await facade.close()


class Heard(list[Event]):
    def __call__(self, event: Event) -> None:
        self.append(event)


def age(life: Facade, issued: Issued, seconds: int) -> None:
    """Let time pass for one session."""
    with plain_client(life.sessions.gateway._store) as store:
        (key,) = store.keys(f"{{{life.sessions.config.key_prefix}:*:s:{issued.session.handle}")
        for name in ("handed_at", "created_at", "seen_at", "idle_exp", "abs_exp"):
            store.hincrby(key, name, -1000 * seconds)


async def is_over(life: Facade, issued: Issued) -> bool:
    """Whether nothing of a session is left for its owner."""
    handle = issued.session.handle
    listed = handle in await life.handles(issued.session.user_id)
    try:
        await life.refresh(issued.refresh_token)
    except Unauthorised:
        assert not listed and await life.info(handle) is None
        return True
    assert listed
    return False


async def test_the_oldest_session_falls_out_and_every_verifier_and_listener_hears_of_it(
    start: Start, store_url: str
) -> None:
    life = await start(max_sessions_per_user=2, event_stream=100)
    config = life.sessions.config
    gateway = SessionVerifier.connect(store_url, issuer=config.issuer, prefix=config.key_prefix)
    try:
        oldest, *others = [await life.create("user-1") for _ in range(2)]
        age(life, oldest, 10)
        assert gateway.verify(oldest.access_token).user_id == "user-1"
        stranger = await life.create("user-2")
        others.append(await life.create("user-1"))
        assert refuses(life, oldest.access_token), "here at once"
        until(lambda: refuses(gateway, oldest.access_token))
        assert await is_over(life, oldest)
        for issued in (*others, stranger):
            assert gateway.verify(issued.access_token).handle == issued.session.handle
            assert not await is_over(life, issued)
        kept = [event for event in (await life.events()).events if event.name == "session_revoked"]
        told = [event for event in life.sessions._on_event if event.name == "session_revoked"]
        for (event,) in (kept, told):
            assert (event.handle, event.user_id, event.why) == (oldest.session.handle, "user-1", "limit")
    finally:
        gateway.close()


async def test_a_session_that_is_not_refreshed_in_time_is_over(start: Start) -> None:
    life = await start(access_token_lifetime=60, idle_timeout=600)
    used, unused = await life.create("user-1"), await life.create("user-1")
    assert used.refresh_token_expires_at - used.session.issued_at == 600
    for issued in (used, unused):
        age(life, issued, 400)
    used = await life.refresh(used.refresh_token)
    for issued in (used, unused):
        age(life, issued, 400)
    assert await is_over(life, unused)
    assert not await is_over(life, used)


async def test_a_session_is_over_in_the_end_however_busy_it_is(start: Start) -> None:
    life = await start(access_token_lifetime=60, refresh_token_lifetime=600, absolute_lifetime=1000)
    issued = await life.create("user-1")
    for _ in range(2):
        age(life, issued, 400)
        issued = await life.refresh(issued.refresh_token)
    left = issued.refresh_token_expires_at - issued.session.issued_at
    assert left <= 200, "the refresh token lasts no longer than the session"
    age(life, issued, 170)
    issued = await life.refresh(issued.refresh_token)
    assert issued.session.expires_at - issued.session.issued_at <= 30, "nor does the access token"
    age(life, issued, 31)
    assert await is_over(life, issued)


async def test_a_session_may_have_limits_of_its_own_below_the_configured_ones(start: Start) -> None:
    life = await start(refresh_token_lifetime=7200, idle_timeout=1200, absolute_lifetime=2400)
    short = await life.create("user-1", lifetime=300, idle_timeout=200)
    info = await life.info(short.session.handle)
    assert (info.expires_at - info.created_at, info.absolute_expires_at - info.created_at) == (200, 300)
    plain = await life.create("user-1")
    info = await life.info(plain.session.handle)
    assert (info.expires_at - info.created_at, info.absolute_expires_at - info.created_at) == (1200, 2400)
    for issued in (short, plain):
        age(life, issued, 201)
    assert await is_over(life, short)
    assert not await is_over(life, plain)
    for options in ({"lifetime": 2401}, {"idle_timeout": 1201}, {"lifetime": 0}, {"idle_timeout": "60"}):
        with pytest.raises(ValueError, match=r"lifetime|idle_timeout"):
            await life.create("user-1", **options)
