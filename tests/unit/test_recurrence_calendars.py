"""Calendar repetitions, unions and exclusions.

Expected dates are read off the Gregorian calendar (2026-01-01 is a Thursday); counting and leaving out days that a
month does not have follow RFC 5545, section 3.3.10 (COUNT, UNTIL, BYDAY, BYMONTHDAY); weeks begin on Monday (ISO 8601).
"""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.recurrence import (
    Calendar,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    Frequency,
    NamedCalendar,
    NthWeekday,
    Recurrence,
    Spec,
    Weekday,
    check_recurrence,
    describe,
    fires_between,
    next_fire,
    preview,
    previous_fire,
)
from scheduling.domain.timing import Cron, Interval, Once

DAILY, WEEKLY, MONTHLY, YEARLY = Frequency
MON, TUE, WED, THU, FRI, SAT, SUN = Weekday
NOON = (time(12),)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def day(text: str) -> date:
    return date.fromisoformat(text)


def days(*members: int) -> frozenset[int]:
    return frozenset(members)


def on(*weekdays: Weekday) -> frozenset[Weekday]:
    return frozenset(weekdays)


def nth(*pairs: tuple[Weekday, int]) -> frozenset[NthWeekday]:
    return frozenset(NthWeekday(*pair) for pair in pairs)


