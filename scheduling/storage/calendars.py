"""Shared calendars, and the plans that follow when one changes or when the zone database does."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg.rows import DictRow, dict_row

from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.errors import AlreadyExists, WrongState
from scheduling.domain.ids import uuid7
from scheduling.domain.recurrence import jittered, next_fire, zone_version
from scheduling.domain.timing import NamedCalendar, Timing
from scheduling.operations.ports import CalendarChange
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.database import NOW, Database
from scheduling.storage.leading import TERM_HOLDS
from scheduling.storage.lists import Position
from scheduling.storage.planning import TAKEN_AHEAD, calendars_of, plans_ahead
from scheduling.storage.tables import calendars, schedules
from scheduling.storage.timings import exclusions_to_json, plain_exclusions

# By schedules_zone_version, in which there is none of the millions of one-offs, and of the others none that is marked.
# What is paused is planned anew when it is resumed.
_MARK_ZONES = f"""
WITH other AS MATERIALIZED (
    SELECT uid FROM schedules
    WHERE (zone_version < %(version)s OR zone_version > %(version)s) AND evaluated_until < 'infinity' AND NOT paused
      AND NOT stale AND {TERM_HOLDS}
    LIMIT %(limit)s
),
free AS MATERIALIZED (
    SELECT s.uid FROM schedules s JOIN other USING (uid) WHERE NOT s.stale FOR UPDATE OF s SKIP LOCKED
),
marked AS (UPDATE schedules SET stale = true WHERE uid IN (SELECT uid FROM free) RETURNING 1)
SELECT (SELECT count(*) FROM marked), (SELECT count(*) FROM other)
"""
# An infinite time cannot be read: nothing more to evaluate reads as NULL.
_STALE = f"""
SELECT s.uid, s.schedule_id, s.kind, s.spec::text, s.time_zone, s.start_time, s.end_time, s.max_firings, s.jitter,
       s.dst_policy, s.catchup_policy, s.catchup_window, s.exclusions::text, s.calendar_ids, s.paused, s.fired_count,
       nullif(s.evaluated_until, 'infinity') AS until, j.job_id, j.cancel_time IS NOT NULL AS cancelled, {NOW} AS moment
FROM schedules s JOIN jobs j ON j.uid = s.job_uid WHERE s.stale AND {TERM_HOLDS}
ORDER BY s.uid LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
"""
_TIMING_COLUMNS = (
    "kind",
    "spec",
    "time_zone",
    "start_time",
    "end_time",
    "max_firings",
    "jitter",
    "dst_policy",
    "catchup_policy",
    "catchup_window",
    "exclusions",
)
# `plan_record` in SQL: so many plans at once are not sent column by column.
_PLAN = f"""
INSERT INTO executions (uid, job_uid, schedule_uid, schedule_id, origin, target, queue, owner, state, nominal_time,
                        due_time, ready_time, expire_time, request, request_type, retention_days, recurring, overlap,
                        principal, create_time)
SELECT i.uid, j.uid, s.uid, s.schedule_id, 'SCHEDULED', j.target, j.queue, j.owner, 'PENDING', i.nominal,
       i.due, i.due, i.due + j.max_age, s.request, s.request_type, j.retention_days, true,
       nullif(coalesce(j.overlap_policy, 'SKIP'), 'ALLOW_ALL'), j.principal, {NOW}
FROM unnest(%(uids)b::uuid[], %(schedule_uids)b::uuid[], %(nominals)b::timestamptz[], %(dues)b::timestamptz[])
     AS i (uid, schedule_uid, nominal, due)
JOIN schedules s ON s.uid = i.schedule_uid JOIN jobs j ON j.uid = s.job_uid
"""
_DROP = f"""
DELETE FROM executions
WHERE schedule_uid = ANY(%(uids)s::uuid[]) AND origin = 'SCHEDULED' AND state IN ('PENDING', 'QUEUED') AND attempt = 0
  AND nominal_time > {NOW}
RETURNING schedule_uid, recurring AND queue_time IS NOT NULL AS released
"""
_TAKEN = TAKEN_AHEAD.format(uids="%(uids)s::uuid[]", now=NOW)
_MOVED = f"""
UPDATE schedules s
SET stale = false, zone_version = %(version)s, timing_time = {NOW},
    evaluated_until = CASE WHEN i.moved THEN coalesce(i.until, 'infinity') ELSE s.evaluated_until END,
    fired_count = s.fired_count - i.revoked,
    moved_time = CASE WHEN i.moved THEN {NOW} ELSE s.moved_time END,
    moved_from = CASE WHEN i.moved THEN i.before ELSE s.moved_from END
FROM unnest(%(uid)b::uuid[], %(moved)b::bool[], %(until)b::timestamptz[], %(before)b::timestamptz[],
            %(revoked)b::int8[]) AS i (uid, moved, until, before, revoked)
