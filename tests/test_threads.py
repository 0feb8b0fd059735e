"""Many threads on shared objects: each gets what it would have got alone.

All are bounded by a count and wait for nothing. With a GIL it is the tiny switch interval that shuffles them; what a
missing guard breaks shows on a free-threaded build, where they really run at once.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from signing import ISSUER, NOW, SigningKey, claims, header, make_key, sign

from fastverify import errors
from fastverify._core import Claims, RevocationTable, Verifier, parse_json

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = 6
#: How often what is quickly done is done: most of what could go wrong takes two threads within nanoseconds.
MORE = 10 if FREE_THREADED else 1
LATER = NOW + 3600


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Threads that have to share a GIL pass it on as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None]) -> None:
    """Do it in all threads at once, each with a number of its own; what is raised in one of them is raised here."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(run, range(THREADS)):
            pass


@dataclass(frozen=True)
class Sample:
    """A token, what is in it, and forgeries of it."""

    token: str
    members: dict[str, Any]
    handle: bytes
    forged: tuple[str, ...]


def make_samples(key: SigningKey, count: int, now: int = NOW) -> list[Sample]:
    handles = [uuid.UUID(bytes=random.randbytes(16)) for _ in range(count)]
    members = [
        claims(sub=f"{key.kid} {n}", sessionHandle=str(handle), iat=now, exp=now + 3600)
        | {f"{key.kid} member {n}": [n, {"é": None}], f"m{n}": -n}
        for n, handle in enumerate(handles)
    ]
    tokens = [sign(None, payload, key) for payload in members]
    return [
        Sample(tokens[n], members[n], handles[n].bytes, tuple(forgeries(tokens[n], tokens[n - 1])))
        for n in range(count)
    ]


def forgeries(token: str, other: str) -> Iterator[str]:
    """Tokens that were never signed. The first two are looked for where the cache keeps the good one."""
    header, payload, signature = token.split(".")
    middle = len(payload) // 2
    yield f"{header}.{other.split('.')[1]}.{signature}"
    yield f"{header}.{payload[:middle]}{'A' if payload[middle] != 'A' else 'B'}{payload[middle + 1 :]}.{signature}"
    yield f"{header}.{payload}.{other.split('.')[2]}"


def check_claims(found: Claims, sample: Sample) -> None:
    """Every way of reading them gives what was signed."""
    assert found.to_dict() == sample.members
    assert found.token == sample.token
    assert (found.subject, found.issuer) == (sample.members["sub"], ISSUER)
    assert (found.issued_at, found.expires_at) == (sample.members["iat"], sample.members["exp"])
    assert list(found) == list(sample.members)
    assert all(found.get(name) == value for name, value in sample.members.items())
    assert "absent" not in found


def entry(kind: int, target: bytes = bytes(16), cutoff: int = 0) -> bytes:
    return bytes((kind,)) + target + cutoff.to_bytes(8, "big")


def noise(numbers: random.Random, count: int = 60) -> bytes:
    """Revocations of sessions, tokens and keys that nobody has."""
    return b"".join(entry(numbers.randint(1, 3), numbers.randbytes(16)) for _ in range(count))


