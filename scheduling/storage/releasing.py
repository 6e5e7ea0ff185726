"""Release: PENDING → QUEUED for what is due and may run.

The only transition that takes a slot. It runs one at a time, so what it counts is exact; repeating it is harmless.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.advance import MISSED_AFTER
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.target import Queue
from scheduling.storage.database import NOW, Database
from scheduling.storage.deciding import HELD_BY_OVERLAP, Candidate, Decisions, decide, is_missed
from scheduling.storage.gating import LEFT, RELEASE_PLAIN, Gates, plain_parameters
from scheduling.storage.history import move_sql
from scheduling.storage.tables import HISTORY_COLUMNS

_LOCK_KEY = 0x52454C45  # "RELE": one release at a time per database
_TRY_LOCK = f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY}), {NOW}"

#: Jobs with something held that one round looks at per queue; the next round goes on behind them.
BUFFERED_JOBS = 2000
_FIRST = UUID(int=0)
#: How many executions of a queue the first round of a backlog takes, and how few the rounds after failed ones.
FIRST_BATCH, LEAST_BATCH = 1000, 50

# What nobody started before its maximum age ends as it is found; the rest of what waits for a gate or a retry is looked
# for by its own small index. A paused one-off is told by its resume.
_EXPIRE = f"""
WITH waiting AS (
    SELECT uid FROM executions WHERE state = 'PENDING' AND (held_by IS NOT NULL OR attempt > 0) AND expire_time <= {NOW}
      AND held_by IS DISTINCT FROM 'PAUSED'
    ORDER BY expire_time LIMIT 1000 FOR UPDATE SKIP LOCKED
), queued AS (
    SELECT uid FROM executions
    WHERE state = 'QUEUED' AND ready_time < {NOW} - interval '1 minute' AND expire_time <= {NOW}
    LIMIT 1000 FOR UPDATE SKIP LOCKED
)
UPDATE executions SET state = 'FAILED', reason = 'EXPIRED', held_by = NULL, finish_time = {NOW}
WHERE uid IN (SELECT uid FROM waiting UNION ALL SELECT uid FROM queued)
RETURNING target
"""

# By executions_gated, whose condition this repeats: plain one-offs, however many are due, are not read.
_GATED = """
SELECT uid, job_uid, schedule_uid, overlap, ready_time, recurring, queue_time, attempt, expire_time, held_by, owner,
       target
FROM executions
WHERE queue = %(queue)s AND state = 'PENDING' AND held_by IS NULL AND ready_time <= %(until)s
  AND (recurring OR overlap IS NOT NULL)
ORDER BY ready_time LIMIT %(room)s
"""
# The next jobs that have something held, one probe of executions_buffered each, however much each of them has.
_BUFFERED = f"""
WITH RECURSIVE walk (job_uid, n) AS (
    (SELECT job_uid, 1 FROM executions
     WHERE queue = %(queue)s AND state = 'PENDING' AND held_by = '{HELD_BY_OVERLAP}' AND job_uid > %(after)s
     ORDER BY job_uid LIMIT 1)
    UNION ALL
    SELECT (SELECT e.job_uid FROM executions e
            WHERE e.queue = %(queue)s AND e.state = 'PENDING' AND e.held_by = '{HELD_BY_OVERLAP}'
              AND e.job_uid > walk.job_uid
            ORDER BY e.job_uid LIMIT 1), n + 1
    FROM walk WHERE walk.job_uid IS NOT NULL AND n < %(count)s
)
SELECT job_uid FROM walk WHERE job_uid IS NOT NULL ORDER BY n
"""
# The oldest that waits of each of these jobs whose others have all ended. What holds slots is read once by
# executions_slots, as much as queues and workers hold; what waits to go on is probed by executions_tried.
_UNHELD = f"""
WITH busy AS MATERIALIZED (SELECT job_uid FROM executions WHERE state IN ('QUEUED', 'RUNNING')),
free AS MATERIALIZED (
    SELECT j.uid, j.n FROM unnest(%(jobs)s::uuid[]) WITH ORDINALITY AS j (uid, n)
    WHERE NOT EXISTS (SELECT FROM busy WHERE busy.job_uid = j.uid)
)
SELECT e.uid, e.job_uid, e.schedule_uid, e.overlap, e.ready_time, e.recurring, e.queue_time, e.attempt, e.expire_time,
       e.held_by, e.owner, e.target
