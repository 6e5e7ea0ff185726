"""One run of the demo, from setting up to the exit code."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from scheduling.app import SystemClock
from scheduling.cli.up import UpError
from scheduling.demo.asking import AskError
from scheduling.demo.load import make_plan
from scheduling.demo.play import Play, PlayError
from scheduling.demo.show import show_verdict
from scheduling.demo.stage import Stage, set_up
from scheduling.demo.verdict import Evidence, judge
from scheduling.demo.watch import Progress, View, open_view
from scheduling.embedded import EmbeddedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Columns of the tables where no terminal says how wide it is.
PLAIN_WIDTH = 120


class _Interrupted(BaseException):
    """Somebody wants the demo to stop. As KeyboardInterrupt, no error that anything between here and there handles."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_demo(*, messages: int, seconds: float, keep: bool, plain: bool, spent: float = 0.0) -> int:
    """Runs the demo and returns the exit code. `spent` are the seconds that have gone by since the start."""
    _on_signals(_interrupt)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    clock = SystemClock()
    progress = Progress(clock, clock.monotonic() - spent)
    try:
        evidence = _play(console, progress, messages=messages, seconds=seconds, keep=keep, plain=plain)
    except _Interrupted as stopped:
        console.print("Stopped." if keep else "Stopped; nothing is left behind.")
        return 128 + stopped.number
    except (EmbeddedError, UpError, AskError, PlayError) as error:
        click.echo(f"The demo could not run: {error}", err=True)
        _show_complaints(progress, keep=keep)
        return 1
    verdict = judge(evidence)
    if not verdict.passed:
        _show_complaints(progress, keep=keep)
    show_verdict(console, verdict, progress)
    return 0 if verdict.passed else 1


def _show_complaints(progress: Progress, *, keep: bool) -> None:
    for complaint in progress.complaints:
        click.echo(f"  in the logs: {complaint}", err=True)
    if not keep:
        click.echo("With --keep the folder with all logs stays.", err=True)


def _play(console: Console, progress: Progress, *, messages: int, seconds: float, keep: bool, plain: bool) -> Evidence:
    with open_view(progress, console, plain=plain) as view, set_up(view.told, keep=keep) as stage:
        if keep:
            view.told(f"logs and records stay in {stage.folder}")
        try:
            return asyncio.run(_run(stage, progress, view, messages=messages, seconds=seconds))
        finally:
            # The loop has put back the handlers of the system; from here on there is only cleaning up.
            _on_signals(signal.SIG_IGN)
            progress.phase = "stopping"
            progress.complaints = stage.complaints()


async def _run(stage: Stage, progress: Progress, view: View, *, messages: int, seconds: float) -> Evidence:
    clock = progress.clock
    plan = make_plan(secrets.token_hex(3), clock.now(), messages=messages, seconds=seconds)
    playing = asyncio.create_task(Play(stage, plan, progress, view, clock).run())
    stopped_by: list[int] = []

    def stop(number: int) -> None:
        stopped_by.append(number)
        playing.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        return await playing
    except asyncio.CancelledError:
        if stopped_by:
            raise _Interrupted(stopped_by[0]) from None
        raise


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    # Once is enough: what follows is cleaning up, which a second one would only leave half done.
    _on_signals(signal.SIG_IGN)
    raise _Interrupted(number)


def _on_signals(handler: signal._HANDLER) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)
