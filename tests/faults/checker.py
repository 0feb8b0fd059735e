"""Reads a journal and says what was wrong: the invariants I1 to I10 (rotation.md), the claims a to c (revocation.md).

It knows nothing of the library, only what was asked, when, and what came back; so what it can say is bounded by what
is certain. Of two events one was before the other only if it had ended when the other began. What an answer that never
came has done is open, and so is what a fault may have made undone; such events excuse, and prove nothing. What was
excused is counted, and so is how often each rule was put to the test: a rule that was never tested has not held.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from .journal import OPEN, Event

RULES = {
    "I1": "only the generations G and G-1 are accepted, and each is one token",
    "I2": "G never decreases on one primary, and is at least what was shown",
    "I3": "no honest client is told that it has no session, or of theft, without cause",
    "I4": "a token whose child was used longer ago than W is theft, an older one at once",
    "I5": "after theft or an acknowledged revocation no refresh is answered with tokens",
    "I6": "no session is there after its acknowledged revocation",
    "I7": "the absolute expiry stays where it is, and no access token outlives it or is accepted when expired",
    "I8": "every answer is about the session that was asked about",
    "I9": "a fault is answered 503, never 401, theft or an error of another kind",
    "I10": "a call repeated within W succeeds again, with the same refresh token or none",
    "a": "what was revoked is refused everywhere after B",
    "b": "what was revoked and replicated stays so after a failover",
    "c": "what was revoked and propagated is refused everywhere at once",
    "R": "full service soon after the store answers again",
}
#: Wall clocks are read a moment before or after what they are compared with.
_TICK = 1.5


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the run was set up with. In seconds."""

    window: float
    staleness: float
    shards: int
    #: Between a clock being read and the deed: threads that wait for a processor.
    slack: float = 0.5
    #: Full service after a fault.
    recovery: float = 3.0
    #: After a failover, until gateways have pushed back what was lost; None: they do not.
    push_back: float | None = None
    #: Of each primary. With several, another than the one that has a write may be promoted.
    replicas: int = 1
    #: While a partition leaves two primaries writable.
    split: float = 0.0

    @property
    def debounce(self) -> float:
        """D."""
        return 2 * self.window + 1


@dataclass(frozen=True)
class Violation:
    """What was wrong, and the events that show it."""

    rule: str
    what: str
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}\n" + "\n".join(f"    {_shown(event)}" for event in self.events)


