"""The delivery engine at its seams: the turn in which a claim answers, a stop in the middle of it, errors that nobody
thought of, and executions that others have taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduling.delivery.channels import Answer
from scheduling.delivery.engine import DeliveryEngine
from scheduling.delivery.outcomes import UNSTORABLE
from scheduling.domain.execution import Claim, Outcome
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from scheduling.operations.recover import recover
from scheduling.storage.delivering import DeliveryStore
from tests.integration.test_engine import Recovery, answering, queued
from tests.support.clock import FlowingClock
from tests.support.engines import EngineProcess, RecordingCaller
from tests.support.run import Signal, run
from tests.support.stores import Stores, open_stores

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
PATIENT = RetryPolicy(4, SECOND, after_lost_worker=AfterLostWorker.WAIT_FOR_DEADLINE)


async def at_once() -> None:
    """Holds nothing back."""


async def never() -> None:
    """Holds back for good."""
    await asyncio.Event().wait()


class Seams(DeliveryStore):
    """The real store, with a place before and after each of its statements for what a test wants to happen there."""

    def __init__(self, stores: Stores) -> None:
        super().__init__(stores.database)
        self.before_claim: Callable[[], Awaitable[None]] = at_once
        self.after_claim: Callable[[], None] = lambda: None
        self.before_sweep: Callable[[], Awaitable[None]] = at_once
        self.before_record: Callable[[Sequence[Outcome]], None] = lambda _: None
        stores.delivering = self

    async def claim_if_queued(self, *claimed: Any, **options: Any) -> Sequence[Claim]:
        await self.before_claim()
        claims = await super().claim_if_queued(*claimed, **options)
        self.after_claim()
        return claims

    async def claim_overdue(
        self, worker: UUID, queue: Queue, tokens: Sequence[UUID], after: timedelta, targets: Sequence[str]
    ) -> Sequence[Claim]:
        if queue is Queue.HIGH:
            await self.before_sweep()
        return await super().claim_overdue(worker, queue, tokens, after, targets)

    async def record(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        self.before_record(outcomes)
        return await super().record(outcomes)


class Gate:
    """A place that is waited at until it is opened; `reached` is notified when somebody waits there."""

    def __init__(self) -> None:
        self.waiting = 0
        self.reached = Signal()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.waiting += 1
        self.reached.notify()
        await self.opened.wait()

    async def until_reached(self) -> None:
        """Waits until somebody waits here."""
        await self.reached.until(lambda: self.waiting > 0)


# --- slots ------------------------------------------------------------------------------------------------------------


def test_an_id_that_comes_while_the_sweep_has_all_slots_is_claimed_when_it_gives_them_back(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with open_stores(database_url, FlowingClock()) as stores:
            seams, gate = Seams(stores), Gate()
            seams.before_sweep = gate
            async with EngineProcess(stores, caller, slots=1) as worker:
                await gate.until_reached()
                # No later sweep finds it.
                seams.before_sweep = never
                uid = await stores.one_off(stores.clock.now() + SECOND * 0.2)
                await stores.release(SECOND)
                await worker.hand_over(uid, ready=stores.clock.now() + SECOND * 0.2)
                # Until the claim loop has seen that there is no slot.
                await stores.clock.sleep(0.01)
                gate.opened.set()
                await caller.changed.until(lambda: len(caller.calls) == 1)

    run(scenario())


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [
        (DeliveryEngine.cut_off, State.PENDING, "NOT_BEGUN"),
        (lambda engine: engine.lose(engine.tokens), State.PENDING, "NOT_BEGUN"),
        (lambda engine: engine.cancel(engine.tokens), State.CANCELLED, "CALLER"),
    ],
    ids=["cut off", "lost", "cancelled"],
)
def test_what_is_cancelled_in_the_turn_of_its_claim_gives_back_slot_and_execution(
    database_url: str, end: Callable[[DeliveryEngine], None], state: State, reason: str
) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with open_stores(database_url, FlowingClock()) as stores:
            seams = Seams(stores)
            async with EngineProcess(stores, caller, slots=1) as worker:
                seams.after_claim = lambda: (asyncio.get_running_loop().call_soon(end, worker.engine), None)[1]
                uid = await stores.one_off(job_id="job")
                await stores.release()
                await worker.hand_over(uid)
                await worker.witness.changed.until(lambda: len(worker.witness.outcomes) == 1)
                seams.after_claim = lambda: None
                found = await stores.read("job", uid)
                assert (found.state, found.reason, found.attempts) == (state, reason, ())
                assert caller.calls == []
                assert worker.engine.held == frozenset()
                # A sweep may have the slot for a moment; only what is claimed keeps it.
                while worker.engine.in_flight(Queue.HIGH):
                    await stores.clock.sleep(0.01)

    run(scenario())


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_claim_under_way_when_the_drain_begins_is_waited_for_and_given_back(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with open_stores(database_url, FlowingClock()) as stores:
            seams, gate = Seams(stores), Gate()
            async with EngineProcess(stores, caller) as worker:
                (uid,) = await queued(stores)
                seams.before_claim = gate
                await worker.hand_over(uid)
                await gate.until_reached()
                drain = asyncio.create_task(worker.engine.drain(timedelta(0)))
                done, _ = await asyncio.wait({drain}, timeout=0.05)
                assert not done
                gate.opened.set()
                await drain
                assert worker.engine.held == frozenset()
                row = await stores.row(uid)
                assert (row["state"], row["reason"], row["attempt"]) == ("PENDING", "NOT_BEGUN", 0)
                assert caller.calls == []

    run(scenario())


def test_a_drain_waits_until_outcomes_are_recorded(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uids = await queued(stores, 5)
            await worker.hand_over(*uids)
            await caller.until(5)
            drain = asyncio.create_task(worker.engine.drain(MINUTE))
            done, _ = await asyncio.wait({drain}, timeout=0.05)
            assert not done
            caller.open()
            await drain
            assert [await stores.state(uid) for uid in uids] == [State.SUCCEEDED] * 5

    run(scenario())


# --- calls that this process gives up ---------------------------------------------------------------------------------


def test_a_target_that_must_not_be_called_twice_at_a_time_waits_for_the_deadline_of_a_call_that_was_cut_off(
    database_url: str,
) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            (uid,) = await queued(stores, policy=PATIENT, timeout=MINUTE)
            await worker.hand_over(uid)
            await caller.until(1)
            worker.engine.cut_off()
            await worker.witness.until_recorded(1)
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["counted"]) == ("PENDING", "LEASE_LOST", 1)
            assert row["ready_time"] == row["start_time"] + MINUTE

    run(scenario())


@pytest.mark.parametrize(("policy", "wait"), [(PATIENT, MINUTE), (RetryPolicy(4, SECOND), timedelta(0))])
def test_a_call_given_up_at_shutdown_says_so(database_url: str, policy: RetryPolicy, wait: timedelta) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            (uid,) = await queued(stores, policy=policy, timeout=MINUTE)
            await worker.hand_over(uid)
            await caller.until(1)
            await worker.engine.drain(timedelta(0))
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["counted"]) == ("PENDING", "SHUTDOWN", 1)
            assert [each["r"] for each in row["attempts"]] == ["SHUTDOWN"]
            assert timedelta(0) <= row["ready_time"] - row["start_time"] - wait < SECOND * 10
            # It says nothing about the target.
            assert await stores.count("breakers") == 0

    run(scenario())


# --- what nobody thought of -------------------------------------------------------------------------------------------


class Defect:
    """Raises what nothing expects, the first time only."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = Signal()

    def __call__(self, *_: object) -> None:
        self.count += 1
        self.changed.notify()
        if self.count == 1:
            raise RuntimeError("a defect")

    async def wait(self) -> None:
        """The same where something is awaited."""
        self()


