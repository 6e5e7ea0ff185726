"""Malformed schedules and calendars through the public API of a running server: every part named, nothing stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from whispr.scheduling.v1.calendar_pb2 import Calendar
from whispr.scheduling.v1.schedule_pb2 import Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BackfillScheduleRequest,
    CreateCalendarRequest,
    CreateJobRequest,
    DeleteCalendarRequest,
    GetBackfillRequest,
    PauseScheduleRequest,
    PreviewScheduleRequest,
    ResumeScheduleRequest,
    ScheduleJobRequest,
    UpdateCalendarRequest,
    UpdateScheduleRequest,
)

from tests.support.servers import Databases
from tests.support.service import (
    Api,
    Refusal,
    Service,
    create_request,
    eventually,
    refused,
    send_job,
    service,
    utc_now,
)

JOB, SCHEDULE = "jobs/good", "jobs/good/schedules/main"


@pytest.fixture(scope="module")
def made(database_server: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without workers: what is refused needs none."""
    folder = tmp_path_factory.mktemp("bad-time")
    with service(folder, database_server.migrated(), None, "bad-time") as running:
        running.start_server()
        api = running.connect()
        eventually(api.is_serving, bool)
        api.create(create_request(job_id="good"))
        daily = ParseDict({"cron": {"expression": "0 9 * * *"}}, Schedule())
        api.scheduling.ScheduleJob(ScheduleJobRequest(parent=JOB, schedule=daily, schedule_id="main"))
        holidays = ParseDict({"exclusions": [{"cron": {"expression": "* * 25 12 *"}}]}, Calendar())
        api.scheduling.CreateCalendar(CreateCalendarRequest(calendar_id="holidays", calendar=holidays))
        yield running


@pytest.fixture
def api(made: Service) -> Api:
    return made.api


def stored(made: Service) -> dict[str, Any]:
    """All that calls write to, with the schedule and the calendar as they stand."""
    counts = {table: made.query(f"SELECT count(*) FROM {table}")[0][0] for table in
              ("jobs", "schedules", "executions", "calendars", "backfills", "schedule_gaps")}  # fmt: skip
    revisions = made.query("SELECT sum(revision) FROM (SELECT revision FROM schedules UNION ALL SELECT revision FROM "
                           "calendars) AS r")  # fmt: skip
    return counts | {"revisions": revisions}


@dataclass(frozen=True)
class Bad:
    """A schedule in JSON, the field below the schedule that is named, and what is said of it."""

    schedule: dict[str, Any]
    field: str
    said: str
    reason: str = ""


def cron(expression: str) -> dict[str, Any]:
    return {"cron": {"expression": expression}}


def calendar(**spec: Any) -> dict[str, Any]:
    return {"calendar": {"frequency": "DAILY", **spec}}


def excluding(*exclusions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**cron("0 9 * * *"), "exclusions": list(exclusions), **more}


