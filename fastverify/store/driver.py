"""Runs calls on a store, blocking or under asyncio, and turns every fault into StoreUnavailable.

Redis-py's connections do the talking: protocol, TLS, timeouts. Its clients and pools are not used, nor those for
Sentinel and Cluster, because three rules must hold that they keep only in part (revocation.md, F11 and F12):

1. Nothing that may have run is sent twice, unless its script says that it may be. A lost reply does not mean that a
   script has not run, and to run a rotation twice is to accuse an honest client of theft. What was refused with an
   error, or was never sent, has not run (talks.py).
2. A connection on which anything went wrong is closed, a call cancelled or timed out included: a reply that comes late
   must not be taken for the answer to somebody else's question.
3. Waiting is bounded, for a free connection too, and giving one back never waits: a caller that is cancelled at that
   moment cannot take the connection along.

What is sent where, and what is sent again, is decided once and without I/O (talks.py, topology.py); ``Store`` and
``AsyncStore`` are two ways to do it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
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
from redis.exceptions import DataError, ReadOnlyError
from redis.retry import Retry

from ..errors import ConfigError, StoreUnavailable
from .breaker import Breaker
from .calls import Call, Flow, Pause, T
from .endpoint import Endpoint, Limits, Node
from .exchange import Answer, Answers, Batch, Command, Errand, Exchange
from .faults import FAULTS, REPLIED, Fault, Stage, unavailable
from .pools import AsyncPool, Pool, Pools
from .requirements import Standings
from .subscription import Subscription
from .talks import find_any, reach_all, run_scripts
from .topology import topology_of

#: What all connections have in common. RESP2: plain replies, and no messages that nobody asked for.
_COMMON = {"protocol": 2, "decode_responses": False, "health_check_interval": 0, "driver_info": None}
_CLASSES: dict[str, tuple[Any, Any]] = {"tcp": (Tcp, AsyncTcp), "tls": (Tls, AsyncTls), "unix": (Unix, AsyncUnix)}


class LocalServer(Protocol):
    """A server that is ours to start: what Store needs of ``embedded.Server``."""

    def ensure(self) -> None:
        """Return when it answers."""

    def close(self) -> None:
        """Let it go."""


def _packed(connection: Connection | AsyncConnection, commands: Sequence[Command]) -> list[bytes]:
    """The commands as they are sent. A value that cannot be is the mistake of the caller, and not shown."""
    with suppress(DataError, UnicodeError):  # not chained: a UnicodeError holds the whole text
        return connection.pack_commands(commands)
    raise TypeError("the arguments of a call must be str without surrogates, bytes or int")


def _refused(error: Exception) -> Fault:
    return Fault(error.with_traceback(None), Stage.REFUSED)


def _is_replica(replies: Sequence[Any]) -> bool:
    return any(isinstance(reply, Fault) and isinstance(reply.error, ReadOnlyError) for reply in replies)


# --- blocking ---


class Store:
    """A store as blocking code uses it: from any thread, and after a fork with connections of its own.

    Nothing is sent before ``start`` or ``run``. Made by ``open_store``.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits | None = None, server: LocalServer | None = None) -> None:
        self._endpoint = endpoint
        self._limits = limits or Limits()
        self._server = server
        self._topology = topology_of(endpoint)
        self._standings = Standings(self._topology)
        self._pools = Pools(self._new_pool)
        self._reached = False

    @property
    def url(self) -> str:
        """Where the store is, without the password."""
        return self._endpoint.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def start(self) -> None:
        """Make sure that there is a server, for each shard if there are several, and that it can be relied upon.

        An embedded server is started if it does not run, or no longer. Blocks; may be called again, cheaply, from any
        thread.

        Raises:
            ConfigError: the server is too old, or may evict data (revocation.md, F9); or one cannot be started.
            StoreUnavailable: it does not answer.
        """
        if self._server is not None:
            self._server.ensure()
        if not self._reached:
            self._run(reach_all(self._topology))
            self._reached = True

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
        if not calls:
            return []
        try:
            return self._run(run_scripts(calls, self._topology))
        except ConfigError as error:  # a server that took over is not what it must be
            raise unavailable(error, self.url) from error

    def subscribe(self, channels: Sequence[str]) -> Subscription:
        """Listen to channels, on a connection of its own. For one thread.

        Raises:
            StoreUnavailable: no server could be asked.
        """

        def listen(node: Node) -> Subscription:
            connection = self._connect(node)
            try:
                connection.connect()
                self._greet(connection, node)
                return Subscription(connection, channels, self.url, self._limits.command, time.monotonic)
            except BaseException:
                connection.disconnect()
                raise

        nodes = self._run(find_any(self._topology))
        for n, node in enumerate(nodes):
            try:
                return listen(node)
            except (*FAULTS, ConfigError) as error:
                if n + 1 == len(nodes):
                    raise unavailable(error, self.url) from error
        raise StoreUnavailable(f"the store {self.url} cannot be reached")

    def open_async(self) -> AsyncStore:
        """The same store for one event loop. No I/O happens here, nor is a server started: that is for ``start``."""
        return AsyncStore(self._endpoint, self._limits, self._standings)

    def close(self) -> None:
        """Close the connections, and stop an embedded server that this process started and no longer uses."""
        for pool in self._pools.close():
            pool.close()
        if self._server is not None:
            self._server.close()

    def _run(self, errand: Errand[T]) -> T:
        if self._pools.closed:
            raise StoreUnavailable("the store is closed")
        deadline = time.monotonic() + self._limits.total
        try:
            asked = next(errand)
            while True:
                if isinstance(asked, Pause):
                    in_time = time.monotonic() + asked.seconds < deadline
                    if in_time and asked.seconds:
                        time.sleep(asked.seconds)
                    asked = errand.send(in_time)
                else:
                    asked = errand.send(self._exchange(asked, deadline))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except FAULTS as error:
            raise unavailable(error, self.url) from error
        finally:
            errand.close()

    def _exchange(self, asked: Exchange, deadline: float) -> Answers:
        asking = {node: self._ask(node, batch, deadline) for node, batch in sorted(asked.items())}
        answers: Answers = {}
        try:
            for _ in ("send", "receive"):
                for node, one in asking.items():
                    if node not in answers:
                        try:
                            next(one)
                        except StopIteration as end:
                            answers[node] = end.value
        finally:
            for one in asking.values():
                one.close()
        return answers

    def _ask(self, node: Node, batch: Batch, deadline: float) -> Generator[None, None, Answer]:
        """Send, then yield, then receive."""
        replies: list[Any] = []
        failure = None
        sent = waited = False
        pool = self._pools_of_this_process().of(node)
        try:
            with pool.lend(deadline - time.monotonic()) as connection:
                waited = batch.durable and self._standings.replicated(node)
                commands = batch.with_wait(self._limits.wait_ms) if waited else batch.commands
                packed = _packed(connection, commands)
                if time.monotonic() > deadline:
                    raise TimeoutError
                sent = True
                connection.send_packed_command(packed)
                yield
                for _ in commands:
                    replies.append(self._receive(connection, deadline))
        except (*FAULTS, ConfigError) as error:
            failure = error
        if _is_replica(replies):
            pool.drop()
        return batch.answer(replies, failure, sent=sent, waited=waited)

    def _receive(self, connection: Connection, deadline: float) -> Any:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        try:
            if seconds < self._limits.command:
                return connection.read_response(timeout=seconds, disconnect_on_error=False)
            return connection.read_response(disconnect_on_error=False)
        except REPLIED as error:
            return _refused(error)

    def _greet(self, connection: Connection, node: Node) -> None:
        if node.guide:
            return
        talk = self._standings.greet(node)
        deadline = time.monotonic() + self._limits.total
        with suppress(StopIteration):
            commands = next(talk)
            while True:
                connection.send_packed_command(_packed(connection, commands))
                commands = talk.send([self._receive(connection, deadline) for _ in commands])

    def _pools_of_this_process(self) -> Pools[Pool]:
        if self._pools.pid != os.getpid():
            # The connections made before the fork are the parent's.
            self._pools = Pools(self._new_pool, self._pools.closed)
        for pool in self._pools.keep_only(self._topology.nodes, self._topology.version):
            pool.close()
        return self._pools

    def _new_pool(self, node: Node) -> Pool:
        return Pool(
            lambda: self._connect(node),
            lambda connection: self._greet(connection, node),
            self._limits,
            Breaker(time.monotonic),
        )

    def _connect(self, node: Node) -> Connection:
        make, _ = _CLASSES[self._endpoint.kind]
        return make(  # type: ignore[no-any-return]
            **_COMMON,
            **self._endpoint.settings_of(node),
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=self._limits.connect,
            socket_timeout=self._limits.command,
        )


