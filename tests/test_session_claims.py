"""Session claims: the rules, with no store; then by handle and at sign-in, on every store, through both managers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from facades import Clock, Facade, open_facade, settings

from fastverify import (
    BooleanClaim,
    PrimitiveArrayClaim,
    PrimitiveClaim,
    SessionClaim,
    SessionClaimValidator,
    Unauthorised,
    authenticated_within,
)
from fastverify.claims_by_handle import AsyncSessionClaims
from fastverify.session_claims import Draft, MaxAge, Validators, check, chosen, given
from fastverify.steps import Steps, run, run_async

NOW = 1_800_000_000.25
MS = 1_800_000_000_250

PLAN = PrimitiveClaim("plan")
VERIFIED = BooleanClaim("st-ev")
ROLES = PrimitiveArrayClaim("st-role")


def held(key: str, value: Any, age: float = 0) -> dict[str, Any]:
    """A payload with a claim that was fetched so many seconds ago."""
    return {key: {"v": value, "t": MS - int(age * 1000)}}


# --- one validator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validator", "good", "bad", "expected"),
    [
        (PLAN.has_value("pro"), "pro", "free", {"expectedValue": "pro"}),
        (VERIFIED.is_true(), True, False, {"expectedValue": True}),
        (VERIFIED.is_false(), False, True, {"expectedValue": False}),
        (ROLES.includes("a"), ["b", "a"], ["b"], {"expectedToInclude": "a"}),
        (ROLES.excludes("a"), ["b"], ["a"], {"expectedToNotInclude": "a"}),
        (ROLES.includes_all(["a", "b"]), ["b", "c", "a"], ["a", "c"], {"expectedToInclude": ["a", "b"]}),
        (ROLES.includes_any(["a", "b"]), ["b", "c"], ["c"], {"expectedToIncludeAtLeastOneOf": ["a", "b"]}),
        (ROLES.excludes_all(["a", "b"]), ["c"], ["c", "b"], {"expectedToNotInclude": ["a", "b"]}),
    ],
    ids=lambda case: getattr(case, "id", None),
)
def test_reasons_are_those_that_the_clients_know(
    validator: SessionClaimValidator, good: Any, bad: Any, expected: dict[str, Any]
) -> None:
    assert validator.claim is not None
    key = validator.claim.key
    assert validator.id == key
    assert validator.validate(held(key, good), NOW) is None
    assert validator.validate(held(key, bad), NOW) == {"message": "wrong value", **expected, "actualValue": bad}
    missing = {"message": "value does not exist", **expected, "actualValue": None}
    assert validator.validate({}, NOW) == missing


@pytest.mark.parametrize(
    "member",
    [None, "pro", ["pro"], {}, {"v": "pro"}, {"v": None, "t": MS}, {"v": "pro", "t": "x"}, {"v": "x", "t": True}],
)
def test_what_is_not_of_this_form_is_no_value_and_is_refetched(member: Any) -> None:
    payload = {"plan": member}
    assert PLAN.value_in(payload) is None and PLAN.fetched_at(payload) is None
    validator = PLAN.has_value("pro")
    assert validator.should_refetch(payload, NOW)
    assert validator.validate(payload, NOW)["message"] == "value does not exist"


def test_a_list_claim_takes_nothing_but_a_list() -> None:
    for value in ("admin", {"admin": 1}, 1):
        assert ROLES.includes("admin").validate(held("st-role", value), NOW)["message"] == "value does not exist"
        assert ROLES.excludes("x").validate(held("st-role", value), NOW)["message"] == "value does not exist"


def test_one_is_not_true() -> None:
    assert VERIFIED.is_true().validate(held("st-ev", 1), NOW)["message"] == "wrong value"
    assert VERIFIED.is_false().validate(held("st-ev", 0), NOW)["message"] == "wrong value"
    assert ROLES.includes(1).validate(held("st-role", [True]), NOW)["message"] == "wrong value"
    assert PLAN.has_value(1).validate(held("plan", 1.0), NOW) is None


@pytest.mark.parametrize(
    ("default", "asked", "age", "old"),
    [
        (None, ..., 10**6, False),
        (60, ..., 60, False),
        (60, ..., 60.001, True),
        (60, 5, 6, True),
        (60, None, 10**6, False),
        (60, 0, 0.001, True),
        (0, ..., 0.001, True),
        (None, 0.5, 0.6, True),
    ],
)
def test_the_age_that_counts(default: float | None, asked: MaxAge, age: float, old: bool) -> None:
    validator = PrimitiveClaim("plan", default_max_age=default).has_value("pro", asked)
    payload = held("plan", "pro", age)
    reason = validator.validate(payload, NOW)
    assert validator.should_refetch(payload, NOW) is old
    if old:
        limit = default if asked is ... else asked
        assert reason == {"message": "expired", "ageInSeconds": age, "maxAgeInSeconds": limit}
    else:
        assert reason is None


def test_age_is_judged_before_the_value() -> None:
    assert PLAN.has_value("pro", 1).validate(held("plan", "free", 2), NOW)["message"] == "expired"


@pytest.mark.parametrize("age", [0, -5])
def test_zero_refetches_even_what_is_of_this_moment_or_of_a_clock_ahead(age: float) -> None:
    validator = PLAN.has_value("pro", 0)
    assert validator.should_refetch(held("plan", "pro", age), NOW)
    assert validator.validate(held("plan", "pro", age), NOW) is None


def test_an_id_of_ones_own() -> None:
    assert VERIFIED.is_true(id="must-be-verified").id == "must-be-verified"


@pytest.mark.parametrize("key", ["", "sub", "exp", "sessionHandle", "iss", "stt", None])
def test_a_key_that_a_session_sets_itself_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="key"):
        PrimitiveClaim(key)


@pytest.mark.parametrize("age", [-1, float("nan")])
def test_an_age_that_makes_no_sense_is_refused(age: float) -> None:
    for make in (lambda: PrimitiveClaim("x", default_max_age=age), lambda: PLAN.has_value(1, age)):
        with pytest.raises(ValueError, match="seconds"):
            make()
    with pytest.raises(ValueError, match="seconds"):
        authenticated_within(age)


@pytest.mark.parametrize("values", ["admin", {"admin"}, 1])
def test_several_values_are_a_list(values: Any) -> None:
    with pytest.raises(TypeError):
        ROLES.includes_any(values)


def test_none_is_no_value_to_set() -> None:
    with pytest.raises(ValueError, match="remove"):
        given(PLAN, None, NOW)


def test_step_up_knows_when_the_user_last_signed_in() -> None:
    validator = authenticated_within(300)
    assert (validator.id, validator.claim, validator.should_refetch({}, NOW)) == ("auth_time", None, False)
    assert validator.validate({"auth_time": int(NOW) - 300}, NOW) is None
    old = validator.validate({"auth_time": int(NOW) - 301}, NOW)
    assert old == {"message": "expired", "ageInSeconds": 301, "maxAgeInSeconds": 300}
    for absent in (None, True, str(int(NOW)), NOW):
        assert validator.validate({"auth_time": absent}, NOW) == {"message": "value does not exist"}


# --- a whole check --------------------------------------------------------------------------------------------------


class Check:
    """One check of a payload; what it fetched and merged."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.holder = Draft("user-1", "login-1", "public", payload)
        self.events: list[Any] = []

    def fetch(self, value: Any, name: str = "fetch") -> Callable[..., Any]:
        def fetch(*whose: Any) -> Any:
            self.events.append((name, *whose))
            return value

        return fetch

    def merge(self, patch: dict[str, Any]) -> Steps[None]:
        self.events.append(("merge", patch))
        yield from ()

    def run(self, *validators: SessionClaimValidator) -> list[dict[str, Any]]:
        return run(check(self.holder, validators, NOW, self.merge))


