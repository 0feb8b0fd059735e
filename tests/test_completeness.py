"""Every operation of the public interface: blocking, awaited, and behind HTTP in an ASGI and in a WSGI application.

A test is written once, over a ``Face``. Its operations are called on Sessions, on AsyncSessions, and by a request to an
application that calls them and answers with what came of it, as an administration's own service would. Whether a token
still serves is asked where a client would ask it: by ``verify``, or of a route that demands a session.

The last test counts: an operation without a test here fails it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from facades import Facade, open_facade, settings
from flask import Flask, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastverify import (
    AsyncSessions,
    EventBatch,
    Issued,
    KeySet,
    PrimitiveClaim,
    Session,
    SessionError,
    SessionInfo,
    Sessions,
    Verifier,
)
from fastverify._core import parse_unverified
from fastverify.adapters import flask as flask_adapter
from fastverify.adapters import starlette as starlette_adapter
from fastverify.claims_by_handle import SessionClaims

Test = Callable[..., Any]
PLAN = PrimitiveClaim("plan", lambda *_: "pro")
IS_PRO = PLAN.has_value("pro")
NO_OPERATIONS = {"connect", "close", "aclose", "now", "note_seen"}


def plain(value: Any) -> Any:
    """A result as JSON."""
    match value:
        case Issued():
            names = ("access_token", "refresh_token", "refresh_token_changed", "front_token", "anti_csrf_token")
            return {**plain(value.session), **{name: getattr(value, name) for name in names}}
        case Session():
            return {
                "handle": value.handle,
                "user": value.user_id,
                "tenant": value.tenant,
                "payload": dict(value.payload),
            }
        case SessionInfo():
            names = ("handle", "user_id", "tenant", "payload", "data", "device", "created_at", "expires_at", "current")
            names += ("absolute_expires_at",)
            return {name: plain(getattr(value, name)) for name in names}
        case EventBatch():
            events = [[event.name, event.handle, event.user_id, event.why] for event in value.events]
            return {"events": events, "cursor": value.cursor, "missed": value.missed}
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def meant(sessions: Any, argument: Any) -> Any:
    """What an argument stands for that JSON cannot carry."""
    match argument:
        case {"session of": token}:
            return sessions.verify(token)
        case {"claim": _}:
            return PLAN
        case {"validators": _}:
            return [IS_PRO]
        case {"ask": user}:
            return lambda refresh_token: (user, {"payload": {"of": refresh_token}}) if user else None
    return argument


def operation(sessions: Any, name: str) -> Any:
    for part in name.split("."):
        sessions = getattr(sessions, part)
    return sessions


class Face:
    """Operations on sessions, wherever they are called. ``called`` are the names of those that were."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    async def do(self, name: str, *args: Any, **options: Any) -> Any:
        """The result as JSON; an error of ours as ``{"error": its code}``."""
        self.called.add(name)
        return await self._do(name, args, options)

    async def serves(self, token: str) -> bool:
        """Whether a request with this access token is let in."""
        raise NotImplementedError

    async def _do(self, name: str, args: Any, options: Any) -> Any:
        raise NotImplementedError

    async def sign_in(self, user: str = "user-1", **options: Any) -> Any:
        return await self.do("create", user, **options)


class ByLibrary(Face):
    def __init__(self, facade: Facade) -> None:
        super().__init__()
        self._facade = facade

    async def _do(self, name: str, args: Any, options: Any) -> Any:
        sessions = self._facade.sessions
        given = [meant(sessions, argument) for argument in args]
        try:
            result = operation(sessions, name)(*given, **{key: meant(sessions, one) for key, one in options.items()})
            return plain(await result if inspect.isawaitable(result) else result)
        except SessionError as error:
            return {"error": error.code}

    async def serves(self, token: str) -> bool:
        try:
            self._facade.sessions.verify(token)
        except SessionError:
            return False
        return True


