"""Advance: a schedule whose plan comes near gets its next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, TupleRow, dict_row

from scheduling.domain.advance import MISSED_AFTER, Advance, advance
from scheduling.domain.execution import Reason
from scheduling.domain.recurrence import jittered, zone_version
from scheduling.domain.timing import NamedCalendar, Timing
from scheduling.storage import rows
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.planning import calendars_of
from scheduling.storage.plans import INSERT_PLANS, JOBS_OF, PLAN_COLUMNS, Owner, owner_of, plan_record
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Firings after which a round takes no further schedule: what they write stays far below the statement timeout.
ROUND_FIRINGS = 2000
#: Seconds of computing after which a round takes no further schedule, for those whose firings are far to seek.
ROUND_SECONDS = 0.5
#: How long a schedule that cannot be advanced is left alone, and how many such are known at a time.
REST = timedelta(minutes=1)
MAX_RESTING = 10_000

_MICROSECOND = timedelta(microseconds=1)
_LONG_AGO = timedelta(days=36_500)

# Columns by name: a statement with `*` is refused on every connection that has prepared it once a migration adds a
# column.
_COLUMNS = ", ".join(
    f"s.{name}"
    for name in (
        *("uid", "job_uid", "schedule_id", "kind", "spec", "time_zone", "start_time", "end_time", "max_firings"),
        *("jitter", "dst_policy", "catchup_policy", "catchup_window", "request", "request_type", "exclusions"),
        *("calendar_ids", "revision", "evaluated_until"),
    )
)
_DUE = f"""
SELECT {_COLUMNS}, {NOW} AS moment FROM schedules s
WHERE s.evaluated_until < 'infinity' AND NOT s.paused
  AND s.evaluated_until > {NOW} + %(after)s::interval AND s.evaluated_until <= {NOW} + %(until)s::interval
  AND s.uid NOT IN (
      SELECT r.uid FROM unnest(%(resting)s::uuid[], %(rested)s::timestamptz[]) AS r (uid, until) WHERE r.until > {NOW}
  )
  AND {TERM_HOLDS}
ORDER BY s.evaluated_until LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
"""
# The plan that a schedule which was not advanced in time still has: nobody looked at it either, so it is as missed as
# those after it. By executions_firing.
_MISSED_PLANS = f"""
SELECT e.uid, e.schedule_uid FROM executions e
JOIN unnest(%(uids)s::uuid[], %(nominals)s::timestamptz[]) AS i (uid, nominal)
  ON e.schedule_uid = i.uid AND e.nominal_time = i.nominal
WHERE e.origin = 'SCHEDULED' AND e.state = 'PENDING'
  AND e.attempt = 0 AND e.held_by IS NULL AND e.queue_time IS NULL AND e.ready_time < {NOW} - %(missed_after)s::interval
FOR UPDATE OF e
"""
_UNPLAN = "DELETE FROM executions WHERE uid = ANY(%(uids)s::uuid[])"

_MOVE = """
UPDATE schedules s
SET evaluated_until = i.until, missed_count = s.missed_count + i.missed, zone_version = %(zone_version)s
FROM unnest(%(uid)s::uuid[], %(before)s::timestamptz[], %(revision)s::int8[], %(until)s::timestamptz[],
            %(missed)s::int8[]) AS i (uid, before, revision, until, missed)
WHERE s.uid = i.uid AND s.evaluated_until = i.before AND s.revision = i.revision
RETURNING s.uid
"""

_GAPS = """
INSERT INTO schedule_gaps (schedule_uid, from_time, to_time, firings, reason)
SELECT * FROM unnest(%(uid)s::uuid[], %(from)s::timestamptz[], %(to)s::timestamptz[], %(count)s::int8[],
                     %(reason)s::text[])
