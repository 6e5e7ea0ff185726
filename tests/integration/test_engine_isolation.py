"""What takes processes down: counted, run by itself after two crashes, parked after three."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.operations.recover import recover
from tests.support.builders import SEND
from tests.support.clock import FlowingClock
from tests.support.engines import EngineProcess, RecordingCaller
from tests.support.run import run
from tests.support.stores import LEAD, Stores, open_stores

SECOND = timedelta(seconds=1)
POLICY = RetryPolicy(max_attempts=6)


class Recovery:
    """The two stores that recovery works with, as one."""

    def __init__(self, stores: Stores) -> None:
        self.find_lost = stores.leading.find_lost
        self.record = stores.delivering.record


async def crash(stores: Stores, term: int, uid: UUID, *, alone: bool = False) -> None:
    """A process claims it and is gone."""
    worker = await stores.worker(ttl=SECOND)
    if alone:
        assert uid in (await stores.delivering.reserve_crashed(worker, tuple(Queue), (SEND,))).values()
    claims = await stores.delivering.claim_if_queued(worker, [uid], [uuid4()], LEAD, alone=alone)
    assert len(claims) == 1
    stores.clock.advance(2)
    assert len(await recover(Recovery(stores), term, SECOND * 30)) == 1
    await stores.release()


def test_after_two_crashes_only_the_worker_that_reserved_it_may_claim_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            uid = await stores.one_off(policy=POLICY)
            await stores.release()
            await crash(stores, term, uid)
            await crash(stores, term, uid)
            assert (await stores.row(uid))["crashes"] == 2
            first, second = await stores.worker(), await stores.worker()
            store, queues = stores.delivering, tuple(Queue)
            assert await stores.claim(first, uid) == []
            assert await store.claim_overdue(first, Queue.HIGH, [uuid4()], timedelta(0), [SEND]) == []
            # Two of them at once: one gets it, and it stays with that one.
            both = await asyncio.gather(*(store.reserve_crashed(each, queues, [SEND]) for each in (first, second)))
            assert sorted(len(found) for found in both) == [0, 1]
            owner, other = (first, second) if both[0] else (second, first)
            assert await store.reserve_crashed(owner, queues, [SEND]) == {Queue.HIGH: uid}
            assert await store.reserve_crashed(other, queues, [SEND]) == {}
            assert await store.claim_if_queued(other, [uid], [uuid4()], LEAD, alone=True) == []
            assert len(await store.claim_if_queued(owner, [uid], [uuid4()], LEAD, alone=True)) == 1

    run(scenario())


def test_a_third_crash_parks_it_as_failed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            uid = await stores.one_off(policy=POLICY)
            await stores.release()
            await crash(stores, term, uid)
            await crash(stores, term, uid)
            await crash(stores, term, uid, alone=True)
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["crashes"]) == ("FAILED", "CRASHED", 3)

    run(scenario())


def test_it_runs_with_nothing_else_of_its_queue_beside_it_and_the_rest_goes_on_after(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, FlowingClock()) as stores:
            term = await stores.lead()
            caller = RecordingCaller()
            caller.close()
            async with EngineProcess(stores, caller, slots=5) as worker:
                before = await stores.one_off()
                await stores.release()
                await worker.hand_over(before)
                await caller.until(1)
                poison = await stores.one_off(policy=POLICY)
                await stores.release()
                for _ in range(2):
                    await crash(stores, term, poison)
                    await worker.beat()
                # The reservation comes with a heartbeat; what runs already may end first.
                await worker.beat()
                after = await stores.one_off()
                await stores.release()
                await worker.hand_over(after)
                assert await stores.state(poison) is State.QUEUED
                caller.open()
                await worker.witness.until_recorded(3)
                assert caller.keys == [str(before), str(poison), str(after)]
            assert [await stores.state(uid) for uid in (before, poison, after)] == [State.SUCCEEDED] * 3

    run(scenario())