def test_what_needs_no_refetch_fetches_and_merges_nothing() -> None:
    checked = Check(held("plan", "pro", 10))
    claim = PrimitiveClaim("plan", checked.fetch("free"), default_max_age=60)
    assert checked.run(claim.has_value("pro")) == []
    assert checked.events == []


def test_everything_is_refetched_then_merged_once_then_validated_and_all_failures_come() -> None:
    checked = Check({"kept": 1})
    plan = PrimitiveClaim("plan", checked.fetch("free", "plan"))
    roles = PrimitiveArrayClaim("st-role", checked.fetch(["guest"], "roles"))

    class Own(SessionClaimValidator):
        id = "own"

        def validate(self, payload: Mapping[str, Any], now: float) -> Any:
            checked.events.append(("validate", dict(payload), now))
            return {"message": "never"}

    failures = checked.run(Own(), plan.has_value("pro"), roles.includes("admin", id="admins"))
    assert failures == [
        {"id": "own", "reason": {"message": "never"}},
        {"id": "plan", "reason": {"message": "wrong value", "expectedValue": "pro", "actualValue": "free"}},
        {"id": "admins", "reason": {"message": "wrong value", "expectedToInclude": "admin", "actualValue": ["guest"]}},
    ]
    patch = {"plan": {"v": "free", "t": MS}, "st-role": {"v": ["guest"], "t": MS}}
    assert checked.events == [
        ("plan", "user-1", "login-1", "public", {"kept": 1}),
        ("roles", "user-1", "login-1", "public", {"kept": 1, "plan": patch["plan"]}),
        ("merge", patch),
        ("validate", {"kept": 1, **patch}, NOW),
    ]


