"""What is known about the call that is being served."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace

from scheduling.domain.audit import acting
from scheduling.domain.policy import EVERYTHING, Access
from scheduling.operations.ports import Ports
from scheduling.telemetry.traces import TraceContext


@dataclass(slots=True)
class Call:
    """One call, filled in on its way through the interceptors.

    `method` is `package.Service/Method`. `trace` is the caller's place in its trace, None when it sent none.
    `principal` is empty until authentication, `access` says what it may do, `reason` is empty until an error is
    answered.
    """

    method: str
    request_id: str
    trace: TraceContext | None = None
    principal: str = ""
    access: Access = EVERYTHING
    reason: str = ""


_current: ContextVar[Call] = ContextVar("rpc_call")


def current_call() -> Call:
    """The call that this task serves. LookupError outside of one."""
    return _current.get()


def serve_call(call: Call) -> None:
    """Makes `call` the current one, for this task and those it starts. Nothing is reset: each RPC has its own task."""
    _current.set(call)
    acting.set(call)


class PortsOfCalls:
    """The ports as each call may use them: with what its caller may do."""

    def __init__(self, ports: Ports) -> None:
        self._all = ports
        self._narrowed: dict[Access, Ports] = {}

    def current(self) -> Ports:
        """The ports for the current call; kept, since calls of the same kind by the same caller come often."""
        access = current_call().access
        if access is EVERYTHING:
            return self._all
        ports = self._narrowed.get(access)
        if ports is None:
            if len(self._narrowed) >= _KEPT:
                self._narrowed.clear()
            ports = self._narrowed[access] = replace(self._all, access=access)
        return ports


#: Narrowed ports that are kept.
_KEPT = 1000
