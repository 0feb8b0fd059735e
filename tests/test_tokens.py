"""The refresh token's codec, the anti-CSRF token, and the placement of handles."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid

import pytest

from fastverify import tokens
from fastverify.placement import Placement
from fastverify.session import format_handle, handle_bytes
from fastverify.tokens import ServiceKeys, encode_refresh_token, parse_refresh_token

KEYS, OTHER = ServiceKeys.derive(bytes(range(32))), ServiceKeys.derive(bytes(range(1, 33)))
SECRET, HANDLE = os.urandom(32), os.urandom(16)
TOKEN = encode_refresh_token(KEYS, SECRET, HANDLE, 7)


def test_a_refresh_token_names_its_session_and_generation() -> None:
    parsed = parse_refresh_token((KEYS,), TOKEN)
    assert parsed is not None
    assert (parsed.handle, parsed.generation) == (HANDLE, 7)
    assert parsed.belongs_to(SECRET)
    assert len(TOKEN) == 96


def test_the_same_record_makes_the_same_token() -> None:
    assert encode_refresh_token(KEYS, SECRET, HANDLE, 7) == TOKEN
    assert encode_refresh_token(KEYS, SECRET, HANDLE, 8) != TOKEN


def test_a_leaked_service_key_alone_forges_no_token() -> None:
    forged = encode_refresh_token(KEYS, os.urandom(32), HANDLE, 7)
    parsed = parse_refresh_token((KEYS,), forged)
    assert parsed is not None
    assert not parsed.belongs_to(SECRET)


def test_a_leaked_store_alone_forges_no_token() -> None:
    assert parse_refresh_token((KEYS,), encode_refresh_token(OTHER, SECRET, HANDLE, 7)) is None


def test_a_retired_secret_goes_on_opening_its_tokens() -> None:
    parsed = parse_refresh_token((OTHER, KEYS), TOKEN)
    assert parsed is not None
    assert parsed.belongs_to(SECRET)


def test_every_single_character_matters() -> None:
    for at, was in enumerate(TOKEN):
        for other in ("A", "B", "-", "_", "=", " ", "é", "+"):
            if other != was:
                parsed = parse_refresh_token((KEYS,), TOKEN[:at] + other + TOKEN[at + 1 :])
                assert parsed is None or not parsed.belongs_to(SECRET)


NO_TOKENS = {
    "nothing": "",
    "a point": ".",
    "of the right length": "a" * 96,
    "one short": TOKEN[:-1],
    "one more": TOKEN + "A",
    "padding": TOKEN + "=",
    "a line end": TOKEN + "\n",
    "a space before": " " + TOKEN,
    "a line end inside": TOKEN[:40] + "\n" + TOKEN[40:],
    "no base64": "!" * 96,
    "far too long": "a" * 100_000,
    "the other case": TOKEN.swapcase(),
    "another version": base64.b64encode(b"\x02" + base64.urlsafe_b64decode(TOKEN)[1:]).decode(),
}


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS)
def test_anything_else_is_no_refresh_token(text: str) -> None:
    assert parse_refresh_token((KEYS,), text) is None


def test_the_hash_in_the_access_token_tells_the_generation() -> None:
    value = tokens.refresh_token_hash(TOKEN, 258)
    assert value[:8] == "00000102"
    assert value[8:] == hashlib.sha256(TOKEN.encode()).hexdigest()[8:]


def test_the_anti_csrf_token_is_a_uuid_and_one_a_session() -> None:
    token = tokens.anti_csrf_token(SECRET)
    assert str(uuid.UUID(token)) == token
    assert tokens.anti_csrf_token(SECRET) == token
    assert tokens.anti_csrf_token(os.urandom(32)) != token


def test_service_keys_do_not_show_themselves() -> None:
    assert KEYS.edge.hex() not in repr(KEYS)
    assert str(KEYS.edge) not in repr(KEYS)


@pytest.mark.parametrize("shards", [1, 2, 16, 256])
def test_a_users_sessions_lie_in_the_users_shard(shards: int) -> None:
    placement = Placement("fv", shards)
    for n in range(300):
        user = f"user-{n}"
        handle = placement.handle(user, os.urandom(16))
        assert placement.shard_of_handle(handle) == placement.shard_of_user(user)
        assert placement.shard_of_user(user) == hashlib.sha256(user.encode()).digest()[0] % shards
    assert placement.tag(0) == "{fv:0}"
    assert placement.root == "{fv}"


def test_a_handle_keeps_all_random_bits_but_those_of_its_shard() -> None:
    random = bytes([0b1010_0101]) + os.urandom(15)
    handle = Placement("fv", 16).handle("somebody", random)
    assert handle[0] & 0xF0 == 0b1010_0000
    assert handle[1:] == random[1:]


def test_a_handle_carries_its_tenant_unless_it_is_the_default_one() -> None:
    assert format_handle(HANDLE, "public") == str(uuid.UUID(bytes=HANDLE))
    assert format_handle(HANDLE, "acme") == f"{uuid.UUID(bytes=HANDLE)}_acme"
    assert handle_bytes(format_handle(HANDLE, "acme")) == HANDLE


@pytest.mark.parametrize("other", ["tokeN", "", None, 7, b"token", "\ud800"])
def test_what_is_not_the_very_text_is_not_the_same_whatever_its_type(other: object) -> None:
    assert tokens.same_text("token", "token")
    assert not tokens.same_text("token", other)  # type: ignore[arg-type]
    assert not tokens.same_text(other, "token")  # type: ignore[arg-type]
    assert not tokens.same_text("", "")
    assert not tokens.same_text(None, None)


@pytest.mark.parametrize("thing", [None, 7, b"x" * 36, ["x"]])
def test_a_handle_that_is_no_text_is_a_mistake_of_the_caller(thing: object) -> None:
    with pytest.raises(TypeError, match="a session handle is a str"):
        handle_bytes(thing)  # type: ignore[arg-type]
