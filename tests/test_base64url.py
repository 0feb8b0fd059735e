"""base64url as the core decodes it: one spelling for each value (RFC 4648 section 5, RFC 7515 appendix C)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import base64url, header, make_key, sign_segments

from fastverify import errors
from fastverify._core import Verifier

KEY = make_key("HS256")
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier([KEY.verifying], issuer=None, max_token_bytes=16_384)


def token(payload_segment: str) -> str:
    """Well signed, whatever the segment is."""
    return sign_segments(base64url(b'{"alg":"HS256","kid":"key-HS256"}'), payload_segment, KEY)


@given(st.binary(max_size=300))
def test_every_value_decodes_to_itself(payload: bytes) -> None:
    verifier = Verifier([KEY.verifying], issuer=None, cache_size=0)
    assert verifier.verify_jws(token(base64url(payload))) == payload


@pytest.mark.parametrize("size", range(20))
def test_every_length_decodes(verifier: Verifier, size: int) -> None:
    payload = bytes(range(250, 250 - size, -1))
    assert verifier.verify_jws(token(base64url(payload))) == payload


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_trailing_bits_that_are_not_zero_are_refused(verifier: Verifier, size: int) -> None:
    segment = base64url(bytes(size))
    good = 0
    for last in ALPHABET.decode():
        spelling = segment[:-1] + last
        try:
            payload = verifier.verify_jws(token(spelling))
        except errors.MalformedToken as error:
            assert error.reason == "base64url"
            assert base64url(base64.urlsafe_b64decode(spelling + "==")) != spelling
        else:
            good += 1
            assert base64url(payload) == spelling
    assert good == (4 if size % 3 == 1 else 16)


@pytest.mark.parametrize("length", [1, 5, 9, 13])
def test_a_length_of_one_mod_four_is_refused(verifier: Verifier, length: int) -> None:
    with pytest.raises(errors.MalformedToken, match="base64url"):
        verifier.verify_jws(token("A" * length))


@pytest.mark.parametrize("byte", sorted(set(range(256)) - set(ALPHABET) - {ord(".")}))
def test_foreign_bytes_are_refused_at_every_place_of_a_group(verifier: Verifier, byte: int) -> None:
    for position in range(8):
        segment = bytearray(b"AAAAAAAA")
        segment[position] = byte
        first = base64url(b'{"alg":"HS256","kid":"key-HS256"}').encode()
        signing_input = first + b"." + segment
        compact = signing_input + b"." + base64url(KEY.sign(signing_input)).encode()
        with pytest.raises(errors.MalformedToken) as caught:
            verifier.verify_jws(compact)
        assert caught.value.reason == "base64url"


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("addition", ["=", "==", "\n", " ", "+", "/"])
def test_every_part_of_a_token_is_held_to_it(verifier: Verifier, part: int, addition: str) -> None:
    parts = token(base64url(b"payload")).split(".")
    parts[part] += addition
    with pytest.raises(errors.MalformedToken, match="base64url"):
        verifier.verify_jws(".".join(parts))


def test_the_signature_has_one_spelling_too() -> None:
    """Otherwise one token would have several spellings, and a blacklist of tokens would know one of them."""
    key = make_key("ES256")
    verifier = Verifier([key.verifying], issuer=None)
    good = sign_segments(base64url(str(header(key)).replace("'", '"').encode()), base64url(b"x"), key)
    assert verifier.verify_jws(good) == b"x"
    for last in ALPHABET.decode():
        if last != good[-1]:
            with pytest.raises(errors.InvalidToken):
                verifier.verify_jws(good[:-1] + last)


def test_every_byte_is_judged_alike_at_every_place(verifier: Verifier) -> None:
    """Long segments are decoded in wide steps where the processor can: all places of two of them, and of the rest."""
    good = base64url(bytes(range(60, 120)))
    for place in range(len(good) - 1):  # the last character has bits that must be zero
        for byte in range(256):
            spelling = good[:place].encode() + bytes((byte,)) + good[place + 1 :].encode()
            if byte in b".":
                continue
            signed = sign_segments(base64url(b'{"alg":"HS256","kid":"key-HS256"}'), spelling.decode("latin-1"), KEY)
            if byte in ALPHABET:
                assert verifier.verify_jws(signed.encode("latin-1")) == base64.urlsafe_b64decode(spelling)
            else:
                with pytest.raises(errors.MalformedToken, match="base64url"):
                    verifier.verify_jws(signed.encode("latin-1"))
