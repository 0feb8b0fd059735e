"""The FastAPI adapter: what it does beside what every adapter does."""

# No postponed annotations: FastAPI reads those of the routes, which name local variables.

from typing import Annotated, Any

import httpx
import pytest
from clients import ORIGIN, Client, Open, expect_preflights
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from sites import add_fastapi_routes, fastapi_site
from starlette.exceptions import HTTPException
from test_asgi import handshake

from fastverify import (
    AsyncSessions,
    ConfigError,
    PrimitiveClaim,
    Session,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
)
from fastverify.adapters.asgi import SessionMiddleware
from fastverify.adapters.fastapi import FastVerify, RequestSession, cors_headers


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


# --- CORS -----------------------------------------------------------------------------------------------------------


def site_behind_cors(sessions: AsyncSessions, order: str) -> FastAPI:
    fv = FastVerify(sessions)
    app = FastAPI()
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
    add_fastapi_routes(app, fv)
    return app


@pytest.mark.parametrize("order", ["install first", "install last"])
class TestBesideCorsMiddleware:
    async def test_the_preflight_passes(self, sessions: AsyncSessions, order: str) -> None:
        async with Client(site_behind_cors(sessions, order)) as client:
            await expect_preflights(client)

    async def test_every_response_can_be_read_by_the_page(self, sessions: AsyncSessions, order: str) -> None:
        async with Client(site_behind_cors(sessions, order)) as client:
            client.headers["origin"] = ORIGIN
            responses = [
                await client.call("/me", "GET"),
                await client.call("/auth/session/refresh"),
                await client.login(),
                await client.call("/me", "GET"),
                await client.refresh(),
                await client.call("/auth/signout"),
                await client.call("/login-and-fail?user=x"),
                await client.get("/auth/jwt/jwks.json"),
            ]
            assert [response.status_code for response in responses] == [401, 401, 200, 200, 200, 200, 401, 200]
            for response in responses:
                assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
                assert response.headers.get_list("access-control-allow-credentials") == ["true"]
                (exposed,) = response.headers.get_list("access-control-expose-headers")
                assert exposed.startswith("x-mine")
                for name in ("front-token", "st-access-token", "st-refresh-token"):
                    assert (name in response.headers) <= (name in exposed)

    async def test_an_outage_can_be_read_by_the_page(
        self, sessions: AsyncSessions, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable()

        monkeypatch.setattr(sessions, "refresh", away)
        async with Client(site_behind_cors(sessions, order)) as client:
            response = await client.call("/auth/session/refresh", token="x", origin=ORIGIN)
            assert response.status_code == 503
            assert response.headers["access-control-allow-origin"] == ORIGIN


# --- installing -----------------------------------------------------------------------------------------------------


async def test_a_catch_all_of_the_application_does_not_swallow_the_routes(sessions: AsyncSessions) -> None:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def catch_all(path: str) -> str:
        return path

    FastVerify(sessions).install(app)
    async with Client(app) as client:
        assert (await client.call("/auth/session/refresh")).json() == {"message": "unauthorised"}
        assert "keys" in (await client.get("/auth/jwt/jwks.json")).json()
        assert (await client.get("/else")).json() == "else"


async def test_installing_in_a_running_application_is_refused(sessions: AsyncSessions) -> None:
    app = FastAPI()
    async with Client(app) as client:
        await client.get("/")
    with pytest.raises(RuntimeError, match="before the application starts"):
        FastVerify(sessions).install(app)


async def test_a_session_without_install_is_a_mistake_that_is_told(sessions: AsyncSessions) -> None:
    app = FastAPI()
    add_fastapi_routes(app, FastVerify(sessions))
    async with Client(app) as client:
        with pytest.raises(RuntimeError, match="around this application"):
            await client.get("/me")


async def test_an_unknown_route_or_hook_is_refused(sessions: AsyncSessions) -> None:
    with pytest.raises(ConfigError, match="routes"):
        FastVerify(sessions, routes=("refresh", "login"))
    with pytest.raises(ConfigError, match="on_unauthorized"):
        FastVerify(sessions, on_unauthorized=print)  # type: ignore[call-arg]


async def test_two_applications_with_their_own_sessions_do_not_mix(open_sessions: Open) -> None:
    one, two = await open_sessions(), await open_sessions()
    async with Client(fastapi_site(one)) as client, Client(fastapi_site(two)) as other:
        await client.login()
        assert (await client.call("/me", "GET")).status_code == 200
        # 503 until the other one has looked whether its store has that key by now, 401 afterwards.
        assert (await other.call("/me", "GET", token=client.access)).status_code in (401, 503)


async def test_routers_and_mounted_applications_with_their_own_install_know_the_session(
    sessions: AsyncSessions,
) -> None:
    fv = FastVerify(sessions)
    app, mounted, router = FastAPI(), FastAPI(), APIRouter(dependencies=[Depends(fv.session())])

    @router.get("/inner")
    async def inner(session: Annotated[RequestSession, Depends(fv.session())]) -> str:
        return session.user_id

    mounted.include_router(router)
    app.include_router(router, prefix="/router")
    app.mount("/mounted", mounted)
    fv.install(app)
    fv.install(mounted)
    issued = await sessions.create("user-1")
    async with Client(app) as client:
        for path in ("/router/inner", "/mounted/inner"):
            assert (await client.call(path, "GET", token=issued.access_token)).json() == "user-1"
            assert (await client.call(path, "GET")).json() == {"message": "unauthorised"}


# --- OpenAPI --------------------------------------------------------------------------------------------------------


async def test_openapi_declares_both_schemes_as_alternatives(sessions: AsyncSessions) -> None:
    async with Client(fastapi_site(sessions)) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "fastverifyHeader": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "fastverifyCookie": {"type": "apiKey", "in": "cookie", "name": "sAccessToken"},
    }
    assert document["paths"]["/me"]["get"]["security"] == [{"fastverifyHeader": []}, {"fastverifyCookie": []}]
    assert "parameters" not in document["paths"]["/me"]["get"]
    assert "security" not in document["paths"]["/login"]["post"]


