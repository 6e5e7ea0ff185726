"""What is asked for: scheduled messages of a thousand owners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import psycopg
from google.protobuf import any_pb2, timestamp_pb2
from whispr.scheduling.v1 import job_pb2, schedule_pb2, scheduling_service_pb2
from whispr.siblings import messaging_pb2

from bench.stack import Api

TARGET = "messaging.MessagingService/SendScheduledMessage"
OWNERS = 1000
BATCH = 1000


def message(number: int, prefix: str = "m") -> messaging_pb2.SendScheduledMessageRequest:
    """One message of one of the owners."""
    return messaging_pb2.SendScheduledMessageRequest(
        message_id=f"{prefix}-{number}",
        conversation_id=f"c-{number % 97}",
        sender_id=f"u-{number % OWNERS}",
        content="The quick brown fox jumps over the lazy dog. " * 3,
    )


def request(number: int, due: datetime, prefix: str = "m") -> scheduling_service_pb2.CreateJobRequest:
    """CreateJob for one message, due at `due`."""
    packed = any_pb2.Any()
    packed.Pack(message(number, prefix))
    at = timestamp_pb2.Timestamp()
    at.FromDatetime(due)
    return scheduling_service_pb2.CreateJobRequest(
        job=job_pb2.Job(target=TARGET, owner=f"u-{number % OWNERS}", request=packed),
        schedule=schedule_pb2.Schedule(at_time=at),
    )


async def create_all(api: Api, requests: Iterator[scheduling_service_pb2.CreateJobRequest]) -> int:
    """Creates all of them in batches; returns how many."""
    count = 0
    while batch := list(islice(requests, BATCH)):
        await api.scheduling.BatchCreateJobs(scheduling_service_pb2.BatchCreateJobsRequest(requests=batch), timeout=30)
        count += len(batch)
    return count


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


_FILL = """
CREATE TEMP TABLE fill AS
SELECT n, uuidv7() AS job_uid, uuidv7() AS schedule_uid, uuidv7() AS uid,
       now() + interval '1 day' + n * interval '1 millisecond' AS due
FROM generate_series(%(first)s::int8, %(last)s::int8) AS n
"""
_CHANGED = {
    "jobs": {"uid": "f.job_uid", "job_id": "'fill-' || f.n", "owner": "'u-' || f.n %% 1000"},
    "schedules": {"uid": "f.schedule_uid", "job_uid": "f.job_uid"},
    "executions": {
        "uid": "f.uid",
        "job_uid": "f.job_uid",
        "schedule_uid": "f.schedule_uid",
        "owner": "'u-' || f.n %% 1000",
        **dict.fromkeys(("nominal_time", "due_time", "ready_time"), "f.due"),
        "expire_time": "f.due + interval '7 days'",
    },
}
#: Rows of one statement.
FILL_CHUNK = 100_000


async def fill_pending(api: Api, database_url: str, count: int, *, first: int = 0) -> None:
    """Makes `count` one-offs that are due tomorrow: one through the API, the others as its copies by SQL, which is the
    same rows much sooner. Tables are vacuumed and analysed after.
    """
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await api.scheduling.BatchCreateJobs(
        scheduling_service_pb2.BatchCreateJobsRequest(requests=[request(first, tomorrow, "sample")]), timeout=30
    )
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        sample = "(SELECT uid FROM jobs ORDER BY create_time DESC LIMIT 1)"
        await connection.execute(f"CREATE TEMP TABLE sample AS SELECT uid FROM {sample} AS s")
        for start in range(first, first + count, FILL_CHUNK):
            last = min(start + FILL_CHUNK, first + count) - 1
            async with connection.transaction():
                await connection.execute(_FILL, {"first": start, "last": last})
                for table, changed in _CHANGED.items():
                    rows = await connection.execute(
                        "SELECT column_name FROM information_schema.columns "
                        "WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
                        [table],
                    )
                    names = [name for (name,) in await rows.fetchall()]
                    values = ", ".join(changed.get(name, f"s.{name}") for name in names).replace("%%", "%")
                    key = "uid" if table == "jobs" else "job_uid"
                    await connection.execute(
                        f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM fill f "
                        f"CROSS JOIN (SELECT * FROM {table} WHERE {key} = (SELECT uid FROM sample)) AS s"
                    )
                await connection.execute("DROP TABLE fill")
        for table in _CHANGED:
            await connection.execute(f"VACUUM ANALYZE {table}")
        await connection.execute("CHECKPOINT")
