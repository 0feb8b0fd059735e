"""What Python code in the same process can do to the core: subclasses that lie, collectors that interrupt, objects made
by hand. None of it may crash, read other memory, or make a refused token good."""

from __future__ import annotations

import gc
import math
import os
import threading
from collections.abc import Iterator

import pytest
from signing import ISSUER, NOW, claims, make_key, sign

from fastverify import errors
from fastverify._core import Claims, Key, RevocationTable, Verifier

LATER = NOW + 7200


def entries(count: int) -> bytes:
    """So many revocations of random sessions, packed."""
    return b"".join(b"\1" + os.urandom(16) + bytes(8) for _ in range(count))


class LyingBytes(bytes):
    def __bytes__(self) -> bytes:
        return b"another token altogether"

    def __len__(self) -> int:
        return 1_000_000

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class LyingStr(str):
    def __str__(self) -> str:
        return "another token altogether"

    def encode(self, *_: object) -> bytes:
        return b"another token altogether"

    __len__ = LyingBytes.__len__
    __eq__ = LyingBytes.__eq__
    __hash__ = LyingBytes.__hash__


@pytest.mark.parametrize("form", [LyingStr, LyingBytes])
def test_a_token_of_a_subclass_is_its_characters_and_nothing_it_says(form: type) -> None:
    key = make_key("HS256")
    table = RevocationTable()
    table.add(b"\2" + os.urandom(16) + bytes(8), LATER)  # so that the signing input is hashed
    verifier = Verifier([key.verifying], issuer=ISSUER, revocations=table)
    token = sign(None, None, key)
    liar = form(token if form is LyingStr else token.encode())
    for _ in range(2):
        verified = verifier.verify(liar, now=NOW)
        assert type(verified.token) is str and verified.token == token
        with pytest.raises(errors.MalformedToken):
            verifier.verify("another token altogether", now=NOW)
    assert verifier.verify(token, now=NOW) is verified


@pytest.fixture
def collector() -> Iterator[list[object]]:
    """Runs what is put into the list each time the garbage collector sets in, which it does all the time."""
    work: list[object] = []

    def interrupt(*_: object) -> None:
        if work:
            work.pop()()  # type: ignore[operator]

    threshold = gc.get_threshold()
    gc.callbacks.append(interrupt)
    gc.set_threshold(1)
    try:
        yield work
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(interrupt)


def test_entries_are_sound_while_the_table_grows_under_them(collector: list[object]) -> None:
    table = RevocationTable()
    first = entries(100_000)
    table.add_many(first, LATER)
    cuts = b"".join(b"\5" + bytes(16) + number.to_bytes(8, "big") for number in range(200))
    table.add_many(cuts[:75], LATER)
    packed = [entries(20_000) for _ in range(12)]
    iterator = table.entries()
    collector += [lambda chunk=chunk: table.add_many(chunk, LATER) for chunk in (cuts, *packed)]
    # A loop in Python, for from 3.12 on the collector runs between its steps only; and the pairs are kept: those that
    # are freed come back without any work for it.
    pairs = [pair for pair in iterator]
    assert collector == []
    found = [entry for entry, expiry in pairs if expiry == LATER]
    assert len(pairs) == len(found) == len(set(found))
    known = {chunk[at : at + 25] for chunk in (first, cuts, *packed) for at in range(0, len(chunk), 25)}
    assert known >= set(found) >= {first[at : at + 25] for at in range(0, len(first), 25)}


def test_what_was_discarded_is_counted_while_others_add() -> None:
    table = RevocationTable()
    table.add_many(entries(20_000), NOW)
    done = threading.Event()

    def add() -> None:
        while not done.is_set():
            table.add_many(entries(500), LATER)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        discarded = table.discard_expired(NOW)
        for _ in range(20):
            table.add_many(entries(256), NOW)
            discarded += table.discard_expired(NOW)
    finally:
        done.set()
        adding.join()
    assert discarded == 20_000 + 20 * 256


def test_initialising_a_table_twice_forgets_nothing() -> None:
    key = make_key("HS256")
    table = RevocationTable()
    verifier = Verifier([key.verifying], issuer=ISSUER, revocations=table, cache_size=0)
    token = sign(None, claims(sessionHandle="8d7c3a9e-5f0b-4d6e-9a4b-0123456789ab"), key)
    table.add(b"\1" + bytes.fromhex("8d7c3a9e5f0b4d6e9a4b0123456789ab") + bytes(8), LATER)
    table.__init__()  # type: ignore[misc]
    with pytest.raises(errors.RevokedToken):
        verifier.verify(token, now=NOW)


@pytest.mark.parametrize("fresh_until", [math.nan, -math.inf, -1.0, 0.0])
def test_freshness_that_is_no_instant_to_come_is_stale(fresh_until: float) -> None:
    key = make_key("HS256")
    table = RevocationTable()
    table.fresh_until = fresh_until
    with pytest.raises(errors.StoreUnavailable):
        Verifier([key.verifying], issuer=ISSUER, revocations=table).verify(sign(None, None, key), now=NOW)


def test_objects_made_by_hand_do_nothing() -> None:
    claims_ = Claims.__new__(Claims)
    for use in (
        len,
        list,
        repr,
        dict,
        lambda c: c["sub"],
        lambda c: "sub" in c,
        lambda c: c.subject,
        lambda c: c.token,
    ):
        with pytest.raises((TypeError, AttributeError)):
            use(claims_)
    key = Key.__new__(Key)
    assert not key.verify(b"", b"") and not key.verify(b"message", bytes(32))
    mine = make_key("HS256")
    token = sign(None, None, mine)
    with pytest.raises((errors.ConfigError, errors.InvalidToken, TypeError)):
        Verifier([key], issuer=ISSUER).verify(token, now=NOW)


@pytest.mark.parametrize("keys", [[None], [1], ["key"], [object()], None, 1])
def test_keys_are_keys(keys: object) -> None:
    for make in (
        lambda: Verifier(keys, issuer=ISSUER),  # type: ignore[arg-type]
        lambda: Verifier([], issuer=ISSUER).replace_keys(keys),  # type: ignore[arg-type]
    ):
        with pytest.raises((errors.ConfigError, TypeError)):
            make()
