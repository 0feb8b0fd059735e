"""What one process revokes another one refuses: the follower, through restarts, flushes and outages."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from facades import Clock, refuses, settings, until
from fix_stores import PATIENT, Launch
from session_lab import plain_client

from fastverify import (
    AsyncSessions,
    ConfigError,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
    UnknownKey,
    flows,
    revocations,
)
from fastverify.store import Call, drive, open_store

ISSUER = "http://api.test/auth"


def under_another_kid(token: str, kid: str) -> str:
    """The token with another key id in its header, and so with a signature that is none."""
    header = json.dumps({"alg": "ES256", "kid": kid, "typ": "JWT", "version": "5"}).encode()
    return f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{token.partition('.')[2]}"


def verifies(gateway: SessionVerifier, token: str) -> bool:
    """Whether a token is accepted."""
    try:
        gateway.verify(token)
    except (TryRefreshToken, StoreUnavailable):
        return False
    return True


@pytest.fixture
def service(store_url: str, unique_prefix: str) -> Iterator[Sessions]:
    """A session service."""
    with Sessions.connect(store_url, settings(unique_prefix)) as sessions:
        yield sessions


@pytest.fixture
def gateway(service: Sessions, store_url: str, unique_prefix: str) -> Iterator[SessionVerifier]:
    """A gateway on the same store, as another process would be: it shares nothing with the service."""
    with SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix) as verifier:
        yield verifier


def test_a_gateway_needs_no_secret_and_sees_a_revocation_after_one_poll(
    service: Sessions, gateway: SessionVerifier
) -> None:
    assert gateway.ready
    assert gateway.lag_seconds < 5
    issued = service.create("user-1", payload={"plan": "pro"})
    session = gateway.verify(issued.access_token)
    assert (session.user_id, dict(session.payload)) == ("user-1", {"plan": "pro"})
    service.revoke(session.handle)
    assert refuses(service, issued.access_token), "the revoking process refuses at once"
    gateway.wait_for_poll()
    assert refuses(gateway, issued.access_token)
    assert gateway.revoked_entries == 1


def test_by_itself_a_gateway_hears_of_it_within_its_polls(service: Sessions, gateway: SessionVerifier) -> None:
    issued = service.create("user-1")
    gateway.verify(issued.access_token)
    service.revoke_user("user-1")
    until(lambda: refuses(gateway, issued.access_token), 5)


def test_a_gateway_that_starts_later_knows_what_was_revoked_before(
    service: Sessions, store_url: str, unique_prefix: str
) -> None:
    ended = [service.create(f"user-{n}") for n in range(20)]
    service.revoke_many(one.session.handle for one in ended)
    alive = service.create("user-0")
    with SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix) as late:
        assert all(refuses(late, one.access_token) for one in ended)
        assert late.verify(alive.access_token).user_id == "user-0"
        assert late.revoked_entries == 20


def test_more_revocations_than_one_poll_returns_are_all_applied(
    service: Sessions, gateway: SessionVerifier, unique_prefix: str
) -> None:
    issued = service.create("user-1")
    shard = service._gateway.authority.placement.shard_of_user("user-1")
    handles = [f"{16 * n + shard:08x}-0000-4000-8000-000000000000" for n in range(2500)]
    tag = service._gateway.authority.placement.tag(shard)
    for start in range(0, 2500, 500):
        service._store.run(Call("revoke", tag, (4000, f"n{start}", 0, "revoked", *handles[start : start + 500])))
    service.revoke(issued.session.handle)
    gateway.wait_for_poll()
    assert refuses(gateway, issued.access_token)
    assert gateway.revoked_entries == 2501


def test_a_key_that_is_not_known_here_yet_is_no_reason_to_refuse(service: Sessions, gateway: SessionVerifier) -> None:
    kid = service.rotate_keys()
    until(lambda: kid in {key.kid for key in gateway._ring.keys}, 5)
    issued = service.create("user-1")
    _, payload, signature = issued.access_token.split(".")
    forged_header = json.dumps({"alg": "ES256", "kid": "d-99", "typ": "JWT", "version": "5"}).encode()
    stranger = f"{base64.urlsafe_b64encode(forged_header).decode().rstrip('=')}.{payload}.{signature}"
    with pytest.raises(StoreUnavailable):
        gateway.verify(stranger)
    gateway.wait_for_poll()
    with pytest.raises(TryRefreshToken) as caught:
        gateway.verify(stranger)
    assert isinstance(caught.value.__cause__, UnknownKey)


def test_the_kids_that_are_remembered_as_unknown_are_bounded(service: Sessions, gateway: SessionVerifier) -> None:
    _, payload, signature = service.create("user-1").access_token.split(".")
    for n in range(2000):
        header = json.dumps({"alg": "ES256", "kid": f"d-{n}", "typ": "JWT", "version": "5"}).encode()
        token = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{payload}.{signature}"
        with pytest.raises((StoreUnavailable, TryRefreshToken)):
            gateway.verify(token)
    assert len(gateway._unknown) <= 256


def test_a_gateway_on_a_store_without_a_service_is_not_ready(store_url: str, unique_prefix: str) -> None:
    with pytest.raises(StoreUnavailable, match="not ready"):
        SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix, wait=0.3)


def test_another_issuers_gateway_takes_our_tokens_for_none(
    service: Sessions, store_url: str, unique_prefix: str
) -> None:
    issued = service.create("user-1")
    with SessionVerifier.connect(store_url, issuer="https://other.test/auth", prefix=unique_prefix) as other:
        with pytest.raises(TryRefreshToken):
            other.verify(issued.access_token)


def test_script_flush_is_not_noticed(service: Sessions, gateway: SessionVerifier, store_url: str) -> None:
    _command(store_url, "SCRIPT", "FLUSH")
    issued = service.create("user-1")
    _command(store_url, "SCRIPT", "FLUSH")
    assert service.refresh(issued.refresh_token).session.handle == issued.session.handle
    _command(store_url, "SCRIPT", "FLUSH")
    service.revoke(issued.session.handle)
    gateway.wait_for_poll()
    assert refuses(gateway, issued.access_token)


def test_store_down_verify_goes_on_and_the_rest_says_unavailable_then_all_recovers(launch: Launch) -> None:
    server = launch()
    with (
        Sessions.connect(server.url, settings("fv")) as service,
        SessionVerifier.connect(server.url, issuer=ISSUER) as gateway,
    ):
        issued, ended = service.create("user-1"), service.create("user-1")
        service.revoke(ended.session.handle)
        gateway.wait_for_poll()
        server.kill()

        assert service.verify(issued.access_token).user_id == "user-1"
        assert gateway.verify(issued.access_token).user_id == "user-1"
        assert refuses(gateway, ended.access_token)
        for operation in (
            lambda: service.create("user-2"),
            lambda: service.refresh(issued.refresh_token),
            lambda: service.revoke(issued.session.handle),
            lambda: service.verify_strict(issued.access_token),
            lambda: service.info(issued.session.handle),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                operation()
            assert caught.value.retry_after >= 1

        server.start()
        until(lambda: _answers(service))
        assert service.refresh(issued.refresh_token).session.handle == issued.session.handle
        assert refuses(gateway, ended.access_token)
        service.revoke(issued.session.handle)
        gateway.wait_for_poll()
        assert refuses(gateway, issued.access_token)


@pytest.mark.parametrize("when_stale", ["refuse", "allow"])
def test_a_gateway_that_hears_nothing_goes_stale(launch: Launch, when_stale: str) -> None:
    server = launch()
    with (
        Sessions.connect(server.url, settings("fv")) as service,
        SessionVerifier.connect(server.url, issuer=ISSUER, staleness=2, when_stale=when_stale) as gateway,
    ):
        token = service.create("user-1").access_token
        assert gateway.verify(token).user_id == "user-1"
        server.kill()
        until(lambda: not gateway.ready)
        assert gateway.stale_served == 0
        if when_stale == "allow":
            assert gateway.verify(token).user_id == "user-1"
            assert gateway.stale_served == 1
        else:
            with pytest.raises(StoreUnavailable):
                gateway.verify(token)
        server.start()
        until(lambda: gateway.ready)
        assert gateway.verify(token).user_id == "user-1"


def test_a_store_that_was_emptied_does_not_bring_revoked_tokens_back(launch: Launch) -> None:
    server = launch()
    with (
        Sessions.connect(server.url, settings("fv")) as service,
        SessionVerifier.connect(server.url, issuer=ISSUER) as gateway,
    ):
        ended = service.create("user-1")
        service.revoke(ended.session.handle)
        gateway.wait_for_poll()
        with server.client() as client:
            client.flushall()
        until(lambda: service.gateway.lag_seconds < 1 and gateway.lag_seconds < 1)
        assert refuses(gateway, ended.access_token)
        assert refuses(service, ended.access_token)


def test_a_store_that_was_emptied_is_taken_up_again_by_the_services_that_run(launch: Launch) -> None:
    server = launch()
    with (
        Sessions.connect(server.url, settings("fv")) as service,
        SessionVerifier.connect(server.url, issuer=ISSUER) as gateway,
    ):
        gone = service.create("user-1")
        with server.client() as client:
            client.flushall()
        with suppress(StoreUnavailable):
            service.gateway.wait_for_poll()
        until(lambda: service.ready and gateway.ready and service.gateway.lag_seconds < 1)
        issued = service.create("user-1")
        until(lambda: verifies(gateway, issued.access_token))
        assert service.verify(issued.access_token).user_id == "user-1"
        assert service.refresh(issued.refresh_token).session.handle == issued.session.handle
        with pytest.raises(Unauthorised):
            service.refresh(gone.refresh_token)


def test_a_revocation_outlives_the_tokens_of_a_service_that_issues_longer_ones(
    store_url: str, unique_prefix: str
) -> None:
    """The revoking service has not heard yet that another one, with a longer access lifetime, has started."""
    short = settings(unique_prefix, access_token_lifetime=60)
    long = settings(unique_prefix, access_token_lifetime=86_400)
    with Sessions.connect(store_url, short) as one:
        authority = one._gateway.authority
        with Sessions.connect(store_url, long) as two:
            issued = two.create("user-1")
            one._gateway._authority = authority  # as it knew the store before
            drive(one._store, flows.revoke_many(authority, [issued.session.handle], random=os.urandom))
            two.gateway.wait_for_poll()
            assert refuses(two, issued.access_token)
            ((_, forgotten_at),) = two.gateway._table.entries()
            assert forgotten_at > issued.session.expires_at


def test_a_gateway_can_start_during_an_outage(launch: Launch) -> None:
    server = launch()
    with Sessions.connect(server.url, settings("fv")) as service:
        token = service.create("user-1").access_token
    server.stop()
    with SessionVerifier.connect(server.url, issuer=ISSUER, wait=0) as gateway:
        assert not gateway.ready
        with pytest.raises(StoreUnavailable):
            gateway.verify(token)
        server.start()
        until(lambda: gateway.ready)
        assert gateway.verify(token).user_id == "user-1"


def test_a_closed_gateway_says_unavailable(service: Sessions, store_url: str, unique_prefix: str) -> None:
    token = service.create("user-1").access_token
    gateway = SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix)
    gateway.verify(token)
    gateway.close()
    with pytest.raises(StoreUnavailable):
        gateway.verify(token)


def test_an_embedded_server_that_is_killed_comes_back_by_itself_with_its_sessions(tmp_path: Path) -> None:
    with Sessions.connect(f"embedded://{tmp_path}", settings("fv")) as service:
        issued = service.create("user-1")
        time.sleep(1.1)  # what is older than a second is on disk (appendfsync everysec)
        os.kill(_server_pid(service), signal.SIGKILL)
        until(lambda: _answers(service))
        assert service.refresh(issued.refresh_token).session.handle == issued.session.handle


def _server_pid(service: Sessions) -> int:
    with plain_client(service._store) as client:
        return int(client.info("server")["process_id"])


def _answers(service: Sessions) -> bool:
    try:
        return service.handles("user-1") != []
    except StoreUnavailable:
        return False


FORK = """
    import os, sys, time
    from fastverify import Config, Sessions, StoreUnavailable, Unauthorised
    url, prefix = sys.argv[1:]
    config = Config(api_domain="http://api.test", website_domain="http://api.test", secret=bytes(range(32)),
                    key_prefix=prefix, shards=4)
    sessions = Sessions.connect(url, config)
    issued = sessions.create("user-1")
    sessions.verify(issued.access_token)
    pid = os.fork()
    if pid == 0:
        try:
            try:
                sessions.verify(issued.access_token)
                os._exit(10)  # it has no follower: it must be stale
            except StoreUnavailable:
                pass
            deadline = time.monotonic() + 10
            while not sessions.ready and time.monotonic() < deadline:
                time.sleep(0.01)
            sessions.verify(issued.access_token)
            sessions.revoke(issued.session.handle)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(11)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    sessions.gateway.wait_for_poll()
    try:
        sessions.verify(issued.access_token)
    except Unauthorised:
        print("refused")
    sessions.close()
