"""Use cases of backfills."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from scheduling.domain.backfill import DEFAULT_RATE, MAX_FIRINGS, Backfill, BackfillState
from scheduling.domain.errors import NotFound, Violation, WrongState, invalid
from scheduling.domain.ids import uuid7
from scheduling.domain.job import JobState, OverlapPolicy
from scheduling.domain.recurrence import fires_between
from scheduling.operations import checks, repeats
from scheduling.operations.drafts import Repeat
from scheduling.operations.jobs import check_job, get_job
from scheduling.operations.ports import NewBackfill, Ports
from scheduling.operations.schedules import get_schedule

RESOURCE = "Backfill"
_PREFIX = "b-"
_MICROSECOND = timedelta(microseconds=1)
#: How long before its own creation a schedule may be backfilled.
_EARLIEST = timedelta(days=3660)


async def backfill_schedule(
    ports: Ports,
    principal: str,
    job_id: str,
    schedule_id: str,
    start: datetime,
    end: datetime,
    overlap_policy: OverlapPolicy | None,
    rate: int,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Backfill:
    """Has the firings in [start, end) run after the fact. Raises InvalidRequest, NotFound, WrongState,
    AlreadyExists.
    """
    schedule = await get_schedule(ports, job_id, schedule_id)
    job = await get_job(ports, job_id, with_payload=False)
    answer = await repeats.find_answer(ports, principal, repeat)
    if answer is not None:
        first = await ports.store.get_backfill(answer[0])
        if first is None:
            raise repeats.answer_deleted(repeat)
        return first
    now = ports.clock.now()
    violations = []
    if not schedule.timing.is_recurring:
        raise WrongState(
            f"{schedule.name} fires once; RunJob runs its job now", subject=schedule.name, reason="NOT_RECURRING"
        )
    if job.state is JobState.CANCELLED:
        raise WrongState(f"{job.name} is CANCELLED; create another job", subject=job.name, reason="JOB_CANCELLED")
    if start < schedule.create_time - _EARLIEST:
        violations.append(
            Violation("start_time", f"lies more than {_EARLIEST.days} days before the schedule's creation")
        )
    if end <= start:
        violations.append(Violation("end_time", "expected an instant after start_time"))
    if end > now:
        violations.append(
            Violation("end_time", "lies in the future; those firings come by themselves", "IN_THE_FUTURE")
        )
    checks.raise_if(violations)
    # `start` is inclusive, while firings are looked for strictly after a moment.
    total = len(fires_between(schedule.timing, start - _MICROSECOND, end - _MICROSECOND, MAX_FIRINGS + 1))
    if total > MAX_FIRINGS:
        raise invalid(
            "end_time", f"the range has more than {MAX_FIRINGS:,} firings; take it in pieces", "TOO_MANY_FIRINGS"
        )
    uid = uuid7(now)
    new = NewBackfill(
        uid=uid,
        schedule=schedule,
        start=start,
        end=end,
        total=total,
        rate=rate or DEFAULT_RATE,
        overlap_policy=overlap_policy or OverlapPolicy.BUFFER_ALL,
        principal=principal,
        request_id=repeat.request_id,
        digest=repeat.digest,
    )
    if validate_only:
        return Backfill(
            uid=uid,
            job_id=job_id,
            schedule_id=schedule_id,
            schedule_uid=schedule.uid,
            start=start,
            end=end,
            state=BackfillState.RUNNING,
            total=total,
            made=0,
            progress=start,
            rate=new.rate,
            overlap_policy=new.overlap_policy,
            principal=principal,
            create_time=now,
        )
    stored = await ports.store.get_backfill(await ports.store.add_backfill(new))
    if stored is None:
        raise WrongState(f"{schedule.name} was deleted in between", subject=schedule.name, reason="DELETED")
    return stored


async def get_backfill(ports: Ports, job_id: str, schedule_id: str, backfill_id: str) -> Backfill:
    """The backfill with its progress. Raises NotFound, or PermissionDenied whether it is there or not."""
    await check_job(ports, job_id)
    uid = _parse(backfill_id)
    backfill = None if uid is None else await ports.store.get_backfill(uid)
    if backfill is None or (backfill.job_id, backfill.schedule_id) != (job_id, schedule_id):
        raise NotFound(RESOURCE, f"jobs/{job_id}/schedules/{schedule_id}/backfills/{backfill_id}")
    return backfill


async def cancel_backfill(ports: Ports, job_id: str, schedule_id: str, backfill_id: str) -> Backfill:
    """Ends a backfill; one that has ended stays as it is. Raises NotFound."""
    backfill = await get_backfill(ports, job_id, schedule_id, backfill_id)
    await ports.store.cancel_backfill(backfill.uid)
    return await get_backfill(ports, job_id, schedule_id, backfill_id)


def _parse(text: str) -> UUID | None:
    if not text.startswith(_PREFIX):
        return None
    try:
        return UUID(text[len(_PREFIX) :])
    except ValueError:
        return None
