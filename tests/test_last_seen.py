"""When a session was last seen: at its refresh, and at the use of an access token, about once a minute."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

import pytest
from facades import open_facade, settings, until
from session_lab import Lab

from fastverify import SessionVerifier, StoreUnavailable, flows, last_seen
from fastverify.last_seen import SPAN, LastSeen
from fastverify.session import handle_bytes

HANDLES = [str(uuid.UUID(int=n)) for n in range(9)]


class Told:
    """What the store was told, report by report."""

    def __init__(self) -> None:
        self.reports: list[list[str]] = []

    def __call__(self, handles: Sequence[bytes]) -> None:
        self.reports.append(sorted(str(uuid.UUID(bytes=handle)) for handle in handles))


def test_a_session_is_told_once_a_minute_whatever_its_requests() -> None:
    seen, told = LastSeen(), Told()
    for _ in range(100):
        seen.note(HANDLES[0])
    seen.note(HANDLES[1] + "_acme")
    seen.report(told, 0.0)
    seen.note(HANDLES[0])
    seen.report(told, SPAN - 1)
    assert told.reports == [HANDLES[:2]]
    seen.note(HANDLES[0])
    seen.report(told, SPAN)  # forgotten now
    seen.note(HANDLES[0])
    seen.report(told, SPAN + 1)
    assert told.reports == [HANDLES[:2], HANDLES[:1]]
    assert (seen.told, seen.lost) == (3, 0)


def test_what_the_store_does_not_take_is_counted_and_forgotten() -> None:
    def away(handles: Iterable[bytes]) -> None:
        raise StoreUnavailable("away")

    seen, told = LastSeen(), Told()
    seen.note(HANDLES[0])
    seen.report(away, 0.0)
    seen.report(told, 1.0)
    assert (told.reports, seen.told, seen.lost) == ([], 0, 1)


def test_a_flood_of_sessions_takes_no_more_room_than_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_seen, "_MOST_WAITING", 2)
    monkeypatch.setattr(last_seen, "_MOST_NOTED", 3)
    seen, told = LastSeen(), Told()
    for handle in HANDLES[:3]:
        seen.note(handle)
    seen.report(told, 0.0)
    for handle in HANDLES[2:5]:
        seen.note(handle)
    seen.report(told, 1.0)
    assert told.reports == [HANDLES[:2], HANDLES[2:3]]
    assert seen.lost == 3


def used(lab: Lab, *handles: str) -> None:
    lab.run(flows.note_seen(lab.authority.placement, [handle_bytes(handle) for handle in handles], SPAN))


def test_a_use_is_written_when_a_minute_has_passed_since_the_last(lab: Lab) -> None:
    issued = lab.create()
    used(lab, issued.session.handle)
    assert "used_at" not in lab.record(issued), "it was made a moment ago"
    lab.advance(SPAN + 1)
    used(lab, issued.session.handle)
    first = lab.number(issued, "used_at")
    assert first - lab.number(issued, "seen_at") > SPAN * 1000
    used(lab, issued.session.handle)
    assert lab.number(issued, "used_at") == first, "other processes say so, too"
    lab.advance(SPAN - 5)
    used(lab, issued.session.handle)
    assert lab.number(issued, "used_at") == first - (SPAN - 5) * 1000
    lab.advance(6)
    used(lab, issued.session.handle)
    assert lab.number(issued, "used_at") > first - (SPAN - 5) * 1000
    info = lab.run(flows.info(lab.authority, issued.session.handle))
    assert info is not None and info.last_seen_at == lab.number(issued, "used_at") // 1000


def test_a_use_changes_no_expiry_and_nothing_that_a_refresh_goes_by(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(SPAN + 1)
    before, expires = lab.record(issued), lab.redis.pexpiretime(lab.record_key(issued))
    used(lab, issued.session.handle)
    after = lab.record(issued)
    assert after.pop("used_at")
    assert after == before and lab.redis.pexpiretime(lab.record_key(issued)) == expires


def test_a_later_refresh_goes_before_an_earlier_use(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(SPAN + 1)
    used(lab, issued.session.handle)
    lab.advance(SPAN + 1)
    lab.refresh(issued.refresh_token)
    info = lab.run(flows.info(lab.authority, issued.session.handle))
    assert info is not None and info.last_seen_at == lab.number(issued, "seen_at") // 1000


def test_a_clock_that_was_put_back_takes_no_time_back(lab: Lab) -> None:
    issued = lab.create()
    lab.advance(-2 * SPAN)  # what is written down is of the future, now
    before = lab.record(issued)
    used(lab, issued.session.handle)
    assert lab.record(issued) == before


def test_a_use_brings_no_ended_session_back(lab: Lab) -> None:
    revoked, expired, marked = (lab.create(tenant="acme" if n == 2 else "public") for n in range(3))
    lab.revoke(revoked.session.handle)
    lab.redis.hset(lab.record_key(expired), "idle_exp", lab.now_ms() - 1)
    lab.advance(SPAN + 1)
    lab.mark("acme")
    used(lab, *(issued.session.handle for issued in (revoked, expired, marked)), HANDLES[0])
    assert lab.record(revoked) == {}
    for issued in (expired, marked):
        assert "used_at" not in lab.record(issued)


def test_sessions_of_all_shards_are_written_together(lab: Lab) -> None:
    several = [lab.create(f"user-{n}") for n in range(20)]
    lab.advance(SPAN + 1)
    used(lab, *(issued.session.handle for issued in several))
    assert all("used_at" in lab.record(issued) for issued in several)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_a_service_or_a_gateway_is_told_reaches_the_store(
    kind: str, embedded_url: str, unique_prefix: str
) -> None:
    life = await open_facade(kind, embedded_url, settings(unique_prefix))
    gateway = SessionVerifier.connect(embedded_url, issuer=life.sessions.config.issuer, prefix=unique_prefix)
    try:
        for verifier in (life.sessions.gateway, gateway):
            session = life.verify((await life.create("user-1")).access_token)
            if verifier is gateway:
                gateway.note_seen(session)
            else:
                life.sessions.note_seen(session)
            noted = verifier._follower.last_seen
            until(lambda noted=noted: noted.told == 1)  # type: ignore[misc]
    finally:
        gateway.close()
        await life.close()
