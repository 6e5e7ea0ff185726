"""Asks for the load through the public API as a sibling would, and reads back what the API reports."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from whispr.scheduling.v1 import (
    execution_pb2,
    job_pb2,
    operations_service_pb2,
    operations_service_pb2_grpc,
    scheduling_service_pb2,
    scheduling_service_pb2_grpc,
)

from scheduling.demo.load import Plan, Wish
from scheduling.demo.verdict import AttemptReport, Due, ExecutionReport, Fate, JobReport, Repeat
from scheduling.domain.clock import Clock

#: Creations under way at once.
IN_FLIGHT = 32
#: Seconds that a call of the API may take, and how often one is made that was not answered.
CALL_SECONDS, TRIES = 10.0, 5
#: Seconds after which a caller that is to lose an answer hangs up: about when the answer comes.
HANG_UP_SECONDS = 0.004
#: Of so many creations one is repeated after its answer, and one after losing it.
REPEAT_EVERY = 20
#: Server and caller are on one machine, with clocks read one after the other.
_CLOCK_SLACK = timedelta(milliseconds=5)
#: So long before its moment an execution may have been claimed.
_BEGINS_BEFORE = timedelta(milliseconds=100)

_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_ALL = "jobs/-"
_OPEN = 'state = "PENDING" OR state = "QUEUED" OR state = "RUNNING"'


class AskError(Exception):
    """The API did not do what was asked for; the text says what it answered, `code` by which code if it did."""

    def __init__(self, text: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass(slots=True)
class Tally:
    """What has been created and cancelled so far; `wishes` by the request_id of each."""

    created: int = 0
    cancelled: int = 0
    retried: int = 0
    wishes: dict[str, Wish] = dataclasses.field(default_factory=dict)
    repeats: list[Repeat] = dataclasses.field(default_factory=list)


class Api:
    """The public API over one channel. Every method raises AskError when the API refuses or cannot be reached."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._scheduling: Any = scheduling_service_pb2_grpc.SchedulingServiceStub(channel)  # type: ignore[no-untyped-call]
        self._operations: Any = operations_service_pb2_grpc.OperationsServiceStub(channel)  # type: ignore[no-untyped-call]
        self._clock = clock
        self.tally = Tally()

    async def _call(self, method: Any, request: Any) -> Any:
        """One call, made again with the same body when it was not answered: all that is repeated is idempotent."""
        for number in range(1, TRIES + 1):
            try:
                return await method(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN or number == TRIES:
                    raise AskError(
                        f"{type(request).__name__} was answered {error.code().name}: {error.details()}", error.code()
                    ) from None
                self.tally.retried += 1
                await self._clock.sleep(0.2 * number)
        raise AssertionError

    # --- creating -----------------------------------------------------------------------------------------------------

    async def create_all(self, plan: Plan) -> None:
        """Creates everything: the batches one after the other, beside them the single jobs, so many at once."""
        waiting = iter(enumerate(plan.singles))

        async def work() -> None:
            for number, wish in waiting:
                await self.create(wish, repeat=number % REPEAT_EVERY == 0, lose=number % REPEAT_EVERY == 10)

        async with asyncio.TaskGroup() as group:
            group.create_task(self._create_batches(plan))
            for _ in range(IN_FLIGHT):
                group.create_task(work())

    async def create(self, wish: Wish, *, repeat: bool = False, lose: bool = False) -> None:
        """Creates one job, perhaps again with the same request_id, after its answer or having lost it."""
        method, request, answers = self._scheduling.CreateJob, wish.request, []
        if lose:
            answers += await self._lose(method, request)
        before = self._clock.now()
        job = await self._call(method, request)
        after = self._clock.now()
        answers.append(job.name)
        if repeat:
            answers.append((await self._call(method, request)).name)
        if repeat or lose:
            self.tally.repeats.append(Repeat(request.request_id, tuple(answers)))
        asked = wish.asked
        if asked.delay is not None:
            due = Due(before + asked.delay - _CLOCK_SLACK, after + asked.delay + _CLOCK_SLACK)
            wish = dataclasses.replace(wish, asked=dataclasses.replace(asked, due=(due,)))
        self._keep([wish], [job.name])

    async def _create_batches(self, plan: Plan) -> None:
        for number, batch in enumerate(plan.batches):
            request = scheduling_service_pb2.BatchCreateJobsRequest(request_id=f"{plan.run}:batch-{number}")
            for wish in batch:
                member = request.requests.add()
                member.CopyFrom(wish.request)
                member.ClearField("request_id")
            method, answers = self._scheduling.BatchCreateJobs, []
            if number % 3 == 1:
                answers += await self._lose(method, request)
            names = _names(await self._call(method, request))
            answers.append(" ".join(names))
            if number % 3 == 0:
                answers.append(" ".join(_names(await self._call(method, request))))
            if len(answers) > 1:
                self.tally.repeats.append(Repeat(request.request_id, tuple(answers)))
            if len(names) != len(batch):
                raise AskError(f"a batch of {len(batch)} was answered with {len(names)} jobs")
            self._keep(batch, names)

    @staticmethod
    async def _lose(method: Any, request: Any) -> list[str]:
        """Calls and hangs up too early: perhaps it was done, perhaps not, and the caller cannot know."""
        try:
            answer = await method(request, timeout=HANG_UP_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AGAIN:
                raise AskError(
                    f"{type(request).__name__} was answered {error.code().name}: {error.details()}"
                ) from None
            return [""]
        return [answer.name if isinstance(answer, job_pb2.Job) else " ".join(_names(answer))]

    def _keep(self, wishes: Sequence[Wish], names: Sequence[str]) -> None:
        for wish, name in zip(wishes, names, strict=True):
            cancelled = wish.cancel_at is not None and not wish.cancel_execution
            asked = dataclasses.replace(wish.asked, job=name, job_cancelled=cancelled)
            self.tally.wishes[wish.request.request_id] = dataclasses.replace(wish, asked=asked)
        self.tally.created += len(names)

    # --- cancelling ---------------------------------------------------------------------------------------------------

    async def cancel(self, wish: Wish) -> None:
        """Cancels a job that was created, or its one execution.

        On a busy machine that may come so late that what was to be withdrawn has begun or ended: then either is right.
        """
        try:
            await self._cancel(wish)
        except AskError as error:
            if error.code is not grpc.StatusCode.FAILED_PRECONDITION or self._clock.now() < wish.asked.due[0].earliest:
                raise
        if wish.asked.fate is Fate.WITHDRAWN and self._clock.now() + _BEGINS_BEFORE > wish.asked.due[0].earliest:
            asked = dataclasses.replace(wish.asked, fate=Fate.OVERTAKEN)
            self.tally.wishes[wish.request.request_id] = dataclasses.replace(wish, asked=asked)
        self.tally.cancelled += 1

    async def _cancel(self, wish: Wish) -> None:
        name = wish.asked.job
        if wish.cancel_execution:
            listed = await self._call(
                self._scheduling.ListExecutions, scheduling_service_pb2.ListExecutionsRequest(parent=name)
            )
            if len(listed.executions) != 1:
                raise AskError(f"{name} has {len(listed.executions)} executions, expected one")
            request = scheduling_service_pb2.CancelExecutionRequest(name=listed.executions[0].name)
            await self._call(self._scheduling.CancelExecution, request)
        else:
            await self._call(self._scheduling.CancelJob, scheduling_service_pb2.CancelJobRequest(name=name))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def status(self) -> operations_service_pb2.Status:
        """Who leads and what the workers do."""
        answer: operations_service_pb2.Status = await self._call(
            self._operations.GetStatus, operations_service_pb2.GetStatusRequest()
        )
        return answer

    async def has_open(self) -> bool:
        """Whether anything is planned or has not ended."""
        request = scheduling_service_pb2.ListExecutionsRequest(parent=_ALL, page_size=1, filter=_OPEN)
        while True:
            page = await self._call(self._scheduling.ListExecutions, request)
            if page.executions or not page.next_page_token:
                return bool(page.executions)
            request.page_token = page.next_page_token

    async def watch(self) -> AsyncIterator[Sequence[execution_pb2.Execution]]:
        """Executions as they change, without end; goes on after a break where it ended."""
        token = ""
        while True:
            request = scheduling_service_pb2.WatchExecutionsRequest(parent=_ALL, resume_token=token)
            try:
                async for message in self._scheduling.WatchExecutions(request):
                    token = message.resume_token
                    yield message.executions
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise AskError(f"WatchExecutions was answered {error.code().name}: {error.details()}") from None
                await self._clock.sleep(0.2)

    async def jobs(self, run: str) -> list[JobReport]:
        """All jobs of a run, by pages."""
        found: list[JobReport] = []
        token = ""
        while True:
            request = scheduling_service_pb2.ListJobsRequest(
                page_size=1000, page_token=token, filter=f'labels.demo = "{run}"'
            )
            page = await self._call(self._scheduling.ListJobs, request)
            found += [_job_report(job) for job in page.jobs]
            token = page.next_page_token
            if not token:
                return found

    async def job(self, name: str) -> JobReport:
        """One job, by itself."""
        return _job_report(await self._call(self._scheduling.GetJob, scheduling_service_pb2.GetJobRequest(name=name)))

    async def executions(self) -> list[ExecutionReport]:
        """All executions there are, by pages; those that failed read once more, each by itself."""
        found: list[ExecutionReport] = []
        token = ""
        while True:
            request = scheduling_service_pb2.ListExecutionsRequest(parent=_ALL, page_size=1000, page_token=token)
            page = await self._call(self._scheduling.ListExecutions, request)
            for execution in page.executions:
                if execution.state == execution_pb2.Execution.FAILED:
                    one = scheduling_service_pb2.GetExecutionRequest(name=execution.name)
                    found.append(_execution_report(await self._call(self._scheduling.GetExecution, one)))
                else:
                    found.append(_execution_report(execution))
            token = page.next_page_token
            if not token:
                return found


def _names(answer: Any) -> list[str]:
    return [job.name for job in answer.jobs]


def _job_report(job: job_pb2.Job) -> JobReport:
    return JobReport(job.name, job.labels.get("item", ""), job_pb2.Job.State.Name(job.state))


def _execution_report(execution: execution_pb2.Execution) -> ExecutionReport:
    return ExecutionReport(
        uid=execution.uid,
        job=execution.name.rpartition("/executions/")[0],
        target=execution.target,
        state=execution_pb2.Execution.State.Name(execution.state),
        reason=execution.reason,
        nominal=_moment(execution.nominal_time),
        ready=_moment(execution.ready_time),
        created=_moment(execution.create_time),
        finish=_moment(execution.finish_time) if execution.HasField("finish_time") else None,
        lateness=execution.lateness.ToTimedelta() if execution.HasField("lateness") else None,
        attempts=tuple(_attempt_report(attempt) for attempt in execution.attempts),
    )


def _attempt_report(attempt: execution_pb2.Attempt) -> AttemptReport:
    start = _moment(attempt.start_time)
    return AttemptReport(
        number=attempt.number,
        start=start,
        end=start + attempt.duration.ToTimedelta(),
        worker=attempt.worker,
        code=_CODES.get(attempt.status.code, str(attempt.status.code)),
        text=attempt.status.message,
        reason=attempt.reason,
    )


_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(UTC)
