"""Session data: what the client sees of a session and what stays on the server, in a route, in a WebSocket, by handle.

The API:                   uvicorn session_data:app --port 8000
A client of the WebSocket: python session_data.py watch ACCESS_TOKEN
A worker, by handle:       python session_data.py upgrade HANDLE
"""

import sys
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, WebSocket
from websockets.sync.client import connect

import fastverify
from fastverify.adapters.fastapi import FastVerify, RequestSession

STORE = "embedded:///tmp/fastverify-session-data"  # or redis://localhost:6379/0
config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
)


def make_app():
    sessions = fastverify.AsyncSessions.connect(STORE, config)
    fv = FastVerify(sessions)
    MySession = Annotated[RequestSession, Depends(fv.session())]

    @asynccontextmanager
    async def lifespan(app):
        async with sessions:
            yield

    app = FastAPI(lifespan=lifespan)
    fv.install(app)

    @app.post("/login")
    async def login(request: Request):
        # Check the password here. Then: the payload is for everybody to read, the data for you alone.
        session = await fv.sign_in(request, "user-1", payload={"plan": "free"}, data={"cart": []})
        return {"handle": session.handle}

    @app.get("/plan")
    async def plan(session: MySession):
        return {"plan": session.payload["plan"]}  # no I/O: it is in the access token

    @app.post("/upgrade")
    async def upgrade(session: MySession):
        await session.merge_payload({"plan": "pro"})  # the response carries a new access token that says so
        return {"plan": session.payload["plan"]}

    @app.get("/cart")
    async def cart(session: MySession):
        return await session.get_data()  # one call of the store

    @app.post("/cart/{item}")
    async def add(item: str, session: MySession):
        data = await session.get_data()
        await session.set_data({"cart": [*data["cart"], item]})
        return {"ok": True}

    @app.websocket("/watch")
    async def watch(websocket: WebSocket, session: MySession):
        await websocket.accept()
        await websocket.send_json({"user": session.user_id, "plan": session.payload["plan"]})
        async for _ in websocket.iter_text():
            # The handshake was a while ago. A strict look shows what the session is by now, or that it has ended.
            session = await fv.session_of(websocket, strict=True)
            await websocket.send_json({"plan": session.payload["plan"], **await session.get_data()})

    return app


def watch(access_token):
    """In the place of an app: it keeps the socket open while other things happen to the session."""
    with connect("ws://localhost:8000/watch", additional_headers={"authorization": f"Bearer {access_token}"}) as socket:
        print(socket.recv())
        for _ in sys.stdin:
            socket.send("and now?")
            print(socket.recv(), flush=True)


def upgrade(handle):
    """No request, no user: a worker, a webhook of the payment service."""
    with fastverify.Sessions.connect(STORE, config) as sessions:
        sessions.merge_payload(handle, {"plan": "pro"})
        info = sessions.info(handle)
        print(info.user_id, info.payload, info.data)


if __name__ == "__main__":
    _, command, argument = sys.argv
    (watch if command == "watch" else upgrade)(argument)
else:
    app = make_app()
