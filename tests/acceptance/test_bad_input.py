"""Bad input through the public API of a running server: the right code, the fields by name, and nothing stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from whispr.scheduling.v1 import operations_service_pb2, scheduling_service_pb2
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.operations_service_pb2 import ListTargetsRequest
from whispr.scheduling.v1.schedule_pb2 import CronSpec, IntervalSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCreateJobsRequest,
    CancelJobRequest,
    CreateJobRequest,
    GetJobRequest,
    GetScheduleRequest,
    ListExecutionsRequest,
    ListJobsRequest,
    ListSchedulesRequest,
    ScheduleJobRequest,
    WatchExecutionsRequest,
)

from scheduling.domain.paging import PageToken
from tests.support.bad_requests.case import (
    ENDED,
    HOUR,
    PRESENT,
    Case,
    job,
)
from tests.support.bad_requests.jobs import PAYLOADS, POLICIES, SCHEDULES, TARGETS
from tests.support.bad_requests.others import ABSENT, BATCHES, FILTERS, LENGTHS, NAMES, NULS, PAGES
from tests.support.servers import Databases
from tests.support.service import (
    OPERATIONS,
    PATIENCE,
    SCHEDULING,
    Api,
    Refusal,
    Service,
    after,
    create_request,
    eventually,
    refused,
    send_job,
    service,
)


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
