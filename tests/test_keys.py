"""Keys: what verifies, what does not, and what is refused as a key (security.md rows J10, J11, A2-A4, A9, A23-A26)."""

from __future__ import annotations

import base64
import hmac
import json
import pickle
import random
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fastverify._core import Key, openssl_info
from fastverify.errors import ConfigError
from fastverify.keys import KeySet

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES = {
    "ES256": (ec.SECP256R1(), "P-256", 32),
    "ES384": (ec.SECP384R1(), "P-384", 48),
    "ES512": (ec.SECP521R1(), "P-521", 66),
}
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": int("1" + 65 * "f" + "a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
}
P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {name: ec.generate_private_key(curve) for name, (curve, _, _) in CURVES.items()}
ED_KEY = ed25519.Ed25519PrivateKey.generate()
SECRET = bytes(range(100, 164))
MESSAGE = b"eyJhbGciOiJub25lIn0.e30"


class Pair(NamedTuple):
    """A verifying key and what signs for it."""

    key: Key
    sign: Callable[[bytes], bytes]


def octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pair(alg: str) -> Pair:
    digest = HASHES.get(alg[2:])
    if alg.startswith("HS"):
        return Pair(Key.hmac(alg, "k", SECRET), lambda data: hmac.digest(SECRET, data, f"sha{alg[2:]}"))
    if alg.startswith(("RS", "PS")):
        numbers = RSA_KEY.public_key().public_numbers()
        pad: Any = padding.PKCS1v15()
        if alg.startswith("PS"):
            pad = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return Pair(
            Key.rsa(alg, "k", octets(numbers.n), octets(numbers.e)), lambda data: RSA_KEY.sign(data, pad, digest)
        )
    if alg.startswith("ES"):
        _, _, size = CURVES[alg]
        return Pair(ec_key(alg), lambda data: p1363(EC_KEYS[alg].sign(data, ec.ECDSA(digest)), size))
    return Pair(Key.ed25519("k", ED_KEY.public_key().public_bytes_raw()), ED_KEY.sign)


def p1363(der: bytes, size: int) -> bytes:
    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(der))


