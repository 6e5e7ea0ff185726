"""The limits of what callers may ask for, and what else bounds a request. Values come from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a caller may ask for."""

    owner_daily_jobs: int = 1000  # L1
    payload_bytes: int = 1_000_000  # L2
    retries: int = 5  # L4
    timeout: timedelta = timedelta(minutes=30)  # L5
    past_tolerance: timedelta = timedelta(seconds=60)  # S17
    horizon: timedelta = timedelta(days=3653)
    schedules_per_job: int = 100


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How much may be released and running at once, and how fast.

    `owner_running` holds for each owner but `exempt_owner`; `target_running` by method; `rates` are calls a second by
    gRPC service. What is not named is not bounded.
    """

    owner_running: int = 10  # L3
    exempt_owner: str = ""
    target_running: Mapping[str, int] = field(default_factory=dict)  # E20
    rates: Mapping[str, float] = field(default_factory=dict)


#: Responses up to this size are kept with the execution.
KEPT_RESPONSE_BYTES = 4096
#: An error text of a target is kept up to this many characters.
KEPT_MESSAGE_CHARACTERS = 1000
