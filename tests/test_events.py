"""Events: told to a function of the application, and kept in streams of the store."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from facades import Facade, open_facade, settings
from session_lab import D, Lab, W

from fastverify import (
    AsyncSessions,
    ConfigError,
    Event,
    Sessions,
    StoreUnavailable,
    TokenTheftDetected,
    Unauthorised,
    flows,
)
from fastverify.events import StreamPart, merged
from fastverify.store import Store, open_store

HOUR = 3600


class Heard(list[Event]):
    """The events that an application has been told of, as a function of it."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def take(self) -> list[tuple[Any, ...]]:
        """Names, users and reasons since the last time."""
        told = [(event.name, event.user_id, event.why) for event in self]
        self.clear()
        return told


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(params=["sync", "async"])
async def life(
    request: pytest.FixtureRequest, store_url: str, unique_prefix: str, heard: Heard
) -> AsyncIterator[Facade]:
    """A session service that keeps events and tells of them, by each manager."""
    config = settings(unique_prefix, event_stream=1000, exchange_seconds=0)
    facade = await open_facade(request.param, store_url, config, on_event=heard)
    yield facade
    await facade.close()


async def all_events(life: Facade, limit: int = 100) -> list[Event]:
    """Everything that the store has kept, batch by batch."""
    found, batch = list[Event](), await life.events(limit=limit)
    while batch.events:
        assert len(batch.events) <= limit and not batch.missed
        found += batch.events
        batch = await life.events(batch.cursor, limit=limit)
    return found


async def test_the_life_of_a_session_is_told_step_by_step(life: Facade, heard: Heard) -> None:
    await life.create("user-1")
    *made, _ = heard
    kids = [key["kid"] for key in (await life.jwks())["keys"]]
    assert sorted(event.extra["kid"] for event in made) == sorted(kids), "made when the store was taken up"
    assert heard.take() == [*2 * [("key_rotated", None, None)], ("session_created", "user-1", None)]

    issued = await life.create("user-1", tenant="acme")
    (event,) = heard
    assert (event.handle, event.tenant, event.actor) == (issued.session.handle, "acme", None)
    assert heard.take() == [("session_created", "user-1", None)]
    refreshed = await life.refresh(issued.refresh_token)
    assert heard.take() == [("session_refreshed", "user-1", "rotated")]
    await life.revoke(issued.session.handle)
    (event,) = heard
    assert (event.handle, event.tenant) == (issued.session.handle, "acme")
    assert heard.take() == [("session_revoked", "user-1", "revoked")]
    assert not await life.revoke(issued.session.handle)
    with pytest.raises(Unauthorised):
        await life.refresh(refreshed.refresh_token)
    assert heard.take() == [], "what was not there has not ended"


async def test_a_theft_is_told_although_the_call_fails(life: Facade, heard: Heard) -> None:
    issued = await life.create("thief's victim")
    await life.refresh(issued.refresh_token)
    heard.clear()
    with pytest.raises(TokenTheftDetected):
        await life.refresh(issued.refresh_token)
    (event,) = heard
    assert (event.name, event.handle, event.why) == ("token_theft", issued.session.handle, "one_behind")
    (kept,) = [event for event in await all_events(life) if event.name == "token_theft"]
    assert (kept.handle, kept.user_id, kept.why) == (event.handle, "thief's victim", "one_behind")


async def test_why_sessions_end_is_told(store_url: str, unique_prefix: str, heard: Heard) -> None:
    config = settings(unique_prefix, event_stream=1000, max_sessions_per_user=2)
    life = await open_facade("sync", store_url, config, on_event=heard)
    try:
        one = await life.create("user-1")
        heard.clear()
        two = await life.create("user-1", previous=one.session.handle)
        assert heard.take() == [("session_revoked", "user-1", "replaced"), ("session_created", "user-1", None)]
        await life.create("user-2", previous=two.session.handle)
        assert sorted(heard.take()) == sorted(
            [("session_revoked", "user-1", "replaced"), ("session_created", "user-2", None)]
        )
        for _ in range(3):
            await life.create("user-1")
        assert heard.take().count(("session_revoked", "user-1", "limit")) == 1
        await life.revoke_user("user-1", why="the password was changed")
        assert heard.take() == 2 * [("session_revoked", "user-1", "the password was changed")]
        await life.create("user-1", tenant="acme")
        heard.clear()
        await life.revoke_tenant("acme")
        (event,) = heard
        assert (event.tenant, event.handle) == ("acme", None)
        assert heard.take() == [("session_revoked", None, "tenant")]
        await life.revoke_all()
        assert heard.take() == [("session_revoked", None, "all")]
        kid = (await life.jwks())["keys"][0]["kid"]
        await life.revoke_key(kid)
        assert [(event.name, event.why, event.extra["kid"] == kid) for event in heard] == [
            ("key_rotated", "revoked", False),
            ("key_revoked", None, True),
        ]
    finally:
        await life.close()


