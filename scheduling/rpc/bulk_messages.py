"""Operations in bulk: requests as `operations.bulk` takes them, and what it answers as messages."""

from __future__ import annotations

from typing import NamedTuple

from whispr.scheduling.v1 import operation_pb2, scheduling_service_pb2

from scheduling.domain.bulk import BulkMethod, Operation, OperationState
from scheduling.operations.ports import Page
from scheduling.rpc import names
from scheduling.rpc.values import EnumMap

METHODS = EnumMap(BulkMethod, operation_pb2.Operation.Method)
OPERATION_STATES = EnumMap(OperationState, operation_pb2.Operation.State)


class RetryQuery(NamedTuple):
    """Arguments of batch_retry_executions. `job_id` None for all jobs, `rate` 0 for the default."""

    job_id: str | None
    filter: str
    rate: int


class EraseQuery(NamedTuple):
    """Arguments of erase_jobs. `rate` 0 for the default."""

    owner: str | None
    label: tuple[str, str] | None
    rate: int


def retry(request: scheduling_service_pb2.BatchRetryExecutionsRequest) -> RetryQuery:
    """Which dead letters."""
    return RetryQuery(names.parent_job_id(request.parent), request.filter, request.rate)


def erase(request: scheduling_service_pb2.EraseJobsRequest) -> EraseQuery:
    """Whose jobs."""
    what = request.WhichOneof("what")
    label = (request.label.key, request.label.value) if what == "label" else None
    return EraseQuery(request.owner if what == "owner" else None, label, request.rate)


def operation(value: Operation) -> operation_pb2.Operation:
    """The operation with its progress."""
    chosen = value.selection
    label = None if chosen.label is None else operation_pb2.Label(key=chosen.label[0], value=chosen.label[1])
    return operation_pb2.Operation(
        name=value.name,
        method=METHODS.number(chosen.method),
        state=OPERATION_STATES.number(value.state),
        parent=chosen.parent,
        filter=chosen.filter,
        owner=chosen.owner or "",
        label=label,
        rate=value.rate,
        total_count=value.total,
        total_count_partial=value.total_is_partial,
        done_count=value.done,
        passed_count=value.passed,
        failed_count=value.failed,
        failures=value.failures,
        principal=value.principal,
        create_time=value.create_time,
        update_time=value.update_time,
        end_time=value.end_time,
    )


def operation_page(page: Page[Operation]) -> scheduling_service_pb2.ListOperationsResponse:
    """One page of operations."""
    return scheduling_service_pb2.ListOperationsResponse(
        operations=[operation(item) for item in page.items], next_page_token=page.next_page_token
    )
