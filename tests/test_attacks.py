"""Known attacks on verifiers of JWTs, one test (or a few) per row of the threat table: J1-J12 are rules, A1-A32 cases.

The verdict is always the same: a typed rejection, no other exception, nothing remembered in the cache, no network.
`refuse` checks the first three and a guard around every test the last. Keys and tokens come from `signing`, that is,
from an independent implementation.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import socket
import tracemalloc
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa, utils
from signing import (
    ALGORITHMS,
    ISSUER,
    NOW,
    SigningKey,
    base64url,
    claims,
    coordinate_size,
    encode,
    header,
    make_key,
    minimal,
    p1363,
    sign,
    sign_segments,
)

from fastverify import errors
from fastverify._core import Key, RevocationTable, Verifier
from fastverify.keys import KeySet

#: Both say "not a token that is ever accepted", before any key is looked at.
SYNTAX = (errors.MalformedToken, errors.UnsupportedToken)
#: n, the order of each curve's group (FIPS 186-4 appendix D.1.2).
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "ES512": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any attempt fails the test, even where somebody swallows the exception."""
    attempts: list[object] = []

    def attempt(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise AssertionError("network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, attempt)
    monkeypatch.setattr(socket, "getaddrinfo", attempt)
    yield
    assert attempts == []


def verifier_of(*keys: SigningKey, **options: Any) -> Verifier:
    return Verifier([key.verifying for key in keys], **{"issuer": ISSUER} | options)


def refuse(
    verifier: Verifier, token: str | bytes, *kinds: type[errors.InvalidToken], now: int = NOW
) -> errors.InvalidToken:
    """The token is refused, with one of these errors, says nothing of itself in it, and leaves the cache as it was."""
    before = verifier.cache_info()
    with pytest.raises(errors.InvalidToken) as caught:
        verifier.verify(token, now=now)
    assert isinstance(caught.value, kinds or errors.InvalidToken), repr(caught.value)
    after = verifier.cache_info()
    assert (after.size, after.bytes, after.hits) == (before.size, before.bytes, before.hits)
    text = token if isinstance(token, str) else token.decode("latin-1")
    assert not any(len(part) > 16 and part in repr(caught.value) for part in text.split("."))
    return caught.value


def refuse_all(verifier: Verifier, tokens: Iterable[str | bytes], *kinds: type[errors.InvalidToken]) -> None:
    """As `refuse`, for many."""
    tokens = list(tokens)
    before = verifier.cache_info()
    outcomes = verifier.verify_many(tokens, now=NOW)
    after = verifier.cache_info()
    assert (after.size, after.bytes, after.hits) == (before.size, before.bytes, before.hits)
    wrong = [(t, o) for t, o in zip(tokens, outcomes, strict=True) if not isinstance(o, kinds or errors.InvalidToken)]
    assert wrong == []


def accept(verifier: Verifier, token: str | bytes, now: int = NOW) -> dict[str, Any]:
    return verifier.verify(token, now=now).to_dict()


def raw_claims(text: str) -> bytes:
    """A good claims set with more members in JSON text, spelt exactly so."""
    return (json.dumps(claims())[:-1] + "," + text + "}").encode()


def raw_header(key: SigningKey, text: str) -> bytes:
    return (json.dumps(header(key))[:-1] + "," + text + "}").encode()


# --- J1: the algorithm is the key's, never the token's ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_j1_header_alg_must_be_the_key_s(algorithm: str) -> None:
    keys = [make_key(name) for name in ALGORITHMS]
    key = make_key(algorithm)
    verifier = verifier_of(*keys)
    for other in keys:
        token = sign(header(key, alg=other.algorithm), None, key)
        if other is key:
            assert accept(verifier, token) == claims()
        else:
            refuse(verifier, token, errors.UnsupportedToken)
            # The same header, and a signature that is right for it, by somebody else's key.
            refuse(verifier, sign(header(key, alg=other.algorithm), None, other), errors.UnsupportedToken)
            refuse(verifier, sign(header(key), None, other), errors.InvalidSignature)


NO_ALGORITHMS = [
    "none",
    "None",
    "noNE",
    "",
    None,
    ["RS256"],
    "RS256 ",
    " RS256",
    "RS256\0",
    "rs256",
    "RS2560",
    "RS25",
    256,
    {},
    True,
    "foo",
]


@pytest.mark.parametrize("alg", NO_ALGORITHMS, ids=repr)
def test_j1_no_algorithm_is_refused_before_a_key_is_looked_for(alg: object) -> None:
    key = make_key("RS256")
    verifier = verifier_of(key)
    refuse(verifier, sign(header(key, alg=alg), None, key), *SYNTAX)
    refuse(verifier, sign(header(key, alg=alg, kid="unknown"), None, key), *SYNTAX)
    refuse(verifier, sign({"alg": alg}, None, key), *SYNTAX)


def test_j1_header_without_alg_is_refused() -> None:
    key = make_key("RS256")
    refuse(verifier_of(key), sign({"kid": key.kid, "typ": "JWT"}, None, key), *SYNTAX)


# --- J2: nothing but base64url and two dots ---


def test_j2_every_other_byte_at_every_position_is_refused() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    good = sign(None, None, key).encode()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    others = [bytes([value]) for value in range(256) if value not in alphabet]
    for place in range(len(good) + 1):
        refuse_all(verifier, (good[:place] + other + good[place:] for other in others), errors.MalformedToken)
        refuse_all(verifier, (good[:place] + other + good[place + 1 :] for other in others), errors.MalformedToken)
    assert accept(verifier, good) == claims()


@pytest.mark.parametrize(
    "character", ["\u00e9", "\u0130", "\uff0e", "\u2024", "\ud800", "\U0001f600", "\0", "\u0661"], ids=ascii
)
def test_j2_text_beyond_ascii_is_refused(character: str) -> None:
    key = make_key("HS256")
    good = sign(None, None, key)
    for place in (0, 5, good.index("."), len(good) - 1, len(good)):
        refuse(verifier_of(key), good[:place] + character + good[place:], errors.MalformedToken)
        refuse(verifier_of(key), good[:place] + character + good[place + 1 :], errors.MalformedToken)


@pytest.mark.parametrize(
    "shape", ["", ".", "..", "...", "h", "h.p", "h.p.", ".p.s", "h..s", "h.p.s.", ".h.p.s", "h.p.s.s", "h.p.s.s.s.s"]
)
def test_j2_three_parts_none_empty(shape: str) -> None:
    key = make_key("HS256")
    first, second, third = sign(None, None, key).split(".")
    token = shape.replace("h", first).replace("p", second).replace("s", third)
    refuse(verifier_of(key), token, errors.MalformedToken)
    refuse(verifier_of(key), token.encode(), errors.MalformedToken)


def test_j2_json_serialisation_is_refused() -> None:
    key = make_key("HS256")
    first, second, third = sign(None, None, key).split(".")
    flattened = {"protected": first, "payload": second, "signature": third}
    general = {"payload": second, "signatures": [{"protected": first, "signature": third}]}
    for form in (flattened, general, flattened | {"header": {"alg": "none"}}):
        refuse(verifier_of(key), json.dumps(form), errors.MalformedToken)


# --- J3: no JWE, and it is said ---


@pytest.mark.parametrize("token", ["a.b.c.d.e", "....", "a....e"])
def test_j3_five_parts_are_called_unsupported(token: str) -> None:
    refuse(verifier_of(make_key("HS256")), token, errors.UnsupportedToken, errors.MalformedToken)
    assert isinstance(refuse(verifier_of(make_key("HS256")), "a.b.c.d.e"), errors.UnsupportedToken)


# --- J4, A10, A11: header parameters that change what a token means ---


@pytest.mark.parametrize(
    "value", ["x", "https://evil.example/keys", None, [], ["exp"], ["b64"], {}, 0, 1, False, True], ids=repr
)
@pytest.mark.parametrize("name", ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c"])
def test_j4_a10_a11_parameter_is_refused_whatever_its_value(name: str, value: object) -> None:
    key = make_key("ES256")
    verifier = verifier_of(key)
    refuse(verifier, sign(header(key, **{name: value}), None, key), errors.UnsupportedToken)
    refuse(verifier, sign({name: value} | header(key), None, key), errors.UnsupportedToken)
    refuse(verifier, sign(header(key, **{name: value, "kid": "unknown"}), None, key), errors.UnsupportedToken)


@pytest.mark.parametrize("name", ["crit", "b64", "jwk"])
def test_j4_escaped_spelling_is_the_same_name(name: str) -> None:
    key = make_key("ES256")
    spelt = "".join(f"\\u{ord(c):04x}" for c in name)
    refuse(verifier_of(key), sign(raw_header(key, f'"{spelt}":false'), None, key), errors.UnsupportedToken)


@pytest.mark.parametrize("name", ["Crit", "crit\0", "cri", "critical", "x5t", "version", "cty", "nonce"])
def test_j4_other_parameters_are_ignored(name: str) -> None:
    key = make_key("ES256")
    assert accept(verifier_of(key), sign(header(key, **{name: "5"}), None, key)) == claims()


@pytest.mark.parametrize("critical", [None, ["b64"], ["b64", "exp"]], ids=repr)
@pytest.mark.parametrize("b64", [True, False])
def test_a11_unencoded_and_detached_payloads_are_refused(b64: bool, critical: list[str] | None) -> None:
    key = make_key("ES256")
    extra = {"b64": b64} | ({"crit": critical} if critical else {})
    first, payload = encode(header(key, **extra)), json.dumps(claims())
    # RFC 7797: the signing input of an unencoded payload is the payload itself.
    unencoded = base64url(key.sign(f"{first}.{payload}".encode()))
    for token in (f"{first}.{payload}.{unencoded}", f"{first}..{unencoded}", sign(header(key, **extra), None, key)):
        refuse(verifier_of(key), token, *SYNTAX)


# --- J5, A21, A22: one meaning for every JSON text ---


@pytest.mark.parametrize(
    "text",
    [
        b'{"alg":"ES256","\\u0061lg":"HS256","kid":"key-ES256","typ":"JWT"}',
        b'{"\\u0061lg":"none","alg":"ES256","kid":"key-ES256","typ":"JWT"}',
        b'{"alg":"ES256","alg":"ES256","kid":"key-ES256","typ":"JWT"}',
        b'{"alg":"ES256","kid":"key-ES256","kid":"other","typ":"JWT"}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT","x":{"a":1,"\\u0061":2}}',
        b'\xef\xbb\xbf{"alg":"ES256","kid":"key-ES256","typ":"JWT"}',
        '{"alg":"ES256","kid":"key-ES256","typ":"JWT"}'.encode("utf-16"),
        '{"alg":"ES256","kid":"key-ES256","typ":"JWT"}'.encode("utf-16-le"),
        '{"alg":"ES256","kid":"key-ES256","typ":"JWT"}'.encode("utf-32"),
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT","x":"\\ud800"}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT","\\udc00":1}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT","x":"\xed\xa0\x80"}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT"}\0',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT"}{}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT",}',
        b'{"alg":"ES256","kid":"key-ES256","typ":"JWT"}//',
        b"[]",
        b'"ES256"',
        b"null",
        b"{",
        b" ",
    ],
)
def test_j5_header_is_one_strict_object(text: bytes) -> None:
    key = make_key("ES256")
    refuse(verifier_of(key), sign(text, None, key), errors.MalformedToken)


@pytest.mark.parametrize(
    "text",
    [
        '"sub":"admin"',
        '"\\u0073ub":"admin"',
        '"\\u0065xp":9007199254740991',
        '"a":1,"a":1',
        '"a":1,"\\u0061":2',
        '"a\\/b":1,"a/b":2',
        '"\\ud83d\\ude00":1,"\U0001f600":2',
        '"":1,"":2',
        '"\\u0000":1,"\\u0000":2',
        '"__proto__":{},"__proto__":{}',
        '"x":{"y":{"a":1,"\\u0061":2}}',
        '"x":[{"a":1,"a":2}]',
    ],
)
def test_a21_repeated_names_are_refused_at_any_depth(text: str) -> None:
    key = make_key("ES256")
    error = refuse(verifier_of(key), sign(None, raw_claims(text), key), errors.MalformedToken)
    assert error.reason == "duplicate_member"


def test_a21_names_that_only_look_alike_are_two() -> None:
    key = make_key("ES256")
    nfc, nfd = unicodedata.normalize("NFC", "\u00e9"), unicodedata.normalize("NFD", "\u00e9")
    odd = {
        nfc: 1,
        nfd: 2,
        "__proto__": {"admin": True},
        "constructor": 3,
        "sub ": 4,
        "Sub": 5,
        "sub\0": 6,
        "\0": 7,
        "": 8,
    }
    assert accept(verifier_of(key), sign(None, claims(**odd), key)) == claims(**odd)


def test_a21_members_of_other_objects_may_have_the_same_names() -> None:
    key = make_key("ES256")
    nested = {"x": {"sub": "admin", "exp": 0, "x": {"x": 1}}, "y": [{"a": 1}, {"a": 2}]}
    assert accept(verifier_of(key), sign(None, claims(**nested), key)) == claims(**nested)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80",
        b"\xff",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xfe",
        b"\xf8\x88\x80\x80\x80",
        b"\0",
        b"\x01",
        b"\x1f",
        b"\n",
        b"\\ud800",
        b"\\udc00",
        b"\\ud800\\ud800",
        b"\\udc00\\ud800",
        b"\\ud800x",
        b"\\ud83d\\u0041",
        b"\\x41",
        b"\\u12",
        b"\\u12g4",
        b"\\",
        b"\\u-123",
        b"\\u+123",
        b"\\u 123",
        b"\\U0041",
    ],
)
def test_a22_bad_text_is_refused_in_names_and_values(raw: bytes) -> None:
    key = make_key("ES256")
    verifier = verifier_of(key)
    start = json.dumps(claims()).encode()[:-1]
    for text in (
        b',"x":"' + raw + b'"}',
        b',"x":"xy' + raw + b'yz"}',
        b',"' + raw + b'":1}',
        b',"x":["' + raw + b'"]}',
    ):
        refuse(verifier, sign(None, start + text, key), errors.MalformedToken)
    refuse(
        verifier,
        sign(json.dumps(header(key)).encode()[:-1] + b',"x":"' + raw + b'"}', None, key),
        errors.MalformedToken,
    )


