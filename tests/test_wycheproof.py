"""Wycheproof: signatures, keys and tokens that have broken other people's verifiers.

Each test reads one file (or one group of it) and asserts that the set of disagreements is empty, so a failure lists
every vector at once. Where our rules are stricter than the file's verdict, the vector stands in one of the tables below
with its reason; nothing else is excused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from both_ways import has_fast_path
from cryptography.hazmat.primitives.asymmetric import utils
from signing import NOW, base64url, make_key, p1363

from fastverify import errors
from fastverify._core import Key, Verifier
from fastverify.keys import KeySet

#: json_web_signature_test: marked valid, refused by us.
JWS_REFUSED = {
    346: "header says PS384, the key is bound to PS256",
    350: "header says PS384, the key is bound to PS256",
    347: "the key is bound to ES521, which is no algorithm",
    351: "the key is bound to ES521, which is no algorithm",
    372: "a '?' stands in the header segment",
    373: "a '?' stands in the payload segment",
}
#: json_web_signature_test: marked invalid for padding, but byte for byte the valid vector 357: the file has lost its
#: '='. Row A20 of test_attacks has our own.
JWS_SKIPPED = {367: 357, 370: 357}

Load = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def load(vectors: Path) -> Load:
    return lambda name: json.loads((vectors / "wycheproof" / f"{name}_test.json").read_text())


def compare(tests: list[dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> dict[int, str]:
    """The vectors whose verdict differs, with the comment of the file. Wycheproof's *acceptable* may be either."""
    return {
        test["tcId"]: f"{test['comment']}: {test['result']}"
        for test in tests
        if test["result"] != "acceptable" and good(test) is not (test["result"] == "valid")
    }


def raw(key: Key) -> Callable[[dict[str, Any]], bool]:
    """Through EVP and, where the key has one and is ready for it, on its fast path: they must agree."""

    def verify(test: dict[str, Any]) -> bool:
        message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
        verdict = key.verify(message, signature)
        assert key.verify(message, signature, fast=True) is verdict, test["tcId"]
        return verdict

    return verify


# --- tokens ---


def key_set(group: dict[str, Any]) -> KeySet:
    """Loads the group's public key, or its secret where it has only that."""
    jwk = group.get("public") or group["private"]
    return KeySet.from_jwks(jwk if "keys" in jwk else {"keys": [jwk]})


def accepts(group: dict[str, Any], token: str) -> bool:
    """Whether the JWS verifies, through EVP and on the fast paths alike."""
    try:
        keys = key_set(group)
    except errors.ConfigError:
        return False
    verdicts = {accepted(Verifier(keys, issuer=None, fast_crypto=fast), token) for fast in (False, True)}
    assert len(verdicts) == 1, token
    return verdicts.pop()


def accepted(verifier: Verifier, token: str) -> bool:
    """The payloads of these files are no claims sets: as tokens all of them are refused."""
    verifier.prepare_keys()
    with pytest.raises(errors.InvalidToken):
        verifier.verify(token, now=NOW)
    try:
        payload = verifier.verify_jws(token)
    except errors.InvalidToken:
        return False
    finally:
        assert verifier.crypto_info().undecided == 0
    assert base64url(payload) == token.split(".")[1]
    return True


@pytest.mark.parametrize("number", range(23))
def test_jws_group(load: Load, number: int) -> None:
    group = load("json_web_signature")["testGroups"][number]
    tests = [test for test in group["tests"] if test["tcId"] not in JWS_SKIPPED]
    expected = [test | {"result": "invalid"} if test["tcId"] in JWS_REFUSED else test for test in tests]
    assert compare(expected, lambda test: accepts(group, test["jws"])) == {}


def test_jws_file_is_complete_and_the_skipped_vectors_are_twins_of_valid_ones(load: Load) -> None:
    groups = load("json_web_signature")["testGroups"]
    tests = {test["tcId"]: test for group in groups for test in group["tests"]}
    assert (len(groups), len(tests)) == (23, 401)
    assert all(tests[number]["result"] == "valid" for number in JWS_REFUSED)
    for skipped, twin in JWS_SKIPPED.items():
        assert tests[skipped]["jws"] == tests[twin]["jws"]
        assert (tests[skipped]["result"], tests[twin]["result"]) == ("invalid", "valid")


@pytest.mark.parametrize("number", range(25))
def test_jwk_group(load: Load, number: int) -> None:
    group = load("json_web_key")["testGroups"][number]
    assert compare(group["tests"], lambda test: accepts(group, test["jws"])) == {}


