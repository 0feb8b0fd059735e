"""A server that cannot write its files: everybody is told that the store is away, and nobody that a session is gone."""

from __future__ import annotations

import pytest
import redis
from facades import settings
from fix_stores import Launch, LaunchedServer
from fix_topologies import until

from fastverify import Sessions, SessionVerifier, StoreUnavailable

#: How the data is kept, and what the server then says of a disk that is full.
KEPT = {
    "log": {"appendfsync": "everysec"},
    "snapshots": {"appendonly": "no", "save": ("3600", "1")},
}


def refuses_writes(server: LaunchedServer) -> bool:
    """Whether it has noticed; a snapshot is what it notices by, where there is no log."""
    with server.client() as client:
        if server.settings.get("appendonly") == "no":
            client.execute_command("BGSAVE", "SCHEDULE")
        try:
            client.set("fv:probe", "x")
        except redis.ResponseError as error:
            return str(error).startswith("MISCONF")
    return False


def writes(server: LaunchedServer) -> bool:
    """Whether it writes again."""
    return not refuses_writes(server)


@pytest.mark.parametrize("kept", KEPT)
def test_a_full_disk_is_told_as_a_store_that_is_away_until_there_is_space(
    launch: Launch, unique_prefix: str, kept: str
) -> None:
    server = launch(**KEPT[kept])
    config = settings(unique_prefix, revocation_staleness=60)
    with (
        Sessions.connect(server.url, config) as sessions,
        SessionVerifier.connect(server.url, issuer=config.issuer, prefix=unique_prefix, staleness=60) as gateway,
    ):
        issued = sessions.create("alice")
        server.fill_disk()
        until("the server refuses to write", lambda: refuses_writes(server))
        for operation in (
            lambda: sessions.create("bob"),
            lambda: sessions.refresh(issued.refresh_token),
            lambda: sessions.revoke(issued.session.handle),
            lambda: sessions.revoke_user("alice"),
            lambda: sessions.verify_strict(issued.access_token),
        ):
            with pytest.raises(StoreUnavailable, match=r"disk is full, or may not be written to \(MISCONF\)$") as told:
                operation()
            assert told.value.retry_after == 5
        assert gateway.verify(issued.access_token).handle == issued.session.handle

        server.free_disk()
        until("the server writes", lambda: writes(server))
        assert sessions.refresh(issued.refresh_token).session.handle == issued.session.handle
        assert sessions.revoke(issued.session.handle)
