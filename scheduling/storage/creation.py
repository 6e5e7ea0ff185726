"""Creation: jobs with their schedules and first plans, in one round trip for many callers at once.

Calls that wait at the same time share one statement and so one commit; a large batch is copied, in one transaction of
a few round trips, since COPY takes a row at two thirds of what INSERT takes. When one of them collides with what is
stored already, nothing is changed; the culprits are answered from what is stored, and the rest goes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from scheduling.domain.errors import AlreadyExists, QuotaExceeded, StoreUnavailable
from scheduling.domain.job import Creation, Job, NewJob
from scheduling.domain.recurrence import zone_version
from scheduling.domain.schedule import NewSchedule
from scheduling.operations.drafts import Repeat
from scheduling.operations.repeats import answer_deleted
from scheduling.storage import binary
from scheduling.storage.database import NOW, Database
from scheduling.storage.jobs import JobStore, other_body
from scheduling.storage.notify import CHANNEL, NEAR
from scheduling.storage.plans import PLAN_COLUMNS, first_plans
from scheduling.storage.timings import calendar_ids, exclusions_to_json, when_to_json

#: From so many jobs on, copying them is cheaper than one statement: its round trips weigh less than its rows.
COPY_FROM = 100
#: SQLSTATE that the statement raises when an owner is over its daily quota.
OVER_QUOTA = "WQ001"

_JOB = {
    "uid": "uuid",
    "job_id": "text",
    "display_name": "text",
    "target": "text",
    "request": "bytea",
    "request_type": "text",
    "queue": "text",
    "max_attempts": "int2",
    "initial_backoff": "interval",
    "backoff_multiplier": "float8",
    "max_backoff": "interval",
    "max_age": "interval",
    "after_lost_worker": "text",
    "timeout": "interval",
    "overlap_policy": "text",
    "owner": "text",
    "principal": "text",
    "labels": "jsonb",
    "retention_days": "int2",
    "used_time": "timestamptz",
}
_SCHEDULE = {
    "uid": "uuid",
    "job_uid": "uuid",
    "schedule_id": "text",
    "display_name": "text",
    "kind": "text",
    "spec": "jsonb",
    "time_zone": "text",
    "start_time": "timestamptz",
    "end_time": "timestamptz",
    "max_firings": "int4",
    "jitter": "interval",
    "dst_policy": "text",
    "catchup_policy": "text",
    "catchup_window": "interval",
    "request": "bytea",
    "request_type": "text",
    "evaluated_until": "timestamptz",
    "zone_version": "text",
    "exclusions": "jsonb",
    "calendar_ids": "words",
    # A calendar may have changed since it was read: the leader looks once more.
    "stale": "bool",
    "timing_time": "timestamptz",
}
#: The columns that are seldom the same from one creation to the next.
_VARIED = frozenset(
    {
        *("uid", "job_uid", "schedule_uid", "job_id", "schedule_id", "display_name", "owner", "labels"),
        *("request", "spec", "start_time", "end_time", "exclusions", "timing_time"),
        *("nominal_time", "due_time", "ready_time", "expire_time"),
    }
)
#: What the insertion adds to each table's columns.
_TIMES = ("create_time", "update_time")


def _insert(table: str, prefix: str, columns: dict[str, str], order: str, times: Sequence[str]) -> str:
    # An array of arrays would have to be rectangular: words travel as text.
    arrays = ", ".join(
        f"%({prefix}_{name})s::{'text' if kind == 'words' else kind}[]" for name, kind in columns.items()
    )
    values = {c: f"string_to_array(i.{c}, ' ')" if kind == "words" else f"i.{c}" for c, kind in columns.items()}
    values |= dict.fromkeys(times, NOW)
    return (
        f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())} "
        f"FROM unnest({arrays}) AS i ({', '.join(columns)}) ORDER BY i.{order}"
    )


#: Each table that a creation fills: its prefix among the parameters, its columns, what it is ordered by, and its times.
_TABLES: tuple[tuple[str, str, dict[str, str], str, tuple[str, ...]], ...] = (
    ("jobs", "j", _JOB, 'job_id COLLATE "C"', _TIMES),
    ("schedules", "s", _SCHEDULE, "uid", _TIMES),
    ("executions", "e", PLAN_COLUMNS, "uid", _TIMES[:1]),
)
_REQUESTS = """
    requests AS (
        INSERT INTO request_ids (principal, request_id, digest, answer)
        SELECT i.principal, i.request_id, i.digest, string_to_array(i.answer, ' ')::uuid[]
        FROM unnest(%(r_principal)s::text[], %(r_request_id)s::text[], %(r_digest)s::bytea[], %(r_answer)s::text[])
             AS i (principal, request_id, digest, answer)
        ORDER BY i.principal, i.request_id
        RETURNING 1
    )"""
_OWNERS = "unnest(%(q_owner)s::text[], %(q_jobs)s::int4[]) AS i (owner, jobs)"
_DAY = f"({NOW} AT TIME ZONE 'UTC')::date"
_QUOTA = f"""
    quota AS (
        INSERT INTO owner_days AS d (owner, day, jobs)
        SELECT i.owner, {_DAY}, i.jobs FROM {_OWNERS} ORDER BY i.owner
        ON CONFLICT (owner, day) DO UPDATE SET jobs = d.jobs + excluded.jobs
        RETURNING owner, jobs
    ),
    over AS (SELECT whispr_over_quota(owner) FROM quota WHERE jobs > %(limit)s)"""
#: Who is over the quota for certain learns it before anything is made. Locks nothing.
_EARLY = f"""
    early AS (
        SELECT whispr_over_quota(i.owner) FROM {_OWNERS}
        WHERE i.jobs + (SELECT d.jobs FROM owner_days d WHERE d.owner = i.owner AND d.day = {_DAY}) > %(limit)s
    )"""
_NEAR = (
    f"near AS (SELECT pg_notify('{CHANNEL}', '') WHERE %(first)s <= {NOW} + interval '{NEAR.total_seconds()} seconds')"
)
_MADE = ", ".join(f"made_{table[0]} AS ({_insert(*table)})" for table in _TABLES)

# What one creation may have to wait for until another is committed is taken in the same order by all, so that nobody
# waits in a circle: the request ids, the rows of the owners, the ids of jobs that callers chose.

#: All in one statement. What its SELECT asks for comes before what is only made.
_CREATE = binary.Numbered(
    f"WITH {_REQUESTS}, {_QUOTA}, {_MADE}, {_NEAR} "
    f"SELECT {NOW}, (SELECT count(*) FROM requests), (SELECT count(*) FROM over), (SELECT count(*) FROM near)"
)
#: When the rows are copied: what goes first, and what locks the owners' rows, which most batches share.
_OPEN = binary.Numbered(f"WITH {_REQUESTS}, {_EARLY} SELECT {NOW}, (SELECT count(*) FROM early)")
_CHARGE = binary.Numbered(f"WITH {_QUOTA}, {_NEAR} SELECT (SELECT count(*) FROM over), (SELECT count(*) FROM near)")

_TAKEN_REQUESTS = """
SELECT t.principal, t.request_id, t.digest, t.answer
FROM unnest(%(principal)s::text[], %(request_id)s::text[]) AS i (principal, request_id)
JOIN request_ids t USING (principal, request_id)
"""
_TAKEN_JOBS = "SELECT job_id FROM jobs WHERE job_id = ANY(%(job_id)s::text[])"


def schedule_columns(scheduled: Sequence[tuple[UUID, NewSchedule]]) -> dict[str, list[Any]]:
    """New schedules, each after its job's uid, as the columns of their rows. A one-off has nothing left to evaluate
    once its plan is stored.
    """
    new = [schedule for _, schedule in scheduled]
    timings = [schedule.timing for schedule in new]
    kinds_and_specs = [when_to_json(timing.when) for timing in timings]
    named = [" ".join(calendar_ids(t.exclusions)) if t.exclusions else "" for t in timings]
    return {
        "uid": [schedule.uid for schedule in new],
        "job_uid": [job_uid for job_uid, _ in scheduled],
        "schedule_id": [schedule.schedule_id for schedule in new],
        "display_name": [schedule.display_name for schedule in new],
        "kind": [kind for kind, _ in kinds_and_specs],
        "spec": [spec for _, spec in kinds_and_specs],
        "time_zone": [timing.time_zone for timing in timings],
        "start_time": [timing.start for timing in timings],
        "end_time": [timing.end for timing in timings],
        "max_firings": [timing.max_firings for timing in timings],
        "jitter": [timing.jitter for timing in timings],
        "dst_policy": [timing.dst_policy._value_ for timing in timings],
        "catchup_policy": [timing.catchup_policy._value_ for timing in timings],
        "catchup_window": [timing.catchup_window for timing in timings],
        "request": [schedule.request for schedule in new],
        "request_type": [schedule.request_type for schedule in new],
        "evaluated_until": [_until(schedule) for schedule in new],
        "zone_version": [zone_version()] * len(new),
        "exclusions": [json.dumps(exclusions_to_json(t.exclusions)) if t.exclusions else "[]" for t in timings],
        "calendar_ids": named,
        "stale": [ids != "" for ids in named],
        "timing_time": [schedule.accept_time for schedule in new],
    }


def _until(schedule: NewSchedule) -> datetime | str:
    if schedule.first_fire is not None and schedule.timing.is_recurring:
        return schedule.first_fire
    return "infinity"


def _job_columns(jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    specs = [new.spec for new in jobs]
    policies = [spec.retry_policy for spec in specs]
    return {
        "uid": [new.uid for new in jobs],
        "job_id": [new.job_id for new in jobs],
        "display_name": [spec.display_name for spec in specs],
        "target": [spec.target for spec in specs],
        "request": [spec.request for spec in specs],
        "request_type": [spec.request_type for spec in specs],
        "queue": [spec.queue._value_ for spec in specs],
        "max_attempts": [policy.max_attempts for policy in policies],
        "initial_backoff": [policy.initial_backoff for policy in policies],
        "backoff_multiplier": [policy.backoff_multiplier for policy in policies],
        "max_backoff": [policy.max_backoff for policy in policies],
        "max_age": [policy.max_age for policy in policies],
        "after_lost_worker": [policy.after_lost_worker._value_ for policy in policies],
        "timeout": [spec.timeout for spec in specs],
        "overlap_policy": [None if (p := spec.overlap_policy) is None else p._value_ for spec in specs],
        "owner": [spec.owner for spec in specs],
        "principal": [new.principal for new in jobs],
        "labels": [json.dumps(dict(spec.labels)) if spec.labels else "{}" for spec in specs],
        "retention_days": [spec.retention_days for spec in specs],
        "used_time": [None] * len(jobs),
    }


def _records(jobs: Sequence[NewJob]) -> dict[str, dict[str, list[Any]]]:
    """The columns of the rows for each of _TABLES."""
    scheduled = [(new.uid, new.schedule) for new in jobs if new.schedule is not None]
    return {"jobs": _job_columns(jobs), "schedules": schedule_columns(scheduled), "executions": first_plans(jobs)}


def _arrays(records: Mapping[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """The parameters of _CREATE for these rows."""
    return {
        f"{prefix}_{name}": (binary.array if name in _VARIED else binary.steady_array)(
            "text" if kind == "words" else kind, records[table][name]
        )
        for table, prefix, columns, _, _ in _TABLES
        for name, kind in columns.items()
    }


async def _run(
    connection: psycopg.AsyncConnection[Any], statement: binary.Numbered, parameters: dict[str, Any]
) -> psycopg.AsyncRawCursor[Any]:
    cursor = psycopg.AsyncRawCursor(connection)
    return await cursor.execute(statement.text, statement.values(parameters))


async def _moment_of(cursor: psycopg.AsyncRawCursor[Any]) -> datetime:
    row = await cursor.fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


async def _copy_in(
    connection: psycopg.AsyncConnection[Any],
    now: datetime,
    records: Mapping[str, dict[str, list[Any]]],
    copies: binary.Copies,
) -> None:
    def encoded(table: str, columns: dict[str, str], times: Sequence[str]) -> tuple[str, bytes]:
        values = records[table]
        moments = dict.fromkeys(times, [now] * len(values["uid"]))
        order, rows = copies.rows(columns | dict.fromkeys(times, "timestamptz"), values | moments)
        return f"COPY {table} ({', '.join(order)}) FROM STDIN (FORMAT binary)", rows

    pending = [(table, columns, times) for table, _, columns, _, times in reversed(_TABLES) if table in records]
    statement, rows = encoded(*pending.pop())
    while rows:
        async with connection.cursor().copy(statement) as copy:
            await copy.write(rows)
            # Made while PostgreSQL takes what was written.
            statement, rows = encoded(*pending.pop()) if pending else ("", b"")


async def _copied(
    connection: psycopg.AsyncConnection[Any],
    frame: dict[str, Any],
    records: dict[str, dict[str, list[Any]]],
    *,
    chosen: bool,
) -> datetime:
    """Stores the records in a transaction of its own. `chosen` tells that others may want ids of these jobs too.

    The owners' rows are locked as late as can be, and mostly for no longer than the commit takes.
    """
    copies = binary.Copies()
    try:
        async with connection.pipeline():
            await connection.execute("BEGIN", prepare=False)
            cursor = await _run(connection, _OPEN, frame)
        now = await _moment_of(cursor)
        late = {"jobs": records.pop("jobs")} if chosen else {}
        await _copy_in(connection, now, records, copies)
        if late:
            await _run(connection, _CHARGE, frame)
            await _copy_in(connection, now, late, copies)
            await connection.execute("COMMIT", prepare=False)
        else:
            async with connection.pipeline():
                await _run(connection, _CHARGE, frame)
                await connection.execute("COMMIT", prepare=False)
    except psycopg.Error:
        if not connection.closed:
            await connection.rollback()
        raise
    return now


def _job_id(new: NewJob) -> str:
    return new.job_id


class Creator:
    """Stores creations, all of those given in one transaction; each succeeds or fails for itself."""

    def __init__(self, database: Database, jobs: JobStore, *, owner_daily_jobs: int, exempt_owner: str) -> None:
        self._database = database
        self._jobs = jobs
        self._limit = owner_daily_jobs
        self._exempt_owner = exempt_owner

    async def create(self, creations: Sequence[Creation]) -> list[Sequence[Job] | Exception]:
        """The jobs of each creation, or what is wrong with it. Raises StoreUnavailable when none could be tried."""
        results: dict[int, Sequence[Job] | Exception] = {}
        pending = _without_twins(creations)
        later = [n for n in range(len(creations)) if n not in set(pending)]
        alone = False
        while pending or later:
            try:
                if pending:
                    settled, alone = await self._try(creations, pending[:1] if alone else pending, alone=alone)
                else:
                    # Most are repeats of what has just been stored, and are answered together.
                    pending, later, alone = later, [], True
                    settled = await self._settle(creations, pending)
            except StoreUnavailable as error:
                if not results:
                    raise
                # What is durable already is not taken back by what follows it.
                settled, later = dict.fromkeys([*pending, *later], error), []
            results |= settled
            pending = [n for n in pending if n not in settled]
        return [results[n] for n in range(len(creations))]

    async def _try(
        self, creations: Sequence[Creation], group: Sequence[int], *, alone: bool
    ) -> tuple[dict[int, Sequence[Job] | Exception], bool]:
        """What is settled of the group after one statement, and whether the rest has to go one by one."""
        try:
            now = await self._insert([creations[n] for n in group])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            settled = await self._settle(creations, group) if isinstance(error, psycopg.errors.UniqueViolation) else {}
            if not settled and len(group) == 1:
                settled = {group[0]: error}
                if isinstance(error, psycopg.errors.UniqueViolation):
                    # Lost a race to another server whose row is not visible to us yet or no longer there.
                    settled = {group[0]: StoreUnavailable("the job is being created elsewhere", retry_after=_SOON)}
            return settled, alone or not settled
        except psycopg.DatabaseError as error:
            if error.sqlstate != OVER_QUOTA:
                raise
            # A repeat gets its first answer, whatever its owner has used up since.
            settled = await self._settle(creations, group)
            if not settled and len(group) == 1:
                settled = {group[0]: self._over_quota(error)}
            return settled, True
        return {n: [new.as_created(now) for new in creations[n].jobs] for n in group}, alone

    async def _insert(self, creations: Sequence[Creation]) -> datetime:
        """Inserts everything, in one statement or, from COPY_FROM jobs on, in one transaction; returns its moment.

        Locks the rows of `owner_days` of the owners named, in owner order. Raises UniqueViolation when an id is
        taken, and an error with SQLSTATE OVER_QUOTA.
        """
        # In the order of the ids, as everybody inserts them: who waits for whom is never a circle.
        jobs = sorted((new for creation in creations for new in creation.jobs), key=_job_id)
        quota: dict[str, int] = {}
        for new in jobs:
            if new.spec.owner != self._exempt_owner:
                quota[new.spec.owner] = quota.get(new.spec.owner, 0) + 1
        named = [creation for creation in creations if creation.request_id]
        ready = (new.schedule.first_ready for new in jobs if new.schedule is not None)
        frame: dict[str, Any] = {
            "now": self._database.now(),
            "limit": self._limit,
            "first": min((time for time in ready if time is not None), default=None),
            "q_owner": binary.array("text", list(quota)),
            "q_jobs": binary.array("int4", list(quota.values())),
            "r_principal": binary.array("text", [c.principal for c in named]),
            "r_request_id": binary.array("text", [c.request_id for c in named]),
            "r_digest": binary.array("bytea", [c.digest for c in named]),
            "r_answer": binary.array("text", [" ".join(str(new.uid) for new in c.jobs) for c in named]),
        }
        records = _records(jobs)
        async with self._database.hot() as connection:
            if len(jobs) < COPY_FROM:
                return await _moment_of(await _run(connection, _CREATE, frame | _arrays(records)))
            chosen = not all(new.has_made_id for new in jobs)
            return await _copied(connection, frame, records, chosen=chosen)

    async def _settle(
        self, creations: Sequence[Creation], group: Sequence[int]
    ) -> dict[int, Sequence[Job] | Exception]:
        """Answers those of the group that collide with what is stored: repeats with their first answer, others with
        an error.
        """
        named = [n for n in group if creations[n].request_id]
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                _TAKEN_REQUESTS,
                {
                    "principal": [creations[n].principal for n in named],
                    "request_id": [creations[n].request_id for n in named],
                },
            )
            requests = {(row[0], row[1]): (bytes(row[2]), list(row[3])) for row in await cursor.fetchall()}
            cursor = await connection.execute(
                _TAKEN_JOBS, {"job_id": [new.job_id for n in group for new in creations[n].jobs]}
            )
            taken = {row[0] for row in await cursor.fetchall()}
        repeats = {n: requests[key] for n in named if (key := _request_key(creations[n])) in requests}
        settled = await self._repeat(creations, repeats) if repeats else {}
        for n in group:
            creation = creations[n]
            if n in settled:
                continue
            clash = next((new for new in creation.jobs if new.job_id in taken), None)
            if clash is not None:
                settled[n] = AlreadyExists(
                    f"job {clash.job_id!r} exists already; choose another job_id or get the one that is there",
                    resource_type="Job",
                    name=f"jobs/{clash.job_id}",
                )
        return settled

    async def _repeat(
        self, creations: Sequence[Creation], firsts: Mapping[int, tuple[bytes, Sequence[UUID]]]
    ) -> dict[int, Sequence[Job] | Exception]:
        """The answers to repeats, by the digest and the jobs of the first call of each. Read together: after an outage
        there are many.
        """
        same = {n for n, (digest, _) in firsts.items() if digest == creations[n].digest}
        uids = [uid for n in same for uid in firsts[n][1]]
        jobs = {job.uid: job for job in await self._jobs.get_jobs_by_uid(uids)} if uids else {}
        settled: dict[int, Sequence[Job] | Exception] = {}
        for n, (_, answer) in firsts.items():
            request_id = creations[n].request_id
            if n not in same:
                settled[n] = other_body(request_id)
            elif any(uid not in jobs for uid in answer):
                settled[n] = answer_deleted(Repeat(request_id))
            else:
                settled[n] = [jobs[uid] for uid in answer]
        return settled

    def _over_quota(self, error: psycopg.DatabaseError) -> QuotaExceeded:
        owner = error.diag.message_detail or ""
        now = self._database.now() or _moment(error)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return QuotaExceeded(
            f"owner {owner!r} has created its {self._limit} jobs of this UTC day; more are accepted after midnight UTC",
            subject=f"owner:{owner}",
            limit=str(self._limit),
            retry_after=midnight - now,
        )


_SOON = timedelta(milliseconds=200)


def _moment(error: psycopg.DatabaseError) -> datetime:
    # The function that raises the error puts the database's clock into the hint, so that no second round trip is
    # needed.
    return datetime.fromisoformat(error.diag.message_hint or "")


def _request_key(creation: Creation) -> tuple[str, str]:
    return creation.principal, creation.request_id


def _without_twins(creations: Sequence[Creation]) -> list[int]:
    """The positions of creations that share no id with an earlier one: only those may go in one statement."""
    seen: set[tuple[str, ...]] = set()
    chosen = []
    for n, creation in enumerate(creations):
        keys: list[tuple[str, ...]] = [("job", new.job_id) for new in creation.jobs]
        if creation.request_id:
            keys.append(("request", *_request_key(creation)))
        if not any(key in seen for key in keys):
            chosen.append(n)
        seen.update(keys)
    return chosen