"""


#: What says that a schedule's own rows are wrong rather than the store.
_REFUSED = (psycopg.IntegrityError, psycopg.DataError)


@dataclass(frozen=True, slots=True)
class _Due:
    """A schedule to advance. `unplan` is the plan that was missed and goes, if there is one."""

    row: DictRow
    owner: Owner
    timing: Timing
    unplan: UUID | None

    @property
    def since(self) -> datetime:
        """What the schedule is accounted for up to: just before the plan that goes, if one does."""
        until: datetime = self.row["evaluated_until"]
        return until if self.unplan is None else until - _MICROSECOND


@dataclass(frozen=True, slots=True)
class _Step:
    """A schedule, what comes next of it, and its plans as rows."""

    due: _Due
    step: Advance
    plans: Sequence[dict[str, Any]]

    @property
    def missed(self) -> int:
        return sum(gap.firings for gap in self.step.gaps)

    @property
    def firings(self) -> int:
        return len(self.plans) + self.missed


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one round did. `more` says that there is probably more to do at once."""

    schedules: int
    plans: int
    missed: int
    more: bool


class AdvancingStore:
    """What the scheduler does to recurring schedules."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._resting: dict[UUID, datetime] = {}

    async def advance(self, term: int, ahead: timedelta, limit: int = 500) -> Advanced:
        """Plans the next firings of up to `limit` schedules whose last plan is due within `ahead`, and of no more than
        make about ROUND_FIRINGS.

        Those that are on time come first, so that working off an outage makes nobody else late. A schedule that cannot
        be advanced is logged and left alone for a while; it holds up no other. By schedules_to_advance; locks the
        schedules' rows and skips those that somebody changes right now. One transaction: the plans are inserted and
        `evaluated_until` moves together, or neither.
        """
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor(row_factory=dict_row)
            found = await self._find(cursor, term, ahead, limit)
            if not found:
                return Advanced(0, 0, 0, more=False)
            due = await self._read(cursor, found)
            steps = await self._compute(due, ahead)
            done = await self._write_all(connection, cursor, steps)
        return Advanced(
            schedules=len(done),
            plans=sum(len(each.plans) for each in done),
            missed=sum(each.missed for each in done),
            more=len(found) == limit
            or sum(each.firings for each in steps) >= ROUND_FIRINGS
            or len(steps) < len(due)
            or any(each.step.more for each in done),
        )

    async def _find(self, cursor: AsyncCursor[DictRow], term: int, ahead: timedelta, limit: int) -> list[DictRow]:
        """Locks what is to be advanced: first what is on time, then what is behind."""
        common = {
            "now": self._database.now(),
            "term": term,
            "resting": list(self._resting),
            "rested": list(self._resting.values()),
        }
        await cursor.execute(_DUE, {**common, "after": -MISSED_AFTER, "until": ahead, "limit": limit})
        found = await cursor.fetchall()
        if len(found) < limit:
            behind = {"after": -_LONG_AGO, "until": -MISSED_AFTER, "limit": limit - len(found)}
            await cursor.execute(_DUE, {**common, **behind})
            found += await cursor.fetchall()
        return found

    async def _read(self, cursor: AsyncCursor[DictRow], found: Sequence[DictRow]) -> list[_Due]:
        """The schedules with what else is needed to advance them, without those that cannot be read."""
        await cursor.execute(JOBS_OF, {"uids": [row["job_uid"] for row in found]})
        jobs = {row["uid"]: row for row in await cursor.fetchall()}
        found = [{**row, "job_id": jobs[row["job_uid"]]["job_id"]} for row in found if row["job_uid"] in jobs]
        unplan = await self._find_missed_plans(cursor, found)
        named = await _calendars_of_all(cursor, found)
        due = []
        for row in found:
            try:
                calendars = await calendars_of(cursor, [row]) if named is None else named
                timing = rows.timing(row, calendars)
            except psycopg.Error:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one schedule holds up no other
                self._rest(row, error)
            else:
                due.append(_Due(row, owner_of(jobs[row["job_uid"]]), timing, unplan.get(row["uid"])))
        return due

    async def _find_missed_plans(self, cursor: AsyncCursor[DictRow], found: Sequence[DictRow]) -> dict[UUID, UUID]:
        """Locks the plans that were missed; their uids by that of their schedule."""
        behind = [row for row in found if row["evaluated_until"] < row["moment"] - MISSED_AFTER]
        if not behind:
            return {}
        await cursor.execute(
            _MISSED_PLANS,
            {
                "now": self._database.now(),
                "missed_after": MISSED_AFTER,
                "uids": [row["uid"] for row in behind],
                "nominals": [row["evaluated_until"] for row in behind],
            },
        )
        return {row["schedule_uid"]: row["uid"] for row in await cursor.fetchall()}

    async def _compute(self, due: Sequence[_Due], ahead: timedelta) -> list[_Step]:
        """The next step of as many of them as one round takes, without those that have none that can be told."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + ROUND_SECONDS
        steps: list[_Step] = []
        firings = 0
        for each in due:
            try:
                step = advance(each.timing, each.since, each.row["moment"], ahead)
                steps.append(_Step(each, step, _plans(each, step)))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one schedule holds up no other
                self._rest(each.row, error)
                continue
            firings += steps[-1].firings
            if firings >= ROUND_FIRINGS or loop.time() > ends:
                break
            await asyncio.sleep(0)  # noqa: TID251 - lets calls and heartbeats go on; waits for no time
        return steps

    async def _write_all(
        self, connection: AsyncConnection[TupleRow], cursor: AsyncCursor[DictRow], steps: Sequence[_Step]
    ) -> Sequence[_Step]:
        """Writes the steps, one by one if they are refused together; returns those that are written."""
        try:
            async with connection.transaction():
                return await self._write(cursor, steps)
        except _REFUSED as error:
            if len(steps) == 1:
                self._rest(steps[0].due.row, error)
                return ()
        return [done for each in steps for done in await self._write_all(connection, cursor, [each])]

    async def _write(self, cursor: AsyncCursor[DictRow], steps: Sequence[_Step]) -> Sequence[_Step]:
        await cursor.execute(
            _MOVE,
            {
                "uid": [each.due.row["uid"] for each in steps],
                "before": [each.due.row["evaluated_until"] for each in steps],
                "revision": [each.due.row["revision"] for each in steps],
                "until": ["infinity" if s.step.until is None else s.step.until.isoformat() for s in steps],
                "missed": [each.missed for each in steps],
                "zone_version": zone_version(),
            },
        )
        moved = {row["uid"] for row in await cursor.fetchall()}
        done = [each for each in steps if each.due.row["uid"] in moved]
        unplanned = [each.due.unplan for each in done if each.due.unplan is not None]
        if unplanned:
            await cursor.execute(_UNPLAN, {"uids": unplanned})
        plans = [plan for each in done for plan in each.plans]
        if plans:
            columns = {name: [plan[name] for plan in plans] for name in PLAN_COLUMNS}
            await cursor.execute(INSERT_PLANS, {"now": self._database.now(), **columns})
        gaps = [(each.due.row["uid"], gap) for each in done for gap in each.step.gaps]
        if gaps:
            await cursor.execute(
                _GAPS,
                {
                    "uid": [uid for uid, _ in gaps],
                    "from": [gap.start for _, gap in gaps],
                    "to": [gap.end for _, gap in gaps],
                    "count": [gap.firings for _, gap in gaps],
                    "reason": [Reason.MISSED.value] * len(gaps),
                },
            )
        return done

    def _rest(self, row: DictRow, error: Exception) -> None:
        """Leaves the schedule alone for a while, so that it is not the first to be tried again and again."""
        while len(self._resting) >= MAX_RESTING:
            del self._resting[next(iter(self._resting))]
        self._resting.pop(row["uid"], None)
        self._resting[row["uid"]] = row["moment"] + REST
        log_event(
            _log,
            logging.ERROR,
            "schedule_not_advanced",
            schedule=f"jobs/{row['job_id']}/schedules/{row['schedule_id']}",
            problem=type(error).__name__,
        )


async def _calendars_of_all(
    cursor: AsyncCursor[DictRow], found: Sequence[DictRow]
) -> Mapping[str, NamedCalendar] | None:
    """The calendars that any of them names; None if one of these cannot be read."""
    try:
        return await calendars_of(cursor, found)
    except psycopg.Error:
        raise
    except Exception:  # noqa: BLE001 - told of the schedules that use it
        return None


def _plans(due: _Due, step: Advance) -> Sequence[dict[str, Any]]:
    schedule, timing, moment = due.row, due.timing, due.row["moment"]
    return [
        # A firing that is made up for is due now: its age counts from here, and it was not late by the outage.
        plan_record(
            due.owner,
            schedule,
            timing,
            nominal,
            moment,
            ready=max(jittered(timing, schedule["uid"], nominal), moment) if nominal in step.caught_up else None,
        )
        for nominal in step.plans
    ]
