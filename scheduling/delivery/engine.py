"""The delivery engine of one process: holds ids until their moment, claims, calls, records.

Ids come in ahead of their time. A few milliseconds before a moment, all that fall together are claimed in one
statement; the calls go out at the moment, concurrently within the slots of their queue; outcomes are recorded in
batches. While there is more to do than slots, what the next free slots will take is claimed beforehand, so that none
waits for a statement. Nothing here is remembered beyond the process: what is lost with it is found again by its lease.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from uuid import UUID, uuid4

from scheduling.delivery.brakes import Brakes
from scheduling.delivery.channels import Answer
from scheduling.delivery.database_clock import DatabaseClock
from scheduling.delivery.lanes import AHEAD_SLOTS, Held, Lane
from scheduling.delivery.outcomes import Outcomes
from scheduling.delivery.recorder import Breakers, Recorder
from scheduling.delivery.tasks import TaskGroup
from scheduling.domain.breaker import DOWN_CODES
from scheduling.domain.cancelling import raise_if_cancelled
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import LATEST_BEGIN, Claim, Outcome, Reason
from scheduling.domain.ids import uuid4s
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code
from scheduling.domain.target import Queue
from scheduling.telemetry.logs import log_event
from scheduling.telemetry.traces import new_header

_log = logging.getLogger(__name__)

_LATEST_BEGIN = LATEST_BEGIN.total_seconds()

#: Seconds to the next try after an unexpected error, as in every background loop.
AFTER_ERROR = 0.5
#: Seconds between two sweeps while more is overdue than there are free slots.
SWEEP_AGAIN = 0.02
#: Seconds that a claiming statement may still take when the process stops: its own timeout, and a connection.
CLAIM_SECONDS = 3.0
#: Seconds for what is cancelled at the end of a drain to end, and for its outcomes to be recorded.
LAST_SECONDS = 5.0
#: What was claimed ahead and has found no slot within so many seconds is given back: the target has become slow.
AHEAD_PATIENCE = 0.5


class Store(Protocol):
    """What the engine writes, guarded by claim tokens. Every call may raise StoreUnavailable."""

    async def claim_if_queued(
        self,
        worker: UUID,
        uids: Sequence[UUID],
        tokens: Sequence[UUID],
        lead: timedelta,
        *,
        alone: bool = False,
        avoid: Sequence[str] = (),
    ) -> Sequence[Claim]: ...

    async def claim_overdue(
        self, worker: UUID, queue: Queue, tokens: Sequence[UUID], after: timedelta, targets: Sequence[str]
    ) -> Sequence[Claim]: ...

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]: ...


class Caller(Protocol):
    """Makes one call to a sibling; never raises for what the sibling does."""

    async def call(
        self, method: str, request: bytes, timeout: timedelta, metadata: tuple[tuple[str, str], ...]
    ) -> Answer: ...


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def claimed(self, queue: Queue, count: int, *, swept: bool) -> None: ...

    def started(self, claim: Claim, lateness: float | None) -> None: ...

    def answered(self, claim: Claim, code: Code, seconds: float) -> None: ...

    def recorded(self, outcomes: Sequence[tuple[Claim | None, Outcome]]) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much the engine does at once, and when."""

    slots: Mapping[Queue, int]
    targets: tuple[str, ...]
    capacity: int = 10_000
    claim_lead: timedelta = timedelta(milliseconds=20)
    sweep_after: timedelta = timedelta(milliseconds=250)
    #: How much work, in time at the present pace, is claimed before a slot is free for it.
    claim_ahead: timedelta = timedelta(milliseconds=100)
    record_batch: int = 500
    record_gap: timedelta = timedelta(milliseconds=50)


