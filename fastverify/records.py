"""Session records as the store holds them (rotation.md section 3): hash fields in, typed values out.

Members of the payload are one field each, ``p:<name>``, and they, the session data and the device are msgpack that Lua
never decodes. Times are milliseconds of the primary's clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack

from .errors import StoreUnavailable
from .session import ACT, SessionInfo, format_handle

_MEMBER = b"p:"
_ACT_MEMBER = _MEMBER + ACT.encode()


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose session it is that acts as another user's."""

    handle: str
    user_id: str
    #: Of that session's refresh token, when its client went over to this one.
    generation: int


@dataclass(frozen=True, slots=True)
class Record:
    """One session's record."""

    handle: bytes
    user_id: str
    login_id: str
    tenant: str
    secret: bytes = field(repr=False)
    #: Names the service secret that the current refresh token was made under.
    key_id: bytes
    generation: int
    created_at: int
    seen_at: int
    idle_expires_at: int
    absolute_expires_at: int
    #: Whether the session is bound to an anti-CSRF token.
    anti_csrf: bool
    payload: dict[str, Any]
    device: dict[str, Any]
    data: Any
    #: How often the payload has been changed.
    revision: int = 0
    #: Whether cookies are to outlive the browser. Records of before there was a choice do not say.
    remember: bool = True
    #: None: the session is its user's own.
    actor: Actor | None = None
    #: When an access token was last seen in use, if that was noted after the last refresh.
    used_at: int = 0

    @property
    def stated(self) -> dict[str, Any]:
        """The payload as access tokens state it."""
        return self.payload if self.actor is None else {**self.payload, ACT: {"sub": self.actor.user_id}}

    @classmethod
    def read(cls, handle: bytes, flat: Sequence[bytes]) -> Record:
        """Read the flat list of fields and values that the scripts return.

        Raises:
            StoreUnavailable: it is not a record that this version can read; that says nothing about the session.
        """
        try:
            return cls._read(handle, flat)
        except (KeyError, ValueError) as error:  # what msgpack raises is a ValueError, too
            raise StoreUnavailable("a session's record in the store cannot be read") from error

    @classmethod
    def _read(cls, handle: bytes, flat: Sequence[bytes]) -> Record:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return cls(
            handle=handle,
            user_id=fields[b"user"].decode(),
            login_id=fields[b"login_id"].decode(),
            tenant=fields[b"tenant"].decode(),
            secret=fields[b"secret"],
            key_id=fields[b"key"],
            generation=int(fields[b"G"]),
            created_at=int(fields[b"created_at"]),
            seen_at=int(fields[b"seen_at"]),
            idle_expires_at=int(fields[b"idle_exp"]),
            absolute_expires_at=int(fields[b"abs_exp"]),
            anti_csrf=fields[b"csrf"] == b"1",
            payload={
                name[len(_MEMBER) :].decode(): unpack(value)
                for name, value in fields.items()
                if name.startswith(_MEMBER) and name != _ACT_MEMBER  # of before it meant anything
            },
            device=unpack(fields[b"device"]),
            data=unpack(fields[b"data"]) if b"data" in fields else None,
            revision=int(fields.get(b"rev", 0)),
            remember=fields.get(b"remember") != b"0",
            actor=(
                Actor(fields[b"actor"].decode(), fields[b"actor_user"].decode(), int(fields[b"actor_g"]))
                if b"actor" in fields
                else None
            ),
            used_at=int(fields.get(b"used_at", 0)),
        )

    def begun_at(self, now: int) -> Record:
        """A record that is just made, by another clock; ``now`` in milliseconds since the epoch."""
        later = now - self.created_at
        return replace(
            self,
            created_at=now,
            seen_at=now,
            idle_expires_at=self.idle_expires_at + later,
            absolute_expires_at=self.absolute_expires_at + later,
        )

    def info(self) -> SessionInfo:
        """The record as callers see it."""
        return SessionInfo(
            handle=format_handle(self.handle, self.tenant),
            user_id=self.user_id,
            login_id=self.login_id,
            tenant=self.tenant,
            payload=self.stated,
            data=self.data,
            device=self.device,
            created_at=self.created_at // 1000,
            last_seen_at=max(self.seen_at, self.used_at) // 1000,
            expires_at=self.idle_expires_at // 1000,
            absolute_expires_at=self.absolute_expires_at // 1000,
            actor=None if self.actor is None else self.actor.user_id,
            actor_handle=None if self.actor is None else self.actor.handle,
        )


def member_field(name: str) -> str:
    """The field of one top-level payload member."""
    return _MEMBER.decode() + name


def pack(value: Any) -> bytes:
    """A JSON value as msgpack. Redis's own reader knows no *bin* type, so none is written."""
    return bytes(msgpack.packb(value, use_bin_type=False))


def unpack(packed: bytes) -> Any:
    """The value that ``pack`` was given."""
    return msgpack.unpackb(packed, raw=False)


def json_value(name: str, value: Any) -> Any:
    """A value as JSON would return it: tuples become lists and keys strings, so that what is read equals what was kept.

    Raises:
        ValueError: it is not JSON, or holds a whole number beyond 64 bits.
    """
    try:
        value = json.loads(json.dumps(value, allow_nan=False))
        pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON, with whole numbers of at most 64 bits: {error}") from error
    return value


def json_object(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """``json_value`` of a mapping; an empty one for None."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, not {type(value).__name__}")
    result: dict[str, Any] = json_value(name, dict(value or {}))
    return result