FROM free CROSS JOIN LATERAL (
    SELECT * FROM executions
    WHERE queue = %(queue)s AND job_uid = free.uid AND state = 'PENDING' AND held_by = '{HELD_BY_OVERLAP}'
    ORDER BY ready_time LIMIT 1
) AS e
WHERE (SELECT true FROM executions o
       WHERE o.queue = ANY(ARRAY['HIGH', 'MEDIUM', 'LOW']) AND o.job_uid = free.uid AND o.state = 'PENDING'
         AND (o.attempt > 0 OR o.queue_time IS NOT NULL) AND o.uid <> e.uid
       LIMIT 1) IS NULL
ORDER BY free.n LIMIT %(room)s
"""
# A schedule that is behind its own plans was not advanced in time: what of them is missed is for advancing to say.
_LOCK_SCHEDULES = f"""
SELECT uid, max_firings - fired_count,
       NOT paused AND evaluated_until < {NOW} - interval '{MISSED_AFTER.total_seconds()} seconds'
FROM schedules WHERE uid = ANY(%(uids)s::uuid[]) ORDER BY uid
FOR UPDATE SKIP LOCKED
"""
_LOCK_EXECUTIONS = """
SELECT uid FROM executions WHERE uid = ANY(%(uids)s::uuid[]) AND state = 'PENDING' ORDER BY uid FOR UPDATE SKIP LOCKED
"""
_OPEN = """
SELECT job_uid,
       count(*) FILTER (WHERE state IN ('QUEUED', 'RUNNING')
                        OR (state = 'PENDING' AND (attempt > 0 OR queue_time IS NOT NULL) AND held_by IS NULL)),
       count(*) FILTER (WHERE state = 'PENDING' AND held_by IS NOT NULL AND held_by <> 'PAUSED')
FROM executions
WHERE job_uid = ANY(%(jobs)s::uuid[]) AND uid <> ALL(%(uids)s::uuid[]) AND state IN ('PENDING', 'QUEUED', 'RUNNING')
GROUP BY job_uid
"""
_QUEUE = f"""
UPDATE executions SET state = 'QUEUED', held_by = NULL, queue_time = {NOW} WHERE uid = ANY(%(uids)s::uuid[])
"""
_HOLD = """
UPDATE executions e SET held_by = i.held_by FROM unnest(%(uids)s::uuid[], %(holds)s::text[]) AS i (uid, held_by)
WHERE e.uid = i.uid
"""
_FAIL_EXPIRED = f"""
UPDATE executions SET state = 'FAILED', reason = 'EXPIRED', held_by = NULL, finish_time = {NOW}
WHERE uid = ANY(%(uids)s::uuid[])
RETURNING target
"""
_COUNT_FIRED = """
UPDATE schedules s SET fired_count = s.fired_count + i.fired
FROM unnest(%(uids)s::uuid[], %(fired)s::int8[]) AS i (uid, fired) WHERE s.uid = i.uid
RETURNING s.uid, s.max_firings IS NOT NULL AND s.fired_count >= s.max_firings
"""
_COUNT_SKIPPED = """
UPDATE schedules s
SET skipped = s.skipped || jsonb_build_object(%(reason)s::text, coalesce((s.skipped ->> %(reason)s)::int8, 0) + i.count)
FROM (SELECT schedule_uid, count(*) FROM executions
      WHERE uid = ANY(%(uids)s::uuid[]) AND origin = 'SCHEDULED' GROUP BY schedule_uid) AS i
WHERE s.uid = i.schedule_uid
"""
# The last firing that the schedule may have was released: what was planned beyond it goes.
_FINISH = "UPDATE schedules SET evaluated_until = 'infinity' WHERE uid = ANY(%(uids)s::uuid[])"
_UNPLAN = """
DELETE FROM executions
WHERE schedule_uid = ANY(%(uids)s::uuid[]) AND origin = 'SCHEDULED' AND state = 'PENDING' AND attempt = 0
  AND queue_time IS NULL
