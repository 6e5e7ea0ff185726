"""What the engine knows of each queue: what waits, what is claimed, and the slots for its calls."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from scheduling.domain.execution import Claim
from scheduling.domain.target import Queue

#: Seconds over which the pace of a queue's calls is measured.
PACE_SECONDS = 0.02
#: At most so many times the slots of a queue are claimed ahead, anew when one part in AHEAD_LEFT of them is left.
AHEAD_SLOTS, AHEAD_LEFT = 8, 3
#: The next calls begin when one part in GROUP_PART of the slots is free, or GROUP_SECONDS after the ones before.
GROUP_PART, GROUP_SECONDS = 3, 0.006


@dataclass(slots=True)
class Lane:
    """One queue: what waits for its moment (a heap), what is claimed and waits for a slot, and the free slots.

    `free` are the slots less what is claimed: below zero when more is claimed than has slots. `isolated` has crashed
    processes and waits until nothing else runs here; `is_alone` while it is the only one.
    """

    queue: Queue
    slots: int
    free: int
    running: int = 0
    ahead: deque[Held] = field(default_factory=deque)
    #: Calls that have ended since `measured_at`, and how many a second that were before.
    ended: int = 0
    measured_at: float = 0.0
    pace: float = 0.0
    #: When calls were begun last, and what begins the next ones if nothing does before.
    started_at: float = 0.0
    start_soon: asyncio.TimerHandle | None = None
    #: The claiming loop wants to be woken when so many are free.
    wake_at: int = 1
    isolated: UUID | None = None
    is_alone: bool = False
    #: By ready time, then as they came: comparing ids would cost more than all else that is done with them.
    waiting: list[tuple[datetime, int, UUID]] = field(default_factory=list)
    taken: int = 0
    known: set[UUID] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Whether the last sweep found something for every free slot.
    has_backlog: bool = False

    def room(self, now: float, ahead: float) -> int:
        """How many may be claimed: for the free slots, and for those that will be free within `ahead` seconds at the
        present pace, when that is worth a statement.
        """
        if now - self.measured_at >= PACE_SECONDS:
            self.pace = self.ended / (now - self.measured_at)
            self.ended, self.measured_at = 0, now
        spare = min(int(self.pace * ahead), AHEAD_SLOTS * self.slots)
        self.wake_at = 1 - spare // AHEAD_LEFT
        return self.free + spare if self.free >= self.wake_at else 0

    def until_group(self, now: float) -> float:
        """Seconds for which the next calls may wait for slots to begin in together; none where calls end so slowly
        that not half a group would come together in that time.
        """
        group = self.slots / GROUP_PART
        if self.slots - self.running >= group or self.pace * GROUP_SECONDS < group / 2:
            return 0.0
        return self.started_at + GROUP_SECONDS - now


@dataclass(slots=True)
class Held:
    """A claimed execution. `start` is set when its call begins, `cancelled_by` when it is to end before an answer;
    `claimed` is the monotonic second before its claim.
    """

    claim: Claim
    claimed: float
    task: asyncio.Task[None] | None = None
    is_running: bool = False
    start: datetime | None = None
    cancelled_by: str = ""
