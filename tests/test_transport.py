"""The HTTP rules: golden strings and decision tables, with no server and no store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastverify import sites, transport
from fastverify.config import Config
from fastverify.errors import (
    ClaimValidationFailed,
    ConfigError,
    DuplicateCookies,
    FastVerifyError,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from fastverify.session import Issued, Session
from fastverify.transport import Incoming, Outgoing, Presented, Rules, Transport, Website

SECRET = bytes(range(32))
ISSUED_AT = 1_800_000_000  # Fri, 15 Jan 2027 08:00:00 GMT
LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"
THEFT = TokenTheftDetected(handle="h", user_id="u", tenant="public", reuse="older")


def config(**settings: Any) -> Config:
    domains = {"api_domain": "https://api.example.com", "website_domain": "https://example.com"}
    return Config(**{**domains, "secret": SECRET, **settings})


def incoming(*cookies: str, **headers: str) -> Incoming:
    """A request; ``_`` in a name stands for ``-``."""
    pairs = [(b"cookie", cookie.encode()) for cookie in cookies]
    pairs += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Incoming([(b"host", b"api.example.com"), *pairs, (b"accept", b"*/*")])


def session(anti_csrf: str | None = None) -> Session:
    return Session(
        handle="h", user_id="u", login_id="u", tenant="public", payload={}, access_token="a.b.c",
        expires_at=ISSUED_AT + 3600, issued_at=ISSUED_AT, claims={"antiCsrfToken": anti_csrf},  # type: ignore[arg-type]
    )  # fmt: skip


def issued(*, changed: bool = True, anti_csrf: str | None = None, access: str = "a.b.c") -> Issued:
    return Issued(
        session=session(anti_csrf), access_token=access, refresh_token="r-1", refresh_token_changed=changed,
        refresh_token_expires_at=ISSUED_AT + 8_640_000, front_token="Zg==", anti_csrf_token=anti_csrf,
    )  # fmt: skip


def outgoing(request: Incoming | None = None, **settings: Any) -> Outgoing:
    return Outgoing(Transport(config(**settings)), request or incoming())


def website(**settings: Any) -> Website:
    """What follows from the only website that there is."""
    return Transport(config(**settings)).website(incoming())


def removed(name: str, **settings: Any) -> str:
    """The cookie that removes one."""
    return Transport(config(**settings)).expired_cookie(name, website(**settings)).decode()


def written(out: Outgoing, headers: Iterable[tuple[bytes, bytes]] = ()) -> dict[str, list[str]]:
    """The response's headers, by name."""
    found: dict[str, list[str]] = {}
    for name, value in out.write(headers):
        found.setdefault(name.decode().lower(), []).append(value.decode())
    return found


# --- SameSite, Secure, Domain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "page", "same_site"),
    [
        ("https://api.example.com", "https://example.com", "lax"),
        ("https://api.example.com", "https://www.example.com:8443", "lax"),
        ("https://api.example.com", "https://example.org", "none"),
        ("https://api.example.co.uk", "https://example.co.uk", "lax"),
        ("https://a.co.uk", "https://b.co.uk", "none"),
        ("https://one.github.io", "https://two.github.io", "none"),  # the private section of the list
        ("https://github.io", "https://two.github.io", "none"),
        ("https://api.example.com", "http://example.com", "none"),  # the scheme is part of a site
        ("http://localhost:8000", "http://localhost:3000", "lax"),
        ("http://localhost:8000", "http://127.0.0.1:3000", "lax"),
        ("http://localhost.org", "http://localhost:3000", "lax"),  # every localhost*
        ("http://10.0.0.1", "http://192.168.1.7", "lax"),
        ("http://[::1]:8000", "http://localhost:3000", "lax"),
        ("https://[2001:db8::1]", "https://[2001:db8::2]", "none"),
        ("https://localhost:8000", "https://example.com", "none"),
        ("https://api.service.internal", "https://app.service.internal", "lax"),
    ],
)
def test_same_site_follows_registrable_domains_and_schemes(api: str, page: str, same_site: str) -> None:
    assert website(api_domain=api, website_domain=page).same_site == same_site


@pytest.fixture
def no_public_suffixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "public_suffixes", lambda: None)


def test_a_missing_public_suffix_list_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    assert sites.public_suffixes.__wrapped__() is None


@pytest.mark.usefixtures("no_public_suffixes")
class TestWithoutThePublicSuffixList:
    @pytest.mark.parametrize("page", ["https://api.example.com", "https://example.com", "https://w.api.example.com"])
    def test_equal_hosts_and_hosts_below_each_other_are_one_site(self, page: str) -> None:
        assert website(website_domain=page).same_site == "lax"

    def test_siblings_are_refused_with_what_to_do_about_it(self) -> None:
        with pytest.raises(ConfigError, match=r"fastverify\[domains\]") as caught:
            Transport(config(website_domain="https://www.example.com"))
        assert caught.value.field == "cookie_same_site"

    def test_siblings_work_once_same_site_is_set(self) -> None:
        assert website(website_domain="https://www.example.com", cookie_same_site="lax").same_site == "lax"

    def test_siblings_work_where_no_cookies_are_used(self) -> None:
        Transport(config(website_domain="https://www.example.com", token_transfer_method="header"))

    def test_different_schemes_need_no_list(self) -> None:
        assert website(website_domain="http://www.example.com").same_site == "none"


