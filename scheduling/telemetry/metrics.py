"""Every metric of the service, in one table, and the object that holds them for a process.

Labels are bounded: a value that was not announced when `Metrics` was built becomes `OTHER`, so no caller and no target
can make series without end. Values of enums are written as the API writes them (`HIGH`, `SUCCEEDED`).
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue

NAMESPACE: Final = "whispr_scheduling"
OTHER: Final = "OTHER"

QUEUES: Final = tuple(queue.value for queue in Queue)
OUTCOMES: Final = tuple(state.value for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED))
#: The status codes of gRPC.
CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: Values of `breaker_state`.
BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN = 0, 1, 2

#: From half a millisecond, which is what a good machine does, to the 15 minutes of the alert (O3); the floors of
#: the service levels (5 s, 30 s, 60 s) are bounds of their own.
LATENESS_BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5,
    0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
)  # fmt: skip
DURATION_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0,
)  # fmt: skip
RPC_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A row of the table. The full name is NAMESPACE, an underscore and `name`; `unit` is empty for plain numbers."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()


TABLE: Final = (
    MetricSpec("counter", "executions_total", "Executions that ended.", ("method", "outcome"), "executions"),
    MetricSpec(
        "counter", "attempts_total", "Calls to targets, by the code of the answer.", ("method", "code"), "attempts"
    ),
    MetricSpec(
        "histogram",
        "lateness_seconds",
        "Start minus ready time of first attempts.",
        ("queue",),
        "seconds",
        LATENESS_BUCKETS,
    ),
    MetricSpec(
        "histogram",
        "attempt_duration_seconds",
        "How long calls to targets took.",
        ("method",),
        "seconds",
        DURATION_BUCKETS,
    ),
    MetricSpec("counter", "released_total", "Executions handed to the workers.", ("queue",), "executions"),
    MetricSpec(
        "histogram", "claim_batch_size", "Executions claimed in one statement.", (), "executions", BATCH_BUCKETS
    ),
    MetricSpec(
        "histogram", "record_batch_size", "Outcomes recorded in one statement.", (), "executions", BATCH_BUCKETS
    ),
    MetricSpec(
        "counter",
        "swept_total",
        "Queued executions that a worker took without their message.",
        ("queue",),
        "executions",
    ),
    MetricSpec(
        "counter",
        "leases_recovered_total",
        "Running executions taken back from lost workers.",
        ("queue",),
        "executions",
    ),
    MetricSpec("counter", "rpc_total", "RPCs answered by this process.", ("method", "code"), "RPCs"),
    MetricSpec("histogram", "rpc_duration_seconds", "How long RPCs took here.", ("method",), "seconds", RPC_BUCKETS),
    MetricSpec(
        "gauge", "queue_waiting", "Due executions not yet handed to workers, held ones too.", ("queue",), "executions"
    ),
    MetricSpec("gauge", "queue_queued", "Executions handed to workers and not yet begun.", ("queue",), "executions"),
    MetricSpec("gauge", "queue_running", "Executions being called.", ("queue",), "executions"),
    MetricSpec("gauge", "queue_retrying", "Executions that wait for a further attempt.", ("queue",), "executions"),
    MetricSpec(
        "gauge", "queue_failed", "Executions that failed for good and may be redriven.", ("queue",), "executions"
    ),
    MetricSpec("gauge", "queue_oldest_seconds", "How long the oldest due execution has waited.", ("queue",), "seconds"),
    MetricSpec("gauge", "breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open.", ("service",)),
    MetricSpec("gauge", "paused", "1 while the whole service is paused, else 0."),
    MetricSpec("gauge", "queue_paused", "1 while the queue is paused, else 0.", ("queue",)),
    MetricSpec("gauge", "target_paused", "1 while the method or its service is paused, else 0.", ("method",)),
    MetricSpec("gauge", "leader", "1 while this process leads, else 0."),
    MetricSpec("gauge", "leader_term", "The last term of leadership that this process knows of."),
    MetricSpec("gauge", "engine_held", "Ids that this process holds for their moment.", ("queue",), "executions"),
    MetricSpec("gauge", "engine_in_flight", "Calls that this process has under way.", ("queue",), "calls"),
    MetricSpec("gauge", "db_pool_in_use", "Connections to PostgreSQL in use.", (), "connections"),
    MetricSpec("gauge", "db_pool_size", "Connections to PostgreSQL that this process may open.", (), "connections"),
    MetricSpec("gauge", "redis_up", "1 while Redis answers, else 0."),
    MetricSpec("counter", "audit_dropped_total", "Refusals that came too fast to be written down.", (), "refusals"),
    MetricSpec("gauge", "policy_stale", "1 while a changed policy was refused and an older one is in force, else 0."),
    MetricSpec(
        "gauge",
        "refresh_time_seconds",
        "Unix time at which the queue and breaker gauges were last read.",
        (),
        "seconds",
    ),
    MetricSpec("gauge", "build_info", "Always 1; the labels tell what runs.", ("version", "python")),
)

_M = TypeVar("_M", Counter, Gauge, Histogram)


class Children(Generic[_M]):
    """The series of one metric by its labels, looked up once and then kept: `children("HIGH").inc()`.

    `allowed` are the known values of each label in order; others are counted as OTHER.
    """

    __slots__ = ("_allowed", "_kept", "_metric")

    def __init__(self, metric: _M, allowed: Iterable[Collection[str]]) -> None:
        self._metric: _M = metric
        self._allowed = tuple(frozenset(values) for values in allowed)
        self._kept: dict[tuple[str, ...], _M] = {}

    def __call__(self, *labels: str) -> _M:
        """The series with these label values."""
        child = self._kept.get(labels)
        if child is None:
            known = tuple(
                str(label) if label in values else OTHER for label, values in zip(labels, self._allowed, strict=True)
            )
            child = self._metric.labels(*known)
            # An unknown value is not kept: keeping it would be the growth that OTHER prevents.
            if OTHER not in known:
                self._kept[labels] = child
        return child


class Metrics:
    """The metrics of one process with their registry.

    `methods` are the targets' (`package.Service/Method`), `services` the targets' gRPC services, `rpc_methods` our own
    RPCs. Labelled metrics are looked up with `…_for(label, …)`; hot paths may keep what that returns.
    """

    def __init__(
        self,
        *,
        version: str,
        methods: Collection[str] = (),
        services: Collection[str] = (),
        rpc_methods: Collection[str] = (),
    ) -> None:
        # A process-wide switch of the library, and the only one: `_created` series would double every counter.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it untyped
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._specs = {spec.name: spec for spec in TABLE}
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.executions_for = Children(counter("executions_total"), (methods, OUTCOMES))
        self.attempts_for = Children(counter("attempts_total"), (methods, CODES))
        self.lateness_for = Children(histogram("lateness_seconds"), (QUEUES,))
        self.attempt_duration_for = Children(histogram("attempt_duration_seconds"), (methods,))
        self.released_for = Children(counter("released_total"), (QUEUES,))
        self.claim_batch = histogram("claim_batch_size")
        self.record_batch = histogram("record_batch_size")
        self.swept_for = Children(counter("swept_total"), (QUEUES,))
        self.leases_recovered_for = Children(counter("leases_recovered_total"), (QUEUES,))
        self.rpc_for = Children(counter("rpc_total"), (rpc_methods, CODES))
        self.rpc_duration_for = Children(histogram("rpc_duration_seconds"), (rpc_methods,))
        self.queue_waiting_for = Children(gauge("queue_waiting"), (QUEUES,))
        self.queue_queued_for = Children(gauge("queue_queued"), (QUEUES,))
        self.queue_running_for = Children(gauge("queue_running"), (QUEUES,))
        self.queue_retrying_for = Children(gauge("queue_retrying"), (QUEUES,))
        self.queue_failed_for = Children(gauge("queue_failed"), (QUEUES,))
        self.queue_oldest_for = Children(gauge("queue_oldest_seconds"), (QUEUES,))
        self.breaker_state_for = Children(gauge("breaker_state"), (services,))
        self.paused = gauge("paused")
        self.queue_paused_for = Children(gauge("queue_paused"), (QUEUES,))
        self.target_paused_for = Children(gauge("target_paused"), (methods,))
        self.leader = gauge("leader")
        self.leader_term = gauge("leader_term")
        self.engine_held_for = Children(gauge("engine_held"), (QUEUES,))
        self.engine_in_flight_for = Children(gauge("engine_in_flight"), (QUEUES,))
        self.db_pool_in_use = gauge("db_pool_in_use")
        self.db_pool_size = gauge("db_pool_size")
        self.redis_up = gauge("redis_up")
        self.policy_stale = gauge("policy_stale")
        self.audit_dropped = counter("audit_dropped_total")
        self.refresh_time = gauge("refresh_time_seconds")
        gauge("build_info").labels(version, platform.python_version()).set(1)

        # A counter that appears with its first event hides that event from rate().
        for queue in QUEUES:
            self.lateness_for(queue)
            for counter_for in (self.released_for, self.swept_for, self.leases_recovered_for):
                counter_for(queue)

    def _counter(self, name: str) -> Counter:
        spec = self._specs[name]
        return Counter(f"{NAMESPACE}_{name}", spec.help, spec.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        spec = self._specs[name]
        return Gauge(f"{NAMESPACE}_{name}", spec.help, spec.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        spec = self._specs[name]
        return Histogram(f"{NAMESPACE}_{name}", spec.help, spec.labels, registry=self.registry, buckets=spec.buckets)
