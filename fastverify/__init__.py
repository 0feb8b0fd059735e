"""Session management without a database hop per request.

``Verifier`` knows tokens and keys, ``SessionVerifier`` is for gateways, ``Sessions`` and ``AsyncSessions`` hold the
whole life of a session. Everything public is named here; the HTTP adapters are in ``fastverify.adapters``.
"""

from ._core import CacheInfo, Claims, CryptoInfo, Verifier, openssl_info
from .config import Config, ForeignIssuer
from .errors import (
    ClaimValidationFailed,
    ConfigError,
    CryptoFault,
    DuplicateCookies,
    ExpiredToken,
    FastVerifyError,
    ImmatureToken,
    InvalidClaim,
    InvalidSignature,
    InvalidToken,
    MalformedToken,
    RevokedToken,
    SessionError,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
    UnknownKey,
    UnsupportedToken,
)
from .events import Event, EventBatch
from .keys import KeySet
from .manager import AsyncSessions, Sessions
from .remote_keys import RemoteKeySet
from .session import Issued, Session, SessionInfo
from .session_claims import (
    BooleanClaim,
    PrimitiveArrayClaim,
    PrimitiveClaim,
    SessionClaim,
    SessionClaimValidator,
    authenticated_within,
    not_guest,
    not_impersonated,
)
from .verifier import SessionVerifier

__version__ = "0.1.0"

__all__ = [
    "AsyncSessions",
    "BooleanClaim",
    "CacheInfo",
    "ClaimValidationFailed",
    "Claims",
    "Config",
    "ConfigError",
    "CryptoFault",
    "CryptoInfo",
    "DuplicateCookies",
    "Event",
    "EventBatch",
    "ExpiredToken",
    "FastVerifyError",
    "ForeignIssuer",
    "ImmatureToken",
    "InvalidClaim",
    "InvalidSignature",
    "InvalidToken",
    "Issued",
    "KeySet",
    "MalformedToken",
    "PrimitiveArrayClaim",
    "PrimitiveClaim",
    "RemoteKeySet",
    "RevokedToken",
    "Session",
    "SessionClaim",
    "SessionClaimValidator",
    "SessionError",
    "SessionInfo",
    "SessionVerifier",
    "Sessions",
    "StoreUnavailable",
    "TokenTheftDetected",
    "TooManyRefreshes",
    "TryRefreshToken",
    "Unauthorised",
    "UnknownKey",
    "UnsupportedToken",
    "Verifier",
    "authenticated_within",
    "not_guest",
    "not_impersonated",
    "openssl_info",
]
