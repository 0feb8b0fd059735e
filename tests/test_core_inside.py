"""The core with a hatch, built for these tests: what no message leads to, and fast paths that lie.

One build serves both. Its hatch hands a digest to the very functions that a check hands it to, and asks for single
inverses; and it is compiled with FASTVERIFY_FAULTY_FAST_PATHS, so that in a verifier its fast paths accept everything
(the hatch stands before that).
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import random
import types
from pathlib import Path

import pytest
from both_ways import needs_fast_ecdsa, needs_fast_rsa
from builds import build_package, run_with
from cryptography.hazmat.primitives.asymmetric import ec
from p256 import N, P
from signing import p1363
from test_fast_ecdsa import EDGES

HATCH = '''

def hatch_verdicts(Key key not None, bytes digest not None, bytes signature not None):
    """What fast path (1, 0; below 0: it leaves it to EVP) and EVP (True, False) say."""
    cdef const unsigned char *number = digest
    cdef const unsigned char *given = signature
    cdef Loan loan
    key.lend(&loan, True)
    try:
        return check_fast(key, &loan, number, given), bool(check_by_evp(key, loan.context, number, given))
    finally:
        clear_errors()
        key.take_back(&loan)


def hatch_inverse(bytes number not None):
    """Modulo the order of P-256; None: there is none."""
    cdef const unsigned char *given = number
    cdef unsigned char inverse[32]
    return inverse[:32] if fv_inverse(&P256.modulus, given, inverse) else None
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package."""
    folder: Path = tmp_path_factory.mktemp("inside")

    def cut_hatch(copy: Path) -> None:
        source = copy / "src" / "_core.pyx"
        source.write_text(source.read_text() + HATCH)

    build_package(folder, cut_hatch, CFLAGS="-O0 -DFASTVERIFY_FAULTY_FAST_PATHS")
    return folder


