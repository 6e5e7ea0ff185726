"""Calls that wait at the same time are done together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from scheduling.domain.errors import Overloaded
from scheduling.storage import grouping
from scheduling.storage.grouping import ENOUGH, GROUP_WEIGHT, LANES, Grouper
from tests.support.run import Signal, run


class Gate:
    """Work that stops until it is let through, and doubles its items."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()
        self.changed = Signal()
        self.error: BaseException | None = None

    async def work(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.changed.notify()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [item * 2 for item in items]


async def submit(grouper: Grouper[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = []
    for item in items:
        tasks.append(asyncio.create_task(grouper.submit(item)))
        await settle()
    return tasks


async def settle() -> None:
    """Lets every task that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)  # noqa: TID251 - yields, waits for nothing


def test_a_call_that_finds_nothing_under_way_goes_at_once_and_alone() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        grouper = Grouper(gate.work)
        assert [await grouper.submit(n) for n in range(3)] == [0, 2, 4]
        assert gate.groups == [[0], [1], [2]]

    run(scenario())


def test_calls_that_come_meanwhile_form_the_next_group() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        tasks = await submit(grouper, *range(10))
        assert gate.groups == [[0]]
        gate.open.set()
        assert await asyncio.gather(*tasks) == [n * 2 for n in range(10)]
        assert gate.groups[1:] == [list(range(1, 10))]

    run(scenario())


def test_enough_calls_take_a_lane_of_their_own_and_so_does_a_heavy_one() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        tasks = await submit(grouper, *range(ENOUGH + 2))
        assert gate.groups == [[0], list(range(1, ENOUGH + 1))]
        gate.open.set()
        await asyncio.gather(*tasks)
        gate = Gate()
        grouper = Grouper(gate.work, weight=lambda item: item)
        tasks = await submit(grouper, 1, 2, ENOUGH)
        assert gate.groups == [[1], [2, ENOUGH]]
        assert len(gate.groups) == LANES
        gate.open.set()
        await asyncio.gather(*tasks)

    run(scenario())


def test_a_group_weighs_no_more_than_its_bound_unless_one_item_alone_does() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work, weight=lambda item: item)
        heavy = GROUP_WEIGHT + 1
        tasks = await submit(grouper, 1, GROUP_WEIGHT, 300, 200, 300, heavy, 5)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.groups == [[1], [GROUP_WEIGHT], [300, 200], [300], [heavy], [5]]

    run(scenario())


def test_a_failure_of_the_work_reaches_each_of_its_group_and_nobody_else() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        gate.error = ValueError("broken")
        first = await submit(grouper, 1, 2)
        later = await submit(grouper, 3)
        gate.open.set()
        results = await asyncio.gather(*first, *later, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 3
        gate.error = None
        assert await grouper.submit(4) == 8

    run(scenario())


def test_nothing_is_begun_for_a_caller_that_went_before_its_turn() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        tasks = await submit(grouper, 1, 2, 3, 4)
        tasks[2].cancel()
        await settle()
        gate.open.set()
        assert await tasks[3] == 8
        assert gate.groups == [[1], [2, 4]]
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario())


def test_what_was_begun_goes_on_when_its_caller_goes() -> None:
    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        (task,) = await submit(grouper, 1)
        task.cancel()
        await settle()
        gate.open.set()
        assert await grouper.submit(2) == 4
        assert gate.groups == [[1], [2]]

    run(scenario())


def test_more_than_may_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MAX_WAITING", 3)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        tasks = await submit(grouper, *range(1 + 3))
        with pytest.raises(Overloaded) as refused:
            await grouper.submit(99)
        assert refused.value.retry_after.total_seconds() > 0
        gate.open.set()
        await asyncio.gather(*tasks)
        assert await grouper.submit(99) == 198

    run(scenario())


async def answered_together(gate: Gate, grouper: Grouper[int, int], count: int) -> None:
    """Has so many callers answered in one group, none of whom is back yet."""
    first = await submit(grouper, 0)
    gate.open.clear()
    tasks = await submit(grouper, *range(1, count))
    gate.open.set()
    await asyncio.gather(*first, *tasks)
    gate.groups.clear()


def test_a_group_is_held_until_half_of_those_answered_together_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLD", "EXPECTED"):
        monkeypatch.setattr(grouping, name, 3600.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        await answered_together(gate, grouper, 10)
        tasks = await submit(grouper, *range(4))
        assert gate.groups == []
        tasks += await submit(grouper, 4)
        assert gate.groups == [[0, 1, 2, 3, 4]]
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]

    run(scenario())


def test_a_group_is_sent_when_those_who_are_expected_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "EXPECTED", 3600.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        await answered_together(gate, grouper, 10)
        assert await grouper.submit(1) == 2
        assert gate.groups == [[1]]

    run(scenario())


def test_the_last_caller_is_soon_not_held_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "EXPECTED", 3600.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        await answered_together(gate, grouper, 10)
        for n in range(grouping.IN_VAIN):
            await grouper.submit(n)
        monkeypatch.setattr(grouping, "HOLD", 3600.0)
        assert await grouper.submit(1) == 2

    run(scenario())


def test_nobody_is_expected_back_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "HOLD", 3600.0)
    monkeypatch.setattr(grouping, "EXPECTED", -1.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        await answered_together(gate, grouper, 10)
        assert await grouper.submit(1) == 2

    run(scenario())


def test_a_heavy_call_is_not_held_and_takes_those_who_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLD", "EXPECTED"):
        monkeypatch.setattr(grouping, name, 3600.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work, weight=lambda item: item)
        await answered_together(gate, grouper, 10)
        tasks = await submit(grouper, 1, ENOUGH)
        assert await asyncio.gather(*tasks) == [2, 2 * ENOUGH]
        assert gate.groups == [[1, ENOUGH]]

    run(scenario())


def test_callers_who_go_while_they_are_held_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLD", "EXPECTED"):
        monkeypatch.setattr(grouping, name, 3600.0)

    async def scenario() -> None:
        gate = Gate()
        grouper = Grouper(gate.work)
        await answered_together(gate, grouper, 10)
        (gone,) = await submit(grouper, 1)
        gone.cancel()
        await settle()
        tasks = await submit(grouper, 2, 3, 4, 5)
        assert await asyncio.gather(*tasks) == [4, 6, 8, 10]
        assert gate.groups == [[2, 3, 4, 5]]
        await asyncio.gather(gone, return_exceptions=True)

    run(scenario())


def test_few_wait_for_the_lane_that_is_under_way_when_the_other_ends() -> None:
    async def scenario() -> None:
        gate = Gate()
        release = asyncio.Event()

        async def first_is_slow(items: Sequence[int]) -> Sequence[int]:
            results = await gate.work(items)
            if items[0] == 0:
                await release.wait()
            return results

        grouper = Grouper(first_is_slow)
        tasks = await submit(grouper, *range(ENOUGH + 3))
        gate.open.set()
        await asyncio.gather(*tasks[1 : ENOUGH + 1])
        assert len(gate.groups) == 2
        release.set()
        await asyncio.gather(*tasks)
        assert gate.groups[2] == [ENOUGH + 1, ENOUGH + 2]

    run(scenario())
