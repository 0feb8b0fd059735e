"""The values that callers hold: sessions, and what the store knows of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import InvalidClaim

if TYPE_CHECKING:
    from ._core import Claims

#: The ten members that every access token has (wire.md section 1.1); all others are the application's.
DEFAULT_CLAIMS = frozenset(
    (
        "sub",
        "exp",
        "iat",
        "sessionHandle",
        "refreshTokenHash1",
        "parentRefreshTokenHash1",
        "antiCsrfToken",
        "tId",
        "rsub",
        "iss",
    )
)
#: Who acts as the user (RFC 8693 section 4.1). In the payload, and only ``impersonate`` puts it there.
ACT = "act"
DEFAULT_TENANT = "public"
#: User ids that no application gives out: of anonymous sessions, of which each has a user of its own.
_GUEST = re.compile(r"guest-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HANDLE = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:_.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One signed-in user, as one access token states it. Immutable: callers who share it cannot disturb each other."""

    #: Stable id of the session: a UUID, followed by ``_<tenant>`` for any tenant but ``public``.
    handle: str
    user_id: str
    #: The login method's user id (SuperTokens: recipe user id); equals ``user_id`` unless accounts are linked.
    login_id: str
    tenant: str
    #: The application's own claims.
    payload: Mapping[str, Any]
    access_token: str = field(repr=False)
    #: Seconds since the epoch.
    expires_at: int
    #: Seconds since the epoch.
    issued_at: int
    #: The whole verified claims set.
    claims: Claims = field(repr=False)
    #: Another issuer's (``Config.also_accept``): the store knows nothing of it.
    foreign: bool = False

    @property
    def is_guest(self) -> bool:
        """Whether this is an anonymous session, whose user is nobody else's."""
        return not self.foreign and is_guest_id(self.user_id)

    @property
    def actor(self) -> str | None:
        """The user who acts as this one (RFC 8693 section 4.1); None: nobody but the user."""
        return actor_of(self.payload)

    @classmethod
    def from_claims(cls, claims: Claims) -> Session:
        """Read a session out of verified claims.

        Raises:
            InvalidClaim: the claims are not those of a session, for example another service's token.
        """
        session: Session | None = claims._session
        if session is None:
            session = claims._session = cls._read(claims)
        return session

    @classmethod
    def from_foreign_claims(cls, claims: Claims) -> Session:
        """Read a session out of verified claims of another issuer.

        Before version 5 there was no ``rsub``, which is then ``sub``, and before version 4 no ``tId``, which is then
        what the handle says, or ``public`` (wire.md section 1.1).

        Raises:
            InvalidClaim: the claims are not those of a session.
        """
        session: Session | None = claims._session
        if session is None:
            handle = claims.get("sessionHandle")
            tenant = handle.partition("_")[2] if isinstance(handle, str) else ""
            missing = {"rsub": claims.get("sub"), "tId": tenant or DEFAULT_TENANT}
            session = claims._session = replace(cls._read(claims, missing), foreign=True)
        return session

    @classmethod
    def _read(cls, claims: Claims, missing: Mapping[str, Any] = MappingProxyType({})) -> Session:
        said: dict[str, str] = {}
        for name in ("sub", "rsub", "tId", "sessionHandle", "refreshTokenHash1"):
            value = claims.get(name, missing.get(name))
            if not isinstance(value, str) or not value:
                raise InvalidClaim(
                    f"not a session's token: {name} is {'missing' if value is None else 'malformed'}", claim=name
                )
            said[name] = value
        handle_bytes(said["sessionHandle"])
        if claims.issued_at is None:
            raise InvalidClaim("not a session's token: iat is missing", claim="iat")
        if claims.get("stt", 0) != 0:  # an OAuth 2 access token of the same issuer
            raise InvalidClaim("not a session's token: stt is set", claim="stt")
        return cls(
            handle=said["sessionHandle"],
            user_id=said["sub"],
            login_id=said["rsub"],
            tenant=said["tId"],
            payload=Payload(claims),
            access_token=claims.token,
            expires_at=claims.expires_at,
            issued_at=claims.issued_at,
            claims=claims,
        )


class Payload(Mapping[str, Any]):
    """The application's claims: a read-only view of a claims set without the default ten."""

    __slots__ = ("_claims",)

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def __getitem__(self, name: str) -> Any:
        if name in DEFAULT_CLAIMS:
            raise KeyError(name)
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._claims if name not in DEFAULT_CLAIMS)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Payload({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class Issued:
    """What a sign-in or a refresh hands out."""

    session: Session
    access_token: str = field(repr=False)
    #: Always the refresh token to keep, whether or not it is new.
    refresh_token: str = field(repr=False)
    #: Whether it is another one than was presented. Where it is not, no refresh cookie or header may be set: a late
    #: reply would move the client backwards.
    refresh_token_changed: bool
    #: Seconds since the epoch; when the refresh token expires if it is not used.
    refresh_token_expires_at: int
    #: For the page's script: base64 of ``{"uid", "ate", "up"}``. Not signed: never to be trusted by a server.
    front_token: str = field(repr=False)
    #: None unless the session is bound to one.
    anti_csrf_token: str | None = field(repr=False)
    #: Whether cookies are to outlive the browser.
    remember: bool = True


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What the store knows of a session. Instants are in seconds since the epoch."""

    handle: str
    user_id: str
    login_id: str
    tenant: str
    #: The application's claims, as the next access token will hold them.
    payload: dict[str, Any]
    #: Kept on the server only.
    data: Any
    device: dict[str, Any]
    created_at: int
    #: Last refresh, or last use of an access token, which is noted once a minute at most (docs/sessions.md).
    last_seen_at: int
    #: When the session ends if it is not refreshed.
    expires_at: int
    #: When it ends however busy it is.
    absolute_expires_at: int
    #: The user who acts as this one; None: nobody but the user.
    actor: str | None = None
    #: That user's own session.
    actor_handle: str | None = None
    #: Whether it is the one that ``list_sessions`` was told to be the caller's own.
    current: bool = False

    @property
    def is_guest(self) -> bool:
        """Whether this is an anonymous session, whose user is nobody else's."""
        return is_guest_id(self.user_id)


def actor_of(payload: Mapping[str, Any]) -> str | None:
    """The user whom an ``act`` claim names."""
    match payload.get(ACT):
        case {"sub": str(user_id)}:
            return user_id
        case _:
            return None


def guest_id(raw: bytes) -> str:
    """The user id of a guest, of 16 random bytes."""
    return f"guest-{uuid_text(raw)}"


def is_guest_id(user_id: str) -> bool:
    """Whether a user id is a guest's."""
    return _GUEST.fullmatch(user_id) is not None


def handle_bytes(handle: str) -> bytes:
    """The 16 bytes that a session handle names, whatever tenant follows them.

    Raises:
        InvalidClaim: not a handle.
        TypeError: not a str, which is a mistake of the caller.
    """
    if not isinstance(handle, str):
        raise TypeError(f"a session handle is a str, not {type(handle).__name__}")
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise InvalidClaim("malformed session handle", claim="sessionHandle")
    return bytes.fromhex(match[1].replace("-", ""))


def uuid_text(raw: bytes) -> str:
    """16 bytes in UUID form."""
    text = raw.hex()  # class UUID takes four times as long
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def format_handle(raw: bytes, tenant: str) -> str:
    """The handle of 16 bytes: UUID form, with the tenant behind it unless it is the default one."""
    text = uuid_text(raw)
    return text if tenant == DEFAULT_TENANT else f"{text}_{tenant}"