@pytest.mark.parametrize(
    ("setting", "attribute"),
    [
        (None, ""),
        ("", ""),
        (".example.com", "; Domain=.example.com"),
        (" Example.com ", "; Domain=example.com"),
        ("https://api.example.com:8000", "; Domain=api.example.com"),
    ],
)
def test_cookie_domain_is_reduced_to_its_host(setting: str | None, attribute: str) -> None:
    cookie = removed("sAccessToken", cookie_domain=setting)
    assert cookie.startswith(f"sAccessToken={attribute}; Path=/; ")


def test_a_leading_dot_is_dropped_for_localhost() -> None:
    local = {"api_domain": "http://localhost", "website_domain": "http://localhost", "cookie_domain": ".localhost"}
    assert "; Domain=localhost; " in removed("sAccessToken", **local)


@pytest.mark.parametrize(
    "setting", [".example.org", "www.example.com", "a b", "example.com; Path=/", "..", "ex\r\nmple"]
)
def test_a_cookie_domain_that_browsers_would_refuse_is_refused_at_start(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Transport(config(cookie_domain=setting))
    assert caught.value.field == "cookie_domain"


def test_cookies_that_browsers_would_refuse_are_refused_at_start_or_at_sign_in() -> None:
    insecure = {"api_domain": "http://api.example.com", "website_domain": "http://example.org"}
    with pytest.raises(ConfigError, match="SameSite=None"):
        Transport(config(**insecure, token_transfer_method="cookie"))
    rules = Transport(config(**insecure))
    assert rules.creation_method(incoming()) == "header"
    with pytest.raises(ConfigError, match="SameSite=None"):
        rules.creation_method(incoming(st_auth_mode="cookie"))


def test_a_development_machine_may_set_insecure_cross_site_cookies() -> None:
    local = config(api_domain="http://localhost:1", website_domain="http://127.0.0.1:2", cookie_same_site="none")
    assert Transport(local).creation_method(incoming(st_auth_mode="cookie")) == "cookie"


# --- cookie strings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "access", "refresh"),
    [
        (
            {},
            "sAccessToken=a.b.c; Path=/; Expires=Sat, 15 Jan 2028 08:00:00 GMT; HttpOnly; Secure; SameSite=Lax",
            "sRefreshToken=r-1; Path=/auth/session/refresh; Expires=Sun, 25 Apr 2027 08:00:00 GMT; "
            "HttpOnly; Secure; SameSite=Lax",
        ),
        (
            {"cookie_domain": ".example.com", "cookie_same_site": "strict", "api_gateway_path": "/gw",
             "api_base_path": "/x/y"},
            "sAccessToken=a.b.c; Domain=.example.com; Path=/; Expires=Sat, 15 Jan 2028 08:00:00 GMT; "
            "HttpOnly; Secure; SameSite=Strict",
            "sRefreshToken=r-1; Domain=.example.com; Path=/gw/x/y/session/refresh; "
            "Expires=Sun, 25 Apr 2027 08:00:00 GMT; HttpOnly; Secure; SameSite=Strict",
        ),
        (
            {"website_domain": "https://example.org"},
            "sAccessToken=a.b.c; Path=/; Expires=Sat, 15 Jan 2028 08:00:00 GMT; HttpOnly; Secure; SameSite=None",
            "sRefreshToken=r-1; Path=/auth/session/refresh; Expires=Sun, 25 Apr 2027 08:00:00 GMT; "
            "HttpOnly; Secure; SameSite=None",
        ),
        (
            {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:3000", "api_base_path": ""},
            "sAccessToken=a.b.c; Path=/; Expires=Sat, 15 Jan 2028 08:00:00 GMT; HttpOnly; SameSite=Lax",
            "sRefreshToken=r-1; Path=/session/refresh; Expires=Sun, 25 Apr 2027 08:00:00 GMT; HttpOnly; SameSite=Lax",
        ),
        (
            {"api_domain": "http://localhost:8000", "website_domain": "http://localhost:3000", "cookie_secure": True},
            "sAccessToken=a.b.c; Path=/; Expires=Sat, 15 Jan 2028 08:00:00 GMT; HttpOnly; Secure; SameSite=Lax",
            "sRefreshToken=r-1; Path=/auth/session/refresh; Expires=Sun, 25 Apr 2027 08:00:00 GMT; "
            "HttpOnly; Secure; SameSite=Lax",
        ),
    ],
)  # fmt: skip
def test_golden_cookies(settings: dict[str, Any], access: str, refresh: str) -> None:
    out = outgoing(**settings)
    out.created(issued(), "cookie")
    assert written(out)["set-cookie"] == [access, refresh]


def test_a_removed_cookie_has_the_same_name_path_domain_and_flags() -> None:
    out = outgoing(cookie_domain=".example.com")
    out.clear("cookie")
    assert written(out)["set-cookie"] == [
        f"sAccessToken=; Domain=.example.com; Path=/; Expires={LONG_AGO}; HttpOnly; Secure; SameSite=Lax",
        "sRefreshToken=; Domain=.example.com; Path=/auth/session/refresh; "
        f"Expires={LONG_AGO}; HttpOnly; Secure; SameSite=Lax",
    ]


def test_a_cookie_value_is_percent_encoded_and_read_back() -> None:
    cookie = Transport(config()).set_cookie("sAccessToken", "a+/=.;\r\n é%", ISSUED_AT, website()).decode()
    value = cookie.partition(";")[0].partition("=")[2]
    assert value == "a%2B%2F%3D.%3B%0D%0A%20%C3%A9%25"
    assert incoming(f"sAccessToken={value}").cookies("sAccessToken") == ["a+/=.;\r\n é%"]


@given(st.text(max_size=200))
def test_no_token_can_write_an_attribute_or_a_header(token: str) -> None:
    token = token.encode(errors="ignore").decode()
    cookie = Transport(config()).set_cookie("sAccessToken", token, ISSUED_AT, website())
    assert cookie.count(b";") == 5 and cookie.isascii() and b"\r" not in cookie and b"\n" not in cookie
    out = outgoing()
    if token.isascii() and token.isprintable() and " " not in token:
        out.created(issued(access=token), "header")
    else:
        with pytest.raises(ValueError, match="no header value"):
            out.created(issued(access=token), "header")


def test_a_cookie_above_4096_bytes_is_refused_and_nothing_is_written() -> None:
    out = outgoing(incoming(authorization="Bearer x.y.z"))
    most = 4096 - len("sAccessToken")
    with pytest.raises(ConfigError, match="4097 bytes"):
        out.created(issued(access="a" * (most + 1)), "cookie")
    assert not out
    out.created(issued(access="a" * most), "cookie")
    assert out


def test_cookie_attributes_above_1024_bytes_are_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="1024"):
        Transport(config(api_base_path="/" + "a" * 1000))


