"""The ASGI middleware: what it does beside what every adapter does."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from clients import Client, Open
from sites import IS_PRO, PLANS, asgi_site

from fastverify import (
    AsyncSessions,
    ClaimValidationFailed,
    ConfigError,
    PrimitiveClaim,
    Session,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from fastverify.adapters.asgi import (
    SESSION,
    ASGIApp,
    Receive,
    Scope,
    Send,
    SessionMiddleware,
    context_of,
    reply_app,
    require_session,
)
from fastverify.transport import Rules, json_reply


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that demands a session everywhere but at /open."""
    session = scope["fastverify.session"] if scope["path"] == "/open" else require_session(scope)
    await reply_app(json_reply(200, {"user": session and session.user_id}))(scope, receive, send)


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def get(app: ASGIApp, path: str = "/", method: str = "GET", **headers: str) -> httpx.Response:
    async with Client(app) as client:
        return await client.call(path, method, **headers)


# --- eager verification ---------------------------------------------------------------------------------------------


async def test_the_session_is_in_the_scope_before_the_application_runs(sessions: AsyncSessions) -> None:
    token = (await sessions.create("user-1")).access_token
    app = SessionMiddleware(whoami, sessions)
    assert (await get(app, token=token)).json() == {"user": "user-1"}
    assert (await get(app, "/open", token=token)).json() == {"user": "user-1"}
    assert (await get(app, "/open")).json() == {"user": None}
    assert (await get(app)).status_code == 401


async def test_a_bad_token_is_no_obstacle_where_no_session_is_demanded(open_sessions: Open) -> None:
    past = time.time() - 7200
    sessions = await open_sessions(clock=lambda: past)
    token = (await sessions.create("user-1")).access_token
    app = SessionMiddleware(whoami, sessions)
    assert (await get(app, "/open", token=token)).json() == {"user": None}
    assert (await get(app, token=token)).json() == {"message": "try refresh token"}


