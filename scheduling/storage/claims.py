"""Rows of claimed executions turned into values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

from scheduling.domain.execution import Claim, LostExecution
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from scheduling.storage import rows

#: The columns of `jobs j` that make a retry policy and a deadline.
POLICY_COLUMNS = (
    "j.max_attempts, j.initial_backoff, j.backoff_multiplier, j.max_backoff, j.max_age, j.after_lost_worker, j.timeout"
)


def lost_from_row(row: Mapping[str, Any]) -> LostExecution:
    """A row of the statement that finds lost executions."""
    return LostExecution(
        uid=row["uid"],
        token=row["claim_token"],
        target=row["target"],
        queue=Queue(row["queue"]),
        worker=row["worker_uid"],
        policy=rows.retry_policy(row),
        deadline_time=row["deadline_time"],
        attempt=row["attempt"],
        counted=row["counted"],
        claim_time=row["claim_time"],
        start_time=row["start_time"],
        expire_time=row["expire_time"],
        history=rows.attempts_from_json(row["attempts"]),
        cancel_requested=row["cancel_requested"],
        moment=row["moment"],
        crashed=row["crashed"],
        crashes=row["crashes"],
    )


#: What the claiming statement returns, in the order that `claim_from_row` reads.
CLAIM_COLUMNS = (
    "e.uid, e.claim_token, j.job_id, e.target, e.queue, coalesce(e.request, j.request), e.attempt, e.counted, "
    "e.nominal_time, e.due_time, e.ready_time, e.expire_time, e.start_time, e.attempts, "
    f"e.cancel_request_time IS NOT NULL, {POLICY_COLUMNS}"
)


_QUEUES = {queue.value: queue for queue in Queue}


@lru_cache(maxsize=1000)
def _policy(
    max_attempts: int,
    initial_backoff: timedelta,
    backoff_multiplier: float,
    max_backoff: timedelta,
    max_age: timedelta,
    after_lost_worker: str,
) -> RetryPolicy:
    """Few policies stand in many jobs."""
    return RetryPolicy(
        max_attempts=max_attempts,
        initial_backoff=initial_backoff,
        backoff_multiplier=backoff_multiplier,
        max_backoff=max_backoff,
        max_age=max_age,
        after_lost_worker=AfterLostWorker(after_lost_worker),
    )


def claim_from_row(row: tuple[Any, ...]) -> Claim:
    """A row of CLAIM_COLUMNS. Hot: by position, without names."""
    return Claim(
        uid=row[0],
        token=row[1],
        job_id=row[2],
        target=row[3],
        queue=_QUEUES[row[4]],
        request=row[5],
        attempt=row[6],
        counted=row[7],
        nominal_time=row[8],
        due_time=row[9],
        ready_time=row[10],
        expire_time=row[11],
        start_time=row[12],
        history=rows.attempts_from_json(row[13]) if row[13] is not None else (),
        cancel_requested=row[14],
        policy=_policy(*row[15:21]),
        timeout=row[21],
    )
