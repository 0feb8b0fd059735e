"""The HTTP rules of a session, and nothing else: a request's headers in; decisions and header pairs out.

Pure: no I/O, no clock, no framework. An adapter reads an ``Incoming`` off a request, asks the rules, calls the
sessions, and writes an ``Outgoing`` onto the response; every ``if`` about the protocol is here. Section numbers are
those of the description of the wire protocol.

Theory of operation
-------------------
*Reading.* Tokens arrive in a header (``Authorization: Bearer``) or in cookies. A header goes before a cookie. A bearer
token that is not a session's is somebody else's business and counts as absent (2.5), so ``access_tokens`` offers the
candidates one after the other and the caller goes on to the next when ``verify`` says "not a session's token".

*Writing.* A response may be told several things in turn: a sign-in clears the other transport and then sets tokens; an
error after that clears everything. So ``Outgoing`` holds one value for each header and cookie, the last one said, and
nothing is written before the response starts. The client reads one ``front-token`` header: a second one would break it
(8.8).

*Clearing* (2.7)::

    sign-out, revoke in a request            the transport of that session
    Unauthorised, TokenTheftDetected,
    DuplicateCookies                         both transports, whatever was sent
    Unauthorised without a usable token      nothing: a sign-in may be under way beside this request
    TryRefreshToken, TooManyRefreshes,
    ClaimValidationFailed, StoreUnavailable  nothing

*Twins* (2.6). After a change of ``cookie_domain`` a browser holds two cookies of one name and sends both. A server
cannot see which is which, but it can list where the other one must live: the API's own host, or a domain above it.
Expiring the name at all of those, except where we set it ourselves, gets rid of it with no setting to remember.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from ._core import INCOMING_HEADERS, Incoming
from .config import AntiCsrf, Config, SameSite, TransferMethod
from .errors import (
    ClaimValidationFailed,
    ConfigError,
    DuplicateCookies,
    FastVerifyError,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from .session import Issued, Session
from .sites import domains_above, is_local, one_site
from .tokens import same_text

Header = tuple[bytes, bytes]

ACCESS_COOKIE: Final = "sAccessToken"
REFRESH_COOKIE: Final = "sRefreshToken"
#: Clients from before 2023 have it; while it is there, only a refresh helps (1.5).
LEGACY_COOKIE: Final = "sIdRefreshToken"

#: What the client sends beside ``content-type``; a CORS preflight has to allow all of it (2.1).
CORS_HEADERS: Final = ("rid", "fdi-version", "anti-csrf", "authorization", "st-auth-mode")

#: The access cookie outlives its token on purpose: that it is there tells the server that a refresh may help (2.3).
#: Browsers keep a cookie for at most 400 days.
_ACCESS_COOKIE_LIFETIME = 31_536_000
_LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"
#: RFC 6265bis section 5.6: browsers ignore a cookie with more, without a word.
_MAX_COOKIE_BYTES = 4096
_MAX_ATTRIBUTE_BYTES = 1024

_ENVIRON = [(name, "HTTP_" + name.decode().upper().replace("-", "_")) for name in sorted(INCOMING_HEADERS)]
_OPAQUE = re.compile(r"[A-Za-z0-9_-]+")
_DOMAIN = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def cors_headers() -> list[str]:
    """Request headers that a CORS preflight must allow: ``content-type`` and all that the clients send (2.1)."""
    return ["content-type", *CORS_HEADERS]


def headers_of_environ(environ: Mapping[str, Any]) -> list[Header]:
    """Those headers of a WSGI environ (PEP 3333) that sessions look at, as raw pairs."""
    return [(name, environ[key].encode("latin-1")) for name, key in _ENVIRON if key in environ]


class Presented(NamedTuple):
    """A token, and what carried it."""

    token: str
    transfer: TransferMethod


class Reply(NamedTuple):
    """A whole response."""

    status: int
    headers: list[Header]
    body: bytes


def json_reply(status: int, content: Any, *headers: Header) -> Reply:
    """A JSON response as section 4 has them."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    fixed = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return Reply(status, [*fixed, *headers], body)


