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

class ReportKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_KIND_UNSPECIFIED: _ClassVar[ReportKind]
    REPORT_KIND_USAGE: _ClassVar[ReportKind]
    REPORT_KIND_SECURITY: _ClassVar[ReportKind]
    REPORT_KIND_PERFORMANCE: _ClassVar[ReportKind]
    REPORT_KIND_MODERATION: _ClassVar[ReportKind]
    REPORT_KIND_BILLING: _ClassVar[ReportKind]

class UserState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USER_STATE_UNSPECIFIED: _ClassVar[UserState]
    USER_STATE_ACTIVE: _ClassVar[UserState]
    USER_STATE_UNCONFIRMED: _ClassVar[UserState]
    USER_STATE_DORMANT: _ClassVar[UserState]
    USER_STATE_SUSPENDED: _ClassVar[UserState]

class QuotaKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUOTA_KIND_UNSPECIFIED: _ClassVar[QuotaKind]
    QUOTA_KIND_MESSAGES: _ClassVar[QuotaKind]
    QUOTA_KIND_UPLOADS: _ClassVar[QuotaKind]
    QUOTA_KIND_SEARCHES: _ClassVar[QuotaKind]
REPORT_KIND_UNSPECIFIED: ReportKind
REPORT_KIND_USAGE: ReportKind
REPORT_KIND_SECURITY: ReportKind
REPORT_KIND_PERFORMANCE: ReportKind
REPORT_KIND_MODERATION: ReportKind
REPORT_KIND_BILLING: ReportKind
USER_STATE_UNSPECIFIED: UserState
USER_STATE_ACTIVE: UserState
USER_STATE_UNCONFIRMED: UserState
USER_STATE_DORMANT: UserState
USER_STATE_SUSPENDED: UserState
QUOTA_KIND_UNSPECIFIED: QuotaKind
QUOTA_KIND_MESSAGES: QuotaKind
QUOTA_KIND_UPLOADS: QuotaKind
QUOTA_KIND_SEARCHES: QuotaKind

class GenerateActivityReportRequest(_message.Message):
    __slots__ = ("report_id", "kind", "period", "time_zone", "send_to")
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    SEND_TO_FIELD_NUMBER: _ClassVar[int]
    report_id: str
    kind: ReportKind
    period: _duration_pb2.Duration
    time_zone: str
    send_to: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, report_id: _Optional[str] = ..., kind: _Optional[_Union[ReportKind, str]] = ..., period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., time_zone: _Optional[str] = ..., send_to: _Optional[_Iterable[str]] = ...) -> None: ...

class GenerateActivityReportResponse(_message.Message):
    __slots__ = ("report_id", "uri", "create_time", "sent_count")
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    report_id: str
    uri: str
    create_time: _timestamp_pb2.Timestamp
    sent_count: int
    def __init__(self, report_id: _Optional[str] = ..., uri: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sent_count: _Optional[int] = ...) -> None: ...

class CleanupInactiveUsersRequest(_message.Message):
    __slots__ = ("older_than", "states", "deactivate_only", "dry_run")
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    DEACTIVATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    older_than: _duration_pb2.Duration
    states: _containers.RepeatedScalarFieldContainer[UserState]
    deactivate_only: bool
    dry_run: bool
    def __init__(self, older_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., states: _Optional[_Iterable[_Union[UserState, str]]] = ..., deactivate_only: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CleanupInactiveUsersResponse(_message.Message):
    __slots__ = ("matched_count", "deleted_count", "deactivated_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEACTIVATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    deleted_count: int
    deactivated_count: int
    def __init__(self, matched_count: _Optional[int] = ..., deleted_count: _Optional[int] = ..., deactivated_count: _Optional[int] = ...) -> None: ...

class ListActiveUsersRequest(_message.Message):
    __slots__ = ("active_within", "reachable_by_push", "count_only", "page_size", "page_token")
    ACTIVE_WITHIN_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_BY_PUSH_FIELD_NUMBER: _ClassVar[int]
    COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    active_within: _duration_pb2.Duration
    reachable_by_push: bool
    count_only: bool
    page_size: int
    page_token: str
    def __init__(self, active_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reachable_by_push: _Optional[bool] = ..., count_only: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ActiveUser(_message.Message):
    __slots__ = ("user_id", "time_zone", "language_code", "reachable_by_push", "last_active_time")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_BY_PUSH_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVE_TIME_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    time_zone: str
    language_code: str
    reachable_by_push: bool
    last_active_time: _timestamp_pb2.Timestamp
    def __init__(self, user_id: _Optional[str] = ..., time_zone: _Optional[str] = ..., language_code: _Optional[str] = ..., reachable_by_push: _Optional[bool] = ..., last_active_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListActiveUsersResponse(_message.Message):
    __slots__ = ("users", "next_page_token", "total_size")
    USERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[ActiveUser]
    next_page_token: str
    total_size: int
    def __init__(self, users: _Optional[_Iterable[_Union[ActiveUser, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class UpdateActivityStatisticsRequest(_message.Message):
    __slots__ = ("period", "user_ids")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    period: _duration_pb2.Duration
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateActivityStatisticsResponse(_message.Message):
    __slots__ = ("updated_count",)
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    updated_count: int
    def __init__(self, updated_count: _Optional[int] = ...) -> None: ...

class ResetDailyQuotasRequest(_message.Message):
    __slots__ = ("kinds", "time_zone", "dry_run")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[QuotaKind]
    time_zone: str
    dry_run: bool
    def __init__(self, kinds: _Optional[_Iterable[_Union[QuotaKind, str]]] = ..., time_zone: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ResetDailyQuotasResponse(_message.Message):
    __slots__ = ("matched_count", "reset_count")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESET_COUNT_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    reset_count: int
    def __init__(self, matched_count: _Optional[int] = ..., reset_count: _Optional[int] = ...) -> None: ...