CALENDARS = [
    (Calendar(DAILY, NOON), "2026-01-30 12:00", ["01-31 12:00", "02-01 12:00"]),
    (Calendar(DAILY, (time(18, 30), time(9))), "2026-01-01 00:00", ["01-01 09:00", "01-01 18:30", "01-02 09:00"]),
    (Calendar(DAILY, NOON, 10, from_date=day("2026-01-05")), "2026-01-16", ["01-25 12:00", "02-04 12:00"]),
    (Calendar(WEEKLY, NOON, weekdays=on(MON, FRI)), "2026-01-02 12:00", ["01-05 12:00", "01-09 12:00", "01-12 12:00"]),
    # The week of Wednesday 2026-01-07 begins on the 5th and counts; the Monday of that week is before the first date.
    (
        Calendar(WEEKLY, NOON, 2, weekdays=on(MON, WED), from_date=day("2026-01-07")),
        "2026-01-01",
        ["01-07 12:00", "01-19 12:00", "01-21 12:00", "02-02 12:00"],
    ),
    (Calendar(WEEKLY, NOON, weekdays=on(SUN)), "2026-01-01", ["01-04 12:00", "01-11 12:00"]),
    (Calendar(MONTHLY, NOON, month_days=days(15)), "2026-01-15 12:00", ["02-15 12:00", "03-15 12:00"]),
    (Calendar(MONTHLY, NOON, month_days=days(31)), "2026-02-01", ["03-31 12:00", "05-31 12:00"]),
    (Calendar(MONTHLY, NOON, month_days=days(-1)), "2026-02-01", ["02-28 12:00", "03-31 12:00", "04-30 12:00"]),
    (Calendar(MONTHLY, NOON, month_days=days(1, -2)), "2026-02-02", ["02-27 12:00", "03-01 12:00", "03-30 12:00"]),
    (Calendar(MONTHLY, NOON, 3, month_days=days(1), from_date=day("2026-02-10")), "2026-01-01", ["05-01 12:00"]),
    (Calendar(MONTHLY, NOON, nth_weekdays=nth((TUE, 2))), "2026-01-01", ["01-13 12:00", "02-10 12:00"]),
    (Calendar(MONTHLY, NOON, nth_weekdays=nth((FRI, -1))), "2026-01-01", ["01-30 12:00", "02-27 12:00"]),
    (Calendar(MONTHLY, NOON, nth_weekdays=nth((THU, 5))), "2026-01-01", ["01-29 12:00", "04-30 12:00", "07-30 12:00"]),
    (
        Calendar(MONTHLY, NOON, month_days=days(13), nth_weekdays=nth((SUN, 1))),
        "2026-01-01",
        ["01-04 12:00", "01-13 12:00", "02-01 12:00", "02-13 12:00"],
    ),
    (Calendar(YEARLY, NOON, months=days(3, 9), month_days=days(21)), "2026-01-01", ["03-21 12:00", "09-21 12:00"]),
    (Calendar(YEARLY, NOON, months=days(5), nth_weekdays=nth((SUN, 2))), "2026-01-01", ["05-10 12:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("calendar", "after", "expected"), CALENDARS)
def test_a_calendar_repetition_fires_on_the_days_a_person_would_name(
    calendar: Calendar, after: str, expected: list[str]
) -> None:
    times = [at(f"2026-{text}") for text in expected]
    recurrence = Recurrence((calendar,))
    assert check_recurrence(recurrence, at(after)) == []
    assert fires_between(recurrence, at(after), at("2200-01-01"), len(times)) == times
    for earlier, later in pairwise(times):
        assert previous_fire(recurrence, later) == earlier


def test_yearly_leaves_out_years_without_the_day_and_counts_from_its_first_year() -> None:
    leap = Recurrence((Calendar(YEARLY, NOON, months=days(2), month_days=days(29)),))
    assert fires_between(leap, at("2026-01-01"), at("2040-01-01"), 2) == [
        at("2028-02-29 12:00"),
        at("2032-02-29 12:00"),
    ]
    third = Calendar(YEARLY, NOON, 3, months=days(7), month_days=days(1), from_date=day("2026-08-01"))
    assert fires_between(Recurrence((third,)), at("2026-01-01"), at("2040-01-01"), 2) == [
        at("2029-07-01 12:00"),
        at("2032-07-01 12:00"),
    ]


def test_until_is_inclusive_and_local() -> None:
    calendar = Calendar(DAILY, (time(23, 30),), until_date=day("2026-01-02"))
    recurrence = Recurrence((calendar,), time_zone="America/New_York")
    assert fires_between(recurrence, at("2026-01-01 12:00"), at("2030-01-01"), 9) == [
        at("2026-01-02 04:30"),
        at("2026-01-03 04:30"),
    ]
    assert previous_fire(recurrence, at("2030-01-01")) == at("2026-01-03 04:30")


@pytest.mark.parametrize(
    ("calendar", "last", "count"),
    [
        (Calendar(DAILY, NOON, from_date=day("2026-01-01"), count=1), "2026-01-01 12:00", 1),
        (Calendar(DAILY, (time(9), time(18)), from_date=day("2026-01-01"), count=5), "2026-01-03 09:00", 5),
        (Calendar(WEEKLY, NOON, weekdays=on(MON), from_date=day("2026-01-01"), count=52), "2026-12-28 12:00", 52),
        (Calendar(MONTHLY, NOON, month_days=days(31), from_date=day("2026-01-31"), count=7), "2026-12-31 12:00", 7),
        (
            Calendar(DAILY, NOON, from_date=day("2026-01-01"), count=10, until_date=day("2026-01-04")),
            "2026-01-04 12:00",
            4,
        ),
        (
            Calendar(YEARLY, NOON, months=days(2), month_days=days(29), from_date=day("2000-01-01"), count=26),
            "2104-02-29 12:00",
            26,
        ),
    ],
)
def test_a_count_ends_it_after_so_many_times(calendar: Calendar, last: str, count: int) -> None:
    recurrence = Recurrence((calendar,))
    found = fires_between(recurrence, at("1990-01-01"), at("2200-01-01"), 1000)
    assert len(found) == count
    assert found[-1] == previous_fire(recurrence, at("2200-01-01")) == at(last)
    assert next_fire(recurrence, found[-1]) is None


def test_excluded_times_count_as_in_rfc_5545() -> None:
    calendar = Calendar(DAILY, NOON, from_date=day("2026-01-01"), count=3)
    recurrence = Recurrence((calendar,), (ExcludedDates(frozenset({day("2026-01-02")})),))
    assert fires_between(recurrence, at("2025-01-01"), at("2030-01-01"), 9) == [
        at("2026-01-01 12:00"),
        at("2026-01-03 12:00"),
    ]


# Unions.


def test_a_union_fires_each_instant_once() -> None:
    specs: tuple[Spec, ...] = (
        Cron("0 9 * * *"),
        Cron("0 9,17 * * *"),
        Interval(timedelta(hours=12)),
        Once(at("2026-01-01 13:00")),
    )
    recurrence = Recurrence(specs)
    expected = [at(f"2026-01-01 {text}") for text in ("09:00", "12:00", "13:00", "17:00")]
    assert fires_between(recurrence, at("2026-01-01"), at("2026-01-01 23:00"), 9) == expected
    assert previous_fire(recurrence, at("2026-01-01 13:00")) == at("2026-01-01 12:00")


# Exclusions.


def kept(recurrence: Recurrence, after: str, until: str) -> list[str]:
    found = fires_between(recurrence, at(after), at(until), 5000)
    back: list[datetime] = []
    before = previous_fire(recurrence, at(until) + timedelta(microseconds=1))
    while before is not None and before > at(after):
        back.append(before)
        before = previous_fire(recurrence, before)
    assert back[::-1] == found
    return [nominal.strftime("%m-%d %H:%M") for nominal in found]


def test_excluded_dates_are_local_dates() -> None:
    recurrence = Recurrence(
        (Cron("0 0,12 * * *"),), (ExcludedDates(frozenset({day("2026-01-02")})),), time_zone="Asia/Tokyo"
    )
    # Midnight in Tokyo is 15:00 of the day before in UTC.
    assert kept(recurrence, "2025-12-31 16:00", "2026-01-03 04:00") == ["01-01 03:00", "01-02 15:00", "01-03 03:00"]


def test_a_window_is_half_open_and_may_go_over_midnight() -> None:
    night = ExcludedWindow(time(22), time(6))
    assert kept(Recurrence((Cron("0 */2 * * *"),), (night,)), "2026-01-01", "2026-01-01 23:59") == [
        f"01-01 {hour:02}:00" for hour in range(6, 22, 2)
    ]
    friday = ExcludedWindow(time(22), time(6), on(FRI))
    assert kept(Recurrence((Cron("0 5,23 * * *"),), (friday,)), "2026-01-02", "2026-01-04") == [
        "01-02 05:00",
        "01-03 23:00",
    ]
    lunch = ExcludedWindow(time(12), time(13), on(MON, TUE, WED, THU, FRI))
    assert kept(Recurrence((Cron("0,30 12,13 * * *"),), (lunch,)), "2026-01-02", "2026-01-04") == [
        "01-02 13:00",
        "01-02 13:30",
        "01-03 12:00",
        "01-03 12:30",
        "01-03 13:00",
        "01-03 13:30",
    ]


def test_a_period_is_half_open_by_instant_or_by_local_time() -> None:
    exact = ExcludedPeriod(at("2026-01-01 02:00"), at("2026-01-01 04:00"))
    assert kept(Recurrence((Cron("@hourly"),), (exact,)), "2026-01-01", "2026-01-01 05:00") == [
        "01-01 01:00",
        "01-01 04:00",
        "01-01 05:00",
    ]
    local = ExcludedPeriod(at("2026-01-01 02:00").replace(tzinfo=None), at("2026-01-01 04:00").replace(tzinfo=None))
    recurrence = Recurrence((Cron("@hourly"),), (local,), time_zone="Europe/Paris")
    assert kept(recurrence, "2026-01-01", "2026-01-01 05:00") == ["01-01 03:00", "01-01 04:00", "01-01 05:00"]


def test_excluded_cron_takes_whole_minutes_with_5_fields_and_seconds_with_6() -> None:
    each_second = Cron("*/20 * * * * *")
    by_minute = Recurrence((each_second,), (ExcludedCron("1-58 * * * *"),))
    found = fires_between(by_minute, at("2026-01-01"), at("2026-01-01 01:00"), 99)
    assert [nominal.minute for nominal in found] == [0, 0, 59, 59, 59, 0]
    by_second = Recurrence((each_second,), (ExcludedCron("20,40 * * * * *"),))
    assert next_fire(by_second, at("2026-01-01")) == at("2026-01-01 00:01")


def test_months_excluded_by_cron_are_stepped_over() -> None:
    recurrence = Recurrence((Cron("* * * * * *"),), (ExcludedCron("* * * 1-11 *"),))
    assert next_fire(recurrence, at("2026-01-01")) == at("2026-12-01")
    assert previous_fire(recurrence, at("2026-11-01")) == at("2025-12-31 23:59:59")


def test_a_named_calendar_reads_its_times_in_its_own_zone() -> None:
    dates = ExcludedDates(frozenset({day("2026-01-02")}))
    tokyo = NamedCalendar("holidays", (dates, ExcludedWindow(time(0), time(3))), "Asia/Tokyo")
    hourly = Recurrence((Cron("0 */6 * * *"),), (tokyo,))
    # 2026-01-02 in Tokyo is from 15:00 on the 1st to 15:00 on the 2nd in UTC, and its window from 15:00 to 18:00.
    assert kept(hourly, "2026-01-01 11:00", "2026-01-03 13:00") == [
        "01-01 12:00",
        "01-02 18:00",
        "01-03 00:00",
        "01-03 06:00",
        "01-03 12:00",
    ]


def test_a_firing_moved_by_a_gap_is_judged_where_it_lands() -> None:
    # 2011-12-30 did not exist in Apia: its firing lands on the 31st.
    for excluded, expected in (("2011-12-30", 1), ("2011-12-31", 0)):
        recurrence = Recurrence(
            (Cron("0 9 30 12 *"),), (ExcludedDates(frozenset({day(excluded)})),), time_zone="Pacific/Apia"
        )
        assert len(fires_between(recurrence, at("2011-12-01"), at("2012-01-31"), 9)) == expected


def test_five_hundred_excluded_dates_in_a_row_are_looked_through() -> None:
    sundays = frozenset(day("2026-01-04") + timedelta(days=7 * n) for n in range(500))
    recurrence = Recurrence((Cron("0 12 * * SUN"),), (ExcludedDates(sundays),))
    assert check_recurrence(recurrence, at("2026-01-01")) == []
    assert next_fire(recurrence, at("2026-01-01")) == at("2026-01-04 12:00") + timedelta(days=3500)


def test_preview_shows_what_is_excluded_and_by_which() -> None:
    dates = ExcludedDates(frozenset({day("2026-01-02")}))
    named = NamedCalendar("holidays", (ExcludedDates(frozenset({day("2026-01-03")})),))
    recurrence = Recurrence((Cron("0 9 * * *"),), (dates, named), time_zone="Europe/Paris")
    shown = preview(recurrence, at("2026-01-01"), at("2026-01-05"), 10)
    assert [(firing.local.isoformat(), firing.excluded_by) for firing in shown] == [
        ("2026-01-01T09:00:00+01:00", None),
        ("2026-01-02T09:00:00+01:00", dates),
        ("2026-01-03T09:00:00+01:00", named),
        ("2026-01-04T09:00:00+01:00", None),
    ]


# Checks.

SOUND = Calendar(DAILY, NOON)


@pytest.mark.parametrize(
    ("calendar", "found"),
    [
        (Calendar(DAILY, ()), {"times": "0 times of day, expected 1–48"}),
        (Calendar(DAILY, (time(9, tzinfo=UTC),)), {"times[0]": "expected a local time without a zone"}),
        (Calendar(DAILY, (time(9, 0, 0, 5),)), {"times[0]": "09:00:00.000005 is not in whole seconds"}),
        (Calendar(DAILY, NOON, 2), {"from_date": "expected a date to count every 2 from"}),
        (Calendar(DAILY, NOON, 0), {"every": "0 is not in 1–3660 for DAILY"}),
        (Calendar(DAILY, NOON, count=3), {"from_date": "expected a date to count from"}),
        (Calendar(DAILY, NOON, from_date=day("2026-01-01"), count=0), {"count": "0 is not in 1–10000"}),
        (Calendar(DAILY, NOON, weekdays=on(MON)), {"days_of_week": "has no meaning for DAILY"}),
        (Calendar(WEEKLY, NOON), {"days_of_week": "WEEKLY needs days_of_week"}),
        (Calendar(MONTHLY, NOON), {"month_days": "MONTHLY needs month_days or nth_weekdays"}),
        (Calendar(MONTHLY, NOON, month_days=days(0)), {"month_days": "0 is not in 1–31 or -31–-1"}),
        (Calendar(MONTHLY, NOON, nth_weekdays=nth((MON, 6))), {"nth_weekdays": "6 is not in 1–5 or -1"}),
        (Calendar(YEARLY, NOON, month_days=days(1)), {"months": "YEARLY needs months"}),
        (Calendar(YEARLY, NOON, months=days(13), month_days=days(1)), {"months": "13 is not in 1–12"}),
        (
            Calendar(DAILY, NOON, from_date=day("2026-01-02"), until_date=day("2026-01-01")),
            {"until_date": "2026-01-01 is before from_date, 2026-01-02"},
        ),
        (Calendar(DAILY, NOON, until_date=day("2025-01-01")), {"": "it never fires"}),
        (Calendar(YEARLY, NOON, months=days(2), month_days=days(30)), {"": "it never fires"}),
        (
            Calendar(YEARLY, NOON, 4, months=days(2), month_days=days(29), from_date=day("2027-01-01")),
            {"": "it never fires"},
        ),
    ],
)
def test_a_wrong_calendar_is_told_by_field(calendar: Calendar, found: dict[str, str]) -> None:
    violations = check_recurrence(Recurrence((calendar,)), at("2026-01-01"))
    path = "schedule.specs[0].calendar"
    assert {violation.field: violation.description for violation in violations} == {
        f"{path}.{name}" if name else path: text for name, text in found.items()
    }


@pytest.mark.parametrize(
    ("exclusion", "found"),
    [
        (ExcludedDates(frozenset()), {".dates.dates": "0 dates, expected 1–500"}),
        (
            ExcludedPeriod(at("2026-01-02"), at("2026-01-01")),
            {".period.end_time": "expected a time after start, 2026-01-02T00:00:00+00:00"},
        ),
        (
            ExcludedPeriod(at("2026-01-01"), at("2026-01-02").replace(tzinfo=None)),
            {".period.end_time": "expected both bounds with an offset from UTC, or both local"},
        ),
        (ExcludedWindow(time(9, tzinfo=UTC), time(10)), {".window.start": "expected a local time without a zone"}),
        (ExcludedCron("0 25 * * *"), {".cron.expression": "hour: 25 is not in 0–23 (at character 3)"}),
        (
            NamedCalendar("x", (ExcludedDates(frozenset()),), "Europe/Pris"),
            {
                ".time_zone": "'Europe/Pris' is not a known time zone; did you mean Europe/Paris?",
                ".exclusions[0].dates.dates": "0 dates, expected 1–500",
            },
        ),
        (ExcludedWindow(time(0), time(0)), {"s": "they leave no firing"}),
        (ExcludedWindow(time(11), time(13)), {"s": "they leave no firing"}),
        (ExcludedCron("* * * * *"), {"s": "they leave no firing"}),
    ],
)
def test_a_wrong_exclusion_is_told_by_field(exclusion: Exclusion, found: dict[str, str]) -> None:
    violations = check_recurrence(Recurrence((SOUND,), (exclusion,)), at("2026-01-01"))
    assert {violation.field: violation.description for violation in violations} == {
        f"schedule.exclusions{name.removeprefix('s')}" if name == "s" else f"schedule.exclusions[0]{name}": text
        for name, text in found.items()
    }


def test_a_union_is_refused_when_it_fires_too_often_or_a_part_never_does() -> None:
    now = at("2026-01-01")
    often = Recurrence((Cron("* * * * * *"), Interval(timedelta(seconds=30))))
    assert [violation.description for violation in check_recurrence(often, now)] == [
        "up to 62 firings a minute, at most 60 are accepted"
    ]
    part = Recurrence((SOUND, Cron("0 0 31 2 *")))
    assert [violation.field for violation in check_recurrence(part, now)] == ["schedule.specs[1].cron.expression"]
    assert [violation.field for violation in check_recurrence(Recurrence(()), now)] == ["schedule.specs"]
    seconds = Recurrence(tuple(Cron(f"{second} * * * * *") for second in range(20)))
    assert check_recurrence(seconds, now) == []


# Descriptions.


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (Cron("0 9 * * MON-FRI"), "at 09:00, Monday through Friday, Europe/Paris time"),
        (Cron("30 8,17 * * *"), "at 08:30 and 17:30, every day, Europe/Paris time"),
        (Cron("*/5 * * * *"), "every 5 minutes, Europe/Paris time"),
        (Cron("* * * * * *"), "every second, Europe/Paris time"),
        (Cron("@hourly"), "every hour, on the hour, Europe/Paris time"),
        (Cron("15 */2 * * *"), "at minute 15, every 2 hours, Europe/Paris time"),
        (Cron("0 0 L * ?"), "at 00:00, on the last day of the month, Europe/Paris time"),
        (Cron("0 0 LW 6 *"), "at 00:00, on the last weekday of the month, in June, Europe/Paris time"),
        (
            Cron("0 0 13 * FRI"),
            "at 00:00, on day 13 of the month or on Friday, Europe/Paris time",
        ),
        (Cron("0 0 * * FRI#2"), "at 00:00, on the second Friday of the month, Europe/Paris time"),
        (Interval(timedelta(minutes=90)), "every 1 h 30 min"),
        (Interval(timedelta(days=1)), "every day"),
        (Once(at("2026-01-01 13:00")), "once at 2026-01-01 14:00 Europe/Paris"),
        (
            Calendar(WEEKLY, (time(9), time(17, 30)), weekdays=on(MON, THU)),
            "weekly on Monday and Thursday at 09:00 and 17:30, Europe/Paris time",
        ),
        (
            Calendar(MONTHLY, NOON, 3, month_days=days(1, -1), from_date=day("2026-01-01"), count=9),
            "every 3 months on day 1 and the last day at 12:00, 9 times from 2026-01-01, Europe/Paris time",
        ),
        (
            Calendar(YEARLY, NOON, months=days(5), nth_weekdays=nth((SUN, 2)), until_date=day("2030-01-01")),
            "yearly on the second Sunday of May at 12:00, until 2030-01-01, Europe/Paris time",
        ),
    ],
)
def test_a_specification_is_told_in_plain_english(spec: Spec, text: str) -> None:
    assert describe(Recurrence((spec,), time_zone="Europe/Paris")) == text


def test_unions_and_exclusions_are_told_too() -> None:
    recurrence = Recurrence(
        (Cron("0 9 * * *"), Interval(timedelta(hours=1))),
        (ExcludedDates(frozenset({day("2026-01-01")})), NamedCalendar("holidays", ())),
        end=at("2027-01-01"),
        jitter=timedelta(minutes=5),
    )
    assert describe(recurrence) == (
        "at 09:00, every day and also every hour, UTC, except 2026-01-01 and the calendar holidays, "
        "before 2027-01-01 00:00 UTC, each delayed by up to 5 minutes"
    )


# What holds for all.

times = st.lists(st.times().map(lambda clock: clock.replace(microsecond=0)), min_size=1, max_size=3).map(tuple)
dates = st.dates(date(2000, 1, 1), date(2040, 1, 1))
weekday_sets = st.frozensets(st.sampled_from(Weekday), min_size=1)
day_sets = st.frozensets(st.integers(1, 31) | st.integers(-31, -1), min_size=1, max_size=3)
calendars = st.one_of(
    st.builds(Calendar, st.just(DAILY), times, st.integers(1, 40), from_date=dates),
    st.builds(Calendar, st.just(WEEKLY), times, st.integers(1, 5), weekday_sets, from_date=dates),
    st.builds(Calendar, st.just(MONTHLY), times, st.integers(1, 5), month_days=day_sets, from_date=dates),
    st.builds(
        Calendar,
        st.just(YEARLY),
        times,
        months=st.frozensets(st.integers(1, 12), min_size=1, max_size=3),
        month_days=day_sets,
        until_date=dates,
    ),
)
exclusions = st.lists(
    st.one_of(
        st.builds(ExcludedDates, st.frozensets(st.dates(date(2026, 1, 1), date(2026, 3, 1)), min_size=1)),
        st.builds(ExcludedWindow, st.times(), st.times(), st.frozensets(st.sampled_from(Weekday))),
        st.sampled_from([ExcludedCron("* 8-17 * * MON-FRI"), ExcludedCron("*/2 * * * *"), ExcludedCron("* * L * *")]),
    ),
    max_size=3,
).map(tuple)
specs = st.one_of(calendars, st.sampled_from([Cron("*/20 * * * *"), Cron("30 2 * * *"), Interval(timedelta(hours=7))]))
recurrences = st.builds(
    Recurrence,
    st.lists(specs, min_size=1, max_size=3).map(tuple),
    exclusions,
    st.sampled_from(["UTC", "Europe/Paris", "Australia/Lord_Howe", "America/St_Johns"]),
)
moments = st.datetimes(datetime(2025, 12, 1), datetime(2026, 12, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001


@given(recurrences, moments)
def test_what_fires_is_what_preview_shows_without_the_excluded(recurrence: Recurrence, moment: datetime) -> None:
    until = moment + timedelta(days=20)
    shown = preview(recurrence, moment, until, 10_000)
    assert fires_between(recurrence, moment, until, 10_000) == [
        firing.nominal for firing in shown if firing.excluded_by is None
    ]


@given(recurrences, moments)
def test_next_and_previous_undo_each_other(recurrence: Recurrence, moment: datetime) -> None:
    following = next_fire(recurrence, moment)
    if following is not None:
        assert following > moment
        back = previous_fire(recurrence, following)
        assert back is None or back <= moment


@given(calendars, moments)
def test_each_firing_of_a_calendar_is_on_one_of_its_times(calendar: Calendar, moment: datetime) -> None:
    for nominal in fires_between(Recurrence((calendar,)), moment, moment + timedelta(days=400), 20):
        assert nominal.time() in calendar.times
        if calendar.weekdays:
            assert Weekday(nominal.isoweekday()) in calendar.weekdays
        if calendar.months:
            assert nominal.month in calendar.months
