# Which keys are refused when they are made (security.md rows J10 and J11). Plain Python: it runs once per key.

import base64
import re

from fastverify.errors import ConfigError

# RFC 2104 and 7518 section 3.2 ask for a secret of at least the hash's length; text that anyone can read somewhere is
# not one. The armours: PEM and its kin ("-----BEGIN", "---- BEGIN SSH2"), SSH in text and on the wire, PuTTY;
# "AAAA..." is how SSH's wire form begins in base64.
cdef object ARMOUR = re.compile(
    rb"--\s*BEGIN|ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-|sk-(?:ssh|ecdsa)-|PuTTY-User-Key|AAAA[BCE][23][NV][jz][ZaC]",
    re.IGNORECASE,
)
cdef object HEXADECIMAL = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
cdef object BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+")
cdef bytes URLSAFE_TO_PLAIN = bytes.maketrans(b"-_", b"+/")
cdef bytes BLANKS = b" \t\r\n\v\f\0\xef\xbb\xbf\xfe\xff"  # white space, NUL, and the bytes of byte order marks

# The fingerprint of ROCA (CVE-2017-15361): modulo each of these primes the modulus is a power of 65537. A sound key
# passes all 38 tests by chance once in about 2^150.
cdef tuple ROCA_PRIMES = (
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
)
cdef tuple ROCA_POWERS = tuple(frozenset(pow(65537, i, p) for i in range(p - 1)) for p in ROCA_PRIMES)

cdef object ED25519_P = 2**255 - 19
cdef object ED25519_D = -121665 * pow(121666, -1, ED25519_P) % ED25519_P


cdef bint looks_like_a_key(bytes secret) except -1:
    """Whether this HMAC secret is a key of another kind, in any usual form or disguise (RFC 8725bis section 3.5)."""
    text = secret.replace(b"\0", b"").strip(BLANKS)  # without NULs UTF-16 reads as ASCII
    if ARMOUR.search(text) or is_der(secret) or is_json(text):
        return True
    for inner in decodings(b"".join(text.split())):
        if looks_like_a_key(inner):
            return True
    return False


cdef list decodings(bytes compact):
    """What text without blanks means in hexadecimal and in base64 (either alphabet, padded or not), if it is that."""
    unpadded = compact.rstrip(b"=")
    found = []
    if HEXADECIMAL.fullmatch(compact):
        found.append(bytes.fromhex(compact.decode()))
    if BASE64.fullmatch(unpadded) and len(unpadded) % 4 != 1:
        found.append(base64.b64decode(unpadded.translate(URLSAFE_TO_PLAIN) + b"=" * ((4 - len(unpadded) % 4) % 4)))
    return found


cdef bint is_json(bytes text) except -1:
    """An object or array with a member: a JWK, a JWK set, a list of them."""
    if not text.startswith((b"{", b"[")) or not text.endswith((b"}", b"]")):
        return False
    try:
        return '":' in "".join(text.decode("utf-8").split())
    except UnicodeDecodeError:
        return False


cdef bint is_der(bytes data) except -1:
    """A SEQUENCE that is all of the data, filled by members, an INTEGER or SEQUENCE first: all X.509 and PKCS forms."""
    outer = der_element(data, 0)
    if outer is None or data[0] != 0x30 or outer[1] != len(data):
        return False
    at, end = outer
    if at == end or data[at] not in (0x02, 0x30):
        return False
    while at < end:
        member = der_element(data, at)
        if member is None:
            return False
        at = member[1]
    return at == end


cdef tuple der_element(bytes data, at):
    """Where the contents of the element at ``at`` begin and end, or None where there is none (X.690 section 8.1)."""
    if len(data) < at + 2:
        return None
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        size = length - 0x80
        if not 1 <= size <= 3:
            return None
        length, start = int.from_bytes(data[start:start + size], "big"), start + size
    return (start, start + length) if start + length <= len(data) else None


cdef check_secret(bytes secret, Py_ssize_t at_least):
    if len(secret) < at_least:
        raise ConfigError("secret", f"has {len(secret)} bytes; this algorithm needs {at_least} (RFC 7518 section 3.2)")
    if looks_like_a_key(secret):
        raise ConfigError("secret", "is a key of another kind, not an HMAC secret")


cdef check_rsa(n, e):
    bits = n.bit_length()
    if not 2048 <= bits <= 8192:
        raise ConfigError("n", f"the RSA modulus has {bits} bits; it must have 2048 to 8192")
    if not n & 1:
        raise ConfigError("n", "the RSA modulus is even")
    # libcrypto takes no larger exponent with a large modulus (OPENSSL_RSA_MAX_PUBEXP_BITS); nobody has one.
    if e < 65537 or not e & 1 or e.bit_length() > 64:
        raise ConfigError("e", "the RSA exponent must be odd, at least 65537 and of at most 64 bits")
    if all(n % p in powers for p, powers in zip(ROCA_PRIMES, ROCA_POWERS)):
        raise ConfigError("n", "the RSA modulus bears the ROCA fingerprint (CVE-2017-15361): it can be factored")


cdef check_ed25519(bytes x):
    """RFC 8032 section 5.1.3: the 32 bytes are y with the sign of x in the top bit."""
    if len(x) != 32:
        raise ConfigError("x", "an Ed25519 public key has 32 bytes")
    p = ED25519_P
    y = int.from_bytes(x, "little") & (2**255 - 1)
    if y >= p:
        raise ConfigError("x", "the Ed25519 public key is not canonical")
    # x^2 = (y^2 - 1) / (d y^2 + 1); a point iff that is a square.
    x2 = (y * y - 1) * pow(ED25519_D * y * y + 1, -1, p) % p
    if x2 and pow(x2, (p - 1) // 2, p) != 1:
        raise ConfigError("x", "the Ed25519 public key is not a point of the curve")
    if is_low_order(x2, y * y % p):
        raise ConfigError("x", "the Ed25519 public key is of low order: anybody can sign for it")


cdef bint is_low_order(x2, y2) except -1:
    """Whether 8 P is the identity, told from x^2 and y^2 alone.

    The subgroup of order 8: the identity and (0, -1) have x = 0, the two points of order 4 have y = 0, and a point of
    order 8 is one whose double has y = 0. Doubling on -x^2 + y^2 = 1 + d x^2 y^2 gives
    y' = (y^2 + x^2) / (1 - d x^2 y^2).
    """
    return x2 == 0 or y2 == 0 or (x2 + y2) % ED25519_P == 0
