import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.type import date_pb2 as _date_pb2
from google.type import dayofweek_pb2 as _dayofweek_pb2
from google.type import timeofday_pb2 as _timeofday_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DstPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DST_POLICY_UNSPECIFIED: _ClassVar[DstPolicy]
    FIRE_AFTER_GAP: _ClassVar[DstPolicy]
    SKIP_GAP: _ClassVar[DstPolicy]
    LITERAL: _ClassVar[DstPolicy]

class CatchupPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CATCHUP_POLICY_UNSPECIFIED: _ClassVar[CatchupPolicy]
    SKIP_MISSED: _ClassVar[CatchupPolicy]
    FIRE_ONCE_LATEST: _ClassVar[CatchupPolicy]
    FIRE_ALL: _ClassVar[CatchupPolicy]
DST_POLICY_UNSPECIFIED: DstPolicy
FIRE_AFTER_GAP: DstPolicy
SKIP_GAP: DstPolicy
LITERAL: DstPolicy
CATCHUP_POLICY_UNSPECIFIED: CatchupPolicy
SKIP_MISSED: CatchupPolicy
FIRE_ONCE_LATEST: CatchupPolicy
FIRE_ALL: CatchupPolicy

class CronSpec(_message.Message):
    __slots__ = ("expression",)
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    expression: str
    def __init__(self, expression: _Optional[str] = ...) -> None: ...

