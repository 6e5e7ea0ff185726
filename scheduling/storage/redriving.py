"""Redrive: FAILED → PENDING, for one dead letter or for many. The same execution, with a new budget."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.ids import execution_id
from scheduling.domain.lifecycle import State
from scheduling.storage.auditing import note_change
from scheduling.storage.database import NOW, Database
from scheduling.storage.jobs import claim_request_id
from scheduling.storage.notify import CHANNEL
from scheduling.storage.tables import executions, jobs

# The job is locked before its executions, so that one that is being cancelled or deleted either ends what this moves or
# is seen as ended here. `due_time` and `start_time` begin anew, since lateness and maximum age count from them. It was
# released before: `queue_time` says so also of what expired without a call, or it would be taken for a new firing. What
# has crashed its processes still runs by itself.
_REDRIVE = f"""
WITH owned AS MATERIALIZED (
    SELECT j.uid, j.max_age FROM jobs j
    WHERE j.uid IN (SELECT job_uid FROM executions WHERE uid = ANY(%(uids)s::uuid[]) AND state = 'FAILED')
      AND j.cancel_time IS NULL
    ORDER BY j.uid FOR SHARE {{skip}}
), mine AS MATERIALIZED (
    SELECT e.uid, owned.max_age FROM executions e JOIN owned ON owned.uid = e.job_uid
    WHERE e.uid = ANY(%(uids)s::uuid[]) AND e.state = 'FAILED'
    ORDER BY e.uid FOR UPDATE OF e {{skip}}
)
UPDATE executions e
SET state = 'PENDING', reason = '', held_by = NULL, counted = 0, due_time = {NOW}, ready_time = {NOW},
    expire_time = {NOW} + mine.max_age, start_time = NULL, finish_time = NULL, cancel_request_time = NULL,
    queue_time = coalesce(e.queue_time, {NOW}), crashes = least(e.crashes, 2)
FROM mine WHERE e.uid = mine.uid
RETURNING e.uid
"""
_WAITING, _SKIPPING = _REDRIVE.format(skip=""), _REDRIVE.format(skip="SKIP LOCKED")
_HINT = f"SELECT pg_notify('{CHANNEL}', '')"


async def redrive(
    connection: AsyncConnection, database: Database, uids: Sequence[UUID], *, skip_locked: bool = False
) -> set[UUID]:
    """Redrives those of `uids` that are FAILED and of a job that is not cancelled; returns which.

    One statement, by primary keys. Locks the jobs (shared), then the executions, each in order of uid; waits for those
    that others have locked, or leaves them with `skip_locked`.
    """
    statement = _SKIPPING if skip_locked else _WAITING
    moved = await connection.exec_driver_sql(statement, {"now": database.now(), "uids": list(uids)})
    found = {row[0] for row in moved}
    if found:
        await connection.exec_driver_sql(_HINT)
    return found


class RedrivingStore:
    """The part of the store that tries dead letters again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def redrive(self, uid: UUID, principal: str, request_id: str, digest: bytes) -> bool:
        """Whether the execution was redriven by this call."""
        async with self._database.begin() as connection:
            if not await redrive(connection, self._database, [uid]):
                return False
            # After the move: of two calls at once the second finds nothing to move, and then this.
            await claim_request_id(connection, principal, request_id, digest, uid)
            of_job = sa.select(jobs.c.job_id).join(executions, executions.c.job_uid == jobs.c.uid)
            job_id = (await connection.execute(of_job.where(executions.c.uid == uid))).scalar_one()
            name, states = f"jobs/{job_id}/executions/{execution_id(uid)}", (State.FAILED, State.PENDING)
            await note_change(connection, self._database.moment(), name, *({"state": state.value} for state in states))
        return True
