"""The demo's process tree: this process holds the site, its children are the store and the session service.

Everything is a context manager on one stack, so that Ctrl-C at any moment takes down what was already up, in the
opposite order. The session service also stops by itself when its standard input ends, and the embedded store when the
process that started it is gone: a killed demo leaves no process behind.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from ...config import Config
from ...manager import AsyncSessions, Sessions
from ..serving import background_server, listen
from .report import Report
from .site import create_site
from .tour import TourFailure, tour

_STOP_SECONDS = 5.0
#: What shells say of a program that Ctrl-C has ended.
_INTERRUPTED = 130


def run_demo(*, once: bool, as_json: bool, port: int) -> int:
    """Set the tree up, take the tour, report, and serve until Ctrl-C (or stop at once). Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    report = Report(as_json=as_json)
    try:
        with ExitStack() as stack:
            with report.setting_up():
                url, service, sessions = _set_up(stack, port)
            report.show(tour(url, service, sessions))
            report.ready(url, serving=not once)
            if not once:
                _wait_for_ctrl_c()
                report.stopped()
    except TourFailure as failure:
        report.failed(failure)
        return 1
    except KeyboardInterrupt:  # before all of it was up
        return _INTERRUPTED
    return 0


def _set_up(stack: ExitStack, port: int) -> tuple[str, str, Sessions]:
    """The three parts. Returns the site's URL, the service's URL, and sessions on the store that both share."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastverify-"))
    store = f"embedded://{directory}/store"
    site_socket, service_socket = (stack.enter_context(listen("127.0.0.1", p)) for p in (port, 0))
    url, service = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (site_socket, service_socket))
    config = Config(
        api_domain=url,
        website_domain=url,
        secret=secrets.token_bytes(32),
        access_token_lifetime=60,  # short enough to watch it expire
        exchange_seconds=2,  # on loopback nothing is under way for longer
    )
    sessions = stack.enter_context(Sessions.connect(store, config))
    stack.enter_context(_service_process(store, config, service_socket.fileno()))
    service_socket.close()
    site_sessions = AsyncSessions.connect(store, config)
    site = create_site(site_sessions, service=service)
    stack.enter_context(background_server(site, site_sessions, site_socket))
    return url, service, sessions


@contextmanager
def _service_process(store: str, config: Config, listen_fd: int) -> Iterator[None]:
    """``fastverify serve`` as a child, on a socket that listens already: requests wait until it is up."""
    command = [sys.executable, "-m", "fastverify.service", "serve", f"--fd={listen_fd}", "--exit-with-stdin"]
    environment = {
        "FASTVERIFY_STORE": store,
        "FASTVERIFY_SECRET": config.secrets[0].hex(),
        "FASTVERIFY_API_DOMAIN": config.api_domain,
        "FASTVERIFY_ACCESS_TOKEN_LIFETIME": str(config.access_token_lifetime),
        "FASTVERIFY_EXCHANGE_SECONDS": str(config.exchange_seconds),
    }
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        pass_fds=[listen_fd],
        start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
    )
    with process:
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_ctrl_c() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
