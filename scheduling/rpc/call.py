"""What is known about the call that is being served."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from scheduling.telemetry.traces import TraceContext


@dataclass(slots=True)
class Call:
    """One call, filled in on its way through the interceptors.

    `method` is `package.Service/Method`. `trace` is the caller's place in its trace, None when it sent none.
    `principal` is empty until authentication, `reason` until an error is answered.
    """

    method: str
    request_id: str
    trace: TraceContext | None = None
    principal: str = ""
    reason: str = ""


_current: ContextVar[Call] = ContextVar("rpc_call")


def current_call() -> Call:
    """The call that this task serves. LookupError outside of one."""
    return _current.get()


def serve_call(call: Call) -> None:
    """Makes `call` the current one, for this task and those it starts. Nothing is reset: each RPC has its own task."""
    _current.set(call)
