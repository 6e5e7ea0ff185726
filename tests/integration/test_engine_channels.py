"""Calls to siblings over real gRPC: what an answer becomes, and what travels with a call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from whispr.siblings import messaging_pb2

from scheduling.delivery.channels import Answer, Channels
from scheduling.delivery.targets import TargetTable
from scheduling.delivery.unary import Invoke, Metadata, public_unary, unary
from scheduling.domain.limits import KEPT_MESSAGE_CHARACTERS, KEPT_RESPONSE_BYTES
from scheduling.domain.retry import Code
from tests.support.builders import SEND, send_request
from tests.support.run import run
from tests.support.siblings import Call, Refuse, SiblingServer, hang, refusing

TIMEOUT = timedelta(seconds=30)
#: How calls are made: each test is run with the way below grpc.aio's own calls and with the public one.
WAY = [unary]


@pytest.fixture(autouse=True, params=[unary, public_unary])
def _way(request: pytest.FixtureRequest) -> None:
    WAY[0] = request.param


@asynccontextmanager
async def opened(targets: TargetTable, server: SiblingServer) -> AsyncIterator[Channels]:
    """Channels to a sibling that runs."""
    async with server:
        channels = Channels(targets, server.addresses(), WAY[0])
        try:
            yield channels
        finally:
            await channels.close()


async def send(channels: Channels, *metadata: tuple[str, str], timeout: timedelta = TIMEOUT) -> Answer:
    return await channels.call(SEND, send_request(), timeout, metadata)


def test_a_call_carries_the_request_the_deadline_and_the_metadata(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer()
        async with opened(targets, server) as channels:
            answer = await send(channels, ("idempotency-key", "k"), ("x-scheduling-attempt", "3"))
            assert answer == Answer(Code.OK, "", b"", "messaging.SendScheduledMessageResponse")
            (call,) = server.calls
            assert (call.method, call.key, call.attempt) == (SEND, "k", 3)
            assert call.request.SerializeToString() == send_request()
            assert call.timeout is not None
            # gRPC rounds it up on the wire.
            assert 0 < call.timeout < 31

    run(scenario())


def test_every_target_of_the_table_can_be_called(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer()
        async with opened(targets, server) as channels:
            for target in targets:
                answer = await channels.call(target.method, b"", TIMEOUT, ())
                assert (answer.code, answer.response_type) == (Code.OK, target.response_type)
            assert [call.method for call in server.calls] == [target.method for target in targets]

    run(scenario())


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_an_error_becomes_its_code_and_text(targets: TargetTable, code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        async with opened(targets, SiblingServer(refusing(code))) as channels:
            assert await send(channels) == Answer(Code[code.name], "refused")

    run(scenario())


def test_a_small_response_is_kept_and_a_big_one_is_not(targets: TargetTable) -> None:
    async def scenario() -> None:
        size = 0

        async def behave(call: Call) -> Message:
            return messaging_pb2.SendScheduledMessageResponse(message_id="x" * size)

        async with opened(targets, SiblingServer(behave)) as channels:
            size = 100
            answer = await send(channels)
            assert answer.response is not None
            response = messaging_pb2.SendScheduledMessageResponse.FromString(answer.response)
            assert response.message_id == "x" * 100
            size = KEPT_RESPONSE_BYTES + 1
            assert await send(channels) == Answer(Code.OK)

    run(scenario())


def test_a_long_text_of_a_target_is_cut_and_its_nul_left_out(targets: TargetTable) -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> Message:
            raise Refuse(grpc.StatusCode.INTERNAL, "a\0b" + "x" * 5000)

        async with opened(targets, SiblingServer(behave)) as channels:
            answer = await send(channels)
            assert len(answer.message) <= KEPT_MESSAGE_CHARACTERS
            assert "\0" not in answer.message

    run(scenario())


def _retry_info(seconds: int) -> bytes:
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds)))
    packed: bytes = status.SerializeToString()
    return packed


@pytest.mark.parametrize(
    ("trailing", "pushback"),
    [
        ((), None),
        ((("grpc-retry-pushback-ms", "1500"),), timedelta(seconds=1.5)),
        ((("grpc-retry-pushback-ms", "-1"),), timedelta(milliseconds=-1)),
        ((("grpc-retry-pushback-ms", "soon"),), timedelta(milliseconds=-1)),
        ((("grpc-status-details-bin", _retry_info(7)),), timedelta(seconds=7)),
        ((("grpc-status-details-bin", b"\xff\xff"),), None),
    ],
)
def test_the_pause_that_a_target_asks_for_is_understood(
    targets: TargetTable, trailing: Any, pushback: timedelta | None
) -> None:
    async def scenario() -> None:
        async def behave(call: Call) -> Message:
            raise Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", trailing)

        async with opened(targets, SiblingServer(behave)) as channels:
            answer = await send(channels)
            assert (answer.code, answer.pushback) == (Code.RESOURCE_EXHAUSTED, pushback)

    run(scenario())


def test_a_handler_that_never_ends_is_left_at_the_deadline(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer(hang)
        async with opened(targets, server) as channels:
            answer = await send(channels, timeout=timedelta(milliseconds=200))
            assert answer.code is Code.DEADLINE_EXCEEDED
            await server.changed.until(lambda: len(server.cancelled) == 1)

    run(scenario())


def test_a_call_that_is_given_up_ends_at_the_sibling_too(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer(hang)
        async with opened(targets, server) as channels:
            task = asyncio.create_task(send(channels))
            await server.until(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.changed.until(lambda: len(server.cancelled) == 1)

    run(scenario())


def test_a_sibling_that_is_not_there_is_unavailable_and_found_again(targets: TargetTable) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            channels = Channels(targets, dict.fromkeys(SiblingServer().addresses(), address), WAY[0])
            answer = await send(channels)
            assert answer.code is Code.UNAVAILABLE
            await channels.close()

    run(scenario())


def test_grpc_itself_tries_nothing_again(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer(refusing(grpc.StatusCode.UNAVAILABLE))
        async with opened(targets, server) as channels:
            await send(channels)
            assert len(server.calls) == 1

    run(scenario())


def test_a_stored_request_that_no_longer_decodes_is_a_permanent_error(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer()
        async with opened(targets, server) as channels:
            answer = await channels.call(SEND, b"\xff\xff\xff", TIMEOUT, ())
            assert answer.code is Code.INVALID_ARGUMENT
            assert server.calls == []

    run(scenario())


def test_unknown_fields_of_a_request_are_delivered_as_given(targets: TargetTable) -> None:
    async def scenario() -> None:
        server = SiblingServer()
        # Field 999, a text, which this version of the contract does not know.
        unknown = b"\xba\x3e\x03new"
        async with opened(targets, server) as channels:
            answer = await channels.call(SEND, send_request() + unknown, TIMEOUT, ())
            assert answer.code is Code.OK
            assert unknown in server.calls[0].request.SerializeToString()

    run(scenario())


def test_a_response_that_is_no_such_message_is_an_answer_too(targets: TargetTable) -> None:
    async def scenario() -> None:
        def unary_garbage(channel: grpc.aio.Channel, path: str) -> Invoke:
            async def invoke(request: bytes, timeout: float, metadata: Metadata) -> bytes:
                return b"\xff\xff\xff"

            return invoke

        async with SiblingServer() as server:
            channels = Channels(targets, server.addresses(), unary_garbage)
            assert (await send(channels)).code is Code.INTERNAL
            await channels.close()

    run(scenario())
