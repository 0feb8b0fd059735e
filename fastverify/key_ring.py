"""The ring of signing keys: which key signs, which verify, when a new one is due. Pure: times come in as arguments.

A dynamic key (kid ``d-<ms>``) is published before it signs, so that every verifier knows it by then, and goes on
verifying until the last token that it signed has expired. A static key (kid ``s-<uuid>``), one for each algorithm that
has been configured, is made once and stays. All processes on one store share the ring; the private parts lie there
sealed (AES-256-GCM) under a key that is derived from ``Config.secret``.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import msgpack
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from .config import SigningAlgorithm
from .keys import KeySet
from .session import uuid_text
from .tokens import ServiceKeys, b64url

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_log = logging.getLogger("fastverify.keys")

_KEY_ID_BYTES = 3
_NONCE_BYTES = 12
_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_CURVE_NAMES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_ECDSA = {algorithm: ec.ECDSA(_HASHES[algorithm[2:]]) for algorithm in _CURVES}


@dataclass(frozen=True, slots=True)
class RingKey:
    """One signing key. The private part is None where the process may only verify."""

    kid: str
    algorithm: str
    #: Milliseconds since the epoch.
    created_at: int
    #: Milliseconds since the epoch; from then on it signs, unless a newer key does.
    signs_at: int
    jwk: dict[str, str]
    private: PrivateKey | None = field(default=None, repr=False)
    #: Names the service secret under which the store has the private part sealed; empty if this process cannot open it.
    sealed_by: bytes = b""

    @property
    def is_static(self) -> bool:
        """Whether it stays until it is revoked."""
        return is_static(self.kid)

    def sign(self, signing_input: str) -> str:
        """The signature segment over the two segments before it (RFC 7518 section 3)."""
        message = signing_input.encode()
        match self.private:
            case ec.EllipticCurvePrivateKey() as key:
                size = (key.key_size + 7) // 8
                r, s = utils.decode_dss_signature(key.sign(message, _ECDSA[self.algorithm]))
                signature = r.to_bytes(size) + s.to_bytes(size)
            case rsa.RSAPrivateKey() as key if self.algorithm.startswith("PS"):
                digest = _hash(self.algorithm)
                signature = key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
            case rsa.RSAPrivateKey() as key:
                signature = key.sign(message, padding.PKCS1v15(), _hash(self.algorithm))
            case ed25519.Ed25519PrivateKey() as key:
                signature = key.sign(message)
            case None:
                raise RuntimeError("this process holds no private keys")
        return b64url(signature)

    def public_record(self) -> bytes:
        """What the store keeps in the open."""
        record = {"alg": self.algorithm, "created_at": self.created_at, "signs_at": self.signs_at, "jwk": self.jwk}
        return bytes(msgpack.packb(record))

    def sealed_record(self, keys: ServiceKeys, nonce: bytes) -> bytes:
        """The private part, sealed: key id, nonce, ciphertext. The kid is authenticated with it."""
        assert self.private is not None
        der = self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return keys.key_id + nonce + AESGCM(keys.seal).encrypt(nonce, der, self.kid.encode())


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every key of a store at one moment, oldest first."""

    keys: tuple[RingKey, ...] = ()

    @classmethod
    def read(cls, records: Iterable[Sequence[bytes]], secrets: Sequence[ServiceKeys] = ()) -> KeyRing:
        """Read what ``keys_read`` returned: ``(kid, public record, sealed private part or empty)`` of each key.

        A record that this version cannot read is left out, and said: one key too few is better than none at all.
        """
        keys = list(_readable(records, secrets))
        return cls(tuple(sorted(keys, key=lambda key: (key.signs_at, key.created_at, key.kid))))

    def without(self, kids: Container[str]) -> KeyRing:
        """The ring less these keys."""
        return KeyRing(tuple(key for key in self.keys if key.kid not in kids))

    @property
    def dynamic(self) -> tuple[RingKey, ...]:
        """The keys that follow one another."""
        return tuple(key for key in self.keys if not key.is_static)

    @property
    def newest(self) -> RingKey | None:
        """The dynamic key that signs next, or does already."""
        return next((key for key in reversed(self.keys) if not key.is_static), None)

    def key_set(self) -> KeySet:
        """The verifying keys. The ring must not be empty."""
        return KeySet.from_jwks(self.jwks())

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public JWK set (RFC 7517 section 5)."""
        return {"keys": [dict(key.jwk) for key in self.keys]}

    def signing_key(self, now: float) -> RingKey | None:
        """The newest dynamic key whose time has come, of those whose private part this process can open."""
        able = [key for key in self.dynamic if key.private is not None]
        ready = [key for key in able if key.signs_at <= now * 1000]
        return ready[-1] if ready else able[0] if able else None

    def static_key(self, algorithm: str) -> RingKey | None:
        """The newest static key of an algorithm, of those whose private part this process can open."""
        able = [key for key in self.keys if key.is_static and key.algorithm == algorithm and key.private is not None]
        return able[-1] if able else None

    def due_at(self, interval: int) -> float:
        """When the next key is to be made: early enough to be known everywhere before the newest one's time is up."""
        return 0.0 if self.newest is None else self.newest.signs_at / 1000 + interval - publication_delay(interval)

    def retired(self, now: float, longest_access_lifetime: int) -> list[str]:
        """The kids of dynamic keys whose last token has expired, with as much time again to spare for clocks."""
        keys = self.dynamic
        return [
            key.kid
            for key, successor in pairwise(keys)
            if successor.signs_at / 1000 + 2 * longest_access_lifetime + 60 < now
        ]


