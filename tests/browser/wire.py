"""What crosses a server's wire: each exchange written down as its reply begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from typing import Any

from fastverify.transport import as_text, headers_of_environ


@dataclass(frozen=True)
class Exchange:
    """One request and its reply, as the server saw them."""

    method: str
    path: str
    request: dict[str, str]
    status: int
    reply: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """A header of the reply; a header that was sent twice fails the test."""
        values = [value for key, value in self.reply if key == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def exposed(self) -> set[str]:
        """What a script of another origin may read of the reply."""
        return {name.strip().lower() for name in (self.header("access-control-expose-headers") or "").split(",")} - {""}

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies of the request."""
        return {name: morsel.value for name, morsel in SimpleCookie(self.request.get("cookie", "")).items()}

    @property
    def set_cookies(self) -> dict[str, Morsel[str]]:
        """Cookies of the reply, with their attributes."""
        jar: dict[str, Morsel[str]] = {}
        for name, value in self.reply:
            if name == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    assert key not in jar, f"cookie {key} was set twice in one reply"
                    jar[key] = morsel
        return jar

    @property
    def token_headers(self) -> set[str]:
        """Which of the client's token headers the reply has."""
        return {"front-token", "st-access-token", "st-refresh-token", "anti-csrf"} & {name for name, _ in self.reply}


class Wire:
    """ASGI middleware outside everything else: writes down each exchange when its reply begins."""

    def __init__(self, app: Any, log: list[Exchange]) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def tee(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
                reply = [(name.decode().lower(), value.decode("latin-1")) for name, value in message["headers"]]
                self.log.append(Exchange(scope["method"], scope["path"], headers, message["status"], reply))
            await send(message)

        await self.app(scope, receive, tee)


class WsgiWire:
    """The same for WSGI."""

    def __init__(self, app: Callable[..., Any], log: list[Exchange]) -> None:
        self.app = app
        self.log = log

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def tee(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            request = dict(as_text(headers_of_environ(environ)))
            reply = [(name.lower(), value) for name, value in headers]
            path = environ["PATH_INFO"]
            self.log.append(Exchange(environ["REQUEST_METHOD"], path, request, int(status.split()[0]), reply))
            return start_response(status, headers, *exc_info)

        return self.app(environ, tee)
