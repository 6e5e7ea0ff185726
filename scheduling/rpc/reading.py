"""Proto to domain: requests as `operations` take them. The other direction is `mapping.py`.

Functions read one request each and raise InvalidRequest with every violation that can be seen in the message alone,
with field paths as the caller wrote them. Field rules of the proto (lengths, ranges, required) have been checked
before, by the validation interceptor; what needs the database, the clock or the catalogue of targets is checked after,
by the operations. Output-only fields in a request are ignored (AIP-203).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from whispr.scheduling.v1 import job_pb2, schedule_pb2, scheduling_service_pb2, target_pb2

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.schedule import Cron, Interval
from scheduling.operations.drafts import (
    AfterDelay,
    AtTime,
    CreateDraft,
    JobDraft,
    ListQuery,
    Payload,
    Repeat,
    RetryDraft,
    ScheduleDraft,
    WhenDraft,
)
from scheduling.rpc import names
from scheduling.rpc.mapping import AFTER_LOST_WORKER, CATCHUP_POLICIES, DST_POLICIES, OVERLAP_POLICIES, QUEUES
from scheduling.rpc.values import Findings, read_duration, read_payload, read_timestamp

_RETRY_FIELDS = (
    "max_attempts",
    "initial_backoff",
    "backoff_multiplier",
    "max_backoff",
    "max_age",
    "after_lost_worker",
)
#: What an update mask of UpdateJob may name.
UPDATE_PATHS = (
    "display_name",
    "request",
    "queue",
    "retry_policy",
    *(f"retry_policy.{name}" for name in _RETRY_FIELDS),
    "timeout",
    "overlap_policy",
    "labels",
)
_IMMUTABLE = frozenset({"target", "owner"})

_Listing = (
    scheduling_service_pb2.ListJobsRequest
    | scheduling_service_pb2.ListSchedulesRequest
    | scheduling_service_pb2.ListExecutionsRequest
)


def repeat(request: Message, request_id: str) -> Repeat:
    """What makes the call safe to repeat. The digest covers the whole request; without an id none is made."""
    if not request_id:
        return Repeat()
    return Repeat(request_id, hashlib.sha256(request.SerializeToString(deterministic=True)).digest())


def create_draft(request: scheduling_service_pb2.CreateJobRequest) -> CreateDraft:
    """The job to create."""
    findings = Findings()
    draft = _create_draft(request, "", findings)
    findings.raise_any()
    return draft


def create_drafts(request: scheduling_service_pb2.BatchCreateJobsRequest) -> Sequence[CreateDraft]:
    """The jobs to create. `request_id` and `validate_only` belong to the batch and are refused in its members."""
    findings = Findings()
    drafts = []
    for index, member in enumerate(request.requests):
        path = f"requests[{index}]."
        if member.request_id:
            findings.add(f"{path}request_id", "is given once, for the whole batch", "NOT_ALLOWED_IN_BATCH")
        if member.validate_only:
            findings.add(f"{path}validate_only", "is given once, for the whole batch", "NOT_ALLOWED_IN_BATCH")
        drafts.append(_create_draft(member, path, findings))
    findings.raise_any()
    return drafts


def update(request: scheduling_service_pb2.UpdateJobRequest) -> tuple[str, JobDraft, frozenset[str]]:
    """The job's id, its new values and the paths to change, all from UPDATE_PATHS.

    Without a mask these are the fields that are set; of a retry policy, the fields set in it.
    """
    findings = Findings()
    job = _job_id(request.job.name, "job.name", findings)
    mask = _read_mask(request.update_mask.paths, findings) if request.update_mask.paths else _paths_set(request.job)
    draft = _job_draft(request.job, "job.", findings)
    findings.raise_any()
    return job, draft, mask


def run(request: scheduling_service_pb2.RunJobRequest) -> tuple[str, Payload | None]:
    """The job's id and the request in place of the job's, if there is one."""
    findings = Findings()
    job = _job_id(request.name, "name", findings)
    payload = read_payload(request.request, "request", findings) if request.HasField("request") else None
    findings.raise_any()
    return job, payload


def schedule_draft(request: scheduling_service_pb2.ScheduleJobRequest) -> tuple[str, ScheduleDraft]:
    """The job's id and the schedule to add."""
    findings = Findings()
    job = _job_id(request.parent, "parent", findings)
    draft = _schedule_draft(request.schedule, "schedule.", findings)
    findings.raise_any()
    return job, draft


def query(request: _Listing, *, with_payload: bool = False) -> ListQuery:
    """The common part of a list call."""
    return ListQuery(request.page_size, request.page_token, request.filter, request.order_by, with_payload)


def wants_payload(view: int, *, default: bool) -> bool:
    """Whether the view shows requests and responses; `default` when none was given."""
    return default if view == job_pb2.VIEW_UNSPECIFIED else view == job_pb2.FULL


def _job_id(name: str, field: str, findings: Findings) -> str:
    try:
        return names.job_id(name, field)
    except InvalidRequest as error:
        findings.add_all(error.violations)
        return ""


def _create_draft(request: scheduling_service_pb2.CreateJobRequest, path: str, findings: Findings) -> CreateDraft:
    has_schedule = request.HasField("schedule")
    return CreateDraft(
        job=_job_draft(request.job, f"{path}job.", findings),
        job_id=request.job_id,
        schedule=_schedule_draft(request.schedule, f"{path}schedule.", findings) if has_schedule else None,
    )