CASES = {
    "hour out of range": Bad(cron("0 25 * * *"), "cron.expression", "hour: 25 is not in 0–23 (at character 3)"),
    "minute out of range": Bad(cron("60 * * * *"), "cron.expression", "minute: 60 is not in 0–59 (at character 1)"),
    "misspelt month": Bad(cron("0 0 1 JANU *"), "cron.expression", "did you mean JAN? (at character 7)"),
    "misspelt weekday": Bad(cron("0 0 * * MUN"), "cron.expression", "did you mean"),
    "misspelt name": Bad(cron("@dayly"), "cron.expression", "did you mean @daily? (at character 1)"),
    "too few fields": Bad(cron("0 9 * *"), "cron.expression", "has 4 fields, expected 5"),
    "step too wide": Bad(cron("*/90 * * * *"), "cron.expression", "a step of 90 is not in 1–59 (at character 3)"),
    "nothing after a comma": Bad(cron("0, 9 * * *"), "cron.expression", "a value is missing, expected 0–59"),
    "a sixth Friday": Bad(cron("0 0 * * FRI#6"), "cron.expression", "'6' is not in 1–5, which weekday of the month"),
    "no text": Bad(cron(""), "cron.expression", "", "STRING_MIN_LEN"),
    "a day that never comes": Bad(cron("0 0 31 2 *"), "cron.expression", "month 2 never has a day 31", "NEVER_FIRES"),
    "misspelt zone": Bad({**cron("@daily"), "timeZone": "Europe/Pariss"}, "time_zone",
                         "did you mean Europe/Paris?", "UNKNOWN_TIME_ZONE"),
    "a city alone": Bad({**cron("@daily"), "timeZone": "new york"}, "time_zone", "did you mean America/New_York?"),
    "no such zone": Bad({**cron("@daily"), "timeZone": "Mars/Olympus"}, "time_zone", "is not a known time zone"),
    "a path for a zone": Bad({**cron("@daily"), "timeZone": "../etc/passwd"}, "time_zone", "is not a known time zone"),
    "half a second": Bad({"interval": {"every": "0.5s"}}, "interval.every", ""),
    "phase beyond the interval": Bad({"interval": {"every": "60s", "phase": "60s"}}, "interval.phase",
                                     "60 s is not less than every, 60 s"),
    "no distance": Bad({"interval": {}}, "interval.every", ""),
    "negative delay": Bad({"after": "-1s"}, "after", ""),
    "in the past": Bad({"atTime": "2020-01-01T00:00:00Z"}, "at_time", "in the past", "IN_THE_PAST"),
    "beyond ten years": Bad({"atTime": "2199-01-01T00:00:00Z"}, "at_time", "more than", "TOO_FAR"),
    "bounds the wrong way": Bad({**cron("@daily"), "startTime": "2030-01-02T00:00:00Z",
                                 "endTime": "2030-01-01T00:00:00Z"}, "end_time", "expected an instant after"),
    "never within its bounds": Bad({**cron("0 0 1 1 *"), "startTime": "2030-02-01T00:00:00Z",
                                    "endTime": "2030-03-01T00:00:00Z"}, "cron.expression", "it never fires from",
                                   "NEVER_FIRES"),
    "bounds of a one-off": Bad({"after": "60s", "endTime": "2030-01-01T00:00:00Z"}, "end_time",
                               "is for recurring schedules"),
    "jitter over a day": Bad({**cron("@daily"), "jitter": "86401s"}, "jitter", ""),
    "window over 30 days": Bad({**cron("@daily"), "catchupWindow": "2592001s"}, "catchup_window", ""),
    "a negative limit": Bad({**cron("@daily"), "maxFirings": -1}, "max_firings", ""),
    "an unknown policy": Bad({**cron("@daily"), "catchupPolicy": 9}, "catchup_policy", ""),
    "no way to say when": Bad({"timeZone": "UTC"}, "when", ""),
    "no weekday": Bad({"calendar": {"frequency": "WEEKLY"}}, "calendar.days_of_week", "WEEKLY needs"),
    "weekdays of a day": Bad(calendar(daysOfWeek=["MONDAY"]), "calendar.days_of_week", "has no meaning for DAILY"),
    "day 32": Bad({"calendar": {"frequency": "MONTHLY", "monthDays": [32]}}, "calendar.month_days",
                  "32 is not in 1–31 or -31–-1"),
    "month 13": Bad({"calendar": {"frequency": "YEARLY", "months": [13], "monthDays": [1]}}, "calendar.months",
                    "13 is not in 1–12"),
    "every other day from when": Bad(calendar(every=2), "calendar.from_date", "expected a date to count every 2 from"),
    "a count from when": Bad(calendar(count=3), "calendar.from_date", "expected a date to count from"),
    "dates the wrong way": Bad(calendar(fromDate={"year": 2030, "month": 2, "day": 1},
                                        untilDate={"year": 2030, "month": 1, "day": 1}), "calendar.until_date",
                               "2030-01-01 is before from_date, 2030-02-01"),
    "30 February": Bad(calendar(fromDate={"year": 2030, "month": 2, "day": 30}), "calendar.from_date.day",
                       "30 is not in 1–28, the days of 2030-02"),
    "25 o'clock": Bad(calendar(times=[{"hours": 25}]), "calendar.times[0].hours", "25 is not in 0–23"),
    "half a second past": Bad(calendar(times=[{"hours": 9, "nanos": 500000000}]), "calendar.times[0].nanos",
                              "in whole seconds"),
    "no frequency": Bad({"calendar": {}}, "calendar.frequency", ""),
    "a union of nothing": Bad({"union": {}}, "union.specs", ""),
    "a broken part of a union": Bad({"union": {"specs": [cron("@daily"), cron("0 25 * * *")]}},
                                    "union.specs[1].cron.expression", "hour: 25 is not in 0–23 (at character 3)"),
    "a part that never fires": Bad({"union": {"specs": [cron("@daily"), cron("0 0 31 2 *")]}},
                                   "union.specs[1].cron.expression", "month 2 never has a day 31", "NEVER_FIRES"),
    "too often together": Bad({"union": {"specs": [cron("* * * * * *"), {"interval": {"every": "30s"}}]}},
                              "union.specs", "up to 62 firings a minute, at most 60 are accepted", "TOO_FREQUENT"),
    "a deployment too late": Bad({"deployment": {"delay": "86401s"}}, "deployment.delay", ""),
    "an empty exclusion": Bad(excluding({}), "exclusions[0].what", ""),
    "no such calendar": Bad(excluding({"calendar": "calendars/hollidays"}), "exclusions[0].calendar",
                            "there is no calendar 'hollidays'", "UNKNOWN_CALENDAR"),
    "a calendar's name": Bad(excluding({"calendar": "holidays"}), "exclusions[0].calendar", ""),
    "a broken exclusion": Bad(excluding({"cron": {"expression": "* 24 * * *"}}), "exclusions[0].cron.expression",
                              "hour: 24 is not in 0–23 (at character 3)"),
    "an exclusion of no date": Bad(excluding({"dates": {}}), "exclusions[0].dates.dates", ""),
    "a period the wrong way": Bad(excluding({"period": {"startTime": "2030-01-02T00:00:00Z",
                                                        "endTime": "2030-01-01T00:00:00Z"}}),
                                  "exclusions[0].period.end_time", "expected a time after start"),
    "all is excluded": Bad(excluding({"window": {"start": {"hours": 8}, "end": {"hours": 10}}}), "exclusions",
                           "they leave no firing", "NEVER_FIRES"),
}  # fmt: skip


