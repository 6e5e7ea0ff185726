"""Sends generated requests to a server, many at a time, and counts what it answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tests.fuzz.messages import BATCH, CREATE, METHODS, SELDOM, Writer, mutated
from tests.fuzz.values import HOSTILE, Known
from tests.support.service import utc_now

#: Seconds for an answer. What takes longer is counted as DEADLINE_EXCEEDED and told apart from those that asked for it.
PATIENCE = 60.0
#: Requests under way at once.
IN_FLIGHT = 24
#: Codes that are never the right answer to a caller.
WRONG = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
#: Codes that the service itself answers with, always with details.
OURS = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "PERMISSION_DENIED"}
)
#: What gRPC refuses before the service sees it.
GRPC_LIMIT = 8 * 1024 * 1024
#: Paths that are no methods of ours, and those that every gRPC server here has.
OTHERS = (
    "/whispr.scheduling.v1.SchedulingService/Nope",
    "/nope.Nope/Nope",
    "/grpc.health.v1.Health/Check",
    "/grpc.channelz.v1.Channelz/GetServers",
    "/grpc.channelz.v1.Channelz/GetChannel",
    "/grpc.channelz.v1.Channelz/GetSocket",
)


@dataclass(slots=True)
class Probe:
    """A creation of `count` jobs that nothing else in the run touches; `code` is its answer."""

    owner: str
    count: int
    code: str = ""


@dataclass(slots=True)
class Tally:
    """What came back."""

    codes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Requests that have been answered, or given up as they were meant to be."""
        return sum(self.kinds.values())


