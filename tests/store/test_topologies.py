"""Cluster and Sentinel as they are: calls find their server, through moved slots, failovers, servers that stand still.

What is sent again after which fault is tested by hand in test_talks.py; here are real servers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fix_stores import PATIENT, WAIT, Launch, LaunchedServer
from fix_topologies import Cluster, SentinelSet, Topology, until
from redis.crc import key_slot
from test_contract import everything_said

from fastverify.errors import ConfigError, StoreUnavailable
from fastverify.store import Store, open_store
from fastverify.store.breaker import FAILURES
from fastverify.store.requirements import advice

COUNT = "#!lua\nreturn redis.call('INCR', KEYS[1] .. ':n')"
READ = "#!lua flags=no-writes\nreturn tonumber(redis.call('GET', KEYS[1] .. ':n') or 0)"
ECHO = "#!lua flags=no-writes\nreturn ARGV[1]"
PUBLISH = "#!lua\nreturn redis.call('PUBLISH', ARGV[1], ARGV[2])"
SECRET = "hunter2"


@pytest.fixture(
    params=[
        "cluster",
        "redis_sentinel_set",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("redis_cluster", "sentinel_set")),
    ]
)
def topology(request: pytest.FixtureRequest) -> Topology:
    """Each of the shared ones in turn, of both kinds of server."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Topology)
    return found


@pytest.fixture
def tags(unique_prefix: str) -> list[str]:
    return [f"{{{unique_prefix}:{n}}}" for n in range(16)]


@pytest.fixture
def open_blocking() -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def new(url: str, **options: Any) -> Store:
        opened.append(open_store(url, **PATIENT | options))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


def other_primary(cluster: Cluster, tag: str) -> LaunchedServer:
    owner = cluster.primary(tag)
    return next(node for n in range(3) if (node := cluster.primary_of_slot(n * 5461 + 1)) is not owner)


