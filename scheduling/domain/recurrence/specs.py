"""Everything a schedule can say about when, as values: several specifications joined, exclusions taken away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import IntEnum, StrEnum

from scheduling.domain.schedule import Cron, DstPolicy, Interval, Once, Timing


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


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """The `nth` such weekday of a month, 1 to 5, or -1 for the last one. Months without a fifth one are left out."""

    weekday: Weekday
    nth: int


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ExcludedDates:
    """Whole local dates."""

    dates: frozenset[date]


@dataclass(frozen=True, slots=True)
class ExcludedPeriod:
    """One stretch of time, [start, end). Naive bounds are local times: the first instant that shows them."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ExcludedWindow:
    """Local times of day, [start, end), on some weekdays; none given means all.

    When `end` is not after `start` it belongs to the following day, so 22:00 to 06:00 on Friday ends on Saturday; equal
    times are 24 hours.
    """

    start: time
    end: time
    weekdays: frozenset[Weekday] = frozenset()


@dataclass(frozen=True, slots=True)
class ExcludedCron:
    """Local times that a cron expression matches: whole minutes with 5 fields, whole seconds with 6."""

    expression: str


@dataclass(frozen=True, slots=True)
class NamedCalendar:
    """What the caller found under `name`; its local times are read in its own zone, if it has one."""

    name: str
    exclusions: tuple[ExcludedDates | ExcludedPeriod | ExcludedWindow | ExcludedCron, ...]
    time_zone: str | None = None


Exclusion = ExcludedDates | ExcludedPeriod | ExcludedWindow | ExcludedCron | NamedCalendar


@dataclass(frozen=True, slots=True)
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
    """The same firings as a Recurrence of one specification."""
    return Recurrence(
        (timing.when,),
        time_zone=timing.time_zone,
        start=timing.start,
        end=timing.end,
        jitter=timing.jitter,
        dst_policy=timing.dst_policy,
    )
