"""Operations in bulk: while this process leads, it works them off piece by piece, under its term."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Seconds between two looks when nothing is running, and while something is.
PAUSE, BUSY_PAUSE = 1.0, 0.1


class Step(Protocol):
    """What one piece of an operation did."""

    @property
    def name(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def principal(self) -> str: ...

    @property
    def done(self) -> int: ...

    @property
    def total_done(self) -> int: ...

    @property
    def problem(self) -> str: ...

    @property
    def has_ended(self) -> bool: ...


class Store(Protocol):
    """What works them off. The call may raise StoreUnavailable."""

    async def step_operations(self, term: int) -> tuple[Sequence[Step], bool]: ...


class Leader(Protocol):
    """Whether this process leads, and under which term."""

    @property
    def term(self) -> int | None: ...


class BulkWork:
    """Works while this process leads."""

    def __init__(self, leader: Leader, store: Store) -> None:
        self._leader = leader
        self._store = store

    async def tick(self) -> float:
        """One piece of each operation whose turn it is."""
        term = self._leader.term
        if term is None:
            return PAUSE
        steps, is_running = await self._store.step_operations(term)
        for step in steps:
            told = {"operation": step.name, "method": step.method, "principal": step.principal}
            if step.problem:
                log_event(_log, logging.ERROR, "operation_failing", **told, problem=step.problem)
            if step.has_ended:
                log_event(_log, logging.INFO, "operation_done", **told, done=step.total_done)
            elif step.done:
                log_event(_log, logging.INFO, "operation_stepped", **told, done=step.done)
        return BUSY_PAUSE if is_running else PAUSE