class ByHttp(Face):
    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def _do(self, name: str, args: Any, options: Any) -> Any:
        response = await self._client.post(f"/do/{name}", json={"args": args, "options": options})
        if response.status_code == 200:
            return response.json()
        assert response.status_code in (401, 403), response.text
        return {"error": {"try refresh token": "try_refresh_token"}.get(response.json()["message"], "unauthorised")}

    async def serves(self, token: str) -> bool:
        response = await self._client.get("/me", headers={"authorization": f"Bearer {token}"})
        assert response.status_code in (200, 401)
        return response.status_code == 200


def asgi_application(sessions: AsyncSessions) -> Any:
    fv = starlette_adapter.FastVerify(sessions)

    async def do(request: Request) -> JSONResponse:
        asked = await request.json()
        args = [meant(sessions, argument) for argument in asked["args"]]
        options = {name: meant(sessions, argument) for name, argument in asked["options"].items()}
        result = operation(sessions, request.path_params["name"])(*args, **options)
        return JSONResponse(plain(await result if inspect.isawaitable(result) else result))

    async def me(request: Request) -> JSONResponse:
        session = await fv.session_of(request)
        assert session is not None
        return JSONResponse({"user": session.user_id})

    app = Starlette(routes=[Route("/do/{name}", do, methods=["POST"]), Route("/me", me)])
    fv.install(app)
    return app


def wsgi_application(sessions: Sessions) -> Any:
    app = Flask(__name__)
    fv = flask_adapter.FastVerify(sessions, app)

    @app.post("/do/<name>")
    def do(name: str) -> Any:
        asked = json.loads(request.data)
        args = [meant(sessions, argument) for argument in asked["args"]]
        options = {key: meant(sessions, argument) for key, argument in asked["options"].items()}
        return app.json.response(plain(operation(sessions, name)(*args, **options)))

    @app.get("/me")
    def me() -> Any:
        session = fv.session()
        assert session is not None
        return {"user": session.user_id}

    return app


@pytest.fixture(params=["blocking", "awaited", "asgi", "wsgi"])
async def face(request: pytest.FixtureRequest, embedded_url: str, unique_prefix: str) -> AsyncIterator[Face]:
    kind = "sync" if request.param in ("blocking", "wsgi") else "async"
    async with AsyncExitStack() as stack:
        facade = await open_facade(kind, embedded_url, settings(unique_prefix, exchange_seconds=0, event_stream=100))
        stack.push_async_callback(facade.close)
        face: Face = ByLibrary(facade)
        if request.param in ("asgi", "wsgi"):
            transport: Any
            if request.param == "asgi":
                transport = httpx.ASGITransport(asgi_application(facade.sessions))  # type: ignore[arg-type]
            else:
                transport = Blocking(httpx.WSGITransport(wsgi_application(facade.sessions)))  # type: ignore[arg-type]
            face = ByHttp(
                await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://api.test"))
            )
        yield face
        wanted = request.function.operations
        assert wanted <= face.called, f"the test says that it calls {wanted - face.called}"


class Blocking(httpx.AsyncBaseTransport):
    """A blocking transport for an asynchronous client."""

    def __init__(self, inside: httpx.WSGITransport) -> None:
        self._inside = inside

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        response = self._inside.handle_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=body)
        )
        return httpx.Response(response.status_code, headers=response.headers, content=response.read())


COVERED: set[str] = set()


def covers(*names: str) -> Callable[[Test], Test]:
    """These operations are what a test is about."""
    COVERED.update(names)

    def decorate(test: Test) -> Test:
        test.operations = frozenset(names)  # type: ignore[attr-defined]
        return test

    return decorate


# --- tokens ----------------------------------------------------------------------------------------------------------


@covers("create", "verify")
async def test_create_and_verify(face: Face) -> None:
    issued = await face.sign_in(payload={"plan": "free"}, tenant="acme", login_id="login-1")
    verified = await face.do("verify", issued["access_token"])
    assert verified == {
        "handle": issued["handle"],
        "user": "user-1",
        "tenant": "acme",
        "payload": {"plan": "free"},
    }
    assert await face.serves(issued["access_token"])
    assert not await face.serves(issued["access_token"][:-4] + "AAAA")


