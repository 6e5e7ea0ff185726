"""The table of cases in docs/mesh.md, written by the tests that try them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "mesh.md"
#: With this variable the table is written; without it the rows seen must be those that stand there.
WRITE = "SCHEDULING_TEST_WRITE_MESH"
BEGIN, END = "<!-- cases: begin -->", "<!-- cases: end -->"
_HEADINGS = ("what was tried", "code", "message", "what follows")


@dataclass(frozen=True, slots=True)
class Row:
    """One case. A message that `varies` from run to run is written and not compared."""

    section: str
    case: str
    code: str
    message: str
    follows: str
    varies: bool


class Table:
    """Rows in the order in which they are seen."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def add(self, section: str, case: str, code: str, message: str, follows: str = "", *, varies: bool = False) -> None:
        """Notes a case; the same one only once."""
        if case not in [row.case for row in self._rows]:
            self._rows.append(Row(section, case, code, message, follows, varies))

    def settle(self) -> None:
        """Writes the table, or holds what was seen against it. AssertionError tells how to write it."""
        assert self._rows, "no case has left a row"
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        old, _, tail = rest.partition(END)
        if os.environ.get(WRITE):  # noqa: TID251 - a variable of the test suite
            PAGE.write_text(f"{head}{BEGIN}\n{self._markdown()}{END}{tail}", encoding="utf-8")
            return
        written = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in old.splitlines()]
        known = {cells[0]: cells for cells in written if len(cells) == len(_HEADINGS)}
        for row in self._rows:
            cells = known.get(row.case)
            assert cells is not None, f"docs/mesh.md has no row {row.case!r}: run with {WRITE}=1"
            assert cells[1] == row.code, row
            assert cells[3] == row.follows, row
            assert row.varies or cells[2] == row.message, row

    def _markdown(self) -> str:
        made = ""
        for section in dict.fromkeys(row.section for row in self._rows):
            rows = [row for row in self._rows if row.section == section]
            made += f"\n### {section[0].upper()}{section[1:]}\n\n| {' | '.join(_HEADINGS)} |\n|---|---|---|---|\n"
            made += "".join(f"| {row.case} | {row.code} | {row.message} | {row.follows} |\n" for row in rows)
        return made + "\n"
