"""Clock changes again, by brute force: weekdays, calendar times, unions and exclusions, minute by minute.

`test_recurrence_dst.py` does it for the times of day of cron; this goes on with what is built on them. The oracle walks
every minute of three days in 24 zones and asks the library alone what the wall clock shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache

import pytest

from scheduling.domain.recurrence import fires_between, previous_fire
from scheduling.domain.recurrence.zones import known_zone
from scheduling.domain.timing import (
    Calendar,
    Cron,
    DstPolicy,
    ExcludedDates,
    ExcludedWindow,
    Frequency,
    Recurrence,
    Weekday,
)

MINUTE = timedelta(minutes=1)
#: Walked before and after what is compared, for local times that a change moves.
MARGIN = timedelta(days=3)

CHANGES = [
    ("Europe/Paris", "2026-03-29"),
    ("Europe/Paris", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("America/Havana", "2024-03-10"),
    ("America/Havana", "2024-11-03"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Africa/Casablanca", "2026-03-22"),
    ("Europe/Dublin", "2026-03-29"),
    ("Europe/Lisbon", "1993-03-28"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Kiritimati", "1994-12-31"),
    ("Pacific/Kwajalein", "1993-08-21"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/St_Johns", "2006-10-29"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("Asia/Pyongyang", "2018-05-05"),
    ("America/Caracas", "2016-05-01"),
    ("Asia/Gaza", "2026-03-28"),
    ("Africa/Cairo", "2026-04-24"),
]

Matches = Callable[[datetime], bool]


@lru_cache(maxsize=4)
def walk(zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """Every minute of the days around, with what the wall clock shows."""
    info = known_zone(zone).info
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - MARGIN
    instants = [start + n * MINUTE for n in range(int((2 * MARGIN + timedelta(days=1)) / MINUTE))]
    return [(instant, instant.astimezone(info).replace(tzinfo=None, fold=0)) for instant in instants]


def expected(zone: str, day: str, matches: Matches, *, fixed: bool, policy: DstPolicy) -> set[datetime]:
    """The firings of one specification, by looking at each minute."""
    shown = walk(zone, day)
    if not fixed or policy is DstPolicy.LITERAL:
        return {instant for instant, local in shown if matches(local)}
    first: dict[datetime, datetime] = {}
    for instant, local in shown:
        first.setdefault(local, instant)
    found = set()
    local, last = shown[0][1], shown[-1][1]
    while local < last:
        if matches(local):
            if local in first:
                found.add(first[local])
            elif policy is DstPolicy.FIRE_AFTER_GAP:
                later = local
                while later not in first:
                    later += MINUTE
                found.add(first[later])
        local += MINUTE
    return found


def random_spec(dice: random.Random) -> tuple[Cron | Calendar, Matches, bool]:
    """A specification, which local times it names, and whether they are fixed."""
    weekdays = set(dice.sample(range(7), dice.randint(1, 7)))
    minutes, hours = (set(dice.sample(range(top), dice.randint(1, 3))) for top in (60, dice.choice([4, 24])))
    if dice.random() < 0.4:
        times = tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes))
        days = frozenset(Weekday(day or 7) for day in weekdays)
        spec: Cron | Calendar = Calendar(Frequency.WEEKLY, times, weekdays=days)
        fixed = True
    else:
        fixed = dice.random() < 0.5
        if fixed:
            hour_text = ",".join(map(str, sorted(hours)))
        else:
            low = dice.randint(0, 3)
            hours = set(range(low, low + 3))
            hour_text = f"{low}-{low + 2}"
        spec = Cron(f"{','.join(map(str, sorted(minutes)))} {hour_text} * * {','.join(map(str, sorted(weekdays)))}")
    return spec, lambda at: at.minute in minutes and at.hour in hours and at.isoweekday() % 7 in weekdays, fixed


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_unions_and_exclusions_across_a_change_are_those_found_by_walking_every_minute(zone: str, day: str) -> None:
    dice = random.Random(f"{zone} {day}")
    info = known_zone(zone).info
    middle = datetime.fromisoformat(day).replace(tzinfo=UTC)
    for _ in range(8):
        policy = dice.choice(list(DstPolicy))
        specs = [random_spec(dice) for _ in range(dice.randint(1, 3))]
        found: set[datetime] = set()
        for _, matches, fixed in specs:
            found |= expected(zone, day, matches, fixed=fixed, policy=policy)
        # An exclusion is judged by what the wall clock shows when it would fire.
        opens, closes = dice.randrange(24), dice.randrange(24)
        window = ExcludedWindow(time(opens), time(closes))
        dates = ExcludedDates(frozenset({middle.date()} if dice.random() < 0.3 else set()))
        exclusions = (window, dates) if dates.dates else (window,)

        def is_excluded(
            instant: datetime, opens: int = opens, closes: int = closes, dates: ExcludedDates = dates
        ) -> bool:
            local = instant.astimezone(info)
            within = opens <= local.hour < closes if opens < closes else local.hour >= opens or local.hour < closes
            return within or local.date() in dates.dates

        after, until = middle - timedelta(hours=dice.randint(20, 36)), middle + timedelta(hours=48)
        wanted = sorted(at for at in found if after < at <= until and not is_excluded(at))
        recurrence = Recurrence(tuple(spec for spec, _, _ in specs), exclusions, zone, dst_policy=policy)
        assert fires_between(recurrence, after, until, 10_000) == wanted, recurrence
        back: list[datetime] = []
        before = previous_fire(recurrence, until + timedelta(microseconds=1))
        while before is not None and before > after:
            back.append(before)
            before = previous_fire(recurrence, before)
        assert back[::-1] == wanted, recurrence


def test_every_zone_of_the_list_changes_its_clocks_there() -> None:
    for zone, day in CHANGES:
        info = known_zone(zone).info
        offsets = {instant.astimezone(info).utcoffset() for instant, _ in walk(zone, day)[::60]}
        assert len(offsets) == 2, zone
