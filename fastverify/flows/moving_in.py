"""Another issuer's refresh token is exchanged once."""

from __future__ import annotations

from ..authority import Authority, Moment
from ..errors import StoreUnavailable, Unauthorised
from ..records import Record
from ..session import Issued, handle_bytes, uuid_text
from ..store.calls import Call, Flow, Pause
from ..tokens import encode_refresh_token
from . import limits
from .common import reply_to


def claim_exchange(authority: Authority, digest: str, nonce: str, *, now: float) -> Flow[Issued | None]:
    """Take one's turn to exchange another issuer's refresh token: None; or get the session that came of it before.

    Args:
        digest: SHA-256 of the token, hexadecimal.
        nonce: of this attempt.
    """
    tag, patience, pause = authority.tag_of_digest(digest), limits.TURN_PATIENCE, 0.02
    while True:
        reply = yield Call("exchange_claim", tag, (digest, nonce, limits.TURN_MS))
        verdict, *rest = reply_to(reply, digest)[1:]
        if verdict == b"MINE":
            return None
        if verdict == b"DONE":
            return (yield from _first_tokens(authority, rest[0].decode(), now))
        if patience <= 0:
            raise StoreUnavailable("another request has been exchanging this refresh token for too long")
        yield Pause(pause)
        patience, pause = patience - pause, min(2 * pause, 0.2)


def settle_exchange(authority: Authority, digest: str, nonce: str, handle: str) -> Flow[bool]:
    """End one's turn, with a session or, with an empty handle, without; False if it was over."""
    kept = max(authority.config.exchange_seconds, 1) * 1000
    args = digest, nonce, uuid_text(handle_bytes(handle)) if handle else "", kept
    reply = yield Call("exchange_settle", authority.tag_of_digest(digest), args)
    return bool(reply_to(reply, digest)[1])


def _first_tokens(authority: Authority, handle: str, now: float) -> Flow[Issued]:
    """The tokens that a session began with, once more."""
    raw = handle_bytes(handle)
    alive, *rest = reply_to((yield Call("strict", authority.tag_of_handle(raw), (handle,))), handle)[1:]
    if alive != 1:
        raise Unauthorised("the session that this refresh token was exchanged for has ended")
    record = Record.read(raw, rest[2:])
    if record.generation:  # the client that has them is further; what it holds is not touched
        raise Unauthorised("this refresh token has been exchanged", clear_tokens=False)
    token = encode_refresh_token(authority.keys_named(record.key_id), record.secret, raw, 0)
    return authority.issue(record, token, Moment(now, *rest[:2]), changed=True)
