"""Use cases of schedules."""

from __future__ import annotations

from scheduling.domain.errors import Conflict, InvalidRequest, NotFound, Violation, WrongState
from scheduling.domain.etag import etag as etag_of
from scheduling.domain.filters import STRING, TIMESTAMP, enum_of
from scheduling.domain.ids import is_valid_id
from scheduling.domain.job import JobState
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.operations import checks
from scheduling.operations.drafts import ListQuery, Repeat, ScheduleDraft
from scheduling.operations.jobs import get_job
from scheduling.operations.pages import read_page
from scheduling.operations.ports import Page, Ports

RESOURCE = "Schedule"

_FIELDS = {
    "schedule_id": STRING,
    "display_name": STRING,
    "kind": enum_of(("ONCE", "CRON", "INTERVAL")),
    "time_zone": STRING,
    "state": enum_of(ScheduleState),
    "next_fire_time": TIMESTAMP,
    "create_time": TIMESTAMP,
}


async def schedule_job(
    ports: Ports,
    principal: str,
    job_id: str,
    draft: ScheduleDraft,
    schedule_id: str,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Schedule:
    """Adds a schedule to a job. Raises InvalidRequest, NotFound, WrongState, AlreadyExists."""
    job = await get_job(ports, job_id, with_payload=False)
    target = ports.targets.get(job.target)
    if target is None:
        raise InvalidRequest([checks.unknown_target(ports.targets, job.target, "parent")])
    now = ports.clock.now()
    new, violations = checks.check_schedule(ports, target, draft, schedule_id, now, "schedule")
    if schedule_id and not is_valid_id(schedule_id):
        violations.append(
            Violation("schedule_id", "expected a to z first, then a to z, 0 to 9 and -, at most 63", "INVALID_ID")
        )
    checks.raise_if(violations)
    assert new is not None
    if job.state is JobState.CANCELLED:
        raise WrongState(f"{job.name} is CANCELLED; create another job", subject=job.name, reason="JOB_CANCELLED")
    if validate_only:
        return new.as_stored(job.uid, job.job_id, now)
    uid = await ports.store.add_schedule(
        job,
        new,
        principal=principal,
        request_id=repeat.request_id,
        digest=repeat.digest,
        limit=ports.limits.schedules_per_job,
    )
    stored = await ports.store.get_schedule_by_uid(uid)
    if stored is None:
        raise WrongState(f"{job.name} was deleted in between", subject=job.name, reason="DELETED")
    return stored


async def get_schedule(ports: Ports, job_id: str, schedule_id: str) -> Schedule:
    """The schedule. Raises NotFound."""
    schedule = await ports.store.get_schedule(job_id, schedule_id)
    if schedule is None:
        raise NotFound(RESOURCE, f"jobs/{job_id}/schedules/{schedule_id}")
    return schedule


async def list_schedules(ports: Ports, job_id: str | None, query: ListQuery) -> Page[Schedule]:
    """A page of the schedules of a job, or of all jobs for None. Raises InvalidRequest, NotFound."""
    if job_id is not None:
        await get_job(ports, job_id, with_payload=False)
    return await read_page(
        query,
        parent=job_id or "-",
        fields=_FIELDS,
        orders=("create_time",),
        read=lambda page: ports.store.list_schedules(job_id, page),
    )


async def delete_schedule(ports: Ports, job_id: str, schedule_id: str, etag: str = "") -> None:
    """Deletes the schedule and its plans. Raises NotFound, Conflict."""
    for _ in range(3):
        schedule = await get_schedule(ports, job_id, schedule_id)
        if etag and etag != etag_of(schedule.uid, schedule.revision):
            break
        if await ports.store.delete_schedule(schedule):
            return
    raise Conflict(f"jobs/{job_id}/schedules/{schedule_id} has changed since it was read; read it again and repeat")