async def test_lazy_means_that_nothing_is_verified_unasked(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "fastverify.session" not in scope
        session = await context_of(scope).session()
        assert scope["fastverify.session"] is session
        await reply_app(json_reply(200, {}))(scope, receive, send)

    token = (await sessions.create("user-1")).access_token
    assert (await get(SessionMiddleware(app, sessions, eager=False), token=token)).status_code == 200


# --- a gateway that only verifies -----------------------------------------------------------------------------------


async def test_a_gateway_verifies_and_hands_on_plain_sessions(
    sessions: AsyncSessions, gateway: SessionVerifier
) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(require_session(scope))
        await whoami(scope, receive, send)

    token = (await sessions.create("user-1")).access_token
    assert (await get(SessionMiddleware(app, gateway), token=token)).json() == {"user": "user-1"}
    assert isinstance(seen[0], Session)


async def test_a_gateway_clears_nothing_and_serves_no_route(sessions: AsyncSessions, gateway: SessionVerifier) -> None:
    issued = await sessions.create("user-1")
    await sessions.revoke(issued.session.handle)
    gateway.wait_for_poll()
    app = SessionMiddleware(whoami, gateway)
    for path, method in (("/", "GET"), ("/auth/session/refresh", "POST"), ("/auth/jwt/jwks.json", "GET")):
        response = await get(app, path, method, token=issued.access_token)
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        assert "front-token" not in response.headers and "set-cookie" not in response.headers


async def test_a_gateway_guards_cookies_by_default(sessions: AsyncSessions, gateway: SessionVerifier) -> None:
    issued = await sessions.create("user-1", anti_csrf=True)
    cookie = f"sAccessToken={issued.access_token}"
    app = SessionMiddleware(whoami, gateway)
    assert (await get(app, "/", "GET", cookie=cookie, rid="")).status_code == 200
    assert (await get(app, "/", "POST", cookie=cookie)).status_code == 200
    assert (await get(app, "/", "POST", cookie=cookie, rid="")).json() == {"message": "try refresh token"}
    app = SessionMiddleware(whoami, gateway, rules=Rules(anti_csrf="VIA_TOKEN", session_expired_status_code=440))
    assert (await get(app, "/", "POST", cookie=cookie)).status_code == 440
    assert (await get(app, "/", "POST", cookie=cookie, anti_csrf=str(issued.anti_csrf_token))).status_code == 200


async def test_signing_in_through_a_gateway_is_a_mistake_that_is_told(gateway: SessionVerifier) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await context_of(scope).sign_in("user-1")

    with pytest.raises(RuntimeError, match="AsyncSessions"):
        await get(SessionMiddleware(app, gateway))


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
async def test_our_errors_become_responses(sessions: AsyncSessions, error: Exception, status: int) -> None:
    assert (await get(SessionMiddleware(raising(error), sessions))).status_code == status


async def test_other_errors_are_none_of_our_business(sessions: AsyncSessions) -> None:
    for error in (KeyError("x"), ConfigError("field", "problem")):
        with pytest.raises(type(error)):
            await get(SessionMiddleware(raising(error), sessions))


async def test_an_error_after_the_response_has_begun_is_not_answered_twice(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Unauthorised()

    with pytest.raises(Unauthorised):
        await get(SessionMiddleware(app, sessions))


async def test_signing_in_after_the_response_has_begun_is_a_mistake_that_is_told(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await context_of(scope).sign_in("user-1")

    with pytest.raises(RuntimeError, match="begun"):
        await get(SessionMiddleware(app, sessions))
    assert await sessions.handles("user-1") == []


async def test_a_hook_replaces_the_response_but_not_the_clearing(sessions: AsyncSessions) -> None:
    def gone(scope: Scope, error: Unauthorised) -> ASGIApp:
        return reply_app(json_reply(401, {"path": scope["path"], "why": str(error)}))

    async def later(scope: Scope, error: StoreUnavailable) -> ASGIApp:
        return reply_app(json_reply(503, {"later": error.retry_after}))

    hooks: Any = {"on_unauthorised": gone, "on_store_unavailable": later}
    response = await get(SessionMiddleware(raising(Unauthorised("because")), sessions, **hooks), "/x")
    assert response.json() == {"path": "/x", "why": "because"}
    assert response.headers["front-token"] == "remove"
    response = await get(SessionMiddleware(raising(StoreUnavailable(retry_after=4)), sessions, **hooks))
    assert response.json() == {"later": 4}


# --- construction ---------------------------------------------------------------------------------------------------


async def test_wrong_arguments_are_refused_when_the_middleware_is_made(sessions: AsyncSessions) -> None:
    with pytest.raises(ConfigError, match="refresh, signout"):
        SessionMiddleware(whoami, sessions, routes=("login",))
    with pytest.raises(ConfigError, match="on_unauthorised"):
        SessionMiddleware(whoami, sessions, on_unauthorized=print)  # type: ignore[call-arg]
    blocking: Any = object.__new__(Sessions)
    with pytest.raises(TypeError, match="AsyncSessions"):
        SessionMiddleware(whoami, blocking)


# --- paths and scopes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("", "/auth/jwt/jwks.json", 200),
        ("/api", "/api/auth/jwt/jwks.json", 200),
        ("/api", "/auth/jwt/jwks.json", 200),  # a server that leaves the prefix out of the path
        ("/api", "/apiauth/jwt/jwks.json", 404),
        ("", "/auth/jwt/jwks.json/", 404),
    ],
)
async def test_routes_are_found_below_the_root_path(sessions: AsyncSessions, root: str, path: str, status: int) -> None:
    transport = httpx.ASGITransport(asgi_site(sessions), root_path=root)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        assert (await client.get(path)).status_code == status


async def test_other_scopes_pass_through(sessions: AsyncSessions) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await SessionMiddleware(app, sessions)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


# --- WebSockets -----------------------------------------------------------------------------------------------------


async def handshake(app: ASGIApp, *headers: tuple[str, str], denial: bool = True, path: str = "/") -> list[Any]:
    """What the server is told of a WebSocket handshake."""
    sent: list[Any] = []
    scope: Scope = {
        "type": "websocket",
        "query_string": b"",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
    require_session(scope)
    await send({"type": "websocket.accept"})


async def test_a_websocket_handshake_is_verified(sessions: AsyncSessions) -> None:
    token = (await sessions.create("user-1")).access_token
    app = SessionMiddleware(accepting, sessions)
    bearer = ("authorization", f"Bearer {token}")
    assert [message["type"] for message in await handshake(app, bearer)] == ["websocket.accept"]
    denied = await handshake(app)
    assert [message["type"] for message in denied] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert denied[0]["status"] == 401
    assert await handshake(app, denial=False) == [{"type": "websocket.close", "code": 1008}]


async def test_a_websocket_of_a_foreign_page_gets_no_cookie_session(sessions: AsyncSessions) -> None:
    cookie = ("cookie", f"sAccessToken={(await sessions.create('user-1')).access_token}")
    app = SessionMiddleware(accepting, sessions)
    for origin, kind in (("http://localhost:3000", "websocket.accept"), ("http://evil.example", "websocket.close")):
        assert (await handshake(app, cookie, ("origin", origin), denial=False))[0]["type"] == kind


async def test_an_error_in_an_open_websocket_closes_it(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise Unauthorised("revoked meanwhile")

    sent = await handshake(SessionMiddleware(app, sessions))
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]


async def test_tokens_can_go_with_the_accepting_of_a_websocket(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = require_session(scope)
        await session.merge_payload({"seen": True})
        await send({"type": "websocket.accept", "headers": [(b"x-mine", b"1")]})

    token = (await sessions.create("user-1")).access_token
    (accept,) = await handshake(SessionMiddleware(app, sessions), ("authorization", f"Bearer {token}"))
    names = [name for name, _ in accept["headers"]]
    assert b"x-mine" in names and b"st-access-token" in names


async def test_a_websocket_handshake_is_refused_for_its_claims_and_what_was_fetched_goes_with_the_refusal(
    sessions: AsyncSessions,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await context_of(scope).session(validators=[IS_PRO])
        await send({"type": "websocket.accept"})

    bearer = ("authorization", f"Bearer {(await sessions.create('user-1')).access_token}")
    wrapped = SessionMiddleware(app, sessions, eager=False)
    for plan, status in (("free", 403), ("pro", None)):
        PLANS.plan = plan
        start, *_ = await handshake(wrapped, bearer)
        headers = dict(start["headers"])
        assert start.get("status") == status
        assert IS_PRO.claim is not None
        assert IS_PRO.claim.value_in(sessions.verify(headers[b"st-access-token"]).payload) == plan
    PLANS.plan = "free"
    assert await handshake(wrapped, bearer, denial=False) == [{"type": "websocket.close", "code": 1008}]


async def test_an_eager_middleware_asks_the_applications_validators_before_it_shows_a_session(
    sessions: AsyncSessions,
) -> None:
    claim = PrimitiveClaim("plan", lambda *whose: "pro" if whose[0] == "user-1" else None)
    app = SessionMiddleware(whoami, sessions, validators=[claim.has_value("pro")])
    async with Client(app) as client:
        token = (await sessions.create("user-1")).access_token
        fetched = await client.call("/", "GET", token=token)
        assert (fetched.status_code, fetched.json()) == (200, {"user": "user-1"})
        assert claim.value_in(sessions.verify(fetched.headers["st-access-token"]).payload) == "pro"
        token = (await sessions.create("user-2")).access_token
        assert (await client.call("/", "GET", token=token)).status_code == 403
        assert (await client.call("/open", "GET", token=token)).json() == {"user": None}
        assert (await client.call("/open", "GET", token="")).json() == {"user": None}


async def test_an_eager_middleware_that_is_strict_asks_the_store_before_it_shows_a_session(
    sessions: AsyncSessions,
) -> None:
    issued = await sessions.create("user-1")
    async with Client(SessionMiddleware(whoami, sessions, strict=True)) as client:
        await sessions.merge_payload(issued.session.handle, {"plan": "pro"})
        shown = await client.call("/", "GET", token=issued.access_token)
        assert sessions.verify(shown.headers["st-access-token"]).payload == {"plan": "pro"}

        async def gone(*_: object) -> None:
            raise Unauthorised("the session has ended")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(AsyncSessions, "recheck", gone)
            assert (await client.call("/open", "GET", token=issued.access_token)).json() == {"user": None}
            refused = await client.call("/", "GET", token=issued.access_token)
            assert (refused.status_code, refused.headers["front-token"]) == (401, "remove")


async def test_a_gateway_has_no_validators_and_asks_no_store(gateway: SessionVerifier) -> None:
    with pytest.raises(ConfigError, match="validators"):
        SessionMiddleware(whoami, gateway, validators=[IS_PRO])
    with pytest.raises(ConfigError, match="strict"):
        SessionMiddleware(whoami, gateway, strict=True)


async def test_an_application_that_catches_a_refusal_still_has_no_session(sessions: AsyncSessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        with pytest.raises(ClaimValidationFailed) as caught:
            await context.session(validators=[PrimitiveClaim("plan").has_value("pro")])
        content = {"failed": caught.value.failures[0]["id"], "current": context.current, "kept": scope.get(SESSION)}
        await reply_app(json_reply(200, content))(scope, receive, send)

    async with Client(SessionMiddleware(app, sessions, eager=False)) as client:
        response = await client.call("/", token=(await sessions.create("user-1")).access_token)
        assert response.json() == {"failed": "plan", "current": None, "kept": None}
