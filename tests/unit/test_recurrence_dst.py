"""Clock changes: facts in tables, and every minute walked.

The moments of change are those of the IANA database's files (europe, northamerica, australasia, africa, antarctica,
southamerica); the rule is ours, which is what cron(8) of Vixie cron says of changes below three hours.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from scheduling.domain.recurrence import (
    Calendar,
    Frequency,
    Recurrence,
    fires_between,
    next_fire,
    preview,
    previous_fire,
)
from scheduling.domain.recurrence.zones import known_zone
from scheduling.domain.timing import Cron, DstPolicy, Timing

AFTER_GAP, SKIP_GAP, LITERAL = DstPolicy.FIRE_AFTER_GAP, DstPolicy.SKIP_GAP, DstPolicy.LITERAL
MINUTE = timedelta(minutes=1)


def local_firings(expression: str, zone: str, day: str, policy: DstPolicy = AFTER_GAP) -> list[str]:
    """The firings from a local midnight to the next but one, as local times with offset."""
    info = known_zone(zone).info
    start = datetime.fromisoformat(day).replace(tzinfo=info)
    end = (start + timedelta(days=1)).astimezone(UTC)
    timing = Timing(Cron(expression), zone, dst_policy=policy)
    found = fires_between(timing, start.astimezone(UTC) - timedelta(seconds=1), end - timedelta(seconds=1), 2000)
    return [
        nominal.astimezone(info).strftime("%d %H:%M:%S%z").replace(":00+", "+").replace(":00-", "-")
        for nominal in found
    ]


@pytest.mark.parametrize(
    ("zone", "day", "expression", "expected"),
    [
        # Europe/Paris: 02:00 becomes 03:00 on 2026-03-29, 03:00 becomes 02:00 on 2026-10-25.
        ("Europe/Paris", "2026-03-29", "30 2 * * *", ["29 03:00+0200"]),
        ("Europe/Paris", "2026-03-29", "0 2 * * *", ["29 03:00+0200"]),
        ("Europe/Paris", "2026-03-29", "0,20,40 2 * * *", ["29 03:00+0200"]),
        ("Europe/Paris", "2026-03-29", "0,30 2,3 * * *", ["29 03:00+0200", "29 03:30+0200"]),
        ("Europe/Paris", "2026-03-29", "*/20 2 * * *", []),
        ("Europe/Paris", "2026-03-29", "30 1-3 * * *", ["29 01:30+0100", "29 03:30+0200"]),
        ("Europe/Paris", "2026-10-25", "30 2 * * *", ["25 02:30+0200"]),
        ("Europe/Paris", "2026-10-25", "0 3 * * *", ["25 03:00+0100"]),
        ("Europe/Paris", "2026-10-25", "*/30 2 * * *",
         ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100"]),
        ("Europe/Paris", "2026-10-25", "0 1-3 * * *",
         ["25 01:00+0200", "25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
        # America/New_York: 02:00 becomes 03:00 on 2026-03-08, 02:00 becomes 01:00 on 2026-11-01.
        ("America/New_York", "2026-03-08", "15 2 * * SUN", ["08 03:00-0400"]),
        ("America/New_York", "2026-11-01", "30 1 * * *", ["01 01:30-0400"]),
        ("America/New_York", "2026-11-01", "30 0-2 * * *",
         ["01 00:30-0400", "01 01:30-0400", "01 01:30-0500", "01 02:30-0500"]),
        # Australia/Lord_Howe: half an hour, 02:00 becomes 01:30 on 2026-04-05, 02:00 becomes 02:30 on 2026-10-04.
        ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", ["05 01:45+1100"]),
        ("Australia/Lord_Howe", "2026-04-05", "*/15 1 * * *",
         ["05 01:00+1100", "05 01:15+1100", "05 01:30+1100", "05 01:45+1100",
          "05 01:30+1030", "05 01:45+1030"]),
        ("Australia/Lord_Howe", "2026-10-04", "15 2 * * *", ["04 02:30+1100"]),
        ("Australia/Lord_Howe", "2026-10-04", "*/15 2 * * *", ["04 02:30+1100", "04 02:45+1100"]),
        # Antarctica/Troll: two hours, 01:00 becomes 03:00 on 2026-03-29, 03:00 becomes 01:00 on 2026-10-25.
        ("Antarctica/Troll", "2026-03-29", "30 1,2 * * *", ["29 03:00+0200"]),
        ("Antarctica/Troll", "2026-10-25", "30 1,2 * * *", ["25 01:30+0200", "25 02:30+0200"]),
        ("Antarctica/Troll", "2026-10-25", "30 1-2 * * *",
         ["25 01:30+0200", "25 02:30+0200", "25 01:30+0000", "25 02:30+0000"]),
        # Pacific/Apia: no 2011-12-30; the date line moved at the end of the 29th.
        ("Pacific/Apia", "2011-12-29", "0 9,18 * * *", ["29 09:00-1000", "29 18:00-1000"]),
        ("Pacific/Apia", "2011-12-31", "0 9,18 * * *", ["31 00:00+1400", "31 09:00+1400", "31 18:00+1400"]),
        ("Pacific/Apia", "2011-12-31", "0 9 30 12 *", ["31 00:00+1400"]),
        ("Pacific/Apia", "2011-12-31", "0 */12 * * *", ["31 00:00+1400", "31 12:00+1400"]),
        # Pacific/Kiritimati: no 1994-12-31.
        ("Pacific/Kiritimati", "1995-01-01", "0 9 L 12 *", ["01 00:00+1400"]),
        # Europe/Dublin: summer is standard time there, winter the negative saving; the clocks move as in London.
        ("Europe/Dublin", "2026-03-29", "30 1 * * *", ["29 02:00+0100"]),
        ("Europe/Dublin", "2026-10-25", "30 1 * * *", ["25 01:30+0100"]),
        # America/Sao_Paulo 2018: midnight itself was missing on 2018-11-04, and 23:00 came twice on 2018-02-17.
        ("America/Sao_Paulo", "2018-11-04", "@daily", ["04 01:00-0200"]),
        ("America/Sao_Paulo", "2018-02-17", "30 23 * * *", ["17 23:30-0200"]),
        # America/St_Johns 2006: the clocks moved at one minute past midnight, back over the date.
        ("America/St_Johns", "2006-10-28", "30 23 * * *", ["28 23:30-0230"]),
        ("America/St_Johns", "2006-10-29", "0 0 * * *", ["29 00:00-0230"]),
        # Africa/Monrovia 1972-01-07: 44 min 30 s were left out, from an offset with seconds.
        ("Africa/Monrovia", "1972-01-07", "30 0 * * *", ["07 00:44:30+0000"]),
        # Asia/Kathmandu 1986: a quarter of an hour at New Year, by the offset and not for summer.
        ("Asia/Kathmandu", "1986-01-01", "10 0 * * *", ["01 00:15+0545"]),
        # America/Caracas 2016-05-01: half an hour, for good.
        ("America/Caracas", "2016-05-01", "45 2 * * *", ["01 03:00-0400"]),
    ],
)  # fmt: skip
def test_default_rule_on_days_of_change(zone: str, day: str, expression: str, expected: list[str]) -> None:
    assert local_firings(expression, zone, day) == expected


@pytest.mark.parametrize(
    ("policy", "spring", "autumn"),
    [
        (AFTER_GAP, ["29 03:00+0200"], ["25 02:30+0200"]),
        (SKIP_GAP, [], ["25 02:30+0200"]),
        (LITERAL, [], ["25 02:30+0200", "25 02:30+0100"]),
    ],
)
def test_policies_differ_for_fixed_times(policy: DstPolicy, spring: list[str], autumn: list[str]) -> None:
    assert local_firings("30 2 * * *", "Europe/Paris", "2026-03-29", policy) == spring
    assert local_firings("30 2 * * *", "Europe/Paris", "2026-10-25", policy) == autumn


@pytest.mark.parametrize("policy", DstPolicy)
def test_policies_agree_for_times_that_follow_the_clock(policy: DstPolicy) -> None:
    assert len(local_firings("*/10 * * * *", "Europe/Paris", "2026-03-29", policy)) == 23 * 6
    assert len(local_firings("*/10 * * * *", "Europe/Paris", "2026-10-25", policy)) == 25 * 6


def test_a_wildcard_cron_never_pauses_or_repeats_an_instant_across_a_change() -> None:
    for day in ("2026-03-29", "2026-10-25"):
        start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=12)
        found = fires_between(Timing(Cron("* * * * *"), "Europe/Paris"), start, start + timedelta(days=1), 2000)
        assert found == [start + n * MINUTE for n in range(1, 24 * 60 + 1)]


def test_a_pattern_that_lives_only_in_gaps_fires_after_them_or_never() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    always = Timing(Cron("30 2 ? 3 SUNL"), "Europe/Paris")
    assert next_fire(always, now) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    for expression, policy in (("30 2 ? 3 SUNL", SKIP_GAP), ("30 2 ? 3 SUNL", LITERAL), ("*/10 2 ? 3 SUNL", AFTER_GAP)):
        assert next_fire(Timing(Cron(expression), "Europe/Paris", dst_policy=policy), now) is None


def test_twenty_years_of_gaps_are_looked_through() -> None:
    # Clocks in New York moved on the first Sunday of April from 1987 to 2006, and in March since.
    timing = Timing(Cron("30 2 ? 4 SUN#1"), "America/New_York", dst_policy=SKIP_GAP)
    assert next_fire(timing, datetime(1987, 1, 1, tzinfo=UTC)) == datetime(2007, 4, 1, 6, 30, tzinfo=UTC)


def test_calendar_times_are_fixed_and_a_shifted_one_is_shown_as_shifted() -> None:
    daily = Recurrence((Calendar(Frequency.DAILY),), time_zone="America/Sao_Paulo")
    shown = preview(daily, datetime(2018, 11, 3, tzinfo=UTC), datetime(2018, 11, 6, tzinfo=UTC), 10)
    assert [(firing.local.isoformat(), firing.shifted) for firing in shown] == [
        ("2018-11-03T00:00:00-03:00", False),
        ("2018-11-04T01:00:00-02:00", True),
        ("2018-11-05T00:00:00-02:00", False),
    ]


# Every minute, walked. The oracle knows nothing of gaps and folds but what the library's conversion from UTC shows it.

CHANGES = [
    ("Europe/Paris", "2026-03-29"),
    ("Europe/Paris", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Australia/Lord_Howe", "2026-10-03"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Kiritimati", "1994-12-31"),
    ("Europe/Dublin", "2026-10-25"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/St_Johns", "2006-10-29"),
    ("Asia/Kathmandu", "1985-12-31"),
    ("America/Caracas", "2016-05-01"),
]


def random_field(dice: random.Random, low: int, high: int, top: int) -> tuple[str, set[int], bool]:
    """A field, its values, and whether it is fixed; single values and ranges lie in [low, high]."""
    match dice.randrange(6):
        case 0 | 1 | 2:
            values = sorted(dice.sample(range(low, high + 1), dice.randint(1, 3)))
            return ",".join(map(str, values)), set(values), True
        case 3:
            return "*", set(range(top + 1)), False
        case 4:
            step = dice.randint(2, top)
            return f"*/{step}", set(range(0, top + 1, step)), False
        case _:
            first, last = sorted(dice.sample(range(low, high + 1), 2))
            return f"{first}-{last}", set(range(first, last + 1)), False


def minutes_between(after: datetime, until: datetime) -> Iterator[datetime]:
    while (after := after + MINUTE) <= until:
        yield after


def by_walking(
    zone: str, hours: set[int], minutes: set[int], fixed: bool, policy: DstPolicy, after: datetime, until: datetime
) -> list[datetime]:
    info = known_zone(zone).info

    def matches(local: datetime) -> bool:
        return local.minute in minutes and local.hour in hours

    def wall(instant: datetime) -> datetime:
        return instant.astimezone(info).replace(tzinfo=None, fold=0)

    if not fixed or policy is LITERAL:
        return [instant for instant in minutes_between(after, until) if matches(wall(instant))]
    # Fixed: each local time of some days, at the first instant that shows it, or the first that shows a later one.
    margin = timedelta(days=3)
    shown: dict[datetime, datetime] = {}
    for instant in minutes_between(after - margin, until + margin):
        shown.setdefault(wall(instant), instant)
    found = set()
    for local in minutes_between(wall(after - margin), wall(until) + timedelta(days=2)):
        if matches(local):
            if local in shown:
                found.add(shown[local])
            elif policy is AFTER_GAP:
                later = local
                while later not in shown:
                    later += MINUTE
                found.add(shown[later])
    return sorted(instant for instant in found if after < instant <= until)


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_firings_across_a_change_are_those_found_by_walking_every_minute(zone: str, day: str) -> None:
    dice = random.Random(f"{zone} {day}")
    for _ in range(8):
        minute, minutes, fixed_minute = random_field(dice, 0, 59, 59)
        hour, hours, fixed_hour = random_field(dice, 0, dice.choice([4, 23]), 23)
        policy = dice.choice(list(DstPolicy))
        after = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(minutes=dice.randint(20 * 60, 36 * 60))
        until = after + timedelta(hours=60)
        timing = Timing(Cron(f"{minute} {hour} * * *"), zone, dst_policy=policy)
        expected = by_walking(zone, hours, minutes, fixed_minute and fixed_hour, policy, after, until)
        found = fires_between(timing, after, until, 10_000)
        assert found == expected, timing
        back: list[datetime] = []
        before = previous_fire(timing, until + timedelta(microseconds=1))
        while before is not None and before > after:
            back.append(before)
            before = previous_fire(timing, before)
        assert back[::-1] == found, timing
