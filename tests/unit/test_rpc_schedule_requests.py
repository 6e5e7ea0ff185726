"""Calls about schedules, calendars and backfills: what is read of them, what they pass on and what they answer."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from unittest.mock import create_autospec
from uuid import UUID

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from whispr.scheduling.v1 import calendar_pb2, execution_pb2, job_pb2, schedule_pb2
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.domain.backfill import Backfill, BackfillState
from scheduling.domain.calendar import SharedCalendar
from scheduling.domain.errors import InvalidRequest
from scheduling.domain.etag import etag
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.schedule import Schedule, ScheduleState
from scheduling.domain.timing import (
    Calendar,
    Cron,
    ExcludedCron,
    ExcludedDates,
    ExcludedPeriod,
    ExcludedWindow,
    Frequency,
    Interval,
    OnDeployment,
    Timing,
    Weekday,
)
from scheduling.operations import backfills, calendars, jobs, previews, schedules
from scheduling.operations.drafts import CalendarDraft, CalendarReference, Payload, ScheduleDraft
from scheduling.operations.ports import Page
from scheduling.operations.previews import Preview, PreviewFiring
from scheduling.rpc import mapping, schedule_mapping, schedule_reading
from scheduling.rpc.call import Call, serve_call
from scheduling.rpc.scheduling_servicer import SchedulingServicer
from scheduling.rpc.timing_reading import WAYS

UID = UUID("0190f0c0-0000-7000-8000-000000000001")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAME = "jobs/j-1/schedules/s-1"
BACKFILL_NAME = f"{NAME}/backfills/b-{UID}"
CRON = {"cron": {"expression": "0 9 * * *"}}

SCHEDULE = Schedule(
    uid=UID,
    schedule_id="s-1",
    job_uid=UID,
    job_id="j-1",
    display_name="Daily",
    timing=Timing(Cron("0 9 * * *")),
    request=None,
    request_type=None,
    state=ScheduleState.ACTIVE,
    revision=3,
    evaluated_until=NOW,
    next_fire_time=NOW,
    fired_count=5,
    missed_count=1,
    create_time=NOW,
    update_time=NOW,
)
BACKFILL = Backfill(
    uid=UID,
    job_id="j-1",
    schedule_id="s-1",
    schedule_uid=UID,
    start=NOW - timedelta(days=9),
    end=NOW - timedelta(days=2),
    state=BackfillState.RUNNING,
    total=168,
    made=24,
    progress=NOW - timedelta(days=8),
    rate=20,
    overlap_policy=OverlapPolicy.BUFFER_ALL,
    principal="spiffe://whispr/admin",
    create_time=NOW,
)


def a_calendar(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "uid": UID,
        "calendar_id": "holidays",
        "display_name": "Holidays",
        "exclusions": (ExcludedDates(frozenset({date(2030, 12, 25)})),),
        "time_zone": None,
        "revision": 4,
        "create_time": NOW,
        "update_time": NOW,
        "schedule_count": 12,
    }
    return SharedCalendar(**(values | changes))


def update_request(schedule: Any, *paths: str) -> Any:
    message = ParseDict({"name": NAME, **schedule}, schedule_pb2.Schedule())
    request = pb.UpdateScheduleRequest(schedule=message)
    request.update_mask.paths.extend(paths)
    return request


def calendar_update(calendar: Any, *paths: str) -> Any:
    message = ParseDict({"name": "calendars/holidays", **calendar}, calendar_pb2.Calendar())
    request = pb.UpdateCalendarRequest(calendar=message)
    request.update_mask.paths.extend(paths)
    return request


def refused(read: Any, request: Any) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        read(request)
    return [(v.field, v.reason) for v in caught.value.violations]


# UpdateSchedule


def test_a_mask_may_name_what_can_be_changed_and_every_way_to_say_when_means_when() -> None:
    paths = [path for path in schedule_reading.SCHEDULE_PATHS if path not in WAYS]
    update = schedule_reading.update_schedule(update_request(CRON, *schedule_reading.SCHEDULE_PATHS))
    assert (update.job_id, update.schedule_id, update.mask) == ("j-1", "s-1", frozenset(paths))


@pytest.mark.parametrize(
    ("schedule", "path", "when"),
    [
        (CRON, "when", Cron("0 9 * * *")),
        (CRON, "cron", Cron("0 9 * * *")),
        (CRON, "cron.expression", Cron("0 9 * * *")),
        ({"interval": {"every": "60s"}}, "interval.every", Interval(timedelta(minutes=1))),
        ({"calendar": {"frequency": "DAILY"}}, "calendar.times", Calendar(Frequency.DAILY, (time(0, 0),))),
        ({"deployment": {"delay": "5s"}}, "deployment.delay", OnDeployment(timedelta(seconds=5))),
    ],
)
def test_the_way_to_say_when_and_what_is_inside_it_may_be_named(schedule: Any, path: Any, when: Any) -> None:
    update = schedule_reading.update_schedule(update_request(schedule, path))
    assert (update.mask, update.draft.when) == (frozenset({"when"}), when)


def test_every_way_to_say_when_may_be_named() -> None:
    descriptor = schedule_pb2.Schedule.DESCRIPTOR
    assert set(WAYS) == {"at_time", "after", "cron", "interval", "calendar", "union", "deployment"}
    assert set(WAYS) <= set(schedule_reading.SCHEDULE_PATHS) <= {*descriptor.fields_by_name, "when"}


def test_without_a_mask_the_fields_that_are_set_are_changed_and_no_others() -> None:
    request = update_request(
        {"jitter": "0s", "state": "PAUSED", "etag": "x", "exclusions": [{"calendar": "calendars/a"}]}
    )
    update = schedule_reading.update_schedule(request)
    assert update.mask == {"jitter", "exclusions"}
    assert (update.draft.when, update.draft.exclusions) == (None, (CalendarReference("a"),))
    assert schedule_reading.update_schedule(update_request(CRON)).mask == {"when"}
    assert schedule_reading.update_schedule(update_request({})).mask == frozenset()


def test_what_the_mask_does_not_name_is_neither_changed_nor_judged() -> None:
    schedule = {**CRON, "jitter": "999999s", "timeZone": "Europe/Paris", "exclusions": [{}]}
    update = schedule_reading.update_schedule(update_request(schedule, "time_zone"))
    assert (set(update.mask), update.draft) == ({"time_zone"}, ScheduleDraft(None, time_zone="Europe/Paris"))


def test_what_the_mask_names_and_the_schedule_leaves_out_is_emptied() -> None:
    update = schedule_reading.update_schedule(update_request({}, "exclusions", "jitter", "request", "end_time"))
    assert update.draft == ScheduleDraft(None)
    assert update.mask == {"exclusions", "jitter", "request", "end_time"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        *((name, "OUTPUT_ONLY_FIELD") for name in ("name", "uid", "state", "pause", "skipped_counts", "etag")),
        *((name, "OUTPUT_ONLY_FIELD") for name in ("next_fire_time", "remaining_count", "description")),
        *((name, "UNKNOWN_FIELD") for name in ("", "nonsense", "timeZone", "cron.nonsense", "cron.expression.x")),
        *((name, "UNKNOWN_FIELD") for name in ("after.seconds", "jitter.seconds", "exclusions.dates", "*")),
    ],
)
def test_a_mask_may_not_name_anything_else_and_the_answer_says_what_it_may(path: Any, reason: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schedule_reading.update_schedule(update_request({}, "jitter", path))
    (violation,) = caught.value.violations
    assert (violation.field, violation.reason) == ("update_mask.paths[1]", reason)
    assert "the mask may name display_name, when, at_time, after, cron" in violation.description


@pytest.mark.parametrize(
    ("schedule", "paths", "found"),
    [
        ({}, ["when"], ("schedule.when", "REQUIRED")),
        ({}, ["cron"], ("schedule.when", "REQUIRED")),
        (CRON, ["interval"], ("update_mask", "OTHER_FIELD_GIVEN")),
        ({"cron": {}}, [], ("schedule.cron.expression", "STRING_MIN_LEN")),
        ({"jitter": "999999s"}, [], ("schedule.jitter", "DURATION_GTE_LTE")),
        ({"maxFirings": -1}, ["max_firings"], ("schedule.max_firings", "INT32_GTE")),
        ({"displayName": "x" * 201}, [], ("schedule.display_name", "STRING_MAX_LEN")),
        ({"union": {"specs": [{}]}}, [], ("schedule.union.specs[0].spec", "REQUIRED")),
        ({"exclusions": [{}]}, [], ("schedule.exclusions[0].what", "REQUIRED")),
        ({"exclusions": [{"calendar": "a"}]}, [], ("schedule.exclusions[0].calendar", "INVALID_RESOURCE_NAME")),
        (
            {"calendar": {"frequency": 1, "times": [{"hours": 25}]}},
            [],
            ("schedule.calendar.times[0].hours", "INVALID_TIME_OF_DAY"),
        ),
    ],
)
def test_an_update_is_refused_with_the_path_the_caller_wrote(schedule: Any, paths: Any, found: Any) -> None:
    assert refused(schedule_reading.update_schedule, update_request(schedule, *paths)) == [found]


def test_an_update_tells_of_the_name_of_the_mask_and_of_the_rest_at_once() -> None:
    request = update_request({"jitter": "-1s"}, "state", "jitter")
    request.schedule.name = "jobs/a"
    assert refused(schedule_reading.update_schedule, request) == [
        ("schedule.name", "INVALID_RESOURCE_NAME"),
        ("update_mask.paths[0]", "OUTPUT_ONLY_FIELD"),
        ("schedule.jitter", "DURATION_GTE_LTE"),
    ]


@given(st.lists(st.text() | st.sampled_from([*schedule_reading.SCHEDULE_PATHS, "cron.expression"]), max_size=4))
def test_no_mask_breaks_the_reader(paths: Any) -> None:
    try:
        request = update_request(CRON, *paths)
    except UnicodeEncodeError:
        return
    try:
        update = schedule_reading.update_schedule(request)
    except InvalidRequest:
        return
    assert update.mask <= frozenset(schedule_reading.SCHEDULE_PATHS) - frozenset(WAYS)


# PreviewSchedule


def test_a_preview_is_of_a_schedule_that_is_given_or_of_a_stored_one() -> None:
    given_one = pb.PreviewScheduleRequest(schedule=ParseDict(CRON, schedule_pb2.Schedule()), end_time=NOW, page_size=7)
    query = schedule_reading.preview(given_one)
    assert query.draft is not None
    assert query[1:] == (None, None, None, NOW, 7)
    stored = schedule_reading.preview(pb.PreviewScheduleRequest(name=NAME, start_time=NOW))
    assert stored == (None, "j-1", "s-1", NOW, None, 0)


def test_a_preview_of_nothing_or_with_malformed_parts_is_refused() -> None:
    assert refused(schedule_reading.preview, pb.PreviewScheduleRequest()) == [("what", "REQUIRED")]
    request = pb.PreviewScheduleRequest(name="jobs/a")
    request.start_time.nanos = -1
    request.end_time.seconds = 2**60
    assert refused(schedule_reading.preview, request) == [
        ("name", "INVALID_RESOURCE_NAME"),
        ("start_time", "INVALID_TIMESTAMP"),
        ("end_time", "INVALID_TIMESTAMP"),
    ]
    schedule = ParseDict({"calendar": {}, "exclusions": [{}]}, schedule_pb2.Schedule())
    assert refused(schedule_reading.preview, pb.PreviewScheduleRequest(schedule=schedule)) == [
        ("schedule.calendar.frequency", "REQUIRED"),
        ("schedule.exclusions[0].what", "REQUIRED"),
    ]


def test_a_preview_tells_local_times_with_their_offset() -> None:
    summer = timezone(timedelta(hours=2))
    nominal = datetime(2030, 7, 1, 7, tzinfo=UTC)
    firings = [
        PreviewFiring(nominal, nominal + timedelta(seconds=3), nominal.astimezone(summer), "", shifted=False),
        PreviewFiring(nominal, nominal, nominal.astimezone(UTC), "calendars/holidays", shifted=True),
    ]
    message = schedule_mapping.preview(Preview(firings, "at 09:00", "2026b"))
    first, second = message.firings
    assert (first.local_time, first.excluded_by, first.shifted) == ("2030-07-01T09:00:00+02:00", "", False)
    assert first.ready_time.ToDatetime(UTC) - first.nominal_time.ToDatetime(UTC) == timedelta(seconds=3)
    assert (second.local_time, second.excluded_by) == ("2030-07-01T07:00:00+00:00", "calendars/holidays")
    assert (second.shifted, message.description, message.time_zone_version) == (True, "at 09:00", "2026b")


# Backfills


def test_a_backfill_is_read_with_its_range_policy_and_rate() -> None:
    start, end = NOW - timedelta(days=2), NOW - timedelta(days=1)
    request = pb.BackfillScheduleRequest(name=NAME, start_time=start, end_time=end)
    assert schedule_reading.backfill(request) == ("j-1", "s-1", start, end, None, 0)
    request.overlap_policy, request.rate = job_pb2.ALLOW_ALL, 50
    assert schedule_reading.backfill(request)[4:] == (OverlapPolicy.ALLOW_ALL, 50)


def test_a_malformed_backfill_is_refused_with_every_violation() -> None:
    request = pb.BackfillScheduleRequest(name="jobs/a")
    request.end_time.seconds = 2**60
    request.overlap_policy = 99  # type: ignore[assignment]  # a number that the enum does not have
    assert refused(schedule_reading.backfill, request) == [
        ("name", "INVALID_RESOURCE_NAME"),
        ("start_time", "REQUIRED"),
        ("end_time", "INVALID_TIMESTAMP"),
        ("overlap_policy", "UNDEFINED_ENUM_VALUE"),
    ]


@pytest.mark.parametrize("state", BackfillState)
def test_a_backfill_is_answered_with_its_progress(state: Any) -> None:
    message = schedule_mapping.backfill(
        Backfill(**{name: getattr(BACKFILL, name) for name in BACKFILL.__slots__} | {"state": state})
    )
    assert (message.name, message.total_count, message.made_count, message.rate) == (BACKFILL_NAME, 168, 24, 20)
    assert message.state == pb.Backfill.State.Value(state.name)
    assert (message.overlap_policy, message.principal) == (job_pb2.BUFFER_ALL, "spiffe://whispr/admin")
    times = (message.start_time, message.end_time, message.progress_time, message.create_time)
    assert [item.ToDatetime(UTC) for item in times] == [BACKFILL.start, BACKFILL.end, BACKFILL.progress, NOW]


# Calendars

CLOCKS = st.times().map(lambda clock: clock.replace(microsecond=0))
INSTANTS = st.datetimes(timezones=st.just(UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
PLAIN = (
    st.builds(ExcludedDates, st.frozensets(st.dates(), max_size=4))
    | st.builds(ExcludedPeriod, INSTANTS, INSTANTS)
    | st.builds(ExcludedWindow, CLOCKS, CLOCKS, st.frozensets(st.sampled_from(Weekday)))
    | st.builds(ExcludedCron, TEXT)
)


@given(st.lists(PLAIN, max_size=4).map(tuple), TEXT, st.none() | st.sampled_from(["UTC", "Asia/Tokyo"]))
def test_a_calendar_that_is_answered_can_be_asked_for_again(exclusions: Any, name: Any, zone: Any) -> None:
    calendar = a_calendar(exclusions=exclusions, display_name=name, time_zone=zone)
    draft = schedule_reading.calendar_draft(pb.CreateCalendarRequest(calendar=schedule_mapping.calendar(calendar)))
    assert (draft.exclusions, draft.display_name, draft.time_zone or None) == (exclusions, name, zone)


def test_a_calendar_is_answered_with_its_name_etag_and_use() -> None:
    message = schedule_mapping.calendar(a_calendar())
    assert (message.name, message.uid, message.etag) == ("calendars/holidays", str(UID), etag(UID, 4))
    assert (message.schedule_count, message.time_zone, len(message.exclusions)) == (12, "", 1)
    assert message.create_time.ToDatetime(UTC) == message.update_time.ToDatetime(UTC) == NOW


@pytest.mark.parametrize(
    ("exclusion", "found"),
    [
        ({"calendar": "calendars/other"}, ("calendar.exclusions[1].calendar", "NESTED_CALENDAR")),
        ({"calendar": ""}, ("calendar.exclusions[1].calendar", "NESTED_CALENDAR")),
        ({}, ("calendar.exclusions[1].what", "REQUIRED")),
        ({"dates": {"dates": [{"year": 2030}]}}, ("calendar.exclusions[1].dates.dates[0].month", "INVALID_DATE")),
        ({"window": {"end": {}}}, ("calendar.exclusions[1].window.start", "REQUIRED")),
    ],
)
def test_a_calendar_names_no_other_and_its_malformed_parts_are_told(exclusion: Any, found: Any) -> None:
    calendar = ParseDict({"exclusions": [CRON, exclusion]}, calendar_pb2.Calendar())
    assert found in refused(schedule_reading.calendar_draft, pb.CreateCalendarRequest(calendar=calendar))


def test_an_update_of_a_calendar_changes_what_the_mask_names_or_what_is_set() -> None:
    masked = calendar_update({"displayName": "x", "timeZone": "Asia/Tokyo"}, "time_zone")
    calendar_id, draft, mask = schedule_reading.update_calendar(masked)
    assert (calendar_id, set(mask)) == ("holidays", {"time_zone"})
    assert (draft.display_name, draft.time_zone, draft.exclusions) == ("", "Asia/Tokyo", ())
    unmasked = schedule_reading.update_calendar(calendar_update({"exclusions": [CRON], "uid": "u", "scheduleCount": 5}))
    assert unmasked[1:] == (CalendarDraft("", (ExcludedCron("0 9 * * *"),)), frozenset({"exclusions"}))


@pytest.mark.parametrize(
    ("calendar", "paths", "found"),
    [
        ({}, ["exclusions"], ("calendar.exclusions", "REPEATED_MIN_ITEMS")),
        ({}, ["schedule_count"], ("update_mask.paths[0]", "OUTPUT_ONLY_FIELD")),
        ({}, ["nonsense"], ("update_mask.paths[0]", "UNKNOWN_FIELD")),
        ({"name": "holidays"}, ["time_zone"], ("calendar.name", "INVALID_RESOURCE_NAME")),
        ({"timeZone": "x" * 65}, [], ("calendar.time_zone", "STRING_MAX_LEN")),
        ({"exclusions": [{"calendar": "calendars/a"}]}, [], ("calendar.exclusions[0].calendar", "NESTED_CALENDAR")),
    ],
)
def test_an_update_of_a_calendar_is_refused_with_its_path(calendar: Any, paths: Any, found: Any) -> None:
    assert refused(schedule_reading.update_calendar, calendar_update(calendar, *paths)) == [found]


# The servicer


class Passed:
    """What a servicer method passed on to the operation that stands in for `function` of `module`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, function: str, answer: Any) -> None:
        self._operation = create_autospec(getattr(module, function), return_value=answer)
        monkeypatch.setattr(module, function, self._operation)

    @property
    def arguments(self) -> Any:
        positional, named = self._operation.await_args
        return [*positional[1:], *named.items()]


