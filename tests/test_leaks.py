"""Nothing that the core takes from libcrypto or the C library is kept: contexts, tables, keys, batches (row T7).

The short tests count bytes, which makes a single lost object visible. The long one watches the memory of a process of
its own while it verifies a great many tokens.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable

import memory
import pytest
from both_ways import has_fast_path, needs_fast_ecdsa
from signing import ALGORITHMS, ISSUER, NOW, base64url, claims, make_key, sign

from fastverify import errors
from fastverify._core import RevocationTable, Verifier

counts_bytes = pytest.mark.skipif(memory.allocated_bytes() is None, reason="this C library does not count: see glibc's")


def kept_by(work: Callable[[], object], times: int) -> int:
    """Bytes that so many calls have left allocated."""
    for _ in range(3):
        work()
    gc.collect()
    before = memory.allocated_bytes()
    for _ in range(times):
        work()
    gc.collect()
    after = memory.allocated_bytes()
    assert before is not None and after is not None
    return after - before


def damaged(token: str) -> list[str]:
    """Refused at different depths: by the signature's arithmetic, by its length, before it."""
    stem, _, signature = token.rpartition(".")
    size = len(signature) * 3 // 4
    wrong = [bytes(size), b"\xff" * size, bytes(size - 1), b"\1".rjust(size, b"\0")]
    return [token[:-8] + "AAAAAAAA", *(f"{stem}.{base64url(signature)}" for signature in wrong), stem + ".a", "a.b.c"]


@counts_bytes
@pytest.mark.parametrize(
    ("algorithm", "fast"), [(name, fast) for name in ALGORITHMS for fast in {False, has_fast_path(name)}]
)
def test_verifying_keeps_nothing(algorithm: str, fast: bool) -> None:
    key = make_key(algorithm)
    verifying = key.verifying
    verifier = Verifier([verifying], issuer=ISSUER, cache_size=4, fast_crypto=fast, release_gil=True)
    verifier.prepare_keys()
    tokens = [sign(None, claims(jti=str(number)), key) for number in range(6)]
    tokens += [sign(None, claims(exp=NOW), key), sign(None, b"[]", key), *damaged(tokens[0])]
    good = key.sign(b"message")

    def work() -> None:
        for token in tokens:
            try:
                verifier.verify(token, now=NOW)
            except errors.InvalidToken:
                pass
        verifier.verify_many(tokens, now=NOW)
        verifier.verify_jws(tokens[0])
        verifying.verify(b"message", good, fast=fast)
        verifying.verify(b"massage", good, fast=fast)

    assert kept_by(work, 20) < 20 * 100  # a context for each call would be a hundred times that


@counts_bytes
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_making_and_dropping_a_key_keeps_nothing(algorithm: str) -> None:
    key = make_key(algorithm)
    good = key.sign(b"message")

    def work() -> None:
        verifying = key.verifying
        assert verifying.prepare() is has_fast_path(algorithm)
        for fast in (False, True):
            assert verifying.verify(b"message", good, fast=fast)
            assert not verifying.verify(b"massage", good, fast=fast)

    # The least that a key has is a context of some hundred bytes; a table has 150,000.
    assert kept_by(work, 8) < 8 * 100


@counts_bytes
@needs_fast_ecdsa
def test_keys_and_tables_that_a_verifier_lets_go_of_are_freed() -> None:
    keys = [make_key("ES256", f"leak {number}") for number in range(3)]
    token = sign(None, None, keys[0])
    verifier = Verifier([], issuer=ISSUER, cache_size=8, fast_keys=2)

    def work() -> None:
        verifier.replace_keys([key.verifying for key in keys])
        assert verifier.prepare_keys() == 2
        verifier.verify(token, now=NOW)
        verifier.verify_many([token] * 3, now=NOW)
        verifier.replace_keys([])
        with pytest.raises(errors.InvalidToken):
            verifier.verify(token, now=NOW)

    assert kept_by(work, 8) < 8 * 200


@counts_bytes
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_a_batch_that_is_broken_off_gives_everything_back(algorithm: str) -> None:
    """StoreUnavailable comes after all signatures, at the first token that is good."""
    key, other = make_key(algorithm), make_key("ES384")
    table = RevocationTable()
    table.fresh_until = time.monotonic() - 1
    verifier = Verifier([key.verifying, other.verifying], issuer=ISSUER, revocations=table)
    verifier.prepare_keys()
    good = [sign(None, claims(jti=str(number)), key) for number in range(3)]
    tokens = ["a.b.c", sign(None, None, other)[:-8] + "AAAAAAAA", *damaged(good[0]), *good]

    def work() -> None:
        with pytest.raises(errors.StoreUnavailable):
            verifier.verify_many(tokens, now=NOW)
        with pytest.raises(errors.StoreUnavailable):
            verifier.verify(good[0], now=NOW)

    assert kept_by(work, 20) < 20 * 100
    assert verifier.cache_info().size == 0
    table.fresh_until = float("inf")
    assert [type(result).__name__ for result in verifier.verify_many(tokens, now=NOW)][-3:] == ["Claims"] * 3


# --- a great many ---


def a_great_many(verifications: int, tables: int) -> None:
    """In a process of its own: after all of these it holds what it held after a few."""
    steps = []
    for algorithm in ALGORITHMS:
        key = make_key(algorithm)
        for fast in (True, False):
            verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0, fast_crypto=fast)
            verifier.prepare_keys()
            good = sign(None, None, key)
            steps += [(verifier, token) for token in (good, good[:-8] + "AAAAAAAA")]

    def verify(times: int) -> None:
        for number in range(times):
            verifier, token = steps[number % len(steps)]
            try:
                verifier.verify(token, now=NOW)
            except errors.InvalidSignature:
                pass

    def build(times: int) -> None:
        key = make_key("ES256")
        verifier = Verifier([], issuer=ISSUER, cache_size=0)
        token = sign(None, None, key)
        for _ in range(times):
            verifier.replace_keys([key.verifying])
            verifier.prepare_keys()
            verifier.verify(token, now=NOW)
            verifier.replace_keys([])

    verify(verifications // 20)
    build(5)
    gc.collect()
    resident, descriptors = memory.resident_bytes(), memory.open_descriptors()
    verify(verifications)
    build(tables)
    gc.collect()
    grown = memory.resident_bytes() - resident
    print(f"{verifications} verifications and {tables} tables: {grown / 1024:+.0f} KiB")
    assert grown < 1024 * 1024
    assert memory.open_descriptors() == descriptors


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not memory.STATM.exists(), reason="memory is read from Linux's /proc")
def test_a_process_that_verifies_a_great_many_tokens_does_not_grow() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import test_leaks; test_leaks.a_great_many(200_000, 50)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
