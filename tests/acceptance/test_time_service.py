"""Time through the public API of a running service: what schedules do, and `scheduling verify` about it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.date_pb2 import Date
from whispr.scheduling.v1.calendar_pb2 import Calendar
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import OverlapPolicy
from whispr.scheduling.v1.operations_service_pb2 import GetStatusRequest
from whispr.scheduling.v1.schedule_pb2 import (
    CronSpec,
    DatesExclusion,
    DeploymentSpec,
    Exclusion,
    IntervalSpec,
    RecurrenceSpec,
    Schedule,
    UnionSpec,
)
from whispr.scheduling.v1.scheduling_service_pb2 import (
    Backfill,
    BackfillScheduleRequest,
    CreateCalendarRequest,
    DeleteCalendarRequest,
    GetBackfillRequest,
    GetScheduleRequest,
    ListSchedulesRequest,
    PauseScheduleRequest,
    PreviewScheduleRequest,
    ResumeScheduleRequest,
    RunJobRequest,
    ScheduleJobRequest,
    UpdateCalendarRequest,
    UpdateScheduleRequest,
)

from scheduling.domain.recurrence import zone_version
from tests.support.servers import Databases
from tests.support.service import Api, Service, eventually, refused, running_service, utc_now

EVERY_OTHER_SECOND = CronSpec(expression="*/2 * * * * *")


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("time")
    with running_service(folder, database_server.migrated(), redis_url, "time") as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def make(api: Api, schedule: Schedule, job_id: str) -> Schedule:
    """A schedule of a job of its own."""
    job = api.create(job_id=job_id)
    made: Schedule = api.scheduling.ScheduleJob(
        ScheduleJobRequest(parent=job.name, schedule=schedule, schedule_id="main")
    )
    return made


def read(api: Api, name: str) -> Schedule:
    made: Schedule = api.scheduling.GetSchedule(GetScheduleRequest(name=name))
    return made


def job_of(schedule: Schedule) -> str:
    return schedule.name.partition("/schedules/")[0]


def succeeded(api: Api, schedule: Schedule, origin: str = "SCHEDULED") -> list[datetime]:
    """The nominal times of what has run, ascending."""
    return sorted(
        each.nominal_time.ToDatetime(UTC)
        for each in api.executions(job_of(schedule))
        if each.state == Execution.SUCCEEDED and Execution.Origin.Name(each.origin) == origin
    )


def until_run(api: Api, schedule: Schedule, count: int) -> list[datetime]:
    return eventually(lambda: succeeded(api, schedule), lambda found: len(found) >= count)


def verify(service: Service) -> tuple[int, str]:
    """`scheduling verify` as an operator runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "scheduling", "verify"], env=service.env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def date_exclusion(*days: datetime) -> Exclusion:
    return Exclusion(dates=DatesExclusion(dates=[Date(year=day.year, month=day.month, day=day.day) for day in days]))


