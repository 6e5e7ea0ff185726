"""The target table says what the requirements say, and refuses what may not be scheduled."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from whispr import siblings
from whispr.siblings import messaging_pb2, notification_pb2, user_pb2

from scheduling.delivery.targets import ROWS, Retention, Row, TargetTable, module_of
from scheduling.domain.target import Queue

SEND = "messaging.MessagingService/SendScheduledMessage"
CLEAN = "messaging.MessagingService/CleanupExpiredMessages"
NOTIFY = "notification.NotificationService/SendDelayedNotification"

#: Requirements T, line by line: methods of a service, queue, retries, timeout in seconds, history kept.
REQUIRED: list[tuple[str, str, str, str, int, int, Retention]] = [
    ("T1", "messaging.MessagingService", "SendScheduledMessage", "high", 3, 30, Retention.UNTIL_SENT),
    ("T2", "messaging.MessagingService", "CleanupExpiredMessages", "low", 2, 300, Retention.WEEK),
    ("T3", "notification.NotificationService", "SendDelayedNotification", "high", 5, 15, Retention.UNTIL_SENT),
    ("T4", "notification.NotificationService", "CleanupNotificationHistory", "low", 2, 300, Retention.WEEK),
    ("T5", "media.MediaService", "OptimizeStorage CleanupTempFiles", "low", 2, 300, Retention.WEEK),
    ("T6", "user.UserService", "GenerateActivityReport", "medium", 1, 120, Retention.MONTH),
    ("T7", "user.UserService", "CleanupInactiveUsers", "low", 2, 300, Retention.WEEK),
    ("T8", "auth.AuthService", "RotateTokens", "medium", 3, 120, Retention.MONTH),
    ("T8", "auth.AuthService", "CleanupExpiredSessions", "low", 2, 300, Retention.WEEK),
    ("T9", "moderation.ModerationService", "AnalyzeContent UpdateModels", "medium", 3, 600, Retention.MONTH),
    ("T11", "messaging.MessagingService", "ExpireChats ListExpiringChats", "medium", 3, 120, Retention.MONTH),
    ("T11", "messaging.MessagingService", "CloseInactiveSessions", "medium", 3, 120, Retention.MONTH),
    ("T11", "messaging.MessagingService", "RecoverErrorSessions ReprocessMessages", "medium", 3, 120, Retention.MONTH),
    ("T12", "auth.AuthService", "ValidateCredentials SyncCredentials", "medium", 3, 120, Retention.MONTH),
    ("T12", "auth.AuthService", "CleanupExpiredCredentials", "low", 2, 300, Retention.WEEK),
    ("T13", "user.UserService", "ListActiveUsers UpdateActivityStatistics", "medium", 3, 120, Retention.MONTH),
    ("T13", "user.UserService", "ResetDailyQuotas", "medium", 3, 120, Retention.MONTH),
    ("T14", "matching.MatchingService", "GenerateDailySelection", "medium", 3, 120, Retention.MONTH),
    ("T14", "matching.MatchingService", "CleanupDailySelections", "low", 2, 300, Retention.WEEK),
    ("T14", "content.ContentService", "GenerateDailyVerse", "medium", 3, 120, Retention.MONTH),
    ("T14", "content.ContentService", "CleanupCaches", "low", 2, 300, Retention.WEEK),
]
SPANS = {
    Retention.UNTIL_SENT: timedelta(days=30),
    Retention.WEEK: timedelta(days=7),
    Retention.MONTH: timedelta(days=30),
}


@pytest.fixture(scope="module")
def table() -> TargetTable:
    return TargetTable()


def packed(message: Message) -> tuple[str, bytes]:
    box = Any()
    box.Pack(message)
    return box.type_url, box.value


def a_message(**changes: object) -> messaging_pb2.SendScheduledMessageRequest:
    fields = {"message_id": "m-1", "conversation_id": "c-1", "sender_id": "u-1", "content": "hello"} | changes
    return messaging_pb2.SendScheduledMessageRequest(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", REQUIRED, ids=lambda line: f"{line[0]} {line[2].split()[0]}")
def test_each_line_of_the_requirements_is_in_the_table(
    table: TargetTable, line: tuple[str, str, str, str, int, int, Retention]
) -> None:
    _, service, names, queue, retries, timeout, retention = line
    for name in names.split():
        target = table.get(f"{service}/{name}")
        assert target is not None
        assert target.queue is Queue(queue.upper())
        assert target.retry_policy.max_attempts == retries + 1
        assert target.timeout == timedelta(seconds=timeout)
        assert table.retention_class(target.method) is retention
        assert target.retention == SPANS[retention]
        assert target.service == service
        assert target.description


def test_the_table_holds_nothing_that_the_requirements_do_not_name(table: TargetTable) -> None:
    assert {target.method for target in table} == {
        f"{service}/{name}" for _, service, names, *_ in REQUIRED for name in names.split()
    }


def test_messages_and_notifications_may_wait_seven_days_and_everything_else_one(table: TargetTable) -> None:
    for target in table:
        days = 7 if target.method in {SEND, NOTIFY} else 1
        assert target.retry_policy.max_age == timedelta(days=days), target.method


def test_the_time_that_sent_messages_are_kept_is_one_setting() -> None:
    table = TargetTable(sent_retention=timedelta(days=3))
    kept = {target.method for target in table if target.retention == timedelta(days=3)}
    assert kept == {SEND, NOTIFY}


def test_what_is_permanent_has_no_end_of_retention() -> None:
    table = TargetTable([replace(ROWS[0], retention=Retention.PERMANENT)])
    assert [target.retention for target in table] == [None]


def test_targets_come_sorted_by_method(table: TargetTable) -> None:
    methods = [target.method for target in table]
    assert methods == sorted(methods)
    assert len(table) == len(methods)


def test_every_method_of_every_sibling_contract_has_a_row(table: TargetTable) -> None:
    assert {target.method for target in table} == set(contract_methods())


def contract_methods() -> Iterator[str]:
    for path in siblings.__path__:
        for file in Path(path).glob("*_pb2.py"):
            contract = importlib.import_module(f"whispr.siblings.{file.stem}").DESCRIPTOR
            for service in contract.services_by_name.values():
                for method in service.methods:
                    assert not method.client_streaming
                    assert not method.server_streaming
                    yield f"{service.full_name}/{method.name}"


def test_each_target_can_be_called_through_its_generated_stub(table: TargetTable) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        for target in table:
            stub = table.stub_class(target.service)(channel)
            assert callable(getattr(stub, target.method.rpartition("/")[2]))
            assert table.request_class(target.method).DESCRIPTOR.full_name == target.request_type
            assert table.response_class(target.method).DESCRIPTOR.full_name == target.response_type


def test_a_service_outside_the_table_has_no_stub(table: TargetTable) -> None:
    with pytest.raises(KeyError):
        table.stub_class("whispr.scheduling.v1.SchedulingService")


def test_every_service_is_named_once(table: TargetTable) -> None:
    assert table.services == tuple(sorted({service for _, service, *_ in REQUIRED}))


def test_a_service_of_our_own_lies_beside_its_package() -> None:
    assert module_of("whispr.scheduling.v1.SchedulingService") == "whispr.scheduling.v1.scheduling_service_pb2"
    assert module_of("matching.MatchingService") == "whispr.siblings.matching_pb2"


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("messaging.MessagingService/Shout", LookupError),
        ("nowhere.NowhereService/Call", ImportError),
        ("whispr.scheduling.v1.SchedulingService/WatchExecutions", LookupError),
    ],
)
def test_a_row_that_cannot_be_called_is_refused_when_the_table_is_built(method: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        TargetTable([Row(method, Queue.LOW, 0, 1, Retention.WEEK, "")])


def test_a_method_may_not_have_two_rows() -> None:
    with pytest.raises(ValueError, match="two rows"):
        TargetTable([ROWS[0], ROWS[0]])


def test_a_target_has_no_problem(table: TargetTable) -> None:
    assert table.problem(SEND) is None


def test_a_streaming_method_is_told_from_an_unknown_one(table: TargetTable) -> None:
    importlib.import_module("whispr.scheduling.v1.scheduling_service_pb2")
    found = table.problem("whispr.scheduling.v1.SchedulingService/WatchExecutions")
    assert found is not None
    assert found.reason == "TARGET_STREAMING"


def test_a_unary_method_without_a_row_is_not_schedulable() -> None:
    found = TargetTable(ROWS[:1]).problem(CLEAN)
    assert found is not None
    assert found.reason == "TARGET_NOT_SCHEDULABLE"


@pytest.mark.parametrize(
    "method", ["", "/", "a/b/c", "é/é", "messaging/x", "messaging.MessagingService/", "x" * 9999, "\0/\0"]
)
def test_anything_else_is_unknown_whatever_it_looks_like(table: TargetTable, method: str) -> None:
    found = table.problem(method)
    assert found is not None
    assert (found.field, found.reason) == ("", "TARGET_UNKNOWN")
    assert len(found.description) < 1000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("messaging.MessagingService/SendScheduledMesage", SEND),
        ("/messaging.MessagingService/SendScheduledMessage", SEND),
        ("messaging.MessagingService.SendScheduledMessage", SEND),
        ("messaging.messagingservice/sendscheduledmessage", SEND),
        ("SendDelayedNotifications", NOTIFY),
        ("quite.different/Thing", None),
        ("", None),
    ],
)
def test_a_near_miss_is_answered_with_the_target_that_was_meant(
    table: TargetTable, written: str, meant: str | None
) -> None:
    assert table.suggest(written) == meant


def test_a_sound_request_has_no_violations(table: TargetTable) -> None:
    assert table.check(SEND, *packed(a_message(recipient_ids=["u-2"], attributes={"tone": "soft"}))) == []


def test_a_request_to_nobody_known_is_not_checked(table: TargetTable) -> None:
    with pytest.raises(KeyError):
        table.check("messaging.MessagingService/Shout", *packed(a_message()))


def test_fields_that_a_newer_contract_has_are_accepted(table: TargetTable) -> None:
    type_url, value = packed(a_message())
    assert table.check(SEND, type_url, value + b"\xc2\x3e\x03new") == []


@pytest.mark.parametrize(
    ("type_url", "value", "reason"),
    [
        ("", b"", "REQUEST_REQUIRED"),
        ("", b"\x0a\x01x", "REQUEST_TYPE"),
        ("type.googleapis.com/messaging.CleanupExpiredMessagesRequest", b"\x0a\x01x", "REQUEST_TYPE"),
        ("messaging.SendScheduledMessageRequest", b"\x0a\x01x", "REQUEST_TYPE"),
        ("type.googleapis.com/messaging.SendScheduledMessageRequest", b"", "REQUEST_EMPTY"),
        ("type.googleapis.com/messaging.SendScheduledMessageRequest", b"\xff\xff", "REQUEST_MALFORMED"),
        ("type.googleapis.com/messaging.SendScheduledMessageRequest", b"\x0a\x02\xc3\x28", "REQUEST_MALFORMED"),
    ],
)
def test_a_request_that_is_none_is_refused_as_a_whole(
    table: TargetTable, type_url: str, value: bytes, reason: str
) -> None:
    (found,) = table.check(SEND, type_url, value)
    assert (found.field, found.reason) == ("", reason)


def test_any_prefix_may_stand_before_the_type(table: TargetTable) -> None:
    assert table.check(SEND, "/messaging.SendScheduledMessageRequest", a_message().SerializeToString()) == []


def test_every_broken_rule_is_told_with_the_path_of_its_field(table: TargetTable) -> None:
    request = a_message(content="x" * 10_001, sender_id="", recipient_ids=["u-2", ""], attributes={"k": "v" * 1001})
    found = {(violation.field, violation.reason) for violation in table.check(SEND, *packed(request))}
    assert found == {
        ("sender_id", "STRING_MIN_LEN"),
        ("content", "STRING_MAX_LEN"),
        ("recipient_ids[1]", "STRING_MIN_LEN"),
        ('attributes["k"]', "STRING_MAX_LEN"),
    }


@pytest.mark.parametrize(
    ("older_than", "reason"), [(None, "REQUIRED"), (Duration(), "DURATION_GT"), (Duration(seconds=-1), "DURATION_GT")]
)
def test_a_clean_up_says_how_old_things_must_be(table: TargetTable, older_than: Duration | None, reason: str) -> None:
    request = messaging_pb2.CleanupExpiredMessagesRequest(older_than=older_than, dry_run=True)
    (found,) = table.check(CLEAN, *packed(request))
    assert (found.field, found.reason) == ("older_than", reason)


@pytest.mark.parametrize("kind", range(1, 6))
def test_each_kind_of_notification_and_report_can_be_asked_for(table: TargetTable, kind: int) -> None:
    notification = notification_pb2.SendDelayedNotificationRequest(
        notification_id="n-1",
        user_id="u-1",
        title="Hello",
        kind=kind,  # type: ignore[arg-type]
    )
    report = user_pb2.GenerateActivityReportRequest(report_id="r-1", kind=kind)  # type: ignore[arg-type]
    assert table.check(NOTIFY, *packed(notification)) == []
    assert table.check("user.UserService/GenerateActivityReport", *packed(report)) == []


def test_every_target_needs_something_in_its_request(table: TargetTable) -> None:
    # The value holds an unknown field only, so that it is not refused for its emptiness.
    for target in table:
        found = table.check(target.method, f"type.googleapis.com/{target.request_type}", b"\xc2\x3e\x03new")
        assert found, target.method
        assert all(violation.field for violation in found)


def test_clean_ups_carry_an_age_a_filter_and_a_dry_run(table: TargetTable) -> None:
    for target in table:
        if target.queue is Queue.LOW:
            fields = table.request_class(target.method).DESCRIPTOR.fields_by_name
            assert {"older_than", "dry_run"} <= set(fields), target.method
            assert set(fields) & {"states", "kinds"}, target.method
