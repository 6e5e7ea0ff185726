"""What a peer's handler does: the same gRPC call to the same sibling as ours. Used in the peers' environment."""

from __future__ import annotations

import functools
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio

sys.path.insert(0, str(Path(__file__).parents[2] / "generated"))

from whispr.siblings import messaging_pb2, messaging_pb2_grpc

TIMEOUT = 30
#: Calls at once, where a tool has a setting for it.
CONCURRENCY = 64
_OPTIONS = (("grpc.enable_retries", 0),)
_BEGAN = datetime.now(UTC).isoformat()


def payload(number: int) -> bytes:
    """The request of one message, as a tool stores it."""
    return messaging_pb2.SendScheduledMessageRequest(
        message_id=f"{os.environ['PEER_PREFIX']}-{number}",
        conversation_id=f"c-{number % 97}",
        sender_id=f"u-{number % 1000}",
        content="The quick brown fox jumps over the lazy dog. " * 3,
    ).SerializeToString()


def _metadata() -> tuple[tuple[str, str], ...]:
    # What a scheduled call carries, and the bare client sends too.
    return (
        ("idempotency-key", str(uuid4())),
        ("x-scheduling-attempt", "1"),
        ("x-scheduling-job", "jobs/j-1"),
        ("x-scheduling-nominal-time", _BEGAN),
        ("traceparent", f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"),
    )


@functools.cache
def _stub(*, is_async: bool) -> Any:
    module = grpc.aio if is_async else grpc
    return messaging_pb2_grpc.MessagingServiceStub(
        module.insecure_channel(os.environ["PEER_SIBLING"], options=_OPTIONS)
    )


def send(request: bytes) -> None:
    """The call, from a thread."""
    message = messaging_pb2.SendScheduledMessageRequest.FromString(request)
    _stub(is_async=False).SendScheduledMessage(message, timeout=TIMEOUT, metadata=_metadata())


async def send_async(request: bytes) -> None:
    """The call, from an event loop."""
    message = messaging_pb2.SendScheduledMessageRequest.FromString(request)
    await _stub(is_async=True).SendScheduledMessage(message, timeout=TIMEOUT, metadata=_metadata())
