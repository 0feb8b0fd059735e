"""How long verifying one token takes: cold and cached, every algorithm, beside PyJWT and joserfc where installed.

    python bench/verify.py [--algorithms ES256,RS256] [--rounds 15] [--json FILE]

How tokens are made, answers proven and times taken: harness.py. `iss`, `aud` and `exp` are checked by everybody.

Rows:
  raw signature    the signature check alone, with the same prepared key: the least that this libcrypto allows
  cold             verify() with the cache off: claims validated, Python objects made only when asked for
  cold, dict       the same, and the whole claims set as a dict, which is what the other libraries return
  cached           verify() of a token that was verified before; equal copies, never one object twice in a row; with a
                   revocation table of 1,000 entries attached, and the staleness of that table checked
  cached, dict     the same, and a fresh dict
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import harness
from fastverify import Verifier


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--algorithms", default=",".join(harness.ALGORITHMS), help="comma-separated; default: all")
    arguments = parser.parse_args()
    algorithms = harness.chosen_algorithms(parser, arguments.algorithms)
    results: dict[str, dict[str, harness.Timing]] = {}
    for number, algorithm in enumerate(algorithms):
        trial = harness.Trial.of(algorithm)
        tokens = trial.copies()
        turns = {name: harness.turn(check, tokens) for name, check in contenders(trial).items()}
        title = f"{algorithm} ({number + 1} of {len(algorithms)})"
        results[algorithm] = harness.run(turns, arguments.rounds, title)
    tables = [
        harness.timing_table(algorithm, timings, reference="PyJWT", unrelated=("no-op call", "raw signature"))
        for algorithm, timings in results.items()
    ]
    harness.publish(
        arguments.json,
        "verify",
        harness.environment("PyJWT", "joserfc"),
        {
            algorithm: {name: timing.to_json() for name, timing in timings.items()}
            for algorithm, timings in results.items()
        },
        "\n\n".join(tables),
    )
    return 0


def contenders(trial: harness.Trial) -> dict[str, harness.Check]:
    """Who verifies this token, each proven to be right."""
    return {"no-op call": harness.no_op, "raw signature": trial.raw_signature()} | ours(trial) | peers(trial)


def ours(trial: harness.Trial) -> dict[str, harness.Check]:
    policy: dict[str, Any] = {"issuer": harness.ISSUER, "audience": harness.AUDIENCE}
    cold = Verifier(trial.keys, **policy, cache_size=0).verify
    cached = Verifier(trial.keys, **policy, revocations=harness.revocations()).verify
    found: dict[str, harness.Check] = {
        "cold": cold,
        "cold, dict": lambda token: cold(token).to_dict(),
        "cached": cached,
        "cached, dict": lambda token: cached(token).to_dict(),
    }
    for name, check in found.items():
        trial.prove(name, check)
    return found


def peers(trial: harness.Trial) -> dict[str, harness.Check]:
    """Those of the test environment; all of them are in peers.py."""
    found: dict[str, harness.Check] = {}
    try:
        import jwt
    except ImportError:
        pass
    else:
        pyjwt_key = trial.private if trial.algorithm.startswith("HS") else jwt.PyJWK.from_dict(trial.jwk).key

        def pyjwt(token: str) -> Any:
            return jwt.decode(
                token, pyjwt_key, algorithms=[trial.algorithm], issuer=harness.ISSUER, audience=harness.AUDIENCE
            )

        trial.prove("PyJWT", pyjwt, jwt.InvalidTokenError)
        found["PyJWT"] = pyjwt
    try:
        from joserfc import jwk, jws
        from joserfc import jwt as jose
        from joserfc.errors import JoseError, SecurityWarning
    except ImportError:
        pass
    else:
        warnings.simplefilter("ignore", SecurityWarning)  # at every call, of EdDSA's older name; that is in its figure
        # By default it refuses header parameters that are not registered, such as "version".
        registry = jws.JWSRegistry(algorithms=[trial.algorithm], strict_check_header=False)
        jose_key = jwk.import_key(trial.jwk)
        rules = jose.JWTClaimsRegistry(
            iss={"essential": True, "value": harness.ISSUER},
            aud={"essential": True, "value": harness.AUDIENCE},
            exp={"essential": True},
        )

        def joserfc(token: str) -> Any:
            decoded = jose.decode(token, jose_key, registry=registry)
            rules.validate(decoded.claims)
            return decoded.claims

        trial.prove("joserfc", joserfc, JoseError)
        found["joserfc"] = joserfc
    return found


if __name__ == "__main__":
    sys.exit(main())
