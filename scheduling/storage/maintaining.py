"""Housekeeping of the tables themselves."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta

import psycopg
import sqlalchemy as sa

from scheduling.domain.errors import StoreUnavailable
from scheduling.storage.database import Database
from scheduling.storage.migrate import PARTITION_LOCK_MS, PARTITIONS, partition_statements
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

_PARTITION = re.compile(r"execution_history_(\d{8})")


class MaintenanceStore:
    """What the leader does to the tables once in a while."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tend_history(self, before_drop: Callable[[str], Awaitable[bool]] | None = None) -> int:
        """Makes the partitions of the coming days and drops those whose day has passed; returns how many were dropped.

        `before_drop` is told the name of each that is to go, and may put it off by returning False.

        Both need locks on the history for a moment. What does not get one at once is put off to the next call, since
        whoever records waits behind it; the days ahead leave time for that. The default partition rules out DETACH
        CONCURRENTLY, so a day that has passed is dropped as it is.
        """
        async with self._database.maintain() as connection:
            today: date = (await connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date"))).scalar_one()
            existing = set(await connection.scalars(sa.text(PARTITIONS)))
        for name, statement in partition_statements(today):
            if name not in existing and not await self._change(name, statement):
                break
        dropped = 0
        for name in sorted(existing):
            match = _PARTITION.fullmatch(name)
            if match is None or datetime.strptime(match[1] + "+0000", "%Y%m%d%z").date() >= today - timedelta(days=1):
                continue
            if before_drop is not None and not await before_drop(name):
                break
            if not await self._change(name, f'DROP TABLE IF EXISTS "{name}"'):
                break
            dropped += 1
        return dropped

    async def _change(self, partition: str, statement: str) -> bool:
        """Whether the statement went through; it is logged if not. Raises StoreUnavailable."""
        try:
            async with self._database.maintain() as connection:
                await connection.execute(sa.text(f"SET LOCAL lock_timeout = {PARTITION_LOCK_MS}"))
                await connection.execute(sa.text(statement))
        except StoreUnavailable as error:
            if not _is_locked_out(error):
                raise
            log_event(_log, logging.INFO, "history_upkeep_put_off", partition=partition)
            return False
        except sa.exc.DBAPIError as error:
            log_event(
                _log, logging.ERROR, "history_upkeep_failed", partition=partition, problem=type(error.orig).__name__
            )
            return False
        return True


def _is_locked_out(error: StoreUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, sa.exc.DBAPIError) and isinstance(
        cause.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected
    )
