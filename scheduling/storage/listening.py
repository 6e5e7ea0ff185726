"""LISTEN on a connection of its own. Optional: without it, polling finds the same work a little later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import psycopg

from scheduling.domain.cancelling import raise_if_cancelled
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.storage.database import Database
from scheduling.storage.notify import CHANNEL
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Seconds between two tries to connect.
RETRY_SECONDS = 1.0


class OnChange(Protocol):
    """Is told whether notifications come in."""

    def __call__(self, *, listening: bool) -> None: ...


async def listen(database: Database, clock: Clock, *, on_hint: Callable[[str], None], on_change: OnChange) -> None:
    """Calls `on_hint` with what each notification says, until cancelled. Connects again after a break."""
    while True:
        raise_if_cancelled()
        try:
            connection = await database.connect_for_listening()
            try:
                await connection.execute(f"LISTEN {CHANNEL}")
                # A transaction pooler takes the LISTEN and delivers nothing. So what is sent here has to arrive before
                # anybody relies on it; it also covers what came due while nobody was listening.
                async with database.hot() as other:
                    await other.execute(f"NOTIFY {CHANNEL}")
                async for notification in connection.notifies():
                    on_change(listening=True)
                    on_hint(notification.payload)
            finally:
                on_change(listening=False)
                await connection.close()
        except (StoreUnavailable, psycopg.Error) as error:
            log_event(_log, logging.DEBUG, "listening_failed", error=type(error).__name__)
        await clock.sleep(RETRY_SECONDS)
