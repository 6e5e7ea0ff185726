"""Construction: builds each process once, in order, and takes it down in the reverse order.

The only place that knows all rooms. Nothing is built at import time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf import descriptor_pool

from scheduling import __version__
from scheduling.delivery.channels import Channels
from scheduling.delivery.database_clock import DatabaseClock
from scheduling.delivery.engine import DeliveryEngine, EngineSettings
from scheduling.delivery.targets import ROWS, Retention, TargetTable
from scheduling.dispatch.broker import Transport
from scheduling.dispatch.bulk import BulkWork
from scheduling.dispatch.housekeeping import Housekeeper
from scheduling.dispatch.lease import Beat, Canceller, Lease, Reaper
from scheduling.dispatch.loop import Loop
from scheduling.dispatch.planner import Planner
from scheduling.dispatch.pulse import Leadership, Pulse
from scheduling.dispatch.scheduler import Scheduler
from scheduling.domain.audit import Actor
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.ids import uuid7
from scheduling.domain.limits import GateLimits, Limits
from scheduling.domain.pause import Pause, Scope
from scheduling.domain.target import Queue
from scheduling.joints import Breakers, HousekeepingStore, NoTransport, PlannerStore, RecoveryStore, SchedulerStore
from scheduling.observers import EngineObserver, RpcObserver, SchedulerObserver
from scheduling.operations.auditing import RefusalLog
from scheduling.operations.policy_file import PolicyFile
from scheduling.operations.ports import Ports
from scheduling.operations.recover import recover
from scheduling.rpc.authentication import Authenticator, FixedPrincipal, MeshIdentity
from scheduling.rpc.interceptors import allow_all
from scheduling.rpc.server import RpcOptions, RpcServer, api_services
from scheduling.settings import Settings
from scheduling.storage.advancing import AdvancingStore
from scheduling.storage.backfilling import BackfillStore
from scheduling.storage.breaking import BreakerStore
from scheduling.storage.calendars import CalendarStore
from scheduling.storage.controls import ControlStore
from scheduling.storage.database import Database, read_clock
from scheduling.storage.delivering import DeliveryStore
from scheduling.storage.deployments import DeploymentStore
from scheduling.storage.leading import LeadingStore, WorkerIdentity
from scheduling.storage.listening import listen
from scheduling.storage.maintaining import MaintenanceStore
from scheduling.storage.migrate import head_revision
from scheduling.storage.notify import LEADERLESS
from scheduling.storage.pruning import PruningStore
from scheduling.storage.releasing import ReleasingStore
from scheduling.storage.status import StatusStore
from scheduling.storage.stepping import SteppingStore
from scheduling.storage.store import PostgresStore
from scheduling.telemetry.logs import configure_logging, log_event
from scheduling.telemetry.metrics import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, Metrics
from scheduling.telemetry.serve import MetricsServer

_log = logging.getLogger(__name__)

#: Connections of a worker that only claim and record: three queues claim, one batch is recorded.
DELIVERY_CONNECTIONS = 4
_BREAKER_GAUGE = {"CLOSED": BREAKER_CLOSED, "HALF_OPEN": BREAKER_HALF_OPEN, "OPEN": BREAKER_OPEN}


class SystemClock:
    """The real clock: the one place where real time comes in."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()  # noqa: TID251 - this is the clock

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(max(seconds, 0.0))  # noqa: TID251 - this is the clock


class _DatabaseTime:
    """A clock that says what time it is in PostgreSQL."""

    def __init__(self, database_clock: DatabaseClock, clock: Clock) -> None:
        self.now = database_clock.now
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep


def service_names() -> tuple[str, ...]:
    """The short names of the sibling services that the target table needs addresses for."""
    return tuple(sorted({row.method.partition(".")[0] for row in ROWS}))


def build_targets(settings: Settings) -> TargetTable:
    """The target table. Imports the generated contracts."""
    return TargetTable(sent_retention=settings.message_retention)


def _database(settings: Settings, application: str, url: str, *, by_key: bool = False) -> Database:
    return Database(
        url,
        application=application,
        size=DELIVERY_CONNECTIONS if by_key else settings.database_pool_size,
        by_key=by_key,
        hot_timeout=settings.hot_timeout,
        maintenance_timeout=settings.maintenance_timeout,
    )


