"""Next firings by cron expression, from tables.

Sources: crontab(5) of Vixie cron and cronie (fields, steps, names, the either-day rule and its examples); the Quartz
cron trigger tutorial (`?`, `L`, `L-n`, `LW`, `nW`, `#` and its examples, weekdays renumbered from Sunday = 0); the
Gregorian calendar (2026-01-01 is a Thursday, 2028 and 2032 are leap years, 2100 is not).
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from scheduling.domain.recurrence import check_timing, fires_between, next_fire, previous_fire
from scheduling.domain.timing import Cron, Timing

FOREVER = datetime(9990, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


FIRINGS = [
    # crontab(5): the examples of its last section, and each form of a field.
    ("5 0 * * *", "2026-11-22 00:05", ["2026-11-23 00:05", "2026-11-24 00:05"]),
    ("15 14 1 * *", "2026-11-22 00:00", ["2026-12-01 14:15", "2027-01-01 14:15"]),
    ("0 22 * * 1-5", "2026-11-20 22:00", ["2026-11-23 22:00", "2026-11-24 22:00"]),
    ("23 0-23/2 * * *", "2026-11-22 21:00", ["2026-11-22 22:23", "2026-11-23 00:23"]),
    ("5 4 * * sun", "2026-11-22 04:05", ["2026-11-29 04:05", "2026-12-06 04:05"]),
    ("0 */4 1 * mon", "2026-11-30 18:00", ["2026-11-30 20:00", "2026-12-01 00:00", "2026-12-01 04:00"]),
    ("0 0 */2 * sun", "2026-11-01 00:00", ["2026-11-15 00:00", "2026-11-29 00:00"]),
    ("* * * * *", "2026-12-31 23:59", ["2027-01-01 00:00", "2027-01-01 00:01"]),
    ("*/7 * * * *", "2026-11-22 10:56", ["2026-11-22 11:00", "2026-11-22 11:07"]),
    ("10,40 9-10 * * *", "2026-11-22 09:40", ["2026-11-22 10:10", "2026-11-22 10:40", "2026-11-23 09:10"]),
    # crontab(5): either day field matches when both are restricted; its own example is `30 4 1,15 * 5`.
    ("30 4 1,15 * 5", "2026-11-27 04:30", ["2026-12-01 04:30", "2026-12-04 04:30", "2026-12-11 04:30"]),
    ("0 0 13 * FRI", "2026-11-12 00:00", ["2026-11-13 00:00", "2026-11-20 00:00"]),
    ("0 0 13 * *", "2026-11-13 00:00", ["2026-12-13 00:00"]),
    ("0 0 * * FRI", "2026-11-13 00:00", ["2026-11-20 00:00"]),
    ("0 0 ? * FRI", "2026-11-13 00:00", ["2026-11-20 00:00"]),
    # The names of crontab(5).
    ("@hourly", "2026-11-22 10:00", ["2026-11-22 11:00"]),
    ("@daily", "2026-11-22 10:00", ["2026-11-23 00:00"]),
    ("@weekly", "2026-11-22 00:00", ["2026-11-29 00:00"]),
    ("@monthly", "2026-11-22 10:00", ["2026-12-01 00:00"]),
    ("@yearly", "2026-11-22 10:00", ["2027-01-01 00:00"]),
    # Six fields.
    ("*/10 * * * * *", "2026-11-22 10:00:50", ["2026-11-22 10:01:00", "2026-11-22 10:01:10"]),
    ("30 59 23 31 12 *", "2026-12-31 23:59:30", ["2027-12-31 23:59:30"]),
    # The Quartz tutorial: `0 15 10 L * ?`, `L-2`, `6L` (Friday there), `6#3`, and LW and 15W of its text.
    ("0 15 10 L * ?", "2026-11-22", ["2026-11-30 10:15", "2026-12-31 10:15", "2027-01-31 10:15", "2027-02-28 10:15"]),
    ("0 15 10 L-2 * ?", "2026-11-22", ["2026-11-28 10:15", "2026-12-29 10:15", "2027-01-29 10:15", "2027-02-26 10:15"]),
    ("0 15 10 ? * 5L", "2026-11-22", ["2026-11-27 10:15", "2026-12-25 10:15", "2027-01-29 10:15"]),
    ("0 15 10 ? * FRI#3", "2026-11-22", ["2026-12-18 10:15", "2027-01-15 10:15"]),
    ("0 0 LW * *", "2026-01-01", ["2026-01-30", "2026-02-27", "2026-03-31", "2026-04-30", "2026-05-29"]),
    ("0 0 15W * *", "2026-01-01", ["2026-01-15", "2026-02-16", "2026-03-16", "2026-04-15", "2026-05-15", "2026-06-15"]),
    ("0 0 15W * *", "2026-08-01", ["2026-08-14", "2026-09-15"]),
    ("0 0 1W * *", "2026-07-15", ["2026-08-03", "2026-09-01"]),
    ("0 0 31W * *", "2026-01-15", ["2026-01-30", "2026-03-31", "2026-05-29"]),
    ("0 0 30W * *", "2026-02-01", ["2026-03-30", "2026-04-30"]),
    ("0 0 L-3W * *", "2026-01-01", ["2026-01-28", "2026-02-25", "2026-03-27"]),
    ("0 0 L-30 * *", "2026-01-15", ["2026-03-01", "2026-05-01"]),
    ("0 0 1,L * *", "2026-01-15", ["2026-01-31", "2026-02-01", "2026-02-28"]),
    ("0 0 * * MON#1,MON#3", "2026-01-15", ["2026-01-19", "2026-02-02", "2026-02-16"]),
    ("0 0 * * SUN#5", "2026-01-01", ["2026-03-29", "2026-05-31"]),
    ("0 0 1 * FRIL", "2026-01-15", ["2026-01-30", "2026-02-01", "2026-02-27"]),
    # Far away, by the Gregorian calendar.
    ("0 0 29 2 *", "2026-01-01", ["2028-02-29", "2032-02-29"]),
    ("0 0 29 2 *", "2097-01-01", ["2104-02-29"]),
    ("0 0 ? 2 MON#5", "2026-01-01", ["2044-02-29", "2072-02-29"]),
    ("0 0 ? 2 SUN#5", "2060-03-01", ["2088-02-29", "2128-02-29"]),
    ("0 0 ? 2 MON#5", "2072-03-01", ["2112-02-29"]),
    ("0 0 31 2,4,6 MON#5", "2026-06-01", ["2026-06-29"]),
]


@pytest.mark.parametrize(("expression", "after", "expected"), FIRINGS)
def test_cron_fires_when_the_table_says(expression: str, after: str, expected: list[str]) -> None:
    times = [at(text) for text in expected]
    timing = Timing(Cron(expression))
    assert fires_between(timing, at(after), FOREVER, len(times)) == times
    for earlier, later in pairwise(times):
        assert previous_fire(timing, later) == earlier


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("0 0 31 2 *", "it never fires: month 2 never has a day 31"),
        ("0 0 30,31 FEB ?", "it never fires: month FEB never has a day 30,31"),
        ("0 0 31 2,4,6,9,11 *", "it never fires: month 2,4,6,9,11 never has a day 31"),
        ("0 0 L-30 2,4 *", "it never fires: month 2,4 never has a day L-30"),
        ("0 0 31W 4 *", "it never fires: month 4 never has a day 31W"),
        # A field that begins with a star is not restricted, so both must hold: day 30 of every 29 days from the first.
        ("0 0 */29 2 MON#2", "it never fires: month 2 never has a day with day-of-month */29 and day-of-week MON#2"),
    ],
)
def test_days_that_never_come_are_refused(expression: str, text: str) -> None:
    (violation,) = check_timing(Timing(Cron(expression)), at("2026-01-01"))
    assert (violation.field, violation.description, violation.reason) == (
        "schedule.cron.expression",
        text,
        "NEVER_FIRES",
    )
    assert next_fire(Timing(Cron(expression)), at("2026-01-01")) is None
    assert previous_fire(Timing(Cron(expression)), at("2026-01-01")) is None


def test_a_fraction_of_a_second_lies_between_two_firings() -> None:
    timing = Timing(Cron("* * * * * *"))
    noon = at("2026-11-22 12:00")
    tick = timedelta(microseconds=1)
    assert next_fire(timing, noon - tick) == noon
    assert next_fire(timing, noon) == next_fire(timing, noon + tick) == noon + timedelta(seconds=1)
    assert previous_fire(timing, noon + tick) == noon
    assert previous_fire(timing, noon) == noon - timedelta(seconds=1)
