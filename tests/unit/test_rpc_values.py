"""Instants, durations, enums, packed messages and resource names as callers may send them."""

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import dayofweek_pb2
from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.target import Queue
from scheduling.domain.timing import Weekday
from scheduling.rpc import names
from scheduling.rpc.mapping import QUEUES
from scheduling.rpc.schedule_mapping import WEEKDAYS
from scheduling.rpc.values import (
    Findings,
    date_message,
    packed,
    read_date,
    read_duration,
    read_payload,
    read_time_of_day,
    read_timestamp,
    time_of_day_message,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
ID = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def violations_of(findings: Findings) -> tuple[Violation, ...]:
    with pytest.raises(InvalidRequest) as caught:
        findings.raise_any()
    return caught.value.violations


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_survives_the_way_out_and_back(instant: Any) -> None:
    message = Timestamp()
    message.FromDatetime(instant)
    assert read_timestamp(message, "t", Findings()) == instant


@given(st.timedeltas(timedelta(days=-3_650_000), timedelta(days=3_650_000)))
def test_a_duration_survives_the_way_out_and_back(span: Any) -> None:
    message = Duration()
    message.FromTimedelta(span)
    assert read_duration(message, "d", Findings()) == span


@given(INT64, INT32)
def test_no_timestamp_on_the_wire_breaks_the_reader(seconds: Any, nanos: Any) -> None:
    findings = Findings()
    read = read_timestamp(Timestamp(seconds=seconds, nanos=nanos), "job.at", findings)
    valid = -62_135_596_800 <= seconds <= 253_402_300_799 and 0 <= nanos <= 999_999_999
    assert (read is not None) == valid
    if not valid:
        assert [(v.field, v.reason) for v in violations_of(findings)] == [("job.at", "INVALID_TIMESTAMP")]


@given(INT64, INT32)
def test_no_duration_on_the_wire_breaks_the_reader(seconds: Any, nanos: Any) -> None:
    findings = Findings()
    read = read_duration(Duration(seconds=seconds, nanos=nanos), "job.timeout", findings)
    same_sign = seconds == 0 or nanos == 0 or (seconds < 0) == (nanos < 0)
    valid = abs(seconds) <= 315_576_000_000 and abs(nanos) <= 999_999_999 and same_sign
    assert (read is not None) == valid
    if not valid:
        assert [(v.field, v.reason) for v in violations_of(findings)] == [("job.timeout", "INVALID_DURATION")]


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (253_402_300_799, 999_999_999, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (-62_135_596_800, 0, datetime(1, 1, 1, tzinfo=UTC)),
        (-1, 999_999_999, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_the_ends_of_time_are_read_and_nanoseconds_cut_off(seconds: Any, nanos: Any, expected: Any) -> None:
    assert read_timestamp(Timestamp(seconds=seconds, nanos=nanos), "t", Findings()) == expected


def test_nanoseconds_of_a_duration_are_cut_off_towards_zero() -> None:
    assert read_duration(Duration(seconds=-1, nanos=-1999), "d", Findings()) == timedelta(seconds=-1, microseconds=-1)


@given(INT32)
def test_an_enum_number_is_a_member_or_unspecified_or_a_violation(number: Any) -> None:
    findings = Findings()
    member = QUEUES.read(number, "job.queue", findings)
    if number == 0:
        assert member is None
        findings.raise_any()
    elif 1 <= number <= 3:
        assert member is not None
        assert QUEUES.number(member) == number
    else:
        assert [v.field for v in violations_of(findings)] == ["job.queue"]
    assert QUEUES.number(Queue.HIGH) == 1


def test_an_enum_that_is_required_refuses_unspecified() -> None:
    findings = Findings()
    assert QUEUES.read_required(2, "q", findings) is Queue.MEDIUM
    assert QUEUES.read_required(0, "q", findings) is None
    assert QUEUES.read_required(9, "q", findings) is None
    assert [(v.description, v.reason) for v in violations_of(findings)] == [
        ("must be one of HIGH, MEDIUM, LOW", "REQUIRED"),
        ("must be one of HIGH, MEDIUM, LOW", "UNDEFINED_ENUM_VALUE"),
    ]


@pytest.mark.parametrize("day", Weekday)
def test_a_weekday_is_that_of_google_type(day: Any) -> None:
    assert WEEKDAYS.number(day) == dayofweek_pb2.DayOfWeek.Value(day.name) == int(day)


@given(st.dates())
def test_a_date_survives_the_way_out_and_back(day: Any) -> None:
    assert read_date(date_message(day), "d", Findings()) == day


@given(st.times().map(lambda clock: clock.replace(microsecond=0)))
def test_a_time_of_day_survives_the_way_out_and_back(clock: Any) -> None:
    assert read_time_of_day(time_of_day_message(clock), "t", Findings()) == clock


@pytest.mark.parametrize(
    ("year", "month", "day", "field", "description"),
    [
        (0, 5, 5, "d.year", "0 is not in 1–9999"),
        (2030, 0, 5, "d.month", "0 is not in 1–12"),
        (2030, 5, 0, "d.day", "0 is not in 1–31"),
        (10_000, 5, 5, "d.year", "10000 is not in 1–9999"),
        (-1, 5, 5, "d.year", "-1 is not in 1–9999"),
        (2030, 13, 5, "d.month", "13 is not in 1–12"),
        (2030, 5, 32, "d.day", "32 is not in 1–31"),
        (2030, 2, 29, "d.day", "29 is not in 1–28, the days of 2030-02"),
        (1900, 2, 29, "d.day", "29 is not in 1–28, the days of 1900-02"),
        (2030, 4, 31, "d.day", "31 is not in 1–30, the days of 2030-04"),
    ],
)
def test_a_date_that_is_not_whole_or_not_real_is_a_violation_on_its_part(
    year: Any, month: Any, day: Any, field: Any, description: Any
) -> None:
    findings = Findings()
    assert read_date(Date(year=year, month=month, day=day), "d", findings) is None
    assert violations_of(findings) == (Violation(field, description, "INVALID_DATE"),)


@pytest.mark.parametrize(
    ("clock", "field", "description"),
    [
        (TimeOfDay(hours=25), "t.hours", "25 is not in 0–23"),
        (TimeOfDay(hours=24), "t.hours", "24 is not in 0–23"),
        (TimeOfDay(hours=-1), "t.hours", "-1 is not in 0–23"),
        (TimeOfDay(minutes=60), "t.minutes", "60 is not in 0–59"),
        (TimeOfDay(seconds=60), "t.seconds", "60 is not in 0–59"),
        (TimeOfDay(nanos=1), "t.nanos", "1 is not 0; times of day are in whole seconds"),
    ],
)
def test_a_time_that_no_clock_shows_is_a_violation_on_its_part(clock: Any, field: Any, description: Any) -> None:
    findings = Findings()
    assert read_time_of_day(clock, "t", findings) is None
    assert violations_of(findings) == (Violation(field, description, "INVALID_TIME_OF_DAY"),)


@given(INT32, INT32, INT32, INT32)
def test_no_date_and_no_time_on_the_wire_breaks_the_reader(first: Any, second: Any, third: Any, fourth: Any) -> None:
    findings = Findings()
    day = read_date(Date(year=first, month=second, day=third), "d", findings)
    assert day is None or day == date(first, second, third)
    clock = read_time_of_day(TimeOfDay(hours=first, minutes=second, seconds=third, nanos=fourth), "t", findings)
    assert clock is None or clock == time(first, second, third)


def test_every_wrong_part_is_told() -> None:
    findings = Findings()
    read_date(Date(year=0, month=13, day=40), "d", findings)
    read_time_of_day(TimeOfDay(hours=24, minutes=60, seconds=60, nanos=5), "t", findings)
    assert [v.field for v in violations_of(findings)] == [
        *("d.year", "d.month", "d.day"),
        *("t.hours", "t.minutes", "t.seconds", "t.nanos"),
    ]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("type.googleapis.com/messaging.Send", "messaging.Send"),
        ("/messaging.Send", "messaging.Send"),
        ("https://example.test/a/b/messaging.v1.Send", "messaging.v1.Send"),
        ("type.googleapis.com/Send_2", "Send_2"),
    ],
)
def test_a_type_url_may_have_any_prefix(url: Any, name: Any) -> None:
    read = read_payload(PackedMessage(type_url=url, value=b"x"), "job.request", Findings())
    assert read is not None
    assert (read.type_name, read.value) == (name, b"x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "messaging.Send",
        "type.googleapis.com/",
        "x/messaging..Send",
        "x/.Send",
        "x/2Send",
        "x/Send ",
        "x\n/Send",
        f"x/{'a' * 2000}",
    ],
)
def test_a_malformed_type_url_is_a_violation_on_it(url: Any) -> None:
    findings = Findings()
    assert read_payload(PackedMessage(type_url=url, value=b"x"), "job.request", findings) is None
    assert [(v.field, v.reason) for v in violations_of(findings)] == [("job.request.type_url", "INVALID_TYPE_URL")]


