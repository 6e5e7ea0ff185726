"""The checker of a chaos run: what was asked for, against what the siblings received and what PostgreSQL holds. Pure.

**Lost**: a job that was accepted has no execution at its time, a recurring one has a firing unaccounted for, or an
execution counts as done that no sibling answered. **Stuck**: an execution that has not ended although everything has
long been well. **Doubled**: two executions, or two keys, for one nominal time of a job. **Overlapping**: a call that
came while an earlier one of the same execution was under way, by the siblings' record; those whose earlier call was in
flight at a kill or a halt are counted apart, and are not allowed with WAIT_FOR_DEADLINE. **Wrong repeats**: a call that
nothing in the execution's history explains.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.mix import Item
from tests.chaos.stage import Cut

#: What the siblings' clock readings may differ by.
TOLERANCE = 0.002
#: What started within this many seconds of its time was not disturbed; nor what was no later than this many times what
#: 99 % of executions had been before the fault, on a machine that is busy with other things.
PROMPT, USUAL = 0.5, 1.5
#: Of what is due in a second so much may be late all the same.
LATE_SHARE = 0.05
#: For so many seconds in a row nearly everything has to start promptly: then all has been normal since the first.
STEADY_SECONDS = 3
#: States that an execution ends in.
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED"})
#: What a run shows of each thing that is wrong, at most.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a sibling recorded it, times in seconds of the Unix epoch."""

    key: str
    attempt: int
    received: float
    end: float
    code: str
    job: str
    nominal: str
    method: str


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution as PostgreSQL holds it. `attempts` holds code and reason of the attempts that it remembers."""

    uid: str
    item: str
    nominal: float
    due: float
    created: float
    state: str
    reason: str
    max_attempts: int
    attempts: Mapping[int, tuple[int, str]] = field(default_factory=dict)

    @property
    def wanted(self) -> float:
        """When it was to start: a job accepted late cannot be on time."""
        return max(self.due, self.created)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything there is to judge. `verify` is what `scheduling verify` said, empty when all was well."""

    accepted: Mapping[str, str]
    items: Mapping[str, Item]
    executions: Sequence[Execution]
    calls: Sequence[Call]
    cuts: Sequence[Cut]
    verify: str
    fault_start: float
    fault_end: float


