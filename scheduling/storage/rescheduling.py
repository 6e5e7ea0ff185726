"""Changes of a schedule's time: update, pause, resume. Each takes effect at once and exactly.

All lock job, then schedule, then executions. What is planned is replaced in the same transaction; records stay. Times
that nobody had advanced yet are accounted for as a gap, so that no nominal time falls between two timings.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import zone_version
from scheduling.domain.schedule import Schedule
from scheduling.domain.timing import Timing
from scheduling.operations.ports import ScheduleChange
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.jobs import refuse_cancelled, use_job
from scheduling.storage.notify import CHANNEL
from scheduling.storage.planning import (
    drop_plans,
    named_calendars,
    once_time,
    plans_ahead,
    taken_ahead,
    write_gap,
)
from scheduling.storage.plans import Owner, owner_of, plan_record
from scheduling.storage.schedules import select_schedules
from scheduling.storage.tables import executions, schedules
from scheduling.storage.timings import calendar_ids, exclusions_to_json, when_to_spec

_INFINITY = sa.text("'infinity'::timestamptz")

#: What a one-off is held by while its schedule is paused.
HELD_BY_PAUSE = "PAUSED"


class ReschedulingStore:
    """The part of the store that changes when schedules fire."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def update_schedule(self, schedule: Schedule, change: ScheduleChange) -> Schedule | None:
        """Changes the schedule if its revision is still that of `schedule`; None if somebody else changed it in
        between.
        """
        async with self._database.begin() as connection:
            locked = await self._lock(connection, schedule)
            if locked is None:
                return None
            row, owner, now = locked
            values: dict[str, Any] = {"revision": schedules.c.revision + 1, "update_time": now}
            if change.display_name is not None:
                values["display_name"] = change.display_name
            if change.change_request:
                values |= {"request": change.request, "request_type": change.request_type}
            if change.timing is not None:
                values |= _timing_values(change.timing) | {"timing_time": now}
            await connection.execute(schedules.update().where(schedules.c.uid == schedule.uid).values(**values))
            if change.timing is not None or change.change_request:
                await _replan(connection, row | values, owner, schedule.timing, change.timing or schedule.timing, now)
            changed = await _read(connection, schedule.uid)
            await note_change(connection, self._database.moment(), schedule.name, schedule, changed)
            return changed

    async def pause_schedule(self, schedule: Schedule, principal: str, note: str) -> Schedule | None:
        """Pauses the schedule if its revision is still that of `schedule`: what it has planned goes."""
        async with self._database.begin() as connection:
            locked = await self._lock(connection, schedule)
            if locked is None:
                return None
            row, _, now = locked
            reached: Any = _INFINITY
            if schedule.timing.is_recurring:
                dropped = await drop_plans(connection, schedule.uid, now)
                until = row["evaluated_until"]
                # Of what lies ahead nothing is accounted for any more, a last firing that was planned included, but
                # for one that has its execution already.
                if until is not None or dropped.nominals:
                    taken = await taken_ahead(connection, schedule.uid, now)
                    reached = max([now if until is None else min(until, now), *taken])
            await connection.execute(
                schedules.update()
                .where(schedules.c.uid == schedule.uid)
                .values(
                    paused=True,
                    pause_time=now,
                    pause_principal=principal,
                    pause_note=note,
                    revision=schedules.c.revision + 1,
                    update_time=now,
                    evaluated_until=reached,
                )
            )
            if not schedule.timing.is_recurring:
                await connection.execute(
                    executions.update()
                    .where(
                        executions.c.job_uid == schedule.job_uid,
                        executions.c.schedule_uid == schedule.uid,
                        executions.c.state.in_([State.PENDING.value, State.QUEUED.value]),
                        executions.c.attempt == 0,
                    )
                    .values(state=State.PENDING.value, held_by=HELD_BY_PAUSE)
                )
            changed = await _read(connection, schedule.uid)
            await note_change(connection, self._database.moment(), schedule.name, schedule, changed)
            return changed

    async def resume_schedule(self, schedule: Schedule) -> Schedule | None:
        """Resumes the schedule if its revision is still that of `schedule`: what passed meanwhile becomes one gap."""
        async with self._database.begin() as connection:
            locked = await self._lock(connection, schedule)
            if locked is None:
                return None
            row, owner, now = locked
            values = {
                "paused": False,
                "pause_time": None,
                "pause_principal": "",
                "pause_note": "",
                "revision": schedules.c.revision + 1,
                "update_time": now,
            }
            await connection.execute(schedules.update().where(schedules.c.uid == schedule.uid).values(**values))
            if schedule.timing.is_recurring:
                await _replan(
                    connection, {**row, "paused": False}, owner, schedule.timing, schedule.timing, now, Reason.PAUSED
                )
            else:
                await _let_go(connection, schedule.job_uid, schedule.uid, now)
            changed = await _read(connection, schedule.uid)
            await note_change(connection, self._database.moment(), schedule.name, schedule, changed)
            return changed

    async def _lock(
        self, connection: AsyncConnection, schedule: Schedule
    ) -> tuple[dict[Any, Any], Owner, datetime] | None:
        """Locks job, then schedule; None if the schedule is not at that revision any more. Also tells the moment."""
        job = await use_job(connection, schedule.job_uid, self._database.moment())
        columns = [column for column in schedules.c if column.name != "evaluated_until"]
        until = sa.func.nullif(schedules.c.evaluated_until, _INFINITY).label("evaluated_until")
        at_revision = (schedules.c.uid == schedule.uid, schedules.c.revision == schedule.revision)
        select = sa.select(*columns, until).where(*at_revision).with_for_update()
        row = (await connection.execute(select)).mappings().first()
        if job is None or row is None:
            return None
        refuse_cancelled(job)
        now: datetime = (await connection.execute(sa.select(self._database.moment_after_waiting()))).scalar_one()
        return dict(row), owner_of(job), now