# --- asyncio ---


class AsyncStore:
    """A store as one event loop uses it. Made by ``Store.open_async``; to start the server is for the Store."""

    def __init__(self, endpoint: Endpoint, limits: Limits, standings: Standings) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._standings = standings
        self._topology = standings.topology
        self._pools = Pools(self._new_pool)
        self._loop: asyncio.AbstractEventLoop | None = None

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
        if not calls:
            return []
        self._check_loop()
        try:
            return await self._run(run_scripts(calls, self._topology))
        except ConfigError as error:
            raise unavailable(error, self.url) from error

    async def aclose(self) -> None:
        """Close the connections. Calls that are under way end as they would have."""
        self._check_loop()
        for pool in self._pools.close():
            await pool.close()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncStore belongs to another event loop; open one for each loop")

    async def _run(self, errand: Errand[T]) -> T:
        if self._pools.closed:
            raise StoreUnavailable("the store is closed")
        deadline = time.monotonic() + self._limits.total
        try:
            asked = next(errand)
            while True:
                if isinstance(asked, Pause):
                    in_time = time.monotonic() + asked.seconds < deadline
                    if in_time and asked.seconds:
                        await asyncio.sleep(asked.seconds)
                    asked = errand.send(in_time)
                else:
                    asked = errand.send(await self._exchange(asked, deadline))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except FAULTS as error:
            raise unavailable(error, self.url) from error
        finally:
            errand.close()

    async def _exchange(self, asked: Exchange, deadline: float) -> Answers:
        if len(asked) == 1:
            ((node, batch),) = asked.items()
            return {node: await self._ask(node, batch, deadline)}
        asking = (self._ask(node, batch, deadline) for node, batch in asked.items())
        # Not a TaskGroup: it would wrap what is raised. Gathered so, none is left behind, a cancelled one neither.
        answers = await asyncio.gather(*asking, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return dict(zip(asked, answers, strict=True))  # type: ignore[arg-type]

    async def _ask(self, node: Node, batch: Batch, deadline: float) -> Answer:
        replies: list[Any] = []
        failure = None
        sent = waited = False
        pool = (await self._pools_of_now()).of(node)
        try:
            async with pool.lend(deadline - time.monotonic()) as connection:
                waited = batch.durable and self._standings.replicated(node)
                commands = batch.with_wait(self._limits.wait_ms) if waited else batch.commands
                packed = _packed(connection, commands)
                if time.monotonic() > deadline:
                    raise TimeoutError
                sent = True
                async with asyncio.timeout(min(self._limits.command, deadline - time.monotonic())):
                    await connection.send_packed_command(packed)
                    for _ in commands:
                        replies.append(await self._receive(connection))
        except (*FAULTS, ConfigError) as error:
            failure = error
        if _is_replica(replies):
            await pool.drop()
        return batch.answer(replies, failure, sent=sent, waited=waited)

    async def _receive(self, connection: AsyncConnection) -> Any:
        try:
            return await connection.read_response(disconnect_on_error=False)
        except REPLIED as error:
            return _refused(error)

    async def _greet(self, connection: AsyncConnection, node: Node) -> None:
        if node.guide:
            return
        talk = self._standings.greet(node)
        try:
            commands = next(talk)
            while True:
                async with asyncio.timeout(self._limits.command):
                    await connection.send_packed_command(_packed(connection, commands))
                    replies = [await self._receive(connection) for _ in commands]
                commands = talk.send(replies)
        except StopIteration:
            return

    async def _pools_of_now(self) -> Pools[AsyncPool]:
        for pool in self._pools.keep_only(self._topology.nodes, self._topology.version):
            pool.closed = True
            await pool.drop()  # not close, which waits: the server may be one that stands still
        return self._pools

    def _new_pool(self, node: Node) -> AsyncPool:
        return AsyncPool(
            lambda: self._connect(node),
            lambda connection: self._greet(connection, node),
            self._limits,
            Breaker(time.monotonic),
        )

    def _connect(self, node: Node) -> AsyncConnection:
        _, make = _CLASSES[self._endpoint.kind]
        return make(  # type: ignore[no-any-return]
            **_COMMON,
            **self._endpoint.settings_of(node),
            retry=AsyncRetry(NoBackoff(), 0),
            socket_connect_timeout=self._limits.connect,
            # The timeouts are ours: redis-py would start a task for each write to watch it.
            socket_timeout=None,
        )


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
