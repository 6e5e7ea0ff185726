"""Jobs: read, list, change, end, delete, run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from scheduling.domain.backfill import BackfillState
from scheduling.domain.errors import AlreadyExists, WrongState
from scheduling.domain.execution import Origin, Reason
from scheduling.domain.ids import execution_id
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.lifecycle import UNFINISHED, State
from scheduling.domain.pause import Scope
from scheduling.operations.ports import JobChange, NewRun, PageRequest
from scheduling.storage import rows
from scheduling.storage.auditing import note_change
from scheduling.storage.database import Database
from scheduling.storage.history import end_waiting
from scheduling.storage.lists import (
    Position,
    SortKey,
    Walk,
    named,
    of_principals,
    page_bounds,
    read_stretches,
    text_key,
    uid_key,
)
from scheduling.storage.notify import CHANNEL
from scheduling.storage.tables import (
    backfills,
    execution_history,
    executions,
    jobs,
    request_ids,
    schedule_gaps,
    schedules,
)

_UNFINISHED = [state.value for state in UNFINISHED]


def _has(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether the job has a row of that kind: one probe of the table's index on the job.

    As EXISTS the planner may read the whole table into a hash instead, for a page of few jobs too.
    """
    probe = sa.select(sa.true()).where(table.c.job_uid == jobs.c.uid, *conditions).limit(1)
    return sa.func.coalesce(probe.scalar_subquery(), sa.false())


_is_unfinished = _has(executions, executions.c.state.in_(_UNFINISHED))
_recurs = _has(schedules, schedules.c.evaluated_until < sa.text("'infinity'"))
_was_used = sa.or_(_has(schedules), _has(executions), _has(execution_history))
#: COMPLETED is derived: the job was used, and nothing is ahead or open. What is cheap to know is looked at first.
job_state = sa.case(
    (jobs.c.cancel_time.is_not(None), "CANCELLED"),
    (_recurs, "ACTIVE"),
    (_is_unfinished, "ACTIVE"),
    (_was_used, "COMPLETED"),
    else_="ACTIVE",
).label("state")
_next_fire = (
    sa.select(sa.func.min(executions.c.nominal_time))
    .where(
        executions.c.job_uid == jobs.c.uid,
        executions.c.state.in_(["PENDING", "QUEUED"]),
        executions.c.origin == "SCHEDULED",
        executions.c.attempt == 0,
    )
    .scalar_subquery()
    .label("next_fire_time")
)

FILTER_COLUMNS = {
    "job_id": jobs.c.job_id,
    "display_name": jobs.c.display_name,
    "target": jobs.c.target,
    "queue": jobs.c.queue,
    "owner": jobs.c.owner,
    "principal": jobs.c.principal,
    "state": job_state.element,
    "create_time": jobs.c.create_time,
    "update_time": jobs.c.update_time,
    "labels": jobs.c.labels,
}
_SORT_KEYS: dict[str, list[SortKey]] = {
    "create_time": [uid_key(jobs.c.uid)],
    "job_id": [text_key(jobs.c.job_id)],
}


def select_jobs(*, with_payload: bool) -> sa.Select[Any]:
    """Jobs with what is derived about them."""
    columns = [column for column in jobs.c if column.name != "request"]
    request = jobs.c.request if with_payload else sa.null().label("request")
    size = sa.func.octet_length(jobs.c.request).label("request_bytes")
    return sa.select(*columns, request, size, job_state, _next_fire)


def select_page(page: PageRequest, until: Position | None = None) -> sa.Select[Any]:
    """The jobs of one page, up to `until`, and one more: first which ones, then what is derived about them."""
    keys = _SORT_KEYS[page.order]
    bounded = page_bounds(sa.select(jobs.c.uid, jobs.c.job_id), page, keys, FILTER_COLUMNS, until)
    if page.principals is not None:
        bounded = of_principals(bounded, jobs.c.principal, page, keys)
    uids = bounded.subquery("page")
    order = [key.column.desc() if page.descending else key.column.asc() for key in keys]
    return select_jobs(with_payload=page.with_payload).join(uids, uids.c.uid == jobs.c.uid).order_by(*order)


def _walks(page: PageRequest) -> list[Walk]:
    """Along which index a page looks for what its filter lets through: there is one for each principal and for each
    owner in the order of creation, and one for all by id.
    """
    keys, owners = _SORT_KEYS[page.order], named(page.filter, "owner")
    if page.order == "job_id":
        return [] if page.filter is None and page.principals is None else [Walk(keys)]
    if page.filter is None:
        return []
    if owners is not None and len(owners) == 1:
        return [Walk(keys, [jobs.c.owner == next(iter(owners))])]
    if page.principals is not None:
        return [Walk(keys, [jobs.c.principal == principal]) for principal in sorted(page.principals)]
    return [Walk(keys)]


