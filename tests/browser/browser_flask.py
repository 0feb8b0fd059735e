"""The application in Flask."""

from __future__ import annotations

from typing import Any

from browser_parts import GOLD, OWN, PAGE, ROLES, SLOW, TIER, VERIFIED, VIP, Parts, account_page, account_page_after
from flask import Flask, Response, jsonify
from flask_cors import CORS

from fastverify import Sessions, TryRefreshToken, Unauthorised
from fastverify.adapters.flask import FastVerify, cors_headers, current_session, session_required


def flask_application(sessions: Sessions, parts: Parts, websites: list[str], cors: str | None) -> Flask:
    """The application, and Flask-CORS for websites set up before or after our own."""
    app = Flask(__name__)
    fv = FastVerify(sessions)
    if cors == "before":
        _allow(app, websites)
    fv.init_app(app)
    if cors == "after":
        _allow(app, websites)
    _add_pages(app, fv, parts)
    _add_routes(app, fv, parts)
    return app


def _allow(app: Flask, websites: list[str]) -> None:
    CORS(app, origins=websites, supports_credentials=True, allow_headers=cors_headers())


def _add_pages(app: Flask, fv: FastVerify, parts: Parts) -> None:
    @app.get("/")
    def page() -> Response:
        return Response(PAGE, mimetype="text/html")

    @app.get("/client.js")
    def client() -> Response:
        return Response(parts.scripts.website, mimetype="text/javascript")

    @app.get("/web-js.js")
    def web_js() -> Response:
        return Response(parts.scripts.web_js, mimetype="text/javascript")

    @app.get("/account")
    def account() -> str:
        try:
            session = fv.session()
        except (TryRefreshToken, Unauthorised) as error:
            return account_page_after(error)
        return account_page(session.user_id if session else None)

    @app.get("/public")
    def public() -> Any:
        return {"hello": "anyone"}


def _add_routes(app: Flask, fv: FastVerify, parts: Parts) -> None:
    @app.post("/signin/<user>")
    def sign_in(user: str) -> Any:
        fv.sign_in(user, payload={"plan": "pro"})
        return {"welcome": user}

    @app.post("/signin-for-now/<user>")
    def sign_in_for_now(user: str) -> Any:
        fv.sign_in(user, payload={"plan": "pro"}, remember=False)
        return {"welcome": user}

    @app.post("/guest/<item>")
    def begin_as_guest(item: str) -> Any:
        return jsonify(fv.sign_in_guest({"cart": [item]}).user_id)

    @app.get("/cart")
    @session_required()
    def cart() -> Any:
        session = current_session
        return {"user": session.user_id, "guest": session.is_guest, "cart": session.payload["cart"]}

    @app.post("/act-as/<user>")
    def act_as(user: str) -> Any:
        session = fv.impersonate(user, reason="a test")
        return {"user": session.user_id, "actor": session.actor}

    @app.post("/return")
    def return_to_own() -> Any:
        session = fv.stop_impersonating()
        return {"user": session.user_id, "actor": session.actor}

    @app.get("/actor")
    @session_required()
    def actor() -> Any:
        return {"user": current_session.user_id, "actor": current_session.actor}

    @app.post("/email")
    @session_required(validators=OWN)
    def change_email() -> Any:
        return jsonify(current_session.user_id)

    @app.get("/me")
    @session_required()
    def me() -> Any:
        session = current_session
        return {"user": session.user_id, "handle": session.handle, "plan": session.payload["plan"]}

    @app.post("/plan/<plan>")
    @session_required()
    def change_plan(plan: str) -> Any:
        current_session.merge_payload({"plan": plan})
        return {"plan": current_session.payload["plan"]}

    @app.get("/gold")
    @session_required(validators=GOLD)
    def gold() -> Any:
        return jsonify(current_session.user_id)

    @app.post("/promotion")
    @session_required()
    def promote() -> Any:
        current_session.set_claim(TIER, "gold")
        return jsonify(current_session.user_id)

    @app.get("/vip")
    @session_required(validators=VIP)
    def vip() -> Any:
        return jsonify(current_session.user_id)

    @app.post("/admission")
    @session_required()
    def admit() -> Any:
        current_session.set_claim(VERIFIED, True)
        current_session.set_claim(ROLES, ["member"])
        return jsonify(current_session.user_id)

    @app.post("/notes")
    @session_required()
    def write() -> Any:
        parts.notes.append(current_session.user_id)
        return {"notes": len(parts.notes)}

    @app.post("/slow/<when>")
    @session_required()
    def slow(when: str) -> Any:
        before, after = SLOW[when]
        if before:
            current_session.merge_payload(before)
        parts.gate.wait()
        if after:
            current_session.merge_payload(after)
        return jsonify(current_session.user_id)

    @app.post("/move/<method>")
    @session_required()
    def move(method: Any) -> Any:
        current_session.move_to(method)
        return jsonify(current_session.user_id)
