"""Every RPC by every kind of principal about own, another's and nobody's job, on a real server with mesh identity.

The test acts as the sidecar. What was refused and what was changed is looked up in the audit afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import grpc
import sqlalchemy as sa
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from whispr.scheduling.v1 import (
    calendar_pb2,
    job_pb2,
    operations_service_pb2,
    operations_service_pb2_grpc,
    schedule_pb2,
    scheduling_service_pb2,
    scheduling_service_pb2_grpc,
)
from whispr.siblings import media_pb2, messaging_pb2

from scheduling.app import SystemClock, limits_of
from scheduling.delivery.targets import TargetTable
from scheduling.domain.execution import Reason
from scheduling.domain.ids import parse_execution_id
from scheduling.domain.lifecycle import State
from scheduling.operations.auditing import RefusalLog
from scheduling.operations.policy_file import PolicyFile
from scheduling.operations.ports import Ports
from scheduling.rpc.authentication import MeshIdentity
from scheduling.rpc.server import RpcOptions, RpcServer, api_services
from scheduling.settings import Settings
from scheduling.storage.database import Database
from scheduling.storage.leading import LeadingStore
from scheduling.storage.stepping import SteppingStore
from scheduling.storage.store import PostgresStore
from scheduling.storage.tables import executions
from tests.support.permissions import (
    MEDIA,
    MESH,
    MESSAGING,
    NOBODY,
    PRINCIPALS,
    ROWS,
    RPCS,
    WHOSE,
    Cell,
    Kind,
    expected,
)

OWN = f"{MESH}/scheduling-service"
POLICY = Path(__file__).resolve().parents[2] / "docs" / "policy.toml"
#: RPCs after which there is less than before.
ENDS = ("Delete", "Cancel")
#: RPCs that read, by their names; all others change something.
READS = ("Get", "List", "Watch", "Preview")
NIGHTS = schedule_pb2.Exclusion(cron=schedule_pb2.CronSpec(expression="* 0-6 * * *"))
sch: Any = scheduling_service_pb2
ops: Any = operations_service_pb2


@dataclass(slots=True)
class Refusal:
    code: str = "OK"
    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


class NoMetrics:
    def rpc_handled(self, method: str, code: str, seconds: float) -> None: ...


class NoRedis:
    async def is_up(self) -> bool:
        return False


class Mesh:
    """A server, and callers that a sidecar vouches for."""

    def __init__(self, channel: grpc.aio.Channel, refusals: RefusalLog, database: Database) -> None:
        self.refusals = refusals
        self._database = database
        self._term = 0
        add: Any = scheduling_service_pb2_grpc.SchedulingServiceStub
        scheduling = add(channel)
        add = operations_service_pb2_grpc.OperationsServiceStub
        self._stubs = {"SchedulingService": scheduling, "OperationsService": add(channel)}

    async def call(self, principal: str, rpc: str, request: Message) -> Any:
        """The answer, the first of a stream."""
        service, _, method = rpc.partition("/")
        told = f'By={OWN};Hash=aa;Subject="";URI={PRINCIPALS[principal]}'
        call = getattr(self._stubs[service], method)(request, metadata=(("x-forwarded-client-cert", told),), timeout=30)
        if method.startswith("Watch"):
            answer = await call.read()
            if answer is grpc.aio.EOF:
                await call
            call.cancel()
            return answer
        return await call

    async def refused(self, principal: str, rpc: str, request: Message) -> tuple[Any, Refusal]:
        """The answer, or how the call was refused."""
        try:
            return await self.call(principal, rpc, request), Refusal()
        except grpc.aio.AioRpcError as error:
            told = {str(key): value for key, value in error.trailing_metadata() or ()}
            refusal = Refusal(error.code().name, error.details() or "")
            for detail in status_pb2.Status.FromString(cast("bytes", told["grpc-status-details-bin"])).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
            return None, refusal

    async def fail(self, execution: str) -> None:
        """Makes a waiting execution a dead letter."""
        uid = parse_execution_id(execution.rpartition("/")[2])
        failed = {
            "state": State.FAILED.value,
            "reason": Reason.PERMANENT.value,
            "attempt": 1,
            "finish_time": sa.func.now(),
        }
        async with self._database.begin() as connection:
            await connection.execute(executions.update().where(executions.c.uid == uid).values(**failed))

    async def work_off(self, operation: str) -> Any:
        """The operation when it has ended: what leaders do, until then."""
        leading, stepping = LeadingStore(self._database, SystemClock().monotonic), SteppingStore(self._database)
        term = self._term = self._term or await leading.acquire(uuid4(), timedelta(days=1)) or 0
        while True:
            await stepping.step_operations(term)
            request = sch.GetOperationRequest(name=operation)
            found = await self.call("operator", "SchedulingService/GetOperation", request)
            if found.state != found.RUNNING:
                return found
            await SystemClock().sleep(0.01)


@asynccontextmanager
async def mesh(database_url: str, policy: Path = POLICY) -> AsyncIterator[Mesh]:
    settings = Settings()
    targets = TargetTable()
    async with Database(database_url, application="tests", size=10) as database:
        store = PostgresStore(database, owner_daily_jobs=100_000)
        ports = Ports(store, targets, SystemClock(), limits_of(settings), NoRedis(), "UTC", "test", "0")
        refusals = RefusalLog(store)
        server = RpcServer(
            RpcOptions("127.0.0.1:0"),
            services=api_services(ports),
            is_serving=NoRedis().is_up,
            authenticator=MeshIdentity(OWN, ("127.0.0.1",)),
            policy=PolicyFile(policy, RPCS, [target.method for target in targets]).access,
            refused=refusals.note,
            metrics=NoMetrics(),
            clock=SystemClock(),
        )
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                yield Mesh(channel, refusals, database)
            finally:
                await server.stop(0, grace=1)


def running(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())


# --- what calls are about ---------------------------------------------------------------------------------------------


def packed(message: Message) -> PackedMessage:
    value = PackedMessage()
    value.Pack(message)
    return value


def a_job(whose: str) -> job_pb2.Job:
    """A job that calls a method of that sibling; nobody's method does not exist."""
    if whose == MEDIA:
        tidy = media_pb2.OptimizeStorageRequest(dry_run=True)
        tidy.older_than.FromTimedelta(timedelta(days=30))
        return job_pb2.Job(target="media.MediaService/OptimizeStorage", request=packed(tidy))
    target = "messaging.MessagingService/SendScheduledMessage" if whose == MESSAGING else "nobody.NobodyService/Nothing"
    send = messaging_pb2.SendScheduledMessageRequest(
        message_id="m", conversation_id="c", sender_id="u", content="hello"
    )
    return job_pb2.Job(target=target, request=packed(send))


