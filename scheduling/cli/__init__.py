"""The command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

import click

from scheduling import __version__

#: How a worker's gRPC reads its connections, unless the environment says: in the thread that waits for answers. By
#: default other threads read, and wake that one for each answer: three switches between threads for each call, not one.
WORKER_GRPC = "-event_engine_client"


class _Commands(click.Group):
    """Shows commands in the order of their first use rather than of the alphabet, and errors of settings in one
    message.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="scheduling")
def main() -> None:
    """Whispr scheduling: calls methods of sibling services at the times they ask for.

    To try everything on this machine, with a PostgreSQL and a Valkey of its own:

        scheduling up --siblings

    In production, `scheduling migrate` once, then any number of `scheduling server` and `scheduling worker`, all
    told by SCHEDULING_* variables where PostgreSQL, Redis and the siblings are. `scheduling settings` lists the
    variables.
    """


@main.command()
@click.option("--siblings", is_flag=True, help="Also start the demo siblings, which take every call and record it.")
@click.option(
    "--data", type=click.Path(file_okay=False), help="The data folder (default: SCHEDULING_DATA_DIR or the user's)."
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False),
    help="Where the demo siblings record calls (default: in the data folder).",
)
def up(*, siblings: bool, data: str | None, record: str | None) -> None:
    """Run everything in one go: PostgreSQL, Valkey, migrations, server and worker, until Ctrl-C.

    Servers named by SCHEDULING_DATABASE_URL and SCHEDULING_REDIS_URL are used in place of the embedded ones.
    """
    from scheduling.cli.up import run_up

    sys.exit(run_up(siblings=siblings, data=data, record=record))


@main.command()
def server() -> None:
    """Run one API server until SIGTERM or Ctrl-C."""
    sys.exit(_run_process()("server"))


@main.command()
@click.option("--queues", metavar="LIST", help="Comma-separated queues to work on (default: SCHEDULING_QUEUES or all).")
def worker(queues: str | None) -> None:
    """Run one worker until SIGTERM or Ctrl-C. Any number may run; one of them leads."""
    # gRPC reads it when it is imported.
    os.environ.setdefault("GRPC_EXPERIMENTS", WORKER_GRPC)  # noqa: TID251 - gRPC's own variable
    sys.exit(_run_process()("worker", queues=queues))


def _run_process() -> Callable[..., int]:
    """Imports what a process is made of. All of that is there to stay: to have the garbage collector go through it
    again and again while it grows is a sixth of the start.
    """
    gc.disable()
    try:
        from scheduling.cli.processes import run_process
    finally:
        gc.enable()
    return run_process


@main.command()
def migrate() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and while the previous version still runs."""
    from scheduling.cli.processes import run_migrate

    sys.exit(run_migrate())


@main.command()
@click.option("--since", metavar="TIME", help="Look at nominal times after this instant (default: 30 days ago).")
def verify(since: str | None) -> None:
    """Prove from the database that nothing was lost, doubled or left half done. Changes nothing; exits with 1 if not
    so.

    Each nominal time of each recurring schedule must be an execution, a gap, or still ahead, exactly once; each one-off
    must be there; and nothing may have been standing still for five minutes.
    """
    from scheduling.cli.verify import run_verify

    sys.exit(run_verify(since))


@main.group()
def restore() -> None:
    """After the database was restored to an earlier moment: what was called since then would be called again."""


@restore.command("mark")
def restore_mark() -> None:
    """Pause the service, before its workers start: nothing is called until ResumeService."""
    from scheduling.cli.restore import run_restore

    sys.exit(run_restore("mark", None, ()))


@restore.command("list")
@click.option("--since", metavar="TIME", help="Only what came due at this instant or later (default: all).")
def restore_list(since: str | None) -> None:
    """List what is unfinished in the database and came due: its call may have been made in the time that is lost."""
    from scheduling.cli.restore import run_restore

    sys.exit(run_restore("list", since, ()))


@restore.command("skip")
@click.option("--since", metavar="TIME", help="With --all: only what came due at this instant or later.")
@click.option("--all", "everything", is_flag=True, help="Skip all that `list` shows.")
@click.argument("names", nargs=-1, metavar="[EXECUTION]...")
def restore_skip(since: str | None, everything: bool, names: tuple[str, ...]) -> None:
    """End executions as SKIPPED (RESTORED) while the service is paused; the others run after ResumeService."""
    from scheduling.cli.restore import run_restore

    if everything == bool(names):
        raise click.UsageError("name executions, or give --all")
    sys.exit(run_restore("skip", since, names, everything=everything))


@main.command()
def settings() -> None:
    """List all settings with their defaults, and check those of this environment."""
    from scheduling.cli.processes import show_settings

    sys.exit(show_settings())
