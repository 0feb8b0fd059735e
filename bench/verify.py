"""How long verifying one token takes: cold and cached, every algorithm, beside PyJWT and joserfc where installed.

    python bench/verify.py [--algorithms ES256,RS256] [--rounds 15] [--json]

One token for everybody: the header and claims of a session's access token, 13 claims in 480 bytes; `iss`, `aud` and
`exp` are checked. Before anything is timed, every contender must return exactly these claims, and refuse a token of
which one character of the payload or of the signature was changed.

Contenders take turns within each round, so that a change of the machine's mood meets all of them. The figures are
medians over the rounds, with the span of the middle half. On a busy machine CPU time is what counts; wall time stands
beside it. Every call is made from Python by the same loop, whose own cost the row "no-op call" shows.

Rows:
  raw signature    the signature check alone, with the same prepared key: the least that this libcrypto allows
  cold             verify() with the cache off: claims validated, Python objects made only when asked for
  cold, dict       the same, and the whole claims set as a dict, which is what the other libraries return
  cached           verify() of a token that was verified before; equal copies, never one object twice in a row; with a
                   revocation table of 1,000 entries attached, and the staleness of that table checked
  cached, dict     the same, and a fresh dict
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import importlib.metadata
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastverify import Claims, KeySet, Verifier, openssl_info
from fastverify._core import RevocationTable
from fastverify.errors import InvalidToken

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
ISSUER, AUDIENCE, KID = "https://api.example.com/auth", "https://api.example.com", "d-1700000000000"
COPIES = 64
ROUND_SECONDS = 0.02

Check = Callable[[str], Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    algorithms = arguments.algorithms.split(",")
    if unknown := set(algorithms) - set(ALGORITHMS):
        parser.error(f"no such algorithm: {', '.join(sorted(unknown))}")
    results: dict[str, dict[str, Timing]] = {}
    for number, algorithm in enumerate(algorithms):
        contenders, token = prepare(algorithm)
        results[algorithm] = run(
            contenders, token, arguments.rounds, f"{algorithm} ({number + 1} of {len(algorithms)})"
        )
    if arguments.json:
        print(json.dumps({"environment": environment(), "unit": "microseconds", "results": as_json(results)}, indent=1))
    else:
        print_tables(results)
    return 0


# --- one token, and who verifies it ---


def prepare(algorithm: str) -> tuple[dict[str, Check], str]:
    """The contenders of an algorithm, each proven to be right, and the token."""
    private, public = make_key(algorithm)
    token = mint(algorithm, private)
    expected = json.loads(base64.urlsafe_b64decode(pad(token.split(".")[1])))
    if algorithm.startswith("HS"):
        keys = KeySet.from_secret(private, alg=algorithm, kid=KID)
    else:
        keys = KeySet.from_pem(public, alg=algorithm, kid=KID)
    (key,) = keys
    cold = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, cache_size=0).verify
    table = RevocationTable()
    for number in range(1_000):
        table.add(b"\x01" + hashlib.sha256(b"%d" % number).digest()[:16] + bytes(8), int(time.time()) + 3_600)
    table.fresh_until = time.monotonic() + 3_600
    cached = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, revocations=table).verify
    contenders: dict[str, Check] = {
        "cold": cold,
        "cold, dict": lambda text: cold(text).to_dict(),
        "cached": cached,
        "cached, dict": lambda text: cached(text).to_dict(),
    }
    contenders |= peers(algorithm, private, public)
    for name, check in contenders.items():
        prove(name, check, token, expected)
    signing_input, signature = token.encode().rsplit(b".", 1)
    raw = base64.urlsafe_b64decode(pad(signature.decode()))
    if not key.verify(signing_input, raw) or key.verify(signing_input + b"x", raw):
        raise SystemExit(f"{algorithm}: the raw check is wrong")
    first: dict[str, Check] = {"no-op call": lambda _: None, "raw signature": lambda _: key.verify(signing_input, raw)}
    return first | contenders, token


def prove(name: str, check: Check, token: str, expected: dict[str, Any]) -> None:
    """Refuse to time a contender that gets the answer wrong."""
    for _ in range(2):  # the second time from a cache, where there is one
        answer = check(token)
        if (answer.to_dict() if isinstance(answer, Claims) else answer) != expected:
            raise SystemExit(f"{name} returns other claims than those that were signed")
    header, payload, signature = token.split(".")
    for tampered in (f"{header}.{change(payload)}.{signature}", f"{header}.{payload}.{change(signature)}"):
        try:
            check(tampered)
        except Exception as error:
            if isinstance(error, InvalidToken) or type(error).__module__.split(".")[0] in ("jwt", "joserfc"):
                continue
            raise SystemExit(f"{name} fails on a tampered token with {error!r}") from error
        raise SystemExit(f"{name} accepts a tampered token")


def change(segment: str) -> str:
    """Another character in the middle of a segment, where every bit of it counts."""
    middle = len(segment) // 2
    return segment[:middle] + ("A" if segment[middle] != "A" else "B") + segment[middle + 1 :]


def peers(algorithm: str, private: Any, public: bytes) -> dict[str, Check]:
    """What else is installed."""
    found: dict[str, Check] = {}
    try:
        import jwt
    except ImportError:
        pass
    else:
        pyjwt_key = private if algorithm.startswith("HS") else jwt.PyJWK.from_dict(jwk_of(algorithm, public)).key

        def pyjwt(token: str) -> Any:
            return jwt.decode(token, pyjwt_key, algorithms=[algorithm], issuer=ISSUER, audience=AUDIENCE)

        found["PyJWT"] = pyjwt
    try:
        from joserfc import jwk, jws
        from joserfc import jwt as jose
        from joserfc.errors import SecurityWarning
    except ImportError:
        pass
    else:
        warnings.simplefilter("ignore", SecurityWarning)  # at every call, of EdDSA's older name; that is in its figure
        # By default it refuses header parameters that are not registered, such as "version".
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        jose_key = (
            jwk.OctKey.import_key(private) if algorithm.startswith("HS") else jwk.import_key(jwk_of(algorithm, public))
        )
        rules = jose.JWTClaimsRegistry(
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )

        def joserfc(token: str) -> Any:
            decoded = jose.decode(token, jose_key, registry=registry)
            rules.validate(decoded.claims)
            return decoded.claims

        found["joserfc"] = joserfc
    return found


def jwk_of(algorithm: str, public: bytes) -> dict[str, Any]:
    return KeySet.from_pem(public, alg=algorithm, kid=KID).to_jwks()["keys"][0]


def make_key(algorithm: str) -> tuple[Any, bytes]:
    """A private key (for HMAC: the secret) and the public one in PEM (for HMAC: nothing)."""
    if algorithm.startswith("HS"):
        return hashlib.shake_256(b"a benchmark's secret").digest(64), b""
    if algorithm in CURVES:
        private: Any = ec.generate_private_key(CURVES[algorithm])
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, 2048)
    return private, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def mint(algorithm: str, private: Any) -> str:
    now = int(time.time())
    header = {"kid": KID, "typ": "JWT", "version": "5", "alg": algorithm}
    claims = {
        "iat": now,
        "exp": now + 3_600,
        "sub": "6c1f6b2e-7d0a-4a6e-9b1c-2f0e8d3a5b7c",
        "tId": "public",
        "rsub": "6c1f6b2e-7d0a-4a6e-9b1c-2f0e8d3a5b7c",
        "sessionHandle": "0b9a2f7e-41c3-4d58-8e6f-9a1b2c3d4e5f",
        "refreshTokenHash1": hashlib.sha256(b"refresh token").hexdigest(),
        "parentRefreshTokenHash1": None,
        "antiCsrfToken": None,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "role": "editor",
    }
    claims["st-perm"] = ""
    claims["st-perm"] = "x" * (480 - len(compact(claims)))
    segments = [base64url(compact(header)), base64url(compact(claims))]
    return ".".join([*segments, base64url(sign(algorithm, private, ".".join(segments).encode()))])


def sign(algorithm: str, private: Any, message: bytes) -> bytes:
    if algorithm == "EdDSA":
        return bytes(private.sign(message))
    digest = HASHES[algorithm[2:]]
    if algorithm.startswith("HS"):
        return hmac.digest(private, message, digest.name)
    if algorithm in CURVES:
        r, s = utils.decode_dss_signature(private.sign(message, ec.ECDSA(digest)))
        size = (private.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return bytes(private.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest))
    return bytes(private.sign(message, padding.PKCS1v15(), digest))


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pad(segment: str) -> str:
    return segment + "=" * (-len(segment) % 4)


# --- timing ---


@dataclass
class Timing:
    """Microseconds a call, one figure for each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def run(contenders: dict[str, Check], token: str, rounds: int, title: str) -> dict[str, Timing]:
    # Equal strings at different addresses: a cache may not get away with comparing pointers.
    tokens = [(token + "x")[:-1] for _ in range(COPIES)]
    turns = {name: calibrate(check, tokens) for name, check in contenders.items()}
    timings = {name: Timing() for name in contenders}
    for number in range(rounds):
        progress(f"{title}, round {number + 1} of {rounds}")
        for name, check in contenders.items():
            cpu, wall = measure(check, tokens, turns[name])
            timings[name].cpu.append(cpu)
            timings[name].wall.append(wall)
    progress("")
    return timings


