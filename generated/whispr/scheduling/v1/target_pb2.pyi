import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Queue(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUEUE_UNSPECIFIED: _ClassVar[Queue]
    HIGH: _ClassVar[Queue]
    MEDIUM: _ClassVar[Queue]
    LOW: _ClassVar[Queue]

class AfterLostWorker(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AFTER_LOST_WORKER_UNSPECIFIED: _ClassVar[AfterLostWorker]
    RETRY_NOW: _ClassVar[AfterLostWorker]
    WAIT_FOR_DEADLINE: _ClassVar[AfterLostWorker]
QUEUE_UNSPECIFIED: Queue
HIGH: Queue
MEDIUM: Queue
LOW: Queue
AFTER_LOST_WORKER_UNSPECIFIED: AfterLostWorker
RETRY_NOW: AfterLostWorker
WAIT_FOR_DEADLINE: AfterLostWorker

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_backoff", "backoff_multiplier", "max_backoff", "max_age", "after_lost_worker")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    AFTER_LOST_WORKER_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    backoff_multiplier: float
    max_backoff: _duration_pb2.Duration
    max_age: _duration_pb2.Duration
    after_lost_worker: AfterLostWorker
    def __init__(self, max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., backoff_multiplier: _Optional[float] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., after_lost_worker: _Optional[_Union[AfterLostWorker, str]] = ...) -> None: ...

class OperatorPause(_message.Message):
    __slots__ = ("name", "pause_time", "principal", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAUSE_TIME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    pause_time: _timestamp_pb2.Timestamp
    principal: str
    note: str
    def __init__(self, name: _Optional[str] = ..., pause_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., principal: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("name", "method", "request_type", "response_type", "queue", "retry_policy", "timeout", "retention", "description", "breaker_state", "breaker_change_time", "running_limit", "pause")
    class BreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BREAKER_STATE_UNSPECIFIED: _ClassVar[Target.BreakerState]
        CLOSED: _ClassVar[Target.BreakerState]
        OPEN: _ClassVar[Target.BreakerState]
        HALF_OPEN: _ClassVar[Target.BreakerState]
    BREAKER_STATE_UNSPECIFIED: Target.BreakerState
    CLOSED: Target.BreakerState
    OPEN: Target.BreakerState
    HALF_OPEN: Target.BreakerState
    NAME_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TYPE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RETRY_POLICY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BREAKER_STATE_FIELD_NUMBER: _ClassVar[int]
    BREAKER_CHANGE_TIME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    method: str
    request_type: str
    response_type: str
    queue: Queue
    retry_policy: RetryPolicy
    timeout: _duration_pb2.Duration
    retention: _duration_pb2.Duration
    description: str
    breaker_state: Target.BreakerState
    breaker_change_time: _timestamp_pb2.Timestamp
    running_limit: int
    pause: OperatorPause
    def __init__(self, name: _Optional[str] = ..., method: _Optional[str] = ..., request_type: _Optional[str] = ..., response_type: _Optional[str] = ..., queue: _Optional[_Union[Queue, str]] = ..., retry_policy: _Optional[_Union[RetryPolicy, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., description: _Optional[str] = ..., breaker_state: _Optional[_Union[Target.BreakerState, str]] = ..., breaker_change_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., running_limit: _Optional[int] = ..., pause: _Optional[_Union[OperatorPause, _Mapping]] = ...) -> None: ...
