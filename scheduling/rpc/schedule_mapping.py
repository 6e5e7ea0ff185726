"""Domain to proto: schedules and what belongs to them. The other direction is `timing_reading.py`.

As in `mapping.py`, nothing is looked up and nothing can fail.
"""

from __future__ import annotations

from google.type import dayofweek_pb2
from whispr.scheduling.v1 import calendar_pb2, schedule_pb2, scheduling_service_pb2

from scheduling.domain import recurrence
from scheduling.domain.backfill import Backfill, BackfillState
from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.etag import etag
from scheduling.domain.schedule import Pause, Schedule, ScheduleState
from scheduling.domain.timing import (
    Calendar,
    CatchupPolicy,
    Cron,
    DstPolicy,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    Frequency,
    Interval,
    NamedCalendar,
    Once,
    OnDeployment,
    Timing,
    Union,
    Weekday,
    When,
)
from scheduling.operations.ports import Page
from scheduling.operations.previews import Preview, PreviewFiring
from scheduling.rpc.mapping import OVERLAP_POLICIES
from scheduling.rpc.values import EnumMap, date_message, packed, time_of_day_message

DST_POLICIES = EnumMap(DstPolicy, schedule_pb2.DstPolicy)
CATCHUP_POLICIES = EnumMap(CatchupPolicy, schedule_pb2.CatchupPolicy)
SCHEDULE_STATES = EnumMap(ScheduleState, schedule_pb2.Schedule.State)
BACKFILL_STATES = EnumMap(BackfillState, scheduling_service_pb2.Backfill.State)
FREQUENCIES = EnumMap(Frequency, schedule_pb2.CalendarSpec.Frequency)
WEEKDAYS = EnumMap(Weekday, dayofweek_pb2.DayOfWeek)


def schedule(value: Schedule) -> schedule_pb2.Schedule:
    """The schedule, with the request of its own if it has one and was read with it."""
    timing = value.timing
    message = schedule_pb2.Schedule(
        name=value.name,
        uid=str(value.uid),
        display_name=value.display_name,
        time_zone=timing.time_zone,
        start_time=timing.start,
        end_time=timing.end,
        max_firings=timing.max_firings or 0,
        jitter=timing.jitter or None,
        dst_policy=DST_POLICIES.number(timing.dst_policy),
        catchup_policy=CATCHUP_POLICIES.number(timing.catchup_policy),
        catchup_window=timing.catchup_window,
        request=None if value.request is None else packed(value.request_type or "", value.request),
        state=SCHEDULE_STATES.number(value.state),
        next_fire_time=value.next_fire_time,
        fired_count=value.fired_count,
        missed_count=value.missed_count,
        create_time=value.create_time,
        update_time=value.update_time,
        etag=etag(value.uid, value.revision),
        exclusions=[exclusion(item) for item in timing.exclusions],
        pause=None if value.pause is None else pause(value.pause),
        skipped_counts=value.skipped,
        buffered_count=value.buffered,
        remaining_count=value.remaining,
        description=description(timing),
        time_zone_version=value.zone_version,
    )
    _set_when(message, timing.when)
    return message


def pause(value: Pause) -> schedule_pb2.Pause:
    """Who paused it, when and why."""
    return schedule_pb2.Pause(time=value.time, principal=value.principal, note=value.note)


def description(timing: Timing) -> str:
    """The timing in plain English; empty for one that a later version of these rules cannot read any more."""
    try:
        return recurrence.describe(timing)
    except Exception:  # noqa: BLE001 - a sentence for people must not cost anybody the schedule
        return ""


def _set_when(message: schedule_pb2.Schedule, when: When) -> None:
    match when:
        case Once(time=time, after=None):
            message.at_time.FromDatetime(time)
        case Once(after=delay) if delay is not None:
            # A delay of zero is a value too: it must be present.
            message.after.FromTimedelta(delay)
        case Cron() | Interval() | Calendar():
            _set_spec(message, when)
        case Union(specs=specs):
            message.union.SetInParent()
            for spec in specs:
                _set_spec(message.union.specs.add(), spec)
        case OnDeployment(delay=delay):
            message.deployment.delay.FromTimedelta(delay)


def _set_spec(holder: schedule_pb2.Schedule | schedule_pb2.RecurrenceSpec, spec: Cron | Interval | Calendar) -> None:
    match spec:
        case Cron():
            holder.cron.CopyFrom(schedule_pb2.CronSpec(expression=spec.expression))
        case Interval():
            holder.interval.CopyFrom(
                schedule_pb2.IntervalSpec(every=spec.every, phase=spec.phase or None, anchor_time=spec.anchor)
            )
        case Calendar():
            holder.calendar.CopyFrom(calendar_spec(spec))


