"""The small application once more, in each blocking framework."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import flask
from sites import PLANS, and_fresh, described, shown

from fastverify import PrimitiveClaim, Sessions, Unauthorised, not_guest, not_impersonated
from fastverify.adapters import wsgi
from fastverify.adapters.asgi import ASGIApp, Receive, Scope, Send
from fastverify.adapters.flask import FastVerify, current_session, session_required
from fastverify.transport import json_reply

Build = Callable[..., Any]

PLAN = PrimitiveClaim("plan", PLANS.fetch, default_max_age=60)
IS_PRO = PLAN.has_value("pro")


def act_on_claims(session: wsgi.SyncRequestSession, do: str, key: str = "plan") -> Any:
    claim = PLAN if key == "plan" else PrimitiveClaim(key)
    match do:
        case "fetch":
            session.fetch_and_set_claim(claim)
        case "set":
            session.set_claim(claim, "team")
        case "remove":
            session.remove_claim(claim)
        case "assert":
            session.assert_claims([IS_PRO])
        case "reauthenticate":
            session.reauthenticated()
    return {"value": session.get_claim(claim)}


def wsgi_site(sessions: Sessions, **options: Any) -> wsgi.WSGIApp:
    """The application with no framework."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        content = _handle(environ, wsgi.context_of(environ))
        return wsgi.reply_app(json_reply(200 if content is not None else 404, content))(environ, start_response)

    return wsgi.SessionMiddleware(app, sessions, **options)


def _handle(environ: dict[str, Any], context: wsgi.SyncRequestContext) -> Any:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    match environ["PATH_INFO"]:
        case "/login":
            context.sign_in(query["user"], payload=json.loads(query.get("payload", "{}")))
            return {"ok": True}
        case "/login-for-now":
            context.sign_in(query["user"], remember=False)
            return {"ok": True}
        case "/move":
            session = context.session()
            assert session is not None
            session.move_to(query["to"])  # type: ignore[arg-type]
            return described(session)
        case "/login-beside":
            context.sign_in(query["user"], previous=None)
            return {"ok": True}
        case "/impersonate":
            return described(context.impersonate(query["user"], reason="ticket 7"))
        case "/return":
            return described(context.stop_impersonating())
        case "/own":
            return described(context.session(validators=[not_impersonated()]))
        case "/guest":
            return described(context.sign_in_guest(json.loads(query.get("payload", "{}"))))
        case "/member":
            return described(context.session(validators=[not_guest()]))
        case "/login-and-fail":
            context.sign_in(query["user"])
            raise Unauthorised("after all")
        case "/login-with-claims":
            context.sign_in(query["user"], claims=[PLAN], authenticated=True)
            return {"ok": True}
        case "/pro":
            return described(context.session(validators=[IS_PRO]))
        case "/fresh":
            return described(context.session(validators=and_fresh))
        case "/unchecked":
            return described(context.session(validators=[]))
        case "/claims":
            session = context.session(validators=[])
            assert session is not None
            return act_on_claims(session, query["do"], query.get("key", "plan"))
        case "/me":
            return described(context.session())
        case "/maybe":
            return described(context.session(required=False))
        case "/strict":
            return described(context.session(strict=True))
        case "/lenient":
            return described(context.session(strict=False))
        case "/unguarded":
            return described(context.session(check_anti_csrf=False))
        case "/merge":
            session = context.session()
            assert session is not None
            session.merge_payload(json.loads(query["patch"]))
            return described(session)
        case "/revoke":
            session = context.session()
            assert session is not None
            return {"was_there": session.revoke()}
        case "/data":
            session = context.session()
            assert session is not None
            if "put" in query:
                session.set_data(query["put"])
            return {"data": session.get_data()}
        case "/sessions":
            session = context.session()
            assert session is not None
            return {"sessions": [shown(info) for info in session.list_sessions()]}
        case "/revoke-others":
            session = context.session()
            assert session is not None
            return {"ended": session.revoke_others()}
        case "/revoke-one":
            session = context.session()
            assert session is not None
            return {"was_there": session.revoke_one(query["handle"])}
        case "/device":
            return context.device()
        case "/own-refresh":
            return described(context.refresh())
        case "/own-signout":
            context.sign_out()
            return {"ok": True}
    return None


def flask_site(sessions: Sessions, **options: Any) -> flask.Flask:
    """The application in Flask."""
    app = flask.Flask(__name__)
    app.testing = True  # what the application raises comes out
    add_flask_routes(app, FastVerify(sessions, app, **options))
    return app


