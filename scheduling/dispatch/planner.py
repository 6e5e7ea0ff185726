"""The planner: what the leader does to plans besides advancing them.

Plans follow changed calendars and zone versions, backfills go on at their rate, and what is to happen once per
deployment is planned by the first leader of the deployment. Everything is written under the leader's term.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from scheduling.domain.clock import Clock
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Seconds between two looks.
PAUSE = 0.5
#: Schedules named in one line of the log; the others are counted, and can be listed by `move_time`.
NAMED_SCHEDULES = 20


class Moved(Protocol):
    """What one round of moving plans did."""

    @property
    def looked_at(self) -> int: ...

    @property
    def moved(self) -> tuple[str, ...]: ...

    @property
    def more(self) -> bool: ...


class Store(Protocol):
    """What the planner writes. Every call may raise StoreUnavailable."""

    async def begin_deployment(self, term: int, deployment_id: str) -> int | None: ...

    async def mark_other_zone_versions(self, term: int) -> tuple[int, int]: ...

    async def move_stale_plans(self, term: int) -> Moved: ...

    async def step_backfills(self, term: int) -> int: ...


class Leader(Protocol):
    """Whether this process leads, and under which term."""

    @property
    def term(self) -> int | None: ...


class Planner:
    """Works while this process leads."""

    def __init__(self, leader: Leader, store: Store, clock: Clock, deployment_id: str) -> None:
        self._leader = leader
        self._store = store
        self._clock = clock
        self._deployment_id = deployment_id
        self._begun_in: int | None = None
        self._is_behind = False

    async def tick(self) -> float:
        """One look at everything; comes again at once while there is more to move."""
        term = self._leader.term
        if term is None:
            return PAUSE
        if term != self._begun_in:
            # Once per term is enough: both only change with a new version of the service, which begins with a new
            # leader.
            planned = await self._store.begin_deployment(term, self._deployment_id)
            if planned is not None:
                log_event(_log, logging.INFO, "deployment_begun", deployment=self._deployment_id, plans=planned)
            if await self._mark_zones(term):
                self._begun_in = term
        # While there are many, two at a time: one is worked out while the database is busy with the other.
        rounds = 2 if self._is_behind else 1
        looks = await asyncio.gather(*(self._store.move_stale_plans(term) for _ in range(rounds)))
        self._is_behind = any(look.more for look in looks)
        if moved := [name for look in looks for name in look.moved]:
            log_event(_log, logging.INFO, "plans_moved", count=len(moved), schedules=moved[:NAMED_SCHEDULES])
        made = await self._store.step_backfills(term)
        if made:
            log_event(_log, logging.INFO, "backfills_stepped", executions=made)
        return 0.0 if self._is_behind else PAUSE

    async def _mark_zones(self, term: int) -> bool:
        """Whether none is left. What somebody had locked is marked with the next look."""
        marked = 0
        while True:
            some, found = await self._store.mark_other_zone_versions(term)
            marked += some
            if not some:
                break
        if marked:
            log_event(_log, logging.INFO, "zone_version_changed", schedules=marked)
        return not found