def problems(refusal: Refusal) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for each in refusal.details["BadRequest"].field_violations:
        found.setdefault(each.field, []).append((each.description, each.reason))
    return found


def assert_named(refusal: Refusal, bad: Bad, path: str) -> None:
    """The field, what is said of it, and the reason."""
    assert refusal.code == "INVALID_ARGUMENT"
    found = problems(refusal)
    field = f"{path}{bad.field}"
    assert field in found, found
    said = found[field]
    assert any(bad.said in text for text, _ in said), said
    assert not bad.reason or bad.reason in {reason for _, reason in said}, said


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_each_malformed_field_of_a_schedule_is_named_and_nothing_is_stored(made: Service, api: Api, bad: Bad) -> None:
    before = stored(made)
    schedule = ParseDict(bad.schedule, Schedule())
    create = CreateJobRequest(job=send_job(), job_id="bad", schedule=schedule)
    assert_named(refused(api.scheduling.CreateJob, create), bad, "schedule.")
    add = ScheduleJobRequest(parent=JOB, schedule=schedule)
    assert_named(refused(api.scheduling.ScheduleJob, add), bad, "schedule.")
    preview = PreviewScheduleRequest(schedule=schedule)
    assert_named(refused(api.scheduling.PreviewSchedule, preview), bad, "schedule.")
    if bad.field != "when":
        change = Schedule()
        change.CopyFrom(schedule)
        change.name = SCHEDULE
        update = UpdateScheduleRequest(schedule=change, update_mask=FieldMask(paths=paths_of(bad)))
        assert_named(refused(api.scheduling.UpdateSchedule, update), bad, "schedule.")
    assert stored(made) == before


def paths_of(bad: Bad) -> list[str]:
    """What an update mask names to change all that the case gives."""
    snake = {"timeZone": "time_zone", "startTime": "start_time", "endTime": "end_time", "atTime": "at_time",
             "catchupWindow": "catchup_window", "catchupPolicy": "catchup_policy",
             "maxFirings": "max_firings"}  # fmt: skip
    return [snake.get(name, name) for name in bad.schedule]


