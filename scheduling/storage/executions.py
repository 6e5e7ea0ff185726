"""Executions as callers see them: read, list, cancel, watch. What moves them is in `releasing.py` and
`delivering.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from scheduling.domain.execution import Execution, Reason
from scheduling.domain.filters import Expression
from scheduling.domain.lifecycle import State
from scheduling.operations.ports import PageRequest
from scheduling.storage import rows
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.jobs import ask_to_stop, lock_unfinished
from scheduling.storage.lists import Position, SortKey, condition, page_bounds, read_page, time_key, uid_key
from scheduling.storage.tables import HISTORY_COLUMNS, execution_history, executions, jobs

#: A commit may become visible this long after the moment it carries: the longest that a hot transaction lives, and
#: some.
COMMIT_LAG = timedelta(seconds=5)

_PAYLOADS = ("request", "response")


def _keys(order: str, table: sa.Table) -> list[SortKey]:
    if order == "nominal_time":
        return [time_key(table.c.nominal_time), uid_key(table.c.uid)]
    return [uid_key(table.c.uid)]


def _columns(table: sa.Table) -> Mapping[str, sa.ColumnElement[Any]]:
    names = ("state", "origin", "target", "queue", "owner", "reason", "code")
    times = ("nominal_time", "ready_time", "create_time", "start_time", "finish_time")
    held_by = table.c.held_by if "held_by" in table.c else sa.cast(sa.null(), sa.Text)
    return {**{name: table.c[name] for name in names + times}, "attempt_count": table.c.attempt, "held_by": held_by}


def _select(table: sa.Table, *, with_payload: bool) -> sa.Select[Any]:
    columns: list[Any] = [
        sa.null().label(name) if name in _PAYLOADS and not with_payload else table.c[name] for name in HISTORY_COLUMNS
    ]
    held_by = table.c.held_by if "held_by" in table.c else sa.cast(sa.null(), sa.Text).label("held_by")
    return sa.select(*columns, held_by, jobs.c.job_id).join(jobs, jobs.c.uid == table.c.job_uid)


class ExecutionStore:
    """The execution part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_execution(self, job_id: str, uid: UUID, *, with_payload: bool) -> Execution | None:
        """The execution, live or finished."""
        async with self._database.begin() as connection:
            for table in (executions, execution_history):
                select = _select(table, with_payload=with_payload).where(jobs.c.job_id == job_id, table.c.uid == uid)
                row = (await connection.execute(select)).mappings().first()
                if row is not None:
                    return rows.execution(row)
        return None

    async def list_executions(
        self, job_id: str | None, page: PageRequest
    ) -> tuple[Sequence[Execution], Position | None]:
        """One page over the live ones and the history: each is read up to the page's size by its own index, then
        merged.
        """
        branches = []
        for table in (executions, execution_history):
            select = _select(table, with_payload=page.with_payload)
            if job_id is not None:
                select = select.where(jobs.c.job_id == job_id)
            bounded = page_bounds(select, page, _keys(page.order, table), _columns(table))
            branches.append(sa.select(bounded.subquery()))
        merged = sa.union_all(*branches).subquery()
        names = [str(key.column.key) for key in _keys(page.order, executions)]
        order = [merged.c[name].desc() if page.descending else merged.c[name].asc() for name in names]
        select = sa.select(merged).order_by(*order).limit(page.size + 1)
        async with self._database.begin() as connection:
            found, position = await read_page(connection, select, page, _keys(page.order, executions))
        return [rows.execution(row) for row in found], position

    async def cancel_execution(self, job_id: str, uid: UUID) -> None:
        """Ends a waiting one, or asks the worker of a running one to stop; under the lock of its row."""
        which = sa.and_(
            executions.c.uid == uid,
            executions.c.job_uid == sa.select(jobs.c.uid).where(jobs.c.job_id == job_id).scalar_subquery(),
        )
        moment = self._database.moment()
        async with self._database.begin() as connection:
            await lock_unfinished(connection, which)
            await end_waiting(connection, which, State.CANCELLED, Reason.CALLER, moment)
            await connection.execute(ask_to_stop(which, moment))

    async def read_changes(
        self, job_id: str | None, since: datetime | None, filter_: Expression | None, *, with_payload: bool, limit: int
    ) -> tuple[Sequence[Execution], datetime]:
        """What is open now and what ended since then; of one job also what is planned. At most `limit` of each."""
        found: list[Execution] = []
        async with self._database.begin() as connection:
            moment: datetime = (await connection.execute(sa.select(self._database.moment()))).scalar_one()
            for table in (executions, execution_history):
                select = _select(table, with_payload=with_payload)
                if filter_ is not None:
                    select = select.where(condition(filter_, _columns(table)))
                if job_id is not None:
                    select = select.where(jobs.c.job_id == job_id)
                select = select.where(_watched(table, job_id, since, moment)).order_by(table.c.uid).limit(limit)
                found.extend(rows.execution(row) for row in (await connection.execute(select)).mappings())
        return found, moment


def _watched(table: sa.Table, job_id: str | None, since: datetime | None, moment: datetime) -> sa.ColumnElement[bool]:
    """Rows of the table that a watch tells: through the small partial indexes, or those of the job."""
    ended = sa.false() if since is None else table.c.finish_time >= since - COMMIT_LAG
    if table is execution_history:
        return ended
    failed = sa.and_(table.c.state == State.FAILED.value, ended)
    if job_id is not None:
        return sa.or_(table.c.state != State.FAILED.value, failed)
    retrying = sa.and_(table.c.state == State.PENDING.value, table.c.attempt > 0)
    held = sa.and_(table.c.state == State.PENDING.value, table.c.held_by.is_not(None))
    return sa.or_(
        table.c.state == State.QUEUED.value,
        table.c.state == State.RUNNING.value,
        sa.and_(sa.or_(retrying, held), table.c.expire_time > moment - timedelta(days=1)),
        failed,
    )
