"""What else is refused: names, batches, filters, pages, lengths, characters."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCreateJobsRequest,
    CancelExecutionRequest,
    CancelJobRequest,
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

from tests.support.bad_requests.case import (
    ENDED,
    PRESENT,
    UNKNOWN_ID,
    Case,
    calls,
    cron,
    job,
    scheduled,
)
from tests.support.service import (
    SEND,
    after,
    create_request,
)

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
