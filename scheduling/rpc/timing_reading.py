"""Proto to domain: what a schedule or a calendar says, as drafts. The other direction is `schedule_mapping.py`.

Functions note what is wrong under `path`, which is the caller's path of the message and ends with a dot. What they
return after a violation may have holes, and is never handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from whispr.scheduling.v1 import calendar_pb2, schedule_pb2

from scheduling.domain.calendar import PlainExclusion
from scheduling.domain.timing import (
    Calendar,
    Cron,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Interval,
    NthWeekday,
    OnDeployment,
    Union,
    Weekday,
)
from scheduling.operations.drafts import (
    AfterDelay,
    AtTime,
    CalendarDraft,
    CalendarReference,
    ExclusionDraft,
    ScheduleDraft,
    WhenDraft,
)
from scheduling.rpc import names
from scheduling.rpc.schedule_mapping import CATCHUP_POLICIES, DST_POLICIES, FREQUENCIES, WEEKDAYS
from scheduling.rpc.values import (
    Findings,
    read_date,
    read_duration,
    read_payload,
    read_time_of_day,
    read_timestamp,
)

#: The ways to say when: the members of the oneof.
WAYS = tuple(field.name for field in schedule_pb2.Schedule.DESCRIPTOR.oneofs_by_name["when"].fields)

_AT_TIME = schedule_pb2.Schedule.DESCRIPTOR.fields_by_name["at_time"]
_MIDNIGHT = time(0, 0)


def read_schedule(schedule: schedule_pb2.Schedule, path: str, findings: Findings) -> ScheduleDraft:
    """The schedule. Saying when is required."""
    draft = read_changes(schedule, path, findings)
    if draft.when is None and schedule.WhichOneof("when") is None:
        findings.add(f"{path}when", f"one of {', '.join(WAYS)} is required", "REQUIRED")
    return draft


def read_changes(schedule: schedule_pb2.Schedule, path: str, findings: Findings) -> ScheduleDraft:
    """The schedule as far as it is given; its `when` may be None."""
    given = schedule.ListFields()
    if len(given) == 1 and given[0][0] is _AT_TIME:
        # The usual one names its moment and nothing else.
        at_time = read_timestamp(given[0][1], f"{path}at_time", findings)
        return ScheduleDraft(None if at_time is None else AtTime(at_time))

    def instant(name: str, value: Timestamp) -> datetime | None:
        return read_timestamp(value, f"{path}{name}", findings) if schedule.HasField(name) else None

    def duration(name: str, value: Duration) -> timedelta | None:
        return read_duration(value, f"{path}{name}", findings) if schedule.HasField(name) else None

    has_request = schedule.HasField("request")
    return ScheduleDraft(
        when=_when(schedule, path, findings),
        display_name=schedule.display_name,
        time_zone=schedule.time_zone,
        start=instant("start_time", schedule.start_time),
        end=instant("end_time", schedule.end_time),
        max_firings=schedule.max_firings,
        jitter=duration("jitter", schedule.jitter) or timedelta(0),
        dst_policy=DST_POLICIES.read(schedule.dst_policy, f"{path}dst_policy", findings),
        catchup_policy=CATCHUP_POLICIES.read(schedule.catchup_policy, f"{path}catchup_policy", findings),
        catchup_window=duration("catchup_window", schedule.catchup_window),
        request=read_payload(schedule.request, f"{path}request", findings) if has_request else None,
        exclusions=tuple(
            found
            for index, item in enumerate(schedule.exclusions)
            if (found := _exclusion(item, f"{path}exclusions[{index}].", findings)) is not None
        ),
    )


def read_calendar(calendar: calendar_pb2.Calendar, path: str, findings: Findings) -> CalendarDraft:
    """The shared calendar. It may not name another one."""
    exclusions: list[PlainExclusion] = []
    for index, item in enumerate(calendar.exclusions):
        found = _exclusion(item, f"{path}exclusions[{index}].", findings)
        if isinstance(found, CalendarReference) or item.HasField("calendar"):
            findings.add(f"{path}exclusions[{index}].calendar", "a calendar cannot name another one", "NESTED_CALENDAR")
        elif found is not None:
            exclusions.append(found)
    return CalendarDraft(calendar.display_name, tuple(exclusions), calendar.time_zone)


def _when(schedule: schedule_pb2.Schedule, path: str, findings: Findings) -> WhenDraft | None:
    """None when it is not said, or after a violation."""
    match schedule.WhichOneof("when"):
        case "at_time":
            at_time = read_timestamp(schedule.at_time, f"{path}at_time", findings)
            return None if at_time is None else AtTime(at_time)
        case "after":
            delay = read_duration(schedule.after, f"{path}after", findings)
            return None if delay is None else AfterDelay(delay)
        case "union":
            return _union(schedule.union, f"{path}union.", findings)
        case "deployment":
            delay = read_duration(schedule.deployment.delay, f"{path}deployment.delay", findings)
            return None if delay is None else OnDeployment(delay)
        case _:
            return _spec(schedule, path, findings)


def _union(union: schedule_pb2.UnionSpec, path: str, findings: Findings) -> Union:
    specs = []
    for index, item in enumerate(union.specs):
        if item.WhichOneof("spec") is None:
            findings.add(f"{path}specs[{index}].spec", "one of cron, interval, calendar is required", "REQUIRED")
        spec = _spec(item, f"{path}specs[{index}].", findings)
        if spec is not None:
            specs.append(spec)
    return Union(tuple(specs))


def _spec(
    holder: schedule_pb2.Schedule | schedule_pb2.RecurrenceSpec, path: str, findings: Findings
) -> Cron | Interval | Calendar | None:
    """The specification in `holder`, None when there is none or after a violation."""
    if holder.HasField("cron"):
        return Cron(holder.cron.expression)
    if holder.HasField("interval"):
        return _interval(holder.interval, f"{path}interval.", findings)
    if holder.HasField("calendar"):
        return _calendar(holder.calendar, f"{path}calendar.", findings)
    return None


def _interval(spec: schedule_pb2.IntervalSpec, path: str, findings: Findings) -> Interval | None:
    if not spec.HasField("every"):
        findings.add(f"{path}every", "is required", "REQUIRED")
        return None
    every = read_duration(spec.every, f"{path}every", findings)
    phase = read_duration(spec.phase, f"{path}phase", findings)
    has_anchor = spec.HasField("anchor_time")
    anchor = read_timestamp(spec.anchor_time, f"{path}anchor_time", findings) if has_anchor else None
    return None if every is None or phase is None else Interval(every, phase, anchor)


def _calendar(spec: schedule_pb2.CalendarSpec, path: str, findings: Findings) -> Calendar | None:
    def day(name: str, value: Date) -> date | None:
        return read_date(value, f"{path}{name}", findings) if spec.HasField(name) else None

    frequency = FREQUENCIES.read_required(spec.frequency, f"{path}frequency", findings)
    times = [read_time_of_day(item, f"{path}times[{index}]", findings) for index, item in enumerate(spec.times)]
    weekdays = _weekdays(spec.days_of_week, path, findings)
    nth_weekdays = frozenset(
        NthWeekday(weekday, item.nth)
        for index, item in enumerate(spec.nth_weekdays)
        if (weekday := _weekday(item.day_of_week, f"{path}nth_weekdays[{index}].day_of_week", findings)) is not None
    )
    from_date, until_date = day("from_date", spec.from_date), day("until_date", spec.until_date)
    if frequency is None:
        return None
    return Calendar(
        frequency,
        tuple(item for item in times if item is not None) or (_MIDNIGHT,),
        every=spec.every or 1,
        weekdays=weekdays,
        month_days=frozenset(spec.month_days),
        nth_weekdays=nth_weekdays,
        months=frozenset(spec.months),
        from_date=from_date,
        until_date=until_date,
        count=spec.count or None,
    )


def _exclusion(exclusion: schedule_pb2.Exclusion, path: str, findings: Findings) -> ExclusionDraft | None:
    """None after a violation was noted."""
    match exclusion.WhichOneof("what"):
        case "dates":
            return ExcludedDates(frozenset(_dates(exclusion.dates.dates, f"{path}dates.", findings)))
        case "period":
            return _period(exclusion.period, f"{path}period.", findings)
        case "window":
            return _window(exclusion.window, f"{path}window.", findings)
        case "cron":
            return ExcludedCron(exclusion.cron.expression)
        case "calendar":
            field = f"{path}calendar"
            calendar_id = findings.noted(lambda: names.calendar_id(exclusion.calendar, field))
            return None if calendar_id is None else CalendarReference(calendar_id)
        case _:
            findings.add(f"{path}what", "one of dates, period, window, cron, calendar is required", "REQUIRED")
            return None


def _dates(dates: Iterable[Date], path: str, findings: Findings) -> list[date]:
    read = [read_date(item, f"{path}dates[{index}]", findings) for index, item in enumerate(dates)]
    return [item for item in read if item is not None]


def _period(period: schedule_pb2.PeriodExclusion, path: str, findings: Findings) -> ExcludedPeriod | None:
    _require(period, ("start_time", "end_time"), path, findings)
    start = read_timestamp(period.start_time, f"{path}start_time", findings)
    end = read_timestamp(period.end_time, f"{path}end_time", findings)
    return None if start is None or end is None else ExcludedPeriod(start, end)


def _window(window: schedule_pb2.WindowExclusion, path: str, findings: Findings) -> ExcludedWindow | None:
    _require(window, ("start", "end"), path, findings)
    start = read_time_of_day(window.start, f"{path}start", findings)
    end = read_time_of_day(window.end, f"{path}end", findings)
    weekdays = _weekdays(window.days_of_week, path, findings)
    return None if start is None or end is None else ExcludedWindow(start, end, weekdays)


def _require(
    message: schedule_pb2.PeriodExclusion | schedule_pb2.WindowExclusion,
    fields: Sequence[str],
    path: str,
    findings: Findings,
) -> None:
    for name in fields:
        if not message.HasField(name):
            findings.add(f"{path}{name}", "is required", "REQUIRED")


def _weekdays(numbers: Iterable[int], path: str, findings: Findings) -> frozenset[Weekday]:
    read = [_weekday(number, f"{path}days_of_week[{index}]", findings) for index, number in enumerate(numbers)]
    return frozenset(item for item in read if item is not None)


def _weekday(number: int, field: str, findings: Findings) -> Weekday | None:
    return WEEKDAYS.read_required(number, field, findings)
