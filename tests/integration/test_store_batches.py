"""Batches that are copied: as whole, as durable and as strictly counted as what goes in one statement."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from scheduling.domain.errors import AlreadyExists, QuotaExceeded, StoreUnavailable
from scheduling.domain.ids import JOB_PREFIX
from scheduling.domain.job import NewJob
from scheduling.storage.creation import COPY_FROM
from tests.support.builders import creation, new_job, once
from tests.support.clock import START
from tests.support.proxy import Proxy
from tests.support.run import PATIENCE, run
from tests.support.stores import Stores, open_stores

NOW = START
LONG = timedelta(seconds=PATIENCE)
TABLES = ("jobs", "schedules", "executions", "request_ids", "owner_days")


#: Whether the jobs of a batch have ids that the caller chose. Those that others may want too are written last.
both = pytest.mark.parametrize("chosen", [False, True], ids=["made", "chosen"])


def batch(*more: NewJob, owners: int = 7, chosen: bool = False) -> list[NewJob]:
    """Enough jobs to be copied, of some owners, and those given."""
    made = [new_job(NOW, owner=f"o-{n % owners}", schedule=once(NOW)) for n in range(COPY_FROM)]
    if not chosen:
        made = [replace(new, job_id=f"{JOB_PREFIX}{new.uid}", has_made_id=True) for new in made]
    return [*made, *more]


async def counts(stores: Stores) -> list[int]:
    return [await stores.count(table) for table in TABLES]


@both
def test_a_batch_is_stored_with_its_schedules_its_plans_and_its_counts(database_url: str, *, chosen: bool) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            jobs = batch(chosen=chosen)
            made = await stores.store.create(creation(*jobs, request_id="r"))
            assert [job.uid for job in made] == [new.uid for new in jobs]
            assert await counts(stores) == [COPY_FROM, COPY_FROM, COPY_FROM, 1, 7]
            assert await stores.query("SELECT sum(jobs)::int AS n FROM owner_days") == [{"n": COPY_FROM}]
            assert await stores.store.get_job(jobs[5].job_id, with_payload=True) == jobs[5].as_created(NOW)

    run(scenario())


@both
def test_a_batch_that_is_refused_leaves_nothing_behind(database_url: str, *, chosen: bool) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, owner_daily_jobs=30) as stores:
            await stores.store.create(creation(new_job(NOW, job_id="taken", owner="o-0"), request_id="used"))
            before = await counts(stores)
            with pytest.raises(AlreadyExists) as taken:
                await stores.store.create(creation(*batch(new_job(NOW, job_id="taken")), request_id="r"))
            assert taken.value.resource_name == "jobs/taken"
            with pytest.raises(AlreadyExists) as reused:
                await stores.store.create(creation(*batch(chosen=chosen), request_id="used", digest=b"another"))
            assert reused.value.reason == "REQUEST_ID_REUSED"
            with pytest.raises(QuotaExceeded) as over:
                await stores.store.create(creation(*batch(owners=2, chosen=chosen), request_id="r"))
            assert over.value.subject == "owner:o-0"
            assert await counts(stores) == before
            # Neither the request_id nor anybody's quota was used up by the refusals.
            assert (
                len(await stores.store.create(creation(*batch(owners=4, chosen=chosen), request_id="r"))) == COPY_FROM
            )

    run(scenario())


@both
def test_batches_at_two_servers_at_once_are_counted_exactly(database_url: str, *, chosen: bool) -> None:
    async def scenario() -> None:
        limit = 3 * COPY_FROM
        async with (
            open_stores(database_url, owner_daily_jobs=limit) as one,
            open_stores(database_url, owner_daily_jobs=limit) as two,
        ):
            calls = [
                stores.store.create(creation(*batch(owners=1, chosen=chosen)))
                for _ in range(4)
                for stores in (one, two)
            ]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(each, QuotaExceeded) for each in found) == 5
            assert await one.count("jobs") == limit
            assert await one.query("SELECT jobs FROM owner_days") == [{"jobs": limit}]

    run(scenario())


async def until_waiting(stores: Stores, count: int) -> None:
    """Returns when so many statements of creators wait for a lock."""
    asked = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database() AND query ~ '^COPY|owner_days'"
    )
    while (await stores.query(asked))[0]["n"] < count:
        continue


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_batch_and_a_call_with_the_same_id_and_owner_never_wait_for_each_other_in_a_circle(
    database_url: str, *, batch_first: bool
) -> None:
    async def scenario() -> None:
        async with (
            open_stores(database_url, hot_timeout=LONG) as one,
            open_stores(database_url, hot_timeout=LONG) as two,
        ):
            await one.create(new_job(NOW, owner="o-0"))
            calls = [creation(*batch(new_job(NOW, job_id="same"))), creation(new_job(NOW, job_id="same", owner="o-0"))]
            if not batch_first:
                calls.reverse()
            with psycopg.connect(database_url) as holder:
                holder.execute("SELECT FROM owner_days FOR UPDATE")
                first = asyncio.create_task(one.store.create(calls[0]))
                await until_waiting(one, 1)
                second = asyncio.create_task(two.store.create(calls[1]))
                await until_waiting(one, 2)
                holder.rollback()
            # Whoever was first has the id, and the other is told so: nobody was ended to part the two.
            assert len(await first) == len(calls[0].jobs)
            with pytest.raises(AlreadyExists):
                await second

    run(scenario())


@both
def test_a_batch_whose_answer_was_lost_is_safe_to_repeat(database_url: str, *, chosen: bool) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy, open_stores(proxy.url, size=1) as stores:
            await stores.create(*batch(chosen=chosen))
            call = creation(*batch(chosen=chosen), request_id="r1")
            proxy.lose_next_answer(after=b"COMMIT")
            with pytest.raises(StoreUnavailable):
                await stores.store.create(call)
            assert proxy.lost == 1
            again = await stores.store.create(creation(*batch(chosen=chosen), request_id="r1"))
            assert [job.uid for job in again] == [new.uid for new in call.jobs]

    run(scenario())


def test_a_batch_that_waits_too_long_for_the_count_of_an_owner_is_given_up_whole(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, size=1, hot_timeout=timedelta(seconds=0.5)) as stores:
            with psycopg.connect(database_url) as holder:
                holder.execute("LOCK TABLE owner_days IN EXCLUSIVE MODE")
                with pytest.raises(StoreUnavailable):
                    await stores.store.create(creation(*batch(), request_id="r"))
                holder.rollback()
        async with open_stores(database_url, hot_timeout=LONG) as stores:
            assert await counts(stores) == [0, 0, 0, 0, 0]
            assert len(await stores.store.create(creation(*batch(), request_id="r"))) == COPY_FROM

    run(scenario())


def test_a_batch_over_a_link_that_hangs_is_given_up_in_time_and_the_next_one_goes_through(database_url: str) -> None:
    async def scenario() -> None:
        async with Proxy(database_url) as proxy, open_stores(proxy.url, size=1) as stores:
            await stores.create(new_job(NOW))
            proxy.hang()
            with pytest.raises(StoreUnavailable):
                await stores.store.create(creation(*batch()))
            proxy.restore()
            while True:
                try:
                    assert len(await stores.store.create(creation(*batch()))) == COPY_FROM
                    break
                except StoreUnavailable:
                    continue
            # Each is there whole or not at all.
            assert (await stores.count("jobs") - 1) % COPY_FROM == 0

    run(scenario())
