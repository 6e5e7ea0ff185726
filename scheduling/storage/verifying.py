"""Verify: reads what is needed to prove that nothing was lost, doubled or left half done. Changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from scheduling.domain.accounting import Ledger
from scheduling.domain.timing import Timing
from scheduling.storage import rows
from scheduling.storage.database import NOW, Database
from scheduling.storage.planning import calendars_of

PAGE = 500

# Schedules whose calendars or zone rules have just changed are left out until their plans have followed: what is stored
# was right by the rules before.
_SCHEDULES = f"""
SELECT s.uid, s.job_uid, s.schedule_id, j.job_id, s.kind, s.spec, s.time_zone, s.start_time, s.end_time,
       s.max_firings, s.jitter, s.dst_policy, s.catchup_policy, s.catchup_window, s.exclusions, s.calendar_ids,
       s.paused, s.fired_count, nullif(s.evaluated_until, 'infinity') AS until, j.cancel_time, s.timing_time,
       greatest(s.timing_time, %(since)s::timestamptz) AS since, {NOW} AS moment
FROM schedules s JOIN jobs j ON j.uid = s.job_uid
WHERE s.uid > %(after)s AND s.kind NOT IN ('ONCE', 'DEPLOYMENT') AND NOT s.stale ORDER BY s.uid LIMIT {PAGE}
"""
_NOMINALS = """
SELECT schedule_uid, nominal_time, create_time, attempt > 0 AS begun FROM executions
WHERE schedule_uid = ANY(%(uids)s::uuid[]) AND origin = 'SCHEDULED' AND nominal_time > %(since)s
UNION ALL
SELECT schedule_uid, nominal_time, create_time, true FROM execution_history
WHERE job_uid = ANY(%(jobs)s::uuid[]) AND schedule_uid = ANY(%(uids)s::uuid[]) AND origin = 'SCHEDULED'
  AND nominal_time > %(since)s
"""
_GAPS = "SELECT schedule_uid, from_time, to_time FROM schedule_gaps WHERE schedule_uid = ANY(%(uids)s::uuid[])"

# One-offs that have neither an execution nor a trace of one, though their history cannot have been pruned yet.
_LOST_ONE_OFFS = f"""
SELECT j.job_id, s.schedule_id FROM schedules s JOIN jobs j ON j.uid = s.job_uid
WHERE s.kind = 'ONCE' AND j.cancel_time IS NULL AND (s.spec ->> 'time')::timestamptz > {NOW} - interval '6 days'
  AND NOT EXISTS (SELECT FROM executions e WHERE e.job_uid = s.job_uid AND e.schedule_uid = s.uid)
  AND NOT EXISTS (SELECT FROM execution_history h WHERE h.job_uid = s.job_uid AND h.schedule_uid = s.uid)
ORDER BY s.uid LIMIT 1000
"""
# What has been due for long and is neither held nor taken, or runs on although its worker is gone. What a pause or a
# breaker stops is marked as held piece by piece, and may lie unmarked for a while: nothing releases it meanwhile.
_STUCK = f"""
SELECT j.job_id, e.uid, e.state FROM executions e JOIN jobs j ON j.uid = e.job_uid
WHERE (e.state = 'PENDING' AND e.held_by IS NULL AND e.ready_time < {NOW} - interval '5 minutes'
       AND split_part(e.target, '/', 1) NOT IN (SELECT service FROM breakers WHERE state <> 'CLOSED')
       AND NOT EXISTS (
           SELECT FROM controls c
           WHERE c.scope = 'SERVICE' OR (c.scope = 'QUEUE' AND c.name = e.queue)
              OR (c.scope = 'TARGET' AND c.name IN (e.target, split_part(e.target, '/', 1)))))
   OR (e.state = 'QUEUED' AND e.ready_time < {NOW} - interval '5 minutes')
   OR (e.state = 'RUNNING' AND e.deadline_time < {NOW} - interval '5 minutes')
ORDER BY e.uid LIMIT 1000
"""


class VerifyingStore:
    """What `verify` reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ledgers(self, since: datetime) -> AsyncIterator[tuple[Ledger, datetime]]:
        """The ledgers of all recurring schedules of jobs that are not cancelled, with the moment of reading.

        Each page is one snapshot, so that what moves meanwhile is seen either before or after, not half.
        """
        after = UUID(int=0)
        while True:
            async with self._database.hot() as connection, connection.transaction():
                cursor = connection.cursor(row_factory=dict_row)
                await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                await cursor.execute(_SCHEDULES, {"now": self._database.now(), "since": since, "after": after})
                page = await cursor.fetchall()
                uids = [row["uid"] for row in page]
                named = await calendars_of(cursor, page)
                jobs = [row["job_uid"] for row in page]
                await cursor.execute(_NOMINALS, {"uids": uids, "jobs": jobs, "since": since})
                nominals: dict[UUID, list[datetime]] = defaultdict(list)
                left_over: dict[UUID, set[datetime]] = defaultdict(set)
                timing_times = {row["uid"]: row["timing_time"] for row in page}
                for row in await cursor.fetchall():
                    uid = row["schedule_uid"]
                    nominals[uid].append(row["nominal_time"])
                    if row["begun"] and row["create_time"] <= timing_times[uid]:
                        left_over[uid].add(row["nominal_time"])
                await cursor.execute(_GAPS, {"uids": uids})
                gaps: dict[UUID, list[tuple[datetime, datetime]]] = defaultdict(list)
                for row in await cursor.fetchall():
                    gaps[row["schedule_uid"]].append((row["from_time"], row["to_time"]))
            for row in page:
                if row["cancel_time"] is None:
                    uid = row["uid"]
                    ledger = _ledger(row, rows.timing(row, named), nominals[uid], gaps[uid], left_over[uid])
                    yield ledger, row["moment"]
            if len(page) < PAGE:
                return
            after = uids[-1]

    async def lost_one_offs(self) -> list[str]:
        """One-off schedules of which nothing is left though it should be."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_LOST_ONE_OFFS, {"now": self._database.now()})
            return [f"jobs/{row[0]}/schedules/{row[1]}" for row in await cursor.fetchall()]

    async def stuck(self) -> list[str]:
        """Executions that should have moved long ago."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_STUCK, {"now": self._database.now()})
            return [f"jobs/{row[0]}/executions/e-{row[1]} {row[2]}" for row in await cursor.fetchall()]


def _ledger(
    row: Any,
    timing: Timing,
    nominals: list[datetime],
    gaps: list[tuple[datetime, datetime]],
    left_over: set[datetime],
) -> Ledger:
    limit = row["max_firings"]
    return Ledger(
        name=f"jobs/{row['job_id']}/schedules/{row['schedule_id']}",
        timing=timing,
        since=row["since"],
        until=row["until"],
        nominals=nominals,
        gaps=gaps,
        paused=row["paused"],
        is_spent=limit is not None and row["fired_count"] >= limit,
        left_over=frozenset(left_over),
    )
