"""Breakers in PostgreSQL: fed by recorded batches, heeded by release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scheduling.domain.breaker import FIRST_PAUSE, OPEN_AFTER, STEP, UNANSWERED
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.pause import Scope
from scheduling.domain.target import Queue
from scheduling.storage import breaking as breaking_store
from scheduling.storage.breaking import HELD_BY_BREAKER, BreakerStore
from scheduling.storage.verifying import VerifyingStore
from tests.support.builders import send_request
from tests.support.run import run
from tests.support.stores import Stores, open_stores

MESSAGING, MEDIA = "messaging.MessagingService", "media.MediaService"
OTHER = {"target": f"{MEDIA}/CleanupTempFiles", "request_type": "media.CleanupTempFilesRequest"}
HELD = HELD_BY_BREAKER + MESSAGING


class Breaking:
    """The stores of a process, with its breakers."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.store = BreakerStore(stores.database)

    async def feed(self, failures: int, successes: int = 0, service: str = MESSAGING) -> list[str]:
        """Feeds one batch; the states of the breakers that changed."""
        changed = await self.store.feed({service: (failures, successes)})
        return [breaker.state.value for breaker in changed]

    async def open(self) -> None:
        assert await self.feed(OPEN_AFTER) == ["OPEN"]

    async def state(self, service: str = MESSAGING) -> dict[str, Any]:
        (row,) = await self.stores.query("SELECT * FROM breakers WHERE service = %s", service)
        return row

    async def due(self, count: int, **of_job: Any) -> list[UUID]:
        """One-offs that are due now, oldest first."""
        made = []
        for _ in range(count):
            made.append(await self.stores.one_off(**of_job))
            self.stores.clock.advance(timedelta(milliseconds=1))
        return made

    async def held(self) -> int:
        (row,) = await self.stores.query("SELECT count(*) AS n FROM executions WHERE held_by = %s", HELD)
        return int(row["n"])


@asynccontextmanager
async def breaking(url: str) -> AsyncIterator[Breaking]:
    async with open_stores(url) as stores:
        yield Breaking(stores)


