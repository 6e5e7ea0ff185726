"""Executions as values: one firing of a job, with its attempts and outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from scheduling.domain.ids import execution_id
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.domain.value import value


class Origin(StrEnum):
    """Where an execution comes from."""

    SCHEDULED = "SCHEDULED"
    MANUAL = "MANUAL"
    BACKFILL = "BACKFILL"


class Reason(StrEnum):
    """Why an execution ended other than by success, was held or skipped, or an attempt did not count."""

    # FAILED
    PERMANENT = "PERMANENT"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    EXPIRED = "EXPIRED"
    CRASHED = "CRASHED"
    # SKIPPED
    OVERLAP = "OVERLAP"
    BUFFER_FULL = "BUFFER_FULL"
    MISSED = "MISSED"
    PAUSED = "PAUSED"
    EXCLUDED = "EXCLUDED"
    UPDATED = "UPDATED"
    RESTORED = "RESTORED"
    # CANCELLED
    CALLER = "CALLER"
    REPLACED = "REPLACED"
    # Attempts
    CONFLICT = "CONFLICT"
    LEASE_LOST = "LEASE_LOST"
    NOT_BEGUN = "NOT_BEGUN"
    SHUTDOWN = "SHUTDOWN"
    # The sidecar's own word that it sent nothing: its pool of connections is full, or it reached nobody.
    POOL_OVERFLOW = "POOL_OVERFLOW"
    NOT_CONNECTED = "NOT_CONNECTED"


@value
class Attempt:
    """One call to the target. `code` is the gRPC status code's number, `reason` says how it ended when not by an
    answer.
    """

    number: int
    start_time: datetime
    duration: timedelta
    worker: str
    code: int
    message: str
    counted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """A stored execution."""

    uid: UUID
    job_uid: UUID
    job_id: str
    schedule_id: str | None
    origin: Origin
    target: str
    queue: Queue
    owner: str
    state: State
    reason: str
    held_by: str
    nominal_time: datetime
    due_time: datetime
    ready_time: datetime
    expire_time: datetime
    start_time: datetime | None
    finish_time: datetime | None
    attempt: int
    attempts: tuple[Attempt, ...]
    code: int | None
    message: str
    response: bytes | None
    response_type: str
    request: bytes | None
    request_type: str
    cancel_request_time: datetime | None
    create_time: datetime
    job_revision: int

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.job_id}/executions/{execution_id(self.uid)}"

    @property
    def lateness(self) -> timedelta | None:
        """Start minus ready of the first attempt, or None before it."""
        return None if self.start_time is None else self.start_time - self.due_time


@value
class Claim:
    """An execution that this worker holds: everything needed to make one attempt.

    `attempt` is the number of the attempt that is about to be made, `counted` how many before it used up the policy.
    `token` is the fence: the outcome is only accepted with it.
    """

    uid: UUID
    token: UUID
    job_id: str
    target: str
    queue: Queue
    request: bytes
    policy: RetryPolicy
    timeout: timedelta
    attempt: int
    counted: int
    nominal_time: datetime
    due_time: datetime
    ready_time: datetime
    expire_time: datetime
    start_time: datetime | None
    history: tuple[Attempt, ...]
    cancel_requested: bool


@value
class Outcome:
    """What became of a claimed execution; recorded by its token.

    `state` is SUCCEEDED, FAILED, CANCELLED, or PENDING for another try at `ready_time`. `attempt` is None when the call
    was never begun. `start_time` is the start of the first attempt. `crashed` says that the process that held it was
    lost with it.
    """

    uid: UUID
    token: UUID
    state: State
    reason: str
    ready_time: datetime | None
    attempt: Attempt | None
    start_time: datetime | None
    history: tuple[Attempt, ...] = ()
    response: bytes | None = None
    response_type: str = ""
    crashed: bool = False


#: A call that has not begun so long after its claim is not made: deadlines that others wait for count from the claim.
LATEST_BEGIN = timedelta(seconds=2)

#: An execution that was lost with so many processes runs by itself from then on …
ISOLATED_AFTER = 2
#: … and one more is parked: it is what takes them down.
PARKED_AFTER = 3


@dataclass(frozen=True, slots=True)
class LostExecution:
    """A running execution whose worker is gone: what is needed to decide what comes next. Fenced by the same token.

    `moment` is the database's clock when it was found. `crashed` says that the lease of the worker has ended, rather
    than only the time that the call had; `crashes` counts how often that happened before.
    """

    uid: UUID
    token: UUID
    target: str
    queue: Queue
    worker: UUID
    policy: RetryPolicy
    deadline_time: datetime
    attempt: int
    counted: int
    claim_time: datetime
    start_time: datetime | None
    expire_time: datetime
    history: tuple[Attempt, ...]
    cancel_requested: bool
    moment: datetime
    crashed: bool = True
    crashes: int = 0


#: How much history an execution keeps: the first few say how it began, the last ones how it went on.
KEEP_FIRST_ATTEMPTS, KEEP_LAST_ATTEMPTS = 5, 15


def append_attempt(history: tuple[Attempt, ...], attempt: Attempt) -> tuple[Attempt, ...]:
    """The history with one more attempt, within its bounds."""
    grown = (*history, attempt)
    if len(grown) <= KEEP_FIRST_ATTEMPTS + KEEP_LAST_ATTEMPTS:
        return grown
    return grown[:KEEP_FIRST_ATTEMPTS] + grown[-KEEP_LAST_ATTEMPTS:]