# --- how tokens arrive --------------------------------------------------------------------------------------------

BEARER, COOKIE = Presented("b.b.b", "header"), Presented("c.c.c", "cookie")


@pytest.mark.parametrize(
    ("forced", "both", "only_header", "only_cookie"),
    [
        (None, [BEARER, COOKIE], [BEARER], [COOKIE]),
        ("header", [BEARER], [BEARER], []),
        ("cookie", [COOKIE], [], [COOKIE]),
    ],
)
def test_header_goes_before_cookie_and_a_forced_method_alone_counts(
    forced: Any, both: list[Presented], only_header: list[Presented], only_cookie: list[Presented]
) -> None:
    rules = Rules(transfer_method=forced)
    bearer, cookie = {"authorization": "Bearer b.b.b"}, "sAccessToken=c.c.c"
    assert list(rules.access_tokens(incoming(cookie, **bearer), "GET")) == both
    assert list(rules.access_tokens(incoming(**bearer), "GET")) == only_header
    assert list(rules.access_tokens(incoming(cookie), "GET")) == only_cookie
    assert list(rules.access_tokens(incoming(), "GET")) == []


@pytest.mark.parametrize(
    ("value", "bearer"),
    [
        ("Bearer a.b.c", "a.b.c"),
        ("Bearer  a.b.c \t", "a.b.c"),
        ("bearer a.b.c", ""),
        ("BEARER a.b.c", ""),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearera.b.c", ""),
        ("Basic YTpi", ""),
    ],
)
def test_the_bearer_scheme_is_exact(value: str, bearer: str) -> None:
    assert incoming(authorization=value).bearer == bearer


def test_two_authorization_headers_make_no_token() -> None:
    request = Incoming([(b"authorization", b"Bearer a.b.c"), (b"authorization", b"Bearer d.e.f")])
    assert request.bearer == "a.b.c, Bearer d.e.f"  # three parts or not, no verifier takes it
    with pytest.raises(Unauthorised):
        Transport(config()).refresh_tokens(request)


@pytest.mark.parametrize(
    ("cookies", "values"),
    [
        (["sAccessToken=a.b.c"], ["a.b.c"]),
        (["x=1; sAccessToken=a.b.c; y=2"], ["a.b.c"]),
        (["x=1;sAccessToken=a.b.c"], ["a.b.c"]),
        (["x=1", "sAccessToken=a.b.c"], ["a.b.c"]),  # HTTP/2 may split the header
        (["sAccessToken=a=b"], ["a=b"]),
        (["sAccessToken="], []),
        (["sAccessToken"], []),
        (["saccesstoken=a", "xsAccessToken=a", "sAccessTokenx=a"], []),
        (["sAccessToken=a; sAccessToken=b"], ["a", "b"]),
        (["sAccessToken=a", "sAccessToken=; sAccessToken=b"], ["a", "b"]),
        ([";;=; =x"], []),
    ],
)
def test_session_cookies_are_read_from_the_raw_header(cookies: list[str], values: list[str]) -> None:
    assert incoming(*cookies).cookies("sAccessToken") == values


@given(st.lists(st.tuples(st.sampled_from([b"cookie", b"authorization", b"rid"]), st.binary(max_size=60)), max_size=5))
def test_no_header_bytes_break_the_reader(headers: list[tuple[bytes, bytes]]) -> None:
    request = Incoming(headers)
    for rules in (Rules(), Transport(config())):
        try:
            for token, _ in rules.access_tokens(request, "POST"):
                assert isinstance(token, str)
        except TryRefreshToken:
            pass
    try:
        assert Transport(config()).refresh_tokens(request)
    except Unauthorised:
        pass


