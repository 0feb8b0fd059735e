"""Keys for fuzzing: the same in every process, so that an input found today fails again tomorrow."""

from __future__ import annotations

import functools
import random

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from signing import ISSUER, NOW, SigningKey, base64url, coordinate_size, encode, header

AUDIENCE = "https://api.example.com"
HANDLE = "3f2c5b1e-8d4a-4c6f-9b7e-0a1d2e3f4a5b"
#: What the revocation table of the claims target names.
REVOKED_HANDLE, REVOKED_TENANT = "4f2c5b1e-8d4a-4c6f-9b7e-0a1d2e3f4a5b", "gone"
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
#: The order of each curve's base point (SEC 2, sections 2.4.2, 2.5.1 and 2.6.1).
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int("FF" * 24 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "ES512": int("01" + "FF" * 32 + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}


@functools.cache
def key(algorithm: str) -> SigningKey:
    """The key of an algorithm."""
    numbers = random.Random(f"fastverify {algorithm}")
    kind = algorithm[:2]
    if kind == "HS":
        private = numbers.randbytes(64)
    elif kind in ("RS", "PS"):
        private = rsa_key(2048 if kind == "RS" else 3072)
    elif kind == "ES":
        private = ec.derive_private_key(numbers.randrange(1, ORDERS[algorithm]), CURVES[algorithm])
    else:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(numbers.randbytes(32))
    return SigningKey(algorithm, f"key-{algorithm}", private)


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key made of seeded random numbers."""
    numbers = random.Random(f"fastverify RSA {bits}")
    p, q = (prime(numbers, bits // 2) for _ in range(2))
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    exponents = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *exponents, public).private_key()


def prime(numbers: random.Random, bits: int) -> int:
    """A probable prime with its two top bits set; the loader of the key tests it again."""
    while True:
        candidate = numbers.getrandbits(bits) | 3 << bits - 2 | 1
        small = any(candidate % divisor == 0 for divisor in range(3, 1000, 2))
        if not small and candidate % 65537 != 1 and pow(2, candidate - 1, candidate) == 1:
            return candidate


def claims(**changes: object) -> dict[str, object]:
    """The claims set of a session's access token."""
    return {
        **{"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600},
        **{"jti": "b1", "tId": "public", "sessionHandle": f"{HANDLE}_public", "rsub": "user-1", "roles": ["a", "b"]},
        **{"name": "J\u00fcrgen \U0001d11e", "score": 1.5, "mfa": {"c": {"t": 1}, "v": True, "n": None}},
    } | changes


@functools.cache
def signing_input(algorithm: str) -> str:
    """The header and payload segments of the good token of an algorithm."""
    signer = key(algorithm)
    return f"{encode(header(signer))}.{encode(claims())}"


def token(algorithm: str) -> str:
    """The good token of an algorithm, freshly signed."""
    return f"{signing_input(algorithm)}.{base64url(key(algorithm).sign(signing_input(algorithm).encode()))}"


@functools.cache
def signature_size(algorithm: str) -> int:
    """The one length that a signature has: RFC 7518 sections 3.2 to 3.5, RFC 8032 section 5.1.6."""
    return len(key(algorithm).sign(b""))


def is_signature(algorithm: str, message: bytes, signature: bytes) -> bool:
    """Whether the `cryptography` package, with a libcrypto of its own, takes these bytes for the key's signature."""
    private, family, digest = key(algorithm).private, algorithm[:2], HASHES.get(algorithm[2:])
    if len(signature) != signature_size(algorithm):
        return False
    if family == "HS":
        return key(algorithm).sign(message) == signature
    public = private.public_key()
    try:
        if family == "RS":
            public.verify(signature, message, padding.PKCS1v15(), digest)
        elif family == "PS":
            public.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        elif family == "ES":
            size = coordinate_size(algorithm)
            r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
            public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(digest))
        else:
            public.verify(signature, message)
    except InvalidSignature:
        return False
    return True
