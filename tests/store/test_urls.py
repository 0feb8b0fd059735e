"""URLs: which are understood, what is made of them, and that none of them is ever repeated with its password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastverify.errors import ConfigError
from fastverify.store import open_store
from fastverify.store.endpoint import Node

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


@pytest.mark.parametrize(
    ("url", "seeds", "service", "expected"),
    [
        ("redis+sentinel://h1,h2:7/name", [("h1", 26379), ("h2", 7)], "name", {"db": 0}),
        ("redis+sentinel://[::1],[::2]:7/my%20name/3", [("::1", 26379), ("::2", 7)], "my name", {"db": 3}),
        ("REDIS+Sentinel://us:p%40ss@h/n", [("h", 26379)], "n", {"username": "us", "password": "p@ss", "db": 0}),
        ("redis+cluster://h1,h2:7", [("h1", 6379), ("h2", 7)], "", {}),
        ("redis+cluster://:a@b@h/", [("h", 6379)], "", {"password": "a@b"}),
        ("rediss+cluster://h?ssl_ca_certs=/ca.pem", [("h", 6379)], "", {"ssl_ca_certs": "/ca.pem"}),
    ],
)
def test_urls_of_several_hosts_are_understood(url, seeds, service, expected):
    endpoint = open_store(url)._endpoint
    assert [(seed.host, seed.port) for seed in endpoint.seeds] == seeds
    assert endpoint.service == service
    assert endpoint.kind == ("tls" if url.startswith("rediss") else "tcp")
    assert settings(url) == expected | {"socket_keepalive": True}


def test_sentinels_have_credentials_of_their_own():
    endpoint = open_store("redis+sentinel://me:mine@h/n?sentinel_username=it&sentinel_password=its%26")._endpoint
    server, sentinel = endpoint.settings_of(Node("a", 1)), endpoint.settings_of(Node("b", 2, guide=True))
    assert (server["host"], server["port"], server["username"], server["password"]) == ("a", 1, "me", "mine")
    assert (sentinel["host"], sentinel["port"]) == ("b", 2)
    assert (sentinel["username"], sentinel["password"]) == ("it", "its&")


def test_a_password_of_the_servers_is_not_shown_to_sentinels():
    endpoint = open_store(f"redis+sentinel://me:{SECRET}@h/n")._endpoint
    assert SECRET not in repr(endpoint.settings_of(Node("b", 2, guide=True)))


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
        (f"redis+sentinel://me:{SECRET}@h,[::1]:7/n", "redis+sentinel://me@h:26379,[::1]:7/n/0"),
        (f"redis+sentinel://h/n?sentinel_password={SECRET}", "redis+sentinel://h:26379/n/0"),
        (f"rediss+cluster://:{SECRET}@h1,h2:7", "rediss+cluster://h1:6379,h2:7"),
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
        (f"redis+sentinel://:{SECRET}@h1,h2", "lacks the name"),
        (f"redis+sentinel://:{SECRET}@h1,h2/name/first", "database must be a number"),
        (f"redis+sentinel://:{SECRET}@/name", "must name its hosts"),
        (f"redis+sentinel://:{SECRET}@h1,,h2/name", "must name its hosts"),
        (f"redis+sentinel://:{SECRET}/@h1/name", "must name its hosts"),
        (f"redis+sentinel://h1/name?password={SECRET}", "sentinel_password, sentinel_username"),
        (f"redis+sentinel://h1/name#{SECRET}", "%23"),
        (f"redis+cluster://:{SECRET}@h1,h2/1", "one database"),
        (f"redis+cluster://h1:1,h2:{SECRET}", "must name its hosts"),
        (f"redis+cluster://:{SECRET}@h1:0", "a port that there is not"),
        (f"redis+cluster://:{SECRET}@::1", "in brackets"),
        (f"redis+cluster://h?sentinel_password={SECRET}", "no parameters"),
        (f"rediss+cluster://h?ssl_password={SECRET}", "ssl_ca_certs"),
        (f"redis+cluster:{SECRET}", "must be a URL"),
        (f"redis+both://:{SECRET}@h", "must be a URL"),
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
