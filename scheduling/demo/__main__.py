"""`python -m scheduling.demo`: the main job for real, and a verdict.

Exit codes: 0 when everything held, 1 when something did not or the demo could not run, 2 for wrong options, 130 and
143 when it was interrupted.
"""

from __future__ import annotations

import signal
import sys
import time

# From the first moment on; by itself click makes any interruption an exit code of 1.
for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, lambda number, _: sys.exit(128 + number))
_BEGAN = time.perf_counter()

import click  # noqa: E402 - what takes time to import comes after


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--messages", default=2000, show_default=True, type=click.IntRange(20, 20_000), help="Plain one-offs to ask for."
)
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(4, 600), help="The span they are due over."
)
@click.option("--keep", is_flag=True, help="Keep the data folder, with the logs and the siblings' records.")
@click.option("--plain", is_flag=True, help="Lines in place of the live panel; as where the output is no terminal.")
def main(*, messages: int, seconds: float, keep: bool, plain: bool) -> None:
    """Play the main job for real, and judge it.

    Starts PostgreSQL, Valkey, the API server, two workers and sibling services in a temporary folder, asks for
    messages, notifications, digests, clean-ups and a report through the public API, cancels some, kills a worker in
    the middle, and compares what was asked for with what the siblings received and with what the API reports.
    Exits with 0 only if nothing is missing, doubled, early or unexplained.
    """
    from scheduling.demo.run import run_demo

    spent = time.perf_counter() - _BEGAN
    sys.exit(run_demo(messages=messages, seconds=seconds, keep=keep, plain=plain, spent=spent))


if __name__ == "__main__":
    main()
