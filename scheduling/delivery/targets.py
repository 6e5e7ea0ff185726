"""The target table: every method that may be scheduled, with its defaults, in one place.

A further sibling is its proto under `protos/whispr/siblings/` and its rows here; nothing else names methods. Where the
generated code of a service lies follows from the service's name (`module_of`).
"""
# ruff: noqa: E501 - one row to a line keeps the table a table.

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from scheduling import field_rules
from scheduling.domain.errors import Violation
from scheduling.domain.target import Queue, RetryPolicy, Target

if TYPE_CHECKING:
    import protovalidate


class Retention(Enum):
    """How long the history of a target is kept. What has not ended is never pruned, whatever the class."""

    #: Messages and notifications: a dead letter stays until it is sent, redriven or cancelled, what was sent for one
    #: span that is a setting.
    UNTIL_SENT = "until sent"
    WEEK = "7 days"
    MONTH = "30 days"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. `retries` is calls after the first one, `timeout` is seconds for each call.

    `running` bounds how many of its executions are released and running at once, so that one kind of work never eats
    another's slots (E20); None leaves what people wait for to the bound of its queue, others to RUNNING_LIMIT.
    """

    method: str
    queue: Queue
    retries: int
    timeout: int
    retention: Retention
    description: str
    running: int | None = None


HIGH, MEDIUM, LOW = Queue.HIGH, Queue.MEDIUM, Queue.LOW
UNTIL_SENT, WEEK, MONTH = Retention.UNTIL_SENT, Retention.WEEK, Retention.MONTH

# fmt: off
ROWS: tuple[Row, ...] = (
    Row("messaging.MessagingService/SendScheduledMessage", HIGH, 3, 30, UNTIL_SENT, "Sends a message that was written earlier."),
    Row("messaging.MessagingService/CleanupExpiredMessages", LOW, 2, 300, WEEK, "Deletes messages that have expired."),
    Row("messaging.MessagingService/ExpireChats", MEDIUM, 3, 120, MONTH, "Ends chats whose time is over."),
    Row("messaging.MessagingService/ListExpiringChats", MEDIUM, 3, 120, MONTH, "Lists the chats that end soon."),
    Row("messaging.MessagingService/CloseInactiveSessions", MEDIUM, 3, 120, MONTH, "Closes sessions in which nothing happens any more."),
    Row("messaging.MessagingService/RecoverErrorSessions", MEDIUM, 3, 120, MONTH, "Brings sessions in an error state back to work."),
    Row("messaging.MessagingService/ReprocessMessages", MEDIUM, 3, 120, MONTH, "Processes messages again that got stuck."),
    Row("notification.NotificationService/SendDelayedNotification", HIGH, 5, 15, UNTIL_SENT, "Sends a reminder, follow-up, alert, digest or birthday notification."),
    Row("notification.NotificationService/CleanupNotificationHistory", LOW, 2, 300, WEEK, "Deletes old entries of the notification history."),
    Row("media.MediaService/OptimizeStorage", LOW, 2, 300, WEEK, "Packs old media more tightly."),
    Row("media.MediaService/CleanupTempFiles", LOW, 2, 300, WEEK, "Deletes temporary files."),
    Row("user.UserService/GenerateActivityReport", MEDIUM, 1, 120, MONTH, "Makes an activity report and may send it on."),
    Row("user.UserService/CleanupInactiveUsers", LOW, 2, 300, WEEK, "Deletes or deactivates users not seen for long."),
    Row("user.UserService/ListActiveUsers", MEDIUM, 3, 120, MONTH, "Lists or counts users who were active lately."),
    Row("user.UserService/UpdateActivityStatistics", MEDIUM, 3, 120, MONTH, "Brings the activity statistics up to date."),
    Row("user.UserService/ResetDailyQuotas", MEDIUM, 3, 120, MONTH, "Sets the daily quotas of users back."),
    Row("auth.AuthService/RotateTokens", MEDIUM, 3, 120, MONTH, "Replaces keys and tokens by new ones."),
    Row("auth.AuthService/CleanupExpiredSessions", LOW, 2, 300, WEEK, "Deletes sessions that have expired."),
    Row("auth.AuthService/ValidateCredentials", MEDIUM, 3, 120, MONTH, "Checks whether credentials still work."),
    Row("auth.AuthService/SyncCredentials", MEDIUM, 3, 120, MONTH, "Brings credentials in line with their source."),
    Row("auth.AuthService/CleanupExpiredCredentials", LOW, 2, 300, WEEK, "Deletes credentials that have expired."),
    Row("moderation.ModerationService/AnalyzeContent", MEDIUM, 3, 600, MONTH, "Looks through content and marks what breaks the rules."),
    Row("moderation.ModerationService/UpdateModels", MEDIUM, 3, 600, MONTH, "Trains or fetches new moderation models."),
    Row("matching.MatchingService/GenerateDailySelection", MEDIUM, 3, 120, MONTH, "Makes a user's selection for the day."),
    Row("matching.MatchingService/CleanupDailySelections", LOW, 2, 300, WEEK, "Deletes old selections."),
    Row("content.ContentService/GenerateDailyVerse", MEDIUM, 3, 120, MONTH, "Chooses the verse of the day."),
    Row("content.ContentService/CleanupCaches", LOW, 2, 300, WEEK, "Empties caches of what is not asked for."),
)
# fmt: on

#: Executions of one method that are released and running at once, where its row says nothing else.
RUNNING_LIMIT = 1000

#: How long sent messages and notifications are kept when the setting says nothing else.
DEFAULT_SENT_RETENTION = timedelta(days=30)
#: How long after its first ready time a message or notification may still be sent (E16); others keep the policy's 24 h.
MESSAGE_MAX_AGE = timedelta(days=7)


def module_of(service: str) -> str:
    """The generated module that holds the messages of `service`; its stubs are in the same name plus `_grpc`.

    A sibling's service lies in `whispr.siblings.{package}_pb2`, one of our own beside its package, in a file named
    like the service: `whispr.scheduling.v1.SchedulingService` in `whispr.scheduling.v1.scheduling_service_pb2`.
    """
    package, _, name = service.rpartition(".")
    if not package.startswith("whispr."):
        return f"whispr.siblings.{package}_pb2"
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{package}.{snake}_pb2"


class TargetTable:
    """The methods that may be scheduled, joined with what the generated code knows of them. Never changes.

    Building it imports the generated code of every service named. Raises LookupError when a row names a method that
    the contracts do not have or that streams, and ValueError when two rows name the same method.
    """

    __slots__ = ("_methods", "_readings", "_requests", "_retention", "_targets", "_urls")

    def __init__(self, rows: Iterable[Row] = ROWS, *, sent_retention: timedelta = DEFAULT_SENT_RETENTION) -> None:
        methods: dict[str, MethodDescriptor] = {}
        targets: dict[str, Target] = {}
        retention: dict[str, Retention] = {}
        for row in sorted(rows, key=lambda row: row.method):
            if row.method in targets:
                raise ValueError(f"two rows name {row.method}")
            importlib.import_module(module_of(row.method.rpartition("/")[0]))
            method = _find_method(row.method)
            if method is None:
                raise LookupError(f"the contracts have no {row.method}")
            if _streams(method):
                raise LookupError(f"{row.method} streams; only unary methods may be scheduled")
            methods[row.method] = method
            targets[row.method] = _target(row, method, sent_retention)
            retention[row.method] = row.retention
        self._methods = MappingProxyType(methods)
        self._requests = {name: message_factory.GetMessageClass(method.input_type) for name, method in methods.items()}
        # What each request of a batch is read with, and cleared at a look.
        self._readings = {name: (each.FromString, field_rules.look_for(each)) for name, each in self._requests.items()}
        self._targets = MappingProxyType(targets)
        self._urls = {name: f"type.googleapis.com/{target.request_type}" for name, target in targets.items()}
        self._retention = MappingProxyType(retention)

    def __iter__(self) -> Iterator[Target]:
        """The targets, sorted by method."""
        return iter(self._targets.values())

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, method: object) -> bool:
        return method in self._targets

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of the services that the targets belong to, sorted: one address and one breaker for each."""
        return tuple(sorted({target.service for target in self}))

    def get(self, method: str) -> Target | None:
        """The target `package.Service/Method`, or None if that may not be scheduled (`problem` says why)."""
        return self._targets.get(method)

    def retention_class(self, method: str) -> Retention:
        """The class of history of a target, which `Target.retention` gives as a span. Raises KeyError."""
        return self._retention[method]

    def stub_class(self, service: str) -> Callable[[Any], Any]:
        """The generated stub of a service of the table: called with a channel, it has one callable per method.

        Raises KeyError for other services.
        """
        if service not in self.services:
            raise KeyError(service)
        module = importlib.import_module(f"{module_of(service)}_grpc")
        return cast("Callable[[Any], Any]", getattr(module, f"{service.rpartition('.')[2]}Stub"))

    def request_class(self, method: str) -> type[Message]:
        """The message class of a target's request. Raises KeyError."""
        return self._requests[method]

    def response_class(self, method: str) -> type[Message]:
        """The message class of a target's response. Raises KeyError."""
        return message_factory.GetMessageClass(self._methods[method].output_type)

    def problem(self, method: str) -> Violation | None:
        """Why `method` may not be scheduled, with a suggestion where one is near, or None if it may.

        The violation's field is empty: the caller knows what its field is called. Reasons: TARGET_UNKNOWN,
        TARGET_STREAMING, TARGET_NOT_SCHEDULABLE.
        """
        if method in self._targets:
            return None
        found = _find_method(method)
        if found is not None and _streams(found):
            return Violation("", f"{method} streams; only unary methods may be scheduled", "TARGET_STREAMING")
        near = self.suggest(method)
        hint = f"; did you mean {near}?" if near else "; ListTargets names those that may"
        if found is not None:
            return Violation(
                "", f"{method} is not among the methods that may be scheduled{hint}", "TARGET_NOT_SCHEDULABLE"
            )
        return Violation("", f"there is no method {method[:200]!r}{hint}", "TARGET_UNKNOWN")

    def suggest(self, method: str) -> str | None:
        """The target that `method` was probably meant to be, or None if none is near.

        A leading slash, dots all the way and a bare method name are understood.
        """
        wanted = method[:200].strip("/").lower()
        shapes: dict[str, str] = {}
        for name in self._targets:
            shapes[name.rpartition("/")[2].lower()] = name
            shapes[name.replace("/", ".").lower()] = name
            shapes[name.lower()] = name
        near = difflib.get_close_matches(wanted, shapes, n=1, cutoff=0.75)
        return shapes[near[0]] if near else None

    def check(self, method: str, type_url: str, value: bytes) -> list[Violation]:
        """What is wrong with a packed request for a target: nothing when the list is empty.

        `type_url` and `value` are those of a google.protobuf.Any. Wrong types, empty and undecodable values and values
        against the rules that the request's type declares are found; unknown fields are accepted. Fields are paths from
        the request message, such as `recipient_ids[2]`, and empty when the request as a whole is meant. Reasons:
        REQUEST_REQUIRED, REQUEST_TYPE, REQUEST_EMPTY, REQUEST_MALFORMED, or the broken rule, such as STRING_MIN_LEN.

        Raises KeyError when `method` is not in the table.
        """
        expected = self._targets[method].request_type
        if value and type_url == self._urls[method]:
            # The usual case, without taking the URL apart.
            return self._check_value(method, expected, value)
        if not type_url and not value:
            return [Violation("", f"must hold a {expected}", "REQUEST_REQUIRED")]
        prefix, slash, name = type_url.rpartition("/")
        if name != expected or not slash:
            given = name if slash or prefix else type_url
            return [
                Violation(
                    "",
                    f"must hold a {expected} (type_url type.googleapis.com/{expected}), not {given[:200]!r}",
                    "REQUEST_TYPE",
                )
            ]
        if not value:
            return [Violation("", f"must not be an empty {expected}", "REQUEST_EMPTY")]
        return self._check_value(method, expected, value)

    def _check_value(self, method: str, expected: str, value: bytes) -> list[Violation]:
        parse, is_sound = self._readings[method]
        try:
            message = parse(value)
        except DecodeError:
            return [Violation("", f"the bytes are not a {expected}", "REQUEST_MALFORMED")]
        return [] if is_sound(message) else [_violation(found) for found in field_rules.broken(message)]


