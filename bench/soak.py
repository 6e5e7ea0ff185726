"""A long steady load, to see what does not stay as it was: `python -m bench.soak --minutes 30`.

Each ten seconds it looks at lateness, the size of the live tables and their indexes, and the memory of each process.
What was created and has ended stays for its retention, so `jobs`, `schedules` and the history grow with the load, and
are told by the byte for each job; everything else is to be flat. Prints a verdict and exits with 1 if something is not.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import click
import psycopg

from bench import load, processes, report
from bench.stack import Running, api, running
from scheduling.cli.processes import run_loop

PARTS = ("server", "worker", "siblings", "postgres", "valkey")
#: Seconds between two looks, and how far ahead of its moment each execution is created.
LOOK, AHEAD = 10, 5
#: By how much the last third may be above the middle one: lateness at the median and at p99, sizes, memory.
BOUNDS = {"p50": 1.3, "p99": 2.0, "size": 1.3, "memory": 1.1}

_SIZES = "SELECT pg_total_relation_size('executions'), pg_indexes_size('executions')"
_GROWN = """
SELECT pg_total_relation_size('jobs') + pg_total_relation_size('schedules') + (
    SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('execution_history') WHERE isleaf)
"""
_LATENESS = """
SELECT extract(epoch FROM start_time - due_time)::float8 * 1000 FROM execution_history
WHERE finish_time >= %s AND finish_time < %s AND start_time IS NOT NULL
"""


@dataclass(slots=True)
class Seen:
    """What one look found. Lateness in milliseconds, sizes and memory in MiB."""

    minute: float
    p50: float
    p99: float
    live: float
    indexes: float
    grown: float
    memory: dict[str, float] = field(default_factory=dict)


async def _feed(stack: Running, rate: int, end: datetime) -> int:
    """Creates `rate` executions for each second up to `end`, one batch a second, each due a few seconds later."""
    made = 0
    second = datetime.now(UTC) + timedelta(seconds=AHEAD)
    async with api(stack.address) as client:
        while second < end:
            due = second
            await load.create_all(
                client, (load.request(made + n, due + timedelta(seconds=n / rate), "soak") for n in range(rate))
            )
            made += rate
            second += timedelta(seconds=1)
            await asyncio.sleep(max(0.0, (second - datetime.now(UTC)).total_seconds() - AHEAD))
    return made


async def _watch(stack: Running, end: datetime) -> list[Seen]:
    began, seen = datetime.now(UTC), []
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        while (now := datetime.now(UTC)) < end:
            await asyncio.sleep(LOOK)
            rows = await connection.execute(_LATENESS, [now - timedelta(seconds=1), now + timedelta(seconds=LOOK - 1)])
            late = [row[0] for row in await rows.fetchall()]
            sizes = await (await connection.execute(_SIZES)).fetchone()
            grown = await (await connection.execute(_GROWN)).fetchone()
            assert sizes is not None
            assert grown is not None
            if not late:
                continue
            found = Seen(
                (now - began).total_seconds() / 60,
                load.percentile(late, 0.5),
                load.percentile(late, 0.99),
                sizes[0] / 2**20,
                sizes[1] / 2**20,
                float(grown[0]) / 2**20,
                {part: processes.rss_mb(stack.pid(part)) for part in PARTS},
            )
            seen.append(found)
            memory = "  ".join(f"{part} {value:.0f}" for part, value in found.memory.items())
            click.echo(
                f"{found.minute:6.1f} min  p50 {found.p50:6.2f}  p99 {found.p99:7.2f} ms  "
                f"live {found.live:.1f} MB  {memory}"
            )
    return seen


def _ratio(values: Sequence[float]) -> float:
    """The median of the last third to that of the middle one; the first third is for what warms up."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / max(statistics.median(values[third : 2 * third]), 1e-9)


def judge(seen: Sequence[Seen]) -> dict[str, tuple[float, float]]:
    """What is to be flat: its ratio and the bound of that."""
    found = {
        "lateness p50": (_ratio([each.p50 for each in seen]), BOUNDS["p50"]),
        "lateness p99": (_ratio([each.p99 for each in seen]), BOUNDS["p99"]),
        "live table": (_ratio([each.live for each in seen]), BOUNDS["size"]),
        "live indexes": (_ratio([each.indexes for each in seen]), BOUNDS["size"]),
    }
    for part in ("server", "worker"):
        found[f"memory of {part}"] = (_ratio([each.memory[part] for each in seen]), BOUNDS["memory"])
    return found


def _series(seen: Sequence[Seen]) -> dict[str, list[float]]:
    def line(values: Sequence[float]) -> list[float]:
        return [number for each, value in zip(seen, values, strict=True) for number in (each.minute, value)]

    found = {
        "line: lateness p50 | minutes | ms": line([each.p50 for each in seen]),
        "line: lateness p99 | minutes | ms": line([each.p99 for each in seen]),
        "line: live executions with indexes | minutes | MiB": line([each.live for each in seen]),
        "line: their indexes | minutes | MiB": line([each.indexes for each in seen]),
        "line: jobs, schedules and history | minutes | MiB": line([each.grown for each in seen]),
    }
    for part in PARTS:
        found[f"line: memory of {part} | minutes | MiB"] = line([each.memory[part] for each in seen])
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=30.0, show_default=True, help="How long.")
@click.option("--rate", default=100, show_default=True, help="Executions a second.")
@click.option("--plots/--no-plots", default=True, help="Draw the plots (in an environment of their own).")
def main(*, minutes: float, rate: int, plots: bool) -> None:
    """A steady load for a long time, and whether all stays as it was."""
    seen: list[Seen] = []
    made: list[int] = []

    async def both(stack: Running) -> None:
        end = datetime.now(UTC) + timedelta(minutes=minutes)
        watching = asyncio.create_task(_watch(stack, end))
        made.append(await _feed(stack, rate, end))
        seen.extend(await watching)

    with running() as stack:
        run_loop(both(stack))
    verdicts = judge(seen)
    is_flat = all(ratio <= bound for ratio, bound in verdicts.values())
    for name, (ratio, bound) in verdicts.items():
        click.echo(f"{name:<20} {ratio:6.2f} (at most {bound:g})  {'flat' if ratio <= bound else 'NOT FLAT'}")
    per_job = (seen[-1].grown - seen[0].grown) * 2**20 / made[0]
    click.echo(f"{made[0]:,} executions; {per_job:,.0f} bytes stay for each until its retention is over")
    report.keep_series("soak", [_series(seen)])
    report.write(
        {"soak_minutes": minutes, "soak_bytes_per_job": per_job}
        | {f"soak_{name.replace(' ', '_')}_ratio": ratio for name, (ratio, _) in verdicts.items()},
        {},
    )
    if plots:
        report.draw(click.echo)
    if not is_flat:
        raise click.ClickException("something is not flat")


if __name__ == "__main__":
    main()
