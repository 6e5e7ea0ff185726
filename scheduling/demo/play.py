"""The play: asks for the load, cancels, kills a worker in the middle, waits for the end and gathers the evidence."""

from __future__ import annotations

import asyncio
from datetime import datetime

import grpc.aio

from scheduling.demo.asking import Api, AskError
from scheduling.demo.load import Plan, Wish
from scheduling.demo.stage import Stage
from scheduling.demo.verdict import Call, Evidence, ExecutionReport
from scheduling.demo.watch import Progress, View, follow
from scheduling.domain.clock import Clock

#: Seconds after the end of the window in which everything must have ended.
PATIENCE = 45.0
#: Running calls that the victim must have at least, so that its end cuts some off.
VICTIM_CALLS = 3
#: Seconds that a victim is looked for, and until it is replaced.
HUNT_SECONDS, REPLACE_SECONDS = 4.0, 1.0


class PlayError(Exception):
    """The demo could not go on; the text says why."""


class Play:
    """One run of the demo on a stage."""

    def __init__(self, stage: Stage, plan: Plan, progress: Progress, view: View, clock: Clock) -> None:
        self._stage = stage
        self._plan = plan
        self._progress = progress
        self._view = view
        self._clock = clock
        self._killed: tuple[str, datetime] | None = None

    async def run(self) -> Evidence:
        """Plays to the end. Raises AskError and PlayError when it cannot go on."""
        async with grpc.aio.insecure_channel(self._stage.address) as channel:
            api = Api(channel, self._clock)
            self._progress.api = api
            self._progress.firings = self._plan.firings
            self._progress.jobs = sum(1 for _ in self._plan.wishes)
            watching = asyncio.Event()
            helpers = [
                asyncio.create_task(follow(api, self._progress, watching)),
                asyncio.create_task(self._view.keep_showing()),
                asyncio.create_task(self._guard()),
            ]
            main = asyncio.create_task(self._act(api, watching))
            try:
                done, _ = await asyncio.wait([main, *helpers], return_when=asyncio.FIRST_COMPLETED)
                # A helper ends only by an error, which is then what there is to tell.
                for task in done:
                    task.result()
                return await main
            except BaseExceptionGroup as group:
                raise _first_of(group) from None
            finally:
                for task in (main, *helpers):
                    task.cancel()
                await asyncio.gather(main, *helpers, return_exceptions=True)

    async def _act(self, api: Api, watching: asyncio.Event) -> Evidence:
        await watching.wait()
        plan = self._plan
        self._progress.phase = "creating"
        await api.create(plan.first)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._create(api))
            group.create_task(self._cancel(api))
            group.create_task(self._kill(api))
        await self._wait_for_end(api)
        self._progress.phase = "comparing"
        return await self._gather(api)

    async def _create(self, api: Api) -> None:
        began = self._progress.elapsed
        await api.create_all(self._plan)
        seconds = self._progress.elapsed - began
        tally = api.tally
        zones = len(self._plan.zones)
        self._view.told(
            f"{tally.created:,} jobs of {len(self._plan.owners)} owners in {zones} zones created in {seconds:.1f} s; "
            f"{len(tally.repeats)} creations repeated"
        )
        self._progress.phase = "delivering"

    async def _cancel(self, api: Api) -> None:
        """Cancels what is to be cancelled, each when it is its time."""

        async def cancel(wish: Wish) -> None:
            await self._until(_when(wish))
            await api.cancel(await self._created(api, wish))

        async with asyncio.TaskGroup() as group:
            for wish in self._plan.wishes:
                if wish.cancel_at is not None:
                    group.create_task(cancel(wish))
        self._view.told(f"{api.tally.cancelled} jobs and executions cancelled")

    async def _created(self, api: Api, wish: Wish) -> Wish:
        while True:
            found = api.tally.wishes.get(wish.request.request_id)
            if found is not None:
                return found
            await self._clock.sleep(0.05)

    async def _kill(self, api: Api) -> None:
        """Kills the worker that leads or, if it makes too few calls, the one that makes the most; and replaces it."""
        await self._until(self._plan.kill_at)
        for _ in range(int(HUNT_SECONDS / 0.1)):
            status = await api.status()
            busy = [worker for worker in status.workers if worker.running_count >= VICTIM_CALLS]
            if busy:
                break
            await self._clock.sleep(0.1)
        else:
            raise PlayError(f"no worker was running {VICTIM_CALLS} calls at once when one was to be killed")
        victim = max(busy, key=lambda worker: (worker.worker == status.leader, worker.running_count))
        part = self._stage.kill_worker(victim.worker)
        self._killed = (victim.worker, self._clock.now())
        leads = ", which led," if victim.worker == status.leader else ""
        self._view.told(f"{part.name}{leads} killed with -9 while it ran {victim.running_count} calls")
        await self._clock.sleep(REPLACE_SECONDS)
        await asyncio.to_thread(self._stage.start_worker)
        self._view.told("a new worker has taken its place")

    async def _wait_for_end(self, api: Api) -> None:
        await self._until(self._plan.end)
        self._progress.phase = "finishing"
        deadline = self._clock.monotonic() + PATIENCE
        while await api.has_open():
            if self._clock.monotonic() > deadline:
                self._view.told(f"not everything has ended {PATIENCE:.0f} s after it should have")
                return
            await self._clock.sleep(0.2)

    async def _gather(self, api: Api) -> Evidence:
        executions = await api.executions()
        jobs = {report.job: report for report in await api.jobs(self._plan.run)}
        asked = [api.tally.wishes[wish.request.request_id].asked for wish in self._plan.wishes]
        for each in asked:
            if each.job_cancelled:
                jobs[each.job] = await api.job(each.job)
        calls = await asyncio.to_thread(self._stage.received)
        self._note_first_delivery(executions, calls)
        worker, moment = self._killed if self._killed is not None else ("", None)
        return Evidence(asked, list(jobs.values()), executions, calls, api.tally.repeats, worker, moment)

    def _note_first_delivery(self, executions: list[ExecutionReport], calls: list[Call]) -> None:
        known = {execution.uid for execution in executions}
        first = min((call.received for call in calls if call.code == "OK" and call.key in known), default=None)
        if first is not None:
            now = self._clock.now()
            self._progress.first_delivery = self._progress.elapsed - (now - first).total_seconds()

    async def _guard(self) -> None:
        """Ends the demo when a part of the stage has ended by itself."""
        while True:
            ended = self._stage.ended()
            if ended:
                raise PlayError("\n".join(ended))
            await self._clock.sleep(0.5)

    async def _until(self, moment: datetime) -> None:
        await self._clock.sleep((moment - self._clock.now()).total_seconds())


def _when(wish: Wish) -> datetime:
    assert wish.cancel_at is not None
    return wish.cancel_at


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first, out of the groups that task groups make."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first_of(error)
        if isinstance(error, (AskError, PlayError)):
            return error
    return group.exceptions[0]