def yearly() -> schedule_pb2.Schedule:
    return schedule_pb2.Schedule(cron=schedule_pb2.CronSpec(expression="0 0 1 1 *"))


@dataclass(frozen=True, slots=True)
class Named:
    """The resources that calls name."""

    job: str
    schedule: str
    execution: str
    backfill: str
    calendar: str
    operation: str


NOBODYS = Named(
    "jobs/nobodys",
    "jobs/nobodys/schedules/s",
    "jobs/nobodys/executions/e-00000000-0000-7000-8000-000000000000",
    "jobs/nobodys/schedules/s/backfills/b-00000000-0000-7000-8000-000000000000",
    "calendars/nobodys",
    "operations/o-00000000-0000-7000-8000-000000000000",
)


async def made(server: Mesh, whose: str) -> Named:
    """A job with a schedule, an execution that waits, a backfill, a calendar, and an operation in bulk under way."""
    if whose == NOBODY:
        return NOBODYS
    job = await server.call(whose, "SchedulingService/CreateJob", sch.CreateJobRequest(job=a_job(whose)))
    schedule = await server.call(
        whose, "SchedulingService/ScheduleJob", sch.ScheduleJobRequest(parent=job.name, schedule=yearly())
    )
    execution = await server.call(whose, "SchedulingService/RunJob", sch.RunJobRequest(name=job.name))
    backfill = await server.call(whose, "SchedulingService/BackfillSchedule", backfill_of(schedule.name))
    calendar = await server.call("operator", "SchedulingService/CreateCalendar", a_calendar(job.name[5:]))
    retry = sch.BatchRetryExecutionsRequest(parent=job.name)
    operation = await server.call(whose, "SchedulingService/BatchRetryExecutions", retry)
    return Named(job.name, schedule.name, execution.name, backfill.name, calendar.name, operation.name)


def a_calendar(calendar_id: str) -> sch.CreateCalendarRequest:
    return sch.CreateCalendarRequest(calendar_id=calendar_id, calendar=calendar_pb2.Calendar(exclusions=[NIGHTS]))


