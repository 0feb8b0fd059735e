"""What one process revokes another one refuses: the follower, through restarts, flushes and outages."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from facades import settings
from fix_stores import Launch

from fastverify import (
    RevokedToken,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
    UnknownKey,
)
from fastverify.store import Call, open_store

ISSUER = "http://api.test/auth"


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something that happens in the background has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def refuses(gateway: SessionVerifier | Sessions, token: str) -> bool:
    """Whether a token is refused as one of an ended session."""
    try:
        gateway.verify(token)
    except Unauthorised as error:
        assert error.clear_tokens
        assert isinstance(error.__cause__, RevokedToken)
        return True
    return False


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
        service._store.run(Call("revoke", tag, (4000, f"n{start}", *handles[start : start + 500])))
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
        until(lambda: service.gateway.lag_seconds < 1 and gateway.lag_seconds < 1)
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
        if when_stale == "allow":
            assert gateway.verify(token).user_id == "user-1"
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
    (reply,) = service._store._hold(iter_once(("INFO", "server")))
    return int(reply.split(b"process_id:")[1].split()[0])


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
    store = open_store(url)
    try:
        store._hold(iter_once(words))
    finally:
        store.close()


def iter_once(words: tuple[str, ...]) -> Generator[list[tuple[str, ...]], list[Any], list[Any]]:
    """A talk of one command."""
    return (yield [words])
