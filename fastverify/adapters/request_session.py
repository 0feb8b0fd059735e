"""The session of one request: what it shows, and what it may be told to do. It changes the store and this response.

Written once, as steps; ``RequestSession`` awaits them for asynchronous frameworks, ``SyncRequestSession`` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._core import Claims
from ..config import TransferMethod
from ..errors import ClaimValidationFailed, ConfigError, TryRefreshToken, Unauthorised
from ..session import Session, SessionInfo
from ..session_claims import AUTH_TIME, SessionClaim, Validators, check, fetched, given
from ..steps import Steps, run, run_async

if TYPE_CHECKING:
    from .request import RequestSteps


class RequestSessionSteps:
    """The session of one request: its attributes, and what may be done with it as steps."""

    __slots__ = ("_context", "_transfer", "session")

    def __init__(self, context: RequestSteps, session: Session, transfer: TransferMethod) -> None:
        self._context = context
        self._transfer: TransferMethod = transfer
        #: The immutable value behind this; another one after ``merge_payload``.
        self.session = session

    @property
    def handle(self) -> str:
        """Stable id of the session."""
        return self.session.handle

    @property
    def user_id(self) -> str:
        """The user."""
        return self.session.user_id

    @property
    def is_guest(self) -> bool:
        """Whether nobody has signed in: ``user_id`` is then one that is nobody else's."""
        return self.session.is_guest

    @property
    def actor(self) -> str | None:
        """The user who acts as this one; None: nobody but the user."""
        return self.session.actor

    @property
    def login_id(self) -> str:
        """The login method's id of the user."""
        return self.session.login_id

    @property
    def tenant(self) -> str:
        """The tenant; ``public`` by default."""
        return self.session.tenant

    @property
    def payload(self) -> Mapping[str, Any]:
        """The application's claims."""
        return self.session.payload

    @property
    def access_token(self) -> str:
        """The access token, a secret."""
        return self.session.access_token

    @property
    def expires_at(self) -> int:
        """When the access token expires; seconds since the epoch."""
        return self.session.expires_at

    @property
    def issued_at(self) -> int:
        """When the access token was issued; seconds since the epoch."""
        return self.session.issued_at

    @property
    def claims(self) -> Claims:
        """The whole verified claims set."""
        return self.session.claims

    @property
    def foreign(self) -> bool:
        """Whether another issuer made it (``Config.also_accept``): the store knows nothing of it."""
        return self.session.foreign

    def get_claim(self, claim: SessionClaim) -> Any:
        """The claim's value in the payload; None: there is none. No I/O."""
        return claim.value_in(self.payload)

    def assert_claims_steps(self, validators: Validators) -> Steps[None]:
        """``assert_claims``."""
        failures = yield from check(self, validators, self._context.sessions.now(), self.merge_payload_steps)
        if failures:
            raise ClaimValidationFailed(failures)

    def fetch_and_set_claim_steps(self, claim: SessionClaim) -> Steps[None]:
        """``fetch_and_set_claim``."""
        patch = yield from fetched(claim, self, self._context.sessions.now())
        if patch:
            yield from self.merge_payload_steps(patch)

    def set_claim_steps(self, claim: SessionClaim, value: Any) -> Steps[None]:
        """``set_claim``."""
        yield from self.merge_payload_steps(given(claim, value, self._context.sessions.now()))

    def remove_claim_steps(self, claim: SessionClaim) -> Steps[None]:
        """``remove_claim``."""
        yield from self.merge_payload_steps({claim.key: None})

    def reauthenticated_steps(self) -> Steps[None]:
        """``reauthenticated``."""
        yield from self.merge_payload_steps({AUTH_TIME: int(self._context.sessions.now())})

    def merge_payload_steps(self, patch: Mapping[str, Any]) -> Steps[None]:
        """``merge_payload``."""
        context, former = self._context, self.session
        with context.clearing():
            issued = yield context.sessions.reissue(former, patch)
        if issued is None:  # the access token has just expired; the client will refresh, and see the change
            return
        self.session = issued.session
        if context.started:
            return
        try:
            context.outgoing.reissued(issued, self._transfer)
        except ConfigError:
            self.session = former
            yield context.sessions.merge_payload(self.handle, {name: former.payload.get(name) for name in patch})
            raise

    def move_to_steps(self, transfer: TransferMethod) -> Steps[None]:
        """``move_to``."""
        context = self._context
        context._check_open()
        transport = context.transport
        transport.check_move(context.incoming, transfer)
        if transfer == self._transfer:
            return
        with context.clearing():
            bound = transport.binds_anti_csrf(transfer)
            issued = yield context.sessions.redeliver(self.session, anti_csrf=bound)
        context.outgoing.moved(issued, transfer)
        self.session, self._transfer = issued.session, transfer

    def revoke_steps(self, why: str = "revoked") -> Steps[bool]:
        """``revoke``."""
        was_there = yield self._context.sessions.revoke(self.handle, why=why)
        self._context.outgoing.clear(self._transfer)
        return bool(was_there)

    def list_sessions_steps(self, tenant: str | None) -> Steps[list[SessionInfo]]:
        """``list_sessions``."""
        listed = yield self._context.sessions.list_sessions(self.user_id, tenant=tenant, current=self.handle)
        return listed  # type: ignore[no-any-return]

    def revoke_others_steps(self, tenant: str | None) -> Steps[list[str]]:
        """``revoke_others``."""
        ended = yield self._context.sessions.revoke_user(self.user_id, tenant=tenant, except_handle=self.handle)
        return ended  # type: ignore[no-any-return]

    def revoke_one_steps(self, handle: str) -> Steps[bool]:
        """``revoke_one``."""
        info = yield self._context.sessions.info(handle)
        if info is None or info.user_id != self.user_id:
            return False
        if info.handle == self.handle:
            return (yield from self.revoke_steps())
        return bool((yield self._context.sessions.revoke(info.handle)))

    def get_data_steps(self) -> Steps[Any]:
        """``get_data``."""
        with self._context.clearing():
            self._check_ours()
            info = yield self._context.sessions.info(self.handle)
            if info is None:
                raise Unauthorised("the session has ended")
        return info.data

    def set_data_steps(self, data: Any) -> Steps[None]:
        """``set_data``."""
        with self._context.clearing():
            self._check_ours()
            if not (yield self._context.sessions.set_data(self.handle, data)):
                raise Unauthorised("the session has ended")

    def _check_ours(self) -> None:
        if self.foreign:
            raise TryRefreshToken("try refresh token: the session is another issuer's, and the store does not know it")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.session!r}>"


