"""Executions as callers read, list and watch them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from scheduling.domain.execution import Reason
from scheduling.domain.filters import parse_filter
from scheduling.domain.lifecycle import State
from scheduling.domain.target import Queue
from scheduling.operations import executions as execution_cases
from scheduling.operations.ports import PageRequest
from tests.support.clock import START
from tests.support.run import run
from tests.support.stores import Stores, open_stores
from tests.support.walking import walk

NOW = START
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


async def assorted(stores: Stores) -> dict[str, Any]:
    """Executions in every state, some in the history; their uids by a name."""
    worker = await stores.worker()
    uids: dict[str, Any] = {}
    for name in ("succeeded", "failed", "retrying", "cancelled"):
        uids[name] = await stores.one_off(job_id=name, owner=name)
        (claim,) = await stores.running(worker, uids[name])
        stores.clock.advance(1)
        match name:
            case "succeeded":
                await stores.record(claim)
            case "failed":
                await stores.record(claim, State.FAILED, reason=Reason.PERMANENT, code=3, message="no")
            case "retrying":
                await stores.record(claim, State.PENDING, code=14, ready_time=stores.clock.now() + HOUR)
            case "cancelled":
                await stores.record(claim, State.CANCELLED, reason=Reason.CALLER, code=1)
    uids["running"] = await stores.one_off(job_id="running", queue=Queue.LOW)
    await stores.running(worker, uids["running"])
    uids["queued"] = await stores.one_off(job_id="queued")
    await stores.release()
    uids["pending"] = await stores.one_off(stores.clock.now() + HOUR, job_id="pending")
    return uids


def test_a_walk_over_live_and_ended_executions_is_the_whole_list(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await assorted(stores)
            by_creation = sorted(uids.values())

            def read_page(page: PageRequest) -> Any:
                return stores.store.list_executions(None, page)

            for size in (1, 2, 3, 6, 7, 100):
                for descending in (False, True):
                    found = await walk(read_page, size, "create_time", descending=descending)
                    assert [each.uid for each in found] == sorted(by_creation, reverse=descending)
                    nominal = await walk(read_page, size, "nominal_time", descending=descending)
                    expected = sorted(nominal, key=lambda each: (each.nominal_time, each.uid), reverse=descending)
                    assert nominal == expected
                    assert {each.uid for each in nominal} == set(by_creation)

    run(scenario())


def test_executions_are_found_by_each_of_their_fields(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            names = {uid: name for name, uid in (await assorted(stores)).items()}
            everything = set(names.values())
            for text, expected in {
                "state = SUCCEEDED": {"succeeded"},
                "state = FAILED OR state = CANCELLED": {"failed", "cancelled"},
                "NOT state = SUCCEEDED": everything - {"succeeded"},
                "origin = SCHEDULED": everything,
                "origin = MANUAL": set(),
                'target = "messaging.*"': everything,
                "queue = LOW": {"running"},
                'owner = "failed"': {"failed"},
                'reason = "PERMANENT"': {"failed"},
                'held_by = "OVERLAP"': set(),
                "code = 14": {"retrying"},
                "code > 0": {"failed", "retrying", "cancelled"},
                'nominal_time > "2031-07-01T12:30:00Z"': {"pending"},
                'ready_time > "2031-07-01T12:30:00Z"': {"pending", "retrying"},
                'create_time <= "2031-07-01T12:00:00Z"': {"succeeded"},
                "start_time:*": {"succeeded", "failed", "retrying", "cancelled"},
                'finish_time >= "2031-07-01T12:00:02Z"': {"failed", "cancelled"},
                "attempt_count = 0": {"queued", "pending"},
            }.items():
                page = PageRequest(
                    100, "create_time", descending=False, filter=parse_filter(text, execution_cases.EXECUTION_FIELDS)
                )
                found, _ = await stores.store.list_executions(None, page)
                assert {names[each.uid] for each in found} == expected, text

    run(scenario())


def test_the_executions_of_one_job_are_only_its_own(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await assorted(stores)
            for name, uid in uids.items():
                found, _ = await stores.store.list_executions(name, PageRequest(100, "create_time", descending=True))
                assert [(each.uid, each.job_id) for each in found] == [(uid, name)]

    run(scenario())


def test_a_read_and_a_list_tell_the_same_of_an_execution(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            for name, uid in (await assorted(stores)).items():
                page = PageRequest(10, "create_time", descending=False, with_payload=True)
                (listed,), _ = await stores.store.list_executions(name, page)
                assert listed == await stores.read(name, uid)
                assert listed.state == name.upper() or name == "retrying"

    run(scenario())


def test_a_watch_sees_what_is_open_and_what_ended_since(database_url: str) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            uids = await assorted(stores)
            names = {uid: name for name, uid in uids.items()}

            async def told_open(job_id: str | None = None, text: str = "", **more: Any) -> set[str]:
                filter_ = parse_filter(text, execution_cases.EXECUTION_FIELDS)
                asked = {"after": None, "limit": 100, **more}
                found, moment = await stores.store.read_open(job_id, filter_, with_payload=False, **asked)
                assert moment == stores.clock.now()
                assert [each.uid for each in found] == sorted(each.uid for each in found)
                return {names[each.uid] for each in found}

            async def told_ended(after: Any, until: Any, job_id: str | None = None, limit: int = 100) -> list[str]:
                found = await stores.store.read_ended(
                    job_id, None, after=after, until=until, with_payload=False, limit=limit
                )
                return [names[each.uid] for each in found]

            assert await told_open() == {"retrying", "running", "queued"}
            assert await told_open("pending") == {"pending"}
            assert await told_open(text="state = RUNNING") == {"running"}
            assert await told_open(after=uids["retrying"]) == {"running", "queued"}
            assert await told_open(limit=1) == {"retrying"}
            start, end = (NOW, UUID(int=0)), stores.clock.now()
            assert await told_ended(start, end) == ["succeeded", "failed", "cancelled"]
            assert await told_ended(start, end, limit=2) == ["succeeded", "failed"]
            assert await told_ended((NOW + 2 * SECOND, uids["failed"]), end) == ["cancelled"]
            assert await told_ended(start, NOW + 2 * SECOND) == ["succeeded", "failed"]
            assert await told_ended(start, end, "failed") == ["failed"]

    run(scenario())
