"""A worker process in pieces: the real engine and lease over the real stores, with a caller that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from scheduling.delivery.channels import Answer
from scheduling.delivery.database_clock import DatabaseClock
from scheduling.delivery.engine import Caller, DeliveryEngine, EngineSettings
from scheduling.dispatch.lease import Canceller, Lease
from scheduling.domain.execution import Claim, Outcome
from scheduling.domain.ids import uuid7
from scheduling.domain.retry import Code
from scheduling.domain.target import Queue
from scheduling.storage.breaking import BreakerStore
from scheduling.storage.leading import Beat, WorkerIdentity
from tests.support.builders import SEND
from tests.support.clock import FlowingClock
from tests.support.run import Signal
from tests.support.stores import Stores

OK = Answer(Code.OK)
#: Of a lease whose time a test holds in its hands; where time flows by itself, leases outlast whatever a machine takes.
TTL, LONG_TTL = timedelta(seconds=6), timedelta(hours=1)


class RecordingCaller:
    """Makes no calls: writes them down, and answers what it is told to. `cancelled` are those that were given up."""

    def __init__(self, answer: Callable[[str, int], Awaitable[Answer]] | None = None) -> None:
        self._answer = answer
        #: (idempotency key, attempt), in the order in which the calls began.
        self.calls: list[tuple[str, int]] = []
        self.metadata: list[Mapping[str, str]] = []
        self.cancelled: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.changed = Signal()
        self._open = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        """From now on calls wait until `open`."""
        self._open.clear()

    def open(self) -> None:
        """Lets the calls that wait, and all that come, go through."""
        self._open.set()

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all calls."""
        return [key for key, _ in self.calls]

    async def until(self, count: int) -> None:
        """Waits until that many calls have begun."""
        await self.changed.until(lambda: len(self.calls) >= count)

    async def call(
        self, method: str, request: bytes, timeout: timedelta, metadata: tuple[tuple[str, str], ...]
    ) -> Answer:
        """One call."""
        sent = dict(metadata)
        key, attempt = sent["idempotency-key"], int(sent["x-scheduling-attempt"])
        self.calls.append((key, attempt))
        self.metadata.append(sent | {"method": method, "request": request.hex(), "timeout": str(timeout)})
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.changed.notify()
        try:
            await self._open.wait()
            return OK if self._answer is None else await self._answer(key, attempt)
        except asyncio.CancelledError:
            self.cancelled.append(key)
            raise
        finally:
            self.under_way -= 1
            self.changed.notify()


class Witness:
    """An observer of the engine: what was claimed, begun, answered and recorded."""

    def __init__(self, changed: Signal | None = None) -> None:
        self.claimed_count = 0
        self.swept_count = 0
        self.lateness: list[float | None] = []
        self.codes: list[Code] = []
        self.outcomes: list[Outcome] = []
        self.changed = changed or Signal()

    def claimed(self, queue: Queue, count: int, *, swept: bool) -> None:
        """A claiming statement came back."""
        self.claimed_count += count
        self.swept_count += count if swept else 0
        self.changed.notify()

    def started(self, claim: Claim, lateness: float | None) -> None:
        """A call begins."""
        self.lateness.append(lateness)

    def answered(self, claim: Claim, code: Code, seconds: float) -> None:
        """A call has ended."""
        self.codes.append(code)
        self.changed.notify()

    def recorded(self, outcomes: Sequence[tuple[Claim | None, Outcome]]) -> None:
        """Outcomes are durable."""
        self.outcomes += [outcome for _, outcome in outcomes]
        self.changed.notify()

    async def until_recorded(self, count: int) -> list[Outcome]:
        """Waits until that many outcomes are durable."""
        await self.changed.until(lambda: len(self.outcomes) >= count)
        return self.outcomes


class EngineProcess:
    """Engine, lease and canceller of one worker. Its heartbeats are sent by the test, with `beat`.

    Several may share the signal `changed` of their witnesses.
    """

    def __init__(
        self,
        stores: Stores,
        caller: Caller,
        *,
        ttl: timedelta | None = None,
        slots: int = 100,
        changed: Signal | None = None,
        **settings: Any,
    ) -> None:
        self.stores = stores
        self.identity = WorkerIdentity(uuid7(stores.clock.now()), "host", 1, "test", tuple(Queue))
        self.witness = Witness(changed)
        clock = stores.clock
        self._ttl = ttl or (LONG_TTL if isinstance(clock, FlowingClock) else TTL)
        self.database_clock = DatabaseClock(clock)
        values: dict[str, Any] = {"slots": dict.fromkeys(Queue, slots), "targets": (SEND,), **settings}
        self.engine = DeliveryEngine(
            worker=self.identity.uid,
            store=stores.delivering,
            caller=caller,
            clock=clock,
            database_clock=self.database_clock,
            settings=EngineSettings(**values),
            observer=self.witness,
            breakers=BreakerStore(stores.database),
            chance=lambda: 0.0,
        )
        self.lease = Lease(
            self.engine, self._beat, self.database_clock, clock, beat=timedelta(seconds=1.5), cutoff=self._ttl * 0.75
        )
        self.canceller = Canceller(self.identity.uid, stores.delivering, self.engine)
        self._task: asyncio.Task[None] | None = None

    @property
    def uid(self) -> UUID:
        """The worker's id."""
        return self.identity.uid

    async def _beat(self, last_start: datetime | None) -> Beat:
        beat = await self.stores.leading.beat(self.identity, self._ttl, last_start)
        for queue, uid in (await self.stores.delivering.reserve_crashed(self.uid, tuple(Queue), (SEND,))).items():
            self.engine.isolate(queue, uid)
        return beat

    async def beat(self) -> None:
        """One heartbeat."""
        await self.lease.tick()

    async def hand_over(self, *uids: UUID, ready: datetime | None = None, queue: Queue = Queue.HIGH) -> None:
        """A message with these ids arrives."""
        await self.engine.hand_over(queue, [(uid, ready or self.stores.clock.now()) for uid in uids])

    async def die(self) -> None:
        """The process is gone, in the middle of whatever it does: nothing more is claimed, called or recorded."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for held in self.engine._held.values():
            if held.task is not None:
                held.task.cancel()
        await self.engine._calls.wait(10)

    async def __aenter__(self) -> Self:
        await self.beat()
        self._task = asyncio.create_task(self.engine.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.die()