def test_verifier_never_errs_while_keys_cache_and_revocations_change_under_it() -> None:
    """Good tokens give their own claims, forged ones none; neither revoked tokens nor those of a removed key pass."""
    staying = [make_key(algorithm) for algorithm in ("HS256", "ES256", "RS256", "PS256", "EdDSA")]
    passing = [make_key("HS256", "passing"), make_key("ES256", "passing")]
    lasting = [sample for key in staying for sample in make_samples(key, 8)]
    doomed = [sample for key in staying[:2] for sample in make_samples(key, 30)]
    fickle = [sample for key in passing for sample in make_samples(key, 8)]
    table = RevocationTable()
    verifier = Verifier(
        [key.verifying for key in staying], issuer=ISSUER, cache_size=8, release_gil=True, revocations=table
    )
    revoked: set[str] = set()
    epoch = [0]  # odd while keys are being replaced; the passing ones are there at 2, 6, 10 and so on

    def verify(sample: Sample, numbers: random.Random) -> None:
        assert verifier.verify(sample.token, now=NOW).subject == sample.members["sub"]
        with pytest.raises(errors.InvalidSignature):
            verifier.verify(numbers.choice(sample.forged), now=NOW)
        check_claims(verifier.verify(sample.token, now=NOW), sample)

    def verify_doomed(sample: Sample) -> None:
        known = sample.token in revoked
        try:
            check_claims(verifier.verify(sample.token.encode(), now=NOW), sample)
        except errors.RevokedToken:
            return
        assert not known, "a revoked token has passed"

    def verify_fickle(sample: Sample) -> None:
        before = epoch[0]
        try:
            check_claims(verifier.verify(sample.token, now=NOW), sample)
            passed = True
        except errors.UnknownKey:
            passed = False
        if before == epoch[0] and before % 2 == 0:
            assert passed == (before % 4 == 2), "the token of a removed key has passed, or that of a key was refused"

    def verify_many(numbers: random.Random) -> None:
        some = numbers.sample(lasting, 6)
        for found, sample in zip(verifier.verify_many([s.token for s in some], now=NOW), some, strict=True):
            assert isinstance(found, Claims)
            check_claims(found, sample)
        forged = [numbers.choice(sample.forged) for sample in some]
        assert all(isinstance(found, errors.InvalidSignature) for found in verifier.verify_many(forged, now=NOW))

    def replace_keys(numbers: random.Random) -> None:
        epoch[0] += 1
        present = staying + passing if epoch[0] % 4 == 1 else staying
        verifier.replace_keys([key.verifying for key in numbers.sample(present, len(present))])
        epoch[0] += 1

    def revoke(numbers: random.Random) -> None:
        sample = doomed[len(revoked)]
        table.add(entry(1, sample.handle), LATER)
        revoked.add(sample.token)
        table.add_many(noise(numbers), NOW + 1)

    def purge(numbers: random.Random) -> None:
        table.add_many(noise(numbers), NOW + 1)
        table.discard_expired(NOW + 1)
        table.fresh_until = time.monotonic() + 1000
        if numbers.random() < 0.2:
            verifier.cache_clear()
        info = verifier.cache_info()
        assert 0 <= info.size <= info.capacity == 8

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        disturb = [replace_keys, revoke, purge, *[verify_many] * (THREADS - 3)][seed]
        for _ in doomed:
            for sample in numbers.sample(lasting, 3):
                verify(sample, numbers)
            verify_doomed(numbers.choice(doomed))
            verify_fickle(numbers.choice(fickle))
            disturb(numbers)

    together(work)
    assert revoked == {sample.token for sample in doomed}
    table.discard_expired(NOW + 1)
    assert sorted(table.entries()) == sorted((entry(1, sample.handle), LATER) for sample in doomed)
    verifier.cache_clear()
    assert verifier.cache_info()[2:] == (0, 8, 0)


def test_cache_of_two_entries_is_fought_over_and_never_gives_the_claims_of_another_token() -> None:
    """Whatever one thread finds, another is just about to evict; and what dies calls the cache again."""
    keys = [make_key("HS256"), make_key("HS256", "passing")]
    both, one = [[key.verifying for key in some] for some in (keys, keys[:1])]
    samples = [*make_samples(keys[0], 4), *make_samples(keys[1], 2)]
    verifier = Verifier(both, issuer=ISSUER, cache_size=2)
    called = [0] * THREADS
    dead: list[object] = []

    class Meddler:
        def __init__(self, token: str) -> None:
            self.token = token

        def __del__(self) -> None:
            verifier.verify_many([self.token], now=NOW)
            dead.append(None)

    def work(seed: int) -> None:
        disturb = [
            lambda step: verifier.replace_keys(one if step % 8 else both),
            lambda step: verifier.replace_keys(both if step % 8 else one),
            lambda step: verifier.cache_clear(),
        ]
        numbers = random.Random(seed)
        for step, n in enumerate(numbers.choices(range(len(samples)), k=10_000 * MORE)):
            token, subject = samples[n].token, samples[n].members["sub"]
            called[seed] += 1
            try:
                found = verifier.verify(token, now=NOW)
            except errors.UnknownKey:
                assert n >= 4
                continue
            assert (found.subject, found.token) == (subject, token)
            if step % 4 == 0 and seed < 3:
                disturb[seed](step)
            elif step % 100 == 3:
                found._session = Meddler(samples[n - 1].token)  # type: ignore[assignment]

    together(work)
    verifier.replace_keys(one)
    verifier.cache_clear()
    verifier.cache_clear()  # memos that died have entered their tokens again
    info = verifier.cache_info()
    assert info.hits + info.misses == sum(called) + len(dead)
    assert info[2:] == (0, 2, 0)


def test_shared_claims_give_everybody_the_same_and_a_memo_that_somebody_left() -> None:
    key = make_key("HS256")
    samples = make_samples(key, 2)
    verifier = Verifier([key.verifying], issuer=ISSUER)
    shared = [verifier.verify(sample.token, now=NOW) for sample in samples]

    class Memo:
        def __init__(self, token: str) -> None:
            self.token, self.dead = token, False

        def __del__(self) -> None:
            self.dead = True

    def work(seed: int) -> None:
        for step in range(10_000 * MORE):
            found, sample = shared[step % 2], samples[step % 2]
            memo: Any = found._session
            assert memo is None or (memo.token, memo.dead) == (sample.token, False)
            if step % 4 < 2:
                found._session = Memo(sample.token)  # type: ignore[assignment]
            if step % 50 == seed:
                check_claims(found, sample)
                assert found == sample.members and found != shared[step % 2 - 1]
                assert repr(found).startswith(f"<Claims sub={sample.members['sub']!r}")

    together(work)