def test_a_cron_by_seconds_runs_pauses_resumes_changes_and_is_made_up_for(service: Service, api: Api) -> None:
    schedule = make(api, Schedule(cron=EVERY_OTHER_SECOND), "by-seconds")
    assert "2 seconds" in schedule.description
    ran = until_run(api, schedule, 3)
    assert all(later - earlier == timedelta(seconds=2) for earlier, later in itertools.pairwise(ran))

    paused = api.scheduling.PauseSchedule(PauseScheduleRequest(name=schedule.name, note="too much"))
    assert paused.state == Schedule.PAUSED
    assert (paused.pause.note, bool(paused.pause.principal)) == ("too much", True)
    assert abs(paused.pause.time.ToDatetime(UTC) - utc_now()) < timedelta(seconds=10)
    before = eventually(
        lambda: succeeded(api, schedule), lambda found: len(found) == read(api, schedule.name).fired_count
    )
    eventually(utc_now, lambda now: now > before[-1] + timedelta(seconds=7))
    assert succeeded(api, schedule) == before

    resumed = api.scheduling.ResumeSchedule(ResumeScheduleRequest(name=schedule.name))
    assert resumed.state == Schedule.ACTIVE
    assert resumed.skipped_counts["PAUSED"] >= 2
    after = until_run(api, schedule, len(before) + 2)
    # No burst: what lay in the pause stays out.
    assert after[len(before)] - before[-1] >= timedelta(seconds=7)

    interval = IntervalSpec()
    interval.every.FromSeconds(3)
    updated = api.scheduling.UpdateSchedule(
        UpdateScheduleRequest(
            schedule=Schedule(name=schedule.name, interval=interval, etag=resumed.etag),
            update_mask=FieldMask(paths=["interval"]),
        )
    )
    assert updated.etag != resumed.etag
    stale = UpdateScheduleRequest(
        schedule=Schedule(name=schedule.name, cron=EVERY_OTHER_SECOND, etag=resumed.etag),
        update_mask=FieldMask(paths=["cron"]),
    )
    assert refused(api.scheduling.UpdateSchedule, stale).code == "ABORTED"
    change = updated.update_time.ToDatetime(UTC)
    thirds = eventually(
        lambda: [each for each in succeeded(api, schedule) if each > change], lambda found: len(found) >= 2
    )
    assert all(each.timestamp() % 3 == 0 for each in thirds)

    end = ran[0] - timedelta(seconds=30)
    asked = BackfillScheduleRequest(name=schedule.name, rate=20, overlap_policy=OverlapPolicy.ALLOW_ALL)
    asked.start_time.FromDatetime(end - timedelta(seconds=90))
    asked.end_time.FromDatetime(end)
    backfill = api.scheduling.BackfillSchedule(asked)
    assert backfill.total_count == 30
    done = eventually(
        lambda: api.scheduling.GetBackfill(GetBackfillRequest(name=backfill.name)),
        lambda found: found.state == Backfill.DONE,
    )
    assert done.made_count == 30
    made = eventually(lambda: succeeded(api, schedule, "BACKFILL"), lambda found: len(found) == 30)
    assert all(end - timedelta(seconds=90) <= each < end for each in made)

    code, said = verify(service)
    assert code == 0, said


def test_a_preview_of_a_stored_schedule_comes_true(api: Api) -> None:
    schedule = Schedule(cron=EVERY_OTHER_SECOND)
    schedule.jitter.FromMilliseconds(900)
    made = make(api, schedule, "previewed")
    shown = api.scheduling.PreviewSchedule(PreviewScheduleRequest(name=made.name, page_size=5))
    assert shown.time_zone_version == zone_version()
    until_run(api, made, 3)
    ready = {each.nominal_time.ToDatetime(UTC): each.ready_time.ToDatetime(UTC) for each in shown.firings}
    ran = {each.nominal_time.ToDatetime(UTC): each for each in api.executions(job_of(made))}
    both = ready.keys() & ran.keys()
    assert len(both) >= 3
    assert all(ran[nominal].ready_time.ToDatetime(UTC) == ready[nominal] for nominal in both)


def test_plans_follow_a_calendar_and_which_did_can_be_listed(api: Api) -> None:
    tomorrow = utc_now() + timedelta(days=1)
    api.scheduling.CreateCalendar(
        CreateCalendarRequest(
            calendar_id="holidays", calendar=Calendar(exclusions=[date_exclusion(tomorrow + timedelta(days=300))])
        )
    )
    soon = utc_now() + timedelta(hours=23)
    daily = Schedule(
        cron=CronSpec(expression=f"{soon.minute} {soon.hour} * * *"),
        exclusions=[Exclusion(calendar="calendars/holidays")],
    )
    schedule = make(api, daily, "daily")
    first = schedule.next_fire_time.ToDatetime(UTC)
    changed_after = utc_now()
    api.scheduling.UpdateCalendar(
        UpdateCalendarRequest(
            calendar=Calendar(name="calendars/holidays", exclusions=[date_exclusion(first)]),
            update_mask=FieldMask(paths=["exclusions"]),
        )
    )
    moved = eventually(lambda: read(api, schedule.name), lambda found: found.next_fire_time.ToDatetime(UTC) != first)
    assert moved.next_fire_time.ToDatetime(UTC) == first + timedelta(days=1)
    listed = api.scheduling.ListSchedules(
        ListSchedulesRequest(parent="jobs/-", filter=f'move_time >= "{changed_after.isoformat()}"')
    )
    assert [each.name for each in listed.schedules] == [schedule.name]
    shown = api.scheduling.PreviewSchedule(PreviewScheduleRequest(name=schedule.name, page_size=2))
    assert [each.excluded_by for each in shown.firings] == ["calendars/holidays", ""]
    in_use = refused(api.scheduling.DeleteCalendar, DeleteCalendarRequest(name="calendars/holidays"))
    assert (in_use.code, in_use.reason) == ("FAILED_PRECONDITION", "CALENDAR_USED")
    api.scheduling.DeleteCalendar(DeleteCalendarRequest(name="calendars/holidays", force=True))
    eventually(lambda: read(api, schedule.name), lambda found: found.next_fire_time.ToDatetime(UTC) == first)