@given(st.text())
def test_no_type_url_breaks_the_reader(url: Any) -> None:
    read_payload(PackedMessage(type_url=url), "job.request", Findings())


def test_a_message_is_packed_without_being_parsed() -> None:
    message = packed("messaging.Send", b"\xff\xff")
    assert (message.type_url, message.value) == ("type.googleapis.com/messaging.Send", b"\xff\xff")


@given(ID, ID)
def test_names_give_the_ids_they_are_made_of(job: Any, inner: Any) -> None:
    assert names.job_id(f"jobs/{job}") == job
    assert names.parent_job_id(f"jobs/{job}") == job
    assert names.schedule_ids(f"jobs/{job}/schedules/{inner}") == (job, inner)
    assert names.execution_ids(f"jobs/{job}/executions/{inner}") == (job, inner)
    assert names.backfill_ids(f"jobs/{job}/schedules/{inner}/backfills/b-1") == (job, inner, "b-1")
    assert names.calendar_id(f"calendars/{inner}") == inner


def test_the_wildcard_stands_for_every_job_in_parents_only() -> None:
    assert names.parent_job_id("jobs/-") is None
    with pytest.raises(InvalidRequest):
        names.job_id("jobs/-")
    with pytest.raises(InvalidRequest):
        names.execution_ids("jobs/-/executions/e-1")


