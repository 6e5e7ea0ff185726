"""Dead letters and operations in bulk through the public API of a running service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.operation_pb2 import Label, Operation
from whispr.scheduling.v1.scheduling_service_pb2 import (
    BatchCancelJobsRequest,
    BatchRetryExecutionsRequest,
    CancelJobRequest,
    CancelOperationRequest,
    EraseJobsRequest,
    GetOperationRequest,
    ListExecutionsRequest,
    ListJobsRequest,
    ListOperationsRequest,
    RetryExecutionRequest,
)

from tests.support.servers import Databases
from tests.support.service import (
    PATIENCE,
    SCHEDULING,
    Api,
    Service,
    after,
    eventually,
    refused,
    running_service,
    send_job,
)

RULES = (
    "messaging.MessagingService/SendScheduledMessage match=once-* times=1 code=FAILED_PRECONDITION",
    "messaging.MessagingService/SendScheduledMessage match=wrong-* code=FAILED_PRECONDITION",
    "messaging.MessagingService/SendScheduledMessage match=hang-* hang",
)


@pytest.fixture(scope="module")
def service(database_server: Databases, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("letters")
    with running_service(folder, database_server.migrated(), redis_url, "letters", RULES) as made:
        yield made


@pytest.fixture
def api(service: Service) -> Api:
    return service.api


def due_now(api: Api, message_id: str, **of_job: Any) -> Job:
    return api.create(job=send_job(message_id, **of_job), schedule=after(0))


def dead_letter(api: Api, message_id: str, **of_job: Any) -> Execution:
    """An execution that has failed for good."""
    return api.wait(due_now(api, message_id, **of_job).name, "FAILED")


def retry(api: Api, name: str, request_id: str = "") -> Execution:
    moved: Execution = api.scheduling.RetryExecution(RetryExecutionRequest(name=name, request_id=request_id))
    return moved


# --- one dead letter --------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_tried_again_under_the_same_key_and_gets_through(api: Api, service: Service) -> None:
    failed = dead_letter(api, "once-retried")
    moved = retry(api, failed.name, "retry-1")
    assert (moved.uid, moved.attempt_count, moved.reason) == (failed.uid, 1, "")
    done = api.wait(failed.name.partition("/executions/")[0])
    assert (done.uid, [each.number for each in done.attempts]) == (failed.uid, [1, 2])
    calls = eventually(lambda: service.received(id="once-retried"), lambda them: len(them) == 2)
    assert {call["idempotency_key"] for call in calls} == {failed.uid}
    assert [call["attempt"] for call in calls] == [1, 2]
    # The same call again is answered and moves nothing; another one is refused.
    assert retry(api, failed.name, "retry-1").state == Execution.SUCCEEDED
    refusal = refused(retry, api, failed.name)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NOT_FAILED")
    assert refusal.details["PreconditionFailure"].violations[0].subject == failed.name


def test_what_fails_again_may_be_tried_again(api: Api) -> None:
    failed = dead_letter(api, "wrong-again")
    for count in (2, 3):
        retry(api, failed.name)
        ended = eventually(lambda: api.execution(failed.name), lambda it: it.state == Execution.FAILED)
        assert (ended.attempt_count, ended.reason) == (count, "PERMANENT")


def test_a_dead_letter_of_a_cancelled_job_stays_one(api: Api) -> None:
    failed = dead_letter(api, "wrong-cancelled")
    api.scheduling.CancelJob(CancelJobRequest(name=failed.name.partition("/executions/")[0]))
    refusal = refused(retry, api, failed.name)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "JOB_CANCELLED")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "INVALID_ARGUMENT"),
        ("jobs/a", "INVALID_ARGUMENT"),
        ("jobs/-/executions/e-1", "INVALID_ARGUMENT"),
        ("jobs/nobody/executions/e-01234567-89ab-7cde-8f01-23456789abcd", "NOT_FOUND"),
        ("jobs/nobody/executions/e-1", "NOT_FOUND"),
    ],
)
def test_what_is_no_dead_letter_is_refused(api: Api, name: str, code: str) -> None:
    assert refused(retry, api, name).code == code


# --- many at once -----------------------------------------------------------------------------------------------------


def ended(api: Api, operation: Operation) -> Operation:
    """The operation when it is no longer running."""
    asked = GetOperationRequest(name=operation.name)
    found: Operation = eventually(
        lambda: api.scheduling.GetOperation(asked), lambda it: bool(it.state != Operation.RUNNING)
    )
    return found


def test_the_dead_letters_of_a_target_that_was_broken_are_tried_again_together(api: Api, service: Service) -> None:
    names = [due_now(api, f"once-many-{n}", owner="u-many").name for n in range(10)]
    for name in names:
        api.wait(name, "FAILED")
    asked = BatchRetryExecutionsRequest(parent="jobs/-", filter='owner = "u-many" AND code = 9', request_id="many-1")
    dry = BatchRetryExecutionsRequest(parent="jobs/-", filter=asked.filter, validate_only=True)
    told = api.scheduling.BatchRetryExecutions(dry)
    assert (told.name, told.total_count, told.total_count_partial) == ("", 10, False)
    listed = api.scheduling.ListExecutions(
        ListExecutionsRequest(parent="jobs/-", filter=f"state = FAILED AND {dry.filter}")
    )
    assert len(listed.executions) == 10
    started = api.scheduling.BatchRetryExecutions(asked)
    assert (started.state, started.method, started.rate) == (Operation.RUNNING, Operation.BATCH_RETRY_EXECUTIONS, 100)
    done = ended(api, started)
    assert (done.state, done.done_count, done.failed_count) == (Operation.DONE, 10, 0)
    assert done.HasField("end_time")
    for name in names:
        assert api.wait(name).attempt_count == 2
    calls = [call for call in service.received() if call["id"].startswith("once-many-")]
    assert (len(calls), len({call["idempotency_key"] for call in calls})) == (20, 10)
    assert api.scheduling.BatchRetryExecutions(asked) == done


def test_the_dead_letters_of_one_job_are_tried_again_without_a_filter(api: Api) -> None:
    failed = dead_letter(api, "once-one-job")
    job = failed.name.partition("/executions/")[0]
    assert ended(api, api.scheduling.BatchRetryExecutions(BatchRetryExecutionsRequest(parent=job))).done_count == 1
    assert api.wait(job).attempt_count == 2


def test_jobs_are_cancelled_by_filter(api: Api) -> None:
    names = [api.create(job=send_job(labels={"campaign": "spring"}), schedule=after(3600)).name for _ in range(5)]
    other = api.create(schedule=after(3600))
    asked = BatchCancelJobsRequest(filter="labels.campaign = spring", rate=1000)
    assert api.scheduling.BatchCancelJobs(asked).total_count == 5
    for name in names:
        assert api.wait(name, "CANCELLED").reason == "CALLER"
    assert api.executions(other.name)[0].state == Execution.PENDING


def test_an_owner_is_erased_with_running_calls_and_history(api: Api, service: Service) -> None:
    done, failed = due_now(api, "to-erase", owner="u-gone"), due_now(api, "wrong-erased", owner="u-gone")
    api.wait(done.name)
    api.wait(failed.name, "FAILED")
    api.create(job=send_job(owner="u-gone"), schedule=after(3600))
    api.wait(due_now(api, "hang-erased", owner="u-gone").name, "RUNNING")
    told = ended(api, api.scheduling.EraseJobs(EraseJobsRequest(owner="u-gone")))
    assert (told.state, told.done_count, told.owner) == (Operation.DONE, 4, "u-gone")
    assert not api.scheduling.ListJobs(ListJobsRequest(filter='owner = "u-gone"')).jobs
    for table in ("jobs", "executions", "execution_history"):
        assert service.query(f"SELECT 1 FROM {table} WHERE owner = 'u-gone'") == []
    (call,) = eventually(lambda: service.received(id="hang-erased"), bool)
    assert call["code"] == "CANCELLED"


def test_a_label_is_erased_and_an_id_used_before_erases_nothing(api: Api) -> None:
    label = Label(key="account", value="a-1")
    api.create(job=send_job(labels={"account": "a-1"}), schedule=after(3600))
    used = BatchCancelJobsRequest(filter="labels.account = a-2", request_id="account-1")
    api.scheduling.BatchCancelJobs(used)
    refusal = refused(api.scheduling.EraseJobs, EraseJobsRequest(label=label, request_id="account-1"))
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    told = ended(api, api.scheduling.EraseJobs(EraseJobsRequest(label=label, request_id="account-2")))
    assert (told.done_count, told.label) == (1, label)


def test_an_operation_is_cancelled_and_listed(api: Api) -> None:
    for n in range(3):
        dead_letter(api, f"wrong-slow-{n}", owner="u-slow")
    started = api.scheduling.BatchRetryExecutions(
        BatchRetryExecutionsRequest(parent="jobs/-", filter='owner = "u-slow"', rate=1)
    )
    cancelled = api.scheduling.CancelOperation(CancelOperationRequest(name=started.name))
    assert cancelled.state == Operation.CANCELLED
    assert api.scheduling.CancelOperation(CancelOperationRequest(name=started.name)) == cancelled
    listed = api.scheduling.ListOperations(ListOperationsRequest(filter="state = CANCELLED")).operations
    assert started.name in {each.name for each in listed}


BAD = [
    ("BatchRetryExecutions", BatchRetryExecutionsRequest(), {"parent": "INVALID_RESOURCE_NAME"}),
    ("BatchRetryExecutions", BatchRetryExecutionsRequest(parent="jobs/-"), {"filter": "REQUIRED"}),
    (
        "BatchRetryExecutions",
        BatchRetryExecutionsRequest(parent="jobs/-", filter="x = 1"),
        {"filter": "INVALID_FILTER"},
    ),
    (
        "BatchRetryExecutions",
        BatchRetryExecutionsRequest(parent="jobs/-", filter="state = FAILED", rate=1001),
        {"rate": "INT32_GTE_LTE"},
    ),
    ("BatchCancelJobs", BatchCancelJobsRequest(), {"filter": "STRING_MIN_LEN"}),
    ("BatchCancelJobs", BatchCancelJobsRequest(filter=" "), {"filter": "REQUIRED"}),
    ("BatchCancelJobs", BatchCancelJobsRequest(filter="code = 3"), {"filter": "INVALID_FILTER"}),
    ("BatchCancelJobs", BatchCancelJobsRequest(filter='owner = "a\0"'), {"filter": "NUL_CHARACTER"}),
    ("BatchCancelJobs", BatchCancelJobsRequest(filter="owner = a", rate=-1), {"rate": "INT32_GTE_LTE"}),
    ("EraseJobs", EraseJobsRequest(), {"what": "REQUIRED"}),
    ("EraseJobs", EraseJobsRequest(owner=""), {"owner": "STRING_MIN_LEN"}),
    ("EraseJobs", EraseJobsRequest(label=Label(value="x")), {"label.key": "STRING_PATTERN"}),
    ("EraseJobs", EraseJobsRequest(owner="x" * 129), {"owner": "STRING_MAX_LEN"}),
    ("EraseJobs", EraseJobsRequest(owner="a", request_id="x" * 129), {"request_id": "STRING_MAX_LEN"}),
    ("GetOperation", GetOperationRequest(name="operations/"), {"name": "INVALID_RESOURCE_NAME"}),
    ("CancelOperation", CancelOperationRequest(name="jobs/a"), {"name": "INVALID_RESOURCE_NAME"}),
    ("ListOperations", ListOperationsRequest(filter="method = NOTHING"), {"filter": "INVALID_FILTER"}),
    ("ListOperations", ListOperationsRequest(page_size=-1), {"page_size": "INT32_GTE"}),
    ("ListOperations", ListOperationsRequest(order_by="state"), {"order_by": "INVALID_ORDER"}),
    ("ListOperations", ListOperationsRequest(page_token="nope"), {"page_token": "INVALID_PAGE_TOKEN"}),
]


@pytest.mark.parametrize(
    ("method", "request_", "fields"), BAD, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wrong_request_is_refused_and_starts_nothing(
    api: Api, service: Service, method: str, request_: Message, fields: dict[str, str]
) -> None:
    before = service.query("SELECT count(*) FROM operations")
    call = api.channel.unary_unary(f"/{SCHEDULING}/{method}")
    refusal = refused(call, request_.SerializeToString(), timeout=PATIENCE)
    assert (refusal.code, refusal.violations) == ("INVALID_ARGUMENT", fields)
    assert service.query("SELECT count(*) FROM operations") == before


@pytest.mark.parametrize("name", ["operations/o-1", "operations/o-01234567-89ab-7cde-8f01-23456789abcd"])
def test_an_operation_that_does_not_exist_is_not_found(api: Api, name: str) -> None:
    assert refused(api.scheduling.GetOperation, GetOperationRequest(name=name)).code == "NOT_FOUND"
    assert refused(api.scheduling.CancelOperation, CancelOperationRequest(name=name)).code == "NOT_FOUND"
