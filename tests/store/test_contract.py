"""One behaviour over every store and both drivers: what a call answers, and what it means when it does not."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from fix_stores import PATIENT, WAIT, Launch, LaunchedServer, debian_redis, return_greeting
from fix_topologies import SERVICE

from fastverify.errors import ConfigError, StoreUnavailable
from fastverify.store import Call, open_store

COUNT = "return redis.call('INCR', KEYS[1] .. ':n')"
READ = "return tonumber(redis.call('GET', KEYS[1] .. ':n') or 0)"
ECHO = "return ARGV[1]"
#: Never written where it is used: tracebacks quote source lines.
SECRET = "hunter2"
WRONG = "wrong-horse"


def everything_said(error: BaseException) -> str:
    """The messages, reprs and tracebacks of an error and of all that stands behind it."""
    said = "".join(traceback.format_exception(error))
    behind: BaseException | None = error
    while behind is not None:
        said += repr(behind) + str(behind) + repr(behind.args)
        behind = behind.__cause__ or behind.__context__
    return said


def flush_scripts(url: str) -> None:
    """Make every server of a store forget its scripts, behind the driver's back."""
    scheme, _, rest = url.partition("://")
    if scheme == "embedded":
        clients = [redis.Redis(unix_socket_path=f"{rest}/socket")]
    elif scheme == "redis":
        clients = [redis.from_url(url)]
    else:
        ports = [int(host.rpartition(":")[2]) for host in rest.partition("/")[0].split(",")]
        if scheme == "redis+sentinel":
            with redis.Redis(port=ports[0]) as sentinel:
                ports = [sentinel.sentinel_get_master_addr_by_name(SERVICE)[1]]
        clients = [redis.Redis(port=port) for port in ports]
    for client in clients:
        with client:
            client.script_flush()


# --- replies ---


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("return 7", 7),
        ("return -9007199254740991", -9007199254740991),
        ("return 'text'", b"text"),
        ("return ''", b""),
        ("return '\\0\\255'", b"\x00\xff"),
        ("return false", None),
        ("return {}", []),
        ("return {1, 'two', {3, false}}", [1, b"two", [3, None]]),
        ("return redis.status_reply('OK')", b"OK"),
        ("return KEYS[1] == ARGV[1] and #KEYS", 1),
    ],
)
def test_a_reply_is_ints_bytes_none_and_lists_of_them(store_url, open_driver, call, unique_prefix, text, reply):
    assert open_driver(store_url).run(call(text, f"{{{unique_prefix}}}")) == reply


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("é", b"\xc3\xa9"),
        (b"\x00\r\n$5\r\n", b"\x00\r\n$5\r\n"),
        (12, b"12"),
        ("", b""),
        ("x" * 300_000, b"x" * 300_000),
    ],
    ids=["text", "protocol bytes", "int", "empty", "large"],
)
def test_arguments_arrive_as_they_were(store_url, open_driver, call, sent, came):
    assert open_driver(store_url).run(call(ECHO, sent)) == came


def test_replies_of_many_calls_stand_in_the_order_of_the_calls(store_url, open_driver, call):
    calls = [call(ECHO, n) if n % 2 else call("return {tonumber(ARGV[1])}", n) for n in range(100)]
    assert open_driver(store_url).run_many(calls) == [b"%d" % n if n % 2 else [n] for n in range(100)]


def test_no_calls_have_no_replies(store_url, open_driver):
    assert open_driver(store_url).run_many([]) == []


def test_a_flow_is_sent_each_reply_and_returns_its_result(store_url, open_driver, call):
    def flow() -> Generator[Call, Any, tuple[int, int]]:
        first = yield call(COUNT)
        second = yield call(COUNT)
        return first, second

    assert open_driver(store_url).drive(flow()) == (1, 2)


def test_a_flow_that_asks_nothing_returns_its_result(store_url, open_driver):
    def flow() -> Generator[Call, Any, str]:
        return "done"
        yield

    assert open_driver(store_url).drive(flow()) == "done"


def test_a_flow_is_closed_when_the_store_fails(open_driver, call):
    closed = []

    def flow() -> Generator[Call, Any, None]:
        try:
            yield call(ECHO, "x")
        finally:
            closed.append(True)

    with pytest.raises(StoreUnavailable):
        open_driver("unix:///nowhere/socket").drive(flow())
    assert closed


