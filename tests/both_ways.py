"""One signature, checked through EVP, on the key's fast path, and by a verifier: three times the same verdict.

The verifier's counters show that it was the fast path that answered, and not EVP in its place.
"""

from __future__ import annotations

import pytest
from signing import base64url, encode

from fastverify import errors
from fastverify._core import Key, Verifier, openssl_info

#: Those whose fast path is watched and counted.
FAST_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256")
_FAMILIES = {"HS": "fast_hmac", "RS": "fast_rsa", "PS": "fast_rsa", "ES256": "fast_ecdsa"}


def has_fast_path(algorithm: str) -> bool:
    """Whether it has one in this libcrypto."""
    name = _FAMILIES.get(algorithm) or _FAMILIES.get(algorithm[:2])
    return name is not None and openssl_info()[name] == "yes"


needs_fast_ecdsa = pytest.mark.skipif(
    not has_fast_path("ES256"), reason="ES256 has no fast path here: see openssl_info()"
)
needs_fast_rsa = pytest.mark.skipif(not has_fast_path("RS256"), reason="RSA has no fast path here: see openssl_info()")


def signing_input(algorithm: str, number: int = 0, kid: str | None = None) -> bytes:
    """Of some JWS; another one for each number."""
    header = {"alg": algorithm} | ({} if kid is None else {"kid": kid})
    return f"{encode(header)}.{base64url(b'%d' % number)}".encode()


class BothWays:
    """A key that has a fast path, ready for it."""

    def __init__(self, key: Key) -> None:
        assert key.prepare()
        self.key = key
        self.verifier = Verifier([key], issuer=None, cache_size=0)
        modulus = (key.to_jwk() or {}).get("n")
        self.size = len(modulus) * 3 // 4 if modulus else 64

    def message(self, number: int = 0) -> bytes:
        """A signing input for this key."""
        return signing_input(self.key.algorithm, number, self.key.key_id)

    def accepts(self, message: bytes, signature: bytes) -> bool:
        """The verdict, of which there may be but one."""
        verdict = self.key.verify(message, signature)
        assert self.key.verify(message, signature, fast=True) is verdict
        before = self.verifier.crypto_info()
        assert self._verifier_accepts(message, signature) is verdict
        after = self.verifier.crypto_info()
        assert after.fast - before.fast == (len(signature) == self.size)  # another length is seen before that
        assert (after.evp, after.undecided, after.contradicted) == (0, 0, 0)
        return verdict

    def _verifier_accepts(self, message: bytes, signature: bytes) -> bool:
        try:
            self.verifier.verify_jws(message + b"." + base64url(signature).encode())
        except errors.InvalidToken:
            return False
        return True
