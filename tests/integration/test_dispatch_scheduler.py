"""The scheduler: what is wrong with one schedule, or takes long, holds up nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduling.dispatch.scheduler import Scheduler
from scheduling.domain.accounting import audit
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.lifecycle import State
from scheduling.domain.schedule import NewSchedule
from scheduling.domain.target import Queue
from scheduling.domain.timing import CatchupPolicy, Cron
from scheduling.storage.advancing import ROUND_FIRINGS, Advanced
from scheduling.storage.releasing import Released
from scheduling.storage.verifying import VerifyingStore
from tests.support.builders import every, new_job
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import LOOK_AHEAD, Stores, open_stores

NOW = START
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Silent:
    """Takes what is sent and told, and keeps nothing."""

    async def send(self, queue: Queue, items: Any) -> bool:
        """To nobody."""
        return True

    def released(self, queue: Queue, count: int) -> None:
        """Executions went to the workers."""

    def ended(self, target: str, state: State, count: int) -> None:
        """Executions ended without a call."""


class Failing:
    """A store that cannot advance, and releases what it has."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def advance(self, term: int, ahead: timedelta) -> Advanced:
        if self.error is not None:
            raise self.error
        return Advanced(0, 0, 0, more=False)

    async def release(self, ahead: timedelta) -> Released:
        return Released({Queue.HIGH: [(UUID(int=1), NOW)]}, more=False)


async def schedule(stores: Stores, minutes: int = 1, **timing: Any) -> NewSchedule:
    made = every(NOW, MINUTE * minutes, **timing)
    await stores.create(new_job(NOW, schedule=made))
    return made


async def planned(stores: Stores, made: NewSchedule) -> list[datetime]:
    rows = await stores.query(
        "SELECT nominal_time FROM executions WHERE schedule_uid = %s ORDER BY nominal_time", made.uid
    )
    return [row["nominal_time"] for row in rows]


async def unsound(stores: Stores) -> tuple[int, list[Any]]:
    """How many firings of all schedules should be accounted for, and whose are not."""
    accounts = [audit(ledger, now) async for ledger, now in VerifyingStore(stores.database).ledgers(NOW)]
    return sum(each.expected for each in accounts), [each for each in accounts if not each.is_sound]


# --- one that is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable(), ValueError("broken")])
def test_release_goes_on_when_advancing_fails_which_is_told_once(error: Exception, caplog: Any) -> None:
    async def scenario() -> None:
        store = Failing(error)
        scheduler = Scheduler(store, Silent(), ManualClock(), LOOK_AHEAD, Silent())
        with caplog.at_level(logging.INFO, logger="scheduling"):
            for n, trouble in enumerate((error, error, None, error), start=1):
                store.error = trouble
                assert await scheduler.run(1) == 1, n
        assert [record.msg for record in caplog.records] == ["advancing_failed"] * 2

    run(scenario())


