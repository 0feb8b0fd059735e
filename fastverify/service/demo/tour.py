"""What the demo does before it serves: one session's whole life, through both doors, each answer checked and timed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ...errors import SessionError
from ...manager import Sessions

T = TypeVar("T")

_TOKENS = 32
_CACHED_ROUNDS = 20_000
#: No verifier may take longer than this to hear of a revocation here; far above what it takes.
_PROPAGATION_SECONDS = 10.0


class TourFailure(Exception):
    """A step did not answer as it must."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done and proved, and how long it took."""

    name: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Client:
    """A keep-alive connection to one origin: what is timed is the request, not the handshake."""

    def __init__(self, origin: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=_PROPAGATION_SECONDS)
        self._connection.connect()

    def send(self, method: str, path: str, token: str | None = None, body: object = None) -> Reply:
        """One request in header mode."""
        headers = {"st-auth-mode": "header", "rid": "session", "content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        text = response.read()
        return Reply(response.status, response.headers, json.loads(text) if text else None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def tour(site_url: str, service_url: str, sessions: Sessions) -> Iterator[Step]:
    """Sign in, verify (cold and cached), refresh, revoke: over HTTP and through the library.

    Raises:
        TourFailure: something did not answer as it must.
    """
    site, service = Client(site_url), Client(service_url)
    try:
        yield from _http_life(site, service, sessions)
        yield from _library_life(sessions)
    finally:
        site.close()
        service.close()


def _http_life(site: Client, service: Client, sessions: Sessions) -> Iterator[Step]:
    for client in (site, service):  # so that no step is charged for the first request of a process
        _expect(client.send("GET", "/health/ready"), 200)

    signed_in, took = _timed(lambda: site.send("POST", "/api/sign-in", body={"user": "ada", "plan": "pro"}))
    _expect(signed_in, 200)
    access, refresh = signed_in.headers["st-access-token"], signed_in.headers["st-refresh-token"]
    yield Step("sign in", "HTTP, demo site: 200, two tokens", took)

    me, took = _timed(lambda: site.send("GET", "/api/me", access))
    _expect(me, 200)
    _check(me.body["claims"]["plan"] == "pro", "the claims of the demo site's API")
    yield Step("verify", "HTTP, demo site: 200, the claims", took)

    verdict, took = _timed(lambda: service.send("GET", "/v1/verify", access))
    _expect(verdict, 200)
    _check(verdict.headers["x-user-id"] == "ada", "the identity headers of the gateway endpoint")
    yield Step("verify", "HTTP, session service: 200, X-User-Id: ada", took)

    renewed, took = _timed(lambda: service.send("POST", "/auth/session/refresh", refresh))
    _expect(renewed, 200)
    access, refresh = renewed.headers["st-access-token"], renewed.headers.get("st-refresh-token") or refresh
    session = sessions.verify(access)
    yield Step("refresh", "HTTP, session service: 200, a new access token", took)

    was_there, took = _timed(lambda: sessions.revoke(session.handle))
    _check(was_there, "revoke")
    yield Step("revoke", "library, this process: the session is gone", took)

    _, took = _timed(lambda: _must_refuse(sessions, access))
    yield Step("verify: refused", "library, this process: at once", took)
    _, took = _timed(lambda: _wait_until_refused(service, access))
    yield Step("verify: refused", "HTTP, session service: 401, the log has come", took)
    gone, took = _timed(lambda: service.send("POST", "/auth/session/refresh", refresh))
    _expect(gone, 401)
    yield Step("refresh: refused", "HTTP, session service: 401", took)


def _library_life(sessions: Sessions) -> Iterator[Step]:
    issued, took = _timed(lambda: [sessions.create(f"user-{n}", payload={"plan": "pro"}) for n in range(_TOKENS)])
    yield Step("create", f"library: mean of {_TOKENS} sessions", took / _TOKENS)

    tokens = [one.access_token for one in issued]
    cold, took = _timed(lambda: [sessions.verify(token) for token in tokens])
    _check([s.user_id for s in cold] == [f"user-{n}" for n in range(_TOKENS)], "the users of fresh tokens")
    yield Step("verify, cold", f"library: mean of {_TOKENS} new tokens", took / _TOKENS)

    token, verify = tokens[0], sessions.verify
    again, took = _timed(lambda: [verify(token) for _ in range(_CACHED_ROUNDS)][-1])
    _check(again.user_id == "user-0", "the user of a remembered token")
    yield Step("verify, cached", f"library: mean of {_CACHED_ROUNDS:,} calls, one token", took / _CACHED_ROUNDS)

    renewed, took = _timed(lambda: [sessions.refresh(one.refresh_token) for one in issued])
    _check(all(sessions.verify(one.access_token).user_id for one in renewed), "refreshed tokens")
    yield Step("refresh", f"library: mean of {_TOKENS} sessions", took / _TOKENS)

    handles = [one.session.handle for one in issued]
    ended, took = _timed(lambda: sessions.revoke_many(handles))
    _check(sorted(ended) == sorted(handles), "revoke_many")
    yield Step("revoke", f"library: mean of {_TOKENS} in one call", took / _TOKENS)
    for one in renewed:
        _must_refuse(sessions, one.access_token)


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def _must_refuse(sessions: Sessions, access_token: str) -> None:
    try:
        sessions.verify(access_token)
    except SessionError:
        return
    raise TourFailure("a revoked session's token was accepted by the process that revoked it")


def _wait_until_refused(service: Client, access_token: str) -> None:
    give_up = time.monotonic() + _PROPAGATION_SECONDS
    while (reply := service.send("GET", "/v1/verify", access_token)).status != 401:
        _expect(reply, 200)
        _check(time.monotonic() < give_up, "the session service's knowledge of a revocation")
        time.sleep(0.002)


def _expect(reply: Reply, status: int) -> None:
    _check(reply.status == status, f"HTTP status {reply.status} instead of {status} ({reply.body})")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise TourFailure(f"wrong answer: {what}")
