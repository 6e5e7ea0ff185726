"""Schedules as messages: every way to say when and every exclusion, in and out, and what is refused."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from whispr.scheduling.v1 import schedule_pb2
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.etag import etag
from scheduling.domain.schedule import Pause, Schedule, ScheduleState
from scheduling.domain.timing import (
    Calendar,
    CatchupPolicy,
    Cron,
    DstPolicy,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Frequency,
    Interval,
    NamedCalendar,
    NthWeekday,
    Once,
    OnDeployment,
    Timing,
    Union,
    Weekday,
)
from scheduling.operations.drafts import AfterDelay, AtTime, CalendarReference
from scheduling.rpc import reading, schedule_mapping, schedule_reading
from scheduling.rpc.rules import broken_rules

UID = UUID("0190f0c0-0000-7000-8000-000000000001")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ID = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
SPANS = st.timedeltas(timedelta(0), timedelta(days=3000))
INSTANTS = st.datetimes(timezones=st.just(UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
CLOCKS = st.times().map(lambda clock: clock.replace(microsecond=0))
DAYS = st.frozensets(st.sampled_from(Weekday))

CRONS = st.builds(Cron, TEXT)
INTERVALS = st.builds(Interval, SPANS, SPANS, st.none() | INSTANTS)
CALENDARS = st.builds(
    Calendar,
    st.sampled_from(Frequency),
    st.lists(CLOCKS, min_size=1, max_size=4).map(tuple),
    every=st.integers(1, 1000),
    weekdays=DAYS,
    month_days=st.frozensets(st.integers(-31, 31), max_size=5),
    nth_weekdays=st.frozensets(
        st.builds(NthWeekday, st.sampled_from(Weekday), st.sampled_from([-1, 1, 2, 3, 4, 5])), max_size=4
    ),
    months=st.frozensets(st.integers(1, 12)),
    from_date=st.none() | st.dates(),
    until_date=st.none() | st.dates(),
    count=st.none() | st.integers(1, 10_000),
)
SPECS = CRONS | INTERVALS | CALENDARS
EXCLUSIONS = (
    st.builds(ExcludedDates, st.frozensets(st.dates(), max_size=4))
    | st.builds(ExcludedPeriod, INSTANTS, INSTANTS)
    | st.builds(ExcludedWindow, CLOCKS, CLOCKS, DAYS)
    | st.builds(ExcludedCron, TEXT)
    | st.builds(NamedCalendar, ID, st.just((ExcludedDates(frozenset([date(2030, 1, 1)])),)))
)
TIMINGS = st.builds(
    Timing,
    when=st.builds(Once, INSTANTS)
    | st.builds(lambda delay: Once(NOW, delay), SPANS)
    | SPECS
    | st.builds(Union, st.lists(SPECS, max_size=4).map(tuple))
    | st.builds(OnDeployment, SPANS),
    time_zone=st.sampled_from(["UTC", "Europe/Paris", "Mars/Olympus"]),
    start=st.none() | INSTANTS,
    end=st.none() | INSTANTS,
    max_firings=st.none() | st.integers(1, 2**31 - 1),
    jitter=SPANS,
    dst_policy=st.sampled_from(DstPolicy),
    catchup_policy=st.sampled_from(CatchupPolicy),
    catchup_window=st.none() | SPANS,
    exclusions=st.lists(EXCLUSIONS, max_size=4).map(tuple),
)


def a_schedule(timing: Any, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "uid": UID,
        "schedule_id": "s-1",
        "job_uid": UID,
        "job_id": "j-1",
        "display_name": "Daily",
        "timing": timing,
        "request": None,
        "request_type": None,
        "state": ScheduleState.ACTIVE,
        "revision": 3,
        "evaluated_until": NOW,
        "next_fire_time": NOW,
        "fired_count": 5,
        "missed_count": 1,
        "create_time": NOW,
        "update_time": NOW,
    }
    return Schedule(**(values | changes))


def requested(schedule: Any) -> Any:
    """The draft of a schedule that is given as in JSON."""
    message = ParseDict(schedule, schedule_pb2.Schedule())
    return schedule_reading.schedule_draft(pb.ScheduleJobRequest(parent="jobs/j-1", schedule=message))[1]


def refused(schedule: Any) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        requested(schedule)
    return [(v.field, v.reason) for v in caught.value.violations]


@given(TIMINGS)
def test_a_schedule_that_is_answered_can_be_asked_for_again(timing: Any) -> None:
    request = pb.ScheduleJobRequest(parent="jobs/j-1", schedule=schedule_mapping.schedule(a_schedule(timing)))
    job_id, draft = schedule_reading.schedule_draft(pb.ScheduleJobRequest.FromString(request.SerializeToString()))
    expected = timing.when
    if isinstance(timing.when, Once):
        expected = AtTime(timing.when.time) if timing.when.after is None else AfterDelay(timing.when.after)
    assert (job_id, draft.when) == ("j-1", expected)
    assert (draft.max_firings or None) == timing.max_firings
    for name in ("time_zone", "start", "end", "jitter", "dst_policy", "catchup_policy", "catchup_window"):
        assert getattr(draft, name) == getattr(timing, name), name
    assert draft.exclusions == tuple(
        CalendarReference(item.name) if isinstance(item, NamedCalendar) else item for item in timing.exclusions
    )


def test_a_schedule_is_answered_with_its_counters_and_in_plain_english() -> None:
    timing = Timing(Cron("0 9 * * *"), "Europe/Paris", max_firings=8)
    message = schedule_mapping.schedule(
        a_schedule(timing, skipped={"OVERLAP": 2, "PAUSED": 1}, buffered=3, zone_version="2026b")
    )
    assert (message.name, message.uid, message.etag) == ("jobs/j-1/schedules/s-1", str(UID), etag(UID, 3))
    assert (message.fired_count, message.missed_count, message.buffered_count) == (5, 1, 3)
    assert (dict(message.skipped_counts), message.remaining_count) == ({"OVERLAP": 2, "PAUSED": 1}, 3)
    assert message.description == "at 09:00, every day, Europe/Paris time, at most 8 times"
    assert (message.time_zone_version, message.HasField("pause")) == ("2026b", False)


def test_a_schedule_without_a_limit_has_no_remaining_count_and_a_used_up_one_has_none_left() -> None:
    assert not schedule_mapping.schedule(a_schedule(Timing(Cron("0 9 * * *")))).HasField("remaining_count")
    used_up = schedule_mapping.schedule(a_schedule(Timing(Cron("0 9 * * *"), max_firings=5)))
    assert (used_up.HasField("remaining_count"), used_up.remaining_count) == (True, 0)


def test_a_paused_schedule_tells_who_paused_it_when_and_why() -> None:
    pause = Pause(NOW, "spiffe://whispr/admin", "migration")
    message = schedule_mapping.schedule(a_schedule(Timing(Once(NOW)), state=ScheduleState.PAUSED, pause=pause))
    assert message.state == schedule_pb2.Schedule.PAUSED
    assert (message.pause.principal, message.pause.note) == ("spiffe://whispr/admin", "migration")
    assert message.pause.time.ToDatetime(UTC) == NOW


@pytest.mark.parametrize(
    "timing",
    [
        Timing(Cron("not a cron expression")),
        Timing(Cron("0 9 * * *"), "Mars/Olympus"),
        Timing(Cron("0 9 * * *"), exclusions=(ExcludedDates(frozenset()),)),
        Timing(Union(())),
    ],
)
def test_a_stored_schedule_that_cannot_be_described_is_answered_all_the_same(timing: Any) -> None:
    assert schedule_mapping.schedule(a_schedule(timing)).time_zone == timing.time_zone


def test_what_was_given_nothing_to_say_takes_the_defaults() -> None:
    assert requested({"calendar": {"frequency": "DAILY"}}).when == Calendar(Frequency.DAILY, (time(0, 0),))
    assert requested({"deployment": {}}).when == OnDeployment(timedelta(0))
    assert requested({"after": "0s"}).when == AfterDelay(timedelta(0))
    assert requested({"interval": {"every": "60s"}}).when == Interval(timedelta(minutes=1))


def test_each_form_is_read_as_a_caller_writes_it() -> None:
    draft = requested(
        {
            "union": {
                "specs": [
                    {"cron": {"expression": "0 9 * * MON"}},
                    {"interval": {"every": "7200s", "phase": "60s", "anchorTime": "2030-01-01T00:00:00Z"}},
                    {
                        "calendar": {
                            "frequency": "MONTHLY",
                            "times": [{"hours": 9, "minutes": 30}, {"hours": 17, "seconds": 5}],
                            "every": 2,
                            "monthDays": [1, -1, 1],
                            "nthWeekdays": [{"dayOfWeek": "FRIDAY", "nth": -1}],
                            "fromDate": {"year": 2030, "month": 2, "day": 28},
                            "untilDate": {"year": 2032, "month": 2, "day": 29},
                            "count": 7,
                        }
                    },
                ]
            },
            "exclusions": [
                {"dates": {"dates": [{"year": 2030, "month": 12, "day": 25}]}},
                {"period": {"startTime": "2030-06-01T00:00:00Z", "endTime": "2030-07-01T00:00:00Z"}},
                {"window": {"start": {"hours": 22}, "end": {}, "daysOfWeek": ["FRIDAY", "SATURDAY"]}},
                {"cron": {"expression": "0 12 * * *"}},
                {"calendar": "calendars/holidays"},
            ],
        }
    )
    assert draft.when == Union(
        (
            Cron("0 9 * * MON"),
            Interval(timedelta(hours=2), timedelta(minutes=1), datetime(2030, 1, 1, tzinfo=UTC)),
            Calendar(
                Frequency.MONTHLY,
                (time(9, 30), time(17, 0, 5)),
                every=2,
                month_days=frozenset({1, -1}),
                nth_weekdays=frozenset({NthWeekday(Weekday.FRIDAY, -1)}),
                from_date=date(2030, 2, 28),
                until_date=date(2032, 2, 29),
                count=7,
            ),
        )
    )
    assert draft.exclusions == (
        ExcludedDates(frozenset({date(2030, 12, 25)})),
        ExcludedPeriod(datetime(2030, 6, 1, tzinfo=UTC), datetime(2030, 7, 1, tzinfo=UTC)),
        ExcludedWindow(time(22), time(0), frozenset({Weekday.FRIDAY, Weekday.SATURDAY})),
        ExcludedCron("0 12 * * *"),
        CalendarReference("holidays"),
    )


DAILY = {"frequency": "DAILY"}
CRON = {"cron": {"expression": "0 9 * * *"}}
FAR = 2**62


@pytest.mark.parametrize(
    ("schedule", "field", "reason"),
    [
        ({"timeZone": "UTC"}, "schedule.when", "REQUIRED"),
        ({"interval": {"phase": "1s"}}, "schedule.interval.every", "REQUIRED"),
        ({"calendar": {}}, "schedule.calendar.frequency", "REQUIRED"),
        ({"calendar": {"frequency": 9}}, "schedule.calendar.frequency", "UNDEFINED_ENUM_VALUE"),
        (
            {"calendar": {**DAILY, "times": [{}, {"hours": 1}, {"hours": 25}]}},
            "schedule.calendar.times[2].hours",
            "INVALID_TIME_OF_DAY",
        ),
        ({"calendar": {**DAILY, "times": [{"hours": 24}]}}, "schedule.calendar.times[0].hours", "INVALID_TIME_OF_DAY"),
        ({"calendar": {**DAILY, "times": [{"nanos": 1}]}}, "schedule.calendar.times[0].nanos", "INVALID_TIME_OF_DAY"),
        ({"calendar": {**DAILY, "daysOfWeek": [1, 0]}}, "schedule.calendar.days_of_week[1]", "REQUIRED"),
        ({"calendar": {**DAILY, "daysOfWeek": [8]}}, "schedule.calendar.days_of_week[0]", "UNDEFINED_ENUM_VALUE"),
        (
            {"calendar": {**DAILY, "nthWeekdays": [{"nth": 1}]}},
            "schedule.calendar.nth_weekdays[0].day_of_week",
            "REQUIRED",
        ),
        ({"calendar": {**DAILY, "fromDate": {"year": 2030}}}, "schedule.calendar.from_date.month", "INVALID_DATE"),
        (
            {"calendar": {**DAILY, "untilDate": {"year": 2030, "month": 2, "day": 30}}},
            "schedule.calendar.until_date.day",
            "INVALID_DATE",
        ),
        ({"union": {"specs": [CRON, {}]}}, "schedule.union.specs[1].spec", "REQUIRED"),
        ({"union": {"specs": [{"interval": {}}]}}, "schedule.union.specs[0].interval.every", "REQUIRED"),
        (
            {"union": {"specs": [CRON, {"calendar": {**DAILY, "times": [{"minutes": 60}]}}]}},
            "schedule.union.specs[1].calendar.times[0].minutes",
            "INVALID_TIME_OF_DAY",
        ),
        ({**CRON, "exclusions": [{}]}, "schedule.exclusions[0].what", "REQUIRED"),
        (
            {**CRON, "exclusions": [{"dates": {"dates": [{"year": 2030, "month": 4, "day": 31}]}}]},
            "schedule.exclusions[0].dates.dates[0].day",
            "INVALID_DATE",
        ),
        (
            {**CRON, "exclusions": [{"period": {"startTime": "2030-06-01T00:00:00Z"}}]},
            "schedule.exclusions[0].period.end_time",
            "REQUIRED",
        ),
        ({**CRON, "exclusions": [{"window": {"start": {}}}]}, "schedule.exclusions[0].window.end", "REQUIRED"),
        (
            {**CRON, "exclusions": [{"window": {"start": {}, "end": {"hours": 24}}}]},
            "schedule.exclusions[0].window.end.hours",
            "INVALID_TIME_OF_DAY",
        ),
        (
            {**CRON, "exclusions": [{"window": {"start": {}, "end": {}, "daysOfWeek": [0]}}]},
            "schedule.exclusions[0].window.days_of_week[0]",
            "REQUIRED",
        ),
        ({**CRON, "exclusions": [{"calendar": ""}]}, "schedule.exclusions[0].calendar", "INVALID_RESOURCE_NAME"),
        (
            {**CRON, "exclusions": [{"calendar": "holidays"}]},
            "schedule.exclusions[0].calendar",
            "INVALID_RESOURCE_NAME",
        ),
        (
            {**CRON, "exclusions": [{"calendar": "calendars/a/b"}]},
            "schedule.exclusions[0].calendar",
            "INVALID_RESOURCE_NAME",
        ),
    ],
)
def test_each_malformed_form_is_refused_with_its_path(schedule: Any, field: Any, reason: Any) -> None:
    assert (field, reason) in refused(schedule)
    assert all(found.startswith(field.rpartition(".")[0]) for found, _ in refused(schedule))


def test_spans_and_instants_that_no_json_could_hold_are_refused_with_their_paths() -> None:
    request = pb.ScheduleJobRequest(parent="nonsense")
    request.schedule.deployment.delay.seconds = FAR
    period = request.schedule.exclusions.add().period
    period.start_time.seconds = FAR
    period.end_time.nanos = -1
    request.schedule.catchup_window.seconds = FAR
    with pytest.raises(InvalidRequest) as caught:
        schedule_reading.schedule_draft(request)
    assert sorted((v.field, v.reason) for v in caught.value.violations) == [
        ("parent", "INVALID_RESOURCE_NAME"),
        ("schedule.catchup_window", "INVALID_DURATION"),
        ("schedule.deployment.delay", "INVALID_DURATION"),
        ("schedule.exclusions[0].period.end_time", "INVALID_TIMESTAMP"),
        ("schedule.exclusions[0].period.start_time", "INVALID_TIMESTAMP"),
    ]


def test_the_first_schedule_of_a_job_is_read_in_the_same_way() -> None:
    request = pb.CreateJobRequest()
    request.schedule.union.specs.add()
    request.schedule.exclusions.add().calendar = "x"
    with pytest.raises(InvalidRequest) as caught:
        reading.create_draft(request)
    assert [v.field for v in caught.value.violations] == [
        "schedule.union.specs[0].spec",
        "schedule.exclusions[0].calendar",
    ]
    request.schedule.Clear()
    request.schedule.time_zone = "UTC"
    with pytest.raises(InvalidRequest) as caught:
        reading.create_draft(request)
    (violation,) = caught.value.violations
    assert violation.field == "schedule.when"
    assert "at_time, after, cron, interval, calendar, union, deployment" in violation.description


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({}, "schedule.when"),
        ({"union": {}}, "schedule.union.specs"),
        ({"union": {"specs": [{}]}}, "schedule.union.specs[0].spec"),
        ({"union": {"specs": [{"cron": {}}]}}, "schedule.union.specs[0].cron.expression"),
        ({"calendar": {"every": -1, **DAILY}}, "schedule.calendar.every"),
        ({"calendar": {"times": [{}] * 49, **DAILY}}, "schedule.calendar.times"),
        ({"calendar": {"nthWeekdays": [{"dayOfWeek": 1, "nth": 6}], **DAILY}}, "schedule.calendar.nth_weekdays[0].nth"),
        ({"deployment": {"delay": "86401s"}}, "schedule.deployment.delay"),
        ({**CRON, "exclusions": [{"dates": {}}]}, "schedule.exclusions[0].dates.dates"),
        ({**CRON, "exclusions": [{"calendar": "calendars/a"}] * 51}, "schedule.exclusions"),
    ],
)
def test_the_field_rules_of_the_proto_reach_into_every_form(schedule: Any, field: Any) -> None:
    request = pb.ScheduleJobRequest(parent="jobs/a", schedule=ParseDict(schedule, schedule_pb2.Schedule()))
    assert [violation.field for violation in broken_rules(request)] == [field]
