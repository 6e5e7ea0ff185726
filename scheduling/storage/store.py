"""The store as the operations see it: the parts put together, with creations that arrive together sharing a commit."""

from __future__ import annotations

from collections.abc import Sequence

from scheduling.domain.job import Creation, Job
from scheduling.storage.auditing import AuditStore
from scheduling.storage.backfilling import BackfillStore
from scheduling.storage.bulk import OperationStore
from scheduling.storage.calendars import CalendarStore
from scheduling.storage.controls import ControlStore
from scheduling.storage.creation import Creator
from scheduling.storage.database import Database
from scheduling.storage.executions import ExecutionStore
from scheduling.storage.grouping import Grouper
from scheduling.storage.jobs import JobStore
from scheduling.storage.redriving import RedrivingStore
from scheduling.storage.rescheduling import ReschedulingStore
from scheduling.storage.schedules import ScheduleStore
from scheduling.storage.status import StatusStore

#: A group of creations may be GROUP_WEIGHT jobs, or so many bytes for each job less: 8 MB in all.
BYTES_PER_JOB = 16 * 1024


class PostgresStore(
    JobStore,
    ScheduleStore,
    ReschedulingStore,
    CalendarStore,
    BackfillStore,
    ExecutionStore,
    RedrivingStore,
    OperationStore,
    StatusStore,
    ControlStore,
    AuditStore,
):
    """Implements `operations.ports.Store` on PostgreSQL."""

    def __init__(self, database: Database, *, owner_daily_jobs: int = 0, exempt_owner: str = "") -> None:
        super().__init__(database)
        creator = Creator(database, self, owner_daily_jobs=owner_daily_jobs, exempt_owner=exempt_owner)
        self._creations = Grouper[Creation, Sequence[Job] | Exception](creator.create, weight=_weight)

    async def create(self, creation: Creation) -> Sequence[Job]:
        """Stores the jobs of a creation, all or none; durable when it returns."""
        result = await self._creations.submit(creation)
        if isinstance(result, Exception):
            raise result
        return result


def _weight(creation: Creation) -> int:
    """The jobs of a creation, and one more for each BYTES_PER_JOB of their requests: no statement grows too long."""
    return len(creation.jobs) + sum(len(new.spec.request) for new in creation.jobs) // BYTES_PER_JOB
