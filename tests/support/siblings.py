"""A sibling in this process: a real gRPC server of the siblings' contracts that does what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import Message

from scheduling.demo.siblings import sibling_services
from tests.support.run import PATIENCE, Signal


@dataclass(frozen=True, slots=True)
class Call:
    """One call that arrived. `number` counts the calls with the same idempotency key, from 1."""

    method: str
    request: Message
    metadata: Mapping[str, str]
    timeout: float | None
    number: int

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.metadata.get("idempotency-key", "")

    @property
    def attempt(self) -> int:
        """The attempt number."""
        return int(self.metadata.get("x-scheduling-attempt", "0"))


class Refuse(Exception):
    """Raised by a behaviour: the call is answered with this code, text and trailing metadata."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "refused", trailing: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailing = trailing


Behaviour = Callable[[Call], Awaitable[Message | None]]


async def answer_ok(call: Call) -> Message | None:
    """The default behaviour: an empty response of the right type."""
    return None


def refusing(code: grpc.StatusCode, times: int | None = None) -> Behaviour:
    """Answers `code`, or only to the first `times` calls with the same key."""

    async def behave(call: Call) -> Message | None:
        if times is None or call.number <= times:
            raise Refuse(code)
        return None

    return behave


async def hang(call: Call) -> Message | None:
    """Never answers; ends when the caller gives up."""
    await asyncio.Event().wait()
    return None


class SiblingServer:
    """All siblings behind one port of this machine. `calls` is what arrived, `cancelled` what the caller gave up.

    `behave` is asked what to do with each call: it returns the response, or None for an empty one, or raises Refuse.
    """

    def __init__(self, behave: Behaviour = answer_ok) -> None:
        self.behave = behave
        self.calls: list[Call] = []
        self.cancelled: list[Call] = []
        self.changed = Signal()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def addresses(self) -> dict[str, str]:
        """The address of every sibling, by its short name, as `Channels` wants it."""
        return {service.file.package: self.address for service in sibling_services()}

    async def until(self, count: int, patience: float = PATIENCE) -> list[Call]:
        """Waits until that many calls have arrived, and returns all."""
        await self.changed.until(lambda: len(self.calls) >= count, patience)
        return self.calls

    async def __aenter__(self) -> Self:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for service in sibling_services():
            handlers = {method.name: self._handler(service.full_name, method) for method in service.methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def _handler(self, service: str, method: Any) -> Any:
        name = f"{service}/{method.name}"
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)

        async def handle(request: Message, context: Any) -> Message:
            metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            key = metadata.get("idempotency-key", "")
            number = 1 + sum(each.key == key for each in self.calls)
            call = Call(name, request, metadata, context.time_remaining(), number)
            self.calls.append(call)
            self.changed.notify()
            try:
                response = await self.behave(call)
            except Refuse as refusal:
                await context.abort(refusal.code, refusal.details, refusal.trailing)
            except asyncio.CancelledError:
                self.cancelled.append(call)
                self.changed.notify()
                raise
            return response_class() if response is None else response

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=request_class.FromString,
            response_serializer=response_class.SerializeToString,
        )
