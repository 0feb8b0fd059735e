"""Moving in from another issuer: access tokens are sessions while they live, refresh tokens are exchanged once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from facades import Facade, open_facade, refuses, settings
from jwks_server import issuer as jwks_issuer
from jwks_server import until
from other_issuer import KEY, OtherIssuer
from signing import make_key

from fastverify import (
    Config,
    ConfigError,
    ExpiredToken,
    ForeignIssuer,
    KeySet,
    RemoteKeySet,
    Session,
    SessionVerifier,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
    flows,
)
from fastverify._core import parse_unverified

THEIRS = KeySet([KEY.verifying])
#: As where the API stays where it is: both issuers have one name.
OURS = "http://api.test/auth"


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def life(kind: str, store_url: str, unique_prefix: str) -> AsyncIterator[Facade]:
    """A session service that accepts the other issuer, on each store, by each manager."""
    config = settings(unique_prefix, also_accept=ForeignIssuer(keys=THEIRS, issuer=OURS))
    facade = await open_facade(kind, store_url, config)
    yield facade
    await facade.close()


@pytest.fixture
def other() -> OtherIssuer:
    return OtherIssuer(OURS)


# --- access tokens ---


@pytest.mark.parametrize(
    ("version", "login_id"), [("3", "user-1"), ("4", "user-1"), ("5", "login-1")], ids=["v3", "v4", "v5"]
)
async def test_an_access_token_of_every_version_is_a_session(
    life: Facade, other: OtherIssuer, version: str, login_id: str
) -> None:
    token = other.access_token(version)
    session = life.verify(token)
    assert session.foreign
    assert (session.user_id, session.login_id, session.tenant) == ("user-1", login_id, "public")
    assert session.payload == {"plan": "pro"}
    assert life.verify(token) is session


async def test_ours_are_not_foreign(life: Facade) -> None:
    assert not life.verify((await life.create("user-1")).access_token).foreign


async def test_a_handle_names_the_tenant_where_no_claim_does(life: Facade, other: OtherIssuer) -> None:
    handle = f"{parse_unverified(other.access_token())['sessionHandle']}_acme"
    assert life.verify(other.access_token("3", sessionHandle=handle)).tenant == "acme"
    assert life.verify(other.access_token("4", sessionHandle=handle, tId="acme")).tenant == "acme"


async def test_one_that_has_expired_asks_for_a_refresh(life: Facade, other: OtherIssuer) -> None:
    for version in ("3", "5"):
        with pytest.raises(TryRefreshToken) as caught:
            life.verify(other.access_token(version, exp=int(time.time()) - 1))
        assert isinstance(caught.value.__cause__, ExpiredToken)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "https://else.example/auth"}, TryRefreshToken),
        ({"iss": ...}, TryRefreshToken),
        ({"sessionHandle": ...}, Unauthorised),
        ({"refreshTokenHash1": ...}, Unauthorised),
        ({"sub": ...}, Unauthorised),
        ({"stt": 1}, Unauthorised),
        ({"exp": 4_000_000_000}, TryRefreshToken),
    ],
    ids=lambda value: str(value),
)
async def test_a_token_that_is_no_good_is_refused(
    life: Facade, other: OtherIssuer, changes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        life.verify(other.access_token(**changes))


async def test_a_forged_one_is_refused(life: Facade, other: OtherIssuer) -> None:
    forger = OtherIssuer(OURS, make_key("RS256", "another"))
    token = forger.access_token()
    with pytest.raises((TryRefreshToken, StoreUnavailable)):
        life.verify(token)
    genuine = other.access_token()
    with pytest.raises(TryRefreshToken):
        life.verify(genuine[:-8] + "AAAAAAAA")


async def test_a_key_of_theirs_may_have_the_kid_of_one_of_ours(kind: str, store_url: str, unique_prefix: str) -> None:
    ours = await open_facade(kind, store_url, settings(unique_prefix))
    kid = (await ours.jwks())["keys"][0]["kid"]
    twin = make_key("ES256", kid)
    accepting = settings(unique_prefix, also_accept=[ForeignIssuer(keys=KeySet([twin.verifying]), issuer=None)])
    both = await open_facade(kind, store_url, accepting)
    try:
        assert both.verify(OtherIssuer(OURS, twin).access_token(iss=...)).foreign
        assert not both.verify((await ours.create("user-1")).access_token).foreign
    finally:
        await both.close()
        await ours.close()


async def test_its_revocation_reaches_gateways(life: Facade, other: OtherIssuer, store_url: str) -> None:
    token, untouched = other.access_token(), other.access_token()
    gateway = SessionVerifier.connect(
        store_url,
        issuer=OURS,
        prefix=life.sessions.config.key_prefix,
        also_accept=ForeignIssuer(keys=THEIRS, issuer=OURS),
    )
    with gateway:
        handle = gateway.verify(token).handle
        assert gateway.verify(token).foreign
        assert not await life.revoke(handle), "the store knows nothing of it"
        with pytest.raises(Unauthorised):
            life.verify(token)
        until(lambda: refuses(gateway, token))
        await life.blacklist(untouched)
        with pytest.raises(TryRefreshToken):
            life.verify(untouched)
        gateway.wait_for_poll()
        with pytest.raises(TryRefreshToken):
            gateway.verify(untouched)


async def test_revocations_are_kept_for_as_long_as_their_tokens_live(
    kind: str, store_url: str, unique_prefix: str, other: OtherIssuer
) -> None:
    week = 7 * 86_400
    config = settings(unique_prefix, also_accept=ForeignIssuer(keys=THEIRS, issuer=OURS, access_token_lifetime=week))
    assert config.longest_token_lifetime == week and settings("x").longest_token_lifetime == 3600
    life = await open_facade(kind, store_url, config)
    try:
        session = life.verify(other.access_token(exp=int(time.time()) + week - 5))
        await life.revoke(session.handle)
        with pytest.raises(Unauthorised):
            life.verify(session.access_token)
        assert life.sessions.gateway.authority.entry_life > week  # type: ignore[attr-defined]
    finally:
        await life.close()


async def test_what_would_ask_the_store_asks_for_a_refresh(life: Facade, other: OtherIssuer) -> None:
    token = other.access_token()
    session = life.verify(token)
    for call in (
        life.verify_strict(token),
        life.recheck(session),
        life.reissue(session, {"a": 1}),
        life.redeliver(session, anti_csrf=False),
    ):
        with pytest.raises(TryRefreshToken, match="another issuer's"):
            await call
    assert await life.info(session.handle) is None
    assert not await life.merge_payload(session.handle, {"a": 1})


async def test_an_anti_csrf_token_is_theirs(life: Facade, other: OtherIssuer) -> None:
    token = other.access_token(antiCsrfToken="csrf-1")
    assert life.verify(token, anti_csrf_token="csrf-1", check_anti_csrf=True)
    with pytest.raises(TryRefreshToken):
        life.verify(token, anti_csrf_token="csrf-2", check_anti_csrf=True)


async def test_their_keys_may_come_from_their_url(
    kind: str, store_url: str, unique_prefix: str, other: OtherIssuer
) -> None:
    with jwks_issuer() as published:
        published.status = 503
        with RemoteKeySet(published.url, wait=0, cool_down=0.0) as keys:
            config = settings(unique_prefix, also_accept=ForeignIssuer(keys=keys, issuer=OURS))
            life = await open_facade(kind, store_url, config)
            try:
                with pytest.raises(StoreUnavailable):
                    life.verify(other.access_token())
                with pytest.raises(Unauthorised):
                    life.verify("eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
                published.publish(KEY)
                until(lambda: keys.ready)
                assert life.verify(other.access_token()).foreign
            finally:
                await life.close()


@pytest.mark.parametrize("also_accept", ["https://core.example", [1], {"keys": THEIRS}, None])
def test_settings_that_cannot_work_are_refused(also_accept: Any) -> None:
    with pytest.raises(ConfigError, match="also_accept"):
        settings("x", also_accept=also_accept)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("keys", None), ("keys", "https://core.example/jwks.json"), ("keys", {"keys": []})),
        *(("issuer", 1), ("access_token_lifetime", 0)),
    ],
)
def test_an_issuer_that_cannot_work_is_refused(field: str, value: Any) -> None:
    good: dict[str, Any] = {"keys": THEIRS, "issuer": None}
    with pytest.raises(ConfigError, match=field):
        ForeignIssuer(**good | {field: value})


def test_one_issuer_is_a_list_of_one() -> None:
    one = ForeignIssuer(keys=THEIRS, issuer=None)
    config: Config = settings("x", also_accept=one)
    assert config.also_accept == (one,)
    assert settings("x").also_accept == ()
    assert not Session.__dataclass_fields__["foreign"].default


# --- refresh tokens ---


async def test_a_refresh_token_of_theirs_becomes_a_session_of_ours(life: Facade, other: OtherIssuer) -> None:
    issued = await life.exchange(other.refresh_token("user-7"), other.whose, data=[1], payload={"plan": "default"})
    session = life.verify(issued.access_token)
    assert (session.user_id, session.payload, session.foreign) == ("user-7", {"plan": "pro"}, False)
    assert await life.get_data(session.handle) == [1]
    assert issued.refresh_token_changed
    assert life.sessions.is_refresh_token(issued.refresh_token)
    assert not life.sessions.is_refresh_token(other.refresh_token())
    assert (await life.refresh(issued.refresh_token)).session.handle == session.handle


async def test_presented_again_it_gives_the_same_session_and_nobody_is_asked_again(
    life: Facade, other: OtherIssuer
) -> None:
    token = other.refresh_token()
    first = await life.exchange(token, other.whose)
    again = await life.exchange(token, other.whose)
    assert (again.session.handle, again.refresh_token) == (first.session.handle, first.refresh_token)
    assert again.refresh_token_changed and again.anti_csrf_token == first.anti_csrf_token
    assert other.asked == [token]
    assert len(await life.handles("user-1")) == 1


async def test_presented_by_many_at_once_it_gives_one_session(life: Facade, other: OtherIssuer, kind: str) -> None:
    token = other.refresh_token()

    async def slowly(refresh_token: str) -> Any:
        await asyncio.sleep(0.05)
        return other.whose(refresh_token)

    def slowly_blocking(refresh_token: str) -> Any:
        time.sleep(0.05)
        return other.whose(refresh_token)

    def present() -> Any:
        if kind == "async":
            return life.exchange(token, slowly)
        return asyncio.to_thread(life.sessions.exchange, token, slowly_blocking)

    issued = await asyncio.gather(*(present() for _ in range(8)))
    assert len({one.refresh_token for one in issued}) == 1
    assert other.asked == [token]
    assert len(await life.handles("user-1")) == 1


async def test_one_that_they_do_not_know_is_unauthorised_and_may_be_tried_again(
    life: Facade, other: OtherIssuer
) -> None:
    for _ in range(2):
        with pytest.raises(Unauthorised):
            await life.exchange("unknown.token.V2", other.whose)
    assert len(other.asked) == 2
    for garbage in ("", "x" * 9000):
        with pytest.raises(Unauthorised):
            await life.exchange(garbage, other.whose)
    assert len(other.asked) == 2


async def test_their_session_is_ended_when_ours_is_there(life: Facade, other: OtherIssuer, kind: str) -> None:
    steps = []

    def whose(refresh_token: str) -> Any:
        def end() -> None:
            steps.append(other.users.pop(refresh_token))

        async def end_async() -> None:
            end()

        return other.users[refresh_token], {}, end_async if kind == "async" else end

    token = other.refresh_token("user-7")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(life.sessions), "create", lambda *_, **__: fail(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await life.exchange(token, whose)
    assert steps == [], "the store was away: the client's token has to work again"
    issued = await life.exchange(token, whose)
    assert issued.session.user_id == "user-7" and steps == ["user-7"]
    assert (await life.exchange(token, whose)).session.handle == issued.session.handle
    assert steps == ["user-7"]


async def test_that_their_session_cannot_be_ended_is_no_reason_to_refuse(
    life: Facade, other: OtherIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    token = other.refresh_token()
    issued = await life.exchange(token, lambda _: ("user-1", {}, lambda: fail(ConnectionError(token))))
    assert life.verify(issued.access_token).user_id == "user-1"
    (record,) = (record for record in caplog.records if record.name == "fastverify.audit")
    assert "ConnectionError" in record.getMessage() and token not in caplog.text


def fail(error: Exception) -> Any:
    raise error


async def test_an_error_of_theirs_leaves_the_turn_to_the_next(life: Facade, other: OtherIssuer) -> None:
    token = other.refresh_token()

    def away(refresh_token: str) -> Any:
        raise ConnectionError("the core is away")

    with pytest.raises(ConnectionError):
        await life.exchange(token, away)
    with pytest.raises(ValueError, match="user_id"):
        await life.exchange(token, lambda _: ("", {}))
    assert (await life.exchange(token, other.whose)).session.user_id == "user-1"


async def test_a_session_that_has_ended_does_not_come_back(life: Facade, other: OtherIssuer) -> None:
    token = other.refresh_token()
    issued = await life.exchange(token, other.whose)
    await life.revoke(issued.session.handle)
    with pytest.raises(Unauthorised, match="has ended"):
        await life.exchange(token, other.whose)


async def test_a_session_that_has_gone_on_is_not_handed_out(kind: str, store_url: str, unique_prefix: str) -> None:
    other = OtherIssuer(OURS)
    life = await open_facade(kind, store_url, settings(unique_prefix, exchange_seconds=0))
    try:
        token = other.refresh_token()
        issued = await life.exchange(token, other.whose)
        assert (await life.refresh(issued.refresh_token)).refresh_token_changed
        with pytest.raises(Unauthorised) as caught:
            await life.exchange(token, other.whose)
        assert not caught.value.clear_tokens
        assert await life.info(issued.session.handle)
    finally:
        await life.close()


async def test_whose_turn_took_too_long_has_made_no_session(
    life: Facade, other: OtherIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the issuer is asked, the turn ends, and another one's begins and ends."""
    token = other.refresh_token()
    monkeypatch.setattr(flows.limits, "TURN_MS", 1)

    def meanwhile(refresh_token: str) -> Any:
        time.sleep(0.05)
        monkeypatch.setattr(flows.limits, "TURN_MS", 30_000)
        return "user-1", {}

    async def slow_one() -> Any:
        return await life.exchange(token, meanwhile)

    with pytest.raises(StoreUnavailable, match="too long"):
        await slow_one()
    assert await life.handles("user-1") == []
    assert (await life.exchange(token, other.whose)).session.user_id == "user-1"


