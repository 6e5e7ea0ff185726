"""Health of our services (grpc.health.v1): SERVING exactly while the service says that it can serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from scheduling.domain.cancelling import raise_if_cancelled
from scheduling.domain.clock import Clock
from scheduling.telemetry.logs import log_event

#: Asked whether calls can be served now: PostgreSQL answers and its schema is there.
IsServing = Callable[[], Awaitable[bool]]

#: Seconds between two questions.
POLL_SECONDS = 1.0
#: An answer that takes longer counts as no.
ANSWER_SECONDS = 2.0

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_logger = logging.getLogger(__name__)


class HealthMonitor:
    """Keeps the health of `services`, and of the server as a whole (the service ""), equal to what `is_serving` says.

    NOT_SERVING before the first answer, and for good once `shut_down` was called.
    """

    def __init__(self, is_serving: IsServing, clock: Clock, services: Sequence[str]) -> None:
        self.servicer = health_aio.HealthServicer()
        self._is_serving = is_serving
        self._clock = clock
        self._services = ("", *services)
        self._serving: bool | None = None

    async def begin(self) -> None:
        """Sets everything to NOT_SERVING, so that every service is known before the first call comes in."""
        await self._set(serving=False)

    async def tick(self) -> bool:
        """Asks once and sets the health if it changed; returns the answer. A failure or no answer in time is False."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                serving = await self._is_serving()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, it cannot serve
            log_event(_logger, logging.WARNING, "health_check_failed", exc_info=error)
            serving = False
        if serving != self._serving:
            await self._set(serving=serving)
            log_event(_logger, logging.INFO, "health_changed", serving=serving)
        return serving

    async def run(self) -> None:
        """Asks every second until cancelled."""
        while True:
            raise_if_cancelled()
            await self.tick()
            await self._clock.sleep(POLL_SECONDS)

    async def shut_down(self) -> None:
        """NOT_SERVING from now on, whatever the answers are."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, *, serving: bool) -> None:
        self._serving = serving
        for service in self._services:
            await self.servicer.set(service, _SERVING if serving else _NOT_SERVING)
