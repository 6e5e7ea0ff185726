"""Jobs, schedules and creations as tests need them: valid, and different only in what a test is about."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from whispr.siblings import messaging_pb2

from scheduling.domain.ids import uuid7
from scheduling.domain.job import Creation, JobSpec, NewJob, OverlapPolicy
from scheduling.domain.recurrence import jittered, next_fire
from scheduling.domain.schedule import NewSchedule
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.domain.timing import Cron, Interval, Once, Timing

PRINCIPAL = "spiffe://cluster.local/ns/whispr/sa/messaging-service"
SEND = "messaging.MessagingService/SendScheduledMessage"
SEND_REQUEST = "messaging.SendScheduledMessageRequest"
#: Backoff of a second, so that tests need not think in minutes.
QUICK = RetryPolicy(max_attempts=4, initial_backoff=timedelta(seconds=1), max_backoff=timedelta(seconds=8))
MINUTE = timedelta(minutes=1)

_numbers = itertools.count(1)


def send_request(message_id: str = "message-1") -> bytes:
    """A valid request for SEND."""
    request = messaging_pb2.SendScheduledMessageRequest(
        message_id=message_id,
        conversation_id="conversation-1",
        sender_id="user-1",
        recipient_ids=["user-2"],
        content="See you at eight.",
    )
    return request.SerializeToString()


def job_spec(
    *,
    owner: str = "user-1",
    target: str = SEND,
    request: bytes | None = None,
    request_type: str = SEND_REQUEST,
    queue: Queue = Queue.HIGH,
    policy: RetryPolicy = QUICK,
    timeout: timedelta = timedelta(seconds=30),
    overlap: OverlapPolicy | None = None,
    labels: Mapping[str, str] | None = None,
    retention_days: int | None = 30,
    display_name: str = "",
) -> JobSpec:
    """A checked job."""
    return JobSpec(
        display_name=display_name,
        target=target,
        request=send_request() if request is None else request,
        request_type=request_type,
        queue=queue,
        retry_policy=policy,
        timeout=timeout,
        overlap_policy=overlap,
        owner=owner,
        labels=labels or {},
        retention_days=retention_days,
    )


def new_job(
    now: datetime,
    *,
    job_id: str = "",
    principal: str = PRINCIPAL,
    schedule: NewSchedule | None = None,
    spec: JobSpec | None = None,
    **of_spec: Any,
) -> NewJob:
    """A job to store; further arguments are those of `job_spec`."""
    return NewJob(
        uid=uuid7(now),
        job_id=job_id or f"job-{next(_numbers)}",
        principal=principal,
        spec=spec or job_spec(**of_spec),
        schedule=schedule,
    )


def once(now: datetime, time: datetime | None = None, *, schedule_id: str = "", **more: Any) -> NewSchedule:
    """A one-off at `time`, which is `now` unless given; further arguments are those of NewSchedule."""
    at = time or now
    return NewSchedule(
        uid=uuid7(now),
        schedule_id=schedule_id or f"schedule-{next(_numbers)}",
        display_name="",
        timing=Timing(Once(at)),
        first_fire=at,
        first_ready=at,
        accept_time=now,
        plan_uid=uuid7(now),
        **more,
    )


def every(
    now: datetime, when: Cron | Interval | timedelta = MINUTE, *, schedule_id: str = "", **timing: Any
) -> NewSchedule:
    """A recurring schedule; a timedelta is an interval that fires that long after `now` first. Further arguments are
    those of Timing.
    """
    spec = Interval(when, anchor=now) if isinstance(when, timedelta) else when
    rule = Timing(spec, **timing)
    first = next_fire(rule, now)
    assert first is not None
    uid = uuid7(now)
    return NewSchedule(
        uid=uid,
        schedule_id=schedule_id or f"schedule-{next(_numbers)}",
        display_name="",
        timing=rule,
        first_fire=first,
        first_ready=jittered(rule, uid, first),
        accept_time=now,
        plan_uid=uuid7(now),
    )


def creation(*jobs: NewJob, request_id: str = "", digest: bytes = b"digest") -> Creation:
    """One accepted call that creates these jobs, by the principal of the first."""
    return Creation(jobs[0].principal, jobs, request_id, digest)
