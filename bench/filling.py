"""Many rows at once, made in the database itself: what months of use would have left there."""

from __future__ import annotations

from datetime import date

import psycopg

#: Rows of one statement, so that none runs for minutes.
PIECE = 500_000

# A UUID of version 7 for a moment, with the number in its random part: unique, and in the order of the numbers.
_UID = "(lpad(to_hex({millis}::bigint), 12, '0') || '7' || lpad(to_hex({kind}), 3, '0') || '8' || \
lpad(to_hex(n::bigint), 15, '0'))::uuid"


def _uid(kind: int, millis: str) -> str:
    return _UID.format(kind=kind, millis=millis)


_JOB, _SCHEDULE, _EXECUTION = 1, 2, 3
_TARGET = "messaging.MessagingService/SendScheduledMessage"
_TYPE = "messaging.SendScheduledMessageRequest"

_FILL = """
WITH made AS (
    SELECT n, {job} AS job, {schedule} AS schedule, {execution} AS execution, 'u-' || n %% 1000 AS owner,
           {due} AS due, convert_to(repeat('x', 190), 'UTF8') AS request
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
),
jobs AS (
    INSERT INTO jobs (uid, job_id, display_name, target, request, request_type, queue, max_attempts, initial_backoff,
        backoff_multiplier, max_backoff, max_age, after_lost_worker, timeout, owner, principal, labels, retention_days,
        used_time)
    SELECT job, 'j-' || job, '', '{target}', request, '{type}', 'HIGH', 4, '1 min', 2, '30 min', '7 days', 'RETRY_NOW',
        '30 s', owner, 'spiffe://cluster.local/ns/whispr/sa/messaging-service', '{{}}', 30, NULL
    FROM made
),
schedules AS (
    INSERT INTO schedules (uid, job_uid, schedule_id, display_name, kind, spec, time_zone, jitter, dst_policy,
        catchup_policy, evaluated_until, zone_version)
    SELECT schedule, job, 's-' || schedule, '', 'ONCE', jsonb_build_object('time', due), 'UTC', '0', 'FIRE_AFTER_GAP',
        'FIRE_ONCE_LATEST', 'infinity', '2026b'
    FROM made
)
{rest}
"""
_COLUMNS = "uid, job_uid, schedule_uid, schedule_id, origin, target, queue, owner, state, nominal_time, due_time, \
ready_time, expire_time, retention_days, create_time"
_VALUES = "execution, job, schedule, 's-' || schedule, 'SCHEDULED', '{target}', 'HIGH', owner, '{state}', due, due, \
due, due + interval '7 days', 30, {made}"


def fill_finished(url: str, count: int, prune_day: date, *, first: int = 0) -> None:
    """Makes `count` one-off jobs that succeeded thirty days before `prune_day`, in a partition of that day."""
    name = f"execution_history_{prune_day:%Y%m%d}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"""DO $$ BEGIN IF to_regclass('{name}') IS NULL THEN
                CREATE TABLE {name} PARTITION OF execution_history
                    FOR VALUES FROM ('{prune_day}') TO (date '{prune_day}' + 1);
            END IF; END $$"""
        )
    at = f"timestamptz '{prune_day} 00:00+00' - interval '30 days'"
    values = _VALUES.format(target=_TARGET, state="SUCCEEDED", made="due")
    more = f"1, 1, due, due + interval '3 ms', {_uid(9, '1')}, 0, 1, date '{prune_day}'"
    _fill(
        url,
        count,
        first,
        millis=f"(extract(epoch FROM {at}) * 1000)",
        due=f"{at} + n * interval '1 ms'",
        rest=f"INSERT INTO execution_history ({_COLUMNS}, attempt, counted, start_time, finish_time, worker_uid, code, "
        f"job_revision, prune_day) SELECT {values}, {more} FROM made",
    )


def settle(url: str) -> None:
    """Brings statistics and visibility up to date, and what was written to the disk, so that this is not measured."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def _fill(url: str, count: int, first: int, *, millis: str, due: str, rest: str) -> None:
    statement = _FILL.format(
        job=_uid(_JOB, millis),
        schedule=_uid(_SCHEDULE, millis),
        execution=_uid(_EXECUTION, millis),
        due=due,
        target=_TARGET,
        type=_TYPE,
        rest=rest,
    )
    with psycopg.connect(url, autocommit=True) as connection:
        for start in range(first, first + count, PIECE):
            last = min(start + PIECE, first + count) - 1
            connection.execute(statement, {"first": start, "last": last})
