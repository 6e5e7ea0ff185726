"""Leadership without PostgreSQL. It passes the contract suite of the real store (tests/contract)."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from scheduling.domain.errors import StoreUnavailable
from tests.support.clock import START, ManualClock


class Terms:
    """One row of leadership, by a clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.term = 0
        self.holder: UUID | None = None
        self.until = START
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable

    async def acquire(self, holder: UUID, ttl: timedelta) -> int | None:
        self._check()
        if self.holder not in (None, holder) and self._clock.now() <= self.until:
            return None
        self.term, self.holder, self.until = self.term + 1, holder, self._clock.now() + ttl
        return self.term

    async def renew(self, holder: UUID, term: int, ttl: timedelta) -> bool:
        self._check()
        if (self.holder, self.term) != (holder, term) or self._clock.now() > self.until:
            return False
        self.until = self._clock.now() + ttl
        return True

    async def resign(self, holder: UUID, term: int) -> None:
        self._check()
        if (self.holder, self.term) == (holder, term):
            self.holder = None
