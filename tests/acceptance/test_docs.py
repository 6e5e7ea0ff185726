"""What the documents tell a person to run is run: their transcripts, their Python, and the commands of operations."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_readme import (
    ROOT,
    Stack,
    Transcript,
    blocks,
    clean_environment,
    run_python,
    running_stack,
    steps,
)

DOCS = ROOT / "docs"
#: Seconds for a process to stop.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all documents."""
    with running_stack(tmp_path_factory.mktemp("docs")) as started:
        yield started


@pytest.mark.parametrize(
    "name", sorted(path.name for path in DOCS.glob("*.md") if "```console" in path.read_text()), ids=str
)
def test_the_transcripts_of_the_documents_show_what_really_happens(stack: Stack, name: str) -> None:
    transcript = Transcript(stack)
    for step in steps((DOCS / name).read_text()):
        transcript.run(step)


def test_the_python_of_the_integration_guide_runs(stack: Stack) -> None:
    programs = [program for _, program in blocks((DOCS / "integration.md").read_text(), "python")]
    assert len(programs) == 3
    for program in programs:
        run_python(stack, program)


def test_the_commands_of_operations_run_the_parts(empty_database_url: str, redis_url: str, environment: str) -> None:
    (block,) = [block for _, block in blocks((DOCS / "operations.md").read_text(), "sh")]
    commands = [line for line in block.splitlines() if line.startswith("scheduling ")]
    assert [command.split()[1] for command in commands] == ["settings", "migrate", "server", "worker"]
    settings = {
        "SCHEDULING_DATABASE_URL": empty_database_url,
        "SCHEDULING_REDIS_URL": redis_url,
        "SCHEDULING_ENVIRONMENT": environment,
        "SCHEDULING_GRPC_LISTEN": "127.0.0.1:0",
        "SCHEDULING_METRICS_LISTEN": "127.0.0.1:0",
        "SCHEDULING_SERVER_DRAIN": "0s",
    }
    for command in commands[:2]:
        _run(command, settings)
        _run(command, settings)  # harmless when repeated
    for command in commands[2:]:
        process = _start(command, settings)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


def test_wrong_settings_are_told_all_at_once_with_exit_code_2() -> None:
    wrong = {"SCHEDULING_GRPC_LISTEN": "nowhere", "SCHEDULING_LOOKAHEAD": "2s"}
    process = _start("scheduling server", wrong)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "SCHEDULING_GRPC_LISTEN" in told
    assert "did you mean SCHEDULING_LOOK_AHEAD?" in told


def _start(command: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    scripts = Path(sys.executable).parent
    return subprocess.Popen(
        [str(scripts / "scheduling"), *command.split()[1:]],
        env={**clean_environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(command: str, settings: dict[str, str]) -> None:
    process = _start(command, settings)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
