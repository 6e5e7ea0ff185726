"""The database's clock, estimated by each process against its own monotonic clock.

Machines disagree about the time; everybody agrees on the database. A wrong wall clock of a worker changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduling.domain.clock import Clock

#: How fast an old sample loses its worth, in seconds of uncertainty per second: two clocks drift apart.
DRIFT = 0.0005


class DatabaseClock:
    """Says what time it is in PostgreSQL, from the round trips of heartbeats; never later than it is.

    What a statement tells is taken for the moment at which its answer came, so the estimate lags by up to the round
    trip and never runs ahead: a call may be late by that, and is not early. Of all samples the one with the shortest
    round trip is the most exact; its worth fades as clocks drift. Until the first sample the process's own wall clock
    is taken.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._origin = clock.now()
        self._at = clock.monotonic()
        self._uncertainty = float("inf")

    def sample(self, sent: float, received: float, database_now: datetime) -> None:
        """Takes in a statement's moment; `sent` and `received` are monotonic seconds around its round trip."""
        uncertainty = received - sent
        faded = self._uncertainty + DRIFT * (received - self._at)
        if uncertainty <= faded:
            self._origin, self._at, self._uncertainty = database_now, received, uncertainty

    def now(self) -> datetime:
        """What PostgreSQL's clock says, as well as this process knows."""
        return self.at(self._clock.monotonic())

    def at(self, monotonic: float) -> datetime:
        """What it says at that monotonic second."""
        return self._origin + timedelta(seconds=monotonic - self._at)

    def seconds_until(self, moment: datetime) -> float:
        """How long until `moment`; negative when it has passed."""
        return (moment - self.now()).total_seconds()
