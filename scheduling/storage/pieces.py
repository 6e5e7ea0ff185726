"""One piece of each kind of operation in bulk: what it does to the executions or jobs that were found.

Everything is locked in the order of all changes: jobs, then schedules, then executions, each by uid. What others hold
is passed over; it comes again in the next walk. No statement touches more than BUDGET rows of executions: a job with
more of them is done in several pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import UNFINISHED, State
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.jobs import ask_to_stop, end_backfills
from scheduling.storage.redriving import redrive
from scheduling.storage.tables import (
    backfills,
    execution_history,
    executions,
    jobs,
    schedule_gaps,
    schedules,
)

#: Rows of executions in one piece.
BUDGET = 2000

# How much there is of each job, counted up to the budget.
_WEIGHTS = """
SELECT j.uid,
       (SELECT count(*) FROM (SELECT FROM executions e WHERE e.job_uid = j.uid LIMIT %(budget)s) AS live){more}
       AS weight
FROM unnest(%(uids)s::uuid[]) WITH ORDINALITY AS j (uid, n) ORDER BY n
"""
_LIVE = _WEIGHTS.format(more="")
_ALL = _WEIGHTS.format(
    more=" + (SELECT count(*) FROM (SELECT FROM execution_history h WHERE h.job_uid = j.uid LIMIT %(budget)s) AS ended)"
)
_OPEN_LETTERS = """
SELECT count(*) FROM executions e JOIN jobs j ON j.uid = e.job_uid
WHERE e.uid = ANY(%(uids)s::uuid[]) AND e.state = 'FAILED' AND j.cancel_time IS NULL
"""
_DELETE_LIVE = """
DELETE FROM executions WHERE uid IN (
    SELECT uid FROM executions WHERE job_uid = ANY(%(jobs)s::uuid[]) AND state <> 'RUNNING'
    ORDER BY uid LIMIT %(budget)s FOR UPDATE
)
"""
# By execution_history_job of each partition, from the oldest on.
_DELETE_ENDED = """
DELETE FROM execution_history WHERE job_uid = %(job)s AND uid <= (
    SELECT uid FROM (SELECT uid FROM execution_history WHERE job_uid = %(job)s ORDER BY uid LIMIT %(budget)s) AS first
    ORDER BY uid DESC LIMIT 1
)
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """What was done: of the found ones those in `uids`, of which `done` are done and `passed` are left for another
    walk. `is_half_done`: the first of them takes further pieces, and nothing was counted.
    """

    uids: Sequence[UUID]
    done: int = 0
    passed: int = 0
    is_half_done: bool = False


async def retry(connection: AsyncConnection, database: Database, uids: Sequence[UUID]) -> Piece:
    """Redrives dead letters."""
    moved = await redrive(connection, database, uids, skip_locked=True)
    rest = [uid for uid in uids if uid not in moved]
    left = (await connection.exec_driver_sql(_OPEN_LETTERS, {"uids": rest})).scalar_one() if rest else 0
    return Piece(uids, len(moved), left)


async def cancel(connection: AsyncConnection, database: Database, uids: Sequence[UUID]) -> Piece:
    """Cancels jobs, each as CancelJob does."""
    taken, locked, passed = await _take(connection, uids, _LIVE)
    if not locked:
        return Piece(taken, 0, passed)
    await _end_jobs(connection, database, locked)
    while True:
        unfinished = await _lock_unasked(connection, locked)
        waiting = [uid for uid, state in unfinished if state != State.RUNNING.value]
        running = [uid for uid, state in unfinished if state == State.RUNNING.value]
        moment = database.moment()
        await end_waiting(connection, _is_one_of(executions.c.uid, waiting), State.CANCELLED, Reason.CALLER, moment)
        await connection.execute(ask_to_stop(_is_one_of(executions.c.uid, running), moment))
        if len(unfinished) < BUDGET:
            return Piece(taken, len(locked), passed)
        if len(taken) == 1:
            return Piece(taken, is_half_done=True)


