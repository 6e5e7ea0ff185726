"""The functions that the rest of the service calls. Pure: no clock, no state, no input but their arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduling.domain.errors import invalid
from scheduling.domain.kept import keep
from scheduling.domain.recurrence.calendars import calendar_pattern
from scheduling.domain.recurrence.cron import parse_cron
from scheduling.domain.recurrence.exclusions import Excluding, covers_of
from scheduling.domain.recurrence.rules import SECOND, ClockRule, FixedRule, IntervalRule, OnceRule, Rule, UnionRule
from scheduling.domain.recurrence.walk import Pattern
from scheduling.domain.recurrence.zones import EPOCH, Zone, known_zone
from scheduling.domain.timing import (
    Calendar,
    Cron,
    DstPolicy,
    Exclusion,
    Interval,
    Once,
    Recurrence,
    Spec,
    Timing,
    recurrence_of,
)

_MICROSECOND = timedelta(microseconds=1)

#: Rules that are kept, with the calendars in them: some four thousand plain ones.
_RULES_BYTES = 8 * 1024 * 1024
#: What `period_hint` says when there are no two firings to measure.
_NO_PERIOD = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing as a preview shows it.

    `local` is the nominal time in the schedule's zone, with its offset from UTC. `excluded_by` is the exclusion that
    takes it away, None if it fires. `shifted` says that its local time fell into a gap and it fires at the gap's end.
    """

    nominal: datetime
    local: datetime
    excluded_by: Exclusion | None
    shifted: bool


def micros(moment: datetime) -> int:
    """Microseconds since the epoch. Raises ValueError for a naive datetime."""
    if moment.tzinfo is None:
        raise ValueError("instants are aware datetimes")
    return (moment - EPOCH) // _MICROSECOND


def moment_of(instant: int) -> datetime:
    """The UTC datetime of that many microseconds since the epoch."""
    return EPOCH + instant * _MICROSECOND


@keep(_RULES_BYTES, factor=4)
def _rule(specs: tuple[Spec, ...], exclusions: tuple[Exclusion, ...], time_zone: str, dst_policy: DstPolicy) -> Rule:
    """The instants that these give, without bounds. Raises InvalidRequest if they cannot be read."""
    where = known_zone(time_zone)
    rules: tuple[Rule, ...] = tuple(_rule_of_spec(spec, where, dst_policy) for spec in specs)
    covers = tuple(cover for exclusion in exclusions for cover in covers_of(exclusion, where))
    if covers:
        # Each by itself: one specification that is always excluded must not use up the patience with the others.
        rules = tuple(Excluding(rule, covers) for rule in rules)
    return rules[0] if len(rules) == 1 else UnionRule(rules)


