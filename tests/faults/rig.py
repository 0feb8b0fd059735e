"""What a run is made of: a store, the processes that use it, the proxies in between, and a hand on all of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fix_stores import LOOPBACK, WAIT, LaunchedServer, Place
from fix_topologies import Cluster, SentinelSet, Topology, until

from fastverify.placement import Placement
from fastverify.store import embedded

from .journal import Journal
from .network import HERE, Network
from .proxy import Proxy
from .rpc import Caller, Message
from .workload import Setup

_TESTS = Path(__file__).resolve().parent.parent


class Process:
    """One of the workload's processes; it ends with this one, for it lives as long as its standard input."""

    def __init__(self, folder: Path, role: str, name: str, *url: str, enter: tuple[str, ...] = ()) -> None:
        self.name = name
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
        with (folder / f"{name}.log").open("ab") as log:
            self._child = subprocess.Popen(
                [*enter, sys.executable, "-m", "faults.workload", role, name, str(folder), *url],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": path},
            )

    def freeze(self) -> None:
        """SIGSTOP."""
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._child.kill()
        self._child.wait(WAIT)
        self._close()

    def stop(self) -> None:
        """End it in good order."""
        self.thaw()
        self._close()
        try:
            self._child.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()

    def _close(self) -> None:
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()


class Rig:
    """A run. ``stretch`` makes the faults that take time last so much longer than their shortest.

    With ``apart``, every service, gateway and server is on a host of its own, and what is between them can be lost.
    """

    topology = ""

    def __init__(
        self,
        folder: Path,
        setup: Setup,
        *,
        stretch: float = 1.0,
        say: Callable[[str], None] = print,
        apart: bool = False,
    ) -> None:
        self.folder, self.setup, self.stretch, self.say = folder, setup, stretch, say
        self.apart = apart
        self.network: Network | None = None
        self.random = random.Random(setup.seed)
        self.caller = Caller(folder, WAIT)
        self.processes: dict[str, Process] = {}
        #: What the followers have done, of those that have lived to the end.
        self.counters: Counter[str] = Counter()
        self._forks = 0
        setup.save(folder)
        self.journal = Journal(folder, "faults")

    # --- to be said by each topology ---

    @property
    def servers(self) -> list[str]:
        """The hosts of the servers."""
        raise NotImplementedError

    def start_store(self) -> None:
        """Start the servers."""
        raise NotImplementedError

    def stop_store(self) -> None:
        """End them."""
        raise NotImplementedError

    def url(self, process: str) -> str:
        """Where a process finds the store."""
        raise NotImplementedError

    def primary_of(self, tag: str) -> LaunchedServer:
        """The server that a hash tag's writes go to."""
        raise NotImplementedError

    # --- the processes ---

    def start(self) -> None:
        """Start all of it, and wait until sessions can be made and tokens verified."""
        if self.apart:
            self.network = Network()
        self.start_store()
        for name in (*self.setup.services, *self.setup.gateways):
            self._launch_process(name)
        for name in (*self.setup.services, *self.setup.gateways):
            self.wait_for(name)
        self.wait_for_service()
        self.processes["clients"] = Process(self.folder, "clients", "clients")

    def stop(self) -> None:
        """End it: the clients first, for what they are told last is to be written down."""
        for name in ("clients", *self.setup.services, *self.setup.gateways):
            if name in self.processes:
                if name != "clients":
                    self.counters.update({k: v for k, v in self.ask(name, "counters").items() if isinstance(v, int)})
                self.processes.pop(name).stop()
        self.caller.close()
        self.stop_store()
        if self.network is not None:
            self.network.close()

    def restart(self, name: str) -> None:
        """Kill a process, and start it anew after a while."""
        self.processes[name].kill()
        self.caller.forget(name)
        self.rest(0.5)
        self._launch_process(name)

    def place(self, name: str) -> Place:
        """Where a process or server is to run."""
        return self.network.host(name) if self.network is not None else LOOPBACK

    def _launch_process(self, name: str) -> None:
        role = "service" if name in self.setup.services else "gateway"
        self.processes[name] = Process(self.folder, role, name, self.url(name), enter=self.place(name).enter)
        self.wait_for(name)

    def wait_for(self, name: str) -> None:
        """Wait until a process answers."""
        deadline = time.monotonic() + WAIT
        while self.ask(name, "set_clock", offset=0.0)["result"] != "ok":
            assert time.monotonic() < deadline, (self.folder / f"{name}.log").read_text()[-2000:]
            time.sleep(0.05)

    def wait_for_service(self) -> None:
        """Wait until each service does all that it is for, in every shard, and each gateway accepts what it made."""
        deadline = time.monotonic() + WAIT
        for service in self.setup.services:
            for user in self._probes:
                while missing := self._missing(service, user):
                    assert time.monotonic() < deadline, f"{service}: {missing}"
                    time.sleep(0.05)

    def _missing(self, service: str, user: str) -> dict[str, str]:
        """What a service, or a gateway for it, cannot do now."""
        made = self.ask(service, "create", user=user, tenant="public", lifetime=None)
        results = {"create": made.get("note", made["result"])}
        if made["result"] == "ok":
            said = {"session": made["answered"], "who": "probe"}
            results["refresh"] = self.ask(service, "refresh", token=made["refresh"])["result"]
            for gateway in self.setup.gateways:
                results[gateway] = self.ask(gateway, "verify", access=made["access"], said=said)["result"]
            ended = self.ask(service, "revoke", scope="session", target=made["answered"], wait=None)
            results["revoke"] = ended["result"]
        return {name: result for name, result in results.items() if result != "ok"}

    @property
    def _probes(self) -> list[str]:
        """A user in each shard."""
        placement = Placement(self.setup.prefix, self.setup.shards)
        users = {
            placement.shard_of_user(f"probe-{number}"): f"probe-{number}" for number in range(20 * placement.shards)
        }
        return list(users.values())

    def ask(self, process: str, operation: str, **arguments: Any) -> Message:
        """Ask one of the processes."""
        return self.caller.ask(process, {"do": operation, **arguments})

    def fork(self, gateway: str) -> None:
        """Fork a gateway."""
        self._forks += 1
        self.ask(gateway, "fork", child=f"{gateway}-child{self._forks}")

    # --- faults ---

    def rest(self, seconds: float) -> None:
        """Let a fault last."""
        time.sleep(seconds * self.stretch)

    @contextmanager
    def fault(self, name: str, note: str = "", **said: Any) -> Iterator[dict[str, Any]]:
        """Write a fault down, from its beginning to the moment when the store answers again.

        What is found out meanwhile of its effects can be put into the dictionary that is given.
        """
        began = time.monotonic()
        self.say(f"{name}{f' ({note})' if note else ''}")
        yield said
        self.wait_for_answers()
        self.journal.write("fault", began, fault=name, note=note, **said)

    def wait_for_answers(self) -> None:
        """Wait until every shard can be written to. Asked of the servers, not by way of the library."""
        for tag in self.tags:
            until(f"{tag} can be written to", lambda tag=tag: self._writes(tag))

    def _writes(self, tag: str) -> bool:
        with self.primary_of(tag).client() as client:
            return bool(client.set(f"{tag}:answers", 1, ex=1))

    @property
    def tags(self) -> list[str]:
        """The hash tags of the shards, and that of the store as a whole."""
        placement = Placement(self.setup.prefix, self.setup.shards)
        return [*placement.tags, placement.root]

    def primaries(self) -> list[LaunchedServer]:
        """The servers that writes go to."""
        return list({server.port: server for server in map(self.primary_of, self.tags)}.values())


