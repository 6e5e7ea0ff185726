"""Use cases of operators: pausing the service, queues and targets. Holds, and skips nothing."""

from __future__ import annotations

from collections.abc import Sequence

from scheduling.domain.errors import NotFound, invalid
from scheduling.domain.pause import Scope
from scheduling.domain.target import Queue, Target
from scheduling.operations.ports import Ports, QueueStatus, TargetStatus
from scheduling.operations.status import StatusReport, describe_targets, get_status, list_queues

RESOURCE = "Target"
_PREFIX = "targets/"


async def pause_queue(ports: Ports, principal: str, queue: Queue, note: str) -> QueueStatus:
    """Pauses a queue; one that is paused stays as it is. Raises StoreUnavailable."""
    await ports.store.pause(Scope.QUEUE, queue.value, principal, note)
    return await _queue(ports, queue)


async def resume_queue(ports: Ports, queue: Queue) -> QueueStatus:
    """Resumes a queue; one that is not paused stays as it is. Raises StoreUnavailable."""
    await ports.store.resume(Scope.QUEUE, queue.value)
    return await _queue(ports, queue)


async def pause_target(ports: Ports, principal: str, name: str, note: str) -> Sequence[TargetStatus]:
    """Pauses `targets/{target}`, a method or a whole gRPC service; returns the targets that it concerns.

    Raises InvalidRequest, NotFound, StoreUnavailable.
    """
    stored, targets = _find(ports, name)
    await ports.store.pause(Scope.TARGET, stored, principal, note)
    return await describe_targets(ports, targets)


async def resume_target(ports: Ports, name: str) -> Sequence[TargetStatus]:
    """Resumes what was paused under this name. Raises InvalidRequest, NotFound, StoreUnavailable."""
    stored, targets = _find(ports, name)
    await ports.store.resume(Scope.TARGET, stored)
    return await describe_targets(ports, targets)


async def pause_service(ports: Ports, principal: str, note: str) -> StatusReport:
    """Pauses all delivery. Raises StoreUnavailable."""
    await ports.store.pause(Scope.SERVICE, "", principal, note)
    return await get_status(ports)


async def resume_service(ports: Ports) -> StatusReport:
    """Resumes delivery. Raises StoreUnavailable."""
    await ports.store.resume(Scope.SERVICE, "")
    return await get_status(ports)


async def _queue(ports: Ports, queue: Queue) -> QueueStatus:
    return next(each for each in await list_queues(ports) if each.queue is queue)


def _find(ports: Ports, name: str) -> tuple[str, Sequence[Target]]:
    """The method or service that `name` means, and its targets."""
    dotted = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or not dotted or "/" in dotted:
        raise invalid("name", "expected targets/{target}, such as targets/media.MediaService", "INVALID_NAME")
    for each in ports.targets:
        if each.method.replace("/", ".") == dotted:
            return each.method, [each]
    of_service = [each for each in ports.targets if each.service == dotted]
    if not of_service:
        raise NotFound(RESOURCE, name)
    return dotted, of_service
