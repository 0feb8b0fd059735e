"""What the benchmarks share: the token and its keys, the proof of answers, turns in rounds, figures, output.

One token for everybody: the header and claims of a session's access token, 13 claims in 480 bytes. Whoever is to be
timed proves itself first (`Trial.prove`): it returns exactly these claims, and refuses a token of which one character
of the payload or of the signature was changed, one of another issuer, one for another audience, and an expired one.

Contenders take turns within each round, so that a change of the machine's mood meets all of them. Figures are medians
over the rounds, with the span of the middle half. On a busy machine CPU time is what counts; wall time stands beside
it. Every call is made from Python by the same loop, whose own cost the row "no-op call" of a table shows.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import hmac
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastverify import Claims, KeySet, openssl_info
from fastverify._core import RevocationTable
from fastverify.errors import InvalidToken

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
ISSUER, AUDIENCE, KID = "https://api.example.com/auth", "https://api.example.com", "d-1700000000000"
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_ROUND_SECONDS = 0.02
_COPIES = 64
_LOAD = os.getloadavg()[0]

#: Takes a token; returns its claims or raises.
Check = Callable[[str], Any]
#: Takes a number of passes over the tokens; returns microseconds a call, of CPU and on the wall.
Turn = Callable[[int], tuple[float, float]]


# --- the token, its keys, and the proof of answers ---


@dataclass(frozen=True)
class Trial:
    """An algorithm's key and token, and what is right to say of them and of worse ones."""

    algorithm: str
    #: For HMAC: the secret.
    private: Any
    #: In PEM; for HMAC: nothing.
    public: bytes
    token: str
    claims: dict[str, Any]
    #: Tokens that must be refused, by what is wrong with them.
    bad: dict[str, str]

    @classmethod
    def of(cls, algorithm: str) -> Trial:
        private, public = _make_key(algorithm)
        return cls._make(algorithm, private, public, _session_claims(int(time.time())))

    def without(self, claim: str) -> Trial:
        """The same key and a token of the same size without this claim."""
        claims = {name: value for name, value in self.claims.items() if name != claim}
        return self._make(self.algorithm, self.private, self.public, _padded(claims))

    @classmethod
    def _make(cls, algorithm: str, private: Any, public: bytes, claims: dict[str, Any]) -> Trial:
        def mint(**changes: Any) -> str:
            return _mint(algorithm, private, claims | changes)

        token = mint()
        header, payload, signature = token.split(".")
        bad = {
            "a changed payload": f"{header}.{change(payload)}.{signature}",
            "a changed signature": f"{header}.{payload}.{change(signature)}",
            "another issuer": mint(iss="https://api.example.org/auth"),
            "another audience": mint(aud="https://api.example.org"),
            "a past expiry": mint(exp=claims["iat"] - 3_600),
        }
        return cls(algorithm, private, public, token, claims, bad)

    def sibling(self, number: int) -> str:
        """Another session's good token under the same key."""
        handle = str(uuid.UUID(int=number, version=4))
        return _mint(self.algorithm, self.private, self.claims | {"sessionHandle": handle})

    @functools.cached_property
    def keys(self) -> KeySet:
        """The verifying key as we take it."""
        if self.algorithm.startswith("HS"):
            return KeySet.from_secret(self.private, alg=self.algorithm, kid=KID)
        return KeySet.from_pem(self.public, alg=self.algorithm, kid=KID)

    @functools.cached_property
    def jwk(self) -> dict[str, Any]:
        """The verifying key as a JWK; for HMAC the secret, which no JWK set may hold."""
        if self.algorithm.startswith("HS"):
            return {"kty": "oct", "k": base64url(self.private), "kid": KID, "alg": self.algorithm, "use": "sig"}
        return self.keys.to_jwks()["keys"][0]

    def copies(self, number: int = _COPIES) -> list[str]:
        """Equal strings at different addresses: a cache may not get away with comparing pointers."""
        return [(self.token + "x")[:-1] for _ in range(number)]

    def prove(
        self,
        name: str,
        check: Check,
        refusals: type[Exception] | tuple[type[Exception], ...] = InvalidToken,
        *,
        unchecked: Sequence[str] = (),
    ) -> Check:
        """Give `check` back if it answers rightly; else end the program. `unchecked`: what it never looks at."""
        for _ in range(2):  # the second time from a cache, where there is one
            answer = check(self.token)
            if (answer.to_dict() if isinstance(answer, Claims) else answer) != self.claims:
                raise SystemExit(f"{name}, {self.algorithm}: returns other claims than those that were signed")
        for what, token in self.bad.items():
            if what in unchecked:
                continue
            try:
                check(token)
            except refusals:
                continue
            except Exception as error:
                raise SystemExit(f"{name}, {self.algorithm}: fails on {what} with {error!r}") from error
            raise SystemExit(f"{name}, {self.algorithm}: accepts {what}")
        return check

    def raw_signature(self, key: Any = None) -> Check:
        """The check of the signature alone, proven to be right; by default with our prepared key."""
        (ours,) = self.keys
        verify = (key or ours).verify
        signing_input, text = self.token.encode().rsplit(b".", 1)
        signature = _decode(text.decode())
        if not verify(signing_input, signature) or verify(signing_input + b"x", signature):
            raise SystemExit(f"{self.algorithm}: the raw check is wrong")
        return lambda _: verify(signing_input, signature)


