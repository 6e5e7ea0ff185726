"""Where rooms are joined: what some offer, in the shape that another asks for. Part of construction."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from scheduling.storage.advancing import AdvancingStore
from scheduling.storage.backfilling import BackfillStore
from scheduling.storage.breaking import BreakerStore
from scheduling.storage.calendars import CalendarStore
from scheduling.storage.delivering import DeliveryStore
from scheduling.storage.deployments import DeploymentStore
from scheduling.storage.leading import LeadingStore
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.pruning import PruningStore
from scheduling.storage.releasing import ReleasingStore
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)


class SchedulerStore:
    """The two stores that the scheduler works with, as one."""

    def __init__(self, advancing: AdvancingStore, releasing: ReleasingStore) -> None:
        self.advance = advancing.advance
        self.release = releasing.release


class PlannerStore:
    """The stores that the planner works with, as one."""

    def __init__(self, calendars: CalendarStore, backfills: BackfillStore, deployments: DeploymentStore) -> None:
        self.begin_deployment = deployments.begin_deployment
        self.mark_other_zone_versions = calendars.mark_other_zone_versions
        self.move_stale_plans = calendars.move_stale_plans
        self.step_backfills = backfills.step_backfills


class HousekeepingStore:
    """The stores that housekeeping works with, as one."""

    def __init__(self, leading: LeadingStore, maintaining: MaintenanceStore, pruning: PruningStore) -> None:
        self.forget_workers = leading.forget_workers
        self.term_holds = leading.term_holds
        self.tend_history = maintaining.tend_history
        self.prune_jobs_of = pruning.prune_jobs_of
        self.prune_failed = pruning.prune_failed
        self.prune_request_ids = pruning.prune_request_ids
        self.prune_oddments = pruning.prune_oddments


class Breakers:
    """The breakers, with their changes written to the log."""

    def __init__(self, store: BreakerStore) -> None:
        self._store = store

    async def feed(self, tallies: Mapping[str, tuple[int, int]]) -> None:
        """Takes in (failures, successes) by service. Raises StoreUnavailable."""
        for breaker in await self._store.feed(tallies):
            log_event(_log, logging.WARNING, "breaker_changed", service=breaker.service, state=breaker.state.value)


class RecoveryStore:
    """The two stores that recovery works with, as one."""

    def __init__(self, leading: LeadingStore, delivering: DeliveryStore) -> None:
        self.find_lost = leading.find_lost
        self.record = delivering.record


class NoTransport:
    """Stands in where no Redis is configured: the leader does all itself, and workers find their work by the sweep."""

    async def ring(self, term: int) -> bool:  # noqa: ARG002 - the protocol's signature
        """Not taken."""
        return False

    async def send(self, queue: object, items: object) -> bool:  # noqa: ARG002 - the protocol's signature
        """Not taken."""
        return False