def _metrics(targets: TargetTable, rpc_methods: Sequence[str] = ()) -> Metrics:
    methods = [target.method for target in targets]
    return Metrics(version=__version__, methods=methods, services=targets.services, rpc_methods=rpc_methods)


def _transport(settings: Settings, clock: Clock, url: str) -> Transport:
    return Transport(url, environment=settings.environment, timeout=settings.redis_timeout, clock=clock)


class _RedisProbe:
    def __init__(self, transport: Transport | None) -> None:
        self._transport = transport

    async def is_up(self) -> bool:
        return self._transport is not None and await self._transport.check()


def limits_of(settings: Settings) -> Limits:
    """The limits that the settings name."""
    return Limits(
        owner_daily_jobs=settings.limit_owner_daily_jobs,
        payload_bytes=settings.limit_payload_bytes,
        retries=settings.limit_retries,
        timeout=settings.limit_timeout,
        past_tolerance=settings.past_tolerance,
    )


def gate_limits_of(settings: Settings, targets: TargetTable) -> GateLimits:
    """What release bounds, by the settings and the target table."""
    rates = dict(settings.limit_rates)
    short = {service: service.partition(".")[0] for service in targets.services}
    return GateLimits(
        owner_running=settings.limit_owner_running,
        exempt_owner=own_principal(settings),
        target_running={each.method: each.running_limit for each in targets if each.running_limit is not None},
        rates={service: rates[name] for service, name in short.items() if name in rates},
    )


def authenticator_of(settings: Settings) -> Authenticator:
    """What tells who calls, as the settings say."""
    if settings.identity == "mesh":
        return MeshIdentity(settings.identity_self, settings.identity_trusted)
    return FixedPrincipal(settings.principal)


def policy_of(
    settings: Settings, rpc_methods: Sequence[str], targets: TargetTable, metrics: Metrics
) -> PolicyFile | None:
    """The policy, None when there is none and everything is allowed. Raises PolicyError with all that is wrong."""
    if settings.policy_file is None:
        return None
    return PolicyFile(
        settings.policy_file,
        rpcs=[method.rpartition(".")[2] for method in rpc_methods],
        targets=[target.method for target in targets],
        on_stale=lambda stale: metrics.policy_stale.set(int(stale)),
    )


def own_principal(settings: Settings) -> str:
    """The service's own owner, who is exempt from quotas."""
    return settings.identity_self if settings.identity == "mesh" else settings.principal


async def run_server(settings: Settings, stop: asyncio.Event, on_ready: Callable[[int], None]) -> None:
    """Serves the API until `stop` is set; `on_ready` is told the port. PostgreSQL may come later: health tells."""
    assert settings.database_url is not None
    configure_logging(settings.log_level, settings.log_format, sys.stderr)
    clock = SystemClock()
    targets = build_targets(settings)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            _database(settings, "whispr-scheduling-server", settings.database_url)
        )
        transport = None if settings.redis_url is None else _transport(settings, clock, settings.redis_url)
        if transport is not None:
            stack.push_async_callback(transport.close)
        time_of_database = DatabaseClock(clock)
        store = PostgresStore(
            database, owner_daily_jobs=settings.limit_owner_daily_jobs, exempt_owner=own_principal(settings)
        )
        ports = Ports(
            store=store,
            targets=targets,
            # Times are judged by the clock that dispatch goes by: a wrong clock of this machine changes nothing.
            clock=_DatabaseTime(time_of_database, clock),
            limits=limits_of(settings),
            redis=_RedisProbe(transport),
            default_time_zone=settings.default_time_zone,
            environment=settings.environment,
            version=__version__,
            policy_stale=lambda: policy is not None and policy.stale,
        )
        services = api_services(ports)
        status = StatusStore(database)
        rpc_methods = rpc_method_names([service.name for service in services])
        metrics = _metrics(targets, rpc_methods)
        policy = policy_of(settings, rpc_methods, targets, metrics)
        refusals = RefusalLog(store, metrics.audit_dropped.inc)
        refresh = _refresher(metrics, targets, database, status, clock, ports.redis.is_up)
        await _serve_metrics(stack, metrics, settings, refresh)
        head = head_revision()

        async def is_serving() -> bool:
            try:
                async with database.hot() as connection:
                    reading = await read_clock(connection, database, clock.monotonic)
                time_of_database.sample(reading.sent, reading.received, reading.now)
                return await status.schema_revision() == head
            except StoreUnavailable:
                return False

        server = RpcServer(
            RpcOptions(listen=settings.grpc_listen, max_receive_bytes=settings.max_message_bytes),
            services=services,
            is_serving=is_serving,
            authenticator=authenticator_of(settings),
            policy=allow_all if policy is None else policy.access,
            refused=refusals.note,
            metrics=RpcObserver(metrics),
            clock=clock,
            described=targets.services,
        )
        port = await server.start()
        await server.check_health()
        told = {"identity": settings.identity, "exposed": settings.identity_exposed}
        log_event(_log, logging.INFO, "server_started", port=port, version=__version__, **told)
        on_ready(port)
        loops = [Loop("refusals", refusals.tick, clock)]
        if policy is not None:
            loops.append(Loop("policy", policy.tick, clock))
        stack.push_async_callback(_end, [asyncio.create_task(loop.run(), name=loop.name) for loop in loops])
        await stop.wait()
        log_event(_log, logging.INFO, "server_stopping")
        await server.stop(settings.server_drain.total_seconds())
        with suppress(StoreUnavailable):
            await refusals.tick()


