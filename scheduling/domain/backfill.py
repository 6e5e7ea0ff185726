"""Backfills: firings of a past range that are run after the fact."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from scheduling.domain.job import OverlapPolicy

#: Firings that one backfill may have.
MAX_FIRINGS = 10_000
#: Executions a second, when none are given, and at most.
DEFAULT_RATE, MAX_RATE = 10, 100


class BackfillState(StrEnum):
    """Where a backfill stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Backfill:
    """A stored backfill of [start, end). Everything up to `progress` has been made."""

    uid: UUID
    job_id: str
    schedule_id: str
    schedule_uid: UUID
    start: datetime
    end: datetime
    state: BackfillState
    total: int
    made: int
    progress: datetime
    rate: int
    overlap_policy: OverlapPolicy
    principal: str
    create_time: datetime

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.job_id}/schedules/{self.schedule_id}/backfills/b-{self.uid}"