def test_a_legacy_cookie_means_refresh_before_anything_else() -> None:
    request = incoming("sIdRefreshToken=x; sAccessToken=c.c.c", authorization="Bearer b.b.b")
    with pytest.raises(TryRefreshToken):
        next(Rules().access_tokens(request, "GET"))


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_options_and_trace_have_no_session(method: str) -> None:
    assert list(Rules().access_tokens(incoming("sIdRefreshToken=x; sAccessToken=c"), method)) == []


def test_duplicate_access_cookies_mean_refresh_but_only_when_it_comes_to_the_cookie() -> None:
    twice = "sAccessToken=a; sAccessToken=b"
    with pytest.raises(TryRefreshToken):
        next(Rules().access_tokens(incoming(twice), "GET"))
    tokens = Rules().access_tokens(incoming(twice, authorization="Bearer b.b.b"), "GET")
    assert next(tokens) == BEARER
    with pytest.raises(TryRefreshToken):
        next(tokens)
    assert list(Rules(transfer_method="header").access_tokens(incoming(twice), "GET")) == []


# --- anti-CSRF ----------------------------------------------------------------------------------------------------

UUID, OTHER = "6a1ee0a4-6f5e-4d2e-8d3a-6f0c6f5f9b11", "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("transfer", ["cookie", "header"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD"])
@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("mode", ["NONE", "VIA_CUSTOM_HEADER", "VIA_TOKEN"])
@pytest.mark.parametrize(
    ("headers", "custom_header", "token"),
    [
        ({}, False, False),
        ({"rid": "anti-csrf"}, True, False),
        ({"rid": ""}, True, False),
        ({"anti_csrf": UUID}, False, True),
        ({"anti_csrf": OTHER}, False, False),
        ({"anti_csrf": ""}, False, False),
        ({"rid": "session", "anti_csrf": UUID}, True, True),
    ],
)
def test_anti_csrf_matrix(
    transfer: Any, method: str, asked: bool | None, mode: Any, headers: dict[str, str], custom_header: bool, token: bool
) -> None:
    owes = transfer == "cookie" and (method != "GET" if asked is None else asked)
    passes = not owes or {"NONE": True, "VIA_CUSTOM_HEADER": custom_header, "VIA_TOKEN": token}[mode]
    rules = Rules(anti_csrf=mode)
    if passes:
        rules.check_anti_csrf(incoming(**headers), session(UUID), transfer, method, asked)
    else:
        with pytest.raises(TryRefreshToken):
            rules.check_anti_csrf(incoming(**headers), session(UUID), transfer, method, asked)


def test_a_session_without_an_anti_csrf_token_does_not_pass_via_token() -> None:
    for headers in ({}, {"anti_csrf": ""}, {"anti_csrf": "None"}):
        with pytest.raises(TryRefreshToken):
            Rules(anti_csrf="VIA_TOKEN").check_anti_csrf(incoming(**headers), session(None), "cookie", "POST", None)


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "NONE"),
        ({"website_domain": "https://example.org"}, "VIA_CUSTOM_HEADER"),
        ({"cookie_same_site": "none"}, "VIA_CUSTOM_HEADER"),
        ({"website_domain": "https://example.org", "cookie_same_site": "lax"}, "NONE"),
        ({"anti_csrf": "VIA_TOKEN"}, "VIA_TOKEN"),
        ({"website_domain": "https://example.org", "anti_csrf": "NONE"}, "NONE"),
    ],
)
def test_the_automatic_mode_follows_same_site(settings: dict[str, Any], mode: str) -> None:
    assert website(**settings).anti_csrf == mode


def test_only_cookie_sessions_are_bound_to_an_anti_csrf_token() -> None:
    rules = Transport(config(anti_csrf="VIA_TOKEN"))
    assert rules.binds_anti_csrf("cookie")
    assert not rules.binds_anti_csrf("header")
    assert not Transport(config()).binds_anti_csrf("cookie")


@pytest.mark.parametrize(
    ("origin", "transfer", "admitted"),
    [
        ("https://example.com", "cookie", True),
        ("HTTPS://EXAMPLE.COM", "cookie", True),
        ("https://api.example.com", "cookie", True),
        (None, "cookie", True),  # not a browser
        ("https://evil.example", "cookie", False),
        ("https://sub.example.com", "cookie", False),
        ("null", "cookie", False),
        ("https://evil.example", "header", True),
    ],
)
def test_a_websocket_with_a_cookie_comes_from_our_own_pages_only(origin: str, transfer: Any, admitted: bool) -> None:
    request = incoming(**({} if origin is None else {"origin": origin}))
    if admitted:
        Transport(config()).admit_socket(request, transfer)
    else:
        with pytest.raises(Unauthorised) as caught:
            Transport(config()).admit_socket(request, transfer)
        assert not caught.value.clear_tokens


# --- transfer method of a new session -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forced", "asked", "method"),
    [
        (None, None, "header"),
        (None, "cookie", "cookie"),
        (None, "Cookie", "cookie"),
        (None, "header", "header"),
        (None, "any", "header"),
        (None, "cookie2", "header"),
        ("cookie", None, "cookie"),
        ("cookie", "header", "cookie"),
        ("header", "cookie", "header"),
    ],
)
def test_the_method_of_a_new_session(forced: Any, asked: str | None, method: str) -> None:
    headers = {} if asked is None else {"st_auth_mode": asked}
    assert Transport(config(token_transfer_method=forced)).creation_method(incoming(**headers)) == method