async def test_openapi_declares_the_cookie_by_its_configured_name(open_sessions: Open) -> None:
    async with Client(fastapi_site(await open_sessions(access_cookie_name="at"))) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["fastverifyCookie"]["name"] == "at"


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_hooks_replace_responses_but_not_the_clearing(sessions: AsyncSessions) -> None:
    def unauthorised(request: Request, error: Unauthorised) -> JSONResponse:
        return JSONResponse({"mine": request.url.path}, status_code=401)

    async def try_refresh(request: Request, error: TryRefreshToken) -> JSONResponse:
        return JSONResponse({"mine": "refresh"}, status_code=401, headers={"cache-control": "private"})

    app = fastapi_site(sessions, on_unauthorised=unauthorised, on_try_refresh_token=try_refresh)
    async with Client(app, "cookie") as client:
        await client.login()
        legacy = await client.call("/me", "GET", cookie="sIdRefreshToken=x")
        assert legacy.json() == {"mine": "refresh"} and "front-token" not in legacy.headers
        await sessions.revoke_user("user-1")
        response = await client.call("/me", "GET")
        assert response.json() == {"mine": "/me"}
        assert response.headers["front-token"] == "remove"
        assert not list(client.cookies.jar)


async def test_clearing_cannot_be_forgotten_by_an_exception_handler_of_the_application(sessions: AsyncSessions) -> None:
    app = fastapi_site(sessions)

    @app.exception_handler(Unauthorised)
    async def mine(request: Request, error: Unauthorised) -> JSONResponse:
        return JSONResponse({"mine": True}, status_code=401)

    async with Client(app, "cookie") as client:
        await client.login()
        await sessions.revoke_user("user-1")
        response = await client.call("/me", "GET")
        assert response.json() == {"mine": True}
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)


async def test_an_http_exception_of_the_application_keeps_what_was_queued(sessions: AsyncSessions) -> None:
    fv, app = FastVerify(sessions), FastAPI()

    @app.post("/welcome")
    async def welcome(request: Request) -> None:
        await fv.sign_in(request, "user-1")
        raise HTTPException(303, headers={"location": "/home"})

    fv.install(app)
    async with Client(app) as client:
        response = await client.call("/welcome")
        assert (response.status_code, response.headers["location"]) == (303, "/home")
        assert sessions.verify(response.headers["st-access-token"]).user_id == "user-1"


