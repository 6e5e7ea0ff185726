"""How the verdict looks."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduling.demo.verdict import Lateness, Row, Verdict
from scheduling.demo.watch import Progress, milliseconds

#: Problems of one row that are shown.
PROBLEMS = 5


def show_verdict(console: Console, verdict: Verdict, progress: Progress) -> None:
    """Prints the tables, the numbers, what is wrong, and one closing line."""
    table = Table("asked for", "has to be", "firings", "reported so", "calls received", "", title_justify="left")
    for column in table.columns[2:5]:
        column.justify = "right"
    for row in verdict.kinds:
        table.add_row(row.title, row.outcome, _n(row.asked), _n(row.reported), _n(row.received), _mark(row))
    total = [sum(getattr(row, name) for row in verdict.kinds) for name in ("asked", "reported", "received")]
    table.add_section()
    table.add_row("all", "", *map(_n, total), "")
    console.print(table)
    rules = Table("what has to hold", "looked at", "")
    rules.columns[1].justify = "right"
    for row in verdict.rules:
        rules.add_row(row.title, _n(max(row.asked, row.reported, row.received)), _mark(row))
    console.print(rules)
    for row in (*verdict.kinds, *verdict.rules):
        for problem in row.problems[:PROBLEMS]:
            console.print(f"  {row.title}: {problem}", style="red", markup=False, highlight=False)
        if len(row.problems) > PROBLEMS:
            console.print(f"  {row.title}: and {len(row.problems) - PROBLEMS:,} more", style="red", markup=False)
    lines = [
        f"executions lost        {verdict.lost}",
        f"calls unexplained      {verdict.unexplained}",
        f"lateness, all          {_lateness(verdict.lateness)}",
        f"lateness, undisturbed  {_lateness(verdict.calm_lateness)}    (due before the kill or 10 s after it)",
        f"earliest call          {_earliest(verdict.earliest)}",
        f"first delivery         {_seconds(progress.first_delivery)} after the start",
        f"in all                 {_seconds(progress.elapsed)}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False)
    asked = sum(row.asked for row in verdict.kinds)
    if verdict.passed:
        console.print(f"PASS: all {asked:,} executions happened as promised", style="bold green", highlight=False)
    else:
        count = len(verdict.problems)
        console.print(f"FAIL: {count:,} problem{'s' * (count != 1)}", style="bold red", highlight=False)


def _n(number: int) -> str:
    return f"{number:,}"


def _mark(row: Row) -> Text:
    return Text(f"{len(row.problems):,} wrong", style="bold red") if row.problems else Text("ok", style="green")


def _lateness(lateness: Lateness | None) -> str:
    if lateness is None:
        return "nothing was started"
    return (
        f"p50 {milliseconds(lateness.p50)}   p99 {milliseconds(lateness.p99)}   max {milliseconds(lateness.worst)}"
        f"   of {lateness.count:,}"
    )


def _earliest(margin: timedelta | None) -> str:
    if margin is None:
        return "no call was received"
    return f"{milliseconds(abs(margin))} {'after' if margin >= timedelta(0) else 'before'} its time"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
