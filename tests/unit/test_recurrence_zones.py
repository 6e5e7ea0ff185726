"""Zones come from the pinned wheel, and what is made of them is what its files say."""

import struct
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise

import pytest

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.recurrence import is_zone, suggest_zone, zone_version
from scheduling.domain.recurrence.zones import known_zone, zone

ZONES = files("tzdata").joinpath("zones").read_text().split()


def changes_in_file(name: str) -> list[tuple[int, int, int]]:
    """The changes of offset of a TZif file (RFC 9636, version 2 part): instant, offset before, offset after."""
    data = files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()

    def header(part: bytes) -> tuple[int, ...]:
        return struct.unpack(">6l", part[20:44])

    isut, isstd, leap, times, types, chars = header(data)
    part = data[44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut :]
    _, _, _, times, types, _ = header(part)
    instants = struct.unpack(f">{times}q", part[44 : 44 + 8 * times])
    indexes = part[44 + 8 * times : 44 + 9 * times]
    start = 44 + 9 * times
    offsets = [struct.unpack(">lbb", part[start + 6 * n : start + 6 * n + 6])[0] for n in range(types)]
    found = []
    before = offsets[0]
    for instant, index in zip(instants, indexes, strict=True):
        if offsets[index] != before:
            found.append((instant, before, offsets[index]))
        before = offsets[index]
    return found


def test_no_zone_changes_its_offset_twice_within_six_days() -> None:
    # The engine looks at a zone every third day, so that it sees each change by itself.
    for name in ZONES:
        assert all(later[0] - earlier[0] > 6 * 86_400 for earlier, later in pairwise(changes_in_file(name))), name


@pytest.mark.parametrize(
    "name",
    ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Pacific/Apia", "Africa/Casablanca",
     "America/Juneau", "Europe/Dublin", "Africa/Monrovia", "America/Sao_Paulo"],
)  # fmt: skip
def test_the_changes_that_the_engine_knows_are_those_in_the_file(name: str) -> None:
    # The file lists changes up to the year from which a rule holds; that rule is looked at below.
    first = int(datetime(1860, 1, 1, tzinfo=UTC).timestamp())
    expected = [change for change in changes_in_file(name) if change[0] >= first]
    found = []
    where = zone(name)
    at, offset = first, where.offset(first)
    while expected and at <= expected[-1][0]:
        stretch = where.stretch(at)
        if stretch.offset != offset:
            found.append((stretch.start, offset, stretch.offset))
        at, offset = stretch.end, stretch.offset
    assert found == expected


@pytest.mark.parametrize("name", ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll"])
def test_years_beyond_the_files_follow_their_rule(name: str) -> None:
    where = zone(name)
    for hours in range(0, 24 * 366, 7):
        moment = datetime(2150, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        offset = moment.astimezone(where.info).utcoffset()
        assert offset == timedelta(seconds=where.offset(int(moment.timestamp())))


def test_the_version_is_that_of_the_pinned_wheel() -> None:
    year, number, *_ = version("tzdata").split(".")
    assert zone_version() == f"{year}{chr(ord('a') + int(number) - 1)}"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/localtime", "../zones", "Europe/../Europe/Paris", "Europe//Paris", "europe/paris", "Europe",
     "Europe/Paris\0", "__init__.py", "Factory", "localtime", "Mars/Olympus", "Europe\\Paris"],
)  # fmt: skip
def test_what_the_wheel_does_not_list_is_no_zone(name: str) -> None:
    assert not is_zone(name)
    with pytest.raises(KeyError):
        zone(name)
    with pytest.raises(InvalidRequest):
        known_zone(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("europe/paris", "Europe/Paris"),
        ("Europe/Pari", "Europe/Paris"),
        ("paris", "Europe/Paris"),
        ("Europe/Bucarest", "Europe/Bucharest"),
        ("America/New York", "America/New_York"),
        ("new york", "America/New_York"),
        ("utc", "UTC"),
        ("", None),
        ("qqqqqqqq", None),
        ("x" * 1000, None),
    ],
)
def test_a_zone_that_was_probably_meant_is_suggested(name: str, meant: str | None) -> None:
    assert suggest_zone(name) == meant


def test_every_zone_of_the_wheel_can_be_read() -> None:
    for name in ZONES:
        if name != "Factory":
            assert -86_400 < zone(name).offset(1_800_000_000) < 86_400