def test_a22_nul_ends_no_name_and_no_value() -> None:
    key = make_key("ES256")
    verifier = verifier_of(key)
    refuse(verifier, sign(b'{"alg\\u0000x":"ES256","kid":"key-ES256","typ":"JWT"}', None, key), *SYNTAX)
    refuse(verifier, sign(header(key, alg="ES256\0"), None, key), *SYNTAX)
    refuse(verifier, sign(header(key, kid=key.kid + "\0"), None, key), errors.UnknownKey)
    refuse(verifier, sign(header(key, typ="JWT\0"), None, key), errors.InvalidClaim)
    refuse(verifier, sign(None, claims(iss=ISSUER + "\0"), key), errors.InvalidClaim)
    refuse(verifier, sign(None, claims(iss=ISSUER + "\0.evil.example"), key), errors.InvalidClaim)
    assert accept(verifier, sign(header(key, **{"alg\0x": "none"}), claims(sub="a\0b"), key))["sub"] == "a\0b"
    audience = verifier_of(key, audience="api")
    refuse(audience, sign(None, claims(aud="api\0"), key), errors.InvalidClaim)
    refuse(audience, sign(None, claims(aud=["api\0x", "\0api"]), key), errors.InvalidClaim)


# --- J6, A13, A14: issuer and audience ---

NOT_THE_ISSUER = [
    ISSUER + "/",
    ISSUER[:-1],
    ISSUER[1:],
    ISSUER.upper(),
    ISSUER + " ",
    " " + ISSUER,
    "https://api.example.com",
    "",
    "*",
    ISSUER + ".evil.example",
    "http" + ISSUER[5:],
    "https",
    [ISSUER],
    [],
    None,
    1,
    True,
    {},
    {"iss": ISSUER},
]


