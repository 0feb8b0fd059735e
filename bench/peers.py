"""The whole comparison: fastverify beside every library that its users could take instead, and beside its limit.

    make bench, or: python bench/peers.py [--algorithms ES256,...] [--rounds 15] [--node-directory DIR] [--json FILE]

How tokens are made, answers proven and times taken: harness.py. Who takes part, and how: contenders.py and peers.mjs.
Everything that runs in Python runs in this process; Node is another runtime and has tables of its own, but its worker
takes its turns in the same rounds.

Rows of fastverify:
  lazy            cold: claims validated, Python objects made when they are asked for
  dict            the same, and the whole claims set as a dict each time, which is what the other libraries return
  EVP             lazy with fast_crypto=False: signatures checked by libcrypto's own verification only
  cached          a token verified before; 1,000 revocations attached, their freshness checked
  cached, dict    the same, and a fresh dict
  same str        cached; the very object each time, where cached is handed equal copies, as requests bring them
  len()           a call of a function that is built in and does next to nothing
ES256's tables are built beforehand (prepare_keys), as they are for a key that has been busy for a moment.

"raw libcrypto" is the signature check alone by libcrypto's own verification with a prepared key, called from Python:
the cost of that call, some 0.1 us, is in it as it is in all other rows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastverify
import harness
import targets
from contenders import PEERS, ours

ROOT = Path(__file__).resolve().parent.parent
ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "EdDSA")
LIMITS = ("no-op call", "raw libcrypto", "node:crypto")

Rows = dict[str, dict[str, harness.Timing]]


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help=f"default: {','.join(ALGORITHMS)}")
    parser.add_argument("--node-directory", type=Path, default=ROOT / ".venv-bench-node", help="of install_peers.py")
    arguments = parser.parse_args()
    algorithms = harness.chosen_algorithms(parser, arguments.algorithms)
    missing = {peer.name: reason for peer in PEERS if (reason := peer.missing())}
    try:
        node: Node | None = Node(arguments.node_directory)
    except NodeMissing as error:
        node, missing["fast-jwt and jose on Node"] = None, str(error)
    rows: Rows = {}
    node_rows: Rows = {}
    for number, algorithm in enumerate(algorithms):
        title = f"{algorithm} ({number + 1} of {len(algorithms) + 1})"
        trial = harness.Trial.of(algorithm)
        turns = python_turns(trial, missing)
        node_turns = node.turns(trial) if node else {}
        timings = harness.run(turns | node_turns, arguments.rounds, title)
        rows[algorithm] = {name: timings[name] for name in turns}
        node_rows[algorithm] = {name.removeprefix("Node: "): timings[name] for name in node_turns}
    session = session_rows(arguments.rounds, f"session ({len(algorithms) + 1} of {len(algorithms) + 1})")
    if node:
        node.close()
    results = {
        "python": {algorithm: harness.to_json(timings) for algorithm, timings in rows.items()},
        "node": {algorithm: harness.to_json(timings) for algorithm, timings in node_rows.items()},
        "session": harness.to_json(session),
        "missing": missing,
    }
    packages = dict.fromkeys(package for peer in PEERS for package in peer.packages)
    environment = harness.environment(*packages) | (node.versions if node else {})
    harness.publish(arguments.json, "peers", environment, results, tables(rows, node_rows, session, results))
    return 0


def python_turns(trial: harness.Trial, missing: Mapping[str, str]) -> dict[str, harness.Turn]:
    """Everybody in this process, each proven to be right."""
    harness.progress(f"{trial.algorithm}: proving the answers")
    tokens = trial.copies()
    checks = {"no-op call": harness.no_op, "raw libcrypto": trial.raw_signature()}
    checks |= {f"fastverify, {name}": check for name, check in ours(trial).items()}
    turns = {name: harness.turn(check, tokens) for name, check in checks.items()}
    turns["fastverify, cached, same str"] = harness.turn(checks["fastverify, cached"], [trial.token] * len(tokens))
    turns["len() of the token"] = harness.turn(len, tokens)
    for peer in PEERS:
        if peer.name not in missing and trial.algorithm in peer.algorithms:
            own = peer.trial(trial)
            turns[peer.name] = harness.turn(peer.prepare(own), own.copies())
    return turns


def session_rows(rounds: int, title: str) -> dict[str, harness.Timing]:
    """What a request pays in a service: the whole session object for a token that was verified before."""
    harness.progress(f"{title}: a store")
    with tempfile.TemporaryDirectory() as folder:
        config = fastverify.Config(
            api_domain=harness.AUDIENCE, website_domain=harness.AUDIENCE, secret=bytes(range(32))
        )
        with fastverify.Sessions.connect(f"embedded://{folder}/store", config) as sessions:
            issued = sessions.create("user-1", payload={"role": "editor", "plan": "pro"})
            other = sessions.create("user-2")
            sessions.revoke(sessions.verify(other.access_token).handle)
            prove_sessions(sessions, issued.access_token, other.access_token)
            tokens = [(issued.access_token + "x")[:-1] for _ in range(64)]
            turns = {
                "no-op call": harness.turn(harness.no_op, tokens),
                "Sessions.verify, cached": harness.turn(sessions.verify, tokens),
                "SessionVerifier.verify, cached": harness.turn(sessions.gateway.verify, tokens),
            }
            return harness.run(turns, rounds, title)


def prove_sessions(sessions: fastverify.Sessions, good: str, revoked: str) -> None:
    header, payload, signature = good.split(".")
    for _ in range(2):
        session = sessions.verify(good)
        if (session.user_id, session.payload) != ("user-1", {"role": "editor", "plan": "pro"}):
            raise SystemExit("Sessions.verify returns another session")
    for what, token in (
        ("a revoked session", revoked),
        ("a changed payload", f"{header}.{harness.change(payload)}.{signature}"),
        ("a changed signature", f"{header}.{payload}.{harness.change(signature)}"),
    ):
        try:
            sessions.verify(token)
        except fastverify.SessionError:
            continue
        raise SystemExit(f"Sessions.verify accepts {what}")


class NodeMissing(Exception):
    """There is nothing to run Node's peers with."""


