"""Bad input through the public API of a running server: the right code, the fields by name, and nothing stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from whispr.scheduling.v1 import operations_service_pb2, scheduling_service_pb2
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.operations_service_pb2 import ListTargetsRequest
from whispr.scheduling.v1.schedule_pb2 import CronSpec, IntervalSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCreateJobsRequest,
    CancelExecutionRequest,
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    DeleteScheduleRequest,
    GetExecutionRequest,
    GetJobRequest,
    GetScheduleRequest,
    ListExecutionsRequest,
    ListJobsRequest,
    ListSchedulesRequest,
    RunJobRequest,
    ScheduleJobRequest,
    UpdateJobRequest,
    WatchExecutionsRequest,
)
from whispr.scheduling.v1.target_pb2 import RetryPolicy
from whispr.siblings import messaging_pb2, notification_pb2

from scheduling.domain.paging import PageToken
from tests.support.servers import Databases
from tests.support.service import (
    OPERATIONS,
    PATIENCE,
    SCHEDULING,
    SEND,
    Api,
    Refusal,
    Service,
    after,
    at,
    create_request,
    eventually,
    message,
    packed,
    refused,
    retries,
    send_job,
    service,
    utc_now,
)

HOUR = timedelta(hours=1)
#: Jobs that every case finds there.
PRESENT, ENDED = "jobs/present", "jobs/ended"
UNKNOWN_ID = "e-01234567-89ab-7cde-8f01-23456789abcd"


@pytest.fixture(scope="module")
def running(database_server: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server alone: nothing that happens in time disturbs the counts."""
    with service(tmp_path_factory.mktemp("bad"), database_server.migrated(), None, "bad") as made:
        made.start_server()
        api = made.connect()
        eventually(api.is_serving, bool)
        for job_id in ("present", "ended", *(f"more-{n}" for n in range(3))):
            api.create(job_id=job_id, schedule=after(HOUR))
        api.scheduling.CancelJob(CancelJobRequest(name=ENDED))
        yield made


@pytest.fixture
def api(running: Service) -> Api:
    return running.api


def refuse(service_: Service, method: str, request: Message | bytes, package: str = SCHEDULING) -> Refusal:
    """How the server refuses; it stores nothing while it does."""
    before = service_.count()
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    call: Any
    if method == "WatchExecutions":
        call = service_.api.channel.unary_stream(f"/{package}/{method}")
        refusal = refused(lambda: list(call(raw, timeout=PATIENCE)))
    else:
        call = service_.api.channel.unary_unary(f"/{package}/{method}")
        refusal = refused(call, raw, timeout=PATIENCE)
    info = refusal.details["ErrorInfo"]
    assert (info.domain, bool(info.reason), "request_id" in info.metadata) == ("scheduling.whispr", True, True)
    assert service_.count() == before
    return refusal


@dataclass(frozen=True, slots=True)
class Case:
    """A request that is refused: with which code and reason, and which fields with which reasons."""

    name: str
    method: str
    request: Message | Callable[[], Message]
    fields: dict[str, str] | None = None
    code: str = "INVALID_ARGUMENT"
    reason: str = "INVALID_REQUEST"
    #: Words that the answer helps with.
    says: str = ""

    def made(self) -> Message:
        return self.request if isinstance(self.request, Message) else self.request()


def job(**fields: Any) -> CreateJobRequest:
    return CreateJobRequest(job=send_job(**fields))


def scheduled(schedule: Schedule | None = None, **fields: Any) -> CreateJobRequest:
    return CreateJobRequest(job=send_job(), schedule=schedule or Schedule(**fields))


def cron(expression: str, **fields: Any) -> CreateJobRequest:
    return scheduled(cron=CronSpec(expression=expression), **fields)


def every(seconds: int, nanos: int = 0, **more: Any) -> CreateJobRequest:
    return scheduled(interval=IntervalSpec(every=Duration(seconds=seconds, nanos=nanos), **more))


def calls(target: str, request: Message | None = None) -> CreateJobRequest:
    return CreateJobRequest(job=Job(target=target, request=packed(request or message())))


def carries(payload: PackedMessage) -> CreateJobRequest:
    return CreateJobRequest(job=Job(target=SEND, request=payload))


def ago(**span: float) -> Callable[[], Message]:
    return lambda: scheduled(at(utc_now() - timedelta(**span)))


def ahead(**span: float) -> Callable[[], Message]:
    return lambda: scheduled(at(utc_now() + timedelta(**span)))


