"""Who leads, who is alive, and what the dead have left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from scheduling.domain.execution import LostExecution
from scheduling.domain.target import Queue
from scheduling.storage.claims import POLICY_COLUMNS, lost_from_row
from scheduling.storage.database import NOW, Database, read_clock
from scheduling.storage.notify import CHANNEL, LEADERLESS

# A process that leads without knowing, since it gave up waiting for the answer, begins another term.
_ACQUIRE = f"""
UPDATE leadership SET term = term + 1, holder = %(holder)s, expire_time = {NOW} + %(ttl)s::interval
WHERE expire_time < {NOW} OR holder = %(holder)s RETURNING term
"""
_RENEW = f"""
UPDATE leadership SET expire_time = {NOW} + %(ttl)s::interval
WHERE holder = %(holder)s AND term = %(term)s AND expire_time >= {NOW} RETURNING term
"""
_RESIGN = f"""
WITH resigned AS (
    UPDATE leadership SET holder = NULL, expire_time = '-infinity' WHERE holder = %(holder)s AND term = %(term)s
    RETURNING term
)
SELECT pg_notify('{CHANNEL}', '{LEADERLESS}') FROM resigned
"""
#: Guard of the leader's writes: nothing happens under a term that has ended.
TERM_HOLDS = f"EXISTS (SELECT FROM leadership WHERE term = %(term)s AND expire_time >= {NOW})"

_BEAT = f"""
WITH beat AS (
    INSERT INTO workers AS w (uid, host, pid, version, queues, start_time, heartbeat_time, expire_time, last_start_time)
    VALUES (%(uid)s, %(host)s, %(pid)s, %(version)s, %(queues)s::text[], {NOW}, {NOW}, {NOW} + %(ttl)s::interval,
            %(last_start)s::timestamptz)
    ON CONFLICT (uid) DO UPDATE SET heartbeat_time = excluded.heartbeat_time, expire_time = excluded.expire_time,
        last_start_time = coalesce(excluded.last_start_time, w.last_start_time)
    RETURNING uid
)
SELECT {NOW}, e.uid, e.claim_token, e.claim_time
FROM beat LEFT JOIN executions e ON e.worker_uid = %(uid)s AND e.state = 'RUNNING'
"""
_SIGN_OFF = f"UPDATE workers SET expire_time = {NOW} WHERE uid = %(uid)s"
_FORGET = f"DELETE FROM workers WHERE expire_time < {NOW} - interval '1 day'"

_IS_ALIVE = f"EXISTS (SELECT FROM workers w WHERE w.uid = e.worker_uid AND w.expire_time > {NOW})"
_LOST = f"""
SELECT e.uid, e.claim_token, e.attempt, e.counted, e.claim_time, e.deadline_time, e.expire_time, e.start_time,
       e.attempts, e.worker_uid, e.crashes, NOT {_IS_ALIVE} AS crashed,
       e.cancel_request_time IS NOT NULL AS cancel_requested, e.target, e.queue, {POLICY_COLUMNS}, {NOW} AS moment
FROM executions e JOIN jobs j ON j.uid = e.job_uid
WHERE e.state = 'RUNNING' AND {TERM_HOLDS}
  AND (NOT {_IS_ALIVE}
       OR e.deadline_time + %(grace)s::interval < {NOW})
ORDER BY e.uid LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat brought back: the database's clock, and what runs under the worker's id there (token → uid).

    `sent` and `received` are the monotonic seconds around the reading of the clock alone. `claimed` tells when each was
    claimed, so that a claim whose answer is still under way is not taken for an orphan.
    """

    now: datetime
    sent: float
    received: float
    running: Mapping[UUID, UUID]
    claimed: Mapping[UUID, datetime]


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker process as others see it."""

    uid: UUID
    host: str
    pid: int
    version: str
    queues: Sequence[Queue]


class LeadingStore:
    """Leadership, heartbeats and leases."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic

    async def _one(self, statement: str, parameters: dict[str, Any]) -> Any:
        async with self._database.hot() as connection:
            cursor = await connection.execute(statement, {"now": self._database.now(), **parameters})
            return await cursor.fetchone() if cursor.description else None

    async def acquire(self, holder: UUID, ttl: timedelta) -> int | None:
        """A new term for `holder`, or None while somebody else leads."""
        row = await self._one(_ACQUIRE, {"holder": holder, "ttl": ttl})
        return None if row is None else int(row[0])

    async def renew(self, holder: UUID, term: int, ttl: timedelta) -> bool:
        """Prolongs the term; False when it has ended."""
        return await self._one(_RENEW, {"holder": holder, "term": term, "ttl": ttl}) is not None

    async def term_holds(self, term: int) -> bool:
        """Whether the term has not ended, whatever its holder believes."""
        return bool((await self._one(f"SELECT {TERM_HOLDS}", {"term": term}))[0])

    async def resign(self, holder: UUID, term: int) -> None:
        """Ends the term at once and tells the standbys that listen, so that none need wait for it to expire."""
        await self._one(_RESIGN, {"holder": holder, "term": term})

    async def beat(self, worker: WorkerIdentity, ttl: timedelta, last_start: datetime | None) -> Beat:
        """Renews the worker's lease and says what PostgreSQL believes it to be running. By primary key and
        executions_running.
        """
        async with self._database.hot() as connection:
            reading = await read_clock(connection, self._database, self._monotonic)
            cursor = await connection.execute(
                _BEAT,
                {
                    "now": self._database.now(),
                    "uid": worker.uid,
                    "host": worker.host,
                    "pid": worker.pid,
                    "version": worker.version,
                    "queues": [queue.value for queue in worker.queues],
                    "ttl": ttl,
                    "last_start": last_start,
                },
            )
            found = await cursor.fetchall()
        held = [row for row in found if row[1] is not None]
        running, claimed = {row[2]: row[1] for row in held}, {row[2]: row[3] for row in held}
        return Beat(reading.now, reading.sent, reading.received, running, claimed)

    async def sign_off(self, worker: UUID) -> None:
        """Ends the worker's lease: what it still holds is for others to take."""
        await self._one(_SIGN_OFF, {"uid": worker})

    async def forget_workers(self) -> None:
        """Removes the rows of workers that were last heard of a day ago."""
        await self._one(_FORGET, {})

    async def find_lost(self, term: int, grace: timedelta, limit: int = 1000) -> Sequence[LostExecution]:
        """Running executions whose worker's lease has ended, or that run longer than they may. Locks nothing."""
        async with self._database.hot() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_LOST, {"now": self._database.now(), "term": term, "grace": grace, "limit": limit})
            return [lost_from_row(row) for row in await cursor.fetchall()]
