"""The audit: changes are written down in the transaction that makes them, refusals in batches; read by operators.

The row of a job is the record of its creation, so that creating costs nothing more: reading puts both together. When a
job is deleted, what it was is written down with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.audit import Acting, AuditEntry, AuditOutcome, Refusal, acting, differences, facts
from scheduling.operations.ports import PageRequest
from scheduling.storage.database import Database
from scheduling.storage.lists import Position, SortKey, Walk, page_bounds, read_stretches, uid_key
from scheduling.storage.tables import audit, jobs

_CREATION = "SchedulingService/CreateJob"
_TEXT = sa.cast("", sa.Text)
_CREATED: dict[str, sa.ColumnElement[Any]] = {
    "uid": jobs.c.uid,
    "time": jobs.c.create_time,
    "principal": jobs.c.principal,
    "rpc": sa.literal(_CREATION, sa.Text),
    "resource": sa.literal("jobs/", sa.Text) + jobs.c.job_id,
    "outcome": sa.literal(AuditOutcome.CHANGED.value, sa.Text),
    "reason": _TEXT,
    "missing": _TEXT,
    "before": sa.cast(sa.null(), JSONB),
    # What never changes of a job; the rest stands in the job, and what it was in the entries of its changes.
    "after": sa.func.jsonb_build_object("target", jobs.c.target, "owner", jobs.c.owner),
    "request_id": _TEXT,
    "count": sa.literal(1, sa.Integer),
}
_WRITTEN: dict[str, sa.ColumnElement[Any]] = {name: audit.c[name] for name in _CREATED}
_KEYS: list[SortKey] = [uid_key(audit.c.uid)]


def _select_page(resource: str, page: PageRequest, until: Position | None) -> sa.Select[Any]:
    """The entries of one page, up to `until`, and one more."""
    branches = []
    for columns in (_WRITTEN, _CREATED):
        select = sa.select(*(column.label(name) for name, column in columns.items()))
        if resource and columns is _WRITTEN:
            # A slash ends the name of what it belongs to: jobs/a is not part of jobs/a-b.
            below = audit.c.resource.startswith(f"{resource}/", autoescape=True)
            select = select.where(sa.or_(audit.c.resource == resource, below))
        elif resource:
            kind, _, job_id = resource.partition("/")
            select = select.where(jobs.c.job_id == job_id if kind == "jobs" else sa.false())
        bounded = page_bounds(select, page, [uid_key(columns["uid"])], columns, until)
        branches.append(sa.select(bounded.subquery()))
    merged = sa.union_all(*branches).subquery()
    order = merged.c.uid.desc() if page.descending else merged.c.uid.asc()
    return sa.select(merged).order_by(order).limit(page.size + 1)


class AuditStore:
    """The audit part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_audit(self, page: PageRequest, resource: str) -> tuple[Sequence[AuditEntry], Position | None]:
        """One page of what was done to `resource` and what belongs to it, or to everything for an empty one.

        By primary key, or by audit_resource and the ids of jobs: each of both parts up to the page's size, then merged.
        """

        def build(page: PageRequest, until: Position | None) -> sa.Select[Any]:
            return _select_page(resource, page, until)

        # Of one resource there is little, and it is read as a whole.
        is_filtered = not resource and page.filter is not None
        walks = [Walk([uid_key(columns["uid"])]) for columns in (_WRITTEN, _CREATED)] if is_filtered else []
        async with self._database.begin() as connection:
            found, position = await read_stretches(connection, build, page, _KEYS, walks)
        return [_entry(row) for row in found], position

    async def add_refusals(self, refusals: Sequence[Refusal]) -> None:
        """Writes down refusals, in one statement."""
        moment = self._database.moment()
        values = [
            {
                "uid": sa.func.whispr_time_uuid(moment),
                "time": moment,
                "principal": each.principal,
                "rpc": each.rpc,
                "resource": each.resource,
                "outcome": AuditOutcome.REFUSED.value,
                "reason": each.reason,
                "missing": each.missing,
                "request_id": each.request_id,
                "count": each.count,
            }
            for each in refusals
        ]
        async with self._database.begin() as connection:
            await connection.execute(audit.insert().values(values))


async def note_change(
    connection: AsyncConnection,
    moment: sa.ColumnElement[Any],
    resource: str,
    before: Any = None,
    after: Any = None,
    *,
    by: Acting | None = None,
) -> None:
    """Writes down what `by`, or whoever acts in this task, changes, in the transaction that changes it.

    `before` and `after` are the resource as the domain knows it, or facts; None for what was not or is no more there.
    Nothing is written when nobody acts, or when both are the same.
    """
    who = by or acting.get()
    if who is None:
        return
    old, new = _facts(before), _facts(after)
    if before is not None and after is not None and not isinstance(after, dict):
        old, new = differences(before, after)
        if not new:
            return
    await connection.execute(
        audit.insert().values(
            uid=sa.func.whispr_time_uuid(moment),
            time=moment,
            principal=who.principal,
            rpc=who.method.rpartition(".")[2],
            resource=resource,
            outcome=AuditOutcome.CHANGED.value,
            before=sa.null() if old is None else old,
            after=sa.null() if new is None else new,
            request_id=who.request_id,
        )
    )


def _facts(value: Any) -> dict[str, Any] | None:
    return value if value is None or isinstance(value, dict) else facts(value)


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(**{**row, "outcome": AuditOutcome(row["outcome"])})
