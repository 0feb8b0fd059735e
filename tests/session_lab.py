"""A session service on a real store, with a hand on the store's clock: for the tests of rotation and revocation.

Everything goes through the flows or their calls, as in the library; no managers, threads or caches are in between.

The clock of a store cannot be moved. What it is compared with can: ``advance`` makes every record, hold and mark older,
which to the scripts is the same. The time to live of the keys stays as it is: it is the records' own times that decide.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import redis
from facades import settings

from fastverify import Issued, flows
from fastverify.authority import Authority
from fastverify.flows import Outcome
from fastverify.key_ring import KeyRing, generate_key
from fastverify.placement import Placement
from fastverify.session import handle_bytes
from fastverify.store import Call, Flow, Store, drive
from fastverify.tokens import ServiceKeys, parse_refresh_token

T = TypeVar("T")

_AGE_RECORDS = """
for _, record in ipairs(KEYS) do
  for _, name in ipairs({'handed_at', 'conf_at', 'created_at', 'seen_at', 'used_at', 'idle_exp', 'abs_exp'}) do
    local at = redis.call('HGET', record, name)
    if at then
      redis.call('HSET', record, name, string.format('%.0f', at - ARGV[1]))
    end
  end
end
"""
_SIGNING_KEY = generate_key("ES256", created_at=0, signs_at=0)

W, D = 10, 21
"""Exchange window and debounce of the default settings, in seconds."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of some keys of a store, as a replica may hold it."""

    keys: dict[str, bytes | None]
    taken_at: float


def plain_client(store: Store) -> redis.Redis:
    """A client that is not the library's, to look into a store and to meddle with it."""
    where = dict(store._endpoint.settings)
    if "path" in where:
        where["unix_socket_path"] = where.pop("path")
    return redis.Redis(**where)


def know_primary(client: redis.Redis, tags: Iterable[str]) -> None:
    """Have these shards know their primary for long: no verifier is left that serves by what another one said."""
    for tag in tags:
        client.hset(f"{tag}:gw", "primary", f"{client.info('replication')['master_replid']} 0")