# --- refresh ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forced", "request_", "presented"),
    [
        (None, incoming(authorization="Bearer r-1"), [("r-1", "header")]),
        (None, incoming("sRefreshToken=r-2"), [("r-2", "cookie")]),
        (None, incoming("sRefreshToken=r-2", authorization="Bearer r-1"), [("r-1", "header")]),
        (None, incoming("sRefreshToken=r-2", authorization="Bearer x.y.z"), [("r-2", "cookie")]),
        ("cookie", incoming("sRefreshToken=r-2", authorization="Bearer r-1"), [("r-2", "cookie")]),
        ("header", incoming("sRefreshToken=r-2", authorization="Bearer r-1"), [("r-1", "header")]),
        ("header", incoming("sRefreshToken=r-2"), None),
        ("cookie", incoming(authorization="Bearer r-1"), None),
        (None, incoming(), None),
        (None, incoming("sRefreshToken=; sAccessToken=a.b.c"), None),
        (None, incoming("sRefreshToken=r-1; sRefreshToken=r-1"), [("r-1", "cookie")]),
        (None, incoming("sRefreshToken=r-1; sRefreshToken=r-2"), [("r-1", "cookie"), ("r-2", "cookie")]),
    ],
)
def test_where_the_refresh_token_is_taken_from(forced: Any, request_: Incoming, presented: Any) -> None:
    rules = Transport(config(token_transfer_method=forced))
    if presented is None:
        with pytest.raises(Unauthorised) as caught:
            rules.refresh_tokens(request_)
        assert caught.value.clear_tokens  # "refresh without a token clears all"
    else:
        assert rules.refresh_tokens(request_) == presented


def test_a_cookie_refresh_needs_the_custom_header_where_that_is_the_proof() -> None:
    rules = Transport(config(website_domain="https://example.org"))
    with pytest.raises(Unauthorised, match="rid"):
        rules.refresh_tokens(incoming("sRefreshToken=r"))
    assert rules.refresh_tokens(incoming("sRefreshToken=r", rid="session"))
    assert rules.refresh_tokens(incoming(authorization="Bearer r"))


OURS, OTHERS = "https://example.com", "https://example.org"


@pytest.mark.parametrize(
    ("page", "site", "mode", "origin", "admitted"),
    [
        (OURS, None, None, None, True),  # a program
        (OURS, "same-origin", "cors", "https://api.example.com", True),
        (OURS, "same-origin", "navigate", None, True),  # a plain form of the site itself
        (OURS, "same-site", "cors", None, True),
        (OURS, "same-site", "cors", "https://other.example.com", True),  # a session is shared across subdomains
        (OURS, "none", "navigate", None, True),
        (OURS, "cross-site", "cors", None, False),
        (OURS, "cross-site", "cors", OTHERS, False),
        (OURS, "cross-site", "navigate", None, False),
        (OURS, "cross-site", "navigate", "null", False),
        (OURS, "cross-origin", "cors", None, False),  # no such value
        (OTHERS, "cross-site", "cors", OTHERS, True),  # the website is another site: that is the client
        (OTHERS, "cross-site", "cors", OTHERS.upper(), True),
        (OTHERS, "cross-site", "cors", None, False),
        (OTHERS, "cross-site", "cors", "null", False),
        (OTHERS, "cross-site", "cors", "https://evil.example", False),
        (OTHERS, "cross-site", "cors", "https://a.example.org", False),
        (OTHERS, "same-site", "cors", "https://evil.example.com", False),  # below the API's domain, and not configured
        (OTHERS, "cross-site", "navigate", None, False),
        (OTHERS, "cross-site", "no-cors", None, False),
        ("https://api.example.com", "same-site", "cors", "https://other.example.com", False),
        # Without Fetch Metadata, as over http and in old browsers, the origin says the same.
        (OURS, None, None, OURS, True),
        (OURS, None, None, "https://api.example.com", True),
        (OURS, None, None, "https://other.example.com", True),
        (OURS, None, None, "http://other.example.com", False),
        (OURS, None, None, OTHERS, False),
        (OURS, None, None, "null", False),
        (OURS, None, None, "https://[", False),
        (OURS, None, None, "", False),
        (OTHERS, None, None, OTHERS, True),
        (OTHERS, None, None, "https://other.example.com", False),
    ],
)
class TestAForeignPage:
    """What a cookie carries comes from a page of ours."""

    @staticmethod
    def request(site: str | None, mode: str | None, origin: str | None, *cookies: str, **more: str) -> Incoming:
        found = (("sec_fetch_site", site), ("sec_fetch_mode", mode), ("origin", origin))
        return incoming(*cookies, rid="session", **{name: value for name, value in found if value is not None}, **more)

    @pytest.mark.parametrize("cookies", [(), ("sRefreshToken=r",)])
    def test_can_neither_refresh_nor_clear(
        self, page: str, site: str, mode: str, origin: str, admitted: bool, cookies: tuple[str, ...]
    ) -> None:
        request, rules = self.request(site, mode, origin, *cookies), Transport(config(website_domain=page))
        if admitted and cookies:
            assert rules.refresh_tokens(request) == [("r", "cookie")]
        else:
            with pytest.raises(Unauthorised) as caught:
                rules.refresh_tokens(request)
            assert caught.value.clear_tokens is admitted
        bearer = self.request(site, mode, origin, *cookies, authorization="Bearer r")
        assert rules.refresh_tokens(bearer) == [("r", "header")]

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "QUERY"])
    @pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "multipart/form-data"])
    @pytest.mark.parametrize("override", [None, "GET", "POST"])
    def test_can_change_nothing(
        self,
        page: str,
        site: str,
        mode: str,
        origin: str,
        admitted: bool,
        method: str,
        content_type: str | None,
        override: str | None,
    ) -> None:
        """Whatever the body is said to be; and an override header, which no form can send, changes no rule."""
        more = {"content_type": content_type, "x_http_method_override": override}
        request = self.request(site, mode, origin, **{name: value for name, value in more.items() if value})
        rules = Transport(config(website_domain=page))
        rules.check_anti_csrf(request, session(), "header", method, None)
        rules.check_anti_csrf(request, session(), "cookie", method, False)
        for asked in (None, True):
            if admitted or (method == "GET" and asked is None):
                rules.check_anti_csrf(request, session(), "cookie", method, asked)
            else:
                with pytest.raises(TryRefreshToken):
                    rules.check_anti_csrf(request, session(), "cookie", method, asked)


