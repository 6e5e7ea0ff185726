"""Two members of one oneof, found in the bytes."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from whispr.scheduling.v1 import calendar_pb2, schedule_pb2, target_pb2
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.rpc.wire import find_oneof_clashes


def parsed(raw: Any, kind: type[Message]) -> Any:
    return find_oneof_clashes(raw, kind.FromString(raw))


def test_two_kinds_of_schedule_at_once_are_found_in_the_bytes() -> None:
    both = (
        schedule_pb2.Schedule(cron=schedule_pb2.CronSpec(expression="* * * * *")).SerializeToString()
        + schedule_pb2.Schedule(after=timedelta(seconds=5)).SerializeToString()
    )
    assert [(v.field, v.description) for v in parsed(both, schedule_pb2.Schedule)] == [
        ("when", "exactly one of after, cron may be given")
    ]
    member = bytes([0x1A, len(both)]) + both  # field 3 of CreateJobRequest
    single = pb.CreateJobRequest(job_id="a").SerializeToString()
    batch = b"".join(bytes([0x0A, len(part)]) + part for part in (single, single + member))
    assert [v.field for v in parsed(batch, pb.BatchCreateJobsRequest)] == ["requests[1].schedule.when"]


def test_one_kind_of_schedule_is_fine_however_it_is_encoded() -> None:
    one = schedule_pb2.Schedule(after=timedelta(seconds=5)).SerializeToString()
    assert parsed(one + one, schedule_pb2.Schedule) == []
    # Defaults on the wire make the bytes longer than what is kept of them; so do two values of an optional field.
    assert parsed(one + bytes([0x12, 0x00, 0x58, 0x00]), schedule_pb2.Schedule) == []
    twice = target_pb2.RetryPolicy(max_attempts=2).SerializeToString() * 2
    assert parsed(twice, target_pb2.RetryPolicy) == []


@given(st.lists(st.binary(max_size=30)))
def test_whatever_parses_can_be_searched_for_clashes(parts: Any) -> None:
    raw = b"".join(parts)
    try:
        message = pb.CreateJobRequest.FromString(raw)
    except Exception:  # noqa: BLE001 - the parser refuses it, so nobody will search it
        return
    find_oneof_clashes(raw, message)


CRON = schedule_pb2.CronSpec(expression="0 9 * * *")
EVERY = schedule_pb2.IntervalSpec(every=timedelta(hours=1))
DAILY = schedule_pb2.CalendarSpec(frequency=schedule_pb2.CalendarSpec.DAILY)
WAYS: list[Any] = [
    schedule_pb2.Schedule(at_time={"seconds": 1}),
    schedule_pb2.Schedule(after=timedelta(seconds=5)),
    schedule_pb2.Schedule(cron=CRON),
    schedule_pb2.Schedule(interval=EVERY),
    schedule_pb2.Schedule(calendar=DAILY),
    schedule_pb2.Schedule(union=schedule_pb2.UnionSpec(specs=[schedule_pb2.RecurrenceSpec(cron=CRON)])),
    schedule_pb2.Schedule(deployment=schedule_pb2.DeploymentSpec()),
]


def field(number: int, *parts: Message) -> bytes:
    """The field holding what the parts say one after the other, which no library would write."""
    raw = b"".join(part.SerializeToString() for part in parts)
    assert len(raw) < 128
    return _key(number) + bytes([len(raw)]) + raw


def _key(number: int) -> bytes:
    key = number << 3 | 2
    return bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_any_two_ways_to_say_when_clash_and_one_of_them_twice_does_not(first: Any, second: Any) -> None:
    raw = first.SerializeToString() + second.SerializeToString()
    found = [violation.field for violation in parsed(raw, schedule_pb2.Schedule)]
    assert found == ([] if first is second else ["when"])


def test_two_specifications_in_one_member_of_a_union_are_found() -> None:
    spec = schedule_pb2.RecurrenceSpec
    fine, both = field(1, spec(cron=CRON)), field(1, spec(cron=CRON), spec(calendar=DAILY))
    union = fine + both
    raw = _key(25) + bytes([len(union)]) + union
    assert [(v.field, v.description) for v in parsed(raw, schedule_pb2.Schedule)] == [
        ("union.specs[1].spec", "exactly one of calendar, cron may be given")
    ]


@pytest.mark.parametrize(("kind", "number"), [(schedule_pb2.Schedule, 30), (calendar_pb2.Calendar, 4)])
def test_two_kinds_of_exclusion_at_once_are_found(kind: Any, number: int) -> None:
    what = schedule_pb2.Exclusion
    raw = field(number, what(calendar="calendars/a")) + field(number, what(cron=CRON), what(calendar="calendars/a"))
    assert [v.field for v in parsed(raw, kind)] == ["exclusions[1].what"]


def test_a_preview_of_a_schedule_and_of_a_name_is_found() -> None:
    raw = (
        pb.PreviewScheduleRequest(name="jobs/a/schedules/b").SerializeToString()
        + pb.PreviewScheduleRequest(schedule=WAYS[2]).SerializeToString()
    )
    assert [v.field for v in parsed(raw, pb.PreviewScheduleRequest)] == ["what"]


def test_a_clash_is_found_though_what_is_kept_is_longer_than_the_bytes() -> None:
    # A negative number in five bytes, not packed, is kept in ten bytes and packed.
    short = _key(24) + bytes([6, 0x28, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F])  # calendar.month_days
    raw = WAYS[6].SerializeToString() + short
    kept = schedule_pb2.Schedule.FromString(raw)
    assert (list(kept.calendar.month_days), kept.ByteSize() > len(raw)) == ([-1], True)
    assert [v.field for v in parsed(raw, schedule_pb2.Schedule)] == ["when"]


def test_a_clash_behind_an_unknown_group_is_found() -> None:
    group = bytes([0xF3, 0x06, 0x08, 0x01, 0xF4, 0x06])  # field 110: a group that holds field 1
    raw = WAYS[2].SerializeToString() + group + WAYS[3].SerializeToString()
    assert [v.field for v in parsed(raw, schedule_pb2.Schedule)] == ["when"]