def calibrate(check: Check, tokens: list[str]) -> int:
    """How many passes over the tokens fill a round."""
    measure(check, tokens, 1)
    _, wall = measure(check, tokens, 1)
    return max(1, round(ROUND_SECONDS / (wall * 1e-6 * len(tokens))))


def measure(check: Check, tokens: list[str], passes: int) -> tuple[float, float]:
    """Microseconds a call, of CPU and on the wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(passes):
        for token in tokens:
            check(token)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    calls = passes * len(tokens)
    return cpu * 1e6 / calls, wall * 1e6 / calls


def progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


# --- reporting ---


def summary(values: list[float]) -> tuple[float, float, float]:
    """Median, and the ends of the middle half."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, low, high


def print_tables(results: dict[str, dict[str, Timing]]) -> None:
    for name, value in environment().items():
        print(f"{name}: {value}")
    for algorithm, timings in results.items():
        print(f"\n{algorithm:<18}{'CPU us':>10}{'middle half':>18}{'wall us':>10}{'calls/s':>12}{'x PyJWT':>10}")
        reference = summary(timings["PyJWT"].cpu)[0] if "PyJWT" in timings else None
        for name, timing in timings.items():
            median, low, high = summary(timing.cpu)
            ratio = f"{reference / median:.1f}" if reference and name not in ("no-op call", "raw signature") else ""
            span = f"{low:.3f} - {high:.3f}"
            wall = summary(timing.wall)[0]
            print(f"  {name:<16}{median:>10.3f}{span:>18}{wall:>10.3f}{1e6 / median:>12,.0f}{ratio:>10}")


def as_json(results: dict[str, dict[str, Timing]]) -> dict[str, Any]:
    def figures(values: list[float]) -> dict[str, float]:
        return dict(zip(("median", "low", "high"), summary(values), strict=True))

    return {
        algorithm: {
            name: {"cpu": figures(timing.cpu), "wall": figures(timing.wall)} for name, timing in timings.items()
        }
        for algorithm, timings in results.items()
    }


def environment() -> dict[str, str]:
    """What the figures depend on."""
    versions = {}
    for package in ("fastverify", "PyJWT", "joserfc", "cryptography"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree" if package == "fastverify" else "not installed"
    return {
        "machine": f"{processor()}, {platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "libcrypto of fastverify": openssl_info()["running"],
        **versions,
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x{len(names)}" if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
