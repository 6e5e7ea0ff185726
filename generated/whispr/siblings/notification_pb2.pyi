import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NotificationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTIFICATION_KIND_UNSPECIFIED: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_REMINDER: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_FOLLOW_UP: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_ALERT: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_DIGEST: _ClassVar[NotificationKind]
    NOTIFICATION_KIND_BIRTHDAY: _ClassVar[NotificationKind]

class NotificationChannel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTIFICATION_CHANNEL_UNSPECIFIED: _ClassVar[NotificationChannel]
    NOTIFICATION_CHANNEL_PUSH: _ClassVar[NotificationChannel]
    NOTIFICATION_CHANNEL_EMAIL: _ClassVar[NotificationChannel]
    NOTIFICATION_CHANNEL_SMS: _ClassVar[NotificationChannel]
    NOTIFICATION_CHANNEL_IN_APP: _ClassVar[NotificationChannel]
NOTIFICATION_KIND_UNSPECIFIED: NotificationKind
NOTIFICATION_KIND_REMINDER: NotificationKind
NOTIFICATION_KIND_FOLLOW_UP: NotificationKind
NOTIFICATION_KIND_ALERT: NotificationKind
NOTIFICATION_KIND_DIGEST: NotificationKind
NOTIFICATION_KIND_BIRTHDAY: NotificationKind
NOTIFICATION_CHANNEL_UNSPECIFIED: NotificationChannel
NOTIFICATION_CHANNEL_PUSH: NotificationChannel
NOTIFICATION_CHANNEL_EMAIL: NotificationChannel
NOTIFICATION_CHANNEL_SMS: NotificationChannel
NOTIFICATION_CHANNEL_IN_APP: NotificationChannel

class SendDelayedNotificationRequest(_message.Message):
    __slots__ = ("notification_id", "user_id", "kind", "title", "body", "channels", "attributes", "critical")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NOTIFICATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    notification_id: str
    user_id: str
    kind: NotificationKind
    title: str
    body: str
    channels: _containers.RepeatedScalarFieldContainer[NotificationChannel]
    attributes: _containers.ScalarMap[str, str]
    critical: bool
    def __init__(self, notification_id: _Optional[str] = ..., user_id: _Optional[str] = ..., kind: _Optional[_Union[NotificationKind, str]] = ..., title: _Optional[str] = ..., body: _Optional[str] = ..., channels: _Optional[_Iterable[_Union[NotificationChannel, str]]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., critical: _Optional[bool] = ...) -> None: ...

class SendDelayedNotificationResponse(_message.Message):
    __slots__ = ("notification_id", "send_time", "channels")
    NOTIFICATION_ID_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    notification_id: str
    send_time: _timestamp_pb2.Timestamp
    channels: _containers.RepeatedScalarFieldContainer[NotificationChannel]
    def __init__(self, notification_id: _Optional[str] = ..., send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., channels: _Optional[_Iterable[_Union[NotificationChannel, str]]] = ...) -> None: ...

class CleanupNotificationHistoryRequest(_message.Message):
    __slots__ = ("older_than", "kinds", "include_unread", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_UNREAD_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[NotificationKind]
    include_unread: bool
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[NotificationKind, str]]] = ..., include_unread: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupNotificationHistoryResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ...) -> None: ...
