"""Errors as callers see them: one table from every SchedulingError to a gRPC code and google.rpc details.

What is not in the table is INTERNAL with a fixed text. Every answer carries ErrorInfo with the request id, so that a
caller can quote it. Texts are cleaned and clipped: with their base64 and percent encodings they must fit into the 8 KiB
of trailing metadata that clients accept by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from scheduling.domain import errors as domain
from scheduling.domain.errors import SchedulingError, Violation

#: The `domain` of every ErrorInfo.
ERROR_DOMAIN = "scheduling.whispr"
#: Trailing metadata of every answer.
REQUEST_ID_KEY = "x-request-id"
#: Where clients look for google.rpc.Status (grpc_status.rpc_status).
DETAILS_KEY = "grpc-status-details-bin"
#: What a caller learns about a defect of ours.
INTERNAL_MESSAGE = "internal error; the request id finds it in the logs"

MAX_VIOLATIONS = 20  #: field violations in one answer, then their number
MAX_DETAILS_BYTES = 4300  #: serialised google.rpc.Status; base64 makes it 5,734
MAX_MESSAGE_BYTES = 600  #: UTF-8 of the message; percent encoding makes it 1,800 at most
MAX_FIELD_BYTES = 200  #: one field path or name
MAX_DESCRIPTION_BYTES = 400  #: one description
MAX_METADATA_ENTRIES = 8  #: of ErrorInfo
MAX_METADATA_BYTES = 150  #: one value of ErrorInfo's metadata

# Control characters, line and paragraph separators, and the marks that change the direction of text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
# error_details.proto: keys are lower camel or snake case, at most 64 characters.
_METADATA_KEY = re.compile(r"[a-z][a-zA-Z0-9_-]{1,63}")


class DeadlineExceeded(SchedulingError):
    """The caller's deadline had passed before the call was begun: DEADLINE_EXCEEDED. Nothing was done."""

    reason = "DEADLINE_EXCEEDED"


class MalformedMessage(domain.InvalidRequest):
    """The bytes are not a message of the method's request type: INVALID_ARGUMENT."""

    reason = "MALFORMED_MESSAGE"


class ResponseTooLarge(SchedulingError):
    """The answer is larger than this server sends: RESOURCE_EXHAUSTED. Ask for less."""

    reason = "RESPONSE_TOO_LARGE"


class ShuttingDown(SchedulingError):
    """This server is stopping; another one will answer: UNAVAILABLE with RetryInfo."""

    reason = "SHUTTING_DOWN"
    retry_after = timedelta(milliseconds=100)

    def __init__(self, message: str = "this server is shutting down; call again") -> None:
        super().__init__(message)


class Unauthenticated(SchedulingError):
    """It cannot be told who is calling: UNAUTHENTICATED."""

    reason = "UNAUTHENTICATED"


Details = Callable[[Any], Sequence[Message]]


def _bad_request(error: domain.InvalidRequest) -> Sequence[Message]:
    shown = [_field_violation(violation) for violation in error.violations[:MAX_VIOLATIONS]]
    return [_counted(shown, len(error.violations))]


def _counted(shown: Sequence[error_details_pb2.BadRequest.FieldViolation], total: int) -> error_details_pb2.BadRequest:
    details = error_details_pb2.BadRequest(field_violations=shown)
    if total > len(shown):
        details.field_violations.add(description=f"and {total - len(shown)} more", reason="MORE_VIOLATIONS")
    return details


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(
        field=clean(violation.field, MAX_FIELD_BYTES),
        description=clean(violation.description, MAX_DESCRIPTION_BYTES),
        reason=clean(violation.reason, 63),
    )


def _resource(error: domain.NotFound | domain.AlreadyExists) -> Sequence[Message]:
    return [
        error_details_pb2.ResourceInfo(
            resource_type=f"{ERROR_DOMAIN}/{clean(error.resource_type, MAX_FIELD_BYTES)}",
            resource_name=clean(error.resource_name, MAX_FIELD_BYTES),
            description=clean(error.message, MAX_DESCRIPTION_BYTES),
        )
    ]


def _precondition(error: domain.WrongState) -> Sequence[Message]:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=clean(error.reason, 63),
        subject=clean(error.subject, MAX_FIELD_BYTES),
        description=clean(error.message, MAX_DESCRIPTION_BYTES),
    )
    return [error_details_pb2.PreconditionFailure(violations=[violation])]


def _retry(
    error: domain.Overloaded | domain.StoreUnavailable | ShuttingDown | domain.QuotaExceeded,
) -> Sequence[Message]:
    details = error_details_pb2.RetryInfo()
    details.retry_delay.FromTimedelta(max(error.retry_after, timedelta(0)))
    return [details]


