"""Advance: which firings of a recurring schedule to plan next, and which were missed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduling.domain.recurrence import fires_between, next_fire, period_hint
from scheduling.domain.timing import CatchupPolicy, Timing

#: A firing that nobody advanced within this long of its time is missed.
MISSED_AFTER = timedelta(seconds=60)
#: The longest catch-up window that is taken when a schedule names none.
DEFAULT_CATCHUP_WINDOW = timedelta(hours=24)
#: Firings looked at in one step, so that a long outage of a busy schedule is worked off in bounded pieces.
STEP_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Gap:
    """Firings in [start, end] that will not be made, accounted for as one."""

    start: datetime
    end: datetime
    firings: int


@dataclass(frozen=True, slots=True)
class Advance:
    """One step of a schedule. `until` None means that it has no firing ahead: it is finished.

    `plans` are nominal times; `caught_up` those among them that were missed and are made up for. `more` says that the
    next step may be taken at once.
    """

    until: datetime | None
    plans: tuple[datetime, ...]
    caught_up: frozenset[datetime]
    gaps: tuple[Gap, ...]
    more: bool


def advance(timing: Timing, evaluated_until: datetime, now: datetime, ahead: timedelta) -> Advance:
    """The next step of a schedule that is accounted for up to `evaluated_until`.

    Plans everything up to `now + ahead`, and the first firing beyond. Firings that lie more than MISSED_AFTER in the
    past are missed: the catch-up policy says which of them are made up for.
    """
    missed_before = now - MISSED_AFTER
    if evaluated_until < missed_before:
        missed = fires_between(timing, evaluated_until, missed_before, STEP_LIMIT)
        if missed:
            return _miss(timing, missed, missed_before, now)
        evaluated_until = max(evaluated_until, missed_before)
    near = fires_between(timing, evaluated_until, now + ahead, STEP_LIMIT)
    if len(near) == STEP_LIMIT:
        return Advance(near[-1], tuple(near), frozenset(), (), more=True)
    beyond = next_fire(timing, max(evaluated_until, now + ahead))
    plans = tuple(near) if beyond is None else (*near, beyond)
    return Advance(beyond, plans, frozenset(), (), more=False)


def _miss(timing: Timing, missed: list[datetime], missed_before: datetime, now: datetime) -> Advance:
    window = timing.catchup_window
    if window is None:
        window = min(period_hint(timing, missed[-1]), DEFAULT_CATCHUP_WINDOW)
    earliest = now - window
    match timing.catchup_policy:
        case CatchupPolicy.SKIP_MISSED:
            made_up: list[datetime] = []
        case CatchupPolicy.FIRE_ALL:
            made_up = [each for each in missed if each >= earliest]
        case CatchupPolicy.FIRE_ONCE_LATEST:
            # Only when no later one was missed, which a full step cannot tell of its last: the next step goes on
            # from there.
            is_last = len(missed) < STEP_LIMIT or not fires_between(timing, missed[-1], missed_before, 1)
            made_up = [missed[-1]] if is_last and missed[-1] >= earliest else []
    chosen = frozenset(made_up)
    left_out = [each for each in missed if each not in chosen]
    gaps = (Gap(left_out[0], left_out[-1], len(left_out)),) if left_out else ()
    return Advance(missed[-1], tuple(made_up), chosen, gaps, more=True)
