"""Session claims: values in a session's payload that are fetched, grow old, and are checked. Pure; ``now`` comes in.

Not the JWT's claims set. Section numbers are those of the description of the wire protocol.

Theory of operation
-------------------
A claim has a name in the payload and a way to fetch its value. It is stored as ``{"v": value, "t": ms of fetching}``
(6.1), so whoever holds the access token knows how old the value is, and nothing is asked as long as that will do.

A check has two passes (6.3): refetch what is missing or too old, for all validators; then merge what has been fetched,
and only then validate, all of them. So the client is told of every failure at once, and what has been fetched reaches
it even with a refusal. One ``now`` serves both passes: however long fetching takes, what this check has fetched is new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from .session import ACT, is_guest_id
from .steps import Steps
from .tokens import strip_default_claims

#: Called with ``(user_id, login_id, tenant, payload)``; returns a value or an awaitable of it. None: there is none, and
#: what is in the payload stays.
Fetch: TypeAlias = Callable[[str, str, str, dict[str, Any]], Any]
#: Seconds; 0: refetch every time; None: no limit; ``...``: the claim's own default.
MaxAge: TypeAlias = float | EllipsisType | None

#: Seconds since the epoch at which the user last showed who they are (OpenID Connect Core section 2). In the payload
#: only if the application asks for it.
AUTH_TIME: Final = "auth_time"


class Holder(Protocol):
    """Whose claims are meant: any kind of session."""

    @property
    def user_id(self) -> str: ...
    @property
    def login_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...


class Draft(NamedTuple):
    """A session that is about to be created."""

    user_id: str
    login_id: str
    tenant: str
    payload: Mapping[str, Any]


def _nothing(user_id: str, login_id: str, tenant: str, payload: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True, eq=False)
class SessionClaim:
    """A value in the payload that can be fetched. Derive from it for another form; the three below have validators.

    Args:
        key: its name in the payload.
        fetch: see ``Fetch``; without one, only the application sets a value.
        default_max_age: seconds after which a value is refetched by validators that say nothing else; 0: every time;
            None: never.

    Raises:
        ValueError: the name is one that a session sets itself, or the age is negative.
    """

    key: str
    fetch: Fetch = _nothing
    default_max_age: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not strip_default_claims({self.key: 0} if self.key else {}):
            raise ValueError(f"{self.key!r} cannot be the key of a claim")
        _check_age("default_max_age", self.default_max_age)

    def pack(self, value: Any, now: float) -> Any:
        """The member of the payload that holds a value fetched at ``now``."""
        return {"v": value, "t": _ms(now)}

    def value_in(self, payload: Mapping[str, Any]) -> Any:
        """The value that a payload holds; None: none, or something else under this name."""
        return self._read(payload)[0]

    def fetched_at(self, payload: Mapping[str, Any]) -> int | None:
        """When that value was fetched; milliseconds since the epoch."""
        return self._read(payload)[1]

    def _read(self, payload: Mapping[str, Any]) -> tuple[Any, int | None]:
        match payload.get(self.key):
            case {"v": value, "t": int(fetched_at)} if value is not None and not isinstance(fetched_at, bool):
                return value, fetched_at
            case _:
                return None, None


class SessionClaimValidator:
    """A condition that a session has to fulfil. Derive from it: ``id``, ``validate``, and ``claim`` if it uses one."""

    #: The client is told which one failed by this name.
    id: str
    #: What to refetch when ``should_refetch`` says so.
    claim: SessionClaim | None = None

    def should_refetch(self, payload: Mapping[str, Any], now: float) -> bool:
        """Whether the claim is to be fetched before any validator is asked."""
        return False

    def validate(self, payload: Mapping[str, Any], now: float) -> Any:
        """None if the payload will do; else a reason, which the client is told: a mapping, empty to tell it nothing.

        May be asynchronous where the sessions are.
        """
        raise NotImplementedError

    def judge(self, session: Holder, payload: Mapping[str, Any], now: float) -> Any:
        """As ``validate``, for conditions that are not about the payload; the session's own may be older."""
        return self.validate(payload, now)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Expectation(SessionClaimValidator):
    """A claim's value: there, not too old, and as expected; in this order (6.2)."""

    id: str
    claim: SessionClaim
    max_age: float | None
    #: What the reason calls the expected value, and that value.
    expected: dict[str, Any]
    accepts: Callable[[Any], bool]

    def should_refetch(self, payload: Mapping[str, Any], now: float) -> bool:
        # 0 apart: by another server's clock the value may be of the future.
        return self.max_age == 0 or self.claim.value_in(payload) is None or self._age(payload, now) is not None

    def validate(self, payload: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        value = self.claim.value_in(payload)
        if value is None:
            return {"message": "value does not exist", **self.expected, "actualValue": None}
        age = self._age(payload, now)
        if age is not None:
            return _expired(age, self.max_age)
        if not self.accepts(value):
            return {"message": "wrong value", **self.expected, "actualValue": value}
        return None

    def _age(self, payload: Mapping[str, Any], now: float) -> float | None:
        """Seconds, if that is too old."""
        fetched_at = self.claim.fetched_at(payload)
        if self.max_age is None or fetched_at is None:
            return None
        age = _ms(now) - fetched_at
        return age / 1000 if age > self.max_age * 1000 else None


class PrimitiveClaim(SessionClaim):
    """One value: a str, a number, a bool."""

    def has_value(self, value: Any, max_age: MaxAge = ..., *, id: str | None = None) -> SessionClaimValidator:
        """The value is this one.

        Args:
            value: JSON.
            max_age: seconds after which it is refetched first; see ``MaxAge``.
            id: what the client is told has failed; default the key.
        """
        return _expect(self, {"expectedValue": value}, lambda actual: _same(actual, value), max_age, id)


class BooleanClaim(PrimitiveClaim):
    """True or false."""

    def is_true(self, max_age: MaxAge = ..., *, id: str | None = None) -> SessionClaimValidator:
        """As ``has_value(True)``."""
        return self.has_value(True, max_age, id=id)

    def is_false(self, max_age: MaxAge = ..., *, id: str | None = None) -> SessionClaimValidator:
        """As ``has_value(False)``: a value that is missing is not false."""
        return self.has_value(False, max_age, id=id)


class PrimitiveArrayClaim(SessionClaim):
    """A list of values, such as roles. Parameters of its validators are those of ``PrimitiveClaim.has_value``."""

    def value_in(self, payload: Mapping[str, Any]) -> list[Any] | None:
        """The list that a payload holds; None: none, or something else under this name."""
        value = super().value_in(payload)
        return list(value) if isinstance(value, list | tuple) else None

    def includes(self, value: Any, max_age: MaxAge = ..., *, id: str | None = None) -> SessionClaimValidator:
        """The list holds the value."""
        return _expect(self, {"expectedToInclude": value}, lambda actual: _holds(actual, value), max_age, id)

    def excludes(self, value: Any, max_age: MaxAge = ..., *, id: str | None = None) -> SessionClaimValidator:
        """There is a list, and it does not hold the value."""
        return _expect(self, {"expectedToNotInclude": value}, lambda actual: not _holds(actual, value), max_age, id)

    def includes_all(
        self, values: Sequence[Any], max_age: MaxAge = ..., *, id: str | None = None
    ) -> SessionClaimValidator:
        """The list holds every one of the values."""
        wanted = _listed(values)
        return _expect(
            self, {"expectedToInclude": wanted}, lambda actual: all(_holds(actual, v) for v in wanted), max_age, id
        )

    def includes_any(
        self, values: Sequence[Any], max_age: MaxAge = ..., *, id: str | None = None
    ) -> SessionClaimValidator:
        """The list holds at least one of the values."""
        wanted = _listed(values)
        expected = {"expectedToIncludeAtLeastOneOf": wanted}
        return _expect(self, expected, lambda actual: any(_holds(actual, v) for v in wanted), max_age, id)

    def excludes_all(
        self, values: Sequence[Any], max_age: MaxAge = ..., *, id: str | None = None
    ) -> SessionClaimValidator:
        """There is a list, and it holds none of the values."""
        unwanted = _listed(values)
        expected = {"expectedToNotInclude": unwanted}
        return _expect(self, expected, lambda actual: not any(_holds(actual, v) for v in unwanted), max_age, id)


@dataclass(frozen=True, eq=False)
class _AuthenticatedWithin(SessionClaimValidator):
    id: str
    seconds: float

    def validate(self, payload: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        at = payload.get(AUTH_TIME)
        if not isinstance(at, int) or isinstance(at, bool):
            return {"message": "value does not exist"}
        age = int(now) - at
        return _expired(age, self.seconds) if age > self.seconds else None


def authenticated_within(seconds: float, *, id: str = AUTH_TIME) -> SessionClaimValidator:
    """Step-up: the user has shown who they are within so many seconds.

    Nothing is refetched: only the application can ask for the password again. It says so with ``authenticated=True`` at
    sign-in, and with ``reauthenticated()`` on a session.
    """
    _check_age("seconds", seconds)
    return _AuthenticatedWithin(id, seconds)


@dataclass(frozen=True, eq=False)
class _NotGuest(SessionClaimValidator):
    id: str

    def judge(self, session: Holder, payload: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        return {"message": "a guest"} if is_guest_id(session.user_id) else None


@dataclass(frozen=True, eq=False)
class _NotImpersonated(SessionClaimValidator):
    id: str

    def validate(self, payload: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        return {"message": "impersonated"} if payload.get(ACT) is not None else None


def not_impersonated(*, id: str = ACT) -> SessionClaimValidator:
    """The session is its user's own: nobody else acts as them by it (``impersonate``)."""
    return _NotImpersonated(id)


def not_guest(*, id: str = "guest") -> SessionClaimValidator:
    """The session is of somebody who has signed in."""
    return _NotGuest(id)


Validators: TypeAlias = Sequence[SessionClaimValidator]
#: Those of a whole application: a list, or a function of the session that returns one.
GeneralValidators: TypeAlias = Validators | Callable[[Any], Validators | Awaitable[Validators]]
#: Those of one route: a list in the place of the general ones, or a function of these and the session.
RouteValidators: TypeAlias = (
    Validators | Callable[[list[SessionClaimValidator], Any], Validators | Awaitable[Validators]]
)


def chosen(
    asked: RouteValidators | None, general: GeneralValidators, session: Any
) -> Steps[list[SessionClaimValidator]]:
    """The validators of one request (6.3 step 1).

    Raises:
        TypeError: neither a list nor a function. An iterator would have nothing to say to a second request.
    """
    if asked is not None and not callable(asked):
        return _listed(asked)
    validators = _listed((yield general(session)) if callable(general) else general)
    return validators if asked is None else _listed((yield asked(validators, session)))


def fetched(claim: SessionClaim, holder: Holder, now: float) -> Steps[dict[str, Any]]:
    """What to merge so that the payload holds the claim's value of now; empty if there is none."""
    value = yield claim.fetch(holder.user_id, holder.login_id, holder.tenant, dict(holder.payload))
    return {} if value is None else {claim.key: claim.pack(value, now)}


def given(claim: SessionClaim, value: Any, now: float) -> dict[str, Any]:
    """What to merge so that the payload holds this value.

    Raises:
        ValueError: None, which is no value.
    """
    if value is None:
        raise ValueError("None is no value: remove the claim instead")
    return {claim.key: claim.pack(value, now)}


def built(claims: Iterable[SessionClaim], draft: Draft, now: float) -> Steps[dict[str, Any]]:
    """The payload of a session that begins with these claims (3.2 step 2)."""
    payload = dict(draft.payload)
    for claim in claims:
        payload |= yield from fetched(claim, draft._replace(payload=payload), now)
    return payload


def check(
    holder: Holder, validators: Validators, now: float, merge: Callable[[dict[str, Any]], Steps[Any]]
) -> Steps[list[dict[str, Any]]]:
    """Refetch, ``merge`` what has been fetched, validate (6.3 steps 2 to 4).

    Returns:
        What the client is to be told of each that failed, as section 4 has it: ``{"id": ..., "reason": {...}}``.
    """
    start, patch, asked = dict(holder.payload), dict[str, Any](), set[str]()
    for validator in validators:
        claim = validator.claim
        if claim is None or claim.key in asked or not validator.should_refetch({**start, **patch}, now):
            continue
        asked.add(claim.key)
        draft = Draft(holder.user_id, holder.login_id, holder.tenant, {**start, **patch})
        patch |= yield from fetched(claim, draft, now)
    if patch:
        yield from merge(patch)
    payload = {**holder.payload, **patch}
    failures = []
    for validator in validators:
        reason = yield validator.judge(holder, payload, now)
        if reason is None:
            continue
        if not isinstance(reason, Mapping):  # True, above all, must not pass for either verdict
            raise TypeError(f"validate of {validator.id!r} must return None or a mapping, not {type(reason).__name__}")
        failures.append({"id": validator.id, **({"reason": dict(reason)} if reason else {})})
    return failures


def _expect(
    claim: SessionClaim, expected: dict[str, Any], accepts: Callable[[Any], bool], max_age: MaxAge, id: str | None
) -> SessionClaimValidator:
    limit = claim.default_max_age if isinstance(max_age, EllipsisType) else max_age
    _check_age("max_age", limit)
    return _Expectation(
        id=claim.key if id is None else id, claim=claim, max_age=limit, expected=expected, accepts=accepts
    )


def _expired(age: float, max_age: float | None) -> dict[str, Any]:
    return {"message": "expired", "ageInSeconds": age, "maxAgeInSeconds": max_age}


def _same(actual: Any, expected: Any) -> bool:
    """Equal as JSON has it, where 1 is not true."""
    return isinstance(actual, bool) == isinstance(expected, bool) and bool(actual == expected)


def _holds(values: Iterable[Any], value: Any) -> bool:
    return any(_same(actual, value) for actual in values)


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TypeError(f"a list is needed, not {type(values).__name__}")
    return list(values)


def _check_age(name: str, seconds: float | None) -> None:
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"{name} must be 0 or more seconds, or None")


def _ms(now: float) -> int:
    return int(now * 1000)
