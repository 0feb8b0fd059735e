"""What verifying costs a whole HTTP request: a raw ASGI application on uvicorn, with and without it.

    python bench/http_requests.py [--rounds 11] [--seconds 0.3] [--json FILE]

One server process for each row, one client process that keeps 32 connections busy with one request each. The token is
a session's access token under RS256, verified before, as nearly all are. Rows:

  bare             the application alone: it answers with the user of the session in the scope, or with a fixed text
  gateway          behind SessionMiddleware with a SessionVerifier: the session is found, verified and put in the scope
  service          behind SessionMiddleware with AsyncSessions, which can also issue tokens
  PyJWT            behind a middleware that takes the token from the header and calls jwt.decode
  SuperTokens SDK  the same with what that SDK does with an access token before its get_session goes on

"header" is a GET with a bearer token; "cookie" a POST whose session is in a cookie, with its proof against CSRF checked
(VIA_CUSTOM_HEADER), beside a bare row that gets the same request.

Proven first, of every row but the bare ones: the good token's user is answered; without a token, with a changed one,
and with a cookie that lacks its proof the answer is 401.

(Not http.py: a program's own folder comes first on its path, and the standard library has a module of that name.)
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness
import stores
from fastverify import AsyncSessions, SessionVerifier
from fastverify.adapters.asgi import CONTEXT, SESSION, SessionMiddleware
from fastverify.transport import Rules

USER = "6c1f6b2e-7d0a-4a6e-9b1c-2f0e8d3a5b7c"
CONNECTIONS = 32
SETTINGS: dict[str, Any] = {"signing_algorithm": "RS256", "access_token_lifetime": 86_400, "shards": 1}
#: Row -> what serves it, what carries the token, the row without verification.
ROWS = {
    "bare, header": ("bare", "header", ""),
    "gateway, header": ("gateway", "header", "bare, header"),
    "service, header": ("service", "header", "bare, header"),
    "PyJWT, header": ("pyjwt", "header", "bare, header"),
    "SuperTokens SDK, header": ("supertokens", "header", "bare, header"),
    "bare, cookie": ("bare", "cookie", ""),
    "gateway, cookie": ("gateway", "cookie", "bare, cookie"),
    "service, cookie": ("service", "cookie", "bare, cookie"),
}
PACKAGES = {"pyjwt": "jwt", "supertokens": "supertokens_python"}
Send = Callable[[dict[str, Any]], Awaitable[None]]


def main() -> int:
    parser = harness.parser(__doc__, rounds=11)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn; default: 0.3")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        stores.server(Path(folder)) as store,
        stores.patient_sessions(store.url, stores.settings(**SETTINGS)) as sessions,
        ExitStack() as stack,
    ):
        token, jwks = sessions.create(USER, payload={"role": "editor", "plan": "team"}).access_token, sessions.jwks()
        clients = {}
        for row, (kind, carrier, _) in ROWS.items():
            if kind in PACKAGES and importlib.util.find_spec(PACKAGES[kind]) is None:
                harness.progress("")
                print(f"{row}: not installed", file=sys.stderr)
                continue
            harness.progress(f"starting {row}")
            port, pid = stack.enter_context(served(kind, store.url, jwks))
            clients[row] = stack.enter_context(Client(port, pid, carrier, token))
            if kind != "bare":
                clients[row].prove(row)
        timings = {row: harness.Timing() for row in clients}
        shares: dict[str, harness.Timing] = {row: harness.Timing() for row in clients if ROWS[row][2]}
        for number in range(arguments.rounds):
            for row, client in clients.items():
                harness.progress(f"round {number + 1} of {arguments.rounds}: {row}")
                cpu, wall = client.take(arguments.seconds)
                timings[row].cpu.append(cpu)
                timings[row].wall.append(wall)
            for row, share in shares.items():
                bare, its = timings[ROWS[row][2]], timings[row]
                share.cpu.append(100 * bare.cpu[-1] / its.cpu[-1])
                share.wall.append(100 * bare.wall[-1] / its.wall[-1])
    harness.progress("")
    results = {"rows": harness.to_json(timings), "shares": harness.to_json(shares)}
    environment = harness.environment("uvicorn", "uvloop", "httptools", "PyJWT", "supertokens-python")
    harness.publish(arguments.json, "http_requests", environment, results, layout(timings, shares))
    return 0


def layout(timings: dict[str, harness.Timing], shares: dict[str, harness.Timing]) -> str:
    body = []
    for row, timing in timings.items():
        wall = harness.summary(timing.wall)[0]
        share = harness.summary(shares[row].wall)[0] if row in shares else None
        of_cpu = f"{harness.summary(shares[row].cpu)[0]:.0f} %" if row in shares else ""
        rate = f"{share:.0f} %" if share is not None else ""
        body.append([row, f"{harness.median(timing):.1f}", f"{1e6 / wall:,.0f}", rate, of_cpu])
    head = ["", "CPU us", "requests/s", "of bare", "by CPU"]
    return harness.layout(head, body, widths=(28, 10, 12, 10, 10))


# --- the server ---


@contextmanager
def served(kind: str, store_url: str, jwks: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """A server process on loopback: its port and its id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, kind, store_url, jwks), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(60):
        raise SystemExit(f"requests: {kind} does not start")
    try:
        yield ours.recv(), process.pid or 0
    finally:
        process.terminate()
        process.join(10)