def rpc_method_names(services: Sequence[str]) -> list[str]:
    """The full names of the services' methods, from their descriptors."""
    pool = descriptor_pool.Default()
    return [f"{name}/{method.name}" for name in services for method in pool.FindServiceByName(name).methods]


async def _serve_metrics(
    stack: AsyncExitStack, metrics: Metrics, settings: Settings, refresh: Callable[[], Awaitable[None]]
) -> None:
    server = await stack.enter_async_context(MetricsServer(metrics.registry, settings.metrics_listen, refresh))
    if settings.metrics_listen:
        # Port 0 takes any free one: whoever is to read the metrics has to be told.
        log_event(_log, logging.INFO, "metrics_served", port=server.port)


def _refresher(
    metrics: Metrics,
    targets: TargetTable,
    database: Database,
    status: StatusStore,
    clock: Clock,
    redis_up: Callable[[], Awaitable[bool]],
) -> Callable[[], Awaitable[None]]:
    """Reads the gauges that are kept in PostgreSQL, when they are asked for."""
    controls = ControlStore(database)

    async def refresh() -> None:
        in_use, size = database.stats()
        metrics.db_pool_in_use.set(in_use)
        metrics.db_pool_size.set(size)
        metrics.redis_up.set(int(await redis_up()))
        for each in await status.queues():
            queue = each.queue.value
            metrics.queue_waiting_for(queue).set(each.waiting)
            metrics.queue_queued_for(queue).set(each.queued)
            metrics.queue_running_for(queue).set(each.running)
            metrics.queue_retrying_for(queue).set(each.retrying)
            metrics.queue_failed_for(queue).set(each.failed)
            oldest = each.oldest_waiting
            metrics.queue_oldest_for(queue).set(0 if oldest is None else oldest.total_seconds())
        _tell_pauses(metrics, targets, await controls.pauses())
        breakers = await status.breakers()
        for service in targets.services:
            breaker = breakers.get(service)
            metrics.breaker_state_for(service).set(BREAKER_CLOSED if breaker is None else _BREAKER_GAUGE[breaker.state])
        metrics.refresh_time.set(clock.now().timestamp())

    return refresh


def _tell_pauses(metrics: Metrics, targets: TargetTable, pauses: Sequence[Pause]) -> None:
    paused = {(pause.scope, pause.name) for pause in pauses}
    metrics.paused.set(int((Scope.SERVICE, "") in paused))
    for queue in Queue:
        metrics.queue_paused_for(queue.value).set(int((Scope.QUEUE, queue.value) in paused))
    for each in targets:
        names = {(Scope.TARGET, each.method), (Scope.TARGET, each.service)}
        metrics.target_paused_for(each.method).set(int(not paused.isdisjoint(names)))


async def run_worker(settings: Settings, stop: asyncio.Event, on_ready: Callable[[UUID], None]) -> None:
    """Delivers, and takes part in leading, until `stop` is set; `on_ready` is told the worker's id.

    Raises WorkerFailed when a part of it ends before: whoever supervises the process is to start another one.
    """
    assert settings.database_url is not None
    configure_logging(settings.log_level, settings.log_format, sys.stderr)
    clock = SystemClock()
    targets = build_targets(settings)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            _database(settings, "whispr-scheduling-worker", settings.database_url)
        )
        delivering = await stack.enter_async_context(
            _database(settings, "whispr-scheduling-delivery", settings.database_url, by_key=True)
        )
        worker = Worker(settings, database, delivering, targets, clock)
        await _serve_metrics(stack, worker.metrics, settings, worker.refresh)
        await worker.start()
        on_ready(worker.identity.uid)
        try:
            await worker.work(stop)
        finally:
            await worker.stop()


