"""Keys and tokens for tests, made by the `cryptography` package: an implementation that shares no code with the core.

Keys are random, made once per process: `make_key("ES256")` is the same object each time.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from fastverify._core import Key

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
ISSUER = "https://api.example.com/auth"
#: Where the clock of the tests stands; verify(..., now=NOW).
NOW = 1_800_000_000

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def base64url(data: bytes) -> str:
    """Unpadded, RFC 7515 section 2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class SigningKey:
    """A private key or HMAC secret, bound to one algorithm."""

    algorithm: str
    kid: str
    private: Any

    def sign(self, signing_input: bytes) -> bytes:
        """The signature in its JWS form (RFC 7518 section 3, RFC 8037)."""
        family, digest = self.algorithm[:2], _HASHES.get(self.algorithm[2:])
        if family == "HS":
            return hmac.digest(self.private, signing_input, digest.name)
        if family == "RS":
            return self.private.sign(signing_input, padding.PKCS1v15(), digest)
        if family == "PS":
            return self.private.sign(signing_input, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        if family == "ES":
            r, s = utils.decode_dss_signature(self.private.sign(signing_input, ec.ECDSA(digest)))
            return p1363(self.algorithm, r, s)
        return self.private.sign(signing_input)

    @property
    def jwk(self) -> dict[str, str]:
        """The verifying key as a JWK: public, but for HMAC, which has no public half."""
        common = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        family = self.algorithm[:2]
        if family == "HS":
            return common | {"kty": "oct", "k": base64url(self.private)}
        if family in ("RS", "PS"):
            numbers = self.private.public_key().public_numbers()
            return common | {"kty": "RSA", "n": base64url(minimal(numbers.n)), "e": base64url(minimal(numbers.e))}
        if family == "ES":
            size, numbers = coordinate_size(self.algorithm), self.private.public_key().public_numbers()
            curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[self.algorithm]
            x, y = (base64url(v.to_bytes(size, "big")) for v in (numbers.x, numbers.y))
            return common | {"kty": "EC", "crv": curve, "x": x, "y": y}
        return common | {"kty": "OKP", "crv": "Ed25519", "x": base64url(self.private.public_key().public_bytes_raw())}

    @property
    def pem(self) -> bytes:
        """The public key as SubjectPublicKeyInfo."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def verifying(self) -> Key:
        """The core's key, built by its constructor: no JWK parser in between."""
        family = self.algorithm[:2]
        if family == "HS":
            return Key.hmac(self.algorithm, self.kid, self.private)
        if family in ("RS", "PS"):
            numbers = self.private.public_key().public_numbers()
            return Key.rsa(self.algorithm, self.kid, minimal(numbers.n), minimal(numbers.e))
        if family == "ES":
            size, numbers = coordinate_size(self.algorithm), self.private.public_key().public_numbers()
            return Key.ec(self.algorithm, self.kid, numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big"))
        return Key.ed25519(self.kid, self.private.public_key().public_bytes_raw())


@functools.cache
def make_key(algorithm: str, kid: str | None = None) -> SigningKey:
    """A random key; the same one for the same arguments, for the life of the process."""
    family = algorithm[:2]
    if family == "HS":
        private: Any = secrets.token_bytes(hashlib.new(f"sha{algorithm[2:]}").digest_size)
    elif family in ("RS", "PS"):
        private = rsa.generate_private_key(65537, 2048)
    elif family == "ES":
        private = ec.generate_private_key(_CURVES[algorithm])
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return SigningKey(algorithm, kid or f"key-{algorithm}", private)


def header(key: SigningKey, **changes: Any) -> dict[str, Any]:
    """The protected header of a good token, with changes."""
    return {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"} | changes


def claims(**changes: Any) -> dict[str, Any]:
    """The claims set of a good token at NOW, with changes."""
    return {"iss": ISSUER, "sub": "user-1", "iat": NOW, "exp": NOW + 3600} | changes


def encode(part: Mapping[str, Any] | bytes) -> str:
    """One segment: a mapping becomes compact JSON, bytes are taken as they are."""
    raw = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode()
    return base64url(raw)


def sign(header_: Mapping[str, Any] | bytes | None, payload: Mapping[str, Any] | bytes | None, key: SigningKey) -> str:
    """A compact JWS. None: the header or claims of a good token."""
    first, second = (
        encode(header(key) if header_ is None else header_),
        encode(claims() if payload is None else payload),
    )
    return sign_segments(first, second, key)


def sign_segments(first: str, second: str, key: SigningKey) -> str:
    """A compact JWS over two segments exactly as given, well encoded or not."""
    return f"{first}.{second}.{base64url(key.sign(f'{first}.{second}'.encode()))}"


def p1363(algorithm: str, r: int, s: int) -> bytes:
    """r and s side by side, RFC 7518 section 3.4."""
    size = coordinate_size(algorithm)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def coordinate_size(algorithm: str) -> int:
    """Bytes in a coordinate or scalar."""
    return (_CURVES[algorithm].key_size + 7) // 8


def minimal(value: int) -> bytes:
    """A positive integer, big-endian, no leading zero."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
