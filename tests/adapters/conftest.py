"""Sessions on a real store, and the site in each framework."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from clients import Open
from sites import SITES, Build

from fastverify import AsyncSessions, Config
from fastverify.store import open_store

SECRET = bytes(range(32))


@pytest.fixture
async def open_sessions(request: pytest.FixtureRequest, unique_prefix: str) -> AsyncIterator[Open]:
    """Opens AsyncSessions and closes them: ``await open_sessions(exchange_seconds=0)``; apart from each other."""
    numbers = itertools.count()
    async with AsyncExitStack() as stack:

        async def open_(url: str | None = None, *, clock: Callable[[], float] | None = None, **settings: Any) -> Any:
            defaults = {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:3000", "shards": 1}
            prefix = f"{unique_prefix}-{next(numbers)}"
            config = Config(**{**defaults, "secret": SECRET, "key_prefix": prefix, **settings})
            store = open_store(url or request.getfixturevalue("embedded_url"))
            sessions = AsyncSessions(store, config, **({"clock": clock} if clock else {}))
            return await stack.enter_async_context(sessions)

        yield open_


@pytest.fixture(params=SITES)
def build(request: pytest.FixtureRequest) -> Build:
    """Builds the site in each framework in turn."""
    return SITES[request.param]
