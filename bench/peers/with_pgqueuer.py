"""pgqueuer on PostgreSQL. `enqueue COUNT`, or `work`."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import calls
from pgqueuer import PgQueuer
from pgqueuer.models import Job

#: Jobs that the worker fetches at once. How many it holds is not capped: a worker that has reached its cap would only
#: look again at the next notification. The calls at once are, as for all others.
BATCH = 100


async def queuer() -> PgQueuer:
    """Over asyncpg: with psycopg listening and working get into each other's way on its one connection."""
    return PgQueuer.from_asyncpg_connection(await asyncpg.connect(os.environ["PEER_DATABASE"]))


async def enqueue(count: int) -> None:
    """Enqueues all in batches, into tables that are made first."""
    queries = (await queuer()).qm.queries
    await queries.install()
    for first in range(0, count, 1000):
        payloads: list[bytes | None] = [calls.payload(each) for each in range(first, min(first + 1000, count))]
        await queries.enqueue(["deliver"] * len(payloads), payloads, [0] * len(payloads))


async def work() -> None:
    """Works until killed."""
    worker = await queuer()
    slots = asyncio.Semaphore(calls.CONCURRENCY)

    @worker.entrypoint("deliver")
    async def deliver(job: Job) -> None:
        assert job.payload is not None
        async with slots:
            await calls.send_async(job.payload)

    await worker.run(batch_size=BATCH)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
