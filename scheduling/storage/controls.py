"""Pauses in PostgreSQL: written by operators, heeded by release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.audit import Acting
from scheduling.domain.pause import Pause, Scope, resource_of
from scheduling.storage.auditing import note_change
from scheduling.storage.database import NOW, Database

#: All pauses that stand, in the columns that `pauses_from_rows` reads.
READ_PAUSES = "SELECT scope, name, principal, note, pause_time FROM controls ORDER BY scope, name"

# Whoever paused first is remembered: a second pause of the same changes nothing.
_PAUSE = f"""
INSERT INTO controls (scope, name, principal, note, pause_time)
VALUES (%(scope)s, %(name)s, %(principal)s, %(note)s, {NOW}) ON CONFLICT (scope, name) DO NOTHING
RETURNING scope
"""
_RESUME = "DELETE FROM controls WHERE scope = %(scope)s AND name = %(name)s RETURNING principal, note"
# By executions_queued. What a worker has claimed goes on.
_GIVE_BACK = """
UPDATE executions e SET state = 'PENDING', held_by = p.key
FROM unnest(%(scopes)s::text[], %(names)s::text[], %(keys)s::text[]) AS p (scope, name, key)
WHERE e.state = 'QUEUED'
  AND CASE p.scope WHEN 'SERVICE' THEN true WHEN 'QUEUE' THEN e.queue = p.name
      ELSE e.target = p.name OR split_part(e.target, '/', 1) = p.name END
"""


_SCOPES = frozenset(scope.value for scope in Scope)


def pauses_from_rows(rows: Iterable[Sequence[Any]]) -> list[Pause]:
    """The rows of READ_PAUSES."""
    return [Pause(Scope(row[0]), *row[1:]) for row in rows]


def pause_key(held_by: str) -> tuple[Scope, str] | None:
    """Scope and name of the pause that `held_by` tells of, None if it tells of something else."""
    kind, _, name = held_by.partition(":")
    scope = kind.removesuffix("_PAUSED")
    return (Scope(scope), name) if scope != kind and scope in _SCOPES else None


async def give_back_paused(cursor: AsyncCursor[TupleRow], pauses: Sequence[Pause]) -> None:
    """QUEUED → PENDING for what is paused."""
    await cursor.execute(
        _GIVE_BACK,
        {
            "scopes": [pause.scope.value for pause in pauses],
            "names": [pause.name for pause in pauses],
            "keys": [pause.scope.held_by(pause.name) for pause in pauses],
        },
    )


class ControlStore:
    """The operators' side of pauses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pauses(self) -> Sequence[Pause]:
        """All pauses that stand."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(READ_PAUSES)
            return pauses_from_rows(await cursor.fetchall())

    async def pause(self, scope: Scope, name: str, principal: str, note: str, by: Acting | None = None) -> None:
        """Nothing more of it is released; what is released and not claimed is given back. Again changes nothing.

        What a release under way adds meanwhile, the next round takes back. `by` is who does so other than by a call.
        """
        parameters = {"scope": scope.value, "name": name, "principal": principal, "note": note}
        async with self._database.begin() as transaction:
            made = await transaction.exec_driver_sql(_PAUSE, {"now": self._database.now(), **parameters})
            if made.first() is not None:
                told = {"paused": True, "note": note}
                await note_change(transaction, self._database.moment(), resource_of(scope, name), after=told, by=by)
        # After the commit: it is heeded from now on, and the next round gives back what this does not.
        async with self._database.hot() as connection:
            cursor = await connection.execute(READ_PAUSES)
            await give_back_paused(cursor, pauses_from_rows(await cursor.fetchall()))

    async def resume(self, scope: Scope, name: str) -> None:
        """Ends a pause; what it held goes on, the oldest first. Where there is none nothing changes."""
        async with self._database.begin() as connection:
            ended = await connection.exec_driver_sql(_RESUME, {"scope": scope.value, "name": name})
            for row in ended.mappings():
                was = {"paused": True, **row}
                await note_change(connection, self._database.moment(), resource_of(scope, name), was, {"paused": False})
