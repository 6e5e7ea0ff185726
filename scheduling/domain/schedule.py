"""Schedules as values: when a job fires, and the rules around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID


class DstPolicy(StrEnum):
    """What a fixed local time does on the days when clocks change (design §7)."""

    FIRE_AFTER_GAP = "FIRE_AFTER_GAP"
    SKIP_GAP = "SKIP_GAP"
    LITERAL = "LITERAL"


class CatchupPolicy(StrEnum):
    """What happens to firings that nobody advanced in time."""

    SKIP_MISSED = "SKIP_MISSED"
    FIRE_ONCE_LATEST = "FIRE_ONCE_LATEST"
    FIRE_ALL = "FIRE_ALL"


class ScheduleState(StrEnum):
    """Where a schedule stands."""

    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class Once:
    """One firing at `time`; `after` is the delay it was asked for with, if it was one."""

    time: datetime
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Cron:
    """Firings by a cron expression of 5 or 6 fields or an `@` name, read in the schedule's zone."""

    expression: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Firings each `every`, at anchor + phase + n × every. Absolute time; anchor None is the Unix epoch."""

    every: timedelta
    phase: timedelta = timedelta(0)
    anchor: datetime | None = None


When = Once | Cron | Interval


@dataclass(frozen=True, slots=True)
class Timing:
    """Everything that decides the firing times of a schedule.

    Bounds are half-open, `[start, end)`. `max_firings` None means no limit.
    """

    when: When
    time_zone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    max_firings: int | None = None
    jitter: timedelta = timedelta(0)
    dst_policy: DstPolicy = DstPolicy.FIRE_AFTER_GAP
    catchup_policy: CatchupPolicy = CatchupPolicy.FIRE_ONCE_LATEST
    catchup_window: timedelta | None = None

    @property
    def is_recurring(self) -> bool:
        """Whether it may fire more than once."""
        return not isinstance(self.when, Once)


@dataclass(frozen=True, slots=True)
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

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.job_id}/schedules/{self.schedule_id}"


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule that is to be stored, with its first plan already computed.

    `first_ready` is the first firing plus jitter.
    """

    uid: UUID
    schedule_id: str
    display_name: str
    timing: Timing
    first_fire: datetime
    first_ready: datetime
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
        )
