"""An issuer on this machine: it publishes keys at a URL, as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from signing import SigningKey


class Issuer:
    """What is published, and how often it has been asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.fetched = 0
        self.paths: list[str] = []

    def publish(self, *keys: SigningKey, **headers: str) -> None:
        """Answer with these keys from now on; ``_`` in header names stands for ``-``."""
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.status, self.body = 200, json.dumps({"keys": [key.jwk for key in keys]}).encode()


@contextmanager
def issuer() -> Iterator[Issuer]:
    """Run one for as long as it is needed."""
    state = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.fetched += 1
            state.paths.append(self.path)
            self.send_response(state.status)
            for name, value in {"content-length": str(len(state.body)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def until(condition: Callable[[], bool], waited: threading.Event | None = None) -> None:
    """Wait for what a background thread is about to do; pytest's timeout ends it if that never comes."""
    pause = waited or threading.Event()
    while not condition():
        pause.wait(0.005)
