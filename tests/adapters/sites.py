"""One small application, once in each framework: the same paths do the same."""

# No postponed annotations: FastAPI reads those of the routes, which name a local variable.

import json
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastverify import (
    AsyncSessions,
    PrimitiveClaim,
    SessionClaimValidator,
    SessionInfo,
    Unauthorised,
    authenticated_within,
    not_guest,
    not_impersonated,
)
from fastverify.adapters import starlette
from fastverify.adapters.asgi import (
    ASGIApp,
    Receive,
    RequestContext,
    RequestSession,
    Scope,
    Send,
    SessionMiddleware,
    context_of,
    reply_app,
)
from fastverify.adapters.fastapi import FastVerify
from fastverify.transport import json_reply

Build = Callable[..., Any]


class Plans:
    """What a plan claim is fetched from: anybody's plan, and how often it was asked for."""

    def __init__(self) -> None:
        self.plan: Any = None
        self.fetched = 0

    def fetch(self, user_id: str, login_id: str, tenant: str, payload: Any) -> Any:
        self.fetched += 1
        return self.plan

    async def fetch_async(self, user_id: str, login_id: str, tenant: str, payload: Any) -> Any:
        return self.fetch(user_id, login_id, tenant, payload)


PLANS = Plans()
PLAN = PrimitiveClaim("plan", PLANS.fetch_async, default_max_age=60)
IS_PRO = PLAN.has_value("pro")


def and_fresh(validators: list[SessionClaimValidator], session: Any) -> list[SessionClaimValidator]:
    """A route's function: the application's validators and one more, but for one user."""
    return [] if session.user_id == "exempt" else [*validators, authenticated_within(300)]


async def act_on_claims(session: RequestSession, do: str, key: str = "plan") -> Any:
    claim = PLAN if key == "plan" else PrimitiveClaim(key)
    match do:
        case "fetch":
            await session.fetch_and_set_claim(claim)
        case "set":
            await session.set_claim(claim, "team")
        case "remove":
            await session.remove_claim(claim)
        case "assert":
            await session.assert_claims([IS_PRO])
        case "reauthenticate":
            await session.reauthenticated()
    return {"value": session.get_claim(claim)}


