"""A worker process of which a part has ended: it stops, with an error, instead of looking alive.

None of this needs PostgreSQL: a worker starts and stops without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from scheduling import app
from scheduling.app import SystemClock, Worker, WorkerFailed, build_targets, run_worker
from scheduling.cli import processes
from scheduling.delivery.engine import DeliveryEngine
from scheduling.settings import Settings
from scheduling.storage.database import Database
from tests.support.run import run

#: Where nothing listens.
NOWHERE = "postgresql://127.0.0.1:1/nothing"


def settings() -> Settings:
    """A worker that stops at once, without PostgreSQL and Redis."""
    return Settings(database_url=NOWHERE, metrics_listen="", worker_drain=timedelta(0))


@asynccontextmanager
async def started() -> AsyncIterator[Worker]:
    """A worker; stopped at the end."""
    of_test = settings()
    async with Database(NOWHERE, application="tests", size=4) as database:
        worker = Worker(of_test, database, database, build_targets(of_test), SystemClock())
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()


@pytest.mark.parametrize("name", ["engine", "lease", "leadership", "pulse", "listener"])
def test_a_worker_fails_when_one_of_its_parts_ends(name: str) -> None:
    async def scenario() -> None:
        async with started() as worker:
            (part,) = [each for each in (*worker._tasks, *worker._vital_tasks) if each.get_name() == name]
            work = asyncio.create_task(worker.work(asyncio.Event()))
            await asyncio.wait({work}, timeout=0.05)
            assert not work.done()
            part.cancel()
            with pytest.raises(WorkerFailed, match=name):
                await work

    run(scenario())


def test_a_worker_works_until_it_is_told_to_stop() -> None:
    async def scenario() -> None:
        async with started() as worker:
            stop = asyncio.Event()
            work = asyncio.create_task(worker.work(stop))
            stop.set()
            await work

    run(scenario())


def test_a_process_whose_engine_dies_stops_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(_: object) -> None:
        raise RuntimeError("a defect")

    async def scenario() -> None:
        monkeypatch.setattr(DeliveryEngine, "run", die)
        told: list[UUID] = []
        with pytest.raises(WorkerFailed, match="engine") as caught:
            await run_worker(settings(), asyncio.Event(), told.append)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert len(told) == 1

    run(scenario())


def test_the_command_says_so_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_settings: Settings, _stop: asyncio.Event, _on_ready: Callable[[UUID], None]) -> None:
        raise WorkerFailed("engine ended unexpectedly")

    monkeypatch.setattr(app, "run_worker", fail)
    monkeypatch.setattr(processes, "read_settings", lambda: Settings(database_url=NOWHERE))
    assert processes.run_process("worker") == processes.FAILED
    assert "engine ended unexpectedly" in capsys.readouterr().err
