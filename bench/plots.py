"""Draws what the cases kept: `python bench/plots.py FOLDER` turns each `FOLDER/*.json` into an SVG beside it.

Runs in the environment of the extra `bench`, knows nothing of the service. A series called `histogram: …` becomes a
histogram, one called `line: … | x | y` a line through alternating x and y.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "whispr"
from matplotlib import pyplot as plt  # noqa: E402


def draw(path: Path) -> None:
    """One file of series, one picture with a part for each."""
    series = {name: values for name, values in json.loads(path.read_text(encoding="utf-8")).items() if values}
    if not series:
        return
    figure, parts = plt.subplots(len(series), 1, figsize=(8, 3 * len(series)), squeeze=False, layout="constrained")
    for axes, (name, values) in zip(parts[:, 0], series.items(), strict=True):
        kind, _, title = name.partition(": ")
        if kind == "line":
            title, x_name, y_name = (part.strip() for part in title.split("|"))
            axes.plot(values[0::2], values[1::2], marker=".")
            axes.set(title=title, xlabel=x_name, ylabel=y_name, ylim=(0, None))
        else:
            top = sorted(values)[int(0.999 * (len(values) - 1))]
            axes.hist([min(value, top) for value in values], bins=80)
            axes.set(title=title, ylabel="executions")
        axes.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.json")):
        draw(each)
