"""A simulated month of fifty schedules in which the scheduler is killed again and again.

A crash is an exception out of some statement, so that its transaction rolls back as it does at `kill -9`, or one right
after a commit, before anybody was told. The dice are seeded: SCHEDULING_TEST_SEED gives another month,
SCHEDULING_TEST_CRASHES another number of crashes. The clock is the test's own.
"""

# ruff: noqa: T201 - the seed and what happened are told, for who looks into a failure

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from scheduling.domain.execution import Claim
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.recurrence import fires_between
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.domain.timing import (
    Calendar,
    CatchupPolicy,
    Cron,
    DstPolicy,
    ExcludedCron,
    ExcludedDates,
    ExcludedWindow,
    Frequency,
    Interval,
    NamedCalendar,
    NthWeekday,
    Timing,
    Union,
    Weekday,
    When,
)
from scheduling.storage.database import Database
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.timeline import DAY, HOUR, LOOK_AHEAD, MINUTE, SECOND, Timeline

#: Weeks in which clocks change in America (9 March), Europe (30 March) and Australia (6 April).
START = datetime(2031, 3, 5, tzinfo=UTC)
END = START + timedelta(days=33)
SEED = int(os.environ.get("SCHEDULING_TEST_SEED", "20310305"))  # noqa: TID251 - the variables of the test suite
CRASHES = int(os.environ.get("SCHEDULING_TEST_CRASHES", "200"))  # noqa: TID251 - the variables of the test suite


#: What a caller may do: its name, and the call.
Change = tuple[str, Callable[[], Awaitable[object]]]


class Killed(Exception):
    """The process is gone."""


class Fuse:
    """Ends the process at a chosen statement: before it, or after it and before what follows."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._after = False

    def light(self, statements: int, *, after: bool) -> None:
        """Burns for that many statements."""
        self._left, self._after = statements, after

    def quench(self) -> None:
        """Nothing happens any more."""
        self._left = None

    def before(self) -> None:
        """A statement is about to be sent."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0 and not self._after:
                self._blow()

    def after(self) -> None:
        """A statement has been answered."""
        if self._left is not None and self._left <= 0:
            self._blow()

    def _blow(self) -> None:
        self.quench()
        raise Killed


