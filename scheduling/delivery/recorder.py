"""Records outcomes, many in one statement, and keeps them for as long as PostgreSQL is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from scheduling.delivery.brakes import Brakes
from scheduling.delivery.outcomes import CUT, UNSTORABLE, without_words
from scheduling.domain.breaker import DOWN_CODES
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import Attempt, Claim, Outcome, Reason
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: What a breaker learns nothing from: the caller's wish, this process's end, and a full pool of our own sidecar.
_TELLS_NOTHING = frozenset({Reason.CALLER, Reason.POOL_OVERFLOW, *CUT})


class Store(Protocol):
    """Where outcomes go; returns the uids of those whose token still stood. May raise StoreUnavailable."""

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]: ...


class Breakers(Protocol):
    """Where failures and successes by service are added up over all workers. May raise StoreUnavailable."""

    async def feed(self, tallies: Mapping[str, tuple[int, int]]) -> object: ...


class Observer(Protocol):
    """Is told what is durable."""

    def recorded(self, outcomes: Sequence[tuple[Claim | None, Outcome]]) -> None: ...


class Recorder:
    """The outcomes of one worker. An outcome that comes alone is recorded at once; while more come, those of `gap` go
    together: fewer statements, and each outcome durable at most that much later.
    """

    def __init__(
        self,
        store: Store,
        breakers: Breakers,
        brakes: Brakes,
        observer: Observer,
        clock: Clock,
        *,
        batch: int,
        gap: timedelta,
    ) -> None:
        self._store = store
        self._breakers = breakers
        self._brakes = brakes
        self._observer = observer
        self._clock = clock
        self._batch = batch
        self._gap = gap.total_seconds()
        #: Services whose breakers want to hear of successes too.
        self.suspects: frozenset[str] = frozenset()
        self._outcomes: list[tuple[Claim | None, Outcome]] = []
        self._came = asyncio.Event()
        self._next_at = float("-inf")
        #: Calls that were made and whose outcomes PostgreSQL refused, by token.
        self.refused: dict[UUID, tuple[Claim, Attempt]] = {}

    def __len__(self) -> int:
        """Outcomes that are not yet durable."""
        return len(self._outcomes)

    @property
    def tokens(self) -> frozenset[UUID]:
        """The claim tokens of outcomes that are not yet durable."""
        return frozenset(outcome.token for _, outcome in self._outcomes)

    def add(self, claim: Claim | None, outcome: Outcome) -> None:
        """Takes an outcome."""
        self._outcomes.append((claim, outcome))
        self._came.set()

    async def step(self, recorded: Callable[[], None]) -> None:
        """Records the next outcomes as they come; keeps them while PostgreSQL is away, for as long as it takes."""
        if not self._outcomes:
            self._came.clear()
            await self._came.wait()
        pause = self._next_at - self._clock.monotonic()
        if pause > 0 and len(self._outcomes) < self._batch:
            await self._clock.sleep(pause)
        self._next_at = self._clock.monotonic() + self._gap
        batch = self._outcomes[: self._batch]
        if not await self._record(batch):
            await self._clock.sleep(0.2)
            return
        del self._outcomes[: len(batch)]
        recorded()

    async def _record(self, batch: Sequence[tuple[Claim | None, Outcome]]) -> bool:
        try:
            recorded = await self._store.record([outcome for _, outcome in batch])
        except StoreUnavailable as error:
            log_event(_log, logging.WARNING, "record_failed", error=str(error), count=len(batch))
            return False
        except Exception as error:  # noqa: BLE001 - one bad outcome must not stop all others
            if len(batch) > 1:
                return all([await self._record([each]) for each in batch])
            claim, outcome = batch[0]
            log_event(_log, logging.ERROR, "outcome_refused", execution=str(outcome.uid), error=type(error).__name__)
            if outcome.attempt is None or outcome.attempt.message == UNSTORABLE:
                # A later heartbeat finds that nobody holds it. What was called must not come back as never begun.
                if claim is not None and outcome.attempt is not None:
                    self.refused[outcome.token] = (replace(claim, request=b""), outcome.attempt)
                return True
            return await self._record([(claim, without_words(outcome, outcome.attempt))])
        try:
            self._observer.recorded([each for each in batch if each[1].uid in recorded])
            await self._feed_breakers(batch)
        except Exception as error:  # noqa: BLE001 - what is durable must not be recorded again and again
            log_event(_log, logging.ERROR, "loop_failed", loop="engine_record", problem="telling", exc_info=error)
        return True

    async def _feed_breakers(self, batch: Sequence[tuple[Claim | None, Outcome]]) -> None:
        """Tells the breakers of failures, and of successes where somebody has seen failures. Sound services cost
        nothing.
        """
        tallies: dict[str, tuple[int, int]] = {}
        for claim, outcome in batch:
            if claim is None or outcome.attempt is None or outcome.attempt.reason in _TELLS_NOTHING:
                continue
            service = claim.target.partition("/")[0]
            failures, successes = tallies.get(service, (0, 0))
            is_down = outcome.attempt.code in DOWN_CODES
            tallies[service] = (failures + is_down, successes + (not is_down))
        told = {service: tally for service, tally in tallies.items() if tally[0] or service in self.suspects}
        if not told:
            return
        try:
            await self._breakers.feed(told)
        except StoreUnavailable as error:
            log_event(_log, logging.WARNING, "breakers_not_fed", error=str(error))
        self._brakes.told(told, self._clock.monotonic())
        self.suspects |= {service for service, tally in told.items() if tally[0]}
