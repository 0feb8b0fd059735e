"""One request's dealings with sessions: what it may ask of them, and what its response will carry of them.

For asynchronous frameworks. It joins two halves that do not know each other: the rules (``transport``, pure) and the
sessions (``manager``, which do I/O). Every request has a context of its own; nothing is shared between requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Unpack

from .._core import Claims
from ..config import TransferMethod
from ..errors import ConfigError, FastVerifyError, SessionError, StoreUnavailable, Unauthorised
from ..manager import AsyncSessions, CreateOptions
from ..session import Session
from ..transport import Incoming, Outgoing, Rules, Transport
from ..verifier import SessionVerifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
#: Where a scope holds the session.
SESSION = "fastverify.session"


class GatewayContext:
    """One request that is only verified."""

    __slots__ = ("_scope", "_verifier", "error", "incoming", "rules", "started")

    def __init__(self, verifier: SessionVerifier | AsyncSessions, rules: Rules, scope: Scope) -> None:
        self._verifier = verifier
        self._scope = scope
        self.rules = rules
        self.incoming = Incoming(scope["headers"])
        #: Why there is no session, where it was looked for.
        self.error: FastVerifyError | None = None
        #: Whether the response has begun, so that nothing more can be put on it.
        self.started = False

    def identify(self, check_anti_csrf: bool | None = None) -> tuple[Session, TransferMethod]:
        """The verified session of this request, and what carried it.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``verify`` does; ``clear_tokens`` is False if none came.
        """
        is_socket = self._scope["type"] == "websocket"
        http_method = "GET" if is_socket else self._scope["method"]
        for token, transfer in self.rules.access_tokens(self.incoming, http_method):
            try:
                session = self._verifier.verify(token)
            except Unauthorised as error:
                if error.clear_tokens:
                    raise
                continue  # not a session's token; the next may be
            if is_socket:
                self.rules.admit_socket(self.incoming, transfer)
            self.rules.check_anti_csrf(self.incoming, session, transfer, http_method, check_anti_csrf)
            return session, transfer
        raise Unauthorised("no session token came with the request", clear_tokens=False)

    def look(self) -> Any:
        """The session, or None; ``error`` then says why."""
        try:
            return self.identify()[0]
        except (SessionError, StoreUnavailable) as error:
            self.error = error
            return None

    def failed(self, error: FastVerifyError) -> None:
        """Clear what an error clears: nothing here, for a gateway does not know where the cookies live."""

    def write(self, message: Message) -> Message:
        """The message that starts the response, with what this request has queued in its headers."""
        return message


class RequestContext(GatewayContext):
    """One request's dealings with sessions, and what its response will carry of them."""

    __slots__ = ("_current", "_outgoing", "sessions", "transport")

    def __init__(self, sessions: AsyncSessions, transport: Transport, scope: Scope) -> None:
        super().__init__(sessions, transport, scope)
        self.sessions = sessions
        self.transport = transport
        self._outgoing: Outgoing | None = None
        self._current: RequestSession | None = None

    @property
    def outgoing(self) -> Outgoing:
        """What the response will carry; most requests change nothing and never make one."""
        if self._outgoing is None:
            self._outgoing = Outgoing(self.transport, self.incoming)
        return self._outgoing

    def look(self) -> RequestSession | None:
        try:
            return self._register(*self.identify())
        except (SessionError, StoreUnavailable) as error:
            self.error = error
            return None

    async def session(
        self, *, required: bool = True, check_anti_csrf: bool | None = None, strict: bool = False
    ) -> RequestSession | None:
        """The session of this request.

        Args:
            required: False: None where no session's token came. One that has expired, or lacks its proof against CSRF,
                still raises.
            check_anti_csrf: None: for every method but GET.
            strict: also ask the store whether the session lives.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: what the client is to be told.
        """
        with self._clearing():
            try:
                session, transfer = self.identify(check_anti_csrf)
                if strict:
                    session = await self.sessions.verify_strict(session.access_token)
                return self._register(session, transfer)
            except Unauthorised as error:
                if required or error.clear_tokens:
                    raise
                return None

    async def sign_in(self, user_id: str, **create: Unpack[CreateOptions]) -> RequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Args:
            user_id: the user.
            create: as for ``AsyncSessions.create``. Unless given, ``previous`` is the request's former session, and
                ``anti_csrf`` what the configuration says.

        Raises:
            StoreUnavailable: nobody has been signed in.
            ConfigError: the payload is too large for a cookie, or browsers would refuse the cookies.
        """
        self._check_open()
        transfer = self.transport.creation_method(self.incoming)
        create.setdefault("anti_csrf", self.transport.binds_anti_csrf(transfer))
        if "previous" not in create:
            create["previous"] = self._former_handle()
        issued = await self.sessions.create(user_id, **create)
        try:
            self.outgoing.created(issued, transfer)
        except ConfigError:
            await self.sessions.revoke(issued.session.handle)
            raise
        return self._register(issued.session, transfer)

    async def refresh(self) -> RequestSession:
        """Exchange the refresh token of this request; the new tokens go as it came.

        Raises:
            Unauthorised, DuplicateCookies, TokenTheftDetected, TooManyRefreshes, StoreUnavailable: as ``refresh`` does.
            ConfigError: the payload has grown too large for a cookie.
        """
        self._check_open()
        with self._clearing():
            token, transfer = self._refresh_token()
            issued = await self.sessions.refresh(token, anti_csrf_token=self.incoming.get(b"anti-csrf"))
        self.outgoing.refreshed(issued, transfer)
        return self._register(issued.session, transfer)

    async def sign_out(self) -> None:
        """End the session of this request.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``session`` does.
        """
        with self._clearing():
            session, transfer = self.identify()
            if transfer == "cookie":
                self.transport.refuse_cross_site(self.incoming)
        await self._register(session, transfer).revoke()

    def failed(self, error: FastVerifyError) -> None:
        self.outgoing.failed(error)

    def write(self, message: Message) -> Message:
        if self._outgoing is None:
            return message
        return {**message, "headers": self._outgoing.write(message.get("headers", ()))}

    def _refresh_token(self) -> tuple[str, TransferMethod]:
        presented = self.transport.refresh_tokens(self.incoming)
        token, transfer = presented[0]
        if len(presented) > 1:
            token = self.sessions.newest_refresh_token([token for token, _ in presented])
        return token, transfer

    def _former_handle(self) -> str | None:
        """The handle of the session that a sign-in replaces; a token that does not verify says nothing."""
        if self._current is not None:
            return self._current.handle
        try:
            return self.identify(check_anti_csrf=False)[0].handle
        except (SessionError, StoreUnavailable):
            return None

    def _register(self, session: Session, transfer: TransferMethod) -> RequestSession:
        self._current = self._scope[SESSION] = RequestSession(self, session, transfer)
        return self._current

    def _check_open(self) -> None:
        if self.started:
            raise RuntimeError("the response has begun: new tokens cannot reach the client any more")

    @contextmanager
    def _clearing(self) -> Iterator[None]:
        """Clearing is queued before anybody can handle the error, so that no handler can forget it."""
        try:
            yield
        except SessionError as error:
            self.failed(error)
            raise


class RequestSession:
    """The session of one request: what it changes goes to the store and to this request's response."""

    __slots__ = ("_context", "_transfer", "session")

    def __init__(self, context: RequestContext, session: Session, transfer: TransferMethod) -> None:
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

    async def merge_payload(self, patch: Mapping[str, Any]) -> None:
        """Merge into the payload; None deletes a member. The new access token goes to this request's response.

        Raises:
            Unauthorised: the session has ended.
            StoreUnavailable: it is not known whether anything has changed.
            ValueError: the payload is not JSON or grows too large. Nothing has changed then.
        """
        context, former = self._context, self.session
        with context._clearing():
            issued = await context.sessions.reissue(former, patch)
        if issued is None:  # the access token has just expired; the client will refresh, and see the change
            return
        self.session = issued.session
        if context.started:
            return
        try:
            context.outgoing.reissued(issued, self._transfer)
        except ConfigError:
            self.session = former
            await context.sessions.merge_payload(self.handle, {name: former.payload.get(name) for name in patch})
            raise

    async def revoke(self) -> bool:
        """End the session, and clear its tokens in this request's response; whether it was still there."""
        was_there = await self._context.sessions.revoke(self.handle)
        self._context.outgoing.clear(self._transfer)
        return was_there

    async def get_data(self) -> Any:
        """The data kept on the server. Raises Unauthorised if the session has ended."""
        with self._context._clearing():
            info = await self._context.sessions.info(self.handle)
            if info is None:
                raise Unauthorised("the session has ended")
        return info.data

    async def set_data(self, data: Any) -> None:
        """Replace the data kept on the server. Raises Unauthorised if the session has ended."""
        with self._context._clearing():
            if not await self._context.sessions.set_data(self.handle, data):
                raise Unauthorised("the session has ended")

    def __repr__(self) -> str:
        return f"<RequestSession of {self.session!r}>"