@pytest.mark.parametrize("issuer", NOT_THE_ISSUER, ids=repr)
def test_j6_a14_issuer_is_compared_whole(issuer: object) -> None:
    key = make_key("ES256")
    error = refuse(verifier_of(key), sign(None, claims(iss=issuer), key), errors.InvalidClaim)
    assert isinstance(error, errors.InvalidClaim) and error.claim == "iss"


def test_j6_issuer_is_required() -> None:
    key = make_key("ES256")
    payload = claims()
    del payload["iss"]
    refuse(verifier_of(key), sign(None, payload, key), errors.InvalidClaim)
    assert accept(verifier_of(key, issuer=None), sign(None, payload, key)) == payload


@pytest.mark.parametrize(
    "audience",
    [
        "",
        "ap",
        "api2",
        "API",
        "api ",
        "apiapi",
        "*",
        [],
        [""],
        [[]],
        [["api"]],
        ["ap", "i"],
        [1],
        ["api", 1],
        [None, "api"],
        ["api", {}],
        1,
        None,
        True,
        {},
        {"api": 1},
        {"0": "api"},
    ],
    ids=repr,
)
def test_j6_a13_audience_is_one_of_the_strings(audience: object) -> None:
    key = make_key("ES256")
    refuse(verifier_of(key, audience="api"), sign(None, claims(aud=audience), key), errors.InvalidClaim)
    refuse(verifier_of(key, audience=["api", "web"]), sign(None, claims(aud=audience), key), errors.InvalidClaim)


def test_j6_audience_is_required_when_configured() -> None:
    key = make_key("ES256")
    refuse(verifier_of(key, audience="api"), sign(None, None, key), errors.InvalidClaim)
    for audience in ("api", ["api"], ["other", "api"], ["api", "api"]):
        assert accept(verifier_of(key, audience="api"), sign(None, claims(aud=audience), key))["aud"] == audience


@pytest.mark.parametrize("audience", ["", [], [""], "api,", 1, [1], {}], ids=repr)
def test_j6_empty_audience_of_ours_is_refused_or_matches_nothing(audience: Any) -> None:
    key = make_key("ES256")
    try:
        verifier = verifier_of(key, audience=audience)
    except (errors.ConfigError, TypeError):
        return
    for theirs in ("", [], [""], "api", ["api"]):
        refuse(verifier, sign(None, claims(aud=theirs), key), errors.InvalidClaim)
    refuse(verifier, sign(None, None, key), errors.InvalidClaim)


def test_a13_an_outcome_is_claims_or_an_error() -> None:
    key = make_key("ES256")
    tokens = [sign(None, None, key), sign(None, claims(exp=NOW), key), "x", sign(None, claims(aud="api"), key)]
    outcomes = verifier_of(key).verify_many(tokens, now=NOW)
    assert outcomes[0]["sub"] == "user-1"
    assert [isinstance(outcome, errors.InvalidToken) for outcome in outcomes] == [False, True, True, False]
    assert isinstance(outcomes[1], errors.ExpiredToken) and isinstance(outcomes[2], errors.MalformedToken)


# --- J7, A31: explicit types ---


@pytest.mark.parametrize(
    ("configured", "typ", "good"),
    [
        ("JWT", "JWT", True),
        ("JWT", "jwt", True),
        ("JWT", "application/jwt", True),
        ("JWT", "APPLICATION/JWT", True),
        ("JWT", "at+jwt", False),
        ("JWT", "text/jwt", False),
        ("JWT", "application/application/jwt", False),
        ("JWT", "application/", False),
        ("JWT", "/jwt", False),
        ("JWT", "JWT ", False),
        ("JWT", "J\u017fT", False),
        ("JWT", "", False),
        ("JWT", None, False),
        ("JWT", 1, False),
        ("JWT", ["JWT"], False),
        ("at+jwt", "at+jwt", True),
        ("at+jwt", "AT+JWT", True),
        ("at+jwt", "application/at+jwt", True),
        ("application/at+jwt", "at+jwt", True),
        ("at+jwt", "JWT", False),
        ("at+jwt", "rt+jwt", False),
        ("at+jwt", "id_token+jwt", False),
        (("JWT", "at+jwt"), "at+jwt", True),
        (("JWT", "at+jwt"), "jwt", True),
        (("JWT", "at+jwt"), "logout+jwt", False),
    ],
)
def test_j7_type_follows_the_media_type_rule(configured: Any, typ: object, good: bool) -> None:
    key = make_key("ES256")
    verifier = verifier_of(key, typ=configured)
    token = sign(header(key, typ=typ), None, key)
    if good:
        assert accept(verifier, token) == claims()
    else:
        refuse(verifier, token, errors.InvalidClaim if isinstance(typ, str) else errors.MalformedToken)


def test_j7_type_is_required() -> None:
    key = make_key("ES256")
    refuse(verifier_of(key), sign({"alg": "ES256", "kid": key.kid}, None, key), errors.InvalidClaim)


def test_j7_a_header_is_judged_the_same_when_it_comes_again() -> None:
    """Verifiers remember headers; what they remember must not be more than what they found."""
    keys = make_key("ES256"), make_key("HS256")
    verifier = verifier_of(*keys)
    headers = [header(key, typ=typ, n=n) for key in keys for typ in ("JWT", "at+jwt") for n in range(20)]
    for _ in range(3):
        for head in headers:
            key = keys[head["alg"] == "HS256"]
            token, stranger = sign(head, None, key), sign(head, None, make_key(key.algorithm, "stranger"))
            refuse(verifier, stranger, errors.InvalidSignature if head["typ"] == "JWT" else errors.InvalidClaim)
            assert verifier.verify_jws(token) == json.dumps(claims(), separators=(",", ":")).encode()
            if head["typ"] == "JWT":
                assert accept(verifier, token) == claims()
            else:
                refuse(verifier, token, errors.InvalidClaim)


def test_j7_a31_other_kinds_of_token_are_refused() -> None:
    key = make_key("ES256")
    kinds = {kind: sign(header(key, typ=kind), None, key) for kind in ("JWT", "at+jwt", "rt+jwt", "id+jwt")}
    for kind in kinds:
        verifier = verifier_of(key, typ=kind)
        for other, token in kinds.items():
            if other == kind:
                assert accept(verifier, token) == claims()
            else:
                refuse(verifier, token, errors.InvalidClaim)
    front = base64.b64encode(json.dumps({"uid": "user-1", "ate": NOW * 1000, "up": claims()}).encode()).decode()
    for token in (front, base64url(bytes(64)), f"{base64url(bytes(48))}.{base64url(bytes(32))}.V2", str(uuid.uuid4())):
        refuse(verifier_of(key), token, errors.MalformedToken)


# --- J8, J9, A12: registered claims have one type ---

NOT_NUMERIC_DATES = [
    *(
        "1e10",
        "1E10",
        "1e+10",
        "1800003600.0",
        "18000036e2",
        "1.8e9",
        "1.0",
        "0.0",
        "0e0",
        "1e-1",
        "1e400",
        "-1e400",
        "1e-400",
    ),
    *("-0", "-1", "-1800003600", "-9007199254740991", "-9223372036854775808", "-9223372036854775809"),
    *("9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551615"),
    *("18446744073709551616", "18446744075509555216", "1" + "0" * 40, "9" * 400, "0" * 10),
    *('"1800003600"', '""', '"never"', "true", "false", "null", "[]", "{}", "[1800003600]", '{"v":1800003600}'),
    *("01800003600", "+1800003600", "0x6b49e1e0", "1800003600.", ".5", "1_800_003_600", "1e", "1E+", "--1", "-", "0b1"),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "undefined",
        "NULL",
        "'1800003600'",
        "\uff11\uff18",
        "1800003600n",
        "1 800",
    ),
]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_j8_a12_only_whole_numbers_are_dates(claim: str) -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    rest = json.dumps({name: value for name, value in claims().items() if name != claim})[:-1]
    assert len(NOT_NUMERIC_DATES) >= 40
    for spelling in NOT_NUMERIC_DATES:
        payload = f'{rest},"{claim}":{spelling}}}'.encode()
        refuse(verifier, sign(None, payload, key), errors.InvalidClaim, errors.MalformedToken)


