"""Creation: what is accepted is durable, whole, and made once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from scheduling.domain.errors import AlreadyExists, QuotaExceeded, StoreUnavailable
from scheduling.domain.job import Creation, Job, JobState, NewJob, OverlapPolicy
from scheduling.domain.schedule import ScheduleState
from scheduling.domain.timing import Cron, Once, Timing
from scheduling.operations.ports import PageRequest
from scheduling.storage.jobs import JobStore
from tests.support.builders import PRINCIPAL, creation, every, job_spec, new_job, once
from tests.support.clock import START, ManualClock
from tests.support.proxy import Proxy
from tests.support.run import run
from tests.support.stores import Stores, open_stores

NOW = START
TABLES = ("jobs", "schedules", "executions", "request_ids")


async def counts(stores: Stores) -> dict[str, int]:
    return {table: await stores.count(table) for table in TABLES}


async def results(stores: Stores, *creations: Creation) -> list[list[Job] | BaseException]:
    """What becomes of creations that arrive at the same time."""
    found = await asyncio.gather(*(stores.store.create(each) for each in creations), return_exceptions=True)
    return [each if isinstance(each, BaseException) else list(each) for each in found]


def test_a_job_with_its_schedule_and_plan_is_there_for_another_process_when_the_call_returns(database_url: str) -> None:
    async def scenario() -> None:
        schedule = once(NOW, NOW + timedelta(hours=2))
        new = new_job(
            NOW, job_id="reminder", schedule=schedule, labels={"team": "chat"}, overlap=OverlapPolicy.BUFFER_ONE
        )
        async with open_stores(database_url) as stores:
            (made,) = await stores.create(new)
        async with open_stores(database_url) as other:
            job = await other.store.get_job("reminder", with_payload=True)
            assert job == made
            assert job is not None
            assert (job.state, job.revision, job.create_time) == (JobState.ACTIVE, 1, NOW)
            assert job.request == new.spec.request
            assert job.labels == {"team": "chat"}
            assert job.next_fire_time == NOW + timedelta(hours=2)
            stored = await other.store.get_schedule("reminder", schedule.schedule_id)
            assert stored == schedule.as_stored(new.uid, "reminder", NOW)
            assert stored.state is ScheduleState.ACTIVE
            plan = await other.read("reminder", schedule.plan_uid)
            assert (plan.state, plan.nominal_time, plan.ready_time) == (
                "PENDING",
                NOW + timedelta(hours=2),
                NOW + timedelta(hours=2),
            )
            assert plan.expire_time == plan.ready_time + new.spec.retry_policy.max_age
            assert plan.schedule_id == schedule.schedule_id

    run(scenario())


def test_a_job_without_a_schedule_has_no_plan(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(NOW))
            assert job.next_fire_time is None
            assert await counts(stores) == {"jobs": 1, "schedules": 0, "executions": 0, "request_ids": 0}
            read = await stores.store.get_job(job.job_id, with_payload=True)
            assert read == job

    run(scenario())


def test_a_recurring_schedule_is_accounted_for_up_to_its_first_plan(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = every(NOW, Cron("30 8 * * *"), time_zone="Europe/Paris", jitter=timedelta(minutes=5))
            new = new_job(NOW, schedule=schedule)
            await stores.create(new)
            stored = await stores.store.get_schedule_by_uid(schedule.uid)
            assert stored == schedule.as_stored(new.uid, new.job_id, NOW)
            assert stored is not None
            assert stored.evaluated_until == datetime(2031, 7, 2, 6, 30, tzinfo=UTC)
            plan = await stores.row(schedule.plan_uid)
            assert plan["recurring"]
            assert plan["overlap"] == "SKIP"
            assert plan["nominal_time"] <= plan["ready_time"] < plan["nominal_time"] + timedelta(minutes=5)

    run(scenario())


def test_a_taken_job_id_is_refused_and_nothing_of_the_call_is_stored(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.create(new_job(NOW, job_id="taken"))
            before = await counts(stores)
            batch = [new_job(NOW, schedule=once(NOW)) for _ in range(5)]
            with pytest.raises(AlreadyExists) as refused:
                await stores.store.create(
                    creation(*batch, new_job(NOW, job_id="taken", schedule=once(NOW)), request_id="again")
                )
            assert refused.value.resource_name == "jobs/taken"
            assert refused.value.reason == "RESOURCE_EXISTS"
            assert await counts(stores) == before
            # The request_id was not used up by the refusal.
            assert len(await stores.store.create(creation(*batch, request_id="again"))) == 5

    run(scenario())


def test_a_repeat_gets_the_jobs_of_the_first_call(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            first = await stores.store.create(
                creation(*(new_job(NOW, schedule=once(NOW)) for _ in range(3)), request_id="r1", digest=b"body")
            )
            again = await stores.store.create(
                creation(*(new_job(NOW, schedule=once(NOW)) for _ in range(3)), request_id="r1", digest=b"body")
            )
            assert list(again) == list(first)
            assert await counts(stores) == {"jobs": 3, "schedules": 3, "executions": 3, "request_ids": 1}

    run(scenario())


def test_repeats_that_arrive_together_are_answered_together(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reads = 0
        read = JobStore.get_jobs_by_uid

        async def counted(store: JobStore, uids: Sequence[UUID]) -> Sequence[Job]:
            nonlocal reads
            reads += 1
            return await read(store, uids)

        monkeypatch.setattr(JobStore, "get_jobs_by_uid", counted)
        async with open_stores(database_url) as stores:

            def call(n: int) -> Awaitable[Sequence[Job]]:
                return stores.store.create(creation(new_job(NOW, schedule=once(NOW)), request_id=f"r{n}"))

            firsts = await asyncio.gather(*(call(n) for n in range(40)))
            assert reads == 0
            # As after an outage: each caller has asked again, some more than once.
            again = await asyncio.gather(*(call(n % 40) for n in range(120)))
            assert [list(each) for each in again] == [list(firsts[n % 40]) for n in range(120)]
            assert reads <= 12
            assert await stores.count("jobs") == 40

    run(scenario())


def test_a_request_id_with_another_body_is_refused(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.store.create(creation(new_job(NOW), request_id="r1", digest=b"one"))
            with pytest.raises(AlreadyExists) as refused:
                await stores.store.create(creation(new_job(NOW), request_id="r1", digest=b"two"))
            assert refused.value.reason == "REQUEST_ID_REUSED"
            assert await stores.count("jobs") == 1

    run(scenario())


def test_a_request_id_belongs_to_its_principal(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for principal in ("spiffe://cluster.local/ns/whispr/sa/a", "spiffe://cluster.local/ns/whispr/sa/b"):
                await stores.store.create(creation(new_job(NOW, principal=principal), request_id="r1"))
            assert await stores.count("jobs") == 2

    run(scenario())


def test_a_repeat_after_the_job_was_deleted_is_told_so(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.store.create(creation(new_job(NOW), request_id="r1"))
            await stores.store.delete_job(job, force=False)
            with pytest.raises(AlreadyExists) as refused:
                await stores.store.create(creation(new_job(NOW), request_id="r1"))
            assert refused.value.reason == "REQUEST_ANSWER_DELETED"

    run(scenario())


def test_the_same_call_at_two_servers_at_once_makes_one_job(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as one, open_stores(database_url) as two:
            for n in range(20):
                calls = [creation(new_job(NOW, schedule=once(NOW)), request_id=f"r{n}") for _ in range(4)]
                answers = await asyncio.gather(
                    *(stores.store.create(call) for stores, call in zip((one, two, one, two), calls, strict=True))
                )
                assert len({answer[0].uid for answer in answers}) == 1
            assert await counts(one) == {"jobs": 20, "schedules": 20, "executions": 20, "request_ids": 20}

    run(scenario())


def test_the_same_job_id_at_two_servers_at_once_is_given_once(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as one, open_stores(database_url) as two:
            for n in range(20):
                found = [
                    *(await results(one, creation(new_job(NOW, job_id=f"same-{n}")))),
                    *(await results(two, creation(new_job(NOW, job_id=f"same-{n}")))),
                ]
                pair = await asyncio.gather(
                    results(one, *(creation(new_job(NOW, job_id=f"race-{n}")) for _ in range(2))),
                    results(two, *(creation(new_job(NOW, job_id=f"race-{n}")) for _ in range(2))),
                )
                assert [isinstance(each, AlreadyExists) for each in found] == [False, True]
                won = [each for each in pair[0] + pair[1] if not isinstance(each, BaseException)]
                lost = [each for each in pair[0] + pair[1] if isinstance(each, AlreadyExists)]
                assert (len(won), len(lost)) == (1, 3)

    run(scenario())


def test_calls_that_arrive_together_share_statements_and_each_gets_its_own_answer(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, size=4) as stores:
            news = [new_job(NOW, schedule=once(NOW)) for _ in range(32)]
            await stores.create(new_job(NOW))
            (before,) = await stores.query(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            )
            answers = await asyncio.gather(*(stores.store.create(creation(new)) for new in news))
            assert [answer[0].uid for answer in answers] == [new.uid for new in news]
            (made,) = await stores.query("SELECT count(DISTINCT xmin::text) AS commits, count(*) AS n FROM jobs")
            assert made["n"] == 33
            # One for the first job; the 32 share a few commits between them.
            assert made["commits"] <= 6
            assert before

    run(scenario())


def test_of_calls_that_share_a_statement_only_the_culprits_fail(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=3) as stores:
            await stores.create(new_job(NOW, job_id="taken", owner="z"))
            await stores.store.create(creation(new_job(NOW, owner="z"), request_id="used", digest=b"one"))
            calls = [
                *(creation(new_job(NOW, job_id=f"warm-{n}", owner=f"w{n}")) for n in range(4)),  # these fill the lanes
                creation(new_job(NOW, job_id="good-1", owner="a")),
                creation(new_job(NOW, job_id="taken", owner="a")),
                creation(new_job(NOW, job_id="good-2", owner="a")),
                creation(new_job(NOW, job_id="other-body", owner="a"), request_id="used", digest=b"two"),
                creation(*(new_job(NOW, owner="greedy") for _ in range(4))),
                creation(new_job(NOW, job_id="good-1", owner="a")),  # a twin within the group
                creation(new_job(NOW, job_id="good-3", owner="a")),
                creation(new_job(NOW, job_id="poison", owner="p", display_name="no\0text")),
                creation(new_job(NOW, job_id="good-4", owner="b")),
            ]
            found = await results(stores, *calls)
            kinds = [psycopg.DataError if isinstance(each, psycopg.DataError) else type(each) for each in found]
            assert kinds == [list] * 4 + [
                list,
                AlreadyExists,
                list,
                AlreadyExists,
                QuotaExceeded,
                AlreadyExists,
                list,
            ] + [
                psycopg.DataError,
                list,
            ]
            page = await stores.store.list_jobs(PageRequest(100, "job_id", descending=False))
            named = {job.job_id for job in page[0] if job.job_id.startswith(("good", "other"))}
            assert named == {"good-1", "good-2", "good-3", "good-4"}
            assert await stores.query("SELECT jobs FROM owner_days WHERE owner = 'a'") == [{"jobs": 3}]
            assert await stores.query("SELECT jobs FROM owner_days WHERE owner = 'greedy'") == []

    run(scenario())


def test_under_concurrency_exactly_the_quota_is_accepted(database_url: str) -> None:
    async def scenario() -> None:
        limit = 60
        async with (
            open_stores(database_url, owner_daily_jobs=limit) as one,
            open_stores(database_url, owner_daily_jobs=limit) as two,
        ):
            calls = [creation(new_job(NOW, owner="busy")) for _ in range(limit + 50)]
            half = len(calls) // 2
            found = await asyncio.gather(results(one, *calls[:half]), results(two, *calls[half:]))
            refused = [each for part in found for each in part if isinstance(each, BaseException)]
            assert len(refused) == 50
            for each in refused:
                assert isinstance(each, QuotaExceeded)
                assert each.subject == "owner:busy"
                assert each.metadata["limit"] == str(limit)
            assert await one.count("jobs") == limit
            assert await one.query("SELECT jobs FROM owner_days") == [{"jobs": limit}]

    run(scenario())


def test_a_member_over_quota_fails_alone(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=2) as stores:
            await stores.create(*(new_job(NOW, owner="full") for _ in range(2)))
            found = await results(
                stores, *(creation(new_job(NOW, owner=owner)) for owner in ("a", "b", "full", "c", "full", "d"))
            )
            assert [isinstance(each, QuotaExceeded) for each in found] == [False, False, True, False, True, False]

    run(scenario())


def test_a_batch_of_several_owners_of_whom_one_is_over_quota_changes_no_count(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=2) as stores:
            batch = [new_job(NOW, owner=owner) for owner in ("a", "b", "c", "b", "b")]
            with pytest.raises(QuotaExceeded) as refused:
                await stores.create(*batch)
            assert refused.value.subject == "owner:b"
            assert await stores.count("owner_days") == 0
            assert await stores.count("jobs") == 0

    run(scenario())


def test_the_quota_begins_anew_with_the_utc_day(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock(datetime(2031, 7, 1, 23, 59, 30, tzinfo=UTC))
        async with open_stores(database_url, clock, owner_daily_jobs=1) as stores:
            await stores.create(new_job(clock.now()))
            with pytest.raises(QuotaExceeded) as refused:
                await stores.create(new_job(clock.now()))
            assert refused.value.retry_after == timedelta(seconds=30)
            clock.advance(refused.value.retry_after)
            await stores.create(new_job(clock.now()))
            with pytest.raises(QuotaExceeded):
                await stores.create(new_job(clock.now()))

    run(scenario())


def test_by_the_database_s_own_clock_the_quota_ends_at_the_next_midnight(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=1, real_now=True) as stores:
            await stores.create(new_job(NOW))
            with pytest.raises(QuotaExceeded) as refused:
                await stores.create(new_job(NOW))
            assert timedelta(0) < refused.value.retry_after <= timedelta(days=1)

    run(scenario())


def test_the_exempt_owner_has_no_quota(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=1, exempt_owner=PRINCIPAL) as stores:
            await stores.create(*(new_job(NOW, owner=PRINCIPAL) for _ in range(5)))
            assert await stores.count("jobs") == 5
            assert await stores.count("owner_days") == 0

    run(scenario())


def test_a_repeat_is_not_charged_again(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=1) as stores:
            for _ in range(3):
                await stores.store.create(creation(new_job(NOW, owner="a"), request_id="r1"))
            assert await stores.query("SELECT jobs FROM owner_days") == [{"jobs": 1}]

    run(scenario())


def test_a_batch_of_a_thousand_is_stored_whole(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            jobs = await stores.create(*(new_job(NOW, schedule=once(NOW)) for _ in range(1000)))
            assert len(jobs) == 1000
            assert await counts(stores) == {"jobs": 1000, "schedules": 1000, "executions": 1000, "request_ids": 0}

    run(scenario())


def test_everything_a_job_can_say_comes_back_as_it_was_given(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            spec = job_spec(
                owner="ünïcode ☃",
                request=bytes(range(256)) * 100,
                display_name='It\'s a "test" \\ {braces} %s',
                labels={"a.b/c": "d", "empty": "", "quote": "'\""},
                retention_days=None,
                timeout=timedelta(milliseconds=1),
            )
            new = NewJob(new_job(NOW).uid, "odd", PRINCIPAL, spec, once(NOW, request=b"\x00\xff", request_type="x.Y"))
            await stores.create(new)
            job = await stores.store.get_job("odd", with_payload=True)
            assert job == new.as_created(NOW)
            assert new.schedule is not None
            schedule = await stores.store.get_schedule_by_uid(new.schedule.uid)
            assert schedule is not None
            assert (schedule.request, schedule.request_type) == (b"\x00\xff", "x.Y")
            plain = await stores.store.get_job("odd", with_payload=False)
            assert plain is not None
            assert (plain.request, plain.request_bytes) == (b"", 25600)

    run(scenario())


def test_a_one_off_remembers_the_delay_it_was_asked_for_with(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            schedule = once(NOW, NOW + timedelta(minutes=90))
            assert schedule.first_fire is not None
            timing = Timing(Once(schedule.first_fire, after=timedelta(minutes=90)))
            await stores.create(
                new_job(
                    NOW,
                    schedule=replace(schedule, timing=timing),
                )
            )
            stored = await stores.store.get_schedule_by_uid(schedule.uid)
            assert stored is not None
            assert stored.timing == timing
            assert stored.evaluated_until is None

    run(scenario())


def test_a_creation_whose_answer_was_lost_is_safe_to_repeat(database_url: str) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy, open_stores(proxy.url, size=1) as stores:
            await stores.create(new_job(NOW))
            call = creation(new_job(NOW, schedule=once(NOW)), request_id="r1")
            proxy.lose_next_answer(after=b"r1")
            with pytest.raises(StoreUnavailable):
                await stores.store.create(call)
            assert proxy.lost == 1
            (job,) = await stores.store.create(creation(new_job(NOW, schedule=once(NOW)), request_id="r1"))
            assert job.uid == call.jobs[0].uid

    run(scenario())


def test_without_the_store_a_call_is_refused_in_time_and_the_next_one_goes_through(database_url: str) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy, open_stores(proxy.url) as stores:
            await stores.create(new_job(NOW))
            proxy.refuse()
            with pytest.raises(StoreUnavailable):
                await stores.create(new_job(NOW))
            proxy.restore()
            while True:
                try:
                    await stores.create(new_job(NOW))
                    break
                except StoreUnavailable:
                    continue
            assert await stores.count("jobs") == 2

    run(scenario())
