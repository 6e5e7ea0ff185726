"""The load of a chaos run: asks steadily, whatever happens, and repeats what was not answered with the same
`request_id`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2
from whispr.scheduling.v1 import scheduling_service_pb2, scheduling_service_pb2_grpc

from tests.chaos.mix import Item, Mix
from tests.chaos.stage import now, pause

#: Seconds between two ticks, and how many jobs of a tick are asked for one by one; the rest of it is one batch.
TICK, SINGLES = 0.1, 2
#: Seconds from asking to the time asked for.
AHEAD = 3.0
#: Seconds that an answer is waited for, and after which a request is given up.
CALL_SECONDS, GIVE_UP_SECONDS = 4.0, 50.0
#: Between two tries, unless the server says otherwise.
RETRY_SECONDS = 0.2


@dataclass(slots=True)
class Asked:
    """What was asked for and how it went. `accepted` holds the resource name of each job by its item's name."""

    items: dict[str, Item] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    conflicting: list[str] = field(default_factory=list)
    behind: float = 0.0


class Load:
    """Asks at the API servers in turn, over one channel each."""

    def __init__(self, addresses: Sequence[str], mix: Mix) -> None:
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for address in addresses]
        make: Any = scheduling_service_pb2_grpc.SchedulingServiceStub
        self._stubs = [make(channel) for channel in self._channels]
        self._turn = itertools.count()
        self._mix = mix
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = Asked()

    async def run(self, rate: int, seconds: float, over: asyncio.Event) -> None:
        """Asks for `rate` executions a second for so long and until the fault is over, each AHEAD of its time; returns
        when all is answered. Recurring jobs fire for so long only.
        """
        start = now()
        recurring = list(self._mix.recurring(start + AHEAD, start + AHEAD + seconds))
        self._ask("recurring", recurring)
        one_offs = max(rate - len(recurring), 1)
        done = 0
        for tick in itertools.count():
            if tick >= seconds / TICK and over.is_set():
                break
            moment = start + tick * TICK
            await pause(moment - now())
            self.asked.behind = max(self.asked.behind, now() - moment)
            due = int((tick + 1) * TICK * one_offs)
            items = [
                self._mix.one_off(moment + AHEAD + TICK * number / max(due - done, 1)) for number in range(due - done)
            ]
            done = due
            for item in items[:SINGLES]:
                self._ask(item.name, [item])
            if items[SINGLES:]:
                self._ask(f"batch-{tick}", items[SINGLES:])
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    def _ask(self, request_id: str, items: Sequence[Item]) -> None:
        self.asked.items |= {item.name: item for item in items}
        task = asyncio.create_task(self._until_answered(request_id, items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_answered(self, request_id: str, items: Sequence[Item]) -> None:
        request: Any = items[0].request
        if len(items) > 1:
            request = scheduling_service_pb2.BatchCreateJobsRequest(request_id=request_id)
            for item in items:
                request.requests.add().CopyFrom(item.request)
                request.requests[-1].ClearField("request_id")
        give_up = now() + GIVE_UP_SECONDS
        while True:
            stub = self._stubs[next(self._turn) % len(self._stubs)]
            method = stub.CreateJob if len(items) == 1 else stub.BatchCreateJobs
            try:
                answer = await method(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                wait = self._refused(error)
                if wait is None or now() > give_up:
                    self.asked.refused += [f"{item.name}: {error.code().name} {error.details()}" for item in items]
                    return
                self.asked.retried += 1
                await pause(wait)
                continue
            jobs = [answer] if len(items) == 1 else answer.jobs
            self.asked.accepted |= {item.name: job.name for item, job in zip(items, jobs, strict=True)}
            return

    def _refused(self, error: grpc.aio.AioRpcError) -> float | None:
        """How long to wait before the next try, None when there is none."""
        code, delay = error.code(), _retry_delay(error)
        told = "" if delay is None else " with RetryInfo"
        self.asked.codes[f"{code.name}{told}"] += 1
        if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            return None
        return RETRY_SECONDS if delay is None else min(delay, 1.0)


def _retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            info = error_details_pb2.RetryInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
    return None
