import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MediaKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEDIA_KIND_UNSPECIFIED: _ClassVar[MediaKind]
    MEDIA_KIND_IMAGE: _ClassVar[MediaKind]
    MEDIA_KIND_VIDEO: _ClassVar[MediaKind]
    MEDIA_KIND_AUDIO: _ClassVar[MediaKind]
    MEDIA_KIND_DOCUMENT: _ClassVar[MediaKind]

class TempFileKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEMP_FILE_KIND_UNSPECIFIED: _ClassVar[TempFileKind]
    TEMP_FILE_KIND_UPLOAD: _ClassVar[TempFileKind]
    TEMP_FILE_KIND_CONVERSION: _ClassVar[TempFileKind]
    TEMP_FILE_KIND_PREVIEW: _ClassVar[TempFileKind]
MEDIA_KIND_UNSPECIFIED: MediaKind
MEDIA_KIND_IMAGE: MediaKind
MEDIA_KIND_VIDEO: MediaKind
MEDIA_KIND_AUDIO: MediaKind
MEDIA_KIND_DOCUMENT: MediaKind
TEMP_FILE_KIND_UNSPECIFIED: TempFileKind
TEMP_FILE_KIND_UPLOAD: TempFileKind
TEMP_FILE_KIND_CONVERSION: TempFileKind
TEMP_FILE_KIND_PREVIEW: TempFileKind

class OptimizeStorageRequest(_message.Message):
    __slots__ = ("older_than", "kinds", "min_bytes", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    MIN_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[MediaKind]
    min_bytes: int
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[MediaKind, str]]] = ..., min_bytes: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class OptimizeStorageResponse(_message.Message):
    __slots__ = ("matched_count", "optimized_count", "saved_bytes")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    optimized_count: int
    saved_bytes: int
    def __init__(self, matched_count: _Optional[int] = ..., optimized_count: _Optional[int] = ..., saved_bytes: _Optional[int] = ...) -> None: ...

class CleanupTempFilesRequest(_message.Message):
    __slots__ = ("older_than", "kinds", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[TempFileKind]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[TempFileKind, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupTempFilesResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count", "freed_bytes")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    freed_bytes: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
