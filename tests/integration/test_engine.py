"""The delivery engine over real PostgreSQL: claims at the moment, calls, records; and what happens when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduling.delivery.channels import Answer
from scheduling.delivery.outcomes import UNSTORABLE
from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.lifecycle import State
from scheduling.domain.retry import Code
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.operations.recover import recover
from tests.support.builders import SEND, new_job, once, send_request
from tests.support.clock import FlowingClock
from tests.support.engines import LONG_TTL, OK, EngineProcess, RecordingCaller
from tests.support.proxy import Proxy
from tests.support.run import run
from tests.support.stores import Stores, open_stores

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


class Recovery:
    """The two stores that recovery works with, as one."""

    def __init__(self, stores: Stores) -> None:
        self.find_lost = stores.leading.find_lost
        self.record = stores.delivering.record


async def queued(stores: Stores, count: int = 1, *, ahead: timedelta = timedelta(0), **of_job: Any) -> list[UUID]:
    """One-offs that are due that far ahead, released."""
    now = stores.clock.now()
    schedules = [once(now, now + ahead) for _ in range(count)]
    await stores.create(*(new_job(now, schedule=schedule, **of_job) for schedule in schedules))
    await stores.release(ahead)
    return [schedule.plan_uid for schedule in schedules]


def answering(*answers: Answer) -> RecordingCaller:
    """A caller whose n-th attempt gets the n-th answer, the last one for all further."""

    async def answer(key: str, attempt: int) -> Answer:
        return answers[min(attempt, len(answers)) - 1]

    return RecordingCaller(answer)


# --- the plain way ----------------------------------------------------------------------------------------------------


def test_what_is_handed_over_is_called_at_its_moment_and_recorded(database_url: str) -> None:
    async def scenario() -> None:
        caller = answering(Answer(Code.OK, "", b"\x01", "messaging.Reply"))
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            ready = stores.clock.now() + timedelta(milliseconds=300)
            uid = await stores.one_off(ready, job_id="job", timeout=timedelta(seconds=9))
            await stores.release(SECOND)
            await worker.hand_over(uid, ready=ready)
            assert caller.calls == []
            await worker.witness.until_recorded(1)
            found = await stores.read("job", uid)
            assert (found.state, found.response) == (State.SUCCEEDED, b"\x01")
            assert found.start_time is not None
            assert found.start_time >= ready
            assert worker.engine.last_start == found.start_time
            (sent,) = caller.metadata
            assert sent["idempotency-key"] == str(uid)
            assert sent["x-scheduling-attempt"] == "1"
            assert sent["x-scheduling-job"] == "jobs/job"
            assert sent["x-scheduling-nominal-time"] == ready.isoformat()
            assert sent["traceparent"].startswith("00-")
            assert (sent["method"], sent["request"], sent["timeout"]) == (SEND, send_request().hex(), "0:00:09")
            assert worker.engine.held == frozenset()

    run(scenario())


def test_messages_that_come_twice_late_or_for_nothing_change_nothing(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            (first,) = await queued(stores)
            await worker.hand_over(first, first, uuid4())
            await worker.hand_over(first)
            await worker.witness.until_recorded(1)
            await worker.hand_over(first)
            (last,) = await queued(stores)
            await worker.hand_over(last)
            await worker.witness.until_recorded(2)
            assert caller.keys == [str(first), str(last)]

    run(scenario())


def test_what_no_message_came_for_is_found_by_the_sweep(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uids = await queued(stores, 5) + await queued(stores, 5, queue=Queue.LOW)
            await worker.witness.until_recorded(10)
            assert sorted(caller.keys) == sorted(map(str, uids))
            assert worker.witness.swept_count == 10

    run(scenario())


def test_a_sweep_that_found_more_than_slots_goes_on_at_once(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        hour = timedelta(hours=1)
        async with (
            open_stores(database_url, clock) as stores,
            EngineProcess(stores, RecordingCaller(), slots=2, sweep_after=hour, ttl=hour * 3) as worker,
        ):
            uids = await queued(stores, 9)
            worker.engine.renew_lease(float("inf"))
            # One sweep comes due, and no second one.
            clock.advance(hour + SECOND)
            await worker.witness.until_recorded(9)
            assert worker.witness.swept_count == 9
            assert [await stores.state(uid) for uid in uids] == [State.SUCCEEDED] * 9

    run(scenario())


def test_what_waits_for_its_moment_can_be_taken_out_for_others(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        async with open_stores(database_url, clock) as stores, EngineProcess(stores, RecordingCaller()) as worker:
            (uid,) = await queued(stores, ahead=MINUTE)
            ready = clock.now() + MINUTE
            await worker.hand_over(uid, ready=ready)
            assert worker.engine.take_waiting() == {Queue.HIGH: [(uid, ready)]}
            assert worker.engine.take_waiting() == {}
            assert worker.engine.waiting(Queue.HIGH) == 0
            # It may come back.
            await worker.hand_over(uid, ready=ready)
            assert worker.engine.waiting(Queue.HIGH) == 1

    run(scenario())


def test_a_retry_takes_the_pause_that_the_policy_or_the_target_says(database_url: str) -> None:
    async def scenario() -> None:
        caller = answering(Answer(Code.UNAVAILABLE, "down"), Answer(Code.UNAVAILABLE, "down", pushback=MINUTE), OK)
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job")
            pauses = []
            for attempt in (1, 2, 3):
                await stores.release()
                await worker.beat()
                await worker.hand_over(uid)
                await worker.witness.until_recorded(attempt)
                found = await stores.read("job", uid)
                if attempt < 3:
                    assert found.state is State.PENDING
                    ended = found.attempts[-1].start_time + found.attempts[-1].duration
                    pauses.append((found.ready_time - ended).total_seconds())
                    stores.clock.advance(found.ready_time - stores.clock.now())
            assert pauses == pytest.approx([1.0, 60.0], abs=0.5)
            assert found.state is State.SUCCEEDED
            assert [(each.number, each.code, each.message) for each in found.attempts] == [
                (1, 14, "down"),
                (2, 14, "down"),
                (3, 0, ""),
            ]
            assert caller.calls == [(str(uid), 1), (str(uid), 2), (str(uid), 3)]

    run(scenario())


def test_calls_that_exhaust_their_attempts_end_in_failed_with_their_errors(database_url: str) -> None:
    async def scenario() -> None:
        caller = answering(Answer(Code.UNAVAILABLE, "down"))
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job", policy=RetryPolicy(2, timedelta(milliseconds=1)))
            for attempt in (1, 2):
                stores.clock.advance(0.01)
                await stores.release()
                await worker.hand_over(uid)
                await worker.witness.until_recorded(attempt)
            found = await stores.read("job", uid)
            assert (found.state, found.reason, found.attempt) == (State.FAILED, "ATTEMPTS_EXHAUSTED", 2)

    run(scenario())


@pytest.mark.parametrize(("unsent", "is_failure"), [("POOL_OVERFLOW", False), ("NOT_CONNECTED", True)])
def test_a_call_that_the_sidecar_never_sent_is_made_again_and_counts_for_nothing(
    database_url: str, unsent: str, is_failure: bool
) -> None:
    async def scenario() -> None:
        caller = answering(Answer(Code.UNAVAILABLE, "local", unsent=unsent))
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job", policy=RetryPolicy(1, timedelta(milliseconds=1)))
            for attempt in (1, 2, 3):
                await stores.release()
                await worker.hand_over(uid)
                await worker.witness.until_recorded(attempt)
                stores.clock.advance(1.01)
            found = await stores.read("job", uid)
            assert (found.state, found.attempt) == (State.PENDING, 3)
            assert [(each.counted, each.reason) for each in found.attempts] == [(False, unsent)] * 3
            # Breakers are told before the next outcome is recorded, so of the last one perhaps not yet. A full pool is
            # no sign that the target is down; nobody to connect to is.
            told = [row["failures"] for row in await stores.query("SELECT failures FROM breakers")]
            assert told in (([2], [3]) if is_failure else ([],))

    run(scenario())


def test_no_more_calls_are_under_way_than_a_queue_has_slots(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=3) as worker,
        ):
            uids = await queued(stores, 10)
            await worker.hand_over(*uids)
            await caller.until(3)
            assert worker.engine.in_flight(Queue.HIGH) == 3
            assert worker.engine.waiting(Queue.HIGH) == 7
            caller.open()
            await worker.witness.until_recorded(10)
            assert caller.most_under_way == 3
            assert sorted(caller.keys) == sorted(map(str, uids))

    run(scenario())


def test_an_engine_that_is_full_lets_the_next_message_wait(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with (
            open_stores(database_url, FlowingClock()) as stores,
            EngineProcess(stores, caller, slots=2, capacity=5) as worker,
        ):
            uids = await queued(stores, 9)
            await worker.hand_over(*uids[:7])
            await caller.until(2)
            waiting = asyncio.create_task(worker.hand_over(*uids[7:]))
            done, _ = await asyncio.wait({waiting}, timeout=0)
            assert not done
            caller.open()
            await waiting
            await worker.witness.until_recorded(9)
            assert len(caller.calls) == 9

    run(scenario())


# --- broken calls -----------------------------------------------------------------------------------------------------


def test_a_call_that_breaks_in_this_process_still_has_an_outcome(database_url: str) -> None:
    async def scenario() -> None:
        async def explode(key: str, attempt: int) -> Answer:
            raise RuntimeError("a defect")

        caller = RecordingCaller(explode)
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job")
            await stores.release()
            await worker.hand_over(uid)
            await worker.witness.until_recorded(1)
            found = await stores.read("job", uid)
            assert (found.state, found.code) == (State.PENDING, Code.UNKNOWN)
            assert "a defect" not in found.message

    run(scenario())


def test_an_outcome_whose_text_cannot_be_stored_is_stored_without_it_and_stops_no_other(database_url: str) -> None:
    async def scenario() -> None:
        bad: set[str] = set()

        async def answer(key: str, attempt: int) -> Answer:
            return Answer(Code.UNAVAILABLE, "NUL \0 in a text") if key in bad else OK

        caller = RecordingCaller(answer)
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uids = await queued(stores, 4)
            bad.add(str(uids[1]))
            await worker.hand_over(*uids)
            await caller.until(4)
            caller.open()
            await worker.witness.until_recorded(4)
            states = [await stores.state(uid) for uid in uids]
            assert states == [State.SUCCEEDED, State.PENDING, State.SUCCEEDED, State.SUCCEEDED]
            row = await stores.row(uids[1])
            assert (row["code"], row["message"], row["counted"]) == (Code.UNAVAILABLE, UNSTORABLE, 1)

    run(scenario())


def test_a_running_call_is_cancelled_at_a_caller_s_wish_and_never_tried_again(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job")
            await stores.release()
            await worker.hand_over(uid)
            await caller.until(1)
            await worker.canceller.tick()
            assert caller.cancelled == []
            await stores.store.cancel_execution("job", uid)
            await worker.canceller.tick()
            await worker.witness.until_recorded(1)
            assert caller.cancelled == [str(uid)]
            found = await stores.read("job", uid)
            assert (found.state, found.reason) == (State.CANCELLED, "CALLER")
            assert [each.reason for each in found.attempts] == ["CALLER"]

    run(scenario())


def test_a_call_that_got_through_although_it_was_to_be_cancelled_is_a_success(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            uid = await stores.one_off(job_id="job")
            await stores.release()
            await worker.hand_over(uid)
            await caller.until(1)
            await stores.store.cancel_execution("job", uid)
            caller.open()
            await worker.witness.until_recorded(1)
            assert await stores.state(uid) is State.SUCCEEDED

    run(scenario())


# --- leases and crashes -----------------------------------------------------------------------------------------------


def test_what_a_killed_worker_was_calling_runs_again_elsewhere_and_its_late_word_is_not_heard(
    database_url: str,
) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, clock) as stores, open_stores(database_url, clock) as other:
            term = await stores.lead()
            async with EngineProcess(stores, caller) as first:
                uids = await queued(stores, 3)
                await first.hand_over(*uids)
                await caller.until(3)
                (row, *_) = await stores.query("SELECT * FROM executions WHERE uid = %s", uids[0])
                stale_token = row["claim_token"]
                await first.die()
            clock.advance(LONG_TTL.total_seconds())
            second_caller = RecordingCaller()
            async with EngineProcess(other, second_caller) as second:
                assert len(await recover(Recovery(stores), term, MINUTE)) == 3
                await stores.release()
                await second.hand_over(*uids)
                await second.witness.until_recorded(3)
                assert sorted(second_caller.calls) == sorted((str(uid), 2) for uid in uids)
            late = [outcome for outcome in second.witness.outcomes if outcome.uid == uids[0]]
            assert await stores.delivering.record([replace(late[0], token=stale_token, state=State.FAILED)]) == set()
            assert [await stores.state(uid) for uid in uids] == [State.SUCCEEDED] * 3
            found = await stores.ended(uids[0])
            assert [each["r"] for each in found["attempts"]] == ["LEASE_LOST", ""]

    run(scenario())


def test_what_was_claimed_and_not_yet_called_when_its_worker_died_is_not_lost(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        async with open_stores(database_url, clock) as stores:
            term = await stores.lead()
            async with EngineProcess(stores, caller, claim_lead=MINUTE) as first:
                (uid,) = await queued(stores, ahead=SECOND * 30)
                await first.hand_over(uid, ready=clock.now() + SECOND * 30)
                await first.witness.changed.until(lambda: first.witness.claimed_count == 1)
                await first.die()
            assert caller.calls == []
            clock.advance(LONG_TTL.total_seconds())
            assert len(await recover(Recovery(stores), term, MINUTE)) == 1
            async with EngineProcess(stores, caller) as second:
                await stores.release()
                await second.hand_over(uid)
                await second.witness.until_recorded(1)
            assert await stores.state(uid) is State.SUCCEEDED

    run(scenario())


def test_a_handler_that_never_ends_is_taken_from_a_worker_that_lives(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        stuck = RecordingCaller()
        stuck.close()
        async with open_stores(database_url, clock) as stores:
            term = await stores.lead()
            async with EngineProcess(stores, stuck) as worker:
                uid = await stores.one_off(timeout=SECOND * 2, job_id="job")
                await stores.release()
                await worker.hand_over(uid)
                await stuck.until(1)
                clock.advance(33)
                await worker.beat()
                assert len(await recover(Recovery(stores), term, SECOND * 30)) == 1
                await stores.release()
                other = RecordingCaller()
                async with EngineProcess(stores, other) as second:
                    await second.hand_over(uid)
                    await second.witness.until_recorded(1)
                # The stuck call ends at last, and loses.
                stuck.open()
                await worker.witness.changed.until(lambda: len(worker.witness.codes) == 1)
                (last,) = await queued(stores)
                await worker.hand_over(last)
                await worker.witness.until_recorded(1)
                assert [outcome.uid for outcome in worker.witness.outcomes] == [last]
                found = await stores.read("job", uid)
                assert (found.state, found.attempt) == (State.SUCCEEDED, 2)

    run(scenario())


def test_a_worker_that_was_cut_off_cancels_its_calls_and_tells_their_outcomes_later(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, clock) as stores, EngineProcess(stores, caller) as worker:
            (uid,) = await queued(stores)
            await worker.hand_over(uid)
            await caller.until(1)
            await worker.lease.guard()
            assert caller.cancelled == []
            clock.advance(LONG_TTL.total_seconds())
            await worker.lease.guard()
            await worker.witness.until_recorded(1)
            assert caller.cancelled == [str(uid)]
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["counted"]) == ("PENDING", "LEASE_LOST", 1)
            # At once, without backoff.
            assert row["ready_time"] <= clock.now()

    run(scenario())


def test_a_worker_without_a_lease_begins_no_call(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        async with (
            open_stores(database_url, clock) as stores,
            EngineProcess(stores, caller, claim_lead=MINUTE) as worker,
        ):
            (uid,) = await queued(stores, ahead=SECOND * 30)
            await worker.hand_over(uid, ready=clock.now() + SECOND * 30)
            await worker.witness.changed.until(lambda: worker.witness.claimed_count == 1)
            clock.advance(31)
            await worker.witness.until_recorded(1)
            assert caller.calls == []
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["attempt"], row["counted"]) == ("PENDING", "NOT_BEGUN", 0, 0)

    run(scenario())


def test_a_drain_lets_calls_end_and_gives_back_what_has_not_begun(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        caller.close()
        async with (
            open_stores(database_url, clock) as stores,
            EngineProcess(stores, caller, claim_lead=MINUTE) as worker,
        ):
            (running,) = await queued(stores)
            (ahead,) = await queued(stores, ahead=SECOND * 30)
            await worker.hand_over(running)
            await worker.hand_over(ahead, ready=clock.now() + SECOND * 30)
            await caller.until(1)
            await worker.witness.changed.until(lambda: worker.witness.claimed_count == 2)
            drain = asyncio.create_task(worker.engine.drain(MINUTE))
            await worker.witness.until_recorded(1)
            assert (await stores.row(ahead))["reason"] == "NOT_BEGUN"
            caller.open()
            await drain
            assert await stores.state(running) is State.SUCCEEDED
            row = await stores.row(ahead)
            assert (row["state"], row["attempt"]) == ("PENDING", 0)
            assert caller.keys == [str(running)]
            assert worker.engine.held == frozenset()
            # Nothing more is taken.
            await worker.hand_over(ahead)
            assert worker.engine.waiting(Queue.HIGH) == 0

    run(scenario())


def test_a_drain_that_takes_too_long_cancels_and_records(database_url: str) -> None:
    async def scenario() -> None:
        caller = RecordingCaller()
        caller.close()
        async with open_stores(database_url, FlowingClock()) as stores, EngineProcess(stores, caller) as worker:
            (uid,) = await queued(stores)
            await worker.hand_over(uid)
            await caller.until(1)
            await worker.engine.drain(timedelta(milliseconds=50))
            assert caller.cancelled == [str(uid)]
            row = await stores.row(uid)
            assert (row["state"], row["counted"]) == ("PENDING", 1)

    run(scenario())


# --- broken links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("break_", ["refuse", "cut", "hang"])
def test_an_outcome_that_cannot_be_recorded_is_kept_and_recorded_later(database_url: str, break_: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        caller.close()
        async with (
            Proxy(database_url) as proxy,
            open_stores(database_url, clock) as direct,
            open_stores(proxy.url, clock) as stores,
            EngineProcess(stores, caller) as worker,
        ):
            uids = await queued(direct, 5)
            await worker.hand_over(*uids)
            await caller.until(5)
            connections = proxy.connections
            getattr(proxy, break_)()
            caller.open()
            await worker.witness.changed.until(lambda: len(worker.witness.codes) == 5)
            if break_ == "refuse":
                # It has been tried.
                await proxy.changed.until(lambda: proxy.connections > connections)
            proxy.restore()
            await worker.witness.until_recorded(5)
            assert [await direct.state(uid) for uid in uids] == [State.SUCCEEDED] * 5
            assert len(caller.calls) == 5

    run(scenario())


def test_an_outcome_whose_answer_was_lost_is_not_counted_twice(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = answering(Answer(Code.UNAVAILABLE, "down"))
        async with (
            Proxy(database_url) as proxy,
            open_stores(database_url, clock) as direct,
            open_stores(proxy.url, clock, size=1) as stores,
            EngineProcess(stores, caller) as worker,
        ):
            (uid,) = await queued(direct)
            proxy.lose_next_answer(after=b"ended AS")
            await worker.hand_over(uid)
            await proxy.changed.until(lambda: proxy.lost == 1)
            (last,) = await queued(direct)
            await worker.hand_over(last)
            await worker.witness.until_recorded(1)
            row = await direct.row(uid)
            assert (row["state"], row["attempt"], row["counted"], len(row["attempts"])) == ("PENDING", 1, 1, 1)

    run(scenario())


def test_a_claim_whose_answer_was_lost_is_given_back_at_the_next_heartbeat(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        async with (
            Proxy(database_url) as proxy,
            open_stores(database_url, clock) as direct,
            open_stores(proxy.url, clock, size=1) as stores,
            EngineProcess(stores, caller) as worker,
        ):
            (uid,) = await queued(direct)
            proxy.lose_next_answer(after=b"claim_token = mine.token")
            await worker.hand_over(uid)
            await proxy.changed.until(lambda: proxy.lost == 1)
            assert await direct.state(uid) is State.RUNNING
            while not worker.witness.outcomes:
                clock.advance(0.5)
                with contextlib.suppress(StoreUnavailable):
                    await worker.beat()
            row = await direct.row(uid)
            assert (row["state"], row["reason"], row["attempt"], row["counted"]) == ("PENDING", "NOT_BEGUN", 0, 0)
            assert caller.calls == []
            await direct.release()
            await worker.hand_over(uid)
            await worker.witness.until_recorded(2)
            assert caller.calls == [(str(uid), 1)]

    run(scenario())


def test_without_postgresql_an_engine_waits_and_goes_on_when_it_is_back(database_url: str) -> None:
    async def scenario() -> None:
        clock = FlowingClock()
        caller = RecordingCaller()
        async with (
            Proxy(database_url) as proxy,
            open_stores(database_url, clock) as direct,
            open_stores(proxy.url, clock) as stores,
            EngineProcess(stores, caller, ttl=timedelta(hours=1)) as worker,
        ):
            worker.engine.renew_lease(clock.monotonic() + 3600)
            uids = await queued(direct, 5)
            connections = proxy.connections
            proxy.refuse()
            await worker.hand_over(*uids)
            await proxy.changed.until(lambda: proxy.connections > connections)
            assert caller.calls == []
            proxy.restore()
            await worker.witness.until_recorded(5)
            assert sorted(caller.keys) == sorted(map(str, uids))

    run(scenario())