"""


def test_a_forked_child_is_stale_until_it_has_loaded_for_itself(store_url: str, unique_prefix: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORK), store_url, unique_prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "refused"


OTHER_PROCESS = """
    import sys
    from fastverify import SessionVerifier, Unauthorised
    gateway = SessionVerifier.connect(sys.argv[1], issuer="http://api.test/auth", prefix=sys.argv[2])
    for line in sys.stdin:
        try:
            print(gateway.verify(line.strip()).user_id, flush=True)
        except Unauthorised as error:
            print("refused", error.clear_tokens, flush=True)
    gateway.close()
"""


def test_another_process_refuses_what_this_one_revoked(service: Sessions, store_url: str, unique_prefix: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), store_url, unique_prefix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None

        def ask(token: str) -> str:
            other.stdin.write(f"{token}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        issued = service.create("user-1")
        assert ask(issued.access_token) == "user-1"
        service.revoke(issued.session.handle)
        until(lambda: ask(issued.access_token) == "refused True", 10)
        other.stdin.close()
        assert other.wait(10) == 0


def _command(url: str, *words: str) -> None:
    with plain_client(open_store(url)) as client:
        client.execute_command(*words)


# --- what may not be missed, and what may not end ---


def test_a_clock_that_jumps_ahead_and_back_forgets_no_revocation(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "_SWEEP", -1.0)  # at every poll
    clock = Clock(time.time())
    sessions = Sessions(open_store(store_url), settings(unique_prefix), clock=clock)
    try:
        issued = sessions.create("user-1")
        sessions.revoke(issued.session.handle)
        clock.now += 1_000_000
        for _ in range(2):
            sessions.gateway.wait_for_poll()
        clock.now -= 1_000_000
        assert refuses(sessions, issued.access_token)
    finally:
        sessions.close()


def test_a_store_that_is_laid_out_anew_is_followed_in_all_its_shards(launch: Launch) -> None:
    server = launch()
    with Sessions.connect(server.url, settings("fv", shards=1)):
        gateway = SessionVerifier.connect(server.url, issuer=ISSUER)
    with gateway, server.client() as client:
        client.flushall()
        with Sessions.connect(server.url, settings("fv", shards=8)) as service:
            issued = [service.create(f"user-{n}") for n in range(12)]
            service.revoke_many([each.session.handle for each in issued])
            until(lambda: len(gateway._follower._shards) == 8)
            gateway.wait_for_poll()
            assert all(refuses(gateway, each.access_token) for each in issued)


def test_a_server_that_is_replaced_while_its_sets_are_read_is_read_anew(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor of one server process passes over a good part of the set in another."""
    server = launch()
    with Sessions.connect(server.url, settings("fv", shards=1)) as service:
        service.revoke_many(str(uuid.uuid4()) for _ in range(4_000))
    store = open_store(server.url, **PATIENT)
    scans = itertools.count(1)
    ask = store.run

    def run(call: Call) -> Any:
        if call.script == "follow_scan" and next(scans) == 3:
            server.stop()
            server.start()
        return ask(call)

    monkeypatch.setattr(store, "run", run)
    with SessionVerifier(store, issuer=ISSUER) as gateway:
        gateway.start(30)
        assert gateway.revoked_entries == 4_000


