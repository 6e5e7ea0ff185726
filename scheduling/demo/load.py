"""What the demo asks for: jobs as requests to the public API, and how each of them has to end. Pure.

The ids of requests begin with the name of what is to happen to them, since that is what the siblings' rules go by.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf import any_pb2
from google.protobuf.message import Message
from whispr.scheduling.v1 import job_pb2, schedule_pb2, scheduling_service_pb2, target_pb2
from whispr.siblings import auth_pb2, messaging_pb2, notification_pb2, user_pb2

from scheduling.demo.verdict import Asked, Due, Fate
from scheduling.domain.recurrence import fires_between
from scheduling.domain.timing import Cron, Interval, Timing

SEND = "messaging.MessagingService/SendScheduledMessage"
NOTIFY = "notification.NotificationService/SendDelayedNotification"
CLEAN_MESSAGES = "messaging.MessagingService/CleanupExpiredMessages"
CLEAN_SESSIONS = "auth.AuthService/CleanupExpiredSessions"
REPORT = "user.UserService/GenerateActivityReport"

#: Seconds that a slow call takes: longer than it takes to see it run and to kill its worker.
SLOW_SECONDS = 5.0
#: Seconds that a stuck call runs before it is cancelled.
STUCK_SECONDS = 1.0
#: What a target answers that fails for good, as the demo siblings say it.
PERMANENT_CODE, PERMANENT_TEXT = "INVALID_ARGUMENT", "the demo was told to answer INVALID_ARGUMENT"
#: How the siblings treat the calls that are not to go through at once. A slow call is quick when it is made again.
RULES = (
    f"{SEND} match=flaky-* times=2 code=UNAVAILABLE",
    f"{SEND} match=broken-* code={PERMANENT_CODE}",
    f"{SEND} match=stuck-* hang",
    f"{SEND} match=slow-* times=1 delay={SLOW_SECONDS:g}",
)
ZONES = (
    "Europe/Paris",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Auckland",
    "America/St_Johns",
    "Asia/Tokyo",
    "Africa/Lagos",
    "Australia/Lord_Howe",
)
#: Jobs of one owner, far below the daily quota of 1,000.
JOBS_PER_OWNER = 350
BATCH = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """A job that is to be created, and how it has to end; `asked.due` of a job after a delay counts from its creation.

    `cancel_at` is when it is to be cancelled, as a whole job or, with `cancel_execution`, its one execution.
    """

    request: scheduling_service_pb2.CreateJobRequest
    asked: Asked
    cancel_at: datetime | None = None
    cancel_execution: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole load. `first` is due at once; `singles` go through CreateJob, `batches` through BatchCreateJobs."""

    run: str
    start: datetime
    end: datetime
    kill_at: datetime
    owners: tuple[str, ...]
    zones: tuple[str, ...]
    first: Wish
    singles: tuple[Wish, ...]
    batches: tuple[tuple[Wish, ...], ...]

    @property
    def wishes(self) -> Iterator[Wish]:
        """Everything asked for."""
        yield self.first
        for batch in self.batches:
            yield from batch
        yield from self.singles

    @property
    def firings(self) -> int:
        """Executions that there have to be in the end."""
        return sum(max(len(wish.asked.due), 1) for wish in self.wishes)


