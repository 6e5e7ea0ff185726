"""Procrastinate on PostgreSQL. `prepare`, `enqueue COUNT`, or `work`."""

from __future__ import annotations

import asyncio
import base64
import os
import sys

import calls
import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_DATABASE"], min_size=4, max_size=20)
)


@app.task(name="deliver")
async def deliver(request: str) -> None:
    """One call."""
    await calls.send_async(base64.b64decode(request))


async def enqueue(count: int) -> None:
    """Defers all in batches."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, count, 1000):
            requests = (
                base64.b64encode(calls.payload(each)).decode() for each in range(first, min(first + 1000, count))
            )
            await deliver.batch_defer_async(*({"request": request} for request in requests))


async def work() -> None:
    """Works until killed."""
    async with app.open_async():
        await app.run_worker_async(concurrency=calls.CONCURRENCY)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[1])))
