"""The Verifier's own surface: its settings, several tokens at once, threads and lifetime."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from both_ways import has_fast_path
from signing import ALGORITHMS, ISSUER, NOW, SigningKey, claims, make_key, sign

from fastverify import Config, errors
from fastverify._core import CacheInfo, Claims, Key, RevocationTable, Verifier

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
        ("fast_crypto", 1),
        ("fast_keys", -1),
        ("fast_keys", True),
        ("fast_keys", 1.0),
        ("fast_keys", None),
        ("fast_keys", 2**20),
        ("make_view", 1),
        ("make_view", "call me"),
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


def test_verify_many_takes_keys_and_algorithms_as_they_come_and_answers_in_order() -> None:
    """Three batches of the core's, from a generator; good, bad and repeated, each among others of other keys."""
    keys = [make_key(algorithm) for algorithm in ALGORITHMS] + [
        make_key("ES256", "second"),
        make_key("RS256", "second"),
    ]
    verifier = Verifier([key.verifying for key in keys], issuer=ISSUER)
    verifier.prepare_keys()
    good = [sign(None, claims(jti=str(number)), key) for number, key in enumerate(keys)]
    order = [(7 * step) % len(keys) for step in range(600)]

    def tokens() -> Iterator[str | bytes]:
        for step, number in enumerate(order):
            token = good[number]
            if step % 5 == 3:
                yield token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")
            else:
                yield token.encode() if step % 2 else token

    results = verifier.verify_many(tokens(), now=NOW)
    for step, (number, result) in enumerate(zip(order, results, strict=True)):
        if step % 5 == 3:
            assert type(result) is errors.InvalidSignature
        else:
            assert result["jti"] == str(number) and result is verifier.verify(good[number], now=NOW)
    counted = verifier.crypto_info()
    assert counted.evp > 0  # of ES384 and ES512 at least
    assert (counted.fast > 0) is any(map(has_fast_path, ALGORITHMS))
    assert (counted.undecided, counted.contradicted) == (0, 0)


def test_verify_many_without_a_cache_verifies_each_copy() -> None:
    key = make_key("RS256")
    verifier = make([key.verifying], cache_size=0)
    first, second = verifier.verify_many([sign(None, None, key)] * 2, now=NOW)
    assert first == second and first is not second
    assert sum(verifier.crypto_info()[:2]) == 2


def test_a_batch_that_is_broken_off_leaves_the_verifier_as_it_was() -> None:
    """In the second batch of the core's; more often than a key keeps contexts."""
    key, table = make_key("ES256"), RevocationTable()
    verifier = make([key.verifying], revocations=table)
    good = signed(key, 3)
    for _ in range(100):
        table.fresh_until = float("-inf")
        with pytest.raises(errors.StoreUnavailable):
            verifier.verify_many([*["a.b.c"] * 300, good[0][:-8] + "AAAAAAAA", *good], now=NOW)
        assert verifier.cache_info().size == 0
    table.fresh_until = float("inf")
    assert [result["jti"] for result in verifier.verify_many(good, now=NOW)] == ["0", "1", "2"]


# --- views ---


