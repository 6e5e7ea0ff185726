"""Accounting: whether each nominal time of a schedule is accounted for exactly once. Pure; `verify` feeds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduling.domain.recurrence import fires_between, previous_fire
from scheduling.domain.timing import Timing

#: Firings of one schedule that are looked at; a longer life is checked for its latest part only.
MAX_FIRINGS = 100_000

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the store holds of one recurring schedule since its timing took effect.

    `until` is `evaluated_until`, None when nothing more will be planned. `nominals` are those of its executions with
    origin SCHEDULED, live and finished, plans included, one entry each; `gaps` are [first, last] firings left out.
    `is_spent` says that `max_firings` ended it. `left_over` are those of `nominals` that an earlier timing planned and
    that were running or had ended when the timing changed: they count when the timing has them too, and are no error
    when not.
    """

    name: str
    timing: Timing
    since: datetime
    until: datetime | None
    nominals: Sequence[datetime]
    gaps: Sequence[tuple[datetime, datetime]]
    paused: bool
    is_spent: bool
    left_over: frozenset[datetime] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """The result for one schedule."""

    name: str
    expected: int
    unaccounted: tuple[datetime, ...]
    doubled: tuple[datetime, ...]
    unexpected: tuple[datetime, ...]

    @property
    def is_sound(self) -> bool:
        """Whether each firing is accounted for exactly once, and nothing else is there."""
        return not (self.unaccounted or self.doubled or self.unexpected)


def audit(ledger: Ledger, now: datetime) -> Account:
    """Compares what the timing says with what the store holds.

    Every firing after `since` and up to `until` must be an execution or lie in a gap, and not both. For a schedule that
    is finished or spent, that is up to its last execution or gap, or `now`.
    """
    ends = [*(nominal for nominal in ledger.nominals if nominal > ledger.since), *(end for _, end in ledger.gaps)]
    if ledger.until is not None:
        until = ledger.until
    elif ledger.is_spent:
        until = max(ends, default=ledger.since)
    else:
        until = max([now, *ends])
    since = ledger.since
    expected = fires_between(ledger.timing, since, until, MAX_FIRINGS)
    if len(expected) == MAX_FIRINGS:
        expected = _latest(ledger.timing, until)
        since = expected[0] - _MICROSECOND
    counts = Counter(nominal for nominal in ledger.nominals if nominal > since)
    covered = [(start, end) for start, end in ledger.gaps if end > since]
    unaccounted, doubled = [], []
    for fire in expected:
        times = counts.pop(fire, 0) + sum(start <= fire <= end for start, end in covered)
        if times == 0:
            unaccounted.append(fire)
        elif times > 1:
            doubled.append(fire)
    unknown = sorted(counts.keys() - ledger.left_over)
    unexpected = [nominal for nominal in unknown if nominal <= until]
    if ledger.until is not None and not ledger.paused and ledger.until > now:
        unexpected += [nominal for nominal in unknown if nominal > until]
    return Account(ledger.name, len(expected), tuple(unaccounted), tuple(doubled), tuple(unexpected))


def _latest(timing: Timing, until: datetime) -> list[datetime]:
    """The last MAX_FIRINGS firings up to `until`, ascending."""
    found: list[datetime] = []
    before = previous_fire(timing, until + _MICROSECOND)
    while before is not None and len(found) < MAX_FIRINGS:
        found.append(before)
        before = previous_fire(timing, before)
    return found[::-1]
