"""Outages: what each catch-up policy makes of them, exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduling.domain.job import OverlapPolicy
from scheduling.domain.schedule import Schedule
from scheduling.domain.timing import CatchupPolicy, Cron, Interval, Once, Union
from tests.support.clock import START
from tests.support.run import run
from tests.support.timeline import HOUR, LOOK_AHEAD, MINUTE, SECOND, Timeline, timeline

SKIP, LATEST, ALL = CatchupPolicy.SKIP_MISSED, CatchupPolicy.FIRE_ONCE_LATEST, CatchupPolicy.FIRE_ALL
#: The outage: from 12:30 to 15:30, all schedulers gone.
BEGIN, END = START + 30 * MINUTE, START + 3 * HOUR + 30 * MINUTE


def at(text: str) -> datetime:
    """A time of the day of the outage, UTC."""
    return datetime.fromisoformat(f"{START.date()}T{text}").replace(tzinfo=UTC)


def clock_times(moments: list[datetime]) -> str:
    return " ".join(moment.strftime("%H:%M") for moment in moments)


async def after_the_outage(line: Timeline, schedule: Schedule) -> None:
    """Half an hour of service, three hours of outage, and what follows at once."""
    await line.live_through(BEGIN - START, 15 * MINUTE)
    await line.assert_sound(START)
    line.clock.advance(END - BEGIN)
    await line.tick()
    await line.serve()
    await line.assert_sound(START)


@pytest.mark.parametrize(
    ("policy", "window", "ran", "gap"),
    [
        # Each quarter of an hour: 12:15 and 12:30 ran before; 12:45 to 15:15 were missed; 15:30 is due now.
        (SKIP, None, "12:15 12:30 15:30", ("12:45", "15:15", 11)),
        (SKIP, 2 * HOUR, "12:15 12:30 15:30", ("12:45", "15:15", 11)),
        # The window is one period by default: 15:15 lies on its edge, and within.
        (LATEST, None, "12:15 12:30 15:15 15:30", ("12:45", "15:00", 10)),
        (LATEST, 14 * MINUTE, "12:15 12:30 15:30", ("12:45", "15:15", 11)),
        (LATEST, 24 * HOUR, "12:15 12:30 15:15 15:30", ("12:45", "15:00", 10)),
        (LATEST, timedelta(0), "12:15 12:30 15:30", ("12:45", "15:15", 11)),
        (ALL, None, "12:15 12:30 15:15 15:30", ("12:45", "15:00", 10)),
        (ALL, HOUR, "12:15 12:30 14:30 14:45 15:00 15:15 15:30", ("12:45", "14:15", 7)),
        (ALL, HOUR - SECOND, "12:15 12:30 14:45 15:00 15:15 15:30", ("12:45", "14:30", 8)),
        (
            ALL,
            24 * HOUR,
            "12:15 12:30 12:45 13:00 13:15 13:30 13:45 14:00 14:15 14:30 14:45 15:00 15:15 15:30",
            None,
        ),
        (ALL, timedelta(0), "12:15 12:30 15:30", ("12:45", "15:15", 11)),
    ],
)
def test_three_hours_of_outage_leave_exactly_what_the_policy_names(
    database_url: str,
    policy: CatchupPolicy,
    window: timedelta | None,
    ran: str,
    gap: tuple[str, str, int] | None,
) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(
                Cron("*/15 * * * *"), overlap=OverlapPolicy.ALLOW_ALL, catchup_policy=policy, catchup_window=window
            )
            await after_the_outage(line, schedule)
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == ran
            expected = [] if gap is None else [(at(gap[0]), at(gap[1]), gap[2], "MISSED")]
            assert await line.gaps(schedule) == expected
            stored = await line.read(schedule.uid)
            assert stored.missed_count == (0 if gap is None else gap[2])
            assert stored.fired_count == len(ran.split())
            assert await line.nominals(schedule, "PENDING") == [at("15:45")]

    run(scenario())


def test_what_is_made_up_for_is_due_now_and_not_late_by_the_outage(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), catchup_policy=ALL, catchup_window=5 * HOUR)
            await line.live_through(BEGIN - START, 15 * MINUTE)
            line.clock.advance(END - BEGIN)
            await line.advance()
            made_up = await line.plans(schedule)
            assert clock_times([row["nominal_time"] for row in made_up]) == "13:00 14:00 15:00 16:00"
            assert {row["due_time"] for row in made_up[:-1]} == {END}
            assert {row["expire_time"] for row in made_up[:-1]} == {END + 24 * HOUR}

    run(scenario())


def test_with_the_default_overlap_the_latest_is_what_runs(database_url: str) -> None:
    # Nothing stale is in its way: what was planned before the outage is as missed as the rest.
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"))
            line.clock.advance(3 * HOUR + 30 * MINUTE)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "15:00"
            assert await line.nominals(schedule, "SKIPPED") == []
            assert await line.gaps(schedule) == [(at("13:00"), at("14:00"), 2, "MISSED")]

    run(scenario())


@pytest.mark.parametrize("first", ["advance", "release"])
def test_whoever_looks_first_after_an_outage_what_was_missed_is_not_released(database_url: str, first: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), catchup_policy=SKIP)
            line.clock.advance(3 * HOUR + 30 * MINUTE)
            if first == "release":
                assert await line.release(LOOK_AHEAD) == []
            await line.advance()
            assert await line.release(LOOK_AHEAD) == []
            assert await line.gaps(schedule) == [(at("13:00"), at("15:00"), 3, "MISSED")]
            await line.assert_sound(START)

    run(scenario())


@pytest.mark.parametrize("policy", list(CatchupPolicy))
def test_a_minute_of_outage_misses_nothing(database_url: str, policy: CatchupPolicy) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(
                Interval(10 * SECOND), overlap=OverlapPolicy.ALLOW_ALL, catchup_policy=policy
            )
            line.clock.advance(MINUTE)
            await line.tick()
            await line.serve()
            assert len(await line.nominals(schedule, "SUCCEEDED")) == 6
            assert await line.gaps(schedule) == []

    run(scenario())


def test_what_is_held_is_not_missed(database_url: str) -> None:
    # The first goes on for hours; what waits behind it runs then, however late, and none of it is a gap.
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), overlap=OverlapPolicy.BUFFER_ALL, catchup_policy=SKIP)
            line.clock.advance(HOUR)
            claims = await line.claim(await line.tick())
            for _ in range(6):
                line.clock.advance(30 * MINUTE)
                await line.tick()
            assert (await line.read(schedule.uid)).buffered == 3
            await line.finish(claims)
            for _ in range(3):
                await line.release()
                await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "13:00 14:00 15:00 16:00"
            assert await line.gaps(schedule) == []
            await line.assert_sound(START)

    run(scenario())


def test_what_was_released_before_the_outage_runs_after_it(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), catchup_policy=SKIP)
            line.clock.advance(HOUR)
            await line.tick()
            line.clock.advance(3 * HOUR + 30 * MINUTE)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "13:00"
            assert await line.gaps(schedule) == [(at("14:00"), at("16:00"), 3, "MISSED")]
            await line.assert_sound(START)

    run(scenario())


def test_a_one_off_is_never_missed(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Once(START + HOUR), catchup_policy=SKIP)
            line.clock.advance(3 * HOUR + 30 * MINUTE)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "13:00"

    run(scenario())


def test_an_outage_over_the_end_of_a_schedule_is_accounted_for_up_to_the_end(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            union = Union((Cron("0 * * * *"), Interval(HOUR, phase=20 * MINUTE)))
            schedule = await line.schedule(union, end=START + 2 * HOUR, catchup_policy=LATEST, catchup_window=5 * HOUR)
            line.clock.advance(4 * HOUR)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "13:20"
            assert await line.gaps(schedule) == [(at("12:20"), at("13:00"), 2, "MISSED")]
            assert (await line.read(schedule.uid)).state == "COMPLETED"
            await line.assert_sound(START)

    run(scenario())


def test_an_outage_while_a_limited_schedule_catches_up_keeps_to_the_limit(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(
                Cron("0 * * * *"), overlap=OverlapPolicy.ALLOW_ALL, catchup_policy=ALL, catchup_window=24 * HOUR,
                max_firings=2,
            )  # fmt: skip
            line.clock.advance(5 * HOUR + 30 * MINUTE)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "13:00 14:00"
            stored = await line.read(schedule.uid)
            assert (stored.fired_count, stored.remaining, stored.state) == (2, 0, "COMPLETED")
            await line.assert_sound(START)

    run(scenario())


def test_a_second_outage_in_the_middle_of_catching_up_changes_nothing_but_the_time(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Cron("0 * * * *"), catchup_policy=LATEST, catchup_window=24 * HOUR)
            await line.lead()
            line.clock.advance(3 * HOUR + 30 * MINUTE)
            # One step, and gone: 15:00 is planned to be made up for.
            assert (await line.advancing.advance(line.term, LOOK_AHEAD)).more
            line.clock.advance(2 * HOUR)
            await line.tick()
            await line.serve()
            assert clock_times(await line.nominals(schedule, "SUCCEEDED")) == "17:00"
            gaps = await line.gaps(schedule)
            assert sum(count for *_, count, _ in gaps) == 4
            await line.assert_sound(START)

    run(scenario())
