"""Pruning: what has ended leaves when its time is over, and nothing that is unfinished ever does."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scheduling.app import SystemClock, prunable_targets
from scheduling.delivery.targets import TargetTable
from scheduling.dispatch.housekeeping import FIRST, ROUND_PAUSE, STANDBY_PAUSE, WALK_PAUSE, Housekeeper
from scheduling.domain.ids import uuid7
from scheduling.domain.job import Job
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue
from scheduling.domain.timing import Once, Timing
from scheduling.operations.ports import NewRun, ScheduleChange
from scheduling.storage.database import Database
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.pruning import Pruned, PruningStore
from tests.support.builders import MINUTE, PRINCIPAL, SEND, creation, every, new_job, once
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.stores import Stores, open_stores

CLEANUP = "messaging.MessagingService/CleanupExpiredMessages"
MONTH = timedelta(days=30)
DAY = timedelta(days=1)


def name_of(day: date) -> str:
    return f"execution_history_{day:%Y%m%d}"


async def make_partition(stores: Stores, day: date) -> str:
    await stores.query(
        f"CREATE TABLE IF NOT EXISTS {name_of(day)} PARTITION OF execution_history "
        f"FOR VALUES FROM ('{day}') TO ('{day + DAY}')"
    )
    return name_of(day)


async def finish(stores: Stores, uid: UUID, state: State = State.SUCCEEDED) -> None:
    """Runs an execution that is due to its end."""
    (claim,) = await stores.running(await stores.worker(), uid)
    assert await stores.record(claim, state)


async def prune(stores: Stores, day: date) -> Pruned:
    """Prunes the jobs that end with the partition of a day, and drops it."""
    name, jobs, schedules = name_of(day), 0, 0
    pruning = PruningStore(stores.database)
    following: UUID | None = FIRST
    while following is not None:
        pruned, following = await pruning.prune_jobs_of(stores.term, name, following)
        jobs, schedules = jobs + pruned.jobs, schedules + pruned.schedules
    await stores.query(f"DROP TABLE {name}")
    return Pruned(jobs, schedules)


async def add_run(stores: Stores, job: Job) -> UUID:
    now = stores.clock.now()
    run_ = NewRun(
        uid=uuid7(now),
        job_uid=job.uid,
        principal=PRINCIPAL,
        request=None,
        request_type=None,
        request_id="",
        digest=b"",
        overlap_policy=None,
    )
    return await stores.store.add_run(run_)


async def job_ids(stores: Stores) -> set[str]:
    return {row["job_id"] for row in await stores.query("SELECT job_id FROM jobs")}


def prune_day(stores: Stores, days: int = 30) -> date:
    """The day on which what ends now may go."""
    return stores.clock.now().date() + timedelta(days=days + 1)


def test_a_one_off_leaves_with_its_job_and_schedule_when_its_time_is_over(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            uids = [await stores.one_off() for _ in range(3)]
            waiting = await stores.one_off(stores.clock.now() + MONTH * 2)
            for uid in uids:
                await finish(stores, uid)
            stores.clock.advance(MONTH + DAY * 3)
            assert await prune(stores, day) == Pruned(3, 3)
            assert await stores.state(waiting) is State.PENDING
            counts = [await stores.count(table) for table in ("jobs", "schedules", "executions", "execution_history")]
            assert counts == [1, 1, 1, 0]

    run(scenario())


@pytest.mark.parametrize("what", ["pending", "queued", "running", "failed", "recurring", "paused", "by hand"])
def test_a_job_with_anything_ahead_or_open_stays(database_url: str, what: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            now = stores.clock.now()
            schedule = None if what == "by hand" else once(now)
            (job,) = await stores.create(new_job(now, schedule=schedule))
            first = await add_run(stores, job) if schedule is None else schedule.plan_uid
            await finish(stores, first)
            if what != "by hand":
                # What came after the first schedule. Nothing of it has anything to do with the day that is pruned.
                later = now + MONTH * 2
                more = every(now) if what == "recurring" else once(now, later)
                uid = await stores.store.add_schedule(
                    job, more, principal=PRINCIPAL, request_id="", digest=b"", limit=100
                )
                if what == "paused":
                    added = await stores.store.get_schedule_by_uid(uid)
                    assert added is not None
                    await stores.store.pause_schedule(added, PRINCIPAL, "holidays")
                    await stores.query("DELETE FROM executions")
                elif what in ("queued", "running", "failed"):
                    await stores.query(
                        "UPDATE executions SET state = %s, claim_token = %s, finish_time = %s",
                        what.upper(),
                        uuid7(now) if what == "running" else None,
                        now,
                    )
            stores.clock.advance(MONTH + DAY * 3)
            assert await prune(stores, day) == Pruned()
            assert await job_ids(stores) == {job.job_id}

    run(scenario())


def test_a_job_that_was_run_again_stays_until_that_is_over_too(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            first = prune_day(stores)
            await make_partition(stores, first)
            schedule = once(stores.clock.now())
            (job,) = await stores.create(new_job(stores.clock.now(), schedule=schedule))
            await finish(stores, schedule.plan_uid)
            stores.clock.advance(DAY * 10)
            second = prune_day(stores)
            await make_partition(stores, second)
            again = await add_run(stores, job)
            await finish(stores, again)
            stores.clock.advance(DAY * 23)
            assert await prune(stores, first) == Pruned()
            assert (await stores.read(job.job_id, again)).state is State.SUCCEEDED
            stores.clock.advance(DAY * 10)
            assert await prune(stores, second) == Pruned(1, 1)

    run(scenario())


def test_a_one_off_that_was_moved_ahead_after_it_had_run_stays(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            schedule = once(stores.clock.now())
            (job,) = await stores.create(new_job(stores.clock.now(), schedule=schedule))
            await finish(stores, schedule.plan_uid)
            stored = await stores.store.get_schedule_by_uid(schedule.uid)
            assert stored is not None
            later = Timing(Once(stores.clock.now() + MONTH * 2))
            assert await stores.store.update_schedule(stored, ScheduleChange(timing=later)) is not None
            stores.clock.advance(MONTH + DAY * 3)
            assert await prune(stores, day) == Pruned()
            assert await job_ids(stores) == {job.job_id}

    run(scenario())


def test_a_cancelled_recurring_job_leaves_with_the_last_of_its_history(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            kept, ended = await stores.recurring(), await stores.recurring()
            await stores.store.cancel_job(ended.job_id, None)
            assert [row["state"] for row in await stores.history(ended)] == ["CANCELLED"]
            stores.clock.advance(MONTH + DAY * 3)
            assert await prune(stores, day) == Pruned(1, 1)
            assert await job_ids(stores) == {kept.job_id}

    run(scenario())


def test_a_job_that_ran_more_often_than_a_piece_has_rows_does_not_hold_up_the_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.storage.pruning.PIECE_ROWS", 2)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            await finish(stores, await stores.one_off())
            often = once(stores.clock.now())
            (job,) = await stores.create(new_job(stores.clock.now(), schedule=often))
            await finish(stores, often.plan_uid)
            for _ in range(5):
                await finish(stores, await add_run(stores, job))
            await finish(stores, await stores.one_off())
            stores.clock.advance(MONTH + DAY * 3)
            pruning, found = PruningStore(stores.database), []
            following: UUID | None = FIRST
            while following is not None:
                pruned, following = await pruning.prune_jobs_of(stores.term, name_of(day), following)
                found.append(pruned)
            # Whichever of them comes first: two pieces of at most two jobs, and the end.
            assert sorted(pruned.jobs for pruned in found) == [0, 1, 2]
            assert await stores.count("schedules") == 0

    run(scenario())


def test_what_the_previous_version_made_is_looked_up_in_the_history(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day, later = prune_day(stores), prune_day(stores, 60)
            for each in (day, later):
                await make_partition(stores, each)
            uids = [await stores.one_off() for _ in range(2)]
            await stores.query("UPDATE jobs SET used_time = DEFAULT")
            for uid in uids:
                await finish(stores, uid)
            row = await stores.ended(uids[0])
            # As if RunJob of that version had made another one.
            await stores.query(
                "INSERT INTO execution_history SELECT (jsonb_populate_record(h, jsonb_build_object('uid', "
                "gen_random_uuid(), 'prune_day', %s::date))).* FROM execution_history h WHERE uid = %s",
                later,
                uids[0],
            )
            stores.clock.advance(MONTH + DAY * 3)
            assert await prune(stores, day) == Pruned(1, 1)
            assert await stores.query("SELECT uid FROM jobs") == [{"uid": row["job_uid"]}]

    run(scenario())


def test_failed_executions_go_after_their_time_and_those_of_messages_never(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            message, cleanup = await stores.one_off(), await stores.one_off(target=CLEANUP, queue=Queue.LOW)
            for uid in (message, cleanup):
                await finish(stores, uid, State.FAILED)
            pruning = PruningStore(stores.database)
            stores.clock.advance(MONTH - DAY)
            fresh = await stores.one_off(target=CLEANUP)
            await finish(stores, fresh, State.FAILED)
            assert await pruning.prune_failed(stores.term, MONTH, [CLEANUP]) == Pruned()
            stores.clock.advance(DAY * 2)
            assert await pruning.prune_failed(stores.term, MONTH, [CLEANUP]) == Pruned(1, 1, 1)
            assert await pruning.prune_failed(stores.term, MONTH, [CLEANUP]) == Pruned()
            assert await stores.state(message) is State.FAILED
            assert await stores.state(fresh) is State.FAILED
            assert await stores.count("jobs") == 2

    run(scenario())


def test_without_the_term_nothing_is_pruned(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            await finish(stores, await stores.one_off())
            await finish(stores, await stores.one_off(target=CLEANUP), State.FAILED)
            stores.clock.advance(MONTH + DAY * 3)
            pruning = PruningStore(stores.database)
            for wrong in (term - 1, term + 1):
                assert (await pruning.prune_jobs_of(wrong, name_of(day), FIRST))[0] == Pruned()
                assert await pruning.prune_failed(wrong, MONTH, [CLEANUP]) == Pruned()
                assert await pruning.prune_oddments(wrong, MONTH) == 0
            assert await stores.count("jobs") == 2

    run(scenario())


async def somebody_waits_for_a_lock(stores: Stores) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await stores.query(waiting):
        pass


def test_a_run_that_is_being_added_keeps_its_job_from_being_pruned(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            schedule = once(stores.clock.now())
            (job,) = await stores.create(new_job(stores.clock.now(), schedule=schedule))
            await finish(stores, schedule.plan_uid)
            stores.clock.advance(MONTH + DAY * 3)
            async with AsyncExitStack() as stack, await psycopg.AsyncConnection.connect(stores.url) as other:
                # RunJob, stopped just before its commit.
                await other.execute("UPDATE jobs SET used_time = %s WHERE uid = %s", [stores.clock.now(), job.uid])
                await other.execute(
                    "INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time,"
                    " ready_time, expire_time) SELECT gen_random_uuid(), uid, 'MANUAL', target, queue, owner, "
                    "'PENDING', now(), now(), now(), now() FROM jobs WHERE uid = %s",
                    [job.uid],
                )
                # It waits for as long as this takes on a slow machine.
                patient = await stack.enter_async_context(
                    Database(stores.url, application="tests", hot_timeout=MINUTE, now=stores.clock.now)
                )
                pruning = asyncio.create_task(PruningStore(patient).prune_jobs_of(stores.term, name_of(day), FIRST))
                await asyncio.wait_for(somebody_waits_for_a_lock(stores), 30)
                await other.commit()
                assert (await pruning)[0] == Pruned()
            assert await job_ids(stores) == {job.job_id}

    run(scenario())


def test_runs_and_pruning_at_once_lose_no_run(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            now = stores.clock.now()
            schedules = [once(now) for _ in range(60)]
            jobs = await stores.create(*(new_job(now, schedule=schedule) for schedule in schedules))
            await stores.release()
            worker = await stores.worker()
            for schedule in schedules:
                (claim,) = await stores.claim(worker, schedule.plan_uid)
                assert await stores.record(claim)
            stores.clock.advance(MONTH + DAY * 3)
            chosen = random.Random(7).sample(list(jobs), 30)
            results: list[Any] = await asyncio.gather(
                PruningStore(stores.database).prune_jobs_of(stores.term, name_of(day), FIRST),
                *(add_run(stores, job) for job in chosen),
                PruningStore(stores.database).prune_jobs_of(stores.term, name_of(day), FIRST),
                return_exceptions=True,
            )
            accepted = {uid for uid in results if isinstance(uid, UUID)}
            orphans = await stores.query(
                "SELECT e.uid FROM executions e WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.uid = e.job_uid)"
            )
            assert orphans == []
            assert {row["uid"] for row in await stores.query("SELECT uid FROM executions")} == accepted
            assert await stores.count("jobs") == len(accepted)

    run(scenario())


@pytest.mark.parametrize("rows", [3, 5000])
def test_whatever_state_jobs_are_in_only_the_finished_go(
    database_url: str, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("scheduling.storage.pruning.PIECE_ROWS", rows)

    async def scenario() -> None:
        chance = random.Random(20310701)
        async with open_stores(database_url) as stores:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            keep: set[str] = set()
            go: set[str] = set()
            for _ in range(24):
                now = stores.clock.now()
                ends = chance.random() < 0.6
                recurs = chance.random() < 0.3
                schedule = every(now) if recurs else once(now, now if ends else now + MONTH * 3)
                (job,) = await stores.create(new_job(now, schedule=schedule))
                again = chance.choice(["", "", "waits", "ended"])
                if ends and not recurs:
                    await finish(stores, schedule.plan_uid, chance.choice([State.SUCCEEDED, State.CANCELLED]))
                if again:
                    uid = await add_run(stores, job)
                    if again == "ended":
                        await finish(stores, uid)
                cancelled = chance.random() < 0.3
                if cancelled:
                    await stores.store.cancel_job(job.job_id, None)
                is_done = cancelled or (ends and not recurs and again != "waits")
                (go if is_done else keep).add(job.job_id)
            stores.clock.advance(MONTH + DAY * 3)
            assert (await prune(stores, day)).jobs == len(go)
            assert await job_ids(stores) == keep
            assert await stores.query("SELECT FROM schedules s WHERE job_uid NOT IN (SELECT uid FROM jobs)") == []

    run(scenario())


def test_a_request_id_lasts_as_long_as_its_job_and_a_day_more(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            pruning = PruningStore(stores.database)
            now = stores.clock.now()
            kept = creation(new_job(now), request_id="kept")
            pair = creation(new_job(now), new_job(now), request_id="pair")
            for call in (kept, pair):
                await stores.store.create(call)
            (gone, left) = await stores.store.get_jobs_by_uid([new.uid for new in pair.jobs])
            await stores.query("UPDATE request_ids SET create_time = %s", now)

            async def walk() -> int:
                total, place = 0, ("", "")
                while True:
                    removed, following = await pruning.prune_request_ids(stores.term, place)
                    total += removed
                    if following is None:
                        return total
                    place = following

            stores.clock.advance(DAY * 100)
            await stores.store.delete_job(gone, force=True)
            assert [await walk(), await walk()] == [0, 0]
            await stores.store.delete_job(left, force=True)
            assert await walk() == 0
            stores.clock.advance(DAY - timedelta(seconds=1))
            assert await walk() == 0
            stores.clock.advance(timedelta(seconds=2))
            assert await walk() == 1
            assert await stores.query("SELECT request_id FROM request_ids") == [{"request_id": "kept"}]

    run(scenario())


def test_counts_of_past_days_go(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            await stores.create(new_job(stores.clock.now(), owner="a"))
            stores.clock.advance(DAY)
            await stores.create(new_job(stores.clock.now(), owner="a"))
            pruning = PruningStore(stores.database)
            assert await pruning.prune_oddments(stores.term, MONTH) == 0
            stores.clock.advance(DAY)
            assert await pruning.prune_oddments(stores.term, MONTH) == 1
            assert await stores.count("owner_days") == 1

    run(scenario())


class Tenure:
    """A term that a test holds in its hands."""

    def __init__(self, term: int | None) -> None:
        self.term = term


class Rooms:
    """The stores of housekeeping; `stop_after` pieces of pruning the term is lost."""

    def __init__(self, stores: Stores, tenure: Tenure) -> None:
        pruning = PruningStore(stores.database)
        self._prune_jobs_of = pruning.prune_jobs_of
        self._tenure = tenure
        self.stop_after: int | None = None
        self.forget_workers = stores.leading.forget_workers
        self.term_holds = stores.leading.term_holds
        self.tend_history = MaintenanceStore(stores.database).tend_history
        self.prune_failed = pruning.prune_failed
        self.prune_request_ids = pruning.prune_request_ids
        self.prune_oddments = pruning.prune_oddments

    async def prune_jobs_of(self, term: int, partition: str, after: UUID) -> tuple[Pruned, UUID | None]:
        if self.stop_after is not None:
            if self.stop_after == 0:
                self._tenure.term = None
            self.stop_after -= 1
        return await self._prune_jobs_of(term, partition, after)


async def made_long_ago(stores: Stores) -> date:
    """A day that has passed, with a partition."""
    day = stores.clock.now().date() - DAY * 5
    await make_partition(stores, day)
    return day


def test_a_round_prunes_whole_days_and_what_a_lost_term_leaves_the_next_round_does(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.storage.pruning.PIECE_ROWS", 30)

    async def scenario() -> None:
        clock = ManualClock(SystemClock().now())
        async with open_stores(database_url, clock) as stores:
            tenure, old = Tenure(await stores.lead()), await made_long_ago(stores)
            now = clock.now()
            schedules = [once(now) for _ in range(100)]
            await stores.create(*(new_job(now, schedule=schedule) for schedule in schedules))
            await stores.release()
            worker = await stores.worker()
            for claim in await stores.claim(worker, *(schedule.plan_uid for schedule in schedules)):
                assert await stores.record(claim)
            await stores.query("UPDATE execution_history SET prune_day = %s", old)
            rooms = Rooms(stores, tenure)
            rooms.stop_after = 1
            housekeeper = Housekeeper(tenure, rooms, SystemClock(), keep_failed=MONTH, failed_targets=[CLEANUP])
            assert await housekeeper.tick() == STANDBY_PAUSE
            half = await stores.count("jobs")
            assert 0 < half < 100
            assert await stores.count("execution_history") == 100
            assert await housekeeper.tick() == STANDBY_PAUSE
            tenure.term, rooms.stop_after = stores.term, None
            assert await housekeeper.tick() == ROUND_PAUSE
            counts = [await stores.count(table) for table in ("jobs", "schedules", "execution_history")]
            assert counts == [0, 0, 0]
            assert await stores.query("SELECT to_regclass(%s) AS name", name_of(old)) == [{"name": None}]

    run(scenario())


def test_who_was_replaced_and_does_not_know_it_drops_no_day(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock(SystemClock().now())
        async with open_stores(database_url, clock) as stores:
            tenure, old = Tenure(await stores.lead()), await made_long_ago(stores)
            await finish(stores, await stores.one_off())
            await stores.query("UPDATE execution_history SET prune_day = %s", old)
            await stores.query("UPDATE leadership SET term = term + 1")
            housekeeper = Housekeeper(
                tenure, Rooms(stores, tenure), SystemClock(), keep_failed=MONTH, failed_targets=[CLEANUP]
            )
            await housekeeper.tick()
            counts = [await stores.count(table) for table in ("jobs", "schedules", "execution_history")]
            assert counts == [1, 1, 1]

    run(scenario())


def test_request_ids_are_walked_through_once_a_day(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock(SystemClock().now())
        async with open_stores(database_url, clock) as stores:
            tenure = Tenure(await stores.lead())
            await stores.query(
                "INSERT INTO request_ids (principal, request_id, digest, answer, create_time, gone_time) "
                "VALUES ('p', 'r', '', '{}', now() - interval '9 days', now() - interval '2 days')"
            )
            housekeeper = Housekeeper(tenure, Rooms(stores, tenure), clock, keep_failed=MONTH, failed_targets=[])
            assert await housekeeper.tick() == ROUND_PAUSE
            assert await stores.count("request_ids") == 0
            await stores.query(
                "INSERT INTO request_ids (principal, request_id, digest, answer, create_time, gone_time) "
                "VALUES ('p', 'r', '', '{}', now() - interval '9 days', now() - interval '2 days')"
            )
            await housekeeper.tick()
            assert await stores.count("request_ids") == 1
            clock.advance(timedelta(seconds=WALK_PAUSE))
            await housekeeper.tick()
            assert await stores.count("request_ids") == 0

    run(scenario())


def test_dead_workers_are_forgotten_by_the_leader_alone(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock(SystemClock().now())
        async with open_stores(database_url, clock) as stores:
            await stores.lead()
            await stores.worker(ttl=timedelta(seconds=6))
            clock.advance(DAY * 2)
            for term, left in ((None, 1), (stores.term, 0)):
                tenure = Tenure(term)
                housekeeper = Housekeeper(tenure, Rooms(stores, tenure), clock, keep_failed=MONTH, failed_targets=[])
                await housekeeper.tick()
                assert await stores.count("workers") == left

    run(scenario())


def test_the_target_of_messages_is_not_among_those_whose_failures_go() -> None:
    found = prunable_targets(TargetTable())
    assert SEND not in found
    assert "notification.NotificationService/SendDelayedNotification" not in found
    assert CLEANUP in found


def test_a_schedule_that_changes_while_its_job_is_pruned_is_not_left_behind(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, AsyncExitStack() as stack:
            await stores.lead()
            day = prune_day(stores)
            await make_partition(stores, day)
            for uid in [await stores.one_off() for _ in range(3)]:
                await finish(stores, uid)
            stores.clock.advance(MONTH + DAY * 3)
            other = await stack.enter_async_context(await psycopg.AsyncConnection.connect(stores.url))
            await other.execute("UPDATE schedules SET zone_version = 'next'")
            patient = await stack.enter_async_context(
                Database(stores.url, application="tests", hot_timeout=MINUTE, now=stores.clock.now)
            )
            pruning = asyncio.create_task(PruningStore(patient).prune_jobs_of(stores.term, name_of(day), FIRST))
            await asyncio.wait_for(somebody_waits_for_a_lock(stores), 30)
            await other.commit()
            assert (await pruning)[0] == Pruned(3, 3)
            assert [await stores.count(table) for table in ("jobs", "schedules")] == [0, 0]

    run(scenario())


def test_failures_are_pruned_beside_a_redrive_without_waiting_for_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, AsyncExitStack() as stack:
            await stores.lead()
            uids = [await stores.one_off(target=CLEANUP) for _ in range(3)]
            for uid in uids:
                await finish(stores, uid, State.FAILED)
            stores.clock.advance(MONTH * 2)
            other = await stack.enter_async_context(await psycopg.AsyncConnection.connect(stores.url))
            # A redrive that has locked the job and not yet the execution.
            await other.execute(
                "SELECT FROM jobs WHERE uid = (SELECT job_uid FROM executions WHERE uid = %s) FOR SHARE", [uids[0]]
            )
            pruning = PruningStore(stores.database)
            assert await pruning.prune_failed(stores.term, MONTH, [CLEANUP]) == Pruned(2, 2, 2)
            await other.execute("SELECT FROM executions WHERE uid = %s FOR UPDATE", [uids[0]])
            await other.commit()
            assert await pruning.prune_failed(stores.term, MONTH, [CLEANUP]) == Pruned(1, 1, 1)

    run(scenario())
