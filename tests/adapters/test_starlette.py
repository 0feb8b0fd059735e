"""The Starlette adapter: what it does beside what every adapter does."""

from __future__ import annotations

from typing import Any

import pytest
from clients import Client, Open
from sites import IS_PRO, PLANS, starlette_routes, starlette_site
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from test_asgi import handshake

from fastverify import AsyncSessions, ConfigError, StoreUnavailable, TryRefreshToken, Unauthorised
from fastverify.adapters.starlette import FastVerify, SessionBackend, SessionUser, cors_headers

ORIGIN = "http://localhost:3000"


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


# --- CORS -----------------------------------------------------------------------------------------------------------


def site_behind_cors(sessions: AsyncSessions, order: str) -> Starlette:
    fv = FastVerify(sessions)
    app = Starlette(routes=starlette_routes(fv))
    if order == "install first":
        fv.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[ORIGIN],
        allow_credentials=True,
        allow_methods=["GET", "POST"],
        allow_headers=cors_headers(),
        expose_headers=["x-mine"],
    )
    if order == "install last":
        fv.install(app)
    return app


@pytest.mark.parametrize("order", ["install first", "install last"])
async def test_beside_cors_middleware_every_response_can_be_read_by_the_page(
    sessions: AsyncSessions, order: str
) -> None:
    async with Client(site_behind_cors(sessions, order)) as client:
        client.headers["origin"] = ORIGIN
        responses = [
            await client.call("/me", "GET"),
            await client.call("/auth/session/refresh"),
            await client.login(),
            await client.refresh(),
            await client.call("/auth/signout"),
            await client.call("/login-and-fail?user=x"),
        ]
        assert [response.status_code for response in responses] == [401, 401, 200, 200, 200, 401]
        for response in responses:
            assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
            (exposed,) = response.headers.get_list("access-control-expose-headers")
            assert exposed.startswith("x-mine")
            for name in ("front-token", "st-access-token", "st-refresh-token"):
                assert (name in response.headers) <= (name in exposed)


# --- installing -----------------------------------------------------------------------------------------------------


async def test_a_catch_all_of_the_application_does_not_swallow_the_routes(sessions: AsyncSessions) -> None:
    async def catch_all(request: Request) -> Any:
        return PlainTextResponse(request.url.path)

    app = Starlette(routes=[Route("/{path:path}", catch_all, methods=["GET", "POST"])])
    FastVerify(sessions).install(app)
    async with Client(app) as client:
        assert (await client.call("/auth/session/refresh")).json() == {"message": "unauthorised"}
        assert "keys" in (await client.get("/auth/jwt/jwks.json")).json()
        assert (await client.get("/else")).text == "/else"


async def test_installing_in_a_running_application_is_refused(sessions: AsyncSessions) -> None:
    app = Starlette()
    async with Client(app) as client:
        await client.get("/")
    with pytest.raises(RuntimeError, match="before the application starts"):
        FastVerify(sessions).install(app)


async def test_wrong_arguments_are_refused(sessions: AsyncSessions) -> None:
    with pytest.raises(ConfigError, match="routes"):
        FastVerify(sessions, routes=("refresh", "login"))
    with pytest.raises(ConfigError, match="on_unauthorized"):
        FastVerify(sessions, on_unauthorized=print)  # type: ignore[call-arg]


async def test_two_applications_and_a_mounted_one(open_sessions: Open) -> None:
    one, two = await open_sessions(), await open_sessions(api_base_path="/inner-auth")
    inner, outer = starlette_site(two), starlette_site(one)
    outer.router.routes.append(Mount("/inner", inner))
    async with Client(outer) as client, Client(outer) as other:
        await client.login()
        response = await other.call("/inner/login?user=user-2")
        assert two.verify(response.headers["st-access-token"]).user_id == "user-2"
        assert (await other.call("/inner/me", "GET")).json()["user"] == "user-2"
        assert (await client.call("/inner/me", "GET")).status_code in (401, 503)
        assert (await other.call("/inner/inner-auth/signout")).status_code == 200


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_hooks_replace_responses_but_not_the_clearing(sessions: AsyncSessions) -> None:
    async def unauthorised(request: Request, error: Unauthorised) -> Any:
        return JSONResponse({"mine": request.url.path}, status_code=401)

    def try_refresh(request: Request, error: TryRefreshToken) -> Any:
        return JSONResponse({"mine": "refresh"}, status_code=401)

    app = starlette_site(sessions, on_unauthorised=unauthorised, on_try_refresh_token=try_refresh)
    async with Client(app, "cookie") as client:
        await client.login()
        assert (await client.call("/me", "GET", cookie="sIdRefreshToken=x")).json() == {"mine": "refresh"}
        await sessions.revoke_user("user-1")
        response = await client.call("/me", "GET")
        assert response.json() == {"mine": "/me"}
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)


