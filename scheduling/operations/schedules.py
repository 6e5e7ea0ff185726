"""Use cases of schedules."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from scheduling.domain.errors import Conflict, InvalidRequest, NotFound, Violation, WrongState
from scheduling.domain.etag import etag as etag_of
from scheduling.domain.filters import STRING, TIMESTAMP, enum_of
from scheduling.domain.ids import is_valid_id, uuid7s
from scheduling.domain.job import Job, JobState
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.domain.timing import CatchupPolicy, DstPolicy, OnDeployment
from scheduling.operations import checks, repeats
from scheduling.operations.drafts import ListQuery, Repeat, ScheduleDraft
from scheduling.operations.jobs import check_job, get_job
from scheduling.operations.pages import read_page
from scheduling.operations.ports import Page, Ports, ScheduleChange

RESOURCE = "Schedule"

SCHEDULE_FIELDS = {
    "schedule_id": STRING,
    "display_name": STRING,
    "kind": enum_of(("ONCE", "CRON", "INTERVAL", "CALENDAR", "UNION", "DEPLOYMENT")),
    "time_zone": STRING,
    "state": enum_of(ScheduleState),
    "next_fire_time": TIMESTAMP,
    "create_time": TIMESTAMP,
    "time_zone_version": STRING,
    "move_time": TIMESTAMP,
    "calendar": STRING,
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
    answer = await repeats.find_answer(ports, principal, repeat)
    if answer is not None:
        first = await ports.store.get_schedule_by_uid(answer[0])
        if first is None:
            raise repeats.answer_deleted(repeat)
        return first
    now = ports.clock.now()
    calendars = await checks.calendars_named(ports, [draft])
    ids = uuid7s(now, 2)
    new, violations = checks.check_schedule(ports, target, draft, calendars, schedule_id, now, "schedule", ids)
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
    """The schedule. Raises NotFound, or PermissionDenied whether it is there or not."""
    await check_job(ports, job_id)
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
        fields=SCHEDULE_FIELDS,
        orders=("create_time",),
        principals=None if job_id is not None else ports.access.principals,
        read=lambda page: ports.store.list_schedules(job_id, page),
    )


async def delete_schedule(ports: Ports, job_id: str, schedule_id: str, etag: str = "") -> None:
    """Deletes the schedule and its plans. Raises NotFound, Conflict."""
    for _ in range(3):
        schedule = await get_schedule(ports, job_id, schedule_id)
        _check_etag(schedule, etag)
        if await ports.store.delete_schedule(schedule):
            return
    raise _changed_in_between(job_id, schedule_id)


async def update_schedule(
    ports: Ports,
    job_id: str,
    schedule_id: str,
    draft: ScheduleDraft,
    mask: frozenset[str],
    etag: str = "",
    *,
    validate_only: bool = False,
) -> Schedule:
    """Changes the fields that the mask names, at once: plans are replaced, records stay.

    Raises InvalidRequest, NotFound, WrongState (cancelled job), Conflict.
    """
    for _ in range(3):
        schedule = await get_schedule(ports, job_id, schedule_id)
        _check_etag(schedule, etag)
        job = await get_job(ports, job_id, with_payload=False)
        if job.state is JobState.CANCELLED:
            raise WrongState(f"{job.name} is CANCELLED and cannot be changed", subject=job.name, reason="JOB_CANCELLED")
        change = await _change(ports, job, schedule, draft, mask)
        if validate_only:
            return _changed(schedule, change, ports.clock.now())
        updated = await ports.store.update_schedule(schedule, change)
        if updated is not None:
            return updated
    raise _changed_in_between(job_id, schedule_id)


async def pause_schedule(
    ports: Ports, principal: str, job_id: str, schedule_id: str, note: str, etag: str = ""
) -> Schedule:
    """Pauses a schedule; one that is PAUSED stays as it is. Raises NotFound, WrongState (COMPLETED), Conflict."""
    for _ in range(3):
        schedule = await get_schedule(ports, job_id, schedule_id)
        _check_etag(schedule, etag)
        if schedule.state is ScheduleState.PAUSED:
            return schedule
        if schedule.state is ScheduleState.COMPLETED and not isinstance(schedule.timing.when, OnDeployment):
            raise WrongState(
                f"{schedule.name} is COMPLETED: it has no firing ahead that could be paused", subject=schedule.name
            )
        paused = await ports.store.pause_schedule(schedule, principal, note)
        if paused is not None:
            return paused
    raise _changed_in_between(job_id, schedule_id)


async def resume_schedule(ports: Ports, job_id: str, schedule_id: str, etag: str = "") -> Schedule:
    """Resumes a schedule; one that is not PAUSED stays as it is. Raises NotFound, Conflict."""
    for _ in range(3):
        schedule = await get_schedule(ports, job_id, schedule_id)
        _check_etag(schedule, etag)
        if schedule.state is not ScheduleState.PAUSED:
            return schedule
        resumed = await ports.store.resume_schedule(schedule)
        if resumed is not None:
            return resumed
    raise _changed_in_between(job_id, schedule_id)


def _check_etag(schedule: Schedule, etag: str) -> None:
    if etag and etag != etag_of(schedule.uid, schedule.revision):
        raise Conflict(f"{schedule.name} has changed since it was read; read it again and repeat")


def _changed_in_between(job_id: str, schedule_id: str) -> Conflict:
    return Conflict(f"jobs/{job_id}/schedules/{schedule_id} is being changed by others; read it again and repeat")


_TIMING_FIELDS = {
    "start_time": "start",
    "end_time": "end",
    "jitter": "jitter",
    "catchup_window": "catchup_window",
}


async def _change(
    ports: Ports, job: Job, schedule: Schedule, draft: ScheduleDraft, mask: frozenset[str]
) -> ScheduleChange:
    now = ports.clock.now()
    violations: list[Violation] = []
    values: dict[str, Any] = {field: getattr(draft, field) for name, field in _TIMING_FIELDS.items() if name in mask}
    if "when" in mask:
        when, wrong = checks.when_of(ports, draft, now, "schedule")
        violations += wrong
        if when is not None:
            values["when"] = when
    if "time_zone" in mask:
        values["time_zone"] = draft.time_zone or ports.default_time_zone
    if "max_firings" in mask:
        values["max_firings"] = draft.max_firings or None
    if "dst_policy" in mask:
        values["dst_policy"] = draft.dst_policy or DstPolicy.FIRE_AFTER_GAP
    if "catchup_policy" in mask:
        values["catchup_policy"] = draft.catchup_policy or CatchupPolicy.FIRE_ONCE_LATEST
    if "exclusions" in mask:
        calendars = await checks.calendars_named(ports, [draft])
        values["exclusions"], wrong = checks.exclusions_of(draft.exclusions, calendars, "schedule")
        violations += wrong
    timing = replace(schedule.timing, **values) if values else None
    if timing is not None and not violations:
        # A one-off whose moment is behind it may still be renamed, but not be given another zone for nothing.
        violations += checks.check_timing(timing, now, "schedule")
    request = draft.request
    if "request" in mask and request is not None:
        target = ports.targets.get(job.target)
        if target is None:
            violations.append(checks.unknown_target(ports.targets, job.target, "schedule.request"))
        else:
            violations += checks.check_payload(ports.targets, ports.limits, target, request, "schedule.request")
    checks.raise_if(violations)
    return ScheduleChange(
        display_name=draft.display_name if "display_name" in mask else None,
        timing=timing,
        change_request="request" in mask,
        request=None if request is None else request.value,
        request_type=None if request is None else request.type_name,
    )


def _changed(schedule: Schedule, change: ScheduleChange, now: datetime) -> Schedule:
    """The schedule as it would stand after the change."""
    values: dict[str, Any] = {}
    if change.display_name is not None:
        values["display_name"] = change.display_name
    if change.timing is not None:
        values |= {"timing": change.timing, "next_fire_time": checks.first_fire(change.timing, now)}
    if change.change_request:
        values |= {"request": change.request, "request_type": change.request_type}
    return replace(schedule, **values)
