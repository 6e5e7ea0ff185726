"""Instants, durations, enums, packed messages and resource names as callers may send them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.errors import InvalidRequest, Violation
from scheduling.domain.target import Queue
from scheduling.rpc import names
from scheduling.rpc.mapping import QUEUES
from scheduling.rpc.values import Findings, packed, read_duration, read_payload, read_timestamp

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


@given(st.text())
def test_names_of_any_text_are_read_or_refused(text: Any) -> None:
    for read in (names.job_id, names.parent_job_id, names.schedule_ids, names.execution_ids):
        with suppress(InvalidRequest):
            assert read(text) is not None or text == "jobs/-"
