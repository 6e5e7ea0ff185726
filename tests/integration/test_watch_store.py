"""Watches on a real store: of what ended all is told, however much ended at once; what is open is told in turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from scheduling.domain.execution import Execution
from scheduling.domain.lifecycle import State
from scheduling.domain.policy import EVERYTHING
from scheduling.operations import executions as cases
from scheduling.operations.executions import WatchBatch, watch_executions
from tests.support.builders import new_job, once
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores

NOW = START
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


class _Passing:
    """The clock of a watch: what it sleeps passes at once."""

    def __init__(self, stores: Stores) -> None:
        self._clock = stores.clock

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)


class Watching:
    """A watch, and what it has told."""

    def __init__(self, stores: Stores, token: str = "", *, with_payload: bool = False) -> None:
        ports: Any = SimpleNamespace(store=stores.store, clock=_Passing(stores), access=EVERYTHING)
        found = watch_executions(ports, None, "", token, with_payload=with_payload)
        self.batches = cast("AsyncGenerator[WatchBatch]", found)
        self.told: list[Execution] = []
        self.tokens: list[str] = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Reads on until `holds()`."""
        while not holds():
            await self.one_more()

    async def one_more(self) -> None:
        """Reads one message."""
        batch = await anext(self.batches)
        self.told += batch.executions
        self.tokens.append(batch.resume_token)

    async def until_quiet(self) -> None:
        """Reads on until nothing has changed for so long that the watch only says that it is there."""
        told = -1
        while told != len(self.told):
            told = len(self.told)
            await self.one_more()

    @property
    def uids(self) -> list[UUID]:
        return [each.uid for each in self.told]


async def end_many(stores: Stores, count: int, finish: datetime, apart: timedelta = timedelta(0)) -> set[UUID]:
    """Executions that have ended, all at once or some time apart; half of them FAILED ones in the live table."""
    (job,) = await stores.create(new_job(stores.clock.now()))
    columns = (
        "(uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, ready_time, expire_time, "
        "finish_time"
    )
    values = "gen_random_uuid(), %s, 'MANUAL', 't', 'LOW', 'o', %s, t, t, t, t, t"
    source = "FROM generate_series(%s, %s, 2) AS n, LATERAL (SELECT %s + n * %s) AS x (t) RETURNING uid"
    live = await stores.query(
        f"INSERT INTO executions {columns}) SELECT {values} {source}", job.uid, "FAILED", 0, count - 1, finish, apart
    )
    ended = await stores.query(
        f"INSERT INTO execution_history {columns}, prune_day) SELECT {values}, 'today' {source}",
        *(job.uid, "SUCCEEDED", 1, count - 1, finish, apart),
    )
    made = {row["uid"] for row in live + ended}
    assert len(made) == count
    return made


def test_six_thousand_that_end_in_one_instant_are_all_told_once(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            watch = Watching(stores)
            async with aclosing(watch.batches):
                await watch.until(lambda: bool(watch.tokens))
                made = await end_many(stores, 6000, stores.clock.now())
                await watch.until_quiet()
            assert len(watch.uids) == 6000
            assert set(watch.uids) == made

    run(scenario())


def test_a_watch_that_breaks_off_after_any_message_goes_on_from_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WATCH_PAGE", 20)
    monkeypatch.setattr(cases, "WATCH_MESSAGE", 8)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            first = Watching(stores)
            async with aclosing(first.batches):
                await first.until(lambda: bool(first.tokens))
            start = stores.clock.now()
            made = await end_many(stores, 100, start, apart=SECOND)
            stores.clock.advance(HOUR)
            token, told = first.tokens[-1], set[UUID]()
            breaks = 0
            while told != made:
                watch = Watching(stores, token)
                async with aclosing(watch.batches):
                    while set(watch.uids) <= told:
                        await watch.one_more()
                # Told again is at most what may have been committed late.
                assert len(watch.uids) <= 8 + 8
                told |= set(watch.uids)
                token = watch.tokens[-1]
                breaks += 1
            assert breaks > 5

    run(scenario())


def test_a_watch_that_was_away_for_days_is_told_everything_in_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WATCH_PAGE", 10)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            first = Watching(stores)
            async with aclosing(first.batches):
                await first.until(lambda: bool(first.tokens))
            made = await end_many(stores, 60, stores.clock.now(), apart=SECOND / 2)
            made |= await end_many(stores, 35, stores.clock.now() + 50 * HOUR, apart=timedelta(0))
            made |= await end_many(stores, 20, stores.clock.now() + 60 * HOUR, apart=HOUR / 3)
            stores.clock.advance(100 * HOUR)
            watch = Watching(stores, first.tokens[-1])
            async with aclosing(watch.batches):
                await watch.until_quiet()
            assert sorted(watch.uids) == sorted(made)
            times = [each.finish_time for each in watch.told if each.finish_time is not None]
            assert times == sorted(times)

    run(scenario())


def test_what_was_committed_late_is_told_all_the_same(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            watch = Watching(stores)
            async with aclosing(watch.batches):
                await watch.until(lambda: bool(watch.tokens))
                before = await end_many(stores, 10, stores.clock.now())
                await watch.until(lambda: len(watch.told) == 10)
                late = await end_many(stores, 10, stores.clock.now() - 4 * SECOND)
                await watch.until_quiet()
            assert sorted(watch.uids) == sorted(before | late)

    run(scenario())


def test_more_open_ones_than_a_round_looks_at_are_told_in_turn_and_so_are_their_changes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WATCH_PAGE", 3)
    monkeypatch.setattr(cases, "WATCH_OPEN", 6)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            schedules = [once(NOW) for _ in range(20)]
            await stores.create(*(new_job(NOW, schedule=schedule) for schedule in schedules))
            uids = [schedule.plan_uid for schedule in schedules]
            await stores.release()
            watch = Watching(stores)
            async with aclosing(watch.batches):
                await watch.until_quiet()
                assert sorted(watch.uids) == sorted(uids)
                watch.told.clear()
                claims = await stores.claim(worker, *uids)
                await watch.until_quiet()
                assert sorted(watch.uids) == sorted(uids)
                assert {each.state for each in watch.told} == {State.RUNNING}
                watch.told.clear()
                for claim in claims:
                    await stores.record(claim)
                await watch.until_quiet()
                assert sorted(watch.uids) == sorted(uids)
                assert {each.state for each in watch.told} == {State.SUCCEEDED}

    run(scenario())


def test_a_message_with_payloads_stays_within_what_clients_take(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WATCH_BYTES", 250)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            made = await end_many(stores, 9, stores.clock.now())
            await stores.query("UPDATE execution_history SET response = repeat('x', 100)::bytea")
            await stores.query("UPDATE executions SET response = repeat('x', 300)::bytea")
            watch = Watching(stores, with_payload=True)
            sizes = []
            async with aclosing(watch.batches):
                while len(watch.told) < 9:
                    batch = await anext(watch.batches)
                    watch.told += batch.executions
                    sizes.append([len(each.response or b"") for each in batch.executions])
            assert set(watch.uids) == made
            assert all(sum(size) <= 250 or len(size) == 1 for size in sizes)

    run(scenario())
