"""The faults, in a table: what each does to a run, and on which topologies it can be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fix_stores import LaunchedServer
from fix_topologies import SERVICE, SentinelSet, ask, until
from redis.crc import key_slot

from .proxy import DOWN, UP
from .rig import Clustered, Rig, Sentinel, Several, Standalone

HOUR = 3600.0


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    inject: Callable[..., None]
    topologies: frozenset[str]
    #: What it is, in a few words.
    words: str
    #: It needs a network of our own (network.py), which not every machine allows.
    apart: bool


FAULTS: dict[str, Fault] = {}


def fault(*topologies: str, apart: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a row; its name and words are those of the function."""

    def add(inject: Callable[..., None]) -> Callable[..., None]:
        name, words = inject.__name__, (inject.__doc__ or "").partition("\n")[0]
        FAULTS[name] = Fault(name, inject, frozenset(topologies), words, apart)
        return inject

    return add


ALONE = "standalone"
SEVERAL = ("sentinel", "cluster")
EVERYWHERE = (ALONE, *SEVERAL)
#: Seconds by which a replica may be behind when its primary is gone.
LAG = 1.0


# --- the server ---


@fault(ALONE)
def kill(rig: Standalone) -> None:
    """SIGKILL to the server, and a restart on its data."""
    with rig.fault("kill", new_primary=True):
        rig.primary.kill()
        rig.rest(0.5)
        rig.primary.start()


@fault(ALONE)
def freeze(rig: Standalone) -> None:
    """SIGSTOP to the server for a while."""
    with rig.fault("freeze"), rig.primary.stopped():
        rig.rest(rig.random.uniform(1.0, 2.0))


@fault(ALONE)
def promote(rig: Standalone) -> None:
    """A failover to a replica that lacks the last second of what was acknowledged."""
    with rig.fault("promote", new_primary=True) as said:
        said["lost_from"] = time.monotonic()
        rig.wait_for_replica()
        rig.link.hold()
        rig.rest(0.8)
        rig.swap()
        said["lost_to"] = time.monotonic()
    rig.wait_for_replica()


@fault(ALONE)
def switch_over(rig: Standalone) -> None:
    """A planned failover that loses nothing: writes pause until the replica has all of them."""
    with rig.fault("switch_over", new_primary=True):
        with rig.primary.client() as client:
            client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
            rig.wait_for_replica()
            rig.swap()
            client.execute_command("CLIENT", "UNPAUSE")
    rig.wait_for_replica()


@fault(ALONE)
def replica_by_mistake(rig: Standalone) -> None:
    """The store's address leads to a read-only replica for a while."""
    with rig.fault("replica_by_mistake"):
        for proxy in rig.proxies.values():
            proxy.switch(rig.replica.port)
        rig.rest(1.2)
        for proxy in rig.proxies.values():
            proxy.switch(rig.primary.port)


@fault(*EVERYWHERE)
def flush_all(rig: Rig) -> None:
    """FLUSHALL: the store has lost everything."""
    with rig.fault("flush_all") as said:
        for server in rig.primaries():
            with server.client() as client:
                client.flushall()
        said |= {"lost_from": 0.0, "lost_to": time.monotonic()}


@fault(*EVERYWHERE)
def flush_scripts(rig: Rig) -> None:
    """SCRIPT FLUSH, a few times."""
    with rig.fault("flush_scripts"):
        for _ in range(5):
            for server in rig.primaries():
                with server.client() as client:
                    client.script_flush()
            rig.rest(0.1)


@fault(*EVERYWHERE)
def kill_clients(rig: Rig) -> None:
    """CLIENT KILL of every connection, a few times."""
    with rig.fault("kill_clients"):
        for _ in range(5):
            for server in rig.primaries():
                with server.client() as client:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.rest(0.1)


@fault(*EVERYWHERE)
def fill_memory(rig: Rig) -> None:
    """maxmemory is reached: what may not grow is refused."""
    with rig.fault("fill_memory"):
        for server in rig.primaries():
            with server.client() as client:
                client.config_set("maxmemory", 1)
        rig.rest(1.0)
        for server in rig.primaries():
            with server.client() as client:
                client.config_set("maxmemory", 0)


