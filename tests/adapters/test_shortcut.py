"""The short cut for requests that leave nothing to decide says what the rules say, or nothing.

Compared are all combinations of what a request can bring, under all rules: more than a request of a client ever has.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from clients import Open

from fastverify import AsyncSessions, Session, SessionVerifier, StoreUnavailable
from fastverify._core import Sending, Shortcut, Verifier
from fastverify.adapters.asgi import CONTEXT, SESSION, SessionMiddleware, context_of, reply_app
from fastverify.adapters.request import GatewayContext
from fastverify.config import AntiCsrf
from fastverify.errors import SessionError
from fastverify.transport import Rules, Transport, json_reply

OURS, FOREIGN = "https://example.com", "https://evil.example"


@pytest.fixture
async def sessions(open_sessions: Open) -> AsyncSessions:
    return await open_sessions()


def every_rule() -> Iterator[Rules]:
    for method, anti_csrf, origins in itertools.product((None, "cookie", "header"), get_args(AntiCsrf), ((), (OURS,))):
        yield Rules(transfer_method=method, anti_csrf=anti_csrf, origins=origins)


def every_request(tokens: dict[str, str]) -> Iterator[tuple[list[tuple[bytes, bytes]], str]]:
    bearers = [(), *(("Bearer " + token,) for token in tokens.values())]
    bearers += [
        (f"Bearer  {tokens['known']}",),
        (f"Bearer {tokens['known']} ",),
        (f"bearer {tokens['known']}",),
        ("Basic dTpw",),
        ("Bearer ",),
        ("Bearer " + tokens["known"], "Bearer " + tokens["other"]),
    ]
    cookies = [(), *(("theme=dark; sAccessToken=" + token,) for token in tokens.values())]
    cookies += [
        (f"sAccessToken={tokens['known']}; sAccessToken={tokens['other']}",),
        (f"sAccessToken={tokens['known']}; sIdRefreshToken=x",),
        (f"sAccessToken={tokens['known'].replace('.', '%2E')}",),
        (f"sAccessToken=; sAccessToken={tokens['known']};",),
        (f"xsAccessToken={tokens['known']}; sAccessTokens={tokens['known']}",),
        ("a=1", f"sAccessToken={tokens['known']}"),
    ]
    for bearer, cookie, method, rid, origin in itertools.product(
        bearers, cookies, ("GET", "POST", "OPTIONS"), (None, "anti-csrf"), (None, OURS, OURS.upper(), FOREIGN)
    ):
        headers = [(b"host", b"api.example.com"), *((b"authorization", text.encode()) for text in bearer)]
        headers += [(b"cookie", text.encode()) for text in cookie]
        headers += [(b"rid", rid.encode())] if rid else []
        headers += [(b"origin", origin.encode())] if origin else []
        yield headers, method


def by_the_rules(gateway: SessionVerifier, rules: Rules, headers: Any, method: str) -> Any:
    try:
        return GatewayContext(gateway, rules, None, headers, method, {}).identify()
    except (SessionError, StoreUnavailable) as error:
        return type(error)


async def test_it_says_what_the_rules_say_or_nothing(sessions: AsyncSessions, gateway: SessionVerifier) -> None:
    tokens = {name: (await sessions.create(f"user-{name}")).access_token for name in ("known", "other", "ended")}
    tokens |= {"unseen": (await sessions.create("user-unseen")).access_token, "garbage": "a.b.c"}
    for name in ("known", "other", "ended"):
        gateway.verify(tokens[name])
    await sessions.revoke(gateway.verify(tokens["ended"]).handle, wait="propagated")
    found_by = {"header": 0, "cookie": 0}
    for rules in every_rule():
        shortcut = rules.shortcut(gateway._verifier)
        assert shortcut is not None
        for headers, method in every_request(tokens):
            found = shortcut.find(headers, method)
            if found is not None:
                assert found == by_the_rules(gateway, rules, headers, method), (headers, method)
                assert found[0].access_token in (tokens["known"], tokens["other"])
                found_by[found[1]] += 1
    assert min(found_by.values()) > 100


@pytest.mark.parametrize("anti_csrf", get_args(AntiCsrf))
async def test_what_clients_send_takes_it(
    sessions: AsyncSessions, gateway: SessionVerifier, anti_csrf: AntiCsrf
) -> None:
    token = (await sessions.create("user-1")).access_token
    session = gateway.verify(token)
    shortcut = Rules(anti_csrf=anti_csrf, origins=(OURS,)).shortcut(gateway._verifier)
    assert shortcut is not None
    bearer = [(b"authorization", b"Bearer " + token.encode())]
    cookie = [(b"cookie", b"sAccessToken=" + token.encode()), (b"rid", b"anti-csrf"), (b"origin", OURS.encode())]
    assert shortcut.find(bearer, "POST") == shortcut.find(bearer, "GET") == (session, "header")
    assert shortcut.find(cookie, "GET") == (session, "cookie")
    assert (shortcut.find(cookie, "POST") is None) == (anti_csrf == "VIA_TOKEN")
    assert shortcut.find(cookie[:1] + cookie[2:], "POST") == ((session, "cookie") if anti_csrf == "NONE" else None)
    assert shortcut.find(cookie[:2], "POST") is None  # no origin: the rules say what that means


async def test_settings_that_are_functions_of_the_request_leave_it_to_the_rules(sessions: AsyncSessions) -> None:
    token = (await sessions.create("user-1")).access_token
    sessions.verify(token)
    verifier, config = sessions.gateway._verifier, sessions.config
    assert Rules(transfer_method=lambda request, new: None).shortcut(verifier) is None
    transport = Transport(replace(config, website_domain=lambda request: OURS, cookie_same_site="lax"))
    shortcut = transport.shortcut(verifier)
    assert shortcut is not None
    cookie = [(b"cookie", b"sAccessToken=" + token.encode()), (b"rid", b"x"), (b"origin", OURS.encode())]
    assert shortcut.find(cookie, "GET") is not None
    assert shortcut.find(cookie, "POST") is None


@pytest.mark.parametrize(
    "headers",
    [
        ((b"authorization", b"Bearer x"),),
        [[b"authorization", b"Bearer x"]],
        [(b"authorization", "Bearer x")],
        [(b"authorization",)],
        [("authorization", b"Bearer x")],
        [None],
        None,
        {},
    ],
)
def test_what_is_not_raw_pairs_is_left_to_others(headers: Any) -> None:
    shortcut = Shortcut(
        Verifier((), issuer=None),
        bearer=True,
        access_cookie="sAccessToken",
        legacy_cookie="sIdRefreshToken",
        proof=True,
        origins=(),
    )
    assert shortcut.find(headers, "GET") is None


# --- the middleware of a gateway -------------------------------------------------------------------------------------


async def test_an_error_after_the_response_has_begun_is_not_answered(gateway: SessionVerifier) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    sending = Sending(send)
    await sending({"type": "http.response.debug"})
    assert not sending.started
    await sending({"type": "http.response.start", "status": 200, "headers": []})
    assert sending.started and len(sent) == 2


@pytest.mark.parametrize("begins", [False, True])
async def test_errors_of_an_application_behind_a_gateway(
    sessions: AsyncSessions, gateway: SessionVerifier, begins: bool
) -> None:
    token = (await sessions.create("user-1")).access_token
    gateway.verify(token)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert isinstance(scope[SESSION], Session) and CONTEXT not in scope
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise StoreUnavailable("the application's own")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", f"Bearer {token}".encode())]}
    call = SessionMiddleware(app, gateway)(scope, None, send)  # type: ignore[arg-type]
    if begins:
        with pytest.raises(StoreUnavailable):
            await call
        assert len(sent) == 1
    else:
        await call
        assert sent[0]["status"] == 503


async def test_a_gateway_notes_a_session_whose_token_is_cached(
    sessions: AsyncSessions, gateway: SessionVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await sessions.create("user-1")).access_token
    session, noted = gateway.verify(token), list[Session]()
    monkeypatch.setattr(gateway, "note_seen", noted.append)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert CONTEXT not in scope

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", f"Bearer {token}".encode())]}
    await SessionMiddleware(app, gateway)(scope, None, None)  # type: ignore[arg-type]
    assert noted == [session]


@pytest.mark.parametrize("path", ["/", "/anonymous", "/auth/session/refresh"])
async def test_a_request_leaves_nothing_for_the_collector(sessions: AsyncSessions, path: str) -> None:
    """A cycle a request would keep thousands of requests in memory until the collector comes."""
    token = (await sessions.create("user-1")).access_token
    contexts: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        contexts.append(weakref.ref(context_of(scope)))
        await reply_app(json_reply(200, {}))(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    middleware = SessionMiddleware(app, sessions)
    headers = [] if path == "/anonymous" else [(b"authorization", f"Bearer {token}".encode())]
    gc.collect()
    gc.disable()
    try:
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
        await middleware(scope, None, send)  # type: ignore[arg-type]
        del scope
        assert contexts and all(context() is None for context in contexts)
    finally:
        gc.enable()
