"""RemoteKeySet: keys behind a URL, kept current."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from jwks_server import Issuer, issuer, until
from signing import ISSUER, claims, header, make_key, sign

from fastverify import (
    ConfigError,
    InvalidSignature,
    KeySet,
    RemoteKeySet,
    StoreUnavailable,
    UnknownKey,
    UnsupportedToken,
    Verifier,
)

ONE, TWO = make_key("ES256", "one"), make_key("ES256", "two")


@pytest.fixture
def published() -> Iterator[Issuer]:
    with issuer() as state:
        state.publish(ONE)
        yield state


def token(key: Any = ONE) -> str:
    now = int(time.time())
    return sign(None if key is ONE else header(key), claims(iat=now, exp=now + 600), key)


def test_a_verifier_takes_the_keys_that_are_there(published: Issuer) -> None:
    with RemoteKeySet(published.url + "?tenant=a") as keys:
        assert keys.ready and len(keys) == 1 and [key.key_id for key in keys] == ["one"]
        assert isinstance(keys.keys, KeySet)
        assert published.paths == ["/jwks.json?tenant=a"]
        assert "tenant" not in repr(keys)
        verifier = Verifier(keys, issuer=ISSUER)
        assert verifier.verify(token()).subject == "user-1"
        with pytest.raises(InvalidSignature):
            verifier.verify(token()[:-8] + "AAAAAAAA")
    assert verifier.verify(token()).subject == "user-1", "closing ends the fetching, and nothing else"


def test_a_key_that_is_not_known_is_fetched_while_its_token_is_refused(published: Issuer) -> None:
    with RemoteKeySet(published.url, cool_down=0.0) as keys:
        verifier, another = Verifier(keys, issuer=ISSUER), Verifier(keys, issuer=ISSUER)
        published.publish(TWO)
        with pytest.raises(UnknownKey):
            verifier.verify(token(TWO))
        until(lambda: [key.key_id for key in keys] == ["two"])
        for each in (verifier, another):
            assert each.verify(token(TWO)).key_id == "two"
            with pytest.raises(UnknownKey):
                each.verify(token(ONE))


def test_a_key_of_another_algorithm_is_asked_for_too(published: Issuer) -> None:
    rsa = make_key("RS256", "rsa")
    with RemoteKeySet(published.url, cool_down=0.0) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        published.publish(ONE, rsa)
        with pytest.raises(UnsupportedToken):
            verifier.verify(token(rsa))
        until(lambda: len(keys) == 2)
        (verified,) = verifier.verify_many([token(rsa)])
        assert verified["sub"] == "user-1"


def test_made_up_kids_cost_one_fetch_in_a_cool_down(published: Issuer) -> None:
    with RemoteKeySet(published.url, cool_down=3600.0) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        for number in range(50):
            with pytest.raises(UnknownKey):
                verifier.verify(sign(header(ONE, kid=f"made-up-{number}"), None, ONE))
        assert verifier.verify(token()).key_id == "one"
        assert published.fetched == 1


def test_other_refusals_ask_for_nothing(published: Issuer) -> None:
    with RemoteKeySet(published.url, cool_down=0.0) as keys:
        asked = threading.Event()
        keys.missed = asked.set  # type: ignore[method-assign]
        verifier = Verifier(keys, issuer=ISSUER)
        for bad in (
            token()[:-8] + "AAAAAAAA",
            "x.y.z",
            sign(header(ONE, crit=["exp"]), None, ONE),
            sign(None, None, ONE),
        ):
            with pytest.raises(Exception, match=r"."):
                verifier.verify(bad)
        assert not asked.is_set()
        with pytest.raises(UnknownKey):
            verifier.verify(token(TWO))
        assert asked.is_set()


def test_it_is_fetched_anew_before_what_it_may_be_cached_for_is_over(published: Issuer) -> None:
    published.publish(ONE, cache_control="public, max-age=0, must-revalidate")
    with RemoteKeySet(published.url, cool_down=0.01) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        assert verifier.verify(token())
        published.publish(TWO, cache_control="max-age=0")
        until(lambda: [key.key_id for key in keys] == ["two"])
        with pytest.raises(UnknownKey):
            verifier.verify(token())


def broken(state: Issuer, how: str) -> None:
    state.headers = {}
    match how:
        case "error":
            state.status = 500
        case "redirect":
            state.status, state.headers = 302, {"location": state.url.replace("jwks", "elsewhere")}
        case "not json":
            state.body = b"<html>"
        case "empty":
            state.body = b'{"keys":[]}'
        case "secret":
            state.publish(make_key("HS256"))
        case "large":
            state.body = b" " * (1 << 20) + state.body
        case "cut short":
            state.headers = {"content-length": "100000"}


FAULTS = ["error", "redirect", "not json", "empty", "secret", "large", "cut short"]


@pytest.mark.parametrize("how", FAULTS)
def test_a_fetch_that_fails_leaves_the_old_keys(published: Issuer, how: str) -> None:
    with RemoteKeySet(published.url, cool_down=0.0, timeout=1.0) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        broken(published, how)
        keys.missed()
        before = published.fetched
        until(lambda: published.fetched > before)
        published.publish(ONE, TWO)
        keys.missed()
        assert verifier.verify(token()).key_id == "one"
        until(lambda: len(keys) == 2)
        assert "/elsewhere.json" not in published.paths


@pytest.mark.parametrize("how", FAULTS)
def test_without_a_first_set_there_is_an_error_and_no_thread(published: Issuer, how: str) -> None:
    broken(published, how)
    with pytest.raises(StoreUnavailable, match="not there yet"):
        RemoteKeySet(published.url, wait=0.05, timeout=0.5)
    gc.collect()
    until(lambda: not any(thread.name == "fastverify-jwks" for thread in threading.enumerate()))


def test_until_the_first_set_is_there_a_verifier_says_that_it_cannot_tell(published: Issuer) -> None:
    published.status = 503
    with RemoteKeySet(published.url, wait=0, cool_down=0.0) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        with pytest.raises(StoreUnavailable):
            verifier.verify(token())
        assert not keys.ready
        published.publish(ONE)
        until(lambda: keys.ready)
        assert verifier.verify(token())


def test_the_thread_ends_with_the_last_reference(published: Issuer) -> None:
    keys = RemoteKeySet(published.url)
    verifier = Verifier(keys, issuer=ISSUER)
    del keys
    gc.collect()
    assert any(thread.name == "fastverify-jwks" for thread in threading.enumerate()), "the verifier keeps it"
    del verifier
    gc.collect()
    until(lambda: not any(thread.name == "fastverify-jwks" for thread in threading.enumerate()))


def test_a_forked_child_fetches_by_itself(published: Issuer) -> None:
    with RemoteKeySet(published.url, cool_down=0.0) as keys:
        verifier = Verifier(keys, issuer=ISSUER)
        published.publish(TWO)
        before = published.fetched
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: there are threads
            child = os.fork()
        if child == 0:
            until(lambda: [key.key_id for key in keys] == ["two"])
            os._exit(0 if verifier.verify(token(TWO)) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert published.fetched > before
        assert [key.key_id for key in keys] == ["one"]


@pytest.mark.parametrize(
    "url",
    [
        *("http://keys.example.com/jwks.json", "http://10.0.0.1/jwks.json", "ftp://localhost/jwks.json", "jwks.json"),
        *(
            "https://",
            "https://user:password@keys.example.com/",
            "https://localhost:99999/",
            "http://localhost/a b",
            "",
        ),
        *("http://localhost.example.com/", "http://localhost/\r\nx: y", None),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="url"):
        RemoteKeySet(url, wait=0)
