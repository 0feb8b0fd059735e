"""The cache of verified tokens (rows A15, A16): what gets in, what a hit reads again, and its bounds."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import uuid
import weakref
from typing import Any

import pytest
from signing import ISSUER, NOW, base64url, claims, header, make_key, sign

from fastverify import errors
from fastverify._core import Claims, RevocationTable, Verifier

KEY = make_key("HS256")
HANDLE = uuid.UUID("0b9a2f7e-41c3-4d58-8e6f-9a1b2c3d4e5f")
LATER = NOW + 10_000


def make(**options: Any) -> Verifier:
    return Verifier([KEY.verifying], **{"issuer": ISSUER} | options)


def tokens(count: int, **changes: Any) -> list[str]:
    return [sign(None, claims(jti=str(number), **changes), KEY) for number in range(count)]


def entry(kind: int, target: bytes = bytes(16), cutoff: int = 0) -> bytes:
    return bytes((kind,)) + target + cutoff.to_bytes(8, "big")


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


# --- what is a hit ---


def test_the_second_time_is_a_hit_and_gives_the_same_object() -> None:
    verifier, (token,) = make(), tokens(1)
    first = verifier.verify(token, now=NOW)
    again = [verifier.verify((token + "x")[:-1], now=NOW), verifier.verify(token.encode(), now=NOW)]
    assert all(claims_ is first for claims_ in again)
    assert verifier.cache_info()[:3] == (2, 1, 1)


def test_the_whole_token_is_compared() -> None:
    """Row A15: all of these share the characters by which the place in the cache is found."""
    verifier, (token,) = make(), tokens(1)
    verifier.verify(token, now=NOW)
    for position in range(len(token) - 16):
        if token[position] != ".":
            other = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
            with pytest.raises(errors.InvalidToken):
                verifier.verify(other, now=NOW)
    with pytest.raises(errors.InvalidToken):
        verifier.verify(token[-20:], now=NOW)
    assert verifier.cache_info()[:3] == (0, 1 + len(token) - 16 - 2 + 1, 1)


def test_two_valid_tokens_never_answer_for_each_other() -> None:
    verifier = make()
    pair = sign(None, claims(sub="a"), KEY), sign(None, claims(sub="b"), KEY)
    for _ in range(3):
        assert [verifier.verify(token, now=NOW).subject for token in pair] == ["a", "b"]
    first, second = (token.split(".") for token in pair)
    for spliced in ([*first[:2], second[2]], [first[0], second[1], first[2]]):
        with pytest.raises(errors.InvalidSignature):
            verifier.verify(".".join(spliced), now=NOW)


def test_refused_tokens_are_not_remembered() -> None:
    verifier, (token,) = make(), tokens(1)
    bad = [
        token[:-4] + "AAAA",
        sign(None, claims(iss="other"), KEY),
        sign(None, claims(exp=NOW), KEY),
        sign(None, claims(nbf=NOW + 60), KEY),
        sign(header(KEY, typ="x"), None, KEY),
        sign(None, b"{", KEY),
    ]
    for refused in bad * 2:
        with pytest.raises(errors.InvalidToken):
            verifier.verify(refused, now=NOW)
    assert verifier.cache_info()[:3] == (0, len(bad) * 2, 0)
    assert verifier.verify(token, now=NOW)  # the same header and payload as the first one


def test_a_verifier_without_a_cache_verifies_anew_each_time() -> None:
    verifier, (token,) = make(cache_size=0), tokens(1)
    assert verifier.verify(token, now=NOW) is not verifier.verify(token, now=NOW)
    assert verifier.cache_info() == (0, 2, 0, 0, 0)
    verifier.cache_clear()


def test_verifiers_share_nothing() -> None:
    token = sign(None, claims(iss=None) | {"iss": ISSUER}, KEY)
    make().verify(token, now=NOW)
    with pytest.raises(errors.InvalidClaim):
        make(issuer="https://other.example").verify(token, now=NOW)


# --- what a hit reads again ---


def test_exp_is_read_again() -> None:
    verifier, (token,) = make(), tokens(1)
    kept = verifier.verify(token, now=NOW)
    assert verifier.verify(token, now=NOW + 3599.999) is kept
    for _ in range(2):
        with pytest.raises(errors.ExpiredToken):
            verifier.verify(token, now=NOW + 3600)
    assert verifier.verify(token, now=NOW) is kept


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_nbf_and_iat_are_read_again_should_the_clock_step_back(name: str) -> None:
    verifier = make()
    token = sign(None, {"iss": ISSUER, "exp": LATER, name: NOW}, KEY)
    verifier.verify(token, now=NOW)
    with pytest.raises(errors.ImmatureToken):
        verifier.verify(token, now=NOW - 6)


def test_the_clock_is_read_at_every_call() -> None:
    verifier = make()
    token = sign(None, {"iss": ISSUER, "exp": int(time.time()) + 2}, KEY)
    kept = verifier.verify(token)
    assert verifier.verify(token) is kept
    deadline = time.monotonic() + 10
    with pytest.raises(errors.ExpiredToken):
        while time.monotonic() < deadline:
            verifier.verify(token)
            time.sleep(0.02)


def test_leeway_counts_for_hits() -> None:
    verifier, (token,) = make(leeway=10), tokens(1)
    verifier.verify(token, now=NOW)
    assert verifier.verify(token, now=NOW + 3609)
    with pytest.raises(errors.ExpiredToken):
        verifier.verify(token, now=NOW + 3610)


def revocations() -> list[tuple[str, bytes]]:
    kid, tenant = digest(KEY.kid.encode()), digest(b"acme")
    return [
        ("session", entry(1, HANDLE.bytes)),
        ("token", entry(2, digest(session_token().rpartition(".")[0].encode()))),
        ("key", entry(3, kid)),
        ("tenant", entry(4, tenant, NOW * 1000)),
        ("tenant", entry(4, tenant, NOW * 1000 + 999)),
        ("all", entry(5, cutoff=NOW * 1000)),
    ]


def others() -> list[bytes]:
    """Entries that are about somebody else."""
    return [
        entry(1, uuid.uuid4().bytes),
        entry(2, digest(b"another token")),
        entry(3, digest(b"another kid")),
        entry(4, digest(b"public"), LATER * 1000),
        entry(4, digest(b"acme"), NOW * 1000 - 1),
        entry(5, cutoff=NOW * 1000 - 1),
    ]


def session_token(handle: str = f"{HANDLE}_acme") -> str:
    return sign(None, claims(sessionHandle=handle, tId="acme"), KEY)


@pytest.mark.parametrize(("kind", "revocation"), revocations())
def test_a_revocation_counts_for_new_tokens_and_for_hits(kind: str, revocation: bytes) -> None:
    table = RevocationTable()
    verifier = make(revocations=table)
    kept = verifier.verify(session_token(), now=NOW)
    for other in others():
        table.add(other, LATER)
        assert verifier.verify(session_token(), now=NOW) is kept
    table.add(revocation, LATER)
    for _ in range(2):
        with pytest.raises(errors.RevokedToken) as caught:
            verifier.verify(session_token(), now=NOW)
        assert (caught.value.kind, caught.value.reason) == (kind, f"revoked_{kind}")
    verifier.cache_clear()
    with pytest.raises(errors.RevokedToken):
        verifier.verify(session_token(), now=NOW)
    assert verifier.cache_info().size == 0


@pytest.mark.parametrize("now", [LATER, LATER + 1])
def test_an_entry_that_has_expired_refuses_nothing(now: int) -> None:
    table = RevocationTable()
    table.add(entry(1, HANDLE.bytes), LATER)
    token = sign(None, claims(sessionHandle=str(HANDLE), exp=LATER + 100), KEY)
    assert make(revocations=table).verify(token, now=now)
    with pytest.raises(errors.RevokedToken):
        make(revocations=table).verify(token, now=LATER - 1)


@pytest.mark.parametrize(
    "handle", [str(HANDLE), f"{HANDLE}_", f"{HANDLE}_acme", f"{HANDLE}_\u00e9", str(HANDLE).upper()]
)
def test_a_session_is_known_by_the_uuid_its_handle_begins_with(handle: str) -> None:
    table = RevocationTable()
    table.add(entry(1, HANDLE.bytes), LATER)
    with pytest.raises(errors.RevokedToken):
        make(revocations=table).verify(session_token(handle), now=NOW)


def test_a_handle_and_a_tenant_spelt_with_escapes_are_known_too() -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in str(HANDLE))
    payload = f'{{"iss":"{ISSUER}","exp":{LATER},"iat":{NOW},"sessionHandle":"{escaped}","tId":"\\u0061cme"}}'
    for revocation in (entry(1, HANDLE.bytes), entry(4, digest(b"acme"), LATER * 1000)):
        table = RevocationTable()
        table.add(revocation, LATER)
        with pytest.raises(errors.RevokedToken):
            make(revocations=table).verify(sign(None, payload.encode(), KEY), now=NOW)


@pytest.mark.parametrize(
    "handle",
    ["", "x", str(HANDLE)[:-1], str(HANDLE) + "x", HANDLE.hex, str(HANDLE).replace("-", "_"), "{" + str(HANDLE)],
)
def test_what_is_no_handle_is_no_session(handle: str) -> None:
    table = RevocationTable()
    table.add(entry(1, HANDLE.bytes), LATER)
    assert make(revocations=table).verify(session_token(handle), now=NOW)


@pytest.mark.parametrize("name", ["sessionHandle", "tId"])
@pytest.mark.parametrize("value", [None, 1, [], {}, True])
def test_a_malformed_handle_or_tenant_is_refused_where_it_could_hide_a_revocation(name: str, value: object) -> None:
    token = sign(None, claims(**{name: value}), KEY)
    with pytest.raises(errors.InvalidClaim) as caught:
        make(revocations=RevocationTable()).verify(token, now=NOW)
    assert caught.value.claim == name
    assert make().verify(token, now=NOW)


def test_a_token_without_iat_is_older_than_every_cut() -> None:
    table = RevocationTable()
    table.add(entry(5, cutoff=1000), LATER)
    with pytest.raises(errors.RevokedToken):
        make(revocations=table).verify(sign(None, {"iss": ISSUER, "exp": LATER}, KEY), now=NOW)


def test_a_token_of_a_key_without_kid_is_known_by_no_kid() -> None:
    table = RevocationTable()
    table.add(entry(3, digest(b"")), LATER)
    table.add(entry(3, bytes(16)), LATER)
    nameless = type(KEY.verifying).hmac("HS256", None, KEY.private)
    token = sign({"alg": "HS256", "typ": "JWT"}, None, KEY)
    assert Verifier([nameless], issuer=ISSUER, revocations=table).verify(token, now=NOW)


def test_staleness_is_read_at_every_call() -> None:
    table = RevocationTable()
    verifier = make(revocations=table)
    one, two = tokens(2)
    kept = verifier.verify(one, now=NOW)
    table.fresh_until = time.monotonic() + 1000
    assert verifier.verify(one, now=NOW) is kept
    table.fresh_until = time.monotonic() - 0.1
    for token in (one, two):
        with pytest.raises(errors.StoreUnavailable):
            verifier.verify(token, now=NOW)
    with pytest.raises(errors.StoreUnavailable):
        verifier.verify_many([one], now=NOW)
    # What is wrong with the token itself is known without the store.
    with pytest.raises(errors.ExpiredToken):
        verifier.verify(one, now=LATER)
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(one[:-4] + "AAAA", now=NOW)
    table.fresh_until = float("nan")
    with pytest.raises(errors.StoreUnavailable):
        verifier.verify(one, now=NOW)
    table.fresh_until = float("inf")
    assert verifier.verify(one, now=NOW) is kept


def test_stale_revocations_may_be_allowed_and_are_counted() -> None:
    table = RevocationTable(when_stale="allow")
    verifier = make(revocations=table)
    table.fresh_until = time.monotonic() - 0.1
    one, two = tokens(2)
    for token in (one, two, one):
        assert verifier.verify(token, now=NOW)
    assert table.stale_served == 3
    table.add(entry(1, HANDLE.bytes), LATER)
    with pytest.raises(errors.RevokedToken):
        verifier.verify(session_token(), now=NOW)


# --- keys ---


def test_a_removed_key_takes_its_tokens_along() -> None:
    gone, stays = make_key("HS256", "gone"), make_key("HS256", "stays")
    verifier = Verifier([gone.verifying, stays.verifying], issuer=ISSUER)
    lost, kept = (sign(None, None, key) for key in (gone, stays))
    before = verifier.verify(lost, now=NOW), verifier.verify(kept, now=NOW)
    verifier.replace_keys([stays.verifying])
    with pytest.raises(errors.UnknownKey):
        verifier.verify(lost, now=NOW)
    assert verifier.verify(kept, now=NOW) is before[1]
    verifier.replace_keys([gone.verifying, stays.verifying])
    assert verifier.verify(lost, now=NOW) is not before[0]


def test_equal_keys_prepared_again_keep_their_tokens() -> None:
    verifier, (token,) = make(), tokens(1)
    kept = verifier.verify(token, now=NOW)
    for _ in range(3):
        verifier.replace_keys([KEY.verifying])  # a new object at each call
        assert verifier.verify(token, now=NOW) is kept


def test_another_key_of_the_same_name_does_not_inherit_its_tokens() -> None:
    verifier, (token,) = make(), tokens(1)
    verifier.verify(token, now=NOW)
    impostor = type(KEY.verifying).hmac("HS256", KEY.kid, make_key("HS256", "impostor").private)
    verifier.replace_keys([impostor])
    with pytest.raises(errors.InvalidSignature):
        verifier.verify(token, now=NOW)


# --- bounds ---


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 5, 7, 64, 1000])
def test_entries_are_bounded(capacity: int) -> None:
    verifier = make(cache_size=capacity)
    for token in tokens(2 * capacity + 20):
        verifier.verify(token, now=NOW)
        assert verifier.cache_info().size <= capacity
    info = verifier.cache_info()
    assert info.capacity == capacity
    assert info.size > capacity * 0.6 if capacity >= 64 else info.size >= 1


def test_a_cache_that_is_large_enough_forgets_little() -> None:
    verifier, some = make(cache_size=1000), tokens(900)
    for token in some * 2:
        verifier.verify(token, now=NOW)
    assert verifier.cache_info().hits > 800


def test_bytes_are_bounded() -> None:
    limit = 40_000
    verifier = make(cache_bytes=limit)
    for size in (10, 3000, 100, 1000, 4000, 50) * 10:
        verifier.verify(sign(None, claims(filler="x" * size, jti=str(uuid.uuid4())), KEY), now=NOW)
        info = verifier.cache_info()
        assert 0 < info.bytes <= limit
    assert verifier.cache_info().size >= 4
    verifier.cache_clear()
    assert verifier.cache_info()[2:] == (0, 65_536, 0)


def test_what_is_larger_than_the_whole_cache_does_not_empty_it() -> None:
    verifier = make(cache_bytes=3000)
    small = tokens(1)[0]
    verifier.verify(small, now=NOW)
    for _ in range(2):
        verifier.verify(sign(None, claims(filler="x" * 3000), KEY), now=NOW)
    hits = verifier.cache_info().hits
    verifier.verify(small, now=NOW)
    assert verifier.cache_info().hits == hits + 1


def test_bytes_are_what_the_entries_take() -> None:
    verifier = make()
    gc.collect()
    some = tokens(1000)
    payload = len(some[0].split(".")[1]) * 3 // 4
    for token in some:
        verifier.verify(token, now=NOW)
    each = verifier.cache_info().bytes / 1000
    assert len(some[0]) + payload + 300 < each < len(some[0]) + payload + 800


def test_the_expired_go_first() -> None:
    verifier = make(cache_size=8)
    lasting = [sign(None, claims(jti=f"lasting {n}", exp=NOW + 9000), KEY) for n in range(4)]
    passing = [sign(None, claims(jti=f"passing {n}", exp=NOW + 10), KEY) for n in range(4)]
    for token in [*lasting, *passing]:
        verifier.verify(token, now=NOW)
    kept = verifier.cache_info().size  # a full set may have cost one
    for number in range(4):
        verifier.verify(sign(None, claims(jti=f"new {number}", exp=NOW + 9000), KEY), now=NOW + 10)
    hits = verifier.cache_info().hits
    for token in lasting:
        verifier.verify(token, now=NOW + 10)
    assert verifier.cache_info().hits - hits >= kept - 4


def test_all_the_expired_nearby_go_when_room_is_needed() -> None:
    verifier = make(cache_size=64)
    for token in tokens(200, exp=NOW + 10):
        verifier.verify(token, now=NOW)
    sizes = []
    for number in range(20):  # some of these take the place of one that has expired, and need no room
        verifier.verify(sign(None, claims(jti=f"new {number}"), KEY), now=NOW + 10)
        sizes.append(verifier.cache_info().size)
    assert min(sizes) < 60


def test_forgotten_claims_are_freed_at_once_though_their_memo_refers_to_them() -> None:
    class Memo:
        pass

    gc.disable()
    try:
        verifier, (token,) = make(), tokens(1)
        verified = verifier.verify(token, now=NOW)
        memo = Memo()
        memo.claims = verified  # type: ignore[attr-defined]
        verified._session = memo  # type: ignore[assignment]
        watch = weakref.ref(memo)
        del verified, memo
        assert watch() is not None
        verifier.cache_clear()
        assert watch() is None
    finally:
        gc.enable()


def test_a_memo_that_uses_the_cache_while_it_dies_disturbs_nothing() -> None:
    verifier, some = make(cache_size=4), tokens(300)

    class Meddler:
        def __del__(self) -> None:
            for token in some[:3]:
                verifier.verify(token, now=NOW)
            verifier.cache_info()

    for token in some[3:]:
        verifier.verify(token, now=NOW)._session = Meddler()  # type: ignore[assignment]
    verifier.cache_clear()
    assert verifier.cache_info().size <= 4
    assert verifier.verify(some[0], now=NOW).to_dict() == claims(jti="0")


def test_many_threads_get_the_right_claims_while_keys_and_entries_come_and_go() -> None:
    keys = [make_key("ES256", f"thread-{number}") for number in range(3)]
    verifier = Verifier([key.verifying for key in keys], issuer=ISSUER, cache_size=8, release_gil=True)
    some = [(sign(None, claims(sub=f"{key.kid} {n}"), key), f"{key.kid} {n}") for key in keys for n in range(12)]
    wrong: list[Any] = []
    stop = threading.Event()

    def work(offset: int) -> None:
        for step in range(150):
            token, subject = some[(offset + step * 7) % len(some)]
            try:
                verified: Claims = verifier.verify(token, now=NOW)
            except errors.InvalidToken as error:
                wrong.append(error)
            else:
                if verified.subject != subject or verified["sub"] != subject or verified.token != token:
                    wrong.append(verified)

    def churn() -> None:
        while not stop.wait(0.001):
            verifier.replace_keys([key.verifying for key in keys])
            verifier.cache_clear()

    churner = threading.Thread(target=churn)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    churner.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    churner.join()
    assert wrong == []


def test_a_seed_is_drawn_for_each_cache() -> None:
    """With one seed for all, the same tokens would collide in every process, and be pushed out of every cache."""
    some = tokens(40)
    patterns = set()
    for _ in range(8):
        verifier = make(cache_size=8)
        for token in some:
            verifier.verify(token, now=NOW)
        hits = []
        for token in some:
            before = verifier.cache_info().hits
            verifier.verify_many([token], now=NOW)
            hits.append(verifier.cache_info().hits > before)
        patterns.add(tuple(hits))
    assert len(patterns) > 1


def test_short_tokens_do_no_harm() -> None:
    verifier = make()
    for token in ("", "a", "a.b.c", base64url(b"{}") + ".e30.AA", "." * 15, "." * 16, "." * 17):
        with pytest.raises(errors.InvalidToken):
            verifier.verify(token, now=NOW)