# --- scripts that the server does not know ---


def test_a_script_that_the_server_has_forgotten_is_run_by_its_text(store_url, open_driver, call):
    driver = open_driver(store_url)
    assert driver.run(call(COUNT)) == 1
    flush_scripts(store_url)
    assert driver.run(call(COUNT)) == 2


def test_of_many_calls_only_the_unknown_ones_are_run_again(store_url, open_driver, call):
    driver = open_driver(store_url)
    driver.run(call(COUNT))
    unknown = call("return 'new' .. redis.call('INCR', KEYS[1] .. ':m')")
    replies = driver.run_many([call(COUNT), unknown, call(COUNT), unknown])
    assert replies == [2, b"new1", 3, b"new2"]
    assert driver.run(call(READ)) == 3


# --- errors that the server replies ---


def test_an_error_in_a_script_is_unavailability_and_the_connection_goes_on(store_url, open_driver, call):
    driver = open_driver(store_url, connections=1)
    with pytest.raises(StoreUnavailable) as caught:
        driver.run(call("return redis.call('LPUSH')", SECRET))
    assert isinstance(caught.value.__cause__, redis.ResponseError)
    assert SECRET not in everything_said(caught.value)
    assert driver.run(call(ECHO, "mine")) == b"mine"


def test_one_error_among_many_calls_raises_and_the_others_have_run(store_url, open_driver, call):
    driver = open_driver(store_url)
    with pytest.raises(StoreUnavailable):
        driver.run_many([call(COUNT), call("return redis.error_reply('NO')"), call(COUNT)])
    assert driver.run(call(READ)) == 2


@pytest.mark.parametrize("argument", [f"{SECRET}\ud800", None, [SECRET]])
def test_an_argument_that_cannot_be_sent_is_a_type_error_that_does_not_show_it(store_url, open_driver, call, argument):
    driver = open_driver(store_url, connections=1)
    with pytest.raises(TypeError) as caught:
        driver.run(call(ECHO, argument))
    assert SECRET not in everything_said(caught.value)
    assert driver.run(call(ECHO, "mine")) == b"mine"


def test_a_server_that_quotes_the_arguments_is_not_repeated(launch: Launch, open_driver, call):
    server = launch(**{"rename-command": ("EVALSHA", "")})
    with pytest.raises(StoreUnavailable) as caught:
        open_driver(server.url).run(call(ECHO, SECRET))
    assert "unknown command" in str(caught.value.__cause__)
    assert SECRET not in everything_said(caught.value)


def test_out_of_memory_refuses_scripts_that_do_not_allow_it_and_runs_those_that_do(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url)
    with server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="out of memory") as caught:
        driver.run(call(COUNT))
    assert caught.value.retry_after > 1
    assert driver.run(call(f"#!lua flags=allow-oom\n{COUNT}")) == 1


def test_a_replica_refuses_writes_and_is_named_one(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url)
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            driver.run(call(COUNT))


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        ("READONLY You can't write against a read only replica.", 1),
        ("MOVED 3999 127.0.0.1:6381", 1),
        ("ASK 3999 127.0.0.1:6381", 1),
        ("LOADING Redis is loading the dataset in memory", 1),
        ("TRYAGAIN Multiple keys request during rehashing of slot", 1),
        ("CLUSTERDOWN The cluster is down", 1),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", 1),
        ("OOM command not allowed when used memory > 'maxmemory'.", 5),
        ("MISCONF Errors writing to the AOF file: No space left on device", 5),
        ("NOREPLICAS Not enough good replicas to write.", 5),
        ("NOAUTH Authentication required.", 30),
        ("WRONGPASS invalid username-password pair or user is disabled.", 30),
        ("NOPERM this user has no permissions to run the 'evalsha' command", 30),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", 30),
    ],
)
def test_each_kind_of_refusal_is_named_and_says_when_to_try_again(
    scripted_server, open_driver, call, error, retry_after
):
    driver = open_driver(scripted_server(f"-{error}\r\n".encode()), total=0.3)  # for so long some are tried again
    with pytest.raises(StoreUnavailable, match=rf"\({error.partition(' ')[0]}\)$") as caught:
        driver.run(call(ECHO, "x"))
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize("reply", [b"hello\r\n", b"", b"*1\r\n"], ids=["no protocol", "nothing", "half a reply"])
def test_what_is_no_reply_is_unavailability(scripted_server, open_driver, call, reply):
    with pytest.raises(StoreUnavailable):
        open_driver(scripted_server(reply), command=0.2).run(call(ECHO, "x"))


