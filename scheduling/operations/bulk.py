"""Use cases of operations in bulk: dead letters tried again, jobs cancelled, owners erased."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from scheduling.domain.bulk import (
    DEFAULT_RATE,
    BulkMethod,
    Operation,
    OperationState,
    Selection,
    parse_operation_id,
)
from scheduling.domain.errors import NotFound, StoreUnavailable, invalid
from scheduling.domain.filters import STRING, TIMESTAMP, enum_of, parse_filter
from scheduling.domain.ids import uuid7
from scheduling.operations import repeats
from scheduling.operations.drafts import ListQuery, Repeat
from scheduling.operations.executions import EXECUTION_FIELDS
from scheduling.operations.jobs import JOB_FIELDS, get_job
from scheduling.operations.pages import read_page
from scheduling.operations.ports import NewOperation, Page, Ports

RESOURCE = "Operation"
#: Seconds that counting what matches may take; then the number is a lower bound.
COUNT_SECONDS = 3.0

_FIELDS = {
    "method": enum_of(BulkMethod),
    "state": enum_of(OperationState),
    "owner": STRING,
    "principal": STRING,
    "create_time": TIMESTAMP,
    "end_time": TIMESTAMP,
}


async def batch_retry_executions(
    ports: Ports,
    principal: str,
    job_id: str | None,
    filter_text: str,
    rate: int,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Operation:
    """Has dead letters tried again: those of a job, or of all jobs for None. Raises InvalidRequest, NotFound,
    AlreadyExists.
    """
    if job_id is None and not filter_text.strip():
        raise invalid("filter", "is required over all jobs; `state = FAILED` means all dead letters", "REQUIRED")
    parse_filter(filter_text, EXECUTION_FIELDS)
    answer = await _first_answer(ports, principal, repeat)
    if answer is not None:
        return answer
    job_uid = None if job_id is None else (await get_job(ports, job_id, with_payload=False)).uid
    selection = Selection(
        BulkMethod.BATCH_RETRY_EXECUTIONS,
        parent=f"jobs/{job_id or '-'}",
        job_uid=job_uid,
        filter=filter_text,
        # The one job was checked as any call about it is.
        principals=_granted(ports) if job_id is None else None,
    )
    return await _start(ports, principal, selection, rate, repeat, validate_only=validate_only)


async def batch_cancel_jobs(
    ports: Ports,
    principal: str,
    filter_text: str,
    rate: int,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Operation:
    """Has jobs cancelled. Raises InvalidRequest, AlreadyExists."""
    if not filter_text.strip():
        raise invalid("filter", "is required; expected which jobs, such as owner = u-17", "REQUIRED")
    parse_filter(filter_text, JOB_FIELDS)
    answer = await _first_answer(ports, principal, repeat)
    if answer is not None:
        return answer
    selection = Selection(BulkMethod.BATCH_CANCEL_JOBS, filter=filter_text, principals=_granted(ports))
    return await _start(ports, principal, selection, rate, repeat, validate_only=validate_only)


async def erase_jobs(
    ports: Ports,
    principal: str,
    owner: str | None,
    label: tuple[str, str] | None,
    rate: int,
    repeat: Repeat,
    *,
    validate_only: bool = False,
) -> Operation:
    """Has everything of an owner or a label removed. Raises InvalidRequest, AlreadyExists."""
    if (owner is None) == (label is None):
        raise invalid("what", "expected one of owner, label", "REQUIRED")
    answer = await _first_answer(ports, principal, repeat)
    if answer is not None:
        return answer
    selection = Selection(BulkMethod.ERASE_JOBS, owner=owner, label=label, principals=_granted(ports))
    return await _start(ports, principal, selection, rate, repeat, validate_only=validate_only)


async def get_operation(ports: Ports, operation_id: str) -> Operation:
    """The operation with its progress. Raises NotFound, or PermissionDenied whether it is there or not."""
    uid, name, seen = parse_operation_id(operation_id), f"operations/{operation_id}", ports.access.principals
    operation = None if uid is None else await ports.store.get_operation(uid)
    if seen is not None and (operation is None or operation.principal not in seen):
        message = f"{name} is not among the operations granted"
        raise ports.access.denied("OPERATION_NOT_GRANTED", message, "operation", name)
    if operation is None:
        raise NotFound(RESOURCE, name)
    return operation


async def list_operations(ports: Ports, query: ListQuery) -> Page[Operation]:
    """A page of the operations. Raises InvalidRequest."""
    return await read_page(
        query,
        parent="operations",
        fields=_FIELDS,
        orders=("create_time",),
        principals=ports.access.principals,
        read=ports.store.list_operations,
    )


async def cancel_operation(ports: Ports, operation_id: str) -> Operation:
    """Ends an operation; one that has ended stays as it is. Raises NotFound."""
    operation = await get_operation(ports, operation_id)
    assert operation.uid is not None
    await ports.store.cancel_operation(operation.uid)
    return await get_operation(ports, operation_id)


def _granted(ports: Ports) -> tuple[str, ...] | None:
    """Whose jobs the caller may touch; kept with the operation, so that it touches no others later on."""
    seen = ports.access.principals_in_bulk
    return None if seen is None else tuple(sorted(seen))


async def _first_answer(ports: Ports, principal: str, repeat: Repeat) -> Operation | None:
    answer = await repeats.find_answer(ports, principal, repeat)
    return None if answer is None else await _stored(ports, answer[0], repeat)


async def _stored(ports: Ports, uid: UUID, repeat: Repeat) -> Operation:
    operation = await ports.store.get_operation(uid)
    if operation is None:
        raise repeats.answer_deleted(repeat)
    return operation


async def _start(
    ports: Ports, principal: str, selection: Selection, rate: int, repeat: Repeat, *, validate_only: bool
) -> Operation:
    total, is_partial = await _count(ports, selection)
    now = ports.clock.now()
    planned = Operation(
        uid=None,
        selection=selection,
        state=OperationState.RUNNING,
        rate=rate or DEFAULT_RATE,
        total=total,
        total_is_partial=is_partial,
        done=0,
        passed=0,
        failed=0,
        failures=(),
        principal=principal,
        create_time=now,
        update_time=now,
        end_time=None,
    )
    if validate_only:
        return planned
    new = NewOperation(replace(planned, uid=uuid7(now)), repeat.request_id, repeat.digest)
    return await _stored(ports, await ports.store.add_operation(new), repeat)


async def _count(ports: Ports, selection: Selection) -> tuple[int, bool]:
    """How many match, and whether the time was too short to count them all. Stretch by stretch: none takes long."""
    began = ports.clock.monotonic()
    total, after = 0, None
    while True:
        try:
            count, after = await ports.store.count_selected(selection, after)
        except StoreUnavailable:
            if total:
                return total, True
            raise
        total += count
        if after is None:
            return total, False
        if ports.clock.monotonic() - began > COUNT_SECONDS:
            return total, True