@pytest.mark.parametrize("where", ["before_claim", "before_sweep", "recorded"])
def test_an_engine_goes_on_after_an_error_that_nothing_expects(
    database_url: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        caller, defect = RecordingCaller(), Defect()
        async with open_stores(database_url, FlowingClock()) as stores:
            seams = Seams(stores)
            # Without the sweep only a claim loop that goes on finds anything.
            sweep_after = SECOND * 0.05 if where == "before_sweep" else MINUTE
            async with EngineProcess(stores, caller, sweep_after=sweep_after) as worker:
                if where == "recorded":
                    monkeypatch.setattr(worker.witness, "recorded", defect)
                else:
                    setattr(seams, where, defect.wait)
                first, second = await queued(stores, 2)
                if where != "before_sweep":
                    await worker.hand_over(first)
                    await defect.changed.until(lambda: defect.count == 1)
                if where != "before_sweep":
                    await worker.hand_over(first, second)
                await caller.until(2)
                await defect.changed.until(lambda: defect.count > 1)
                assert set(caller.keys) == {str(first), str(second)}
                assert worker._task is not None
                assert not worker._task.done()
                await worker.engine.drain(MINUTE)
                assert [await stores.state(uid) for uid in (first, second)] == [State.SUCCEEDED] * 2

    run(scenario())


@pytest.mark.parametrize(
    ("attempts", "state", "reason"),
    [(4, "PENDING", "LEASE_LOST"), (1, "FAILED", "ATTEMPTS_EXHAUSTED")],
)
def test_a_call_whose_outcome_is_refused_counts_when_its_execution_is_given_back(
    database_url: str, attempts: int, state: str, reason: str
) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = answering(Answer(Code.UNAVAILABLE, "down"))
        refused: list[str] = []

        def refuse(outcomes: Sequence[Outcome]) -> None:
            if any(each.attempt is not None and each.attempt.code == Code.UNAVAILABLE for each in outcomes):
                refused.append("")
                signal.notify()
                raise RuntimeError("a defect")

        signal = Signal()
        async with open_stores(database_url, clock) as stores:
            Seams(stores).before_record = refuse
            async with EngineProcess(stores, caller) as worker:
                (uid,) = await queued(stores, policy=RetryPolicy(attempts, SECOND))
                await worker.hand_over(uid)
                await signal.until(lambda: len(refused) == 2)
                clock.advance(3)
                await worker.beat()
                await worker.witness.until_recorded(1)
                row = await stores.row(uid)
                assert (row["state"], row["reason"], row["attempt"], row["counted"]) == (state, reason, 1, 1)
                (attempt,) = row["attempts"]
                assert (attempt["c"], attempt["m"], attempt["r"]) == (Code.UNKNOWN, UNSTORABLE, "LEASE_LOST")

    run(scenario())


def test_a_call_whose_execution_somebody_else_has_taken_over_is_given_up_at_the_next_heartbeat(
    database_url: str,
) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        stuck = RecordingCaller()
        stuck.close()
        async with open_stores(database_url, clock) as stores:
            term = await stores.lead()
            async with EngineProcess(stores, stuck) as worker:
                (uid,) = await queued(stores, timeout=SECOND * 2)
                (other,) = await queued(stores, timeout=MINUTE * 5)
                await worker.hand_over(uid, other)
                await stuck.until(2)
                clock.advance(33)
                await worker.beat()
                assert stuck.cancelled == []
                assert len(await recover(Recovery(stores), term, SECOND * 30)) == 1
                await worker.beat()
                await stuck.changed.until(lambda: stuck.cancelled == [str(uid)])
                await worker.witness.changed.until(lambda: worker.engine.in_flight(Queue.HIGH) == 1)
                # What is its own goes on.
                stuck.open()
                await worker.witness.until_recorded(1)
                assert await stores.state(other) is State.SUCCEEDED
                row: dict[str, Any] = await stores.row(uid)
                assert (row["reason"], row["counted"]) == ("LEASE_LOST", 1)

    run(scenario())
