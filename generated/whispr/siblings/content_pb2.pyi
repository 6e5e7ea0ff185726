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

class CacheKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_KIND_UNSPECIFIED: _ClassVar[CacheKind]
    CACHE_KIND_VERSES: _ClassVar[CacheKind]
    CACHE_KIND_ARTICLES: _ClassVar[CacheKind]
    CACHE_KIND_IMAGES: _ClassVar[CacheKind]
CACHE_KIND_UNSPECIFIED: CacheKind
CACHE_KIND_VERSES: CacheKind
CACHE_KIND_ARTICLES: CacheKind
CACHE_KIND_IMAGES: CacheKind

class GenerateDailyVerseRequest(_message.Message):
    __slots__ = ("language_code", "time_zone", "theme")
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    THEME_FIELD_NUMBER: _ClassVar[int]
    language_code: str
    time_zone: str
    theme: str
    def __init__(self, language_code: _Optional[str] = ..., time_zone: _Optional[str] = ..., theme: _Optional[str] = ...) -> None: ...

class GenerateDailyVerseResponse(_message.Message):
    __slots__ = ("verse_id", "reference", "text")
    VERSE_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    verse_id: str
    reference: str
    text: str
    def __init__(self, verse_id: _Optional[str] = ..., reference: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class CleanupCachesRequest(_message.Message):
    __slots__ = ("older_than", "kinds", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[CacheKind]
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[CacheKind, str]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupCachesResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count", "freed_bytes")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    freed_bytes: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
