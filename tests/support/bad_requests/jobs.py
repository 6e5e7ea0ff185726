"""Jobs and schedules that are refused: targets, payloads, policies, times."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import CronSpec, IntervalSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCreateJobsRequest,
    CreateJobRequest,
    RunJobRequest,
    ScheduleJobRequest,
    UpdateJobRequest,
)
from whispr.scheduling.v1.target_pb2 import RetryPolicy
from whispr.siblings import messaging_pb2, notification_pb2

from tests.support.bad_requests.case import (
    PRESENT,
    Case,
    ago,
    ahead,
    calls,
    carries,
    cron,
    every,
    job,
    scheduled,
)
from tests.support.service import (
    SCHEDULING,
    SEND,
    at,
    message,
    packed,
    retries,
    send_job,
    utc_now,
)

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
