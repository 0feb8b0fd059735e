"""The operations of Sessions and AsyncSessions, as flows that these two drive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from . import flows
from ._core import parse_unverified
from .config import Config
from .errors import DuplicateCookies, ExpiredToken, FastVerifyError, RevokedToken, TryRefreshToken, Unauthorised
from .events import Event, Happened, OnEvent
from .flows import Wait
from .key_keeper import KeyKeeper, is_of_other_kind
from .key_ring import publication_delay
from .options import FlowOptions, GuestOptions, Impersonation, PromoteOptions
from .session import DEFAULT_TENANT, Issued, Session, guest_id
from .session_claims import AUTH_TIME, Draft, built
from .steps import Steps
from .store import Flow
from .tokens import parse_refresh_token, same_text
from .verifier import SessionVerifier

T = TypeVar("T")


class Operations:
    """What Sessions and AsyncSessions share: each operation as a flow, and everything that needs no store."""

    _gateway: KeyKeeper
    _on_event: OnEvent | None

    @property
    def config(self) -> Config:
        """The settings."""
        return self._gateway.config

    @property
    def ready(self) -> bool:
        """Whether ``verify`` can answer."""
        return self._gateway.ready

    @property
    def gateway(self) -> SessionVerifier:
        """The verifier inside: its lag, its cache, its revocations."""
        return self._gateway

    def now(self) -> float:
        """Seconds since the epoch, by the clock that these sessions go by."""
        return self._gateway._clock()

    def verify(
        self, access_token: str | bytes, *, anti_csrf_token: str | None = None, check_anti_csrf: bool = False
    ) -> Session:
        """Verify an access token. No I/O; honours revocations.

        Args:
            access_token: as the client sent it.
            anti_csrf_token: the request's ``anti-csrf`` header.
            check_anti_csrf: demand that it equals the token's ``antiCsrfToken`` claim.

        Raises:
            Unauthorised: not a session's token (then ``clear_tokens`` is False), or its session has been revoked.
            TryRefreshToken: the token does not serve, or the anti-CSRF token is not the session's.
            StoreUnavailable: what is known of the store is too old, or not loaded yet.
        """
        try:
            session = self._gateway.view(access_token)
        except FastVerifyError as error:
            session = self._gateway.second_look(access_token, error)
        if check_anti_csrf and not same_text(anti_csrf_token, session.claims.get("antiCsrfToken")):
            raise TryRefreshToken("try refresh token: the anti-CSRF token is missing or not this session's")
        return session

    def note_seen(self, session: Session) -> None:
        """A session is in use: its ``last_seen_at`` will say so in a moment. No I/O; once a minute it counts.

        The adapters do so of every session that a request comes with; ``verify`` by itself does not.
        """
        self._gateway.note_seen(session)

    def newest_refresh_token(self, refresh_tokens: Iterable[str]) -> str:
        """Of several refresh tokens that came with one request, the one of the highest generation. No I/O.

        Raises:
            Unauthorised: none is of this service.
            DuplicateCookies: they are of more than one session, and nothing tells which is meant.
        """
        keys = self._gateway.service_keys
        known = {text: token for text in refresh_tokens if (token := parse_refresh_token(keys, text)) is not None}
        if not known:
            raise Unauthorised("not a refresh token of this service")
        if len({token.handle for token in known.values()}) > 1:
            raise DuplicateCookies("refresh tokens of more than one session")
        return max(known, key=lambda text: known[text].generation)

    def lapsed_guest(self, access_token: str | bytes) -> Session | None:
        """The guest's session that a token was once good for, and is no more. No I/O.

        ``promote`` takes it: the access token may have expired while the visitor read a page, or the session may have
        been promoted by a sign-in whose reply was lost. The store knows what is left of it.

        Returns:
            None for a token that serves, and for one that never did, is not a guest's, or is refused by itself.
        """
        session = self._lapsed(access_token, expired=True)
        return session if session is not None and session.is_guest else None

    def left_impersonation(self, access_token: str | bytes) -> Session | None:
        """As ``lapsed_guest``: an impersonating session that has ended, for ``stop_impersonating``. No I/O."""
        session = self._lapsed(access_token, expired=False)
        return session if session is not None and session.actor is not None else None

    def _lapsed(self, access_token: str | bytes, *, expired: bool) -> Session | None:
        gateway = self._gateway
        try:
            gateway.view(access_token)
            return None
        except FastVerifyError as error:
            ended = isinstance(error, RevokedToken) and error.kind == "session"
            if not ended and not (expired and isinstance(error, ExpiredToken)):
                return None
        try:
            gateway.check_signature(access_token)
            session = Session.from_claims(parse_unverified(access_token))
        except FastVerifyError:
            return None
        return session if session.claims.issuer == self.config.issuer else None

    def is_refresh_token(self, text: str) -> bool:
        """Whether this service has made a refresh token; not whether its session lives. No I/O."""
        return parse_refresh_token(self._gateway.service_keys, text) is not None

    def _shed(self, refresh_token: str) -> None:
        """Before there is anything to refresh with, garbage waits for nothing; from then on the flow refuses it."""
        if not self._gateway.is_up() and parse_refresh_token(self._gateway.service_keys, refresh_token) is None:
            raise Unauthorised("not a refresh token of this service")

    def jwks_max_age(self) -> int:
        """Seconds for which the JWK set may be cached, at least 1.

        Until the next key is made, and no longer than a key is published before it signs: so a cache that is never
        older than this knows every key in time, also one that ``rotate_keys`` has made.
        """
        interval = self.config.signing_key_interval
        due = self._gateway.authority.ring.due_at(interval)
        return max(1, int(min(publication_delay(interval), due - self._gateway._clock())))

    def _built(self, user_id: str, options: PromoteOptions) -> Steps[FlowOptions]:
        """The options with what ``claims`` and ``authenticated`` make of the payload."""
        claims, authenticated = options.pop("claims", ()), options.pop("authenticated", False)
        if claims or authenticated:
            login_id, tenant = options.get("login_id") or user_id, options.get("tenant", DEFAULT_TENANT)
            draft, now = Draft(user_id, login_id, tenant, options.get("payload") or {}), self.now()
            payload = yield from built(claims, draft, now)
            options["payload"] = payload | {AUTH_TIME: int(now)} if authenticated else payload
        return cast(FlowOptions, options)

    def _create(self, user_id: str, options: FlowOptions, happened: Happened) -> Flow[Issued]:
        gateway = self._gateway
        now, random = gateway._clock(), gateway._random
        return gateway.applying(flows.create(gateway.authority, user_id, now=now, random=random, **options), happened)

    def _promote(self, guest: Session, user_id: str, options: FlowOptions, happened: Happened) -> Flow[Issued]:
        gateway = self._gateway
        now, random = gateway._clock(), gateway._random
        flow = flows.promote(gateway.authority, guest, user_id, now=now, random=random, **options)
        return gateway.applying(flow, happened)

    def _impersonate(
        self, session: Session, user_id: str, how: Impersonation, options: FlowOptions, happened: Happened
    ) -> Flow[Issued]:
        gateway = self._gateway
        now, random = gateway._clock(), gateway._random
        given: dict[str, Any] = {**options, **how._asdict()}
        flow = flows.impersonate(gateway.authority, session, user_id, now=now, random=random, **given)
        return gateway.applying(flow, happened)

    def _stop_impersonating(self, session: Session, anti_csrf: bool | None, happened: Happened) -> Flow[Issued]:
        gateway = self._gateway
        now, random = gateway._clock(), gateway._random
        flow = flows.stop_impersonating(gateway.authority, session, now=now, random=random, anti_csrf=anti_csrf)
        return gateway.applying(flow, happened)

    def _new_guest(self, payload: Mapping[str, Any] | None, options: GuestOptions) -> tuple[str, PromoteOptions]:
        """A guest's user id, and all options of their session."""
        return guest_id(self._gateway._random(16)), cast(PromoteOptions, {**options, "payload": payload})

    def _refresh(self, refresh_token: str, anti_csrf_token: str | None, happened: Happened) -> Flow[Issued]:
        gateway = self._gateway
        now, random = gateway._clock(), gateway._random
        return gateway.applying(
            flows.refresh(gateway.authority, refresh_token, now=now, random=random, anti_csrf=anti_csrf_token), happened
        )

    def _revoke_many(self, handles: Iterable[str], why: str, wait: Wait, happened: Happened) -> Flow[list[str]]:
        gateway = self._gateway
        flow = flows.revoke_many(gateway.authority, handles, random=gateway._random, why=why)
        return gateway.applying(flow, happened, wait)

    def _revoke_user(
        self, user_id: str, tenant: str | None, except_handle: str | None, why: str, wait: Wait, happened: Happened
    ) -> Flow[list[str]]:
        gateway = self._gateway
        flow = flows.revoke_user(
            gateway.authority, user_id, random=gateway._random, tenant=tenant, except_handle=except_handle, why=why
        )
        return gateway.applying(flow, happened, wait)

    def _revoke_tenant(self, tenant: str, wait: Wait, happened: Happened) -> Flow[None]:
        gateway = self._gateway
        return gateway.applying(flows.revoke_tenant(gateway.authority, tenant, random=gateway._random), happened, wait)

    def _revoke_all(self, wait: Wait, happened: Happened) -> Flow[None]:
        gateway = self._gateway
        return gateway.applying(flows.revoke_all(gateway.authority, random=gateway._random), happened, wait)

    def _blacklist(self, access_token: str | bytes, wait: Wait, happened: Happened) -> Flow[None]:
        gateway = self._gateway
        try:
            token = self.verify(access_token).access_token
        except TryRefreshToken as error:
            if not is_of_other_kind(error):
                return flows.nothing()
            token = access_token if isinstance(access_token, str) else access_token.decode()  # gateways serve it
        except Unauthorised as error:
            if error.clear_tokens:
                return flows.nothing()
            raise
        return gateway.applying(flows.blacklist(gateway.authority, token, random=gateway._random), happened, wait)

    def _take_made(self) -> list[Event]:
        """The keys that this process has made since it was last asked."""
        made = self._gateway.made
        return [made.popleft() for _ in range(len(made))]  # only the follower's thread adds to it meanwhile

    def _told(self, event: Event) -> Steps[None]:
        if self._on_event is not None:
            yield self._on_event(event)

    def _create_jwt(self, payload: Mapping[str, Any], lifetime: int | None, static_key: bool) -> str:
        return self._gateway.authority.sign_jwt(payload, lifetime, self.now(), static=static_key)

    def _jwks(self) -> dict[str, Any]:
        return self._gateway.authority.ring.jwks()

    def _openid_configuration(self) -> dict[str, Any]:
        issuer = self.config.issuer
        return {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwt/jwks.json",
            "id_token_signing_alg_values_supported": sorted({key["alg"] for key in self._jwks()["keys"]}),
            "response_types_supported": [],
            "subject_types_supported": ["public"],
        }
