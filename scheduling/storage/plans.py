"""Plans as rows: what a firing takes over from its job and its schedule. Every execution of a schedule is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def first_plans(jobs: Iterable[NewJob]) -> dict[str, list[Any]]:
    """The first plans of jobs that are to be stored, as the columns of their rows: those of `first_plan`, without a
    row as a value on the way.
    """
    planned = [
        (new, schedule, moment)
        for new in jobs
        if (schedule := new.schedule) is not None and (moment := schedule.first_ready) is not None
    ]
    owners = [new for new, _, _ in planned]
    specs = [new.spec for new in owners]
    schedules = [schedule for _, schedule, _ in planned]
    ready = [each for _, _, each in planned]
    recurring = [schedule.timing.is_recurring for schedule in schedules]
    count = len(planned)
    return {
        "uid": [schedule.plan_uid for schedule in schedules],
        "job_uid": [new.uid for new in owners],
        "schedule_uid": [schedule.uid for schedule in schedules],
        "schedule_id": [schedule.schedule_id for schedule in schedules],
        "origin": [Origin.SCHEDULED.value] * count,
        "target": [spec.target for spec in specs],
        "queue": [spec.queue._value_ for spec in specs],
        "owner": [spec.owner for spec in specs],
        "state": [State.PENDING.value] * count,
        "nominal_time": [schedule.first_fire for schedule in schedules],
        "due_time": ready,
        "ready_time": ready,
        "expire_time": [due + spec.retry_policy.max_age for due, spec in zip(ready, specs, strict=True)],
        "request": [schedule.request for schedule in schedules],
        "request_type": [schedule.request_type for schedule in schedules],
        "retention_days": [spec.retention_days for spec in specs],
        "recurring": recurring,
        "overlap": [
            overlap_column(spec.overlap_policy, recurring=again) for spec, again in zip(specs, recurring, strict=True)
        ],
        "principal": [new.principal for new in owners],
    }


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
