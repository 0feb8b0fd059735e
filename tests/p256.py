"""The curve P-256 in affine coordinates, as the textbook has it: slow, and good for signatures that nobody would make.

Points are pairs; None is the point at infinity. Whoever may choose the public key can have any R, s and message in a
signature that is good: ``public_key_for`` solves the equation of verification for the key.
"""

from __future__ import annotations

import hashlib

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

Point = tuple[int, int] | None


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def negative(a: Point) -> Point:
    return a and (a[0], -a[1] % P)


def multiply(k: int, a: Point) -> Point:
    total: Point = None
    for bit in bin(k % N)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, a)
    return total


def lift(x: int) -> Point:
    """A point with this abscissa, or None where there is none."""
    square = (x * x * x - 3 * x + B) % P
    y = pow(square, (P + 1) // 4, P)
    return (x, y) if y * y % P == square else None


def digest(message: bytes) -> int:
    """e: what ES256 makes of a message."""
    return int.from_bytes(hashlib.sha256(message).digest(), "big")


def public_key_for(r: int, s: int, e: int, nonce: Point) -> Point:
    """The key Q for which (r, s) has the nonce's point R: R = (e/s) G + (r/s) Q, so Q = (s R - e G) / r."""
    return multiply(pow(r, -1, N), add(multiply(s, nonce), negative(multiply(e, G))))