def test_j8_dates_up_to_two_to_the_53_are_dates() -> None:
    key = make_key("HS256")
    for verifier in (verifier_of(key), verifier_of(key, leeway=60)):
        last = 2**53 - 1
        token = sign(None, claims(exp=last, nbf=0, iat=0), key)
        assert verifier.verify(token, now=NOW).expires_at == last
        assert verifier.verify(token, now=last - 1).expires_at == last
        refuse(verifier, sign(None, claims(exp=0), key), errors.ExpiredToken)
        refuse(verifier, sign(None, claims(nbf=last), key), errors.ImmatureToken)
        refuse(verifier, sign(None, claims(iat=last), key), errors.ImmatureToken)


@pytest.mark.parametrize("now", [2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30])
def test_j8_no_clock_reading_wraps_round(now: int) -> None:
    key = make_key("HS256")
    token = sign(None, claims(exp=2**53 - 1), key)
    for verifier in (verifier_of(key), verifier_of(key, leeway=60)):
        with pytest.raises((errors.ExpiredToken, OverflowError, ValueError)):
            verifier.verify(token, now=now)
        assert verifier.verify(token, now=NOW)["sub"] == "user-1"
        with pytest.raises((errors.ExpiredToken, OverflowError, ValueError)):  # and from the cache
            verifier.verify(token, now=now)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf"), -1, -(2**63), -(2**64)], ids=repr)
def test_j8_no_clock_reading_stops_the_clock(now: float) -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    token = sign(None, claims(nbf=NOW), key)
    verifier.verify(token, now=NOW)
    with pytest.raises((errors.InvalidToken, OverflowError, ValueError)):
        verifier.verify(token, now=now)


def test_j8_exp_is_required_and_exclusive() -> None:
    key = make_key("HS256")
    payload = claims()
    del payload["exp"]
    error = refuse(verifier_of(key), sign(None, payload, key), errors.InvalidClaim)
    assert isinstance(error, errors.InvalidClaim) and error.claim == "exp"
    for leeway in (0, 1, 60):
        verifier = verifier_of(key, leeway=leeway)
        token = sign(None, claims(exp=NOW + 10), key)
        refuse(verifier, token, errors.ExpiredToken, now=NOW + 10 + leeway)
        assert accept(verifier, token, now=NOW + 9 + leeway)["exp"] == NOW + 10
        refuse(verifier, token, errors.ExpiredToken, now=NOW + 10 + leeway)  # from the cache, too


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_j8_nbf_and_iat_have_five_seconds_at_least(claim: str) -> None:
    key = make_key("HS256")
    for leeway, allowed in ((0, 5), (60, 60)):
        verifier = verifier_of(key, leeway=leeway)
        assert accept(verifier, sign(None, claims(**{claim: NOW + allowed}), key))[claim] == NOW + allowed
        refuse(verifier, sign(None, claims(**{claim: NOW + allowed + 1}), key), errors.ImmatureToken)


@pytest.mark.parametrize("leeway", [61, -1, 3600, 2**63, True, "5", None, 1.5], ids=repr)
def test_j8_leeway_is_a_minute_at_most(leeway: Any) -> None:
    with pytest.raises((errors.ConfigError, TypeError)):
        verifier_of(make_key("HS256"), leeway=leeway)


@pytest.mark.parametrize("claim", ["iss", "sub", "jti", "aud", "exp", "nbf", "iat"])
def test_j9_malformed_claim_is_never_absent(claim: str) -> None:
    key = make_key("HS256")
    values: list[object] = [1.5, True, False, None, [], {}, [1], {"a": "b"}, [None], ["a", 1]]
    if claim in ("iss", "sub", "jti"):
        values += [0, 1, ["a"]]
    elif claim == "aud":
        values += [0, 1, [["a"]]]
    else:
        values += ["", "1", [NOW]]
    for value in values:
        for verifier in (verifier_of(key), verifier_of(key, issuer=None)):
            error = refuse(verifier, sign(None, claims(**{claim: value}), key), errors.InvalidClaim)
            assert isinstance(error, errors.InvalidClaim) and error.claim == claim


# --- J10, A2: no public key is ever a secret ---


def public_texts(key: SigningKey) -> dict[str, bytes]:
    """The forms in which an RSA or EC public key is handed around."""
    public = key.private.public_key()
    pem, jwk = key.pem, json.dumps(key.jwk).encode()
    encoding, form = serialization.Encoding, serialization.PublicFormat
    texts = {
        "pem": pem,
        "pem_leading_blank": b" " + pem,
        "pem_leading_newlines": b"\n\r\n\t" + pem,
        "pem_crlf": pem.replace(b"\n", b"\r\n"),
        "pem_bom": b"\xef\xbb\xbf" + pem,
        "pem_stripped": pem.strip(),
        "pem_utf16": pem.decode().encode("utf-16"),
        "pem_without_armour": b"".join(pem.splitlines()[1:-1]),
        "der": public.public_bytes(encoding.DER, form.SubjectPublicKeyInfo),
        "jwk": jwk,
        "jwk_leading_blank": b"\r\n " + jwk,
        "jwk_bom": b"\xef\xbb\xbf" + jwk,
        "jwks": json.dumps({"keys": [key.jwk]}).encode(),
        "jwks_list": json.dumps([key.jwk]).encode(),
        "ssh": public.public_bytes(encoding.OpenSSH, form.OpenSSH),
    }
    if key.algorithm == "RS256":
        texts["pkcs1_pem"] = public.public_bytes(encoding.PEM, form.PKCS1)
        texts["pkcs1_der"] = public.public_bytes(encoding.DER, form.PKCS1)
    return texts


FORMS = (
    *("pem", "pem_leading_blank", "pem_leading_newlines", "pem_crlf", "pem_bom", "pem_stripped", "pem_utf16"),
    *("pem_without_armour", "der", "jwk", "jwk_leading_blank", "jwk_bom", "jwks", "jwks_list", "ssh"),
)
PUBLIC_TEXTS = [("RS256", form) for form in (*FORMS, "pkcs1_pem", "pkcs1_der")] + [("ES256", form) for form in FORMS]


@pytest.mark.parametrize(("algorithm", "form"), PUBLIC_TEXTS)
def test_a2_hmac_with_the_public_key_as_secret_is_refused(algorithm: str, form: str) -> None:
    key = make_key(algorithm)
    secret = public_texts(key)[form]
    verifier = verifier_of(key, make_key("HS256", "another"))
    for name in ("HS256", "HS384", "HS512"):
        forger = SigningKey(name, key.kid, secret)
        refuse(verifier, sign(None, None, forger), errors.UnsupportedToken)
        refuse(
            verifier,
            sign(header(forger, kid="another"), None, forger),
            errors.UnsupportedToken,
            errors.InvalidSignature,
        )
        refuse(verifier, sign({"alg": name, "typ": "JWT"}, None, forger))


@pytest.mark.parametrize(("algorithm", "form"), PUBLIC_TEXTS)
def test_j10_text_that_parses_as_a_key_is_no_secret(algorithm: str, form: str) -> None:
    secret = public_texts(make_key(algorithm))[form]
    for name in ("HS256", "HS384", "HS512"):
        with pytest.raises(errors.ConfigError):
            KeySet.from_secret(secret, alg=name)
        with pytest.raises(errors.ConfigError):
            KeySet.from_jwks({"keys": [{"kty": "oct", "alg": name, "kid": "a", "k": base64url(secret)}]})
        with pytest.raises(errors.ConfigError):
            Key.hmac(name, None, secret)


