"""What the scripts write and read beside the rotation itself (revocation.md, the data of a shard), on each store."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from fix_stores import PATIENT, WAIT, Launch
from session_lab import D, Lab, W, plain_client, plain_handle, session_entry

from fastverify import Issued, StoreUnavailable, Unauthorised, flows
from fastverify.entries import everything_entry, key_entry, tenant_entry, token_entry
from fastverify.key_ring import generate_key, generate_static_key
from fastverify.store import Call, Flow, Store, drive, open_store
from fastverify.store.calls import script

HOUR_MS = 3_600_000
#: Milliseconds for which the followers of these tests serve without a poll.
SERVES = 5_000
NOBODY = "00000000-0000-0000-0000-000000000000"


@contextmanager
def lab_of(store: Store, prefix: str, **changes: Any) -> Iterator[Lab]:
    """A service with settings of one's own."""
    lab = Lab(store, prefix, **changes)
    yield lab
    lab.close()


def a_user_of_another_shard(lab: Lab, user_id: str) -> str:
    """Somebody whose data lie elsewhere."""
    others = (f"other-{n}" for n in range(1000))
    return next(other for other in others if lab.authority.tag_of_user(other) != lab.authority.tag_of_user(user_id))


def handle_in(lab: Lab, tag: str) -> str:
    """A handle that no session has, in a shard."""
    return plain_handle(str(uuid.UUID(bytes=bytes((lab.authority.placement.tags.index(tag),)) + os.urandom(15))))


def whole_life(lab: Lab, user_id: str) -> None:
    """Everything that the library does to a user's sessions, to the shard, and to what a follower reads."""
    first = lab.create(user_id, payload={"a": 1}, data=[1])
    second = lab.create(user_id, previous=first.session.handle)
    tag = lab.tag(second)
    lab.advance(D + 5)
    child = lab.refresh(second.refresh_token)
    lab.refresh(second.refresh_token)
    lab.run(flows.verify_strict(lab.authority, child.session))
    assert lab.run(flows.recheck(lab.authority, child.session, now=0)) is None
    lab.run(flows.merge_payload(lab.authority, child.session.handle, {"b": 2}, now=0))
    lab.run(flows.set_data(lab.authority, child.session.handle, {}))
    assert lab.run(flows.get_data(lab.authority, child.session.handle)) == {}
    assert len(lab.run(flows.list_sessions(lab.authority, user_id))) == 1
    lab.refresh(child.refresh_token)
    lab.run(flows.redeliver(lab.authority, child.session, now=0, anti_csrf=False))
    lab.advance(W + 5)
    assert lab.decide(second, 0)[0] == b"THEFT"
    lab.revoke(lab.create(user_id).session.handle)
    lab.create(user_id)
    assert len(lab.revoke_user(user_id)) == 1
    confirmed = lab.create(user_id)
    lab.confirm(confirmed, 0)
    lab.confirm(confirmed, 1)
    nonce = os.urandom(16)
    lab.call("blacklist", tag, 1000, nonce, token_entry(confirmed.access_token))
    lab.call("push", tag, nonce, session_entry(confirmed.session.handle), lab.now_ms() // 1000 + 1000)
    assert lab.record(confirmed) == {}
    _, marked = lab.call("mark", tag, "acme", "", HOUR_MS)
    assert len(lab.call("marks", tag)) == 2
    _, at = lab.call("blacklist", tag, 1000, nonce, tenant_entry("acme", marked))
    assert lab.call("reached", tag, at, b"%b:%d" % (nonce, at), 0) in (0, 1)
    digest = f"{lab.authority.placement.tags.index(tag):02x}{'0' * 62}"
    assert lab.authority.tag_of_digest(digest) == tag
    assert lab.run(flows.claim_exchange(lab.authority, digest, "nonce", now=0)) is None
    assert lab.run(flows.settle_exchange(lab.authority, digest, "nonce", confirmed.session.handle))
    seq, nonce, _, _, *windows = lab.call("follow_start", tag, b"nonce")
    lab.call("follow_scan", tag, windows[0], 0)
    seen = plain_handle(lab.create(user_id).session.handle)
    assert lab.call("seen", tag, 0, seen) == [seen.encode()]
    assert lab.call("event", tag, 10, "session_revoked", "", user_id, "public", "said") == [b"session_revoked"]
    assert lab.call("events_read", tag, "", "", 1000)[-1][1][-1] == b"said"
    assert lab.call("follow_poll", tag, b"follower", seq, nonce, 10, SERVES) == [b"OK"]
    assert lab.call("follow_tail", tag, b"nonce")[:2] == [seq, nonce]


# --- where things lie ---


def test_every_key_that_is_touched_starts_with_the_tag_of_the_users_shard(lab: Lab) -> None:
    """The server itself sees to it: the scripts run as one of its users who may touch nothing else."""
    tag, name = lab.authority.tag_of_user("user-1"), f"u-{lab.config.key_prefix}"
    lab.redis.acl_setuser(name, enabled=True, passwords=["+secret"], keys=[f"{tag}*"], commands=["+@all"])
    where = lab.store._endpoint.settings
    place = f"unix://{name}:secret@{where['path']}" if "path" in where else None
    bound = open_store(place or f"redis://{name}:secret@{where['host']}:{where['port']}/0", **PATIENT)
    everybodys, lab.store = lab.store, bound
    try:
        whole_life(lab, "user-1")
        with pytest.raises(StoreUnavailable, match="NOPERM"):
            lab.create(a_user_of_another_shard(lab, "user-1"))
    finally:
        lab.store = everybodys
        bound.close()
        lab.redis.acl_deluser(name)


def test_every_script_stays_in_one_slot_of_a_cluster(launch: Launch, unused_tcp_port: int) -> None:
    """A cluster of one node, which holds every slot, and refuses a script that touches two."""
    server = launch(**{"cluster-enabled": "yes", "cluster-port": str(unused_tcp_port)})
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + WAIT
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.05)
    store = open_store(server.url, **PATIENT)
    with lab_of(store, "cluster", event_stream=100) as lab:
        for user_id in ("user-1", a_user_of_another_shard(lab, "user-1")):
            whole_life(lab, user_id)
        lab.run(flows.claim_store("cluster", 4, 3600))
        key = generate_key("ES256", created_at=1, signs_at=1)
        assert lab.run(flows.add_key("cluster", "", key, b"sealed", ()))
    store.close()


