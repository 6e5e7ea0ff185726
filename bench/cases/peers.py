"""The same work by other tools: 5,000 calls that are due, one after the other on the same servers and sibling."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import psycopg

from bench.case import Measured, Say, Size
from bench.cases import delivery
from bench.peers import environment
from bench.stack import Running, running

ABOUT = "5,000 due calls by Dramatiq, Celery, Procrastinate and pgqueuer, beside ours"
FULL_ONLY = False

CALLS = 5_000
FOLDER = Path(environment.__file__).parent
#: How each one's worker is started: with its own command line where it has one, and what suits many short calls best.
WORKERS: Mapping[str, tuple[str, ...]] = {
    "dramatiq": ("-m", "dramatiq", "with_dramatiq", "--processes", "1", "--threads", "16"),
    "celery": ("-m", "celery", "-A", "with_celery", "worker", "--pool", "prefork", "--concurrency", "8"),
    "procrastinate": ("with_procrastinate.py", "work"),
    "pgqueuer": ("with_pgqueuer.py", "work"),
}
#: Without a call for so many seconds a peer has stopped.
PATIENCE = 60


def measure(size: Size, say: Say) -> Measured:
    """One run."""
    count = size.of(CALLS, 200)
    python = environment.python(say)
    with running(worker=False) as stack:
        found: dict[str, float] = {}
        for peer in WORKERS:
            found[f"{peer}_per_s"] = rate_of(stack, peer, python, count)
            say(f"{peer}: {found[f'{peer}_per_s']:,.0f}/s")
        delivery.create(stack, count, "due", timedelta(0))
        delivery.drain(stack, count, "due")
        ours = rate_received(stack, "due-", count)
    ratios = {f"peer_ratio_{peer}": ours / found[f"{peer}_per_s"] for peer in WORKERS}
    return Measured({**found, **ratios, "ours_per_s": ours})


def rate_of(stack: Running, peer: str, python: str, count: int) -> float:
    """Calls/s that the sibling saw of one peer, from the first to the last."""
    prefix = f"peer-{peer}"
    database = f"peer_{peer}"
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    settings = {
        **os.environ,
        "PEER_PREFIX": prefix,
        "PEER_SIBLING": stack.sibling,
        "PEER_REDIS": stack.redis_url.rpartition("/")[0] + "/1",
        "PEER_DATABASE": stack.database_url.rpartition("/")[0] + f"/{database}",
    }
    subprocess.run([python, f"with_{peer}.py", str(count)], check=True, cwd=FOLDER, env=settings)
    with working(stack, peer, [python, *WORKERS[peer]], settings):
        seen, last = 0, time.monotonic()
        while seen < count:
            time.sleep(0.25)
            now = sum(call["id"].startswith(prefix) for call in stack.received())
            if now > seen:
                seen, last = now, time.monotonic()
            elif time.monotonic() - last > PATIENCE:
                raise TimeoutError(f"{peer} stopped after {seen} of {count} calls")
    return rate_received(stack, prefix, count)


@contextlib.contextmanager
def working(stack: Running, peer: str, command: list[str], settings: Mapping[str, str]) -> Iterator[None]:
    """The peer's worker, as long as it is needed."""
    with (stack.folder / f"{peer}.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=FOLDER, env=settings, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def rate_received(stack: Running, prefix: str, count: int) -> float:
    """Calls/s by the sibling's own record, from the first to the last of `count`."""
    received = sorted(call["received"] for call in stack.received() if call["id"].startswith(prefix))
    if len(received) < count:
        raise RuntimeError(f"{len(received)} of {count} calls came")
    return (count - 1) / (received[-1] - received[0])
