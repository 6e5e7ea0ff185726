"""The chaos suite: breaks each part of the service in turn under load and checks that every promise holds.

    python -m tests.chaos --cell leader-killed --seconds 20
    python -m tests.chaos --runs 3 --parallel 2

Each run is a process of its own. The results are added to a file, from which the table in docs/reliability.md is made.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from tests.chaos.cells import BY_NAME, CELLS, Cell
from tests.chaos.report import RESULTS, add_results, write_table

#: Seconds that a run may take beyond its load: setting up, ending, checking.
OVERTIME = 400.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cell", "names", multiple=True, help="A cell of the matrix; may be repeated. All without it.")
@click.option("--runs", default=1, show_default=True, help="How often each.")
@click.option("--seconds", default=60.0, show_default=True, help="How long to ask for executions.")
@click.option("--rate", default=200, show_default=True, help="Executions a second.")
@click.option("--parallel", default=1, show_default=True, help="Runs at a time.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, help="File of the results.")
@click.option("--table", is_flag=True, help="Only make the table in docs/reliability.md anew.")
@click.option("--list", "lists", is_flag=True, help="List the cells.")
@click.option("--keep", is_flag=True, help="Keep the folders of the runs, logs and records included.")
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
def main(
    *,
    names: Sequence[str],
    runs: int,
    seconds: float,
    rate: int,
    parallel: int,
    out: Path,
    table: bool,
    lists: bool,
    keep: bool,
    one: Path | None,
) -> None:
    """Breaks each part of the service in turn under load; exit code 0 when every requirement held."""
    if lists:
        for cell in CELLS:
            click.echo(f"{cell.name:22} {cell.title}")
        return
    if table:
        write_table(out)
        return
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise click.UsageError(f"no such cell: {', '.join(unknown)}; --list shows them")
    cells = [BY_NAME[name] for name in names] or list(CELLS)
    if one is not None:
        _run_one(cells[0], one, seconds=seconds, rate=rate, keep=keep)
        return
    options = ["--seconds", str(seconds), "--rate", str(rate), *(["--keep"] if keep else [])]
    lock = threading.Lock()

    def work(cell: Cell) -> dict[str, Any] | None:
        result = _in_a_process(cell, options)
        with lock:
            if result is not None:
                add_results(out, [result])
            click.echo(_line(cell, result))
        return result

    with ThreadPoolExecutor(parallel) as pool:
        results = list(pool.map(work, [cell for _ in range(runs) for cell in cells]))
    if out == RESULTS:
        write_table(out)
    held = [result is not None and result["sound"] and not result["missed"] for result in results]
    click.echo(f"{sum(held)} of {len(held)} runs kept every requirement; results in {out}")
    sys.exit(0 if all(held) else 1)


def _run_one(cell: Cell, out: Path, *, seconds: float, rate: int, keep: bool) -> None:
    from tests.chaos.run import run
    from tests.chaos.stage import now

    start = now()

    def told(text: str) -> None:
        click.echo(f"  {cell.name} {now() - start:5.1f} s: {text}", err=True)

    result = asyncio.run(run(cell, told, seconds=seconds, rate=rate, keep=keep))
    out.write_text(json.dumps(result), encoding="utf-8")


def _in_a_process(cell: Cell, options: Sequence[str]) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.chaos", "--cell", cell.name, "--one", str(file), *options]
        seconds = float(options[1])
        # The run starts servers while it speaks gRPC.
        env = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # noqa: TID251 - handed on
        with subprocess.Popen(command, env=env, start_new_session=True) as process:
            try:
                process.wait(seconds + OVERTIME)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _line(cell: Cell, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"{cell.name}: BROKEN, the run itself failed"
    verdict = "ok" if result["sound"] and not result["missed"] else "NOT KEPT"
    counts = ", ".join(f"{name} {result[name]}" for name in ("lost", "stuck", "doubled", "overlapping", "repeats"))
    told = [
        f"{cell.name}: {verdict}; {result['accepted']} accepted, {counts}; normal after {result['recovery']} s, "
        f"p99 lateness {result['p99_before']} before, {result['p99_during']} during, {result['p99_after']} after; "
        f"without leader {result['without_leader']} s; load {result['load_average']}",
        *(f"    {problem}" for problem in (*result["problems"], *result["missed"])),
    ]
    return "\n".join(told)


if __name__ == "__main__":
    main()