@pytest.mark.parametrize("error", [ConfigError("jwks", "no key can be used"), OSError("no more processes"), KeyError()])
def test_whatever_fails_the_follower_goes_on(service: Sessions, error: Exception, store_url: str) -> None:
    """A gateway that serves when stale never says unavailable, and so would not start another thread."""
    issued = service.create("user-1")
    prefix = service.config.key_prefix
    with SessionVerifier.connect(store_url, issuer=ISSUER, prefix=prefix, when_stale="allow") as gateway:
        follower = gateway._follower
        keep_ring, start, failed = follower._keep_ring, gateway._store.start, threading.Semaphore(0)

        def fail() -> Any:
            failed.release()
            raise error

        follower._keep_ring = gateway._store.start = fail  # type: ignore[method-assign]
        for _ in range(4):
            assert failed.acquire(timeout=20)
        follower._keep_ring, gateway._store.start = keep_ring, start  # type: ignore[method-assign]
        service.revoke(issued.session.handle)
        until(lambda: refuses(gateway, issued.access_token))


def test_a_mistake_in_the_setup_that_is_put_right_needs_no_restart_and_holds_no_frames(launch: Launch) -> None:
    server = launch(**{"maxmemory-policy": "allkeys-lru"})
    sessions = Sessions(open_store(server.url), settings("fv"))
    try:
        depths = set()
        for _ in range(3):
            with pytest.raises(ConfigError) as caught:
                sessions.create("user-1")
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
        assert len(depths) == 1, "one and the same error must not gather the frames of every call that it ended"
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
        until(lambda: sessions.ready)
        assert sessions.create("user-1")
    finally:
        sessions.close()


