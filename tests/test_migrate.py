"""The pages of docs/migrate: programs that take over what other libraries have handed out, and tables that are true."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from other_issuer import KEY, OtherIssuer

import fastverify
from fastverify import errors
from fastverify.adapters.fastapi import FastVerify, RequestSession, cors_headers
from fastverify.adapters.http import Hooks
from fastverify.claims_by_handle import SessionClaims

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "migrate"
ISSUER = "http://localhost:8000/auth"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"embedded://{tmp_path}/store"


def programs(name: str, store: str) -> list[str]:
    text = (PAGES / f"{name}.md").read_text("utf-8").replace("redis://localhost:6379/0", store)
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(name: str, program: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": name}
    exec(compile(program, f"{name}.md", "exec"), names)
    return names


def handle_of(front_token: str) -> Any:
    return json.loads(base64.b64decode(front_token))["up"]["sessionHandle"]


# --- SuperTokens ---


class Core:
    """A stand-in for SuperTokens' core: the three calls that the page makes, and the JWK set."""

    def __init__(self) -> None:
        self.issuer = OtherIssuer(ISSUER)
        self.sessions: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.is_away = False

    def begin(self, user_id: str) -> tuple[str, str]:
        """An access token and a refresh token."""
        access, refresh = self.issuer.access_token(sub=user_id), self.issuer.refresh_token()
        handle = jwt.decode(access, options={"verify_signature": False})["sessionHandle"]
        self.sessions[refresh] = {
            "handle": handle,
            "userId": user_id,
            "recipeUserId": "login-7",
            "userDataInJWT": {"plan": "pro", "iss": ISSUER},
            "tenantId": "public",
        }
        return access, refresh

    def answer(self, method: str, path: str, sent: dict[str, Any]) -> Any:
        self.calls.append(f"{method} {path.partition('?')[0]}")
        match self.calls[-1]:
            case "GET /.well-known/jwks.json":
                return {"keys": [KEY.jwk]}
            case "POST /recipe/session/refresh":
                session = self.sessions.get(sent["refreshToken"])
                return {"status": "OK", "session": session} if session else {"status": "UNAUTHORISED", "message": "no"}
            case "GET /recipe/session":
                return {"status": "OK", "userDataInDatabase": {"cart": [1]}}
            case "POST /recipe/session/remove":
                ended = sent["sessionHandles"]
                self.sessions = {key: one for key, one in self.sessions.items() if one["handle"] not in ended}
                return {"status": "OK", "sessionHandlesRevoked": ended}
        return None


