"""Timings and exclusions as JSON columns, and back. Shared calendars are stored by name and filled in when read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from scheduling.domain.calendar import PlainExclusion
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
    NthWeekday,
    Once,
    OnDeployment,
    Union,
    Weekday,
    When,
)

Json = dict[str, Any]


def micros(span: timedelta) -> int:
    """A span in whole microseconds."""
    return span // timedelta(microseconds=1)


def when_to_spec(when: When) -> tuple[str, Json]:
    """A way to say when, as the columns `kind` and `spec`."""
    match when:
        case Once():
            once: Json = {"time": when.time.isoformat()}
            return "ONCE", once if when.after is None else once | {"after_us": micros(when.after)}
        case Cron():
            return "CRON", {"expression": when.expression}
        case Interval():
            interval: Json = {"every_us": micros(when.every), "phase_us": micros(when.phase)}
            return "INTERVAL", interval if when.anchor is None else interval | {"anchor": when.anchor.isoformat()}
        case Calendar():
            return "CALENDAR", _calendar_to_json(when)
        case Union():
            kinds = (when_to_spec(spec) for spec in when.specs)
            return "UNION", {"specs": [{"kind": kind, "spec": spec} for kind, spec in kinds]}
        case OnDeployment():
            return "DEPLOYMENT", {"delay_us": micros(when.delay)}


def when_to_json(when: When) -> tuple[str, str]:
    """`when_to_spec` with the JSON as text. Isoformat needs no escapes."""
    if isinstance(when, Once) and when.after is None:
        return "ONCE", f'{{"time":"{when.time.isoformat()}"}}'
    kind, spec = when_to_spec(when)
    return kind, json.dumps(spec)


def spec_to_when(kind: str, spec: Mapping[str, Any]) -> When:
    """The inverse of `when_to_spec`."""
    match kind:
        case "ONCE":
            after = spec.get("after_us")
            return Once(datetime.fromisoformat(spec["time"]), None if after is None else timedelta(microseconds=after))
        case "UNION":
            return Union(tuple(_recurring(each["kind"], each["spec"]) for each in spec["specs"]))
        case "DEPLOYMENT":
            return OnDeployment(timedelta(microseconds=spec["delay_us"]))
        case _:
            return _recurring(kind, spec)


def _recurring(kind: str, spec: Mapping[str, Any]) -> Cron | Interval | Calendar:
    match kind:
        case "CRON":
            return Cron(spec["expression"])
        case "INTERVAL":
            anchor = spec.get("anchor")
            return Interval(
                timedelta(microseconds=spec["every_us"]),
                timedelta(microseconds=spec["phase_us"]),
                None if anchor is None else datetime.fromisoformat(anchor),
            )
        case "CALENDAR":
            return _calendar_from_json(spec)
        case _:
            raise ValueError(f"unknown kind of schedule: {kind}")


def _calendar_to_json(calendar: Calendar) -> Json:
    return {
        "frequency": calendar.frequency.value,
        "times": [each.isoformat() for each in calendar.times],
        "every": calendar.every,
        "weekdays": sorted(calendar.weekdays),
        "month_days": sorted(calendar.month_days),
        "nth_weekdays": sorted([each.weekday, each.nth] for each in calendar.nth_weekdays),
        "months": sorted(calendar.months),
        "from": None if calendar.from_date is None else calendar.from_date.isoformat(),
        "until": None if calendar.until_date is None else calendar.until_date.isoformat(),
        "count": calendar.count,
    }


def _calendar_from_json(spec: Mapping[str, Any]) -> Calendar:
    return Calendar(
        frequency=Frequency(spec["frequency"]),
        times=tuple(time.fromisoformat(each) for each in spec["times"]),
        every=spec["every"],
        weekdays=frozenset(Weekday(each) for each in spec["weekdays"]),
        month_days=frozenset(spec["month_days"]),
        nth_weekdays=frozenset(NthWeekday(Weekday(day), nth) for day, nth in spec["nth_weekdays"]),
        months=frozenset(spec["months"]),
        from_date=None if spec["from"] is None else date.fromisoformat(spec["from"]),
        until_date=None if spec["until"] is None else date.fromisoformat(spec["until"]),
        count=spec["count"],
    )


def exclusions_to_json(exclusions: Iterable[Exclusion]) -> list[Json]:
    """Exclusions as the column `exclusions`."""
    return [_exclusion_to_json(each) for each in exclusions]


def _exclusion_to_json(exclusion: Exclusion) -> Json:
    match exclusion:
        case ExcludedDates():
            return {"dates": [each.isoformat() for each in sorted(exclusion.dates)]}
        case ExcludedPeriod():
            return {"period": [exclusion.start.isoformat(), exclusion.end.isoformat()]}
        case ExcludedWindow():
            bounds = [exclusion.start.isoformat(), exclusion.end.isoformat()]
            return {"window": bounds, "weekdays": sorted(exclusion.weekdays)}
        case ExcludedCron():
            return {"cron": exclusion.expression}
        case NamedCalendar():
            return {"calendar": exclusion.name}


def calendar_ids(exclusions: Iterable[Exclusion]) -> list[str]:
    """The shared calendars that are named."""
    return sorted({each.name for each in exclusions if isinstance(each, NamedCalendar)})


def plain_exclusions(value: Sequence[Mapping[str, Any]]) -> tuple[PlainExclusion, ...]:
    """The exclusions of a calendar, which names no other calendars."""
    return tuple(_plain(each) for each in value)


def exclusions_from_json(
    value: Sequence[Mapping[str, Any]], calendars: Mapping[str, NamedCalendar]
) -> tuple[Exclusion, ...]:
    """The inverse of `exclusions_to_json`. A calendar that is not among `calendars` excludes nothing."""
    return tuple(
        calendars.get(each["calendar"], NamedCalendar(each["calendar"], ())) if "calendar" in each else _plain(each)
        for each in value
    )


def _plain(value: Mapping[str, Any]) -> PlainExclusion:
    match value:
        case {"dates": dates}:
            return ExcludedDates(frozenset(date.fromisoformat(each) for each in dates))
        case {"period": [start, end]}:
            return ExcludedPeriod(datetime.fromisoformat(start), datetime.fromisoformat(end))
        case {"window": [start, end], "weekdays": weekdays}:
            days = frozenset(Weekday(each) for each in weekdays)
            return ExcludedWindow(time.fromisoformat(start), time.fromisoformat(end), days)
        case {"cron": expression}:
            return ExcludedCron(expression)
        case _:
            raise ValueError(f"unknown kind of exclusion: {value}")