def test_a_claim_is_fetched_once_however_many_validators_ask() -> None:
    for value in ("pro", None):
        checked = Check({})
        claim = PrimitiveClaim("plan", checked.fetch(value), default_max_age=0)
        checked.run(claim.has_value("pro"), claim.has_value("pro", id="again"))
        assert [event[0] for event in checked.events].count("fetch") == 1


def test_a_fetch_that_finds_nothing_leaves_what_is_there_and_merges_nothing() -> None:
    checked = Check(held("plan", "pro", 10))
    claim = PrimitiveClaim("plan", checked.fetch(None), default_max_age=5)
    (failure,) = checked.run(claim.has_value("pro"))
    assert failure["reason"] == {"message": "expired", "ageInSeconds": 10, "maxAgeInSeconds": 5}
    assert [event[0] for event in checked.events] == ["fetch"]


def test_what_always_has_to_be_fetched_is_not_too_old_once_it_has_been() -> None:
    checked = Check(held("plan", "free", 1))
    assert checked.run(PrimitiveClaim("plan", checked.fetch("pro"), default_max_age=0).has_value("pro")) == []


def test_a_payload_is_never_changed_in_place() -> None:
    payload = {"kept": {"deep": 1}}

    def fetch(user_id: str, login_id: str, tenant: str, payload: dict[str, Any]) -> str:
        payload.clear()
        return "pro"

    assert Check(payload).run(PrimitiveClaim("plan", fetch).has_value("pro")) == []
    assert payload == {"kept": {"deep": 1}}


def test_an_empty_reason_is_a_failure_that_says_no_more_than_its_name() -> None:
    class Own(SessionClaimValidator):
        id = "own"

        def validate(self, payload: Mapping[str, Any], now: float) -> Any:
            return {}

    assert Check({}).run(Own()) == [{"id": "own"}]


@pytest.mark.parametrize("verdict", [True, False, "no"])
def test_a_verdict_that_is_neither_none_nor_a_reason_passes_for_neither(verdict: Any) -> None:
    class Own(SessionClaimValidator):
        id = "own"

        def validate(self, payload: Mapping[str, Any], now: float) -> Any:
            return verdict

    with pytest.raises(TypeError, match="'own'"):
        Check({}).run(Own())


class Plain(SessionClaim):
    """A claim in a form of its own: the value, bare."""

    def pack(self, value: Any, now: float) -> Any:
        return value

    def value_in(self, payload: Mapping[str, Any]) -> Any:
        return payload.get(self.key)


class Adult(SessionClaimValidator):
    id = "adult"

    def __init__(self, claim: SessionClaim) -> None:
        self.claim = claim

    def should_refetch(self, payload: Mapping[str, Any], now: float) -> bool:
        return self.claim is not None and self.claim.value_in(payload) is None

    async def validate(self, payload: Mapping[str, Any], now: float) -> Any:
        return None if payload["age"] >= 18 else {"message": "too young"}


async def test_claims_and_validators_of_ones_own_may_be_asynchronous() -> None:
    async def fetch(*whose: Any) -> int:
        await asyncio.sleep(0)
        return 17

    checked = Check({})
    failures = await run_async(check(checked.holder, [Adult(Plain("age", fetch))], NOW, checked.merge))
    assert failures == [{"id": "adult", "reason": {"message": "too young"}}]
    assert checked.events == [("merge", {"age": 17})]