def serve(pipe: Connection, kind: str, store_url: str, jwks: dict[str, Any]) -> None:
    import uvicorn

    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        pipe.send(listener.getsockname()[1])
        config = uvicorn.Config(
            application(kind, store_url, jwks),
            **{"access_log": False, "log_level": "error", "lifespan": "off"},
            **{"date_header": False, "server_header": False, "timeout_keep_alive": 600},
        )
        uvicorn.Server(config).run([listener])


def application(kind: str, store_url: str, jwks: dict[str, Any]) -> Any:
    config = stores.settings(**SETTINGS)
    match kind:
        case "bare":
            return answering
        case "gateway":
            gateway = SessionVerifier.connect(store_url, issuer=config.issuer)
            return SessionMiddleware(answering, gateway, rules=Rules(anti_csrf="VIA_CUSTOM_HEADER"))
        case "service":
            sessions = AsyncSessions.connect(store_url, stores.settings(**SETTINGS, anti_csrf="VIA_CUSTOM_HEADER"))
            while not sessions.ready:
                time.sleep(0.01)
            return SessionMiddleware(answering, sessions)
        case "pyjwt":
            return Peer(by_pyjwt(jwks, config.issuer))
        case _:
            return Peer(by_supertokens(jwks))


class Somebody:
    user_id = USER


async def answering(scope: Any, receive: Any, send: Send) -> None:
    """The same with a middleware and without one, which puts no session and no None into the scope."""
    session = scope.get(SESSION, Somebody)
    if session is None:
        raise scope[CONTEXT].error
    await answer(send, 200, session.user_id)


async def answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Peer:
    """Takes the bearer token, has it checked, and puts the user into the scope: the least that a middleware does."""

    def __init__(self, check: Callable[[str], str]) -> None:
        self._check = check

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"authorization" and value.startswith(b"Bearer "):
                break
        else:
            await answer(send, 401, "no token")
            return
        try:
            scope["user"] = self._check(value[7:].decode())
        except Exception:
            await answer(send, 401, "not good")
            return
        await answer(send, 200, scope["user"])


def by_pyjwt(jwks: dict[str, Any], issuer: str) -> Callable[[str], str]:
    import jwt

    key = jwt.PyJWK.from_dict(jwks["keys"][0]).key
    return lambda token: str(jwt.decode(token, key, algorithms=["RS256"], issuer=issuer)["sub"])


