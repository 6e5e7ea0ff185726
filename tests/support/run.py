"""Running coroutines in tests, and waiting for what must happen, without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds for anything to happen that must happen. Generous: it only ends what would hang.
PATIENCE = 60.0


def run(work: Coroutine[Any, Any, T], *, patience: float = PATIENCE) -> T:
    """The result of `work`, on an event loop of its own; TimeoutError when it hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(patience):
            return await work

    return asyncio.run(bounded())


class Signal:
    """Something that changes and can be waited for: `notify` after each change, `until` waits for a condition."""

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def notify(self) -> None:
        """Lets waiters look again."""
        for holds, future in list(self._waiters):
            if not future.done() and holds():
                future.set_result(None)
        self._waiters = [each for each in self._waiters if not each[1].done()]

    async def until(self, holds: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Waits until `holds()`; it is looked at with each `notify`. TimeoutError when it never does."""
        if holds():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((holds, future))
        async with asyncio.timeout(patience):
            await future
