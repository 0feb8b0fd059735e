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
from fastverify.outgoing import Outgoing
from fastverify.session import Issued, Session
from fastverify.transport import Incoming, Presented, Rules, Transport, Website

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


def issued(
    *, changed: bool = True, anti_csrf: str | None = None, access: str = "a.b.c", remember: bool = True
) -> Issued:
    return Issued(
        session=session(anti_csrf), access_token=access, refresh_token="r-1", refresh_token_changed=changed,
        refresh_token_expires_at=ISSUED_AT + 8_640_000, front_token="Zg==", anti_csrf_token=anti_csrf,
        remember=remember,
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


@pytest.mark.parametrize("domain", [None, ".example.com"])
@pytest.mark.parametrize("same_site", [None, "strict", "lax", "none"])
@pytest.mark.parametrize("secure", [None, False, True])
@pytest.mark.parametrize("partitioned", [False, True])
@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_golden_cookies_of_all_combinations(
    scheme: str, domain: str | None, same_site: Any, secure: bool | None, partitioned: bool, remember: bool
) -> None:
    settings = {
        "api_domain": f"{scheme}://api.example.com", "website_domain": f"{scheme}://example.com",
        "cookie_domain": domain, "cookie_same_site": same_site, "cookie_secure": secure,
        "cookie_partitioned": partitioned, "token_transfer_method": "cookie",
    }  # fmt: skip
    is_secure = scheme == "https" if secure is None else secure
    if not is_secure and (partitioned or same_site == "none"):
        with pytest.raises(ConfigError) as caught:
            Transport(config(**settings))
        assert caught.value.field == ("cookie_partitioned" if partitioned else "cookie_secure")
        return
    out = outgoing(**settings)
    out.created(issued(remember=remember), "cookie")
    ends = "; HttpOnly" + "; Secure" * is_secure + f"; SameSite={(same_site or 'lax').capitalize()}"
    ends += "; Partitioned" * partitioned
    at = f"; Domain={domain}" if domain else ""
    lasts = ["; Expires=Sat, 15 Jan 2028 08:00:00 GMT", "; Expires=Sun, 25 Apr 2027 08:00:00 GMT"]
    access, refresh = lasts if remember else ("", "")
    assert written(out)["set-cookie"] == [
        f"sAccessToken=a.b.c{at}; Path=/{access}{ends}",
        f"sRefreshToken=r-1{at}; Path=/auth/session/refresh{refresh}{ends}",
    ]
    out.clear("cookie")
    gone = f"; Expires={LONG_AGO}{ends}"
    assert written(out)["set-cookie"] == [
        f"sAccessToken={at}; Path=/{gone}",
        f"sRefreshToken={at}; Path=/auth/session/refresh{gone}",
    ]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"access_cookie_name": "__Host-at"}, None),
        ({"access_cookie_name": "__Secure-at", "refresh_cookie_name": "__Secure-rt"}, None),
        ({"access_cookie_name": "__Secure-at", "cookie_domain": ".example.com", "access_cookie_path": "/x"}, None),
        ({"access_cookie_name": "__Hostess"}, None),
        ({"access_cookie_name": "__Host-at", "cookie_domain": ".example.com"}, "access_cookie_name"),
        ({"access_cookie_name": "__host-at", "cookie_domain": ".example.com"}, "access_cookie_name"),
        ({"access_cookie_name": "__Host-at", "access_cookie_path": "/api"}, "access_cookie_name"),
        ({"access_cookie_name": "__Host-at", "cookie_secure": False}, "access_cookie_name"),
        ({"access_cookie_name": "__SECURE-at", "cookie_secure": False}, "access_cookie_name"),
        ({"refresh_cookie_name": "__Host-rt"}, "refresh_cookie_name"),
        ({"refresh_cookie_name": "__Host-rt", "api_base_path": "/"}, "refresh_cookie_name"),
        ({"refresh_cookie_name": "__Secure-rt", "cookie_secure": False}, "refresh_cookie_name"),
    ],
)
def test_prefixes_are_refused_where_browsers_would_drop_the_cookie(settings: Any, refused: str | None) -> None:
    if refused is None:
        Transport(config(**settings))
        return
    with pytest.raises(ConfigError) as caught:
        Transport(config(**settings))
    assert caught.value.field == refused


def test_the_error_for_a_host_refresh_cookie_says_what_to_take() -> None:
    with pytest.raises(ConfigError, match=r"Path=/ of a __Host- cookie.*Path=/auth/session/refresh; take __Secure-"):
        Transport(config(refresh_cookie_name="__Host-rt"))


