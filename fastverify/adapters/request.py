"""One request's dealings with sessions: what it may ask of them, and what its response will carry of them.

It joins two halves that do not know each other: the rules (``transport``, pure) and the sessions (``manager``, which do
I/O). Every request has a context of its own; nothing is shared between requests. What a context does is written once,
as steps; ``RequestContext`` awaits them for asynchronous frameworks, ``SyncRequestContext`` runs them for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar, TypeAlias, TypeVar, Unpack, cast

from ..config import TransferMethod
from ..device import device_from_request
from ..errors import (
    ConfigError,
    FastVerifyError,
    SessionError,
    StoreUnavailable,
    Unauthorised,
)
from ..manager import AsyncSessions, Sessions
from ..options import CreateOptions, GuestOptions, ImpersonateOptions, PromoteOptions
from ..outgoing import Outgoing
from ..session import Issued, Session
from ..session_claims import (
    GeneralValidators,
    RouteValidators,
    chosen,
)
from ..steps import Steps, run, run_async
from ..transport import Header, Incoming, Presented, Rules, Transport
from ..verifier import SessionVerifier
from .request_session import RequestSession, RequestSessionSteps, SyncRequestSession

C = TypeVar("C", bound="RequestSteps")

#: Given the headers and the method: the session and what carried it, where that leaves nothing to decide.
Find: TypeAlias = Callable[[Any, str], tuple[Any, TransferMethod] | None]

#: Given the request's headers and a refresh token that is not ours: what ``ask`` of ``Sessions.exchange`` returns. It
#: may be asynchronous where the sessions are.
AskOtherIssuer: TypeAlias = Callable[[Incoming, str], Any]

#: Where a request's keep holds its session, and its context.
SESSION = "fastverify.session"
CONTEXT = "fastverify"


class GatewayContext:
    """One request that is only verified.

    Args:
        verifier: what verifies.
        rules: how sessions arrive.
        find: the rules' short cut, or None.
        headers: raw pairs with lower-case names.
        http_method: of the request.
        keep: the request's own mapping, such as an ASGI scope: its session and this context are put there.
        is_socket: the request is a WebSocket handshake.
    """

    # One of these for every request: what most requests leave alone is an attribute of the class, and costs nothing.

    #: Why there is no session, where it was looked for.
    error: FastVerifyError | None = None
    #: Whether the response has begun, so that nothing more can be put on it.
    started = False
    #: Whether the response is to carry anything of sessions.
    has_queued = False
    _incoming: Incoming | None = None

    def __init__(
        self,
        verifier: SessionVerifier | Sessions | AsyncSessions,
        rules: Rules,
        find: Find | None,
        headers: Iterable[Header],
        http_method: str,
        keep: MutableMapping[str, Any],
        is_socket: bool = False,
    ) -> None:
        self._verifier = verifier
        self._find = find
        self._headers = headers
        self._http_method = http_method
        self._is_socket = is_socket
        self._keep = keep
        self.rules = rules
        keep[CONTEXT] = self

    @property
    def incoming(self) -> Incoming:
        """What the request says about sessions; most requests need no more of it than the short cut reads."""
        if self._incoming is None:
            self._incoming = Incoming(self._headers)
        return self._incoming

    def identify(self, check_anti_csrf: bool | None = None) -> tuple[Session, TransferMethod]:
        """The verified session of this request, and what carried it.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``verify`` does; ``clear_tokens`` is False if none came.
        """
        if self._find is not None and check_anti_csrf is None and not self._is_socket:
            found = self._find(self._headers, self._http_method)
            if found is not None:
                return found
        for token, transfer in self.rules.access_tokens(self.incoming, self._http_method):
            try:
                session = self._verifier.verify(token)
            except Unauthorised as error:
                if error.clear_tokens:
                    raise
                continue  # not a session's token; the next may be
            if self._is_socket:
                self.rules.admit_socket(self.incoming, transfer)
            self.rules.check_anti_csrf(self.incoming, session, transfer, self._http_method, check_anti_csrf)
            return session, transfer
        raise Unauthorised("no session token came with the request", clear_tokens=False)

    def look(self) -> Any:
        """Put the session, or None, into the request's keep, and return it; ``error`` then says why there is none."""
        session = None
        try:
            session = self._found(*self.identify())
        except (SessionError, StoreUnavailable) as error:
            self.error = error
        self._keep[SESSION] = session
        return session

    def look_steps(self) -> Steps[None]:
        """``look``, and the validators of the application: none here, for a gateway could not refetch their claims."""
        self.look()
        yield from ()

    def failed(self, error: FastVerifyError) -> None:
        """Clear what an error clears: nothing here, for a gateway does not know where the cookies live."""

    def write(self, headers: Iterable[Header]) -> list[Header]:
        """The headers of the response, with what this request has queued."""
        return list(headers)

    def close(self) -> None:
        """The request is over: let go of what refers back to this.

        A cycle of a request, its context and its session would wait for the collector, and requests by the thousand
        would lie about until then: that costs more than all that is done for a request here.
        """
        self._keep, self.error = {}, None

    def _found(self, session: Session, transfer: TransferMethod) -> Any:
        self._verifier.note_seen(session)
        return session


