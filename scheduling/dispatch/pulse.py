"""The pulse: one process leads, and rings the scheduler when something is due.

**Leadership.** A term is a number that grows with each change of leader; its holder renews it each second, and it
ends by itself three seconds after the last renewal, by the database's clock. A standby looks each half second. The
leader's writes carry the term and change nothing once it has ended. On SIGTERM it is handed over at once.

**Ringing.** The leader looks at the heads of the indexes, at the latest each second and at once on a notification. When
something is due within the look-ahead it rings the scheduler actor; when that has brought nothing about within 250
ms, it does the work itself, so that Redis is never needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.telemetry.logs import log_event

_log = logging.getLogger(__name__)

#: What a ring has not brought about after this long, the leader does itself.
RING_PATIENCE = 0.25
#: While due work waits, the leader looks again after this long.
BUSY_PAUSE = 0.05
#: While executions are held by a gate, the leader looks again after this long; when they may go on any moment, sooner.
HELD_PAUSE, PRESSING_PAUSE = 0.25, 0.1
#: Seconds between two renewals, or looks of a standby, after which a process has stood still, or could not tell.
STOOD_STILL = 3.0
#: With a listener, the longest time between two looks.
LISTENING_PAUSE = 1.0


class Ahead(Protocol):
    """What dispatch has before it."""

    @property
    def now(self) -> datetime: ...

    @property
    def next_ready(self) -> datetime | None: ...

    @property
    def held(self) -> bool: ...

    @property
    def is_pressing(self) -> bool: ...

    @property
    def next_advance(self) -> datetime | None: ...


class LeadershipStore(Protocol):
    """Where the term is kept. Every call may raise StoreUnavailable."""

    async def acquire(self, holder: UUID, ttl: timedelta) -> int | None: ...

    async def renew(self, holder: UUID, term: int, ttl: timedelta) -> bool: ...

    async def resign(self, holder: UUID, term: int) -> None: ...


class LookStore(Protocol):
    """Where the leader looks for what is due."""

    async def look_ahead(self) -> Ahead: ...


class Runner(Protocol):
    """Does the scheduler's work in this process."""

    async def run(self, term: int) -> int: ...


class Ringer(Protocol):
    """Asks some process to do the scheduler's work; False when the message was not taken."""

    async def ring(self, term: int) -> bool: ...


class Leadership:
    """Holds the term of this process, if it has one."""

    def __init__(
        self,
        holder: UUID,
        store: LeadershipStore,
        clock: Clock,
        *,
        ttl: timedelta = timedelta(seconds=3),
        renew: timedelta = timedelta(seconds=1),
        standby: timedelta = timedelta(milliseconds=500),
    ) -> None:
        self._holder = holder
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._renew = renew.total_seconds()
        self._standby = standby.total_seconds()
        self._term: int | None = None
        self._valid_until = float("-inf")
        self._sound_since: float | None = None
        self._last_success = float("-inf")

    @property
    def sound_since(self) -> float | None:
        """Since which monotonic second this process has reached PostgreSQL again and again; None when the last try
        failed. A process that stood still begins anew.
        """
        return self._sound_since

    @property
    def term(self) -> int | None:
        """The term under which this process leads, None when it does not. Ends by this process's own clock too."""
        return self._term if self._clock.monotonic() < self._valid_until else None

    async def tick(self) -> float:
        """Renews the term, or takes one if nobody leads."""
        try:
            pause = await self._renew_or_acquire()
        except StoreUnavailable:
            self._sound_since = None
            raise
        now = self._clock.monotonic()
        if self._sound_since is None or now - self._last_success > STOOD_STILL:
            self._sound_since = now
        self._last_success = now
        return pause

    async def _renew_or_acquire(self) -> float:
        before = self._clock.monotonic()
        if self._term is not None:
            if await self._store.renew(self._holder, self._term, self._ttl):
                self._valid_until = before + self._ttl.total_seconds()
                return self._renew
            log_event(_log, logging.WARNING, "leadership_lost", term=self._term)
            self._term = None
        term = await self._store.acquire(self._holder, self._ttl)
        if term is None:
            return self._standby
        self._term, self._valid_until = term, before + self._ttl.total_seconds()
        log_event(_log, logging.INFO, "leadership_won", term=term)
        return self._renew

    async def resign(self) -> None:
        """Hands over at once, as well as the store can be reached."""
        term, self._term = self._term, None
        if term is None:
            return
        try:
            await self._store.resign(self._holder, term)
        except StoreUnavailable:
            # The term ends by itself.
            return
        log_event(_log, logging.INFO, "leadership_resigned", term=term)


class Pulse:
    """Looks and rings while this process leads."""

    def __init__(
        self,
        leadership: Leadership,
        store: LookStore,
        ringer: Ringer,
        runner: Runner,
        clock: Clock,
        *,
        look_ahead: timedelta,
        poll: timedelta,
    ) -> None:
        self._leadership = leadership
        self._store = store
        self._ringer = ringer
        self._runner = runner
        self._clock = clock
        self._look_ahead = look_ahead
        self._poll = poll.total_seconds()
        self._rung_at: float | None = None
        self._rung_for: datetime | None = None
        #: Whether notifications come in; without them the poll is the fastest way to know.
        self.is_listening = False

    async def tick(self) -> float:
        """Looks once, rings if there is something to do, and says when to look again."""
        term = self._leadership.term
        if term is None:
            self._rung_at = self._rung_for = None
            return self._poll
        ahead = await self._store.look_ahead()
        idle = LISTENING_PAUSE if self.is_listening else self._poll
        head = _earliest([ahead.next_ready, ahead.next_advance])
        horizon = ahead.now + self._look_ahead
        if head is None or head > horizon:
            self._rung_at = self._rung_for = None
            if ahead.held:
                # What is held is let go by a run of the scheduler, when its gate has opened.
                await self._ring_or_run(term)
                return _held_pause(ahead)
            return idle if head is None else min(idle, (head - horizon).total_seconds())
        is_due = head <= ahead.now
        if head == self._rung_for and self._rung_at is not None:
            if not is_due:
                # Rung for it, and it is still there: a gate lets it through at its own moment only.
                if ahead.held:
                    await self._ring_or_run(term)
                return min(idle, _held_pause(ahead), (head - ahead.now).total_seconds())
            if self._clock.monotonic() - self._rung_at < RING_PATIENCE:
                return BUSY_PAUSE
            self._rung_at = None
            await self._runner.run(term)
            return BUSY_PAUSE
        self._rung_at, self._rung_for = self._clock.monotonic(), head
        await self._ring_or_run(term)
        return BUSY_PAUSE

    async def _ring_or_run(self, term: int) -> None:
        if not await self._ringer.ring(term):
            await self._runner.run(term)


def _held_pause(ahead: Ahead) -> float:
    return PRESSING_PAUSE if ahead.is_pressing else HELD_PAUSE


def _earliest(moments: Sequence[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
