"""Operations in bulk as callers see them: stored, read, listed, cancelled. What works them off is in `stepping.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.audit import Acting
from scheduling.domain.bulk import BulkMethod, Operation, OperationState, Selection
from scheduling.operations.ports import NewOperation, PageRequest
from scheduling.storage import selecting
from scheduling.storage.auditing import note_change
from scheduling.storage.database import Database
from scheduling.storage.jobs import claim_request_id
from scheduling.storage.lists import Position, SortKey, page_bounds, read_page, uid_key
from scheduling.storage.tables import operations

_FILTER_COLUMNS = {
    name: operations.c[name] for name in ("method", "state", "owner", "principal", "create_time", "end_time")
}
_KEYS: list[SortKey] = [uid_key(operations.c.uid)]


class OperationStore:
    """The part of the store for operations in bulk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_selected(self, selection: Selection, after: UUID | None) -> tuple[int, UUID | None]:
        """How many match in the next stretch behind `after`, and where it ended; None when nothing follows."""
        async with self._database.begin() as connection:
            return await selecting.count(connection, selection, self._database.moment(), after)

    async def add_operation(self, new: NewOperation) -> UUID:
        """Stores an operation; the leader takes it up within a second. Its moment is that of the database."""
        operation, selection, moment = new.operation, new.operation.selection, self._database.moment()
        assert operation.uid is not None
        key, value = selection.label or (None, None)
        async with self._database.begin() as connection:
            first = await claim_request_id(connection, operation.principal, new.request_id, new.digest, operation.uid)
            if first is not None:
                return first
            await connection.execute(
                operations.insert().values(
                    uid=operation.uid,
                    method=selection.method.value,
                    state=OperationState.RUNNING.value,
                    parent=selection.parent,
                    job_uid=selection.job_uid,
                    filter=selection.filter,
                    owner=selection.owner,
                    label_key=key,
                    label_value=value,
                    principals=None if selection.principals is None else list(selection.principals),
                    rate=operation.rate,
                    total=operation.total,
                    total_is_partial=operation.total_is_partial,
                    next_time=moment,
                    principal=operation.principal,
                    create_time=moment,
                    update_time=moment,
                )
            )
            told = {
                "parent": selection.parent,
                "filter": selection.filter,
                "owner": selection.owner,
                "label": None if selection.label is None else f"{key}={value}",
                "rate": operation.rate,
            }
            chosen = {name: each for name, each in told.items() if each}
            await note_change(connection, moment, operation.name, after={"method": selection.method.value} | chosen)
        return operation.uid

    async def get_operation(self, uid: UUID) -> Operation | None:
        """The operation of that uid."""
        async with self._database.begin() as connection:
            found = await connection.execute(sa.select(operations).where(operations.c.uid == uid))
            row = found.mappings().first()
        return None if row is None else operation_of(row)

    async def list_operations(self, page: PageRequest) -> tuple[Sequence[Operation], Position | None]:
        """One page, by primary key."""
        select = sa.select(operations)
        if page.principals is not None:
            select = select.where(operations.c.principal.in_(sorted(page.principals)))
        select = page_bounds(select, page, _KEYS, _FILTER_COLUMNS)
        async with self._database.begin() as connection:
            found, position = await read_page(connection, select, page, _KEYS)
        return [operation_of(row) for row in found], position

    async def cancel_operation(self, uid: UUID) -> None:
        """Ends a running one, after the piece that is under way."""
        moment = self._database.moment()
        async with self._database.begin() as connection:
            ended = await connection.execute(
                operations.update()
                .where(operations.c.uid == uid, operations.c.state == OperationState.RUNNING.value)
                .values(state=OperationState.CANCELLED.value, update_time=moment, end_time=moment)
                .returning(operations)
            )
            for row in ended.mappings():
                await note_end(connection, moment, operation_of(row))


async def note_end(
    connection: AsyncConnection, moment: sa.ColumnElement[Any], operation: Operation, by: Acting | None = None
) -> None:
    """Writes down how an operation ended and how much it has done: one entry, however much that was."""
    ended = {"state": operation.state.value, "done": operation.done, "failed": operation.failed}
    await note_change(connection, moment, operation.name, {"state": OperationState.RUNNING.value}, ended, by=by)


def operation_of(row: Any) -> Operation:
    """The operation of a row."""
    return Operation(
        uid=row["uid"],
        selection=Selection(
            method=BulkMethod(row["method"]),
            parent=row["parent"],
            job_uid=row["job_uid"],
            filter=row["filter"],
            owner=row["owner"],
            label=None if row["label_key"] is None else (row["label_key"], row["label_value"]),
            principals=None if row["principals"] is None else tuple(row["principals"]),
        ),
        state=OperationState(row["state"]),
        rate=row["rate"],
        total=row["total"],
        total_is_partial=row["total_is_partial"],
        done=row["done"],
        passed=row["passed"],
        failed=row["failed"],
        failures=tuple(row["failures"]),
        principal=row["principal"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        end_time=row["end_time"],
    )
