"""What it takes to prune a million expired executions with their jobs and schedules, and whether dispatch feels it."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

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
#: Days that are pruned, each with so many: one is over before enough is due beside it to tell a 99th percentile from
#: chance. Seconds of rest between two of them, as there would be: a day is due each day.
DAYS, PAUSE = 3, 10
RATE = 100
#: Seconds until the load has come and the stack is warm, and of load before pruning begins; all of the load.
WARM, CALM, SECONDS = 12, 30, 100


@dataclass(frozen=True, slots=True)
class Tenure:
    """The term that the stack's worker leads under: what is pruned here is pruned in its name."""

    term: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when a day was pruned, and dropped."""

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Pruning:
    """Seconds that each day took, and the lateness in milliseconds of what was due before, meanwhile and between."""

    took: list[float]
    before: list[float]
    during: list[float]
    between: list[float]


class Days(HousekeepingStore):
    """The stores of housekeeping, with a pause before each day but the first, and a note of when each was pruned."""

    def __init__(self, database: Database, url: str, clock: SystemClock, pause: int) -> None:
        maintenance = MaintenanceStore(database)
        super().__init__(LeadingStore(database, clock.monotonic), maintenance, PruningStore(database))
        self.spans: list[Span] = []
        self._tend_history = maintenance.tend_history
        self.tend_history = self._tend
        self._pause = pause
        self._url = url

    async def _settle(self) -> None:
        """Writes to the disk what a day has changed, as it would be long before the next one is due: else the log of
        several days forces a checkpoint amid the last.
        """
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute("CHECKPOINT")

    async def _tend(self, before_drop: Callable[[str], Awaitable[bool]] | None = None) -> int:
        began: datetime | None = None

        async def prune(partition: str) -> bool:
            nonlocal began
            assert before_drop is not None
            if began is not None:
                self.spans.append(Span(began, datetime.now(UTC)))
                await self._settle()
                await asyncio.sleep(self._pause)
            began = datetime.now(UTC)
            return await before_drop(partition)

        dropped = await self._tend_history(prune)
        if began is not None:
            self.spans.append(Span(began, datetime.now(UTC)))
        return dropped


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    expired = size.of(EXPIRED, 1000)
    with running() as stack:
        today = datetime.now(UTC).date()
        for number in range(DAYS):
            filling.fill_finished(stack.database_url, expired, today - timedelta(days=5 + number))
        filling.settle(stack.database_url)
        say(f"{DAYS} days with {expired:,} expired executions each are there")
        found = asyncio.run(_prune_beside(stack, size))
        with psycopg.connect(stack.database_url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM schedules WHERE spec->>'time' < %s", [str(today - timedelta(days=5))]
            ).fetchone()
        if row is None or row[0]:
            raise RuntimeError(f"{row} schedules are left")
    before, during, between = (load.percentile(part, 0.99) for part in (found.before, found.during, found.between))
    return Measured(
        {
            "prune_s": statistics.median(found.took),
            "prune_longest_s": max(found.took),
            "prune_p99_before_ms": before,
            "prune_p99_during_ms": during,
            "prune_p99_between_ms": between,
            "prune_p99_ratio": during / before,
            "prune_p50_ratio": load.percentile(found.during, 0.5) / load.percentile(found.before, 0.5),
        },
        {"histogram: lateness in ms while a million executions are pruned": found.during},
    )


async def _prune_beside(stack: Running, size: Size) -> Pruning:
    """Prunes in the middle of one steady load."""
    calm = size.of(CALM, 5)
    load_ = asyncio.create_task(lateness.steady(stack, rate=RATE, seconds=size.of(SECONDS, 25), prefix="beside"))
    await asyncio.sleep(WARM + calm)
    began = datetime.now(UTC)
    spans = await _prune(stack.database_url, size.of(PAUSE))
    await load_
    gaps = [Span(one.last, other.first) for one, other in pairwise(spans)]
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:

        async def late(*spans: Span) -> list[float]:
            found: list[float] = []
            for span in spans:
                rows = await connection.execute(
                    "SELECT extract(epoch FROM start_time - due_time)::float8 * 1000 FROM execution_history "
                    "WHERE due_time >= %s AND due_time < %s AND state = 'SUCCEEDED'",
                    [span.first, span.last],
                )
                found += [row[0] for row in await rows.fetchall()]
            return found

        return Pruning(
            [(span.last - span.first).total_seconds() for span in spans],
            await late(Span(began - timedelta(seconds=calm), began)),
            await late(*spans),
            await late(*gaps),
        )


async def _prune(url: str, pause: int) -> list[Span]:
    """One round of housekeeping, as the leader would do it."""
    clock = SystemClock()
    async with Database(url, application="bench", size=2) as database:
        async with database.hot() as connection:
            row = await (await connection.execute("SELECT term FROM leadership")).fetchone()
        assert row is not None
        stores = Days(database, url, clock, pause)
        housekeeper = Housekeeper(
            Tenure(row[0]), stores, clock, keep_failed=timedelta(days=30), failed_targets=[load.TARGET]
        )
        await housekeeper.tick()
        return stores.spans
