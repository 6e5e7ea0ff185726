"""Operations on many jobs or executions at once: worked off in pieces by the leader, at a bounded rate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

#: Jobs or executions a second, when none are given, and at most.
DEFAULT_RATE, MAX_RATE = 100, 1000
#: Failures that are told by name.
KEPT_FAILURES = 5
#: How long an operation is kept after its end.
KEPT_FOR = timedelta(days=30)

OPERATION_PREFIX = "o-"


class BulkMethod(StrEnum):
    """What an operation does."""

    BATCH_RETRY_EXECUTIONS = "BATCH_RETRY_EXECUTIONS"
    BATCH_CANCEL_JOBS = "BATCH_CANCEL_JOBS"
    ERASE_JOBS = "ERASE_JOBS"

    @property
    def rpc(self) -> str:
        """The RPC that asks for it, such as `SchedulingService/EraseJobs`."""
        return f"SchedulingService/{self.value.title().replace('_', '')}"


class OperationState(StrEnum):
    """Where an operation stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Selection:
    """What an operation is about: the executions (retry) or jobs (otherwise) that match everything given here.

    `parent` is that of executions, `jobs/-` or a job's name with its uid in `job_uid`. `filter` is in the language of
    ListExecutions or ListJobs. `principals`, unless None, are those whose jobs may be touched at all.
    """

    method: BulkMethod
    parent: str = ""
    job_uid: UUID | None = None
    filter: str = ""
    owner: str | None = None
    label: tuple[str, str] | None = None
    principals: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A stored operation with its progress. `uid` is None in a dry run."""

    uid: UUID | None
    selection: Selection
    state: OperationState
    rate: int
    total: int
    total_is_partial: bool
    done: int
    passed: int
    failed: int
    failures: tuple[str, ...]
    principal: str
    create_time: datetime
    update_time: datetime
    end_time: datetime | None

    @property
    def name(self) -> str:
        """The resource name."""
        return "" if self.uid is None else f"operations/{operation_id(self.uid)}"


def operation_id(uid: UUID) -> str:
    """The id of an operation: its uid with a letter in front."""
    return f"{OPERATION_PREFIX}{uid}"


def parse_operation_id(text: str) -> UUID | None:
    """The uid in an operation's id, or None if it is not one in canonical form."""
    if not text.startswith(OPERATION_PREFIX):
        return None
    try:
        uid = UUID(text[len(OPERATION_PREFIX) :])
    except ValueError:
        return None
    return uid if operation_id(uid) == text else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an operation goes: so many in one piece, and the pause that keeps them to the rate."""

    rate: int

    @property
    def piece(self) -> int:
        """Half a second's worth, at least one."""
        return max(1, self.rate // 2)

    def pause(self, worked: int) -> timedelta:
        """From one piece to the next, after `worked` of them."""
        return timedelta(seconds=worked / self.rate)