def test_a_record_holds_what_the_design_says(lab: Lab) -> None:
    issued = lab.create(payload={"plan": "pro"}, data={"cart": []}, login_id="login-1", tenant="acme")
    fields = {"user", "login_id", "tenant", "secret", "key", "G", "handed_at", "created_at", "seen_at", "abs_exp"}
    fields |= {"idle_exp", "idle_ttl", "redelivered", "life", "csrf", "device", "data", "p:plan"}
    assert lab.record(issued).keys() == fields
    assert len(lab.record(issued)["secret"]) == 32
    assert lab.record(issued)["user"] == b"user-1"


def test_keys_expire_by_themselves(lab: Lab) -> None:
    lab.create(lifetime=5000, idle_timeout=100)
    issued = lab.create(lifetime=1000, idle_timeout=100)
    key, index = lab.record_key(issued), f"{lab.tag(issued)}:u:user-1"
    assert lab.redis.pexpiretime(key) == lab.number(issued, "idle_exp")
    assert lab.number(issued, "idle_exp") == lab.number(issued, "created_at") + 100_000
    assert lab.number(issued, "abs_exp") == lab.number(issued, "created_at") + 1_000_000
    assert lab.redis.zscore(index, plain_handle(issued.session.handle)) == lab.number(issued, "abs_exp")
    last = max(score for _, score in lab.redis.zrange(index, 0, -1, withscores=True))
    assert lab.redis.pexpiretime(index) == last > lab.number(issued, "abs_exp")


def test_an_idle_timeout_beyond_the_lifetime_ends_with_it(lab: Lab) -> None:
    issued = lab.create(lifetime=50, idle_timeout=100)
    assert lab.record(issued)["idle_exp"] == lab.record(issued)["abs_exp"]


# --- payload and data are opaque ---


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        [[], {}, [{}]],
        {"a": []},
        2**53 + 1,
        -(2**63),
        2**64 - 1,
        1.5,
        0.1,
        1e300,
        True,
        None,
        "",
        "\x00\r\n\U0001f600",
        {"": [None, False]},
        "x" * 1000,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_comes_back_as_it_was(lab: Lab, value: Any) -> None:
    """Lua would make objects of empty lists, and of large whole numbers their neighbours."""
    handle = lab.create(payload={"kept": value, "changed": 0}, data=value).session.handle
    lab.run(flows.merge_payload(lab.authority, handle, {"changed": [value]}, now=0))
    info = lab.run(flows.info(lab.authority, handle))
    assert info is not None
    came = info.payload["kept"], info.payload["changed"], info.data
    assert repr(came) == repr((value, [value], value)), "of the same type, too: 1 == 1.0 == True"


@pytest.mark.parametrize("name", ["G", "data", "secret", "p:x", "", "user", "\x00", "ü", "a b"])
def test_a_member_of_any_name_is_no_field_of_the_record(lab: Lab, name: str) -> None:
    issued = lab.create(payload={name: "mine"})
    lab.advance(D + 5)
    child = lab.refresh(issued.refresh_token)
    assert child.refresh_token_changed
    assert child.session.payload[name] == "mine"
    lab.run(flows.merge_payload(lab.authority, issued.session.handle, {name: None}, now=0))
    info = lab.run(flows.info(lab.authority, issued.session.handle))
    assert info is not None and info.payload == {}


def test_a_large_reply_arrives_whole(lab: Lab) -> None:
    handles = {lab.create(payload={"filler": "x" * 2000}, data="y" * 5000).session.handle for _ in range(50)}
    listed = lab.run(flows.list_sessions(lab.authority, "user-1"))
    assert {info.handle for info in listed} == handles
    assert all(len(info.data) == 5000 and len(info.payload["filler"]) == 2000 for info in listed)


def test_an_update_brings_no_ended_session_back(lab: Lab) -> None:
    issued = lab.create()
    lab.revoke(issued.session.handle)
    assert not lab.run(flows.set_data(lab.authority, issued.session.handle, 1))
    assert not lab.run(flows.merge_payload(lab.authority, issued.session.handle, {"a": 1}, now=0))
    assert not lab.record(issued)


def test_an_update_keeps_the_records_time_to_live(lab: Lab) -> None:
    issued = lab.create(idle_timeout=100)
    lab.run(flows.set_data(lab.authority, issued.session.handle, 1))
    assert lab.redis.pexpiretime(lab.record_key(issued)) == lab.number(issued, "idle_exp")


# --- creation ---


def test_the_previous_session_ends_in_the_same_step(lab: Lab) -> None:
    old = lab.create()
    outcome = lab.create_outcome(previous=old.session.handle)
    assert outcome.entries == (session_entry(old.session.handle),)
    assert not lab.record(old)
    assert lab.entries(lab.tag(old)) == [session_entry(old.session.handle)]


def test_the_previous_session_of_another_user_in_another_shard_ends_too(lab: Lab) -> None:
    old = lab.create(a_user_of_another_shard(lab, "user-1"))
    outcome = lab.create_outcome("user-1", previous=old.session.handle)
    assert outcome.entries == (session_entry(old.session.handle),)
    assert not lab.record(old)
    assert lab.entries(lab.tag(old)) == [session_entry(old.session.handle)]
    assert lab.record(outcome.value)


@pytest.mark.parametrize("previous", ["", "nonsense", "ABCDEF00-0000-0000-0000-000000000000", "x" * 1000])
def test_a_previous_handle_that_is_none_is_passed_over(lab: Lab, previous: str) -> None:
    assert lab.create_outcome(previous=previous).entries == ()


def test_a_previous_session_that_is_gone_is_revoked_all_the_same(lab: Lab) -> None:
    handle = handle_in(lab, lab.authority.tag_of_user("user-1"))
    issued = lab.create(previous=handle)
    assert lab.entries(lab.tag(issued)) == [session_entry(handle)]
    assert plain_handle(issued.session.handle) != handle, "a handle that a client names is never taken up"


def test_beyond_the_limit_the_oldest_session_ends(store: Store, unique_prefix: str) -> None:
    with lab_of(store, unique_prefix, max_sessions_per_user=2) as lab:
        sessions = []
        for _ in range(3):
            sessions.append(lab.create())
            lab.advance(10)
        lab.refresh(sessions[1].refresh_token)  # how lately it was used does not count
        outcome = lab.create_outcome()
        assert outcome.entries == (session_entry(sessions[1].session.handle),)
        alive = set(lab.run(flows.handles(lab.authority, "user-1")))
        assert alive == {sessions[2].session.handle, outcome.value.session.handle}
        ended = [session_entry(issued.session.handle) for issued in sessions[:2]]
        assert lab.entries(lab.tag(sessions[0])) == ended


