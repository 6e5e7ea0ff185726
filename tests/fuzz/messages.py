"""Requests: sensible ones that mostly succeed, random ones by the descriptor, and bytes that are no message at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from whispr.scheduling.v1 import operations_service_pb2, scheduling_service_pb2
from whispr.scheduling.v1.job_pb2 import Job
from whispr.scheduling.v1.schedule_pb2 import CalendarSpec, Schedule
from whispr.scheduling.v1.scheduling_service_pb2 import BatchCreateJobsRequest, CreateJobRequest, PreviewScheduleRequest
from whispr.scheduling.v1.target_pb2 import RetryPolicy
from whispr.siblings import messaging_pb2, notification_pb2

from tests.fuzz.values import CRONS, HOSTILE, INTEGERS, Known, moment, span, text

#: Deeper messages are left empty.
DEEPEST = 6
#: Members of a list that differ; longer lists repeat them.
DIFFERENT = 33

SERVICES = (
    scheduling_service_pb2.DESCRIPTOR.services_by_name["SchedulingService"],
    operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
)
#: Every method of the service, by its path.
METHODS: Mapping[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}
#: What stops everything else from meaning something when it succeeds, so it is asked for seldom.
SELDOM = frozenset({"PauseService", "PauseQueue", "PauseTarget", "EraseJobs", "BatchCancelJobs", "DeleteJob"})

CREATE = "/whispr.scheduling.v1.SchedulingService/CreateJob"
BATCH = "/whispr.scheduling.v1.SchedulingService/BatchCreateJobs"
PREVIEW = "/whispr.scheduling.v1.SchedulingService/PreviewSchedule"


class Writer:
    """Writes requests by chance. Two with the same seed, and the same answers in between, write the same."""

    def __init__(self, chance: random.Random, known: Known, now: Callable[[], datetime]) -> None:
        self._chance = chance
        self._known = known
        self._now = now

    def sensible(self, path: str) -> Message:
        """A request that has a good chance to be accepted."""
        if path == CREATE:
            return self.creation()
        if path == BATCH:
            count = self._chance.choice((1, 2, 5, 20, 100))
            asked = [self.creation() for _ in range(count)]
            for each in asked:
                each.request_id = ""
                each.validate_only = False
            return BatchCreateJobsRequest(requests=asked, request_id=self._maybe(f"b-{self._chance.randrange(10**6)}"))
        if path == PREVIEW and self._chance.random() < 0.7:
            return PreviewScheduleRequest(schedule=self.schedule(), page_size=self._chance.choice((0, 1, 10, 100)))
        return self.random(METHODS[path].input_type, sanity=1.0)

    def creation(self) -> CreateJobRequest:
        """A job with its first schedule, of any kind."""
        chance = self._chance
        request = CreateJobRequest(job=self.job(), request_id=self._maybe(f"r-{chance.randrange(10**6)}"))
        if chance.random() < 0.8:
            request.schedule.CopyFrom(self.schedule())
        if chance.random() < 0.3:
            request.job_id = f"j-{chance.randrange(20_000)}"
        request.validate_only = chance.random() < 0.05
        return request

    def job(self) -> Job:
        """A job for one of two targets."""
        chance = self._chance
        job = Job(owner=f"owner-{chance.randrange(300)}", target="messaging.MessagingService/SendScheduledMessage")
        payload: Message = messaging_pb2.SendScheduledMessageRequest(
            message_id=f"m-{chance.randrange(10**9)}", conversation_id="c", sender_id="u", content="hello"
        )
        if chance.random() < 0.2:
            job.target = "notification.NotificationService/CleanupNotificationHistory"
            cleanup = notification_pb2.CleanupNotificationHistoryRequest()
            cleanup.older_than.FromTimedelta(timedelta(days=30))
            payload = cleanup
        job.request.Pack(payload)
        if chance.random() < 0.3:
            job.labels["kind"] = chance.choice(("fuzz", "other"))
        if chance.random() < 0.3:
            job.retry_policy.CopyFrom(RetryPolicy(max_attempts=chance.choice((1, 2, 6))))
        return job

    def schedule(self) -> Schedule:
        """One of every kind, mostly in the future."""
        chance, schedule = self._chance, Schedule()
        kind = chance.randrange(6)
        if kind == 0:
            schedule.at_time.FromDatetime(self._now() + timedelta(seconds=chance.uniform(1, 10**6)))
        elif kind == 1:
            schedule.after.FromTimedelta(timedelta(seconds=chance.uniform(0, 10**5)))
        elif kind == 2:
            schedule.cron.expression = chance.choice(CRONS)
            schedule.time_zone = chance.choice(("UTC", "Europe/Paris"))
        elif kind == 3:
            schedule.interval.every.FromTimedelta(timedelta(seconds=chance.choice((1, 60, 3600, 86_400))))
        elif kind == 4:
            schedule.calendar.frequency = cast("CalendarSpec.Frequency", chance.choice((1, 2, 3, 4)))
            schedule.calendar.times.add(hours=chance.randrange(24))
        else:
            schedule.union.specs.add().cron.expression = chance.choice(CRONS)
            schedule.union.specs.add().interval.every.FromSeconds(3600)
        return schedule

    def random(self, descriptor: Descriptor, *, sanity: float, depth: int = 0) -> Message:
        """A message of this type whose fields are filled by chance; the higher `sanity`, the fewer of them."""
        message = message_factory.GetMessageClass(descriptor)()
        if depth > DEEPEST:
            return message
        for field in descriptor.fields:
            behaviour = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
            is_asked = bool({field_behavior_pb2.REQUIRED, field_behavior_pb2.IDENTIFIER}.intersection(behaviour))
            keep = 1 - 0.1 * (1 - sanity) if is_asked else 1.0 - sanity * 0.85
            if self._chance.random() > keep:
                continue
            if field.is_repeated:
                self._fill_list(message, field, sanity, depth)
            elif field.message_type is not None:
                getattr(message, field.name).CopyFrom(self._message(field.message_type, sanity, depth))
            else:
                setattr(message, field.name, self._scalar(field, sanity))
        return message

    def _message(self, descriptor: Descriptor, sanity: float, depth: int) -> Message:
        chance, name = self._chance, descriptor.full_name
        made: Any = message_factory.GetMessageClass(descriptor)()
        if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            is_moment = name.endswith("Timestamp")
            made.seconds, made.nanos = moment(chance, self._now()) if is_moment else span(chance)
            return cast("Message", made)
        if name == "google.protobuf.Any":
            return self._packed()
        if name == "google.protobuf.FieldMask":
            paths = ("display_name", "labels", "queue", "*", "request", "time_zone", "nope", "job.name", "")
            made.paths.extend(chance.choices(paths, k=chance.choice((0, 1, 1, 2, 5))))
            return cast("Message", made)
        if name == Schedule.DESCRIPTOR.full_name and chance.random() < sanity:
            schedule = self.schedule()
            schedule.name = text(chance, "name", self._known)
            return schedule
        if name == Job.DESCRIPTOR.full_name and chance.random() < sanity:
            job = self.job()
            job.name = self._known.any("jobs", chance)
            return job
        return self.random(descriptor, sanity=sanity, depth=depth + 1)

    def _packed(self) -> PackedMessage:
        chance = self._chance
        packed = PackedMessage()
        kind = chance.randrange(6)
        if kind < 3:
            packed.CopyFrom(self.job().request)
        elif kind == 3:
            packed.type_url = chance.choice(("type.googleapis.com/messaging.Nope", "x", "", *HOSTILE[:12]))
            packed.value = chance.randbytes(chance.choice((0, 1, 40)))
        else:
            packed.CopyFrom(self.job().request)
            packed.value = mutated(packed.value, chance)
        return packed

    def _fill_list(self, message: Message, field: FieldDescriptor, sanity: float, depth: int) -> None:
        chance = self._chance
        count = chance.choice((0, 1, 2, 3)) if chance.random() < 0.97 else chance.choice((33, 501, 1001))
        values = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            # The others are outputs.
            is_text = entry.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
            for n in range(min(count, 40) if is_text else 0):
                values[chance.choice(("kind", "Bad Key", f"k{n}", *HOSTILE[:6]))] = text(chance, "label", self._known)
        elif entry is not None:
            for _ in range(min(count, DIFFERENT)):
                values.append(self._message(entry, sanity, depth))
            # Long lists in long lists take the client long to make, and nobody sends anything meanwhile.
            values.extend([values[n % DIFFERENT] for n in range(count - DIFFERENT)])
        else:
            for _ in range(count):
                values.append(self._scalar(field, sanity))

    def _scalar(self, field: FieldDescriptor, sanity: float) -> Any:
        chance = self._chance
        reference = field.GetOptions().Extensions[resource_pb2.resource_reference]
        kind = (reference.type or reference.child_type).rpartition("/")[2].lower() + "s"
        if kind != "s" and chance.random() < sanity:
            return self._known.any("jobs" if reference.child_type else kind, chance)
        if field.type == FieldDescriptor.TYPE_STRING:
            return text(chance, field.name, self._known)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.choice((0, 8, 1000)))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.3
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return chance.choice((0.0, 1.0, 2.0, -1.0, 1e308, -1e308, float("nan"), float("inf"), 5e-324))
        if field.enum_type is not None:
            return chance.choice((*field.enum_type.values_by_number, 77))
        bits = 31 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
        least = 0 if field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64) else -(2**bits)
        return max(least, min(chance.choice(INTEGERS), 2**bits - 1))

    def _maybe(self, value: str) -> str:
        return value if self._chance.random() < 0.5 else ""


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """The bytes with some damage."""
    data = bytearray(raw or b"\x0a\x03abc")
    for _ in range(chance.choice((1, 1, 2, 8))):
        kind, at = chance.randrange(6), chance.randrange(len(data) or 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.choice((1, 4, 20)))
        elif kind == 3:
            data += b"\xff" * chance.choice((1, 11))
        elif kind == 4:
            data += data[:2000]
        else:
            # Groups that never end, a length that goes beyond the end, a field number of zero.
            data += chance.choice((b"\x0b" * 200, b"\x0a\xff\xff\xff\xff\x07", b"\x00\x01", b"\x0c"))
    return bytes(data)