def test_everything_that_is_wrong_is_told_at_once(api: Api) -> None:
    schedule = ParseDict(
        {"cron": {"expression": "60 25 * * MUN"}, "timeZone": "Europe/Pariss", "startTime": "2030-01-02T00:00:00Z",
         "endTime": "2030-01-01T00:00:00Z", "exclusions": [{"calendar": "calendars/nowhere"}]},
        Schedule(),
    )  # fmt: skip
    found = problems(refused(api.scheduling.ScheduleJob, ScheduleJobRequest(parent=JOB, schedule=schedule)))
    assert len(found["schedule.cron.expression"]) == 3
    assert set(found) == {
        "schedule.cron.expression", "schedule.time_zone", "schedule.end_time", "schedule.exclusions[0].calendar",
    }  # fmt: skip


CALENDARS = {
    "nothing": Bad({}, "exclusions", ""),
    "a broken cron": Bad({"exclusions": [{"cron": {"expression": "* 24 * * *"}}]}, "exclusions[0].cron.expression",
                         "hour: 24 is not in 0–23 (at character 3)"),
    "another calendar": Bad({"exclusions": [{"calendar": "calendars/holidays"}]}, "exclusions[0].calendar",
                            "a calendar cannot name another one", "NESTED_CALENDAR"),
    "misspelt zone": Bad({"exclusions": [{"cron": {"expression": "* * * * *"}}], "timeZone": "Europe/Berlinn"},
                         "time_zone", "did you mean Europe/Berlin?", "UNKNOWN_TIME_ZONE"),
    "a period the wrong way": Bad({"exclusions": [{"period": {"startTime": "2030-01-02T00:00:00Z",
                                                              "endTime": "2030-01-01T00:00:00Z"}}]},
                                  "exclusions[0].period.end_time", "expected a time after start"),
    "a second broken one": Bad({"exclusions": [{"cron": {"expression": "* * * * *"}}, {}]}, "exclusions[1].what", ""),
    "31 June": Bad({"exclusions": [{"dates": {"dates": [{"year": 2030, "month": 6, "day": 31}]}}]},
                   "exclusions[0].dates.dates[0].day", "31 is not in 1–30, the days of 2030-06"),
}  # fmt: skip


@pytest.mark.parametrize("bad", CALENDARS.values(), ids=CALENDARS)
def test_each_malformed_field_of_a_calendar_is_named_and_nothing_is_stored(made: Service, api: Api, bad: Bad) -> None:
    before = stored(made)
    given = ParseDict(bad.schedule, Calendar())
    create = CreateCalendarRequest(calendar_id="bad", calendar=given)
    assert_named(refused(api.scheduling.CreateCalendar, create), bad, "calendar.")
    given.name = "calendars/holidays"
    update = UpdateCalendarRequest(calendar=given, update_mask=FieldMask(paths=["exclusions", "time_zone"]))
    assert_named(refused(api.scheduling.UpdateCalendar, update), bad, "calendar.")
    assert stored(made) == before


def in_the_past(**span: float) -> datetime:
    return utc_now() - timedelta(**span)


def backfill(start: datetime | None, end: datetime | None, **more: Any) -> BackfillScheduleRequest:
    request = BackfillScheduleRequest(name=SCHEDULE, **more)
    if start is not None:
        request.start_time.FromDatetime(start)
    if end is not None:
        request.end_time.FromDatetime(end)
    return request


@pytest.mark.parametrize(
    ("request_of", "field", "said"),
    [
        (lambda: backfill(None, in_the_past(hours=1)), "start_time", ""),
        (lambda: backfill(in_the_past(hours=1), None), "end_time", ""),
        (
            lambda: backfill(in_the_past(hours=1), in_the_past(hours=2)),
            "end_time",
            "expected an instant after start_time",
        ),
        (lambda: backfill(in_the_past(hours=1), in_the_past(hours=-1)), "end_time", "lies in the future"),
        (lambda: backfill(datetime(1990, 1, 1, tzinfo=UTC), in_the_past(hours=1)), "start_time", "before the schedule"),
        (lambda: backfill(in_the_past(hours=2), in_the_past(hours=1), rate=101), "rate", ""),
        (lambda: backfill(in_the_past(hours=2), in_the_past(hours=1), overlap_policy=99), "overlap_policy", ""),
    ],
)
def test_each_malformed_field_of_a_backfill_is_named(
    made: Service, api: Api, request_of: Callable[[], BackfillScheduleRequest], field: str, said: str
) -> None:
    before = stored(made)
    refusal = refused(api.scheduling.BackfillSchedule, request_of())
    assert refusal.code == "INVALID_ARGUMENT"
    assert field in problems(refusal)
    assert any(said in text for text, _ in problems(refusal)[field])
    assert stored(made) == before


