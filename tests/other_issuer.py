"""Another issuer of sessions, as SuperTokens is: its access tokens of every version, and its refresh tokens."""

from __future__ import annotations

import time
import uuid
from typing import Any

from signing import SigningKey, header, make_key, sign

KEY = make_key("RS256", "d-1700000000000")


class OtherIssuer:
    """Signs access tokens, and says once whose a refresh token is."""

    def __init__(self, issuer: str, key: SigningKey = KEY) -> None:
        self.issuer = issuer
        self.key = key
        #: User by refresh token; who has been asked for is gone.
        self.users: dict[str, str] = {}
        self.asked: list[str] = []

    def access_token(self, version: str = "5", **changes: Any) -> str:
        """An access token; a claim that is changed to ``...`` is left out."""
        now = int(time.time())
        handle = str(uuid.uuid4())
        payload: dict[str, Any] = {
            **{"sub": "user-1", "iat": now, "exp": now + 3600, "sessionHandle": handle, "iss": self.issuer},
            **{"refreshTokenHash1": "ab" * 32, "parentRefreshTokenHash1": None, "antiCsrfToken": None, "plan": "pro"},
        }
        if version >= "4":
            payload["tId"] = "public"
        if version >= "5":
            payload["rsub"] = "login-1"
        payload = {name: value for name, value in (payload | changes).items() if value is not ...}
        return sign(header(self.key, version=version), payload, self.key)

    def refresh_token(self, user_id: str = "user-1") -> str:
        """A refresh token, with characters that a cookie has in another form."""
        token = f"{uuid.uuid4().hex}+/==.{uuid.uuid4().hex}.V2"
        self.users[token] = user_id
        return token

    def whose(self, refresh_token: str) -> tuple[str, dict[str, Any]] | None:
        """Ask, and have the session ended: once."""
        self.asked.append(refresh_token)
        user = self.users.pop(refresh_token, None)
        return None if user is None else (user, {"payload": {"plan": "pro"}, "tenant": "public"})
