"""What a new leader does once, and until when it counts as done."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduling.dispatch.planner import Planner
from tests.support.clock import ManualClock
from tests.support.run import run


@dataclass
class Leader:
    term: int | None = 1


@dataclass
class Moved:
    looked_at: int = 0
    moved: tuple[str, ...] = ()
    more: bool = False


@dataclass
class Store:
    """Answers looks at zone versions from a list."""

    looks: list[tuple[int, int]]
    asked: list[int] = field(default_factory=list)

    async def begin_deployment(self, term: int, deployment_id: str) -> int | None:
        return None

    async def mark_other_zone_versions(self, term: int) -> tuple[int, int]:
        self.asked.append(term)
        return self.looks.pop(0)

    async def move_stale_plans(self, term: int) -> Moved:
        return Moved()

    async def step_backfills(self, term: int) -> int:
        return 0


def test_schedules_of_another_zone_version_are_looked_for_until_none_is_left_and_once_per_term() -> None:
    async def scenario() -> None:
        # One of four is locked by somebody for as long as the first look takes.
        store, leader = Store([(3, 4), (0, 1), (1, 1), (0, 0), (0, 0)]), Leader()
        planner = Planner(leader, store, ManualClock(), "")
        for asked in (2, 4, 4):
            await planner.tick()
            assert len(store.asked) == asked
        leader.term = 2
        for _ in range(2):
            await planner.tick()
        assert store.asked == [1, 1, 1, 1, 2]

    run(scenario())
