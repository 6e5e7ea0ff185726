"""What an operation in bulk is about, found stretch by stretch in the order of uids.

A stretch is bounded by the rows that are looked at, not by those that match: however few match, no statement reads
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.bulk import BulkMethod, Selection
from scheduling.domain.filters import And, Comparison, Expression, Op, parse_filter
from scheduling.operations.executions import EXECUTION_FIELDS
from scheduling.operations.jobs import JOB_FIELDS
from scheduling.storage.executions import filter_columns as execution_columns
from scheduling.storage.jobs import FILTER_COLUMNS as JOB_COLUMNS
from scheduling.storage.lists import condition
from scheduling.storage.tables import executions, jobs

#: Rows that one statement looks at: to work on, and to count.
STRETCH, COUNTED_STRETCH = 5000, 20_000
_FIRST = UUID(int=0)

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class Found:
    """The next ones that match. Everything up to `position` was looked at; `is_over`: nothing follows it."""

    uids: Sequence[UUID]
    position: UUID | None
    is_over: bool


async def find(
    connection: AsyncConnection,
    selection: Selection,
    until: datetime | sa.ColumnElement[datetime],
    after: UUID | None,
    limit: int,
    *,
    current_job: UUID | None = None,
    stretch: int = STRETCH,
) -> Found:
    """Up to `limit` that match in the next stretch behind `after`, of what there was at the moment `until`.

    By executions_failed_uid, executions_job, jobs_owner or the primary key of jobs. Locks nothing.
    """
    walk = _stretch(selection, until, after, current_job, stretch)
    picked = sa.select(walk.c.uid).where(walk.c.matches).order_by(walk.c.uid).limit(limit).cte("picked")
    select = sa.select(
        sa.select(sa.func.count()).select_from(walk).scalar_subquery(),
        sa.select(walk.c.uid).order_by(walk.c.uid.desc()).limit(1).scalar_subquery(),
        sa.select(sa.func.array_agg(picked.c.uid)).scalar_subquery(),
    )
    looked_at, last, uids = (await connection.execute(select)).one()
    found = sorted(uids or ())
    if len(found) == limit:
        return Found(found, found[-1], is_over=False)
    return Found(found, last or after, is_over=looked_at < stretch)


async def count(
    connection: AsyncConnection, selection: Selection, until: sa.ColumnElement[datetime], after: UUID | None
) -> tuple[int, UUID | None]:
    """How many match in the next stretch behind `after`, and where it ended; None when nothing follows."""
    walk = _stretch(selection, until, after, None, COUNTED_STRETCH)
    select = sa.select(
        sa.func.count(),
        sa.func.count().filter(walk.c.matches),
        sa.select(walk.c.uid).order_by(walk.c.uid.desc()).limit(1).scalar_subquery(),
    ).select_from(walk)
    looked_at, matching, last = (await connection.execute(select)).one()
    return matching, last if looked_at == COUNTED_STRETCH else None


def _stretch(selection: Selection, until: Any, after: UUID | None, current_job: UUID | None, size: int) -> sa.CTE:
    if selection.method is BulkMethod.BATCH_RETRY_EXECUTIONS:
        uid, among, matches = _dead_letters(selection, until)
    else:
        uid, among, matches = _jobs(selection, until, current_job)
    return (
        sa.select(uid.label("uid"), sa.func.coalesce(sa.and_(*matches), sa.false()).label("matches"))
        .where(*among, uid > (after or _FIRST))
        .order_by(uid)
        .limit(size)
        .cte("walk")
    )


def _dead_letters(selection: Selection, until: Any) -> tuple[Any, list[Condition], list[Condition]]:
    # As a literal: a parameter would keep a prepared statement from the indexes of dead letters.
    among: list[Condition] = [executions.c.state == sa.literal_column("'FAILED'")]
    if selection.job_uid is not None:
        among.append(executions.c.job_uid == selection.job_uid)
    matches: list[Condition] = [executions.c.finish_time <= until]
    expression = parse_filter(selection.filter, EXECUTION_FIELDS)
    if expression is not None:
        matches.append(condition(expression, execution_columns(executions)))
    may = sa.select(sa.true()).where(
        jobs.c.uid == executions.c.job_uid, jobs.c.cancel_time.is_(None), *_granted(selection)
    )
    matches.append(may.scalar_subquery())
    return executions.c.uid, among, matches


def _jobs(selection: Selection, until: Any, current_job: UUID | None) -> tuple[Any, list[Condition], list[Condition]]:
    expression = parse_filter(selection.filter, JOB_FIELDS)
    matches: list[Condition] = [jobs.c.create_time <= until, *_granted(selection)]
    if selection.method is BulkMethod.BATCH_CANCEL_JOBS:
        matches.append(jobs.c.cancel_time.is_(None))
    if selection.label is not None:
        key, value = selection.label
        matches.append(jobs.c.labels.op("->>", return_type=sa.Text())(key) == value)
    if expression is not None:
        matches.append(condition(expression, JOB_COLUMNS))
    if current_job is not None:
        # It did match, and what was done of it has changed that.
        matches = [sa.or_(jobs.c.uid == current_job, sa.and_(*matches))]
    owner = selection.owner if selection.owner is not None else _owner_of(expression)
    among: list[Condition] = [] if owner is None else [jobs.c.owner == owner]
    return jobs.c.uid, among, matches


def _granted(selection: Selection) -> list[Condition]:
    if selection.principals is None:
        return []
    return [jobs.c.principal.in_(selection.principals)]


def _owner_of(expression: Expression | None) -> str | None:
    """The one owner that a filter lets through, if it names one: then the index on owners shortens the walk."""
    match expression:
        case And(operands):
            return next((owner for each in operands if (owner := _owner_of(each)) is not None), None)
        case Comparison("owner", Op.EQ, str() as owner):
            return owner
    return None