def public_reply(content: Any, max_age: int) -> Reply:
    """The JWKS or the discovery document: for anybody, from anywhere, for ``max_age`` seconds (1.2)."""
    return json_reply(
        200,
        content,
        (b"access-control-allow-origin", b"*"),
        (b"cache-control", b"max-age=%d, must-revalidate" % max(1, max_age)),
    )


class Rules:
    """How a session arrives: all that a gateway which only verifies has to know.

    Args:
        transfer_method: the only one that counts; None: either.
        anti_csrf: what a cookie has to be accompanied by. The default suits every client that is unmodified: it sends
            ``rid`` with each call, and no form or foreign page can.
        origins: where a WebSocket that is carried by a cookie may come from, beside clients that name no origin.
        session_expired_status_code, invalid_claim_status_code: as the client is configured.
    """

    def __init__(
        self,
        *,
        transfer_method: TransferMethod | None = None,
        anti_csrf: AntiCsrf = "VIA_CUSTOM_HEADER",
        origins: Iterable[str] = (),
        session_expired_status_code: int = 401,
        invalid_claim_status_code: int = 403,
    ) -> None:
        self.transfer_method = transfer_method
        self.anti_csrf: AntiCsrf = anti_csrf
        self.origins = frozenset(origins)
        self.session_expired_status_code = session_expired_status_code
        self.invalid_claim_status_code = invalid_claim_status_code

    def access_tokens(self, incoming: Incoming, http_method: str) -> Iterator[Presented]:
        """The access tokens to try, best first; go on to the next only if this one is not a session's (3.3.1).

        Raises:
            TryRefreshToken: on the way, where a legacy cookie, or several access cookies, leave nothing to trust.
        """
        if http_method in ("OPTIONS", "TRACE"):  # a preflight has no session, and TRACE echoes what it is sent
            return
        if incoming.cookies(LEGACY_COOKIE):
            raise TryRefreshToken("the request has a legacy session cookie")
        if incoming.bearer and self.transfer_method != "cookie":
            yield Presented(incoming.bearer, "header")
        cookies = incoming.cookies(ACCESS_COOKIE)
        if cookies and self.transfer_method != "header":
            if len(cookies) > 1:
                raise TryRefreshToken("the request has several access token cookies")
            yield Presented(cookies[0], "cookie")

    def check_anti_csrf(
        self, incoming: Incoming, session: Session, transfer: TransferMethod, http_method: str, asked: bool | None
    ) -> None:
        """Demand the proof against CSRF that a request with a cookie owes (3.3.1 steps 5 and 10).

        Args:
            session: as verified.
            asked: the route's own wish; None: for every method but GET.

        Raises:
            TryRefreshToken: the proof is missing or wrong.
        """
        if transfer == "header" or not (http_method != "GET" if asked is None else asked):
            return
        match self.anti_csrf:
            case "VIA_CUSTOM_HEADER":
                if incoming.get(b"rid") is None:
                    raise TryRefreshToken("the header rid is missing")
            case "VIA_TOKEN":
                if not same_text(incoming.get(b"anti-csrf"), session.claims.get("antiCsrfToken")):
                    raise TryRefreshToken("the anti-CSRF token is missing or not this session's")

    def admit_socket(self, incoming: Incoming, transfer: TransferMethod) -> None:
        """A page anywhere can open a WebSocket with the visitor's cookies, and no header can prove that it may.

        Raises:
            Unauthorised: a cookie from an origin that is not ours.
        """
        origin = incoming.get(b"origin")
        if transfer == "cookie" and origin is not None and origin.lower() not in self.origins:
            raise Unauthorised("a WebSocket from a foreign origin", clear_tokens=False)

    def reply(self, error: FastVerifyError) -> Reply:
        """The response that tells the client of an error (section 4)."""
        expired = self.session_expired_status_code
        match error:
            case TryRefreshToken():
                return json_reply(expired, {"message": "try refresh token"})
            case TokenTheftDetected():
                return json_reply(expired, {"message": "token theft detected"})
            case ClaimValidationFailed():
                failures = [{k: v for k, v in failure.items() if v is not None} for failure in error.failures]
                content = {"message": "invalid claim", "claimValidationErrors": failures}
                return json_reply(self.invalid_claim_status_code, content)
            case TooManyRefreshes():
                return json_reply(429, {"message": "too many refreshes"}, _retry_after(error.retry_after))
            case StoreUnavailable():
                return json_reply(503, {"message": "service unavailable"}, _retry_after(error.retry_after))
            case _:
                return json_reply(expired, {"message": "unauthorised"})


