"""Proto to domain: requests as `operations` take them. The other direction is `mapping.py`.

Requests about schedules, calendars and backfills stand in `schedule_reading.py`.

Functions read one request each and raise InvalidRequest with every violation that can be seen in the message alone,
with field paths as the caller wrote them. Field rules of the proto (lengths, ranges, required) have been checked
before, by the validation interceptor; what needs the database, the clock or the catalogue of targets is checked after,
by the operations. Output-only fields in a request are ignored (AIP-203).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from whispr.scheduling.v1 import job_pb2, operations_service_pb2, scheduling_service_pb2, target_pb2

from scheduling.domain.job import OverlapPolicy
from scheduling.operations.drafts import NOTHING_SAID, CreateDraft, JobDraft, ListQuery, Payload, Repeat, RetryDraft
from scheduling.rpc import names
from scheduling.rpc.mapping import AFTER_LOST_WORKER, OVERLAP_POLICIES, QUEUES
from scheduling.rpc.masks import fields_set, read_mask
from scheduling.rpc.timing_reading import read_schedule
from scheduling.rpc.values import Findings, read_duration, read_payload

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
_NO_LABELS: Mapping[str, str] = MappingProxyType({})

_Listing = (
    scheduling_service_pb2.ListJobsRequest
    | scheduling_service_pb2.ListSchedulesRequest
    | scheduling_service_pb2.ListExecutionsRequest
    | operations_service_pb2.ListAuditEntriesRequest
    | scheduling_service_pb2.ListOperationsRequest
)


def repeat(request: Message, request_id: str) -> Repeat:
    """What makes the call safe to repeat. The digest covers the method and its whole request; none without an id.

    Requests of two methods may be the same bytes: an id that was used to cancel is not taken for a repeat of it when
    the next call erases.
    """
    if not request_id:
        return Repeat()
    body = request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return Repeat(request_id, hashlib.sha256(body).digest())


def create_draft(request: scheduling_service_pb2.CreateJobRequest) -> CreateDraft:
    """The job to create."""
    findings = Findings()
    draft = _create_draft(request, findings)
    findings.raise_any()
    return draft


def create_drafts(request: scheduling_service_pb2.BatchCreateJobsRequest) -> Sequence[CreateDraft]:
    """The jobs to create. `request_id` and `validate_only` belong to the batch and are refused in its members."""
    findings = Findings()
    violations = findings.violations
    drafts = []
    for index, member in enumerate(request.requests):
        found = len(violations)
        if member.request_id:
            findings.add("request_id", "is given once, for the whole batch", "NOT_ALLOWED_IN_BATCH")
        if member.validate_only:
            findings.add("validate_only", "is given once, for the whole batch", "NOT_ALLOWED_IN_BATCH")
        drafts.append(_create_draft(member, findings))
        if len(violations) > found:
            findings.place(f"requests[{index}].", found)
    findings.raise_any()
    return drafts


def update(request: scheduling_service_pb2.UpdateJobRequest) -> tuple[str, JobDraft, frozenset[str]]:
    """The job's id, its new values and the paths to change, all from UPDATE_PATHS.

    Without a mask these are the fields that are set; of a retry policy, the fields set in it.
    """
    findings, job, paths = Findings(), request.job, request.update_mask.paths
    job_id = findings.noted(lambda: names.job_id(job.name, "job.name"))
    mask = read_mask(paths, UPDATE_PATHS, job, findings, immutable=_IMMUTABLE) if paths else _paths_set(job)
    draft = _job_draft(job, findings)
    findings.raise_any()
    return job_id or "", draft, mask


def run(request: scheduling_service_pb2.RunJobRequest) -> tuple[str, Payload | None, OverlapPolicy | None]:
    """The job's id, and the request and the overlap policy in place of the job's, if they are given."""
    findings = Findings()
    job_id = findings.noted(lambda: names.job_id(request.name))
    payload = read_payload(request.request, "request", findings) if request.HasField("request") else None
    overlap_policy = OVERLAP_POLICIES.read(request.overlap_policy, "overlap_policy", findings)
    findings.raise_any()
    return job_id or "", payload, overlap_policy


def query(request: _Listing, *, with_payload: bool = False) -> ListQuery:
    """The common part of a list call."""
    return ListQuery(request.page_size, request.page_token, request.filter, request.order_by, with_payload)


def wants_payload(view: int, *, default: bool) -> bool:
    """Whether the view shows requests and responses; `default` when none was given."""
    return default if view == job_pb2.VIEW_UNSPECIFIED else view == job_pb2.FULL


def _create_draft(request: scheduling_service_pb2.CreateJobRequest, findings: Findings) -> CreateDraft:
    has_schedule = request.HasField("schedule")
    return CreateDraft(
        _job_draft(request.job, findings),
        request.job_id,
        read_schedule(request.schedule, "schedule.", findings) if has_schedule else None,
    )


def _job_draft(job: job_pb2.Job, findings: Findings) -> JobDraft:
    """What the message says, whose path is `job`."""
    queue, overlap_policy, labels = job.queue, job.overlap_policy, job.labels
    has_policy = job.HasField("retry_policy")
    # By position, which costs half of what keywords do: this is made for each job of a batch.
    return JobDraft(
        job.target,
        read_payload(job.request, "job.request", findings) if job.HasField("request") else None,
        job.display_name,
        QUEUES.read(queue, "job.queue", findings) if queue else None,
        _retry_draft(job.retry_policy, "job.retry_policy.", findings) if has_policy else NOTHING_SAID,
        read_duration(job.timeout, "job.timeout", findings) if job.HasField("timeout") else None,
        OVERLAP_POLICIES.read(overlap_policy, "job.overlap_policy", findings) if overlap_policy else None,
        job.owner,
        dict(labels) if labels else _NO_LABELS,
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


def _paths_set(job: job_pb2.Job) -> frozenset[str]:
    inner = {f"retry_policy.{name}" for name in fields_set(job.retry_policy)}
    return (fields_set(job) - {"retry_policy"} | inner) & frozenset(UPDATE_PATHS)
