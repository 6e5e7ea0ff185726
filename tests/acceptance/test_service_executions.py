"""Executions through the public API of a running service: each target, retries, cancellation, lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.text_format import Parse
from whispr.scheduling.v1 import job_pb2
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.scheduling_service_pb2 import (
    CancelExecutionRequest,
    GetExecutionRequest,
    ListExecutionsRequest,
    RunJobRequest,
)
from whispr.scheduling.v1.target_pb2 import Queue

from scheduling.delivery.targets import ROWS, TargetTable
from tests.support.servers import Databases
from tests.support.service import (
    Api,
    Service,
    after,
    create_request,
    eventually,
    monotonic,
    packed,
    refused,
    retries,
    running_service,
    send_job,
)

HOUR = timedelta(hours=1)
RULES = (
    "messaging.MessagingService/SendScheduledMessage match=hang-* hang",
    "messaging.MessagingService/SendScheduledMessage match=twice-* times=2 code=INTERNAL",
    "messaging.MessagingService/SendScheduledMessage match=never-* code=INTERNAL",
    "messaging.MessagingService/SendScheduledMessage match=wrong-* code=FAILED_PRECONDITION",
    "messaging.MessagingService/SendScheduledMessage match=busy-* code=ABORTED",
)
OLD = "older_than { seconds: 86400 }"
#: The least that each target takes.
REQUESTS = {
    "messaging.MessagingService/SendScheduledMessage": (
        "message_id: 'm-1' conversation_id: 'c-1' sender_id: 'u-1' content: 'Hello'"
    ),
    "messaging.MessagingService/CleanupExpiredMessages": OLD,
    "messaging.MessagingService/ExpireChats": OLD,
    "messaging.MessagingService/ListExpiringChats": "within { seconds: 3600 }",
    "messaging.MessagingService/CloseInactiveSessions": "inactive_for { seconds: 3600 }",
    "messaging.MessagingService/RecoverErrorSessions": OLD,
    "messaging.MessagingService/ReprocessMessages": OLD,
    "notification.NotificationService/SendDelayedNotification": (
        "notification_id: 'n-1' user_id: 'u-1' kind: NOTIFICATION_KIND_REMINDER title: 'Tomorrow'"
    ),
    "notification.NotificationService/CleanupNotificationHistory": OLD,
    "media.MediaService/OptimizeStorage": OLD,
    "media.MediaService/CleanupTempFiles": OLD,
    "user.UserService/GenerateActivityReport": "report_id: 'r-1' kind: REPORT_KIND_USAGE",
    "user.UserService/CleanupInactiveUsers": OLD,
    "user.UserService/ListActiveUsers": "active_within { seconds: 3600 } count_only: true",
    "user.UserService/UpdateActivityStatistics": "period { seconds: 3600 }",
    "user.UserService/ResetDailyQuotas": "kinds: QUOTA_KIND_MESSAGES",
    "auth.AuthService/RotateTokens": "kinds: TOKEN_KIND_SERVICE",
    "auth.AuthService/CleanupExpiredSessions": OLD,
    "auth.AuthService/ValidateCredentials": "kinds: CREDENTIAL_KIND_API_KEY",
    "auth.AuthService/SyncCredentials": "source_id: 'directory'",
    "auth.AuthService/CleanupExpiredCredentials": OLD,
    "moderation.ModerationService/AnalyzeContent": "analysis_id: 'a-1' content_ids: 'c-1'",
    "moderation.ModerationService/UpdateModels": "models: 'toxicity'",
    "matching.MatchingService/GenerateDailySelection": "user_id: 'u-1'",
    "matching.MatchingService/CleanupDailySelections": OLD,
    "content.ContentService/GenerateDailyVerse": "language_code: 'fr'",
    "content.ContentService/CleanupCaches": OLD,
}


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("executions")
    with running_service(folder, database_server.migrated(), redis_url, "executions", RULES) as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def cancel(api: Api, name: str) -> Execution:
    ended: Execution = api.scheduling.CancelExecution(CancelExecutionRequest(name=name))
    return ended


def due_now(api: Api, message_id: str, **of_job: Any) -> Job:
    return api.create(job=send_job(message_id, **of_job), schedule=after(0))


def list_all(api: Api, **arguments: Any) -> list[Execution]:
    return list(api.scheduling.ListExecutions(ListExecutionsRequest(**arguments)).executions)


# --- delivery ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [row.method for row in ROWS])
def test_what_is_due_now_is_delivered(api: Api, service: Service, targets: TargetTable, method: str) -> None:
    request: Message = Parse(REQUESTS[method], targets.request_class(method)())
    target = targets.get(method)
    assert target is not None
    job = api.create(job=Job(target=method, request=packed(request)), schedule=after(0))
    done = api.wait(job.name)
    assert (done.target, Queue.Name(done.queue), done.attempt_count) == (method, target.queue.value, 1)
    assert done.response.TypeName() == target.response_type
    assert (done.status.code, done.attempts[0].counted) == (0, True)
    (call,) = eventually(lambda: service.received(job=job.name), bool)
    assert (call["method"], call["code"]) == (method, "OK")
    assert (call["idempotency_key"], call["attempt"]) == (done.uid, 1)
    assert datetime.fromisoformat(call["nominal_time"]) == done.nominal_time.ToDatetime(UTC)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", call["traceparent"])
    # gRPC rounds a deadline up to what its header can say.
    assert 0 < call["timeout"] <= 1.05 * target.timeout.total_seconds()


def test_the_deadline_of_a_job_is_that_of_its_calls(api: Api, service: Service) -> None:
    job = send_job("hang-deadline", retry_policy=retries(1))
    job.timeout.FromTimedelta(timedelta(milliseconds=300))
    ended = api.wait(api.create(job=job, schedule=after(0)).name, "FAILED")
    assert (ended.reason, ended.attempts[0].status.code) == ("ATTEMPTS_EXHAUSTED", 4)
    assert ended.attempts[0].duration.ToTimedelta() >= timedelta(milliseconds=290)
    (call,) = eventually(lambda: service.received(id="hang-deadline"), bool)
    assert call["timeout"] <= 0.3 * 1.05


def test_a_failing_call_is_made_again_with_the_same_key(api: Api, service: Service) -> None:
    policy = retries(3, timedelta(milliseconds=100))
    done = api.wait(due_now(api, "twice-failing", retry_policy=policy).name)
    assert [each.status.code for each in done.attempts] == [13, 13, 0]
    assert [each.number for each in done.attempts] == [1, 2, 3]
    calls = eventually(lambda: service.received(id="twice-failing"), lambda them: len(them) == 3)
    assert {call["idempotency_key"] for call in calls} == {done.uid}
    assert [call["attempt"] for call in calls] == [1, 2, 3]
    # Lateness is that of the first attempt, however many there are.
    assert done.lateness.ToTimedelta() == done.start_time.ToDatetime() - done.nominal_time.ToDatetime()


def test_an_execution_fails_when_its_attempts_are_used_up(api: Api, service: Service) -> None:
    policy = retries(2, timedelta(milliseconds=100))
    ended = api.wait(due_now(api, "never-working", retry_policy=policy).name, "FAILED")
    assert (ended.reason, ended.attempt_count, ended.status.code) == ("ATTEMPTS_EXHAUSTED", 2, 13)
    assert "INTERNAL" in ended.status.message
    assert len(eventually(lambda: service.received(id="never-working"), lambda them: len(them) == 2)) == 2


def test_a_permanent_answer_fails_at_once(api: Api) -> None:
    ended = api.wait(due_now(api, "wrong-request").name, "FAILED")
    assert (ended.reason, ended.attempt_count, ended.status.code) == ("PERMANENT", 1, 9)


def test_a_conflict_is_tried_again_later_and_not_counted(api: Api) -> None:
    job = due_now(api, "busy-target")
    (waiting,) = eventually(lambda: api.executions(job.name), lambda them: len(them[0].attempts) == 1)
    assert (waiting.state, waiting.attempts[0].counted) == (Execution.PENDING, False)
    assert waiting.attempts[0].reason == "CONFLICT"
    assert waiting.ready_time.ToDatetime() - waiting.nominal_time.ToDatetime() >= timedelta(minutes=1)
    assert cancel(api, waiting.name).state == Execution.CANCELLED


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_a_waiting_execution_is_cancelled_at_once(api: Api) -> None:
    job = api.create(schedule=after(HOUR))
    (plan,) = api.executions(job.name)
    ended = cancel(api, plan.name)
    assert (ended.state, ended.reason, ended.attempt_count) == (Execution.CANCELLED, "CALLER", 0)
    assert ended.HasField("finish_time")
    assert cancel(api, plan.name) == ended


def test_a_running_call_is_cancelled_within_about_a_second(api: Api, service: Service) -> None:
    job = due_now(api, "hang-cancel")
    running = api.wait(job.name, "RUNNING")
    asked = monotonic()
    assert cancel(api, running.name).HasField("cancel_request_time")
    ended = api.wait(job.name, "CANCELLED")
    # The promise is a second; the rest is for a busy machine.
    assert monotonic() - asked < 5
    assert (ended.reason, ended.attempt_count, ended.attempts[0].reason) == ("CALLER", 1, "CALLER")
    (call,) = eventually(lambda: service.received(id="hang-cancel"), bool)
    assert call["code"] == "CANCELLED"


def test_what_has_ended_cannot_be_cancelled(api: Api) -> None:
    done = api.wait(due_now(api, "done").name)
    refusal = refused(cancel, api, done.name)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ALREADY_ENDED")
    assert api.execution(done.name) == done


# --- read and list ----------------------------------------------------------------------------------------------------


def test_the_basic_view_leaves_out_request_and_response(api: Api) -> None:
    job = api.create()
    api.scheduling.RunJob(RunJobRequest(name=job.name, request=send_job("of-the-run").request))
    done = api.wait(job.name)
    assert (done.HasField("request"), done.HasField("response")) == (True, True)
    basic = api.scheduling.GetExecution(GetExecutionRequest(name=done.name, view="BASIC"))
    assert (basic.HasField("request"), basic.HasField("response")) == (False, False)
    assert not any(each.HasField("response") for each in api.executions(job.name))
    (full,) = list_all(api, parent=job.name, view=job_pb2.FULL)
    assert full == done


@pytest.fixture(scope="module")
def runs(service: Service) -> tuple[Job, list[Execution]]:
    """A job with nine executions that have succeeded and two planned ones, in the order of their creation."""
    api = service.api
    job = api.create(job=send_job("runs", owner="runner"))
    made = [api.scheduling.RunJob(RunJobRequest(name=job.name)) for _ in range(9)]
    for _ in range(2):
        other = api.create(job=send_job("runs-later", owner="runner"), schedule=after(HOUR))
        made += api.executions(other.name)
    eventually(lambda: api.executions(job.name), lambda them: all(each.state == Execution.SUCCEEDED for each in them))
    return job, made


@pytest.mark.parametrize("size", [1, 4, 11, 1000])
def test_a_walk_over_live_and_finished_executions_is_the_whole_list(
    api: Api, runs: tuple[Job, list[Execution]], size: int
) -> None:
    names: list[str] = []
    asked = ListExecutionsRequest(parent="jobs/-", filter="owner = runner", page_size=size)
    while True:
        page = api.scheduling.ListExecutions(asked)
        names += [each.name for each in page.executions]
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert names == [each.name for each in reversed(runs[1])]


@pytest.mark.parametrize(
    ("filter_", "count"),
    [
        ("state = SUCCEEDED", 9),
        ("state = PENDING AND origin = SCHEDULED", 2),
        ("origin = MANUAL AND code = 0 AND attempt_count = 1", 9),
        ("attempt_count > 1", 0),
        ('nominal_time < "2020-01-01T00:00:00Z"', 0),
        ("finish_time:*", 9),
        ("NOT finish_time:*", 2),
        ("queue = HIGH AND held_by != OVERLAP", 0),
    ],
)
def test_a_filter_chooses_executions(api: Api, runs: tuple[Job, list[Execution]], filter_: str, count: int) -> None:
    assert len(list_all(api, parent="jobs/-", filter=f"owner = runner AND ({filter_})")) == count


def test_executions_of_a_job_can_be_ordered_by_nominal_time(api: Api, runs: tuple[Job, list[Execution]]) -> None:
    for order, reverse in (("nominal_time", False), ("nominal_time desc", True)):
        found = list_all(api, parent=runs[0].name, order_by=order, page_size=100)
        times = [each.nominal_time.ToNanoseconds() for each in found]
        assert times == sorted(times, reverse=reverse)
        assert len(times) == 9


def test_executions_of_all_jobs_are_not_ordered_by_nominal_time(api: Api) -> None:
    for order in ("nominal_time", "nominal_time desc"):
        refusal = refused(list_all, api, parent="jobs/-", order_by=order)
        assert refusal.code == "INVALID_ARGUMENT"
        (violation,) = refusal.details["BadRequest"].field_violations
        assert (violation.field, violation.reason) == ("order_by", "INVALID_ORDER")
        assert "create_time" in violation.description


def test_executions_of_a_job_that_does_not_exist_are_not_found(api: Api) -> None:
    refusal = refused(list_all, api, parent="jobs/nobody")
    assert (refusal.code, refusal.details["ResourceInfo"].resource_name) == ("NOT_FOUND", "jobs/nobody")


def test_an_execution_of_another_job_is_not_found(api: Api) -> None:
    plan = api.executions(api.create(create_request(schedule=after(HOUR))).name)[0]
    stranger = api.create().name + "/executions/" + plan.name.rpartition("/")[2]
    assert refused(api.execution, stranger).code == "NOT_FOUND"
    assert refused(cancel, api, stranger).code == "NOT_FOUND"
    assert api.execution(plan.name).state == Execution.PENDING
