"""The client that creates, in a process of its own: requests are built before the clock starts.

    python -m bench.creating ADDRESS batch --calls 50 --concurrency 2

Prints a JSON object with `rate` (calls/s) and `cpu_us` (processor microseconds of this process for each call).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice

import click
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from whispr.scheduling.v1 import job_pb2, scheduling_service_pb2

from bench import load, server
from scheduling.cli.processes import run_loop

_API = "whispr.scheduling.v1.SchedulingService"
_METHODS: dict[str, tuple[str, type[Message]]] = {
    "empty": (f"/{server.SERVICE}/{server.METHOD}", Empty),
    "create": (f"/{_API}/CreateJob", job_pb2.Job),
    "batch": (f"/{_API}/BatchCreateJobs", scheduling_service_pb2.BatchCreateJobsResponse),
}
TIMEOUT = 30


def _requests(kind: str, count: int) -> list[Message]:
    due = datetime.now(UTC) + timedelta(days=1)
    if kind == "empty":
        return [Empty() for _ in range(count)]
    if kind == "create":
        return [load.request(n, due + timedelta(milliseconds=n), "single") for n in range(count)]
    members = (load.request(n, due + timedelta(milliseconds=n), "batch") for n in range(count * load.BATCH))
    return [scheduling_service_pb2.BatchCreateJobsRequest(requests=islice(members, load.BATCH)) for _ in range(count)]


async def calls(address: str, kind: str, count: int, concurrency: int) -> dict[str, float]:
    """Makes that many calls, `concurrency` at once, after a tenth of them that do not count."""
    method, answer = _METHODS[kind]
    warm = max(count // 10, concurrency)
    requests = [request.SerializeToString() for request in _requests(kind, count + warm)]
    size = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=size) as channel:
        call = channel.unary_unary(method, request_serializer=None, response_deserializer=answer.FromString)

        async def some(part: list[bytes]) -> None:
            for request in part:
                await call(request, timeout=TIMEOUT)

        async def all_of(part: list[bytes]) -> None:
            await asyncio.gather(*(some(part[first::concurrency]) for first in range(concurrency)))

        await all_of(requests[:warm])
        began, used = time.perf_counter(), time.process_time()
        await all_of(requests[warm:])
        return {"rate": count / (time.perf_counter() - began), "cpu_us": 1e6 * (time.process_time() - used) / count}


def measure(address: str, kind: str, count: int, concurrency: int) -> dict[str, float]:
    """Runs the client as a process and returns what it said."""
    command = [
        *(sys.executable, "-m", "bench.creating", address, kind),
        *("--calls", str(count), "--concurrency", str(concurrency)),
    ]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer)
    return found


@click.command()
@click.argument("address")
@click.argument("kind", type=click.Choice(sorted(_METHODS)))
@click.option("--calls", "count", default=1000, show_default=True)
@click.option("--concurrency", default=32, show_default=True)
def main(*, address: str, kind: str, count: int, concurrency: int) -> None:
    """Prints rate and processor time."""
    found: list[dict[str, float]] = []

    async def run() -> None:
        found.append(await calls(address, kind, count, concurrency))

    run_loop(run())
    click.echo(json.dumps(found[0]))


if __name__ == "__main__":
    main()