class Caller:
    """Runs calls in a thread until it is stopped; counts those that were answered, and keeps what was raised."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.answered = 0
        self.raised: list[BaseException] = []
        self._run = run
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._run()
                self.answered += 1
            except Exception as error:
                self.raised.append(error)
            time.sleep(0.002)

    def wait_for_another_answer(self) -> None:
        seen = self.answered
        until("a call is answered", lambda: self.answered > seen + 1)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(WAIT)


@contextmanager
def calling(run: Callable[[], Any]) -> Iterator[Caller]:
    caller = Caller(run)
    try:
        caller.wait_for_another_answer()
        yield caller
        caller.wait_for_another_answer()
    finally:
        caller.stop()


# --- routing ---


def test_each_tag_is_at_the_primary_of_its_slot(cluster: Cluster, open_driver, call, tags):
    driver = open_driver(cluster.url)
    assert driver.run_many([call(COUNT, tag=tag) for tag in tags] * 2) == [1] * 16 + [2] * 16
    owners = {tag: cluster.primary(tag) for tag in tags}
    assert len(set(owners.values())) == 3
    for tag, node in owners.items():
        with node.client() as client:
            assert client.get(f"{tag}:n") == b"2"


def test_a_store_is_found_by_any_of_the_hosts(topology: Topology, open_driver, call):
    scheme, _, rest = topology.url.partition("://")
    hosts, slash, path = rest.partition("/")
    driver = open_driver(f"{scheme}://127.0.0.1:1,{hosts.split(',')[-1]}{slash}{path}")
    driver.store.start()
    assert driver.run(call(ECHO, "x")) == b"x"


def test_no_host_that_answers_is_unavailability(open_driver, call):
    for url in ("redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/name"):
        driver = open_driver(url, total=0.3)
        with pytest.raises(StoreUnavailable, match=r"cannot be reached|left alone"):
            driver.run(call(ECHO, "x"))


def test_a_name_that_the_sentinels_do_not_know_is_a_mistake(sentinel_set: SentinelSet, open_driver, call):
    driver = open_driver(sentinel_set.url.replace("/sessions/", "/other/"))
    with pytest.raises(ConfigError, match="no primary by the name 'other'"):
        driver.store.start()
    with pytest.raises(StoreUnavailable, match="no primary by the name 'other'"):
        driver.run(call(ECHO, "x"))


def test_a_server_alone_is_no_cluster(redis_url: str, open_driver):
    with pytest.raises(ConfigError, match="no part of a cluster"):
        open_driver(redis_url.replace("redis://", "redis+cluster://").removesuffix("/0")).store.start()


# --- slots that move ---


@pytest.mark.parametrize("kind", ["cluster", "redis_cluster"])
def test_a_slot_moves_while_calls_run_and_no_call_fails_or_runs_twice(
    request: pytest.FixtureRequest, kind: str, open_both, call, tags
):
    cluster: Cluster = request.getfixturevalue(kind)
    one, other = open_both(cluster.url)
    tag = tags[0]
    target = other_primary(cluster, tag)
    with (
        calling(lambda: one.run(call(COUNT, tag=tag))) as first,
        calling(lambda: other.run(call(COUNT, tag=tag))) as second,
    ):
        for _ in cluster.move_slot(key_slot(tag.encode()), target):
            time.sleep(0.03)
        assert cluster.primary(tag) is target
    assert not first.raised + second.raised
    assert one.run(call(READ, tag=tag)) == first.answered + second.answered


def test_a_shard_that_is_half_moved_is_not_served_by_either_side(cluster: Cluster, open_driver, call, tags):
    """The old node would send us to the new one (ASK), which would say that there is nothing."""
    driver, hasty, tag = open_driver(cluster.url), open_driver(cluster.url, total=0.3), tags[0]
    assert driver.run(call(COUNT, tag=tag)) == 1
    moving = cluster.move_slot(key_slot(tag.encode()), other_primary(cluster, tag))
    assert next(moving) == "opened"
    with pytest.raises(StoreUnavailable, match=r"moving this shard \(ASK\)") as caught:
        hasty.run(call(READ, tag=tag))
    assert caught.value.retry_after == 1
    replies: list[Any] = []
    waiting = threading.Thread(target=lambda: replies.append(driver.run(call(COUNT, tag=tag))))
    waiting.start()
    for step in moving:
        assert step == "closed" or not replies
    waiting.join(WAIT)
    assert replies == [2]


def test_valkey_moves_a_slot_at_once_and_no_call_fails(cluster: Cluster, open_driver, call, tags):
    driver, tag = open_driver(cluster.url), tags[0]
    source, target = cluster.primary(tag), other_primary(cluster, tag)
    slot = key_slot(tag.encode())
    with target.client() as client:
        target_id = client.execute_command("CLUSTER", "MYID").decode()
    with calling(lambda: driver.run(call(COUNT, tag=tag))) as caller:
        with source.client() as client:
            client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target_id)
        until("the slot has moved", lambda: cluster.primary(tag) is target)
    cluster.wait_healthy()
    assert not caller.raised
    assert driver.run(call(READ, tag=tag)) == caller.answered


# --- failovers ---


@pytest.mark.parametrize("kind", ["cluster", "redis_cluster"])
def test_a_planned_failover_of_a_cluster_is_not_noticed(
    request: pytest.FixtureRequest, kind: str, open_both, call, tags
):
    """The old primary stops, and the new one has everything: what was answered is there, and once."""
    cluster: Cluster = request.getfixturevalue(kind)
    one, other = open_both(cluster.url)
    tag = tags[0]
    with (
        calling(lambda: one.run(call(COUNT, tag=tag))) as first,
        calling(lambda: other.run(call(COUNT, tag=tag))) as second,
    ):
        cluster.failover(tag)
    assert not first.raised + second.raised
    assert one.run(call(READ, tag=tag)) == first.answered + second.answered


def test_a_planned_failover_by_sentinels_moves_the_calls(sentinel_set: SentinelSet, open_both, call, tags):
    """Sentinels do not stop the old primary first, so a few calls may be lost; and some connections are cut."""
    one, other = open_both(sentinel_set.url)
    tag = tags[0]
    with (
        calling(lambda: one.run(call(COUNT, tag=tag))) as first,
        calling(lambda: other.run(call(COUNT, tag=tag))) as second,
    ):
        new = sentinel_set.failover()
    for caller in (first, second):
        assert all(isinstance(error, StoreUnavailable) for error in caller.raised)
        assert len(caller.raised) <= 2
    with new.client() as client:
        for driver in (one, other):
            assert client.get(f"{tag}:n") == b"%d" % driver.run(call(READ, tag=tag))


@pytest.mark.parametrize("kind", ["valkey", pytest.param("redis", marks=pytest.mark.long)])
@pytest.mark.parametrize("make", ["launch_cluster", pytest.param("launch_sentinel", marks=pytest.mark.long)])
def test_a_killed_and_a_frozen_primary_are_replaced(
    request: pytest.FixtureRequest, make: str, kind: str, open_both, call, tags
):
    """Nothing but unavailability is raised meanwhile, what was answered ran at most once, and the scripts are found."""
    topology: Topology = request.getfixturevalue(make)(kind)
    hasty = open_both(topology.url, connect=0.25, command=0.5, total=2.0, acquire=0.5)
    patient = open_both(topology.url)
    hasty[0].store.start()
    tag = tags[0]
    for fail in (LaunchedServer.kill, LaunchedServer.freeze):
        former = topology.primary(tag)
        with ExitStack() as stack:
            callers = [stack.enter_context(calling(lambda d=d: d.run(call(COUNT, tag=tag)))) for d in hasty]
            fail(former)
            if fail is LaunchedServer.kill:
                # Refused connections prove that nothing has run: who has the patience does not notice.
                assert [driver.run(call(COUNT, tag=tags[1])) for driver in patient] == [1, 2]
            new = topology.wait_for_new_primary(former, tag)
            for driver in hasty:
                until("it answers again", lambda d=driver: d.run(call(ECHO, "x", tag=tag)) == b"x")
        assert all(isinstance(error, StoreUnavailable) for caller in callers for error in caller.raised)
        with new.client() as client:
            for driver in hasty:
                assert client.get(f"{tag}:n") == b"%d" % driver.run(call(READ, tag=tag))
        former.thaw() if former.running else former.start()
        topology.wait_healthy()


def test_a_connection_to_what_has_become_a_replica_is_not_used_again(launch: Launch, open_both, call, tags):
    """Here by hand, for sentinels cut such connections, if they get to it."""
    first, second = (launch(**{"repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}) for _ in range(2))
    with first.client() as one, second.client() as two, FakeSentinel(first) as sentinel:
        two.replicaof("127.0.0.1", first.port)
        drivers = open_both(sentinel.url)
        assert [driver.run(call(COUNT)) for driver in drivers] == [1, 2]
        until("the replica has it", lambda: two.get(f"{call(COUNT).tag}:n") == b"2")
        two.replicaof("NO", "ONE")
        one.replicaof("127.0.0.1", second.port)
        sentinel.names = second
        assert [driver.run(call(COUNT)) for driver in drivers] == [3, 4]
        assert two.get(f"{call(COUNT).tag}:n") == b"4"


class FakeSentinel:
    """Says of a server that it is the primary, whether it is or not."""

    def __init__(self, names: LaunchedServer) -> None:
        self.names = names
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis+sentinel://127.0.0.1:{self._listener.getsockname()[1]}/name"

    def __enter__(self) -> FakeSentinel:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept()[0],), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := client.recv(65536):
                if b"GET-MASTER-ADDR" in data:
                    port = str(self.names.port).encode()
                    client.sendall(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n*0\r\n" % (len(port), port))


def test_a_server_that_loads_its_data_is_waited_for(launch: Launch, open_both, call):
    server = launch()
    with server.client() as client:
        client.eval("for n = 1, 6000 do redis.call('SET', 'k' .. n, 'x') end", 0)
    server.stop()
    server.settings |= {"key-load-delay": "200"}  # microseconds
    starting = threading.Thread(target=server.start)
    starting.start()
    until("it is loading", lambda: loading(server.port))
    # Both of them while it is loading.
    with ThreadPoolExecutor() as threads:
        assert sorted(threads.map(lambda driver: driver.run(call(COUNT)), open_both(server.url))) == [1, 2]
    starting.join(WAIT)


def loading(port: int) -> bool:
    """Asked without a client, which would hide it."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=WAIT) as probe:
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith(b"-LOADING")
    return False


