"""The demo's verdict: it passes when everything happened as promised, and whatever did not makes it fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduling.demo.verdict import (
    Asked,
    AttemptReport,
    Call,
    Due,
    Evidence,
    ExecutionReport,
    Fate,
    JobReport,
    Repeat,
    Verdict,
    judge,
    lateness_of,
    percentile,
)

SEND = "messaging.MessagingService/SendScheduledMessage"
T0 = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
MS = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
ERROR = ("INVALID_ARGUMENT", "no such chat")


class Story:
    """Evidence that is written line by line."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.jobs: list[JobReport] = []
        self.executions: list[ExecutionReport] = []
        self.calls: list[Call] = []
        self.repeats: list[Repeat] = []
        self.killed = ""

    def add(
        self,
        item: str,
        fate: Fate = Fate.DELIVERED,
        state: str = "SUCCEEDED",
        *attempts: tuple[str, str],
        due: tuple[datetime, ...] = (T0,),
        reason: str = "",
        received: bool = True,
        **asked: Any,
    ) -> None:
        """A job with an execution for each due time, whose attempts are (code, reason), all received."""
        job = f"jobs/{item}"
        given = Asked(item, item, SEND, fate, tuple(map(Due.at, due)), recorded_id=item, job=job, **asked)
        self.asked.append(given)
        self.jobs.append(JobReport(job, item, "CANCELLED" if given.job_cancelled else "COMPLETED"))
        for number, nominal in enumerate(due):
            self._execute(f"{item}/{number}", job, item, state, reason, nominal, attempts, received=received)

    def _execute(
        self,
        uid: str,
        job: str,
        item: str,
        state: str,
        reason: str,
        nominal: datetime,
        attempts: tuple[tuple[str, str], ...],
        *,
        received: bool,
    ) -> None:
        made = []
        for number, (code, why) in enumerate(attempts, 1):
            start = nominal + (number - 1) * SECOND + MS
            made.append(
                AttemptReport(number, start, start + MS, "w-1", code, ERROR[1] if code == ERROR[0] else "", why)
            )
            if received:
                seen = "CANCELLED" if why else code
                self.calls.append(Call(start + MS, SEND, item, uid, number, job, nominal.isoformat(), seen))
        self.executions.append(
            ExecutionReport(
                uid=uid,
                job=job,
                target=SEND,
                state=state,
                reason=reason,
                nominal=nominal,
                ready=nominal + max(len(attempts) - 1, 0) * SECOND,
                created=T0 - SECOND * 60,
                finish=nominal + len(attempts) * SECOND,
                lateness=MS if attempts else None,
                attempts=tuple(made),
            )
        )

    def judge(self) -> Verdict:
        return judge(Evidence(self.asked, self.jobs, self.executions, self.calls, self.repeats, self.killed, T0))


OK, REFUSED, LOST = ("OK", ""), ("UNAVAILABLE", ""), ("UNAVAILABLE", "LEASE_LOST")


@pytest.fixture
def story() -> Story:
    """One of each kind, all as promised."""
    story = Story()
    story.add("plain", Fate.DELIVERED, "SUCCEEDED", OK)
    story.add("flaky", Fate.RECOVERS, "SUCCEEDED", REFUSED, REFUSED, OK)
    story.add("broken", Fate.FAILS, "FAILED", (ERROR[0], ""), reason="PERMANENT", error=ERROR)
    story.add("withdrawn", Fate.WITHDRAWN, "CANCELLED", reason="CALLER", job_cancelled=True)
    story.add("stuck", Fate.STOPPED, "CANCELLED", ("CANCELLED", "CALLER"), reason="CALLER")
    story.add("slow", Fate.DELIVERED, "SUCCEEDED", LOST, OK)
    story.add("digest", Fate.DELIVERED, "SUCCEEDED", OK, due=tuple(T0 + n * 2 * SECOND for n in range(5)))
    story.repeats.append(Repeat("r-1", ("", "jobs/plain", "jobs/plain")))
    story.killed = "w-1"
    return story


def test_everything_as_promised_passes(story: Story) -> None:
    verdict = story.judge()
    assert verdict.problems == []
    assert verdict.passed
    assert (verdict.lost, verdict.unexplained) == (0, 0)
    assert verdict.earliest == 2 * MS
    assert sum(row.asked for row in verdict.kinds) == len(story.executions) == 11
    assert sum(row.received for row in verdict.kinds) == len(story.calls)