@dataclass
class Report:
    """What came of it all."""

    tested: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    #: Fault, note, seconds that it lasted, seconds until full service (None: not seen).
    recoveries: list[tuple[str, str, float, float | None]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def test(self, rule: str, holds: bool, what: str, *events: Event) -> None:
        """Count a test of a rule, and keep what breaks it."""
        self.tested[rule] += 1
        if not holds:
            self.violations.append(Violation(rule, what, events))

    def broken(self) -> set[str]:
        """The rules that did not hold."""
        return {violation.rule for violation in self.violations}


@dataclass(frozen=True)
class End:
    """Something that ended a session: a revocation, or theft that was found."""

    event: Event
    #: It was acknowledged, and the session was there before it.
    sure: bool


@dataclass
class Life:
    """All that is known of one session."""

    created: Event
    refreshes: list[Event] = field(default_factory=list)
    verifies: list[Event] = field(default_factory=list)
    infos: list[Event] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    @property
    def ends_at(self) -> int:
        """The absolute expiry, as it was told first."""
        return next((event.ends_at for event in (self.created, *self.infos) if event.ends_at), 0)


def check(events: Iterable[Event], rules: Rules) -> Report:
    """Check everything."""
    return _Checker(sorted(events, key=lambda event: event.ended), rules).report


class _Checker:
    def __init__(self, events: list[Event], rules: Rules) -> None:
        self.rules, self.report, self._events = rules, Report(), events
        self._faults = [event for event in events if event.kind == "fault"]
        self._losses = [fault for fault in self._faults if fault.lost_to is not None]
        #: What showed first that there is a key.
        self._made_keys = {event.key: event for event in reversed(events) if event.key}
        self._last_verified = {event.process: event.began for event in events if event.kind == "verify"}
        self._holds = list(self._find_holds())
        self._count()
        for life in self._lives():
            self._check_life(life)
        for event in events:
            self._check_answer(event)
        self._check_recovery()

    # --- what is known ---

    def _lives(self) -> Iterable[Life]:
        lives: dict[str, Life] = {}
        scoped: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in self._events:
            if event.kind == "create" and event.result == "ok":
                lives[event.session] = Life(event)
            elif event.kind == "revoke":
                scoped[event.scope, event.target].append(event)
        for event in self._events:
            life = lives.get(event.session)
            if life is None:
                continue
            if event.kind == "refresh":
                life.refreshes.append(event)
                if event.result == "theft" or (event.result in OPEN and event.who == "thief"):
                    life.ends.append(End(event, event.result == "theft"))
            elif event.kind == "verify":
                life.verifies.append(event)
            elif event.kind == "info":
                life.infos.append(event)
        for life in lives.values():
            made = life.created
            for scope, target in (
                ("session", made.session),
                ("user", made.user),
                ("tenant", made.tenant),
                ("all", ""),
            ):
                for event in scoped[scope, target]:
                    if made.began <= self._settled(event):
                        # A user's sessions are those that the store knows of.
                        known = scope == "session" or not self._lost(made, event)
                        life.ends.append(End(event, event.result == "ok" and made.ended < event.began and known))
        self._scoped = scoped
        return lives.values()

    def _settled(self, event: Event) -> float:
        """Until when what was asked may take effect. Packets that a fault has lost are sent again, though nobody waits
        any more: each time after as long as has passed, or sooner.
        """
        if event.result not in OPEN:
            return event.ended
        lossy = [fault for fault in self._faults if fault.began <= event.ended and event.began <= fault.ended]
        return max((event.ended, *(2 * fault.ended - event.began for fault in lossy)))

    def _revocations_of_token(self, event: Event) -> list[Event]:
        """Revocations of a token itself, or of the key that has signed it."""
        return [*self._scoped.get(("token", event.token), ()), *self._scoped.get(("key", event.key), ())]

    def _losses_of(self, event: Event) -> list[Event]:
        """The faults that may have made undone what this event wrote."""
        return [
            fault
            for fault in self._losses
            if event.began <= (fault.lost_to or 0.0) and event.ended >= (fault.lost_from or 0.0)
        ]

    def _lost(self, event: Event, by: Event) -> Event | None:
        """The fault that may have made undone what an event wrote, when another event had ended."""
        return next((fault for fault in self._losses_of(event) if fault.began <= by.ended), None)

    def _find_holds(self) -> Iterator[tuple[int, float, float]]:
        """When a new primary held back, at the longest: shard, from, to."""
        for fault in self._faults:
            if not fault.new_primary:
                continue
            seen: dict[int, float] = {}
            for event in self._events[bisect_left(self._events, fault.ended, key=_ended) :]:
                if event.kind in ("create", "refresh") and event.result == "ok" and event.began >= fault.ended:
                    seen.setdefault(self._shard(event), event.ended)
                    if len(seen) == self.rules.shards:
                        break
            for shard in range(self.rules.shards):
                yield shard, fault.began, seen.get(shard, inf) + self.rules.debounce + self.rules.slack

    def _held(self, event: Event) -> bool:
        shard = self._shard(event)
        return any(shard == its and event.ended >= begin and event.began <= end for its, begin, end in self._holds)

    def _shard(self, event: Event) -> int:
        return int(event.session[:2], 16) % self.rules.shards

    def _known_generation(self, life: Life, before: Event) -> int:
        """G at least, when an event began."""
        return max(
            (
                max(event.generation, event.child_generation)
                for event in life.refreshes
                if event.result == "ok" and event.ended < before.began and self._lost(event, before) is None
            ),
            default=0,
        )

    def _may_have_ended(self, life: Life, event: Event) -> str:
        """Why the session may be over when this event ended; empty: it cannot be."""
        if any(end.event.began <= event.ended for end in life.ends):
            return "revoked, or theft found"
        if self._lost(life.created, event):
            return "lost by a fault"
        if life.ends_at and event.wall + _TICK >= life.ends_at:
            return "at the end of its absolute lifetime"
        return ""

    def _enforced(self, life: Life) -> Iterator[tuple[End, str, float, float]]:
        """From when to when, on the store, an end is certain to hold, and the claim that says so."""
        for end in life.ends:
            if not end.sure:
                continue
            losses = self._losses_of(end.event)
            if end.event.wait == "replicated" and self.rules.replicas < 2:
                emptied = next((loss.began for loss in losses if loss.lost_from == 0), inf)
                yield end, "", end.event.ended, emptied
                continue
            bounds = [*(loss.began for loss in losses), inf]
            yield end, "", end.event.ended, bounds[0]
            for loss, until in zip(losses, bounds[1:], strict=True):
                if self.rules.push_back is not None and self._survives(life, loss):
                    yield end, "b", loss.ended + self.rules.push_back, until

    def _survives(self, life: Life, loss: Event) -> bool:
        """Whether a gateway that outlived a fault had refused the session before it."""
        knew = {event.process for event in life.verifies if event.result == "unauthorised" and event.ended < loss.began}
        return any(self._last_verified[process] > loss.ended for process in knew)

    # --- the rules ---

    def _check_life(self, life: Life) -> None:
        self._check_children(life)
        for event in life.refreshes:
            self._check_refresh(life, event)
        for event in life.verifies:
            self._check_verify(life, event)
        self._check_ends(life)
        self._check_expiry(life)
        self._check_repeats(life)

    def _check_children(self, life: Life) -> None:
        texts: dict[int, Event] = {life.created.child_generation: life.created}
        for event in life.refreshes:
            if event.result == "ok" and event.child:
                first = texts.setdefault(event.child_generation, event)
                self.report.test("I1", first.child == event.child, "two tokens of one generation", first, event)

    def _check_refresh(self, life: Life, event: Event) -> None:
        test, shown = self.report.test, event.generation
        known = self._known_generation(life, event)
        used = self._used_long_ago(life, event)
        if event.result == "ok":
            test("I1", shown >= known - 1, f"generation {shown} is accepted at {known}", event)
            test("I2", event.child_generation >= max(known, shown), f"G has decreased from {known}", event)
        if (shown <= known - 2 or used) and event.result not in OPEN:
            refused = event.result not in ("ok", "busy")
            test("I4", refused, f"an exchanged token (G = {known}) is accepted outside the window", event, *used)
        if event.result == "theft":
            test("I3", event.who != "honest", "an honest client is told of theft", event)
            test("I3", self._theft_has_cause(life, event, known), "theft is found where there is none", event)
        elif event.result in ("unauthorised", "try_refresh"):
            cause = self._may_have_ended(life, event)
            self.report.excused[f"session {cause}"] += bool(cause)
            test("I3", bool(cause), "a session that should be there is not", life.created, event)
        else:
            self.report.tested["I3"] += 1

    def _used_long_ago(self, life: Life, event: Event) -> list[Event]:
        """A use of this token's child that makes it theft by now; none while a new primary holds back."""
        if self._held(event):
            return []
        bound = event.began - self.rules.window - self.rules.slack
        return [
            use
            for use in life.refreshes
            if use.result == "ok" and use.generation > event.generation and use.ended < bound
            if not self._lost(use, event)
        ][:1]

    def _theft_has_cause(self, life: Life, event: Event, known: int) -> bool:
        shown, bound = event.generation, event.ended - self.rules.window + self.rules.slack
        if known >= shown + 2:
            return True
        used = (use for use in (*life.refreshes, *life.verifies) if use.generation > shown and use is not event)
        older = any(use.child_generation >= shown + 2 and use.began <= event.ended for use in life.refreshes)
        return older or any(use.began <= bound for use in used)

    def _check_verify(self, life: Life, event: Event) -> None:
        if event.result not in ("unauthorised", "try_refresh"):
            self.report.tested["I9"] += 1
            return
        cause = self._may_have_ended(life, event)
        if not cause and event.result == "try_refresh":
            now = event.wall + event.clock
            if now + _TICK >= event.expires_at:
                cause = "access token expired"
            elif now - _TICK < event.issued_at:
                cause = "access token not valid yet"
            elif any(revoked.began <= event.ended for revoked in self._revocations_of_token(event)):
                cause = "access token or its key revoked"
            elif event.key in self._made_keys and self._lost(self._made_keys[event.key], event):
                cause = "its key lost by a fault"
        self.report.excused[f"token refused: {cause}"] += bool(cause)
        self.report.test("I9", bool(cause), "a good access token is refused", life.created, event)

    def _check_ends(self, life: Life) -> None:
        for end, claim, begin, until in self._enforced(life):
            self._check_end(life, end, claim, begin, until)
        for loss in self._losses_of(life.created):
            if loss.lost_from == 0 and life.created.ended < loss.began:  # else it may have been made just after
                self._check_emptied(life, loss)
        refused: dict[str, Event] = {}
        for event in life.verifies:
            if event.result == "unauthorised":
                refused.setdefault(event.process, event)
            elif event.result == "ok" and (first := refused.get(event.process)) and first.ended < event.began:
                self.report.test("I5", False, "a gateway accepts what it had refused", first, event)
        for event in life.verifies:
            self._check_token(event)

    def _check_end(self, life: Life, end: End, claim: str, begin: float, until: float) -> None:
        def test(event: Event, rule: str, what: str) -> None:
            broken = event.result in ("ok", "busy")
            self.report.test(claim or self._after_failover(end, event) or rule, not broken, what, end.event, event)

        for event in life.refreshes:
            if begin < event.began and event.ended < until and event is not end.event:
                test(event, "I5", "tokens are handed out after the session's end")
        for event in life.infos:
            if begin < event.began and event.ended < until and not self._may_be_of_the_past(event):
                test(event, "I6", "the session is there after its end")
        bound = self.rules.staleness + self.rules.slack + (self.rules.split if claim == "b" else 0)
        at_once = end.event.wait == "propagated" and not claim
        for event in life.verifies:
            late = event.began - begin
            if at_once and late > 0 and event.ended < until:
                what = "an access token is accepted after its revocation was propagated"
                self.report.test("c", event.result != "ok", what, end.event, event)
            if late > bound and event.ended < until:
                test(event, "a", f"an access token is accepted {late:.2f} s after its session's end")

    def _may_be_of_the_past(self, info: Event) -> bool:
        """A read has no fence: a former primary that is cut off answers it from before another took over."""
        return any(fault.deposed and fault.began < info.ended and info.began < fault.ended for fault in self._faults)

    def _after_failover(self, end: End, event: Event) -> str:
        """Claim b, if the end was replicated and another primary has taken over since."""
        began, ended = event.began, end.event.ended
        faults = (fault for fault in self._faults if fault.new_primary or fault.lost_from)
        replaced = any(ended < fault.ended and fault.began < began for fault in faults)
        return "b" if replaced and end.event.wait == "replicated" else ""

    def _check_emptied(self, life: Life, loss: Event) -> None:
        for event in life.refreshes:
            if event.began > loss.ended:
                what = "a session of a store that was emptied is there again"
                self.report.test("I5", event.result not in ("ok", "busy"), what, loss, event)

    def _check_token(self, event: Event) -> None:
        for revoked in self._revocations_of_token(event):
            if revoked.result != "ok" or self._lost(revoked, event):
                continue
            claim, bound = "a", self.rules.staleness + self.rules.slack
            if revoked.wait == "propagated":
                claim, bound = "c", 0.0
            if event.began > revoked.ended + bound:
                self.report.test(claim, event.result != "ok", "a revoked token is accepted", revoked, event)

    def _check_expiry(self, life: Life) -> None:
        end = life.ends_at
        for event in life.infos:
            if event.ends_at and end:
                self.report.test("I7", event.ends_at == end, "the absolute expiry has moved", life.created, event)
        for event in (life.created, *life.refreshes):
            if event.result == "ok" and end:
                self.report.test("I7", event.expires_at <= end, "an access token outlives its session", event)
        for event in life.verifies:
            if event.result == "ok":
                now = event.wall + event.clock
                self.report.test("I7", now - _TICK < event.expires_at, "an expired access token is accepted", event)

    def _check_repeats(self, life: Life) -> None:
        firsts: dict[int, Event] = {}
        for event in life.refreshes:
            first = firsts.get(event.generation)
            if first is None or event.ended > first.began + self.rules.window:
                if event.result == "ok":
                    firsts[event.generation] = event
                continue
            if event.result in OPEN or event.result == "busy":
                continue
            if event.result != "ok":
                cause = bool(self._may_have_ended(life, event))
                self.report.test("I10", cause, "a call that had succeeded fails when repeated", first, event)
                continue
            changed = {each.child for each in (first, event) if each.child_generation != each.generation}
            self.report.test("I10", len(changed) <= 1, "a repeated call gives another refresh token", first, event)

    def _check_answer(self, event: Event) -> None:
        if event.kind == "fault":
            return
        if event.answered and event.session:
            self.report.test("I8", event.answered == event.session, "the answer is about another session", event)
        self.report.test("I9", not event.result.startswith("error"), "an error that is none of the library's", event)
        if event.kind in ("create", "revoke"):
            known = event.result == "ok" or event.result in OPEN or event.result.startswith("error")
            self.report.test("I9", known, "who signs in or revokes is told of a session that there is not", event)

    # --- how it went ---

    def _check_recovery(self) -> None:
        """When each kind of request at each process was served again. What was not asked for again proves nothing."""
        faults = [fault for fault in self._faults if fault.disturbs]
        end = self._events[-1].ended if self._events else 0.0
        # Not those that wait: a gateway that was killed is waited for until it would have gone stale.
        asked = [event for event in self._events if event.asked and event.kind != "info" and not event.wait]
        bounds = [fault.began for fault in faults[1:]] + [end]
        for fault, until in zip(faults, bounds, strict=False):
            first, last = bisect_left(asked, fault.ended, key=_ended), bisect_right(asked, until, key=_ended)
            away: dict[tuple[str, str], Event] = {}
            served: dict[tuple[str, str], float] = {}
            for event in asked[first:last]:
                service = event.asked, event.kind
                if event.began < fault.ended or service in served:
                    continue
                if event.result in OPEN:
                    away[service] = event
                elif event.result == "ok" or event.kind != "verify":  # a stale one refuses what is revoked
                    served[service] = event.ended - fault.ended if service in away else 0.0
            for service, event in away.items():
                served.setdefault(service, event.ended - fault.ended)
            slowest = max(served.values(), default=None)
            self.report.recoveries.append((fault.fault, fault.note, fault.ended - fault.began, slowest))
            late = [event for event in away.values() if event.began > fault.ended + self.rules.recovery]
            if served:
                self.report.test("R", not late, f"no full service {self.rules.recovery:g} s after", fault, *late)

    def _count(self) -> None:
        counts = self.report.counts
        troubled = [(fault.began, fault.ended + self.rules.recovery) for fault in self._faults]
        for event in self._events:
            counts[f"{event.kind} {event.result.partition(':')[0]}"] += 1
            if event.kind == "refresh" and event.who == "thief":
                counts[f"replay {event.result}"] += 1
            if event.kind == "refresh" and event.result == "ok" and event.child_generation > event.generation:
                counts["rotations"] += 1
            if event.result in OPEN and not any(begin <= event.ended and event.began <= end for begin, end in troubled):
                counts["unavailable while nothing was wrong"] += 1


def _ended(event: Event) -> float:
    return event.ended


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "rules": {
            rule: {
                "tested": report.tested[rule],
                "violations": sum(violation.rule == rule for violation in report.violations),
            }
            for rule in RULES
        },
        "violations": [str(violation) for violation in report.violations],
        "excused": dict(report.excused),
        "recoveries": [
            {"fault": fault, "note": note, "seconds": lasted, "full_service_after": after}
            for fault, note, lasted, after in report.recoveries
        ],
        "counts": dict(report.counts),
    }


