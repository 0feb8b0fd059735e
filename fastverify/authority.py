"""Authority: what a session service knows at one moment, and what it mints of it. Pure: times come in as arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .config import Config
from .errors import StoreUnavailable, Unauthorised
from .key_ring import KeyRing, RingKey
from .placement import Placement
from .records import Record, json_object
from .session import Issued, Session, format_handle
from .tokens import (
    ServiceKeys,
    anti_csrf_token,
    front_token,
    minted_claims,
    minted_session,
    refresh_token_hash,
    signing_input,
)

#: Seconds that a revoked key stays revoked: whoever has its private part makes tokens that expire when he likes.
KEY_ENTRY_LIFE = 366 * 24 * 3600
#: Seconds that a revocation outlives the longest access token: leeway, and clocks that disagree.
REVOCATION_MARGIN = 60 + 300
#: Seconds that a JWT by a static key lives, unless it is told to live shorter: 100 years (wire.md section 5.2).
LONGEST_JWT_LIFE = 100 * 365 * 24 * 3600
#: Members of a JWT that whoever asks for it does not choose.
_SET_HERE = ("iss", "iat", "exp")
#: Members that a session's token is known by (wire.md section 1.1). With them any user could be made up.
_OF_SESSIONS = ("sessionHandle", "refreshTokenHash1", "parentRefreshTokenHash1")


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is when tokens are minted.

    Args:
        now: seconds since the epoch, by this process's clock.
        store_now: milliseconds since the epoch, by the clock of the session's shard.
        mark: the newest that concerns the session, in milliseconds since the epoch; 0 if there is none.
    """

    now: float
    store_now: int
    mark: int = 0

    @property
    def issued_at(self) -> int:
        """The ``iat`` of a token, which marks are compared with.

        A mark is of the store's clock. A process whose clock is a little ahead of that would issue tokens that a later
        mark does not concern; and a token issued after a mark, in the same second, is not to be taken for an older one.
        """
        at = int(self.now)
        if 0 < self.now - self.store_now / 1000 < REVOCATION_MARGIN:
            at = self.store_now // 1000
        return max(at, self.mark // 1000 + 1) if self.mark else at


@dataclass(frozen=True, slots=True)
class Authority:
    """What a session service knows at one moment: its settings and keys, and the store's layout."""

    config: Config
    #: Of every configured secret, the current one first.
    service_keys: tuple[ServiceKeys, ...]
    ring: KeyRing
    placement: Placement
    #: Seconds; the longest access lifetime ever configured on this store.
    longest_access_lifetime: int
    #: Whether an access token is known to be refused by itself.
    is_blacklisted: Callable[[str], bool] = lambda token: False

    @property
    def entry_life(self) -> int:
        """Seconds for which a revocation is kept: until no token that it could concern is alive."""
        return self.longest_access_lifetime + REVOCATION_MARGIN

    @property
    def debounce_ms(self) -> int:
        """D: a token handed out less than this ago is not rotated again."""
        window = self.config.exchange_seconds
        return 2_000 * window + 1_000 if window else 0

    @property
    def events_kept(self) -> int:
        """Events that each shard's stream keeps; 0: none is written."""
        return self.config.event_stream or 0

    def tag_of_handle(self, handle: bytes) -> str:
        """The hash tag of a session's shard."""
        return self.placement.tag(self.placement.shard_of_handle(handle))

    def tag_of_user(self, user_id: str) -> str:
        """The hash tag of a user's shard."""
        return self.placement.tag(self.placement.shard_of_user(user_id))

    def tag_of_digest(self, digest: str) -> str:
        """The hash tag of the shard for what concerns another issuer's token, by its SHA-256."""
        return self.placement.tag(int(digest[:2], 16) % self.placement.shards)

    def keys_named(self, key_id: bytes) -> ServiceKeys:
        """The keys that a record names; the current ones where their secret has been retired."""
        return next((keys for keys in self.service_keys if keys.key_id == key_id), self.service_keys[0])

    def sign(self, payload: Mapping[str, Any], now: float) -> Session:
        """Mint an access token. Raises ValueError for a payload that no verifier would accept."""
        key = self.signing_key(now, static=not self.config.use_dynamic_access_token_signing_key)
        text = signing_input(key.kid, key.algorithm, payload)
        while self.is_blacklisted(f"{text}."):
            # The one that it is to replace, again: of the same second, and a second signature makes no other token.
            payload = {**payload, "iat": payload["iat"] + 1}
            text = signing_input(key.kid, key.algorithm, payload)
        session = minted_session(f"{text}.{key.sign(text)}")
        if (session.claims.not_before or 0) > now:
            raise ValueError("the payload's nbf lies in the future: the access token could not be used")
        return session

    def signing_key(self, now: float, *, static: bool) -> RingKey:
        """The key of a kind that signs now."""
        key = self.ring.static_key(self.config.signing_algorithm) if static else self.ring.signing_key(now)
        if key is None:
            raise StoreUnavailable("the store holds no signing key that this service can open")
        return key

    def sign_jwt(self, payload: Mapping[str, Any], lifetime: int | None, now: float, *, static: bool) -> str:
        """Mint a JWT that is no session's; see ``Sessions.create_jwt``."""
        claims = json_object("payload", payload)
        for name in (*_SET_HERE, *_OF_SESSIONS):
            if name in claims:
                why = "is set here" if name in _SET_HERE else "is for the tokens of sessions only"
                raise ValueError(f"payload: {name} {why}")
        longest = LONGEST_JWT_LIFE if static else self.config.access_token_lifetime
        if lifetime is None:
            lifetime = longest
        if not isinstance(lifetime, int) or isinstance(lifetime, bool) or not 1 <= lifetime <= longest:
            raise ValueError(f"lifetime must be a whole number of seconds from 1 to {longest}")
        key, iat = self.signing_key(now, static=static), int(now)
        claims |= {"iss": self.config.issuer, "iat": iat, "exp": iat + lifetime}
        text = signing_input(key.kid, key.algorithm, claims, session=False)
        return minted_claims(f"{text}.{key.sign(text)}").token

    def check_payload(self, record: Record, payload: Mapping[str, Any], now: float) -> None:
        """See whether a payload makes an access token of this session. Raises ValueError if it does not."""
        sample = {
            **{"sub": record.user_id, "rsub": record.login_id, "tId": record.tenant, "iss": self.config.issuer},
            **{"sessionHandle": format_handle(record.handle, record.tenant), "refreshTokenHash1": "0" * 64},
            **{"exp": int(now) + 1, "iat": int(now), "parentRefreshTokenHash1": None, "antiCsrfToken": "0" * 36},
        }
        self.sign({**payload, **sample}, now)

    def access_times(self, record: Record, moment: Moment) -> tuple[int, int]:
        """The ``iat`` and ``exp`` of an access token of this session."""
        iat = moment.issued_at
        lifetime = self.config.access_token_lifetime
        return iat, min(max(int(moment.now), iat) + lifetime, record.absolute_expires_at // 1000)

    def issue(self, record: Record, refresh_token: str, moment: Moment, *, changed: bool) -> Issued:
        """The tokens of a record's current generation (wire.md section 1.1, version 5: the ten claims).

        Args:
            record: the session's, as it is now.
            refresh_token: of that generation.
            moment: what time it is.
            changed: whether the client does not have the refresh token yet.
        """
        iat, expires_at = self.access_times(record, moment)
        if expires_at <= iat:
            if record.absolute_expires_at // 1000 <= moment.store_now // 1000:
                raise Unauthorised("the session has reached the end of its absolute lifetime")
            raise StoreUnavailable("this process's clock is far ahead of the store's, to which the session lives")
        csrf = anti_csrf_token(record.secret) if record.anti_csrf else None
        payload = {
            **record.stated,
            "sub": record.user_id,
            "exp": expires_at,
            "iat": iat,
            "sessionHandle": format_handle(record.handle, record.tenant),
            "refreshTokenHash1": refresh_token_hash(refresh_token, record.generation),
            "parentRefreshTokenHash1": None,
            "antiCsrfToken": csrf,
            "tId": record.tenant,
            "rsub": record.login_id,
            "iss": self.config.issuer,
        }
        return self._issued(payload, record, refresh_token, changed, csrf, moment.now)

    def reissue(self, session: Session, record: Record, moment: Moment) -> Issued:
        """Another access token for the same refresh token, with the record's present payload and the same expiry."""
        default = {name: session.claims[name] for name in session.claims if name not in session.payload}
        payload = {**record.stated, **default, "iat": moment.issued_at}
        return self._issued(payload, record, "", False, session.claims["antiCsrfToken"], moment.now)

    def _issued(
        self,
        payload: Mapping[str, Any],
        record: Record,
        refresh_token: str,
        changed: bool,
        csrf: str | None,
        now: float,
    ) -> Issued:
        session = self.sign(payload, now)
        return Issued(
            session=session,
            access_token=session.access_token,
            refresh_token=refresh_token,
            refresh_token_changed=changed,
            refresh_token_expires_at=record.idle_expires_at // 1000,
            front_token=front_token(session.claims),
            anti_csrf_token=csrf,
            remember=record.remember,
        )
