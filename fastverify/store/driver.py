"""Runs calls on a store, blocking or under asyncio, and turns every fault into StoreUnavailable.

Redis-py's connections do the talking: protocol, TLS, timeouts. Its clients and pools are not used, because three rules
must hold that they keep only in part (revocation.md, F11 and F12):

1. Nothing is sent twice. A lost reply does not mean that a script has not run, and to run a rotation twice is to accuse
   an honest client of theft. What is sent again is a call that was answered with NOSCRIPT: that one has not run.
2. A connection on which anything went wrong is closed, a call cancelled or timed out included: a reply that comes late
   must not be taken for the answer to somebody else's question.
3. Waiting is bounded, for a free connection too, and giving one back never waits: a caller that is cancelled at that
   moment cannot take the connection along.

What is said to the server is written once (talks.py); ``Store`` and ``AsyncStore`` are two ways to hold a talk.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.connection import Connection as AsyncTcp
from redis.asyncio.connection import SSLConnection as AsyncTls
from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnix
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection as Connection
from redis.connection import Connection as Tcp
from redis.connection import SSLConnection as Tls
from redis.connection import UnixDomainSocketConnection as Unix
from redis.exceptions import DataError, MaxConnectionsError, RedisError, ResponseError
from redis.retry import Retry

from ..errors import ConfigError, StoreUnavailable
from .calls import Call, Flow, Pause, T
from .faults import FAULTS, unavailable
from .talks import Command, Talk, check_requirements, run_scripts

# In seconds, the longest wait for a free connection, for one to be made, for a reply, for it all (revocation.md, F11).
# A free connection is waited for ten times longer than F11 says: on an idle server, 50 ms refused most of 300 calls at
# once in one event loop, for they measured that loop's own delay and not the store's.
ACQUIRE_SECONDS = 0.5
CONNECT_SECONDS = 0.25
COMMAND_SECONDS = 0.5
TOTAL_SECONDS = 2.0
#: Connections of one store in one process (of an AsyncStore: in one event loop).
CONNECTIONS = 32

#: What all connections have in common. RESP2: plain replies, and no messages that nobody asked for.
_COMMON = {"protocol": 2, "decode_responses": False, "health_check_interval": 0, "driver_info": None}
_CLASSES: dict[str, tuple[Any, Any]] = {"tcp": (Tcp, AsyncTcp), "tls": (Tls, AsyncTls), "unix": (Unix, AsyncUnix)}


class LocalServer(Protocol):
    """A server that is ours to start: what Store needs of ``embedded.Server``."""

    def ensure(self) -> None:
        """Return when it answers."""

    def close(self) -> None:
        """Let it go."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is. ``url`` may be shown to anybody; ``settings`` (redis-py's names) may hold a password."""

    url: str
    kind: str
    settings: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a store. Times are in seconds."""

    connections: int = CONNECTIONS
    acquire: float = ACQUIRE_SECONDS
    connect: float = CONNECT_SECONDS
    command: float = COMMAND_SECONDS
    total: float = TOTAL_SECONDS

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int if name == "connections" else int | float) or not value > 0:
                raise ConfigError(
                    name, "must be greater than 0" if name != "connections" else "must be a whole number from 1"
                )


def _packed(connection: Connection | AsyncConnection, commands: Sequence[Command]) -> list[bytes]:
    """The commands as they are sent. A value that cannot be is the mistake of the caller, and not shown."""
    with suppress(DataError, UnicodeError):  # not chained: a UnicodeError holds the whole text
        return connection.pack_commands(commands)
    raise TypeError("the arguments of a call must be str without surrogates, bytes or int")


# --- blocking ---


class Store:
    """A store as blocking code uses it: from any thread, and after a fork with connections of its own.

    Nothing is sent before ``start`` or ``run``. Made by ``open_store``.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits | None = None, server: LocalServer | None = None) -> None:
        self._endpoint = endpoint
        self._limits = limits or Limits()
        self._server = server
        self._pool = self._new_pool()
        self._checked = False

    @property
    def url(self) -> str:
        """Where the store is, without the password."""
        return self._endpoint.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def start(self) -> None:
        """Make sure that there is a server and that it can be relied upon.

        An embedded server is started if it does not run, or no longer. Blocks; may be called again, cheaply, from any
        thread.

        Raises:
            ConfigError: the server is too old, or may evict data (revocation.md, F9); or one cannot be started.
            StoreUnavailable: it does not answer.
        """
        if self._server is not None:
            self._server.ensure()
        if not self._checked:
            self._hold(check_requirements())
            self._checked = True

    def run(self, call: Call) -> Any:
        """Run one script and return its reply: int, bytes, None, or a list of these.

        Raises:
            StoreUnavailable: there was no reply, or it was an error. Whether the script has run is not known.
        """
        return self.run_many((call,))[0]

    def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """Run independent scripts in one round trip and return their replies in the order of the calls.

        Raises:
            StoreUnavailable: any of them failed. Each may have run or not.
        """
        return self._hold(run_scripts(calls)) if calls else []

    def subscribe(self, channels: Sequence[str]) -> Subscription:
        """Listen on channels, over a connection of its own.

        Raises:
            StoreUnavailable: they cannot be listened on.
        """
        if self._pool.closed:
            raise StoreUnavailable("the store is closed")
        connection = self._pool.make()
        try:
            return Subscription(connection, channels, self.url)
        except FAULTS as error:
            connection.disconnect()
            raise unavailable(error, self.url) from error

    def open_async(self) -> AsyncStore:
        """The same store for one event loop. No I/O happens here, nor is a server started: that is for ``start``."""
        return AsyncStore(self._endpoint, self._limits)

    def close(self) -> None:
        """Close the connections, and stop an embedded server that this process started and no longer uses."""
        self._pool.close()
        if self._server is not None:
            self._server.close()

    def _hold(self, talk: Talk[T]) -> T:
        deadline = time.monotonic() + self._limits.total
        if self._pool.pid != os.getpid():
            self._pool = self._new_pool(self._pool.closed)  # the connections made before the fork are the parent's
        try:
            with self._pool.lend() as connection:
                commands = next(talk)
                while True:
                    replies = _exchange(connection, commands, deadline)
                    try:
                        commands = talk.send(replies)
                    except StopIteration as end:
                        return end.value  # type: ignore[no-any-return]
        except FAULTS as error:
            raise unavailable(error, self.url) from error

    def _new_pool(self, closed: bool = False) -> _Pool:
        make, _ = _CLASSES[self._endpoint.kind]
        settings = {
            **_COMMON,
            **self._endpoint.settings,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": self._limits.connect,
            "socket_timeout": self._limits.command,
        }
        return _Pool(lambda: make(**settings), self._limits, closed)


