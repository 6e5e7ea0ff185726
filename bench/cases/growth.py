"""Whether delivery feels how much is stored: an empty database beside one with millions pending and finished."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg

from bench import filling, load
from bench.case import Measured, Say, Size
from bench.cases import delivery
from bench.stack import Running, api, running

ABOUT = "20,000 due, delivered from an empty database and from one with 10,000,000 pending and 20,000,000 finished"
FULL_ONLY = True

BACKLOG, PENDING, FINISHED, DAYS = 20_000, 10_000_000, 20_000_000, 30


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    count, pending, finished = size.of(BACKLOG, 500), size.of(PENDING, 1000), size.of(FINISHED, 1000)
    with running(worker=False) as stack:
        empty = _deliver(stack, count)
        say(f"empty: {empty['delivery_per_s']:,.0f}/s")
    with running(worker=False) as stack:
        asyncio.run(_fill_pending(stack, pending))
        today = datetime.now(UTC).date()
        for n in range(DAYS):
            part = finished // DAYS
            filling.fill_finished(stack.database_url, part, today + timedelta(days=n + 1), first=n * part)
        filling.settle(stack.database_url)
        size_gb = _size(stack.database_url) / 1e9
        say(f"{pending:,} pending and {finished:,} finished are there, {size_gb:.1f} GB")
        full = _deliver(stack, count)
        say(f"full: {full['delivery_per_s']:,.0f}/s")
    return Measured(
        {
            "growth_ratio": full["delivery_per_s"] / empty["delivery_per_s"],
            "growth_empty_per_s": empty["delivery_per_s"],
            "growth_full_per_s": full["delivery_per_s"],
            "growth_postgres_cpu_ratio": full["postgres_cpu_us"] / empty["postgres_cpu_us"],
            "growth_size_gb": size_gb,
        }
    )


def _deliver(stack: Running, count: int) -> dict[str, float]:
    delivery.create(stack, count, "due", timedelta(0))
    return dict(delivery.drain(stack, count, "due"))


async def _fill_pending(stack: Running, count: int) -> None:
    async with api(stack.address) as client:
        await load.fill_pending(client, stack.database_url, count)


def _size(url: str) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return float(row[0])
