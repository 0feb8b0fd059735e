"""The proxy does what it says to what passes; a server that echoes is behind it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from fix_stores import WAIT

from .proxy import DOWN, UP, Proxy


class Echo:
    """Sends back what it gets, after its name."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.got = b""
        self.heard = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def die(self) -> None:
        """Reset the connection, as the system does for a process that was killed with requests unread."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.shutdown(socket.SHUT_RD)  # wakes the thread, which closes it

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._client = client
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := client.recv(65536):
                self.got += data
                self.heard.set()
                client.sendall(self.name + data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo(b"1:")) as echo:
        yield echo


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with closing(Proxy(echo.port)) as proxy:
        yield proxy


def connect(proxy: Proxy, timeout: float = WAIT) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout)


@contextmanager
def talking(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection over which something has been said, and answered."""
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(100) == b"1:a"
        yield client


def silent(client: socket.socket) -> bool:
    """Nothing comes, for a moment."""
    client.settimeout(0.1)
    try:
        client.recv(100)
    except TimeoutError:
        return True
    finally:
        client.settimeout(WAIT)
    return False


def test_passes_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(100) == b"1:a"


def test_delays(proxy: Proxy) -> None:
    proxy.delay(0.3, DOWN)
    with connect(proxy) as client:
        client.sendall(b"a")
        assert silent(client)
        assert client.recv(100) == b"1:a"


def test_holds_and_lets_through(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.hold()
        client.sendall(b"a")
        assert silent(client)
        proxy.restore()
        assert client.recv(100) == b"1:a"


def test_drops_replies_that_the_server_has_sent(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        proxy.drop(DOWN)
        client.sendall(b"a")
        assert echo.heard.wait(WAIT)
        assert silent(client)
        proxy.restore()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with connect(proxy) as client:
        client.sendall(b"b")
        assert client.recv(100) == b"1:b"


def test_drops_requests_before_the_server(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        proxy.drop(UP)
        client.sendall(b"a")
        assert silent(client)
    assert echo.got == b""


def test_truncates_a_reply_and_resets(proxy: Proxy) -> None:
    with talking(proxy) as client:
        proxy.truncate(2, DOWN)
        client.sendall(b"long")
        got = b""
        with pytest.raises(ConnectionResetError):
            while True:
                got += client.recv(100)
                assert len(got) <= 2
    with connect(proxy) as client:
        client.sendall(b"b")
        assert client.recv(100) == b"1:b"


def test_cuts_and_refuses(proxy: Proxy, echo: Echo) -> None:
    with talking(proxy) as client:
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with connect(proxy) as client, suppress(ConnectionError):
        client.sendall(b"b")
        assert client.recv(100) == b""
    assert echo.got == b"a"
    proxy.restore()
    with connect(proxy) as client:
        client.sendall(b"c")
        assert client.recv(100) == b"1:c"


def test_half_closes(proxy: Proxy, echo: Echo) -> None:
    with talking(proxy) as client:
        echo.heard.clear()
        proxy.half_close()
        assert client.recv(100) == b""
        client.sendall(b"b")
        assert echo.heard.wait(WAIT)


def test_leads_elsewhere(proxy: Proxy) -> None:
    with closing(Echo(b"2:")) as other, connect(proxy) as before:
        before.sendall(b"a")
        assert before.recv(100) == b"1:a"
        proxy.switch(other.port)
        with pytest.raises(ConnectionResetError):
            before.recv(100)
        with connect(proxy) as client:
            client.sendall(b"a")
            assert client.recv(100) == b"2:a"


def test_a_server_that_is_gone_without_a_word_is_a_connection_that_ends(proxy: Proxy, echo: Echo) -> None:
    with talking(proxy) as client:
        echo.die()
        with suppress(ConnectionError):
            assert client.recv(100) == b""


def test_a_server_that_is_not_there_is_a_connection_that_ends(proxy: Proxy, echo: Echo) -> None:
    echo.close()
    proxy.switch(1)
    with connect(proxy) as client, suppress(ConnectionError):
        assert client.recv(100) == b""
