"""Time as the rest of the code sees it: a Protocol, so that tests can hold it in their hands."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The only way to know the time or to wait.

    `now` is the wall clock, in UTC; `monotonic` counts seconds and never goes back; `sleep` waits by `monotonic`.
    """

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits that many seconds; zero or less yields once."""
        ...
