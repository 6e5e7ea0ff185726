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

class SelectionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTION_STATE_UNSPECIFIED: _ClassVar[SelectionState]
    SELECTION_STATE_NEW: _ClassVar[SelectionState]
    SELECTION_STATE_SEEN: _ClassVar[SelectionState]
    SELECTION_STATE_EXPIRED: _ClassVar[SelectionState]
SELECTION_STATE_UNSPECIFIED: SelectionState
SELECTION_STATE_NEW: SelectionState
SELECTION_STATE_SEEN: SelectionState
SELECTION_STATE_EXPIRED: SelectionState

class GenerateDailySelectionRequest(_message.Message):
    __slots__ = ("user_id", "time_zone", "max_count")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    time_zone: str
    max_count: int
    def __init__(self, user_id: _Optional[str] = ..., time_zone: _Optional[str] = ..., max_count: _Optional[int] = ...) -> None: ...

class GenerateDailySelectionResponse(_message.Message):
    __slots__ = ("selection_id", "user_ids", "expire_time")
    SELECTION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    selection_id: str
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, selection_id: _Optional[str] = ..., user_ids: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CleanupDailySelectionsRequest(_message.Message):
    __slots__ = ("older_than", "states", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    states: _containers.RepeatedScalarFieldContainer[SelectionState]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., states: _Optional[_Iterable[_Union[SelectionState, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupDailySelectionsResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ...) -> None: ...