"""


def _end(where: str, state: str, reason: str) -> str:
    returned = ", ".join(HISTORY_COLUMNS)
    changed = {"state": f"'{state}'", "reason": reason, "finish_time": NOW}
    gone = f"WITH gone AS (DELETE FROM executions WHERE {where} RETURNING {returned})"
    return f"{gone} {move_sql('gone', changed)} RETURNING target"


_SKIP = _end("uid = ANY(%(uids)s::uuid[])", "SKIPPED", "%(reason)s")
_CANCEL_WAITING = _end(
    "job_uid = ANY(%(jobs)s::uuid[]) AND uid <> ALL(%(uids)s::uuid[]) "
    "AND (state = 'QUEUED' OR (state = 'PENDING' AND (attempt > 0 OR held_by <> 'PAUSED')))",
    "CANCELLED",
    f"'{Reason.REPLACED}'",
)
_REPLACE = _end("uid = ANY(%(uids)s::uuid[])", "CANCELLED", f"'{Reason.REPLACED}'")
_CANCEL_RUNNING = f"""
UPDATE executions SET cancel_request_time = {NOW}
WHERE job_uid = ANY(%(jobs)s::uuid[]) AND state = 'RUNNING' AND cancel_request_time IS NULL
"""

# A breaker is closed by rounds of release, also when nothing is left that waits for it; they take back what another
# round let go while a pause began.
_WAITING = """
SELECT min(ready_time), bool_or(held),
       EXISTS (SELECT FROM executions WHERE state = 'PENDING' AND starts_with(held_by, 'OWNER:'))
       OR EXISTS (SELECT FROM breakers WHERE state = 'HALF_OPEN')
