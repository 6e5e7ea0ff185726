"""Calendar repetitions as patterns of local times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time

from scheduling.domain.recurrence.walk import DaysOfMonth, ListedTimes, LocalTimes, Pattern, Within, month_length
from scheduling.domain.recurrence.zones import DAY, EPOCH_ORDINAL, FIRST_YEAR, LAST_YEAR
from scheduling.domain.timing import Calendar, Frequency

_ALL_MONTHS = (2 << 12) - 2

#: What weeks are counted from when no date is given; any Monday would do, since then every week counts.
_SOME_MONDAY = date(2001, 1, 1)


def seconds_of(clock: time) -> int:
    """Seconds since midnight on the wall clock."""
    return clock.hour * 3600 + clock.minute * 60 + clock.second


@dataclass(frozen=True, slots=True)
class EveryNthDay:
    """Each n-th day, counted from a day (its ordinal)."""

    first: int
    every: int

    @property
    def months(self) -> int:
        """All months."""
        return _ALL_MONTHS

    def of_month(self, year: int, month: int) -> int:
        """The days of that month, as a set of 1 to 31."""
        length = month_length(year, month)
        if self.every == 1:
            return (2 << length) - 2
        mask = 0
        for day in range(1 + (self.first - date(year, month, 1).toordinal()) % self.every, length + 1, self.every):
            mask |= 1 << day
        return mask


@dataclass(frozen=True, slots=True)
class DaysOfWeek:
    """Some weekdays of each n-th week, counted from the week that begins on a Monday (its ordinal)."""

    monday: int
    every: int
    #: Bit 0 is Monday.
    weekdays: int

    @property
    def months(self) -> int:
        """All months."""
        return _ALL_MONTHS

    def of_month(self, year: int, month: int) -> int:
        """The days of that month, as a set of 1 to 31."""
        first = date(year, month, 1).toordinal()
        length = month_length(year, month)
        mask = 0
        # Weeks that touch the month, each told by the place of its Monday among the month's days.
        for monday in range(1 - (first - self.monday) % 7, length + 1, 7):
            if (first + monday - 1 - self.monday) // 7 % self.every == 0:
                mask |= self.weekdays << monday if monday >= 0 else self.weekdays >> -monday
        return mask & ((2 << length) - 2)


@dataclass(frozen=True, slots=True)
class DaysOfNthMonth:
    """Some days of each n-th month, counted from a month (year × 12 + month - 1).

    When `every` is whole years, they are counted from that month's year, whatever the months of the days.
    """

    days: DaysOfMonth
    first: int
    every: int

    @property
    def months(self) -> int:
        """The months that may have any, as a set of 1 to 12."""
        return self.days.months

    def of_month(self, year: int, month: int) -> int:
        """The days of that month, as a set of 1 to 31."""
        counted = year - self.first // 12 if self.every % 12 == 0 else year * 12 + month - 1 - self.first
        every = self.every // 12 if self.every % 12 == 0 else self.every
        return self.days.of_month(year, month) if counted % every == 0 else 0


def calendar_pattern(calendar: Calendar) -> LocalTimes:
    """The local times of a calendar repetition that `check_recurrence` found sound."""
    times = ListedTimes(tuple(sorted({seconds_of(clock) for clock in calendar.times})))
    whole = Pattern(_days(calendar), times)
    if calendar.from_date is None and calendar.until_date is None:
        return whole
    first = (calendar.from_date or date(FIRST_YEAR, 1, 1)).toordinal()
    last = (calendar.until_date or date(LAST_YEAR, 12, 31)).toordinal() + 1
    low, high = (first - EPOCH_ORDINAL) * DAY, (last - EPOCH_ORDINAL) * DAY
    if calendar.count is not None:
        high = min(high, _end_of_count(whole, low, calendar.count, len(times.seconds)))
    return Within(whole, low, high)


def _days(calendar: Calendar) -> EveryNthDay | DaysOfWeek | DaysOfNthMonth:
    start = calendar.from_date or _SOME_MONDAY
    if calendar.frequency is Frequency.DAILY:
        return EveryNthDay(start.toordinal(), calendar.every)
    if calendar.frequency is Frequency.WEEKLY:
        weekdays = sum(1 << (weekday - 1) for weekday in calendar.weekdays)
        return DaysOfWeek(start.toordinal() - start.weekday(), calendar.every, weekdays)
    yearly = calendar.frequency is Frequency.YEARLY
    days = DaysOfMonth(
        months=sum(1 << month for month in calendar.months) if yearly else _ALL_MONTHS,
        days=sum(1 << day for day in calendar.month_days if day > 0),
        from_last=sum(1 << (-day - 1) for day in calendar.month_days if day < 0),
        nth=tuple((nth.weekday % 7, nth.nth) for nth in calendar.nth_weekdays if nth.nth > 0),
        last_weekdays=sum(1 << nth.weekday % 7 for nth in calendar.nth_weekdays if nth.nth < 0),
        either=True,
    )
    return DaysOfNthMonth(days, start.year * 12 + start.month - 1, calendar.every * (12 if yearly else 1))


def _end_of_count(pattern: Pattern, low: int, count: int, times_a_day: int) -> int:
    """The local time just after the `count`-th one from `low` (a midnight) on; whole months are counted at once."""
    full_days, rest = divmod(count - 1, times_a_day)
    start = date.fromordinal(low // DAY + EPOCH_ORDINAL)
    year, month = start.year, start.month
    mask = pattern.days.of_month(year, month) >> start.day << start.day
    while year <= LAST_YEAR:
        if mask.bit_count() > full_days:
            for _ in range(full_days):
                mask &= mask - 1
            day = (mask & -mask).bit_length() - 1
            return (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY + _nth_time(pattern, rest) + 1
        full_days -= mask.bit_count()
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        mask = pattern.days.of_month(year, month)
    return (date(LAST_YEAR, 12, 31).toordinal() - EPOCH_ORDINAL) * DAY


def _nth_time(pattern: Pattern, index: int) -> int:
    second = -1
    for _ in range(index + 1):
        second = pattern.times.at_or_after(second + 1)
    return second
