"""A build that cannot succeed says what to install; one without OpenSSL headers succeeds (ecosystem.md section 2)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from builds import build, build_package, run_with

#: A compiler that has everything but the library.
WITHOUT_LIBCRYPTO = """#!/bin/sh
case "$*" in *libcrypto*) echo "cannot find -lcrypto" >&2; exit 1;; esac
exec cc "$@"
"""


def test_build_without_a_compiler_names_the_packages(tmp_path: Path) -> None:
    result = build(tmp_path, CC=str(tmp_path / "no-such-compiler"))
    assert result.returncode != 0
    assert "apt-get install gcc python3-dev" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_build_without_libcrypto_names_the_packages(tmp_path: Path, kind: str) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(WITHOUT_LIBCRYPTO)
    compiler.chmod(0o755)
    result = build(tmp_path, CC=str(compiler), FASTVERIFY_CRYPTO=kind)
    assert result.returncode != 0
    assert "apt-get install libssl3" in result.stderr
    assert "Traceback" not in result.stderr


def test_build_with_another_kind_of_libcrypto_is_refused(tmp_path: Path) -> None:
    result = build(tmp_path, FASTVERIFY_CRYPTO="magic")
    assert result.returncode != 0
    assert "shared or static" in result.stderr


@pytest.mark.long
def test_static_build_carries_its_own_libcrypto(tmp_path: Path) -> None:
    archive = subprocess.run(["cc", "-print-file-name=libcrypto.a"], capture_output=True, text=True, check=True)
    if not Path(archive.stdout.strip()).is_absolute():
        pytest.skip("libcrypto.a is not here: install libssl-dev")
    library = build_package(tmp_path, FASTVERIFY_CRYPTO="static", CFLAGS="-O1")
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "libcrypto" not in needed
    shown = run_with(tmp_path, "print(fastverify.openssl_info()['linkage'])")
    assert shown.stdout == "static\n", shown.stderr


#: A program that says what it sees, and verifies all the same.
WITHOUT_FAST_PATHS = """
import json
from signing import ISSUER, NOW, make_key, sign
from fastverify import errors
from fastverify._core import Verifier, openssl_info

seen = {name: state for name, state in openssl_info().items() if name.startswith("fast_")}
for algorithm in ("RS256", "PS256", "ES256"):
    key = make_key(algorithm)
    verifier = Verifier([key.verifying], issuer=ISSUER, cache_size=0)
    seen[algorithm] = [key.verifying.prepare(), verifier.prepare_keys()]
    token = sign(None, None, key)
    for _ in range(300):
        verifier.verify(token, now=NOW)
    try:
        verifier.verify(token[:-8] + "AAAAAAAA", now=NOW)
    except errors.InvalidSignature:
        seen[algorithm] += [verifier.crypto_info().fast, verifier.crypto_info().evp]
key = make_key("HS256")
seen["HS256"] = key.verifying.prepare()
assert Verifier([key.verifying], issuer=ISSUER).verify(sign(None, None, key), now=NOW)
print(json.dumps(seen))
"""
NO, EVP_ALONE, FAST_ALONE = "no: this libcrypto lacks the functions", [False, 0, 0, 301], [True, 0, 301, 0]
ALL = {"fast_hmac": "yes", "fast_rsa": "yes", "fast_ecdsa": "yes"}
ALL |= {"HS256": True, "RS256": FAST_ALONE, "PS256": FAST_ALONE, "ES256": [True, 1, 301, 0]}


@pytest.mark.long
@pytest.mark.parametrize(
    ("lacking", "without"),
    [
        ("SHA512_Final", {"fast_hmac": NO, "HS256": False}),
        # The one of ES256 is built on that of RSA.
        (
            "BN_to_montgomery",
            {"fast_rsa": NO, "fast_ecdsa": NO} | dict.fromkeys(("RS256", "PS256", "ES256"), EVP_ALONE),
        ),
        ("EC_GROUP_precompute_mult", {"fast_ecdsa": NO, "ES256": EVP_ALONE}),
    ],
    ids=["of_hmac", "of_rsa", "of_ecdsa"],
)
def test_a_libcrypto_that_lacks_a_function_has_no_fast_path_and_says_so(
    tmp_path: Path, lacking: str, without: dict[str, Any]
) -> None:
    def rename(folder: Path) -> None:
        """Have setup.py look for a function that no libcrypto has."""
        script = folder / "setup.py"
        text = script.read_text()
        assert lacking in text
        script.write_text(text.replace(lacking, f"{lacking}_of_another_name"))

    build_package(tmp_path, rename, CFLAGS="-O1")
    shown = run_with(tmp_path, WITHOUT_FAST_PATHS)
    assert json.loads(shown.stdout or "null") == ALL | without, shown.stderr