WHERE s.uid = i.uid
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one round did: schedules looked at, the ids (job, schedule) of those whose plan moved, and whether more
    wait.
    """

    looked_at: int
    moved: tuple[str, ...]
    more: bool


class CalendarStore:
    """The calendar part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_calendar(self, calendar: SharedCalendar) -> SharedCalendar:
        """Stores a calendar. Raises AlreadyExists."""
        values = {
            "calendar_id": calendar.calendar_id,
            "uid": calendar.uid,
            "display_name": calendar.display_name,
            "exclusions": exclusions_to_json(calendar.exclusions),
            "time_zone": calendar.time_zone,
        }
        async with self._database.begin() as connection:
            try:
                await connection.execute(calendars.insert().values(**values))
            except sa.exc.IntegrityError as error:
                raise AlreadyExists(
                    f"calendar {calendar.calendar_id!r} exists already",
                    resource_type="Calendar",
                    name=calendar.name,
                ) from error
            await note_change(connection, self._database.moment(), calendar.name, after=calendar)
        found = await self.get_calendar(calendar.calendar_id)
        assert found is not None
        return found

    async def get_calendar(self, calendar_id: str) -> SharedCalendar | None:
        """The calendar of that id."""
        async with self._database.begin() as connection:
            select = _select().where(calendars.c.calendar_id == calendar_id)
            row = (await connection.execute(select)).mappings().first()
        return None if row is None else _calendar(row)

    async def get_calendars(self, ids: Sequence[str]) -> dict[str, SharedCalendar]:
        """Those of the calendars that exist, by id."""
        async with self._database.begin() as connection:
            found = await connection.execute(_select().where(calendars.c.calendar_id.in_(ids)))
            return {row["calendar_id"]: _calendar(row) for row in found.mappings()}

    async def list_calendars(self, after: str, size: int) -> tuple[Sequence[SharedCalendar], Position | None]:
        """One page, by id."""
        select = _select().where(calendars.c.calendar_id > after).order_by(calendars.c.calendar_id).limit(size + 1)
        async with self._database.begin() as connection:
            found = (await connection.execute(select)).mappings().all()
        page = [_calendar(row) for row in found[:size]]
        return page, (page[-1].calendar_id,) if len(found) > size else None

    async def update_calendar(self, calendar: SharedCalendar, change: CalendarChange) -> SharedCalendar | None:
        """Changes the calendar if its revision is still that of `calendar`, and marks the schedules that use it."""
        values: dict[str, Any] = {}
        if change.display_name is not None:
            values["display_name"] = change.display_name
        if change.exclusions is not None:
            values["exclusions"] = exclusions_to_json(change.exclusions)
        if change.time_zone is not None:
            values["time_zone"] = change.time_zone or None
        async with self._database.maintain() as connection:
            updated = await connection.execute(
                calendars.update()
                .where(calendars.c.uid == calendar.uid, calendars.c.revision == calendar.revision)
                .values(**values, revision=calendars.c.revision + 1, update_time=sa.func.now())
            )
            if not updated.rowcount:
                return None
            if change.exclusions is not None or change.time_zone is not None:
                await connection.execute(_mark(calendar.calendar_id))
            row = (await connection.execute(_select().where(calendars.c.uid == calendar.uid))).mappings().one()
            await note_change(connection, self._database.moment(), calendar.name, calendar, _calendar(row))
        return await self.get_calendar(calendar.calendar_id)

    async def delete_calendar(self, calendar: SharedCalendar, *, force: bool) -> bool:
        """Deletes the calendar at that revision; False if it was changed in between. Raises WrongState while it is
        used.
        """
        uses = schedules.c.calendar_ids.contains([calendar.calendar_id])
        async with self._database.maintain() as connection:
            locked = await connection.execute(
                sa.select(calendars.c.uid)
                .where(calendars.c.uid == calendar.uid, calendars.c.revision == calendar.revision)
                .with_for_update()
            )
            if locked.first() is None:
                return False
            count = await connection.scalar(sa.select(sa.func.count()).select_from(schedules).where(uses))
            if count and not force:
                raise WrongState(
                    f"{calendar.name} is used by {count} schedules; take it out of them or set force",
                    subject=calendar.name,
                    reason="CALENDAR_USED",
                )
            if count:
                without = sa.text(
                    "(SELECT coalesce(jsonb_agg(e), '[]') FROM jsonb_array_elements(exclusions) AS e "
                    "WHERE e ->> 'calendar' IS DISTINCT FROM :calendar)"
                ).bindparams(calendar=calendar.calendar_id)
                await connection.execute(
                    schedules.update()
                    .where(uses)
                    .values(
                        exclusions=without,
                        calendar_ids=sa.func.array_remove(schedules.c.calendar_ids, calendar.calendar_id),
                        stale=True,
                        revision=schedules.c.revision + 1,
                    )
                )
            await connection.execute(calendars.delete().where(calendars.c.uid == calendar.uid))
            await note_change(connection, self._database.moment(), calendar.name, before=calendar)
        return True

    async def mark_other_zone_versions(self, term: int, limit: int = 10_000) -> tuple[int, int]:
        """Marks up to `limit` schedules whose plan was made with another version of the zone database: how many, and
        how many were found. The difference is locked by somebody; with none found, none is left.

        By schedules_zone_version; skips what others have locked.
        """
        parameters = {"now": self._database.now(), "version": zone_version(), "term": term, "limit": limit}
        async with self._database.hot() as connection:
            row = await (await connection.execute(_MARK_ZONES, parameters)).fetchone()
        assert row is not None
        return row[0], row[1]

    async def move_stale_plans(self, term: int, limit: int = 1000) -> Moved:
        """Looks at up to `limit` marked schedules again and moves the plans that are no longer right.

        By schedules_stale; locks the schedules and skips those that somebody changes right now, so that several may run
        side by side. One transaction.
        """
        now = self._database.now()
        async with self._database.hot() as connection, connection.transaction():
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            await cursor.execute("SET LOCAL statement_timeout = '30s'")
            await cursor.execute(_STALE, {"now": now, "term": term, "limit": limit})
            stale = await cursor.fetchall()
            if not stale:
                return Moved(0, (), more=False)
            timings = _Timings(await calendars_of(cursor, stale))
            moved = []
            for row in stale:
                timing, following = timings.read(row)
                if _may_move(row, timing) and following != row["until"]:
                    moved.append((row, timing, following))
            uids = [row["uid"] for row, *_ in moved]
            revoked = Counter[UUID]()
            taken: dict[UUID, set[datetime]] = defaultdict(set)
            if moved:
                await cursor.execute(_DROP, {"now": now, "uids": uids})
                for gone in await cursor.fetchall():
                    revoked[gone["schedule_uid"]] += gone["released"]
                await cursor.execute(_TAKEN, {"now": now, "uids": uids})
                for row in await cursor.fetchall():
                    taken[row["schedule_uid"]].add(row["nominal_time"])
            reached: dict[UUID, datetime | None] = {}
            plans: list[tuple[UUID, UUID, datetime, datetime]] = []
            for row, timing, following in moved:
                uid, moment = row["uid"], row["moment"]
                nominals = [] if following is None else [following]
                reached[uid] = following
                if taken[uid]:
                    nominals, reached[uid] = plans_ahead(timing, moment, taken[uid])
                plans += [(uuid7(moment), uid, nominal, jittered(timing, uid, nominal)) for nominal in nominals]
            if plans:
                columns = zip(
                    ("uids", "schedule_uids", "nominals", "dues"), map(list, zip(*plans, strict=True)), strict=True
                )
                await cursor.execute(_PLAN, {"now": now, **dict(columns)})
            await cursor.execute(
                _MOVED,
                {
                    "now": now,
                    "version": zone_version(),
                    "uid": [row["uid"] for row in stale],
                    "moved": [row["uid"] in reached for row in stale],
                    "until": [reached.get(row["uid"]) for row in stale],
                    "before": [row["until"] for row in stale],
                    "revoked": [revoked[row["uid"]] for row in stale],
                },
            )
        names = tuple(f"jobs/{row['job_id']}/schedules/{row['schedule_id']}" for row, *_ in moved)
        return Moved(len(stale), names, more=len(stale) == limit)


