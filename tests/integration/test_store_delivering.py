"""Claim and record: fenced by the claim token, never early, never by a worker whose lease has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduling.domain.execution import KEEP_FIRST_ATTEMPTS, KEEP_LAST_ATTEMPTS, Attempt, Reason
from scheduling.domain.lifecycle import State
from scheduling.domain.target import AfterLostWorker, Queue, RetryPolicy
from scheduling.operations.recover import recover
from scheduling.storage import delivering
from scheduling.storage.binary import array
from scheduling.storage.database import Database
from tests.support.builders import SEND, new_job, once, send_request
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import LEAD, Stores, open_stores

NOW = START
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


async def queued(stores: Stores, count: int = 1) -> list[UUID]:
    """One-offs that are due now and released."""
    schedules = [once(stores.clock.now()) for _ in range(count)]
    await stores.create(*(new_job(stores.clock.now(), schedule=schedule) for schedule in schedules))
    await stores.release()
    return [schedule.plan_uid for schedule in schedules]


class Recovery:
    """The two stores that recovery works with, as one."""

    def __init__(self, stores: Stores) -> None:
        self.find_lost = stores.leading.find_lost
        self.record = stores.delivering.record


# --- claim ------------------------------------------------------------------------------------------------------------


def test_a_claim_takes_what_is_queued_with_the_tokens_that_were_made_beforehand(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            policy = RetryPolicy(5, SECOND, 3.0, MINUTE, HOUR, AfterLostWorker.WAIT_FOR_DEADLINE)
            uid = await stores.one_off(job_id="job", policy=policy, timeout=timedelta(seconds=7))
            await stores.release()
            token = uuid4()
            (claim,) = await stores.delivering.claim_if_queued(worker, [uid], [token], LEAD)
            assert (claim.uid, claim.token, claim.job_id, claim.target) == (uid, token, "job", SEND)
            assert (claim.request, claim.policy, claim.timeout) == (send_request(), policy, timedelta(seconds=7))
            assert (claim.attempt, claim.counted, claim.history, claim.start_time) == (1, 0, (), None)
            assert (claim.nominal_time, claim.ready_time, claim.expire_time) == (NOW, NOW, NOW + HOUR)
            row = await stores.row(uid)
            assert (row["state"], row["claim_token"], row["worker_uid"]) == ("RUNNING", token, worker)
            assert (row["claim_time"], row["attempt"], row["job_revision"]) == (NOW, 1, 1)

    run(scenario())


def test_what_is_not_yet_due_is_refused_by_the_clock_of_the_database(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uid = await stores.one_off(NOW + SECOND)
            await stores.release(SECOND)
            assert await stores.claim(worker, uid) == []
            stores.clock.advance(0.97)
            assert await stores.claim(worker, uid) == []
            stores.clock.advance(0.01)
            assert len(await stores.claim(worker, uid)) == 1

    run(scenario())


def test_a_worker_whose_lease_has_ended_claims_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker(ttl=timedelta(seconds=6))
            (uid,) = await queued(stores)
            stores.clock.advance(6)
            assert await stores.claim(worker, uid) == []
            assert await stores.delivering.claim_overdue(worker, Queue.HIGH, [uuid4()], SECOND, [SEND]) == []
            assert await stores.claim(uuid4(), uid) == []  # nor one that nobody knows
            assert await stores.state(uid) is State.QUEUED

    run(scenario())


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUCCEEDED", "FAILED"])
def test_what_is_not_queued_is_not_claimed(database_url: str, state: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker, other = await stores.worker(), await stores.worker()
            if state == "PENDING":
                uid = await stores.one_off()
            else:
                (uid,) = await queued(stores)
                (claim,) = await stores.claim(other, uid)
                if state != "RUNNING":
                    await stores.record(claim, State(state))
            assert await stores.claim(worker, uid) == []
            assert await stores.state(uid) == state

    run(scenario())


def test_two_workers_that_claim_the_same_at_once_share_it_without_overlap(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with open_stores(database_url, clock) as one, open_stores(database_url, clock) as two:
            workers = [await one.worker(), await two.worker()]
            uids = await queued(one, 300)
            claims = await asyncio.gather(
                *(
                    stores.claim(worker, *uids[start : start + 100])
                    for stores, worker in zip((one, two), workers, strict=True)
                    for start in (0, 50, 100, 150, 200)
                )
            )
            claimed = [claim.uid for part in claims for claim in part]
            assert len(claimed) == len(set(claimed))
            rest = await one.claim(workers[0], *uids)
            assert sorted([*claimed, *(claim.uid for claim in rest)]) == sorted(uids)

    run(scenario())


def test_a_claim_passes_over_the_services_that_it_is_to_avoid(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uids = await queued(stores, 2)
            other = await stores.one_off(target="media.MediaService/CleanupTempFiles")
            await stores.release()
            tokens = [uuid4() for _ in range(3)]
            avoid = [SEND.partition("/")[0]]
            found = await stores.delivering.claim_if_queued(worker, [*uids, other], tokens, LEAD, avoid=avoid)
            assert [claim.uid for claim in found] == [other]
            assert {claim.uid for claim in await stores.claim(worker, *uids)} == set(uids)

    run(scenario())


def test_the_sweep_finds_what_is_overdue_in_a_queue_and_whose_target_the_worker_knows(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            after = timedelta(milliseconds=250)
            uids = await queued(stores, 3)
            other = await stores.one_off(queue=Queue.LOW)
            unknown = await stores.one_off(target="future.Service/Method")
            await stores.release()

            async def sweep(count: int) -> list[UUID]:
                tokens = [uuid4() for _ in range(count)]
                claims = await stores.delivering.claim_overdue(worker, Queue.HIGH, tokens, after, [SEND])
                assert {claim.token for claim in claims} <= set(tokens)
                assert len({claim.token for claim in claims}) == len(claims)
                return [claim.uid for claim in claims]

            assert await sweep(10) == []
            stores.clock.advance(after)
            first = await sweep(2)
            second = await sweep(10)
            assert sorted(first + second) == sorted(uids)
            assert len(first) == 2
            for uid in (other, unknown):
                assert await stores.state(uid) is State.QUEUED

    run(scenario())


# --- record -----------------------------------------------------------------------------------------------------------


def test_a_success_leaves_for_the_history_with_its_response(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="job", retention_days=30)
            (claim,) = await stores.running(await stores.worker(), uid)
            stores.clock.advance(2)
            assert await stores.record(claim, response=b"\x01", response_type="messaging.Reply")
            assert await stores.count("executions") == 0
            row = await stores.ended(uid)
            assert row["prune_day"] == date(2031, 8, 1)
            assert row["attempts"] is None  # its own columns tell a plain success
            found = await stores.read("job", uid)
            assert (found.state, found.code, found.attempt) == (State.SUCCEEDED, 0, 1)
            assert (found.response, found.response_type) == (b"\x01", "messaging.Reply")
            assert (found.start_time, found.finish_time) == (NOW + 2 * SECOND, NOW + 2 * SECOND)
            assert found.lateness == 2 * SECOND
            (attempt,) = found.attempts
            assert (attempt.number, attempt.code, attempt.counted) == (1, 0, True)

    run(scenario())


@pytest.mark.parametrize(("days", "prune"), [(7, date(2031, 7, 9)), (0, date(2031, 7, 2)), (None, date(9999, 12, 31))])
def test_the_history_is_kept_by_the_retention_of_the_target(database_url: str, days: int | None, prune: date) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(retention_days=days)
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.record(claim)
            assert (await stores.ended(uid))["prune_day"] == prune

    run(scenario())


def test_a_retry_waits_for_its_time_and_keeps_what_was_learned(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uid = await stores.one_off(job_id="job")
            (claim,) = await stores.running(worker, uid)
            again = NOW + MINUTE
            await stores.record(claim, State.PENDING, code=14, message="down", ready_time=again)
            found = await stores.read("job", uid)
            assert (found.state, found.ready_time, found.attempt, found.code) == (State.PENDING, again, 1, 14)
            assert (found.message, found.due_time, found.start_time) == ("down", NOW, NOW)
            assert found.finish_time is None
            assert await stores.released() == []
            stores.clock.advance(MINUTE)
            (second,) = await stores.running(worker, uid)
            assert (second.attempt, second.counted, second.start_time) == (2, 1, NOW)
            assert [attempt.message for attempt in second.history] == ["down"]
            assert second.token != claim.token
            await stores.record(second)
            done = await stores.read("job", uid)
            assert [(each.number, each.code) for each in done.attempts] == [(1, 14), (2, 0)]

    run(scenario())


def test_a_failure_stays_live_with_its_errors(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="job")
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.record(claim, State.FAILED, reason=Reason.PERMANENT, code=3, message="bad request")
            row = await stores.row(uid)
            assert (row["state"], row["reason"], row["finish_time"]) == ("FAILED", "PERMANENT", NOW)
            assert (row["claim_token"], row["claim_time"]) == (None, None)
            found = await stores.read("job", uid)
            assert [each.message for each in found.attempts] == ["bad request"]
            assert await stores.count("execution_history") == 0

    run(scenario())


def test_an_uncounted_attempt_uses_up_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            (uid,) = await queued(stores)
            (claim,) = await stores.claim(worker, uid)
            await stores.record(claim, State.PENDING, reason=Reason.CONFLICT, code=10, counted=False)
            (claim,) = await stores.running(worker, uid)
            assert (claim.attempt, claim.counted) == (2, 0)
            # A call that was never begun is no attempt at all.
            await stores.record(claim, State.PENDING, reason=Reason.NOT_BEGUN, begun=False)
            row = await stores.row(uid)
            assert (row["attempt"], row["counted"], len(row["attempts"])) == (1, 0, 1)
            (claim,) = await stores.running(worker, uid)
            assert claim.attempt == 2

    run(scenario())


def test_an_outcome_with_a_token_that_no_longer_stands_changes_nothing(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            slow, other = await stores.worker(), await stores.worker()
            (uid,) = await queued(stores)
            (stale,) = await stores.claim(slow, uid)
            await stores.record(stale, State.PENDING, code=14)
            (current,) = await stores.running(other, uid)
            before = await stores.row(uid)
            for state in (State.SUCCEEDED, State.FAILED, State.PENDING, State.CANCELLED):
                assert not await stores.record(stale, state)
            assert await stores.row(uid) == before
            assert await stores.record(current)
            assert not await stores.record(current)  # and nothing is recorded twice
            assert await stores.state(uid) is State.SUCCEEDED

    run(scenario())


def test_a_batch_of_outcomes_records_each_for_itself(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uids = await queued(stores, 5)
            claims = {claim.uid: claim for claim in await stores.claim(worker, *uids)}
            stale = stores.outcome(claims[uids[4]])
            await stores.record(claims[uids[4]], State.PENDING, code=14, ready_time=NOW + HOUR)
            recorded = await stores.delivering.record(
                [
                    stores.outcome(claims[uids[0]]),
                    stores.outcome(claims[uids[1]], State.FAILED, code=3),
                    stores.outcome(claims[uids[2]], State.PENDING, code=14, ready_time=NOW + HOUR),
                    stores.outcome(claims[uids[3]], State.CANCELLED, code=1),
                    stale,
                ]
            )
            assert recorded == set(uids[:4])
            assert [await stores.state(uid) for uid in uids] == [
                State.SUCCEEDED,
                State.FAILED,
                State.PENDING,
                State.CANCELLED,
                State.PENDING,
            ]

    run(scenario())


@pytest.mark.parametrize(
    ("change", "is_recorded"),
    [("cancel_request_time = now()", True), ("claim_token = gen_random_uuid()", False)],
)
def test_a_success_waits_for_who_changes_its_row_and_asks_for_its_token_again(
    database_url: str, change: str, is_recorded: bool
) -> None:
    async def scenario() -> None:
        async with (
            open_stores(database_url) as stores,
            await psycopg.AsyncConnection.connect(database_url) as other,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        ):
            worker = await stores.worker()
            uids = await queued(stores, 3)
            claims = await stores.claim(worker, *uids)
            outcomes = [stores.outcome(claim) for claim in claims]
            await other.execute(f"UPDATE executions SET {change} WHERE uid = %s", [uids[1]])
            recording = asyncio.create_task(stores.delivering.record(outcomes))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            while (await (await watching.execute(blocked, [other.info.backend_pid])).fetchone()) == (0,):
                pass
            await other.commit()
            assert await recording == (set(uids) if is_recorded else {uids[0], uids[2]})
            assert await stores.state(uids[1]) is (State.SUCCEEDED if is_recorded else State.RUNNING)
            asked = "SELECT 1 FROM execution_history WHERE uid = %s AND cancel_request_time IS NOT NULL"
            assert len(await stores.query(asked, uids[1])) == is_recorded

    run(scenario())


def test_a_wish_to_cancel_turns_a_retry_into_the_end(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="job")
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.store.cancel_execution("job", uid)
            assert await stores.record(claim, State.PENDING, code=14, message="down")
            found = await stores.read("job", uid)
            assert (found.state, found.reason, found.message) == (State.CANCELLED, "CALLER", "down")
            assert len(found.attempts) == 1

    run(scenario())


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
def test_the_true_outcome_stands_though_a_caller_asked_to_cancel(database_url: str, state: State) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="job")
            (claim,) = await stores.running(await stores.worker(), uid)
            await stores.store.cancel_execution("job", uid)
            await stores.record(claim, state)
            assert await stores.state(uid) is state

    run(scenario())


def test_the_history_of_attempts_keeps_the_first_and_the_last(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            uid = await stores.one_off(job_id="job")
            total = KEEP_FIRST_ATTEMPTS + KEEP_LAST_ATTEMPTS + 5
            for _ in range(total):
                (claim,) = await stores.running(worker, uid)
                await stores.record(claim, State.PENDING, code=10, counted=False)
            found = await stores.read("job", uid)
            numbers = [attempt.number for attempt in found.attempts]
            assert numbers == [*range(1, 6), *range(total - KEEP_LAST_ATTEMPTS + 1, total + 1)]
            assert found.attempt == total

    run(scenario())


def test_an_attempt_comes_back_as_it_was_recorded(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uid = await stores.one_off(job_id="job")
            (claim,) = await stores.running(await stores.worker(), uid)
            attempt = Attempt(
                1,
                NOW + timedelta(microseconds=1),
                timedelta(microseconds=1500),
                "wörker",
                14,
                'läst "error" \\ \n ☃',
                True,
                "X",
            )
            outcome = stores.outcome(claim, State.FAILED)
            await stores.delivering.record([replace(outcome, attempt=attempt, history=(attempt,))])
            assert (await stores.read("job", uid)).attempts == (attempt,)

    run(scenario())


# --- the lost ---------------------------------------------------------------------------------------------------------


def test_what_a_dead_worker_left_running_is_found_and_taken_back(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            dead, alive = await stores.worker(ttl=timedelta(seconds=6)), await stores.worker()
            mine, theirs = await queued(stores, 2)
            (claim,) = await stores.claim(dead, mine)
            await stores.claim(alive, theirs)
            stores.clock.advance(5.9)
            assert await stores.leading.find_lost(term, timedelta(seconds=30)) == []
            stores.clock.advance(0.1)
            (lost,) = await stores.leading.find_lost(term, timedelta(seconds=30))
            assert (lost.uid, lost.token, lost.worker) == (mine, claim.token, dead)
            assert (lost.claim_time, lost.moment) == (NOW, NOW + timedelta(seconds=6))
            assert len(await recover(Recovery(stores), term, timedelta(seconds=30))) == 1
            row = await stores.row(mine)
            assert (row["state"], row["ready_time"], row["counted"]) == ("PENDING", stores.clock.now(), 1)
            (again,) = await stores.running(alive, mine)
            assert again.attempt == 2
            assert [attempt.reason for attempt in again.history] == ["LEASE_LOST"]
            # The dead one was only slow: what it says now comes too late.
            assert not await stores.record(claim)
            assert await stores.record(again)

    run(scenario())


def test_a_worker_that_signed_off_is_gone_at_once(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            worker = await stores.worker()
            (uid,) = await queued(stores)
            await stores.claim(worker, uid)
            await stores.leading.sign_off(worker)
            assert [each.uid for each in await stores.leading.find_lost(term, MINUTE)] == [uid]

    run(scenario())


def test_a_call_that_runs_far_over_its_deadline_is_taken_back_though_its_worker_lives(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.lead()
            uid = await stores.one_off(timeout=timedelta(seconds=10))
            await stores.running(await stores.worker(), uid)
            stores.clock.advance(40)
            assert await stores.leading.find_lost(term, timedelta(seconds=30)) == []
            stores.clock.advance(0.1)
            assert [each.uid for each in await stores.leading.find_lost(term, timedelta(seconds=30))] == [uid]

    run(scenario())


def test_under_a_term_that_has_ended_nobody_is_found_lost(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            term = await stores.leading.acquire(uuid4(), SECOND * 3)
            assert term is not None
            worker = await stores.worker(ttl=SECOND)
            (uid,) = await queued(stores)
            await stores.claim(worker, uid)
            stores.clock.advance(2)
            assert len(await stores.leading.find_lost(term, MINUTE)) == 1
            stores.clock.advance(2)
            assert await stores.leading.find_lost(term, MINUTE) == []

    run(scenario())


def test_recovery_and_a_late_outcome_at_once_lead_to_exactly_one_of_both(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with open_stores(database_url, clock) as leader, open_stores(database_url, clock) as worker:
            term = await leader.lead()
            for _ in range(20):
                identity = await worker.worker(ttl=SECOND)
                (uid,) = await queued(worker)
                (claim,) = await worker.claim(identity, uid)
                clock.advance(2)
                recorded, lost = await asyncio.gather(worker.record(claim), recover(Recovery(leader), term, MINUTE))
                assert recorded != (len(lost) == 1)
                assert await leader.state(uid) is (State.SUCCEEDED if recorded else State.PENDING)
                await leader.query("DELETE FROM executions")

    run(scenario())


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_claim_and_a_record_find_their_rows_by_key_whatever_the_planner_believes(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, Database(database_url, application="t", by_key=True) as hot:
            await queued(stores, 50)
            record: dict[str, Any] = {name: array(kind, []) for name, kind in delivering._OUTCOME.items()}
            none, targets = array("uuid", []), array("text", [SEND])
            claim = {"uids": none, "tokens": none, "lead": LEAD, "targets": targets, "alone": False, "worker": uuid4()}
            claim["avoid"] = array("text", [])
            async with hot.hot() as connection:
                for statement, values in (
                    (delivering._CLAIM, claim),
                    (delivering._RECORD, record),
                    (delivering._RECORD_SUCCESSES, record),
                ):
                    cursor = psycopg.AsyncRawCursor(connection)
                    parameters = statement.values({"now": None, **values})
                    await cursor.execute(b"EXPLAIN " + statement.text, parameters)
                    plan = "\n".join(row[0] for row in await cursor.fetchall())
                    assert "executions_pkey" in plan
                    assert "executions_queued" not in plan
                    assert "Seq Scan on executions" not in plan
                    assert "Hash Join" not in plan

    run(scenario())
