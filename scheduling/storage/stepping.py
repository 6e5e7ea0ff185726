"""Works operations in bulk off: one piece after the other, each with its progress in one transaction.

A piece that dies leaves nothing behind and is done again; one that went through is counted. Under the term of the
leader and the lock of the operation's row, so two leaders never do the same piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.audit import Actor
from scheduling.domain.bulk import KEPT_FAILURES, BulkMethod, Operation, OperationState, Pace
from scheduling.domain.errors import StoreUnavailable
from scheduling.storage import pieces, selecting
from scheduling.storage.bulk import note_end, operation_of
from scheduling.storage.database import NOW, Database, is_unavailable
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.tables import operations, owner_days

#: Pieces of one look, of whichever operations.
PIECES = 20
#: Before the next walk when some were passed over, and after something that should not happen.
AFTER_WALK, AFTER_PROBLEM = timedelta(seconds=1), timedelta(seconds=10)
#: What was created before an erasure may become visible this long after it.
SETTLED = timedelta(seconds=5)

_NEXT = f"""
SELECT o.*, {NOW} AS moment FROM operations o
WHERE o.state = 'RUNNING' AND o.next_time <= {NOW} AND {TERM_HOLDS}
ORDER BY o.next_time LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_IS_RUNNING = "SELECT EXISTS (SELECT FROM operations WHERE state = 'RUNNING')"
#: Errors of a piece that say nothing of the rows in it.
_IN_THE_WAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one piece did. `problem` is the kind of an error that holds the operation up."""

    name: str
    method: str
    principal: str
    done: int
    total_done: int
    has_ended: bool
    problem: str = ""


@dataclass(slots=True)
class _Progress:
    """How far one piece has brought the walk."""

    position: UUID | None
    current_job: UUID | None = None
    done: int = 0
    found: int = 0
    passed: int = 0
    failures: Sequence[str] = ()
    is_over: bool = False
    problem: str = ""


class SteppingStore:
    """What the leader does to operations in bulk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Pieces that went wrong are halved until they go through or are a single one, which then is the culprit. Lost
        # with the process, which costs the next one a few tries.
        self._sizes: dict[UUID, int] = {}
        self._under_way: dict[UUID, int] = {}

    async def step_operations(self, term: int) -> tuple[Sequence[Step], bool]:
        """Up to PIECES pieces of those whose turn it is, and whether any operation is running."""
        steps: list[Step] = []
        while len(steps) < PIECES and (step := await self._step(term)) is not None:
            steps.append(step)
        async with self._database.begin() as connection:
            is_running = (await connection.exec_driver_sql(_IS_RUNNING)).scalar_one()
        return steps, is_running

    async def _step(self, term: int) -> Step | None:
        """One piece. By operations_running; locks the operation, then what it works on."""
        self._under_way.clear()
        try:
            return await self._step_one(term)
        except StoreUnavailable:
            # Perhaps it was too much for the time that a transaction has.
            self._sizes |= {uid: max(1, size // 2) for uid, size in self._under_way.items()}
            raise

    async def _step_one(self, term: int) -> Step | None:
        async with self._database.begin() as connection:
            found = await connection.exec_driver_sql(_NEXT, {"now": self._database.now(), "term": term})
            row = found.mappings().first()
            if row is None:
                return None
            operation, moment = operation_of(row), row["moment"]
            progress = await self._advance(connection, operation, row)
            return await self._write(connection, operation, row, progress, moment)

    async def _advance(self, connection: AsyncConnection, operation: Operation, row: Any) -> _Progress:
        """Finds the next ones and works on them; what goes wrong is part of the answer, unless PostgreSQL is gone."""
        assert operation.uid is not None
        size = Pace(operation.rate).piece
        limit = min(size, self._sizes.get(operation.uid, size))
        here = _Progress(row["position"], row["current_job"])
        uids: Sequence[UUID] = ()
        try:
            async with connection.begin_nested():
                found = await selecting.find(
                    connection,
                    operation.selection,
                    operation.create_time,
                    row["position"],
                    limit,
                    current_job=row["current_job"],
                )
            uids = found.uids
            if not uids:
                return _Progress(found.position, is_over=found.is_over)
            self._under_way[operation.uid] = len(uids)
            async with connection.begin_nested():
                piece = await _WORK[operation.selection.method](connection, self._database, uids)
        except StoreUnavailable:
            raise
        except sa.exc.DBAPIError as error:
            if not _is_of_the_piece(error):
                raise
            return self._narrowed(operation, here, uids, error)
        except Exception as error:  # noqa: BLE001 - one operation that cannot go on stops no other
            here.problem = type(error).__name__
            return here
        if limit < size:
            self._sizes[operation.uid] = limit * 2
        else:
            self._sizes.pop(operation.uid, None)
        if piece.is_half_done:
            return _Progress(here.position, current_job=uids[0])
        is_over = found.is_over and len(piece.uids) == len(uids)
        position = found.position if len(piece.uids) == len(uids) else piece.uids[-1]
        return _Progress(position, None, piece.done, len(piece.uids), piece.passed, is_over=is_over)

    def _narrowed(
        self, operation: Operation, here: _Progress, uids: Sequence[UUID], error: sa.exc.DBAPIError
    ) -> _Progress:
        """After an error of a piece: half of it comes next; a single one is passed over or has failed."""
        assert operation.uid is not None
        if not uids:
            here.problem = type(error.orig).__name__
            return here
        if len(uids) > 1:
            self._sizes[operation.uid] = len(uids) // 2
            return here
        if isinstance(error.orig, _IN_THE_WAY):
            return _Progress(uids[0], found=1, passed=1)
        return _Progress(uids[0], found=1, failures=[f"{uids[0]} {type(error.orig).__name__}"])

    async def _write(
        self, connection: AsyncConnection, operation: Operation, row: Any, progress: _Progress, moment: datetime
    ) -> Step:
        # What was counted in the walk before is shown until the next one has begun.
        is_new = row["position"] is None
        before: tuple[int, int, int, Sequence[str]] = (
            (0, 0, 0, ()) if is_new else (row["found"], operation.passed, operation.failed, operation.failures)
        )
        found, passed, failed = before[0] + progress.found, before[1] + progress.passed, before[2]
        failed += len(progress.failures)
        failures = [*before[3], *progress.failures][:KEPT_FAILURES]
        values: dict[str, Any] = {
            "done": operation.done + progress.done,
            "found": found,
            "passed": passed,
            "failed": failed,
            "failures": failures,
            "position": progress.position,
            "current_job": progress.current_job,
            "update_time": moment,
        }
        has_ended = False
        is_erasure = operation.selection.method is BulkMethod.ERASE_JOBS
        if progress.problem:
            values["next_time"] = moment + AFTER_PROBLEM
        elif not progress.is_over:
            worked = max(progress.found, 1 if progress.current_job is not None else 0)
            values["next_time"] = moment + Pace(operation.rate).pause(worked)
        elif found > failed or (is_erasure and moment < operation.create_time + SETTLED):
            # Another walk: for what was passed over, and to see that nothing is left.
            pause = AFTER_WALK if passed or found == failed else timedelta(0)
            values |= {"position": None, "next_time": moment + pause}
        else:
            has_ended = True
            values |= {"state": OperationState.DONE.value, "end_time": moment}
            self._sizes.pop(row["uid"], None)
            if operation.selection.owner is not None:
                await self._forget_days(connection, operation.selection.owner, moment)
        update = operations.update().where(operations.c.uid == operation.uid).values(**values)
        if has_ended:
            ended = (await connection.execute(update.returning(operations))).mappings().one()
            # Whoever asked for it has done it.
            by = Actor(operation.principal, operation.selection.method.rpc)
            await note_end(connection, self._database.moment(), operation_of(ended), by)
        else:
            await connection.execute(update)
        return Step(
            operation.name,
            operation.selection.method.value,
            operation.principal,
            progress.done,
            values["done"],
            has_ended,
            progress.problem,
        )

    @staticmethod
    async def _forget_days(connection: AsyncConnection, owner: str, moment: datetime) -> None:
        """The counts of an erased owner's days go too; today's stays, or erasing would be a way around the quota."""
        await connection.execute(
            owner_days.delete().where(owner_days.c.owner == owner, owner_days.c.day < moment.date())
        )


_WORK = {
    BulkMethod.BATCH_RETRY_EXECUTIONS: pieces.retry,
    BulkMethod.BATCH_CANCEL_JOBS: pieces.cancel,
    BulkMethod.ERASE_JOBS: pieces.erase,
}


def _is_of_the_piece(error: sa.exc.DBAPIError) -> bool:
    """Whether the error came of the statement and its rows, so that the connection can be used on."""
    if error.connection_invalidated or not isinstance(error.orig, psycopg.Error):
        return False
    return isinstance(error.orig, (*_IN_THE_WAY, psycopg.errors.QueryCanceled)) or not is_unavailable(error.orig)
