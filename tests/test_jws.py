"""Compact form, protected header, and which key a token leads to (rows J1 to J4, J7, J12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from signing import ALGORITHMS, ISSUER, NOW, SigningKey, base64url, claims, header, make_key, sign, sign_segments

from fastverify import errors
from fastverify._core import Key, Verifier, parse_unverified

HMAC = make_key("HS256")
EC = make_key("ES256")


def refuse(verifier: Verifier, token: str | bytes, kind: type[errors.InvalidToken], reason: str) -> None:
    with pytest.raises(errors.InvalidToken) as caught:
        verifier.verify(token, now=NOW)
    assert (type(caught.value), caught.value.reason) == (kind, reason)
    assert verifier.cache_info().size == 0


@pytest.fixture
def verifier() -> Verifier:
    return Verifier([HMAC.verifying, EC.verifying], issuer=ISSUER)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_verifies(algorithm: str) -> None:
    key = make_key(algorithm)
    verified = Verifier([key.verifying], issuer=ISSUER).verify(sign(None, None, key), now=NOW)
    assert verified.to_dict() == claims()
    assert (verified.algorithm, verified.key_id) == (algorithm, key.kid)


# --- compact form ---


@pytest.mark.parametrize(
    ("token", "kind", "reason"),
    [
        ("", errors.MalformedToken, "parts"),
        (".", errors.MalformedToken, "parts"),
        ("..", errors.MalformedToken, "empty_part"),
        ("...", errors.MalformedToken, "parts"),
        ("....", errors.UnsupportedToken, "jwe"),
        (".....", errors.MalformedToken, "parts"),
        ("a", errors.MalformedToken, "parts"),
        ("aaaa.aaaa", errors.MalformedToken, "parts"),
        ("aaaa.aaaa.aaaa.aaaa", errors.MalformedToken, "parts"),
        ("aaaa.aaaa.aaaa.aaaa.aaaa", errors.UnsupportedToken, "jwe"),
        ("aaaa....", errors.UnsupportedToken, "jwe"),
        ("aaaa.aaaa.aaaa.aaaa.aaaa.aaaa", errors.MalformedToken, "parts"),
        (".aaaa.aaaa", errors.MalformedToken, "empty_part"),
        ("aaaa.aaaa.", errors.MalformedToken, "empty_part"),
        ("aaaa.aa a.aaaa", errors.MalformedToken, "base64url"),
        ("\u00e9aaa.aaaa.aaaa", errors.MalformedToken, "base64url"),
        ("\ud800.aaaa.aaaa", errors.MalformedToken, "base64url"),
        ('{"payload":"","signatures":[]}', errors.MalformedToken, "parts"),
        ("." * 8192, errors.MalformedToken, "parts"),
        ("." * 8193, errors.MalformedToken, "too_large"),
        ("a" * 1_000_000, errors.MalformedToken, "too_large"),
        (b"\xff" * 10, errors.MalformedToken, "parts"),
    ],
)
def test_what_is_no_compact_jws_is_refused(
    verifier: Verifier, token: str | bytes, kind: type[errors.InvalidToken], reason: str
) -> None:
    refuse(verifier, token, kind, reason)


def test_an_empty_payload_is_no_claims_set_and_yet_a_jws(verifier: Verifier) -> None:
    token = sign(None, b"", HMAC)
    refuse(verifier, token, errors.MalformedToken, "empty_part")
    assert verifier.verify_jws(token) == b""


def test_str_and_bytes_are_the_same_token(verifier: Verifier) -> None:
    token = sign(None, None, HMAC)
    first = verifier.verify(token.encode(), now=NOW)
    assert verifier.verify(token, now=NOW) is first
    assert first.token == token


class Text(str):
    __slots__ = ("note",)


class Bytes(bytes):
    pass


@pytest.mark.parametrize("kind", [Text, lambda token: Bytes(token.encode())])
def test_subclasses_of_str_and_bytes_are_read_and_not_kept(verifier: Verifier, kind: Any) -> None:
    token = sign(None, None, HMAC)
    verified = verifier.verify(kind(token), now=NOW)
    assert verified.token == token
    assert type(verified.token) is str
    assert verifier.verify(token, now=NOW) is verified


@pytest.mark.parametrize("token", [None, 1, [], bytearray(b"a.b.c"), memoryview(b"a.b.c"), object()])
def test_what_is_neither_str_nor_bytes_is_a_type_error(verifier: Verifier, token: Any) -> None:
    for call in (verifier.verify, verifier.verify_jws, parse_unverified):
        with pytest.raises(TypeError, match="str or bytes"):
            call(token)


def test_size_limit_is_exact() -> None:
    key = HMAC
    token = sign(None, claims(filler="x" * 3000), key)
    assert Verifier([key.verifying], issuer=ISSUER, max_token_bytes=len(token)).verify(token, now=NOW)
    refuse(
        Verifier([key.verifying], issuer=ISSUER, max_token_bytes=len(token) - 1),
        token,
        errors.MalformedToken,
        "too_large",
    )


def test_the_largest_token_of_all_verifies() -> None:
    def token(size: int) -> str:
        return sign(None, claims(a="x" * 4096, b="y" * 4096, c="z" * size), HMAC)

    large = token(3775)
    size = 3774 - (len(large) - 16_384) * 3 // 4
    large = token(size)
    assert 16_380 <= len(large) <= 16_384
    verifier = Verifier([HMAC.verifying], issuer=ISSUER, max_token_bytes=16_384)
    assert verifier.verify(large, now=NOW)["c"] == "z" * size
    verifier.cache_clear()
    refuse(verifier, token(size + 10), errors.MalformedToken, "too_large")


def test_header_and_signature_have_limits_of_their_own(verifier: Verifier) -> None:
    for size, good in ((1024, True), (1025, False)):
        raw = json.dumps(header(HMAC)).encode()
        token = sign(raw[:-1] + b" " * (size - len(raw)) + b"}", None, HMAC)
        if good:
            assert Verifier([HMAC.verifying], issuer=ISSUER).verify(token, now=NOW)
        else:
            refuse(verifier, token, errors.MalformedToken, "too_large")
    first = sign(None, None, HMAC).rpartition(".")[0]
    refuse(verifier, f"{first}.{base64url(bytes(1024))}", errors.InvalidSignature, "invalid_signature")
    refuse(verifier, f"{first}.{base64url(bytes(1025))}", errors.MalformedToken, "too_large")
    refuse(verifier, f"{first}.{'A' * 4000}", errors.MalformedToken, "too_large")


# --- protected header ---


@pytest.mark.parametrize(
    ("raw", "kind", "reason"),
    [
        (b"", errors.MalformedToken, "empty_part"),
        (b"[]", errors.MalformedToken, "not_object"),
        (b"{}", errors.MalformedToken, "alg_malformed"),
        (b'{"alg":"HS256"', errors.MalformedToken, "json_syntax"),
        (b'{"alg":"HS256"}x', errors.MalformedToken, "trailing_data"),
        (b'{"alg":"HS256","alg":"HS256"}', errors.MalformedToken, "duplicate_member"),
        (b'{"alg":"HS256","\\u0061lg":"ES256"}', errors.MalformedToken, "duplicate_member"),
        (b'{"alg":"HS256","x":{"y":1,"y":2}}', errors.MalformedToken, "duplicate_member"),
        (b'{"alg":null}', errors.MalformedToken, "alg_malformed"),
        (b'{"alg":["HS256"]}', errors.MalformedToken, "alg_malformed"),
        (b'{"alg":1}', errors.MalformedToken, "alg_malformed"),
        (b'{"ALG":"HS256"}', errors.MalformedToken, "alg_malformed"),
        (b'{"alg\\u0000":"HS256"}', errors.MalformedToken, "alg_malformed"),
        (b'{"alg":""}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"none"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"hs256"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS256 "}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS256\\u0000"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS384"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS256HS256HS256HS256"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS256","kid":1}', errors.MalformedToken, "kid_malformed"),
        (b'{"alg":"HS256","kid":null}', errors.MalformedToken, "kid_malformed"),
        (b'{"alg":"HS256","kid":["key-HS256"]}', errors.MalformedToken, "kid_malformed"),
        (b'{"alg":"HS256","kid":"' + b"k" * 129 + b'"}', errors.MalformedToken, "kid_malformed"),
        (b'{"alg":"HS256","kid":"' + b"k" * 128 + b'"}', errors.UnknownKey, "unknown_key"),
        (b'{"alg":"HS256","kid":""}', errors.UnknownKey, "unknown_key"),
        (b'{"alg":"HS256","kid":"key-HS256\\u0000"}', errors.UnknownKey, "unknown_key"),
        (b'{"alg":"HS256","kid":"key-ES256"}', errors.UnsupportedToken, "algorithm"),
        (b'{"alg":"HS256","typ":1}', errors.MalformedToken, "typ_malformed"),
        (b'{"alg":"HS256","typ":null}', errors.MalformedToken, "typ_malformed"),
        (b'{"alg":"HS256"}', errors.InvalidClaim, "typ_mismatch"),
        (b'{"alg":"HS256","typ":""}', errors.InvalidClaim, "typ_mismatch"),
        (b'{"alg":"HS256","typ":"' + b"x" * 65 + b'"}', errors.InvalidClaim, "typ_mismatch"),
        (b'{"alg":"HS256","typ":"JWT","a":' + b"[" * 9 + b"]" * 9 + b"}", errors.MalformedToken, "depth"),
    ],
)
def test_header_is_refused(verifier: Verifier, raw: bytes, kind: type[errors.InvalidToken], reason: str) -> None:
    refuse(verifier, sign(raw, None, HMAC), kind, reason)


@pytest.mark.parametrize("name", ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc"])
@pytest.mark.parametrize("value", ["x", None, [], {}, 0, False, True, ["exp"]])
def test_parameters_that_change_what_is_verified_are_refused_whatever_they_say(
    verifier: Verifier, name: str, value: object
) -> None:
    token = sign(header(HMAC, **{name: value}), None, HMAC)
    refuse(verifier, token, errors.UnsupportedToken, name)
    with pytest.raises(errors.UnsupportedToken):
        parse_unverified(token)
    with pytest.raises(errors.UnsupportedToken):
        verifier.verify_jws(token)


def test_other_parameters_are_ignored(verifier: Verifier) -> None:
    token = sign(header(HMAC, version="5", x5t="abc", cty="text/plain", b65={"a": [1, None]}), None, HMAC)
    assert verifier.verify(token, now=NOW)


def test_escapes_in_the_header_mean_what_they_spell(verifier: Verifier) -> None:
    raw = b'{"\\u0061lg":"HS\\u003256","\\u006bid":"key\\u002dHS256","t\\u0079p":"\\u004aWT"}'
    assert verifier.verify(sign(raw, None, HMAC), now=NOW).key_id == "key-HS256"


@pytest.mark.parametrize(
    ("configured", "given", "good"),
    [
        ("JWT", "JWT", True),
        ("JWT", "jwt", True),
        ("JWT", "application/jwt", True),
        ("JWT", "APPLICATION/JWT", True),
        ("application/jwt", "JWT", True),
        ("JWT", "application/jwt/x", False),
        ("JWT", "application/application/jwt", False),
        ("JWT", "application/", False),
        ("JWT", "JWT ", False),
        ("JWT", "JW", False),
        ("JWT", "at+jwt", False),
        ("at+jwt", "application/at+jwt", True),
        ("at+jwt", "JWT", False),
        (("JWT", "at+jwt"), "AT+JWT", True),
        (("JWT", "at+jwt"), "JWT", True),
        (("JWT", "at+jwt"), "id+jwt", False),
        ("a/b", "a/b", True),
        ("a/b", "application/a/b", False),
        ("\u00e9", "\u00e9", True),
    ],
)
def test_typ_follows_the_media_type_rule(configured: Any, given: str, good: bool) -> None:
    verifier = Verifier([HMAC.verifying], issuer=ISSUER, typ=configured)
    for _ in range(2):  # the second time by the remembered header
        token = sign(header(HMAC, typ=given), claims(jti=str(_)), HMAC)
        if good:
            assert verifier.verify(token, now=NOW)
        else:
            refuse(verifier, token, errors.InvalidClaim, "typ_mismatch")


# --- which key ---


def kidless(algorithm: str, name: str) -> tuple[SigningKey, Key]:
    """A key that has no key id."""
    key = make_key(algorithm, name)
    return key, Key.hmac(algorithm, None, key.private)


def test_a_token_without_kid_needs_exactly_one_key_of_its_algorithm() -> None:
    one, two, other = make_key("HS256"), make_key("HS256", "second"), make_key("HS384")
    token = sign({"alg": "HS256", "typ": "JWT"}, None, one)
    for keys in ([one], [one, other], [other, one]):
        assert Verifier([key.verifying for key in keys], issuer=ISSUER).verify(token, now=NOW).key_id == one.kid
    for keys in ([one, two], [two, one, other]):
        refuse(Verifier([key.verifying for key in keys], issuer=ISSUER), token, errors.UnknownKey, "kid_missing")
    refuse(Verifier([two.verifying], issuer=ISSUER), token, errors.InvalidSignature, "invalid_signature")
    refuse(Verifier([other.verifying], issuer=ISSUER), token, errors.UnsupportedToken, "algorithm")
    refuse(Verifier([], issuer=ISSUER), token, errors.UnsupportedToken, "algorithm")


def test_a_key_without_kid_serves_only_tokens_without_kid() -> None:
    signer, key = kidless("HS256", "anonymous")
    verifier = Verifier([key], issuer=ISSUER)
    assert verifier.verify(sign({"alg": "HS256", "typ": "JWT"}, None, signer), now=NOW).key_id is None
    verifier.cache_clear()
    refuse(verifier, sign(None, None, signer), errors.UnknownKey, "unknown_key")


def test_one_kid_may_name_keys_of_several_algorithms() -> None:
    one, two = make_key("ES256", "shared"), make_key("EdDSA", "shared")
    verifier = Verifier([one.verifying, two.verifying], issuer=ISSUER)
    for key in (one, two):
        assert verifier.verify(sign(None, None, key), now=NOW).algorithm == key.algorithm
    verifier.cache_clear()
    refuse(verifier, sign(header(one), None, two), errors.InvalidSignature, "invalid_signature")


def test_ed25519_and_eddsa_are_two_names_of_one_algorithm() -> None:
    key = make_key("EdDSA")
    verifier = Verifier([key.verifying], issuer=ISSUER)
    for name in ("EdDSA", "Ed25519"):
        verified = verifier.verify(sign(header(key, alg=name), None, key), now=NOW)
        assert verified.algorithm == "EdDSA"
    verifier.cache_clear()
    for name in ("Ed448", "ed25519", "eddsa", "EDDSA"):
        refuse(verifier, sign(header(key, alg=name), None, key), errors.UnsupportedToken, "algorithm")


# --- remembered headers ---


def test_more_headers_than_are_remembered_all_verify() -> None:
    keys = [make_key("HS256", f"key-{number}") for number in range(50)]
    verifier = Verifier([key.verifying for key in keys], issuer=ISSUER, cache_size=0)
    for _ in range(3):
        for key in keys:
            assert verifier.verify(sign(None, None, key), now=NOW).key_id == key.kid


def test_a_remembered_header_still_wants_the_signature() -> None:
    mine, theirs = make_key("HS256"), make_key("HS256", "theirs")
    verifier = Verifier([mine.verifying], issuer=ISSUER, cache_size=0)
    assert verifier.verify(sign(None, None, mine), now=NOW)
    refuse(verifier, sign(header(mine), None, theirs), errors.InvalidSignature, "invalid_signature")


def test_headers_of_bad_tokens_displace_nothing_and_teach_nothing() -> None:
    """A forger may name a good key in as many headers as they like: none of them is ever a known one."""
    mine, theirs = make_key("HS256"), make_key("HS256", "theirs")
    verifier = Verifier([mine.verifying], issuer=ISSUER)
    for number in range(40):
        forged = sign(header(mine, n=number), None, theirs)
        for _ in range(2):
            refuse(verifier, forged, errors.InvalidSignature, "invalid_signature")
    assert verifier.verify(sign(header(mine, n=1), None, mine), now=NOW)


def test_remembered_headers_go_with_their_keys() -> None:
    key, other = make_key("HS256"), make_key("HS256", "other")
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0)
    token = sign(None, None, key)
    assert verifier.verify(token, now=NOW)
    verifier.replace_keys([other.verifying])
    refuse(verifier, token, errors.UnknownKey, "unknown_key")


def test_one_typ_remembered_does_not_vouch_for_another() -> None:
    """The layer below does not look at typ, and remembers the header all the same."""
    verifier = Verifier([HMAC.verifying], issuer=ISSUER)
    token = sign(header(HMAC, typ="refresh"), None, HMAC)
    assert verifier.verify_jws(token)
    refuse(verifier, token, errors.InvalidClaim, "typ_mismatch")


# --- the layer below ---


def test_verify_jws_returns_whatever_was_signed() -> None:
    verifier = Verifier([HMAC.verifying], issuer=ISSUER)
    for payload in (b"", b"\0", b"not JSON", bytes(range(256))):
        assert verifier.verify_jws(sign({"alg": "HS256", "kid": HMAC.kid}, payload, HMAC)) == payload
    assert verifier.cache_info().size == 0


def test_verify_jws_refuses_what_verify_refuses_up_to_the_signature() -> None:
    verifier = Verifier([HMAC.verifying], issuer=ISSUER)
    good = sign(None, b"x", HMAC)
    for bad in (good[:-1], good[:-2] + "AA", "a.b", sign({"alg": "none"}, b"x", HMAC), sign(header(EC), b"x", EC)):
        with pytest.raises(errors.InvalidToken):
            verifier.verify_jws(bad)


# --- unverified ---


def test_parse_unverified_reads_what_nobody_signed() -> None:
    token = sign_segments(base64url(b'{"alg":"XY1","kid":"nobody"}'), base64url(b'{"sub":"u","x":[1]}'), EC)
    read = parse_unverified(token)
    assert (read.algorithm, read.key_id, read.subject, read["x"]) == ("XY1", "nobody", "u", [1])
    assert (read.expires_at, read.issued_at, read.not_before, read.issuer) == (0, None, None, None)
    assert read.token == token
    assert parse_unverified(sign_segments(base64url(b'{"alg":"HS256"}'), base64url(b"{}"), EC)).key_id is None


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"exp":"1"}', b'{"a":1,"a":2}', b'{"aud":[1]}', b'{"sub":null}'])
def test_parse_unverified_is_as_strict_in_syntax_and_types(payload: bytes) -> None:
    with pytest.raises(errors.InvalidToken):
        parse_unverified(sign(None, payload, HMAC))


def test_parse_unverified_has_the_size_limit_of_a_verifier() -> None:
    token = sign(None, claims(a="x" * 4000, b="y" * 4000), HMAC)
    with pytest.raises(errors.MalformedToken, match="larger"):
        parse_unverified(token)
    assert parse_unverified(token, max_token_bytes=16_384)["a"] == "x" * 4000
