"""What operators ask: the state of the service, lengths of queues, breakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from scheduling.domain.target import Queue
from scheduling.operations.ports import BreakerStatus, QueueStatus, ServiceStatus, WorkerStatus
from scheduling.storage.database import NOW, Database

#: Executions of each kind are counted up to this many per queue, so that a backlog of millions does not cost a scan.
COUNT_LIMIT = 100_000

_STATUS = """
SELECT now() AS read_time,
       (SELECT holder FROM leadership WHERE expire_time > now()) AS leader,
       (SELECT term FROM leadership) AS leader_term,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'jobs'::regclass) AS estimate,
       (SELECT count(*) FROM (SELECT FROM jobs WHERE cancel_time IS NULL LIMIT 10001) AS few) AS few,
       (SELECT max(last_start_time) FROM workers) AS last_start_time,
       (SELECT min(t) FROM (SELECT (SELECT ready_time FROM executions WHERE queue = q AND state = 'PENDING'
            AND held_by IS NULL ORDER BY ready_time LIMIT 1) AS t
            FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) AS q) AS h)
            AS next_due_time,
       (SELECT version_num FROM alembic_version) AS schema_revision,
       current_setting('server_version') AS database_version,
       current_setting('transaction_read_only') = 'on' AS read_only
"""

_WORKERS = """
SELECT w.uid, w.host, w.pid, w.queues, w.start_time, w.heartbeat_time, count(e.uid) AS running
FROM workers w LEFT JOIN executions e ON e.worker_uid = w.uid AND e.state = 'RUNNING'
WHERE w.expire_time > now() GROUP BY w.uid ORDER BY w.start_time
"""

# Every count ends at COUNT_LIMIT and reads one partial index: executions_due, executions_held_queue, executions_queued,
# executions_slots (all queues in one, as much as queues and workers hold), executions_tried, executions_failed_queue.
_QUEUES = f"""
WITH running AS MATERIALIZED (SELECT queue FROM executions WHERE state = 'RUNNING' LIMIT {COUNT_LIMIT})
SELECT q AS queue,
       (SELECT count(*) FROM (
            (SELECT FROM executions WHERE queue = q AND state = 'PENDING' AND held_by IS NULL AND ready_time <= {NOW}
                LIMIT {COUNT_LIMIT})
            UNION ALL
            (SELECT FROM executions WHERE queue = q AND state = 'PENDING' AND held_by IS NOT NULL LIMIT {COUNT_LIMIT})
            LIMIT {COUNT_LIMIT}) AS w) AS waiting,
       (SELECT count(*) FROM (SELECT FROM executions WHERE queue = q AND state = 'QUEUED' LIMIT {COUNT_LIMIT}) AS d)
            AS queued,
       (SELECT count(*) FROM running WHERE queue = q) AS running,
       (SELECT count(*) FROM (SELECT FROM executions WHERE queue = q AND state = 'PENDING' AND attempt > 0
            LIMIT {COUNT_LIMIT}) AS r) AS retrying,
       (SELECT count(*) FROM (SELECT FROM executions WHERE queue = q AND state = 'FAILED' LIMIT {COUNT_LIMIT}) AS f)
            AS failed,
       (SELECT {NOW} - min(t) FROM (
            (SELECT ready_time AS t FROM executions WHERE queue = q AND state = 'PENDING' AND held_by IS NULL
                AND ready_time <= {NOW} ORDER BY ready_time LIMIT 1)
            UNION ALL
            (SELECT ready_time FROM executions WHERE queue = q AND state = 'QUEUED' AND ready_time <= {NOW}
                ORDER BY ready_time LIMIT 1)) AS oldest) AS oldest_waiting
FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) WITH ORDINALITY AS t (q, n) ORDER BY n
"""


class StatusStore:
    """The operators' part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def status(self) -> ServiceStatus:
        """The state of the whole service."""
        async with self._database.begin() as connection:
            row = (await connection.execute(sa.text(_STATUS))).mappings().one()
            workers = [_worker(each) for each in (await connection.execute(sa.text(_WORKERS))).mappings()]
        next_due = row["next_due_time"]
        return ServiceStatus(
            read_time=row["read_time"],
            leader=row["leader"],
            leader_term=row["leader_term"],
            workers=tuple(workers),
            job_count=row["few"] if row["few"] <= 10_000 else max(row["estimate"], row["few"]),
            last_start_time=row["last_start_time"],
            next_due_time=next_due,
            schema_revision=row["schema_revision"],
            database_version=row["database_version"],
            read_only=row["read_only"],
            overdue=next_due is not None and (row["read_time"] - next_due).total_seconds() > 30,
        )

    async def queues(self) -> Sequence[QueueStatus]:
        """The queues, highest priority first."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_QUEUES, {"now": self._database.now()})
            found = await cursor.fetchall()
        return [QueueStatus(Queue(row[0]), *row[1:]) for row in found]

    async def breakers(self) -> Mapping[str, BreakerStatus]:
        """The breakers that ever moved."""
        async with self._database.hot() as connection:
            cursor = await connection.execute("SELECT service, state, change_time FROM breakers")
            return {row[0]: BreakerStatus(row[1], row[2]) for row in await cursor.fetchall()}

    async def schema_revision(self) -> str | None:
        """The revision of the schema that PostgreSQL has; None before the first migration."""
        async with self._database.hot() as connection:
            cursor = await connection.execute("SELECT version_num FROM alembic_version")
            row = await cursor.fetchone()
        return None if row is None else str(row[0])


def _worker(row: Any) -> WorkerStatus:
    return WorkerStatus(
        uid=row["uid"],
        host=row["host"],
        pid=row["pid"],
        queues=tuple(Queue(queue) for queue in row["queues"]),
        start_time=row["start_time"],
        heartbeat_time=row["heartbeat_time"],
        running=row["running"],
    )
