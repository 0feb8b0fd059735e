"""What `make fuzz` relies on, without clang: oracles, seeds, and those targets that need the public core only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import corpus
import material
import oracles
import pytest
import run
from signing import ALGORITHMS, ISSUER, NOW

import targets

PUBLIC_TARGETS = ("claims", "verify", "signature", "request")


@pytest.mark.parametrize(
    "text", [b"AA=", b"AA==", b"A", b"AB", b"AAB", b"A+AA", b"A/AA", b"AA A", b"AA\n", b"\xc3\xa4"]
)
def test_base64url_that_is_not_strict_is_refused(text: bytes) -> None:
    assert oracles.decode(text) is None


@pytest.mark.parametrize("data", [b"", b"\0", b"ab", b"abc", bytes(range(256))])
def test_base64url_of_any_bytes_is_decoded(data: bytes) -> None:
    assert oracles.decode(oracles.encode(data)) == data


@pytest.mark.parametrize(
    "document",
    [
        *(b"", b"[]", b"1", b"null", b"{", b"{}x", b"{} {}", b'{"a":1,}', b"{'a':1}", b'{"a":01}', b'{"a":\t"\t"}'),
        *(b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e400}', b'{"a":1,"a":1}', rb'{"a":1,"\u0061":1}'),
        *(rb'{"a":"\ud800"}', rb'{"\udc00":1}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b"\xef\xbb\xbf{}"),
        *('{"a":1}'.encode("utf-16"), b'{"b":{"a":1,"a":1}}', b'{"a":' + b"[" * 10000),
    ],
)
def test_json_that_is_not_strict_is_refused(document: bytes) -> None:
    assert oracles.parse(document) is None


def test_strict_json_is_read_with_its_types() -> None:
    value = oracles.parse(rb' {"a":[1,1.0,-0.0,true,null,"\ud834\udd1e"],"b":{}} ')
    assert repr(value) == "{'a': [1, 1.0, -0.0, True, None, '\U0001d11e'], 'b': {}}"
    assert not oracles.same({"a": 1}, {"a": 1.0})
    assert not oracles.same({"a": 1, "b": 2}, {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b'{"alg":"ES256"}', (b"ES256", None, None)),
        (b'{"typ":"JWT","kid":"","alg":"none"}', (b"none", b"", b"JWT")),
        (b'{"alg":"ES256","typ":"' + b"x" * 65 + b'"}', (b"ES256", None, b"")),
        (b'{"kid":"a"}', None),
        (b'{"alg":null}', None),
        (b'{"alg":"ES256","kid":null}', None),
        (b'{"alg":"ES256","typ":1}', None),
        (b'{"alg":"ES256","crit":[]}', None),
        (b'{"alg":"ES256ES256ES256ES"}', None),
        (b'{"alg":"ES256","kid":"' + b"x" * 129 + b'"}', None),
    ],
)
def test_headers_are_read_as_the_core_must(document: bytes, expected: tuple[bytes | None, ...] | None) -> None:
    assert oracles.header(oracles.encode(document)) == expected


@pytest.mark.parametrize(
    "change",
    [
        *({"exp": NOW}, {"exp": None}, {"exp": True}, {"exp": 1e12}, {"exp": 2**53}, {"nbf": NOW + 6}, {"iat": "1"}),
        *({"iss": "x"}, {"iss": None}, {"aud": []}, {"aud": [material.AUDIENCE, 1]}, {"aud": "x"}, {"tId": 1}),
    ],
)
def test_claims_that_do_not_hold_are_refused(change: dict[str, object]) -> None:
    good = oracles.claims(corpus.payload_with(b"1"), ISSUER, material.AUDIENCE, NOW)
    assert good is not None and good["x"] == 1
    bad = json.dumps(material.claims(**change)).encode()
    assert oracles.claims(bad, ISSUER, material.AUDIENCE, NOW) is None


def test_keys_are_the_same_in_every_process() -> None:
    program = "import material; print([material.key(name).jwk for name in material.ORDERS], material.key('RS256').jwk)"
    here = str([material.key(name).jwk for name in material.ORDERS]), str(material.key("RS256").jwk)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == " ".join(here)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signatures_are_told_from_others(algorithm: str) -> None:
    message, _, segment = material.token(algorithm).encode().rpartition(b".")
    signature = oracles.decode(segment)
    assert signature is not None
    assert material.is_signature(algorithm, message, signature)
    assert not material.is_signature(algorithm, message + b"x", signature)
    assert not material.is_signature(algorithm, message, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not material.is_signature(algorithm, message, b"\0" + signature)


def test_every_target_has_seeds_without_any_vectors(tmp_path: Path) -> None:
    counts = corpus.write(tmp_path, None)
    assert counts.keys() == set(corpus.TARGETS) == {n for n in corpus.TARGETS if callable(getattr(targets, n))}
    for target, count in counts.items():
        assert count == len(list((tmp_path / target).iterdir())) > 10
    assert (tmp_path / "words").read_text().count("\n") == len(corpus.WORDS)


def test_vectors_become_seeds(vectors: Path) -> None:
    without, seeds = corpus.seeds(None), corpus.seeds(vectors)
    assert len(seeds["json"]) - len(without["json"]) > 600
    assert len(seeds["verify"]) - len(without["verify"]) > 500


@pytest.mark.parametrize("target", PUBLIC_TARGETS)
def test_core_and_oracle_agree_on_every_seed(target: str, vectors: Path) -> None:
    for seed in corpus.seeds(vectors)[target]:
        getattr(targets, target)(seed)


def test_a_forgery_that_passes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    good = material.token("ES256").encode()
    targets.verify(good)
    monkeypatch.setattr(material, "is_signature", lambda *_: False)
    with pytest.raises(AssertionError):
        targets.verify(good)


def test_a_good_token_that_is_refused_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = material.token("ES256").encode()[:-4] + b"AAAA"
    targets.verify(damaged)
    monkeypatch.setattr(material, "is_signature", lambda *_: True)
    with pytest.raises(AssertionError):
        targets.verify(damaged)


def test_other_claims_than_those_signed_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "GOOD_CLAIMS", material.claims(sub="user-2"))
    with pytest.raises(AssertionError):
        targets.verify(material.token("HS256").encode())


def test_figures_are_read_from_what_the_fuzzer_says() -> None:
    result, log = run.Result("json", 7), StringIO()
    lines = [
        "#694\tINITED cov: 435 ft: 995 corp: 143/6112b exec/s: 0 rss: 366Mb\n",
        "#803\tNEW    cov: 436 ft: 1001 corp: 146/6588b lim: 1006 exec/s: 0 rss: 367Mb L: 15/1006 MS: 1 ChangeByte-\n",
        "stat::number_of_executed_units: 900\n",
        "stat::average_exec_per_sec:     17969\n",
        "stat::peak_rss_mb:              415\n",
    ]
    run.read_log(lines, log, result)
    assert result == run.Result("json", 7, 900, 17969, 436, 1001, 146, 415)
    assert log.getvalue() == "".join(lines)
    assert run.table([result]).splitlines()[1].split() == "json 7 900 17,969 436 1001 146 415 none".split()


KEPT = f"artifact_prefix='x'; Test unit written to {run.FINDINGS}/json-crash-00\n"


@pytest.mark.parametrize(
    ("before", "finding"),
    [
        ("==1== ERROR: libFuzzer: deadly signal\n", "build/fuzz/findings/json-crash-00"),
        ("==1==ERROR: LeakSanitizer: detected memory leaks\n", "LeakSanitizer: detected memory leaks"),
        ("==1==LeakSanitizer has encountered a fatal error.\n", "LeakSanitizer has encountered a fatal error"),
    ],
)
def test_a_kept_input_is_a_finding_unless_it_was_only_the_last_before_leaks(before: str, finding: str) -> None:
    result = run.Result("json", 7)
    run.read_log([before, KEPT], StringIO(), result)
    assert result.findings == [finding]


def test_without_clang_the_run_stops_and_names_the_packages(tmp_path: Path) -> None:
    environment = os.environ | {"CC": str(tmp_path / "no-such-clang"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, run.__file__, "json"]
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert stopped.returncode == 1
    assert "apt-get install clang libclang-rt-14-dev" in stopped.stderr
    assert "Traceback" not in stopped.stderr