@covers("verify_strict")
async def test_verify_strict(face: Face) -> None:
    issued = await face.sign_in()
    assert (await face.do("verify_strict", issued["access_token"]))["user"] == "user-1"
    await face.do("revoke", issued["handle"])
    assert await face.do("verify_strict", issued["access_token"]) == {"error": "unauthorised"}


@covers("refresh", "newest_refresh_token")
async def test_refresh(face: Face) -> None:
    issued = await face.sign_in()
    renewed = await face.do("refresh", issued["refresh_token"])
    assert renewed["handle"] == issued["handle"] and renewed["refresh_token_changed"]
    both = [issued["refresh_token"], renewed["refresh_token"]]
    assert await face.do("newest_refresh_token", both) == renewed["refresh_token"]
    assert await face.do("refresh", "no-token") == {"error": "unauthorised"}


@covers("exchange", "is_refresh_token")
async def test_exchange(face: Face) -> None:
    assert await face.do("exchange", "theirs", {"ask": None}) == {"error": "unauthorised"}
    issued = await face.do("exchange", "theirs", {"ask": "user-7"}, tenant="acme")
    assert (issued["user"], issued["tenant"], issued["payload"]) == ("user-7", "acme", {"of": "theirs"})
    again = await face.do("exchange", "theirs", {"ask": "user-8"})
    assert (again["handle"], again["refresh_token"]) == (issued["handle"], issued["refresh_token"])
    assert await face.do("is_refresh_token", issued["refresh_token"])
    assert not await face.do("is_refresh_token", "theirs")
    assert await face.serves(issued["access_token"])


@covers("blacklist")
async def test_blacklist(face: Face) -> None:
    issued = await face.sign_in()
    await face.do("blacklist", issued["access_token"])
    assert not await face.serves(issued["access_token"])
    assert await face.do("verify", issued["access_token"]) == {"error": "try_refresh_token"}
    assert await face.serves((await face.do("refresh", issued["refresh_token"]))["access_token"])


# --- ending sessions -------------------------------------------------------------------------------------------------


@covers("revoke")
async def test_revoke(face: Face) -> None:
    issued = await face.sign_in()
    assert await face.do("revoke", issued["handle"]) is True
    assert await face.do("revoke", issued["handle"]) is False
    assert not await face.serves(issued["access_token"])
    assert await face.do("refresh", issued["refresh_token"]) == {"error": "unauthorised"}


@covers("revoke_many")
async def test_revoke_many(face: Face) -> None:
    ended, spared = [await face.sign_in() for _ in range(2)], await face.sign_in()
    handles = [issued["handle"] for issued in ended]
    assert sorted(await face.do("revoke_many", [*handles, "no-handle"])) == sorted(handles)
    assert [await face.serves(issued["access_token"]) for issued in [*ended, spared]] == [False, False, True]


@covers("revoke_user")
async def test_revoke_user(face: Face) -> None:
    first, second, other = await face.sign_in(), await face.sign_in(), await face.sign_in("user-2")
    assert await face.do("revoke_user", "user-1", except_handle=second["handle"]) == [first["handle"]]
    assert [await face.serves(one["access_token"]) for one in (first, second, other)] == [False, True, True]


@covers("revoke_tenant")
async def test_revoke_tenant(face: Face) -> None:
    inside, outside = await face.sign_in(tenant="acme"), await face.sign_in()
    await face.do("revoke_tenant", "acme")
    assert [await face.serves(one["access_token"]) for one in (inside, outside)] == [False, True]
    assert await face.do("refresh", inside["refresh_token"]) == {"error": "unauthorised"}


@covers("revoke_all")
async def test_revoke_all(face: Face) -> None:
    issued = [await face.sign_in(user) for user in ("user-1", "user-2")]
    await face.do("revoke_all")
    assert not any([await face.serves(one["access_token"]) for one in issued])
    assert await face.serves((await face.sign_in())["access_token"])


# --- what is known of them -------------------------------------------------------------------------------------------