def test_close_wakes_whoever_waits(unused_tcp_port: int) -> None:
    gateway = SessionVerifier(open_store(f"redis://127.0.0.1:{unused_tcp_port}/0"), issuer=ISSUER)
    gateway.start(0)
    said: list[str] = []

    def wait(how: Callable[[float], None]) -> None:
        try:
            how(300)
        except StoreUnavailable as error:
            said.append(str(error))

    waiting = [threading.Thread(target=wait, args=(how,)) for how in (gateway._follower.wait, gateway.wait_for_poll)]
    for thread in waiting:
        thread.start()
    gateway.close()
    for thread in waiting:
        thread.join(20)
    assert len(said) == 2


def test_garbage_does_not_set_the_pace_of_the_polls() -> None:
    clock = Clock(1000.0)
    gateway = SessionVerifier(open_store("redis://127.0.0.1:1/0"), issuer=ISSUER, monotonic=clock)
    follower = gateway._follower
    follower._tried = clock.now
    follower.nudge()
    assert not follower._wake.is_set()
    clock.now += 1
    follower.nudge()
    assert follower._wake.is_set()


def test_a_forked_child_counts_its_own_polls(service: Sessions, gateway: SessionVerifier) -> None:
    """Else a kid that the parent did not know stayed unknown until the child had polled as often as the parent."""
    token = under_another_kid(service.create("user-1").access_token, "d-99")
    for _ in range(20):
        gateway.wait_for_poll()
    with pytest.raises(StoreUnavailable):
        gateway.verify(token)
    gateway._follower.begin_anew()
    gateway._follower.wait(20)
    with pytest.raises(StoreUnavailable):
        gateway.verify(token)
    gateway.wait_for_poll()
    with pytest.raises(TryRefreshToken):
        gateway.verify(token)


