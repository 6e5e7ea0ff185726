"""The audit: what is written down with a change, what never is, and that refusals cannot hurt."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from scheduling.delivery.targets import TargetTable
from scheduling.domain.audit import AuditOutcome, Refusal, acting
from scheduling.domain.errors import PermissionDenied, StoreUnavailable
from scheduling.domain.execution import Execution
from scheduling.domain.ids import execution_id, uuid7
from scheduling.domain.lifecycle import State
from scheduling.domain.pause import Scope
from scheduling.operations import bulk
from scheduling.operations.auditing import MAX_WAITING, RefusalLog
from scheduling.operations.drafts import Repeat
from scheduling.operations.ports import JobChange, NewOperation, PageRequest
from scheduling.storage.restoring import RestoringStore
from tests.integration.test_bulk import worked_off
from tests.integration.test_operations_repeats import ports_of
from tests.integration.test_store_redriving import dead_letter
from tests.support.builders import PRINCIPAL, SEND, every, new_job, once
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores

SECRET = b"a message that nobody else may read"
OTHER = "spiffe://cluster.local/ns/whispr/sa/media-service"


@dataclass(frozen=True, slots=True)
class Acts:
    principal: str = PRINCIPAL
    method: str = "whispr.scheduling.v1.SchedulingService/UpdateJob"
    request_id: str = "request-1"


@contextmanager
def somebody() -> Iterator[None]:
    token = acting.set(Acts())
    try:
        yield
    finally:
        acting.reset(token)


async def entries(stores: Stores, resource: str = "", **more: Any) -> list[Any]:
    found, _ = await stores.store.list_audit(PageRequest(1000, "time", descending=True, **more), resource)
    return list(found)


def test_a_change_is_told_with_what_was_before_and_after_and_never_with_its_payload(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(START))
            stored = await stores.store.get_job(job.job_id, with_payload=True)
            assert stored is not None
            with somebody():
                change = JobChange(display_name="new", request=SECRET, timeout=timedelta(seconds=7))
                assert await stores.store.update_job(stored, change) is not None
            # Both are of one moment of the manual clock, so that either may come first.
            created, changed = sorted(await entries(stores, job.name), key=lambda each: each.rpc)
            assert (changed.principal, changed.rpc, changed.request_id) == (
                PRINCIPAL,
                "SchedulingService/UpdateJob",
                "request-1",
            )
            assert (changed.resource, changed.outcome, changed.count) == (job.name, AuditOutcome.CHANGED, 1)
            assert changed.before == {
                "display_name": "",
                "timeout": "30s",
                "request_bytes": stored.request_bytes,
                "revision": 1,
            }
            assert changed.after == {
                "display_name": "new",
                "timeout": "7s",
                "request": "changed",
                "request_bytes": len(SECRET),
                "revision": 2,
            }
            assert (created.rpc, created.principal, created.before) == (
                "SchedulingService/CreateJob",
                job.principal,
                None,
            )
            rows = await stores.query("SELECT before::text, after::text FROM audit")
            assert SECRET.decode() not in json.dumps(rows)

    run(scenario())


def test_what_was_deleted_is_told_as_it_was(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(START, owner="user-7", schedule=every(START, timedelta(minutes=1))))
            with somebody():
                assert await stores.store.delete_job(job, force=True)
            (gone,) = await entries(stores, job.name)
            assert gone.after is None
            assert (gone.before["owner"], gone.before["principal"], gone.before["job_id"]) == (
                "user-7",
                job.principal,
                job.job_id,
            )
            assert "request" not in gone.before

    run(scenario())


def test_a_change_that_fails_or_changes_nothing_or_is_nobodys_has_no_entry(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            (job,) = await stores.create(new_job(START))
            assert await stores.store.cancel_job(job.job_id, None) is not None
            with somebody():
                assert await stores.store.cancel_job(job.job_id, None) is not None
                assert await stores.store.update_job(job, JobChange(display_name="late")) is None
            assert await stores.count("audit") == 0

    run(scenario())


def test_entries_of_a_resource_are_those_of_what_belongs_to_it_and_of_no_other(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            a, b = await stores.create(new_job(START, job_id="a"), new_job(START, job_id="a-b"))
            with somebody():
                await stores.store.cancel_job("a", None)
                await stores.store.cancel_job("a-b", None)
                await stores.store.add_refusals(
                    [
                        Refusal(
                            OTHER, "SchedulingService/GetJob", "jobs/a/executions/x", "JOB_NOT_GRANTED", "job", "r", 3
                        )
                    ]
                )
            found = await entries(stores, a.name)
            assert {each.resource for each in found} == {"jobs/a", "jobs/a/executions/x"}
            assert len(found) == 3
            assert [each.count for each in found if each.outcome is AuditOutcome.REFUSED] == [3]
            assert len(await entries(stores, b.name)) == 2
            assert await entries(stores, "jobs/%") == []
            everything = await entries(stores)
            assert [each.uid for each in everything] == sorted((each.uid for each in everything), reverse=True)
            pages, after = list[Any](), None
            while True:
                page, after = await stores.store.list_audit(PageRequest(2, "time", descending=True, after=after), "")
                pages += page
                if after is None:
                    break
            assert pages == everything

    run(scenario())


def test_what_operators_change_is_told_too_and_once(database_url: str, targets: TargetTable) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            job, uid = await dead_letter(stores)
            store, controls, ports = stores.store, stores.controls, ports_of(stores, targets)
            made = await bulk.erase_jobs(ports, PRINCIPAL, "user-7", None, 0, Repeat(), validate_only=True)
            operation_uid = uuid7(START)
            operation = replace(made, uid=operation_uid)
            changes: list[Callable[[], Awaitable[object]]] = [
                lambda: controls.pause(Scope.QUEUE, "HIGH", PRINCIPAL, "too much"),
                lambda: controls.pause(Scope.QUEUE, "HIGH", PRINCIPAL, "again"),
                lambda: controls.resume(Scope.QUEUE, "HIGH"),
                lambda: controls.resume(Scope.QUEUE, "HIGH"),
                lambda: controls.pause(Scope.TARGET, SEND, PRINCIPAL, ""),
                lambda: store.redrive(uid, PRINCIPAL, "", b""),
                lambda: store.redrive(uid, PRINCIPAL, "", b""),
                lambda: store.add_operation(NewOperation(operation)),
                lambda: store.cancel_operation(operation_uid),
                lambda: store.cancel_operation(operation_uid),
                lambda: controls.pause(Scope.SERVICE, "", PRINCIPAL, "restored"),
                lambda: RestoringStore(stores.database).skip([uid]),
                lambda: RestoringStore(stores.database).skip([uid]),
            ]
            with somebody():
                for change in changes:
                    await change()
                    stores.clock.advance(1)
            found = [(each.resource, each.before, each.after) for each in await entries(stores) if each.request_id]
            assert found[::-1] == [
                ("queues/high", None, {"paused": True, "note": "too much"}),
                ("queues/high", {"paused": True, "principal": PRINCIPAL, "note": "too much"}, {"paused": False}),
                (f"targets/{SEND.replace('/', '.')}", None, {"paused": True, "note": ""}),
                (f"{job.name}/executions/{execution_id(uid)}", {"state": "FAILED"}, {"state": "PENDING"}),
                (operation.name, None, {"method": "ERASE_JOBS", "owner": "user-7", "rate": 100}),
                (operation.name, {"state": "RUNNING"}, {"state": "CANCELLED", "done": 0, "failed": 0}),
                ("service", None, {"paused": True, "note": "restored"}),
                ("service", None, {"skipped": [execution_id(uid)]}),
            ]

    run(scenario())


def test_the_end_of_an_operation_in_bulk_is_told_with_its_number_by_whoever_asked(
    database_url: str, targets: TargetTable
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.create(*(new_job(START, owner="user-7") for _ in range(3)))
            filter_ = 'owner = "user-7"'
            begun = await bulk.batch_cancel_jobs(ports_of(stores, targets), PRINCIPAL, filter_, 2, Repeat())
            # Nobody acts in the loop that works it off.
            await worked_off(stores, begun)
            (told,) = await entries(stores, begun.name)
            assert (told.principal, told.rpc) == (PRINCIPAL, "SchedulingService/BatchCancelJobs")
            assert told.before == {"state": "RUNNING"}
            assert told.after == {"state": "DONE", "done": 3, "failed": 0}

    run(scenario())


def test_the_database_refuses_to_rewrite_what_happened(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await stores.create(new_job(START, job_id="a"))
            with somebody():
                await stores.store.cancel_job("a", None)
            with pytest.raises(psycopg.errors.RaiseException):
                await stores.query("UPDATE audit SET principal = 'nobody'")

    run(scenario())


class Sink:
    """Where refusals go; may be away."""

    def __init__(self) -> None:
        self.batches: list[list[Refusal]] = []
        self.away = False

    async def add_refusals(self, refusals: Sequence[Refusal]) -> None:
        if self.away:
            raise StoreUnavailable
        self.batches.append(list(refusals))


def denied(job: str) -> PermissionDenied:
    return PermissionDenied("no", reason="JOB_NOT_GRANTED", metadata={"missing": "job", "job": job})


def test_a_flood_of_refusals_is_a_bounded_number_of_entries_and_the_rest_is_counted() -> None:
    async def scenario() -> None:
        sink, dropped = Sink(), list[int]()
        log = RefusalLog(sink, dropped.append)
        for number in range(10_000):
            log.note(PRINCIPAL, "SchedulingService/GetJob", f"r{number}", denied(f"jobs/{number % 1000}"))
        await log.tick()
        (batch,) = sink.batches
        assert len(batch) == MAX_WAITING
        assert sum(each.count for each in batch) + sum(dropped) == 10_000
        assert all(each.request_id == f"r{each.resource[5:]}" for each in batch)
        await log.tick()
        assert len(sink.batches) == 1

    run(scenario())


def test_refusals_wait_while_the_database_is_away() -> None:
    async def scenario() -> None:
        sink = Sink()
        log = RefusalLog(sink)
        sink.away = True
        log.note(PRINCIPAL, "SchedulingService/GetJob", "r1", denied("jobs/a"))
        with pytest.raises(StoreUnavailable):
            await log.tick()
        log.note(PRINCIPAL, "SchedulingService/GetJob", "r2", denied("jobs/a"))
        sink.away = False
        await log.tick()
        ((entry,),) = sink.batches
        assert (entry.count, entry.request_id, entry.resource) == (2, "r1", "jobs/a")

    run(scenario())


def test_lists_of_a_principal_hold_only_what_is_its_own_and_read_nothing_of_others(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            mine = [new_job(START, schedule=once(START, START + timedelta(hours=1))) for _ in range(5)]
            await stores.create(*mine)
            for _ in range(4):
                others = [new_job(START, principal=OTHER, schedule=once(START)) for _ in range(500)]
                await stores.create(*others)
            await stores.query("ANALYZE")
            wanted = sorted(new.job_id for new in mine)
            for order in ("create_time", "job_id"):
                page = PageRequest(3, order, descending=False, principals=frozenset({PRINCIPAL, "spiffe://x/y"}))
                first, after = await stores.store.list_jobs(page)
                rest, end = await stores.store.list_jobs(
                    PageRequest(3, order, descending=False, after=after, principals=page.principals)
                )
                assert sorted(job.job_id for job in [*first, *rest]) == wanted
                assert (len(first), end) == (3, None)
            page = PageRequest(100, "create_time", descending=True, principals=frozenset({PRINCIPAL}))
            assert len((await stores.store.list_executions(None, page))[0]) == 5
            assert len((await stores.store.list_schedules(None, page))[0]) == 5
            found, _ = await stores.store.read_open(
                None, None, principals=frozenset({PRINCIPAL}), after=None, with_payload=False, limit=100
            )
            assert [each for each in found if each.job_id not in wanted] == []
            states = "state IN ('PENDING', 'FAILED')"
            plan = await stores.query(
                f"EXPLAIN SELECT uid FROM executions WHERE principal = %s AND {states} ORDER BY uid DESC LIMIT 50",
                PRINCIPAL,
            )
            assert "executions_principal_waiting" in str(plan)

    run(scenario())


@pytest.mark.parametrize("descending", [False, True])
def test_a_principal_finds_its_executions_in_whatever_state_they_are(database_url: str, *, descending: bool) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            due = [new_job(START, schedule=once(START)) for _ in range(6)]
            later = [new_job(START, schedule=once(START, START + timedelta(hours=1))) for _ in range(3)]
            await stores.create(
                *due, *later, *(new_job(START, principal=OTHER, schedule=once(START)) for _ in range(3))
            )
            released = await stores.released()
            await stores.claim(await stores.worker(), *released[:4])
            page = PageRequest(4, "create_time", descending=descending, principals=frozenset({PRINCIPAL}))
            found: list[Execution] = []
            after = None
            while True:
                some, after = await stores.store.list_executions(None, replace(page, after=after))
                found += some
                if after is None:
                    break
            assert found == sorted(found, key=lambda each: each.uid, reverse=descending)
            assert sorted(each.job_id for each in found) == sorted(new.job_id for new in [*due, *later])
            assert {each.state for each in found} >= {State.PENDING, State.RUNNING}

    run(scenario())
