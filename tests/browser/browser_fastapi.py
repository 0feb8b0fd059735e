"""The application in FastAPI."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations of the local functions below.
import asyncio
from typing import Annotated, Any

from browser_parts import GOLD, OWN, PAGE, ROLES, SLOW, TIER, VERIFIED, VIP, Parts, account_page, account_page_after
from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse

from fastverify import AsyncSessions, TryRefreshToken, Unauthorised
from fastverify.adapters.fastapi import FastVerify, RequestSession
from fastverify.transport import cors_headers


def fastapi_application(sessions: AsyncSessions, parts: Parts, websites: list[str], cors: str | None) -> FastAPI:
    """The application, and CORS middleware for websites installed before or after our own."""
    app = FastAPI()
    fv = FastVerify(sessions)
    if cors == "before":
        _allow(app, websites)
    fv.install(app)
    if cors == "after":
        _allow(app, websites)
    _add_pages(app, fv, parts)
    _add_routes(app, fv, parts)
    return app


def _allow(app: FastAPI, websites: list[str]) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=websites,
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=cors_headers(),
    )


def _add_pages(app: FastAPI, fv: FastVerify, parts: Parts) -> None:
    @app.get("/")
    def page() -> Response:
        return Response(PAGE, media_type="text/html")

    @app.get("/client.js")
    def client() -> Response:
        return Response(parts.scripts.website, media_type="text/javascript")

    @app.get("/web-js.js")
    def web_js() -> Response:
        return Response(parts.scripts.web_js, media_type="text/javascript")

    @app.get("/account")
    async def account(request: Request) -> HTMLResponse:
        try:
            session = await fv.session_of(request)
        except (TryRefreshToken, Unauthorised) as error:
            return HTMLResponse(account_page_after(error))
        return HTMLResponse(account_page(session.user_id if session else None))

    @app.get("/public")
    def public() -> dict[str, str]:
        return {"hello": "anyone"}


def _add_routes(app: FastAPI, fv: FastVerify, parts: Parts) -> None:
    Signed = Annotated[RequestSession, Depends(fv.session())]  # a type

    @app.post("/signin/{user}")
    async def sign_in(request: Request, user: str) -> dict[str, str]:
        await fv.sign_in(request, user, payload={"plan": "pro"})
        return {"welcome": user}

    @app.post("/signin-for-now/{user}")
    async def sign_in_for_now(request: Request, user: str) -> dict[str, str]:
        await fv.sign_in(request, user, payload={"plan": "pro"}, remember=False)
        return {"welcome": user}

    @app.post("/guest/{item}")
    async def begin_as_guest(request: Request, item: str) -> str:
        return (await fv.sign_in_guest(request, payload={"cart": [item]})).user_id

    @app.get("/cart")
    async def cart(session: Signed) -> dict[str, Any]:
        return {"user": session.user_id, "guest": session.is_guest, "cart": session.payload["cart"]}

    @app.post("/act-as/{user}")
    async def act_as(request: Request, user: str) -> dict[str, Any]:
        session = await fv.impersonate(request, user, reason="a test")
        return {"user": session.user_id, "actor": session.actor}

    @app.post("/return")
    async def return_to_own(request: Request) -> dict[str, Any]:
        session = await fv.stop_impersonating(request)
        return {"user": session.user_id, "actor": session.actor}

    @app.get("/actor")
    async def actor(session: Signed) -> dict[str, Any]:
        return {"user": session.user_id, "actor": session.actor}

    @app.post("/email")
    async def change_email(session: Annotated[RequestSession, Depends(fv.session(validators=OWN))]) -> str:
        return session.user_id

    @app.get("/me")
    async def me(session: Signed) -> dict[str, Any]:
        return {"user": session.user_id, "handle": session.handle, "plan": session.payload["plan"]}

    @app.post("/plan/{plan}")
    async def change_plan(session: Signed, plan: str) -> dict[str, Any]:
        await session.merge_payload({"plan": plan})
        return {"plan": session.payload["plan"]}

    @app.get("/gold")
    async def gold(session: Annotated[RequestSession, Depends(fv.session(validators=GOLD))]) -> str:
        return session.user_id

    @app.post("/promotion")
    async def promote(session: Signed) -> str:
        await session.set_claim(TIER, "gold")
        return session.user_id

    @app.get("/vip")
    async def vip(session: Annotated[RequestSession, Depends(fv.session(validators=VIP))]) -> str:
        return session.user_id

    @app.post("/admission")
    async def admit(session: Signed) -> str:
        await session.set_claim(VERIFIED, True)
        await session.set_claim(ROLES, ["member"])
        return session.user_id

    @app.post("/notes")
    async def write(session: Signed) -> dict[str, int]:
        parts.notes.append(session.user_id)
        return {"notes": len(parts.notes)}

    @app.post("/slow/{when}")
    async def slow(session: Signed, when: str) -> str:
        before, after = SLOW[when]
        if before:
            await session.merge_payload(before)
        await asyncio.to_thread(parts.gate.wait)
        if after:
            await session.merge_payload(after)
        return session.user_id

    @app.post("/move/{method}")
    async def move(session: Signed, method: Any) -> str:
        await session.move_to(method)
        return session.user_id