@fault(*EVERYWHERE)
def fill_disk(rig: Rig) -> None:
    """The servers' disk takes no more: what would have to be written there is refused."""
    primaries = rig.primaries()
    with rig.fault("fill_disk"):
        for server in primaries:
            server.fill_disk()
        rig.rest(1.2)
        for server in primaries:
            server.free_disk()


@fault(ALONE)
def change_password(rig: Standalone) -> None:
    """The server wants a password that nobody knows."""
    with rig.fault("change_password"):
        with rig.primary.client() as client:
            client.config_set("requirepass", "changed")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.rest(1.2)
            client.config_set("requirepass", "")


@fault(ALONE)
def deny(rig: Standalone) -> None:
    """The user's rights are taken away while connections are open."""
    with rig.fault("deny"):
        with rig.primary.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
            rig.rest(1.2)
            client.execute_command("ACL", "SETUSER", "default", "+@all")


# --- several servers ---


@fault("sentinel")
def fail_over_sentinel(rig: Sentinel) -> None:
    """A failover that was asked for; Sentinel does not wait for what the replica lacks."""
    with rig.fault("fail_over_sentinel", new_primary=True, lost_from=time.monotonic() - LAG) as said:
        former = rig.store.primary()
        until("Sentinel fails over", lambda: _failed_over(rig.sentinels, former), 60)
        rig.store.wait_healthy()
        said["lost_to"] = time.monotonic()


def _failed_over(sentinels: SentinelSet, former: LaunchedServer) -> bool:
    """Ask for it, and see whether it comes: on a busy machine the sentinels may give up."""
    ask(sentinels.sentinels[0], "SENTINEL", "FAILOVER", SERVICE)
    with suppress(AssertionError):
        return bool(sentinels.wait_for_new_primary(former, seconds=5))
    return False


@fault("cluster")
def fail_over_cluster(rig: Clustered) -> None:
    """A failover that was asked for, of one of the primaries; nothing is lost."""
    with rig.fault("fail_over_cluster", new_primary=True):
        rig.store.failover(rig.some_tag())


@fault(*SEVERAL)
def kill_primary(rig: Several) -> None:
    """SIGKILL to a primary; a replica takes over."""
    tag = rig.some_tag()
    former = rig.store.primary(tag)
    with rig.fault("kill_primary", new_primary=True, lost_from=time.monotonic() - LAG) as said:
        former.kill()
        rig.store.wait_for_new_primary(former, tag)
        said["lost_to"] = time.monotonic()
    former.start()
    rig.store.wait_healthy()


@fault(*SEVERAL)
def freeze_primary(rig: Several) -> None:
    """SIGSTOP to a primary until another has taken over; then it wakes, and does not know it."""
    tag = rig.some_tag()
    former = rig.store.primary(tag)
    with rig.fault("freeze_primary", new_primary=True, lost_from=time.monotonic() - LAG) as said:
        former.freeze()
        rig.store.wait_for_new_primary(former, tag)
        said["lost_to"] = time.monotonic()
    rig.rest(0.5)
    with rig.fault("wake_former_primary", lost_from=time.monotonic()) as said:
        former.thaw()
        rig.store.wait_healthy()
        said["lost_to"] = time.monotonic()


@fault("sentinel")
def kill_replicas(rig: Sentinel) -> None:
    """SIGKILL to all replicas: what is written could be lost, so nothing is."""
    replicas = rig.store.replicas()
    with rig.fault("kill_replicas"):
        for replica in replicas:
            replica.kill()
        time.sleep(3.0)
        for replica in replicas:
            replica.start()
        rig.store.wait_healthy()


@fault("sentinel")
def kill_sentinel(rig: Sentinel) -> None:
    """SIGKILL to a sentinel."""
    sentinel = rig.random.choice(rig.sentinels.sentinels)
    with rig.fault("kill_sentinel"):
        sentinel.kill()
        rig.rest(1.0)
        sentinel.start()
        rig.store.wait_healthy()


@fault("cluster")
def move_shard(rig: Clustered) -> None:
    """A shard's slot moves, key by key, to another primary, which holds back as any new one does."""
    tag = rig.some_tag()
    slot, former = key_slot(tag.strip("{}").encode()), rig.store.primary(tag)
    others = [node for node in (rig.cluster.primary_of_slot(n) for n in (0, 8_000, 16_000)) if node is not former]
    with rig.fault("move_shard", tag, new_primary=True):
        for _ in rig.cluster.move_slot(slot, rig.random.choice(others)):
            time.sleep(0.01)


