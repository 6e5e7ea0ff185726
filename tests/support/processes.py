"""Real processes of the service, started by its own command line and killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduling.app import service_names
from scheduling.settings import PREFIX, address_variable

#: Seconds for a process to say that it is ready, or to end.
PATIENCE = 60.0


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of the service but those given, by their short names:
    `environment(database_url=...)` sets SCHEDULING_DATABASE_URL.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}  # noqa: TID251
    return kept | {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}


def sibling_settings(address: str) -> dict[str, str]:
    """The variables that send the calls to every sibling to one address."""
    return {address_variable(service): address for service in service_names()}


class Process:
    """A Python program that prints `ready …` when it is. Ends with the `with` block at the latest, by force."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.lines: list[str] = []
        self._spoke = threading.Condition()
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> str:
        """What it said after `ready`: a server's port, a worker's id. AssertionError when it does not get there."""
        with self._spoke:
            self._spoke.wait_for(lambda: self._ready() is not None or self._ended(), PATIENCE)
            said = self._ready()
        assert said is not None, f"not ready, exit code {self.code}:\n{self.log[-3000:]}"
        return said

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._finish()

    def stop(self) -> int:
        """SIGTERM; waits and returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._finish()
        return self._process.returncode

    def wait(self) -> int:
        """Waits for it to end by itself; returns the exit code."""
        self._finish()
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._finish()

    def _finish(self) -> None:
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._spoke:
                self.lines.append(line.rstrip("\n"))
                self._spoke.notify_all()
        with self._spoke:
            self.lines.append("")
            self._spoke.notify_all()

    def _ready(self) -> str | None:
        return next((line.partition(" ")[2] for line in self.lines if line.startswith("ready")), None)

    def _ended(self) -> bool:
        return bool(self.lines) and self.lines[-1] == "" and not self._reader_alive()

    def _reader_alive(self) -> bool:
        return self._process.poll() is None


def start_server(env: Mapping[str, str], folder: Path, name: str = "server") -> Process:
    """`scheduling server` on any free port; `wait_ready` tells which."""
    defaults = {f"{PREFIX}GRPC_LISTEN": "127.0.0.1:0", f"{PREFIX}METRICS_LISTEN": ""}
    return Process(["scheduling", "server"], defaults | dict(env), folder / f"{name}.log")


def start_worker(env: Mapping[str, str], folder: Path, name: str = "worker", *arguments: str) -> Process:
    """`scheduling worker`; `wait_ready` tells its id."""
    defaults = {f"{PREFIX}METRICS_LISTEN": ""}
    return Process(["scheduling", "worker", *arguments], defaults | dict(env), folder / f"{name}.log")


def start_siblings(folder: Path, *rules: str, name: str = "siblings") -> Process:
    """The demo siblings on any free port, recording to `<name>.jsonl` in `folder`; `wait_ready` tells the port."""
    options = [part for rule in rules for part in ("--rule", rule)]
    record = str(folder / f"{name}.jsonl")
    return Process(["scheduling.demo.siblings", "--record", record, *options], environment(), folder / f"{name}.log")
