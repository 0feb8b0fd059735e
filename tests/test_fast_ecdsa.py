"""ES256 on its fast path beside EVP, at the edges of the arithmetic (row A23).

The message decides e, so it cannot be chosen: an e of 0, or of n and more, would take a message that nobody can find.
(tests/test_core_in_parts.py hands the core such digests.) All else can be chosen together with the public key.
"""

from __future__ import annotations

import itertools

import p256
import pytest
from both_ways import BothWays, needs_fast_ecdsa, signing_input
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from p256 import G, N, P, Point
from signing import make_key, p1363

from fastverify._core import Key, Verifier

pytestmark = needs_fast_ecdsa

TOP = 2**256 - 1
#: Without a key id they serve every key.
MESSAGES = [signing_input("ES256", number) for number in range(64)]


def key_at(point: Point) -> BothWays:
    assert point is not None
    x, y = (coordinate.to_bytes(32, "big") for coordinate in point)
    return BothWays(Key.ec("ES256", None, x, y))


@pytest.fixture(scope="module")
def some() -> tuple[BothWays, bytes, int, int]:
    """A key, a message, and r and s of a good signature."""
    key = make_key("ES256")
    both = BothWays(key.verifying)
    message = both.message()
    signature = key.sign(message)
    return both, message, int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


# --- r and s out of range ---


def test_r_and_s_at_the_edges_and_beyond_are_refused(some: tuple[BothWays, bytes, int, int]) -> None:
    both, message, r, s = some
    edges = (0, 1, N - 1, N, N + 1, P - 1, P, P + 1, TOP)
    cases = [*itertools.product(edges, edges), *((r, edge) for edge in edges), *((edge, s) for edge in edges)]
    assert [case for case in cases if both.accepts(message, p1363("ES256", *case))] == []
    assert both.accepts(message, p1363("ES256", r, s))


@pytest.mark.parametrize("which", ["r", "s"])
def test_a_scalar_raised_by_the_order_is_refused(which: str) -> None:
    """Where it still has room in 32 bytes: for a scalar below 2^256 - n."""
    r, s = (_small_r(), 12345) if which == "r" else (p256.multiply(7, G)[0] % N, 54321)
    nonce = p256.lift(r) if which == "r" else p256.multiply(7, G)
    both = key_at(p256.public_key_for(r, s, p256.digest(MESSAGES[0]), nonce))
    assert both.accepts(MESSAGES[0], p1363("ES256", r, s))
    raised = (r + N, s) if which == "r" else (r, s + N)
    assert max(raised) <= TOP
    assert not both.accepts(MESSAGES[0], p1363("ES256", *raised))


def _small_r() -> int:
    return next(x for x in itertools.count(1) if p256.lift(x))


def test_the_twin_with_s_negated_is_accepted_too(some: tuple[BothWays, bytes, int, int]) -> None:
    """ECDSA's own malleability; RFC 7518 does not ask for a low s."""
    both, message, r, s = some
    assert both.accepts(message, p1363("ES256", r, N - s))
    assert not both.accepts(message, p1363("ES256", N - r, s))


# --- x(R) modulo n ---


def _abscissas(start: int, step: int, count: int) -> list[int]:
    return list(itertools.islice((x for x in itertools.count(start, step) if p256.lift(x)), count))


