"""Connections to the servers of a store: bounded, closed when anything went wrong, dropped when no longer of use.

``Pool`` is for threads, ``AsyncPool`` for the tasks of one event loop; they differ by ``await``. Each is of one server,
has its breaker, and greets it on each new connection (requirements.py). The one that came back last goes out first, so
that the rest may idle. A pool that was closed still lends to calls that are under way, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection as Connection
from redis.exceptions import MaxConnectionsError, RedisError

from .breaker import Breaker
from .endpoint import Limits, Node
from .faults import CircuitOpen, says_server_fails
from .patience import InTime


class AnyPool(Protocol):
    """What Pools needs of a pool."""

    closed: bool


P = TypeVar("P", bound=AnyPool)


class Pools(Generic[P]):
    """A pool for each server, made when it is first asked for."""

    def __init__(self, make: Callable[[Node], P], closed: bool = False) -> None:
        self._make = make
        self._of: dict[Node, P] = {}
        self._lock = threading.Lock()
        self._version = 0
        self.closed = closed
        self.pid = os.getpid()

    def of(self, node: Node) -> P:
        """The pool of a server."""
        try:
            return self._of[node]
        except KeyError:
            with self._lock:
                pool = self._of.setdefault(node, self._make(node))
                pool.closed = self.closed
                return pool

    def keep_only(self, nodes: Callable[[], Collection[Node]], version: int) -> list[P]:
        """Let go of the pools of servers that are not among these any more, guides excepted; they are to be closed."""
        if version == self._version:
            return []
        self._version = version
        with self._lock:
            gone = {node for node in self._of if not node.guide} - {*nodes()}
            return [self._of.pop(node) for node in gone]

    def close(self) -> list[P]:
        """No call may begin any more; the pools are to be closed."""
        self.closed = True
        with self._lock:
            return list(self._of.values())


class Pool:
    """Connections to one server for threads."""

    def __init__(
        self,
        make: Callable[[], Connection],
        greet: Callable[[Connection], None],
        limits: Limits,
        breaker: Breaker,
    ) -> None:
        self._make = make
        self._greet = greet
        self._limits = limits
        self._breaker = breaker
        self._idle: list[Connection] = []
        self._free = threading.Semaphore(limits.connections)
        self._generation = 0
        self.closed = False

    @contextmanager
    def lend(self, seconds: float) -> Iterator[Connection]:
        """A connection that is ready, waited for up to so long. It is closed when anything is raised."""
        if not self._free.acquire(timeout=max(0.0, min(self._limits.acquire, seconds))):
            raise MaxConnectionsError
        try:
            if not self._breaker.admit():
                raise CircuitOpen
            generation = self._generation
            connection = self._idle_one() or self._make()
            try:
                if not connection.is_connected:
                    connection.connect()
                    self._greet(connection)
                yield connection
            except BaseException as error:
                connection.disconnect()
                (self._breaker.failed if says_server_fails(error) else self._breaker.abandoned)()
                raise
            self._breaker.succeeded()
            if generation == self._generation and not self.closed:
                self._idle.append(connection)
            else:
                connection.disconnect()
        finally:
            self._free.release()
            if self.closed:
                self.drop()

    def _idle_one(self) -> Connection | None:
        """One that lies idle, and on which nothing has happened meanwhile."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not _disturbed(connection):
                    return connection
                connection.disconnect()
        return None

    def drop(self) -> None:
        """Close what lies idle, and what is lent now as it comes back: the server is not what it was."""
        self._generation += 1
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()

    def close(self) -> None:
        """Close what lies idle now, and the rest as it comes back."""
        self.closed = True
        self.drop()


def _disturbed(connection: Connection) -> bool:
    """Whether something has come while nothing was asked: the end of the stream, when the server has closed it.

    Not to be asked of a fresh connection: over TLS 1.3 the session tickets are still to be read.
    """
    try:
        return connection.can_read()
    except (RedisError, OSError):
        return True


class AsyncPool:
    """As ``Pool``, for the tasks of one event loop."""

    def __init__(
        self,
        make: Callable[[], AsyncConnection],
        greet: Callable[[AsyncConnection], Awaitable[None]],
        limits: Limits,
        breaker: Breaker,
    ) -> None:
        self._make = make
        self._greet = greet
        self._limits = limits
        self._breaker = breaker
        self._idle: list[AsyncConnection] = []
        self._free = asyncio.Semaphore(limits.connections)
        self._generation = 0
        self.closed = False

    @asynccontextmanager
    async def lend(self, seconds: float) -> AsyncIterator[AsyncConnection]:
        """As ``Pool.lend``."""
        await self._acquire(seconds)
        try:
            if not self._breaker.admit():
                raise CircuitOpen
            generation = self._generation
            connection = None
            try:
                connection = await self._idle_one() or self._make()
                if not connection.is_connected:
                    async with InTime(self._limits.connect):
                        await connection.connect()
                    await self._greet(connection)
                yield connection
            except BaseException as error:
                (self._breaker.failed if says_server_fails(error) else self._breaker.abandoned)()
                if connection is not None:
                    await connection.disconnect(nowait=True)
                raise
            self._breaker.succeeded()
            if generation == self._generation and not self.closed:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
        finally:
            self._free.release()

    async def _acquire(self, seconds: float) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once, so without a time-out, which costs more than that
            return
        try:
            async with InTime(max(0.0, min(self._limits.acquire, seconds))):
                await self._free.acquire()
        except TimeoutError:
            raise MaxConnectionsError from None

    async def _idle_one(self) -> AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            try:
                if not await _disturbed_async(connection):
                    return connection
            except BaseException:  # cancelled
                await connection.disconnect(nowait=True)
                raise
            await connection.disconnect(nowait=True)
        return None

    async def drop(self, *, nowait: bool = True) -> None:
        """As ``Pool.drop``."""
        self._generation += 1
        while self._idle:
            await self._idle.pop().disconnect(nowait=nowait)

    async def close(self) -> None:
        """As ``Pool.close``; what is closed now is gone when this returns."""
        self.closed = True
        await self.drop(nowait=False)


async def _disturbed_async(connection: AsyncConnection) -> bool:
    try:
        return await connection.can_read()
    except (RedisError, OSError):
        return True