@dataclass(slots=True)
class Findings:
    """What came out; `problems` names some of what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    times: dict[str, float | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, texts: Iterable[str]) -> None:
        """Counts what is wrong and keeps some of it."""
        found = list(texts)
        self.counts[kind] = self.counts.get(kind, 0) + len(found)
        self.problems += [f"{kind}: {text}" for text in found[:SHOWN]]


def check(evidence: Evidence) -> Findings:
    """Compares everything with everything."""
    findings = Findings()
    by_item: dict[str, list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        by_item[execution.item].append(execution)
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(evidence.calls, key=lambda call: call.received):
        calls[call.key].append(call)
    findings.counts |= {
        "accepted": len(evidence.accepted),
        "executions": len(evidence.executions),
        "calls": len(evidence.calls),
    }
    findings.add("lost", _lost(evidence, by_item, calls))
    findings.add("stuck", (f"{e.item} is {e.state}" for e in evidence.executions if e.state not in FINAL))
    findings.add("doubled", _doubled(evidence, by_item))
    overlaps = list(_overlaps(evidence, calls))
    findings.add("overlapping", (text for text, explained in overlaps if not explained))
    findings.counts["overlapping_explained"] = sum(explained for _, explained in overlaps)
    findings.add("wrong repeats", _wrong_repeats(evidence, calls))
    findings.counts["repeats"] = sum(len(each) - 1 for each in calls.values())
    findings.counts["failed"] = sum(e.state == "FAILED" for e in evidence.executions)
    findings.add("failed without cause", _failed_wrongly(evidence.executions))
    if evidence.verify:
        findings.add("verify", evidence.verify.splitlines())
    else:
        findings.counts["verify"] = 0
    _measure(evidence, calls, findings)
    return findings


def _lost(
    evidence: Evidence, by_item: Mapping[str, Sequence[Execution]], calls: Mapping[str, Sequence[Call]]
) -> Iterable[str]:
    for name in evidence.accepted:
        item = evidence.items[name]
        found = by_item.get(name, ())
        if item.due is not None and not any(abs(each.nominal - item.due) < TOLERANCE for each in found):
            yield f"{name} has no execution at its time"
    for execution in evidence.executions:
        if execution.state == "SUCCEEDED" and not any(call.code == "OK" for call in calls.get(execution.uid, ())):
            yield f"{execution.item} has SUCCEEDED, and no sibling answered it"


def _doubled(evidence: Evidence, by_item: Mapping[str, Sequence[Execution]]) -> Iterable[str]:
    for item, found in by_item.items():
        for nominal, count in Counter(each.nominal for each in found).items():
            if count > 1:
                yield f"{item} has {count} executions at {nominal}"
        known = evidence.items.get(item)
        if known is not None and known.due is not None and len(found) > 1:
            yield f"{item} has {len(found)} executions, and was to fire once"
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in evidence.calls:
        keys[call.job, call.nominal].add(call.key)
    for (job, moment), found_keys in keys.items():
        if len(found_keys) > 1:
            yield f"{job} was called for {moment} under {len(found_keys)} keys"


def _overlaps(evidence: Evidence, calls: Mapping[str, Sequence[Call]]) -> Iterable[tuple[str, bool]]:
    waits = {each.uid for each in evidence.executions if each.item.startswith("wait-")}
    for key, each in calls.items():
        for earlier, later in pairwise(each):
            if later.received < earlier.end - TOLERANCE:
                in_flight = any(cut.start <= earlier.end and cut.end >= earlier.received for cut in evidence.cuts)
                text = (
                    f"{key} attempt {later.attempt} came {earlier.end - later.received:.3f} s before the end of "
                    f"attempt {earlier.attempt}"
                )
                yield text, in_flight and key not in waits


def _wrong_repeats(evidence: Evidence, calls: Mapping[str, Sequence[Call]]) -> Iterable[str]:
    known = {each.uid: each for each in evidence.executions}
    for key, each in calls.items():
        execution = known.get(key)
        if execution is None:
            yield f"{key} was called, and is no execution"
            continue
        if execution.max_attempts == 1 and len(each) > 1:
            yield f"{execution.item} was to be called once, and was called {len(each)} times"
        for earlier, later in pairwise(each):
            if later.attempt <= earlier.attempt:
                yield f"{execution.item} was called twice as attempt {later.attempt}"
            elif earlier.attempt not in execution.attempts:
                yield f"{execution.item} was called again, and nothing is known of attempt {earlier.attempt}"
            elif execution.attempts[earlier.attempt][0] == 0:
                yield f"{execution.item} was called again after attempt {earlier.attempt} was recorded as OK"


def _failed_wrongly(executions: Iterable[Execution]) -> Iterable[str]:
    """What may fail: what has used up its attempts."""
    for each in executions:
        if each.state == "FAILED" and (
            each.reason != "ATTEMPTS_EXHAUSTED" or max(each.attempts, default=0) < each.max_attempts
        ):
            yield f"{each.item} has FAILED: {each.reason} after {len(each.attempts)} attempts"
        if each.state == "CANCELLED" or (each.state == "SKIPPED" and not each.item.startswith("skipping-")):
            yield f"{each.item} is {each.state} {each.reason}"


# --- times ------------------------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of the values lie (nearest rank), None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _measure(evidence: Evidence, calls: Mapping[str, Sequence[Call]], findings: Findings) -> None:
    start, end = evidence.fault_start, evidence.fault_end
    starts = [(each.wanted, calls[each.uid][0].received) for each in evidence.executions if each.uid in calls]
    before = [received - wanted for wanted, received in starts if wanted < start - PROMPT]
    prompt = max(PROMPT, USUAL * (percentile(before, 0.99) or 0.0))
    normal_from, recovered = _recovery(starts, start, end, prompt)
    again = [after for _, after in _reruns(evidence, calls)]
    recovered = max([recovered, *again])
    calm = max(normal_from, recovered)
    during = [received - wanted for wanted, received in starts if start <= wanted < calm]
    after = [received - wanted for wanted, received in starts if wanted >= calm]
    findings.times |= {
        "recovery": recovered - end,
        "reruns": max(again) - end if again else None,
        "p99_before": percentile(before, 0.99),
        "p50_during": percentile(during, 0.5),
        "p99_during": percentile(during, 0.99),
        "p50_after": percentile(after, 0.5),
        "p99_after": percentile(after, 0.99),
        "earliest": min((received - wanted for wanted, received in starts), default=None),
    }
    findings.counts["cut_calls"] = len(again)


def _recovery(starts: Sequence[tuple[float, float]], start: float, end: float, prompt: float) -> tuple[float, float]:
    """From which due time on all is normal, and when the last of what was due before had started; at least the end of
    the fault.
    """
    late: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for wanted, received in starts:
        if wanted >= end:
            second = int(wanted - end)
            total[second] += 1
            late[second] += received - wanted > prompt
    normal = 0
    last = max(total, default=0)
    while normal < last and any(late[s] > total[s] * LATE_SHARE for s in range(normal, normal + STEADY_SECONDS)):
        normal += 1
    normal_from = end + normal
    recovered = max(
        (received for wanted, received in starts if start <= wanted < normal_from and received - wanted > prompt),
        default=end,
    )
    return normal_from, max(recovered, end)


def _reruns(evidence: Evidence, calls: Mapping[str, Sequence[Call]]) -> Iterable[tuple[Call, float]]:
    """Calls that a kill or a halt cut off, with the moment at which they were made again. Those that have to wait for
    their deadline are left out.
    """
    waits = {each.uid for each in evidence.executions if each.item.startswith("wait-")}
    lost = {
        (each.uid, number)
        for each in evidence.executions
        for number, (_, reason) in each.attempts.items()
        if reason == "LEASE_LOST"
    }
    for key, each in calls.items():
        for earlier, later in pairwise(each):
            if key not in waits and (key, earlier.attempt) in lost:
                yield earlier, later.received


def evidence_call(entry: Mapping[str, Any]) -> Call:
    """A line of the siblings' record."""
    return Call(
        key=entry["idempotency_key"] or "",
        attempt=entry["attempt"] or 0,
        received=entry["received"],
        end=entry["received"] + entry["duration"],
        code=entry["code"],
        job=entry["job"] or "",
        nominal=entry["nominal_time"] or "",
        method=entry["method"],
    )