class DeliveryEngine:
    """Delivers what is handed to it. `run` works until cancelled; `drain` ends it gently."""

    def __init__(
        self,
        worker: UUID,
        store: Store,
        caller: Caller,
        clock: Clock,
        database_clock: DatabaseClock,
        settings: EngineSettings,
        observer: Observer,
        breakers: Breakers,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._worker = worker
        self._store = store
        self._caller = caller
        self._clock = clock
        self._database_clock = database_clock
        self._settings = settings
        self._observer = observer
        self._outcomes = Outcomes(worker, database_clock, chance)
        self._brakes = Brakes()
        self._recorder = Recorder(
            store, breakers, self._brakes, observer, clock, batch=settings.record_batch, gap=settings.record_gap
        )
        self._lanes = {queue: Lane(queue, slots, slots) for queue, slots in settings.slots.items()}
        self._room = asyncio.Condition()
        self._held: dict[UUID, Held] = {}
        self._claiming: set[UUID] = set()
        self._unanswered: set[UUID] = set()
        self._progress = asyncio.Event()
        self._calls = TaskGroup()
        self._draining = False
        self._lease_until = float("-inf")
        self.last_start: datetime | None = None

    # --- what others see and say --------------------------------------------------------------------------------------

    @property
    def tokens(self) -> frozenset[UUID]:
        """The claim tokens that this process holds, or is about to."""
        return self._recorder.tokens.union(self._held, self._claiming)

    @property
    def held(self) -> frozenset[UUID]:
        """The claim tokens whose calls are under way or about to begin."""
        return frozenset(self._held)

    def suspect(self, services: frozenset[str]) -> None:
        """The breakers of these services, and of no others, want to hear of successes too."""
        self._recorder.suspects = services

    @property
    def unanswered(self) -> frozenset[UUID]:
        """The tokens of claims that failed: perhaps they went through all the same."""
        return frozenset(self._unanswered)

    def forget_unanswered(self, tokens: Iterable[UUID]) -> None:
        """These have been looked for."""
        self._unanswered.difference_update(tokens)

    def waiting(self, queue: Queue) -> int:
        """How many ids of a queue wait for their moment."""
        return len(self._lanes[queue].waiting) if queue in self._lanes else 0

    def in_flight(self, queue: Queue) -> int:
        """How many executions of a queue are claimed and not yet answered."""
        return self._settings.slots[queue] - self._lanes[queue].free if queue in self._lanes else 0

    def renew_lease(self, until: float) -> None:
        """The process may start and continue calls until that monotonic second."""
        self._lease_until = until

    def has_lease(self) -> bool:
        """Whether PostgreSQL still counts this process among the living, as far as it knows."""
        return self._clock.monotonic() < self._lease_until

    def cut_off(self) -> None:
        """Cancels all running calls: the lease nears its end, and somebody else may soon make the same calls."""
        self._cancel_all(self._held, Reason.LEASE_LOST)

    def cancel(self, tokens: Iterable[UUID]) -> None:
        """Cancels the calls of these claims at a caller's wish."""
        self._cancel_all(tokens, Reason.CALLER)

    def lose(self, tokens: Iterable[UUID]) -> None:
        """Cancels the calls of these claims: somebody else has taken their executions over."""
        self._cancel_all(tokens, Reason.LEASE_LOST)

    def _cancel_all(self, tokens: Iterable[UUID], reason: Reason) -> None:
        for token in tokens:
            held = self._held.get(token)
            if held is not None and not held.cancelled_by:
                held.cancelled_by = reason
                # A task that is cancelled before its first step never takes it: it could neither give its slot back nor
                # settle. It finds the mark instead.
                if held.task is not None and held.is_running:
                    held.task.cancel()

    def isolate(self, queue: Queue, uid: UUID) -> None:
        """Runs an execution that has crashed processes, and nothing else of its queue beside it. One at a time; while
        it waits and runs, the others of the queue are left to other workers.
        """
        lane = self._lanes.get(queue)
        if lane is not None and not self._is_isolating(lane):
            lane.isolated = uid
            lane.changed.set()

    def _is_isolating(self, lane: Lane) -> bool:
        if lane.is_alone and lane.free == lane.slots:
            lane.is_alone = False
        return lane.isolated is not None or lane.is_alone

    async def hand_over(self, queue: Queue, items: Sequence[tuple[UUID, datetime]]) -> None:
        """Takes ids with their ready times. Waits while the engine is full, which is the back-pressure on the queue."""
        lane = self._lanes.get(queue)
        if lane is None:
            return
        async with self._room:
            await self._room.wait_for(lambda: self._draining or self._size() < self._settings.capacity)
        if self._draining:
            # The rows stay QUEUED; another worker finds them.
            return
        for uid, ready in items:
            if uid not in lane.known:
                lane.known.add(uid)
                lane.taken += 1
                heapq.heappush(lane.waiting, (ready, lane.taken, uid))
        lane.changed.set()

    def give_back(self, claims: Iterable[tuple[UUID, UUID]], now: datetime) -> None:
        """Returns executions, by (token, uid), that PostgreSQL believes to run here and do not.

        Their calls never began, unless this process remembers one whose outcome was refused: that one counts.
        """
        for token, uid in claims:
            refused = self._recorder.refused.pop(token, None)
            if refused is None:
                self._recorder.add(None, Outcome(uid, token, State.PENDING, Reason.NOT_BEGUN, now, None, None))
            else:
                self._recorder.add(refused[0], self._outcomes.unknown(*refused, now))

    # --- work ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claims, calls and records until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes.values():
                group.create_task(self._repeat("engine_claim", partial(self._claim_due, lane)))
                group.create_task(self._repeat("engine_sweep", partial(self._sweep, lane)))
            group.create_task(self._repeat("engine_record", partial(self._recorder.step, self._progress.set)))

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Takes `step` again and again, whatever goes wrong: an engine without its loops would still look alive."""
        is_failing = False
        while True:
            raise_if_cancelled()
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - a loop outlives the failure of one step
                is_failing = True
                log_event(_log, logging.ERROR, "loop_failed", loop=name, problem=type(error).__name__, exc_info=error)
                await self._clock.sleep(AFTER_ERROR)
                continue
            if is_failing:
                is_failing = False
                log_event(_log, logging.INFO, "loop_recovered", loop=name)

    def take_waiting(self) -> dict[Queue, list[tuple[UUID, datetime]]]:
        """Takes out the ids that wait for their moment, with their ready times, for somebody else to deliver."""
        taken: dict[Queue, list[tuple[UUID, datetime]]] = {}
        for lane in self._lanes.values():
            if lane.waiting:
                taken[lane.queue] = [(uid, ready) for ready, _, uid in lane.waiting]
            lane.waiting.clear()
            lane.known.clear()
        return taken

    async def drain(self, grace: timedelta) -> None:
        """Claims nothing more, begins no call, lets running ones end within `grace`, cancels the rest, and records
        everything.
        """
        self._draining = True
        async with self._room:
            self._room.notify_all()
        self._cancel_all([token for token, held in self._held.items() if held.start is None], Reason.NOT_BEGUN)
        for lane in self._lanes.values():
            self._return_ahead(lane, float("inf"))
        # Claims that are under way may still bring executions, which are then given back.
        await self._until(lambda: not self._claiming, CLAIM_SECONDS)
        await self._calls.wait(grace.total_seconds())
        self._cancel_all(self._held, Reason.SHUTDOWN)
        await self._until(lambda: not (self._claiming or self._held or self._recorder), LAST_SECONDS)
        if self._held or self._recorder:
            log_event(_log, logging.WARNING, "outcomes_left", count=len(self._held) + len(self._recorder))

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Waits until `holds()`, at most that long; looks when a claim, a call or a recording has ended."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return

    def _size(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    async def _claim_due(self, lane: Lane) -> None:
        """Waits for the next moment of a queue and claims what falls together there."""
        lane.changed.clear()
        if lane.isolated is not None and lane.free == lane.slots and self.has_lease() and not self._draining:
            await self._claim_alone(lane, lane.isolated)
            return
        pause = self._pause(lane)
        if pause is None or pause > 0:
            await self._wait(lane.changed, pause)
            return
        uids = self._take_due(lane)
        tokens = uuid4s(len(uids))
        claims = await self._claim(
            lane,
            tokens,
            partial(
                self._store.claim_if_queued,
                self._worker,
                uids,
                tokens,
                self._settings.claim_lead,
                avoid=self._brakes.untold,
            ),
        )
        self._observer.claimed(lane.queue, len(claims), swept=False)

    async def _claim_alone(self, lane: Lane, uid: UUID) -> None:
        lane.isolated, lane.is_alone = None, True
        token = uuid4()
        claim = partial(
            self._store.claim_if_queued, self._worker, [uid], [token], self._settings.claim_lead, alone=True
        )
        await self._claim(lane, [token], claim)

    def _pause(self, lane: Lane) -> float | None:
        """Seconds until something is to be claimed; None when only a change can bring it about."""
        if self._draining:
            return None
        if self._is_isolating(lane):
            return 0.1 if lane.free == lane.slots else None
        if not lane.waiting or self._room_in(lane) <= 0:
            return None
        if not self.has_lease():
            return 0.1
        lead = self._settings.claim_lead.total_seconds()
        return self._database_clock.seconds_until(lane.waiting[0][0]) - lead

    def _room_in(self, lane: Lane) -> int:
        return lane.room(self._clock.monotonic(), self._settings.claim_ahead.total_seconds())

    def _take_due(self, lane: Lane) -> list[UUID]:
        horizon = self._database_clock.now() + self._settings.claim_lead
        room = self._room_in(lane)
        if self._brakes.untold:
            # What is for a service that has just failed is passed over, and may be all that there is for a while: so
            # many are looked through as may ever be claimed ahead.
            room = max(room, AHEAD_SLOTS * lane.slots)
        uids: list[UUID] = []
        while lane.waiting and len(uids) < room and lane.waiting[0][0] <= horizon:
            _, _, uid = heapq.heappop(lane.waiting)
            lane.known.discard(uid)
            uids.append(uid)
        return uids

    async def _sweep(self, lane: Lane) -> None:
        """Finds what is queued and overdue: its message was lost, or Redis is down. Where there was more than slots,
        the next look comes as soon as there are some; not while there is work at hand, which it would find too.
        """
        is_urgent = lane.has_backlog and not lane.waiting
        await self._clock.sleep(SWEEP_AGAIN if is_urgent else self._settings.sweep_after.total_seconds())
        self._return_ahead(lane, self._clock.monotonic() - AHEAD_PATIENCE)
        # Also while others wait for their moment here: under a steady load there is always one that does.
        if lane.free <= 0 or self._draining or not self.has_lease() or self._is_isolating(lane):
            return
        tokens = uuid4s(lane.free)
        settings = self._settings
        claims = await self._claim(
            lane,
            tokens,
            partial(
                self._store.claim_overdue, self._worker, lane.queue, tokens, settings.sweep_after, settings.targets
            ),
        )
        lane.has_backlog = len(claims) == len(tokens)
        if claims:
            self._observer.claimed(lane.queue, len(claims), swept=True)

    async def _claim(
        self, lane: Lane, tokens: Sequence[UUID], statement: Callable[[], Awaitable[Sequence[Claim]]]
    ) -> Sequence[Claim]:
        """Claims, and starts what was claimed. The slots are taken before and given back for what was not claimed."""
        lane.free -= len(tokens)
        self._claiming.update(tokens)
        claims: Sequence[Claim] = ()
        began = self._clock.monotonic()
        try:
            async with self._room:
                self._room.notify_all()
            claims = await statement()
        except StoreUnavailable as error:
            # Perhaps the claim went through and its answer was lost: the next heartbeat finds such orphans.
            self._unanswered.update(tokens)
            log_event(_log, logging.WARNING, "claim_failed", error=str(error), count=len(tokens))
            await self._clock.sleep(0.1)
        finally:
            lane.free += len(tokens) - len(claims)
            for claim in claims:
                held = self._held[claim.token] = Held(claim, began)
                lane.ahead.append(held)
            self._start_next(lane)
            self._claiming.difference_update(tokens)
            self._progress.set()
            # The other way of claiming may have found no slot free in the meantime.
            lane.changed.set()
        return claims

    def _start_next(self, lane: Lane) -> None:
        """Begins as many calls as there are slots for."""
        if lane.start_soon is not None:
            lane.start_soon.cancel()
            lane.start_soon = None
        if lane.ahead and lane.running < lane.slots:
            lane.started_at = self._clock.monotonic()
        while lane.ahead and lane.running < lane.slots:
            held = lane.ahead.popleft()
            lane.running += 1
            held.task = self._calls.create(self._deliver(held, lane))

    def _start_group(self, lane: Lane, now: float) -> None:
        """Begins the next calls once there are slots for a group of them.

        Calls that begin in one turn of the event loop go out, and come in at the target, with fewer switches between
        threads than as many one by one (`docs/performance.md`).
        """
        if not lane.ahead:
            return
        pause = lane.until_group(now)
        if pause <= 0:
            self._start_next(lane)
        elif lane.start_soon is None:
            # In real time: what it saves is switches of real threads, and a task that sleeps would cost what it saves.
            lane.start_soon = asyncio.get_running_loop().call_later(pause, self._start_next, lane)

    def _return_ahead(self, lane: Lane, before: float) -> None:
        """Gives back what was claimed before that monotonic second and has found no slot yet."""
        while lane.ahead and lane.ahead[0].claimed < before:
            held = lane.ahead.popleft()
            lane.free += 1
            self._recorder.add(
                held.claim, self._outcomes.not_begun(held.claim, self._refusal(held, self._clock.monotonic()))
            )
            del self._held[held.claim.token]
            self._progress.set()

    async def _deliver(self, held: Held, lane: Lane) -> None:
        claim = held.claim
        held.is_running = True
        began = self._clock.monotonic()
        try:
            # More than once: a timer may end a fraction of a millisecond early, and nothing begins before its time.
            while (now := self._database_clock.at(began)) < claim.ready_time and not self._refusal(held, began):
                await self._clock.sleep((claim.ready_time - now).total_seconds())
                began = self._clock.monotonic()
            held.cancelled_by = self._refusal(held, began)
            if held.cancelled_by:
                answer = Answer(Code.CANCELLED)
            else:
                held.start = self.last_start = now
                late = (now - claim.due_time).total_seconds() if claim.start_time is None else None
                self._observer.started(claim, late)
                answer = await self._caller.call(claim.target, claim.request, claim.timeout, _metadata(claim))
        except asyncio.CancelledError:
            answer = Answer(Code.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever a call does, its execution needs an outcome
            log_event(_log, logging.ERROR, "call_broke", execution=str(claim.uid), error=type(error).__name__)
            answer = Answer(Code.UNKNOWN, f"the call could not be made: {type(error).__name__}")
        ended = self._clock.monotonic()
        lane.running -= 1
        lane.free += 1
        lane.ended += 1
        self._start_group(lane, ended)
        if lane.free >= lane.wake_at or lane.free == lane.slots:
            lane.changed.set()
        if held.start is None:
            outcome = self._outcomes.not_begun(claim, held.cancelled_by)
        else:
            outcome = self._outcomes.answered(claim, answer, held.start, ended - began, held.cancelled_by)
            if not held.cancelled_by:
                self._brakes.saw(claim.target.partition("/")[0], held.claimed, is_down=answer.code in DOWN_CODES)
        self._recorder.add(claim, outcome)
        del self._held[claim.token]
        self._progress.set()
        if held.start is not None:
            self._observer.answered(claim, answer.code, ended - began)

    def _refusal(self, held: Held, now: float) -> str:
        """Why a call is not to begin at that monotonic second; empty when it is."""
        if held.cancelled_by:
            return held.cancelled_by
        if held.claim.cancel_requested:
            return Reason.CALLER
        if self._draining or now >= self._lease_until or now - held.claimed > _LATEST_BEGIN:
            return Reason.NOT_BEGUN
        return Reason.NOT_BEGUN if self._brakes.stops(held.claim.target.partition("/")[0], held.claimed) else ""

    async def _wait(self, event: asyncio.Event, seconds: float | None) -> None:
        if seconds is None:
            await event.wait()
            return
        try:
            async with asyncio.timeout(min(seconds, 1.0)):
                await event.wait()
        except TimeoutError:
            return


def _metadata(claim: Claim) -> tuple[tuple[str, str], ...]:
    return (
        ("idempotency-key", str(claim.uid)),
        ("x-scheduling-attempt", str(claim.attempt)),
        ("x-scheduling-job", "jobs/" + claim.job_id),
        ("x-scheduling-nominal-time", claim.nominal_time.isoformat()),
        ("traceparent", new_header()),
    )
