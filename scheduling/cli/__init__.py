"""The command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import click

from scheduling import __version__


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
    from scheduling.cli.processes import run_process

    sys.exit(run_process("server"))


@main.command()
@click.option("--queues", metavar="LIST", help="Comma-separated queues to work on (default: SCHEDULING_QUEUES or all).")
def worker(queues: str | None) -> None:
    """Run one worker until SIGTERM or Ctrl-C. Any number may run; one of them leads."""
    from scheduling.cli.processes import run_process

    sys.exit(run_process("worker", queues=queues))


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


@main.command()
def settings() -> None:
    """List all settings with their defaults, and check those of this environment."""
    from scheduling.cli.processes import show_settings

    sys.exit(show_settings())
