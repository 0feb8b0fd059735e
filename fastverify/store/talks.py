"""How calls are brought to their servers, with no I/O: what is sent where, and what is sent again.

The three rules are those of driver.py. The first of them is kept here: a call is sent again only when it is known not
to have run, or may be run twice (``Script.repeatable``), and only while the call's time lasts. What is to be done about
which fault is a table in faults.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoScriptError

from .calls import Call, Pause, Script, script
from .endpoint import Node
from .exchange import Answers, Batch, Command, Errand
from .faults import CircuitOpen, Fault, Remedy, Stage, remedy
from .topology import Single

#: Seconds before each further try; the first comes at once when another server may be the right one.
_PAUSES = (0.0, 0.02, 0.05)
_LONGEST_PAUSE = 0.1


def run_scripts(calls: Sequence[Call], topology: Single) -> Errand[list[Any]]:
    """Run scripts by digest, and those that the server has not got once more by their text (so, out of order)."""
    scripts = [script(call.script) for call in calls]
    by_text: set[int] = set()
    results: list[Any] = [None] * len(calls)
    patience = _Patience(topology)
    todo: Sequence[int] = range(len(calls))
    while todo:
        placed: dict[Node, list[int]] = {}
        faults: dict[int, tuple[Fault, Node | None]] = {}
        unknown: list[int] = []
        for n in todo:
            if (node := topology.node_of(calls[n].tag)) is None:
                faults[n] = patience.nowhere, None
            else:
                placed.setdefault(node, []).append(n)
        answers = yield from _ask(
            {
                node: Batch(
                    [_command(calls[n], scripts[n], n in by_text) for n in group],
                    any(calls[n].durable for n in group),
                )
                for node, group in placed.items()
            }
        )
        for node, answer in answers.items():
            for n, outcome in zip(placed[node], answer.outcomes, strict=True):
                if not isinstance(outcome, Fault):
                    results[n] = (outcome, answer.replicas) if calls[n].durable else outcome
                elif isinstance(outcome.error, NoScriptError) and n not in by_text:
                    by_text.add(n)
                    unknown.append(n)
                else:
                    faults[n] = outcome, node
        if faults:
            yield from patience.over([(*faults[n], scripts[n].repeatable) for n in sorted(faults)])
        todo = sorted([*unknown, *faults])
    return results


def reach_all(topology: Single) -> Errand[None]:
    """Have an answer of every primary, each on a connection on which it was greeted."""
    patience = _Patience(topology)
    while True:
        nodes = topology.nodes()
        answers = yield from _ask({node: Batch([("PING",)]) for node in nodes})
        outcomes = [(answer.outcomes[0], node) for node, answer in answers.items()]
        faults = [(outcome, node, True) for outcome, node in outcomes if isinstance(outcome, Fault)]
        if nodes and not faults:
            return
        yield from patience.over(faults or [(patience.nowhere, None, True)])


def find_any(topology: Single) -> Errand[Sequence[Node]]:
    """Primaries of which any will do; looked for anew, as who asks has just lost one."""
    patience = _Patience(topology)
    yield from topology.discover()
    while not (nodes := topology.nodes()):
        yield from patience.over([(patience.nowhere, None, True)])
    return sorted(nodes)


class _Patience:
    """How long one call goes on, and what is done between its tries."""

    def __init__(self, topology: Single) -> None:
        self._topology = topology
        self._version = topology.version
        self._tries = 0

    @cached_property
    def nowhere(self) -> Fault:
        """What keeps a call from being sent while nobody knows whither."""
        return Fault(RedisConnectionError("it is not known which server to ask"), Stage.UNSENT)

    def over(self, faults: Sequence[tuple[Fault, Node | None, bool]]) -> Errand[None]:
        """Do what may be done about faults, each with its server and whether the call is repeatable; else raise one."""
        remedies = [self._remedy(fault, repeatable) for fault, _, repeatable in faults]
        if Remedy.NONE in remedies:
            raise faults[remedies.index(Remedy.NONE)][0].error
        yield from self._discover(faults)
        pauses = _PAUSES[self._tries + (Remedy.LATER in remedies) :]
        self._tries += 1
        if not (yield Pause(pauses[0] if pauses else _LONGEST_PAUSE)):
            raise faults[0][0].error

    def _remedy(self, fault: Fault, repeatable: bool) -> Remedy:
        found = remedy(fault, repeatable=repeatable)
        first = self._tries == 0
        if fault is self.nowhere and first:
            return Remedy.ANEW
        if isinstance(fault.error, CircuitOpen) and first:
            return Remedy.NONE  # at once: whoever waited already may wait on
        if found is Remedy.ANEW and not self._topology.redundant:
            # There is no other server. But there may be one behind the same name; and a lost call may be repeated.
            worthwhile = first and fault.stage is not Stage.UNSENT and not isinstance(fault.error, MovedError)
            return Remedy.ANEW if worthwhile else Remedy.NONE
        return found

    def _discover(self, faults: Sequence[tuple[Fault, Node | None, bool]]) -> Errand[None]:
        """Find the way anew, unless the servers said it or another call has found it since."""
        lost = []
        for fault, node, _ in faults:
            if isinstance(fault.error, MovedError) and node is not None:
                self._topology.moved(fault.error, node)
            else:
                lost.append(node)
        if lost and self._topology.version == self._version:
            problem = yield from self._topology.discover({node for node in lost if node is not None})
            if problem is not None:
                self.nowhere = Fault(problem, Stage.UNSENT)
                if isinstance(problem, CircuitOpen) and self._tries == 0:
                    raise problem
        self._version = self._topology.version


def _ask(exchange: Mapping[Node, Batch]) -> Errand[Answers]:
    return (yield exchange) if exchange else {}


def _command(call: Call, its: Script, by_text: bool) -> Command:
    return ("EVAL", its.text, 1, call.tag, *call.args) if by_text else ("EVALSHA", its.sha1, 1, call.tag, *call.args)