# --- credentials ---


def test_a_wrong_password_is_unavailability_that_shows_no_password(launch: Launch, open_driver, call):
    server = launch(requirepass="right-horse")
    url = server.url.replace("//", f"//:{WRONG}@")
    driver = open_driver(url)
    with pytest.raises(StoreUnavailable, match="credentials") as caught:
        driver.run(call(ECHO, "x"))
    assert WRONG not in everything_said(caught.value) + repr(driver.store) + driver.store.url
    with pytest.raises(StoreUnavailable, match="credentials"):
        driver.run(call(ECHO, "x"))


def test_no_password_where_one_is_needed_is_unavailability(launch: Launch, open_driver, call):
    with pytest.raises(StoreUnavailable, match="credentials"):
        open_driver(launch(requirepass="right-horse").url).run(call(ECHO, "x"))


def test_a_password_where_none_is_set_is_refused_credentials(launch: Launch, open_driver, call):
    url = launch().url.replace("//", f"//:{WRONG}@")
    with pytest.raises(StoreUnavailable, match="refuses the credentials") as caught:
        open_driver(url).run(call(ECHO, "x"))
    assert WRONG not in everything_said(caught.value)


def test_a_call_of_many_arguments_without_the_password_wants_credentials(launch: Launch, open_driver, call):
    with pytest.raises(StoreUnavailable, match="wants credentials"):
        open_driver(launch(requirepass="right-horse").url).run(call(ECHO, *["x"] * 20))


def test_the_right_password_opens_the_chosen_database(launch: Launch, open_driver, call, unique_prefix):
    server = launch(requirepass="p@ss/word")
    driver = open_driver(server.url.replace("//", "//:p%40ss%2Fword@").replace("/0", "/3"))
    driver.store.start()
    assert driver.run(call(COUNT)) == 1
    with server.client() as client:
        client.select(3)
        assert client.get(f"{{{unique_prefix}}}:n") == b"1"


def test_a_user_without_permission_is_unavailability(launch: Launch, open_driver, call):
    server = launch()
    with server.client() as client:
        client.acl_setuser("guest", enabled=True, passwords=["+right-horse"], commands=["+ping"])
    with pytest.raises(StoreUnavailable, match="NOPERM"):
        open_driver(server.url.replace("//", "//guest:right-horse@")).run(call(ECHO, "x"))


# --- the server comes and goes ---


def test_a_restart_between_two_calls_is_not_noticed(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url)
    assert driver.run(call(COUNT)) == 1
    server.stop()
    server.start()
    assert driver.run(call(COUNT)) == 2


def test_a_killed_server_is_unavailability_and_its_return_the_end_of_it(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url)
    assert driver.run(call(COUNT)) == 1
    server.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            driver.run(call(COUNT))
    server.start()
    assert driver.run(call(COUNT)) == 2


def test_a_server_that_stands_still_times_out_and_its_late_reply_reaches_nobody(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url, command=0.3, connections=1)
    assert driver.run(call(ECHO, "before")) == b"before"
    with server.stopped(), pytest.raises(StoreUnavailable, match="in time"):
        driver.run(call(ECHO, "late"))
    assert driver.run(call(ECHO, "after")) == b"after"


def test_a_server_that_does_not_greet_times_out(launch: Launch, open_driver, call):
    server = launch(requirepass="right-horse")
    driver = open_driver(server.url.replace("//", "//:right-horse@"), connect=0.3, command=0.3)
    with server.stopped(), pytest.raises(StoreUnavailable, match="in time"):
        driver.run(call(ECHO, "lost"))
    assert driver.run(call(ECHO, "after")) == b"after"


# --- the network loses something ---


def test_a_call_whose_reply_is_lost_is_not_sent_again(launch: Launch, open_driver, call, proxy):
    line = proxy(launch().port)
    driver = open_driver(line.url)
    assert driver.run(call(COUNT)) == 1
    line.cut_at_next_reply()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        driver.run(call(COUNT))
    assert driver.run(call(READ)) == 2


