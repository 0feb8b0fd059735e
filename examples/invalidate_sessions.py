"""Every way to end a session: signing out, one device, all others, all of a user, and by handle from another program.

The API:        uvicorn invalidate_sessions:app --port 8000
An operator:    python invalidate_sessions.py HANDLE...
"""

import sys
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession

STORE = "embedded:///tmp/fastverify-invalidate-sessions"  # or redis://localhost:6379/0
config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)


def make_app():
    sessions = fastverify.AsyncSessions.connect(STORE, config)
    fv = FastVerify(sessions)  # it also serves POST /auth/signout, which the client's signOut() calls
    MySession = Annotated[RequestSession, Depends(fv.session())]

    @asynccontextmanager
    async def lifespan(app):
        async with sessions:
            yield

    app = FastAPI(lifespan=lifespan)
    fv.install(app)

    @app.post("/login")
    async def login(request: Request, device: str):
        # Check the password here. Then:
        await fv.sign_in(request, "user-1", device={"name": device})
        return {"ok": True}

    @app.get("/me")
    async def me(session: MySession):
        return {"user": session.user_id}

    @app.get("/devices")
    async def devices(session: MySession):
        found = [(one.device["name"], one.handle, one.current) for one in await session.list_sessions()]
        return [{"name": name, "handle": handle, "current": current} for name, handle, current in sorted(found)]

    @app.delete("/devices/{handle}")
    async def end_one(handle: str, session: MySession):
        # A handle is no proof of who asks: this one passes over sessions of other users.
        return {"ended": await session.revoke_one(handle)}

    @app.post("/sign-out-everywhere-else")
    async def end_others(session: MySession):
        return {"ended": len(await session.revoke_others())}

    @app.post("/sign-out-everywhere")
    async def end_all(session: MySession):
        ended = await sessions.revoke_user(session.user_id)
        await session.revoke()  # which also clears the tokens of the client that asks
        return {"ended": len(ended)}

    return app


def end_by_handle(handles):
    """No request, no user: an operator's script, a worker, a webhook."""
    with fastverify.Sessions.connect(STORE, config) as sessions:
        ended = sessions.revoke_many(handles, wait="propagated")  # returns when every verifier refuses them
        print(f"ended {len(ended)} of {len(handles)}")


if __name__ == "__main__":
    end_by_handle(sys.argv[1:])
else:
    app = make_app()