def drop_call(story: Story, item: str, attempt: int = 1) -> None:
    story.calls = [call for call in story.calls if (call.recorded_id, call.attempt) != (item, attempt)]


def change_call(story: Story, item: str, **values: Any) -> None:
    at = next(number for number, call in enumerate(story.calls) if call.recorded_id == item)
    story.calls[at] = replace(story.calls[at], **values)


def repeat_call(story: Story, item: str, **values: Any) -> None:
    story.calls.append(replace(next(call for call in story.calls if call.recorded_id == item), **values))


def change_execution(story: Story, item: str, **values: Any) -> None:
    at = next(number for number, each in enumerate(story.executions) if each.job == f"jobs/{item}")
    story.executions[at] = replace(story.executions[at], **values)


def drop_execution(story: Story, item: str) -> None:
    """Without its calls: only the API is silent about it, or it never was."""
    gone = next(each for each in story.executions if each.job == f"jobs/{item}")
    story.executions.remove(gone)
    story.calls = [call for call in story.calls if call.key != gone.uid]


WRONG: dict[str, Callable[[Story], None]] = {
    "a call is missing": lambda s: drop_call(s, "plain"),
    "a call in the middle is missing": lambda s: drop_call(s, "flaky", 2),
    "a call came twice": lambda s: repeat_call(s, "plain"),
    "a call came again as another attempt": lambda s: repeat_call(s, "plain", attempt=2),
    "a call came again with another key": lambda s: repeat_call(s, "plain", key="other"),
    "a call has another execution's key": lambda s: change_call(s, "plain", key="flaky/0"),
    "a call has no key": lambda s: change_call(s, "plain", key=""),
    "a call names another job": lambda s: change_call(s, "plain", job="jobs/flaky"),
    "a call names another nominal time": lambda s: change_call(s, "plain", nominal=(T0 + MS).isoformat()),
    "a call names no nominal time": lambda s: change_call(s, "plain", nominal=""),
    "a call went to another method": lambda s: change_call(s, "plain", method="auth.AuthService/RotateTokens"),
    "a call carried another request": lambda s: change_call(s, "plain", recorded_id="other"),
    "a call was answered otherwise than the attempt says": lambda s: change_call(s, "plain", code="UNAVAILABLE"),
    "a call came early": lambda s: change_call(s, "plain", received=T0 - 2 * MS),
    "a retry came early": lambda s: s.calls.append(
        replace(s.calls.pop(3), received=T0 + 2 * SECOND - 100 * MS),
    ),
    "an execution is missing": lambda s: drop_execution(s, "plain"),
    "a firing is missing": lambda s: drop_execution(s, "digest"),
    "a firing is doubled": lambda s: s.executions.append(
        replace(s.executions[-1], uid="digest/twin", attempts=(), lateness=None)
    ),
    "a firing is at another time": lambda s: change_execution(s, "digest", nominal=T0 + SECOND),
    "a firing was skipped": lambda s: change_execution(s, "digest", state="SKIPPED", reason="OVERLAP", attempts=()),
    "an execution has not ended": lambda s: change_execution(s, "plain", state="RUNNING"),
    "an execution went to another method": lambda s: change_execution(
        s, "plain", target="auth.AuthService/RotateTokens"
    ),
    "a message failed": lambda s: change_execution(s, "plain", state="FAILED", reason="EXPIRED"),
    "a cancelled one was called": lambda s: repeat_call(s, "plain", key="withdrawn/0", job="jobs/withdrawn"),
    "a cancelled one got through": lambda s: change_execution(s, "withdrawn", state="SUCCEEDED"),
    "a cancelled job is not cancelled": lambda s: s.jobs.__setitem__(3, JobReport("jobs/withdrawn", "", "ACTIVE")),
    "a stopped one got through all the same": lambda s: change_call(s, "stuck", code="OK"),
    "a failed one succeeded": lambda s: change_execution(s, "broken", state="SUCCEEDED"),
    "a failed one failed for another reason": lambda s: change_execution(s, "broken", reason="EXPIRED"),
    "a failed one lost its error": lambda s: change_execution(s, "broken", attempts=()),
    "a job is not known": lambda s: s.jobs.__delitem__(0),
    "a job was made twice": lambda s: s.jobs.append(JobReport("jobs/twin", "plain", "COMPLETED")),
    "two requests were answered with one job": lambda s: s.asked.append(replace(s.asked[0], item="another")),
    "an execution belongs to no job": lambda s: s.executions.append(
        replace(s.executions[0], uid="stray", job="jobs/stray", attempts=(), lateness=None)
    ),
    "a repeated creation got another job": lambda s: s.repeats.append(Repeat("r-2", ("jobs/a", "jobs/b"))),
    "a repeated creation was never answered": lambda s: s.repeats.append(Repeat("r-2", ("", ""))),
    "nothing ran on the killed worker": lambda s: setattr(s, "killed", "w-2"),
    "what ran on the killed worker was left": lambda s: change_execution(
        s, "slow", attempts=s.executions[5].attempts[:1]
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_it_fails_when(story: Story, wrong: Callable[[Story], None]) -> None:
    wrong(story)
    verdict = story.judge()
    assert not verdict.passed
    assert verdict.problems


def test_what_is_missing_is_counted_as_lost(story: Story) -> None:
    drop_execution(story, "plain")
    drop_execution(story, "digest")
    change_execution(story, "flaky", state="PENDING")
    assert story.judge().lost == 3


def test_what_nobody_can_explain_is_counted(story: Story) -> None:
    repeat_call(story, "plain", key="other")
    assert story.judge().unexplained == 1


def test_what_was_cancelled_too_late_may_have_been_delivered_and_once_only() -> None:
    story = Story()
    story.add("late", Fate.OVERTAKEN, "SUCCEEDED", OK)
    story.add("in time", Fate.OVERTAKEN, "CANCELLED", reason="CALLER")
    assert story.judge().passed
    story.add("lost", Fate.OVERTAKEN, "FAILED", ERROR)
    assert not story.judge().passed


def test_a_lost_lease_explains_a_second_delivery() -> None:
    story = Story()
    story.add("twice", Fate.DELIVERED, "SUCCEEDED", LOST, OK)
    story.calls[0] = replace(story.calls[0], code="OK")
    assert story.judge().passed


def test_a_lost_lease_explains_a_call_that_never_arrived() -> None:
    story = Story()
    story.add("once", Fate.DELIVERED, "SUCCEEDED", LOST, OK)
    del story.calls[0]
    assert story.judge().passed


def test_a_retry_explains_no_second_delivery() -> None:
    story = Story()
    story.add("twice", Fate.DELIVERED, "SUCCEEDED", REFUSED, OK)
    story.calls[0] = replace(story.calls[0], code="OK")
    assert not story.judge().passed


def test_a_firing_may_be_skipped_only_while_an_earlier_one_is_open() -> None:
    story = Story()
    story.add("cleanup", Fate.DELIVERED, "SUCCEEDED", OK, due=(T0, T0 + 2 * SECOND), may_skip=True)
    story.calls.pop()
    late = replace(story.executions[1], state="SKIPPED", reason="OVERLAP", attempts=(), lateness=None)
    story.executions[1] = late
    assert not story.judge().passed
    story.executions[0] = replace(story.executions[0], finish=T0 + 3 * SECOND)
    assert story.judge().passed


def test_a_delay_may_end_anywhere_between_asking_and_answer() -> None:
    story = Story()
    story.add("report", Fate.DELIVERED, "SUCCEEDED", OK)
    story.asked[0] = replace(story.asked[0], due=(Due(T0 - MS, T0 + MS),))
    assert story.judge().passed
    story.asked[0] = replace(story.asked[0], due=(Due(T0 + MS, T0 + 2 * MS),))
    assert not story.judge().passed


def test_lateness_counts_from_the_creation_when_that_came_after_the_time() -> None:
    story = Story()
    story.add("plain", Fate.DELIVERED, "SUCCEEDED", OK)
    story.executions[0] = replace(story.executions[0], created=T0 + SECOND, lateness=SECOND + 3 * MS)
    found = lateness_of(story.executions)
    assert found is not None
    assert found.worst == 3 * MS


def test_nothing_to_judge_is_judged() -> None:
    verdict = judge(Evidence([], [], [], []))
    assert verdict.passed
    assert verdict.lateness is None
    assert verdict.earliest is None


def test_percentiles_are_of_the_nearest_rank() -> None:
    hundred = [n * MS for n in range(1, 101)]
    assert percentile(hundred, 50) == 50 * MS
    assert percentile(hundred, 99) == 99 * MS
    assert percentile(hundred[:1], 99) == MS
