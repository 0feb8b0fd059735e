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

import contenders
import harness


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--algorithms", default=",".join(harness.ALGORITHMS), help="comma-separated; default: all")
    arguments = parser.parse_args()
    algorithms = harness.chosen_algorithms(parser, arguments.algorithms)
    results: dict[str, dict[str, harness.Timing]] = {}
    for number, algorithm in enumerate(algorithms):
        trial = harness.Trial.of(algorithm)
        tokens = trial.copies()
        turns = {name: harness.turn(check, tokens) for name, check in checks(trial).items()}
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
        {algorithm: harness.to_json(timings) for algorithm, timings in results.items()},
        "\n\n".join(tables),
    )
    return 0


def checks(trial: harness.Trial) -> dict[str, harness.Check]:
    """Who verifies this token, each proven to be right."""
    found = {"no-op call": harness.no_op, "raw signature": trial.raw_signature()}
    names = {"lazy": "cold", "dict": "cold, dict", "cached": "cached", "cached, dict": "cached, dict"}
    found |= {names[name]: check for name, check in contenders.ours(trial).items() if name in names}
    return found | {
        peer.name: peer.prepare(trial)
        for peer in contenders.PEERS
        if peer.name in ("PyJWT", "joserfc") and not peer.missing()
    }


if __name__ == "__main__":
    sys.exit(main())