def _target(row: Row, method: MethodDescriptor, sent_retention: timedelta) -> Target:
    spans = {UNTIL_SENT: sent_retention, WEEK: timedelta(days=7), MONTH: timedelta(days=30), Retention.PERMANENT: None}
    policy = RetryPolicy(max_attempts=row.retries + 1)
    if row.retention is UNTIL_SENT:
        policy = RetryPolicy(max_attempts=row.retries + 1, max_age=MESSAGE_MAX_AGE)
    return Target(
        method=row.method,
        request_type=method.input_type.full_name,
        response_type=method.output_type.full_name,
        queue=row.queue,
        retry_policy=policy,
        timeout=timedelta(seconds=row.timeout),
        retention=spans[row.retention],
        description=row.description,
        running_limit=row.running or (None if row.queue is HIGH else RUNNING_LIMIT),
    )


def _find_method(method: str) -> MethodDescriptor | None:
    # Only what is loaded already is looked at: a caller's text never decides what is imported.
    service_name, _, name = method.rpartition("/")
    try:
        service: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(service_name)
    except KeyError:
        return None
    return service.methods_by_name.get(name)


def _streams(method: MethodDescriptor) -> bool:
    return bool(method.client_streaming or method.server_streaming)


def _violation(found: protovalidate.Violation) -> Violation:
    proto = found.proto
    reason = re.sub(r"[^A-Z0-9]+", "_", proto.rule_id.upper()).strip("_") or "INVALID_VALUE"
    path = ""
    for element in proto.field.elements if proto.field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            path += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
    return Violation(path, proto.message or proto.rule_id, reason)
