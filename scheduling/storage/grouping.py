"""Grouping: calls that wait at the same time are done together, so that many callers share one round trip and one
commit.

Nobody waits for company: a call that finds nothing under way goes at once, and those that come meanwhile form the next
group. When enough of them have come, they need not wait for the first to end: the next lane takes them. With fewer a
statement would cost more than it saves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar, cast

from scheduling.domain.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

#: Groups under way at once: one to be committed while the next is being sent.
LANES = 2
#: Calls, or weight of one call, that open a further lane.
ENOUGH = 16
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
        is_enough = len(self._waiting) >= ENOUGH or self._weight(item) >= ENOUGH
        if not self._lanes or (len(self._lanes) < LANES and is_enough):
            lane = asyncio.create_task(self._run())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._run_group(self._take())
        finally:
            # In the same step in which nobody was found waiting: who comes next must not count on this lane.
            self._lanes.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _run_group(self, group: list[tuple[T, asyncio.Future[R]]]) -> None:
        if not group:
            return
        try:
            results = await self._work([item for item, _ in group])
        except BaseException as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
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
