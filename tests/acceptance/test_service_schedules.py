"""Schedules through the public API of a running service: once, by cron and at intervals."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import CronSpec, IntervalSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    CancelJobRequest,
    DeleteScheduleRequest,
    GetJobRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    ScheduleJobRequest,
)
from whispr.siblings import messaging_pb2

from tests.support.servers import Databases
from tests.support.service import (
    Api,
    Service,
    after,
    at,
    create_request,
    eventually,
    message,
    packed,
    refused,
    running_service,
    send_job,
    utc_now,
)

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("schedules")
    with running_service(folder, database_server.migrated(), redis_url, "schedules") as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def add(api: Api, job: Job, schedule: Schedule, schedule_id: str = "", **more: object) -> Schedule:
    asked = ScheduleJobRequest(parent=job.name, schedule=schedule, schedule_id=schedule_id, **more)  # type: ignore[arg-type]
    made: Schedule = api.scheduling.ScheduleJob(asked)
    return made


def interval(every: timedelta, **fields: object) -> Schedule:
    schedule = Schedule(interval=IntervalSpec(), **fields)  # type: ignore[arg-type]
    schedule.interval.every.FromTimedelta(every)
    return schedule


def cron(expression: str, zone: str = "", **fields: object) -> Schedule:
    return Schedule(cron=CronSpec(expression=expression), time_zone=zone, **fields)  # type: ignore[arg-type]


def next_fire(schedule: Schedule) -> datetime:
    return schedule.next_fire_time.ToDatetime(UTC)


def listed(api: Api, parent: str, **arguments: object) -> list[str]:
    answer = api.scheduling.ListSchedules(ListSchedulesRequest(parent=parent, **arguments))  # type: ignore[arg-type]
    return [schedule.name for schedule in answer.schedules]


# --- once -------------------------------------------------------------------------------------------------------------


def test_a_job_happens_at_the_instant_asked_for(api: Api, service: Service) -> None:
    moment = (utc_now() + timedelta(seconds=1)).replace(microsecond=123_000)
    job = api.create(create_request("at-an-instant"))
    schedule = add(api, job, at(moment), "at-noon")
    assert schedule.name == f"{job.name}/schedules/at-noon"
    assert (schedule.state, next_fire(schedule)) == (Schedule.ACTIVE, moment)
    done = api.wait(job.name)
    assert done.nominal_time.ToDatetime(UTC) == moment
    assert done.start_time.ToDatetime(UTC) >= moment
    (call,) = eventually(lambda: service.received(id="at-an-instant"), bool)
    assert call["received"] >= moment.timestamp()
    gone = api.scheduling.GetSchedule(GetScheduleRequest(name=schedule.name))
    assert (gone.state, gone.HasField("next_fire_time")) == (Schedule.COMPLETED, False)
    assert api.scheduling.GetJob(GetJobRequest(name=job.name)).state == Job.COMPLETED


def test_an_instant_that_has_just_passed_is_now(api: Api) -> None:
    job = api.create()
    add(api, job, at(utc_now() - timedelta(seconds=50)))
    assert api.wait(job.name).state == Execution.SUCCEEDED


def test_a_delay_counts_from_the_call(api: Api) -> None:
    job = api.create()
    before = utc_now()
    schedule = add(api, job, after(HOUR))
    assert schedule.after.ToTimedelta() == HOUR
    assert before + HOUR <= next_fire(schedule) <= utc_now() + HOUR
    assert add(api, job, after(0)).HasField("after")


# --- recurring --------------------------------------------------------------------------------------------------------


def test_a_cron_schedule_is_read_in_its_zone(api: Api) -> None:
    job = api.create()
    for zone in ("Europe/Paris", "America/New_York", "Asia/Kathmandu"):
        schedule = add(api, job, cron("30 8 * * *", zone))
        local = next_fire(schedule).astimezone(ZoneInfo(zone))
        assert (local.hour, local.minute, local.second) == (8, 30, 0)
        assert timedelta(0) < next_fire(schedule) - utc_now() <= timedelta(hours=25)
        assert (schedule.time_zone, schedule.cron.expression) == (zone, "30 8 * * *")


def test_a_cron_schedule_without_a_zone_is_in_utc(api: Api) -> None:
    schedule = add(api, api.create(), cron("0 3 * * *"))
    assert (schedule.time_zone, next_fire(schedule).hour) == ("UTC", 3)


def test_a_cron_schedule_fires_each_second_if_it_says_so(api: Api) -> None:
    job = api.create(create_request("each-second"))
    schedule = add(api, job, cron("* * * * * *", max_firings=2))

    def done() -> list[Execution]:
        return [each for each in api.executions(job.name) if each.state == Execution.SUCCEEDED]

    eventually(done, lambda them: len(them) == 2)
    first, second = (each.nominal_time.ToDatetime() for each in done())
    assert second - first == timedelta(seconds=1)
    finished = eventually(
        lambda: api.scheduling.GetSchedule(GetScheduleRequest(name=schedule.name)),
        lambda seen: seen.state == Schedule.COMPLETED,
    )
    assert finished.fired_count == 2
    assert len(api.executions(job.name)) == 2


def test_an_interval_is_anchored_and_always_has_its_next_firing_planned(api: Api) -> None:
    job = api.create()
    schedule = add(api, job, interval(timedelta(seconds=7000)))
    assert next_fire(schedule).timestamp() % 7000 == 0
    (plan,) = api.executions(job.name)
    assert plan.nominal_time == schedule.next_fire_time
    phased = interval(timedelta(minutes=10))
    phased.interval.phase.FromTimedelta(timedelta(minutes=3))
    assert next_fire(add(api, job, phased)).timestamp() % 600 == 180


def test_a_recurring_schedule_keeps_to_its_bounds(api: Api) -> None:
    schedule = interval(HOUR)
    schedule.start_time.FromDatetime(utc_now() + timedelta(days=3))
    made = add(api, api.create(), schedule)
    assert timedelta(days=3) - HOUR < next_fire(made) - utc_now() <= timedelta(days=3) + HOUR


def test_jitter_delays_a_firing_by_the_same_part_each_time_it_is_asked_for(api: Api) -> None:
    job = api.create()
    schedule = interval(timedelta(hours=2))
    schedule.jitter.FromTimedelta(HOUR)
    made = add(api, job, schedule)
    (plan,) = api.executions(job.name)
    assert plan.nominal_time == made.next_fire_time
    assert timedelta(0) <= plan.ready_time.ToDatetime() - plan.nominal_time.ToDatetime() <= HOUR


def test_a_schedule_may_carry_a_request_of_its_own(api: Api, service: Service) -> None:
    job = api.create(create_request("of-the-job"))
    schedule = after(0)
    schedule.request.CopyFrom(packed(message("of-the-schedule")))
    assert add(api, job, schedule).request == schedule.request
    done = api.wait(job.name)
    assert messaging_pb2.SendScheduledMessageRequest.FromString(done.request.value).message_id == "of-the-schedule"
    assert eventually(lambda: service.received(id="of-the-schedule"), bool)
    assert not service.received(id="of-the-job")


def test_a_completed_job_becomes_active_with_a_new_schedule(api: Api) -> None:
    job = api.create(schedule=after(0))
    api.wait(job.name)
    assert api.scheduling.GetJob(GetJobRequest(name=job.name)).state == Job.COMPLETED
    add(api, job, after(HOUR))
    assert api.scheduling.GetJob(GetJobRequest(name=job.name)).state == Job.ACTIVE


def test_a_cancelled_job_takes_no_schedule(api: Api) -> None:
    job = api.create()
    api.scheduling.CancelJob(CancelJobRequest(name=job.name))
    refusal = refused(add, api, job, after(HOUR))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "JOB_CANCELLED")


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_a_repeated_schedule_answers_the_first(api: Api, service: Service) -> None:
    job = api.create()
    first = add(api, job, after(HOUR), request_id="schedule-once")
    before = service.count()
    assert add(api, job, after(HOUR), request_id="schedule-once") == first
    refusal = refused(add, api, job, after(2 * HOUR), request_id="schedule-once")
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert service.count() == before


def test_a_schedule_id_that_is_taken_in_the_job_is_refused(api: Api, service: Service) -> None:
    job, other = api.create(), api.create()
    add(api, job, after(HOUR), "daily")
    before = service.count()
    refusal = refused(add, api, job, after(HOUR), "daily")
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert refusal.details["ResourceInfo"].resource_name == f"{job.name}/schedules/daily"
    assert service.count() == before
    add(api, other, after(HOUR), "daily")


def test_a_schedule_that_is_only_validated_is_not_stored(api: Api, service: Service) -> None:
    job = api.create()
    before = service.count()
    shown = add(api, job, cron("@daily"), "checked", validate_only=True)
    assert (shown.name, shown.HasField("next_fire_time")) == (f"{job.name}/schedules/checked", True)
    assert service.count() == before


# --- list and delete --------------------------------------------------------------------------------------------------


def test_schedules_are_listed_by_job_with_pages_and_filters(api: Api) -> None:
    job = api.create()
    names = [add(api, job, cron("0 0 1 1 *", display_name=f"n{n}"), f"cron-{n}").name for n in range(5)]
    names += [add(api, job, after(HOUR), "once").name]
    assert listed(api, job.name) == names[::-1]
    assert listed(api, job.name, order_by="create_time") == names
    assert listed(api, job.name, filter="kind = ONCE") == names[5:]
    assert listed(api, job.name, filter='display_name = "n3" OR schedule_id = once') == [names[5], names[3]]
    page = api.scheduling.ListSchedules(ListSchedulesRequest(parent=job.name, page_size=4))
    rest = listed(api, job.name, page_size=4, page_token=page.next_page_token)
    assert [schedule.name for schedule in page.schedules] + rest == names[::-1]
    assert set(names) <= set(listed(api, "jobs/-", page_size=1000))


def test_a_deleted_schedule_takes_its_plans_along_and_leaves_what_has_happened(api: Api) -> None:
    job = api.create(job=send_job("deleted-schedule"))
    schedule = add(api, job, interval(HOUR))
    add(api, job, after(0), "done")
    eventually(lambda: api.executions(job.name), lambda all_: any(e.state == Execution.SUCCEEDED for e in all_))
    for name in (schedule.name, f"{job.name}/schedules/done"):
        api.scheduling.DeleteSchedule(DeleteScheduleRequest(name=name))
    assert listed(api, job.name) == []
    (kept,) = api.executions(job.name)
    assert kept.state == Execution.SUCCEEDED
    refusal = refused(api.scheduling.GetSchedule, GetScheduleRequest(name=schedule.name))
    assert (refusal.code, refusal.details["ResourceInfo"].resource_name) == ("NOT_FOUND", schedule.name)
    assert refused(api.scheduling.DeleteSchedule, DeleteScheduleRequest(name=schedule.name)).code == "NOT_FOUND"


def test_deleting_a_schedule_with_an_old_etag_is_aborted(api: Api) -> None:
    job = api.create()
    schedule = add(api, job, after(HOUR))
    asked = DeleteScheduleRequest(name=schedule.name, etag="0" * 12 + "-99")
    refusal = refused(api.scheduling.DeleteSchedule, asked)
    assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH")
    asked.etag = schedule.etag
    api.scheduling.DeleteSchedule(asked)
