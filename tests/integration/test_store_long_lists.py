"""Lists whose filter lets few through among many: bounded looks, short pages, nothing lost and nothing shown twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from scheduling.domain.filters import parse_filter
from scheduling.domain.lifecycle import State
from scheduling.operations.executions import EXECUTION_FIELDS
from scheduling.operations.jobs import JOB_FIELDS
from scheduling.operations.ports import PageRequest
from scheduling.operations.schedules import SCHEDULE_FIELDS
from scheduling.storage import lists
from scheduling.storage.lists import Position, named
from tests.support.builders import MINUTE, PRINCIPAL
from tests.support.run import run
from tests.support.stores import Stores, open_stores

OTHER = "spiffe://cluster.local/ns/whispr/sa/media-service"
Read = Callable[[PageRequest], Awaitable[tuple[Sequence[Any], Position | None]]]


async def fill(stores: Stores) -> None:
    """Thirty jobs of seven owners and two services; a third has run, some failed, some run, some are queued."""
    uids = []
    for number in range(30):
        service = OTHER if number % 3 == 0 else PRINCIPAL
        of_job: dict[str, Any] = {"owner": f"o-{number % 7}", "principal": service, "labels": {"n": str(number % 11)}}
        if number % 10 == 9:
            await stores.recurring(MINUTE * 30, **of_job)
        elif number % 5 == 4:
            await stores.one_off(stores.clock.now() + timedelta(hours=1), **of_job)
        else:
            uids.append(await stores.one_off(**of_job))
        stores.clock.advance(timedelta(milliseconds=2))
    worker = await stores.worker()
    claims = await stores.running(worker, *uids[:20])
    for number, claim in enumerate(claims[:16]):
        assert await stores.record(claim, State.FAILED if number % 6 == 5 else State.SUCCEEDED)


async def pages(read: Read, page: PageRequest) -> list[Sequence[Any]]:
    """All pages, to the last."""
    found: list[Sequence[Any]] = []
    while True:
        items, position = await read(page)
        assert len(items) <= page.size
        found.append(items)
        if position is None:
            return found
        assert position != page.after
        page = dataclasses.replace(page, after=position)


def reads(stores: Stores) -> dict[str, tuple[Read, Any, Sequence[str]]]:
    """Each list with the fields of its filters, and filters."""
    store = stores.store
    return {
        "jobs": (
            store.list_jobs,
            JOB_FIELDS,
            [
                'owner = "o-3"',
                'labels.n = "4"',
                "state = COMPLETED",
                'NOT owner = "o-3"',
                'owner = "o-1" OR owner = "o-2"',
            ],
        ),
        "executions": (
            lambda page: store.list_executions(None, page),
            EXECUTION_FIELDS,
            [
                *('owner = "o-3"', "state = SUCCEEDED", 'state = FAILED AND owner = "o-5"', "state = QUEUED"),
                "NOT state = PENDING",
            ],
        ),
        "schedules": (
            lambda page: store.list_schedules(None, page),
            SCHEDULE_FIELDS,
            ["kind = INTERVAL", "state = COMPLETED", 'display_name = "none"'],
        ),
    }


@pytest.mark.parametrize("name", ["jobs", "executions", "schedules"])
def test_short_pages_show_everything_once_and_in_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores)
            read, fields, filters = reads(stores)[name]
            was_short = False
            for text in filters:
                for principals in (None, frozenset({OTHER, PRINCIPAL})):
                    for descending in (False, True):
                        page = PageRequest(
                            1000, "create_time", descending, parse_filter(text, fields), principals=principals
                        )
                        monkeypatch.undo()
                        (whole,) = await pages(read, page)
                        monkeypatch.setattr(lists, "STRETCH", 6)
                        monkeypatch.setattr(lists, "PATIENCE", 0.0)
                        for size in (2, 50):
                            found = await pages(read, dataclasses.replace(page, size=size))
                            assert [item for items in found for item in items] == list(whole), (text, size)
                            was_short |= any(len(items) < size for items in found[:-1])
                        # With time, pages are full.
                        monkeypatch.setattr(lists, "PATIENCE", 60.0)
                        found = await pages(read, dataclasses.replace(page, size=3))
                        assert [item for items in found for item in items] == list(whole), text
                        assert all(len(items) == 3 for items in found[:-1])
            assert was_short

    run(scenario())


def test_jobs_by_their_ids_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with open_stores(database_url) as stores:
            await fill(stores)
            page = PageRequest(1000, "job_id", False, parse_filter('labels.n = "4"', JOB_FIELDS))
            (whole,) = await pages(stores.store.list_jobs, page)
            monkeypatch.setattr(lists, "STRETCH", 4)
            monkeypatch.setattr(lists, "PATIENCE", 0.0)
            found = await pages(stores.store.list_jobs, page)
            assert len(found) > 1
            assert [job for jobs in found for job in jobs] == list(whole)

    run(scenario())


def test_what_a_filter_names() -> None:
    def of(text: str) -> frozenset[str] | None:
        return named(parse_filter(text, EXECUTION_FIELDS), "state")

    assert of("state = FAILED") == frozenset({"FAILED"})
    assert of('state = FAILED AND owner = "x"') == frozenset({"FAILED"})
    assert of("state = FAILED OR state = QUEUED") == frozenset({"FAILED", "QUEUED"})
    assert of("state = FAILED AND state = QUEUED") == frozenset()
    assert of('state = FAILED OR owner = "x"') is None
    assert of("state != FAILED") is None
    assert of("NOT state = FAILED") is None
    assert of("") is None