def test_pages_of_the_same_site_are_ours_where_the_cookies_are_shared() -> None:
    request = incoming("sRefreshToken=r", origin="https://other.example.com", sec_fetch_site="same-site")
    for domain, admitted in ((".example.com", True), (None, False)):
        rules = Transport(config(website_domain="https://api.example.com", cookie_domain=domain))
        assert transport.is_foreign(request, rules.website(request)) is not admitted


def test_a_gateway_that_knows_no_origins_goes_by_the_anti_csrf_mode_alone() -> None:
    request = incoming(rid="anti-csrf", origin="https://evil.example", sec_fetch_site="cross-site")
    Rules().check_anti_csrf(request, session(), "cookie", "POST", None)
    with pytest.raises(TryRefreshToken):
        Rules(origins=[OURS]).check_anti_csrf(request, session(), "cookie", "POST", None)


# --- what goes out ------------------------------------------------------------------------------------------------


def test_header_mode_sets_three_headers_and_no_cookie() -> None:
    out = outgoing()
    out.created(issued(), "header")
    assert written(out) == {
        "st-access-token": ["a.b.c"],
        "st-refresh-token": ["r-1"],
        "front-token": ["Zg=="],
        "access-control-expose-headers": ["st-access-token, st-refresh-token, front-token"],
        "cache-control": ["no-store"],
    }


def test_cookie_mode_sets_two_cookies_and_the_front_token() -> None:
    out = outgoing()
    out.created(issued(), "cookie")
    headers = written(out)
    assert len(headers.pop("set-cookie")) == 2
    assert headers == {
        "front-token": ["Zg=="],
        "access-control-expose-headers": ["front-token"],
        "cache-control": ["no-store"],
    }


def test_the_access_token_is_shown_to_scripts_only_where_configured() -> None:
    out = outgoing(expose_access_token_to_frontend_in_cookie_based_auth=True)
    out.created(issued(), "cookie")
    headers = written(out)
    assert headers["st-access-token"] == ["a.b.c"]
    assert "st-refresh-token" not in headers


@pytest.mark.parametrize("transfer", ["cookie", "header"])
def test_an_unchanged_refresh_token_is_not_sent_again(transfer: Any) -> None:
    out = outgoing()
    out.refreshed(issued(changed=False), transfer)
    headers = written(out)
    assert "st-refresh-token" not in headers
    assert not any("sRefreshToken" in cookie for cookie in headers.get("set-cookie", ()))
    assert headers["front-token"] == ["Zg=="]


@pytest.mark.parametrize(("mode", "transfer", "sent"), [("VIA_TOKEN", "cookie", True), ("VIA_TOKEN", "header", False),
                                                         ("VIA_CUSTOM_HEADER", "cookie", False)])  # fmt: skip
def test_the_anti_csrf_token_goes_with_cookies_via_token_only(mode: str, transfer: Any, sent: bool) -> None:
    out = outgoing(anti_csrf=mode)
    out.created(issued(anti_csrf=UUID), transfer)
    assert written(out).get("anti-csrf") == ([UUID] if sent else None)


def test_a_sign_in_by_header_clears_the_cookies_that_were_there() -> None:
    out = outgoing(incoming("sAccessToken=old"))
    out.created(issued(), "header")
    headers = written(out)
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ["sAccessToken=", "sRefreshToken="]
    assert (headers["front-token"], headers["st-access-token"]) == (["Zg=="], ["a.b.c"])


def test_a_sign_in_by_cookie_clears_the_header_tokens_that_were_there() -> None:
    out = outgoing(incoming(authorization="Bearer old", st_auth_mode="cookie"))
    out.created(issued(), "cookie")
    headers = written(out)
    assert (headers["st-access-token"], headers["st-refresh-token"], headers["front-token"]) == ([""], [""], ["Zg=="])
    assert set(headers["access-control-expose-headers"][0].split(", ")) == {
        "st-access-token",
        "st-refresh-token",
        "front-token",
    }


def test_a_refresh_by_header_clears_a_refresh_cookie_that_came_too() -> None:
    out = outgoing(incoming("sRefreshToken=r-2", authorization="Bearer r-1"))
    out.refreshed(issued(), "header")
    headers = written(out)
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ["sAccessToken=", "sRefreshToken="]
    assert headers["st-refresh-token"] == ["r-1"]


