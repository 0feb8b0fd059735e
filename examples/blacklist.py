"""Refuse access tokens before they expire: always, and with the store asked as well for a call, a route, everything.

uvicorn blacklist:app --port 8000           # asks the store where a route says so
uvicorn blacklist:always --port 8001        # asks the store on every route
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession

config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-blacklist", config
)  # or redis://localhost:6379/0


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


fv = FastVerify(sessions)
app = FastAPI(lifespan=lifespan)
fv.install(app)


@app.post("/login")
async def login(request: Request):
    # Check the password here. Then:
    await fv.sign_in(request, "user-1", payload={"limit": 100})
    return {"ok": True}


@app.get("/limit")
async def limit(session: Annotated[RequestSession, Depends(fv.session())]):
    return {"limit": session.payload["limit"]}  # revocations count here, too; no I/O


@app.get("/strict")
async def per_route(session: Annotated[RequestSession, Depends(fv.session(strict=True))]):
    return {"limit": session.payload["limit"]}


@app.post("/pay")
async def per_call(request: Request, amount: int):
    session = await fv.session_of(request, strict=amount > 50)
    return {"allowed": amount <= session.payload["limit"]}


@app.post("/block")
async def block(session: Annotated[RequestSession, Depends(fv.session())]):
    await sessions.blacklist(session.access_token, wait="propagated")  # this token; its session lives
    return {"ok": True}


@app.post("/users/{user_id}/limit")
async def set_limit(user_id: str, limit: int):
    # For your own staff only. Then:
    for handle in await sessions.handles(user_id):
        await sessions.merge_payload(handle, {"limit": limit})
    return {"ok": True}


fv_always = FastVerify(sessions, strict=True)
always = FastAPI(lifespan=lifespan)
fv_always.install(always)


@always.get("/limit")
async def limit_as_stored(session: Annotated[RequestSession, Depends(fv_always.session())]):
    return {"limit": session.payload["limit"]}


@always.get("/fast")
async def but_not_here(session: Annotated[RequestSession, Depends(fv_always.session(strict=False))]):
    return {"limit": session.payload["limit"]}