class View:
    """What a caller might make of claims."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims


def lasting(number: int = 0, key: SigningKey = KEY, **changes: Any) -> str:
    """A token that is good by the real clock too, which is the one that counts for views."""
    return sign(None, claims(**{"iat": 0, "exp": 2**40, "jti": str(number)} | changes), key)


@pytest.fixture
def made() -> list[View]:
    """The views that were made."""
    return []


@pytest.fixture
def viewer(made: list[View]) -> Verifier:
    def make_view(claims: Claims) -> View:
        made.append(View(claims))
        return made[-1]

    return make(make_view=make_view, cache_size=100)


def test_a_view_is_made_once_for_a_cached_token_and_is_the_same_object_from_then_on(
    viewer: Verifier, made: list[View]
) -> None:
    token = lasting()
    view = viewer.view(token)
    assert viewer.view((token + "x")[:-1]) is view is viewer.view(token.encode())
    assert view.claims is viewer.verify(token)
    assert made == [view]
    assert viewer.cache_info()[:2] == (3, 1)
    assert viewer.view(lasting(1)) is not view


def test_a_view_of_claims_that_were_verified_before_is_made_of_those(viewer: Verifier, made: list[View]) -> None:
    token = lasting()
    verified = viewer.verify(token)
    assert made == []
    assert viewer.view(token).claims is verified
    assert viewer.cache_info()[:2] == (1, 1)


def test_a_view_goes_with_its_entry(viewer: Verifier, made: list[View]) -> None:
    token = lasting()
    gc.disable()
    try:
        watch = weakref.ref(viewer.view(token))
        made.clear()
        assert watch() is not None
        viewer.cache_clear()
        assert watch() is None
        watch = weakref.ref(viewer.view(token))
        for number in range(400):  # until it is pushed out
            viewer.view(lasting(1 + number, exp=2**41))
            made.clear()
        assert watch() is None
        assert viewer.view(token) is made[0]
    finally:
        gc.enable()


def test_without_a_cache_a_view_is_made_each_time() -> None:
    verifier, token = make(make_view=View, cache_size=0), lasting()
    assert verifier.view(token) is not verifier.view(token)


def test_a_view_costs_its_entry_some_bytes_more() -> None:
    plain, viewing = make(), make(make_view=View)
    for verifier in (plain, viewing):
        verifier.verify(lasting())
    assert viewing.cache_info().bytes > plain.cache_info().bytes


def test_what_refuses_a_cached_token_refuses_its_view() -> None:
    other, table = make_key("HS256", "other"), RevocationTable()
    verifier = make([KEY.verifying, other.verifying], make_view=View, revocations=table)
    token, kept = lasting(), lasting(1, other)
    view, kept_view = verifier.view(token), verifier.view(kept)
    table.fresh_until = float("-inf")
    with pytest.raises(errors.StoreUnavailable):
        verifier.view(token)
    table.fresh_until = float("inf")
    assert verifier.view(token) is view
    verifier.replace_keys([other.verifying])
    with pytest.raises(errors.UnknownKey):
        verifier.view(token)
    assert verifier.view(kept) is kept_view
    table.add(b"\5" + bytes(16) + (1000).to_bytes(8, "big"), 2**31)  # all that was issued in 1970's first second
    with pytest.raises(errors.RevokedToken):
        verifier.view(kept)


def test_a_view_of_a_token_that_has_expired_is_refused() -> None:
    verifier = make(make_view=View)
    token = lasting(exp=int(time.time()) + 2)
    verifier.view(token)
    deadline = time.monotonic() + 10
    with pytest.raises(errors.ExpiredToken):
        while time.monotonic() < deadline:
            verifier.view(token)
            time.sleep(0.02)


@pytest.mark.parametrize("error", [ValueError("no"), errors.InvalidClaim("no", claim="x"), KeyboardInterrupt()])
def test_what_make_view_raises_is_raised_each_time_and_not_kept(error: BaseException) -> None:
    faults = [error, error]

    def make_view(claims: Claims) -> View:
        if faults:
            raise faults.pop()
        return View(claims)

    verifier, token = make(make_view=make_view), lasting()
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            verifier.view(token)
        assert caught.value is error
    assert verifier.verify(token)["jti"] == "0"
    assert verifier.view(token) is verifier.view(token)


def test_make_view_sees_only_what_has_been_verified(viewer: Verifier, made: list[View]) -> None:
    for bad in (lasting()[:-4] + "AAAA", "a.b.c", lasting(exp=1), lasting(iss="other")):
        with pytest.raises(errors.InvalidToken):
            viewer.view(bad)
    with pytest.raises(TypeError):
        viewer.view(None)  # type: ignore[arg-type]
    assert made == []


def test_a_verifier_without_make_view_has_no_views() -> None:
    verifier = make()
    with pytest.raises(TypeError, match="make_view"):
        verifier.view(lasting())
    with pytest.raises(errors.InvalidSignature):  # this is found first
        verifier.view(lasting()[:-4] + "AAAA")


def test_a_view_that_is_none_is_asked_for_each_time() -> None:
    asked: list[Claims] = []
    verifier, token = make(make_view=asked.append), lasting()
    assert verifier.view(token) is None is verifier.view(token)
    assert len(asked) == 2 and asked[0] is asked[1]


def test_make_view_may_use_the_verifier() -> None:
    token, other = lasting(), lasting(1)

    def make_view(claims: Claims) -> View:
        assert verifier.verify(token)
        verifier.cache_clear()
        if claims["jti"] == "0":
            verifier.view(other)
        return View(claims)

    verifier = make(make_view=make_view)
    assert verifier.view(token).claims["jti"] == "0"
    assert verifier.view(other).claims["jti"] == "1"


def test_threads_that_make_one_view_at_once_settle_on_one() -> None:
    both = threading.Barrier(2)
    views: list[View] = []

    def make_view(claims: Claims) -> View:
        both.wait(10)
        return View(claims)

    verifier, token = make(make_view=make_view), lasting()
    verifier.verify(token)
    threads = [threading.Thread(target=lambda: views.append(verifier.view(token))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(views) == 2 and verifier.view(token) in views
    assert views[0].claims is views[1].claims


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


SECOND_INTERPRETER = """
import os, sys
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
import fastverify
from signing import ISSUER, NOW, make_key, sign
from fastverify._core import Verifier

key = make_key("ES256")
verifier = Verifier([key.verifying], issuer=ISSUER)
reader, writer = os.pipe()
# There, the core alone: what else the package imports is not the matter here.
run(interpreters.create(), f'''
import os, sys, types
sys.path[:] = {sys.path!r}
package = types.ModuleType("fastverify")
package.__path__ = {list(fastverify.__path__)!r}
sys.modules["fastverify"] = package
try:
    from fastverify._core import openssl_info
    said = openssl_info()["linkage"]
except ImportError:
    said = "ImportError"
os.write({writer}, said.encode())
''')
print(os.read(reader, 100).decode(), verifier.verify(sign(None, None, key), now=NOW)["sub"])
"""


def test_a_second_interpreter_cannot_import_the_core_and_the_first_goes_on() -> None:
    pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    result = subprocess.run(
        [sys.executable, "-c", SECOND_INTERPRETER],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ImportError user-1\n"


def test_importing_the_core_again_gives_the_same_one() -> None:
    module = sys.modules.pop("fastverify._core")
    try:
        assert importlib.import_module("fastverify._core") is module
    finally:
        sys.modules["fastverify._core"] = module


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
