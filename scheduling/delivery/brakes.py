"""The brakes of one process: no more calls of a service that has just failed many times in a row here.

The breakers in PostgreSQL add up what all processes see, and learn of it with the next record. Until then nothing more
is claimed for a service that is down, and what was claimed before goes back uncounted instead of being spent on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduling.domain.breaker import OPEN_AFTER

_UNTOLD = float("inf")


class Brakes:
    """Failures in a row by service. What is claimed after the breakers were told is theirs to judge."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        #: Until when claims were made that did not know of the failures; infinity while the breakers are not told.
        self._stopped: dict[str, float] = {}

    def saw(self, service: str, claimed: float, *, is_down: bool) -> None:
        """An answer came in to a call of an execution that was claimed at this monotonic second."""
        if not is_down:
            self._failures.pop(service, None)
            self._stopped.pop(service, None)
            return
        if self.stops(service, claimed):
            # It began before; the breakers know better by now.
            return
        count = self._failures.get(service, 0) + 1
        self._failures[service] = count
        if count == OPEN_AFTER:
            self._stopped[service] = _UNTOLD

    @property
    def untold(self) -> list[str]:
        """The services that have failed here, which the breakers do not know yet."""
        return [service for service, until in self._stopped.items() if until == _UNTOLD]

    def told(self, services: Iterable[str], now: float) -> None:
        """The breakers have taken in what was seen of these services, at this monotonic second, or cannot be told: then
        they learn from the next calls.
        """
        for service in services:
            if self._stopped.get(service) == _UNTOLD:
                self._stopped[service] = now
                self._failures[service] = 0

    def stops(self, service: str, claimed: float) -> bool:
        """Whether a call is not to begin of an execution that was claimed at this monotonic second."""
        return claimed < self._stopped.get(service, float("-inf"))