class _Writer:
    """Writes wishes of one run, its owners in turn."""

    def __init__(self, run: str, owners: int) -> None:
        self.run = run
        self.owners = tuple(f"user-{run}-{number + 1}" for number in range(owners))
        self._owner = itertools.cycle(range(owners))
        self._number = itertools.count(1)
        self._chance = random.Random(run)

    def next_owner(self) -> tuple[str, ZoneInfo]:
        number = next(self._owner)
        return self.owners[number], ZoneInfo(ZONES[number % len(ZONES)])

    def between(self, start: datetime, end: datetime) -> datetime:
        return start + (end - start) * self._chance.random()

    def item(self, kind: str) -> str:
        return f"{kind}-{self.run}-{next(self._number):05d}"

    def wish(
        self,
        asked: Asked,
        owner: str,
        payload: Message,
        schedule: schedule_pb2.Schedule,
        *,
        cancel_at: datetime | None = None,
        cancel_execution: bool = False,
        **job: Any,
    ) -> Wish:
        packed = any_pb2.Any()
        packed.Pack(payload)
        request = scheduling_service_pb2.CreateJobRequest(
            job=job_pb2.Job(
                display_name=f"{asked.kind} {asked.item}",
                target=asked.method,
                request=packed,
                owner=owner,
                labels={"demo": self.run, "item": asked.item},
                **job,
            ),
            schedule=schedule,
            request_id=f"{self.run}:{asked.item}",
        )
        return Wish(request, asked, cancel_at, cancel_execution)

    def one_off(
        self,
        kind: str,
        word: str,
        moment: datetime,
        *,
        fate: Fate = Fate.DELIVERED,
        method: str = SEND,
        cancel_at: datetime | None = None,
        cancel_execution: bool = False,
        **job: Any,
    ) -> Wish:
        """A message or notification at the local time in its owner's zone that `moment` is."""
        owner, zone = self.next_owner()
        local = moment.astimezone(zone)
        local = local.replace(microsecond=local.microsecond // 1000 * 1000)
        item = self.item(word)
        error = (PERMANENT_CODE, PERMANENT_TEXT) if fate is Fate.FAILS else ("", "")
        asked = Asked(kind, item, method, fate, (Due.at(local.astimezone(UTC)),), recorded_id=item, error=error)
        schedule = schedule_pb2.Schedule(at_time=local, time_zone=zone.key)
        payload = _message(item, owner, local) if method == SEND else _notification(item, owner, local)
        return self.wish(asked, owner, payload, schedule, cancel_at=cancel_at, cancel_execution=cancel_execution, **job)

    def recurring(
        self, kind: str, word: str, method: str, timing: Timing, payload: Message, recorded_id: str, **job: Any
    ) -> Wish:
        """A job by cron or interval within its bounds, which lie ahead."""
        assert timing.start is not None
        assert timing.end is not None
        owner, _ = self.next_owner()
        schedule = schedule_pb2.Schedule(time_zone=timing.time_zone, start_time=timing.start, end_time=timing.end)
        match timing.when:
            case Cron(expression=expression):
                schedule.cron.expression = expression
            case Interval(every=every, phase=phase, anchor=anchor):
                schedule.interval.every.FromTimedelta(every)
                schedule.interval.phase.FromTimedelta(phase)
                if anchor is not None:
                    schedule.interval.anchor_time.FromDatetime(anchor)
        times = fires_between(timing, timing.start - timedelta(seconds=1), timing.end, 1000)
        asked = Asked(
            kind,
            self.item(word),
            method,
            Fate.DELIVERED,
            tuple(Due.at(time) for time in times),
            recorded_id=recorded_id,
            may_skip="overlap_policy" not in job,
        )
        return self.wish(asked, owner, payload, schedule, **job)


def make_plan(run: str, now: datetime, *, messages: int, seconds: float) -> Plan:
    """The load of a run: so many plain one-offs due within so many seconds, and everything else besides.

    The window begins as far ahead as creating should take; on a machine where it takes longer, the first are simply
    due when they are created.
    """
    window = timedelta(seconds=seconds)
    start = now + timedelta(seconds=1.5 + messages / 500)
    kill_at = start + window * 0.5
    special = _Counts.of(messages)
    writer = _Writer(run, max(4, -(-(messages + special.total) // JOBS_PER_OWNER)))
    quick = target_pb2.RetryPolicy()
    quick.initial_backoff.FromMilliseconds(200)
    singles = [
        *_recurring(writer, start, start + window),
        _report(writer, window * 0.4),
        *(
            writer.one_off(
                "stuck, cancelled while running",
                "stuck",
                start + window * 0.2,
                fate=Fate.STOPPED,
                cancel_at=start + window * 0.2 + timedelta(seconds=STUCK_SECONDS),
                cancel_execution=True,
            )
            for _ in range(special.stuck)
        ),
        *(
            writer.one_off(
                "cancelled before due",
                "withdrawn",
                writer.between(start + window * 0.7, start + window),
                fate=Fate.WITHDRAWN,
                method=NOTIFY if number % 2 else SEND,
                cancel_at=writer.between(start, start + window * 0.3),
                cancel_execution=number % 4 == 0,
            )
            for number in range(special.withdrawn)
        ),
        *(
            writer.one_off(
                "slow, as the worker is killed",
                "slow",
                # Due so shortly before that all are still under way then.
                writer.between(kill_at - timedelta(seconds=1.2), kill_at - timedelta(seconds=0.4)),
            )
            for _ in range(special.slow)
        ),
        *(
            writer.one_off(
                "target fails twice, recovers",
                "flaky",
                writer.between(start, start + window),
                fate=Fate.RECOVERS,
                retry_policy=quick,
            )
            for _ in range(special.flaky)
        ),
        *(
            writer.one_off("target fails for good", "broken", writer.between(start, start + window), fate=Fate.FAILS)
            for _ in range(special.broken)
        ),
    ]
    plain = sorted(
        (_plain(writer, number, start, window * (number / messages)) for number in range(messages)),
        key=lambda wish: wish.asked.due[0].earliest,
    )
    half = plain[1::2]
    return Plan(
        run=run,
        start=start,
        end=start + window,
        kill_at=kill_at,
        owners=writer.owners,
        zones=tuple(sorted({zone for zone, _ in zip(ZONES, writer.owners, strict=False)})),
        first=writer.one_off("messages", "hello", now),
        singles=(*singles, *plain[0::2]),
        batches=tuple(tuple(half[at : at + BATCH]) for at in range(0, len(half), BATCH)),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    stuck: int
    withdrawn: int
    slow: int
    flaky: int
    broken: int

    @classmethod
    def of(cls, messages: int) -> _Counts:
        return cls(
            stuck=3,
            withdrawn=max(12, messages // 50),
            slow=max(16, messages // 80),
            flaky=max(8, messages // 80),
            broken=max(5, messages // 130),
        )

    @property
    def total(self) -> int:
        return self.stuck + self.withdrawn + self.slow + self.flaky + self.broken


def _plain(writer: _Writer, number: int, start: datetime, offset: timedelta) -> Wish:
    moment = start + offset
    if number % 5 == 0:
        # People like round times: some are due together.
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    if number % 3 == 2:
        return writer.one_off("notifications", "note", moment, method=NOTIFY)
    return writer.one_off("messages", "message", moment)


def _recurring(writer: _Writer, start: datetime, end: datetime) -> list[Wish]:
    # Whole seconds, and at least one of them in between.
    first = start.replace(microsecond=0) + timedelta(seconds=1)
    last = max(end.replace(microsecond=0), first + timedelta(seconds=5))
    wishes = []
    for step, zone in ((2, "Asia/Kolkata"), (3, "America/St_Johns"), (5, "Europe/Paris")):
        item = f"digest-{writer.run}-{step}"
        # Only with the zone taken into account do these hours come at all.
        hours = ",".join(str(hour) for hour in sorted({_hour(moment, zone) for moment in (first, last)}))
        wishes.append(
            writer.recurring(
                "cron digest",
                f"digest{step}",
                NOTIFY,
                Timing(Cron(f"*/{step} * {hours} * * *"), time_zone=zone, start=first, end=last),
                notification_pb2.SendDelayedNotificationRequest(
                    notification_id=item,
                    user_id=f"reader-{writer.run}",
                    kind=notification_pb2.NOTIFICATION_KIND_DIGEST,
                    title="What happened lately",
                ),
                item,
                overlap_policy=job_pb2.ALLOW_ALL,
            )
        )
    for method, every, phase, payload in (
        (CLEAN_MESSAGES, 4, 0, messaging_pb2.CleanupExpiredMessagesRequest()),
        (CLEAN_SESSIONS, 3, 1, auth_pb2.CleanupExpiredSessionsRequest()),
    ):
        payload.older_than.FromTimedelta(timedelta(days=30))
        wishes.append(
            writer.recurring(
                "interval clean-up",
                f"cleanup{every}",
                method,
                Timing(
                    Interval(timedelta(seconds=every), timedelta(seconds=phase), first),
                    start=first,
                    end=last,
                ),
                payload,
                "",
            )
        )
    return wishes


def _hour(moment: datetime, zone: str) -> int:
    return moment.astimezone(ZoneInfo(zone)).hour


def _report(writer: _Writer, delay: timedelta) -> Wish:
    owner, zone = writer.next_owner()
    item = writer.item("report")
    asked = Asked("report, after a delay", item, REPORT, Fate.DELIVERED, (), recorded_id=item, delay=delay)
    payload = user_pb2.GenerateActivityReportRequest(
        report_id=item, kind=user_pb2.REPORT_KIND_USAGE, time_zone=zone.key, send_to=["team@example.org"]
    )
    return writer.wish(asked, owner, payload, schedule_pb2.Schedule(after=delay, time_zone=zone.key))


def _message(item: str, owner: str, local: datetime) -> messaging_pb2.SendScheduledMessageRequest:
    return messaging_pb2.SendScheduledMessageRequest(
        message_id=item,
        conversation_id=f"chat-of-{owner}",
        sender_id=owner,
        content=f"Written earlier, to arrive at {local:%H:%M:%S} ({local.tzname()}).",
    )


def _notification(item: str, owner: str, local: datetime) -> notification_pb2.SendDelayedNotificationRequest:
    return notification_pb2.SendDelayedNotificationRequest(
        notification_id=item,
        user_id=owner,
        kind=notification_pb2.NOTIFICATION_KIND_REMINDER,
        title=f"It is {local:%H:%M:%S}",
    )
