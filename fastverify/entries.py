"""Revocation entries: what is written into the blacklist sets and logs, and entered into every verifier's table.

An entry is 25 bytes, and these are its whole identity (revocation.md)::

    kind (1) | target (16) | cutoff (8, milliseconds since the epoch, big-endian; 0 where none)

A session is named by its handle, everything else by the first 16 bytes of a SHA-256: a token of its header and payload
segments (never of the signature, of which several may serve), a key of its id, a tenant of its name. Of a tenant, and
of everything, the tokens are refused that were issued at or before the cutoff's second.
"""

from __future__ import annotations

import hashlib

SESSION, TOKEN, KEY, TENANT, EVERYTHING = range(1, 6)

_NO_CUTOFF = bytes(8)


def session_entry(handle: bytes) -> bytes:
    """Of one session."""
    return bytes((SESSION,)) + handle + _NO_CUTOFF


def token_entry(access_token: str) -> bytes:
    """Of one access token, in compact form."""
    return bytes((TOKEN,)) + _digest(access_token.rpartition(".")[0]) + _NO_CUTOFF


def key_entry(kid: str) -> bytes:
    """Of every token that one key has signed."""
    return bytes((KEY,)) + _digest(kid) + _NO_CUTOFF


def tenant_entry(tenant: str, cutoff: int) -> bytes:
    """Of a tenant's tokens issued up to ``cutoff``, in milliseconds since the epoch."""
    return bytes((TENANT,)) + _digest(tenant) + cutoff.to_bytes(8)


def everything_entry(cutoff: int) -> bytes:
    """Of all tokens issued up to ``cutoff``, in milliseconds since the epoch."""
    return bytes((EVERYTHING,)) + bytes(16) + cutoff.to_bytes(8)


def kind_of(entry: bytes) -> int:
    """What an entry is of."""
    return entry[0]


def in_every_shard(entry: bytes) -> bool:
    """Whether it is written into every shard, and not into that of its target alone."""
    return entry[0] >= TENANT


def target_of(entry: bytes) -> bytes:
    """The 16 bytes that name what an entry is of. The first of them says which shard it is written into."""
    return entry[1:17]


def cutoff_of(entry: bytes) -> int:
    """The cutoff in milliseconds since the epoch, 0 where there is none."""
    return int.from_bytes(entry[17:25])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
