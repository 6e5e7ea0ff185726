"""One unary call over a channel of grpc.aio, from bytes to bytes.

The call objects of grpc.aio have a task, callbacks and futures of their own for what nobody asks of a call here; going
to the layer below them saves a part of each call's processor time (`docs/performance.md`). That layer is not public:
where it is not as expected, calls go the public way. Tests hold both ways to the same behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

Metadata = tuple[tuple[str, str], ...]
#: Request, seconds to the deadline, metadata; returns the response or raises grpc.aio.AioRpcError.
Invoke = Callable[[bytes, float, Metadata], Awaitable[bytes]]

try:
    from grpc._cython import cygrpc
    from grpc.aio._call import _create_rpc_error
    from grpc.aio._utils import _timeout_to_deadline
except ImportError:  # another version of grpcio
    cygrpc = None


def unary(channel: grpc.aio.Channel, path: str) -> Invoke:
    """How to call the method at `path` (`/package.Service/Method`) over `channel`."""
    below: Any = getattr(channel, "_channel", None)
    if cygrpc is None or not hasattr(below, "call"):
        return public_unary(channel, path)
    method = path.encode()
    context = cygrpc.build_census_context()

    async def invoke(request: bytes, timeout: float, metadata: Metadata) -> bytes:
        call: Any = below.call(method, _timeout_to_deadline(timeout), None, None, 0)
        try:
            response: bytes = await call.unary_unary(request, metadata, context)
        except asyncio.CancelledError:
            call.cancel("the caller gave up")
            raise
        if call.is_ok():
            return response
        raise _create_rpc_error(await call.initial_metadata(), await call.status())

    return invoke


def public_unary(channel: grpc.aio.Channel, path: str) -> Invoke:
    """The same by the public interface."""
    stub = channel.unary_unary(path)

    async def invoke(request: bytes, timeout: float, metadata: Metadata) -> bytes:
        response: bytes = await stub(request, timeout=timeout, metadata=metadata)
        return response

    return invoke
