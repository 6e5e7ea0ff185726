"""Recovery: what becomes of executions whose worker was lost in the middle of a call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from scheduling.domain.execution import (
    LATEST_BEGIN,
    PARKED_AFTER,
    Attempt,
    LostExecution,
    Outcome,
    Reason,
    append_attempt,
)
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code, Decision, again
from scheduling.domain.target import AfterLostWorker


class Store(Protocol):
    """What recovery reads and writes. Every call may raise StoreUnavailable."""

    async def find_lost(self, term: int, grace: timedelta) -> Sequence[LostExecution]: ...

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]: ...


async def recover(
    store: Store, term: int, grace: timedelta, *, dry_run: bool = False
) -> Sequence[tuple[LostExecution, Outcome]]:
    """Returns the executions of lost workers to where the next attempt can be made; returns those that it moved.

    Written by claim token like any outcome: should the worker be alive after all and have recorded in between, it wins.
    `grace` is how far an execution may run over its deadline before it counts as lost whatever its worker says.
    """
    lost = await store.find_lost(term, grace)
    if dry_run or not lost:
        return ()
    outcomes = [after_loss(each) for each in lost]
    recorded = await store.record(outcomes)
    return [(each, outcome) for each, outcome in zip(lost, outcomes, strict=True) if each.uid in recorded]


def after_loss(lost: LostExecution) -> Outcome:
    """What follows for one lost execution. The call may have begun, so it counts; the next one starts at once, or with
    WAIT_FOR_DEADLINE not before the lost call's deadline. What was lost with three processes is not tried again.
    """
    decision = _decide(lost)
    attempt = Attempt(
        number=lost.attempt,
        start_time=lost.claim_time,
        duration=max(lost.moment - lost.claim_time, timedelta(0)),
        worker=str(lost.worker),
        code=int(Code.UNAVAILABLE),
        message="the worker was lost before it recorded an outcome",
        counted=True,
        reason=Reason.LEASE_LOST,
    )
    return Outcome(
        uid=lost.uid,
        token=lost.token,
        state=decision.state,
        reason=decision.reason,
        ready_time=decision.ready_time,
        attempt=attempt,
        start_time=lost.start_time or lost.claim_time,
        history=append_attempt(lost.history, attempt),
        crashed=lost.crashed,
    )


def _decide(lost: LostExecution) -> Decision:
    if lost.cancel_requested:
        return Decision(State.CANCELLED, Reason.CALLER)
    if lost.crashed and lost.crashes + 1 >= PARKED_AFTER:
        return Decision(State.FAILED, Reason.CRASHED)
    if lost.counted + 1 >= lost.policy.max_attempts:
        return Decision(State.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    ready: datetime = lost.moment
    if lost.policy.after_lost_worker is AfterLostWorker.WAIT_FOR_DEADLINE:
        # The deadline was reckoned when it was claimed; its call may have begun later.
        ready = max(ready, lost.deadline_time + LATEST_BEGIN)
    return again(Reason.LEASE_LOST, counted=True, ready_time=ready, expire_time=lost.expire_time)