class IntervalSpec(_message.Message):
    __slots__ = ("every", "phase", "anchor_time")
    EVERY_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_TIME_FIELD_NUMBER: _ClassVar[int]
    every: _duration_pb2.Duration
    phase: _duration_pb2.Duration
    anchor_time: _timestamp_pb2.Timestamp
    def __init__(self, every: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., phase: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., anchor_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NthWeekday(_message.Message):
    __slots__ = ("day_of_week", "nth")
    DAY_OF_WEEK_FIELD_NUMBER: _ClassVar[int]
    NTH_FIELD_NUMBER: _ClassVar[int]
    day_of_week: _dayofweek_pb2.DayOfWeek
    nth: int
    def __init__(self, day_of_week: _Optional[_Union[_dayofweek_pb2.DayOfWeek, str]] = ..., nth: _Optional[int] = ...) -> None: ...

class CalendarSpec(_message.Message):
    __slots__ = ("frequency", "times", "every", "days_of_week", "month_days", "nth_weekdays", "months", "from_date", "until_date", "count")
    class Frequency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FREQUENCY_UNSPECIFIED: _ClassVar[CalendarSpec.Frequency]
        DAILY: _ClassVar[CalendarSpec.Frequency]
        WEEKLY: _ClassVar[CalendarSpec.Frequency]
        MONTHLY: _ClassVar[CalendarSpec.Frequency]
        YEARLY: _ClassVar[CalendarSpec.Frequency]
    FREQUENCY_UNSPECIFIED: CalendarSpec.Frequency
    DAILY: CalendarSpec.Frequency
    WEEKLY: CalendarSpec.Frequency
    MONTHLY: CalendarSpec.Frequency
    YEARLY: CalendarSpec.Frequency
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    DAYS_OF_WEEK_FIELD_NUMBER: _ClassVar[int]
    MONTH_DAYS_FIELD_NUMBER: _ClassVar[int]
    NTH_WEEKDAYS_FIELD_NUMBER: _ClassVar[int]
    MONTHS_FIELD_NUMBER: _ClassVar[int]
    FROM_DATE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_DATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    frequency: CalendarSpec.Frequency
    times: _containers.RepeatedCompositeFieldContainer[_timeofday_pb2.TimeOfDay]
    every: int
    days_of_week: _containers.RepeatedScalarFieldContainer[_dayofweek_pb2.DayOfWeek]
    month_days: _containers.RepeatedScalarFieldContainer[int]
    nth_weekdays: _containers.RepeatedCompositeFieldContainer[NthWeekday]
    months: _containers.RepeatedScalarFieldContainer[int]
    from_date: _date_pb2.Date
    until_date: _date_pb2.Date
    count: int
    def __init__(self, frequency: _Optional[_Union[CalendarSpec.Frequency, str]] = ..., times: _Optional[_Iterable[_Union[_timeofday_pb2.TimeOfDay, _Mapping]]] = ..., every: _Optional[int] = ..., days_of_week: _Optional[_Iterable[_Union[_dayofweek_pb2.DayOfWeek, str]]] = ..., month_days: _Optional[_Iterable[int]] = ..., nth_weekdays: _Optional[_Iterable[_Union[NthWeekday, _Mapping]]] = ..., months: _Optional[_Iterable[int]] = ..., from_date: _Optional[_Union[_date_pb2.Date, _Mapping]] = ..., until_date: _Optional[_Union[_date_pb2.Date, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class RecurrenceSpec(_message.Message):
    __slots__ = ("cron", "interval", "calendar")
    CRON_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_FIELD_NUMBER: _ClassVar[int]
    cron: CronSpec
    interval: IntervalSpec
    calendar: CalendarSpec
    def __init__(self, cron: _Optional[_Union[CronSpec, _Mapping]] = ..., interval: _Optional[_Union[IntervalSpec, _Mapping]] = ..., calendar: _Optional[_Union[CalendarSpec, _Mapping]] = ...) -> None: ...

class UnionSpec(_message.Message):
    __slots__ = ("specs",)
    SPECS_FIELD_NUMBER: _ClassVar[int]
    specs: _containers.RepeatedCompositeFieldContainer[RecurrenceSpec]
    def __init__(self, specs: _Optional[_Iterable[_Union[RecurrenceSpec, _Mapping]]] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("delay",)
    DELAY_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    def __init__(self, delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DatesExclusion(_message.Message):
    __slots__ = ("dates",)
    DATES_FIELD_NUMBER: _ClassVar[int]
    dates: _containers.RepeatedCompositeFieldContainer[_date_pb2.Date]
    def __init__(self, dates: _Optional[_Iterable[_Union[_date_pb2.Date, _Mapping]]] = ...) -> None: ...

class PeriodExclusion(_message.Message):
    __slots__ = ("start_time", "end_time")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WindowExclusion(_message.Message):
    __slots__ = ("start", "end", "days_of_week")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    DAYS_OF_WEEK_FIELD_NUMBER: _ClassVar[int]
    start: _timeofday_pb2.TimeOfDay
    end: _timeofday_pb2.TimeOfDay
    days_of_week: _containers.RepeatedScalarFieldContainer[_dayofweek_pb2.DayOfWeek]
    def __init__(self, start: _Optional[_Union[_timeofday_pb2.TimeOfDay, _Mapping]] = ..., end: _Optional[_Union[_timeofday_pb2.TimeOfDay, _Mapping]] = ..., days_of_week: _Optional[_Iterable[_Union[_dayofweek_pb2.DayOfWeek, str]]] = ...) -> None: ...

class Exclusion(_message.Message):
    __slots__ = ("dates", "period", "window", "cron", "calendar")
    DATES_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_FIELD_NUMBER: _ClassVar[int]
    dates: DatesExclusion
    period: PeriodExclusion
    window: WindowExclusion
    cron: CronSpec
    calendar: str
    def __init__(self, dates: _Optional[_Union[DatesExclusion, _Mapping]] = ..., period: _Optional[_Union[PeriodExclusion, _Mapping]] = ..., window: _Optional[_Union[WindowExclusion, _Mapping]] = ..., cron: _Optional[_Union[CronSpec, _Mapping]] = ..., calendar: _Optional[str] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("time", "principal", "note")
    TIME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    principal: str
    note: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., principal: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("name", "uid", "display_name", "at_time", "after", "cron", "interval", "calendar", "union", "deployment", "time_zone", "start_time", "end_time", "max_firings", "jitter", "dst_policy", "catchup_policy", "catchup_window", "request", "state", "next_fire_time", "fired_count", "missed_count", "create_time", "update_time", "etag", "exclusions", "pause", "skipped_counts", "buffered_count", "remaining_count", "description", "time_zone_version")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Schedule.State]
        ACTIVE: _ClassVar[Schedule.State]
        COMPLETED: _ClassVar[Schedule.State]
        PAUSED: _ClassVar[Schedule.State]
    STATE_UNSPECIFIED: Schedule.State
    ACTIVE: Schedule.State
    COMPLETED: Schedule.State
    PAUSED: Schedule.State
    class SkippedCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    AT_TIME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_FIELD_NUMBER: _ClassVar[int]
    UNION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_FIRINGS_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    DST_POLICY_FIELD_NUMBER: _ClassVar[int]
    CATCHUP_POLICY_FIELD_NUMBER: _ClassVar[int]
    CATCHUP_WINDOW_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRED_COUNT_FIELD_NUMBER: _ClassVar[int]
    MISSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    BUFFERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_COUNT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    display_name: str
    at_time: _timestamp_pb2.Timestamp
    after: _duration_pb2.Duration
    cron: CronSpec
    interval: IntervalSpec
    calendar: CalendarSpec
    union: UnionSpec
    deployment: DeploymentSpec
    time_zone: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    max_firings: int
    jitter: _duration_pb2.Duration
    dst_policy: DstPolicy
    catchup_policy: CatchupPolicy
    catchup_window: _duration_pb2.Duration
    request: _any_pb2.Any
    state: Schedule.State
    next_fire_time: _timestamp_pb2.Timestamp
    fired_count: int
    missed_count: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    exclusions: _containers.RepeatedCompositeFieldContainer[Exclusion]
    pause: Pause
    skipped_counts: _containers.ScalarMap[str, int]
    buffered_count: int
    remaining_count: int
    description: str
    time_zone_version: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., display_name: _Optional[str] = ..., at_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cron: _Optional[_Union[CronSpec, _Mapping]] = ..., interval: _Optional[_Union[IntervalSpec, _Mapping]] = ..., calendar: _Optional[_Union[CalendarSpec, _Mapping]] = ..., union: _Optional[_Union[UnionSpec, _Mapping]] = ..., deployment: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., time_zone: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., max_firings: _Optional[int] = ..., jitter: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., dst_policy: _Optional[_Union[DstPolicy, str]] = ..., catchup_policy: _Optional[_Union[CatchupPolicy, str]] = ..., catchup_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., state: _Optional[_Union[Schedule.State, str]] = ..., next_fire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fired_count: _Optional[int] = ..., missed_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., exclusions: _Optional[_Iterable[_Union[Exclusion, _Mapping]]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ..., skipped_counts: _Optional[_Mapping[str, int]] = ..., buffered_count: _Optional[int] = ..., remaining_count: _Optional[int] = ..., description: _Optional[str] = ..., time_zone_version: _Optional[str] = ...) -> None: ...
