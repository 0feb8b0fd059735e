"""The server decides how tokens travel, and moves a live session from the one to the other.

uvicorn cookie_or_header:app --port 8000
"""

from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession


def by_client(incoming, for_new_session):
    if for_new_session and incoming.get(b"x-app") == "mobile":
        return "header"  # whatever the client asks for
    return None  # a new session: as the client asks by st-auth-mode; one that there is: as it began


config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    token_transfer_method=by_client,
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-cookie-or-header", config
)  # or redis://localhost:6379/0
fv = FastVerify(sessions)


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
fv.install(app)


@app.post("/login")
async def login(request: Request):
    # Check the password here. Then:
    await fv.sign_in(request, "user-1")
    return {"ok": True}


@app.get("/me")
async def me(session: Annotated[RequestSession, Depends(fv.session())]):
    return {"user": session.user_id}


@app.post("/move")
async def move(to: Literal["cookie", "header"], session: Annotated[RequestSession, Depends(fv.session())]):
    # Check the password here, too: "header" shows scripts a refresh token that a cookie hid from them. Then:
    await session.move_to(to)
    return {"moved to": to}
