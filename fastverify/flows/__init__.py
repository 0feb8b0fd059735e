"""Every operation on sessions as a flow: a generator that yields calls and is sent their replies. No I/O, no clock.

A flow is driven blockingly or with ``await`` by the same few lines (store/driver.py), so each operation is written
once. ``now`` is in seconds since the epoch, by the caller's clock; ``random`` returns that many fresh random bytes.
"""

from . import limits
from .common import EndedNow, Outcome, Random, Written
from .creating import AlreadyThere, check_user, create
from .guests import promote
from .impersonation import impersonate, stop_impersonating
from .moving_in import claim_exchange, settle_exchange
from .reading import get_data, handles, info, list_sessions, merge_payload, recheck, reissue, set_data, verify_strict
from .refreshing import redeliver, refresh
from .revoking import (
    EVERYBODY,
    Wait,
    blacklist,
    blacklist_key,
    check_wait,
    nothing,
    revoke_all,
    revoke_many,
    revoke_tenant,
    revoke_user,
    settle,
)
from .sightings import confirm, note_seen
from .store_state import StoreState, add_key, claim_store, read_keys
from .stream import read_events, record_event

__all__ = [
    "EVERYBODY",
    "AlreadyThere",
    "EndedNow",
    "Outcome",
    "Random",
    "StoreState",
    "Wait",
    "Written",
    "add_key",
    "blacklist",
    "blacklist_key",
    "check_user",
    "check_wait",
    "claim_exchange",
    "claim_store",
    "confirm",
    "create",
    "get_data",
    "handles",
    "impersonate",
    "info",
    "limits",
    "list_sessions",
    "merge_payload",
    "note_seen",
    "nothing",
    "promote",
    "read_events",
    "read_keys",
    "recheck",
    "record_event",
    "redeliver",
    "refresh",
    "reissue",
    "revoke_all",
    "revoke_many",
    "revoke_tenant",
    "revoke_user",
    "set_data",
    "settle",
    "settle_exchange",
    "stop_impersonating",
    "verify_strict",
]