def asgi_site(sessions: AsyncSessions, **options: Any) -> ASGIApp:
    """The application with no framework."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        content = await _handle(scope, context_of(scope))
        await reply_app(json_reply(200 if content is not None else 404, content))(scope, receive, send)

    return SessionMiddleware(app, sessions, **options)


async def _handle(scope: Scope, context: RequestContext) -> Any:
    query = dict(parse_qsl(scope["query_string"].decode()))
    match scope["path"]:
        case "/login":
            await context.sign_in(query["user"], payload=json.loads(query.get("payload", "{}")))
            return {"ok": True}
        case "/login-for-now":
            await context.sign_in(query["user"], remember=False)
            return {"ok": True}
        case "/move":
            session = await context.session()
            assert session is not None
            await session.move_to(query["to"])  # type: ignore[arg-type]
            return described(session)
        case "/login-beside":
            await context.sign_in(query["user"], previous=None)
            return {"ok": True}
        case "/impersonate":
            return described(await context.impersonate(query["user"], reason="ticket 7"))
        case "/return":
            return described(await context.stop_impersonating())
        case "/own":
            return described(await context.session(validators=[not_impersonated()]))
        case "/guest":
            return described(await context.sign_in_guest(json.loads(query.get("payload", "{}"))))
        case "/member":
            return described(await context.session(validators=[not_guest()]))
        case "/login-and-fail":
            await context.sign_in(query["user"])
            raise Unauthorised("after all")
        case "/login-with-claims":
            await context.sign_in(query["user"], claims=[PLAN], authenticated=True)
            return {"ok": True}
        case "/pro":
            return described(await context.session(validators=[IS_PRO]))
        case "/fresh":
            return described(await context.session(validators=and_fresh))
        case "/unchecked":
            return described(await context.session(validators=[]))
        case "/claims":
            session = await context.session(validators=[])
            assert session is not None
            return await act_on_claims(session, query["do"], query.get("key", "plan"))
        case "/me":
            return described(await context.session())
        case "/maybe":
            return described(await context.session(required=False))
        case "/strict":
            return described(await context.session(strict=True))
        case "/lenient":
            return described(await context.session(strict=False))
        case "/unguarded":
            return described(await context.session(check_anti_csrf=False))
        case "/merge":
            session = await context.session()
            assert session is not None
            await session.merge_payload(json.loads(query["patch"]))
            return described(session)
        case "/revoke":
            session = await context.session()
            assert session is not None
            return {"was_there": await session.revoke()}
        case "/data":
            session = await context.session()
            assert session is not None
            if "put" in query:
                await session.set_data(query["put"])
            return {"data": await session.get_data()}
        case "/sessions":
            session = await context.session()
            assert session is not None
            return {"sessions": [shown(info) for info in await session.list_sessions()]}
        case "/revoke-others":
            session = await context.session()
            assert session is not None
            return {"ended": await session.revoke_others()}
        case "/revoke-one":
            session = await context.session()
            assert session is not None
            return {"was_there": await session.revoke_one(query["handle"])}
        case "/device":
            return context.device()
        case "/own-refresh":
            return described(await context.refresh())
        case "/own-signout":
            await context.sign_out()
            return {"ok": True}
    return None


def starlette_site(sessions: AsyncSessions, **options: Any) -> Starlette:
    """The application in Starlette."""
    fv = starlette.FastVerify(sessions, **options)
    app = Starlette(routes=starlette_routes(fv))
    fv.install(app)
    return app


def starlette_routes(fv: starlette.FastVerify) -> list[Route]:
    async def login(request: Request) -> Any:
        query = request.query_params
        await fv.sign_in(request, query["user"], payload=json.loads(query.get("payload", "{}")))
        return JSONResponse({"ok": True})

    async def login_for_now(request: Request) -> Any:
        await fv.sign_in(request, request.query_params["user"], remember=False)
        return JSONResponse({"ok": True})

    async def login_beside(request: Request) -> Any:
        await fv.sign_in(request, request.query_params["user"], previous=None)
        return JSONResponse({"ok": True})

    async def impersonate(request: Request) -> Any:
        return JSONResponse(described(await fv.impersonate(request, request.query_params["user"], reason="ticket 7")))

    async def return_(request: Request) -> Any:
        return JSONResponse(described(await fv.stop_impersonating(request)))

    async def guest(request: Request) -> Any:
        payload = json.loads(request.query_params.get("payload", "{}"))
        return JSONResponse(described(await fv.sign_in_guest(request, payload)))

    async def login_and_fail(request: Request) -> Any:
        await fv.sign_in(request, request.query_params["user"])
        raise Unauthorised("after all")

    async def login_with_claims(request: Request) -> Any:
        await fv.sign_in(request, request.query_params["user"], claims=[PLAN], authenticated=True)
        return JSONResponse({"ok": True})

    def showing(**how: Any) -> Any:
        async def show(request: Request) -> Any:
            return JSONResponse(described(await fv.session_of(request, **how)))

        return show

    async def claims(request: Request) -> Any:
        session = await fv.session_of(request, validators=[])
        assert session is not None
        return JSONResponse(await act_on_claims(session, **request.query_params))

    async def move(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        await session.move_to(request.query_params["to"])  # type: ignore[arg-type]
        return JSONResponse(described(session))

    async def merge(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        await session.merge_payload(json.loads(request.query_params["patch"]))
        return JSONResponse(described(session))

    async def revoke(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        return JSONResponse({"was_there": await session.revoke()})

    async def data(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        if "put" in request.query_params:
            await session.set_data(request.query_params["put"])
        return JSONResponse({"data": await session.get_data()})

    async def sessions(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        return JSONResponse({"sessions": [shown(info) for info in await session.list_sessions()]})

    async def revoke_others(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        return JSONResponse({"ended": await session.revoke_others()})

    async def revoke_one(request: Request) -> Any:
        session = await fv.session_of(request)
        assert session is not None
        return JSONResponse({"was_there": await session.revoke_one(request.query_params["handle"])})

    async def device(request: Request) -> Any:
        return JSONResponse(fv.device(request))

    async def own_refresh(request: Request) -> Any:
        return JSONResponse(described(await fv.refresh(request)))

    async def own_signout(request: Request) -> Any:
        await fv.sign_out(request)
        return JSONResponse({"ok": True})

    views: dict[str, Any] = {
        "login": login,
        "login-for-now": login_for_now,
        "login-beside": login_beside,
        "impersonate": impersonate,
        "return": return_,
        "own": showing(validators=[not_impersonated()]),
        "guest": guest,
        "member": showing(validators=[not_guest()]),
        "login-and-fail": login_and_fail,
        "login-with-claims": login_with_claims,
        "pro": showing(validators=[IS_PRO]),
        "fresh": showing(validators=and_fresh),
        "unchecked": showing(validators=[]),
        "claims": claims,
        "move": move,
        "me": showing(),
        "maybe": showing(required=False),
        "strict": showing(strict=True),
        "lenient": showing(strict=False),
        "unguarded": showing(check_anti_csrf=False),
        "merge": merge,
        "revoke": revoke,
        "data": data,
        "sessions": sessions,
        "revoke-others": revoke_others,
        "revoke-one": revoke_one,
        "device": device,
        "own-refresh": own_refresh,
        "own-signout": own_signout,
    }
    return [Route(f"/{name}", view, methods=["GET", "POST"]) for name, view in views.items()]


def fastapi_site(sessions: AsyncSessions, **options: Any) -> FastAPI:
    """The application in FastAPI."""
    fv = FastVerify(sessions, **options)
    app = FastAPI()
    fv.install(app)
    add_fastapi_routes(app, fv)
    return app


def add_fastapi_routes(app: FastAPI, fv: FastVerify) -> None:
    @app.get("/login")
    @app.post("/login")
    async def login(request: Request, user: str, payload: str = "{}") -> Any:
        await fv.sign_in(request, user, payload=json.loads(payload))
        return {"ok": True}

    @app.post("/login-for-now")
    async def login_for_now(request: Request, user: str) -> Any:
        await fv.sign_in(request, user, remember=False)
        return {"ok": True}

    @app.post("/move")
    async def move(to: str, session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        await session.move_to(to)  # type: ignore[arg-type]
        return described(session)

    @app.post("/login-beside")
    async def login_beside(request: Request, user: str) -> Any:
        await fv.sign_in(request, user, previous=None)
        return {"ok": True}

    @app.post("/impersonate")
    async def impersonate(request: Request, user: str) -> Any:
        return described(await fv.impersonate(request, user, reason="ticket 7"))

    @app.post("/return")
    async def return_(request: Request) -> Any:
        return described(await fv.stop_impersonating(request))

    @app.get("/own")
    async def own(session: Annotated[RequestSession, Depends(fv.session(validators=[not_impersonated()]))]) -> Any:
        return described(session)

    @app.post("/guest")
    async def guest(request: Request, payload: str = "{}") -> Any:
        return described(await fv.sign_in_guest(request, json.loads(payload)))

    @app.get("/member")
    async def member(session: Annotated[RequestSession, Depends(fv.session(validators=[not_guest()]))]) -> Any:
        return described(session)

    @app.post("/login-and-fail")
    async def login_and_fail(request: Request, user: str) -> Any:
        await fv.sign_in(request, user)
        raise Unauthorised("after all")

    @app.post("/login-with-claims")
    async def login_with_claims(request: Request, user: str) -> Any:
        await fv.sign_in(request, user, claims=[PLAN], authenticated=True)
        return {"ok": True}

    @app.get("/pro")
    async def pro(session: Annotated[RequestSession, Depends(fv.session(validators=[IS_PRO]))]) -> Any:
        return described(session)

    @app.get("/fresh")
    async def fresh(session: Annotated[RequestSession, Depends(fv.session(validators=and_fresh))]) -> Any:
        return described(session)

    @app.get("/unchecked")
    async def unchecked(session: Annotated[RequestSession, Depends(fv.session(validators=[]))]) -> Any:
        return described(session)

    @app.post("/claims")
    async def claims(
        do: str, session: Annotated[RequestSession, Depends(fv.session(validators=[]))], key: str = "plan"
    ) -> Any:
        return await act_on_claims(session, do, key)

    @app.get("/me")
    @app.post("/me")
    async def me(session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        return described(session)

    @app.get("/maybe")
    @app.post("/maybe")
    async def maybe(session: Annotated[RequestSession | None, Depends(fv.session(required=False))]) -> Any:
        return described(session)

    @app.get("/strict")
    async def strict(session: Annotated[RequestSession, Depends(fv.session(strict=True))]) -> Any:
        return described(session)

    @app.get("/lenient")
    async def lenient(session: Annotated[RequestSession, Depends(fv.session(strict=False))]) -> Any:
        return described(session)

    @app.post("/unguarded")
    async def unguarded(session: Annotated[RequestSession, Depends(fv.session(check_anti_csrf=False))]) -> Any:
        return described(session)

    @app.post("/merge")
    async def merge(patch: str, session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        await session.merge_payload(json.loads(patch))
        return described(session)

    @app.post("/revoke")
    async def revoke(session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        return {"was_there": await session.revoke()}

    @app.get("/data")
    @app.post("/data")
    async def data(session: Annotated[RequestSession, Depends(fv.session())], put: str | None = None) -> Any:
        if put is not None:
            await session.set_data(put)
        return {"data": await session.get_data()}

    @app.get("/sessions")
    async def sessions(session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        return {"sessions": [shown(info) for info in await session.list_sessions()]}

    @app.post("/revoke-others")
    async def revoke_others(session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        return {"ended": await session.revoke_others()}

    @app.post("/revoke-one")
    async def revoke_one(handle: str, session: Annotated[RequestSession, Depends(fv.session())]) -> Any:
        return {"was_there": await session.revoke_one(handle)}

    @app.get("/device")
    async def device(request: Request) -> Any:
        return fv.device(request)

    @app.post("/own-refresh")
    async def own_refresh(request: Request) -> Any:
        return described(await fv.refresh(request))

    @app.post("/own-signout")
    async def own_signout(request: Request) -> Any:
        await fv.sign_out(request)
        return {"ok": True}


def described(session: RequestSession | None) -> Any:
    """What the application shows of a session."""
    if session is None:
        return {"user": None}
    assert session.claims["sub"] == session.user_id and session.access_token == session.session.access_token
    return {"user": session.user_id, "handle": session.handle, "payload": dict(session.payload)}


def asgi_answer(status: int, content: Any) -> ASGIApp:
    """What a hook returns where there is no framework."""
    return reply_app(json_reply(status, content))


def starlette_answer(status: int, content: Any) -> JSONResponse:
    """What a hook returns in Starlette and FastAPI."""
    return JSONResponse(content, status)


ANSWERS: dict[str, Callable[[int, Any], Any]] = {
    "asgi": asgi_answer,
    "starlette": starlette_answer,
    "fastapi": starlette_answer,
}


def shown(info: SessionInfo) -> Any:
    """What the application shows of one session in a list."""
    return {"handle": info.handle, "device": info.device, "current": info.current}


SITES: dict[str, Build] = {"asgi": asgi_site, "starlette": starlette_site, "fastapi": fastapi_site}
