"""SchedulingService: each method reads, calls one operation, and maps the answer."""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from whispr.scheduling.v1 import scheduling_service_pb2_grpc as stubs
from whispr.scheduling.v1.calendar_pb2 import Calendar
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.operation_pb2 import Operation
from whispr.scheduling.v1.schedule_pb2 import Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    DESCRIPTOR,
    Backfill,
    BackfillScheduleRequest,
    BatchCancelJobsRequest,
    BatchCreateJobsRequest,
    BatchCreateJobsResponse,
    BatchRetryExecutionsRequest,
    CancelBackfillRequest,
    CancelExecutionRequest,
    CancelJobRequest,
    CancelOperationRequest,
    CreateCalendarRequest,
    CreateJobRequest,
    DeleteCalendarRequest,
    DeleteJobRequest,
    DeleteScheduleRequest,
    EraseJobsRequest,
    GetBackfillRequest,
    GetCalendarRequest,
    GetExecutionRequest,
    GetJobRequest,
    GetOperationRequest,
    GetScheduleRequest,
    ListCalendarsRequest,
    ListCalendarsResponse,
    ListExecutionsRequest,
    ListExecutionsResponse,
    ListJobsRequest,
    ListJobsResponse,
    ListOperationsRequest,
    ListOperationsResponse,
    ListSchedulesRequest,
    ListSchedulesResponse,
    PauseScheduleRequest,
    PreviewScheduleRequest,
    PreviewScheduleResponse,
    ResumeScheduleRequest,
    RetryExecutionRequest,
    RunJobRequest,
    ScheduleJobRequest,
    UpdateCalendarRequest,
    UpdateJobRequest,
    UpdateScheduleRequest,
    WatchExecutionsRequest,
    WatchExecutionsResponse,
)

from scheduling.operations import backfills, bulk, calendars, executions, jobs, previews, schedules
from scheduling.operations.ports import Ports
from scheduling.rpc import bulk_messages, mapping, names, reading, schedule_mapping, schedule_reading
from scheduling.rpc.call import PortsOfCalls, current_call

SERVICE_NAME: str = DESCRIPTOR.services_by_name["SchedulingService"].full_name

Context = Any  # grpc.aio.ServicerContext, which its library leaves untyped


