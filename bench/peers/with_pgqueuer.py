"""pgqueuer on PostgreSQL. `enqueue COUNT`, or `work`."""

from __future__ import annotations

import asyncio
import os
import sys

import calls
import psycopg
from pgqueuer import PgQueuer
from pgqueuer.models import Job

#: Jobs that the worker fetches at once; its cap on jobs at once must be at least twice that.
BATCH = 64


async def connect() -> psycopg.AsyncConnection:
    """A connection as pgqueuer wants it."""
    return await psycopg.AsyncConnection.connect(os.environ["PEER_DATABASE"], autocommit=True)


async def enqueue(count: int) -> None:
    """Enqueues all in batches, into tables that are made first."""
    queries = PgQueuer.from_psycopg_connection(await connect()).qm.queries
    await queries.install()
    for first in range(0, count, 1000):
        payloads: list[bytes | None] = [calls.payload(each) for each in range(first, min(first + 1000, count))]
        await queries.enqueue(["deliver"] * len(payloads), payloads, [0] * len(payloads))


async def work() -> None:
    """Works until killed."""
    queuer = PgQueuer.from_psycopg_connection(await connect())

    @queuer.entrypoint("deliver")
    async def deliver(job: Job) -> None:
        assert job.payload is not None
        await calls.send_async(job.payload)

    await queuer.run(batch_size=BATCH, max_concurrent_tasks=2 * BATCH)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
