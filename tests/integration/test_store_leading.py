"""Leadership and heartbeats, by the clock of the database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

from scheduling.domain.ids import uuid7
from scheduling.domain.target import Queue
from scheduling.storage.leading import WorkerIdentity
from scheduling.storage.notify import CHANNEL, LEADERLESS
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import open_stores

NOW = START
TTL = timedelta(seconds=3)


def test_of_many_candidates_at_once_one_leads(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with open_stores(database_url, clock) as one, open_stores(database_url, clock) as two:
            for expected in range(1, 11):
                terms = await asyncio.gather(*(stores.leading.acquire(uuid4(), TTL) for stores in [one, two] * 4))
                assert [term for term in terms if term is not None] == [expected]
                clock.advance(TTL + timedelta(milliseconds=1))

    run(scenario())


def test_a_term_lasts_as_long_as_it_is_renewed_and_grows_with_each_change(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            first, second = uuid4(), uuid4()
            term = await stores.leading.acquire(first, TTL)
            assert term == 1
            for _ in range(5):
                stores.clock.advance(2)
                assert await stores.leading.renew(first, term, TTL)
                assert await stores.leading.acquire(second, TTL) is None
            stores.clock.advance(3.1)
            # Too late to renew, whether or not somebody else has taken over.
            assert not await stores.leading.renew(first, term, TTL)
            assert await stores.leading.acquire(second, TTL) == 2
            assert not await stores.leading.renew(first, term, TTL)
            assert await stores.leading.renew(second, 2, TTL)

    run(scenario())


def test_who_resigns_tells_those_that_listen(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            holder = uuid4()
            await stores.leading.acquire(holder, TTL)
            async with await stores.database.connect_for_listening() as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                await stores.leading.resign(uuid4(), 1)
                await stores.leading.resign(holder, 1)
                told = [each.payload async for each in connection.notifies(timeout=30, stop_after=1)]
            assert told == [LEADERLESS]

    run(scenario())


def test_who_resigns_is_followed_at_once_and_only_by_its_own_word(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            first, second = uuid4(), uuid4()
            await stores.leading.acquire(first, TTL)
            await stores.leading.resign(second, 1)
            await stores.leading.resign(first, 7)
            assert await stores.leading.acquire(second, TTL) is None
            await stores.leading.resign(first, 1)
            assert await stores.leading.acquire(second, TTL) == 2
            await stores.leading.resign(first, 1)  # an old term ends nothing
            assert await stores.leading.renew(second, 2, TTL)

    run(scenario())


def test_a_heartbeat_renews_the_lease_and_tells_what_runs(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            identity = WorkerIdentity(uuid7(NOW), "host", 42, "1.0", (Queue.HIGH, Queue.LOW))
            beat = await stores.leading.beat(identity, timedelta(seconds=6), None)
            assert (beat.now, beat.running, beat.claimed) == (NOW, {}, {})
            uid = await stores.one_off()
            (claim,) = await stores.running(identity.uid, uid)
            stores.clock.advance(2)
            beat = await stores.leading.beat(identity, timedelta(seconds=6), NOW + timedelta(seconds=1))
            assert beat.now == NOW + timedelta(seconds=2)
            assert (beat.running, beat.claimed) == ({claim.token: uid}, {claim.token: NOW})
            (row,) = await stores.query("SELECT * FROM workers")
            assert (row["start_time"], row["heartbeat_time"]) == (NOW, NOW + timedelta(seconds=2))
            assert row["expire_time"] == NOW + timedelta(seconds=8)
            # What is not known anew is kept.
            await stores.leading.beat(identity, timedelta(seconds=6), None)
            (row,) = await stores.query("SELECT * FROM workers")
            assert row["last_start_time"] == NOW + timedelta(seconds=1)
            assert row["queues"] == ["HIGH", "LOW"]

    run(scenario())


def test_workers_are_forgotten_a_day_after_their_end(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.worker(ttl=timedelta(seconds=6))
            alive = await stores.worker()
            stores.clock.advance(timedelta(days=1, seconds=6))
            await stores.leading.forget_workers()
            assert await stores.count("workers") == 2
            stores.clock.advance(1)
            await stores.leading.forget_workers()
            assert [row["uid"] for row in await stores.query("SELECT uid FROM workers")] == [alive]

    run(scenario())
