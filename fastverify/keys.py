"""`KeySet`: verifying keys read from JWK sets, PEM and secrets.

Reading is strict, and each key is bound to one algorithm by whoever configures it, never by a token (RFC 8725bis
section 3.1). In a JWK set a member that cannot be used is left out and its reason kept in `KeySet.skipped`: one bad
member of a foreign set must not take the good ones with it, and a set without any good one is an error.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ._core import Key
from .errors import ConfigError

#: RFC 7518 section 6.2.1.1 and the algorithm that goes with each curve (section 3.4).
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}
#: The same curves as the cryptography package calls them.
_PEM_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EDDSA = ("EdDSA", "Ed25519")  # RFC 8037 and RFC 9864: one algorithm


class KeySet:
    """An immutable set of verifying keys; no two have the same key id.

    Iterating gives the keys. ``a | b`` holds the keys of both. Key material is never in ``repr``.
    """

    __slots__ = ("_keys", "_skipped")

    def __init__(self, keys: Iterable[Key] = (), *, skipped: Iterable[str] = ()) -> None:
        """Make a set of ready keys.

        Raises:
            ConfigError: Two different keys have the same key id.
        """
        self._keys = tuple(dict.fromkeys(keys))
        self._skipped = tuple(skipped)
        seen: set[str] = set()
        for key in self._keys:
            if key.key_id is not None and key.key_id in seen:
                raise ConfigError("kid", f"two keys have the key id {key.key_id!r}")
            seen.add(key.key_id or "")

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, Any] | str | bytes, *, default_alg: str | None = None) -> Self:
        """Read a JWK set (RFC 7517 section 5); private members are ignored.

        Args:
            jwks: The set, as a mapping or as JSON.
            default_alg: The algorithm of members that do not name theirs; without it such members are left out.

        Raises:
            ConfigError: Not a JWK set; no member can be used; or secrets stand beside public keys, so that whoever
                publishes the set would disclose them (RFC 8725bis section 3.5).
        """
        document: object = _parse(jwks) if isinstance(jwks, str | bytes) else jwks
        members = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(members, list | tuple):
            raise ConfigError("jwks", 'a JWK set is an object with a list "keys"')
        keys: list[Key] = []
        skipped: list[str] = []
        twins = _ambiguous_key_ids(members)
        for position, member in enumerate(members):
            try:
                keys.append(_key_from_jwk(member, default_alg, twins))
            except ConfigError as error:
                skipped.append(f"{_name(position, member)}: {error}")
        if not keys:
            raise ConfigError("jwks", "no key can be used" + "".join(f"; {reason}" for reason in skipped[:5]))
        if len({key.algorithm.startswith("HS") for key in keys}) == 2:
            raise ConfigError("jwks", "a JWK set holds either secrets or public keys, not both")
        return cls(keys, skipped=skipped)

    @classmethod
    def from_pem(cls, pem: str | bytes, *, alg: str, kid: str | None = None) -> Self:
        """Read one public key ("PUBLIC KEY", "RSA PUBLIC KEY") or certificate in PEM for the algorithm ``alg``.

        Raises:
            ConfigError: Not such a PEM, a private key, or a key that must not be used with ``alg``.
        """
        data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
        if b"PRIVATE KEY-----" in data:
            raise ConfigError("pem", "this is a private key; verifying needs only the public one")
        if data.count(b"-----BEGIN ") != 1:
            raise ConfigError("pem", "there must be exactly one PEM block")
        try:
            public: object
            if b"-----BEGIN CERTIFICATE-----" in data:
                public = x509.load_pem_x509_certificate(data).public_key()
            else:
                public = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigError("pem", "not a public key or certificate in PEM") from None
        if isinstance(public, RSAPublicKey):
            rsa = public.public_numbers()
            return cls([Key.rsa(alg, kid, _big_endian(rsa.n), _big_endian(rsa.e))])
        if isinstance(public, EllipticCurvePublicKey):
            ec = public.public_numbers()
            curve = _PEM_CURVES.get(public.curve.name, public.curve.name)
            size = _curve_bytes(alg, curve)
            return cls([Key.ec(alg, kid, ec.x.to_bytes(size, "big"), ec.y.to_bytes(size, "big"))])
        if isinstance(public, Ed25519PublicKey) and alg in _EDDSA:
            return cls([Key.ed25519(kid, public.public_bytes_raw())])
        raise ConfigError("pem", f"{alg} does not go with this kind of key")

    @classmethod
    def from_secret(cls, secret: bytes, *, alg: str, kid: str | None = None) -> Self:
        """Take a shared secret of random bytes for ``HS256``, ``HS384`` or ``HS512``: at least 32, 48 or 64 of them.

        Raises:
            ConfigError: Too short, or a key of another kind (PEM, DER, JWK, SSH), which is public text to somebody.
        """
        return cls([Key.hmac(alg, kid, secret)])

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why members of the JWK set were left out, one line for each; no key material."""
        return self._skipped

    def to_jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public JWK set; shared secrets have no place in it and are left out."""
        return {"keys": [jwk for key in self._keys if (jwk := key.to_jwk()) is not None]}

    def __or__(self, other: KeySet) -> KeySet:
        if not isinstance(other, KeySet):
            return NotImplemented
        return KeySet((*self._keys, *other._keys), skipped=(*self._skipped, *other._skipped))

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        keys = ", ".join(f"{key.algorithm} {key.key_id!r}" for key in self._keys)
        return f"<KeySet of {len(self)}: {keys}>"


def _parse(text: str | bytes) -> object:
    """A JSON document; no member name twice, for then two readers could see two key sets."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ConfigError("jwks", "a member name occurs twice in one object")
        return dict(pairs)

    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, object_pairs_hook=unique)
    except ConfigError:
        raise
    except (ValueError, RecursionError):
        raise ConfigError("jwks", "not JSON") from None


