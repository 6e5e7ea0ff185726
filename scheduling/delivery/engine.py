"""The delivery engine of one process: holds ids until their moment, claims, calls, records.

Ids come in ahead of their time. A few milliseconds before a moment, all that fall together are claimed in one
statement; the calls go out at the moment, concurrently within the slots of their queue; outcomes are recorded in
batches. Nothing here is remembered beyond the process: what is lost with it is found again by its lease.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from uuid import UUID, uuid4

from scheduling.delivery.brakes import Brakes
from scheduling.delivery.channels import Answer
from scheduling.delivery.database_clock import DatabaseClock
from scheduling.delivery.tasks import TaskGroup
from scheduling.domain.breaker import DOWN_CODES
from scheduling.domain.clock import Clock
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import Attempt, Claim, Outcome, Reason, append_attempt
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code, decide
from scheduling.domain.target import AfterLostWorker, Queue
from scheduling.telemetry.logs import log_event
from scheduling.telemetry.traces import new_trace

_log = logging.getLogger(__name__)

#: Stands in for an answer's text that PostgreSQL refused.
UNSTORABLE = "the answer could not be stored"
#: Seconds to the next try after an unexpected error, as in every background loop.
AFTER_ERROR = 0.5
#: Seconds that a claiming statement may still take when the process stops: its own timeout, and a connection.
CLAIM_SECONDS = 3.0
#: Seconds for what is cancelled at the end of a drain to end, and for its outcomes to be recorded.
LAST_SECONDS = 5.0
#: Why this process gives up a call of its own accord: it says nothing about the target, and the call is made again.
_CUT = frozenset({Reason.LEASE_LOST, Reason.SHUTDOWN})
#: What a breaker learns nothing from: the caller's wish, this process's end, and a full pool of our own sidecar.
_TELLS_NOTHING = frozenset({Reason.CALLER, Reason.POOL_OVERFLOW, *_CUT})


class Store(Protocol):
    """What the engine writes, guarded by claim tokens. Every call may raise StoreUnavailable."""

    async def claim_if_queued(
        self, worker: UUID, uids: Sequence[UUID], tokens: Sequence[UUID], lead: timedelta, *, alone: bool = False
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


class Breakers(Protocol):
    """Where failures and successes by service are added up over all workers. May raise StoreUnavailable."""

    async def feed(self, tallies: Mapping[str, tuple[int, int]]) -> object: ...


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
    record_batch: int = 500


@dataclass(slots=True)
class _Lane:
    """One queue: what waits for its moment (a heap), and the free slots.

    `isolated` has crashed processes and waits until nothing else runs here; `is_alone` while it is the only one.
    """

    queue: Queue
    slots: int
    free: int
    isolated: UUID | None = None
    is_alone: bool = False
    waiting: list[tuple[datetime, UUID]] = field(default_factory=list)
    known: set[UUID] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Held:
    """A claimed execution. `start` is set when its call begins, `cancelled_by` when it is to end before an answer;
    `claimed` is the monotonic second before its claim.
    """

    claim: Claim
    claimed: float = 0.0
    task: asyncio.Task[None] | None = None
    is_running: bool = False
    start: datetime | None = None
    cancelled_by: str = ""


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
        self._breakers = breakers
        #: Services whose breakers want to hear of successes too.
        self.suspects: frozenset[str] = frozenset()
        self._chance = chance
        self._brakes = Brakes()
        self._lanes = {queue: _Lane(queue, slots, slots) for queue, slots in settings.slots.items()}
        self._room = asyncio.Condition()
        self._held: dict[UUID, _Held] = {}
        self._claiming: set[UUID] = set()
        self._outcomes: list[tuple[Claim | None, Outcome]] = []
        self._recording = asyncio.Event()
        #: Calls that were made and whose outcomes PostgreSQL refused, by token.
        self._refused: dict[UUID, tuple[Claim, Attempt]] = {}
        self._progress = asyncio.Event()
        self._calls = TaskGroup()
        self._draining = False
        self._lease_until = float("-inf")
        self.last_start: datetime | None = None

    # --- what others see and say --------------------------------------------------------------------------------------

    @property
    def tokens(self) -> frozenset[UUID]:
        """The claim tokens that this process holds, or is about to."""
        return frozenset(self._held) | frozenset(self._claiming) | {outcome.token for _, outcome in self._outcomes}

    @property
    def held(self) -> frozenset[UUID]:
        """The claim tokens whose calls are under way or about to begin."""
        return frozenset(self._held)

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

    def _is_isolating(self, lane: _Lane) -> bool:
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
                heapq.heappush(lane.waiting, (ready, uid))
        lane.changed.set()

    def give_back(self, claims: Iterable[tuple[UUID, UUID]], now: datetime) -> None:
        """Returns executions, by (token, uid), that PostgreSQL believes to run here and do not.

        Their calls never began, unless this process remembers one whose outcome was refused: that one counts.
        """
        for token, uid in claims:
            refused = self._refused.pop(token, None)
            if refused is None:
                self._settle(None, Outcome(uid, token, State.PENDING, Reason.NOT_BEGUN, now, None, None))
            else:
                self._settle(refused[0], self._outcome_unknown(*refused, now))

    # --- work ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claims, calls and records until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes.values():
                group.create_task(self._repeat("engine_claim", partial(self._claim_due, lane)))
                group.create_task(self._repeat("engine_sweep", partial(self._sweep, lane)))
            group.create_task(self._repeat("engine_record", self._record_next))

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Takes `step` again and again, whatever goes wrong: an engine without its loops would still look alive."""
        is_failing = False
        while True:
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

    async def drain(self, grace: timedelta) -> None:
        """Claims nothing more, begins no call, lets running ones end within `grace`, cancels the rest, and records
        everything.
        """
        self._draining = True
        async with self._room:
            self._room.notify_all()
        self._cancel_all([token for token, held in self._held.items() if held.start is None], Reason.NOT_BEGUN)
        # Claims that are under way may still bring executions, which are then given back.
        await self._until(lambda: not self._claiming, CLAIM_SECONDS)
        await self._calls.wait(grace.total_seconds())
        self._cancel_all(self._held, Reason.SHUTDOWN)
        await self._until(lambda: not (self._claiming or self._held or self._outcomes), LAST_SECONDS)
        if self._held or self._outcomes:
            log_event(_log, logging.WARNING, "outcomes_left", count=len(self._held) + len(self._outcomes))

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

    async def _claim_due(self, lane: _Lane) -> None:
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
        tokens = [uuid4() for _ in uids]
        claims = await self._claim(
            lane,
            tokens,
            partial(self._store.claim_if_queued, self._worker, uids, tokens, self._settings.claim_lead),
        )
        self._observer.claimed(lane.queue, len(claims), swept=False)

    async def _claim_alone(self, lane: _Lane, uid: UUID) -> None:
        lane.isolated, lane.is_alone = None, True
        token = uuid4()
        claim = partial(
            self._store.claim_if_queued, self._worker, [uid], [token], self._settings.claim_lead, alone=True
        )
        await self._claim(lane, [token], claim)

    def _pause(self, lane: _Lane) -> float | None:
        """Seconds until something is to be claimed; None when only a change can bring it about."""
        if self._draining:
            return None
        if self._is_isolating(lane):
            return 0.1 if lane.free == lane.slots else None
        if not lane.waiting or lane.free <= 0:
            return None
        if not self.has_lease():
            return 0.1
        lead = self._settings.claim_lead.total_seconds()
        return self._database_clock.seconds_until(lane.waiting[0][0]) - lead

    def _take_due(self, lane: _Lane) -> list[UUID]:
        horizon = self._database_clock.now() + self._settings.claim_lead
        uids: list[UUID] = []
        while lane.waiting and len(uids) < lane.free and lane.waiting[0][0] <= horizon:
            _, uid = heapq.heappop(lane.waiting)
            lane.known.discard(uid)
            uids.append(uid)
        return uids

    async def _sweep(self, lane: _Lane) -> None:
        """Finds what is queued and overdue: its message was lost, or Redis is down."""
        await self._clock.sleep(self._settings.sweep_after.total_seconds())
        # Also while others wait for their moment here: under a steady load there is always one that does.
        if lane.free <= 0 or self._draining or not self.has_lease() or self._is_isolating(lane):
            return
        tokens = [uuid4() for _ in range(lane.free)]
        settings = self._settings
        claims = await self._claim(
            lane,
            tokens,
            partial(
                self._store.claim_overdue, self._worker, lane.queue, tokens, settings.sweep_after, settings.targets
            ),
        )
        if claims:
            self._observer.claimed(lane.queue, len(claims), swept=True)

    async def _claim(
        self, lane: _Lane, tokens: Sequence[UUID], statement: Callable[[], Awaitable[Sequence[Claim]]]
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
            log_event(_log, logging.WARNING, "claim_failed", error=str(error), count=len(tokens))
            await self._clock.sleep(0.1)
        finally:
            lane.free += len(tokens) - len(claims)
            for claim in claims:
                held = self._held[claim.token] = _Held(claim, began)
                held.task = self._calls.create(self._deliver(held, lane))
            self._claiming.difference_update(tokens)
            self._progress.set()
            # The other way of claiming may have found no slot free in the meantime.
            lane.changed.set()
        return claims

    async def _deliver(self, held: _Held, lane: _Lane) -> None:
        claim = held.claim
        held.is_running = True
        began = 0.0
        try:
            pause = self._database_clock.seconds_until(claim.ready_time)
            if pause > 0 and not self._refusal(held):
                await self._clock.sleep(pause)
            held.cancelled_by = self._refusal(held)
            if held.cancelled_by:
                answer = Answer(Code.CANCELLED)
            else:
                held.start, began = self._database_clock.now(), self._clock.monotonic()
                self.last_start = held.start
                late = (held.start - claim.due_time).total_seconds() if claim.start_time is None else None
                self._observer.started(claim, late)
                answer = await self._caller.call(claim.target, claim.request, claim.timeout, _metadata(claim))
        except asyncio.CancelledError:
            answer = Answer(Code.CANCELLED, "the call was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever a call does, its execution needs an outcome
            log_event(_log, logging.ERROR, "call_broke", execution=str(claim.uid), error=type(error).__name__)
            answer = Answer(Code.UNKNOWN, f"the call could not be made: {type(error).__name__}")
        finally:
            lane.free += 1
            lane.changed.set()
        seconds = self._clock.monotonic() - began
        outcome = self._not_begun(held) if held.start is None else self._outcome(held, answer, held.start, seconds)
        if held.start is not None and not held.cancelled_by:
            self._brakes.saw(claim.target.partition("/")[0], held.claimed, is_down=answer.code in DOWN_CODES)
        self._settle(claim, outcome)
        del self._held[claim.token]
        self._progress.set()
        if held.start is not None:
            self._observer.answered(claim, answer.code, seconds)

    def _refusal(self, held: _Held) -> str:
        """Why a call is not to begin; empty when it is."""
        if held.cancelled_by:
            return held.cancelled_by
        if held.claim.cancel_requested:
            return Reason.CALLER
        if self._draining or not self.has_lease():
            return Reason.NOT_BEGUN
        return Reason.NOT_BEGUN if self._brakes.stops(held.claim.target.partition("/")[0], held.claimed) else ""

    def _not_begun(self, held: _Held) -> Outcome:
        claim = held.claim
        if held.cancelled_by == Reason.CALLER:
            return Outcome(claim.uid, claim.token, State.CANCELLED, Reason.CALLER, None, None, None, claim.history)
        return Outcome(
            claim.uid, claim.token, State.PENDING, Reason.NOT_BEGUN, claim.ready_time, None, None, claim.history
        )

    def _outcome(self, held: _Held, answer: Answer, start: datetime, seconds: float) -> Outcome:
        claim = held.claim
        now = self._database_clock.now()
        is_cut = held.cancelled_by in _CUT
        decision = decide(
            answer.code,
            attempt=claim.attempt,
            counted_before=claim.counted,
            policy=claim.policy,
            now=now,
            expire_time=claim.expire_time,
            chance=self._chance(),
            pushback=_pause_after_cut(claim, start, now) if is_cut else answer.pushback,
            cancel_requested=held.cancelled_by == Reason.CALLER,
            reason=held.cancelled_by if is_cut else "",
            unsent=answer.unsent,
        )
        attempt = Attempt(
            number=claim.attempt,
            start_time=start,
            duration=timedelta(seconds=seconds),
            worker=str(self._worker),
            code=int(answer.code),
            message=answer.message,
            counted=decision.counted,
            reason=held.cancelled_by or answer.unsent or (Reason.CONFLICT if answer.code is Code.ABORTED else ""),
        )
        return Outcome(
            uid=claim.uid,
            token=claim.token,
            state=decision.state,
            reason=decision.reason,
            ready_time=decision.ready_time,
            attempt=attempt,
            start_time=claim.start_time or start,
            history=append_attempt(claim.history, attempt),
            response=answer.response if decision.state is State.SUCCEEDED else None,
            response_type=answer.response_type if decision.state is State.SUCCEEDED else "",
        )

    def _outcome_unknown(self, claim: Claim, attempt: Attempt, now: datetime) -> Outcome:
        """What follows when a call was made and nothing that was said of it could be stored: it counts, so that
        `max_attempts` holds.
        """
        decision = decide(
            Code.UNKNOWN,
            attempt=claim.attempt,
            counted_before=claim.counted,
            policy=claim.policy,
            now=now,
            expire_time=claim.expire_time,
            chance=self._chance(),
            reason=Reason.LEASE_LOST,
        )
        unknown = replace(
            attempt, code=int(Code.UNKNOWN), message=UNSTORABLE, counted=decision.counted, reason=Reason.LEASE_LOST
        )
        return Outcome(
            uid=claim.uid,
            token=claim.token,
            state=decision.state,
            reason=decision.reason,
            ready_time=decision.ready_time,
            attempt=unknown,
            start_time=claim.start_time or attempt.start_time,
            history=append_attempt(claim.history, unknown),
        )

    def _settle(self, claim: Claim | None, outcome: Outcome) -> None:
        self._outcomes.append((claim, outcome))
        self._recording.set()

    async def _record_next(self) -> None:
        """Records the next outcomes as they come; keeps them while PostgreSQL is away, for as long as it takes."""
        if not self._outcomes:
            self._recording.clear()
            await self._recording.wait()
        batch = self._outcomes[: self._settings.record_batch]
        if not await self._record(batch):
            await self._clock.sleep(0.2)
            return
        del self._outcomes[: len(batch)]
        self._progress.set()

    async def _record(self, batch: Sequence[tuple[Claim | None, Outcome]]) -> bool:
        try:
            recorded = await self._store.record([outcome for _, outcome in batch])
        except StoreUnavailable as error:
            log_event(_log, logging.WARNING, "record_failed", error=str(error), count=len(batch))
            return False
        except Exception as error:  # noqa: BLE001 - one bad outcome must not stop all others
            if len(batch) > 1:
                return all([await self._record([each]) for each in batch])
            claim, outcome = batch[0]
            log_event(_log, logging.ERROR, "outcome_refused", execution=str(outcome.uid), error=type(error).__name__)
            if outcome.attempt is None or outcome.attempt.message == UNSTORABLE:
                # A later heartbeat finds that nobody holds it. What was called must not come back as never begun.
                if claim is not None and outcome.attempt is not None:
                    self._refused[outcome.token] = (replace(claim, request=b""), outcome.attempt)
                return True
            # What happened counts more than what was said about it: once more without the words of the target.
            silent = replace(outcome.attempt, message=UNSTORABLE)
            history = (*outcome.history[:-1], silent)
            plain = replace(outcome, attempt=silent, history=history, response=None, response_type="")
            return await self._record([(claim, plain)])
        try:
            self._observer.recorded([each for each in batch if each[1].uid in recorded])
            await self._feed_breakers(batch)
        except Exception as error:  # noqa: BLE001 - what is durable must not be recorded again and again
            log_event(_log, logging.ERROR, "loop_failed", loop="engine_record", problem="telling", exc_info=error)
        return True

    async def _feed_breakers(self, batch: Sequence[tuple[Claim | None, Outcome]]) -> None:
        """Tells the breakers of failures, and of successes where somebody has seen failures. Sound services cost
        nothing.
        """
        tallies: dict[str, tuple[int, int]] = {}
        for claim, outcome in batch:
            if claim is None or outcome.attempt is None or outcome.attempt.reason in _TELLS_NOTHING:
                continue
            service = claim.target.partition("/")[0]
            failures, successes = tallies.get(service, (0, 0))
            is_down = outcome.attempt.code in DOWN_CODES
            tallies[service] = (failures + is_down, successes + (not is_down))
        told = {service: tally for service, tally in tallies.items() if tally[0] or service in self.suspects}
        if not told:
            return
        try:
            await self._breakers.feed(told)
        except StoreUnavailable as error:
            log_event(_log, logging.WARNING, "breakers_not_fed", error=str(error))
            return
        self._brakes.told(told, self._clock.monotonic())
        self.suspects |= {service for service, tally in told.items() if tally[0]}

    async def _wait(self, event: asyncio.Event, seconds: float | None) -> None:
        if seconds is None:
            await event.wait()
            return
        try:
            async with asyncio.timeout(min(seconds, 1.0)):
                await event.wait()
        except TimeoutError:
            return


def _pause_after_cut(claim: Claim, start: datetime, now: datetime) -> timedelta:
    """How long the next attempt waits after a call that this process gave up: not at all, unless the target must not be
    called twice at a time and may still be at it until the deadline.
    """
    if claim.policy.after_lost_worker is not AfterLostWorker.WAIT_FOR_DEADLINE:
        return timedelta(0)
    return max(start + claim.timeout - now, timedelta(0))


def _metadata(claim: Claim) -> tuple[tuple[str, str], ...]:
    return (
        ("idempotency-key", str(claim.uid)),
        ("x-scheduling-attempt", str(claim.attempt)),
        ("x-scheduling-job", f"jobs/{claim.job_id}"),
        ("x-scheduling-nominal-time", claim.nominal_time.isoformat()),
        ("traceparent", new_trace().header()),
    )