class Driver:
    """Sends requests over one channel; the mix of kinds is in `_one`."""

    def __init__(self, address: str, seed: int) -> None:
        self._chance = random.Random(seed)
        self.known = Known()
        self._writer = Writer(self._chance, self.known, utc_now)
        self.tally = Tally()
        self._paths = [path for path in METHODS if path.rpartition("/")[2] not in SELDOM]
        self._seldom = [path for path in METHODS if path.rpartition("/")[2] in SELDOM]
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.enable_retries", 0),
            ],
        )

    async def run(self, count: int, told: Callable[[Tally], None]) -> None:
        """Sends so many; `told` hears of the tally about every hundredth part of them."""
        left = count

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._one()
                if self.tally.count % max(count // 100, 1) == 0:
                    told(self.tally)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _one(self) -> None:
        chance, draw = self._chance, self._chance.random()
        # One of fifty methods by chance, but creations often: without them nothing else has anything to work on.
        path = CREATE if draw < 0.12 else BATCH if draw < 0.14 else chance.choice(self._paths)
        if chance.random() < 0.004:
            path = chance.choice(self._seldom)
        kind = chance.choices(
            ("sensible", "random", "bytes", "hostile", "cancelled", "expired", "huge", "large", "probe", "other"),
            (50, 20, 14, 6, 3, 3, 0.05, 0.4, 0.6, 1.5),
        )[0]
        if kind == "probe":
            await self._probe()
        elif kind == "other":
            await self._send(kind, chance.choice(OTHERS), chance.choice((b"", b"\x08\x01", chance.randbytes(20))))
        elif kind == "huge":
            await self._send(kind, path, b"\x12" + b"\xff\xff\xff\x07" + b"x" * (GRPC_LIMIT + 1000))
        elif kind == "large":
            request = self._writer.creation()
            request.job.request.value += b"\x2a\xc0\x84\x3d" + b"x" * 1_000_000
            await self._send(kind, CREATE, request.SerializeToString())
        elif kind in ("random", "hostile"):
            await self._send(kind, path, self._odd(path, kind).SerializeToString())
        elif kind == "bytes":
            raw = self._writer.sensible(path).SerializeToString()
            await self._send(kind, path, chance.randbytes(60) if chance.random() < 0.2 else mutated(raw, chance))
        else:
            await self._send(kind, path, self._writer.sensible(path).SerializeToString())

    def _odd(self, path: str, kind: str) -> Message:
        if kind == "random":
            return self._writer.random(METHODS[path].input_type, sanity=self._chance.choice((0.0, 0.3, 0.7)))
        message = self._writer.sensible(path)
        texts = [(owner, name) for owner, name in _texts(message, 0)]
        if texts:
            owner, name = self._chance.choice(texts)
            setattr(owner, name, self._chance.choice(HOSTILE))
        return message

    async def _probe(self) -> None:
        """A batch of its own owner, sometimes given up before its answer: either all of it is there afterwards, or
        nothing.
        """
        probe = Probe(f"probe-{len(self.tally.probes)}", self._chance.choice((2, 10, 50)))
        self.tally.probes.append(probe)
        request: Any = message_factory.GetMessageClass(METHODS[BATCH].input_type)()
        for n in range(probe.count):
            each = self._writer.creation()
            each.ClearField("job_id")
            each.ClearField("request_id")
            each.ClearField("validate_only")
            each.job.owner = probe.owner
            each.job.labels.clear()
            if n == probe.count - 1 and self._chance.random() < 0.3:
                each.job.target = "messaging.MessagingService/Nope"
            request.requests.append(each)
        timeout = PATIENCE if self._chance.random() < 0.5 else self._chance.uniform(0.001, 0.05)
        probe.code = await self._call("probe", BATCH, request.SerializeToString(), timeout)

    async def _send(self, kind: str, path: str, raw: bytes) -> None:
        timeout = self._chance.choice((0.000_001, 0.001, 0.003, 0.01)) if kind == "expired" else PATIENCE
        if kind == "cancelled":
            await self._give_up(path, raw)
            self._count(kind, path, "CANCELLED")
            return
        await self._call(kind, path, raw, timeout)

    async def _give_up(self, path: str, raw: bytes) -> None:
        call = self._method(path)(raw, timeout=PATIENCE)
        await asyncio.sleep(self._chance.choice((0, 0.001, 0.005, 0.02)))  # noqa: TID251 - a real client
        call.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            if _streams(path):
                async for _ in call:
                    pass
            else:
                await call

    def _method(self, path: str) -> Any:
        kind = self._channel.unary_stream if _streams(path) else self._channel.unary_unary
        return kind(path)

    async def _call(self, kind: str, path: str, raw: bytes, timeout: float) -> str:
        try:
            if _streams(path):
                call = self._method(path)(raw, timeout=min(timeout, 1.0))
                async for answer in call:
                    self._learn(path, answer)
            else:
                self._learn(path, await self._method(path)(raw, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            code = str(error.code().name)
            self._judge(kind, path, error, timeout)
        else:
            code = "OK"
        self._count(kind, path, code)
        return code

    def _count(self, kind: str, path: str, code: str) -> None:
        self.tally.codes[code] += 1
        self.tally.kinds[kind] += 1
        if code in WRONG:
            self.tally.wrong.append(f"{code} to {kind} of {path}")

    def _judge(self, kind: str, path: str, error: grpc.aio.AioRpcError, timeout: float) -> None:
        code = error.code().name
        if code in WRONG:
            self.tally.wrong.append(f"{path} ({kind}): {code} {error.details()!r}")
        if code == "DEADLINE_EXCEEDED" and timeout == PATIENCE and not _streams(path):
            self.tally.slow.append(path)
        if code in OURS and path in METHODS and not _has_error_info(error):
            self.tally.wrong.append(f"{path} ({kind}): {code} without ErrorInfo")

    def _learn(self, path: str, raw: bytes) -> None:
        method = METHODS.get(path)
        if method is None or len(raw) > 200_000:
            return
        answer = message_factory.GetMessageClass(method.output_type).FromString(raw)
        for name in ("next_page_token", "resume_token"):
            if value := getattr(answer, name, ""):
                self.known.add(name.removeprefix("next_"), value)
        items = [answer]
        for listed in method.output_type.fields:
            if listed.is_repeated and listed.message_type is not None:
                items += list(getattr(answer, listed.name))[:20]
        for item in items:
            name = getattr(item, "name", "")
            if isinstance(name, str) and "/" in name and "probe-" not in str(getattr(item, "owner", "")):
                self.known.add(name.split("/")[-2], name)
                self.known.add("etag", getattr(item, "etag", ""))


def _streams(path: str) -> bool:
    return path in METHODS and METHODS[path].server_streaming


def _texts(message: Message, depth: int) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for field_, value in message.ListFields():
        if field_.is_repeated or depth > 4:
            continue
        if field_.type == field_.TYPE_STRING:
            found.append((message, field_.name))
        elif field_.message_type is not None:
            found += _texts(value, depth + 1)
    return found


def _has_error_info(error: grpc.aio.AioRpcError) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            details = status_pb2.Status.FromString(value).details
            return any(each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for each in details)
    return False
