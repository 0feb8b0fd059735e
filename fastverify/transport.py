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
    a move to the other transport            the one that is left
    Unauthorised, TokenTheftDetected,
    DuplicateCookies                         both transports, whatever was sent
    DuplicateCookies, if they are refused    the twins on the older domain, if one is named
    Unauthorised without a usable token      nothing: a sign-in may be under way beside this request
    a call from a foreign page               nothing
    Unauthorised for a session that ended
    while the request was under way          nothing: the sign-in that ended it may have been answered already
    TryRefreshToken, TooManyRefreshes,
    ClaimValidationFailed, StoreUnavailable  nothing

*Late replies* (8.8). A slow reply may reach the browser after that of a sign-in which has ended its session. Tokens for
that session would take the place of the new ones, so they are left out where the end is known by then.

*Twins* (2.6). After a change of ``cookie_domain`` a browser holds two cookies of one name and sends both. A server
cannot see which is which, but it can list where the other one must live: the API's own host, or a domain above it.
Expiring the name at all of those, except where we set it ourselves, gets rid of it with no setting to remember.

*Foreign pages.* A call that a cookie carries, and that may change something, owes two proofs: that it comes from a page
of ours (``Origin``, or what Fetch Metadata say where that is not listed), and what ``anti_csrf`` asks for. The first is
looked at first and costs the visitor nothing: what is refused for it clears nothing, else a foreign page could sign
anybody out. Programs that are no browsers send neither header, and pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, NamedTuple, get_args
from urllib.parse import quote, urlsplit

from ._core import Incoming as Incoming
from ._core import Shortcut, Verifier
from .config import AntiCsrf, Config, SameSite, TransferChoice, TransferMethod, check_origin
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
from .session import Session
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
ACCESS_COOKIE_LIFETIME = 31_536_000
#: SuperTokens' sentence.
MULTIPLE_COOKIES: Final = "The request contains multiple session cookies."
_LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"
#: RFC 6265bis section 5.6: browsers ignore a cookie with more, without a word.
_MAX_COOKIE_BYTES = 4096
_MAX_ATTRIBUTE_BYTES = 1024

_OPAQUE = re.compile(r"[A-Za-z0-9_-]+")
_DOMAIN = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def cors_headers() -> list[str]:
    """Request headers that a CORS preflight must allow: ``content-type`` and all that the clients send (2.1)."""
    return ["content-type", *CORS_HEADERS]


def headers_of_environ(environ: Mapping[str, Any]) -> list[Header]:
    """The headers of a WSGI environ (PEP 3333), as raw pairs."""
    return [
        (key[5:].lower().replace("_", "-").encode("latin-1"), value.encode("latin-1"))
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]