class _Timings:
    """Timings of one round with their next firing. Thousands of schedules say the same, so each is worked out once."""

    def __init__(self, named: dict[str, NamedCalendar]) -> None:
        self._named = named
        self._known: dict[tuple[Any, ...], tuple[Timing, datetime | None]] = {}

    def read(self, row: DictRow) -> tuple[Timing, datetime | None]:
        """The timing of a row, and its first firing after the moment of the round."""
        key = tuple(row[name] for name in _TIMING_COLUMNS)
        known = self._known.get(key)
        if known is None:
            parsed = {**row, "spec": json.loads(row["spec"]), "exclusions": json.loads(row["exclusions"])}
            timing = rows.timing(parsed, self._named)
            known = self._known[key] = (timing, next_fire(timing, row["moment"]))
        return known


def _may_move(row: DictRow, timing: Timing) -> bool:
    """Whether the schedule has a plan that follows its calendars."""
    if not timing.is_recurring or row["paused"] or row["cancelled"]:
        return False
    if timing.max_firings is not None and row["fired_count"] >= timing.max_firings:
        return False
    # When its plan has come due, what follows is planned by advancing, which reads the calendars as they are now.
    return row["until"] is None or bool(row["until"] > row["moment"])


def _mark(calendar_id: str) -> sa.Update:
    return schedules.update().where(schedules.c.calendar_ids.contains([calendar_id])).values(stale=True)


def _select() -> sa.Select[Any]:
    used = sa.text("(SELECT count(*) FROM schedules s WHERE s.calendar_ids @> ARRAY[calendars.calendar_id]) AS used")
    return sa.select(*calendars.c, used)


def _calendar(row: Any) -> SharedCalendar:
    return SharedCalendar(
        uid=row["uid"],
        calendar_id=row["calendar_id"],
        display_name=row["display_name"],
        exclusions=plain_exclusions(row["exclusions"]),
        time_zone=row["time_zone"],
        revision=row["revision"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        schedule_count=row["used"],
    )
