"""The engine's functions for a timing: bounds, intervals, one-offs, jitter, periods, checks, and what holds for all."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.recurrence import (
    check_timing,
    describe,
    fires_between,
    jittered,
    next_fire,
    period_hint,
    previous_fire,
    recurrence_of,
)
from scheduling.domain.recurrence.engine import micros
from scheduling.domain.timing import Cron, DstPolicy, Interval, Once, Timing

NOW = datetime(2026, 11, 22, 10, 7, 3, 250_000, tzinfo=UTC)
TICK = timedelta(microseconds=1)
UID = UUID("01937f00-0000-7000-8000-000000000001")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# One-offs and intervals.


def test_a_one_off_fires_once() -> None:
    once = Timing(Once(NOW))
    assert next_fire(once, NOW - TICK) == NOW
    assert next_fire(once, NOW) is None
    assert previous_fire(once, NOW + TICK) == NOW
    assert previous_fire(once, NOW) is None
    assert fires_between(once, NOW - TICK, NOW, 5) == [NOW]


@pytest.mark.parametrize(
    ("interval", "after", "expected"),
    [
        (Interval(timedelta(minutes=30)), "2026-11-22 10:00", ["2026-11-22 10:30", "2026-11-22 11:00"]),
        (Interval(timedelta(minutes=30), timedelta(minutes=5)), "2026-11-22 10:05", ["2026-11-22 10:35"]),
        (Interval(timedelta(days=7)), "2026-11-22", ["2026-11-26", "2026-12-03"]),
        (Interval(timedelta(hours=5), anchor=at("2026-11-22 01:00")), "2026-11-22", ["2026-11-22 01:00"]),
        (Interval(timedelta(hours=5), anchor=at("2026-11-25 01:00")), "2026-11-22", ["2026-11-22 03:00"]),
        (Interval(timedelta(seconds=1.5)), "2026-11-22 00:00:01", ["2026-11-22 00:00:01.5", "2026-11-22 00:00:03"]),
    ],
)
def test_an_interval_fires_at_anchor_plus_phase_plus_whole_steps(
    interval: Interval, after: str, expected: list[str]
) -> None:
    times = [at(text) for text in expected]
    assert fires_between(Timing(interval), at(after), at("2040-01-01"), len(times)) == times


def test_an_interval_is_not_moved_by_clocks() -> None:
    timing = Timing(Interval(timedelta(hours=24)), "Europe/Paris")
    found = fires_between(timing, at("2026-03-27"), at("2026-03-31"), 10)
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=24)}


# Bounds.


def test_start_is_inclusive_and_end_exclusive() -> None:
    timing = Timing(Cron("@daily"), start=at("2026-11-22"), end=at("2026-11-24"))
    assert fires_between(timing, at("2020-01-01"), at("2030-01-01"), 10) == [at("2026-11-22"), at("2026-11-23")]
    assert previous_fire(timing, at("2030-01-01")) == at("2026-11-23")
    assert previous_fire(timing, at("2026-11-22")) is None
    assert next_fire(timing, at("2026-11-23")) is None


def test_fires_between_leaves_out_its_beginning_and_takes_its_end() -> None:
    timing = Timing(Cron("@hourly"))
    assert fires_between(timing, at("2026-11-22 10:00"), at("2026-11-22 12:00"), 9) == [
        at("2026-11-22 11:00"),
        at("2026-11-22 12:00"),
    ]
    assert fires_between(timing, at("2026-11-22 10:00"), at("2026-11-22 12:00"), 0) == []
    assert fires_between(timing, at("2026-11-22 12:00"), at("2026-11-22 10:00"), 9) == []


def test_instants_may_carry_any_offset_but_must_carry_one() -> None:
    timing = Timing(Cron("@hourly"))
    tokyo = timezone(timedelta(hours=9))
    found = next_fire(timing, at("2026-11-22 10:30").astimezone(tokyo))
    assert found == at("2026-11-22 11:00")
    assert found.tzinfo is UTC
    with pytest.raises(ValueError, match="aware"):
        next_fire(timing, at("2026-11-22").replace(tzinfo=None))


def test_the_ends_of_time_have_no_firing_and_no_error() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for when in (Cron("* * * * * *"), Cron("0 12 * * *"), Interval(timedelta(days=1))):
        for zone in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
            timing = Timing(when, zone)
            assert next_fire(timing, last) is None
            assert previous_fire(timing, first) is None
            assert next_fire(timing, first) is not None
            assert previous_fire(timing, last) is not None
            assert describe(Timing(when, zone, start=first, end=last))


def test_what_cannot_be_read_raises_invalid_request() -> None:
    for timing in (Timing(Cron("nonsense")), Timing(Cron("@daily"), "Mars/Olympus"), Timing(Interval(timedelta(0)))):
        with pytest.raises(InvalidRequest):
            next_fire(timing, NOW)


# Jitter and period.


def test_jitter_is_stable_within_its_span_and_differs_by_schedule_and_time() -> None:
    timing = Timing(Cron("@daily"), jitter=timedelta(minutes=10))
    noon = at("2026-11-22")
    ready = jittered(timing, UID, noon)
    assert ready == jittered(timing, UID, noon)
    delays = [jittered(timing, UUID(int=n), noon) - noon for n in range(400)]
    assert all(timedelta(0) <= delay < timedelta(minutes=10) for delay in delays)
    # Uniform: the mean of 400 lies within 5 standard errors (10 min / √12 / √400) of the middle.
    mean = sum(delays, timedelta(0)) / len(delays)
    assert abs(mean - timedelta(minutes=5)) < 5 * timedelta(minutes=10) / 12**0.5 / 20
    assert len(set(delays)) == 400
    assert jittered(timing, UID, noon + timedelta(days=1)) - timedelta(days=1) != ready


def test_the_share_of_a_jitter_never_changes_between_releases() -> None:
    # Plans in the database were made with it: a change of the hash would move them.
    timing = Timing(Cron("@daily"), jitter=timedelta(hours=1))
    assert jittered(timing, UID, at("2026-11-22")) == at("2026-11-22 00:43:10.092964")


def test_jitter_never_reaches_past_the_next_firing() -> None:
    timing = Timing(Cron("* * * * *"), jitter=timedelta(hours=24))
    for minute in range(200):
        nominal = at("2026-11-22") + timedelta(minutes=minute)
        assert nominal <= jittered(timing, UID, nominal) < nominal + timedelta(minutes=1)
    assert jittered(Timing(Cron("@daily")), UID, at("2026-11-22")) == at("2026-11-22")


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (Timing(Cron("*/5 * * * *")), timedelta(minutes=5)),
        (Timing(Cron("@daily"), "Europe/Paris"), timedelta(hours=24)),
        (Timing(Cron("0 9 * * MON-FRI")), timedelta(days=3)),
        (Timing(Interval(timedelta(minutes=90))), timedelta(minutes=90)),
        (Timing(Once(NOW)), timedelta(hours=24)),
        (Timing(Cron("@hourly"), start=NOW + timedelta(days=1), end=NOW + timedelta(days=2)), timedelta(hours=1)),
    ],
)
def test_the_period_is_the_distance_of_the_firings_around(timing: Timing, expected: timedelta) -> None:
    assert period_hint(timing, NOW) == expected


# Checks.


def paths(timing: Timing) -> list[tuple[str, str]]:
    return [(violation.field, violation.description) for violation in check_timing(timing, NOW)]


@pytest.mark.parametrize(
    "timing",
    [
        Timing(Cron("*/5 * * * *")),
        Timing(Cron("* * * * * *")),
        Timing(Cron("0 9 * * *"), "Europe/Paris", start=NOW, end=NOW + timedelta(days=2), jitter=timedelta(hours=1)),
        Timing(Interval(timedelta(seconds=1))),
        Timing(Interval(timedelta(hours=1), timedelta(minutes=59))),
        Timing(Once(NOW - timedelta(seconds=60))),
        Timing(Once(NOW, after=timedelta(0))),
        Timing(Once(NOW + timedelta(days=3653))),
    ],
)
def test_a_sound_timing_has_no_violation(timing: Timing) -> None:
    assert check_timing(timing, NOW) == []


@pytest.mark.parametrize(
    ("timing", "field", "text"),
    [
        (Timing(Cron("0 25 * * *")), "cron.expression", "hour: 25 is not in 0–23 (at character 3)"),
        (
            Timing(Cron("@daily"), "Europe/Pris"),
            "time_zone",
            "'Europe/Pris' is not a known time zone; did you mean Europe/Paris?",
        ),
        (
            Timing(Once(NOW), "Nowhere/At_All"),
            "time_zone",
            "'Nowhere/At_All' is not a known time zone, expected an IANA name such as Europe/Paris",
        ),
        (
            Timing(Cron("@daily"), start=NOW, end=NOW),
            "end_time",
            "expected an instant after start_time, 2026-11-22T10:07:03.250000+00:00",
        ),
        (
            Timing(Cron("@daily"), end=at("2026-11-23")),
            "cron.expression",
            "it never fires before 2026-11-23T00:00:00+00:00",
        ),
        (
            Timing(Interval(timedelta(days=30)), start=at("2026-12-01"), end=at("2026-12-02")),
            "interval",
            "it never fires from 2026-12-01T00:00:00+00:00 before 2026-12-02T00:00:00+00:00",
        ),
        (
            Timing(Interval(timedelta(seconds=0.5))),
            "interval.every",
            "0.5 s is more than 60 firings a minute, expected at least 1 s",
        ),
        (Timing(Interval(timedelta(0))), "interval.every", "0 s is not in 1 s–316224000 s"),
        (Timing(Interval(timedelta(days=4000))), "interval.every", "345600000 s is not in 1 s–316224000 s"),
        (
            Timing(Interval(timedelta(hours=1), timedelta(hours=1))),
            "interval.phase",
            "3600 s is not less than every, 3600 s",
        ),
        (Timing(Interval(timedelta(hours=1), timedelta(seconds=-1))), "interval.phase", "-1 s is negative"),
        (
            Timing(Once(NOW - timedelta(seconds=61))),
            "at_time",
            "2026-11-22T10:06:02.250000+00:00 lies 61 s in the past, at most 60 s is accepted",
        ),
        (
            Timing(Once(NOW + timedelta(days=3654))),
            "at_time",
            "2036-11-23T10:07:03.250000+00:00 is more than ten years ahead",
        ),
        (Timing(Once(NOW, after=timedelta(seconds=-1))), "after", "-1 s is not in 0 s–315619200 s"),
        (
            Timing(Once(NOW), end=NOW),
            "at_time",
            "it never fires before 2026-11-22T10:07:03.250000+00:00",
        ),
        (Timing(Cron("@daily"), jitter=timedelta(hours=25)), "jitter", "90000 s is not in 0 s–86400 s"),
        (
            Timing(Cron("@daily"), catchup_window=timedelta(days=31)),
            "catchup_window",
            "2678400 s is not in 0 s–2592000 s",
        ),
        (Timing(Cron("@daily"), max_firings=0), "max_firings", "0 is not at least 1"),
        (
            Timing(Cron("30 2 ? 3 SUNL"), "Europe/Paris", dst_policy=DstPolicy.SKIP_GAP),
            "cron.expression",
            "it never fires",
        ),
    ],
)  # fmt: skip
def test_a_violation_names_the_path_and_what_was_expected(timing: Timing, field: str, text: str) -> None:
    assert paths(timing) == [(f"schedule.{field}", text)]


def test_all_violations_are_told_together_under_the_given_path() -> None:
    timing = Timing(Cron("61 24 * * *"), "Europe/Pris", jitter=timedelta(days=2), max_firings=-1)
    found = check_timing(timing, NOW, field="job.schedules[1]")
    assert [violation.field for violation in found] == [
        "job.schedules[1].time_zone",
        "job.schedules[1].jitter",
        "job.schedules[1].cron.expression",
        "job.schedules[1].cron.expression",
        "job.schedules[1].max_firings",
    ]


# What holds for all.

ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Pacific/Apia",
         "America/Sao_Paulo", "Africa/Casablanca", "Asia/Kathmandu", "America/St_Johns"]  # fmt: skip

moments = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001


def one_field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high).map(str)
    step = st.integers(1, high).map("*/{}".format)
    span = st.tuples(value, value).map("-".join)
    return st.lists(st.one_of(value, value, span, step), min_size=1, max_size=3).map(",".join) | st.just("*")


crons = st.tuples(
    one_field(0, 59),
    one_field(0, 23),
    one_field(1, 28) | st.sampled_from(["L", "LW", "15W", "L-3", "1,L", "*"]),
    one_field(1, 12) | st.just("*"),
    one_field(0, 6) | st.sampled_from(["FRIL", "MON#1", "SUN#5", "*", "?"]),
).map(" ".join)
whens = st.one_of(
    crons.map(Cron),
    crons.map(Cron),
    st.builds(Interval, st.timedeltas(timedelta(seconds=1), timedelta(days=400))),
    st.builds(Once, moments),
)
timings = st.builds(
    Timing, whens, time_zone=st.sampled_from(ZONES), dst_policy=st.sampled_from(DstPolicy),
    jitter=st.timedeltas(timedelta(0), timedelta(hours=24)),
)  # fmt: skip


@given(timings, moments)
def test_next_is_later_previous_is_earlier_and_they_undo_each_other(timing: Timing, moment: datetime) -> None:
    following = next_fire(timing, moment)
    if following is not None:
        assert following > moment
        back = previous_fire(timing, following)
        assert back is None or back <= moment
        assert next_fire(timing, following - TICK) == following
        assert previous_fire(timing, following + TICK) == following
    earlier = previous_fire(timing, moment)
    if earlier is not None:
        assert earlier < moment
        assert next_fire(timing, earlier) in {following, moment}


@given(timings, moments, st.integers(0, 12))
def test_fires_between_is_next_fire_repeated(timing: Timing, moment: datetime, limit: int) -> None:
    until = moment + timedelta(days=40)
    repeated: list[datetime] = []
    following = next_fire(timing, moment)
    while following is not None and following <= until and len(repeated) < limit:
        repeated.append(following)
        following = next_fire(timing, following)
    assert fires_between(timing, moment, until, limit) == repeated
    assert fires_between(recurrence_of(timing), moment, until, limit) == repeated


@given(timings, moments, st.uuids())
def test_jittered_firings_keep_their_order_and_their_span(timing: Timing, moment: datetime, uid: UUID) -> None:
    nominal = next_fire(timing, moment)
    if nominal is None:
        return
    ready = jittered(timing, uid, nominal)
    assert nominal <= ready <= nominal + timing.jitter
    following = next_fire(timing, nominal)
    if following is not None:
        assert ready <= following


@given(timings, moments, moments)
def test_bounds_only_take_away(timing: Timing, one: datetime, other: datetime) -> None:
    start, end = sorted((one, other))
    if start == end:
        return
    bounded = Timing(timing.when, timing.time_zone, start, end, dst_policy=timing.dst_policy)
    first = next_fire(bounded, start - timedelta(days=1))
    free = next_fire(timing, start - TICK)
    assert first == (free if free is not None and free < end else None)


@given(timings, moments)
def test_a_timing_that_is_accepted_fires_and_can_be_described(timing: Timing, moment: datetime) -> None:
    if check_timing(timing, moment) == []:
        assert next_fire(timing, moment - timedelta(seconds=61)) is not None
        assert len(describe(timing)) > 5
        assert period_hint(timing, moment) > timedelta(0)
    assert micros(moment) % 1 == 0
