"""Walking wall-clock patterns by field: months, then days of a month, then times of a day; never minute by minute.

Sets of small numbers are integers whose bit n says that n is in the set. Weekdays count from Sunday, 0, as cron does.
Local times are seconds since 1970-01-01 00:00 on the wall clock.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from scheduling.domain.recurrence.zones import DAY, EPOCH_ORDINAL, FIRST_YEAR, LAST_YEAR

_FIRST_DAY = date(FIRST_YEAR, 1, 1).toordinal()
_LAST_DAY = date(LAST_YEAR, 12, 31).toordinal()
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

#: The calendar repeats after 400 years: what has no day in them has none at all.
_CYCLE_MONTHS = 400 * 12


def lowest(mask: int, start: int) -> int:
    """The smallest member at or above `start`, -1 if there is none."""
    rest = mask >> start
    return start + (rest & -rest).bit_length() - 1 if rest else -1


def highest(mask: int, end: int) -> int:
    """The largest member below `end`, -1 if there is none."""
    return (mask & ((1 << end) - 1)).bit_length() - 1


def month_length(year: int, month: int) -> int:
    """Days of that month."""
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _LENGTHS[month]


class Times(Protocol):
    """Times of a day, in seconds since its midnight on the wall clock."""

    def at_or_after(self, second: int) -> int:
        """The first one at or after `second`, -1 if there is none."""
        ...

    def before(self, second: int) -> int:
        """The last one before `second`, -1 if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class GridTimes:
    """Every combination of some hours, minutes and seconds."""

    seconds: int
    minutes: int
    hours: int

    def at_or_after(self, second: int) -> int:
        """The first one at or after `second`, -1 if there is none."""
        if second >= DAY:
            return -1
        hour, rest = divmod(second, 3600)
        minute, sec = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (found := lowest(self.seconds, sec)) >= 0:
                return hour * 3600 + minute * 60 + found
            if (found := lowest(self.minutes, minute + 1)) >= 0:
                return hour * 3600 + found * 60 + lowest(self.seconds, 0)
        if (found := lowest(self.hours, hour + 1)) >= 0:
            return found * 3600 + lowest(self.minutes, 0) * 60 + lowest(self.seconds, 0)
        return -1

    def before(self, second: int) -> int:
        """The last one before `second`, -1 if there is none."""
        hour, rest = divmod(second, 3600)
        minute, sec = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (found := highest(self.seconds, sec)) >= 0:
                return hour * 3600 + minute * 60 + found
            if (found := highest(self.minutes, minute)) >= 0:
                return hour * 3600 + found * 60 + highest(self.seconds, 60)
        if (found := highest(self.hours, hour)) >= 0:
            return found * 3600 + highest(self.minutes, 60) * 60 + highest(self.seconds, 60)
        return -1


@dataclass(frozen=True, slots=True)
class ListedTimes:
    """Some times of a day, ascending."""

    seconds: tuple[int, ...]

    def at_or_after(self, second: int) -> int:
        """The first one at or after `second`, -1 if there is none."""
        at = bisect_left(self.seconds, second)
        return self.seconds[at] if at < len(self.seconds) else -1

    def before(self, second: int) -> int:
        """The last one before `second`, -1 if there is none."""
        at = bisect_left(self.seconds, second)
        return self.seconds[at - 1] if at else -1


class Days(Protocol):
    """Which days of which months."""

    @property
    def months(self) -> int:
        """The months that may have any, as a set of 1 to 12."""
        ...

    def of_month(self, year: int, month: int) -> int:
        """The days of that month, as a set of 1 to 31."""
        ...


