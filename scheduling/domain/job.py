"""Jobs as values: which method to call, with what, by which rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from scheduling.domain.schedule import NewSchedule
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.domain.value import value


class OverlapPolicy(StrEnum):
    """What happens when a firing comes due while an earlier one of the same job is still open."""

    SKIP = "SKIP"
    BUFFER_ONE = "BUFFER_ONE"
    BUFFER_ALL = "BUFFER_ALL"
    CANCEL_OTHER = "CANCEL_OTHER"
    TERMINATE_OTHER = "TERMINATE_OTHER"
    ALLOW_ALL = "ALLOW_ALL"


class JobState(StrEnum):
    """Where a job stands. COMPLETED is derived: nothing is ahead or open."""

    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


_ACTIVE = JobState.ACTIVE


@value
class Job:
    """A stored job. `request` is empty when it was read without payloads; `request_bytes` always tells its size.

    `overlap_policy` None stands for the default: SKIP for firings of recurring schedules, ALLOW_ALL for all else.
    """

    uid: UUID
    job_id: str
    display_name: str
    target: str
    request: bytes
    request_type: str
    request_bytes: int
    queue: Queue
    retry_policy: RetryPolicy
    timeout: timedelta
    overlap_policy: OverlapPolicy | None
    owner: str
    principal: str
    labels: Mapping[str, str]
    state: JobState
    revision: int
    create_time: datetime
    update_time: datetime
    cancel_time: datetime | None
    next_fire_time: datetime | None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.job_id}"


@value
class JobSpec:
    """What a caller says of a job, checked and completed with defaults."""

    display_name: str
    target: str
    request: bytes
    request_type: str
    queue: Queue
    retry_policy: RetryPolicy
    timeout: timedelta
    overlap_policy: OverlapPolicy | None
    owner: str
    labels: Mapping[str, str]
    retention_days: int | None


@value
class NewJob:
    """A job that is to be stored, perhaps with its first schedule.

    `has_made_id` tells that its id was made from its uid: nobody else can ask for it.
    """

    uid: UUID
    job_id: str
    principal: str
    spec: JobSpec
    schedule: NewSchedule | None = None
    has_made_id: bool = False

    def as_created(self, now: datetime) -> Job:
        """The job as it stands right after its creation at `now`."""
        spec = self.spec
        schedule = self.schedule
        # By position, which costs half of what keywords do: this is made for each job of a batch.
        return Job(
            self.uid,
            self.job_id,
            spec.display_name,
            spec.target,
            spec.request,
            spec.request_type,
            len(spec.request),
            spec.queue,
            spec.retry_policy,
            spec.timeout,
            spec.overlap_policy,
            spec.owner,
            self.principal,
            spec.labels,
            _ACTIVE,
            1,
            now,
            now,
            None,
            None if schedule is None else schedule.first_fire,
        )


@value
class Creation:
    """One accepted CreateJob or BatchCreateJobs: all of its jobs are stored, or none.

    `request_id` empty means that the caller gave none; `digest` identifies the body for repeats.
    """

    principal: str
    jobs: tuple[NewJob, ...]
    request_id: str = ""
    digest: bytes = field(default=b"", repr=False)
