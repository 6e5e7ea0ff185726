"""Ten thousand random specifications against other people's libraries, in UTC, where no clock changes.

Oracles: cronsim and croniter for cron, dateutil's rrule (RFC 5545) for calendar repetition. Two of croniter's rules are
not ours, and what they concern is left out of that comparison, by rule and counted:

- a day field that begins with `*` is unrestricted here, as in Vixie cron (crontab(5)): `*/2` beside a weekday means
  both; croniter takes `*/n` as restricted, so either;
- of a star inside a list (`14,*/17`) croniter makes the other day field `*` when that names every value; here both are
  restrictions, as in Vixie cron.

croniter also gives up after fifty years without a firing.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, date, datetime, time, timedelta

import pytest
from croniter import croniter
from cronsim import CronSim
from dateutil import rrule

from scheduling.domain.recurrence import check_timing, fires_between, previous_fire
from scheduling.domain.timing import (
    Calendar,
    Cron,
    ExcludedDates,
    Frequency,
    NthWeekday,
    Timing,
    Weekday,
)

#: In all 10,000; by kind.
FIVE_FIELDS, SIX_FIELDS, CALENDARS = 6000, 1000, 3000
#: Firings compared of each.
FIRINGS = 4
FAR = datetime(2200, 1, 1, tzinfo=UTC)
SECONDS, FIELDS = (0, 59), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
MONTH_NAMES = ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


def random_moment(dice: random.Random) -> datetime:
    day = datetime(dice.randint(2000, 2090), dice.randint(1, 12), dice.randint(1, 28), tzinfo=UTC)
    return day + timedelta(seconds=dice.randrange(86400))


def random_item(dice: random.Random, low: int, high: int, names: tuple[str, ...]) -> str:
    first, last = sorted(dice.randint(low, high) for _ in range(2))

    def text(value: int) -> str:
        return names[value] if names and dice.random() < 0.2 else str(value)

    match dice.randrange(20):
        case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8:
            return text(first)
        case 9 | 10 | 11 | 12 | 13:
            return f"{first}-{last}" if first < last else text(first)
        case 14 | 15 | 16:
            step = dice.randint(1, max(1, (high - low) // 2))
            return f"{first}-{last}/{step}" if first < last else text(first)
        case _:
            return f"*/{dice.randint(1, high - low)}"


def random_field(dice: random.Random, bounds: tuple[int, int], names: tuple[str, ...] = ()) -> str:
    if dice.random() < 0.35:
        return "*"
    return ",".join(random_item(dice, *bounds, names) for _ in range(dice.choice([1, 1, 1, 2, 3])))


def random_cron(dice: random.Random, *, seconds: bool) -> str:
    names: list[tuple[str, ...]] = [(), (), (), MONTH_NAMES, DAY_NAMES]
    fields = [random_field(dice, bounds, of) for bounds, of in zip(FIELDS, names, strict=True)]
    return " ".join([*([random_field(dice, SECONDS)] if seconds else []), *fields])


def values(field: str, low: int, high: int, modulus: int) -> set[int]:
    """The values of a plain field, by counting."""
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = low, high
        else:
            ends = [end if end.isdigit() else "" for end in span.split("-")]
            if "" in ends:
                # A name: one value, whichever it is.
                found.add(hash(item) % modulus)
                continue
            first, last = int(ends[0]), int(ends[-1])
        found |= {value % modulus for value in range(first, last + 1, int(step or 1))}
    return found


def is_read_otherwise_by_croniter(expression: str) -> bool:
    *_, day, _, weekday = expression.split()
    if any(field != "*" and field.startswith("*") for field in (day, weekday)):
        return True
    if "*" in {day, weekday}:
        return False
    every = len(values(weekday, 0, 6, 7)) == 7 or len(values(day, 1, 31, 32)) == 31
    return every and "*" in day + weekday


def firings(timing: Timing, after: datetime) -> list[datetime]:
    """The next firings of a sound timing, none of one that never fires; walked backwards as well."""
    found = fires_between(timing, after, FAR, FIRINGS)
    refused = check_timing(timing, after)
    assert bool(refused) == (not fires_between(timing, after, datetime(9990, 1, 1, tzinfo=UTC), 1)), refused
    for earlier, later in itertools.pairwise(found):
        assert previous_fire(timing, later) == earlier
    return found


def by_cronsim(expression: str, after: datetime, count: int) -> list[datetime]:
    return list(itertools.islice(CronSim(expression, after), count))


def by_croniter(expression: str, after: datetime, count: int) -> list[datetime]:
    walk = croniter(expression, after, second_at_beginning=True)
    return [walk.get_next(datetime) for _ in range(count)]


def test_cron_of_five_fields_fires_as_cronsim_and_croniter_say() -> None:
    dice = random.Random(5)
    compared = {"cronsim": 0, "croniter": 0}
    for _ in range(FIVE_FIELDS):
        expression, after = random_cron(dice, seconds=False), random_moment(dice)
        found = firings(Timing(Cron(expression)), after)
        if not found:
            continue
        assert by_cronsim(expression, after, len(found)) == found, (expression, after)
        compared["cronsim"] += 1
        far = any(later - earlier > timedelta(days=40 * 365) for earlier, later in itertools.pairwise([after, *found]))
        if not far and not is_read_otherwise_by_croniter(expression):
            assert by_croniter(expression, after, len(found)) == found, (expression, after)
            compared["croniter"] += 1
    assert compared["cronsim"] > FIVE_FIELDS * 0.99
    assert compared["croniter"] > FIVE_FIELDS * 0.6


def test_cron_of_six_fields_fires_as_croniter_says() -> None:
    dice = random.Random(6)
    compared = 0
    for _ in range(SIX_FIELDS):
        expression, after = random_cron(dice, seconds=True), random_moment(dice)
        found = firings(Timing(Cron(expression)), after)
        if found and not is_read_otherwise_by_croniter(expression) and found[-1] - after < timedelta(days=40 * 365):
            assert by_croniter(expression, after, len(found)) == found, (expression, after)
            compared += 1
    assert compared > SIX_FIELDS * 0.6


WEEKDAYS = (rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU)
FREQUENCIES = {
    Frequency.DAILY: rrule.DAILY,
    Frequency.WEEKLY: rrule.WEEKLY,
    Frequency.MONTHLY: rrule.MONTHLY,
    Frequency.YEARLY: rrule.YEARLY,
}


def random_calendar(dice: random.Random, around: date) -> Calendar:
    frequency = dice.choice(list(Frequency))
    hours, minutes, seconds = (sorted(dice.sample(range(top), dice.choice([1, 1, 2]))) for top in (24, 60, 60))
    by_day = dice.random() < 0.6
    monthly = frequency in {Frequency.MONTHLY, Frequency.YEARLY}
    days = [*range(1, 32), *range(-31, 0)]
    counted = dice.random() < 0.3
    start = around + timedelta(days=dice.randint(-400, 40))
    bound = counted or dice.random() < 0.5
    return Calendar(
        frequency,
        tuple(time(*each) for each in itertools.product(hours, minutes, seconds)),
        every=dice.choice([1, 1, 2, 3, 5]) if bound else 1,
        weekdays=frozenset(dice.sample(list(Weekday), dice.randint(1, 4)))
        if frequency is Frequency.WEEKLY
        else frozenset(),
        month_days=frozenset(dice.sample(days, dice.randint(1, 3))) if monthly and by_day else frozenset(),
        nth_weekdays=frozenset(
            NthWeekday(dice.choice(list(Weekday)), dice.choice([-1, 1, 2, 3, 4, 5])) for _ in range(dice.randint(1, 2))
        )
        if monthly and not by_day
        else frozenset(),
        months=frozenset(dice.sample(range(1, 13), dice.randint(1, 4)))
        if frequency is Frequency.YEARLY
        else frozenset(),
        from_date=start if bound else None,
        until_date=start + timedelta(days=dice.randint(0, 2000)) if bound and dice.random() < 0.3 else None,
        count=dice.randint(1, 200) if counted else None,
    )


def as_rule(calendar: Calendar, after: datetime) -> rrule.rruleset:
    """The same repetition in the words of RFC 5545; one without a date is counted from some earlier month."""
    start = calendar.from_date or (after - timedelta(days=800)).date().replace(day=1)
    options: dict[str, object] = {
        "dtstart": datetime(start.year, start.month, start.day, tzinfo=UTC),
        "interval": calendar.every,
        "wkst": rrule.MO,
        "byhour": sorted({each.hour for each in calendar.times}),
        "byminute": sorted({each.minute for each in calendar.times}),
        "bysecond": sorted({each.second for each in calendar.times}),
    }
    if calendar.weekdays:
        options["byweekday"] = [WEEKDAYS[day - 1] for day in calendar.weekdays]
    if calendar.month_days:
        options["bymonthday"] = sorted(calendar.month_days)
    if calendar.nth_weekdays:
        options["byweekday"] = [WEEKDAYS[each.weekday - 1](each.nth) for each in calendar.nth_weekdays]
    if calendar.months:
        options["bymonth"] = sorted(calendar.months)
    # RFC 5545 has no rule with both COUNT and UNTIL.
    if calendar.count is not None:
        options["count"] = calendar.count
    else:
        last = after + timedelta(days=3 * 365)
        options["until"] = datetime(last.year, last.month, last.day, tzinfo=UTC)
    rules = rrule.rruleset()
    rules.rrule(rrule.rrule(FREQUENCIES[calendar.frequency], **options))  # type: ignore[arg-type]
    return rules


def test_calendar_repetition_fires_as_rfc_5545_says() -> None:
    dice = random.Random(7)
    compared = excluded = 0
    for _ in range(CALENDARS):
        after = random_moment(dice)
        calendar = random_calendar(dice, after.date())
        rules = as_rule(calendar, after)
        exclusions: tuple[ExcludedDates, ...] = ()
        if dice.random() < 0.4:
            dates = {after.date() + timedelta(days=dice.randrange(200)) for _ in range(20)}
            exclusions = (ExcludedDates(frozenset(dates)),)
            for day, clock in itertools.product(dates, calendar.times):
                rules.exdate(datetime.combine(day, clock, UTC))
            excluded += 1
        expected = [
            each
            for each in rules.xafter(after, count=20)
            if calendar.until_date is None or each.date() <= calendar.until_date
        ][:FIRINGS]
        until = min([FAR, *(() if calendar.count is not None else (after + timedelta(days=3 * 365),))])
        found = fires_between(Timing(calendar, exclusions=exclusions), after, until, FIRINGS)
        found = [each for each in found if each < until.replace(hour=0, minute=0, second=0)]
        assert found == expected[: len(found)] if len(found) < FIRINGS else found == expected, calendar
        assert len(found) == len(expected), calendar
        compared += bool(found)
    assert compared > CALENDARS * 0.6
    assert excluded > CALENDARS * 0.3


@pytest.mark.parametrize(
    ("expression", "ours", "croniters"),
    [
        # Restricted by `*/2`? Not for Vixie cron: Sundays on odd days. For croniter: odd days, and Sundays.
        ("0 0 */2 * SUN", datetime(2026, 11, 15, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)),
        # All weekdays named: a restriction here, so each day fires; croniter leaves the days of the month.
        ("0 0 14,*/17 * 0-6", datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 11, 14, tzinfo=UTC)),
    ],
)
def test_where_croniter_differs_cronsim_agrees_with_us(expression: str, ours: datetime, croniters: datetime) -> None:
    after = datetime(2026, 11, 2, tzinfo=UTC)
    assert fires_between(Timing(Cron(expression)), after, FAR, 1) == [ours]
    assert by_cronsim(expression, after, 1) == [ours]
    assert by_croniter(expression, after, 1) == [croniters]
