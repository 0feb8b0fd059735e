"""The WSGI middleware, session claims and strict looks: what it does beside what every adapter does."""

from __future__ import annotations

from typing import Any

from blocking_sites import served
from clients import Client, Open
from conftest import Opened

from fastverify import PrimitiveClaim
from fastverify.adapters.wsgi import SessionMiddleware, reply_app, require_session
from fastverify.transport import json_reply


def whoami(environ: dict[str, Any], start_response: Any) -> Any:
    """An application that demands a session everywhere but at /open."""
    session = environ["fastverify.session"] if environ["PATH_INFO"] == "/open" else require_session(environ)
    return reply_app(json_reply(200, {"user": session and session.user_id}))(environ, start_response)


async def test_an_eager_middleware_asks_the_applications_validators_before_it_shows_a_session(
    open_sessions: Open, opened: Opened
) -> None:
    sessions = await open_sessions()
    claim = PrimitiveClaim("plan", lambda *whose: "pro" if whose[0] == "user-1" else None)
    app = served(SessionMiddleware(whoami, opened.blocking(sessions), validators=[claim.has_value("pro")]))
    async with Client(app) as client:
        token = (await sessions.create("user-1")).access_token
        fetched = await client.call("/", "GET", token=token)
        assert (fetched.status_code, fetched.json()) == (200, {"user": "user-1"})
        assert claim.value_in(sessions.verify(fetched.headers["st-access-token"]).payload) == "pro"
        token = (await sessions.create("user-2")).access_token
        assert (await client.call("/", "GET", token=token)).status_code == 403
        assert (await client.call("/open", "GET", token=token)).json() == {"user": None}
        assert (await client.call("/open", "GET", token="")).json() == {"user": None}


async def test_an_eager_middleware_that_is_strict_asks_the_store_before_it_shows_a_session(
    open_sessions: Open, opened: Opened
) -> None:
    sessions = await open_sessions()
    issued = await sessions.create("user-1")
    await sessions.merge_payload(issued.session.handle, {"plan": "pro"})
    async with Client(served(SessionMiddleware(whoami, opened.blocking(sessions), strict=True))) as client:
        shown = await client.call("/open", "GET", token=issued.access_token)
        assert sessions.verify(shown.headers["st-access-token"]).payload == {"plan": "pro"}
