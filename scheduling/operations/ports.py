"""What the operations need from the outside, as Protocols. `storage` and `delivery` provide them; `app.py` joins
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from scheduling.domain.audit import AuditEntry
from scheduling.domain.backfill import Backfill
from scheduling.domain.bulk import Operation, Selection
from scheduling.domain.calendar import PlainExclusion, SharedCalendar
from scheduling.domain.clock import Clock
from scheduling.domain.errors import Violation
from scheduling.domain.execution import Execution
from scheduling.domain.filters import Expression
from scheduling.domain.job import Creation, Job, OverlapPolicy
from scheduling.domain.limits import Limits
from scheduling.domain.pause import Pause, Scope
from scheduling.domain.policy import EVERYTHING, Access
from scheduling.domain.schedule import NewSchedule, Schedule
from scheduling.domain.target import Queue, RetryPolicy, Target
from scheduling.domain.timing import Timing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. `next_page_token` is empty on the last page."""

    items: Sequence[T]
    next_page_token: str = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page as the store reads it: up to `size` items after the keyset position `after`, in the order named."""

    size: int
    order: str
    descending: bool
    filter: Expression | None = None
    after: tuple[str | int | None, ...] | None = None
    with_payload: bool = False
    #: Only what belongs to jobs of these principals; None for all.
    principals: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class JobChange:
    """New values for a job; None leaves a field as it is."""

    display_name: str | None = None
    request: bytes | None = None
    queue: Queue | None = None
    retry_policy: RetryPolicy | None = None
    timeout: timedelta | None = None
    overlap_policy: OverlapPolicy | None = None
    clear_overlap_policy: bool = False
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """New values for a schedule; None leaves a field as it is. `request` counts only with `change_request`."""

    display_name: str | None = None
    timing: Timing | None = None
    change_request: bool = False
    request: bytes | None = None
    request_type: str | None = None


@dataclass(frozen=True, slots=True)
class CalendarChange:
    """New values for a calendar; None leaves a field as it is, an empty zone takes the calendar's own away."""

    display_name: str | None = None
    exclusions: tuple[PlainExclusion, ...] | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class NewBackfill:
    """A backfill that is to be stored."""

    uid: UUID
    schedule: Schedule
    start: datetime
    end: datetime
    total: int
    rate: int
    overlap_policy: OverlapPolicy
    principal: str
    request_id: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker process."""

    uid: UUID
    host: str
    pid: int
    queues: tuple[Queue, ...]
    start_time: datetime
    heartbeat_time: datetime
    running: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of the whole service as PostgreSQL knows it."""

    read_time: datetime
    leader: UUID | None
    leader_term: int
    workers: tuple[WorkerStatus, ...]
    job_count: int
    last_start_time: datetime | None
    next_due_time: datetime | None
    schema_revision: str
    database_version: str
    read_only: bool
    overdue: bool


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Lengths of one queue."""

    queue: Queue
    waiting: int
    queued: int
    running: int
    retrying: int
    failed: int
    oldest_waiting: timedelta | None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """The circuit breaker of one target service: CLOSED, OPEN or HALF_OPEN."""

    state: str
    change_time: datetime | None


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A target with the breaker of its service, None if that never moved, and what pauses it."""

    target: Target
    breaker: BreakerStatus | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A manual execution that is to be stored."""

    uid: UUID
    job_uid: UUID
    principal: str
    request: bytes | None
    request_type: str | None
    request_id: str = ""
    digest: bytes = b""
    overlap_policy: OverlapPolicy | None = None


@dataclass(frozen=True, slots=True)
class NewOperation:
    """An operation in bulk that is to be stored."""

    operation: Operation
    request_id: str = ""
    digest: bytes = b""


class Store(Protocol):
    """PostgreSQL, as the operations see it. Every call may raise StoreUnavailable."""

    async def create(self, creation: Creation) -> Sequence[Job]:
        """Stores the jobs with their schedules and first plans, durably, or none of them.

        A repeat of (principal, request_id) with the same digest returns the jobs of the first call. Raises
        AlreadyExists (id taken; request_id with another digest) or QuotaExceeded.
        """
        ...

    async def find_answer(self, principal: str, request_id: str, digest: bytes) -> Sequence[UUID] | None:
        """The uids of what the first call with this request_id made, None if there was none.

        Raises AlreadyExists when that call had another body.
        """
        ...

    async def get_job(self, job_id: str, *, with_payload: bool) -> Job | None: ...

    async def get_jobs_by_uid(self, uids: Sequence[UUID]) -> Sequence[Job]:
        """Those of the jobs that exist, in the order of `uids`."""
        ...

    async def list_jobs(self, page: PageRequest) -> tuple[Sequence[Job], tuple[str | int | None, ...] | None]:
        """A page and the position after its last item, None when it is the last page."""
        ...

    async def update_job(self, job: Job, change: JobChange) -> Job | None:
        """Changes the job if its revision is still that of `job`; None if somebody else changed it in between."""
        ...

    async def cancel_job(self, job_id: str, revision: int | None) -> Job | None:
        """Ends the job, its schedules and what waits, and asks running calls to stop. None: no such job or revision."""
        ...

    async def delete_job(self, job: Job, *, force: bool, at_revision: bool = False) -> bool:
        """Deletes the job with all that belongs to it. Raises WrongState while it runs or, without `force`, has plans.

        False if `at_revision` and it has changed since it was read.
        """
        ...

    async def add_run(self, run: NewRun) -> UUID:
        """Stores a manual execution, due now, and returns its uid, or the uid of the first call when it is a repeat.

        Raises AlreadyExists (request_id with another digest) or WrongState (cancelled job).
        """
        ...

    async def add_schedule(
        self, job: Job, schedule: NewSchedule, *, principal: str, request_id: str, digest: bytes, limit: int
    ) -> UUID:
        """Stores a schedule and its first plan; returns its uid, or that of the first call when it is a repeat.

        Raises AlreadyExists, WrongState (cancelled job), or WrongState with reason TOO_MANY_SCHEDULES over `limit`.
        """
        ...

    async def get_schedule(self, job_id: str, schedule_id: str) -> Schedule | None: ...

    async def get_schedule_by_uid(self, uid: UUID) -> Schedule | None: ...

    async def list_schedules(
        self, job_id: str | None, page: PageRequest
    ) -> tuple[Sequence[Schedule], tuple[str | int | None, ...] | None]: ...

    async def update_schedule(self, schedule: Schedule, change: ScheduleChange) -> Schedule | None:
        """Changes the schedule and replaces its plans, if its revision is still that of `schedule`; else None."""
        ...

    async def pause_schedule(self, schedule: Schedule, principal: str, note: str) -> Schedule | None: ...

    async def resume_schedule(self, schedule: Schedule) -> Schedule | None: ...

    async def create_calendar(self, calendar: SharedCalendar) -> SharedCalendar:
        """Stores a calendar. Raises AlreadyExists."""
        ...

    async def get_calendar(self, calendar_id: str) -> SharedCalendar | None: ...

    async def get_calendars(self, ids: Sequence[str]) -> Mapping[str, SharedCalendar]: ...

    async def list_calendars(
        self, after: str, size: int
    ) -> tuple[Sequence[SharedCalendar], tuple[str | int | None, ...] | None]: ...

    async def update_calendar(self, calendar: SharedCalendar, change: CalendarChange) -> SharedCalendar | None: ...

    async def delete_calendar(self, calendar: SharedCalendar, *, force: bool) -> bool:
        """Deletes the calendar at that revision; False if it was changed. Raises WrongState while it is used."""
        ...

    async def add_backfill(self, backfill: NewBackfill) -> UUID:
        """Stores a backfill; returns its uid, or that of the first call when it is a repeat. Raises AlreadyExists."""
        ...

    async def get_backfill(self, uid: UUID) -> Backfill | None: ...

    async def cancel_backfill(self, uid: UUID) -> None:
        """Ends a running backfill; one that has ended is left alone."""
        ...

    async def delete_schedule(self, schedule: Schedule) -> bool:
        """Deletes the schedule at that revision with its plans; False if it was changed in between."""
        ...

    async def get_execution(self, job_id: str, uid: UUID, *, with_payload: bool) -> Execution | None: ...

    async def list_executions(
        self, job_id: str | None, page: PageRequest
    ) -> tuple[Sequence[Execution], tuple[str | int | None, ...] | None]: ...

    async def cancel_execution(self, job_id: str, uid: UUID) -> None:
        """Ends a waiting execution, or asks the worker of a running one to stop. One that has ended is left alone."""
        ...

    async def redrive(self, uid: UUID, principal: str, request_id: str, digest: bytes) -> bool:
        """FAILED → PENDING, due now, with new attempts and a new maximum age; takes the request_id with it.

        False if it is not FAILED, or its job is cancelled or gone. Raises AlreadyExists (request_id of another call).
        """
        ...

    async def count_selected(self, selection: Selection, after: UUID | None) -> tuple[int, UUID | None]:
        """How many match in the next stretch behind `after`, and where it ended; None when nothing follows."""
        ...

    async def add_operation(self, new: NewOperation) -> UUID:
        """Stores an operation; returns its uid, or that of the first call when it is a repeat. Raises AlreadyExists."""
        ...

    async def get_operation(self, uid: UUID) -> Operation | None: ...

    async def list_operations(
        self, page: PageRequest
    ) -> tuple[Sequence[Operation], tuple[str | int | None, ...] | None]: ...

    async def cancel_operation(self, uid: UUID) -> None:
        """Ends a running operation; one that has ended is left alone."""
        ...

    async def read_open(
        self,
        job_id: str | None,
        filter_: Expression | None,
        *,
        principals: frozenset[str] | None = None,
        after: UUID | None,
        with_payload: bool,
        limit: int,
    ) -> tuple[Sequence[Execution], datetime]:
        """The first `limit` of what is open now by uid, after that one, and the moment of reading by the database's
        clock; of one job also what is planned.
        """
        ...

    async def read_ended(
        self,
        job_id: str | None,
        filter_: Expression | None,
        *,
        principals: frozenset[str] | None = None,
        after: tuple[datetime, UUID],
        until: datetime,
        with_payload: bool,
        limit: int,
    ) -> Sequence[Execution]:
        """The first `limit` of what ended after that (finish time, uid) and up to `until`, in this order."""
        ...

    async def list_audit(
        self, page: PageRequest, resource: str
    ) -> tuple[Sequence[AuditEntry], tuple[str | int | None, ...] | None]:
        """A page of what was done to a resource and what belongs to it; to everything for an empty name."""
        ...

    async def status(self) -> ServiceStatus: ...

    async def queues(self) -> Sequence[QueueStatus]: ...

    async def breakers(self) -> Mapping[str, BreakerStatus]:
        """The breakers that ever moved, by service."""
        ...

    async def pauses(self) -> Sequence[Pause]:
        """All pauses that stand."""
        ...

    async def pause(self, scope: Scope, name: str, principal: str, note: str) -> None:
        """Stops release, and gives back what is released and not claimed. What is paused already stays as it is."""
        ...

    async def resume(self, scope: Scope, name: str) -> None:
        """Ends a pause. What is not paused stays as it is."""
        ...


class Targets(Protocol):
    """The catalogue of methods that may be scheduled."""

    def get(self, method: str) -> Target | None: ...

    def __iter__(self) -> Iterator[Target]:
        """Every target, by method name."""
        ...

    def problem(self, method: str) -> Violation | None:
        """Why a method that `get` does not know cannot be scheduled, with what to use instead. Its field is empty."""
        ...

    def check(self, method: str, type_url: str, value: bytes) -> Sequence[Violation]:
        """What is wrong with a request for a known method; field paths start at the request message."""
        ...


class RedisProbe(Protocol):
    """Whether Redis answers."""

    async def is_up(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the operations work with."""

    store: Store
    targets: Targets
    clock: Clock
    limits: Limits
    redis: RedisProbe
    default_time_zone: str
    environment: str
    version: str
    #: What the caller of this call may do.
    access: Access = EVERYTHING
    #: Whether a changed policy was refused, so that an older one is in force.
    policy_stale: Callable[[], bool] = lambda: False
