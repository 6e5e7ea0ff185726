"""Leases: the heartbeat of this worker, and the recovery of what dead ones left running.

A worker that has not been able to renew its lease for a while cancels its own calls before others may make them
again. The leader takes back the executions of a worker whose lease has ended, but only when its own connection has been
unbroken for some seconds: after an outage of the database all leases look expired.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: The leader's connection must have been unbroken this long before it judges others, whether it led or not.
SETTLE_SECONDS = 3.0
#: How often the leader looks for lost executions.
REAP_PAUSE = 0.25
#: How often a worker asks whether running calls are to be cancelled: within a second of the wish.
CANCEL_PAUSE = 0.4
#: What runs longer than its deadline and this is taken back too.
OVERTIME = timedelta(seconds=30)
#: A claim younger than this may still be on its way to us, unless we gave up waiting for it; it is no orphan.
ORPHAN_AGE = timedelta(seconds=2)


class Beat(Protocol):
    """What a heartbeat brought back."""

    @property
    def now(self) -> datetime: ...

    @property
    def sent(self) -> float: ...

    @property
    def received(self) -> float: ...

    @property
    def running(self) -> Mapping[UUID, UUID]: ...

    @property
    def claimed(self) -> Mapping[UUID, datetime]: ...


class Engine(Protocol):
    """The delivery engine, as leases see it."""

    last_start: datetime | None

    @property
    def tokens(self) -> frozenset[UUID]: ...

    @property
    def held(self) -> frozenset[UUID]: ...

    @property
    def unanswered(self) -> frozenset[UUID]: ...

    def forget_unanswered(self, tokens: Iterable[UUID]) -> None: ...

    def renew_lease(self, until: float) -> None: ...

    def has_lease(self) -> bool: ...

    def cut_off(self) -> None: ...

    def cancel(self, tokens: Iterable[UUID]) -> None: ...

    def lose(self, tokens: Iterable[UUID]) -> None: ...

    def give_back(self, claims: Iterable[tuple[UUID, UUID]], now: datetime) -> None: ...


class Heart(Protocol):
    """Sends one heartbeat. May raise StoreUnavailable."""

    async def __call__(self, last_start: datetime | None) -> Beat: ...


class Sampler(Protocol):
    """Learns the database's clock from round trips."""

    def sample(self, sent: float, received: float, database_now: datetime) -> None: ...


class Lease:
    """The lease of this process."""

    def __init__(
        self, engine: Engine, heart: Heart, sampler: Sampler, clock: Clock, *, beat: timedelta, cutoff: timedelta
    ) -> None:
        self._engine = engine
        self._heart = heart
        self._sampler = sampler
        self._clock = clock
        self._beat = beat.total_seconds()
        self._cutoff = cutoff.total_seconds()
        self._last_renewal = float("-inf")

    async def tick(self) -> float:
        """Renews the lease, learns the clock, gives back what PostgreSQL believes to run here and does not, and lets go
        of what it no longer believes to.
        """
        sent = self._clock.monotonic()
        held, unanswered = self._engine.held, self._engine.unanswered
        beat = await self._heart(self._engine.last_start)
        self._sampler.sample(beat.sent, beat.received, beat.now)
        self._last_renewal = sent
        # Counted from before the statement was sent, so that this process always ends earlier than the database thinks.
        self._engine.renew_lease(sent + self._cutoff)
        # What was held when the beat was sent had been claimed before PostgreSQL looked. If its token no longer stands,
        # the leader has taken the execution back, and others may call at any moment. What has ended here meanwhile is
        # missing too, and no longer held.
        lost = (held & self._engine.held).difference(beat.running)
        if lost:
            log_event(_log, logging.WARNING, "executions_taken_over", count=len(lost))
            self._engine.lose(lost)
        mine = self._engine.tokens
        orphans = [
            (token, uid)
            for token, uid in beat.running.items()
            if token not in mine and (token in unanswered or beat.claimed[token] < beat.now - ORPHAN_AGE)
        ]
        self._engine.forget_unanswered(unanswered)
        if orphans:
            log_event(_log, logging.WARNING, "orphans_given_back", count=len(orphans))
            self._engine.give_back(orphans, beat.now)
        return max(0.0, self._beat - (self._clock.monotonic() - sent))

    async def guard(self) -> float:
        """Cancels running calls when the lease nears its end."""
        if not self._engine.has_lease():
            self._engine.cut_off()
        return 0.1


class CancelStore(Protocol):
    """Which running executions callers want to end. May raise StoreUnavailable."""

    async def cancellations(self, worker: UUID) -> set[UUID]: ...


class Canceller:
    """Passes callers' wishes on to the running calls."""

    def __init__(self, worker: UUID, store: CancelStore, engine: Engine) -> None:
        self._worker = worker
        self._store = store
        self._engine = engine

    async def tick(self) -> float:
        """Looks for wishes, if anything runs."""
        if self._engine.tokens:
            self._engine.cancel(await self._store.cancellations(self._worker))
        return CANCEL_PAUSE


class Recovery(Protocol):
    """Takes back lost executions under the leader's term; returns how many. A dry run only looks. May raise
    StoreUnavailable.
    """

    async def __call__(self, term: int, grace: timedelta, *, dry_run: bool) -> int: ...


class Leader(Protocol):
    """Whether this process leads, under which term, and since when its link to PostgreSQL has been sound."""

    @property
    def term(self) -> int | None: ...

    @property
    def sound_since(self) -> float | None: ...


class Reaper:
    """Recovers the executions of dead workers while this process leads."""

    def __init__(self, leader: Leader, recover: Recovery, clock: Clock) -> None:
        self._leader = leader
        self._recover = recover
        self._clock = clock
        self._broken_at = float("-inf")

    async def tick(self) -> float:
        """One look, if this process leads and its own link to PostgreSQL has been sound for a while."""
        term, sound_since = self._leader.term, self._leader.sound_since
        if term is None or sound_since is None:
            return REAP_PAUSE
        try:
            # Until the link has been sound for long enough the look only shows whether it is.
            is_settled = self._clock.monotonic() - max(sound_since, self._broken_at) >= SETTLE_SECONDS
            count = await self._recover(term, OVERTIME, dry_run=not is_settled)
        except StoreUnavailable:
            self._broken_at = self._clock.monotonic()
            raise
        if count:
            log_event(_log, logging.WARNING, "executions_recovered", count=count)
        return REAP_PAUSE