def test_cookies_of_other_names_are_set_read_and_cleared() -> None:
    names = {"access_cookie_name": "at", "refresh_cookie_name": "rt", "access_cookie_path": "/api"}
    request = incoming("at=a.b.c; rt=r-1; sAccessToken=x; sRefreshToken=y")
    rules = Transport(config(**names))
    assert list(rules.access_tokens(request, "GET")) == [("a.b.c", "cookie")]
    assert rules.refresh_tokens(request) == [("r-1", "cookie")]
    assert list(Rules(access_cookie_name="at").access_tokens(request, "GET")) == [("a.b.c", "cookie")]
    out = outgoing(incoming(), **names)
    out.created(issued(), "cookie")
    access, refresh = written(out)["set-cookie"]
    assert access.startswith("at=a.b.c; Path=/api; ") and refresh.startswith("rt=r-1; Path=/auth/session/refresh; ")
    out.failed(Unauthorised())
    assert [cookie.partition("; E")[0] for cookie in written(out)["set-cookie"]] == [
        "at=; Path=/api",
        "rt=; Path=/auth/session/refresh",
    ]


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


# --- functions of the request -------------------------------------------------------------------------------------

NEAR, FAR, INSECURE = "https://www.example.com", "https://example.org", "http://example.net"


def several(request: Any) -> str:
    origin = request.get(b"origin")
    return origin if origin in (FAR, INSECURE) else NEAR


def test_what_follows_from_the_website_follows_from_the_request() -> None:
    """And never from the one before: every order gives the same."""
    rules = Transport(config(website_domain=several))
    expected = {NEAR: ("lax", "NONE"), FAR: ("none", "VIA_CUSTOM_HEADER"), INSECURE: ("none", "VIA_CUSTOM_HEADER")}
    for origin in (NEAR, FAR, INSECURE, FAR, NEAR, INSECURE, NEAR):
        site = rules.website(incoming(origin=origin))
        assert (site.same_site, site.anti_csrf) == expected[origin]
        assert site.origins == {origin, "https://api.example.com"}


def test_cookies_for_one_request_are_written_for_its_website() -> None:
    rules = Transport(config(website_domain=several))
    for origin, same_site in ((NEAR, "Lax"), (FAR, "None"), (NEAR, "Lax")):
        out = Outgoing(rules, incoming(origin=origin))
        out.created(issued(), "cookie")
        assert all(cookie.endswith(f"SameSite={same_site}") for cookie in written(out)["set-cookie"])


def test_settings_that_are_said_win_over_what_follows_from_the_website() -> None:
    rules = Transport(config(website_domain=several, cookie_same_site="strict", anti_csrf="VIA_TOKEN"))
    for origin in (NEAR, FAR):
        site = rules.website(incoming(origin=origin))
        assert (site.same_site, site.anti_csrf) == ("strict", "VIA_TOKEN")


def test_the_secure_guard_is_asked_for_each_website() -> None:
    rules = Transport(config(api_domain="http://api.example.com", website_domain=lambda r: r.get(b"origin")))
    same, other = "http://example.com", "http://example.org"
    assert rules.creation_method(incoming(origin=same, st_auth_mode="cookie")) == "cookie"
    assert rules.creation_method(incoming(origin=other)) == "header"
    with pytest.raises(ConfigError, match="SameSite=None"):
        rules.creation_method(incoming(origin=other, st_auth_mode="cookie"))
    assert rules.creation_method(incoming(origin=same, st_auth_mode="cookie")) == "cookie"


@pytest.mark.parametrize("said", [None, "", "example.com", "https://example.com/path", "ftp://example.com", 7])
def test_a_website_function_that_returns_no_url_is_a_mistake_of_the_application(said: Any) -> None:
    rules = Transport(config(website_domain=lambda request: said))
    with pytest.raises(ConfigError) as caught:
        rules.website(incoming())
    assert caught.value.field == "website_domain"


