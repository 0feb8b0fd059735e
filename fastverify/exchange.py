"""Another issuer's refresh token exchanged, once, for a session of ours: for moving away from it (docs/migrate).

Theory of operation
-------------------
Only the other issuer can tell whom its refresh token belongs to, and the application asks it. It must be asked once for
a token: most issuers rotate, and take a token that is presented twice for stolen. But clients do present one twice: two
tabs refresh at the same moment, a reply is lost and the request repeated. So whoever comes first gets a turn, for at
most ``TURN_MS``; the others wait for what comes of it, and get the very same session and tokens, as with a refresh
token of ours (rotation.md). What came of it is remembered for the exchange window W, and at least a second. After that
the other issuer is asked again, which says no: the application has had it end its session. It does so at the very end,
when ours is there and known: until then every failure leaves the client with a refresh token that still works.

The store sees a hash of the token, never the token.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from . import flows
from .errors import StoreUnavailable, Unauthorised
from .session import Issued
from .steps import Steps

if TYPE_CHECKING:
    from .manager import AsyncSessions, Sessions
    from .options import CreateOptions

    #: The user, what ``create`` is given for them, and perhaps what ends the issuer's own session, called when ours is
    #: there. None: the issuer does not know the token.
    Owner: TypeAlias = tuple[str, CreateOptions] | tuple[str, CreateOptions, Callable[[], object]] | None
    #: Asks the other issuer about a refresh token.
    Ask: TypeAlias = Callable[[str], Owner | Awaitable[Owner]]

_log = logging.getLogger("fastverify.audit")

#: Longer ones are nobody's.
MAX_TOKEN = 8_192


def exchange_steps(
    sessions: Sessions | AsyncSessions, refresh_token: str, ask: Ask, defaults: CreateOptions
) -> Steps[Issued]:
    """``exchange``."""
    if not isinstance(refresh_token, str) or not 0 < len(refresh_token) <= MAX_TOKEN:
        raise Unauthorised("not a refresh token of anybody")
    gateway = sessions.gateway
    nonce = gateway._random(16).hex()
    digest = hashlib.sha256(refresh_token.encode("utf-8", "surrogatepass")).hexdigest()
    former = yield sessions._run(
        lambda: flows.claim_exchange(sessions._gateway.authority, digest, nonce, now=sessions.now())
    )
    if former is not None:
        return former  # type: ignore[no-any-return]
    try:
        owner = yield ask(refresh_token)
        if owner is None:
            raise Unauthorised("the other issuer does not know this refresh token")
        user_id, options, *end = owner
        issued: Issued = yield sessions.create(user_id, **{**defaults, **options})
    except GeneratorExit:
        raise
    except BaseException:  # cancelled, too: the next one may try
        yield from _settle_steps(sessions, digest, nonce, "")
        raise
    if not (yield from _settle_steps(sessions, digest, nonce, issued.session.handle)):
        # Somebody else has had a turn meanwhile, and perhaps made a session: two of one token there must not be.
        yield sessions.revoke(issued.session.handle)
        raise StoreUnavailable("the exchange took too long")
    for call in end:
        try:
            yield call()
        except Exception as error:  # the user is signed in, and must not be told otherwise
            _log.warning("the other issuer's session could not be ended: %s", type(error).__name__)
    return issued


def _settle_steps(sessions: Sessions | AsyncSessions, digest: str, nonce: str, handle: str) -> Steps[bool]:
    try:
        settled: bool = yield sessions._run(
            lambda: flows.settle_exchange(sessions._gateway.authority, digest, nonce, handle)
        )
    except StoreUnavailable:
        if handle:
            raise
        return False  # the turn ends by itself
    return settled
