"""Timings: everything that a schedule can say about when, as values. `recurrence` says what they mean."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from enum import IntEnum, StrEnum

from scheduling.domain.value import value


class DstPolicy(StrEnum):
    """What a fixed local time does on the days when clocks change."""

    FIRE_AFTER_GAP = "FIRE_AFTER_GAP"
    SKIP_GAP = "SKIP_GAP"
    LITERAL = "LITERAL"


class CatchupPolicy(StrEnum):
    """What happens to firings that nobody advanced in time."""

    SKIP_MISSED = "SKIP_MISSED"
    FIRE_ONCE_LATEST = "FIRE_ONCE_LATEST"
    FIRE_ALL = "FIRE_ALL"


@value
class Once:
    """One firing at `time`; `after` is the delay it was asked for with, if it was one."""

    time: datetime
    after: timedelta | None = None


@value
class Cron:
    """Firings by a cron expression of 5 or 6 fields or an `@` name, read in the schedule's zone."""

    expression: str


@value
class Interval:
    """Firings each `every`, at anchor + phase + n × every. Absolute time; anchor None is the Unix epoch."""

    every: timedelta
    phase: timedelta = timedelta(0)
    anchor: datetime | None = None


class Weekday(IntEnum):
    """A day of the week, numbered as in ISO 8601 and google.type.DayOfWeek."""

    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6
    SUNDAY = 7


class Frequency(StrEnum):
    """The unit that a calendar repetition counts in."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


@value
class NthWeekday:
    """The `nth` such weekday of a month, 1 to 5, or -1 for the last one. Months without a fifth one are left out."""

    weekday: Weekday
    nth: int


@value
class Calendar:
    """Firings at local times of days that a person would name.

    DAILY takes no days; WEEKLY takes `weekdays`; MONTHLY takes `month_days` (1 to 31, or -1 for the last day, -2 for
    the one before, down to -31), `nth_weekdays`, or both, which are joined; YEARLY takes the same and `months` (1 to
    12). A month without such a day is left out. `every` n counts days, weeks (beginning on Monday), months or years
    from the one that holds `from_date`, which it needs when n > 1. `times` are local, without a zone, in whole seconds.

    Nothing fires on days before `from_date` or after `until_date` (local dates, both inclusive). `count` ends it after
    so many local times from `from_date` on, which it needs; those that are excluded or fall into a gap count too, as
    COUNT in RFC 5545 does.
    """

    frequency: Frequency
    times: tuple[time, ...] = (time(0, 0),)
    every: int = 1
    weekdays: frozenset[Weekday] = frozenset()
    month_days: frozenset[int] = frozenset()
    nth_weekdays: frozenset[NthWeekday] = frozenset()
    months: frozenset[int] = frozenset()
    from_date: date | None = None
    until_date: date | None = None
    count: int | None = None


Spec = Once | Cron | Interval | Calendar


@value
class Union:
    """Fires when any of the specifications does, once per instant."""

    specs: tuple[Cron | Interval | Calendar, ...]


@value
class OnDeployment:
    """Once per deployment of the service, `delay` after its start. Which instants those are, only the store knows."""

    delay: timedelta


When = Spec | Union | OnDeployment
# A union of types would be made anew each time that it is looked at.
_NOT_RECURRING = (Once, OnDeployment)


@value
class ExcludedDates:
    """Whole local dates."""

    dates: frozenset[date]


@value
class ExcludedPeriod:
    """One stretch of time, [start, end). Naive bounds are local times: the first instant that shows them."""

    start: datetime
    end: datetime


@value
class ExcludedWindow:
    """Local times of day, [start, end), on some weekdays; none given means all.

    When `end` is not after `start` it belongs to the following day, so 22:00 to 06:00 on Friday ends on Saturday; equal
    times are 24 hours.
    """

    start: time
    end: time
    weekdays: frozenset[Weekday] = frozenset()


@value
class ExcludedCron:
    """Local times that a cron expression matches: whole minutes with 5 fields, whole seconds with 6."""

    expression: str


@value
class NamedCalendar:
    """What the caller found under `name`; its local times are read in its own zone, if it has one."""

    name: str
    exclusions: tuple[ExcludedDates | ExcludedPeriod | ExcludedWindow | ExcludedCron, ...]
    time_zone: str | None = None


Exclusion = ExcludedDates | ExcludedPeriod | ExcludedWindow | ExcludedCron | NamedCalendar


@value
class Timing:
    """Everything that decides the firing times of a schedule.

    Bounds are half-open, `[start, end)`. `max_firings` None means no limit.
    """

    when: When
    time_zone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    max_firings: int | None = None
    jitter: timedelta = timedelta(0)
    dst_policy: DstPolicy = DstPolicy.FIRE_AFTER_GAP
    catchup_policy: CatchupPolicy = CatchupPolicy.FIRE_ONCE_LATEST
    catchup_window: timedelta | None = None
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def is_recurring(self) -> bool:
        """Whether it may fire more than once."""
        return not isinstance(self.when, _NOT_RECURRING)


@value
class Recurrence:
    """The union of `specs` without what `exclusions` cover, within [start, end). The other fields are as in Timing."""

    specs: tuple[Spec, ...]
    exclusions: tuple[Exclusion, ...] = ()
    time_zone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    jitter: timedelta = timedelta(0)
    dst_policy: DstPolicy = DstPolicy.FIRE_AFTER_GAP


def recurrence_of(timing: Timing) -> Recurrence:
    """The firings of a timing as specifications that are joined; none for those that the clock does not decide."""
    match timing.when:
        case Union(specs=specs):
            joined: tuple[Spec, ...] = specs
        case OnDeployment():
            joined = ()
        case spec:
            joined = (spec,)
    return Recurrence(
        joined,
        timing.exclusions,
        time_zone=timing.time_zone,
        start=timing.start,
        end=timing.end,
        jitter=timing.jitter,
        dst_policy=timing.dst_policy,
    )
