"""Seeds: what every run starts from. External test vectors, and tokens that are signed at this very moment."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import material
import oracles
from signing import ALGORITHMS, NOW, coordinate_size

TARGETS = ("base64url", "json", "header", "claims", "verify", "signature", "request")
MAX_SEED = 16384

#: Words that a mutation can put in at once.
WORDS = (
    *('"alg"', '"kid"', '"typ"', '"crit"', '"b64"', '"zip"', '"jwk"', '"jku"', '"x5u"', '"x5c"', '"enc"', '"JWT"'),
    *('"iss"', '"sub"', '"aud"', '"exp"', '"nbf"', '"iat"', '"jti"', '"tId"', '"sessionHandle"', '"gone"'),
    *('"none"', '"Ed25519"', '"application/jwt"', *(f'"{algorithm}"' for algorithm in ALGORITHMS)),
    *(f'"{material.ISSUER}"', f'"{material.AUDIENCE}"', str(NOW), str(NOW + 3600), "9007199254740991", "-0", "1e309"),
    *("authorization:Bearer T", "cookie:", "sAccessToken=T", "sIdRefreshToken=", "origin:https://example.com", "rid:"),
    *("true", "false", "null", "[]", "{}", '":', "\\u0000", "\\ud834\\udd1e", "\\u0061", "[[[[[[[[", "e-1", ".5"),
)


def seeds(vectors: Path | None) -> dict[str, list[bytes]]:
    """The inputs that each target starts from."""
    fresh = [material.token(algorithm).encode() for algorithm in ALGORITHMS]
    tokens = [*fresh, *(list(vector_tokens(vectors)) if vectors else [])]
    documents = list(json_documents(vectors)) if vectors else []
    segments = [segment for token in tokens for segment in token.split(b".")]
    decoded = [text for text in map(oracles.decode, segments) if text]
    found = {
        "base64url": segments,
        "json": [*documents, *(b'{"x":' + document + b"}" for document in documents), *payloads()],
        "header": [*decoded, *segments],
        "claims": [*payloads(), *(payload_with(document) for document in documents)],
        "verify": tokens,
        "signature": [*signatures(), *edge_signatures()],
        "request": list(requests()),
    }
    return {name: [seed for seed in dict.fromkeys(inputs) if len(seed) <= MAX_SEED] for name, inputs in found.items()}


def write(folder: Path, vectors: Path | None) -> dict[str, int]:
    """Write each target's seeds to a folder of its own, and the words to `words`; returns how many there are."""
    counts = {}
    for name, inputs in seeds(vectors).items():
        (folder / name).mkdir(parents=True)
        for seed in inputs:
            (folder / name / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
        counts[name] = len(inputs)
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in WORDS)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in escaped))
    return counts


def vector_tokens(vectors: Path) -> Iterator[bytes]:
    """The tokens of Wycheproof: signed ones, encrypted ones, and those of its odd keys."""
    for name in ("signature", "key", "encryption"):
        document = json.loads((vectors / "wycheproof" / f"json_web_{name}_test.json").read_text())
        for group in document["testGroups"]:
            for test in group["tests"]:
                yield test.get("jws", test.get("jwe")).encode()


def json_documents(vectors: Path) -> Iterator[bytes]:
    """The documents of JSONTestSuite, good and bad."""
    for path in sorted((vectors / "jsontestsuite").glob("test_*/*.json")):
        yield path.read_bytes()


def payloads() -> list[bytes]:
    """Claims sets, good and bad."""
    handle, tenant = f"{material.REVOKED_HANDLE}_gone", material.REVOKED_TENANT
    changes: list[dict[str, object]] = [
        *({}, {"aud": ["x", material.AUDIENCE]}, {"aud": []}, {"sessionHandle": handle}, {"tId": tenant, "iat": 1}),
        *({"exp": NOW}, {"nbf": NOW + 6}, {"iat": NOW + 5}, {"exp": 2**53}, {"exp": -0.0}, {"iss": "x"}, {"sub": 1}),
    ]
    sets = [material.claims(**change) for change in changes]
    return [json.dumps(s, ensure_ascii=ascii, separators=(",", ":")).encode() for s in sets for ascii in (True, False)]


def payload_with(document: bytes) -> bytes:
    """A claims set that is good if the document is."""
    return json.dumps(material.claims()).encode()[:-1] + b',"x":' + document + b"}"


def requests() -> Iterator[bytes]:
    """Requests under each of the rules, as clients send them and as they do not."""
    tokens = (
        "authorization:Bearer T",
        "cookie:theme=dark; sAccessToken=T; lang=en",
        "authorization:Bearer T\ncookie:a=b",
    )
    tokens += (
        "cookie:sAccessToken=T;sAccessToken=T",
        "cookie:sIdRefreshToken=x; sAccessToken=T",
        "cookie:s=1\ncookie:s=2",
    )
    tokens += (
        "authorization:bearer T",
        "authorization: Bearer T ",
        "cookie:sAccessToken=%54T;;=;s",
        "cookie:sAccessToken",
    )
    for rules, token in itertools.product(range(48), tokens):
        for others in (
            "",
            "rid:anti-csrf\norigin:https://example.com",
            "rid:\nst-auth-mode:cookie\nsec-fetch-site:none",
        ):
            yield bytes([rules]) + f"host:api\n{token}\n{others}".encode()


def signatures() -> Iterator[bytes]:
    """A good one of each algorithm, and the same with a bit flipped, too short and too long."""
    for number, algorithm in enumerate(ALGORITHMS):
        good = base64.urlsafe_b64decode(material.token(algorithm).rpartition(".")[2] + "==")
        variants = (good, good[:-1], good + b"\0", good[:-1] + bytes([good[-1] ^ 1]), b"\0" + good)
        yield from (bytes([number]) + signature for signature in variants)


def edge_signatures() -> Iterator[bytes]:
    """Numbers at the edges of their range: ECDSA's in every pairing, and RSA's."""
    for number, algorithm in enumerate(ALGORITHMS):
        if algorithm in material.ORDERS:
            order, size = material.ORDERS[algorithm], coordinate_size(algorithm)
            edges = (0, 1, 2, order // 2, order - 1, order, order + 1, 256**size - 1)
            pairs = [r.to_bytes(size, "big") + s.to_bytes(size, "big") for r in edges for s in edges]
        elif algorithm[:2] in ("RS", "PS"):
            n = material.key(algorithm).private.public_key().public_numbers().n
            size = n.bit_length() // 8
            pairs = [s.to_bytes(size, "big") for s in (0, 1, 2, n // 2, n - 1, n, n + 1, 256**size - 1)]
        else:
            continue
        yield from (bytes([number]) + pair for pair in pairs)
