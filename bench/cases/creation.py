"""What creations cost, one by one and in batches, what the server weighs after them, and how soon it is there."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench import creating, load, processes
from bench.case import Measured, Say, Size
from bench.stack import Running, running

ABOUT = "CreateJob beside a call that does nothing, BatchCreateJobs of 1,000, the server's memory and start"
FULL_ONLY = False

SINGLE, EMPTY, BATCHES = 6_000, 10_000, 50
#: Calls at once: of singles and of the empty call, and of batches, of which one is read while another is stored.
CONCURRENCY, LANES = 32, 3
STARTS = 5


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    single, empty, batches = size.of(SINGLE, 500), size.of(EMPTY, 500), size.of(BATCHES, 5)
    with running(worker=False) as stack:
        address = f"127.0.0.1:{stack.stack.start('bench', ['bench.server'], stack.addresses).said.split()[1]}"
        before = creating.measure(address, "empty", empty, CONCURRENCY)["rate"]
        created, cost = _costed(stack, address, "create", single, CONCURRENCY)
        after = creating.measure(address, "empty", empty, CONCURRENCY)["rate"]
        say(f"empty {before:,.0f} and {after:,.0f}/s, CreateJob {created:,.0f}/s")
        batch, batch_cost = _costed(stack, address, "batch", batches, LANES)
        say(f"BatchCreateJobs {batch * load.BATCH:,.0f} jobs/s")
        rss = processes.rss_mb(stack.pid("bench"))
        starts = [_start(stack, number) for number in range(max(1, size.of(STARTS)))]
    return Measured(
        {
            "empty_per_s": (before + after) / 2,
            "create_per_s": created,
            "create_ratio": created / ((before + after) / 2),
            "create_server_cpu_us": cost["bench"],
            "create_postgres_cpu_us": cost["postgres"],
            "batch_create_per_s": batch * load.BATCH,
            "batch_create_server_cpu_us": batch_cost["bench"] / load.BATCH,
            "batch_create_postgres_cpu_us": batch_cost["postgres"] / load.BATCH,
            "server_rss_mb": rss,
            "start_ms": statistics.median(starts),
            "help_ms": statistics.median(_help() for _ in range(max(1, size.of(STARTS)))),
        }
    )


def _costed(stack: Running, address: str, kind: str, count: int, lanes: int) -> tuple[float, dict[str, float]]:
    """Calls a second, and the processor microseconds of each part for a call (those of the warm-up counted in)."""
    used = stack.cpu()
    rate = creating.measure(address, kind, count, lanes)["rate"]
    made = count + max(count // 10, lanes)
    return rate, {part: 1e6 * (seconds - used[part]) / made for part, seconds in stack.cpu().items()}


def _start(stack: Running, number: int) -> float:
    """Milliseconds from the start of a further `scheduling server` to its word that it is ready."""
    began = time.perf_counter()
    stack.stack.start(f"server-{number}", ["scheduling", "server"], stack.addresses)
    return 1000 * (time.perf_counter() - began)


def _help() -> float:
    """Milliseconds that `scheduling --help` takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "scheduling", "--help"], check=True, capture_output=True)
    return 1000 * (time.perf_counter() - began)
