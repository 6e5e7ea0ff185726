"""Release from a backlog, messages included.

One scheduler actor's work in this process, over an embedded PostgreSQL and Valkey: due executions of a thousand owners
are released round by round, and their ids sent to the delivery queues. What is queued is taken out between the rounds,
outside of the measured time, as workers would.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from uuid import UUID

import psycopg

from bench.case import Measured, Say, Size
from scheduling.app import SystemClock, build_targets, gate_limits_of
from scheduling.dispatch.broker import Transport
from scheduling.embedded.stack import EmbeddedStack
from scheduling.settings import load_settings
from scheduling.storage.database import Database
from scheduling.storage.migrate import migrate
from scheduling.storage.releasing import ReleasingStore

ABOUT = "release by one scheduler actor, from a backlog, messages included"
FULL_ONLY = False

OWNERS = 1000
ONE_OFFS, FIRINGS = 100_000, 20_000
AHEAD = timedelta(seconds=1)

_JOBS = """
INSERT INTO jobs (uid, job_id, display_name, target, request, request_type, queue, max_attempts, initial_backoff,
    backoff_multiplier, max_backoff, max_age, after_lost_worker, timeout, owner, principal, labels)
SELECT gen_random_uuid(), 'j-' || n, '', 'messaging.MessagingService/SendScheduledMessage', '\\x00', 't', 'HIGH', 4,
       '1 min', 2, '30 min', '1 day', 'RETRY_NOW', '30 s', 'u-' || n %% %s, 'p', '{}'
FROM generate_series(1, %s) AS n
"""
_SCHEDULES = """
INSERT INTO schedules (uid, job_uid, schedule_id, display_name, kind, spec, time_zone, jitter, dst_policy,
    catchup_policy, evaluated_until, zone_version)
SELECT gen_random_uuid(), uid, 's', '', 'INTERVAL', '{}', 'UTC', '0', '', '', now() + interval '1 day', ''
FROM jobs WHERE %s
"""
_EXECUTIONS = """
INSERT INTO executions (uid, job_uid, schedule_uid, origin, target, queue, owner, state, nominal_time, due_time,
    ready_time, expire_time, recurring, overlap)
SELECT gen_random_uuid(), j.uid, s.uid, 'SCHEDULED', j.target, j.queue, j.owner, 'PENDING', t, t, t,
       t + interval '1 day', s.uid IS NOT NULL, CASE WHEN s.uid IS NOT NULL THEN 'SKIP' END
FROM jobs j LEFT JOIN schedules s ON s.job_uid = j.uid,
     LATERAL (SELECT now() - interval '30 s' + random() * interval '1 s') AS x (t)
"""


def _backend_seconds(pid: int) -> float:
    """Processor seconds of a PostgreSQL backend."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _release(stack: EmbeddedStack, count: int, name: str, *, recurring: bool) -> dict[str, float]:
    url = stack.database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE jobs, schedules, executions")
        connection.execute(_JOBS, (OWNERS, count))
        connection.execute(_SCHEDULES, (recurring,))
        connection.execute(_EXECUTIONS)
        connection.execute("VACUUM ANALYZE")
    clock, settings = SystemClock(), load_settings({})
    transport = Transport(stack.redis_url, environment="bench", timeout=timedelta(seconds=1), clock=clock)
    seconds = own = backend = 0.0
    released = 0
    slowest = 0.0
    async with Database(url, application="bench", size=1) as database:
        store = ReleasingStore(database, limits=gate_limits_of(settings, build_targets(settings)))
        async with database.hot() as connection:
            pid = connection.info.backend_pid
        while released < count:
            before, own_before, backend_before = perf_counter(), sum(os.times()[:2]), _backend_seconds(pid)
            result = await store.release(AHEAD)
            for queue, items in result.by_queue.items():
                await transport.send(queue, items)
            took = perf_counter() - before
            seconds += took
            slowest = max(slowest, took)
            own += sum(os.times()[:2]) - own_before
            backend += _backend_seconds(pid) - backend_before
            released += result.count
            if result.count == 0:
                raise RuntimeError(f"nothing was released after {released}: {result}")
            await _take(url, [uid for items in result.by_queue.values() for uid, _ in items])
    await transport.close()
    return {
        f"{name}_per_s": round(released / seconds),
        f"{name}_own_us": round(own / released * 1e6, 1),
        f"{name}_postgres_us": round(backend / released * 1e6, 1),
        f"{name}_slowest_round_ms": round(slowest * 1000, 1),
    }


async def _take(url: str, uids: Sequence[UUID]) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("DELETE FROM executions WHERE uid = ANY(%s)", (list(uids),))


def measure(size: Size, say: Say) -> Measured:
    """One run: one-offs, and firings of recurring schedules."""
    with tempfile.TemporaryDirectory(prefix="whispr-bench-") as folder:
        stack = EmbeddedStack(Path(folder))
        stack.start()
        try:
            migrate(stack.database_url)
            say("releasing one-offs ...")
            values = asyncio.run(_release(stack, size.of(ONE_OFFS), "release", recurring=False))
            say("releasing firings of recurring schedules ...")
            values |= asyncio.run(_release(stack, size.of(FIRINGS), "release_recurring", recurring=True))
        finally:
            stack.stop()
    return Measured(values)