def test_a_backfill_is_bounded(made: Service, api: Api) -> None:
    before = stored(made)
    busy = ParseDict({"cron": {"expression": "* * * * * *"}}, Schedule())
    schedule = api.scheduling.ScheduleJob(ScheduleJobRequest(parent=JOB, schedule=busy, schedule_id="busy"))
    request = backfill(in_the_past(hours=3), in_the_past(minutes=1))
    request.name = schedule.name
    refusal = refused(api.scheduling.BackfillSchedule, request)
    assert "more than 10,000 firings" in refusal.descriptions
    assert stored(made)["backfills"] == before["backfills"]


def test_a_preview_is_bounded(api: Api) -> None:
    busy = ParseDict({"cron": {"expression": "* * * * * *"}}, Schedule())
    shown = api.scheduling.PreviewSchedule(PreviewScheduleRequest(schedule=busy, page_size=1_000_000))
    assert len(shown.firings) == 1000
    assert len(api.scheduling.PreviewSchedule(PreviewScheduleRequest(schedule=busy)).firings) == 10
    negative = refused(api.scheduling.PreviewSchedule, PreviewScheduleRequest(schedule=busy, page_size=-1))
    assert "page_size" in problems(negative)
    wrong = PreviewScheduleRequest(schedule=busy)
    wrong.start_time.FromDatetime(utc_now())
    wrong.end_time.FromDatetime(in_the_past(hours=1))
    assert "end_time" in problems(refused(api.scheduling.PreviewSchedule, wrong))


@pytest.mark.parametrize("path", ["state", "fired_count", "etag", "nonsense", "cron.nonsense"])
def test_a_mask_names_what_can_be_changed(made: Service, api: Api, path: str) -> None:
    before = stored(made)
    request = UpdateScheduleRequest(schedule=Schedule(name=SCHEDULE), update_mask=FieldMask(paths=[path]))
    refusal = refused(api.scheduling.UpdateSchedule, request)
    assert refusal.code == "INVALID_ARGUMENT"
    assert "update_mask.paths[0]" in problems(refusal)
    assert stored(made) == before


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        ("UpdateSchedule", lambda: UpdateScheduleRequest(
            schedule=Schedule(name="jobs/good/schedules/none", display_name="x"))),
        ("PauseSchedule", lambda: PauseScheduleRequest(name="jobs/none/schedules/main")),
        ("ResumeSchedule", lambda: ResumeScheduleRequest(name="jobs/none/schedules/main")),
        ("PreviewSchedule", lambda: PreviewScheduleRequest(name="jobs/good/schedules/none")),
        ("GetBackfill", lambda: GetBackfillRequest(
            name=f"{SCHEDULE}/backfills/b-00000000-0000-7000-8000-000000000000")),
        ("UpdateCalendar", lambda: UpdateCalendarRequest(calendar=Calendar(name="calendars/none", display_name="x"))),
        ("DeleteCalendar", lambda: DeleteCalendarRequest(name="calendars/none")),
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(api: Api, method: str, request_of: Callable[[], Any]) -> None:
    request = request_of()
    assert refused(getattr(api.scheduling, method), request).code == "NOT_FOUND"


def test_a_one_off_cannot_be_backfilled(api: Api) -> None:
    once = ParseDict({"after": "3600s"}, Schedule())
    schedule = api.scheduling.ScheduleJob(ScheduleJobRequest(parent=JOB, schedule=once))
    request = backfill(in_the_past(hours=2), in_the_past(hours=1))
    request.name = schedule.name
    refusal = refused(api.scheduling.BackfillSchedule, request)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NOT_RECURRING")


def test_an_old_etag_is_refused(api: Api) -> None:
    pause = PauseScheduleRequest(name=SCHEDULE, etag="old")
    assert refused(api.scheduling.PauseSchedule, pause).code == "ABORTED"
    delete = DeleteCalendarRequest(name="calendars/holidays", etag="old")
    assert refused(api.scheduling.DeleteCalendar, delete).code == "ABORTED"
