"""A TCP link that can be broken: cut, refused, hung, slowed, or cut after the request and before its answer."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.run import Signal

_CHUNK = 65536


class Proxy:
    """Passes bytes between clients and one server, `host:port` of `url`, as long as nothing is broken."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._url = url
        self._target = (parts.hostname, parts.port)
        self._netloc = parts.netloc
        self._server: asyncio.Server | None = None
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._losing = False
        self._losing_after = b""
        self.delay = 0.0
        self.port = 0
        #: Connections taken so far, and answers that were swallowed.
        self.connections = 0
        self.lost = 0
        self.changed = Signal()

    @property
    def url(self) -> str:
        """The URL of the server, by way of this proxy."""
        credentials, at, _ = self._netloc.rpartition("@")
        return self._url.replace(self._netloc, f"{credentials}{at}127.0.0.1:{self.port}", 1)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections at once, without a goodbye; new ones are taken."""
        for pair in list(self._links):
            for writer in pair:
                writer.transport.abort()
        self._links.clear()

    def refuse(self) -> None:
        """Ends all connections, and new ones as they come, until `restore`."""
        self._refusing = True
        self.cut()

    def hang(self) -> None:
        """Holds all bytes back, in both directions, until `restore`. Connections stay open, new ones are taken."""
        self._flowing.clear()

    def lose_next_answer(self, after: bytes = b"") -> None:
        """Lets the next request through, swallows what the server says to it, and cuts that connection: the change is
        made, and nobody is told. With `after`, the next request that contains these bytes.
        """
        self._losing, self._losing_after = True, after

    def restore(self) -> None:
        """All is well again."""
        self._refusing = self._losing = False
        self.delay = 0.0
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.changed.notify()
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._links.add(pair)
        link = _Link()
        for work in (self._forth(reader, far_writer, link), self._back(far_reader, writer, link, pair)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flow()
                if self._losing and self._losing_after in data:
                    self._losing = False
                    link.loses = True
                writer.write(data)
                await writer.drain()
        _close(writer)

    async def _back(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        link: _Link,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flow()
                if link.loses:
                    # PostgreSQL ends its answer with ReadyForQuery, when the change is durable.
                    if data[-6:-1] != b"Z\x00\x00\x00\x05":
                        continue
                    self._links.discard(pair)
                    for each in pair:
                        each.transport.abort()
                    self.lost += 1
                    self.changed.notify()
                    return
                writer.write(data)
                await writer.drain()
        self._links.discard(pair)
        _close(writer)

    async def _flow(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)  # noqa: TID251 - a slow link is what is asked for
        await self._flowing.wait()


class _Link:
    """One connection."""

    def __init__(self) -> None:
        self.loses = False


def _close(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.close()
