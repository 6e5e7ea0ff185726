"""Use cases of executions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduling.domain.errors import InvalidRequest, NotFound, WrongState, invalid
from scheduling.domain.execution import Execution, Origin
from scheduling.domain.filters import INTEGER, STRING, TIMESTAMP, Expression, enum_of, parse_filter
from scheduling.domain.ids import parse_execution_id
from scheduling.domain.job import JobState
from scheduling.domain.lifecycle import State
from scheduling.domain.paging import PageToken
from scheduling.domain.target import Queue
from scheduling.operations import repeats
from scheduling.operations.drafts import ListQuery, Repeat
from scheduling.operations.jobs import check_job, get_job
from scheduling.operations.pages import read_page
from scheduling.operations.ports import Page, Ports

RESOURCE = "Execution"

#: How often a watch looks.
WATCH_INTERVAL = timedelta(milliseconds=250)
#: A watch with nothing to tell says at least this often that it is alive.
WATCH_ALIVE = timedelta(seconds=15)
#: Executions in one message of a watch, and bytes of payload: gRPC clients take messages of 4 MiB by default.
WATCH_MESSAGE, WATCH_BYTES = 500, 3 * 1024 * 1024
#: Executions that a watch reads at once; with payloads, each of which may be 1 MB, fewer.
WATCH_PAGE, WATCH_PAYLOADS = 5000, 100
#: Open executions that a watch looks at in one round; the next round goes on behind them.
WATCH_OPEN = 5000
#: What ended is read in stretches of time, of this length where much ended and longer ones where little did.
WATCH_SPAN = timedelta(seconds=30)
#: A commit may become visible this long after the moment it carries: the longest that a hot transaction lives, and
#: some.
COMMIT_LAG = timedelta(seconds=5)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)

EXECUTION_FIELDS = {
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
    """The execution, live or finished. Raises NotFound, or PermissionDenied whether it is there or not."""
    await check_job(ports, job_id)
    uid = parse_execution_id(execution_id)
    execution = None if uid is None else await ports.store.get_execution(job_id, uid, with_payload=with_payload)
    if execution is None:
        raise NotFound(RESOURCE, f"jobs/{job_id}/executions/{execution_id}")
    return execution


async def list_executions(ports: Ports, job_id: str | None, query: ListQuery) -> Page[Execution]:
    """A page of the executions of a job, or of all jobs for None. Raises InvalidRequest, NotFound.

    Those of all jobs are in order of creation only: by another time, all there are would have to be sorted.
    """
    if job_id is not None:
        await get_job(ports, job_id, with_payload=False)
    elif query.order_by.split()[:1] == ["nominal_time"]:
        raise invalid(
            "order_by",
            "no order by nominal_time over all jobs; expected create_time, or one job as parent",
            "INVALID_ORDER",
        )
    return await read_page(
        query,
        parent=job_id or "-",
        fields=EXECUTION_FIELDS,
        orders=("create_time", "nominal_time") if job_id is not None else ("create_time",),
        principals=None if job_id is not None else ports.access.principals,
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


async def retry_execution(ports: Ports, principal: str, job_id: str, execution_id: str, repeat: Repeat) -> Execution:
    """Redrives a dead letter. Raises NotFound, WrongState (not FAILED, or of a cancelled job), AlreadyExists."""
    execution = await get_execution(ports, job_id, execution_id)
    if await repeats.find_answer(ports, principal, repeat) is not None:
        # Read once more: the first call may have moved it since.
        return await get_execution(ports, job_id, execution_id)
    moved = await ports.store.redrive(execution.uid, principal, repeat.request_id, repeat.digest)
    after = await get_execution(ports, job_id, execution_id)
    # The same call may have been made twice at once: the other one has moved it.
    if not moved and await repeats.find_answer(ports, principal, repeat) is None:
        job = await get_job(ports, job_id, with_payload=False)
        if after.state is State.FAILED and job.state is JobState.CANCELLED:
            raise WrongState(
                f"{job.name} is CANCELLED, and its executions are not tried again; create another job",
                subject=job.name,
                reason="JOB_CANCELLED",
            )
        raise WrongState(
            f"{after.name} is {after.state}; only what has FAILED can be tried again",
            subject=after.name,
            reason="NOT_FAILED",
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

    Of something open that changes faster than it is looked at, the latest is told; of what ended, all. The token holds
    a moment up to which everything that ended has been told. It opens with what is open, so nothing else is in it.
    """
    bound = {"watch": job_id or "-", "filter": filter_text}
    watch = _Watch(ports, job_id, parse_filter(filter_text, EXECUTION_FIELDS), with_payload=with_payload)
    since = _resume_from(resume_token, bound)
    if job_id is not None:
        await get_job(ports, job_id, with_payload=False)
    silent_since = ports.clock.monotonic()
    first = True
    while True:
        moment = None
        told = False
        async for found, read_time in watch.open():
            # The first moment is that of the round: all that ended by then is read after it.
            moment = moment or read_time
            since = since or moment
            for batch in _messages(found):
                yield WatchBatch(batch, _token(since, bound), read_time)
                told = True
        assert moment is not None
        assert since is not None
        async for found in watch.ended(since, moment):
            for batch in _messages(found):
                ended = batch[-1].finish_time
                yield WatchBatch(batch, _token(since if ended is None else max(since, ended), bound), moment)
                told = True
        since = moment
        if told:
            silent_since = ports.clock.monotonic()
        elif first or ports.clock.monotonic() - silent_since >= WATCH_ALIVE.total_seconds():
            yield WatchBatch((), _token(since, bound), moment)
            silent_since = ports.clock.monotonic()
        first = False
        await ports.clock.sleep(WATCH_INTERVAL.total_seconds())


