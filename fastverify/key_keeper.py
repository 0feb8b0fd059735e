"""KeyKeeper: the verifier inside a session service. It claims the store, holds the private keys and makes new ones."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from . import flows
from ._core import Claims
from .authority import Authority
from .config import Config
from .entries import TOKEN, session_entry, target_of, token_entry
from .errors import ConfigError, InvalidClaim, StoreUnavailable, TokenTheftDetected, TryRefreshToken
from .events import Event, Happened
from .flows import Outcome, Wait
from .key_ring import KeyRing, RingKey, generate_key, generate_static_key, is_static, publication_delay
from .placement import Placement
from .session import Session, handle_bytes
from .store import Flow, Store, drive
from .tokens import ServiceKeys
from .verifier import SessionVerifier

T = TypeVar("T")

_log = logging.getLogger("fastverify.store")

#: Seconds beyond B to wait for verifiers to report what they have applied: those that do not have gone stale by then.
_REPORT_SECONDS = 3.0
#: Events of keys that wait to be told of, at most.
_MOST_PENDING = 64


class KeyKeeper(SessionVerifier):
    """The verifier inside a session service: it also holds the private keys, and makes new ones when they are due."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not isinstance(config, Config):
            raise TypeError(f"config must be a Config, not {type(config).__name__}")
        super().__init__(
            store,
            issuer=config.issuer,
            when_stale=config.when_stale,
            staleness=config.revocation_staleness,
            cache_size=config.cache_size,
            also_accept=config.also_accept,
            prefix=config.key_prefix,
            clock=clock,
            monotonic=monotonic,
            random=random,
        )
        self.config = config
        self.service_keys = tuple(ServiceKeys.derive(secret) for secret in config.secrets)
        self._authority: Authority | None = None
        #: Keys that this process has made: told of with the next call, for the follower's thread is no place for that.
        self.made: deque[Event] = deque(maxlen=_MOST_PENDING)

    @property
    def authority(self) -> Authority:
        """What the service knows now; only once it is ready."""
        if self._authority is None:
            raise StoreUnavailable("the signing keys are not loaded yet")
        return self._authority

    def is_up(self) -> bool:
        """Whether the service has what it needs to issue tokens."""
        self._follower.ensure()
        return self._authority is not None and self._follower.ready

    def wait(self, timeout: float) -> None:
        """Wait until ``is_up``."""
        self._follower.wait(timeout)

    def applying(self, flow: Flow[Outcome[T]], happened: Happened, wait: Wait = None) -> Flow[T]:
        """The flow, with what it revokes refused here at once, and then, as ``wait`` says, where else it is to be.

        What has happened is put into ``happened``, also where an error ends it.
        """
        flows.check_wait(wait)
        try:
            outcome = yield from flow
        except TokenTheftDetected as theft:
            self.refuse((session_entry(handle_bytes(theft.handle)),), self.authority.entry_life)
            happened.events.append(
                Event(
                    name="token_theft",
                    at=int(self._clock() * 1000),
                    handle=theft.handle,
                    user_id=theft.user_id,
                    tenant=theft.tenant,
                    why=theft.reuse,
                )
            )
            raise
        except flows.EndedNow as error:
            self._take(error.outcome, happened)
            raise
        self._take(outcome, happened)
        staleness = self.config.revocation_staleness
        yield from flows.settle(outcome.written, wait, staleness + _REPORT_SECONDS, staleness)
        return outcome.value

    def _take(self, outcome: Outcome[Any], happened: Happened) -> None:
        self.refuse(outcome.entries, outcome.life)
        happened.events += outcome.events
        happened.unwritten += outcome.unwritten

    def rotate_keys(self) -> Flow[str]:
        """Publish a new dynamic key now; it signs after its publication delay."""
        return (yield from self._replace_key(self._add_key))

    def revoke_key(self, kid: str, happened: Happened, wait: Wait) -> Flow[str]:
        """Take a key out of the ring, make another that signs at once, and refuse what the old one has signed."""
        # The ring first: between the two steps a service must not sign with a key whose tokens are refused.
        add = self._add_static_key if is_static(kid) else self._add_key
        successor = yield from self._replace_key(partial(add, revoked=kid))
        yield from self.applying(self._refuse_key(kid), happened, wait)
        return successor

    def _refuse_key(self, kid: str) -> Flow[Outcome[None]]:
        outcome = yield from flows.blacklist_key(self.authority, kid, random=self._random)
        event = Event(name="key_revoked", at=int(self._clock() * 1000), extra={"kid": kid})
        return replace(outcome, unwritten=(event,))

    def _replace_key(self, add: Callable[[flows.StoreState, KeyRing], Flow[RingKey | None]]) -> Flow[str]:
        prefix = self.config.key_prefix
        while True:
            state = yield from flows.read_keys(prefix, private=True)
            key = yield from add(state, self._read_ring(state))
            self._take_over((yield from flows.read_keys(prefix, private=True)))
            if key is not None:
                return key.kid

    def _open(self) -> Placement:
        config = self.config
        claim = flows.claim_store(config.key_prefix, config.shards, config.longest_token_lifetime)
        placement = drive(self._store, claim)
        if placement.shards != config.shards:
            _log.warning(
                "the store was laid out with %d shards, which cannot be changed; set Config.shards to that, not to %d",
                placement.shards,
                config.shards,
            )
        state = drive(self._store, flows.read_keys(config.key_prefix, private=True))
        ring = self._read_ring(state)
        if ring.keys and not any(key.private for key in ring.keys):
            raise ConfigError(
                "secret",
                "does not open this store's signing keys, which were made under another one: use that one, or list it "
                "behind the new one; a new application needs a key_prefix of its own",
            )
        # Asked once a start, not at every poll: while a change of algorithm is rolled out, old and new processes
        # would otherwise make keys in turn.
        if ring.newest is not None and ring.newest.algorithm != config.signing_algorithm:
            drive(self._store, self._add_key(state, ring))
        static = ring.static_key(config.signing_algorithm)
        if static is not None and static.sealed_by != self.service_keys[0].key_id:
            # It is to be there still when the secret that it was sealed under has been retired.
            drive(self._store, self._put_key(static, static.kid, ()))
        return placement

    def _keep_ring(self) -> flows.StoreState:
        prefix = self.config.key_prefix
        state = drive(self._store, flows.read_keys(prefix, private=True))
        self._take_over(state)
        if state.placement is None:
            return state
        due = self._ring.due_at(self.config.signing_key_interval) <= state.now / 1000
        lacks_static = self._ring.static_key(self.config.signing_algorithm) is None
        # A failover may have brought back a key that is known here to be revoked.
        revoked = self._revoked_kids(state)
        if due or any(not is_static(kid) for kid in revoked):
            drive(self._store, self._add_key(state, self._ring))
        if lacks_static or any(is_static(kid) for kid in revoked):
            drive(self._store, self._add_static_key(state, self._ring))
        if due or lacks_static or revoked:
            state = drive(self._store, flows.read_keys(prefix, private=True))
            self._take_over(state)
        return state

    def _take_over(self, state: flows.StoreState) -> None:
        super()._take_over(state)
        # A store that has been emptied is to be claimed anew before anything is written to it.
        self._authority = (
            Authority(
                self.config,
                self.service_keys,
                self._ring,
                state.placement,
                state.longest_access_lifetime,
                self._is_blacklisted,
            )
            if state.placement is not None
            else None
        )

    def _read_ring(self, state: flows.StoreState) -> KeyRing:
        return KeyRing.read(state.records, self.service_keys).without(self._revoked_kids(state))

    def _is_blacklisted(self, access_token: str) -> bool:
        entry = token_entry(access_token)
        return self._table.lookup(token=target_of(entry), now=int(self._clock())) == TOKEN

    def _add_key(self, state: flows.StoreState, ring: KeyRing, revoked: str | None = None) -> Flow[RingKey | None]:
        """Make a key and add it; None when another process was first.

        Its times are the store's: one process whose clock is ahead would keep all of them from a new key. In the place
        of a revoked key it signs at once: verifiers that do not know it yet say so, and do not refuse.
        """
        config, now = self.config, state.now / 1000
        created_at = max(state.now, *(key.created_at + 1 for key in KeyRing.read(state.records).keys), 0)
        delay = publication_delay(config.signing_key_interval) if ring.newest and revoked is None else 0
        key = generate_key(config.signing_algorithm, created_at=created_at, signs_at=created_at + int(delay * 1000))
        gone = {*ring.retired(now, state.longest_access_lifetime), *self._revoked_kids(state)}
        if revoked is not None:
            gone.add(revoked)
        return (yield from self._put_key(key, state.newest, sorted(gone), revoked))

    def _add_static_key(
        self, state: flows.StoreState, ring: KeyRing, revoked: str | None = None
    ) -> Flow[RingKey | None]:
        """Make a static key and add it; None when another process was first. It signs at once.

        The one before it stays and verifies, unless it is revoked: it may be sealed under a secret that is not known
        here any more.
        """
        algorithm = self.config.signing_algorithm
        key = generate_static_key(algorithm, created_at=state.now, raw=self._random(16))
        gone = {*self._revoked_kids(state), *(() if revoked is None else (revoked,))}
        return (yield from self._put_key(key, state.static.get(algorithm, ""), sorted(gone), revoked))

    def _put_key(
        self, key: RingKey, known: str, dropped: Sequence[str], revoked: str | None = None
    ) -> Flow[RingKey | None]:
        """Add a key, or seal one anew that is there; None when another process was first."""
        sealed = key.sealed_record(self.service_keys[0], self._random(12))
        event = None
        if key.kid != known:
            why = None if revoked is None else "revoked"
            event = Event(name="key_rotated", at=int(self._clock() * 1000), why=why, extra={"kid": key.kid})
        kept = self.config.event_stream or 0
        if not (yield from flows.add_key(self.config.key_prefix, known, key, sealed, dropped, event, kept)):
            return None
        if event is not None:
            self.made.append(event)
        return key

    def _first_sight(self, claims: Claims) -> Session:
        self._check_kind(claims)  # first: claims that a session has been made of are never asked again
        return super()._first_sight(claims)

    def _check_kind(self, claims: Claims) -> None:
        """A session goes over to the other kind of key, where that is configured, at its next refresh (3.3.1 step 9).

        Asked when a token is first verified. A gateway, which knows no configuration, takes both kinds.

        Raises:
            InvalidClaim: the token's key is of the other kind; ``claim`` is ``kid``.
        """
        if is_static(claims.key_id) is self.config.use_dynamic_access_token_signing_key:
            raise InvalidClaim("signed by a key of the kind that is not in use", claim="kid")


def is_of_other_kind(error: TryRefreshToken) -> bool:
    """Whether a token is refused for nothing but the kind of key that has signed it."""
    return isinstance(error.__cause__, InvalidClaim) and error.__cause__.claim == "kid"
