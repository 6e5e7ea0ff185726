"""After a restore: what may have been called since the moment that the database was brought back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduling.domain.errors import WrongState
from scheduling.domain.execution import Reason
from scheduling.domain.ids import execution_id
from scheduling.storage.auditing import note_change
from scheduling.storage.database import NOW, Database
from scheduling.storage.history import move_sql
from scheduling.storage.tables import HISTORY_COLUMNS

PAGE = 1000

_IS_LOST = f"NOT EXISTS (SELECT FROM workers w WHERE w.uid = e.worker_uid AND w.expire_time > {NOW})"
# What the database believes to be under way or due had perhaps been called, or had even ended, in the time that is
# lost.
_MAY_REPEAT = f"""
(e.state = 'QUEUED' OR (e.state = 'RUNNING' AND {_IS_LOST}) OR (e.state = 'PENDING' AND e.ready_time <= {NOW}))
"""
_FIND = f"""
SELECT j.job_id, e.uid, e.state, e.target, e.ready_time, e.attempt FROM executions e JOIN jobs j ON j.uid = e.job_uid
WHERE {_MAY_REPEAT} AND e.uid > %(after)s AND e.ready_time >= %(since)s ORDER BY e.uid LIMIT {PAGE}
"""
_COUNT_SKIPPED = f"""
UPDATE schedules s
SET skipped = s.skipped || jsonb_build_object('{Reason.RESTORED}',
                                              coalesce((s.skipped ->> '{Reason.RESTORED}')::int8, 0) + i.count)
FROM (SELECT schedule_uid, count(*) FROM executions e
      WHERE e.uid = ANY(%(uids)s::uuid[]) AND {_MAY_REPEAT} AND e.origin = 'SCHEDULED' GROUP BY schedule_uid) AS i
WHERE s.uid = i.schedule_uid
"""
_CHANGED = {"state": "'SKIPPED'", "reason": f"'{Reason.RESTORED}'", "finish_time": NOW}
_SKIP = f"""
WITH gone AS (
    DELETE FROM executions e WHERE e.uid = ANY(%(uids)s::uuid[]) AND {_MAY_REPEAT}
    RETURNING {", ".join(HISTORY_COLUMNS)}
)
{move_sql("gone", _CHANGED)} RETURNING uid
"""
_IS_PAUSED = "SELECT EXISTS (SELECT FROM controls WHERE scope = 'SERVICE' FOR SHARE)"


@dataclass(frozen=True, slots=True)
class Repeatable:
    """An execution that will be called, perhaps again, when the service is resumed."""

    name: str
    uid: UUID
    state: str
    target: str
    ready_time: datetime
    attempt: int


class RestoringStore:
    """What an operator does after a restore, while the service is paused."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def repeatable(self, since: datetime, after: UUID) -> Sequence[Repeatable]:
        """A page, by uid, of what is unfinished and came due at `since` or later: it may have been called already."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_FIND, {"now": self._database.now(), "since": since, "after": after})
            return [_repeatable(row) for row in await cursor.fetchall()]

    async def skip(self, uids: Sequence[UUID]) -> int:
        """Ends them as SKIPPED (RESTORED); returns how many that were. Raises WrongState unless the service is paused:
        only then do they stand still.
        """
        async with self._database.begin() as connection:
            if not (await connection.exec_driver_sql(_IS_PAUSED)).scalar_one():
                raise WrongState("the service is not paused; PauseService comes first", subject="service")
            parameters = {"now": self._database.now(), "uids": list(uids)}
            await connection.exec_driver_sql(_COUNT_SKIPPED, parameters)
            ended = (await connection.exec_driver_sql(_SKIP, parameters)).all()
            if ended:
                told = {"skipped": [execution_id(uid) for (uid,) in ended]}
                await note_change(connection, self._database.moment(), "service", after=told)
            return len(ended)


def _repeatable(row: Sequence[Any]) -> Repeatable:
    return Repeatable(f"jobs/{row[0]}/executions/{execution_id(row[1])}", row[1], row[2], row[3], row[4], row[5])
