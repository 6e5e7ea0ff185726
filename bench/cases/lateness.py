"""How punctual executions are at a steady rate, beside how much is pending, and what that costs PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from whispr.scheduling.v1 import scheduling_service_pb2

from bench import load
from bench.case import Measured, Say, Size
from bench.stack import Running, api, running

ABOUT = "100/s for 60 s beside 10,000 and 1,000,000 pending, then 1,000/s"
FULL_ONLY = False

SECONDS, FEW, MANY = 60, 10_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Minute:
    """What one stretch of steady load found, in milliseconds: `inside` by the service's own record (the call's start
    after its due time), `receipts` by the sibling's (its receipt after the due time, the hop included).
    """

    inside: list[float]
    receipts: list[float]
    postgres_cpu: float
    worker_cpu: float


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    seconds, few, many = size.of(SECONDS, 5), size.of(FEW, 100), size.of(MANY, 1000)
    with running() as stack:
        asyncio.run(_fill(stack, few, 0))
        calm = asyncio.run(steady(stack, rate=100, seconds=seconds, prefix="few"))
        asyncio.run(_fill(stack, many - few, few))
        say(f"{many:,} pending")
        busy = asyncio.run(steady(stack, rate=100, seconds=seconds, prefix="many"))
        fast = asyncio.run(steady(stack, rate=1000, seconds=seconds, prefix="fast"))
    values = {
        **_told("lateness", "", busy),
        **_told("lateness", "_1000", fast),
        "lateness_p99_few_ms": load.percentile(calm.inside, 0.99),
        "store_cpu_ratio": busy.postgres_cpu / calm.postgres_cpu,
        "store_cpu_s": busy.postgres_cpu,
    }
    return Measured(
        values,
        {
            "histogram: lateness in ms, 100/s beside 1,000,000 pending": busy.inside,
            "histogram: lateness in ms, 1,000/s beside 1,000,000 pending": fast.inside,
        },
    )


def _told(name: str, suffix: str, minute: Minute) -> Mapping[str, float]:
    found = {}
    for share, label in ((0.5, "p50"), (0.99, "p99"), (0.999, "p999")):
        found[f"{name}_{label}{suffix}_ms"] = load.percentile(minute.inside, share)
        found[f"{name}_receipt_{label}{suffix}_ms"] = load.percentile(minute.receipts, share)
    found[f"{name}_earliest{suffix}_ms"] = min(minute.receipts)
    return found


async def _fill(stack: Running, count: int, first: int) -> None:
    async with api(stack.address) as client:
        await load.fill_pending(client, stack.database_url, count, first=first)


async def steady(stack: Running, *, rate: int, seconds: int, prefix: str) -> Minute:
    """Creates `rate` one-offs for each of so many seconds, lets them come, and looks at each. Raises if one is
    missing.
    """
    count = rate * seconds
    async with api(stack.address) as client:
        start = datetime.now(UTC) + timedelta(seconds=4 + count / 4000)

        def requests() -> Iterator[scheduling_service_pb2.CreateJobRequest]:
            for number in range(count):
                yield load.request(number, start + timedelta(seconds=number / rate), prefix)

        await load.create_all(client, requests())
    if (left := (start - datetime.now(UTC)).total_seconds()) < 1:
        raise RuntimeError(f"creating {count} took too long: {left:.1f} s were left")
    await asyncio.sleep(left - 0.5)
    used = stack.cpu()
    await asyncio.sleep(seconds + 0.5)
    spent = stack.cpu()
    await asyncio.sleep(2)
    receipts = [
        1000 * (call["received"] - datetime.fromisoformat(call["nominal_time"]).timestamp())
        for call in stack.received()
        if call["id"].startswith(f"{prefix}-")
    ]
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        rows = await connection.execute(
            "SELECT extract(epoch FROM start_time - due_time)::float8 * 1000 FROM execution_history "
            "WHERE due_time >= %s AND due_time < %s AND state = 'SUCCEEDED'",
            [start - timedelta(milliseconds=1), start + timedelta(seconds=seconds)],
        )
        inside = [row[0] for row in await rows.fetchall()]
    if len(inside) < count or len(receipts) < count:
        raise RuntimeError(f"{count} were due, {len(receipts)} arrived, {len(inside)} succeeded")
    return Minute(inside, receipts, spent["postgres"] - used["postgres"], spent["worker"] - used["worker"])
