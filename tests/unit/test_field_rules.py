"""Looking requests over: what it clears, protovalidate clears too, and what is usual it clears."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from whispr.scheduling.v1 import operations_service_pb2, scheduling_service_pb2
from whispr.siblings import messaging_pb2

from scheduling import field_rules
from scheduling.delivery.targets import TargetTable

SERVICES = [
    scheduling_service_pb2.DESCRIPTOR.services_by_name["SchedulingService"],
    operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
]
TARGETS = TargetTable()
ALL: list[Any] = [method.input_type for service in SERVICES for method in service.methods]
ALL += [TARGETS.request_class(target.method).DESCRIPTOR for target in TARGETS]
TYPES = sorted({kind.full_name: kind for kind in ALL}.values(), key=lambda kind: str(kind.full_name))
VALIDATOR = protovalidate.Validator()

WORDS = ["", "a", "job-1", "9x", "A", "é" * 128, "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 201, "x" * 1001,
         "* * * * *", "a\n", "team", "Europe/Paris", "a-"]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 5, 6, 10, 11, 60, 86_400, 86_401, 1800, 1801, 2_592_001, 315_619_201, 2**31 - 1, -(2**31)]
REALS = [0.0, 1.0, -1.0, 0.5, 10.0, 10.5, float("nan"), float("inf")]


def one(field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
    """A value of the field, of those that rules tend to draw a line between."""
    if field.message_type is not None:
        return filled(field.message_type, chance, depth + 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        word = chance.choice(WORDS)
        return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice([0, 1, 2, 3, 99])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice(REALS)
    value = chance.choice(NUMBERS)
    unsigned = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    return abs(value) if unsigned else value


def filled(descriptor: Descriptor, chance: random.Random, depth: int = 0) -> Any:
    """A message with some of its fields set, sound or not."""
    message: Any = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if chance.random() < 0.4 + 0.15 * depth:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            if {entry["key"].type, entry["value"].type} != {FieldDescriptor.TYPE_STRING}:
                continue
            for _ in range(chance.choice([1, 2, 33])):
                getattr(message, field.name)[chance.choice(WORDS) + str(chance.random())[:3]] = chance.choice(WORDS)
        elif field.is_repeated:
            for _ in range(chance.choice([1, 1, 2, 21])):
                value = one(field, chance, depth)
                target = getattr(message, field.name)
                target.add().CopyFrom(value) if isinstance(value, Message) else target.append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(one(field, chance, depth))
        else:
            setattr(message, field.name, one(field, chance, depth))
    return message


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(TYPES))
def test_what_is_cleared_at_a_look_breaks_no_rule(seed: int, kind: Descriptor) -> None:
    message = filled(kind, random.Random(seed))
    violations = VALIDATOR.collect_violations(message)
    if field_rules.surely_sound(message):
        assert violations == []
    assert len(list(field_rules.broken(message))) == len(violations)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.full_name)
def test_an_empty_message_is_cleared_only_if_it_breaks_no_rule(kind: Descriptor) -> None:
    message = GetMessageClass(kind)()
    if field_rules.surely_sound(message):
        assert VALIDATOR.collect_violations(message) == []


def send(**fields: Any) -> messaging_pb2.SendScheduledMessageRequest:
    usual = {"message_id": "m", "conversation_id": "c", "sender_id": "u", "content": "hello"}
    return messaging_pb2.SendScheduledMessageRequest(**(usual | fields))


def create(**fields: Any) -> scheduling_service_pb2.CreateJobRequest:
    request = scheduling_service_pb2.CreateJobRequest(**fields)
    request.job.target = "messaging.MessagingService/SendScheduledMessage"
    request.job.request.Pack(send())
    return request


def test_usual_requests_are_cleared_at_a_look() -> None:
    now = datetime(2031, 7, 1, tzinfo=UTC)
    schedules: list[dict[str, Any]] = [
        {"at_time": now},
        {"after": timedelta(seconds=5)},
        {"cron": {"expression": "* * * * *"}, "time_zone": "Europe/Paris", "jitter": timedelta(seconds=3)},
        {"interval": {"every": timedelta(minutes=1)}},
    ]
    requests = [create(job_id="birthday-7", schedule=schedule, request_id="r-1") for schedule in schedules]
    requests.append(create(job={"owner": "u-1", "queue": 1, "retry_policy": {"max_attempts": 3}}))
    batch = scheduling_service_pb2.BatchCreateJobsRequest(requests=requests)
    for message in (*requests, batch, send(), send(recipient_ids=["a", "b"])):
        assert field_rules.surely_sound(message), message
        assert list(field_rules.broken(message)) == []


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (send(message_id=""), "string.min_len"),
        (send(content="x" * 10_001), "string.max_len"),
        (send(recipient_ids=["a", "a"]), "repeated.unique"),
        (create(job_id="a\n"), "string.pattern"),
        (create(job={"queue": 99}), "enum.defined_only"),
        (create(schedule={"after": timedelta(seconds=-1)}), "duration.gte_lte"),
        (create(job={"labels": {"Team": "x"}}), "string.pattern"),
        (create(schedule={"union": {"specs": [{}]}}), "required"),
        (scheduling_service_pb2.CreateJobRequest(), "required"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_a_rule_is_named_by_that_rule(message: Message, rule: str) -> None:
    assert rule in [found.proto.rule_id for found in field_rules.broken(message)]
