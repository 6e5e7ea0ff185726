"""Whether delivery feels how much is stored: an empty database beside one with millions pending and finished."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psycopg

from bench import filling, load
from bench.case import Measured, Say, Size
from bench.cases import delivery
from bench.stack import Running, api, running

ABOUT = "20,000 due, delivered from an empty database and from one with 10,000,000 pending and 20,000,000 finished"
FULL_ONLY = True

BACKLOG, PENDING, FINISHED, DAYS = 20_000, 10_000_000, 20_000_000, 30
#: What is pending is due a day after it was made; a database older than this is made anew.
FRESH = timedelta(hours=20)
#: Pending jobs of one piece, after each of which progress is told.
PIECE = 1_000_000


def measure(size: Size, say: Say) -> Measured:
    """Fills one database, then drains as many from it and from an empty one in turns, `size.runs` times each."""
    count = size.of(BACKLOG, 500)
    with _filled(size, say) as folder:
        empty, full = [], []
        for _ in range(size.runs):
            empty.append(_deliver(None, count))
            full.append(_deliver(folder, count))
            say(f"empty: {empty[-1]['delivery_per_s']:,.0f}/s, full: {full[-1]['delivery_per_s']:,.0f}/s")
    ratios = [_ratio(*pair, "delivery_per_s") for pair in zip(full, empty, strict=True)]
    return Measured(
        {
            "growth_ratio": median(ratios),
            "growth_ratio_spread": max(ratios) - min(ratios),
            "growth_rounds": size.runs,
            "growth_empty_per_s": median(each["delivery_per_s"] for each in empty),
            "growth_full_per_s": median(each["delivery_per_s"] for each in full),
            "growth_postgres_cpu_ratio": median(
                _ratio(*pair, "postgres_cpu_us") for pair in zip(full, empty, strict=True)
            ),
            "growth_size_gb": full[0]["size_gb"],
        }
    )


def _ratio(one: Mapping[str, float], other: Mapping[str, float], name: str) -> float:
    return one[name] / other[name]


def _deliver(folder: str | None, count: int) -> dict[str, float]:
    with running(worker=False, data=folder) as stack:
        # Of what an earlier round has left the sibling's record is gone, but not the rows.
        delivery.create(stack, count, "due", timedelta(0))
        return {**delivery.drain(stack, count, "due"), "size_gb": _size(stack.database_url) / 1e9}


@contextlib.contextmanager
def _filled(size: Size, say: Say) -> Iterator[str]:
    """The folder of a stack whose database is full; one that was kept is used again."""
    pending, finished = size.of(PENDING, 1000), size.of(FINISHED, 1000)
    with contextlib.ExitStack() as kept:
        folder = size.keep or kept.enter_context(tempfile.TemporaryDirectory(prefix="whispr-bench-"))
        note = Path(folder) / "filled.json"
        if note.exists():
            told = json.loads(note.read_text(encoding="utf-8"))
            made = datetime.fromisoformat(told["made"])
            if (told["pending"], told["finished"]) != (pending, finished) or datetime.now(UTC) - made > FRESH:
                raise RuntimeError(f"{folder} holds {told}, which is not what is asked for; remove it")
            say(f"{folder} was filled before")
        else:
            made = datetime.now(UTC)
            with running(worker=False, data=folder) as stack:
                _fill(stack, pending, finished, say)
            told = {"pending": pending, "finished": finished, "made": made.isoformat()}
            note.write_text(json.dumps(told), encoding="utf-8")
        yield folder


def _fill(stack: Running, pending: int, finished: int, say: Say) -> None:
    for first in range(0, pending, PIECE):
        asyncio.run(_fill_pending(stack, min(PIECE, pending - first), first))
        say(f"{first + PIECE:,} pending")
    today, part = datetime.now(UTC).date(), finished // DAYS
    for n in range(DAYS):
        filling.fill_finished(stack.database_url, part, today + timedelta(days=n + 1), first=n * part)
        say(f"{(n + 1) * part:,} finished")
    filling.settle(stack.database_url)
    say(f"{pending:,} pending and {finished:,} finished are there, {_size(stack.database_url) / 1e9:.1f} GB")


async def _fill_pending(stack: Running, count: int, first: int) -> None:
    async with api(stack.address) as client:
        await load.fill_pending(client, stack.database_url, count, first=first)


def _size(url: str) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return float(row[0])
