"""Reads what messages are made of: instants, durations, dates, times of day, enums and packed messages.

The wire allows more than these types mean (any int64 of seconds, any int32 as an enum), so reading may find something
wrong. It is noted in `Findings` with the path of the field as the caller wrote it, and None is returned in its place.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, Generic, TypeVar

from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.operations.drafts import Payload

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

#: The part of a type URL before the type's name. Written in answers; read with any prefix (any.proto).
TYPE_URL_PREFIX = "type.googleapis.com/"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# timestamp.proto: from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z.
_MIN_TIMESTAMP_SECONDS, _MAX_TIMESTAMP_SECONDS = -62_135_596_800, 253_402_300_799
# duration.proto: ±10,000 years.
_MAX_DURATION_SECONDS = 315_576_000_000
_NANOS = 1_000_000_000
_TYPE_URL = re.compile(r"[^\x00-\x20\x7f]*/(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)")
_MAX_TYPE_URL = 1000


class Findings:
    """What was found wrong with a request, in the order of its fields."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, description: str, reason: str = "INVALID_VALUE") -> None:
        """Notes one violation."""
        self.violations.append(Violation(field, description, reason))

    def add_all(self, violations: Iterable[Violation]) -> None:
        """Notes violations that were found elsewhere."""
        self.violations.extend(violations)

    def place(self, path: str, first: int) -> None:
        """Says that the fields of the violations from the `first` on lie under `path`."""
        self.violations[first:] = [replace(each, field=path + each.field) for each in self.violations[first:]]

    def noted(self, read: Callable[[], T]) -> T | None:
        """What `read` returns; None, with its violations noted, when it raises InvalidRequest."""
        try:
            return read()
        except InvalidRequest as error:
            self.add_all(error.violations)
            return None

    def raise_any(self) -> None:
        """Raises InvalidRequest with all of them, if there are any."""
        if self.violations:
            raise InvalidRequest(self.violations)


class EnumMap(Generic[E]):
    """A domain enum beside its proto enum, whose members have the same names. ValueError at once if one is missing."""

    def __init__(self, members: type[E], proto: EnumTypeWrapper) -> None:
        self._members = members
        self._numbers = {member: int(proto.Value(member.name)) for member in members}
        self._by_number = {number: member for member, number in self._numbers.items()}

    def number(self, member: E | None) -> Any:
        """The proto's number, 0 (UNSPECIFIED) for None. `Any`, since the stubs give each enum a type of its own."""
        return 0 if member is None else self._numbers[member]

    def value(self, number: int) -> E:
        """The member of a number that the field's rules have let pass. Raises KeyError for others."""
        return self._by_number[number]

    def read(self, number: int, field: str, findings: Findings) -> E | None:
        """The member, None for UNSPECIFIED, and a violation for a number that the proto does not define."""
        if number == 0:
            return None
        member = self._by_number.get(number)
        if member is None:
            findings.add(field, self._expected(), "UNDEFINED_ENUM_VALUE")
        return member

    def read_required(self, number: int, field: str, findings: Findings) -> E | None:
        """The member, None with a violation for UNSPECIFIED and for a number that the proto does not define."""
        if number == 0:
            findings.add(field, self._expected(), "REQUIRED")
        return self.read(number, field, findings)

    def _expected(self) -> str:
        return f"must be one of {', '.join(member.name for member in self._members)}"


def read_timestamp(value: Timestamp, field: str, findings: Findings) -> datetime | None:
    """The instant in UTC, to the microsecond; finer parts are cut off (floor)."""
    seconds, nanos = value.seconds, value.nanos
    if not _MIN_TIMESTAMP_SECONDS <= seconds <= _MAX_TIMESTAMP_SECONDS or not 0 <= nanos < _NANOS:
        findings.add(
            field, "must be an instant from year 1 to year 9999 with nanos from 0 to 999,999,999", "INVALID_TIMESTAMP"
        )
        return None
    return _EPOCH + timedelta(0, seconds, nanos // 1000)


def read_duration(value: Duration, field: str, findings: Findings) -> timedelta | None:
    """The span, to the microsecond; finer parts are cut off (towards zero)."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) > _MAX_DURATION_SECONDS or abs(nanos) >= _NANOS or seconds * nanos < 0:
        findings.add(
            field,
            "must be within ±315,576,000,000 s, with nanos within ±999,999,999 and of the same sign as seconds",
            "INVALID_DURATION",
        )
        return None
    micros = nanos // 1000 if nanos >= 0 else -(-nanos // 1000)
    return timedelta(0, seconds, micros)


def read_date(value: Date, field: str, findings: Findings) -> date | None:
    """The date. All three parts are needed, though google.type.Date may leave them open, and the day must exist."""
    parts = (("year", value.year, 9999), ("month", value.month, 12), ("day", value.day, 31))
    wrong = [(name, f"{part} is not in 1–{most}") for name, part, most in parts if not 1 <= part <= most]
    if not wrong and value.day > (days := monthrange(value.year, value.month)[1]):
        wrong = [("day", f"{value.day} is not in 1–{days}, the days of {value.year:04}-{value.month:02}")]
    for name, description in wrong:
        findings.add(f"{field}.{name}", description, "INVALID_DATE")
    return None if wrong else date(value.year, value.month, value.day)


def read_time_of_day(value: TimeOfDay, field: str, findings: Findings) -> time | None:
    """The local time, in whole seconds. Neither 24:00 nor leap seconds, though google.type.TimeOfDay has them."""
    parts = (("hours", value.hours, 23), ("minutes", value.minutes, 59), ("seconds", value.seconds, 59))
    wrong = [(name, f"{part} is not in 0–{most}") for name, part, most in parts if not 0 <= part <= most]
    if value.nanos:
        wrong.append(("nanos", f"{value.nanos} is not 0; times of day are in whole seconds"))
    for name, description in wrong:
        findings.add(f"{field}.{name}", description, "INVALID_TIME_OF_DAY")
    return None if wrong else time(value.hours, value.minutes, value.seconds)


def read_payload(value: PackedMessage, field: str, findings: Findings) -> Payload | None:
    """The packed message, not unpacked. Its type URL is `prefix/full.type.Name`, with any prefix."""
    url = value.type_url
    type_name = _type_name(url) if len(url) <= _MAX_TYPE_URL else None
    if type_name is None:
        findings.add(
            f"{field}.type_url", f"must be {TYPE_URL_PREFIX} and the full name of a message type", "INVALID_TYPE_URL"
        )
        return None
    return Payload(type_name, value.value)


@lru_cache(maxsize=256)
def _type_name(url: str) -> str | None:
    match = _TYPE_URL.fullmatch(url)
    return None if match is None else match["name"]


def write_timestamp(message: Timestamp, value: datetime) -> None:
    """Sets the message to the instant: four times as fast as letting protobuf convert it."""
    since = value - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1000
    message.SetInParent()


def date_message(value: date) -> Date:
    """The date as google.type.Date."""
    return Date(year=value.year, month=value.month, day=value.day)


def time_of_day_message(value: time) -> TimeOfDay:
    """The local time as google.type.TimeOfDay, in whole seconds."""
    return TimeOfDay(hours=value.hour, minutes=value.minute, seconds=value.second)


def packed(type_name: str, value: bytes) -> PackedMessage:
    """The message as an Any, from its type's full name and its bytes, without parsing them."""
    return PackedMessage(type_url=TYPE_URL_PREFIX + type_name, value=value)
