"""The results of chaos runs as the table in docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.cells import CELLS, Cell

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- matrix: made by `make chaos` -->", "<!-- end of the matrix -->"
#: The newest runs of a cell that the table is made from.
RUNS = 3


def read_results(file: Path) -> list[dict[str, Any]]:
    """All results so far, oldest first."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def add_results(file: Path, results: Sequence[dict[str, Any]]) -> None:
    """Adds results to the file."""
    everything = [*read_results(file), *results]
    text = ",\n".join(json.dumps(result, sort_keys=True) for result in everything)
    file.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def write_table(file: Path) -> None:
    """Puts the table into the page, between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(read_results(file))}\n{END}{after}", encoding="utf-8")


def table(results: Sequence[dict[str, Any]]) -> str:
    """The matrix in Markdown: sums of counts, and of times the median with the least and the greatest."""
    lines = [
        "| fault | runs | accepted | given up | lost | stuck | doubled | overlapping | of calls cut | repeats "
        "| normal after | no leader for | p99 before | p99 during | p99 after | load |",
        f"|---|{'---:|' * 15}",
    ]
    used: list[dict[str, Any]] = []
    for cell in CELLS:
        runs = [result for result in results if result["cell"] == cell.name][-RUNS:]
        if runs:
            used += runs
            lines.append(_row(cell, runs))
    commits = sorted({str(run["commit"]) for run in used})
    if used:
        rates = sorted({f"{run['rate']}/s for {run['seconds']:g} s" for run in used})
        lines += [
            "",
            f"{len(used)} runs, {', '.join(rates)}; {sum(run['executions'] for run in used):,} executions, "
            f"{sum(run['calls'] for run in used):,} calls; commits {', '.join(commits)}; "
            f"{min(run['time'] for run in used)[:10]}.",
        ]
    return "\n".join(lines)


def _row(cell: Cell, runs: Sequence[dict[str, Any]]) -> str:
    def total(name: str) -> str:
        return f"{sum(run[name] for run in runs):,}"

    bounds = {"recovery": cell.recovery, "without_leader": cell.leader, "p99_during": cell.during}

    def span(name: str, shown: Callable[[float], str]) -> str:
        values = sorted(run[name] for run in runs if run[name] is not None)
        if not values:
            return "–"
        middle = shown(values[len(values) // 2])
        spread = f" ({shown(values[0])}–{shown(values[-1])})" if len(values) > 1 else ""
        bound = bounds.get(name)
        missed = " ✗" if bound is not None and values[-1] > bound else ""
        limit = "" if bound is None else f" [{bound:g}]"
        return f"{middle}{spread}{limit}{missed}"

    cells = [
        cell.title,
        str(len(runs)),
        *(
            total(name)
            for name in ("accepted", "refused", "lost", "stuck", "doubled", "overlapping", "overlapping_explained")
        ),
        total("repeats"),
        span("recovery", _seconds),
        span("without_leader", _seconds),
        *(span(name, _seconds) for name in ("p99_before", "p99_during", "p99_after")),
        span("load_average", lambda value: f"{value:.0f}"),
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"