def backfill_of(schedule: str) -> sch.BackfillScheduleRequest:
    """Two firings of the past."""
    request = sch.BackfillScheduleRequest(name=schedule)
    request.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    request.end_time.FromDatetime(datetime(2021, 1, 2, tzinfo=UTC))
    return request


#: The request of each RPC about these resources.
REQUESTS: dict[str, Callable[[Named, str, str], Message]] = {
    "GetJob": lambda it, _whose, _new: sch.GetJobRequest(name=it.job),
    "ListJobs": lambda it, _whose, _new: sch.ListJobsRequest(filter=f'job_id = "{it.job[5:]}"'),
    "CreateJob": lambda _it, whose, _new: sch.CreateJobRequest(job=a_job(whose)),
    "BatchCreateJobs": lambda _it, whose, _new: sch.BatchCreateJobsRequest(
        requests=[sch.CreateJobRequest(job=a_job(whose)) for _ in range(2)]
    ),
    "UpdateJob": lambda it, _whose, new: sch.UpdateJobRequest(job=job_pb2.Job(name=it.job, display_name=new)),
    "DeleteJob": lambda it, _whose, _new: sch.DeleteJobRequest(name=it.job, force=True),
    "CancelJob": lambda it, _whose, _new: sch.CancelJobRequest(name=it.job),
    "RunJob": lambda it, _whose, _new: sch.RunJobRequest(name=it.job),
    "GetSchedule": lambda it, _whose, _new: sch.GetScheduleRequest(name=it.schedule),
    "ListSchedules": lambda it, _whose, _new: sch.ListSchedulesRequest(parent=it.job),
    "ScheduleJob": lambda it, _whose, _new: sch.ScheduleJobRequest(parent=it.job, schedule=yearly()),
    "DeleteSchedule": lambda it, _whose, _new: sch.DeleteScheduleRequest(name=it.schedule),
    "UpdateSchedule": lambda it, _whose, new: sch.UpdateScheduleRequest(
        schedule=schedule_pb2.Schedule(name=it.schedule, display_name=new)
    ),
    "PauseSchedule": lambda it, _whose, _new: sch.PauseScheduleRequest(name=it.schedule, note="tired"),
    "ResumeSchedule": lambda it, _whose, _new: sch.ResumeScheduleRequest(name=it.schedule),
    "BackfillSchedule": lambda it, _whose, _new: backfill_of(it.schedule),
    "GetBackfill": lambda it, _whose, _new: sch.GetBackfillRequest(name=it.backfill),
    "CancelBackfill": lambda it, _whose, _new: sch.CancelBackfillRequest(name=it.backfill),
    "PreviewSchedule": lambda it, _whose, _new: sch.PreviewScheduleRequest(name=it.schedule),
    "GetCalendar": lambda it, _whose, _new: sch.GetCalendarRequest(name=it.calendar),
    "ListCalendars": lambda _it, _whose, _new: sch.ListCalendarsRequest(),
    "CreateCalendar": lambda _it, _whose, new: a_calendar(new),
    "UpdateCalendar": lambda it, _whose, new: sch.UpdateCalendarRequest(
        calendar=calendar_pb2.Calendar(name=it.calendar, display_name=new)
    ),
    "DeleteCalendar": lambda it, _whose, _new: sch.DeleteCalendarRequest(name=it.calendar),
    "GetExecution": lambda it, _whose, _new: sch.GetExecutionRequest(name=it.execution),
    "ListExecutions": lambda it, _whose, _new: sch.ListExecutionsRequest(parent=it.job),
    "CancelExecution": lambda it, _whose, _new: sch.CancelExecutionRequest(name=it.execution),
    "WatchExecutions": lambda it, _whose, _new: sch.WatchExecutionsRequest(parent=it.job),
    "GetStatus": lambda _it, _whose, _new: ops.GetStatusRequest(),
    "ListQueues": lambda _it, _whose, _new: ops.ListQueuesRequest(),
    "ListTargets": lambda _it, _whose, _new: ops.ListTargetsRequest(),
    "ListAuditEntries": lambda _it, _whose, _new: ops.ListAuditEntriesRequest(),
    "RetryExecution": lambda it, _whose, _new: sch.RetryExecutionRequest(name=it.execution),
    "BatchRetryExecutions": lambda it, _whose, _new: sch.BatchRetryExecutionsRequest(parent=it.job),
    "BatchCancelJobs": lambda it, _whose, _new: sch.BatchCancelJobsRequest(filter=f'job_id = "{it.job[5:]}"'),
    "EraseJobs": lambda it, _whose, _new: sch.EraseJobsRequest(owner=it.job),
    "GetOperation": lambda it, _whose, _new: sch.GetOperationRequest(name=it.operation),
    "ListOperations": lambda _it, _whose, _new: sch.ListOperationsRequest(page_size=1000),
    "CancelOperation": lambda it, _whose, _new: sch.CancelOperationRequest(name=it.operation),
    "PauseQueue": lambda _it, _whose, _new: ops.PauseQueueRequest(queue="LOW", note="tired"),
    "ResumeQueue": lambda _it, _whose, _new: ops.ResumeQueueRequest(queue="LOW"),
    "PauseTarget": lambda _it, _whose, _new: ops.PauseTargetRequest(name="targets/media.MediaService"),
    "ResumeTarget": lambda _it, _whose, _new: ops.ResumeTargetRequest(name="targets/media.MediaService"),
    "PauseService": lambda _it, _whose, _new: ops.PauseServiceRequest(note="tired"),
    "ResumeService": lambda _it, _whose, _new: ops.ResumeServiceRequest(),
}
#: What pauses are about, which their answers do not name.
PAUSED = {"Queue": "queues/low", "Target": "targets/media.MediaService", "Service": "service"}


