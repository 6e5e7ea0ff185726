"""What is asked for: scheduled messages of a thousand owners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice

from google.protobuf import any_pb2, timestamp_pb2
from whispr.scheduling.v1 import job_pb2, schedule_pb2, scheduling_service_pb2
from whispr.siblings import messaging_pb2

from bench.stack import Api

TARGET = "messaging.MessagingService/SendScheduledMessage"
OWNERS = 1000
BATCH = 1000


def request(number: int, due: datetime, prefix: str = "m") -> scheduling_service_pb2.CreateJobRequest:
    """CreateJob for one message, due at `due`."""
    message = messaging_pb2.SendScheduledMessageRequest(
        message_id=f"{prefix}-{number}",
        conversation_id=f"c-{number % 97}",
        sender_id=f"u-{number % OWNERS}",
        content="The quick brown fox jumps over the lazy dog. " * 3,
    )
    packed = any_pb2.Any()
    packed.Pack(message)
    at = timestamp_pb2.Timestamp()
    at.FromDatetime(due)
    return scheduling_service_pb2.CreateJobRequest(
        job=job_pb2.Job(target=TARGET, owner=f"u-{number % OWNERS}", request=packed),
        schedule=schedule_pb2.Schedule(at_time=at),
    )


async def create_all(api: Api, requests: Iterator[scheduling_service_pb2.CreateJobRequest]) -> int:
    """Creates all of them in batches; returns how many."""
    count = 0
    while batch := list(islice(requests, BATCH)):
        await api.scheduling.BatchCreateJobs(scheduling_service_pb2.BatchCreateJobsRequest(requests=batch), timeout=30)
        count += len(batch)
    return count


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
