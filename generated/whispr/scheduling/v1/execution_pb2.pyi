import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from whispr.scheduling.v1 import target_pb2 as _target_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Attempt(_message.Message):
    __slots__ = ("number", "start_time", "duration", "worker", "status", "counted", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    start_time: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    worker: str
    status: _status_pb2.Status
    counted: bool
    reason: str
    def __init__(self, number: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., worker: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., counted: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("name", "uid", "schedule", "origin", "target", "queue", "owner", "state", "reason", "held_by", "nominal_time", "ready_time", "expire_time", "start_time", "finish_time", "lateness", "attempt_count", "attempts", "status", "response", "request", "cancel_request_time", "create_time", "job_revision")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Execution.State]
        PENDING: _ClassVar[Execution.State]
        QUEUED: _ClassVar[Execution.State]
        RUNNING: _ClassVar[Execution.State]
        SUCCEEDED: _ClassVar[Execution.State]
        FAILED: _ClassVar[Execution.State]
        CANCELLED: _ClassVar[Execution.State]
        SKIPPED: _ClassVar[Execution.State]
    STATE_UNSPECIFIED: Execution.State
    PENDING: Execution.State
    QUEUED: Execution.State
    RUNNING: Execution.State
    SUCCEEDED: Execution.State
    FAILED: Execution.State
    CANCELLED: Execution.State
    SKIPPED: Execution.State
    class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ORIGIN_UNSPECIFIED: _ClassVar[Execution.Origin]
        SCHEDULED: _ClassVar[Execution.Origin]
        MANUAL: _ClassVar[Execution.Origin]
        BACKFILL: _ClassVar[Execution.Origin]
    ORIGIN_UNSPECIFIED: Execution.Origin
    SCHEDULED: Execution.Origin
    MANUAL: Execution.Origin
    BACKFILL: Execution.Origin
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    LATENESS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    schedule: str
    origin: Execution.Origin
    target: str
    queue: _target_pb2.Queue
    owner: str
    state: Execution.State
    reason: str
    held_by: str
    nominal_time: _timestamp_pb2.Timestamp
    ready_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    lateness: _duration_pb2.Duration
    attempt_count: int
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    status: _status_pb2.Status
    response: _any_pb2.Any
    request: _any_pb2.Any
    cancel_request_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    job_revision: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., schedule: _Optional[str] = ..., origin: _Optional[_Union[Execution.Origin, str]] = ..., target: _Optional[str] = ..., queue: _Optional[_Union[_target_pb2.Queue, str]] = ..., owner: _Optional[str] = ..., state: _Optional[_Union[Execution.State, str]] = ..., reason: _Optional[str] = ..., held_by: _Optional[str] = ..., nominal_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lateness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempt_count: _Optional[int] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., response: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., request: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., cancel_request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., job_revision: _Optional[int] = ...) -> None: ...