def _quota(error: domain.QuotaExceeded) -> Sequence[Message]:
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=clean(error.subject, MAX_FIELD_BYTES), description=clean(error.message, MAX_DESCRIPTION_BYTES)
    )
    return [error_details_pb2.QuotaFailure(violations=[violation]), *_retry(error)]


def _nothing(_error: SchedulingError) -> Sequence[Message]:
    return []


#: Every error class, its code and what it adds to ErrorInfo. A class that is not here takes the row of its base.
ERRORS: Mapping[type[SchedulingError], tuple[grpc.StatusCode, Details]] = MappingProxyType(
    {
        domain.InvalidRequest: (grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
        domain.NotFound: (grpc.StatusCode.NOT_FOUND, _resource),
        domain.AlreadyExists: (grpc.StatusCode.ALREADY_EXISTS, _resource),
        domain.WrongState: (grpc.StatusCode.FAILED_PRECONDITION, _precondition),
        domain.Conflict: (grpc.StatusCode.ABORTED, _nothing),
        domain.QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, _quota),
        domain.PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, _nothing),
        domain.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, _retry),
        domain.StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, _retry),
        DeadlineExceeded: (grpc.StatusCode.DEADLINE_EXCEEDED, _nothing),
        MalformedMessage: (grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
        ResponseTooLarge: (grpc.StatusCode.RESOURCE_EXHAUSTED, _nothing),
        ShuttingDown: (grpc.StatusCode.UNAVAILABLE, _retry),
        Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, _nothing),
    }
)


def row_for(kind: type[SchedulingError]) -> tuple[grpc.StatusCode, Details] | None:
    """The row of the class or of its nearest base; None if the table holds neither."""
    return next((ERRORS[base] for base in kind.__mro__ if base in ERRORS), None)


def describe(error: BaseException, request_id: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The code and the google.rpc.Status that answer `error`.

    Whatever the table does not hold is INTERNAL and shows nothing of the error but the request id.
    """
    row = row_for(type(error)) if isinstance(error, SchedulingError) else None
    if row is None or not isinstance(error, SchedulingError):
        return grpc.StatusCode.INTERNAL, _status(
            grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, "INTERNAL", {}, request_id, []
        )
    code, build = row
    details = build(error)
    status = _status(code, error.message, error.reason, error.metadata, request_id, details)
    if status.ByteSize() > MAX_DETAILS_BYTES and isinstance(error, domain.InvalidRequest):
        status = _shrunk(code, error, request_id)
    return code, status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException, request_id: str) -> None:
    """Answers the call with `error`. Whatever its handler returns afterwards is not looked at."""
    code, status = describe(error, request_id)
    metadata = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))
    try:
        await context.abort(code, status.message, metadata)
    except grpc.aio.AbortError as aborted:
        let_go(aborted)


def let_go(error: BaseException) -> None:
    """Has an error that is answered hold no frames, nor those that it came from.

    grpc.aio keeps that of an aborted call in the call, and raises it again once the handler has returned. With its
    traceback the call would hold its own frames, and so itself and its request of up to megabytes, until the garbage
    collector looks for cycles: that goes by the number of objects, not by their size.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each.__context__, each = None, each.__context__


def clean(text: str, limit: int) -> str:
    """`text` as it may be sent: printable, valid UTF-8, at most `limit` bytes of it (cut with `…`)."""
    # Half of a surrogate pair has no UTF-8; a long text is cut before the work, not after it.
    encoded = _UNPRINTABLE.sub(" ", text[: limit + 1]).encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode("utf-8", "ignore") + "…"


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    metadata: Mapping[str, str],
    request_id: str,
    details: Sequence[Message],
) -> status_pb2.Status:
    entries = {key: clean(value, MAX_METADATA_BYTES) for key, value in metadata.items() if _METADATA_KEY.fullmatch(key)}
    entries = dict(list(entries.items())[:MAX_METADATA_ENTRIES])
    info = error_details_pb2.ErrorInfo(
        reason=clean(reason, 63), domain=ERROR_DOMAIN, metadata={**entries, "request_id": request_id}
    )
    status = status_pb2.Status(code=code.value[0], message=clean(message, MAX_MESSAGE_BYTES))
    for detail in (info, *details):
        status.details.add().Pack(detail)
    return status


def _shrunk(code: grpc.StatusCode, error: domain.InvalidRequest, request_id: str) -> status_pb2.Status:
    """The same answer with as many violations as fit, and their number."""
    shown = [_field_violation(violation) for violation in error.violations[:MAX_VIOLATIONS]]
    while True:
        shown.pop()
        details = [_counted(shown, len(error.violations))]
        status = _status(code, error.message, error.reason, error.metadata, request_id, details)
        if status.ByteSize() <= MAX_DETAILS_BYTES or not shown:
            return status
