"""Commands that run one process of the service."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import click

from scheduling import app
from scheduling.domain.errors import StoreUnavailable
from scheduling.operations.policy_file import PolicyError
from scheduling.rpc.server import ListenError
from scheduling.settings import Settings, SettingsError, from_environment, settings_table

#: Exit codes: wrong settings or arguments, and a failure at run time.
BAD_SETTINGS, FAILED = 2, 1


def read_settings() -> Settings:
    """The settings of this environment. Prints all problems and exits with 2 if there are any."""
    try:
        return from_environment(app.service_names())
    except SettingsError as error:
        click.echo(f"The settings are wrong:\n{error}", err=True)
        sys.exit(BAD_SETTINGS)


def require(settings: Settings, *names: str) -> None:
    """Prints which of the settings are missing and exits with 2, if any is."""
    missing = [f"SCHEDULING_{name.upper()} is not set" for name in names if getattr(settings, name) is None]
    if missing:
        hint = "or run `scheduling up`, which brings its own PostgreSQL and Valkey"
        click.echo("The settings are wrong:\n" + "\n".join(missing) + f"\n({hint})", err=True)
        sys.exit(BAD_SETTINGS)


def run_process(kind: str, *, queues: str | None = None) -> int:
    """Runs a server or a worker until it is told to stop; returns the exit code."""
    if queues is not None:
        os.environ["SCHEDULING_QUEUES"] = queues  # noqa: TID251 - the option is the setting under another name
    _tame_memory()
    settings = read_settings()
    require(settings, "database_url")
    try:
        if kind == "server":
            run_loop(_until_stopped(lambda stop: app.run_server(settings, stop, _server_ready)))
        else:
            run_loop(_until_stopped(lambda stop: app.run_worker(settings, stop, _worker_ready)))
    except PolicyError as error:
        click.echo(f"The policy {settings.policy_file} is wrong:\n{error}", err=True)
        return BAD_SETTINGS
    except (app.WorkerFailed, ListenError, OSError) as error:
        click.echo(f"scheduling {kind}: {error}", err=True)
        return FAILED
    return 0


def _tame_memory() -> None:
    """Has the C library give memory back, in which gRPC and psycopg hold what passes through them.

    A batch of creations is a message of hundreds of kilobytes: above MMAP_THRESHOLD such buffers are given back whole.
    More arenas than two do nothing for an event loop but hold on to what their threads once needed. Where there is no
    `mallopt`, the library has its own way.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((trim_threshold, 512 * 1024), (mmap_threshold, 128 * 1024), (arena_max, 2)):
        mallopt(option, value)


def _settle_garbage() -> None:
    """Has the garbage collector leave alone what is there for good, and look less often: cycles are rare here, and a
    batch makes ten thousand objects that go by themselves.

    It still has to look at the old ones now and then. What SQLAlchemy compiled is full of cycles, and has become old
    when others drive it out of what is kept.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 5, 5)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end on the event loop of the service's processes: uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def _until_stopped(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(stop)


def _server_ready(port: int) -> None:
    _settle_garbage()
    click.echo(f"ready {port}")


def _worker_ready(worker: object) -> None:
    _settle_garbage()
    click.echo(f"ready {worker}")


def run_migrate() -> int:
    """Migrates the database; returns the exit code."""
    from scheduling.storage.database import store_errors_sync
    from scheduling.storage.migrate import head_revision, migrate

    settings = read_settings()
    require(settings, "database_url")
    assert settings.database_url is not None
    try:
        with store_errors_sync():
            migrate(settings.database_url)
    except StoreUnavailable as error:
        click.echo(f"scheduling migrate: {error}: {error.__cause__}", err=True)
        return FAILED
    click.echo(f"the database is at revision {head_revision()}")
    return 0


def show_settings() -> int:
    """Prints the table of settings; returns the exit code."""
    for name, default, description in settings_table(app.service_names()):
        click.echo(f"{name}\n    {description}\n    default: {default}")
    read_settings()
    return 0
