"""Schedules: added, listed, deleted, and advanced so that every nominal time is accounted for exactly once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from scheduling.domain.errors import AlreadyExists, WrongState
from scheduling.domain.filters import parse_filter
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import fires_between
from scheduling.domain.schedule import NewSchedule, Schedule, ScheduleState
from scheduling.domain.target import Queue
from scheduling.domain.timing import CatchupPolicy, Cron
from scheduling.operations import schedules as schedule_cases
from scheduling.operations.ports import JobChange, PageRequest
from tests.support.builders import PRINCIPAL, every, new_job, once
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import LONG, Stores, open_stores

NOW = START
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


async def add(stores: Stores, job: Job, schedule: NewSchedule, **more: Any) -> Any:
    arguments: dict[str, Any] = {"principal": PRINCIPAL, "request_id": "", "digest": b"", "limit": 100, **more}
    return await stores.store.add_schedule(job, schedule, **arguments)


async def schedule_of(stores: Stores, schedule: NewSchedule) -> Schedule:
    found = await stores.store.get_schedule_by_uid(schedule.uid)
    assert found is not None
    return found


def times(rows: list[dict[str, Any]]) -> list[datetime]:
    return [row["nominal_time"] for row in rows]


# --- add, list, delete ------------------------------------------------------------------------------------------------


def test_a_schedule_that_is_added_is_stored_with_its_plan(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW))
            stores.clock.advance(1)
            schedule = every(stores.clock.now(), HOUR, max_firings=3, end=NOW + timedelta(days=9))
            assert await add(stores, job, schedule) == schedule.uid
            assert await schedule_of(stores, schedule) == schedule.as_stored(job.uid, job.job_id, NOW + SECOND)
            (plan,) = await stores.plans(job)
            assert (plan["uid"], plan["recurring"], plan["overlap"]) == (schedule.plan_uid, True, "SKIP")
            assert plan["create_time"] == NOW + SECOND

    run(scenario())


def test_a_taken_schedule_id_is_refused_and_nothing_is_stored(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW, schedule=once(NOW, schedule_id="daily")))
            with pytest.raises(AlreadyExists) as refused:
                await add(stores, job, once(NOW, schedule_id="daily"), request_id="r1")
            assert refused.value.resource_name == f"{job.name}/schedules/daily"
            assert [await stores.count(table) for table in ("schedules", "executions", "request_ids")] == [1, 1, 0]
            (other,) = await stores.create(new_job(NOW))
            await add(stores, other, once(NOW, schedule_id="daily"))

    run(scenario())


def test_a_repeat_adds_nothing_and_another_body_is_refused(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, open_stores(database_url) as other:
            (job,) = await stores.create(new_job(NOW))
            calls = [
                add(server, job, once(NOW), request_id="r1", digest=b"body")
                for server in (stores, other, stores, other)
            ]
            assert len(set(await asyncio.gather(*calls))) == 1
            assert await stores.count("schedules") == 1
            with pytest.raises(AlreadyExists) as refused:
                await add(stores, job, once(NOW), request_id="r1", digest=b"else")
            assert refused.value.reason == "REQUEST_ID_REUSED"

    run(scenario())


def test_a_job_takes_so_many_schedules_and_no_more_also_from_two_servers_at_once(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, open_stores(database_url) as other:
            (job,) = await stores.create(new_job(NOW))
            calls = [add(server, job, once(NOW), limit=5) for server in [stores, other] * 4]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, WrongState)]
            assert [each.reason for each in refused] == ["TOO_MANY_SCHEDULES"] * 3
            assert await stores.count("schedules") == 5

    run(scenario())


def test_a_cancelled_job_takes_no_schedule(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW))
            await stores.store.cancel_job(job.job_id, None)
            with pytest.raises(WrongState) as refused:
                await add(stores, job, once(NOW))
            assert refused.value.reason == "JOB_CANCELLED"

    run(scenario())


def test_schedules_are_listed_page_by_page_and_found_by_their_fields(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW, job_id="many"))
            await stores.create(new_job(NOW, schedule=once(NOW, NOW + HOUR, schedule_id="elsewhere")))
            for schedule in (
                every(NOW, Cron("0 9 * * *"), schedule_id="cron", time_zone="Asia/Tokyo"),
                every(NOW, MINUTE, schedule_id="interval"),
                once(NOW, NOW + HOUR, schedule_id="one-off"),
                once(NOW, NOW, schedule_id="due"),
            ):
                await add(stores, job, schedule)
                stores.clock.advance(1)
            (claim,) = await stores.running(await stores.worker(), (await stores.plans(job))[0]["uid"])
            await stores.record(claim)

            async def names(text: str, job_id: str | None = "many") -> set[str]:
                filter_ = parse_filter(text, schedule_cases.SCHEDULE_FIELDS)
                page = PageRequest(100, "create_time", descending=False, filter=filter_)
                return {each.schedule_id for each in (await stores.store.list_schedules(job_id, page))[0]}

            for text, expected in {
                "": {"cron", "interval", "one-off", "due"},
                "kind = CRON": {"cron"},
                "kind != CRON": {"interval", "one-off", "due"},
                'time_zone = "Asia/*"': {"cron"},
                'schedule_id = "one*"': {"one-off"},
                "state = COMPLETED": {"due"},
                "state = ACTIVE": {"cron", "interval", "one-off"},
                'next_fire_time < "2031-07-01T12:30:00Z"': {"interval"},
                'create_time >= "2031-07-01T12:00:02Z"': {"one-off", "due"},
                'display_name = "x"': set(),
            }.items():
                assert await names(text) == expected, text
            assert "elsewhere" in await names("", None)
            found: list[str] = []
            after: Any = None
            while True:
                items, after = await stores.store.list_schedules(
                    "many", PageRequest(3, "create_time", descending=True, after=after)
                )
                found += [each.schedule_id for each in items]
                if after is None:
                    break
            assert sorted(found) == ["cron", "due", "interval", "one-off"]

    run(scenario())


def test_deleting_a_schedule_drops_its_plans_and_leaves_its_records(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            job = await stores.recurring(MINUTE)
            stores.clock.advance(MINUTE)
            await stores.advance()
            first = (await stores.plans(job))[0]
            (claim,) = await stores.running(worker, first["uid"])
            (schedule,), _ = await stores.store.list_schedules(
                job.job_id, PageRequest(9, "create_time", descending=False)
            )
            assert await stores.store.delete_schedule(schedule)
            (left,) = await stores.plans(job)
            assert (left["uid"], left["state"]) == (first["uid"], "RUNNING")
            assert await stores.record(claim)
            assert (await stores.read(job.job_id, first["uid"])).schedule_id == schedule.schedule_id
            assert not await stores.store.delete_schedule(schedule)
            stores.clock.advance(HOUR)
            assert (await stores.advance()).plans == 0

    run(scenario())


def test_deleting_a_schedule_that_was_changed_in_between_does_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = every(NOW, MINUTE)
            await stores.create(new_job(NOW, schedule=schedule))
            stored = await schedule_of(stores, schedule)
            await stores.query("UPDATE schedules SET revision = revision + 1")
            assert not await stores.store.delete_schedule(stored)
            assert await stores.count("executions") == 1

    run(scenario())


# --- advance ----------------------------------------------------------------------------------------------------------


def test_a_recurring_schedule_has_exactly_one_plan_ahead_after_any_number_of_rounds(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            job = await stores.recurring(MINUTE)
            for n in range(60):
                stores.clock.advance(10)
                await stores.advance()
                await stores.advance()
                ahead = [time for time in times(await stores.plans(job)) if time > stores.clock.now() + SECOND]
                assert len(ahead) == 1, n
            planned = times(await stores.plans(job))
            assert planned == [NOW + MINUTE * n for n in range(1, 12)]

    run(scenario())


def test_a_plan_is_not_made_before_the_one_before_it_comes_near(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await stores.recurring(MINUTE)
            stores.clock.advance(58.9)
            assert (await stores.advance()).plans == 0
            stores.clock.advance(0.1)
            assert (await stores.advance()).plans == 1
            assert times(await stores.plans(job)) == [NOW + MINUTE, NOW + MINUTE * 2]

    run(scenario())


def test_advance_does_not_wait_for_release(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await stores.recurring(MINUTE)
            for _ in range(10):
                stores.clock.advance(30)
                await stores.advance()
            assert {row["state"] for row in await stores.plans(job)} == {"PENDING"}
            assert len(await stores.plans(job)) == 6

    run(scenario())


def test_two_schedulers_at_once_plan_each_nominal_time_once(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with open_stores(database_url, clock) as one, open_stores(database_url, clock) as two:
            two.term = await one.lead()
            periods = [SECOND * n for n in (5, 7, 11, 13, 30, 60)]
            schedules = [every(NOW, periods[n % 6]) for n in range(120)]
            await one.create(*(new_job(NOW, schedule=schedule) for schedule in schedules))

            async def rounds(stores: Stores) -> int:
                total = 0
                for _ in range(8):
                    total += (await stores.advancing.advance(stores.term, SECOND, limit=25)).plans
                return total

            planned = 0
            for _ in range(6):
                one.clock.advance(10)
                planned += sum(await asyncio.gather(rounds(one), rounds(two)))
            rows = await one.query("SELECT schedule_uid, nominal_time FROM executions ORDER BY nominal_time")
            assert len(rows) == planned + len(schedules)
            for schedule in schedules:
                own = [row["nominal_time"] for row in rows if row["schedule_uid"] == schedule.uid]
                assert own == fires_between(schedule.timing, NOW, own[-1], 1000)
                assert sum(time > one.clock.now() + SECOND for time in own) == 1

    run(scenario())


def test_under_a_term_that_has_ended_nothing_is_written(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await stores.recurring(MINUTE)
            holder = (await stores.worker()), timedelta(seconds=3)
            stale = await stores.leading.acquire(*holder)
            assert stale is not None
            stores.clock.advance(MINUTE)
            assert (await stores.advancing.advance(stale, SECOND)).plans == 0
            current = await stores.lead()
            assert current == stale + 1
            assert (await stores.advancing.advance(stale, SECOND)).plans == 0
            assert len(await stores.plans(job)) == 1
            assert (await stores.advancing.advance(current, SECOND)).plans == 1

    run(scenario())


def test_a_schedule_that_is_being_changed_right_now_is_left_for_the_next_round(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            busy, free = await stores.recurring(MINUTE), await stores.recurring(MINUTE)
            stores.clock.advance(MINUTE)
            await stores.lead()
            async with stores.database.hot() as connection, connection.transaction():
                await connection.execute("SELECT 1 FROM schedules WHERE job_uid = %s FOR UPDATE", (busy.uid,))
                assert (await stores.advance()).plans == 1
                assert len(await stores.plans(free)) == 2
            assert (await stores.advance()).plans == 1
            assert len(await stores.plans(busy)) == 2

    run(scenario())


def test_a_schedule_ends_with_its_last_firing_before_the_end(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = every(NOW, MINUTE, end=NOW + MINUTE * 3)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            for _ in range(10):
                stores.clock.advance(30)
                await stores.advance()
            assert times(await stores.plans(job)) == [NOW + MINUTE, NOW + MINUTE * 2]
            stored = await schedule_of(stores, schedule)
            assert stored.evaluated_until is None
            assert stored.state is ScheduleState.ACTIVE  # its records are still open
            await stores.store.cancel_execution(job.job_id, (await stores.plans(job))[0]["uid"])
            await stores.store.cancel_execution(job.job_id, (await stores.plans(job))[0]["uid"])
            assert (await schedule_of(stores, schedule)).state is ScheduleState.COMPLETED

    run(scenario())


def test_a_schedule_fires_as_often_as_it_may_and_no_more(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            schedule = every(NOW, MINUTE, max_firings=3)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            for _ in range(12):
                stores.clock.advance(30)
                await stores.advance()
                for claim in await stores.claim(worker, *await stores.released()):
                    await stores.record(claim)
            assert times(await stores.history(job)) == [NOW + MINUTE * n for n in (1, 2, 3)]
            assert await stores.plans(job) == []
            stored = await schedule_of(stores, schedule)
            assert (stored.fired_count, stored.state, stored.next_fire_time) == (3, ScheduleState.COMPLETED, None)

    run(scenario())


def test_a_retry_uses_up_no_firing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            schedule = every(NOW, MINUTE, max_firings=2)
            await stores.create(new_job(NOW, schedule=schedule))
            stores.clock.advance(MINUTE)
            await stores.advance()
            for _ in range(3):
                (claim,) = await stores.claim(worker, *await stores.released())
                await stores.record(claim, State.PENDING, code=14)
            assert (await schedule_of(stores, schedule)).fired_count == 1

    run(scenario())


def test_several_firings_of_a_limited_schedule_released_in_one_round_keep_to_the_limit(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = every(NOW, SECOND * 5, max_firings=3)
            (job,) = await stores.create(new_job(NOW, schedule=schedule, overlap=OverlapPolicy.ALLOW_ALL))
            stores.clock.advance(30)
            await stores.advance()
            assert len(await stores.plans(job)) == 7
            await stores.release()
            await stores.release()
            left = await stores.plans(job)
            assert [(row["nominal_time"], row["state"]) for row in left] == [
                (NOW + SECOND * 5 * n, "QUEUED") for n in (1, 2, 3)
            ]

    run(scenario())


@pytest.mark.parametrize("policy", list(CatchupPolicy))
def test_after_an_outage_the_catch_up_policy_decides_and_gaps_tell_the_rest(
    database_url: str, policy: CatchupPolicy
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            schedule = every(NOW, MINUTE, catchup_policy=policy, catchup_window=timedelta(minutes=10, seconds=30))
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            stores.clock.advance(timedelta(minutes=45, seconds=15))
            done = await stores.advance()
            planned = times(await stores.plans(job))
            gaps = await stores.query("SELECT * FROM schedule_gaps ORDER BY from_time")
            # Those of the last minute are late, not missed; the one that was planned before the outage is as missed as
            # the others, since nobody looked at it either.
            late = [NOW + MINUTE * 45, NOW + MINUTE * 46]
            made_up = {
                CatchupPolicy.SKIP_MISSED: [],
                CatchupPolicy.FIRE_ONCE_LATEST: [NOW + MINUTE * 44],
                CatchupPolicy.FIRE_ALL: [NOW + MINUTE * n for n in range(35, 45)],
            }[policy]
            assert planned == sorted(late + made_up)
            left_out = [NOW + MINUTE * n for n in range(1, 45) if NOW + MINUTE * n not in made_up]
            assert [(gap["from_time"], gap["to_time"], gap["firings"], gap["reason"]) for gap in gaps] == [
                (left_out[0], left_out[-1], len(left_out), "MISSED")
            ]
            stored = await schedule_of(stores, schedule)
            assert (stored.missed_count, done.missed) == (len(left_out), len(left_out))
            for row in await stores.plans(job):
                if row["nominal_time"] in made_up:
                    # Made up for from now on: its age and lateness do not count the outage.
                    assert row["ready_time"] == row["due_time"] == stores.clock.now()
                else:
                    assert row["ready_time"] == row["nominal_time"]

    run(scenario())


def test_after_a_long_outage_of_a_busy_schedule_all_is_accounted_for_in_pieces(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = every(NOW, SECOND, catchup_policy=CatchupPolicy.FIRE_ONCE_LATEST)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            stores.clock.advance(HOUR)
            await stores.advance()
            planned = len(await stores.plans(job))
            gaps = await stores.query("SELECT * FROM schedule_gaps ORDER BY from_time")
            assert len(gaps) > 1
            stored = await schedule_of(stores, schedule)
            assert stored.evaluated_until is not None
            expected = len(fires_between(schedule.timing, NOW, stored.evaluated_until, 10_000))
            assert planned + sum(gap["firings"] for gap in gaps) == expected
            for earlier, later in pairwise(gaps):
                assert earlier["to_time"] < later["from_time"]

    run(scenario())


def test_a_one_off_is_never_missed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(NOW + MINUTE)
            stores.clock.advance(HOUR * 20)
            assert (await stores.advance()).missed == 0
            assert await stores.released() == [uid]

    run(scenario())


def test_the_plans_of_a_job_that_was_changed_are_made_from_what_it_is_now(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.leading.acquire(await stores.worker(), LONG)
            stores.term = 1
            job = await stores.recurring(MINUTE)
            await stores.store.update_job(job, JobChange(queue=Queue.LOW))
            stores.clock.advance(MINUTE)
            await stores.advance()
            assert [row["queue"] for row in await stores.plans(job)] == ["LOW", "LOW"]

    run(scenario())
