"""The servers that the applications run on: uvicorn in the test's own loop; for WSGI Werkzeug's, a thread a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler


class _Uvicorn(uvicorn.Server):
    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()  # Ctrl-C belongs to pytest


@contextlib.asynccontextmanager
async def asgi_server(app: Any, listener: socket.socket, certificate: Path | None) -> AsyncIterator[None]:
    """Serve an ASGI application."""
    server = _Uvicorn(
        uvicorn.Config(app, lifespan="off", ws="none", log_level="error", access_log=False, ssl_certfile=certificate)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not (server.started or task.done()):
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        while server.server_state.tasks:
            await asyncio.sleep(0.01)
        for connection in list(server.server_state.connections):
            # A browser does not answer the end of a TLS connection that it keeps for later.
            connection.transport.abort()
        await task


class _Requests(WSGIRequestHandler):
    protocol_version = "HTTP/1.0"  # one request for each connection: none goes on to a server that has been replaced

    def log(self, *message: Any) -> None:
        """Nothing: the wire is written down elsewhere."""


class _Werkzeug(ThreadedWSGIServer):
    daemon_threads = False  # so that closing waits for them

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.connections: set[Any] = set()
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that a browser has opened and not used yet."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def wsgi_server(app: Any, listener: socket.socket, certificate: Path | None) -> AsyncIterator[None]:
    """Serve a WSGI application."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    host, port = listener.getsockname()
    server = _Werkzeug(host, port, app, _Requests, ssl_context=context, fd=listener.fileno())
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.hang_up()
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(server.server_close)