def _rule_of_spec(spec: Spec, where: Zone, dst_policy: DstPolicy) -> Rule:
    match spec:
        case Once(time=time):
            return OnceRule(micros(time))
        case Interval(every=every, phase=phase, anchor=anchor):
            if every < _MICROSECOND:
                raise invalid("every", "expected a positive duration")
            return IntervalRule(micros(anchor or EPOCH) + phase // _MICROSECOND, every // _MICROSECOND)
        case Cron(expression=expression):
            parsed = parse_cron(expression)
            pattern, fixed = Pattern(parsed.days, parsed.times), parsed.fixed
            if not fixed or dst_policy is DstPolicy.LITERAL:
                return ClockRule(pattern, where)
            return FixedRule(pattern, where, skip_gap=dst_policy is DstPolicy.SKIP_GAP)
        case Calendar():
            local_times = calendar_pattern(spec)
            if dst_policy is DstPolicy.LITERAL:
                return ClockRule(local_times, where)
            return FixedRule(local_times, where, skip_gap=dst_policy is DstPolicy.SKIP_GAP)


def _rule_of(what: Timing | Recurrence) -> Rule:
    if isinstance(what, Timing):
        # One-offs are many and each its own: they would drive everything else out of the cache.
        if isinstance(what.when, Once):
            return OnceRule(micros(what.when.time))
        what = recurrence_of(what)
    return _rule(what.specs, what.exclusions, what.time_zone, what.dst_policy)


def _after(what: Timing | Recurrence, instant: int) -> int | None:
    if what.start is not None:
        instant = max(instant, micros(what.start) - 1)
    found = _rule_of(what).after(instant)
    return None if found is None or (what.end is not None and found >= micros(what.end)) else found


def next_fire(what: Timing | Recurrence, after: datetime) -> datetime | None:
    """The first nominal time strictly after `after`, in UTC; None when there is none.

    Bounds are half-open, [start, end); `max_firings` is not looked at, since only the store knows what has fired.
    Raises InvalidRequest for what `check_timing` would refuse as unreadable.
    """
    found = _after(what, micros(after))
    return None if found is None else moment_of(found)


def previous_fire(what: Timing | Recurrence, before: datetime) -> datetime | None:
    """The last nominal time strictly before `before`, in UTC; None when there is none. Bounds as in `next_fire`."""
    instant = micros(before)
    if what.end is not None:
        instant = min(instant, micros(what.end))
    found = _rule_of(what).before(instant)
    return None if found is None or (what.start is not None and found < micros(what.start)) else moment_of(found)


def fires_between(what: Timing | Recurrence, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The nominal times in (after, until], ascending, in UTC, at most `limit` of them, the earliest ones."""
    found: list[datetime] = []
    last = micros(until)
    instant = micros(after)
    while len(found) < limit:
        following = _after(what, instant)
        if following is None or following > last:
            break
        found.append(moment_of(following))
        instant = following
    return found


def preview(what: Timing | Recurrence, after: datetime, until: datetime, limit: int) -> list[Firing]:
    """The firings in (after, until] with what happened to them, excluded ones too, at most `limit` in all."""
    if isinstance(what, Timing):
        what = recurrence_of(what)
    exclusions = what.exclusions
    plain = replace(what, exclusions=())
    where = known_zone(what.time_zone)
    rule = _rule_of(plain)
    covers = [(exclusion, covers_of(exclusion, where)) for exclusion in exclusions]
    return [
        Firing(
            nominal,
            nominal.astimezone(where.info),
            next((by for by, parts in covers if any(part.stretch(micros(nominal)) for part in parts)), None),
            _is_shifted(rule, micros(nominal)),
        )
        for nominal in fires_between(plain, after, until, limit)
    ]


def _is_shifted(rule: Rule, instant: int) -> bool:
    """Whether every rule that fires at that instant does so only because its local time is in a gap."""
    if isinstance(rule, UnionRule):
        return all(_is_shifted(part, instant) for part in rule.rules if part.after(instant - 1) == instant)
    if not isinstance(rule, FixedRule):
        return False
    local = instant // SECOND + rule.zone.offset(instant // SECOND)
    return rule.pattern.at_or_after(local) != local


def jittered(what: Timing | Recurrence, schedule_uid: UUID, nominal: datetime) -> datetime:
    """When the firing of that nominal time is ready: delayed by a share of the jitter that never changes.

    The share is a hash of the schedule's uid and the nominal time, uniform in [0, jitter). When the next firing is
    nearer than the jitter, it is uniform up to that firing instead, so firings never change places; the last one may be
    ready after `end`.
    """
    if what.jitter < _MICROSECOND:
        return nominal.astimezone(UTC)
    start = micros(nominal)
    span = what.jitter // _MICROSECOND
    following = _after(what, start)
    if following is not None:
        span = min(span, following - start)
    digest = hashlib.blake2b(schedule_uid.bytes + start.to_bytes(8, "big", signed=True), digest_size=8).digest()
    return moment_of(start + (int.from_bytes(digest, "big") * span >> 64))


def period_hint(what: Timing | Recurrence, around: datetime) -> timedelta:
    """The distance between the last firing at or before `around` and the first after it, without regard to bounds.

    Where one of them is missing, the distance to its neighbour on the other side; 24 h if there is only one firing, or
    none. It is the default of the catch-up window (the smaller of this and 24 h).
    """
    rule = _rule_of(what)
    instant = micros(around)
    low, high = rule.before(instant + 1), rule.after(instant)
    if low is None and high is not None:
        low, high = high, rule.after(high)
    elif high is None and low is not None:
        low, high = rule.before(low), low
    return _NO_PERIOD if low is None or high is None else (high - low) * _MICROSECOND