async def prepare(server: Mesh, method: str, it: Named) -> None:
    """Makes true what has to be so before an RPC changes anything."""
    if method == "ResumeSchedule":
        pause = sch.PauseScheduleRequest(name=it.schedule, note="tired")
        await server.call("operator", "SchedulingService/PauseSchedule", pause)
    if method == "RetryExecution":
        await server.fail(it.execution)


# --- the matrix -------------------------------------------------------------------------------------------------------


def test_every_rpc_has_its_row_and_its_request() -> None:
    assert set(ROWS) == set(RPCS)
    assert {rpc.rpartition("/")[2] for rpc in RPCS} <= set(REQUESTS)


def is_change(rpc: str) -> bool:
    """Whether it changes something."""
    return not rpc.rpartition("/")[2].startswith(READS)


def changed_by(rpc: str, request: Any, answer: Any) -> Iterator[tuple[str, str]]:
    """By which RPC and under which names the audit tells of it."""
    method = rpc.rpartition("/")[2]
    if method == "BatchCreateJobs":
        yield from (("SchedulingService/CreateJob", job.name) for job in answer.jobs)
    elif rpc.startswith("OperationsService/"):
        yield rpc, PAUSED[method.removeprefix("Pause").removeprefix("Resume")]
    else:
        yield rpc, getattr(answer, "name", "") or request.name


def cell_of(rpc: str, it: Named, answer: Any, refusal: Refusal) -> Cell:
    """What came of a call about it."""
    if refusal.code != "OK":
        return {
            "PERMISSION_DENIED": Cell.DENIED,
            "NOT_FOUND": Cell.NOT_FOUND,
            "INVALID_ARGUMENT": Cell.INVALID,
            # Whoever is told that its state does not allow it might have done it.
            "FAILED_PRECONDITION": Cell.OK,
        }[refusal.code]
    match rpc.rpartition("/")[2]:
        case "ListJobs":
            is_in_it = bool(answer.jobs)
        case "ListOperations":
            is_in_it = it.operation in {each.name for each in answer.operations}
        case "BatchCancelJobs":
            is_in_it = answer.total_count == 1
        case _:
            is_in_it = True
    return Cell.OK if is_in_it else Cell.EMPTY


