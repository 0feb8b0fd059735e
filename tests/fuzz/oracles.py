"""What the right answers are: the rules of base64url, JSON, headers and claims, stated once more in plain Python.

Nothing here uses the core. Each function returns the value, or None where the input has to be refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import unquote

MAX_SEGMENT = 1366
LAST_DATE = 2**53 - 1
BLANKS = b" \t\n\v\f\r"
UNSUPPORTED = {"crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc"}


class MinusZero(int):
    """JSON's -0, which json.loads would hand out as 0; no NumericDate is spelt like that."""


def encode(data: bytes) -> bytes:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes | None:
    """The one value that is spelt exactly so."""
    try:
        value = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return None
    return value if encode(value) == text else None


def parse(document: bytes) -> dict[str, Any] | None:
    """One JSON object: RFC 8259 without what is ambiguous there. The core's limits are not looked at (`exceeds`)."""
    try:
        value = json.loads(
            document.decode(),
            object_pairs_hook=_distinct,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
        json.dumps(value, ensure_ascii=False).encode()  # fails where a surrogate stands alone
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def cookies(fields: list[bytes], name: str) -> list[str]:
    """The values of a cookie that are not empty, of what several Cookie fields say (RFC 9113 section 8.2.3)."""
    found = []
    for pair in b"; ".join(fields).split(b";"):
        key, _, value = pair.strip(BLANKS).partition(b"=")
        if key == name.encode() and value:
            text = value.decode("latin-1")
            found.append(unquote(text) if "%" in text else text)
    return found


def bearer(fields: list[bytes]) -> str:
    """The token of an Authorization field; two fields are one list, and no token."""
    scheme, _, token = b", ".join(fields).partition(b" ")
    return token.strip(BLANKS).decode("latin-1") if scheme == b"Bearer" else ""


def exceeds(document: bytes, reason: str) -> bool:
    """Whether a document may be refused for its size, with this reason, although it is good JSON."""
    return {
        "depth": document.count(b"[") + document.count(b"{") > 8,
        "members": document.count(b'"') > 2 * 128,
        "string_size": len(document) > 4096,
    }.get(reason, False)


def within_limits(value: Any, depth: int = 8) -> bool:
    """Whether a value keeps to the depth, the members and the string sizes that the core allows."""
    if isinstance(value, str):
        return len(value.encode()) <= 4096
    if isinstance(value, dict):
        inner = (*value.keys(), *value.values())
        return depth > 0 and len(value) <= 128 and all(within_limits(item, depth - 1) for item in inner)
    if isinstance(value, list):
        return depth > 0 and all(within_limits(item, depth - 1) for item in value)
    return True


def header(segment: bytes) -> tuple[bytes | None, ...] | None:
    """``alg``, ``kid`` and ``typ`` of a protected header; None for one that is absent."""
    document = decode(segment)
    value = None if document is None else parse(document)
    if value is None or UNSUPPORTED & value.keys() or "alg" not in value:
        return None
    members = {name: value[name] for name in ("alg", "kid", "typ") if name in value}
    if not all(isinstance(member, str) for member in members.values()):
        return None
    alg, kid, typ = (members[name].encode() if name in members else None for name in ("alg", "kid", "typ"))
    if len(alg) > 16 or (kid is not None and len(kid) > 128):
        return None
    return alg, kid, b"" if typ is not None and len(typ) > 64 else typ  # too long a typ matches nothing


def claims(payload: bytes, issuer: str, audience: str, now: int) -> dict[str, Any] | None:
    """A claims set that holds at `now` for this issuer and audience; with no leeway but the 5 s of nbf and iat."""
    value = parse(payload)
    if value is None or "exp" not in value:
        return None
    texts = [value[name] for name in ("iss", "sub", "jti", "sessionHandle", "tId") if name in value]
    dates = [value[name] for name in ("exp", "nbf", "iat") if name in value]
    if not all(isinstance(text, str) for text in texts):
        return None
    if not all(type(date) is int and 0 <= date <= LAST_DATE for date in dates):
        return None
    audiences = value.get("aud")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(audiences, list) or not all(isinstance(text, str) for text in audiences):
        return None
    if value.get("iss") != issuer or audience not in audiences:
        return None
    if now >= value["exp"] or now < max(value.get("nbf", 0), value.get("iat", 0)) - 5:
        return None
    return value


def same(left: Any, right: Any) -> bool:
    """Equal in value, type and order of members: 1 is not 1.0, and -0.0 is not 0.0."""
    return repr(left) == repr(right)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is not finite")
    return value


def _integer(text: str) -> int:
    return MinusZero(text) if text == "-0" else int(text)
