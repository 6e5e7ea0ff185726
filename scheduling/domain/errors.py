"""What can go wrong, as the service's own errors.

Each class is one meaning for a caller. `reason` is a stable machine name (google.rpc.ErrorInfo), `metadata` holds the
values a client can act on. `rpc/errors.py` maps every class to a gRPC code and details; a test walks them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with one field of a request.

    `field` is the path from the request's root, such as `job.retry_policy.max_attempts`; `description` says what was
    expected; `reason` is a machine name.
    """

    field: str
    description: str
    reason: str = "INVALID_VALUE"


class SchedulingError(Exception):
    """Base of every error that a caller may see."""

    reason: str = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidRequest(SchedulingError):
    """The request is wrong, whatever the state of the service: INVALID_ARGUMENT with BadRequest."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Iterable[Violation], *, message: str | None = None) -> None:
        self.violations = tuple(violations)
        if message is None:
            message = "; ".join(
                f"{v.field}: {v.description}" if v.field else v.description for v in self.violations[:5]
            )
            if len(self.violations) > 5:
                message += f"; and {len(self.violations) - 5} more"
        super().__init__(message)


def invalid(field: str, description: str, reason: str = "INVALID_VALUE") -> InvalidRequest:
    """An InvalidRequest about a single field."""
    return InvalidRequest([Violation(field, description, reason)])


class NotFound(SchedulingError):
    """The named resource does not exist: NOT_FOUND with ResourceInfo."""

    reason = "RESOURCE_NOT_FOUND"

    def __init__(self, resource_type: str, name: str) -> None:
        super().__init__(f"{resource_type} {name!r} does not exist", metadata={"resource": name})
        self.resource_type = resource_type
        self.resource_name = name


class AlreadyExists(SchedulingError):
    """The id is taken, or a request_id was used with another body: ALREADY_EXISTS with ResourceInfo."""

    reason = "RESOURCE_EXISTS"

    def __init__(self, message: str, *, resource_type: str, name: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, metadata={"resource": name})
        self.resource_type = resource_type
        self.resource_name = name


class WrongState(SchedulingError):
    """The resource's state does not allow this: FAILED_PRECONDITION with PreconditionFailure."""

    reason = "WRONG_STATE"

    def __init__(self, message: str, *, subject: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, metadata={"resource": subject})
        self.subject = subject


class Conflict(SchedulingError):
    """Somebody changed the resource in between (etag): ABORTED. Read it again and repeat."""

    reason = "ETAG_MISMATCH"


class QuotaExceeded(SchedulingError):
    """A limit of the owner or principal is reached: RESOURCE_EXHAUSTED with QuotaFailure and RetryInfo."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, subject: str, limit: str, retry_after: timedelta) -> None:
        super().__init__(message, metadata={"subject": subject, "limit": limit})
        self.subject = subject
        self.retry_after = retry_after


class PermissionDenied(SchedulingError):
    """The principal may not do this: PERMISSION_DENIED."""

    reason = "PERMISSION_DENIED"


class Overloaded(SchedulingError):
    """The service has too much of this open at once: RESOURCE_EXHAUSTED with RetryInfo."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(SchedulingError):
    """PostgreSQL cannot be used right now: UNAVAILABLE with RetryInfo. Nothing is known to have been changed."""

    reason = "STORE_UNAVAILABLE"

    def __init__(
        self, message: str = "the store is not available", *, retry_after: timedelta = timedelta(seconds=1)
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