def test_twenty_failures_in_a_row_open_a_breaker(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            assert await it.feed(OPEN_AFTER - 1) == []
            assert await it.store.unclean() == {MESSAGING}
            assert await it.feed(3, successes=1) == []
            assert await it.store.unclean() == frozenset()
            assert await it.feed(OPEN_AFTER - 1) == []
            assert await it.feed(1) == ["OPEN"]
            assert (await it.state())["change_time"] == it.stores.clock.now()
            assert await it.store.unclean() == {MESSAGING}

    run(scenario())


def test_batches_of_several_workers_add_up(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            answers = [it.feed(1) for _ in range(OPEN_AFTER - 1)]
            assert await asyncio.gather(*answers) == [[]] * (OPEN_AFTER - 1)
            assert (await it.state())["failures"] == OPEN_AFTER - 1
            both = {MEDIA: (1, 0), MESSAGING: (1, 0)}
            (opened,) = await it.store.feed(both)
            assert opened.service == MESSAGING
            assert (await it.state(MEDIA))["failures"] == 1

    run(scenario())


def test_opening_gives_what_was_released_back_and_leaves_the_rest_alone(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            stores = it.stores
            worker = await stores.worker()
            running, *queued = await it.due(4)
            (other,) = await it.due(1, **OTHER)
            await stores.release()
            await stores.claim(worker, running)
            await it.open()
            for uid in queued:
                row = await stores.row(uid)
                assert (row["state"], row["held_by"], row["attempt"]) == ("PENDING", HELD, 0)
            assert await stores.state(running) is State.RUNNING
            assert await stores.state(other) is State.QUEUED

    run(scenario())


def test_what_a_release_under_way_lets_go_while_the_breaker_opens_is_taken_back_by_the_next(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            uids = await it.due(3)
            async with await psycopg.AsyncConnection.connect(database_url) as releasing:
                # A release that has read the breaker as closed, and is not done yet.
                await releasing.execute(
                    "UPDATE executions SET state = 'QUEUED', queue_time = %s WHERE uid = ANY(%s)",
                    (it.stores.clock.now(), uids),
                )
                await it.open()
                await releasing.commit()
            assert await it.stores.released() == []
            assert await it.held() == 3

    run(scenario())


def test_what_comes_due_for_a_closed_off_service_is_held_out_of_everybodys_way(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            await it.due(30)
            (other,) = await it.due(1, **OTHER)
            assert await it.stores.released() == [other]
            assert await it.held() == 30
            ahead = await it.stores.releasing.look_ahead()
            assert (ahead.next_ready, ahead.held) == (None, True)

    run(scenario())


def test_one_probe_goes_when_its_time_has_come_and_no_other_until_it_is_answered(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            clock = it.stores.clock
            await it.open()
            uids = await it.due(5)
            assert await it.stores.released() == []
            clock.advance(FIRST_PAUSE)
            assert await it.stores.released() == uids[:1]
            clock.advance(FIRST_PAUSE)
            assert await it.stores.released() == []
            # Lost with its worker, it is not waited for for ever.
            clock.advance(UNANSWERED)
            assert await it.stores.released() == uids[1:2]

    run(scenario())


def test_the_pause_grows_with_each_probe_that_fails(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            await it.due(10)
            await it.stores.release()
            for pause in (1, 1, 2, 4, 4):
                it.stores.clock.advance(timedelta(seconds=pause - 0.1))
                assert await it.stores.released() == []
                it.stores.clock.advance(timedelta(seconds=0.1))
                assert len(await it.stores.released()) == 1
                assert await it.feed(1) == []
            assert (await it.state())["state"] == "OPEN"

    run(scenario())


def test_a_service_that_is_back_gets_more_and_more_until_all_goes(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            clock = it.stores.clock
            await it.open()
            await it.due(600)
            await it.stores.release()
            clock.advance(FIRST_PAUSE)
            assert len(await it.stores.released()) == 1
            assert await it.feed(0, 1) == ["HALF_OPEN"]
            for count in (2, 4, 8, 16, 32, 64, 128):
                assert len(await it.stores.released()) == count
                # Only so many at once.
                assert await it.stores.released() == []
                assert await it.feed(0, count) == []
                clock.advance(STEP)
            last = [*await it.stores.released(), *await it.stores.released()]
            assert len(last) == 600 - 1 - 254
            assert (await it.state())["state"] == "CLOSED"
            assert await it.held() == 0

    run(scenario())


def test_a_failure_of_a_half_open_breaker_opens_it_anew_and_takes_back_what_was_let_through(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            await it.due(10)
            await it.stores.release()
            it.stores.clock.advance(FIRST_PAUSE)
            (probe,) = await it.stores.released()
            worker = await it.stores.worker()
            await it.stores.claim(worker, probe)
            assert await it.feed(0, 1) == ["HALF_OPEN"]
            assert len(await it.stores.released()) == 2
            assert await it.feed(1) == ["OPEN"]
            assert await it.held() == 9
            assert await it.stores.released() == []

    run(scenario())


def test_a_breaker_without_anything_to_try_keeps_its_probe(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            it.stores.clock.advance(timedelta(hours=1))
            assert await it.stores.released() == []
            (uid,) = await it.due(1)
            # Found and held first, then let through as the probe.
            assert await it.stores.released() == []
            assert await it.stores.released() == [uid]

    run(scenario())


def test_a_half_open_breaker_is_looked_after_although_nothing_waits(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            assert await it.feed(0, 1) == ["HALF_OPEN"]
            while (await it.stores.releasing.look_ahead()).held:
                await it.stores.release()
                it.stores.clock.advance(STEP)
            assert (await it.state())["state"] == "CLOSED"

    run(scenario())


def test_an_execution_whose_job_allows_no_overlap_may_be_the_probe(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            (uid,) = await it.due(1, overlap=OverlapPolicy.SKIP)
            await it.stores.release()
            it.stores.clock.advance(FIRST_PAUSE)
            assert await it.stores.released() == [uid]

    run(scenario())


def test_what_is_held_too_long_expires(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            (uid,) = await it.due(1, request=send_request("held"))
            await it.stores.release()
            it.stores.clock.advance(timedelta(days=8))
            await it.stores.release()
            row = await it.stores.row(uid)
            assert (row["state"], row["reason"], row["held_by"]) == ("FAILED", "EXPIRED", None)

    run(scenario())


def test_callers_see_the_breakers_that_ever_moved(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            assert await it.stores.store.breakers() == {}
            await it.open()
            (seen,) = (await it.stores.store.breakers()).items()
            assert (seen[0], seen[1].state, seen[1].change_time) == (MESSAGING, "OPEN", it.stores.clock.now())

    run(scenario())


def test_what_lies_behind_a_shut_gate_is_not_stuck_though_nobody_has_marked_it_yet(database_url: str) -> None:
    async def scenario() -> None:
        async with breaking(database_url) as it:
            verifying = VerifyingStore(it.stores.database)
            await it.due(2)
            await it.due(1, **OTHER)
            it.stores.clock.advance(timedelta(minutes=6))
            assert len(await verifying.stuck()) == 3
            await it.open()
            assert len(await verifying.stuck()) == 1
            await it.stores.controls.pause(Scope.TARGET, MEDIA, "o", "")
            assert await verifying.stuck() == []
            await it.stores.controls.resume(Scope.TARGET, MEDIA)
            assert len(await verifying.stuck()) == 1

    run(scenario())


def test_a_probe_that_finds_no_slot_leaves_its_turn_to_the_next(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=GateLimits(owner_running=1)) as stores:
            it = Breaking(stores)
            await it.due(1, owner="busy", **OTHER)
            assert len(await stores.released()) == 1
            await it.open()
            stuck, free = await it.due(2, owner="busy"), await it.due(1, owner="other")
            await stores.release()
            assert await it.held() == 3
            stores.clock.advance(FIRST_PAUSE)
            found = [await stores.released() for _ in range(3)]
            assert found == [[], [], free]
            # Once it is under way no other goes.
            stores.clock.advance(FIRST_PAUSE)
            assert await stores.released() == []
            assert {(await stores.row(uid))["held_by"] for uid in stuck} == {"OWNER:busy"}

    run(scenario())


def test_what_is_paused_keeps_no_other_from_being_the_probe(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaking_store, "OLDEST", 3)

    async def scenario() -> None:
        async with breaking(database_url) as it:
            await it.open()
            paused = await it.due(8)
            free = await it.due(1, queue=Queue.MEDIUM)
            await it.stores.release()
            assert await it.held() == 9
            await it.stores.controls.pause(Scope.QUEUE, "HIGH", "o", "")
            it.stores.clock.advance(FIRST_PAUSE)
            assert [await it.stores.released() for _ in range(3)] == [[], [], free]
            await it.feed(0, successes=1)
            await it.stores.controls.resume(Scope.QUEUE, "HIGH")
            it.stores.clock.advance(UNANSWERED)
            assert set(await it.stores.released()) < set(paused)

    run(scenario())