async def test_who_waits_for_another_waits_not_for_ever(
    life: Facade, other: OtherIssuer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    token = other.refresh_token()
    monkeypatch.setattr(flows.limits, "TURN_PATIENCE", 0.05)
    refused = []

    def meanwhile(refresh_token: str) -> Any:
        refused.append(True)
        return other.whose(refresh_token)

    async def meanwhile_async(refresh_token: str) -> Any:
        with pytest.raises(StoreUnavailable, match="too long"):
            await life.exchange(token, other.whose)
        return meanwhile(refresh_token)

    def meanwhile_blocking(refresh_token: str) -> Any:
        with pytest.raises(StoreUnavailable, match="too long"):
            life.sessions.exchange(token, other.whose)
        return meanwhile(refresh_token)

    issued = await life.exchange(token, meanwhile_async if kind == "async" else meanwhile_blocking)
    assert refused == [True] and other.asked == [token]
    assert issued.session.user_id == "user-1"


async def test_a_cancelled_exchange_gives_its_turn_back(other: OtherIssuer, store_url: str, unique_prefix: str) -> None:
    life = await open_facade("async", store_url, settings(unique_prefix))
    try:
        token, begun = other.refresh_token(), asyncio.Event()

        async def for_ever(refresh_token: str) -> Any:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(life.exchange(token, for_ever))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await life.exchange(token, other.whose)).session.user_id == "user-1"
    finally:
        await life.close()


