"""What every clock promises, the real one and those of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, timedelta

import pytest

from scheduling.app import SystemClock
from scheduling.domain.clock import Clock
from tests.support.clock import FlowingClock, ManualClock
from tests.support.run import run


def _wait(clock: Clock) -> Callable[[], None]:
    """How time passes: by itself, or by hand."""
    return (lambda: clock.advance(0.05)) if type(clock) is ManualClock else (lambda: None)


@pytest.mark.parametrize("make", [SystemClock, ManualClock, FlowingClock])
def test_now_is_aware_and_in_utc(make: Callable[[], Clock]) -> None:
    assert make().now().tzinfo is UTC


@pytest.mark.parametrize("make", [SystemClock, ManualClock, FlowingClock])
@pytest.mark.parametrize("seconds", [0, -1, 0.03])
def test_a_sleep_ends_no_earlier_than_its_time(make: Callable[[], Clock], seconds: float) -> None:
    async def scenario() -> None:
        clock = make()
        began, before = clock.monotonic(), clock.now()
        task = asyncio.create_task(clock.sleep(seconds))
        await asyncio.sleep(0)  # noqa: TID251 - yields, waits for nothing
        _wait(clock)()
        await task
        # Clocks tick: the loop's may be a little ahead.
        assert clock.monotonic() - began >= seconds - 0.002
        assert clock.now() - before >= timedelta(seconds=seconds - 0.002)

    run(scenario())


@pytest.mark.parametrize("make", [SystemClock, ManualClock, FlowingClock])
def test_a_sleep_can_be_cancelled(make: Callable[[], Clock]) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(make().sleep(1000))
        await asyncio.sleep(0)  # noqa: TID251 - yields, waits for nothing
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())


@pytest.mark.parametrize("make", [ManualClock, FlowingClock])
def test_a_clock_in_hand_wakes_sleepers_when_it_is_moved_on(make: Callable[[], ManualClock]) -> None:
    async def scenario() -> None:
        clock = make()
        woken: list[int] = []

        async def sleeper(seconds: int) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (300, 100, 200)]
        await asyncio.sleep(0)  # noqa: TID251 - yields, waits for nothing
        clock.advance(250)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*tasks[1:])
        assert woken == [100, 200]
        clock.advance(timedelta(seconds=50))
        await tasks[0]

    run(scenario())