class Node:
    """The worker (peers.mjs) in a process of its own; one question at a time."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("node") is None:
            raise NodeMissing("Node is not installed")
        if not (directory / "node_modules").is_dir():
            raise NodeMissing(f"not installed in {directory.name}: bench/install_peers.py does that")
        script = Path(__file__).with_name("peers.mjs")
        self._worker = subprocess.Popen(
            ["node", str(script), str(directory.resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except ValueError:
            raise NodeMissing(f"its worker ended with status {self._worker.wait()}") from None

    def turns(self, trial: harness.Trial) -> dict[str, harness.Turn]:
        """Everybody there, each proven to be right."""
        prepare = {
            "algorithm": trial.algorithm,
            "secret": trial.jwk.get("k"),
            "pem": trial.public.decode(),
            "token": trial.token,
            "claims": trial.claims,
            "bad": trial.bad,
            "issuer": harness.ISSUER,
            "audience": harness.AUDIENCE,
        }
        names = self._ask({"prepare": prepare})["contenders"]
        return {f"Node: {name}": self._turn(name) for name in names}

    def close(self) -> None:
        self._worker.stdin.close()  # type: ignore[union-attr]
        self._worker.wait()

    def _turn(self, name: str) -> harness.Turn:
        def take(passes: int) -> tuple[float, float]:
            answer = self._ask({"time": name, "passes": passes})
            return answer["cpu"], answer["wall"]

        return take

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(question), file=self._worker.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._worker.stdout.readline()  # type: ignore[union-attr]
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"Node: {answer['error']}")
        return answer


def tables(rows: Rows, node_rows: Rows, session: dict[str, harness.Timing], results: dict[str, Any]) -> str:
    parts = [harness.timing_table(name, timings, reference="PyJWT", unrelated=LIMITS) for name, timings in rows.items()]
    parts.append(harness.timing_table("session, ES256", session))
    parts += [
        harness.timing_table(f"{name}, Node", timings, reference="fast-jwt", unrelated=LIMITS)
        for name, timings in node_rows.items()
        if timings
    ]
    parts.append("\n".join(f"missing: {name}: {reason}" for name, reason in results["missing"].items()))
    parts.append(targets.table({"peers": results}))
    return "\n\n".join(filter(None, parts))


if __name__ == "__main__":
    sys.exit(main())
