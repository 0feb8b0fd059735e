"""What can be revoked, and when a call that revokes returns: by both managers, on each store, seen from a gateway."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from facades import Facade, open_facade, refuses, settings, until
from fix_stores import PATIENT, WAIT, Launch
from session_lab import know_primary, plain_client, session_entry

from fastverify import (
    AsyncSessions,
    RevokedToken,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TokenTheftDetected,
    TryRefreshToken,
    Unauthorised,
    flows,
    revocations,
)
from fastverify.session import handle_bytes
from fastverify.store import Call, Store, drive, open_store

HOUR_MS = 3_600_000
ISSUER = "http://api.test/auth"


@pytest.fixture(params=[("sync", "redis_url"), ("async", "embedded_url")], ids=["sync", "async"])
def manager(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each manager, on a store of its own: what the scripts do is tested on each of them (test_scripts.py)."""
    kind, url = request.param
    return kind, str(request.getfixturevalue(url))


@pytest.fixture
def store_url(manager: tuple[str, str]) -> str:
    """The manager's store."""
    return manager[1]


@pytest.fixture
async def life(manager: tuple[str, str], store_url: str, unique_prefix: str) -> AsyncIterator[Facade]:
    """A session service."""
    facade = await open_facade(manager[0], store_url, settings(unique_prefix, exchange_seconds=0))
    know(store_url, facade.sessions)
    yield facade
    await facade.close()


@pytest.fixture
def gateway(life: Facade, store_url: str, unique_prefix: str) -> Iterator[SessionVerifier]:
    """A gateway on the same store, as in another process: it shares nothing with the service."""
    with SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix) as verifier:
        yield verifier


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """The store, without a manager."""
    store = open_store(store_url, **PATIENT)
    yield store
    store.close()


def know(store_url: str, sessions: Sessions | AsyncSessions) -> None:
    """Spare the tests the wait for verifiers that a new primary has never heard of."""
    with plain_client(open_store(store_url)) as client:
        know_primary(client, sessions.gateway.authority.placement.tags)  # type: ignore[attr-defined]


def asks_to_refresh(gateway: SessionVerifier | Facade, token: str) -> bool:
    """Whether a token is refused as one that is revoked, while its session may live."""
    try:
        gateway.verify(token)
    except TryRefreshToken as error:
        return isinstance(error.__cause__, RevokedToken)
    return False


# --- what ---


async def test_one_access_token_is_refused_and_its_session_lives(life: Facade, gateway: SessionVerifier) -> None:
    issued = await life.create("user-1")
    gateway.verify(issued.access_token)
    another = await life.reissue(issued.session, {"a": 1})
    await life.blacklist(issued.access_token, wait="propagated")
    assert asks_to_refresh(life, issued.access_token) and asks_to_refresh(gateway, issued.access_token)
    assert gateway.verify(another.access_token).payload["a"] == 1
    refreshed = await life.refresh(issued.refresh_token)
    assert gateway.verify(refreshed.access_token).handle == issued.session.handle


def test_a_refresh_within_the_same_second_gives_a_token_that_is_not_refused(store_url: str, unique_prefix: str) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        for _ in range(3):
            issued = service.create("user-1")
            service.blacklist(issued.access_token)
            again = service.refresh(issued.refresh_token)
            assert not again.refresh_token_changed and service.verify(again.access_token)
            service.blacklist(again.access_token)
            assert service.verify(service.refresh(issued.refresh_token).access_token)


async def test_blacklisting_what_is_refused_already_needs_nothing_and_garbage_is_an_error(life: Facade) -> None:
    issued = await life.create("user-1")
    entries = life.sessions.gateway.revoked_entries
    await life.blacklist(issued.access_token.encode())
    await life.blacklist(issued.access_token)
    assert life.sessions.gateway.revoked_entries == entries + 1
    await life.revoke(issued.session.handle)
    await life.blacklist(issued.access_token)
    with pytest.raises(Unauthorised):
        await life.blacklist("nonsense")


async def test_a_user_is_ended_by_whom_a_half_done_revoke_all_had_cut_off_only_in_the_store(
    life: Facade, gateway: SessionVerifier, store: Store
) -> None:
    issued = await life.create("user-1")
    authority = life.sessions.gateway.authority
    raw = handle_bytes(issued.session.handle)
    store.run(Call("mark", authority.tag_of_handle(raw), ("*", "", HOUR_MS)))  # and then the store was away: no entry
    with pytest.raises(Unauthorised):
        await life.refresh(issued.refresh_token)
    await life.create("user-1")
    gateway.verify(issued.access_token)
    await life.revoke_user("user-1", wait="propagated")
    assert refuses(life, issued.access_token) and refuses(gateway, issued.access_token)