def prunable_targets(targets: TargetTable) -> list[str]:
    """The targets whose failed executions may go in time. What is kept until it is sent is not among them."""
    spans = (Retention.WEEK, Retention.MONTH)
    return [target.method for target in targets if targets.retention_class(target.method) in spans]


class WorkerFailed(Exception):
    """A part of the worker ended that should not: the process looks alive and does not do its work."""


class Worker:
    """One worker process: engine, lease, leadership, pulse, scheduler, and the transport between them."""

    def __init__(
        self, settings: Settings, database: Database, delivering: Database, targets: TargetTable, clock: Clock
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.metrics = _metrics(targets)
        self.identity = WorkerIdentity(
            uid=uuid7(clock.now()),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues=settings.queues,
        )
        self._leading = LeadingStore(database, clock.monotonic)
        self._targets = tuple(target.method for target in targets)
        self._delivering = DeliveryStore(delivering, self._targets)
        self._breaking = BreakerStore(database)
        releasing = ReleasingStore(
            database, limits=gate_limits_of(settings, targets), queue_depth=settings.limit_queue_depth
        )
        self._controls = ControlStore(database)
        self._is_to_pause = not settings.enabled
        advancing = AdvancingStore(database)
        self._database = database
        self._database_clock = DatabaseClock(clock)
        self._channels = Channels(targets, settings.addresses)
        self.engine = DeliveryEngine(
            worker=self.identity.uid,
            store=self._delivering,
            caller=self._channels,
            clock=clock,
            database_clock=self._database_clock,
            settings=EngineSettings(
                slots={queue: settings.slots(queue) for queue in settings.queues},
                targets=self._targets,
                capacity=settings.engine_capacity,
                claim_lead=settings.claim_lead,
                claim_ahead=settings.claim_ahead,
                record_gap=settings.record_gap,
                sweep_after=settings.sweep_after,
            ),
            observer=EngineObserver(self.metrics),
            breakers=Breakers(self._breaking),
        )
        self._observer = SchedulerObserver(self.metrics)
        self._transport = None if settings.redis_url is None else _transport(settings, clock, settings.redis_url)
        sender = self._transport or NoTransport()
        self._scheduler = Scheduler(
            SchedulerStore(advancing, releasing), sender, clock, settings.look_ahead, self._observer
        )
        self.leadership = Leadership(
            self.identity.uid,
            self._leading,
            clock,
            ttl=settings.leader_ttl,
            renew=settings.leader_renew,
            standby=settings.standby_poll,
        )
        self._pulse = Pulse(
            self.leadership,
            releasing,
            sender,
            self._scheduler,
            clock,
            look_ahead=settings.look_ahead,
            poll=settings.poll_interval,
        )
        lease = Lease(
            self.engine,
            self._beat,
            self._database_clock,
            clock,
            beat=settings.heartbeat,
            cutoff=settings.worker_cutoff,
        )
        planner = Planner(
            self.leadership,
            PlannerStore(CalendarStore(database), BackfillStore(database), DeploymentStore(database)),
            clock,
            settings.deployment or __version__,
        )
        housekeeper = Housekeeper(
            self.leadership,
            HousekeepingStore(self._leading, MaintenanceStore(database), PruningStore(database)),
            clock,
            keep_failed=settings.failed_retention,
            failed_targets=prunable_targets(targets),
        )
        self._pulse_loop = Loop("pulse", self._pulse.tick, clock)
        self._loops = [
            Loop("lease_guard", lease.guard, clock),
            Loop("canceller", Canceller(self.identity.uid, self._delivering, self.engine).tick, clock),
            self._pulse_loop,
            Loop("reaper", Reaper(self.leadership, self._recover, clock).tick, clock),
            Loop("planner", planner.tick, clock),
            Loop("bulk", BulkWork(self.leadership, SteppingStore(database)).tick, clock),
            Loop("housekeeping", housekeeper.tick, clock),
            Loop("listener", self._listen, clock),
        ]
        # These two go last at shutdown: as long as calls are under way, others must know that this process lives.
        self._leadership_loop = Loop("leadership", self.leadership.tick, clock)
        self._vital = [Loop("lease", lease.tick, clock), self._leadership_loop]
        self._tasks: list[asyncio.Task[None]] = []
        self._vital_tasks: list[asyncio.Task[None]] = []
        self._refresh_stored = _refresher(
            self.metrics,
            targets,
            database,
            StatusStore(database),
            clock,
            _RedisProbe(self._transport).is_up,
        )

    async def start(self) -> None:
        """Starts everything; nothing waits for PostgreSQL or Redis to be there."""
        self._vital_tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in self._vital]
        self._tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in self._loops]
        self._tasks.append(asyncio.create_task(self.engine.run(), name="engine"))
        if self._transport is not None:
            self._transport.listen(self._settings.queues, schedule=self._scheduler.act, deliver=self.engine.hand_over)
        log_event(_log, logging.INFO, "worker_started", worker=str(self.identity.uid), version=__version__)

    async def work(self, stop: asyncio.Event) -> None:
        """Waits until `stop` is set. Raises WorkerFailed when any part of the worker ends before."""
        stopped = asyncio.create_task(stop.wait())
        parts = [*self._tasks, *self._vital_tasks]
        try:
            done, _ = await asyncio.wait({stopped, *parts}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for part in done.intersection(parts):
            error = None if part.cancelled() else part.exception()
            log_event(_log, logging.ERROR, "worker_failed", part=part.get_name(), exc_info=error)
            raise WorkerFailed(f"{part.get_name()} ended unexpectedly") from error

    async def stop(self) -> None:
        """Stops gently: leadership is handed over, what waits goes to others, calls may end, outcomes are recorded, the
        lease is signed off.
        """
        log_event(_log, logging.INFO, "worker_stopping", worker=str(self.identity.uid))
        leadership = self._vital_tasks.pop()
        await _end([leadership])
        await self.leadership.resign()
        if self._transport is not None:
            await self._transport.stop_listening()
        drained = asyncio.create_task(self.engine.drain(self._settings.worker_drain))
        if self._transport is not None:
            for queue, items in self.engine.take_waiting().items():
                await self._transport.send(queue, items)
        await drained
        if self._transport is not None:
            await self._transport.close()
        await _end([*self._tasks, *self._vital_tasks])
        try:
            await self._leading.sign_off(self.identity.uid)
        except StoreUnavailable:
            log_event(_log, logging.WARNING, "sign_off_failed", worker=str(self.identity.uid))
        await self._channels.close()
        log_event(_log, logging.INFO, "worker_stopped", worker=str(self.identity.uid))

    async def _beat(self, last_start: datetime | None) -> Beat:
        if self._is_to_pause:
            # Before the first heartbeat: without a lease nothing is claimed.
            by = Actor(own_principal(self._settings), "SCHEDULING_ENABLED")
            await self._controls.pause(Scope.SERVICE, "", by.principal, "SCHEDULING_ENABLED is false", by)
            self._is_to_pause = False
        beat = await self._leading.beat(self.identity, self._settings.worker_ttl, last_start)
        self.engine.suspect(await self._breaking.unclean())
        queues, targets = self._settings.queues, self._targets
        for queue, uid in (await self._delivering.reserve_crashed(self.identity.uid, queues, targets)).items():
            self.engine.isolate(queue, uid)
        return beat

    async def _recover(self, term: int, grace: timedelta, *, dry_run: bool) -> int:
        lost = await recover(RecoveryStore(self._leading, self._delivering), term, grace, dry_run=dry_run)
        self._observer.recovered(lost)
        return len(lost)

    async def _listen(self) -> float:
        def set_listening(*, listening: bool) -> None:
            self._pulse.is_listening = listening

        def take_hint(hint: str) -> None:
            if hint == LEADERLESS:
                self._leadership_loop.wake()
            self._pulse_loop.wake()

        await listen(self._database, self._clock, on_hint=take_hint, on_change=set_listening)
        return 0.0

    async def refresh(self) -> None:
        """Sets the gauges, before they are read."""
        term = self.leadership.term
        self.metrics.leader.set(0 if term is None else 1)
        if term is not None:
            self.metrics.leader_term.set(term)
        for queue in self._settings.queues:
            self.metrics.engine_held_for(queue.value).set(self.engine.waiting(queue))
            self.metrics.engine_in_flight_for(queue.value).set(self.engine.in_flight(queue))
        await self._refresh_stored()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
