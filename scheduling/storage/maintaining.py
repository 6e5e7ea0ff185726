"""Housekeeping of the tables themselves."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from scheduling.storage.database import Database
from scheduling.storage.migrate import partition_statements

_PARTITION = re.compile(r"execution_history_(\d{8})")
_PARTITIONS = "SELECT relid::text FROM pg_partition_tree('execution_history') WHERE isleaf"


class MaintenanceStore:
    """What the leader does to the tables once in a while."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tend_history(self) -> int:
        """Makes the partitions of the coming days and drops those whose day has passed; returns how many were dropped.

        Dropping takes a lock on the history for a moment; no hot statement waits for it longer than its own timeout.
        """
        async with self._database.maintain() as connection:
            today: date = (await connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date"))).scalar_one()
            existing = set(await connection.scalars(sa.text(_PARTITIONS)))
        wanted = partition_statements(today)
        for statement in wanted:
            name = statement.split()[5]
            if name not in existing:
                async with self._database.maintain() as connection:
                    await connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
                    await connection.execute(sa.text(statement))
        dropped = 0
        for name in sorted(existing):
            match = _PARTITION.fullmatch(name)
            if match is None or datetime.strptime(match[1] + "+0000", "%Y%m%d%z").date() >= today - timedelta(days=1):
                continue
            async with self._database.maintain() as connection:
                await connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
                await connection.execute(sa.text(f'DROP TABLE "{name}"'))
            dropped += 1
        return dropped
