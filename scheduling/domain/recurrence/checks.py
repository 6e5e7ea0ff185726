"""What is wrong with a timing: every malformed part, each with its path and what was expected."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.recurrence.check_calendars import check_calendar, check_exclusion
from scheduling.domain.recurrence.cron import CronExpression, cron_problems, parse_cron
from scheduling.domain.recurrence.engine import next_fire
from scheduling.domain.recurrence.zones import is_zone, known_zone
from scheduling.domain.timing import (
    Calendar,
    Cron,
    Interval,
    NamedCalendar,
    Once,
    OnDeployment,
    Recurrence,
    Spec,
    Timing,
    Union,
    recurrence_of,
)

#: A schedule may fire at most so often in a minute: what cron by seconds can express.
MAX_FIRINGS_PER_MINUTE = 60

#: An interval below this fires more often than `MAX_FIRINGS_PER_MINUTE`.
MIN_INTERVAL = timedelta(minutes=1) / MAX_FIRINGS_PER_MINUTE

#: The proto's limits: an interval, how far ahead a one-off may lie, jitter, and the catch-up window.
MAX_INTERVAL = timedelta(days=3660)
MAX_AHEAD = timedelta(days=3653)
MAX_JITTER = timedelta(hours=24)
MAX_CATCHUP_WINDOW = timedelta(days=30)
MAX_DEPLOYMENT_DELAY = timedelta(hours=24)

#: A one-off may lie so far in the past, and is due at once (S17).
MAX_PAST = timedelta(seconds=60)

#: Specifications and exclusions of one recurrence; each is looked at for each firing.
MAX_SPECS = 20
MAX_EXCLUSIONS = 50

_MICROSECOND = timedelta(microseconds=1)
_NONE = timedelta(0)


def check_timing(timing: Timing, now: datetime, *, field: str = "schedule") -> list[Violation]:
    """Every violation in a timing that is to be accepted at `now`; empty when it is sound.

    `field` is the path of the timing in the request. Each malformed part is named; only when all are sound is it looked
    for a firing after `now`, and the timing refused when there is none within its bounds.
    """
    match timing.when:
        case Once() as once if timing.start is timing.end is None and not timing.exclusions:
            # Nothing can keep a sound instant from firing: no need to look for it.
            found = _check_frame(timing, field) + _check_once(once, now, field)
        case OnDeployment(delay):
            found = _check_frame(timing, field)
            if not timedelta(0) <= delay <= MAX_DEPLOYMENT_DELAY:
                found.append(_outside(f"{field}.deployment.delay", delay, timedelta(0), MAX_DEPLOYMENT_DELAY))
        case Union(specs):
            paths = [f"{field}.union.specs[{index}]" for index in range(len(specs))]
            found = _check_all(recurrence_of(timing), now, field, paths, f"{field}.union.specs")
        case _:
            found = _check_all(recurrence_of(timing), now, field, [field], field)
    if timing.max_firings is not None and timing.max_firings < 1:
        found.append(Violation(f"{field}.max_firings", f"{timing.max_firings} is not at least 1"))
    window = timing.catchup_window
    if window is not None and not timedelta(0) <= window <= MAX_CATCHUP_WINDOW:
        found.append(_outside(f"{field}.catchup_window", window, timedelta(0), MAX_CATCHUP_WINDOW))
    return found


def check_recurrence(recurrence: Recurrence, now: datetime, *, field: str = "schedule") -> list[Violation]:
    """Every violation in a recurrence that is to be accepted at `now`; empty when it is sound.

    Paths are `specs[0].cron.expression`, `exclusions[2].dates` and so on below `field`. A specification that never
    fires is refused even when others do.
    """
    paths = [f"{field}.specs[{index}]" for index in range(len(recurrence.specs))]
    return _check_all(recurrence, now, field, paths, f"{field}.specs")


def _check_all(recurrence: Recurrence, now: datetime, field: str, paths: list[str], whole: str) -> list[Violation]:
    """`paths` are those of the specifications, `whole` is that of all of them together."""
    found = _check_frame(recurrence, field)
    specs, exclusions = recurrence.specs, recurrence.exclusions
    if not 1 <= len(specs) <= MAX_SPECS:
        found.append(Violation(whole, f"{len(specs)} specifications, expected 1–{MAX_SPECS}"))
    if len(exclusions) > MAX_EXCLUSIONS:
        found.append(Violation(f"{field}.exclusions", f"{len(exclusions)} exclusions, at most {MAX_EXCLUSIONS}"))
    for spec, path in zip(specs[:MAX_SPECS], paths, strict=False):
        found += check_spec(spec, now, path)
    for index, exclusion in enumerate(exclusions[:MAX_EXCLUSIONS]):
        found += check_exclusion(exclusion, f"{field}.exclusions[{index}]", check_cron)
    if found:
        return found
    if (often := _most_per_minute(specs)) > MAX_FIRINGS_PER_MINUTE:
        text = f"up to {often} firings a minute, at most {MAX_FIRINGS_PER_MINUTE} are accepted"
        return [Violation(whole, text, "TOO_FREQUENT")]
    for spec, path in zip(specs, paths, strict=True):
        alone = replace(recurrence, specs=(spec,), exclusions=())
        if not _fires(alone, spec, now):
            found.append(Violation(_path(spec, path), _never(recurrence), "NEVER_FIRES"))
    if not found and not any(_fires(recurrence, spec, now) for spec in specs):
        found.append(Violation(f"{field}.exclusions", "they leave no firing", "NEVER_FIRES"))
    return found


def check_shared_calendar(calendar: NamedCalendar, *, field: str = "calendar") -> list[Violation]:
    """Every violation in a shared calendar; empty when it is sound."""
    return check_exclusion(calendar, field, check_cron)


def check_spec(spec: Spec, now: datetime, path: str) -> list[Violation]:
    """The violations of one specification, not whether it fires at all."""
    match spec:
        case Once():
            return _check_once(spec, now, path)
        case Interval():
            return _check_interval(spec, f"{path}.interval")
        case Cron(expression=expression):
            return check_cron(expression, f"{path}.cron.expression")
        case Calendar():
            return check_calendar(spec, f"{path}.calendar")


def check_cron(expression: str, field: str) -> list[Violation]:
    """The violations of a cron expression: its form, each with its position, and days that never come."""
    problems = cron_problems(expression)
    if problems:
        return [Violation(field, str(problem), "INVALID_CRON") for problem in problems]
    parsed = parse_cron(expression)
    return [] if parsed.days.ever else [Violation(field, _never_a_day(parsed), "NEVER_FIRES")]


def _never_a_day(parsed: CronExpression) -> str:
    _, _, _, day, month, weekday = parsed.texts
    where = "no month has" if month in {"*", "?"} else f"month {month} never has"
    if weekday in {"*", "?"}:
        return f"it never fires: {where} a day {day}"
    return f"it never fires: {where} a day with day-of-month {day} and day-of-week {weekday}"


def _path(spec: Spec, path: str) -> str:
    match spec:
        case Once(after=after):
            return f"{path}.at_time" if after is None else f"{path}.after"
        case Interval():
            return f"{path}.interval"
        case Cron():
            return f"{path}.cron.expression"
        case Calendar():
            return f"{path}.calendar"


def _fires(what: Timing | Recurrence, spec: Spec, now: datetime) -> bool:
    # A one-off of the last minute is due at once, so it is still ahead in this sense.
    return next_fire(what, now - MAX_PAST - _MICROSECOND if isinstance(spec, Once) else now) is not None


def _never(what: Timing | Recurrence) -> str:
    bounds = []
    if what.start is not None:
        bounds.append(f"from {what.start.isoformat()}")
    if what.end is not None:
        bounds.append(f"before {what.end.isoformat()}")
    return " ".join(["it never fires", *bounds])


def _most_per_minute(specs: tuple[Spec, ...]) -> int:
    """An upper bound: the seconds of a minute that any local time falls on, and the intervals on top."""
    seconds, often = 0, 0
    for spec in specs:
        match spec:
            case Cron(expression=expression):
                seconds |= parse_cron(expression).times.seconds
            case Calendar(times=times):
                seconds |= sum(1 << second for second in {clock.second for clock in times})
            case Interval(every=every):
                often += -(-timedelta(minutes=1) // every)
            case Once():
                often += 1
    return often + seconds.bit_count()


def _check_frame(what: Timing | Recurrence, field: str) -> list[Violation]:
    """Zone, bounds and jitter."""
    found: list[Violation] = []
    if not is_zone(what.time_zone):
        try:
            known_zone(what.time_zone, field=f"{field}.time_zone")
        except InvalidRequest as refused:
            found += refused.violations
    if what.start is not None or what.end is not None:
        bounds = (("start_time", what.start), ("end_time", what.end))
        naive = [name for name, bound in bounds if bound is not None and bound.tzinfo is None]
        found += [Violation(f"{field}.{name}", "expected an instant with an offset from UTC") for name in naive]
        if not naive and what.start is not None and what.end is not None and what.start >= what.end:
            text = f"expected an instant after start_time, {what.start.isoformat()}"
            found.append(Violation(f"{field}.end_time", text))
    if not _NONE <= what.jitter <= MAX_JITTER:
        found.append(_outside(f"{field}.jitter", what.jitter, timedelta(0), MAX_JITTER))
    return found


def _check_once(once: Once, now: datetime, path: str) -> list[Violation]:
    if once.after is not None:
        if _NONE <= once.after <= MAX_AHEAD:
            return []
        return [_outside(f"{path}.after", once.after, timedelta(0), MAX_AHEAD)]
    field = f"{path}.at_time"
    if once.time.tzinfo is None:
        return [Violation(field, "expected an instant with an offset from UTC")]
    if once.time < now - MAX_PAST:
        past = f"lies {_seconds(now - once.time)} in the past, at most {_seconds(MAX_PAST)} is accepted"
        return [Violation(field, f"{once.time.isoformat()} {past}", "IN_THE_PAST")]
    if once.time > now + MAX_AHEAD:
        return [Violation(field, f"{once.time.isoformat()} is more than ten years ahead", "TOO_FAR_AHEAD")]
    return []


def _check_interval(interval: Interval, path: str) -> list[Violation]:
    found = []
    every, phase = interval.every, interval.phase
    if timedelta(0) < every < MIN_INTERVAL:
        often = f"more than {MAX_FIRINGS_PER_MINUTE} firings a minute"
        text = f"{_seconds(every)} is {often}, expected at least {_seconds(MIN_INTERVAL)}"
        found.append(Violation(f"{path}.every", text, "TOO_FREQUENT"))
    elif not MIN_INTERVAL <= every <= MAX_INTERVAL:
        found.append(_outside(f"{path}.every", every, MIN_INTERVAL, MAX_INTERVAL))
    if phase < timedelta(0):
        found.append(Violation(f"{path}.phase", f"{_seconds(phase)} is negative"))
    elif not found and phase >= every:
        text = f"{_seconds(phase)} is not less than every, {_seconds(every)}"
        found.append(Violation(f"{path}.phase", text))
    if interval.anchor is not None and interval.anchor.tzinfo is None:
        found.append(Violation(f"{path}.anchor_time", "expected an instant with an offset from UTC"))
    return found


def _outside(field: str, value: timedelta, low: timedelta, high: timedelta) -> Violation:
    return Violation(field, f"{_seconds(value)} is not in {_seconds(low)}–{_seconds(high)}")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.6f}".rstrip("0").rstrip(".") + " s"
