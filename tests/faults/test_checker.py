"""The checker finds what is wrong: for each rule journals that break it, and nothing else, made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .checker import RULES, Report, Rules, as_json, as_text, check
from .journal import Event, Journal, digest, merge

W, B, D = 10.0, 5.0, 21.0
RULE = Rules(window=W, staleness=B, shards=4, push_back=5.0)
S = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


def event(kind: str, at: float, **what: Any) -> Event:
    """Something that took a tenth of a second. The wall clock began with the monotonic one."""
    what = {"session": S, "who": "honest", "asked": "service", "process": "clients"} | what
    ended = what.pop("ended", at + 0.1)
    return Event(kind=kind, began=at, ended=ended, wall=ended, **what)


def create(at: float = 0, **what: Any) -> Event:
    what = {"user": "ann", "tenant": "public", "token": "t0", "expires_at": 1000, "ends_at": 5000} | what
    return event("create", at, child_generation=0, child="r0", issued_at=int(at), **what)


def refresh(at: float, shown: int, to: int | None, **what: Any) -> Event:
    """``to`` None: refused, as the result says."""
    if to is not None:
        what = {"child_generation": to, "child": f"r{to}", "expires_at": int(at) + 1000} | what
    return event("refresh", at, generation=shown, token=f"r{shown}", **what)


def verify(at: float, result: str = "ok", **what: Any) -> Event:
    what = {"generation": 0, "token": "t0", "asked": "gate", "process": "gate-1", "expires_at": 1000} | what
    return event("verify", at, result=result, **what)


def revoke(at: float, **what: Any) -> Event:
    what = {"scope": "session", "target": S, "who": "revoker", "session": ""} | what
    return event("revoke", at, **what)


def fault(at: float, ended: float, **what: Any) -> Event:
    return Event(kind="fault", began=at, ended=ended, fault="fault", **what)


def report(*events: Event, **rules: Any) -> Report:
    return check(events, dataclasses.replace(RULE, **rules))


def broken(*events: Event, **rules: Any) -> set[str]:
    return report(*events, **rules).broken()


#: A life in which every rule is tested and none is broken.
GOOD = (
    create(0),
    verify(1),
    refresh(30, 0, 1),
    refresh(31, 0, 1, answered=S),
    verify(32, generation=1, token="t1"),
    event("info", 33, ends_at=5000),
    refresh(55, 1, 2),
    refresh(56, 2, 2),
    verify(59),
    refresh(60, 0, None, result="unavailable", who="thief"),
    fault(60.5, 62),
    verify(63, "unavailable"),
    verify(64),
    refresh(64, 2, 2),
    revoke(65, session=S, answered=S, wait="propagated"),
    verify(66, "unauthorised"),
    event("info", 67, result="gone"),
    refresh(68, 0, None, result="unauthorised", who="thief"),
    verify(80, "unauthorised"),
    create(90, session=OTHER),
    fault(100, 101, lost_from=95, lost_to=100, new_primary=True),
    revoke(97, target=OTHER, wait="replicated"),
    verify(112, "unauthorised", session=OTHER),
    refresh(112, 0, None, session=OTHER, result="unauthorised"),
)


def test_a_good_journal_tests_every_rule_and_breaks_none() -> None:
    found = report(*GOOD)
    assert not found.violations
    assert {rule for rule in RULES if found.tested[rule]} == set(RULES)


def breaches() -> Iterator[Any]:
    def case(rule: str, name: str, *events: Event, **rules: Any) -> Any:
        return pytest.param(rule, events, rules, id=f"{rule}-{name}")

    steal = {"who": "thief"}
    yield case("I1", "two_children", create(), refresh(30, 0, 1), refresh(31, 0, 1, child="another"))
    yield case("I1", "two_behind_accepted", create(), refresh(30, 0, 1), refresh(60, 1, 2), refresh(61, 0, 2))
    yield case("I2", "decreases", create(), refresh(30, 0, 1), refresh(60, 1, 2), refresh(61, 1, 1))
    yield case("I2", "less_than_shown", create(), refresh(30, 1, 0, child="r0"))
    yield case("I3", "gone", create(), refresh(30, 0, None, result="unauthorised"))
    yield case("I3", "gone_before_it_was_revoked", create(), refresh(9, 0, None, result="unauthorised"), revoke(10))
    yield case("I3", "honest_theft", create(), refresh(30, 0, 1), verify(31, generation=1, token="t1"),
               refresh(60, 0, None, result="theft"))  # fmt: skip
    yield case("I3", "theft_inside_the_window", create(), refresh(30, 0, 1), refresh(35, 1, 1),
               refresh(36, 0, None, result="theft", **steal))  # fmt: skip
    yield case("I4", "used_and_accepted", create(), refresh(30, 0, 1), refresh(60, 1, 1),
               refresh(75, 0, 1, **steal))  # fmt: skip
    yield case("I4", "older_and_accepted", create(), refresh(30, 0, 1), refresh(60, 1, 2),
               refresh(61, 0, 2, **steal))  # fmt: skip
    yield case("I4", "accepted_after_the_hold", create(), fault(20, 21, new_primary=True), refresh(22, 0, 0),
               refresh(50, 0, 1), refresh(51, 1, 1), refresh(70, 0, 1, **steal))  # fmt: skip
    yield case("I4", "accepted_before_the_store_was_emptied", create(), refresh(30, 0, 1), refresh(60, 1, 1),
               refresh(75, 0, 1, **steal), fault(90, 91, lost_from=0, lost_to=90))  # fmt: skip
    yield case("I5", "refreshed_after_revocation", create(), revoke(10), refresh(11, 0, 0))
    yield case("I5", "refreshed_after_user", create(), revoke(10, scope="user", target="ann"), refresh(11, 0, 0))
    yield case("I5", "refreshed_after_tenant", create(), revoke(10, scope="tenant", target="public"),
               refresh(11, 0, 0))  # fmt: skip
    yield case("I5", "refreshed_after_all", create(), revoke(10, scope="all", target=""), refresh(11, 0, 0))
    yield case("I5", "refreshed_after_theft", create(), refresh(30, 0, 1), refresh(60, 1, 2),
               refresh(61, 0, None, result="theft", **steal), refresh(62, 2, 2))  # fmt: skip
    yield case("I5", "accepted_where_it_was_refused", create(), verify(11, "unauthorised"), verify(13),
               revoke(10, result="unavailable"))  # fmt: skip
    yield case("I5", "back_after_the_store_was_emptied", create(), fault(10, 11, lost_from=0, lost_to=10),
               refresh(12, 0, 0))  # fmt: skip
    yield case("I6", "there_after_revocation", create(), revoke(10), event("info", 11, ends_at=5000))
    yield case("I7", "expiry_moved", create(), event("info", 11, ends_at=5001))
    yield case("I7", "outlives_its_session", create(ends_at=900), refresh(30, 0, 1))
    yield case("I7", "expired_and_accepted", create(expires_at=20), verify(30, expires_at=20))
    yield case("I8", "refresh", create(), refresh(30, 0, 1, answered=OTHER))
    yield case("I8", "verify", create(), verify(30, answered=OTHER))
    yield case("I9", "error", create(), refresh(30, 0, None, result="error: KeyError"))
    yield case("I9", "create", create(), create(1, session="", result="unauthorised"))
    yield case("I9", "refused_without_cause", create(), verify(30, "unauthorised"))
    yield case("I9", "try_refresh_without_cause", create(), verify(30, "try_refresh"))
    yield case("I9", "refused_though_its_key_was_there_before_the_fault", create(key="k"),
               fault(10, 11, lost_from=9, lost_to=10), verify(12, "try_refresh", key="k"))  # fmt: skip
    yield case("I9", "refused_during_a_fault", create(), fault(29, 31), verify(30, "try_refresh"))
    yield case("I10", "another_child", create(), refresh(30, 0, 1), refresh(31, 0, 2))
    yield case("a", "accepted_after_B", create(), revoke(10), verify(16))
    yield case("a", "theft_accepted_after_B", create(), refresh(30, 0, 1), refresh(60, 1, 2),
               refresh(61, 0, None, result="theft", **steal), verify(70))  # fmt: skip
    yield case("a", "blacklisted_accepted", create(), revoke(10, scope="token", target="t0"), verify(16))
    yield case("a", "of_a_revoked_key_accepted", create(), revoke(10, scope="key", target="k"), verify(16, key="k"))
    yield case("c", "blacklisted_accepted", create(), revoke(10, scope="token", target="t0", wait="propagated"),
               verify(10.2))  # fmt: skip
    yield case("b", "replicated_and_lost", create(), fault(20, 21, lost_from=9, lost_to=20),
               revoke(10, wait="replicated"), refresh(22, 0, 0))  # fmt: skip
    yield case("b", "replicated_and_forgotten_by_the_next", create(), revoke(10, wait="replicated"),
               fault(20, 21, new_primary=True), verify(22))  # fmt: skip
    yield case("b", "not_pushed_back", create(), revoke(10), verify(11, "unauthorised"),
               fault(20, 21, lost_from=9, lost_to=20), verify(25, "unauthorised"), refresh(27, 0, 0))  # fmt: skip
    yield case("c", "propagated_and_accepted", create(), revoke(10, wait="propagated"), verify(10.2))
    yield case(
        "R", "too_late", create(), fault(9, 10), verify(11, "unavailable"), verify(13.1, "unavailable"), verify(14)
    )
    yield case("R", "never", create(), fault(9, 10), verify(11, "unavailable"), verify(14, "unavailable"))
    yield case("R", "only_what_is_revoked_is_refused", create(), fault(9, 10), revoke(0.5), verify(11, "unavailable"),
               verify(12, "unauthorised"), verify(15, "unavailable"))  # fmt: skip


@pytest.mark.parametrize(("rule", "events", "rules"), list(breaches()))
def test_a_breach_is_found(rule: str, events: tuple[Event, ...], rules: dict[str, Any]) -> None:
    assert rule in broken(*events, **rules)


def test_there_is_a_breach_for_every_rule() -> None:
    assert {case.values[0] for case in breaches()} == set(RULES)


def excuses() -> Iterator[Any]:
    def case(name: str, *events: Event) -> Any:
        return pytest.param(events, id=name)

    yield case("revocation_under_way", create(), refresh(10, 0, None, result="unauthorised"), revoke(9.9, ended=12))
    yield case("revocation_whose_answer_was_lost", create(), revoke(10, result="no_reply"),
               refresh(11, 0, None, result="unauthorised"), verify(12, "unauthorised"))  # fmt: skip
    yield case("theft_whose_answer_was_lost", create(), refresh(30, 0, 1), refresh(60, 1, 1),
               refresh(75, 0, None, who="thief", result="no_reply"),
               refresh(80, 1, None, result="unauthorised"))  # fmt: skip
    yield case("store_emptied", create(), fault(10, 11, lost_from=0, lost_to=10),
               refresh(12, 0, None, result="unauthorised"))  # fmt: skip
    yield case("created_while_the_store_was_emptied", create(9.5), fault(9, 11, lost_from=0, lost_to=10),
               refresh(12, 0, 0))  # fmt: skip
    yield case("revocation_that_arrived_when_its_service_had_given_up", revoke(8, scope="user", target="ann",
               result="unavailable"), create(10), fault(7, 12), verify(13, "unauthorised"))  # fmt: skip
    yield case("creation_lost", create(9.5), fault(10, 11, lost_from=9, lost_to=10),
               refresh(12, 0, None, result="unauthorised"))  # fmt: skip
    yield case("rotation_lost", create(), refresh(30, 0, 1), fault(31, 32, lost_from=29, lost_to=31),
               refresh(33, 0, 0, child="r0"))  # fmt: skip
    yield case("rotation_lost_while_held", create(), refresh(30, 0, 1), refresh(55, 1, 2),
               fault(56, 57, lost_from=54, lost_to=56, new_primary=True), refresh(58, 1, 1))  # fmt: skip
    yield case("replay_while_held", create(), refresh(30, 0, 1), refresh(55, 1, 1), fault(56, 57, new_primary=True),
               refresh(58, 1, 1), refresh(70, 0, 1, who="thief"))  # fmt: skip
    yield case("revocation_lost", create(), revoke(9.5), fault(10, 11, lost_from=9, lost_to=10), refresh(12, 0, 0),
               verify(20))  # fmt: skip
    yield case("revocation_of_a_user_whose_session_was_lost", create(9.5), fault(10, 11, lost_from=9, lost_to=10),
               revoke(12, scope="user", target="ann"), verify(30))  # fmt: skip
    yield case("absolute_end", create(ends_at=20, expires_at=20), refresh(21, 0, None, result="unauthorised"),
               verify(21, "try_refresh", expires_at=20))  # fmt: skip
    yield case("not_asked_again_after_a_fault", create(), fault(9, 10), verify(12, "unavailable"))
    yield case("unavailable_when_it_had_been_back", create(), fault(9, 10), verify(12), verify(14, "unavailable"))
    yield case("accepted_within_B", create(), revoke(10), verify(14.9))
    yield case("a_clock_that_is_ahead", create(), verify(10, "try_refresh", clock=3600.0))
    yield case("a_clock_that_was_ahead", create(), verify(10, "try_refresh", issued_at=3600, expires_at=7200))
    yield case("blacklisted_token", create(), revoke(10, scope="token", target="t0"), verify(11, "try_refresh"))
    yield case("token_of_a_revoked_key", create(), revoke(10, scope="key", target="k"),
               verify(11, "try_refresh", key="k"))  # fmt: skip
    yield case("token_of_a_lost_key", create(), refresh(9.5, 0, 0, key="k"), fault(10, 11, lost_from=9, lost_to=10),
               verify(12, "try_refresh", key="k"))  # fmt: skip
    yield case("two_children_of_two_sessions", create(), create(1, session=OTHER), refresh(30, 0, 1),
               refresh(30, 0, 1, session=OTHER, child="another"))  # fmt: skip
    yield case("the_child_is_unused", create(), refresh(30, 0, 1), refresh(90, 0, 1))


@pytest.mark.parametrize("events", list(excuses()))
def test_what_has_a_cause_is_no_breach(events: tuple[Event, ...]) -> None:
    assert not report(*events).violations


def test_the_return_of_service_is_that_of_the_slowest() -> None:
    found = report(
        *(create(), verify(5), verify(5, asked="other"), fault(9, 10), verify(10.4), verify(13.5)),
        *(verify(10.4, "unavailable", asked="other"), verify(11.9, asked="other")),
    )
    assert found.recoveries == [("fault", "", 1, pytest.approx(2.0))]


def test_what_is_served_when_it_is_first_asked_for_was_never_away() -> None:
    assert report(create(), verify(5), fault(9, 10), verify(14)).recoveries == [("fault", "", 1, 0.0)]


def test_reports_name_every_rule_and_show_what_broke_it() -> None:
    found = report(create(), revoke(10), refresh(11, 0, 0))
    text, data = as_text(found), as_json(found)
    assert all(words in text for words in RULES.values())
    assert "I5: tokens are handed out after the session's end" in text
    assert data["rules"]["I5"] == {"tested": 1, "violations": 1}


def test_a_journal_comes_back_merged_and_in_order(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, "first"), Journal(tmp_path, "second")
    written = [first.write("verify", 1.0, ended=2.0), second.write("create", 0.5, ended=1.0, child_generation=0)]
    assert merge(tmp_path) == written[::-1]


def test_a_line_that_a_killed_process_left_unfinished_is_no_event(tmp_path: Path) -> None:
    written = Journal(tmp_path, "killed").write("verify", 1.0)
    path = tmp_path / "killed.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind":"ver')
    assert merge(tmp_path) == [written]


def test_a_digest_does_not_hold_the_token() -> None:
    assert digest("token") not in ("", "token")
    assert digest("") == ""


def test_access_tokens_that_differ_in_the_signature_only_are_one() -> None:
    assert digest("header.payload.one") == digest("header.payload.two") != digest("header.other.one")


@pytest.mark.parametrize("deposed", [False, True])
def test_a_read_beside_a_deposed_primary_may_be_of_the_past(deposed: bool) -> None:
    events = create(), revoke(10), event("info", 11, ends_at=5000)
    assert broken(*events, fault(9, 12, deposed=deposed)) == (set() if deposed else {"I6"})
    assert broken(*events, fault(5, 10.9, deposed=deposed)) == {"I6"}


@pytest.mark.parametrize("replicas", [1, 2])
def test_of_two_replicas_the_other_one_may_be_promoted(replicas: int) -> None:
    """The page: lost only if the *promoted* replica lacks it; and not for longer than giving back takes."""
    lost = create(), fault(9, 20, lost_from=8, lost_to=20), revoke(10, wait="replicated"), refresh(22, 0, 0)
    assert broken(*lost, replicas=replicas) == (set() if replicas == 2 else {"b"})
    before = create(), revoke(7, wait="replicated"), fault(9, 20, lost_from=8, lost_to=20), refresh(22, 0, 0)
    assert broken(*before, replicas=replicas) == {"b"}
