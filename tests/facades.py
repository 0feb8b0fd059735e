"""Sessions and AsyncSessions behind one awaitable face, so that one test body runs over both."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fix_stores import PATIENT

from fastverify import AsyncSessions, Config, RevokedToken, Sessions, SessionVerifier, Unauthorised
from fastverify.store import open_store

SECRET = bytes(range(32))


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Awaited:
    """Every method of something awaitable, whether it is blocking or not."""

    def __init__(self, inside: Any) -> None:
        self._inside = inside

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self._inside, name)

        async def call(*args: Any, **options: Any) -> Any:
            result = operation(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return call


class Facade(Awaited):
    """Every operation awaitable, whichever manager is inside; ``verify`` stays an ordinary function."""

    def __init__(self, sessions: Sessions | AsyncSessions) -> None:
        super().__init__(sessions)
        self.sessions = sessions
        self.verify = sessions.verify
        self.session_claims = Awaited(sessions.session_claims)

    async def close(self) -> None:
        if isinstance(self.sessions, AsyncSessions):
            await self.sessions.aclose()
        else:
            self.sessions.close()


def settings(prefix: str, **changes: Any) -> Config:
    """Settings for tests, apart from everybody else's in the same store."""
    options: dict[str, Any] = {
        "api_domain": "http://api.test",
        "website_domain": "http://api.test",
        "secret": SECRET,
        "key_prefix": prefix,
        "shards": 4,
    }
    return Config(**{**options, **changes})


async def open_facade(kind: str, url: str, config: Config, **sources: Any) -> Facade:
    """A facade over ``Sessions`` (``sync``) or ``AsyncSessions`` (``async``), ready, and patient."""
    manager = (Sessions if kind == "sync" else AsyncSessions)(open_store(url, **PATIENT), config, **sources)
    facade = Facade(manager)
    await facade.jwks()
    return facade


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something that happens in the background has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def refuses(gateway: SessionVerifier | Sessions | Facade, token: str) -> bool:
    """Whether a token is refused as one of an ended session."""
    try:
        gateway.verify(token)
    except Unauthorised as error:
        assert error.clear_tokens
        assert isinstance(error.__cause__, RevokedToken)
        return True
    return False