@pytest.mark.usefixtures("no_public_suffixes")
def test_a_website_function_may_need_the_public_suffix_list() -> None:
    rules = Transport(config(website_domain=several))
    with pytest.raises(ConfigError, match=r"fastverify\[domains\]"):
        rules.website(incoming(origin=NEAR))
    assert rules.website(incoming(origin=INSECURE)).same_site == "none"


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("said", ["cookie", "header", None])
def test_the_transfer_method_follows_from_the_request(said: Any, is_new: bool) -> None:
    asked: list[tuple[str | None, bool]] = []

    def choose(request: Any, for_new_session: bool) -> Any:
        asked.append((request.get(b"x-app"), for_new_session))
        return said if for_new_session is is_new else None

    rules = Transport(config(token_transfer_method=choose))
    both = incoming(
        "sAccessToken=c.c.c; sRefreshToken=r-2", authorization="Bearer b", x_app="web", st_auth_mode="Cookie"
    )
    assert rules.creation_method(both) == ((said or "cookie") if is_new else "cookie")
    by = {"cookie": ["cookie"], "header": ["header"], None: ["header", "cookie"]}[None if is_new else said]
    assert [transfer for _, transfer in rules.access_tokens(both, "GET")] == by
    assert rules.refresh_tokens(both)[0].transfer == by[0]
    assert asked == [("web", True), ("web", False), ("web", False)]


def test_a_transfer_function_that_returns_something_else_is_a_mistake_of_the_application() -> None:
    for said in ("any", "", 7, False):
        rules = Transport(config(token_transfer_method=lambda request, is_new, said=said: said))
        with pytest.raises(ConfigError) as caught:
            rules.creation_method(incoming())
        assert caught.value.field == "token_transfer_method"


@pytest.mark.parametrize("forced", [None, "cookie", "header"])
@pytest.mark.parametrize("to", ["cookie", "header", "any", None])
@pytest.mark.parametrize("keeps_cookies", [True, False])
def test_a_session_moves_only_to_where_its_tokens_are_read(forced: Any, to: Any, keeps_cookies: bool) -> None:
    api = "https://api.example.com" if keeps_cookies else "http://api.example.com"
    page = "https://example.org" if keeps_cookies else "http://example.org"
    rules = Transport(config(api_domain=api, website_domain=page, token_transfer_method=lambda r, new: forced))
    if to in ("cookie", "header") and forced in (None, to) and (keeps_cookies or to == "header"):
        rules.check_move(incoming(), to)
    else:
        with pytest.raises(ConfigError):
            rules.check_move(incoming(), to)


def test_other_headers_are_read_only_where_a_function_asks() -> None:
    request = Incoming([(b"x-app", b" a "), (b"x-app", b"b"), (b"origin", b"o"), (b"x-empty", b"")])
    assert request.get(b"x-app") == "a , b"
    assert request.get(b"x-other") is None
    environ = {"HTTP_X_APP": "a", "HTTP_COOKIE": "c=d", "SERVER_NAME": "s", "wsgi.input": None}
    assert transport.headers_of_environ(environ) == [(b"x-app", b"a"), (b"cookie", b"c=d")]


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


@pytest.mark.parametrize(
    ("page", "origin"),
    [("https://Example.org:443", "https://example.org"), ("http://example.org:80", "http://example.org"),
     ("https://example.org:80", "https://example.org:80"), ("https://example.org:8443", "https://example.org:8443")],
)  # fmt: skip
def test_an_origin_is_compared_as_browsers_write_it(page: str, origin: str) -> None:
    rules = Transport(config(website_domain=page))
    for known in (rules.website(incoming()), Rules(origins=[page]).website(incoming())):
        assert not transport.is_foreign(incoming(origin=origin, sec_fetch_site="cross-site"), known)
        assert transport.is_foreign(incoming(origin=origin + "0", sec_fetch_site="cross-site"), known)


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


LEGACY = f"sIdRefreshToken=; Path=/; Expires={LONG_AGO}; HttpOnly; Secure; SameSite=Lax"


@pytest.mark.parametrize("transfer", ["cookie", "header"])
def test_a_refresh_or_a_sign_in_expires_the_legacy_cookie_wherever_it_may_be(transfer: Any) -> None:
    """Else every call would be answered with "try refresh token" for ever."""
    for is_new in (True, False):
        out = outgoing(incoming("sIdRefreshToken=x; sRefreshToken=r"))
        (out.created if is_new else out.refreshed)(issued(), transfer)
        cookies = written(out)["set-cookie"]
        assert LEGACY in cookies
        assert any(cookie.startswith("sIdRefreshToken=; Domain=example.com; Path=/;") for cookie in cookies)


@pytest.mark.parametrize(
    ("error", "expires"),
    [
        (Unauthorised(), True),
        (TokenTheftDetected(handle="h", user_id="u", tenant="public", reuse="older"), True),
        (DuplicateCookies(), True),
        (Unauthorised(clear_tokens=False), False),
        (TryRefreshToken(), False),
        (TooManyRefreshes(retry_after=1), False),
        (ClaimValidationFailed([]), False),
        (StoreUnavailable(), False),
    ],
)
def test_the_legacy_cookie_goes_with_whatever_clears(error: FastVerifyError, expires: bool) -> None:
    for sent in (True, False):
        out = outgoing(incoming("sIdRefreshToken=x") if sent else None)
        out.failed(error)
        assert (LEGACY in written(out).get("set-cookie", ())) is (sent and expires)


