"""The way out of the live table: what has ended for good moves to the history, in the statement that ends it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.storage.database import NOW
from scheduling.storage.tables import HISTORY_COLUMNS, execution_history, executions

#: The day on which a row that ends at `moment` may go; 9999-12-31 for what is kept for good.
PRUNE_DAY = "coalesce((({moment}) AT TIME ZONE 'UTC')::date + {days} + 1, '9999-12-31'::date)"


def prune_day(days: str, moment: str = NOW) -> str:
    """The SQL of `PRUNE_DAY` for a column that holds the days of retention."""
    return PRUNE_DAY.format(moment=moment, days=days)


def move_sql(source: str, changed: dict[str, str]) -> str:
    """An INSERT that puts the rows of `source` into the history, with some columns changed. For hand-written
    statements.
    """
    values = ", ".join(changed.get(column, f"{source}.{column}") for column in HISTORY_COLUMNS)
    return (
        f"INSERT INTO execution_history ({', '.join(HISTORY_COLUMNS)}, prune_day) "
        f"SELECT {values}, {prune_day(f'{source}.retention_days')} FROM {source}"
    )


async def end_waiting(
    connection: AsyncConnection,
    which: sa.ColumnElement[bool],
    state: State,
    reason: Reason,
    moment: sa.ColumnElement[datetime],
) -> int:
    """Moves executions that no worker holds to the history with that final state, as of `moment`; returns how many."""
    gone = (
        executions.delete()
        .where(which, executions.c.state.in_([State.PENDING.value, State.QUEUED.value]))
        .returning(*(executions.c[name] for name in HISTORY_COLUMNS))
        .cte("gone")
    )
    changed: dict[str, Any] = {
        "state": sa.literal(state.value),
        "reason": sa.literal(reason.value),
        "finish_time": moment,
    }
    day = sa.func.coalesce(
        sa.cast(sa.func.timezone("UTC", moment), sa.Date) + gone.c.retention_days + 1,
        sa.literal("9999-12-31").cast(sa.Date),
    )
    moved = execution_history.insert().from_select(
        [*HISTORY_COLUMNS, "prune_day"],
        sa.select(*(changed.get(name, gone.c[name]) for name in HISTORY_COLUMNS), day),
    )
    # The driver does not tell how many rows such a statement has inserted.
    return len((await connection.execute(moved.returning(execution_history.c.uid))).all())