def as_text(report: Report, *, most: int = 5) -> str:
    """The report for people; of each rule at most so many violations."""
    lines = ["", f"{'rule':<5}{'tested':>9}{'broken':>8}  "]
    for rule, words in RULES.items():
        broken = sum(violation.rule == rule for violation in report.violations)
        lines.append(f"{rule:<5}{report.tested[rule]:>9}{broken:>8}  {words}")
    lines += ["", f"{'fault':<34}{'lasted':>8}{'full service after':>21}"]
    for fault, note, lasted, after in report.recoveries:
        shown = "not seen" if after is None else f"{after:.2f} s"
        lines.append(f"{f'{fault} ({note})' if note else fault:<34}{lasted:>6.1f} s{shown:>21}")
    for title, counter in (("answered", report.counts), ("excused", report.excused)):
        lines += ["", title]
        lines += [f"{count:>9}  {name}" for name, count in sorted(counter.items()) if count]
    for rule in RULES:
        ours = [violation for violation in report.violations if violation.rule == rule]
        lines += ["", *(str(violation) for violation in ours[:most])] if ours else []
        lines += [f"    and {len(ours) - most} more"] if len(ours) > most else []
    return "\n".join(lines)


def _shown(event: Event) -> str:
    """An event in a line."""
    said = {
        "who": event.who,
        "of": event.fault or event.session or event.target,
        "generation": event.generation if event.generation >= 0 else "",
        "to": event.child_generation if event.child_generation >= 0 else "",
        "scope": event.scope,
        "wait": event.wait,
        "at": event.asked,
        "answered": event.answered,
        "clock": event.clock or "",
    }
    words = " ".join(f"{name}={value}" for name, value in said.items() if value != "")
    return f"{event.began:.3f}-{event.ended:.3f} {event.kind} {event.result} {words}"