async def erase(connection: AsyncConnection, database: Database, uids: Sequence[UUID]) -> Piece:
    """Removes jobs and all that is stored of them; those whose calls still run are asked to stop and passed over."""
    taken, locked, passed = await _take(connection, uids, _ALL)
    if not locked:
        return Piece(taken, 0, passed)
    await _end_jobs(connection, database, locked)
    await connection.execute(backfills.delete().where(_is_one_of(backfills.c.job_uid, locked)))
    if await _delete_live(connection, locked) == BUDGET and len(taken) == 1:
        return Piece(taken, is_half_done=True)
    await connection.execute(ask_to_stop(_is_one_of(executions.c.job_uid, locked), database.moment()))
    live = sa.select(executions.c.job_uid).distinct().where(_is_one_of(executions.c.job_uid, locked))
    open_jobs = set(await connection.scalars(live))
    free = [uid for uid in locked if uid not in open_jobs]
    if len(taken) == 1:
        for uid in free:
            ended = await connection.exec_driver_sql(_DELETE_ENDED, {"job": uid, "budget": BUDGET})
            if ended.rowcount >= BUDGET:
                return Piece(taken, is_half_done=True)
    owned = sa.select(schedules.c.uid).where(_is_one_of(schedules.c.job_uid, free))
    await connection.execute(schedule_gaps.delete().where(schedule_gaps.c.schedule_uid.in_(owned)))
    for table in (execution_history, schedules):
        await connection.execute(table.delete().where(_is_one_of(table.c.job_uid, free)))
    await connection.execute(jobs.delete().where(_is_one_of(jobs.c.uid, free)))
    return Piece(taken, len(free), passed + len(open_jobs))


async def _take(
    connection: AsyncConnection, uids: Sequence[UUID], weights: str
) -> tuple[Sequence[UUID], Sequence[UUID], int]:
    """The first of the jobs that are not too much together, those of them that could be locked, and how many could not
    though they are there.
    """
    counted = await connection.exec_driver_sql(weights, {"uids": list(uids), "budget": BUDGET})
    total = 0
    taken: list[UUID] = []
    for row in counted.mappings():
        total += row["weight"]
        if taken and total > BUDGET:
            break
        taken.append(row["uid"])
    lock = sa.select(jobs.c.uid).where(_is_one_of(jobs.c.uid, taken)).order_by(jobs.c.uid)
    locked = list(await connection.scalars(lock.with_for_update(skip_locked=True)))
    rest = set(taken).difference(locked)
    there = sa.select(sa.func.count()).select_from(jobs).where(_is_one_of(jobs.c.uid, list(rest)))
    return taken, locked, (await connection.execute(there)).scalar_one() if rest else 0


async def _end_jobs(connection: AsyncConnection, database: Database, uids: Sequence[UUID]) -> None:
    """Marks jobs as cancelled and ends their backfills and schedules: nothing new comes of them."""
    moment = database.moment()
    await end_backfills(connection, _is_one_of(backfills.c.job_uid, uids))
    await connection.execute(
        jobs.update()
        .where(_is_one_of(jobs.c.uid, uids), jobs.c.cancel_time.is_(None))
        .values(cancel_time=moment, update_time=moment, revision=jobs.c.revision + 1)
    )
    owned = _is_one_of(schedules.c.job_uid, uids)
    await connection.execute(sa.select(schedules.c.uid).where(owned).order_by(schedules.c.uid).with_for_update())
    await connection.execute(
        schedules.update()
        .where(owned, schedules.c.evaluated_until < sa.text("'infinity'"))
        .values(evaluated_until=sa.text("'infinity'"), revision=schedules.c.revision + 1, update_time=moment)
    )


async def _lock_unasked(connection: AsyncConnection, uids: Sequence[UUID]) -> Sequence[Any]:
    """The first unfinished executions but for those that run and have been asked to stop."""
    is_asked = sa.and_(executions.c.state == State.RUNNING.value, executions.c.cancel_request_time.is_not(None))
    select = (
        sa.select(executions.c.uid, executions.c.state)
        .where(_is_one_of(executions.c.job_uid, uids), executions.c.state.in_([state.value for state in UNFINISHED]))
        .where(~is_asked)
        .order_by(executions.c.uid)
        .limit(BUDGET)
        .with_for_update()
    )
    return (await connection.execute(select)).all()


async def _delete_live(connection: AsyncConnection, uids: Sequence[UUID]) -> int:
    """Deletes live executions that do not run: BUDGET of them for a single job, all of several; returns how many."""
    total = 0
    while True:
        gone = await connection.exec_driver_sql(_DELETE_LIVE, {"jobs": list(uids), "budget": BUDGET})
        total += gone.rowcount
        if len(uids) == 1 or gone.rowcount < BUDGET:
            return total


def _is_one_of(column: Any, uids: Sequence[UUID]) -> sa.ColumnElement[bool]:
    """One parameter, however many there are."""
    condition: sa.ColumnElement[bool] = column == sa.any_(sa.literal(list(uids), ARRAY(sa.Uuid())))
    return condition
