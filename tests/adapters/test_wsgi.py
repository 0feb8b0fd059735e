"""The WSGI middleware: what it does beside what every adapter does. Everything passes wsgiref's validator."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest
from blocking_sites import wsgi_site
from clients import Open

from fastverify import (
    AsyncSessions,
    ClaimValidationFailed,
    ConfigError,
    Session,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from fastverify.adapters.wsgi import SessionMiddleware, WSGIApp, context_of, reply_app, require_session
from fastverify.transport import Rules, json_reply


@pytest.fixture
async def sessions(open_sessions: Open, opened: Any) -> Sessions:
    return opened.blocking(await open_sessions())


@pytest.fixture
def gateway(sessions: Sessions, embedded_url: str) -> Iterator[SessionVerifier]:
    """A verifier of its own, as another process would have."""
    config = sessions.config
    with SessionVerifier.connect(embedded_url, issuer=config.issuer, prefix=config.key_prefix) as verifier:
        yield verifier


def whoami(environ: Any, start_response: Any) -> Any:
    """An application that demands a session everywhere but at /open."""
    session = environ["fastverify.session"] if environ["PATH_INFO"] == "/open" else require_session(environ)
    return reply_app(json_reply(200, {"user": session and session.user_id}))(environ, start_response)


def raising(error: Exception) -> WSGIApp:
    def app(environ: Any, start_response: Any) -> Any:
        raise error

    return app


def get(app: Any, path: str = "/", method: str = "GET", token: str = "", script: str = "", **headers: str) -> Any:
    """A response of the application to a client that the server knows at ``script``."""
    if token:
        headers["authorization"] = f"Bearer {token}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.WSGITransport(validator(app), script_name=script)
    with httpx.Client(transport=transport, base_url="http://localhost:8000") as client:
        return client.request(method, path, headers={"rid": "anti-csrf"} | sent)


# --- eager verification ---------------------------------------------------------------------------------------------


def test_the_session_is_in_the_environ_before_the_application_runs(sessions: Sessions) -> None:
    token = sessions.create("user-1").access_token
    app = SessionMiddleware(whoami, sessions)
    assert get(app, token=token).json() == {"user": "user-1"}
    assert get(app, "/open", token=token).json() == {"user": "user-1"}
    assert get(app, "/open").json() == {"user": None}
    assert get(app).status_code == 401


async def test_a_bad_token_is_no_obstacle_where_no_session_is_demanded(open_sessions: Open, opened: Any) -> None:
    past = time.time() - 7200
    sessions = opened.blocking(await open_sessions(clock=lambda: past))
    token = sessions.create("user-1").access_token
    app = SessionMiddleware(whoami, sessions)
    assert get(app, "/open", token=token).json() == {"user": None}
    assert get(app, token=token).json() == {"message": "try refresh token"}


def test_lazy_means_that_nothing_is_verified_unasked(sessions: Sessions) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        assert "fastverify.session" not in environ
        session = context_of(environ).session()
        assert environ["fastverify.session"] is session
        return reply_app(json_reply(200, {}))(environ, start_response)

    token = sessions.create("user-1").access_token
    assert get(SessionMiddleware(app, sessions, eager=False), token=token).status_code == 200


# --- a gateway that only verifies -----------------------------------------------------------------------------------


def test_a_gateway_verifies_and_hands_on_plain_sessions(sessions: Sessions, gateway: SessionVerifier) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(require_session(environ))
        return whoami(environ, start_response)

    token = sessions.create("user-1").access_token
    assert get(SessionMiddleware(app, gateway), token=token).json() == {"user": "user-1"}
    assert isinstance(seen[0], Session)


def test_a_gateway_clears_nothing_and_serves_no_route(sessions: Sessions, gateway: SessionVerifier) -> None:
    issued = sessions.create("user-1")
    sessions.revoke(issued.session.handle)
    gateway.wait_for_poll()
    app = SessionMiddleware(whoami, gateway)
    for path, method in (("/", "GET"), ("/auth/session/refresh", "POST"), ("/auth/jwt/jwks.json", "GET")):
        response = get(app, path, method, token=issued.access_token)
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        assert "front-token" not in response.headers and "set-cookie" not in response.headers


def test_a_gateway_guards_cookies_by_default(sessions: Sessions, gateway: SessionVerifier) -> None:
    issued = sessions.create("user-1", anti_csrf=True)
    cookie = f"sAccessToken={issued.access_token}"
    app = SessionMiddleware(whoami, gateway)
    assert get(app, method="POST", cookie=cookie).status_code == 200
    app = SessionMiddleware(whoami, gateway, rules=Rules(anti_csrf="VIA_TOKEN", session_expired_status_code=440))
    assert get(app, method="POST", cookie=cookie).status_code == 440
    assert get(app, method="POST", cookie=cookie, anti_csrf=str(issued.anti_csrf_token)).status_code == 200


def test_signing_in_through_a_gateway_is_a_mistake_that_is_told(gateway: SessionVerifier) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        context_of(environ).sign_in("user-1")

    with pytest.raises(RuntimeError, match="with Sessions"):
        get(SessionMiddleware(app, gateway))


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unauthorised(), 401),
        (TryRefreshToken(), 401),
        (TooManyRefreshes(retry_after=1), 429),
        (ClaimValidationFailed([{"id": "x"}]), 403),
        (StoreUnavailable(), 503),
    ],
)
def test_our_errors_become_responses(sessions: Sessions, error: Exception, status: int) -> None:
    assert get(SessionMiddleware(raising(error), sessions)).status_code == status


def test_other_errors_are_none_of_our_business(sessions: Sessions) -> None:
    for error in (KeyError("x"), ConfigError("field", "problem")):
        with pytest.raises(type(error)):
            get(SessionMiddleware(raising(error), sessions))


def test_an_error_after_the_response_has_begun_is_not_answered_twice(sessions: Sessions) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        raise Unauthorised()

    with pytest.raises(Unauthorised):
        get(SessionMiddleware(app, sessions))


def test_signing_in_after_the_response_has_begun_is_a_mistake_that_is_told(sessions: Sessions) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        context_of(environ).sign_in("user-1")

    with pytest.raises(RuntimeError, match="begun"):
        get(SessionMiddleware(app, sessions))
    assert sessions.handles("user-1") == []


def test_a_hook_replaces_the_response_but_not_the_clearing(sessions: Sessions) -> None:
    def gone(environ: Any, error: Unauthorised) -> WSGIApp:
        return reply_app(json_reply(401, {"path": environ["PATH_INFO"], "why": str(error)}))

    hooks: Any = {"on_unauthorised": gone}
    response = get(SessionMiddleware(raising(Unauthorised("because")), sessions, **hooks), "/x")
    assert response.json() == {"path": "/x", "why": "because"}
    assert response.headers["front-token"] == "remove"


def test_the_application_may_take_its_response_back_with_exc_info(sessions: Sessions) -> None:
    """PEP 3333: an application that fails before it has sent anything may call start_response once more."""

    def app(environ: Any, start_response: Any) -> Any:
        context_of(environ).sign_in("user-1")
        start_response("200 OK", [("content-type", "text/plain")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Internal Server Error", [("content-type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append((status, dict(headers), exc_info is not None))
        return lambda data: None

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    assert b"".join(SessionMiddleware(app, sessions)(environ, start_response)) == b"sorry"
    assert [(status, again) for status, _, again in started] == [("200 OK", False), ("500 Internal Server Error", True)]
    assert all(sessions.verify(headers["st-access-token"]).user_id == "user-1" for _, headers, _ in started)


# --- construction ---------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_when_the_middleware_is_made(sessions: Sessions) -> None:
    with pytest.raises(ConfigError, match="refresh, signout"):
        SessionMiddleware(whoami, sessions, routes=("login",))
    with pytest.raises(ConfigError, match="on_unauthorised"):
        SessionMiddleware(whoami, sessions, on_unauthorized=print)  # type: ignore[call-arg]
    asynchronous: Any = object.__new__(AsyncSessions)
    with pytest.raises(TypeError, match="Sessions"):
        SessionMiddleware(whoami, asynchronous)


async def test_two_applications_in_one_process_do_not_mix(open_sessions: Open, opened: Any) -> None:
    one, two = [opened.blocking(await open_sessions()) for _ in range(2)]
    token = one.create("user-1").access_token
    assert get(SessionMiddleware(whoami, one), token=token).json() == {"user": "user-1"}
    assert get(SessionMiddleware(whoami, two), token=token).status_code in (401, 503)


# --- paths and bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "path", "status"),
    [
        ("", "/auth/jwt/jwks.json", 200),
        ("/api", "/auth/jwt/jwks.json", 200),
        ("", "/api/auth/jwt/jwks.json", 404),
        ("", "/auth/jwt/jwks.json/", 404),
    ],
)
def test_routes_are_found_below_the_script_name(sessions: Sessions, script: str, path: str, status: int) -> None:
    assert get(wsgi_site(sessions), path, script=script).status_code == status


def test_a_stream_carries_tokens_with_its_head_and_is_closed(sessions: Sessions) -> None:
    log: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        context_of(environ).sign_in("user-1")
        start_response("200 OK", [("content-type", "text/plain")])

        def parts() -> Iterator[bytes]:
            try:
                for part in (b"a", b"b"):
                    log.append(part.decode())
                    yield part
            finally:
                log.append("closed")

        return parts()

    response = get(SessionMiddleware(app, sessions), st_auth_mode="cookie")
    assert response.text == "ab" and log == ["a", "b", "closed"]
    assert sorted(cookie.name for cookie in response.cookies.jar) == ["sAccessToken", "sRefreshToken"]


def test_the_environ_keeps_what_the_application_put_there(sessions: Sessions) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        environ["fastverify"].sign_in("user-1")
        seen.append(environ["fastverify.session"].user_id)
        return reply_app(json_reply(200, {}))(environ, start_response)

    assert get(SessionMiddleware(app, sessions)).status_code == 200
    assert seen == ["user-1"]
