"""Clocks that tests hold in their hands."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta

#: Where manual clocks start: a Tuesday, far from any change of clocks and from the real time.
START = datetime(2031, 7, 1, 12, 0, tzinfo=UTC)


class ManualClock:
    """A `domain.clock.Clock` that stands still until it is advanced; sleepers wake when their time has come."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._monotonic

    @property
    def sleepers(self) -> int:
        """How many wait for this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock has been advanced by as much."""
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - this is the clock
            return
        await self._sleeper(seconds)

    def _sleeper(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.monotonic() + seconds, next(self._order), future))
        return future

    def advance(self, by: timedelta | float) -> None:
        """Moves the time on and wakes whoever waited for it, in the order of their times."""
        span = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._now += span
        self._monotonic += span.total_seconds()
        self._wake()

    def set_back(self, by: timedelta) -> None:
        """Moves the wall clock back, as a correction by NTP does; `monotonic` goes on."""
        self._now -= by

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self.monotonic():
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)


class FlowingClock(ManualClock):
    """A clock that flows like the real one, and can be moved ahead at will. For code that waits for real servers."""

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__(start or datetime.now(UTC))  # noqa: TID251 - this is the clock
        self._began = time.monotonic()  # noqa: TID251 - this is the clock

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._now + timedelta(seconds=self._flowed())

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._monotonic + self._flowed()

    def _flowed(self) -> float:
        return time.monotonic() - self._began  # noqa: TID251 - this is the clock

    async def sleep(self, seconds: float) -> None:
        """Waits until as much time has flowed or the clock has been moved ahead by as much."""
        if seconds <= 0:
            await super().sleep(seconds)
            return
        woken = self._sleeper(seconds)
        try:
            await asyncio.wait({woken}, timeout=seconds)
        finally:
            woken.cancel()