async def test_our_errors_are_answered_from_middleware_of_the_application_too(sessions: AsyncSessions) -> None:
    app = fastapi_site(sessions)

    @app.middleware("http")
    async def only_members(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async with Client(app) as client:
        assert (await client.call("/me", "GET")).status_code == 401
        await client.login()
        assert (await client.call("/me", "GET")).status_code == 200


# --- requests of other shapes ---------------------------------------------------------------------------------------


async def test_streams_and_background_tasks_carry_tokens_with_the_first_byte(sessions: AsyncSessions) -> None:
    fv, app = FastVerify(sessions), FastAPI()
    late: list[str] = []

    @app.post("/stream")
    async def stream(request: Request, tasks: BackgroundTasks) -> StreamingResponse:
        session = await fv.sign_in(request, "user-1")

        async def afterwards() -> None:
            await session.merge_payload({"late": True})  # reaches the store; the client sees it after a refresh
            late.append("done")

        tasks.add_task(afterwards)
        return StreamingResponse(iter(["a", "b"]), background=tasks)

    fv.install(app)
    async with Client(app) as client:
        response = await client.call("/stream")
        assert response.text == "ab"
        assert sessions.verify(client.access).payload == {}
        assert late == ["done"]
        await client.refresh()
        assert sessions.verify(client.access).payload == {"late": True}


async def test_a_websocket_dependency(sessions: AsyncSessions) -> None:
    fv, app = FastVerify(sessions), FastAPI()
    users: list[str] = []

    @app.websocket("/ws")
    async def ws(socket: WebSocket, session: Annotated[RequestSession, Depends(fv.session())]) -> None:
        users.append(session.user_id)
        await socket.accept()
        await socket.close()

    fv.install(app)
    bearer = ("authorization", f"Bearer {(await sessions.create('user-1')).access_token}")
    accepted: Any = await handshake(app, bearer, path="/ws")  # type: ignore[arg-type]
    assert [message["type"] for message in accepted] == ["websocket.accept", "websocket.close"]
    assert users == ["user-1"]
    denied: Any = await handshake(app, path="/ws")  # type: ignore[arg-type]
    assert denied[0]["type"] == "websocket.http.response.start" and denied[0]["status"] == 401
    closed: Any = await handshake(app, path="/ws", denial=False)  # type: ignore[arg-type]
    assert closed == [{"type": "websocket.close", "code": 1008}]


async def test_a_websocket_dependency_checks_claims(sessions: AsyncSessions) -> None:
    claim = PrimitiveClaim("plan", lambda user_id, *_: "pro" if user_id == "user-1" else "free")
    fv, app = FastVerify(sessions), FastAPI()
    needed = Depends(fv.session(validators=[claim.has_value("pro")]))

    @app.websocket("/ws")
    async def ws(socket: WebSocket, session: Annotated[RequestSession, needed]) -> None:
        await socket.accept()
        await socket.close()

    fv.install(app)
    for user, kind, plan in (
        ("user-1", "websocket.accept", "pro"),
        ("user-2", "websocket.http.response.start", "free"),
    ):
        bearer = ("authorization", f"Bearer {(await sessions.create(user)).access_token}")
        start: Any = (await handshake(app, bearer, path="/ws"))[0]  # type: ignore[arg-type]
        assert (start["type"], start.get("status", 200)) == (kind, 200 if plan == "pro" else 403)
        token = dict(start["headers"])[b"st-access-token"]
        assert claim.value_in(sessions.verify(token).payload) == plan


async def test_the_plain_middleware_works_around_a_fastapi_application_too(sessions: AsyncSessions) -> None:
    app = FastAPI()

    @app.get("/me")
    async def me(request: Request) -> Any:
        session = request.scope["fastverify.session"]
        return session and session.user_id

    issued = await sessions.create("user-1")
    wrapped: Any = SessionMiddleware(app, sessions)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(wrapped)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        headers = {"authorization": f"Bearer {issued.access_token}"}
        assert (await client.get("/me", headers=headers)).json() == "user-1"
        assert (await client.get("/me")).json() is None


async def test_the_session_of_a_request_has_the_attributes_of_a_session(sessions: AsyncSessions) -> None:
    fv, app = FastVerify(sessions), FastAPI()
    names = ("handle", "user_id", "login_id", "tenant", "payload", "access_token", "expires_at", "issued_at", "claims")
    found: list[Session] = []

    @app.get("/me")
    async def me(session: Annotated[RequestSession, Depends(fv.session())]) -> None:
        found.append(session.session)
        assert all(getattr(session, name) == getattr(session.session, name) for name in names)
        assert session.access_token not in repr(session)

    fv.install(app)
    async with Client(app) as client:
        await client.call("/me", "GET", token=(await sessions.create("user-1", tenant="acme")).access_token)
    assert found[0].tenant == "acme"