def _name(position: int, member: object) -> str:
    kid = member.get("kid") if isinstance(member, Mapping) else None
    return f"keys[{position}]" + (f" (kid {kid[:128]!r})" if isinstance(kid, str) else "")


def _ambiguous_key_ids(members: Iterable[object]) -> set[str]:
    """The key ids that different members for signatures share: which of those a token means nobody can say.

    Members that could not be used for other reasons count: a broken twin does not make the other one right.
    """
    first: dict[str, object] = {}
    ambiguous = set()
    for member in members:
        if isinstance(member, Mapping) and isinstance(kid := member.get("kid"), str) and _is_for_verifying(member):
            if first.setdefault(kid, member) != member:
                ambiguous.add(kid)
    return ambiguous


def _is_for_verifying(jwk: Mapping[str, Any]) -> bool:
    """What the members about the key's purpose say, where there are any (RFC 7517 sections 4.2 and 4.3)."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list | tuple) and "verify" in operations


def _key_from_jwk(jwk: object, default_alg: str | None, ambiguous: set[str]) -> Key:
    if not isinstance(jwk, Mapping):
        raise ConfigError("jwk", "not an object")
    if not _is_for_verifying(jwk):
        raise ConfigError("use", "by use or key_ops the key is not for verifying signatures")
    kid = _text(jwk, "kid") if "kid" in jwk else None
    if kid in ambiguous:
        raise ConfigError("kid", "another member has the same key id")
    alg = _text(jwk, "alg") if "alg" in jwk else default_alg
    if alg is None:
        raise ConfigError("alg", "the member names no algorithm, and there is no default_alg")
    match _text(jwk, "kty"):
        case "oct":
            return Key.hmac(alg, kid, _octets(jwk, "k"))
        case "RSA":
            return Key.rsa(alg, kid, _number(jwk, "n"), _number(jwk, "e"))
        case "EC":
            _curve_bytes(alg, _text(jwk, "crv"))
            return Key.ec(alg, kid, _octets(jwk, "x"), _octets(jwk, "y"))
        case "OKP":
            if alg not in _EDDSA or _text(jwk, "crv") != "Ed25519":
                raise ConfigError("crv", "of the OKP keys only Ed25519 with EdDSA is supported")
            return Key.ed25519(kid, _octets(jwk, "x"))
    raise ConfigError("kty", "it is RSA, EC, OKP or oct")


def _curve_bytes(alg: str, curve: str) -> int:
    """The length of a coordinate on the curve that ``alg`` demands, which must be this one."""
    if _CURVES.get(alg) != curve:
        raise ConfigError("alg", f"{alg[:32]!r} does not go with the curve {curve[:32]!r}")
    return _COORDINATE_BYTES[curve]


def _text(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ConfigError(name, "missing, or not a string")
    return value


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    """A base64url member: no padding, no blanks, no stray bits at the end (RFC 7515 section 2)."""
    text = _text(jwk, name)
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise ConfigError(name, "not base64url")
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() != text:
        raise ConfigError(name, "not canonical base64url")
    return octets


def _number(jwk: Mapping[str, Any], name: str) -> bytes:
    """A Base64urlUInt member: big-endian, as few octets as will do (RFC 7518 section 2)."""
    octets = _octets(jwk, name)
    if not octets or octets[0] == 0:
        raise ConfigError(name, "a number has no leading zero octets (RFC 7518 section 2)")
    return octets


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
