"""What ``settings.FASTVERIFY`` says, and the sessions that it opens; for ``adapters.django``.

A process that serves blocking requests has one Sessions, for all its threads. One that serves asynchronous requests has
an AsyncSessions for each event loop, which is closed as its loop ends. Nothing is opened before it is needed.
"""

from __future__ import annotations

import asyncio
import weakref
from _thread import start_new_thread
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..config import Config
from ..errors import ConfigError, StoreUnavailable
from ..manager import AsyncSessions, Sessions
from ..session_claims import GeneralValidators
from ..store import open_store
from ..transport import Transport
from .http import ROUTES, Hooks, HttpSessions, routes_to_serve

S = TypeVar("S", Sessions, AsyncSessions)

_HOOKS = {name.upper(): name for name in Hooks.__optional_keys__}
_NAMED = {"SESSIONS", "USER", "VALIDATORS", *_HOOKS}
_NAMES = {"URL", "CONFIG", "ROUTES", "STRICT", *_NAMED}


class Settings(NamedTuple):
    """Sessions that are the application's own, or else what makes them of either kind."""

    sessions: Sessions | AsyncSessions | None
    make: Callable[[type[Any]], Any]
    routes: tuple[str, ...]
    hooks: Hooks
    validators: GeneralValidators
    strict: bool


def read_settings() -> Settings:
    """What is there now.

    Raises:
        ImproperlyConfigured: it is missing, or a name is unknown, or a value cannot be used.
    """
    try:
        given = settings.FASTVERIFY
    except AttributeError:
        raise ImproperlyConfigured("the setting FASTVERIFY is missing") from None
    if unknown := sorted(given.keys() - _NAMES):
        raise ImproperlyConfigured(f"FASTVERIFY[{unknown[0]!r}] is unknown; there are {', '.join(sorted(_NAMES))}")
    routes = tuple(given.get("ROUTES", ROUTES))
    if strange := [name for name in routes if name not in ROUTES]:
        raise ImproperlyConfigured(f"FASTVERIFY['ROUTES'] names {strange[0]!r}; there are {', '.join(ROUTES)}")
    named = {key: _named(key, given[key]) for key in sorted(_NAMED & given.keys())}
    hooks: Any = {name: named[key] for key, name in _HOOKS.items() if key in named}
    validators = named.get("VALIDATORS", ())
    if not callable(validators) and not isinstance(validators, Sequence):
        raise ImproperlyConfigured("FASTVERIFY['VALIDATORS'] is neither a list nor a function that makes one")
    strict = given.get("STRICT", False)
    if not isinstance(strict, bool):
        raise ImproperlyConfigured("FASTVERIFY['STRICT'] must be True or False")
    if ("SESSIONS" in given) is ("URL" in given):
        raise ImproperlyConfigured("FASTVERIFY needs either 'SESSIONS', or 'URL' and 'CONFIG'")
    if "URL" in given:
        config = _config(given.get("CONFIG"), routes)
        return Settings(None, lambda kind: kind(open_store(given["URL"]), config), routes, hooks, validators, strict)
    make = named["SESSIONS"]
    sessions = make if isinstance(make, Sessions | AsyncSessions) else None
    if sessions is None and not callable(make):
        raise ImproperlyConfigured("FASTVERIFY['SESSIONS'] is neither Sessions, nor AsyncSessions, nor makes them")
    return Settings(sessions, make, routes, hooks, validators, strict)


def _config(given: Any, routes: tuple[str, ...]) -> Config:
    try:
        config = given if isinstance(given, Config) else Config(**given)
        routes_to_serve(Transport(config), routes)
    except (ConfigError, TypeError) as error:
        raise ImproperlyConfigured(f"FASTVERIFY['CONFIG']: {error}") from None
    return config


def _named(key: str, value: Any) -> Any:
    """A value itself, or by its dotted path."""
    try:
        return import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        raise ImproperlyConfigured(f"FASTVERIFY[{key!r}]: {error}") from error


def _close_elsewhere(sessions: Sessions) -> None:
    """Called by the collector, which may run anywhere, under any lock: closing waits for other threads, so not here.

    Nor by a ``Thread``, whose start takes locks of its own.
    """
    start_new_thread(sessions.close, ())


class OpenSessions:
    """The sessions of one middleware: opened when first needed, closed with it or with their event loop.

    The application's own are used as they are, and never closed.
    """

    def __init__(self, given: Settings) -> None:
        self._given = given
        self._shared = self._http(given.sessions) if given.sessions is not None else None
        self._lock = Lock()
        self._of_threads: HttpSessions | None = None
        self._of_loops: dict[asyncio.AbstractEventLoop, tuple[AsyncGenerator[HttpSessions], asyncio.Future[Any]]] = {}

    @property
    def only_async(self) -> bool:
        """Whether there is nothing for blocking requests."""
        return isinstance(self._given.sessions, AsyncSessions)

    def for_threads(self) -> HttpSessions:
        """What serves blocking requests.

        Raises:
            StoreUnavailable: what makes sessions says so.
        """
        if self._shared is not None:
            return self._shared
        with self._lock:
            if self._of_threads is None:
                sessions = self._make(Sessions)
                # At the process's end nothing has to be closed.
                weakref.finalize(self, _close_elsewhere, sessions).atexit = False
                with suppress(StoreUnavailable):  # once for all who wait here; what needs the store says so later
                    sessions.jwks()
                self._of_threads = self._http(sessions)
            return self._of_threads

    async def for_this_loop(self) -> HttpSessions:
        """What serves the requests of the running event loop. Raises as ``for_threads`` does."""
        if self._shared is not None:
            return self._shared
        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            held = self._hold(loop)
            self._of_loops[loop] = held, asyncio.ensure_future(anext(held))
        opening = self._of_loops[loop][1]
        return opening.result() if opening.done() else await asyncio.shield(opening)

    async def _hold(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[HttpSessions]:
        """asyncio closes asynchronous generators before it closes a loop: the moment to close what belongs to it."""
        try:
            async with AsyncExitStack() as closing:
                sessions = self._make(AsyncSessions)
                closing.push_async_callback(sessions.aclose)
                with suppress(StoreUnavailable):
                    await sessions.jwks()
                yield self._http(sessions)
        finally:
            self._of_loops.pop(loop, None)

    def _make(self, kind: type[S]) -> S:
        made = self._given.make(kind)
        if not isinstance(made, kind):
            raise ImproperlyConfigured(f"FASTVERIFY['SESSIONS'] was asked for {kind.__name__} and made something else")
        return made

    def _http(self, sessions: Sessions | AsyncSessions) -> HttpSessions:
        given = self._given
        return HttpSessions(sessions, type(sessions), given.routes, None, given.hooks, given.validators, given.strict)
