"""What is wrong with a calendar repetition or an exclusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, time

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.recurrence.zones import FIRST_YEAR, LAST_YEAR, known_zone
from scheduling.domain.timing import (
    Calendar,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    Frequency,
    NamedCalendar,
)

#: Local times of one calendar repetition; every quarter of an hour.
MAX_TIMES = 48

#: About ten years, as for intervals.
MAX_EVERY = {Frequency.DAILY: 3660, Frequency.WEEKLY: 520, Frequency.MONTHLY: 120, Frequency.YEARLY: 10}

#: Firings that a calendar repetition can count to.
MAX_COUNT = 10_000

#: Dates of one exclusion, and exclusions of one named calendar.
MAX_DATES = 500
MAX_PARTS = 100

#: What each frequency needs one of, and what it may have.
_TAKES = {
    Frequency.DAILY: ((), frozenset[str]()),
    Frequency.WEEKLY: (("days_of_week",), frozenset({"days_of_week"})),
    Frequency.MONTHLY: (("month_days", "nth_weekdays"), frozenset({"month_days", "nth_weekdays"})),
    Frequency.YEARLY: (("month_days", "nth_weekdays"), frozenset({"month_days", "nth_weekdays", "months"})),
}

CronCheck = Callable[[str, str], list[Violation]]


def check_calendar(calendar: Calendar, path: str) -> list[Violation]:
    """The violations of a calendar repetition; `path` is its own."""
    found = _check_days(calendar, path)
    if not 1 <= len(calendar.times) <= MAX_TIMES:
        found.append(Violation(f"{path}.times", f"{len(calendar.times)} times of day, expected 1–{MAX_TIMES}"))
    for index, clock in enumerate(calendar.times[:MAX_TIMES]):
        found += _check_time(clock, f"{path}.times[{index}]")
    most = MAX_EVERY[calendar.frequency]
    if not 1 <= calendar.every <= most:
        found.append(Violation(f"{path}.every", f"{calendar.every} is not in 1–{most} for {calendar.frequency}"))
    elif calendar.every > 1 and calendar.from_date is None:
        found.append(Violation(f"{path}.from_date", f"expected a date to count every {calendar.every} from"))
    if calendar.count is not None:
        if not 1 <= calendar.count <= MAX_COUNT:
            found.append(Violation(f"{path}.count", f"{calendar.count} is not in 1–{MAX_COUNT}"))
        if calendar.from_date is None:
            found.append(Violation(f"{path}.from_date", "expected a date to count from"))
    first, last = calendar.from_date, calendar.until_date
    if first is not None and last is not None and first > last:
        found.append(Violation(f"{path}.until_date", f"{last} is before from_date, {first}"))
    return found


def _check_days(calendar: Calendar, path: str) -> list[Violation]:
    found = []
    fields = {
        "days_of_week": calendar.weekdays,
        "month_days": calendar.month_days,
        "nth_weekdays": calendar.nth_weekdays,
        "months": calendar.months,
    }
    given = {name for name, values in fields.items() if values}
    needed, taken = _TAKES[calendar.frequency]
    found += [Violation(f"{path}.{name}", f"has no meaning for {calendar.frequency}") for name in sorted(given - taken)]
    if needed and given.isdisjoint(needed):
        found.append(Violation(f"{path}.{needed[0]}", f"{calendar.frequency} needs {' or '.join(needed)}"))
    if calendar.frequency is Frequency.YEARLY and not calendar.months:
        found.append(Violation(f"{path}.months", f"{calendar.frequency} needs months"))
    found += [
        Violation(f"{path}.month_days", f"{day} is not in 1–31 or -31–-1")
        for day in sorted(calendar.month_days)
        if day == 0 or not -31 <= day <= 31
    ]
    found += [
        Violation(f"{path}.months", f"{month} is not in 1–12")
        for month in sorted(calendar.months)
        if not 1 <= month <= 12
    ]
    found += [
        Violation(f"{path}.nth_weekdays", f"{nth} is not in 1–5 or -1")
        for nth in sorted({nth.nth for nth in calendar.nth_weekdays})
        if nth != -1 and not 1 <= nth <= 5
    ]
    return found


def _check_time(clock: time, field: str) -> list[Violation]:
    if clock.tzinfo is not None:
        return [Violation(field, "expected a local time without a zone")]
    if clock.microsecond:
        return [Violation(field, f"{clock} is not in whole seconds")]
    return []


def check_exclusion(exclusion: Exclusion, path: str, check_cron: CronCheck) -> list[Violation]:
    """The violations of an exclusion; `path` is its own, `check_cron` looks at an expression under a path."""
    match exclusion:
        case ExcludedDates(dates=dates):
            if 1 <= len(dates) <= MAX_DATES:
                return []
            return [Violation(f"{path}.dates.dates", f"{len(dates)} dates, expected 1–{MAX_DATES}")]
        case ExcludedPeriod(start=start, end=end):
            return _check_period(start, end, path)
        case ExcludedWindow(start=opens, end=closes):
            return [*_check_time(opens, f"{path}.window.start"), *_check_time(closes, f"{path}.window.end")]
        case ExcludedCron(expression=expression):
            return check_cron(expression, f"{path}.cron.expression")
        case NamedCalendar(exclusions=parts, time_zone=name):
            return [*_check_zone(name, path), *_check_parts(parts, path, check_cron)]


def _check_period(start: datetime, end: datetime, path: str) -> list[Violation]:
    found = [
        Violation(f"{path}.period.{name}", f"{bound.isoformat()} is not in the years {FIRST_YEAR}–{LAST_YEAR}")
        for name, bound in (("start_time", start), ("end_time", end))
        if not FIRST_YEAR <= bound.year <= LAST_YEAR
    ]
    if (start.tzinfo is None) != (end.tzinfo is None):
        found.append(
            Violation(f"{path}.period.end_time", "expected both bounds with an offset from UTC, or both local")
        )
    elif start >= end:
        found.append(Violation(f"{path}.period.end_time", f"expected a time after start, {start.isoformat()}"))
    return found


def _check_zone(name: str | None, path: str) -> list[Violation]:
    if name is not None:
        try:
            known_zone(name, field=f"{path}.time_zone")
        except InvalidRequest as refused:
            return list(refused.violations)
    return []


def _check_parts(parts: Iterable[Exclusion], path: str, check_cron: CronCheck) -> list[Violation]:
    listed = list(parts)
    found = []
    if len(listed) > MAX_PARTS:
        found.append(Violation(f"{path}.exclusions", f"{len(listed)} exclusions, at most {MAX_PARTS}"))
    for index, part in enumerate(listed[:MAX_PARTS]):
        found += check_exclusion(part, f"{path}.exclusions[{index}]", check_cron)
    return found
