"""A hundred thousand schedules that use one calendar. Minutes long, so only with SCHEDULING_TEST_LARGE=1."""

# ruff: noqa: T201 - what was measured is what one wants to see

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest

from scheduling.dispatch.planner import Planner
from scheduling.domain.job import Creation
from scheduling.domain.timing import Cron, ExcludedDates, NamedCalendar
from scheduling.joints import PlannerStore
from tests.support.clock import START
from tests.support.run import run
from tests.support.timeline import DAY, PRINCIPAL, Timeline, timeline

SCHEDULES = 100_000


@pytest.mark.timeout(900)
@pytest.mark.skipif("SCHEDULING_TEST_LARGE" not in os.environ, reason="takes minutes; set SCHEDULING_TEST_LARGE=1")  # noqa: TID251
def test_a_hundred_thousand_plans_follow_a_calendar(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            await make(line)
            leader = Leader(await line.lead())
            planner = Planner(
                leader, PlannerStore(line.calendars, line.backfilling, line.deployments), line.clock, "d-1"
            )
            await settle(planner)
            await line.query("ANALYZE")
            dates = ExcludedDates(frozenset(START.date() + timedelta(days=n) for n in (0, 1, 2)))
            began = time.perf_counter()
            await line.change_calendar("holidays", dates)
            marked = time.perf_counter()
            await settle(planner)
            ended = time.perf_counter()
            rows = await line.query("SELECT count(*) AS n FROM schedules WHERE moved_time = %s AND NOT stale", line.now)
            assert rows == [{"n": SCHEDULES}]
            rows = await line.query("SELECT count(*) AS n, min(nominal_time) AS first FROM executions")
            assert rows == [{"n": SCHEDULES, "first": START.replace(hour=9) + 3 * DAY}]
            print(f"{SCHEDULES} plans moved in {ended - began:.1f} s, of which marking took {marked - began:.1f} s")

    run(scenario(), patience=890)


@dataclass(frozen=True)
class Leader:
    """A leader for good."""

    term: int | None


async def settle(planner: Planner) -> None:
    """Ticks until the planner has nothing left to move."""
    while await planner.tick() == 0.0:
        pass


async def make(line: Timeline) -> None:
    holidays = ExcludedDates(frozenset({START.date() + timedelta(days=300)}))
    await line.calendar("holidays", holidays)
    exclusions = (NamedCalendar("holidays", (holidays,)),)
    jobs = []
    for n in range(SCHEDULES):
        schedule = line.new_schedule(Cron(f"{n % 60} 9-20 * * *"), exclusions=exclusions)
        jobs.append(line.new_job(schedule=schedule))
        if len(jobs) == 1000:
            await line.store.create(Creation(PRINCIPAL, tuple(jobs), "", b""))
            jobs.clear()
