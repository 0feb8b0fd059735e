"""When the fast paths are taken, what is counted, which keys get a table, and what a fork does to all that.

That they say what EVP says is the matter of test_fast_ecdsa.py and test_fast_rsa.py; what happens when they do not, of
test_core_in_parts.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from both_ways import FAST_ALGORITHMS, BothWays, needs_fast_ecdsa, needs_fast_rsa
from signing import ALGORITHMS, ISSUER, NOW, SigningKey, claims, header, make_key, sign

from fastverify import errors
from fastverify._core import CryptoInfo, Verifier

BUSY, BUSIER, SHADOW_EVERY = 256, 4, 1024
"""Of the core: checks until a key asks for a table; how many times busier it must be to oust another; one in how many
accepts is shadowed."""

fast_algorithm = pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=needs_fast_ecdsa if name == "ES256" else needs_fast_rsa)
                  for name in FAST_ALGORITHMS]
)  # fmt: skip


def make(*keys: SigningKey, **options: Any) -> Verifier:
    return Verifier([key.verifying for key in keys], **{"issuer": ISSUER, "cache_size": 0} | options)


def use(verifier: Verifier, key: SigningKey, times: int = 1) -> None:
    token = sign(None, None, key)
    for _ in range(times):
        verifier.verify(token, now=NOW)


# --- what is refused ---


@fast_algorithm
def test_every_flipped_bit_of_signature_header_and_payload_is_refused(algorithm: str) -> None:
    key = make_key(algorithm)
    both = BothWays(key.verifying)
    message = both.message()
    signature = key.sign(message)
    assert both.accepts(message, signature)
    for bit in range(8 * len(signature)):
        assert not both.accepts(message, flipped(signature, bit)), bit
    for bit in range(8 * len(message)):
        for fast in (False, True):
            assert not both.key.verify(flipped(message, bit), signature, fast=fast), bit
    assert both.accepts(message, signature), "a context that has refused serves again"


@fast_algorithm
def test_every_flipped_bit_of_a_token_is_refused(algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = make(key)
    verifier.prepare_keys()
    token = sign(None, None, key).encode()
    for bit in range(8 * token.rindex(b".")):
        with pytest.raises(errors.InvalidToken):
            verifier.verify(flipped(token, bit), now=NOW)
    assert verifier.verify(token, now=NOW)
    assert verifier.crypto_info()[1:5] == (0, 1, 0, 0)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- which way is taken ---


@fast_algorithm
@pytest.mark.parametrize("release_gil", [False, True])
def test_a_key_that_is_ready_is_checked_on_the_fast_path(algorithm: str, release_gil: bool) -> None:
    key = make_key(algorithm)
    verifier = make(key, release_gil=release_gil)
    assert verifier.prepare_keys() == (algorithm == "ES256")
    use(verifier, key, 3)
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(sign(None, None, key)[:-8] + "AAAAAAAA", now=NOW)
    assert verifier.crypto_info() == CryptoInfo(4, 0, 1, 0, 0, algorithm == "ES256")


@pytest.mark.parametrize("algorithm", FAST_ALGORITHMS)
def test_a_verifier_that_may_not_goes_through_evp_though_the_key_is_ready(algorithm: str) -> None:
    key = make_key(algorithm)
    verifying = key.verifying
    verifying.prepare()
    verifier = Verifier([verifying], issuer=ISSUER, cache_size=0, fast_crypto=False)
    assert verifier.prepare_keys() == 0
    use(verifier, key, 3)
    verifier.verify_many([sign(None, None, key)] * 2, now=NOW)
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(sign(None, None, key)[:-8] + "AAAAAAAA", now=NOW)
    assert verifier.crypto_info()[:5] == (0, 6, 0, 0, 0)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "EdDSA"])
def test_hmac_and_eddsa_are_no_matter_of_the_fast_paths_and_not_counted(algorithm: str) -> None:
    key = make_key(algorithm)
    verifier = make(key)
    assert verifier.prepare_keys() == 0
    use(verifier, key, 2 * BUSY)
    assert verifier.crypto_info() == CryptoInfo(0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("algorithm", ["ES384", "ES512"])
def test_keys_of_another_curve_go_through_evp_however_busy(algorithm: str, builders: list[Callable[[], bool]]) -> None:
    key = make_key(algorithm)
    verifier = make(key)
    use(verifier, key, BUSY + 10)
    assert builders == []
    assert verifier.crypto_info() == CryptoInfo(0, BUSY + 10, 0, 0, 0, 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_claims_are_the_same_on_either_path(algorithm: str) -> None:
    key = make_key(algorithm)
    fast, evp = make(key), make(key, fast_crypto=False)
    fast.prepare_keys()
    token = sign(header(key, x=1), claims(nested={"a": [1, None, "é"]}), key)
    one, other = fast.verify(token, now=NOW), evp.verify(token, now=NOW)
    assert one == other and one.to_dict() == other.to_dict()
    for name in ("token", "algorithm", "key_id", "subject", "issuer", "expires_at", "issued_at", "not_before"):
        assert getattr(one, name) == getattr(other, name)


@needs_fast_rsa
def test_a_hit_is_no_check() -> None:
    key = make_key("RS256")
    verifier = make(key, cache_size=10)
    use(verifier, key, 5)
    assert verifier.crypto_info() == CryptoInfo(1, 0, 1, 0, 0, 0)


# --- the shadow ---


@needs_fast_rsa
def test_the_first_accept_is_shadowed_and_then_one_in_1024() -> None:
    key = make_key("RS256")
    verifier = make(key)
    bad = sign(None, None, key)[:-8] + "AAAAAAAA"

    def shadowed(accepts: int) -> int:
        use(verifier, key, accepts)
        return verifier.crypto_info().shadowed

    for _ in range(5):  # what is refused is not looked over: it does no harm
        with pytest.raises(errors.InvalidSignature):
            verifier.verify(bad, now=NOW)
    assert verifier.crypto_info().shadowed == 0
    assert [shadowed(accepts) for accepts in (1, SHADOW_EVERY - 1, 1, SHADOW_EVERY - 1, 1)] == [1, 1, 2, 2, 3]
    assert verifier.crypto_info().evp == 0


@needs_fast_rsa
def test_contexts_that_serve_at_once_are_each_shadowed_first() -> None:
    """A batch borrows one context for each of its keys."""
    keys = [make_key("RS256", f"shadow {number}") for number in range(2)]
    verifier = make(*keys)
    verifier.verify_many([sign(None, None, key) for key in keys for _ in range(10)], now=NOW)
    assert verifier.crypto_info() == CryptoInfo(20, 0, 2, 0, 0, 0)


# --- tables ---


@pytest.fixture
def builders(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], bool]]:
    """What the threads that build tables would do; here they start when a test calls one of these."""
    waiting: list[Callable[[], bool]] = []

    class Waiting:
        def __init__(self, *, target: Callable[[], bool], name: str) -> None:
            assert name == "fastverify table"
            self.start = lambda: waiting.append(target)

    monkeypatch.setattr(threading, "Thread", Waiting)
    return waiting


@pytest.fixture(scope="module")
def pair() -> list[SigningKey]:
    return [make_key("ES256", f"table {number}") for number in range(3)]


@needs_fast_ecdsa
def test_a_busy_key_gets_its_table_in_another_thread_and_uses_it_from_then_on() -> None:
    key = make_key("ES256")
    verifier = make(key)
    use(verifier, key, BUSY)
    for thread in threading.enumerate():
        if thread.name == "fastverify table":
            thread.join()
    assert verifier.crypto_info() == CryptoInfo(0, BUSY, 0, 0, 0, tables=1)
    use(verifier, key, 2)
    assert verifier.crypto_info() == CryptoInfo(2, BUSY, 1, 0, 0, tables=1)


@needs_fast_ecdsa
def test_a_key_asks_once_and_evp_serves_until_the_table_is_there(builders: list[Callable[[], bool]]) -> None:
    key = make_key("ES256")
    verifier = make(key)
    use(verifier, key, BUSY - 1)
    assert builders == []
    use(verifier, key, 1)
    assert len(builders) == 1
    use(verifier, key, 2 * BUSY)
    assert len(builders) == 1
    assert verifier.crypto_info() == CryptoInfo(0, 3 * BUSY, 0, 0, 0, 0)
    assert builders[0]()
    use(verifier, key, 1)
    assert verifier.crypto_info() == CryptoInfo(1, 3 * BUSY, 1, 0, 0, 1)


@needs_fast_ecdsa
def test_bad_signatures_make_a_key_busy_too_and_harm_nothing(builders: list[Callable[[], bool]]) -> None:
    key = make_key("ES256")
    verifier = make(key)
    bad = sign(None, None, key)[:-8] + "AAAAAAAA"
    for _ in range(BUSY):
        with pytest.raises(errors.InvalidSignature):
            verifier.verify(bad, now=NOW)
    (build,) = builders
    assert build()
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(bad, now=NOW)
    assert verifier.crypto_info() == CryptoInfo(1, BUSY, 0, 0, 0, 1)


@needs_fast_ecdsa
def test_preparing_builds_at_once_and_as_many_as_may_have_one(pair: list[SigningKey]) -> None:
    for limit in range(4):
        verifier = make(*pair, make_key("RS256"), fast_keys=limit)
        for _ in range(2):
            assert verifier.prepare_keys() == min(limit, 3) == verifier.crypto_info().tables


@needs_fast_ecdsa
def test_preparing_counts_the_tables_that_busy_keys_have_already(
    pair: list[SigningKey], builders: list[Callable[[], bool]]
) -> None:
    last = pair[2]
    verifier = make(*pair, fast_keys=2)
    use(verifier, last, BUSY)
    assert builders.pop()()
    assert verifier.prepare_keys() == 2 == verifier.crypto_info().tables
    use(verifier, last)
    assert verifier.crypto_info().fast == 1


@needs_fast_ecdsa
def test_a_key_whose_table_is_being_built_counts_as_one_that_has_it(
    pair: list[SigningKey], builders: list[Callable[[], bool]]
) -> None:
    first, second = pair[:2]
    verifier = make(first, second, fast_keys=1)
    use(verifier, first, BUSY)
    use(verifier, second, 4 * BUSIER * BUSY)
    verifier.prepare_keys()
    (build,) = builders
    assert build()
    assert verifier.crypto_info().tables == 1


@needs_fast_ecdsa
def test_every_token_of_a_batch_counts(builders: list[Callable[[], bool]]) -> None:
    key = make_key("ES256")
    verifier = make(key)
    tokens = [sign(None, None, key)] * (BUSY // 2)
    verifier.verify_many(tokens, now=NOW)
    assert builders == []
    verifier.verify_many(tokens, now=NOW)
    assert builders.pop()()
    verifier.verify_many(tokens, now=NOW)
    assert verifier.crypto_info() == CryptoInfo(BUSY // 2, BUSY, 1, 0, 0, 1)


@needs_fast_ecdsa
def test_no_table_is_built_where_none_is_allowed(pair: list[SigningKey], builders: list[Callable[[], bool]]) -> None:
    for options in ({"fast_keys": 0}, {"fast_crypto": False}):
        verifier = make(*pair, **options)
        for key in pair:
            use(verifier, key, BUSY + 1)
        assert builders == []
        assert verifier.crypto_info() == CryptoInfo(0, 3 * (BUSY + 1), 0, 0, 0, 0)


@needs_fast_ecdsa
def test_of_two_keys_equally_busy_the_one_that_has_the_table_keeps_it(
    pair: list[SigningKey], builders: list[Callable[[], bool]]
) -> None:
    first, second = pair[:2]
    verifier = make(first, second, fast_keys=1)
    use(verifier, first, BUSY)
    assert builders.pop()()
    for _ in range(4 * BUSY):
        use(verifier, first)
        use(verifier, second)
    assert builders == []
    assert verifier.crypto_info()[:2] == (4 * BUSY, 5 * BUSY)


@needs_fast_ecdsa
def test_a_key_that_is_much_busier_takes_the_place_of_an_idle_one(
    pair: list[SigningKey], builders: list[Callable[[], bool]]
) -> None:
    first, second = pair[:2]
    verifier = make(first, second, fast_keys=1)
    use(verifier, first, BUSY)
    assert builders.pop()()
    uses = 0
    while not builders:
        use(verifier, second)
        uses += 1
        assert uses <= BUSIER * BUSY
    assert uses >= BUSY
    assert verifier.crypto_info().tables == 0  # the old one has gone
    assert builders.pop()()
    assert verifier.crypto_info().tables == 1
    before = verifier.crypto_info()
    use(verifier, second, 2)
    use(verifier, first, 3)
    after = verifier.crypto_info()
    assert (after.fast - before.fast, after.evp - before.evp) == (2, 3)


@needs_fast_ecdsa
def test_it_is_the_idlest_key_that_loses_its_table(pair: list[SigningKey], builders: list[Callable[[], bool]]) -> None:
    idle, middling, busy = pair
    verifier = make(idle, middling, busy, fast_keys=2)
    for key in (middling, idle):
        use(verifier, key, BUSY)
        assert builders.pop()()
    uses = 0
    while not builders:
        use(verifier, busy)
        use(verifier, middling, uses % 2)
        uses += 1
        assert uses <= 3 * BUSIER * BUSY
    assert builders.pop()()
    before = verifier.crypto_info()
    use(verifier, busy)
    use(verifier, middling)
    assert verifier.crypto_info().fast - before.fast == 2
    use(verifier, idle)
    assert verifier.crypto_info().evp - before.evp == 1
    assert verifier.crypto_info().tables == 2


@needs_fast_ecdsa
def test_a_table_stays_with_a_key_that_stays(pair: list[SigningKey]) -> None:
    first, second = pair[:2]
    verifier = make(first, fast_keys=1)
    verifier.prepare_keys()
    verifier.replace_keys([second.verifying, first.verifying])  # new objects
    assert verifier.crypto_info().tables == 1
    use(verifier, first, 2)
    use(verifier, second, 3)
    assert verifier.crypto_info()[:2] == (2, 3)
    verifier.replace_keys([second.verifying])
    assert verifier.crypto_info().tables == 0
    verifier.replace_keys([first.verifying])
    use(verifier, first)
    assert verifier.crypto_info()[:2] == (2, 4)


@needs_fast_ecdsa
def test_a_key_that_leaves_while_its_table_is_built_does_no_harm(builders: list[Callable[[], bool]]) -> None:
    key = make_key("ES256")
    verifier = make(key)
    use(verifier, key, BUSY)
    verifier.replace_keys([])
    assert builders.pop()()
    verifier.replace_keys([key.verifying])
    use(verifier, key)
    assert verifier.crypto_info() == CryptoInfo(0, BUSY + 1, 0, 0, 0, 0)


@needs_fast_ecdsa
def test_a_system_without_threads_to_spare_goes_on_through_evp_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    class Refused:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            nonlocal asked
            asked += 1
            raise RuntimeError("can't start new thread")

    key = make_key("ES256")
    verifier = make(key)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Refused)
        use(verifier, key, BUSY + 9)
    assert asked == 10
    assert verifier.crypto_info() == CryptoInfo(0, BUSY + 9, 0, 0, 0, 0)
    use(verifier, key)
    for thread in threading.enumerate():
        if thread.name == "fastverify table":
            thread.join()
    assert verifier.crypto_info().tables == 1


@needs_fast_ecdsa
def test_many_threads_may_prepare_and_use_one_key_at_once() -> None:
    key = make_key("ES256")
    verifying, good = key.verifying, key.sign(b"message")
    start, wrong = threading.Barrier(5), []

    def work() -> None:
        start.wait()
        for number in range(40):
            if number % 20 == 5 and not verifying.prepare():
                wrong.append("not prepared")
            if not verifying.verify(b"message", good, fast=True) or verifying.verify(b"massage", good, fast=True):
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- forks ---

PREAMBLE = """
import os, sys, threading
from signing import ISSUER, NOW, claims, make_key, sign
from fastverify import errors
from fastverify._core import Verifier