async def test_what_ends_with_its_actors_session_is_told_when_it_is_found_out(life: Facade, heard: Heard) -> None:
    admin = await life.create("admin")
    issued = await life.impersonate(admin.session, "user-1", reason="ticket 7")
    await life.revoke(admin.session.handle)
    heard.clear()
    with pytest.raises(Unauthorised):
        await life.refresh(issued.refresh_token)
    (event,) = heard
    assert (event.handle, event.user_id, event.why) == (issued.session.handle, "user-1", "actor")
    kept = [event for event in await all_events(life) if event.name == "session_revoked"]
    assert [(event.user_id, event.why) for event in kept] == [("admin", "revoked"), ("user-1", "actor")]


async def test_the_streams_hold_what_was_told(life: Facade, heard: Heard) -> None:
    for n in range(5):
        issued = await life.create(f"user-{n}", tenant="acme" if n % 2 else "public", payload={"secret": "payload"})
        await life.refresh(issued.refresh_token)
    await life.revoke_user("user-1")
    await life.revoke_many([issued.session.handle])
    await life.revoke_tenant("acme")
    await life.rotate_keys()
    kept = await all_events(life, limit=3)
    told = {(event.name, event.handle, event.user_id, event.tenant, event.why, str(event.extra)) for event in heard}
    assert {(e.name, e.handle, e.user_id, e.tenant, e.why, str(e.extra)) for e in kept} == told
    assert len(kept) == len(told) == len(heard)
    assert [event.at for event in kept] == sorted(event.at for event in kept)


async def test_events_hold_no_tokens_and_nothing_of_payload_and_data(life: Facade, heard: Heard) -> None:
    issued = await life.create("user-1", payload={"plan": "of-the-payload"}, data="of-the-data", anti_csrf=True)
    refreshed = await life.refresh(issued.refresh_token, anti_csrf_token=issued.anti_csrf_token)
    await life.revoke(issued.session.handle)
    text = f"{heard!r} {await all_events(life)!r}"
    tokens = (issued.access_token, issued.refresh_token, refreshed.refresh_token, issued.anti_csrf_token)
    for secret in ("of-the-payload", "of-the-data", *tokens):
        assert secret not in text


async def test_another_process_sees_what_happened(life: Facade, store_url: str) -> None:
    sessions = life.sessions
    twin = await open_facade("sync", store_url, sessions.config)
    try:
        begin = (await twin.events()).cursor
        issued = await life.create("user-1")
        batch = await twin.events(begin)
        assert [(event.name, event.handle) for event in batch.events] == [("session_created", issued.session.handle)]
        assert (await twin.events(batch.cursor)).events == ()
    finally:
        await twin.close()


