"""Impersonation: support acts as a user, for a time and with a reason, and returns to its own session.

uvicorn impersonation:app --port 8000
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify import PrimitiveClaim, not_impersonated
from fastverify.adapters.fastapi import FastVerify, RequestSession

roles = {"sam": "support"}  # In the place of your database.
ROLE = PrimitiveClaim("role", lambda user_id, login_id, tenant, payload: roles.get(user_id, "user"))

config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-impersonation", config
)  # or redis://localhost:6379/0
fv = FastVerify(sessions)

AnySession = Annotated[RequestSession, Depends(fv.session())]
OwnSession = Annotated[RequestSession, Depends(fv.session(validators=[not_impersonated()]))]
Support = Annotated[RequestSession, Depends(fv.session(validators=[ROLE.has_value("support"), not_impersonated()]))]


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
fv.install(app)


@app.post("/login/{user}")
async def login(request: Request, user: str):
    # Check the password here. Then:
    await fv.sign_in(request, user, claims=[ROLE])
    return {"ok": True}


@app.post("/act-as/{user}")
async def act_as(request: Request, session: Support, user: str, ticket: str):
    await fv.impersonate(request, user, lifetime=900, reason=f"ticket {ticket}", claims=[ROLE])
    return {"ok": True}


@app.post("/return")
async def return_to_own(request: Request):
    session = await fv.stop_impersonating(request)
    return {"user": session.user_id}


@app.get("/me")
async def me(session: AnySession):
    return {"user": session.user_id, "actor": session.actor}  # show a banner where there is an actor


@app.post("/email")
async def change_email(session: OwnSession):
    return {"ok": True}  # support may look around, and may not do this


@app.get("/my-sessions")
async def my_sessions(session: AnySession):
    return {"seen": [{"by": info.actor or "yourself"} for info in await sessions.list_sessions(session.user_id)]}