def test_a_refresh_expires_the_legacy_cookie() -> None:
    out = outgoing(incoming("sIdRefreshToken=x; sRefreshToken=r"))
    out.refreshed(issued(), "cookie")
    assert f"sIdRefreshToken=; Path=/; Expires={LONG_AGO}; HttpOnly; Secure; SameSite=Lax" in written(out)["set-cookie"]


ALL = ["sAccessToken=", "sRefreshToken="]


@pytest.mark.parametrize(
    ("error", "clears"),
    [
        (Unauthorised(), True),
        (Unauthorised(clear_tokens=False), False),
        (TokenTheftDetected(handle="h", user_id="u", tenant="public", reuse="older"), True),
        (DuplicateCookies(), True),
        (TryRefreshToken(), False),
        (TooManyRefreshes(retry_after=1), False),
        (ClaimValidationFailed([]), False),
        (StoreUnavailable(), False),
    ],
)
def test_what_each_error_clears(error: FastVerifyError, clears: bool) -> None:
    out = outgoing()
    out.failed(error)
    out.failed(error)
    headers = written(out)
    if not clears:
        assert headers == {}
        return
    cookies = [cookie.partition(";")[0] for cookie in headers.pop("set-cookie")]
    assert cookies[-2:] == ALL
    assert headers == {
        "st-access-token": [""],
        "st-refresh-token": [""],
        "front-token": ["remove"],
        "access-control-expose-headers": ["front-token, st-access-token, st-refresh-token"],
        "cache-control": ["no-store"],
    }


@pytest.mark.parametrize("transfer", ["cookie", "header"])
def test_sign_out_clears_the_transport_of_the_session_alone(transfer: Any) -> None:
    out = outgoing()
    out.clear(transfer)
    headers = written(out)
    assert headers["front-token"] == ["remove"]
    assert ("set-cookie" in headers) is (transfer == "cookie")
    assert ("st-access-token" in headers) is (transfer == "header")


def test_an_error_after_a_sign_in_wins_over_it() -> None:
    out = outgoing(anti_csrf="VIA_TOKEN")
    out.created(issued(anti_csrf=UUID), "cookie")
    out.failed(Unauthorised())
    headers = written(out)
    assert headers["front-token"] == ["remove"]
    assert "anti-csrf" not in headers
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ALL


def test_a_sign_in_after_clearing_wins_over_it_and_is_last() -> None:
    out = outgoing()
    out.failed(Unauthorised())
    out.created(issued(), "cookie")
    headers = written(out)
    assert headers["front-token"] == ["Zg=="]
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ["sAccessToken=a.b.c", "sRefreshToken=r-1"]


def test_existing_headers_are_kept_merged_or_replaced() -> None:
    out = outgoing()
    out.created(issued(), "cookie")
    headers = written(
        out,
        [
            (b"content-type", b"text/plain"),
            (b"Set-Cookie", b"mine=1"),
            (b"Access-Control-Expose-Headers", b"X-Mine, Front-Token"),
            (b"Cache-Control", b"public, max-age=60"),
            (b"front-token", b"forged"),
        ],
    )
    assert headers["content-type"] == ["text/plain"]
    assert headers["set-cookie"][0] == "mine=1"
    assert headers["access-control-expose-headers"] == ["X-Mine, Front-Token"]
    assert headers["cache-control"] == ["no-store"]
    assert headers["front-token"] == ["Zg=="]


def test_a_response_with_nothing_queued_is_left_alone() -> None:
    headers = [(b"cache-control", b"public"), (b"x", b"y")]
    assert list(outgoing().write(headers)) == headers


# --- twins: cookies of one name after a change of domain ------------------------------------------------------------