class Subscription:
    """Messages that come by themselves. Used by one thread; made by ``Store.subscribe``."""

    def __init__(self, connection: Connection, channels: Sequence[str], url: str) -> None:
        self._connection = connection
        self._url = url
        connection.connect()
        connection.send_packed_command(_packed(connection, [("SUBSCRIBE", *channels)]))
        for _ in channels:
            connection.read_response()

    def get(self, timeout: float) -> str | None:
        """The channel of the next message; None if none comes within ``timeout`` seconds.

        Raises:
            StoreUnavailable: the connection is lost.
        """
        try:
            if not self._connection.can_read(timeout):
                return None
            return str(self._connection.read_response()[1].decode())
        except FAULTS as error:
            raise unavailable(error, self._url) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


class _Pool:
    """Connections for threads; the one that came back last goes out first, so that the rest may idle."""

    def __init__(self, make: Callable[[], Connection], limits: Limits, closed: bool) -> None:
        self.make = make
        self._idle: list[Connection] = []
        self._free = threading.Semaphore(limits.connections)
        self._patience = limits.acquire
        self.closed = closed
        self.pid = os.getpid()

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """A connection that is ready. It is closed when anything is raised but an error that the server replied."""
        if self.closed:
            raise StoreUnavailable("the store is closed")
        if not self._free.acquire(timeout=self._patience):
            raise MaxConnectionsError
        try:
            connection, fresh = self._take()
            try:
                if not fresh and _disturbed(connection):
                    connection.disconnect()
                connection.connect()  # does nothing while it is connected
                yield connection
            except ResponseError:
                raise
            except BaseException:
                connection.disconnect()
                raise
            finally:
                self._idle.append(connection)
        finally:
            self._free.release()
            if self.closed:
                self.close()

    def _take(self) -> tuple[Connection, bool]:
        try:
            return self._idle.pop(), False
        except IndexError:
            return self.make(), True

    def close(self) -> None:
        """Close what lies idle now, and the rest as it comes back."""
        self.closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()


def _exchange(connection: Connection, commands: Sequence[Command], deadline: float) -> list[Any]:
    connection.send_packed_command(_packed(connection, commands))
    replies: list[Any] = []
    for _ in commands:
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            replies.append(connection.read_response())
        except ResponseError as error:
            replies.append(error.with_traceback(None))
    return replies


def _disturbed(connection: Connection) -> bool:
    """Whether something has come while nothing was asked: the end of the stream, when the server has closed it.

    Not to be asked of a fresh connection: over TLS 1.3 the session tickets are still to be read.
    """
    try:
        return connection.can_read()
    except (RedisError, OSError):
        return True