def ec_key(alg: str) -> Key:
    numbers, size = EC_KEYS[alg].public_key().public_numbers(), CURVES[alg][2]
    return Key.ec(alg, "k", numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big"))


ALGORITHMS = [
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
each_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


# Verifying.


@each_algorithm
def test_good_signature_verifies_and_every_flipped_bit_does_not(alg: str) -> None:
    key, sign = pair(alg)
    signature = sign(MESSAGE)
    assert key.algorithm == alg
    assert key.verify(MESSAGE, signature)
    step = 7 if alg in ("ES384", "ES512") else 1  # slow in most builds of libcrypto
    for bit in range(0, 8 * len(signature), step):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not key.verify(MESSAGE, bytes(flipped)), bit
    for bit in range(8 * len(MESSAGE)):
        changed = bytearray(MESSAGE)
        changed[bit // 8] ^= 1 << bit % 8
        if bit % step == 0:
            assert not key.verify(bytes(changed), signature), bit
    assert key.verify(MESSAGE, signature), "a context that has refused serves again"


@each_algorithm
def test_signature_of_any_other_length_is_refused(alg: str) -> None:
    key, sign = pair(alg)
    good = sign(MESSAGE)
    for bad in (
        b"",
        good[:-1],
        good[1:],
        good + b"\0",
        b"\0" + good,
        good * 2,
        good.ljust(16384, b"\0"),
        bytes(len(good)),
    ):
        assert not key.verify(MESSAGE, bad)


@each_algorithm
def test_empty_and_long_messages_verify(alg: str) -> None:
    key, sign = pair(alg)
    for message in (b"", b"a", bytes(63), bytes(64), bytes(127), bytes(128), bytes(100_000)):
        assert key.verify(message, sign(message))


def test_signature_of_one_algorithm_is_no_signature_of_another_on_the_same_key() -> None:
    pairs = [pair(alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")]
    for key, _ in pairs:
        verdicts = [key.verify(MESSAGE, sign(MESSAGE)) for _, sign in pairs]
        assert verdicts == [key is other for other, _ in pairs]


def test_pss_salt_of_another_length_is_refused() -> None:
    for salt in (0, 20, 31, 33):
        signature = RSA_KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
        assert not pair("PS256").key.verify(MESSAGE, signature)


def test_pss_with_another_mask_digest_is_refused() -> None:
    signature = RSA_KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256())
    assert not pair("PS256").key.verify(MESSAGE, signature)


def test_rsa_signature_with_a_leading_zero_verifies_only_at_full_length() -> None:
    key, sign = pair("RS256")
    message, signature = next((m, s) for m, s in ((b"%d" % i, sign(b"%d" % i)) for i in range(100_000)) if s[0] == 0)
    assert key.verify(message, signature)
    assert not key.verify(message, signature.lstrip(b"\0"))


def test_rsa_signature_plus_modulus_is_refused() -> None:
    key, sign = pair("RS256")
    modulus = RSA_KEY.public_key().public_numbers().n
    raised = int.from_bytes(sign(MESSAGE), "big") + modulus
    assert not key.verify(MESSAGE, raised.to_bytes(257, "big"))
    if raised < 2**2048:
        assert not key.verify(MESSAGE, raised.to_bytes(256, "big"))


@pytest.mark.parametrize("alg", CURVES)
def test_ecdsa_scalars_out_of_range_are_refused(alg: str) -> None:
    key, sign = pair(alg)
    size, order = CURVES[alg][2], ORDERS[alg]
    good = sign(MESSAGE)
    r, s = int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big")
    top = 2 ** (8 * size) - 1
    assert key.verify(MESSAGE, r.to_bytes(size, "big") + (order - s).to_bytes(size, "big")), "ECDSA's own malleability"
    edges = [0, 1, order - 1, order, order + 1, top]
    cases = [(a, b) for a in edges for b in edges] + [(r, b) for b in edges] + [(a, s) for a in edges]
    cases += [(a, b) for a, b in ((r + order, s), (r, s + order), (s, r), (order - r, s)) if max(a, b) <= top]
    for a, b in cases:
        assert not key.verify(MESSAGE, a.to_bytes(size, "big") + b.to_bytes(size, "big")), (a, b)


@pytest.mark.parametrize("alg", CURVES)
def test_ecdsa_signature_in_der_is_refused(alg: str) -> None:
    key, sign = pair(alg)
    size, good = CURVES[alg][2], sign(MESSAGE)
    der = encode_dss_signature(int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big"))
    assert not key.verify(MESSAGE, der)
    assert not key.verify(MESSAGE, der[: 2 * size].ljust(2 * size, b"\0"))


def test_ecdsa_scalars_with_leading_zeros_verify() -> None:
    key, sign = pair("ES256")
    wanted = {
        0,
        32,
    }  # r, then s, with a first byte of zero; the second byte comes with and without its top bit by itself
    for _ in range(20_000):
        signature = sign(MESSAGE)
        assert key.verify(MESSAGE, signature)
        wanted -= {at for at in (0, 32) if signature[at] == 0}
        if not wanted:
            return
    pytest.fail("20,000 signatures and none with a leading zero")


def test_ed25519_scalar_raised_by_the_group_order_is_refused() -> None:
    key, sign = pair("EdDSA")
    good = sign(MESSAGE)
    raised = int.from_bytes(good[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    assert not key.verify(MESSAGE, good[:32] + raised.to_bytes(32, "little"))


@pytest.mark.parametrize("bits", ["256", "384", "512"])
@pytest.mark.parametrize("length", [64, 65, 127, 128, 129, 1000])
def test_hmac_agrees_with_the_standard_library_for_secrets_around_the_block_length(bits: str, length: int) -> None:
    secret = random.Random(length).randbytes(length)
    key = Key.hmac(f"HS{bits}", None, secret)
    tag = hmac.digest(secret, MESSAGE, f"sha{bits}")
    assert key.verify(MESSAGE, tag)
    assert not key.verify(MESSAGE, hmac.digest(secret + b"\1", MESSAGE, f"sha{bits}"))


# What a key is.


def test_key_shows_its_name_and_not_its_material() -> None:
    assert repr(Key.hmac("HS256", "mine", SECRET)) == "<Key HS256 kid='mine'>"
    assert repr(pair("EdDSA").key) == "<Key EdDSA kid='k'>"


def test_key_is_immutable_final_and_not_picklable() -> None:
    key = pair("HS256").key
    for name in ("algorithm", "key_id", "anything"):
        with pytest.raises(AttributeError):
            setattr(key, name, "RS256")
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        type("Sub", (Key,), {})


def test_key_not_made_by_its_makers_verifies_nothing() -> None:
    with pytest.raises(TypeError, match="made by"):
        Key()
    empty = Key.__new__(Key)
    assert not empty.verify(b"", b"")
    assert empty.to_jwk() is None


def test_keys_are_equal_when_algorithm_id_and_material_are() -> None:
    key = Key.hmac("HS256", "a", SECRET)
    assert key == Key.hmac("HS256", "a", SECRET)
    assert hash(key) == hash(Key.hmac("HS256", "a", SECRET))
    others = [Key.hmac("HS256", "b", SECRET), Key.hmac("HS384", "a", SECRET), Key.hmac("HS256", "a", SECRET + b"x")]
    assert all(key != other for other in [*others, Key.hmac("HS256", None, SECRET), "a"])


@pytest.mark.parametrize("call", ["signing_input", "signature"])
@pytest.mark.parametrize("value", ["text", bytearray(32), None, 1])
def test_verify_takes_bytes_only(call: str, value: Any) -> None:
    arguments = {"signing_input": MESSAGE, "signature": bytes(32), call: value}
    with pytest.raises(TypeError):
        pair("HS256").key.verify(**arguments)


@pytest.mark.parametrize("kid", ["", "x" * 129, "\u00e9" * 65, "\ud800"])
def test_key_id_empty_too_long_or_not_unicode_is_refused(kid: str) -> None:
    with pytest.raises(ConfigError, match=r"^kid:"):
        Key.hmac("HS256", kid, SECRET)


@pytest.mark.parametrize("kid", ["x" * 128, "\u00e9" * 64, "../../dev/null", "' OR 1=1", "a\0b"])
def test_key_id_is_any_other_text(kid: str) -> None:
    assert Key.hmac("HS256", kid, SECRET).key_id == kid


@pytest.mark.parametrize("kid", [1, b"k", ["k"]])
def test_key_id_of_another_type_is_an_error(kid: Any) -> None:
    with pytest.raises(TypeError):
        Key.hmac("HS256", kid, SECRET)


@pytest.mark.parametrize(
    "alg", ["none", "", "hs256", "HS256 ", "HS256\0", "ES256K", "RS1", "ES521", "A256GCM", "RS256", "ES256", "EdDSA"]
)
def test_hmac_key_for_anything_but_an_hmac_algorithm_is_refused(alg: str) -> None:
    with pytest.raises(ConfigError, match=r"^alg:"):
        Key.hmac(alg, None, SECRET)


def test_each_kind_of_key_serves_its_own_algorithms_only() -> None:
    numbers = RSA_KEY.public_key().public_numbers()
    for alg in ALGORITHMS:
        if not alg.startswith(("RS", "PS")):
            with pytest.raises(ConfigError, match=r"^alg:"):
                Key.rsa(alg, None, octets(numbers.n), octets(numbers.e))
        if not alg.startswith("ES"):
            with pytest.raises(ConfigError, match=r"^alg:"):
                Key.ec(alg, None, bytes(32), bytes(32))


def test_openssl_info_names_both_libraries() -> None:
    info = openssl_info()
    assert info["running"].startswith("OpenSSL ")
    assert info["built_against"].startswith("OpenSSL ")
    assert info["linkage"] in ("shared", "static")


# Which keys are refused.


def rsa_refusal(n: int, e: int = 65537) -> str:
    with pytest.raises(ConfigError) as caught:
        Key.rsa("RS256", None, octets(n), octets(e))
    return str(caught.value)


def test_rsa_modulus_too_small_too_large_or_even_is_refused() -> None:
    modulus = RSA_KEY.public_key().public_numbers().n
    assert "bits" in rsa_refusal(modulus >> 1 | 1)
    assert "bits" in rsa_refusal(2**8192 + 1)
    assert "bits" in rsa_refusal(0)
    assert "even" in rsa_refusal(modulus - 1)


@pytest.mark.parametrize("e", [0, 1, 2, 3, 17, 257, 65535, 65536, 65538, 2**64 + 1, 2**2047 + 1])
def test_rsa_exponent_even_small_or_enormous_is_refused(e: int) -> None:
    assert rsa_refusal(RSA_KEY.public_key().public_numbers().n, e).startswith("e:")


def test_rsa_modulus_that_is_prime_or_has_a_small_factor_is_refused() -> None:
    numbers = RSA_KEY.private_numbers()
    assert "valid" in rsa_refusal(3 * (numbers.public_numbers.n // 3 | 1))
    assert "valid" in rsa_refusal(2**2203 - 1)  # a Mersenne prime


def test_rsa_modulus_with_the_roca_fingerprint_is_refused() -> None:
    primorial = 1
    for prime in (p for p in range(2, 168) if all(p % q for q in range(2, p))):
        primorial *= prime
    modulus = (2**2047 // primorial + 12345) * primorial + pow(65537, 4711, primorial)
    assert modulus.bit_length() == 2048
    assert "ROCA" in rsa_refusal(modulus)
    assert "ROCA" not in rsa_refusal(modulus + 2 * 167)


@pytest.mark.parametrize("alg", CURVES)
def test_ec_point_off_the_curve_is_refused(alg: str) -> None:
    numbers, size = EC_KEYS[alg].public_key().public_numbers(), CURVES[alg][2]
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    for bad_x, bad_y in (
        (x, (numbers.y ^ 1).to_bytes(size, "big")),
        (y, x),
        (bytes(size), bytes(size)),
        (b"\xff" * size, y),
    ):
        with pytest.raises(ConfigError, match="EC public key"):
            Key.ec(alg, None, bad_x, bad_y)


@pytest.mark.parametrize("alg", CURVES)
def test_ec_coordinate_of_another_length_is_refused(alg: str) -> None:
    numbers, size = EC_KEYS[alg].public_key().public_numbers(), CURVES[alg][2]
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    for bad_x, bad_y in ((x[1:], y), (x, y[1:]), (b"\0" + x, y), (x, b"\0" + y), (b"", y), (x + y, b"")):
        with pytest.raises(ConfigError, match="bytes"):
            Key.ec(alg, None, bad_x, bad_y)


def test_ec_coordinate_above_the_field_prime_is_refused() -> None:
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    x, y = next(
        (x, y)
        for x in range(5, 100)
        for y in [pow(x**3 - 3 * x + b, (P256 + 1) // 4, P256)]
        if y * y % P256 == (x**3 - 3 * x + b) % P256
    )
    assert Key.ec("ES256", None, x.to_bytes(32, "big"), y.to_bytes(32, "big"))
    with pytest.raises(ConfigError):
        Key.ec("ES256", None, (x + P256).to_bytes(32, "big"), y.to_bytes(32, "big"))


P25519 = 2**255 - 19
D25519 = -121665 * pow(121666, -1, P25519) % P25519


def edwards_add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    product = D25519 * a[0] * b[0] * a[1] * b[1]
    return (
        (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P25519) % P25519,
        (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P25519) % P25519,
    )


def low_order_points() -> list[tuple[int, int]]:
    """All eight: the multiples of a point times the group order. Nothing here is shared with the code under test."""
    order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 200):
        x2 = (y * y - 1) * pow(D25519 * y * y + 1, -1, P25519) % P25519
        x = pow(x2, (P25519 + 3) // 8, P25519)
        if x * x % P25519 != x2:
            x = x * pow(2, (P25519 - 1) // 4, P25519) % P25519
        if x * x % P25519 != x2:
            continue
        torsion, double, k = (0, 1), (x, y), order
        while k:
            if k & 1:
                torsion = edwards_add(torsion, double)
            double, k = edwards_add(double, double), k >> 1
        multiples = [(0, 1)]
        while (following := edwards_add(multiples[-1], torsion)) != (0, 1):
            multiples.append(following)
        if len(multiples) == 8:
            return multiples
    raise AssertionError("no point of order eight found")


def low_order_encodings() -> list[bytes]:
    ys = {y for _, y in low_order_points()}
    wide = ys | {y + P25519 for y in ys if y + P25519 < 2**255}
    return sorted((y | sign << 255).to_bytes(32, "little") for y in wide for sign in (0, 1))


def test_there_are_fourteen_low_order_encodings() -> None:
    assert len(low_order_encodings()) == 14


@pytest.mark.parametrize("number", range(14))
def test_ed25519_low_order_key_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=r"^x:"):
        Key.ed25519(None, low_order_encodings()[number])


@pytest.mark.parametrize("y", range(P25519, 2**255))
def test_ed25519_key_that_is_not_canonical_is_refused(y: int) -> None:
    for sign in (0, 1):
        with pytest.raises(ConfigError, match="canonical"):
            Key.ed25519(None, (y | sign << 255).to_bytes(32, "little"))


def test_ed25519_key_that_is_no_point_is_refused_and_the_others_are_taken() -> None:
    taken = 0
    for y in range(2, 60):
        x2 = (y * y - 1) * pow(D25519 * y * y + 1, -1, P25519) % P25519
        if pow(x2, (P25519 - 1) // 2, P25519) == 1:
            assert Key.ed25519(None, y.to_bytes(32, "little"))
            taken += 1
        else:
            with pytest.raises(ConfigError, match="not a point"):
                Key.ed25519(None, y.to_bytes(32, "little"))
    assert 10 < taken < 50


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_ed25519_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Key.ed25519(None, bytes(length))


@pytest.mark.parametrize(("alg", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_hmac_secret_shorter_than_the_hash_is_refused(alg: str, least: int) -> None:
    secret = random.Random(1).randbytes(least)
    assert Key.hmac(alg, None, secret)
    for short in (b"", secret[:1], secret[:-1]):
        with pytest.raises(ConfigError, match="bytes"):
            Key.hmac(alg, None, short)


def public_forms() -> dict[str, bytes]:
    """Public and private keys in every form in which an attacker or a careless operator could take one for a secret."""
    forms: dict[str, bytes] = {}
    encoding, public, private = serialization.Encoding, serialization.PublicFormat, serialization.PrivateFormat
    for name, key in (("rsa", RSA_KEY), ("ec", EC_KEYS["ES256"]), ("ed", ED_KEY)):
        forms[f"{name}-spki-der"] = key.public_key().public_bytes(encoding.DER, public.SubjectPublicKeyInfo)
        forms[f"{name}-spki-pem"] = key.public_key().public_bytes(encoding.PEM, public.SubjectPublicKeyInfo)
        forms[f"{name}-ssh"] = key.public_key().public_bytes(encoding.OpenSSH, public.OpenSSH)
        forms[f"{name}-ssh-wire"] = base64.b64decode(forms[f"{name}-ssh"].split()[1])
        forms[f"{name}-private-pem"] = key.private_bytes(encoding.PEM, private.PKCS8, serialization.NoEncryption())
        forms[f"{name}-private-der"] = key.private_bytes(encoding.DER, private.PKCS8, serialization.NoEncryption())
    forms["rsa-pkcs1-der"] = RSA_KEY.public_key().public_bytes(encoding.DER, public.PKCS1)
    forms["rsa-pkcs1-pem"] = RSA_KEY.public_key().public_bytes(encoding.PEM, public.PKCS1)
    forms["ssh2"] = b"---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\n" + forms["rsa-ssh"].split()[1]
    jwk = pair("RS256").key.to_jwk()
    forms["jwk"] = json.dumps(jwk).encode()
    forms["jwks"] = json.dumps({"keys": [jwk]}).encode()
    forms["jwk-list"] = json.dumps([jwk]).encode()
    forms["jwk-escaped"] = json.dumps(jwk).replace('"kty"', '"\\u006bty"').replace(":", " :\n ").encode()
    return forms


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "leading-blank": lambda data: b" \n\t" + data,
    "trailing-blanks": lambda data: data + b"\r\n \n",
    "crlf": lambda data: data.replace(b"\n", b"\r\n"),
    "one-line": lambda data: data.replace(b"\n", b""),
    "bom": lambda data: b"\xef\xbb\xbf" + data,
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "utf-16-be": lambda data: data.decode().encode("utf-16-be"),
    "utf-32": lambda data: data.decode().encode("utf-32"),
    "nul": lambda data: data + b"\0",
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base64-lines": base64.encodebytes,
    "base64url": lambda data: b64(data).encode(),
    "hex": lambda data: data.hex().encode(),
}


FORMS = public_forms()
TEXTS = [form for form in FORMS if not form.endswith(("-der", "-wire"))]


@pytest.mark.parametrize(
    ("form", "disguise"),
    [(form, name) for form in TEXTS for name in DISGUISES]
    + [(form, name) for form in FORMS for name in ("plain", *ENCODINGS)],
)
def test_hmac_secret_that_is_another_key_is_refused(form: str, disguise: str) -> None:
    secret = (DISGUISES | ENCODINGS)[disguise](FORMS[form])
    assert len(secret) >= 32
    with pytest.raises(ConfigError, match="key of another kind"):
        Key.hmac("HS256", None, secret)


def test_random_secrets_and_pass_phrases_are_taken() -> None:
    numbers = random.Random(20)
    for _ in range(2000):
        secret = numbers.randbytes(32)
        for form in (secret, secret.hex().encode(), base64.b64encode(secret), b64(secret).encode()):
            assert Key.hmac("HS256", None, form)
    for phrase in (
        b"correct horse battery staple and then some",
        b"{not json but a secret of 32 bytes}",
        b"0" * 32,
        b"[" * 40 + b"]",
    ):
        assert Key.hmac("HS256", None, phrase)
    assert Key.hmac("HS256", None, b"\x30\x3e" + numbers.randbytes(62)), "a SEQUENCE by its first bytes only"


@pytest.mark.parametrize(
    "secret", ["a string of at least thirty-two letters", bytearray(32), memoryview(bytes(32)), None]
)
def test_hmac_secret_that_is_not_bytes_is_an_error(secret: Any) -> None:
    with pytest.raises(TypeError):
        Key.hmac("HS256", None, secret)


# Threads, forks, lifetimes.


def test_one_key_serves_many_threads() -> None:
    work = [(pair(alg).key, pair(alg).sign(MESSAGE)) for alg in ("HS256", "RS256", "PS256", "ES256", "EdDSA")]
    wrong: list[object] = []
    start = threading.Barrier(8)

    def verify() -> None:
        start.wait()
        for _ in range(60):
            for key, signature in work:
                if not key.verify(MESSAGE, signature) or key.verify(MESSAGE + b"x", signature):
                    wrong.append(key)

    threads = [threading.Thread(target=verify) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKING = """
import os, sys, threading
from fastverify._core import Key
key = Key.ed25519(None, bytes.fromhex(sys.argv[1]))
signature = bytes.fromhex(sys.argv[2])
busy = threading.Event()
stop = threading.Event()
def verify():
    while not stop.is_set():
        assert key.verify(b"m", signature)
        busy.set()
threads = [threading.Thread(target=verify) for _ in range(3)]
for thread in threads: thread.start()
busy.wait()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if key.verify(b"m", signature) and not key.verify(b"n", signature) else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
assert key.verify(b"m", signature)
"""


def test_key_works_in_a_child_forked_while_threads_verify() -> None:
    key = ED_KEY.public_key().public_bytes_raw().hex()
    command = [sys.executable, "-W", "ignore", "-c", FORKING, key, ED_KEY.sign(b"m").hex()]
    subprocess.run(command, check=True, timeout=60)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_making_and_dropping_keys_leaks_nothing() -> None:
    numbers = EC_KEYS["ES256"].public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")

    def churn(times: int) -> None:
        for _ in range(times):
            Key.hmac("HS512", "k", SECRET).verify(MESSAGE, bytes(64))
            Key.ec("ES256", "k", x, y)
            Key.ed25519("k", ED_KEY.public_key().public_bytes_raw()).verify(MESSAGE, bytes(64))
            with pytest.raises(ConfigError):
                Key.ec("ES256", "k", y, x)

    churn(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    churn(2000)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * 1024
    )  # KiB; one lost key in four would show


# Key sets.


def jwk(of: str = "ES256", /, **changes: Any) -> dict[str, Any]:
    """The JWK of our key for that algorithm with members changed, or left out where the change is ``...``."""
    if of.startswith("HS"):
        member: dict[str, Any] = {"kty": "oct", "alg": of, "kid": "k", "k": b64(SECRET)}
    else:
        member = dict(pair(of).key.to_jwk() or {})
    return {name: value for name, value in (member | changes).items() if value is not ...}


@each_algorithm
def test_jwk_of_each_algorithm_verifies(alg: str) -> None:
    (key,) = KeySet.from_jwks({"keys": [jwk(alg)]})
    assert (key.algorithm, key.key_id) == (alg, "k")
    assert key.verify(MESSAGE, pair(alg).sign(MESSAGE))


def test_jwks_is_read_from_a_mapping_text_or_bytes() -> None:
    document = {"keys": [jwk()]}
    sets = [
        KeySet.from_jwks(document),
        KeySet.from_jwks(json.dumps(document)),
        KeySet.from_jwks(json.dumps(document).encode()),
    ]
    assert len({tuple(keys) for keys in sets}) == 1


def test_ed25519_and_eddsa_name_one_kind_of_key() -> None:
    first, second = (
        KeySet.from_jwks({"keys": [jwk("EdDSA")]}),
        KeySet.from_jwks({"keys": [jwk("EdDSA", alg="Ed25519")]}),
    )
    assert list(first) == list(second)


@pytest.mark.parametrize(
    ("member", "word"),
    [
        ("text", "object"),
        (None, "object"),
        (jwk(kty=...), "kty"),
        (jwk(kty="ec"), "kty"),
        (jwk(kty=["EC"]), "kty"),
        (jwk(kty="RSA"), "n:"),
        (jwk(alg=...), "alg"),
        (jwk(alg=None), "alg"),
        (jwk(alg="none"), "alg"),
        (jwk(alg="ES384"), "alg"),
        (jwk(alg="ES521"), "alg"),
        (jwk(alg="RS256"), "alg"),
        (jwk(alg="HS256"), "alg"),
        (jwk(alg="EdDSA"), "alg"),
        (jwk(alg="ECDH-ES"), "alg"),
        (jwk(crv="P-384"), "alg"),
        (jwk(crv="secp256k1"), "alg"),
        (jwk(crv=...), "crv"),
        (jwk(use="enc"), "use"),
        (jwk(use=None), "use"),
        (jwk(use=["sig"]), "use"),
        (jwk(key_ops=["encrypt"]), "key_ops"),
        (jwk(key_ops=[]), "key_ops"),
        (jwk(key_ops="verify"), "key_ops"),
        (jwk(kid=1), "kid"),
        (jwk(kid=""), "kid"),
        (jwk(kid="k" * 129), "kid"),
        (jwk(x=...), "x"),
        (jwk(x=b64(bytes(31))), "x"),
        (jwk(x=5), "x"),
        (jwk(x=jwk()["y"], y=jwk()["x"]), "x"),
        (jwk(x=jwk()["x"] + "="), "base64url"),
        (jwk(x=" " + jwk()["x"]), "base64url"),
        (jwk(x=jwk()["x"] + "\n"), "base64url"),
        (jwk(x=jwk()["x"][:-1] + "+"), "base64url"),
        (jwk(x=jwk()["x"][:-2] + "AB"), "canonical"),
        (jwk("RS256", n=b64(b"\0" + octets(RSA_KEY.public_key().public_numbers().n))), "leading zero"),
        (jwk("RS256", e=b64(b"\0\1\0\1")), "leading zero"),
        (jwk("RS256", e="AQ"), "e:"),
        (jwk("RS256", e="Aw"), "e:"),
        (jwk("RS256", n=""), "n:"),
        (jwk("RS256", alg="ES256"), "alg"),
        (jwk("EdDSA", crv="X25519"), "crv"),
        (jwk("EdDSA", crv="Ed448"), "crv"),
        (jwk("EdDSA", alg="ES256"), "crv"),
        (jwk("EdDSA", x=b64(b"\1" + bytes(31))), "low order"),
        (jwk("HS256", k=b64(bytes(31))), "bytes"),
        (jwk("HS256", k=""), "bytes"),
        (jwk("HS256", k=b64(FORMS["rsa-spki-pem"])), "another kind"),
        (jwk("HS256", alg="A256GCM"), "alg"),
        (jwk("HS256", alg="RS256"), "alg"),
    ],
)
def test_member_that_cannot_be_used_is_left_out_with_its_reason(member: Any, word: str) -> None:
    with pytest.raises(ConfigError, match="no key can be used"):
        KeySet.from_jwks({"keys": [member]})
    good = jwk("HS512" if isinstance(member, dict) and member.get("kty") == "oct" else "ES384", kid="good")
    keys = KeySet.from_jwks({"keys": [member, good]})
    assert [key.key_id for key in keys] == ["good"]
    (reason,) = keys.skipped
    assert word in reason
    assert reason.startswith("keys[0]")


def test_unknown_members_and_private_members_are_ignored_and_never_shown() -> None:
    numbers = RSA_KEY.private_numbers()
    private = {name: b64(octets(getattr(numbers, name))) for name in ("d", "p", "q")}
    keys = KeySet.from_jwks({"keys": [jwk("RS256", **private, x5u="https://example.com", new=[1])], "more": 1})
    (shown,) = keys.to_jwks()["keys"]
    assert shown == jwk("RS256")
    assert not any(value in repr(keys) + repr(list(keys)) for value in (*private.values(), shown["n"]))


def test_default_alg_serves_members_without_their_own_and_no_others() -> None:
    with pytest.raises(ConfigError, match="default_alg"):
        KeySet.from_jwks({"keys": [jwk("RS256", alg=...)]})
    members = [jwk("RS256", alg=..., kid="a"), jwk("PS256", kid="b"), jwk("ES256", alg=..., kid="c")]
    keys = KeySet.from_jwks({"keys": members}, default_alg="RS256")
    assert [(key.key_id, key.algorithm) for key in keys] == [("a", "RS256"), ("b", "PS256")]
    assert len(keys.skipped) == 1


def test_different_keys_of_one_key_id_are_all_left_out() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    twin = jwk(x=b64(other.x.to_bytes(32, "big")), y=b64(other.y.to_bytes(32, "big")))
    with pytest.raises(ConfigError, match="same key id"):
        KeySet.from_jwks({"keys": [jwk(), twin]})
    keys = KeySet.from_jwks({"keys": [jwk(), jwk("EdDSA", kid="good"), twin]})
    assert [key.key_id for key in keys] == ["good"]
    assert len(keys.skipped) == 2


def test_broken_twin_does_not_make_the_other_one_right() -> None:
    with pytest.raises(ConfigError, match="same key id"):
        KeySet.from_jwks({"keys": [jwk(), jwk(x="?")]})


def test_one_key_for_two_algorithms_under_one_key_id_is_left_out() -> None:
    with pytest.raises(ConfigError, match="same key id"):
        KeySet.from_jwks({"keys": [jwk("RS256"), jwk("PS256")]})


def test_member_that_occurs_twice_counts_once_and_an_encryption_twin_does_not_count() -> None:
    assert len(KeySet.from_jwks({"keys": [jwk(), jwk(), jwk(use="enc", alg="ECDH-ES")]})) == 1


def test_secrets_and_public_keys_in_one_set_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both"):
        KeySet.from_jwks({"keys": [jwk("HS256", kid="a"), jwk("ES256", kid="b")]})


@pytest.mark.parametrize(
    "document",
    [
        "", "null", "[]", "{}", '{"keys": {}}', '{"keys": null}', '{"keys": []}', '{"keys": "x"}', "{", b"\xff\xfe{}",
        "[" * 100_000, '{"keys": [], "keys": []}', '{"keys": [{"kty": "oct", "kty": "RSA"}]}', json.dumps(jwk()),
        [jwk()], {"keys": jwk()}, None,
    ],
)  # fmt: skip
def test_what_is_no_jwk_set_is_refused(document: Any) -> None:
    with pytest.raises(ConfigError):
        KeySet.from_jwks(document)


def pem(key: Any, form: serialization.PublicFormat = serialization.PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


@pytest.mark.parametrize(
    ("alg", "text"),
    [
        ("RS256", pem(RSA_KEY)),
        ("PS512", pem(RSA_KEY, serialization.PublicFormat.PKCS1)),
        ("ES256", pem(EC_KEYS["ES256"])),
        ("ES384", pem(EC_KEYS["ES384"])),
        ("ES512", pem(EC_KEYS["ES512"])),
        ("EdDSA", pem(ED_KEY)),
    ],
)
def test_public_key_in_pem_verifies(alg: str, text: bytes) -> None:
    for form in (text, text.decode()):
        (key,) = KeySet.from_pem(form, alg=alg, kid="k")
        assert key == pair(alg).key
        assert key.verify(MESSAGE, pair(alg).sign(MESSAGE))


def test_certificate_in_pem_verifies() -> None:
    from datetime import UTC, datetime

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    builder = x509.CertificateBuilder(
        name, name, RSA_KEY.public_key(), 1, datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    )
    text = builder.sign(RSA_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert list(KeySet.from_pem(text, alg="RS256", kid="k")) == [pair("RS256").key]


@pytest.mark.parametrize(
    ("alg", "text"),
    [
        ("RS256", FORMS["rsa-private-pem"]),
        ("RS256", pem(RSA_KEY) * 2),
        ("RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        ("RS256", b""),
        ("RS256", FORMS["rsa-spki-der"]),
        ("RS256", pem(EC_KEYS["ES256"])),
        ("RS256", pem(ED_KEY)),
        ("HS256", pem(RSA_KEY)),
        ("HS256", pem(EC_KEYS["ES256"])),
        ("HS256", pem(ED_KEY)),
        ("ES256", pem(RSA_KEY)),
        ("ES256", pem(EC_KEYS["ES384"])),
        ("ES256", pem(ec.generate_private_key(ec.SECP256K1()))),
        ("EdDSA", pem(ed448.Ed448PrivateKey.generate())),
        ("none", pem(RSA_KEY)),
    ],
)
def test_pem_of_another_kind_or_for_another_algorithm_is_refused(alg: str, text: bytes) -> None:
    with pytest.raises(ConfigError):
        KeySet.from_pem(text, alg=alg, kid="k")


def test_secret_makes_an_hmac_key_without_a_public_form() -> None:
    keys = KeySet.from_secret(SECRET, alg="HS256", kid="k")
    assert list(keys) == [pair("HS256").key]
    assert keys.to_jwks() == {"keys": []}
    assert SECRET.decode("latin-1") not in repr(keys)


def test_union_holds_the_keys_of_both_and_what_was_skipped() -> None:
    public = KeySet.from_jwks({"keys": [jwk(), jwk(use="enc", kid="e")]})
    both = public | KeySet.from_secret(SECRET, alg="HS256", kid="h") | public
    assert [key.key_id for key in both] == ["k", "h"]
    assert len(both) == 2
    assert set(both.skipped) == set(public.skipped)
    with pytest.raises(ConfigError, match="two keys"):
        public | KeySet.from_secret(SECRET, alg="HS256", kid="k")
    with pytest.raises(TypeError):
        public | [pair("HS256").key]  # type: ignore[operator]


def test_public_set_reads_back_as_the_same_keys() -> None:
    members = [jwk(alg, kid=alg) for alg in ALGORITHMS if not alg.startswith("HS")]
    keys = KeySet.from_jwks({"keys": members})
    assert list(KeySet.from_jwks(json.dumps(keys.to_jwks()))) == list(keys)


def test_ssh_wire_form_in_these_tests_is_real() -> None:
    wire = FORMS["ed-ssh-wire"]
    (length,) = struct.unpack(">I", wire[:4])
    assert wire[4 : 4 + length] == b"ssh-ed25519"
