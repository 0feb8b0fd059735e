"""The revocation table against a dictionary, and what it costs (revocation.md; performance.md P6)."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import ISSUER, claims, make_key, sign

from fastverify._core import RevocationTable, Verifier
from fastverify.errors import ConfigError, RevokedToken

SESSION, TOKEN, KEY, TENANT, ALL = 1, 2, 3, 4, 5
NOW = 1_700_000_000
LATER = NOW + 3600


def entry(kind: int, target: bytes = bytes(16), cutoff: int = 0) -> bytes:
    return bytes([kind]) + target + cutoff.to_bytes(8, "big")


def targets(count: int, seed: int = 1) -> list[bytes]:
    numbers = random.Random(seed)
    return [numbers.randbytes(16) for _ in range(count)]


def sessions(handles: list[bytes]) -> bytes:
    """Revocations of these sessions, packed."""
    return b"".join(entry(SESSION, handle) for handle in handles)


A, B, C = targets(3)
BY_KIND = {SESSION: "session", TOKEN: "token", KEY: "key", TENANT: "tenant"}


# What is refused.


def test_empty_table_refuses_nothing() -> None:
    table = RevocationTable()
    assert table.lookup(session=A, token=B, key=C, tenant=A, issued_at=0, now=NOW) == 0
    assert (len(table), table.epoch, list(table.entries())) == (0, 0, [])


@pytest.mark.parametrize("kind", [SESSION, TOKEN, KEY])
def test_entry_refuses_its_own_kind_and_target_until_it_expires(kind: int) -> None:
    table = RevocationTable()
    assert table.add(entry(kind, A), LATER)
    for other, name in BY_KIND.items():
        assert table.lookup(**{name: A}, now=NOW) == (kind if other == kind else 0)
        assert table.lookup(**{name: B}, now=NOW) == 0
    assert table.lookup(**{BY_KIND[kind]: A}, now=LATER - 1) == kind
    assert table.lookup(**{BY_KIND[kind]: A}, now=LATER) == 0


@pytest.mark.parametrize(("kind", "arguments"), [(TENANT, {"tenant": A}), (ALL, {})])
def test_cutoff_refuses_tokens_issued_in_its_second_or_before(kind: int, arguments: dict[str, bytes]) -> None:
    table = RevocationTable()
    table.add(entry(kind, A if kind == TENANT else bytes(16), (NOW * 1000) + 999), LATER)
    assert table.lookup(**arguments, issued_at=NOW, now=NOW) == kind
    assert table.lookup(**arguments, issued_at=NOW - 1, now=NOW) == kind
    assert table.lookup(**arguments, issued_at=NOW + 1, now=NOW) == 0
    assert table.lookup(**arguments, issued_at=NOW, now=LATER) == 0


def test_cutoff_of_one_tenant_leaves_another_and_tokens_of_none() -> None:
    table = RevocationTable()
    table.add(entry(TENANT, A, NOW * 1000), LATER)
    assert table.lookup(tenant=B, issued_at=0, now=NOW) == 0
    assert table.lookup(session=A, token=A, key=A, issued_at=0, now=NOW) == 0


@pytest.mark.parametrize("kind", [TENANT, ALL])
def test_token_without_iat_is_older_than_any_cutoff(kind: int) -> None:
    table = RevocationTable()
    table.add(entry(kind, A if kind == TENANT else bytes(16), 0), LATER)
    assert table.lookup(tenant=A, now=NOW) == kind
    assert table.lookup(tenant=A, issued_at=1, now=NOW) == 0


def test_later_of_two_cutoffs_counts_until_it_expires_and_then_the_earlier() -> None:
    table = RevocationTable()
    table.add(entry(TENANT, A, (NOW + 100) * 1000), NOW + 50)
    table.add(entry(TENANT, A, NOW * 1000), LATER)
    assert table.lookup(tenant=A, issued_at=NOW + 100, now=NOW) == TENANT
    assert table.lookup(tenant=A, issued_at=NOW + 100, now=NOW + 50) == 0
    assert table.lookup(tenant=A, issued_at=NOW, now=NOW + 50) == TENANT


def test_cutoff_at_the_end_of_time_refuses_everything() -> None:
    table = RevocationTable()
    table.add(entry(ALL, cutoff=2**64 - 1), LATER)
    assert table.lookup(issued_at=2**53 - 1, now=NOW) == ALL


# Bookkeeping.


def test_adding_twice_is_adding_once_with_the_later_expiry() -> None:
    for one in (entry(SESSION, A), entry(TENANT, A, 5000)):
        table = RevocationTable()
        assert [table.add(one, LATER), table.add(one, LATER), table.add(one, NOW + 1)] == [True, False, False]
        assert not table.add(one, LATER + 5)
        assert list(table.entries()) == [(one, LATER + 5)]
        assert len(table) == 1


def test_epoch_rises_with_every_entry_that_changes_an_answer_and_with_no_other() -> None:
    table = RevocationTable()
    steps = [(SESSION, NOW), (SESSION, NOW), (SESSION, LATER), (TENANT, NOW), (TENANT, NOW)]
    epochs = [table.epoch]
    for kind, expires_at in steps:
        table.add(entry(kind, A), expires_at)
        epochs.append(table.epoch)
    assert [after - before for before, after in pairwise(epochs)] == [1, 0, 1, 1, 0]
    assert table.add_many(entry(SESSION, A) + entry(SESSION, B) + entry(SESSION, C), LATER) == 2
    assert table.epoch == epochs[-1] + 2


def test_discarding_forgets_what_has_expired_and_nothing_else() -> None:
    table = RevocationTable()
    handles = targets(5000)
    for number, handle in enumerate(handles):
        table.add(entry(SESSION, handle), NOW + number)
    table.add(entry(TENANT, A, 1), NOW + 7)
    table.add(entry(ALL), NOW + 7)
    assert table.discard_expired(NOW - 1) == 0
    assert table.discard_expired(NOW + 999) == 1002
    assert len(table) == 4000
    assert sorted(table.entries()) == sorted((entry(SESSION, h), NOW + n) for n, h in enumerate(handles) if n > 999)
    assert table.discard_expired(NOW + 5000) == 4000
    assert (len(table), list(table.entries())) == (0, [])
    assert table.add(entry(SESSION, A), LATER), "an empty table fills again"


def test_discarding_gives_memory_back() -> None:
    table = RevocationTable()
    empty = sys.getsizeof(table)
    table.add_many(sessions(targets(20_000)), NOW)
    assert sys.getsizeof(table) > 400_000
    table.discard_expired(NOW)
    assert sys.getsizeof(table) == empty


def test_many_entries_are_all_found_and_no_others() -> None:
    table = RevocationTable()
    handles = targets(100_000)
    assert table.add_many(sessions(handles), LATER) == len(handles)
    assert all(table.lookup(session=handle, now=NOW) == SESSION for handle in handles)
    assert not any(table.lookup(token=handle, now=NOW) for handle in handles)
    assert not any(table.lookup(session=handle, now=NOW) for handle in targets(100_000, seed=2))
    assert {e for e, _ in table.entries()} == {entry(SESSION, handle) for handle in handles}


@pytest.mark.parametrize("at_once", [1, 5000])
def test_entry_costs_at_most_36_bytes_from_ten_thousand_on(at_once: int) -> None:
    table = RevocationTable()
    empty = sys.getsizeof(table)
    handles = targets(60_000)
    for start in range(0, len(handles), at_once):
        table.add_many(sessions(handles[start : start + at_once]), LATER)
        if len(table) >= 10_000:  # below, the first page shows
            assert (sys.getsizeof(table) - empty) / len(table) <= 36


def test_what_is_left_after_discarding_costs_at_most_36_bytes_each() -> None:
    table = RevocationTable()
    empty = sys.getsizeof(table)
    table.add_many(sessions(targets(70_000)), NOW)
    table.add_many(sessions(targets(20_000, seed=2)), LATER)
    assert table.discard_expired(NOW) == 70_000
    assert (sys.getsizeof(table) - empty) / len(table) <= 36


def test_every_entry_is_found_at_every_size() -> None:
    table = RevocationTable()
    handles = targets(40_000)
    others = iter(targets(40_000, seed=2))
    numbers = random.Random(3)
    for size, handle in enumerate(handles, 1):
        assert table.add(entry(SESSION, handle), LATER)
        assert len(table) == size
        for there in (handle, handles[0], handles[numbers.randrange(size)], handles[numbers.randrange(size)]):
            assert table.lookup(session=there, now=NOW) == SESSION
        assert table.lookup(session=next(others), now=NOW) == 0
    assert all(table.lookup(session=handle, now=NOW) == SESSION for handle in handles)


@pytest.mark.parametrize("seed", range(4))
def test_large_table_does_what_a_dictionary_does(seed: int) -> None:
    """As below, with so many entries that growing and forgetting take many steps, one in the midst of another."""
    numbers = random.Random(seed)
    table, model = RevocationTable(), dict[bytes, int]()
    for _ in range(40):
        expiry = NOW + numbers.randrange(1, 50)
        known = numbers.sample(sorted(model), min(len(model), numbers.choice([0, 1, 100])))
        one = entry(numbers.choice([TENANT, SESSION]), numbers.randbytes(16))
        new = [entry(SESSION, numbers.randbytes(16)) for _ in range(numbers.choice([0, 1, 10, 3000, 9000]))]
        assert table.add_many(b"".join(known + new), expiry) == len(new)
        assert table.add(one, expiry)
        for name in (*known, *new, one):
            model[name] = max(model.get(name, 0), expiry)
        if numbers.random() < 0.3:
            now = NOW + numbers.randrange(1, 50)
            gone = [name for name, until in model.items() if until <= now]
            assert table.discard_expired(now) == len(gone)
            for name in gone:
                del model[name]
        assert len(table) == len(model)
        for name in numbers.sample(sorted(model), min(len(model), 200)):
            assert table.lookup(**{BY_KIND[name[0]]: name[1:17]}, issued_at=0, now=NOW) == name[0]
    found = list(table.entries())
    assert len(found) == len(model)
    assert dict(found) == model


def test_entries_come_once_each_while_the_table_moves_under_the_iterator() -> None:
    table = RevocationTable()
    kept = targets(20_000)
    table.add_many(sessions(kept), LATER)
    iterator = table.entries()
    seen = [next(iterator)[0]]
    for seed in range(2, 12):
        table.add_many(sessions(targets(5000, seed)), NOW)  # grows
        seen += [next(iterator)[0] for _ in range(500)]
        table.discard_expired(NOW)  # shrinks
        seen += [next(iterator)[0] for _ in range(500)]
    seen += [one for one, _ in iterator]
    assert len(seen) == len(set(seen))
    assert set(seen) >= {entry(SESSION, handle) for handle in kept}


def test_targets_that_differ_in_one_bit_do_not_meet() -> None:
    table = RevocationTable()
    for bit in range(128):
        table.add(entry(SESSION, (1 << bit).to_bytes(16, "big")), LATER)
    assert table.lookup(session=bytes(16), now=NOW) == 0
    for bit in range(128):
        assert table.lookup(session=(1 << bit).to_bytes(16, "big"), now=NOW) == SESSION
        assert table.lookup(session=(3 << bit & 2**128 - 1 | 2**127 | 1).to_bytes(16, "big"), now=NOW) == 0


SMALL = st.integers(0, 5)  # few targets and few instants, so that steps meet
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(SESSION, ALL), SMALL, SMALL, SMALL),
    st.tuples(st.just("discard"), SMALL),
    st.tuples(st.just("lookup"), st.tuples(SMALL, SMALL, SMALL, SMALL), st.integers(-1, 5), SMALL),
)


def small_entry(kind: int, target: int, cutoff: int = 0) -> bytes:
    return entry(kind, bytes([0 if kind == ALL else target]) * 16, cutoff * 1000 if kind >= TENANT else 0)


def model_lookup(live: list[bytes], asked: tuple[int, ...], issued_at: int) -> int:
    """The specification, word for word: the first kind of live entry that concerns the token."""
    for kind, target in zip((SESSION, TOKEN, KEY), asked, strict=False):
        if small_entry(kind, target) in live:
            return kind
    for kind in (TENANT, ALL):
        prefix = small_entry(kind, asked[3])[:17]
        if any(e[:17] == prefix and issued_at <= int.from_bytes(e[17:], "big") // 1000 for e in live):
            return kind
    return 0


@given(st.lists(STEPS, max_size=60))
def test_table_does_what_a_dictionary_does(steps: list[tuple[Any, ...]]) -> None:
    table, model = RevocationTable(), dict[bytes, int]()
    for step in steps:
        match step:
            case ("add", kind, target, cutoff, expiry):
                one = small_entry(kind, target, cutoff)
                assert table.add(one, NOW + expiry) == (one not in model)
                model[one] = max(model.get(one, 0), NOW + expiry)
            case ("discard", now):
                gone = [one for one, expiry in model.items() if expiry <= NOW + now]
                assert table.discard_expired(NOW + now) == len(gone)
                for one in gone:
                    del model[one]
            case ("lookup", asked, issued_at, now):
                live = [one for one, expiry in model.items() if expiry > NOW + now]
                named = dict(zip(BY_KIND.values(), (bytes([target]) * 16 for target in asked), strict=True))
                found = table.lookup(**named, issued_at=issued_at, now=NOW + now)
                assert found == model_lookup(live, asked, issued_at)
        assert sorted(table.entries()) == sorted(model.items())
        assert len(table) == len(model)


# What is no entry.


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        entry(SESSION, A)[:-1],
        entry(SESSION, A) + b"\0",
        entry(0, A),
        entry(6, A),
        entry(255, A),
        entry(SESSION, A, 1),
        entry(KEY, A, 2**63),
        entry(ALL, A),
    ],
)  # fmt: skip
def test_bytes_that_are_no_entry_are_refused_and_nothing_is_entered(bad: bytes) -> None:
    table = RevocationTable()
    with pytest.raises(ValueError, match=r"entry|revocation|cutoff"):
        table.add(bad, LATER)
    if bad:
        with pytest.raises(ValueError, match=r"entry|revocation|cutoff"):
            table.add_many(entry(SESSION, B) + bad, LATER)
    assert len(table) == 0


def test_one_bad_entry_after_many_good_ones_leaves_the_table_as_it_was() -> None:
    table = RevocationTable()
    with pytest.raises(ValueError, match="no revocation of kind 9"):
        table.add_many(sessions(targets(50_000)) + entry(9, A), LATER)
    assert (len(table), table.epoch, list(table.entries())) == (0, 0, [])


def test_two_entries_are_not_one() -> None:
    with pytest.raises(ValueError, match="25 bytes"):
        RevocationTable().add(entry(SESSION, A) * 2, LATER)


@pytest.mark.parametrize("instant", [0, -1, 2**32 - 1, 2**64])
def test_instant_outside_32_bits_is_refused(instant: int) -> None:
    table = RevocationTable()
    with pytest.raises(ValueError, match="1970"):
        table.add(entry(SESSION, A), instant)
    with pytest.raises(ValueError, match="1970"):
        table.discard_expired(instant)
    with pytest.raises(ValueError, match="1970"):
        table.lookup(now=instant)


@pytest.mark.parametrize("name", ["session", "token", "key", "tenant"])
def test_target_of_another_length_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        RevocationTable().lookup(**{name: bytes(15)}, now=NOW)  # type: ignore[arg-type]


def test_no_entries_at_all_may_be_added_at_once() -> None:
    assert RevocationTable().add_many(b"", LATER) == 0


# Staleness is only kept here; a verifier acts on it.


def test_table_is_fresh_for_ever_until_its_follower_says_otherwise() -> None:
    table = RevocationTable()
    assert table.fresh_until == float("inf")
    table.fresh_until = 12.5
    assert table.fresh_until == 12.5
    assert (table.when_stale, table.stale_served) == ("refuse", 0)
    assert RevocationTable(when_stale="allow").when_stale == "allow"
    with pytest.raises(ConfigError):
        RevocationTable(when_stale="perhaps")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["epoch", "stale_served", "when_stale"])
def test_counters_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(RevocationTable(), name, 1)


# Threads, forks, memory.


def at_once(writers: list[Callable[[], object]], readers: list[Callable[[], object]]) -> None:
    """Let each writer do its work in a thread; readers, in theirs, do the same over and over until all of it is done.

    What one of them raises ends the others and is raised here.
    """
    unfinished = len(writers)
    failures: list[BaseException] = []

    def write(work: Callable[[], object]) -> None:
        nonlocal unfinished
        try:
            work()
        except BaseException as failure:
            failures.append(failure)
        with counting:
            unfinished -= 1

    def read(work: Callable[[], object]) -> None:
        try:
            while unfinished and not failures:
                work()
        except BaseException as failure:
            failures.append(failure)

    counting = threading.Lock()
    threads = [threading.Thread(target=read, args=(work,)) for work in readers]
    threads += [threading.Thread(target=write, args=(work,)) for work in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def freed_memory_is_garbage() -> Iterator[None]:
    """Where the C library is able to see to that."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-6, 0x5A)  # M_PERTURB
    yield
    if mallopt:
        mallopt(-6, 0)