async def _let_go(connection: AsyncConnection, job_uid: UUID, uid: UUID, now: datetime) -> None:
    """A one-off whose moment has passed while it was paused is skipped; otherwise it goes on waiting for it."""
    held = sa.and_(
        executions.c.job_uid == job_uid, executions.c.schedule_uid == uid, executions.c.held_by == HELD_BY_PAUSE
    )
    passed = sa.and_(held, executions.c.nominal_time <= now)
    skipped = await end_waiting(connection, passed, State.SKIPPED, Reason.PAUSED, sa.literal(now))
    if skipped:
        await connection.execute(
            schedules.update()
            .where(schedules.c.uid == uid)
            .values(skipped=sa.func.jsonb_build_object(Reason.PAUSED.value, skipped))
        )
    await connection.execute(executions.update().where(held).values(held_by=None))


def _timing_values(timing: Timing) -> dict[str, Any]:
    kind, spec = when_to_spec(timing.when)
    return {
        "kind": kind,
        "spec": spec,
        "time_zone": timing.time_zone,
        "start_time": timing.start,
        "end_time": timing.end,
        "max_firings": timing.max_firings,
        "jitter": timing.jitter,
        "dst_policy": timing.dst_policy.value,
        "catchup_policy": timing.catchup_policy.value,
        "catchup_window": timing.catchup_window,
        "exclusions": exclusions_to_json(timing.exclusions),
        "calendar_ids": calendar_ids(timing.exclusions),
        # A calendar may have changed since it was read: the leader looks once more.
        "stale": bool(calendar_ids(timing.exclusions)),
    }


async def _replan(
    connection: AsyncConnection,
    row: Mapping[Any, Any],
    owner: Owner,
    before: Timing,
    after: Timing,
    now: datetime,
    reason: Reason = Reason.UPDATED,
) -> None:
    """Replaces what is planned by the next firing of `after`. What `before` had up to now and nobody advanced is a
    gap.
    """
    until, uid, paused = row["evaluated_until"], row["uid"], row["paused"]
    if until is not None:
        await write_gap(connection, uid, before, until, now, reason)
    dropped = await drop_plans(connection, uid, now)
    taken = await taken_ahead(connection, uid, now)
    nominals: list[datetime] = []
    reached: datetime | None = None
    if (once := once_time(after)) is not None:
        # One of the last minute is due at once. One that has its execution already is not given another.
        nominals = [once] if once in dropped.nominals or once != once_time(before) else []
    elif paused and after.is_recurring:
        # Up to now the gap tells it; what passes from here on is told when the schedule is resumed.
        reached = max([now, *taken])
    elif after.max_firings is None or row["fired_count"] - dropped.released < after.max_firings:
        nominals, reached = plans_ahead(after, now, taken)
    if nominals:
        more = {"held_by": HELD_BY_PAUSE if paused else None, "create_time": now}
        plans = [plan_record(owner, row, after, nominal, now) | more for nominal in nominals]
        await connection.execute(executions.insert(), plans)
        await connection.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
    await connection.execute(
        schedules.update()
        .where(schedules.c.uid == uid)
        .values(evaluated_until=_INFINITY if reached is None else reached, zone_version=zone_version())
    )


async def _read(connection: AsyncConnection, uid: UUID) -> Schedule | None:
    row = (await connection.execute(select_schedules().where(schedules.c.uid == uid))).mappings().first()
    if row is None:
        return None
    return rows.schedule(row, await named_calendars(connection, row["calendar_ids"]))