def test_an_asynchronous_fetcher_or_validator_is_refused_by_blocking_code() -> None:
    async def fetch(*whose: Any) -> int:
        return 18

    for validator in (Adult(Plain("age", fetch)), Adult(Plain("age", lambda *_: 18))):
        with pytest.raises(TypeError, match="asynchronous"):
            Check({}).run(validator)


# --- which validators -----------------------------------------------------------------------------------------------


def test_a_list_replaces_the_general_ones_and_a_function_gets_them() -> None:
    general, own = PLAN.has_value("pro"), VERIFIED.is_true()
    assert run(chosen(None, [general], "session")) == [general]
    assert run(chosen([], [general], "session")) == []
    assert run(chosen([own], [general], "session")) == [own]
    assert run(chosen(lambda validators, session: [*validators, own], [general], "session")) == [general, own]
    assert run(chosen(None, lambda session: [general] if session == "session" else [], "session")) == [general]
    assert run(chosen(lambda validators, _: validators[:0], lambda _: (general,), "session")) == []


async def test_the_functions_may_be_asynchronous() -> None:
    async def general(session: Any) -> Validators:
        return [PLAN.has_value("pro")]

    async def asked(validators: list[SessionClaimValidator], session: Any) -> Validators:
        return [*validators, VERIFIED.is_true()]

    assert [v.id for v in await run_async(chosen(asked, general, "session"))] == ["plan", "st-ev"]


@pytest.mark.parametrize("wrong", [iter([]), {PLAN}, PLAN, 1, "plan"])
def test_what_could_be_empty_by_the_second_request_is_refused(wrong: Any) -> None:
    for asked, general in ((wrong, ()), (None, wrong), (lambda *_: wrong, ())):
        with pytest.raises(TypeError):
            run(chosen(asked, general, "session"))


# --- by handle, and at sign-in --------------------------------------------------------------------------------------


@pytest.fixture(params=["sync", "async"])
async def life(
    request: pytest.FixtureRequest, store_url: str, unique_prefix: str, clock: Clock
) -> AsyncIterator[Facade]:
    """A session service on each store, by each manager, whose clock is moved by hand."""
    facade = await open_facade(request.param, store_url, settings(unique_prefix), clock=clock)
    yield facade
    await facade.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


def counting(values: list[Any]) -> Callable[..., Any]:
    """A fetcher that hands out one value after another, and the last one for ever."""

    def fetch(user_id: str, login_id: str, tenant: str, payload: dict[str, Any]) -> Any:
        assert (user_id, login_id, tenant) == ("user-1", "login-1", "acme")
        return values.pop(0) if len(values) > 1 else values[0]

    return fetch


async def begin(life: Facade, **options: Any) -> str:
    issued = await life.create("user-1", login_id="login-1", tenant="acme", **options)
    return str(issued.session.handle)


async def test_fetch_set_get_remove_by_handle(life: Facade) -> None:
    claims, handle = life.session_claims, await begin(life, payload={"kept": 1})
    claim = PrimitiveClaim("plan", counting(["pro", None]))
    assert await claims.get(handle, claim) is None
    assert await claims.fetch_and_set(handle, claim) is True
    assert await claims.get(handle, claim) == "pro"
    assert await claims.fetch_and_set(handle, claim) is True, "there is nothing to fetch, and there is a session"
    assert await claims.get(handle, claim) == "pro"
    assert await claims.set(handle, claim, "team") is True
    info = await life.info(handle)
    assert info.payload == {"kept": 1, "plan": {"v": "team", "t": int(life.sessions.now() * 1000)}}
    assert await claims.remove(handle, claim) is True
    assert (await life.info(handle)).payload == {"kept": 1}


async def test_a_session_that_is_not_there_is_told_apart(life: Facade) -> None:
    claims, handle = life.session_claims, await begin(life)
    await life.revoke(handle)
    claim = PrimitiveClaim("plan", counting(["pro"]))
    assert await claims.fetch_and_set(handle, claim) is False
    assert await claims.set(handle, claim, "pro") is False
    assert await claims.remove(handle, claim) is False
    assert await claims.reauthenticated(handle) is False
    assert await claims.get(handle, claim) is None
    for validators in ([], [claim.has_value("pro")]):
        with pytest.raises(Unauthorised):
            await claims.validate(handle, validators)


