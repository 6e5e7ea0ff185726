"""Pruning: what has ended leaves when its time is over, a bounded piece at a time.

Executions leave with the partition of their day, at once. Their one-off jobs and schedules stand in tables that cannot
be dropped: they are deleted before that, in the order of their uids, which is that of their creation and so about the
one in which they lie in their own tables and indexes. Whatever is repeated after a crash finds nothing left to do.

Nothing unfinished goes. A job with any live execution stays, FAILED ones included, and so does one that could fire
again: only one-offs go, and what was cancelled. Who makes use of a job changes its row in that transaction
(`used_time`): a statement here that was faster to look than they were to commit sees the changed row and lets go of
it. Every statement checks the leader's term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.bulk import KEPT_FOR
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS

#: Rows that are looked at, or go, in one statement.
PIECE_ROWS = 5000
#: What was made within this time is in use, whatever else is known of it.
_LATELY = "interval '1 day'"

# A job that was never used but by its one schedule has no other execution: nothing need be looked up in the history.
# All tables are read along the keys of the piece, each in one go, and joined by merging, so that jobs are locked in the
# order of their uids. Where a schedule lies is known from looking whether it is a one-off, so it is not searched for
# again.
_UNUSED = f"""
keys AS MATERIALIZED (SELECT ARRAY(SELECT job_uid FROM ended) AS uids),
gone AS (
    DELETE FROM jobs j USING schedules s
    WHERE j.uid = ANY((SELECT uids FROM keys)::uuid[]) AND j.used_time IS NULL
      AND s.job_uid = ANY((SELECT uids FROM keys)::uuid[]) AND s.job_uid = j.uid AND s.kind = 'ONCE' AND NOT s.paused
      AND NOT EXISTS (
          SELECT FROM executions e WHERE e.job_uid = ANY((SELECT uids FROM keys)::uuid[]) AND e.job_uid = j.uid)
      AND {TERM_HOLDS}
    RETURNING s.ctid AS place
),
silent AS (DELETE FROM schedules WHERE ctid = ANY(ARRAY(SELECT place FROM gone)) RETURNING 1)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM silent), cardinality(uids), uids[cardinality(uids)] FROM keys
"""
# A schedule that somebody changed at that very moment lies elsewhere by now.
_LEFT_BEHIND = f"""
silent AS (
    DELETE FROM schedules s USING ended
    WHERE s.job_uid = ended.job_uid AND {TERM_HOLDS} AND NOT EXISTS (SELECT FROM jobs j WHERE j.uid = ended.job_uid)
    RETURNING 1
)
SELECT count(*) FROM silent
"""
# Of the others it is, in each day that is kept: dear, and rare. Of recurring jobs only those go that were cancelled; an
# ended schedule is somebody's work and goes when they delete it. `bool_and` of no schedule at all is NULL, so that a
# job which is only ever run by hand stays.
_USED = f"""
gone AS (
    DELETE FROM jobs j USING ended
    WHERE j.uid = ended.job_uid AND {TERM_HOLDS}
      AND NOT EXISTS (SELECT FROM executions e WHERE e.job_uid = ended.job_uid)
      AND ((SELECT bool_and(s.kind = 'ONCE' AND NOT s.paused) FROM schedules s WHERE s.job_uid = j.uid)
           OR j.cancel_time < {NOW} - {_LATELY})
      AND coalesce(j.used_time < {NOW} - {_LATELY}, true)
      AND NOT EXISTS (
          SELECT FROM execution_history h WHERE h.job_uid = j.uid AND h.prune_day >= ({NOW} AT TIME ZONE 'UTC')::date)
      AND NOT EXISTS (SELECT FROM backfills b WHERE b.job_uid = j.uid AND b.state = 'RUNNING')
    RETURNING j.uid
),
silent AS (DELETE FROM schedules s USING gone WHERE s.job_uid = gone.uid RETURNING s.uid),
gaps AS (DELETE FROM schedule_gaps WHERE schedule_uid = ANY(ARRAY(SELECT uid FROM silent)))
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM silent)
"""
# From the index alone, where the partition was vacuumed. However often a job was executed, it is seen once.
_OF_PARTITION = """
WITH page AS MATERIALIZED (
    SELECT job_uid FROM "{partition}" WHERE job_uid > %(after)s ORDER BY job_uid LIMIT {rows}
),
ended AS MATERIALIZED (SELECT DISTINCT job_uid FROM page ORDER BY job_uid),
"""
_OF_JOBS = """
WITH ended AS MATERIALIZED (SELECT DISTINCT job_uid FROM unnest(%(jobs)s::uuid[]) AS i (job_uid) ORDER BY job_uid),
"""
# Whatever the tables' size and statistics, a piece is looked up by index, and nothing but the piece. What a crash of
# PostgreSQL takes back is done again, so nobody waits for the disk.
_BY_INDEX = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off;
SET LOCAL enable_material = off; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL synchronous_commit = off;
"""
# By a list of keys, or row for row.
_BY_LIST = f"{_BY_INDEX} SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = on"
_BY_ROW = f"{_BY_INDEX} SET LOCAL enable_nestloop = on; SET LOCAL enable_mergejoin = off"
# Jobs are locked before their executions, as by everyone else.
_FAILED = f"""
WITH old AS MATERIALIZED (
    SELECT uid, job_uid FROM executions
    WHERE state = 'FAILED' AND finish_time < {NOW} - %(keep)s::interval AND target = ANY(%(targets)s::text[])
      AND {TERM_HOLDS}
    ORDER BY finish_time LIMIT {PIECE_ROWS}
),
owned AS MATERIALIZED (
    SELECT uid FROM jobs WHERE uid IN (SELECT job_uid FROM old) ORDER BY uid FOR UPDATE SKIP LOCKED
),
mine AS MATERIALIZED (
    SELECT e.uid FROM executions e JOIN owned ON owned.uid = e.job_uid
    WHERE e.uid IN (SELECT uid FROM old) AND e.state = 'FAILED' ORDER BY e.uid FOR UPDATE OF e SKIP LOCKED
),
dropped AS (DELETE FROM executions e USING mine WHERE e.uid = mine.uid RETURNING e.job_uid)
SELECT job_uid FROM dropped
"""

