"""The processes of a run: session services, gateways, and the clients that use them.

    python -m faults.workload service NAME FOLDER URL
    python -m faults.workload gateway NAME FOLDER URL
    python -m faults.workload clients NAME FOLDER

``FOLDER/setup.json`` is the `Setup` that they share; there they listen, and there are their journals. Each lives until
its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facades import settings

from fastverify import (
    Config,
    Issued,
    Sessions,
    SessionVerifier,
    StoreUnavailable,
    TokenTheftDetected,
    TooManyRefreshes,
    TryRefreshToken,
    Unauthorised,
)
from fastverify.flows import Wait
from fastverify.store import open_store

from . import rpc
from .journal import Journal, digest
from .rpc import Message


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all processes of a run must agree on."""

    prefix: str
    services: tuple[str, ...] = ("service1", "service2")
    gateways: tuple[str, ...] = ("gate1", "gate2")
    browsers: int = 24
    window: int = 5
    staleness: float = 3.0
    shards: int = 4
    #: Longer than a run is fast: what has been revoked is to be refused for that, and not because it has expired.
    access_token_lifetime: int = 600
    seed: int = 0

    def save(self, folder: Path) -> None:
        """For the processes."""
        (folder / "setup.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Setup:
        """What was saved."""
        loaded = json.loads((folder / "setup.json").read_text())
        return cls(**loaded | {name: tuple(loaded[name]) for name in ("services", "gateways")})

    @property
    def config(self) -> Config:
        """The services' settings."""
        return settings(
            self.prefix,
            exchange_seconds=self.window,
            revocation_staleness=self.staleness,
            shards=self.shards,
            access_token_lifetime=self.access_token_lifetime,
        )


class _Clock:
    """The machine's wall clock, but for what it has been told to be off by."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class _Process:
    """Answers requests by methods of their names."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.setup = name, folder, Setup.load(folder)
        self.journal = Journal(folder, f"{name}-{os.getpid()}")
        self.clock = _Clock()

    def answer(self, message: Message) -> Message:
        """What came of a request."""
        operation = getattr(self, message.pop("do"))
        return {"clock": self.clock.offset} | _outcome(lambda: operation(**message))

    def set_clock(self, offset: float) -> Message:
        """Put the wall clock wrong, or right."""
        self.clock.offset = offset
        return {}

    def _verify(self, verify: Callable[[str], Any], access: str, said: Message) -> Message:
        """Verify a token; what the client knows of it is written down with the verdict, here and now.

        It is the core's own clock that decides here; the one that can be put wrong has no part in it.
        """
        began = time.monotonic()
        outcome = _outcome(lambda: {"answered": verify(access).handle})
        self.journal.write("verify", began, asked=self.name, **said, **outcome)
        return outcome


class Service(_Process):
    """A session service."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        super().__init__(name, folder)
        # To wait for long would keep a request for longer than W, which no honest one may be.
        self.sessions = Sessions(open_store(url), self.setup.config, wait=1.0, clock=self.clock)
        self.sessions.gateway.start(0)

    def create(self, user: str, tenant: str, lifetime: int | None) -> Message:
        return _issued(self.sessions.create(user, tenant=tenant, lifetime=lifetime))

    def refresh(self, token: str) -> Message:
        return _issued(self.sessions.refresh(token))

    def verify(self, access: str, said: Message) -> Message:
        return self._verify(self.sessions.verify, access, said)

    def info(self, session: str) -> Message:
        found = self.sessions.info(session)
        if found is None:
            return {"result": "gone"}
        return {"answered": found.handle, "ends_at": found.absolute_expires_at}

    def revoke(self, scope: str, target: str, wait: Wait) -> Message:
        """``target`` of the scope ``token`` is the access token."""
        sessions = self.sessions
        match scope:
            case "session":
                sessions.revoke(target, wait=wait)
            case "user":
                sessions.revoke_user(target, wait=wait)
            case "tenant":
                sessions.revoke_tenant(target, wait=wait)
            case "all":
                sessions.revoke_all(wait=wait)
            case "token":
                sessions.blacklist(target, wait=wait)
            case "key":
                sessions.revoke_key(target, wait=wait)
        return {}

    def counters(self) -> Message:
        """What its follower has done."""
        return self.sessions.gateway.follower_info()._asdict()


class Gateway(_Process):
    """A process that verifies, and nothing else."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        super().__init__(name, folder)
        setup = self.setup
        self.verifier = SessionVerifier(
            open_store(url),
            issuer=setup.config.issuer,
            prefix=setup.prefix,
            staleness=setup.staleness,
            clock=self.clock,
        )
        self.verifier.start(0)

    def verify(self, access: str, said: Message) -> Message:
        return self._verify(self.verifier.verify, access, said)

    def counters(self) -> Message:
        """What its follower has done."""
        return self.verifier.follower_info()._asdict()

    def fork(self, child: str) -> Message:
        """Fork; the child serves under a name of its own, by what it has inherited."""
        if os.fork() == 0:
            self.name = child
            self.journal = Journal(self.folder, f"{child}-{os.getpid()}")
            _live(self)
        return {}


def _outcome(operation: Callable[[], Message]) -> Message:
    """What an operation returned or raised, in the journal's words."""
    try:
        return {"result": "ok"} | operation()
    except StoreUnavailable as error:
        result = "unavailable" if error.retry_after >= 1 else "error: nobody is told when to try again"
        return {"result": result, "note": str(error)}
    except Unauthorised as error:
        return {"result": "unauthorised" if error.clear_tokens else "error: a token that was taken for garbage"}
    except TryRefreshToken:
        return {"result": "try_refresh"}
    except TokenTheftDetected as error:
        return {"result": "theft", "answered": error.handle}
    except TooManyRefreshes:
        return {"result": "busy"}
    except Exception as error:
        return {"result": f"error: {type(error).__name__}: {error}"}


def _issued(issued: Issued) -> Message:
    session = issued.session
    return {
        "answered": session.handle,
        "refresh": issued.refresh_token,
        "changed": issued.refresh_token_changed,
        "access": session.access_token,
        "child": digest(issued.refresh_token),
        "child_generation": int(session.claims["refreshTokenHash1"][:8], 16),
        "issued_at": session.issued_at,
        "expires_at": session.expires_at,
        "key": session.claims.key_id,
    }


def _live(process: Service | Gateway) -> None:
    """Serve until standard input ends."""
    rpc.serve(rpc.socket_path(process.folder, process.name), process.answer)
    while os.read(0, 100):
        pass
    os._exit(0)


def main(role: str, name: str, folder: str, *url: str) -> None:
    """Be one of the processes."""
    if role == "service":
        _live(Service(name, Path(folder), *url))
    elif role == "gateway":
        _live(Gateway(name, Path(folder), *url))
    else:
        from .clients import Clients  # which starts with threads that the others do not need

        clients = Clients(Path(folder), name)
        threading.Thread(target=lambda: (os.read(0, 100), clients.stop()), daemon=True).start()
        clients.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
