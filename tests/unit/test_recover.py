"""What becomes of an execution whose worker was lost in the middle of its call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from scheduling.domain.execution import LATEST_BEGIN, LostExecution, Outcome, Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from scheduling.operations.recover import after_loss, recover
from tests.support.run import run

NOW = datetime(2031, 7, 1, 12, 0, tzinfo=UTC)
CLAIMED = NOW - timedelta(seconds=8)
LOST = LostExecution(
    uid=uuid4(),
    token=uuid4(),
    target="messaging.MessagingService/SendScheduledMessage",
    queue=Queue.HIGH,
    worker=uuid4(),
    policy=RetryPolicy(max_attempts=3),
    deadline_time=CLAIMED + timedelta(seconds=30),
    attempt=1,
    counted=0,
    claim_time=CLAIMED,
    start_time=None,
    expire_time=NOW + timedelta(days=1),
    history=(),
    cancel_requested=False,
    moment=NOW,
)


def test_the_next_attempt_starts_at_once_and_the_lost_one_counts() -> None:
    outcome = after_loss(LOST)
    assert (outcome.state, outcome.reason, outcome.ready_time) == (State.PENDING, Reason.LEASE_LOST, NOW)
    assert outcome.attempt is not None
    assert outcome.attempt.counted
    assert outcome.attempt.reason == Reason.LEASE_LOST
    assert outcome.attempt.code == Code.UNAVAILABLE
    assert outcome.attempt.duration == timedelta(seconds=8)
    assert outcome.history == (outcome.attempt,)
    assert (outcome.uid, outcome.token) == (LOST.uid, LOST.token)


def test_a_target_that_must_not_be_called_twice_at_a_time_waits_for_the_lost_deadline() -> None:
    policy = replace(LOST.policy, after_lost_worker=AfterLostWorker.WAIT_FOR_DEADLINE)
    # The call of a claim may have begun a little later than the claim.
    assert after_loss(replace(LOST, policy=policy)).ready_time == CLAIMED + timedelta(seconds=30) + LATEST_BEGIN
    # A deadline that has passed is no reason to wait.
    assert after_loss(replace(LOST, policy=policy, deadline_time=NOW - timedelta(seconds=5))).ready_time == NOW


def test_waiting_for_a_deadline_beyond_the_maximum_age_ends_it() -> None:
    policy = replace(LOST.policy, after_lost_worker=AfterLostWorker.WAIT_FOR_DEADLINE)
    outcome = after_loss(replace(LOST, policy=policy, expire_time=NOW + timedelta(seconds=10)))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.EXPIRED)


def test_at_most_once_means_that_a_lost_worker_ends_it() -> None:
    outcome = after_loss(replace(LOST, policy=RetryPolicy(max_attempts=1)))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.ATTEMPTS_EXHAUSTED)


def test_a_lost_worker_uses_up_an_attempt_like_any_failure() -> None:
    outcome = after_loss(replace(LOST, attempt=5, counted=2))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    assert after_loss(replace(LOST, attempt=5, counted=1)).state is State.PENDING


def test_what_a_caller_asked_to_end_is_not_tried_again() -> None:
    outcome = after_loss(replace(LOST, cancel_requested=True))
    assert (outcome.state, outcome.reason) == (State.CANCELLED, Reason.CALLER)


def test_the_start_of_the_first_attempt_is_kept() -> None:
    assert after_loss(LOST).start_time == CLAIMED
    earlier = NOW - timedelta(hours=1)
    assert after_loss(replace(LOST, start_time=earlier)).start_time == earlier


class Ledger:
    """A store that finds what it is given, and accepts what is not in `taken`."""

    def __init__(self, *lost: LostExecution, taken: set[UUID] | None = None) -> None:
        self._lost = lost
        self._taken = taken or set()
        self.outcomes: list[Outcome] = []
        self.asked: list[tuple[int, timedelta]] = []

    async def find_lost(self, term: int, grace: timedelta) -> Sequence[LostExecution]:
        self.asked.append((term, grace))
        return self._lost

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        self.outcomes += outcomes
        return {outcome.uid for outcome in outcomes} - self._taken


def test_those_that_their_worker_recorded_after_all_are_not_reported() -> None:
    other = replace(LOST, uid=uuid4(), token=uuid4())
    store = Ledger(LOST, other, taken={other.uid})
    assert [lost for lost, _ in run(recover(store, 7, timedelta(seconds=30)))] == [LOST]
    assert [outcome.token for outcome in store.outcomes] == [LOST.token, other.token]
    assert store.asked == [(7, timedelta(seconds=30))]


def test_a_dry_run_looks_and_changes_nothing() -> None:
    store = Ledger(LOST)
    assert list(run(recover(store, 7, timedelta(seconds=30), dry_run=True))) == []
    assert store.asked
    assert store.outcomes == []


def test_what_was_lost_with_three_processes_is_parked_and_not_tried_again() -> None:
    second = after_loss(replace(LOST, crashes=1, policy=RetryPolicy(max_attempts=6)))
    assert (second.state, second.reason, second.crashed) == (State.PENDING, Reason.LEASE_LOST, True)
    third = after_loss(replace(LOST, crashes=2, policy=RetryPolicy(max_attempts=6)))
    assert (third.state, third.reason) == (State.FAILED, Reason.CRASHED)


def test_a_call_that_ran_too_long_in_a_living_process_is_no_crash() -> None:
    outcome = after_loss(replace(LOST, crashed=False, crashes=2))
    assert (outcome.state, outcome.crashed) == (State.PENDING, False)


def test_a_callers_wish_to_end_it_goes_before_parking() -> None:
    assert after_loss(replace(LOST, crashes=2, cancel_requested=True)).state is State.CANCELLED
