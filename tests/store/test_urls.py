"""URLs: which are understood, what is made of them, and that none of them is ever repeated with its password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastverify.errors import ConfigError
from fastverify.store import open_store

SECRET = "hunter2"


def settings(url: str) -> dict[str, Any]:
    store = open_store(url)
    store.close()
    return {name: value for name, value in store._endpoint.settings.items() if value is not None}


def shown(url: str) -> str:
    store = open_store(url)
    store.close()
    assert repr(store) == f"Store({store.url!r})"
    assert repr(store.open_async()) == f"AsyncStore({store.url!r})"
    return store.url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://localhost:7000/3", {"host": "localhost", "port": 7000, "db": 3}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000, "db": 0}),
        ("redis://:p%40ss%2F@h", {"host": "h", "port": 6379, "db": 0, "password": "p@ss/"}),
        ("redis://us%3Aer:pw@h", {"host": "h", "port": 6379, "db": 0, "username": "us:er", "password": "pw"}),
    ],
)
def test_tcp_urls_are_understood(url, expected):
    assert settings(url) == expected | {"socket_keepalive": True}


def test_a_tls_url_takes_its_certificates_from_the_query():
    found = settings("rediss://h:1/2?ssl_ca_certs=/ca.pem&ssl_check_hostname=false")
    assert found["ssl_ca_certs"] == "/ca.pem"
    assert found["ssl_check_hostname"] is False


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/redis.sock", {"path": "/run/redis.sock", "db": 0}),
        ("unix:///run/my%20redis.sock?db=2", {"path": "/run/my redis.sock", "db": 2}),
        ("unix://:pw@/run/redis.sock", {"path": "/run/redis.sock", "db": 0, "password": "pw"}),
    ],
)
def test_unix_urls_are_understood(url, expected):
    assert settings(url) == expected


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("embedded:///srv/app", "/srv/app"),
        ("embedded:///srv/my%20app/", "/srv/my app"),
        ("embedded://state/sessions", f"{Path.cwd()}/state/sessions"),
        ("embedded://.fastverify", f"{Path.cwd()}/.fastverify"),
    ],
)
def test_embedded_urls_name_a_directory_and_touch_nothing(url, directory):
    assert settings(url) == {"path": f"{directory}/socket"}
    assert not os.path.exists(directory)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        (f"redis://:{SECRET}@h/1", "redis://h:6379/1"),
        (f"redis://me:{SECRET}@[::1]", "redis://me@[::1]:6379/0"),
        (f"rediss://me:{SECRET}@h:1?ssl_check_hostname=true", "rediss://me@h:1/0"),
        (f"unix://me:{SECRET}@/run/redis.sock", "unix://me@/run/redis.sock?db=0"),
        ("embedded:///srv/app", "embedded:///srv/app"),
    ],
)
def test_the_url_of_a_store_has_no_password(url, safe):
    assert shown(url) == safe


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "redis://host:6379/0.*rediss://.*unix://.*embedded://"),
        ("localhost:6379", "must be a URL"),
        ("memory://", "must be a URL"),
        (f"http://:{SECRET}@h", "must be a URL"),
        (f"redis+sentinel://:{SECRET}@h1,h2/name/0", "not supported yet"),
        (f"redis+cluster://:{SECRET}@h1,h2", "not supported yet"),
        ("redis://", "names no host"),
        (f"redis://:{SECRET}@", "names no host"),
        (f"redis://:{SECRET}#@h", "percent-encoded"),
        (f"redis://h/0#{SECRET}", "%23"),
        (f"redis://:{SECRET}/@h", "percent-encoded"),
        (f"redis://:1{SECRET}[@h", "percent-encoded"),
        (f"redis://h:{SECRET}", "percent-encoded"),
        (f"redis://h/{SECRET}", "database must be a number"),
        (f"redis://h/-1?x={SECRET}", "no parameters"),
        (f"redis://h?socket_timeout=1&password={SECRET}", "no parameters"),
        (f"rediss://h?ssl_password={SECRET}", "ssl_ca_certs"),
        ("rediss://h?ssl_check_hostname=perhaps", "true or false"),
        ("unix://run/redis.sock", "absolute path"),
        ("unix:///", "absolute path"),
        ("embedded://", "directory"),
        (f"embedded://user:{SECRET}@/var", "directory"),
        ("embedded:///var?db=1", "directory"),
        ("embedded:///" + "long/" * 30, "shorter"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_repeated(url, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        open_store(url)
    assert caught.value.field == "store"
    assert SECRET not in repr(caught.value) + repr(caught.value.__context__)


def test_a_url_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match="as a str"):
        open_store(b"redis://h")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [{"connections": 0}, {"connections": 1.5}, {"acquire": 0}, {"command": "1"}])
def test_a_limit_that_cannot_work_is_refused_by_name(limit):
    (name,) = limit
    with pytest.raises(ConfigError, match=name):
        open_store("redis://h", **limit)
