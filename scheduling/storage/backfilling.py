"""Backfills: stored by callers, worked off by the leader at their rate."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg.rows import dict_row

from scheduling.domain.audit import plain
from scheduling.domain.backfill import Backfill, BackfillState
from scheduling.domain.errors import WrongState
from scheduling.domain.execution import Origin
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.recurrence import fires_between
from scheduling.operations.ports import NewBackfill
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.database import NOW, Database
from scheduling.storage.jobs import claim_request_id, use_job
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.notify import CHANNEL
from scheduling.storage.planning import calendars_of
from scheduling.storage.plans import INSERT_PLANS, JOBS_OF, PLAN_COLUMNS, owner_of, plan_record
from scheduling.storage.tables import backfills, jobs, schedules

_MICROSECOND = timedelta(microseconds=1)

_RUNNING = f"""
SELECT b.*, {NOW} AS moment FROM backfills b
WHERE b.state = 'RUNNING' AND b.next_time <= {NOW} AND {TERM_HOLDS}
ORDER BY b.next_time LIMIT 20 FOR UPDATE SKIP LOCKED
"""
_SCHEDULES = """
SELECT s.uid, s.job_uid, s.schedule_id, s.kind, s.spec, s.time_zone, s.start_time, s.end_time, s.max_firings, s.jitter,
       s.dst_policy, s.catchup_policy, s.catchup_window, s.request, s.request_type, s.exclusions, s.calendar_ids
FROM schedules s WHERE s.uid = ANY(%(uids)s::uuid[])
"""
_STEP = f"""
UPDATE backfills SET made = made + %(count)s, progress_time = %(progress)s, state = %(state)s,
    next_time = {NOW} + interval '1 second'
WHERE uid = %(uid)s
"""


class BackfillStore:
    """The backfill part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_backfill(self, backfill: NewBackfill) -> UUID:
        """Stores a backfill; the leader takes it up within a second."""
        async with self._database.begin() as connection:
            first = await claim_request_id(
                connection, backfill.principal, backfill.request_id, backfill.digest, backfill.uid
            )
            if first is not None:
                return first
            if await use_job(connection, backfill.schedule.job_uid, self._database.moment()) is None:
                raise WrongState("the job was deleted in between", subject="job", reason="DELETED")
            await connection.execute(
                backfills.insert().values(
                    uid=backfill.uid,
                    job_uid=backfill.schedule.job_uid,
                    schedule_uid=backfill.schedule.uid,
                    from_time=backfill.start,
                    to_time=backfill.end,
                    state=BackfillState.RUNNING.value,
                    total=backfill.total,
                    progress_time=backfill.start - _MICROSECOND,
                    next_time=sa.func.now(),
                    rate=backfill.rate,
                    overlap=backfill.overlap_policy.value,
                    principal=backfill.principal,
                )
            )
            made = {
                "start": plain(backfill.start),
                "end": plain(backfill.end),
                "total": backfill.total,
                "rate": backfill.rate,
                "overlap_policy": backfill.overlap_policy.value,
            }
            name = f"{backfill.schedule.name}/backfills/b-{backfill.uid}"
            await note_change(connection, self._database.moment(), name, after=made)
        return backfill.uid

    async def get_backfill(self, uid: UUID) -> Backfill | None:
        """The backfill of that uid."""
        select = (
            sa.select(*backfills.c, jobs.c.job_id, schedules.c.schedule_id)
            .join(jobs, jobs.c.uid == backfills.c.job_uid)
            .join(schedules, schedules.c.uid == backfills.c.schedule_uid)
            .where(backfills.c.uid == uid)
        )
        async with self._database.begin() as connection:
            row = (await connection.execute(select)).mappings().first()
        return None if row is None else _backfill(row)

    async def cancel_backfill(self, uid: UUID) -> None:
        """Ends a running one."""
        async with self._database.begin() as connection:
            ended = await connection.execute(
                backfills.update()
                .where(
                    backfills.c.uid == uid,
                    backfills.c.state == BackfillState.RUNNING.value,
                    jobs.c.uid == backfills.c.job_uid,
                    schedules.c.uid == backfills.c.schedule_uid,
                )
                .values(state=BackfillState.CANCELLED.value)
                .returning(jobs.c.job_id, schedules.c.schedule_id)
            )
            for job_id, schedule_id in ended.all():
                name = f"jobs/{job_id}/schedules/{schedule_id}/backfills/b-{uid}"
                states = ({"state": BackfillState.RUNNING.value}, {"state": BackfillState.CANCELLED.value})
                await note_change(connection, self._database.moment(), name, *states)

    async def step_backfills(self, term: int) -> int:
        """Makes the executions of one second of each running backfill; returns how many.

        The executions and the progress are one transaction: a crash repeats nothing and leaves nothing out.
        """
        now = self._database.now()
        made = 0
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(_RUNNING, {"now": now, "term": term})
            running = await cursor.fetchall()
            if not running:
                return 0
            await cursor.execute(_SCHEDULES, {"uids": [row["schedule_uid"] for row in running]})
            found = {row["uid"]: row for row in await cursor.fetchall()}
            named = await calendars_of(cursor, found.values())
            await cursor.execute(JOBS_OF, {"uids": [row["job_uid"] for row in running]})
            owners = {row["uid"]: owner_of(row) for row in await cursor.fetchall()}
            for backfill in running:
                schedule, owner = found.get(backfill["schedule_uid"]), owners.get(backfill["job_uid"])
                if schedule is None or owner is None:
                    step = {"count": 0, "progress": backfill["progress_time"], "state": BackfillState.CANCELLED.value}
                else:
                    timing = rows.timing(schedule, named)
                    fires = fires_between(
                        timing, backfill["progress_time"], backfill["to_time"] - _MICROSECOND, backfill["rate"]
                    )
                    overlap = None if backfill["overlap"] == OverlapPolicy.ALLOW_ALL.value else backfill["overlap"]
                    plans = [
                        plan_record(
                            owner,
                            schedule,
                            timing,
                            nominal,
                            backfill["moment"],
                            origin=Origin.BACKFILL,
                            # One after the other in the order of their nominal times.
                            ready=backfill["moment"] + n * _MICROSECOND,
                            overlap=overlap,
                        )
                        for n, nominal in enumerate(fires)
                    ]
                    if plans:
                        await cursor.execute(
                            INSERT_PLANS,
                            {"now": now, **{name: [plan[name] for plan in plans] for name in PLAN_COLUMNS}},
                        )
                        await cursor.execute(f"SELECT pg_notify('{CHANNEL}', '')")
                    is_done = len(fires) < backfill["rate"]
                    step = {
                        "count": len(fires),
                        "progress": fires[-1] if fires else backfill["progress_time"],
                        "state": (BackfillState.DONE if is_done else BackfillState.RUNNING).value,
                    }
                    made += len(fires)
                await cursor.execute(_STEP, {"now": now, "uid": backfill["uid"], **step})
        return made


def _backfill(row: Any) -> Backfill:
    return Backfill(
        uid=row["uid"],
        job_id=row["job_id"],
        schedule_id=row["schedule_id"],
        schedule_uid=row["schedule_uid"],
        start=row["from_time"],
        end=row["to_time"],
        state=BackfillState(row["state"]),
        total=row["total"],
        made=row["made"],
        progress=max(row["progress_time"], row["from_time"]),
        rate=row["rate"],
        overlap_policy=OverlapPolicy(row["overlap"]),
        principal=row["principal"],
        create_time=row["create_time"],
    )
