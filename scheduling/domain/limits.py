"""The limits of what callers may ask for, and what else bounds a request. Values come from the settings."""

from __future__ import annotations

from dataclasses import dataclass
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


#: Responses up to this size are kept with the execution.
KEPT_RESPONSE_BYTES = 4096
#: An error text of a target is kept up to this many characters.
KEPT_MESSAGE_CHARACTERS = 1000
