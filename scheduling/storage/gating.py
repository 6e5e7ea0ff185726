"""Gates: what release asks before an execution takes a slot, besides the overlap rule of its job.

Slots are what QUEUED and RUNNING executions hold, counted anew in each round; nothing is kept that could leak. What a
gate refuses stays PENDING under `held_by`, out of the due indexes, and is let go, the oldest first, as far as the gate
has room again. What is due for a target that is shut is never read by release: the due one-offs lie apart by target.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.limits import GateLimits
from scheduling.domain.pause import Scope
from scheduling.domain.target import Queue
from scheduling.storage.breaking import HELD_BY_BREAKER, Breaking
from scheduling.storage.controls import READ_PAUSES, give_back_paused, pause_key, pauses_from_rows
from scheduling.storage.database import NOW

#: What the holds are called; the owner, the method or the service follows.
HELD_BY_OWNER, HELD_BY_TARGET, HELD_BY_RATE = "OWNER:", "TARGET:", "RATE:"
#: Executions that one round takes out of the way of what may run: few, so that it takes no time that others miss.
HOLD_PIECE = 250
#: Executions that one round lets go behind a gate that has opened.
LET_GO_PIECE = 2000
#: In place of the state, of what release has looked at and left for its next round.
LEFT = "LEFT"
#: A queue that was full is filled again when a part of its depth, one in so many, is free.
ROOM_PART = 8
#: Owners with something held that one round looks at; the next one goes on behind them.
WALKED_OWNERS = 500

#: The condition of executions_plain: due one-offs without overlap rules, apart by target.
IS_PLAIN = "state = 'PENDING' AND held_by IS NULL AND NOT recurring AND overlap IS NULL"
#: The condition of executions_held_owner.
_IS_HELD_BY_OWNER = f"state = 'PENDING' AND starts_with(held_by, '{HELD_BY_OWNER}')"
#: The condition of executions_held_keys.
_IS_HELD_OTHERWISE = f"state = 'PENDING' AND held_by IS NOT NULL AND NOT starts_with(held_by, '{HELD_BY_OWNER}')"

# By executions_slots: as much as queues and workers hold.
_SLOTS = """
SELECT queue, target, count(*) FILTER (WHERE state = 'QUEUED'), count(*) FROM executions
WHERE state IN ('QUEUED', 'RUNNING') GROUP BY queue, target
"""
_OWNER_SLOTS = """
SELECT owner, count(*) FROM executions WHERE state IN ('QUEUED', 'RUNNING') AND owner = ANY(%(owners)s::text[])
GROUP BY owner
"""
# The targets for which one-offs wait and the earliest ready time of each, one probe of executions_plain each.
_LANES = f"""
WITH RECURSIVE lanes AS (
    SELECT q AS queue, n.* FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) AS q CROSS JOIN LATERAL (
        SELECT hashtext(target) AS lane, target, ready_time FROM executions
        WHERE queue = q AND {IS_PLAIN} ORDER BY hashtext(target), ready_time LIMIT 1
    ) AS n
    UNION ALL
    SELECT lanes.queue, n.* FROM lanes CROSS JOIN LATERAL (
        SELECT hashtext(target) AS lane, target, ready_time FROM executions
        WHERE queue = lanes.queue AND hashtext(target) > lanes.lane AND {IS_PLAIN}
        ORDER BY hashtext(target), ready_time LIMIT 1
    ) AS n
)
SELECT queue, lane, target FROM lanes WHERE ready_time <= %(until)s
"""
# The different holds, one probe of executions_held_keys each, however many executions are held.
_HELD_KEYS = f"""
WITH RECURSIVE holds AS (
    (SELECT held_by FROM executions WHERE {_IS_HELD_OTHERWISE} ORDER BY held_by LIMIT 1)
    UNION ALL
    SELECT n.held_by FROM holds CROSS JOIN LATERAL (
        SELECT e.held_by FROM executions e WHERE {_IS_HELD_OTHERWISE} AND e.held_by > holds.held_by
        ORDER BY e.held_by LIMIT 1
    ) AS n
)
SELECT held_by FROM holds
"""
# By executions_held, the oldest of each key first.
_LET_GO = """
UPDATE executions SET held_by = NULL
WHERE uid IN (
    SELECT h.uid FROM unnest(%(keys)s::text[], %(counts)s::int8[]) AS k (key, n) CROSS JOIN LATERAL (
        SELECT uid FROM executions WHERE state = 'PENDING' AND held_by = k.key
        ORDER BY ready_time LIMIT k.n FOR UPDATE SKIP LOCKED
    ) AS h
)
RETURNING uid
"""
_HELD_OWNERS = f"""
WITH RECURSIVE walk (owner, n) AS (
    (SELECT owner, 1 FROM executions WHERE {_IS_HELD_BY_OWNER} AND owner > %(after)s ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT n.owner, walk.n + 1 FROM walk CROSS JOIN LATERAL (
        SELECT e.owner FROM executions e WHERE {_IS_HELD_BY_OWNER} AND e.owner > walk.owner ORDER BY e.owner LIMIT 1
    ) AS n
    WHERE walk.n < {WALKED_OWNERS}
)
SELECT owner FROM walk ORDER BY n
"""
# By executions_held_owner, as many of each owner's oldest as executions_slots says it has slots free.
_LET_OWNERS_GO = f"""
UPDATE executions SET held_by = NULL
WHERE uid IN (
    SELECT h.uid FROM unnest(%(owners)s::text[]) AS o (owner)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.owner = %(exempt)s THEN {LET_GO_PIECE} ELSE %(limit)s - count(*) END AS free
        FROM executions e WHERE e.owner = o.owner AND e.state IN ('QUEUED', 'RUNNING')
    ) AS s
    CROSS JOIN LATERAL (
        SELECT uid FROM executions WHERE owner = o.owner AND {_IS_HELD_BY_OWNER}
        ORDER BY ready_time LIMIT greatest(s.free, 0) FOR UPDATE SKIP LOCKED
    ) AS h
)
RETURNING uid
"""
# By executions_plain.
_HOLD = f"""
UPDATE executions e SET held_by = h.key
FROM (
    SELECT r.uid, l.key
    FROM unnest(%(queues)s::text[], %(lanes)s::int4[], %(targets)s::text[], %(keys)s::text[], %(untils)s::timestamptz[])
        AS l (queue, lane, target, key, until)
    CROSS JOIN LATERAL (
        SELECT uid FROM executions
        WHERE queue = l.queue AND hashtext(target) = l.lane AND target = l.target AND ready_time <= l.until
          AND {IS_PLAIN}
        ORDER BY ready_time LIMIT %(piece)s FOR UPDATE SKIP LOCKED
    ) AS r
) AS h
WHERE e.uid = h.uid
"""
_READ_RATES = "SELECT service, next_time FROM rates WHERE service = ANY(%(services)s::text[])"
_WRITE_RATES = """
INSERT INTO rates (service, next_time) SELECT * FROM unnest(%(services)s::text[], %(times)s::timestamptz[])
ON CONFLICT (service) DO UPDATE SET next_time = excluded.next_time
"""


@dataclass(slots=True)
class _Rate:
    """A rate as GCRA: `next_time` is when the next call would be due at the steady pace; a second's worth may go at
    once.
    """

    pace: timedelta
    next_time: datetime
    tokens: int
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """The due one-offs of one target in a queue, and how many of them may be released, up to when."""

    queue: Queue
    number: int
    target: str
    cap: int
    until: datetime


@dataclass(slots=True)
class Gates:
    """The gates as one round of release sees them."""

    limits: GateLimits
    moment: datetime
    until: datetime
    room: dict[Queue, int] = field(default_factory=dict)
    probes: list[UUID] = field(default_factory=list)
    let_go: set[UUID] = field(default_factory=set)
    lanes: dict[Queue, list[Lane]] = field(default_factory=lambda: defaultdict(list))
    walked: str = ""
    _pauses: frozenset[tuple[Scope, str]] = frozenset()
    _shut: frozenset[str] = frozenset()
    _used: Counter[str] = field(default_factory=Counter)
    _rates: dict[str, _Rate] = field(default_factory=dict)
    _found: list[tuple[Queue, int, str]] = field(default_factory=list)
    _breaking: Breaking = field(default_factory=Breaking)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read(self, cursor: AsyncCursor[TupleRow], now: datetime | None, *, depth: int, walked: str) -> None:
        """Reads slots, pauses, breakers and rates, gives back what is released for what is paused, grants the probes
        that are due, and lets go what waits at gates that have room.
        """
        await cursor.execute(_SLOTS)
        queued: Counter[str] = Counter()
        for queue, target, waiting, used in await cursor.fetchall():
            queued[queue] += waiting
            self._used[target] += used
        # Less than a part of the depth is not worth a round: workers have plenty, and most of those whose turn it would
        # be belong to owners whose slots are still taken.
        rooms = {queue: depth - queued[queue] for queue in Queue}
        self.room = {queue: room if room >= depth // ROOM_PART else 0 for queue, room in rooms.items()}
        await cursor.execute(READ_PAUSES)
        pauses = pauses_from_rows(await cursor.fetchall())
        self._pauses = frozenset((pause.scope, pause.name) for pause in pauses)
        if pauses:
            await give_back_paused(cursor, pauses)
        await self._breaking.read(cursor, now, pauses)
        self._shut, self.probes = frozenset(self._breaking.shut), self._breaking.probes
        await self._read_rates(cursor)
        await self._let_go(cursor, walked)
        await cursor.execute(_LANES, {"until": self.until})
        self._found = [(Queue(row[0]), row[1], row[2]) for row in await cursor.fetchall()]

    async def _read_rates(self, cursor: AsyncCursor[TupleRow]) -> None:
        if not self.limits.rates:
            return
        await cursor.execute(_READ_RATES, {"services": list(self.limits.rates)})
        times: dict[str, datetime] = dict(await cursor.fetchall())
        for service, per_second in self.limits.rates.items():
            pace = timedelta(seconds=1 / per_second)
            next_time = max(times.get(service, self.moment), self.moment)
            burst = pace * max(1, int(per_second))
            self._rates[service] = _Rate(pace, next_time, max(0, (self.moment + burst - next_time) // pace))

    async def _let_go(self, cursor: AsyncCursor[TupleRow], walked: str) -> None:
        await cursor.execute(_HELD_KEYS)
        counts = {row[0]: self._room_behind(row[0]) for row in await cursor.fetchall()}
        free = {key: count for key, count in counts.items() if count > 0}
        if free:
            await cursor.execute(_LET_GO, {"keys": list(free), "counts": list(free.values())})
            self.let_go |= {row[0] for row in await cursor.fetchall()}
        await cursor.execute(_HELD_OWNERS, {"after": walked})
        owners = [row[0] for row in await cursor.fetchall()]
        self.walked = owners[-1] if len(owners) == WALKED_OWNERS else ""
        if owners:
            of_owner = {"limit": self.limits.owner_running, "exempt": self.limits.exempt_owner}
            await cursor.execute(_LET_OWNERS_GO, {"owners": owners, **of_owner})
            self.let_go |= {row[0] for row in await cursor.fetchall()}

    def _room_behind(self, key: str) -> int:
        """How many of those held under `key` may go on."""
        if key.startswith(HELD_BY_BREAKER):
            return 0 if key.removeprefix(HELD_BY_BREAKER) in self._shut else LET_GO_PIECE
        if key.startswith(HELD_BY_TARGET):
            free = self._free(key.removeprefix(HELD_BY_TARGET))
            return LET_GO_PIECE if free is None else free
        if key.startswith(HELD_BY_RATE):
            rate = self._rates.get(key.removeprefix(HELD_BY_RATE))
            return LET_GO_PIECE if rate is None else rate.tokens
        pause = pause_key(key)
        return 0 if pause is None or pause in self._pauses else LET_GO_PIECE

    # --- asking -------------------------------------------------------------------------------------------------------

    def refusal(self, queue: Queue, target: str, uid: UUID | None = None) -> str:
        """What an execution for `target` is held by; empty when every gate but its owner's is open."""
        service = target.partition("/")[0]
        scopes = ((Scope.SERVICE, ""), (Scope.QUEUE, queue.value), (Scope.TARGET, service), (Scope.TARGET, target))
        for scope, name in scopes:
            if (scope, name) in self._pauses:
                return scope.held_by(name)
        if service in self._shut and (uid is None or uid not in self.probes):
            return HELD_BY_BREAKER + service
        free = self._free(target)
        if free is not None and free <= 0:
            return HELD_BY_TARGET + target
        rate = self._rates.get(service)
        return HELD_BY_RATE + service if rate is not None and rate.tokens <= 0 else ""

    def may_be_early(self, target: str) -> bool:
        """Whether it may be released before its moment: a rate is measured when calls are made."""
        return target.partition("/")[0] not in self._rates

    def take(self, target: str, count: int = 1) -> None:
        """Slots and tokens are taken."""
        self._used[target] += count
        rate = self._rates.get(target.partition("/")[0])
        if rate is not None:
            rate.tokens -= count
            rate.spent += count

    def _free(self, target: str) -> int | None:
        limit = self.limits.target_running.get(target)
        return None if limit is None else limit - self._used[target]

    def open_lanes(self, queue: Queue, room: int) -> list[Lane]:
        """The targets of a queue for which something is due and may be released.

        One target takes no more than its part of a round, so that what is due for others does not wait for a flood.
        """
        found = [each for each in self._found if each[0] is queue and not self.refusal(queue, each[2])]
        sharing = Counter(target.partition("/")[0] for _, _, target in found)
        tokens = {service: rate.tokens for service, rate in self._rates.items()}
        lanes = []
        for _, number, target in found:
            service = target.partition("/")[0]
            free, rate = self._free(target), self._rates.get(service)
            cap = -(-room // len(found))
            if free is not None:
                cap = min(cap, free)
            if rate is not None:
                cap = min(cap, -(-tokens[service] // sharing[service]))
                tokens[service] -= cap
                sharing[service] -= 1
            if cap > 0:
                lanes.append(Lane(queue, number, target, cap, self.until if rate is None else self.moment))
        return lanes

    async def free_of_owners(self, cursor: AsyncCursor[TupleRow], owners: Iterable[str]) -> dict[str, int]:
        """How many slots each of `owners` has free; the exempt one is left out."""
        wanted = set(owners) - {self.limits.exempt_owner}
        await cursor.execute(_OWNER_SLOTS, {"owners": list(wanted)})
        used: dict[str, int] = dict(await cursor.fetchall())
        return {owner: self.limits.owner_running - used.get(owner, 0) for owner in wanted}

    # --- writing ------------------------------------------------------------------------------------------------------

    async def close(self, cursor: AsyncCursor[TupleRow], now: datetime | None) -> int:
        """Takes a piece of what is due and refused out of the way, and writes what the rates have spent and what has
        become of the probes. Returns how many were held.
        """
        held = await self._hold(cursor)
        await self._breaking.settle(cursor, now)
        spent = {service: rate for service, rate in self._rates.items() if rate.spent}
        if spent:
            times = [rate.next_time + rate.pace * rate.spent for rate in spent.values()]
            await cursor.execute(_WRITE_RATES, {"services": list(spent), "times": times})
        return held

    async def _hold(self, cursor: AsyncCursor[TupleRow]) -> int:
        refused = [(*each, self.refusal(each[0], each[2])) for each in self._found]
        refused = [each for each in refused if each[3]]
        if not refused:
            return 0
        is_rate = [key.startswith(HELD_BY_RATE) for *_, key in refused]
        await cursor.execute(
            _HOLD,
            {
                "queues": [queue.value for queue, *_ in refused],
                "lanes": [number for _, number, *_ in refused],
                "targets": [target for _, _, target, _ in refused],
                "keys": [key for *_, key in refused],
                "untils": [self.moment if late else self.until for late in is_rate],
                "piece": -(-HOLD_PIECE // len(refused)),
            },
        )
        return max(cursor.rowcount, 0)


def plain_parameters(lanes: Sequence[Lane]) -> Mapping[str, Any]:
    """The lanes as arrays."""
    return {
        "lanes": [lane.number for lane in lanes],
        "caps": [lane.cap for lane in lanes],
        "untils": [lane.until for lane in lanes],
    }


# By primary key only. Said so, `state` fits the condition of no partial index: on a table that was never analyzed the
# planner would take each of them for empty, and read one of them from end to end for each row.
_IS_STILL_PLAIN = "e.state || '' = 'PENDING' AND e.held_by IS NULL AND NOT e.recurring AND e.overlap IS NULL"

#: One-offs without overlap rules and schedules to count for: one statement decides about all of a queue. What its owner
#: has no slot for is held, unless it was less than half of a round that was full: while a backlog goes on, such slots
#: are free by the next round, and holding and letting go are two more versions of the row.
RELEASE_PLAIN = f"""
WITH heads AS (
    SELECT h.uid, h.ready_time
    FROM unnest(%(lanes)s::int4[], %(caps)s::int8[], %(untils)s::timestamptz[]) AS l (lane, cap, until)
    CROSS JOIN LATERAL (
        SELECT uid, ready_time FROM executions
        WHERE queue = %(queue)s AND hashtext(target) = l.lane AND ready_time <= l.until AND {IS_PLAIN}
        ORDER BY ready_time LIMIT l.cap
    ) AS h
    UNION ALL
    SELECT e.uid, e.ready_time FROM executions e
    WHERE e.uid = ANY(ARRAY(SELECT unnest(%(probes)s::uuid[]))) AND e.queue = %(queue)s AND {_IS_STILL_PLAIN}
    ORDER BY ready_time LIMIT %(room)s
),
due AS MATERIALIZED (
    SELECT e.uid, e.owner, e.ready_time, e.target, e.expire_time > {NOW} AS is_fresh FROM executions e
    WHERE e.uid = ANY(ARRAY(SELECT uid FROM heads)) AND {_IS_STILL_PLAIN} FOR UPDATE OF e SKIP LOCKED
),
placed AS (
    SELECT d.*, d.owner = %(exempt)s OR row_number() OVER (PARTITION BY d.owner, d.is_fresh ORDER BY d.ready_time) + (
               SELECT count(*) FROM executions x WHERE x.owner = d.owner AND x.state IN ('QUEUED', 'RUNNING')
           ) <= %(limit)s AS has_slot
    FROM due d
),
judged AS MATERIALIZED (
    SELECT *, is_fresh AND NOT has_slot AND count(*) OVER () >= %(room)s
              AND 2 * count(*) FILTER (WHERE is_fresh AND NOT has_slot) OVER () < count(*) OVER () AS is_left
    FROM placed
),
moved AS (
    UPDATE executions e
    SET state = CASE WHEN NOT j.is_fresh THEN 'FAILED' WHEN j.has_slot THEN 'QUEUED' ELSE 'PENDING' END,
        reason = CASE WHEN j.is_fresh THEN '' ELSE 'EXPIRED' END,
        held_by = CASE WHEN j.is_fresh AND NOT j.has_slot THEN '{HELD_BY_OWNER}' || e.owner END,
        finish_time = CASE WHEN j.is_fresh THEN NULL ELSE {NOW} END,
        queue_time = CASE WHEN j.has_slot OR NOT j.is_fresh THEN {NOW} ELSE e.queue_time END
    FROM judged j WHERE e.uid = j.uid AND NOT j.is_left
    RETURNING e.uid, e.ready_time, e.state, e.target
)
SELECT uid, ready_time, state, target FROM moved
UNION ALL
SELECT uid, ready_time, '{LEFT}', target FROM judged WHERE is_left
"""