def test_a_reply_that_comes_after_the_timeout_reaches_nobody(launch: Launch, open_driver, call, proxy):
    line = proxy(launch().port)
    driver = open_driver(line.url, command=0.3, connections=1)
    assert driver.run(call(ECHO, "before")) == b"before"
    line.hold()
    with pytest.raises(StoreUnavailable, match="in time"):
        driver.run(call(ECHO, "late"))
    line.release()
    assert [driver.run(call(ECHO, n)) for n in range(3)] == [b"0", b"1", b"2"]


def test_replies_that_are_too_late_taken_together_reach_nobody_either(open_driver, call):
    """Each comes in time by itself, the first of the two after the whole time is up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as first, suppress(ConnectionError):
            return_greeting(first)
            first.recv(65536)
            time.sleep(0.4)
            first.sendall(b"$5\r\nfirst\r\n")
            if first.recv(65536):
                first.sendall(b"$9\r\nleft over\r\n")
        with listener.accept()[0] as second:
            return_greeting(second)
            second.recv(65536)
            second.sendall(b"$5\r\nafter\r\n")

    server = threading.Thread(target=serve)
    server.start()
    driver = open_driver(f"redis://127.0.0.1:{listener.getsockname()[1]}", total=0.3, connections=1)
    with pytest.raises(StoreUnavailable, match="in time"):
        driver.run_many([call(ECHO, "first"), call(ECHO, "left over")])
    assert driver.run(call(ECHO, "after")) == b"after"
    server.join(WAIT)
    listener.close()


async def test_a_reply_to_a_cancelled_call_reaches_nobody(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url, **PATIENT | {"connections": 1}).open_async()
    assert await store.run(call(ECHO, "before")) == b"before"
    line.hold()
    cancelled = asyncio.create_task(store.run(call(ECHO, "cancelled")))
    assert await asyncio.to_thread(line.asked.wait, WAIT)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    line.release()
    assert [await store.run(call(ECHO, n)) for n in range(3)] == [b"0", b"1", b"2"]
    assert line.connections == 2
    await store.aclose()


async def test_cancelling_calls_at_every_step_leaks_no_connection(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url, **PATIENT | {"connections": 2}).open_async()
    for steps in range(25):
        tasks = [asyncio.create_task(store.run(call(ECHO, n))) for n in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    replies = await asyncio.gather(*(store.run(call(ECHO, n)) for n in range(20)))
    assert replies == [b"%d" % n for n in range(20)]
    await store.aclose()


# --- connections ---


def test_threads_that_find_no_free_connection_are_told_so(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url, **PATIENT | {"connections": 1, "acquire": 0.05})
    store.run(call(ECHO, "x"))
    line.hold()
    replies: list[Any] = []
    holder = threading.Thread(target=lambda: replies.append(store.run(call(ECHO, "held"))))
    holder.start()
    assert line.asked.wait(WAIT)
    with pytest.raises(StoreUnavailable, match="no free connection"):
        store.run(call(ECHO, "crowded out"))
    line.release()
    holder.join(WAIT)
    assert replies == [b"held"]
    assert store.run(call(ECHO, "x")) == b"x"
    store.close()


async def test_tasks_that_find_no_free_connection_are_told_so(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url, **PATIENT | {"connections": 1, "acquire": 0.05}).open_async()
    await store.run(call(ECHO, "x"))
    line.hold()
    holder = asyncio.create_task(store.run(call(ECHO, "held")))
    assert await asyncio.to_thread(line.asked.wait, WAIT)
    with pytest.raises(StoreUnavailable, match="no free connection"):
        await store.run(call(ECHO, "crowded out"))
    line.release()
    assert await holder == b"held"
    assert await store.run(call(ECHO, "x")) == b"x"
    await store.aclose()


def test_many_threads_each_get_their_own_reply(store_url, call):
    store = open_store(store_url, **PATIENT | {"connections": 4})
    wrong: list[Any] = []

    def ask(thread: int) -> None:
        for n in range(50):
            mine = f"{thread}-{n}".encode()
            if (reply := store.run(call(ECHO, mine))) != mine:
                wrong.append((mine, reply))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not wrong
    store.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12: the proxy's threads
def test_a_forked_child_has_connections_of_its_own(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url)
    assert store.run(call(ECHO, "parent")) == b"parent"
    assert line.connections == 1
    status = in_child(lambda: store.run(call(ECHO, "child")) == b"child")
    assert status == 0
    assert line.connections == 2
    assert store.run(call(ECHO, "parent")) == b"parent"
    assert line.connections == 2
    store.close()


def in_child(check: Callable[[], bool]) -> int:
    """Fork, and return 0 if the check holds in the child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_async_store_in_a_second_loop_says_what_is_wrong(store_url, call):
    store = open_store(store_url).open_async()

    async def use() -> None:
        assert await store.run(call(ECHO, "x")) == b"x"

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(use())
        first.run(store.aclose())


