"""Operations in bulk on real PostgreSQL: each matching one once, at the rate, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from scheduling.delivery.targets import TargetTable
from scheduling.domain.bulk import Operation, OperationState
from scheduling.domain.errors import AlreadyExists, InvalidRequest, NotFound
from scheduling.domain.execution import Claim
from scheduling.domain.filters import parse_filter
from scheduling.domain.lifecycle import State
from scheduling.operations import bulk
from scheduling.operations.drafts import ListQuery, Repeat
from scheduling.operations.executions import EXECUTION_FIELDS
from scheduling.operations.ports import PageRequest, Ports
from scheduling.storage import pieces, selecting
from scheduling.storage.backfilling import BackfillStore
from scheduling.storage.executions import filter_columns
from scheduling.storage.lists import page_bounds, uid_key
from scheduling.storage.pruning import PruningStore
from scheduling.storage.stepping import Step, SteppingStore
from scheduling.storage.tables import executions
from tests.integration.test_operations_repeats import ports_of
from tests.integration.test_store_redriving import backfilled, dead_letter
from tests.support.builders import new_job, once
from tests.support.run import run
from tests.support.stores import Stores, open_stores

PRINCIPAL = "spiffe://cluster.local/ns/whispr/sa/operator"
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
ALL = "state = FAILED"


async def letters(stores: Stores, count: int, **of_job: Any) -> list[UUID]:
    """Dead letters of as many jobs."""
    now = stores.clock.now()
    schedules = [once(now) for _ in range(count)]
    await stores.create(*(new_job(now, schedule=schedule, **of_job) for schedule in schedules))
    uids = [schedule.plan_uid for schedule in schedules]
    await stores.query(
        "UPDATE executions SET state = 'FAILED', reason = 'PERMANENT', code = 3, attempt = 1, counted = 1, "
        "finish_time = %s WHERE uid = ANY(%s)",
        now,
        uids,
    )
    return uids


async def retry(ports: Ports, filter_: str = ALL, job_id: str | None = None, rate: int = 0, **more: Any) -> Operation:
    return await bulk.batch_retry_executions(
        ports, PRINCIPAL, job_id, filter_, rate, more.pop("repeat", Repeat()), **more
    )


async def cancel(ports: Ports, filter_: str, rate: int = 0, **more: Any) -> Operation:
    return await bulk.batch_cancel_jobs(ports, PRINCIPAL, filter_, rate, more.pop("repeat", Repeat()), **more)


async def erase(
    ports: Ports, owner: str | None = None, label: tuple[str, str] | None = None, rate: int = 0, **more: Any
) -> Operation:
    return await bulk.erase_jobs(ports, PRINCIPAL, owner, label, rate, more.pop("repeat", Repeat()), **more)


async def again(stores: Stores, operation: Operation) -> Operation:
    assert operation.uid is not None
    found = await stores.store.get_operation(operation.uid)
    assert found is not None
    return found


async def step(stores: Stores, stepping: SteppingStore | None = None) -> Sequence[Step]:
    """What is to be done at this moment."""
    if not stores.term:
        await stores.lead()
    steps, _ = await (stepping or SteppingStore(stores.database)).step_operations(stores.term)
    return steps


async def worked_off(stores: Stores, operation: Operation, stepping: SteppingStore | None = None) -> Operation:
    """The operation when it has ended, as time goes by."""
    stepping = stepping or SteppingStore(stores.database)
    for _ in range(200):
        await step(stores, stepping)
        operation = await again(stores, operation)
        if operation.state is not OperationState.RUNNING:
            return operation
        stores.clock.advance(SECOND)
    raise AssertionError(f"it does not end: {operation}")


async def states(stores: Stores, uids: Sequence[UUID]) -> set[State]:
    found = await stores.query(
        "SELECT uid, state FROM executions WHERE uid = ANY(%s) UNION ALL "
        "SELECT uid, state FROM execution_history WHERE uid = ANY(%s)",
        list(uids),
        list(uids),
    )
    assert len(found) == len(uids)
    return {State(row["state"]) for row in found}


async def moved_of(stores: Stores, uids: Sequence[UUID]) -> int:
    """How many of them wait."""
    (row,) = await stores.query(
        "SELECT count(*) AS n FROM executions WHERE uid = ANY(%s) AND state = 'PENDING'", list(uids)
    )
    return int(row["n"])


# --- retry ------------------------------------------------------------------------------------------------------------


def test_all_dead_letters_that_match_are_redriven_once_and_no_others(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            meant, others = await letters(stores, 30, owner="u-1"), await letters(stores, 5, owner="u-2")
            waiting = await stores.one_off(stores.clock.now() + HOUR, owner="u-1")
            dry = await retry(ports, 'owner = "u-1" AND code = 3', validate_only=True)
            assert (dry.total, dry.total_is_partial, dry.name) == (30, False, "")
            assert await stores.count("operations") == 0
            stores.clock.advance(MINUTE)
            started = await retry(ports, 'owner = "u-1" AND code = 3')
            assert (started.state, started.total, started.done) == (OperationState.RUNNING, 30, 0)
            ended = await worked_off(stores, started)
            assert (ended.state, ended.done, ended.passed, ended.failed) == (OperationState.DONE, 30, 0, 0)
            assert ended.end_time is not None
            assert (await states(stores, meant), await states(stores, others)) == ({State.PENDING}, {State.FAILED})
            row = await stores.row(meant[0])
            assert (row["attempt"], row["counted"]) == (1, 0)
            assert (await stores.row(waiting))["queue_time"] is None
            # What fails again is no longer its business.
            await stores.query("UPDATE executions SET state = 'FAILED', finish_time = %s", stores.clock.now())
            assert await step(stores) == []

    run(scenario())


@pytest.mark.parametrize(
    ("filter_", "count"),
    [
        ('target = "messaging.MessagingService/SendScheduledMessage"', 4),
        ("code = 14", 0),
        ('finish_time > "2100-01-01T00:00:00Z"', 0),
        ('finish_time < "2100-01-01T00:00:00Z" AND reason = PERMANENT', 4),
        ("state = PENDING", 0),
        ("NOT owner = u-3", 3),
        ("attempt_count >= 1 AND queue = HIGH", 4),
    ],
)
def test_a_filter_chooses_dead_letters(database_url: str, targets: TargetTable, filter_: str, count: int) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await letters(stores, 3)
            await letters(stores, 1, owner="u-3")
            assert (await retry(ports_of(stores, targets), filter_, validate_only=True)).total == count

    run(scenario())


def test_dead_letters_of_one_job_need_no_filter(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            job, uid = await dead_letter(stores)
            await letters(stores, 3)
            ended = await worked_off(stores, await retry(ports, "", job.job_id))
            assert (ended.done, await stores.state(uid)) == (1, State.PENDING)
            with pytest.raises(InvalidRequest):
                await retry(ports, " ")
            with pytest.raises(NotFound):
                await retry(ports, "", "nobody")

    run(scenario())


def test_what_belongs_to_a_cancelled_job_does_not_match(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job, uid = await dead_letter(stores)
            await stores.store.cancel_job(job.job_id, None)
            ended = await worked_off(stores, await retry(ports_of(stores, targets)))
            assert (ended.total, ended.done, await stores.state(uid)) == (0, 0, State.FAILED)

    run(scenario())


def test_no_more_are_moved_than_the_rate_says(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            stores.clock.advance(MINUTE)
            uids = await letters(stores, 20)
            await retry(ports_of(stores, targets), rate=5)
            moved = []
            for _ in range(4):
                before = await moved_of(stores, uids)
                for _ in range(10):
                    await step(stores)
                    stores.clock.advance(SECOND / 10)
                moved.append(await moved_of(stores, uids) - before)
            # At its very beginning one piece more may fall into a second.
            assert moved[0] <= 6
            assert max(moved[1:]) <= 6
            assert sum(moved) >= 15

    run(scenario())


def test_a_walk_over_many_stretches_leaves_none_out(
    database_url: str, targets: TargetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "STRETCH", 7)
    monkeypatch.setattr(selecting.find, "__kwdefaults__", {**(selecting.find.__kwdefaults__ or {}), "stretch": 7})
    monkeypatch.setattr(selecting, "COUNTED_STRETCH", 9)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            meant: list[UUID] = []
            for _ in range(5):
                meant += await letters(stores, 4, owner="u-1")
                await letters(stores, 20, owner="u-2")
            started = await retry(ports, "owner = u-1")
            assert (started.total, started.total_is_partial) == (20, False)
            ended = await worked_off(stores, started)
            assert (ended.done, await states(stores, meant)) == (20, {State.PENDING})

    run(scenario())


def test_a_bad_row_is_told_and_the_others_go_on(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await letters(stores, 30)
            bad = sorted(uids)[11]
            await stores.query(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END $$"
            )
            await stores.query(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON executions FOR EACH ROW WHEN (OLD.uid = '{bad}') "
                "EXECUTE FUNCTION refuse()"
            )
            ended = await worked_off(stores, await retry(ports_of(stores, targets)))
            assert (ended.state, ended.done, ended.failed) == (OperationState.DONE, 29, 1)
            assert ended.failures == (f"{bad} CheckViolation",)
            assert await states(stores, [uid for uid in uids if uid != bad]) == {State.PENDING}

    run(scenario())


def test_what_others_hold_is_passed_over_and_done_when_it_is_free(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores, open_stores(database_url, stores.clock) as other:
            uids = await letters(stores, 10)
            started = await retry(ports_of(stores, targets))
            async with other.database.hot() as connection, connection.transaction():
                await connection.execute(
                    "SELECT 1 FROM jobs WHERE uid = (SELECT job_uid FROM executions WHERE uid = %s) FOR UPDATE",
                    [uids[4]],
                )
                await step(stores)
                held = await again(stores, started)
                assert (held.state, held.done, held.passed) == (OperationState.RUNNING, 9, 1)
            ended = await worked_off(stores, started)
            assert (ended.done, ended.passed, await states(stores, uids)) == (10, 0, {State.PENDING})

    run(scenario())


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_jobs_that_match_are_cancelled_as_by_one_call_each(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            spring = {"campaign": "spring"}
            waiting = [await stores.one_off(stores.clock.now() + HOUR, labels=spring) for _ in range(8)]
            recurring = await stores.recurring(MINUTE, labels=spring)
            running = await stores.one_off(labels=spring)
            (claim,) = await stores.running(await stores.worker(), running)
            other = await stores.one_off(stores.clock.now() + HOUR)
            started = await cancel(ports, "labels.campaign = spring")
            assert started.total == 10
            ended = await worked_off(stores, started)
            assert (ended.state, ended.done) == (OperationState.DONE, 10)
            assert (await states(stores, waiting), await stores.state(other)) == ({State.CANCELLED}, State.PENDING)
            assert {row["state"] for row in await stores.history(recurring)} == {"CANCELLED"}
            (row,) = await stores.query(
                "SELECT evaluated_until = 'infinity' AS over FROM schedules WHERE kind <> 'ONCE'"
            )
            assert row["over"]
            assert (await stores.row(running))["cancel_request_time"] is not None
            # Its true outcome counts, and it is not tried again.
            await stores.record(claim, State.PENDING, code=14)
            assert await stores.state(running) is State.CANCELLED
            assert (await cancel(ports, "labels.campaign = spring", validate_only=True)).total == 0
            stores.clock.advance(HOUR)
            await stores.advance()
            assert await stores.plans(recurring) == []

    run(scenario())


@pytest.mark.parametrize(
    ("filter_", "count"),
    [("owner = u-1", 3), ("owner = u-1 AND state = ACTIVE", 3), ('job_id = "job-*"', 5), ("state = CANCELLED", 0)],
)
def test_a_filter_chooses_jobs(database_url: str, targets: TargetTable, filter_: str, count: int) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for owner in ("u-1", "u-1", "u-1", "u-2", "u-2"):
                await stores.one_off(stores.clock.now() + HOUR, owner=owner)
            await stores.one_off(stores.clock.now() + HOUR, owner="u-1", job_id="ended")
            await stores.store.cancel_job("ended", None)
            assert (await cancel(ports_of(stores, targets), filter_, validate_only=True)).total == count

    run(scenario())


def test_a_job_with_more_than_fits_into_a_piece_is_done_in_several(
    database_url: str, targets: TargetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BUDGET", 5)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await many_runs(stores, 23)
            small = [await stores.one_off(stores.clock.now() + HOUR) for _ in range(12)]
            ended = await worked_off(stores, await cancel(ports_of(stores, targets), "state = ACTIVE"))
            assert (ended.done, await states(stores, [*uids, *small])) == (13, {State.CANCELLED})

    run(scenario())


def test_all_that_a_cancelled_job_has_running_is_asked_to_stop_however_much_it_is(
    database_url: str, targets: TargetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BUDGET", 5)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await many_runs(stores, 23)
            await stores.query("UPDATE executions SET state = 'RUNNING', claim_token = gen_random_uuid()")
            ended = await worked_off(stores, await cancel(ports_of(stores, targets), "state = ACTIVE"))
            assert (ended.done, ended.passed) == (1, 0)
            rows = await stores.query("SELECT state FROM executions WHERE cancel_request_time IS NULL")
            assert rows == []

    run(scenario())


async def many_runs(stores: Stores, count: int, **of_job: Any) -> list[UUID]:
    """One job with so many waiting executions."""
    first = await stores.one_off(stores.clock.now() + HOUR, **of_job)
    await stores.query(
        "INSERT INTO executions SELECT (jsonb_populate_record(e, jsonb_build_object('uid', gen_random_uuid(), "
        "'origin', 'MANUAL', 'schedule_uid', NULL))).* FROM executions e, generate_series(2, %s) WHERE e.uid = %s",
        count,
        first,
    )
    rows = await stores.query(
        "SELECT uid FROM executions WHERE job_uid = (SELECT job_uid FROM executions WHERE uid = %s)", first
    )
    return [row["uid"] for row in rows]


def test_the_backfills_of_a_cancelled_job_end_with_it(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job = await backfilled(stores)
            await worked_off(stores, await cancel(ports_of(stores, targets), f"job_id = {job.job_id}"))
            (row,) = await stores.query("SELECT state FROM backfills")
            assert row["state"] == "CANCELLED"
            assert await BackfillStore(stores.database).step_backfills(stores.term) == 0

    run(scenario())


# --- erase ------------------------------------------------------------------------------------------------------------

TABLES = ("jobs", "schedules", "executions", "execution_history", "schedule_gaps", "backfills")


async def of_every_kind(stores: Stores, owner: str, labels: dict[str, str] | None = None) -> Claim:
    """Something waiting, recurring, failed, ended and running; the claim of the latter."""
    later = stores.clock.now() + HOUR
    await stores.one_off(later, owner=owner, labels=labels)
    await stores.recurring(MINUTE, owner=owner, labels=labels)
    await letters(stores, 2, owner=owner, labels=labels)
    worker = await stores.worker()
    done = await stores.one_off(owner=owner, labels=labels)
    (claim,) = await stores.running(worker, done)
    await stores.record(claim)
    running = await stores.one_off(owner=owner, labels=labels)
    (claim,) = await stores.running(worker, running)
    return claim


async def left_of(stores: Stores, owner: str) -> set[str]:
    """The tables in which anything of an owner is found, by its name or by its jobs."""
    found = set()
    for table in ("jobs", "executions", "execution_history", "owner_days"):
        if await stores.query(f"SELECT 1 FROM {table} WHERE owner = %s", owner):
            found.add(table)
    for table in ("schedules", "executions", "execution_history", "backfills"):
        if await stores.query(f"SELECT 1 FROM {table} WHERE job_uid NOT IN (SELECT uid FROM jobs)"):
            found.add(f"{table} without a job")
    if await stores.query("SELECT 1 FROM schedule_gaps WHERE schedule_uid NOT IN (SELECT uid FROM schedules)"):
        found.add("schedule_gaps without a schedule")
    return found


@pytest.mark.parametrize("by", ["owner", "label"])
def test_nothing_of_the_erased_is_left_once_its_calls_have_ended(
    database_url: str, targets: TargetTable, by: str
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            claim = await of_every_kind(stores, "u-1", {"account": "a-1"})
            await of_every_kind(stores, "u-2", {"account": "a-2"})
            kept = {table: await stores.count(table) // 2 for table in TABLES}
            what = {"owner": "u-1"} if by == "owner" else {"label": ("account", "a-1")}
            assert (await erase(ports, **what, validate_only=True)).total == 6
            started = await erase(ports, **what)
            for _ in range(10):
                await step(stores)
                stores.clock.advance(SECOND)
            waits = await again(stores, started)
            assert (waits.state, waits.done, waits.passed) == (OperationState.RUNNING, 5, 1)
            assert (await stores.row(claim.uid))["cancel_request_time"] is not None
            assert await stores.record(claim, State.CANCELLED, reason="CALLER")
            ended = await worked_off(stores, started)
            assert (ended.state, ended.done, ended.passed) == (OperationState.DONE, 6, 0)
            assert await left_of(stores, "u-1") == {"owner_days"}
            assert {table: await stores.count(table) for table in TABLES} == kept

    run(scenario())


def test_the_counts_of_an_erased_owners_past_days_go_and_todays_stays(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.one_off(owner="u-1")
            stores.clock.advance(timedelta(days=1))
            await stores.one_off(owner="u-1")
            await worked_off(stores, await erase(ports_of(stores, targets), "u-1"))
            rows = await stores.query("SELECT day FROM owner_days WHERE owner = 'u-1'")
            assert [row["day"] for row in rows] == [stores.clock.now().date()]

    run(scenario())


def test_large_jobs_are_erased_in_several_pieces(
    database_url: str, targets: TargetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BUDGET", 5)

    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await many_runs(stores, 23, owner="u-1")
            (row,) = await stores.query("SELECT job_id FROM jobs")
            for uid in uids[:11]:
                await stores.store.cancel_execution(row["job_id"], uid)
            for _ in range(9):
                await stores.one_off(stores.clock.now() + HOUR, owner="u-1")
            ended = await worked_off(stores, await erase(ports_of(stores, targets), "u-1"))
            assert (ended.done, await left_of(stores, "u-1")) == (10, {"owner_days"})

    run(scenario())


def test_jobs_created_after_the_call_are_left_alone(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.one_off(stores.clock.now() + HOUR, owner="u-1")
            started = await erase(ports_of(stores, targets), "u-1")
            stores.clock.advance(SECOND)
            late = await stores.one_off(stores.clock.now() + HOUR, owner="u-1")
            assert (await worked_off(stores, started)).done == 1
            assert await stores.state(late) is State.PENDING

    run(scenario())


# --- leaders, crashes, repeats ----------------------------------------------------------------------------------------


def test_two_steppers_at_once_do_each_one_once(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as one, open_stores(database_url, one.clock) as two:
            uids = await letters(one, 300)
            await one.lead()
            two.term = one.term
            started = [await retry(ports_of(one, targets), rate=200), await retry(ports_of(one, targets), rate=200)]
            stepping = [SteppingStore(each.database) for each in (one, two)]
            for _ in range(20):
                await asyncio.gather(*(step(each, it) for each, it in zip((one, two), stepping, strict=True)))
                one.clock.advance(SECOND)
            ended = [await again(one, each) for each in started]
            assert {each.state for each in ended} == {OperationState.DONE}
            assert (sum(each.done for each in ended), await states(one, uids)) == (300, {State.PENDING})

    run(scenario())


def test_nothing_is_done_under_a_term_that_has_ended(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await letters(stores, 3)
            await retry(ports_of(stores, targets))
            term = await stores.lead()
            await stores.query("UPDATE leadership SET term = term + 1")
            steps, is_running = await SteppingStore(stores.database).step_operations(term)
            assert (list(steps), is_running, await states(stores, uids)) == ([], True, {State.FAILED})

    run(scenario())


def test_a_piece_that_dies_before_its_commit_is_done_again_and_counted_once(
    database_url: str, targets: TargetTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await letters(stores, 20)
            started = await retry(ports_of(stores, targets), rate=10)
            await step(stores)
            before = await again(stores, started)
            assert 0 < before.done < 20
            stores.clock.advance(SECOND)

            async def dies(*arguments: Any) -> Step:
                raise asyncio.CancelledError

            dying = SteppingStore(stores.database)
            monkeypatch.setattr(dying, "_write", dies)
            with pytest.raises(asyncio.CancelledError):
                await step(stores, dying)
            assert await again(stores, started) == before
            assert await moved_of(stores, uids) == before.done
            ended = await worked_off(stores, started)
            assert (ended.done, await states(stores, uids)) == (20, {State.PENDING})

    run(scenario())


def test_a_cancelled_operation_stops_and_keeps_what_it_did(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            uids = await letters(stores, 20)
            started = await retry(ports, rate=10)
            await step(stores)
            cancelled = await bulk.cancel_operation(ports, started.name.removeprefix("operations/"))
            assert (cancelled.state, cancelled.end_time) == (OperationState.CANCELLED, stores.clock.now())
            stores.clock.advance(MINUTE)
            assert await step(stores) == []
            moved = await moved_of(stores, uids)
            assert 0 < moved == cancelled.done < 20
            assert await bulk.cancel_operation(ports, started.name.removeprefix("operations/")) == cancelled

    run(scenario())


def test_a_repeat_gets_the_first_operation_and_another_body_is_refused(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            await letters(stores, 3, owner="u-1")
            repeat = Repeat("bulk-1", b"cancel")
            first = await cancel(ports, "owner = u-1", repeat=repeat)
            ended = await worked_off(stores, first)
            assert await cancel(ports, "owner = u-1", repeat=repeat) == ended
            assert await stores.count("operations") == 1
            with pytest.raises(AlreadyExists):
                await erase(ports, "u-1", repeat=Repeat("bulk-1", b"erase"))
            assert await stores.count("jobs") == 3
            calls = [retry(ports, repeat=Repeat("bulk-2", b"retry")) for _ in range(5)]
            assert len({each.name for each in await asyncio.gather(*calls)}) == 1

    run(scenario())


def test_an_operation_that_cannot_go_on_holds_no_other_up(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            uids = await letters(stores, 3)
            stuck, fine = await retry(ports), await retry(ports)
            await stores.query("UPDATE operations SET filter = 'nonsense' WHERE uid = %s", stuck.uid)
            assert (await worked_off(stores, fine)).done == 3
            assert await states(stores, uids) == {State.PENDING}
            assert (await again(stores, stuck)).state is OperationState.RUNNING
            (problem,) = {each.problem for each in await step(stores) if each.problem} or {"InvalidRequest"}
            assert problem == "InvalidRequest"

    run(scenario())


def test_what_ended_long_ago_is_forgotten(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            await worked_off(stores, await retry(ports))
            running = await retry(ports)
            stores.clock.advance(timedelta(days=29))
            pruning, ever = PruningStore(stores.database), timedelta(days=365)
            assert await pruning.prune_oddments(stores.term, timedelta(days=1)) == 0
            stores.clock.advance(timedelta(days=2))
            assert await pruning.prune_oddments(stores.term, ever) == 1
            assert (await again(stores, running)).state is OperationState.RUNNING

    run(scenario())


def test_operations_are_listed_newest_first_and_by_filter(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            ports = ports_of(stores, targets)
            made = []
            for _ in range(3):
                made.append(await retry(ports))
                stores.clock.advance(SECOND)
            made.append(await erase(ports, "u-1"))
            first = await bulk.list_operations(ports, ListQuery(page_size=3))
            second = await bulk.list_operations(ports, ListQuery(page_size=3, page_token=first.next_page_token))
            assert [each.name for each in (*first.items, *second.items)] == [each.name for each in reversed(made)]
            chosen = await bulk.list_operations(ports, ListQuery(filter="method = ERASE_JOBS AND owner = u-1"))
            assert [each.name for each in chosen.items] == [made[-1].name]

    run(scenario())


def test_dead_letters_are_listed_by_their_index_however_much_else_there_is(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await letters(stores, 5)
            await many_runs(stores, 5000)
            await stores.query("ANALYZE executions")
            expression = parse_filter("state = FAILED", EXECUTION_FIELDS)
            page = PageRequest(50, "create_time", descending=True, filter=expression)
            found, _ = await stores.store.list_executions(None, page)
            assert len(found) == 5
            keys = [uid_key(executions.c.uid)]
            select = page_bounds(sa.select(executions.c.uid), page, keys, filter_columns(executions))
            dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library left it untyped
            text = str(select.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            plan = await stores.query(f"EXPLAIN {text}".replace("%", "%%"))
            assert "executions_failed" in str(plan)

    run(scenario())