# --- the way to it ---


@fault(ALONE)
def delay(rig: Standalone) -> None:
    """Everything takes a third of a second longer, each way."""
    with rig.fault("delay"):
        for proxy in rig.proxies.values():
            proxy.delay(0.15)
        rig.rest(1.0)
        _restore(rig)


@fault(ALONE)
def drop_replies(rig: Standalone) -> None:
    """Requests arrive; replies do not."""
    with rig.fault("drop_replies"):
        for proxy in rig.proxies.values():
            proxy.drop(DOWN)
        rig.rest(1.0)
        _restore(rig)


@fault(ALONE)
def drop_requests(rig: Standalone) -> None:
    """Nothing arrives."""
    with rig.fault("drop_requests"):
        for proxy in rig.proxies.values():
            proxy.drop(UP)
        rig.rest(1.0)
        _restore(rig)


@fault(ALONE)
def hold_requests(rig: Standalone) -> None:
    """Requests arrive late, when those who sent them have given up."""
    with rig.fault("hold_requests"):
        for proxy in rig.proxies.values():
            proxy.hold(UP)
        rig.rest(1.5)
        _restore(rig)


@fault(ALONE)
def cut(rig: Standalone) -> None:
    """Connections are reset, and so is each new one."""
    with rig.fault("cut"):
        for proxy in rig.proxies.values():
            proxy.cut()
        rig.rest(1.0)
        _restore(rig)


@fault(ALONE)
def truncate(rig: Standalone) -> None:
    """Replies end in the middle, with a reset."""
    with rig.fault("truncate"):
        for n in range(12):
            for proxy in rig.proxies.values():
                proxy.truncate(rig.random.choice((1, 3, 10, 40, 200)), DOWN)
            rig.rest(0.05 + n % 3 * 0.05)
        _restore(rig)


@fault(ALONE)
def half_close(rig: Standalone) -> None:
    """The server seems to say no more, but goes on listening."""
    with rig.fault("half_close"):
        for _ in range(4):
            for proxy in rig.proxies.values():
                proxy.half_close()
            rig.rest(0.15)


@fault(ALONE)
def isolate_gateways(rig: Standalone) -> None:
    """Gateways are cut off for longer than B, while the services go on revoking."""
    with rig.fault("isolate_gateways"):
        for name in rig.setup.gateways:
            rig.proxies[name].drop()
        time.sleep(rig.setup.staleness + 1.0)
        _restore(rig)


def _restore(rig: Standalone) -> None:
    for proxy in rig.proxies.values():
        proxy.restore()


# --- packets ---


def _some_processes(rig: Rig) -> tuple[str, str]:
    """A service and a gateway; there are others."""
    return rig.random.choice(rig.setup.services), rig.random.choice(rig.setup.gateways)


@fault(*EVERYWHERE, apart=True)
def part(rig: Rig) -> None:
    """No packet passes between a service, a gateway and the servers, for longer than B; the others go on revoking."""
    with rig.fault("part"):
        rig.network.part(_some_processes(rig), rig.servers)
        time.sleep(rig.setup.staleness + 1.0)
        rig.network.heal()


@fault(*EVERYWHERE, apart=True)
def lose_answers(rig: Rig) -> None:
    """Packets of a service and a gateway arrive, and none comes back to them."""
    with rig.fault("lose_answers"):
        rig.network.lose(rig.servers, _some_processes(rig))
        rig.rest(1.5)
        rig.network.heal()


@fault(*EVERYWHERE, apart=True)
def lose_questions(rig: Rig) -> None:
    """No packet of a service and a gateway arrives; what the servers send comes."""
    with rig.fault("lose_questions"):
        rig.network.lose(_some_processes(rig), rig.servers)
        rig.rest(1.5)
        rig.network.heal()


@fault(*SEVERAL, apart=True)
def split(rig: Several) -> None:
    """A primary is cut off, and a service and a gateway (and a sentinel) with it, until another has taken over."""
    tag = rig.some_tag()
    former = rig.store.primary(tag)
    minority = {former.directory.name, *_some_processes(rig)} | ({"sentinel2"} & {*rig.servers})
    with _deposed(rig, "split", former, tag):
        rig.network.isolate(minority)