@pytest.mark.parametrize("mode", ["NONE", "VIA_TOKEN"])
def test_a_move_sets_one_transport_and_clears_the_other(mode: str) -> None:
    out = outgoing(incoming("sAccessToken=a"), anti_csrf=mode)
    out.moved(issued(), "header")
    headers = written(out)
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ALL
    assert (headers["st-access-token"], headers["st-refresh-token"]) == (["a.b.c"], ["r-1"])
    assert headers["front-token"] == ["Zg=="] and "anti-csrf" not in headers
    token = UUID if mode == "VIA_TOKEN" else None
    out = outgoing(incoming(authorization="Bearer a"), anti_csrf=mode)
    out.moved(issued(anti_csrf=token), "cookie")
    headers = written(out)
    assert [cookie.partition(";")[0] for cookie in headers["set-cookie"]] == ["sAccessToken=a.b.c", "sRefreshToken=r-1"]
    assert (headers["st-access-token"], headers["st-refresh-token"]) == ([""], [""])
    assert headers["front-token"] == ["Zg=="] and headers.get("anti-csrf") == ([token] if token else None)


def test_a_move_that_is_too_large_for_a_cookie_changes_nothing() -> None:
    out = outgoing(incoming(authorization="Bearer a"))
    with pytest.raises(ConfigError, match="browsers drop"):
        out.moved(issued(access="a" * 5000), "cookie")
    assert not out


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


@pytest.mark.parametrize("transfer", ["cookie", "header"])
def test_a_response_knows_whose_tokens_it_carries_and_can_drop_them(transfer: Any) -> None:
    out = outgoing()
    assert out.handle is None
    out.reissued(issued(), transfer)
    assert out.handle == "h"
    out.clear(transfer)
    assert out.handle is None and written(out)["front-token"] == ["remove"]
    out.reissued(issued(), transfer)
    out.drop()
    assert out.handle is None and written(out, [(b"x-mine", b"1")]) == {"x-mine": ["1"]}


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
    """A browser's cookies as RFC 6265 section 5.3 keeps them: by name, domain and path; and by partition."""

    def __init__(self, host: str, partitions: bool = True) -> None:
        self.host = host
        self.partitions = partitions
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
            if self.partitions and "Partitioned" in given:
                key = (name + " (partitioned)", *key[1:])
            if given.get("Expires") == LONG_AGO:
                self.cookies.pop(key, None)
            else:
                self.cookies[key] = value

    def header(self, path: str = "/auth/session/refresh") -> str:
        """What it sends to a path (RFC 6265 section 5.1.4)."""
        found = self.cookies.items()
        sent = [(n, v) for (n, _, p), v in found if path == p or path.startswith(p.rstrip("/") + "/")]
        return "; ".join(f"{name.partition(' ')[0]}={value}" for name, value in sent)


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


@pytest.mark.parametrize("knows_partitions", [True, False])
@pytest.mark.parametrize("former", [True, False])
def test_after_a_change_of_partitioned_one_refresh_leaves_one_cookie_of_each_name(
    former: bool, knows_partitions: bool
) -> None:
    jar = Jar("api.example.com", knows_partitions)
    for partitioned in (former, not former):
        out = outgoing(cookie_partitioned=partitioned)
        out.created(issued(), "cookie")
        jar.take(out)
    assert len(jar.cookies) == (4 if knows_partitions else 2)
    if not knows_partitions:
        return
    out = outgoing(incoming(jar.header()), cookie_partitioned=not former)
    out.refreshed(issued(), "cookie")
    jar.take(out)
    assert len(jar.cookies) == 2 and all("partitioned" in name for name, *_ in jar.cookies) is not former


@pytest.mark.parametrize("base", ["/auth", "/api/auth"])
def test_after_a_change_of_the_access_cookies_path_one_refresh_leaves_one(base: str) -> None:
    """Also where the refresh route, above the new path, is sent the former one alone."""
    jar = Jar("api.example.com")
    for path in ("/", "/api"):
        out = outgoing(access_cookie_path=path, api_base_path=base)
        out.created(issued(), "cookie")
        jar.take(out)
    assert jar.header("/api/me").count("sAccessToken") == 2
    out = outgoing(incoming(jar.header(f"{base}/session/refresh")), access_cookie_path="/api", api_base_path=base)
    out.refreshed(issued(), "cookie")
    jar.take(out)
    assert jar.header("/api/me").count("sAccessToken") == 1
    out = outgoing(incoming(jar.header(f"{base}/session/refresh")), access_cookie_path="/api", api_base_path=base)
    out.refreshed(issued(), "cookie")
    assert len(written(out)["set-cookie"]) == 2  # and it is over


