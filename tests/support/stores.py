"""The real stores of a process, on a database of the test, bound to a clock of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from scheduling.domain.execution import Attempt, Claim, Execution, Outcome, append_attempt
from scheduling.domain.ids import uuid7
from scheduling.domain.job import Job, NewJob
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.target import Queue
from scheduling.storage.advancing import Advanced, AdvancingStore
from scheduling.storage.controls import ControlStore
from scheduling.storage.database import Database
from scheduling.storage.delivering import DeliveryStore
from scheduling.storage.leading import LeadingStore, WorkerIdentity
from scheduling.storage.releasing import Released, ReleasingStore
from scheduling.storage.store import PostgresStore
from tests.support.builders import creation, every, new_job, once
from tests.support.clock import ManualClock

#: How far ahead release and advance look, and how early a claim may be, unless a test says otherwise.
LOOK_AHEAD = timedelta(seconds=1)
LEAD = timedelta(milliseconds=20)
#: Leases and terms outlast anything that a test does not let expire on purpose.
LONG = timedelta(days=3650)


class Stores:
    """All stores of one process, and short ways to do what tests do often."""

    def __init__(
        self,
        url: str,
        clock: ManualClock,
        *,
        owner_daily_jobs: int = 1_000_000,
        exempt_owner: str = "",
        queue_depth: int = 10_000,
        batch: int = 2000,
        limits: GateLimits | None = None,
        size: int = 10,
        real_now: bool = False,
        hot_timeout: timedelta = timedelta(seconds=2),
    ) -> None:
        self.url = url
        self.clock = clock
        now = None if real_now else clock.now
        self.database = Database(url, application="tests", size=size, now=now, hot_timeout=hot_timeout)
        self.store = PostgresStore(self.database, owner_daily_jobs=owner_daily_jobs, exempt_owner=exempt_owner)
        self.advancing = AdvancingStore(self.database)
        self.releasing = ReleasingStore(
            self.database, limits=limits or GateLimits(owner_running=1_000_000), queue_depth=queue_depth, batch=batch
        )
        self.controls = ControlStore(self.database)
        self.delivering = DeliveryStore(self.database)
        self.leading = LeadingStore(self.database, clock.monotonic)
        self.term = 0

    # --- doing --------------------------------------------------------------------------------------------------------

    async def create(self, *jobs: NewJob) -> Sequence[Job]:
        """Stores the jobs in one call."""
        return await self.store.create(creation(*jobs))

    async def one_off(self, time: datetime | None = None, **of_job: Any) -> UUID:
        """Stores a job that fires once, now unless given, and returns the uid of its execution."""
        now = self.clock.now()
        schedule = once(now, time)
        await self.create(new_job(now, schedule=schedule, **of_job))
        return schedule.plan_uid

    async def recurring(
        self, when: Any = timedelta(minutes=1), *, timing: Mapping[str, Any] | None = None, **of_job: Any
    ) -> Job:
        """Stores a job with a recurring schedule."""
        now = self.clock.now()
        return (await self.create(new_job(now, schedule=every(now, when, **(timing or {})), **of_job)))[0]

    async def lead(self) -> int:
        """Takes leadership for as long as the test lasts; returns the term."""
        term = await self.leading.acquire(uuid4(), LONG)
        assert term is not None, "somebody leads already"
        self.term = term
        return term

    async def advance(self, ahead: timedelta = LOOK_AHEAD) -> Advanced:
        """Advances until nothing is left to do; returns the sum."""
        if not self.term:
            await self.lead()
        total = Advanced(0, 0, 0, more=True)
        while total.more:
            step = await self.advancing.advance(self.term, ahead)
            total = Advanced(
                total.schedules + step.schedules, total.plans + step.plans, total.missed + step.missed, step.more
            )
        return total

    async def release(self, ahead: timedelta = timedelta(0)) -> Released:
        """One round of releasing what is due, or due within `ahead`."""
        return await self.releasing.release(ahead)

    async def released(self, ahead: timedelta = timedelta(0)) -> list[UUID]:
        """One round of releasing: which ones, in order."""
        found = await self.release(ahead)
        return [uid for queue in Queue for uid, _ in found.by_queue.get(queue, [])]

    async def worker(self, ttl: timedelta = LONG) -> UUID:
        """Registers a worker process and returns its id."""
        identity = WorkerIdentity(uuid7(self.clock.now()), "host", 1, "test", tuple(Queue))
        await self.leading.beat(identity, ttl, None)
        return identity.uid

    async def claim(self, worker: UUID, *uids: UUID, lead: timedelta = LEAD) -> Sequence[Claim]:
        """Claims those of `uids` that may be claimed."""
        return await self.delivering.claim_if_queued(worker, uids, [uuid4() for _ in uids], lead)

    async def running(self, worker: UUID, *uids: UUID) -> Sequence[Claim]:
        """Releases what is due and claims `uids`, all of them."""
        await self.release()
        claims = await self.claim(worker, *uids)
        assert {claim.uid for claim in claims} == set(uids)
        return claims

    async def record(self, claim: Claim, state: State = State.SUCCEEDED, **more: Any) -> bool:
        """Records an outcome for a claim; whether it was accepted."""
        return claim.uid in await self.delivering.record([self.outcome(claim, state, **more)])

    def outcome(
        self,
        claim: Claim,
        state: State = State.SUCCEEDED,
        *,
        reason: str = "",
        ready_time: datetime | None = None,
        code: int = 0,
        message: str = "",
        counted: bool = True,
        begun: bool = True,
        **more: Any,
    ) -> Outcome:
        """An outcome of a claim, started now and ended at once."""
        now = self.clock.now()
        attempt = Attempt(claim.attempt, now, timedelta(0), "worker", code, message, counted, reason)
        return Outcome(
            uid=claim.uid,
            token=claim.token,
            state=state,
            reason=reason,
            ready_time=ready_time or (now if state is State.PENDING else None),
            attempt=attempt if begun else None,
            start_time=(claim.start_time or now) if begun else claim.start_time,
            history=append_attempt(claim.history, attempt) if begun else claim.history,
            **more,
        )

    # --- looking ------------------------------------------------------------------------------------------------------

    async def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """The rows of a statement of the test, over a connection of its own."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, uid: UUID) -> dict[str, Any]:
        """The row of a live execution."""
        (row,) = await self.query("SELECT * FROM executions WHERE uid = %s", uid)
        return row

    async def ended(self, uid: UUID) -> dict[str, Any]:
        """The row of an execution in the history."""
        (row,) = await self.query("SELECT * FROM execution_history WHERE uid = %s", uid)
        return row

    async def state(self, uid: UUID) -> State:
        """Where an execution stands, live or ended."""
        rows = await self.query(
            "SELECT state FROM executions WHERE uid = %s UNION ALL SELECT state FROM execution_history WHERE uid = %s",
            uid,
            uid,
        )
        assert len(rows) == 1, f"{len(rows)} rows of {uid}"
        return State(rows[0]["state"])

    async def read(self, job_id: str, uid: UUID) -> Execution:
        """An execution as callers see it."""
        found = await self.store.get_execution(job_id, uid, with_payload=True)
        assert found is not None
        return found

    async def plans(self, job: Job) -> list[dict[str, Any]]:
        """The live executions of a job by nominal time."""
        return await self.query("SELECT * FROM executions WHERE job_uid = %s ORDER BY nominal_time, uid", job.uid)

    async def history(self, job: Job) -> list[dict[str, Any]]:
        """The ended executions of a job by nominal time."""
        return await self.query("SELECT * FROM execution_history WHERE job_uid = %s ORDER BY nominal_time", job.uid)

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        (row,) = await self.query(f"SELECT count(*) AS n FROM {table}")
        return int(row["n"])


@asynccontextmanager
async def open_stores(url: str, clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Stores]:
    """The stores of one process; closed at the end."""
    stores = Stores(url, clock or ManualClock(), **settings)
    async with stores.database:
        yield stores