def test_view_is_always_that_of_the_token() -> None:
    key = make_key("HS256")
    samples = make_samples(key, 6, int(time.time()))
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=2, make_view=lambda found: (found, found.subject))

    def work(seed: int) -> None:
        for sample in random.Random(seed).choices(samples, k=10_000 * MORE):
            found, subject = verifier.view(sample.token)
            assert (found.token, subject) == (sample.token, sample.members["sub"])

    together(work)


def test_member_names_are_never_mixed_up() -> None:
    """The latest names are kept in a table that all threads share, where these push each other out."""
    documents = [{f"name {n * 997 % 7919}": n for n in range(start, start + 20)} for start in range(0, 7900, 20)]
    texts = [json.dumps(document).encode() for document in documents]

    def work(seed: int) -> None:
        for n in random.Random(seed).choices(range(len(texts)), k=5000 * MORE):
            assert parse_json(texts[n]) == documents[n]

    together(work)


def test_header_leads_to_its_key_while_headers_push_each_other_out() -> None:
    keys = [make_key("HS256", f"key {n}") for n in range(3)]
    verifier = Verifier([key.verifying for key in keys], issuer=ISSUER, cache_size=0)
    more_than_are_kept = range(10, 42)
    signed = [(sign(header(keys[n % 3], n=n), claims(sub=str(n)), keys[n % 3]), str(n)) for n in more_than_are_kept]

    def work(seed: int) -> None:
        for token, subject in random.Random(seed).choices(signed, k=10_000 * MORE):
            assert verifier.verify(token, now=NOW).subject == subject

    together(work)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "EdDSA"])
def test_one_key_checks_for_many_threads_while_it_is_being_prepared(algorithm: str) -> None:
    times = 8000 * MORE if algorithm == "HS256" else 100
    signing = make_key(algorithm)
    signed = [(text, signing.sign(text)) for text in (b"signing input %d" % n for n in range(8))]
    key = signing.verifying

    def work(seed: int) -> None:
        for step, n in enumerate(random.Random(seed).choices(range(8), k=times)):
            text, signature = signed[n]
            assert key.verify(text, signature, fast=step % 3 > 0)
            assert not key.verify(text, signed[n - 1][1], fast=step % 3 > 0)
            if step == times // 2:
                key.prepare()

    together(work)


def test_verdicts_stay_right_while_two_busy_keys_take_turns_with_one_table() -> None:
    keys = [make_key("ES256", f"busy {n}") for n in range(2)]
    samples = [make_samples(key, 4) for key in keys]
    verifier = Verifier([key.verifying for key in keys], issuer=ISSUER, cache_size=0, fast_keys=1, release_gil=True)

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        for step in range(500):
            sample = numbers.choice(samples[step // 125 % 2])
            if step % 10:
                assert verifier.verify(sample.token, now=NOW).subject == sample.members["sub"]
            else:
                with pytest.raises(errors.InvalidSignature):
                    verifier.verify(numbers.choice(sample.forged), now=NOW)

    together(work)
    info = verifier.crypto_info()
    assert info.fast + info.evp == THREADS * 500
    assert info.contradicted == 0


def test_revocation_table_loses_nothing_that_several_threads_enter_while_others_purge_and_read() -> None:
    table = RevocationTable()
    numbers = random.Random(1)
    kept = [numbers.randbytes(16) for _ in range(THREADS * 800)]
    tenants = [numbers.randbytes(16) for _ in range(THREADS * 16)]
    others = [numbers.randbytes(16) for _ in range(300)]
    expected = {entry(1, handle) for handle in kept} | {entry(4, tenant, NOW * 1000) for tenant in tenants}

    def work(seed: int) -> None:
        numbers = random.Random(f"noise {seed}")  # not the numbers that are kept: Random(1) would begin with those
        mine = kept[seed::THREADS]
        for step, tenant in enumerate(tenants[seed::THREADS], 1):
            handles = mine[step * 50 - 50 : step * 50]
            assert table.add_many(b"".join(entry(1, handle) for handle in handles), LATER) == 50
            assert table.add(entry(4, tenant, NOW * 1000), LATER)
            table.add_many(noise(numbers), NOW + 1)
            if seed % 2:
                table.discard_expired(NOW + 1)
            else:
                assert {one for one, expiry in table.entries() if expiry == LATER} <= expected
            assert table.lookup(tenant=tenant, issued_at=NOW, now=NOW) == 4
            assert table.lookup(tenant=tenant, issued_at=NOW + 1, now=NOW) == 0
            assert all(table.lookup(session=handle, now=NOW) == 1 for handle in mine[: step * 50])
            assert not any(table.lookup(session=one, token=one, key=one, tenant=one, now=NOW) for one in others)

    together(work)
    table.discard_expired(NOW + 1)
    assert (len(table), set(table.entries())) == (len(expected), {(one, LATER) for one in expected})


if FREE_THREADED:

    def test_importing_fastverify_leaves_the_gil_off() -> None:
        program = "import sys, fastverify; sys.exit(sys._is_gil_enabled())"
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
