"""Targets: the methods that may be scheduled, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Queue(StrEnum):
    """Priority classes, highest first."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class AfterLostWorker(StrEnum):
    """What happens after a worker was lost in the middle of a call."""

    RETRY_NOW = "RETRY_NOW"
    WAIT_FOR_DEADLINE = "WAIT_FOR_DEADLINE"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently an execution is attempted."""

    max_attempts: int
    initial_backoff: timedelta = timedelta(minutes=1)
    backoff_multiplier: float = 2.0
    max_backoff: timedelta = timedelta(minutes=30)
    max_age: timedelta = timedelta(hours=24)
    after_lost_worker: AfterLostWorker = AfterLostWorker.RETRY_NOW


@dataclass(frozen=True, slots=True)
class Target:
    """A unary method of a sibling that may be scheduled.

    `method` is `package.Service/Method`. `retention` is how long finished executions are kept; None keeps them for
    good. `running_limit` is how many of its executions may hold a slot at once, None for any number.
    """

    method: str
    request_type: str
    response_type: str
    queue: Queue
    retry_policy: RetryPolicy
    timeout: timedelta
    retention: timedelta | None
    description: str = ""
    running_limit: int | None = None

    @property
    def service(self) -> str:
        """The full name of the gRPC service, the unit of addresses and breakers."""
        return self.method.rpartition("/")[0]