def require_session(keep: Mapping[str, Any]) -> Any:
    """The session that an eager ``SessionMiddleware`` has found: of a request, or in a gateway the Session itself.

    Args:
        keep: the ASGI scope, or the WSGI environ.

    Raises:
        Unauthorised, TryRefreshToken, ClaimValidationFailed, StoreUnavailable: why there is none; leave it to the
            middleware to answer.
    """
    session = keep[SESSION]
    if session is None:
        raise keep[CONTEXT].error
    return session


class RequestSteps(GatewayContext):
    """What a request may ask of a session service, as steps. The two classes below take them."""

    #: The session that was found or started last; None: none yet.
    current: Any = None
    _outgoing: Outgoing | None = None
    _session_type: ClassVar[type[RequestSessionSteps]]

    def __init__(
        self,
        sessions: Sessions | AsyncSessions,
        transport: Transport,
        find: Find | None,
        headers: Iterable[Header],
        http_method: str,
        keep: MutableMapping[str, Any],
        is_socket: bool = False,
        validators: GeneralValidators = (),
        strict: bool = False,
        ask_other_issuer: AskOtherIssuer | None = None,
    ) -> None:
        super().__init__(sessions, transport, find, headers, http_method, keep, is_socket)
        self._ask_other_issuer = ask_other_issuer
        self._validators = validators
        self._strict = strict
        self.sessions = sessions
        self.transport = transport

    @property
    def outgoing(self) -> Outgoing:
        """What the response will carry; most requests change nothing and never make one."""
        if self._outgoing is None:
            self._outgoing = Outgoing(self.transport, self.incoming)
            self.has_queued = True
        return self._outgoing

    def failed(self, error: FastVerifyError) -> None:
        self.outgoing.failed(error)

    def write(self, headers: Iterable[Header]) -> list[Header]:
        outgoing = self.outgoing
        # A sign-in beside this request may have ended the session meanwhile: ours must not overwrite its tokens.
        if outgoing.handle is not None and self.sessions.gateway.has_ended(outgoing.handle):
            outgoing.drop()
        return outgoing.write(headers)

    def close(self) -> None:
        self._keep, self.error, self.current = {}, None, None

    def turned(self, kind: type[C], sessions: Any) -> C:
        """The same request for code of the other kind, asynchronous or blocking; both write one response.

        Args:
            kind: of the new context, which takes this one's place in the request's keep.
            sessions: whose calls are of that kind.
        """
        how = self._http_method, self._keep, self._is_socket, self._validators, self._strict, self._ask_other_issuer
        other = kind(sessions, self.transport, self._find, self._headers, *how)
        other._incoming, other._outgoing, other.has_queued = self.incoming, self.outgoing, True
        other.error, other.started = self.error, self.started
        if self.current is not None:
            other._found(self.current.session, self.current._transfer)
        return other

    def session_steps(
        self, required: bool, check_anti_csrf: bool | None, strict: bool | None, validators: RouteValidators | None
    ) -> Steps[Any]:
        """``session``."""
        with self.clearing():
            try:
                session, transfer = self.identify(check_anti_csrf)
                if self._strict if strict is None else strict:
                    session = yield from self._recheck_steps(session, transfer)
            except Unauthorised as error:
                if required or error.clear_tokens:
                    raise
                return None
        found = self._session_type(self, session, transfer)
        yield from self._check_claims(found, validators)
        return self._keep_session(found)

    def look_steps(self) -> Steps[None]:
        session = self.look()
        if session is not None:
            try:
                if self._strict:
                    transfer = session._transfer
                    session = self._found((yield from self._recheck_steps(session.session, transfer)), transfer)
                yield from self._check_claims(session, None)
            except (SessionError, StoreUnavailable) as error:
                self.error = error
                self._keep_session(None)

    def sign_in_steps(self, user_id: str, create: CreateOptions) -> Steps[Any]:
        """``sign_in``."""
        transfer = self._creation_transfer(create)
        issued = None
        if "previous" not in create:
            former = self._former()
            if former is not None and former.is_guest:
                with suppress(Unauthorised):  # it has ended: there is nothing to keep
                    issued = yield self.sessions.promote(former, user_id, **cast(PromoteOptions, create))
            elif former is not None:
                create["previous"] = former.handle
        if issued is None:
            issued = yield self.sessions.create(user_id, **create)
        return (yield from self._deliver_steps(issued, transfer))

    def sign_in_guest_steps(self, payload: Mapping[str, Any] | None, options: GuestOptions) -> Steps[Any]:
        """``sign_in_guest``."""
        transfer = self._creation_transfer(options)
        if "previous" not in options and (former := self._former()) is not None:
            options["previous"] = former.handle
        issued = yield self.sessions.guest(payload, **options)
        return (yield from self._deliver_steps(issued, transfer))

    def _creation_transfer(self, options: CreateOptions | GuestOptions) -> TransferMethod:
        """How a new session's tokens are to go; what follows from that is put into its options."""
        self._check_open()
        transfer = self.transport.creation_method(self.incoming)
        options.setdefault("anti_csrf", self.transport.binds_anti_csrf(transfer))
        options.setdefault("device", self.device())
        return transfer

    def _deliver_steps(self, issued: Issued, transfer: TransferMethod) -> Steps[Any]:
        """Put a new session's tokens on the response; where that cannot be, there is no session."""
        try:
            self.outgoing.created(issued, transfer)
        except ConfigError:
            yield self.sessions.revoke(issued.session.handle)
            raise
        return self._found(issued.session, transfer)

    def device(self) -> dict[str, str]:
        """``user_agent`` and ``address`` of this request, those that are known; what ``sign_in`` keeps by default."""
        return device_from_request(self.incoming, _peer(self._keep), self.sessions.config.trusted_proxies)

    def refresh_steps(self) -> Steps[Any]:
        """``refresh``."""
        self._check_open()
        with self.clearing():
            other, ask = self._other_refresh_token(), self._ask_other_issuer
            if other is not None and ask is not None:
                transfer = other.transfer
                bound = self.transport.binds_anti_csrf(transfer)
                issued = yield self.sessions.exchange(other.token, partial(ask, self.incoming), anti_csrf=bound)
                self.outgoing.exchanged(issued, transfer)
            else:
                token, transfer = self._refresh_token()
                issued = yield self.sessions.refresh(token, anti_csrf_token=self.incoming.get(b"anti-csrf"))
                self.outgoing.refreshed(issued, transfer)
        return self._found(issued.session, transfer)

    def sign_out_steps(self) -> Steps[None]:
        """``sign_out``."""
        with self.clearing():
            session, transfer = self.identify(check_anti_csrf=True)
        info = (yield self.sessions.info(session.handle)) if session.actor is not None else None
        if info is not None and info.actor_handle is not None:  # nobody will have its tokens any more
            yield self.sessions.revoke(info.actor_handle, why="signed_out")
        yield from self._found(session, transfer).revoke_steps("signed_out")

    def impersonate_steps(self, user_id: str, options: ImpersonateOptions) -> Steps[Any]:
        """``impersonate``."""
        self._check_open()
        with self.clearing():
            session, transfer = self._acting()
            options.setdefault("anti_csrf", self.transport.binds_anti_csrf(transfer))
            options.setdefault("device", self.device())
            issued = yield self.sessions.impersonate(session, user_id, **options)
        return (yield from self._deliver_steps(issued, transfer))

    def stop_impersonating_steps(self) -> Steps[Any]:
        """``stop_impersonating``."""
        self._check_open()
        with self.clearing():
            try:
                session, transfer = self._acting()
            except Unauthorised:
                left = self._left_impersonation()
                if left is None:
                    raise
                session, transfer = left
            self.current = None  # this very call ends it, and so it is nobody else who is about to sign in
            bound = self.transport.binds_anti_csrf(transfer)
            issued = yield self.sessions.stop_impersonating(session, anti_csrf=bound)
        self.outgoing.created(issued, transfer)
        return self._found(issued.session, transfer)

    def _acting(self) -> tuple[Session, TransferMethod]:
        """The session of this request that is to act, and what carried it."""
        if self.current is not None:
            return self.current.session, self.current._transfer
        return self.identify(check_anti_csrf=True)

    def _left_impersonation(self) -> tuple[Session, TransferMethod] | None:
        """The session that this request came with, if a call has stopped its impersonation whose reply may be lost."""
        for token, transfer in self.rules.access_tokens(self.incoming, self._http_method):
            if (session := self.sessions.left_impersonation(token)) is not None:
                self.rules.check_anti_csrf(self.incoming, session, transfer, self._http_method, True)
                return session, transfer
        return None

    def _recheck_steps(self, session: Session, transfer: TransferMethod) -> Steps[Session]:
        issued = yield self.sessions.recheck(session)
        if issued is None:
            return session
        if not self.started:
            self.outgoing.reissued(issued, transfer)
        return issued.session  # type: ignore[no-any-return]

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Clearing is queued before anybody can handle the error, so that no handler can forget it."""
        try:
            yield
        except SessionError as error:
            if isinstance(error, Unauthorised) and self._ended_meanwhile():
                error.clear_tokens = False  # who is not signed in anew is told by the refresh that the client now tries
            self.failed(error)
            raise

    def _ended_meanwhile(self) -> bool:
        """Whether this request had a session, and has none any more."""
        return self.current is not None and self.sessions.gateway.has_ended(self.current.handle)

    def _refresh_token(self) -> tuple[str, TransferMethod]:
        presented = self.transport.refresh_tokens(self.incoming)
        token, transfer = presented[0]
        if len(presented) > 1:
            token = self.sessions.newest_refresh_token([token for token, _ in presented])
        return token, transfer

    def _other_refresh_token(self) -> Presented | None:
        if self._ask_other_issuer is None:
            return None
        return self.transport.other_refresh_token(self.incoming, self.sessions.is_refresh_token)

    def _former(self) -> Session | None:
        """The session that a sign-in replaces; a token that does not verify says nothing, unless it was a guest's."""
        if self.current is not None:
            return cast(Session, self.current.session)
        try:
            return self.identify(check_anti_csrf=False)[0]
        except (SessionError, StoreUnavailable):
            pass
        with suppress(SessionError):
            for token, _ in self.rules.access_tokens(self.incoming, self._http_method):
                if (guest := self.sessions.lapsed_guest(token)) is not None:
                    return guest
        return None

    def _check_claims(self, session: RequestSessionSteps, validators: RouteValidators | None) -> Steps[None]:
        if validators is not None or self._validators:
            yield from session.assert_claims_steps((yield from chosen(validators, self._validators, session)))

    def _found(self, session: Session, transfer: TransferMethod) -> Any:
        return self._keep_session(self._session_type(self, session, transfer))

    def _keep_session(self, session: Any) -> Any:
        if session is not None:
            self.sessions.note_seen(session.session)
        self.current = self._keep[SESSION] = session
        return session

    def _check_open(self) -> None:
        if self.started:
            raise RuntimeError("the response has begun: new tokens cannot reach the client any more")


