"""Time zones from the pinned `tzdata` wheel: never the machine's own, which may be older, newer or missing.

Firing times depend on the zone rules, so every process must have the same ones. The pinned wheel gives
that; `zoneinfo.ZoneInfo(name)` would prefer the operating system's files.
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

from scheduling.domain.errors import invalid

DAY = 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

#: Years that the engine looks at. One off each end of what `datetime` can hold, so that no local time overflows.
FIRST_YEAR, LAST_YEAR = 2, 9998

#: Time between two looks at a zone's offset. No zone of the wheel changes twice within 6 days (a test checks it).
_STEP_DELTA = timedelta(days=3)
_STEP = _STEP_DELTA.days * DAY

#: Days by which the table of one year reaches into its neighbours; more than any offset or gap.
_MARGIN_DAYS = 3

#: The wheel's placeholder for a machine whose zone was never set; nobody means it.
_NOT_A_PLACE = "Factory"


class Change(NamedTuple):
    """A moment when clocks change: from `at` on (seconds since the epoch) the offset is `after`, until then `before`.

    Offsets are seconds east of UTC. `after > before` leaves a gap in the local times, `after < before` an overlap.
    """

    at: int
    before: int
    after: int


class Stretch(NamedTuple):
    """Instants in [start, end), in seconds since the epoch, with one offset. It may end without a change of clocks."""

    start: int
    end: int
    offset: int


class Resolved(NamedTuple):
    """What a local time is in a zone.

    `instant` is the first instant that shows it (seconds since the epoch); for one in a gap, the gap's end. `low` and
    `high` bound the local times of the gap or overlap that it lies in, half-open; both are 0 elsewhere.
    """

    instant: int
    gap: bool
    low: int
    high: int


class Zone:
    """One time zone, as whole seconds. Instants are seconds since the epoch; local times are seconds since 1970-01-01
    00:00 on the wall clock. Years outside FIRST_YEAR to LAST_YEAR are not supported."""

    __slots__ = ("_epoch", "_info", "name")

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info
        self._epoch = EPOCH.replace(tzinfo=info)

    @property
    def info(self) -> ZoneInfo:
        """The same zone for `datetime`."""
        return self._info

    def offset(self, instant: int) -> int:
        """Seconds east of UTC at that instant."""
        _, _, offset, changes = _table(self, _year(instant))
        for change in changes:
            if instant < change.at:
                break
            offset = change.after
        return offset

    def stretch(self, instant: int) -> Stretch:
        """The stretch of equal offset that the instant lies in, cut off a few days outside its year."""
        start, end, offset, changes = _table(self, _year(instant))
        for change in changes:
            if instant < change.at:
                end = change.at
                break
            start, offset = change.at, change.after
        return Stretch(start, end, offset)

    def resolve(self, local: int) -> Resolved:
        """What the local time is: one instant, the first of two, or the end of the gap that it falls into."""
        _, _, offset, changes = _table(self, _year(local))
        for at, before, after in changes:
            if local < at + before and local < at + after:
                break
            if at + before <= local < at + after:
                return Resolved(at, True, at + before, at + after)
            if at + after <= local < at + before:
                return Resolved(local - before, False, at + after, at + before)
            offset = after
        return Resolved(local - offset, False, 0, 0)

    def _offset_by_library(self, instant: int) -> int:
        # fromutc takes UTC under the zone's own label; of all the ways to ask it is the fastest by far.
        utc = self._epoch + timedelta(seconds=instant)
        offset = self._info.fromutc(utc) - utc
        return offset.days * DAY + offset.seconds

    def _find_change(self, low: int, high: int, before: int) -> int:
        """The first instant in (low, high] whose offset is not `before`, by halving."""
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset_by_library(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def changes_of_year(self, year: int) -> tuple[int, int, int, tuple[Change, ...]]:
        """Bounds of the year's table, the offset at its beginning, and the changes within it."""
        start = (date(year, 1, 1).toordinal() - EPOCH_ORDINAL - _MARGIN_DAYS) * DAY
        end = (date(year + 1, 1, 1).toordinal() - EPOCH_ORDINAL + _MARGIN_DAYS) * DAY
        changes: list[Change] = []
        first = before = self._offset_by_library(start)
        utc = self._epoch + timedelta(seconds=start)
        shown = self._info.fromutc(utc) - utc
        for low in range(start, end, _STEP):
            utc += _STEP_DELTA
            if self._info.fromutc(utc) - utc != shown:
                shown = self._info.fromutc(utc) - utc
                after = self._offset_by_library(low + _STEP)
                changes.append(Change(self._find_change(low, low + _STEP, before), before, after))
                before = after
        # The last look may lie beyond the end.
        changes = [change for change in changes if change.at < end]
        return start, end, first, tuple(changes)


@lru_cache(maxsize=4096)
def _table(where: Zone, year: int) -> tuple[int, int, int, tuple[Change, ...]]:
    """The year's table, kept for all zones together: callers choose both, and each zone by itself would be small."""
    return where.changes_of_year(year)


def _year(seconds: int) -> int:
    return date.fromordinal(seconds // DAY + EPOCH_ORDINAL).year


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    listed = files("tzdata").joinpath("zones").read_text(encoding="ascii").split()
    return frozenset(listed) - {_NOT_A_PLACE}


@lru_cache(maxsize=1024)
def _load(name: str) -> Zone:
    path = files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as data:
        return Zone(name, ZoneInfo.from_file(data, key=name))


def is_zone(name: str) -> bool:
    """Whether the wheel lists a zone or alias of exactly that name."""
    return name in _names()


def zone(name: str) -> Zone:
    """The zone of that IANA name, read once per process. Raises KeyError for any other name, path tricks included."""
    # Only names that the wheel itself lists ever become a path.
    if name not in _names():
        raise KeyError(name)
    return _load(name)


def known_zone(name: str, *, field: str = "time_zone") -> Zone:
    """The zone of that name. Raises InvalidRequest about `field`, with what was probably meant, when there is none."""
    try:
        return zone(name)
    except KeyError:
        near = suggest_zone(name)
        hint = f"; did you mean {near}?" if near else ", expected an IANA name such as Europe/Paris"
        raise invalid(field, f"{name[:64]!r} is not a known time zone{hint}", "UNKNOWN_TIME_ZONE") from None


def suggest_zone(name: str) -> str | None:
    """The zone that was probably meant, by letter case, last part (`Paris`) or likeness; None if nothing is near."""
    wanted = name.strip().replace(" ", "_").casefold()
    if not wanted or len(wanted) > 64:
        return None
    by_key: dict[str, str] = {}
    for known in sorted(_names(), reverse=True):
        by_key[known.casefold().rsplit("/", 1)[-1]] = known
    for known in sorted(_names(), reverse=True):
        by_key[known.casefold()] = known
    if wanted in by_key:
        return by_key[wanted]
    near = difflib.get_close_matches(wanted, by_key, n=1, cutoff=0.7)
    return by_key[near[0]] if near else None


@lru_cache(maxsize=1)
def zone_version() -> str:
    """The release of the IANA time zone database that firing times come from, such as `2026b`."""
    return str(import_module("tzdata").IANA_VERSION)
