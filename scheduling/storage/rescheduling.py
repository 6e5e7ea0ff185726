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
from scheduling.domain.recurrence import next_fire, zone_version
from scheduling.domain.schedule import Schedule
from scheduling.domain.timing import Timing
from scheduling.operations.ports import ScheduleChange
from scheduling.storage import rows
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.notify import CHANNEL
from scheduling.storage.planning import (
    Owner,
    drop_plans,
    named_calendars,
    once_time,
    owner_of,
    plan_record,
    write_gap,
)
from scheduling.storage.schedules import select_schedules
from scheduling.storage.tables import executions, jobs, schedules
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
            return await _read(connection, schedule.uid)

    async def pause_schedule(self, schedule: Schedule, principal: str, note: str) -> Schedule | None:
        """Pauses the schedule if its revision is still that of `schedule`: what it has planned goes."""
        async with self._database.begin() as connection:
            locked = await self._lock(connection, schedule)
            if locked is None:
                return None
            _, _, now = locked
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
                    # Of what lies ahead nothing is accounted for any more.
                    evaluated_until=sa.case(
                        (schedules.c.evaluated_until == _INFINITY, _INFINITY),
                        else_=sa.func.least(schedules.c.evaluated_until, now),
                    ),
                )
            )
            if schedule.timing.is_recurring:
                await drop_plans(connection, [schedule.uid], now)
            else:
                await connection.execute(
                    executions.update()
                    .where(
                        executions.c.schedule_uid == schedule.uid,
                        executions.c.state.in_([State.PENDING.value, State.QUEUED.value]),
                        executions.c.attempt == 0,
                    )
                    .values(state=State.PENDING.value, held_by=HELD_BY_PAUSE)
                )
            return await _read(connection, schedule.uid)

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
                await _let_go(connection, schedule.uid, now)
            return await _read(connection, schedule.uid)

    async def _lock(
        self, connection: AsyncConnection, schedule: Schedule
    ) -> tuple[dict[Any, Any], Owner, datetime] | None:
        """Locks job, then schedule; None if the schedule is not at that revision any more. Also tells the moment."""
        job_select = sa.select(jobs).where(jobs.c.uid == schedule.job_uid).with_for_update()
        job = (await connection.execute(job_select)).mappings().first()
        columns = [column for column in schedules.c if column.name != "evaluated_until"]
        until = sa.func.nullif(schedules.c.evaluated_until, _INFINITY).label("evaluated_until")
        at_revision = (schedules.c.uid == schedule.uid, schedules.c.revision == schedule.revision)
        select = sa.select(*columns, until).where(*at_revision).with_for_update()
        row = (await connection.execute(select)).mappings().first()
        if job is None or row is None:
            return None
        now: datetime = (await connection.execute(sa.select(self._database.moment()))).scalar_one()
        return dict(row), owner_of(job), now


async def _let_go(connection: AsyncConnection, uid: UUID, now: datetime) -> None:
    """A one-off whose moment has passed while it was paused is skipped; otherwise it goes on waiting for it."""
    held = sa.and_(executions.c.schedule_uid == uid, executions.c.held_by == HELD_BY_PAUSE)
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
        "stale": False,
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
    until = row["evaluated_until"]
    if until is not None:
        await write_gap(connection, row["uid"], before, until, now, reason)
    await drop_plans(connection, [row["uid"]], now)
    if row["paused"]:
        # Up to now the gap tells it; what passes from here on is told when the schedule is resumed.
        reached: Any = now if after.is_recurring else _INFINITY
        await connection.execute(
            schedules.update().where(schedules.c.uid == row["uid"]).values(evaluated_until=reached)
        )
        return
    nominal = _next(row, after, now)
    if nominal is not None:
        await connection.execute(executions.insert().values(**plan_record(owner, row, after, nominal, now)))
        await connection.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
    recurs = after.is_recurring and nominal is not None
    await connection.execute(
        schedules.update()
        .where(schedules.c.uid == row["uid"])
        .values(evaluated_until=nominal if recurs else _INFINITY, zone_version=zone_version())
    )


def _next(row: Mapping[Any, Any], timing: Timing, now: datetime) -> datetime | None:
    """The next firing that is to be planned; a one-off of the last minute is due at once."""
    if timing.max_firings is not None and row["fired_count"] >= timing.max_firings:
        return None
    once = once_time(timing)
    return once if once is not None else next_fire(timing, now)


async def _read(connection: AsyncConnection, uid: UUID) -> Schedule | None:
    row = (await connection.execute(select_schedules().where(schedules.c.uid == uid))).mappings().first()
    if row is None:
        return None
    return rows.schedule(row, await named_calendars(connection, row["calendar_ids"]))