async def test_the_store_holds_no_refresh_token_of_theirs(lab: Any) -> None:
    tag = lab.authority.tag_of_digest("ab" * 32)
    assert lab.call("exchange_claim", tag, "ab" * 32, "nonce", 10_000) == [b"ab" * 32, b"MINE"]
    assert lab.call("exchange_claim", tag, "ab" * 32, "nonce", 10_000) == [b"ab" * 32, b"MINE"], "sent twice"
    assert lab.call("exchange_claim", tag, "ab" * 32, "other", 10_000) == [b"ab" * 32, b"BUSY"]
    assert lab.call("exchange_settle", tag, "ab" * 32, "other", "handle", 1000) == [b"ab" * 32, 0]
    assert lab.call("exchange_settle", tag, "ab" * 32, "nonce", "handle", 10_000) == [b"ab" * 32, 1]
    assert lab.call("exchange_settle", tag, "ab" * 32, "nonce", "handle", 10_000) == [b"ab" * 32, 1], "sent twice"
    assert lab.call("exchange_claim", tag, "ab" * 32, "other", 10_000) == [b"ab" * 32, b"DONE", b"handle"]
    (key,) = lab.redis.keys(f"{tag}:x:*")
    assert key == f"{tag}:x:{'ab' * 32}".encode()
    assert 0 < lab.redis.pttl(key) <= 10_000