def _retry_after(seconds: int) -> Header:
    return b"retry-after", b"%d" % max(1, seconds)


class Transport(Rules):
    """How sessions arrive and leave, worked out once from the configuration.

    Raises:
        ConfigError: a combination of cookie settings that no browser accepts, or SameSite cannot be worked out.
    """

    def __init__(self, config: Config) -> None:
        api, website = urlsplit(config.api_domain), urlsplit(config.website_domain)
        api_host, website_host = api.hostname or "", website.hostname or ""
        self._both_local = is_local(api_host) and is_local(website_host)
        #: Whether API and website are one site, schemes included; None: not to be told without a public-suffix list.
        self.one_site = False if api.scheme != website.scheme else one_site(api_host, website_host)
        self.secure = api.scheme == "https" if config.cookie_secure is None else config.cookie_secure
        self.same_site = _same_site(config, self.one_site)
        self.expose_access_token = config.expose_access_token_to_frontend_in_cookie_based_auth
        #: Paths of the routes, as the application sees them: name -> (method, path).
        self.routes = {
            "refresh": ("POST", f"{config.api_base_path}/session/refresh"),
            "signout": ("POST", f"{config.api_base_path}/signout"),
            "jwks": ("GET", f"{config.api_base_path}/jwt/jwks.json"),
            "discovery": ("GET", f"{config.api_base_path}/.well-known/openid-configuration"),
        }
        self._domain = _cookie_domain(config.cookie_domain, api_host)
        # A gateway strips a part of the path before the application sees it; the browser still sends it.
        refresh_path = config.api_gateway_path + self.routes["refresh"][1]
        self._paths = {ACCESS_COOKIE: "/", REFRESH_COOKIE: refresh_path, LEGACY_COOKIE: "/"}
        #: Where a cookie of ours can live beside the place where we set it; None: the API's own host.
        self._twin_domains = [d for d in domains_above(api_host) if d != (self._domain or "").lstrip(".")]
        if self._domain is not None:
            self._twin_domains.insert(0, None)
        super().__init__(
            transfer_method=config.token_transfer_method,
            anti_csrf=config.anti_csrf or ("VIA_CUSTOM_HEADER" if self.same_site == "none" else "NONE"),
            origins=(config.api_domain, config.website_domain),
            session_expired_status_code=config.session_expired_status_code,
            invalid_claim_status_code=config.invalid_claim_status_code,
        )
        if len(self._attributes(REFRESH_COOKIE, self._domain, _LONG_AGO)) > _MAX_ATTRIBUTE_BYTES:
            raise ConfigError("api_base_path", f"makes cookie attributes of more than {_MAX_ATTRIBUTE_BYTES} bytes")
        if self.transfer_method == "cookie":
            self._check_cookies()

    def creation_method(self, incoming: Incoming) -> TransferMethod:
        """How the tokens of a new session travel: as forced, else as asked by ``st-auth-mode``, else in headers (2.5).

        Raises:
            ConfigError: by cookie, and browsers would not keep the cookies (2.4).
        """
        asked = (incoming.get(b"st-auth-mode") or "").lower()
        method = self.transfer_method or ("cookie" if asked == "cookie" else "header")
        if method == "cookie":
            self._check_cookies()
        return method

    def binds_anti_csrf(self, transfer: TransferMethod) -> bool:
        """Whether a new session gets an anti-CSRF token (3.2 step 4)."""
        return transfer == "cookie" and self.anti_csrf == "VIA_TOKEN"

    def refresh_tokens(self, incoming: Incoming) -> list[Presented]:
        """The refresh token of a refresh request (3.3.4), or several distinct ones whose twins have not been cleared.

        Which of several is the session's newest only the sessions can tell: their names are inside, under a MAC.

        Raises:
            Unauthorised: none came, or not from the website.
        """
        # Ours are base64url, so another service's JWT, or two headers joined into one, is not mistaken for one.
        if self.transfer_method != "cookie" and _OPAQUE.fullmatch(incoming.bearer):
            return [Presented(incoming.bearer, "header")]
        self.refuse_cross_site(incoming)
        cookies = [] if self.transfer_method == "header" else incoming.cookies(REFRESH_COOKIE)
        if not cookies:
            raise Unauthorised("no refresh token came with the request")
        if self.anti_csrf == "VIA_CUSTOM_HEADER" and incoming.get(b"rid") is None:
            raise Unauthorised("the header rid is missing")
        return [Presented(cookie, "cookie") for cookie in dict.fromkeys(cookies)]

    def refuse_cross_site(self, incoming: Incoming) -> None:
        """Refresh and sign-out change cookies, so a foreign page must not reach them, not even to clear them.

        Never refuses the client: it sets headers of its own, so its calls are never navigations nor ``no-cors``, and
        where API and website are one site they are not cross-site either (W3C Fetch Metadata). Tokens in headers need
        none of this.

        Raises:
            Unauthorised: clearing nothing.
        """
        if incoming.get(b"sec-fetch-site") == "cross-site" and (
            (self.one_site and self.same_site != "none") or incoming.get(b"sec-fetch-mode") in ("navigate", "no-cors")
        ):
            raise Unauthorised("a cross-site request", clear_tokens=False)

    def set_cookie(self, name: str, token: str, expires_at: int) -> bytes:
        """A ``Set-Cookie`` value. ``Expires``, not ``Max-Age``, as the clients' servers have it.

        Raises:
            ConfigError: browsers would drop it for its size.
        """
        value = quote(token, safe="")
        if len(name) + len(value) > _MAX_COOKIE_BYTES:
            raise ConfigError(
                "payload",
                f"makes a cookie {name} of {len(name) + len(value)} bytes; browsers drop those above "
                f"{_MAX_COOKIE_BYTES}. Keep less in the payload (session data has room), or transfer tokens in headers",
            )
        return f"{name}={value}{self._attributes(name, self._domain, formatdate(expires_at, usegmt=True))}".encode()

    def expired_cookie(self, name: str) -> bytes:
        """A ``Set-Cookie`` value that removes a cookie: same name, path and domain (2.3)."""
        return f"{name}={self._attributes(name, self._domain, _LONG_AGO)}".encode()

    def expired_twins(self, name: str) -> list[bytes]:
        """``Set-Cookie`` values that remove cookies of this name wherever else they can be."""
        return [f"{name}={self._attributes(name, domain, _LONG_AGO)}".encode() for domain in self._twin_domains]

    def _attributes(self, name: str, domain: str | None, expires: str) -> str:
        return (
            (f"; Domain={domain}" if domain else "")
            + f"; Path={self._paths[name]}; Expires={expires}; HttpOnly"
            + ("; Secure" if self.secure else "")
            + f"; SameSite={self.same_site.capitalize()}"
        )

    def _check_cookies(self) -> None:
        if self.same_site == "none" and not self.secure and not self._both_local:
            raise ConfigError(
                "cookie_secure",
                "browsers refuse SameSite=None cookies that are not Secure: serve the API over https, give API and "
                "website one site and scheme, or transfer tokens in headers",
            )


