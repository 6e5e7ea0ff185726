"""The page that Prometheus reads: `/metrics`, and `/healthz` beside it, over HTTP/1.1.

Small on purpose: one request per connection, GET and HEAD only, every request bounded in size and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from scheduling.telemetry.logs import log_event

MAX_HEAD: Final = 8192  #: bytes of request line and headers
MAX_CONNECTIONS: Final = 32  #: at once; as many again get 503, further ones are closed without an answer
READ_TIMEOUT: Final = 5.0  #: seconds for the request to arrive
WRITE_TIMEOUT: Final = 10.0  #: seconds for the answer to be taken
LINGER: Final = 0.5  #: seconds for the other side to close first
REFRESH_TIMEOUT: Final = 1.0  #: seconds for the gauges to be updated

Refresh = Callable[[], Awaitable[None]]
_TEXT: Final = "text/plain; charset=utf-8"

logger = logging.getLogger(__name__)


class MetricsServer:
    """Serves `registry` at `listen` (`host:port`, port 0 for any free one, empty for not at all) while entered.

    `refresh` is awaited before each page, to set gauges that are read and not counted; if it fails or takes more than
    REFRESH_TIMEOUT, the page shows them as they were. `/healthz` answers 200 as long as the event loop runs. Entering
    raises OSError if the address cannot be had.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        listen: str,
        refresh: Refresh | None = None,
        *,
        read_timeout: float = READ_TIMEOUT,
        refresh_timeout: float = REFRESH_TIMEOUT,
    ) -> None:
        self._registry = registry
        self._listen = listen
        self._refresh = refresh
        self._read_timeout = read_timeout
        self._refresh_timeout = refresh_timeout
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._serving = 0
        #: The port that is listened on; 0 when off.
        self.port = 0

    async def __aenter__(self) -> Self:
        if self._listen:
            host, _, port = self._listen.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            self._server = await asyncio.start_server(self._connected, host, int(port), limit=MAX_HEAD)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= 2 * MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._exchange(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._serving >= MAX_CONNECTIONS:
                answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE)
            else:
                self._serving += 1
                try:
                    answer = await self._answer_to(reader)
                finally:
                    self._serving -= 1
            async with asyncio.timeout(WRITE_TIMEOUT):
                writer.write(answer)
                writer.write_eof()
                await writer.drain()
            # Closing while parts of a request are unread resets the connection, and the answer is lost with it.
            async with asyncio.timeout(LINGER):
                while await reader.read(MAX_HEAD):
                    pass
        except (OSError, TimeoutError):
            pass  # the other side is gone, does not read or does not close
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _answer_to(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._read_timeout):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return _answer(HTTPStatus.REQUEST_TIMEOUT)
        except asyncio.LimitOverrunError:
            return _answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError:
            return _answer(HTTPStatus.BAD_REQUEST)
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _answer(HTTPStatus.BAD_REQUEST)
        method, path = words[0], words[1].partition("?")[0]
        if path not in ("/metrics", "/healthz"):
            return _answer(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return _answer(HTTPStatus.METHOD_NOT_ALLOWED, extra="Allow: GET, HEAD\r\n")
        if path == "/healthz":
            return _answer(HTTPStatus.OK, b"ok\n", bodyless=method == "HEAD")
        return _answer(HTTPStatus.OK, await self._page(), CONTENT_TYPE_PLAIN_0_0_4, bodyless=method == "HEAD")

    async def _page(self) -> bytes:
        if self._refresh is not None:
            try:
                async with asyncio.timeout(self._refresh_timeout):
                    await self._refresh()
            except Exception as error:  # noqa: BLE001 - whatever fails there, the counters are still worth having
                log_event(logger, logging.WARNING, "metrics_refresh_failed", reason=error)
        # Thousands of lines take many milliseconds: in a thread, calls that are due now do not wait for them.
        return await asyncio.to_thread(generate_latest, self._registry)


def _answer(
    status: HTTPStatus, body: bytes | None = None, content_type: str = _TEXT, *, bodyless: bool = False, extra: str = ""
) -> bytes:
    if body is None:
        body = f"{status.phrase}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if bodyless else body)