@pytest.mark.usefixtures("freed_memory_is_garbage")
def test_readers_find_every_entry_that_was_there_and_no_other_while_others_add_and_discard() -> None:
    """Writers at work without the GIL, on builds that have one; everything at once on those that have none."""
    table = RevocationTable()
    kept, never = targets(2000), targets(2000, seed=1000)
    for start in range(0, len(kept), 2):
        table.add(entry(SESSION, kept[start]), LATER)
        table.add(entry(KEY, kept[start + 1]), LATER)
    # So many that reading them takes longer than to free them would.
    table.add_many(b"".join(entry(TENANT, A, cutoff) for cutoff in range(4000)), LATER - 1)
    table.add(entry(TENANT, A, NOW * 1000), LATER)
    lasting = {one for one, _ in table.entries()}
    added: list[int] = []
    discarded: list[int] = []

    def look_up() -> None:
        for start in range(0, len(kept), 2):
            assert table.lookup(session=kept[start], now=NOW) == SESSION
            assert table.lookup(key=kept[start + 1], now=NOW) == KEY
            assert table.lookup(token=kept[start], key=never[start], session=never[start + 1], now=NOW) == 0
            assert table.lookup(tenant=A, issued_at=NOW, now=LATER - 1) == TENANT
            assert table.lookup(tenant=B, issued_at=NOW, now=NOW) == 0

    def list_all() -> None:
        found = [one for one, _ in table.entries()]
        assert len(found) == len(set(found))
        assert lasting <= set(found)
        assert sys.getsizeof(table) > 0

    def add_many() -> None:
        for seed in range(2, 32):
            tenants = [entry(TENANT, tenant) for tenant in targets(20, seed + 100)]
            added.append(table.add_many(b"".join([sessions(targets(4000, seed)), *tenants]), NOW + seed))

    def add_one_by_one() -> None:
        for number, handle in enumerate(targets(20_000, seed=200)):
            added.append(table.add(entry(SESSION, handle), NOW + number % 40))
            if number % 100 == 0:
                added.append(table.add(entry(TENANT, handle, 1000), NOW + number % 40))

    def discard() -> None:
        for seed in range(2, 32):
            discarded.append(table.discard_expired(NOW + seed))

    at_once(writers=[add_many, add_one_by_one, discard], readers=[look_up, look_up, list_all])
    discarded.append(table.discard_expired(NOW + 100))
    assert {one for one, _ in table.entries()} == lasting
    assert (len(table), sum(added)) == (len(lasting), sum(discarded))