async def test_a_tenants_sessions_end_and_others_live(life: Facade, gateway: SessionVerifier) -> None:
    ended = [await life.create(f"user-{n}", tenant="acme") for n in range(9)]
    other = await life.create("user-1")
    for issued in ended:
        gateway.verify(issued.access_token)
    await life.revoke_tenant("acme", wait="propagated")
    assert all(asks_to_refresh(gateway, issued.access_token) for issued in ended)
    for issued in ended:
        with pytest.raises(Unauthorised):
            await life.refresh(issued.refresh_token)
    assert gateway.verify(other.access_token) and await life.refresh(other.refresh_token)
    again = await life.create("user-1", tenant="acme")
    assert gateway.verify(again.access_token), "signed in again within the same second"
    assert await life.handles("user-1", tenant="acme") == [again.session.handle]


async def test_everything_ends_and_what_comes_after_lives(life: Facade, gateway: SessionVerifier) -> None:
    ended = [await life.create(f"user-{n}", tenant=("public", "acme")[n % 2]) for n in range(9)]
    await life.revoke_all(wait="propagated")
    assert all(asks_to_refresh(gateway, issued.access_token) for issued in ended)
    assert all(asks_to_refresh(life, issued.access_token) for issued in ended)
    assert await life.info(ended[0].session.handle) is None
    for issued in ended:
        with pytest.raises(Unauthorised):
            await life.refresh(issued.refresh_token)
    again = [await life.create(f"user-{n}") for n in range(9)]
    for one in again:
        assert gateway.verify((await life.refresh(one.refresh_token)).access_token)


async def test_what_a_key_has_signed_is_refused_and_nobody_is_signed_out(
    life: Facade, gateway: SessionVerifier
) -> None:
    issued = await life.create("user-1")
    kid = issued.session.claims.key_id
    gateway.verify(issued.access_token)
    successor = await life.revoke_key(kid, wait="propagated")
    for verifier in (life, gateway):
        with pytest.raises(TryRefreshToken):  # revoked, or of a key that is no longer there: whichever was heard first
            verifier.verify(issued.access_token)
    kids = {key["kid"] for key in (await life.jwks())["keys"]}
    assert {kid for kid in kids if kid.startswith("d-")} == {successor}
    refreshed = await life.refresh(issued.refresh_token)
    assert refreshed.session.claims.key_id == successor
    gateway.wait_for_poll()
    assert gateway.verify(refreshed.access_token).handle == issued.session.handle


async def test_a_revoked_key_that_a_failover_brings_back_goes_again(
    life: Facade, gateway: SessionVerifier, store: Store, unique_prefix: str
) -> None:
    issued = await life.create("user-1")
    kid = issued.session.claims.key_id
    ring = drive(store, flows.read_keys(unique_prefix, private=True)).records
    public, sealed = next(parts for name, *parts in ring if name.decode() == kid)
    successor = await life.revoke_key(kid, wait="propagated")
    store.run(Call("keys_add", f"{{{unique_prefix}}}", ("newest", successor, kid, public, sealed)))
    gateway.wait_for_poll()
    assert kid not in {key.kid for key in gateway._ring.keys}
    with pytest.raises(TryRefreshToken):
        gateway.verify(issued.access_token)
    life.sessions.gateway.wait_for_poll()

    def kids() -> set[bytes]:
        return {name for name, *_ in drive(store, flows.read_keys(unique_prefix, private=False)).records}

    until(lambda: kid.encode() not in kids(), WAIT)
    assert (await life.create("user-2")).session.claims.key_id != kid


# --- when ---


async def test_propagated_means_that_every_gateway_refuses(life: Facade, store_url: str, unique_prefix: str) -> None:
    gateways = [SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix) for _ in range(3)]
    try:
        for n in range(5):
            sessions = [await life.create("user-1") for _ in range(4)]
            for gateway in gateways:
                assert all(gateway.verify(issued.access_token) for issued in sessions)
            if n % 2:
                assert len(await life.revoke_user("user-1", wait="propagated")) == 4
            else:
                handles = [issued.session.handle for issued in sessions]
                assert sorted(await life.revoke_many(handles, wait="propagated")) == sorted(handles)
            for gateway in gateways:
                assert all(refuses(gateway, issued.access_token) for issued in sessions)
    finally:
        for gateway in gateways:
            gateway.close()


