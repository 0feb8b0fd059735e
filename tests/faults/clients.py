"""The clients of a run, in one process: browsers with two tabs, thieves, revokers, and those that come back dead.

What a client was told is written down as soon as it was told, also where the client is then made to lose the answer.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .journal import OPEN, Event, Journal, digest
from .rpc import Caller, Message
from .workload import Setup

#: Seconds that a client waits for an answer; with what a service may take after that, less than W.
PATIENCE = 2.5
#: Of the requests that a browser sends, and of the answers on their way to it, so many are lost.
REQUESTS_LOST, REPLIES_LOST = 0.02, 0.05
#: The last is revoked as a whole every now and then.
TENANTS = ("public", "acme", "brief")
#: A revocation may wait until all gateways have reported it, or have gone stale.
REVOKERS_PATIENCE = 12.0
WAITS = (None, "propagated", "replicated")
#: What of an answer is not for the journal.
NOT_SAID = frozenset({"refresh", "access", "changed"})


@dataclass(eq=False)
class Jar:
    """What a browser holds of one session, and what somebody could have stolen of it."""

    session: str
    user: str
    tenant: str
    refresh: str = field(repr=False)
    generation: int = 0
    access: str = field(default="", repr=False)
    #: What the journal is told of the access token.
    said: Message = field(default_factory=dict)
    over: bool = False
    born: float = field(default_factory=time.monotonic)
    #: Tokens that were exchanged: generation, token, and when their child was first used.
    exchanged: list[tuple[int, str, float]] = field(default_factory=list, repr=False)

    def take(self, answer: Message) -> None:
        """What a browser does with an answer. One without a new refresh token leaves that cookie as it is."""
        if answer["changed"]:
            self.refresh, self.generation = answer["refresh"], answer["child_generation"]
        self.access = answer["access"]
        self.said = {
            "session": self.session,
            "generation": answer["child_generation"],
            "token": digest(self.access),
            "issued_at": answer["issued_at"],
            "expires_at": answer["expires_at"],
            "key": answer["key"],
        }


class Clients:
    """All of them, until ``stop``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.setup = folder, Setup.load(folder)
        self.journal = Journal(folder, name)
        self.random = random.Random(self.setup.seed)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.jars: dict[str, Jar] = {}
        #: Of sessions that have ended, the latest.
        self.dead: deque[Jar] = deque(maxlen=80)

    def run(self) -> None:
        """Live until ``stop``."""
        roles = [_Browser(self, number) for number in range(self.setup.browsers)]
        roles += [_Thief(self), _Revoker(self), _Revoker(self), _Sweeper(self), _Ghost(self), _Ghost(self)]
        threads = [threading.Thread(target=role.live, name=type(role).__name__) for role in roles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Let them come to an end."""
        self._stopping.set()

    def pause(self, seconds: float) -> bool:
        """Do nothing for a moment; False when it is time to end."""
        return not self._stopping.wait(seconds)

    @property
    def gateways(self) -> list[str]:
        """Those that there are; some come by forks."""
        return [path.stem for path in self.folder.glob("*.sock")]

    def bury(self, jar: Jar) -> None:
        """A session is over: nobody uses it but those who should not."""
        jar.over = True
        with self._lock:
            if self.jars.pop(jar.session, None) is not None:
                self.dead.append(jar)

    def keep(self, jar: Jar) -> None:
        """A session that others may meddle with."""
        with self._lock:
            self.jars[jar.session] = jar

    def some(self, jars: dict[str, Jar] | deque[Jar]) -> list[Jar]:
        """Those of this moment."""
        with self._lock:
            return list(jars.values() if isinstance(jars, dict) else jars)


class _Client:
    """Somebody who asks, in a thread."""

    who = ""
    patience = PATIENCE

    def __init__(self, world: Clients) -> None:
        self.world, self.setup = world, world.setup
        self.random = random.Random(world.random.random())
        self.caller = Caller(world.folder, self.patience)

    def live(self) -> None:
        raise NotImplementedError

    def ask(self, kind: str, message: Message, *, caller: Caller | None = None, **said: Any) -> tuple[Message, Event]:
        """Ask some service, and write down what it answered."""
        service = self.random.choice(self.setup.services)
        began = time.monotonic()
        answer = (caller or self.caller).ask(service, {"do": kind, **message})
        told = {name: value for name, value in answer.items() if name not in NOT_SAID}
        return answer, self.world.journal.write(kind, began, asked=service, who=self.who, **said, **told)

    def show(self, jar: Jar, where: str | None = None) -> str:
        """Show a session's access token somewhere; what came of it. The gateway writes it down."""
        gateway = where or self.random.choice(self.world.gateways)
        message = {"do": "verify", "access": jar.access, "said": jar.said | {"who": self.who}}
        return str(self.caller.ask(gateway, message)["result"])

    def refresh(self, jar: Jar, token: str, generation: int, **more: Any) -> tuple[Message, Event]:
        """Show a refresh token."""
        said = {"session": jar.session, "generation": generation, "token": digest(token)}
        return self.ask("refresh", {"token": token}, **said, **more)

    def revoke(self, scope: str, target: str, wait: str | None = None) -> bool:
        """Revoke something; whether that was acknowledged."""
        shown = digest(target) if scope == "token" else target
        message = {"scope": scope, "target": target, "wait": wait}
        answer, _ = self.ask("revoke", message, scope=scope, target=shown, wait=wait or "")
        return bool(answer["result"] == "ok")

    def info(self, jar: Jar) -> None:
        """Ask what the store knows."""
        self.ask("info", {"session": jar.session}, session=jar.session)


class _Browser(_Client):
    """Signs in, uses its session, refreshes it in one tab or two, loses answers, and signs out, again and again."""

    who = "honest"

    def __init__(self, world: Clients, number: int) -> None:
        super().__init__(world)
        self.user = f"user-{number // 2}"
        self.tenant = TENANTS[max(0, number % 6 - 3)]
        self.tabs = ThreadPoolExecutor(2)
        self.callers = [Caller(world.folder, PATIENCE) for _ in range(2)]

    def live(self) -> None:
        while self.world.pause(self.random.uniform(0.05, 0.3)):
            if (jar := self.sign_in()) is not None:
                self.use(jar)
        self.tabs.shutdown()

    def sign_in(self) -> Jar | None:
        lifetime = 15 if self.random.random() < 0.15 else None
        message = {"user": self.user, "tenant": self.tenant, "lifetime": lifetime}
        service = self.random.choice(self.setup.services)
        began = time.monotonic()
        answer = self.caller.ask(service, {"do": "create", **message})
        session = answer.get("answered", "")
        told = {name: value for name, value in answer.items() if name not in NOT_SAID}
        said = {"session": session, "user": self.user, "tenant": self.tenant, "token": digest(answer.get("access", ""))}
        self.world.journal.write("create", began, asked=service, who=self.who, **said, **told)
        if answer["result"] != "ok":
            return None
        jar = Jar(session, self.user, self.tenant, answer["refresh"])
        jar.take(answer)
        self.world.keep(jar)
        self.info(jar)
        return jar

    def use(self, jar: Jar) -> None:
        """Live with a session until it ends, by oneself or by somebody."""
        end = time.monotonic() + self.random.uniform(15, 120)
        due = time.monotonic() + self.random.uniform(0.5, 3)
        while self.world.pause(self.random.uniform(0.05, 0.25)) and not jar.over:
            if self.show(jar) == "try_refresh" or time.monotonic() > due:
                self.renew(jar)
                due = time.monotonic() + self.random.uniform(0.5, 3)
            if time.monotonic() > end and self.revoke("session", jar.session):
                self.world.bury(jar)
            elif self.random.random() < 0.02:
                self.info(jar)

    def renew(self, jar: Jar) -> None:
        """Refresh, at times in both tabs at once; what arrives is taken in the order in which it arrives."""
        shown, generation = jar.refresh, jar.generation
        tabs = [tab for tab in range(self.random.choice((1, 1, 2))) if self.random.random() >= REQUESTS_LOST]
        for tab in [self.tabs.submit(self._renew, jar, shown, generation, tab) for tab in tabs]:
            tab.result()

    def _renew(self, jar: Jar, shown: str, generation: int, tab: int) -> None:
        lost = self.random.random() < REPLIES_LOST
        answer, event = self.refresh(jar, shown, generation, caller=self.callers[tab], lost=lost)
        if answer["result"] in ("unauthorised", "theft"):
            self.world.bury(jar)
        if answer["result"] != "ok":
            return
        # Its arrival has confirmed the token that was shown: what came before it is now somebody else's copy.
        for n, (old, token, used) in enumerate(jar.exchanged):
            if old < generation and not used:
                jar.exchanged[n] = old, token, event.ended
        if not lost:
            if answer["changed"] and jar.refresh == shown:
                jar.exchanged.append((generation, shown, 0.0))
            jar.take(answer)


class _Thief(_Client):
    """Shows tokens that were exchanged long ago, until it hears a verdict."""

    who = "thief"

    def live(self) -> None:
        while self.world.pause(0.3):
            for jar in self.world.some(self.world.jars):
                if self.random.random() < 0.3 and (stolen := self._worth(jar)):
                    self.replay(jar, *stolen)
                    break

    def _worth(self, jar: Jar) -> tuple[int, str] | None:
        bound = time.monotonic() - self.setup.window - 1
        found = [(old, token) for old, token, used in jar.exchanged if used and used < bound]
        return self.random.choice(found) if found else None

    def replay(self, jar: Jar, generation: int, token: str) -> None:
        while True:
            answer, _ = self.refresh(jar, token, generation)
            if answer["result"] not in OPEN:
                break
            if not self.world.pause(0.2):
                return
        if answer["result"] in ("theft", "unauthorised"):
            self.world.bury(jar)


class _Revoker(_Client):
    """Revokes other people's sessions, and looks at once whether they are refused."""

    who = "revoker"
    patience = REVOKERS_PATIENCE

    def live(self) -> None:
        while self.world.pause(self.random.uniform(0.5, 1.5)):
            jars = self.world.some(self.world.jars)
            if jars:  # rather the young ones: a session must grow old to be rotated and stolen from
                self.end(max(self.random.choices(jars, k=4), key=lambda jar: jar.born))

    def end(self, jar: Jar) -> None:
        match self.random.choices(("session", "user", "token"), (8, 1, 1))[0]:
            case "session":
                self.sweep("session", jar.session, [jar])
            case "user":
                self.sweep("user", jar.user, [other for other in self._there() if other.user == jar.user])
            case _:
                self.revoke("token", jar.access, self.random.choice(WAITS))

    def sweep(self, scope: str, target: str, jars: list[Jar]) -> None:
        """Revoke all of these at once."""
        if self.revoke(scope, target, self.random.choice(WAITS)):
            for jar in jars:
                self.world.bury(jar)
            for gateway in self.world.gateways:
                for jar in jars[:3]:
                    self.show(jar, gateway)

    def _there(self) -> list[Jar]:
        return self.world.some(self.world.jars)


class _Sweeper(_Revoker):
    """Revokes much at once: a tenant, a signing key, everything."""

    def live(self) -> None:
        turn = 0
        while self.world.pause(self.random.uniform(9, 14)):
            turn += 1
            there = self._there()
            if turn % 4 == 2 and there:
                self.revoke("key", there[-1].said["key"], self.random.choice(WAITS))
            elif turn % 4 == 0:
                self.sweep("all", "", there)
            else:
                self.sweep("tenant", TENANTS[-1], [jar for jar in there if jar.tenant == TENANTS[-1]])


class _Ghost(_Client):
    """Comes with the tokens of sessions that have ended."""

    who = "ghost"

    def live(self) -> None:
        while self.world.pause(0.02):
            dead = self.world.some(self.world.dead)
            if not dead:
                continue
            jar = self.random.choice(dead[-15:] if self.random.random() < 0.7 else dead)
            match self.random.choices(("show", "refresh", "info"), (20, 2, 1))[0]:
                case "show":
                    self.show(jar)
                case "refresh":
                    self.refresh(jar, jar.refresh, jar.generation)
                case _:
                    self.info(jar)
