"""Domain to proto: resources as they are answered. The other direction is `reading.py`.

Schedules, calendars and backfills stand in `schedule_mapping.py`.

Nothing is looked up and nothing can fail. Payloads leave as `google.protobuf.Any` without being parsed, and only when
`with_payload` says so: the BASIC view has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import is_not
from typing import Any

from google.rpc.status_pb2 import Status as RpcStatus
from whispr.scheduling.v1 import (
    execution_pb2,
    job_pb2,
    operations_service_pb2,
    scheduling_service_pb2,
    target_pb2,
)

from scheduling.domain.etag import etag_by_text
from scheduling.domain.execution import Attempt, Execution, Origin
from scheduling.domain.ids import uuid_texts
from scheduling.domain.job import Job, JobState, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.pause import Pause
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy, Target
from scheduling.operations.executions import WatchBatch
from scheduling.operations.ports import BreakerStatus, Page, QueueStatus, TargetStatus, WorkerStatus
from scheduling.operations.status import StatusReport
from scheduling.rpc.values import EnumMap, packed, write_timestamp

QUEUES = EnumMap(Queue, target_pb2.Queue)
AFTER_LOST_WORKER = EnumMap(AfterLostWorker, target_pb2.AfterLostWorker)
OVERLAP_POLICIES = EnumMap(OverlapPolicy, job_pb2.OverlapPolicy)
JOB_STATES = EnumMap(JobState, job_pb2.Job.State)
EXECUTION_STATES = EnumMap(State, execution_pb2.Execution.State)
ORIGINS = EnumMap(Origin, execution_pb2.Execution.Origin)


def job(value: Job, *, with_payload: bool = True) -> job_pb2.Job:
    """The job, with its request unless `with_payload` is False."""
    message = job_pb2.Job()
    _write_job(message, value, str(value.uid), _common_part(*_common(value)), with_payload=with_payload)
    return message


def jobs_made(values: Sequence[Job]) -> scheduling_service_pb2.BatchCreateJobsResponse:
    """The answer to a batch: its jobs without their requests."""
    answer = scheduling_service_pb2.BatchCreateJobsResponse()
    add, key, part = answer.jobs.add, None, b""
    for value, uid in zip(values, uuid_texts([value.uid for value in values]), strict=True):
        common = _common(value)
        # Those of one call mostly share these very objects, so that they need not be compared or hashed.
        if key is None or any(map(is_not, common, key)):
            key, part = common, _common_part(*common)
        _write_job(add(), value, uid, part, with_payload=False)
    return answer


def _common(value: Job) -> tuple[Any, ...]:
    """The arguments of `_common_part` for a job."""
    return (
        value.target,
        value.queue,
        value.retry_policy,
        value.timeout,
        value.overlap_policy,
        value.principal,
        value.state,
        value.create_time,
        value.update_time,
    )


def _write_job(message: job_pb2.Job, value: Job, uid: str, common: bytes, *, with_payload: bool) -> None:
    """Fills an empty message. `uid` is the text of the job's."""
    message.MergeFromString(common)
    message.name = value.name
    message.uid = uid
    message.owner = value.owner
    message.etag = etag_by_text(uid, value.revision)
    message.request_bytes = value.request_bytes
    if value.display_name:
        message.display_name = value.display_name
    if value.labels:
        message.labels.update(value.labels)
    if value.cancel_time is not None:
        write_timestamp(message.cancel_time, value.cancel_time)
    if value.next_fire_time is not None:
        write_timestamp(message.next_fire_time, value.next_fire_time)
    if with_payload:
        message.request.CopyFrom(packed(value.request_type, value.request))


@lru_cache(maxsize=256)
def _common_part(
    target: str,
    queue: Queue,
    policy: RetryPolicy,
    timeout: timedelta,
    overlap_policy: OverlapPolicy | None,
    principal: str,
    state: JobState,
    create_time: datetime,
    update_time: datetime,
) -> bytes:
    """What the jobs of one call mostly have in common, serialised: merging it is cheaper than setting it."""
    part = job_pb2.Job(
        target=target,
        queue=QUEUES.number(queue),
        retry_policy=retry_policy(policy),
        timeout=timeout,
        overlap_policy=OVERLAP_POLICIES.number(overlap_policy),
        principal=principal,
        state=JOB_STATES.number(state),
        create_time=create_time,
        update_time=update_time,
    )
    return part.SerializeToString()


@lru_cache(maxsize=256)
def retry_policy(value: RetryPolicy) -> target_pb2.RetryPolicy:
    """The policy, complete. One message for all that have it: not to be changed."""
    return target_pb2.RetryPolicy(
        max_attempts=value.max_attempts,
        initial_backoff=value.initial_backoff,
        backoff_multiplier=value.backoff_multiplier,
        max_backoff=value.max_backoff,
        max_age=value.max_age,
        after_lost_worker=AFTER_LOST_WORKER.number(value.after_lost_worker),
    )