@pytest.mark.parametrize(
    "name",
    [
        *("", "jobs", "jobs/", "/jobs/a", "jobs/a/", "jobs//a", "Jobs/a", "jobs/A", "jobs/1a", "jobs/a-", "jobs/a b"),
        *("jobs/a/schedules/b", "jobs/a\n", "projects/a", "jobs/" + "a" * 64, "jobs/ä", "jobs/a\x00"),
    ],
)
def test_a_malformed_name_is_a_violation_on_its_field(name: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.job_id(name, "job.name")
    assert [(v.field, v.reason) for v in caught.value.violations] == [("job.name", "INVALID_RESOURCE_NAME")]


@pytest.mark.parametrize(
    ("read", "name", "pattern"),
    [
        (names.backfill_ids, "jobs/a/schedules/b", "jobs/{job}/schedules/{schedule}/backfills/{backfill}"),
        (names.backfill_ids, "jobs/a/schedules/b/executions/c", "jobs/{job}/schedules/{schedule}/backfills/{backfill}"),
        (names.backfill_ids, "jobs/a/schedules/-/backfills/c", "jobs/{job}/schedules/{schedule}/backfills/{backfill}"),
        (names.calendar_id, "holidays", "calendars/{calendar}"),
        (names.calendar_id, "calendars/Holidays", "calendars/{calendar}"),
        (names.calendar_id, "jobs/holidays", "calendars/{calendar}"),
    ],
)
def test_a_name_of_another_kind_is_refused_with_the_form_that_is_expected(read: Any, name: Any, pattern: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(name, "x")
    (violation,) = caught.value.violations
    assert (violation.field, violation.reason) == ("x", "INVALID_RESOURCE_NAME")
    assert f"must be {pattern}, each" in violation.description


@given(st.text())
def test_names_of_any_text_are_read_or_refused(text: Any) -> None:
    for read in (
        *(names.job_id, names.parent_job_id, names.schedule_ids),
        *(names.execution_ids, names.backfill_ids, names.calendar_id),
    ):
        with suppress(InvalidRequest):
            assert read(text) is not None or text == "jobs/-"