class JobStore:
    """The job part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_job(self, job_id: str, *, with_payload: bool) -> Job | None:
        """The job of that id."""
        async with self._database.begin() as connection:
            return await _read(connection, jobs.c.job_id == job_id, with_payload=with_payload)

    async def get_jobs_by_uid(self, uids: Sequence[UUID]) -> Sequence[Job]:
        """Those of the jobs that exist, in the order of `uids`."""
        select = select_jobs(with_payload=True).where(jobs.c.uid.in_(uids))
        async with self._database.begin() as connection:
            found = {row["uid"]: rows.job(row) for row in (await connection.execute(select)).mappings()}
        return [found[uid] for uid in uids if uid in found]

    async def list_jobs(self, page: PageRequest) -> tuple[Sequence[Job], Position | None]:
        """One page; by primary key or by one of the indexes on job_id, owner and principal.

        What is derived is derived for the jobs of the page only, a few probes of indexes each. A filter that names
        `state` has to derive it before: it costs these probes for every job that is looked at.
        """
        async with self._database.begin() as connection:
            found, position = await read_stretches(connection, select_page, page, _SORT_KEYS[page.order], _walks(page))
        return [rows.job(row) for row in found], position

    async def update_job(self, job: Job, change: JobChange) -> Job | None:
        """Changes the job under its row's lock; waiting executions follow, claimed ones keep the request they were
        claimed with.
        """
        async with self._database.begin() as connection:
            current = await _lock(connection, job.job_id)
            if current is None or current["uid"] != job.uid or current["revision"] != job.revision:
                return None
            values = _changed(change)
            # The scheduler plans under the lock of the schedule: a plan it makes after this sees the new job.
            await connection.execute(sa.select(schedules.c.uid).where(schedules.c.job_uid == job.uid).with_for_update())
            await lock_unfinished(connection, executions.c.job_uid == job.uid)
            if change.request is not None:
                # One key, one request: what was sent before under this key is what later attempts send.
                await connection.execute(
                    executions.update()
                    .where(
                        executions.c.job_uid == job.uid,
                        executions.c.job_revision > 0,
                        executions.c.request.is_(None),
                    )
                    .values(
                        request=sa.select(jobs.c.request).where(jobs.c.uid == job.uid).scalar_subquery(),
                        request_type=job.request_type,
                    )
                )
            await connection.execute(
                jobs.update()
                .where(jobs.c.uid == job.uid)
                .values(**values, revision=jobs.c.revision + 1, update_time=self._database.moment())
            )
            waiting: dict[str, Any] = {}
            if change.queue is not None:
                waiting["queue"] = change.queue.value
                # What a pause of the queue before holds, that queue's resume alone would let go.
                waiting["held_by"] = sa.func.nullif(executions.c.held_by, Scope.QUEUE.held_by(job.queue.value))
            if change.overlap_policy is not None or change.clear_overlap_policy:
                waiting["overlap"] = _overlap_of(change.overlap_policy)
            if change.retry_policy is not None:
                waiting["expire_time"] = executions.c.due_time + change.retry_policy.max_age
            if waiting:
                await connection.execute(
                    executions.update()
                    .where(executions.c.job_uid == job.uid, executions.c.state == State.PENDING.value)
                    .values(**waiting)
                )
            updated = await _read(connection, jobs.c.uid == job.uid, with_payload=True)
            await note_change(connection, self._database.moment(), job.name, job, updated)
            return updated

    async def cancel_job(self, job_id: str, revision: int | None) -> Job | None:
        """Ends the job: locks job, then schedules, then executions."""
        async with self._database.begin() as connection:
            current = await _lock(connection, job_id)
            if current is None or (revision is not None and current["revision"] != revision):
                return None
            uid = current["uid"]
            moment = self._database.moment()
            if current["cancel_time"] is None:
                # A step of a backfill that is under way is waited for, and what it makes is ended below.
                await end_backfills(connection, backfills.c.job_uid == uid)
                await connection.execute(
                    jobs.update()
                    .where(jobs.c.uid == uid)
                    .values(cancel_time=moment, update_time=moment, revision=jobs.c.revision + 1)
                )
                await connection.execute(
                    schedules.update()
                    .where(schedules.c.job_uid == uid)
                    .values(
                        evaluated_until=sa.text("'infinity'"),
                        revision=schedules.c.revision + 1,
                        update_time=moment,
                    )
                )
                await lock_unfinished(connection, executions.c.job_uid == uid)
                await end_waiting(connection, executions.c.job_uid == uid, State.CANCELLED, Reason.CALLER, moment)
                await connection.execute(ask_to_stop(executions.c.job_uid == uid, moment))
                await note_change(connection, moment, f"jobs/{job_id}", {"cancelled": False}, {"cancelled": True})
            return await _read(connection, jobs.c.uid == uid, with_payload=True)

    async def delete_job(self, job: Job, *, force: bool, at_revision: bool = False) -> bool:
        """Deletes everything of the job, its history too."""
        async with self._database.begin() as connection:
            current = await _lock(connection, job.job_id)
            if current is None or current["uid"] != job.uid:
                return True
            if at_revision and current["revision"] != job.revision:
                return False
            # First of all: a step of a backfill that is under way is waited for, and what it makes is seen below.
            gone = await connection.execute(
                backfills.delete().where(backfills.c.job_uid == job.uid).returning(backfills.c.state)
            )
            makes_more = BackfillState.RUNNING.value in set(gone.scalars())
            await connection.execute(sa.select(schedules.c.uid).where(schedules.c.job_uid == job.uid).with_for_update())
            states = await lock_unfinished(connection, executions.c.job_uid == job.uid)
            if State.RUNNING.value in states:
                raise WrongState(
                    f"{job.name} is running; cancel it and delete it when its calls have ended", subject=job.name
                )
            if not force and (states or makes_more):
                raise WrongState(
                    f"{job.name} has executions planned or waiting; cancel it first or set force",
                    subject=job.name,
                    reason="NOT_FINISHED",
                )
            owned = sa.select(schedules.c.uid).where(schedules.c.job_uid == job.uid)
            await connection.execute(schedule_gaps.delete().where(schedule_gaps.c.schedule_uid.in_(owned)))
            for table in (schedules, executions, execution_history):
                await connection.execute(table.delete().where(table.c.job_uid == job.uid))
            await connection.execute(jobs.delete().where(jobs.c.uid == job.uid))
            await note_change(connection, self._database.moment(), job.name, before=job)
            return True

    async def find_answer(self, principal: str, request_id: str, digest: bytes) -> Sequence[UUID] | None:
        """What the first call with this request_id made, None if there was none. AlreadyExists for another body."""
        where = (request_ids.c.principal == principal, request_ids.c.request_id == request_id)
        async with self._database.begin() as connection:
            row = (await connection.execute(sa.select(request_ids).where(*where))).mappings().first()
        if row is None:
            return None
        if bytes(row["digest"]) != digest:
            raise other_body(request_id)
        return list(row["answer"])

    async def add_run(self, run: NewRun) -> UUID:
        """Stores a manual execution, due now."""
        async with self._database.begin() as connection:
            first = await claim_request_id(connection, run.principal, run.request_id, run.digest, run.uid)
            if first is not None:
                return first
            moment = self._database.moment()
            job = await use_job(connection, run.job_uid, moment)
            refuse_cancelled(job)
            assert job is not None
            overlap = job["overlap_policy"] if run.overlap_policy is None else run.overlap_policy.value
            await connection.execute(
                executions.insert().values(
                    uid=run.uid,
                    job_uid=job["uid"],
                    origin=Origin.MANUAL.value,
                    target=job["target"],
                    queue=job["queue"],
                    owner=job["owner"],
                    state=State.PENDING.value,
                    nominal_time=moment,
                    due_time=moment,
                    ready_time=moment,
                    expire_time=moment + job["max_age"],
                    create_time=moment,
                    request=run.request,
                    request_type=run.request_type,
                    retention_days=job["retention_days"],
                    principal=job["principal"],
                    overlap=None if overlap == OverlapPolicy.ALLOW_ALL.value else overlap,
                    recurring=False,
                )
            )
            await connection.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
            made = {"origin": Origin.MANUAL.value, "own_request": run.request is not None, "overlap_policy": overlap}
            name = f"jobs/{job['job_id']}/executions/{execution_id(run.uid)}"
            await note_change(connection, moment, name, after=made)
            return run.uid


async def use_job(connection: AsyncConnection, uid: UUID, moment: sa.ColumnElement[datetime]) -> sa.RowMapping | None:
    """Locks the job that is given more to do than it was created with, and says so in its row; None if there is none.

    Pruning lets go of a job whose row has changed since it looked.
    """
    used = jobs.update().where(jobs.c.uid == uid).values(used_time=moment).returning(*jobs.c)
    return (await connection.execute(used)).mappings().first()


async def claim_request_id(
    connection: AsyncConnection, principal: str, request_id: str, digest: bytes, answer: UUID
) -> UUID | None:
    """Takes the request_id for `answer`, or returns the answer of the call that took it first.

    A concurrent first call is waited for. Raises AlreadyExists when that call had another body.
    """
    if not request_id:
        return None
    taken = await connection.execute(
        insert(request_ids)
        .values(principal=principal, request_id=request_id, digest=digest, answer=[answer])
        .on_conflict_do_nothing()
        # The driver does not tell how many rows an INSERT made.
        .returning(request_ids.c.request_id)
    )
    if taken.first() is not None:
        return None
    where = (request_ids.c.principal == principal, request_ids.c.request_id == request_id)
    row = (await connection.execute(sa.select(request_ids).where(*where))).mappings().one()
    if bytes(row["digest"]) != digest:
        raise other_body(request_id)
    first: UUID = row["answer"][0]
    return first


async def lock_unfinished(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> set[str]:
    """Locks unfinished executions, so that nothing moves them before the transaction ends, and returns their states."""
    select = (
        sa.select(executions.c.state)
        .where(which, executions.c.state.in_(_UNFINISHED))
        .order_by(executions.c.uid)
        .with_for_update()
    )
    return set(await connection.scalars(select))


def other_body(request_id: str) -> AlreadyExists:
    """The error for a request_id that was used for something else."""
    return AlreadyExists(
        f"request_id {request_id!r} was used for another request; a new request needs a new request_id",
        resource_type="request_id",
        name=request_id,
        reason="REQUEST_ID_REUSED",
    )


def refuse_cancelled(job: Any) -> None:
    """Raises WrongState unless the job is there and not cancelled."""
    if job is None:
        raise WrongState("the job was deleted in between", subject="job", reason="DELETED")
    if job["cancel_time"] is not None:
        name = f"jobs/{job['job_id']}"
        raise WrongState(f"{name} is CANCELLED; create another job", subject=name, reason="JOB_CANCELLED")


def ask_to_stop(which: sa.ColumnElement[bool], moment: sa.ColumnElement[datetime]) -> sa.Update:
    """Asks the workers of running executions to cancel their calls."""
    return (
        executions.update()
        .where(which, executions.c.state == State.RUNNING.value, executions.c.cancel_request_time.is_(None))
        .values(cancel_request_time=moment)
    )


async def end_backfills(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
    """Ends running backfills; waits for the step of one that is under way."""
    await connection.execute(
        backfills.update()
        .where(which, backfills.c.state == BackfillState.RUNNING.value)
        .values(state=BackfillState.CANCELLED.value)
    )


def _overlap_of(policy: OverlapPolicy | None) -> sa.ColumnElement[str | None]:
    if policy is None:
        return sa.case((executions.c.recurring, OverlapPolicy.SKIP.value), else_=sa.null())
    return sa.literal(None if policy is OverlapPolicy.ALLOW_ALL else policy.value, sa.Text())


def _changed(change: JobChange) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.display_name is not None:
        values["display_name"] = change.display_name
    if change.request is not None:
        values["request"] = change.request
    if change.queue is not None:
        values["queue"] = change.queue.value
    if change.retry_policy is not None:
        policy = change.retry_policy
        values |= {
            "max_attempts": policy.max_attempts,
            "initial_backoff": policy.initial_backoff,
            "backoff_multiplier": policy.backoff_multiplier,
            "max_backoff": policy.max_backoff,
            "max_age": policy.max_age,
            "after_lost_worker": policy.after_lost_worker.value,
        }
    if change.timeout is not None:
        values["timeout"] = change.timeout
    if change.overlap_policy is not None or change.clear_overlap_policy:
        values["overlap_policy"] = None if change.overlap_policy is None else change.overlap_policy.value
    if change.labels is not None:
        values["labels"] = dict(change.labels)
    return values


async def _lock(connection: AsyncConnection, job_id: str) -> Any:
    select = sa.select(jobs.c.uid, jobs.c.revision, jobs.c.cancel_time).where(jobs.c.job_id == job_id).with_for_update()
    return (await connection.execute(select)).mappings().first()


async def _read(connection: AsyncConnection, where: sa.ColumnElement[bool], *, with_payload: bool) -> Job | None:
    row = (await connection.execute(select_jobs(with_payload=with_payload).where(where))).mappings().first()
    return None if row is None else rows.job(row)