def test_the_session_that_is_replaced_does_not_count_against_the_limit(store: Store, unique_prefix: str) -> None:
    with lab_of(store, unique_prefix, max_sessions_per_user=2) as lab:
        kept, old = lab.create(), lab.create()
        assert lab.create_outcome(previous=old.session.handle).entries == (session_entry(old.session.handle),)
        assert lab.record(kept)


@pytest.mark.parametrize("how", ["expired", "marked"])
def test_a_session_that_is_over_does_not_count_against_the_limit(store: Store, unique_prefix: str, how: str) -> None:
    with lab_of(store, unique_prefix, max_sessions_per_user=2) as lab:
        kept = lab.create()
        lab.advance(1)
        over = lab.create(tenant="acme", idle_timeout=60)
        if how == "expired":
            lab.advance(61)
        else:
            lab.mark("acme")
        assert lab.create_outcome().entries == ()
        assert lab.record(kept)
        # What a mark has cut off stays for whom it has to be found by (refresh.lua).
        assert bool(lab.record(over)) == (how == "marked")
        assert lab.redis.zcard(f"{lab.tag(over)}:u:user-1") == (3 if how == "marked" else 2)


def commands_run(lab: Lab) -> int:
    """How many commands the store has run so far, those of its scripts included."""
    return sum(int(row["calls"]) for row in lab.redis.info("commandstats").values())


def test_without_a_limit_a_sign_in_costs_no_more_for_a_user_of_many_sessions(
    launch: Launch, unique_prefix: str
) -> None:
    """A script holds up everybody: it must not take as long as somebody has signed in often."""
    store = open_store(launch().url, **PATIENT)
    costs = []
    with lab_of(store, unique_prefix) as lab:
        for _ in range(3):
            before = commands_run(lab)
            lab.create()
            costs.append(commands_run(lab) - before)
            for _ in range(100):
                lab.create()
    store.close()
    assert costs[2] == costs[1] < 50


def test_without_a_limit_sessions_that_are_over_leave_the_index_as_it_grows(store: Store, unique_prefix: str) -> None:
    with lab_of(store, unique_prefix) as lab:
        over = [lab.create(idle_timeout=60) for _ in range(40)]
        lab.advance(61)
        alive = [lab.create() for _ in range(100)]
        index = f"{lab.tag(over[0])}:u:user-1"
        # Each sign-in looks at 8 of at most 140: one that is over stays with a chance below (132 / 140) ** 100 = 0.3 %.
        assert lab.redis.zcard(index) < len(alive) + 10


def test_a_limit_that_was_lowered_ends_thousands_in_one_step(store: Store, unique_prefix: str) -> None:
    """More than Lua can unpack."""
    with lab_of(store, unique_prefix, max_sessions_per_user=1) as lab:
        issued, tag = lab.create(), lab.authority.tag_of_user("user-1")
        copy = lab.redis.dump(lab.record_key(issued))
        with lab.redis.pipeline(transaction=False) as pipeline:
            for _ in range(8_100):
                handle = handle_in(lab, tag)
                pipeline.restore(f"{tag}:s:{handle}", 0, copy)
                pipeline.zadd(f"{tag}:u:user-1", {handle: lab.number(issued, "abs_exp") if _ == 0 else 2e12})
            pipeline.execute()
        assert len(lab.create_outcome().entries) == 8_101
        assert lab.redis.zcard(f"{tag}:u:user-1") == 1


# --- revocation ---


def test_an_entry_is_25_bytes_in_the_set_of_its_window_and_in_the_log(lab: Lab) -> None:
    issued = lab.create(tenant="acme")
    tag, before = lab.tag(issued), lab.now_ms()
    assert lab.revoke(issued.session.handle) == [issued.session.handle]
    (window,) = lab.redis.zrange(f"{tag}:windows", 0, -1)
    end, key = int(window), f"{tag}:rev:{int(window)}"
    (entry,) = lab.redis.smembers(key)
    assert entry == session_entry(issued.session.handle) and len(entry) == 25
    assert lab.redis.zscore(f"{tag}:windows", window) == end == lab.redis.expiretime(key)
    genesis, (seq, fields) = lab.redis.xrange(f"{tag}:log")
    assert (genesis[0], genesis[1].keys()) == (b"1-0", {b"n", b"t"})
    assert seq == b"2-0" and list(fields) == [b"e", b"w", b"n", b"t"]
    assert (fields[b"e"], fields[b"w"]) == (entry, window)
    assert before <= int(fields[b"t"]) <= lab.now_ms()


@pytest.mark.parametrize(("life", "step"), [(60, 300), (3960, 300), (86_400, 300), (86_401, 86_400), (604_800, 86_400)])
def test_a_window_ends_on_the_next_5_minutes_or_day_after_the_entrys_life(lab: Lab, life: int, step: int) -> None:
    tag = lab.authority.placement.tags[0]
    before = lab.now_ms() / 1000 + life
    lab.call("revoke", tag, life, b"nonce", 0, "", handle_in(lab, tag))
    after = lab.now_ms() / 1000 + life
    (window,) = lab.redis.zrange(f"{tag}:windows", 0, -1)
    assert int(window) % step == 0
    assert before <= int(window) < after + step


