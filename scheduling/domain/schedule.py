"""Schedules as values: the stored when of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from scheduling.domain.recurrence.zones import zone_version
from scheduling.domain.timing import Timing
from scheduling.domain.value import value


class ScheduleState(StrEnum):
    """Where a schedule stands."""

    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    PAUSED = "PAUSED"


@value
class Pause:
    """Who paused a schedule, when and why."""

    time: datetime
    principal: str
    note: str


@value
class Schedule:
    """A stored schedule."""

    uid: UUID
    schedule_id: str
    job_uid: UUID
    job_id: str
    display_name: str
    timing: Timing
    request: bytes | None
    request_type: str | None
    state: ScheduleState
    revision: int
    evaluated_until: datetime | None
    next_fire_time: datetime | None
    fired_count: int
    missed_count: int
    create_time: datetime
    update_time: datetime
    pause: Pause | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    buffered: int = 0
    zone_version: str = ""
    moved_time: datetime | None = None
    moved_from: datetime | None = None

    @property
    def remaining(self) -> int | None:
        """How many firings it may still have; None without a limit."""
        limit = self.timing.max_firings
        return None if limit is None else max(limit - self.fired_count, 0)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.job_id}/schedules/{self.schedule_id}"


@value
class NewSchedule:
    """A schedule that is to be stored, with its first plan already computed.

    `accept_time` is when the call was accepted: firings after it count. `first_ready` is the first firing plus
    jitter. Both are None when the clock does not decide: once per deployment.
    """

    uid: UUID
    schedule_id: str
    display_name: str
    timing: Timing
    first_fire: datetime | None
    first_ready: datetime | None
    accept_time: datetime
    request: bytes | None = None
    request_type: str | None = None
    plan_uid: UUID = field(kw_only=True)

    def as_stored(self, job_uid: UUID, job_id: str, now: datetime) -> Schedule:
        """The schedule as it stands right after it was stored at `now`."""
        return Schedule(
            uid=self.uid,
            schedule_id=self.schedule_id,
            job_uid=job_uid,
            job_id=job_id,
            display_name=self.display_name,
            timing=self.timing,
            request=self.request,
            request_type=self.request_type,
            state=ScheduleState.ACTIVE,
            revision=1,
            evaluated_until=self.first_fire if self.timing.is_recurring else None,
            next_fire_time=self.first_fire,
            fired_count=0,
            missed_count=0,
            create_time=now,
            update_time=now,
            zone_version=zone_version(),
        )