@pytest.mark.parametrize("x", [*_abscissas(N + 1, 1, 3), *_abscissas(P - 1, -1, 3), *_abscissas((N + P) // 2, 1, 2)])
def test_an_abscissa_from_n_to_p_is_accepted_as_r_plus_n_and_in_no_other_spelling(x: int) -> None:
    message, nonce, r, s = MESSAGES[1], p256.lift(x), x - N, 0xABCDEF
    both = key_at(p256.public_key_for(r, s, p256.digest(message), nonce))
    assert both.accepts(message, p1363("ES256", r, s))
    assert not both.accepts(message, p1363("ES256", x, s))
    assert not both.accepts(message, p1363("ES256", r + 1, s))
    assert not both.accepts(MESSAGES[2], p1363("ES256", r, s))


@pytest.mark.parametrize("x", [*_abscissas(1, 1, 3), *_abscissas(P - N - 1, -1, 2), *_abscissas(P - N, 1, 2)])
def test_an_abscissa_below_n_is_accepted_though_r_plus_n_is_another_one_or_none(x: int) -> None:
    message, s = MESSAGES[1], 0xABCDEF
    both = key_at(p256.public_key_for(x, s, p256.digest(message), p256.lift(x)))
    assert both.accepts(message, p1363("ES256", x, s))
    assert not both.accepts(message, p1363("ES256", x, s + 1))


@pytest.mark.parametrize("x", _abscissas(P - N, 1, 3))
def test_r_is_never_compared_modulo_p(x: int) -> None:
    """r + n = x + p: reduced modulo p it would be the abscissa; it is not below p, so it is none."""
    r, s, message = x + P - N, 0xABCDEF, MESSAGES[1]
    both = key_at(p256.public_key_for(r, s, p256.digest(message), p256.lift(x)))
    assert not both.accepts(message, p1363("ES256", r, s))


# --- the multipliers ---

EDGES = [1, 2, 3, 63, 64, 65, 127, 128, 2**32, 2**128 - 1, 2**224, 2**252 - 1, 2**252, 2**255, N // 2, N // 2 + 1]
EDGES += [N - 2**252, N - 128, N - 65, N - 64, N - 3, N - 2, N - 1, 0x5555 * (2**256 // 0xFFFF), 2**255 - 2**122]


def with_multipliers(u1: int, u2: int) -> tuple[Point, bytes, int, int]:
    """A key, a message and a good signature in whose check these two occur."""
    for message in MESSAGES:
        s = p256.digest(message) * pow(u1, -1, N) % N
        r = u2 * s % N
        nonce = p256.lift(r)
        if nonce is not None:
            return p256.public_key_for(r, s, p256.digest(message), nonce), message, r, s
    raise AssertionError("none of the messages gives an abscissa")


@pytest.mark.parametrize(
    ("u1", "u2"), [*zip(EDGES[::2], EDGES[::-2], strict=True), (1, 1), (N - 1, N - 1), (1, N - 1), (3, 2**255)]
)
def test_multipliers_at_the_edges_agree(u1: int, u2: int) -> None:
    point, message, r, s = with_multipliers(u1, u2)
    both = key_at(point)
    assert both.accepts(message, p1363("ES256", r, s))
    assert both.accepts(message, p1363("ES256", r, N - s))
    for wrong in ((r ^ 1, s), (r, s ^ 2)):
        assert not both.accepts(message, p1363("ES256", *wrong))


@pytest.mark.parametrize("s", EDGES[::2])
def test_every_s_has_its_inverse(s: int) -> None:
    nonce = p256.multiply(0xC0FFEE, G)
    r = nonce[0] % N
    both = key_at(p256.public_key_for(r, s, p256.digest(MESSAGES[0]), nonce))
    assert both.accepts(MESSAGES[0], p1363("ES256", r, s))
    assert not both.accepts(MESSAGES[0], p1363("ES256", r, s ^ 2))


# --- the sum ---


@pytest.mark.parametrize("d", [1, 2, 3, N - 1, N - 2, N // 2, 2**128])
def test_keys_that_are_small_multiples_of_the_generator_agree(d: int) -> None:
    """The generator itself among them: libcrypto has a table of its own for that."""
    both, nonce = key_at(p256.multiply(d, G)), p256.multiply(0xC0FFEE, G)
    r = nonce[0] % N
    s = pow(0xC0FFEE, -1, N) * (p256.digest(MESSAGES[0]) + r * d) % N
    assert both.accepts(MESSAGES[0], p1363("ES256", r, s))
    assert not both.accepts(MESSAGES[1], p1363("ES256", r, s))


@pytest.mark.parametrize("u1", [1, 2, 0xC0FFEE, 2**255, N - 1])
def test_a_sum_of_two_equal_points_is_their_double(u1: int) -> None:
    """u1 G = u2 Q = R/2, for Q = (e/r) G: an addition that knows no doubling gives nonsense."""
    message = MESSAGES[3]
    e = p256.digest(message)
    r = p256.multiply(2 * u1, G)[0] % N
    s = e * pow(u1, -1, N) % N
    both = key_at(p256.multiply(e * pow(r, -1, N), G))
    assert both.accepts(message, p1363("ES256", r, s))
    assert not both.accepts(message, p1363("ES256", r ^ 1, s))


@pytest.mark.parametrize(("r", "s"), [(1, 1), (5, N - 1), (N - 1, 7), (P - N - 1, 2**255), (0xC0FFEE, 0xFACADE)])
def test_a_sum_that_is_infinity_is_refused(r: int, s: int) -> None:
    """u1 G = -u2 Q, for every s: Q = -(e/r) G."""
    message = MESSAGES[4]
    both = key_at(p256.multiply(-p256.digest(message) * pow(r, -1, N), G))
    assert not both.accepts(message, p1363("ES256", r, s))
    assert not both.accepts(message, p1363("ES256", r, N - s))


# --- form ---


def test_other_lengths_and_der_are_refused(some: tuple[BothWays, bytes, int, int]) -> None:
    both, message, r, s = some
    good, der = p1363("ES256", r, s), encode_dss_signature(r, s)
    forms = [b"", good[:-1], good[1:], good + b"\0", b"\0" + good, good[:32], good * 2, bytes(64), bytes(1024)]
    forms += [der, der[:64], der[6:70], b"\0" + good[:32] + b"\0" + good[32:]]
    assert [form for form in forms if both.accepts(message, form)] == []


# --- which keys ---


@pytest.mark.parametrize("algorithm", ["ES384", "ES512", "EdDSA"])
def test_keys_of_other_kinds_have_no_fast_path_and_verify(algorithm: str) -> None:
    key = make_key(algorithm)
    verifying = key.verifying
    assert not verifying.prepare()
    for fast in (False, True):
        assert verifying.verify(b"message", key.sign(b"message"), fast=fast)
        assert not verifying.verify(b"massage", key.sign(b"message"), fast=fast)
    verifier = Verifier([verifying], issuer=None)
    assert verifier.prepare_keys() == 0
    assert verifier.crypto_info().fast == 0
