"""Pause, resume, update, delete: at once and exactly, whatever the scheduler does at the same moment."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from scheduling.domain.errors import WrongState
from scheduling.domain.etag import etag
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import jittered
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.domain.timing import Calendar, CatchupPolicy, Cron, Frequency, Interval, Once, Timing
from scheduling.operations.ports import ScheduleChange
from tests.support.clock import START
from tests.support.run import run
from tests.support.timeline import DAY, HOUR, LOOK_AHEAD, MINUTE, PRINCIPAL, SECOND, Timeline, outcome, timeline

HOURLY, HALF_PAST = Cron("0 * * * *"), Cron("30 * * * *")


def at(text: str) -> datetime:
    """A time of the first day, UTC."""
    return datetime.fromisoformat(f"{START.date()}T{text}").replace(tzinfo=UTC)


async def planned(line: Timeline, schedule: Schedule) -> list[datetime]:
    return [row["nominal_time"] for row in await line.plans(schedule) if row["state"] == "PENDING"]


# --- pause and resume -------------------------------------------------------------------------------------------------


def test_a_pause_takes_the_plan_away_and_a_resume_leaves_one_gap_and_no_burst(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, catchup_policy=CatchupPolicy.FIRE_ALL, catchup_window=DAY)
            await line.live_through(90 * MINUTE, 30 * MINUTE)
            paused = await line.pause(schedule, "maintenance of the media service")
            assert paused.state is ScheduleState.PAUSED
            assert paused.pause is not None
            told = (paused.pause.time, paused.pause.principal, paused.pause.note)
            assert told == (line.now, PRINCIPAL, "maintenance of the media service")
            assert paused.next_fire_time is None
            assert await planned(line, schedule) == []
            for _ in range(3):
                line.clock.advance(HOUR)
                assert await line.tick() == []
                await line.assert_sound(START)
            resumed = await line.resume(schedule)
            assert (resumed.state, resumed.pause) == (ScheduleState.ACTIVE, None)
            assert resumed.next_fire_time == at("17:00")
            assert await line.gaps(schedule) == [(at("14:00"), at("16:00"), 3, "PAUSED")]
            assert await line.tick() == []
            line.clock.advance(30 * MINUTE)
            await line.tick()
            await line.serve()
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:00"), at("17:00")]
            assert (await line.read(schedule.uid)).skipped == {"PAUSED": 3}
            await line.assert_sound(START)

    run(scenario())


@pytest.mark.parametrize(
    ("paused_for", "state", "reason"), [(2 * HOUR, "SKIPPED", "PAUSED"), (30 * MINUTE, "SUCCEEDED", "")]
)
def test_a_one_off_is_skipped_if_its_moment_passes_in_the_pause(
    database_url: str, paused_for: timedelta, state: str, reason: str
) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Once(START + HOUR))
            await line.pause(schedule)
            line.clock.advance(paused_for)
            assert await line.tick() == []
            assert (await line.read(schedule.uid)).state is ScheduleState.PAUSED
            await line.resume(schedule)
            assert await line.tick() == []
            line.clock.advance(30 * MINUTE)
            await line.tick()
            await line.serve()
            assert await line.nominals(schedule, state, reason=reason) == [START + HOUR]
            assert (await line.read(schedule.uid)).skipped == ({"PAUSED": 1} if reason else {})

    run(scenario())


@pytest.mark.parametrize("how", ["later", "earlier", "request"])
def test_a_paused_one_off_that_is_changed_is_not_lost(database_url: str, how: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.pause(await line.schedule(Once(START + HOUR)))
            time = START + {"later": 2 * HOUR, "earlier": MINUTE, "request": HOUR}[how]
            timing = None if how == "request" else Timing(Once(time))
            change = ScheduleChange(timing=timing, change_request=how == "request", request=b"", request_type="x")
            assert await line.store.update_schedule(schedule, change) is not None
            assert [(row["nominal_time"], row["held_by"]) for row in await line.plans(schedule)] == [(time, "PAUSED")]
            await line.resume(schedule)
            line.clock.advance(time - line.now)
            await line.tick()
            await line.serve()
            assert await line.nominals(schedule, "SUCCEEDED") == [time]

    run(scenario())


def test_a_pause_in_the_last_second_before_the_last_firing_loses_nothing(database_url: str) -> None:
    # The last firing is planned and nothing follows it: the schedule has no more to evaluate when it is paused.
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, end=START + HOUR + MINUTE)
            line.clock.advance(HOUR - SECOND / 2)
            await line.tick()
            assert (await line.read(schedule.uid)).evaluated_until is None
            paused = await line.pause(schedule)
            assert (paused.fired_count, await line.plans(schedule)) == (0, [])
            line.clock.advance(HOUR)
            await line.assert_sound(START)
            resumed = await line.resume(schedule)
            assert await line.gaps(schedule) == [(at("13:00"), at("13:00"), 1, "PAUSED")]
            assert resumed.state is ScheduleState.COMPLETED
            await line.assert_sound(START)

    run(scenario())


def test_a_firing_that_was_released_early_and_taken_back_does_not_count_as_fired(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, max_firings=2)
            line.clock.advance(HOUR - SECOND / 2)
            assert len(await line.tick()) == 1
            assert (await line.read(schedule.uid)).fired_count == 1
            paused = await line.pause(schedule)
            assert (paused.fired_count, paused.remaining) == (0, 2)
            await line.resume(schedule)
            await line.live_through(4 * HOUR, 30 * MINUTE)
            assert len(await line.nominals(schedule, "SUCCEEDED")) == 2
            await line.assert_sound(START)

    run(scenario())


def test_what_is_running_and_due_stays_when_its_schedule_is_paused(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, overlap=OverlapPolicy.BUFFER_ALL)
            line.clock.advance(HOUR)
            claims = await line.claim(await line.tick())
            line.clock.advance(HOUR)
            await line.tick()
            await line.pause(schedule)
            await line.finish(claims)
            await line.release()
            await line.serve()
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:00"), at("14:00")]
            await line.assert_sound(START)

    run(scenario())


# --- update -----------------------------------------------------------------------------------------------------------


def test_an_update_replaces_the_plan_in_the_same_transaction_and_leaves_records(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, overlap=OverlapPolicy.BUFFER_ALL)
            line.clock.advance(HOUR)
            (claim,) = await line.claim(await line.tick())
            line.clock.advance(HOUR)
            await line.tick()
            before = await line.plans(schedule)
            assert [row["state"] for row in before] == ["RUNNING", "PENDING", "PENDING"]
            updated = await line.update(await line.read(schedule.uid), Timing(HALF_PAST))
            assert updated.next_fire_time == at("14:00")  # the record that waits
            after = await line.plans(schedule)
            assert [row["nominal_time"] for row in after] == [at("13:00"), at("14:00"), at("14:30")]
            assert [row["uid"] for row in after[:2]] == [row["uid"] for row in before[:2]]
            await line.finish([claim])
            await line.release()
            await line.serve()
            await line.live_through(HOUR, 30 * MINUTE)
            assert await line.nominals(schedule, "SUCCEEDED") == [at(t) for t in ("13:00", "14:00", "14:30")]
            await line.assert_sound(START)

    run(scenario())


def test_an_update_takes_back_what_was_released_early(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            line.clock.advance(HOUR - SECOND / 2)
            (uid,) = await line.tick()
            updated = await line.update(await line.read(schedule.uid), Timing(HALF_PAST))
            assert (updated.next_fire_time, updated.fired_count) == (at("13:30"), 0)
            # Its message is under way already; nobody can claim it any more.
            line.clock.advance(SECOND)
            assert await line.claim([uid]) == []
            await line.live_through(HOUR, 30 * MINUTE)
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:30")]
            await line.assert_sound(START)

    run(scenario())


def test_a_firing_that_runs_a_moment_early_is_not_planned_again_by_an_update(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            line.clock.advance(HOUR - timedelta(milliseconds=10))
            (claim,) = await line.claim(await line.tick())
            await line.update(await line.read(schedule.uid), Timing(HOURLY, jitter=MINUTE))
            assert await planned(line, schedule) == [at("14:00")]
            line.clock.advance(SECOND)
            await line.finish([claim])
            # Up to just before 15:00, which some jitters leave where it is.
            await line.live_through(2 * HOUR - 2 * SECOND, 30 * MINUTE)
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:00"), at("14:00")]
            await line.assert_sound(START)

    run(scenario())


@pytest.mark.parametrize("how", ["update", "pause", "finer"])
def test_a_firing_that_a_caller_cancelled_ahead_stays_cancelled(database_url: str, how: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            (plan,) = await line.plans(schedule)
            await line.store.cancel_execution(schedule.job_id, plan["uid"])
            if how == "pause":
                await line.pause(schedule)
                line.clock.advance(MINUTE)
                await line.resume(schedule)
            else:
                when = HOURLY if how == "update" else Cron("*/20 * * * *")
                await line.update(await line.read(schedule.uid), Timing(when, jitter=SECOND))
            await line.live_through(80 * MINUTE + 2 * SECOND, 20 * MINUTE + SECOND)
            assert await line.nominals(schedule, "CANCELLED") == [at("13:00")]
            finer = ["12:20", "12:40", "13:20"] if how == "finer" else []
            assert await line.nominals(schedule, "SUCCEEDED") == [at(text) for text in finer]
            await line.assert_sound(START)

    run(scenario())


def test_an_update_after_an_outage_accounts_for_what_the_old_timing_had(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            line.clock.advance(3 * HOUR + 10 * MINUTE)
            await line.update(await line.read(schedule.uid), Timing(HALF_PAST))
            assert await line.gaps(schedule) == [(at("14:00"), at("15:00"), 2, "UPDATED")]
            assert (await line.read(schedule.uid)).skipped == {"UPDATED": 2}
            # 13:00 was planned: a record, which stays.
            assert await planned(line, schedule) == [at("13:00"), at("15:30")]
            await line.tick()
            await line.assert_sound(START)

    run(scenario())


def test_a_one_off_that_has_run_is_not_run_again_by_a_change_of_its_request(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Once(START + HOUR))
            line.clock.advance(HOUR)
            await line.tick()
            await line.serve()
            done = await line.read(schedule.uid)
            assert done.state is ScheduleState.COMPLETED
            change = ScheduleChange(change_request=True, request=b"", request_type="x")
            updated = await line.store.update_schedule(done, change)
            assert updated is not None
            assert updated.state is ScheduleState.COMPLETED
            assert await line.tick() == []
            assert await line.plans(schedule) == []

    run(scenario())


def test_a_finished_schedule_that_gets_more_firings_goes_on(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, max_firings=1)
            await line.live_through(3 * HOUR, 30 * MINUTE)
            done = await line.read(schedule.uid)
            assert (done.state, done.remaining) == (ScheduleState.COMPLETED, 0)
            updated = await line.update(done, Timing(HOURLY, max_firings=3))
            assert (updated.state, updated.remaining, updated.next_fire_time) == (
                ScheduleState.ACTIVE, 2, at("16:00"),
            )  # fmt: skip
            await line.live_through(5 * HOUR, 30 * MINUTE)
            assert len(await line.nominals(schedule, "SUCCEEDED")) == 3
            await line.assert_sound(START)

    run(scenario())


def test_a_change_by_an_old_revision_changes_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            old = await line.schedule(HOURLY)
            new = await line.update(old, Timing(HALF_PAST))
            assert etag(old.uid, old.revision) != etag(new.uid, new.revision)
            assert await line.store.update_schedule(old, ScheduleChange(timing=Timing(Cron("* * * * *")))) is None
            assert await line.store.pause_schedule(old, PRINCIPAL, "") is None
            assert await line.store.delete_schedule(old) is False
            assert await planned(line, old) == [at("12:30")]

    run(scenario())


@pytest.mark.parametrize("what", ["update", "pause", "resume"])
def test_schedules_of_a_cancelled_job_stay_as_they_are(database_url: str, what: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            if what == "resume":
                await line.pause(schedule)
            await line.store.cancel_job(schedule.job_id, None)
            stored = await line.read(schedule.uid)
            refused = {
                "update": line.store.update_schedule(stored, ScheduleChange(timing=Timing(HALF_PAST))),
                "pause": line.store.pause_schedule(stored, PRINCIPAL, ""),
                "resume": line.store.resume_schedule(stored),
            }
            for name, call in refused.items():
                if name != what:
                    call.close()
            with pytest.raises(WrongState):
                await refused[what]
            line.clock.advance(DAY)
            assert await line.tick() == []
            assert await line.plans(schedule) == []

    run(scenario())


# --- races ------------------------------------------------------------------------------------------------------------


def test_hundreds_of_changes_at_the_moment_of_advancing_leave_the_books_in_order(database_url: str) -> None:
    async def scenario() -> None:
        dice = random.Random(7)
        async with timeline(database_url) as line, timeline(database_url, line.clock) as other:
            await line.lead()
            other.term = line.term
            schedules = [
                await line.schedule(Interval(span * SECOND, anchor=START), overlap=OverlapPolicy.ALLOW_ALL)
                for span in (7, 11, 13, 60)
            ]
            since, won = START, 0
            for n in range(150):
                line.clock.advance(dice.choice([0.4, 3, 9, 70]))
                uid = dice.choice(schedules).uid
                current = await line.read(uid)
                span = dice.choice([5, 7, 10, 60]) * SECOND
                update = line.store.update_schedule(
                    current, ScheduleChange(timing=Timing(Interval(span, anchor=START)))
                )
                again = line.store.update_schedule(
                    current, ScheduleChange(timing=Timing(Interval(span, phase=SECOND, anchor=START)))
                )
                toggle = (
                    line.store.resume_schedule(current)
                    if current.state is ScheduleState.PAUSED
                    else line.store.pause_schedule(current, PRINCIPAL, "")
                )
                work = [update, again, toggle, line.tick(), other.tick(), line.serve()]
                dice.shuffle(work)
                results = await asyncio.gather(*work)
                changed = [result for result in results if isinstance(result, Schedule)]
                # All three were made for the same revision: one wins.
                assert len(changed) == 1
                won += len(changed)
                if n % 10 == 0:
                    await line.assert_sound(since)
            assert won == 150
            for schedule in schedules:
                if (await line.read(schedule.uid)).state is ScheduleState.PAUSED:
                    await line.resume(schedule)
            await line.tick()
            await line.assert_sound(START)
            twice = await line.query(
                "SELECT schedule_uid, nominal_time FROM (SELECT schedule_uid, nominal_time FROM executions UNION ALL "
                "SELECT schedule_uid, nominal_time FROM execution_history) AS e GROUP BY 1, 2 HAVING count(*) > 1"
            )
            assert twice == []

    run(scenario())


def test_a_schedule_deleted_while_it_is_advanced_leaves_no_plan(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await line.lead()
            for _ in range(20):
                schedule = await line.schedule(Interval(10 * SECOND, anchor=line.now))
                line.clock.advance(9.5)
                deleted, _ = await asyncio.gather(line.store.delete_schedule(schedule), line.advance())
                assert deleted
                assert await line.plans(schedule) == []
                assert await line.gaps(schedule) == []

    run(scenario())


def test_a_deleted_schedule_leaves_what_has_come_due(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            line.clock.advance(HOUR)
            await line.advance()
            assert await line.store.delete_schedule(await line.read(schedule.uid))
            assert len(await line.tick()) == 1
            await line.serve()
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:00")]

    run(scenario())


# --- limits, jitter, counters -----------------------------------------------------------------------------------------


def test_a_firing_uses_one_of_max_firings_at_its_first_release_and_a_skipped_one_none(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, max_firings=3)
            line.clock.advance(HOUR)
            (claim,) = await line.claim(await line.tick())
            # A retry is no new firing.
            await line.delivering.record([outcome(claim, State.PENDING, line.now, line.now + MINUTE)])
            line.clock.advance(MINUTE)
            (claim,) = await line.claim(await line.release())
            assert (await line.read(schedule.uid)).fired_count == 1
            # Two are skipped, since that one goes on.
            for _ in range(2):
                line.clock.advance(HOUR)
                await line.tick()
            stored = await line.read(schedule.uid)
            assert (stored.fired_count, stored.remaining, stored.skipped) == (1, 2, {"OVERLAP": 2})
            await line.finish([claim])
            await line.live_through(6 * HOUR, 30 * MINUTE)
            stored = await line.read(schedule.uid)
            assert (stored.fired_count, stored.remaining, stored.state) == (3, 0, ScheduleState.COMPLETED)
            assert await line.nominals(schedule, "SUCCEEDED") == [at("13:00"), at("16:00"), at("17:00")]
            assert await line.nominals(schedule, "SKIPPED") == [at("14:00"), at("15:00")]
            await line.assert_sound(START)

    run(scenario())


def test_the_last_firing_leaves_a_backfill_alone(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, max_firings=1, overlap=OverlapPolicy.ALLOW_ALL)
            line.clock.advance(HOUR - SECOND)
            await line.lead()
            await line.backfill(schedule, START - 3 * HOUR, START, 3)
            assert await line.backfilling.step_backfills(line.term) == 3
            line.clock.advance(2)
            assert len(await line.tick()) >= 1
            while await line.serve():
                await line.release()
            done = await line.query("SELECT origin, count(*) AS n FROM execution_history GROUP BY 1 ORDER BY 1")
            assert done == [{"origin": "BACKFILL", "n": 3}, {"origin": "SCHEDULED", "n": 1}]

    run(scenario())


def test_jitter_delays_each_firing_by_its_own_share_and_never_past_the_next(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            timing = Timing(Interval(10 * MINUTE), jitter=HOUR)
            schedule = await line.schedule(timing.when, jitter=timing.jitter, overlap=OverlapPolicy.ALLOW_ALL)
            await line.live_through(3 * HOUR, 30 * SECOND)
            ran = await line.query("SELECT * FROM execution_history ORDER BY nominal_time")
            assert 15 <= len(ran) <= 18
            for row in ran:
                assert row["due_time"] == jittered(timing, schedule.uid, row["nominal_time"])
                assert row["nominal_time"] <= row["due_time"] < row["nominal_time"] + 10 * MINUTE
                assert row["due_time"] <= row["start_time"] < row["due_time"] + MINUTE
            assert len({row["due_time"] - row["nominal_time"] for row in ran}) == len(ran)
            await line.assert_sound(START)

    run(scenario())


def test_bounds_and_counts_end_a_schedule(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            bounded = await line.schedule(HOURLY, start=at("14:00"), end=at("16:00"))
            counted = await line.schedule(
                Calendar(Frequency.DAILY, from_date=START.date() + DAY, count=2), overlap=OverlapPolicy.ALLOW_ALL
            )
            await line.live_through(4 * DAY, 30 * MINUTE)
            # The beginning belongs to it, the end does not.
            assert await line.nominals(bounded, "SUCCEEDED") == [at("14:00"), at("15:00")]
            midnight = at("00:00")
            assert await line.nominals(counted, "SUCCEEDED") == [midnight + DAY, midnight + 2 * DAY]
            for schedule in (bounded, counted):
                assert (await line.read(schedule.uid)).state is ScheduleState.COMPLETED
            await line.assert_sound(START)

    run(scenario())


def test_the_schedule_tells_all_its_counts(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY, max_firings=10, overlap=OverlapPolicy.BUFFER_ONE)
            line.clock.advance(HOUR)
            (claim,) = await line.claim(await line.tick(LOOK_AHEAD))
            for _ in range(3):
                line.clock.advance(HOUR)
                await line.tick()
            await line.pause(schedule)
            line.clock.advance(2 * HOUR)
            await line.resume(schedule)
            line.clock.advance(3 * HOUR + 10 * MINUTE)
            await line.advance()
            told = await line.read(schedule.uid)
            assert told.fired_count == 1
            assert told.remaining == 9
            assert told.buffered == 1
            assert told.skipped == {"OVERLAP": 2, "PAUSED": 2}
            assert told.missed_count == 2
            await line.finish([claim])
            await line.assert_sound(START)

    run(scenario())


def test_a_timing_survives_being_stored(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(HOURLY)
            changed = replace(schedule.timing, time_zone="Australia/Lord_Howe", jitter=7 * MINUTE, max_firings=9)
            assert (await line.update(schedule, changed)).timing == changed

    run(scenario())
