"""Session claims: facts about the user that routes demand, and a password that is asked for again.

Run it beside a Redis: uvicorn claims:app
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify import BooleanClaim, PrimitiveClaim, authenticated_within
from fastverify.adapters.fastapi import FastVerify, RequestSession

plans = {"user-1": "free"}  # In the place of your database.
verified = set()


async def plan_of(user_id, login_id, tenant, payload):
    return plans.get(user_id)


async def is_verified(user_id, login_id, tenant, payload):
    return user_id in verified


PLAN = PrimitiveClaim("plan", plan_of, default_max_age=300)  # looked up again after five minutes
EMAIL_VERIFIED = BooleanClaim("st-ev", is_verified)  # looked up once


def for_pro(general, session):
    return [*general, PLAN.has_value("pro")]


config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect("redis://localhost:6379/0", config)
fv = FastVerify(sessions, validators=[EMAIL_VERIFIED.is_true()])  # on every route that does not say otherwise

AnySession = Annotated[RequestSession, Depends(fv.session(validators=[]))]
VerifiedSession = Annotated[RequestSession, Depends(fv.session())]
ProSession = Annotated[RequestSession, Depends(fv.session(validators=for_pro))]
FreshSession = Annotated[RequestSession, Depends(fv.session(validators=[authenticated_within(300)]))]


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
fv.install(app)


@app.post("/login")
async def login(request: Request):
    # Check the password here. Then:
    await fv.sign_in(request, "user-1", claims=[PLAN, EMAIL_VERIFIED], authenticated=True)
    return {"ok": True}


@app.post("/email/verify")
async def verify_email(session: AnySession):
    # Check the code from the mail here. Then:
    verified.add(session.user_id)
    await session.fetch_and_set_claim(EMAIL_VERIFIED)
    return {"ok": True}


@app.get("/me")
async def me(session: VerifiedSession):
    return {"user": session.user_id, "plan": session.get_claim(PLAN)}


@app.post("/upgrade")
async def upgrade(session: VerifiedSession):
    plans[session.user_id] = "pro"
    await session.fetch_and_set_claim(PLAN)
    return {"ok": True}


@app.get("/reports")
async def reports(session: ProSession):
    return {"reports": []}


@app.post("/password")
async def password(session: AnySession):
    # Check the password here. Then:
    await session.reauthenticated()
    return {"ok": True}


@app.delete("/account")
async def delete_account(session: FreshSession):
    await sessions.revoke_user(session.user_id)
    return {"ok": True}