@covers("handles", "list_sessions")
async def test_lists(face: Face) -> None:
    phone = await face.sign_in(device={"name": "phone"})
    laptop = await face.sign_in(device={"name": "laptop"}, tenant="acme")
    assert set(await face.do("handles", "user-1")) == {phone["handle"], laptop["handle"]}
    (listed,) = await face.do("list_sessions", "user-1", tenant="acme")
    assert (listed["handle"], listed["device"]) == (laptop["handle"], {"name": "laptop"})
    both = await face.do("list_sessions", "user-1", current=phone["handle"])
    assert {one["handle"]: one["current"] for one in both} == {phone["handle"]: True, laptop["handle"]: False}


@covers("create", "info")
async def test_limits_of_a_sessions_own(face: Face) -> None:
    info = await face.do("info", (await face.sign_in(lifetime=60, idle_timeout=30))["handle"])
    assert info["expires_at"] - info["created_at"] == 30
    assert info["absolute_expires_at"] - info["created_at"] == 60


@covers("info")
async def test_info(face: Face) -> None:
    issued = await face.sign_in(payload={"plan": "free"}, data=[1])
    info = await face.do("info", issued["handle"])
    assert (info["user_id"], info["payload"], info["data"]) == ("user-1", {"plan": "free"}, [1])
    await face.do("revoke", issued["handle"])
    assert await face.do("info", issued["handle"]) is None


@covers("get_data", "set_data")
async def test_data(face: Face) -> None:
    handle = (await face.sign_in(data={"cart": []}))["handle"]
    assert await face.do("get_data", handle) == {"cart": []}
    assert await face.do("set_data", handle, {"cart": [1]}) is True
    assert await face.do("get_data", handle) == {"cart": [1]}
    await face.do("revoke", handle)
    assert await face.do("set_data", handle, {}) is False


@covers("merge_payload")
async def test_merge_payload(face: Face) -> None:
    issued = await face.sign_in(payload={"plan": "free", "beta": True})
    assert await face.do("merge_payload", issued["handle"], {"plan": "pro", "beta": None}) is True
    assert (await face.do("refresh", issued["refresh_token"]))["payload"] == {"plan": "pro"}


@covers("reissue", "recheck")
async def test_reissue_and_recheck(face: Face) -> None:
    issued = await face.sign_in(payload={"plan": "free"})
    whose = {"session of": issued["access_token"]}
    assert (await face.do("reissue", whose, {"plan": "pro"}))["payload"] == {"plan": "pro"}
    assert (await face.do("recheck", whose))["payload"] == {"plan": "pro"}


@covers("redeliver")
async def test_redeliver(face: Face) -> None:
    issued = await face.sign_in()
    again = await face.do("redeliver", {"session of": issued["access_token"]}, anti_csrf=False)
    assert again["handle"] == issued["handle"]
    assert (await face.do("refresh", again["refresh_token"]))["handle"] == issued["handle"]


@covers(*map("session_claims.{}".format, ("fetch_and_set", "set", "get", "remove", "validate", "reauthenticated")))
async def test_claims_by_handle(face: Face) -> None:
    handle, plan, validators = (await face.sign_in())["handle"], {"claim": "plan"}, {"validators": [IS_PRO.id]}
    assert await face.do("session_claims.get", handle, plan) is None
    assert await face.do("session_claims.fetch_and_set", handle, plan) is True
    assert await face.do("session_claims.get", handle, plan) == "pro"
    assert await face.do("session_claims.validate", handle, validators) == []
    assert await face.do("session_claims.set", handle, plan, "free") is True
    (failure,) = await face.do("session_claims.validate", handle, validators)
    assert (failure["id"], failure["reason"]["actualValue"]) == ("plan", "free")
    assert await face.do("session_claims.remove", handle, plan) is True
    assert await face.do("session_claims.get", handle, plan) is None
    assert await face.do("session_claims.reauthenticated", handle) is True
    assert "auth_time" in (await face.do("info", handle))["payload"]


