"""JSONTestSuite against the strict claims parser, bare and inside a signed token.

A claims set is an object, so each document `d` of another kind is tried as `{"x": d}`: what is valid stays valid, and
what is not stays not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from signing import NOW, claims, make_key, sign

from fastverify import errors
from fastverify._core import Verifier, parse_json

#: Valid JSON that row J5 refuses: duplicate member names.
DUPLICATES = {
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
    "object_same_key_different_values.json",
    "object_same_key_same_value.json",
    "object_same_key_unclear_values.json",
}

Parse = Callable[[bytes], Any]


def parse_bare(document: bytes) -> Any:
    return parse_json(b'{"x":' + document + b"}")["x"]


def parse_in_token(document: bytes) -> Any:
    key = make_key("HS256")
    payload = json.dumps(claims()).encode()[:-1] + b',"x":' + document + b"}"
    return Verifier([key.verifying], issuer=None, max_token_bytes=16_384).verify(sign(None, payload, key), now=NOW)["x"]


@pytest.fixture(params=[parse_bare, parse_in_token], ids=["bare", "in_token"])
def parse(request: pytest.FixtureRequest) -> Parse:
    return request.param


@pytest.fixture
def documents(vectors: Path) -> Callable[[str, str, int], Iterator[tuple[str, bytes]]]:
    def read(folder: str, prefix: str, count: int) -> Iterator[tuple[str, bytes]]:
        paths = sorted((vectors / "jsontestsuite" / folder).glob(f"{prefix}*.json"))
        assert len(paths) == count
        return ((path.name, path.read_bytes()) for path in paths)

    return read


Documents = Callable[[str, str, int], Iterator[tuple[str, bytes]]]
REFUSED = object()


def outcome(parse: Parse, document: bytes) -> Any:
    """The value, or REFUSED; no other error than MalformedToken may come out."""
    try:
        return parse(document)
    except errors.MalformedToken:
        return REFUSED


def same(left: Any, right: Any) -> bool:
    """Equal in value, type and order of members: 1 is not 1.0, and -0.0 is not 0.0."""
    return type(left) is type(right) and repr(left) == repr(right)


def test_valid_documents_are_accepted_unless_names_repeat(parse: Parse, documents: Documents) -> None:
    wrong = {}
    for name, document in documents("test_parsing", "y_", 95):
        expected = REFUSED if name in DUPLICATES else json.loads(document)
        if not same(found := outcome(parse, document), expected):
            wrong[name] = found
    assert wrong == {}


def test_valid_objects_are_accepted_at_the_top(documents: Documents) -> None:
    objects = [
        (name, document)
        for name, document in documents("test_parsing", "y_", 95)
        if document.lstrip().startswith(b"{") and name not in DUPLICATES
    ]
    assert len(objects) == 10
    assert [name for name, document in objects if not same(parse_json(document), json.loads(document))] == []


def test_only_objects_are_accepted_at_the_top(documents: Documents) -> None:
    others = [d for _, d in documents("test_parsing", "y_", 95) if not d.lstrip().startswith(b"{")]
    assert len(others) == 83
    assert [document for document in others if outcome(parse_json, document) is not REFUSED] == []


def test_invalid_documents_are_refused(parse: Parse, documents: Documents) -> None:
    assert [n for n, d in documents("test_parsing", "n_", 188) if outcome(parse, d) is not REFUSED] == []


def test_invalid_documents_are_refused_at_the_top(documents: Documents) -> None:
    assert [n for n, d in documents("test_parsing", "n_", 188) if outcome(parse_json, d) is not REFUSED] == []


def test_of_the_undecided_documents_only_numbers_are_accepted_and_those_in_range(
    parse: Parse, documents: Documents
) -> None:
    accepted = {}
    for name, document in documents("test_parsing", "i_", 35):
        if (found := outcome(parse, document)) is not REFUSED:
            accepted[name] = (document, found)
    assert [name for name in accepted if not name.startswith("i_number_")] == []
    for document, found in accepted.values():
        assert same(found, json.loads(document))
        assert all(isinstance(number, int) or math.isfinite(number) for number in found)


def test_undecided_documents_are_refused_at_the_top(documents: Documents) -> None:
    assert [n for n, d in documents("test_parsing", "i_", 35) if outcome(parse_json, d) is not REFUSED] == []


def test_transformations_are_refused_or_kept_exactly(parse: Parse, documents: Documents) -> None:
    kept = {}
    for name, document in documents("test_transform", "", 22):
        if (found := outcome(parse, document)) is not REFUSED:
            kept[name] = found
            assert same(found, json.loads(document)), name
    assert not DUPLICATES & set(kept)
    assert [name for name in kept if "codepoint" in name] == []
    assert kept["object_key_nfc_nfd.json"] == {"\u00e9": "NFC", "e\u0301": "NFD"}
    assert kept["object_key_nfd_nfc.json"] == {"\u00e9": "NFC", "e\u0301": "NFD"}
    assert kept["string_with_escaped_NULL.json"] == ["A\0B"]
    assert kept["number_1000000000000000.json"] == [10**15]