def test_a_host_cookie_has_no_twin() -> None:
    out = outgoing(incoming("__Host-at=a; __Host-at=b; sRefreshToken=r"), access_cookie_name="__Host-at")
    out.refreshed(issued(), "cookie")
    assert not any("Domain" in cookie for cookie in written(out)["set-cookie"] if cookie.startswith("__Host-at"))


@pytest.mark.parametrize("older", ["", ".example.com", "api.example.com"])
def test_the_older_domain_is_among_the_places_that_are_cleared(older: str) -> None:
    out = outgoing(
        incoming("sRefreshToken=a; sRefreshToken=b"),
        api_domain="https://v1.api.example.com",
        cookie_domain="v1.api.example.com",
        older_cookie_domain=older,
    )
    out.refreshed(issued(), "cookie")
    place = f"; Domain={older.lstrip('.')}" if older else ""
    assert any(cookie.startswith(f"sRefreshToken={place}; Path=/auth") for cookie in written(out)["set-cookie"])


def test_an_older_domain_on_a_development_machine() -> None:
    out = outgoing(
        incoming("sRefreshToken=a; sRefreshToken=b"),
        api_domain="http://localhost:8000",
        website_domain="http://localhost:3000",
        older_cookie_domain="localhost",
    )
    out.refreshed(issued(), "cookie")
    assert any("Domain=localhost" in cookie for cookie in written(out)["set-cookie"])


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"older_cookie_domain": ".example.org"}, "older_cookie_domain"),
        ({"older_cookie_domain": "a b"}, "older_cookie_domain"),
        ({"older_cookie_domain": ""}, "older_cookie_domain"),  # that is where they are now
        ({"older_cookie_domain": "example.com", "cookie_domain": ".example.com"}, "older_cookie_domain"),
    ],
)
def test_an_older_domain_that_cannot_be_one_is_refused_at_start(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Transport(config(**settings))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("cookies", "bearer", "forced", "refused"),
    [
        ("sRefreshToken=a; sRefreshToken=b", "", None, ["sRefreshToken"]),
        ("sRefreshToken=a; sRefreshToken=a", "", None, ["sRefreshToken"]),
        ("sAccessToken=a; sAccessToken=b; sRefreshToken=r", "", None, ["sAccessToken"]),
        ("sAccessToken=a; sAccessToken=b", "Bearer r", None, ["sAccessToken"]),
        ("sRefreshToken=a; sRefreshToken=b", "", "cookie", ["sRefreshToken"]),
        ("sRefreshToken=a; sRefreshToken=b", "Bearer r", "header", None),
        ("sRefreshToken=a; sRefreshToken=", "", None, None),
        ("sRefreshToken=a; sAccessToken=a", "", None, None),
    ],
)
@pytest.mark.parametrize("older", [None, ".example.com"])
def test_duplicates_are_refused_where_that_is_asked_for(
    cookies: str, bearer: str, forced: Any, refused: list[str] | None, older: str | None
) -> None:
    request = incoming(cookies, authorization=bearer)
    settings = {"duplicate_cookies": "refuse", "token_transfer_method": forced, "older_cookie_domain": older}
    rules = Transport(config(**settings))
    if refused is None:
        assert rules.refresh_tokens(request)
        return
    with pytest.raises(DuplicateCookies) as caught:
        rules.refresh_tokens(request)
    out = Outgoing(rules, request)
    out.failed(caught.value)
    reply, headers = rules.reply(caught.value), written(out)
    if older is None:
        assert reply.status == 500 and "The request contains multiple session cookies." in reply.body.decode()
        assert headers == {}
    else:
        assert reply.status == 200 and list(json.loads(reply.body)) == ["message"]
        names = [cookie.partition("=; Domain=.example.com; Path=")[0] for cookie in headers.pop("set-cookie")]
        assert names == refused and set(headers) == {"cache-control"}


def test_a_foreign_page_is_told_nothing_of_duplicates() -> None:
    rules = Transport(config(duplicate_cookies="refuse", older_cookie_domain=".example.com"))
    with pytest.raises(Unauthorised) as caught:
        rules.refresh_tokens(incoming("sRefreshToken=a; sRefreshToken=b", origin="https://evil.example"))
    assert not caught.value.clear_tokens


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
