"""The fuzz targets: what is done with each input, and what must come out (driver.c calls one of them).

Each compares the core with an oracle that shares no code with it, in both directions: what the oracle refuses must be
refused, and what it accepts must be accepted, with the same value. A disagreement is an AssertionError. Of the core's
exceptions only InvalidToken is caught, and any that leaves here is a finding.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import Any

import material
import oracles
from material import AUDIENCE, REVOKED_HANDLE, REVOKED_TENANT
from signing import ALGORITHMS, ISSUER, NOW, encode
from signing import header as signing_header

from fastverify import _core
from fastverify.errors import InvalidToken

MAX_TOKEN = 16384


def base64url(text: bytes) -> None:
    """The text is decoded."""
    found, expected = _core.fuzz_base64url(text), oracles.decode(text)
    assert found == expected, (found, expected)


def json(document: bytes) -> None:
    """The document is scanned in each of the three ways, which must agree, and its object built."""
    expected = oracles.parse(document)
    for names, members in (("", ()), ("claims", NOTED_CLAIMS), ("header", NOTED_HEADER)):
        reason, found, noted = _core.fuzz_scan(document, names)
        if reason is not None:
            assert expected is None or oracles.exceeds(document, reason), (reason, expected)
            continue
        assert oracles.same(found, expected), (found, expected)
        assert oracles.within_limits(found), found
        assert noted.keys() == found.keys() & members, (noted, found)
        for name, text in noted.items():
            value = oracles.parse(b'{"":' + text + b"}")
            assert value is not None and oracles.same(value[""], found[name]), (name, text)


def header(data: bytes) -> None:
    """The data are a header's JSON, and then a segment as they are."""
    for segment in (oracles.encode(data), data):
        if len(segment) > oracles.MAX_SEGMENT:
            continue
        reason, found = _core.fuzz_header(segment)
        expected = oracles.header(segment)
        if reason is None:
            assert found == expected, (found, expected)
        else:
            assert expected is None or oracles.exceeds(oracles.decode(segment), reason), (reason, expected)


def claims(payload: bytes) -> None:
    """The data are the claims set of a token that is well signed."""
    segment = oracles.encode(payload)
    signing_input = CLAIMS_HEADER + b"." + segment
    token = signing_input + b"." + oracles.encode(hmac.digest(HMAC_KEY.private, signing_input, "sha256"))
    if len(token) > MAX_TOKEN:
        return
    expected = oracles.claims(payload, ISSUER, AUDIENCE, NOW)
    if expected is not None and revoked(expected):
        expected = None
    try:
        found = REVOKING.verify(token, now=NOW)
    except InvalidToken as error:
        assert expected is None or oracles.exceeds(payload, error.reason), (error.reason, expected)
    else:
        agree_on_claims(found, expected)


def verify(token: bytes) -> None:
    """The data are a token. Only those are good that the target signed, whatever their signature looks like."""
    expected = expected_claims(token)
    for verifier, given in ((FAST, token), (PLAIN, token.decode("latin-1"))):
        try:
            found = verifier.verify(given, now=NOW)
        except InvalidToken as error:
            assert expected is None, error.reason
        else:
            agree_on_claims(found, expected)
            assert verifier.verify(given, now=NOW) is found, "not found in the cache"


def signature(data: bytes) -> None:
    """The first byte chooses a key, and the others are the signature of its good token."""
    algorithm = ALGORITHMS[data[0] % len(ALGORITHMS)] if data else ALGORITHMS[0]
    verify(f"{material.signing_input(algorithm)}.".encode() + oracles.encode(data[1:]))


def request(data: bytes) -> None:
    """The first byte chooses rules and a method, and each line is a header; in these, T stands for a good token."""
    rules, method = (data[0], ("GET", "POST", "OPTIONS")[data[0] // 16 % 3]) if data else (0, "GET")
    headers = []
    for line in data[1:].replace(b"T", SEEN.encode()).split(b"\n"):
        name, _, value = line.partition(b":")
        headers.append((name, value))
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value)
    incoming = _core.Incoming(headers)
    assert incoming.bearer == oracles.bearer(fields.get(b"authorization", []))
    for name in ("sAccessToken", "s", ""):
        assert incoming.cookies(name) == oracles.cookies(fields.get(b"cookie", []), name)
    for name in (b"rid", b"anti-csrf", b"st-auth-mode", b"origin", b"sec-fetch-site", b"x"):
        found = b", ".join(fields[name]).decode("latin-1").strip() if name in fields else None
        assert incoming.get(name) == (found if found or name != b"x" else None)
    shortcut = SHORTCUTS[rules % 8]
    assert shortcut.find(headers, method) == plainly(fields, method, rules % 2 == 0, rules % 4 < 2, rules % 8 < 4)


# What they share.

HMAC_KEY = material.key("HS256")
CLAIMS_HEADER = material.signing_input("HS256").partition(".")[0].encode()
SIGNED = {material.signing_input(algorithm).encode(): algorithm for algorithm in ALGORITHMS}
GOOD_CLAIMS = material.claims()
TENANT_CUTOFF = NOW - 1000
NOTED_CLAIMS = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "tId", "sessionHandle"}
NOTED_HEADER = {"alg", "kid", "typ"} | oracles.UNSUPPORTED


