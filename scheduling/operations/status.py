"""Use cases of operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scheduling.domain import recurrence
from scheduling.domain.paging import MAX_PAGE_SIZE, PageToken, page_size
from scheduling.domain.pause import Pause, Scope
from scheduling.domain.target import Target
from scheduling.operations.ports import Page, Ports, QueueStatus, ServiceStatus, TargetStatus

_ORDER = {scope: number for number, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The state of the service, and what works less well than it should."""

    status: ServiceStatus
    redis_up: bool
    degraded_modes: tuple[str, ...]
    time_zone_version: str
    environment: str
    version: str
    pauses: Sequence[Pause] = ()


async def get_status(ports: Ports) -> StatusReport:
    """The state of the whole service. Raises StoreUnavailable."""
    status = await ports.store.status()
    redis_up = await ports.redis.is_up()
    breakers = await ports.store.breakers()
    pauses = sorted(await ports.store.pauses(), key=lambda pause: (_ORDER[pause.scope], pause.name))
    modes = [pause.scope.held_by(pause.name) for pause in pauses]
    if not status.workers:
        modes.append("NO_WORKER")
    if status.leader is None:
        modes.append("NO_LEADER")
    if not redis_up:
        modes.append("REDIS_DOWN")
    if status.read_only:
        modes.append("DATABASE_READ_ONLY")
    if ports.policy_stale():
        modes.append("POLICY_STALE")
    if status.overdue:
        modes.append("BEHIND")
    modes += [f"TARGET_DOWN:{service}" for service, each in sorted(breakers.items()) if each.state != "CLOSED"]
    return StatusReport(
        status=status,
        redis_up=redis_up,
        degraded_modes=tuple(modes),
        time_zone_version=recurrence.zone_version(),
        environment=ports.environment,
        version=ports.version,
        pauses=pauses,
    )


async def list_queues(ports: Ports) -> Sequence[QueueStatus]:
    """The queues, highest priority first. Raises StoreUnavailable."""
    pauses = {pause.name: pause for pause in await ports.store.pauses() if pause.scope is Scope.QUEUE}
    return [replace(each, pause=pauses.get(each.queue.value)) for each in await ports.store.queues()]


async def list_targets(ports: Ports, size: int, token_text: str) -> Page[TargetStatus]:
    """A page of the targets, by method name. Raises InvalidRequest, StoreUnavailable."""
    bound = {"targets": ""}
    token = PageToken.decode(token_text, bound)
    after = "" if token is None else token.read(lambda position: str(position[0]))
    count = page_size(size) if size else MAX_PAGE_SIZE
    rest = [target for target in ports.targets if target.method > after]
    shown = rest[:count]
    next_token = PageToken((shown[-1].method,)).encode(bound) if len(rest) > count else ""
    return Page(await describe_targets(ports, shown), next_token)


async def describe_targets(ports: Ports, targets: Sequence[Target]) -> Sequence[TargetStatus]:
    """The targets with their breakers and pauses. Raises StoreUnavailable."""
    breakers = await ports.store.breakers()
    pauses = {pause.name: pause for pause in await ports.store.pauses() if pause.scope is Scope.TARGET}
    return [
        TargetStatus(each, breakers.get(each.service), pauses.get(each.method) or pauses.get(each.service))
        for each in targets
    ]