class Standalone(Rig):
    """One server, and a replica that nobody is told of; a proxy in front of it for each process.

    The replica follows through a proxy too: so it can be made to miss what the primary acknowledges.
    """

    topology = "standalone"

    def start_store(self) -> None:
        binary = embedded.find_binary()
        common = {"repl-diskless-sync-delay": "0", "appendfsync": "everysec"}
        self.primary = self._launch(binary, "primary", common)
        self.link = Proxy(self.primary.port)
        self.replica = self._launch(binary, "replica", common | {"replicaof": ("127.0.0.1", str(self.link.port))})
        self.wait_for_replica()
        address = self.place(HERE).address
        names = (*self.setup.services, *self.setup.gateways)
        self.proxies = {name: Proxy(self.primary.port, address=address) for name in names}

    def _launch(self, binary: str, name: str, settings: dict[str, Any]) -> LaunchedServer:
        folder = self.folder / name
        folder.mkdir()
        server = LaunchedServer(binary, folder, **settings)
        server.start()
        return server

    def stop_store(self) -> None:
        for proxy in (*self.proxies.values(), self.link):
            proxy.close()
        self.replica.stop()
        self.primary.stop()

    @property
    def servers(self) -> list[str]:
        return [HERE]  # where the proxies are

    def url(self, process: str) -> str:
        return self.proxies[process].url

    def primary_of(self, tag: str) -> LaunchedServer:
        return self.primary

    def wait_for_replica(self) -> None:
        """Wait until the replica has all that the primary has now."""
        with self.primary.client() as primary, self.replica.client() as replica:
            at = int(primary.info("replication")["master_repl_offset"])

            def follows() -> bool:
                found = replica.info("replication")
                return found.get("master_link_status") == "up" and int(found["slave_repl_offset"]) >= at

            until("the replica follows", follows, 60)

    def swap(self) -> None:
        """Make the replica the primary for everybody, and the primary its replica."""
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        for proxy in self.proxies.values():
            proxy.switch(self.replica.port)
        self.primary, self.replica = self.replica, self.primary
        # They are to come back from a restart as what they are now.
        self.replica.settings["replicaof"] = self.primary.settings.pop("replicaof")
        self.link.switch(self.primary.port)
        self.link.restore()
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", self.link.port)


class Several(Rig):
    """Servers that agree on who is the primary. They are found by their own addresses, so no proxy is in between."""

    store: Topology

    def stop_store(self) -> None:
        self.store.stop()

    def url(self, process: str) -> str:
        return self.store.url

    def primary_of(self, tag: str) -> LaunchedServer:
        return self.store.primary(tag)

    def some_tag(self) -> str:
        """One of the shards."""
        return self.random.choice(self.tags[:-1])

    @property
    def servers(self) -> list[str]:
        return [server.directory.name for server in self.store._all()]


class Sentinel(Several):
    """A primary, two replicas, three sentinels; a primary that is cut off stops before another starts."""

    topology = "sentinel"

    def start_store(self) -> None:
        guard = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
        self.sentinels = SentinelSet(embedded.find_binary(), self.folder, down_after=3200, **guard)
        self.store = self.sentinels
        self.store.place = self.place
        self.store.start()


class Clustered(Several):
    """Three primaries with one replica each."""

    topology = "cluster"

    def start_store(self) -> None:
        self.cluster = Cluster(embedded.find_binary(), self.folder)
        self.store = self.cluster
        self.store.place = self.place
        self.store.start()


RIGS: dict[str, type[Rig]] = {rig.topology: rig for rig in (Standalone, Sentinel, Clustered)}
