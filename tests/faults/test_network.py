"""The network loses what it is told to lose, in the direction that it is told, and nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fix_requirements import require_tool, skip_refused
from fix_stores import WAIT, LaunchedServer, Place, server_binary
from fix_topologies import until

from .network import HERE, Network, Refused


def open_network() -> Network:
    """A network, or a skip; this thread is on its host ``HERE`` from then on."""
    require_tool("ip", "apt-get install iproute2")
    try:
        return Network()
    except Refused as error:
        skip_refused(f"network namespaces ({error})")


@pytest.fixture
def network() -> Iterator[Network]:
    """With the thread of the test on its host ``HERE``."""
    with closing(open_network()) as network:
        yield network


@pytest.fixture
def server(network: Network, tmp_path: Path) -> Iterator[LaunchedServer]:
    """On a host of its own."""
    server = LaunchedServer(server_binary("valkey"), tmp_path, place=network.host("server"), **{"protected-mode": "no"})
    server.start()
    yield server
    server.stop()


def answers(connection: socket.socket, seconds: float) -> bool:
    """Whether a PING is answered. That nothing comes is not to be taken for a reset, which raises."""
    connection.settimeout(seconds)
    connection.sendall(b"PING\r\n")
    try:
        return connection.recv(100).startswith(b"+PONG")
    except TimeoutError:
        return False


def connect(server: LaunchedServer, seconds: float = WAIT) -> socket.socket:
    return socket.create_connection((server.place.address, server.port), seconds)


@pytest.mark.parametrize("ways", [("up",), ("down",), ("up", "down")], ids=["requests", "replies", "both"])
def test_what_is_lost_is_lost_without_a_word_and_connections_outlive_it(network, server, ways):
    with connect(server) as connection:
        assert answers(connection, WAIT)
        if "up" in ways:
            network.lose([HERE], ["server"])
        if "down" in ways:
            network.lose(["server"], [HERE])
        assert not answers(connection, 0.3)
        with pytest.raises(TimeoutError):
            connect(server, 0.3)
        network.heal()
        assert answers(connection, WAIT)  # TCP has sent both again


def test_only_what_is_named_is_cut_off(network, server):
    other = network.host("other")
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))"

    def reaches(place: Place, seconds: float) -> bool:
        command = [*place.enter, sys.executable, "-c", probe, server.place.address, str(server.port), str(seconds)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert reaches(other, WAIT)
    network.isolate(["server"])
    assert not reaches(other, 0.3)
    connect(server).close()  # the harness is not cut off
    network.heal()
    assert reaches(other, WAIT)


def test_no_thread_but_its_own_is_moved_and_that_one_is_brought_back():
    def here() -> str:
        return os.readlink("/proc/thread-self/ns/net")

    before, seen, goes_on = here(), list[str](), threading.Event()
    other = threading.Thread(target=lambda: (goes_on.wait(WAIT), seen.append(here())))
    other.start()
    with closing(open_network()):
        moved = here()
        goes_on.set()
        other.join()
    assert seen == [before] == [here()] != [moved]


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from faults.network import Network
network = Network()
print(*(os.stat(f"/proc/{keeper.pid}/ns/net").st_ino for keeper in network._keepers), flush=True)
sys.stdin.read()
"""


def namespaces() -> set[int]:
    """All that a process is in."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.add(os.stat(process / "ns" / "net").st_ino)
        except OSError:
            continue
    return found


def test_nothing_is_left_of_it_when_its_maker_is_killed(network):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent.parent)]
    maker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdin is not None and maker.stdout is not None
    made = {int(inode) for inode in maker.stdout.readline().split()}
    assert len(made) == 2 and made <= namespaces()
    maker.send_signal(signal.SIGKILL)
    maker.wait(WAIT)
    until("the namespaces are gone", lambda: not made & namespaces())
    maker.stdin.close()
    maker.stdout.close()


def test_a_machine_that_refuses_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="unshare: No such file"):
        Network()