def test_a_union_fires_when_any_of_its_parts_does(api: Api) -> None:
    interval = IntervalSpec()
    interval.every.FromSeconds(3)
    union = UnionSpec(specs=[RecurrenceSpec(cron=EVERY_OTHER_SECOND), RecurrenceSpec(interval=interval)])
    schedule = make(api, Schedule(union=union), "union")
    ran = until_run(api, schedule, 5)
    expected = [second for second in range(int(ran[0].timestamp()), int(ran[-1].timestamp()) + 1)
                if second % 2 == 0 or second % 3 == 0]  # fmt: skip
    assert [int(each.timestamp()) for each in ran] == expected


def test_a_run_may_choose_its_own_overlap_policy(api: Api) -> None:
    schedule = make(api, Schedule(cron=CronSpec(expression="0 0 1 1 *")), "rare")
    for policy in (OverlapPolicy.ALLOW_ALL, OverlapPolicy.BUFFER_ALL):
        api.scheduling.RunJob(RunJobRequest(name=job_of(schedule), overlap_policy=policy))
    eventually(lambda: succeeded(api, schedule, "MANUAL"), lambda found: len(found) == 2)


def test_what_is_for_deployments_waits_for_the_next_one(service: Service, api: Api) -> None:
    spec = DeploymentSpec()
    spec.delay.FromMilliseconds(200)
    schedule = make(api, Schedule(deployment=spec), "on-deployment")
    assert not schedule.HasField("next_fire_time")
    # The next version: a worker of another deployment comes, the old one goes, and a third of the same starts too.
    service.settings["deployment"] = "the-next-one"
    old = service.worker
    service.start_worker().wait_ready()
    old.stop()
    until_run(api, schedule, 1)
    service.start_worker().wait_ready()
    service.workers[-2].stop()
    eventually(lambda: api.operations.GetStatus(GetStatusRequest()), lambda status: bool(status.leader))
    assert len(succeeded(api, schedule)) == 1


def test_verify_tells_of_an_execution_that_is_gone(service: Service, api: Api) -> None:
    schedule = make(api, Schedule(cron=EVERY_OTHER_SECOND), "tampered")
    ran = until_run(api, schedule, 4)
    code, said = verify(service)
    assert code == 0, said
    assert "0 unaccounted, 0 doubled, 0 unexpected; 0 one-offs lost; 0 stuck" in said
    service.query("DELETE FROM execution_history WHERE schedule_id = 'main' AND nominal_time = %s AND job_uid = "
                  "(SELECT uid FROM jobs WHERE job_id = 'tampered')", ran[1])  # fmt: skip
    code, said = verify(service)
    assert code == 1
    assert f"{schedule.name}: 1 unaccounted ({ran[1].isoformat()})" in said.splitlines()
    bad = subprocess.run(
        [sys.executable, "-m", "scheduling", "verify", "--since", "yesterday"],
        env=service.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert bad.returncode == 2
    assert "'yesterday' is no time; expected one such as" in bad.stderr


def test_the_zone_version_is_told(api: Api) -> None:
    status: Any = api.operations.GetStatus(GetStatusRequest())
    assert status.time_zone_version == zone_version()
