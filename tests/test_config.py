"""Settings are checked when they are made, and an error names the field."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fastverify import Config, ConfigError, SessionVerifier

SECRET = bytes(range(32))


def config(**changes: Any) -> Config:
    settings = {"api_domain": "https://api.example.com", "website_domain": "https://example.com", "secret": SECRET}
    return Config(**{**settings, **changes})


def test_defaults_are_those_of_the_design() -> None:
    settings = config()
    assert settings.access_token_lifetime == 3600
    assert settings.refresh_token_lifetime == 100 * 24 * 3600
    assert settings.absolute_lifetime == 365 * 24 * 3600
    assert settings.idle_lifetime == settings.refresh_token_lifetime
    assert settings.exchange_seconds == 10
    assert settings.revocation_staleness == 5
    assert settings.signing_algorithm == "ES256"
    assert settings.shards == 16


@pytest.mark.parametrize(
    ("changes", "issuer"),
    [
        ({}, "https://api.example.com/auth"),
        ({"api_base_path": "/"}, "https://api.example.com"),
        ({"api_base_path": "session/v1/"}, "https://api.example.com/session/v1"),
        ({"api_gateway_path": "/gw"}, "https://api.example.com/gw/auth"),
        ({"api_domain": "http://LOCALHOST:8000/"}, "http://localhost:8000/auth"),
    ],
)
def test_issuer_is_domain_gateway_path_and_base_path(changes: dict[str, Any], issuer: str) -> None:
    assert config(**changes).issuer == issuer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_domain", "api.example.com"),
        ("api_domain", "ftp://api.example.com"),
        ("api_domain", "https://api.example.com/auth"),
        ("api_domain", "https://"),
        ("api_domain", 7),
        ("api_domain", "http://[::1"),
        ("api_domain", "https://api.example.com:port"),
        ("api_domain", "https://api.example.com:99999"),
        ("api_domain", "https://:@api.example.com"),
        ("api_domain", "https://api.exa\nmple.com"),
        ("api_domain", "https://api exa mple.com"),
        ("api_domain", "https://b\u00fccher.example"),
        ("website_domain", ""),
        ("api_base_path", "/auth?x"),
        ("secret", b"short"),
        ("secret", b"a" * 32),
        ("secret", "x" * 32),
        ("secret", []),
        ("secret", [SECRET, SECRET]),
        ("access_token_lifetime", 0),
        ("access_token_lifetime", 1.5),
        ("access_token_lifetime", True),
        ("refresh_token_lifetime", 10**30),
        ("absolute_lifetime", 10**30),
        ("refresh_token_lifetime", 3600),
        ("signing_key_interval", 4),
        ("exchange_seconds", -1),
        ("idle_timeout", 0),
        ("max_sessions_per_user", 0),
        ("revocation_staleness", 1),
        ("revocation_staleness", float("nan")),
        ("revocation_staleness", float("inf")),
        ("revocation_staleness", "5"),
        ("signing_algorithm", "HS256"),
        ("signing_algorithm", "none"),
        ("when_stale", "ignore"),
        ("anti_csrf", "YES"),
        ("cookie_same_site", "Lax"),
        ("token_transfer_method", "any"),
        ("session_expired_status_code", 200),
        ("session_expired_status_code", "401"),
        ("session_expired_status_code", 401.5),
        ("token_transfer_method", 7),
        ("website_domain", 7),
        ("website_domain", None),
        ("cookie_domain", 7),
        ("older_cookie_domain", 7),
        ("duplicate_cookies", "guess"),
        ("duplicate_cookies", None),
        ("access_cookie_name", ""),
        ("access_cookie_name", "a b"),
        ("access_cookie_name", "a=b"),
        ("access_cookie_name", "a;b"),
        ("access_cookie_name", "a\r\nb"),
        ("access_cookie_name", "a\n"),
        ("access_cookie_name", "\u00fc"),
        ("access_cookie_name", b"a"),
        ("access_cookie_name", "sIdRefreshToken"),
        ("refresh_cookie_name", "sAccessToken"),
        ("refresh_cookie_name", None),
        ("access_cookie_path", "/a;b"),
        ("access_cookie_path", None),
        ("cookie_partitioned", "no"),
        ("cookie_secure", "no"),
        ("expose_access_token_to_frontend_in_cookie_based_auth", "no"),
        ("invalid_claim_status_code", 401),
        ("shards", 12),
        ("shards", 512),
        ("shards", 0),
        ("shards", "16"),
        ("shards", True),
        ("key_prefix", "a{b}"),
        ("key_prefix", ""),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", None),
        ("issuer", ""),
        ("audience", []),
        ("leeway", 61),
        ("staleness", 0),
        ("staleness", float("nan")),
        ("staleness", "5"),
        ("when_stale", "ignore"),
        ("cache_size", -1),
        ("prefix", "a{b}"),
    ],
)
def test_an_argument_of_a_gateway_that_cannot_work_is_refused_by_name(field: str, value: Any) -> None:
    arguments: dict[str, Any] = {"issuer": "https://api.example.com/auth", "wait": 0, field: value}
    with pytest.raises(ConfigError) as caught:
        SessionVerifier.connect("redis://127.0.0.1:1/0", **arguments)
    assert caught.value.field == field


def test_a_list_of_secrets_is_kept_in_order() -> None:
    old = SECRET[::-1]
    assert config(secret=[SECRET, old]).secrets == (SECRET, old)


def test_functions_are_kept_as_they_are() -> None:
    def website(request: Any) -> str:
        return "https://example.com"

    def choose(request: Any, for_new_session: bool) -> None:
        return None

    settings = config(website_domain=website, token_transfer_method=choose)
    assert settings.website_domain is website and settings.token_transfer_method is choose


@pytest.mark.parametrize(("given", "kept"), [("/", "/"), ("", "/"), ("api/", "/api"), ("/api/v1", "/api/v1")])
def test_the_access_cookies_path_is_a_plain_one(given: str, kept: str) -> None:
    assert config(access_cookie_path=given).access_cookie_path == kept


def test_small_limits_are_legal() -> None:
    settings = config(access_token_lifetime=1, refresh_token_lifetime=2, signing_key_interval=5, exchange_seconds=0)
    assert (settings.access_token_lifetime, settings.signing_key_interval, settings.exchange_seconds) == (1, 5, 0)


def test_settings_are_frozen_and_do_not_show_the_secret() -> None:
    settings = config()
    assert "secret" not in repr(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.shards = 2  # type: ignore[misc]