def test_cached_token_is_refused_as_soon_as_its_revocation_has_been_entered() -> None:
    key = make_key("HS256")
    table = RevocationTable()
    verifier = Verifier([key.verifying], issuer=ISSUER, revocations=table)
    handles = targets(300)
    *tokens, never_revoked = [
        sign(None, claims(sessionHandle=handle_text(handle), iat=NOW, exp=LATER), key)
        for handle in (*handles, *targets(1, seed=1000))
    ]
    entered: list[str] = []

    def verify() -> None:
        for token in [*entered[:1], *entered[-1:]]:
            with pytest.raises(RevokedToken):
                verifier.verify(token, now=NOW)
        verifier.verify(never_revoked, now=NOW)

    def revoke() -> None:
        for number, handle in enumerate(handles):
            table.add_many(sessions([handle, *targets(300, seed=2 + number)]), LATER)
            entered.append(tokens[number])

    for token in (*tokens, never_revoked):
        verifier.verify(token, now=NOW)
    at_once(writers=[revoke], readers=[verify])


def handle_text(handle: bytes) -> str:
    text = handle.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def test_two_who_discard_at_once_count_each_entry_once() -> None:
    table = RevocationTable()
    counts: list[int] = []
    for seed in range(1, 11):
        table.add_many(sessions(targets(10_000, seed)), NOW + seed % 2)
        discards = [lambda instant=instant: counts.append(table.discard_expired(instant)) for instant in (NOW, NOW + 1)]
        at_once(writers=discards, readers=[])
    counts.append(table.discard_expired(NOW + 1))
    assert (sum(counts), len(table)) == (100_000, 0)