class SchedulingServicer(stubs.SchedulingServiceServicer):
    """The methods of SchedulingService. What they do is said in the proto; errors are raised as SchedulingError."""

    def __init__(self, ports: Ports) -> None:
        self._ports_of_calls = PortsOfCalls(ports)

    @property
    def _ports(self) -> Ports:
        return self._ports_of_calls.current()

    async def GetJob(self, request: GetJobRequest, context: Context) -> Job:
        full = reading.wants_payload(request.view, default=True)
        job = await jobs.get_job(self._ports, names.job_id(request.name), with_payload=full)
        return mapping.job(job, with_payload=full)

    async def ListJobs(self, request: ListJobsRequest, context: Context) -> ListJobsResponse:
        full = reading.wants_payload(request.view, default=False)
        page = await jobs.list_jobs(self._ports, reading.query(request, with_payload=full))
        return mapping.job_page(page, with_payload=full)

    async def CreateJob(self, request: CreateJobRequest, context: Context) -> Job:
        draft, repeat = reading.create_draft(request), reading.repeat(request, request.request_id)
        principal = current_call().principal
        job = await jobs.create_job(self._ports, principal, draft, repeat, validate_only=request.validate_only)
        return mapping.job(job)

    async def BatchCreateJobs(self, request: BatchCreateJobsRequest, context: Context) -> BatchCreateJobsResponse:
        ports, principal, dry = self._ports, current_call().principal, request.validate_only
        # Checking the field rules of a thousand jobs, and reading them, are some milliseconds each: others have a turn.
        await ports.clock.sleep(0)
        drafts, repeat = reading.create_drafts(request), reading.repeat(request, request.request_id)
        await ports.clock.sleep(0)
        made = await jobs.batch_create_jobs(ports, principal, drafts, repeat, validate_only=dry)
        return mapping.jobs_made(made)

    async def UpdateJob(self, request: UpdateJobRequest, context: Context) -> Job:
        job_id, draft, mask = reading.update(request)
        etag, dry = request.job.etag, request.validate_only
        return mapping.job(await jobs.update_job(self._ports, job_id, draft, mask, etag, validate_only=dry))

    async def DeleteJob(self, request: DeleteJobRequest, context: Context) -> Empty:
        await jobs.delete_job(self._ports, names.job_id(request.name), request.etag, force=request.force)
        return Empty()

    async def CancelJob(self, request: CancelJobRequest, context: Context) -> Job:
        return mapping.job(await jobs.cancel_job(self._ports, names.job_id(request.name), request.etag))

    async def RunJob(self, request: RunJobRequest, context: Context) -> Execution:
        job_id, payload, overlap = reading.run(request)
        repeat, dry = reading.repeat(request, request.request_id), request.validate_only
        principal = current_call().principal
        run = await jobs.run_job(self._ports, principal, job_id, payload, overlap, repeat, validate_only=dry)
        return mapping.execution(run)

    async def GetSchedule(self, request: GetScheduleRequest, context: Context) -> Schedule:
        job_id, schedule_id = names.schedule_ids(request.name)
        return schedule_mapping.schedule(await schedules.get_schedule(self._ports, job_id, schedule_id))

    async def ListSchedules(self, request: ListSchedulesRequest, context: Context) -> ListSchedulesResponse:
        parent = names.parent_job_id(request.parent)
        return schedule_mapping.schedule_page(
            await schedules.list_schedules(self._ports, parent, reading.query(request))
        )

    async def ScheduleJob(self, request: ScheduleJobRequest, context: Context) -> Schedule:
        job_id, draft = schedule_reading.schedule_draft(request)
        repeat, dry = reading.repeat(request, request.request_id), request.validate_only
        principal, wanted = current_call().principal, request.schedule_id
        made = await schedules.schedule_job(self._ports, principal, job_id, draft, wanted, repeat, validate_only=dry)
        return schedule_mapping.schedule(made)

    async def DeleteSchedule(self, request: DeleteScheduleRequest, context: Context) -> Empty:
        job_id, schedule_id = names.schedule_ids(request.name)
        await schedules.delete_schedule(self._ports, job_id, schedule_id, request.etag)
        return Empty()

    async def UpdateSchedule(self, request: UpdateScheduleRequest, context: Context) -> Schedule:
        update = schedule_reading.update_schedule(request)
        etag, dry = request.schedule.etag, request.validate_only
        return schedule_mapping.schedule(await schedules.update_schedule(self._ports, *update, etag, validate_only=dry))

    async def PauseSchedule(self, request: PauseScheduleRequest, context: Context) -> Schedule:
        ids, principal = names.schedule_ids(request.name), current_call().principal
        paused = await schedules.pause_schedule(self._ports, principal, *ids, request.note, request.etag)
        return schedule_mapping.schedule(paused)

    async def ResumeSchedule(self, request: ResumeScheduleRequest, context: Context) -> Schedule:
        ids = names.schedule_ids(request.name)
        return schedule_mapping.schedule(await schedules.resume_schedule(self._ports, *ids, request.etag))

    async def BackfillSchedule(self, request: BackfillScheduleRequest, context: Context) -> Backfill:
        query, repeat = schedule_reading.backfill(request), reading.repeat(request, request.request_id)
        principal, dry = current_call().principal, request.validate_only
        made = await backfills.backfill_schedule(self._ports, principal, *query, repeat, validate_only=dry)
        return schedule_mapping.backfill(made)

    async def GetBackfill(self, request: GetBackfillRequest, context: Context) -> Backfill:
        ids = names.backfill_ids(request.name)
        return schedule_mapping.backfill(await backfills.get_backfill(self._ports, *ids))

    async def CancelBackfill(self, request: CancelBackfillRequest, context: Context) -> Backfill:
        ids = names.backfill_ids(request.name)
        return schedule_mapping.backfill(await backfills.cancel_backfill(self._ports, *ids))

    async def PreviewSchedule(self, request: PreviewScheduleRequest, context: Context) -> PreviewScheduleResponse:
        query = schedule_reading.preview(request)
        return schedule_mapping.preview(await previews.preview_schedule(self._ports, *query))

    async def GetCalendar(self, request: GetCalendarRequest, context: Context) -> Calendar:
        calendar_id = names.calendar_id(request.name)
        return schedule_mapping.calendar(await calendars.get_calendar(self._ports, calendar_id))

    async def ListCalendars(self, request: ListCalendarsRequest, context: Context) -> ListCalendarsResponse:
        page = await calendars.list_calendars(self._ports, request.page_size, request.page_token)
        return schedule_mapping.calendar_page(page)

    async def CreateCalendar(self, request: CreateCalendarRequest, context: Context) -> Calendar:
        draft, wanted, dry = schedule_reading.calendar_draft(request), request.calendar_id, request.validate_only
        made = await calendars.create_calendar(self._ports, wanted, draft, validate_only=dry)
        return schedule_mapping.calendar(made)

    async def UpdateCalendar(self, request: UpdateCalendarRequest, context: Context) -> Calendar:
        update = schedule_reading.update_calendar(request)
        etag, dry = request.calendar.etag, request.validate_only
        return schedule_mapping.calendar(await calendars.update_calendar(self._ports, *update, etag, validate_only=dry))

    async def DeleteCalendar(self, request: DeleteCalendarRequest, context: Context) -> Empty:
        calendar_id = names.calendar_id(request.name)
        await calendars.delete_calendar(self._ports, calendar_id, request.etag, force=request.force)
        return Empty()

    async def GetExecution(self, request: GetExecutionRequest, context: Context) -> Execution:
        full = reading.wants_payload(request.view, default=True)
        job_id, execution_id = names.execution_ids(request.name)
        execution = await executions.get_execution(self._ports, job_id, execution_id, with_payload=full)
        return mapping.execution(execution, with_payload=full)

    async def ListExecutions(self, request: ListExecutionsRequest, context: Context) -> ListExecutionsResponse:
        full = reading.wants_payload(request.view, default=False)
        parent, query = names.parent_job_id(request.parent), reading.query(request, with_payload=full)
        page = await executions.list_executions(self._ports, parent, query)
        return mapping.execution_page(page, with_payload=full)

    async def CancelExecution(self, request: CancelExecutionRequest, context: Context) -> Execution:
        job_id, execution_id = names.execution_ids(request.name)
        return mapping.execution(await executions.cancel_execution(self._ports, job_id, execution_id))

    async def BatchCancelJobs(self, request: BatchCancelJobsRequest, context: Context) -> Operation:
        query, repeat = (request.filter, request.rate), reading.repeat(request, request.request_id)
        principal, dry = current_call().principal, request.validate_only
        made = await bulk.batch_cancel_jobs(self._ports, principal, *query, repeat, validate_only=dry)
        return bulk_messages.operation(made)

    async def EraseJobs(self, request: EraseJobsRequest, context: Context) -> Operation:
        query, repeat = bulk_messages.erase(request), reading.repeat(request, request.request_id)
        principal, dry = current_call().principal, request.validate_only
        return bulk_messages.operation(await bulk.erase_jobs(self._ports, principal, *query, repeat, validate_only=dry))

    async def BatchRetryExecutions(self, request: BatchRetryExecutionsRequest, context: Context) -> Operation:
        query, repeat = bulk_messages.retry(request), reading.repeat(request, request.request_id)
        principal, dry = current_call().principal, request.validate_only
        made = await bulk.batch_retry_executions(self._ports, principal, *query, repeat, validate_only=dry)
        return bulk_messages.operation(made)

    async def GetOperation(self, request: GetOperationRequest, context: Context) -> Operation:
        operation_id = names.operation_id(request.name)
        return bulk_messages.operation(await bulk.get_operation(self._ports, operation_id))

    async def ListOperations(self, request: ListOperationsRequest, context: Context) -> ListOperationsResponse:
        return bulk_messages.operation_page(await bulk.list_operations(self._ports, reading.query(request)))

    async def CancelOperation(self, request: CancelOperationRequest, context: Context) -> Operation:
        operation_id = names.operation_id(request.name)
        return bulk_messages.operation(await bulk.cancel_operation(self._ports, operation_id))

    async def RetryExecution(self, request: RetryExecutionRequest, context: Context) -> Execution:
        ids, repeat = names.execution_ids(request.name), reading.repeat(request, request.request_id)
        return mapping.execution(await executions.retry_execution(self._ports, current_call().principal, *ids, repeat))

    async def WatchExecutions(
        self, request: WatchExecutionsRequest, context: Context
    ) -> AsyncIterator[WatchExecutionsResponse]:
        full = reading.wants_payload(request.view, default=False)
        parent, token = names.parent_job_id(request.parent), request.resume_token
        batches = executions.watch_executions(self._ports, parent, request.filter, token, with_payload=full)
        async for batch in batches:
            yield mapping.watch_response(batch, with_payload=full)