class Outgoing:
    """What one request's response will carry. Belongs to that request alone."""

    __slots__ = ("_cookies", "_headers", "_incoming", "_transport")

    def __init__(self, transport: Transport, incoming: Incoming) -> None:
        self._transport = transport
        self._incoming = incoming
        # Several cookies have one header name, so they are kept apart: (name, place) -> Set-Cookie value.
        self._cookies: dict[tuple[str, int], bytes] = {}
        self._headers: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._headers or self._cookies)

    def created(self, issued: Issued, transfer: TransferMethod) -> None:
        """A sign-in. The transport that lost is cleared if it held a session; so are twins of former cookies (3.2).

        Raises:
            ConfigError: the access token is too large for a cookie; nothing has been changed then.
        """
        cookies = self._token_cookies(issued, transfer)
        if transfer == "header" and self._incoming.cookies(ACCESS_COOKIE):
            self.clear("cookie")
        if transfer == "cookie" and self._incoming.bearer:
            self.clear("header")
        if transfer == "cookie" and self._incoming.cookies(ACCESS_COOKIE):
            self._expire_twins()
        self._issue(issued, transfer, cookies)

    def refreshed(self, issued: Issued, transfer: TransferMethod) -> None:
        """A refresh: new tokens go as the old one came; what else came is cleared (3.3.4 step 5).

        Raises:
            ConfigError: as ``created``.
        """
        cookies = self._token_cookies(issued, transfer)
        if transfer == "header" and self._incoming.cookies(REFRESH_COOKIE):
            self.clear("cookie")
        if any(len(self._incoming.cookies(name)) > 1 for name in (ACCESS_COOKIE, REFRESH_COOKIE)):
            self._expire_twins()
        self._expire_legacy()
        self._issue(issued, transfer, cookies)

    def reissued(self, issued: Issued, transfer: TransferMethod) -> None:
        """A new access token for the same session, its payload having changed (3.4).

        Raises:
            ConfigError: as ``created``.
        """
        self._issue(issued, transfer, self._token_cookies(issued, transfer))

    def clear(self, transfer: TransferMethod) -> None:
        """The session of this transport is gone (2.7)."""
        if transfer == "cookie":
            for name in (ACCESS_COOKIE, REFRESH_COOKIE):
                self._set(name, self._transport.expired_cookie(name))
        else:
            self._headers[b"st-access-token"] = self._headers[b"st-refresh-token"] = b""
        self._headers.pop(b"anti-csrf", None)
        self._headers[b"front-token"] = b"remove"

    def failed(self, error: FastVerifyError) -> None:
        """Clear what an error clears. Saying it twice does no harm."""
        match error:
            case Unauthorised(clear_tokens=False):
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
        set_cookie = self._transport.set_cookie
        expires_at = issued.session.issued_at + _ACCESS_COOKIE_LIFETIME
        cookies = {ACCESS_COOKIE: set_cookie(ACCESS_COOKIE, issued.access_token, expires_at)}
        if issued.refresh_token_changed:
            # The same bytes once more could move a browser back that has a newer one (rotation.md).
            cookies[REFRESH_COOKIE] = set_cookie(REFRESH_COOKIE, issued.refresh_token, issued.refresh_token_expires_at)
        return cookies

    def _issue(self, issued: Issued, transfer: TransferMethod, cookies: dict[str, bytes]) -> None:
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
        for name in (ACCESS_COOKIE, REFRESH_COOKIE):
            for place, cookie in enumerate(self._transport.expired_twins(name), start=1):
                self._cookies[name, place] = cookie

    def _expire_legacy(self) -> None:
        if self._incoming.cookies(LEGACY_COOKIE):
            self._set(LEGACY_COOKIE, self._transport.expired_cookie(LEGACY_COOKIE))

    def _set(self, name: str, cookie: bytes) -> None:
        self._cookies.pop((name, 0), None)  # to the end: whoever reads them in order has the valid one last
        self._cookies[name, 0] = cookie


