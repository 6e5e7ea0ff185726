"""Schedules: add, read, list, delete. Advancing them is dispatch's business (`advancing.py`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from scheduling.domain.errors import AlreadyExists, WrongState
from scheduling.domain.job import Job
from scheduling.domain.lifecycle import UNFINISHED, State
from scheduling.domain.schedule import NewSchedule, Schedule
from scheduling.operations.ports import PageRequest
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.creation import schedule_columns
from scheduling.storage.database import Database
from scheduling.storage.jobs import claim_request_id, refuse_cancelled, use_job
from scheduling.storage.lists import Position, SortKey, Walk, named, page_bounds, read_stretches, uid_key
from scheduling.storage.notify import CHANNEL
from scheduling.storage.planning import named_calendars
from scheduling.storage.plans import first_plan, owner_of
from scheduling.storage.tables import backfills, executions, jobs, schedule_gaps, schedules

#: By executions_job. The schedule alone is in no index but that of its firings, which are not all that it makes.
_own = sa.and_(executions.c.job_uid == schedules.c.job_uid, executions.c.schedule_uid == schedules.c.uid)
_firing = sa.and_(
    executions.c.schedule_uid == schedules.c.uid,
    executions.c.origin == "SCHEDULED",
    executions.c.state.in_([state.value for state in UNFINISHED]),
)
_state = sa.case(
    (schedules.c.paused, "PAUSED"),
    (schedules.c.evaluated_until < sa.text("'infinity'"), "ACTIVE"),
    (sa.exists().where(_firing), "ACTIVE"),
    else_="COMPLETED",
).label("state")
_next_fire = (
    sa.select(sa.func.min(executions.c.nominal_time))
    .where(_firing, executions.c.state.in_(["PENDING", "QUEUED"]), executions.c.attempt == 0)
    .scalar_subquery()
    .label("next_fire_time")
)
_FILTER_COLUMNS = {
    "schedule_id": schedules.c.schedule_id,
    "display_name": schedules.c.display_name,
    "kind": schedules.c.kind,
    "time_zone": schedules.c.time_zone,
    "state": _state.element,
    "next_fire_time": _next_fire.element,
    "create_time": schedules.c.create_time,
    "time_zone_version": schedules.c.zone_version,
    "move_time": schedules.c.moved_time,
    "calendar": sa.func.array_to_string(schedules.c.calendar_ids, " "),
}
_SORT_KEYS: list[SortKey] = [uid_key(schedules.c.uid)]
#: The condition of schedules_recurring, as it stands there.
_RECURS = sa.literal_column("schedules.kind <> 'ONCE'", sa.Boolean())


def select_schedules() -> sa.Select[Any]:
    columns = [column for column in schedules.c if column.name != "evaluated_until"]
    # Python has no infinite datetime: nothing more to evaluate reads as None.
    buffered = (
        sa.select(sa.func.count()).where(_own, executions.c.held_by == "OVERLAP").scalar_subquery().label("buffered")
    )
    until = sa.func.nullif(schedules.c.evaluated_until, sa.text("'infinity'::timestamptz")).label("evaluated_until")
    return sa.select(*columns, until, buffered, jobs.c.job_id, _state, _next_fire).join(
        jobs, jobs.c.uid == schedules.c.job_uid
    )


def _typed(record: dict[str, Any], table: sa.Table) -> dict[str, Any]:
    """A record of `creation` as SQLAlchemy wants it: infinity as SQL, JSON as JSON, arrays as arrays."""
    values = {name: record[name] for name in record if name in table.c}
    values |= {name: json.loads(values[name]) for name in ("spec", "exclusions")}
    values["calendar_ids"] = values["calendar_ids"].split()
    if values["evaluated_until"] == "infinity":
        values["evaluated_until"] = sa.text("'infinity'")
    return values


class ScheduleStore:
    """The schedule part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_schedule(
        self, job: Job, schedule: NewSchedule, *, principal: str, request_id: str, digest: bytes, limit: int
    ) -> UUID:
        """Stores a schedule and its first plan, under the lock of the job's row."""
        async with self._database.begin() as connection:
            first = await claim_request_id(connection, principal, request_id, digest, schedule.uid)
            if first is not None:
                return first
            moment = self._database.moment()
            locked = await use_job(connection, job.uid, moment)
            refuse_cancelled(locked)
            assert locked is not None
            count = await connection.scalar(
                sa.select(sa.func.count()).select_from(schedules).where(schedules.c.job_uid == job.uid)
            )
            if (count or 0) >= limit:
                raise WrongState(
                    f"{job.name} has {count} schedules already, which is the most; delete some or create another job",
                    subject=job.name,
                    reason="TOO_MANY_SCHEDULES",
                )
            columns = schedule_columns([(job.uid, schedule)])
            record = _typed({name: value for name, (value,) in columns.items()}, schedules)
            try:
                await connection.execute(schedules.insert().values(**record, create_time=moment, update_time=moment))
            except IntegrityError as error:
                raise AlreadyExists(
                    f"{job.name} has a schedule {schedule.schedule_id!r} already; choose another schedule_id",
                    resource_type="Schedule",
                    name=f"{job.name}/schedules/{schedule.schedule_id}",
                ) from error
            if schedule.first_fire is not None:
                plan = first_plan(owner_of(locked), schedule, schedule.accept_time)
                await connection.execute(executions.insert().values(**plan, create_time=moment))
            await connection.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
            name = f"{job.name}/schedules/{schedule.schedule_id}"
            await note_change(connection, moment, name, after=schedule)
            return schedule.uid

    async def get_schedule(self, job_id: str, schedule_id: str) -> Schedule | None:
        """The schedule of that id in that job."""
        return await self._one(jobs.c.job_id == job_id, schedules.c.schedule_id == schedule_id)

    async def get_schedule_by_uid(self, uid: UUID) -> Schedule | None:
        """The schedule of that uid."""
        return await self._one(schedules.c.uid == uid)

    async def _one(self, *where: sa.ColumnElement[bool]) -> Schedule | None:
        async with self._database.begin() as connection:
            row = (await connection.execute(select_schedules().where(*where))).mappings().first()
            if row is None:
                return None
            return rows.schedule(row, await named_calendars(connection, row["calendar_ids"]))

    async def list_schedules(self, job_id: str | None, page: PageRequest) -> tuple[Sequence[Schedule], Position | None]:
        """One page of the schedules of one job or of all; by primary key, by schedules_recurring, or by the key of job
        and id.
        """
        kinds = named(page.filter, "kind")
        within = [_RECURS] if kinds is not None and "ONCE" not in kinds else []
        select = select_schedules().where(*within)
        if job_id is not None:
            select = select.where(jobs.c.job_id == job_id)
        if page.principals is not None:
            select = select.where(jobs.c.principal.in_(sorted(page.principals)))

        def build(page: PageRequest, until: Position | None) -> sa.Select[Any]:
            return page_bounds(select, page, _SORT_KEYS, _FILTER_COLUMNS, until)

        # A job has few, and they are read as a whole.
        is_filtered = job_id is None and (page.filter is not None or page.principals is not None)
        async with self._database.begin() as connection:
            found, position = await read_stretches(
                connection, build, page, _SORT_KEYS, [Walk(_SORT_KEYS, within)] if is_filtered else []
            )
            calendars = await named_calendars(connection, {name for row in found for name in row["calendar_ids"]})
        return [rows.schedule(row, calendars) for row in found], position

    async def delete_schedule(self, schedule: Schedule) -> bool:
        """Deletes the schedule with its plans; what has come due stays."""
        async with self._database.begin() as connection:
            await connection.execute(sa.select(jobs.c.uid).where(jobs.c.uid == schedule.job_uid).with_for_update())
            deleted = await connection.execute(
                schedules.delete().where(schedules.c.uid == schedule.uid, schedules.c.revision == schedule.revision)
            )
            if not deleted.rowcount:
                return False
            await connection.execute(backfills.delete().where(backfills.c.schedule_uid == schedule.uid))
            await connection.execute(schedule_gaps.delete().where(schedule_gaps.c.schedule_uid == schedule.uid))
            await connection.execute(
                executions.delete().where(
                    executions.c.job_uid == schedule.job_uid,
                    executions.c.schedule_uid == schedule.uid,
                    executions.c.state.in_([State.PENDING.value, State.QUEUED.value]),
                    executions.c.attempt == 0,
                    executions.c.nominal_time > self._database.moment(),
                )
            )
            await note_change(connection, self._database.moment(), schedule.name, before=schedule)
            return True