@dataclass(frozen=True, slots=True)
class DaysOfMonth:
    """Days told by their place in the month and by weekday, as cron tells them.

    `days` are plain numbers; `from_last` counts back from the last day (0); `nearest` and `nearest_from_last` mean the
    Monday to Friday nearest to such a day within its month; `nth` are (weekday, which one in the month);
    `last_weekdays` the last one in the month. A day must satisfy both groups, or with `either` one of them.
    """

    months: int
    days: int = 0
    from_last: int = 0
    nearest: tuple[int, ...] = ()
    nearest_from_last: tuple[int, ...] = ()
    weekdays: int = 0
    nth: tuple[tuple[int, int], ...] = ()
    last_weekdays: int = 0
    either: bool = False
    # The answer depends only on the month's length and the weekday that it begins with: 28 cases.
    _known: dict[int, int] = field(default_factory=dict, compare=False, repr=False)

    def of_month(self, year: int, month: int) -> int:
        """The days of that month, as a set of 1 to 31; empty for a month that is not in `months`."""
        if not self.months >> month & 1:
            return 0
        key = month_length(year, month) << 3 | date(year, month, 1).isoweekday() % 7
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._of_kind(key >> 3, key & 7)
        return known

    @property
    def ever(self) -> bool:
        """Whether any month of any year has such a day."""
        # Each month begins with each weekday in some year of the 400, February of either length too.
        lengths = {length for month in range(1, 13) if self.months >> month & 1 for length in _possible(month)}
        return any(self._of_kind(length, first) for length in lengths for first in range(7))

    def _of_kind(self, length: int, first: int) -> int:
        by_day = self.days
        for back in range(length):
            if self.from_last >> back & 1:
                by_day |= 1 << (length - back)
        for day in (*self.nearest, *(length - back for back in self.nearest_from_last)):
            if 1 <= day <= length:
                by_day |= 1 << _nearest_weekday(day, length, first)
        by_weekday = 0
        for day in range(1, length + 1):
            weekday = (first + day - 1) % 7
            if (
                self.weekdays >> weekday & 1
                or (weekday, (day + 6) // 7) in self.nth
                or (self.last_weekdays >> weekday & 1 and day + 7 > length)
            ):
                by_weekday |= 1 << day
        whole = (2 << length) - 2
        return (by_day | by_weekday if self.either else by_day & by_weekday) & whole


def _possible(month: int) -> tuple[int, ...]:
    return (28, 29) if month == 2 else (_LENGTHS[month],)


def _nearest_weekday(day: int, length: int, first: int) -> int:
    weekday = (first + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


class LocalTimes(Protocol):
    """An ascending set of local times."""

    def at_or_after(self, local: int) -> int | None:
        """The first one at or after `local`; None if there is none."""
        ...

    def before(self, local: int) -> int | None:
        """The last one before `local`; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Within:
    """Those local times that lie in [low, high)."""

    whole: LocalTimes
    low: int
    high: int

    def at_or_after(self, local: int) -> int | None:
        """The first one at or after `local`; None if there is none."""
        found = self.whole.at_or_after(max(local, self.low))
        return found if found is not None and found < self.high else None

    def before(self, local: int) -> int | None:
        """The last one before `local`; None if there is none."""
        found = self.whole.before(min(local, self.high))
        return found if found is not None and found >= self.low else None


@dataclass(frozen=True, slots=True)
class Pattern:
    """Local times: some times of some days."""

    days: Days
    times: Times

    def at_or_after(self, local: int) -> int | None:
        """The first local time of the pattern at or after `local`; None if none follows before the year 9999."""
        day, second = divmod(local, DAY)
        ordinal = day + EPOCH_ORDINAL
        if ordinal > _LAST_DAY:
            return None
        if ordinal < _FIRST_DAY:
            ordinal, second = _FIRST_DAY, 0
        start = date.fromordinal(ordinal)
        year, month = start.year, start.month
        mask = self.days.of_month(year, month)
        if mask >> start.day & 1 and (found := self.times.at_or_after(second)) >= 0:
            return (ordinal - EPOCH_ORDINAL) * DAY + found
        day = lowest(mask, start.day + 1)
        months = self.days.months
        last = year * 12 + month + _CYCLE_MONTHS
        while day < 0:
            month = lowest(months, month + 1)
            if month < 0:
                year, month = year + 1, lowest(months, 1)
            if year > LAST_YEAR or month < 0 or year * 12 + month > last:
                return None
            day = lowest(self.days.of_month(year, month), 1)
        return (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY + self.times.at_or_after(0)

    def before(self, local: int) -> int | None:
        """The last local time of the pattern before `local`; None if there is none since the year 2."""
        day, second = divmod(local, DAY)
        ordinal = day + EPOCH_ORDINAL
        if ordinal < _FIRST_DAY:
            return None
        if ordinal > _LAST_DAY:
            ordinal, second = _LAST_DAY, DAY
        end = date.fromordinal(ordinal)
        year, month = end.year, end.month
        mask = self.days.of_month(year, month)
        if mask >> end.day & 1 and (found := self.times.before(second)) >= 0:
            return (ordinal - EPOCH_ORDINAL) * DAY + found
        day = highest(mask, end.day)
        months = self.days.months
        last = year * 12 + month - _CYCLE_MONTHS
        while day < 0:
            month = highest(months, month)
            if month < 0:
                year, month = year - 1, highest(months, 13)
            if year < FIRST_YEAR or month < 0 or year * 12 + month < last:
                return None
            day = highest(self.days.of_month(year, month), 32)
        return (date(year, month, day).toordinal() - EPOCH_ORDINAL) * DAY + self.times.before(DAY)
