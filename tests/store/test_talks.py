"""What is sent where, and what is sent again: the errands, answered by hand. (Revocation.md, F7 and F10.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fastverify.errors import ConfigError
from fastverify.store import Call, Pause
from fastverify.store.endpoint import Node
from fastverify.store.exchange import Answer, Errand, Exchange
from fastverify.store.faults import CircuitOpen, Fault, Stage
from fastverify.store.talks import reach_all, run_scripts
from fastverify.store.topology import Sentinels, Single, Slots

A, B = Node("a", 1), Node("b", 2)
S1, S2 = Node("s1", 26379, guide=True), Node("s2", 26379, guide=True)
ONCE = "return 1"
REPEATABLE = "-- Repeatable\nreturn 1"
ASK = AskError("866 b:2", status_code="ASK")


def refused(error: Exception) -> Fault:
    return Fault(error, Stage.REFUSED)


def unsent(error: Exception) -> Fault:
    return Fault(error, Stage.UNSENT)


def lost(error: Exception) -> Fault:
    return Fault(error, Stage.LOST)


class Servers:
    """Answers an errand; ``says`` has for each data server what it replies, in turn, to a batch of one command.

    ``asked`` names the servers that were asked, and the pauses, in order. Sentinels name ``primaries`` in turn; guides
    of a cluster say that one of them has every slot.
    """

    def __init__(self, primaries: Sequence[Node], **says: Any) -> None:
        self._primaries = list(primaries)
        self._says = {name: list(replies) for name, replies in says.items()}
        self.asked: list[Any] = []
        self.seconds = 1.0

    def run(self, errand: Errand[Any]) -> Any:
        try:
            wanted = next(errand)
            while True:
                if isinstance(wanted, Pause):
                    self.asked.append(wanted.seconds)
                    self.seconds -= wanted.seconds
                    wanted = errand.send(self.seconds > 0)
                else:
                    wanted = errand.send(self._answer(wanted))
        except StopIteration as end:
            return end.value

    def _answer(self, exchange: Exchange) -> dict[Node, Answer]:
        answers = {}
        for node, batch in exchange.items():
            self.asked.append(node.host)
            if node.guide:
                primary = self._primaries.pop(0) if len(self._primaries) > 1 else self._primaries[0]
                answers[node] = self._guide(primary, batch.commands[0][0])
            else:
                replies = [self._says[node.host].pop(0) for _ in batch.commands]
                answers[node] = Answer(replies, 2 if batch.durable else None)
        return answers

    @staticmethod
    def _guide(primary: Any, command: Any) -> Answer:
        if not isinstance(primary, Node):
            return Answer([primary] if command == "CLUSTER" else [primary, primary])
        if command == "CLUSTER":
            return Answer([[[0, 16383, [primary.host.encode(), primary.port, b"id"]]]])
        return Answer([[primary.host.encode(), b"%d" % primary.port], [b"down-after-milliseconds", b"1000"]])


@pytest.fixture
def sentinels() -> Sentinels:
    """Their primary is A, as far as is known."""
    topology = Sentinels([S1, S2], "name")
    Servers([A]).run(topology.discover())
    return topology


@pytest.fixture
def slots() -> Slots:
    """All of them are at A, as far as is known."""
    topology = Slots([S1])
    Servers([A]).run(topology.discover())
    return topology


def test_everything_goes_to_the_server(call):
    servers = Servers([], a=[7])
    assert servers.run(run_scripts([call(ONCE)], Single(A))) == [7]
    assert servers.asked == ["a"]


def test_the_sentinels_are_asked_in_turn_until_one_knows(call):
    servers = Servers([unsent(RedisConnectionError()), A], a=[7])
    assert servers.run(run_scripts([call(ONCE)], Sentinels([S1, S2], "name"))) == [7]
    assert servers.asked == ["s2", "s1", 0.0, "a"]


def test_a_name_that_no_sentinel_knows_is_a_mistake_of_the_configuration(call):
    with pytest.raises(ConfigError, match="no primary by the name 'name'"):
        Servers([None]).run(run_scripts([call(ONCE)], Sentinels([S1], "name")))


def test_a_server_that_is_no_cluster_is_a_mistake_of_the_configuration(call):
    error = refused(ResponseError("This instance has cluster support disabled"))
    with pytest.raises(ConfigError, match="no part of a cluster"):
        Servers([error]).run(run_scripts([call(ONCE)], Slots([S1])))


def test_calls_for_two_servers_go_to_both_at_once(call, slots):
    slots.moved(MovedError("0 b:2"), A)
    here, there = call(ONCE), call(ONCE, tag="{fHh}")  # of slot 0
    asked: list[Exchange] = []
    errand = run_scripts([here, there, here], slots)
    asked.append(next(errand))
    assert {node.host: len(batch.commands) for node, batch in asked[0].items()} == {"a": 2, "b": 1}
    with pytest.raises(StopIteration) as end:
        errand.send({A: Answer([1, 3]), B: Answer([2])})
    assert end.value.value == [1, 2, 3]


def test_a_durable_call_is_answered_with_the_number_of_replicas(call):
    calls = [call(ONCE), call(ONCE, durable=True)]
    assert Servers([], a=[7, 8]).run(run_scripts(calls, Single(A))) == [7, (8, 2)]


def test_moved_names_the_server_that_is_asked_at_once(call, slots):
    servers = Servers([], a=[refused(MovedError(f"{slot_of(call)} b:2", status_code="MOVED"))], b=[7])
    assert servers.run(run_scripts([call(ONCE)], slots)) == [7]
    assert servers.asked == ["a", 0.0, "b"]


def test_moved_without_a_host_means_the_host_that_was_asked(call, slots):
    slots.moved(MovedError("0 :7"), A)
    assert slots.node_of("{fHh}") == Node("a", 7)


def slot_of(call: Callable[..., Call]) -> int:
    return key_slot(call(ONCE).tag.encode())


@pytest.mark.parametrize(
    "fault",
    [
        refused(ReadOnlyError("", status_code="READONLY")),
        unsent(ReadOnlyError("", status_code="READONLY")),
        unsent(RedisConnectionError("refused")),
        unsent(RedisTimeoutError("no greeting")),
    ],
    ids=["readonly", "readonly on connecting", "connection refused", "no greeting"],
)
def test_another_server_is_looked_for_and_asked_at_once(call, sentinels, fault):
    servers = Servers([B], a=[fault], b=[7])
    assert servers.run(run_scripts([call(ONCE)], sentinels)) == [7]
    assert servers.asked == ["a", "s1", 0.0, "b"]


@pytest.mark.parametrize(
    "error",
    [
        BusyLoadingError("", status_code="LOADING"),
        TryAgainError("", status_code="TRYAGAIN"),
        ClusterDownError("", status_code="CLUSTERDOWN"),
        MasterDownError("", status_code="MASTERDOWN"),
        ASK,
    ],
    ids=lambda error: error.status_code,
)
@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_what_passes_is_waited_for(call, slots, error, kind):
    topology = slots if kind == "cluster" else Single(A)
    servers = Servers([A], a=[refused(error), refused(error), 7])
    assert servers.run(run_scripts([call(ONCE)], topology)) == [7]
    waits = [one for one in servers.asked if isinstance(one, float)]
    assert len(waits) == 2 and min(waits) > 0
    assert "b" not in servers.asked  # ASK is not followed: the shard is there in part only


def test_what_does_not_pass_in_time_is_what_the_caller_is_told(call, slots):
    servers = Servers([A], a=[refused(ClusterDownError("", status_code="CLUSTERDOWN"))] * 100)
    with pytest.raises(ClusterDownError):
        servers.run(run_scripts([call(ONCE)], slots))
    assert servers.seconds <= 0


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("", status_code="OOM"),
        ResponseError("MISCONF Errors writing to the AOF file"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError("BUSY Redis is busy running a script."),
        AuthenticationError("", status_code="WRONGPASS"),
        NoPermissionError("", status_code="NOPERM"),
        ResponseError("ERR what the script says"),
    ],
    ids=["OOM", "MISCONF", "NOREPLICAS", "BUSY", "WRONGPASS", "NOPERM", "ERR"],
)
def test_what_waiting_does_not_mend_is_told_at_once(call, sentinels, error):
    servers = Servers([A], a=[refused(error)])
    with pytest.raises(type(error)):
        servers.run(run_scripts([call(REPEATABLE)], sentinels))
    assert servers.asked == ["a"]


@pytest.mark.parametrize("error", [MaxConnectionsError(), CircuitOpen()], ids=["no connection", "breaker open"])
def test_what_is_there_to_keep_load_away_is_told_at_once(call, sentinels, error):
    servers = Servers([A], a=[unsent(error)])
    with pytest.raises(type(error)):
        servers.run(run_scripts([call(ONCE)], sentinels))
    assert servers.asked == ["a"]


@pytest.mark.parametrize("kind", ["single", "sentinel", "cluster"])
def test_a_call_that_may_have_run_is_not_sent_again(call, sentinels, slots, kind):
    topology = {"single": Single(A), "sentinel": sentinels, "cluster": slots}[kind]
    servers = Servers([B], a=[lost(RedisConnectionError())])
    with pytest.raises(RedisConnectionError):
        servers.run(run_scripts([call(ONCE)], topology))
    assert servers.asked == ["a"]


def test_a_repeatable_call_that_may_have_run_is_sent_to_the_server_that_is_the_right_one_now(call, sentinels):
    servers = Servers([B], a=[lost(RedisConnectionError())], b=[7])
    assert servers.run(run_scripts([call(REPEATABLE)], sentinels)) == [7]


def test_a_repeatable_call_is_repeated_once_where_there_is_one_server(call):
    servers = Servers([], a=[lost(RedisConnectionError()), 7])
    assert servers.run(run_scripts([call(REPEATABLE)], Single(A))) == [7]
    servers = Servers([], a=[lost(RedisConnectionError()), lost(RedisConnectionError())])
    with pytest.raises(RedisConnectionError):
        servers.run(run_scripts([call(REPEATABLE)], Single(A)))
    assert servers.asked == ["a", 0.0, "a"]


def test_a_lost_call_among_others_is_not_sent_again_and_fails_them_all(call, slots):
    slots.moved(MovedError("0 b:2"), A)
    servers = Servers([A], a=[lost(RedisConnectionError())], b=[7])
    with pytest.raises(RedisConnectionError):
        servers.run(run_scripts([call(ONCE), call(ONCE, tag="{fHh}")], slots))
    assert servers.asked == ["a", "b"]


def test_only_what_failed_is_sent_again(call, slots):
    calls = [call(ONCE, n) for n in range(3)]
    servers = Servers([A], a=[1, refused(TryAgainError("", status_code="TRYAGAIN")), 3, 2])
    assert servers.run(run_scripts(calls, slots)) == [1, 2, 3]


def test_a_script_that_is_not_known_is_sent_by_its_text_once(call):
    unknown = refused(NoScriptError("", status_code="NOSCRIPT"))
    servers = Servers([], a=[unknown, 7])
    assert servers.run(run_scripts([call(ONCE)], Single(A))) == [7]
    assert servers.asked == ["a", "a"]
    with pytest.raises(NoScriptError):
        Servers([], a=[unknown, unknown]).run(run_scripts([call(ONCE)], Single(A)))


def test_one_server_that_refuses_connections_is_not_asked_twice(call):
    servers = Servers([], a=[unsent(RedisConnectionError())])
    with pytest.raises(RedisConnectionError):
        servers.run(run_scripts([call(ONCE)], Single(A)))
    assert servers.asked == ["a"]


def test_all_primaries_are_reached(slots):
    slots.moved(MovedError("0 b:2"), A)
    servers = Servers([A], a=[b"PONG"], b=[b"PONG"])
    servers.run(reach_all(slots))
    assert sorted(servers.asked) == ["a", "b"]
    with pytest.raises(ConfigError):
        Servers([A], a=[b"PONG"], b=[unsent(ConfigError("store", "evicts"))]).run(reach_all(slots))


def test_what_another_call_has_found_out_is_not_asked_again(call, sentinels):
    servers = Servers([B], a=[unsent(RedisConnectionError())], b=[7])
    errand = run_scripts([call(ONCE)], sentinels)
    wanted = next(errand)
    Servers([B]).run(sentinels.discover())
    assert list(wanted) == [A]
    assert isinstance(errand.send({A: Answer([unsent(RedisConnectionError())])}), Pause)
    assert list(errand.send(True)) == [B]
    assert servers.asked == []
