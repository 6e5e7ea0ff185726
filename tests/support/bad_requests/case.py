"""What a refused request is, and builders of such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import CronSpec, IntervalSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import (
    CreateJobRequest,
)

from tests.support.service import (
    SEND,
    at,
    message,
    packed,
    send_job,
    utc_now,
)

HOUR = timedelta(hours=1)
#: Jobs that every case finds there.
PRESENT, ENDED = "jobs/present", "jobs/ended"
UNKNOWN_ID = "e-01234567-89ab-7cde-8f01-23456789abcd"


@dataclass(frozen=True, slots=True)
class Case:
    """A request that is refused: with which code and reason, and which fields with which reasons."""

    name: str
    method: str
    request: Message | Callable[[], Message]
    fields: dict[str, str] | None = None
    code: str = "INVALID_ARGUMENT"
    reason: str = "INVALID_REQUEST"
    #: Words that the answer helps with.
    says: str = ""

    def made(self) -> Message:
        return self.request if isinstance(self.request, Message) else self.request()


def job(**fields: Any) -> CreateJobRequest:
    return CreateJobRequest(job=send_job(**fields))


def scheduled(schedule: Schedule | None = None, **fields: Any) -> CreateJobRequest:
    return CreateJobRequest(job=send_job(), schedule=schedule or Schedule(**fields))


def cron(expression: str, **fields: Any) -> CreateJobRequest:
    return scheduled(cron=CronSpec(expression=expression), **fields)


def every(seconds: int, nanos: int = 0, **more: Any) -> CreateJobRequest:
    return scheduled(interval=IntervalSpec(every=Duration(seconds=seconds, nanos=nanos), **more))


def calls(target: str, request: Message | None = None) -> CreateJobRequest:
    return CreateJobRequest(job=Job(target=target, request=packed(request or message())))


def carries(payload: PackedMessage) -> CreateJobRequest:
    return CreateJobRequest(job=Job(target=SEND, request=payload))


def ago(**span: float) -> Callable[[], Message]:
    return lambda: scheduled(at(utc_now() - timedelta(**span)))


def ahead(**span: float) -> Callable[[], Message]:
    return lambda: scheduled(at(utc_now() + timedelta(**span)))