def test_a_server_that_fails_again_and_again_is_left_alone_for_a_moment(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url, connect=0.25, command=0.25)
    assert driver.run(call(COUNT)) == 1
    server.freeze()
    for _ in range(FAILURES):
        with pytest.raises(StoreUnavailable, match="in time"):
            driver.run(call(ECHO, "x"))
    with pytest.raises(StoreUnavailable, match="left alone") as caught:
        driver.run(call(ECHO, "x"))
    assert caught.value.retry_after == 1
    server.thaw()
    until("it answers again", lambda: driver.run(call(READ)) == 1)
    assert [driver.run(call(ECHO, "x")) for _ in range(3)] == [b"x"] * 3


# --- a reply that is lost ---


def test_a_repeatable_call_whose_reply_is_lost_runs_again_and_once(launch: Launch, open_driver, call, proxy):
    line = proxy(launch().port)
    driver = open_driver(line.url)
    repeatable = call(f"{COUNT}\n-- Repeatable")  # which it is not: so it shows how often it runs
    assert driver.run(repeatable) == 1
    line.cut_at_next_reply()
    assert driver.run(repeatable) == 3
    assert driver.run(call(READ)) == 3


# --- replicas ---


def test_a_durable_call_says_how_many_replicas_have_it(sentinel_set: SentinelSet, cluster: Cluster, open_both, call):
    for topology in (sentinel_set, cluster):
        for driver in open_both(topology.url):
            reply, replicas = driver.run(call(ECHO, "x", durable=True))
            assert reply == b"x"
            count, replicas = driver.run(call(COUNT, durable=True))
            assert replicas >= 1
            assert driver.run_many([call(READ), call(READ, durable=True), call(READ)])[::2] == [count, count]