def test_two_rings_that_come_at_once_are_not_mixed(service: Sessions, gateway: SessionVerifier) -> None:
    """``rotate_keys`` takes a ring over in its caller's thread, and the follower in its own."""
    gateway._follower.close()
    rings = []
    for _ in range(2):
        service.rotate_keys()
        rings.append(drive(service._store, flows.read_keys(service.config.key_prefix, private=False)))
    older, newer = rings
    begun, go_on = threading.Event(), threading.Event()
    verifier = gateway._verifier

    class Slow:
        def replace_keys(self, keys: Any) -> None:
            if threading.current_thread() is first:
                begun.set()
                assert go_on.wait(20)
            verifier.replace_keys(keys)

    gateway._verifier = Slow()  # type: ignore[assignment]
    first = threading.Thread(target=gateway._take_over, args=(newer,))
    second = threading.Thread(target=gateway._take_over, args=(older,))
    first.start()
    assert begun.wait(20)
    second.start()
    second.join(0.1)  # it cannot end yet; where nothing kept it out, it would
    go_on.set()
    first.join(20)
    second.join(20)
    assert gateway._state is not None
    assert {key.kid for key in gateway._ring.keys} == {kid.decode() for kid, *_ in gateway._state.records}


async def test_many_calls_wait_for_readiness_in_one_thread(unused_tcp_port: int) -> None:
    """With a thread each they would fill the executor, which the rest of the application needs, and wait in turns."""
    sessions = AsyncSessions.connect(f"redis://127.0.0.1:{unused_tcp_port}/0", settings("fv"), wait=0.2)
    waits = []
    wait = sessions._gateway.wait
    sessions._gateway.wait = lambda timeout: (waits.append(timeout), wait(timeout))[1]  # type: ignore[method-assign]
    results = await asyncio.gather(*(sessions.create("user-1") for _ in range(50)), return_exceptions=True)
    await sessions.aclose()
    assert {type(result) for result in results} == {StoreUnavailable}
    assert waits == [0.2]


