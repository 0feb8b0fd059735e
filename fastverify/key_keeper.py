"""KeyKeeper: the verifier inside a session service. It claims the store, holds the private keys and makes new ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from . import flows
from .authority import Authority
from .config import Config
from .errors import ConfigError, StoreUnavailable, TokenTheftDetected
from .flows import Outcome
from .key_ring import KeyRing, RingKey, generate_key, publication_delay
from .placement import Placement
from .session import handle_bytes
from .store import Flow, Store, drive
from .tokens import ServiceKeys
from .verifier import SessionVerifier

T = TypeVar("T")


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
            prefix=config.key_prefix,
            clock=clock,
            monotonic=monotonic,
            random=random,
        )
        self.config = config
        self.service_keys = tuple(ServiceKeys.derive(secret) for secret in config.secrets)
        self._authority: Authority | None = None

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

    def applying(self, flow: Flow[Outcome[T]]) -> Flow[T]:
        """The flow, with the sessions that it ends refused here at once."""
        life = self.authority.entry_life
        try:
            outcome = yield from flow
        except TokenTheftDetected as theft:
            self.refuse((handle_bytes(theft.handle),), life)
            raise
        self.refuse(outcome.ended, life)
        return outcome.value

    def rotate_keys(self) -> Flow[str]:
        """Publish a new key now; it signs after its publication delay."""
        prefix = self.config.key_prefix
        while True:
            state = yield from flows.read_keys(prefix, private=True)
            key = yield from self._add_key(state, self._read_ring(state))
            self._take_over((yield from flows.read_keys(prefix, private=True)))
            if key is not None:
                return key.kid

    def _open(self) -> Placement:
        config = self.config
        claim = flows.claim_store(config.key_prefix, config.shards, config.access_token_lifetime)
        placement = drive(self._store, claim)
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
        return placement

    def _keep_ring(self) -> flows.StoreState:
        prefix = self.config.key_prefix
        state = drive(self._store, flows.read_keys(prefix, private=True))
        self._take_over(state)
        due = self._ring.due_at(self.config.signing_key_interval) <= state.now / 1000
        if due and state.placement is not None:
            drive(self._store, self._add_key(state, self._ring))
            state = drive(self._store, flows.read_keys(prefix, private=True))
            self._take_over(state)
        return state

    def _take_over(self, state: flows.StoreState) -> None:
        super()._take_over(state)
        # A store that has been emptied is to be claimed anew before anything is written to it.
        self._authority = (
            Authority(self.config, self.service_keys, self._ring, state.placement, state.longest_access_lifetime)
            if state.placement is not None
            else None
        )

    def _read_ring(self, state: flows.StoreState) -> KeyRing:
        return KeyRing.read(state.records, self.service_keys)

    def _add_key(self, state: flows.StoreState, ring: KeyRing) -> Flow[RingKey | None]:
        """Make a key and add it; None when another process was first.

        Its times are the store's: one process whose clock is ahead would keep all of them from a new key.
        """
        config, now = self.config, state.now / 1000
        newest = ring.newest
        created_at = max(state.now, newest.created_at + 1 if newest else 0)
        delay = publication_delay(config.signing_key_interval) if newest else 0
        key = generate_key(config.signing_algorithm, created_at=created_at, signs_at=created_at + int(delay * 1000))
        sealed = key.sealed_record(self.service_keys[0], self._random(12))
        retired = ring.retired(now, state.longest_access_lifetime)
        added = yield from flows.add_key(config.key_prefix, state.newest, key, sealed, retired)
        return key if added else None