def by_supertokens(jwks: dict[str, Any]) -> Callable[[str], str]:
    from jwt import PyJWK
    from supertokens_python.recipe.session import jwks as their_jwks
    from supertokens_python.recipe.session.access_token import get_info_from_access_token
    from supertokens_python.recipe.session.jwt import parse_jwt_without_signature_verification

    keys = [PyJWK.from_dict(jwk) for jwk in jwks["keys"]]
    their_jwks.cached_keys = their_jwks.CachedKeys(keys, refresh_interval_sec=1_000_000)
    config: Any = None  # not looked at while the keys are in their cache
    return lambda token: str(
        get_info_from_access_token(config, parse_jwt_without_signature_verification(token), False)["userData"]["sub"]
    )


# --- the client ---


class Client:
    """Connections to one server, each busy with one request at a time."""

    def __init__(self, port: int, pid: int, carrier: str, token: str) -> None:
        self._pid = pid
        self._port = port
        self._carrier = carrier
        self._token = token
        self._request = self.request(token)
        self._sockets: list[socket.socket] = []
        self._size = 0

    def __enter__(self) -> Client:
        self._sockets = [socket.create_connection(("127.0.0.1", self._port), 30) for _ in range(CONNECTIONS)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._size = len(self.ask(self._request))
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    def request(self, token: str, *, proof: bool = True) -> bytes:
        """As a browser, or a page's script, sends it."""
        lines = [f"{'GET' if self._carrier == 'header' else 'POST'} /me HTTP/1.1", "host: api.test"]
        lines += [
            "accept: application/json",
            "accept-encoding: gzip, br",
            "user-agent: bench",
            "origin: http://api.test",
        ]
        if proof:
            lines.append("rid: anti-csrf")
        if self._carrier == "header":
            lines += [f"authorization: Bearer {token}"] if token else []
        else:
            lines += ["content-length: 0", f"cookie: theme=dark; sAccessToken={token}; lang=en"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def ask(self, request: bytes) -> bytes:
        """One whole answer."""
        one = self._sockets[0]
        one.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += one.recv(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += one.recv(65_536)
        return head + b"\r\n\r\n" + body

    def prove(self, row: str) -> None:
        """End the program unless the server tells good tokens from bad ones."""
        good = self.ask(self._request)
        if b" 200 " not in good.split(b"\r\n")[0] or not good.endswith(USER.encode()):
            raise SystemExit(f"{row}: does not accept a good token")
        header, payload, signature = self._token.split(".")
        bad = [
            self.request(""),
            self.request(f"{header}.{payload}.{harness.change(signature)}"),
            self.request(f"{header}.{harness.change(payload)}.{signature}"),
        ]
        if self._carrier == "cookie":
            bad.append(self.request(self._token, proof=False))
        if any(b" 401 " not in self.ask(request).split(b"\r\n")[0] for request in bad):
            raise SystemExit(f"{row}: accepts what it must refuse")

    def take(self, seconds: float) -> tuple[float, float]:
        """Keep the server busy for so long: microseconds a request, of its CPU and on the wall."""
        request, size, sockets, asked = self._request, self._size, self._sockets, 0
        self._batch(sockets, request, size)
        cpu, start = cpu_seconds(self._pid), time.perf_counter()
        while time.perf_counter() - start < seconds:
            self._batch(sockets, request, size)
            asked += len(sockets)
        wall, cpu = time.perf_counter() - start, cpu_seconds(self._pid) - cpu
        return cpu * 1e6 / asked, wall * 1e6 / asked

    @staticmethod
    def _batch(sockets: list[socket.socket], request: bytes, size: int) -> None:
        for one in sockets:
            one.send(request)
        for one in sockets:
            left = size
            while left:
                data = one.recv(65_536)
                left -= len(data)
                if left < 0 or not data:
                    raise SystemExit(f"http: another answer than before: {data[:60]!r}")


def cpu_seconds(pid: int) -> float:
    """What a process has taken so far, of all its threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


if __name__ == "__main__":
    sys.exit(main())
