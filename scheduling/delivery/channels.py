"""Channels to the siblings: one per service, kept open, with retries of gRPC's own switched off: attempts are ours
to count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from scheduling.delivery.envoy import unsent_reason
from scheduling.delivery.targets import TargetTable
from scheduling.delivery.unary import Invoke, unary
from scheduling.domain.limits import KEPT_MESSAGE_CHARACTERS, KEPT_RESPONSE_BYTES
from scheduling.domain.retry import Code
from scheduling.domain.value import value

_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.max_send_message_length", 8 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config_disable_resolution", 1),
)
_PUSHBACK = "grpc-retry-pushback-ms"
_DETAILS = "grpc-status-details-bin"


@value
class Answer:
    """What came of a call: a status code, its text, what a small response held, how long the target wants to be left
    alone, and why it was never sent, if the sidecar says so.
    """

    code: Code
    message: str = ""
    response: bytes | None = None
    response_type: str = ""
    pushback: timedelta | None = None
    unsent: str = ""


class Channels:
    """Makes calls by method name, of the types that the generated contracts name. Close it with `close`."""

    def __init__(
        self,
        table: TargetTable,
        addresses: Mapping[str, str],
        unary: Callable[[grpc.aio.Channel, str], Invoke] = unary,
    ) -> None:
        self._table = table
        self._unary = unary
        self._addresses = addresses
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._methods: dict[str, tuple[Invoke, type[Message], type[Message]]] = {}

    async def call(
        self, method: str, request: bytes, timeout: timedelta, metadata: tuple[tuple[str, str], ...]
    ) -> Answer:
        """Calls `method` once. Never raises for what the target or the network does; asyncio cancellation cancels
        the call.
        """
        found = self._methods.get(method)
        if found is None:
            found = self._methods[method] = self._prepare(method)
        invoke, request_class, response_class = found
        try:
            request_class.FromString(request)
        except DecodeError:
            return Answer(Code.INVALID_ARGUMENT, "the stored request no longer decodes as the method's request type")
        try:
            response = await invoke(request, timeout.total_seconds(), metadata)
        except grpc.aio.AioRpcError as error:
            return _answer(error)
        try:
            response_class.FromString(response)
        except DecodeError:
            return Answer(Code.INTERNAL, "the response does not decode as the method's response type")
        if len(response) > KEPT_RESPONSE_BYTES:
            return Answer(Code.OK)
        return Answer(Code.OK, "", response, response_class.DESCRIPTOR.full_name)

    def _prepare(self, method: str) -> tuple[Invoke, type[Message], type[Message]]:
        service = method.rpartition("/")[0]
        address = self._addresses[service.partition(".")[0]]
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return self._unary(channel, f"/{method}"), self._table.request_class(method), self._table.response_class(method)

    async def close(self) -> None:
        """Closes all channels; calls under way end as CANCELLED."""
        for channel in self._channels.values():
            await channel.close()


def _answer(error: grpc.aio.AioRpcError) -> Answer:
    code = Code(error.code().value[0])
    text = (error.details() or "").replace("\0", "")[:KEPT_MESSAGE_CHARACTERS]
    if code is Code.UNAVAILABLE:
        return Answer(code, text, pushback=_pushback(error), unsent=unsent_reason(text, _headers(error)))
    return Answer(code, text, pushback=_pushback(error))


def _headers(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What came with an answer. One that is nothing but an error has all of it in its trailers."""
    both = (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
    return {key: value for key, value in both if isinstance(value, str)}


def _pushback(error: grpc.aio.AioRpcError) -> timedelta | None:
    """How long the target asks to be left alone: `grpc-retry-pushback-ms` (gRFC A6) or google.rpc.RetryInfo."""
    for key, told in error.trailing_metadata() or ():
        if key == _PUSHBACK:
            text = told.decode("ascii", "replace") if isinstance(told, bytes) else str(told)
            # gRFC A6: a value that is not a number of milliseconds asks not to retry, and so does a negative one.
            return (
                timedelta(milliseconds=int(text)) if text.isdigit() and len(text) < 12 else timedelta(milliseconds=-1)
            )
        if key == _DETAILS and isinstance(told, bytes):
            status, info = status_pb2.Status(), error_details_pb2.RetryInfo()
            try:
                status.ParseFromString(told)
                for detail in status.details:
                    if detail.Unpack(info):
                        delay: timedelta = info.retry_delay.ToTimedelta()
                        return delay
            except (DecodeError, ValueError, OverflowError):
                continue
    return None