def no_op(_: str) -> None:
    """What a Python call costs."""


def revocations(entries: int = 1_000) -> RevocationTable:
    """A fresh table of that many revoked sessions, none of them the token's."""
    table = RevocationTable()
    until = int(time.time()) + 3_600
    for number in range(entries):
        table.add(b"\x01" + hashlib.sha256(b"%d" % number).digest()[:16] + bytes(8), until)
    table.fresh_until = time.monotonic() + 3_600
    return table


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def change(segment: str) -> str:
    """Another character in the middle of a segment, where every bit of it counts."""
    middle = len(segment) // 2
    return segment[:middle] + ("A" if segment[middle] != "A" else "B") + segment[middle + 1 :]


def _make_key(algorithm: str) -> tuple[Any, bytes]:
    if algorithm.startswith("HS"):
        return hashlib.shake_256(b"a benchmark's secret").digest(64), b""
    if algorithm in _CURVES:
        private: Any = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, 2048)
    return private, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _session_claims(now: int) -> dict[str, Any]:
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
        "st-perm": "",
    }
    return _padded(claims)


def _padded(claims: dict[str, Any]) -> dict[str, Any]:
    """Filled up to 480 bytes."""
    bare = claims | {"st-perm": ""}
    return bare | {"st-perm": "x" * (480 - len(_compact(bare)))}


def _mint(algorithm: str, private: Any, claims: dict[str, Any]) -> str:
    header = {"kid": KID, "typ": "JWT", "version": "5", "alg": algorithm}
    signing_input = f"{base64url(_compact(header))}.{base64url(_compact(claims))}"
    return f"{signing_input}.{base64url(_sign(algorithm, private, signing_input.encode()))}"


def _sign(algorithm: str, private: Any, message: bytes) -> bytes:
    if algorithm == "EdDSA":
        return bytes(private.sign(message))
    digest = _HASHES[algorithm[2:]]
    if algorithm.startswith("HS"):
        return hmac.digest(private, message, digest.name)
    if algorithm in _CURVES:
        r, s = utils.decode_dss_signature(private.sign(message, ec.ECDSA(digest)))
        size = (private.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return bytes(private.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest))
    return bytes(private.sign(message, padding.PKCS1v15(), digest))


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- turns in rounds ---


@dataclass
class Timing:
    """Microseconds a call, one figure for each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, dict[str, float]]:
        return {"cpu": figures(self.cpu), "wall": figures(self.wall)}


def turn(check: Callable[[Any], Any], arguments: Iterable[Any]) -> Turn:
    """Calls of `check` with each of the arguments, in this process."""
    # A copy of the loop for each contender: the interpreter specialises a call for what it has seen called there.
    loop = FunctionType(_loop.__code__.replace(), _loop.__globals__)
    several = tuple(arguments)
    return lambda passes: loop(check, several, passes)


def _loop(check: Callable[[Any], Any], arguments: tuple[Any, ...], passes: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(passes):
        for argument in arguments:
            check(argument)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    calls = passes * len(arguments)
    return cpu * 1e6 / calls, wall * 1e6 / calls


def run(
    turns: Mapping[str, Turn],
    rounds: int,
    title: str,
    *,
    calls_a_pass: int = _COPIES,
    seconds: float = _ROUND_SECONDS,
) -> dict[str, Timing]:
    """Let everybody take a turn of about so many seconds in each round."""
    passes = {name: _calibrate(take, calls_a_pass, seconds) for name, take in turns.items()}
    timings = {name: Timing() for name in turns}
    for number in range(rounds):
        for name, take in turns.items():
            progress(f"{title}, round {number + 1} of {rounds}: {name}")
            cpu, wall = take(passes[name])
            timings[name].cpu.append(cpu)
            timings[name].wall.append(wall)
    progress("")
    return timings


def _calibrate(take: Turn, calls_a_pass: int, seconds: float) -> int:
    """How many passes fill a turn."""
    take(1)
    _, wall = take(1)
    return max(1, round(seconds / (wall * 1e-6 * calls_a_pass)))


def progress(text: str) -> None:
    """Say what is going on, where somebody looks at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