async def test_an_http_exception_and_an_unhandled_one_keep_what_was_queued(sessions: AsyncSessions) -> None:
    fv = FastVerify(sessions)

    async def welcome(request: Request) -> None:
        await fv.sign_in(request, "user-1")
        raise HTTPException(303, headers={"location": "/home"})

    async def fail(request: Request) -> None:
        await fv.sign_in(request, "user-2")
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/welcome", welcome), Route("/fail", fail)])
    fv.install(app)
    async with Client(app) as client:
        client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        for path, status, user in (("/welcome", 303, "user-1"), ("/fail", 500, "user-2")):
            assert (await client.get(path)).status_code == status
            assert sessions.verify(client.access).user_id == user


async def test_a_stream_and_its_background_task(sessions: AsyncSessions) -> None:
    fv = FastVerify(sessions)
    told: list[str] = []

    async def stream(request: Request) -> Any:
        await fv.sign_in(request, "user-1")

        async def late() -> None:
            with pytest.raises(RuntimeError, match="begun"):
                await fv.sign_in(request, "user-2")
            told.append("late")

        return StreamingResponse(iter(["a", "b"]), background=BackgroundTask(late))

    app = Starlette(routes=[Route("/stream", stream)])
    fv.install(app)
    async with Client(app) as client:
        assert (await client.get("/stream")).text == "ab"
        assert sessions.verify(client.access).user_id == "user-1" and told == ["late"]


# --- AuthenticationMiddleware ---------------------------------------------------------------------------------------


def site_with_users(sessions: AsyncSessions, scopes: str | None = None, **options: Any) -> Starlette:
    @requires("authenticated", status_code=401)
    async def member(request: Request) -> Any:
        assert isinstance(request.user, SessionUser) and request.user.session.user_id == request.user.identity
        return JSONResponse({"user": request.user.display_name, "scopes": list(request.auth.scopes)})

    @requires(["authenticated", "admin"])
    async def admin(request: Request) -> Any:
        return JSONResponse({"admin": request.user.identity})

    @requires("authenticated", redirect="front")
    async def page(request: Request) -> Any:
        return PlainTextResponse("members")

    async def front(request: Request) -> Any:
        return JSONResponse({"known": request.user.is_authenticated})

    async def indifferent(request: Request) -> Any:
        return PlainTextResponse("anybody")

    @requires("authenticated")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=websocket.user.identity)
        await websocket.close()

    views: dict[str, Any] = {"member": member, "admin": admin, "page": page, "front": front, "open": indifferent}
    routes: list[Any] = [Route(f"/{name}", view, methods=["GET", "POST"], name=name) for name, view in views.items()]
    fv = FastVerify(sessions, **options)
    app = Starlette(
        routes=[*routes, WebSocketRoute("/ws", socket), *starlette_routes(fv)],
        middleware=[Middleware(AuthenticationMiddleware, backend=SessionBackend(scopes))],
    )
    fv.install(app)
    return app


async def test_requires_knows_who_is_signed_in(sessions: AsyncSessions) -> None:
    async with Client(site_with_users(sessions)) as client:
        assert (await client.call("/front", "GET")).json() == {"known": False}
        assert (await client.call("/member", "GET")).status_code == 401
        assert (await client.call("/admin", "GET")).status_code == 403
        assert (await client.call("/page", "GET")).status_code == 303
        await client.login()
        assert (await client.call("/front", "GET")).json() == {"known": True}
        assert (await client.call("/member", "GET")).json() == {"user": "user-1", "scopes": ["authenticated"]}
        assert (await client.call("/page", "GET")).text == "members"
        assert (await client.call("/admin", "GET")).status_code == 403


async def test_requires_takes_no_guest_for_a_user(sessions: AsyncSessions) -> None:
    async with Client(site_with_users(sessions)) as client:
        await client.call("/guest")
        assert (await client.call("/front", "GET")).json() == {"known": False}
        assert (await client.call("/member", "GET")).status_code == 401
        assert (await client.call("/page", "GET")).status_code == 303
        await client.login()
        assert (await client.call("/member", "GET")).json() == {"user": "user-1", "scopes": ["authenticated"]}


@pytest.mark.parametrize(
    ("payload", "scopes"),
    [
        ({"roles": ["admin"]}, ["admin"]),
        ({"roles": {"v": ["admin", "user"], "t": 1}}, ["admin", "user"]),
        ({"roles": "admin"}, []),
        ({"roles": [1, None, "user"]}, ["user"]),
        ({}, []),
    ],
)
async def test_scopes_come_from_a_member_of_the_payload(sessions: AsyncSessions, payload: Any, scopes: Any) -> None:
    token = (await sessions.create("user-1", payload=payload)).access_token
    async with Client(site_with_users(sessions, "roles")) as client:
        found = (await client.call("/member", "GET", token=token)).json()["scopes"]
        assert found == ["authenticated", *scopes]
        assert (await client.call("/admin", "GET", token=token)).status_code == (200 if "admin" in scopes else 403)


async def test_requires_asks_the_store_where_that_is_the_rule(sessions: AsyncSessions) -> None:
    issued = await sessions.create("user-1")
    await sessions.merge_payload(issued.session.handle, {"roles": ["admin"]})
    for strict, status in ((False, 403), (True, 200)):
        async with Client(site_with_users(sessions, "roles", strict=strict)) as client:
            assert (await client.call("/admin", "GET", token=issued.access_token)).status_code == status