def test_every_jwe_is_refused_and_called_unsupported_where_it_has_five_parts(load: Load) -> None:
    tests = [test for group in load("json_web_encryption")["testGroups"] for test in group["tests"]]
    assert len(tests) == 139
    verifier = Verifier([make_key("ES256").verifying], issuer=None)
    wrong = {}
    for test in tests:
        compact_jwe = test["jwe"].count(".") == 4 and not test["jwe"].startswith("{")
        expected = errors.UnsupportedToken if compact_jwe else errors.MalformedToken
        with pytest.raises(errors.InvalidToken) as caught:
            verifier.verify(test["jwe"], now=NOW)
        if caught.type is not expected:
            wrong[test["tcId"]] = (test["comment"], caught.type)
    assert wrong == {}


# --- raw signatures ---


@pytest.mark.parametrize(
    "name", ["2048_sha256", "2048_sha384", "2048_sha512", "3072_sha256", "4096_sha256", "8192_sha256"]
)
def test_rsa_pkcs1(load: Load, name: str) -> None:
    wrong: dict[int, str] = {}
    for group in load(f"rsa_signature_{name}")["testGroups"]:
        public = group["publicKey"]
        parts = bytes.fromhex(public["modulus"]).lstrip(b"\0"), bytes.fromhex(public["publicExponent"])
        algorithm = group["sha"].replace("SHA-", "RS")
        if parts[1] == b"\3":  # row J11: no exponent below 65537, whatever the signature
            with pytest.raises(errors.ConfigError):
                Key.rsa(algorithm, None, *parts)
        else:
            key = Key.rsa(algorithm, None, *parts)
            assert key.prepare() is (parts[1] == b"\1\0\1" and has_fast_path(algorithm))
            wrong |= compare(group["tests"], raw(key))
    assert wrong == {}


@pytest.mark.parametrize(
    ("name", "algorithm", "count"),
    [("256r1_sha256", "ES256", 262), ("384r1_sha384", "ES384", 280), ("521r1_sha512", "ES512", 318)],
)
def test_ecdsa_p1363(load: Load, name: str, algorithm: str, count: int) -> None:
    wrong: dict[int, str] = {}
    document = load(f"ecdsa_secp{name}_p1363")
    for group in document["testGroups"]:
        key = ec_key(algorithm, group)
        assert key.prepare() is has_fast_path(algorithm)
        wrong |= compare(group["tests"], raw(key))
    assert wrong == {}
    assert sum(len(group["tests"]) for group in document["testGroups"]) == count


def test_ecdsa_der_is_refused_and_agrees_once_it_is_encoded_as_jws_wants_it(load: Load) -> None:
    wrong: dict[int, str] = {}
    encoded = 0
    for group in load("ecdsa_secp256r1_sha256")["testGroups"]:
        key = ec_key("ES256", group)
        wrong |= compare([test | {"result": "invalid"} for test in group["tests"]], raw(key))
        for test in group["tests"]:
            try:
                signature = p1363("ES256", *utils.decode_dss_signature(bytes.fromhex(test["sig"])))
            except (ValueError, OverflowError):  # not DER, or numbers that have no place in 64 bytes
                assert test["result"] == "invalid"
                continue
            encoded += 1
            wrong |= compare([test | {"sig": signature.hex()}], raw(key))
    assert wrong == {}
    assert encoded > 200


def test_keys_of_a_curve_that_is_not_ours_are_refused(load: Load) -> None:
    for name in ("ecdsa_secp256k1_sha256_p1363", "ed448"):
        jwk = load(name)["testGroups"][0]["publicKeyJwk"]
        for algorithm in ("ES256", "ES256K", "EdDSA", "Ed448"):
            with pytest.raises(errors.ConfigError):
                KeySet.from_jwks({"keys": [jwk | {"alg": algorithm}]})


def test_ed25519(load: Load) -> None:
    wrong: dict[int, str] = {}
    for group in load("ed25519")["testGroups"]:
        wrong |= compare(group["tests"], raw(Key.ed25519(None, bytes.fromhex(group["publicKey"]["pk"]))))
    assert wrong == {}


@pytest.mark.parametrize("size", [256, 384, 512])
def test_hmac(load: Load, size: int) -> None:
    wrong: dict[int, str] = {}
    for group in load(f"hmac_sha{size}")["testGroups"]:
        for test in group["tests"]:
            message, tag, secret = (bytes.fromhex(test[name]) for name in ("msg", "tag", "key"))
            if group["keySize"] < size:  # row J10
                with pytest.raises(errors.ConfigError):
                    Key.hmac(f"HS{size}", None, secret)
                continue
            # A truncated tag is good HMAC, and no JWS signature (RFC 7518 section 3.2).
            whole = test if group["tagSize"] == size else test | {"result": "invalid"}
            key = Key.hmac(f"HS{size}", None, secret)
            wrong |= compare([whole], lambda _, key=key, message=message, tag=tag: key.verify(message, tag))
    assert wrong == {}


def ec_key(algorithm: str, group: dict[str, Any]) -> Key:
    point = bytes.fromhex(group["publicKey"]["uncompressed"])
    half = (len(point) - 1) // 2
    return Key.ec(algorithm, None, point[1 : 1 + half], point[1 + half :])
