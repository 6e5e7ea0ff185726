"""Requests to drafts and resources to messages."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whispr.scheduling.v1 import job_pb2, target_pb2
from whispr.scheduling.v1 import scheduling_service_pb2 as pb

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.etag import etag
from scheduling.domain.execution import Attempt, Execution, Origin
from scheduling.domain.job import Job, JobState, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy, Target
from scheduling.operations.drafts import Payload
from scheduling.operations.ports import BreakerStatus, QueueStatus, ServiceStatus, WorkerStatus
from scheduling.operations.status import StatusReport
from scheduling.rpc import mapping, reading

UID = UUID("0190f0c0-0000-7000-8000-000000000001")
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=4)
ID = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
SPANS = st.timedeltas(timedelta(0), timedelta(days=3000))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
TYPE_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", fullmatch=True).filter(
    lambda name: len(name) < 900
)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 6),
    initial_backoff=SPANS,
    backoff_multiplier=st.floats(1, 10),
    max_backoff=SPANS,
    max_age=SPANS,
    after_lost_worker=st.sampled_from(AfterLostWorker),
)


def a_job(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "uid": UID,
        "job_id": "j-1",
        "display_name": "Digest",
        "target": "messaging.MessagingService/Send",
        "request": b"\x0a\x01x",
        "request_type": "messaging.SendRequest",
        "request_bytes": 3,
        "queue": Queue.LOW,
        "retry_policy": POLICY,
        "timeout": timedelta(seconds=30),
        "overlap_policy": None,
        "owner": "u-1",
        "principal": "spiffe://whispr/messaging",
        "labels": {"team": "a"},
        "state": JobState.ACTIVE,
        "revision": 7,
        "create_time": NOW,
        "update_time": NOW,
        "cancel_time": None,
        "next_fire_time": None,
    }
    return Job(**(values | changes))


def an_execution(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "uid": UID,
        "job_uid": UID,
        "job_id": "j-1",
        "schedule_id": "s-1",
        "origin": Origin.SCHEDULED,
        "target": "messaging.MessagingService/Send",
        "queue": Queue.HIGH,
        "owner": "u-1",
        "state": State.PENDING,
        "reason": "",
        "held_by": "",
        "nominal_time": NOW,
        "due_time": NOW,
        "ready_time": NOW,
        "expire_time": NOW + timedelta(days=1),
        "start_time": None,
        "finish_time": None,
        "attempt": 0,
        "attempts": (),
        "code": None,
        "message": "",
        "response": None,
        "response_type": "",
        "request": None,
        "request_type": "",
        "cancel_request_time": None,
        "create_time": NOW,
        "job_revision": 0,
    }
    return Execution(**(values | changes))


def refused(read: Any, request: Any) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        read(request)
    return [(v.field, v.reason) for v in caught.value.violations]


JOBS = st.builds(
    a_job,
    job_id=ID,
    display_name=TEXT,
    request=st.binary(max_size=20),
    request_type=TYPE_NAMES,
    queue=st.sampled_from(Queue),
    retry_policy=POLICIES,
    timeout=SPANS,
    overlap_policy=st.none() | st.sampled_from(OverlapPolicy),
    owner=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    state=st.sampled_from(JobState),
)


@given(JOBS)
def test_a_job_that_is_answered_can_be_asked_for_again(job: Any) -> None:
    draft = reading.create_draft(pb.CreateJobRequest(job=mapping.job(job))).job
    assert draft.request is not None
    assert (draft.request.type_name, draft.request.value) == (job.request_type, job.request)
    for name in ("target", "display_name", "queue", "timeout", "overlap_policy", "owner", "labels"):
        assert getattr(draft, name) == getattr(job, name), name
    for name in (
        "max_attempts",
        "initial_backoff",
        "backoff_multiplier",
        "max_backoff",
        "max_age",
        "after_lost_worker",
    ):
        assert getattr(draft.retry, name) == getattr(job.retry_policy, name), name


def test_a_job_is_answered_with_its_name_etag_and_size() -> None:
    message = mapping.job(a_job(cancel_time=NOW))
    assert (message.name, message.uid, message.etag) == ("jobs/j-1", str(UID), etag(UID, 7))
    assert (message.request_bytes, message.state) == (3, job_pb2.Job.ACTIVE)
    assert message.cancel_time.ToDatetime(UTC) == NOW
    assert not message.HasField("next_fire_time")


def test_the_basic_view_has_no_payloads() -> None:
    assert not mapping.job(a_job(), with_payload=False).HasField("request")
    execution = an_execution(request=b"r", request_type="a.R", response=b"s", response_type="a.S")
    message = mapping.execution(execution, with_payload=False)
    assert not message.HasField("request")
    assert not message.HasField("response")
    full = mapping.execution(execution)
    assert (full.request.type_url, full.response.value) == ("type.googleapis.com/a.R", b"s")


def test_the_answer_to_a_batch_shows_each_job_as_the_basic_view_does() -> None:
    jobs = [
        a_job(),
        a_job(job_id="b", owner="other"),
        a_job(job_id="c", queue=Queue.LOW, timeout=timedelta(seconds=7)),
        a_job(job_id="d", retry_policy=RetryPolicy(max_attempts=2)),
        a_job(job_id="e", state=JobState.CANCELLED, overlap_policy=None),
    ]
    answer = mapping.jobs_made(jobs)
    assert list(answer.jobs) == [mapping.job(job, with_payload=False) for job in jobs]


def test_an_execution_tells_its_attempts_as_rpc_statuses() -> None:
    attempt = Attempt(1, NOW, timedelta(milliseconds=3), "w-1", 14, "gone", counted=True, reason="")
    message = mapping.execution(
        an_execution(
            state=State.FAILED,
            attempt=1,
            attempts=(attempt,),
            code=14,
            message="gone",
            start_time=NOW + timedelta(0, 1),
        )
    )
    assert message.name == f"jobs/j-1/executions/e-{UID}"
    assert message.schedule == "jobs/j-1/schedules/s-1"
    assert (message.attempts[0].status.code, message.attempts[0].status.message) == (14, "gone")
    assert message.attempts[0].duration.ToTimedelta() == timedelta(milliseconds=3)
    assert message.lateness.ToTimedelta() == timedelta(seconds=1)
    assert message.status.code == 14


def test_an_execution_before_its_first_answer_has_no_status_and_no_times() -> None:
    message = mapping.execution(an_execution(schedule_id=None))
    assert message.schedule == ""
    for name in ("status", "start_time", "finish_time", "lateness", "cancel_request_time"):
        assert not message.HasField(name), name


def test_an_ok_answer_is_a_status_that_is_present() -> None:
    assert mapping.execution(an_execution(code=0)).HasField("status")


@pytest.mark.parametrize(
    ("breaker", "state", "moved"),
    [
        (None, target_pb2.Target.CLOSED, False),
        (BreakerStatus("OPEN", NOW), target_pb2.Target.OPEN, True),
        (BreakerStatus("HALF_OPEN", NOW), target_pb2.Target.HALF_OPEN, True),
    ],
)
def test_a_target_shows_its_breaker_and_one_that_never_moved_is_closed(breaker: Any, state: Any, moved: Any) -> None:
    target = Target("a.B/C", "a.CRequest", "a.CResponse", Queue.LOW, POLICY, timedelta(seconds=5), None, "Does C.")
    message = mapping.target(target, breaker)
    assert (message.name, message.breaker_state) == ("targets/a.B.C", state)
    assert message.HasField("breaker_change_time") is moved
    assert not message.HasField("retention")


def test_the_status_lists_workers_and_may_have_no_leader() -> None:
    worker = WorkerStatus(UID, "host", 12, (Queue.HIGH, Queue.LOW), NOW, NOW, 3)
    status = ServiceStatus(NOW, None, 4, (worker,), 10, None, None, "0001", "18", read_only=False, overdue=False)
    report = StatusReport(status, True, ("NO_LEADER",), "2026f", "test", "0.1.0")
    message = mapping.status(report)
    assert (message.leader, message.leader_term, list(message.degraded_modes)) == ("", 4, ["NO_LEADER"])
    assert list(message.workers[0].queues) == [target_pb2.HIGH, target_pb2.LOW]
    queue = mapping.queue_status(QueueStatus(Queue.HIGH, 1, 2, 3, 4, 5, None))
    assert (queue.queue, queue.failed_count, queue.HasField("oldest_waiting")) == (target_pb2.HIGH, 5, False)


def test_every_violation_of_a_create_is_told_with_the_path_the_caller_wrote() -> None:
    request = pb.CreateJobRequest()
    request.job.queue = 99  # type: ignore[assignment]  # a number that the enum does not have
    request.job.timeout.nanos = -(10**9)
    request.job.retry_policy.max_age.seconds = 2**62
    request.job.request.type_url = "nonsense"
    request.schedule.interval.anchor_time.seconds = 2**60
    request.schedule.interval.every.seconds = 5
    request.schedule.start_time.nanos = -1
    request.schedule.request.value = b"x"
    assert sorted(refused(reading.create_draft, request)) == [
        ("job.queue", "UNDEFINED_ENUM_VALUE"),
        ("job.request.type_url", "INVALID_TYPE_URL"),
        ("job.retry_policy.max_age", "INVALID_DURATION"),
        ("job.timeout", "INVALID_DURATION"),
        ("schedule.interval.anchor_time", "INVALID_TIMESTAMP"),
        ("schedule.request.type_url", "INVALID_TYPE_URL"),
        ("schedule.start_time", "INVALID_TIMESTAMP"),
    ]


def test_members_of_a_batch_are_told_apart_by_their_index() -> None:
    request = pb.BatchCreateJobsRequest(requests=[pb.CreateJobRequest() for _ in range(4)])
    request.requests[1].request_id = "twice"
    request.requests[2].validate_only = True
    request.requests[3].schedule.at_time.seconds = 2**40
    assert refused(reading.create_drafts, request) == [
        ("requests[1].request_id", "NOT_ALLOWED_IN_BATCH"),
        ("requests[2].validate_only", "NOT_ALLOWED_IN_BATCH"),
        ("requests[3].schedule.at_time", "INVALID_TIMESTAMP"),
    ]


def test_a_job_without_a_schedule_has_none_in_its_draft() -> None:
    draft = reading.create_draft(pb.CreateJobRequest(job_id="digest"))
    assert (draft.job_id, draft.schedule, draft.job.request, draft.job.timeout) == ("digest", None, None, None)


def update_request(*paths: Any, **fields: Any) -> Any:
    request = pb.UpdateJobRequest(job=job_pb2.Job(name="jobs/j-1", **fields))
    request.update_mask.paths.extend(paths)
    return request


def test_a_mask_may_name_what_can_be_changed() -> None:
    job_id, _, mask = reading.update(update_request(*reading.UPDATE_PATHS))
    assert (job_id, mask) == ("j-1", frozenset(reading.UPDATE_PATHS))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("target", "IMMUTABLE_FIELD"),
        ("owner", "IMMUTABLE_FIELD"),
        ("state", "OUTPUT_ONLY_FIELD"),
        ("uid", "OUTPUT_ONLY_FIELD"),
        ("nonsense", "UNKNOWN_FIELD"),
        ("retry_policy.nonsense", "UNKNOWN_FIELD"),
        ("retryPolicy", "UNKNOWN_FIELD"),
        ("labels.team", "UNKNOWN_FIELD"),
        ("", "UNKNOWN_FIELD"),
    ],
)
def test_a_mask_may_not_name_anything_else_and_the_answer_says_what_it_may(path: Any, reason: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reading.update(update_request("labels", path))
    (violation,) = caught.value.violations
    assert (violation.field, violation.reason) == ("update_mask.paths[1]", reason)
    assert "retry_policy.max_attempts" in violation.description


def test_without_a_mask_the_fields_that_are_set_are_changed_and_no_others() -> None:
    request = update_request(display_name="", timeout=timedelta(0), labels={"a": "b"}, target="x/Y", uid="u")
    request.job.retry_policy.max_attempts = 2
    request.job.retry_policy.max_age.SetInParent()
    _, draft, mask = reading.update(request)
    assert mask == {"timeout", "labels", "retry_policy.max_attempts", "retry_policy.max_age"}
    assert draft.retry.initial_backoff is None


def test_an_update_tells_of_the_name_and_of_the_rest_at_once() -> None:
    request = update_request("state")
    request.job.name = "nonsense"
    assert refused(reading.update, request) == [
        ("job.name", "INVALID_RESOURCE_NAME"),
        ("update_mask.paths[0]", "OUTPUT_ONLY_FIELD"),
    ]


def test_a_run_may_carry_a_request_and_an_overlap_policy_of_its_own() -> None:
    assert reading.run(pb.RunJobRequest(name="jobs/a")) == ("a", None, None)
    request = pb.RunJobRequest(name="jobs/a", overlap_policy=job_pb2.ALLOW_ALL)
    request.request.type_url = "x/a.B"
    assert reading.run(request) == ("a", Payload("a.B", b""), OverlapPolicy.ALLOW_ALL)


def test_a_run_tells_of_its_name_its_request_and_its_overlap_policy_at_once() -> None:
    request = pb.RunJobRequest(name="jobs/-")
    request.request.type_url = "nonsense"
    request.overlap_policy = 99  # type: ignore[assignment]  # a number that the enum does not have
    assert refused(reading.run, request) == [
        ("name", "INVALID_RESOURCE_NAME"),
        ("request.type_url", "INVALID_TYPE_URL"),
        ("overlap_policy", "UNDEFINED_ENUM_VALUE"),
    ]


def test_the_digest_of_a_repeat_is_that_of_the_whole_body() -> None:
    first, again, other = (pb.CreateJobRequest(request_id="r", job_id=name) for name in ("a", "a", "b"))
    digests = [reading.repeat(request, request.request_id).digest for request in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 32
    assert reading.repeat(first, "").digest == b""


@pytest.mark.parametrize(
    ("view", "default", "full"), [(0, True, True), (0, False, False), (1, True, False), (2, False, True)]
)
def test_the_view_decides_about_payloads(view: Any, default: Any, full: Any) -> None:
    assert reading.wants_payload(view, default=default) is full
