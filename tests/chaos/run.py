"""One run of one cell: sets the stage, asks, breaks, waits for the end, gathers the evidence and checks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import psycopg

from tests.chaos.cells import Cell, Window
from tests.chaos.check import Evidence, Execution, Findings, check, evidence_call
from tests.chaos.load import AHEAD, Load
from tests.chaos.mix import LABEL, SHARES, Mix
from tests.chaos.stage import Stage, now, pause, set_up
from tests.support.processes import environment

#: Seconds of load before the fault, in a run of a minute or more; a fifth of a shorter one.
BEFORE = 12.0
#: Seconds for which is asked after the fault, at least.
AFTER = 10.0
#: Seconds in which everything must have ended after the last request was answered: longer than any backoff.
PATIENCE = 90.0

_EXECUTIONS = f"""
SELECT e.uid, coalesce(j.labels ->> '{LABEL}', ''), extract(epoch FROM e.nominal_time)::float8,
       extract(epoch FROM e.due_time)::float8, extract(epoch FROM e.create_time)::float8, e.state, e.reason,
       j.max_attempts, e.attempts
FROM (
    SELECT uid, job_uid, nominal_time, due_time, create_time, state, reason, attempts FROM executions
    UNION ALL
    SELECT uid, job_uid, nominal_time, due_time, create_time, state, reason, attempts FROM execution_history
) AS e JOIN jobs j ON j.uid = e.job_uid
"""
_OPEN = "SELECT count(*) FROM executions WHERE state IN ('PENDING', 'QUEUED', 'RUNNING')"


async def run(
    cell: Cell,
    told: Callable[[str], None],
    *,
    seconds: float,
    rate: int,
    kinds: Collection[str] = SHARES,
    servers: tuple[str, str] | None = None,
    keep: bool = False,
    **stage_options: Any,
) -> dict[str, Any]:
    """Runs a cell and returns what came out, ready to be written as JSON. `kinds` are the kinds of jobs in the mix."""
    async with set_up(
        told,
        servers=servers,
        settings=dict(cell.settings),
        target_link=cell.target_link,
        previous=cell.previous,
        keep=keep,
        **stage_options,
    ) as stage:
        load = Load(stage.addresses, Mix(random.randrange(2**32), kinds))
        leading = _Leading(stage)
        watch = asyncio.create_task(leading.watch())
        try:
            over = asyncio.Event()
            asking = asyncio.create_task(load.run(rate, seconds, over))
            await pause(AHEAD + min(BEFORE, seconds / 5))
            load_average = os.getloadavg()[0]
            told(f"{cell.title}: now")
            try:
                window = await cell.break_it(stage, min(cell.seconds, seconds / 2))
            finally:
                asyncio.get_running_loop().call_later(AFTER, over.set)
            told(f"{cell.title}: over after {window.end - window.start:.1f} s")
            await asking
            left = await _wait_for_end(stage)
            told("all has ended" if not left else f"{left} executions have not ended")
            evidence = await _gather(stage, load, window)
            told("everything is gathered")
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await load.close()
        findings = await asyncio.to_thread(check, evidence)
        told("everything is checked")
        without_leader = leading.longest_gap(window.start)
        if stage.leader_lost is not None:
            without_leader = max(without_leader, leading.next_term(stage.leader_lost) - stage.leader_lost)
    asked = load.asked
    findings.add("refused", asked.refused)
    result = {
        "cell": cell.name,
        "time": datetime.fromtimestamp(window.start, UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "seconds": seconds,
        "rate": rate,
        "load_average": round(load_average, 1),
        "fault_seconds": round(window.end - window.start, 1),
        **findings.counts,
        **{name: None if value is None else round(value, 3) for name, value in findings.times.items()},
        "without_leader": round(without_leader, 2),
        "client_behind": round(asked.behind, 2),
        "client_retries": asked.retried,
        "client_codes": dict(asked.codes),
        "notes": stage.notes,
    }
    missed = missed_bounds(cell, result)
    return result | {"problems": findings.problems, "missed": missed, "sound": is_sound(findings)}


def is_sound(findings: Findings) -> bool:
    """Whether nothing was lost, stuck, doubled, overlapping or repeated without reason."""
    return not findings.problems


def missed_bounds(cell: Cell, result: dict[str, Any]) -> list[str]:
    """The times that were required and not kept."""
    bounds = (
        ("recovery", cell.recovery, "normal again"),
        ("without_leader", cell.leader, "without a leader"),
        ("p99_during", cell.during, "p99 lateness meanwhile"),
    )
    return [
        f"{title}: {result[name]} s, at most {bound:g} s"
        for name, bound, title in bounds
        if bound is not None and result[name] is not None and result[name] > bound
    ]


async def _wait_for_end(stage: Stage) -> int:
    """Waits until everything has ended; returns how many have not."""
    deadline = now() + PATIENCE
    left = -1
    while left and now() < deadline:
        await pause(0.5)
        with contextlib.suppress(psycopg.Error):
            ((left,),) = await stage.query(_OPEN)
    return left


async def _gather(stage: Stage, load: Load, window: Window) -> Evidence:
    verifying = asyncio.create_task(asyncio.to_thread(_verify, stage.direct_url))
    calls = [evidence_call(entry) for entry in await stage.received()]
    executions = [
        Execution(str(uid), *told, attempts={each["n"]: (each["c"], each["r"]) for each in attempts or ()})  # type: ignore[misc]
        for uid, *told, attempts in await stage.query(_EXECUTIONS)
    ]
    verify, asked = await verifying, load.asked
    return Evidence(asked.accepted, asked.items, executions, calls, stage.cuts, verify, window.start, window.end)


def _verify(url: str) -> str:
    command = [sys.executable, "-m", "scheduling", "verify"]
    done = subprocess.run(command, env=environment(database_url=url), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def commit() -> str:
    """The commit that is run, with a `+` when files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "scheduling") else "")


class _Leading:
    """Watches who leads."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._gaps: list[tuple[float, float]] = []
        self._terms: dict[int, float] = {}

    async def watch(self) -> None:
        """Looks until cancelled."""
        lost: float | None = None
        while True:
            leader = await self._stage.leader()
            if leader is None:
                lost = now() if lost is None else lost
            elif lost is not None:
                self._gaps.append((lost, now()))
                lost = None
            if leader is not None:
                self._terms.setdefault(leader[1], now())
            await pause(0.05)

    def next_term(self, after: float) -> float:
        """When the first term after that moment began; never, when none has."""
        return min((began for began in self._terms.values() if began > after), default=float("inf"))

    def longest_gap(self, since: float) -> float:
        """The longest time without a leader after a moment, in seconds."""
        return max((end - max(start, since) for start, end in self._gaps if end > since), default=0.0)
