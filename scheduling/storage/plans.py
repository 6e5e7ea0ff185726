"""Plans as rows: what a firing takes over from its job and its schedule. Every execution of a schedule is made here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduling.domain.execution import Origin
from scheduling.domain.ids import uuid7
from scheduling.domain.job import NewJob, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import jittered
from scheduling.domain.schedule import NewSchedule
from scheduling.domain.timing import Timing
from scheduling.domain.value import value
from scheduling.storage.database import NOW

PLAN_COLUMNS = {
    "uid": "uuid",
    "job_uid": "uuid",
    "schedule_uid": "uuid",
    "schedule_id": "text",
    "origin": "text",
    "target": "text",
    "queue": "text",
    "owner": "text",
    "state": "text",
    "nominal_time": "timestamptz",
    "due_time": "timestamptz",
    "ready_time": "timestamptz",
    "expire_time": "timestamptz",
    "request": "bytea",
    "request_type": "text",
    "retention_days": "int2",
    "recurring": "bool",
    "overlap": "text",
    "principal": "text",
}
INSERT_PLANS = f"""
INSERT INTO executions ({", ".join(PLAN_COLUMNS)}, create_time)
SELECT {", ".join(f"i.{name}" for name in PLAN_COLUMNS)}, {NOW}
FROM unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in PLAN_COLUMNS.items())})
     AS i ({", ".join(PLAN_COLUMNS)})
"""
JOBS_OF = """
SELECT uid, job_id, target, queue, owner, max_age, retention_days, overlap_policy, principal FROM jobs
WHERE uid = ANY(%(uids)s::uuid[]) AND cancel_time IS NULL
"""


@value
class Owner:
    """What a plan takes over from its job."""

    uid: UUID
    target: str
    queue: str
    owner: str
    max_age: Any
    retention_days: int | None
    overlap_policy: str | None
    principal: str


def owner_of(job: Mapping[Any, Any]) -> Owner:
    """The part of a row of `jobs` that plans need."""
    return Owner(
        *(
            job[name]
            for name in (
                "uid",
                "target",
                "queue",
                "owner",
                "max_age",
                "retention_days",
                "overlap_policy",
                "principal",
            )
        )
    )


def owner_of_new(job: NewJob) -> Owner:
    """The same part of a job that is to be stored."""
    spec = job.spec
    overlap = None if spec.overlap_policy is None else spec.overlap_policy.value
    return Owner(
        job.uid,
        spec.target,
        spec.queue.value,
        spec.owner,
        spec.retry_policy.max_age,
        spec.retention_days,
        overlap,
        job.principal,
    )


def first_plan(owner: Owner, schedule: NewSchedule, now: datetime) -> dict[str, Any]:
    """The first plan of a schedule that is to be stored; it has one unless a deployment decides."""
    assert schedule.first_fire is not None
    row = {
        "uid": schedule.uid,
        "schedule_id": schedule.schedule_id,
        "request": schedule.request,
        "request_type": schedule.request_type,
    }
    return plan_record(
        owner, row, schedule.timing, schedule.first_fire, now, ready=schedule.first_ready, uid=schedule.plan_uid
    )


def overlap_column(policy: OverlapPolicy | None, *, recurring: bool) -> str | None:
    """What release must heed: None when executions of the job may run side by side."""
    if policy is None:
        return OverlapPolicy.SKIP.value if recurring else None
    return None if policy is OverlapPolicy.ALLOW_ALL else policy.value


def plan_record(
    owner: Owner,
    schedule: Mapping[Any, Any],
    timing: Timing,
    nominal: datetime,
    now: datetime,
    *,
    origin: Origin = Origin.SCHEDULED,
    ready: datetime | None = None,
    overlap: str | None = None,
    uid: UUID | None = None,
) -> dict[str, Any]:
    """One planned execution as a row. `schedule` needs `uid`, `schedule_id`, `request` and `request_type`.

    `ready` defaults to the nominal time plus jitter, `uid` to a new one; `overlap` counts for other origins than
    SCHEDULED, which follow the job.
    """
    due = jittered(timing, schedule["uid"], nominal) if ready is None else ready
    policy = None if owner.overlap_policy is None else OverlapPolicy(owner.overlap_policy)
    recurring = timing.is_recurring and origin is Origin.SCHEDULED
    return {
        "uid": uid or uuid7(now),
        "job_uid": owner.uid,
        "schedule_uid": schedule["uid"],
        "schedule_id": schedule["schedule_id"],
        "origin": origin.value,
        "target": owner.target,
        "queue": owner.queue,
        "owner": owner.owner,
        "state": State.PENDING.value,
        "nominal_time": nominal,
        "due_time": due,
        "ready_time": due,
        "expire_time": due + owner.max_age,
        "request": schedule["request"],
        "request_type": schedule["request_type"],
        "retention_days": owner.retention_days,
        "recurring": recurring,
        "overlap": overlap if origin is not Origin.SCHEDULED else overlap_column(policy, recurring=recurring),
        "principal": owner.principal,
    }


@value
class Dropped:
    """Plans that were taken away. `released` is how many of them had been released early, which counted as fired."""

    nominals: frozenset[datetime]
    released: int
