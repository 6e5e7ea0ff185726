"""Housekeeping: what the leader does to the tables once an hour, a small piece at a time.

Dispatch is never to feel it. Each piece is a short transaction, one at a time, so that no more than one core is busy
with it, and where nobody waits for the result, the database rests after each for longer than it took.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from scheduling.domain.clock import Clock
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Seconds between two rounds, and between two looks at whether this process leads.
ROUND_PAUSE, STANDBY_PAUSE = 3600.0, 5.0
#: Seconds between two walks through all request ids.
WALK_PAUSE = 24 * 3600.0
#: Where the walk through the jobs of a partition begins.
FIRST = UUID(int=0)
#: Rest after a piece of the slow walks, in lengths of the piece.
WALK_REST = 4.0

R = TypeVar("R")


class Pruned(Protocol):
    """What a piece of pruning took away."""

    @property
    def jobs(self) -> int: ...

    @property
    def executions(self) -> int: ...


class Store(Protocol):
    """What housekeeping does to the tables. Every call may raise StoreUnavailable."""

    async def forget_workers(self) -> None: ...

    async def term_holds(self, term: int) -> bool: ...

    async def tend_history(self, before_drop: Callable[[str], Awaitable[bool]]) -> int: ...

    async def prune_jobs_of(self, term: int, partition: str, after: UUID) -> tuple[Pruned, UUID | None]: ...

    async def prune_failed(self, term: int, keep: timedelta, targets: Sequence[str]) -> Pruned: ...

    async def prune_request_ids(self, term: int, after: tuple[str, str]) -> tuple[int, tuple[str, str] | None]: ...

    async def prune_oddments(self, term: int, keep: timedelta) -> int: ...


class Leader(Protocol):
    """Whether this process leads, and under which term."""

    @property
    def term(self) -> int | None: ...


class Housekeeper:
    """Works while this process leads. `failed_targets` are those whose failed executions may go after `keep_failed`."""

    def __init__(
        self, leader: Leader, store: Store, clock: Clock, *, keep_failed: timedelta, failed_targets: Sequence[str]
    ) -> None:
        self._leader = leader
        self._store = store
        self._clock = clock
        self._keep_failed = keep_failed
        self._failed_targets = failed_targets
        self._walked = float("-inf")

    async def tick(self) -> float:
        """One round. What a lost term or a broken link leaves undone, the next round does."""
        term = self._leader.term
        if term is None:
            return STANDBY_PAUSE
        await self._store.forget_workers()
        dropped = await self._store.tend_history(partial(self._prune_jobs, term))
        if dropped:
            log_event(_log, logging.INFO, "history_pruned", partitions=dropped)
        await self._prune_failed(term)
        oddments = partial(self._store.prune_oddments, term, self._keep_failed)
        while self._leader.term == term:
            if not await self._rested(oddments):
                break
        if self._clock.monotonic() - self._walked >= WALK_PAUSE:
            await self._walk(term)
        return ROUND_PAUSE if self._leader.term == term else STANDBY_PAUSE

    async def _prune_jobs(self, term: int, partition: str) -> bool:
        """Deletes the jobs and schedules that end with a partition; whether all have gone that may."""
        jobs = 0
        following: UUID | None = FIRST
        while following is not None and self._leader.term == term:
            pruned, following = await self._store.prune_jobs_of(term, partition, following)
            jobs += pruned.jobs
        if jobs:
            log_event(_log, logging.INFO, "jobs_pruned", partition=partition, jobs=jobs)
        # Under a term that has ended the pieces took nothing away. One that holds now has held all the time.
        return following is None and await self._store.term_holds(term)

    async def _prune_failed(self, term: int) -> None:
        gone = 0
        while self._leader.term == term:
            pruned = await self._store.prune_failed(term, self._keep_failed, self._failed_targets)
            gone += pruned.executions
            if not pruned.executions:
                break
        if gone:
            log_event(_log, logging.INFO, "failed_pruned", executions=gone)

    async def _walk(self, term: int) -> None:
        gone, place = 0, ("", "")
        while self._leader.term == term:
            removed, following = await self._rested(partial(self._store.prune_request_ids, term, place))
            gone += removed
            if following is None:
                self._walked = self._clock.monotonic()
                break
            place = following
        if gone:
            log_event(_log, logging.INFO, "request_ids_pruned", request_ids=gone)

    async def _rested(self, piece: Callable[[], Awaitable[R]]) -> R:
        """Does a piece of a walk, then rests for WALK_REST times as long."""
        began = self._clock.monotonic()
        result = await piece()
        await self._clock.sleep((self._clock.monotonic() - began) * WALK_REST)
        return result
