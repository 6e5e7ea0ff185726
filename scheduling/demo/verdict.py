"""The verdict: what was asked for, against what the siblings received and what the API reports. Pure.

**What has to hold.** Each job asked for exists once, however often its creation was repeated. Each firing asked for has
exactly one execution, at its time, that has ended as it should. Each call that a sibling received belongs to one
attempt of one execution: the key, the job, the method, the request and the nominal time are those of the execution,
and the answer is the one that the attempt names. Each attempt that names an answer has its call. An attempt whose
lease was lost with its worker, or that a caller cancelled, may have been received or not: nobody can know; it is what
explains that the call was made again. Nothing was called before its time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

#: Reasons of attempts that may have reached the target or not.
LEASE_LOST, CALLER = "LEASE_LOST", "CALLER"
#: Siblings stamp a call by the wall clock, workers wait by the database's, which they estimate from round trips: so far
#: the two may differ on one machine.
CLOCK_TOLERANCE = timedelta(milliseconds=1)
#: For so long after the kill its effect on others may last: another leader, leases that end, and some.
AFTERMATH = timedelta(seconds=10)


class Fate(StrEnum):
    """How an execution has to end."""

    DELIVERED = "delivered"
    RECOVERS = "delivered after two failures"
    FAILS = "failed for good"
    WITHDRAWN = "cancelled before it was due"
    STOPPED = "cancelled while it ran"
    OVERTAKEN = "cancelled when it may have begun"


@dataclass(frozen=True, slots=True)
class Due:
    """When a firing has to be: at one instant, or between two where the asking did not fix it."""

    earliest: datetime
    latest: datetime

    @classmethod
    def at(cls, moment: datetime) -> Due:
        """One instant."""
        return cls(moment, moment)

    def fits(self, moment: datetime) -> bool:
        """Whether `moment` is such a time."""
        return self.earliest <= moment <= self.latest


@dataclass(frozen=True, slots=True)
class Asked:
    """One job that was asked for. `job` is its resource name as the API answered.

    `kind` groups jobs in the table, `item` is unique among them, `recorded_id` is what siblings record as the request's
    id. `error` is the code and text that a failing one ends with. `delay` is set when its only firing counts from its
    creation. `may_skip` says that firings may be skipped while an earlier one is open.
    """

    kind: str
    item: str
    method: str
    fate: Fate
    due: tuple[Due, ...]
    recorded_id: str = ""
    job: str = ""
    error: tuple[str, str] = ("", "")
    delay: timedelta | None = None
    may_skip: bool = False
    job_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job as the API reports it."""

    job: str
    item: str
    state: str


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """An attempt as the API reports it; `code` is the name of the status code."""

    number: int
    start: datetime
    end: datetime
    worker: str
    code: str
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """An execution as the API reports it. `lateness` is None before its first attempt."""

    uid: str
    job: str
    target: str
    state: str
    reason: str
    nominal: datetime
    ready: datetime
    created: datetime
    finish: datetime | None = None
    lateness: timedelta | None = None
    attempts: tuple[AttemptReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a sibling recorded it; `nominal` is the text of the metadata."""

    received: datetime
    method: str
    recorded_id: str
    key: str
    attempt: int
    job: str
    nominal: str
    code: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """A creation that was repeated with the same request_id: the job that each answer named, "" for a lost answer."""

    request_id: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that there is to judge."""

    asked: Sequence[Asked]
    jobs: Sequence[JobReport]
    executions: Sequence[ExecutionReport]
    calls: Sequence[Call]
    repeats: Sequence[Repeat] = ()
    killed_worker: str = ""
    killed_at: datetime | None = None


@dataclass(slots=True)
class Row:
    """One line of the table: what was asked for, how many executions the API reports so, how many calls came in."""

    title: str
    asked: int = 0
    reported: int = 0
    received: int = 0
    outcome: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lateness:
    """Percentiles of start minus ready time of first attempts."""

    count: int
    p50: timedelta
    p99: timedelta
    worst: timedelta


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out. It has passed when no row has a problem."""

    kinds: tuple[Row, ...]
    rules: tuple[Row, ...]
    lateness: Lateness | None
    calm_lateness: Lateness | None
    lost: int
    unexplained: int
    earliest: timedelta | None

    @property
    def problems(self) -> list[str]:
        """All that is wrong, each with the row that it was found in."""
        return [f"{row.title}: {problem}" for row in (*self.kinds, *self.rules) for problem in row.problems]

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return not self.problems


class _Case:
    """The evidence, sorted so that everything is found by its name."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.by_job: dict[str, list[ExecutionReport]] = defaultdict(list)
        for execution in evidence.executions:
            self.by_job[execution.job].append(execution)
        self.by_uid = {execution.uid: execution for execution in evidence.executions}
        self.asked_by_job = {asked.job: asked for asked in evidence.asked}
        self.job_states = {report.job: report.state for report in evidence.jobs}
        self.calls: dict[str, list[Call]] = defaultdict(list)
        for call in evidence.calls:
            self.calls[call.key].append(call)

    def calls_of(self, execution: ExecutionReport, code: str | None = None) -> list[Call]:
        return [call for call in self.calls[execution.uid] if code is None or call.code == code]


def judge(evidence: Evidence) -> Verdict:
    """Judges everything; complete even when nothing fits."""
    case = _Case(evidence)
    kinds: dict[str, Row] = {}
    lost = 0
    for asked in evidence.asked:
        row = kinds.setdefault(asked.kind, Row(asked.kind, outcome=asked.fate.value))
        row.asked += len(asked.due)
        missing, problems = _judge_asked(case, asked)
        lost += missing
        row.problems += problems
        executions = case.by_job[asked.job]
        row.reported += sum(_has_fate(each, asked.fate) for each in executions)
        row.received += sum(len(case.calls_of(each)) for each in executions)
    calls = _calls_row(case)
    earliest, early = _early_row(case)
    rules = (
        _creations_row(case),
        _repeats_row(evidence.repeats),
        _recovery_row(case),
        calls,
        _answers_row(case),
        early,
    )
    return Verdict(
        kinds=tuple(kinds.values()),
        rules=rules,
        lateness=lateness_of(evidence.executions),
        calm_lateness=lateness_of(_calm(evidence)),
        lost=lost,
        unexplained=len(calls.problems),
        earliest=earliest,
    )


# --- one job ----------------------------------------------------------------------------------------------------------

_STATES = {
    Fate.DELIVERED: ("SUCCEEDED",),
    Fate.RECOVERS: ("SUCCEEDED",),
    Fate.FAILS: ("FAILED",),
    Fate.WITHDRAWN: ("CANCELLED",),
    Fate.STOPPED: ("CANCELLED",),
    Fate.OVERTAKEN: ("CANCELLED", "SUCCEEDED"),
}


def _has_fate(execution: ExecutionReport, fate: Fate) -> bool:
    return execution.state in _STATES[fate]


def _judge_asked(case: _Case, asked: Asked) -> tuple[int, list[str]]:
    """How many firings of a job were lost, and all that is wrong with it."""
    executions = case.by_job[asked.job]
    problems: list[str] = []
    left = list(executions)
    lost = 0
    for due in asked.due:
        found = next((each for each in left if due.fits(each.nominal)), None)
        if found is None:
            lost += 1
            problems.append(f"{asked.item} has no execution at {due.earliest.isoformat()}")
            continue
        left.remove(found)
        lost += not _is_final(found)
        problems += [f"{asked.item} {problem}" for problem in _judge_execution(case, asked, found)]
    problems += [f"{asked.item} has one execution too many, at {each.nominal.isoformat()}" for each in left]
    wanted = "CANCELLED" if asked.job_cancelled else "COMPLETED"
    state = case.job_states.get(asked.job)
    if state is not None and state != wanted and asked.fate is not Fate.OVERTAKEN:
        problems.append(f"{asked.item}: its job is {state}, expected {wanted}")
    return lost, problems


def _is_final(execution: ExecutionReport) -> bool:
    return execution.state in ("SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED")


def _judge_execution(case: _Case, asked: Asked, execution: ExecutionReport) -> Iterable[str]:
    if execution.target != asked.method:
        yield f"goes to {execution.target}"
    if not _has_fate(execution, asked.fate):
        if not (asked.may_skip and _is_skipped_for_overlap(case, execution)):
            yield f"is {execution.state} {execution.reason}".rstrip() + f", expected {' or '.join(_STATES[asked.fate])}"
        return
    yield from _JUDGES[asked.fate](case, asked, execution)


def _is_skipped_for_overlap(case: _Case, execution: ExecutionReport) -> bool:
    """Whether it was skipped, and an earlier one was open at its time indeed."""
    if (execution.state, execution.reason) != ("SKIPPED", "OVERLAP"):
        return False
    return any(
        other.nominal < execution.nominal and (other.finish is None or other.finish >= execution.nominal)
        for other in case.by_job[execution.job]
    )


def _lost_leases(execution: ExecutionReport) -> int:
    return sum(attempt.reason == LEASE_LOST for attempt in execution.attempts)


def _delivered(case: _Case, _: Asked, execution: ExecutionReport) -> Iterable[str]:
    count = len(case.calls_of(execution, "OK"))
    if count == 0:
        yield "SUCCEEDED, and no sibling received it"
    elif count > 1 + _lost_leases(execution):
        yield f"got through {count} times"


def _recovered(case: _Case, asked: Asked, execution: ExecutionReport) -> Iterable[str]:
    yield from _delivered(case, asked, execution)
    refused = len(case.calls_of(execution, "UNAVAILABLE"))
    if refused != 2:
        yield f"was refused {refused} times, expected 2"


def _failed(case: _Case, asked: Asked, execution: ExecutionReport) -> Iterable[str]:
    code, text = asked.error
    last = execution.attempts[-1] if execution.attempts else None
    if execution.reason != "PERMANENT":
        yield f"FAILED as {execution.reason}, expected PERMANENT"
    if last is None or last.code != code or text not in last.text:
        yield f"does not keep its error: {code} {text}"
    count = len(case.calls_of(execution, code))
    if not 1 <= count <= 1 + _lost_leases(execution):
        yield f"was called {count} times, expected once"


def _withdrawn(case: _Case, _: Asked, execution: ExecutionReport) -> Iterable[str]:
    if case.calls_of(execution) or execution.attempts:
        yield "was cancelled before it was due, and called all the same"


def _stopped(case: _Case, _: Asked, execution: ExecutionReport) -> Iterable[str]:
    codes = [call.code for call in case.calls_of(execution)]
    if set(codes) != {"CANCELLED"} or len(codes) > 1 + _lost_leases(execution):
        yield f"was cancelled while it ran, and the sibling saw {', '.join(codes) or 'nothing'}"


def _overtaken(case: _Case, asked: Asked, execution: ExecutionReport) -> Iterable[str]:
    if execution.state == "SUCCEEDED":
        yield from _delivered(case, asked, execution)


_JUDGES: Mapping[Fate, Callable[[_Case, Asked, ExecutionReport], Iterable[str]]] = {
    Fate.DELIVERED: _delivered,
    Fate.RECOVERS: _recovered,
    Fate.FAILS: _failed,
    Fate.WITHDRAWN: _withdrawn,
    Fate.STOPPED: _stopped,
    Fate.OVERTAKEN: _overtaken,
}


# --- what holds for all -----------------------------------------------------------------------------------------------


def _creations_row(case: _Case) -> Row:
    evidence = case.evidence
    row = Row("each job exists once", len(evidence.asked), len(evidence.jobs))
    known = {report.job for report in evidence.jobs}
    row.problems += [f"{asked.item} is not known to the API" for asked in evidence.asked if asked.job not in known]
    row.problems += [
        f"{report.job} for {report.item or 'nothing'} was not asked for"
        for report in evidence.jobs
        if report.job not in case.asked_by_job
    ]
    named = Counter(asked.job for asked in evidence.asked)
    row.problems += [f"{job} was answered to {count} requests" for job, count in named.items() if count > 1]
    row.problems += [
        f"execution {execution.uid} belongs to {execution.job}, which nobody asked for"
        for execution in evidence.executions
        if execution.job not in case.asked_by_job
    ]
    return row


def _repeats_row(repeats: Sequence[Repeat]) -> Row:
    row = Row("repeated creations answer the same", len(repeats), sum(len(repeat.answers) for repeat in repeats))
    for repeat in repeats:
        answers = {answer for answer in repeat.answers if answer}
        if len(answers) != 1:
            row.problems.append(f"{repeat.request_id} was answered with {', '.join(sorted(answers)) or 'nothing'}")
    return row


def _recovery_row(case: _Case) -> Row:
    row = Row("cut off with the killed worker, made again")
    killed = case.evidence.killed_worker
    for execution in case.evidence.executions:
        for attempt in execution.attempts:
            if attempt.reason != LEASE_LOST or attempt.worker != killed:
                continue
            row.asked += 1
            later = [each for each in execution.attempts if each.number > attempt.number]
            if later or execution.state == "CANCELLED":
                row.reported += 1
            else:
                row.problems.append(f"execution {execution.uid} was not taken up again")
            row.received += sum(call.attempt > attempt.number for call in case.calls_of(execution))
    if killed and row.asked == 0:
        row.problems.append("nothing was under way when the worker was killed, so nothing is shown by it")
    return row


def _calls_row(case: _Case) -> Row:
    row = Row("each call belongs to one attempt", received=len(case.evidence.calls))
    taken: set[tuple[str, int]] = set()
    for call in case.evidence.calls:
        problem = _unexplained(case, call)
        if problem is None and (call.key, call.attempt) in taken:
            problem = f"attempt {call.attempt} was received twice"
        taken.add((call.key, call.attempt))
        if problem is None:
            row.reported += 1
        else:
            row.problems.append(f"{call.method} {call.recorded_id} with key {call.key or 'none'}: {problem}")
    return row


def _unexplained(case: _Case, call: Call) -> str | None:
    """Why nothing that the API reports explains a call; None if it is explained."""
    execution = case.by_uid.get(call.key)
    if execution is None:
        return "no execution has this key"
    asked = case.asked_by_job.get(execution.job)
    if asked is None:
        return "nobody asked for its job"
    expected = (execution.job, execution.target, asked.recorded_id, execution.nominal)
    try:
        nominal = datetime.fromisoformat(call.nominal)
    except ValueError:
        return f"its nominal time is {call.nominal!r}"
    for name, given, wanted in zip(
        ("job", "method", "id", "nominal time"),
        (call.job, call.method, call.recorded_id, nominal),
        expected,
        strict=True,
    ):
        if given != wanted:
            return f"its {name} is {given}, that of the execution is {wanted}"
    attempt = next((each for each in execution.attempts if each.number == call.attempt), None)
    if attempt is None:
        return f"the execution has no attempt {call.attempt}"
    if attempt.reason not in (LEASE_LOST, CALLER) and attempt.code != call.code:
        return f"it was answered {call.code}, attempt {call.attempt} says {attempt.code}"
    return None


def _answers_row(case: _Case) -> Row:
    row = Row("each answered attempt has its call")
    for execution in case.evidence.executions:
        received = {call.attempt for call in case.calls_of(execution)}
        for attempt in execution.attempts:
            if attempt.reason in (LEASE_LOST, CALLER):
                continue
            row.asked += 1
            if attempt.number in received:
                row.received += 1
            else:
                row.problems.append(
                    f"execution {execution.uid}: no sibling received attempt {attempt.number}, "
                    f"which says {attempt.code} {attempt.text}".rstrip()
                )
    return row


def _early_row(case: _Case) -> tuple[timedelta | None, Row]:
    """The shortest time from ready to received, and the row that no call was early."""
    row = Row("no call before its time")
    shortest: timedelta | None = None
    for call in case.evidence.calls:
        execution = case.by_uid.get(call.key)
        if execution is None:
            continue
        row.asked += 1
        margin = call.received - _ready(execution, call.attempt)
        shortest = margin if shortest is None else min(shortest, margin)
        if margin < -CLOCK_TOLERANCE:
            early = -margin / timedelta(milliseconds=1)
            by = next((each.worker for each in execution.attempts if each.number == call.attempt), "nobody")
            row.problems.append(
                f"{call.recorded_id or call.method}: attempt {call.attempt} by {by} is {early:.1f} ms early"
            )
        else:
            row.received += 1
    return shortest, row


def _ready(execution: ExecutionReport, attempt: int) -> datetime:
    """When an attempt might begin: the first at the nominal time, the last at the ready time that is reported, those
    between not before the end of the one before.
    """
    if attempt <= 1:
        return execution.nominal
    before = [each.end for each in execution.attempts if each.number < attempt]
    if before and attempt < max(each.number for each in execution.attempts):
        return max(execution.nominal, before[-1])
    return max(execution.nominal, execution.ready)


# --- lateness ---------------------------------------------------------------------------------------------------------


def lateness_of(executions: Iterable[ExecutionReport]) -> Lateness | None:
    """The lateness of those that were started; None if none was. What was asked for after its time counts from its
    creation.
    """
    found = []
    for execution in executions:
        if execution.lateness is not None:
            asked_late = max(execution.created - execution.nominal, timedelta(0))
            found.append(execution.lateness - asked_late)
    if not found:
        return None
    found.sort()
    return Lateness(len(found), percentile(found, 50), percentile(found, 99), found[-1])


def percentile(ordered: Sequence[timedelta], percent: float) -> timedelta:
    """The nearest-rank percentile of what is sorted already and not empty."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def _calm(evidence: Evidence) -> list[ExecutionReport]:
    """The executions due outside the aftermath of the kill."""
    killed = evidence.killed_at
    if killed is None:
        return list(evidence.executions)
    # What was due shortly before was perhaps handed to the worker already, and waited there.
    start, end = killed - timedelta(seconds=1), killed + AFTERMATH
    return [each for each in evidence.executions if not start <= each.nominal < end]