async def test_an_async_store_closed_before_its_first_call_stays_closed(store_url, call):
    store = open_store(store_url).open_async()
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.run(call(ECHO, "x"))


async def test_closing_lets_a_call_that_is_under_way_end(launch: Launch, call, proxy):
    line = proxy(launch().port)
    store = open_store(line.url, **PATIENT).open_async()
    line.hold()
    under_way = asyncio.create_task(store.run(call(ECHO, "mine")))
    assert await asyncio.to_thread(line.asked.wait, WAIT)
    await store.aclose()
    line.release()
    assert await under_way == b"mine"
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.run(call(ECHO, "x"))


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis://a..b", "unix:///nowhere/socket"])
def test_a_server_that_is_not_there_is_unavailability(open_driver, call, url):
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        open_driver(url).run(call(ECHO, "x"))


def test_a_closed_store_is_unavailable_and_may_be_closed_again(store_url, open_driver, call):
    driver = open_driver(store_url)
    assert driver.run(call(ECHO, "x")) == b"x"
    driver.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.store.run(call(ECHO, "x"))


# --- what a server must be ---


def test_start_may_be_called_again(store_url, open_driver):
    driver = open_driver(store_url)
    driver.store.start()
    driver.store.start()


def test_start_without_a_server_is_unavailability(launch: Launch):
    server = launch()
    server.stop()
    store = open_store(server.url)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.start()
    server.start()
    store.start()
    store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_revocations_is_refused(launch: Launch, policy):
    store = open_store(launch(**{"maxmemory-policy": policy}).url)
    with pytest.raises(ConfigError, match=f"{policy}.*noeviction"):
        store.start()
    store.close()


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "", "beta"])
def test_a_server_before_redis_7_is_refused(scripted_server: Callable[[bytes], str], version):
    store = open_store(scripted_server(bulk(f"redis_version:{version}\r\nmaxmemory_policy:noeviction\r\n")))
    with pytest.raises(ConfigError, match="must be Redis 7"):
        store.start()
    store.close()


@pytest.mark.parametrize("version", ["7.0.0", "8.2.1", "10.0.0"])
def test_redis_7_and_later_is_accepted(scripted_server: Callable[[bytes], str], version):
    store = open_store(scripted_server(bulk(f"redis_version:{version}\r\nmaxmemory_policy:noeviction\r\n")))
    store.start()
    store.close()


# --- TLS ---


@pytest.fixture
def tls_server(tmp_path: Path, certificates: dict[str, Path]) -> Generator[LaunchedServer]:
    """Debian's Redis with TLS; the embedded Valkey is built without it."""
    server = LaunchedServer(
        debian_redis(),
        tmp_path,
        **{
            "tls-port": "0",  # set below, once the free port is known
            "tls-cert-file": str(certificates["cert"]),
            "tls-key-file": str(certificates["key"]),
            "tls-ca-cert-file": str(certificates["ca"]),
            "tls-auth-clients": "no",
        },
    )
    server.settings |= {"tls-port": str(server.port), "port": "0"}
    server.start()
    yield server
    server.stop()


def test_tls_with_the_right_authority_works(tls_server: LaunchedServer, open_driver, call, certificates):
    url = tls_server.url.replace("redis://127.0.0.1", "rediss://localhost") + f"?ssl_ca_certs={certificates['ca']}"
    driver = open_driver(url)
    driver.store.start()
    assert driver.run(call(ECHO, "x")) == b"x"


def test_tls_with_an_unknown_authority_is_refused(tls_server: LaunchedServer, open_driver, call):
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        open_driver(tls_server.url.replace("redis://", "rediss://")).run(call(ECHO, "x"))


def test_tls_for_another_host_is_refused(tls_server: LaunchedServer, open_driver, call, certificates):
    url = tls_server.url.replace("redis://", "rediss://") + f"?ssl_ca_certs={certificates['ca']}"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        open_driver(url).run(call(ECHO, "x"))
