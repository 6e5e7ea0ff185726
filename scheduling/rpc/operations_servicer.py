"""OperationsService: what operators look at, and the pauses that they make."""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

from __future__ import annotations

from typing import Any

from whispr.scheduling.v1 import operations_service_pb2_grpc as stubs
from whispr.scheduling.v1.operations_service_pb2 import (
    DESCRIPTOR,
    GetStatusRequest,
    ListAuditEntriesRequest,
    ListAuditEntriesResponse,
    ListQueuesRequest,
    ListQueuesResponse,
    ListTargetsRequest,
    ListTargetsResponse,
    PauseQueueRequest,
    PauseServiceRequest,
    PauseTargetRequest,
    PauseTargetResponse,
    QueueStatus,
    ResumeQueueRequest,
    ResumeServiceRequest,
    ResumeTargetRequest,
    ResumeTargetResponse,
    Status,
)

from scheduling.operations import auditing, pauses, status
from scheduling.operations.ports import Ports
from scheduling.rpc import audit_mapping, mapping, reading
from scheduling.rpc.call import PortsOfCalls, current_call
from scheduling.rpc.mapping import QUEUES

SERVICE_NAME: str = DESCRIPTOR.services_by_name["OperationsService"].full_name

Context = Any  # grpc.aio.ServicerContext, which its library leaves untyped


class OperationsServicer(stubs.OperationsServiceServicer):
    """The methods of OperationsService. What they do is said in the proto; errors are raised as SchedulingError."""

    def __init__(self, ports: Ports) -> None:
        self._ports_of_calls = PortsOfCalls(ports)

    @property
    def _ports(self) -> Ports:
        return self._ports_of_calls.current()

    async def GetStatus(self, request: GetStatusRequest, context: Context) -> Status:
        return mapping.status(await status.get_status(self._ports))

    async def ListQueues(self, request: ListQueuesRequest, context: Context) -> ListQueuesResponse:
        queues = await status.list_queues(self._ports)
        return ListQueuesResponse(queues=[mapping.queue_status(queue) for queue in queues])

    async def ListTargets(self, request: ListTargetsRequest, context: Context) -> ListTargetsResponse:
        page = await status.list_targets(self._ports, request.page_size, request.page_token)
        return mapping.target_page(page)

    async def PauseQueue(self, request: PauseQueueRequest, context: Context) -> QueueStatus:
        principal, queue = current_call().principal, QUEUES.value(request.queue)
        return mapping.queue_status(await pauses.pause_queue(self._ports, principal, queue, request.note))

    async def ResumeQueue(self, request: ResumeQueueRequest, context: Context) -> QueueStatus:
        return mapping.queue_status(await pauses.resume_queue(self._ports, QUEUES.value(request.queue)))

    async def PauseTarget(self, request: PauseTargetRequest, context: Context) -> PauseTargetResponse:
        principal = current_call().principal
        found = await pauses.pause_target(self._ports, principal, request.name, request.note)
        return PauseTargetResponse(targets=[mapping.target_status(each) for each in found])

    async def ResumeTarget(self, request: ResumeTargetRequest, context: Context) -> ResumeTargetResponse:
        found = await pauses.resume_target(self._ports, request.name)
        return ResumeTargetResponse(targets=[mapping.target_status(each) for each in found])

    async def PauseService(self, request: PauseServiceRequest, context: Context) -> Status:
        principal = current_call().principal
        return mapping.status(await pauses.pause_service(self._ports, principal, request.note))

    async def ResumeService(self, request: ResumeServiceRequest, context: Context) -> Status:
        return mapping.status(await pauses.resume_service(self._ports))

    async def ListAuditEntries(self, request: ListAuditEntriesRequest, context: Context) -> ListAuditEntriesResponse:
        page = await auditing.list_audit_entries(self._ports, request.resource, reading.query(request))
        return audit_mapping.page(page)