def _job_draft(job: job_pb2.Job, path: str, findings: Findings) -> JobDraft:
    return JobDraft(
        target=job.target,
        request=read_payload(job.request, f"{path}request", findings) if job.HasField("request") else None,
        display_name=job.display_name,
        queue=QUEUES.read(job.queue, f"{path}queue", findings),
        retry=_retry_draft(job.retry_policy, f"{path}retry_policy.", findings),
        timeout=read_duration(job.timeout, f"{path}timeout", findings) if job.HasField("timeout") else None,
        overlap_policy=OVERLAP_POLICIES.read(job.overlap_policy, f"{path}overlap_policy", findings),
        owner=job.owner,
        labels=dict(job.labels),
    )


def _retry_draft(policy: target_pb2.RetryPolicy, path: str, findings: Findings) -> RetryDraft:
    def duration(name: str, value: Duration) -> timedelta | None:
        return read_duration(value, f"{path}{name}", findings) if policy.HasField(name) else None

    return RetryDraft(
        max_attempts=policy.max_attempts if policy.HasField("max_attempts") else None,
        initial_backoff=duration("initial_backoff", policy.initial_backoff),
        backoff_multiplier=policy.backoff_multiplier if policy.HasField("backoff_multiplier") else None,
        max_backoff=duration("max_backoff", policy.max_backoff),
        max_age=duration("max_age", policy.max_age),
        after_lost_worker=AFTER_LOST_WORKER.read(policy.after_lost_worker, f"{path}after_lost_worker", findings),
    )


def _schedule_draft(schedule: schedule_pb2.Schedule, path: str, findings: Findings) -> ScheduleDraft:
    def instant(name: str, value: Timestamp) -> datetime | None:
        return read_timestamp(value, f"{path}{name}", findings) if schedule.HasField(name) else None

    def duration(name: str, value: Duration) -> timedelta | None:
        return read_duration(value, f"{path}{name}", findings) if schedule.HasField(name) else None

    has_request = schedule.HasField("request")
    return ScheduleDraft(
        when=_when(schedule, path, findings) or _NOTHING,
        display_name=schedule.display_name,
        time_zone=schedule.time_zone,
        start=instant("start_time", schedule.start_time),
        end=instant("end_time", schedule.end_time),
        max_firings=schedule.max_firings,
        jitter=duration("jitter", schedule.jitter) or timedelta(0),
        dst_policy=DST_POLICIES.read(schedule.dst_policy, f"{path}dst_policy", findings),
        catchup_policy=CATCHUP_POLICIES.read(schedule.catchup_policy, f"{path}catchup_policy", findings),
        catchup_window=duration("catchup_window", schedule.catchup_window),
        request=read_payload(schedule.request, f"{path}request", findings) if has_request else None,
    )


#: Stands in for a `when` that could not be read; the draft around it is never handed out.
_NOTHING = Cron("")


def _when(schedule: schedule_pb2.Schedule, path: str, findings: Findings) -> WhenDraft | None:
    """None after a violation was noted."""
    match schedule.WhichOneof("when"):
        case "at_time":
            time = read_timestamp(schedule.at_time, f"{path}at_time", findings)
            return None if time is None else AtTime(time)
        case "after":
            delay = read_duration(schedule.after, f"{path}after", findings)
            return None if delay is None else AfterDelay(delay)
        case "cron":
            return Cron(schedule.cron.expression)
        case "interval":
            return _interval(schedule.interval, f"{path}interval.", findings)
        case _:
            findings.add(f"{path}when", "one of at_time, after, cron, interval is required", "REQUIRED")
            return None


def _interval(spec: schedule_pb2.IntervalSpec, path: str, findings: Findings) -> Interval | None:
    if not spec.HasField("every"):
        findings.add(f"{path}every", "is required", "REQUIRED")
        return None
    every = read_duration(spec.every, f"{path}every", findings)
    phase = read_duration(spec.phase, f"{path}phase", findings)
    has_anchor = spec.HasField("anchor_time")
    anchor = read_timestamp(spec.anchor_time, f"{path}anchor_time", findings) if has_anchor else None
    return None if every is None or phase is None else Interval(every, phase, anchor)


def _read_mask(paths: Sequence[str], findings: Findings) -> frozenset[str]:
    for index, path in enumerate(paths):
        if path in UPDATE_PATHS:
            continue
        field = f"update_mask.paths[{index}]"
        first = path.partition(".")[0]
        allowed = f"the mask may name {', '.join(UPDATE_PATHS)}"
        if first in _IMMUTABLE:
            findings.add(field, f"{first} cannot be changed; {allowed}", "IMMUTABLE_FIELD")
        elif path in job_pb2.Job.DESCRIPTOR.fields_by_name:
            findings.add(field, f"{path} is set by the service; {allowed}", "OUTPUT_ONLY_FIELD")
        else:
            findings.add(field, f"is no field of a job that can be changed; {allowed}", "UNKNOWN_FIELD")
    return frozenset(paths)


def _paths_set(job: job_pb2.Job) -> frozenset[str]:
    whole = {field.name for field, _ in job.ListFields()} - {"retry_policy"}
    inner = {f"retry_policy.{field.name}" for field, _ in job.retry_policy.ListFields()}
    return frozenset((whole | inner) & set(UPDATE_PATHS))