class RequestContext(RequestSteps):
    """One request's dealings with sessions, and what its response will carry of them."""

    _session_type = RequestSession

    async def session(
        self,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> RequestSession | None:
        """The session of this request.

        Args:
            required: False: None where no session's token came. One that has expired, or lacks its proof against CSRF,
                still raises.
            check_anti_csrf: None: for every method but GET.
            strict: also ask the store whether the session lives; None: as the application says, which is no unless it
                says otherwise. A payload that has been changed elsewhere is in this session, and in a new access token
                in the response.
            validators: of its claims: a list in the place of the application's, or a function of these and the session
                that returns one; None: the application's.

        Raises:
            Unauthorised, TryRefreshToken, ClaimValidationFailed, StoreUnavailable: what the client is to be told.
        """
        steps = self.session_steps(required, check_anti_csrf, strict, validators)
        session: RequestSession | None = await run_async(steps)
        return session

    async def sign_in(self, user_id: str, **create: Unpack[CreateOptions]) -> RequestSession:
        """Start a session for a user whom you have authenticated; its tokens go to this request's response.

        Args:
            user_id: the user.
            create: as for ``AsyncSessions.create``. Unless given, ``previous`` is the request's former session,
                ``anti_csrf`` what the configuration says, and ``device`` the request's user agent and address. If the
                former session is a guest's, and no ``previous`` is given, it is promoted: its payload and data stay
                (``AsyncSessions.promote``).

        Raises:
            StoreUnavailable: nobody has been signed in.
            ConfigError: the payload is too large for a cookie, or browsers would refuse the cookies.
        """
        session: RequestSession = await run_async(self.sign_in_steps(user_id, create))
        return session

    async def sign_in_guest(
        self, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]
    ) -> RequestSession:
        """Start an anonymous session; its tokens go to this request's response. ``sign_in`` promotes it later.

        Args:
            payload: of the session.
            options: as for ``AsyncSessions.guest``. Unless given, ``previous`` is the request's former session.

        Raises:
            StoreUnavailable, ConfigError: as ``sign_in``.
        """
        session: RequestSession = await run_async(self.sign_in_guest_steps(payload, options))
        return session

    async def refresh(self) -> RequestSession:
        """Exchange the refresh token of this request; the new tokens go as it came.

        Raises:
            Unauthorised, DuplicateCookies, TokenTheftDetected, TooManyRefreshes, StoreUnavailable: as ``refresh`` does.
            ConfigError: the payload has grown too large for a cookie.
        """
        session: RequestSession = await run_async(self.refresh_steps())
        return session

    async def sign_out(self) -> None:
        """End the session of this request.

        Raises:
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``session`` does.
        """
        await run_async(self.sign_out_steps())

    async def impersonate(self, user_id: str, **options: Unpack[ImpersonateOptions]) -> RequestSession:
        """Let the user of this request's session act as another one; the new tokens go as the old ones came.

        Who may do this is yours to say, by the route's validators.

        Args:
            user_id: whom to act as.
            options: as for ``AsyncSessions.impersonate``. Unless given, ``anti_csrf`` is what the configuration says.

        Raises:
            ClaimValidationFailed: the session acts as somebody already, or is a guest's.
            Unauthorised, TryRefreshToken, StoreUnavailable: as ``session`` does.
            ConfigError: as ``sign_in``.
        """
        session: RequestSession = await run_async(self.impersonate_steps(user_id, options))
        return session

    async def stop_impersonating(self) -> RequestSession:
        """End this request's session, by which somebody acts as another user, and go on with that user's own.

        Raises:
            ClaimValidationFailed: nobody acts as another user by this session.
            Unauthorised: it has ended, or the actor's own has. All tokens are cleared.
            TryRefreshToken, TooManyRefreshes, StoreUnavailable: nothing has changed.
        """
        session: RequestSession = await run_async(self.stop_impersonating_steps())
        return session