BREAKAGES = {
    "zone": "UPDATE schedules SET time_zone = 'Mars/Olympus_Mons' WHERE uid = %s",
    "spec": "UPDATE schedules SET spec = '{}' WHERE uid = %s",
    "exclusions": """UPDATE schedules SET exclusions = '[{"moon": "full"}]' WHERE uid = %s""",
    "calendar": """UPDATE schedules SET exclusions = '[{"calendar": "bad"}]', calendar_ids = '{bad}'
                   WHERE uid = %s""",
    # What is to be planned is there already.
    "doubled": "UPDATE executions SET nominal_time = nominal_time + interval '1 minute' WHERE schedule_uid = %s",
}


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_schedule_that_cannot_be_advanced_holds_up_no_other_and_is_not_lost(
    database_url: str, kind: str, caplog: Any
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            await stores.query(
                "INSERT INTO calendars (calendar_id, uid, display_name, exclusions) "
                """VALUES ('bad', gen_random_uuid(), '', '[{"moon": "full"}]'), ('good', gen_random_uuid(), '', '[]')"""
            )
            bad, *good = [await schedule(stores) for _ in range(4)]
            named = """UPDATE schedules SET exclusions = '[{"calendar": "good"}]', calendar_ids = '{good}' """
            await stores.query(named + "WHERE uid = %s", good[0].uid)
            (before,) = await stores.query("SELECT * FROM schedules WHERE uid = %s", bad.uid)
            await stores.query(BREAKAGES[kind], bad.uid)
            plan = await planned(stores, bad)
            stores.clock.advance(MINUTE)
            with caplog.at_level(logging.ERROR, logger="scheduling"):
                done = await stores.advancing.advance(stores.term, LOOK_AHEAD, limit=4)
                assert (done.schedules, done.plans) == (3, 3)
                # Nor is it the first to be looked at in the next round.
                stores.clock.advance(50)
                assert await stores.advance() == Advanced(0, 0, 0, more=False)
            (told,) = [record for record in caplog.records if record.msg == "schedule_not_advanced"]
            assert bad.schedule_id in str(told.__dict__)
            for each in good:
                assert await planned(stores, each) == [NOW + MINUTE, NOW + MINUTE * 2]
            assert await planned(stores, bad) == plan
            # Once it is mended, it goes on where it was.
            await stores.query(
                "UPDATE schedules SET time_zone = %s, spec = %s::text::jsonb, exclusions = '[]', calendar_ids = '{}' "
                "WHERE uid = %s",
                before["time_zone"],
                json.dumps(before["spec"]),
                bad.uid,
            )
            if kind == "doubled":
                await stores.query(
                    "UPDATE executions SET nominal_time = nominal_time - interval '1 minute' WHERE schedule_uid = %s",
                    bad.uid,
                )
            stores.clock.advance(10)
            assert (await stores.advance()).schedules > 0
            for each in (bad, *good):
                assert (await planned(stores, each))[:2] == [NOW + MINUTE, NOW + MINUTE * 2]
            assert (await unsound(stores))[1] == []

    run(scenario())


def test_a_schedule_that_is_behind_and_cannot_be_advanced_keeps_the_plan_it_has(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            bad, good = [await schedule(stores) for _ in range(2)]
            await stores.query(BREAKAGES["zone"], bad.uid)
            stores.clock.advance(HOUR)
            await stores.advance()
            assert await planned(stores, bad) == [NOW + MINUTE]
            assert (await planned(stores, good))[-1] > stores.clock.now()

    run(scenario())


def test_many_that_cannot_be_advanced_fill_no_round(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for _ in range(9):
                await stores.query(BREAKAGES["zone"], (await schedule(stores)).uid)
            stores.clock.advance(1)
            good = every(NOW, MINUTE + SECOND)
            await stores.create(new_job(NOW, schedule=good))
            stores.clock.advance(MINUTE)
            await stores.lead()
            for _ in range(4):
                await stores.advancing.advance(stores.term, LOOK_AHEAD, limit=3)
            assert len(await planned(stores, good)) == 2

    run(scenario())


def test_a_column_that_a_migration_adds_disturbs_no_prepared_statement(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, size=1) as stores:
            made = await schedule(stores)
            for _ in range(8):
                stores.clock.advance(MINUTE)
                await stores.advance()
            await stores.query("ALTER TABLE schedules ADD COLUMN added text")
            stores.clock.advance(MINUTE)
            assert (await stores.advance()).plans == 1
            assert len(await planned(stores, made)) == 10

    run(scenario())


# --- many that are behind ---------------------------------------------------------------------------------------------


async def outage(stores: Stores, count: int, length: timedelta, **timing: Any) -> None:
    await stores.lead()
    jobs = [new_job(NOW, schedule=every(NOW, Cron("* * * * * *"), **timing)) for _ in range(count)]
    for start in range(0, count, 100):
        await stores.create(*jobs[start : start + 100])
    stores.clock.advance(length)


@pytest.mark.parametrize("policy", [CatchupPolicy.FIRE_ALL, CatchupPolicy.FIRE_ONCE_LATEST])
def test_after_an_outage_busy_schedules_are_worked_off_in_rounds_that_end(
    database_url: str, policy: CatchupPolicy
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await outage(stores, 30, timedelta(minutes=20), catchup_policy=policy, catchup_window=MINUTE * 4)
            more = True
            while more:
                done = await stores.advancing.advance(stores.term, LOOK_AHEAD)
                assert done.plans + done.missed < ROUND_FIRINGS + 1001
                more = done.more
            expected, wrong = await unsound(stores)
            assert wrong == []
            assert expected >= 30 * 1200

    run(scenario())


def test_who_is_on_time_waits_for_none_who_is_behind(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await outage(stores, 20, HOUR)
            now = stores.clock.now()
            punctual = every(now, SECOND)
            await stores.create(new_job(now, schedule=punctual))
            done = await stores.advancing.advance(stores.term, LOOK_AHEAD, limit=5)
            assert done.more
            assert len(await planned(stores, punctual)) == 2

    run(scenario())


def test_other_work_goes_on_during_a_round(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for _ in range(50):
                await schedule(stores)
            stores.clock.advance(MINUTE)
            await stores.lead()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)  # noqa: TID251 - counts the turns of the loop
                    turns += 1

            counter = asyncio.create_task(count())
            original = stores.advancing._compute

            async def compute(*arguments: Any) -> Any:
                before = turns
                steps = await original(*arguments)
                assert turns - before >= 50
                return steps

            stores.advancing._compute = compute  # type: ignore[method-assign, assignment]
            assert (await stores.advance()).plans == 50
            counter.cancel()

    run(scenario())