# --- asyncio ---


class AsyncStore:
    """A store as one event loop uses it. Made by ``Store.open_async``; to start the server is for the Store."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._pool: _AsyncPool | None = None

    @property
    def url(self) -> str:
        """Where the store is, without the password."""
        return self._endpoint.url

    def __repr__(self) -> str:
        return f"AsyncStore({self.url!r})"

    async def run(self, call: Call) -> Any:
        """As ``Store.run``. A cancelled call may have run or not; its reply is never given to another.

        Raises:
            StoreUnavailable: there was no reply, or it was an error.
            RuntimeError: the store is in use by another event loop.
        """
        return (await self.run_many((call,)))[0]

    async def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """As ``Store.run_many``."""
        return await self._hold(run_scripts(calls)) if calls else []

    async def aclose(self) -> None:
        """Close the connections. Calls that are under way end as they would have."""
        await self._pool_of_this_loop().aclose()

    async def _hold(self, talk: Talk[T]) -> T:
        pool = self._pool_of_this_loop()
        try:
            async with asyncio.timeout(self._limits.total), pool.lend() as connection:
                commands = next(talk)
                while True:
                    async with asyncio.timeout(self._limits.command):
                        replies = await _exchange_async(connection, commands)
                    try:
                        commands = talk.send(replies)
                    except StopIteration as end:
                        return end.value  # type: ignore[no-any-return]
        except FAULTS as error:
            raise unavailable(error, self.url) from error

    def _pool_of_this_loop(self) -> _AsyncPool:
        loop = asyncio.get_running_loop()
        if self._pool is None:
            _, make = _CLASSES[self._endpoint.kind]
            settings = {
                **_COMMON,
                **self._endpoint.settings,
                "retry": AsyncRetry(NoBackoff(), 0),
                "socket_connect_timeout": self._limits.connect,
                "socket_timeout": None,  # the timeouts are ours: redis-py would start a task for each write to watch it
            }
            self._pool = _AsyncPool(lambda: make(**settings), self._limits, loop)
        if self._pool.loop is not loop:
            raise RuntimeError("this AsyncStore belongs to another event loop; open one for each loop")
        return self._pool


class _AsyncPool:
    """As ``_Pool``, for the tasks of one event loop."""

    def __init__(self, make: Callable[[], AsyncConnection], limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.make = make
        self._idle: list[AsyncConnection] = []
        self._free = asyncio.Semaphore(limits.connections)
        self._limits = limits
        self._closed = False
        self.loop = loop

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[AsyncConnection]:
        """As ``_Pool.lend``. On the way back nothing waits: a cancelled task would not."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        await self._acquire()
        try:
            connection, fresh = (self._idle.pop(), False) if self._idle else (self.make(), True)
            try:
                async with asyncio.timeout(self._limits.connect):
                    if not fresh and await _disturbed_async(connection):
                        await connection.disconnect(nowait=True)
                    await connection.connect()
                yield connection
            except ResponseError:
                raise
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            finally:
                if self._closed:
                    await connection.disconnect(nowait=True)
                else:
                    self._idle.append(connection)
        finally:
            self._free.release()

    async def _acquire(self) -> None:
        try:
            async with asyncio.timeout(self._limits.acquire):
                await self._free.acquire()
        except TimeoutError:
            raise MaxConnectionsError from None

    async def aclose(self) -> None:
        """Close what lies idle now, and the rest as it comes back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()


async def _exchange_async(connection: AsyncConnection, commands: Sequence[Command]) -> list[Any]:
    await connection.send_packed_command(_packed(connection, commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error.with_traceback(None))
    return replies


async def _disturbed_async(connection: AsyncConnection) -> bool:
    try:
        return await connection.can_read()
    except (RedisError, OSError):
        return True


# --- flows ---


def drive(store: Store, flow: Flow[T]) -> T:
    """Run a flow to its end on a store and return its result. What the store raises ends the flow."""
    try:
        asked = next(flow)
        while True:
            reply = None
            match asked:
                case Call():
                    reply = store.run(asked)
                case Pause():
                    time.sleep(asked.seconds)
                case _:
                    reply = store.run_many(asked)
            asked = flow.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def drive_async(store: AsyncStore, flow: Flow[T]) -> T:
    """As ``drive``, under asyncio."""
    try:
        asked = next(flow)
        while True:
            reply = None
            match asked:
                case Call():
                    reply = await store.run(asked)
                case Pause():
                    await asyncio.sleep(asked.seconds)
                case _:
                    reply = await store.run_many(asked)
            asked = flow.send(reply)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()