def test_j10_private_keys_are_no_secrets_either() -> None:
    for key in (make_key("RS256"), make_key("ES256"), make_key("EdDSA")):
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
            secret = key.private.private_bytes(
                encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with pytest.raises(errors.ConfigError):
                KeySet.from_secret(secret, alg="HS256")


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_j10_secret_is_as_long_as_the_hash(algorithm: str, least: int) -> None:
    for size in (0, 1, 16, least - 1):
        with pytest.raises(errors.ConfigError):
            Key.hmac(algorithm, None, bytes(range(size)))
        with pytest.raises(errors.ConfigError):
            KeySet.from_secret(bytes(range(size)), alg=algorithm)
    assert Key.hmac(algorithm, None, bytes(range(least))).algorithm == algorithm


def test_j10_secret_and_public_key_do_not_come_from_one_document() -> None:
    with pytest.raises(errors.ConfigError):
        KeySet.from_jwks({"keys": [make_key("HS256").jwk, make_key("ES256").jwk]})


def test_j10_secret_is_never_shown() -> None:
    secret = b"correct-horse-battery-staple-correct-horse"
    keys = KeySet.from_secret(secret, alg="HS256", kid="k")
    shown = [
        repr(keys),
        str(keys),
        *(repr(key) for key in keys),
        repr(Verifier(keys, issuer=None)),
        json.dumps(keys.to_jwks()),
    ]
    assert not any("horse" in text or secret.hex() in text or base64url(secret) in text for text in shown)
    assert keys.to_jwks() == {"keys": []}


# --- J11, A25, A26: keys that weaken their algorithm ---


def test_j11_a25_rsa_keys_are_2048_to_8192_bits() -> None:
    weak = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n
    for bits in (1024, 2047, 8193, 16384):
        modulus = weak if bits == 1024 else (1 << bits - 1) | 0x10001 | (1 << bits // 2)
        assert modulus.bit_length() == bits
        with pytest.raises(errors.ConfigError):
            Key.rsa("RS256", None, minimal(modulus), b"\1\0\1")
    good = make_key("RS256").private.public_key().public_numbers().n
    for bad in (
        b"",
        b"\0",
        b"\0" + minimal(good)[1:],
        minimal(good - 1),
        minimal(good)[:-1],
    ):  # empty, zero, short, even, short
        with pytest.raises(errors.ConfigError):
            Key.rsa("RS256", None, bad, b"\1\0\1")


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, 17, 257, 65535, 65536, 65538, 2**32, 2**64, 2**2048 - 2])
def test_j11_a25_rsa_exponents_are_odd_and_65537_at_least(exponent: int) -> None:
    n = minimal(make_key("RS256").private.public_key().public_numbers().n)
    for algorithm in ("RS256", "PS256"):
        with pytest.raises(errors.ConfigError):
            Key.rsa(algorithm, None, n, minimal(exponent))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
def test_j11_ec_point_is_on_the_curve_and_whole(algorithm: str) -> None:
    size = coordinate_size(algorithm)
    public = make_key(algorithm).private.public_key().public_numbers()
    x, y = public.x.to_bytes(size, "big"), public.y.to_bytes(size, "big")
    flipped = bytes([*y[:-1], y[-1] ^ 1])
    points = [
        (x, flipped),
        (y, x),
        (bytes(size), bytes(size)),
        (x, bytes(size)),
        (b"\xff" * size, y),
        (x, b"\xff" * size),
        (x[1:], y),
        (x, y[1:]),
        (b"\0" + x, y),
        (x, b"\0" + y),
        (b"", b""),
        (b"\4" + x, y),
        (x + y, b""),
    ]
    for point in points:
        with pytest.raises(errors.ConfigError):
            Key.ec(algorithm, None, *point)
    others = {"ES256", "ES384", "ES512"} - {algorithm}
    for other in others:
        with pytest.raises(errors.ConfigError):
            Key.ec(other, None, x, y)


ED25519_PRIME = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
#: All encodings, canonical or not, of the eight points of order 1, 2, 4 and 8: y, and the sign of x in the top bit.
LOW_ORDER = [
    (y | sign_bit << 255).to_bytes(32, "little").hex()
    for y in (0, 1, ED25519_PRIME - 1, ORDER_8, ED25519_PRIME - ORDER_8, ED25519_PRIME, ED25519_PRIME + 1)
    for sign_bit in (0, 1)
]


@pytest.mark.parametrize("encoding", LOW_ORDER)
def test_j11_a26_ed25519_key_of_low_order_is_refused(encoding: str) -> None:
    with pytest.raises(errors.ConfigError):
        Key.ed25519(None, bytes.fromhex(encoding))
    with pytest.raises(errors.ConfigError):
        KeySet.from_jwks({"keys": [make_key("EdDSA").jwk | {"x": base64url(bytes.fromhex(encoding))}]})


def test_j11_a26_ed25519_key_is_canonical_and_on_the_curve() -> None:
    prime = ED25519_PRIME
    for y in range(prime, 2**255):
        for sign_bit in (0, 1 << 255):
            with pytest.raises(errors.ConfigError):
                Key.ed25519(None, (y | sign_bit).to_bytes(32, "little"))
    d = -121665 * pow(121666, -1, prime) % prime
    off = [y for y in range(2, 60) if not on_ed25519(y, d, prime)]
    assert off
    for y in off:
        with pytest.raises(errors.ConfigError):
            Key.ed25519(None, y.to_bytes(32, "little"))
    good = make_key("EdDSA").private.public_key().public_bytes_raw()
    for bad in (b"", good[:31], good + b"\0", good.hex().encode()):
        with pytest.raises(errors.ConfigError):
            Key.ed25519(None, bad)