HUGE = message(content="x" * 1_000_001)
#: The payload is 1,000,000 bytes and a few: over the limit of the payload, far below that of a message.
UNKNOWN_FIELD = PackedMessage(
    type_url="type.googleapis.com/messaging.SendScheduledMessageRequest",
    value=message().SerializeToString() + b"\xc2\x3e\xc0\x84\x3d" + b"\0" * 1_000_000,
)
TARGETS = [
    Case(
        "unknown method",
        "CreateJob",
        calls("messaging.MessagingService/SendMessage"),
        {"job.target": "TARGET_UNKNOWN"},
        says="did you mean messaging.MessagingService/SendScheduledMessage?",
    ),
    Case(
        "unknown service",
        "CreateJob",
        calls("billing.BillingService/Charge"),
        {"job.target": "TARGET_UNKNOWN"},
        says="ListTargets",
    ),
    Case(
        "leading slash", "CreateJob", calls(f"/{SEND}"), {"job.target": "TARGET_UNKNOWN"}, says=f"did you mean {SEND}"
    ),
    Case("no target", "CreateJob", calls(""), {"job.target": "TARGET_UNKNOWN"}),
    Case(
        "streaming method",
        "CreateJob",
        calls(f"{SCHEDULING}/WatchExecutions"),
        {"job.target": "TARGET_STREAMING"},
        says="unary",
    ),
    Case(
        "a method of our own", "CreateJob", calls(f"{SCHEDULING}/CreateJob"), {"job.target": "TARGET_NOT_SCHEDULABLE"}
    ),
    Case("long target", "CreateJob", calls("x" * 201), {"job.target": "STRING_MAX_LEN"}),
    Case("no job", "CreateJob", CreateJobRequest(), {"job": "REQUIRED"}),
]
PAYLOADS = [
    Case("no request", "CreateJob", CreateJobRequest(job=Job(target=SEND)), {"job.request": "REQUIRED"}),
    Case(
        "wrong type",
        "CreateJob",
        calls(SEND, notification_pb2.SendDelayedNotificationRequest(user_id="u")),
        {"job.request": "REQUEST_TYPE"},
        says="messaging.SendScheduledMessageRequest",
    ),
    Case(
        "unknown type",
        "CreateJob",
        carries(PackedMessage(type_url="type.googleapis.com/no.Such", value=b"x")),
        {"job.request": "REQUEST_TYPE"},
    ),
    Case("no type", "CreateJob", carries(PackedMessage(value=b"x")), {"job.request.type_url": "INVALID_TYPE_URL"}),
    Case(
        "hostile type",
        "CreateJob",
        carries(PackedMessage(type_url="a\0b/\n" * 300, value=b"x")),
        {"job.request.type_url": "INVALID_TYPE_URL"},
    ),
    Case(
        "empty", "CreateJob", calls(SEND, messaging_pb2.SendScheduledMessageRequest()), {"job.request": "REQUEST_EMPTY"}
    ),
    Case(
        "not decodable",
        "CreateJob",
        carries(PackedMessage(type_url=UNKNOWN_FIELD.type_url, value=b"\x0a\xff")),
        {"job.request": "REQUEST_MALFORMED"},
    ),
    Case(
        "against the rules of its type",
        "CreateJob",
        calls(SEND, messaging_pb2.SendScheduledMessageRequest(message_id="m", recipient_ids=["a", "a"])),
        {
            "job.request.conversation_id": "STRING_MIN_LEN",
            "job.request.sender_id": "STRING_MIN_LEN",
            "job.request.content": "STRING_MIN_LEN",
            "job.request.recipient_ids": "REPEATED_UNIQUE",
        },
    ),
    Case("over 1 MB", "CreateJob", calls(SEND, HUGE), {"job.request": "PAYLOAD_TOO_LARGE"}, says="1,000,000"),
    Case("over 1 MB of unknown fields", "CreateJob", carries(UNKNOWN_FIELD), {"job.request": "PAYLOAD_TOO_LARGE"}),
    Case(
        "over 1 MB for a schedule",
        "CreateJob",
        CreateJobRequest(job=send_job(), schedule=Schedule(after=Duration(), request=packed(HUGE))),
        {"schedule.request": "PAYLOAD_TOO_LARGE"},
    ),
    Case(
        "over 1 MB for a run",
        "RunJob",
        RunJobRequest(name=PRESENT, request=packed(HUGE)),
        {"request": "PAYLOAD_TOO_LARGE"},
    ),
    Case(
        "wrong type for a run",
        "RunJob",
        RunJobRequest(name=PRESENT, request=packed(messaging_pb2.ExpireChatsRequest(max_count=1))),
        {"request": "REQUEST_TYPE"},
    ),
    Case(
        "wrong type in an update",
        "UpdateJob",
        UpdateJobRequest(job=Job(name=PRESENT, request=packed(messaging_pb2.ExpireChatsRequest(max_count=1)))),
        {"job.request": "REQUEST_TYPE"},
    ),
]
POLICIES = [
    Case(
        "more than 5 retries",
        "CreateJob",
        job(retry_policy=retries(7)),
        {"job.retry_policy.max_attempts": "TOO_MANY_RETRIES"},
        says="5 retries",
    ),
    Case("no attempts", "CreateJob", job(retry_policy=retries(0)), {"job.retry_policy.max_attempts": "INT32_GTE"}),
    Case(
        "negative attempts",
        "CreateJob",
        job(retry_policy=retries(-(2**31))),
        {"job.retry_policy.max_attempts": "INT32_GTE"},
    ),
    Case(
        "more than 5 retries in an update",
        "UpdateJob",
        UpdateJobRequest(job=Job(name=PRESENT, retry_policy=retries(7))),
        {"job.retry_policy.max_attempts": "TOO_MANY_RETRIES"},
    ),
    Case(
        "backoff upside down",
        "CreateJob",
        job(retry_policy=RetryPolicy(initial_backoff=Duration(seconds=60), max_backoff=Duration(seconds=10))),
        {"job.retry_policy.initial_backoff": "INVALID_VALUE"},
    ),
    Case(
        "backoff too short",
        "CreateJob",
        job(retry_policy=RetryPolicy(initial_backoff=Duration(nanos=1))),
        {"job.retry_policy.initial_backoff": "DURATION_GTE_LTE"},
    ),
    Case(
        "multiplier is not a number",
        "CreateJob",
        job(retry_policy=RetryPolicy(backoff_multiplier=math.nan)),
        {"job.retry_policy.backoff_multiplier": "DOUBLE_GTE_LTE"},
    ),
    Case(
        "multiplier is infinite",
        "CreateJob",
        job(retry_policy=RetryPolicy(backoff_multiplier=math.inf)),
        {"job.retry_policy.backoff_multiplier": "DOUBLE_GTE_LTE"},
    ),
    Case(
        "max age of 31 days",
        "CreateJob",
        job(retry_policy=RetryPolicy(max_age=Duration(seconds=31 * 86400))),
        {"job.retry_policy.max_age": "DURATION_GTE_LTE"},
    ),
    Case(
        "timeout over 30 min",
        "CreateJob",
        job(timeout=Duration(seconds=1800, nanos=1_000_000)),
        {"job.timeout": "TIMEOUT_OUT_OF_RANGE"},
        says="1800s",
    ),
    Case("no timeout at all", "CreateJob", job(timeout=Duration()), {"job.timeout": "TIMEOUT_OUT_OF_RANGE"}),
    Case("negative timeout", "CreateJob", job(timeout=Duration(seconds=-1)), {"job.timeout": "TIMEOUT_OUT_OF_RANGE"}),
    Case(
        "timeout that is no duration",
        "CreateJob",
        job(timeout=Duration(seconds=1, nanos=-1)),
        {"job.timeout": "INVALID_DURATION"},
    ),
    Case(
        "timeout beyond all durations",
        "CreateJob",
        job(timeout=Duration(seconds=2**63 - 1)),
        {"job.timeout": "INVALID_DURATION"},
    ),
    Case(
        "timeout over 30 min in an update",
        "UpdateJob",
        UpdateJobRequest(job=Job(name=PRESENT, timeout=Duration(seconds=1801))),
        {"job.timeout": "TIMEOUT_OUT_OF_RANGE"},
    ),
    Case("unknown queue", "CreateJob", job(queue=99), {"job.queue": "ENUM_DEFINED_ONLY"}),
    Case("unknown overlap policy", "CreateJob", job(overlap_policy=77), {"job.overlap_policy": "ENUM_DEFINED_ONLY"}),
    Case(
        "all at once",
        "CreateJob",
        CreateJobRequest(
            job=Job(target=SEND, retry_policy=retries(9), timeout=Duration(seconds=9999)),
            schedule=Schedule(cron=CronSpec(expression="61 * * * *"), time_zone="Mars/Olympus"),
        ),
        {
            "job.request": "REQUIRED",
            "job.retry_policy.max_attempts": "TOO_MANY_RETRIES",
            "job.timeout": "TIMEOUT_OUT_OF_RANGE",
            "schedule.cron.expression": "INVALID_CRON",
            "schedule.time_zone": "UNKNOWN_TIME_ZONE",
        },
    ),
]
SCHEDULES = [
    Case("no kind", "CreateJob", scheduled(display_name="never"), {"schedule.when": "REQUIRED"}),
    Case("61 s in the past", "CreateJob", ago(seconds=61), {"schedule.at_time": "IN_THE_PAST"}, says="60s"),
    Case(
        "a year in the past",
        "ScheduleJob",
        lambda: ScheduleJobRequest(parent=PRESENT, schedule=at(utc_now() - timedelta(days=365))),
        {"schedule.at_time": "IN_THE_PAST"},
    ),
    Case("eleven years ahead", "CreateJob", ahead(days=4020), {"schedule.at_time": "TOO_FAR"}),
    Case(
        "no instant",
        "CreateJob",
        scheduled(at_time=Timestamp(seconds=1, nanos=-1)),
        {"schedule.at_time": "INVALID_TIMESTAMP"},
    ),
    Case(
        "beyond all instants",
        "CreateJob",
        scheduled(at_time=Timestamp(seconds=2**63 - 1)),
        {"schedule.at_time": "INVALID_TIMESTAMP"},
    ),
    Case(
        "the first instant",
        "CreateJob",
        scheduled(at(datetime(1, 1, 1, tzinfo=UTC))),
        {"schedule.at_time": "IN_THE_PAST"},
    ),
    Case(
        "the last instant",
        "CreateJob",
        scheduled(at(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))),
        {"schedule.at_time": "TOO_FAR"},
    ),
    Case("negative delay", "CreateJob", scheduled(after=Duration(nanos=-1000)), {"schedule.after": "DURATION_GTE_LTE"}),
    Case(
        "delay of eleven years",
        "CreateJob",
        scheduled(after=Duration(seconds=11 * 366 * 86400)),
        {"schedule.after": "DURATION_GTE_LTE"},
    ),
    Case(
        "delay beyond all durations",
        "CreateJob",
        scheduled(after=Duration(seconds=-(2**63))),
        {"schedule.after": "DURATION_GTE_LTE"},
    ),
    Case("cron with 4 fields", "CreateJob", cron("* * * *"), {"schedule.cron.expression": "INVALID_CRON"}),
    Case(
        "cron with minute 60", "CreateJob", cron("60 * * * *"), {"schedule.cron.expression": "INVALID_CRON"}, says="60"
    ),
    Case("cron in words", "CreateJob", cron("every day"), {"schedule.cron.expression": "INVALID_CRON"}),
    Case("cron that never fires", "CreateJob", cron("0 0 30 2 *"), {"schedule.cron.expression": "NEVER_FIRES"}),
    Case("no cron", "CreateJob", cron(""), {"schedule.cron.expression": "STRING_MIN_LEN"}),
    Case("long cron", "CreateJob", cron("*" * 501), {"schedule.cron.expression": "STRING_MAX_LEN"}),
    Case(
        "cron with everything in it",
        "CreateJob",
        cron("\u202e\t🎂 * L-99 ' ; DROP TABLE jobs"),
        {"schedule.cron.expression": "INVALID_CRON"},
    ),
    Case(
        "unknown zone",
        "CreateJob",
        cron("0 8 * * *", time_zone="Europe/Atlantis"),
        {"schedule.time_zone": "UNKNOWN_TIME_ZONE"},
    ),
    Case(
        "zone that is a path",
        "CreateJob",
        cron("0 8 * * *", time_zone="../../etc/passwd"),
        {"schedule.time_zone": "UNKNOWN_TIME_ZONE"},
    ),
    Case(
        "zone in another spelling",
        "CreateJob",
        cron("0 8 * * *", time_zone="europe/paris"),
        {"schedule.time_zone": "UNKNOWN_TIME_ZONE"},
        says="Europe/Paris",
    ),
    Case(
        "interval below a second", "CreateJob", every(0, 999_999_999), {"schedule.interval.every": "DURATION_GTE_LTE"}
    ),
    Case("negative interval", "CreateJob", every(-60), {"schedule.interval.every": "DURATION_GTE_LTE"}),
    Case(
        "interval of eleven years",
        "CreateJob",
        every(11 * 366 * 86400),
        {"schedule.interval.every": "DURATION_GTE_LTE"},
    ),
    Case("no interval", "CreateJob", scheduled(interval=IntervalSpec()), {"schedule.interval.every": "REQUIRED"}),
    Case(
        "phase beyond the interval",
        "CreateJob",
        every(60, phase=Duration(seconds=60)),
        {"schedule.interval.phase": "INVALID_VALUE"},
    ),
    Case(
        "anchor that is no instant",
        "CreateJob",
        every(60, anchor_time=Timestamp(nanos=-1)),
        {"schedule.interval.anchor_time": "INVALID_TIMESTAMP"},
    ),
    Case(
        "bounds upside down",
        "CreateJob",
        cron("0 8 * * *", start_time=Timestamp(seconds=4102444800), end_time=Timestamp(seconds=4102444800)),
        {"schedule.end_time": "INVALID_VALUE"},
    ),
    Case(
        "bounds in the past",
        "CreateJob",
        cron("0 8 * * *", end_time=Timestamp(seconds=1)),
        {"schedule.cron.expression": "NEVER_FIRES"},
    ),
    Case("negative max_firings", "CreateJob", cron("0 8 * * *", max_firings=-1), {"schedule.max_firings": "INT32_GTE"}),
    Case(
        "bounds of a one-off",
        "CreateJob",
        scheduled(after=Duration(), max_firings=2, end_time=Timestamp(seconds=4102444800)),
        {"schedule.end_time": "INVALID_VALUE", "schedule.max_firings": "INVALID_VALUE"},
    ),
    Case(
        "jitter over a day",
        "CreateJob",
        cron("0 8 * * *", jitter=Duration(seconds=86401)),
        {"schedule.jitter": "DURATION_GTE_LTE"},
    ),
    Case(
        "unknown policies",
        "CreateJob",
        cron("0 8 * * *", dst_policy=9, catchup_policy=9),
        {"schedule.dst_policy": "ENUM_DEFINED_ONLY", "schedule.catchup_policy": "ENUM_DEFINED_ONLY"},
    ),
    Case("no schedule", "ScheduleJob", ScheduleJobRequest(parent=PRESENT), {"schedule": "REQUIRED"}),
    Case(
        "bad cron in a batch",
        "BatchCreateJobs",
        BatchCreateJobsRequest(requests=[cron("0 8 * * *"), cron("nope")]),
        {"requests[1].schedule.cron.expression": "INVALID_CRON"},
    ),
]
NAMES: list[Case] = [
    *(
        Case(f"malformed id: {job_id[:20]!r}", "CreateJob", create_request(job_id=job_id), {"job_id": "STRING_PATTERN"})
        for job_id in ("UPPER", "1st", "-", "ends-", "a_b", "a b", "é", "x" * 64, "a/b", "🎂", "a\n")
    ),
    Case(
        "malformed schedule id",
        "ScheduleJob",
        ScheduleJobRequest(parent=PRESENT, schedule_id="Daily", schedule=after(0)),
        {"schedule_id": "STRING_PATTERN"},
    ),
    *(
        Case(f"malformed name: {name!r}", "GetJob", GetJobRequest(name=name), {"name": "INVALID_RESOURCE_NAME"})
        for name in (
            "",
            "present",
            "jobs/",
            "jobs/UPPER",
            "jobs/a/b",
            "jobs/-",
            "//jobs/a",
            "jobs/\u202ea",
            "jobs/" + "x" * 100_000,
        )
    ),
    Case(
        "a job's name for a schedule",
        "GetSchedule",
        GetScheduleRequest(name=PRESENT),
        {"name": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "a wildcard for a schedule",
        "DeleteSchedule",
        DeleteScheduleRequest(name="jobs/-/schedules/a"),
        {"name": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "a job's name for an execution",
        "GetExecution",
        GetExecutionRequest(name=PRESENT),
        {"name": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "a wildcard for a new schedule",
        "ScheduleJob",
        ScheduleJobRequest(parent="jobs/-", schedule=after(0)),
        {"parent": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "malformed parent", "ListExecutions", ListExecutionsRequest(parent="jobs"), {"parent": "INVALID_RESOURCE_NAME"}
    ),
    Case(
        "malformed parent of a watch",
        "WatchExecutions",
        WatchExecutionsRequest(parent=""),
        {"parent": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "no name in an update",
        "UpdateJob",
        UpdateJobRequest(job=Job(display_name="x")),
        {"job.name": "INVALID_RESOURCE_NAME"},
    ),
    Case(
        "unknown field in a mask",
        "UpdateJob",
        UpdateJobRequest(job=Job(name=PRESENT), update_mask=FieldMask(paths=["display_name", "no.such\0field"])),
        {"update_mask.paths[1]": "NUL_CHARACTER"},
    ),
    Case("no view", "GetJob", GetJobRequest(name=PRESENT, view=7), {"view": "ENUM_DEFINED_ONLY"}),  # type: ignore[arg-type]
]
ABSENT = [
    Case("unknown job", "GetJob", GetJobRequest(name="jobs/nobody"), None, "NOT_FOUND", "RESOURCE_NOT_FOUND"),
    *(
        Case(f"unknown job for {method}", method, request, None, "NOT_FOUND", "RESOURCE_NOT_FOUND")
        for method, request in (
            ("UpdateJob", UpdateJobRequest(job=Job(name="jobs/nobody", display_name="x"))),
            ("CancelJob", CancelJobRequest(name="jobs/nobody")),
            ("DeleteJob", DeleteJobRequest(name="jobs/nobody")),
            ("RunJob", RunJobRequest(name="jobs/nobody")),
            ("ScheduleJob", ScheduleJobRequest(parent="jobs/nobody", schedule=after(0))),
            ("ListSchedules", ListSchedulesRequest(parent="jobs/nobody")),
            ("ListExecutions", ListExecutionsRequest(parent="jobs/nobody")),
            ("WatchExecutions", WatchExecutionsRequest(parent="jobs/nobody")),
            ("GetSchedule", GetScheduleRequest(name=f"{PRESENT}/schedules/nothing")),
            ("DeleteSchedule", DeleteScheduleRequest(name=f"{PRESENT}/schedules/nothing")),
            ("GetExecution", GetExecutionRequest(name=f"{PRESENT}/executions/{UNKNOWN_ID}")),
            ("GetExecution", GetExecutionRequest(name=f"{PRESENT}/executions/nothing")),
            ("CancelExecution", CancelExecutionRequest(name=f"{PRESENT}/executions/{UNKNOWN_ID}")),
        )
    ),
    Case(
        "a cancelled job",
        "ScheduleJob",
        ScheduleJobRequest(parent=ENDED, schedule=after(0)),
        None,
        "FAILED_PRECONDITION",
        "JOB_CANCELLED",
    ),
    Case("a cancelled job", "RunJob", RunJobRequest(name=ENDED), None, "FAILED_PRECONDITION", "JOB_CANCELLED"),
]
BATCHES = [
    Case("an empty batch", "BatchCreateJobs", BatchCreateJobsRequest(), {"requests": "REPEATED_MIN_ITEMS"}),
    Case(
        "1,001 jobs",
        "BatchCreateJobs",
        BatchCreateJobsRequest(requests=[create_request()] * 1001),
        {"requests": "REPEATED_MAX_ITEMS"},
    ),
    Case(
        "a member with a request id",
        "BatchCreateJobs",
        BatchCreateJobsRequest(requests=[create_request(request_id="a", validate_only=True)]),
        {"requests[0].request_id": "NOT_ALLOWED_IN_BATCH", "requests[0].validate_only": "NOT_ALLOWED_IN_BATCH"},
    ),
]
FILTERS = [
    *(
        Case(f"filter {text[:40]!r}", "ListJobs", ListJobsRequest(filter=text), {"filter": "INVALID_FILTER"})
        for text in (
            "owner",
            "owner =",
            "= 1",
            "nope = 1",
            "owner = a b",
            "(owner = a",
            "owner = a)",
            "owner > a",
            "state = DANCING",
            'create_time > "yesterday"',
            "create_time > 5",
            'owner = "unclosed',
            "owner = a*b",
            "'; DROP TABLE jobs; --",
            "NOT",
            "AND",
            "owner.x = 1",
            "labels = 1",
            "(" * 200 + ")" * 200,
            "owner=a " * 101,
            "🎂 = 1",
            "owner = \u202e = 1",
            "\\",
        )
    ),
    Case("long filter", "ListJobs", ListJobsRequest(filter="x" * 2001), {"filter": "STRING_MAX_LEN"}),
    Case(
        "filter of executions",
        "ListExecutions",
        ListExecutionsRequest(parent="jobs/-", filter="labels.a = 1"),
        {"filter": "INVALID_FILTER"},
    ),
    Case(
        "filter of schedules",
        "ListSchedules",
        ListSchedulesRequest(parent="jobs/-", filter="kind = MONTHLY"),
        {"filter": "INVALID_FILTER"},
    ),
    Case(
        "filter of a watch",
        "WatchExecutions",
        WatchExecutionsRequest(parent="jobs/-", filter="attempt_count = many"),
        {"filter": "INVALID_FILTER"},
    ),
    *(
        Case(f"order {text!r}", "ListJobs", ListJobsRequest(order_by=text), {"order_by": "INVALID_ORDER"})
        for text in ("owner", "create_time asc", "create_time desc, job_id", "create_time; --", ",")
    ),
]
PAGES = [
    *(
        Case(f"page size of {method}", method, request, {"page_size": "INT32_GTE"})
        for method, request in (
            ("ListJobs", ListJobsRequest(page_size=-1)),
            ("ListSchedules", ListSchedulesRequest(parent="jobs/-", page_size=-(2**31))),
            ("ListExecutions", ListExecutionsRequest(parent=PRESENT, page_size=-1)),
        )
    ),
    *(
        Case(
            f"token {token[:20]!r}", "ListJobs", ListJobsRequest(page_token=token), {"page_token": "INVALID_PAGE_TOKEN"}
        )
        for token in ("nonsense", "====", "🎂", "bm9wZQ", "W10", "x" * 1000, "../..", "e30")
    ),
    Case("long token", "ListJobs", ListJobsRequest(page_token="x" * 1001), {"page_token": "STRING_MAX_LEN"}),
    Case(
        "malformed resume token",
        "WatchExecutions",
        WatchExecutionsRequest(parent="jobs/-", resume_token="nope"),
        {"resume_token": "INVALID_RESUME_TOKEN"},
    ),
]
LENGTHS = [
    Case("long display name", "CreateJob", job(display_name="é" * 201), {"job.display_name": "STRING_MAX_LEN"}),
    Case("long owner", "CreateJob", job(owner="x" * 129), {"job.owner": "STRING_MAX_LEN"}),
    Case("long request id", "CreateJob", create_request(request_id="x" * 129), {"request_id": "STRING_MAX_LEN"}),
    Case("33 labels", "CreateJob", job(labels={f"k{n}": "v" for n in range(33)}), {"job.labels": "MAP_MAX_PAIRS"}),
    Case("long label", "CreateJob", job(labels={"key": "x" * 129}), {'job.labels["key"]': "STRING_MAX_LEN"}),
    Case("label with a capital", "CreateJob", job(labels={"Key": ""}), {'job.labels["Key"]': "STRING_PATTERN"}),
    Case("a megabyte of name", "CreateJob", job(display_name="x" * 1_000_000), {"job.display_name": "STRING_MAX_LEN"}),
]
#: Everywhere that a text goes: none may reach the database with a NUL character in it.
NULS = [
    Case(f"NUL in {next(iter(fields))} of {method}", method, request, fields)
    for method, request, fields in (
        ("CreateJob", job(display_name="a\0"), {"job.display_name": "NUL_CHARACTER"}),
        ("CreateJob", job(owner="\0"), {"job.owner": "NUL_CHARACTER"}),
        ("CreateJob", job(labels={"key": "\0"}), {"job.labels": "NUL_CHARACTER"}),
        ("CreateJob", job(labels={"a\0": ""}), {'job.labels["a "]': "STRING_PATTERN", "job.labels": "NUL_CHARACTER"}),
        ("CreateJob", calls(SEND + "\0"), {"job.target": "NUL_CHARACTER"}),
        ("CreateJob", create_request(request_id="\0"), {"request_id": "NUL_CHARACTER"}),
        ("CreateJob", create_request(job_id="a\0"), {"job_id": "NUL_CHARACTER"}),
        ("CreateJob", scheduled(after=Duration(), display_name="\0"), {"schedule.display_name": "NUL_CHARACTER"}),
        ("CreateJob", cron("0 8 * * *\0"), {"schedule.cron.expression": "NUL_CHARACTER"}),
        ("CreateJob", cron("0 8 * * *", time_zone="UTC\0"), {"schedule.time_zone": "NUL_CHARACTER"}),
        (
            "BatchCreateJobs",
            BatchCreateJobsRequest(requests=[create_request(), job(owner="\0")], request_id="\0"),
            {"requests[1].job.owner": "NUL_CHARACTER", "request_id": "NUL_CHARACTER"},
        ),
        (
            "UpdateJob",
            UpdateJobRequest(job=Job(name=PRESENT, display_name="\0", etag="\0")),
            {"job.display_name": "NUL_CHARACTER", "job.etag": "NUL_CHARACTER"},
        ),
        ("CancelJob", CancelJobRequest(name=PRESENT, etag="\0"), {"etag": "NUL_CHARACTER"}),
        ("RunJob", RunJobRequest(name=PRESENT, request_id="\0"), {"request_id": "NUL_CHARACTER"}),
        (
            "ScheduleJob",
            ScheduleJobRequest(parent=PRESENT, schedule=Schedule(after=Duration(), display_name="\0"), request_id="\0"),
            {"schedule.display_name": "NUL_CHARACTER", "request_id": "NUL_CHARACTER"},
        ),
        ("GetJob", GetJobRequest(name="jobs/a\0"), {"name": "NUL_CHARACTER"}),
        ("ListJobs", ListJobsRequest(filter='owner = "\0"'), {"filter": "NUL_CHARACTER"}),
        ("ListJobs", ListJobsRequest(order_by="job_id\0"), {"order_by": "NUL_CHARACTER"}),
        ("ListExecutions", ListExecutionsRequest(parent="jobs/-", filter='reason = "\0"'), {"filter": "NUL_CHARACTER"}),
        (
            "ListSchedules",
            ListSchedulesRequest(parent="jobs/-", filter='display_name = "\0"'),
            {"filter": "NUL_CHARACTER"},
        ),
        (
            "WatchExecutions",
            WatchExecutionsRequest(parent="jobs/-", filter='owner = "\0"'),
            {"filter": "NUL_CHARACTER"},
        ),
    )
]
CASES = [
    *TARGETS, *PAYLOADS, *POLICIES, *SCHEDULES, *NAMES, *ABSENT, *BATCHES, *FILTERS, *PAGES, *LENGTHS, *NULS,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}: {case.name}")
def test_what_is_wrong_is_refused_by_its_field_and_nothing_is_stored(running: Service, case: Case) -> None:
    refusal = refuse(running, case.method, case.made())
    assert (refusal.code, refusal.reason) == (case.code, case.reason), refusal.message
    if case.fields is not None:
        assert case.fields.items() <= refusal.violations.items()
        # Nothing but these fields is blamed; one may be blamed for two things.
        assert set(refusal.violations) == set(case.fields)
        assert case.says in refusal.descriptions
    elif case.code == "NOT_FOUND":
        assert refusal.details["ResourceInfo"].resource_name
    else:
        assert refusal.details["PreconditionFailure"].violations[0].subject == ENDED


# --- bytes that no builder makes --------------------------------------------------------------------------------------

SERVICES = {
    SCHEDULING: scheduling_service_pb2.DESCRIPTOR.services_by_name["SchedulingService"],
    OPERATIONS: operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
}
METHODS = [(package, method.name) for package, described in SERVICES.items() for method in described.methods]


@pytest.mark.parametrize(("package", "method"), METHODS, ids=lambda value: value.rpartition(".")[2])
def test_bytes_that_are_no_message_are_refused(running: Service, package: str, method: str) -> None:
    for raw in (b"\xff", b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"nonsense"):
        refusal = refuse(running, method, raw, package)
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
        assert refusal.violations == {"": "MALFORMED_MESSAGE"}


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field on the wire."""
    assert number < 16
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"a\xf0\x9f"])
def test_texts_that_are_no_unicode_are_refused(running: Service, bad: bytes) -> None:
    # Halves of surrogate pairs among them, which no client library sends.
    for raw in (field(4, bad), field(1, field(3, bad)), field(1, field(10, bad))):
        assert refuse(running, "CreateJob", raw).reason == "MALFORMED_MESSAGE"
    assert refuse(running, "ListJobs", field(3, bad)).reason == "MALFORMED_MESSAGE"


def test_two_kinds_of_schedule_at_once_are_refused(running: Service) -> None:
    both = after(1).SerializeToString() + Schedule(cron=CronSpec(expression="0 8 * * *")).SerializeToString()
    # Parsing keeps the last one without a word; a builder cannot even say it.
    assert Schedule.FromString(both).WhichOneof("when") == "cron"
    create = create_request().SerializeToString() + field(3, both)
    refusal = refuse(running, "CreateJob", create)
    assert (refusal.code, refusal.violations) == ("INVALID_ARGUMENT", {"schedule.when": "ONEOF_CLASH"})
    assert "after" in refusal.descriptions
    assert "cron" in refusal.descriptions
    refusal = refuse(running, "ScheduleJob", field(1, PRESENT.encode()) + field(2, both))
    assert refusal.violations == {"schedule.when": "ONEOF_CLASH"}


def test_a_message_over_the_servers_limit_is_refused(api: Api, running: Service) -> None:
    before = running.count()
    refusal = refused(api.create, job(display_name="x" * 9_000_000))
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert running.count() == before


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_page_token_of_other_arguments_is_refused(running: Service, api: Api) -> None:
    token = api.scheduling.ListJobs(ListJobsRequest(page_size=2)).next_page_token
    assert token
    others: list[tuple[str, Message]] = [
        ("ListJobs", ListJobsRequest(page_token=token, filter="queue = HIGH")),
        ("ListJobs", ListJobsRequest(page_token=token, order_by="job_id")),
        ("ListJobs", ListJobsRequest(page_token=token, view="FULL")),
        ("ListExecutions", ListExecutionsRequest(parent="jobs/-", page_token=token)),
        ("ListSchedules", ListSchedulesRequest(parent="jobs/-", page_token=token)),
    ]
    for method, request in others:
        refusal = refuse(running, method, request)
        assert (refusal.code, refusal.violations) == ("INVALID_ARGUMENT", {"page_token": "PAGE_TOKEN_MISMATCH"})
    assert len(api.scheduling.ListJobs(ListJobsRequest(page_size=100, page_token=token)).jobs) == 3


@pytest.mark.parametrize(
    "position",
    [("x",), (5,), (None,), (2**63 - 1,), (-(2**63),), ("a", "b"), ("2030-01-01", 1, None), (0, "x")],
    ids=str,
)
@pytest.mark.parametrize("order", ["", "job_id", "create_time desc"])
def test_a_forged_token_opens_nothing_and_breaks_nothing(
    running: Service, position: tuple[str | int | None, ...], order: str
) -> None:
    parent = "" if order == "job_id" else "-"
    bound: dict[str, str | bool] = {"parent": parent, "filter": "", "order": order, "payload": False}
    token = PageToken(position).encode(bound)
    method, request = (
        ("ListExecutions", ListExecutionsRequest(parent="jobs/-", order_by=order, page_token=token))
        if parent
        else ("ListJobs", ListJobsRequest(order_by=order, page_token=token))
    )
    if order == "job_id" and len(position) == 1:
        # Any text is a place among the ids.
        assert getattr(running.api.scheduling, method)(request).jobs is not None
    else:
        assert refuse(running, method, request).violations == {"page_token": "INVALID_PAGE_TOKEN"}


def test_a_forged_token_of_the_targets_breaks_nothing(running: Service) -> None:
    for position in (5, None, "zzz", -(2**63)):
        token = PageToken((position,)).encode({"targets": ""})
        running.api.operations.ListTargets(ListTargetsRequest(page_token=token))
    refusal = refuse(running, "ListTargets", ListTargetsRequest(page_token="nope"), OPERATIONS)
    assert refusal.violations == {"page_token": "INVALID_PAGE_TOKEN"}
    refusal = refuse(running, "ListTargets", ListTargetsRequest(page_size=-1), OPERATIONS)
    assert refusal.violations == {"page_size": "INT32_GTE"}


@pytest.mark.parametrize("position", [("x",), (-1,), (-(2**63),), (2**63 - 1,), (None,), (1, 2)], ids=str)
def test_a_forged_resume_token_is_refused(running: Service, position: tuple[str | int | None, ...]) -> None:
    token = PageToken(position).encode({"watch": "-", "filter": ""})
    refusal = refuse(running, "WatchExecutions", WatchExecutionsRequest(parent="jobs/-", resume_token=token))
    assert refusal.violations == {"resume_token": "INVALID_RESUME_TOKEN"}


# --- odd, and fine ----------------------------------------------------------------------------------------------------

ODD = [
    "\u202eright to left\u202c",
    "👩‍👩‍👧‍👦 family",
    "\u0301 combining",
    "tab\tand\nnewline",
    "'; DROP TABLE jobs; --",
    "%s %(name)s {0} $1 \\",
    "\ufffe\uffff",
    "שלום",
    "x" * 128,
    "🎂" * 128,
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_odd_texts_are_kept_and_found_as_they_are(api: Api, text: str) -> None:
    asked = send_job(content_of(text), display_name=text, owner=text, labels={"key": text})
    first = api.create(job=asked, request_id=text)
    assert (first.display_name, first.owner, first.labels["key"]) == (text, text, text)
    assert api.create(job=asked, request_id=text) == first
    quoted = text.replace("\\", "\\\\")
    found = api.scheduling.ListJobs(ListJobsRequest(filter=f'owner = "{quoted}" AND labels.key = "{quoted}"'))
    assert [each.name for each in found.jobs] == [first.name]


def content_of(text: str) -> str:
    return f"m-{len(text)}"


@pytest.mark.parametrize(
    "text",
    [
        "attempt_count = 9223372036854775807",
        "attempt_count > -9223372036854775808",
        "code = 40000 OR code = -99999999999",
        'create_time > "0001-01-01T00:00:00Z"',
        'create_time < "9999-12-31T23:59:59.999999999+00:00"',
        "owner = *%_\\*",
        "held_by:* OR NOT reason:*",
        "-(state = FAILED)",
        "((((((((((((owner = a))))))))))))",
    ],
)
def test_odd_filters_are_answered(api: Api, text: str) -> None:
    quoted = text.replace("*%_\\*", '"*%_\\\\*"')
    api.scheduling.ListExecutions(ListExecutionsRequest(parent="jobs/-", filter=quoted))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(interval=IntervalSpec(every=Duration(seconds=3600), anchor_time=Timestamp(seconds=-62135596800))),
        Schedule(interval=IntervalSpec(every=Duration(seconds=3600), anchor_time=Timestamp(seconds=253402300799))),
        Schedule(
            cron=CronSpec(expression="0 8 * * *"),
            time_zone="Pacific/Kiritimati",
            start_time=Timestamp(seconds=-62135596800),
            end_time=Timestamp(seconds=253402300799, nanos=999999999),
        ),
        Schedule(cron=CronSpec(expression="0 8 29 2 *"), time_zone="Asia/Tokyo", max_firings=2**31 - 1),
        Schedule(cron=CronSpec(expression="* * * * * *"), jitter=Duration(seconds=86400)),
        Schedule(after=Duration(seconds=3650 * 86400)),
        Schedule(interval=IntervalSpec(every=Duration(seconds=316224000), phase=Duration(seconds=316223999))),
    ],
    ids=str,
)
def test_schedules_at_the_ends_of_time_are_taken(api: Api, schedule: Schedule) -> None:
    made = api.scheduling.ScheduleJob(ScheduleJobRequest(parent=PRESENT, schedule=schedule))
    assert made.HasField("next_fire_time")
    assert api.scheduling.GetSchedule(GetScheduleRequest(name=made.name)) == made


def test_hostile_metadata_is_neither_trusted_nor_fatal(api: Api) -> None:
    metadata = (("x-request-id", "a b; c"), ("traceparent", "00-zz"), ("x-evil-bin", b"\x00\xff"))
    refusal = refused(api.scheduling.GetJob, GetJobRequest(name="jobs/nobody"), metadata=metadata)
    assert refusal.code == "NOT_FOUND"
    assert refusal.details["ErrorInfo"].metadata["request_id"] != "a b; c"


def test_an_answer_with_everything_wrong_still_fits_into_its_headers(running: Service) -> None:
    bad = Job(target="x" * 200, labels={"BAD" + "k" * n: "\u202e" * 200 for n in range(32)}, display_name="é" * 500)
    batch = BatchCreateJobsRequest(requests=[CreateJobRequest(job=bad, job_id="BAD") for _ in range(50)])
    refusal = refuse(running, "BatchCreateJobs", batch)
    assert refusal.code == "INVALID_ARGUMENT"
    assert "MORE_VIOLATIONS" in {each.reason for each in refusal.details["BadRequest"].field_violations}


def test_a_deadline_that_has_passed_is_told_as_such(api: Api) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        api.scheduling.CreateJob(create_request(), timeout=0.000001)
    error: Any = caught.value
    # Whether the job was stored by then nobody can promise: that is what a request_id is for.
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_nothing_of_all_this_was_an_internal_error(running: Service) -> None:
    server = running.server
    assert server is not None
    assert "rpc_failed" not in server.log
    assert '"code":"INTERNAL"' not in server.log
    assert '"code":"UNKNOWN"' not in server.log
