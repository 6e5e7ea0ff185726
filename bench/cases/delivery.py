"""A due backlog is drained by one worker, beside what a bare gRPC client makes of the same sibling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import psycopg

from bench import bare, load, processes
from bench.case import Measured, Say, Size
from bench.stack import Running, api, running

ABOUT = "20,000 executions that are due, one worker, outcomes durable; the bare client before and after"
FULL_ONLY = False

BACKLOG, BARE_CALLS, HELD = 20_000, 20_000, 10_000
#: Calls at once: what a worker has for the queue of messages.
CONCURRENCY = 64
PARTS = ("worker", "postgres", "valkey", "siblings", "server")


# By the indexes of dispatch: beside millions that are due tomorrow a look at the whole table would be what is measured.
_LIVE = """
SELECT EXISTS (SELECT FROM executions WHERE state = 'PENDING' AND held_by IS NULL AND queue = 'HIGH'
               AND ready_time < now() + interval '1h')
    OR EXISTS (SELECT FROM executions WHERE state = 'QUEUED' AND queue = 'HIGH')
    OR EXISTS (SELECT FROM executions WHERE state = 'RUNNING')
"""


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    count, calls = size.of(BACKLOG, 500), size.of(BARE_CALLS, 500)
    with running(worker=False) as stack:
        create(stack, count, "due", timedelta(0))
        used = stack.cpu()["siblings"]
        before = bare.measure(stack.sibling, calls, CONCURRENCY)
        # The bare client warms up with some calls more.
        sibling_us = 1e6 * (stack.cpu()["siblings"] - used) / (calls + min(calls, bare.WARM_UP))
        found = drain(stack, count, "due")
        after = bare.measure(stack.sibling, calls, CONCURRENCY)
        rate = (before["rate"] + after["rate"]) / 2
        cpu = (before["cpu_us"] + after["cpu_us"]) / 2
        say(f"bare {before['rate']:,.0f} and {after['rate']:,.0f} calls/s, delivery {found['delivery_per_s']:,.0f}/s")
        create(stack, size.of(HELD), "held", timedelta(seconds=4))
        wait_until_done(stack)
        return Measured(
            found
            | {
                "bare_per_s": rate,
                "bare_cpu_us": cpu,
                "bare_sibling_cpu_us": sibling_us,
                "delivery_ratio": found["delivery_per_s"] / rate,
                # What the ratio would be with two cores of our own: all processes of a delivery share both, the bare
                # client and the sibling have one each.
                "delivery_ratio_by_cpu": 2 * max(sibling_us, cpu) / sum(found[f"{part}_cpu_us"] for part in PARTS),
                "worker_cpu_ratio": found["worker_cpu_us"] / cpu,
                "worker_rss_mb": processes.peak_rss_mb(stack.pid("worker")),
            }
        )


def create(stack: Running, count: int, prefix: str, ahead: timedelta) -> None:
    """Makes one-offs through the API that are all due at one moment."""

    async def work() -> None:
        async with api(stack.address) as client:
            due = datetime.now(UTC) + ahead
            await load.create_all(client, (load.request(number, due, prefix) for number in range(count)))

    asyncio.run(work())


def drain(stack: Running, count: int, prefix: str) -> Mapping[str, float]:
    """Starts the worker on a backlog of `count` and waits for its end.

    From the first call that the sibling saw to the last durable outcome; processor time from the worker's start on.
    """
    with psycopg.connect(stack.database_url) as connection:
        began = connection.execute("SELECT now()").fetchone()
    stack.start_worker()
    used = stack.cpu()
    wait_until_done(stack)
    spent = {part: seconds - used[part] for part, seconds in stack.cpu().items()}
    received = [call["received"] for call in stack.received() if call["id"].startswith(f"{prefix}-")]
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(
            "SELECT count(*), extract(epoch FROM max(finish_time))::float8 FROM execution_history "
            "WHERE state = 'SUCCEEDED' AND finish_time >= %s",
            began,
        ).fetchone()
    assert row is not None
    if row[0] < count or len(received) < count:
        raise RuntimeError(f"{count} were due, {len(received)} arrived, {row[0]} succeeded")
    return {
        "delivery_per_s": count / (row[1] - min(received)),
        **{f"{part}_cpu_us": 1e6 * spent[part] / count for part in PARTS},
    }


def wait_until_done(stack: Running, seconds: float = 300) -> None:
    """Waits until no execution is live."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(_LIVE)
            if not row.fetchone()[0]:  # type: ignore[index]
                return
            time.sleep(0.1)
    raise TimeoutError("executions are left")
