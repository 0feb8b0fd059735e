"""SessionVerifier: what a gateway needs. Keys and revocations are followed from the store; there is no secret."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn, Self

from . import flows
from ._core import CacheInfo, Claims, RevocationTable, Verifier, parse_unverified
from .config import ForeignIssuer, WhenStale, check_prefix, check_staleness, foreign_issuers
from .entries import KEY, SESSION, key_entry, target_of
from .errors import (
    ConfigError,
    CryptoFault,
    FastVerifyError,
    InvalidToken,
    RevokedToken,
    StoreUnavailable,
    TryRefreshToken,
    Unauthorised,
    UnknownKey,
    UnsupportedToken,
)
from .foreign import ForeignSessions, has_session
from .key_ring import KeyRing
from .last_seen import SPAN
from .placement import Placement
from .revocations import Follower, FollowerInfo
from .session import Session, handle_bytes
from .store import Store, drive, open_store

#: Kids of our own naming that were not in the ring when first seen; a flood of them must not grow memory.
_MAX_UNKNOWN = 256


class SessionVerifier:
    """Verifies sessions without I/O: keys and revocations are local, and a background thread keeps them current.

    Make one with ``connect`` and share it among all threads; it is also a context manager. Every process needs its own
    or a forked copy: in a forked child it starts anew on first use.
    """

    def __init__(
        self,
        store: Store,
        *,
        issuer: str,
        audience: str | Sequence[str] | None = None,
        leeway: int = 0,
        when_stale: WhenStale = "refuse",
        staleness: float = 5.0,
        cache_size: int = 65_536,
        prefix: str = "fv",
        also_accept: ForeignIssuer | Sequence[ForeignIssuer] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not isinstance(issuer, str):  # a Verifier takes None for any issuer
            raise ConfigError("issuer", "must be a str: API domain, gateway path and base path")
        check_staleness("staleness", staleness)
        self._store = store
        self._prefix = check_prefix("prefix", prefix)
        self._clock = clock
        self._random = random
        self._table = RevocationTable(when_stale=when_stale)
        self._verifier = Verifier(
            (),
            issuer=issuer,
            audience=audience,
            leeway=leeway,
            cache_size=cache_size,
            revocations=self._table,
            make_view=self._first_sight,
        )
        issuers = foreign_issuers("also_accept", also_accept)
        self._foreign = ForeignSessions(issuers, self._table, leeway=leeway, cache_size=cache_size) if issuers else None
        #: The session of a token, or the core's own error: what ``verify`` is made of, with a frame less.
        self.view: Callable[[str | bytes], Session] = self._verifier.view
        self._state: flows.StoreState | None = None
        self._ring = KeyRing()
        self._follower = Follower(
            store,
            self._table,
            open_store=self._open,
            keep_ring=self._keep_ring,
            forget=self._forget,
            confirm=self._confirm,
            tell_seen=self._tell_seen,
            staleness=staleness,
            monotonic=monotonic,
            wall=clock,
            random=random,
        )

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        issuer: str,
        audience: str | Sequence[str] | None = None,
        leeway: int = 0,
        wait: float = 10.0,
        when_stale: WhenStale = "refuse",
        staleness: float = 5.0,
        cache_size: int = 65_536,
        prefix: str = "fv",
        also_accept: ForeignIssuer | Sequence[ForeignIssuer] = (),
    ) -> Self:
        """Follow the store at ``url`` and return when its keys and revocations are loaded.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://`` or
                ``embedded:///directory`` (docs/store.md).
            issuer: the ``iss`` of the access tokens: API domain, gateway path and base path.
            audience: refuse tokens whose ``aud`` names none of these; None: ``aud`` is not looked at.
            leeway: seconds that clocks may differ when ``exp`` is checked, at most 60.
            wait: seconds to wait; 0: return at once, and ``verify`` raises StoreUnavailable until ready.
            when_stale: what to do when the store has not been heard from for ``staleness`` seconds, at least 2.
            cache_size: verified tokens to remember.
            prefix: the ``key_prefix`` of the session service.
            also_accept: other issuers whose access tokens are accepted, as in ``Config.also_accept``.

        Raises:
            ConfigError: the URL, an argument or the store's settings cannot be used.
            StoreUnavailable: not ready in time, for example because no session service has used the store yet.
        """
        store = open_store(url)
        try:
            gateway = cls(
                store,
                issuer=issuer,
                audience=audience,
                leeway=leeway,
                when_stale=when_stale,
                staleness=staleness,
                cache_size=cache_size,
                prefix=prefix,
                also_accept=also_accept,
            )
        except BaseException:
            store.close()
            raise
        gateway.start(wait)
        return gateway

    def start(self, wait: float) -> None:
        """Start following, and wait that many seconds for the first complete load; close on failure."""
        self._follower.start()
        if wait:
            try:
                self._follower.wait(wait)
            except BaseException:
                self.close()
                raise

    def verify(self, access_token: str | bytes) -> Session:
        """Verify an access token. No I/O; the usual call is one look-up in a cache.

        Raises:
            Unauthorised: not a session's token (then ``clear_tokens`` is False), or its session has been revoked.
            TryRefreshToken: expired, badly signed, of an unknown key, or revoked by itself: the session may live.
            StoreUnavailable: what is known of the store is too old, or not loaded yet.
        """
        try:
            return self.view(access_token)
        except FastVerifyError as error:
            return self.second_look(access_token, error)

    def second_look(self, access_token: str | bytes, error: FastVerifyError) -> Session:
        """The session of another issuer that is accepted too; else raise what an error of ``view`` means."""
        if self._foreign is not None:
            try:
                return self._foreign.view(access_token, error)
            except FastVerifyError as final:
                error = final
        self.explain(access_token, error)

    def explain(self, access_token: str | bytes, error: FastVerifyError) -> NoReturn:
        """Raise what an error of ``view`` means for the session."""
        if isinstance(error, InvalidToken):
            raise self._verdict(access_token, error) from error
        if isinstance(error, CryptoFault):
            raise StoreUnavailable(f"no verdict: {error}") from error
        self._follower.ensure()
        raise error

    def check_signature(self, token: str | bytes) -> None:
        """See whether one of our keys has signed this, whenever that was. Raises InvalidToken."""
        self._verifier.verify_jws(token)

    def note_seen(self, session: Session) -> None:
        """A session is in use: its ``last_seen_at`` will say so in a moment. No I/O; once a minute it counts.

        The adapters do so of every session that a request comes with; ``verify`` by itself does not.
        """
        self._follower.last_seen.note(session.handle)

    @property
    def ready(self) -> bool:
        """Whether ``verify`` can answer: keys and revocations are loaded and fresh."""
        return self._follower.ready and self.lag_seconds <= self._follower.staleness

    @property
    def lag_seconds(self) -> float:
        """Seconds since the store was last heard from completely."""
        return self._follower.lag_seconds

    @property
    def revoked_entries(self) -> int:
        """Revocations held."""
        return len(self._table)

    @property
    def stale_served(self) -> int:
        """Verifications that were served although stale, as ``when_stale="allow"`` permits."""
        return self._table.stale_served

    def follower_info(self) -> FollowerInfo:
        """What the follower has done so far."""
        return self._follower.info()

    def cache_info(self) -> CacheInfo:
        """Figures of the verified-token cache."""
        return self._verifier.cache_info()

    def wait_for_poll(self, timeout: float = 5.0) -> None:
        """Wait until a poll that begins now has ended: what was revoked before this call is then refused here."""
        self._follower.wait_for_poll(timeout)

    def has_ended(self, handle: str) -> bool:
        """Whether a session is known here to have been revoked, by itself or with its user's others. No I/O."""
        return self._table.lookup(session=handle_bytes(handle), now=int(self._clock())) == SESSION

    def close(self) -> None:
        """Stop following and close the connections."""
        self._follower.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store.url} ready={self.ready}>"

    def refuse(self, entries: Iterable[bytes], life: int) -> None:
        """Refuse what revocation entries name from now on, for ``life`` seconds, before the store says so."""
        self._follower.refuse(entries, int(self._clock()) + life)

    def _verdict(self, access_token: str | bytes, error: InvalidToken) -> Exception:
        """What an invalid token says about the session (wire.md sections 3.3.1 and 3.3.2)."""
        if isinstance(error, RevokedToken):
            return Unauthorised("the session has been revoked") if error.kind == "session" else TryRefreshToken()
        if not (has_session if self._foreign is not None else is_session_token)(access_token):
            # Garbage, or another issuer's token, counts as none at all: else each request with it would cost a refresh.
            return Unauthorised(f"not a session's access token: {error}", clear_tokens=False)
        if not self._follower.ready:
            self._follower.ensure()
            return StoreUnavailable("the signing keys are not loaded yet")
        # An algorithm that no key here has is one that a key published a moment ago may have.
        if isinstance(error, UnknownKey | UnsupportedToken) and not self._known_to_be_unknown(access_token):
            return StoreUnavailable("the signing key is not known here yet")
        return TryRefreshToken(f"try refresh token: {error}")

    def _known_to_be_unknown(self, access_token: str | bytes) -> bool:
        """Whether the ring has been polled since this token's kid was first seen.

        A key that another process published a moment ago may be missing here; its tokens are good.
        """
        kid = parse_unverified(access_token).key_id
        if kid is None or not kid.startswith(("d-", "s-")) or self._is_revoked(kid, int(self._clock())):
            return True
        polls = self._follower.polls
        with self._unknown_lock:
            first = self._unknown.setdefault(kid, polls)
            if len(self._unknown) > _MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
        if self._follower.completed > first:
            return True
        self._follower.nudge()
        return False

    def _forget(self) -> None:
        """Hold no locks and know no polls: at the start, and in a forked child."""
        self._ring_lock = threading.Lock()
        self._unknown: dict[str, int] = {}
        self._unknown_lock = threading.Lock()

    def _open(self) -> Placement:
        """Read the store's layout."""
        state = drive(self._store, flows.read_keys(self._prefix, private=False))
        if state.placement is None:
            raise StoreUnavailable("no session service has used this store yet")
        return state.placement

    def _keep_ring(self) -> flows.StoreState:
        """Read the key ring, and take it over if it has changed."""
        state = drive(self._store, flows.read_keys(self._prefix, private=False))
        self._take_over(state)
        return state

    def _take_over(self, state: flows.StoreState) -> None:
        # One at a time: half of one ring and half of another would last until the ring next changes. An older one that
        # comes late lasts until the next poll.
        with self._ring_lock:
            if state != self._state:
                self._ring = self._read_ring(state)
                if self._ring.keys:
                    self._verifier.replace_keys(self._ring.key_set())
                self._state = state

    def _read_ring(self, state: flows.StoreState) -> KeyRing:
        return KeyRing.read(state.records).without(self._revoked_kids(state))

    def _revoked_kids(self, state: flows.StoreState) -> set[str]:
        """The keys of a ring that are revoked: they should not be in it, but a failover may have brought them back."""
        kids = (kid.decode("utf-8", "replace") for kid, _, _ in state.records)
        return {kid for kid in kids if self._is_revoked(kid, state.now // 1000)}

    def _is_revoked(self, kid: str, now: int) -> bool:
        return self._table.lookup(key=target_of(key_entry(kid)), now=now) == KEY

    def _first_sight(self, claims: Claims) -> Session:
        """The session of a token that has just been verified for the first time; the client has it, then."""
        session = Session.from_claims(claims)
        self._follower.sightings.add(session)
        return session

    def _confirm(self, seen: Mapping[bytes, int]) -> None:
        """Report generations that have been seen, by handle; only once the store's layout is known."""
        assert self._state is not None and self._state.placement is not None
        drive(self._store, flows.confirm(self._state.placement, seen))

    def _tell_seen(self, handles: Sequence[bytes]) -> None:
        """Report sessions that are in use; only once the store's layout is known."""
        assert self._state is not None and self._state.placement is not None
        drive(self._store, flows.note_seen(self._state.placement, handles, SPAN))


def is_session_token(access_token: str | bytes) -> bool:
    """Whether a token has the structure of a session's access token. Its signature is NOT checked."""
    try:
        Session.from_claims(parse_unverified(access_token))
    except InvalidToken:
        return False
    return True
