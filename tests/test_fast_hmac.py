"""HS256 to HS512 on their fast path, beside EVP and the standard library, which shares no code with it."""

from __future__ import annotations

import hmac
import random

import pytest
from both_ways import has_fast_path
from signing import ISSUER, NOW, make_key, sign

from fastverify import errors
from fastverify._core import Key, Verifier

pytestmark = pytest.mark.skipif(not has_fast_path("HS256"), reason="HMAC has no fast path here: see openssl_info()")

each_size = pytest.mark.parametrize("bits", [256, 384, 512])
#: Around the ends of one and two blocks of either size, less what padding takes of them.
LENGTHS = [*range(5), *(edge + step for edge in (55, 64, 111, 119, 128, 183, 239, 256) for step in (-1, 0, 1)), 5000]


def accepts(key: Key, message: bytes, tag: bytes) -> bool:
    """The verdict, of which there may be but one."""
    verdict = key.verify(message, tag)
    assert key.verify(message, tag, fast=True) is verdict
    return verdict


@each_size
@pytest.mark.parametrize("secret_length", [64, 65, 127, 128, 129, 200, 1000])
def test_secrets_and_messages_around_the_block_agree(bits: int, secret_length: int) -> None:
    choice = random.Random(bits + secret_length)
    secret = choice.randbytes(secret_length)
    key = Key.hmac(f"HS{bits}", None, secret)
    assert key.prepare()
    for length in LENGTHS:
        message = choice.randbytes(length)
        tag = hmac.digest(secret, message, f"sha{bits}")
        assert accepts(key, message, tag), length
        assert not accepts(key, message + b"\0", tag), length
        assert not accepts(key, message, hmac.digest(secret + b"\1", message, f"sha{bits}")), length


@each_size
def test_every_flipped_bit_of_tag_and_message_is_refused(bits: int) -> None:
    key = make_key(f"HS{bits}")
    verifying, message = key.verifying, b"eyJhbGciOiJub25lIn0.e30"
    tag = key.sign(message)
    for bit in range(8 * len(tag)):
        assert not accepts(verifying, message, flipped(tag, bit)), bit
    for bit in range(8 * len(message)):
        assert not accepts(verifying, flipped(message, bit), tag), bit
    assert accepts(verifying, message, tag)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@each_size
def test_other_lengths_are_refused(bits: int) -> None:
    key = make_key(f"HS{bits}")
    tag = key.sign(b"message")
    forms = [b"", tag[:-1], tag[: len(tag) // 2], tag + b"\0", tag * 2, bytes(len(tag)), bytes(1024)]
    assert [form for form in forms if accepts(key.verifying, b"message", form)] == []


@each_size
def test_a_tag_of_another_size_of_digest_is_refused(bits: int) -> None:
    """Cut or filled up to the right length."""
    secret = bytes(range(128))
    key = Key.hmac(f"HS{bits}", None, secret)
    for other in {256, 384, 512} - {bits}:
        tag = hmac.digest(secret, b"message", f"sha{other}")[: bits // 8].ljust(bits // 8, b"\0")
        assert not accepts(key, b"message", tag)


@each_size
@pytest.mark.parametrize("fast", [False, True])
def test_tokens_are_verified_on_either_path(bits: int, fast: bool) -> None:
    key = make_key(f"HS{bits}")
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0, fast_crypto=fast)
    token = sign(None, None, key)
    assert verifier.verify(token, now=NOW)["sub"] == "user-1"
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(token[:-8] + "AAAAAAAA", now=NOW)
    good, bad = verifier.verify_many([token, token[:-8] + "AAAAAAAA"], now=NOW)
    assert good["sub"] == "user-1" and type(bad) is errors.InvalidSignature
