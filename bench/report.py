"""The table, `bench/results.json`, and the plots."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.figures import BY_NAME, FIGURES
from bench.peers import environment

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
PLOTS = FOLDER / "plots"
#: The page with the table, and what stands around it there.
PAGE = FOLDER.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: made by `make bench` -->", "<!-- end of the figures -->"


def show(values: Mapping[str, float], spread: Mapping[str, float]) -> None:
    """Prints figures with their budget and verdict, in the order of the budget; others after them."""
    order = {figure.name: number for number, figure in enumerate(FIGURES)}
    for name in sorted(values, key=lambda each: (order.get(each, len(order)), each)):
        figure = BY_NAME.get(name)
        about = ""
        if figure is not None:
            sign = "≤" if figure.at_most else "≥"
            about = f"{sign} {figure.aim:g} [{figure.floor:g}]  {figure.verdict(values[name])}"
        plus = f"± {spread[name]:,.4g}" if name in spread else ""
        click.echo(f"  {name:<34} {values[name]:>12,.4g} {plus:<12} {about}")


def read() -> dict[str, float | str]:
    """What is written down so far."""
    if not RESULTS.exists():
        return {}
    found: dict[str, float | str] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def write(values: Mapping[str, float], spread: Mapping[str, float]) -> None:
    """Adds to `results.json`; what other cases have found stays."""
    merged = read() | {"measured": datetime.now(UTC).isoformat(timespec="seconds")}
    merged |= values
    merged |= {f"{name}_spread": value for name, value in spread.items() if name in BY_NAME}
    RESULTS.write_text(json.dumps(merged, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def show_all() -> None:
    """Prints the whole budget with what is known of it."""
    known = read()
    values = {figure.name: known[figure.name] for figure in FIGURES if figure.name in known}
    spread = {name: known[f"{name}_spread"] for name in values if f"{name}_spread" in known}
    show({k: float(v) for k, v in values.items()}, {k: float(v) for k, v in spread.items()})
    if missing := [figure.name for figure in FIGURES if figure.name not in known]:
        click.echo(f"  not measured yet: {', '.join(missing)}")


def table() -> str:
    """The budget and what is known of it, as a table for the page."""
    known = read()
    lines = ["| figure | what | aim [floor] | measured | |", "|---|---|---|---:|---|"]
    for figure in FIGURES:
        aim = f"{'≤' if figure.at_most else '≥'} {figure.aim:,g}"
        if figure.floor != figure.aim:
            aim += f" [{figure.floor:,g}]"
        value, verdict = known.get(figure.name), "not measured"
        told = ""
        if value is not None:
            told, verdict = _short(float(value)), figure.verdict(float(value))
            if (spread := known.get(f"{figure.name}_spread")) is not None:
                told += f" ± {_short(float(spread))}"
        lines.append(f"| `{figure.name}` | {figure.what} | {aim} | {told} | {verdict} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_table() -> None:
    """Puts the table into docs/performance.md, in place of the one that is there."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


def keep_series(case: str, runs: Sequence[Mapping[str, Sequence[float]]]) -> None:
    """Keeps what plots are made of: for each series that of the last run."""
    series = {name: list(values) for run in runs for name, values in run.items()}
    if series:
        PLOTS.mkdir(exist_ok=True)
        (PLOTS / f"{case}.json").write_text(json.dumps(series), encoding="utf-8")


def draw(say: Callable[[str], None]) -> None:
    """Draws the plots of the series that are kept, in the environment that has matplotlib."""
    try:
        python = environment.python(say)
    except environment.Missing as error:
        say(f"no plots: {error}")
        return
    subprocess.run([python, str(FOLDER / "plots.py"), str(PLOTS)], check=True)