@pytest.fixture(scope="module")
def inside(package: Path) -> types.ModuleType:
    """Its core, beside the real one in this process."""
    (library,) = (package / "fastverify").glob("_core.*.so")
    spec = importlib.util.spec_from_file_location("inside._core", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- ES256 with digests of our choice ---


def point(scalar: int) -> tuple[int, int]:
    """A multiple of the generator."""
    numbers = ec.derive_private_key(scalar % N, ec.SECP256R1()).public_key().public_numbers()
    return numbers.x, numbers.y


@functools.cache
def key_of(inside: types.ModuleType, d: int) -> object:
    x, y = (coordinate.to_bytes(32, "big") for coordinate in point(d))
    key = inside.Key.ec("ES256", None, x, y)
    assert key.prepare()
    return key


def accepted(inside: types.ModuleType, d: int, e: int, r: int, s: int) -> bool:
    """The one verdict of both, on digest e under the key of d."""
    fast, evp = inside.hatch_verdicts(key_of(inside, d), e.to_bytes(32, "big"), p1363("ES256", r, s))
    assert fast == evp
    return evp


KEYS = [1, N - 1, 0xC0FFEE, random.Random(1).randrange(N)]


@needs_fast_ecdsa
@pytest.mark.parametrize("d", KEYS)
def test_a_digest_of_zero_leaves_the_key_alone_to_decide(inside: types.ModuleType, d: int) -> None:
    """u1 = 0, for e = 0 and for e = n, which is the same: R = u2 Q."""
    for u2 in (1, 2, 0xFACADE, N - 1):
        r = point(u2 * d)[0] % N
        s = r * pow(u2, -1, N) % N
        for e in (0, N):
            assert accepted(inside, d, e, r, s) and accepted(inside, d, e, r, N - s)
        for e in (1, N - 1, N + 1, 2**256 - 1):
            assert not accepted(inside, d, e, r, s)


@needs_fast_ecdsa
@pytest.mark.parametrize("d", KEYS)
def test_a_digest_not_below_the_order_counts_modulo_the_order(inside: types.ModuleType, d: int) -> None:
    for small in (1, 2, 2**256 - 1 - N, 0xC0FFEE):
        r = point(0xFACADE)[0] % N
        s = pow(0xFACADE, -1, N) * (small + r * d) % N
        assert accepted(inside, d, small, r, s) and accepted(inside, d, small + N, r, s)
        assert not accepted(inside, d, small - 1, r, s)
        assert not accepted(inside, d, small + N - 1, r, s)


@needs_fast_ecdsa
@pytest.mark.parametrize("d", KEYS)
def test_every_pair_of_multipliers_at_the_edges_agrees(inside: types.ModuleType, d: int) -> None:
    """R = u1 G + u2 Q for keys whose logarithm is known: equal points and opposite ones are among the sums."""
    infinite = 0
    for u1, u2 in itertools.product(EDGES, EDGES):
        nonce = (u1 + u2 * d) % N
        r = point(nonce)[0] % N if nonce else 12345
        s = r * pow(u2, -1, N) % N
        e = u1 * s % N
        infinite += not nonce
        assert accepted(inside, d, e, r, s) is (nonce != 0), (u1, u2)
        assert not accepted(inside, d, e ^ 1, r, s), (u1, u2)
        assert not accepted(inside, d, e, r ^ 1, s), (u1, u2)
    assert infinite or d not in (1, N - 1)


@needs_fast_ecdsa
def test_the_inverse_is_the_inverse(inside: types.ModuleType) -> None:
    """It need not be believed, as every use of it is checked; wrong ones would send all work to EVP."""
    choice = random.Random(2)
    numbers = [*EDGES, *(2**k for k in range(256)), *(2**k - 1 for k in range(1, 256)), *range(1, 200)]
    numbers += [N - number for number in numbers] + [N - 2**k + 1 for k in range(1, 256)]
    numbers += [choice.getrandbits(bits) for bits in (60, 61, 62, 63, 64, 124, 186, 248, 255) for _ in range(200)]
    numbers += [choice.getrandbits(64) << shift for shift in range(192) for _ in range(3)]
    numbers += [choice.randrange(1, N) for _ in range(20_000)]
    wrong = [n for n in numbers if 0 < n < N and inverse(inside, n) != pow(n, -1, N)]
    assert wrong == []


@needs_fast_ecdsa
@pytest.mark.parametrize("number", [N + 1, P, 2**256 - 1, 2**256 - 2])
def test_a_number_above_the_order_has_the_inverse_of_its_remainder(inside: types.ModuleType, number: int) -> None:
    """No check asks for it."""
    assert inverse(inside, number) == pow(number, -1, N)


def inverse(inside: types.ModuleType, number: int) -> int | None:
    found = inside.hatch_inverse(number.to_bytes(32, "big"))
    return found and int.from_bytes(found, "big")


# --- a fast path that EVP contradicts ---

PREAMBLE = """
import math
from signing import ISSUER, NOW, claims, make_key, sign
from fastverify import errors
from fastverify._core import Claims, Verifier, openssl_info

def token_of(key, number=0):
    # Good at NOW and by the clock.
    return sign(None, claims(iat=0, exp=2**40, jti=str(number)), key)

def damaged(token):
    return token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")

def raised(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error)

def prepared(key, **options):
    verifier = Verifier([key.verifying], issuer=ISSUER, **options)
    verifier.prepare_keys()
    return verifier

def states():
    info = openssl_info()
    return {state for name, state in info.items() if name.startswith("fast_")}

def evp_decides():
    assert states() == {"off: it contradicted EVP"}
    for algorithm in ("RS256", "PS256", "ES256"):
        other = make_key(algorithm, "other")
        verifier = prepared(other)
        for _ in range(3):
            assert raised(verifier.verify, damaged(token_of(other)), now=NOW) is errors.InvalidSignature
        assert verifier.verify(token_of(other), now=NOW)["sub"] == "user-1"
        assert verifier.crypto_info()[:5] == (0, 4, 0, 0, 0)
    other = make_key("HS256", "other")
    assert raised(prepared(other).verify, damaged(token_of(other)), now=NOW) is errors.InvalidSignature
    assert prepared(other).verify(token_of(other), now=NOW)["sub"] == "user-1"
"""

AT_ONCE = """
key = make_key(ALGORITHM)
verifying, good, bad = key.verifying, token_of(key), damaged(token_of(key, 1))
verifying.prepare()
verifier = Verifier([verifying], issuer=ISSUER, make_view=lambda claims: claims)
calls = {
    "verify": lambda: verifier.verify(bad, now=NOW),
    "verify_many": lambda: verifier.verify_many([bad, good], now=NOW),
    "verify_jws": lambda: verifier.verify_jws(bad),
    "view": lambda: verifier.view(bad),
    "key": lambda: verifying.verify(b"message", key.sign(b"massage"), fast=True),
}
assert states() == {"yes"}
assert raised(calls[CALL]) is errors.CryptoFault
assert verifier.cache_info().size == 0
if CALL != "key":  # in a batch, the rest is EVP's already
    assert verifier.crypto_info()[:5] == (1, CALL == "verify_many", 1, 0, 1)
assert raised(calls[CALL]) is (None if CALL in ("verify_many", "key") else errors.InvalidSignature)
evp_decides()
refused, accepted = verifier.verify_many([bad, good], now=NOW)
assert type(refused) is errors.InvalidSignature and type(accepted) is Claims
assert verifier.cache_info().size == 1
assert verifier.crypto_info().fast == (CALL != "key")
"""

#: What begins to lie later is found at the next look.
LATER = """
key = make_key("RS256")
verifier = prepared(key, cache_size=0)
good, bad = token_of(key), damaged(token_of(key))
verifier.verify(good, now=NOW)
for _ in range(1023):
    verifier.verify(bad, now=NOW)
assert raised(verifier.verify, bad, now=NOW) is errors.CryptoFault
assert verifier.crypto_info() == (1025, 0, 2, 0, 1, 0)
assert raised(verifier.verify, bad, now=NOW) is errors.InvalidSignature
evp_decides()
"""

#: So is what it has let in meanwhile: by itself, and in the same batch.
FORGOTTEN = """
key = make_key("RS256")
verifier = prepared(key)
let_in = [token_of(key, number) for number in range(1024)]
let_in[1:] = map(damaged, let_in[1:])
for token in let_in[:1000]:
    verifier.verify(token, now=NOW)
assert verifier.cache_info().size == 1000
assert raised(verifier.verify_many, [*let_in[1000:], damaged(token_of(key, 2000))], now=NOW) is errors.CryptoFault
assert verifier.cache_info().size == 0
assert verifier.verify(let_in[0], now=NOW)
for token in let_in[1:]:
    assert raised(verifier.verify, token, now=NOW) is errors.InvalidSignature
"""

NOT_ASKED = """
for algorithm in ("RS256", "PS256", "ES256"):
    key = make_key(algorithm)
    verifier = prepared(key, fast_crypto=False)
    assert raised(verifier.verify, damaged(token_of(key)), now=NOW) is errors.InvalidSignature
    assert verifier.crypto_info() == (0, 1, 0, 0, 0, 0)
assert states() == {"yes"}
"""

GATEWAY = """
import uuid
from fastverify import SessionVerifier
from fastverify.store import open_store

key = make_key("ES256")
payload = claims(iat=0, exp=2**40, rsub="user-1", tId="public", sessionHandle=str(uuid.uuid4()), refreshTokenHash1="x")
good, bad = sign(None, payload, key), damaged(sign(None, payload, key))
gateway = SessionVerifier(open_store("redis://127.0.0.1:1/0"), issuer=ISSUER)
gateway._verifier.replace_keys([key.verifying])  # what the follower does when it has read the store
gateway._verifier.prepare_keys()
gateway._table.fresh_until = math.inf
gateway._follower._ready = True
try:
    gateway.verify(bad)
except errors.StoreUnavailable as error:
    assert type(error.__cause__) is errors.CryptoFault
else:
    raise AssertionError
assert gateway.cache_info().size == 0
assert raised(gateway.verify, bad) is errors.TryRefreshToken
assert gateway.verify(good).user_id == "user-1"
evp_decides()
"""


def run(package: Path, program: str, **names: str) -> None:
    values = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    result = run_with(package, values + PREAMBLE + program)
    assert result.returncode == 0, result.stderr


@needs_fast_ecdsa
@needs_fast_rsa
@pytest.mark.parametrize(
    ("algorithm", "call"),
    [
        ("RS256", "verify"),
        ("PS256", "verify_many"),
        ("ES256", "view"),
        pytest.param("RS256", "verify_jws", marks=pytest.mark.long),
        pytest.param("PS256", "verify", marks=pytest.mark.long),
        pytest.param("ES256", "verify_many", marks=pytest.mark.long),
        ("ES256", "key"),
    ],
)
def test_the_first_bad_signature_that_a_fast_path_accepts_raises_and_turns_the_fast_paths_off(
    package: Path, algorithm: str, call: str
) -> None:
    run(package, AT_ONCE, ALGORITHM=algorithm, CALL=call)


@needs_fast_rsa
def test_a_fast_path_that_begins_to_lie_is_found_within_1024_accepts(package: Path) -> None:
    run(package, LATER)


@needs_fast_rsa
def test_what_a_fast_path_that_lies_has_let_in_is_forgotten(package: Path) -> None:
    run(package, FORGOTTEN)


@needs_fast_ecdsa
@needs_fast_rsa
def test_a_verifier_that_may_not_take_the_fast_paths_never_hears_of_it(package: Path) -> None:
    run(package, NOT_ASKED)


@needs_fast_ecdsa
def test_a_gateway_says_unavailable_once_and_then_its_usual_verdicts(package: Path) -> None:
    run(package, GATEWAY)
