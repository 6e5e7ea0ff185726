"""The bare client: what gRPC itself can do against the same sibling, in a process of its own.

    python -m bench.bare ADDRESS --calls 10000 --concurrency 64

The same stubs, deadline, metadata and event loop as a worker, and nothing else: no database, no queue. Prints a JSON
object with `rate` (calls/s) and `cpu_us` (processor microseconds of this process for each call).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import click
import grpc.aio
from whispr.siblings import messaging_pb2_grpc

from bench import load
from scheduling.cli.processes import run_loop

#: The deadline of T1, which the scheduled calls carry too.
TIMEOUT = 30
WARM_UP = 1000


async def calls(address: str, count: int, concurrency: int) -> dict[str, float]:
    """Makes that many calls, `concurrency` at once."""
    async with grpc.aio.insecure_channel(address, options=(("grpc.enable_retries", 0),)) as channel:
        send = messaging_pb2_grpc.MessagingServiceStub(channel).SendScheduledMessage
        messages = [load.message(number, "bare") for number in range(1000)]
        nominal = datetime.now(UTC).isoformat()

        async def some(numbers: range) -> None:
            for number in numbers:
                metadata = (
                    ("idempotency-key", str(uuid4())),
                    ("x-scheduling-attempt", "1"),
                    ("x-scheduling-job", f"jobs/j-{number}"),
                    ("x-scheduling-nominal-time", nominal),
                    ("traceparent", f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"),
                )
                await send(messages[number % 1000], timeout=TIMEOUT, metadata=metadata)

        async def all_of(total: int) -> None:
            await asyncio.gather(*(some(range(first, total, concurrency)) for first in range(concurrency)))

        await all_of(min(WARM_UP, count))
        began, used = time.perf_counter(), _cpu()
        await all_of(count)
        return {"rate": count / (time.perf_counter() - began), "cpu_us": 1e6 * (_cpu() - used) / count}


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


def measure(address: str, count: int, concurrency: int) -> dict[str, float]:
    """Runs the client as a process and returns what it said."""
    command = [sys.executable, "-m", "bench.bare", address, "--calls", str(count), "--concurrency", str(concurrency)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer)
    return found


@click.command()
@click.argument("address")
@click.option("--calls", "count", default=10_000, show_default=True)
@click.option("--concurrency", default=64, show_default=True)
def main(*, address: str, count: int, concurrency: int) -> None:
    """Prints rate and processor time."""
    found: list[dict[str, float]] = []

    async def run() -> None:
        found.append(await calls(address, count, concurrency))

    run_loop(run())
    click.echo(json.dumps(found[0]))


if __name__ == "__main__":
    main()