def _field_value(text: str) -> bytes:
    """Tokens are ASCII without blanks by construction; a header with anything else is never written."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a token with characters that no header value may have")
    return text.encode()


def _same_site(config: Config, one_site: bool | None) -> SameSite:
    if config.cookie_same_site is not None:
        return config.cookie_same_site
    if one_site is None and config.token_transfer_method != "header":
        raise ConfigError(
            "cookie_same_site",
            f"whether {config.api_domain} and {config.website_domain} are one site needs the public-suffix list: "
            "install fastverify[domains], or set it: 'lax' if they are one site, else 'none'",
        )
    return "none" if one_site is False else "lax"


def _cookie_domain(setting: str | None, api_host: str) -> str | None:
    """The ``Domain`` attribute (2.4); None: host-only."""
    if setting is None or not setting.strip():
        return None
    domain = setting.strip().lower()
    if "://" in domain:
        domain = urlsplit(domain).hostname or ""
    domain = domain.partition("/")[0].partition(":")[0]
    bare = domain.lstrip(".")
    if not _DOMAIN.fullmatch(domain):
        raise ConfigError("cookie_domain", "must be a domain such as '.example.com'")
    if api_host != bare and not api_host.endswith("." + bare):
        raise ConfigError("cookie_domain", f"browsers accept a cookie only for the API's own host or above: {api_host}")
    return bare if is_local(bare) else domain