class RequestSession(RequestSessionSteps):
    """The session of one request: what it changes goes to the store and to this request's response."""

    __slots__ = ()

    async def merge_payload(self, patch: Mapping[str, Any]) -> None:
        """Merge into the payload; None deletes a member. The new access token goes to this request's response.

        Raises:
            Unauthorised: the session has ended.
            StoreUnavailable: it is not known whether anything has changed.
            ValueError: the payload is not JSON or grows too large. Nothing has changed then.
        """
        await run_async(self.merge_payload_steps(patch))

    async def assert_claims(self, validators: Validators) -> None:
        """Demand what ``session(validators=...)`` does, in the middle of a request.

        Raises:
            ClaimValidationFailed: some fail. What has been refetched is in the response all the same.
            Unauthorised, StoreUnavailable, ValueError: as ``merge_payload`` does, and only if anything was refetched.
        """
        await run_async(self.assert_claims_steps(validators))

    async def fetch_and_set_claim(self, claim: SessionClaim) -> None:
        """Fetch the claim's value, and merge it. Where there is none, what is there stays."""
        await run_async(self.fetch_and_set_claim_steps(claim))

    async def set_claim(self, claim: SessionClaim, value: Any) -> None:
        """Merge a value, as if it had been fetched now."""
        await run_async(self.set_claim_steps(claim, value))

    async def remove_claim(self, claim: SessionClaim) -> None:
        """Take the claim out of the payload."""
        await run_async(self.remove_claim_steps(claim))

    async def reauthenticated(self) -> None:
        """The user has just shown who they are: ``authenticated_within`` counts from now."""
        await run_async(self.reauthenticated_steps())

    async def move_to(self, transfer: TransferMethod) -> None:
        """Let the session go on by ``"cookie"`` or ``"header"``: its tokens are in this response, others cleared.

        To scripts, "header" shows a refresh token that a cookie hid from them: do it where you would sign the user in.

        Raises:
            TryRefreshToken: the client has to refresh first; it then repeats the call by itself.
            Unauthorised, TooManyRefreshes, StoreUnavailable: as ``refresh`` does.
            ConfigError: tokens by this method are not read here, or browsers would not keep the cookies.
        """
        await run_async(self.move_to_steps(transfer))

    async def revoke(self) -> bool:
        """End the session, and clear its tokens in this request's response; whether it was still there."""
        return await run_async(self.revoke_steps())

    async def list_sessions(self, *, tenant: str | None = None) -> list[SessionInfo]:
        """The sessions of this session's user, of one tenant or all; ``current`` marks this one."""
        return await run_async(self.list_sessions_steps(tenant))

    async def revoke_others(self, *, tenant: str | None = None) -> list[str]:
        """End the user's other sessions, of one tenant or all; the handles of those that were there."""
        return await run_async(self.revoke_others_steps(tenant))

    async def revoke_one(self, handle: str) -> bool:
        """End one of the user's sessions; whether it was there. Another user's is as one that is not.

        Of this very session, its tokens are cleared in the response, too.
        """
        return await run_async(self.revoke_one_steps(handle))

    async def get_data(self) -> Any:
        """The data kept on the server. Raises Unauthorised if the session has ended."""
        return await run_async(self.get_data_steps())

    async def set_data(self, data: Any) -> None:
        """Replace the data kept on the server. Raises Unauthorised if the session has ended."""
        await run_async(self.set_data_steps(data))


