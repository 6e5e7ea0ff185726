"""Exclusions as stretches of instants, so that what is excluded is stepped over at once and not firing by firing.

Instants are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

from scheduling.domain.recurrence.calendars import seconds_of
from scheduling.domain.recurrence.cron import parse_cron
from scheduling.domain.recurrence.rules import FIRST, LAST, SECOND, Rule
from scheduling.domain.recurrence.specs import (
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    NamedCalendar,
)
from scheduling.domain.recurrence.walk import DaysOfMonth, GridTimes
from scheduling.domain.recurrence.zones import DAY, EPOCH, EPOCH_ORDINAL, Zone, known_zone

_FULL = (1 << 60) - 1
_FULL_HOURS = (1 << 24) - 1

#: Firings in a row that all fall into windows or cron exclusions count as none ever when they reach over so many days,
#: which is more than a year, or when they are so many, which is a week of every minute. Dates and periods are not
#: counted, since they come to an end.
_MOST_DAYS, _MOST_EXCLUDED = 400, 12_000


class Cover(Protocol):
    """A set of instants that are excluded."""

    @property
    def ends(self) -> bool:
        """Whether it covers a limited number of stretches in all."""
        ...

    def stretch(self, instant: int) -> tuple[int, int] | None:
        """A stretch [start, end) around the instant, all of it covered, maybe not the longest; None if it is free."""
        ...


@dataclass(frozen=True, slots=True)
class PeriodCover:
    """One stretch of instants."""

    start: int
    end: int
    ends: bool = True

    def stretch(self, instant: int) -> tuple[int, int] | None:
        """The period, if the instant lies in it."""
        return (self.start, self.end) if self.start <= instant < self.end else None


class _LocalCover:
    """Covers local times: subclasses tell the local stretch, this cuts it where clocks change."""

    __slots__ = ("_zone",)
    ends = False

    def __init__(self, where: Zone) -> None:
        self._zone = where

    def stretch(self, instant: int) -> tuple[int, int] | None:
        """A covered stretch around the instant; None if it is free."""
        second = instant // SECOND
        if not FIRST <= second < LAST:
            return None
        start, end, offset = self._zone.stretch(second)
        found = self._local(second + offset)
        if found is None:
            return None
        return max(found[0] - offset, start) * SECOND, min(found[1] - offset, end) * SECOND

    def _local(self, local: int) -> tuple[int, int] | None:
        raise NotImplementedError


class DatesCover(_LocalCover):
    """Whole local dates, as days since the epoch; neighbours make one stretch."""

    __slots__ = ("_days",)
    ends = True

    def __init__(self, where: Zone, dates: Iterable[date]) -> None:
        super().__init__(where)
        self._days = frozenset(day.toordinal() - EPOCH_ORDINAL for day in dates)

    def _local(self, local: int) -> tuple[int, int] | None:
        first = last = local // DAY
        if first not in self._days:
            return None
        while first - 1 in self._days:
            first -= 1
        while last + 1 in self._days:
            last += 1
        return first * DAY, (last + 1) * DAY


class WindowCover(_LocalCover):
    """Times of day on some weekdays (bit 0 is Monday); an end beyond the day reaches into the next."""

    __slots__ = ("_end", "_start", "_weekdays")

    def __init__(self, where: Zone, start: int, end: int, weekdays: int) -> None:
        super().__init__(where)
        self._start, self._end, self._weekdays = start, end if end > start else end + DAY, weekdays

    def _local(self, local: int) -> tuple[int, int] | None:
        today = local // DAY
        for day in (today, today - 1):
            # 1970-01-01 was a Thursday.
            if self._weekdays >> (day + 3) % 7 & 1 and day * DAY + self._start <= local < day * DAY + self._end:
                return day * DAY + self._start, day * DAY + self._end
        return None


class CronCover(_LocalCover):
    """Local times that match a cron expression; minutes count as a whole unless seconds are given."""

    __slots__ = ("_days", "_times")

    def __init__(self, where: Zone, expression: str) -> None:
        super().__init__(where)
        parsed = parse_cron(expression)
        grid = parsed.times
        by_second = len(expression.split()) == 6
        self._times = grid if by_second else GridTimes(_FULL, grid.minutes, grid.hours)
        self._days: DaysOfMonth = parsed.days

    def _local(self, local: int) -> tuple[int, int] | None:
        day, second = divmod(local, DAY)
        if self._times.at_or_after(second) != second:
            return None
        shown = date.fromordinal(day + EPOCH_ORDINAL)
        days = self._days.of_month(shown.year, shown.month)
        if not days >> shown.day & 1:
            return None
        seconds, minutes, hours = self._times.seconds, self._times.minutes, self._times.hours
        if seconds != _FULL:
            return local, local + 1
        if minutes != _FULL:
            return local // 60 * 60, local // 60 * 60 + 60
        if hours != _FULL_HOURS:
            first, end = _run(hours, second // 3600)
            return day * DAY + first * 3600, day * DAY + end * 3600
        first, end = _run(days, shown.day)
        return (day - shown.day + first) * DAY, (day - shown.day + end) * DAY


def _run(mask: int, member: int) -> tuple[int, int]:
    """The unbroken run [first, end) of members around one of them."""
    missing = ~mask
    above = missing >> member
    return (missing & ((1 << member) - 1)).bit_length(), member + (above & -above).bit_length() - 1


class _Patience:
    """How long it is looked for a firing that is not excluded."""

    __slots__ = ("_day", "_days", "_firings")

    def __init__(self) -> None:
        self._firings, self._days, self._day = _MOST_EXCLUDED, _MOST_DAYS, -1

    def goes_on(self, excluded: int) -> bool:
        """Counts one more excluded firing; False when it is enough."""
        self._firings -= 1
        day = excluded // (DAY * SECOND)
        if day != self._day:
            self._day = day
            self._days -= 1
        return self._firings > 0 and self._days > 0


class Excluding:
    """A rule without the instants that covers take away."""

    __slots__ = ("_covers", "_rule")

    def __init__(self, rule: Rule, covers: tuple[Cover, ...]) -> None:
        self._rule = rule
        self._covers = covers

    def after(self, instant: int) -> int | None:
        """The first one strictly after `instant` that is not covered."""
        patience = _Patience()
        while (found := self._rule.after(instant)) is not None:
            for cover in self._covers:
                covered = cover.stretch(found)
                if covered is not None:
                    if not (cover.ends or patience.goes_on(found)):
                        return None
                    instant = covered[1] - 1
                    break
            else:
                return found
        return None

    def before(self, instant: int) -> int | None:
        """The last one strictly before `instant` that is not covered."""
        patience = _Patience()
        while (found := self._rule.before(instant)) is not None:
            for cover in self._covers:
                covered = cover.stretch(found)
                if covered is not None:
                    if not (cover.ends or patience.goes_on(found)):
                        return None
                    instant = covered[0]
                    break
            else:
                return found
        return None


def covers_of(exclusion: Exclusion, where: Zone) -> tuple[Cover, ...]:
    """What an exclusion covers, its local times read in the zone. Raises InvalidRequest if it cannot be read."""
    match exclusion:
        case ExcludedDates(dates=dates):
            return (DatesCover(where, dates),)
        case ExcludedPeriod(start=start, end=end):
            return (PeriodCover(_instant(start, where), _instant(end, where)),)
        case ExcludedWindow(start=opens, end=closes, weekdays=weekdays):
            mask = sum(1 << (weekday - 1) for weekday in weekdays) if weekdays else 0b1111111
            return (WindowCover(where, seconds_of(opens), seconds_of(closes), mask),)
        case ExcludedCron(expression=expression):
            return (CronCover(where, expression),)
        case NamedCalendar(exclusions=parts, time_zone=name):
            own = where if name is None else known_zone(name)
            return tuple(cover for part in parts for cover in covers_of(part, own))


def _instant(bound: datetime, where: Zone) -> int:
    if bound.tzinfo is not None:
        return (bound - EPOCH) // timedelta(microseconds=1)
    local = (bound - EPOCH.replace(tzinfo=None)) // timedelta(microseconds=1)
    return where.resolve(local // SECOND).instant * SECOND + local % SECOND
