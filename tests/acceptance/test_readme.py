"""The README's transcript is run against a real stack, and what it shows is compared with what comes back.

In ```console blocks a line `$ …` begins a command, which goes on until its quotes are closed; what follows is its
output, where a line `...` stands for any lines. Ids, times and the like differ from run to run: each is compared by its
kind only, and an id that a later command uses is replaced by the one that this run gave in its place.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
#: How the documents write the address of the API and the data folder of `make up`.
ADDRESS, DATA = "127.0.0.1:50051", "~/.local/share/whispr-scheduling"
#: Seconds for one command, and for a stack to start or stop.
PATIENCE, START = 20.0, 60.0
#: How often a command that only reads is tried until it shows what is expected, a fifth of a second apart.
TRIES = 75

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: What differs from run to run, and what stands for it.
_VARYING = [
    (_UUID, "<uid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r'"etag": "[0-9a-f]{12}-'), '"etag": "<uid>-'),
    (re.compile(r'"request_id":"[0-9a-f]{32}"'), '"request_id":"<request id>"'),
    (re.compile(r'"(lateness|duration|oldest_waiting)": "[\d.]+s"'), r'"\1": "<span>"'),
    (re.compile(r'"(received|timeout|duration)":[\d.e-]+'), r'"\1":<seconds>'),
    (re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01"), "<trace>"),
    (re.compile(r'"(host|database_version|leader_term|job_count)": "[^"]+"'), r'"\1": "<of this run>"'),
    (re.compile(r'"pid": \d+'), '"pid": <number>'),
    (re.compile(r'"(next_page_token|resume_token)": "[\w-]+"'), r'"\1": "<token>"'),
]


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a transcript and the lines shown below it, if any are."""

    line: int
    command: str
    shown: tuple[str, ...]

    @property
    def only_reads(self) -> bool:
        """Whether it may be repeated until it shows what is expected."""
        return re.search(r"/(Get|List)\w+$|^tail ", self.command) is not None


