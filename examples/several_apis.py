"""Several APIs take one session. Each of them runs this; they may be different programs as well.

uvicorn several_apis:app --port 8000        # http://api.example.test:8000, where clients refresh
uvicorn several_apis:app --port 8001        # http://orders.example.test:8001
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession

config = fastverify.Config(
    api_domain="http://api.example.test:8000",  # the same in all of them: it names the issuer
    website_domain="http://www.example.test:8000",
    cookie_domain=".example.test",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-several-apis", config
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
async def me(request: Request, session: Annotated[RequestSession, Depends(fv.session())]):
    return {"host": request.url.hostname, "user": session.user_id}