@pytest.fixture
def core() -> Iterator[tuple[Core, str]]:
    core = Core()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
            content = None if core.is_away else core.answer(self.command, self.path, sent)
            body = json.dumps(content).encode()
            self.send_response(500 if content is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield core, f"http://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_sessions_of_supertokens_go_on(store: str, core: tuple[Core, str]) -> None:
    its, url = core
    (program,) = programs("supertokens-python", store)
    names = run("supertokens-python", program.replace("http://localhost:3567", url))
    access, refresh = its.begin("user-7")
    transport = httpx.ASGITransport(names["app"])
    async with names["sessions"], names["core"], httpx.AsyncClient(transport=transport, base_url=ISSUER[:-5]) as client:

        async def ask(token: str, path: str = "/me", method: str = "GET") -> httpx.Response:
            return await client.request(method, path, headers={"authorization": f"Bearer {token}", "rid": "session"})

        assert (await ask(access)).json() == {"user": "user-7", "foreign": True}
        its.is_away = True
        assert (await ask(refresh, "/auth/session/refresh", "POST")).status_code == 503
        its.is_away = False
        refreshed = await ask(refresh, "/auth/session/refresh", "POST")
        assert refreshed.status_code == 200
        assert (await ask(refreshed.headers["st-access-token"])).json() == {"user": "user-7", "foreign": False}
        info = await names["sessions"].info(handle_of(refreshed.headers["front-token"]))
        assert (info.login_id, info.payload, info.data) == ("login-7", {"plan": "pro"}, {"cart": [1]})
        again = await ask(refresh, "/auth/session/refresh", "POST")
        assert handle_of(again.headers["front-token"]) == info.handle
        assert its.calls.count("POST /recipe/session/remove") == 1 and its.sessions == {}
        unknown = await ask("nobodys.token.V2", "/auth/session/refresh", "POST")
        assert (unknown.status_code, unknown.headers["front-token"]) == (401, "remove")
    names["config"].also_accept[0].keys.close()


#: wire.md section 5: what the Python SDK of SuperTokens gives its users.
THEIRS = """
cookie_domain older_cookie_domain cookie_secure cookie_same_site session_expired_status_code anti_csrf
get_token_transfer_method error_handlers override invalid_claim_status_code use_dynamic_access_token_signing_key
expose_access_token_to_frontend_in_cookie_based_auth jwks_refresh_interval_sec
app_name api_domain website_domain origin api_gateway_path api_base_path website_base_path framework mode
create_new_session create_new_session_without_request_response get_session get_session_without_request_response
refresh_session refresh_session_without_request_response revoke_session revoke_multiple_sessions
revoke_all_sessions_for_user get_all_session_handles_for_user get_session_information update_session_data_in_database
merge_into_access_token_payload fetch_and_set_claim set_claim_value remove_claim get_claim_value
validate_claims_for_session_handle create_jwt get_jwks get_open_id_discovery_configuration
session_handle user_id recipe_user_id session_data_in_database expiry custom_claims_in_access_token_payload
time_created tenant_id
get_session_data_from_database() update_session_data_in_database() get_user_id() get_recipe_user_id() get_tenant_id()
get_access_token_payload() get_handle() get_access_token() get_all_session_tokens_dangerously() get_time_created()
get_expiry() merge_into_access_token_payload() assert_claims() fetch_and_set_claim() set_claim_value()
get_claim_value() remove_claim() attach_to_request_response() revoke_session()
verify_session anti_csrf_check session_required check_database override_global_claim_validators
SuperTokensSessionError UnauthorisedError TryRefreshTokenError TokenTheftError InvalidClaimsError
ClearDuplicateSessionCookiesError
get_global_claim_validators regenerate_access_token refresh_post signout_post disable_refresh_post disable_signout_post
""".split()


def rows() -> list[tuple[str, str]]:
    """The tables' rows: what it is there, and here."""
    page = (PAGES / "supertokens-python.md").read_text("utf-8")
    return re.findall(r"^\| (`.*?) \| (.*) \|$", page[page.index("## Every name") :], re.MULTILINE)


def test_every_name_of_supertokens_is_in_the_table() -> None:
    there = {name for left, _ in rows() for name in re.findall(r"`([\w.()]+)`", left)}
    assert sorted(set(THEIRS) - there) == []


def fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


OURS: dict[str, set[str]] = {
    "Config": fields(fastverify.Config),
    "SessionInfo": fields(fastverify.SessionInfo),
    "Issued": fields(fastverify.Issued),
    "fv": set(dir(FastVerify)),
    "sessions": set(dir(fastverify.AsyncSessions)),
    "session": set(dir(RequestSession)),
    "session_claims": set(dir(SessionClaims)),
    "fastverify": set(fastverify.__all__),
}


def test_every_name_of_ours_in_the_table_exists() -> None:
    right = " ".join(here for _, here in rows())
    named = re.findall(r"`(\w+)\.(\w+)`", right)
    assert len(named) > 80
    assert [f"{owner}.{name}" for owner, name in named if name not in OURS.get(owner, set())] == []
    hooks = set(re.findall(r"`fv\((\w+)\)`", right))
    assert hooks and hooks <= Hooks.__optional_keys__
    assert "content-type" in cors_headers()


# --- Flask-JWT-Extended, Simple JWT, PyJWT ---


def old_token(secret: str, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + 600, "jti": str(now), "sub": "user-7"} | changes
    return jwt.encode(claims, secret, "HS256")


def ask(program: str, questions: str, tokens: dict[str, str]) -> list[Any]:
    """Run a page's blocking application in a process of its own, ask it, and return what is printed."""
    text = f"{program}\nimport httpx, json\nTOKENS = {tokens!r}\n{questions}"
    ran = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


FLASK = """
with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost:8000") as client:
    for name in ("access", "forged"):
        print(client.post("/auth/session/refresh", headers={"authorization": f"Bearer {TOKENS[name]}"}).status_code)
    by_header = {"authorization": f"Bearer {TOKENS['refresh']}", "st-auth-mode": "header"}
    moved = client.post("/auth/session/refresh", headers=by_header)
    again = client.post("/auth/session/refresh", headers=by_header)
    print(json.dumps([moved.status_code, moved.headers["st-refresh-token"] == again.headers["st-refresh-token"]]))
    print(client.get("/me", headers={"authorization": f"Bearer {moved.headers['st-access-token']}"}).text.strip())
with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost:8000") as browser:
    browser.cookies.set("refresh_token_cookie", TOKENS["cookie"], domain="localhost.local", path="/")
    moved = browser.post("/auth/session/refresh", headers={"rid": "session"})
    print(json.dumps([moved.status_code, sorted((c.name, c.path) for c in browser.cookies.jar)]))
    print(browser.get("/me").text.strip())
    print(browser.post("/auth/session/refresh", headers={"rid": "session"}).status_code)
"""


def test_users_of_flask_jwt_extended_stay_signed_in(store: str) -> None:
    (program,) = programs("flask-jwt-extended", store)
    secret = "the JWT_SECRET_KEY that signed the old tokens"
    tokens = {
        "access": old_token(secret, type="access", fresh=False),
        "refresh": old_token(secret, type="refresh", csrf="x"),
        "cookie": old_token(secret, type="refresh", jti="another"),
        "forged": old_token("another secret of 32 bytes or more", type="refresh"),
    }
    cookies = [["refresh_token_cookie", "/auth/session/refresh"], ["sAccessToken", "/"]]
    user = {"user": "user-7"}
    assert ask(program, FLASK, tokens) == [401, 401, [200, True], user, [200, cookies], user, 200]


DRF = """
with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost:8000") as client:
    for name in ("access", "forged", "refresh", "refresh"):
        moved = client.post("/move-in", json={"refresh": TOKENS[name]}, headers={"st-auth-mode": "header"})
        print(moved.status_code)
        if moved.status_code == 200:
            token = moved.headers["st-access-token"]
    print(client.post("/move-in", json={}).status_code)
    print(client.get("/me", headers={"authorization": f"Bearer {token}"}).text)
"""


def test_users_of_simple_jwt_stay_signed_in(store: str) -> None:
    (program,) = programs("simplejwt", store)
    secret = "the SECRET_KEY, or SIMPLE_JWT['SIGNING_KEY'], that signed the old tokens"
    (program,) = programs("simplejwt", store)
    now = int(time.time())
    common = {"exp": now + 600, "iat": now, "jti": "1", "user_id": 7}
    tokens = {
        "access": jwt.encode({**common, "token_type": "access"}, secret, "HS256"),
        "refresh": jwt.encode({**common, "token_type": "refresh"}, secret, "HS256"),
        "forged": jwt.encode({**common, "token_type": "refresh"}, secret + "x", "HS256"),
    }
    assert ask(program, DRF, tokens) == [403, 403, 200, 403, 403, {"user": "7"}]


async def test_users_of_a_login_by_pyjwt_stay_signed_in(store: str) -> None:
    program, *_ = programs("pyjwt", store)
    names = run("pyjwt", program)
    secret = "the secret that signed the old tokens"
    async with names["sessions"]:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:

            async def ask_me(token: str) -> httpx.Response:
                return await client.get("/me", headers={"authorization": f"Bearer {token}"})

            moved = await ask_me(old_token(secret))
            assert (moved.status_code, moved.json()) == (200, {"user": "user-7"})
            new = await ask_me(moved.headers["st-access-token"])
            assert new.json() == {"user": "user-7"} and "st-access-token" not in new.headers
            for bad in (old_token(secret, exp=1), old_token(secret + "x"), "", "x.y.z"):
                refused = await ask_me(bad)
                assert refused.status_code == 401 and "front-token" not in refused.headers


def test_the_exceptions_of_pyjwt_and_ours_exist() -> None:
    page = (PAGES / "pyjwt.md").read_text("utf-8")
    table = re.findall(r"^\| (`\w+Error`.*?) \| `(\w+)`", page, re.MULTILINE)
    assert len(table) == 9
    for theirs, ours in table:
        assert issubclass(getattr(errors, ours), fastverify.FastVerifyError)
        for name in re.findall(r"`(\w+)`", theirs):
            assert issubclass(getattr(jwt, name), jwt.PyJWTError)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`Config\.(\w+)`", page.read_text("utf-8"))
    assert set(named) <= fields(fastverify.Config)
    assert f"({page.name})" in (PAGES / "index.md").read_text("utf-8") or page.stem == "index"