def publication_delay(interval: int) -> float:
    """Seconds for which a new key is published before it signs."""
    return min(60.0, interval / 4)


def is_static(kid: str | None) -> bool:
    """Whether a key id is that of a static key (wire.md section 1.2)."""
    return kid is not None and kid.startswith("s-")


def generate_key(algorithm: SigningAlgorithm, *, created_at: int, signs_at: int) -> RingKey:
    """Make a dynamic key pair; its kid is ``d-<created_at>`` (wire.md section 1.2). Both times are in milliseconds."""
    return _generate(f"d-{created_at}", algorithm, created_at, signs_at)


def generate_static_key(algorithm: SigningAlgorithm, *, created_at: int, raw: bytes) -> RingKey:
    """Make a static key pair; its kid is ``s-<uuid>``, of 16 random bytes. ``created_at`` is in milliseconds."""
    return _generate(f"s-{uuid_text(raw)}", algorithm, created_at, created_at)


def _generate(kid: str, algorithm: SigningAlgorithm, created_at: int, signs_at: int) -> RingKey:
    private: PrivateKey
    if algorithm in _CURVES:
        private = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, 2048)
    jwk = {"kid": kid, "alg": algorithm, "use": "sig", **_public_members(algorithm, private)}
    return RingKey(kid, algorithm, created_at, signs_at, jwk, private)


def _public_members(algorithm: str, private: PrivateKey) -> dict[str, str]:
    match private:
        case ec.EllipticCurvePrivateKey():
            point, size = private.public_key().public_numbers(), (private.key_size + 7) // 8
            return {
                "kty": "EC",
                "crv": _CURVE_NAMES[algorithm],
                "x": _number(point.x, size),
                "y": _number(point.y, size),
            }
        case rsa.RSAPrivateKey():
            modulus = private.public_key().public_numbers()
            return {"kty": "RSA", "n": _number(modulus.n), "e": _number(modulus.e)}
        case ed25519.Ed25519PrivateKey():
            raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}


def _number(value: int, size: int | None = None) -> str:
    return b64url(value.to_bytes(size or (value.bit_length() + 7) // 8))


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    return _HASHES[algorithm[2:]]


def _readable(records: Iterable[Sequence[bytes]], secrets: Sequence[ServiceKeys]) -> Iterator[RingKey]:
    for kid, public, sealed in records:
        try:
            yield _read(kid.decode(), public, sealed, secrets)
        except (KeyError, TypeError, ValueError, UnsupportedAlgorithm):
            _log.warning("the signing key %.64r in the store cannot be read by this version", kid)


def _read(kid: str, public: bytes, sealed: bytes, secrets: Sequence[ServiceKeys]) -> RingKey:
    record: dict[str, Any] = msgpack.unpackb(public)
    algorithm, jwk, times = record["alg"], record["jwk"], (record["created_at"], record["signs_at"])
    if not isinstance(algorithm, str) or not isinstance(jwk, dict) or not all(type(time) is int for time in times):
        raise TypeError("a member of another type")
    private = _unseal(kid, sealed, secrets)
    return RingKey(kid, algorithm, *times, jwk, private, sealed[:_KEY_ID_BYTES] if private is not None else b"")


def _unseal(kid: str, sealed: bytes, secrets: Sequence[ServiceKeys]) -> PrivateKey | None:
    key_id, rest = sealed[:_KEY_ID_BYTES], sealed[_KEY_ID_BYTES:]
    nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    for keys in secrets:
        if keys.key_id == key_id:
            try:
                der = AESGCM(keys.seal).decrypt(nonce, ciphertext, kid.encode())
            except InvalidTag:
                continue
            private = load_der_private_key(der, password=None)
            if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
                raise TypeError("a key of another kind")
            return private
    return None
