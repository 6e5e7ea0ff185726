"""What it takes to prune a million expired executions with their jobs and schedules, and whether dispatch feels it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from bench import filling, load
from bench.case import Measured, Say, Size
from bench.cases import lateness
from bench.stack import Running, running
from scheduling.app import SystemClock
from scheduling.dispatch.housekeeping import Housekeeper
from scheduling.joints import HousekeepingStore
from scheduling.storage.database import Database
from scheduling.storage.leading import LeadingStore
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.pruning import PruningStore

ABOUT = "1,000,000 expired executions with jobs and schedules, pruned beside 100/s"
FULL_ONLY = False

EXPIRED, CALM, AROUND = 1_000_000, 20, 30
RATE = 100


@dataclass(frozen=True, slots=True)
class Tenure:
    """The term that the stack's worker leads under: what is pruned here is pruned in its name."""

    term: int | None


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    expired = size.of(EXPIRED, 1000)
    with running() as stack:
        day = (datetime.now(UTC) - timedelta(days=5)).date()
        filling.fill_finished(stack.database_url, expired, day)
        filling.settle(stack.database_url)
        say(f"{expired:,} expired executions are there")
        calm = asyncio.run(lateness.steady(stack, rate=RATE, seconds=size.of(CALM, 5), prefix="calm"))
        took, meanwhile = asyncio.run(_prune_beside(stack, size.of(AROUND, 8)))
        with psycopg.connect(stack.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM schedules WHERE spec->>'time' < %s", [str(day)]).fetchone()
        if row is None or row[0]:
            raise RuntimeError(f"{row} schedules are left")
    before, during = load.percentile(calm.inside, 0.99), load.percentile(meanwhile, 0.99)
    return Measured(
        {
            "prune_s": took,
            "prune_p99_before_ms": before,
            "prune_p99_during_ms": during,
            "prune_p99_ratio": during / before,
            "prune_p50_ratio": load.percentile(meanwhile, 0.5) / load.percentile(calm.inside, 0.5),
        },
        {"histogram: lateness in ms while a million executions are pruned": meanwhile},
    )


async def _prune_beside(stack: Running, seconds: int) -> tuple[float, Sequence[float]]:
    """Prunes in the middle of a steady load: seconds that it took, and the lateness in milliseconds of what was due
    meanwhile.
    """
    load_ = asyncio.create_task(lateness.steady(stack, rate=RATE, seconds=seconds, prefix="meanwhile"))
    # The load has to have come, which takes it a little more than four seconds.
    await asyncio.sleep(8)
    began = datetime.now(UTC)
    took = await _prune(stack.database_url)
    ended = datetime.now(UTC)
    await load_
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        rows = await connection.execute(
            "SELECT extract(epoch FROM start_time - due_time)::float8 * 1000 FROM execution_history "
            "WHERE due_time BETWEEN %s AND %s AND state = 'SUCCEEDED'",
            [began, ended],
        )
        return took, [row[0] for row in await rows.fetchall()]


async def _prune(url: str) -> float:
    """One round of housekeeping, as the leader would do it."""
    clock = SystemClock()
    async with Database(url, application="bench", size=2) as database:
        async with database.hot() as connection:
            row = await (await connection.execute("SELECT term FROM leadership")).fetchone()
        assert row is not None
        stores = HousekeepingStore(
            LeadingStore(database, clock.monotonic), MaintenanceStore(database), PruningStore(database)
        )
        housekeeper = Housekeeper(
            Tenure(row[0]), stores, clock, keep_failed=timedelta(days=30), failed_targets=[load.TARGET]
        )
        began = time.perf_counter()
        await housekeeper.tick()
        return time.perf_counter() - began
