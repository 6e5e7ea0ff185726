"""Ends streams politely when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from scheduling.rpc.errors import ShuttingDown


class OpenStreams:
    """The streams that are open now.

    A stream has no end of its own, so stopping would wait for each until the grace is over. Ended with UNAVAILABLE, its
    client goes on elsewhere.
    """

    def __init__(self) -> None:
        self._open: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._refuses = False

    def end_all(self) -> None:
        """Ends every stream, and every later one at once, with ShuttingDown."""
        self._refuses = True
        self._ended |= self._open
        for task in self._open:
            task.cancel()

    async def serve(self, behaviour: Callable[[Any, Any], Awaitable[Any]], request: Any, context: Any) -> Any:
        """Runs one stream. Raises ShuttingDown when `end_all` ended it, CancelledError when its client did."""
        if self._refuses:
            raise ShuttingDown
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await behaviour(request, context)
        except asyncio.CancelledError:
            # Two cancellations mean that the client is gone as well: nobody to answer.
            if task not in self._ended or task.cancelling() > 1:
                raise
            task.uncancel()
            raise ShuttingDown from None
        finally:
            self._open.discard(task)
            self._ended.discard(task)
