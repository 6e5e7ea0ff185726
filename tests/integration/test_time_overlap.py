"""Each overlap policy against each origin of an execution, driven by the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import pytest

from scheduling.domain.execution import Origin
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.overlap import BUFFER_LIMIT
from scheduling.domain.schedule import Schedule
from scheduling.domain.timing import Interval, Once
from tests.support.clock import START
from tests.support.run import run
from tests.support.timeline import DAY, HOUR, MINUTE, SECOND, Timeline, timeline

SKIP, ONE, ALL = OverlapPolicy.SKIP, OverlapPolicy.BUFFER_ONE, OverlapPolicy.BUFFER_ALL
CANCEL, TERMINATE, ALLOW = OverlapPolicy.CANCEL_OTHER, OverlapPolicy.TERMINATE_OTHER, OverlapPolicy.ALLOW_ALL
POLICIES = (SKIP, ONE, ALL, CANCEL, TERMINATE, ALLOW)


@dataclass
class Expected:
    """What becomes of three executions that come due one after the other while another one runs.

    A letter each: Q queued at once, H held, S skipped, R replaced (cancelled before it began).
    """

    fates: str
    #: Whether the running one is asked to stop.
    asked: bool = False
    #: Which of the three runs once the running one has ended, by place; "" when none waits.
    then: str = ""
    reasons: set[str] = field(default_factory=set)


TABLE = {
    SKIP: Expected("SSS", reasons={"OVERLAP"}),
    ONE: Expected("HSS", then="1", reasons={"OVERLAP"}),
    ALL: Expected("HHH", then="123"),
    CANCEL: Expected("RRH", asked=True, then="3", reasons={"REPLACED"}),
    TERMINATE: Expected("RRQ", asked=True, reasons={"REPLACED"}),
    ALLOW: Expected("QQQ"),
}


async def fate(line: Timeline, uid: UUID) -> tuple[str, str]:
    """The letter of an execution, and its reason."""
    live = await line.query("SELECT state, held_by, reason FROM executions WHERE uid = %s", uid)
    if live:
        letter = {"QUEUED": "Q", "PENDING": "H" if live[0]["held_by"] else "P", "RUNNING": "X"}[live[0]["state"]]
        return letter, ""
    (ended,) = await line.query("SELECT state, reason FROM execution_history WHERE uid = %s", uid)
    return {"SKIPPED": "S", "CANCELLED": "R", "SUCCEEDED": "D"}[ended["state"]], ended["reason"]


async def come_due(line: Timeline, schedule: Schedule, origin: Origin, policy: OverlapPolicy) -> list[UUID]:
    """Three executions of that origin, released one after the other; returns them in order."""
    found: list[UUID] = []
    for n in range(1, 4):
        match origin:
            case Origin.SCHEDULED:
                line.clock.advance(HOUR)
                await line.advance()
            case Origin.MANUAL:
                line.clock.advance(MINUTE)
                found.append(await line.run_now(await job_of(line, schedule), policy))
            case Origin.BACKFILL:
                line.clock.advance(MINUTE)
                start = START - n * DAY
                await line.backfill(schedule, start, start + HOUR, 1, rate=1, overlap=policy)
                assert await line.backfilling.step_backfills(line.term) == 1
        await line.release()
    if origin is not Origin.MANUAL:
        rows = await line.query(
            "SELECT uid, nominal_time FROM (SELECT uid, nominal_time, schedule_uid, origin, due_time, create_time "
            "FROM executions UNION ALL SELECT uid, nominal_time, schedule_uid, origin, due_time, create_time FROM "
            "execution_history) AS e WHERE schedule_uid = %s AND origin = %s AND due_time > %s AND due_time <= %s "
            "ORDER BY due_time",
            schedule.uid,
            origin.value,
            START + HOUR,
            line.now,
        )
        found = [row["uid"] for row in rows]
    return found


async def job_of(line: Timeline, schedule: Schedule) -> Job:
    job = await line.store.get_job(schedule.job_id, with_payload=False)
    assert job is not None
    return job


@pytest.mark.parametrize("origin", list(Origin))
@pytest.mark.parametrize("policy", POLICIES)
def test_what_comes_due_while_another_runs(database_url: str, policy: OverlapPolicy, origin: Origin) -> None:
    expected = TABLE[policy]
    # The override of a manual run or a backfill decides, whatever the job says.
    of_job = policy if origin is Origin.SCHEDULED else (SKIP if policy is not SKIP else ALLOW)

    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Interval(HOUR), overlap=of_job)
            line.clock.advance(HOUR)
            (running,) = await line.claim(await line.tick())
            three = await come_due(line, schedule, origin, policy)
            assert len(three) == 3
            fates = [await fate(line, uid) for uid in three]
            assert "".join(letter for letter, _ in fates) == expected.fates
            assert {reason for _, reason in fates if reason} == expected.reasons
            (row,) = await line.query("SELECT cancel_request_time FROM executions WHERE uid = %s", running.uid)
            assert (row["cancel_request_time"] is not None) == expected.asked
            # The running one ends: what waits follows, one after the other.
            await line.finish([running], State.CANCELLED if expected.asked else State.SUCCEEDED)
            order = []
            while released := await line.release():
                order += [str(three.index(uid) + 1) for uid in released]
                await line.serve()
            assert "".join(order) == expected.then
            stored = await line.read(schedule.uid)
            skips = expected.fates.count("S") if origin is Origin.SCHEDULED else 0
            assert stored.skipped == ({"OVERLAP": skips} if skips else {})
            await line.assert_sound(START)

    run(scenario())


@pytest.mark.parametrize("policy", POLICIES)
def test_without_an_override_runs_and_firings_follow_the_job(database_url: str, policy: OverlapPolicy) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Interval(HOUR), overlap=policy)
            line.clock.advance(HOUR)
            await line.claim(await line.tick())
            line.clock.advance(MINUTE)
            uid = await line.run_now(await job_of(line, schedule))
            await line.release()
            letter, _ = await fate(line, uid)
            assert letter == {SKIP: "S", ONE: "H", ALL: "H", CANCEL: "H", TERMINATE: "Q", ALLOW: "Q"}[policy]

    run(scenario())


def test_skip_is_the_default_of_recurring_schedules_and_not_of_one_offs(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            cron = await line.schedule(Interval(HOUR))
            job = await line.job()
            for _ in range(2):
                new = line.new_schedule(Once(START + HOUR))
                await line.store.add_schedule(job, new, principal="p", request_id="", digest=b"", limit=10)
            line.clock.advance(HOUR)
            await line.claim(await line.tick())
            line.clock.advance(HOUR)
            assert await line.tick() == []
            assert (await line.read(cron.uid)).skipped == {"OVERLAP": 1}
            running = await line.query("SELECT count(*) AS n FROM executions WHERE state = 'RUNNING'")
            assert running[0]["n"] == 3

    run(scenario())


def test_a_buffer_has_an_end_and_says_so(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            schedule = await line.schedule(Interval(SECOND), overlap=ALL)
            line.clock.advance(SECOND)
            await line.claim((await line.tick())[:1])
            for _ in range(11):
                line.clock.advance(100 * SECOND / 2)
                await line.tick()
                line.clock.advance(100 * SECOND / 2)
                await line.tick()
            stored = await line.read(schedule.uid)
            assert stored.buffered == BUFFER_LIMIT
            assert set(stored.skipped) == {"BUFFER_FULL"}
            assert 98 <= stored.skipped["BUFFER_FULL"] <= 100
            assert stored.fired_count == 1
            await line.assert_sound(START)

    run(scenario())


def test_a_paused_one_off_is_in_nobodys_way(database_url: str) -> None:
    async def scenario() -> None:
        async with timeline(database_url) as line:
            for policy in (SKIP, CANCEL):
                schedule = await line.schedule(Interval(HOUR), overlap=policy)
                job = await job_of(line, schedule)
                new = line.new_schedule(Once(line.now + 30 * DAY))
                await line.store.add_schedule(job, new, principal="p", request_id="", digest=b"", limit=10)
                await line.pause(await line.read(new.uid))
                for _ in range(2):
                    line.clock.advance(HOUR)
                    await line.tick()
                    await line.serve()
                assert len(await line.nominals(schedule, "SUCCEEDED")) == 2
                (plan,) = await line.query("SELECT state, held_by FROM executions WHERE schedule_uid = %s", new.uid)
                assert plan == {"state": "PENDING", "held_by": "PAUSED"}
                await line.pause(schedule)

    run(scenario())