def test_windows_that_have_ended_are_forgotten(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    past, coming = lab.now_ms() // 1000 - 1, lab.now_ms() // 1000 + 60
    lab.redis.zadd(f"{tag}:windows", {past: past, coming: coming})
    assert lab.call("follow_start", tag, b"nonce")[4:] == [str(coming).encode()]
    lab.revoke(handle_in(lab, tag))
    assert str(past).encode() not in lab.redis.zrange(f"{tag}:windows", 0, -1)
    assert str(coming).encode() in lab.redis.zrange(f"{tag}:windows", 0, -1)


def test_revoking_a_missing_session_writes_its_entry(lab: Lab) -> None:
    """A replica that lost the record must not be the reason why its access tokens live on."""
    handle = handle_in(lab, lab.authority.placement.tags[1])
    assert lab.revoke(handle) == []
    assert lab.entries(lab.tag(handle)) == [session_entry(handle)]
    assert lab.blacklisted(lab.tag(handle)) == {session_entry(handle)}


def test_revoking_twice_writes_twice_and_stands_in_the_set_once(lab: Lab) -> None:
    issued = lab.create()
    assert lab.revoke(issued.session.handle) == [issued.session.handle]
    assert lab.revoke(issued.session.handle) == []
    assert lab.entries(lab.tag(issued)) == 2 * [session_entry(issued.session.handle)]
    assert lab.blacklisted(lab.tag(issued)) == {session_entry(issued.session.handle)}


def test_more_handles_than_one_call_takes_are_all_revoked(lab: Lab) -> None:
    live = [lab.create(f"user-{n}").session.handle for n in range(20)]
    missing = [handle_in(lab, tag) for tag in lab.authority.placement.tags for _ in range(flows.limits.BATCH)]
    assert sorted(lab.revoke(*missing, *live, "nonsense")) == sorted(live)
    written = {entry for tag in lab.authority.placement.tags for entry in lab.entries(tag)}
    assert written == {session_entry(handle) for handle in missing + live}


def test_revoke_user_ends_all_that_are_the_users_and_nobody_elses(lab: Lab) -> None:
    mine = [lab.create().session.handle for _ in range(3)]
    user_id = next(f"other-{n}" for n in range(99) if lab.authority.tag_of_user(f"other-{n}") == lab.tag(mine[0]))
    other = lab.create(user_id)
    assert sorted(lab.revoke_user("user-1")) == sorted(mine)
    assert lab.record(other)
    assert set(lab.entries(lab.tag(other))) == {session_entry(handle) for handle in mine}
    assert not lab.redis.exists(f"{lab.tag(other)}:u:user-1")


def test_revoke_user_may_be_confined_to_a_tenant_and_spare_a_session(lab: Lab) -> None:
    public, acme, spared = (lab.create(tenant=tenant) for tenant in ("public", "acme", "acme"))
    ended = lab.revoke_user("user-1", tenant="acme", except_handle=spared.session.handle)
    assert ended == [acme.session.handle]
    assert lab.record(public) and lab.record(spared) and not lab.record(acme)
    assert lab.entries(lab.tag(acme)) == [session_entry(acme.session.handle)]


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_revoke_user_of_more_sessions_than_one_call_takes_leaves_none_whenever_they_came(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tenant: str | None
) -> None:
    monkeypatch.setattr(flows.limits, "BATCH", 3)
    kept = [lab.create(tenant="acme")] + [lab.create(tenant="public") for _ in range(4 if tenant else 0)]
    before = [lab.create(tenant="acme") for _ in range(7)]
    spare = kept[0].session.handle
    flow = flows.revoke_user(lab.authority, "user-1", random=os.urandom, tenant=tenant, except_handle=spare)
    calls, reply, meanwhile = list[Call](), None, list[Issued]()
    while True:
        try:
            asked = flow.send(reply)
        except StopIteration as end:
            outcome = end.value
            break
        assert isinstance(asked, Call)
        calls.append(asked)
        reply = lab.store.run(asked)
        if len(calls) < 3:
            meanwhile.append(lab.create(tenant="acme"))
    assert len(calls) == 3, "nine sessions in all"
    ended = [issued.session.handle for issued in (*before, *meanwhile)]
    assert sorted(outcome.value) == sorted(ended)
    assert set(outcome.entries) == {session_entry(handle) for handle in ended}
    assert sorted(lab.entries(lab.tag(spare))) == sorted(outcome.entries), "each is written once"
    assert [one.seq for one in outcome.written] == [4, 7, 10]
    left = lab.run(flows.handles(lab.authority, "user-1"))
    assert sorted(left) == sorted(issued.session.handle for issued in kept)


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_revoke_user_revokes_what_only_the_index_knows(lab: Lab, tenant: str | None) -> None:
    """An expired record may be gone while an access token of its session is alive; nobody knows its tenant then."""
    issued = lab.create(tenant="acme")
    lab.redis.delete(lab.record_key(issued))
    assert lab.revoke_user("user-1", tenant=tenant) == []
    assert lab.entries(lab.tag(issued)) == [session_entry(issued.session.handle)]
    assert not lab.redis.exists(f"{lab.tag(issued)}:u:user-1")


@pytest.mark.parametrize("how", ["expired", "marked", "revoked"])
def test_a_session_that_is_over_is_shown_by_nothing(lab: Lab, how: str) -> None:
    issued, handle = (session := lab.create(idle_timeout=60)), session.session.handle
    if how == "expired":
        lab.advance(61)
    elif how == "marked":
        lab.mark("*")
    else:
        lab.revoke(handle)
    authority = lab.authority
    assert lab.run(flows.info(authority, handle)) is None
    assert lab.run(flows.handles(authority, "user-1")) == []
    assert lab.run(flows.list_sessions(authority, "user-1")) == []
    assert not lab.run(flows.set_data(authority, handle, 1))
    with pytest.raises(Unauthorised):
        lab.run(flows.verify_strict(authority, issued.session))


def test_a_strict_read_writes_the_fence(lab: Lab) -> None:
    """An isolated old primary, which cannot write, must not vouch for a session."""
    issued = lab.create()
    lab.run(flows.verify_strict(lab.authority, issued.session))
    assert abs(int(lab.redis.hget(f"{lab.tag(issued)}:gw", "strict") or 0) - lab.now_ms()) < WAIT * 1000
    with pytest.raises(redis.ResponseError):
        text = script("strict").text
        lab.redis.execute_command("EVAL_RO", text, 1, lab.tag(issued), plain_handle(issued.session.handle))


# --- the log ---


def test_the_log_is_dense_and_no_two_entries_share_a_nonce(lab: Lab) -> None:
    for _ in range(5):
        lab.create()
    tag = lab.authority.tag_of_user("user-1")
    lab.revoke_user("user-1")
    lab.revoke(*(handle_in(lab, tag) for _ in range(5)))
    items = lab.redis.xrange(f"{tag}:log")
    assert [item[0] for item in items] == [f"{seq}-0".encode() for seq in range(1, 12)]
    assert len({fields[b"n"] for _, fields in items}) == 11


def test_a_nonce_is_the_callers(lab: Lab) -> None:
    """A script's own random numbers would repeat on a replica: two histories could not be told apart."""
    tag = lab.authority.placement.tags[0]
    lab.call("revoke", tag, 60, b"mine \xff\x00", 0, "", handle_in(lab, tag))
    assert all(fields[b"n"].startswith(b"mine \xff\x00") for _, fields in lab.redis.xrange(f"{tag}:log"))


def log_of(lab: Lab, tag: str, ages_ms: list[int]) -> None:
    """Lay a log of entries of these ages."""
    for seq, age in enumerate(ages_ms, 1):
        entry = {"e": os.urandom(25), "w": 2**31, "n": f"n{seq}", "t": lab.now_ms() - age}
        lab.redis.xadd(f"{tag}:log", entry, id=f"{seq}-0")


def seqs(lab: Lab, tag: str) -> list[int]:
    """The sequence numbers in a shard's log."""
    return [int(item[0].split(b"-")[0]) for item in lab.redis.xrange(f"{tag}:log")]


def test_an_entry_goes_when_its_successor_is_two_hours_old(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    log_of(lab, tag, [5 * HOUR_MS, 4 * HOUR_MS, 3 * HOUR_MS, HOUR_MS, 0])
    lab.revoke(handle_in(lab, tag))
    assert seqs(lab, tag) == [3, 4, 5, 6], "2 and 3 are old; an idle follower may stand on 3, whose successor is young"


def test_an_old_last_entry_is_not_trimmed(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    log_of(lab, tag, [9 * HOUR_MS])
    lab.revoke(handle_in(lab, tag))
    assert seqs(lab, tag) == [1, 2]


def test_a_call_trims_no_more_than_a_hundred_besides_as_much_as_it_writes(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    log_of(lab, tag, 250 * [3 * HOUR_MS])
    for first in (101, 201, 250):
        lab.revoke(handle_in(lab, tag))
        assert seqs(lab, tag)[0] == first
    assert seqs(lab, tag) == [250, 251, 252, 253], "the oldest left has a young successor"


def test_a_call_that_writes_much_trims_as_much_or_the_log_would_grow(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    log_of(lab, tag, 500 * [3 * HOUR_MS])
    lab.revoke(*(handle_in(lab, tag) for _ in range(200)))
    assert seqs(lab, tag) == list(range(300, 701))


def test_entries_of_different_lives_stand_in_their_sets_and_in_order_in_the_log(lab: Lab) -> None:
    tag, now = lab.authority.placement.tags[0], lab.now_ms() // 1000
    entries = [key_entry(f"k-{n}") for n in range(4)]
    lives = [1_000, 90_000, 1_000, 200_000]
    lab.call(
        "push",
        tag,
        b"n",
        *(part for pair in zip(entries, (now + life for life in lives), strict=True) for part in pair),
    )
    assert lab.entries(tag) == entries
    items = [fields for _, fields in lab.redis.xrange(f"{tag}:log") if b"e" in fields]
    for life, fields in zip(lives, items, strict=True):
        assert lab.redis.sismember(f"{tag}:rev:{fields[b'w'].decode()}", fields[b"e"])
        assert int(fields[b"w"]) >= now + life
    assert len(lab.redis.zrange(f"{tag}:windows", 0, -1)) == 3


def test_of_two_merges_at_once_the_one_that_no_longer_fits_is_refused(lab: Lab) -> None:
    """Each fits alone. Both together could not be signed, and the client could never refresh again."""
    issued = lab.create()
    handle = issued.session.handle
    merges = [flows.merge_payload(lab.authority, handle, {name: name * 3000}, now=time.time()) for name in "ab"]
    reads = [lab.store.run(next(merge)) for merge in merges]
    writes = [merge.send(read) for merge, read in zip(merges, reads, strict=True)]
    lab.store.run(writes[0])
    call = merges[1].send(lab.store.run(writes[1]))
    with pytest.raises(ValueError, match="access token"):
        merges[1].send(lab.store.run(call))
    assert lab.refresh(issued.refresh_token).session.payload == {"a": "a" * 3000}
    for merge in merges:
        merge.close()


@pytest.mark.parametrize("fields", [{"device": None}, {"device": b"\xc1"}, {"p:x": b""}, {"created_at": b"soon"}])
def test_a_record_that_cannot_be_read_says_nothing_about_the_session(lab: Lab, fields: dict[str, bytes | None]) -> None:
    issued = lab.create(payload={"x": 1})
    for name, value in fields.items():
        if value is None:
            lab.redis.hdel(lab.record_key(issued), name)
        else:
            lab.redis.hset(lab.record_key(issued), name, value)
    for flow in (
        flows.refresh(lab.authority, issued.refresh_token, now=time.time(), random=os.urandom),
        flows.info(lab.authority, issued.session.handle),
        flows.merge_payload(lab.authority, issued.session.handle, {}, now=time.time()),
    ):
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            lab.run(flow)


# --- following ---


def test_a_follower_begins_with_a_genesis_entry_where_there_is_no_log(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    seq, nonce, _, _, *windows = lab.call("follow_start", tag, b"begun")
    assert (seq, windows) == (1, []) and nonce.startswith(b"begun")
    assert lab.call("follow_start", tag, b"again")[:3] == [seq, nonce, b"begun"], "there is one genesis"
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"OK"]


def test_a_follower_that_bootstraps_and_polls_misses_nothing(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    handles = [handle_in(lab, tag) for _ in range(30)]
    lab.revoke(*handles[:10])
    seq, nonce, _, _, *windows = lab.call("follow_start", tag, b"")
    lab.revoke(*handles[10:20])
    known, cursor = set(), None
    while cursor != b"0":
        cursor, entries, _ = lab.call("follow_scan", tag, windows[0], cursor or 0)
        known.update(entries)
    lab.revoke(*handles[20:])
    while len(reply := lab.call("follow_poll", tag, b"me", seq, nonce, 7, SERVES)) > 1:
        assert reply[0] == b"OK" and len(reply) <= 1 + 4 * 7
        assert [int(text) for text in reply[1::4]] == list(range(seq + 1, seq + 1 + len(reply) // 4))
        known.update(reply[4::4])
        seq, nonce = int(reply[-4]), reply[-3]
    assert known == {session_entry(handle) for handle in handles}


def test_a_poll_tells_the_window_of_each_entry(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    seq, nonce, *_ = lab.call("follow_start", tag, b"")
    lab.call("revoke", tag, 100, b"", 0, "", handle_in(lab, tag))
    lab.call("revoke", tag, 1000, b"", 0, "", handle_in(lab, tag))
    reply = lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES)
    assert reply[3::4] == lab.redis.zrange(f"{tag}:windows", 0, -1) and len(reply[3::4]) == 2


def test_a_poll_says_where_the_follower_stands(lab: Lab) -> None:
    """It is a write, so a primary that cannot write is not believed."""
    tag = lab.authority.placement.tags[0]
    seq, nonce, *_ = lab.call("follow_start", tag, b"")
    lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES)
    standing, serves, at = (lab.redis.hget(f"{tag}:gw", "me") or b"").split()
    assert (int(standing), int(serves)) == (seq, SERVES) and abs(int(at) - lab.now_ms()) < WAIT * 1000


@pytest.fixture
def followed(lab: Lab) -> tuple[Lab, str, int, bytes]:
    """A log of six, and a follower that stands on the fourth."""
    tag = lab.authority.placement.tags[0]
    lab.revoke(*(handle_in(lab, tag) for _ in range(5)))
    return lab, tag, 4, lab.redis.xrange(f"{tag}:log")[3][1][b"n"]


Followed = tuple[Lab, str, int, bytes]


def test_the_same_history_goes_on(followed: Followed) -> None:
    lab, tag, seq, nonce = followed
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES)[0] == b"OK"


def test_another_nonce_is_another_history(followed: Followed) -> None:
    lab, tag, seq, nonce = followed
    assert lab.call("follow_poll", tag, b"me", seq, nonce + b"?", 10, SERVES) == [b"DIVERGED"]


def test_a_tail_before_the_follower_is_another_history(followed: Followed) -> None:
    lab, tag, _, nonce = followed
    assert lab.call("follow_poll", tag, b"me", 7, nonce, 10, SERVES) == [b"DIVERGED"]


def test_a_gap_in_the_log_is_another_history(followed: Followed) -> None:
    lab, tag, seq, nonce = followed
    lab.redis.xdel(f"{tag}:log", "5-0")
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"DIVERGED"]


def test_an_entry_that_was_trimmed_away_is_no_place_to_stand_on(followed: Followed) -> None:
    lab, tag, seq, nonce = followed
    lab.redis.xtrim(f"{tag}:log", minid="5-0", approximate=False)
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"DIVERGED"]


def test_an_empty_store_is_another_history(followed: Followed) -> None:
    lab, tag, seq, nonce = followed
    lab.redis.delete(f"{tag}:log")
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"DIVERGED"]


def test_a_new_genesis_is_another_history(followed: Followed) -> None:
    lab, tag, *_ = followed
    nonce = lab.redis.xrange(f"{tag}:log")[0][1][b"n"]
    assert lab.call("follow_poll", tag, b"me", 1, nonce, 10, SERVES)[0] == b"OK"
    lab.redis.delete(f"{tag}:log")
    lab.call("follow_start", tag, b"new")
    assert lab.call("follow_poll", tag, b"me", 1, nonce, 10, SERVES) == [b"DIVERGED"]


def test_a_log_that_grew_again_past_the_follower_is_another_history(followed: Followed) -> None:
    """The trap of a plain XREAD: after a failover other entries bear the same numbers."""
    lab, tag, seq, nonce = followed
    lab.redis.xtrim(f"{tag}:log", maxlen=0, approximate=False)
    lab.redis.delete(f"{tag}:log")
    lab.revoke(*(handle_in(lab, tag) for _ in range(9)))
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"DIVERGED"]


# --- who has applied what, and what a failover lost ---


def written(lab: Lab, tag: str) -> tuple[int, bytes]:
    """Where a revocation that is written now stands in the log."""
    nonce = os.urandom(16)
    _, seq = lab.call("blacklist", tag, 1000, nonce, key_entry(nonce.hex()))
    return seq, b"%b:%d" % (nonce, seq)


def stands(lab: Lab, tag: str, name: str, seq: int, *, silent: int = 0) -> None:
    """A follower has reported where it stands, so many milliseconds ago."""
    lab.redis.hset(f"{tag}:gw", name, f"{seq} {SERVES} {lab.now_ms() - silent}")


def test_those_are_waited_for_that_have_not_applied_an_entry_and_still_serve(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    seq, nonce = written(lab, tag)
    assert lab.call("reached", tag, seq, nonce, 0) == 0
    stands(lab, tag, "there", seq)
    stands(lab, tag, "beyond", seq + 7)
    stands(lab, tag, "stale", seq - 1, silent=SERVES + 1)
    assert lab.call("reached", tag, seq, nonce, 0) == 0
    stands(lab, tag, "behind", seq - 1)
    stands(lab, tag, "silent", seq - 1, silent=SERVES - 2_000)
    assert lab.call("reached", tag, seq, nonce, 0) == 2
    lab.call("strict", tag, NOBODY)
    assert lab.call("reached", tag, seq, nonce, 0) == 2, "what is written as a fence is no follower"


def test_who_stands_in_another_history_has_applied_nothing_of_this_one(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    seq, nonce = written(lab, tag)
    assert lab.call("follow_poll", tag, b"me", seq + 3, b"lost", 10, SERVES) == [b"DIVERGED"]
    assert lab.call("follow_poll", tag, b"you", seq, b"lost", 10, SERVES) == [b"DIVERGED"]
    assert lab.call("reached", tag, seq, nonce, 0) == 2
    assert lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES) == [b"OK"]
    assert lab.call("reached", tag, seq, nonce, 0) == 1


def test_nobody_is_known_to_have_applied_anything_while_others_may_serve_that_this_primary_never_heard_of(
    lab: Lab,
) -> None:
    tag = lab.authority.placement.tags[0]
    lab.redis.delete(f"{tag}:gw")  # as it is after a failover or FLUSHALL
    seq, nonce = written(lab, tag)
    stands(lab, tag, "there", seq)
    assert lab.call("reached", tag, seq, nonce, SERVES) == 1
    its, since = (lab.redis.hget(f"{tag}:gw", "primary") or b"").split()
    lab.redis.hset(f"{tag}:gw", "primary", b"%b %d" % (its, int(since) - SERVES - 1))
    assert lab.call("reached", tag, seq, nonce, SERVES) == 0
    lab.redis.hset(f"{tag}:gw", "primary", b"%b %d" % (its[::-1], int(since) - SERVES - 1))
    assert lab.call("reached", tag, seq, nonce, SERVES) == 1, "another primary"


def test_an_entry_that_the_store_has_lost_has_reached_nobody(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    seq, nonce = written(lab, tag)
    assert lab.call("reached", tag, seq + 1, nonce, 0) == b"LOST"
    assert lab.call("reached", tag, seq, nonce[1:], 0) == b"LOST", "another entry has its place"
    lab.redis.delete(f"{tag}:log")
    assert lab.call("reached", tag, seq, nonce, 0) == b"LOST"


def test_what_was_lost_is_written_once_and_ends_the_session_that_came_back(lab: Lab) -> None:
    issued = lab.create()
    tag, replica = lab.tag(issued), lab.snapshot(issued)
    outcome = lab.run(flows.revoke_many(lab.authority, [issued.session.handle], random=os.urandom))
    lost = [outcome.entries[0], key_entry("d-1"), token_entry(issued.access_token)]
    for key in lab.redis.keys(f"{tag}:rev:*"):
        lab.redis.delete(key)
    lab.restore(replica)
    assert lab.record(issued)
    until = lab.now_ms() // 1000 + 1000
    args = [part for entry in lost for part in (entry, until)]
    before = len(lab.entries(tag))
    assert lab.call("push", tag, b"nonce", *args) == lost
    assert lab.record(issued) == {} and lab.blacklisted(tag) == set(lost)
    assert lab.call("push", tag, b"nonce", *args) == []
    assert len(lab.entries(tag)) == before + 3
    assert lab.call("push", tag, b"nonce", key_entry("d-2"), lab.now_ms() // 1000 - 1) == [], "nobody needs it any more"


def test_a_follower_goes_on_at_the_newest_entry_that_both_histories_have(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    places = [written(lab, tag) for _ in range(2)]
    replica = lab.redis.dump(f"{tag}:log")
    places += [written(lab, tag) for _ in range(2)]
    newest_first = [part for place in reversed(places) for part in place]
    assert lab.call("follow_resume", tag, *newest_first) == places[3][0]
    assert replica is not None
    lab.redis.restore(f"{tag}:log", 0, replica, replace=True)
    written(lab, tag)  # another entry in the place of the third
    assert lab.call("follow_resume", tag, *newest_first) == places[1][0]
    genesis = lab.call("follow_start", tag, b"")[2]
    assert lab.call("follow_resume", tag, 99, b"", 1, genesis + b":genesis") == 1
    lab.redis.delete(f"{tag}:log")
    assert lab.call("follow_resume", tag, *newest_first) == 0


# --- marks ---


def test_a_mark_ends_what_was_there_and_nothing_that_comes_after_it(lab: Lab) -> None:
    ended, other = lab.create(tenant="acme"), lab.create("user-2", tenant="other")
    outcome = lab.mark("acme")
    assert [one.tag for one in outcome.written] == lab.authority.placement.tags
    assert all(lab.entries(one.tag) == [*outcome.entries] for one in outcome.written)
    after = lab.create(tenant="acme")
    with pytest.raises(Unauthorised):
        lab.refresh(ended.refresh_token)
    assert lab.record(ended)  # nobody is let in by it, and a revocation of the user's finds it
    assert lab.refresh(after.refresh_token) and lab.refresh(other.refresh_token)
    cutoff = int.from_bytes(outcome.entries[0][17:]) // 1000
    assert after.session.issued_at > cutoff >= ended.session.issued_at


def test_the_mark_of_a_clock_that_is_ahead_ends_nothing_that_comes_after_it(lab: Lab) -> None:
    ahead = lab.now_ms() + 3_000
    for tag in lab.authority.placement.tags:
        lab.call("mark", tag, "*", ahead, HOUR_MS)
        lab.call("blacklist", tag, 1000, b"nonce", everything_entry(ahead))
    issued = lab.create()
    assert int(lab.record(issued)["created_at"]) > ahead
    assert issued.session.issued_at == ahead // 1000 + 1
    assert lab.refresh(issued.refresh_token).session.issued_at == ahead // 1000 + 1
    lab.mark("*")
    later = int(lab.redis.hget(f"{lab.tag(issued)}:marks", "*") or 0)
    assert later == (ahead // 1000 + 1) * 1000, "a mark only becomes later, and by a second: that session has ended"
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


@pytest.mark.parametrize("first, second", [("*", "*"), ("acme", "acme"), ("*", "acme"), ("acme", "*")])
def test_a_second_mark_in_the_same_second_ends_what_came_between(lab: Lab, first: str, second: str) -> None:
    lab.mark(first)
    between = lab.create(tenant="acme")
    outcome = lab.mark(second)
    assert between.session.issued_at <= int.from_bytes(outcome.entries[0][17:]) // 1000
    with pytest.raises(Unauthorised):
        lab.refresh(between.refresh_token)
    assert lab.create(tenant="acme").session.issued_at > int.from_bytes(outcome.entries[0][17:]) // 1000


def test_a_session_that_comes_after_a_mark_is_not_refused_for_the_clock_of_another_shard(lab: Lab) -> None:
    ahead, (tag, *_) = lab.now_ms() + 3_000, lab.authority.placement.tags
    lab.call("mark", tag, "*", ahead, HOUR_MS)  # as that shard's own clock says
    outcome = lab.mark("*")
    cutoff = int.from_bytes(outcome.entries[0][17:])
    assert cutoff > ahead
    user = a_user_of_another_shard(lab, next(u for u in map(str, range(999)) if lab.authority.tag_of_user(u) == tag))
    assert lab.create(user).session.issued_at > cutoff // 1000


def test_no_token_of_a_session_that_was_there_outlives_a_revocation_that_took_its_time(lab: Lab) -> None:
    """A refresh may come between the marks of two shards; what it is answered with is refused all the same."""
    last = lab.authority.placement.tags[-1]
    user = next(user for user in (f"user-{n}" for n in range(1000)) if lab.authority.tag_of_user(user) == last)
    issued = lab.create(user, tenant="acme")
    flow = flows.revoke_tenant(lab.authority, "acme", random=os.urandom)
    marks = next(flow)
    replies = [lab.store.run(marks[0])]
    second = lab.now_ms() // 1000
    while lab.now_ms() // 1000 == second:  # the next shard answers in another second
        time.sleep(0.01)
    between = lab.refresh(issued.refresh_token)
    replies += lab.store.run_many(marks[1:])
    outcome = drive(lab.store, rest_of(flow, replies))
    assert between.session.issued_at > second
    assert between.session.issued_at <= int.from_bytes(outcome.entries[0][17:]) // 1000
    with pytest.raises(Unauthorised):
        lab.refresh(issued.refresh_token)


def rest_of(flow: Flow[Any], reply: Any) -> Flow[Any]:
    """What a flow goes on with after a reply."""
    asked = flow.send(reply)
    while True:
        try:
            asked = flow.send((yield asked))
        except StopIteration as end:
            return end.value


def test_marks_are_forgotten_when_no_session_is_as_old(lab: Lab) -> None:
    tag, now = lab.authority.placement.tags[0], lab.now_ms()
    for tenant, at in (("old", now - HOUR_MS - 1000), ("young", now - HOUR_MS + 60_000)):
        lab.call("mark", tag, tenant, at, 2 * HOUR_MS)
    lab.call("mark", tag, "new", now, HOUR_MS)
    assert lab.redis.hkeys(f"{tag}:marks") == [b"young", b"new"]


# --- confirmations ---


def test_a_confirmation_says_once_when_a_generation_was_seen_and_adopts_a_lost_one(lab: Lab) -> None:
    issued = lab.create()
    assert "conf_at" not in lab.record(issued)
    lab.confirm(issued, 0)
    first = lab.number(issued, "conf_at")
    lab.advance(3)
    lab.confirm(issued, 0)
    assert lab.number(issued, "conf_at") == first - 3000, "the first time counts"
    lab.confirm(issued, 2)
    assert lab.number(issued, "G") == 2 and lab.number(issued, "conf_at") == lab.number(issued, "handed_at")
    lab.confirm(issued, 1)
    assert lab.number(issued, "G") == 2
    lab.revoke(issued.session.handle)
    lab.confirm(issued, 3)
    assert lab.record(issued) == {}, "a report makes no session"


def test_followers_that_are_silent_for_an_hour_are_forgotten(lab: Lab) -> None:
    tag = lab.authority.placement.tags[0]
    lab.redis.hset(f"{tag}:gw", "gone", f"7 {lab.now_ms() - HOUR_MS - 1000}")
    lab.redis.hset(f"{tag}:gw", "strict", lab.now_ms() - HOUR_MS - 1000)
    lab.redis.hset(f"{tag}:gw", "there", f"7 {lab.now_ms() - HOUR_MS + 60_000}")
    lab.call("follow_start", tag, b"")
    assert set(lab.redis.hkeys(f"{tag}:gw")) == {b"there", b"start", b"primary"}


# --- the key ring and the store's settings ---


def test_of_two_processes_that_add_a_key_at_once_one_does(lab: Lab) -> None:
    prefix = lab.config.key_prefix
    first, second = (generate_key("ES256", created_at=n, signs_at=n) for n in (1, 2))
    assert lab.run(flows.add_key(prefix, "", first, b"sealed-1", ()))
    assert not lab.run(flows.add_key(prefix, "", second, b"sealed-2", ()))
    state = lab.run(flows.read_keys(prefix, private=True))
    assert state.newest == first.kid
    assert state.records == ((first.kid.encode(), first.public_record(), b"sealed-1"),)
    assert lab.run(flows.add_key(prefix, first.kid, second, b"sealed-2", [first.kid]))
    state = lab.run(flows.read_keys(prefix, private=True))
    assert [kid.decode() for kid, _, _ in state.records] == [second.kid], "the retired key is dropped"


def test_each_static_key_has_a_slot_of_its_own(lab: Lab) -> None:
    prefix, tag = lab.config.key_prefix, f"{{{lab.config.key_prefix}}}"
    dynamic = generate_key("ES256", created_at=1, signs_at=1)
    first, second, other = (
        generate_static_key(algorithm, created_at=2, raw=os.urandom(16)) for algorithm in ("ES256", "ES256", "EdDSA")
    )
    assert lab.run(flows.add_key(prefix, "", dynamic, b"0", ()))
    assert lab.run(flows.add_key(prefix, "", first, b"1", ()))
    assert not lab.run(flows.add_key(prefix, "", second, b"2", ())), "another process was first"
    assert lab.run(flows.add_key(prefix, "", other, b"3", ()))
    state = lab.run(flows.read_keys(prefix, private=True))
    assert state.newest == dynamic.kid
    assert state.static == {"ES256": first.kid, "EdDSA": other.kid}
    assert {kid.decode(): sealed for kid, _, sealed in state.records} == {
        dynamic.kid: b"0", first.kid: b"1", other.kid: b"3"
    }  # fmt: skip
    assert lab.redis.hkeys(f"{tag}:keys") == [dynamic.kid.encode()], "older versions would sign with whatever is here"

    assert lab.run(flows.add_key(prefix, first.kid, second, b"2", [first.kid]))
    state = lab.run(flows.read_keys(prefix, private=True))
    assert state.static == {"ES256": second.kid, "EdDSA": other.kid}
    assert first.kid.encode() not in {kid for kid, *_ in state.records}
    assert not lab.redis.hexists(f"{tag}:private", first.kid)


def test_a_gateway_is_given_no_private_part(lab: Lab) -> None:
    prefix = lab.config.key_prefix
    key = generate_key("ES256", created_at=1, signs_at=1)
    lab.run(flows.add_key(prefix, "", key, b"sealed", ()))
    assert lab.run(flows.read_keys(prefix, private=False)).records == ((key.kid.encode(), key.public_record(), b""),)


def test_the_first_service_fixes_the_shards_and_the_longest_lifetime_only_grows(lab: Lab) -> None:
    prefix = lab.config.key_prefix
    assert lab.run(flows.read_keys(prefix, private=False)).placement is None
    for shards, lifetime, longest in ((8, 600, 600), (16, 3600, 3600), (1, 60, 3600)):
        assert lab.run(flows.claim_store(prefix, shards, lifetime)).shards == 8
        state = lab.run(flows.read_keys(prefix, private=False))
        assert state.placement is not None and state.placement.shards == 8
        assert state.longest_access_lifetime == longest


# --- flags ---


READERS = ["follow_scan", "info", "keys_read", "list", "peek"]


@pytest.mark.parametrize("name", READERS)
def test_a_script_that_reads_says_so_and_does_no_more(lab: Lab, name: str) -> None:
    """The server holds it to that: a script so marked cannot write."""
    args = {"follow_scan": [1, 0], "keys_read": [1], "list": ["user-1", "", 1]}.get(name, [NOBODY])
    assert script(name).text.startswith(b"#!lua flags=no-writes\n")
    assert isinstance(lab.redis.execute_command("EVAL_RO", script(name).text, 1, "{tag}", *args), list)


def test_when_memory_is_full_sessions_end_and_none_begin(launch: Launch) -> None:
    server = launch()
    store = open_store(server.url, **PATIENT)
    with lab_of(store, "full") as lab:
        issued, others = lab.create(), [lab.create("user-2") for _ in range(2)]
        tag = lab.tag(issued)
        seq, nonce, *_ = lab.call("follow_start", tag, b"")
        lab.redis.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="OOM"):
            lab.create()
        with pytest.raises(StoreUnavailable, match="OOM"):
            lab.refresh(issued.refresh_token)
        with pytest.raises(StoreUnavailable, match="OOM"):
            lab.run(flows.set_data(lab.authority, issued.session.handle, 1))
        lab.run(flows.verify_strict(lab.authority, issued.session))
        assert lab.revoke(issued.session.handle) == [issued.session.handle]
        assert len(lab.revoke_user("user-2")) == len(others)
        # Verifiers hear of it, and do not go stale.
        assert session_entry(issued.session.handle) in lab.call("follow_poll", tag, b"me", seq, nonce, 10, SERVES)
        assert lab.run(flows.claim_store("full", 4, 3600)).shards == 4, "a service may start"
    store.close()


def test_the_plain_client_reaches_the_same_store(lab: Lab) -> None:
    """The tests above would prove little if it did not."""
    issued = lab.create()
    with plain_client(lab.store) as client:
        assert client.exists(f"{lab.tag(issued)}:s:{plain_handle(issued.session.handle)}")
