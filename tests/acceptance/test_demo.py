"""The demo as a person runs it, made small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: Seconds after which something that should have happened will not any more.
PATIENCE = 110


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # noqa: TID251 - handed on
    return subprocess.Popen(
        [sys.executable, "-m", "scheduling.demo", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_that_mention(text: str) -> list[str]:
    """Command lines of living processes, from what the kernel tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if text in line:
            found.append(line)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Servers of root run as somebody else, who has to get through.
    for step in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        if step.stat().st_uid == os.geteuid():
            step.chmod(step.stat().st_mode | 0o011)
    return tmp_path


def test_a_small_demo_passes_and_leaves_nothing_behind(folder: Path) -> None:
    process = start(folder, "--messages", "200", "--seconds", "5")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    closing = output.splitlines()[-1]
    assert closing.startswith("PASS: "), output
    assert "executions lost        0" in output
    assert "killed with -9" in output
    assert list(folder.iterdir()) == []
    assert processes_that_mention(str(folder)) == []


@pytest.mark.parametrize("moment", ["schema is migrated", "creations repeated"])
def test_an_interrupted_demo_leaves_nothing_behind(folder: Path, moment: str) -> None:
    process = start(folder, "--messages", "100", "--seconds", "30")
    assert process.stdout is not None
    for line in process.stdout:
        if moment in line:
            break
    process.send_signal(signal.SIGINT)
    # Not by `communicate`, which would miss what was read ahead with the line above.
    output = process.stdout.read()
    process.stdout.close()
    assert process.wait(PATIENCE) == 130, output
    assert "nothing is left behind" in output
    assert list(folder.iterdir()) == []
    assert processes_that_mention(str(folder)) == []


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    process = start(tmp_path, "--messages", "none")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "--messages" in output
