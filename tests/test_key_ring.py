"""Which key signs, which verify, when a new one is due, and that private parts lie sealed in the store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import get_args

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastverify import ConfigError, Verifier
from fastverify.config import SigningAlgorithm
from fastverify.key_ring import KeyRing, RingKey, generate_key, generate_static_key, publication_delay
from fastverify.tokens import ServiceKeys, signing_input

KEYS = ServiceKeys.derive(bytes(range(32)))
WEEK = 604_800


def ring_key(at: float, *, signs_at: float | None = None) -> RingKey:
    return generate_key("ES256", created_at=int(at * 1000), signs_at=int((at if signs_at is None else signs_at) * 1000))


def static_key(at: float) -> RingKey:
    return generate_static_key("ES256", created_at=int(at * 1000), raw=os.urandom(16))


def stored(key: RingKey) -> tuple[bytes, bytes, bytes]:
    return key.kid.encode(), key.public_record(), key.sealed_record(KEYS, os.urandom(12))


@pytest.mark.parametrize("algorithm", get_args(SigningAlgorithm))
def test_what_a_ring_key_signs_its_published_part_verifies(algorithm: SigningAlgorithm) -> None:
    key = generate_key(algorithm, created_at=1_700_000_000_123, signs_at=1_700_000_000_123)
    ring = KeyRing.read([stored(key)], [KEYS])
    signer = ring.signing_key(1_700_000_001)
    assert signer is not None
    assert signer.kid == "d-1700000000123"
    text = signing_input(signer.kid, signer.algorithm, {"sub": "x", "exp": 2_000_000_000})
    claims = Verifier(ring.key_set(), issuer=None).verify(f"{text}.{signer.sign(text)}")
    assert claims["sub"] == "x"
    assert claims.algorithm == algorithm


def test_a_gateway_reads_no_private_part() -> None:
    key = ring_key(100)
    kid, public, _ = stored(key)
    ring = KeyRing.read([(kid, public, b"")])
    assert ring.keys[0].private is None
    assert ring.signing_key(200) is None
    assert "d" not in ring.jwks()["keys"][0]


def test_a_sealed_key_opens_under_its_own_secret_and_kid_only() -> None:
    kid, public, sealed = stored(ring_key(100))
    other = ServiceKeys.derive(bytes(range(1, 33)))
    assert KeyRing.read([(kid, public, sealed)], [other]).keys[0].private is None
    assert KeyRing.read([(kid, public, sealed)], [other, KEYS]).keys[0].private is not None
    assert KeyRing.read([(b"d-1", public, sealed)], [KEYS]).keys[0].private is None
    tampered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert KeyRing.read([(kid, public, tampered)], [KEYS]).keys[0].private is None


def test_the_private_key_is_not_in_the_public_record_nor_in_the_repr() -> None:
    key = ring_key(100)
    assert "private" not in repr(key)
    sealed = key.sealed_record(KEYS, bytes(12))
    assert key.public_record() not in sealed


def test_a_key_is_published_before_it_signs() -> None:
    first, second = ring_key(1000), ring_key(2000, signs_at=2060)
    ring = KeyRing((first, second))
    assert ring.signing_key(2059.9) is first
    assert ring.signing_key(2060) is second
    assert len(ring.jwks()["keys"]) == 2


def test_a_new_key_is_due_its_publication_delay_before_the_old_ones_time_is_up() -> None:
    assert publication_delay(WEEK) == 60
    assert publication_delay(20) == 5
    assert KeyRing().due_at(WEEK) == 0
    assert KeyRing((ring_key(1000),)).due_at(WEEK) == 1000 + WEEK - 60
    assert KeyRing((ring_key(1000), ring_key(2000, signs_at=2060))).due_at(20) == 2060 + 20 - 5


def test_a_key_is_retired_when_its_last_token_has_long_expired() -> None:
    ring = KeyRing((ring_key(1000), ring_key(2000, signs_at=2060)))
    last_token_expires = 2060 + 3600
    assert ring.retired(last_token_expires, 3600) == []
    assert ring.retired(2060 + 2 * 3600 + 61, 3600) == ["d-1000000"]
    assert KeyRing((ring_key(1000),)).retired(10**9, 3600) == []


def test_a_clock_before_all_keys_still_finds_one_to_sign() -> None:
    key = ring_key(1000)
    assert KeyRing((key,)).signing_key(10) is key
    assert KeyRing().signing_key(10) is None


def test_a_process_without_the_newest_private_key_signs_with_the_one_it_has() -> None:
    mine, foreign = ring_key(1000), replace(ring_key(2000), private=None)
    assert KeyRing((mine, foreign)).signing_key(5000) is mine


def test_a_static_key_takes_no_part_in_the_rotation() -> None:
    static, first, second = static_key(5000), ring_key(1000), ring_key(2000, signs_at=2060)
    alone, ring = KeyRing((static,)), KeyRing((first, second, static))
    assert (alone.newest, alone.signing_key(6000), alone.due_at(WEEK)) == (None, None, 0)
    assert ring.newest is second and ring.signing_key(6000) is second
    assert ring.due_at(WEEK) == 2060 + WEEK - 60
    assert ring.retired(10**9, 3600) == ["d-1000000"]
    assert static.kid in {key["kid"] for key in ring.jwks()["keys"]}


def test_the_static_key_is_the_newest_of_its_algorithm_that_this_process_can_open() -> None:
    old, new = static_key(1000), static_key(2000)
    foreign, other = replace(static_key(3000), private=None), generate_static_key("EdDSA", created_at=4, raw=bytes(16))
    ring = KeyRing((ring_key(9000), old, new, foreign, other))
    assert ring.static_key("ES256") is new
    assert ring.static_key("EdDSA") is other
    assert ring.static_key("RS256") is None
    assert other.kid == "s-00000000-0000-0000-0000-000000000000"


def test_a_key_says_which_secret_it_lies_sealed_under() -> None:
    kid, public, sealed = stored(static_key(100))
    assert KeyRing.read([(kid, public, sealed)], [KEYS]).keys[0].sealed_by == KEYS.key_id
    other = ServiceKeys.derive(bytes(range(1, 33)))
    assert KeyRing.read([(kid, public, sealed)], [other]).keys[0].sealed_by == b""


def test_an_empty_ring_makes_no_key_set() -> None:
    with pytest.raises(ConfigError):
        KeyRing().key_set()


@pytest.mark.parametrize(
    "public",
    [b"", b"\xc1", b"\x80", b"\x01", msgpack.packb({"alg": 1, "created_at": 1, "signs_at": 1, "jwk": {}}),
     msgpack.packb({"alg": "ES256", "created_at": "1", "signs_at": 1, "jwk": {}})],
)  # fmt: skip
def test_a_record_that_this_version_cannot_read_takes_no_other_key_with_it(
    public: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = ring_key(100)
    ring = KeyRing.read([(b"d-1", public, b""), stored(key), (b"\xff", public, b"")], [KEYS])
    assert [each.kid for each in ring.keys] == [key.kid]
    assert "d-1" in caplog.text


def test_a_private_part_of_another_kind_takes_no_other_key_with_it() -> None:
    key, other = ring_key(100), ring_key(200)
    strange = x25519.X25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    nonce = os.urandom(12)
    sealed = KEYS.key_id + nonce + AESGCM(KEYS.seal).encrypt(nonce, strange, other.kid.encode())
    ring = KeyRing.read([stored(key), (other.kid.encode(), other.public_record(), sealed)], [KEYS])
    assert [each.kid for each in ring.keys] == [key.kid]
