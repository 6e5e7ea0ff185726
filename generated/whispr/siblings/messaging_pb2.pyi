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

class MessageState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGE_STATE_UNSPECIFIED: _ClassVar[MessageState]
    MESSAGE_STATE_PENDING: _ClassVar[MessageState]
    MESSAGE_STATE_SENT: _ClassVar[MessageState]
    MESSAGE_STATE_DELIVERED: _ClassVar[MessageState]
    MESSAGE_STATE_READ: _ClassVar[MessageState]
    MESSAGE_STATE_FAILED: _ClassVar[MessageState]

class ChatKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHAT_KIND_UNSPECIFIED: _ClassVar[ChatKind]
    CHAT_KIND_DIRECT: _ClassVar[ChatKind]
    CHAT_KIND_GROUP: _ClassVar[ChatKind]
    CHAT_KIND_SUPPORT: _ClassVar[ChatKind]
MESSAGE_STATE_UNSPECIFIED: MessageState
MESSAGE_STATE_PENDING: MessageState
MESSAGE_STATE_SENT: MessageState
MESSAGE_STATE_DELIVERED: MessageState
MESSAGE_STATE_READ: MessageState
MESSAGE_STATE_FAILED: MessageState
CHAT_KIND_UNSPECIFIED: ChatKind
CHAT_KIND_DIRECT: ChatKind
CHAT_KIND_GROUP: ChatKind
CHAT_KIND_SUPPORT: ChatKind

class SendScheduledMessageRequest(_message.Message):
    __slots__ = ("message_id", "conversation_id", "sender_id", "recipient_ids", "content", "media_ids", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_IDS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MEDIA_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    conversation_id: str
    sender_id: str
    recipient_ids: _containers.RepeatedScalarFieldContainer[str]
    content: str
    media_ids: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, message_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., sender_id: _Optional[str] = ..., recipient_ids: _Optional[_Iterable[str]] = ..., content: _Optional[str] = ..., media_ids: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SendScheduledMessageResponse(_message.Message):
    __slots__ = ("message_id", "send_time")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    send_time: _timestamp_pb2.Timestamp
    def __init__(self, message_id: _Optional[str] = ..., send_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CleanupExpiredMessagesRequest(_message.Message):
    __slots__ = ("older_than", "states", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    states: _containers.RepeatedScalarFieldContainer[MessageState]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., states: _Optional[_Iterable[_Union[MessageState, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupExpiredMessagesResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ...) -> None: ...

class ExpireChatsRequest(_message.Message):
    __slots__ = ("chat_ids", "older_than", "kinds", "max_count", "dry_run")
    CHAT_IDS_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    chat_ids: _containers.RepeatedScalarFieldContainer[str]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[ChatKind]
    max_count: int
    dry_run: bool
    def __init__(self, chat_ids: _Optional[_Iterable[str]] = ..., older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[ChatKind, str]]] = ..., max_count: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ExpireChatsResponse(_message.Message):
    __slots__ = ("matched_count", "expired_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    expired_count: int
    def __init__(self, matched_count: _Optional[int] = ..., expired_count: _Optional[int] = ...) -> None: ...

class ListExpiringChatsRequest(_message.Message):
    __slots__ = ("within", "kinds", "page_size", "page_token")
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    within: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[ChatKind]
    page_size: int
    page_token: str
    def __init__(self, within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[ChatKind, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ExpiringChat(_message.Message):
    __slots__ = ("chat_id", "kind", "member_ids", "expire_time", "time_zone")
    CHAT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBER_IDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    chat_id: str
    kind: ChatKind
    member_ids: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    time_zone: str
    def __init__(self, chat_id: _Optional[str] = ..., kind: _Optional[_Union[ChatKind, str]] = ..., member_ids: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., time_zone: _Optional[str] = ...) -> None: ...

class ListExpiringChatsResponse(_message.Message):
    __slots__ = ("chats", "next_page_token", "total_size")
    CHATS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    chats: _containers.RepeatedCompositeFieldContainer[ExpiringChat]
    next_page_token: str
    total_size: int
    def __init__(self, chats: _Optional[_Iterable[_Union[ExpiringChat, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class CloseInactiveSessionsRequest(_message.Message):
    __slots__ = ("inactive_for", "notify_members", "dry_run")
    INACTIVE_FOR_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    inactive_for: _duration_pb2.Duration
    notify_members: bool
    dry_run: bool
    def __init__(self, inactive_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., notify_members: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CloseInactiveSessionsResponse(_message.Message):
    __slots__ = ("matched_count", "closed_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    closed_count: int
    def __init__(self, matched_count: _Optional[int] = ..., closed_count: _Optional[int] = ...) -> None: ...

class RecoverErrorSessionsRequest(_message.Message):
    __slots__ = ("older_than", "max_recoveries", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    MAX_RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    max_recoveries: int
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_recoveries: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class RecoverErrorSessionsResponse(_message.Message):
    __slots__ = ("matched_count", "recovered_count", "closed_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    recovered_count: int
    closed_count: int
    def __init__(self, matched_count: _Optional[int] = ..., recovered_count: _Optional[int] = ..., closed_count: _Optional[int] = ...) -> None: ...

class ReprocessMessagesRequest(_message.Message):
    __slots__ = ("older_than", "states", "max_count", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    states: _containers.RepeatedScalarFieldContainer[MessageState]
    max_count: int
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., states: _Optional[_Iterable[_Union[MessageState, str]]] = ..., max_count: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ReprocessMessagesResponse(_message.Message):
    __slots__ = ("matched_count", "reprocessed_count", "failed_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPROCESSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    reprocessed_count: int
    failed_count: int
    def __init__(self, matched_count: _Optional[int] = ..., reprocessed_count: _Optional[int] = ..., failed_count: _Optional[int] = ...) -> None: ...