def test_a_durable_call_whose_replicas_stand_still_says_that_none_has_it(
    sentinel_set: SentinelSet, open_both, call, tags
):
    """For less than the second after which the sentinels would notice."""
    drivers = open_both(sentinel_set.url, command=0.4)
    for driver in drivers:
        driver.run(call(COUNT))
    replicas = sentinel_set.replicas()
    for replica in replicas:
        replica.freeze()
    try:
        assert [driver.run(call(COUNT, durable=True)) for driver in drivers] == [(3, 0), (4, 0)]
    finally:
        for replica in replicas:
            replica.thaw()
    sentinel_set.wait_healthy()


def test_a_server_alone_has_no_replicas_to_wait_for_until_it_has(launch: Launch, open_both, call):
    primary, replica = launch(**{"repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}), launch()
    drivers = open_both(primary.url)
    assert [driver.run(call(COUNT, durable=True)) for driver in drivers] == [(1, None), (2, None)]
    with replica.client() as client:
        client.replicaof("127.0.0.1", primary.port)
        until("it follows", lambda: client.info("replication")["master_link_status"] == "up")
    drivers = open_both(primary.url)
    assert [driver.run(call(COUNT, durable=True)) for driver in drivers] == [(3, 1), (4, 1)]


# --- credentials and TLS ---


def test_sentinels_and_servers_each_have_their_password(launch_sentinel: Callable[..., SentinelSet], open_both, call):
    sentinel_settings = ("requirepass guard", "sentinel sentinel-pass guard")
    topology = launch_sentinel(requirepass=SECRET, sentinel_settings=sentinel_settings)
    right = topology.url.replace("://", f"://:{SECRET}@") + "?sentinel_password=guard"
    assert [driver.run(call(ECHO, "x")) for driver in open_both(right)] == [b"x", b"x"]
    for wrong in (topology.url, right.replace("=guard", "=wrong-horse"), right.replace(SECRET, "wrong-horse")):
        for driver in open_both(wrong):
            with pytest.raises(StoreUnavailable, match="credentials") as caught:
                driver.run(call(ECHO, "x"))
            said = everything_said(caught.value) + repr(driver.store) + driver.store.url
            assert "wrong-horse" not in said and "guard" not in said


def test_a_wrong_password_of_a_cluster_is_unavailability(cluster: Cluster, open_both, call):
    for driver in open_both(cluster.url.replace("://", f"://:{SECRET}@")):
        with pytest.raises(StoreUnavailable, match="credentials") as caught:
            driver.run(call(ECHO, "x"))
        assert SECRET not in everything_said(caught.value)


@pytest.fixture
def tls(certificates: dict[str, Path]) -> dict[str, str]:
    """What Debian's Redis is set to; its servers talk TLS among themselves too. (The embedded one has none.)"""
    return {
        "tls-cert-file": str(certificates["cert"]),
        "tls-key-file": str(certificates["key"]),
        "tls-ca-cert-file": str(certificates["ca"]),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }


#: What docs/store.md says that such a user needs.
USER = (
    "app",
    "on",
    ">p@ss",
    "~{t*",
    "&*",
    "+@read",
    "+@write",
    "+@scripting",
    "+@connection",
    "+time",
    "+info",
    "+wait",
)


def test_a_cluster_with_tls_and_an_acl_user(
    launch_cluster: Callable[..., Cluster], open_both, call, tags, tls: dict[str, str], certificates: dict[str, Path]
):
    names = {"cluster-announce-hostname": "localhost", "cluster-preferred-endpoint-type": "hostname"}
    user = (*USER, "+cluster|slots")
    cluster = launch_cluster("redis", **tls, **names, **{"tls-cluster": "yes", "user": user})
    ports = [cluster.port_of(node) for node in cluster.nodes]
    hosts = ",".join(f"localhost:{port}" for port in ports)
    url = f"rediss+cluster://app:p%40ss@{hosts}?ssl_ca_certs={certificates['ca']}"
    for n, driver in enumerate(open_both(url), 1):
        driver.store.start()
        assert driver.run_many([call(COUNT, tag=tag) for tag in tags]) == [n] * 16
        assert {node.port for node in driver.store._topology.nodes()} <= set(ports)
        assert driver.run(call(COUNT, durable=True))[1] == 1


def test_sentinels_with_tls_and_an_acl_user(
    launch_sentinel: Callable[..., SentinelSet], open_both, call, tls: dict[str, str], certificates: dict[str, Path]
):
    sentinel_settings = (
        *(f"{name} {value}" for name, value in tls.items()),
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
    )
    topology = launch_sentinel(
        "redis", sentinel_settings=sentinel_settings, **tls, **{"replica-announce-ip": "localhost", "user": USER}
    )
    ports = [topology.port_of(sentinel) for sentinel in topology.sentinels]
    hosts = ",".join(f"localhost:{port}" for port in ports)
    url = f"rediss+sentinel://app:p%40ss@{hosts}/sessions?ssl_ca_certs={certificates['ca']}"
    for n, driver in enumerate(open_both(url), 1):
        driver.store.start()
        assert driver.run(call(COUNT, durable=True)) == (n, 1) or driver.run(call(READ)) == n
        (primary,) = driver.store._topology.nodes()
        assert primary.port == topology.port_of(topology.primary())


# --- what the servers must be ---


def test_every_primary_of_a_cluster_must_not_evict(cluster: Cluster, open_driver, call, tags):
    owner = cluster.primary(tags[0])
    with owner.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            driver = open_driver(cluster.url)
            with pytest.raises(ConfigError, match=r"allkeys-lru.*noeviction"):
                driver.store.start()
            with pytest.raises(StoreUnavailable, match=r"allkeys-lru.*noeviction"):
                driver.run(call(ECHO, "x", tag=tags[0]))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    driver.store.start()
    assert driver.run(call(ECHO, "x", tag=tags[0])) == b"x"


def test_a_server_is_looked_at_again_when_it_was_restarted(launch: Launch, open_driver, call):
    server = launch()
    driver = open_driver(server.url)
    driver.store.start()
    assert driver.run(call(COUNT)) == 1
    server.stop()
    server.settings |= {"maxmemory-policy": "volatile-ttl"}
    server.start()
    with pytest.raises(StoreUnavailable, match=r"volatile-ttl.*noeviction"):
        driver.run(call(COUNT))


def test_what_should_be_changed_is_logged_once(sentinel_set: SentinelSet, open_driver, call, caplog):
    driver = open_driver(sentinel_set.url)
    driver.store.start()
    for _ in range(3):
        driver.run(call(ECHO, "x"))
    found = [record.getMessage() for record in caplog.records if record.name == "fastverify.store"]
    assert len(found) == len(set(found)) == 3
    assert all("127.0.0.1" in one for one in found)
    for part in ("min-replicas-to-write", "min-replicas-max-lag", "down-after-milliseconds"):
        assert any(f"{part} is " in one for one in found)


GOOD = {"save": "", "min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
AOF = {"aof_enabled": "1"}


@pytest.mark.parametrize(
    ("replicas", "persistence", "config", "failover", "told"),
    [
        (0, {"aof_enabled": "0"}, {"save": ""}, None, []),
        (2, AOF, GOOD, ("cluster-node-timeout", 15000), []),
        (2, {"aof_enabled": "0"}, GOOD | {"save": "60 1"}, None, []),
        (2, {"aof_enabled": "0"}, GOOD, None, ["appendonly"]),
        (2, {"aof_enabled": "0"}, {}, None, []),
        (1, AOF, GOOD, None, ["Two are recommended"]),
        (2, AOF, GOOD | {"min-replicas-to-write": "0"}, None, ["min-replicas-to-write is 0. Set it to 1"]),
        (3, AOF, GOOD, None, ["min-replicas-to-write is 1. Set it to 2"]),
        (4, AOF, GOOD | {"min-replicas-to-write": "2"}, None, []),
        (2, AOF, GOOD | {"min-replicas-max-lag": "10"}, None, ["min-replicas-max-lag is 10. Set it to 2"]),
        (2, AOF, GOOD | {"min-replicas-max-lag": "0"}, None, ["min-replicas-max-lag is 0. Set it to 2"]),
        (2, AOF, GOOD, ("cluster-node-timeout", 3000), ["cluster-node-timeout is 3000. Set it above 3000"]),
    ],
)
def test_advice(replicas, persistence, config, failover, told):
    found = list(advice(replicas, persistence, config, failover))
    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))


# --- subscriptions ---


@pytest.fixture(params=["embedded_url", "redis_url", "cluster", "sentinel_set"])
def any_url(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else str(found.url)


def test_a_subscription_tells_the_channel_of_each_message(any_url: str, open_blocking, call, tags):
    store = open_blocking(any_url)
    subscription = store.subscribe([tags[0], tags[1]])
    assert subscription.get(0) is None
    for tag in (tags[1], tags[0], tags[2], tags[0]):
        store.run(call(PUBLISH, tag, "x", tag=tag))
    # In a Cluster they come from several nodes, in whatever order.
    assert sorted(subscription.get(WAIT) for _ in range(3)) == [tags[0], tags[0], tags[1]]
    assert subscription.get(0.01) is None
    subscription.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        subscription.get(0)


def test_a_subscription_outlives_silence(redis_url: str, open_blocking, call, tags):
    store = open_blocking(redis_url)
    subscription = store.subscribe([tags[0]])
    subscription._heard_at -= 1e6
    assert [subscription.get(0.01) for _ in range(3)] == [None] * 3
    store.run(call(PUBLISH, tags[0], "x"))
    assert until("a message comes", lambda: subscription.get(0.01)) == tags[0]
    subscription.close()


def test_a_subscription_to_a_server_that_goes_or_stands_still_is_lost(launch: Launch, open_blocking, tags):
    server = launch()
    store = open_blocking(server.url, command=0.2)
    subscription = store.subscribe(tags)
    server.stop()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        subscription.get(WAIT)
    server.start()
    subscription = store.subscribe(tags)
    subscription._heard_at -= 1e6
    with server.stopped(), pytest.raises(StoreUnavailable, match="in time"):
        for _ in range(1000):
            assert subscription.get(0.01) is None
    server.stop()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.subscribe(tags)


def test_a_subscription_is_closed_by_another_thread(redis_url: str, open_blocking, tags):
    subscription = open_blocking(redis_url).subscribe(tags)
    raised: list[BaseException] = []

    def listen() -> None:
        try:
            subscription.get(WAIT)
        except StoreUnavailable as error:
            raised.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    subscription.close()
    listener.join(WAIT)
    assert "closed" in str(raised)


def test_a_subscription_goes_on_at_the_new_primary(sentinel_set: SentinelSet, cluster: Cluster, open_blocking, call):
    for topology in (sentinel_set, cluster):
        store = open_blocking(topology.url)
        channel = call(ECHO).tag
        subscription = store.subscribe([channel])
        topology.failover(channel)
        if topology is sentinel_set:  # a cluster spreads messages to every node
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                subscription.get(WAIT)
            subscription = store.subscribe([channel])
        store.run(call(f"-- Repeatable\n{PUBLISH.removeprefix('#!lua')}", channel, "x"))
        assert subscription.get(WAIT) == channel
        subscription.close()


# --- connections ---


async def test_cancelling_calls_to_several_servers_gives_nobody_a_strange_reply(topology: Topology, call, tags):
    store = open_store(topology.url, **PATIENT | {"connections": 2}).open_async()
    calls = [call(ECHO, tag, tag=tag) for tag in tags]
    for steps in range(30):
        tasks = [asyncio.create_task(store.run_many(calls[n:])) for n in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.gather(*(store.run_many(calls) for _ in range(10))) == [[tag.encode() for tag in tags]] * 10
    await store.aclose()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_finds_its_own_way(topology: Topology, open_blocking, call, tags):
    store = open_blocking(topology.url)
    calls = [call(COUNT, tag=tag) for tag in tags]
    assert store.run_many(calls) == [1] * 16
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if store.run_many(calls) == [2] * 16 else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.run_many(calls) == [3] * 16


def test_the_connections_of_a_closed_store_are_closed(topology: Topology, open_driver, call, tags):
    driver = open_driver(topology.url)
    driver.run_many([call(ECHO, "x", tag=tag) for tag in tags])
    driver.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.store.run(call(ECHO, "x"))
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.store.subscribe(["x"])