def add_flask_routes(app: flask.Flask, fv: FastVerify) -> None:
    @app.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        fv.sign_in(flask.request.args["user"], payload=json.loads(flask.request.args.get("payload", "{}")))
        return {"ok": True}

    @app.post("/login-for-now")
    def login_for_now() -> Any:
        fv.sign_in(flask.request.args["user"], remember=False)
        return {"ok": True}

    @app.post("/move")
    @session_required()
    def move() -> Any:
        current_session.move_to(flask.request.args["to"])  # type: ignore[arg-type]
        return described(current_session)

    @app.post("/login-beside")
    def login_beside() -> Any:
        fv.sign_in(flask.request.args["user"], previous=None)
        return {"ok": True}

    @app.post("/impersonate")
    def impersonate() -> Any:
        return described(fv.impersonate(flask.request.args["user"], reason="ticket 7"))

    @app.post("/return")
    def return_() -> Any:
        return described(fv.stop_impersonating())

    @app.get("/own")
    @session_required(validators=[not_impersonated()])
    def own() -> Any:
        return described(current_session)

    @app.post("/guest")
    def guest() -> Any:
        return described(fv.sign_in_guest(json.loads(flask.request.args.get("payload", "{}"))))

    @app.get("/member")
    @session_required(validators=[not_guest()])
    def member() -> Any:
        return described(current_session)

    @app.post("/login-and-fail")
    def login_and_fail() -> Any:
        fv.sign_in(flask.request.args["user"])
        raise Unauthorised("after all")

    @app.post("/login-with-claims")
    def login_with_claims() -> Any:
        fv.sign_in(flask.request.args["user"], claims=[PLAN], authenticated=True)
        return {"ok": True}

    @app.get("/pro")
    @session_required(validators=[IS_PRO])
    def pro() -> Any:
        return described(current_session)

    @app.get("/fresh")
    def fresh() -> Any:
        return described(fv.session(validators=and_fresh))

    @app.get("/unchecked")
    @session_required(validators=[])
    def unchecked() -> Any:
        return described(current_session)

    @app.post("/claims")
    @session_required(validators=[])
    def claims() -> Any:
        args = flask.request.args
        return act_on_claims(current_session, args["do"], args.get("key", "plan"))

    @app.route("/me", methods=["GET", "POST"])
    @session_required()
    def me() -> Any:
        return described(current_session)

    @app.route("/maybe", methods=["GET", "POST"])
    def maybe() -> Any:
        return described(fv.session(required=False))

    @app.get("/strict")
    @session_required(strict=True)
    def strict() -> Any:
        return described(current_session)

    @app.get("/lenient")
    @session_required(strict=False)
    def lenient() -> Any:
        return described(current_session)

    @app.post("/unguarded")
    @session_required(check_anti_csrf=False)
    def unguarded() -> Any:
        return described(current_session)

    @app.post("/merge")
    @session_required()
    def merge() -> Any:
        current_session.merge_payload(json.loads(flask.request.args["patch"]))
        return described(current_session)

    @app.post("/revoke")
    @session_required()
    def revoke() -> Any:
        return {"was_there": current_session.revoke()}

    @app.route("/data", methods=["GET", "POST"])
    @session_required()
    def data() -> Any:
        if "put" in flask.request.args:
            current_session.set_data(flask.request.args["put"])
        return {"data": current_session.get_data()}

    @app.get("/sessions")
    @session_required()
    def sessions() -> Any:
        return {"sessions": [shown(info) for info in current_session.list_sessions()]}

    @app.post("/revoke-others")
    @session_required()
    def revoke_others() -> Any:
        return {"ended": current_session.revoke_others()}

    @app.post("/revoke-one")
    @session_required()
    def revoke_one() -> Any:
        return {"was_there": current_session.revoke_one(flask.request.args["handle"])}

    @app.get("/device")
    def device() -> Any:
        return fv.device()

    @app.post("/own-refresh")
    def own_refresh() -> Any:
        return described(fv.refresh())

    @app.post("/own-signout")
    def own_signout() -> Any:
        fv.sign_out()
        return {"ok": True}


def served(app: wsgi.WSGIApp) -> ASGIApp:
    """A WSGI application as a server with a thread for each request has it, for a client that speaks ASGI."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        status, headers, content = await asyncio.to_thread(_call, app, environ_of(scope, body))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return serve


def environ_of(scope: Scope, body: bytes) -> dict[str, Any]:
    """PEP 3333."""
    host, port = scope["server"]
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(scope["path"], "latin-1"),
        "QUERY_STRING": scope["query_string"].decode(),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        environ["HTTP_" + name.decode().upper().replace("-", "_")] = value.decode("latin-1")
    return environ


def _call(app: wsgi.WSGIApp, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        started[:] = [status, headers]

    chunks = app(environ, start_response)
    try:
        content = b"".join(chunks)
    finally:
        getattr(chunks, "close", lambda: None)()
    status, headers = started
    raw = [(name.lower().encode("latin-1"), value.strip().encode("latin-1")) for name, value in headers]
    return int(status.split()[0]), raw, content


def wsgi_answer(status: int, content: Any) -> wsgi.WSGIApp:
    """What a hook returns where there is no framework."""
    return wsgi.reply_app(json_reply(status, content))


def flask_answer(status: int, content: Any) -> tuple[Any, int]:
    """What a hook returns in Flask."""
    return content, status


BLOCKING_ANSWERS: dict[str, Callable[[int, Any], Any]] = {"wsgi": wsgi_answer, "flask": flask_answer}
#: They take Sessions and are served by a thread for each request.
BLOCKING_SITES: dict[str, Build] = {"wsgi": wsgi_site, "flask": flask_site}
