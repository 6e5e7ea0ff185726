"""Jobs through the public API of a running service: create, read, list, change, end, delete, run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from whispr.scheduling.v1 import job_pb2
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job, OverlapPolicy
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    GetScheduleRequest,
    ListJobsRequest,
    ListJobsResponse,
    ListSchedulesRequest,
    RunJobRequest,
    UpdateJobRequest,
)
from whispr.scheduling.v1.target_pb2 import Queue, RetryPolicy
from whispr.siblings import messaging_pb2

from tests.support.servers import Databases
from tests.support.service import (
    Api,
    Service,
    after,
    create_request,
    eventually,
    message,
    packed,
    refused,
    retries,
    running_service,
    send_job,
)

HOUR = timedelta(hours=1)
TARDY = "messaging.MessagingService/SendScheduledMessage match=hang-* hang"


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("jobs")
    with running_service(folder, database_server.migrated(), redis_url, "jobs", [TARDY]) as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def get(api: Api, name: str, view: int = job_pb2.VIEW_UNSPECIFIED) -> Job:
    job: Job = api.scheduling.GetJob(GetJobRequest(name=name, view=job_pb2.View.Name(view)))
    return job


def update(api: Api, job: Job, *paths: str, **more: bool) -> Job:
    mask = FieldMask(paths=paths) if paths else None
    changed: Job = api.scheduling.UpdateJob(UpdateJobRequest(job=job, update_mask=mask, **more))
    return changed


def walk(api: Api, size: int, **arguments: str) -> list[Job]:
    """All pages one after the other."""
    found: list[Job] = []
    token = ""
    while True:
        page: ListJobsResponse = api.scheduling.ListJobs(ListJobsRequest(page_size=size, page_token=token, **arguments))
        assert len(page.jobs) <= size
        found += page.jobs
        token = page.next_page_token
        if not token:
            return found


# --- create -----------------------------------------------------------------------------------------------------------


def test_a_job_gets_an_id_and_the_defaults_of_its_target(api: Api) -> None:
    job = api.create()
    assert job.name.startswith("jobs/j-")
    assert job.state == Job.ACTIVE
    assert (job.queue, job.retry_policy.max_attempts, job.timeout.seconds) == (Queue.HIGH, 4, 30)
    assert job.retry_policy.initial_backoff.seconds == 60
    assert job.retry_policy.max_backoff.seconds == 1800
    assert job.retry_policy.max_age.ToTimedelta() == timedelta(days=7)
    assert job.principal == job.owner == "spiffe://cluster.local/ns/whispr/sa/development"
    assert job.request_bytes == len(message().SerializeToString())
    assert job.etag
    assert job.create_time == job.update_time
    assert get(api, job.name) == job


def test_what_a_caller_asks_for_is_kept(api: Api) -> None:
    asked = send_job(
        display_name="Rappel d'été 🎂",
        queue="LOW",
        overlap_policy="BUFFER_ALL",
        owner="user-17",
        labels={"campaign": "summer", "empty": ""},
        retry_policy=RetryPolicy(max_attempts=2, backoff_multiplier=3.5, after_lost_worker="WAIT_FOR_DEADLINE"),
    )
    asked.timeout.FromTimedelta(timedelta(milliseconds=1500))
    job = api.create(job=asked, job_id="kept-as-asked")
    assert job.name == "jobs/kept-as-asked"
    assert (job.display_name, job.queue, job.owner) == ("Rappel d'été 🎂", Queue.LOW, "user-17")
    assert job.overlap_policy == OverlapPolicy.BUFFER_ALL
    assert dict(job.labels) == {"campaign": "summer", "empty": ""}
    assert job.timeout.ToTimedelta() == timedelta(milliseconds=1500)
    assert (job.retry_policy.max_attempts, job.retry_policy.backoff_multiplier) == (2, 3.5)
    assert job.retry_policy.initial_backoff.seconds == 60


def test_a_job_with_a_schedule_is_one_call(api: Api) -> None:
    job = api.create(schedule=after(HOUR))
    listed = api.scheduling.ListSchedules(ListSchedulesRequest(parent=job.name))
    (schedule,) = listed.schedules
    assert schedule.after.ToTimedelta() == HOUR
    assert schedule.next_fire_time == job.next_fire_time
    assert api.scheduling.GetSchedule(GetScheduleRequest(name=schedule.name)) == schedule
    (plan,) = api.executions(job.name)
    assert (plan.state, plan.schedule) == (Execution.PENDING, schedule.name)


def test_fields_that_we_do_not_know_are_delivered_as_given(api: Api, service: Service) -> None:
    request = packed(message("unknown-fields"))
    # Field 1000, a varint: what a newer version of the contract may have added.
    request.value += b"\xc0\x3e\x07"
    job = api.create(job=Job(target=send_job().target, request=request), schedule=after(0))
    api.wait(job.name)
    assert get(api, job.name).request.value.endswith(b"\xc0\x3e\x07")
    assert eventually(lambda: service.received(id="unknown-fields"), bool)


def test_a_repeat_with_the_same_request_id_answers_the_first_job_and_makes_none(api: Api, service: Service) -> None:
    request = create_request("repeated", request_id="repeat-1", schedule=after(HOUR))
    first = api.create(request)
    before = service.count()
    assert [api.create(request) for _ in range(3)] == [first] * 3
    assert service.count() == before


def test_a_request_id_with_another_body_is_refused(api: Api, service: Service) -> None:
    api.create(create_request("one", request_id="repeat-2"))
    before = service.count()
    refusal = refused(api.create, create_request("two", request_id="repeat-2"))
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert refusal.details["ResourceInfo"].resource_name == "repeat-2"
    assert service.count() == before


def test_a_job_id_that_is_taken_is_refused(api: Api, service: Service) -> None:
    api.create(job_id="taken")
    before = service.count()
    for validate_only in (False, True):
        refusal = refused(api.create, create_request(job_id="taken", validate_only=validate_only))
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
        assert refusal.details["ResourceInfo"].resource_name == "jobs/taken"
    assert service.count() == before


def test_validate_only_shows_the_job_and_stores_nothing(api: Api, service: Service) -> None:
    before = service.count()
    job = api.create(job_id="only-checked", validate_only=True, request_id="only-checked", schedule=after(0))
    assert (job.name, job.state) == ("jobs/only-checked", Job.ACTIVE)
    assert refused(get, api, job.name).code == "NOT_FOUND"
    assert service.count() == before
    # Its request_id was not used up either.
    assert api.create(job_id="only-checked", request_id="only-checked").name == job.name


def test_a_batch_makes_all_jobs_in_order_and_repeats_answer_the_same(api: Api, service: Service) -> None:
    batch = BatchCreateJobsRequest(
        requests=[create_request(f"batch-{n}", job_id=f"batch-{n}", schedule=after(HOUR)) for n in range(50)],
        request_id="batch",
    )
    made = api.scheduling.BatchCreateJobs(batch).jobs
    assert [job.name for job in made] == [f"jobs/batch-{n}" for n in range(50)]
    assert not any(job.HasField("request") for job in made)
    before = service.count()
    assert api.scheduling.BatchCreateJobs(batch).jobs == made
    assert service.count() == before


def test_a_batch_with_one_bad_or_taken_member_makes_nothing(api: Api, service: Service) -> None:
    api.create(job_id="in-the-way")
    before = service.count()
    good = [create_request(f"good-{n}", job_id=f"good-{n}") for n in range(3)]
    bad = create_request(job=Job(target="messaging.MessagingService/Nope", request=packed(message())))
    refusal = refused(api.scheduling.BatchCreateJobs, BatchCreateJobsRequest(requests=[*good, bad]))
    assert (refusal.code, list(refusal.violations)) == ("INVALID_ARGUMENT", ["requests[3].job.target"])
    taken = create_request(job_id="in-the-way")
    refusal = refused(api.scheduling.BatchCreateJobs, BatchCreateJobsRequest(requests=[*good, taken]))
    assert refusal.code == "ALREADY_EXISTS"
    twins = [create_request(job_id="twin"), create_request(job_id="twin")]
    refusal = refused(api.scheduling.BatchCreateJobs, BatchCreateJobsRequest(requests=twins))
    assert refusal.violations == {"requests[1].job_id": "DUPLICATE"}
    assert api.scheduling.BatchCreateJobs(BatchCreateJobsRequest(requests=good, validate_only=True)).jobs
    assert service.count() == before


# --- read and list ----------------------------------------------------------------------------------------------------


def test_the_basic_view_has_everything_but_the_request(api: Api) -> None:
    job = api.create()
    basic = get(api, job.name, job_pb2.BASIC)
    assert not basic.HasField("request")
    assert basic.request_bytes == job.request_bytes
    assert get(api, job.name, job_pb2.FULL) == job


@pytest.fixture(scope="module")
def fleet(service: Service) -> list[Job]:
    """23 jobs of one owner, in the order of their creation."""
    return [
        service.api.create(
            job=send_job(owner="fleet", labels={"parity": "odd" if n % 2 else "even"}, display_name=f"Number {n}"),
            job_id=f"fleet-{(n * 7) % 23:02d}",
        )
        for n in range(23)
    ]


@pytest.mark.parametrize("size", [1, 7, 23, 1000])
def test_a_walk_over_the_pages_is_the_whole_list_newest_first(api: Api, fleet: list[Job], size: int) -> None:
    names = [job.name for job in walk(api, size, filter='owner = "fleet"')]
    assert names == [job.name for job in reversed(fleet)]


def test_a_list_can_be_ordered_by_id(api: Api, fleet: list[Job]) -> None:
    expected = sorted(job.name for job in fleet)
    for order, names in (("job_id", expected), ("job_id desc", expected[::-1])):
        assert [job.name for job in walk(api, 5, filter="owner = fleet", order_by=order)] == names
    oldest = [job.name for job in walk(api, 5, filter="owner = fleet", order_by="create_time")]
    assert oldest == [job.name for job in fleet]


def test_jobs_made_during_a_walk_neither_repeat_nor_hide_others(api: Api) -> None:
    for n in range(6):
        api.create(job=send_job(owner="moving"), job_id=f"moving-{n}")
    asked = ListJobsRequest(page_size=3, filter="owner = moving")
    first = api.scheduling.ListJobs(asked)
    api.create(job=send_job(owner="moving"), job_id="moving-late")
    api.scheduling.DeleteJob(DeleteJobRequest(name="jobs/moving-4"))
    asked.page_token = first.next_page_token
    second = api.scheduling.ListJobs(asked)
    assert [job.name for job in (*first.jobs, *second.jobs)] == [f"jobs/moving-{n}" for n in reversed(range(6))]


@pytest.mark.parametrize(
    ("filter_", "count"),
    [
        ("labels.parity = odd", 11),
        ('labels.parity = "even" AND display_name = "Number 4"', 1),
        ("display_name = Number*", 23),
        ('job_id = "fleet-0*"', 10),
        ("queue = LOW", 0),
        ("NOT queue = LOW AND state = ACTIVE", 23),
        ('create_time > "2000-01-01T00:00:00Z" AND target = "messaging.*"', 23),
        ("labels.nothing = 1 OR labels.parity = odd", 11),
    ],
)
def test_a_filter_chooses(api: Api, fleet: list[Job], filter_: str, count: int) -> None:
    assert len(walk(api, 100, filter=f"owner = fleet AND ({filter_})")) == count


def test_a_list_shows_requests_only_when_asked_to(api: Api, fleet: list[Job]) -> None:
    asked = ListJobsRequest(filter="owner = fleet", page_size=2)
    assert not any(job.HasField("request") for job in api.scheduling.ListJobs(asked).jobs)
    asked.view = job_pb2.FULL
    assert all(job.HasField("request") for job in api.scheduling.ListJobs(asked).jobs)


# --- update -----------------------------------------------------------------------------------------------------------


def test_an_update_changes_what_the_mask_names_and_nothing_else(api: Api) -> None:
    job = api.create(job=send_job(display_name="old", labels={"a": "1"}))
    wanted = Job(name=job.name, display_name="new", labels={"b": "2"}, retry_policy=retries(2))
    changed = update(api, wanted, "display_name", "retry_policy.max_attempts")
    assert (changed.display_name, dict(changed.labels)) == ("new", {"a": "1"})
    assert changed.retry_policy.max_attempts == 2
    assert changed.retry_policy.initial_backoff == job.retry_policy.initial_backoff
    assert changed.etag != job.etag
    assert changed.update_time.ToDatetime() > job.update_time.ToDatetime()
    assert get(api, job.name) == changed


def test_an_update_without_a_mask_changes_what_is_set(api: Api) -> None:
    job = api.create(job=send_job(display_name="stays", labels={"a": "1"}))
    changed = update(api, Job(name=job.name, request=packed(message("other")), queue="MEDIUM"))
    assert (changed.display_name, dict(changed.labels), changed.queue) == ("stays", {"a": "1"}, Queue.MEDIUM)
    assert messaging_pb2.SendScheduledMessageRequest.FromString(changed.request.value).message_id == "other"


def test_a_field_in_the_mask_that_is_not_set_goes_back_to_its_default(api: Api) -> None:
    job = api.create(job=send_job(display_name="gone", queue="LOW", labels={"a": "1"}, retry_policy=retries(1)))
    changed = update(api, Job(name=job.name), "display_name", "queue", "labels", "retry_policy", "timeout")
    assert (changed.display_name, changed.queue, dict(changed.labels)) == ("", Queue.HIGH, {})
    assert changed.retry_policy.max_attempts == 4


def test_an_update_with_an_old_etag_is_aborted(api: Api) -> None:
    job = api.create()
    newer = update(api, Job(name=job.name, display_name="first", etag=job.etag))
    refusal = refused(update, api, Job(name=job.name, display_name="second", etag=job.etag))
    assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert get(api, job.name) == newer


def test_what_a_job_is_for_cannot_be_changed(api: Api) -> None:
    job = api.create()
    other = "messaging.MessagingService/ExpireChats"
    assert refused(update, api, Job(name=job.name, target=other)).violations == {"job.target": "IMMUTABLE"}
    assert refused(update, api, Job(name=job.name, owner="other")).violations == {"job.owner": "IMMUTABLE"}
    refusal = refused(update, api, Job(name=job.name), "target", "state", "nope")
    assert refusal.violations == {
        "update_mask.paths[0]": "IMMUTABLE_FIELD",
        "update_mask.paths[1]": "OUTPUT_ONLY_FIELD",
        "update_mask.paths[2]": "UNKNOWN_FIELD",
    }
    # Sent back unchanged, as a read-modify-write does, they are in nobody's way.
    assert update(api, Job(name=job.name, target=job.target, owner=job.owner, display_name="x")).display_name == "x"


def test_an_update_that_only_validates_changes_nothing(api: Api) -> None:
    job = api.create()
    assert update(api, Job(name=job.name, display_name="shown"), validate_only=True).display_name == "shown"
    assert get(api, job.name) == job


def test_an_update_reaches_what_is_planned(api: Api, service: Service) -> None:
    job = api.create(create_request("before-update", schedule=after(timedelta(seconds=1.5))))
    update(api, Job(name=job.name, request=packed(message("after-update"))), "request")
    api.wait(job.name)
    assert eventually(lambda: service.received(id="after-update"), bool)
    assert not service.received(id="before-update")


# --- cancel, delete, run ----------------------------------------------------------------------------------------------


def test_a_cancelled_job_ends_with_its_plans_and_takes_no_more(api: Api) -> None:
    job = api.create(schedule=after(HOUR))
    cancelled = api.scheduling.CancelJob(CancelJobRequest(name=job.name))
    assert (cancelled.state, cancelled.HasField("cancel_time")) == (Job.CANCELLED, True)
    (execution,) = api.executions(job.name)
    assert (execution.state, execution.reason) == (Execution.CANCELLED, "CALLER")
    assert api.scheduling.CancelJob(CancelJobRequest(name=job.name)) == cancelled
    for call, request in (
        (api.scheduling.RunJob, RunJobRequest(name=job.name)),
        (api.scheduling.UpdateJob, UpdateJobRequest(job=Job(name=job.name, display_name="x"))),
    ):
        refusal = refused(call, request)
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "JOB_CANCELLED")
        assert refusal.details["PreconditionFailure"].violations[0].subject == job.name


def test_cancelling_a_job_with_an_old_etag_is_aborted(api: Api) -> None:
    job = api.create()
    update(api, Job(name=job.name, display_name="newer"))
    assert refused(api.scheduling.CancelJob, CancelJobRequest(name=job.name, etag=job.etag)).code == "ABORTED"
    assert refused(api.scheduling.DeleteJob, DeleteJobRequest(name=job.name, etag=job.etag)).code == "ABORTED"
    assert get(api, job.name).state == Job.ACTIVE


def test_cancelling_a_job_cancels_its_running_call(api: Api, service: Service) -> None:
    job = api.create(create_request("hang-cancel-job", schedule=after(0)))
    api.wait(job.name, "RUNNING")
    api.scheduling.CancelJob(CancelJobRequest(name=job.name))
    ended = api.wait(job.name, "CANCELLED")
    assert (ended.reason, ended.attempt_count) == ("CALLER", 1)
    (call,) = eventually(lambda: service.received(id="hang-cancel-job"), bool)
    assert call["code"] == "CANCELLED"


def test_a_job_with_plans_is_deleted_only_by_force(api: Api, service: Service) -> None:
    job = api.create(job_id="to-delete", schedule=after(HOUR))
    refusal = refused(api.scheduling.DeleteJob, DeleteJobRequest(name=job.name))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NOT_FINISHED")
    api.scheduling.DeleteJob(DeleteJobRequest(name=job.name, force=True))
    assert refused(get, api, job.name).code == "NOT_FOUND"
    assert refused(api.scheduling.DeleteJob, DeleteJobRequest(name=job.name)).code == "NOT_FOUND"
    # Its id may be used again, for a job that has nothing to do with it.
    again = api.create(job_id="to-delete")
    assert again.uid != job.uid
    assert api.executions(again.name) == []


def test_a_running_job_is_not_deleted_even_by_force(api: Api) -> None:
    job = api.create(create_request("hang-delete", schedule=after(0)))
    api.wait(job.name, "RUNNING")
    refusal = refused(api.scheduling.DeleteJob, DeleteJobRequest(name=job.name, force=True))
    assert refusal.code == "FAILED_PRECONDITION"
    api.scheduling.CancelJob(CancelJobRequest(name=job.name))
    api.wait(job.name, "CANCELLED")
    api.scheduling.DeleteJob(DeleteJobRequest(name=job.name))
    assert refused(get, api, job.name).code == "NOT_FOUND"


def test_a_run_happens_now_and_completes_the_job(api: Api, service: Service) -> None:
    job = api.create(create_request("run-now"))
    run = api.scheduling.RunJob(RunJobRequest(name=job.name))
    assert (run.origin, run.schedule) == (Execution.MANUAL, "")
    done = api.wait(job.name)
    assert done.uid == run.uid
    assert get(api, job.name).state == Job.COMPLETED
    assert eventually(lambda: service.received(id="run-now"), bool)


def test_a_run_may_carry_a_request_of_its_own(api: Api, service: Service) -> None:
    job = api.create(create_request("the-jobs-own"))
    api.scheduling.RunJob(RunJobRequest(name=job.name, request=packed(message("the-runs-own"))))
    done = api.wait(job.name)
    assert messaging_pb2.SendScheduledMessageRequest.FromString(done.request.value).message_id == "the-runs-own"
    assert eventually(lambda: service.received(id="the-runs-own"), bool)
    assert not service.received(id="the-jobs-own")


def test_a_repeated_run_answers_the_first_execution(api: Api) -> None:
    job = api.create()
    asked = RunJobRequest(name=job.name, request_id="run-once")
    first = api.scheduling.RunJob(asked)
    assert api.scheduling.RunJob(asked).uid == first.uid
    asked.request.CopyFrom(packed(message("another")))
    refusal = refused(api.scheduling.RunJob, asked)
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert len(api.executions(job.name)) == 1


def test_a_run_that_only_validates_runs_nothing(api: Api, service: Service) -> None:
    job = api.create()
    before = service.count()
    shown = api.scheduling.RunJob(RunJobRequest(name=job.name, validate_only=True, request_id="dry-run"))
    assert shown.state == Execution.PENDING
    assert service.count() == before