class SyncRequestContext(RequestSteps):
    """As ``RequestContext``, for blocking frameworks."""

    _session_type = SyncRequestSession

    def session(
        self,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> SyncRequestSession | None:
        """As ``RequestContext.session``."""
        session: SyncRequestSession | None = run(self.session_steps(required, check_anti_csrf, strict, validators))
        return session

    def sign_in(self, user_id: str, **create: Unpack[CreateOptions]) -> SyncRequestSession:
        """As ``RequestContext.sign_in``."""
        session: SyncRequestSession = run(self.sign_in_steps(user_id, create))
        return session

    def sign_in_guest(
        self, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]
    ) -> SyncRequestSession:
        """As ``RequestContext.sign_in_guest``."""
        session: SyncRequestSession = run(self.sign_in_guest_steps(payload, options))
        return session

    def refresh(self) -> SyncRequestSession:
        """As ``RequestContext.refresh``."""
        session: SyncRequestSession = run(self.refresh_steps())
        return session

    def sign_out(self) -> None:
        """As ``RequestContext.sign_out``."""
        run(self.sign_out_steps())

    def impersonate(self, user_id: str, **options: Unpack[ImpersonateOptions]) -> SyncRequestSession:
        """As ``RequestContext.impersonate``."""
        session: SyncRequestSession = run(self.impersonate_steps(user_id, options))
        return session

    def stop_impersonating(self) -> SyncRequestSession:
        """As ``RequestContext.stop_impersonating``."""
        session: SyncRequestSession = run(self.stop_impersonating_steps())
        return session


def _peer(keep: Mapping[str, Any]) -> str | None:
    """The address at the other end: of an ASGI scope, a WSGI environ, or a Django request's attributes."""
    client = keep.get("client")
    address = client[0] if client else keep.get("META", keep).get("REMOTE_ADDR")
    return address if isinstance(address, str) else None
