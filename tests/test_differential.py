"""The core beside two other verifiers, PyJWT and joserfc, on random tokens: good, damaged, and well signed but odd.

The core may be stricter, each time for a reason in the table below, and never laxer. What it accepts, both others
accept with equal claims. On its fast paths and through EVP alone it says the same, reason for reason.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import joserfc.errors
import jwt
import pytest
from both_ways import has_fast_path
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry
from signing import ALGORITHMS, ISSUER, SigningKey, base64url, encode, make_key, sign_segments

from fastverify import errors
from fastverify._core import Verifier

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")

#: Where the core refuses and another accepts: our reason, and the rule (J and A: the threat table) behind it.
STRICTER = {
    "base64url": "A20: one spelling per token",
    "json_syntax": "J5: RFC 8259 to the letter; NaN and Infinity are not in it",
    "surrogate": "J5: no lone surrogates",
    "duplicate_member": "J5: no name twice",
    "not_object": "J5: no byte order mark, no UTF-16 or UTF-32",
    "number_range": "J5: no number that reads as infinity",
    "depth": "J12: eight levels",
    "kid_malformed": "A6: a string of at most 128 bytes",
    "unknown_key": "A5: another kid is another key; the others are handed the one key",
    "typ_malformed": "J7: explicit typing",
    "typ_mismatch": "J7: explicit typing",
    "exp_malformed": "J8: whole seconds",
    "nbf_malformed": "J8: whole seconds",
    "iat_malformed": "J8: whole seconds",
    "aud_malformed": "J9: malformed is not absent",
    **dict.fromkeys(("crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc"), "J4: never accepted"),
}

Outcome = dict[str, Any] | None
Verify = Callable[[str], Outcome]
FUTURE, PAST = 2**40, 1_000_000_000


def ours(key: SigningKey, *, fast: bool) -> Verifier:
    # Without a cache: each token is looked at as if it were the first.
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0, fast_crypto=fast)
    verifier.prepare_keys()
    return verifier


def outcome_of(verifier: Verifier, token: str) -> dict[str, Any] | str:
    """Claims or reason."""
    try:
        return verifier.verify(token).to_dict()
    except errors.InvalidToken as refusal:
        return refusal.reason


def pyjwt(key: SigningKey) -> Verify:
    verifying = key.private if key.algorithm.startswith("HS") else key.private.public_key()

    def verify(token: str) -> Outcome:
        try:
            return jwt.decode(
                token,
                verifying,
                algorithms=[key.algorithm],
                issuer=ISSUER,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )
        except (jwt.InvalidTokenError, ValueError):
            return None

    return verify


def joserfc_(key: SigningKey) -> Verify:
    verifying = import_key(key.jwk)
    # Header parameters that mean nothing to it must be ignored (RFC 7515 section 4).
    headers = JWSRegistry(algorithms=[key.algorithm], strict_check_header=False)
    registry = joserfc_jwt.JWTClaimsRegistry(iss={"essential": True, "value": ISSUER}, exp={"essential": True})

    def verify(token: str) -> Outcome:
        try:
            decoded = joserfc_jwt.decode(token, verifying, registry=headers)
            registry.validate(decoded.claims)
        except (
            joserfc.errors.JoseError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # some refusals of its are accidents
            return None
        return decoded.claims

    return verify


# --- random tokens ---

ODD_NUMBERS = [
    "-0",
    "1e400",
    "1.0",
    "1e3",
    "NaN",
    "Infinity",
    "-Infinity",
    "-1",
    "9223372036854775808",
    "1099511627776.5",
    "2e12",
    "0",
    "1E2",
    "01",
]
ODD_TEXT = [
    r'"\ud800"',
    r'"\ud83d\ude00"',
    '"\\u0000"',
    r'"\/"',
    '"\x7f"',
    '"\u2028"',
    '"\t"',
    "'a'",
    '"\\x41"',
    '"\udcff"',
    '"\udce9"',
    '"é"',
]
ODD_VALUES = [
    *ODD_NUMBERS,
    *ODD_TEXT,
    "null",
    "true",
    "[]",
    "{}",
    '[""]',
    '["api"]',
    "[1]",
    '{"a":1,"a":2}',
    "[" * 7 + "]" * 7,
    "[" * 9 + "]" * 9,
    '""',
]
NAMES = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "x", "\\u0065xp", "__proto__", "", "tId"]
HEADER_NAMES = ["alg", "kid", "typ", "crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "x", "y", "\\u0061lg", "enc"]
HEADER_VALUES = [
    '"none"',
    '"HS256"',
    '"RS256"',
    '"ES256"',
    '"EdDSA"',
    '"key"',
    '"JWT"',
    '"jwt"',
    '"application/jwt"',
    '"at+jwt"',
    '["exp"]',
    *ODD_VALUES,
]


class Tokens:
    """A stream of tokens from one seed: some good, some damaged after signing, some odd before it."""

    def __init__(self, key: SigningKey, seed: int) -> None:
        self.key, self.random = key, random.Random(seed)
        self.last = self.good()

    def good(self) -> str:
        choice = self.random
        extra = {
            f"c{number}": choice.choice([number, "é", None, [1.5, {}], "a" * number])
            for number in range(choice.randrange(4))
        }
        payload = {"iss": ISSUER, "sub": f"user-{choice.randrange(1000)}", "iat": PAST, "exp": FUTURE} | extra
        return sign_segments(
            encode({"alg": self.key.algorithm, "kid": self.key.kid, "typ": "JWT"}), encode(payload), self.key
        )

    def next(self) -> str:
        kind = self.random.choice(
            [self.good, self.odd_header, self.odd_payload, self.odd_payload, self.odd_segment, *[self.damaged] * 4]
        )
        token = kind()
        if kind == self.good:
            self.last = token
        return token

    def damaged(self) -> str:
        """The last good token, changed after it was signed."""
        choice, text = self.random, self.last
        at = choice.randrange(len(text))
        character = choice.choice("ABCDwxyz0189-_.=+/ \n\0é")
        parts = text.split(".")
        return choice.choice([
            lambda: text[:at] + character + text[at + 1 :],
            lambda: text[:at] + character + text[at:],
            lambda: text[:at] + text[at + 1 :],
            lambda: text[:at],
            lambda: text + character,
            lambda: character + text,
            lambda: text[:at] + chr(ord(text[at]) ^ (1 << choice.randrange(7))) + text[at + 1 :],
            lambda: ".".join(choice.sample(parts, 3)),
            lambda: ".".join(parts[:2]) + "." + base64url(choice.randbytes(choice.choice([0, 1, 32, 64, 256]))),
            lambda: ".".join([*parts[:2], parts[2] + "=" * choice.randrange(1, 3)]),
            lambda: ".".join([*parts[:2], parts[2][:-1] + choice.choice("AEIMQUYcgkosw048BCD")]),
            lambda: parts[0] + "." + encode({"iss": ISSUER, "sub": "admin", "exp": FUTURE}) + "." + parts[2],
        ])()  # fmt: skip

    def odd_header(self) -> str:
        members = [f'"alg":"{self.key.algorithm}"', f'"kid":"{self.key.kid}"', '"typ":"JWT"']
        return self.signed(self.odd_object(members, HEADER_NAMES, HEADER_VALUES), None)

    def odd_payload(self) -> str:
        members = [f'"iss":"{ISSUER}"', '"sub":"user-1"', f'"iat":{PAST}', f'"exp":{FUTURE}']
        return self.signed(None, self.odd_object(members, NAMES, ODD_VALUES))

    def odd_object(self, members: list[str], names: list[str], values: list[str]) -> bytes:
        """Members replaced, removed, added; blanks and junk between them."""
        choice = self.random
        for _ in range(choice.randrange(1, 3)):
            member = f'"{choice.choice(names)}":{choice.choice(values)}'
            place = choice.randrange(len(members) + 1)
            members[place : place + choice.randrange(2)] = [member]
        blank = choice.choice(["", "", " ", "\n\t", "\r", "\f", "\0"]) if choice.random() < 0.2 else ""
        text = blank + "{" + ("," + blank).join(members) + blank + "}"
        if choice.random() < 0.1:
            text = choice.choice(
                [
                    text[:-1],
                    text + "x",
                    "\ufeff" + text,
                    text + " ",
                    "[" + text + "]",
                    text.replace(":", "=", 1),
                    text + text,
                ]
            )
        if choice.random() < 0.02:
            return text.encode(choice.choice(["utf-16", "utf-32-le"]), "surrogatepass")
        return text.encode("utf-8", "surrogateescape")

    def odd_segment(self) -> str:
        """Well signed over segments that are spelt as they should not be."""
        first, second, _ = self.last.split(".")
        spoil = self.random.choice([
            lambda s: s + "=" * (-len(s) % 4),
            lambda s: s + "=",
            lambda s: s + "A",
            lambda s: s[:-1] + self.random.choice("ABCDEFGHQRSTUgw"),
            lambda s: s + "\n",
            lambda s: "",
            lambda s: s[:9] + "." + s[9:],
        ])  # fmt: skip
        segments = (spoil(first), second) if self.random.random() < 0.5 else (first, spoil(second))
        return sign_segments(*segments, self.key)

    def signed(self, header: bytes | None, payload: bytes | None) -> str:
        """One part as given, the other one good."""
        first = {"alg": self.key.algorithm, "kid": self.key.kid, "typ": "JWT"} if header is None else header
        second = {"iss": ISSUER, "sub": "user-1", "exp": FUTURE} if payload is None else payload
        return sign_segments(encode(first), encode(second), self.key)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type: 1 is neither 1.0 nor True."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def compare(algorithm: str, seed: int, count: int) -> tuple[Counter[str], Counter[str]]:
    """What became of so many tokens: how many for each reason, and how many of those another would have accepted."""
    key = make_key(algorithm)
    tokens, fast, evp = Tokens(key, seed), ours(key, fast=True), ours(key, fast=False)
    others = {"PyJWT": pyjwt(key), "joserfc": joserfc_(key)}
    reasons: Counter[str] = Counter()
    stricter: Counter[str] = Counter()
    wrong: list[tuple[str, object, object, dict[str, Outcome]]] = []
    for _ in range(count):
        token = tokens.next()
        found, by_evp = outcome_of(fast, token), outcome_of(evp, token)
        theirs = {name: verify(token) for name, verify in others.items()}
        accepted = isinstance(found, dict)
        if accepted:
            agreed = all(outcome is not None and same(outcome, found) for outcome in theirs.values())
        else:
            lax = any(outcome is not None for outcome in theirs.values())
            agreed = not lax or found in STRICTER
            stricter[found] += lax
        reasons["accepted" if accepted else found] += 1
        if not agreed or not same(found, by_evp):
            wrong.append((token, found, by_evp, theirs))
    assert wrong == []
    # That the stream is not all of one kind, and that each way was the one that it was taken for.
    assert reasons["accepted"] > count // 20
    assert reasons["invalid_signature"] > count // 50
    assert len(reasons) >= 12
    checked = evp.crypto_info().evp
    assert evp.crypto_info().fast == 0
    assert (checked > count // 10) is (algorithm not in ("HS256", "HS384", "HS512", "EdDSA"))
    assert fast.crypto_info()[:2] == ((checked, 0) if has_fast_path(algorithm) else (0, checked))
    assert (fast.crypto_info().undecided, fast.crypto_info().contradicted) == (0, 0)
    return reasons, stricter


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_core_is_never_laxer_than_the_others(algorithm: str) -> None:
    compare(algorithm, seed=1, count=600 if algorithm in ("ES384", "ES512") else 2000)


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Counter[str], Counter[str]]]]:
    """Figures for each algorithm, which are shown in the end."""
    totals: dict[str, tuple[Counter[str], Counter[str]]] = {}
    yield totals
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for algorithm, (reasons, stricter) in totals.items():
            print(f"\n{algorithm}: {reasons.total()} tokens; in brackets: accepted by another", end="")
            for reason, number in reasons.most_common():
                print(f"\n  {reason:22}{number:8}" + (f"  ({stricter[reason]})" if stricter[reason] else ""), end="")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_core_is_never_laxer_than_the_others_on_many(
    algorithm: str, seed: int, tally: dict[str, tuple[Counter[str], Counter[str]]]
) -> None:
    totals = tally.setdefault(algorithm, (Counter(), Counter()))
    for total, counted in zip(totals, compare(algorithm, seed=1000 + seed, count=10_000), strict=True):
        total.update(counted)
