"""Release: what is due and may run goes to the workers, once, in order, within the limits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduling.domain.errors import StoreUnavailable
from scheduling.domain.execution import Reason
from scheduling.domain.job import Job, OverlapPolicy
from scheduling.domain.lifecycle import State
from scheduling.domain.limits import GateLimits
from scheduling.domain.overlap import BUFFER_LIMIT
from scheduling.domain.target import Queue, RetryPolicy
from scheduling.operations.ports import JobChange
from scheduling.storage import releasing
from scheduling.storage.database import CLIENT_SLACK
from tests.support.builders import every, new_job, once
from tests.support.clock import START, ManualClock
from tests.support.run import run
from tests.support.stores import Stores, open_stores

NOW = START
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
P = OverlapPolicy


async def many(stores: Stores, count: int, **of_job: Any) -> list[UUID]:
    """One-offs a second apart, the first of them now."""
    schedules = [once(NOW, NOW + SECOND * n) for n in range(count)]
    await stores.create(*(new_job(NOW, schedule=schedule, **of_job) for schedule in schedules))
    return [schedule.plan_uid for schedule in schedules]


# --- what is due ------------------------------------------------------------------------------------------------------


def test_only_what_is_due_is_released(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await many(stores, 10)
            stores.clock.advance(3)
            assert set(await stores.released()) == set(uids[:4])
            assert await stores.released() == []
            row = await stores.row(uids[0])
            assert (row["state"], row["queue_time"]) == ("QUEUED", stores.clock.now())

    run(scenario())


def test_what_is_due_within_the_look_ahead_is_released_early(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await many(stores, 10)
            found = await stores.release(SECOND * 2)
            assert sorted(found.by_queue[Queue.HIGH], key=lambda each: each[1]) == [
                (uid, NOW + SECOND * n) for n, uid in enumerate(uids[:3])
            ]

    run(scenario())


def test_the_oldest_go_first_when_there_is_not_room_for_all(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, batch=3) as stores:
            uids = await many(stores, 8)
            stores.clock.advance(100)
            rounds = [await stores.release() for _ in range(3)]
            assert [{uid for uid, _ in each.by_queue[Queue.HIGH]} for each in rounds] == [
                set(uids[:3]),
                set(uids[3:6]),
                set(uids[6:]),
            ]
            assert [each.more for each in rounds] == [True, True, False]

    run(scenario())


def test_no_queue_is_filled_beyond_its_depth_and_queues_do_not_share_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, queue_depth=4) as stores:
            worker = await stores.worker()
            high, low = await many(stores, 9), await many(stores, 9, queue=Queue.LOW)
            stores.clock.advance(100)
            found = await stores.released()
            assert sorted(found) == sorted(high[:4] + low[:4])
            assert await stores.released() == []
            await stores.claim(worker, *high[:2])
            assert sorted(await stores.released()) == sorted(high[4:6])

    run(scenario())


def test_a_full_queue_is_filled_again_when_a_part_of_it_is_free(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, queue_depth=16) as stores:
            worker = await stores.worker()
            uids = await many(stores, 20)
            stores.clock.advance(100)
            assert sorted(await stores.released()) == sorted(uids[:16])
            await stores.claim(worker, uids[0])
            found = await stores.release()
            assert (found.count, found.more) == (0, False)
            await stores.claim(worker, uids[1])
            assert sorted(await stores.released()) == sorted(uids[16:18])

    run(scenario())


def test_a_full_round_holds_nothing_for_the_few_that_have_no_slot_yet(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, limits=GateLimits(owner_running=1), batch=4) as stores:
            owners = ["a", "b", "a", "c", "d"]
            schedules = [once(NOW, NOW + SECOND * n) for n in range(5)]
            await stores.create(
                *(new_job(NOW, schedule=each, owner=owner) for each, owner in zip(schedules, owners, strict=True))
            )
            uids = [each.plan_uid for each in schedules]
            stores.clock.advance(100)
            first = await stores.release()
            assert {uid for uid, _ in first.by_queue[Queue.HIGH]} == {uids[0], uids[1], uids[3]}
            assert (first.held, first.more) == (0, True)
            assert (await stores.row(uids[2]))["held_by"] is None
            # The rest is no full round any more: what waits for its owner says so.
            second = await stores.release()
            assert [uid for uid, _ in second.by_queue[Queue.HIGH]] == [uids[4]]
            assert (await stores.row(uids[2]))["held_by"] == "OWNER:a"

    run(scenario())


def test_recurring_and_plain_executions_share_the_depth_of_their_queue_and_neither_starves(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, queue_depth=10) as stores:
            plain = await many(stores, 20)
            schedules = [every(NOW, MINUTE) for _ in range(20)]
            await stores.create(*(new_job(NOW, schedule=schedule) for schedule in schedules))
            recurring = {schedule.plan_uid for schedule in schedules}
            stores.clock.advance(MINUTE)
            released = set(await stores.released())
            assert len(released) == 10
            assert released & set(plain)
            assert released & recurring
            assert await stores.released() == []

    run(scenario())


def test_all_the_room_goes_to_one_kind_when_there_is_nothing_of_the_other(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url, queue_depth=10) as stores:
            schedules = [every(NOW, MINUTE) for _ in range(20)]
            await stores.create(*(new_job(NOW, schedule=schedule) for schedule in schedules))
            stores.clock.advance(MINUTE)
            total = 0
            while True:
                found = await stores.release()
                total += found.count
                if not found.more or not found.count:
                    break
            assert total == 10

    run(scenario())


def test_what_reached_its_maximum_age_before_anybody_started_it_has_failed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            policy = RetryPolicy(max_attempts=3, max_age=HOUR)
            plain = await stores.one_off(policy=policy)
            gated = await stores.one_off(policy=policy, overlap=P.SKIP)
            fresh = await stores.one_off(NOW + MINUTE, policy=policy)
            stores.clock.advance(HOUR)
            found = await stores.release()
            assert found.expired == 2
            for uid in (plain, gated):
                row = await stores.row(uid)
                assert (row["state"], row["reason"], row["finish_time"]) == ("FAILED", "EXPIRED", NOW + HOUR)
            assert await stores.state(fresh) is State.QUEUED

    run(scenario())


def test_what_waits_for_a_retry_or_in_a_queue_expires_as_well(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            worker = await stores.worker()
            policy = RetryPolicy(max_attempts=3, max_age=HOUR)
            retrying = await stores.one_off(policy=policy)
            (claim,) = await stores.running(worker, retrying)
            await stores.record(claim, State.PENDING, code=14, ready_time=NOW + HOUR * 2)
            queued = await stores.one_off(policy=policy)
            await stores.release()
            stores.clock.advance(HOUR - SECOND)
            assert (await stores.release()).expired == 0
            stores.clock.advance(1)
            assert (await stores.release()).expired == 2
            for uid in (retrying, queued):
                assert (await stores.row(uid))["reason"] == "EXPIRED"
            assert (await stores.row(retrying))["attempt"] == 1

    run(scenario())


# --- several at once --------------------------------------------------------------------------------------------------


def test_one_release_runs_at_a_time(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with open_stores(database_url, clock) as one, open_stores(database_url, clock) as two:
            await many(one, 5)
            clock.advance(100)
            async with one.database.hot() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (0x52454C45,))
                found = await two.release()
                assert (found.busy, found.count) == (True, 0)
            assert (await two.release()).count == 5

    run(scenario())


def test_two_schedulers_at_once_release_nothing_twice_and_lose_nothing(database_url: str) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with (
            open_stores(database_url, clock, batch=37) as one,
            open_stores(database_url, clock, batch=37) as two,
        ):
            uids = await many(one, 400)
            clock.advance(1000)

            async def rounds(stores: Stores) -> list[UUID]:
                found: list[UUID] = []
                for _ in range(15):
                    found += await stores.released()
                return found

            parts = await asyncio.gather(rounds(one), rounds(two))
            released = parts[0] + parts[1]
            assert len(released) == len(set(released))
            left = set(uids) - set(released)
            assert len(left) < 400
            while left:
                left -= set(await one.released())
            assert {row["state"] for row in await one.query("SELECT state FROM executions")} == {"QUEUED"}

    run(scenario())


def test_what_somebody_else_has_locked_is_left_for_the_next_round(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            plain, other = await stores.one_off(), await stores.one_off()
            gated, schedule = await stores.one_off(overlap=P.SKIP), every(NOW - MINUTE, MINUTE)
            await stores.create(new_job(NOW, schedule=schedule))
            async with stores.database.hot() as connection, connection.transaction():
                await connection.execute("SELECT 1 FROM executions WHERE uid = ANY(%s) FOR UPDATE", ([plain, gated],))
                await connection.execute("SELECT 1 FROM schedules WHERE uid = %s FOR UPDATE", (schedule.uid,))
                assert await stores.released() == [other]
            assert set(await stores.released()) == {plain, gated, schedule.plan_uid}

    run(scenario())


# --- overlap ----------------------------------------------------------------------------------------------------------


class Recurring:
    """A job that fires each minute, under a policy, step by step."""

    def __init__(self, stores: Stores, job: Job, worker: UUID) -> None:
        self.stores, self.job, self.worker = stores, job, worker

    @classmethod
    async def make(cls, stores: Stores, overlap: OverlapPolicy | None, **of_job: Any) -> Recurring:
        return cls(stores, await stores.recurring(MINUTE, overlap=overlap, **of_job), await stores.worker())

    async def fire(self) -> dict[int, str]:
        """The next minute comes; what became of each firing until now."""
        self.stores.clock.advance(MINUTE)
        await self.stores.advance()
        await self.stores.release()
        return await self.states()

    async def states(self) -> dict[int, str]:
        """State of each firing that is due, by its minute; held ones with the hold."""
        rows = [*await self.stores.plans(self.job), *await self.stores.history(self.job)]
        return {
            (row["nominal_time"] - NOW) // MINUTE: f"{row['state']} {row.get('held_by') or row['reason']}".strip()
            for row in rows
            if row["nominal_time"] <= self.stores.clock.now()
        }

    async def uid(self, minute: int) -> UUID:
        rows = [*await self.stores.plans(self.job), *await self.stores.history(self.job)]
        (uid,) = [row["uid"] for row in rows if row["nominal_time"] == NOW + MINUTE * minute]
        assert isinstance(uid, UUID)
        return uid

    async def start(self, minute: int) -> Any:
        (claim,) = await self.stores.claim(self.worker, await self.uid(minute))
        return claim


@pytest.mark.parametrize("policy", [None, P.SKIP])
def test_under_skip_a_firing_that_finds_one_open_is_skipped(database_url: str, policy: OverlapPolicy | None) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, policy)
            assert await job.fire() == {1: "QUEUED"}
            claim = await job.start(1)
            assert await job.fire() == {1: "RUNNING", 2: "SKIPPED OVERLAP"}
            await stores.record(claim, State.PENDING, code=14, ready_time=stores.clock.now() + MINUTE * 9)
            # Waiting to retry is open too.
            assert (await job.fire())[3] == "SKIPPED OVERLAP"
            await stores.store.cancel_execution(job.job.job_id, claim.uid)
            assert (await job.fire())[4] == "QUEUED"
            skipped = await stores.ended(await job.uid(2))
            assert skipped["finish_time"] == NOW + MINUTE * 2
            assert skipped["attempt"] == 0

    run(scenario())


def test_under_buffer_one_the_first_that_waits_is_kept_and_later_ones_are_skipped(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.BUFFER_ONE)
            await job.fire()
            claim = await job.start(1)
            assert (await job.fire())[2] == "PENDING OVERLAP"
            assert await job.fire() == {1: "RUNNING", 2: "PENDING OVERLAP", 3: "SKIPPED OVERLAP"}
            await stores.record(claim)
            assert await stores.released() == [await job.uid(2)]
            assert await job.states() == {1: "SUCCEEDED", 2: "QUEUED", 3: "SKIPPED OVERLAP"}
            assert (await job.fire())[4] == "PENDING OVERLAP"

    run(scenario())


def test_under_buffer_all_they_run_one_after_the_other_in_order(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.BUFFER_ALL)
            await job.fire()
            claim = await job.start(1)
            for _ in range(3):
                await job.fire()
            assert await job.states() == {1: "RUNNING", **dict.fromkeys((2, 3, 4), "PENDING OVERLAP")}
            for minute in (2, 3, 4):
                assert await stores.released() == []
                await stores.record(claim)
                assert await stores.released() == [await job.uid(minute)]
                claim = await job.start(minute)

    run(scenario())


def test_a_buffer_that_is_full_skips_with_its_own_reason(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.BUFFER_ALL)
            await job.fire()
            await job.start(1)
            await stores.query(
                "INSERT INTO executions (uid, job_uid, origin, target, queue, owner, state, nominal_time, due_time, "
                "ready_time, expire_time, overlap, held_by) SELECT gen_random_uuid(), job_uid, 'BACKFILL', target, "
                "queue, owner, 'PENDING', nominal_time, due_time, ready_time, expire_time, overlap, 'OVERLAP' "
                "FROM executions, generate_series(1, %s) WHERE state = 'RUNNING'",
                BUFFER_LIMIT,
            )
            stores.clock.advance(MINUTE)
            await stores.advance()
            found = await stores.release()
            assert (found.skipped, found.held) == (1, 0)
            assert (await stores.ended(await job.uid(2)))["reason"] == Reason.BUFFER_FULL

    run(scenario())


def test_under_cancel_other_the_new_one_waits_for_the_outcome_of_the_old(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.CANCEL_OTHER)
            await job.fire()
            claim = await job.start(1)
            assert await job.fire() == {1: "RUNNING", 2: "PENDING OVERLAP"}
            assert await stores.delivering.cancellations(job.worker) == {claim.token}
            # A third one takes the place of the second.
            assert await job.fire() == {1: "RUNNING", 2: "CANCELLED REPLACED", 3: "PENDING OVERLAP"}
            assert await stores.released() == []
            await stores.record(claim, State.CANCELLED, reason=Reason.CALLER, code=1)
            assert await stores.released() == [await job.uid(3)]

    run(scenario())


def test_under_cancel_other_what_waits_to_retry_is_dropped(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.CANCEL_OTHER)
            await job.fire()
            claim = await job.start(1)
            await stores.record(claim, State.PENDING, code=14, ready_time=NOW + HOUR)
            await job.fire()
            await stores.release()
            assert await job.states() == {1: "CANCELLED REPLACED", 2: "QUEUED"}

    run(scenario())


def test_under_terminate_other_the_new_one_does_not_wait(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.TERMINATE_OTHER)
            await job.fire()
            claim = await job.start(1)
            assert await job.fire() == {1: "RUNNING", 2: "QUEUED"}
            assert await stores.delivering.cancellations(job.worker) == {claim.token}
            assert await job.fire() == {1: "RUNNING", 2: "CANCELLED REPLACED", 3: "QUEUED"}
            # The old one's retry is dropped, whatever its worker made of it.
            await stores.record(claim, State.PENDING, code=14)
            assert (await job.states())[1] == "CANCELLED CALLER"

    run(scenario())


def test_under_terminate_other_nobody_is_ended_before_the_new_one_s_moment(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.TERMINATE_OTHER)
            await job.fire()
            await job.start(1)
            stores.clock.advance(MINUTE - SECOND / 2)
            await stores.advance()
            assert (await stores.release(SECOND)).count == 0
            assert await stores.delivering.cancellations(job.worker) == set()
            stores.clock.advance(SECOND / 2)
            assert (await stores.release(SECOND)).count == 1

    run(scenario())


def test_under_allow_all_they_run_side_by_side(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.ALLOW_ALL)
            for _ in range(3):
                await job.fire()
            assert await job.states() == dict.fromkeys((1, 2, 3), "QUEUED")

    run(scenario())


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (P.SKIP, ["QUEUED", "SKIPPED OVERLAP", "SKIPPED OVERLAP", "SKIPPED OVERLAP"]),
        (P.BUFFER_ONE, ["QUEUED", "PENDING OVERLAP", "SKIPPED OVERLAP", "SKIPPED OVERLAP"]),
        (P.BUFFER_ALL, ["QUEUED", "PENDING OVERLAP", "PENDING OVERLAP", "PENDING OVERLAP"]),
        (P.CANCEL_OTHER, ["CANCELLED REPLACED", "CANCELLED REPLACED", "CANCELLED REPLACED", "PENDING OVERLAP"]),
        (P.TERMINATE_OTHER, ["CANCELLED REPLACED", "CANCELLED REPLACED", "CANCELLED REPLACED", "QUEUED"]),
        (P.ALLOW_ALL, ["QUEUED"] * 4),
    ],
)
def test_firings_that_come_due_in_one_round_are_judged_one_after_the_other(
    database_url: str, policy: OverlapPolicy, expected: list[str]
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.lead()
            job = await stores.recurring(SECOND * 10, overlap=policy)
            for _ in range(4):
                stores.clock.advance(10)
                await stores.advance()
            await stores.release()
            rows = [*await stores.plans(job), *await stores.history(job)]
            found = {
                row["nominal_time"]: f"{row['state']} {row.get('held_by') or row['reason']}".strip()
                for row in rows
                if row["nominal_time"] <= stores.clock.now()
            }
            assert [found[time] for time in sorted(found)] == expected

    run(scenario())


def test_a_firing_that_comes_due_beside_a_retry_of_its_job_finds_it_open(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.SKIP)
            await job.fire()
            claim = await job.start(1)
            # Its retry is due just after the next firing, and both before the next round of release.
            await stores.record(claim, State.PENDING, code=14, ready_time=NOW + MINUTE * 2 + SECOND)
            stores.clock.advance(MINUTE + SECOND * 2)
            await stores.advance()
            await stores.release()
            assert await job.states() == {1: "QUEUED", 2: "SKIPPED OVERLAP"}

    run(scenario())


def test_a_held_execution_that_expires_has_failed(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(
                stores, P.BUFFER_ALL, policy=RetryPolicy(max_attempts=3, max_age=timedelta(minutes=5))
            )
            await job.fire()
            await job.start(1)
            await job.fire()
            stores.clock.advance(timedelta(minutes=5))
            await stores.release()
            assert (await job.states())[2] == "FAILED EXPIRED"

    run(scenario())


def test_runs_of_a_job_without_a_policy_may_overlap_and_with_one_they_follow_it(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for policy, count in ((None, 3), (P.SKIP, 1), (P.BUFFER_ALL, 1), (P.ALLOW_ALL, 3)):
                schedules = [once(NOW) for _ in range(3)]
                job, *_ = await stores.create(new_job(NOW, overlap=policy))
                for schedule in schedules:
                    await stores.store.add_schedule(job, schedule, principal="p", request_id="", digest=b"", limit=9)
                assert len(await stores.released()) == count, policy

    run(scenario())


def test_a_job_that_may_overlap_from_now_on_lets_go_of_what_was_held(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, P.BUFFER_ALL)
            await job.fire()
            claim = await job.start(1)
            await job.fire()
            read = await stores.store.get_job(job.job.job_id, with_payload=False)
            assert read is not None
            await stores.store.update_job(read, JobChange(overlap_policy=P.ALLOW_ALL))
            await stores.record(claim)
            assert await stores.released() == [await job.uid(2)]

    run(scenario())


def test_the_record_of_a_schedule_that_was_deleted_still_runs(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await Recurring.make(stores, None)
            stores.clock.advance(MINUTE)
            await stores.advance()
            await stores.query("DELETE FROM schedules")
            assert await stores.released() == [await job.uid(1)]

    run(scenario())


def test_look_ahead_tells_the_next_of_everything(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ahead = await stores.releasing.look_ahead()
            assert (ahead.now, ahead.next_ready, ahead.held, ahead.next_advance) == (NOW, None, False, None)
            await stores.one_off(NOW + MINUTE * 3, queue=Queue.LOW)
            await stores.one_off(NOW + HOUR)
            await stores.recurring(timedelta(minutes=7))
            ahead = await stores.releasing.look_ahead()
            assert (ahead.next_ready, ahead.next_advance) == (NOW + MINUTE * 3, NOW + MINUTE * 7)
            await stores.query("UPDATE executions SET held_by = 'OVERLAP' WHERE queue = 'LOW'")
            ahead = await stores.releasing.look_ahead()
            assert (ahead.next_ready, ahead.held) == (NOW + MINUTE * 7, True)

    run(scenario())


# --- backlogs ---------------------------------------------------------------------------------------------------------


def test_rounds_grow_with_a_backlog_and_shrink_when_postgresql_was_not_done_in_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(releasing, "FIRST_BATCH", 4)
        monkeypatch.setattr(releasing, "LEAST_BATCH", 1)
        async with open_stores(database_url, batch=12) as stores:
            for _ in range(60):
                await stores.one_off()

            async def rounds(count: int) -> list[int]:
                return [(await stores.release()).count for _ in range(count)]

            assert await rounds(4) == [4, 8, 12, 12]
            # A link that broke says nothing of how fast PostgreSQL is.
            await stores.query("ALTER TABLE executions RENAME TO away")
            with pytest.raises(StoreUnavailable):
                await stores.release()
            await stores.query("ALTER TABLE away RENAME TO executions")
            hot_timeout, stores.database.hot_timeout = stores.database.hot_timeout, -CLIENT_SLACK
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await stores.release()
            stores.database.hot_timeout = hot_timeout
            assert await rounds(6) == [1, 2, 4, 8, 9, 0]
            for _ in range(5):
                await stores.one_off()
            assert await rounds(2) == [4, 1]

    run(scenario())