def as_text(headers: Iterable[Header]) -> list[tuple[str, str]]:
    """Header pairs as WSGI frameworks have them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


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


class Website(NamedTuple):
    """What follows from where the website is."""

    same_site: SameSite
    anti_csrf: AntiCsrf
    #: Pages that may call with cookies; empty: not known.
    origins: frozenset[str]
    #: Whether other pages of the API's site may, too.
    siblings: bool


class Rules:
    """How a session arrives: all that a gateway which only verifies has to know.

    Args:
        transfer_method: the only one that counts; None: either; or a function, as ``Config.token_transfer_method``.
        anti_csrf: what a cookie has to be accompanied by. The default suits every client that is unmodified: it sends
            ``rid`` with each call, and no form or foreign page can.
        origins: where a WebSocket, and any call but GET, that is carried by a cookie may come from, beside clients that
            name no origin. Without any, no WebSocket of a page is admitted, and calls go by ``anti_csrf`` alone.
        access_cookie_name: as configured.
        session_expired_status_code, invalid_claim_status_code: as the client is configured.
    """

    def __init__(
        self,
        *,
        transfer_method: TransferMethod | TransferChoice | None = None,
        anti_csrf: AntiCsrf = "VIA_CUSTOM_HEADER",
        origins: Iterable[str] = (),
        access_cookie_name: str = ACCESS_COOKIE,
        session_expired_status_code: int = 401,
        invalid_claim_status_code: int = 403,
    ) -> None:
        self._transfer_method = transfer_method
        self._website: Website | None = Website(
            "lax", anti_csrf, frozenset(map(_as_browsers_say, origins)), siblings=False
        )
        self.access_cookie_name = access_cookie_name
        self.session_expired_status_code = session_expired_status_code
        self.invalid_claim_status_code = invalid_claim_status_code

    def website(self, incoming: Incoming) -> Website:
        """What follows from where the website of this request is."""
        assert self._website is not None
        return self._website

    def transfer_method(self, incoming: Incoming, for_new_session: bool) -> TransferMethod | None:
        """The only method that counts for this request; None: either, or for a new session: as the client asks (2.5).

        Raises:
            ConfigError: the application's function returned something else.
        """
        method = self._transfer_method
        if callable(method):
            method = method(incoming, for_new_session)
            if method is not None and method not in get_args(TransferMethod):
                raise ConfigError("token_transfer_method", "the function must return 'cookie', 'header' or None")
        return method

    def shortcut(self, verifier: Verifier) -> Shortcut | None:
        """These rules where they leave nothing to decide, for the core; None: they decide of each request anew."""
        method, website = self._transfer_method, self._website
        if callable(method):
            return None
        proof = None if website is None else {"VIA_CUSTOM_HEADER": True, "NONE": False}.get(website.anti_csrf)
        return Shortcut(
            verifier,
            bearer=method != "cookie",
            access_cookie=None if method == "header" else self.access_cookie_name,
            legacy_cookie=LEGACY_COOKIE,
            proof=proof,
            origins=website.origins if website is not None else (),
        )

    def access_tokens(self, incoming: Incoming, http_method: str) -> Iterator[tuple[str, TransferMethod]]:
        """The access tokens to try, best first; go on to the next only if this one is not a session's (3.3.1).

        Raises:
            TryRefreshToken: on the way, where a legacy cookie, or several access cookies, leave nothing to trust.
        """
        if http_method in ("OPTIONS", "TRACE"):  # a preflight has no session, and TRACE echoes what it is sent
            return
        if incoming.cookies(LEGACY_COOKIE):
            raise TryRefreshToken("the request has a legacy session cookie")
        forced = self.transfer_method(incoming, False)
        if incoming.bearer and forced != "cookie":
            yield incoming.bearer, "header"
        cookies = [] if forced == "header" else incoming.cookies(self.access_cookie_name)
        if cookies:
            if len(cookies) > 1:
                raise TryRefreshToken("the request has several access token cookies")
            yield cookies[0], "cookie"

    def check_anti_csrf(
        self, incoming: Incoming, session: Session, transfer: TransferMethod, http_method: str, asked: bool | None
    ) -> None:
        """Demand the proof against CSRF that a request with a cookie owes (3.3.1 steps 5 and 10).

        Args:
            session: as verified.
            asked: the route's own wish; None: for every method but GET.

        Raises:
            TryRefreshToken: the proof is missing or wrong, or it comes from a foreign page.
        """
        if transfer == "header" or not (http_method != "GET" if asked is None else asked):
            return
        website = self.website(incoming)
        if is_foreign(incoming, website):
            raise TryRefreshToken("the request comes from a foreign page")
        match website.anti_csrf:
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
        if transfer == "cookie" and origin is not None and origin.lower() not in self.website(incoming).origins:
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


def is_foreign(incoming: Incoming, website: Website) -> bool:
    """Whether a call comes from a page that is not ours, going by what only the browser can write (W3C Fetch Metadata).

    An origin that is listed is ours whatever else is said. Fetch Metadata are only sent to https and to the development
    machine, so the rest goes by ``Origin`` where they are missing.
    """
    origin = incoming.get(b"origin")
    if not website.origins or (origin is not None and origin.lower() in website.origins):
        return False
    match incoming.get(b"sec-fetch-site"):
        case "same-origin" | "none":
            return False
        case "same-site":
            return not website.siblings
        case None:
            return origin is not None and not (website.siblings and _is_sibling(origin.lower(), website.origins))
        case _:
            return True


def _as_browsers_say(origin: str) -> str:
    """An origin as the ``Origin`` header has it: lower case, and without the port that goes without saying."""
    origin = origin.lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def _is_sibling(origin: str, origins: frozenset[str]) -> bool:
    try:
        scheme, host = urlsplit(origin).scheme, urlsplit(origin).hostname
    except ValueError:
        return False
    ours = map(urlsplit, origins)
    return host is not None and any(scheme == one.scheme and one_site(host, one.hostname or "") for one in ours)


def _retry_after(seconds: int) -> Header:
    return b"retry-after", b"%d" % max(1, seconds)


class Transport(Rules):
    """How sessions arrive and leave, worked out once from the configuration.

    Where ``website_domain`` is a function, what follows from the website is worked out for each request.

    Raises:
        ConfigError: a combination of cookie settings that no browser accepts, or SameSite cannot be worked out.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            transfer_method=config.token_transfer_method,
            access_cookie_name=config.access_cookie_name,
            session_expired_status_code=config.session_expired_status_code,
            invalid_claim_status_code=config.invalid_claim_status_code,
        )
        self._config = config
        api = urlsplit(config.api_domain)
        self._api_host = api.hostname or ""
        self.secure = api.scheme == "https" if config.cookie_secure is None else config.cookie_secure
        self.expose_access_token = config.expose_access_token_to_frontend_in_cookie_based_auth
        self.refresh_cookie_name = config.refresh_cookie_name
        self.refuses_duplicates = config.duplicate_cookies == "refuse"
        #: Paths of the routes, as the application sees them: name -> (method, path).
        self.routes = {
            "refresh": ("POST", f"{config.api_base_path}/session/refresh"),
            "signout": ("POST", f"{config.api_base_path}/signout"),
            "jwks": ("GET", f"{config.api_base_path}/jwt/jwks.json"),
            "discovery": ("GET", f"{config.api_base_path}/.well-known/openid-configuration"),
        }
        self._domain = _cookie_domain("cookie_domain", config.cookie_domain, self._api_host)
        # A gateway strips a part of the path before the application sees it; the browser still sends it.
        self._refresh_path = config.api_gateway_path + self.routes["refresh"][1]
        self._paths = {
            self.access_cookie_name: config.access_cookie_path,
            self.refresh_cookie_name: self._refresh_path,
            LEGACY_COOKIE: "/",
        }
        older = _cookie_domain("older_cookie_domain", config.older_cookie_domain, self._api_host)
        self.names_older_domain = config.older_cookie_domain is not None
        if self.names_older_domain and (older or "").lstrip(".") == (self._domain or "").lstrip("."):
            raise ConfigError("older_cookie_domain", "is where cookie_domain puts the cookies now")
        self._older_domain = older
        #: Where a cookie of ours can live beside the place where we set it; None: the API's own host.
        self._twin_domains: list[str | None] = [
            domain for domain in domains_above(self._api_host) if domain != (self._domain or "").lstrip(".")
        ]
        if self._domain is not None:
            self._twin_domains.insert(0, None)
        if older is not None and older.lstrip(".") not in {*self._twin_domains, (self._domain or "").lstrip(".")}:
            self._twin_domains.append(older)
        self._website_at = lru_cache(maxsize=64)(self._website_of)
        self._website = None if callable(config.website_domain) else self._website_of(config.website_domain)
        if len(self._attributes(self._place(self.refresh_cookie_name), "strict", _LONG_AGO)) > _MAX_ATTRIBUTE_BYTES:
            raise ConfigError("api_base_path", f"makes cookie attributes of more than {_MAX_ATTRIBUTE_BYTES} bytes")
        self._check_names()
        if self._website is not None and config.token_transfer_method == "cookie":
            self._check_cookies(self._website)

    def website(self, incoming: Incoming) -> Website:
        """What follows from where the website of this request is.

        Raises:
            ConfigError: the application's function returned no URL, or SameSite cannot be worked out for it.
        """
        if self._website is not None:
            return self._website
        assert callable(self._config.website_domain)
        # By what the function says of this request; only what follows from that is remembered.
        return self._website_at(self._config.website_domain(incoming))

    def creation_method(self, incoming: Incoming) -> TransferMethod:
        """How the tokens of a new session travel: as forced, else as asked by ``st-auth-mode``, else in headers (2.5).

        Raises:
            ConfigError: by cookie, and browsers would not keep the cookies (2.4).
        """
        asked = (incoming.get(b"st-auth-mode") or "").lower()
        method = self.transfer_method(incoming, True) or ("cookie" if asked == "cookie" else "header")
        if method == "cookie":
            self._check_cookies(self.website(incoming))
        return method

    def check_move(self, incoming: Incoming, transfer: TransferMethod) -> None:
        """Whether a live session may go on by this method.

        Raises:
            ConfigError: its tokens would not be read, or browsers would not keep the cookies.
        """
        if transfer not in get_args(TransferMethod):
            raise ConfigError("token_transfer_method", "must be 'cookie' or 'header'")
        if self.transfer_method(incoming, False) not in (transfer, None):
            raise ConfigError("token_transfer_method", f"forces the other method: tokens by {transfer} are not read")
        if transfer == "cookie":
            self._check_cookies(self.website(incoming))

    def binds_anti_csrf(self, transfer: TransferMethod) -> bool:
        """Whether a session gets an anti-CSRF token (3.2 step 4)."""
        return transfer == "cookie" and self._config.anti_csrf == "VIA_TOKEN"

    def refresh_tokens(self, incoming: Incoming) -> list[Presented]:
        """The refresh token of a refresh request (3.3.4), or several distinct ones whose twins have not been cleared.

        Which of several is the session's newest only the sessions can tell: their names are inside, under a MAC.

        Raises:
            Unauthorised: none came, or not from the website.
            DuplicateCookies: several cookies of one name, and they are to be refused (2.6).
        """
        forced = self.transfer_method(incoming, False)
        if self.refuses_duplicates and forced != "header" and self.duplicates(incoming):
            self.refuse_foreign(incoming)
            raise DuplicateCookies(MULTIPLE_COOKIES)
        # Ours are base64url, so another service's JWT, or two headers joined into one, is not mistaken for one.
        if forced != "cookie" and _OPAQUE.fullmatch(incoming.bearer):
            return [Presented(incoming.bearer, "header")]
        self.refuse_foreign(incoming)
        cookies = [] if forced == "header" else incoming.cookies(self.refresh_cookie_name)
        if not cookies:
            raise Unauthorised("no refresh token came with the request")
        self._demand_rid(incoming)
        return [Presented(cookie, "cookie") for cookie in dict.fromkeys(cookies)]

    def other_refresh_token(self, incoming: Incoming, is_ours: Callable[[str], bool]) -> Presented | None:
        """A refresh token that another issuer may have made, of any form; None where one of ours came, or none at all.

        Raises:
            Unauthorised: a cookie, and not from the website.
            DuplicateCookies: several cookies of one name, and nobody can tell which is meant.
        """
        forced = self.transfer_method(incoming, False)
        bearer = "" if forced == "cookie" else incoming.bearer
        cookies = [] if forced == "header" else incoming.cookies(self.refresh_cookie_name)
        if any(map(is_ours, [bearer, *cookies])) or not (bearer or cookies):
            return None
        if bearer:
            return Presented(bearer, "header")
        self.refuse_foreign(incoming)
        self._demand_rid(incoming)
        if len(set(cookies)) > 1:
            raise DuplicateCookies(MULTIPLE_COOKIES)
        return Presented(cookies[0], "cookie")

    def _demand_rid(self, incoming: Incoming) -> None:
        if self.website(incoming).anti_csrf == "VIA_CUSTOM_HEADER" and incoming.get(b"rid") is None:
            raise Unauthorised("the header rid is missing")

    def refuse_foreign(self, incoming: Incoming) -> None:
        """Refresh and sign-out change cookies, so a foreign page must not reach them, not even to clear them.

        Raises:
            Unauthorised: clearing nothing.
        """
        if is_foreign(incoming, self.website(incoming)):
            raise Unauthorised("the request comes from a foreign page", clear_tokens=False)

    def duplicates(self, incoming: Incoming) -> list[str]:
        """The names of which a refresh brings several cookies, as far as it can tell.

        Where the access cookie's path does not lead to the refresh route, one that comes is a former one of another
        path, which other routes get besides ours.
        """
        names = (self.access_cookie_name, self.refresh_cookie_name)
        found = [name for name in names if len(incoming.cookies(name)) > 1]
        elsewhere = not self.access_cookie_reaches(self.routes["refresh"][1])
        if not found and elsewhere and incoming.cookies(self.access_cookie_name):
            found.append(self.access_cookie_name)
        return found

    def reply(self, error: FastVerifyError) -> Reply:
        """The response that tells the client of an error (section 4)."""
        if isinstance(error, DuplicateCookies) and self.refuses_duplicates:
            if self.names_older_domain:
                return json_reply(200, {"message": "cookies of the older domain are removed: refresh again"})
            hint = "Set older_cookie_domain to where cookie_domain put them before."
            return json_reply(500, {"message": f"{MULTIPLE_COOKIES} {hint}"})
        return super().reply(error)

    def access_cookie_reaches(self, path: str) -> bool:
        """Whether browsers send the access cookie to a path of the application (RFC 6265 section 5.1.4)."""
        cookie_path = self._paths[self.access_cookie_name].rstrip("/") + "/"
        return f"{self._config.api_gateway_path}{path}/".startswith(cookie_path)

    def set_cookie(self, name: str, token: str, expires_at: int | None, website: Website) -> bytes:
        """A ``Set-Cookie`` value. ``Expires``, not ``Max-Age``, as the peer has it; None: until the browser is closed.

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
        expires = None if expires_at is None else formatdate(expires_at, usegmt=True)
        return self._cookie(name, value, self._place(name), website, expires)

    def expired_cookie(self, name: str, website: Website) -> bytes:
        """A ``Set-Cookie`` value that removes a cookie: same name, path and domain (2.3)."""
        return self._cookie(name, "", self._place(name), website, _LONG_AGO)

    def expired_at_root(self, name: str, website: Website) -> bytes:
        """A ``Set-Cookie`` value that removes a cookie of this name with the path ``/``."""
        return self._cookie(name, "", self._place(name)._replace(path="/"), website, _LONG_AGO)

    def expired_twins(self, name: str, website: Website) -> list[bytes]:
        """``Set-Cookie`` values that remove cookies of this name wherever else they can be."""
        own = self._place(name)
        if name.lower().startswith("__host-"):
            domains, paths = [own.domain], [own.path]
        else:
            domains = [own.domain, *self._twin_domains]
            paths = [own.path, "/"] if name == self.access_cookie_name and own.path != "/" else [own.path]
        # A browser that does not know Partitioned takes both for one cookie, and its valid value is set last.
        partitions = [own.partitioned, not own.partitioned] if self.secure else [False]
        places = [Place(domain, path, part) for domain in domains for path in paths for part in partitions]
        return [self._cookie(name, "", place, website, _LONG_AGO) for place in places if place != own]

    def expired_older(self, name: str, website: Website) -> bytes:
        """A ``Set-Cookie`` value that removes a cookie on ``older_cookie_domain``."""
        return self._cookie(name, "", self._place(name)._replace(domain=self._older_domain), website, _LONG_AGO)

    def _place(self, name: str) -> Place:
        return Place(self._domain, self._paths[name], self._config.cookie_partitioned)

    def _cookie(self, name: str, value: str, place: Place, website: Website, expires: str | None) -> bytes:
        return f"{name}={value}{self._attributes(place, website.same_site, expires)}".encode()

    def _attributes(self, place: Place, same_site: SameSite, expires: str | None) -> str:
        return (
            (f"; Domain={place.domain}" if place.domain else "")
            + f"; Path={place.path}"
            + (f"; Expires={expires}" if expires else "")
            + "; HttpOnly"
            + ("; Secure" if self.secure else "")
            + f"; SameSite={same_site.capitalize()}"
            + ("; Partitioned" if place.partitioned else "")
        )

    def _website_of(self, website_domain: str) -> Website:
        config = self._config
        origin = check_origin("website_domain", website_domain)
        website, api = urlsplit(origin), urlsplit(config.api_domain)
        host = website.hostname or ""
        # Schemes included; None: not to be told without a public-suffix list.
        one = False if api.scheme != website.scheme else one_site(self._api_host, host)
        same_site = _same_site(config, origin, one)
        # A page of another host of the site: by configuration, or because the cookies are shared among hosts.
        siblings = (same_site != "none" if one is None else one) and (
            host != self._api_host or self._domain is not None or is_local(host)
        )
        return Website(
            same_site,
            config.anti_csrf or ("VIA_CUSTOM_HEADER" if same_site == "none" else "NONE"),
            frozenset(map(_as_browsers_say, (config.api_domain, origin))),
            siblings,
        )

    def _check_cookies(self, website: Website) -> None:
        local = all(is_local(urlsplit(origin).hostname or "") for origin in website.origins)
        if website.same_site == "none" and not self.secure and not local:
            raise ConfigError(
                "cookie_secure",
                "browsers refuse SameSite=None cookies that are not Secure: serve the API over https, give API and "
                "website one site and scheme, or transfer tokens in headers",
            )

    def _check_names(self) -> None:
        if self._config.cookie_partitioned and not self.secure:
            raise ConfigError("cookie_partitioned", "browsers refuse Partitioned cookies that are not Secure")
        for field, name in (
            ("access_cookie_name", self.access_cookie_name),
            ("refresh_cookie_name", self.refresh_cookie_name),
        ):
            prefix = name.lower().partition("-")[0]  # browsers compare it without case
            if prefix not in ("__secure", "__host"):
                continue
            if not self.secure:
                raise ConfigError(field, "browsers refuse cookies of this prefix that are not Secure")
            if prefix == "__host" and self._paths[name] != "/":
                raise ConfigError(
                    field,
                    f"browsers demand Path=/ of a __Host- cookie, and this one has Path={self._paths[name]}; "
                    "take __Secure-",
                )
            if prefix == "__host" and self._domain is not None:
                raise ConfigError(field, "browsers refuse a __Host- cookie with a Domain; take __Secure-")


class Place(NamedTuple):
    """Where a browser keeps a cookie: two of one name in two places are two cookies."""

    domain: str | None
    path: str
    partitioned: bool


def _same_site(config: Config, website: str, one_site: bool | None) -> SameSite:
    if config.cookie_same_site is not None:
        return config.cookie_same_site
    if one_site is None and config.token_transfer_method != "header":
        raise ConfigError(
            "cookie_same_site",
            f"whether {config.api_domain} and {website} are one site needs the public-suffix list: "
            "install fastverify[domains], or set it: 'lax' if they are one site, else 'none'",
        )
    return "none" if one_site is False else "lax"


def _cookie_domain(field: str, setting: str | None, api_host: str) -> str | None:
    """The ``Domain`` attribute (2.4); None: host-only."""
    if setting is None or not setting.strip():
        return None
    domain = setting.strip().lower()
    if "://" in domain:
        domain = urlsplit(domain).hostname or ""
    domain = domain.partition("/")[0].partition(":")[0]
    bare = domain.lstrip(".")
    if not _DOMAIN.fullmatch(domain):
        raise ConfigError(field, "must be a domain such as '.example.com'")
    if api_host != bare and not api_host.endswith("." + bare):
        raise ConfigError(field, f"browsers accept a cookie only for the API's own host or above: {api_host}")
    return bare if is_local(bare) else domain
