"""The Verifier's own surface: its settings, several tokens at once, threads and lifetime."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from signing import ISSUER, NOW, SigningKey, claims, make_key, sign

from fastverify import Config, errors
from fastverify._core import CacheInfo, Claims, Key, Verifier

KEY = make_key("HS256")


def make(keys: Any = None, **options: Any) -> Verifier:
    return Verifier([KEY.verifying] if keys is None else keys, **{"issuer": ISSUER} | options)


# --- settings ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", ""),
        ("issuer", 1),
        ("issuer", b"x"),
        ("issuer", ["x"]),
        ("issuer", "\ud800"),
        ("audience", ""),
        ("audience", []),
        ("audience", ["x", ""]),
        ("audience", ["x", 1]),
        ("audience", 1),
        ("typ", ""),
        ("typ", ()),
        ("typ", None),
        ("typ", ("JWT", None)),
        ("typ", "x" * 65),
        ("leeway", -1),
        ("leeway", 61),
        ("leeway", 1.5),
        ("leeway", True),
        ("leeway", None),
        ("cache_size", -1),
        ("cache_size", 1.0),
        ("cache_size", 2**40),
        ("cache_bytes", -1),
        ("cache_bytes", "1"),
        ("max_token_bytes", 0),
        ("max_token_bytes", 16_385),
        ("max_token_bytes", None),
        ("release_gil", "yes"),
        ("release_gil", None),
        ("fast_crypto", None),
        ("revocations", object()),
        ("keys", [1]),
        ("keys", [None]),
        ("keys", ["secret"]),
    ],
)
def test_a_setting_that_cannot_work_is_named(name: str, value: object) -> None:
    options: dict[str, Any] = {"keys": [KEY.verifying], "issuer": ISSUER} | {name: value}
    with pytest.raises(errors.ConfigError) as caught:
        Verifier(**options)
    assert caught.value.field == name


@pytest.mark.parametrize("options", [{}, {"issuer": ISSUER, "nonsense": 1}])
def test_settings_are_keywords_and_the_issuer_is_always_said(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Verifier([KEY.verifying], **options)
    with pytest.raises(TypeError):
        Verifier([KEY.verifying], ISSUER)  # type: ignore[misc]


@pytest.mark.parametrize("release_gil", ["auto", True, False])
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_every_way_of_holding_the_gil_verifies(release_gil: Any, algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = Verifier([key.verifying], issuer=ISSUER, release_gil=release_gil, fast_crypto=False)
    assert verifier.verify(sign(None, None, key), now=NOW)
    seen: list[Claims] = []
    thread = threading.Thread(target=lambda: seen.append(verifier.verify(sign(None, claims(jti="x"), key), now=NOW)))
    thread.start()
    thread.join()
    assert seen[0]["jti"] == "x"


def test_equal_keys_count_once_and_different_ones_of_one_name_are_refused() -> None:
    other = Key.hmac("HS256", KEY.kid, make_key("HS256", "other").private)
    assert "of 1 keys" in repr(make([KEY.verifying, KEY.verifying]))
    with pytest.raises(errors.ConfigError, match="key id"):
        make([KEY.verifying, other])
    verifier = make()
    with pytest.raises(errors.ConfigError):
        verifier.replace_keys([KEY.verifying, other])
    assert verifier.verify(sign(None, None, KEY), now=NOW)  # the former set stays


def test_a_verifier_may_start_with_no_keys() -> None:
    verifier = make([])
    with pytest.raises(errors.InvalidToken):
        verifier.verify(sign(None, None, KEY), now=NOW)
    verifier.replace_keys([KEY.verifying])
    assert verifier.verify(sign(None, None, KEY), now=NOW)


def test_repr_says_which_and_nothing_secret() -> None:
    assert repr(make()) == f"<Verifier of 1 keys, issuer={ISSUER!r}>"
    assert KEY.private.hex() not in repr(make())


# --- now ---


@pytest.mark.parametrize("now", [NOW, float(NOW), NOW + 0.999])
def test_now_is_an_int_or_float(now: float) -> None:
    assert make().verify(sign(None, None, KEY), now=now)


@pytest.mark.parametrize("now", [-1, -0.5, float("nan"), float("inf"), float("-inf"), 2**53, 1e300, 10**400])
def test_now_that_is_no_instant_is_refused(now: float) -> None:
    with pytest.raises(ValueError, match="now"):
        make().verify(sign(None, None, KEY), now=now)


@pytest.mark.parametrize("now", ["1", True, [], NOW * 1j])
def test_now_that_is_no_number_is_a_type_error(now: Any) -> None:
    with pytest.raises(TypeError, match="now"):
        make().verify(sign(None, None, KEY), now=now)


def test_now_goes_by_keyword() -> None:
    with pytest.raises(TypeError):
        make().verify(sign(None, None, KEY), NOW)  # type: ignore[misc]


# --- several at once ---


def test_verify_many_answers_in_order_and_never_raises_for_one() -> None:
    verifier = make()
    good = [sign(None, claims(jti=str(number)), KEY) for number in range(3)]
    bad: list[Any] = ["", "a.b", good[0][:-4] + "AAAA", "\u00e9", None, 7, sign(None, claims(exp=NOW), KEY)]
    kinds = [
        errors.MalformedToken,
        errors.MalformedToken,
        errors.InvalidSignature,
        errors.MalformedToken,
        errors.MalformedToken,
        errors.MalformedToken,
        errors.ExpiredToken,
    ]
    results = verifier.verify_many([good[0], *bad, good[1], good[2].encode(), good[0]], now=NOW)
    assert [type(result) for result in results] == [Claims, *kinds, Claims, Claims, Claims]
    assert results[0] is results[-1] is verifier.verify(good[0], now=NOW)
    assert all(error.__traceback__ is None for error in results if isinstance(error, errors.InvalidToken))


def test_verify_many_takes_any_iterable() -> None:
    token = sign(None, None, KEY)
    verifier = make()
    assert verifier.verify_many([]) == []
    assert len(verifier.verify_many((token for _ in range(3)), now=NOW)) == 3
    with pytest.raises(TypeError):
        verifier.verify_many(None)  # type: ignore[arg-type]


def test_verify_many_lets_through_what_is_not_the_tokens_fault() -> None:
    def broken() -> Any:
        yield sign(None, None, KEY)
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError):
        make().verify_many(broken(), now=NOW)


# --- counting ---


def test_cache_info_is_a_named_tuple() -> None:
    verifier = make(cache_size=10)
    assert verifier.cache_info() == CacheInfo(hits=0, misses=0, size=0, capacity=10, bytes=0)
    assert CacheInfo._fields == ("hits", "misses", "size", "capacity", "bytes")


# --- threads, processes, lifetime ---


def signed(key: SigningKey, count: int) -> list[str]:
    return [sign(None, claims(jti=str(number)), key) for number in range(count)]


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "EdDSA"])
def test_one_key_serves_many_threads(algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0, release_gil=True)
    good = signed(key, 8)
    wrong: list[object] = []

    def work() -> None:
        for number in range(60):
            token = good[number % len(good)]
            if verifier.verify(token, now=NOW)["jti"] != str(number % len(good)):
                wrong.append(token)
            try:
                verifier.verify(token.rpartition(".")[0] + "." + good[(number + 1) % 8].rpartition(".")[2], now=NOW)
                wrong.append("accepted")
            except errors.InvalidSignature:
                pass

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_verifier_serves_on_after_a_fork() -> None:
    """In a program of its own: a fork among the test run's threads would prove little."""
    program = """
import os, sys
from signing import ISSUER, NOW, claims, make_key, sign
from fastverify._core import Verifier
key = make_key("ES256")
verifier = Verifier([key.verifying], issuer=ISSUER)
tokens = [sign(None, claims(jti=str(n)), key) for n in range(4)]
verifier.verify(tokens[0], now=NOW)
child = os.fork()
good = all(verifier.verify(token, now=NOW)["jti"] == str(n) for n, token in enumerate(tokens))
if child == 0:
    os._exit(0 if good else 1)
sys.exit(0 if good and os.waitpid(child, 0)[1] == 0 else 1)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=60,
        check=False,
    )
    assert result.returncode == 0


def test_the_keys_given_may_be_dropped() -> None:
    verifier = make([make_key("HS384").verifying])
    gc.collect()
    assert verifier.verify(sign(None, None, make_key("HS384")), now=NOW)


def test_verifying_leaves_no_memory_behind() -> None:
    verifier = make(cache_size=4)
    good = signed(KEY, 40)
    bad = [token[:-4] + "AAAA" for token in good] + [sign(None, b'{"a":1,"a":2}', KEY), "a.b.c", "x" * 9000]

    def work() -> None:
        verifier.verify_many(good + bad, now=NOW)
        for token in good:
            verified = verifier.verify(token, now=NOW)
            verified.to_dict(), verified["jti"], verified.get("x"), repr(verified), list(verified)
        verifier.replace_keys([KEY.verifying])

    for _ in range(3):
        work()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(30):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # 2,490 verifications: a leak of ten bytes each would be more


def test_the_verifier_of_the_package_is_the_core_s() -> None:
    import fastverify

    assert fastverify.Verifier is Verifier
    assert Config.__module__ == "fastverify.config"
