"""Measures, and says against what. Each figure comes from real processes started for it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bench import load
from bench.stack import Running, api, running
from scheduling.app import SystemClock

RESULTS = Path(__file__).parent / "results.json"
_CLOCK = SystemClock()


async def lateness(stack: Running, *, rate: int, seconds: int, pending: int) -> dict[str, float]:
    """Milliseconds from the due time to the sibling's receipt, by the sibling's own record, at a steady rate."""
    lead = timedelta(seconds=4 + rate * seconds / 4000)
    async with api(stack.address) as client:
        tomorrow = _CLOCK.now() + timedelta(days=1)
        await load.create_all(
            client, (load.request(n, tomorrow + timedelta(milliseconds=n), "later") for n in range(pending))
        )
        start = _CLOCK.now() + lead
        count = rate * seconds
        await load.create_all(
            client, (load.request(n, start + timedelta(seconds=n / rate), "now") for n in range(count))
        )
        end = start + timedelta(seconds=seconds)
        deadline = end + timedelta(seconds=30)
        received: dict[str, float] = {}
        while len(received) < count and _CLOCK.now() < deadline:
            await _CLOCK.sleep(max(1.0, (end - _CLOCK.now()).total_seconds()))
            received = {
                call["id"]: call["received"] - datetime.fromisoformat(call["nominal_time"]).timestamp()
                for call in stack.received()
                if call["id"].startswith("now-")
            }
    late = [1000 * value for value in received.values()]
    return {
        "lateness_p50_ms": round(load.percentile(late, 0.5), 2),
        "lateness_p99_ms": round(load.percentile(late, 0.99), 2),
        "lateness_max_ms": round(max(late), 2),
        "lateness_min_ms": round(min(late), 2),
        "lateness_received": len(late),
        "lateness_missing": count - len(late),
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rate", default=100, show_default=True, help="Executions a second.")
@click.option("--seconds", default=60, show_default=True, help="How long.")
@click.option("--pending", default=10_000, show_default=True, help="Further jobs that are due tomorrow.")
@click.option("--runs", default=1, show_default=True, help="How often; the medians are reported with the spread.")
def main(*, rate: int, seconds: int, pending: int, runs: int) -> None:
    """Lateness at a steady rate with many more jobs pending."""
    found: list[dict[str, float]] = []
    for run in range(runs):
        click.echo(f"run {run + 1} of {runs}: {rate}/s for {seconds} s with {pending:,} pending ...")
        with running() as stack:
            found.append(asyncio.run(lateness(stack, rate=rate, seconds=seconds, pending=pending)))
        click.echo("  " + "  ".join(f"{name}={value}" for name, value in found[-1].items()))
    results: dict[str, float | str] = {"measured": datetime.now(UTC).isoformat(timespec="seconds")}  # noqa: TID251
    for name in found[0]:
        values = sorted(each[name] for each in found)
        results[name] = values[len(values) // 2]
        if runs > 1:
            results[f"{name}_spread"] = round(values[-1] - values[0], 2)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    click.echo(f"written to {RESULTS.name}")


if __name__ == "__main__":
    main()