def execution(value: Execution, *, with_payload: bool = True) -> execution_pb2.Execution:
    """The execution, with its own request and the kept response unless `with_payload` is False."""
    request = packed(value.request_type, value.request) if with_payload and value.request is not None else None
    response = packed(value.response_type, value.response) if with_payload and value.response is not None else None
    return execution_pb2.Execution(
        name=value.name,
        uid=str(value.uid),
        schedule="" if value.schedule_id is None else f"jobs/{value.job_id}/schedules/{value.schedule_id}",
        origin=ORIGINS.number(value.origin),
        target=value.target,
        queue=QUEUES.number(value.queue),
        owner=value.owner,
        state=EXECUTION_STATES.number(value.state),
        reason=value.reason,
        held_by=value.held_by,
        nominal_time=value.nominal_time,
        ready_time=value.ready_time,
        expire_time=value.expire_time,
        start_time=value.start_time,
        finish_time=value.finish_time,
        lateness=value.lateness,
        attempt_count=value.attempt,
        attempts=[attempt(item) for item in value.attempts],
        status=None if value.code is None else RpcStatus(code=value.code, message=value.message),
        response=response,
        request=request,
        cancel_request_time=value.cancel_request_time,
        create_time=value.create_time,
        job_revision=value.job_revision,
    )


def attempt(value: Attempt) -> execution_pb2.Attempt:
    """The attempt, its code and text as google.rpc.Status."""
    return execution_pb2.Attempt(
        number=value.number,
        start_time=value.start_time,
        duration=value.duration,
        worker=value.worker,
        status=RpcStatus(code=value.code, message=value.message),
        counted=value.counted,
        reason=value.reason,
    )


def target_status(value: TargetStatus) -> target_pb2.Target:
    """The target with its breaker and pause."""
    return target(value.target, value.breaker, value.pause)


def pause(value: Pause) -> target_pb2.OperatorPause:
    """The pause."""
    return target_pb2.OperatorPause(
        name=value.resource, pause_time=value.time, principal=value.principal, note=value.note
    )


def target(value: Target, breaker: BreakerStatus | None, stopped: Pause | None = None) -> target_pb2.Target:
    """The target; a breaker that never moved (None) is CLOSED."""
    return target_pb2.Target(
        name=f"targets/{value.method.replace('/', '.')}",
        method=value.method,
        request_type=value.request_type,
        response_type=value.response_type,
        queue=QUEUES.number(value.queue),
        retry_policy=retry_policy(value.retry_policy),
        timeout=value.timeout,
        retention=value.retention,
        description=value.description,
        breaker_state="CLOSED" if breaker is None else breaker.state,
        breaker_change_time=None if breaker is None else breaker.change_time,
        running_limit=value.running_limit,
        pause=None if stopped is None else pause(stopped),
    )


def queue_status(value: QueueStatus) -> operations_service_pb2.QueueStatus:
    """The lengths of one queue."""
    return operations_service_pb2.QueueStatus(
        queue=QUEUES.number(value.queue),
        waiting_count=value.waiting,
        queued_count=value.queued,
        running_count=value.running,
        retrying_count=value.retrying,
        failed_count=value.failed,
        oldest_waiting=value.oldest_waiting,
        pause=None if value.pause is None else pause(value.pause),
    )


def status(report: StatusReport) -> operations_service_pb2.Status:
    """The state of the whole service."""
    value = report.status
    return operations_service_pb2.Status(
        read_time=value.read_time,
        version=report.version,
        environment=report.environment,
        leader="" if value.leader is None else str(value.leader),
        leader_term=value.leader_term,
        workers=[worker(item) for item in value.workers],
        degraded_modes=report.degraded_modes,
        job_count=value.job_count,
        last_start_time=value.last_start_time,
        next_due_time=value.next_due_time,
        time_zone_version=report.time_zone_version,
        schema_revision=value.schema_revision,
        database_version=value.database_version,
        pauses=[pause(each) for each in report.pauses],
    )


def worker(value: WorkerStatus) -> operations_service_pb2.Worker:
    """One live worker process."""
    return operations_service_pb2.Worker(
        worker=str(value.uid),
        host=value.host,
        pid=value.pid,
        queues=[QUEUES.number(item) for item in value.queues],
        start_time=value.start_time,
        heartbeat_time=value.heartbeat_time,
        running_count=value.running,
    )


def job_page(page: Page[Job], *, with_payload: bool) -> scheduling_service_pb2.ListJobsResponse:
    """One page of jobs."""
    return scheduling_service_pb2.ListJobsResponse(
        jobs=[job(item, with_payload=with_payload) for item in page.items], next_page_token=page.next_page_token
    )


def execution_page(page: Page[Execution], *, with_payload: bool) -> scheduling_service_pb2.ListExecutionsResponse:
    """One page of executions."""
    return scheduling_service_pb2.ListExecutionsResponse(
        executions=[execution(item, with_payload=with_payload) for item in page.items],
        next_page_token=page.next_page_token,
    )


def target_page(page: Page[TargetStatus]) -> operations_service_pb2.ListTargetsResponse:
    """One page of targets with their breakers and pauses."""
    return operations_service_pb2.ListTargetsResponse(
        targets=[target_status(item) for item in page.items], next_page_token=page.next_page_token
    )


def watch_response(batch: WatchBatch, *, with_payload: bool) -> scheduling_service_pb2.WatchExecutionsResponse:
    """One message of a watch."""
    return scheduling_service_pb2.WatchExecutionsResponse(
        executions=[execution(item, with_payload=with_payload) for item in batch.executions],
        resume_token=batch.resume_token,
        read_time=batch.read_time,
    )
