"""Access tokens of another issuer, accepted as sessions until they expire: for moving away from it (docs/migrate).

They are verified as ours are: signature, ``exp``, issuer, structure, and the same table of revocations. The store knows
nothing of such a session, so whatever would ask it says *try refresh token*; the refresh makes it one of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ._core import Claims, RevocationTable, Verifier, parse_unverified
from .config import ForeignIssuer
from .errors import (
    FastVerifyError,
    InvalidClaim,
    InvalidSignature,
    InvalidToken,
    StoreUnavailable,
    UnknownKey,
    UnsupportedToken,
)
from .session import Session

#: What a verifier says of a token that another's key has signed. Two issuers may have given two keys one kid.
_OF_ANOTHER = (UnknownKey, UnsupportedToken, InvalidSignature)


class ForeignSessions:
    """Verifies the tokens of other issuers.

    Args:
        issuers: in the order in which they are asked.
        table: of revocations; its freshness counts, too.
        leeway, cache_size: as for ``Verifier``.
    """

    def __init__(
        self, issuers: Sequence[ForeignIssuer], table: RevocationTable, *, leeway: int, cache_size: int
    ) -> None:
        self._verifiers = [
            Verifier(
                one.keys,
                issuer=one.issuer,
                leeway=leeway,
                cache_size=cache_size,
                revocations=table,
                make_view=partial(_first_sight, one.access_token_lifetime),
            )
            for one in issuers
        ]

    def view(self, access_token: str | bytes, error: FastVerifyError) -> Session:
        """The session of a token that our own keys have refused.

        Args:
            access_token: as it came.
            error: what our own verifier says.

        Raises:
            FastVerifyError: that one, or what the issuer's verifier says of a token that is its own.
            StoreUnavailable: the issuer's keys are not loaded yet, or the revocations are too old.
        """
        final = error
        for verifier in self._verifiers if isinstance(error, _OF_ANOTHER) else ():
            try:
                session: Session = verifier.view(access_token)
            except (UnknownKey, UnsupportedToken):
                continue
            except InvalidSignature as theirs:
                final = theirs
            except InvalidClaim as theirs:
                if theirs.claim != "iss":
                    raise
                final = theirs
            except StoreUnavailable:
                if has_session(access_token):
                    raise
            else:
                return session
        raise final


def has_session(access_token: str | bytes) -> bool:
    """Whether a token has the structure of a session's, of any version. Its signature is NOT checked."""
    try:
        Session.from_foreign_claims(parse_unverified(access_token))
    except InvalidToken:
        return False
    return True


def _first_sight(lifetime: int, claims: Claims) -> Session:
    session = Session.from_foreign_claims(claims)
    # Revocations are kept for so long: a token that lives longer could outlive its own.
    if session.expires_at - session.issued_at > lifetime:
        raise InvalidClaim(f"lives longer than the {lifetime} s that are configured for its issuer", claim="exp")
    return session
