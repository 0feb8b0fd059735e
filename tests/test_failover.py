"""Revocations through failovers, on a real Sentinel set and a real Cluster: what is promised, what is given back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from facades import settings
from fix_topologies import Cluster, SentinelSet, Topology, until

from fastverify import Sessions, SessionVerifier, StoreUnavailable, TryRefreshToken, Unauthorised, revocations
from fastverify.session import handle_bytes

ISSUER = "http://api.test/auth"

LaunchSentinel = Callable[..., SentinelSet]


def refuses(gateway: SessionVerifier | Sessions, token: str) -> bool:
    """Whether a token is refused as one of an ended session, and not for want of a store."""
    try:
        gateway.verify(token)
    except (Unauthorised, TryRefreshToken):
        return True
    return False


def does(operation: Callable[[], object]) -> bool:
    """Whether an operation is possible again; False while the store is away."""
    try:
        operation()
    except StoreUnavailable:
        return False
    return True


@pytest.fixture(params=["cluster", "sentinel_set"])
def topology(request: pytest.FixtureRequest) -> Topology:
    """Each kind in turn, healthy and shared: nothing here breaks it."""
    shared = request.getfixturevalue(request.param)
    assert isinstance(shared, Topology)
    return shared


@pytest.fixture
def service(topology: Topology, unique_prefix: str) -> Iterator[Sessions]:
    """A session service."""
    with Sessions.connect(topology.url, settings(unique_prefix, shards=16)) as sessions:
        yield sessions


@pytest.fixture
def gateway(service: Sessions, topology: Topology, unique_prefix: str) -> Iterator[SessionVerifier]:
    """A gateway beside it."""
    with SessionVerifier.connect(topology.url, issuer=ISSUER, prefix=unique_prefix) as verifier:
        yield verifier


def test_everything_that_is_revoked_is_refused_when_the_call_returns(
    service: Sessions, gateway: SessionVerifier
) -> None:
    users = [f"user-{n}" for n in range(24)]  # in most of the shards, and so on every node
    one, two, all_of_them = ([service.create(user) for user in users] for _ in range(3))
    assert all(gateway.verify(issued.access_token) for issued in (*one, *two, *all_of_them))
    handles = [issued.session.handle for issued in one]
    assert sorted(service.revoke_many(handles, wait="propagated")) == sorted(handles)
    assert all(refuses(gateway, issued.access_token) for issued in one)
    service.blacklist(two[0].access_token, wait="propagated")
    assert refuses(gateway, two[0].access_token) and service.refresh(two[0].refresh_token)
    assert gateway.verify(two[1].access_token)
    service.revoke_all(wait="propagated")
    assert all(refuses(gateway, issued.access_token) for issued in (*two, *all_of_them))
    for issued in all_of_them:
        with pytest.raises(Unauthorised):
            service.refresh(issued.refresh_token)
    assert gateway.verify(service.create("user-1").access_token)
    assert gateway.follower_info().hints > 0


def test_replicated_means_that_a_replica_has_it(service: Sessions, topology: Topology) -> None:
    issued = service.create("user-1")
    tag = service.gateway.authority.tag_of_handle(handle_bytes(issued.session.handle))  # type: ignore[attr-defined]
    assert service.revoke(issued.session.handle, wait="replicated")
    key = f"{tag}:s:{issued.session.handle}"
    for replica in topology.replicas(tag)[:1]:
        with replica.client() as client:
            client.execute_command("READONLY")
            until("the replica has lost the record", lambda: not client.exists(key))


def test_without_a_replica_in_time_the_caller_is_told_and_it_is_revoked_all_the_same(
    launch_sentinel: LaunchSentinel,
) -> None:
    servers = launch_sentinel()
    with Sessions.connect(servers.url, settings("fv", shards=2)) as service:
        issued = service.create("user-1")
        replicas = servers.replicas()
        for replica in replicas:
            replica.freeze()
        try:
            with pytest.raises(StoreUnavailable, match="no replica"):
                service.revoke(issued.session.handle, wait="replicated")
            assert refuses(service, issued.access_token)
        finally:
            for replica in replicas:
                replica.thaw()
        servers.wait_healthy()
        assert service.revoke(issued.session.handle, wait="replicated") is False, "repeated, and now they have it"


@pytest.mark.parametrize("remembered", [512, pytest.param(1, marks=pytest.mark.long)], ids=["gone on", "read anew"])
def test_what_a_failover_loses_is_given_back_by_the_gateways_that_know_it(
    launch_sentinel: LaunchSentinel, remembered: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A follower goes on from what both primaries have; if that is more than it remembers, it reads the shard anew."""
    monkeypatch.setattr(revocations, "_REMEMBERED", remembered)
    servers = launch_sentinel()
    with ExitStack() as stack:
        service = stack.enter_context(Sessions.connect(servers.url, settings("fv", shards=2)))
        gateways = [
            stack.enter_context(SessionVerifier.connect(servers.url, issuer=ISSUER, staleness=60)) for _ in range(2)
        ]
        lost, token, alive = service.create("user-1"), service.create("user-2"), service.create("user-3")
        tenants = [service.create(f"user-{n}", tenant="acme") for n in range(8)]
        former, replicas = servers.primary(), servers.replicas()
        servers.wait_healthy()
        for replica in replicas:
            replica.freeze()
        with former.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # what is sent to a frozen one waits for it
        # Acknowledged by the primary alone, and applied by every gateway.
        service.revoke(lost.session.handle, wait="propagated")
        service.blacklist(token.access_token, wait="propagated")
        service.revoke_tenant("acme", wait="propagated")
        service.close()  # it knows, too, and could be the first; what is left are gateways, which hold no secret
        former.freeze()
        for replica in replicas:
            replica.thaw()
        servers.wait_for_new_primary(former)

        until("it was given back", lambda: sum(one.follower_info().given_back for one in gateways) >= 4)
        until("the other one has seen it, too", lambda: all(one.follower_info().divergences >= 2 for one in gateways))
        assert all(one.follower_info().divergences == 2 for one in gateways), "once in each shard"
        assert not any(one.follower_info().resets for one in gateways)
        assert ("read anew" in caplog.text) == (remembered == 1)
        fresh = stack.enter_context(SessionVerifier.connect(servers.url, issuer=ISSUER))
        again = stack.enter_context(Sessions.connect(servers.url, settings("fv", shards=2)))
        for gateway in (*gateways, fresh, again):
            assert refuses(gateway, lost.access_token) and refuses(gateway, token.access_token)
            assert all(refuses(gateway, issued.access_token) for issued in tenants)
            assert gateway.verify(alive.access_token)
        for issued in (lost, *tenants):
            with pytest.raises(Unauthorised):
                again.refresh(issued.refresh_token)
        assert again.refresh(token.refresh_token) and again.refresh(alive.refresh_token)
        former.thaw()


