"""What every call passes through, outermost first: `build_interceptors` holds the one list.

grpc.aio asks the interceptors for a handler at each call, in the task that then runs it. Each of ours wraps a method's
handler once and keeps it, so that a call makes no closures. Whatever the style of a servicer method (coroutine or
async generator), it is wrapped as a coroutine, so that unary and streaming calls take the same way and a stream's
generator is closed when its call ends.

Two things always pass untouched: a missing handler (an unknown method stays UNIMPLEMENTED) and grpc.aio's own
exceptions (an abort, a client that is gone, a stopped server). When a client cancels or its deadline passes, grpc.aio
cancels the task: CancelledError passes too, nobody is left to answer, and what was being committed is or is not; a
repeat with the same `request_id` finds out.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message

from scheduling.domain.clock import Clock
from scheduling.domain.errors import InvalidRequest, PermissionDenied, SchedulingError, Violation
from scheduling.domain.policy import EVERYTHING, Access
from scheduling.rpc.authentication import Authenticator
from scheduling.rpc.call import Call, current_call, serve_call
from scheduling.rpc.errors import (
    REQUEST_ID_KEY,
    DeadlineExceeded,
    MalformedMessage,
    ResponseTooLarge,
    abort,
    let_go,
)
from scheduling.rpc.rules import broken_rules
from scheduling.rpc.streams import OpenStreams
from scheduling.rpc.texts import find_nul_characters
from scheduling.rpc.wire import find_oneof_clashes
from scheduling.telemetry import logs
from scheduling.telemetry.logs import log_event
from scheduling.telemetry.traces import parse_traceparent

#: Methods of our own services start so; health, reflection and channelz are not ours to validate or to authenticate.
OWN_PREFIX: Final = "/whispr.scheduling.v1."
#: The method label of calls to methods that do not exist: callers choose those names.
UNKNOWN_METHOD: Final = "unknown"

_logger = logging.getLogger(__name__)
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

Context = Any  # grpc.aio.ServicerContext, which its library leaves untyped
Behaviour = Callable[[Any, Context], Awaitable[Any]]
#: Told of each refusal: principal, RPC as `Service/Method`, request id, and what was refused.
Refused = Callable[[str, str, str, PermissionDenied], None]
#: What a principal may do by an RPC, named `Service/Method`.
PolicyInForce = Callable[[str, str], Access]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class RpcMetrics(Protocol):
    """Where calls are counted."""

    def rpc_handled(self, method: str, code: str, seconds: float) -> None:
        """Counts a finished call. `method` is `package.Service/Method` or UNKNOWN_METHOD, `code` a gRPC code's name."""
        ...


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the library is untyped
    """Wraps the handler of each method once."""

    def __init__(self) -> None:
        # Only methods that exist get here, so this is bounded.
        self._kept: dict[str, tuple[grpc.RpcMethodHandler, grpc.RpcMethodHandler]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The wrapped handler of the method, None if there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kept = self._kept.get(handler_call_details.method)
        if kept is None or kept[0] is not handler:
            kept = (handler, self.wrap(handler_call_details.method, handler))
            self._kept[handler_call_details.method] = kept
        return kept[1]

    def wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """The handler with this interceptor around its behaviour."""
        return _with_behaviour(handler, self.around(method, behaviour_of(handler)))

    @abstractmethod
    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """A coroutine function that calls `inner` and does this interceptor's part; `method` begins with a slash."""


class RequestIds(Interceptor):
    """Gives each call an id, the caller's own if it sent a sane one, and answers it as trailing metadata."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Before the handler is looked up, so that calls to unknown methods have an id too."""
        request_id = traceparent = ""
        for key, value in handler_call_details.invocation_metadata:
            if key == REQUEST_ID_KEY:
                request_id = value
            elif key == "traceparent":
                traceparent = value
        if not _SANE_REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)
        trace = parse_traceparent(traceparent) if traceparent else None
        serve_call(Call(handler_call_details.method.lstrip("/"), request_id, trace))
        logs.request_id.set(request_id)
        return await super().intercept_service(continuation, handler_call_details)

    def around(self, method: str, inner: Behaviour) -> Behaviour:  # noqa: ARG002 - the same for all
        """Puts the id into the trailing metadata. An abort brings its own, with the id in it."""

        async def with_request_id(request: Any, context: Context) -> Any:
            context.set_trailing_metadata(((REQUEST_ID_KEY, current_call().request_id),))
            return await inner(request, context)

        return with_request_id


