"""Rules: ascending sets of instants that can be walked both ways. Instants are microseconds since the epoch.

The daylight-saving rule lives here, in `FixedRule` and `ClockRule`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

from scheduling.domain.recurrence.walk import LocalTimes
from scheduling.domain.recurrence.zones import DAY, EPOCH_ORDINAL, FIRST_YEAR, LAST_YEAR, Zone

SECOND = 1_000_000

#: The span that is searched, in seconds: a year inside what local times support at either end.
FIRST = (date(FIRST_YEAR + 1, 1, 1).toordinal() - EPOCH_ORDINAL) * DAY
LAST = (date(LAST_YEAR, 1, 1).toordinal() - EPOCH_ORDINAL) * DAY

#: No two offsets of a zone are further apart than this, in seconds; the widest of the wheel are about 15 h each way.
_WIDEST = 2 * DAY

#: So many firings in a row that all fall into gaps count as none ever: a pattern such as 02:30 on the last Sunday of
#: March, with SKIP_GAP in Paris. At least 15 years, as clocks jump forward at most twice a year.
_MOST_GAPS = 32

#: The same for `ClockRule`, which looks at up to three stretches a year.
_MOST_STRETCHES = 72


class Rule(Protocol):
    """A set of instants."""

    def after(self, instant: int) -> int | None:
        """The first one strictly after `instant`, None if there is none."""
        ...

    def before(self, instant: int) -> int | None:
        """The last one strictly before `instant`, None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class OnceRule:
    """A single instant."""

    at: int

    def after(self, instant: int) -> int | None:
        """The instant, if it is later."""
        return self.at if self.at > instant else None

    def before(self, instant: int) -> int | None:
        """The instant, if it is earlier."""
        return self.at if self.at < instant else None


@dataclass(frozen=True, slots=True)
class IntervalRule:
    """Every instant base + n × every, for whole n of either sign. It never drifts and knows no clock changes."""

    base: int
    every: int

    def after(self, instant: int) -> int | None:
        """The next multiple."""
        found = self.base + ((instant - self.base) // self.every + 1) * self.every
        return found if found < LAST * SECOND else None

    def before(self, instant: int) -> int | None:
        """The previous multiple."""
        found = self.base + -((self.base - instant) // self.every + 1) * self.every
        return found if found >= FIRST * SECOND else None


@dataclass(frozen=True, slots=True)
class UnionRule:
    """The instants of any of some rules, each once."""

    rules: tuple[Rule, ...]

    def after(self, instant: int) -> int | None:
        """The first one strictly after `instant`."""
        return min((found for rule in self.rules if (found := rule.after(instant)) is not None), default=None)

    def before(self, instant: int) -> int | None:
        """The last one strictly before `instant`."""
        return max((found for rule in self.rules if (found := rule.before(instant)) is not None), default=None)


@dataclass(frozen=True, slots=True)
class FixedRule:
    """Fixed local times: each fires once.

    One that occurs twice fires the first time; one in a gap fires at the gap's end, or not at all with `skip_gap`.
    """

    pattern: LocalTimes
    zone: Zone
    skip_gap: bool

    # The instants never descend while local times ascend, which makes both walks exact.

    def after(self, instant: int) -> int | None:
        """The first firing strictly after `instant`."""
        start = max(instant // SECOND, FIRST)
        if start >= LAST:
            return None
        local = start + self.zone.offset(start) + 1
        for _ in range(_MOST_GAPS):
            found = self.pattern.at_or_after(local)
            if found is None:
                return None
            at, gap, _, high = self.zone.resolve(found)
            if at > start and not (gap and self.skip_gap):
                return at * SECOND if at < LAST else None
            # In an overlap that began before `start`, or in a gap that counts for nothing: go on behind it.
            local = max(high, found + 1)
        return None

    def before(self, instant: int) -> int | None:
        """The last firing strictly before `instant`."""
        end = min(-(-instant // SECOND), LAST)
        if end < FIRST:
            return None
        local = end + self.zone.offset(end)
        at, _, _, high = self.zone.resolve(local)
        if at < end:
            # The second time that this local time occurs: every time of the overlap has fired before.
            local = high
        for _ in range(_MOST_GAPS):
            found = self.pattern.before(local)
            if found is None:
                return None
            at, gap, low, _ = self.zone.resolve(found)
            if at < end and not (gap and self.skip_gap):
                return at * SECOND if at >= FIRST else None
            local = low if gap else found
        return None


@dataclass(frozen=True, slots=True)
class ClockRule:
    """Every instant at which the wall clock shows a time of the pattern: twice in an overlap, nothing in a gap."""

    pattern: LocalTimes
    zone: Zone

    # A stretch of equal offset is searched at once. When the pattern has nothing for long, the years between are
    # skipped without looking at their changes; `_WIDEST` keeps off the local times that a change may show again.

    def after(self, instant: int) -> int | None:
        """The first firing strictly after `instant`."""
        at = max(instant // SECOND + 1, FIRST)
        empty_from = empty_until = 0
        for _ in range(_MOST_STRETCHES):
            if at >= LAST:
                return None
            _, end, offset = self.zone.stretch(at)
            local = at + offset
            if not empty_from <= local < empty_until:
                found = self.pattern.at_or_after(local)
                if found is None:
                    return None
                empty_from, empty_until = local, found
            if empty_until - offset < end:
                at = empty_until - offset
                return at * SECOND if at < LAST else None
            at = end
            if empty_from + _WIDEST <= end + offset:
                at = max(end, empty_until - offset - _WIDEST)
        return None

    def before(self, instant: int) -> int | None:
        """The last firing strictly before `instant`."""
        at = min(-(-instant // SECOND), LAST)
        for _ in range(_MOST_STRETCHES):
            if at <= FIRST:
                return None
            start, _, offset = self.zone.stretch(at - 1)
            found = self.pattern.before(at + offset)
            if found is None:
                return None
            if found - offset >= start:
                at = found - offset
                return at * SECOND if at >= FIRST else None
            at = start if at - start < _WIDEST else min(start, found - offset + _WIDEST)
        return None
