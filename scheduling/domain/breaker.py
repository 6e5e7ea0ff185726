"""The circuit breaker of a target service: while it is down its executions wait and spend no attempts.
Pure.

CLOSED lets everything through and counts failures in a row. OPEN holds everything but one probe at a time. The first
probe that gets through makes it HALF_OPEN: 2, 4, 8 … probes each quarter of a second, until it is CLOSED again; one
that fails opens it anew, and the pause before the next probe grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from scheduling.domain.retry import Code

#: Failures in a row, over all workers, that open a breaker.
OPEN_AFTER = 20
#: The pause before a probe of an open breaker; it doubles with each failed probe up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=4)
#: A probe that was not answered for so long may have been lost with its worker: another one goes.
UNANSWERED = timedelta(seconds=16)
#: Between two grants of probes while it is half open.
STEP = timedelta(milliseconds=250)
#: A breaker that would grant more probes at once than this is closed.
CLOSE_ABOVE = 256

#: Answers that tell that the service is not there, rather than what it thinks of the request.
DOWN_CODES = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


class BreakerState(StrEnum):
    """Whether calls flow."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One service's breaker.

    `failures` counts failures in a row while CLOSED, and failed probes since it opened; `probes` is how many the next
    grant lets through, `probe_time` when it may be made. An open one with a probe under way has `probes` 0, and then
    `probe_time` is when the next one goes all the same, should that probe be lost with its worker.
    """

    service: str
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    probes: int = 0
    probe_time: datetime | None = None

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to remember about it."""
        return self.state is BreakerState.CLOSED and self.failures == 0


def after_answers(breaker: Breaker, failures: int, successes: int, now: datetime) -> Breaker:
    """The breaker after a batch of answers, of which `failures` told that the service is down."""
    match breaker.state:
        case BreakerState.CLOSED:
            # Within a batch the order is not known: any success means that the service is there.
            count = 0 if successes else breaker.failures + failures
            if count >= OPEN_AFTER:
                return Breaker(breaker.service, BreakerState.OPEN, 0, 1, now + FIRST_PAUSE)
            return replace(breaker, failures=count)
        case BreakerState.OPEN:
            if successes:
                return Breaker(breaker.service, BreakerState.HALF_OPEN, 0, 2, now)
            # Without a probe under way these are calls that began before it opened: they tell nothing new.
            return _reopened(breaker, now) if breaker.probes == 0 else breaker
        case BreakerState.HALF_OPEN:
            return _reopened(breaker, now) if failures and not successes else breaker


def _reopened(breaker: Breaker, now: datetime) -> Breaker:
    pause = min(FIRST_PAUSE * 2 ** min(breaker.failures, 10), LONGEST_PAUSE)
    return Breaker(breaker.service, BreakerState.OPEN, breaker.failures + 1, 1, now + pause)


def after_grant(breaker: Breaker, now: datetime) -> Breaker:
    """The breaker after its probes were let through: an open one waits for their outcome, a half-open one lets more
    through.
    """
    if breaker.state is BreakerState.OPEN:
        return replace(breaker, probes=0, probe_time=now + UNANSWERED)
    probes = breaker.probes * 2
    if probes > CLOSE_ABOVE:
        return Breaker(breaker.service)
    return replace(breaker, probes=probes, probe_time=now + STEP)
