"""Advance: a schedule whose plan comes near gets its next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from scheduling.domain.advance import MISSED_AFTER, Advance, advance
from scheduling.domain.execution import Reason
from scheduling.domain.recurrence import jittered, zone_version
from scheduling.domain.timing import Timing
from scheduling.storage import rows
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.planning import calendars_of
from scheduling.storage.plans import INSERT_PLANS, JOBS_OF, PLAN_COLUMNS, Owner, owner_of, plan_record

_MICROSECOND = timedelta(microseconds=1)

_DUE = f"""
SELECT s.*, {NOW} AS moment FROM schedules s
WHERE s.evaluated_until < 'infinity' AND NOT s.paused AND s.evaluated_until <= {NOW} + %(ahead)s::interval
  AND {TERM_HOLDS}
ORDER BY s.evaluated_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
# The plan that a schedule which was not advanced in time still has: nobody looked at it either, so it is as missed as
# those after it. By executions_firing.
_UNPLAN_MISSED = f"""
DELETE FROM executions e
USING unnest(%(uids)s::uuid[], %(nominals)s::timestamptz[]) AS i (uid, nominal)
WHERE e.schedule_uid = i.uid AND e.nominal_time = i.nominal AND e.origin = 'SCHEDULED' AND e.state = 'PENDING'
  AND e.attempt = 0 AND e.held_by IS NULL AND e.queue_time IS NULL AND e.ready_time < {NOW} - %(missed_after)s::interval
RETURNING e.schedule_uid
"""

_MOVE = """
UPDATE schedules s
SET evaluated_until = i.until, missed_count = s.missed_count + i.missed, zone_version = %(zone_version)s
FROM unnest(%(uid)s::uuid[], %(before)s::timestamptz[], %(revision)s::int8[], %(until)s::timestamptz[],
            %(missed)s::int8[]) AS i (uid, before, revision, until, missed)
WHERE s.uid = i.uid AND s.evaluated_until = i.before AND s.revision = i.revision
RETURNING s.uid
"""

_GAPS = """
INSERT INTO schedule_gaps (schedule_uid, from_time, to_time, firings, reason)
SELECT * FROM unnest(%(uid)s::uuid[], %(from)s::timestamptz[], %(to)s::timestamptz[], %(count)s::int8[],
                     %(reason)s::text[])
"""


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one round did. `more` says that there is probably more to do at once."""

    schedules: int
    plans: int
    missed: int
    more: bool


class AdvancingStore:
    """What the scheduler does to recurring schedules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self, term: int, ahead: timedelta, limit: int = 500) -> Advanced:
        """Plans the next firings of up to `limit` schedules whose last plan is due within `ahead`.

        By schedules_to_advance; locks the schedules' rows and skips those that somebody changes right now. One
        transaction: the plans are inserted and `evaluated_until` moves together, or neither.
        """
        now = self._database.now()
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(_DUE, {"now": now, "ahead": ahead, "limit": limit, "term": term})
            due = await cursor.fetchall()
            if not due:
                return Advanced(0, 0, 0, more=False)
            await cursor.execute(JOBS_OF, {"uids": [row["job_uid"] for row in due]})
            jobs = {row["uid"]: row for row in await cursor.fetchall()}
            named = await calendars_of(cursor, due)
            timings = {row["uid"]: rows.timing(row, named) for row in due}
            due = [row for row in due if row["job_uid"] in jobs]
            unplanned = await self._unplan_missed(cursor, due)
            steps = [(row, advance(timings[row["uid"]], _since(row, unplanned), row["moment"], ahead)) for row in due]
            await cursor.execute(
                _MOVE,
                {
                    "uid": [row["uid"] for row, _ in steps],
                    "before": [row["evaluated_until"] for row, _ in steps],
                    "revision": [row["revision"] for row, _ in steps],
                    "until": ["infinity" if s.until is None else s.until.isoformat() for _, s in steps],
                    "missed": [sum(gap.firings for gap in s.gaps) for _, s in steps],
                    "zone_version": zone_version(),
                },
            )
            moved = {row["uid"] for row in await cursor.fetchall()}
            done = [(row, step) for row, step in steps if row["uid"] in moved]
            plans = [
                plan
                for row, step in done
                for plan in _plans(row, timings[row["uid"]], owner_of(jobs[row["job_uid"]]), step, row["moment"])
            ]
            if plans:
                await cursor.execute(
                    INSERT_PLANS, {"now": now, **{n: [plan[n] for plan in plans] for n in PLAN_COLUMNS}}
                )
            gaps = [(row["uid"], gap) for row, step in done for gap in step.gaps]
            if gaps:
                await cursor.execute(
                    _GAPS,
                    {
                        "uid": [uid for uid, _ in gaps],
                        "from": [gap.start for _, gap in gaps],
                        "to": [gap.end for _, gap in gaps],
                        "count": [gap.firings for _, gap in gaps],
                        "reason": [Reason.MISSED.value] * len(gaps),
                    },
                )
        return Advanced(
            schedules=len(done),
            plans=len(plans),
            missed=sum(gap.firings for _, gap in gaps),
            more=len(due) == limit or any(step.more for _, step in done),
        )

    async def _unplan_missed(self, cursor: AsyncCursor[DictRow], due: Sequence[DictRow]) -> set[UUID]:
        """Takes away the plans that were missed; returns whose."""
        behind = [row for row in due if row["evaluated_until"] < row["moment"] - MISSED_AFTER]
        if not behind:
            return set()
        await cursor.execute(
            _UNPLAN_MISSED,
            {
                "now": self._database.now(),
                "missed_after": MISSED_AFTER,
                "uids": [row["uid"] for row in behind],
                "nominals": [row["evaluated_until"] for row in behind],
            },
        )
        return {row["schedule_uid"] for row in await cursor.fetchall()}


def _since(row: DictRow, unplanned: set[UUID]) -> datetime:
    """What the schedule is accounted for up to: just before the plan that was taken away, if it was."""
    until: datetime = row["evaluated_until"]
    return until - _MICROSECOND if row["uid"] in unplanned else until


def _plans(schedule: Any, timing: Timing, owner: Owner, step: Advance, moment: datetime) -> Sequence[dict[str, Any]]:
    return [
        # A firing that is made up for is due now: its age counts from here, and it was not late by the outage.
        plan_record(
            owner,
            schedule,
            timing,
            nominal,
            moment,
            ready=max(jittered(timing, schedule["uid"], nominal), moment) if nominal in step.caught_up else None,
        )
        for nominal in step.plans
    ]
