"""The strict JSON parser of the core (rows J5, J12, A19, A21, A22); the external files are in test_jsontestsuite."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastverify import errors
from fastverify._core import parse_json

REFUSED: list[tuple[bytes, str]] = [
    # Not an object.
    (b"", "not_object"),
    (b" ", "not_object"),
    (b"[]", "not_object"),
    (b'"a"', "not_object"),
    (b"1", "not_object"),
    (b"null", "not_object"),
    (b"\xef\xbb\xbf{}", "not_object"),  # byte order mark
    ('{"a":1}'.encode("utf-16"), "not_object"),
    ('{"a":1}'.encode("utf-16-le"), "json_syntax"),
    ('{"a":1}'.encode("utf-32-be"), "not_object"),
    # Syntax.
    (b"{", "json_syntax"),
    (b'{"a"', "json_syntax"),
    (b'{"a":', "json_syntax"),
    (b'{"a":1', "json_syntax"),
    (b'{"a":1,', "json_syntax"),
    (b'{"a":1,}', "json_syntax"),
    (b'{"a":1]', "json_syntax"),
    (b'{"a":[1}', "json_syntax"),
    (b'{"a":[1,]}', "json_syntax"),
    (b'{"a":[,1]}', "json_syntax"),
    (b'{"a":[1 2]}', "json_syntax"),
    (b'{"a" 1}', "json_syntax"),
    (b"{'a':1}", "json_syntax"),
    (b"{a:1}", "json_syntax"),
    (b"{1:1}", "json_syntax"),
    (b'{,"a":1}', "json_syntax"),
    (b'{"a":1 "b":2}', "json_syntax"),
    (b'{"a"::1}', "json_syntax"),
    (b'{"a":nope}', "json_syntax"),
    (b'{"a":True}', "json_syntax"),
    (b'{"a":nul', "json_syntax"),
    (b'{"a":truefalse}', "json_syntax"),
    (b'{"a":NaN}', "json_syntax"),
    (b'{"a":Infinity}', "json_syntax"),
    (b'{"a":-Infinity}', "json_syntax"),
    (b'{"a":1/**/}', "json_syntax"),
    (b'{"a":\x0b1}', "json_syntax"),  # a vertical tab is no white space
    (b'{"a":\xc2\xa01}', "json_syntax"),  # nor is a no-break space
    (b'{"a":1}\0', "trailing_data"),
    (b'{"a":\0 1}', "json_syntax"),
    (b"{}{}", "trailing_data"),
    (b"{}x", "trailing_data"),
    (b"{} ,", "trailing_data"),
    # Numbers.
    (b'{"a":01}', "json_syntax"),
    (b'{"a":+1}', "json_syntax"),
    (b'{"a":-}', "json_syntax"),
    (b'{"a":.5}', "json_syntax"),
    (b'{"a":1.}', "json_syntax"),
    (b'{"a":1.e1}', "json_syntax"),
    (b'{"a":1e}', "json_syntax"),
    (b'{"a":1e+}', "json_syntax"),
    (b'{"a":0x10}', "json_syntax"),
    (b'{"a":1_000}', "json_syntax"),
    (b'{"a":1e400}', "number_range"),
    (b'{"a":-1e400}', "number_range"),
    (b'{"a":1e309}', "number_range"),
    (b'{"a":1.7976931348623159e308}', "number_range"),
    (b'{"a":1e99999999999999999999}', "number_range"),
    (b'{"a":' + b"9" * 310 + b".0}", "number_range"),
    (b'{"a":' + b"1" * 4097 + b"}", "string_size"),
    # Strings.
    (b'{"a":"', "json_syntax"),
    (b'{"a":"\\"}', "json_syntax"),
    (b'{"a":"\n"}', "json_syntax"),
    (b'{"a":"\0"}', "json_syntax"),
    (b'{"a":"\x1f"}', "json_syntax"),
    (b'{"a":"\\x41"}', "json_syntax"),
    (b'{"a":"\\\'"}', "json_syntax"),
    (b'{"a":"\\u12"}', "json_syntax"),
    (b'{"a":"\\u12g4"}', "json_syntax"),
    (b'{"a":"\\U00000041"}', "json_syntax"),
    (b'{"a":"\\ud800"}', "surrogate"),
    (b'{"a":"\\udc00"}', "surrogate"),
    (b'{"a":"\\udc00\\ud800"}', "surrogate"),
    (b'{"a":"\\ud800\\ud800"}', "surrogate"),
    (b'{"a":"\\ud800x"}', "surrogate"),
    (b'{"a":"\\ud800\\n"}', "surrogate"),
    (b'{"\\ud800":1}', "surrogate"),
    # UTF-8 (RFC 3629 section 4).
    (b'{"a":"\x80"}', "utf8"),
    (b'{"a":"\xbf"}', "utf8"),
    (b'{"a":"\xc0\x80"}', "utf8"),  # overlong NUL
    (b'{"a":"\xc1\xbf"}', "utf8"),
    (b'{"a":"\xc2"}', "utf8"),
    (b'{"a":"\xc2\x20"}', "utf8"),
    (b'{"a":"\xe0\x80\x80"}', "utf8"),
    (b'{"a":"\xe0\x9f\xbf"}', "utf8"),
    (b'{"a":"\xe2\x82"}', "utf8"),
    (b'{"a":"\xed\xa0\x80"}', "utf8"),  # U+D800
    (b'{"a":"\xed\xbf\xbf"}', "utf8"),
    (b'{"a":"\xf0\x80\x80\x80"}', "utf8"),
    (b'{"a":"\xf0\x8f\xbf\xbf"}', "utf8"),
    (b'{"a":"\xf0\x9f\x98"}', "utf8"),
    (b'{"a":"\xf4\x90\x80\x80"}', "utf8"),  # U+110000
    (b'{"a":"\xf5\x80\x80\x80"}', "utf8"),
    (b'{"a":"\xff"}', "utf8"),
    (b'{"\xff":1}', "utf8"),
    # Names twice in one object, compared after unescaping.
    (b'{"a":1,"a":1}', "duplicate_member"),
    (b'{"a":1,"b":2,"a":3}', "duplicate_member"),
    (b'{"a":1,"\\u0061":2}', "duplicate_member"),
    (b'{"\\u0061":1,"a":2}', "duplicate_member"),
    (b'{"\\u0061":1,"\\u0061":2}', "duplicate_member"),
    (b'{"/":1,"\\/":2}', "duplicate_member"),
    (b'{"":1,"":2}', "duplicate_member"),
    (b'{"x":{"a":1,"a":1}}', "duplicate_member"),
    (b'{"x":[{"a":1},{"a":1,"a":1}]}', "duplicate_member"),
    ('{"\u00e9":1,"\\u00e9":2}'.encode(), "duplicate_member"),
    ('{"\U0001f600":1,"\\ud83d\\ude00":2}'.encode(), "duplicate_member"),
    (b'{"refreshTokenHash1":1,"parentRefreshTokenHash1":2,"refreshTokenHash1":3}', "duplicate_member"),
    (b'{"__proto__":1,"__proto__":2}', "duplicate_member"),
    # Limits.
    (b'{"a":' * 9 + b"1" + b"}" * 9, "depth"),
    (b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", "depth"),
    (b'{"a":' * 2000, "depth"),
    (b'{"a":' + b"[" * 10000, "depth"),
    (b"{" + b",".join(b'"%d":1' % i for i in range(129)) + b"}", "members"),
    (b'{"x":{' + b",".join(b'"%d":1' % i for i in range(129)) + b"}}", "members"),
    (b'{"a":"' + b"x" * 4097 + b'"}', "string_size"),
    (b'{"' + b"x" * 4097 + b'":1}', "string_size"),
    (b'{"a":"' + b"x" * 20000 + b'"}', "too_large"),
    (b"{" + b" " * 16383 + b"}", "too_large"),
]


@pytest.mark.parametrize(("document", "reason"), REFUSED, ids=[repr(d[:40]) + str(len(d)) for d, _ in REFUSED])
def test_refused(document: bytes, reason: str) -> None:
    with pytest.raises(errors.MalformedToken) as caught:
        parse_json(document)
    assert caught.value.reason == reason


ACCEPTED: list[tuple[bytes, dict[str, Any]]] = [
    (b"{}", {}),
    (b" \t\r\n{ \t\r\n} \t\r\n", {}),
    (b'{"a":1}', {"a": 1}),
    (b'{ "a" : [ 1 , 2 ] , "b" : { } , "c" : [ ] }', {"a": [1, 2], "b": {}, "c": []}),
    (b'{"a":true,"b":false,"c":null}', {"a": True, "b": False, "c": None}),
    (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}),
    (b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t"}', {"a": '"\\/\b\f\n\r\t'}),
    (b'{"a":"\\u0041\\u00e9\\u20ac\\ud83d\\ude00"}', {"a": "A\u00e9\u20ac\U0001f600"}),
    (b'{"a":"\\u0000","b\\u0000":1,"b":2}', {"a": "\0", "b\0": 1, "b": 2}),
    (b'{"a":"\x7f"}', {"a": "\x7f"}),
    ('{"a":"\u0080\u07ff\u0800\uffff"}'.encode(), {"a": "\u0080\u07ff\u0800\uffff"}),
    ('{"a":"\U00010000\U0010ffff"}'.encode(), {"a": "\U00010000\U0010ffff"}),
    (b'{"a":"\\uD83D\\uDE00"}', {"a": "\U0001f600"}),
    # The two spellings of one letter are two names: nothing is normalised.
    ('{"\u00e9":1,"e\u0301":2}'.encode(), {"\u00e9": 1, "e\u0301": 2}),
    (b'{"alg":1,"Alg":2,"alg ":3,"alg\\u0000":4}', {"alg": 1, "Alg": 2, "alg ": 3, "alg\0": 4}),
    (b'{"__proto__":1,"constructor":2}', {"__proto__": 1, "constructor": 2}),
    (b'{"a":0,"b":-0,"c":-1}', {"a": 0, "b": 0, "c": -1}),
    (b'{"a":9223372036854775808}', {"a": 2**63}),
    (b'{"a":-18446744073709551617}', {"a": -(2**64) - 1}),
    (b'{"a":1.0,"b":1e2,"c":1E-2,"d":-2.5e+3,"e":0e999}', {"a": 1.0, "b": 100.0, "c": 0.01, "d": -2500.0, "e": 0.0}),
    (b'{"a":1.7976931348623157e308,"b":5e-324,"c":1e-999}', {"a": 1.7976931348623157e308, "b": 5e-324, "c": 0.0}),
    (b'{"a":1.7976931348623158e308}', {"a": 1.7976931348623157e308}),  # rounds to the largest double
    (b'{"a":0.' + b"0" * 400 + b"1e700}", {"a": 1e299}),
    (b'{"a":' + b"[" * 7 + b"]" * 7 + b"}", {"a": [[[[[[[]]]]]]]}),
    (b'{"a":' * 8 + b"1" + b"}" * 8, {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}),
    (b"{" + b",".join(b'"%d":%d' % (i, i) for i in range(128)) + b"}", {str(i): i for i in range(128)}),
    (b'{"a":"' + b"x" * 4096 + b'"}', {"a": "x" * 4096}),
    (b'{"' + b"x" * 4096 + b'":1}', {"x" * 4096: 1}),
    (b"{" + b" " * 16382 + b"}", {}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "value"), ACCEPTED, ids=[repr(d[:40]) + str(len(d)) for d, _ in ACCEPTED])
def test_accepted(document: bytes, value: dict[str, Any]) -> None:
    parsed = parse_json(document)
    assert parsed == value
    assert list(parsed) == list(value)
    assert [type(item) for item in parsed.values()] == [type(item) for item in value.values()]


def test_the_limit_of_members_counts_each_object_by_itself() -> None:
    members = ",".join(f'"{i}":{i}' for i in range(128))
    document = f'{{"a":{{{members}}},"b":{{{members}}},"c":[{{{members}}},{{{members}}}]}}'.encode()
    assert len(parse_json(document)["c"]) == 2


def test_names_of_a_closed_object_may_come_again() -> None:
    assert parse_json(b'{"a":{"b":1,"c":2},"b":3,"c":{"a":4,"b":5}}') == {
        "a": {"b": 1, "c": 2},
        "b": 3,
        "c": {"a": 4, "b": 5},
    }


def test_names_of_closed_objects_are_forgotten_however_many_there_were() -> None:
    members = ",".join(f'"{i}":0' for i in range(128))
    inner = f"{{{members}}}"
    parsed = parse_json(f'{{"x":[{",".join([inner] * 14)}],{members[: members.rindex(",")]}}}'.encode())
    assert len(parsed["x"]) == 14
    assert len(parsed) == 128


def test_names_that_differ_only_in_length_are_two_names() -> None:
    for lengths in ((7, 8, 9), (10, 266, 522), (255, 256, 257)):
        document = ",".join(f'"{"x" * length}":{length}' for length in lengths)
        assert list(parse_json(f"{{{document}}}".encode()).values()) == list(lengths)


def test_a_duplicate_is_found_among_128_names_wherever_it_stands() -> None:
    names = [f"a-common-beginning-{i}" for i in range(127)]
    for place in (0, 1, 63, 126):
        document = "{" + ",".join(f'"{name}":0' for name in [*names, names[place]]) + "}"
        with pytest.raises(errors.MalformedToken, match="duplicate"):
            parse_json(document.encode())


def test_integers_are_exact_whatever_the_interpreter_s_limit_on_digits() -> None:
    limit = sys.get_int_max_str_digits()
    digits = "".join(random.Random(1).choices("0123456789", k=4094))
    sys.set_int_max_str_digits(0)
    try:
        exact = int("1" + digits)
    finally:
        sys.set_int_max_str_digits(limit)
    sys.set_int_max_str_digits(640)
    try:
        assert parse_json(f'{{"a":1{digits}}}'.encode())["a"] == exact
        assert parse_json(f'{{"a":-1{digits}}}'.encode())["a"] == -exact
    finally:
        sys.set_int_max_str_digits(limit)


def test_minus_zero_is_the_float_s_only() -> None:
    parsed = parse_json(b'{"a":-0.0,"b":-0}')
    assert math.copysign(1, parsed["a"]) == -1
    assert parsed["b"] == 0
    assert isinstance(parsed["b"], int)


@pytest.mark.parametrize("data", ["{}", bytearray(b"{}"), memoryview(b"{}"), None, 1])
def test_only_bytes_are_parsed(data: Any) -> None:
    with pytest.raises(TypeError):
        parse_json(data)


def values(depth: int) -> st.SearchStrategy[Any]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    if depth == 0:
        return leaf
    inner = values(depth - 1)
    return leaf | st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)


OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), values(4), max_size=8)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 1]))
def test_what_the_standard_library_writes_is_read_back_alike(value: Any, ascii_only: bool, indent: int | None) -> None:
    parsed = parse_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())
    assert repr(parsed) == repr(value)  # tells 1 from 1.0 and True, and 0.0 from -0.0, at every depth


# --- the standard library as an oracle: it is laxer, and where it is we know how ---


class Lax(Exception):
    """Something that the standard library accepts and we do not."""


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) != len(members) or len(members) > 128:
        raise Lax
    return dict(members)


def finite(text: str) -> float:
    if math.isinf(float(text)):
        raise Lax
    return float(text)


def constant(_: str) -> float:
    raise Lax


def depth_of(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def strictly(document: bytes) -> Any:
    """What the document should parse to, or None."""
    try:
        value = json.loads(document.decode(), object_pairs_hook=pairs, parse_float=finite, parse_constant=constant)
    except (ValueError, Lax, RecursionError):
        return None
    lone = any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, dict) and depth_of(value) <= 8 and not lone else None


PIECES = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"1", b"-", b".", b"e", b"+", b" ", b"\n", b"t", b"true"),
    *(b"null", b"\\u", b"d83d", b"\\ud83d\\ude00", b"\\udc00", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82\xac", b"\0"),
    *(b'"a":', b'"\\u0061":1,', b"1e308", b"1e309", b"1.7976931348623159e308", b""),
]


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """JSON documents with a few places disturbed."""
    chance = random.Random(seed)
    documents = [
        b'{"a":[1,2.5,{"b":null}],"exp":17,"c":"\\u00e9\\n"}',
        b'{"iss":"x","aud":["y","z"],"n":-1e3}',
        b"{}",
        '{"\u00e9":"\U0001f600","e\u0301":{"a":{}}}'.encode(),
    ]
    for _ in range(count):
        document = chance.choice(documents)
        for _ in range(chance.choice([0, 1, 1, 2])):
            start = chance.randint(0, len(document))
            end = min(len(document), start + chance.randint(0, 3))
            document = document[:start] + chance.choice(PIECES) + document[end:]
        yield document


@pytest.mark.parametrize("seed", range(4))
def test_mutated_documents_are_judged_as_by_the_standard_library_made_strict(seed: int) -> None:
    accepted = 0
    for document in mutants(seed, 5_000):
        expected = strictly(document)
        try:
            parsed = parse_json(document)
        except errors.MalformedToken:
            assert expected is None, document
        else:
            assert repr(parsed) == repr(expected), document
            accepted += 1
    assert 500 < accepted < 4_500  # both verdicts were tried


def test_the_range_of_numbers_ends_exactly_where_rounding_to_infinity_begins() -> None:
    chance = random.Random(7)
    border = 2**1024 - 2**970
    verdicts = set()
    for _ in range(3_000):
        digits = str(border + chance.choice([0, 1, -1, chance.randrange(-(10**280), 10**280)]))
        point = chance.randrange(1, len(digits))
        exponent = len(digits) - point + chance.choice([0, 0, 0, 1, -1])
        text = f"{digits[:point]}.{digits[point:]}{'0' * chance.randrange(3)}{chance.choice('eE')}{exponent}"
        try:
            parsed = parse_json(f'{{"a":{text}}}'.encode())["a"]
        except errors.MalformedToken:
            assert math.isinf(float(text)), text
            verdicts.add(False)
        else:
            assert parsed == float(text), text
            assert math.isfinite(parsed)
            verdicts.add(True)
    assert verdicts == {True, False}
