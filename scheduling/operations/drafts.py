"""What callers ask for, in the domain's words but not yet checked.

Made by the mapper of the transport, checked by `checks`. None means that the caller left a field out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta

from scheduling.domain.calendar import PlainExclusion
from scheduling.domain.job import OverlapPolicy
from scheduling.domain.target import AfterLostWorker, Queue
from scheduling.domain.timing import Calendar, CatchupPolicy, Cron, DstPolicy, Interval, OnDeployment, Union
from scheduling.domain.value import value


@value
class Payload:
    """A packed message: its type's full name (the part after the last `/` of the type URL) and its bytes."""

    type_name: str
    value: bytes = field(repr=False)


@value
class RetryDraft:
    """A retry policy with holes; the target's default fills them."""

    max_attempts: int | None = None
    initial_backoff: timedelta | None = None
    backoff_multiplier: float | None = None
    max_backoff: timedelta | None = None
    max_age: timedelta | None = None
    after_lost_worker: AfterLostWorker | None = None


#: The policy of those who say nothing of it: the target's own.
NOTHING_SAID = RetryDraft()


@value
class JobDraft:
    """A job as a caller describes it."""

    target: str = ""
    request: Payload | None = None
    display_name: str = ""
    queue: Queue | None = None
    retry: RetryDraft = NOTHING_SAID
    timeout: timedelta | None = None
    overlap_policy: OverlapPolicy | None = None
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@value
class AtTime:
    """Once, at an instant."""

    time: datetime


@value
class AfterDelay:
    """Once, this long after the call was accepted."""

    delay: timedelta


WhenDraft = AtTime | AfterDelay | Cron | Interval | Calendar | Union | OnDeployment


@value
class CalendarReference:
    """A shared calendar, by its id; found in the store when the schedule is checked."""

    calendar_id: str


ExclusionDraft = PlainExclusion | CalendarReference


@value
class ScheduleDraft:
    """A schedule as a caller describes it. `time_zone` empty means the default zone, `max_firings` 0 no limit.

    `when` is None only in updates that leave it as it is.
    """

    when: WhenDraft | None
    display_name: str = ""
    time_zone: str = ""
    start: datetime | None = None
    end: datetime | None = None
    max_firings: int = 0
    jitter: timedelta = timedelta(0)
    dst_policy: DstPolicy | None = None
    catchup_policy: CatchupPolicy | None = None
    catchup_window: timedelta | None = None
    request: Payload | None = None
    exclusions: tuple[ExclusionDraft, ...] = ()


@value
class CalendarDraft:
    """A shared calendar as a caller describes it. `time_zone` empty leaves its local times to the schedule's zone."""

    display_name: str = ""
    exclusions: tuple[PlainExclusion, ...] = ()
    time_zone: str = ""


@value
class CreateDraft:
    """One job to create, perhaps with its first schedule. `job_id` empty lets the service choose."""

    job: JobDraft
    job_id: str = ""
    schedule: ScheduleDraft | None = None


@value
class Repeat:
    """What makes a call safe to repeat: the caller's own id ("" for none) and a digest of the request's body."""

    request_id: str = ""
    digest: bytes = field(default=b"", repr=False)


@value
class ListQuery:
    """The common part of list calls."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""
    with_payload: bool = False