BUSY = 256
key = make_key("ES256")
verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0)
token = sign(None, None, key)

def use(times):
    for _ in range(times):
        verifier.verify(token, now=NOW)

def table_comes():
    '''Whether a busy key gets its table in this process, and uses it.'''
    use(1)
    for thread in threading.enumerate():
        if thread.name == "fastverify table":
            thread.join()
    before = verifier.crypto_info()
    use(1)
    after = verifier.crypto_info()
    return (after.tables, after.fast - before.fast, after.undecided, after.contradicted) == (1, 1, 0, 0)

def forked(check):
    '''What a child makes of it.'''
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0
"""
PROGRAMS = {
    "after_the_table_is_built": """
verifier.prepare_keys()
use(5)
assert forked(lambda: verifier.crypto_info().tables == 1 and table_comes())
assert table_comes()
""",
    "before_the_key_is_busy": """
use(BUSY - 1)
assert forked(table_comes)
assert table_comes()
""",
    "while_a_thread_is_building": """
use(BUSY)
assert forked(table_comes)
assert table_comes()
""",
    # The same with a thread that is surely still at it, as it has not begun.
    "while_a_thread_is_about_to_build": """
Thread, waiting = threading.Thread, []

class Waiting:
    def __init__(self, *, target, name):
        self.start = lambda: waiting.append(target)

threading.Thread = Waiting
use(2 * BUSY)
assert len(waiting) == 1

def in_child():
    threading.Thread = Thread
    return verifier.crypto_info().tables == 0 and table_comes()

assert forked(in_child)
assert forked(lambda: forked(in_child) and in_child())
use(BUSY)
assert len(waiting) == 1
waiting[0]()
assert table_comes()
""",
}


@needs_fast_ecdsa
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", PROGRAMS)
def test_a_child_builds_the_table_that_it_lacks(moment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PREAMBLE + PROGRAMS[moment]],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
