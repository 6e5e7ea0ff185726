"""The one shape of a background loop: a tick that can be called from tests, and one place for waiting and errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from scheduling.domain.cancelling import raise_if_cancelled
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Seconds to the next try after an error.
AFTER_ERROR = 0.2


class Loop:
    """Calls `tick` again and again. A tick returns the seconds until the next one; `wake` makes it come at once."""

    def __init__(self, name: str, tick: Callable[[], Awaitable[float]], clock: Clock) -> None:
        self.name = name
        self._tick = tick
        self._clock = clock
        self._woken = asyncio.Event()
        self._is_failing = False

    def wake(self) -> None:
        """The next tick comes at once."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until cancelled. Errors are logged once until a tick succeeds again."""
        while True:
            raise_if_cancelled()
            self._woken.clear()
            pause = await self._safely()
            waiter = asyncio.create_task(self._clock.sleep(max(pause, 0.0)))
            woken = asyncio.create_task(self._woken.wait())
            try:
                await asyncio.wait((waiter, woken), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
                woken.cancel()

    async def _safely(self) -> float:
        try:
            pause = await self._tick()
        except StoreUnavailable as error:
            self._report(logging.WARNING, str(error))
            return AFTER_ERROR
        except Exception as error:  # noqa: BLE001 - a loop outlives the failure of one tick
            self._report(logging.ERROR, type(error).__name__, error)
            return AFTER_ERROR
        if self._is_failing:
            self._is_failing = False
            log_event(_log, logging.INFO, "loop_recovered", loop=self.name)
        return pause

    def _report(self, level: int, text: str, error: Exception | None = None) -> None:
        if not self._is_failing or error is not None:
            log_event(_log, level, "loop_failed", loop=self.name, problem=text, exc_info=error)
        self._is_failing = True
