"""The Flask adapter: what it does beside what every adapter does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from blocking_sites import add_flask_routes, flask_site, served
from clients import Client, Open
from flask_cors import CORS

from fastverify import AsyncSessions, ConfigError, Sessions, StoreUnavailable, TryRefreshToken, Unauthorised
from fastverify.adapters.flask import FastVerify, cors_headers, current_session, session_required

ORIGIN = "http://localhost:3000"


@pytest.fixture
async def sessions(open_sessions: Open, opened: Any) -> Sessions:
    """Blocking ones, for the application and for the test."""
    return opened.blocking(await open_sessions())


# --- CORS -----------------------------------------------------------------------------------------------------------


def site_behind_cors(sessions: Sessions, order: str) -> flask.Flask:
    app = flask.Flask(__name__)
    fv = FastVerify(sessions)
    if order == "install first":
        fv.init_app(app)
    CORS(
        app,
        origins=[ORIGIN],
        supports_credentials=True,
        methods=["GET", "POST"],
        allow_headers=cors_headers(),
        expose_headers=["x-mine"],
    )
    if order == "install last":
        fv.init_app(app)
    add_flask_routes(app, fv)
    return app


@pytest.mark.parametrize("order", ["install first", "install last"])
class TestBesideFlaskCors:
    async def test_the_preflight_passes(self, sessions: Sessions, order: str) -> None:
        async with Client(served(site_behind_cors(sessions, order))) as client:
            for path in ("/auth/session/refresh", "/auth/signout", "/me"):
                response = await client.options(
                    path,
                    headers={
                        "origin": ORIGIN,
                        "access-control-request-method": "POST",
                        "access-control-request-headers": "anti-csrf, content-type, fdi-version, rid, st-auth-mode",
                    },
                )
                assert response.status_code == 200
                assert response.headers["access-control-allow-origin"] == ORIGIN
                assert response.headers["access-control-allow-credentials"] == "true"
                allowed = response.headers["access-control-allow-headers"].split(", ")
                assert {"anti-csrf", "content-type", "fdi-version", "rid", "st-auth-mode"} <= set(allowed)

    async def test_every_response_can_be_read_by_the_page(self, sessions: Sessions, order: str) -> None:
        async with Client(served(site_behind_cors(sessions, order))) as client:
            client.headers["origin"] = ORIGIN
            responses = [
                await client.call("/me", "GET"),
                await client.call("/auth/session/refresh"),
                await client.login(),
                await client.call("/me", "GET"),
                await client.refresh(),
                await client.call("/auth/signout"),
                await client.call("/login-and-fail?user=x"),
            ]
            assert [response.status_code for response in responses] == [401, 401, 200, 200, 200, 200, 401]
            for response in responses:
                assert response.headers.get_list("access-control-allow-origin") == [ORIGIN]
                assert response.headers.get_list("access-control-allow-credentials") == ["true"]
                (exposed,) = response.headers.get_list("access-control-expose-headers")
                assert exposed.startswith("x-mine")
                for name in ("front-token", "st-access-token", "st-refresh-token"):
                    assert (name in response.headers) <= (name in exposed)

    async def test_an_outage_can_be_read_by_the_page(
        self, sessions: Sessions, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable(retry_after=2)

        monkeypatch.setattr(sessions, "refresh", away)
        async with Client(served(site_behind_cors(sessions, order))) as client:
            response = await client.call("/auth/session/refresh", token="x", origin=ORIGIN)
            assert (response.status_code, response.headers["retry-after"]) == (503, "2")
            assert response.headers["access-control-allow-origin"] == ORIGIN


# --- installing -----------------------------------------------------------------------------------------------------


async def test_a_catch_all_of_the_application_does_not_swallow_the_routes(sessions: Sessions) -> None:
    app = flask.Flask(__name__)

    @app.route("/<path:path>", methods=["GET", "POST"])
    def catch_all(path: str) -> Any:
        return path

    FastVerify(sessions, app)
    async with Client(served(app)) as client:
        assert (await client.call("/auth/session/refresh")).json() == {"message": "unauthorised"}
        assert "keys" in (await client.get("/auth/jwt/jwks.json")).json()
        assert (await client.get("/else")).text == "else"


def test_wrong_arguments_are_refused(sessions: Sessions) -> None:
    with pytest.raises(ConfigError, match="routes"):
        FastVerify(sessions, routes=("refresh", "login"))
    with pytest.raises(ConfigError, match="on_unauthorized"):
        FastVerify(sessions, on_unauthorized=print)  # type: ignore[call-arg]
    asynchronous: Any = object.__new__(AsyncSessions)
    with pytest.raises(TypeError, match="Sessions"):
        FastVerify(asynchronous)


async def test_a_session_without_install_is_a_mistake_that_is_told(sessions: Sessions) -> None:
    app = flask.Flask(__name__)
    app.testing = True
    add_flask_routes(app, FastVerify(sessions))
    async with Client(served(app)) as client:
        with pytest.raises(RuntimeError, match="around this application"):
            await client.get("/me")


async def test_two_applications_in_one_process_do_not_mix(open_sessions: Open, opened: Any) -> None:
    one, two = [flask_site(opened.blocking(await open_sessions())) for _ in range(2)]
    assert one.extensions["fastverify"] is not two.extensions["fastverify"]
    async with Client(served(one)) as client, Client(served(two)) as other:
        await client.login()
        assert (await client.call("/me", "GET")).status_code == 200
        assert (await other.call("/me", "GET", token=client.access)).status_code in (401, 503)


async def test_one_fastverify_serves_two_applications(sessions: Sessions) -> None:
    fv = FastVerify(sessions)
    apps = [flask.Flask(name) for name in ("one", "two")]
    for app in apps:
        fv.init_app(app)
        add_flask_routes(app, fv)
    async with Client(served(apps[0])) as client, Client(served(apps[1])) as other:
        await client.login()
        assert (await other.call("/me", "GET", token=client.access)).json()["user"] == "user-1"
        assert (await other.call("/auth/signout", token=client.access)).status_code == 200


async def test_a_blueprint(sessions: Sessions) -> None:
    app, members = flask.Flask(__name__), flask.Blueprint("members", __name__, url_prefix="/members")

    @members.before_request
    @session_required()
    def only_members() -> None:
        return None

    @members.get("/name")
    def name() -> Any:
        return {"user": current_session.user_id}

    app.register_blueprint(members)
    fv = FastVerify(sessions, app)
    add_flask_routes(app, fv)
    async with Client(served(app)) as client:
        assert (await client.get("/members/name")).json() == {"message": "unauthorised"}
        await client.login()
        assert (await client.call("/members/name", "GET")).json() == {"user": "user-1"}


# --- views ----------------------------------------------------------------------------------------------------------


async def test_an_async_view(sessions: Sessions) -> None:
    app = flask.Flask(__name__)
    app.testing = True
    fv = FastVerify(sessions, app)

    @app.post("/login")
    async def login() -> Any:
        fv.sign_in("user-1")
        return {}

    @app.post("/me")
    @session_required()
    async def me() -> Any:
        current_session.merge_payload({"seen": True})
        return {"user": current_session.user_id}

    async with Client(served(app)) as client:
        await client.call("/login")
        assert (await client.call("/me")).json() == {"user": "user-1"}
        assert sessions.verify(client.access).payload == {"seen": True}
        client.access = ""
        assert (await client.call("/me")).status_code == 401


def test_outside_of_a_request_there_is_no_session() -> None:
    assert not current_session


async def test_an_optional_session_is_false_where_none_came(sessions: Sessions) -> None:
    app = flask.Flask(__name__)
    FastVerify(sessions, app)

    @app.get("/maybe")
    @session_required(required=False)
    def maybe() -> Any:
        return {"user": current_session.user_id if current_session else None}

    async with Client(served(app)) as client:
        assert (await client.get("/maybe")).json() == {"user": None}
        token = sessions.create("user-1").access_token
        assert (await client.call("/maybe", "GET", token=token)).json() == {"user": "user-1"}


async def test_a_stream_carries_tokens_and_takes_none_afterwards(sessions: Sessions) -> None:
    app = flask.Flask(__name__)
    app.testing = True
    fv = FastVerify(sessions, app)
    told: list[str] = []

    @app.get("/stream")
    def stream() -> Any:
        fv.sign_in("user-1")

        @flask.stream_with_context
        def parts() -> Iterator[str]:
            yield "a"
            try:
                fv.sign_in("user-2")
            except RuntimeError as error:
                told.append(str(error))
            yield "b"

        return flask.Response(parts())

    async with Client(served(app)) as client:
        assert (await client.get("/stream")).text == "ab"
        assert sessions.verify(client.access).user_id == "user-1"
    assert len(told) == 1 and "begun" in told[0]
    assert sessions.handles("user-2") == []


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_hooks_replace_responses_but_not_the_clearing(sessions: Sessions) -> None:
    def unauthorised(request: flask.Request, error: Unauthorised) -> Any:
        return {"mine": request.path}, 401

    def try_refresh(request: flask.Request, error: TryRefreshToken) -> Any:
        return flask.Response("refresh", 401, {"cache-control": "private"})

    app = flask_site(sessions, on_unauthorised=unauthorised, on_try_refresh_token=try_refresh)
    async with Client(served(app), "cookie") as client:
        await client.login()
        legacy = await client.call("/me", "GET", cookie="sIdRefreshToken=x")
        assert legacy.text == "refresh" and "front-token" not in legacy.headers
        sessions.revoke_user("user-1")
        response = await client.call("/me", "GET")
        assert response.json() == {"mine": "/me"}
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)


async def test_an_async_hook_is_a_mistake_that_is_told(sessions: Sessions) -> None:
    async def unauthorised(request: flask.Request, error: Unauthorised) -> Any:
        raise AssertionError

    async with Client(served(flask_site(sessions, on_unauthorised=unauthorised))) as client:
        with pytest.raises(TypeError, match="asynchronous function"):
            await client.get("/me")


async def test_clearing_cannot_be_forgotten_by_an_error_handler_of_the_application(sessions: Sessions) -> None:
    app = flask_site(sessions)
    app.register_error_handler(Unauthorised, lambda error: ({"mine": True}, 401))
    async with Client(served(app), "cookie") as client:
        await client.login()
        sessions.revoke_user("user-1")
        response = await client.call("/me", "GET")
        assert response.json() == {"mine": True}
        assert response.headers["front-token"] == "remove" and not list(client.cookies.jar)


@pytest.mark.parametrize("how", ["abort", "unhandled"])
async def test_an_error_of_the_application_after_a_sign_in_keeps_what_was_queued(sessions: Sessions, how: str) -> None:
    app = flask.Flask(__name__)
    fv = FastVerify(sessions, app)

    @app.get("/fail")
    def fail() -> Any:
        fv.sign_in("user-1")
        if how == "abort":
            flask.abort(418)
        raise ZeroDivisionError

    async with Client(served(app)) as client:
        assert (await client.get("/fail")).status_code == (418 if how == "abort" else 500)
        assert sessions.verify(client.access).user_id == "user-1"


async def test_our_errors_are_answered_before_a_view_too(sessions: Sessions) -> None:
    app = flask_site(sessions)

    @app.before_request
    def refuse() -> None:
        raise TryRefreshToken("before")

    async with Client(served(app)) as client:
        assert (await client.get("/me")).json() == {"message": "try refresh token"}


def test_flasks_own_test_client_keeps_somebody_signed_in(sessions: Sessions) -> None:
    app = flask_site(sessions)
    with app.test_client() as client:
        signed_in = client.post("http://localhost:8000/login?user=user-1", headers={"st-auth-mode": "cookie"})
        assert signed_in.status_code == 200
        assert client.get("http://localhost:8000/me").json["user"] == "user-1"  # type: ignore[index]
        assert current_session.user_id == "user-1"  # while the context is kept


def test_a_body_that_was_not_read_is_no_matter(sessions: Sessions) -> None:
    with flask_site(sessions).test_client() as client:
        response = client.post("/auth/session/refresh", data=io.BytesIO(b"x" * 100_000))
        assert response.status_code == 401
