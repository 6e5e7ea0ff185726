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
from scheduling.domain.ids import execution_id
from scheduling.domain.lifecycle import State
from scheduling.operations.ports import PageRequest
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.jobs import ask_to_stop, lock_unfinished
from scheduling.storage.lists import (
    Position,
    SortKey,
    Walk,
    condition,
    named,
    of_principals,
    page_bounds,
    read_stretches,
    time_key,
    uid_key,
)
from scheduling.storage.tables import HISTORY_COLUMNS, execution_history, executions, jobs

_PAYLOADS = ("request", "response")


def _keys(order: str, table: sa.Table) -> list[SortKey]:
    if order == "nominal_time":
        return [time_key(table.c.nominal_time), uid_key(table.c.uid)]
    return [uid_key(table.c.uid)]


def filter_columns(table: sa.Table) -> Mapping[str, sa.ColumnElement[Any]]:
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


#: The conditions of executions_principal_waiting and of executions_slots, as they stand there; together all that is
#: live.
_IS_WAITING = sa.literal_column("executions.state IN ('PENDING', 'FAILED')", sa.Boolean())
_HAS_SLOT = sa.literal_column("executions.state IN ('QUEUED', 'RUNNING')", sa.Boolean())


#: The states that are in each of both tables.
_STATES = {
    executions: frozenset({"PENDING", "QUEUED", "RUNNING", "FAILED"}),
    execution_history: frozenset(state.value for state in State) - {"PENDING", "QUEUED", "RUNNING"},
}


def _tables(filter_: Expression | None) -> Sequence[sa.Table]:
    """Where what a filter lets through may be."""
    states = named(filter_, "state")
    either = [table for table, held in _STATES.items() if states is None or states & held]
    return either or [executions]


def _walks(table: sa.Table, page: PageRequest) -> list[Walk]:
    """Along which index a page looks in a table for what its filter lets through: that of the failed ones, the few that
    have a slot, or that of each principal.
    """
    keys, states = _keys(page.order, table), named(page.filter, "state")
    if states is not None and states <= {"FAILED"}:
        return [Walk(keys, [sa.literal_column(f"{table.name}.state = 'FAILED'", sa.Boolean())])]
    if states is not None and states <= {"QUEUED", "RUNNING"}:
        return [Walk(keys, [_HAS_SLOT])]
    if page.principals is None:
        return [Walk(keys)]
    within = [_IS_WAITING] if table is executions else []
    return [Walk(keys, [*within, table.c.principal == principal]) for principal in sorted(page.principals)]


