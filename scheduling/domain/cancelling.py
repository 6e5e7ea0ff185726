"""Cancellation that lasts: a loop that is told to end ends, also when something inside has swallowed the word."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Raises CancelledError in a task that was cancelled and goes on all the same.

    `asyncio.wait_for` of Python 3.11 returns its result when that comes in the same turn as the cancellation, and
    psycopg's pool waits for connections by it: whoever then awaits the end of the task waits for ever. Loops call this
    before each round.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
