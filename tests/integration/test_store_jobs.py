"""Jobs and executions as callers read, list, change, cancel and delete them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scheduling.domain.errors import AlreadyExists, WrongState
from scheduling.domain.execution import Reason
from scheduling.domain.filters import parse_filter
from scheduling.domain.ids import uuid7
from scheduling.domain.job import Job, JobState, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.operations import jobs as job_cases
from scheduling.operations.ports import JobChange, NewRun, PageRequest
from tests.support.builders import PRINCIPAL, QUICK, creation, every, new_job, once, send_request
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import Stores, open_stores
from tests.support.walking import walk

NOW = START
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


async def matching(stores: Stores, text: str) -> set[str]:
    """The ids of the jobs that a filter finds."""
    filter_ = parse_filter(text, job_cases.JOB_FIELDS)
    items, _ = await stores.store.list_jobs(PageRequest(1000, "create_time", descending=False, filter=filter_))
    return {job.job_id for job in items}


async def one(stores: Stores, **of_job: Any) -> Job:
    now = stores.clock.now()
    return (await stores.create(new_job(now, schedule=once(now, now + HOUR), **of_job)))[0]


async def read(stores: Stores, job: Job) -> Job:
    found = await stores.store.get_job(job.job_id, with_payload=True)
    assert found is not None
    return found


# --- reading and listing ----------------------------------------------------------------------------------------------


def test_an_unknown_job_is_none(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            assert await stores.store.get_job("nobody", with_payload=True) is None

    run(scenario())


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", ["create_time", "job_id"])
def test_a_walk_over_pages_of_any_size_is_the_whole_list(database_url: str, order: str, descending: bool) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            made: list[Job] = []
            for n in range(23):
                # Ids in another order than creation; several jobs in the same instant.
                made += await stores.create(new_job(stores.clock.now(), job_id=f"job-{n * 7 % 23:02}-{n}"))
                stores.clock.advance(0.0005)
            key: Callable[[Job], Any] = (lambda job: job.job_id) if order == "job_id" else (lambda job: job.uid)
            expected = sorted((job.job_id for job in made), key={job.job_id: key(job) for job in made}.__getitem__)
            if descending:
                expected.reverse()
            for size in (1, 2, 5, 22, 23, 24, 1000):
                found = await walk(stores.store.list_jobs, size, order, descending=descending)
                assert [job.job_id for job in found] == expected

    run(scenario())


def test_jobs_that_come_and_go_between_pages_neither_hide_nor_repeat_others(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            jobs = await stores.create(*(new_job(NOW, job_id=f"job-{n}0") for n in range(1, 7)))
            first, after = await stores.store.list_jobs(PageRequest(3, "job_id", descending=False))
            await stores.store.delete_job(jobs[2], force=True)  # the last one shown
            await stores.store.delete_job(jobs[4], force=True)
            await stores.create(new_job(NOW, job_id="job-15"), new_job(NOW, job_id="job-45"))
            second, after = await stores.store.list_jobs(PageRequest(3, "job_id", descending=False, after=after))
            assert [job.job_id for job in first] == ["job-10", "job-20", "job-30"]
            assert [job.job_id for job in second] == ["job-40", "job-45", "job-60"]
            assert after is None

    run(scenario())


def test_jobs_are_found_by_each_of_their_fields(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            a = new_job(
                NOW,
                job_id="alpha",
                display_name="Daily digest",
                owner="ann",
                labels={"team": "chat"},
                schedule=once(NOW),
            )
            b = new_job(
                NOW,
                job_id="beta",
                display_name="100% off_",
                owner="bob",
                queue=Queue.LOW,
                target="media.MediaService/CleanupTempFiles",
                principal="spiffe://cluster.local/ns/whispr/sa/media-service",
                labels={"team": "media", "a.b": "x"},
            )
            await stores.create(a)
            stores.clock.advance(60)
            await stores.create(b)
            await stores.store.cancel_job("beta", None)
            for text, expected in {
                'job_id = "alpha"': {"alpha"},
                'display_name = "Daily*"': {"alpha"},
                'display_name = "*digest"': {"alpha"},
                'display_name = "*0% off_*"': {"beta"},
                'display_name = "*_o*"': set(),
                'target = "media.*"': {"beta"},
                "queue = LOW": {"beta"},
                "queue != LOW": {"alpha"},
                'owner = "ann"': {"alpha"},
                'principal = "*media-service"': {"beta"},
                "state = ACTIVE": {"alpha"},
                "state = CANCELLED": {"beta"},
                "NOT state = CANCELLED": {"alpha"},
                'create_time > "2031-07-01T12:00:30Z"': {"beta"},
                'create_time <= "2031-07-01T14:00:00+02:00"': {"alpha"},
                'update_time >= "2031-07-01T12:01:00Z"': {"beta"},
                'labels.team = "chat"': {"alpha"},
                "labels.team:*": {"alpha", "beta"},
                'labels."a.b" = "x"': {"beta"},
                'labels.none != "x"': set(),
                'NOT labels.none = "x"': {"alpha", "beta"},
                'owner = "ann" OR owner = "bob" queue = LOW': {"beta"},
                'owner = "ann" AND queue = LOW': set(),
            }.items():
                assert await matching(stores, text) == expected, text

    run(scenario())


def test_a_job_is_active_until_nothing_is_ahead_or_open_and_then_completed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            (unused,) = await stores.create(new_job(NOW))
            schedule = once(NOW)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            assert (await read(stores, unused)).state is JobState.ACTIVE
            assert (await read(stores, job)).next_fire_time == NOW
            await stores.release()
            assert (await read(stores, job)).state is JobState.ACTIVE
            (claim,) = await stores.claim(worker, schedule.plan_uid)
            running = await read(stores, job)
            assert (running.state, running.next_fire_time) == (JobState.ACTIVE, None)
            await stores.record(claim)
            assert (await read(stores, job)).state is JobState.COMPLETED
            recurring = await stores.recurring()
            assert (await read(stores, recurring)).state is JobState.ACTIVE
            await stores.store.cancel_job(recurring.job_id, None)
            assert (await read(stores, recurring)).state is JobState.CANCELLED
            assert await matching(stores, "state = COMPLETED") == {job.job_id}

    run(scenario())


def test_a_job_whose_only_execution_failed_is_completed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="fails")
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.record(claim, State.FAILED, reason=Reason.PERMANENT, code=3)
            job = await stores.store.get_job("fails", with_payload=False)
            assert job is not None
            assert job.state is JobState.COMPLETED

    run(scenario())


def test_lists_of_many_jobs_created_in_one_instant_stay_whole(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, ManualClock()) as stores:
            jobs = await stores.store.create(creation(*(new_job(NOW, schedule=once(NOW)) for _ in range(120))))
            found = await walk(stores.store.list_jobs, 7, "create_time", descending=True)
            assert sorted(job.uid for job in found) == sorted(job.uid for job in jobs)

    run(scenario())


# --- changing ---------------------------------------------------------------------------------------------------------


def test_a_change_changes_what_it_names_and_the_revision(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await one(stores, display_name="before", labels={"a": "1"})
            stores.clock.advance(5)
            policy = RetryPolicy(max_attempts=2, max_age=timedelta(hours=3))
            changed = await stores.store.update_job(
                job,
                JobChange(
                    display_name="after", queue=Queue.LOW, retry_policy=policy, timeout=SECOND, labels={"b": "2"}
                ),
            )
            assert changed == await read(stores, job)
            assert changed is not None
            assert changed == replace(
                job,
                display_name="after",
                queue=Queue.LOW,
                retry_policy=policy,
                timeout=SECOND,
                labels={"b": "2"},
                revision=2,
                update_time=NOW + 5 * SECOND,
            )
            (plan,) = await stores.plans(job)
            assert plan["queue"] == "LOW"
            assert plan["expire_time"] == plan["due_time"] + timedelta(hours=3)

    run(scenario())


def test_of_two_changes_of_one_revision_one_wins(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as one_server, open_stores(database_url) as two:
            job = await one(one_server)
            for _ in range(10):
                job = await read(one_server, job)
                answers = await asyncio.gather(
                    one_server.store.update_job(job, JobChange(display_name="one")),
                    two.store.update_job(job, JobChange(display_name="two")),
                    two.store.update_job(job, JobChange(timeout=SECOND)),
                )
                (won,) = [answer for answer in answers if answer is not None]
                assert won.revision == job.revision + 1
                assert await read(one_server, job) == won

    run(scenario())


def test_a_change_of_a_job_that_was_deleted_and_made_anew_finds_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await one(stores, job_id="again")
            await stores.store.delete_job(job, force=True)
            await one(stores, job_id="again")
            assert await stores.store.update_job(job, JobChange(display_name="x")) is None

    run(scenario())


def test_the_overlap_policy_reaches_what_waits_and_can_be_cleared(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job: Job | None = await stores.recurring()
            assert job is not None
            for change, column, policy in (
                (JobChange(overlap_policy=OverlapPolicy.BUFFER_ALL), "BUFFER_ALL", OverlapPolicy.BUFFER_ALL),
                (JobChange(overlap_policy=OverlapPolicy.ALLOW_ALL), None, OverlapPolicy.ALLOW_ALL),
                (JobChange(clear_overlap_policy=True), "SKIP", None),
            ):
                job = await stores.store.update_job(job, change)
                assert job is not None
                assert job.overlap_policy is policy
                assert [plan["overlap"] for plan in await stores.plans(job)] == [column]

    run(scenario())


def test_an_execution_that_was_claimed_before_keeps_its_request_and_others_get_the_new_one(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            first, second = once(NOW), once(NOW, NOW + HOUR)
            (job,) = await stores.create(new_job(NOW, schedule=first, request=send_request("old")))
            await stores.store.add_schedule(job, second, principal=PRINCIPAL, request_id="", digest=b"", limit=100)
            (claim,) = await stores.running(worker, first.plan_uid)
            changed = await stores.store.update_job(job, JobChange(request=send_request("new")))
            assert changed is not None
            await stores.record(claim, State.PENDING, code=14)
            (again,) = await stores.running(worker, first.plan_uid)
            assert again.request == send_request("old")
            stores.clock.advance(HOUR)
            (other,) = await stores.running(worker, second.plan_uid)
            assert other.request == send_request("new")
            # And a second change does not reach what was claimed either.
            await stores.store.update_job(changed, JobChange(request=send_request("newest")))
            await stores.record(other, State.PENDING, code=14)
            (last,) = await stores.running(worker, second.plan_uid)
            assert last.request == send_request("new")
            assert (await stores.row(first.plan_uid))["job_revision"] == 1
            assert (await stores.row(second.plan_uid))["job_revision"] == 2

    run(scenario())


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancelling_a_job_ends_what_waits_asks_what_runs_and_stops_its_schedules(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            running, queued = once(NOW), once(NOW)
            (job,) = await stores.create(new_job(NOW, schedule=running))
            (claim,) = await stores.running(worker, running.plan_uid)
            for schedule in (queued, every(NOW, timedelta(minutes=1))):
                await stores.store.add_schedule(job, schedule, principal=PRINCIPAL, request_id="", digest=b"", limit=9)
            await stores.release()
            states = sorted(plan["state"] for plan in await stores.plans(job))
            assert states == ["PENDING", "QUEUED", "RUNNING"]
            stores.clock.advance(1)
            cancelled = await stores.store.cancel_job(job.job_id, job.revision)
            assert cancelled is not None
            assert (cancelled.state, cancelled.revision) == (JobState.CANCELLED, 2)
            assert cancelled.cancel_time == NOW + SECOND
            (left,) = await stores.plans(job)
            assert (left["state"], left["cancel_request_time"]) == ("RUNNING", NOW + SECOND)
            ended = await stores.history(job)
            assert [(row["state"], row["reason"], row["finish_time"]) for row in ended] == [
                ("CANCELLED", "CALLER", NOW + SECOND)
            ] * 2
            assert await stores.delivering.cancellations(worker) == {claim.token}
            stores.clock.advance(HOUR)
            assert (await stores.advance()).plans == 0
            # Again changes nothing more.
            again = await stores.store.cancel_job(job.job_id, None)
            assert again is not None
            assert again.revision == 2

    run(scenario())


def test_cancelling_at_another_revision_finds_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await one(stores)
            assert await stores.store.cancel_job(job.job_id, 7) is None
            assert await stores.store.cancel_job("nobody", None) is None
            assert (await read(stores, job)).state is JobState.ACTIVE

    run(scenario())


@pytest.mark.parametrize("stage", ["PENDING", "QUEUED", "RUNNING"])
def test_cancelling_an_execution_depends_on_where_it_stands(database_url: str, stage: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uid = await stores.one_off(job_id="job", retention_days=7)
            claims = []
            if stage != "PENDING":
                await stores.release()
            if stage == "RUNNING":
                claims = list(await stores.claim(worker, uid))
            stores.clock.advance(1)
            await stores.store.cancel_execution("job", uid)
            if stage == "RUNNING":
                assert (await stores.row(uid))["cancel_request_time"] == NOW + SECOND
                assert await stores.record(claims[0], State.CANCELLED, reason=Reason.CALLER, code=1)
            ended = await stores.ended(uid)
            assert (ended["state"], ended["reason"]) == ("CANCELLED", "CALLER")
            assert ended["prune_day"] == (NOW + timedelta(days=8)).date()
            found = await stores.read("job", uid)
            assert found.state is State.CANCELLED
            # One that has ended is left alone.
            await stores.store.cancel_execution("job", uid)
            assert await stores.read("job", uid) == found

    run(scenario())


def test_an_execution_of_another_job_cannot_be_cancelled(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="mine")
            await stores.one_off(job_id="other")
            await stores.store.cancel_execution("other", uid)
            assert await stores.state(uid) is State.PENDING
            assert await stores.store.get_execution("other", uid, with_payload=True) is None

    run(scenario())


def test_a_cancel_and_a_claim_at_once_lead_to_exactly_one_of_both(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, open_stores(database_url) as other:
            worker = await stores.worker()
            for n in range(30):
                uid = await stores.one_off(job_id=f"race-{n}")
                await stores.release()
                claims, _ = await asyncio.gather(
                    stores.claim(worker, uid), other.store.cancel_execution(f"race-{n}", uid)
                )
                state = await stores.state(uid)
                assert state is (State.RUNNING if claims else State.CANCELLED)
                if claims:
                    assert (await stores.row(uid))["cancel_request_time"] is not None

    run(scenario())


# --- deleting and running ---------------------------------------------------------------------------------------------


def test_a_job_with_plans_is_deleted_by_force_only_with_everything_of_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            schedule = once(NOW)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            (claim,) = await stores.running(worker, schedule.plan_uid)
            await stores.record(claim)
            await stores.store.add_schedule(
                job, every(NOW, timedelta(minutes=1)), principal=PRINCIPAL, request_id="", digest=b"", limit=9
            )
            keeper = await one(stores)
            with pytest.raises(WrongState) as refused:
                await stores.store.delete_job(job, force=False)
            assert refused.value.reason == "NOT_FINISHED"
            await stores.store.delete_job(job, force=True)
            assert await stores.store.get_job(job.job_id, with_payload=False) is None
            assert await stores.plans(job) == []
            assert await stores.history(job) == []
            assert [row["job_uid"] for row in await stores.query("SELECT job_uid FROM schedules")] == [keeper.uid]
            await stores.store.delete_job(job, force=True)  # gone already

    run(scenario())


@pytest.mark.parametrize("force", [False, True])
def test_a_running_job_is_never_deleted(database_url: str, force: bool) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = once(NOW)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            await stores.running(await stores.worker(), schedule.plan_uid)
            with pytest.raises(WrongState):
                await stores.store.delete_job(job, force=force)
            assert await stores.state(schedule.plan_uid) is State.RUNNING

    run(scenario())


def test_a_completed_job_is_deleted_without_force(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = once(NOW)
            (job,) = await stores.create(new_job(NOW, schedule=schedule))
            (claim,) = await stores.running(await stores.worker(), schedule.plan_uid)
            await stores.record(claim)
            await stores.store.delete_job(job, force=False)
            assert await stores.store.get_execution(job.job_id, schedule.plan_uid, with_payload=False) is None

    run(scenario())


def run_of(job: Job, **more: Any) -> NewRun:
    values: dict[str, Any] = {"request": None, "request_type": None, **more}
    return NewRun(uid=uuid7(NOW), job_uid=job.uid, principal=PRINCIPAL, **values)


def test_a_manual_run_is_due_now_and_sends_its_own_request_if_it_has_one(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW))
            stores.clock.advance(3)
            uid = await stores.store.add_run(run_of(job))
            other = await stores.store.add_run(run_of(job, request=send_request("own"), request_type="x"))
            row = await stores.row(uid)
            assert (row["origin"], row["nominal_time"], row["ready_time"]) == (
                "MANUAL",
                NOW + 3 * SECOND,
                NOW + 3 * SECOND,
            )
            assert row["expire_time"] == NOW + 3 * SECOND + QUICK.max_age
            claims = await stores.running(await stores.worker(), uid, other)
            assert {claim.uid: claim.request for claim in claims} == {
                uid: send_request(),
                other: send_request("own"),
            }

    run(scenario())


def test_a_repeated_run_is_the_first_one(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, open_stores(database_url) as other:
            (job,) = await stores.create(new_job(NOW))
            runs = [run_of(job, request_id="r1", digest=b"d") for _ in range(6)]
            uids = await asyncio.gather(
                *(server.store.add_run(each) for server, each in zip([stores, other] * 3, runs, strict=True))
            )
            assert len(set(uids)) == 1
            assert await stores.count("executions") == 1
            with pytest.raises(AlreadyExists):
                await stores.store.add_run(run_of(job, request_id="r1", digest=b"other"))

    run(scenario())


def test_a_cancelled_or_deleted_job_cannot_be_run(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW))
            await stores.store.cancel_job(job.job_id, None)
            with pytest.raises(WrongState) as refused:
                await stores.store.add_run(run_of(job, request_id="r1"))
            assert refused.value.reason == "JOB_CANCELLED"
            await stores.store.delete_job(job, force=True)
            with pytest.raises(WrongState):
                await stores.store.add_run(run_of(job))
            assert await stores.count("request_ids") == 0

    run(scenario())
