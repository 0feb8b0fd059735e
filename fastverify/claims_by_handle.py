"""``sessions.session_claims``: the claims of any session, by its handle; no request is involved.

What is changed is in the store at once, and in the client's next access token. Written once, as steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import Unauthorised
from .session_claims import AUTH_TIME, SessionClaim, Validators, check, fetched, given
from .steps import Steps, run, run_async

if TYPE_CHECKING:
    from .manager import AsyncSessions, Sessions


class _ClaimsByHandle:
    def __init__(self, sessions: Sessions | AsyncSessions) -> None:
        self._sessions = sessions

    def _fetch_and_set(self, handle: str, claim: SessionClaim) -> Steps[bool]:
        info = yield self._sessions.info(handle)
        if info is None:
            return False
        return (yield from self._merge(handle, (yield from fetched(claim, info, self._sessions.now()))))

    def _get(self, handle: str, claim: SessionClaim) -> Steps[Any]:
        info = yield self._sessions.info(handle)
        return None if info is None else claim.value_in(info.payload)

    def _validate(self, handle: str, validators: Validators) -> Steps[list[dict[str, Any]]]:
        info = yield self._sessions.info(handle)
        if info is None:
            raise Unauthorised("there is no such session")
        return (yield from check(info, validators, self._sessions.now(), lambda patch: self._merge(handle, patch)))

    def _set(self, handle: str, claim: SessionClaim, value: Any) -> Steps[bool]:
        return (yield from self._merge(handle, given(claim, value, self._sessions.now())))

    def _reauthenticated(self, handle: str) -> Steps[bool]:
        return (yield from self._merge(handle, {AUTH_TIME: int(self._sessions.now())}))

    def _merge(self, handle: str, patch: dict[str, Any]) -> Steps[bool]:
        return bool((yield self._sessions.merge_payload(handle, patch)))


class SessionClaims(_ClaimsByHandle):
    """Session claims by handle, for blocking code. Handles of sessions that are not there are False, or None."""

    def fetch_and_set(self, handle: str, claim: SessionClaim) -> bool:
        """Fetch the claim's value and put it into the payload; where there is none, what is there stays."""
        return run(self._fetch_and_set(handle, claim))

    def set(self, handle: str, claim: SessionClaim, value: Any) -> bool:
        """Put a value into the payload, as if it had been fetched now. Raises ValueError for None."""
        return run(self._set(handle, claim, value))

    def get(self, handle: str, claim: SessionClaim) -> Any:
        """The claim's value in the store; None: there is none."""
        return run(self._get(handle, claim))

    def remove(self, handle: str, claim: SessionClaim) -> bool:
        """Take the claim out of the payload."""
        return run(self._merge(handle, {claim.key: None}))

    def validate(self, handle: str, validators: Validators) -> list[dict[str, Any]]:
        """What fails, after refetching what is missing or too old; as ``ClaimValidationFailed.failures``.

        Raises:
            Unauthorised: there is no such session. An empty list would say that all is well with it.
        """
        return run(self._validate(handle, validators))

    def reauthenticated(self, handle: str) -> bool:
        """The user has just shown who they are: ``authenticated_within`` counts from now."""
        return run(self._reauthenticated(handle))


class AsyncSessionClaims(_ClaimsByHandle):
    """As ``SessionClaims``, for asyncio; fetchers and validators may be asynchronous."""

    async def fetch_and_set(self, handle: str, claim: SessionClaim) -> bool:
        """As ``SessionClaims.fetch_and_set``."""
        return await run_async(self._fetch_and_set(handle, claim))

    async def set(self, handle: str, claim: SessionClaim, value: Any) -> bool:
        """As ``SessionClaims.set``."""
        return await run_async(self._set(handle, claim, value))

    async def get(self, handle: str, claim: SessionClaim) -> Any:
        """As ``SessionClaims.get``."""
        return await run_async(self._get(handle, claim))

    async def remove(self, handle: str, claim: SessionClaim) -> bool:
        """As ``SessionClaims.remove``."""
        return await run_async(self._merge(handle, {claim.key: None}))

    async def validate(self, handle: str, validators: Validators) -> list[dict[str, Any]]:
        """As ``SessionClaims.validate``."""
        return await run_async(self._validate(handle, validators))

    async def reauthenticated(self, handle: str) -> bool:
        """As ``SessionClaims.reauthenticated``."""
        return await run_async(self._reauthenticated(handle))
