"""Claiming ahead: no slot waits for a statement, no more calls at once than slots, nothing kept for long."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from scheduling.delivery import engine, lanes
from scheduling.delivery.channels import Answer
from scheduling.delivery.lanes import Lane
from scheduling.domain.execution import Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue
from tests.integration.test_engine import queued
from tests.support.clock import FlowingClock
from tests.support.engines import OK, EngineProcess, RecordingCaller
from tests.support.run import run
from tests.support.stores import open_stores

#: So much that the lane claims as much ahead as it ever does at any pace above two a second.
FAR = timedelta(seconds=10)


def test_the_room_of_a_queue_follows_the_pace_of_its_calls() -> None:
    lane = Lane(Queue.HIGH, slots=64, free=0, measured_at=100.0)
    lane.ended = 100
    assert lane.room(100.05, 0.03) == 60  # 2,000 calls a second
    lane.free = -21
    assert lane.room(100.06, 0.03) == 0  # more than a third of it is still there
    lane.free = -19
    assert lane.room(100.06, 0.03) == 41
    lane.ended = 0
    assert lane.room(100.5, 0.03) == 0  # nothing has ended since: nothing is claimed beyond the slots
    lane.free = 2
    assert lane.room(101.0, 0.03) == 2


def test_calls_wait_for_a_group_where_it_comes_together_soon() -> None:
    lane = Lane(Queue.HIGH, slots=60, free=0, running=45, pace=3000.0, started_at=100.0)
    assert lane.until_group(100.002) == pytest.approx(0.004)
    assert lane.until_group(100.007) < 0  # long enough
    lane.running = 40
    assert lane.until_group(100.002) == 0  # a third of the slots
    lane.running, lane.pace = 45, 1000.0
    assert lane.until_group(100.002) == 0  # slow calls: no slot is left empty for long
    lane.slots, lane.running = 1, 0
    assert lane.until_group(100.002) == 0


def test_however_far_ahead_is_claimed_no_more_calls_are_made_at_once_than_slots(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=3, claim_ahead=FAR) as worker,
        ):
            uids = await queued(stores, 60)
            await worker.hand_over(*uids)
            await worker.witness.until_recorded(60)
            assert Counter(caller.keys) == Counter(str(uid) for uid in uids)
            assert caller.most_under_way <= 3

    run(scenario())


@pytest.mark.parametrize(("seconds", "begun"), [(3600.0, 6), (lanes.GROUP_SECONDS, 7)])
def test_a_free_slot_waits_for_others_before_the_next_calls_begin_and_not_for_long(
    database_url: str, monkeypatch: pytest.MonkeyPatch, seconds: float, begun: int
) -> None:
    """Of six slots two make a group."""
    monkeypatch.setattr(lanes, "GROUP_SECONDS", seconds)
    # However slow the machine is, nothing goes back meanwhile.
    monkeypatch.setattr(engine, "AHEAD_PATIENCE", 3600.0)
    monkeypatch.setattr(engine, "_LATEST_BEGIN", 3600.0)

    async def scenario() -> None:
        ends: dict[str, asyncio.Event] = {}

        async def answer(key: str, attempt: int) -> Answer:
            await ends.setdefault(key, asyncio.Event()).wait()
            return OK

        caller = RecordingCaller(answer)
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=6, claim_ahead=FAR) as worker,
        ):
            lane = worker.engine._lanes[Queue.HIGH]
            lane.pace, lane.measured_at = 1000.0, stores.clock.monotonic() + 3600
            uids = await queued(stores, 16)
            await worker.hand_over(*uids)
            await caller.until(6)
            ends[caller.keys[0]].set()
            await worker.witness.until_recorded(1)
            await caller.until(begun)
            assert len(caller.calls) == begun
            ends[caller.keys[1]].set()
            await caller.until(8)
            for key in [str(uid) for uid in uids]:
                ends.setdefault(key, asyncio.Event()).set()
            await worker.witness.until_recorded(16)
            assert Counter(caller.keys) == Counter(str(uid) for uid in uids)
            assert caller.most_under_way <= 6

    run(scenario())


def test_what_was_claimed_ahead_goes_back_when_the_target_becomes_slow(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=2, claim_ahead=FAR) as worker,
        ):
            lane = worker.engine._lanes[Queue.HIGH]
            lane.pace, lane.measured_at = 1000.0, stores.clock.monotonic() + 3600
            caller.close()
            uids = await queued(stores, 6)
            await worker.hand_over(*uids)
            returned = await worker.witness.until_recorded(4)
            assert [(each.state, each.reason) for each in returned] == [(State.PENDING, Reason.NOT_BEGUN)] * 4
            assert len(caller.calls) == 2
            lane.measured_at = 0.0
            for each in returned:
                assert (await stores.row(each.uid))["attempt"] == 0
            caller.open()
            await worker.witness.until_recorded(6)

    run(scenario())


def test_what_was_claimed_ahead_goes_back_at_once_when_the_process_stops(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=2, claim_ahead=FAR) as worker,
        ):
            lane = worker.engine._lanes[Queue.HIGH]
            lane.pace, lane.measured_at = 1000.0, stores.clock.monotonic() + 3600
            caller.close()
            uids = await queued(stores, 6)
            await worker.hand_over(*uids)
            await caller.until(2)
            await worker.engine.drain(timedelta(0))
            states = Counter([(await stores.row(uid))["state"] for uid in uids])
            assert states == {"PENDING": 6}
            assert len(caller.calls) == 2

    run(scenario())


def test_what_was_claimed_too_long_ago_is_not_called_any_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LATEST_BEGIN", -1.0)

    async def scenario() -> None:
        caller = RecordingCaller()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller) as worker,
        ):
            (uid,) = await queued(stores, 1)
            await worker.hand_over(uid)
            (returned,) = await worker.witness.until_recorded(1)
            assert (returned.state, returned.reason, caller.keys) == (State.PENDING, Reason.NOT_BEGUN, [])
            assert (await stores.row(uid))["attempt"] == 0

    run(scenario())
