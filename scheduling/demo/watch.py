"""The live view: what happens, as the API tells it. A panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from whispr.scheduling.v1 import execution_pb2

from scheduling.demo.asking import Api
from scheduling.demo.verdict import percentile
from scheduling.domain.clock import Clock

#: Seconds between two pictures of the panel, and between two plain lines.
PANEL_PAUSE, LINE_PAUSE = 0.25, 2.0
#: Events that the panel shows.
EVENTS = 8

_FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED")


@dataclass(slots=True)
class Progress:
    """What is known so far. `firings` are the executions that there will be in the end."""

    clock: Clock
    began: float
    firings: int = 0
    jobs: int = 0
    api: Api | None = None
    phase: str = "starting"
    first_delivery: float | None = None
    states: dict[str, str] = field(default_factory=dict)
    lateness: dict[str, timedelta] = field(default_factory=dict)
    retrying: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.monotonic() - self.began

    @property
    def ended(self) -> int:
        """Executions that have ended."""
        return sum(state in _FINAL for state in self.states.values())

    def see(self, executions: Sequence[execution_pb2.Execution]) -> None:
        """Takes in executions as they are now."""
        for execution in executions:
            name, state = execution.name, execution_pb2.Execution.State.Name(execution.state)
            self.states[name] = state
            if execution.HasField("lateness"):
                self.lateness[name] = execution.lateness.ToTimedelta()
            if state == "PENDING" and execution.attempt_count:
                self.retrying.add(name)
            else:
                self.retrying.discard(name)
            if state == "SUCCEEDED" and self.first_delivery is None:
                self.first_delivery = self.elapsed

    def counts(self) -> dict[str, int]:
        """Executions by what they do now."""
        states = Counter(self.states.values())
        return {
            "ahead": max(self.firings - len(self.states), 0),
            "due": states["PENDING"] + states["QUEUED"] - len(self.retrying),
            "running": states["RUNNING"],
            "retrying": len(self.retrying),
            "succeeded": states["SUCCEEDED"],
            "failed": states["FAILED"],
            "cancelled": states["CANCELLED"],
        }

    def lateness_text(self) -> str:
        """The lateness so far."""
        if not self.lateness:
            return "-"
        found = sorted(self.lateness.values())
        return f"p50 {milliseconds(percentile(found, 50))}  p99 {milliseconds(percentile(found, 99))}"


def milliseconds(span: timedelta) -> str:
    """A span as people read it."""
    return f"{span / timedelta(milliseconds=1):,.1f} ms"


class View(Protocol):
    """Shows events as they come, and the progress while it runs."""

    def told(self, event: str) -> None:
        """Something happened."""

    async def keep_showing(self) -> None:
        """Shows the progress until cancelled."""


class LineView:
    """Lines, for pipes and logs."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console

    def told(self, event: str) -> None:
        """Writes a line."""
        self._line(event)

    async def keep_showing(self) -> None:
        """Writes a line every two seconds until cancelled."""
        while True:
            await self._progress.clock.sleep(LINE_PAUSE)
            counts = ", ".join(f"{count} {name}" for name, count in self._progress.counts().items() if count)
            self._line(f"{self._progress.phase}: {counts or 'nothing yet'}; late {self._progress.lateness_text()}")

    def _line(self, text: str) -> None:
        self._console.print(f"{self._progress.elapsed:6.1f}s  {text}", markup=False, highlight=False, soft_wrap=True)


class PanelView:
    """A panel that is drawn anew, for people."""

    def __init__(self, progress: Progress, live: Live) -> None:
        self._progress = progress
        self._live = live
        self._events: deque[tuple[float, str]] = deque(maxlen=EVENTS)

    def told(self, event: str) -> None:
        """Adds a line to the panel."""
        self._events.append((self._progress.elapsed, event))
        self._draw()

    async def keep_showing(self) -> None:
        """Draws four times a second until cancelled."""
        while True:
            self._draw()
            await self._progress.clock.sleep(PANEL_PAUSE)

    def _draw(self) -> None:
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        progress = self._progress
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        bar.add_row(
            ProgressBar(total=max(progress.firings, 1), completed=progress.ended),
            Text(f"{progress.ended:,} of {progress.firings:,} executions ended"),
        )
        counts = Table.grid(padding=(0, 3))
        counted = progress.counts()
        colours = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}
        counts.add_row(*(Text(name, style="dim") for name in counted))
        counts.add_row(*(Text(f"{count:,}", style=colours.get(name, "")) for name, count in counted.items()))
        tally = progress.api.tally if progress.api is not None else None
        created = f"{tally.created:,} of {progress.jobs:,} jobs created" if tally is not None else "no job created yet"
        events = Text("\n".join(f"{at:6.1f}s  {event}" for at, event in self._events), style="dim")
        status = Text(f"{created}   lateness so far: {progress.lateness_text()}")
        return Panel(
            Group(bar, Text(), counts, Text(), status, Text(), events),
            title=f"Whispr scheduling demo, {progress.phase}, {progress.elapsed:.0f}s",
            title_align="left",
        )


@contextlib.contextmanager
def open_view(progress: Progress, console: Console, *, plain: bool) -> Iterator[View]:
    """The view that fits: a panel if the console is a terminal and nobody wants it plain."""
    if plain or not console.is_terminal:
        yield LineView(progress, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield PanelView(progress, live)


async def follow(api: Api, progress: Progress, started: asyncio.Event) -> None:
    """Takes in what WatchExecutions tells until cancelled; `started` is set by its first message."""
    async for executions in api.watch():
        started.set()
        progress.see(executions)
