"""The claims set: rules of type, time, issuer and audience (rows J6, J8, J9), and the object that callers hold."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from signing import ISSUER, NOW, claims, make_key, sign

from fastverify import errors
from fastverify._core import Claims, Verifier

KEY = make_key("HS256")


def verify(payload: Mapping[str, Any] | bytes, *, now: float = NOW, **policy: Any) -> Claims:
    return Verifier([KEY.verifying], **{"issuer": ISSUER} | policy).verify(sign(None, payload, KEY), now=now)


def refuse(
    payload: Mapping[str, Any] | bytes, kind: type[errors.InvalidToken], reason: str, **policy: Any
) -> errors.InvalidToken:
    with pytest.raises(errors.InvalidToken) as caught:
        verify(payload, **policy)
    assert (type(caught.value), caught.value.reason) == (kind, reason)
    return caught.value


def spelt(name: str, text: str) -> bytes:
    """Good claims, but one of them, spelt as given."""
    rest = {key: value for key, value in claims().items() if key != name}
    return json.dumps(rest).encode()[:-1] + f',"{name}":{text}}}'.encode()


# --- types (J8, J9) ---

NO_DATES = [
    *("1.0", "1800003600.0", "1.8e9", "1e10", "1E10", "18e8", "1800003600e0", "0.5", "-1", "-0", "-0.0", "1e400"),
    *("9007199254740992", "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 30, "9" * 4000),
    *('"1800003600"', '""', "true", "false", "null", "[]", "[1800003600]", "{}", '{"v":1800003600}'),
    *("01800003600", "+1800003600", "0x6B49D200", "1_800_003_600", "1800003600.", ".5", "NaN", "Infinity", "-Infinity"),
]


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("text", NO_DATES)
def test_what_is_no_date_is_refused_and_never_absent(name: str, text: str) -> None:
    with pytest.raises((errors.InvalidClaim, errors.MalformedToken)) as caught:
        verify(spelt(name, text))
    if isinstance(caught.value, errors.InvalidClaim):
        assert (caught.value.claim, caught.value.reason) == (name, f"{name}_malformed")


@pytest.mark.parametrize("text", ["9007199254740991", "1800003600", "1800000001"])
def test_every_other_date_is_accepted(text: str) -> None:
    assert verify(spelt("exp", text)).expires_at == int(text)


@pytest.mark.parametrize("name", ["iss", "sub", "jti"])
@pytest.mark.parametrize("value", [1, 1.5, True, None, [], ["x"], {}, {"x": 1}])
def test_a_malformed_string_is_refused_whether_anyone_asked_for_it_or_not(name: str, value: object) -> None:
    for issuer in (ISSUER, None):
        error = refuse(claims(**{name: value}), errors.InvalidClaim, f"{name}_malformed", issuer=issuer)
        assert error.claim == name  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [1, True, None, {}, {"x": "y"}, [], [1], [["x"]], ["x", 1], ["x", None], [[]]])
def test_a_malformed_audience_is_refused_whether_anyone_asked_for_it_or_not(value: object) -> None:
    for audience in ("x", None):
        refuse(claims(aud=value), errors.InvalidClaim, "aud_malformed", audience=audience)


def test_custom_claims_may_be_anything() -> None:
    custom = {"exp ": "x", "Exp": None, "roles": [], "tId": 1, "sessionHandle": [], "n": 1e300, "deep": {"exp": "x"}}
    assert verify(claims(**custom)).to_dict() == claims(**custom)


def test_the_second_of_two_spellings_of_a_claim_is_a_duplicate() -> None:
    payload = json.dumps(claims()).encode()[:-1] + b',"e\\u0078p":99999999999}'
    refuse(payload, errors.MalformedToken, "duplicate_member")


def test_a_claim_s_name_may_be_spelt_with_escapes() -> None:
    payload = (
        b'{"\\u0069ss":"https:\\/\\/api.example.com\\/auth","\\u0065\\u0078\\u0070":1800003600,"s\\u0075b":"\\u0075"}'
    )
    verified = verify(payload)
    assert (verified.issuer, verified.expires_at, verified.subject) == (ISSUER, 1_800_003_600, "u")
    assert verified["exp"] == 1_800_003_600


# --- time ---


def test_exp_is_required() -> None:
    refuse({"iss": ISSUER}, errors.InvalidClaim, "exp_missing")


@pytest.mark.parametrize(
    ("leeway", "now", "good"),
    [
        (0, 999.0, True),
        (0, 999.999, True),
        (0, 1000, False),  # exclusive
        (0, 1001, False),
        (1, 1000.5, True),
        (1, 1001, False),
        (60, 1059.9, True),
        (60, 1060, False),
    ],
)
def test_exp(leeway: int, now: float, good: bool) -> None:
    payload = {"iss": ISSUER, "exp": 1000}
    if good:
        assert verify(payload, now=now, leeway=leeway).expires_at == 1000
    else:
        refuse(payload, errors.ExpiredToken, "expired_token", now=now, leeway=leeway)


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(
    ("leeway", "now", "good"),
    [
        (0, 1000, True),
        (0, 995, True),  # five seconds are always granted
        (0, 994.999, False),
        (5, 994, False),
        (6, 994, True),
        (60, 940, True),
        (60, 939, False),
    ],
)
def test_nbf_and_iat(name: str, leeway: int, now: float, good: bool) -> None:
    payload = {"iss": ISSUER, "exp": 5000, name: 1000}
    if good:
        assert verify(payload, now=now, leeway=leeway)
    else:
        refuse(payload, errors.ImmatureToken, f"{name}_in_future", now=now, leeway=leeway)


def test_the_last_dates_there_are_do_not_overflow() -> None:
    last = 2**53 - 1
    payload = {"iss": ISSUER, "exp": last, "nbf": 0, "iat": 0}
    assert verify(payload, now=last - 1, leeway=60).expires_at == last
    assert verify(payload, now=last, leeway=60)
    refuse(payload, errors.ExpiredToken, "expired_token", now=last, leeway=0)
    refuse({"iss": ISSUER, "exp": last, "iat": last}, errors.ImmatureToken, "iat_in_future", now=0, leeway=60)


def test_zero_is_a_date() -> None:
    verified = verify({"iss": ISSUER, "exp": 1, "nbf": 0, "iat": 0}, now=0)
    assert (verified.not_before, verified.issued_at) == (0, 0)
    refuse({"iss": ISSUER, "exp": 0}, errors.ExpiredToken, "expired_token", now=0)


# --- issuer and audience ---


@pytest.mark.parametrize(
    "issuer",
    [
        *(ISSUER + "/", ISSUER[:-1], ISSUER + "x", "x" + ISSUER, ISSUER.upper(), ISSUER + "\0", " " + ISSUER, ""),
        *("https://api.example.com", "https", ISSUER.replace("https", "http"), ISSUER + "#", f"{ISSUER} {ISSUER}"),
    ],
)
def test_issuer_is_compared_exactly(issuer: str) -> None:
    error = refuse(claims(iss=issuer), errors.InvalidClaim, "iss_mismatch")
    assert issuer == "" or issuer not in str(error)


def test_issuer_missing_is_not_issuer_wrong() -> None:
    refuse({"exp": NOW + 1}, errors.InvalidClaim, "iss_missing")
    assert verify({"exp": NOW + 1}, issuer=None).issuer is None
    assert verify({"exp": NOW + 1, "iss": "anybody"}, issuer=None).issuer == "anybody"


def test_text_outside_ascii_is_compared_by_its_characters() -> None:
    assert verify(claims(iss="https://\u00e9.example"), issuer="https://\u00e9.example")
    escaped = json.dumps(claims(iss="https://\u00e9.example")).encode()
    assert verify(escaped, issuer="https://\u00e9.example")
    refuse(claims(iss="https://e\u0301.example"), errors.InvalidClaim, "iss_mismatch", issuer="https://\u00e9.example")


@pytest.mark.parametrize(
    ("wanted", "given", "good"),
    [
        ("a", "a", True),
        ("a", ["a"], True),
        ("a", ["b", "a"], True),
        ("a", ["b", "c", "a", "d"], True),
        (["a", "b"], "b", True),
        (("a", "b"), ["c", "b"], True),
        ("a/b", "a/b", True),
        ("\u00e9", ["\u00e9"], True),
        ("a", "b", False),
        ("a", "", False),
        ("a", [""], False),
        ("a", "A", False),
        ("a", "aa", False),
        ("a", "a ", False),
        ("ab", ["a", "b"], False),
        ("a", ["b", "ab"], False),
        (["a", "b"], ["c", "d"], False),
        ("a,b", ["a", "b"], False),
    ],
)
def test_audience(wanted: Any, given: Any, good: bool) -> None:
    if good:
        assert verify(claims(aud=given), audience=wanted)["aud"] == given
    else:
        refuse(claims(aud=given), errors.InvalidClaim, "aud_mismatch", audience=wanted)


def test_audience_missing_is_not_audience_wrong() -> None:
    refuse(claims(), errors.InvalidClaim, "aud_missing", audience="a")


def test_audience_is_left_to_the_caller_who_configures_none() -> None:
    assert verify(claims(aud=["x", "y"]), audience=None)["aud"] == ["x", "y"]


def test_what_follows_an_audience_is_not_one() -> None:
    for aud in ("b", ["b"]):
        refuse(claims(aud=aud, a="a"), errors.InvalidClaim, "aud_mismatch", audience="a")


def test_registered_names_below_the_top_mean_nothing() -> None:
    escaped = b'{"e\\u0078p":"x","a":{"iss":1}}'
    for inner in (escaped, b'{"exp":"x","iss":null,"aud":[]}', b'[{"exp":"x"}]'):
        verified = verify(json.dumps(claims()).encode()[:-1] + b',"nested":' + inner + b"}", audience=None)
        assert (verified.expires_at, verified.issuer) == (NOW + 3600, ISSUER)


def test_audience_with_blanks_and_escapes() -> None:
    assert verify(spelt("aud", ' [ "x" , "\\u0061" ] '), audience="a")
    assert verify(spelt("aud", '"a\\/b"'), audience="a/b")


# --- the object ---


@pytest.fixture
def verified() -> Claims:
    return verify(claims(nbf=NOW, role="admin", nested={"list": [1, {"x": None}]}, none=None, n=2.5))


def test_it_is_a_read_only_mapping(verified: Claims) -> None:
    expected = claims(nbf=NOW, role="admin", nested={"list": [1, {"x": None}]}, none=None, n=2.5)
    assert isinstance(verified, Mapping)
    assert dict(verified) == verified.to_dict() == expected
    assert verified == expected
    assert expected == verified
    assert verified != claims()
    assert verified != 1
    assert list(verified) == list(verified.keys()) == list(expected)
    assert list(verified.values()) == list(expected.values())
    assert list(verified.items()) == list(expected.items())
    assert len(verified) == len(expected)
    assert {**verified} == expected
    for name, value in expected.items():
        assert name in verified
        assert verified[name] == verified.get(name) == verified.get(name, 1) == value
    with pytest.raises(TypeError):
        verified["x"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        del verified["sub"]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unhashable"):
        hash(verified)


@pytest.mark.parametrize("name", ["", "nope", "SUB", "sub ", "sub\0", "jti", "x", "\u00e9", "\ud800", "x" * 9999])
def test_what_is_absent_is_absent(verified: Claims, name: str) -> None:
    assert name not in verified
    assert verified.get(name) is None
    assert verified.get(name, 7) == verified.get(name, default=7) == 7
    with pytest.raises(KeyError) as caught:
        verified[name]
    assert caught.value.args == (name,)


@pytest.mark.parametrize("name", [None, 1, b"sub", ("sub",), object()])
def test_names_are_str(verified: Claims, name: Any) -> None:
    assert name not in verified
    assert verified.get(name, 7) == 7
    with pytest.raises(KeyError):
        verified[name]


def test_members_are_found_whatever_stands_before_them() -> None:
    values = [
        'a\\"}],{',
        [],
        {},
        [[], {"z": "]"}],
        {"z": {"y": "}"}},
        -1.5e-7,
        True,
        False,
        None,
        "",
        10**30,
        "\u20ac\n",
    ]
    payload = claims(**{f"name-{i}": value for i, value in enumerate(values)})
    for text in (json.dumps(payload), json.dumps(payload, indent=3), json.dumps(payload, ensure_ascii=False)):
        verified = verify(text.encode())
        for name, value in payload.items():
            assert verified[name] == value
            assert repr(verified[name]) == repr(value)


def test_names_with_escapes_and_without_are_found_alike() -> None:
    verified = verify(json.dumps(claims()).encode()[:-1] + b',"\\u0061b":1,"c\\n":2,"\xc3\xa9":3,"\\u00ea":4}')
    assert [verified[name] for name in ("ab", "c\n", "\u00e9", "\u00ea")] == [1, 2, 3, 4]


def test_nested_values_belong_to_whoever_asked(verified: Claims) -> None:
    verified["nested"]["list"].append("mine")
    verified.to_dict()["nested"]["list"].append("mine")
    dict(verified.items())["nested"].clear()
    verified.get("nested")["list"].clear()
    assert verified["nested"] == {"list": [1, {"x": None}]}


def test_attributes_need_no_decoding(verified: Claims) -> None:
    assert verified.subject == "user-1"
    assert verified.issuer == ISSUER
    assert (verified.expires_at, verified.issued_at, verified.not_before) == (NOW + 3600, NOW, NOW)
    assert (verified.algorithm, verified.key_id) == ("HS256", KEY.kid)
    for name in ("subject", "issuer", "expires_at", "issued_at", "not_before", "algorithm", "key_id", "token"):
        with pytest.raises(AttributeError):
            setattr(verified, name, 1)
    with pytest.raises(AttributeError):
        verified.other = 1  # type: ignore[attr-defined]


def test_attributes_of_absent_claims_are_none() -> None:
    verified = verify({"exp": NOW + 1}, issuer=None)
    assert (verified.subject, verified.issuer, verified.issued_at, verified.not_before) == (None, None, None, None)


def test_repr_shows_no_token(verified: Claims) -> None:
    text = repr(verified)
    assert "user-1" in text
    assert all(part not in text for part in verified.token.split("."))


def test_claims_are_made_by_verifiers_only() -> None:
    with pytest.raises(TypeError):
        Claims()
    blank = Claims.__new__(Claims)
    for use in (
        len,
        list,
        repr,
        dict,
        lambda c: c["sub"],
        lambda c: "sub" in c,
        lambda c: c.to_dict(),
        lambda c: c.subject,
    ):
        with pytest.raises(TypeError):
            use(blank)
    with pytest.raises(TypeError):

        class Sub(Claims):  # type: ignore[misc]
            pass


def test_they_are_neither_copied_nor_pickled(verified: Claims) -> None:
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(verified)


def test_they_outlive_verifier_and_key() -> None:
    verified = verify(claims(x=["y"]))
    assert verified["x"] == ["y"]
    assert verified.token.count(".") == 2