async def test_a_gateway_that_is_silent_is_waited_for_until_it_is_stale(
    life: Facade, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await life.create("user-1")
    authority = life.sessions.gateway.authority
    tag = authority.tag_of_handle(handle_bytes(issued.session.handle))
    seq, nonce, *_ = store.run(Call("follow_start", tag, ("",)))
    store.run(Call("follow_poll", tag, ("somebody", seq, nonce, 10, 700)))
    reported = time.monotonic()
    assert await life.revoke(issued.session.handle, wait="propagated")
    assert time.monotonic() > reported + 0.6, "it might have served until then"


async def test_a_gateway_that_reports_and_never_applies_is_not_taken_for_one_that_has(
    life: Facade, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastverify.key_keeper._REPORT_SECONDS", -4.5)  # patience: half a second
    issued = await life.create("user-1")
    tag = life.sessions.gateway.authority.tag_of_handle(handle_bytes(issued.session.handle))
    seq, nonce, *_ = store.run(Call("follow_start", tag, ("",)))
    store.run(Call("follow_poll", tag, ("stuck", seq, nonce, 10, 60_000)))
    with pytest.raises(StoreUnavailable, match="not every verifier"):
        await life.revoke(issued.session.handle, wait="propagated")
    assert refuses(life, issued.access_token), "it is revoked all the same"


async def test_an_unknown_wait_is_refused_before_anything_is_revoked(life: Facade) -> None:
    issued = await life.create("user-1")
    with pytest.raises(ValueError, match="wait"):
        await life.revoke(issued.session.handle, wait="everywhere")
    assert life.verify(issued.access_token)


def test_without_replicas_there_is_nothing_to_wait_for(store_url: str, unique_prefix: str) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        issued = service.create("user-1")
        assert service.revoke(issued.session.handle, wait="replicated")


def test_a_hint_is_heard_long_before_the_next_poll(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "POLL_INTERVAL", 3600.0)
    with Sessions.connect(store_url, settings(unique_prefix, revocation_staleness=3600)) as service:
        gateway = SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix, staleness=3600)
        with gateway:
            deadline = time.monotonic() + WAIT
            while not gateway.follower_info().hints:  # until it listens
                service.revoke(service.create("user-0").session.handle)
                assert time.monotonic() < deadline
                time.sleep(0.05)
            issued = service.create("user-1")
            gateway.verify(issued.access_token)
            know(store_url, service)
            service.revoke_user("user-1", wait="propagated")
            assert refuses(gateway, issued.access_token)
            info = gateway.follower_info()
            assert info.polls <= 2 and info.applied >= 2


def test_who_may_not_publish_or_subscribe_has_the_polls(launch: Launch) -> None:
    server = launch()
    with server.client() as client:
        # As Redis makes users by itself: every channel is closed to them.
        client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~fv*", "~{fv*", "+@all", "resetchannels")
    url = server.url.replace("redis://", "redis://app:secret@")
    with Sessions.connect(url, settings("fv")) as service, SessionVerifier.connect(url, issuer=ISSUER) as gateway:
        issued = service.create("user-1")
        gateway.verify(issued.access_token)
        assert service.revoke(issued.session.handle, wait="propagated")
        assert refuses(gateway, issued.access_token)
        assert gateway.follower_info().hints == 0


# --- confirmations ---


async def test_a_thief_who_was_first_is_found_when_a_gateway_has_seen_his_token(
    request: pytest.FixtureRequest, store_url: str, unique_prefix: str
) -> None:
    life = await open_facade("sync", store_url, settings(unique_prefix, exchange_seconds=1))
    with SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix) as gateway:
        try:
            issued = await life.create("user-1")
            await asyncio.sleep(3.1)  # D
            stolen = await life.refresh(issued.refresh_token)
            assert stolen.refresh_token_changed
            gateway.verify(stolen.access_token)
            until(lambda: gateway.follower_info().confirmed == 1, WAIT)
            await asyncio.sleep(1.1)  # W
            with pytest.raises(TokenTheftDetected) as caught:
                await life.refresh(issued.refresh_token)
            assert caught.value.reuse == "one_behind"
            until(lambda: refuses(gateway, stolen.access_token), WAIT)
        finally:
            await life.close()


def test_more_sessions_than_can_be_reported_are_counted(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastverify.sightings._MOST", 3)
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        follower = service.gateway._follower
        issued = [service.create(f"user-{n}") for n in range(9)]
        follower.close()  # it reports nothing more
        for one in issued:
            service.gateway._follower.sightings.add(one.session)
        info = service.gateway.follower_info()
        assert info.unconfirmed >= 6


# --- a part of the store is away ---


def test_a_verifier_that_serves_when_stale_hears_of_what_the_rest_of_the_store_says(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        there, away = service.create("user-1"), service.create("user-2")
        tag = service.gateway.authority.tag_of_handle(handle_bytes(away.session.handle))  # type: ignore[attr-defined]
        assert tag != service.gateway.authority.tag_of_user("user-1")  # type: ignore[attr-defined]
        store = open_store(store_url, **PATIENT)
        ask = store.run_many

        def run_many(calls: list[Call]) -> list[object]:
            if any(call.tag == tag for call in calls):
                raise StoreUnavailable("the node of this shard is away")
            return ask(calls)

        def subscribe(channels: list[str]) -> None:
            raise StoreUnavailable("no hints")

        monkeypatch.setattr(store, "subscribe", subscribe)
        with SessionVerifier(store, issuer=ISSUER, prefix=unique_prefix, staleness=2, when_stale="allow") as gateway:
            gateway.start(WAIT)
            gateway.verify(there.access_token)
            gateway.verify(away.access_token)
            monkeypatch.setattr(store, "run_many", run_many)
            service.revoke_many([there.session.handle, away.session.handle])
            until(lambda: refuses(gateway, there.access_token), WAIT)
            assert not gateway.ready or gateway.lag_seconds < 2
            assert gateway.verify(away.access_token), "of this one nothing can be known"
            monkeypatch.setattr(store, "run_many", ask)
            gateway.wait_for_poll()
            assert refuses(gateway, away.access_token)


def test_a_service_that_is_set_to_other_shards_than_the_store_has_says_so(
    store_url: str, unique_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Sessions.connect(store_url, settings(unique_prefix, shards=4)) as first:
        assert not [line for line in caplog.messages if "shards" in line]
        with Sessions.connect(store_url, settings(unique_prefix, shards=8)) as second:
            assert any("4 shards" in line and "not to 8" in line for line in caplog.messages)
            assert first.verify(second.create("user-1").access_token)


# --- what a failover lost without a trace in the log that a follower stands in ---


def test_what_this_process_wrote_and_does_not_read_in_the_log_is_written_again(
    store_url: str, unique_prefix: str
) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        issued = service.create("user-1")
        gateway = service.gateway
        # As after a failover that lost the write before anybody had polled: the log ends where it ended before.
        gateway.refuse([session_entry(issued.session.handle)], 1000)
        until(lambda: gateway.follower_info().given_back > 0, WAIT)
        assert gateway.follower_info().divergences == 0
        with pytest.raises(Unauthorised):
            service.refresh(issued.refresh_token)
        service.revoke(service.create("user-2").session.handle)
        time.sleep(2.5)
        assert gateway.follower_info().given_back == 1, "what is read in the log is not written again"


def test_what_a_hint_was_faster_with_than_this_process_is_not_written_again(
    store_url: str, unique_prefix: str, store: Store
) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        gateway, authority = service.gateway, service.gateway.authority
        handle = service.create("user-1").session.handle
        outcome = drive(store, flows.revoke_many(authority, [handle], random=os.urandom))
        gateway.wait_for_poll()
        entries = gateway.follower_info().applied
        gateway.refuse(outcome.entries, outcome.life)
        for _ in range(2):  # what was refused here and is not read by the second would be missing
            gateway.wait_for_poll()
        until(lambda: gateway._follower._restoration.due() == float("inf"), WAIT)
        info = gateway.follower_info()
        assert (info.given_back, info.applied) == (0, entries)
        assert not gateway._follower._restoration._unread


def test_what_is_known_is_compared_with_the_store_after_every_start(store_url: str, unique_prefix: str) -> None:
    with Sessions.connect(store_url, settings(unique_prefix)) as service:
        known, other = service.create("user-1"), service.create("user-2")
        service.revoke(other.session.handle)
        with SessionVerifier(open_store(store_url, **PATIENT), issuer=ISSUER, prefix=unique_prefix) as gateway:
            # Read by a start that was broken off, from a primary that is no more.
            for issued in (known, other):
                gateway._table.add(session_entry(issued.session.handle), int(time.time()) + 1000)
            gateway.start(WAIT)
            until(lambda: gateway.follower_info().given_back > 0, WAIT)
            service.gateway.wait_for_poll()
            assert refuses(service, known.access_token)
            assert gateway.follower_info().given_back == 1


def test_what_the_sets_showed_counts_only_when_the_log_has_been_read_as_far_as_it_went_then(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover between the sets and the first poll may leave the tail that was read before them as it was."""
    with Sessions.connect(store_url, settings(unique_prefix, shards=1)):
        store = open_store(store_url, **PATIENT)
        ask, ends = store.run_many, itertools.count()

        def run_many(calls: list[Call]) -> list[Any]:
            replies = ask(calls)
            if calls[0].script == "follow_tail" and next(ends) == 0:  # after the sets, of the first load
                seq, _, *rest = replies[0]
                replies = [[int(seq) + 1, b"an entry that the failover lost", *rest]]
            return replies

        monkeypatch.setattr(store, "run_many", run_many)
        with SessionVerifier(store, issuer=ISSUER, prefix=unique_prefix) as gateway:
            gateway.start(WAIT)
            assert gateway.ready and gateway.follower_info().divergences == 1
            assert next(ends) == 2, "it was read anew, and all of that was passed"
