"""Hosts of their own on one machine: network namespaces, and a router between them that can be told to lose packets.

A lost packet is lost: nothing is reset, closed or refused, and whoever waits goes on waiting. Loss is said of a
direction, from one host to another, so the two can differ.

No namespace has a name, and nothing is made in the one in which the machine lives. Each is kept by a process that ends
with its standard input, so when the harness ends, killed or not, the kernel removes all of it with the interfaces
inside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress

from fix_stores import WAIT, Place

#: The host on which the harness itself is; what it does with the servers is never cut off.
HERE = "here"
#: In no namespace but these does anybody have such an address.
_NETWORK = "10.77"
_MOST = 250
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine allows no namespaces, or lacks what makes them; says which."""


class Network:
    """A router and hosts around it.

    The thread that makes it is moved onto the host ``HERE``, and with it what it starts from then on, until ``close``.

    Raises:
        Refused: it cannot be had here.
    """

    def __init__(self) -> None:
        self._keepers: list[subprocess.Popen[str]] = []
        self._places: dict[str, Place] = {}
        self._lost: list[str] = []
        self._outside: int | None = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._router = self._keep()
            _run(*_enter(self._router), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self.here = self.host(HERE)
            self._move(f"/proc/{self._keepers[-1].pid}/ns/net")
        except Refused:
            self.close()
            raise

    def host(self, name: str) -> Place:
        """A host, connected to all the others; made when it is first asked for."""
        if name not in self._places:
            number = len(self._places) + 1
            assert number <= _MOST
            keeper, router = self._keep(), f"{_NETWORK}.{number}.1"
            place = Place(f"{_NETWORK}.{number}.2", _enter(keeper))
            _ip(
                place.enter,
                "link set lo up",
                f"link add eth0 type veth peer name host{number} netns {self._router.pid}",
                f"addr add {place.address}/24 dev eth0",
                "link set eth0 up",
            )
            _ip(_enter(self._router), f"addr add {router}/24 dev host{number}", f"link set host{number} up")
            _ip(place.enter, f"route add default via {router}")
            self._places[name] = place
        return self._places[name]

    def lose(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Lose every packet from one of these hosts to one of those, until ``heal``."""
        targets = list(targets)
        rules = [
            f"pref 1 from {self._places[source].address} to {self._places[target].address} blackhole"
            for source in sources
            for target in targets
        ]
        self._lost += rules
        _ip(_enter(self._router), *(f"rule add {rule}" for rule in rules))

    def part(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Lose every packet between these hosts and those, both ways, until ``heal``."""
        some, others = list(some), list(others)
        self.lose(some, others)
        self.lose(others, some)

    def isolate(self, some: Iterable[str]) -> None:
        """Part these hosts, together, from all others but ``HERE``."""
        some = list(some)
        self.part(some, self._places.keys() - {HERE, *some})

    def heal(self) -> None:
        """Lose nothing any more."""
        rules, self._lost = self._lost, []
        _ip(_enter(self._router), *(f"rule del {rule}" for rule in rules))

    def close(self) -> None:
        """Bring this thread back, and end it; what runs on a host keeps that host until it ends too."""
        if self._outside is not None:
            with suppress(Refused):
                self._move(f"/proc/self/fd/{self._outside}")
            os.close(self._outside)
            self._outside = None
        for keeper in self._keepers:
            keeper.communicate()

    def _keep(self) -> subprocess.Popen[str]:
        """A process in a new namespace, where it waits for its standard input to end."""
        pipe = subprocess.PIPE
        command = ["unshare", "--net", "--", "sh", "-c", "echo there; exec cat"]
        try:
            keeper = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        except OSError as error:
            raise Refused(f"unshare: {error.strerror}") from None
        self._keepers.append(keeper)
        assert keeper.stdout is not None
        if not keeper.stdout.readline():
            raise Refused(keeper.communicate()[1].strip())
        return keeper

    @staticmethod
    def _move(namespace: str) -> None:
        """Move this thread. (Python has it from 3.12 on.)"""
        opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(opened, _CLONE_NEWNET):
                raise Refused(f"setns: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(opened)


def _enter(keeper: subprocess.Popen[str]) -> tuple[str, ...]:
    return "nsenter", f"--net=/proc/{keeper.pid}/ns/net", "--"


def _ip(enter: tuple[str, ...], *lines: str) -> None:
    _run(*enter, "ip", "-batch", "-", text="\n".join(lines) + "\n")


def _run(*command: str, text: str = "") -> None:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WAIT, check=False)
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise Refused(f"{' '.join(command)}: {done.stderr.strip()}")
