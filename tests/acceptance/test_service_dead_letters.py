"""Dead letters and operations in bulk through the public API of a running service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from whispr.scheduling.v1.execution_pb2 import Execution
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.scheduling_service_pb2 import CancelJobRequest, RetryExecutionRequest

from tests.support.servers import Databases
from tests.support.service import Api, Service, after, eventually, refused, running_service, send_job

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
