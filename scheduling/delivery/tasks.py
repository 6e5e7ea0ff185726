"""Tasks that are kept until they end, so that none is lost to the garbage collector, and all can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class TaskGroup:
    """Tasks that nobody awaits one by one; they handle their own errors."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Starts a task and keeps it until it ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, seconds: float) -> None:
        """Waits until all have ended, also those that are started meanwhile; at most that long."""
        try:
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            return