class Lab:
    """One service and its store. No shard is in a hold unless ``fail_over`` puts it into one."""

    def __init__(self, store: Store, prefix: str, **changes: Any) -> None:
        self.store = store
        self.redis = plain_client(store)
        self.config = settings(prefix, **changes)
        self.authority = Authority(
            config=self.config,
            service_keys=tuple(ServiceKeys.derive(secret) for secret in self.config.secrets),
            ring=KeyRing((_SIGNING_KEY,)),
            placement=Placement(prefix, self.config.shards),
            longest_access_lifetime=self.config.access_token_lifetime,
        )
        #: Seconds by which the store's clock has been moved.
        self.advanced = 0.0
        self._handles: set[str] = set()
        self.end_holds()
        know_primary(self.redis, self.authority.placement.tags)

    def close(self) -> None:
        """Drop the plain client's connections."""
        self.redis.close()

    # --- the service ---

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow."""
        return drive(self.store, flow)

    def call(self, script: str, tag: str, *args: str | bytes | int) -> Any:
        """Run one script."""
        return self.store.run(Call(script, tag, args))

    def create(self, user_id: str = "user-1", **options: Any) -> Issued:
        """Sign in."""
        issued = self.create_outcome(user_id, **options).value
        return issued

    def create_outcome(self, user_id: str = "user-1", **options: Any) -> Outcome[Issued]:
        """Sign in, and see which sessions that ended."""
        outcome = self.run(flows.create(self.authority, user_id, now=time.time(), random=os.urandom, **options))
        self._handles.add(plain_handle(outcome.value.session.handle))
        return outcome

    def refresh(self, refresh_token: str, **options: Any) -> Issued:
        """Refresh, in both trips."""
        flow = flows.refresh(self.authority, refresh_token, now=time.time(), random=os.urandom, **options)
        return self.run(flow).value

    def revoke(self, *handles: str) -> list[str]:
        """End sessions; those that were there."""
        return self.run(flows.revoke_many(self.authority, handles, random=os.urandom)).value

    def revoke_user(self, user_id: str, **options: Any) -> list[str]:
        """End a user's sessions; those that were there."""
        return self.run(flows.revoke_user(self.authority, user_id, random=os.urandom, **options)).value

    def decide(self, issued: Issued, generation: int, *, deadline: int | None = None, window: int = W) -> list[Any]:
        """The second trip of a refresh alone: what the script says of a generation. ``window`` is in seconds."""
        handle, window_ms = plain_handle(issued.session.handle), window * 1000
        debounce_ms = 2 * window_ms + 1000 if window else 0
        late = self.now_ms() + flows.limits.DEADLINE_MS if deadline is None else deadline
        key_id = self.authority.service_keys[0].key_id
        args = (handle, generation, late, window_ms, debounce_ms, flows.limits.MAX_REDELIVERIES)
        keys = key_id, key_id, self.authority.events_kept
        reply = self.call("refresh", self.tag(issued), *args, self.authority.entry_life, os.urandom(16), *keys)
        assert reply[0] == handle.encode()
        return list(reply[1:])

    # --- the store ---

    def tag(self, session: Issued | str) -> str:
        """The hash tag of a session's shard."""
        handle = session if isinstance(session, str) else session.session.handle
        return self.authority.tag_of_handle(handle_bytes(handle))

    def record_key(self, issued: Issued) -> str:
        """Where a session's record is."""
        return f"{self.tag(issued)}:s:{plain_handle(issued.session.handle)}"

    def record(self, issued: Issued) -> dict[str, bytes]:
        """A session's record; empty if there is none."""
        return {name.decode(): value for name, value in self.redis.hgetall(self.record_key(issued)).items()}

    def number(self, issued: Issued, field: str) -> int:
        """A number of a session's record."""
        return int(self.record(issued)[field])

    def entries(self, tag: str) -> list[bytes]:
        """The revocation entries in a shard's log."""
        return [fields[b"e"] for _, fields in self.redis.xrange(f"{tag}:log") if b"e" in fields]

    def blacklisted(self, tag: str) -> set[bytes]:
        """The revocation entries in a shard's sets."""
        windows = self.redis.zrange(f"{tag}:windows", 0, -1)
        return {entry for window in windows for entry in self.redis.smembers(f"{tag}:rev:{window.decode()}")}

    def now_ms(self) -> int:
        """The store's clock."""
        seconds, microseconds = self.redis.time()
        return seconds * 1000 + microseconds // 1000

    # --- what happens to it ---

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.advanced += seconds
        self._age(seconds, *(f"{self.tag(handle)}:s:{handle}" for handle in self._handles))
        for tag in self.authority.placement.tags:
            if (hold := self.redis.get(f"{tag}:hold")) is not None:
                self.redis.set(f"{tag}:hold", int(hold) - _ms(seconds))
            for name, cut in self.redis.hgetall(f"{tag}:marks").items():
                self.redis.hset(f"{tag}:marks", name, int(cut) - _ms(seconds))

    def _age(self, seconds: float, *records: str) -> None:
        for _, ours in groupby(sorted(records), key=lambda record: record.partition(":s:")[0]):
            keys = list(ours)
            self.redis.eval(_AGE_RECORDS, len(keys), *keys, _ms(seconds))

    def mark(self, tenant: str) -> Outcome[None]:
        """End a tenant's sessions up to now; ``*``: everybody's."""
        everybody = tenant == flows.EVERYBODY
        flow = flows.revoke_all if everybody else partial(flows.revoke_tenant, tenant=tenant)
        return self.run(flow(self.authority, random=os.urandom))

    def confirm(self, issued: Issued, generation: int) -> None:
        """A gateway reports that it has seen an access token of this generation (rotation.md, confirmation)."""
        self.run(flows.confirm(self.authority.placement, {handle_bytes(issued.session.handle): generation}))

    def snapshot(self, *sessions: Issued) -> Snapshot:
        """Copy what a replica would hold of sessions: their records, and their users' indexes."""
        keys = {self.record_key(issued) for issued in sessions}
        keys |= {f"{self.tag(issued)}:u:{issued.session.user_id}" for issued in sessions}
        return Snapshot({key: self.redis.dump(key) for key in keys}, self.advanced)

    def restore(self, snapshot: Snapshot) -> None:
        """Make it so again; the copy has grown older meanwhile."""
        for key, copy in snapshot.keys.items():
            self.redis.delete(key)
            if copy is not None:
                self.redis.restore(key, 0, copy)
        self._age(self.advanced - snapshot.taken_at, *(key for key in snapshot.keys if ":s:" in key))

    def fail_over(self, snapshot: Snapshot | None = None, *, tags: Iterable[str] | None = None) -> None:
        """Another primary takes over, in these shards or all; with a snapshot, one that knows no more than that."""
        if snapshot is not None:
            self.restore(snapshot)
        for tag in self.authority.placement.tags if tags is None else tags:
            self.redis.set(f"{tag}:primary", "another")

    def end_holds(self) -> None:
        """The primary that there is has been one for long."""
        primary = self.redis.info("replication")["master_replid"]
        for tag in self.authority.placement.tags:
            self.redis.mset({f"{tag}:primary": primary, f"{tag}:hold": 0})


def plain_handle(handle: str) -> str:
    """A handle without its tenant, as the store names the session."""
    return str(uuid.UUID(bytes=handle_bytes(handle)))


def generation(refresh_token: str, lab: Lab) -> int:
    """The generation of a refresh token of the lab's service."""
    token = parse_refresh_token(lab.authority.service_keys, refresh_token)
    assert token is not None
    return token.generation


def session_entry(handle: str) -> bytes:
    """A session's revocation entry (revocation.md): kind, target, no cutoff."""
    return b"\x01" + handle_bytes(handle) + bytes(8)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
