"""Grouping: calls that wait at the same time are done together, so that many callers share one round trip and one
commit.

A call that finds nothing under way and had no company goes at once, and those that come meanwhile form the next group.
When enough of them have come, they need not wait for the first to end: the next lane takes them. With fewer a statement
would cost more than it saves.

Callers who were answered together come back one after the other. Whoever is first would be sent alone, with the others
right behind, and the work has a price of its own, that of some twenty items. So a group is held for a moment while
those just answered are expected back, until half of all present wait: one half is stored while the other is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar, cast

from scheduling.domain.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

#: Groups under way at once: one to be committed while the next is being sent.
LANES = 2
#: Calls, or weight of one call, that open a further lane and are not held.
ENOUGH = 16
#: Seconds that a group is held for the next caller who is expected back, and how often it may be held on.
HOLD, HOLDS = 0.002, 4
#: Seconds after which callers who were answered are no longer expected back.
EXPECTED = 0.1
#: Groups in a row that were held in vain, after which those who did not come are taken to have left.
IN_VAIN = 8
#: The most weight in one group, so that no statement grows without bound.
GROUP_WEIGHT = 500
#: The most calls that may wait; more are told to come back.
MAX_WAITING = 10_000


class _Waiting(NamedTuple, Generic[T, R]):
    item: T
    weight: int
    future: asyncio.Future[R]


class Grouper(Generic[T, R]):
    """Runs `work` on groups of submitted items; each submitter gets the result at its own position."""

    def __init__(
        self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, weight: Callable[[T], int] = lambda _: 1
    ) -> None:
        self._work = work
        self._weight = weight
        self._waiting: deque[_Waiting[T, R]] = deque()
        # The weight of those who wait.
        self._load = 0
        self._lanes: set[asyncio.Task[None]] = set()
        # Calls that are being worked on; callers who were answered and are expected back, and when the last was.
        self._under_way = 0
        self._away = 0
        self._answer_time = 0.0
        self._in_vain = 0
        # What the lane waits for that holds its group.
        self._held: asyncio.Future[None] | None = None

    async def submit(self, item: T) -> R:
        """The result for `item`. Raises what the work raised, or Overloaded."""
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded("too many calls wait for the store", retry_after=timedelta(seconds=1))
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        weight = self._weight(item)
        self._waiting.append(_Waiting(item, weight, future))
        if self._away:
            self._away -= 1
        self._load += weight
        if self._held is not None:
            if not self._held.done() and (self._is_enough() or self._is_half()):
                self._in_vain = 0
                self._held.set_result(None)
        elif not self._lanes or (len(self._lanes) < LANES and self._is_enough()):
            lane = asyncio.create_task(self._run())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await future

    async def _run(self) -> None:
        try:
            # Who waits while another lane holds them is taken by that one, and so are few.
            while self._waiting and self._held is None and (len(self._lanes) == 1 or self._is_enough()):
                await self._hold()
                await self._run_group(self._take())
        finally:
            # In the same step in which nobody was found waiting: who comes next must not count on this lane.
            self._lanes.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _is_enough(self) -> bool:
        return self._load >= ENOUGH

    def _is_half(self) -> bool:
        """Whether those who wait are half of all who are there."""
        return len(self._waiting) >= self._under_way + self._away

    async def _hold(self) -> None:
        """Waits a moment for callers who were just answered, unless enough wait already."""
        if not self._away or self._is_half() or self._is_enough():
            return
        loop = asyncio.get_running_loop()
        if loop.time() > self._answer_time + EXPECTED:
            self._away = 0
            return
        self._held = held = loop.create_future()
        self._hold_on(held, HOLDS, len(self._waiting))
        try:
            await held
        finally:
            self._held = None

    def _hold_on(self, held: asyncio.Future[None], left: int, waiting: int) -> None:
        loop = asyncio.get_running_loop()
        # One turn later: who has come by then and was not yet heard counts.
        loop.call_later(HOLD, loop.call_soon, self._look_again, held, left, waiting)

    def _look_again(self, held: asyncio.Future[None], left: int, waiting: int) -> None:
        """Holds the group on if somebody has come since `waiting` were there."""
        if held.done():
            return
        if len(self._waiting) > waiting and left > 1:
            self._hold_on(held, left - 1, len(self._waiting))
            return
        self._in_vain += 1
        if self._in_vain >= IN_VAIN:
            self._away = self._in_vain = 0
        held.set_result(None)

    async def _run_group(self, group: Sequence[_Waiting[T, R]]) -> None:
        if not group:
            return
        self._under_way += len(group)
        try:
            results = await self._work([each.item for each in group])
        except BaseException as error:
            for each in group:
                if not each.future.done():
                    each.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        finally:
            self._under_way -= len(group)
            self._away += len(group)
            self._answer_time = asyncio.get_running_loop().time()
        for each, result in zip(group, results, strict=True):
            if not each.future.done():
                each.future.set_result(result)

    def _take(self) -> list[_Waiting[T, R]]:
        group: list[_Waiting[T, R]] = []
        weight = 0
        while self._waiting:
            first = self._waiting[0]
            if first.future.done():
                # Its caller has gone; nothing was begun for it.
                self._load -= self._waiting.popleft().weight
                continue
            if group and weight + first.weight > GROUP_WEIGHT:
                break
            weight += first.weight
            group.append(self._waiting.popleft())
        self._load -= weight
        return group