def test_a_gateway_serves_through_a_failover_and_is_never_wrong(launch_cluster: Callable[..., Cluster]) -> None:
    servers = launch_cluster()
    with (
        Sessions.connect(servers.url, settings("fv", shards=4)) as service,
        SessionVerifier.connect(servers.url, issuer=ISSUER) as gateway,
    ):
        issued = [service.create(f"user-{n}") for n in range(8)]
        ended = [service.create(f"user-{n}") for n in range(8)]
        handles = [one.session.handle for one in ended]
        until("replicas have it", lambda: does(lambda: service.revoke_many(handles, wait="replicated")))
        gateway.wait_for_poll()
        former = servers.primary("{fv:1}")
        former.kill()
        servers.wait_for_new_primary(former, "{fv:1}")
        back = time.monotonic()
        until(
            "all of it works", lambda: all(does(lambda one=one: service.refresh(one.refresh_token)) for one in issued)
        )
        until("it is fresh", lambda: gateway.ready)
        print(f"full service {time.monotonic() - back:.1f} s after the new primary")
        assert all(refuses(gateway, one.access_token) for one in ended)
        assert all(gateway.verify(one.access_token) for one in issued)
        for one in ended:
            with pytest.raises(Unauthorised):
                service.refresh(one.refresh_token)


def told(service: Sessions, after: str | None) -> tuple[list[str | None], bool, str]:
    """Users of the events of sessions, whether some were missed, and the cursor."""
    batch = service.events(after, limit=1000)
    return [event.user_id for event in batch.events if event.handle], batch.missed, batch.cursor


def test_events_of_all_nodes_are_read_together(topology: Topology, unique_prefix: str) -> None:
    with Sessions.connect(topology.url, settings(unique_prefix, shards=16, event_stream=100)) as service:
        users = [f"user-{n}" for n in range(24)]
        for user in users:
            service.create(user)
        found, missed, cursor = told(service, None)
        assert (sorted(map(str, found)), missed) == (sorted(users), False)
        service.revoke_user("user-7")
        assert told(service, cursor)[:2] == (["user-7"], False)


def test_a_planned_failover_loses_no_event(launch_sentinel: LaunchSentinel) -> None:
    servers = launch_sentinel()
    with Sessions.connect(servers.url, settings("fv", shards=2, event_stream=100)) as service:
        for n in range(4):
            service.create(f"before-{n}")
        cursor = told(service, None)[2]
        servers.wait_healthy()
        servers.failover()
        until("a session can be made", lambda: does(lambda: service.create("after")))
        found, missed, _ = told(service, cursor)
        assert (set(found), missed) == ({"after"}, False)
        assert len(told(service, None)[0]) == 4 + len(found)


def test_after_a_failover_that_lost_events_a_reader_gets_every_new_one_and_is_told(
    launch_sentinel: LaunchSentinel,
) -> None:
    servers = launch_sentinel()
    with Sessions.connect(servers.url, settings("fv", shards=1, event_stream=100)) as service:
        service.create("kept")
        former, replicas = servers.primary(), servers.replicas()
        servers.wait_healthy()
        for replica in replicas:
            replica.freeze()
        with former.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # what is sent to a frozen one waits for it
        for _ in range(3):
            service.create("lost")
        found, missed, cursor = told(service, None)
        assert (found, missed) == (["kept", "lost", "lost", "lost"], False)
        former.freeze()
        for replica in replicas:
            replica.thaw()
        servers.wait_for_new_primary(former)
        until("a session can be made", lambda: does(lambda: service.create("new")))
        for _ in range(5):  # more than were lost: their numbers are those of the lost ones, and then others
            service.create("new")
        found, missed, cursor = told(service, cursor)
        assert (set(found), len(found) >= 6, missed) == ({"new"}, True, True)
        assert told(service, cursor) == ([], False, cursor)
        former.thaw()
