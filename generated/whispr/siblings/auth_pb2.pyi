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

class TokenKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_KIND_UNSPECIFIED: _ClassVar[TokenKind]
    TOKEN_KIND_SIGNING_KEY: _ClassVar[TokenKind]
    TOKEN_KIND_REFRESH: _ClassVar[TokenKind]
    TOKEN_KIND_SERVICE: _ClassVar[TokenKind]

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_EXPIRED: _ClassVar[SessionState]
    SESSION_STATE_REVOKED: _ClassVar[SessionState]

class CredentialKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CREDENTIAL_KIND_UNSPECIFIED: _ClassVar[CredentialKind]
    CREDENTIAL_KIND_PASSWORD: _ClassVar[CredentialKind]
    CREDENTIAL_KIND_API_KEY: _ClassVar[CredentialKind]
    CREDENTIAL_KIND_CERTIFICATE: _ClassVar[CredentialKind]
    CREDENTIAL_KIND_OAUTH: _ClassVar[CredentialKind]
TOKEN_KIND_UNSPECIFIED: TokenKind
TOKEN_KIND_SIGNING_KEY: TokenKind
TOKEN_KIND_REFRESH: TokenKind
TOKEN_KIND_SERVICE: TokenKind
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_EXPIRED: SessionState
SESSION_STATE_REVOKED: SessionState
CREDENTIAL_KIND_UNSPECIFIED: CredentialKind
CREDENTIAL_KIND_PASSWORD: CredentialKind
CREDENTIAL_KIND_API_KEY: CredentialKind
CREDENTIAL_KIND_CERTIFICATE: CredentialKind
CREDENTIAL_KIND_OAUTH: CredentialKind

class RotateTokensRequest(_message.Message):
    __slots__ = ("kinds", "older_than", "grace_period")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[TokenKind]
    older_than: _duration_pb2.Duration
    grace_period: _duration_pb2.Duration
    def __init__(self, kinds: _Optional[_Iterable[_Union[TokenKind, str]]] = ..., older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RotateTokensResponse(_message.Message):
    __slots__ = ("rotated_count", "next_rotation_time")
    ROTATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ROTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    rotated_count: int
    next_rotation_time: _timestamp_pb2.Timestamp
    def __init__(self, rotated_count: _Optional[int] = ..., next_rotation_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CleanupExpiredSessionsRequest(_message.Message):
    __slots__ = ("older_than", "states", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    states: _containers.RepeatedScalarFieldContainer[SessionState]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., states: _Optional[_Iterable[_Union[SessionState, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupExpiredSessionsResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ...) -> None: ...

class ValidateCredentialsRequest(_message.Message):
    __slots__ = ("kinds", "not_checked_for", "max_count")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    NOT_CHECKED_FOR_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[CredentialKind]
    not_checked_for: _duration_pb2.Duration
    max_count: int
    def __init__(self, kinds: _Optional[_Iterable[_Union[CredentialKind, str]]] = ..., not_checked_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_count: _Optional[int] = ...) -> None: ...

class ValidateCredentialsResponse(_message.Message):
    __slots__ = ("checked_count", "invalid_count")
    CHECKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    INVALID_COUNT_FIELD_NUMBER: _ClassVar[int]
    checked_count: int
    invalid_count: int
    def __init__(self, checked_count: _Optional[int] = ..., invalid_count: _Optional[int] = ...) -> None: ...

class SyncCredentialsRequest(_message.Message):
    __slots__ = ("source_id", "full")
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    source_id: str
    full: bool
    def __init__(self, source_id: _Optional[str] = ..., full: _Optional[bool] = ...) -> None: ...

class SyncCredentialsResponse(_message.Message):
    __slots__ = ("created_count", "updated_count", "removed_count")
    CREATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    created_count: int
    updated_count: int
    removed_count: int
    def __init__(self, created_count: _Optional[int] = ..., updated_count: _Optional[int] = ..., removed_count: _Optional[int] = ...) -> None: ...

class CleanupExpiredCredentialsRequest(_message.Message):
    __slots__ = ("older_than", "kinds", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[CredentialKind]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[CredentialKind, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupExpiredCredentialsResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ...) -> None: ...
