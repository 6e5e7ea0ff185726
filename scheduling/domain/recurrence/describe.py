"""Schedules in plain English, for previews and status."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import product

from scheduling.domain.recurrence.cron import parse_cron
from scheduling.domain.recurrence.zones import known_zone
from scheduling.domain.timing import (
    Calendar,
    Cron,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Exclusion,
    Frequency,
    Interval,
    NamedCalendar,
    Once,
    OnDeployment,
    Recurrence,
    Spec,
    Timing,
    recurrence_of,
)

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = ("", "first", "second", "third", "fourth", "fifth")
_UNITS = {
    Frequency.DAILY: ("day", "daily"),
    Frequency.WEEKLY: ("week", "weekly"),
    Frequency.MONTHLY: ("month", "monthly"),
    Frequency.YEARLY: ("year", "yearly"),
}

#: More excluded dates than this are only counted.
_MOST_DATES = 5

#: More fixed times than this are told by field, not one by one.
_MOST_TIMES = 6


def describe(what: Timing | Recurrence) -> str:
    """One English phrase such as `at 09:00, Monday through Friday, Europe/Paris time`.

    Raises InvalidRequest if an expression or the zone cannot be read.
    """
    if isinstance(what, Timing) and isinstance(what.when, OnDeployment):
        return f"once per deployment, {span(what.when.delay)} after its start"
    specs = what.specs if isinstance(what, Recurrence) else recurrence_of(what).specs
    words = [" and also ".join(", ".join(_spec(spec, what.time_zone)) for spec in specs)]
    if any(isinstance(spec, Cron | Calendar) for spec in specs):
        words.append("UTC" if what.time_zone == "UTC" else f"{what.time_zone} time")
    if what.exclusions:
        words.append(f"except {joined(_exclusion(exclusion) for exclusion in what.exclusions)}")
    if what.start is not None:
        words.append(f"from {_instant(what.start, what.time_zone)}")
    if what.end is not None:
        words.append(f"before {_instant(what.end, what.time_zone)}")
    if isinstance(what, Timing) and what.max_firings is not None:
        words.append("at most once" if what.max_firings == 1 else f"at most {what.max_firings} times")
    if what.jitter:
        words.append(f"each delayed by up to {span(what.jitter)}")
    return ", ".join(words)


def _spec(spec: Spec, zone_name: str) -> list[str]:
    match spec:
        case Once(time=time, after=after):
            if after is None:
                return [f"once at {_instant(time, zone_name)}"]
            return [f"once, {span(after)} after it was asked for, at {_instant(time, zone_name)}"]
        case Interval(every=every, phase=phase, anchor=anchor):
            words = [f"every {span(every, counted=False)}"]
            if anchor is not None:
                words.append(f"counted from {_instant(anchor, zone_name)}")
            if phase:
                words.append(f"shifted by {span(phase)}")
            return words
        case Cron(expression=expression):
            return describe_cron(expression)
        case Calendar():
            return _calendar(spec)


def _calendar(calendar: Calendar) -> list[str]:
    unit, adverb = _UNITS[calendar.frequency]
    words = [adverb if calendar.every == 1 else f"every {calendar.every} {unit}s"]
    if calendar.weekdays:
        words.append(f"on {joined(day.name.capitalize() for day in sorted(calendar.weekdays))}")
    days = [f"day {day}" for day in sorted(calendar.month_days) if day > 0]
    days += [_from_last(-day - 1) for day in sorted(calendar.month_days, reverse=True) if day < 0]
    for nth in sorted(calendar.nth_weekdays, key=lambda nth: (nth.nth < 0, nth.nth, nth.weekday)):
        days.append(f"the {_ORDINALS[nth.nth] if nth.nth > 0 else 'last'} {nth.weekday.name.capitalize()}")
    if days:
        words.append(f"on {joined(days)}")
    if calendar.months:
        words.append(f"of {joined(_MONTHS[month - 1] for month in sorted(calendar.months))}")
    clocks = sorted({(clock.hour, clock.minute, clock.second) for clock in calendar.times})
    words.append(f"at {joined(_clock(*clock) for clock in clocks)}")
    limits = []
    if calendar.count is not None:
        limits.append("once" if calendar.count == 1 else f"{calendar.count} times")
    if calendar.from_date is not None:
        limits.append(f"from {calendar.from_date}")
    if calendar.until_date is not None:
        limits.append(f"until {calendar.until_date}")
    return [" ".join(words), *([" ".join(limits)] if limits else [])]


def _exclusion(exclusion: Exclusion) -> str:
    match exclusion:
        case ExcludedDates(dates=dates):
            shown = [str(day) for day in sorted(dates)[:_MOST_DATES]]
            more = len(dates) - len(shown)
            return joined([*shown, f"{more} more dates"] if more > 0 else shown)
        case ExcludedPeriod(start=start, end=end):
            return f"from {start.isoformat(' ', 'minutes')} to {end.isoformat(' ', 'minutes')}"
        case ExcludedWindow(start=opens, end=closes, weekdays=weekdays):
            on = f" on {joined(day.name.capitalize() for day in sorted(weekdays))}" if weekdays else ""
            return f"between {opens.isoformat('auto')} and {closes.isoformat('auto')}{on}"
        case ExcludedCron(expression=expression):
            return f"what is {', '.join(describe_cron(expression))}"
        case NamedCalendar(name=name):
            return f"the calendar {name}"


def _instant(time: datetime, zone_name: str) -> str:
    try:
        local = time.astimezone(known_zone(zone_name).info)
    except OverflowError:  # within a day of the ends of what datetime can hold
        local, zone_name = time.astimezone(UTC), "UTC"
    precision = "minutes" if not (local.second or local.microsecond) else "auto"
    return f"{local.replace(tzinfo=None).isoformat(' ', precision)} {zone_name}"


def span(duration: timedelta, *, counted: bool = True) -> str:
    """A duration in words: `1 h 30 min`; a single unit of one is just `hour` unless it is to be counted."""
    rest = duration // timedelta(microseconds=1)
    parts: list[tuple[int, str, str]] = []
    units = ((86_400_000_000, "d", "day"), (3_600_000_000, "h", "hour"), (60_000_000, "min", "minute"))
    for size, short, word in units:
        count, rest = divmod(rest, size)
        if count:
            parts.append((count, short, word))
    if rest or not parts:
        seconds = f"{rest / 1_000_000:f}".rstrip("0").rstrip(".")
        if seconds == "1" and not parts and not counted:
            return "second"
        return " ".join([*(f"{count} {short}" for count, short, _ in parts), f"{seconds} s"])
    if len(parts) == 1:
        count, _, word = parts[0]
        if count == 1 and not counted:
            return word
        return f"{count} {word}{'s' if count > 1 else ''}"
    return " ".join(f"{count} {short}" for count, short, _ in parts)


def joined(words: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} {last} {listed[-1]}"


def describe_cron(expression: str) -> list[str]:
    """The parts of the sentence about a cron expression: times, days, months."""
    parsed = parse_cron(expression)
    second, minute, hour, day, month, weekday = parsed.texts
    words = [_times(second, minute, hour, fixed=parsed.fixed)]
    on_days = None if _is_any(day) else _days(day)
    on_weekdays = None if _is_any(weekday) else _weekdays(weekday)
    if on_days and on_weekdays:
        words.append(f"{on_days} {'or' if parsed.days.either else 'that is also'} {on_weekdays}")
    elif on_days or on_weekdays:
        words.append(on_days or on_weekdays or "")
    elif _is_any(month) and parsed.fixed:
        words.append("every day")
    if not _is_any(month):
        words.append(f"in {_field(month, 'month', _month)}")
    return words


def _is_any(text: str) -> bool:
    return text in {"*", "?", "*/1"}


def _times(second: str, minute: str, hour: str, *, fixed: bool) -> str:
    if fixed:
        grid = sorted(product(*([int(value) for value in text.split(",")] for text in (hour, minute, second))))
        grid = sorted(set(grid))
        if len(grid) <= _MOST_TIMES:
            return f"at {joined(_clock(*time) for time in grid)}"
    words = []
    if second != "0":
        words.append(_cycle(second, "second"))
    if minute != "*" or not words:
        if minute == "0" and not words and _is_any(hour):
            return "every hour, on the hour"
        words.append(_cycle(minute, "minute"))
    if not _is_any(hour):
        words.append(_hours(hour))
    elif minute != "*" and not minute.startswith("*/"):
        words.append("of every hour")
    return " ".join(words) if words[-1] == "of every hour" else ", ".join(words)


def _clock(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}:{second:02}" if second else f"{hour:02}:{minute:02}"


def _cycle(text: str, unit: str) -> str:
    if _is_any(text):
        return f"every {unit}"
    if found := re.fullmatch(r"\*/(\d+)", text):
        step, size = int(found[1]), 60
        uneven = f", starting anew each {'minute' if unit == 'second' else 'hour'}" if size % step else ""
        return f"every {step} {unit}s{uneven}"
    several = "s" if re.search(r"\D", text) else ""
    return f"at {unit}{several} {_field(text, unit, str)}"


def _hours(text: str) -> str:
    if found := re.fullmatch(r"\*/(\d+)", text):
        uneven = ", starting anew each day" if 24 % int(found[1]) else ""
        return f"every {found[1]} hours{uneven}"
    if found := re.fullmatch(r"(\d+)-(\d+)", text):
        return f"from {int(found[1]):02}:00 through {int(found[2]):02}:59"
    return f"in the hour{'s' if re.search(r'[^0-9]', text) else ''} {_field(text, 'hour', str)}"


def _field(text: str, unit: str, name: Callable[[str], str]) -> str:
    words = []
    for part in text.split(","):
        base, _, step = part.partition("/")
        first, _, last = base.partition("-")
        if base in {"*", "?"}:
            what = f"every {unit}"
        elif last:
            what = f"{name(first)} through {name(last)}"
        else:
            what = f"{name(first)} onwards" if step else name(first)
        words.append(
            f"every {_nth(int(step))} {unit} from {what}"
            if step and step != "1" and base not in {"*", "?"}
            else f"every {_nth(int(step))} {unit}"
            if step and step != "1"
            else what
        )
    return joined(words)


def _nth(number: int) -> str:
    if number == 2:
        return "other"
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _month(text: str) -> str:
    return _MONTHS[int(text) - 1] if text.isdigit() else next(m for m in _MONTHS if m.upper().startswith(text))


def _weekday(text: str) -> str:
    return _WEEKDAYS[int(text) % 7] if text.isdigit() else next(d for d in _WEEKDAYS if d.upper().startswith(text))


def _days(text: str) -> str:
    special, plain = [], []
    for part in text.split(","):
        if found := re.fullmatch(r"L(?:-(\d+))?(W)?", part):
            back = int(found[1] or 0)
            day = f"{_from_last(back)} of the month"
            weekday = "the last weekday of the month" if back == 0 else f"the weekday nearest to {day}"
            special.append(weekday if found[2] else day)
        elif found := re.fullmatch(r"(\d+)W", part):
            special.append(f"the weekday nearest to day {int(found[1])} of the month")
        else:
            plain.append(part)
    if plain:
        listed = ",".join(plain)
        several = "s" if re.search(r"[,-]", listed) else ""
        stepped = listed.startswith("*/") and "," not in listed
        shown = _field(listed, "day", lambda value: str(int(value)))
        special.insert(0, f"{shown} of the month" if stepped else f"day{several} {shown} of the month")
    return f"on {joined(special)}"


def _from_last(back: int) -> str:
    return "the last day" if back == 0 else f"the {'second' if back == 1 else _nth(back + 1)} last day"


def _weekdays(text: str) -> str:
    words = []
    for part in text.split(","):
        name, hash_, nth = part.partition("#")
        if hash_:
            words.append(f"the {_ORDINALS[int(nth)]} {_weekday(name)} of the month")
        elif found := re.fullmatch(r"(\d+|[A-Z]{3})L", part):
            words.append(f"the last {_weekday(found[1])} of the month")
        else:
            words.append(_field(part, "day of the week", _weekday))
    listed = joined(words)
    return listed if re.fullmatch(r"[A-Z0-9]+-[A-Z0-9]+", text) else f"on {listed}"