async def test_without_the_setting_no_stream_is_written(store_url: str, unique_prefix: str, heard: Heard) -> None:
    life = await open_facade("sync", store_url, settings(unique_prefix), on_event=heard)
    try:
        await life.revoke((await life.create("user-1")).session.handle)
        await life.revoke_all()
        assert [event.name for event in heard[-3:]] == ["session_created", "session_revoked", "session_revoked"]
        assert (await life.events()).events == ()
    finally:
        await life.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_the_function_raises_is_logged_and_breaks_nothing(
    kind: str, embedded_url: str, unique_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("the listener is broken")

    life = await open_facade(kind, embedded_url, settings(unique_prefix), on_event=fail)
    try:
        with caplog.at_level(logging.ERROR, "fastverify.events"):
            issued = await life.create("user-1")
        assert life.verify(issued.access_token).user_id == "user-1"
        assert "on_event failed at session_created" in caplog.text and "the listener is broken" in caplog.text
    finally:
        await life.close()


async def test_an_asynchronous_function_is_awaited_and_only_where_that_can_be(
    embedded_url: str, unique_prefix: str
) -> None:
    told = list[str]()

    async def listen(event: Event) -> None:
        told.append(event.name)

    life = await open_facade("async", embedded_url, settings(unique_prefix), on_event=listen)
    await life.create("user-1")
    await life.close()
    assert told == ["key_rotated", "key_rotated", "session_created"]
    store = open_store(embedded_url)
    with pytest.raises(ConfigError, match="AsyncSessions"):
        Sessions(store, settings(unique_prefix), on_event=listen)
    for manager in (Sessions, AsyncSessions):
        with pytest.raises(ConfigError, match="on_event"):
            manager(store, settings(unique_prefix), on_event="listen")  # type: ignore[arg-type]
    store.close()


async def test_a_reason_is_a_short_text(life: Facade) -> None:
    handle = (await life.create("user-1")).session.handle
    for why in ("", "x" * 65, "two\nlines", None, 7):
        for call in (life.revoke(handle, why=why), life.revoke_many([handle], why=why), life.revoke_user("u", why=why)):
            with pytest.raises(ValueError, match="why"):
                await call
    assert await life.handles("user-1") == [handle]


@pytest.mark.parametrize("cursor", ["", "0", "0-", "x.y", 7, "0-.0-.0-.0-", "0-.0-.0-.0-.0-.0-"])
async def test_a_cursor_that_is_none_is_refused(life: Facade, cursor: Any) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await life.events(cursor)


@pytest.mark.parametrize("limit", [0, 1001, True, "7", None])
async def test_a_limit_that_is_none_is_refused(life: Facade, limit: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        await life.events(limit=limit)


# --- the streams ---


@pytest.fixture
def lab(store: Store, unique_prefix: str) -> Iterator[Lab]:
    lab = Lab(store, unique_prefix, event_stream=10, shards=1)
    yield lab
    lab.close()


def stream_of(lab: Lab) -> str:
    return f"{lab.authority.placement.tag(0)}:events"


def read(lab: Lab, after: str | None = None, limit: int = 1000) -> tuple[list[str], bool, str]:
    """The reasons of the events, whether some were missed, and the cursor."""
    batch = lab.run(flows.read_events(lab.authority, after, limit))
    return [event.why or event.name for event in batch.events], batch.missed, batch.cursor


def tell(lab: Lab, why: str) -> None:
    lab.call("event", lab.authority.placement.tag(0), 10, "session_revoked", "", "user-1", "public", why)


def tell_as(lab: Lab, primary: str, seq: int, why: str) -> None:
    """As another primary would have written it."""
    fields = {"name": "session_revoked", "at": lab.now_ms(), "primary": primary, "handle": "", "user": "user-1"}
    lab.redis.xadd(stream_of(lab), {**fields, "tenant": "public", "why": why}, id=f"{seq}-0")


def last_seq(lab: Lab) -> int:
    ((name, _),) = lab.redis.xrevrange(stream_of(lab), count=1)
    return int(name.partition(b"-")[0])


def test_every_verdict_of_a_refresh_that_is_answered_is_written_once(lab: Lab) -> None:
    issued = lab.create()
    lab.refresh(issued.refresh_token)
    lab.advance(D + 5)
    lab.refresh(issued.refresh_token)
    lab.refresh(issued.refresh_token)
    lab.confirm(issued, 1)
    lab.advance(W + 5)
    assert lab.decide(issued, 0)[0] == b"THEFT"
    assert read(lab)[0] == ["session_created", "same", "rotated", "again", "one_behind"]


def test_a_refresh_that_is_refused_writes_nothing(lab: Lab) -> None:
    issued = lab.create()
    assert lab.decide(issued, 0, deadline=0)[0] == b"LATE"
    lab.revoke(issued.session.handle)
    assert lab.decide(issued, 0)[0] == b"GONE"
    assert read(lab)[0] == ["session_created", "revoked"]


def test_a_reader_that_keeps_up_misses_nothing_though_the_stream_is_trimmed(lab: Lab) -> None:
    cursor, found = read(lab)[2], list[str]()
    for n in range(1000):
        tell(lab, f"w{n}")
        if n % 5 == 4:
            reasons, missed, cursor = read(lab, cursor)
            found += reasons
            assert not missed
    assert found == [f"w{n}" for n in range(1000)]
    assert 10 <= lab.redis.xlen(stream_of(lab)) < 1000


def test_a_reader_that_was_away_too_long_is_told_and_gets_what_is_left(lab: Lab) -> None:
    tell(lab, "read")
    cursor = read(lab)[2]
    for n in range(1000):
        tell(lab, f"w{n}")
    reasons, missed, cursor = read(lab, cursor)
    assert missed and reasons[-1] == "w999" and "w0" not in reasons
    assert read(lab, cursor) == ([], False, cursor), "it is said once"


def test_a_reader_that_began_before_the_first_event_is_told_of_those_it_missed(lab: Lab) -> None:
    cursor = read(lab)[2]
    tell(lab, "first")
    assert read(lab, cursor)[:2] == (["first"], False)
    for _ in range(1000):
        tell(lab, "more")
    assert read(lab, cursor)[1] is True
    assert read(lab)[1] is False, "who asks for what is left misses nothing"


def test_after_a_failover_that_lost_events_a_reader_goes_on_with_those_of_the_new_primary(lab: Lab) -> None:
    for why in ("a", "b", "lost 1", "lost 2"):
        tell(lab, why)
    reasons, _, cursor = read(lab)
    assert reasons == ["a", "b", "lost 1", "lost 2"]
    seq = last_seq(lab) - 2
    lab.redis.xtrim(stream_of(lab), maxlen=0)
    lab.redis.delete(stream_of(lab))
    own = cursor.partition(".")[2].partition("-")[2]
    for at, why in ((seq - 1, "a"), (seq, "b")):
        tell_as(lab, own, at, why)
    reasons, missed, unchanged = read(lab, cursor)
    assert (reasons, missed) == ([], True), "it has lost some, and so may have others that nobody has read"
    for n, why in enumerate(("new 1", "new 2", "new 3")):
        tell_as(lab, "0123abcd", seq + 1 + n, why)
    reasons, missed, cursor = read(lab, unchanged)
    assert (reasons, missed) == (["new 1", "new 2", "new 3"], True)
    assert read(lab, cursor) == ([], False, cursor)


def test_a_store_that_was_emptied_is_another_stream(lab: Lab) -> None:
    for _ in range(3):
        tell(lab, "old")
    cursor, emptied_at = read(lab)[2], lab.now_ms()
    lab.redis.delete(stream_of(lab))
    assert read(lab, cursor)[:2] == ([], True)
    while lab.now_ms() <= emptied_at:  # nobody empties a store and fills it within a millisecond
        pass
    for n in range(5):
        tell(lab, f"new {n}")
    assert read(lab, cursor)[:2] == ([f"new {n}" for n in range(5)], True)


def test_an_event_that_no_script_wrote_is_written_with_all_that_it_says(lab: Lab) -> None:
    handle = lab.create().session.handle
    event = Event(
        name="impersonation_started",
        at=0,
        handle=handle,
        user_id="user-1",
        tenant="public",
        actor="admin",
        why="support",
        extra={"minutes": 5, "ticket": "é"},
    )
    lab.run(flows.record_event(lab.authority, event))
    _, kept = lab.run(flows.read_events(lab.authority, None, 10)).events
    assert (kept.name, kept.handle, kept.user_id, kept.tenant) == (event.name, handle, "user-1", "public")
    assert (kept.actor, kept.why, kept.extra) == ("admin", "support", {"minutes": 5, "ticket": "é"})
    assert kept.at > 0


def test_streams_are_merged_by_time_and_none_is_passed_over() -> None:
    def entry(seq: int, at: int) -> tuple[int, dict[str, str]]:
        fields = {"name": "session_created", "at": str(at), "primary": "ab", "handle": "", "user": f"{at}"}
        return seq, {**fields, "tenant": "", "why": ""}

    # The second stream's clock was put back between its two events.
    parts = [StreamPart(False, [entry(5, 10), entry(6, 40)]), StreamPart(True, [entry(1, 30), entry(2, 20)])]
    batch = merged(parts, [(4, "ab"), (0, "")], 2)
    assert ([event.at for event in batch.events], batch.cursor, batch.missed) == ([10, 30], "5-ab.1-ab", True)
    batch = merged([StreamPart(False, [entry(6, 40)]), StreamPart(False, [entry(2, 20)])], [(5, "ab"), (1, "ab")], 9)
    assert ([event.at for event in batch.events], batch.cursor, batch.missed) == ([20, 40], "6-ab.2-ab", False)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_store_that_is_away_fails_no_call_for_an_event(
    kind: str, embedded_url: str, unique_prefix: str, heard: Heard, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    def away(*args: Any) -> Any:
        raise StoreUnavailable("away")
        yield

    life = await open_facade(kind, embedded_url, settings(unique_prefix, event_stream=10), on_event=heard)
    try:
        await life.create("user-1")
        heard.clear()
        monkeypatch.setattr(flows, "record_event", away)
        await life.revoke_all()
        assert heard.take() == [("session_revoked", None, "all")]
        assert "the event session_revoked is not in the store's stream" in caplog.text
    finally:
        await life.close()
