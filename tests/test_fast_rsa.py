"""RS256 to PS512 on their fast path beside EVP: blocks that a private key was made to sign although no signer would
(row A25).

Raising to the private exponent makes a signature of any number below the modulus, so each block here is what the check
finds when it has raised the signature to the public one.
"""

from __future__ import annotations

import functools
import hashlib
import math
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from both_ways import BothWays, needs_fast_rsa, signing_input
from signing import base64url, make_key, minimal

from fastverify._core import Key, Verifier

pytestmark = needs_fast_rsa

SIZES = (2048, 2049, 2055, 2056, 3072, 4096)
EXPONENTS = (65537, 65539, 2**32 + 15, 2**64 - 59)
RS, PS = ("RS256", "RS384", "RS512"), ("PS256", "PS384", "PS512")


def is_prime(n: int) -> bool:
    """Miller and Rabin; wrong for a random number less than once in a lifetime."""
    if any(n % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        return False
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    for base in (2, 3, 5, 7, 11, 13, 17):
        power = pow(base, n >> twos, n)
        if power != 1 and all(pow(power, 1 << i, n) != n - 1 for i in range(twos)):
            return False
    return True


def random_prime(low: int, high: int) -> int:
    """One whose predecessor has no factor in common with the exponents used here."""
    while True:
        n = low + secrets.randbelow(high - low) | 1
        if is_prime(n) and math.gcd(n - 1, math.prod(EXPONENTS)) == 1:
            return n


class PrivateKey:
    """Of many small primes (RFC 8017 section 3.2), which makes raising to the private exponent quick."""

    def __init__(self, bits: int) -> None:
        self.primes = [random_prime(2**511, 2**512) for _ in range(bits // 512 - 1)]
        rest = math.prod(self.primes)
        # Between 3/4 and 7/8 of the largest number of that length: many numbers of one bit less stay below the modulus
        # when that bit is set, and some numbers below it have room for the modulus on top.
        self.primes.append(random_prime(3 * 2 ** (bits - 2) // rest + 1, 7 * 2 ** (bits - 3) // rest))
        self.n, self.bits, self.size = math.prod(self.primes), bits, (bits + 7) // 8
        assert self.n.bit_length() == bits

    def power(self, number: int, e: int = 65537) -> int:
        """number^d mod n, from its remainders modulo the primes."""
        total, product = 0, 1
        for prime in self.primes:
            remainder = pow(number, pow(e, -1, prime - 1), prime)
            total += product * ((remainder - total) * pow(product, -1, prime) % prime)
            product *= prime
        return total

    def sign(self, block: bytes, e: int = 65537) -> bytes:
        number = int.from_bytes(block, "big")
        assert len(block) == self.size and number < self.n
        return self.power(number, e).to_bytes(self.size, "big")


private_key = functools.cache(PrivateKey)


@functools.cache
def both_ways(algorithm: str, bits: int = 2048) -> BothWays:
    return BothWays(Key.rsa(algorithm, None, minimal(private_key(bits).n), b"\1\0\1"))


def digest_of(algorithm: str, message: bytes) -> bytes:
    return hashlib.new(f"sha{algorithm[2:]}", message).digest()


# --- RSASSA-PKCS1-v1_5 ---

_NIST = bytes.fromhex("6086480165030402")  # 2.16.840.1.101.3.4.2: joint-iso-itu-t ... hashAlgs
OIDS = {"256": _NIST + b"\1", "384": _NIST + b"\2", "512": _NIST + b"\3", "224": _NIST + b"\4"}
OIDS |= {"1": bytes.fromhex("2b0e03021a"), "256WithRSA": bytes.fromhex("2a864886f70d01010b")}


def der(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


def ber(tag: int, content: bytes) -> bytes:
    """With the length in two bytes where one would do."""
    return bytes((tag, 0x81, len(content))) + content


def digest_info(algorithm: str, digest: bytes, *, oid: str = "", null: bytes = b"\5\0") -> bytes:
    name = der(6, OIDS[oid or algorithm[2:]])
    return der(0x30, der(0x30, name + null) + der(4, digest))


def pkcs1(size: int, ending: bytes, start: bytes = b"\0\1", separator: bytes = b"\0") -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2), filled up with FF."""
    return start + b"\xff" * (size - len(start + separator + ending)) + separator + ending


def with_byte(block: bytes, at: int, value: int) -> bytes:
    changed = bytearray(block)
    changed[at] = value
    return bytes(changed)


def bad_blocks(algorithm: str, size: int, digest: bytes, other: bytes) -> dict[str, bytes]:
    """Blocks for a digest (and that of another message), each wrong in one way."""
    info = digest_info(algorithm, digest)
    oid, value, good = der(6, OIDS[algorithm[2:]]), der(4, digest), pkcs1(size, info)
    identifier = der(0x30, oid + b"\5\0")
    start = size - len(info) - 1  # of the separator
    inner = {
        "no_null": digest_info(algorithm, digest, null=b""),
        "null_with_a_long_length": digest_info(algorithm, digest, null=b"\5\x81\0"),
        "null_of_one_byte": digest_info(algorithm, digest, null=b"\5\1\0"),
        "parameters_are_a_sequence": digest_info(algorithm, digest, null=b"\x30\0"),
        "null_twice": digest_info(algorithm, digest, null=b"\5\0\5\0"),
        "oid_of_sha1": digest_info(algorithm, digest, oid="1"),
        "oid_of_sha224": digest_info(algorithm, digest, oid="224"),
        "oid_of_the_signature": digest_info(algorithm, digest, oid="256WithRSA"),
        "oid_of_another_sha2": digest_info(algorithm, digest, oid="512" if algorithm != "RS512" else "256"),
        "oid_shortened": der(0x30, der(0x30, der(6, OIDS[algorithm[2:]][:-1]) + b"\5\0") + value),
        "outer_length_in_ber": ber(0x30, identifier + value),
        "inner_length_in_ber": der(0x30, ber(0x30, oid + b"\5\0") + value),
        "oid_length_in_ber": der(0x30, der(0x30, ber(6, OIDS[algorithm[2:]]) + b"\5\0") + value),
        "digest_length_in_ber": der(0x30, identifier + ber(4, digest)),
        "indefinite_length": b"\x30\x80" + identifier + value + b"\0\0",
        "digest_in_a_constructed_string": der(0x30, identifier + der(0x24, value)),
        "digest_as_a_bit_string": der(0x30, identifier + der(3, b"\0" + digest)),
        "digest_as_another_tag": der(0x30, identifier + der(0x0C, digest)),
        "digest_one_byte_shorter": digest_info(algorithm, digest[:-1]),
        "digest_one_byte_longer": digest_info(algorithm, digest + b"\0"),
        "digest_empty": digest_info(algorithm, b""),
        "digest_of_another_message": digest_info(algorithm, other),
        "digest_alone": digest,
        "no_identifier": der(0x30, value),
        "value_before_identifier": der(0x30, value + identifier),
        "more_after_the_digest_inside": der(0x30, identifier + value + b"\5\0"),
        "more_after_the_digest_outside": info + b"\5\0",
        "one_byte_after_it": info + b"\0",
        "zeros_before_it": b"\0\0" + info,
        "twice": info + info,
        "nothing": b"",
    }
    whole = {
        "first_byte_01": with_byte(good, 0, 1),
        "type_0": pkcs1(size, info, b"\0\0"),
        "type_0_filled_with_zeros": b"\0" * (size - len(info)) + info,
        "type_2": pkcs1(size, info, b"\0\2"),
        "type_81": pkcs1(size, info, b"\0\x81"),
        "without_the_first_zero": pkcs1(size, info, b"\1"),
        "with_two_first_zeros": pkcs1(size, info, b"\0\0\1"),
        "separator_missing": pkcs1(size, info, separator=b""),
        "separator_is_01": pkcs1(size, info, separator=b"\1"),
        "separator_is_fe": pkcs1(size, info, separator=b"\xfe"),
        "two_separators": pkcs1(size, info, separator=b"\0\0"),
        "eight_ff_and_the_rest_after_the_digest": (b"\0\1" + b"\xff" * 8 + b"\0" + info).ljust(size, b"\xa5"),
        "eight_ff_and_zeros_after_the_digest": (b"\0\1" + b"\xff" * 8 + b"\0" + info).ljust(size, b"\0"),
        "no_ff_at_all": (b"\0\1\0" + info).ljust(size, b"\xff"),
        "no_ff_and_the_digest_at_the_end": b"\0\1\0" + bytes(size - 3 - len(info)) + info,
        "random_filling": b"\0\1" + bytes(secrets.choice(range(1, 255)) for _ in range(start - 2)) + b"\0" + info,
        "zeros": bytes(size),
        "one": bytes(size - 1) + b"\1",
    }
    places = {"first": 2, "ninth": 10, "middle": start // 2, "last": start - 1}
    filling = {f"{place}_ff_is_{value:02x}": with_byte(good, at, value) for place, at in places.items()
               for value in (0x00, 0x01, 0x7F, 0xFE)}  # fmt: skip
    return {name: pkcs1(size, ending) for name, ending in inner.items()} | whole | filling


@pytest.mark.parametrize("algorithm", RS)
def test_every_variant_of_the_padding_is_refused_and_the_one_form_accepted(algorithm: str) -> None:
    both, key = both_ways(algorithm), private_key(2048)
    message = both.message()
    digest, other = digest_of(algorithm, message), digest_of(algorithm, b"other")
    assert both.accepts(message, key.sign(pkcs1(key.size, digest_info(algorithm, digest))))
    blocks = bad_blocks(algorithm, key.size, digest, other)
    assert [name for name, block in blocks.items() if both.accepts(message, key.sign(block))] == []


# --- RSASSA-PSS ---


def mgf1(name: str, seed: bytes, length: int, first: int = 0) -> bytes:
    """RFC 8017 section B.2.1."""
    blocks = range(first, first + length // hashlib.new(name).digest_size + 1)
    return b"".join(hashlib.new(name, seed + n.to_bytes(4, "big")).digest() for n in blocks)[:length]


def pss(algorithm: str, digest: bytes, bits: int, **wrong: Any) -> bytes:
    """EMSA-PSS (RFC 8017 section 9.1.1) for a modulus of so many bits, with what may be wrong in it."""
    name = f"sha{algorithm[2:]}"
    length, size = (bits + 6) // 8, len(digest)  # of the encoded message, which is a bit shorter than the modulus
    salt = wrong.get("salt", secrets.token_bytes(size))
    hash_ = hashlib.new(name, wrong.get("zeros", bytes(8)) + digest + salt).digest()
    hash_ = wrong.get("hash", hash_)
    trailer = wrong.get("trailer", b"\xbc")
    data = wrong.get("separator", b"\1") + wrong.get("salt_in_data", salt)
    data = bytearray(data.rjust(length - size - len(trailer), b"\0"))
    for at, value in wrong.get("data", {}).items():
        data[at] = value
    mask = wrong.get("mgf", mgf1)(wrong.get("mgf_name", name), hash_, len(data))
    masked = bytearray(a ^ b for a, b in zip(data, mask, strict=True))
    masked[0] &= 0xFF >> (8 * length - bits + 1)
    masked[0] |= wrong.get("top", 0)
    return (bytes(masked) + hash_ + trailer).rjust((bits + 7) // 8, b"\0")


def bad_pss(algorithm: str, digest: bytes, bits: int) -> dict[str, bytes]:
    size, room = len(digest), (bits + 6) // 8 - len(digest) - 2
    make: Callable[..., bytes] = functools.partial(pss, algorithm, digest, bits)
    salts = {length: secrets.token_bytes(length) for length in (0, 1, 20, size - 1, size + 1, 2 * size, room)}
    other = "sha512" if algorithm != "PS512" else "sha256"
    last = room - size - 1  # of the zeros
    return {
        **{f"salt_of_{length}": make(salt=salt) for length, salt in salts.items()},
        **{f"trailer_{value:02x}": make(trailer=bytes((value,))) for value in (0x00, 0xBB, 0xBD, 0xCC, 0x3C, 0xFF)},
        "trailer_of_two_bytes": make(trailer=b"\x34\xcc"),
        **{f"separator_{value:02x}": make(separator=bytes((value,))) for value in (0x00, 0x02, 0x03, 0x80, 0xFF)},
        "separator_one_byte_late": make(separator=b"\0", salt_in_data=b"\1" + secrets.token_bytes(size - 1)),
        "separator_one_byte_early": make(separator=b"\1\0"),
        **{f"zero_{at}_is_{value:02x}": make(data={at: value}) for at in (1, last // 2, last) for value in (1, 0x80)},
        "first_zero_is_01": make(data={0: 1}),
        "mask_by_sha1": make(mgf_name="sha1"),
        "mask_by_another_sha2": make(mgf_name=other),
        "mask_counted_from_1": make(mgf=functools.partial(mgf1, first=1)),
        "no_mask": make(mgf=lambda _, __, length: bytes(length)),
        "no_zeros_before_the_digest": make(zeros=b""),
        "seven_zeros_before_the_digest": make(zeros=bytes(7)),
        "ones_before_the_digest": make(zeros=b"\xff" * 8),
        "another_salt_than_was_hashed": make(salt_in_data=secrets.token_bytes(size)),
        "digest_in_place_of_the_hash": make(hash=digest),
        "hash_of_zeros": make(hash=bytes(size)),
    }


@pytest.mark.parametrize("algorithm", PS)
def test_every_variant_of_pss_is_refused_and_the_one_form_accepted(algorithm: str) -> None:
    both, key = both_ways(algorithm), private_key(2048)
    message = both.message()
    digest = digest_of(algorithm, message)
    for salt in (bytes(len(digest)), b"\xff" * len(digest), secrets.token_bytes(len(digest))):
        assert both.accepts(message, key.sign(pss(algorithm, digest, 2048, salt=salt)))
    blocks = bad_pss(algorithm, digest, 2048)
    assert [name for name, block in blocks.items() if both.accepts(message, key.sign(block))] == []


@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("algorithm", PS)
def test_a_bit_above_the_encoded_message_is_refused(algorithm: str, bits: int) -> None:
    """The topmost bit of the modulus's length, which the encoded message does not have: for 2049 bits a whole byte."""
    both, key = both_ways(algorithm, bits), private_key(bits)
    message = both.message(bits)
    digest = digest_of(algorithm, message)
    for _ in range(1000):
        block = pss(algorithm, digest, bits)
        raised = int.from_bytes(block, "big") | 1 << (bits - 1)
        if raised < key.n:
            break
    assert both.accepts(message, key.sign(block))
    assert not both.accepts(message, key.sign(raised.to_bytes(key.size, "big")))


def good_block(algorithm: str, message: bytes, bits: int = 2048) -> bytes:
    digest = digest_of(algorithm, message)
    if algorithm in PS:
        return pss(algorithm, digest, bits)
    return pkcs1((bits + 7) // 8, digest_info(algorithm, digest))


# --- both ---


@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("algorithm", [*RS, *PS])
def test_a_modulus_of_any_size_agrees_whatever_the_bits_of_its_first_byte(algorithm: str, bits: int) -> None:
    both, key = both_ways(algorithm, bits), private_key(bits)
    message = both.message(bits)
    block = good_block(algorithm, message, bits)
    assert both.accepts(message, key.sign(block))
    assert not both.accepts(both.message(1), key.sign(block))
    for at in (0, 1, 2, key.size // 2, key.size - 66, key.size - 2, key.size - 1):
        changed = with_byte(block, at, block[at] ^ 1)
        if int.from_bytes(changed, "big") < key.n:
            assert not both.accepts(message, key.sign(changed)), at


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_change_of_any_byte_of_the_block_is_refused(algorithm: str) -> None:
    both, key = both_ways(algorithm), private_key(2048)
    message = both.message()
    block = good_block(algorithm, message)
    for at in range(key.size):
        assert not both.accepts(message, key.sign(with_byte(block, at, block[at] ^ 1))), at


# --- the number ---


@pytest.mark.parametrize("bits", [2048, 2049, 2055, 2056])
@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_signature_not_below_the_modulus_is_refused(algorithm: str, bits: int) -> None:
    both, key = both_ways(algorithm, bits), private_key(bits)
    top = 256**key.size
    for number in range(1000):  # one with room for the modulus above it
        message = both.message(number)
        good = int.from_bytes(key.sign(good_block(algorithm, message, bits)), "big")
        if good + key.n < top:
            break
    raised = [good + times * key.n for times in (1, 2, 3, 64, 127) if good + times * key.n < top]
    assert raised
    edges = [0, 1, 2, key.n - 1, key.n, key.n + 1, key.n - good, top - 1, top - 2]
    assert both.accepts(message, good.to_bytes(key.size, "big"))
    wrong = [n for n in [*raised, *edges] if n < top and both.accepts(message, n.to_bytes(key.size, "big"))]
    assert wrong == []


@pytest.mark.parametrize("algorithm", ["RS256", "PS512"])
def test_other_lengths_are_refused(algorithm: str) -> None:
    both, key = BothWays(make_key(algorithm).verifying), make_key(algorithm)
    message = both.message()
    good = key.sign(message)
    forms = [b"", good[:-1], good[1:], good + b"\0", b"\0" + good, good * 2, bytes(1024)]
    assert [form for form in forms if both.accepts(message, form)] == []


# --- which keys ---


@pytest.mark.parametrize("exponent", EXPONENTS[1:])
@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_another_exponent_has_no_fast_path_and_verifies(algorithm: str, exponent: int) -> None:
    private = private_key(2048)
    key = Key.rsa(algorithm, None, minimal(private.n), minimal(exponent))
    message, another = signing_input(algorithm, 1), signing_input(algorithm, 2)
    signature = private.sign(good_block(algorithm, message), exponent)
    assert not key.prepare()
    for fast in (False, True):
        assert key.verify(message, signature, fast=fast)
        assert not key.verify(another, signature, fast=fast)
    verifier = Verifier([key], issuer=None)
    assert verifier.prepare_keys() == 0
    assert verifier.verify_jws(message + b"." + base64url(signature).encode()) == b"1"
    assert (verifier.crypto_info().fast, verifier.crypto_info().evp) == (0, 1)
