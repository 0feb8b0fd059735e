"""Static signing keys: made once; sessions that go over to the other kind of key; JWTs that are no session's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import jwt
import pytest
import redis
from facades import Facade, open_facade, refuses, settings, until
from session_lab import plain_client

from fastverify import KeySet, SessionVerifier, TryRefreshToken, Unauthorised, UnknownKey, Verifier, flows
from fastverify.key_ring import generate_static_key
from fastverify.store import drive, open_store
from fastverify.tokens import ServiceKeys, b64url

ISSUER = "http://api.test/auth"
SECRET, NEW_SECRET = bytes(range(32)), bytes(range(100, 132))

Service = Callable[..., Awaitable[Facade]]


@pytest.fixture(params=["sync", "async"])
async def service(request: pytest.FixtureRequest, embedded_url: str, unique_prefix: str) -> AsyncIterator[Service]:
    """Opens services on one store, each with settings of its own, by each manager."""
    async with AsyncExitStack() as stack:

        async def open_(**changes: Any) -> Facade:
            facade = await open_facade(request.param, embedded_url, settings(unique_prefix, **changes))
            stack.push_async_callback(facade.close)
            return facade

        yield open_


@pytest.fixture
def gateway(embedded_url: str, unique_prefix: str) -> Iterator[Callable[[], SessionVerifier]]:
    """Opens a gateway, once there is a service."""
    opened: list[SessionVerifier] = []

    def open_() -> SessionVerifier:
        opened.append(SessionVerifier.connect(embedded_url, issuer=ISSUER, prefix=unique_prefix))
        return opened[0]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def inside(embedded_url: str) -> Iterator[redis.Redis]:
    """A look into the store."""
    client = plain_client(open_store(embedded_url))
    yield client
    client.close()


async def kids(life: Facade, kind: str) -> list[str]:
    return [key["kid"] for key in (await life.jwks())["keys"] if key["kid"].startswith(f"{kind}-")]


# --- the keys ---


async def test_a_store_has_one_static_key_that_every_service_knows(service: Service) -> None:
    one, two = await service(), await service()
    (kid,) = await kids(one, "s")
    assert await kids(two, "s") == [kid]
    assert len(await kids(one, "d")) == 1


async def test_a_dynamic_key_comes_and_goes_and_the_static_one_stays(service: Service) -> None:
    life = await service()
    before = await kids(life, "s")
    await life.rotate_keys()
    assert await kids(life, "s") == before
    assert len(await kids(life, "d")) == 2


async def test_a_store_of_before_there_were_static_keys_gets_one_while_it_runs(
    service: Service, inside: redis.Redis, unique_prefix: str
) -> None:
    services = [await service() for _ in range(2)]
    (lost,) = await kids(services[0], "s")
    root = f"{{{unique_prefix}}}"
    pipeline = inside.pipeline()
    pipeline.hdel(f"{root}:private", lost)
    pipeline.hdel(f"{root}:meta", "static:ES256")
    pipeline.delete(f"{root}:static")
    pipeline.execute()
    until(lambda: inside.hlen(f"{root}:static") > 0)
    for life in services:
        life.sessions.gateway.wait_for_poll()
        life.sessions.gateway.wait_for_poll()
    (kid,) = await kids(services[0], "s")
    assert kid != lost
    assert await kids(services[1], "s") == [kid], "of two that miss it, one makes it"
    assert Verifier(KeySet.from_jwks(await services[1].jwks()), issuer=ISSUER).verify(await services[0].create_jwt({}))


async def test_another_algorithm_gets_a_static_key_of_its_own_and_the_old_one_verifies(service: Service) -> None:
    token = await (await service()).create_jwt({"for": "ever"})
    life = await service(signing_algorithm="EdDSA")
    assert len(await kids(life, "s")) == 2
    other = await life.create_jwt({})
    assert jwt.get_unverified_header(other)["alg"] == "EdDSA"
    verifier = Verifier(KeySet.from_jwks(await life.jwks()), issuer=ISSUER)
    assert verifier.verify(token)["for"] == "ever"
    assert verifier.verify(other)


async def test_the_static_key_outlives_the_secret_that_it_was_sealed_under(service: Service) -> None:
    (kid,) = await kids(await service(), "s")
    await service(secret=[SECRET, NEW_SECRET])
    both = await service(secret=[NEW_SECRET, SECRET])
    await both.rotate_keys()
    alone = await service(secret=NEW_SECRET)
    token = await alone.create_jwt({})
    assert jwt.get_unverified_header(token)["kid"] == kid
    assert await kids(alone, "s") == [kid]


async def test_a_static_key_that_cannot_be_opened_goes_on_verifying_beside_a_new_one(
    service: Service, inside: redis.Redis, unique_prefix: str
) -> None:
    both = await service(secret=[NEW_SECRET, SECRET])
    await both.rotate_keys()
    (kid,) = await kids(both, "s")
    token = await both.create_jwt({})
    foreign = generate_static_key("ES256", created_at=0, raw=bytes(16))
    inside.hset(f"{{{unique_prefix}}}:private", kid, foreign.sealed_record(ServiceKeys.derive(SECRET), os.urandom(12)))
    alone = await service(secret=NEW_SECRET)
    assert len(await kids(alone, "s")) == 2
    assert jwt.get_unverified_header(await alone.create_jwt({}))["kid"] != kid
    assert Verifier(KeySet.from_jwks(await alone.jwks()), issuer=ISSUER).verify(token)


async def test_a_revoked_static_key_is_replaced_and_all_that_it_has_signed_is_refused(
    service: Service, gateway: Callable[[], SessionVerifier]
) -> None:
    life = await service(use_dynamic_access_token_signing_key=False)
    issued, token, dynamic = await life.create("user-1"), await life.create_jwt({}), await kids(life, "d")
    (kid,) = await kids(life, "s")
    verifier = gateway()
    assert verifier.verify(issued.access_token)
    successor = await life.revoke_key(kid, wait="propagated")
    assert await kids(life, "s") == [successor]
    assert await kids(life, "d") == dynamic
    for one in (life, verifier):
        with pytest.raises(TryRefreshToken):
            one.verify(issued.access_token)
    with pytest.raises(UnknownKey):
        Verifier(KeySet.from_jwks(await life.jwks()), issuer=ISSUER).verify(token)
    refreshed = await life.refresh(issued.refresh_token)
    assert refreshed.session.claims.key_id == successor
    verifier.wait_for_poll()
    assert verifier.verify(refreshed.access_token).handle == issued.session.handle


async def test_a_revoked_static_key_that_a_failover_brings_back_goes_again(
    service: Service, inside: redis.Redis, embedded_url: str, unique_prefix: str
) -> None:
    life = await service()
    (kid,) = await kids(life, "s")
    store = open_store(embedded_url)
    before = drive(store, flows.read_keys(unique_prefix, private=True))
    await life.revoke_key(kid)
    public, sealed = next(parts for name, *parts in before.records if name == kid.encode())
    root = f"{{{unique_prefix}}}"
    inside.hset(f"{root}:private", kid, sealed)
    inside.hset(f"{root}:meta", "static:ES256", kid)
    inside.hset(f"{root}:static", kid, public)
    until(lambda: not inside.hexists(f"{root}:static", kid))
    life.sessions.gateway.wait_for_poll()
    life.sessions.gateway.wait_for_poll()
    assert kid not in await kids(life, "s")
    assert jwt.get_unverified_header(await life.create_jwt({}))["kid"] != kid


# --- which kind signs sessions ---


@pytest.mark.parametrize("dynamic", [True, False])
async def test_the_setting_says_which_kind_signs_and_a_live_session_goes_over_at_its_next_refresh(
    service: Service, gateway: Callable[[], SessionVerifier], dynamic: bool
) -> None:
    before = await service(use_dynamic_access_token_signing_key=not dynamic)
    after = await service(use_dynamic_access_token_signing_key=dynamic)
    issued = await before.create("user-1", payload={"plan": "pro"})
    assert issued.session.claims.key_id.startswith("s-" if dynamic else "d-")
    assert before.verify(issued.access_token).user_id == "user-1"
    for _ in range(2):  # also of a token that is in the cache
        with pytest.raises(TryRefreshToken):
            after.verify(issued.access_token)
    with pytest.raises(TryRefreshToken):
        await after.verify_strict(issued.access_token)
    gateway_ = gateway()
    assert gateway_.verify(issued.access_token).user_id == "user-1", "a gateway knows no setting"

    refreshed = await after.refresh(issued.refresh_token)
    assert refreshed.session.claims.key_id.startswith("d-" if dynamic else "s-")
    assert after.verify(refreshed.access_token).handle == issued.session.handle
    assert gateway_.verify(refreshed.access_token).payload == {"plan": "pro"}
    merged = await after.reissue(refreshed.session, {"plan": "team"})
    assert after.verify(merged.access_token).payload == {"plan": "team"}


async def test_a_revoked_session_of_the_other_kind_is_unauthorised(service: Service) -> None:
    before = await service(use_dynamic_access_token_signing_key=False)
    issued = await before.create("user-1")
    after = await service()
    with pytest.raises(TryRefreshToken):
        after.verify(issued.access_token)
    assert await after.revoke(issued.session.handle)
    assert refuses(after, issued.access_token)


@pytest.mark.parametrize("form", [str, str.encode])
async def test_a_token_of_the_other_kind_can_be_blacklisted_for_gateways_serve_it(
    service: Service, gateway: Callable[[], SessionVerifier], form: Callable[[str], str | bytes]
) -> None:
    before = await service(use_dynamic_access_token_signing_key=False)
    issued = await before.create("user-1")
    verifier = gateway()
    assert verifier.verify(issued.access_token)
    await (await service()).blacklist(form(issued.access_token), wait="propagated")
    with pytest.raises(TryRefreshToken):
        verifier.verify(issued.access_token)


# --- JWTs that are no session's ---


@pytest.mark.parametrize("static", [True, False])
async def test_a_jwt_verifies_with_the_published_keys_alone_and_is_no_session(
    service: Service, gateway: Callable[[], SessionVerifier], static: bool
) -> None:
    life = await service()
    earliest = int(time.time())
    payload = {"sub": "reports", "scope": ["read"], "deep": {"a": [1]}}
    token = await life.create_jwt(payload, static_key=static, lifetime=60)
    jwks = await life.jwks()

    claims = Verifier(KeySet.from_jwks(jwks), issuer=ISSUER).verify(token).to_dict()
    assert claims.pop("iss") == ISSUER
    assert earliest <= claims["iat"] <= time.time()
    assert claims.pop("exp") - claims.pop("iat") == 60
    assert claims == payload

    header = jwt.get_unverified_header(token)
    assert header.pop("kid").startswith("s-" if static else "d-")
    assert header == {"alg": "ES256", "typ": "JWT"}
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["ES256"], issuer=ISSUER)["sub"] == "reports"

    for verifier in (life, gateway()):
        with pytest.raises(Unauthorised) as caught:
            verifier.verify(token)
        assert not caught.value.clear_tokens
    with pytest.raises(Unauthorised):
        await life.blacklist(token)


async def test_a_jwt_lives_a_hundred_years_by_the_static_key_and_as_an_access_token_by_the_dynamic_one(
    service: Service,
) -> None:
    life = await service(access_token_lifetime=600)
    verifier = Verifier(KeySet.from_jwks(await life.jwks()), issuer=ISSUER)
    for options, lifetime in (({}, 100 * 365 * 24 * 3600), ({"static_key": False}, 600)):
        claims = verifier.verify(await life.create_jwt({}, **options))
        assert claims.expires_at - (claims.issued_at or 0) == lifetime


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        *(({name: "x"}, {}) for name in ("sessionHandle", "refreshTokenHash1", "parentRefreshTokenHash1")),
        *(({name: 1}, {}) for name in ("iss", "iat", "exp")),
        *(({}, {"lifetime": lifetime}) for lifetime in (0, -1, 1.5, True, "1", 100 * 365 * 24 * 3600 + 1)),
        ({}, {"lifetime": 3601, "static_key": False}),
        ({"x": object()}, {}),
        ({"x": float("nan")}, {}),
        ({"x": "a" * 9_000}, {}),
        ({"sub": 5}, {}),
        (["sub"], {}),
    ],
)
async def test_a_jwt_that_could_not_be_used_or_would_forge_a_session_is_refused(
    service: Service, payload: Any, options: dict[str, Any]
) -> None:
    life = await service()
    with pytest.raises(ValueError):
        await life.create_jwt(payload, **options)


async def test_no_jwt_becomes_a_session_by_a_change_of_its_text(service: Service) -> None:
    life = await service()
    issued, token = await life.create("user-1"), await life.create_jwt({"sub": "user-2"})
    _, body, _ = issued.access_token.split(".")
    head, own_body, signature = token.split(".")
    assert json.loads(jwt.utils.base64url_decode(own_body))["sub"] == "user-2"
    with pytest.raises(TryRefreshToken):
        life.verify(f"{head}.{body}.{signature}")
    twice = b64url(b'{"sub":"a","sub":"user-2"}')
    with pytest.raises(Unauthorised):
        life.verify(f"{head}.{twice}.{signature}")
