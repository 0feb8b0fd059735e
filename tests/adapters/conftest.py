"""Sessions on a real store, and the site in each framework."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from blocking_sites import BLOCKING_SITES, served
from clients import Open
from django_sites import BLOCKING_DJANGO_SITES, DJANGO_SITES
from sites import SITES, Build

from fastverify import AsyncSessions, Config, Sessions, SessionVerifier
from fastverify.store import open_store

SECRET = bytes(range(32))
ASYNC = {**SITES, **DJANGO_SITES}
BLOCKING = {**BLOCKING_SITES, **BLOCKING_DJANGO_SITES}


class Opened:
    """The sessions that a test has opened, and how."""

    def __init__(self) -> None:
        self._sources: dict[AsyncSessions, tuple[str, dict[str, Any]]] = {}
        self._stack = ExitStack()

    def add(self, sessions: AsyncSessions, url: str, sources: dict[str, Any]) -> None:
        self._sources[sessions] = url, sources

    def blocking(self, sessions: AsyncSessions) -> Sessions:
        """Sessions of the same store and settings, for a blocking framework."""
        url, sources = self._sources[sessions]
        twin = self._stack.enter_context(Sessions(open_store(url), sessions.config, **sources))
        assert twin.jwks()["keys"]  # which waits for them
        return twin

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    opened.close()


@pytest.fixture
async def open_sessions(request: pytest.FixtureRequest, unique_prefix: str, opened: Opened) -> AsyncIterator[Open]:
    """Opens AsyncSessions and closes them: ``await open_sessions(exchange_seconds=0)``; apart from each other."""
    numbers = itertools.count()
    async with AsyncExitStack() as stack:

        async def open_(url: str | None = None, *, clock: Callable[[], float] | None = None, **settings: Any) -> Any:
            defaults = {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:3000", "shards": 1}
            prefix = f"{unique_prefix}-{next(numbers)}"
            config = Config(**{**defaults, "secret": SECRET, "key_prefix": prefix, **settings})
            url = url or request.getfixturevalue("embedded_url")
            sources = {"clock": clock} if clock else {}
            sessions = AsyncSessions(open_store(url), config, **sources)
            opened.add(sessions, url, sources)
            return await stack.enter_async_context(sessions)

        yield open_


@pytest.fixture
async def gateway(sessions: AsyncSessions, embedded_url: str) -> AsyncIterator[SessionVerifier]:
    """A verifier of its own, as another process would have, that knows all that has been revoked so far."""
    config = sessions.config
    await sessions.jwks()
    verifier = SessionVerifier(open_store(embedded_url), issuer=config.issuer, prefix=config.key_prefix)
    verifier.start(10)
    yield verifier
    verifier.close()


@pytest.fixture(params=[*ASYNC, *BLOCKING])
def build(request: pytest.FixtureRequest, opened: Opened) -> Build:
    """Builds the site in each framework in turn, as an ASGI application that uses the same store as the test."""
    if request.param in ASYNC:
        return ASYNC[request.param]

    def build_blocking(sessions: AsyncSessions, **options: Any) -> Any:
        return served(BLOCKING[request.param](opened.blocking(sessions), **options))

    return build_blocking
