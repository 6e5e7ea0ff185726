"""Writes the tables of `docs/` that stand in the code: `python docs/generate.py [--check]`.

A table stands between `<!-- begin NAME: … -->` and `<!-- end NAME -->`. With `--check` nothing is written; the exit
code is 1 when something differs.
"""  # noqa: INP001 - a script beside its documents, not a package

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from scheduling.app import service_names
from scheduling.settings import settings_table
from scheduling.telemetry.metrics import NAMESPACE, TABLE

DOCS = Path(__file__).resolve().parent
sys.path.append(str(DOCS.parent))
from tests.support.permissions import matrix  # noqa: E402 - the tests stand beside the package, not in it


def settings() -> str:
    """Every setting with its default and meaning."""
    return _table(
        ("setting", "default", "meaning"),
        (
            (f"`{name}`", f"`{default}`" if default else "", meaning)
            for name, default, meaning in settings_table(service_names())
        ),
    )


def metrics() -> str:
    """Every metric with its kind, labels and meaning."""
    return _table(
        ("metric", "kind", "labels", "meaning"),
        ((f"`{NAMESPACE}_{one.name}`", one.kind, ", ".join(one.labels), one.help) for one in TABLE),
    )


def permissions() -> str:
    """What each principal of the example policy gets from each RPC."""
    head, rows = matrix()
    return _table(head, rows)


TABLES: dict[str, Callable[[], str]] = {"settings": settings, "metrics": metrics, "permissions": permissions}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(head)
    cells = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in cells)


def filled(text: str) -> str:
    """A document with its tables as they are now."""
    for name, make in TABLES.items():
        found = re.search(rf"<!-- begin {name}:[^\n]*-->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
        if found is not None:
            text = f"{text[: found.start(1)]}{make()}\n{text[found.end(1) :]}"
    return text


def main(arguments: list[str]) -> int:
    """Writes, or compares with `--check`; the exit code is the answer."""
    stale = [path for path in sorted(DOCS.glob("*.md")) if filled(path.read_text()) != path.read_text()]
    for path in stale:
        if "--check" in arguments:
            print(f"docs/{path.name} is out of date: run .venv/bin/python docs/generate.py")  # noqa: T201
        else:
            path.write_text(filled(path.read_text()))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
