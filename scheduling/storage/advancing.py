"""Advance: a schedule whose plan comes near gets its next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from scheduling.domain.advance import Advance, advance
from scheduling.domain.execution import Origin, Reason
from scheduling.domain.ids import uuid7
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import jittered, zone_version
from scheduling.storage import rows
from scheduling.storage.creation import overlap_column
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS

_DUE = f"""
SELECT s.*, {NOW} AS moment FROM schedules s
WHERE s.evaluated_until < 'infinity' AND NOT s.paused AND s.evaluated_until <= {NOW} + %(ahead)s::interval
  AND {TERM_HOLDS}
ORDER BY s.evaluated_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
_JOBS = """
SELECT uid, target, queue, owner, max_age, retention_days, overlap_policy FROM jobs WHERE uid = ANY(%(uids)s::uuid[])
"""

_MOVE = """
UPDATE schedules s
SET evaluated_until = i.until, missed_count = s.missed_count + i.missed, zone_version = %(zone_version)s
FROM unnest(%(uid)s::uuid[], %(before)s::timestamptz[], %(revision)s::int8[], %(until)s::timestamptz[],
            %(missed)s::int8[]) AS i (uid, before, revision, until, missed)
WHERE s.uid = i.uid AND s.evaluated_until = i.before AND s.revision = i.revision
RETURNING s.uid
"""

_PLAN = {
    "uid": "uuid",
    "job_uid": "uuid",
    "schedule_uid": "uuid",
    "schedule_id": "text",
    "origin": "text",
    "target": "text",
    "queue": "text",
    "owner": "text",
    "state": "text",
    "nominal_time": "timestamptz",
    "due_time": "timestamptz",
    "ready_time": "timestamptz",
    "expire_time": "timestamptz",
    "request": "bytea",
    "request_type": "text",
    "retention_days": "int2",
    "overlap": "text",
}
_INSERT = f"""
INSERT INTO executions ({", ".join(_PLAN)}, recurring, create_time)
SELECT {", ".join(f"i.{name}" for name in _PLAN)}, true, {NOW}
FROM unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in _PLAN.items())}) AS i ({", ".join(_PLAN)})
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
            await cursor.execute(_JOBS, {"uids": [row["job_uid"] for row in due]})
            jobs = {row["uid"]: row for row in await cursor.fetchall()}
            steps = [
                (row, advance(rows.timing(row), row["evaluated_until"], row["moment"], ahead))
                for row in due
                if row["job_uid"] in jobs
            ]
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
            plans = [plan for row, step in done for plan in _plans(row, jobs[row["job_uid"]], step, row["moment"])]
            if plans:
                await cursor.execute(_INSERT, {"now": now, **{n: [plan[n] for plan in plans] for n in _PLAN}})
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


def _plans(schedule: Any, job: Any, step: Advance, moment: datetime) -> Sequence[dict[str, Any]]:
    timing = rows.timing(schedule)
    overlap = None if job["overlap_policy"] is None else OverlapPolicy(job["overlap_policy"])
    plans = []
    for nominal in step.plans:
        uid: UUID = uuid7(moment)
        due = jittered(timing, schedule["uid"], nominal)
        # A firing that is made up for is due now: its age counts from here, and it was not late by the outage.
        ready = max(due, moment) if nominal in step.caught_up else due
        plans.append(
            {
                "uid": uid,
                "job_uid": job["uid"],
                "schedule_uid": schedule["uid"],
                "schedule_id": schedule["schedule_id"],
                "origin": Origin.SCHEDULED.value,
                "target": job["target"],
                "queue": job["queue"],
                "owner": job["owner"],
                "state": State.PENDING.value,
                "nominal_time": nominal,
                "due_time": ready,
                "ready_time": ready,
                "expire_time": ready + job["max_age"],
                "request": schedule["request"],
                "request_type": schedule["request_type"],
                "retention_days": job["retention_days"],
                "overlap": overlap_column(overlap, recurring=True),
            }
        )
    return plans