def calendar_spec(value: Calendar) -> schedule_pb2.CalendarSpec:
    """The calendar repetition, its days in order."""
    nth_weekdays = sorted(value.nth_weekdays, key=lambda item: (item.nth, item.weekday))
    return schedule_pb2.CalendarSpec(
        frequency=FREQUENCIES.number(value.frequency),
        times=[time_of_day_message(item) for item in value.times],
        every=value.every,
        days_of_week=[WEEKDAYS.number(item) for item in sorted(value.weekdays)],
        month_days=sorted(value.month_days),
        nth_weekdays=[
            schedule_pb2.NthWeekday(day_of_week=WEEKDAYS.number(item.weekday), nth=item.nth) for item in nth_weekdays
        ],
        months=sorted(value.months),
        from_date=None if value.from_date is None else date_message(value.from_date),
        until_date=None if value.until_date is None else date_message(value.until_date),
        count=value.count or 0,
    )


def exclusion(value: Exclusion) -> schedule_pb2.Exclusion:
    """What is taken away; of a shared calendar only its name."""
    match value:
        case ExcludedDates():
            dates = schedule_pb2.DatesExclusion(dates=[date_message(item) for item in sorted(value.dates)])
            return schedule_pb2.Exclusion(dates=dates)
        case ExcludedPeriod():
            period = schedule_pb2.PeriodExclusion(start_time=value.start, end_time=value.end)
            return schedule_pb2.Exclusion(period=period)
        case ExcludedWindow():
            window = schedule_pb2.WindowExclusion(
                start=time_of_day_message(value.start),
                end=time_of_day_message(value.end),
                days_of_week=[WEEKDAYS.number(item) for item in sorted(value.weekdays)],
            )
            return schedule_pb2.Exclusion(window=window)
        case ExcludedCron():
            return schedule_pb2.Exclusion(cron=schedule_pb2.CronSpec(expression=value.expression))
        case NamedCalendar():
            return schedule_pb2.Exclusion(calendar=f"calendars/{value.name}")


def calendar(value: SharedCalendar) -> calendar_pb2.Calendar:
    """The shared calendar."""
    return calendar_pb2.Calendar(
        name=value.name,
        uid=str(value.uid),
        display_name=value.display_name,
        exclusions=[exclusion(item) for item in value.exclusions],
        time_zone=value.time_zone or "",
        schedule_count=value.schedule_count,
        create_time=value.create_time,
        update_time=value.update_time,
        etag=etag(value.uid, value.revision),
    )


def backfill(value: Backfill) -> scheduling_service_pb2.Backfill:
    """The backfill with its progress."""
    return scheduling_service_pb2.Backfill(
        name=value.name,
        start_time=value.start,
        end_time=value.end,
        state=BACKFILL_STATES.number(value.state),
        total_count=value.total,
        made_count=value.made,
        progress_time=value.progress,
        rate=value.rate,
        overlap_policy=OVERLAP_POLICIES.number(value.overlap_policy),
        principal=value.principal,
        create_time=value.create_time,
    )


def preview(value: Preview) -> scheduling_service_pb2.PreviewScheduleResponse:
    """The firings that a schedule would have."""
    return scheduling_service_pb2.PreviewScheduleResponse(
        firings=[preview_firing(item) for item in value.firings],
        description=value.description,
        time_zone_version=value.zone_version,
    )


def preview_firing(value: PreviewFiring) -> scheduling_service_pb2.PreviewScheduleResponse.Firing:
    """One of them; its local time in RFC 3339 form with the offset of its zone."""
    return scheduling_service_pb2.PreviewScheduleResponse.Firing(
        nominal_time=value.nominal,
        ready_time=value.ready,
        local_time=value.local.isoformat(),
        excluded_by=value.excluded_by,
        shifted=value.shifted,
    )


def schedule_page(page: Page[Schedule]) -> scheduling_service_pb2.ListSchedulesResponse:
    """One page of schedules."""
    return scheduling_service_pb2.ListSchedulesResponse(
        schedules=[schedule(item) for item in page.items], next_page_token=page.next_page_token
    )


def calendar_page(page: Page[SharedCalendar]) -> scheduling_service_pb2.ListCalendarsResponse:
    """One page of calendars."""
    return scheduling_service_pb2.ListCalendarsResponse(
        calendars=[calendar(item) for item in page.items], next_page_token=page.next_page_token
    )
