"""Breakers: fed by the workers' recorded batches, heeded by release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.breaker import Breaker, BreakerState, after_answers, after_grant
from scheduling.domain.target import Queue
from scheduling.storage.database import NOW, Database

#: Held by whoever releases: one at a time per database. "RELE".
RELEASE_LOCK = 0x52454C45
#: What a hold by a breaker is called; the service follows.
HELD_BY_BREAKER = "BREAKER:"
#: Rows that one round holds or lets go, so that a backlog of millions is worked off in pieces.
PIECE = 5000

_ENSURE = """
INSERT INTO breakers (service, state) SELECT s, 'CLOSED' FROM unnest(%(services)s::text[]) AS s ORDER BY s
ON CONFLICT DO NOTHING
"""
_LOCK = f"""
SELECT service, state, failures, probes, probe_time, {NOW} FROM breakers
WHERE service = ANY(%(services)s::text[]) ORDER BY service FOR UPDATE
"""
_WRITE = f"""
UPDATE breakers SET state = %(state)s, failures = %(failures)s, probes = %(probes)s, probe_time = %(probe_time)s,
    change_time = CASE state WHEN %(state)s THEN change_time ELSE {NOW} END
WHERE service = %(service)s
"""
_UNCLEAN = "SELECT service FROM breakers WHERE state <> 'CLOSED' OR failures > 0"
_SHUT = "SELECT service FROM breakers WHERE state <> 'CLOSED'"
# A breaker that a worker is writing right now is left for the next round; it stays shut until then.
_TO_GRANT = f"""
SELECT service, state, failures, probes, probe_time, {NOW} FROM breakers
WHERE state <> 'CLOSED' AND probe_time <= {NOW} ORDER BY service FOR UPDATE SKIP LOCKED
"""

# A release under way may have read the breaker as closed: what it releases must be there to be given back.
_WAIT_FOR_RELEASE = f"SELECT pg_advisory_xact_lock({RELEASE_LOCK})"
# By executions_queued: what was released before the breaker opened goes back behind it.
_GIVE_BACK = f"""
UPDATE executions SET state = 'PENDING', held_by = '{HELD_BY_BREAKER}' || split_part(target, '/', 1)
WHERE state = 'QUEUED' AND split_part(target, '/', 1) = ANY(%(services)s::text[])
"""
# By executions_due: out of the due index, where a million of them would be in everybody's way.
_HOLD = f"""
UPDATE executions SET held_by = '{HELD_BY_BREAKER}' || split_part(target, '/', 1)
WHERE uid IN (
    SELECT uid FROM executions
    WHERE queue = %(queue)s AND state = 'PENDING' AND held_by IS NULL AND ready_time <= %(until)s
      AND split_part(target, '/', 1) = ANY(%(services)s::text[]) AND uid <> ALL(%(probes)s::uuid[])
    ORDER BY ready_time LIMIT {PIECE} FOR UPDATE SKIP LOCKED
)
"""
# By executions_held.
_LET_GO = """
UPDATE executions SET held_by = NULL
WHERE uid IN (
    SELECT uid FROM executions WHERE state = 'PENDING' AND held_by = %(held_by)s
    ORDER BY ready_time LIMIT %(count)s FOR UPDATE SKIP LOCKED
)
RETURNING uid
"""
# The different holds, one probe of the index each, however many executions are held.
_BEHIND_CLOSED = f"""
WITH RECURSIVE holds AS (
    SELECT min(held_by) AS held_by FROM executions WHERE state = 'PENDING' AND held_by IS NOT NULL
    UNION ALL
    SELECT (SELECT min(e.held_by) FROM executions e WHERE e.state = 'PENDING' AND e.held_by > holds.held_by)
    FROM holds WHERE holds.held_by IS NOT NULL
)
SELECT held_by FROM holds
WHERE held_by LIKE '{HELD_BY_BREAKER}%%' AND substr(held_by, {len(HELD_BY_BREAKER) + 1}) <> ALL(%(shut)s::text[])
"""


def _breaker(row: Sequence[Any]) -> Breaker:
    return Breaker(row[0], BreakerState(row[1]), row[2], row[3], row[4])


async def _write(cursor: AsyncCursor[TupleRow], breaker: Breaker, now: datetime | None) -> None:
    await cursor.execute(
        _WRITE,
        {
            "now": now,
            "service": breaker.service,
            "state": breaker.state.value,
            "failures": breaker.failures,
            "probes": breaker.probes,
            "probe_time": breaker.probe_time,
        },
    )


class BreakerStore:
    """The workers' side of the breakers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feed(self, tallies: Mapping[str, tuple[int, int]]) -> Sequence[Breaker]:
        """Takes in (failures, successes) by service; returns the breakers whose state changed.

        Locks the breakers' rows in order. A breaker that opens waits for the release under way, if there is one, and
        takes its released executions back.
        """
        now = self._database.now()
        changed = []
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor()
            await cursor.execute(_ENSURE, {"services": sorted(tallies)})
            await cursor.execute(_LOCK, {"now": now, "services": sorted(tallies)})
            for row in await cursor.fetchall():
                before = _breaker(row)
                after = after_answers(before, *tallies[before.service], row[5])
                if after != before:
                    await _write(cursor, after, now)
                if after.state is not before.state:
                    changed.append(after)
            opened = [breaker.service for breaker in changed if breaker.state is BreakerState.OPEN]
            if opened:
                await cursor.execute(_WAIT_FOR_RELEASE)
                await cursor.execute(_GIVE_BACK, {"services": opened})
        return changed

    async def unclean(self) -> frozenset[str]:
        """The services whose breakers want to hear of successes too."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_UNCLEAN)
            return frozenset(row[0] for row in await cursor.fetchall())


class Gate:
    """The breakers as one round of release sees them. `shut` are the services that nothing but `probes` may go to."""

    def __init__(self) -> None:
        self.shut: list[str] = []
        self.probes: list[UUID] = []

    async def read(self, cursor: AsyncCursor[TupleRow], now: datetime | None) -> None:
        """Reads the breakers, grants the probes that are due, and lets go what waits behind closed ones, in pieces."""
        await cursor.execute(_TO_GRANT, {"now": now})
        for row in await cursor.fetchall():
            breaker, moment = _breaker(row), row[5]
            await cursor.execute(
                _LET_GO, {"held_by": HELD_BY_BREAKER + breaker.service, "count": max(breaker.probes, 1)}
            )
            granted = [found[0] for found in await cursor.fetchall()]
            # An open one without anything to try stays as it is until there is.
            if granted or breaker.state is BreakerState.HALF_OPEN:
                self.probes += granted
                await _write(cursor, after_grant(breaker, moment), now)
        await cursor.execute(_SHUT)
        self.shut = [row[0] for row in await cursor.fetchall()]
        await cursor.execute(_BEHIND_CLOSED, {"shut": self.shut})
        for (held_by,) in await cursor.fetchall():
            await cursor.execute(_LET_GO, {"held_by": held_by, "count": PIECE})

    async def hold(self, cursor: AsyncCursor[TupleRow], queue: Queue, until: datetime) -> None:
        """Holds what is due for services that are shut; probes were let through before and stay out of it."""
        if self.shut:
            await cursor.execute(
                _HOLD, {"queue": queue.value, "until": until, "services": self.shut, "probes": self.probes}
            )
