"""Plans: what a schedule has ahead, taken away and made anew, in the transaction that changes the schedule.

Used by everything that changes when a schedule fires: updates, pauses, calendars, zone versions. The caller holds the
lock of the schedule's row, so that nobody advances it meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg import AsyncCursor
from psycopg.rows import DictRow
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.advance import STEP_LIMIT
from scheduling.domain.execution import Origin, Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import fires_between, next_fire
from scheduling.domain.timing import NamedCalendar, Once, OnDeployment, Timing
from scheduling.storage.tables import calendars, executions, schedule_gaps, schedules
from scheduling.storage.timings import plain_exclusions

#: Firings that a gap counts one by one; longer ones are told as at least so many.
COUNTED_FIRINGS = 100_000


@dataclass(frozen=True, slots=True)
class Dropped:
    """Plans that were taken away. `released` is how many of them had been released early, which counted as fired."""

    nominals: frozenset[datetime]
    released: int


async def named_calendars(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, NamedCalendar]:
    """The shared calendars of these ids that exist."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    found = await connection.execute(sa.select(calendars).where(calendars.c.calendar_id.in_(wanted)))
    return {
        row["calendar_id"]: NamedCalendar(row["calendar_id"], plain_exclusions(row["exclusions"]), row["time_zone"])
        for row in found.mappings()
    }


_CALENDARS = "SELECT calendar_id, exclusions, time_zone FROM calendars WHERE calendar_id = ANY(%(ids)s::text[])"


async def calendars_of(cursor: AsyncCursor[DictRow], found: Iterable[Mapping[str, Any]]) -> dict[str, NamedCalendar]:
    """The shared calendars that rows of `schedules` name; none are asked for when none are named."""
    ids = sorted({name for row in found for name in row["calendar_ids"]})
    if not ids:
        return {}
    await cursor.execute(_CALENDARS, {"ids": ids})
    return {
        row["calendar_id"]: NamedCalendar(row["calendar_id"], plain_exclusions(row["exclusions"]), row["time_zone"])
        for row in await cursor.fetchall()
    }


async def drop_plans(connection: AsyncConnection, uid: UUID, now: datetime) -> Dropped:
    """Takes away what is planned and not yet running; records, whose nominal time has come, stay."""
    gone = await connection.execute(
        executions.delete()
        .where(
            executions.c.schedule_uid == uid,
            executions.c.origin == Origin.SCHEDULED.value,
            executions.c.state.in_([State.PENDING.value, State.QUEUED.value]),
            executions.c.attempt == 0,
            executions.c.nominal_time > now,
        )
        .returning(executions.c.nominal_time, executions.c.recurring & executions.c.queue_time.is_not(None))
    )
    found = gone.all()
    dropped = Dropped(frozenset(row[0] for row in found), sum(row[1] for row in found))
    if dropped.released:
        # A firing that never came about is none.
        await connection.execute(
            schedules.update()
            .where(schedules.c.uid == uid)
            .values(fired_count=schedules.c.fired_count - dropped.released)
        )
    return dropped


#: Nominal times ahead that have their execution already, after the plans were dropped: it runs a moment early, or a
#: caller has cancelled it. They are not planned again. By executions_firing and execution_history_ahead.
TAKEN_AHEAD = """
SELECT schedule_uid, nominal_time FROM executions
WHERE schedule_uid = ANY({uids}) AND origin = 'SCHEDULED' AND nominal_time > {now}
UNION ALL
SELECT schedule_uid, nominal_time FROM execution_history
WHERE schedule_uid = ANY({uids}) AND origin = 'SCHEDULED' AND nominal_time > {now} AND finish_time < nominal_time
"""


async def taken_ahead(connection: AsyncConnection, uid: UUID, now: datetime) -> frozenset[datetime]:
    """TAKEN_AHEAD of one schedule."""
    statement = sa.text(TAKEN_AHEAD.format(uids=":uids", now=":now"))
    found = await connection.execute(statement, {"uids": [uid], "now": now})
    return frozenset(row[1] for row in found)


def plans_ahead(
    timing: Timing, now: datetime, taken: Collection[datetime] = ()
) -> tuple[list[datetime], datetime | None]:
    """The firings to plan, and up to when the schedule is accounted for with them; None if it has no more.

    That is the next firing, except that none up to the last of `taken` may be left out.
    """
    if not taken:
        nominal = next_fire(timing, now)
        return ([] if nominal is None else [nominal]), nominal
    near = fires_between(timing, now, max(taken), STEP_LIMIT)
    beyond = near[-1] if len(near) == STEP_LIMIT else next_fire(timing, max(taken))
    if beyond is not None and beyond not in near:
        near.append(beyond)
    return [each for each in near if each not in taken], beyond


async def write_gap(
    connection: AsyncConnection, uid: UUID, timing: Timing, after: datetime, until: datetime, reason: Reason
) -> int:
    """Accounts for the firings in (after, until] as one gap; returns how many there are."""
    if not timing.is_recurring or until <= after:
        return 0
    fires = fires_between(timing, after, until, COUNTED_FIRINGS)
    if fires:
        await connection.execute(
            schedule_gaps.insert().values(
                schedule_uid=uid, from_time=fires[0], to_time=fires[-1], firings=len(fires), reason=reason.value
            )
        )
        await connection.execute(
            schedules.update().where(schedules.c.uid == uid).values(missed_count=schedules.c.missed_count + len(fires))
            if reason is Reason.MISSED
            else count_skipped(uid, reason, len(fires))
        )
    return len(fires)


def count_skipped(uid: UUID, reason: Reason, count: int) -> sa.Update:
    """Adds to the schedule's counter of skipped firings."""
    before = sa.func.coalesce(sa.cast(schedules.c.skipped[reason.value].astext, sa.BigInteger), 0)
    grown = sa.func.jsonb_build_object(reason.value, before + count)
    return (
        schedules.update()
        .where(schedules.c.uid == uid)
        .values(skipped=schedules.c.skipped.op("||", return_type=schedules.c.skipped.type)(grown))
    )


def is_clockwork(timing: Timing) -> bool:
    """Whether the clock alone decides when it fires."""
    return not isinstance(timing.when, OnDeployment)


def once_time(timing: Timing) -> datetime | None:
    """The moment of a one-off, None for anything else."""
    return timing.when.time if isinstance(timing.when, Once) else None
