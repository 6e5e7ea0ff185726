"""Use cases of executions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduling.domain.errors import InvalidRequest, NotFound, WrongState, invalid
from scheduling.domain.execution import Execution, Origin
from scheduling.domain.filters import INTEGER, STRING, TIMESTAMP, enum_of, parse_filter
from scheduling.domain.ids import parse_execution_id
from scheduling.domain.lifecycle import State
from scheduling.domain.paging import PageToken
from scheduling.domain.target import Queue
from scheduling.operations.drafts import ListQuery
from scheduling.operations.jobs import get_job
from scheduling.operations.pages import read_page
from scheduling.operations.ports import Page, Ports

RESOURCE = "Execution"

#: How often a watch looks.
WATCH_INTERVAL = timedelta(milliseconds=250)
#: A watch with nothing to tell says at least this often that it is alive.
WATCH_ALIVE = timedelta(seconds=15)
#: Executions in one message of a watch, and open ones told at all.
WATCH_MESSAGE, WATCH_LIMIT = 500, 5000

_FIELDS = {
    "state": enum_of(State),
    "origin": enum_of(Origin),
    "target": STRING,
    "queue": enum_of(Queue),
    "owner": STRING,
    "reason": STRING,
    "held_by": STRING,
    "code": INTEGER,
    "nominal_time": TIMESTAMP,
    "ready_time": TIMESTAMP,
    "create_time": TIMESTAMP,
    "start_time": TIMESTAMP,
    "finish_time": TIMESTAMP,
    "attempt_count": INTEGER,
}


async def get_execution(ports: Ports, job_id: str, execution_id: str, *, with_payload: bool = True) -> Execution:
    """The execution, live or finished. Raises NotFound."""
    uid = parse_execution_id(execution_id)
    execution = None if uid is None else await ports.store.get_execution(job_id, uid, with_payload=with_payload)
    if execution is None:
        raise NotFound(RESOURCE, f"jobs/{job_id}/executions/{execution_id}")
    return execution


async def list_executions(ports: Ports, job_id: str | None, query: ListQuery) -> Page[Execution]:
    """A page of the executions of a job, or of all jobs for None. Raises InvalidRequest, NotFound."""
    if job_id is not None:
        await get_job(ports, job_id, with_payload=False)
    return await read_page(
        query,
        parent=job_id or "-",
        fields=_FIELDS,
        orders=("create_time", "nominal_time"),
        read=lambda page: ports.store.list_executions(job_id, page),
    )


async def cancel_execution(ports: Ports, job_id: str, execution_id: str) -> Execution:
    """Ends a waiting execution, or asks the running call to stop. Raises NotFound, WrongState."""
    execution = await get_execution(ports, job_id, execution_id)
    await ports.store.cancel_execution(job_id, execution.uid)
    after = await get_execution(ports, job_id, execution_id)
    if after.state in (State.SUCCEEDED, State.FAILED, State.SKIPPED):
        raise WrongState(
            f"{after.name} has ended already: it is {after.state}", subject=after.name, reason="ALREADY_ENDED"
        )
    return after


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """One message of a watch: executions as they are now, and where to go on after a break."""

    executions: Sequence[Execution]
    resume_token: str
    read_time: datetime


async def watch_executions(
    ports: Ports, job_id: str | None, filter_text: str, resume_token: str, *, with_payload: bool = False
) -> AsyncIterator[WatchBatch]:
    """What is open, then each change, at least once, until the caller goes. Raises InvalidRequest, NotFound.

    The token holds the moment up to which everything that ended has been told.
    """
    bound = {"watch": job_id or "-", "filter": filter_text}
    filter_ = parse_filter(filter_text, _FIELDS)
    since = _resume_from(resume_token, bound)
    if job_id is not None:
        await get_job(ports, job_id, with_payload=False)
    told: dict[UUID, tuple[object, ...]] = {}
    silent_since = ports.clock.monotonic()
    first = True
    while True:
        found, moment = await ports.store.read_changes(
            job_id, since, filter_, with_payload=with_payload, limit=WATCH_LIMIT
        )
        fresh = [each for each in found if told.get(each.uid) != _mark(each)]
        # What is no longer seen will not come back: its last change lies before the window that is read each time.
        told = {each.uid: _mark(each) for each in found}
        next_token = PageToken((int(moment.timestamp() * 1_000_000),)).encode(bound)
        for start in range(0, len(fresh), WATCH_MESSAGE):
            is_last = start + WATCH_MESSAGE >= len(fresh)
            yield WatchBatch(fresh[start : start + WATCH_MESSAGE], next_token if is_last else resume_token, moment)
        if fresh:
            silent_since = ports.clock.monotonic()
        elif first or ports.clock.monotonic() - silent_since >= WATCH_ALIVE.total_seconds():
            yield WatchBatch((), next_token, moment)
            silent_since = ports.clock.monotonic()
        first, since, resume_token = False, moment, next_token
        await ports.clock.sleep(WATCH_INTERVAL.total_seconds())


def _mark(execution: Execution) -> tuple[object, ...]:
    return (
        execution.state,
        execution.attempt,
        execution.ready_time,
        execution.held_by,
        execution.cancel_request_time,
        execution.queue,
    )


def _resume_from(text: str, bound: Mapping[str, str]) -> datetime | None:
    """The moment in a resume token, None for no token. Raises InvalidRequest on `resume_token`."""
    try:
        token = PageToken.decode(text, bound)
        return None if token is None else token.read(_moment)
    except InvalidRequest:
        expected = "expected the resume_token of an earlier answer to a watch with the same parent and filter"
        raise invalid("resume_token", expected, "INVALID_RESUME_TOKEN") from None


def _moment(position: tuple[str | int | None, ...]) -> datetime:
    (micros,) = position
    if not isinstance(micros, int) or micros < 0:
        raise TypeError(micros)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
