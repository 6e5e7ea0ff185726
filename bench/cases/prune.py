"""What it takes to prune a million expired executions with their jobs and schedules, and whether dispatch feels it."""

from __future__ import annotations

import asyncio
import time
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

EXPIRED = 1_000_000
#: Days that are pruned one after the other, each with so many: one is over before enough is due beside it to tell a
#: 99th percentile from chance.
DAYS = 3
RATE = 100
#: Seconds until the load has come and the stack is warm, and of load before pruning begins; all of the load.
WARM, CALM, SECONDS = 12, 30, 80


@dataclass(frozen=True, slots=True)
class Tenure:
    """The term that the stack's worker leads under: what is pruned here is pruned in its name."""

    term: int | None


@dataclass(frozen=True, slots=True)
class Pruning:
    """Seconds that it took, and the lateness in milliseconds of what was due before, meanwhile and after."""

    took: float
    before: list[float]
    during: list[float]
    after: list[float]


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    expired = size.of(EXPIRED, 1000)
    with running() as stack:
        today = datetime.now(UTC).date()
        for number in range(DAYS):
            filling.fill_finished(stack.database_url, expired, today - timedelta(days=5 + number))
        filling.settle(stack.database_url)
        say(f"{DAYS} days with {expired:,} expired executions each are there")
        found = asyncio.run(_prune_beside(stack, size.of(CALM, 5), size.of(SECONDS, 20)))
        with psycopg.connect(stack.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM schedules WHERE spec->>'time' < %s", [str(today - timedelta(days=5))]
            ).fetchone()
        if row is None or row[0]:
            raise RuntimeError(f"{row} schedules are left")
    before, during, after = (load.percentile(part, 0.99) for part in (found.before, found.during, found.after))
    return Measured(
        {
            "prune_s": found.took / DAYS,
            "prune_p99_before_ms": before,
            "prune_p99_during_ms": during,
            "prune_p99_after_ms": after,
            "prune_p99_ratio": during / before,
            "prune_p50_ratio": load.percentile(found.during, 0.5) / load.percentile(found.before, 0.5),
        },
        {"histogram: lateness in ms while a million executions are pruned": found.during},
    )


async def _prune_beside(stack: Running, calm: int, seconds: int) -> Pruning:
    """Prunes in the middle of one steady load of so many seconds; `calm` of them, before it, are for comparison."""
    load_ = asyncio.create_task(lateness.steady(stack, rate=RATE, seconds=seconds, prefix="beside"))
    await asyncio.sleep(WARM + calm)
    pruning = datetime.now(UTC)
    began = pruning - timedelta(seconds=calm)
    took = await _prune(stack.database_url)
    pruned = datetime.now(UTC)
    await load_
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:

        async def between(first: datetime, last: datetime) -> list[float]:
            rows = await connection.execute(
                "SELECT extract(epoch FROM start_time - due_time)::float8 * 1000 FROM execution_history "
                "WHERE due_time >= %s AND due_time < %s AND state = 'SUCCEEDED'",
                [first, last],
            )
            late = [row[0] for row in await rows.fetchall()]
            if not late:
                raise RuntimeError(f"nothing was due between {first} and {last}: pruning took {took:.1f} s")
            return late

        ended = datetime.now(UTC)
        return Pruning(
            took, await between(began, pruning), await between(pruning, pruned), await between(pruned, ended)
        )


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
