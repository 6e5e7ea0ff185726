"""The permission matrix: what each principal of `docs/policy.toml` gets from each RPC about whose job.

The table is written down here, by kinds of RPC, and not computed by the code that decides. `docs/security.md` shows it,
and `tests/integration/test_permission_matrix.py` tries every cell on a real server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from whispr.scheduling.v1 import operations_service_pb2, scheduling_service_pb2

MESH: Final = "spiffe://cluster.local/ns/whispr/sa"
#: The principals, as columns of the table.
PRINCIPALS: Final = {
    "messaging": f"{MESH}/messaging-service",
    "media": f"{MESH}/media-service",
    "gateway": f"{MESH}/api-gateway",
    "operator": f"{MESH}/operator",
    "stranger": f"{MESH}/stranger",
}
#: Whose job a call is about.
MESSAGING, MEDIA, NOBODY = "messaging", "media", "nobody"
WHOSE: Final = (MESSAGING, MEDIA, NOBODY)


class Cell(StrEnum):
    """What comes of a call."""

    OK = "yes"
    EMPTY = "yes, without it"
    DENIED = "no"
    NOT_FOUND = "not found"
    INVALID = "invalid"


class Kind(StrEnum):
    """RPCs that are treated alike."""

    READ = "reads something of a job"
    SHOWN = "reads something of a job, also for the gateway"
    LIST = "lists what may be seen, or changes it in bulk"
    CHANGE = "changes or ends something of a job"
    CALL = "brings calls about"
    CREATE = "creates a job that calls a method of that sibling"
    SHARED = "reads what all siblings share"
    SHARED_CHANGE = "changes what all siblings share"
    TARGETS = "tells what may be scheduled"
    OPERATE = "looks after the service"


_KINDS: Final = {
    "SchedulingService/GetJob": Kind.SHOWN,
    "SchedulingService/ListJobs": Kind.LIST,
    "SchedulingService/CreateJob": Kind.CREATE,
    "SchedulingService/BatchCreateJobs": Kind.CREATE,
    "SchedulingService/UpdateJob": Kind.CALL,
    "SchedulingService/DeleteJob": Kind.CHANGE,
    "SchedulingService/CancelJob": Kind.CHANGE,
    "SchedulingService/RunJob": Kind.CALL,
    "SchedulingService/GetSchedule": Kind.READ,
    "SchedulingService/ListSchedules": Kind.READ,
    "SchedulingService/ScheduleJob": Kind.CALL,
    "SchedulingService/DeleteSchedule": Kind.CHANGE,
    "SchedulingService/UpdateSchedule": Kind.CALL,
    "SchedulingService/PauseSchedule": Kind.CHANGE,
    "SchedulingService/ResumeSchedule": Kind.CALL,
    "SchedulingService/BackfillSchedule": Kind.CALL,
    "SchedulingService/GetBackfill": Kind.READ,
    "SchedulingService/CancelBackfill": Kind.CHANGE,
    "SchedulingService/PreviewSchedule": Kind.READ,
    "SchedulingService/GetCalendar": Kind.SHARED,
    "SchedulingService/ListCalendars": Kind.TARGETS,
    "SchedulingService/CreateCalendar": Kind.OPERATE,
    "SchedulingService/UpdateCalendar": Kind.SHARED_CHANGE,
    "SchedulingService/DeleteCalendar": Kind.SHARED_CHANGE,
    "SchedulingService/GetExecution": Kind.SHOWN,
    "SchedulingService/ListExecutions": Kind.SHOWN,
    "SchedulingService/CancelExecution": Kind.CHANGE,
    "SchedulingService/WatchExecutions": Kind.READ,
    "SchedulingService/RetryExecution": Kind.CALL,
    "SchedulingService/BatchRetryExecutions": Kind.CALL,
    "SchedulingService/BatchCancelJobs": Kind.LIST,
    "SchedulingService/EraseJobs": Kind.OPERATE,
    "SchedulingService/GetOperation": Kind.READ,
    "SchedulingService/ListOperations": Kind.LIST,
    "SchedulingService/CancelOperation": Kind.CHANGE,
    "OperationsService/GetStatus": Kind.OPERATE,
    "OperationsService/ListQueues": Kind.OPERATE,
    "OperationsService/ListTargets": Kind.TARGETS,
    "OperationsService/PauseQueue": Kind.OPERATE,
    "OperationsService/ResumeQueue": Kind.OPERATE,
    "OperationsService/PauseTarget": Kind.OPERATE,
    "OperationsService/ResumeTarget": Kind.OPERATE,
    "OperationsService/PauseService": Kind.OPERATE,
    "OperationsService/ResumeService": Kind.OPERATE,
    "OperationsService/ListAuditEntries": Kind.OPERATE,
}
RPCS: Final = [
    f"{service.name}/{method.name}"
    for service in (
        scheduling_service_pb2.DESCRIPTOR.services_by_name["SchedulingService"],
        operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
    )
    for method in service.methods
]
#: Every RPC with its kind. One that has none makes the tests fail.
ROWS: Final = {rpc: kind for rpc, kind in _KINDS.items() if rpc in RPCS}


def expected(rpc: str, principal: str, whose: str) -> Cell:
    """What `principal` gets from `rpc` about the job of `whose`."""
    kind = ROWS[rpc]
    if principal == "stranger":
        return Cell.DENIED
    if principal == "operator":
        return _for_operator(kind, whose)
    if principal == "gateway":
        return _for_gateway(kind, rpc, whose)
    own = principal == whose
    match kind:
        case Kind.READ | Kind.SHOWN | Kind.CHANGE | Kind.CALL:
            return Cell.OK if own else Cell.DENIED
        case Kind.CREATE:
            return Cell.OK if own else Cell.INVALID if whose == NOBODY else Cell.DENIED
        case Kind.LIST:
            return Cell.OK if own else Cell.EMPTY
        case Kind.SHARED:
            return Cell.NOT_FOUND if whose == NOBODY else Cell.OK
        case Kind.TARGETS:
            return Cell.OK
        case Kind.SHARED_CHANGE | Kind.OPERATE:
            return Cell.DENIED


def _for_operator(kind: Kind, whose: str) -> Cell:
    if whose != NOBODY or kind in (Kind.TARGETS, Kind.OPERATE):
        return Cell.OK
    return {Kind.LIST: Cell.EMPTY, Kind.CREATE: Cell.INVALID}.get(kind, Cell.NOT_FOUND)


def _for_gateway(kind: Kind, rpc: str, whose: str) -> Cell:
    if kind is Kind.SHOWN:
        return Cell.OK if whose == MESSAGING else Cell.DENIED
    if rpc == "SchedulingService/ListJobs":
        return Cell.OK if whose == MESSAGING else Cell.EMPTY
    return Cell.DENIED


def matrix() -> tuple[list[str], list[list[str]]]:
    """The table for the documents: its head and its rows; a cell tells the three jobs in the order of WHOSE."""
    head = ["RPC", *PRINCIPALS]
    rows = []
    for rpc in ROWS:
        cells = []
        for principal in PRINCIPALS:
            found = [expected(rpc, principal, whose) for whose in WHOSE]
            cells.append(found[0].value if len(set(found)) == 1 else " · ".join(found))
        rows.append([f"`{rpc}`", *cells])
    return head, rows
