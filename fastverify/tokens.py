"""The four tokens of a session: access token, refresh token, front token, anti-CSRF token. No I/O, no clock.

Refresh token, 72 bytes, base64url without padding (96 characters)::

    version 1 | key id 3 | handle 16 | generation 4 | edge tag 16 | tag 32
    `------------- head, 24 bytes -----------------'

The edge tag is a MAC under a key of the service alone: garbage is shed without a store call. The tag is keyed with the
service's key and covers the session's secret, which lives only in the store: neither a leaked store nor a leaked
service key forges a token. Both are functions of the record, so there is exactly one token of a generation, and it can
be handed out again (rotation.md section 3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ._core import Claims, parse_unverified
from .errors import InvalidToken
from .session import ACT, DEFAULT_CLAIMS, Session, uuid_text

ACCESS_TOKEN_VERSION = "5"
SECRET_BYTES = 32
_REFRESH_TOKEN_HASH = re.compile(r"[0-9a-f]{64}")
_REFRESH_VERSION = 1
_HEAD = 24
_EDGE = 16
_REFRESH_BYTES = _HEAD + _EDGE + 32
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SORTED_ASCII = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """What is derived (HKDF-SHA256, RFC 5869) from one secret of the configuration."""

    #: 3 bytes; names the secret in refresh tokens and sealed keys.
    key_id: bytes
    edge: bytes = field(repr=False)
    refresh: bytes = field(repr=False)
    seal: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> ServiceKeys:
        """Derive the keys of one secret."""

        def expand(purpose: str, length: int = 32) -> bytes:
            return HKDF(SHA256(), length, salt=None, info=f"fastverify 1 {purpose}".encode()).derive(secret)

        return cls(
            key_id=expand("key id", 3),
            edge=expand("refresh token edge tag"),
            refresh=expand("refresh token tag"),
            seal=expand("signing keys at rest"),
        )


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token whose edge tag holds; its tag is yet to be checked against the session's secret."""

    keys: ServiceKeys
    #: 16 bytes.
    handle: bytes
    generation: int
    tag: bytes = field(repr=False)

    def belongs_to(self, secret: bytes) -> bool:
        """Whether the tag holds under the session's secret; constant time."""
        return hmac.compare_digest(self.tag, _tag(self.keys, secret, _head(self.keys, self.handle, self.generation)))


def encode_refresh_token(keys: ServiceKeys, secret: bytes, handle: bytes, generation: int) -> str:
    """The refresh token of one generation of one session."""
    head = _head(keys, handle, generation)
    return b64url(head + _edge_tag(keys, head) + _tag(keys, secret, head))


def parse_refresh_token(keys: Sequence[ServiceKeys], token: str) -> RefreshToken | None:
    """Read a refresh token that this service made, under any of its secrets; None for anything else."""
    try:
        raw = base64.urlsafe_b64decode(token)
    except (ValueError, TypeError, binascii.Error):
        return None
    # Only the canonical spelling: the lenient decoder passes over foreign characters.
    if len(raw) != _REFRESH_BYTES or raw[0] != _REFRESH_VERSION or b64url(raw) != token:
        return None
    head, edge, tag = raw[:_HEAD], raw[_HEAD : _HEAD + _EDGE], raw[_HEAD + _EDGE :]
    for candidate in keys:
        if hmac.compare_digest(candidate.key_id, head[1:4]) and hmac.compare_digest(edge, _edge_tag(candidate, head)):
            return RefreshToken(candidate, head[4:20], int.from_bytes(head[20:24]), tag)
    return None


def refresh_token_hash(refresh_token: str, generation: int) -> str:
    """``refreshTokenHash1``: 64 hexadecimal digits, the first 8 of which are the generation.

    Clients treat it as opaque; a gateway reads the generation from it, under the access token's signature.
    """
    return f"{generation:08x}" + hashlib.sha256(refresh_token.encode()).hexdigest()[8:]


def generation_of(refresh_token_hash: object) -> int | None:
    """The generation that a ``refreshTokenHash1`` names; None if it is not one of ours."""
    if isinstance(refresh_token_hash, str) and _REFRESH_TOKEN_HASH.fullmatch(refresh_token_hash):
        return int(refresh_token_hash[:8], 16)
    return None


def anti_csrf_token(secret: bytes) -> str:
    """The session's anti-CSRF token, in UUID form.

    One a session, not one a refresh: a browser that stored a new cookie but died before its script stored a new header
    must not be refused.
    """
    return uuid_text(hmac.digest(secret, b"fastverify 1 anti-csrf token", "sha256")[:16])


def front_token(claims: Claims) -> str:
    """What the page's script may read of an access token: standard base64 of ``{"uid", "ate" (ms), "up"}``.

    The keys are sorted: the client compares the text of two payloads to see whether anything changed.
    """
    front = {"uid": claims["sub"], "ate": claims.expires_at * 1000, "up": claims.to_dict()}
    return base64.b64encode(_SORTED_ASCII.encode(front).encode()).decode()


def strip_default_claims(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The application's part of a payload: the names that a session sets itself are dropped, as SuperTokens does."""
    return {name: value for name, value in payload.items() if name not in DEFAULT_CLAIMS and name not in ("stt", ACT)}


def signing_input(kid: str, algorithm: str, payload: Mapping[str, Any], *, session: bool = True) -> str:
    """Header and payload segments of an access token, or of another JWT (RFC 7515 section 3.1).

    Raises:
        ValueError: the payload is not JSON.
    """
    return f"{_header(kid, algorithm, session)}.{b64url(_json(payload))}"


def minted_session(access_token: str) -> Session:
    """The session of a token that was signed a moment ago.

    Raises:
        ValueError: no verifier would accept it: the payload is too large, too deep, or misuses a registered claim.
    """
    try:
        return Session.from_claims(parse_unverified(access_token))
    except InvalidToken as error:
        raise ValueError(f"the payload does not make a valid access token: {error}") from error


def minted_claims(token: str) -> Claims:
    """The claims of a token that was signed a moment ago.

    Raises:
        ValueError: no verifier would accept it: the payload is too large, too deep, or misuses a registered claim.
    """
    try:
        return parse_unverified(token)
    except InvalidToken as error:
        raise ValueError(f"the payload does not make a valid token: {error}") from error


@lru_cache(64)
def _header(kid: str, algorithm: str, session: bool) -> str:
    version = {"version": ACCESS_TOKEN_VERSION} if session else {}
    return b64url(_json({"alg": algorithm, "kid": kid, "typ": "JWT", **version}))


def _json(value: Mapping[str, Any]) -> bytes:
    try:
        return _JSON.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the payload is not JSON: {error}") from error


def _head(keys: ServiceKeys, handle: bytes, generation: int) -> bytes:
    return bytes((_REFRESH_VERSION,)) + keys.key_id + handle + generation.to_bytes(4)


def _edge_tag(keys: ServiceKeys, head: bytes) -> bytes:
    return hmac.digest(keys.edge, head, "sha256")[:_EDGE]


def _tag(keys: ServiceKeys, secret: bytes, head: bytes) -> bytes:
    return hmac.digest(keys.refresh, secret + head, "sha256")


def same_text(one: str | None, other: str | None) -> bool:
    """Whether two secrets are there and equal; constant time."""
    if not isinstance(one, str) or not isinstance(other, str) or not one:
        return False
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