class SyncRequestSession(RequestSessionSteps):
    """As ``RequestSession``, for blocking frameworks."""

    __slots__ = ()

    def merge_payload(self, patch: Mapping[str, Any]) -> None:
        """As ``RequestSession.merge_payload``."""
        run(self.merge_payload_steps(patch))

    def assert_claims(self, validators: Validators) -> None:
        """As ``RequestSession.assert_claims``."""
        run(self.assert_claims_steps(validators))

    def fetch_and_set_claim(self, claim: SessionClaim) -> None:
        """As ``RequestSession.fetch_and_set_claim``."""
        run(self.fetch_and_set_claim_steps(claim))

    def set_claim(self, claim: SessionClaim, value: Any) -> None:
        """As ``RequestSession.set_claim``."""
        run(self.set_claim_steps(claim, value))

    def remove_claim(self, claim: SessionClaim) -> None:
        """As ``RequestSession.remove_claim``."""
        run(self.remove_claim_steps(claim))

    def reauthenticated(self) -> None:
        """As ``RequestSession.reauthenticated``."""
        run(self.reauthenticated_steps())

    def move_to(self, transfer: TransferMethod) -> None:
        """As ``RequestSession.move_to``."""
        run(self.move_to_steps(transfer))

    def revoke(self) -> bool:
        """As ``RequestSession.revoke``."""
        return run(self.revoke_steps())

    def list_sessions(self, *, tenant: str | None = None) -> list[SessionInfo]:
        """As ``RequestSession.list_sessions``."""
        return run(self.list_sessions_steps(tenant))

    def revoke_others(self, *, tenant: str | None = None) -> list[str]:
        """As ``RequestSession.revoke_others``."""
        return run(self.revoke_others_steps(tenant))

    def revoke_one(self, handle: str) -> bool:
        """As ``RequestSession.revoke_one``."""
        return run(self.revoke_one_steps(handle))

    def get_data(self) -> Any:
        """As ``RequestSession.get_data``."""
        return run(self.get_data_steps())

    def set_data(self, data: Any) -> None:
        """As ``RequestSession.set_data``."""
        run(self.set_data_steps(data))
