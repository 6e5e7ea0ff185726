"""Loops that are told to end do so, also when something inside has swallowed the word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from scheduling.dispatch.loop import Loop
from scheduling.domain.cancelling import raise_if_cancelled
from tests.support.clock import FlowingClock
from tests.support.run import run


def swallowing(begun: asyncio.Event) -> Callable[[], Awaitable[float]]:
    """A tick that takes the first cancellation for its own affair, as a library may."""

    async def tick() -> float:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return 0.0
        return 0.0

    return tick


def test_a_loop_ends_though_its_tick_swallowed_the_cancellation() -> None:
    async def scenario() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(Loop("test", swallowing(begun), FlowingClock()).run())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())


def test_a_wait_for_that_swallows_a_cancellation_is_found_out() -> None:
    async def scenario() -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reached = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.wait_for(ready, 60)
            finally:
                reached.set()
            raise_if_cancelled()
            await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)  # noqa: TID251 - one turn
        # Both in one turn: what was waited for, and the word to end.
        ready.set_result(None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reached.is_set()

    run(scenario())


def test_a_task_that_nobody_cancelled_goes_on() -> None:
    async def scenario() -> None:
        raise_if_cancelled()

    run(scenario())
