"""Every error that fastverify raises.

::

    FastVerifyError
     +- ConfigError                 (ValueError) at construction; names the field
     +- InvalidToken          401   raised by Verifier
     |   +- MalformedToken          not a compact JWS of strict JSON, or too large
     |   +- UnsupportedToken        JWE, crit, b64, an algorithm that no key allows
     |   +- UnknownKey              no key for this kid
     |   +- InvalidSignature
     |   +- ExpiredToken            exp is in the past
     |   +- ImmatureToken           nbf or iat is in the future
     |   +- InvalidClaim            a claim is missing, of the wrong type or not the expected value
     |   +- RevokedToken            the token, its session, key, or tenant is revoked
     +- SessionError                raised by SessionVerifier, Sessions and the adapters
     |   +- Unauthorised      401   there is no session
     |   +- TryRefreshToken   401   the access token does not serve; the refresh token may
     |   +- TokenTheftDetected 401  a rotated refresh token came back; the session has been ended
     |   +- TooManyRefreshes  429   one refresh token was redelivered too often
     |   +- ClaimValidationFailed 403
     |   +- DuplicateCookies  401   several cookies of one name; none can be trusted
     +- StoreUnavailable      503   an infrastructure fault; says nothing about the session
     +- CryptoFault           503   two ways of checking a signature contradict each other; says nothing about the token

Every class has a stable ``code`` (snake case) and a ``status_hint`` (HTTP). Messages say what was wrong and never hold
a token. A ``SessionError`` that has an ``InvalidToken`` behind it carries it as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class FastVerifyError(Exception):
    """The root: catches everything that this library raises on purpose."""

    code: ClassVar[str] = "error"
    status_hint: ClassVar[int] = 500


class ConfigError(FastVerifyError, ValueError):
    """A setting, key or secret that cannot work."""

    code = "config"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        #: The name of the offending field or parameter.
        self.field = field


class InvalidToken(FastVerifyError):
    """The token was refused; the subclass and ``reason`` say why."""

    code = "invalid_token"
    status_hint = 401

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message or self.code.replace("_", " "))
        #: A stable snake-case word, finer than ``code``: ``duplicate_member``, ``base64url``, ...
        self.reason = reason or self.code


class MalformedToken(InvalidToken):
    """Not a compact JWS (RFC 7515 section 7.1) of strict JSON within the size limits."""

    code = "malformed_token"


class UnsupportedToken(InvalidToken):
    """Well formed, but of a kind that is never accepted: JWE, ``crit``, ``b64``, an algorithm that is not allowed."""

    code = "unsupported_token"


class UnknownKey(InvalidToken):
    """No key of the set has this ``kid``, or the token names none and the set is not of one key."""

    code = "unknown_key"


class InvalidSignature(InvalidToken):
    """The signature does not verify under the key."""

    code = "invalid_signature"


class ExpiredToken(InvalidToken):
    """``exp`` has passed (RFC 7519 section 4.1.4)."""

    code = "expired_token"


class ImmatureToken(InvalidToken):
    """``nbf`` or ``iat`` lies in the future (RFC 7519 section 4.1.5)."""

    code = "immature_token"


class InvalidClaim(InvalidToken):
    """A claim is missing, of the wrong type, or not what the policy demands; also ``typ`` of the header."""

    code = "invalid_claim"

    def __init__(self, message: str = "", *, claim: str = "", reason: str = "") -> None:
        super().__init__(message, reason=reason)
        #: The claim's name: ``iss``, ``aud``, ``exp``, ``typ``, ...
        self.claim = claim


class RevokedToken(InvalidToken):
    """The token verifies, and is revoked."""

    code = "revoked_token"

    def __init__(self, message: str = "", *, kind: str = "session") -> None:
        super().__init__(message, reason=f"revoked_{kind}")
        #: What was revoked: ``session``, ``token``, ``key``, ``tenant`` or ``all``.
        self.kind = kind


class SessionError(FastVerifyError):
    """A verdict about a session."""

    code = "session_error"
    status_hint = 401


class Unauthorised(SessionError):
    """There is no session: sign in again."""

    code = "unauthorised"

    def __init__(self, message: str = "unauthorised", *, clear_tokens: bool = True) -> None:
        super().__init__(message)
        #: False where no usable token came with the request: then nothing may be cleared (wire.md section 2.7).
        self.clear_tokens = clear_tokens


class TryRefreshToken(SessionError):
    """This access token does not serve; the client's refresh token may."""

    code = "try_refresh_token"

    def __init__(self, message: str = "try refresh token") -> None:
        super().__init__(message)


class TokenTheftDetected(SessionError):
    """A refresh token that had been exchanged came back outside the exchange window. The session has been ended."""

    code = "token_theft_detected"

    def __init__(self, *, handle: str, user_id: str, tenant: str, reuse: str) -> None:
        super().__init__("token theft detected")
        self.handle = handle
        self.user_id = user_id
        self.tenant = tenant
        #: How old the token was: ``one_behind`` or ``older``.
        self.reuse = reuse


class TooManyRefreshes(SessionError):
    """One refresh token was presented too often inside its exchange window (a rendering storm, usually)."""

    code = "too_many_refreshes"
    status_hint = 429

    def __init__(self, *, retry_after: int) -> None:
        super().__init__("too many refreshes with one token")
        #: Seconds to wait.
        self.retry_after = retry_after


class ClaimValidationFailed(SessionError):
    """The session is good, and a claim validator refused it."""

    code = "claim_validation_failed"
    status_hint = 403

    def __init__(self, failures: Sequence[dict[str, Any]]) -> None:
        super().__init__("invalid claim")
        #: What the client is told: ``[{"id": ..., "reason": {...}}, ...]``.
        self.failures = list(failures)


class DuplicateCookies(SessionError):
    """The request holds several session cookies of one name."""

    code = "duplicate_cookies"


class StoreUnavailable(FastVerifyError):
    """The store did not answer, or what is known of it is too old to be trusted. Nothing is said about the session."""

    code = "store_unavailable"
    status_hint = 503

    def __init__(self, message: str = "the session store is unavailable", *, retry_after: int = 1) -> None:
        super().__init__(message)
        #: Seconds to wait before trying again.
        self.retry_after = retry_after


class CryptoFault(FastVerifyError):
    """A fast path accepted a signature that EVP refuses: a fault of this process, and no statement about the token.

    It is raised once; from then on EVP decides alone in this process (``openssl_info()`` says so). Please report it,
    with ``openssl_info()`` and the processor's name. The gateway's verifiers make a `StoreUnavailable` of it.
    """

    code = "crypto_fault"
    status_hint = 503

    def __init__(self) -> None:
        super().__init__(
            "two ways of checking a signature contradict each other; the fast one is off in this process from now on"
        )
