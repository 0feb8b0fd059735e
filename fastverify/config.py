"""Settings: one frozen object, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

from .errors import ConfigError

if TYPE_CHECKING:
    from ._core import Key

TransferMethod = Literal["cookie", "header"]
AntiCsrf = Literal["VIA_TOKEN", "VIA_CUSTOM_HEADER", "NONE"]
SameSite = Literal["strict", "lax", "none"]
OnDuplicates = Literal["clean_up", "refuse"]
WhenStale = Literal["refuse", "allow"]
SigningAlgorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]

_YEAR = 31_536_000
#: The longest span. Beyond it lie numbers that neither the store's clock nor a cookie can tell.
_LONGEST = 100 * _YEAR
_MIN_SECRET = 32
#: SuperTokens' clients from before 2023 have a cookie of this name.
_LEGACY_COOKIE = "sIdRefreshToken"
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110 section 5.6.2


class RequestHeaders(Protocol):
    """What a setting that is a function of the request gets to see."""

    @property
    def bearer(self) -> str:
        """The bearer token, or an empty str."""

    def get(self, name: bytes, /) -> str | None:
        """The value of a header; its name in lower case."""

    def cookies(self, name: str, /) -> list[str]:
        """Every value of a cookie."""


#: What ``token_transfer_method`` may be instead of a method. The second argument says whether it is asked for a session
#: that is about to start, or for one that the request may bring; None: as the client asks, and either.
TransferChoice = Callable[[RequestHeaders, bool], TransferMethod | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignIssuer:
    """Another issuer, whose sessions' access tokens are accepted until they expire (docs/migrate).

    Raises:
        ConfigError: naming the field that cannot work.
    """

    #: A KeySet, or a RemoteKeySet for the issuer's JWKS URL.
    keys: Iterable[Key]
    #: Its ``iss``, which may be ours as well; None: any, or none.
    issuer: str | None
    #: Seconds that its access tokens live at most. Those that live longer are refused.
    access_token_lifetime: int = 3_600

    def __post_init__(self) -> None:
        if isinstance(self.keys, str | bytes | Mapping) or not isinstance(self.keys, Iterable):
            raise ConfigError("keys", "must be a KeySet or a RemoteKeySet")
        if self.issuer is not None and not isinstance(self.issuer, str):
            raise ConfigError("issuer", "must be a str or None")
        _whole("access_token_lifetime", self.access_token_lifetime, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How sessions behave. All spans are in seconds; the defaults are SuperTokens' where it has one.

    Raises:
        ConfigError: naming the field that cannot work, and what to change.
    """

    #: Scheme and host of the API, with no path: ``https://api.example.com``.
    api_domain: str
    #: Scheme and host of the website. Where there are several: a function that tells the one of a request, for example
    #: by its ``origin``; SameSite, anti-CSRF and origins then follow from what it says, for each request anew.
    website_domain: str | Callable[[RequestHeaders], str]
    #: At least 32 random bytes, kept outside the store; or several, the current one first, retired ones after it.
    secret: bytes | Sequence[bytes] = field(repr=False)

    #: Where the session routes live: ``{api_domain}{api_gateway_path}{api_base_path}/session/refresh``.
    api_base_path: str = "/auth"
    #: The part of the path that a gateway strips before the application sees it.
    api_gateway_path: str = ""

    #: Life of an access token.
    access_token_lifetime: int = 3_600
    #: Life of an unused refresh token; each refresh starts it anew.
    refresh_token_lifetime: int = 8_640_000
    #: Life of a session, however busy it is.
    absolute_lifetime: int = _YEAR
    #: How long a session may go without a refresh. None: ``refresh_token_lifetime``.
    idle_timeout: int | None = None
    #: Sessions a user may have at once; the oldest is ended for a new one. None: no limit.
    max_sessions_per_user: int | None = None
    #: W of rotation.md: no honest refresh request or reply is still under way after it. 0: strict one-time tokens.
    exchange_seconds: int = 10

    #: Signs access tokens. Each key is bound to one algorithm; after a change the old keys go on verifying.
    signing_algorithm: SigningAlgorithm = "ES256"
    #: A new signing key is made this often.
    signing_key_interval: int = 604_800
    #: False: the store's static key signs access tokens, which never changes by itself. After a change, live sessions
    #: get a token by the other kind of key at their next refresh.
    use_dynamic_access_token_signing_key: bool = True

    #: B of revocation.md: a verifier that has not heard from the store for this long is stale.
    revocation_staleness: float = 5.0
    #: What a stale verifier does: refuse with StoreUnavailable, or allow (counted).
    when_stale: WhenStale = "refuse"
    #: Verified tokens remembered by each process.
    cache_size: int = 65_536

    #: Events that each shard's stream in the store keeps at least (docs/events.md). None: none is written.
    event_stream: int | None = None

    #: None: VIA_CUSTOM_HEADER where SameSite computes to none, else NONE.
    anti_csrf: AntiCsrf | None = None
    #: None: host-only cookies. ``.example.com`` shares them among the APIs below it.
    cookie_domain: str | None = None
    #: A former ``cookie_domain`` (an empty str: host-only): cookies that it has left behind are removed there, as they
    #: are everywhere at the API's host and above it anyhow.
    older_cookie_domain: str | None = None
    #: What a refresh does with several cookies of one name: take the newest and remove the others, or be refused (500),
    #: as SuperTokens does where no older domain is named.
    duplicate_cookies: OnDuplicates = "clean_up"
    #: ``__Host-`` or ``__Secure-`` may stand in front. A new name signs out whoever has a cookie of the old one.
    access_cookie_name: str = "sAccessToken"
    #: ``__Secure-`` may stand in front; ``__Host-`` may not, for this cookie goes to the refresh route alone.
    refresh_cookie_name: str = "sRefreshToken"
    #: Where browsers send the access cookie. Change the name along with it, lest two of one name arrive.
    access_cookie_path: str = "/"
    #: CHIPS: in an embedded page, a cookie for each site that embeds it. Needs Secure.
    cookie_partitioned: bool = False
    #: None: whether ``api_domain`` is https.
    cookie_secure: bool | None = None
    #: None: ``none`` where API and website are different sites, else ``lax``.
    cookie_same_site: SameSite | None = None
    #: None: as the request asks (``st-auth-mode``); else only this method is used. Or a function of the request and of
    #: whether a session is about to start.
    token_transfer_method: TransferMethod | TransferChoice | None = None
    #: Also show the access token to scripts when cookies carry it.
    expose_access_token_to_frontend_in_cookie_based_auth: bool = False
    #: Status of *try refresh token* and *unauthorised*; must be the client's ``sessionExpiredStatusCode``.
    session_expired_status_code: int = 401
    #: Status of a failed claim; must be the client's ``invalidClaimStatusCode``.
    invalid_claim_status_code: int = 403

    #: Other issuers, whose access tokens are accepted as sessions while a service moves away from them (docs/migrate).
    also_accept: ForeignIssuer | Sequence[ForeignIssuer] = ()

    #: Proxies of yours that every request comes through: each adds an address to the end of ``x-forwarded-for``, and
    #: the one that the outermost adds is the client's. 0: the address is the peer's, and that header is not looked at.
    trusted_proxies: int = 0

    #: First part of every key in the store; two applications on one store need two prefixes.
    key_prefix: str = "fv"
    #: Shards of a new store: a power of two up to 256. A store that is in use keeps the number it began with.
    shards: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_domain", check_origin("api_domain", self.api_domain))
        if not callable(self.website_domain):
            object.__setattr__(self, "website_domain", check_origin("website_domain", self.website_domain))
        for name in ("api_base_path", "api_gateway_path"):
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        object.__setattr__(self, "secret", _secrets(self.secret))
        for name, least in (("access_token_lifetime", 1), ("refresh_token_lifetime", 1), ("absolute_lifetime", 1),
                            ("signing_key_interval", 5), ("exchange_seconds", 0), ("cache_size", 0),
                            ("trusted_proxies", 0)):  # fmt: skip
            _whole(name, getattr(self, name), least)
        for name in ("idle_timeout", "max_sessions_per_user", "event_stream"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        for name in ("expose_access_token_to_frontend_in_cookie_based_auth", "cookie_partitioned",
                     "use_dynamic_access_token_signing_key"):  # fmt: skip
            _flag(name, getattr(self, name))
        if self.cookie_secure is not None:
            _flag("cookie_secure", self.cookie_secure)
        for name in ("cookie_domain", "older_cookie_domain"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ConfigError(name, "must be a str such as '.example.com', or None")
        for name in ("access_cookie_name", "refresh_cookie_name"):
            value = getattr(self, name)
            if not isinstance(value, str) or not _COOKIE_NAME.fullmatch(value) or value == _LEGACY_COOKIE:
                raise ConfigError(name, f"must be letters, digits, '-' and '_', and not {_LEGACY_COOKIE}")
        if self.access_cookie_name == self.refresh_cookie_name:
            raise ConfigError("refresh_cookie_name", "must differ from access_cookie_name")
        object.__setattr__(self, "access_cookie_path", _path("access_cookie_path", self.access_cookie_path) or "/")
        _one_of("duplicate_cookies", self.duplicate_cookies, OnDuplicates)
        if self.refresh_token_lifetime <= self.access_token_lifetime:
            raise ConfigError(
                "refresh_token_lifetime", f"must be longer than access_token_lifetime ({self.access_token_lifetime} s)"
            )
        check_staleness("revocation_staleness", self.revocation_staleness)
        _one_of("when_stale", self.when_stale, WhenStale)
        _one_of("signing_algorithm", self.signing_algorithm, SigningAlgorithm)
        for name, allowed in (
            ("anti_csrf", AntiCsrf),
            ("cookie_same_site", SameSite),
            ("token_transfer_method", TransferMethod),
        ):
            value = getattr(self, name)
            if value is not None and not (name == "token_transfer_method" and callable(value)):
                _one_of(name, value, allowed)
        for name in ("session_expired_status_code", "invalid_claim_status_code"):
            _whole(name, getattr(self, name), 400, 599)
        if self.session_expired_status_code == self.invalid_claim_status_code:
            raise ConfigError(
                "invalid_claim_status_code",
                "must differ from session_expired_status_code: the client tells them apart by it",
            )
        _whole("shards", self.shards, 1, 256)
        if self.shards & (self.shards - 1):
            raise ConfigError("shards", "must be a power of two from 1 to 256")
        check_prefix("key_prefix", self.key_prefix)
        object.__setattr__(self, "also_accept", foreign_issuers("also_accept", self.also_accept))

    @property
    def longest_token_lifetime(self) -> int:
        """Seconds that any access token that is accepted may live."""
        others = (one.access_token_lifetime for one in foreign_issuers("also_accept", self.also_accept))
        return max(self.access_token_lifetime, *others, 0)

    @property
    def issuer(self) -> str:
        """The ``iss`` of every access token: API domain, gateway path and base path."""
        return f"{self.api_domain}{self.api_gateway_path}{self.api_base_path}"

    @property
    def idle_lifetime(self) -> int:
        """Seconds a session may go without a refresh."""
        return (
            self.refresh_token_lifetime
            if self.idle_timeout is None
            else min(self.idle_timeout, self.refresh_token_lifetime)
        )

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The secrets, the current one first."""
        return self.secret  # type: ignore[return-value]  # __post_init__ made it a tuple


def check_prefix(field_name: str, prefix: str) -> str:
    """A key prefix becomes part of a hash tag, so braces and the like would break it."""
    if (
        not isinstance(prefix, str)
        or not prefix
        or not prefix.isascii()
        or not prefix.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ):
        raise ConfigError(field_name, "must be letters, digits, '-', '_' or '.'")
    return prefix


def foreign_issuers(name: str, value: ForeignIssuer | Sequence[ForeignIssuer]) -> tuple[ForeignIssuer, ...]:
    """One, or several, as a tuple."""
    issuers = (
        (value,) if isinstance(value, ForeignIssuer) else tuple(value) if isinstance(value, list | tuple) else None
    )
    if issuers is None or not all(isinstance(one, ForeignIssuer) for one in issuers):
        raise ConfigError(name, "must be a ForeignIssuer, or a list of them")
    return issuers


def check_staleness(field_name: str, seconds: float) -> None:
    """For so long a verifier may hear nothing from the store."""
    if not isinstance(seconds, int | float) or not 2 <= seconds <= _LONGEST:
        raise ConfigError(field_name, "must be at least 2 seconds, room for one lost poll, and finite")


def check_origin(name: str, value: str) -> str:
    """Scheme, host and port of a URL, lower case, with nothing after them."""
    if not isinstance(value, str):
        raise ConfigError(name, "must be a str such as 'https://api.example.com'")
    # Before urlsplit, which takes line breaks out; and a host of other letters has its xn-- form on the wire.
    if not value.isascii() or any(c <= " " or c == "\x7f" for c in value.strip()):
        raise ConfigError(name, "must be ASCII without blanks; an international host in its xn-- form")
    try:
        parts = urlsplit(value.strip())
        _ = parts.port  # parsed when it is looked at
    except ValueError:
        raise ConfigError(name, "is not a URL: its host or port cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(name, "must start with https:// (or http:// in development) and name a host")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(name, "must be scheme and host only; paths go to api_base_path and api_gateway_path")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _path(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(name, "must be a str such as '/auth'")
    value = "/" + value.strip("/") if value.strip("/") else ""
    if any(c in value for c in " ;?#%\\") or not value.isascii() or not value.isprintable():
        raise ConfigError(name, "must be a plain URL path")
    return value


def _secrets(value: bytes | Sequence[bytes]) -> tuple[bytes, ...]:
    secrets = (value,) if isinstance(value, bytes) else tuple(value) if isinstance(value, list | tuple) else ()
    if not secrets or not all(isinstance(s, bytes) for s in secrets):
        raise ConfigError("secret", "must be bytes, or a list of bytes with the current secret first")
    if any(len(s) < _MIN_SECRET or len(set(s)) < 8 for s in secrets):
        raise ConfigError(
            "secret", f"must be at least {_MIN_SECRET} random bytes, for example from secrets.token_bytes(32)"
        )
    if len(set(secrets)) != len(secrets):
        raise ConfigError("secret", "names one secret twice")
    return secrets


def _whole(name: str, value: Any, least: int, most: int = _LONGEST) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(name, f"must be a whole number from {least} to {most}")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):  # "no" would count as yes
        raise ConfigError(name, "must be True or False")


def _one_of(name: str, value: Any, literal: Any) -> None:
    if value not in get_args(literal):
        raise ConfigError(name, f"must be one of {', '.join(get_args(literal))}")
