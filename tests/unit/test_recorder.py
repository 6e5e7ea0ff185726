"""The recorder: one outcome at once, many together, none forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from scheduling.delivery.brakes import Brakes
from scheduling.delivery.recorder import Recorder
from scheduling.domain.breaker import OPEN_AFTER
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import Attempt, Claim, Outcome
from scheduling.domain.lifecycle import State
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from tests.support.clock import ManualClock
from tests.support.run import Signal, run

GAP, SECOND = timedelta(milliseconds=20), timedelta(seconds=1)
SERVICE = "messaging.MessagingService"


def outcome() -> Outcome:
    """An outcome of a call that never began."""
    return Outcome(uuid4(), uuid4(), State.PENDING, "NOT_BEGUN", None, None, None)


class Store:
    """Writes down the batches that are recorded; away for the first so many."""

    def __init__(self, away: int = 0, *, feeds: bool | None = None) -> None:
        self.feeds = feeds
        self.batches: list[Sequence[Outcome]] = []
        self.changed = Signal()
        self._away = away

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        if self._away:
            self._away -= 1
            self.changed.notify()
            raise StoreUnavailable
        self.batches.append(list(outcomes))
        self.changed.notify()
        return {each.uid for each in outcomes}

    async def feed(self, tallies: Mapping[str, tuple[int, int]]) -> None:
        assert self.feeds is not None, "nothing failed"
        if not self.feeds:
            raise StoreUnavailable

    def recorded(self, outcomes: Sequence[tuple[Claim | None, Outcome]]) -> None:
        """The observer's part."""

    async def until(self, batches: int) -> None:
        await self.changed.until(lambda: len(self.batches) >= batches)


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)  # noqa: TID251 - only lets others run


def recorder(
    store: Store, clock: ManualClock, batch: int = 100, brakes: Brakes | None = None
) -> tuple[Recorder, asyncio.Task[None]]:
    """A recorder at work."""
    made = Recorder(store, store, brakes or Brakes(), store, clock, batch=batch, gap=GAP)

    async def work() -> None:
        while True:
            await made.step(store.changed.notify)

    return made, asyncio.create_task(work())


def test_an_outcome_that_comes_alone_is_recorded_at_once() -> None:
    async def scenario() -> None:
        store, clock = Store(), ManualClock()
        made, task = recorder(store, clock)
        for count in (1, 2):
            made.add(None, outcome())
            await store.until(count)
            clock.advance(GAP)
        task.cancel()

    run(scenario())


def test_outcomes_that_come_within_the_gap_are_recorded_together() -> None:
    async def scenario() -> None:
        store, clock = Store(), ManualClock()
        made, task = recorder(store, clock)
        made.add(None, outcome())
        await store.until(1)
        for _ in range(5):
            made.add(None, outcome())
        await settle()
        assert len(store.batches) == 1
        assert len(made) == len(made.tokens) == 5
        clock.advance(GAP)
        await store.until(2)
        assert [len(batch) for batch in store.batches] == [1, 5]
        task.cancel()

    run(scenario())


def test_a_full_batch_does_not_wait_for_the_gap() -> None:
    async def scenario() -> None:
        store, clock = Store(), ManualClock()
        made, task = recorder(store, clock, batch=3)
        made.add(None, outcome())
        await store.until(1)
        for _ in range(7):
            made.add(None, outcome())
        await store.until(3)
        assert [len(batch) for batch in store.batches] == [1, 3, 3]
        clock.advance(GAP)
        await store.until(4)
        task.cancel()

    run(scenario())


def test_outcomes_are_kept_while_the_store_is_away() -> None:
    async def scenario() -> None:
        store, clock = Store(away=3), ManualClock()
        made, task = recorder(store, clock)
        first = outcome()
        made.add(None, first)
        while not store.batches:
            assert len(made) == 1
            clock.advance(1)
            await settle()
        assert store.batches == [[first]]
        await settle()
        assert not len(made)
        task.cancel()

    run(scenario())


@pytest.mark.parametrize("feeds", [True, False])
def test_a_service_that_failed_is_tried_again_also_when_the_breakers_could_not_be_told(feeds: bool) -> None:
    async def scenario() -> None:
        store, clock, brakes = Store(feeds=feeds), ManualClock(), Brakes()
        made, task = recorder(store, clock, batch=100, brakes=brakes)
        now = clock.now()
        policy = RetryPolicy(3, SECOND, 2.0, SECOND, SECOND, AfterLostWorker.RETRY_NOW)
        moments = (now, now, now, now + SECOND, None)
        claim = Claim(
            uuid4(), uuid4(), "job", f"{SERVICE}/Do", Queue.HIGH, b"", policy, SECOND, 1, 0, *moments, (), False
        )
        for _ in range(OPEN_AFTER):
            brakes.saw(SERVICE, clock.monotonic(), is_down=True)
        assert brakes.untold == [SERVICE]
        attempt = Attempt(1, now, SECOND, "w", 14, "", counted=True)
        made.add(claim, Outcome(claim.uid, claim.token, State.PENDING, "", now, attempt, now))
        await store.until(1)
        await settle()
        assert brakes.untold == []
        task.cancel()

    run(scenario())