@dataclass(frozen=True, slots=True)
class Stack:
    """A running `scheduling up`."""

    address: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """That of a person who has done what the README says."""
        scripts = str(Path(sys.executable).parent)
        clean = clean_environment()
        return {**clean, "PATH": f"{scripts}{os.pathsep}{clean['PATH']}"}

    def here(self, text: str) -> str:
        """A command or program of the documents, for this stack."""
        return text.replace(ADDRESS, self.address).replace(DATA, str(self.folder))


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of the service."""
    environ = os.environ  # noqa: TID251 - handed on to the programs that are run
    return {name: value for name, value in environ.items() if not name.startswith("SCHEDULING_")}


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """`scheduling up --siblings` on free ports with its data in `folder`."""
    listen = {
        "SCHEDULING_GRPC_LISTEN": "127.0.0.1:0",
        "SCHEDULING_METRICS_LISTEN": "127.0.0.1:0",
        "SCHEDULING_SERVER_DRAIN": "0s",
    }
    data = folder / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduling", "up", "--siblings", "--data", str(data)],
        env={**clean_environment(), **listen},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        timer = threading.Timer(START, process.kill)
        timer.start()
        try:
            told = _until_ready(process)
            timer.cancel()
            found = re.search(r"^API +(\S+)", told, re.MULTILINE)
            assert found is not None, told
            yield Stack(found[1], data)
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=START)
            except subprocess.TimeoutExpired:
                process.kill()


def _until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    told = ""
    while "Ready." not in told:
        line = process.stdout.readline()
        assert line, f"the stack did not start: {told}"
        told += line
    return told


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def steps(text: str) -> list[Step]:
    """The commands of all ```console blocks with what is shown below each."""
    found: list[Step] = []
    for first, block in blocks(text, "console"):
        lines = block.splitlines()
        position = 0
        while position < len(lines):
            assert lines[position].startswith("$ "), f"line {first + position}: expected a command"
            begin, command = position, lines[position][2:]
            while not _is_whole(command):
                position += 1
                command += "\n" + lines[position]
            position += 1
            after = position
            while position < len(lines) and not lines[position].startswith("$ "):
                position += 1
            found.append(Step(first + begin, command, tuple(line.rstrip() for line in lines[after:position])))
    return found


def _is_whole(command: str) -> bool:
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def normal(line: str) -> str:
    """A line of output without what differs from run to run."""
    for pattern, stand_in in _VARYING:
        line = pattern.sub(stand_in, line)
    return line.rstrip()


def aligned(shown: Sequence[str], real: Sequence[str]) -> list[tuple[str, str]] | None:
    """The lines shown beside those that came, or None if they do not agree. `...` stands for any lines."""
    pairs: list[tuple[str, str]] = []
    at = 0
    skipping = False
    for number, line in enumerate(shown):
        if line == "...":
            skipping = True
            continue
        if skipping:
            rest = shown[number:]
            # A part that no further `...` follows has to end the output.
            at = len(real) - len(rest) if "..." not in rest else _find(line, real, at)
            skipping = False
        if not 0 <= at < len(real) or normal(line) != normal(real[at]):
            return None
        pairs.append((line, real[at]))
        at += 1
    return pairs if skipping or at == len(real) else None


def _find(line: str, real: Sequence[str], start: int) -> int:
    return next((n for n in range(start, len(real)) if normal(real[n]) == normal(line)), -1)


class Transcript:
    """Runs steps one after the other and remembers which id of this run stands for which of the document's."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ids: dict[str, str] = {}

    def run(self, step: Step) -> None:
        """Runs the command; fails the test unless it answers as the document shows.

        Where nothing is shown, it has to succeed.
        """
        command = _replaced(self._stack.here(step.command), self._ids)
        # What a step waits for happens at a time of its own, and a command line has no way to be told.
        for _ in range(TRIES if step.only_reads else 1):
            code, real = self._shell(command)
            if not step.shown:
                assert code == 0, f"line {step.line}: {command}\nanswers\n{real}"
                return
            pairs = aligned(step.shown, real.rstrip().splitlines())
            if pairs is not None:
                assert (code != 0) == step.shown[0].startswith("ERROR")
                for shown, came in pairs:
                    self._ids.update(zip(_UUID.findall(shown), _UUID.findall(came), strict=True))
                return
            time.sleep(0.2)
        shown_text = "\n".join(step.shown)
        pytest.fail(f"line {step.line}: {command}\nanswers\n{real}\nand not\n{shown_text}")

    def _shell(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            check=False,
            env=self._stack.environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout


def _replaced(command: str, ids: Mapping[str, str]) -> str:
    return _UUID.sub(lambda found: ids.get(found[0], found[0]), command)


def run_python(stack: Stack, program: str) -> None:
    """Runs a Python block of a document; fails the test if it does."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", stack.here(program)],
        check=False,
        env=stack.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the whole README."""
    with running_stack(tmp_path_factory.mktemp("readme")) as started:
        yield started


def test_the_readme_shows_what_really_happens(stack: Stack) -> None:
    found = steps(README.read_text())
    assert len(found) >= 7
    transcript = Transcript(stack)
    for step in found:
        transcript.run(step)


def test_the_readmes_python_runs(stack: Stack) -> None:
    programs = [program for _, program in blocks(README.read_text(), "python")]
    assert programs
    for program in programs:
        run_python(stack, program)


def test_a_transcript_that_lies_is_noticed(stack: Stack) -> None:
    wrong = Step(1, f"grpcurl -plaintext {ADDRESS} list", ("grpc.health.v1.Health",))
    with pytest.raises(pytest.fail.Exception, match="and not"):
        Transcript(stack).run(wrong)


def test_every_command_of_the_readme_is_a_target_of_the_makefile_or_run_here() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for _, block in blocks(README.read_text(), "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "export" or (words[0] == "make" and words[1] in targets), line


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (ROOT / link).exists(), link
