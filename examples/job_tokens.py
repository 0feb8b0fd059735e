"""A session service that also signs tokens for other services.

uvicorn job_tokens:app --port 8000
"""

from contextlib import asynccontextmanager

from fastapi import FastAPI

import fastverify
from fastverify.adapters.fastapi import FastVerify

config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)
sessions = fastverify.AsyncSessions.connect(
    "embedded:///tmp/fastverify-other-services", config
)  # or redis://localhost:6379/0


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


app = FastAPI(lifespan=lifespan)
FastVerify(sessions).install(app)  # it serves GET /auth/jwt/jwks.json


@app.post("/job-token")
async def job_token():
    # For your own jobs only. Then:
    return {"token": await sessions.create_jwt({"sub": "nightly", "scope": ["reports"]}, lifetime=3600)}