async def test_validate_by_handle_refetches_and_keeps_what_it_has_fetched(life: Facade, clock: Clock) -> None:
    claims, handle = life.session_claims, await begin(life)
    claim = PrimitiveClaim("plan", counting(["free", "pro"]), default_max_age=60)
    (failure,) = await claims.validate(handle, [claim.has_value("pro")])
    reason = {"message": "wrong value", "expectedValue": "pro", "actualValue": "free"}
    assert failure == {"id": "plan", "reason": reason}
    assert await claims.get(handle, claim) == "free"
    assert await claims.validate(handle, [claim.has_value("pro")]) == [failure], "young enough: not fetched again"
    clock.now += 61
    assert await claims.validate(handle, [claim.has_value("pro")]) == []
    assert await claims.get(handle, claim) == "pro"


async def test_claims_are_built_at_sign_in(life: Facade) -> None:
    seen: list[Any] = []
    plan = PrimitiveClaim("plan", counting(["pro"]))
    nothing = PrimitiveClaim("nothing", counting([None]))
    roles = PrimitiveArrayClaim("st-role", lambda *whose: seen.append(whose[3]) or ["admin"])
    options = {"login_id": "login-1", "tenant": "acme", "payload": {"kept": 1}}
    session = (await life.create("user-1", claims=[plan, nothing, roles], **options)).session
    assert set(session.payload) == {"kept", "plan", "st-role"}
    assert (session.payload["kept"], plan.value_in(session.payload), roles.value_in(session.payload)) == (
        1,
        "pro",
        ["admin"],
    )
    assert set(seen[0]) == {"kept", "plan"}


async def test_when_the_user_signed_in_is_in_the_payload_only_where_it_is_asked_for(life: Facade, clock: Clock) -> None:
    assert len((await life.create("user-1")).session.claims) == 10
    issued = await life.create("user-1", authenticated=True)
    assert dict(issued.session.payload) == {"auth_time": int(clock.now)}
    handle = issued.session.handle
    clock.now += 301
    refreshed = await life.refresh(issued.refresh_token)
    assert dict(refreshed.session.payload) == dict(issued.session.payload), "a refresh is no sign-in"
    (failure,) = await life.session_claims.validate(handle, [authenticated_within(300)])
    assert (failure["id"], failure["reason"]["message"]) == ("auth_time", "expired")
    assert await life.session_claims.reauthenticated(handle) is True
    assert await life.session_claims.validate(handle, [authenticated_within(300)]) == []


async def test_concurrent_claims_lose_nothing(life: Facade) -> None:
    handle = await begin(life)
    several = [PrimitiveClaim(f"claim-{n}", lambda *_, n=n: n) for n in range(12)]
    claims = life.sessions.session_claims
    if isinstance(claims, AsyncSessionClaims):
        await asyncio.gather(*(claims.fetch_and_set(handle, claim) for claim in several))
    else:
        await asyncio.gather(*(asyncio.to_thread(claims.fetch_and_set, handle, claim) for claim in several))
    payload = (await life.info(handle)).payload
    assert [claim.value_in(payload) for claim in several] == list(range(12))


async def test_an_asynchronous_fetcher_is_for_asynchronous_sessions(life: Facade, request: Any) -> None:
    async def fetch(*whose: Any) -> str:
        return "pro"

    claim, handle = PrimitiveClaim("plan", fetch), await begin(life)
    if request.node.callspec.params["life"] == "async":
        assert await life.session_claims.fetch_and_set(handle, claim)
        assert await life.session_claims.get(handle, claim) == "pro"
        return
    for call in (
        lambda: life.session_claims.fetch_and_set(handle, claim),
        lambda: life.session_claims.validate(handle, [claim.has_value("pro")]),
        lambda: life.create("user-2", claims=[claim]),
    ):
        with pytest.raises(TypeError, match="use AsyncSessions"):
            await call()
    assert (await life.info(handle)).payload == {}
    assert await life.handles("user-2") == []
