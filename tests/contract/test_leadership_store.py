"""What every store of leadership promises, the real one and the one that unit tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from scheduling.dispatch.pulse import LeadershipStore
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.stores import open_stores
from tests.support.terms import Terms

TTL = timedelta(seconds=3)
Open = Callable[[], AbstractAsyncContextManager[tuple[LeadershipStore, ManualClock]]]


@asynccontextmanager
async def _fake() -> AsyncIterator[tuple[LeadershipStore, ManualClock]]:
    clock = ManualClock()
    yield Terms(clock), clock


@pytest.fixture(params=["postgresql", "fake"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens a store of leadership and its clock."""
    if request.param == "fake":
        return _fake
    url: Any = request.getfixturevalue("database_url")

    @asynccontextmanager
    async def real() -> AsyncIterator[tuple[LeadershipStore, ManualClock]]:
        async with open_stores(url) as stores:
            yield stores.leading, stores.clock

    return real


def test_the_first_term_goes_to_whoever_asks_first(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, _):
            assert await store.acquire(uuid4(), TTL) == 1
            assert await store.acquire(uuid4(), TTL) is None

    run(scenario())


def test_a_term_can_be_renewed_until_it_has_ended(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, clock):
            holder = uuid4()
            await store.acquire(holder, TTL)
            clock.advance(TTL)
            assert await store.renew(holder, 1, TTL)
            clock.advance(TTL)
            clock.advance(0.001)
            assert not await store.renew(holder, 1, TTL)

    run(scenario())


def test_nobody_else_and_no_other_term_is_renewed(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, _):
            holder = uuid4()
            await store.acquire(holder, TTL)
            assert not await store.renew(uuid4(), 1, TTL)
            assert not await store.renew(holder, 2, TTL)

    run(scenario())


def test_a_term_that_has_ended_makes_room_for_a_higher_one(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, clock):
            await store.acquire(uuid4(), TTL)
            clock.advance(TTL)
            assert await store.acquire(uuid4(), TTL) is None
            clock.advance(0.001)
            assert await store.acquire(uuid4(), TTL) == 2

    run(scenario())


def test_who_leads_without_knowing_begins_another_term(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, _):
            holder = uuid4()
            assert await store.acquire(holder, TTL) == 1
            # The answer was lost, and the process asks again.
            assert await store.acquire(holder, TTL) == 2
            assert not await store.renew(holder, 1, TTL)
            assert await store.renew(holder, 2, TTL)

    run(scenario())


def test_a_term_that_was_resigned_makes_room_at_once(opened: Open) -> None:
    async def scenario() -> None:
        async with opened() as (store, _):
            holder = uuid4()
            await store.acquire(holder, TTL)
            await store.resign(uuid4(), 1)
            await store.resign(holder, 5)
            assert await store.acquire(uuid4(), TTL) is None
            await store.resign(holder, 1)
            assert not await store.renew(holder, 1, TTL)
            assert await store.acquire(uuid4(), TTL) == 2

    run(scenario())
