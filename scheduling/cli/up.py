"""`scheduling up`: the whole service on one machine, each part a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from scheduling import app
from scheduling.cli.processes import FAILED, read_settings
from scheduling.domain.errors import StoreUnavailable
from scheduling.embedded import EmbeddedError, EmbeddedStack, default_data_dir
from scheduling.settings import Settings, address_variable
from scheduling.storage.database import store_errors_sync
from scheduling.storage.migrate import migrate

#: Seconds that a part may take to say that it is ready, and to stop after SIGTERM.
START_SECONDS, STOP_SECONDS = 90.0, 20.0


class UpError(Exception):
    """A part of the stack did not start."""


@dataclass(frozen=True, slots=True)
class Part:
    """A running process of the stack, and what it said when it was ready."""

    name: str
    process: subprocess.Popen[str]
    said: str


class Stack:
    """Starts parts one by one and stops them in the reverse order."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self.parts: list[Part] = []

    def start(self, name: str, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> Part:
        """Starts `python -m …` and waits for its line `ready …`. Raises UpError."""
        log = (self._logs / f"{name}.log").open("a", encoding="utf-8")
        with log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, "-m", *arguments],
                env={**self._environment, **(more or {})},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C is for us alone: the parts are stopped in order.
                start_new_session=True,
            )
        part = Part(name, process, _first_line(process))
        self.parts.append(part)
        if not part.said.startswith("ready"):
            raise UpError(f"{name} did not start; its log is {log.name}")
        return part

    def stop(self) -> None:
        """Stops all parts, the last started first."""
        for part in reversed(self.parts):
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
                try:
                    part.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    part.process.kill()
                    part.process.wait()
            if part.process.stdout is not None:
                part.process.stdout.close()
        self.parts.clear()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.readline().strip()
    finally:
        timer.cancel()


@contextlib.contextmanager
def data_folder(settings: Settings, data: str | None) -> Iterator[tuple[Path, dict[str, str]]]:
    """The data folder, and the environment in which the parts find PostgreSQL and Redis; embedded where none are
    named.
    """
    environ = os.environ  # noqa: TID251 - handed on to the parts
    folder = Path(data) if data else settings.data_dir or default_data_dir(environ)
    environment = dict(environ)
    with contextlib.ExitStack() as stack:
        if settings.database_url is None or settings.redis_url is None:
            embedded = stack.enter_context(EmbeddedStack(folder))
            environment.setdefault("SCHEDULING_DATABASE_URL", embedded.database_url)
            environment.setdefault("SCHEDULING_REDIS_URL", embedded.redis_url)
        logs = folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        try:
            with store_errors_sync():
                migrate(environment["SCHEDULING_DATABASE_URL"])
        except StoreUnavailable as error:
            raise UpError(f"{error}: {error.__cause__}") from error
        yield folder, environment


def sibling_addresses(port: int) -> dict[str, str]:
    """The settings that send every sibling's calls to one local port."""
    return {address_variable(service): f"127.0.0.1:{port}" for service in app.service_names()}


def run_up(*, siblings: bool, data: str | None, record: str | None) -> int:
    """Runs the stack until SIGTERM or Ctrl-C; returns the exit code."""
    settings = read_settings()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with data_folder(settings, data) as (folder, environment):
            stack = Stack(environment, folder / "logs")
            try:
                return _run(stack, settings, folder, stop, siblings=siblings, record=record)
            finally:
                stack.stop()
    except (EmbeddedError, UpError, OSError) as error:
        click.echo(f"scheduling up: {error}", err=True)
        return FAILED


def _run(
    stack: Stack, settings: Settings, folder: Path, stop: threading.Event, *, siblings: bool, record: str | None
) -> int:
    more: dict[str, str] = {}
    if siblings:
        path = Path(record) if record else folder / "siblings.jsonl"
        port = stack.start("siblings", ["scheduling.demo.siblings", "--record", str(path)]).said.split()[1]
        more = sibling_addresses(int(port))
        click.echo(f"demo siblings    127.0.0.1:{port}, recording to {path}")
    # Both serve metrics: the worker takes any free port, so that one machine has room for them.
    stack.start("worker", ["scheduling", "worker"], {**more, "SCHEDULING_METRICS_LISTEN": "127.0.0.1:0"})
    port = stack.start("server", ["scheduling", "server"], more).said.split()[1]
    host = settings.grpc_listen.rpartition(":")[0]
    click.echo(f"data and logs    {folder}")
    click.echo(f"API              {host}:{port}      try: grpcurl -plaintext {host}:{port} list")
    click.echo(f"metrics          http://{settings.metrics_listen}/metrics")
    click.echo("Ready. Ctrl-C stops everything.")
    while not stop.wait(0.2):
        gone = [part for part in stack.parts if part.process.poll() is not None]
        if gone:
            raise UpError(f"{gone[0].name} has ended by itself; its log is in {folder / 'logs'}")
    click.echo("Stopping.")
    return 0
