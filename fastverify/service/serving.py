"""Listening and serving: uvicorn in the foreground for the service, in a thread for the demo site."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from ..config import Config
from ..manager import AsyncSessions
from .app import create_app

_GRACEFUL_SECONDS = 3


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve_service(
    store: str, config: Config, *, host: str, port: int, listen_fd: int | None, exit_with_stdin: bool
) -> None:
    """Serve the session service until SIGINT or SIGTERM, or until standard input ends if that is asked for."""
    sock = listen(host, port) if listen_fd is None else socket.socket(fileno=listen_fd)
    server = _server(create_app(AsyncSessions.connect(store, config)))
    if exit_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=[server], name="stdin-watch", daemon=True).start()
    with sock:
        server.run(sockets=[sock])


@contextmanager
def background_server(app: ASGIApp, sock: socket.socket) -> Iterator[None]:
    """Serve an application from a thread for as long as the block runs."""
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="site")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _server(app: ASGIApp) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        )
    )


def _stop_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
