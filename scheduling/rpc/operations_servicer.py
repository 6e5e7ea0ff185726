"""OperationsService: what operators look at."""

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
    Status,
)

from scheduling.operations import auditing, status
from scheduling.operations.ports import Ports
from scheduling.rpc import audit_mapping, mapping, reading
from scheduling.rpc.call import PortsOfCalls

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

    async def ListAuditEntries(self, request: ListAuditEntriesRequest, context: Context) -> ListAuditEntriesResponse:
        page = await auditing.list_audit_entries(self._ports, request.resource, reading.query(request))
        return audit_mapping.page(page)
