"""Listening and serving: in the foreground for the service, in a thread for the demo site."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ..adapters.asgi import ASGIApp
from ..config import Config
from ..errors import StoreUnavailable
from ..manager import AsyncSessions
from .app import create_app

_GRACEFUL_SECONDS = 3
#: How long a request, and the start itself, waits for a store that has not answered yet.
_STORE_SECONDS = 2.0

_log = logging.getLogger("fastverify.service")


class Server(uvicorn.Server):
    """One application on one listening socket, with the sessions that it closes in the end."""

    def __init__(self, app: ASGIApp, sessions: AsyncSessions, sock: socket.socket) -> None:
        settings = uvicorn.Config(
            app,
            lifespan="off",  # opening and closing is done below, where a ConfigError stays one
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        )
        super().__init__(settings)
        # uvicorn sends a reply in two pieces; without this the second waits for the peer's delayed ACK, some 40 ms.
        # asyncio sets it only on sockets that name their protocol, which those accepted from a plain listener do not.
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sessions = sessions
        self._socket = sock

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would raise the signal again once it has stopped, and before the sessions are closed."""
        yield

    async def serve_sessions(self, *, stop_on: tuple[signal.Signals, ...] = ()) -> None:
        """Serve until a signal comes or ``should_exit`` is set.

        Raises:
            ConfigError: the store cannot be used.
        """
        loop = asyncio.get_running_loop()
        for number in stop_on:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            await self._wait_for_the_store()
            await self.serve(sockets=[self._socket])
        finally:
            await self._sessions.aclose()

    async def _wait_for_the_store(self) -> None:
        """The store may be away for now: the service then answers 503, and says so at ``/health/ready``."""
        try:
            await self._sessions.jwks()
        except StoreUnavailable as error:
            _log.warning("starting without the store: %s", error)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 is any free one.

    Raises:
        OSError: the address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve_service(store: str, config: Config, sock: socket.socket, *, exit_with_stdin: bool = False) -> None:
    """Serve the session service until SIGINT or SIGTERM, or until standard input ends if that is asked for.

    Raises:
        ConfigError: the store or a setting cannot be used.
    """
    sessions = AsyncSessions.connect(store, config, wait=_STORE_SECONDS)
    server = Server(create_app(sessions), sessions, sock)
    if exit_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=[server], name="stdin-watch", daemon=True).start()
    asyncio.run(server.serve_sessions(stop_on=(signal.SIGINT, signal.SIGTERM)))


@contextmanager
def background_server(app: ASGIApp, sessions: AsyncSessions, sock: socket.socket) -> Iterator[None]:
    """Serve an application from a thread for as long as the block runs."""
    server = Server(app, sessions, sock)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve_sessions()), name="site")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _stop_with_stdin(server: Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
