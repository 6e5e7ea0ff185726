"""Claim and record: the two writes of a delivery, each one statement for many executions, both fenced by the claim
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow

from scheduling.domain.execution import ISOLATED_AFTER, Claim, Outcome
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue
from scheduling.storage import rows
from scheduling.storage.binary import Numbered, array
from scheduling.storage.claims import CLAIM_COLUMNS, claim_from_row
from scheduling.storage.database import NOW, Database
from scheduling.storage.history import move_sql

_CLAIM_UPDATE = f"""
UPDATE executions e
SET state = 'RUNNING', claim_token = mine.token, claim_time = {NOW}, deadline_time = {NOW} + j.timeout,
    worker_uid = %(worker)s, attempt = e.attempt + 1,
    job_revision = CASE e.job_revision WHEN 0 THEN j.revision ELSE e.job_revision END
FROM mine JOIN jobs j ON j.uid = mine.job_uid
WHERE e.uid = mine.uid
RETURNING {CLAIM_COLUMNS}
"""

# A wrong clock makes late, never early: what is not yet due by the database's own clock is refused. So is everything
# when the lease of the worker has ended, whatever the worker itself believes. What has crashed processes is only for
# the worker that has reserved it. Each row is fetched by its key before anything else is asked of it: by its state and
# time it would be looked for among all that is queued.
_CLAIM = Numbered(f"""
WITH mine AS (
    SELECT e.uid, e.job_uid, i.token
    FROM unnest(%(uids)s::uuid[], %(tokens)s::uuid[]) AS i (uid, token) CROSS JOIN LATERAL (
        SELECT uid, job_uid, state, ready_time, target, crashes, worker_uid
        FROM executions WHERE uid = i.uid LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS e
    WHERE e.state = 'QUEUED' AND e.ready_time <= {NOW} + %(lead)s::interval
      AND (%(targets)s::text[] IS NULL OR e.target = ANY(%(targets)s::text[]))
      AND split_part(e.target, '/', 1) <> ALL(%(avoid)s::text[])
      AND CASE WHEN %(alone)s THEN e.crashes >= {ISOLATED_AFTER} AND e.worker_uid = %(worker)s
               ELSE e.crashes < {ISOLATED_AFTER} END
      AND EXISTS (SELECT FROM workers w WHERE w.uid = %(worker)s AND w.expire_time > {NOW})
)
{_CLAIM_UPDATE}
""")

_SWEEP = Numbered(f"""
WITH overdue AS (
    SELECT e.uid, e.job_uid
    FROM executions e
    WHERE e.state = 'QUEUED' AND e.queue = %(queue)s AND e.ready_time <= {NOW} - %(after)s::interval
      AND e.target = ANY(%(targets)s::text[]) AND e.crashes < {ISOLATED_AFTER}
      AND EXISTS (SELECT FROM workers w WHERE w.uid = %(worker)s AND w.expire_time > {NOW})
    ORDER BY e.ready_time LIMIT cardinality(%(tokens)s::uuid[]) FOR UPDATE OF e SKIP LOCKED
),
mine AS (
    SELECT o.uid, o.job_uid, t.token
    FROM (SELECT uid, job_uid, row_number() OVER () AS n FROM overdue) AS o
    JOIN unnest(%(tokens)s::uuid[]) WITH ORDINALITY AS t (token, n) ON t.n = o.n
)
{_CLAIM_UPDATE}
""")

# The oldest of each queue that has crashed processes, for one worker alone: that of a worker that is gone may be
# reserved anew.
_RESERVE = f"""
UPDATE executions SET worker_uid = %(worker)s
WHERE uid IN (
    SELECT found.uid FROM unnest(%(queues)s::text[]) AS q CROSS JOIN LATERAL (
        SELECT e.uid FROM executions e
        WHERE e.state = 'QUEUED' AND e.crashes >= {ISOLATED_AFTER} AND e.queue = q AND e.ready_time <= {NOW}
          AND e.target = ANY(%(targets)s::text[])
          AND (e.worker_uid = %(worker)s
               OR NOT EXISTS (SELECT FROM workers w WHERE w.uid = e.worker_uid AND w.expire_time > {NOW}))
        ORDER BY e.ready_time LIMIT 1 FOR UPDATE OF e SKIP LOCKED
    ) AS found
)
RETURNING queue, uid
"""

_CANCELLATIONS = """
SELECT claim_token FROM executions
WHERE worker_uid = %(worker)s AND state = 'RUNNING' AND cancel_request_time IS NOT NULL
"""

_OUTCOME = {
    "uid": "uuid",
    "token": "uuid",
    "state": "text",
    "reason": "text",
    "ready_time": "timestamptz",
    "begun": "bool",
    "counted": "bool",
    "start_time": "timestamptz",
    "code": "int2",
    "message": "text",
    "attempts": "jsonb",
    "response": "bytea",
    "response_type": "text",
    "crashed": "bool",
}
# In binary: turning them into text and back takes longer than all the rest that is done with parameters.
_INPUT = f"unnest({', '.join(f'%({name})s::{kind}[]' for name, kind in _OUTCOME.items())}) AS i ({', '.join(_OUTCOME)})"

# What a caller has asked to end is never tried again, also when the wish came after the worker had decided on a retry.
_ENDS = "(i.state IN ('SUCCEEDED', 'CANCELLED') OR (i.state = 'PENDING' AND i.asked))"


def _ended(where: str) -> str:
    return f"""
ended AS (
    DELETE FROM executions e USING held i WHERE e.uid = i.uid AND {where}
    RETURNING e.uid, e.job_uid, e.schedule_uid, e.schedule_id, e.origin, e.target, e.queue, e.owner,
        CASE i.state WHEN 'PENDING' THEN 'CANCELLED' ELSE i.state END AS state,
        CASE i.state WHEN 'PENDING' THEN 'CALLER' ELSE i.reason END AS reason,
        e.nominal_time, e.due_time, e.ready_time, e.expire_time,
        CASE WHEN i.begun THEN e.attempt ELSE e.attempt - 1 END AS attempt,
        e.counted + i.counted::int AS counted, coalesce(e.start_time, i.start_time) AS start_time, e.worker_uid,
        coalesce(i.code, e.code) AS code, i.message, coalesce(i.attempts, e.attempts) AS attempts, e.request,
        e.request_type, i.response, i.response_type, e.cancel_request_time, e.job_revision, e.retention_days,
        e.create_time, e.principal, {NOW} AS finish_time
),
moved AS ({move_sql("ended", {})})"""


_RECORD = Numbered(f"""
WITH held AS MATERIALIZED (
    SELECT i.*, e.cancel_request_time IS NOT NULL AS asked
    FROM {_INPUT} CROSS JOIN LATERAL (
        SELECT claim_token, cancel_request_time FROM executions WHERE uid = i.uid LIMIT 1 FOR UPDATE
    ) AS e
    WHERE e.claim_token = i.token
),
{_ended(_ENDS).strip()},
kept AS (
    UPDATE executions e
    SET state = i.state, reason = i.reason, claim_token = NULL, claim_time = NULL, deadline_time = NULL,
        ready_time = coalesce(i.ready_time, e.ready_time),
        attempt = CASE WHEN i.begun THEN e.attempt ELSE e.attempt - 1 END,
        counted = e.counted + i.counted::int, start_time = coalesce(e.start_time, i.start_time),
        code = coalesce(i.code, e.code), message = CASE WHEN i.begun THEN i.message ELSE e.message END,
        attempts = coalesce(i.attempts, e.attempts), crashes = e.crashes + i.crashed::int,
        finish_time = CASE i.state WHEN 'FAILED' THEN {NOW} END
    FROM held i WHERE e.uid = i.uid AND NOT {_ENDS}
    RETURNING e.uid
)
SELECT uid FROM ended UNION ALL SELECT uid FROM kept
""")
# Successes end whatever was asked meanwhile: nothing of them is read under a lock before, the deletion itself checks
# the token. The rows are deleted, and so locked, in the order of the input, since these connections join in no other
# way than row for row.
_RECORD_SUCCESSES = Numbered(f"""
WITH held AS MATERIALIZED (SELECT * FROM {_INPUT}),
{_ended("e.claim_token = i.token").strip()}
SELECT uid FROM ended
""")


class DeliveryStore:
    """What the delivery engine writes."""

    def __init__(self, database: Database, targets: Sequence[str] | None = None) -> None:
        self._database = database
        #: A worker claims only what it knows how to call: during an update a new method waits for a new worker.
        self._targets = None if targets is None else array("text", list(targets))

    async def claim_if_queued(
        self,
        worker: UUID,
        uids: Sequence[UUID],
        tokens: Sequence[UUID],
        lead: timedelta,
        *,
        alone: bool = False,
        avoid: Sequence[str] = (),
    ) -> Sequence[Claim]:
        """QUEUED → RUNNING for those of `uids` that are queued and due within `lead`, and for none of the services in
        `avoid`; the others are left alone.

        What has crashed processes is taken only `alone`, by the worker that has reserved it. By primary key; locks the
        rows, skips what others have locked.
        """
        return await self._claim(
            _CLAIM,
            {
                "worker": worker,
                "uids": array("uuid", list(uids)),
                "tokens": array("uuid", list(tokens)),
                "lead": lead,
                "targets": self._targets,
                "alone": alone,
                "avoid": array("text", list(avoid)),
            },
        )

    async def claim_overdue(
        self, worker: UUID, queue: Queue, tokens: Sequence[UUID], after: timedelta, targets: Sequence[str]
    ) -> Sequence[Claim]:
        """The same for up to as many as there are tokens of what has been queued and due for longer than `after`:
        its message was lost or is late. By executions_queued.
        """
        return await self._claim(
            _SWEEP,
            {
                "worker": worker,
                "queue": queue.value,
                "tokens": array("uuid", list(tokens)),
                "after": after,
                "targets": array("text", list(targets)),
            },
        )

    async def reserve_crashed(
        self, worker: UUID, queues: Sequence[Queue], targets: Sequence[str]
    ) -> Mapping[Queue, UUID]:
        """Reserves for this worker one queued execution of each queue that has crashed processes, if there is any.

        By executions_crashed; locks it, skips what others have locked.
        """
        parameters = {"queues": [queue.value for queue in queues], "targets": list(targets)}
        async with self._database.hot() as connection:
            cursor = await connection.execute(_RESERVE, {"now": self._database.now(), "worker": worker, **parameters})
            return {Queue(row[0]): row[1] for row in await cursor.fetchall()}

    async def _claim(self, statement: Numbered, parameters: dict[str, Any]) -> Sequence[Claim]:
        return [claim_from_row(row) for row in await self._run(statement, parameters)]

    async def _run(self, statement: Numbered, parameters: dict[str, Any]) -> list[TupleRow]:
        values = statement.values({"now": self._database.now(), **parameters})
        async with self._database.hot() as connection:
            cursor = psycopg.AsyncRawCursor(connection)
            await cursor.execute(statement.text, values, binary=True)
            return await cursor.fetchall()

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        """RUNNING → what became of it, for each whose token still stands; returns the uids of those.

        By primary key. The rest has been taken over by somebody else: the token is the fence.
        """
        if not outcomes:
            return set()
        # In the order of keys, in which the rows are locked.
        records = [_outcome_columns(outcome) for outcome in sorted(outcomes, key=lambda each: each.uid.int)]
        columns = zip(_OUTCOME.items(), zip(*records, strict=True), strict=True)
        parameters = {name: array(kind, list(values)) for (name, kind), values in columns}
        only_successes = all(outcome.state is State.SUCCEEDED for outcome in outcomes)
        return {row[0] for row in await self._run(_RECORD_SUCCESSES if only_successes else _RECORD, parameters)}

    async def cancellations(self, worker: UUID) -> set[UUID]:
        """The claim tokens of this worker's executions that a caller wants to end. By executions_running."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_CANCELLATIONS, {"worker": worker})
            return {row[0] for row in await cursor.fetchall()}


def _outcome_columns(outcome: Outcome) -> tuple[Any, ...]:
    """The values of _OUTCOME, in its order."""
    attempt = outcome.attempt
    # A first attempt that succeeded is told by the execution's own columns.
    is_plain = outcome.state is State.SUCCEEDED and len(outcome.history) <= 1
    return (
        outcome.uid,
        outcome.token,
        outcome.state.value,
        outcome.reason,
        outcome.ready_time,
        attempt is not None,
        attempt is not None and attempt.counted,
        outcome.start_time,
        None if attempt is None else attempt.code,
        "" if attempt is None else attempt.message,
        None if is_plain else rows.attempts_to_json(outcome.history),
        outcome.response,
        outcome.response_type,
        outcome.crashed,
    )
