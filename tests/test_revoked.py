"""The revocation table against a dictionary, and what it costs (revocation.md; performance.md P6)."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastverify._core import RevocationTable
from fastverify.errors import ConfigError

SESSION, TOKEN, KEY, TENANT, ALL = 1, 2, 3, 4, 5
NOW = 1_700_000_000
LATER = NOW + 3600


def entry(kind: int, target: bytes = bytes(16), cutoff: int = 0) -> bytes:
    return bytes([kind]) + target + cutoff.to_bytes(8, "big")


def targets(count: int, seed: int = 1) -> list[bytes]:
    numbers = random.Random(seed)
    return [numbers.randbytes(16) for _ in range(count)]


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
    table.add_many(b"".join(entry(SESSION, handle) for handle in targets(20_000)), NOW)
    assert sys.getsizeof(table) > 400_000
    table.discard_expired(NOW)
    assert sys.getsizeof(table) == empty


def test_many_entries_are_all_found_and_no_others() -> None:
    table = RevocationTable()
    handles = targets(100_000)
    packed = b"".join(entry(SESSION, handle) for handle in handles)
    assert table.add_many(packed, LATER) == len(handles)
    assert all(table.lookup(session=handle, now=NOW) == SESSION for handle in handles)
    assert not any(table.lookup(token=handle, now=NOW) for handle in handles)
    assert not any(table.lookup(session=handle, now=NOW) for handle in targets(100_000, seed=2))
    assert {e for e, _ in table.entries()} == {entry(SESSION, handle) for handle in handles}


def test_entry_costs_at_most_36_bytes_from_sixty_thousand_on() -> None:
    table = RevocationTable()
    empty = sys.getsizeof(table)
    handles = targets(120_000)
    for start in range(0, len(handles), 5000):
        table.add_many(b"".join(entry(SESSION, handle) for handle in handles[start : start + 5000]), LATER)
        if len(table) >= 60_000:  # below, the 256 segments' rounding shows
            assert (sys.getsizeof(table) - empty) / len(table) <= 36


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


# Threads and forks.


def test_readers_find_every_entry_that_was_there_while_others_add_and_discard() -> None:
    table = RevocationTable()
    kept = targets(2000)
    table.add_many(b"".join(entry(SESSION, handle) for handle in kept), LATER)
    done = threading.Event()
    missed: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            missed.extend(handle for handle in kept if table.lookup(session=handle, now=NOW) != SESSION)
            if len({e for e, _ in table.entries()} & {entry(SESSION, handle) for handle in kept}) != len(kept):
                missed.append(b"entries")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for seed in range(2, 40):
        table.add_many(b"".join(entry(SESSION, handle) for handle in targets(2000, seed)), NOW + seed)
        if seed % 5 == 0:
            table.discard_expired(NOW + seed)
    done.set()
    for reader in readers:
        reader.join()
    assert missed == []


def test_layout_differs_from_table_to_table_so_that_collisions_cannot_be_prepared() -> None:
    orders = set()
    for _ in range(3):
        table = RevocationTable()
        table.add_many(b"".join(entry(SESSION, handle) for handle in targets(50)), LATER)
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
