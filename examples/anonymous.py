"""Anonymous sessions: a cart before anybody has signed in, which is still there afterwards.

uvicorn anonymous:app --port 8000
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify import not_guest
from fastverify.adapters.fastapi import FastVerify, RequestSession

config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-anonymous", config
)  # or redis://localhost:6379/0
fv = FastVerify(sessions, validators=[not_guest()])  # routes are for users, unless they say otherwise

UserSession = Annotated[RequestSession, Depends(fv.session())]
AnySession = Annotated[RequestSession | None, Depends(fv.session(required=False, validators=[]))]


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
fv.install(app)


@app.get("/cart")
async def cart(session: AnySession):
    return {"cart": session.payload.get("cart", []) if session else []}


@app.post("/cart/{item}")
async def put_into_cart(request: Request, session: AnySession, item: str):
    if session is None:  # the first thing that a visitor does, and that is to be remembered
        session = await fv.sign_in_guest(request)
    await session.merge_payload({"cart": [*session.payload.get("cart", []), item]})
    return {"cart": session.payload["cart"], "guest": session.is_guest}


@app.post("/login")
async def login(request: Request):
    # Check the password here. Then:
    await fv.sign_in(request, "ada", payload={"plan": "pro"})  # the guest's session becomes hers
    return {"ok": True}


@app.get("/orders")
async def orders(session: UserSession):
    return {"user": session.user_id, "plan": session.payload["plan"]}
