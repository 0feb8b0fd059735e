"""Who verifies tokens here: fastverify in its several ways, and other libraries, each proven before it is returned.

Keys and policies are prepared once, as each library's documentation has it, so that a call does what a request needs
and nothing else. Everybody checks `iss`, `aud` and `exp`; where a library cannot, it is said.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastverify import Verifier
from harness import ALGORITHMS, AUDIENCE, ISSUER, Check, Trial, revocations

POLICY: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE}
#: Algorithms with a fast path of our own: elsewhere `fast_crypto=False` is the same thing.
FAST = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256")


@dataclass(frozen=True)
class Peer:
    """Another library."""

    name: str
    #: Whose versions matter; without the first it cannot take part.
    packages: tuple[str, ...]
    prepare: Callable[[Trial], Check]
    algorithms: tuple[str, ...] = ALGORITHMS
    #: A claim with which it refuses every token; it gets one without it.
    without: str = ""

    def trial(self, trial: Trial) -> Trial:
        return trial.without(self.without) if self.without else trial

    def missing(self) -> str | None:
        """Why it cannot take part, or None."""
        try:
            importlib.metadata.version(self.packages[0])
        except importlib.metadata.PackageNotFoundError:
            return _reasons().get(self.packages[0].lower(), "not installed")
        return None


def ours(trial: Trial) -> dict[str, Check]:
    """fastverify: cold with claims on demand and as a dict, the same without fast paths, and from the cache."""
    cold = prepared(Verifier(trial.keys, **POLICY, cache_size=0))
    found: dict[str, Check] = {"lazy": cold.verify, "dict": lambda token: cold.verify(token).to_dict()}
    if trial.algorithm in FAST:
        found["EVP"] = Verifier(trial.keys, **POLICY, cache_size=0, fast_crypto=False).verify
    cached = Verifier(trial.keys, **POLICY, revocations=revocations())
    found |= {"cached": cached.verify, "cached, dict": lambda token: cached.verify(token).to_dict()}
    return {name: trial.prove(f"fastverify, {name}", check) for name, check in found.items()}


def prepared(verifier: Verifier) -> Verifier:
    """Its fast paths' tables built now; in a service the busy keys get theirs in the background."""
    verifier.prepare_keys()
    return verifier


def ryjwt(trial: Trial) -> Check:
    import ryjwt

    key: Any
    if trial.algorithm.startswith("HS"):
        key = ryjwt.SecretKey(trial.private, algorithms=[trial.algorithm], audience=AUDIENCE, issuer=ISSUER)
    else:
        key = ryjwt.PublicKey(trial.public, algorithms=[trial.algorithm], audience=AUDIENCE, issuer=ISSUER)
    return trial.prove("ryjwt", key.decode, ryjwt.InvalidTokenError)


def oxyjwt(trial: Trial) -> Check:
    import oxyjwt

    key = oxyjwt.DecodingKey.from_jwk(trial.jwk)
    algorithms = [trial.algorithm]

    def check(token: str) -> Any:
        return oxyjwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)

    return trial.prove("oxyjwt", check, oxyjwt.InvalidTokenError)


def pyjwt(trial: Trial) -> Check:
    import jwt

    key = trial.private if trial.algorithm.startswith("HS") else jwt.PyJWK.from_dict(trial.jwk).key
    algorithms = [trial.algorithm]

    def check(token: str) -> Any:
        return jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)

    return trial.prove("PyJWT", check, jwt.InvalidTokenError)


def joserfc(trial: Trial) -> Check:
    from joserfc import jwk, jws, jwt
    from joserfc.errors import JoseError, SecurityWarning

    warnings.simplefilter("ignore", SecurityWarning)  # at every call, of EdDSA's older name; that is in its figure
    key = jwk.import_key(trial.jwk)
    # By default it refuses header parameters that are not registered, such as "version".
    registry = jws.JWSRegistry(algorithms=[trial.algorithm], strict_check_header=False)
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True}
    )

    def check(token: str) -> Any:
        decoded = jwt.decode(token, key, registry=registry)
        rules.validate(decoded.claims)
        return decoded.claims

    return trial.prove("joserfc", check, JoseError)


def authlib(trial: Trial) -> Check:
    import authlib.deprecate  # sets a filter of its own

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)  # in favour of joserfc
        from authlib.jose import JsonWebKey, JsonWebToken
        from authlib.jose.errors import JoseError

    library = JsonWebToken([trial.algorithm])
    key = JsonWebKey.import_key(trial.jwk)
    rules = {
        "iss": {"essential": True, "value": ISSUER},
        "aud": {"essential": True, "value": AUDIENCE},
        "exp": {"essential": True},
    }

    def check(token: str) -> Any:
        claims = library.decode(token, key, claims_options=rules)
        claims.validate()
        return claims

    return trial.prove("Authlib", check, JoseError)


def python_jose(trial: Trial) -> Check:
    from jose import jwk, jwt
    from jose.exceptions import JWTError

    key = jwk.construct(trial.jwk, trial.algorithm)
    algorithms = [trial.algorithm]

    def check(token: str) -> Any:
        return jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=ISSUER)

    return trial.prove("python-jose", check, JWTError)


def supertokens(trial: Trial) -> Check:
    """What its SDK does with each request's access token before `get_session`'s own work; keys already fetched."""
    from jwt import PyJWK
    from supertokens_python.recipe.session import jwks
    from supertokens_python.recipe.session.access_token import get_info_from_access_token
    from supertokens_python.recipe.session.exceptions import SuperTokensSessionError
    from supertokens_python.recipe.session.jwt import parse_jwt_without_signature_verification

    jwks.cached_keys = jwks.CachedKeys([PyJWK.from_dict(trial.jwk)], refresh_interval_sec=1_000_000)

    def check(token: str) -> Any:
        # Its configuration (None) is not looked at as long as the keys are in their cache.
        parsed = parse_jwt_without_signature_verification(token)
        return get_info_from_access_token(None, parsed, False)["userData"]

    refusals = (SuperTokensSessionError, ValueError)  # ValueError: what was parsed before the signature is no JSON
    return trial.prove("SuperTokens SDK", check, refusals, unchecked=["another issuer"])


PEERS = (
    Peer("ryjwt", ("ryjwt", "msgspec"), ryjwt),
    Peer("oxyjwt", ("oxyjwt", "orjson"), oxyjwt),
    Peer("PyJWT", ("PyJWT", "cryptography"), pyjwt),
    Peer("joserfc", ("joserfc", "cryptography"), joserfc),
    Peer("Authlib", ("Authlib", "cryptography"), authlib),
    Peer(
        "python-jose",
        ("python-jose", "cryptography"),
        python_jose,
        tuple(name for name in ALGORITHMS if name[:2] in ("HS", "RS", "ES")),
    ),
    Peer("SuperTokens SDK", ("supertokens-python", "PyJWT"), supertokens, ("RS256",), without="aud"),
)


def _reasons() -> dict[str, str]:
    """What the installation (install_peers.py) could not install into this environment, and why."""
    try:
        text = (Path(sys.prefix) / "not-installed.json").read_text("utf-8")
    except OSError:
        return {}
    reasons: dict[str, str] = json.loads(text)
    return reasons
