"""Breakers: fed by the workers' recorded batches, heeded by release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.breaker import Breaker, BreakerState, after_answers, after_grant
from scheduling.domain.pause import Pause, Scope
from scheduling.storage.database import NOW, Database

#: What a hold by a breaker is called; the service follows.
HELD_BY_BREAKER = "BREAKER:"
#: How many of the oldest that wait are looked at for probes in one round.
OLDEST = 1000

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

# By executions_queued: what was released before the breaker opened goes back behind it.
_GIVE_BACK = f"""
UPDATE executions e SET state = 'PENDING', held_by = '{HELD_BY_BREAKER}' || b.service
FROM breakers b
WHERE b.state = 'OPEN' AND e.state = 'QUEUED' AND split_part(e.target, '/', 1) = b.service
  AND e.queue_time <= b.change_time
"""
_OLDEST = """
SELECT uid FROM executions WHERE state = 'PENDING' AND held_by = %(held_by)s ORDER BY ready_time LIMIT %(oldest)s
"""
# By executions_held: when all of the oldest are paused they wait for that instead, and the others can be tried.
_SET_ASIDE = f"""
WITH oldest AS MATERIALIZED ({_OLDEST} FOR UPDATE SKIP LOCKED)
UPDATE executions e SET held_by = p.key
FROM oldest CROSS JOIN unnest(%(scopes)s::text[], %(names)s::text[], %(keys)s::text[]) AS p (scope, name, key)
WHERE e.uid = oldest.uid AND CASE p.scope WHEN 'QUEUE' THEN e.queue = p.name ELSE e.target = p.name END
  AND (SELECT count(*) FROM oldest) = %(oldest)s
"""
# By executions_held: the probes, from the oldest that nothing else stops.
_LET_GO = f"""
UPDATE executions SET held_by = NULL
WHERE uid IN (
    SELECT e.uid FROM executions e JOIN ({_OLDEST}) AS oldest ON oldest.uid = e.uid
    WHERE e.queue <> ALL(%(queues)s::text[]) AND e.target <> ALL(%(targets)s::text[])
    ORDER BY e.ready_time LIMIT %(count)s FOR UPDATE OF e SKIP LOCKED
)
RETURNING uid
"""
_RELEASED = "SELECT uid FROM executions WHERE uid = ANY(%(uids)s::uuid[]) AND state = 'QUEUED'"


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

        Locks the breakers' rows in order. A breaker that opens takes its released executions back at once; what a
        release under way adds meanwhile, the next round of release takes back.
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
        if any(breaker.state is BreakerState.OPEN for breaker in changed):
            # On its own, after it is known to be open: however many there are, they do not keep it from opening.
            async with self._database.hot() as connection:
                await connection.execute(_GIVE_BACK)
        return changed

    async def unclean(self) -> frozenset[str]:
        """The services whose breakers want to hear of successes too."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_UNCLEAN)
            return frozenset(row[0] for row in await cursor.fetchall())


class Breaking:
    """The breakers as one round of release sees them. `shut` are the services that nothing but `probes` may go to."""

    def __init__(self) -> None:
        self.shut: list[str] = []
        self.probes: list[UUID] = []
        self._tried: list[tuple[Breaker, list[UUID]]] = []

    async def read(self, cursor: AsyncCursor[TupleRow], now: datetime | None, pauses: Sequence[Pause]) -> None:
        """Reads the breakers, grants the probes that are due and not paused, and takes back what was released before
        one opened.
        """
        paused = {pause.name for pause in pauses if pause.scope is Scope.TARGET}
        stopped = {
            "queues": [pause.name for pause in pauses if pause.scope is Scope.QUEUE],
            "targets": list(paused),
        }
        of_part = [pause for pause in pauses if pause.scope is not Scope.SERVICE]
        aside = {
            "scopes": [pause.scope.value for pause in of_part],
            "names": [pause.name for pause in of_part],
            "keys": [pause.scope.held_by(pause.name) for pause in of_part],
        }
        is_all_paused = any(pause.scope is Scope.SERVICE for pause in pauses)
        await cursor.execute(_TO_GRANT, {"now": now})
        for row in await cursor.fetchall():
            breaker, moment = _breaker(row), row[5]
            if is_all_paused or breaker.service in paused:
                continue
            waiting = {"held_by": HELD_BY_BREAKER + breaker.service, "oldest": OLDEST}
            wanted = {**waiting, "count": max(breaker.probes, 1)}
            await cursor.execute(_LET_GO, {**stopped, **wanted})
            granted = [found[0] for found in await cursor.fetchall()]
            if not granted and aside["keys"]:
                await cursor.execute(_SET_ASIDE, {**waiting, **aside})
            # An open one without anything to try stays as it is until there is.
            if granted or breaker.state is BreakerState.HALF_OPEN:
                self.probes += granted
                self._tried.append((breaker, granted))
                await _write(cursor, after_grant(breaker, moment), now)
        await cursor.execute(_SHUT)
        self.shut = [row[0] for row in await cursor.fetchall()]
        if self.shut:
            await cursor.execute(_GIVE_BACK)

    async def settle(self, cursor: AsyncCursor[TupleRow], now: datetime | None) -> None:
        """At the end of the round: an open breaker whose probe found no slot, or was skipped, is not waiting for an
        answer; the next in turn is its probe.
        """
        if not self.probes:
            return
        await cursor.execute(_RELEASED, {"uids": self.probes})
        released = {row[0] for row in await cursor.fetchall()}
        for breaker, granted in self._tried:
            if breaker.state is BreakerState.OPEN and released.isdisjoint(granted):
                await _write(cursor, breaker, now)
