"""Sessions and AsyncSessions: the whole life of a session, over the flows.

The two differ by ``await`` only. Verification is an ordinary function in both: it does no I/O.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from . import flows
from .claims_by_handle import AsyncSessionClaims, SessionClaims
from .config import Config
from .errors import (
    ConfigError,
    FastVerifyError,
)
from .events import Event, EventBatch, Happened, OnEvent
from .exchange import exchange_steps
from .flows import Wait
from .key_keeper import KeyKeeper
from .operations import Operations
from .options import CreateOptions, GuestOptions, ImpersonateOptions, Impersonation, PromoteOptions
from .session import Issued, Session, SessionInfo
from .steps import run, run_async
from .store import Flow, Store, drive, drive_async, open_store

if TYPE_CHECKING:
    from .exchange import Ask

T = TypeVar("T")

#: Seconds to wait for keys and revocations at the start, unless told otherwise.
WAIT = 10.0

_log = logging.getLogger("fastverify.events")


class Sessions(Operations):
    """The life of sessions, for blocking code. One object serves all threads."""

    def __init__(
        self, store: Store, config: Config, *, wait: float = WAIT, on_event: OnEvent | None = None, **sources: Any
    ) -> None:
        """Use ``connect``. ``sources`` are ``clock``, ``monotonic`` and ``random``, for tests."""
        if inspect.iscoroutinefunction(on_event):
            raise ConfigError("on_event", "is an asynchronous function, which only AsyncSessions can wait for")
        self._on_event = _callable_or_none(on_event)
        self._store = store
        self._patience = wait
        self._gateway = KeyKeeper(store, config, **sources)

    @classmethod
    def connect(cls, url: str, config: Config, *, wait: float = WAIT, on_event: OnEvent | None = None) -> Self:
        """Use the store at ``url``; returns when its keys and revocations are loaded.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://`` or
                ``embedded:///directory`` (docs/store.md).
            config: the settings.
            wait: seconds to wait; 0: return at once, and calls raise StoreUnavailable until ready.
            on_event: is called with each ``Event`` of this object's calls, in the call's thread, when it is done in the
                store; what it raises is logged, and of no other consequence (docs/events.md).

        Raises:
            ConfigError: the URL, the secret, an argument or the store's settings cannot be used.
            StoreUnavailable: not ready in time.
        """
        sessions = cls(open_store(url), config, wait=wait, on_event=on_event)
        sessions._gateway.start(wait)
        return sessions

    @property
    def session_claims(self) -> SessionClaims:
        """Session claims by handle."""
        return SessionClaims(self)

    def create(self, user_id: str, **options: Unpack[CreateOptions]) -> Issued:
        """Start a session for a user whom you have authenticated; options as in ``CreateOptions``.

        Raises:
            ValueError: an argument cannot be used, such as a payload that is not JSON or too large.
            StoreUnavailable: nothing was handed out.
        """
        flows.check_user(user_id)
        complete = run(self._built(user_id, options))
        return self._act(lambda happened: self._create(user_id, complete, happened))

    def guest(self, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]) -> Issued:
        """Start a session for somebody who has not signed in; options as in ``GuestOptions``.

        It is a session like any other: refreshed, revoked, listed, with a payload and data. Its user id,
        ``guest-<uuid>``, is no other session's, and ``Session.is_guest`` tells it by that.

        Raises:
            ValueError, StoreUnavailable: as ``create``.
        """
        user_id, given = self._new_guest(payload, options)
        complete = run(self._built(user_id, given))
        return self._act(lambda happened: self._create(user_id, complete, happened))

    def promote(self, guest_session: Session, user_id: str, **options: Unpack[PromoteOptions]) -> Issued:
        """The guest has signed in: start the user's session, with a new handle, and end the guest's.

        The guest's payload stays, under that of ``options``, and so do the data and the tenant unless others are given.
        Safe to repeat for ten minutes: the same call again hands out the same session, for as long as its client has
        not refreshed it; after that it starts another one, with the payload of the first.

        Args:
            guest_session: as verified, or as ``lapsed_guest`` returns it.
            user_id: whom you have authenticated.
            options: as in ``PromoteOptions``.

        Raises:
            Unauthorised: the guest's session has ended, and there is nothing to keep; ``create`` a session.
            ValueError: it is not a guest's, or as ``create``.
            StoreUnavailable: nothing was handed out; the same call is safe to repeat.
        """
        options.setdefault("tenant", guest_session.tenant)
        complete = run(self._built(user_id, options))
        return self._act(lambda happened: self._promote(guest_session, user_id, complete, happened))

    def impersonate(self, session: Session, user_id: str, **options: Unpack[ImpersonateOptions]) -> Issued:
        """Let the user of a session act as another one, for a time, in a session of that other user.

        Its payload says who acts, ``"act": {"sub": ...}`` (RFC 8693 section 4.1), and nothing else can. The actor's own
        session stays, and waits for ``stop_impersonating``; when it ends, so does this one: access tokens are refused
        as those of the actor's session are, and the refresh token at its next use. Who may do this is your decision.

        Args:
            session: the actor's, as verified.
            user_id: whom to act as.
            options: as in ``ImpersonateOptions``.

        Raises:
            ClaimValidationFailed: the session acts as somebody already, or is a guest's.
            Unauthorised: the actor's session has ended.
            TryRefreshToken: a failover was a moment ago; let the client refresh, and ask again.
            ValueError, StoreUnavailable: as ``create``.
        """
        how, given = Impersonation.taken_from(options)
        complete = run(self._built(user_id, given))
        return self._act(lambda happened: self._impersonate(session, user_id, how, complete, happened))

    def stop_impersonating(self, session: Session, *, anti_csrf: bool | None = None) -> Issued:
        """End a session that ``impersonate`` has started, and hand out the tokens of the actor's own.

        Whoever holds its access token becomes the actor by this: it is worth as much as the actor's. Safe to repeat
        for ``Config.exchange_seconds``.

        Args:
            session: as verified, or as ``left_impersonation`` returns it.
            anti_csrf: whether the actor's session is to be bound to an anti-CSRF token from now on; None: as it is.

        Raises:
            ClaimValidationFailed: nobody acts as another user by this session.
            Unauthorised: it has ended, or the actor's own has; then this one ends too.
            TooManyRefreshes: too often in a short time.
            StoreUnavailable: the same call is safe to repeat.
        """
        return self._act(lambda happened: self._stop_impersonating(session, anti_csrf, happened))

    def refresh(self, refresh_token: str, *, anti_csrf_token: str | None = None) -> Issued:
        """Exchange a refresh token (rotation.md).

        Raises:
            Unauthorised: there is no such session (any more), or the anti-CSRF token is not its own.
            TokenTheftDetected: the token had been exchanged before, outside the exchange window. The session is ended.
            TooManyRefreshes: try again after ``retry_after`` seconds.
            StoreUnavailable: nothing is known to have happened; the same call is safe to repeat.
        """
        self._shed(refresh_token)
        return self._act(lambda happened: self._refresh(refresh_token, anti_csrf_token, happened))

    def exchange(self, foreign_refresh_token: str, ask: Ask, **defaults: Unpack[CreateOptions]) -> Issued:
        """Exchange another issuer's refresh token for a session of ours; safe to repeat for the exchange window.

        Args:
            foreign_refresh_token: as the client sent it.
            ask: called with it, by one of all who present it at once. It asks the issuer whose it is, and returns None;
                or the user id, options as for ``create``, and a function that has the issuer end its own session. That
                is called once ours is there, and may be left out if the issuer has ended it before.
            defaults: options as for ``create``, where ``ask`` returns no others.

        Raises:
            Unauthorised: the issuer does not know it, or it was exchanged for a session that has ended or gone on.
            StoreUnavailable: another request is at it still; or it is not known what has happened.
        """
        return run(exchange_steps(self, foreign_refresh_token, ask, defaults))

    def verify_strict(
        self, access_token: str | bytes, *, anti_csrf_token: str | None = None, check_anti_csrf: bool = False
    ) -> Session:
        """``verify``, then ask the store whether the session lives: one trip. Raises what ``verify`` does."""
        session = self.verify(access_token, anti_csrf_token=anti_csrf_token, check_anti_csrf=check_anti_csrf)
        return self._run(lambda: flows.verify_strict(self._gateway.authority, session))

    def revoke(self, handle: str, *, wait: Wait = None, why: str = "revoked") -> bool:
        """End a session; whether it was there. Its tokens are refused here at once.

        Args:
            handle: of the session.
            wait: None: other verifiers refuse them within milliseconds, or a second where no hints reach them.
                ``"propagated"``: return when every verifier that still serves does. ``"replicated"``: return when a
                replica has it, so that a failover does not undo it; otherwise that is tried, and not insisted on.
            why: said by the event; a short text.

        Raises:
            StoreUnavailable: the session may have been ended or not, or ``wait`` was not fulfilled in time. The call is
                safe to repeat; it then returns False for what was ended before.
        """
        return bool(self._act(lambda happened: self._revoke_many((handle,), why, wait, happened)))

    def revoke_many(self, handles: Iterable[str], *, wait: Wait = None, why: str = "revoked") -> list[str]:
        """End sessions; the handles of those that were there. ``wait`` and ``why`` as in ``revoke``."""
        return self._act(lambda happened: self._revoke_many(handles, why, wait, happened))

    def revoke_user(
        self,
        user_id: str,
        *,
        tenant: str | None = None,
        except_handle: str | None = None,
        wait: Wait = None,
        why: str = "revoke_user",
    ) -> list[str]:
        """End a user's sessions, of one tenant or all, but for one; the handles of those that were there.

        ``wait`` and ``why`` as in ``revoke``.
        """
        return self._act(lambda happened: self._revoke_user(user_id, tenant, except_handle, why, wait, happened))

    def revoke_tenant(self, tenant: str, *, wait: Wait = None) -> None:
        """End every session of a tenant that there is now; ``wait`` as in ``revoke``.

        Access tokens from before are answered *try refresh token*, and their refresh tokens are refused.
        """
        self._act(lambda happened: self._revoke_tenant(tenant, wait, happened))

    def revoke_all(self, *, wait: Wait = None) -> None:
        """As ``revoke_tenant``, for every tenant."""
        self._act(lambda happened: self._revoke_all(wait, happened))

    def blacklist(self, access_token: str | bytes, *, wait: Wait = None) -> None:
        """Refuse one access token everywhere, and leave its session alone: the client refreshes.

        A token that is refused already, for example because it has expired, needs nothing. ``wait`` as in ``revoke``.

        Raises:
            Unauthorised: it is not a session's access token.
            StoreUnavailable: as ``revoke``; or whether the token is good cannot be told now.
        """
        self._act(lambda happened: self._blacklist(access_token, wait, happened))

    def handles(self, user_id: str, *, tenant: str | None = None) -> list[str]:
        """The handles of a user's sessions."""
        return self._run(lambda: flows.handles(self._gateway.authority, user_id, tenant=tenant))

    def list_sessions(
        self, user_id: str, *, tenant: str | None = None, current: str | None = None
    ) -> list[SessionInfo]:
        """What the store knows of each of a user's sessions; one call.

        Args:
            user_id: the user.
            tenant: of this one only.
            current: handle of the caller's own session, which is then marked as ``current``.
        """
        return self._run(lambda: flows.list_sessions(self._gateway.authority, user_id, tenant=tenant, current=current))

    def info(self, handle: str) -> SessionInfo | None:
        """What the store knows of a session; None when there is none."""
        return self._run(lambda: flows.info(self._gateway.authority, handle))

    def get_data(self, handle: str) -> Any:
        """The session data; None when there is no such session."""
        return self._run(lambda: flows.get_data(self._gateway.authority, handle))

    def set_data(self, handle: str, data: Any) -> bool:
        """Replace the session data; False when there is no such session. Raises ValueError if it is not JSON."""
        return self._run(lambda: flows.set_data(self._gateway.authority, handle, data))

    def merge_payload(self, handle: str, patch: Mapping[str, Any]) -> bool:
        """Merge into the payload: None deletes a member, the others stay; concurrent merges lose nothing.

        The client sees it with its next access token. False when there is no such session.

        Raises:
            ValueError: it is not JSON, or the payload would grow too large for an access token. Nothing is changed.
        """
        return self._run(
            lambda: flows.merge_payload(self._gateway.authority, handle, patch, now=self._gateway._clock())
        )

    def reissue(self, session: Session, patch: Mapping[str, Any]) -> Issued | None:
        """Merge into the payload and mint an access token that shows it, with the same expiry (wire.md section 3.4).

        The refresh token stays what it is, so ``refresh_token`` of the result is empty. None when the session's access
        token has expired meanwhile: the merge is kept, and the client's next refresh shows it.

        Raises:
            Unauthorised: the session has ended.
            ValueError: as ``merge_payload``.
        """
        return self._run(lambda: flows.reissue(self._gateway.authority, session, patch, now=self._gateway._clock()))

    def recheck(self, session: Session) -> Issued | None:
        """Ask the store whether a verified session lives, and for an access token that shows what its payload is now.

        None where the token shows it already, or has just expired.

        Raises:
            Unauthorised: the session has ended.
            StoreUnavailable: the store did not answer.
        """
        return self._run(lambda: flows.recheck(self._gateway.authority, session, now=self._gateway._clock()))

    def redeliver(self, session: Session, *, anti_csrf: bool) -> Issued:
        """Hand out the session's refresh token once more, to move the session to another transport.

        Whoever holds the access token gets a refresh token by this: do it where you would sign the user in.

        Args:
            session: as verified; its access token says how far the client is.
            anti_csrf: whether the session is to be bound to an anti-CSRF token from now on.

        Raises:
            Unauthorised: the session has ended.
            TryRefreshToken: the client is further; let it refresh, and ask again.
            TooManyRefreshes: too often in a short time.
            StoreUnavailable: it is not known whether the binding has changed.
        """
        return self._run(
            lambda: flows.redeliver(self._gateway.authority, session, now=self._gateway._clock(), anti_csrf=anti_csrf)
        )

    def create_jwt(self, payload: Mapping[str, Any], *, lifetime: int | None = None, static_key: bool = True) -> str:
        """Sign a JWT that is no session's, for other services: whoever has the JWK set can verify it. No I/O.

        It has the payload's members, and ``iss``, ``iat`` and ``exp``. It cannot be revoked, but by ``revoke_key``, and
        ``verify`` refuses it as not a session's.

        Args:
            payload: JSON. Members that a session is known by are refused, and so are the three that are set here.
            lifetime: seconds; None: 100 years, the longest, by the static key.
            static_key: False: sign with the dynamic key. It leaves the JWK set in time, so the lifetime is then that of
                an access token at most, and by default.

        Raises:
            ValueError: an argument cannot be used, or no verifier would accept the token.
            StoreUnavailable: the keys are not loaded yet.
        """
        self._wait()
        return self._create_jwt(payload, lifetime, static_key)

    def jwks(self) -> dict[str, Any]:
        """The public JWK set (RFC 7517 section 5), dynamic keys and static ones."""
        self._wait()
        return self._jwks()

    def openid_configuration(self) -> dict[str, Any]:
        """The discovery document: ``issuer`` and ``jwks_uri``."""
        self._wait()
        return self._openid_configuration()

    def rotate_keys(self) -> str:
        """Publish a new dynamic signing key; its kid. It signs after min(60 s, a quarter of the key interval)."""
        return self._act(lambda happened: self._gateway.rotate_keys())

    def revoke_key(self, kid: str, *, wait: Wait = None) -> str:
        """Refuse every access token that a key has signed, as when its private part has leaked; the kid of a new key.

        The new one is of the same kind, and signs at once. Clients whose tokens are refused refresh, and stay signed
        in; refresh tokens have nothing to do with signing keys. ``wait`` as in ``revoke``.
        """
        return self._act(lambda happened: self._gateway.revoke_key(kid, happened, wait))

    def events(self, after: str | None = None, *, limit: int = 100) -> EventBatch:
        """Events that the store has kept, of every process that uses it; only where ``Config.event_stream`` is set.

        Args:
            after: the ``cursor`` of the batch before; None: from the oldest event that is kept.
            limit: most events to return, up to 1,000.

        Raises:
            ValueError: ``after`` is no cursor of this store, or ``limit`` is out of range.
            StoreUnavailable: the store did not answer.
        """
        return self._run(lambda: flows.read_events(self._gateway.authority, after, limit))

    def close(self) -> None:
        """Stop following, and close the connections."""
        self._gateway.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        if not self._gateway.is_up():
            self._gateway.wait(self._patience)

    def _run(self, begin: Callable[[], Flow[T]]) -> T:
        self._wait()
        return drive(self._store, begin())

    def _act(self, begin: Callable[[Happened], Flow[T]]) -> T:
        """As ``_run``, and tell of what has happened, also where an error tells the caller."""
        happened = Happened()
        try:
            return self._run(lambda: begin(happened))
        finally:
            self._tell(*self._take_made(), *happened.events)
            self._emit(*happened.unwritten)

    def _emit(self, *events: Event) -> None:
        """Write events that no script has written into the store's stream, and tell of them. Raises nothing."""
        for event in events:
            try:
                self._run(lambda event=event: flows.record_event(self._gateway.authority, event))  # type: ignore[misc]
            except FastVerifyError as error:
                _log.warning("the event %s is not in the store's stream: %s", event.name, error)
        self._tell(*events)

    def _tell(self, *events: Event) -> None:
        for event in events:
            try:
                run(self._told(event))
            except Exception:
                _log.exception("on_event failed at %s", event.name)