class _Watch:
    """What one watch reads, and what of it was told already."""

    def __init__(self, ports: Ports, job_id: str | None, filter_: Expression | None, *, with_payload: bool) -> None:
        self._store = ports.store
        self._job_id = job_id
        self._filter = filter_
        self._principals = None if job_id is not None else ports.access.principals
        self._with_payload = with_payload
        self._page = WATCH_PAYLOADS if with_payload else WATCH_PAGE
        self._after: UUID | None = None
        self._told: dict[UUID, tuple[object, ...]] = {}
        self._seen: set[UUID] = set()

    async def open(self) -> AsyncIterator[tuple[Sequence[Execution], datetime]]:
        """What is new among the open ones, page by page by uid: all, or WATCH_OPEN of them after those of the round
        before. At least one page, which may be empty.
        """
        if self._after is None:
            # Everything was looked at. What was not seen meanwhile will be told anew should it come back.
            self._told = {uid: mark for uid, mark in self._told.items() if uid in self._seen}
            self._seen = set()
        for _ in range(WATCH_OPEN // self._page):
            found, moment = await self._store.read_open(
                self._job_id,
                self._filter,
                principals=self._principals,
                after=self._after,
                with_payload=self._with_payload,
                limit=self._page,
            )
            self._after = found[-1].uid if len(found) == self._page else None
            yield self._fresh(found), moment
            if self._after is None:
                return

    async def ended(self, since: datetime, until: datetime) -> AsyncIterator[Sequence[Execution]]:
        """What is new among all that ended since, page by page by (finish time, uid)."""
        after, span = (since - COMMIT_LAG, _FIRST), WATCH_SPAN
        while True:
            end = min(until, after[0] + span)
            found = await self._store.read_ended(
                self._job_id,
                self._filter,
                principals=self._principals,
                after=after,
                until=end,
                with_payload=self._with_payload,
                limit=self._page,
            )
            # Only these are read again, in the next round.
            yield self._fresh(found, remember_from=until - COMMIT_LAG)
            if len(found) == self._page:
                last = found[-1]
                assert last.finish_time is not None
                after, span = (last.finish_time, last.uid), max(span / 4, WATCH_SPAN)
            elif end == until:
                return
            else:
                after, span = (end, _LAST), span * 4

    def _fresh(self, found: Sequence[Execution], remember_from: datetime | None = None) -> Sequence[Execution]:
        fresh = []
        for each in found:
            mark = _mark(each)
            if self._told.get(each.uid) != mark:
                fresh.append(each)
            if remember_from is None or each.finish_time is None or each.finish_time >= remember_from:
                self._told[each.uid] = mark
                self._seen.add(each.uid)
        return fresh


def _messages(found: Sequence[Execution]) -> Iterator[Sequence[Execution]]:
    """The executions in messages of at most WATCH_MESSAGE of them and, but for a single one, WATCH_BYTES of payload."""
    message: list[Execution] = []
    size = 0
    for each in found:
        more = len(each.request or b"") + len(each.response or b"")
        if message and (len(message) == WATCH_MESSAGE or size + more > WATCH_BYTES):
            yield message
            message, size = [], 0
        message.append(each)
        size += more
    if message:
        yield message


def _token(moment: datetime, bound: Mapping[str, str]) -> str:
    return PageToken(((moment - _EPOCH) // timedelta(microseconds=1),)).encode(bound)


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
    return _EPOCH + timedelta(microseconds=micros)
