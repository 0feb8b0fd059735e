"""One session for all hosts below example.test: sign in at one, be known at the others.

uvicorn subdomains:app --port 8000
"""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession, cors_headers

PAGES = ["http://www.example.test:8000", "http://shop.example.test:8000"]
config = fastverify.Config(
    api_domain="http://api.example.test:8000",
    website_domain="http://www.example.test:8000",
    cookie_domain=".example.test",  # browsers send the cookies to every host below it
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-subdomains", config
)  # or redis://localhost:6379/0
fv = FastVerify(sessions)

AnySession = Annotated[RequestSession | None, Depends(fv.session(required=False))]
MySession = Annotated[RequestSession, Depends(fv.session())]


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
fv.install(app)
app.add_middleware(  # pages of these origins may call the API from their scripts
    CORSMiddleware,
    allow_origins=PAGES,
    allow_credentials=True,
    allow_methods=["GET", "POST"],
    allow_headers=cors_headers(),
)


@app.post("/login")
async def login(request: Request):
    # Check the password here. Then:
    await fv.sign_in(request, "user-1")
    return {"ok": True}


@app.get("/")
async def page(request: Request, session: AnySession):
    return {"host": request.url.hostname, "user": session.user_id if session else None}


@app.post("/order")
async def order(session: MySession):
    return {"ordered by": session.user_id}
