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

class ContentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTENT_KIND_UNSPECIFIED: _ClassVar[ContentKind]
    CONTENT_KIND_TEXT: _ClassVar[ContentKind]
    CONTENT_KIND_IMAGE: _ClassVar[ContentKind]
    CONTENT_KIND_VIDEO: _ClassVar[ContentKind]
    CONTENT_KIND_PROFILE: _ClassVar[ContentKind]
CONTENT_KIND_UNSPECIFIED: ContentKind
CONTENT_KIND_TEXT: ContentKind
CONTENT_KIND_IMAGE: ContentKind
CONTENT_KIND_VIDEO: ContentKind
CONTENT_KIND_PROFILE: ContentKind

class AnalyzeContentRequest(_message.Message):
    __slots__ = ("analysis_id", "content_ids", "period", "kinds", "threshold")
    ANALYSIS_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_IDS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    analysis_id: str
    content_ids: _containers.RepeatedScalarFieldContainer[str]
    period: _duration_pb2.Duration
    kinds: _containers.RepeatedScalarFieldContainer[ContentKind]
    threshold: float
    def __init__(self, analysis_id: _Optional[str] = ..., content_ids: _Optional[_Iterable[str]] = ..., period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[ContentKind, str]]] = ..., threshold: _Optional[float] = ...) -> None: ...

class AnalyzeContentResponse(_message.Message):
    __slots__ = ("analysis_id", "analyzed_count", "flagged_count")
    ANALYSIS_ID_FIELD_NUMBER: _ClassVar[int]
    ANALYZED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    analysis_id: str
    analyzed_count: int
    flagged_count: int
    def __init__(self, analysis_id: _Optional[str] = ..., analyzed_count: _Optional[int] = ..., flagged_count: _Optional[int] = ...) -> None: ...

class UpdateModelsRequest(_message.Message):
    __slots__ = ("models", "force")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    force: bool
    def __init__(self, models: _Optional[_Iterable[str]] = ..., force: _Optional[bool] = ...) -> None: ...

class UpdateModelsResponse(_message.Message):
    __slots__ = ("versions", "updated_count")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.ScalarMap[str, str]
    updated_count: int
    def __init__(self, versions: _Optional[_Mapping[str, str]] = ..., updated_count: _Optional[int] = ...) -> None: ...