@covers("events")
async def test_events(face: Face) -> None:
    begun = await face.do("events")
    assert {name for name, *_ in begun["events"]} == {"key_rotated"} and not begun["missed"]
    handle = (await face.sign_in())["handle"]
    await face.do("revoke", handle, why="asked for")
    batch = await face.do("events", begun["cursor"], limit=10)
    assert batch["events"] == [
        ["session_created", handle, "user-1", None],
        ["session_revoked", handle, "user-1", "asked for"],
    ]
    assert (await face.do("events", batch["cursor"]))["events"] == []


@covers("impersonate", "stop_impersonating", "left_impersonation")
async def test_impersonation(face: Face) -> None:
    admin = await face.sign_in("admin")
    issued = await face.do(
        "impersonate", {"session of": admin["access_token"]}, "user-1", lifetime=60, reason="ticket 7"
    )
    assert (issued["user"], issued["payload"]) == ("user-1", {"act": {"sub": "admin"}})
    assert await face.serves(issued["access_token"]) and await face.serves(admin["access_token"])
    assert await face.do("left_impersonation", issued["access_token"]) is None
    session = {"session of": issued["access_token"]}
    back = await face.do("stop_impersonating", session)
    assert (back["user"], back["handle"]) == ("admin", admin["handle"])
    assert not await face.serves(issued["access_token"])
    assert (await face.do("refresh", back["refresh_token"]))["handle"] == admin["handle"]
    assert (await face.do("left_impersonation", issued["access_token"]))["handle"] == issued["handle"]


@covers("guest", "promote", "lapsed_guest")
async def test_guests(face: Face) -> None:
    guest = await face.do("guest", {"cart": [1]}, data=7)
    assert guest["user"].startswith("guest-") and await face.serves(guest["access_token"])
    assert await face.do("lapsed_guest", guest["access_token"]) is None
    session = {"session of": guest["access_token"]}
    issued = await face.do("promote", session, "user-1", payload={"plan": "pro"})
    assert (issued["user"], issued["payload"]) == ("user-1", {"cart": [1], "plan": "pro"})
    assert await face.do("get_data", issued["handle"]) == 7
    assert await face.serves(issued["access_token"]) and not await face.serves(guest["access_token"])
    assert (await face.do("lapsed_guest", guest["access_token"]))["handle"] == guest["handle"]


# --- keys ------------------------------------------------------------------------------------------------------------


@covers("jwks", "openid_configuration", "jwks_max_age", "create_jwt")
async def test_jwks_and_jwts(face: Face) -> None:
    document = await face.do("openid_configuration")
    jwks = await face.do("jwks")
    assert document["jwks_uri"] == document["issuer"] + "/jwt/jwks.json" and jwks["keys"]
    assert await face.do("jwks_max_age") >= 1
    jwt = await face.do("create_jwt", {"role": "machine"}, lifetime=60)
    assert Verifier(KeySet.from_jwks(jwks), issuer=document["issuer"]).verify(jwt)["role"] == "machine"
    assert not await face.serves(jwt)


@covers("rotate_keys", "revoke_key")
async def test_keys(face: Face) -> None:
    issued = await face.sign_in()
    kid = await face.do("rotate_keys")
    kids = [key["kid"] for key in (await face.do("jwks"))["keys"]]
    assert kid in kids and await face.serves(issued["access_token"])
    await face.do("revoke_key", parse_unverified(issued["access_token"]).key_id)
    assert not await face.serves(issued["access_token"])
    assert await face.serves((await face.do("refresh", issued["refresh_token"]))["access_token"])


# --- all of them -----------------------------------------------------------------------------------------------------


def test_every_operation_has_a_test_here() -> None:
    """Sessions' names; AsyncSessions has the same ones, as test_manager.py shows."""
    public = {name for name, _ in inspect.getmembers(Sessions, inspect.isfunction)}
    public |= {f"session_claims.{name}" for name, _ in inspect.getmembers(SessionClaims, inspect.isfunction)}
    assert {name for name in public if "_" not in (name[0], name.split(".")[-1][0])} - NO_OPERATIONS == COVERED