DRY = ("validate_only", True)
PRINCIPAL = "spiffe://whispr/messaging"
PREVIEW: Any = Preview((), "at 09:00", "2026b")
CALENDARS: Any = Page((a_calendar(),), "next")
CALLS: Sequence[Any] = [
    (
        schedules,
        "update_schedule",
        SCHEDULE,
        pb.UpdateScheduleRequest(schedule={"name": NAME, "display_name": "x", "etag": "e"}, validate_only=True),
        ["j-1", "s-1", ScheduleDraft(None, "x"), frozenset({"display_name"}), "e", DRY],
    ),
    (
        schedules,
        "pause_schedule",
        SCHEDULE,
        pb.PauseScheduleRequest(name=NAME, note="why", etag="e"),
        [PRINCIPAL, "j-1", "s-1", "why", "e"],
    ),
    (
        schedules,
        "resume_schedule",
        SCHEDULE,
        pb.ResumeScheduleRequest(name=NAME, etag="e"),
        ["j-1", "s-1", "e"],
    ),
    (
        previews,
        "preview_schedule",
        PREVIEW,
        pb.PreviewScheduleRequest(name=NAME, start_time=NOW, page_size=3),
        [None, "j-1", "s-1", NOW, None, 3],
    ),
    (
        backfills,
        "get_backfill",
        BACKFILL,
        pb.GetBackfillRequest(name=BACKFILL_NAME),
        ["j-1", "s-1", f"b-{UID}"],
    ),
    (
        backfills,
        "cancel_backfill",
        BACKFILL,
        pb.CancelBackfillRequest(name=BACKFILL_NAME),
        ["j-1", "s-1", f"b-{UID}"],
    ),
    (
        calendars,
        "create_calendar",
        a_calendar(),
        pb.CreateCalendarRequest(calendar={"time_zone": "UTC"}, calendar_id="holidays", validate_only=True),
        ["holidays", CalendarDraft(time_zone="UTC"), DRY],
    ),
    (calendars, "get_calendar", a_calendar(), pb.GetCalendarRequest(name="calendars/holidays"), ["holidays"]),
    (calendars, "list_calendars", CALENDARS, pb.ListCalendarsRequest(page_size=5, page_token="t"), [5, "t"]),
    (
        calendars,
        "update_calendar",
        a_calendar(),
        pb.UpdateCalendarRequest(calendar={"name": "calendars/a", "time_zone": "UTC", "etag": "e"}, validate_only=True),
        ["a", CalendarDraft(time_zone="UTC"), frozenset({"time_zone"}), "e", DRY],
    ),
    (
        calendars,
        "delete_calendar",
        None,
        pb.DeleteCalendarRequest(name="calendars/a", etag="e", force=True),
        ["a", "e", ("force", True)],
    ),
]


