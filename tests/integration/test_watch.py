"""Watching executions over real PostgreSQL, at a clock of the test: what is told, once, and after a break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import Limits
from scheduling.operations.executions import COMMIT_LAG, WATCH_ALIVE, WatchBatch, watch_executions
from scheduling.operations.ports import Ports
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.stores import Stores, open_stores


class StepClock(ManualClock):
    """A clock on which every sleep is over at once: a watch looks again as soon as it is asked."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


class Watched:
    """A store, and watches of it that tell batch by batch."""

    def __init__(self, stores: Stores, clock: StepClock) -> None:
        self.stores = stores
        self.ports = Ports(
            store=stores.store,
            targets=cast("Any", None),
            clock=clock,
            limits=Limits(),
            redis=cast("Any", None),
            default_time_zone="UTC",
            environment="test",
            version="test",
        )

    @asynccontextmanager
    async def watch(self, token: str = "", filter_: str = "") -> AsyncIterator[AsyncIterator[WatchBatch]]:
        watch = watch_executions(self.ports, None, filter_, token)
        async with aclosing(cast("Any", watch)):
            yield watch

    async def finish(self, uid: UUID, state: State = State.SUCCEEDED) -> None:
        """Sees an execution through."""
        worker = await self.stores.worker()
        (claim,) = await self.stores.running(worker, uid)
        reason = "" if state is State.SUCCEEDED else "PERMANENT"
        assert await self.stores.record(claim, state, reason=reason)


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[Watched]:
    clock = StepClock()
    async with open_stores(url, clock) as stores:
        yield Watched(stores, clock)


def told(batch: WatchBatch) -> Sequence[tuple[UUID, State]]:
    return [(each.uid, each.state) for each in batch.executions]


def test_each_change_is_told_once_and_silence_is_broken_now_and_then(database_url: str) -> None:
    async def scenario() -> None:
        async with watched(database_url) as it, it.watch() as watch:
            first = await anext(watch)
            assert (told(first), first.resume_token != "") == ([], True)
            uid = await it.stores.one_off()
            await it.stores.release()
            assert told(await anext(watch)) == [(uid, State.QUEUED)]
            await it.finish(uid)
            assert told(await anext(watch)) == [(uid, State.SUCCEEDED)]
            began = it.stores.clock.monotonic()
            assert told(await anext(watch)) == []
            assert it.stores.clock.monotonic() - began >= WATCH_ALIVE.total_seconds() - 1

    run(scenario())


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_what_ended_in_a_break_is_told_however_long_the_break_was(database_url: str, state: State) -> None:
    async def scenario() -> None:
        async with watched(database_url) as it:
            async with it.watch() as watch:
                token = (await anext(watch)).resume_token
            uid = await it.stores.one_off()
            await it.finish(uid, state)
            it.stores.clock.advance(timedelta(hours=3))
            async with it.watch(token) as again:
                assert told(await anext(again)) == [(uid, state)]

    run(scenario())


def test_what_ended_seconds_before_the_watch_began_is_not_told(database_url: str) -> None:
    async def scenario() -> None:
        async with watched(database_url) as it:
            await it.finish(await it.stores.one_off())
            # What has only just ended may be told: its commit may be later than the moment that it carries.
            it.stores.clock.advance(COMMIT_LAG + timedelta(seconds=1))
            async with it.watch() as watch:
                assert told(await anext(watch)) == []

    run(scenario())


def test_a_commit_that_becomes_visible_late_is_still_told(database_url: str) -> None:
    async def scenario() -> None:
        async with watched(database_url) as it, it.watch() as watch:
            await anext(watch)
            uid = await it.stores.one_off()
            before = it.stores.clock.now()
            await it.finish(uid)
            # Its transaction had begun, and so carries a time, seconds before others were told.
            late = before - timedelta(seconds=2)
            await it.stores.query("UPDATE execution_history SET finish_time = %s WHERE uid = %s", late, uid)
            assert told(await anext(watch)) == [(uid, State.SUCCEEDED)]

    run(scenario())


def test_a_filter_is_part_of_the_token(database_url: str) -> None:
    async def scenario() -> None:
        async with watched(database_url) as it:
            async with it.watch(filter_="state = SUCCEEDED") as watch:
                token = (await anext(watch)).resume_token
            async with it.watch(token, filter_="state = FAILED") as other:
                with pytest.raises(InvalidRequest) as caught:
                    await anext(other)
            assert [each.field for each in caught.value.violations] == ["resume_token"]

    run(scenario())
