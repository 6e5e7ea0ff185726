"""The service with a wall clock that is wrong by CHAOS_CLOCK_OFFSET seconds: `python -m tests.chaos.skewed worker`."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from scheduling import app
from scheduling.cli import main

OFFSET = "CHAOS_CLOCK_OFFSET"


class _Skewed(app.SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(os.environ[OFFSET]))  # noqa: TID251 - not a setting


if __name__ == "__main__":
    app.SystemClock = _Skewed  # type: ignore[misc]
    main()
