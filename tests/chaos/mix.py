"""What a chaos run asks for: a mix of jobs as requests to the public API, and what may become of each."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from whispr.scheduling.v1 import job_pb2, schedule_pb2, scheduling_service_pb2, target_pb2
from whispr.siblings import auth_pb2, messaging_pb2, notification_pb2, user_pb2

SEND = "messaging.MessagingService/SendScheduledMessage"
NOTIFY = "notification.NotificationService/SendDelayedNotification"
REPORT = "user.UserService/GenerateActivityReport"
CLEAN = "auth.AuthService/CleanupExpiredSessions"

OWNERS = 400
#: How often each kind of one-off comes among a hundred. The siblings take 2 s for slow calls, 8 s for long ones and 4 s
#: for those that wait; they refuse flaky ones once.
SHARES = {"send": 48, "note": 22, "report": 10, "clean": 10, "once": 4, "slow": 2, "flaky": 2, "long": 1, "wait": 1}
#: Seconds that a call of a kind may take.
TIMEOUTS = {"slow": 10, "long": 15, "wait": 8}
TIMEOUT = 3
#: Recurring jobs that fire each second: so many may overlap with themselves, so many are skipped when they would.
STEADY, SKIPPING = 12, 8
LABEL = "item"


@dataclass(frozen=True, slots=True)
class Item:
    """One job asked for. `due` is when its only firing is, None for a recurring one."""

    name: str
    request: scheduling_service_pb2.CreateJobRequest
    due: float | None

    @property
    def kind(self) -> str:
        """What its name begins with."""
        return self.name.partition("-")[0]


class Mix:
    """Writes the jobs of one run, of these kinds; the same for the same seed."""

    def __init__(self, seed: int, kinds: Collection[str] = SHARES) -> None:
        self._chance = random.Random(seed)
        self._kinds = [kind for kind in kinds for _ in range(SHARES[kind])]
        self._number = 0

    def one_off(self, due: float) -> Item:
        """A job that is due at this second of the Unix epoch."""
        self._number += 1
        kind = self._chance.choice(self._kinds)
        name = f"{kind}-{self._number:06d}"
        owner = f"user-{self._number % OWNERS:03d}"
        moment = datetime.fromtimestamp(due, UTC)
        method, payload = _payload(kind, name, owner)
        request = _request(name, owner, method, payload, schedule_pb2.Schedule(at_time=moment))
        request.job.timeout.seconds = TIMEOUTS.get(kind, TIMEOUT)
        if kind == "once":
            request.job.retry_policy.max_attempts = 1
        if kind == "wait":
            request.job.retry_policy.after_lost_worker = target_pb2.WAIT_FOR_DEADLINE
        return Item(name, request, due)

    def recurring(self, start: float, end: float) -> Iterator[Item]:
        """Jobs that fire each second between these two."""
        for number in range(STEADY + SKIPPING):
            kind = "steady" if number < STEADY else "skipping"
            name = f"{kind}-{number:03d}"
            owner = f"team-{number}"
            method, payload = _payload("note" if number % 2 else "clean", name, owner)
            schedule = schedule_pb2.Schedule(
                start_time=datetime.fromtimestamp(start, UTC), end_time=datetime.fromtimestamp(end, UTC)
            )
            schedule.interval.every.FromTimedelta(timedelta(seconds=1))
            schedule.interval.phase.FromMilliseconds(number * 50)
            request = _request(name, owner, method, payload, schedule)
            request.job.timeout.seconds = TIMEOUT
            if kind == "steady":
                request.job.overlap_policy = job_pb2.ALLOW_ALL
            yield Item(name, request, None)


def _payload(kind: str, name: str, owner: str) -> tuple[str, Message]:
    match kind:
        case "note":
            return NOTIFY, notification_pb2.SendDelayedNotificationRequest(
                notification_id=name,
                user_id=owner,
                kind=notification_pb2.NOTIFICATION_KIND_REMINDER,
                title="Tomorrow at eight",
            )
        case "report":
            return REPORT, user_pb2.GenerateActivityReportRequest(
                report_id=name, kind=user_pb2.REPORT_KIND_USAGE, time_zone="UTC", send_to=["team@example.org"]
            )
        case "clean":
            request = auth_pb2.CleanupExpiredSessionsRequest()
            request.older_than.FromTimedelta(timedelta(days=30))
            return CLEAN, request
    return SEND, messaging_pb2.SendScheduledMessageRequest(
        message_id=name, conversation_id=f"chat-of-{owner}", sender_id=owner, content="See you at eight."
    )


def _request(
    name: str, owner: str, method: str, payload: Message, schedule: schedule_pb2.Schedule
) -> scheduling_service_pb2.CreateJobRequest:
    request = scheduling_service_pb2.CreateJobRequest(
        job=job_pb2.Job(target=method, owner=owner, labels={LABEL: name}), schedule=schedule, request_id=name
    )
    request.job.request.Pack(payload)
    policy = request.job.retry_policy
    policy.max_attempts = 6
    policy.initial_backoff.FromMilliseconds(1000)
    policy.max_backoff.FromMilliseconds(16_000)
    return request
