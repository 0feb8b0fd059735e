"""Answers of your own in the place of ours; what has to be cleared is cleared whatever they say.

flask --app custom_errors run --port 8000
"""

from flask import Flask, request

import fastverify
from fastverify import PrimitiveClaim
from fastverify.adapters.flask import FastVerify, current_session, session_required

PLAN = PrimitiveClaim("plan", lambda user_id, login_id, tenant, payload: "free")


def unauthorised(request, error):
    return {"error": "signed out", "sign in at": "/login"}, 401


def try_refresh_token(request, error):
    return {"error": "refresh, and try again"}, 401


def token_theft_detected(request, error):
    print(f"tell {error.user_id} that somebody had a copy of their session's tokens")
    return {"error": "this session was copied and is over"}, 401


def claim_validation_failed(request, error):
    # The clients read claimValidationErrors, if it is there.
    return {"error": "not with your plan", "claimValidationErrors": error.failures}, 403


def too_many_refreshes(request, error):
    return {"error": "slower"}, 429, {"retry-after": str(error.retry_after)}


def duplicate_cookies(request, error):
    return {"error": "two sessions came at once, both are cleared"}, 401


def store_unavailable(request, error):
    return {"error": "we are having trouble"}, 503, {"retry-after": str(error.retry_after)}


config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
    exchange_seconds=0,  # so that a copied refresh token is found at once, below; leave it alone in production
)
sessions = fastverify.Sessions.connect(
    "embedded:///tmp/fastverify-custom-errors", config
)  # or redis://localhost:6379/0
app = Flask(__name__)
FastVerify(
    sessions,
    app,
    on_unauthorised=unauthorised,
    on_try_refresh_token=try_refresh_token,
    on_token_theft_detected=token_theft_detected,
    on_claim_validation_failed=claim_validation_failed,
    on_too_many_refreshes=too_many_refreshes,
    on_duplicate_cookies=duplicate_cookies,
    on_store_unavailable=store_unavailable,
)


@app.post("/login")
def login():
    # Check the password here. Then:
    app.extensions["fastverify"].sign_in(request.args.get("user", "user-1"))
    if "banned" in request.args:
        raise fastverify.Unauthorised("after all")  # takes back the tokens that this response had already
    return {"ok": True}


@app.get("/me")
@session_required()
def me():
    return {"user": current_session.user_id}


@app.get("/reports")
@session_required(validators=[PLAN.has_value("pro")])
def reports():
    return {"reports": []}
