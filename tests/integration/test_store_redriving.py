"""Redrive: a dead letter is tried again as the same execution, once, and never behind the back of its job."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduling.delivery.targets import TargetTable
from scheduling.domain.errors import AlreadyExists, NotFound, WrongState
from scheduling.domain.ids import execution_id, uuid7
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.lifecycle import TRANSITIONS, Event, State
from scheduling.operations import executions, jobs
from scheduling.operations.drafts import Repeat
from scheduling.operations.ports import NewBackfill
from scheduling.storage.backfilling import BackfillStore
from tests.integration.test_operations_repeats import ports_of
from tests.support.builders import new_job, once
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores

PRINCIPAL = "spiffe://cluster.local/ns/whispr/sa/messaging-service"
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
UNAVAILABLE = 14


async def dead_letter(stores: Stores, **of_job: Any) -> tuple[Job, UUID]:
    """A job whose only execution has failed after one call."""
    schedule = once(stores.clock.now())
    (job,) = await stores.create(new_job(stores.clock.now(), schedule=schedule, **of_job))
    (claim,) = await stores.running(await stores.worker(), schedule.plan_uid)
    await stores.record(claim, State.FAILED, reason="ATTEMPTS_EXHAUSTED", code=UNAVAILABLE, message="no")
    return job, schedule.plan_uid


async def redrive(stores: Stores, uid: UUID, request_id: str = "", digest: bytes = b"") -> bool:
    return await stores.store.redrive(uid, PRINCIPAL, request_id, digest)


def test_a_dead_letter_goes_on_as_the_same_execution_with_a_new_budget_and_age(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job, uid = await dead_letter(stores)
            before = await stores.row(uid)
            stores.clock.advance(3 * DAY)
            now = stores.clock.now()
            assert await redrive(stores, uid)
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["attempt"], row["counted"]) == ("PENDING", "", 1, 0)
            assert (row["ready_time"], row["expire_time"]) == (now, now + job.retry_policy.max_age)
            assert (row["finish_time"], row["nominal_time"]) == (None, before["nominal_time"])
            assert row["attempts"] == before["attempts"]
            # The second call is attempt 2 of the same uid, under the request of the first.
            (claim,) = await stores.running(await stores.worker(), uid)
            assert (claim.uid, claim.attempt, claim.counted) == (uid, 2, 0)
            assert await stores.record(claim, State.SUCCEEDED)
            ended = await stores.read(job.job_id, uid)
            assert (ended.state, [each.number for each in ended.attempts]) == (State.SUCCEEDED, [1, 2])
            assert ended.lateness == timedelta(0)

    run(scenario())


@pytest.mark.parametrize("state", [state for state in State if state is not State.FAILED])
def test_only_what_has_failed_is_redriven(database_url: str, state: State) -> None:
    assert (state, Event.REDRIVE) not in TRANSITIONS

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off()
            if state in (State.QUEUED, State.RUNNING, State.SUCCEEDED):
                await stores.release()
            if state in (State.RUNNING, State.SUCCEEDED):
                (claim,) = await stores.claim(await stores.worker(), uid)
                if state is State.SUCCEEDED:
                    await stores.record(claim)
            if state in (State.CANCELLED, State.SKIPPED):
                (row,) = await stores.query("SELECT job_id FROM jobs")
                await stores.store.cancel_execution(row["job_id"], uid)
                await stores.query("UPDATE execution_history SET state = %s", state.value)
            assert await stores.state(uid) is state
            assert not await redrive(stores, uid)
            assert await stores.state(uid) is state

    run(scenario())


def test_of_many_redrives_at_once_one_moves_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            _, uid = await dead_letter(stores)
            moved = await asyncio.gather(*(redrive(stores, uid) for _ in range(8)))
            assert sorted(moved) == [False] * 7 + [True]

    run(scenario())


def test_a_redriven_execution_is_no_new_firing_even_if_it_was_never_called(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await stores.recurring(MINUTE, overlap=OverlapPolicy.SKIP)
            stores.clock.advance(MINUTE)
            await stores.advance()
            (uid,) = [row["uid"] for row in await stores.plans(job) if row["nominal_time"] <= stores.clock.now()]
            await stores.query(
                "UPDATE executions SET state = 'FAILED', reason = 'EXPIRED', finish_time = ready_time WHERE uid = %s",
                uid,
            )
            fired = "SELECT fired_count FROM schedules"
            before = await stores.query(fired)
            assert await redrive(stores, uid)
            assert await stores.released() == [uid]
            assert await stores.query(fired) == before

    run(scenario())


def test_a_cancelled_job_stays_ended(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job, uid = await dead_letter(stores)
            await stores.store.cancel_job(job.job_id, None)
            assert not await redrive(stores, uid)
            assert await stores.state(uid) is State.FAILED

    run(scenario())


def test_redrive_against_cancel_leaves_nothing_waiting_in_a_cancelled_job(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            letters = [await dead_letter(stores) for _ in range(20)]
            calls = []
            for job, uid in letters:
                calls += [redrive(stores, uid), stores.store.cancel_job(job.job_id, None)]
            await asyncio.gather(*calls)
            assert await stores.query("SELECT uid FROM executions WHERE state <> 'FAILED'") == []

    run(scenario())


def test_redrive_against_delete_leaves_nothing_behind(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            letters = [await dead_letter(stores) for _ in range(20)]
            calls: list[Any] = []
            for job, uid in letters:
                calls += [redrive(stores, uid), stores.store.delete_job(job, force=True)]
            await asyncio.gather(*calls)
            assert await stores.count("executions") == 0

    run(scenario())


def test_a_repeat_moves_nothing_even_when_it_has_failed_once_more(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            job, uid = await dead_letter(stores)
            name = (job.job_id, execution_id(uid))
            repeat = Repeat("again-1", b"digest")
            first = await executions.retry_execution(ports, PRINCIPAL, *name, repeat)
            assert first.state is State.PENDING
            assert (await executions.retry_execution(ports, PRINCIPAL, *name, repeat)).state is State.PENDING
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.record(claim, State.FAILED, reason="PERMANENT", code=3)
            again = await executions.retry_execution(ports, PRINCIPAL, *name, repeat)
            assert (again.state, again.attempt) == (State.FAILED, 2)
            with pytest.raises(AlreadyExists):
                await executions.retry_execution(ports, PRINCIPAL, *name, Repeat("again-1", b"other"))
            assert (await executions.retry_execution(ports, PRINCIPAL, *name, Repeat())).state is State.PENDING

    run(scenario())


def test_the_same_redrive_twice_at_once_is_answered_twice_and_made_once(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            job, uid = await dead_letter(stores)
            repeat = Repeat("again-1", b"digest")
            calls = [
                executions.retry_execution(ports, PRINCIPAL, job.job_id, execution_id(uid), repeat) for _ in range(4)
            ]
            assert {each.state for each in await asyncio.gather(*calls)} == {State.PENDING}
            assert await stores.count("request_ids") == 1

    run(scenario())


def test_what_cannot_be_redriven_is_told_why(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            job, uid = await dead_letter(stores)
            waiting = await stores.one_off()
            (other,) = await stores.query(
                "SELECT job_id FROM jobs WHERE uid = (SELECT job_uid FROM executions WHERE uid = %s)", waiting
            )
            with pytest.raises(WrongState) as caught:
                await executions.retry_execution(
                    ports, PRINCIPAL, other["job_id"], execution_id(waiting), Repeat("r", b"")
                )
            assert caught.value.reason == "NOT_FAILED"
            await jobs.cancel_job(ports, job.job_id, "")
            with pytest.raises(WrongState) as caught:
                await executions.retry_execution(ports, PRINCIPAL, job.job_id, execution_id(uid), Repeat("r", b""))
            assert caught.value.reason == "JOB_CANCELLED"
            # A refused call does not use its request_id up.
            assert await stores.count("request_ids") == 0
            with pytest.raises(NotFound):
                await executions.retry_execution(ports, PRINCIPAL, other["job_id"], execution_id(uid), Repeat())

    run(scenario())


# --- a job that goes takes its backfills along ------------------------------------------------------------------------


async def backfilled(stores: Stores) -> Job:
    """A job with a backfill that has hours to go."""
    job = await stores.recurring(MINUTE)
    schedule = await stores.store.get_schedule(
        job.job_id, (await stores.query("SELECT * FROM schedules"))[0]["schedule_id"]
    )
    assert schedule is not None
    backfill = NewBackfill(
        uid=uuid7(START),
        schedule=schedule,
        start=START - DAY,
        end=START,
        total=1440,
        rate=10,
        overlap_policy=OverlapPolicy.ALLOW_ALL,
        principal=PRINCIPAL,
    )
    await stores.store.add_backfill(backfill)
    return job


def test_a_deleted_job_leaves_no_backfill_behind(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await backfilled(stores)
            with pytest.raises(WrongState):
                await stores.store.delete_job(job, force=False)
            assert await stores.count("backfills") == 1
            assert await stores.store.delete_job(job, force=True)
            assert await stores.count("backfills") == 0
            assert await BackfillStore(stores.database).step_backfills(await stores.lead()) == 0
            assert await stores.count("executions") == 0

    run(scenario())


def test_a_step_of_a_backfill_against_the_deletion_of_its_job_leaves_no_orphans(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            for _ in range(10):
                job = await backfilled(stores)
                await asyncio.gather(
                    BackfillStore(stores.database).step_backfills(term), stores.store.delete_job(job, force=True)
                )
                assert await stores.count("executions") == 0
                assert await stores.count("backfills") == 0

    run(scenario())


def test_a_deleted_schedule_leaves_no_backfill_behind(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await backfilled(stores)
            (row,) = await stores.query("SELECT schedule_id FROM schedules")
            schedule = await stores.store.get_schedule(job.job_id, row["schedule_id"])
            assert schedule is not None
            assert await stores.store.delete_schedule(schedule)
            assert await stores.count("backfills") == 0

    run(scenario())


def test_a_step_of_a_backfill_against_the_cancellation_of_its_job_leaves_nothing_waiting(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            for _ in range(5):
                job = await backfilled(stores)
                await asyncio.gather(
                    BackfillStore(stores.database).step_backfills(term), stores.store.cancel_job(job.job_id, None)
                )
                assert await stores.query("SELECT 1 FROM executions WHERE job_uid = %s", job.uid) == []
                assert await stores.query("SELECT state FROM backfills WHERE job_uid = %s", job.uid) == [
                    {"state": "CANCELLED"}
                ]
                await stores.store.delete_job(job, force=True)

    run(scenario())