def on_ed25519(y: int, d: int, prime: int) -> bool:
    """Whether -x^2 + y^2 = 1 + d x^2 y^2 has an x (RFC 8032 section 5.1)."""
    square = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
    return square == 0 or pow(square, (prime - 1) // 2, prime) == 1


def test_a26_ed25519_signatures_have_one_form() -> None:
    key = make_key("EdDSA")
    order = 2**252 + 27742317777372353535851937790883648493
    signature = key.sign(b"message")
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    assert key.verifying.verify(b"message", signature)
    bad = [
        r + (s + order).to_bytes(32, "little"),
        signature[:63],
        signature + b"\0",
        signature[:-1] + bytes([signature[-1] | 0x80]),
        bytes(64),
        b"\1" + bytes(63),
        b"",
        signature * 2,
    ]
    assert [candidate for candidate in bad if key.verifying.verify(b"message", candidate)] == []


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_a26_both_names_mean_one_kind_of_key(name: str) -> None:
    key = make_key("EdDSA")
    keys = KeySet.from_jwks({"keys": [key.jwk | {"alg": name}]})
    verifier = Verifier(keys, issuer=ISSUER)
    assert accept(verifier, sign(header(key, alg=name), None, key)) == claims()
    for other in ("Ed448", "ed25519", "EDDSA", "ES256", "Ed25519ph"):
        refuse(verifier, sign(header(key, alg=other), None, key), errors.UnsupportedToken)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a25_rsa_signature_is_as_long_as_the_modulus(algorithm: str) -> None:
    key = make_key(algorithm)
    numbers = key.private.public_key().public_numbers()
    signature = key.sign(b"message")
    value = int.from_bytes(signature, "big")
    assert key.verifying.verify(b"message", signature)
    bad = [
        b"\0" + signature,
        signature + b"\0",
        signature[:-1],
        signature[1:],
        b"",
        b"\0",
        bytes(256),
        b"\xff" * 256,
        (value + numbers.n).to_bytes(257, "big"),
        minimal(numbers.n),
        minimal(numbers.n - 1),
        b"\1".rjust(256, b"\0"),
    ]
    assert [len(candidate) for candidate in bad if key.verifying.verify(b"message", candidate)] == []
    # A signature that happens to start with a zero byte is valid only with it.
    message, short = next(
        (message, signature)
        for message in (str(number).encode() for number in itertools.count())
        if not (signature := key.sign(message))[0]
    )
    assert key.verifying.verify(message, short) and not key.verifying.verify(message, short.lstrip(b"\0"))


# --- J12, A18, A19: bounds ---


def test_j12_token_is_8_kib_by_default_and_16_at_most() -> None:
    key = make_key("HS256")
    for limit, options in ((8192, {}), (1024, {"max_token_bytes": 1024}), (16_384, {"max_token_bytes": 16_384})):
        verifier = verifier_of(key, **options)
        assert accept(verifier, sized_token(key, limit))["sub"] == "user-1"
        refuse(verifier, sized_token(key, limit + 1), errors.MalformedToken)
        refuse(verifier, sized_token(key, limit + 1).encode(), errors.MalformedToken)
    for limit in (16_385, 0, -1, 2**40):
        with pytest.raises(errors.ConfigError):
            verifier_of(key, max_token_bytes=limit)


def sized_token(key: SigningKey, size: int) -> str:
    """A valid token of exactly so many bytes; header and payload both may grow, as no segment can have every length."""
    fill, payload = {f"f{i}": "a" * 4000 for i in range(size // 5500)}, ""
    for extra in range(4):
        first = encode(header(key, x="b" * extra))
        low = size - len(first) - len(sign(None, None, key).split(".")[2]) - 2
        for padding in range(max(0, low * 3 // 4 - len(json.dumps(claims(**fill))) - 20), 5000):
            payload = encode(claims(**fill, z="a" * padding))
            if len(payload) >= low:
                break
        if len(payload) == low:
            return sign_segments(first, payload, key)
    raise AssertionError("no such size")


def test_j12_header_is_1_kib() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    assert accept(verifier, sign(header(key, x="a" * 650), None, key)) == claims()
    refuse(verifier, sign(header(key, x="a" * 1024), None, key), errors.MalformedToken)
    refuse(verifier, sign(json.dumps(header(key)).encode() + b" " * 1024, None, key), errors.MalformedToken)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_j12_a19_depth_is_8(opening: str, closing: str) -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    for depth, good in ((7, True), (8, False), (100, False), (500, False)):  # and one for the claims set itself
        text = '"x":' + opening * depth + "1" + closing * depth
        token = sign(None, raw_claims(text), key)
        if good:
            assert accept(verifier, token) == json.loads(raw_claims(text))
        else:
            refuse(verifier, token, errors.MalformedToken)
        refuse(verifier, sign(None, raw_claims('"x":' + opening * depth), key), errors.MalformedToken)


def test_j12_members_are_128() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    full = {f"m{number}": 0 for number in range(128 - len(claims()))}
    assert accept(verifier, sign(None, claims(**full), key)) == claims(**full)
    refuse(verifier, sign(None, claims(**full, extra=0), key), errors.MalformedToken)
    nested = {f"m{number}": 0 for number in range(129)}
    refuse(verifier, sign(None, claims(x=nested), key), errors.MalformedToken)


def test_j12_strings_are_4_kib() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    assert accept(verifier, sign(None, claims(x="a" * 4096), key))["x"] == "a" * 4096
    refuse(verifier, sign(None, claims(x="a" * 4097), key), errors.MalformedToken)
    refuse(verifier, sign(None, claims(x=["a" * 4097]), key), errors.MalformedToken)
    refuse(verifier, sign(None, claims(**{"n" * 4097: 1}), key), errors.MalformedToken)


HUGE = {
    "1_mib_token": lambda key: sign_segments(encode(header(key)), "A" * 2**20, key),
    "1_mib_header": lambda key: "A" * 2**20 + ".e30.AAAA",
    "1_mib_signature": lambda key: "e30.e30." + "A" * 2**20,
    "1_mib_of_dots": lambda key: "." * 2**20,
    "1_mib_of_nothing": lambda key: "A" * 2**20,
    "1_mib_of_spaces": lambda key: " " * 2**20,
    "1_mib_kid": lambda key: sign(header(key, kid="k" * 2**20), None, key),
    "100k_arrays": lambda key: sign(None, raw_claims('"x":' + "[" * 100_000), key),
    "100k_objects": lambda key: sign(None, raw_claims('"x":' + '{"a":' * 100_000), key),
    "100k_members": lambda key: sign(None, {str(number): number for number in range(100_000)}, key),
    "8_kib_of_dots": lambda key: "." * 8192,
    "4000_arrays": lambda key: sign(None, raw_claims('"x":' + "[" * 4000), key),
    "700_members": lambda key: sign(None, {str(number): 0 for number in range(700)}, key),
}


@pytest.mark.parametrize("case", HUGE)
def test_j12_a18_a19_oversized_input_is_refused_without_allocating(case: str) -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    token = HUGE[case](key)
    for form in (token, token.encode()):
        refuse(verifier, form, errors.MalformedToken, errors.UnsupportedToken)
        peaks = []
        for _ in range(5):  # what other threads of this process allocate meanwhile counts too, and only adds
            tracemalloc.start()
            try:
                outcome = verifier.verify_many([form], now=NOW)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert isinstance(outcome[0], errors.InvalidToken)
        assert min(peaks) < 16_384


# --- A1: no signature ---


@pytest.mark.parametrize("alg", ["none", "nOnE", "NONE", "foo", "", None, "HS256", "ES256"], ids=repr)
@pytest.mark.parametrize("signature", ["", "AAAA", base64url(bytes(32)), base64url(bytes(64)), "bm9uZQ"])
def test_a1_missing_or_made_up_signature_is_refused(alg: object, signature: str) -> None:
    keys = make_key("HS256"), make_key("ES256")
    verifier = verifier_of(*keys)
    for kid in ("key-HS256", "key-ES256", "none", ""):
        first = encode({"alg": alg, "kid": kid, "typ": "JWT"})
        refuse(verifier, f"{first}.{encode(claims())}.{signature}")
    refuse(verifier, f"{encode({'alg': alg, 'typ': 'JWT'})}.{encode(claims())}.{signature}")


# --- A3, A4, A5, A6: how a key is found ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a3_jwk_without_alg_needs_a_default(algorithm: str) -> None:
    key = make_key(algorithm)
    jwk = {name: value for name, value in key.jwk.items() if name != "alg"}
    with pytest.raises(errors.ConfigError):
        KeySet.from_jwks({"keys": [jwk]})
    keys = KeySet.from_jwks({"keys": [jwk]}, default_alg=algorithm)
    assert [loaded.algorithm for loaded in keys] == [algorithm]
    assert accept(Verifier(keys, issuer=ISSUER), sign(None, None, key)) == claims()


def test_a3_default_does_not_change_what_a_jwk_says_and_must_fit_it() -> None:
    rsa_key, ec_key = make_key("RS256"), make_key("ES256")
    assert [key.algorithm for key in KeySet.from_jwks({"keys": [rsa_key.jwk]}, default_alg="PS256")] == ["RS256"]
    bare = {name: value for name, value in ec_key.jwk.items() if name != "alg"}
    for wrong in ("RS256", "HS256", "ES384", "none", "EdDSA"):
        with pytest.raises(errors.ConfigError):
            KeySet.from_jwks({"keys": [bare]}, default_alg=wrong)


def test_a4_alg_of_the_header_allowed_but_not_the_key_s() -> None:
    bound, other = make_key("RS256"), make_key("ES256")
    verifier = verifier_of(bound, other)
    refuse(verifier, sign(header(bound, alg="ES256"), None, bound), errors.UnsupportedToken)
    refuse(verifier, sign(header(bound, alg="ES256"), None, other), errors.UnsupportedToken)
    refuse(verifier, sign(header(bound, alg="PS256"), None, bound), errors.UnsupportedToken)
    same_numbers = SigningKey("PS256", bound.kid, bound.private)
    refuse(verifier, sign(None, None, same_numbers), errors.UnsupportedToken)


@pytest.mark.parametrize("kid", ["unknown", "", "key-ES25", "key-ES2566", "KEY-ES256", "key-ES256 "])
def test_a5_unknown_key_is_an_error_and_brings_none_of_its_own(kid: str) -> None:
    mine, theirs = make_key("ES256"), make_key("ES256", "theirs")
    verifier = verifier_of(mine)
    refuse(verifier, sign(header(theirs, kid=kid), None, theirs), errors.UnknownKey)
    refuse(verifier, sign(header(theirs, kid=kid), None, mine), errors.UnknownKey)
    for parameter in ({"jwk": theirs.jwk}, {"jku": "https://evil.example/jwks.json"}, {"x5u": "https://evil.example/"}):
        refuse(verifier, sign(header(theirs, kid=kid, **parameter), None, theirs), errors.UnsupportedToken)
        refuse(verifier, sign(header(theirs, kid=mine.kid, **parameter), None, theirs), errors.UnsupportedToken)


def test_a5_token_without_kid_needs_a_set_of_one_key() -> None:
    one, two = make_key("ES256"), make_key("ES256", "theirs")
    token = sign({"alg": "ES256", "typ": "JWT"}, None, one)
    assert accept(verifier_of(one), token) == claims()
    refuse(verifier_of(one, two), token, errors.UnknownKey)
    refuse(verifier_of(two), token, errors.InvalidSignature)
    refuse(Verifier([], issuer=ISSUER), token, errors.UnknownKey, errors.UnsupportedToken)


KIDS = [
    "../../dev/null",
    "/etc/passwd",
    "' OR 1=1 --",
    "key-ES256'",
    "key-ES256\0",
    "\0",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "http://evil.example/",
    "key-ES256/../key-ES256",
    "%6bey-ES256",
    "k" * 129,
    "k" * 700,
    "\u212aey-ES256",
]


@pytest.mark.parametrize("kid", KIDS, ids=lambda kid: ascii(kid)[:24])
def test_a6_kid_is_only_a_name(kid: str) -> None:
    key = make_key("ES256")
    refuse(
        verifier_of(key, make_key("HS256")),
        sign(header(key, kid=kid), None, key),
        errors.UnknownKey,
        errors.MalformedToken,
    )
    blank = SigningKey("HS256", kid, b"")  # what a path to an empty file would give
    refuse(verifier_of(key, make_key("HS256")), sign(None, None, blank), errors.UnknownKey, errors.MalformedToken)


@pytest.mark.parametrize("kid", [0, 1, 1.5, None, True, [], ["key-ES256"], {}, {"key-ES256": 1}], ids=repr)
def test_a6_kid_is_a_string(kid: object) -> None:
    key = make_key("ES256")
    refuse(verifier_of(key), sign(header(key, kid=kid), None, key), errors.MalformedToken)


def test_a6_kid_is_128_bytes_at_most_and_may_be_any_text() -> None:
    for kid in ("k" * 128, "\u00e9" * 64, "\U0001f511", 'quo"te\\', "a b"):
        key = make_key("HS256", kid)
        assert accept(verifier_of(key), sign(None, None, key)) == claims()
    for kid in ("k" * 129, "\u00e9" * 65):
        with pytest.raises(errors.ConfigError):
            Key.hmac("HS256", kid, bytes(range(32)))


def test_a6_two_keys_of_one_name_are_refused() -> None:
    one, two = make_key("ES256"), SigningKey("ES256", "key-ES256", make_key("ES256", "theirs").private)
    with pytest.raises(errors.ConfigError):
        verifier_of(one, two)
    with pytest.raises(errors.ConfigError):
        KeySet.from_jwks({"keys": [one.jwk, two.jwk]})


# --- A15, A16: the cache ---


def test_a15_every_token_gets_its_own_claims_from_a_crowded_cache() -> None:
    key = make_key("HS256")
    tokens = [sign(None, claims(sub=f"user-{number}"), key) for number in range(400)]
    for size in (0, 1, 2, 7, 64):
        verifier = verifier_of(key, cache_size=size)
        for _ in range(3):
            found = [claims_["sub"] for claims_ in verifier.verify_many(tokens, now=NOW)]
            assert found == [f"user-{number}" for number in range(400)]
        assert verifier.cache_info().size <= max(size, 64)


def test_a15_prefixes_and_neighbours_of_a_cached_token_are_strangers() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    good = sign(None, None, key)
    accept(verifier, good)
    size = verifier.cache_info().size
    refuse_all(verifier, [good[:length] for length in range(len(good))])
    refuse_all(verifier, [good + tail for tail in ("A", "AA", "\0", ".", " ", good)])
    assert verifier.cache_info().size == size
    assert accept(verifier, good) == accept(verifier, good.encode()) == claims()


def test_a15_verifiers_of_other_policies_share_nothing() -> None:
    key = make_key("HS256")
    token = sign(None, claims(aud="api"), key)
    lenient, strict = verifier_of(key, audience="api"), verifier_of(key, audience="other")
    for _ in range(2):
        assert accept(lenient, token)["aud"] == "api"
        refuse(strict, token, errors.InvalidClaim)


def test_a15_callers_cannot_poison_what_the_cache_holds() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    token = sign(None, claims(roles=["user"], nested={"a": {"b": 1}}), key)
    first = verifier.verify(token, now=NOW)
    first["roles"].append("admin")
    first["nested"]["a"]["b"] = 2
    first.to_dict()["sub"] = "admin"
    first.get("nested")["c"] = 3
    for view in (first.items(), first.values()):
        for value in view:
            if isinstance(value, list):
                value.append("admin")
    for mutation in (
        lambda: first.__setitem__("sub", "admin"),  # type: ignore[attr-defined]
        lambda: setattr(first, "subject", "admin"),
        lambda: setattr(first, "anything", 1),
        lambda: first.__delitem__("sub"),  # type: ignore[attr-defined]
    ):
        with pytest.raises((TypeError, AttributeError)):
            mutation()
    assert accept(verifier, token) == claims(roles=["user"], nested={"a": {"b": 1}})


HANDLE = uuid.UUID("8d7c3a9e-5f0b-4d6e-9a4b-0123456789ab")


def entry(kind: int, target: bytes = bytes(16), cutoff: int = 0) -> bytes:
    """The 25 bytes of a revocation: kind, target, cutoff in milliseconds."""
    return bytes([kind]) + target + cutoff.to_bytes(8, "big")


def hash16(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


@pytest.mark.parametrize("kind", ["session", "token", "key", "tenant", "all"])
@pytest.mark.parametrize("form", [str, str.encode], ids=["str", "bytes"])
def test_a16_verify_revoke_verify(kind: str, form: Any) -> None:
    key = make_key("ES256")
    table = RevocationTable()
    verifier = verifier_of(key, revocations=table)
    token = sign(None, claims(sessionHandle=f"{HANDLE}_tenant", tId="tenant"), key)
    bystander = sign(header(key), claims(sessionHandle=str(uuid.UUID(int=7)), tId="other", iat=NOW + 2), key)
    entries = {
        "session": entry(1, HANDLE.bytes),
        "token": entry(2, hash16(token.rpartition(".")[0])),
        "key": entry(3, hash16(key.kid)),
        "tenant": entry(4, hash16("tenant"), NOW * 1000 + 999),
        "all": entry(5, cutoff=NOW * 1000),
    }
    for _ in range(2):
        accept(verifier, form(token))
        accept(verifier, form(bystander))
    assert table.add(entries[kind], NOW + 7200)
    for _ in range(3):
        with pytest.raises(errors.RevokedToken) as caught:
            verifier.verify(form(token), now=NOW)
        assert caught.value.kind == kind
        if kind != "key":
            accept(verifier, form(bystander))
    with pytest.raises(errors.RevokedToken):  # whoever asks, in whatever form, with or without a cache
        verifier.verify(token.encode() if form is str else token, now=NOW)
    with pytest.raises(errors.RevokedToken):
        verifier_of(key, revocations=table, cache_size=0).verify(form(token), now=NOW)


def test_a16_token_revoked_before_its_first_use_is_refused_and_not_cached() -> None:
    key = make_key("ES256")
    table = RevocationTable()
    table.add(entry(1, HANDLE.bytes), NOW + 7200)
    verifier = verifier_of(key, revocations=table)
    for _ in range(2):
        refuse(verifier, sign(None, claims(sessionHandle=str(HANDLE)), key), errors.RevokedToken)


def test_a16_verify_go_stale_verify() -> None:
    key = make_key("ES256")
    table = RevocationTable()
    verifier = verifier_of(key, revocations=table)
    token = sign(None, None, key)
    accept(verifier, token)
    table.fresh_until = 0.0
    with pytest.raises(errors.StoreUnavailable):
        verifier.verify(token, now=NOW)
    table.fresh_until = float("inf")
    assert accept(verifier, token) == claims()


def test_a16_verify_remove_the_key_verify() -> None:
    gone, kept = make_key("ES256"), make_key("ES256", "kept")
    verifier = verifier_of(gone, kept)
    tokens = sign(None, None, gone), sign(None, None, kept)
    for token in tokens:
        accept(verifier, token)
    verifier.replace_keys([kept.verifying])
    for _ in range(2):
        with pytest.raises(errors.UnknownKey):
            verifier.verify(tokens[0], now=NOW)
        assert accept(verifier, tokens[1]) == claims()
    impostor = SigningKey("ES256", gone.kid, make_key("ES256", "theirs").private)
    verifier.replace_keys([impostor.verifying, kept.verifying])
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(tokens[0], now=NOW)
    verifier.replace_keys([gone.verifying])
    assert accept(verifier, tokens[0]) == claims()
    with pytest.raises(errors.UnknownKey):
        verifier.verify(tokens[1], now=NOW)


def test_a16_verify_pass_exp_verify() -> None:
    key = make_key("ES256")
    verifier = verifier_of(key)
    token = sign(None, claims(exp=NOW + 10, nbf=NOW), key)
    accept(verifier, token)
    accept(verifier, token, now=NOW + 9)
    for now, kind in (
        (NOW + 10, errors.ExpiredToken),
        (NOW + 99999, errors.ExpiredToken),
        (NOW - 6, errors.ImmatureToken),
    ):
        with pytest.raises(kind):
            verifier.verify(token, now=now)
    assert accept(verifier, token) == claims(exp=NOW + 10, nbf=NOW)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a16_bad_signature_then_good_then_bad(algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = verifier_of(key)
    good = sign(None, None, key)
    stem, _, signature = good.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    raw[len(raw) // 2] ^= 1
    bad = f"{stem}.{base64url(bytes(raw))}"
    refuse(verifier, bad, errors.InvalidSignature)
    assert accept(verifier, good) == claims()
    refuse(verifier, bad, errors.InvalidSignature)
    assert accept(verifier, good) == claims()


# --- A20: one spelling per token ---


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "RS256"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a20_segment_has_one_spelling(algorithm: str, part: int) -> None:
    key = make_key(algorithm)
    verifier = verifier_of(key)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for filler in range(3):  # so that each length modulo 3 comes up
        segments = sign(header(key, x="b" * filler), claims(x="a" * filler), key).split(".")
        segment = segments[part]
        spellings = [segment + "=" * count for count in (1, 2, 3)] + [
            segment + text for text in (" ", "\n", "\r\n", "\t", "A", "AA", "AAA")
        ]
        spellings += [" " + segment, segment[:4] + "\n" + segment[4:], segment[:-1], segment + "A=="]
        if "-" in segment or "_" in segment:
            spellings.append(segment.replace("-", "+").replace("_", "/"))
        unused = {0: 0, 2: 4, 3: 2}[len(segment) % 4]  # bits of the last character that carry nothing
        last = alphabet.index(segment[-1])
        spellings += [segment[:-1] + alphabet[last | bits] for bits in range(1, 1 << unused)]
        for spelling in spellings:
            changed = [*segments[:part], spelling, *segments[part + 1 :]]
            refuse(verifier, ".".join(changed))
            if part < 2:  # however well it is signed
                refuse(verifier, sign_segments(changed[0], changed[1], key))
        assert accept(verifier, ".".join(segments))["x"] == "a" * filler


# --- A23, A24: ECDSA ---


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
def test_a23_r_and_s_out_of_range_are_refused(algorithm: str) -> None:
    key, order, size = make_key(algorithm), ORDERS[algorithm], coordinate_size(algorithm)
    good = key.sign(b"message")
    r, s = int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big")
    assert key.verifying.verify(b"message", good)
    edges = [
        value for value in (0, 1, order, order - 1, order + 1, r + order, s + order, 256**size - 1) if value < 256**size
    ]
    pairs = [(a, b) for a in edges for b in edges] + [(a, s) for a in edges] + [(r, b) for b in edges]
    assert [pair for pair in pairs if key.verifying.verify(b"message", p1363(algorithm, *pair))] == []
    token = sign(None, None, key).rpartition(".")[0]
    for pair in pairs:
        refuse(verifier_of(key), f"{token}.{base64url(p1363(algorithm, *pair))}", errors.InvalidSignature)


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
def test_a24_signature_has_one_length_and_is_not_der(algorithm: str) -> None:
    key, size = make_key(algorithm), coordinate_size(algorithm)
    token = sign(None, None, key)
    stem = token.rpartition(".")[0]
    good = key.sign(stem.encode())
    der = utils.encode_dss_signature(int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big"))
    assert key.verifying.verify(stem.encode(), good)
    odd = [
        der,
        good[:-1],
        good[1:],
        good + b"\0",
        b"\0" + good,
        good[:size],
        good + good,
        bytes(16_384),
        b"\x30" * 16_384,
        b"",
        b"\0",
        b"\0" + good[:size] + b"\0" + good[size:],
        good[:size] + b"\0" + good[size:],
    ]
    odd += [bytes(length) for length in range(1, 200) if length != 2 * size]
    assert [len(signature) for signature in odd if key.verifying.verify(stem.encode(), signature)] == []
    verifier = verifier_of(key)
    for signature in odd:
        refuse(verifier, f"{stem}.{base64url(signature)}", errors.InvalidSignature, errors.MalformedToken)


# --- A29: one reading of a token ---


def test_a29_polyglots_and_nested_tokens_are_refused() -> None:
    key = make_key("HS256")
    verifier = verifier_of(key)
    good = sign(None, None, key)
    first, second, third = good.split(".")
    forged = encode(claims(sub="admin"))
    polyglots = [
        f'{{"  {first}.{forged}.":"","protected":"{first}", "payload":"{second}","signature":"{third}"}}',
        f'{{"{first}.{forged}.{third}":""}}',
        f"{first}.{forged}.{third}\n{good}",
        f"{good} {first}.{forged}.{third}",
        f"Bearer {good}",
        f'"{good}"',
        f"{first}.{second}.{third}~{forged}~",
    ]
    for token in polyglots:
        refuse(verifier, token, errors.MalformedToken, errors.UnsupportedToken)
    refuse(verifier, sign(header(key, cty="JWT"), good.encode(), key), errors.MalformedToken)
    refuse(verifier, sign(None, f'"{good}"'.encode(), key), errors.MalformedToken)


@pytest.mark.parametrize(
    "payload", [b"", b"foo", b"null", b"1", b'"a"', b"[]", b"[{}]", b"\0", b"{}\0", b"{}{}", b"{} x", b"\xef\xbb\xbf{}"]
)
def test_a29_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    key = make_key("HS256")
    refuse(verifier_of(key, issuer=None), sign(None, payload, key), errors.MalformedToken)


# --- A32: integrity ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a32_every_flipped_bit_is_refused(algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = verifier_of(key)
    good = sign(None, None, key).encode()
    accept(verifier, good)  # a cached twin helps none of them
    for place, byte in enumerate(good):
        refuse_all(verifier, (good[:place] + bytes([byte ^ (1 << bit)]) + good[place + 1 :] for bit in range(8)))
    assert accept(verifier, good) == claims()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a32_spliced_and_stripped_tokens_are_refused(algorithm: str) -> None:
    one, two = make_key(algorithm), make_key(algorithm, "second")
    verifier = verifier_of(one, two)
    pair = sign(None, None, one), sign(None, claims(sub="user-2"), two)
    parts = [token.split(".") for token in pair]
    for token in pair:
        accept(verifier, token)
    for choice in range(8):
        token = ".".join(parts[choice >> place & 1][place] for place in range(3))
        if token not in pair:
            refuse(verifier, token, errors.InvalidSignature)
    for first, second, third in parts:
        for stripped in (
            f"{first}.{second}",
            f"{first}.{second}.",
            f"{first}.{third}.{second}",
            f"{second}.{first}.{third}",
            f"{first}..{third}",
        ):
            refuse(verifier, stripped)