# --- figures and output ---


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the ends of the middle half."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, low, high


def figures(values: Sequence[float]) -> dict[str, float]:
    """The same with their names, to a tenth of a nanosecond."""
    return {name: round(value, 4) for name, value in zip(("median", "low", "high"), summary(values), strict=True)}


def to_json(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {name: timing.to_json() for name, timing in timings.items()}


def median(timing: Timing) -> float:
    """Microseconds of CPU a call."""
    return summary(timing.cpu)[0]


def cpu(row: Mapping[str, Any]) -> float:
    """The same of what `Timing.to_json` wrote."""
    return float(row["cpu"]["median"])


def short(value: float) -> str:
    """Three digits, or down to the nanosecond."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def read_results(folder: Path) -> dict[str, Any]:
    """What the benchmarks wrote into a folder, by their names."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))}


def parser(description: str | None, *, rounds: int = 15) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    options.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    options.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="write JSON to FILE, beside the table; without FILE: print it instead of the table",
    )
    return options


def chosen_algorithms(options: argparse.ArgumentParser, text: str, known: Sequence[str] = ALGORITHMS) -> list[str]:
    """Read a comma-separated list."""
    algorithms = text.split(",")
    if unknown := set(algorithms) - set(known):
        options.error(f"no such algorithm: {', '.join(sorted(unknown))}")
    return algorithms


def publish(destination: str | None, benchmark: str, environment: dict[str, str], results: Any, table: str) -> None:
    """Print the table; write or print the JSON if it is asked for."""
    document = json.dumps({"benchmark": benchmark, "environment": environment, "results": results}, indent=1)
    if destination == "-":
        print(document)
        return
    for name, value in environment.items():
        print(f"{name}: {value}")
    print(f"\n{table}")
    if destination:
        file = Path(destination)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document + "\n", "utf-8")


def layout(head: Sequence[str], rows: Iterable[Sequence[str]], *, widths: Sequence[int]) -> str:
    """A table: the first column to the left, the others to the right."""

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)

    return "\n".join([line(head), *(line(["  " + row[0], *row[1:]]) for row in rows)])


def timing_table(
    title: str, timings: Mapping[str, Timing], *, reference: str = "", unrelated: Sequence[str] = ()
) -> str:
    """Figures of one group, and how many times as fast as the reference each is."""
    base = median(timings[reference]) if reference in timings else None
    rows = []
    for name, timing in timings.items():
        middle, low, high = summary(timing.cpu)
        ratio = f"{base / middle:.1f}" if base and name not in unrelated else ""
        span, wall = f"{low:.3f} - {high:.3f}", summary(timing.wall)[0]
        rows.append([name, f"{middle:.3f}", span, f"{wall:.3f}", f"{1e6 / middle:,.0f}", ratio])
    head = [title, "CPU us", "middle half", "wall us", "calls/s", f"x {reference}" if base else ""]
    return layout(head, rows, widths=(34, 10, 20, 10, 12, 11))


def environment(*packages: str) -> dict[str, str]:
    """What the figures depend on."""
    versions = {}
    for package in ("fastverify", "cryptography", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree" if package == "fastverify" else "not installed"
    libcrypto = openssl_info()
    return {
        "machine": f"{_processor()}, {platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}{_build()}",
        "libcrypto of fastverify": libcrypto["running"],
        "its fast paths": f"ES256 {libcrypto['fast_ecdsa']}, RSA {libcrypto['fast_rsa']}",
        "load at the start": f"{_LOAD:.1f}",
        **versions,
    }


def _build() -> str:
    """How the interpreter was optimised, as far as it says."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    found = [name for name, option in (("PGO", "--enable-optimizations"), ("LTO", "--with-lto")) if option in options]
    return f", {' and '.join(found)}" if found else ", built without PGO"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x{len(names)}" if names else platform.machine()