async def test_a_close_that_is_cancelled_leaves_no_follower_behind(
    store_url: str, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = AsyncSessions.connect(store_url, settings(unique_prefix))
    await sessions.create("user-1")
    close_connections = sessions._store.aclose

    async def cancelled() -> None:
        await close_connections()
        raise asyncio.CancelledError

    monkeypatch.setattr(sessions._store, "aclose", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await sessions.aclose()
    thread = sessions._gateway._follower._thread
    assert thread is not None and not thread.is_alive()


def test_the_followers_own_thread_may_close_it(service: Sessions, store_url: str, unique_prefix: str) -> None:
    """Whoever nobody refers to any more is collected by whatever thread comes by."""
    gateway = SessionVerifier.connect(store_url, issuer=ISSUER, prefix=unique_prefix)
    thread, failed = gateway._follower._thread, list[BaseException]()

    def close_within() -> Any:
        try:
            gateway.close()
        except BaseException as error:
            failed.append(error)
        raise StoreUnavailable("closed")

    gateway._follower._keep_ring = close_within
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive() and not failed
    gateway.close()


def test_a_process_whose_clock_is_ahead_keeps_nobody_from_a_new_key(store_url: str, unique_prefix: str) -> None:
    year = 365 * 86_400
    ahead = Sessions(open_store(store_url), settings(unique_prefix), clock=lambda: time.time() + year)
    try:
        ahead.jwks()
        ahead.rotate_keys()
        assert all(key.signs_at / 1000 < time.time() + 3_600 for key in ahead.gateway._ring.keys)
    finally:
        ahead.close()