class AccessLog(Interceptor):
    """Counts and logs each call when it ends, with its code and duration."""

    def __init__(self, metrics: RpcMetrics, clock: Clock) -> None:
        super().__init__()
        self._metrics = metrics
        self._clock = clock

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Counts a call to an unknown method here, since nothing else will see it."""
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler is None:
            self._metrics.rpc_handled(UNKNOWN_METHOD, grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            log_event(_logger, logging.INFO, "rpc_unknown_method", method=handler_call_details.method)
        return handler

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """Measures the call."""
        level = logging.INFO if method.startswith(OWN_PREFIX) else logging.DEBUG
        monotonic = self._clock.monotonic
        label = method.lstrip("/")

        async def measured(request: Any, context: Context) -> Any:
            started = monotonic()
            code = "UNKNOWN"
            try:
                response = await inner(request, context)
                code = _code_name(context.code())
            except asyncio.CancelledError:
                code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
                raise
            except BaseException:
                code = _code_name(context.code(), otherwise="UNKNOWN")
                raise
            finally:
                seconds = monotonic() - started
                self._metrics.rpc_handled(label, code, seconds)
                if _logger.isEnabledFor(level):
                    _log_finished(level, code, seconds)
            return response

        return measured


class Errors(Interceptor):
    """Answers every exception with its code and google.rpc details; what has no row in the table is INTERNAL.

    `refused` is told of each call that its caller may not make.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__()
        self._refused = refused

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """Catches what the call raises."""
        rpc = method.rpartition(".")[2]

        async def answered(request: Any, context: Context) -> Any:
            try:
                return await inner(request, context)
            except SchedulingError as error:
                call = current_call()
                call.reason = error.reason
                if isinstance(error, PermissionDenied):
                    self._refused(call.principal, rpc, call.request_id, error)
                await abort(context, error, call.request_id)
            except grpc.aio.AbortError as aborted:
                let_go(aborted)
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001 - the last one that can keep it from the caller
                call = current_call()
                call.reason = "INTERNAL"
                log_event(_logger, logging.ERROR, "rpc_failed", method=method, exc_info=error)
                await abort(context, error, call.request_id)
            return None

        return answered


class Streams(Interceptor):
    """Ends open streams when the server stops."""

    def __init__(self, streams: OpenStreams) -> None:
        super().__init__()
        self._streams = streams

    def wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Leaves unary calls as they are: they end by themselves."""
        return super().wrap(method, handler) if handler.response_streaming else handler

    def around(self, method: str, inner: Behaviour) -> Behaviour:  # noqa: ARG002 - the same for all
        """Runs the stream where it can be ended."""

        async def endable(request: Any, context: Context) -> Any:
            return await self._streams.serve(inner, request, context)

        return endable


class Deadlines(Interceptor):
    """Refuses calls whose deadline has passed. The others are cancelled by grpc.aio when it does."""

    def around(self, method: str, inner: Behaviour) -> Behaviour:  # noqa: ARG002 - the same for all
        """Looks once, before anything is done."""

        async def in_time(request: Any, context: Context) -> Any:
            if context.time_remaining() == 0:
                raise DeadlineExceeded("the deadline had passed before the call was begun")
            return await inner(request, context)

        return in_time


class Authentication(Interceptor):
    """Tells who calls one of our services. Health, reflection and channelz answer anyone whom the network lets in."""

    def __init__(self, authenticator: Authenticator, policy: PolicyInForce) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._policy = policy

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """Sets the call's principal and what it may do. What it may not do at all is refused before it is read."""
        if not method.startswith(OWN_PREFIX):
            return inner
        authenticate, policy = self._authenticator, self._policy
        rpc = method.rpartition(".")[2]

        async def authenticated(request: Any, context: Context) -> Any:
            call = current_call()
            call.principal = authenticate(context).principal
            call.access = policy(call.principal, rpc)
            call.access.check_call()
            return await inner(request, context)

        return authenticated