# An answer names jobs, schedules, executions, backfills or operations. What is not there any more is noticed first,
# and goes a day after that.
_REQUEST_IDS = f"""
WITH page AS MATERIALIZED (
    SELECT principal, request_id, answer, gone_time, create_time FROM request_ids
    WHERE (principal, request_id) > (%(principal)s, %(request_id)s)
    ORDER BY principal, request_id LIMIT {PIECE_ROWS}
),
noticed AS (
    UPDATE request_ids r SET gone_time = {NOW} FROM page
    WHERE r.principal = page.principal AND r.request_id = page.request_id AND {TERM_HOLDS}
      AND page.gone_time IS NULL AND page.create_time < {NOW} - {_LATELY}
      AND NOT EXISTS (SELECT FROM jobs t WHERE t.uid = ANY(page.answer))
      AND NOT EXISTS (SELECT FROM schedules t WHERE t.uid = ANY(page.answer))
      AND NOT EXISTS (SELECT FROM executions t WHERE t.uid = ANY(page.answer))
      AND NOT EXISTS (SELECT FROM backfills t WHERE t.uid = ANY(page.answer))
      AND NOT EXISTS (SELECT FROM operations t WHERE t.uid = ANY(page.answer))
      AND NOT EXISTS (SELECT FROM execution_history t WHERE t.uid = ANY(page.answer))
),
gone AS (
    DELETE FROM request_ids r USING page
    WHERE r.principal = page.principal AND r.request_id = page.request_id AND {TERM_HOLDS}
      AND page.gone_time < {NOW} - {_LATELY}
    RETURNING 1
)
SELECT principal, request_id, (SELECT count(*) FROM gone) FROM page ORDER BY principal DESC, request_id DESC LIMIT 1
"""

