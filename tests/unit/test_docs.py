"""What the documents say of the code is compared with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import report
from scheduling.delivery.targets import ROWS
from scheduling.domain.lifecycle import FINAL, TRANSITIONS, Event, State
from scheduling.rpc.errors import ERRORS
from scheduling.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "scheduling"
#: Everything that a person reads.
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def read(name: str) -> str:
    """A document of `docs/`."""
    return (DOCS / name).read_text()


def rows(text: str) -> Iterator[list[str]]:
    """The cells of all table rows."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def calls(name: str) -> Iterator[ast.Call]:
    """Calls of a function anywhere in the service, the demo left out."""
    for path in PACKAGE.rglob("*.py"):
        if "demo" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
                    yield node


def test_the_diagram_has_exactly_the_transitions_of_the_lifecycle() -> None:
    (diagram,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", read("architecture.md"), re.DOTALL)
    arrows = re.findall(r"^ +(\S+) --> (\S+?)(?:: (\S+))?$", diagram, re.MULTILINE)
    assert len(arrows) == len(diagram.splitlines())
    drawn = [((State(start), Event(event)), State(end)) for start, end, event in arrows if "[*]" not in (start, end)]
    assert len(drawn) == len(set(drawn))
    assert dict(drawn) == dict(TRANSITIONS)
    assert [end for start, end, _ in arrows if start == "[*]"] == [State.PENDING]
    assert {start for start, end, _ in arrows if end == "[*]"} == FINAL


def test_the_table_of_performance_is_that_of_the_results() -> None:
    _, _, rest = read("performance.md").partition(report.BEGIN)
    assert rest.partition(report.END)[0].strip() == report.table()


def test_the_tables_of_settings_and_metrics_are_those_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SCHEDULING_DATABASE_URL" in read("operations.md")
    assert "whispr_scheduling_lateness_seconds" in read("operations.md")


def test_every_setting_is_read_somewhere() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "settings.py")
    by_queue = {"slots_high", "slots_medium", "slots_low"}
    unread = {name for name in Settings.model_fields if not re.search(rf"settings\.{name}\b", source)} - by_queue
    assert unread == set()


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    logged = {
        call.args[2].value
        for call in calls("log_event")
        if len(call.args) > 2 and isinstance(call.args[2], ast.Constant)
    }
    table = read("operations.md").partition("## Logs")[2]
    assert {cells[0].strip("`") for cells in rows(table) if cells[0].startswith("`")} == logged


def test_every_error_is_explained_with_its_code() -> None:
    table = read("integration.md").partition("### Errors")[2]
    told = {(cells[1].strip("`"), cells[0]) for cells in rows(table) if cells[1].startswith("`")}
    assert {(kind.reason, code.name) for kind, (code, _) in ERRORS.items()} <= told


@pytest.mark.parametrize("name", ["AlreadyExists", "WrongState"])
def test_every_special_reason_of_an_error_is_explained(name: str) -> None:
    text = read("integration.md")
    for call in calls(name):
        for keyword in call.keywords:
            if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                assert f"`{keyword.value.value!s}`" in text


def test_every_degraded_mode_is_explained() -> None:
    source = (PACKAGE / "operations" / "status.py").read_text()
    modes = re.findall(r'append\("([A-Z_]+)"\)', source) + re.findall(r'f"([A-Z_]+):', source)
    assert len(modes) >= 5
    for mode in modes:
        assert f"`{mode}" in read("troubleshooting.md")


def test_the_tasks_are_the_target_table() -> None:
    told = {tuple(cells) for cells in rows(read("tasks.md")) if cells[0].startswith("`")}
    assert told == {
        (f"`{row.method}`", row.queue.lower(), str(row.retries), f"{row.timeout} s", row.retention.value)
        for row in ROWS
    }


def test_every_target_has_one_example_that_only_checks() -> None:
    text = read("tasks.md")
    examples = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert all('"validate_only": true' in example for example in examples)
    named = [method for example in examples for method in re.findall(r'"target": "(.+?)"', example)]
    assert sorted(named) == sorted(row.method for row in ROWS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, anchor


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(path: Path) -> None:
    for name in re.findall(r"`((?:scheduling|protos|tests|docs|bench)/[\w/.-]+)`", path.read_text()):
        assert (ROOT / name).exists(), name