async def entries(server: Mesh, filter_text: str) -> list[Any]:
    found: list[Any] = []
    request = ops.ListAuditEntriesRequest(filter=filter_text, page_size=1000)
    while True:
        page = await server.call("operator", "OperationsService/ListAuditEntries", request)
        found += page.entries
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_every_cell_of_the_matrix_is_what_it_says(database_url: str) -> None:
    async def scenario() -> None:
        async with mesh(database_url) as server:
            tried, changes = 0, set[tuple[str, str, str]]()
            refusals = list[tuple[str, str, Refusal]]()
            about = {whose: await made(server, whose) for whose in WHOSE}
            for rpc in ROWS:
                # As the server does each second: a batch holds only so many.
                await server.refusals.tick()
                method = rpc.rpartition("/")[2]
                for principal in PRINCIPALS:
                    hidden = set[str]()
                    for whose in WHOSE:
                        wanted = expected(rpc, principal, whose)
                        it = about[whose]
                        if wanted is Cell.OK:
                            await prepare(server, method, it)
                        request = REQUESTS[method](it, whose, f"new-{tried}")
                        answer, refusal = await server.refused(principal, rpc, request)
                        assert cell_of(rpc, it, answer, refusal) is wanted, (rpc, principal, whose, refusal)
                        tried += 1
                        if wanted is Cell.DENIED:
                            refusals.append((principal, rpc, refusal))
                            hidden.add(refusal.message.replace(it.job, "jobs/…").replace(it.operation, "operations/…"))
                        if wanted is Cell.OK and is_change(rpc):
                            told = changed_by(rpc, request, answer)
                            changes.update((PRINCIPALS[principal], *each) for each in told)
                            if method.startswith(ENDS):
                                about[whose] = await made(server, whose)
                    # Whoever may not see it learns nothing about whether it is there.
                    assert len(hidden) <= 1 or ROWS[rpc] is Kind.CREATE, hidden
            assert tried == len(RPCS) * len(PRINCIPALS) * len(WHOSE)
            await server.refusals.tick()
            for principal, rpc, refusal in refusals:
                assert refusal.reason.endswith("_NOT_GRANTED")
                lacked = refusal.metadata
                assert (lacked["principal"], lacked["rpc"]) == (PRINCIPALS[principal], rpc)
                assert lacked["missing"] in lacked
            written = {
                (each.principal, each.rpc, each.reason): each for each in await entries(server, 'outcome = "REFUSED"')
            }
            for principal, rpc, refusal in refusals:
                assert (PRINCIPALS[principal], rpc, refusal.reason) in written
            assert sum(each.count for each in await entries(server, 'outcome = "REFUSED"')) == len(refusals)
            changed = {
                (each.principal, each.rpc, each.resource) for each in await entries(server, 'outcome = "CHANGED"')
            }
            # What was deleted later has no row of its own any more: its creation is told by the entry of its end.
            gone = {each.resource for each in await entries(server, 'rpc = "SchedulingService/DeleteJob"')}
            missing = {each for each in changes - changed if not (each[1].endswith("/CreateJob") and each[2] in gone)}
            assert missing == set()

    running(scenario)


def test_what_a_sibling_does_in_bulk_touches_its_own_only_and_is_told_with_its_number(database_url: str) -> None:
    async def scenario() -> None:
        async with mesh(database_url) as server:
            mine, other = [await made(server, whose) for whose in (MESSAGING, MEDIA)]
            for it in (mine, other):
                await server.fail(it.execution)

            async def seen(it: Named) -> tuple[str, str]:
                """The states of the execution and of the job."""
                execution = await server.call(
                    "operator", "SchedulingService/GetExecution", sch.GetExecutionRequest(name=it.execution)
                )
                job = await server.call("operator", "SchedulingService/GetJob", sch.GetJobRequest(name=it.job))
                return type(execution).State.Name(execution.state), type(job).State.Name(job.state)

            everything = {
                "BatchRetryExecutions": sch.BatchRetryExecutionsRequest(parent="jobs/-", filter="state = FAILED"),
                "BatchCancelJobs": sch.BatchCancelJobsRequest(filter='create_time > "2000-01-01T00:00:00Z"'),
            }
            found = []
            for method, request in everything.items():
                rpc = f"SchedulingService/{method}"
                begun = await server.call(MESSAGING, rpc, request)
                ended = await server.work_off(begun.name)
                assert (ended.total_count, ended.done_count) == (1, 1)
                found.append((await seen(mine), await seen(other)))
                asked, told = sorted(await entries(server, f'resource = "{begun.name}"'), key=lambda each: each.uid)
                for each in (asked, told):
                    assert (each.principal, each.rpc) == (PRINCIPALS[MESSAGING], rpc)
                assert dict(told.after) == {"state": "DONE", "done": 1, "failed": 0}
            untouched = ("FAILED", "ACTIVE")
            assert found == [(("PENDING", "ACTIVE"), untouched), (("CANCELLED", "CANCELLED"), untouched)]

    running(scenario)
