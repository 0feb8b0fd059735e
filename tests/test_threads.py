"""Many threads on shared objects: each gets what it would have got alone.

All are bounded by a count and wait for nothing. With a GIL it is the tiny switch interval that shuffles them; what a
missing guard breaks shows on a free-threaded build, where they really run at once.
"""

from __future__ import annotations

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
from signing import ISSUER, NOW, SigningKey, claims, make_key, sign

from fastverify import errors
from fastverify._core import Claims, RevocationTable, Verifier, parse_json

THREADS = 6
LATER = NOW + 3600


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Threads that have to share a GIL pass it on as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*jobs: Callable[[], None]) -> None:
    """Run all of these at once, each in a thread of its own; what one of them raises is raised here."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        start.wait()
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for outcome in [pool.submit(run, job) for job in jobs]:
            outcome.result()


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
    epoch = [0]  # odd while keys are being replaced; at every fourth one and the next the passing keys are there

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

    def work(seed: int, disturb: Callable[[random.Random], None] | None = None) -> None:
        numbers = random.Random(seed)
        for _ in range(80):
            for sample in numbers.sample(lasting, 3):
                verify(sample, numbers)
            verify_doomed(numbers.choice(doomed))
            verify_fickle(numbers.choice(fickle))
            if disturb is None:
                verify_many(numbers)
            else:
                disturb(numbers)

    def replace_keys(numbers: random.Random) -> None:
        epoch[0] += 1
        present = staying + passing if epoch[0] % 4 == 1 else staying
        verifier.replace_keys([key.verifying for key in numbers.sample(present, len(present))])
        epoch[0] += 1

    def revoke(numbers: random.Random) -> None:
        sample = doomed[len(revoked) % len(doomed)]
        table.add(entry(1, sample.handle), LATER)
        revoked.add(sample.token)
        table.add_many(noise(numbers), NOW + 1)

    def purge(numbers: random.Random) -> None:
        table.add_many(noise(numbers), NOW + 1)
        table.discard_expired(NOW + 1)
        if numbers.random() < 0.2:
            verifier.cache_clear()
        info = verifier.cache_info()
        assert 0 <= info.size <= info.capacity == 8

    plain = [lambda seed=seed: work(seed) for seed in range(THREADS - 3)]
    together(*plain, lambda: work(10, replace_keys), lambda: work(11, revoke), lambda: work(12, purge))

    assert revoked == {sample.token for sample in doomed}
    table.discard_expired(NOW + 1)
    assert sorted(table.entries()) == sorted((entry(1, sample.handle), LATER) for sample in doomed)
    verifier.cache_clear()
    assert verifier.cache_info()[2:] == (0, 8, 0)


def test_cache_counts_every_call_and_ends_empty_though_what_it_evicts_calls_it_again() -> None:
    samples = make_samples(make_key("HS256"), 12)
    verifier = Verifier([make_key("HS256").verifying], issuer=ISSUER, cache_size=8, cache_bytes=9000)
    dead: list[Meddler] = []

    class Meddler:
        """A memo that uses the cache once more when it dies."""

        def __init__(self, token: str) -> None:
            self.token = token

        def __del__(self) -> None:
            verifier.verify_many([self.token], now=NOW)
            dead.append(self)

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        for step in range(9000):
            sample = numbers.choice(samples)
            found = verifier.verify(sample.token, now=NOW)
            assert found.subject == sample.members["sub"]
            if step % 50 == 0:
                found._session = Meddler(numbers.choice(samples).token)  # type: ignore[assignment]

    together(*[lambda seed=seed: work(seed) for seed in range(THREADS)])
    verifier.cache_clear()
    verifier.cache_clear()  # memos that died have entered their tokens again
    info = verifier.cache_info()
    assert len(dead) == THREADS * 180
    assert info.hits + info.misses == THREADS * 9000 + len(dead)
    assert info[2:] == (0, 8, 0)


def test_shared_claims_give_everybody_the_same_and_a_memo_that_somebody_left() -> None:
    key = make_key("HS256")
    samples = make_samples(key, 6)
    verifier = Verifier([key.verifying], issuer=ISSUER)
    shared = [verifier.verify(sample.token, now=NOW) for sample in samples]
    memos = {None, *range(THREADS * 400)}

    def work(number: int) -> None:
        numbers = random.Random(number)
        for step in range(400):
            n = numbers.randrange(len(shared))
            check_claims(shared[n], samples[n])
            assert shared[n] == samples[n].members and shared[n] != samples[n - 1].members
            assert repr(shared[n]).startswith(f"<Claims sub={samples[n].members['sub']!r}")
            assert shared[n]._session in memos
            shared[n]._session = number * 400 + step  # type: ignore[assignment]

    together(*[lambda number=number: work(number) for number in range(THREADS)])


def test_view_is_always_that_of_the_token() -> None:
    key = make_key("HS256")
    samples = make_samples(key, 12, int(time.time()))
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=8, make_view=lambda found: (found, found.subject))

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        for step in range(6000):
            sample = numbers.choice(samples)
            found, subject = verifier.view(sample.token)
            assert (found.token, subject) == (sample.token, sample.members["sub"])
            if step % 100 == 0:
                verifier.cache_clear()

    together(*[lambda seed=seed: work(seed) for seed in range(THREADS)])


def test_member_names_are_never_mixed_up() -> None:
    """The latest names are kept in a table that all threads share."""
    documents = [{f"name {n * 997 % 7919}": n for n in range(start, start + 100)} for start in range(0, 20_000, 100)]

    def work(seed: int) -> None:
        for document in random.Random(seed).sample(documents, len(documents)):
            text = ",".join(f'"{name}":{value}' for name, value in document.items())
            assert parse_json(f"{{{text}}}".encode()) == document

    together(*[lambda seed=seed: work(seed) for seed in range(THREADS)])


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "EdDSA"])
def test_one_key_checks_for_many_threads_while_it_is_being_prepared(algorithm: str) -> None:
    signing = make_key(algorithm)
    signed = [(text, signing.sign(text)) for text in (b"signing input %d" % n for n in range(8))]
    key = signing.verifying

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        for step in range(100):
            text, signature = numbers.choice(signed)
            place = numbers.randrange(len(signature))
            damaged = signature[:place] + bytes((signature[place] ^ 1 << step % 8,)) + signature[place + 1 :]
            assert key.verify(text, signature, fast=step % 3 > 0)
            assert not key.verify(text, damaged, fast=step % 3 > 0)
            if step == 50:
                key.prepare()

    together(*[lambda seed=seed: work(seed) for seed in range(THREADS)])


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

    together(*[lambda seed=seed: work(seed) for seed in range(THREADS)])
    info = verifier.crypto_info()
    assert info.fast + info.evp == THREADS * 500
    assert info.contradicted == 0


def test_revocation_table_loses_nothing_that_several_threads_enter_while_others_purge_and_read() -> None:
    table = RevocationTable()
    numbers = random.Random(1)
    kept = [numbers.randbytes(16) for _ in range(4000)]
    others = [numbers.randbytes(16) for _ in range(500)]
    shares = [kept[n::4] for n in range(4)]
    tenants = [numbers.randbytes(16) for _ in range(80)]

    def write(share: list[bytes], some: list[bytes], seed: int) -> None:
        numbers = random.Random(seed)
        for start in range(0, len(share), 50):
            handles = share[start : start + 50]
            assert table.add_many(b"".join(entry(1, handle) for handle in handles), LATER) == len(handles)
            table.add_many(noise(numbers), NOW + 1)
            tenant = some[start // 50]
            table.add(entry(4, tenant, NOW * 1000), LATER)
            assert table.lookup(tenant=tenant, issued_at=NOW, now=NOW) == 4
            assert table.lookup(tenant=tenant, issued_at=NOW + 1, now=NOW) == 0
            table.discard_expired(NOW + 1)
            assert all(table.lookup(session=handle, now=NOW) == 1 for handle in share[: start + 50])
            assert not any(table.lookup(session=handle, token=handle, key=handle, now=NOW) for handle in others)

    def read() -> None:
        for _ in range(30):
            before = len(table)
            found = {one for one, expiry in table.entries() if expiry == LATER}
            assert found <= expected and before >= 0
            assert all(table.lookup(session=one[1:17], now=NOW) == 1 for one in found if one[0] == 1)

    expected = {entry(1, handle) for handle in kept} | {entry(4, tenant, NOW * 1000) for tenant in tenants}
    writers = [lambda n=n: write(shares[n], tenants[n * 20 : n * 20 + 20], n) for n in range(4)]
    together(*writers, read, read)

    table.discard_expired(NOW + 1)
    assert (len(table), set(table.entries())) == (len(expected), {(one, LATER) for one in expected})


if sysconfig.get_config_var("Py_GIL_DISABLED"):

    def test_importing_fastverify_leaves_the_gil_off() -> None:
        program = "import sys, fastverify; sys.exit(sys._is_gil_enabled())"
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