class Jar:
    """A browser's cookies as RFC 6265 section 5.3 keeps them: by name, domain and path."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.cookies: dict[tuple[str, str, str], str] = {}

    def take(self, out: Outgoing) -> None:
        for header in written(out).get("set-cookie", ()):
            pair, *attributes = header.split("; ")
            name, _, value = pair.partition("=")
            given = dict(attribute.partition("=")[::2] for attribute in attributes)
            domain = given.get("Domain", "").lstrip(".")
            if domain and self.host != domain and not self.host.endswith("." + domain):
                continue
            key = (name, "*." + domain if domain else self.host, given["Path"])
            if given["Expires"] == LONG_AGO:
                self.cookies.pop(key, None)
            else:
                self.cookies[key] = value

    def header(self, path: str = "/auth/session/refresh") -> str:
        sent = [(n, v) for (n, _, p), v in self.cookies.items() if p == "/" or path.startswith(p)]
        return "; ".join(f"{name}={value}" for name, value in sent)


DOMAINS = [None, ".example.com", "api.example.com", "v1.api.example.com"]


@pytest.mark.parametrize("former", DOMAINS)
@pytest.mark.parametrize("present", DOMAINS)
def test_after_a_change_of_cookie_domain_one_refresh_leaves_one_cookie_of_each_name(
    former: str | None, present: str | None
) -> None:
    host = {"api_domain": "https://v1.api.example.com", "website_domain": "https://example.com"}
    jar = Jar("v1.api.example.com")
    for domain in (former, present):
        out = outgoing(**host, cookie_domain=domain)
        out.created(issued(), "cookie")
        jar.take(out)
    out = outgoing(incoming(jar.header()), **host, cookie_domain=present)
    out.refreshed(issued(), "cookie")
    jar.take(out)
    assert sorted(name for name, *_ in jar.cookies) == ["sAccessToken", "sRefreshToken"]
    out.clear("cookie")
    jar.take(out)
    assert jar.cookies == {}


@pytest.mark.parametrize("former", DOMAINS)
def test_signing_in_again_after_a_change_of_cookie_domain_leaves_no_twin(former: str | None) -> None:
    host = {"api_domain": "https://v1.api.example.com", "website_domain": "https://example.com"}
    jar = Jar("v1.api.example.com")
    out = outgoing(**host, cookie_domain=former)
    out.created(issued(), "cookie")
    jar.take(out)
    out = outgoing(incoming(jar.header("/login")), **host, cookie_domain=".example.com")
    out.created(issued(), "cookie")
    jar.take(out)
    assert sorted(jar.cookies) == [
        ("sAccessToken", "*.example.com", "/"),
        ("sRefreshToken", "*.example.com", "/auth/session/refresh"),
    ]


@pytest.mark.parametrize("former", DOMAINS)
def test_duplicates_that_cannot_be_told_apart_are_all_cleared(former: str | None) -> None:
    host = {"api_domain": "https://v1.api.example.com", "website_domain": "https://example.com"}
    jar = Jar("v1.api.example.com")
    for domain in (former, ".example.com"):
        out = outgoing(**host, cookie_domain=domain)
        out.created(issued(), "cookie")
        jar.take(out)
    out = outgoing(incoming(jar.header()), **host, cookie_domain=".example.com")
    out.failed(DuplicateCookies())
    jar.take(out)
    assert jar.cookies == {}


def test_an_ordinary_refresh_writes_no_twins() -> None:
    out = outgoing(incoming("sAccessToken=a; sRefreshToken=r"))
    out.refreshed(issued(), "cookie")
    assert len(written(out)["set-cookie"]) == 2


@pytest.mark.parametrize("api", ["http://localhost:8000", "http://127.0.0.1:8000"])
def test_a_development_machine_has_no_domains_to_clear(api: str) -> None:
    out = outgoing(incoming("sAccessToken=a; sAccessToken=b"), api_domain=api, website_domain=api)
    out.refreshed(issued(), "cookie")
    assert len(written(out)["set-cookie"]) == 2


# --- replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "body", "retry_after"),
    [
        (TryRefreshToken("secret detail"), 401, {"message": "try refresh token"}, None),
        (Unauthorised("secret detail"), 401, {"message": "unauthorised"}, None),
        (Unauthorised(clear_tokens=False), 401, {"message": "unauthorised"}, None),
        (DuplicateCookies(), 401, {"message": "unauthorised"}, None),
        (THEFT, 401, {"message": "token theft detected"}, None),
        (
            ClaimValidationFailed([{"id": "st-ev", "reason": {"message": "wrong value"}}, {"id": "x", "reason": None}]),
            403,
            {
                "message": "invalid claim",
                "claimValidationErrors": [{"id": "st-ev", "reason": {"message": "wrong value"}}, {"id": "x"}],
            },
            None,
        ),
        (TooManyRefreshes(retry_after=7), 429, {"message": "too many refreshes"}, b"7"),
        (StoreUnavailable(retry_after=2), 503, {"message": "service unavailable"}, b"2"),
    ],
)
def test_error_replies(error: FastVerifyError, status: int, body: Any, retry_after: bytes | None) -> None:
    reply = Transport(config()).reply(error)
    headers = dict(reply.headers)
    assert (reply.status, json.loads(reply.body)) == (status, body)
    assert headers[b"content-type"] == b"application/json; charset=utf-8"
    assert headers[b"content-length"] == str(len(reply.body)).encode()
    assert headers.get(b"retry-after") == retry_after


def test_status_codes_are_configurable() -> None:
    rules = Transport(config(session_expired_status_code=440, invalid_claim_status_code=499))
    assert [rules.reply(error).status for error in (Unauthorised(), TryRefreshToken(), THEFT)] == [440, 440, 440]
    assert rules.reply(ClaimValidationFailed([])).status == 499
    assert rules.reply(StoreUnavailable()).status == 503


def test_public_documents_are_for_everybody_and_cacheable() -> None:
    reply = transport.public_reply({"keys": []}, 60)
    headers = dict(reply.headers)
    assert (reply.status, reply.body) == (200, b'{"keys":[]}')
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers[b"cache-control"] == b"max-age=60, must-revalidate"
    assert dict(transport.public_reply({}, 0).headers)[b"cache-control"] == b"max-age=1, must-revalidate"


def test_cors_headers_hold_everything_that_the_client_sends() -> None:
    assert transport.cors_headers() == [
        "content-type",
        "rid",
        "fdi-version",
        "anti-csrf",
        "authorization",
        "st-auth-mode",
    ]


def test_the_routes_are_below_the_base_path_and_without_the_gateways_part() -> None:
    assert Transport(config(api_gateway_path="/gw")).routes == {
        "refresh": ("POST", "/auth/session/refresh"),
        "signout": ("POST", "/auth/signout"),
        "jwks": ("GET", "/auth/jwt/jwks.json"),
        "discovery": ("GET", "/auth/.well-known/openid-configuration"),
    }
