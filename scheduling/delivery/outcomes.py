"""What an answer makes of an execution: the rules of `domain.retry`, put into outcomes that can be recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduling.delivery.channels import Answer
from scheduling.delivery.database_clock import DatabaseClock
from scheduling.domain.execution import Attempt, Claim, Outcome, Reason, append_attempt
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code, decide
from scheduling.domain.target import AfterLostWorker

#: Stands in for an answer's text that PostgreSQL refused.
UNSTORABLE = "the answer could not be stored"
#: Why this process gives up a call of its own accord: it says nothing about the target, and the call is made again.
CUT = frozenset({Reason.LEASE_LOST, Reason.SHUTDOWN})


class Outcomes:
    """Makes the outcomes of one worker."""

    def __init__(self, worker: UUID, database_clock: DatabaseClock, chance: Callable[[], float]) -> None:
        self._worker = str(worker)
        self._database_clock = database_clock
        self._chance = chance

    def not_begun(self, claim: Claim, cancelled_by: str) -> Outcome:
        """Of a claim whose call never began."""
        if cancelled_by == Reason.CALLER:
            return Outcome(claim.uid, claim.token, State.CANCELLED, Reason.CALLER, None, None, None, claim.history)
        return Outcome(
            claim.uid, claim.token, State.PENDING, Reason.NOT_BEGUN, claim.ready_time, None, None, claim.history
        )

    def answered(self, claim: Claim, answer: Answer, start: datetime, seconds: float, cancelled_by: str) -> Outcome:
        """Of a call that was made."""
        if answer.code is Code.OK and not claim.history:
            # The usual case, without asking the rules what they always say: a first attempt that succeeded.
            attempt = Attempt(
                claim.attempt, start, timedelta(seconds=seconds), self._worker, 0, answer.message, True, cancelled_by
            )
            return Outcome(
                claim.uid,
                claim.token,
                State.SUCCEEDED,
                "",
                None,
                attempt,
                claim.start_time or start,
                (attempt,),
                answer.response,
                answer.response_type,
            )
        now = self._database_clock.now()
        is_cut = cancelled_by in CUT
        decision = decide(
            answer.code,
            attempt=claim.attempt,
            counted_before=claim.counted,
            policy=claim.policy,
            now=now,
            expire_time=claim.expire_time,
            chance=self._chance(),
            pushback=_pause_after_cut(claim, start, now) if is_cut else answer.pushback,
            cancel_requested=cancelled_by == Reason.CALLER,
            reason=cancelled_by if is_cut else "",
            unsent=answer.unsent,
        )
        attempt = Attempt(
            number=claim.attempt,
            start_time=start,
            duration=timedelta(seconds=seconds),
            worker=self._worker,
            code=int(answer.code),
            message=answer.message,
            counted=decision.counted,
            reason=cancelled_by or answer.unsent or (Reason.CONFLICT if answer.code is Code.ABORTED else ""),
        )
        return Outcome(
            uid=claim.uid,
            token=claim.token,
            state=decision.state,
            reason=decision.reason,
            ready_time=decision.ready_time,
            attempt=attempt,
            start_time=claim.start_time or start,
            history=append_attempt(claim.history, attempt),
            response=answer.response if decision.state is State.SUCCEEDED else None,
            response_type=answer.response_type if decision.state is State.SUCCEEDED else "",
        )

    def unknown(self, claim: Claim, attempt: Attempt, now: datetime) -> Outcome:
        """Of a call that was made and of which nothing could be stored: it counts, so that `max_attempts` holds."""
        decision = decide(
            Code.UNKNOWN,
            attempt=claim.attempt,
            counted_before=claim.counted,
            policy=claim.policy,
            now=now,
            expire_time=claim.expire_time,
            chance=self._chance(),
            reason=Reason.LEASE_LOST,
        )
        unknown = replace(
            attempt, code=int(Code.UNKNOWN), message=UNSTORABLE, counted=decision.counted, reason=Reason.LEASE_LOST
        )
        return Outcome(
            uid=claim.uid,
            token=claim.token,
            state=decision.state,
            reason=decision.reason,
            ready_time=decision.ready_time,
            attempt=unknown,
            start_time=claim.start_time or attempt.start_time,
            history=append_attempt(claim.history, unknown),
        )


def without_words(outcome: Outcome, attempt: Attempt) -> Outcome:
    """The same outcome without anything that the target said: what happened counts more than what was said about it."""
    silent = replace(attempt, message=UNSTORABLE)
    return replace(outcome, attempt=silent, history=(*outcome.history[:-1], silent), response=None, response_type="")


def _pause_after_cut(claim: Claim, start: datetime, now: datetime) -> timedelta:
    """How long the next attempt waits after a call that this process gave up: not at all, unless the target must not be
    called twice at a time and may still be at it until the deadline.
    """
    if claim.policy.after_lost_worker is not AfterLostWorker.WAIT_FOR_DEADLINE:
        return timedelta(0)
    return max(start + claim.timeout - now, timedelta(0))
