"""What one response will carry of sessions (transport.py says when, and why)."""

from __future__ import annotations

from collections.abc import Iterable

from .config import TransferMethod
from .errors import DuplicateCookies, FastVerifyError, TokenTheftDetected, Unauthorised
from .session import Issued
from .transport import ACCESS_COOKIE_LIFETIME, LEGACY_COOKIE, Header, Incoming, Transport


class Outgoing:
    """What one request's response will carry. Belongs to that request alone."""

    __slots__ = ("_cookies", "_headers", "_incoming", "_transport", "_website", "handle")

    def __init__(self, transport: Transport, incoming: Incoming) -> None:
        self._transport = transport
        self._incoming = incoming
        self._website = transport.website(incoming)
        # Several cookies have one header name, so they are kept apart: (name, place) -> Set-Cookie value.
        self._cookies: dict[tuple[str, int], bytes] = {}
        self._headers: dict[bytes, bytes] = {}
        #: The session whose tokens this carries; None: it carries none.
        self.handle: str | None = None

    @property
    def _names(self) -> tuple[str, str]:
        return self._transport.access_cookie_name, self._transport.refresh_cookie_name

    def __bool__(self) -> bool:
        return bool(self._headers or self._cookies)

    def created(self, issued: Issued, transfer: TransferMethod) -> None:
        """A sign-in. The transport that lost is cleared if it held a session; so are twins of former cookies (3.2).

        Raises:
            ConfigError: the access token is too large for a cookie; nothing has been changed then.
        """
        cookies = self._token_cookies(issued, transfer)
        has_cookie = bool(self._incoming.cookies(self._transport.access_cookie_name))
        if transfer == "header" and has_cookie:
            self.clear("cookie")
        if transfer == "cookie" and self._incoming.bearer:
            self.clear("header")
        if transfer == "cookie" and has_cookie:
            self._expire_twins()
        self._expire_legacy()
        self._issue(issued, transfer, cookies)

    def refreshed(self, issued: Issued, transfer: TransferMethod) -> None:
        """A refresh: new tokens go as the old one came; what else came is cleared (3.3.4 step 5).

        Raises:
            ConfigError: as ``created``.
        """
        cookies = self._token_cookies(issued, transfer)
        if transfer == "header" and self._incoming.cookies(self._transport.refresh_cookie_name):
            self.clear("cookie")
        if self._transport.duplicates(self._incoming):
            self._expire_twins()
        self._expire_legacy()
        self._issue(issued, transfer, cookies)

    def exchanged(self, issued: Issued, transfer: TransferMethod) -> None:
        """A refresh token of another issuer has become a session of ours, whose tokens go as that one came.

        Others keep their refresh cookie at ``/``, from where it would come along with ours for ever.

        Raises:
            ConfigError: as ``created``.
        """
        name = self._transport.refresh_cookie_name
        if transfer == "cookie":
            self._cookies[name, -1] = self._transport.expired_at_root(name, self._website)
        self.refreshed(issued, transfer)

    def reissued(self, issued: Issued, transfer: TransferMethod) -> None:
        """A new access token for the same session, its payload having changed (3.4).

        Raises:
            ConfigError: as ``created``.
        """
        self._issue(issued, transfer, self._token_cookies(issued, transfer))

    def moved(self, issued: Issued, transfer: TransferMethod) -> None:
        """The same session goes on by this method; the other one is cleared.

        Raises:
            ConfigError: as ``created``.
        """
        cookies = self._token_cookies(issued, transfer)
        self.clear("header" if transfer == "cookie" else "cookie")
        self._issue(issued, transfer, cookies)

    def clear(self, transfer: TransferMethod) -> None:
        """The session of this transport is gone (2.7)."""
        self.handle = None
        if transfer == "cookie":
            for name in self._names:
                self._set(name, self._transport.expired_cookie(name, self._website))
        else:
            self._headers[b"st-access-token"] = self._headers[b"st-refresh-token"] = b""
        self._headers.pop(b"anti-csrf", None)
        self._headers[b"front-token"] = b"remove"

    def failed(self, error: FastVerifyError) -> None:
        """Clear what an error clears. Saying it twice does no harm."""
        match error:
            case Unauthorised(clear_tokens=False):
                return
            case DuplicateCookies() if self._transport.refuses_duplicates:
                self._expire_older()
                return
            case DuplicateCookies():
                self._expire_twins()
            case Unauthorised() | TokenTheftDetected():
                pass
            case _:
                return
        # Both, even if nothing was sent: the application may have put tokens on this response already.
        self._expire_legacy()
        self.clear("cookie")
        self.clear("header")

    def drop(self) -> None:
        """Carry nothing, whatever was said."""
        self.handle = None
        self._cookies.clear()
        self._headers.clear()

    def write(self, headers: Iterable[Header]) -> list[Header]:
        """The response's headers with ours put in, which replace any of the same name; ``Set-Cookie`` is added."""
        if not self:
            return list(headers)
        kept: list[Header] = []
        exposed: list[bytes] = []
        for name, value in headers:
            lower = name.lower()
            if lower == b"access-control-expose-headers":
                exposed.append(value)
            # A response that carries tokens must never be served to another visitor (RFC 6749 section 5.1).
            elif lower not in self._headers and lower != b"cache-control":
                kept.append((name, value))
        already = {part.strip().lower() for value in exposed for part in value.split(b",")}
        exposed += [name for name in self._headers if name not in already]
        kept += [(b"set-cookie", cookie) for cookie in self._cookies.values()]
        kept += self._headers.items()
        if exposed:
            kept.append((b"access-control-expose-headers", b", ".join(exposed)))
        kept.append((b"cache-control", b"no-store"))
        return kept

    def _token_cookies(self, issued: Issued, transfer: TransferMethod) -> dict[str, bytes]:
        """Made before anything is changed: a cookie may turn out too large."""
        if transfer == "header":
            return {}
        access, refresh = self._names
        tokens = [(access, issued.access_token, issued.session.issued_at + ACCESS_COOKIE_LIFETIME)]
        if issued.refresh_token_changed:
            # The same bytes once more could move a browser back that has a newer one (rotation.md).
            tokens.append((refresh, issued.refresh_token, issued.refresh_token_expires_at))
        return {
            name: self._transport.set_cookie(name, token, expires_at if issued.remember else None, self._website)
            for name, token, expires_at in tokens
        }

    def _issue(self, issued: Issued, transfer: TransferMethod, cookies: dict[str, bytes]) -> None:
        self.handle = issued.session.handle
        for name, cookie in cookies.items():
            self._set(name, cookie)
        if transfer == "header" or self._transport.expose_access_token:
            self._headers[b"st-access-token"] = _field_value(issued.access_token)
        if transfer == "header" and issued.refresh_token_changed:
            self._headers[b"st-refresh-token"] = _field_value(issued.refresh_token)
        if issued.anti_csrf_token is not None and self._transport.binds_anti_csrf(transfer):
            self._headers[b"anti-csrf"] = _field_value(issued.anti_csrf_token)
        self._headers[b"front-token"] = _field_value(issued.front_token)

    def _expire_twins(self) -> None:
        for name in self._names:
            self._expire_twins_of(name)

    def _expire_twins_of(self, name: str) -> None:
        for place, cookie in enumerate(self._transport.expired_twins(name, self._website), start=1):
            self._cookies[name, place] = cookie

    def _expire_older(self) -> None:
        if self._transport.names_older_domain:
            for name in self._transport.duplicates(self._incoming):
                self._cookies[name, 1] = self._transport.expired_older(name, self._website)

    def _expire_legacy(self) -> None:
        """Wherever it is: while it is sent, every call is answered with "try refresh token"."""
        if self._incoming.cookies(LEGACY_COOKIE):
            self._expire_twins_of(LEGACY_COOKIE)
            self._set(LEGACY_COOKIE, self._transport.expired_cookie(LEGACY_COOKIE, self._website))

    def _set(self, name: str, cookie: bytes) -> None:
        self._cookies.pop((name, 0), None)  # to the end: whoever reads them in order has the valid one last
        self._cookies[name, 0] = cookie


def _field_value(text: str) -> bytes:
    """Tokens are ASCII without blanks by construction; a header with anything else is never written."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a token with characters that no header value may have")
    return text.encode()