class Validation(Interceptor):
    """Parses requests, checks the field rules of our protos, and serialises the answers of unary calls.

    grpc.aio would answer bytes that cannot be parsed with UNKNOWN and the parser's text, so the handlers it sees take
    and give bytes.
    """

    def __init__(self, *, max_send_bytes: int) -> None:
        super().__init__()
        self._max_send_bytes = max_send_bytes

    def wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """The handler for bytes. Streamed requests are parsed one by one, by grpc.aio."""
        parse = _parser(handler)
        inner = behaviour_of(handler)
        if handler.request_streaming:
            return _with_behaviour(handler, inner, request_deserializer=parse)
        if method.startswith(OWN_PREFIX):
            parse = self._checked(parse)
        if handler.response_streaming:
            return _with_behaviour(handler, _parsed(parse, inner), request_deserializer=None)
        answer = self._serialised(handler.response_serializer, _parsed(parse, inner))
        return _with_behaviour(handler, answer, request_deserializer=None, response_serializer=None)

    def around(self, method: str, inner: Behaviour) -> Behaviour:  # noqa: ARG002 - `wrap` does it all
        """Nothing: this one changes more than the behaviour."""
        return inner

    @staticmethod
    def _checked(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
        def parse_and_check(raw: bytes) -> Message:
            message = parse(raw)
            found = [*broken_rules(message), *find_oneof_clashes(raw, message), *find_nul_characters(raw, message)]
            if found:
                raise InvalidRequest(found)
            return message

        return parse_and_check

    def _serialised(self, serialise: Callable[[Message], bytes], inner: Behaviour) -> Behaviour:
        async def with_bytes(request: Any, context: Context) -> bytes:
            answer = await inner(request, context)
            if answer is None and context.code():
                # Channelz says what it does not find by a code in place of an answer; grpc.aio sends that code.
                return b""
            response = serialise(answer)
            if len(response) > self._max_send_bytes:
                raise ResponseTooLarge(
                    f"the answer has {len(response)} bytes, more than {self._max_send_bytes}: "
                    "ask for a smaller page_size or the BASIC view"
                )
            return response

        return with_bytes


def allow_all(principal: str, rpc: str) -> Access:  # noqa: ARG001 - the signature of a policy
    """The policy of those who have none."""
    return EVERYTHING


def note_nothing(principal: str, rpc: str, request_id: str, error: PermissionDenied) -> None:
    """Takes no note of refusals."""


def build_interceptors(
    *,
    metrics: RpcMetrics,
    clock: Clock,
    streams: OpenStreams,
    authenticator: Authenticator,
    policy: PolicyInForce,
    refused: Refused,
    max_send_bytes: int,
) -> tuple[Interceptor, ...]:
    """The one list: the first is outermost."""
    return (
        RequestIds(),
        AccessLog(metrics, clock),
        Errors(refused),
        Streams(streams),
        Deadlines(),
        Authentication(authenticator, policy),
        Validation(max_send_bytes=max_send_bytes),
    )


def behaviour_of(handler: grpc.RpcMethodHandler) -> Behaviour:
    """The handler's function as a coroutine function that writes what an async generator would have yielded."""
    function: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if inspect.iscoroutinefunction(function):
        return cast("Behaviour", function)
    if not inspect.isasyncgenfunction(function):
        return _unimplemented

    async def written(request: Any, context: Context) -> None:
        stream: AsyncIterator[Any]
        async with aclosing(function(request, context)) as stream:
            async for response in stream:
                await context.write(response)

    return written


async def _unimplemented(request: Any, context: Context) -> None:  # noqa: ARG001 - a behaviour
    """Stands for the generated base class, whose methods are the only ones that are no coroutines."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")


_STYLES: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _with_behaviour(handler: grpc.RpcMethodHandler, behaviour: Behaviour, **changes: Any) -> grpc.RpcMethodHandler:
    """The handler with another function, and with other (de)serialisers if `changes` names them."""
    serialisers = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    return _STYLES[handler.request_streaming, handler.response_streaming](behaviour, **(serialisers | changes))


def _parser(handler: grpc.RpcMethodHandler) -> Callable[[bytes], Message]:
    parse = handler.request_deserializer
    type_name = getattr(getattr(parse, "__self__", None), "DESCRIPTOR", None)
    expected = "of the request's type" if type_name is None else f"a {type_name.full_name}"

    def parse_or_refuse(raw: bytes) -> Message:
        try:
            return cast("Message", parse(raw))
        except DecodeError:
            # The parser's own text says nothing that a caller could act on.
            raise MalformedMessage([Violation("", f"the bytes are not {expected}", "MALFORMED_MESSAGE")]) from None

    return parse_or_refuse


def _parsed(parse: Callable[[bytes], Message], inner: Behaviour) -> Behaviour:
    async def with_message(raw: Any, context: Context) -> Any:
        return await inner(parse(raw), context)

    return with_message


def _code_name(code: Any, *, otherwise: str = "OK") -> str:
    """The name of a code as grpc.aio keeps it: a StatusCode, its number, or None when none was set."""
    if code is None or code == 0:
        return otherwise
    return code.name if isinstance(code, grpc.StatusCode) else _CODE_NAMES.get(code, "UNKNOWN")


_CODE_NAMES: Final[dict[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}


def _log_finished(level: int, code: str, seconds: float) -> None:
    call = current_call()
    fields: dict[str, object] = {"method": call.method, "code": code, "seconds": round(seconds, 6)}
    if call.principal:
        fields["principal"] = call.principal
    if call.reason:
        fields["reason"] = call.reason
    if call.trace is not None:
        fields["trace_id"] = call.trace.trace_id
    log_event(_logger, level, "rpc_finished", **fields)
