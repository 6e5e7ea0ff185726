"""The short form of the fault matrix; the whole is `make chaos`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.chaos.cells import SHORT
from tests.chaos.mix import SHARES
from tests.chaos.run import run
from tests.support.servers import Databases


def _told(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def test_whatever_breaks_nothing_is_lost_stuck_doubled_or_overlapping(
    database_server: Databases, redis_url: str, tmp_path: Path
) -> None:
    # Calls longer than a lease overlap when a whole process stands still, as it may on a machine with too much to do.
    kinds = SHARES.keys() - {"long", "wait"}
    servers = database_server.migrated(), redis_url
    result = asyncio.run(run(SHORT, _told, seconds=10, rate=60, kinds=kinds, servers=servers, workers=2, apis=1))
    assert result["problems"] == []
    assert result["accepted"] > 400
    # What the fault is made of did happen.
    assert result["notes"]["answers_lost"] > 0