# Small tables, by what their rows say of themselves.
_ODDMENTS = (
    f"""DELETE FROM owner_days WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM owner_days
            WHERE day < ({NOW} AT TIME ZONE 'UTC')::date - 1 AND {TERM_HOLDS} LIMIT {PIECE_ROWS}))""",
    f"""DELETE FROM backfills WHERE uid IN (
            SELECT uid FROM backfills
            WHERE state <> 'RUNNING' AND create_time < {NOW} - %(keep)s::interval AND {TERM_HOLDS}
            LIMIT {PIECE_ROWS})""",
    f"""DELETE FROM operations WHERE uid IN (
            SELECT uid FROM operations
            WHERE end_time < {NOW} - %(kept)s::interval AND {TERM_HOLDS} LIMIT {PIECE_ROWS})""",
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a piece of pruning took away."""

    jobs: int = 0
    schedules: int = 0
    executions: int = 0


class PruningStore:
    """What the leader takes out of the tables. Each call is one transaction of bounded size; all may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune_jobs_of(self, term: int, partition: str, after: UUID) -> tuple[Pruned, UUID | None]:
        """One piece of the walk through the jobs of a history partition by uid, `after` an earlier one or the nil UUID:
        deletes the jobs and schedules that end with its executions. What went, and where it goes on, None at the end.

        By the partition's index of jobs; locks the jobs in the order of their uids.
        """
        async with self._database.maintain() as connection:
            page = _OF_PARTITION.format(partition=partition, rows=PIECE_ROWS)
            return await self._prune(connection, page, term, after=after)

    async def prune_failed(self, term: int, keep: timedelta, targets: Sequence[str]) -> Pruned:
        """Deletes FAILED executions of `targets` that failed longer than `keep` ago, and the jobs that end with them.

        By executions_failed, oldest first; skips the jobs and executions that others have locked.
        """
        async with self._database.maintain() as connection:
            found = await self._rows(connection, _FAILED, term, keep=keep, targets=list(targets))
            pruned, _ = await self._prune(connection, _OF_JOBS, term, jobs=[row[0] for row in found])
        return replace(pruned, executions=len(found))

    async def prune_request_ids(self, term: int, after: tuple[str, str]) -> tuple[int, tuple[str, str] | None]:
        """One piece of the walk through the request ids by principal and id, `after` an earlier one: how many went, and
        where it goes on, None at the end.
        """
        async with self._database.maintain() as connection:
            rows = await self._rows(connection, _REQUEST_IDS, term, principal=after[0], request_id=after[1])
        if not rows:
            return 0, None
        row = rows[0]
        return row[2], (row[0], row[1])

    async def prune_oddments(self, term: int, keep: timedelta) -> int:
        """Deletes a piece of the counts of past days, of backfills that are older than `keep`, and of operations that
        ended KEPT_FOR ago; returns how many rows.
        """
        gone = 0
        for statement in _ODDMENTS:
            async with self._database.maintain() as connection:
                gone += len(await self._rows(connection, f"{statement} RETURNING 1", term, keep=keep, kept=KEPT_FOR))
        return gone

    async def _prune(
        self, connection: AsyncConnection, ended: str, term: int, **parameters: Any
    ) -> tuple[Pruned, UUID | None]:
        """Deletes those of the jobs in `ended` that may go; returns the last of `ended` as well."""
        await connection.exec_driver_sql(_BY_LIST)
        jobs, schedules, all_, last = (await self._rows(connection, ended + _UNUSED, term, **parameters))[0]
        if schedules < jobs or jobs < all_:
            await connection.exec_driver_sql(_BY_ROW)
        if schedules < jobs:
            schedules += (await self._rows(connection, ended + _LEFT_BEHIND, term, **parameters))[0][0]
        if jobs < all_:
            used = (await self._rows(connection, ended + _USED, term, **parameters))[0]
            jobs, schedules = jobs + used[0], schedules + used[1]
        return Pruned(jobs, schedules), last

    async def _rows(self, connection: AsyncConnection, statement: str, term: int, **parameters: Any) -> Sequence[Any]:
        parameters |= {"now": self._database.now(), "term": term}
        return (await connection.exec_driver_sql(statement, parameters)).all()
