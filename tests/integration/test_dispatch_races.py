"""Two schedulers and two workers over thousands of executions: none lost, none doubled, no unexpected error."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from scheduling.delivery.channels import Answer
from scheduling.dispatch.scheduler import Scheduler
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import fires_between
from scheduling.domain.retry import Code
from scheduling.domain.target import Queue
from tests.support.builders import every, new_job, once
from tests.support.clock import FlowingClock
from tests.support.engines import OK, EngineProcess, RecordingCaller
from tests.support.run import Signal, run
from tests.support.stores import Stores, open_stores

SECOND = timedelta(seconds=1)


class BadPost:
    """Passes ids on to workers like a bad postman: some get lost, some come twice or to both, in any order."""

    def __init__(self, workers: Sequence[EngineProcess], chance: random.Random) -> None:
        self._workers = workers
        self._chance = chance

    async def send(self, queue: Queue, items: Sequence[tuple[UUID, datetime]]) -> bool:
        for worker in self._workers:
            taken = [item for item in items if self._chance.random() < 0.6]
            taken += self._chance.sample(taken, len(taken) // 10)
            self._chance.shuffle(taken)
            await worker.engine.hand_over(queue, taken)
        return True


class Silent:
    """Hears what a scheduler tells, and keeps nothing."""

    def released(self, queue: Queue, count: int) -> None:
        """Executions went to the workers."""

    def ended(self, target: str, state: State, count: int) -> None:
        """Executions ended without a call."""


class Both:
    """The two stores that a scheduler works with, as one."""

    def __init__(self, stores: Stores) -> None:
        self.advance = stores.advancing.advance
        self.release = stores.releasing.release


def scheduler(stores: Stores, post: BadPost) -> Scheduler:
    return Scheduler(Both(stores), post, stores.clock, SECOND, Silent())


def test_two_schedulers_and_two_workers_deliver_thousands_once_each(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        changed = Signal()
        total = 2000
        async with (
            open_stores(database_url, clock, batch=150) as one,
            open_stores(database_url, clock, batch=150) as two,
            EngineProcess(one, caller, ttl=timedelta(hours=1), slots=64, changed=changed) as first,
            EngineProcess(two, caller, ttl=timedelta(hours=1), slots=64, changed=changed) as second,
        ):
            for worker in (first, second):
                worker.engine.renew_lease(clock.monotonic() + 3600)
            now = clock.now()
            schedules = [once(now, now + timedelta(milliseconds=n)) for n in range(total)]
            for start in range(0, total, 500):
                await one.create(*(new_job(now, schedule=each) for each in schedules[start : start + 500]))
            term = await one.lead()
            post = BadPost((first, second), random.Random(7))
            schedulers = [scheduler(stores, post) for stores in (one, two)]

            async def keep_running(each: Scheduler) -> int:
                released = 0
                while len(caller.calls) < total:
                    released += await each.run(term)
                return released

            released = await asyncio.gather(*(keep_running(each) for each in schedulers))
            both = (first.witness, second.witness)
            await changed.until(lambda: sum(len(each.outcomes) for each in both) == total)
            assert sum(released) == total
            assert Counter(caller.keys) == Counter(str(each.plan_uid) for each in schedules)
            assert {attempt for _, attempt in caller.calls} == {1}
            assert await one.count("executions") == 0
            states = await one.query("SELECT state, count(*) AS n FROM execution_history GROUP BY state")
            assert states == [{"state": "SUCCEEDED", "n": total}]
            # Both took part.
            assert all(len(each.outcomes) > 0 for each in both)

    run(scenario(), patience=100)


def test_recurring_schedules_and_retries_under_two_schedulers_stay_exact(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()

        async def fail_once(key: str, attempt: int) -> Answer:
            # Not a code that a breaker takes for a dead target.
            return Answer(Code.RESOURCE_EXHAUSTED, "busy", pushback=timedelta(0)) if attempt == 1 else OK

        caller = RecordingCaller(fail_once)
        async with (
            open_stores(database_url, clock) as one,
            open_stores(database_url, clock) as two,
            EngineProcess(one, caller, ttl=timedelta(hours=1)) as first,
            EngineProcess(two, caller, ttl=timedelta(hours=1)) as second,
        ):
            for worker in (first, second):
                worker.engine.renew_lease(clock.monotonic() + 3600)
            now = clock.now()
            schedules = [every(now, SECOND / 2) for _ in range(40)]
            await one.create(
                *(
                    new_job(now, schedule=each, overlap=OverlapPolicy.ALLOW_ALL, job_id=f"j{n}")
                    for n, each in enumerate(schedules)
                )
            )
            term = await one.lead()
            post = BadPost((first, second), random.Random(11))
            schedulers = [scheduler(stores, post) for stores in (one, two)]
            wanted = 150

            async def keep_running(each: Scheduler) -> None:
                while len(first.witness.outcomes) + len(second.witness.outcomes) < wanted * 2:
                    await each.run(term)

            await asyncio.gather(*(keep_running(each) for each in schedulers))
            rows = await one.query(
                "SELECT schedule_uid, nominal_time FROM executions UNION ALL "
                "SELECT schedule_uid, nominal_time FROM execution_history"
            )
            for each in schedules:
                own = sorted(row["nominal_time"] for row in rows if row["schedule_uid"] == each.uid)
                assert own == fires_between(each.timing, now, own[-1], 10_000)
            attempts = Counter(caller.keys)
            assert set(attempts.values()) <= {1, 2}
            assert len(set(caller.calls)) == len(caller.calls)
            done = await one.query("SELECT uid, attempt FROM execution_history WHERE state = 'SUCCEEDED'")
            assert {row["attempt"] for row in done} == {2}

    run(scenario(), patience=100)
