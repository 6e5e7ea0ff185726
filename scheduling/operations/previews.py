"""Preview: when a schedule would fire, without storing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from scheduling.domain import recurrence
from scheduling.domain.errors import invalid
from scheduling.domain.ids import uuid7
from scheduling.domain.timing import (
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    NamedCalendar,
)
from scheduling.operations import checks
from scheduling.operations.drafts import ScheduleDraft
from scheduling.operations.ports import Ports
from scheduling.operations.schedules import get_schedule

#: Firings of a preview when none are asked for, and at most.
DEFAULT_SIZE, MAX_SIZE = 10, 1000
_END_OF_TIME = datetime(9997, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PreviewFiring:
    """One firing. `local` is the nominal time in the schedule's zone; `excluded_by` is empty if it fires."""

    nominal: datetime
    ready: datetime
    local: datetime
    excluded_by: str
    shifted: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """The firings, ascending, and the schedule in plain English."""

    firings: Sequence[PreviewFiring]
    description: str
    zone_version: str


async def preview_schedule(
    ports: Ports,
    draft: ScheduleDraft | None,
    job_id: str | None,
    schedule_id: str | None,
    start: datetime | None,
    end: datetime | None,
    size: int,
) -> Preview:
    """The firings of a draft, or of a stored schedule, in (start, end]. Raises InvalidRequest, NotFound."""
    now = ports.clock.now()
    if start is not None and end is not None and end <= start:
        raise invalid("end_time", "expected an instant after start_time")
    if draft is not None:
        calendars = await checks.calendars_named(ports, [draft])
        timing, violations = checks.timing_of(ports, draft, calendars, now, "schedule")
        checks.raise_if(violations)
        assert timing is not None
        uid = uuid7(now)
    else:
        schedule = await get_schedule(ports, job_id or "", schedule_id or "")
        timing, uid = schedule.timing, schedule.uid
    count = min(size or DEFAULT_SIZE, MAX_SIZE)
    found = recurrence.preview(timing, start or now, end or _END_OF_TIME, count)
    return Preview(
        [
            PreviewFiring(
                each.nominal,
                recurrence.jittered(timing, uid, each.nominal),
                each.local,
                "" if each.excluded_by is None else _name(each.excluded_by),
                each.shifted,
            )
            for each in found
        ],
        recurrence.describe(timing),
        recurrence.zone_version(),
    )


def _name(exclusion: Exclusion) -> str:
    match exclusion:
        case ExcludedDates():
            return "dates"
        case ExcludedPeriod():
            return "period"
        case ExcludedWindow():
            return "window"
        case ExcludedCron():
            return "cron"
        case NamedCalendar():
            return f"calendars/{exclusion.name}"
