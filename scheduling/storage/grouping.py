"""Grouping: calls that wait at the same time are done together, so that many callers share one round trip and one
commit.

Nobody waits for company: a call that finds a free lane goes at once, and those that come while all lanes are busy form
the next group.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from scheduling.domain.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

#: Groups under way at once: one to be committed while the next is being sent.
LANES = 2
#: The most weight in one group, so that no statement grows without bound.
GROUP_WEIGHT = 500
#: The most calls that may wait; more are told to come back.
MAX_WAITING = 10_000


class Grouper(Generic[T, R]):
    """Runs `work` on groups of submitted items; each submitter gets the result at its own position."""

    def __init__(
        self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, weight: Callable[[T], int] = lambda _: 1
    ) -> None:
        self._work = work
        self._weight = weight
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """The result for `item`. Raises what the work raised, or Overloaded."""
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded("too many calls wait for the store", retry_after=timedelta(seconds=1))
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._lanes) < LANES:
            lane = asyncio.create_task(self._run())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await future

    async def _run(self) -> None:
        while self._waiting:
            group = self._take()
            if not group:
                continue
            try:
                results = await self._work([item for item, _ in group])
            except BaseException as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        group: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting:
            item, future = self._waiting[0]
            if future.done():
                # Its caller has gone; nothing was begun for it.
                self._waiting.popleft()
                continue
            weight += self._weight(item)
            if group and weight > GROUP_WEIGHT:
                break
            group.append((item, future))
            self._waiting.popleft()
        return group