class FusedDatabase(Database):
    """A database whose connections heed a fuse."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        super().__init__(url, application="crashing", size=4, now=clock.now)
        self.fuse = fuse = Fuse()

        class FusedCursor(AsyncCursor[TupleRow]):
            async def execute(self, *arguments: Any, **options: Any) -> FusedCursor:
                fuse.before()
                await super().execute(*arguments, **options)
                fuse.after()
                return self

        self._cursor = FusedCursor
        sa.event.listen(self._engine.sync_engine, "before_cursor_execute", lambda *_: fuse.before())
        sa.event.listen(self._engine.sync_engine, "after_cursor_execute", lambda *_: fuse.after())

    @asynccontextmanager
    async def hot(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        async with super().hot() as connection:
            connection.cursor_factory = self._cursor
            yield connection


def timings(dice: random.Random) -> list[Timing]:
    """Fifty timings that have between them everything that a timing can have."""
    paris, york, howe, sydney = "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Australia/Sydney"
    fixed = [Cron("30 2 * * *"), Cron("0 1,13 * * *"), Cron("15 2 * * SUN"), Cron("0 9 L,15W * *"), Cron("@daily")]
    clocks = [Cron("0 */6 * * *"), Cron("30 */2 * * SUN"), Cron("0 1-3 * * *"), Cron("*/20 9 * * MON-FRI")]
    days = [
        Calendar(Frequency.DAILY, (time(2, 30), time(14, 0))),
        Calendar(Frequency.WEEKLY, (time(1, 30),), weekdays=frozenset({Weekday.SUNDAY, Weekday.WEDNESDAY})),
        Calendar(Frequency.MONTHLY, (time(8, 0),), month_days=frozenset({-1, 15})),
        Calendar(Frequency.MONTHLY, (time(8, 0),), nth_weekdays=frozenset({NthWeekday(Weekday.FRIDAY, 2)})),
        Calendar(Frequency.DAILY, (time(3, 0),), every=2, from_date=date(2031, 3, 6), count=9),
    ]
    steps = [Interval(6 * HOUR), Interval(5 * HOUR, phase=2 * HOUR), Interval(DAY + HOUR, anchor=START)]
    unions = [
        Union((Cron("0 12 * * *"), Interval(8 * HOUR))),
        Union((Cron("30 2 * * *"), Cron("30 2-3 * * *"), Calendar(Frequency.DAILY, (time(2, 30),)))),
    ]
    whens: list[When] = [*fixed, *clocks, *days, *steps, *unions] * 3
    named = NamedCalendar("holidays", (ExcludedDates(frozenset({date(2031, 3, 8)})),))
    exclusions = [
        (),
        (ExcludedWindow(time(22), time(4), frozenset({Weekday.FRIDAY, Weekday.SATURDAY})),),
        (ExcludedDates(frozenset({date(2031, 3, 9), date(2031, 3, 30)})), named),
        (ExcludedCron("* 2 * * *"),),
        (named,),
    ]
    made = []
    for n, when in enumerate(whens[:50]):
        timing = Timing(
            when,
            time_zone=[paris, york, howe, sydney, "UTC"][n % 5],
            start=START + 3 * DAY if n % 7 == 3 else None,
            end=START + timedelta(days=dice.randint(12, 30), minutes=20) if n % 6 == 1 else None,
            max_firings=dice.randint(3, 25) if n % 5 == 2 else None,
            jitter=timedelta(minutes=20) if n % 4 == 1 else timedelta(0),
            dst_policy=list(DstPolicy)[n % 3],
            catchup_policy=list(CatchupPolicy)[n // 3 % 3],
            catchup_window=[None, 2 * HOUR, 9 * HOUR, timedelta(0)][n // 2 % 4],
            exclusions=exclusions[n // 2 % 5],
        )
        if len(fires_between(timing, START, END, 3)) < 3:
            timing = replace(timing, exclusions=(), dst_policy=DstPolicy.FIRE_AFTER_GAP)
        made.append(timing)
    return made


class Month:
    """Two schedulers, a worker and callers, with dice."""

    def __init__(self, url: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock(START)
        self.schedulers = [Timeline(url, self.clock, FusedDatabase(url, self.clock)) for _ in range(2)]
        self.caller = Timeline(url, self.clock, FusedDatabase(url, self.clock))
        self.eye = Timeline(url, self.clock)
        self.schedules: list[UUID] = []
        self.running: list[tuple[datetime, Claim]] = []
        self.seen: Counter[str] = Counter()
        self.checked = START - SECOND

    @property
    def databases(self) -> list[Database]:
        return [each.database for each in (*self.schedulers, self.caller, self.eye)]

    async def begin(self) -> None:
        dates = frozenset({date(2031, 3, 8)})
        await self.eye.calendar("holidays", ExcludedDates(dates))
        for n, timing in enumerate(timings(self.dice)):
            new = self.eye.new_schedule_of(timing)
            await self.eye.job(overlap=[None, *OverlapPolicy][n % 7], schedule=new)
            self.schedules.append(new.uid)
        await self._take_over()

    async def _take_over(self) -> None:
        term = await self.eye.leading.acquire(UUID(int=self.dice.getrandbits(128)), 10000 * DAY)
        if term is None:
            await self.eye.query("UPDATE leadership SET expire_time = '-infinity'")
            term = await self.eye.leading.acquire(UUID(int=self.dice.getrandbits(128)), 10000 * DAY)
        assert term is not None
        for scheduler in self.schedulers:
            scheduler.term = term

    # --- what schedulers do -------------------------------------------------------------------------------------------

    async def ring(self, *, crash: bool) -> None:
        """One run of the scheduler; sometimes both run at once."""
        both = self.dice.random() < 0.3
        first = self.dice.randrange(2)
        working = [self.schedulers[first], *([self.schedulers[1 - first]] if both else [])]
        await asyncio.gather(*(self._work(each, crash=crash and n == 0) for n, each in enumerate(working)))
        self.seen["both"] += both

    async def _work(self, scheduler: Timeline, *, crash: bool) -> None:
        duties: list[Callable[[], Awaitable[object]]] = [
            lambda: scheduler.calendars.move_stale_plans(scheduler.term),
            lambda: scheduler.advance(LOOK_AHEAD),
            lambda: scheduler.backfilling.step_backfills(scheduler.term),
            lambda: scheduler.release(LOOK_AHEAD),
        ]
        if not crash:
            for duty in duties:
                await duty()
            return
        doomed = self.dice.choice([0, 1, 1, 1, 2, 3, 3, 3])
        for n, duty in enumerate(duties[: doomed + 1]):
            if n == doomed:
                await self._killed(scheduler, duty, "scheduler")
            else:
                await duty()

    async def _killed(self, who: Timeline, duty: Callable[[], Awaitable[object]], name: str) -> None:
        """Dies within the duty, or after it when the fuse was too long for it."""
        assert isinstance(who.database, FusedDatabase)
        who.database.fuse.light(self.dice.randint(1, 9), after=self.dice.random() < 0.5)
        try:
            await duty()
            self.seen[f"{name} killed after a commit"] += 1
        except Killed:
            self.seen[f"{name} killed within"] += 1
        finally:
            who.database.fuse.quench()

    # --- what the worker does -----------------------------------------------------------------------------------------

    async def work(self) -> None:
        due = [claim for until, claim in self.running if until <= self.clock.now()]
        self.running = [(until, claim) for until, claim in self.running if until > self.clock.now()]
        states = [State.SUCCEEDED, State.SUCCEEDED, State.SUCCEEDED, State.FAILED]
        for state in set(states):
            await self.eye.finish([claim for claim in due if claim.uid.int % 4 == 0 or state is State.SUCCEEDED], state)
        found = await self.eye.query("SELECT uid FROM executions WHERE state = 'QUEUED'")
        claims = await self.eye.claim([row["uid"] for row in found])
        slow = [claim for claim in claims if self.dice.random() < 0.15]
        await self.eye.finish([claim for claim in claims if claim not in slow])
        self.running += [(self.clock.now() + self.dice.choice([MINUTE, HOUR, 9 * HOUR]), claim) for claim in slow]
        self.seen["claimed"] += len(claims)

    # --- what callers do ----------------------------------------------------------------------------------------------

    async def call(self, *, crash: bool) -> None:
        """Some change by a caller, maybe ended by a crash of the server."""
        paused = await self.eye.query("SELECT uid FROM schedules WHERE paused ORDER BY uid")
        among = [row["uid"] for row in paused] if paused and self.dice.random() < 0.5 else self.schedules
        schedule = await self.eye.read(self.dice.choice(among))
        store, now = self.caller.store, self.clock.now()
        resume: Change = ("resume", lambda: store.resume_schedule(schedule))
        is_paused = schedule.state is ScheduleState.PAUSED
        name, duty = resume if is_paused else self.dice.choice(self._changes(schedule, now))
        await self.check()
        self.seen[name] += 1
        if crash:
            await self._killed(self.caller, duty, "server")
        else:
            await duty()

    def _changes(self, schedule: Schedule, now: datetime) -> list[Change]:
        timing = schedule.timing
        zone = self.dice.choice(["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"])
        limit = None if timing.max_firings is None else timing.max_firings + 2
        changed = replace(timing, time_zone=zone, max_firings=limit, jitter=self.dice.choice([0, 7]) * MINUTE)
        dates = frozenset(START.date() + timedelta(days=self.dice.randrange(33)) for _ in range(4))

        async def cancel_plan() -> None:
            planned = [row["uid"] for row in await self.eye.plans(schedule) if row["state"] == "PENDING"]
            if planned:
                await self.eye.store.cancel_execution(schedule.job_id, planned[-1])

        async def backfill() -> None:
            start, end = now - DAY, now
            total = len(fires_between(timing, start, end, 1000))
            await self.eye.backfill(schedule, start, end, total, rate=7)

        # What has no firing ahead cannot be paused.
        active = schedule.state is ScheduleState.ACTIVE
        pause: list[Change] = [("pause", lambda: self.caller.store.pause_schedule(schedule, "somebody", "a reason"))]
        return [
            *(pause * 2 if active else []),
            ("update", lambda: self.caller.update(schedule, changed)),
            ("calendar", lambda: self.caller.change_calendar("holidays", ExcludedDates(dates))),
            ("cancel", cancel_plan),
            ("backfill", backfill),
        ]

    # --- the month ----------------------------------------------------------------------------------------------------

    async def next_moment(self) -> datetime:
        """Shortly before or after what is next; within the minute in which nothing is missed yet."""
        ahead = await self.eye.releasing.look_ahead()
        moments = [moment for moment in (ahead.next_ready, ahead.next_advance) if moment is not None]
        moments += [until for until, _ in self.running]
        later = [moment for moment in moments if moment > self.clock.now()]
        nearest = min([*later, self.clock.now() + 6 * HOUR])
        return max(self.clock.now() + SECOND, nearest + self.dice.uniform(-0.9, 40) * SECOND)

    async def check(self) -> None:
        """Nothing unaccounted, doubled or unexpected since the last check."""
        await self.eye.assert_sound(self.checked)
        self.checked = self.clock.now() - HOUR

    async def live(self, crashes: int) -> None:
        chance = crashes / 1000
        while (now := self.clock.now()) < END or self.seen["crashes"] < crashes:
            self.clock.advance(await self.next_moment() - now)
            left = crashes - self.seen["crashes"]
            days = max((END - now) / DAY, 0.5)
            # So many a day that they are all used up in the month.
            chance = min(0.9, left / days / 24)
            crash = left > 0 and self.dice.random() < chance
            self.seen["crashes"] += crash
            if self.dice.random() < 0.12:
                await self.call(crash=crash)
            else:
                await self.ring(crash=crash)
            if crash:
                await self._after_crash()
            await self.work()
            self.seen["rings"] += 1

    async def _after_crash(self) -> None:
        match self.dice.randrange(12):
            case 0 | 1 | 2 | 3:
                pass
            case 4 | 5 | 6 | 7 | 8:
                self.clock.advance(self.dice.uniform(1, 55))
            case 9 | 10:
                self.clock.advance(self.dice.uniform(2, 40) * MINUTE)
            case _:
                # Longer than most windows.
                self.clock.advance(self.dice.uniform(3, 14) * HOUR)
                self.seen["outages"] += 1
        if self.dice.random() < 0.5:
            await self._take_over()
        await self.check()


@pytest.mark.timeout(180)
def test_no_crash_of_the_scheduler_loses_or_doubles_a_firing(database_url: str) -> None:
    print(f"SCHEDULING_TEST_SEED={SEED} SCHEDULING_TEST_CRASHES={CRASHES}")

    async def scenario() -> None:
        month = Month(database_url, SEED)
        for database in month.databases:
            await database.__aenter__()
        try:
            await month.begin()
            await month.live(CRASHES)
            # Nobody is killed any more: what was left open is caught up with.
            month.clock.advance(9 * HOUR)
            for _ in range(5):
                month.clock.advance(2 * SECOND)
                await month.ring(crash=False)
                await month.work()
            expected = await month.eye.assert_sound(START - SECOND)
            assert expected > 500
            assert await month.eye.verifying.stuck() == []
            await assert_each_firing_has_one_execution(month.eye)
            kinds = {kind: n for kind, n in month.seen.items() if "killed" in kind}
            assert month.seen["crashes"] == CRASHES == sum(kinds.values())
            rows = await month.eye.query(
                "SELECT (SELECT count(*) FROM executions) + (SELECT count(*) FROM "
                "execution_history) AS made, sum(firings) AS left_out FROM schedule_gaps"
            )
            print(dict(month.seen), f"{expected} firings since the last updates", rows)
        finally:
            for each in (*month.schedulers, month.caller, month.eye):
                await each.close()
                await each.database.__aexit__()

    run(scenario(), patience=170)


async def assert_each_firing_has_one_execution(eye: Timeline) -> None:
    """Whatever was updated in between: never two executions of one schedule and nominal time, never over a limit."""
    twice = await eye.query(
        "SELECT schedule_uid, nominal_time, count(*) FROM (SELECT schedule_uid, nominal_time, origin FROM executions "
        "UNION ALL SELECT schedule_uid, nominal_time, origin FROM execution_history) AS e "
        "WHERE origin = 'SCHEDULED' GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert twice == []
    over = await eye.query(
        "SELECT schedule_id, fired_count, max_firings FROM schedules WHERE fired_count > max_firings"
    )
    assert over == []
    overlapping = await eye.query(
        "SELECT a.schedule_uid FROM schedule_gaps a JOIN schedule_gaps b USING (schedule_uid) "
        "WHERE a.from_time < b.from_time AND a.to_time >= b.from_time"
    )
    assert overlapping == []
