"""The harness: runs cases, takes medians, compares with the budget, writes `bench/results.json` and plots."""

from __future__ import annotations

import importlib
import os
import pkgutil
import statistics
from collections.abc import Mapping, Sequence
from types import ModuleType

import click

from bench import cases, report
from bench.case import Measured, Size


def modules() -> dict[str, ModuleType]:
    """The cases by name."""
    return {
        each.name: importlib.import_module(f"bench.cases.{each.name}") for each in pkgutil.iter_modules(cases.__path__)
    }


def medians(runs: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """The median of each figure over the runs that have it, and its spread (largest − smallest)."""
    found = {name: [run[name] for run in runs if name in run] for run in runs for name in run}
    middle = {name: round(statistics.median(values), 4) for name, values in found.items()}
    return middle, {name: round(max(values) - min(values), 4) for name, values in found.items() if len(values) > 1}


def run_case(name: str, module: ModuleType, size: Size) -> None:
    """Runs one case and writes down what it found, so that what comes after it can fail without taking it along."""
    runs: list[Measured] = []
    loads: list[float] = []
    repeats = 1 if module.FULL_ONLY else size.runs
    for number in range(repeats):
        loads.append(os.getloadavg()[0])
        click.echo(f"\n{name}, run {number + 1} of {repeats} (load {loads[-1]:.1f}): {module.ABOUT}")
        runs.append(module.measure(size, lambda text: click.echo(f"  {text}")))
        report.show(runs[-1].values, {})
    values, spread = medians([run.values for run in runs])
    if repeats > 1:
        click.echo(f"\n{name}: medians of {repeats} runs")
        report.show(values, spread)
    if size.scale == 1.0:
        # How busy the machine was with other things before: a figure of a busy machine says little.
        report.write(values | {f"{name}_load_before": round(max(loads), 1), f"{name}_runs": size.runs}, spread)
        report.keep_series(name, [run.series for run in runs])
    else:
        click.echo("not written down: this was not the full scale")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--runs", default=3, show_default=True, help="How often; the medians count.")
@click.option("--full", is_flag=True, help="Also what takes very long.")
@click.option("--scale", default=1.0, show_default=True, help="Shrinks what is measured, to try a case out.")
@click.option(
    "--keep", metavar="FOLDER", help="Where growth keeps its filled database, to find it there the next time."
)
@click.option("--plots/--no-plots", default=True, help="Draw the plots (in an environment of their own).")
def main(*, names: Sequence[str], runs: int, full: bool, scale: float, keep: str | None, plots: bool) -> None:
    """Runs the cases NAMES, or all."""
    known = modules()
    if unknown := set(names) - set(known):
        raise click.UsageError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    size = Size(runs=runs, full=full, scale=scale, keep=keep)
    failed: list[str] = []
    for name, module in known.items():
        if names and name not in names:
            continue
        if module.FULL_ONLY and not full and name not in names:
            continue
        try:
            run_case(name, module, size)
        except Exception as error:  # noqa: BLE001 - one case less, the others go on
            failed.append(name)
            click.echo(f"  {name} failed: {type(error).__name__}: {error}", err=True)
    click.echo("\nAll that is known, from bench/results.json:")
    report.show_all()
    report.write_table()
    if plots and scale == 1.0:
        report.draw(click.echo)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