@fault(*SEVERAL, apart=True)
def deafen_primary(rig: Several) -> None:
    """The other servers hear a primary, but it does not hear them; clients reach it, until another has taken over."""
    tag = rig.some_tag()
    former = rig.store.primary(tag)
    with _deposed(rig, "deafen_primary", former, tag):
        rig.network.lose({*rig.servers} - {former.directory.name}, [former.directory.name])


@contextmanager
def _deposed(rig: Several, name: str, former: LaunchedServer, tag: str) -> Iterator[None]:
    """What is done here to the network lets another primary take over; then the network heals, and they meet."""
    with rig.fault(name, tag, new_primary=True, deposed=True, lost_from=time.monotonic() - LAG) as said:
        yield
        rig.store.wait_for_new_primary(former, tag)
        rig.rest(1.0)
        rig.network.heal()
        said["lost_to"] = time.monotonic()
    # Service is back from here on; what the former primary accepts, before it hears that it is one, is lost.
    with rig.fault(f"{name}: healed", tag, disturbs=False, deposed=True, lost_from=time.monotonic()) as said:
        rig.store.wait_healthy()
        said["lost_to"] = time.monotonic()


@fault("sentinel", apart=True)
def lose_acknowledgements(rig: Sentinel) -> None:
    """Replicas get what the primary writes, and it does not hear so: it may accept nothing."""
    primary = rig.store.primary()
    replicas = [node.directory.name for node in rig.store.replicas()]
    with rig.fault("lose_acknowledgements"):
        rig.network.lose(replicas, [primary.directory.name])
        time.sleep(4.0)
        rig.network.heal()
        rig.store.wait_healthy()


# --- the processes ---


@fault(*EVERYWHERE)
def kill_service(rig: Rig) -> None:
    """SIGKILL to a session service, and a new one in its place."""
    with rig.fault("kill_service"):
        rig.restart(rig.random.choice(rig.setup.services))


@fault(*EVERYWHERE)
def kill_gateway(rig: Rig) -> None:
    """SIGKILL to a gateway, and a new one in its place."""
    with rig.fault("kill_gateway"):
        rig.restart(rig.random.choice(rig.setup.gateways))


@fault(*EVERYWHERE)
def freeze_service(rig: Rig) -> None:
    """SIGSTOP to a session service, for less than W."""
    process = rig.processes[rig.random.choice(rig.setup.services)]
    with rig.fault("freeze_service"):
        process.freeze()
        time.sleep(1.5)
        process.thaw()


@fault(*EVERYWHERE)
def freeze_gateway(rig: Rig) -> None:
    """SIGSTOP to a gateway for longer than B: it must not believe what it knew."""
    process = rig.processes[rig.random.choice(rig.setup.gateways)]
    with rig.fault("freeze_gateway"):
        process.freeze()
        time.sleep(rig.setup.staleness + 0.5)
        process.thaw()


@fault(*EVERYWHERE)
def trim_logs(rig: Rig) -> None:
    """The logs are trimmed away under a follower that sleeps."""
    process = rig.processes[rig.random.choice(rig.setup.gateways)]
    with rig.fault("trim_logs"):
        process.freeze()
        rig.rest(1.5)
        for tag in rig.tags:
            with rig.primary_of(tag).client() as client:
                client.execute_command("XTRIM", f"{tag}:log", "MAXLEN", 1)
        process.thaw()


@fault(*EVERYWHERE)
def step_clocks(rig: Rig) -> None:
    """A service's wall clock is an hour ahead, then an hour behind; then a gateway's."""
    for name in (rig.random.choice(rig.setup.services), rig.random.choice(rig.setup.gateways)):
        for offset in (HOUR, -HOUR):
            with rig.fault("step_clocks", f"{name} {offset:+.0f} s", disturbs=False):
                rig.ask(name, "set_clock", offset=offset)
                rig.rest(0.7)
                rig.ask(name, "set_clock", offset=0.0)


@fault(*EVERYWHERE)
def fork_gateway(rig: Rig) -> None:
    """A gateway forks; the child verifies with what it has inherited."""
    with rig.fault("fork_gateway"):
        rig.fork(rig.random.choice(rig.setup.gateways))