async def test_a_token_that_does_not_serve_is_told_when_somebody_asks(sessions: AsyncSessions) -> None:
    async with Client(site_with_users(sessions), "cookie") as client:
        await client.login()
        legacy = {"cookie": f"sIdRefreshToken=x; sRefreshToken={client.cookies['sRefreshToken']}"}
        for path in ("/member", "/page", "/front"):
            response = await client.call(path, "GET", **legacy)
            assert (response.status_code, response.json()) == (401, {"message": "try refresh token"})
            assert "front-token" not in response.headers
        assert (await client.call("/open", "GET", **legacy)).text == "anybody"
        assert (await client.call("/auth/session/refresh", **legacy)).status_code == 200


@pytest.mark.parametrize("handler", ["ours", "the application's"])
async def test_a_revoked_session_is_cleared_by_requires(sessions: AsyncSessions, handler: str) -> None:
    app = site_with_users(sessions)
    if handler == "the application's":
        mine = JSONResponse({"message": "unauthorised"}, status_code=401)
        app.add_exception_handler(Unauthorised, lambda request, error: mine)
    async with Client(app, "cookie") as client:
        await client.login()
        await sessions.revoke_user("user-1")
        response = await client.call("/member", "GET")
        assert (response.status_code, response.json()) == (401, {"message": "unauthorised"})
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)


async def test_an_outage_is_503_for_whom_requires_guards_and_no_matter_elsewhere(
    sessions: AsyncSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable(retry_after=3)

    async with Client(site_with_users(sessions)) as client:
        await client.login()
        monkeypatch.setattr(sessions, "verify", stale)
        for path in ("/member", "/front"):
            response = await client.call(path, "GET")
            assert (response.status_code, response.headers["retry-after"]) == (503, "3")
        assert (await client.call("/open", "GET")).status_code == 200


async def test_the_applications_validators_are_asked_before_there_is_a_user(sessions: AsyncSessions) -> None:
    PLANS.plan = None
    async with Client(site_with_users(sessions, validators=[IS_PRO])) as client:
        await client.login()
        for path in ("/member", "/page", "/front"):
            refused = await client.call(path, "GET")
            assert (refused.status_code, refused.json()["message"]) == (403, "invalid claim")
            assert "front-token" not in refused.headers
        assert (await client.call("/open", "GET")).text == "anybody"
        assert (await client.call("/unchecked", "GET")).status_code == 200
        fetched = PLANS.fetched
        assert (await client.refresh()).status_code == 200
        assert PLANS.fetched == fetched
        PLANS.plan = "pro"
        granted = await client.call("/member", "GET")
        assert granted.json()["user"] == "user-1" and "front-token" in granted.headers
        await client.call("/claims?do=set")
        assert (await client.call("/member", "GET")).status_code == 403
        await client.call("/claims?do=remove")
        fetched = PLANS.fetched
        assert (await client.call("/auth/signout")).status_code == 200
        assert PLANS.fetched == fetched


async def test_the_proof_against_csrf_is_demanded(open_sessions: Open) -> None:
    async with Client(site_with_users(await open_sessions(anti_csrf="VIA_CUSTOM_HEADER")), "cookie") as client:
        await client.login()
        assert (await client.call("/member", rid="")).json() == {"message": "try refresh token"}
        assert (await client.call("/member")).status_code == 200


# --- WebSockets -----------------------------------------------------------------------------------------------------


async def test_requires_guards_a_websocket(sessions: AsyncSessions) -> None:
    app: Any = site_with_users(sessions)
    token = (await sessions.create("user-1")).access_token
    accepted = await handshake(app, ("authorization", f"Bearer {token}"), path="/ws")
    assert [message["type"] for message in accepted] == ["websocket.accept", "websocket.close"]
    assert accepted[0]["subprotocol"] == "user-1"
    assert [message["type"] for message in await handshake(app, path="/ws")] == ["websocket.close"]
    denied = await handshake(app, ("cookie", "sIdRefreshToken=x"), path="/ws")
    assert denied[0]["type"] == "websocket.http.response.start" and denied[0]["status"] == 401
    assert await handshake(app, ("cookie", "sIdRefreshToken=x"), path="/ws", denial=False) == [
        {"type": "websocket.close", "code": 1008}
    ]


async def test_a_websocket_asks_for_its_session(sessions: AsyncSessions) -> None:
    fv = FastVerify(sessions)

    async def socket(websocket: WebSocket) -> None:
        session = await fv.session_of(websocket)
        assert session is not None
        await websocket.accept(subprotocol=session.user_id)
        await websocket.close()

    app: Any = Starlette(routes=[WebSocketRoute("/ws", socket)])
    fv.install(app)
    cookie = ("cookie", f"sAccessToken={(await sessions.create('user-1')).access_token}")
    accepted = await handshake(app, cookie, ("origin", ORIGIN), path="/ws")
    assert accepted[0]["subprotocol"] == "user-1"
    (closed,) = await handshake(app, cookie, ("origin", "http://evil.example"), path="/ws", denial=False)
    assert closed == {"type": "websocket.close", "code": 1008}
