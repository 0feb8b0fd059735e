"""What the store's tests share: scripts of their own, both drivers behind one face, a proxy that loses replies."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fix_stores import PATIENT, WAIT

from fastverify.store import AsyncStore, Call, Flow, Store, drive, drive_async, open_store, talks
from fastverify.store.calls import Script


class NewCall(Protocol):
    def __call__(self, text: str, *args: str | bytes | int, tag: str | None = None, durable: bool = False) -> Call: ...


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, unique_prefix: str) -> NewCall:
    """A call of a script that the test writes itself, on the tag ``{unique_prefix}`` unless it names another."""
    scripts: dict[str, Script] = {}
    monkeypatch.setattr(talks, "script", scripts.__getitem__)

    def new(text: str, *args: str | bytes | int, tag: str | None = None, durable: bool = False) -> Call:
        encoded = text.encode()
        script = Script(
            encoded, hashlib.sha1(encoded, usedforsecurity=False).hexdigest(), repeatable="-- Repeatable" in text
        )
        scripts[script.sha1] = script
        return Call(script.sha1, tag or f"{{{unique_prefix}}}", args, durable)

    return new


@pytest.fixture(params=["embedded", "redis", "cluster", "sentinel"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each of the stores in turn, and each of the topologies."""
    match request.param:
        case "cluster" | "sentinel":
            name = {"cluster": "cluster", "sentinel": "sentinel_set"}[request.param]
            return str(request.getfixturevalue(name).url)
        case one:
            return str(request.getfixturevalue(f"{one}_url"))


class BlockingDriver:
    """A Store, as it is."""

    def __init__(self, url: str, **options: Any) -> None:
        self.store = open_store(url, **options)
        self.run = self.store.run
        self.run_many = self.store.run_many

    def drive(self, flow: Flow[Any]) -> Any:
        return drive(self.store, flow)

    def close(self) -> None:
        self.store.close()


class AsyncioDriver:
    """An AsyncStore in a loop that runs in a thread, with the same face, so that one test body serves both."""

    def __init__(self, url: str, **options: Any) -> None:
        self.store: Store = open_store(url, **options)
        self._async: AsyncStore = self.store.open_async()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, call: Call) -> Any:
        return self._await(self._async.run(call))

    def run_many(self, calls: list[Call]) -> list[Any]:
        return self._await(self._async.run_many(calls))

    def drive(self, flow: Flow[Any]) -> Any:
        return self._await(drive_async(self._async, flow))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._await(self._async.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT)
            self._loop.close()
        self.store.close()

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT)


Driver = BlockingDriver | AsyncioDriver
Open = Callable[..., Driver]


@pytest.fixture(params=[BlockingDriver, AsyncioDriver], ids=["blocking", "asyncio"])
def open_driver(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a URL with each driver in turn, and closes it at the end.

    The times are generous, for a busy machine must not fail tests; those about a time-out set their own.
    """
    opened: list[Driver] = []

    def new(url: str, **options: Any) -> Driver:
        opened.append(request.param(url, **PATIENT | options))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


@pytest.fixture
def open_both() -> Iterator[Callable[..., list[Driver]]]:
    """Opens a URL with both drivers, for a test that is too long to be run for each."""
    opened: list[Driver] = []

    def new(url: str, **options: Any) -> list[Driver]:
        both: list[Driver] = [kind(url, **PATIENT | options) for kind in (BlockingDriver, AsyncioDriver)]
        opened.extend(both)
        return both

    yield new
    for one in opened:
        one.close()


class Proxy:
    """Stands between a client and a server on loopback: counts connections, keeps replies back, cuts the line."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._passing = threading.Event()
        self._passing.set()
        self._cutting = False
        #: Set when a request has gone through since ``hold``.
        self.asked = threading.Event()
        self.connections = 0
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on keep the replies."""
        self._passing.clear()
        self.asked.clear()

    def release(self) -> None:
        """Let through what was kept, and what follows."""
        self._passing.set()

    def cut_at_next_reply(self) -> None:
        """When the server has answered the next request, lose the answer and the connection."""
        self._cutting = True

    def close(self) -> None:
        self.release()
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += client, server
            self.connections += 1
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._replies, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
                self.asked.set()
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                self._passing.wait()
                if self._cutting:
                    self._cutting = False
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def proxy() -> Iterator[Callable[[int], Proxy]]:
    """Opens proxies to ports, and closes them at the end."""
    opened: list[Proxy] = []

    def new(port: int) -> Proxy:
        opened.append(Proxy(port))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


@pytest.fixture
def scripted_server() -> Iterator[Callable[[bytes], str]]:
    """Starts servers that have the same reply for every command; gives their URLs."""
    listeners: list[socket.socket] = []

    def new(reply: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_recite, args=(listener, reply), daemon=True).start()
        return f"redis://127.0.0.1:{listener.getsockname()[1]}"

    yield new
    for listener in listeners:
        listener.close()


def _recite(listener: socket.socket, reply: bytes) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, suppress(OSError):
                while data := client.recv(65536):
                    client.sendall(reply * data.count(b"*"))  # each command starts with one


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate for localhost, its key, and the authority that signed it (itself)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificates")
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem", "ca": folder / "ca.pem"}
    files["cert"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files["ca"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files["key"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