def served(method: str, request: Any) -> Any:
    """The answer of the servicer's method to PRINCIPAL."""

    async def serve() -> Any:
        serve_call(Call(method, "r", principal=PRINCIPAL))
        ports: Any = object()
        return await getattr(SchedulingServicer(ports), method)(request, None)

    return asyncio.run(serve())


def method_of(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))


@pytest.mark.parametrize(("module", "operation", "answer", "request_", "expected"), CALLS)
def test_a_method_calls_its_operation_with_what_it_read(
    monkeypatch: Any, module: Any, operation: Any, answer: Any, request_: Any, expected: Any
) -> None:
    passed = Passed(monkeypatch, module, operation, answer)
    message = served(method_of(operation), request_)
    assert passed.arguments == expected
    expected_name = {"preview_schedule": "PreviewScheduleResponse", "list_calendars": "ListCalendarsResponse"}
    kind = expected_name.get(operation, "Empty" if answer is None else method_of(operation.partition("_")[2]))
    assert message.DESCRIPTOR.name == kind


def test_a_backfill_that_is_only_checked_counts_its_firings(monkeypatch: Any) -> None:
    passed = Passed(monkeypatch, backfills, "backfill_schedule", BACKFILL)
    request = pb.BackfillScheduleRequest(
        name=NAME, start_time=BACKFILL.start, end_time=BACKFILL.end, rate=7, request_id="once", validate_only=True
    )
    message = served("BackfillSchedule", request)
    *query, repeat, dry = passed.arguments
    assert query == [PRINCIPAL, "j-1", "s-1", BACKFILL.start, BACKFILL.end, None, 7]
    assert (repeat.request_id, len(repeat.digest), dry, message.total_count) == ("once", 32, DRY, 168)


def test_a_run_passes_on_its_overlap_policy(monkeypatch: Any) -> None:
    passed = Passed(monkeypatch, jobs, "run_job", None)
    monkeypatch.setattr(mapping, "execution", lambda _value: execution_pb2.Execution())
    request = pb.RunJobRequest(name="jobs/a", overlap_policy=job_pb2.ALLOW_ALL, request_id="once")
    request.request.type_url = "x/a.B"
    served("RunJob", request)
    principal, job_id, payload, overlap, repeat, dry = passed.arguments
    assert (principal, job_id, payload) == (PRINCIPAL, "a", Payload("a.B", b""))
    assert (overlap, repeat.request_id, dry) == (OverlapPolicy.ALLOW_ALL, "once", ("validate_only", False))