def _select_page(
    tables: Sequence[sa.Table], job_id: str | None, page: PageRequest, until: Position | None
) -> sa.Select[Any]:
    """The executions of one page, up to `until`, and one more."""
    branches = []
    for table in tables:
        select = _select(table, with_payload=page.with_payload)
        if job_id is not None:
            select = select.where(jobs.c.job_id == job_id)
        keys = _keys(page.order, table)
        bounded = page_bounds(select, page, keys, filter_columns(table), until)
        if page.principals is not None:
            apart = {"indexed": _IS_WAITING, "few": _HAS_SLOT} if table is executions else {}
            bounded = of_principals(bounded, table.c.principal, page, keys, **apart)
        branches.append(sa.select(bounded.subquery()))
    merged = sa.union_all(*branches).subquery()
    names = [str(key.column.key) for key in _keys(page.order, executions)]
    order = [merged.c[name].desc() if page.descending else merged.c[name].asc() for name in names]
    return sa.select(merged).order_by(*order).limit(page.size + 1)


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
        """One page over the live ones and the history: each is read up to the page's size, then merged.

        In order of creation by primary key or by the index on job and uid. By nominal time all that a job has is read
        and sorted, which is why the callers of this ask for it of one job only.
        """
        tables = _tables(page.filter)

        def build(page: PageRequest, until: Position | None) -> sa.Select[Any]:
            return _select_page(tables, job_id, page, until)

        is_filtered = job_id is None and page.filter is not None
        walks = [walk for table in tables for walk in _walks(table, page)] if is_filtered else []
        async with self._database.begin() as connection:
            found, position = await read_stretches(connection, build, page, _keys(page.order, executions), walks)
        return [rows.execution(row) for row in found], position

    async def cancel_execution(self, job_id: str, uid: UUID) -> None:
        """Ends a waiting one, or asks the worker of a running one to stop; under the lock of its row."""
        which = sa.and_(
            executions.c.uid == uid,
            executions.c.job_uid == sa.select(jobs.c.uid).where(jobs.c.job_id == job_id).scalar_subquery(),
        )
        moment = self._database.moment()
        async with self._database.begin() as connection:
            states = await lock_unfinished(connection, which)
            await end_waiting(connection, which, State.CANCELLED, Reason.CALLER, moment)
            await connection.execute(ask_to_stop(which, moment))
            for state in states:
                asked = {"cancel_requested": True} if state == State.RUNNING.value else {"state": "CANCELLED"}
                name = f"jobs/{job_id}/executions/{execution_id(uid)}"
                await note_change(connection, moment, name, {"state": state}, asked)

    async def read_open(
        self,
        job_id: str | None,
        filter_: Expression | None,
        *,
        principals: frozenset[str] | None = None,
        after: UUID | None,
        with_payload: bool,
        limit: int,
    ) -> tuple[Sequence[Execution], datetime]:
        """The first `limit` of what is open now by uid, after that one, and the moment of reading; of one job also what
        is planned.

        Through the small partial indexes, or by that on job and uid.
        """
        select = _watched(executions, job_id, filter_, principals, with_payload=with_payload)
        if after is not None:
            select = select.where(executions.c.uid > after)
        async with self._database.begin() as connection:
            moment: datetime = (await connection.execute(sa.select(self._database.moment()))).scalar_one()
            select = select.where(_is_open(job_id, moment)).order_by(executions.c.uid).limit(limit)
            found = [rows.execution(row) for row in (await connection.execute(select)).mappings()]
        return found, moment

    async def read_ended(
        self,
        job_id: str | None,
        filter_: Expression | None,
        *,
        principals: frozenset[str] | None = None,
        after: tuple[datetime, UUID],
        until: datetime,
        with_payload: bool,
        limit: int,
    ) -> Sequence[Execution]:
        """The first `limit` of what ended after that (finish time, uid) and up to `until`, in this order.

        By executions_failed and execution_history_finish, which reads all that ended in between: a caller far behind
        asks for a short time.
        """
        branches = []
        for table in (executions, execution_history):
            finish = table.c.finish_time
            # The first of the bounds is for the index: a BRIN one knows nothing of pairs.
            bounds = [finish >= after[0], finish <= until, sa.tuple_(finish, table.c.uid) > sa.tuple_(*after)]
            if table is executions:
                bounds.append(table.c.state == State.FAILED.value)
            select = _watched(table, job_id, filter_, principals, with_payload=with_payload).where(*bounds)
            branches.append(sa.select(select.order_by(finish, table.c.uid).limit(limit).subquery()))
        merged = sa.union_all(*branches).subquery()
        select = sa.select(merged).order_by(merged.c.finish_time, merged.c.uid).limit(limit)
        async with self._database.begin() as connection:
            return [rows.execution(row) for row in (await connection.execute(select)).mappings()]


def _watched(
    table: sa.Table,
    job_id: str | None,
    filter_: Expression | None,
    principals: frozenset[str] | None,
    *,
    with_payload: bool,
) -> sa.Select[Any]:
    select = _select(table, with_payload=with_payload)
    if principals is not None:
        select = select.where(jobs.c.principal.in_(sorted(principals)))
    if filter_ is not None:
        select = select.where(condition(filter_, filter_columns(table)))
    return select if job_id is None else select.where(jobs.c.job_id == job_id)


def _is_open(job_id: str | None, moment: datetime) -> sa.ColumnElement[bool]:
    state = executions.c.state
    if job_id is not None:
        return state != State.FAILED.value
    waits = sa.or_(executions.c.attempt > 0, executions.c.held_by.is_not(None))
    return sa.or_(
        state == State.QUEUED.value,
        state == State.RUNNING.value,
        sa.and_(state == State.PENDING.value, waits, executions.c.expire_time > moment - timedelta(days=1)),
    )