FROM (
    SELECT (SELECT ready_time FROM executions WHERE queue = q AND state = 'PENDING' AND held_by IS NULL
            ORDER BY ready_time LIMIT 1) AS ready_time,
           EXISTS (SELECT FROM executions WHERE state = 'PENDING' AND held_by IS NOT NULL)
           OR EXISTS (SELECT FROM breakers WHERE state <> 'CLOSED') OR EXISTS (SELECT FROM controls) AS held
    FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) AS q
) AS heads
"""
_NEXT_ADVANCE = "SELECT min(evaluated_until) FROM schedules WHERE evaluated_until < 'infinity' AND NOT paused"


@dataclass(frozen=True, slots=True)
class Released:
    """What one round released, by queue: (uid, ready time). `more` says that a queue had more than was taken.

    `ended` counts by target and state what ended without a call: what was skipped or has expired.
    """

    by_queue: dict[Queue, list[tuple[UUID, datetime]]] = field(default_factory=dict)
    skipped: int = 0
    held: int = 0
    expired: int = 0
    ended: Counter[tuple[str, State]] = field(default_factory=Counter)
    more: bool = False
    busy: bool = False

    @property
    def count(self) -> int:
        """Executions released."""
        return sum(len(released) for released in self.by_queue.values())


@dataclass(frozen=True, slots=True)
class Ahead:
    """What dispatch has before it: the earliest ready time of what waits, whether anything is held, and whether that
    may go on any moment (an owner's slot, a service that is coming back), the next firing to plan.
    """

    now: datetime
    next_ready: datetime | None
    held: bool
    is_pressing: bool
    next_advance: datetime | None


class ReleasingStore:
    """What the scheduler does to due executions."""

    def __init__(
        self, database: Database, *, limits: GateLimits | None = None, queue_depth: int = 10_000, batch: int = 1000
    ) -> None:
        self._database = database
        self._limits = limits or GateLimits()
        self._queue_depth = queue_depth
        self._batch = batch
        self._room = min(batch, FIRST_BATCH)
        # Where the walk over the jobs with something held goes on. Each process has a walk of its own; that is
        # harmless, since what it finds is looked at again under its lock.
        self._walked: dict[str, UUID] = {}
        self._walked_owner = ""

    async def look_ahead(self) -> Ahead:
        """What is next, by the heads of the indexes."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                f"SELECT {NOW}, w.*, n.* FROM ({_WAITING}) AS w, ({_NEXT_ADVANCE}) AS n", {"now": self._database.now()}
            )
            row = await cursor.fetchone()
        assert row is not None
        return Ahead(row[0], row[1], bool(row[2]), bool(row[3]), row[4])

    async def release(self, ahead: timedelta) -> Released:
        """Releases what is ready within `ahead`, up to a batch per queue and never beyond the queues' depth.

        By executions_due. Locks what it moves and skips what others have locked. One transaction under an advisory
        lock; `busy` in the answer says that another process is at it. Batches grow while there is more, and shrink when
        PostgreSQL was not done in time: a backlog goes however slow it is.
        """
        try:
            released = await self._release(ahead)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, TimeoutError | psycopg.errors.QueryCanceled):
                self._room = max(self._room // 4, min(self._batch, LEAST_BATCH))
            raise
        if not released.busy:
            self._room = min(self._batch, self._room * 2 if released.more else FIRST_BATCH)
        return released

    async def _release(self, ahead: timedelta) -> Released:
        now = self._database.now()
        result = Released()
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor()
            await cursor.execute(_TRY_LOCK, {"now": now})
            head = await cursor.fetchone()
            assert head is not None
            if not head[0]:
                return Released(busy=True)
            moment: datetime = head[1]
            ended: Counter[tuple[str, State]] = Counter()
            await cursor.execute(_EXPIRE, {"now": now})
            expired = max(cursor.rowcount, 0)
            ended.update((row[0], State.FAILED) for row in await cursor.fetchall())
            gates = Gates(self._limits, moment, moment + ahead)
            await gates.read(cursor, now, depth=self._queue_depth, walked=self._walked_owner)
            self._walked_owner = gates.walked
            skipped = held = 0
            more = False
            for queue in Queue:
                room = min(self._room, gates.room[queue])
                if room <= 0:
                    continue
                # At most half of the room, so that neither kind can keep the other waiting for good.
                half = (room + 1) // 2
                bounds = {"queue": queue.value, "until": gates.until, "room": half}
                decisions = await self._release_gated(cursor, gates, bounds)
                rest = room - len(decisions.queue)
                plain, full = await self._release_plain(cursor, gates, queue, rest)
                expired += plain.expired + len(decisions.expired)
                ended += plain.ended + decisions.ended
                released = plain.by_queue.get(queue, []) + decisions.released
                if released:
                    result.by_queue[queue] = released
                more = more or full or decisions.count >= half
                skipped += sum(len(uids) for uids in decisions.skip.values())
                held += plain.held + len(decisions.hold)
            held += await gates.close(cursor, now)
        return Released(result.by_queue, skipped, held, expired, ended, more)

    async def _release_plain(
        self, cursor: AsyncCursor[TupleRow], gates: Gates, queue: Queue, room: int
    ) -> tuple[Released, bool]:
        """Releases one-offs without overlap rules, in one statement; also whether there may be more of them."""
        lanes = gates.open_lanes(queue, room)
        if not lanes and not gates.probes:
            return Released(), False
        parameters = {"queue": queue.value, "room": room, "probes": gates.probes, **plain_parameters(lanes)}
        limits = {"limit": self._limits.owner_running, "exempt": self._limits.exempt_owner}
        await cursor.execute(RELEASE_PLAIN, {"now": self._database.now(), **parameters, **limits})
        found = await cursor.fetchall()
        released: list[tuple[UUID, datetime]] = []
        ended: Counter[tuple[str, State]] = Counter()
        held = 0
        for uid, ready, state, target in found:
            if state == "QUEUED":
                released.append((uid, ready))
                gates.take(target)
            elif state == "FAILED":
                ended[target, State.FAILED] += 1
            elif state != LEFT:
                held += 1
        by_queue = {queue: released} if released else {}
        taken = Counter(row[3] for row in found)
        is_full = any(taken[lane.target] == lane.cap for lane in lanes)
        return Released(by_queue, held=held, expired=ended.total(), ended=ended), is_full

    async def _release_gated(self, cursor: AsyncCursor[TupleRow], gates: Gates, bounds: dict[str, Any]) -> Decisions:
        """Decides about executions of recurring schedules and of jobs whose executions may not overlap."""
        now = self._database.now()
        # At most half of the room again: what is refused all the same, of a target that is paused, say, is found anew.
        candidates = await self._unheld(cursor, {**bounds, "room": (bounds["room"] + 1) // 2})
        await cursor.execute(_GATED, bounds)
        candidates += map(Candidate._make, await cursor.fetchall())
        candidates = candidates[: bounds["room"]]
        if not candidates:
            return Decisions()
        # Every change locks job, then schedules, then executions; what is being changed right now is left for the
        # next round.
        schedules = {each.schedule for each in candidates if each.schedule is not None and each.recurring}
        await cursor.execute(_LOCK_SCHEDULES, {"now": now, "uids": list(schedules)})
        found = await cursor.fetchall()
        left: dict[UUID, int | None] = {row[0]: row[1] for row in found}
        behind = {row[0] for row in found if row[2]}
        # A schedule that was deleted has nothing left to lock: its record goes on.
        await cursor.execute("SELECT uid FROM schedules WHERE uid = ANY(%(uids)s::uuid[])", {"uids": list(schedules)})
        blocked = {row[0] for row in await cursor.fetchall()} - left.keys()
        candidates = [
            row
            for row in candidates
            if row[2] not in blocked and not (row[2] in behind and is_missed(row, gates.moment))
        ]
        await cursor.execute(_LOCK_EXECUTIONS, {"uids": [each.uid for each in candidates]})
        locked = {row[0] for row in await cursor.fetchall()}
        candidates = [each for each in candidates if each.uid in locked]
        uids = [each.uid for each in candidates]
        await cursor.execute(_OPEN, {"jobs": list({each.job for each in candidates}), "uids": uids})
        open_by_job = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
        free = await gates.free_of_owners(cursor, {each.owner for each in candidates})
        decisions = decide(candidates, open_by_job, left, gates, Queue(bounds["queue"]), free)
        await self._apply(cursor, decisions, now)
        return decisions

    async def _unheld(self, cursor: AsyncCursor[TupleRow], bounds: dict[str, Any]) -> list[Candidate]:
        """What was held by its job's others and need not be any more, of the jobs whose turn it is."""
        queue = bounds["queue"]
        after = self._walked.pop(queue, _FIRST)
        await cursor.execute(_BUFFERED, {"queue": queue, "after": after, "count": BUFFERED_JOBS})
        walked = [row[0] for row in await cursor.fetchall()]
        if not walked:
            return []
        await cursor.execute(_UNHELD, {**bounds, "jobs": walked})
        found = [Candidate._make(row) for row in await cursor.fetchall()]
        if len(found) == bounds["room"]:
            self._walked[queue] = found[-1].job
        elif len(walked) == BUFFERED_JOBS:
            self._walked[queue] = walked[-1]
        return found

    async def _apply(self, cursor: AsyncCursor[TupleRow], decisions: Decisions, now: datetime | None) -> None:
        if decisions.cancel_jobs:
            others = {"now": now, "jobs": list(decisions.cancel_jobs), "uids": [*decisions.queue, *decisions.hold]}
            await cursor.execute(_CANCEL_WAITING, others)
            await cursor.execute(_CANCEL_RUNNING, others)
        if decisions.replaced:
            await cursor.execute(_REPLACE, {"now": now, "uids": decisions.replaced})
        for reason, uids in decisions.skip.items():
            await cursor.execute(_COUNT_SKIPPED, {"uids": uids, "reason": reason.value})
            await cursor.execute(_SKIP, {"now": now, "uids": uids, "reason": reason.value})
            decisions.ended.update((row[0], State.SKIPPED) for row in await cursor.fetchall())
        if decisions.hold:
            await cursor.execute(_HOLD, {"uids": list(decisions.hold), "holds": list(decisions.hold.values())})
        if decisions.expired:
            await cursor.execute(_FAIL_EXPIRED, {"now": now, "uids": decisions.expired})
            decisions.ended.update((row[0], State.FAILED) for row in await cursor.fetchall())
        if decisions.queue:
            await cursor.execute(_QUEUE, {"now": now, "uids": decisions.queue})
        finished = set(decisions.finished)
        if decisions.fired:
            fired = {"uids": list(decisions.fired), "fired": list(decisions.fired.values())}
            await cursor.execute(_COUNT_FIRED, fired)
            finished |= {row[0] for row in await cursor.fetchall() if row[1]}
        if finished:
            await cursor.execute(_FINISH, {"uids": list(finished)})
            await cursor.execute(_UNPLAN, {"uids": list(finished)})