class AsyncSessions(Operations):
    """The life of sessions, for asyncio. One object serves one event loop."""

    def __init__(
        self, store: Store, config: Config, *, wait: float = WAIT, on_event: OnEvent | None = None, **sources: Any
    ) -> None:
        """Use ``connect``. ``sources`` are ``clock``, ``monotonic`` and ``random``, for tests."""
        self._on_event = _callable_or_none(on_event)
        self._store = store.open_async()
        self._patience = wait
        self._waiting: asyncio.Future[None] | None = None
        self._gateway = KeyKeeper(store, config, **sources)

    @classmethod
    def connect(cls, url: str, config: Config, *, wait: float = WAIT, on_event: OnEvent | None = None) -> Self:
        """Use the store at ``url``; returns at once. Awaited calls and ``async with`` wait for readiness.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://`` or
                ``embedded:///directory`` (docs/store.md).
            config: the settings.
            wait: seconds that an awaited call waits for readiness before it raises StoreUnavailable.
            on_event: as for ``Sessions``; a function, or an asynchronous one, which is awaited before the call returns.

        Raises:
            ConfigError: the URL or an argument cannot be used.
        """
        sessions = cls(open_store(url), config, wait=wait, on_event=on_event)
        sessions._gateway.start(0)
        return sessions

    @property
    def session_claims(self) -> AsyncSessionClaims:
        """Session claims by handle."""
        return AsyncSessionClaims(self)

    async def create(self, user_id: str, **options: Unpack[CreateOptions]) -> Issued:
        """As ``Sessions.create``."""
        flows.check_user(user_id)
        complete = await run_async(self._built(user_id, options))
        return await self._act(lambda happened: self._create(user_id, complete, happened))

    async def guest(self, payload: Mapping[str, Any] | None = None, **options: Unpack[GuestOptions]) -> Issued:
        """As ``Sessions.guest``."""
        user_id, given = self._new_guest(payload, options)
        complete = await run_async(self._built(user_id, given))
        return await self._act(lambda happened: self._create(user_id, complete, happened))

    async def promote(self, guest_session: Session, user_id: str, **options: Unpack[PromoteOptions]) -> Issued:
        """As ``Sessions.promote``."""
        options.setdefault("tenant", guest_session.tenant)
        complete = await run_async(self._built(user_id, options))
        return await self._act(lambda happened: self._promote(guest_session, user_id, complete, happened))

    async def impersonate(self, session: Session, user_id: str, **options: Unpack[ImpersonateOptions]) -> Issued:
        """As ``Sessions.impersonate``."""
        how, given = Impersonation.taken_from(options)
        complete = await run_async(self._built(user_id, given))
        return await self._act(lambda happened: self._impersonate(session, user_id, how, complete, happened))

    async def stop_impersonating(self, session: Session, *, anti_csrf: bool | None = None) -> Issued:
        """As ``Sessions.stop_impersonating``."""
        return await self._act(lambda happened: self._stop_impersonating(session, anti_csrf, happened))

    async def refresh(self, refresh_token: str, *, anti_csrf_token: str | None = None) -> Issued:
        """As ``Sessions.refresh``."""
        self._shed(refresh_token)
        return await self._act(lambda happened: self._refresh(refresh_token, anti_csrf_token, happened))

    async def exchange(self, foreign_refresh_token: str, ask: Ask, **defaults: Unpack[CreateOptions]) -> Issued:
        """As ``Sessions.exchange``; ``ask`` may be asynchronous."""
        return await run_async(exchange_steps(self, foreign_refresh_token, ask, defaults))

    async def verify_strict(
        self, access_token: str | bytes, *, anti_csrf_token: str | None = None, check_anti_csrf: bool = False
    ) -> Session:
        """As ``Sessions.verify_strict``."""
        session = self.verify(access_token, anti_csrf_token=anti_csrf_token, check_anti_csrf=check_anti_csrf)
        return await self._run(lambda: flows.verify_strict(self._gateway.authority, session))

    async def revoke(self, handle: str, *, wait: Wait = None, why: str = "revoked") -> bool:
        """As ``Sessions.revoke``."""
        return bool(await self._act(lambda happened: self._revoke_many((handle,), why, wait, happened)))

    async def revoke_many(self, handles: Iterable[str], *, wait: Wait = None, why: str = "revoked") -> list[str]:
        """As ``Sessions.revoke_many``."""
        return await self._act(lambda happened: self._revoke_many(handles, why, wait, happened))

    async def revoke_user(
        self,
        user_id: str,
        *,
        tenant: str | None = None,
        except_handle: str | None = None,
        wait: Wait = None,
        why: str = "revoke_user",
    ) -> list[str]:
        """As ``Sessions.revoke_user``."""
        return await self._act(lambda happened: self._revoke_user(user_id, tenant, except_handle, why, wait, happened))

    async def revoke_tenant(self, tenant: str, *, wait: Wait = None) -> None:
        """As ``Sessions.revoke_tenant``."""
        await self._act(lambda happened: self._revoke_tenant(tenant, wait, happened))

    async def revoke_all(self, *, wait: Wait = None) -> None:
        """As ``Sessions.revoke_all``."""
        await self._act(lambda happened: self._revoke_all(wait, happened))

    async def blacklist(self, access_token: str | bytes, *, wait: Wait = None) -> None:
        """As ``Sessions.blacklist``."""
        await self._act(lambda happened: self._blacklist(access_token, wait, happened))

    async def handles(self, user_id: str, *, tenant: str | None = None) -> list[str]:
        """As ``Sessions.handles``."""
        return await self._run(lambda: flows.handles(self._gateway.authority, user_id, tenant=tenant))

    async def list_sessions(
        self, user_id: str, *, tenant: str | None = None, current: str | None = None
    ) -> list[SessionInfo]:
        """As ``Sessions.list_sessions``."""
        return await self._run(
            lambda: flows.list_sessions(self._gateway.authority, user_id, tenant=tenant, current=current)
        )

    async def info(self, handle: str) -> SessionInfo | None:
        """As ``Sessions.info``."""
        return await self._run(lambda: flows.info(self._gateway.authority, handle))

    async def get_data(self, handle: str) -> Any:
        """As ``Sessions.get_data``."""
        return await self._run(lambda: flows.get_data(self._gateway.authority, handle))

    async def set_data(self, handle: str, data: Any) -> bool:
        """As ``Sessions.set_data``."""
        return await self._run(lambda: flows.set_data(self._gateway.authority, handle, data))

    async def merge_payload(self, handle: str, patch: Mapping[str, Any]) -> bool:
        """As ``Sessions.merge_payload``."""
        return await self._run(
            lambda: flows.merge_payload(self._gateway.authority, handle, patch, now=self._gateway._clock())
        )

    async def reissue(self, session: Session, patch: Mapping[str, Any]) -> Issued | None:
        """As ``Sessions.reissue``."""
        return await self._run(
            lambda: flows.reissue(self._gateway.authority, session, patch, now=self._gateway._clock())
        )

    async def recheck(self, session: Session) -> Issued | None:
        """As ``Sessions.recheck``."""
        return await self._run(lambda: flows.recheck(self._gateway.authority, session, now=self._gateway._clock()))

    async def redeliver(self, session: Session, *, anti_csrf: bool) -> Issued:
        """As ``Sessions.redeliver``."""
        return await self._run(
            lambda: flows.redeliver(self._gateway.authority, session, now=self._gateway._clock(), anti_csrf=anti_csrf)
        )

    async def create_jwt(
        self, payload: Mapping[str, Any], *, lifetime: int | None = None, static_key: bool = True
    ) -> str:
        """As ``Sessions.create_jwt``."""
        await self._wait()
        return self._create_jwt(payload, lifetime, static_key)

    async def jwks(self) -> dict[str, Any]:
        """As ``Sessions.jwks``."""
        await self._wait()
        return self._jwks()

    async def openid_configuration(self) -> dict[str, Any]:
        """As ``Sessions.openid_configuration``."""
        await self._wait()
        return self._openid_configuration()

    async def rotate_keys(self) -> str:
        """As ``Sessions.rotate_keys``."""
        return await self._act(lambda happened: self._gateway.rotate_keys())

    async def revoke_key(self, kid: str, *, wait: Wait = None) -> str:
        """As ``Sessions.revoke_key``."""
        return await self._act(lambda happened: self._gateway.revoke_key(kid, happened, wait))

    async def events(self, after: str | None = None, *, limit: int = 100) -> EventBatch:
        """As ``Sessions.events``."""
        return await self._run(lambda: flows.read_events(self._gateway.authority, after, limit))

    async def aclose(self) -> None:
        """Stop following, and close the connections."""
        try:
            await self._store.aclose()
        finally:  # cancelled, or in another loop than the connections'
            await asyncio.to_thread(self._gateway.close)

    async def __aenter__(self) -> Self:
        await self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _wait(self) -> None:
        if not self._gateway.is_up():
            # One thread for all who wait: a thread each would take the executor away from the rest of the application.
            if self._waiting is None or self._waiting.done():
                self._waiting = asyncio.ensure_future(asyncio.to_thread(self._gateway.wait, self._patience))
            await asyncio.shield(self._waiting)

    async def _run(self, begin: Callable[[], Flow[T]]) -> T:
        await self._wait()
        return await drive_async(self._store, begin())

    async def _act(self, begin: Callable[[Happened], Flow[T]]) -> T:
        happened = Happened()
        try:
            return await self._run(lambda: begin(happened))
        finally:
            await self._tell(*self._take_made(), *happened.events)
            await self._emit(*happened.unwritten)

    async def _emit(self, *events: Event) -> None:
        for event in events:
            try:
                await self._run(
                    lambda event=event: flows.record_event(self._gateway.authority, event)  # type: ignore[misc]
                )
            except FastVerifyError as error:
                _log.warning("the event %s is not in the store's stream: %s", event.name, error)
        await self._tell(*events)

    async def _tell(self, *events: Event) -> None:
        for event in events:
            try:
                await run_async(self._told(event))
            except Exception:
                _log.exception("on_event failed at %s", event.name)


def _callable_or_none(on_event: OnEvent | None) -> OnEvent | None:
    if on_event is not None and not callable(on_event):
        raise ConfigError("on_event", "must be a function of an Event, or None")
    return on_event
