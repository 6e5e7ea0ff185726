"""Shared calendars: exclusions with a name, which many schedules may use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduling.domain.timing import ExcludedCron, ExcludedDates, ExcludedPeriod, ExcludedWindow, NamedCalendar

PlainExclusion = ExcludedDates | ExcludedPeriod | ExcludedWindow | ExcludedCron


@dataclass(frozen=True, slots=True)
class SharedCalendar:
    """A stored calendar. `time_zone` None leaves its local times to the schedule's zone."""

    uid: UUID
    calendar_id: str
    display_name: str
    exclusions: tuple[PlainExclusion, ...]
    time_zone: str | None
    revision: int
    create_time: datetime
    update_time: datetime
    schedule_count: int = 0

    @property
    def name(self) -> str:
        """The resource name."""
        return f"calendars/{self.calendar_id}"

    def as_exclusion(self) -> NamedCalendar:
        """The calendar as a schedule sees it."""
        return NamedCalendar(self.calendar_id, self.exclusions, self.time_zone)
