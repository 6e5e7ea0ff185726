"""The scheduler: advances schedules, releases what is due, and sends it on. The work of the scheduler actor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: Rounds of one run, so that a backlog never keeps an actor for good; the next ring goes on.
MAX_ROUNDS = 20


class Advanced(Protocol):
    """What one round of advancing did."""

    @property
    def missed(self) -> int: ...

    @property
    def more(self) -> bool: ...


class Released(Protocol):
    """What one round of releasing did."""

    @property
    def by_queue(self) -> dict[Queue, list[tuple[UUID, datetime]]]: ...

    @property
    def count(self) -> int: ...

    @property
    def more(self) -> bool: ...

    @property
    def busy(self) -> bool: ...

    @property
    def ended(self) -> Mapping[tuple[str, State], int]: ...


class Store(Protocol):
    """What the scheduler writes. Every call may raise StoreUnavailable."""

    async def advance(self, term: int, ahead: timedelta) -> Advanced: ...

    async def release(self, ahead: timedelta) -> Released: ...


class Sender(Protocol):
    """Passes ids on to the workers; what is not taken is found by their sweep."""

    async def send(self, queue: Queue, items: Sequence[tuple[UUID, datetime]]) -> bool: ...


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def released(self, queue: Queue, count: int) -> None: ...

    def ended(self, target: str, state: State, count: int) -> None: ...


class Scheduler:
    """One run at a time per process; across processes the database sees to it."""

    def __init__(self, store: Store, sender: Sender, clock: Clock, look_ahead: timedelta, observer: Observer) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock
        self._look_ahead = look_ahead
        self._observer = observer
        self._lock = asyncio.Lock()
        self._is_failing = False

    async def run(self, term: int) -> int:
        """Advances and releases all that is due within the look-ahead; returns how many were released.

        What keeps schedules from being advanced keeps nothing back that is planned already.
        """
        async with self._lock:
            try:
                await self._advance(term)
            except Exception as error:  # noqa: BLE001 - release goes on, whatever it was
                self._report(error)
            else:
                self._is_failing = False
            return await self._release()

    async def _advance(self, term: int) -> None:
        for _ in range(MAX_ROUNDS):
            advanced = await self._store.advance(term, self._look_ahead)
            if advanced.missed:
                log_event(_log, logging.WARNING, "firings_missed", count=advanced.missed)
            if not advanced.more:
                break

    async def _release(self) -> int:
        total = 0
        for _ in range(MAX_ROUNDS):
            released = await self._store.release(self._look_ahead)
            for queue, items in released.by_queue.items():
                await self._sender.send(queue, items)
                self._observer.released(queue, len(items))
            for (target, state), count in released.ended.items():
                self._observer.ended(target, state, count)
            total += released.count
            if released.busy or not released.more:
                break
        return total

    def _report(self, error: Exception) -> None:
        """Logs that advancing failed, once until it works again."""
        if not self._is_failing:
            is_away = isinstance(error, StoreUnavailable)
            level = logging.WARNING if is_away else logging.ERROR
            log_event(
                _log,
                level,
                "advancing_failed",
                problem=str(error) if is_away else type(error).__name__,
                exc_info=None if is_away else error,
            )
        self._is_failing = True

    async def act(self, term: int) -> None:
        """`run` as an actor: without the store there is nothing to do now, and the next ring comes anyway."""
        try:
            await self.run(term)
        except StoreUnavailable as error:
            log_event(_log, logging.WARNING, "scheduler_run_failed", error=str(error))