@pytest.mark.parametrize("call", ["add_many", "discard_expired"])
def test_others_see_a_long_call_half_done_and_so_do_not_wait_for_its_end(call: str) -> None:
    packed = sessions(targets(200_000))

    def is_seen_half_done() -> bool:
        table = RevocationTable()
        sizes: set[int] = set()
        if call == "discard_expired":
            table.add_many(packed, NOW)
        work = {"add_many": lambda: table.add_many(packed, NOW), "discard_expired": lambda: table.discard_expired(NOW)}
        at_once(writers=[work[call]], readers=[lambda: sizes.add(len(table))])
        return bool(sizes - {0, 200_000})

    # Once is nearly always enough, but a busy machine may let the reader sleep for that long.
    assert any(is_seen_half_done() for _ in range(50))


def test_layout_differs_from_table_to_table_so_that_collisions_cannot_be_prepared() -> None:
    orders = set()
    for _ in range(3):
        table = RevocationTable()
        table.add_many(sessions(targets(50)), LATER)
        orders.add(tuple(table.entries()))
    assert len(orders) == 3


def test_table_serves_in_a_forked_child() -> None:
    program = (
        "import os\n"
        "from fastverify._core import RevocationTable\n"
        "table = RevocationTable(); one = bytes([1]) + b'x' * 16 + bytes(8)\n"
        "table.add(one, 2000)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    table.add(bytes([2]) + b'x' * 16 + bytes(8), 2000)\n"
        "    os._exit(0 if table.lookup(session=b'x' * 16, now=1) == 1 and len(table) == 2 else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0 and len(table) == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_child_that_is_forked_while_another_thread_writes_has_a_whole_table() -> None:
    program = """
import os, signal, threading
from fastverify._core import RevocationTable

table, done = RevocationTable(), False
kept = os.urandom(16)
table.add(bytes([1]) + kept + bytes(8), 3000)

def write():
    while not done:
        raw = os.urandom(16 * 2000)
        table.add_many(b"".join(bytes([1]) + raw[at : at + 16] + bytes(8) for at in range(0, len(raw), 16)), 2000)
        table.discard_expired(2000)

writer = threading.Thread(target=write)
writer.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for a thread that it does not have dies of it
        sound = len(table) == len(set(table.entries())) and table.lookup(session=kept, now=1) == 1
        new = bytes([2]) + kept + bytes(8)
        sound = sound and table.add(new, 3000) and table.lookup(token=kept, now=1) == 2
        table.discard_expired(2000)
        os._exit(0 if sound and len(table) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
done = True
writer.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_growing_discarding_and_dropping_tables_leaves_no_memory_behind() -> None:
    program = """
import os, resource
from fastverify._core import RevocationTable

def mapped():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def packed(count):
    entries = bytearray(25 * count)
    entries[0::25] = bytes([1]) * count
    for byte in range(1, 17):
        entries[byte::25] = os.urandom(count)
    return bytes(entries)

def live(first, last, *others):
    table = RevocationTable()
    table.add_many(first, 2000)
    for other in others:
        table.add_many(other, 1000)
        table.add_many(bytes([4]) + other[1:17] + bytes(8), 1000)
        table.discard_expired(1000)
    table.add_many(last, 2000)

# All that is large is made beforehand, so that only tables take memory and give it back.
lives = [
    [packed(size), packed(size * 7 // 10), *(packed(size) for _ in range(3))]
    for size in (10, 1000, 30_000, 200_000, 260_000)
]
for entries in lives:
    live(*entries)
before = mapped()
for entries in lives * 3:
    live(*entries)
assert mapped() - before < 1 << 16, mapped() - before
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_table_that_finds_no_memory_says_so_and_keeps_what_it_has() -> None:
    program = """
import os, resource
from fastverify._core import RevocationTable

def entries(count):
    raw = os.urandom(16 * count)
    return [bytes([1]) + raw[at : at + 16] + bytes(8) for at in range(0, len(raw), 16)]

table = RevocationTable()
first, more = entries(400_000), entries(400_000)
packed = b"".join(more)
assert table.add_many(b"".join(first), 2000) == len(first)
with open("/proc/self/statm") as file:
    mapped = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 20), resource.RLIM_INFINITY))
try:
    table.add_many(packed, 3000)
except MemoryError:
    pass
else:
    raise SystemExit("there was memory enough")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
entered = len(table) - len(first)
assert 0 < entered < len(more) and table.epoch == len(table)
known = [table.lookup(session=one[1:17], now=1) for one in first + more]
assert known == [1] * len(table) + [0] * (len(more) - entered)
assert table.add_many(packed, 3000) == len(more) - entered
assert table.discard_expired(2000) == len(first) and len(table) == len(more)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
