"""``/v1/verify``: the question that a gateway asks about every request. Plain ASGI, for it is the hot route.

What it holds to, because gateways differ in what they pass on:

- 200 allows; 401, or 403 for a claim, refuses; 503 says nothing about the session. Nothing else is portable.
- Every method is accepted, and ``/v1/verify/{anything}``: Envoy sends the original method and appends the original
  path, the others send GET and name the method in a header. The rules against CSRF go by the original method.
- The identity headers are in every reply, empty where nobody is signed in, so that a gateway which copies them also
  overwrites what a client made up. Their values are percent-encoded where they are not printable ASCII.
- No cookie is set and no token refreshed: most gateways would lose them.
"""

from __future__ import annotations

from urllib.parse import quote

from ..adapters.asgi import ASGIApp, Receive, Scope, Send, reply_app
from ..adapters.request import GatewayContext
from ..errors import FastVerifyError
from ..manager import AsyncSessions
from ..transport import Header, Reply, Rules, json_reply

PATH = "/v1/verify"

#: In the order of preference. A page can only send these where CORS lets it, so a forged one proves as much as ``rid``.
_METHOD_HEADERS = (b"x-forwarded-method", b"x-original-method")
_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if code != ord("%"))


class VerifyEndpoint:
    """Answers ``/v1/verify`` and everything below it; passes other requests on.

    Args:
        app: everything else.
        sessions: verify, without I/O.
        rules: how sessions arrive.
    """

    def __init__(self, app: ASGIApp, sessions: AsyncSessions, rules: Rules) -> None:
        self._app = app
        self._sessions = sessions
        self._rules = rules
        shortcut = rules.shortcut(sessions.gateway._verifier)
        self._find = shortcut.find if shortcut is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_verify_path(scope["path"]):
            await reply_app(self.answer(scope))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def answer(self, scope: Scope) -> Reply:
        """The verdict on the request that the gateway holds."""
        try:
            method = original_method(scope)
            context = GatewayContext(self._sessions, self._rules, self._find, scope["headers"], method, {})
            session, _ = context.identify()
            self._sessions.note_seen(session)
        except FastVerifyError as error:
            reply = self._rules.reply(error)
            return reply._replace(headers=[*reply.headers, *identity("", "", "")])
        return json_reply(200, {}, *identity(session.user_id, session.handle, session.tenant))


def is_verify_path(path: str) -> bool:
    """Whether a path is the endpoint's."""
    return path == PATH or path.startswith(PATH + "/")


def original_method(scope: Scope) -> str:
    """The method of the request that the gateway holds."""
    headers = dict(reversed(scope["headers"]))  # the first of several counts
    for name in _METHOD_HEADERS:
        if value := headers.get(name):
            return str(value.decode("latin-1").strip().upper())
    return str(scope["method"])


def identity(user_id: str, handle: str, tenant: str) -> list[Header]:
    """The headers that tell the upstream who is signed in."""
    values = {b"x-user-id": user_id, b"x-session-handle": handle, b"x-tenant-id": tenant}
    return [(name, quote(value, safe=_PRINTABLE).encode()) for name, value in values.items()]