def verifier_of(**options: Any) -> _core.Verifier:
    """All keys, and a cache so small that it overflows all the time."""
    keys = [material.key(algorithm).verifying for algorithm in ALGORITHMS]
    verifier = _core.Verifier(keys, issuer=ISSUER, audience=AUDIENCE, cache_size=8, **options)
    verifier.prepare_keys()
    return verifier


def revocations() -> _core.RevocationTable:
    """One session and one tenant."""
    table = _core.RevocationTable()
    table.add(b"\x01" + uuid.UUID(REVOKED_HANDLE).bytes + bytes(8), NOW + 10**6)
    tenant = hashlib.sha256(REVOKED_TENANT.encode()).digest()[:16]
    table.add(b"\x04" + tenant + (1000 * TENANT_CUTOFF).to_bytes(8, "big"), NOW + 10**6)
    return table


FAST, PLAIN = (verifier_of(fast_crypto=fast) for fast in (True, False))
REVOKING = verifier_of(revocations=revocations(), max_token_bytes=MAX_TOKEN)


def seen_before(verifier: _core.Verifier) -> str:
    """A token that a verifier has verified, and that outlives this program."""
    signer = material.key("HS256")
    text = f"{encode(signing_header(signer))}.{encode(material.claims(iat=0, nbf=0, exp=4_000_000_000))}"
    token = f"{text}.{oracles.encode(hmac.digest(signer.private, text.encode(), 'sha256')).decode()}"
    assert verifier.view(token) == "user-1"
    return token


VIEWING = verifier_of(make_view=lambda claims: claims.subject)
SEEN = seen_before(VIEWING)
SHORTCUTS = [
    _core.Shortcut(
        VIEWING,
        bearer=number % 2 == 0,
        access_cookie="sAccessToken",
        legacy_cookie="sIdRefreshToken",
        proof=number % 4 < 2,
        origins=("https://example.com",) if number < 4 else (),
    )
    for number in range(8)
]


def plainly(fields: dict[bytes, list[bytes]], method: str, by_bearer: bool, proof: bool, origins: bool) -> Any:
    """What a short cut has to find: nothing, unless all is as it is with the clients' own requests."""
    authorization, cookie, origin = (fields.get(name, []) for name in (b"authorization", b"cookie", b"origin"))
    several = any(len(values) > 1 for values in (authorization, cookie, origin))
    if method == "OPTIONS" or several or oracles.cookies(cookie, "sIdRefreshToken"):
        return None
    if authorization and by_bearer:
        return ("user-1", "header") if authorization == [b"Bearer " + SEEN.encode()] else None
    if oracles.cookies(cookie, "sAccessToken") != [SEEN] or b"%" in cookie[0].partition(b"sAccessToken=")[2][:800]:
        return None
    if method != "GET" and ((proof and b"rid" not in fields) or (origins and origin != [b"https://example.com"])):
        return None
    return "user-1", "cookie"


def expected_claims(token: bytes) -> dict[str, Any] | None:
    """The claims of a token that somebody with the keys has signed, or None."""
    signing_input, _, segment = token.rpartition(b".")
    algorithm, sealed = SIGNED.get(signing_input), oracles.decode(segment)
    if algorithm is None or sealed is None or not material.is_signature(algorithm, signing_input, sealed):
        return None
    return GOOD_CLAIMS


def revoked(value: dict[str, Any]) -> bool:
    """Whether the table of `revocations` names the session or the tenant of this claims set."""
    handle = value.get("sessionHandle", "").encode()
    session = handle[:36].lower() == REVOKED_HANDLE.encode() and handle[36:37] in (b"", b"_")
    return session or (value.get("tId") == REVOKED_TENANT and value.get("iat", 0) <= TENANT_CUTOFF)


def agree_on_claims(found: _core.Claims, expected: dict[str, Any] | None) -> None:
    """A token was accepted: that was right, and it says what was signed."""
    assert expected is not None, found.to_dict()
    assert oracles.same(found.to_dict(), expected), (found.to_dict(), expected)
    assert list(found) == list(expected) and len(found) == len(expected)
    for name, value in expected.items():
        assert oracles.same(found[name], value), name
    assert (found.subject, found.issuer) == (expected.get("sub"), expected["iss"])
    assert (found.expires_at, found.issued_at) == (expected["exp"], expected.get("iat"))
    assert found.not_before == expected.get("nbf")
    assert "no such claim" not in found or "no such claim" in expected
