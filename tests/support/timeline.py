"""Recurring schedules on the real stores with a clock of the test: made, advanced, released and run by hand."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from whispr.siblings import messaging_pb2

from scheduling.domain.accounting import Account, audit
from scheduling.domain.calendar import PlainExclusion, SharedCalendar
from scheduling.domain.execution import Attempt, Claim, Outcome
from scheduling.domain.ids import uuid7
from scheduling.domain.job import Creation, Job, JobSpec, NewJob, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.recurrence import jittered, next_fire
from scheduling.domain.schedule import NewSchedule, Schedule
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.domain.timing import Interval, Once, OnDeployment, Timing, When
from scheduling.operations.ports import CalendarChange, NewBackfill, NewRun, ScheduleChange
from scheduling.storage.advancing import Advanced, AdvancingStore
from scheduling.storage.backfilling import BackfillStore
from scheduling.storage.calendars import CalendarStore
from scheduling.storage.database import Database
from scheduling.storage.delivering import DeliveryStore
from scheduling.storage.deployments import DeploymentStore
from scheduling.storage.leading import LeadingStore, WorkerIdentity
from scheduling.storage.releasing import Released, ReleasingStore
from scheduling.storage.store import PostgresStore
from scheduling.storage.verifying import VerifyingStore
from tests.support.clock import ManualClock

TARGET = "messaging.MessagingService/SendScheduledMessage"
REQUEST_TYPE = "messaging.SendScheduledMessageRequest"
PRINCIPAL = "spiffe://cluster.local/ns/whispr/sa/messaging-service"
#: How far ahead release and advance look, and how early a claim may be.
LOOK_AHEAD = timedelta(seconds=1)
LEAD = timedelta(milliseconds=20)
#: Leases and terms outlast every test.
LONG = timedelta(days=36500)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

_numbers = itertools.count(1)


def request_bytes() -> bytes:
    """A valid request for TARGET."""
    return messaging_pb2.SendScheduledMessageRequest(
        message_id="message-1", conversation_id="conversation-1", sender_id="user-1", content="Hello."
    ).SerializeToString()


def as_when(when: When | timedelta, now: datetime) -> When:
    """A timedelta stands for an interval that fires that long after `now` first."""
    return Interval(when, anchor=now) if isinstance(when, timedelta) else when


class Timeline:
    """The stores that decide when, all bound to one clock."""

    def __init__(self, url: str, clock: ManualClock, database: Database | None = None) -> None:
        self.url = url
        self.clock = clock
        self.database = database or Database(url, application="timeline", size=8, now=clock.now)
        self.store = PostgresStore(self.database, owner_daily_jobs=1_000_000, exempt_owner="")
        self.advancing = AdvancingStore(self.database)
        # Owners may run as much as they like: these tests are about time.
        self.releasing = ReleasingStore(self.database, limits=GateLimits(owner_running=1_000_000))
        self.delivering = DeliveryStore(self.database)
        self.leading = LeadingStore(self.database, clock.monotonic)
        self.calendars = CalendarStore(self.database)
        self.backfilling = BackfillStore(self.database)
        self.deployments = DeploymentStore(self.database)
        self.verifying = VerifyingStore(self.database)
        self.term = 0
        self._worker: UUID | None = None
        self._connection: psycopg.AsyncConnection[dict[str, Any]] | None = None

    @property
    def now(self) -> datetime:
        """The moment that the clock shows."""
        return self.clock.now()

    # --- making -------------------------------------------------------------------------------------------------------

    async def job(self, *, overlap: OverlapPolicy | None = None, schedule: NewSchedule | None = None) -> Job:
        """A stored job, with its first schedule if one is given."""
        (job,) = await self.store.create(
            Creation(PRINCIPAL, (self.new_job(overlap=overlap, schedule=schedule),), "", b"")
        )
        return job

    def new_job(self, *, overlap: OverlapPolicy | None = None, schedule: NewSchedule | None = None) -> NewJob:
        """A job to store."""
        number = next(_numbers)
        spec = JobSpec(
            display_name="",
            target=TARGET,
            request=request_bytes(),
            request_type=REQUEST_TYPE,
            queue=Queue.HIGH,
            retry_policy=RetryPolicy(max_attempts=4),
            timeout=timedelta(seconds=30),
            overlap_policy=overlap,
            owner=f"owner-{number}",
            labels={},
            retention_days=30,
        )
        return NewJob(uid=uuid7(self.now), job_id=f"job-{number}", principal=PRINCIPAL, spec=spec, schedule=schedule)

    def new_schedule(self, when: When | timedelta, **timing: Any) -> NewSchedule:
        """A schedule to store; further arguments are those of Timing."""
        return self.new_schedule_of(Timing(as_when(when, self.now), **timing))

    def new_schedule_of(self, rule: Timing) -> NewSchedule:
        """A schedule with that timing to store."""
        match rule.when:
            case Once(time=time):
                first: datetime | None = time
            case OnDeployment():
                first = None
            case _:
                first = next_fire(rule, self.now)
        uid = uuid7(self.now)
        return NewSchedule(
            uid=uid,
            schedule_id=f"schedule-{next(_numbers)}",
            display_name="",
            timing=rule,
            first_fire=first,
            first_ready=None if first is None else jittered(rule, uid, first),
            accept_time=self.now,
            plan_uid=uuid7(self.now),
        )

    async def schedule(
        self, when: When | timedelta = MINUTE, *, overlap: OverlapPolicy | None = None, **timing: Any
    ) -> Schedule:
        """A stored schedule of a job of its own."""
        new = self.new_schedule(when, **timing)
        await self.job(overlap=overlap, schedule=new)
        return await self.read(new.uid)

    async def calendar(self, calendar_id: str, *exclusions: PlainExclusion, zone: str | None = None) -> SharedCalendar:
        """A stored shared calendar."""
        return await self.calendars.create_calendar(
            SharedCalendar(uuid7(self.now), calendar_id, "", exclusions, zone, 1, self.now, self.now)
        )

    async def change_calendar(self, calendar_id: str, *exclusions: PlainExclusion) -> None:
        """Gives a shared calendar other exclusions."""
        calendar = await self.calendars.get_calendar(calendar_id)
        assert calendar is not None
        assert await self.calendars.update_calendar(calendar, CalendarChange(exclusions=exclusions)) is not None

    async def backfill(
        self, schedule: Schedule, start: datetime, end: datetime, total: int, *, rate: int = 10, **more: Any
    ) -> UUID:
        """A stored backfill of [start, end)."""
        overlap = more.get("overlap", OverlapPolicy.BUFFER_ALL)
        new = NewBackfill(uuid7(self.now), schedule, start, end, total, rate, overlap, PRINCIPAL)
        return await self.backfilling.add_backfill(new)

    async def run_now(self, job: Job, overlap: OverlapPolicy | None = None) -> UUID:
        """A manual execution, due now."""
        return await self.store.add_run(
            NewRun(uuid7(self.now), job.uid, PRINCIPAL, request=None, request_type=None, overlap_policy=overlap)
        )

    # --- changing -----------------------------------------------------------------------------------------------------

    async def update(self, schedule: Schedule, timing: Timing) -> Schedule:
        """Gives the schedule another timing; it must not have been changed since it was read."""
        updated = await self.store.update_schedule(schedule, ScheduleChange(timing=timing))
        assert updated is not None
        return updated

    async def pause(self, schedule: Schedule, note: str = "") -> Schedule:
        """Pauses it as it is now."""
        paused = await self.store.pause_schedule(await self.read(schedule.uid), PRINCIPAL, note)
        assert paused is not None
        return paused

    async def resume(self, schedule: Schedule) -> Schedule:
        """Resumes it as it is now."""
        resumed = await self.store.resume_schedule(await self.read(schedule.uid))
        assert resumed is not None
        return resumed

    # --- going on -----------------------------------------------------------------------------------------------------

    async def lead(self) -> int:
        """Takes leadership for as long as the test lasts."""
        term = await self.leading.acquire(uuid4(), LONG)
        assert term is not None, "somebody leads already"
        self.term = term
        return term

    async def advance(self, ahead: timedelta = LOOK_AHEAD) -> int:
        """Advances until nothing is left to do; returns how many firings were missed."""
        if not self.term:
            await self.lead()
        missed = 0
        more = True
        while more:
            step: Advanced = await self.advancing.advance(self.term, ahead)
            missed, more = missed + step.missed, step.more
        return missed

    async def release(self, ahead: timedelta = timedelta(0)) -> list[UUID]:
        """Releases until nothing is left to do; returns which ones, in order."""
        found: list[UUID] = []
        more = True
        while more:
            step: Released = await self.releasing.release(ahead)
            found += [uid for released in step.by_queue.values() for uid, _ in released]
            more = step.more
        return found

    async def tick(self, ahead: timedelta = LOOK_AHEAD) -> list[UUID]:
        """What the scheduler does at each ring; returns what was released."""
        await self.advance(ahead)
        return await self.release(ahead)

    async def claim(self, uids: Sequence[UUID], lead: timedelta = LEAD) -> Sequence[Claim]:
        """Claims those that may be claimed, as a worker whose lease never ends."""
        if self._worker is None:
            identity = WorkerIdentity(uuid7(self.now), "host", 1, "test", tuple(Queue))
            await self.leading.beat(identity, LONG, None)
            self._worker = identity.uid
        return await self.delivering.claim_if_queued(self._worker, uids, [uuid4() for _ in uids], lead)

    async def finish(self, claims: Sequence[Claim], state: State = State.SUCCEEDED) -> None:
        """Records the outcome of claims."""
        await self.delivering.record([outcome(claim, state, self.now) for claim in claims])

    async def serve(self) -> int:
        """A worker that is never late: claims and finishes everything that is queued and due; returns how many."""
        found = await self.query("SELECT uid FROM executions WHERE state = 'QUEUED' AND ready_time <= %s", self.now)
        claims = await self.claim([row["uid"] for row in found])
        await self.finish(claims)
        return len(claims)

    async def live_through(self, span: timedelta, step: timedelta) -> None:
        """Lets time pass in steps, with a scheduler and a worker that are never late."""
        end = self.now + span
        while self.now < end:
            self.clock.advance(min(step, end - self.now))
            await self.tick()
            await self.serve()
            await self.release()

    # --- looking ------------------------------------------------------------------------------------------------------

    async def read(self, uid: UUID) -> Schedule:
        """The schedule as callers see it."""
        found = await self.store.get_schedule_by_uid(uid)
        assert found is not None
        return found

    async def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """The rows of a statement of the test, over a connection of its own."""
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True, row_factory=dict_row)
        cursor = await self._connection.execute(statement.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []

    async def plans(self, schedule: Schedule) -> list[dict[str, Any]]:
        """Its live executions, by nominal time."""
        return await self.query(
            "SELECT * FROM executions WHERE schedule_uid = %s ORDER BY nominal_time, uid", schedule.uid
        )

    async def nominals(self, schedule: Schedule, *states: str, reason: str | None = None) -> list[datetime]:
        """The nominal times of its executions of origin SCHEDULED in these states, live and ended."""
        found = await self.query(
            "SELECT nominal_time FROM (SELECT schedule_uid, nominal_time, state, reason, origin FROM executions "
            "UNION ALL SELECT schedule_uid, nominal_time, state, reason, origin FROM execution_history) AS e "
            "WHERE schedule_uid = %s AND origin = 'SCHEDULED' AND state = ANY(%s) AND coalesce(%s, reason) = reason "
            "ORDER BY nominal_time",
            schedule.uid,
            list(states),
            reason,
        )
        return [row["nominal_time"] for row in found]

    async def gaps(self, schedule: Schedule) -> list[tuple[datetime, datetime, int, str]]:
        """Its gaps: first, last, count, reason."""
        found = await self.query(
            "SELECT from_time, to_time, firings, reason FROM schedule_gaps WHERE schedule_uid = %s ORDER BY from_time",
            schedule.uid,
        )
        return [(row["from_time"], row["to_time"], row["firings"], row["reason"]) for row in found]

    async def audit(self, since: datetime) -> list[Account]:
        """What `verify` finds of all recurring schedules."""
        return [audit(ledger, now) async for ledger, now in self.verifying.ledgers(since)]

    async def assert_sound(self, since: datetime) -> int:
        """Asserts that each firing is accounted for exactly once; returns how many there were."""
        accounts = await self.audit(since)
        unsound = [account for account in accounts if not account.is_sound]
        assert not unsound, unsound
        return sum(account.expected for account in accounts)

    async def close(self) -> None:
        """Closes the connection of `query`."""
        if self._connection is not None:
            await self._connection.close()


def outcome(claim: Claim, state: State, now: datetime, ready: datetime | None = None) -> Outcome:
    """The outcome of a claim whose call began and ended now."""
    attempt = Attempt(claim.attempt, now, timedelta(0), "worker", 0, "", counted=True)
    return Outcome(
        uid=claim.uid,
        token=claim.token,
        state=state,
        reason="",
        ready_time=ready,
        attempt=attempt,
        start_time=claim.start_time or now,
        history=(attempt,),
    )


@asynccontextmanager
async def timeline(url: str, clock: ManualClock | None = None) -> AsyncIterator[Timeline]:
    """The stores of one process; closed at the end."""
    made = Timeline(url, clock or ManualClock())
    async with made.database:
        try:
            yield made
        finally:
            await made.close()
