"""Proto to domain: requests about schedules, calendars and backfills. Jobs and the rules for all are in `reading.py`.

Updates are read from their masked fields alone, so the field rules of the others do not count. The validation
interceptor cannot know that: it leaves these resources out, and their rules are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from whispr.scheduling.v1 import calendar_pb2, schedule_pb2, scheduling_service_pb2

from scheduling.domain.job import OverlapPolicy
from scheduling.operations.drafts import CalendarDraft, ScheduleDraft
from scheduling.rpc import names
from scheduling.rpc.mapping import OVERLAP_POLICIES
from scheduling.rpc.masks import fields_set, only, read_mask
from scheduling.rpc.rules import broken_rules
from scheduling.rpc.timing_reading import WAYS, read_calendar, read_changes, read_schedule
from scheduling.rpc.values import Findings, read_timestamp

#: What an update mask of UpdateSchedule may name. Each way to say when, and what is inside it, means `when`.
SCHEDULE_PATHS = (
    "display_name",
    "when",
    *WAYS,
    "time_zone",
    "start_time",
    "end_time",
    "max_firings",
    "jitter",
    "dst_policy",
    "catchup_policy",
    "catchup_window",
    "request",
    "exclusions",
)
#: What an update mask of UpdateCalendar may name.
CALENDAR_PATHS = ("display_name", "exclusions", "time_zone")

_INSIDE_WAYS = frozenset(
    f"{way.name}.{field.name}"
    for way in schedule_pb2.Schedule.DESCRIPTOR.oneofs_by_name["when"].fields
    if way.message_type is not None and way.message_type.file.package != "google.protobuf"
    for field in way.message_type.fields
)
_FIRST = re.compile(r"[^.\[]+")


class ScheduleUpdate(NamedTuple):
    """Arguments of update_schedule. `mask` holds names of SCHEDULE_PATHS, of the ways to say when just `when`."""

    job_id: str
    schedule_id: str
    draft: ScheduleDraft
    mask: frozenset[str]


class PreviewQuery(NamedTuple):
    """Arguments of preview_schedule: a draft, or the ids of a stored schedule. `size` as the caller gave it."""

    draft: ScheduleDraft | None
    job_id: str | None
    schedule_id: str | None
    start: datetime | None
    end: datetime | None
    size: int


class BackfillQuery(NamedTuple):
    """Arguments of backfill_schedule. `rate` 0 for the default."""

    job_id: str
    schedule_id: str
    start: datetime
    end: datetime
    overlap_policy: OverlapPolicy | None
    rate: int


def schedule_draft(request: scheduling_service_pb2.ScheduleJobRequest) -> tuple[str, ScheduleDraft]:
    """The job's id and the schedule to add."""
    findings = Findings()
    job_id = findings.noted(lambda: names.job_id(request.parent, "parent"))
    draft = read_schedule(request.schedule, "schedule.", findings)
    findings.raise_any()
    return job_id or "", draft


def update_schedule(request: scheduling_service_pb2.UpdateScheduleRequest) -> ScheduleUpdate:
    """The schedule's ids, its new values and the fields to change: without a mask those that are set."""
    findings, schedule = Findings(), request.schedule
    ids = findings.noted(lambda: names.schedule_ids(schedule.name, "schedule.name"))
    paths = request.update_mask.paths
    named = (
        read_mask(paths, SCHEDULE_PATHS, schedule, findings, inner=_INSIDE_WAYS)
        if paths
        else fields_set(schedule) & frozenset(SCHEDULE_PATHS)
    )
    mask = frozenset("when" if path.partition(".")[0] in WAYS else path for path in named)
    if "when" in mask:
        _check_way(schedule, named, findings)
    changes = only(schedule, mask | frozenset(WAYS) if "when" in mask else mask)
    _check_rules(changes, mask, "schedule.", findings)
    findings.raise_any()
    draft = read_changes(changes, "schedule.", findings)
    findings.raise_any()
    assert ids is not None
    return ScheduleUpdate(*ids, draft, mask)


def preview(request: scheduling_service_pb2.PreviewScheduleRequest) -> PreviewQuery:
    """What to preview."""
    findings = Findings()
    draft, ids = None, None
    match request.WhichOneof("what"):
        case "schedule":
            draft = read_schedule(request.schedule, "schedule.", findings)
        case "name":
            ids = findings.noted(lambda: names.schedule_ids(request.name))
        case _:
            findings.add("what", "one of schedule, name is required", "REQUIRED")
    has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
    start = read_timestamp(request.start_time, "start_time", findings) if has_start else None
    end = read_timestamp(request.end_time, "end_time", findings) if has_end else None
    findings.raise_any()
    job_id, schedule_id = ids or (None, None)
    return PreviewQuery(draft, job_id, schedule_id, start, end, request.page_size)


def backfill(request: scheduling_service_pb2.BackfillScheduleRequest) -> BackfillQuery:
    """The range to run."""
    findings = Findings()
    ids = findings.noted(lambda: names.schedule_ids(request.name))
    for name in ("start_time", "end_time"):
        if not request.HasField(name):
            findings.add(name, "is required", "REQUIRED")
    start = read_timestamp(request.start_time, "start_time", findings)
    end = read_timestamp(request.end_time, "end_time", findings)
    overlap_policy = OVERLAP_POLICIES.read(request.overlap_policy, "overlap_policy", findings)
    findings.raise_any()
    assert ids is not None
    assert start is not None
    assert end is not None
    return BackfillQuery(*ids, start, end, overlap_policy, request.rate)


def calendar_draft(request: scheduling_service_pb2.CreateCalendarRequest) -> CalendarDraft:
    """The calendar to create."""
    findings = Findings()
    draft = read_calendar(request.calendar, "calendar.", findings)
    findings.raise_any()
    return draft


def update_calendar(
    request: scheduling_service_pb2.UpdateCalendarRequest,
) -> tuple[str, CalendarDraft, frozenset[str]]:
    """The calendar's id, its new values and the fields to change: without a mask those that are set."""
    findings, calendar = Findings(), request.calendar
    calendar_id = findings.noted(lambda: names.calendar_id(calendar.name, "calendar.name"))
    paths = request.update_mask.paths
    mask = (
        read_mask(paths, CALENDAR_PATHS, calendar, findings)
        if paths
        else fields_set(calendar) & frozenset(CALENDAR_PATHS)
    )
    changes = only(calendar, mask)
    _check_rules(changes, mask, "calendar.", findings)
    findings.raise_any()
    draft = read_calendar(changes, "calendar.", findings)
    findings.raise_any()
    return calendar_id or "", draft, mask


def _check_way(schedule: schedule_pb2.Schedule, named: Collection[str], findings: Findings) -> None:
    """A mask that names one way to say when, beside a schedule that holds another, is a mistake of the caller's."""
    given = schedule.WhichOneof("when")
    ways = sorted({path.partition(".")[0] for path in named} & set(WAYS))
    if given is not None and ways and given not in ways and "when" not in named:
        findings.add("update_mask", f"names {', '.join(ways)}, but the schedule holds {given}", "OTHER_FIELD_GIVEN")


def _check_rules(
    changes: schedule_pb2.Schedule | calendar_pb2.Calendar, mask: Collection[str], prefix: str, findings: Findings
) -> None:
    """Notes the field rules that the changes break; what the mask does not name may be missing."""
    for violation in broken_rules(changes):
        # The changes hold nothing but what the mask names: of anything else it can only be told that it is missing.
        if (first := _FIRST.match(violation.field)) and first[0] not in {*mask, *WAYS}:
            continue
        findings.add(f"{prefix}{violation.field}", violation.description, violation.reason)
