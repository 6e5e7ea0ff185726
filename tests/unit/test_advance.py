"""Advance: what is planned next, what was missed, what is made up for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.domain.advance import MISSED_AFTER, STEP_LIMIT, Advance, Gap, advance
from scheduling.domain.recurrence import fires_between
from scheduling.domain.timing import CatchupPolicy, Cron, Interval, Timing

T0 = datetime(2031, 7, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR, SECOND = timedelta(minutes=1), timedelta(hours=1), timedelta(seconds=1)
AHEAD = SECOND


def minutely(**more: object) -> Timing:
    return Timing(Interval(MINUTE, anchor=T0), **more)  # type: ignore[arg-type]


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def test_a_plan_that_comes_near_gets_exactly_one_successor() -> None:
    step = advance(minutely(), at(1), at(1) - AHEAD, AHEAD)
    assert step == Advance(at(2), (at(2),), frozenset(), (), more=False)


def test_firings_within_the_look_ahead_are_all_planned_and_one_beyond() -> None:
    timing = Timing(Interval(SECOND / 4, anchor=T0))
    step = advance(timing, T0, T0, AHEAD)
    assert step.plans == tuple(T0 + SECOND / 4 * n for n in range(1, 6))
    assert step.until == step.plans[-1]


def test_a_firing_that_is_late_by_less_than_a_minute_is_planned_like_any_other() -> None:
    step = advance(minutely(), at(1), at(2) + MISSED_AFTER - SECOND * 2, AHEAD)
    assert step.plans == (at(2), at(3))
    assert step.gaps == ()
    assert step.caught_up == frozenset()


@pytest.mark.parametrize(
    ("policy", "made_up", "gap"),
    [
        (CatchupPolicy.SKIP_MISSED, (), Gap(at(1), at(59), 59)),
        (CatchupPolicy.FIRE_ONCE_LATEST, (at(59),), Gap(at(1), at(58), 58)),
        (CatchupPolicy.FIRE_ALL, tuple(at(n) for n in range(50, 60)), Gap(at(1), at(49), 49)),
    ],
)
def test_an_hour_missed_is_made_up_for_by_the_policy_within_the_window(
    policy: CatchupPolicy, made_up: tuple[datetime, ...], gap: Gap
) -> None:
    timing = minutely(catchup_policy=policy, catchup_window=timedelta(minutes=10, seconds=1))
    step = advance(timing, T0, at(60) + SECOND, AHEAD)
    assert step == Advance(at(59), made_up, frozenset(made_up), (gap,), more=True)
    # What follows is as if nothing had happened.
    follow = advance(timing, at(59), at(60) + SECOND, AHEAD)
    assert follow == Advance(at(61), (at(60), at(61)), frozenset(), (), more=False)


def test_the_window_is_one_period_unless_given() -> None:
    # The latest missed firing is older than a period plus the minute of grace only when a period is missing.
    timing = Timing(Interval(HOUR, anchor=T0))
    recent = advance(timing, T0, at(60 + 59), AHEAD)
    assert recent.plans == (at(60),)
    old = advance(timing, T0, at(120) + SECOND, AHEAD)
    # 13:00 is missed and older than one period; 14:00 is not missed yet.
    assert old.plans == ()
    assert old.gaps == (Gap(at(60), at(60), 1),)


def test_the_window_of_a_rare_schedule_is_a_day() -> None:
    timing = Timing(Cron("0 12 1 * *"))
    within = advance(timing, T0 - timedelta(days=5), T0 + timedelta(hours=23), AHEAD)
    assert within.plans == (T0,)
    beyond = advance(timing, T0 - timedelta(days=5), T0 + timedelta(hours=25), AHEAD)
    assert beyond.plans == ()
    assert beyond.gaps == (Gap(T0, T0, 1),)


def test_a_schedule_without_a_firing_ahead_is_finished() -> None:
    step = advance(minutely(end=at(2)), at(1), at(1), AHEAD)
    assert step == Advance(None, (), frozenset(), (), more=False)


def test_the_last_firing_before_the_end_is_still_planned() -> None:
    step = advance(minutely(end=at(2) + SECOND), at(1), at(1), AHEAD)
    assert step.plans == (at(2),)
    assert step.until == at(2)


def test_missed_firings_before_the_end_are_accounted_for_and_then_it_is_finished() -> None:
    timing = minutely(end=at(10), catchup_policy=CatchupPolicy.SKIP_MISSED)
    step = advance(timing, T0, at(60), AHEAD)
    assert step == Advance(at(9), (), frozenset(), (Gap(at(1), at(9), 9),), more=True)
    assert advance(timing, at(9), at(60), AHEAD).until is None


@pytest.mark.parametrize("policy", list(CatchupPolicy))
def test_a_long_outage_is_worked_off_in_bounded_pieces(policy: CatchupPolicy) -> None:
    timing = minutely(catchup_policy=policy, catchup_window=timedelta(days=30))
    now = T0 + MINUTE * 2500 + SECOND
    until: datetime | None = T0
    plans: list[datetime] = []
    gaps: list[Gap] = []
    steps = 0
    while True:
        assert until is not None
        step = advance(timing, until, now, AHEAD)
        assert len(step.plans) <= STEP_LIMIT + 1
        steps += 1
        plans += step.plans
        gaps += step.gaps
        until = step.until
        if not step.more:
            break
    assert steps > 2
    expected = fires_between(timing, T0, now + MINUTE, 10_000)
    assert len(plans) + sum(gap.firings for gap in gaps) == len(expected)
    assert len(set(plans)) == len(plans)
    match policy:
        case CatchupPolicy.SKIP_MISSED:
            assert plans[0] >= now - MISSED_AFTER
        case CatchupPolicy.FIRE_ONCE_LATEST:
            # One for all the pieces, not one for each.
            assert [each for each in plans if each < now - MISSED_AFTER] == [at(2499)]
        case CatchupPolicy.FIRE_ALL:
            assert plans == expected


def test_a_backlog_of_near_firings_is_worked_off_in_bounded_pieces_too() -> None:
    timing = Timing(Interval(timedelta(milliseconds=10), anchor=T0))
    step = advance(timing, T0, T0 + SECOND * 30, AHEAD)
    assert len(step.plans) == STEP_LIMIT
    assert step.more
    assert step.until == step.plans[-1]


@settings(deadline=None)
@given(
    period=st.integers(20, 7200),
    waits=st.lists(st.integers(0, 50_000), min_size=1, max_size=6),
    policy=st.sampled_from(list(CatchupPolicy)),
    window=st.one_of(st.none(), st.integers(0, 200_000)),
)
def test_every_nominal_time_is_accounted_for_exactly_once(
    period: int, waits: list[int], policy: CatchupPolicy, window: int | None
) -> None:
    timing = Timing(
        Interval(timedelta(seconds=period), anchor=T0),
        catchup_policy=policy,
        catchup_window=None if window is None else timedelta(seconds=window),
    )
    until, now = T0, T0
    seen: list[datetime] = []
    for wait in waits:
        now += timedelta(seconds=wait)
        # The store takes a step when the last plan has come near.
        more = until <= now + AHEAD
        while more:
            step = advance(timing, until, now, AHEAD)
            assert step.until is not None
            covered = set(step.plans)
            for gap in step.gaps:
                inside = fires_between(timing, gap.start - timedelta(microseconds=1), gap.end, 2000)
                left_out = [each for each in inside if each not in step.caught_up]
                assert len(left_out) == gap.firings
                covered |= set(left_out)
            assert step.caught_up <= set(step.plans)
            seen += sorted(covered)
            until, more = step.until, step.more
    assert seen == fires_between(timing, T0, until, 100_000)
    # Exactly one lies beyond the look-ahead, and it is not stale.
    assert sum(each > now + AHEAD for each in seen) == 1
